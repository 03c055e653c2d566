"""The ports: what the rest of the house may ask of a store. Each docstring is the contract its tests check."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from domain.documents import Scope
from domain.features import VectorSpec
from domain.filters import Filter
from domain.json_types import Fields

Vector: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a store knows of some bytes."""

    size_bytes: int
    etag: str


class BlobStore(Protocol):
    """Bytes by key. Keys are made by the server (``[a-z0-9_/.-]``), never by users."""

    def put(self, key: str, data: bytes | BinaryIO, content_type: str) -> BlobInfo:
        """Keep bytes under a key, wholly or not at all; an existing key is replaced.

        Raises:
            StorageFull: there is no room; nothing is left behind.
            Unavailable: the store does not answer.
        """

    def get(self, key: str) -> bytes:
        """Return the bytes of a key.

        Raises:
            NotFound: there are none.
            Unavailable: the store does not answer.
        """

    def open(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of a key in pieces of at most 1 MiB. Raises as `get`."""

    def info(self, key: str) -> BlobInfo:
        """Return size and ETag of a key. Raises as `get`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Forget keys; absent ones are no error."""

    def read_url(self, key: str, *, filename: str, content_type: str, expires_seconds: int = 3600) -> str:
        """Return a URL from which anybody may read this key until it expires, served as an attachment."""

    def check(self) -> None:
        """Prove that the store can be written to and read from. Raises as `put`."""

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class Point:
    """One document as the vector index keeps it.

    Attributes:
        document_id: also what a search returns.
        collection_id, source_id: what the point was made from.
        object_version, epoch: the fence; an older writer cannot replace a newer point.
        fields: the document's fields, from which the adapter derives what filters need.
        vector: unit length float32[dimensions], or None for a document without a vector.
    """

    document_id: str
    collection_id: str
    source_id: str
    object_version: int
    epoch: int
    fields: Fields
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search found; score is the cosine similarity, higher is better."""

    document_id: str
    score: float


class VectorIndex(Protocol):
    """Points of all organizations. Every call carries the scope, and no call reaches beyond it."""

    def upsert(self, scope: Scope, spec: VectorSpec | None, points: Sequence[Point]) -> None:
        """Write points durably before returning; make room for the vector's name when it is new.

        A point that exists with a higher object_version, or the same and a higher epoch, is left alone.

        Raises:
            Unavailable: the index did not answer; some points may be written, so call again.
            Invalid: a vector's width is not the spec's (code ``vector_schema_mismatch``).
        """

    def delete_older(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> None:
        """Delete the points of these sources in this collection whose epoch is lower: surplus parts."""

    def count(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> int:
        """Return how many points of these sources carry exactly this epoch."""

    def epochs(self, scope: Scope, collection_id: str, source_id: str) -> dict[str, int]:
        """Return document id → epoch of every point of one source in one collection."""

    def delete(self, scope: Scope, document_ids: Sequence[str], *, up_to_epoch: int) -> None:
        """Delete these documents' points unless their epoch is higher than ``up_to_epoch``."""

    def delete_collection(self, scope: Scope, collection_id: str, *, up_to_epoch: int) -> None:
        """Delete all points of a collection whose epoch is not higher."""

    def delete_namespace(self, scope: Scope) -> None:
        """Delete everything of a namespace."""

    def search(
        self,
        scope: Scope,
        spec: VectorSpec,
        query: Vector,
        *,
        collection_ids: Sequence[str],
        filter: Filter | None = None,  # noqa: A002 - the field's own word
        document_ids: Sequence[str] | None = None,
        limit: int,
    ) -> list[Hit]:
        """Return the nearest documents by (-score, id), among these collections and matching the filter.

        ``document_ids`` restricts the search to them (at most 50,000). An unknown vector name or an
        empty list of collections finds nothing.

        Raises:
            Unavailable: the index did not answer.
            ValueError: the filter is one that `supports` says no to.
        """

    def supports(self, filter: Filter) -> bool:  # noqa: A002
        """Say whether this index can evaluate a filter exactly as `domain.filters.matches` does."""

    def count_all(self, scope: Scope, collection_id: str) -> int:
        """Return how many points a collection has, of any epoch."""

    def check(self) -> None:
        """Prove that the index answers and that its version is one we can work with. Raises as `search`."""

    def settle(self) -> float:
        """Let the index tidy itself up when there is much new in it; return the seconds it took, 0 if nothing."""

    def close(self) -> None:
        """Write everything out and let go of the folder or the connection."""


class JobQueue(Protocol):
    """Hints only: a lost or doubled one is harmless, because workers also look at the rows every 2 s."""

    def ring(self) -> None:
        """Tell workers that there is work. Must not block for long, and may be lost.

        Raises:
            Unavailable: the broker does not answer.
        """

    def check(self) -> None:
        """Prove that the broker answers. Raises as `ring`."""

    def close(self) -> None:
        """Let go of connections."""
