"""The index on a Qdrant server: one Qdrant collection per kind of vector, all organizations in it (docs/adr/0004).

A search always demands a tenant, so the graph is built per tenant (payload_m) and not over all of them, as
Qdrant advises for many tenants; vectors are quantised to int8 and the nearest are rescored.
"""

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from domain.documents import Scope
from domain.errors import Invalid, OpenPeekError, StorageFull, Unavailable
from domain.features import VectorSpec
from domain.filters import Filter
from storage.ports import Hit, Point, Vector
from storage.vectors import payload
from storage.vectors.conditions import not_newer, of_collections, of_sources, ranges, supports, translate, within
from storage.vectors.nearest import nearest

# Conditional upserts (update_filter), on which the fence rests, came with this version. Older servers would
# ignore the condition silently, so nothing is written to them.
OLDEST_SERVER: Final = (1, 16, 0)
TIMEOUT_SECONDS: Final = 10
_PREFIX: Final = "openpeek_"
_OVERSAMPLING: Final = 3.0
_SCROLL: Final = 1_000
_MOST_RANGES: Final = 64  # each indexed path costs memory, and users choose the paths
_GONE: Final = 404
_STRANGE: Final = (400, 404)
_FULL: Final = 507


def connect(url: str, api_key: str | None, *, timeout_seconds: int = TIMEOUT_SECONDS) -> QdrantClient:
    """Return a client over REST; nothing is sent before the first call, so the server may be down."""
    with warnings.catch_warnings():
        # It warns about a key over plain http, which is how containers on one internal network speak.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(url=url, api_key=api_key, timeout=timeout_seconds, check_compatibility=False)


class QdrantDialect:
    """How Qdrant's API writes conditions."""

    def any_of(self, key: str, values: Sequence[str] | Sequence[int]) -> Any:
        """Return: the key holds one of these."""
        if len(values) == 1:
            return models.FieldCondition(key=key, match=models.MatchValue(value=values[0]))
        listed: Any = list(values)
        return models.FieldCondition(key=key, match=models.MatchAny(any=listed))

    def between(self, key: str, **bounds: float) -> Any:
        """Return: the key holds a number within bounds."""
        return models.FieldCondition(key=key, range=models.Range(**bounds))

    def all(self, members: Sequence[Any]) -> Any:
        """Return: all members hold."""
        return models.Filter(must=list(members))

    def some(self, members: Sequence[Any]) -> Any:
        """Return: at least one member holds."""
        return models.Filter(should=list(members))

    def none(self, members: Sequence[Any]) -> Any:
        """Return: no member holds."""
        return models.Filter(must_not=list(members))


_SAY: Final = QdrantDialect()


class QdrantIndex:
    """A vector index on a server, shared by any number of processes and threads."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self._making = threading.Lock()
        self._made: set[str] = set()
        self._seen: set[str] = set()
        self._ranges: dict[str, set[str]] = {}

    def upsert(self, scope: Scope, spec: VectorSpec | None, points: Sequence[Point]) -> None:
        """Write points durably, unless newer ones are there. A point without a vector leaves no trace here."""
        with_vectors = [point for point in points if point.vector is not None]
        if spec is None or not with_vectors:
            return
        for point in with_vectors:
            payload.demand_width(spec, _vector(point))
        space = _PREFIX + spec.name
        with _telling_failures():
            for version, epoch, group in payload.versions(with_vectors):
                written = [_point(scope, spec.name, point) for point in group]
                fence = not_newer(version, epoch, _SAY)
                self._ensure(space, spec)
                try:
                    self._client.upsert(space, written, wait=True, update_filter=fence)
                except UnexpectedResponse as error:
                    if error.status_code not in _STRANGE:
                        raise
                    # Somebody has removed the Qdrant collection, or made it anew with another width.
                    self._forget(space)
                    self._ensure(space, spec)
                    self._client.upsert(space, written, wait=True, update_filter=fence)

    def delete_older(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> None:
        """Delete surplus parts."""
        if source_ids:
            older = _SAY.between(payload.EPOCH, lt=epoch)
            self._delete([*of_sources(scope, collection_id, source_ids, _SAY), older])

    def count(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> int:
        """Return how many points of these sources carry exactly this epoch."""
        if not source_ids:
            return 0
        mine = _SAY.any_of(payload.EPOCH, [epoch])
        return self._count([*of_sources(scope, collection_id, source_ids, _SAY), mine])

    def epochs(self, scope: Scope, collection_id: str, source_id: str) -> dict[str, int]:
        """Return document id → epoch of every point of one source."""
        wanted = models.Filter(must=of_sources(scope, collection_id, [source_id], _SAY))
        carried = [payload.DOCUMENT, payload.EPOCH]
        found: dict[str, int] = {}
        with _telling_failures():
            for space in self._spaces():
                offset: Any = None
                while True:
                    records, offset = self._client.scroll(
                        space, wanted, limit=_SCROLL, offset=offset, with_payload=carried, with_vectors=False
                    )
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
            ids = models.HasIdCondition(has_id=[payload.engine_id(scope, one) for one in document_ids])
            self._delete([within(scope, _SAY), ids, _SAY.between(payload.EPOCH, lte=up_to_epoch)])

    def delete_collection(self, scope: Scope, collection_id: str, *, up_to_epoch: int) -> None:
        """Delete all points of a collection that are not newer."""
        not_later = _SAY.between(payload.EPOCH, lte=up_to_epoch)
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
        if not collection_ids or limit < 1 or document_ids == []:
            return []
        must.append(of_collections(collection_ids, _SAY))
        if document_ids is not None:
            must.append(models.HasIdCondition(has_id=[payload.engine_id(scope, one) for one in document_ids]))
        space = _PREFIX + spec.name
        with _telling_failures():
            if space not in self._seen:
                if not self._client.collection_exists(space):
                    return []
                self._seen.add(space)
            try:
                if filter is not None:
                    self._index_ranges(space, scope, filter)
                    must.append(translate(filter, _SAY, self._ranges.get(space, ())))
                return nearest(lambda asked: self._query(space, spec, query, must, asked), limit)
            except UnexpectedResponse as error:
                if error.status_code != _GONE:
                    raise
                self._forget(space)
                return []

    def supports(self, filter: Filter) -> bool:  # noqa: A002
        """Say whether the index can evaluate a filter exactly."""
        return supports(filter)

    def count_all(self, scope: Scope, collection_id: str) -> int:
        """Return how many points a collection has, of any epoch."""
        return self._count([within(scope, _SAY), _SAY.any_of(payload.COLLECTION, [collection_id])])

    def check(self) -> None:
        """Prove that the server answers, and is new enough."""
        with _telling_failures():
            version = self._client.info().version
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
        if numbers < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            reason = f"the Qdrant server is version {version}, and {oldest} or newer is needed"
            raise Unavailable("vector index", reason)

    def settle(self) -> float:
        """Do nothing: the server tidies itself up."""
        return 0.0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ensure(self, space: str, spec: VectorSpec) -> None:
        """Make the Qdrant collection of a kind of vectors, unless some process has made it.

        Raises:
            Invalid: it is there, and of another width.
        """
        if space in self._made:
            return
        with self._making:
            if space in self._made:
                return
            self.check()
            if not self._client.collection_exists(space):
                try:
                    self._create(space, spec)
                except UnexpectedResponse:
                    if not self._client.collection_exists(space):  # else another process was faster
                        raise
            kept: Any = self._client.get_collection(space).config.params.vectors
            width = kept[spec.name].size if isinstance(kept, dict) and spec.name in kept else "other"
            if width != spec.dimensions:
                message = f"The Qdrant collection {space} has {width} dimensions, not {spec.dimensions}."
                raise Invalid(message, code="vector_schema_mismatch")
            self._index_payload(space)
            self._made.add(space)

    def _create(self, space: str, spec: VectorSpec) -> None:
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        self._client.create_collection(
            space,
            vectors_config={spec.name: models.VectorParams(size=spec.dimensions, distance=models.Distance.COSINE)},
            quantization_config=models.ScalarQuantization(scalar=int8),
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        )

    def _index_payload(self, space: str) -> None:
        """Index what conditions ask for. Only the tenant's index gets links in the graph."""
        for key in payload.KEYWORDS:
            is_tenant = key == payload.TENANT
            kind = models.KeywordIndexType.KEYWORD
            keyword = models.KeywordIndexParams(type=kind, is_tenant=is_tenant, enable_hnsw=is_tenant)
            self._client.create_payload_index(space, key, keyword, wait=True)
        for key, in_order in ((payload.FACTS, False), (payload.EPOCH, True), (payload.VERSION, True)):
            kind_of_integers = models.IntegerIndexType.INTEGER
            integer = models.IntegerIndexParams(type=kind_of_integers, lookup=True, range=in_order, enable_hnsw=False)
            self._client.create_payload_index(space, key, integer, wait=True)

    def _index_ranges(self, space: str, scope: Scope, wanted: Filter) -> None:
        """Index the numbers that a filter compares, where the namespace has such a field, and not without end."""
        asked = ranges(wanted)
        if not asked:
            return
        if space not in self._ranges:
            schema = self._client.get_collection(space).payload_schema
            self._ranges[space] = {key for key in schema if key.startswith(payload.NUMBERS)}
        known = self._ranges[space]
        for key, there in asked.items():
            if key in known or len(known) >= _MOST_RANGES:
                continue
            having = models.Filter(must=[within(scope, _SAY), _SAY.any_of(payload.FACTS, [there])])
            if self._client.count(space, having, exact=False).count:
                number = models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=False)
                self._client.create_payload_index(space, key, number, wait=True)
                known.add(key)

    def _forget(self, space: str) -> None:
        self._made.discard(space)
        self._seen.discard(space)
        self._ranges.pop(space, None)

    def _query(self, space: str, spec: VectorSpec, query: Vector, must: list[Any], limit: int) -> list[Hit]:
        quantised = models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
        found = self._client.query_points(
            space,
            query=query.tolist(),
            using=spec.name,
            query_filter=models.Filter(must=must),
            limit=limit,
            with_payload=[payload.DOCUMENT],
            search_params=models.SearchParams(quantization=quantised),
        )
        return [Hit(str((point.payload or {})[payload.DOCUMENT]), float(point.score)) for point in found.points]

    def _spaces(self) -> list[str]:
        """Return our Qdrant collections as they are now: another process may just have made one."""
        listed = self._client.get_collections().collections
        return sorted(one.name for one in listed if one.name.startswith(_PREFIX))

    def _delete(self, must: list[Any]) -> None:
        with _telling_failures():
            for space in self._spaces():
                self._client.delete(space, models.FilterSelector(filter=models.Filter(must=must)), wait=True)

    def _count(self, must: list[Any]) -> int:
        wanted = models.Filter(must=must)
        with _telling_failures():
            return sum(self._client.count(space, wanted, exact=True).count for space in self._spaces())


def _vector(point: Point) -> Vector:
    assert point.vector is not None
    return point.vector


def _point(scope: Scope, name: str, point: Point) -> models.PointStruct:
    return models.PointStruct(
        id=payload.engine_id(scope, point.document_id),
        vector={name: _vector(point).tolist()},
        payload=payload.payload(scope, point),
    )


@contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except OpenPeekError:
        raise
    except UnexpectedResponse as error:
        said = (error.content or b"").decode(errors="replace")[:200]
        if error.status_code == _FULL or "No space left" in said:
            raise StorageFull("vector index", "the disk of the Qdrant server is full") from error
        raise Unavailable("vector index", f"the Qdrant server answered {error.status_code}: {said}") from error
    except QdrantException as error:  # it asks us to wait
        raise Unavailable("vector index", f"the Qdrant server is busy: {error}"[:200]) from error
    except (ResponseHandlingException, ApiException, OSError) as error:
        cause = getattr(error, "source", None) or error
        raise Unavailable("vector index", f"the Qdrant server: {type(cause).__name__}") from error
