"""The embedded index: Qdrant's own engine in this process (Edge), one shard per kind of vector.

All organizations share a shard; every condition demands their tenant (docs/adr/0004). No graph is built
(m=0): int8 scans with rescoring from the original vectors find exactly the nearest, and Edge would hold the
interpreter for minutes while it builds one. Edge holds it in every call, so calls of many threads take turns.
Never fork a process that has a shard open.
"""

import errno
import fcntl
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qdrant_edge as edge

from domain.documents import Scope
from domain.errors import OpenPeekError, StorageFull, Unavailable
from domain.features import VectorSpec
from domain.filters import Filter
from storage.ports import Hit, Point, Vector
from storage.vectors import payload
from storage.vectors.conditions import not_newer, of_collections, of_sources, ranges, supports, translate, within
from storage.vectors.nearest import nearest

_OVERSAMPLING: Final = 3.0
_SETTLE_AFTER: Final = 20_000
_FLUSH_AFTER: Final = 2_000
_PAGE: Final = 10_000
_MOST_RANGES: Final = 64  # each indexed path costs files and memory, and users choose the paths
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_Update: Final = edge.UpdateOperation


class FolderInUse(RuntimeError):
    """Another process has this index open."""


class EdgeDialect:
    """How Edge writes conditions."""

    def any_of(self, key: str, values: Sequence[str] | Sequence[int]) -> Any:
        """Return: the key holds one of these. A single value is compared twice as fast as a set of one."""
        if len(values) == 1:
            return edge.FieldCondition(key, match=edge.MatchValue(values[0]))
        listed: Any = list(values)
        return edge.FieldCondition(key, match=edge.MatchAny(listed))

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
    """One open shard, and how much has changed in it since it was last tidied and written out."""

    def __init__(self, engine: edge.EdgeShard) -> None:
        known = engine.info()
        self.engine = engine
        self.unsettled = known.points_count - known.indexed_vectors_count
        self.unflushed = 0
        self.ranges = {key for key in known.payload_schema if key.startswith(payload.NUMBERS)}
        self.lock = threading.Lock()

    def changed(self, points: int) -> None:
        """Note a change; now and then write it out, for otherwise the write-ahead log grows without bound."""
        with self.lock:
            self.unsettled += points
            self.unflushed += max(points, 1)
            due = self.unflushed >= _FLUSH_AFTER
            self.unflushed = 0 if due else self.unflushed
        if due:
            self.engine.flush()


class EdgeIndex:
    """A vector index in one folder, for one process; any number of its threads may use it at once.

    Raises:
        FolderInUse: another process has the folder open; the message names both.
        Unavailable: the folder cannot be written to, or what lies there cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opening = threading.Lock()
        self._shards: dict[str, _Shard] = {}
        self._is_open = True
        with _telling_failures():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = _lock(folder)
            try:
                self._load()
            except BaseException:
                self.close()
                raise

    def upsert(self, scope: Scope, spec: VectorSpec | None, points: Sequence[Point]) -> None:
        """Write points durably, unless newer ones are there. A point without a vector leaves no trace here."""
        with_vectors = [point for point in points if point.vector is not None]
        if spec is None or not with_vectors:
            return
        for point in with_vectors:
            payload.demand_width(spec, _vector(point))
        with _telling_failures():
            shard = self._shard(spec)
            for version, epoch, group in payload.versions(with_vectors):
                written = [_point(scope, spec.name, point) for point in group]
                shard.engine.update(_Update.upsert_points(written, condition=not_newer(version, epoch, _SAY)))
                shard.changed(len(group))

    def delete_older(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> None:
        """Delete surplus parts."""
        if source_ids:
            older = _SAY.between(payload.EPOCH, lt=float(epoch))
            self._delete([*of_sources(scope, collection_id, source_ids, _SAY), older])

    def count(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> int:
        """Return how many points of these sources carry exactly this epoch."""
        if not source_ids:
            return 0
        mine = _SAY.any_of(payload.EPOCH, [epoch])
        return self._count([*of_sources(scope, collection_id, source_ids, _SAY), mine])

    def epochs(self, scope: Scope, collection_id: str, source_id: str) -> dict[str, int]:
        """Return document id → epoch of every point of one source."""
        wanted = edge.Filter(must=of_sources(scope, collection_id, [source_id], _SAY))
        carried = [payload.DOCUMENT, payload.EPOCH]
        found: dict[str, int] = {}
        with _telling_failures():
            for shard in self._all():
                offset: Any = None
                while True:
                    page = edge.ScrollRequest(offset=offset, limit=_PAGE, filter=wanted, with_payload=carried)
                    records, offset = shard.engine.scroll(page)
                    for record in records:
                        kept: Any = record.payload or {}
                        document_id, epoch = str(kept[payload.DOCUMENT]), int(kept[payload.EPOCH])
                        found[document_id] = max(epoch, found.get(document_id, epoch))
                    if offset is None:
                        break
        return found

    def delete(self, scope: Scope, document_ids: Sequence[str], *, up_to_epoch: int) -> None:
        """Delete these documents' points unless they are newer."""
        if document_ids:
            ids = edge.HasIdCondition({_uuid(scope, one) for one in document_ids})
            self._delete([within(scope, _SAY), ids, _SAY.between(payload.EPOCH, lte=float(up_to_epoch))])

    def delete_collection(self, scope: Scope, collection_id: str, *, up_to_epoch: int) -> None:
        """Delete all points of a collection that are not newer."""
        not_later = _SAY.between(payload.EPOCH, lte=float(up_to_epoch))
        self._delete([within(scope, _SAY), _SAY.any_of(payload.COLLECTION, [collection_id]), not_later])

    def delete_namespace(self, scope: Scope) -> None:
        """Delete everything of a namespace."""
        self._delete([within(scope, _SAY)])

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
        """Return the nearest documents by (-score, id).

        Raises:
            Invalid: the query's width is not the spec's (code ``vector_schema_mismatch``).
        """
        payload.demand_width(spec, query)
        must = [within(scope, _SAY)]
        with _telling_failures():
            shard = self._open().get(spec.name)
            if shard is None or not collection_ids or limit < 1 or document_ids == []:
                return []
            if filter is not None:
                self._index_ranges(shard, scope, filter)
                must.append(translate(filter, _SAY, shard.ranges))
            must.append(of_collections(collection_ids, _SAY))
            if document_ids is not None:
                must.append(edge.HasIdCondition({_uuid(scope, one) for one in document_ids}))
            return nearest(lambda asked: _query(shard.engine, spec.name, query, must, asked), limit)

    def supports(self, filter: Filter) -> bool:  # noqa: A002
        """Say whether the index can evaluate a filter exactly."""
        return supports(filter)

    def count_all(self, scope: Scope, collection_id: str) -> int:
        """Return how many points a collection has, of any epoch."""
        return self._count([within(scope, _SAY), _SAY.any_of(payload.COLLECTION, [collection_id])])

    def check(self) -> None:
        """Prove that the shards answer."""
        with _telling_failures():
            for shard in self._all():
                shard.engine.info()

    def settle(self) -> float:
        """Merge and quantise when much is new; other threads stand still meanwhile (1.5 s at 100,000)."""
        took = 0.0
        with _telling_failures():
            for shard in self._all():
                if shard.unsettled >= _SETTLE_AFTER:
                    shard.unsettled = 0
                    began = time.perf_counter()
                    shard.engine.optimize()
                    shard.engine.flush()
                    took += time.perf_counter() - began
        return took

    def close(self) -> None:
        """Write everything out and let go of the folder. Closing twice is no error."""
        with self._opening:
            if not self._is_open:
                return
            self._is_open = False
            try:
                with _telling_failures():
                    for shard in self._shards.values():
                        shard.engine.flush()
                        shard.engine.close()
            finally:
                self._shards.clear()
                os.close(self._lock_file)

    def _load(self) -> None:
        for place in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            if place.name.startswith("."):  # a shard that was being made when its process died
                shutil.rmtree(place)
                continue
            engine = edge.EdgeShard.load(str(place))
            facts = engine.info().payload_schema.get(payload.FACTS)
            if facts is None or facts.data_type != edge.PayloadSchemaType.Integer:
                reason = f"{place} was written by an unfinished version of OpenPeek; remove it and index again"
                raise Unavailable("vector index", reason)
            self._shards[place.name] = _Shard(engine)

    def _open(self) -> dict[str, _Shard]:
        if not self._is_open:
            raise Unavailable("vector index", f"{self._folder} has been closed")
        return self._shards

    def _all(self) -> list[_Shard]:
        return list(self._open().values())

    def _shard(self, spec: VectorSpec) -> _Shard:
        known = self._open().get(spec.name)
        if known is not None:
            return known
        with self._opening:
            if spec.name not in self._open():
                self._shards[spec.name] = _Shard(_create(self._folder, spec))
            return self._shards[spec.name]

    def _index_ranges(self, shard: _Shard, scope: Scope, wanted: Filter) -> None:
        """Index the numbers that a filter compares, once: 1 ms a search instead of 50 at 20,000 points.

        Only where the namespace has such a field, and not without end: what has no index is slow, not wrong.
        """
        for key, there in ranges(wanted).items():
            if key in shard.ranges or len(shard.ranges) >= _MOST_RANGES:
                continue
            having = edge.Filter(must=[within(scope, _SAY), _SAY.any_of(payload.FACTS, [there])])
            if shard.engine.count(edge.CountRequest(exact=False, filter=having)):
                shard.engine.update(_Update.create_field_index(key, edge.FloatIndexParams()))
                shard.ranges.add(key)

    def _delete(self, must: list[Any]) -> None:
        with _telling_failures():
            for shard in self._all():
                shard.engine.update(_Update.delete_points_by_filter(edge.Filter(must=must)))
                shard.changed(0)

    def _count(self, must: list[Any]) -> int:
        request = edge.CountRequest(exact=True, filter=edge.Filter(must=must))
        with _telling_failures():
            return sum(shard.engine.count(request) for shard in self._all())


def _query(engine: edge.EdgeShard, name: str, query: Vector, must: list[Any], limit: int) -> list[Hit]:
    quantised = edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
    request = edge.QueryRequest(
        limit=limit,
        query=edge.Query.Nearest(query, using=name),  # type: ignore[arg-type]  # the stub knows no arrays
        filter=edge.Filter(must=must),
        with_payload=[payload.DOCUMENT],
        params=edge.SearchParams(quantization=quantised),
    )
    return [Hit(str((point.payload or {})[payload.DOCUMENT]), float(point.score)) for point in engine.query(request)]


def _create(folder: Path, spec: VectorSpec) -> edge.EdgeShard:
    """Make a shard beside its place and rename it, so that a killed process leaves no half-made one."""
    if _PLAIN.fullmatch(spec.name) is None:
        raise ValueError(f"a vector cannot be named {spec.name!r}")
    place, partial = folder / spec.name, folder / f".{spec.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
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
    for key in payload.KEYWORDS:
        shard.update(_Update.create_field_index(key, edge.KeywordIndexParams(is_tenant=key == payload.TENANT)))
    shard.update(_Update.create_field_index(payload.FACTS, edge.IntegerIndexParams(lookup=True, range=False)))
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


def _vector(point: Point) -> Vector:
    assert point.vector is not None
    return point.vector


def _point(scope: Scope, name: str, point: Point) -> edge.Point:
    vector: Any = _vector(point).tolist()  # Edge reads a list in half the time it takes for an array
    return edge.Point(payload.engine_id(scope, point.document_id), {name: vector}, payload.payload(scope, point))


@contextmanager
def _telling_failures() -> Iterator[None]:
    """Turn what Edge raises, which is bare exceptions and panics, into errors of the house."""
    try:
        yield
    except (OpenPeekError, FolderInUse):
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageFull("vector index", "the disk of its folder is full") from error
        raise Unavailable("vector index", error.strerror or str(error)) from error
    except BaseException as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise StorageFull("vector index", "the disk of its folder is full") from error
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise Unavailable("vector index", text[:200]) from error
        raise
