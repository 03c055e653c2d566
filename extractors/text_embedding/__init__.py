"""The text extractor: splits text, embeds every part, and never drops a character unasked.

Importing this loads neither torch nor transformers: the catalogue and the creation of collections need only
what stands here. Weights come in with the first text.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from domain.errors import Invalid, ObjectFailed, WeightsBroken, WeightsMissing
from domain.features import VectorSpec
from extractors.contract import (
    Catalogue,
    Extraction,
    ModelHome,
    ModelIdentity,
    Output,
    Parameters,
    Part,
    Source,
    Vectors,
)
from extractors.registry import register
from extractors.text_embedding import chunking
from extractors.text_embedding.engine import Engine, choose
from extractors.text_embedding.fitting import Fitter
from extractors.text_embedding.matryoshka import shorten
from extractors.text_embedding.models import Precision
from extractors.text_embedding.places import Places
from extractors.text_embedding.query_cache import QueryCache, QueryKey

if TYPE_CHECKING:
    from domain.json_types import Fields
    from extractors.text_embedding.chunking import Span

# Values of the contract that this extractor knows of and cannot do.
_NOT_YET: Final = ("time_segments", "youtube")
_KINDS: Final = {bool: "true or false", dict: "an object", list: "a list of other things than text"}
_WHERE: Final = ("body", "feature_extractor", "parameters")
_queries: Final = QueryCache()


class TextEmbeddingParameters(Parameters):
    """How text is split and embedded. A null means the default."""

    extractor_type: str | None = None
    model_id: str | None = Field(
        None,
        validation_alias=AliasChoices("model_id", "model", "embedding_model"),
        description="Which model embeds: a repository such as nomic-ai/nomic-embed-text-v2-moe, or an inference name.",
    )
    dimensions: int | None = Field(
        None, ge=1, description="Width of the vectors; those of Matryoshka models may be cut shorter."
    )
    precision: Precision = Field(
        "fp32", description="Arithmetic of the model: exact, or int8, about three times as fast and a little off."
    )
    split_by: Literal["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"] = Field(
        "none", description="The units that parts are made of."
    )
    chunk_size: int = Field(1_000, ge=1, le=10_000, description="Units in a part, at most.")
    chunk_overlap: int = Field(0, ge=0, le=5_000, description="Units that a part shares with the one before it.")
    oversize: Literal["split", "truncate", "reject"] = Field(
        "split",
        description="What happens to a part that is longer than the model reads: further parts, a cut, or a failure.",
    )
    language: str = Field("en", max_length=35, description="Language of the text, for the ends of sentences.")
    source_type: Literal["text"] = Field("text", description="What the input is.")

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw

    @field_validator("split_by", "source_type", mode="before")
    @classmethod
    def _offered(cls, value: Any) -> Any:
        if value in _NOT_YET:
            raise PydanticCustomError("not_offered", "{value} is not offered yet", {"value": repr(value)})
        return value

    @field_validator("chunk_overlap")
    @classmethod
    def _overlap_is_smaller(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("chunk_size")  # absent if it is wrong itself, which is then what the caller hears of
        if size is not None and value >= size:
            message = "{value} units of overlap do not fit into parts of {size}; it must be smaller than chunk_size"
            raise PydanticCustomError("overlap_too_large", message, {"value": value, "size": size})
        return value


@register("text_extractor", "text_embedding")
class TextEmbedding:
    """Text in, documents with vectors out."""

    name: ClassVar[str] = "text_extractor"
    version: ClassVar[str] = "v1"
    Parameters: ClassVar[type[Parameters]] = TextEmbeddingParameters
    catalogue: ClassVar[Catalogue] = Catalogue(
        description="Splits text into parts that the model reads whole, and embeds each. Nothing is dropped unasked.",
        icon="text",
        inputs={"text": "text"},
        output_schema={
            "text": {"type": "string", "description": "The part."},
            "chunk_index": {"type": "integer", "description": "Its place among the parts, from 0."},
            "total_chunks": {"type": "integer", "description": "How many parts the text has."},
            "start_char": {"type": "integer", "description": "Where it begins in the text, in characters."},
            "end_char": {"type": "integer", "description": "Where it ends, exclusive."},
            "token_count": {"type": "integer", "description": "Tokens that the model reads for it, prefix included."},
            "page_number": {"type": "integer", "description": "Of PDF, or with split_by pages: where it begins."},
            "page_end": {"type": "integer", "description": "Of PDF: the page it ends on, if that is another."},
            "heading_path": {"type": "array", "description": "Of HTML, DOCX and Markdown: the headings above it."},
            "chunk_kind": {"type": "string", "description": "With split_by markdown: section or code."},
            "code_language": {"type": "string", "description": "With split_by markdown: what a code block names."},
        },
        supported_input_types=("text", "string", "pdf"),
        has_vectors=True,
        max_inputs={"text": 1},
    )

    def __init__(self, parameters: Any, models: ModelHome) -> None:
        self._parameters: TextEmbeddingParameters = parameters
        self._home = models
        self._model = choose(parameters.model_id, models)
        self._engine = Engine(self._model, models, parameters.precision)
        self._made_fitter: Fitter | None = None
        self._dimensions = parameters.dimensions or self._model.width
        if not self._model.narrowest <= self._dimensions <= self._model.width:
            allowed = f"{self._model.narrowest} to {self._model.width}"
            message = f"{self._model.model_id} makes vectors of {allowed} dimensions, not {self._dimensions}."
            raise Invalid(message, location=(*_WHERE, "dimensions"), code="dimensions_out_of_range")

    def resolved(self) -> TextEmbeddingParameters:
        """Return the parameters with model and width decided."""
        return self._parameters.model_copy(
            update={
                "extractor_type": self.name,
                "model_id": self._model.model_id,
                "embedding_model": self._model.model_id,
                "dimensions": self._dimensions,
            }
        )

    def output(self) -> Output | None:
        """Return the vector index; its revision is empty where the weights have not been seen."""
        try:
            identity = self._engine.identity_at_hand()
        except (WeightsMissing, WeightsBroken):
            identity = None
        spec = VectorSpec(
            self._model.model_id,
            self._model.inference_name,
            identity.revision if identity else "",
            self._dimensions,
            self._parameters.precision,
        )
        return Output(spec, f"Text vectors of {self._model.model_id}", prefix=self._model.document_prefix)

    def identity(self) -> ModelIdentity | None:
        """Return which weights would embed. Raises WeightsMissing, WeightsBroken."""
        return self._engine.identity()

    def parts(self, source: Source) -> Extraction:
        """Split one source into parts that the model reads whole.

        Raises:
            ObjectFailed: INPUT_MISSING, INPUT_NOT_TEXT, EMPTY_TEXT, TOO_MANY_PARTS; or TEXT_TOO_LONG where the
                collection wants such texts refused.
            WeightsMissing, WeightsBroken: there is no tokenizer to count with.
        """
        text, asked = _text(source), self._parameters
        layout = source.layouts.get("text")
        places = Places(layout) if layout else None
        spans = chunking.split(text, asked.split_by, asked.chunk_size, asked.chunk_overlap, asked.language, places)
        fitter = self._fitter()
        lost = 0
        if asked.oversize == "split":
            spans = fitter.fit(text, spans)
        else:
            spans, lost = self._cut_or_refuse(fitter, text, spans)
        # White space at the ends of a part belongs to its span and its text, but is nothing to embed.
        embedded = [chunking.visible(text, span) for span in spans]
        if places is not None:
            spans = [
                replace(one, about={**places.about(*chunking.core(text, one.start, one.end)), **one.about})
                for one in spans
            ]
        elif asked.split_by == "pages":
            spans = [replace(one, about={"page_number": chunking.page_of(text, one.start, one.end)}) for one in spans]
        return Extraction(
            [
                Part({**_place(text, span, index, len(spans)), **span.about}, visible, span.tokens or 0)
                for index, (span, visible) in enumerate(zip(spans, embedded, strict=True))
            ],
            truncated_tokens=lost,
        )

    def document_prefix(self) -> str:
        """Return what the model wants before a document."""
        return self._model.document_prefix

    def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> Vectors:
        """Return float32[n, width], unit length, in order."""
        return self._engine.encode([self._model.document_prefix + text for text in texts], progress)

    def embed_query(self, text: str) -> Vectors:
        """Return float32[dimensions], unit length. Raises Invalid when the query is longer than the model reads."""
        cleaned, prefix, engine = _encodable(text), self._model.query_prefix, self._engine
        key = QueryKey(self._model.model_id, engine.identity().revision, engine.precision, prefix, cleaned)

        def embed() -> Vectors:
            tokens = engine.tokenizer().count([prefix + cleaned])[0]
            if tokens > self._model.max_tokens:
                message = f"{self._model.model_id} reads {self._model.max_tokens} tokens, and the query has {tokens}."
                raise Invalid(f"{message} Shorten it.", code="query_too_long", location=("body", "inputs"))
            return engine.encode([prefix + cleaned], urgent=True)

        vector: Vectors = self.fit(_queries.get(key, embed))[0]
        return vector

    def fit(self, vectors: Vectors) -> Vectors:
        """Return float32[n, dimensions]: cut first, then normalised (Matryoshka)."""
        return shorten(vectors, self._dimensions)

    def _cut_or_refuse(self, fitter: Fitter, text: str, spans: "list[Span]") -> "tuple[list[Span], int]":
        """Return spans that fit and the tokens cut off them; raise ObjectFailed if that is what was asked for."""
        limit, lost = self._model.max_tokens, 0
        spans = fitter.counted(text, spans)
        for index, span in enumerate(spans):
            tokens = span.tokens or 0
            if tokens <= limit:
                continue
            if self._parameters.oversize == "reject":
                what = "The text" if len(spans) == 1 else f"Part {index} of the text"
                message = f"{what} has {tokens} tokens; {self._model.model_id} reads {limit}."
                raise ObjectFailed(message, code="TEXT_TOO_LONG", tokens=tokens, limit=limit)
            [spans[index]] = fitter.counted(text, [fitter.truncate(text, span)])
            lost += max(0, tokens - (spans[index].tokens or 0))
        return spans, lost

    def _fitter(self) -> Fitter:
        if self._made_fitter is None:  # 0.1 ms that would otherwise be paid for every source
            self._made_fitter = Fitter(
                self._engine.tokenizer(), self._model.document_prefix, self._model.max_tokens, self._parameters.language
            )
        return self._made_fitter


def _place(text: str, span: "Span", index: int, total: int) -> "Fields":
    return {
        "text": text[span.start : span.end],
        "chunk_index": index,
        "total_chunks": total,
        "start_char": span.start,
        "end_char": span.end,
        "token_count": span.tokens,
    }


def _text(source: Source) -> str:
    """Return the text of a source; a list of texts is one text of several paragraphs."""
    given = source.inputs.get("text")
    if given is None:
        raise ObjectFailed("The object has no text where the collection looks for it.", code="INPUT_MISSING")
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        given = "\n\n".join(item for item in given if isinstance(item, str))
    if isinstance(given, bool | dict | list):
        raise ObjectFailed(f"The input is {_KINDS[type(given)]}, and no text.", code="INPUT_NOT_TEXT")
    text = _encodable(str(given))
    if chunking.is_blank(text):
        raise ObjectFailed("The text is empty, or white space only.", code="EMPTY_TEXT")
    return text


def _encodable(text: str) -> str:
    """Return a text with halves of surrogate pairs, which no tokenizer takes, replaced one for one."""
    return text.encode("utf-8", "replace").decode()
