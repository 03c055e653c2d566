"""The embedded index: Qdrant's own engine in this process (Edge), one shard per kind of vector.

All organizations share a shard; every condition demands their tenant (docs/adr/0004). No graph is built
(m=0): int8 scans with rescoring from the original vectors find exactly the nearest, and Edge would hold the
interpreter for minutes while it builds one. Never fork a process that has a shard open.
"""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qdrant_edge as edge

from domain.documents import Scope
from domain.errors import Invalid, StorageFull, Unavailable
from domain.features import VectorSpec
from domain.filters import Filter
from storage.ports import Hit, Point, Vector
from storage.vectors import payload
from storage.vectors.conditions import range_keys, supports, translate

_OVERSAMPLING: Final = 3.0
_SPARE: Final = 16  # a few more than asked, so that ties at the cut are settled by id and not by chance
_SETTLE_AFTER: Final = 20_000
_FLUSH_AFTER: Final = 2_000
_PAGE: Final = 10_000
_Update: Final = edge.UpdateOperation


class FolderInUse(Exception):
    """Another process has this index open."""


class EdgeDialect:
    """How Edge writes conditions."""

    def any_of(self, key: str, values: Sequence[str]) -> Any:
        """Return: the key holds one of these keywords."""
        return edge.FieldCondition(key, match=edge.MatchAny(list(values)))

    def between(self, key: str, **bounds: float) -> Any:
        """Return: the key holds a number within bounds."""
        return edge.FieldCondition(key, range=edge.RangeFloat(**bounds))

    def all(self, members: Sequence[Any]) -> Any:
        """Return: all members hold."""
        return edge.Filter(must=list(members))

    def some(self, members: Sequence[Any]) -> Any:
        """Return: at least one member holds."""
        return edge.Filter(should=list(members))

    def none(self, members: Sequence[Any]) -> Any:
        """Return: no member holds."""
        return edge.Filter(must_not=list(members))


_SAY: Final = EdgeDialect()


class _Shard:
    """One open shard, and how much has changed in it since it was last tidied."""

    def __init__(self, shard: edge.EdgeShard) -> None:
        self.engine = shard
        self.unsettled = 0
        self.unflushed = 0
        self.ranges: set[str] = set()


class EdgeIndex:
    """A vector index in one folder, for one process.

    Raises:
        FolderInUse: another process has the folder open; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock_file = _lock(folder)
        self._opening = threading.Lock()
        self._shards: dict[str, _Shard] = {}
        for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            self._shards[place.name] = _Shard(edge.EdgeShard.load(str(place)))

    def upsert(self, scope: Scope, spec: VectorSpec | None, points: Sequence[Point]) -> None:
        """Write points durably, unless newer ones are there."""
        with_vectors = [point for point in points if point.vector is not None]
        if spec is None or not with_vectors:
            return
        for point in with_vectors:
            if point.vector is not None and point.vector.shape != (spec.dimensions,):
                message = f"A vector of {spec.name} has {spec.dimensions} dimensions, not {point.vector.shape}."
                raise Invalid(message, code="vector_schema_mismatch")
        with _telling_failures():
            shard = self._shard(spec)
            for version, epoch, group in payload.versions(with_vectors):
                written = [_point(scope, spec.name, point) for point in group]
                shard.engine.update(_Update.upsert_points(written, condition=_fence(version, epoch)))
            self._changed(shard, len(with_vectors))

    def delete_older(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> None:
        """Delete surplus parts."""
        older = _SAY.between(payload.EPOCH, lt=float(epoch))
        self._delete_where(_of_sources(scope, collection_id, source_ids, [older]))

    def count(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> int:
        """Return how many points of these sources carry exactly this epoch."""
        mine = edge.FieldCondition(payload.EPOCH, match=edge.MatchValue(epoch))
        return self._count_where(_of_sources(scope, collection_id, source_ids, [mine]))

    def epochs(self, scope: Scope, collection_id: str, source_id: str) -> dict[str, int]:
        """Return document id → epoch of every point of one source."""
        found: dict[str, int] = {}
        with _telling_failures():
            for shard in self._all():
                request = edge.ScrollRequest(
                    limit=_PAGE,
                    filter=_of_sources(scope, collection_id, [source_id], []),
                    with_payload=[payload.DOCUMENT, payload.EPOCH],
                )
                records, _ = shard.engine.scroll(request)
                for record in records:
                    carried: Any = record.payload or {}
                    found[str(carried[payload.DOCUMENT])] = int(carried[payload.EPOCH])
        return found

    def delete(self, scope: Scope, document_ids: Sequence[str], *, up_to_epoch: int) -> None:
        """Delete these documents' points unless they are newer."""
        ids = edge.HasIdCondition({_uuid(scope, one) for one in document_ids})
        self._delete_where(edge.Filter(must=[_mine(scope), ids, _SAY.between(payload.EPOCH, lte=float(up_to_epoch))]))

    def delete_collection(self, scope: Scope, collection_id: str, *, up_to_epoch: int) -> None:
        """Delete all points of a collection that are not newer."""
        whole = [_SAY.any_of(payload.COLLECTION, [collection_id]), _SAY.between(payload.EPOCH, lte=float(up_to_epoch))]
        self._delete_where(edge.Filter(must=[_mine(scope), *whole]))

    def delete_namespace(self, scope: Scope) -> None:
        """Delete everything of a namespace."""
        self._delete_where(edge.Filter(must=[_mine(scope)]))

    def search(
        self,
        scope: Scope,
        spec: VectorSpec,
        query: Vector,
        *,
        collection_ids: Sequence[str],
        filter: Filter | None = None,  # noqa: A002
        document_ids: Sequence[str] | None = None,
        limit: int,
    ) -> list[Hit]:
        """Return the nearest documents by (-score, id)."""
        shard = self._shards.get(spec.name)
        if shard is None or not collection_ids or limit < 1 or document_ids == []:
            return []
        must = [_mine(scope), _SAY.any_of(payload.COLLECTION, collection_ids)]
        if filter is not None:
            must.append(translate(filter, _SAY))
        if document_ids is not None:
            must.append(edge.HasIdCondition({_uuid(scope, one) for one in document_ids}))
        with _telling_failures():
            if filter is not None:
                self._index_ranges(shard, filter)
            request = edge.QueryRequest(
                limit=limit + _SPARE,
                query=edge.Query.Nearest(query, using=spec.name),  # type: ignore[arg-type]
                filter=edge.Filter(must=must),
                with_payload=[payload.DOCUMENT],
                params=edge.SearchParams(
                    quantization=edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
                ),
            )
            found = shard.engine.query(request)
        hits = [Hit(str((point.payload or {})[payload.DOCUMENT]), float(point.score)) for point in found]
        hits.sort(key=lambda hit: (-hit.score, hit.document_id))
        return hits[:limit]

    def supports(self, filter: Filter) -> bool:  # noqa: A002
        """Say whether the index can evaluate a filter exactly."""
        return supports(filter)

    def count_all(self, scope: Scope, collection_id: str) -> int:
        """Return how many points a collection has, of any epoch."""
        return self._count_where(edge.Filter(must=[_mine(scope), _SAY.any_of(payload.COLLECTION, [collection_id])]))

    def check(self) -> None:
        """Prove that the shards answer."""
        with _telling_failures():
            for shard in self._all():
                shard.engine.info()

    def settle(self) -> float:
        """Merge and quantise when much is new; other threads stand still meanwhile (under 2 s at 100,000)."""
        took = 0.0
        for shard in self._all():
            if shard.unsettled >= _SETTLE_AFTER:
                shard.unsettled = 0
                began = time.perf_counter()
                with _telling_failures():
                    shard.engine.optimize()
                    shard.engine.flush()
                took += time.perf_counter() - began
        return took

    def close(self) -> None:
        """Write everything out and let go of the folder."""
        for shard in self._all():
            shard.engine.flush()
            shard.engine.close()
        self._shards.clear()
        os.close(self._lock_file)

    def _all(self) -> list[_Shard]:
        return list(self._shards.values())

    def _shard(self, spec: VectorSpec) -> _Shard:
        known = self._shards.get(spec.name)
        if known is not None:
            return known
        with self._opening:
            if spec.name not in self._shards:
                self._shards[spec.name] = _Shard(_create(self._folder / spec.name, spec))
            return self._shards[spec.name]

    def _changed(self, shard: _Shard, number: int) -> None:
        shard.unsettled += number
        shard.unflushed += number
        if shard.unflushed >= _FLUSH_AFTER:  # otherwise the write-ahead log grows without bound
            shard.unflushed = 0
            shard.engine.flush()

    def _index_ranges(self, shard: _Shard, wanted: Filter) -> None:
        """Index the numbers that a filter compares, once: 1 ms instead of 30 at 20,000 points."""
        for key in range_keys(wanted) - shard.ranges:
            shard.engine.update(_Update.create_field_index(key, edge.FloatIndexParams()))
            shard.ranges.add(key)

    def _delete_where(self, condition: edge.Filter) -> None:
        self._each(lambda engine: engine.update(_Update.delete_points_by_filter(condition)))

    def _count_where(self, condition: edge.Filter) -> int:
        counts: list[int] = []
        self._each(lambda engine: counts.append(engine.count(edge.CountRequest(exact=True, filter=condition))))
        return sum(counts)

    def _each(self, action: Callable[[edge.EdgeShard], object]) -> None:
        with _telling_failures():
            for shard in self._all():
                action(shard.engine)


def _create(place: Path, spec: VectorSpec) -> edge.EdgeShard:
    """Make a shard beside its place and rename it, so that a killed process leaves no half-made one."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    int8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned)
    parameters = edge.EdgeVectorParams(size=spec.dimensions, distance=edge.Distance.Cosine, quantization_config=int8)
    shard = edge.EdgeShard.create(
        str(partial),
        edge.EdgeConfig(
            vectors={spec.name: parameters},
            hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=10_000, default_segment_number=1),
        ),
    )
    for key in payload.INDEXED:
        shard.update(_Update.create_field_index(key, edge.KeywordIndexParams(is_tenant=key == payload.TENANT)))
    shard.flush()
    shard.close()
    partial.rename(place)
    return edge.EdgeShard.load(str(place))


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode().strip() or "unknown"
        os.close(descriptor)
        message = f"The folder {folder} is in use by process {holder}. Stop that one first, or use another data folder."
        raise FolderInUse(message) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _uuid(scope: Scope, document_id: str) -> Any:
    return uuid.UUID(payload.engine_id(scope, document_id))


def _point(scope: Scope, name: str, point: Point) -> edge.Point:
    vector: Any = point.vector  # arrays are taken as they are; the stub does not say so
    return edge.Point(payload.engine_id(scope, point.document_id), {name: vector}, payload.payload(scope, point))


def _mine(scope: Scope) -> Any:
    return _SAY.any_of(payload.TENANT, [payload.tenant(scope)])


def _of_sources(scope: Scope, collection_id: str, source_ids: Sequence[str], further: Sequence[Any]) -> edge.Filter:
    own = [_mine(scope), _SAY.any_of(payload.COLLECTION, [collection_id]), _SAY.any_of(payload.SOURCE, source_ids)]
    return edge.Filter(must=[*own, *further])


def _fence(version: int, epoch: int) -> edge.Filter:
    """Return the condition under which an existing point may be replaced: it is not newer than ours."""
    same = edge.FieldCondition(payload.VERSION, match=edge.MatchValue(version))
    return edge.Filter(
        should=[
            _SAY.between(payload.VERSION, lt=float(version)),
            edge.Filter(must=[same, _SAY.between(payload.EPOCH, lte=float(epoch))]),
        ]
    )


@contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except Invalid:
        raise
    except OSError as error:
        raise Unavailable("vector index", error.strerror or str(error)) from error
    except Exception as error:
        # Edge raises bare Exceptions; what they say is all there is to tell them apart.
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise StorageFull("vector index", "the disk of its folder is full") from error
        if type(error) is not Exception:
            raise
        raise Unavailable("vector index", text[:200]) from error
