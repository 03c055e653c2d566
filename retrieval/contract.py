"""What a stage is, and what the engine hands to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from domain.documents import Document
from domain.features import FeatureURI
from domain.filters import Filter
from domain.json_types import Fields, Json

Vector: TypeAlias = npt.NDArray[np.float32]


class Category(StrEnum):
    """What a stage does to the list; the contract knows these five."""

    FILTER = "filter"
    SORT = "sort"
    REDUCE = "reduce"
    APPLY = "apply"
    ENRICH = "enrich"


class StageParameters(BaseModel):
    """Base of every stage's parameters; unknown keys are kept apart so that a reply can name them."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One vector search, as a stage asks for it.

    Attributes:
        feature: which vectors; None means the only text index of the collections.
        query: a text to embed, or a vector as the caller sent it.
        collection_ids: ids to search; empty means all collections of the retriever.
    """

    feature: FeatureURI | str | None
    query: str | Sequence[float]
    collection_ids: Sequence[str]
    filter: Filter | None
    limit: int


class Corpus(Protocol):
    """The collections a retriever runs over: what stages may ask of storage and models, already scoped."""

    @property
    def collection_ids(self) -> Sequence[str]:
        """The ids of the collections."""

    def search(self, request: SearchRequest, *, among: Sequence[str] | None = None) -> list[Document]:
        """Return live documents, nearest first by (-score, id); only among these ids, if any are given.

        Raises:
            Invalid: no such feature here (the message lists what there is), or the vector's width is wrong.
            Conflict: the query's model or revision is not the documents' (code ``model_mismatch``).
            WeightsMissing, Unavailable: the query cannot be embedded, or the index does not answer.
        """

    def fetch(self, filter: Filter | None, collection_ids: Sequence[str], limit: int) -> list[Document]:  # noqa: A002
        """Return live documents that match, oldest first, without a score."""


@dataclass(slots=True)
class Context:
    """One execution, as stages see it.

    Attributes:
        corpus: the documents.
        inputs: the caller's inputs, checked, with defaults.
        filter: the caller's own filter, ANDed into every search and first fetch.
        warnings: what the reply should mention.
        timings: milliseconds that the corpus has spent for the present stage, by what it did.
        details: what a stage wants to report about itself (milliseconds of parts of its work), by stage name.
    """

    corpus: Corpus
    inputs: Mapping[str, Json]
    filter: Filter | None = None
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Fields] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)


class Stage(Protocol):
    """One step of a pipeline: documents in, documents out. Says in its docstring whether order is kept."""

    category: ClassVar[Category]
    icon: ClassVar[str]
    Parameters: ClassVar[type[StageParameters]]

    def __init__(self, parameters: Any) -> None:
        """Keep checked parameters; templates in them are already filled in."""

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Do the step. ``first`` says that no earlier stage has fetched anything yet."""
