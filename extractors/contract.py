"""What an extractor is: fields in, features out. No database, no network, no clock.

The work is cut in two so that the platform can keep what is expensive: `parts` turns one source into parts,
cheaply and without a model's arithmetic; `embed` turns texts into vectors. Between the two the worker looks
into the cache of vectors, so nothing is embedded twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from domain.features import VectorSpec
from domain.json_types import Fields, Json
from extractors.reading.layout import Layout

Vectors: TypeAlias = npt.NDArray[np.float32]


class Parameters(BaseModel):
    """Base of every extractor's parameters: unknown keys are kept apart so that a reply can name them."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True, slots=True)
class Source:
    """One object (or upstream document) as an extractor sees it.

    Attributes:
        id: its id, for messages only.
        fields: all of its fields.
        inputs: what `input_mappings` brought under each input key ("text", for instance).
        layouts: for inputs that were read from files: where in the text pages and headings begin.
    """

    id: str
    fields: Fields
    inputs: Mapping[str, Json]
    layouts: Mapping[str, Layout] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One document to be written.

    Attributes:
        fields: what the extractor adds to the document, `text` and `chunk_index` for instance.
        text: what is to be embedded, without the model's prefix; None for a document without a vector.
        tokens: how many tokens the model reads for it, prefix and specials included.
    """

    fields: Fields
    text: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Extraction:
    """All parts of one source, and what was left out of them (only ever on request).

    Attributes:
        truncated_tokens: tokens cut off because the collection asked for `truncate`.
    """

    parts: Sequence[Part]
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """A vector index that a collection of this extractor has.

    Attributes:
        prefix: what stands before each text when it is embedded.
    """

    spec: VectorSpec
    description: str
    distance: str = "cosine"
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Exactly which weights embed: recorded on the collection when first seen, never changed afterwards."""

    model_id: str
    revision: str
    weights_sha256: str
    tokenizer_sha256: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the catalogue of extractors says about one."""

    description: str
    icon: str
    inputs: Mapping[str, str]  # input key → type
    output_schema: Mapping[str, Json]
    supported_input_types: tuple[str, ...]
    has_vectors: bool
    max_inputs: Mapping[str, int] = field(default_factory=dict)


class EmbeddingsServer(Protocol):
    """A server of the operator's that embeds instead of this process (OPENPEEK_EMBEDDINGS_URL)."""

    def revision(self, model_id: str) -> str:
        """Return which revision of the model it serves; it is asked now and then, not every time.

        Raises:
            EmbeddingsServerAway: it does not answer.
            EmbeddingsServerWrong: it serves another model.
        """

    def revision_at_hand(self) -> str | None:
        """Return the revision as far as it is known without asking anybody."""

    def embed(self, model_id: str, texts: Sequence[str], *, urgent: bool) -> Vectors:
        """Return what it answers, float32[n, ?], in the order of the texts: counted, and of one width.

        Args:
            model_id: whose vectors are wanted.
            texts: with the model's prefix, none longer than the model reads.
            urgent: somebody waits for it, so it is given up sooner.

        Raises:
            EmbeddingsServerAway: it does not answer, or not in time.
            EmbeddingsServerWrong: it refuses, or its answer is not what was asked for.
        """

    def close(self) -> None:
        """Close the connections that were kept."""


class Canaries(Protocol):
    """What models answered first, kept for all processes of an installation."""

    def first(self, key: str, vector: Vectors) -> Vectors:
        """Return the vector that is kept under a key, float32[width]; if there is none, keep this one."""


@dataclass(frozen=True, slots=True)
class ModelHome:
    """Where weights may lie, and how they run. Made once from the settings and passed down.

    Attributes:
        folder: OPENPEEK_MODELS; a model lies in ``folder/owner/name``.
        default_model: OPENPEEK_DEFAULT_MODEL, used by collections that name none.
        device: "cpu" or "cuda".
        server: embeds instead of this process; then only the tokenizer must lie here.
        canaries: whoever has none (a command without a database) does without the check for drift.
    """

    folder: str
    default_model: str | None = None
    device: str = "cpu"
    server: EmbeddingsServer | None = None
    canaries: Canaries | None = None


class Extractor(Protocol):
    """A configured extractor: cheap to make, and `load` is where weights come in.

    Class attributes describe it to the catalogue; an instance belongs to one collection's parameters.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    catalogue: ClassVar[Catalogue]
    Parameters: ClassVar[type[Parameters]]

    def __init__(self, parameters: Any, models: ModelHome) -> None:
        """Keep parameters; read no weights. ``models`` says where weights may lie on this machine."""

    def resolved(self) -> BaseModel:
        """Return the parameters with every default decided now (the model's name, say), to be stored."""

    def output(self) -> Output | None:
        """Return the vector index this extractor fills, or None. Needs no weights.

        ``spec.revision`` is empty as long as the weights have not been seen on this machine.
        """

    def identity(self) -> ModelIdentity | None:
        """Return which weights would embed, or None for an extractor without a model.

        Raises:
            WeightsMissing: they are not on this machine.
            WeightsBroken: they are here, and cannot be used.
        """

    def parts(self, source: Source) -> Extraction:
        """Split one source into parts. May load a tokenizer.

        Raises:
            ObjectFailed: this source cannot be processed; the code says why.
            WeightsMissing, WeightsBroken: as `identity`.
        """

    def document_prefix(self) -> str:
        """Return what the model wants before each document text (it is part of the cache key)."""

    def embed(self, texts: Sequence[str], progress: Callable[[int], None]) -> Vectors:
        """Embed document texts, in order: float32[n, width of the model], unit length.

        ``progress`` is called with the number of texts finished so far, at least once every few seconds.
        """

    def embed_query(self, text: str) -> Vectors:
        """Embed one query: float32[dimensions], truncated to the collection's width and then normalised."""

    def fit(self, vectors: Vectors) -> Vectors:
        """Cut full-width vectors to the collection's dimensions and normalise: float32[n, dimensions]."""
