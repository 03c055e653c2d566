"""The text extractor: splits text, embeds every part, and never drops a character unasked.

Importing this loads neither torch nor transformers: the catalogue and the creation of collections need only
what stands here. Weights come in with the first text.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import AliasChoices, Field, field_validator, model_validator

from domain.errors import Invalid, ObjectFailed
from domain.features import VectorSpec
from domain.json_types import Fields, Json
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
from extractors.text_embedding import models, weights
from extractors.text_embedding.models import Model

if TYPE_CHECKING:
    from extractors.text_embedding.chunking import Fitter, Span
    from extractors.text_embedding.encoder import Encoder

_WHERE: Final = ("body", "feature_extractor", "parameters")
_encoders: dict[tuple[str, str], "Encoder"] = {}
_loading = threading.Lock()


class TextEmbeddingParameters(Parameters):
    """How text is split and embedded."""

    extractor_type: str | None = None
    model_id: str | None = Field(
        None,
        validation_alias=AliasChoices("model_id", "embedding_model", "model"),
        description="Which model embeds: a repository name such as nomic-ai/nomic-embed-text-v2-moe, or an inference name.",
    )
    dimensions: int | None = Field(
        None, ge=1, description="Width of the vectors; Matryoshka models may be cut shorter."
    )
    precision: Literal["fp32"] = Field("fp32", description="Arithmetic of the model.")
    split_by: Literal["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"] = Field(
        "none", description="The units that parts are made of."
    )
    chunk_size: int = Field(1_000, ge=1, le=10_000, description="Units in a part.")
    chunk_overlap: int = Field(0, ge=0, le=5_000, description="Units that a part shares with the one before it.")
    oversize: Literal["split", "truncate", "reject"] = Field(
        "split",
        description="What happens to a part that is longer than the model reads: further parts, a cut, or a failure.",
    )
    language: str = Field("en", max_length=10, description="Language of the text, for sentence boundaries.")
    source_type: Literal["text"] = Field("text", description="What the input is.")

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw

    @field_validator("chunk_overlap")
    @classmethod
    def _overlap_is_smaller(cls, value: int, info: Any) -> int:
        if value >= info.data.get("chunk_size", 1_000):
            raise ValueError("chunk_overlap must be smaller than chunk_size")
        return value


@register("text_extractor", "text_embedding")
class TextEmbedding:
    """Text in, documents with vectors out."""

    name: ClassVar[str] = "text_extractor"
    version: ClassVar[str] = "v1"
    Parameters: ClassVar[type[Parameters]] = TextEmbeddingParameters
    catalogue: ClassVar[Catalogue] = Catalogue(
        description="Splits text into parts the model can read whole, and embeds each part. Nothing is dropped unasked.",
        icon="text",
        inputs={"text": "text"},
        output_schema={
            "text": {"type": "string"},
            "chunk_index": {"type": "integer"},
            "total_chunks": {"type": "integer"},
            "start_char": {"type": "integer"},
            "end_char": {"type": "integer"},
            "token_count": {"type": "integer"},
        },
        supported_input_types=("text", "string"),
        has_vectors=True,
        max_inputs={"text": 1},
    )

    def __init__(self, parameters: Any, models: ModelHome) -> None:
        self._parameters: TextEmbeddingParameters = parameters
        self._home = models
        self._model = _choose(parameters.model_id, models)
        self._dimensions = parameters.dimensions or self._model.width
        if not self._model.narrowest <= self._dimensions <= self._model.width:
            allowed = f"{self._model.narrowest} to {self._model.width}"
            message = f"{self._model.model_id} makes vectors of {allowed} dimensions, not {self._dimensions}."
            raise Invalid(message, location=(*_WHERE, "dimensions"), code="dimensions_out_of_range")

    def resolved(self) -> Parameters:
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
        revision = self.identity_or_none()
        spec = VectorSpec(
            self._model.model_id,
            self._model.inference_name,
            revision.revision if revision else "",
            self._dimensions,
            self._parameters.precision,
        )
        return Output(spec, f"Text vectors of {self._model.model_id}")

    def identity(self) -> ModelIdentity | None:
        """Return which weights would embed. Raises WeightsMissing, WeightsBroken."""
        return weights.identify(self._model, weights.locate(self._model, self._home))

    def identity_or_none(self) -> ModelIdentity | None:
        """Return which weights would embed, or None where there are none."""
        return self.identity() if weights.is_here(self._model, self._home) else None

    def parts(self, source: Source) -> Extraction:
        """Split one source. Raises ObjectFailed: no text, or too long where that is to be refused."""
        from extractors.text_embedding.chunking import split  # noqa: PLC0415 - the catalogue does not need it

        text = _text(source)
        asked = self._parameters
        spans = split(text, asked.split_by, asked.chunk_size, asked.chunk_overlap, asked.language)
        fitter = self._fitter()
        if asked.oversize == "split":
            fitted, lost = fitter.fit(text, spans), 0
        else:
            fitted, lost = self._unsplit(fitter, text, spans)
        parts = [
            self._part(fitter, text, span, tokens, index, len(fitted)) for index, (span, tokens) in enumerate(fitted)
        ]
        return Extraction(parts, truncated_tokens=lost)

    def document_prefix(self) -> str:
        """Return what the model wants before a document."""
        return self._model.document_prefix

    def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> Vectors:
        """Return float32[n, width], unit length, in order."""
        return self._encoder().encode([self._model.document_prefix + text for text in texts], progress)

    def embed_query(self, text: str) -> Vectors:
        """Return float32[dimensions], unit length. Raises Invalid when the query is longer than the model reads."""
        encoder = self._encoder()
        prefixed = self._model.query_prefix + text
        tokens = encoder.tokenizer.count([prefixed])[0]
        if tokens > self._model.max_tokens:
            message = (
                f"The query has {tokens} tokens; {self._model.model_id} reads {self._model.max_tokens}. Shorten it."
            )
            raise Invalid(message, code="query_too_long", location=("body", "inputs"))
        return self.fit(encoder.encode([prefixed]))[0]

    def fit(self, vectors: Vectors) -> Vectors:
        """Return float32[n, dimensions]: cut first, then normalised (Matryoshka)."""
        cut = vectors[:, : self._dimensions]
        return np.ascontiguousarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), dtype=np.float32)

    def _unsplit(self, fitter: "Fitter", text: str, spans: "Sequence[Span]") -> tuple[list[tuple["Span", int]], int]:
        """Refuse or cut what is too long, as the collection asked; return spans and the tokens lost."""
        fitted: list[tuple[Span, int]] = []
        lost = 0
        for span, tokens in zip(spans, fitter.count([text[one.start : one.end] for one in spans]), strict=True):
            if tokens <= self._model.max_tokens:
                fitted.append((span, tokens))
            elif self._parameters.oversize == "reject":
                message = f"A part has {tokens} tokens; {self._model.model_id} reads {self._model.max_tokens}."
                raise ObjectFailed(message, code="TEXT_TOO_LONG")
            else:
                kept, kept_tokens = fitter.truncate(text, span)
                fitted.append((kept, kept_tokens))
                lost += tokens - kept_tokens
        return fitted, lost

    def _part(self, fitter: "Fitter", text: str, span: "Span", tokens: int, index: int, total: int) -> Part:
        chunk = embedded = text[span.start : span.end]
        if tokens > self._model.max_tokens:  # only white space can be so long and indivisible
            embedded = chunk.strip()
            tokens = fitter.count([embedded])[0]
        place: dict[str, Json] = {
            "text": chunk,
            "chunk_index": index,
            "total_chunks": total,
            "start_char": span.start,
            "end_char": span.end,
            "token_count": tokens,
        }
        fields: Fields = {**place, **{key: value for key, value in span.about.items() if value is not None}}
        return Part(fields, embedded, tokens)

    def _fitter(self) -> "Fitter":
        from extractors.text_embedding.chunking import Fitter  # noqa: PLC0415
        from extractors.text_embedding.tokens import TextTokenizer  # noqa: PLC0415

        located = weights.locate(self._model, self._home)
        tokenizer = TextTokenizer(located.folder, self._model.model_id)
        return Fitter(tokenizer, self._model.document_prefix, self._model.max_tokens)

    def _encoder(self) -> "Encoder":
        """Return this process' encoder of the model, loaded once however many threads ask."""
        located = weights.locate(self._model, self._home)
        key = (str(located.folder), self._home.device)
        with _loading:
            if key not in _encoders:
                from extractors.text_embedding.encoder import Encoder  # noqa: PLC0415 - torch loads here, and only here

                _encoders[key] = Encoder(self._model, located.folder, self._home.device)
            return _encoders[key]


def _choose(name: str | None, home: ModelHome) -> Model:
    """Return the model a collection gets: the named one, the operator's default, or the best that is here."""
    wanted = name or home.default_model
    if wanted is not None:
        return models.require(wanted)
    return next((model for model in models.PREFERRED if weights.is_here(model, home)), models.NOMIC)


def _text(source: Source) -> str:
    given = source.inputs.get("text")
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        given = "\n\n".join(str(item) for item in given)
    if given is None:
        raise ObjectFailed("The object has no text where the collection looks for it.", code="INPUT_MISSING")
    if isinstance(given, bool | dict | list):
        raise ObjectFailed("The input is not text.", code="INPUT_NOT_TEXT")
    text = str(given)
    if not text.strip():
        raise ObjectFailed("The text is empty.", code="EMPTY_TEXT")
    return text
