"""The index on a Qdrant server: one Qdrant collection per kind of vector, all organizations in it (docs/adr/0004).

A search always demands a tenant, so the graph is built per tenant (payload_m) and not over all of them, as
Qdrant advises for many tenants; vectors are quantised to int8 and the nearest are rescored.
"""

import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from domain.documents import Scope
from domain.errors import Invalid, OpenPeekError, StorageFull, Unavailable
from domain.features import VectorSpec
from domain.filters import Filter
from storage.ports import Hit, Point, Vector
from storage.vectors import payload
from storage.vectors.conditions import supports, translate

# Conditional upserts (update_filter), on which the fence rests, came with this version.
OLDEST_SERVER: Final = (1, 16, 0)
TIMEOUT_SECONDS: Final = 10
_PREFIX: Final = "openpeek_"
_SPARE: Final = 16
_OVERSAMPLING: Final = 3.0
_SCROLL: Final = 1_000
_REMEMBER_SECONDS: Final = 5.0


def connect(url: str, api_key: str | None) -> QdrantClient:
    """Return a client; nothing is sent before the first call."""
    with warnings.catch_warnings():
        # It warns about a key over plain http, which is how containers on one internal network speak.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(url=url, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False)


class QdrantDialect:
    """How Qdrant's API writes conditions."""

    def any_of(self, key: str, values: Sequence[str]) -> Any:
        """Return: the key holds one of these keywords."""
        return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))

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
    """A vector index on a server, shared by any number of processes."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self._making = threading.Lock()
        self._made: set[str] = set()
        self._listed: tuple[float, list[str]] = (0.0, [])

    def upsert(self, scope: Scope, spec: VectorSpec | None, points: Sequence[Point]) -> None:
        """Write points durably, unless newer ones are there."""
        with_vectors = [point for point in points if point.vector is not None]
        if spec is None or not with_vectors:
            return
        for point in with_vectors:
            if point.vector is not None and point.vector.shape != (spec.dimensions,):
                message = f"A vector of {spec.name} has {spec.dimensions} dimensions, not {point.vector.shape}."
                raise Invalid(message, code="vector_schema_mismatch")
        space = _PREFIX + spec.name
        with _telling_failures():
            self._ensure(space, spec)
            for version, epoch, group in payload.versions(with_vectors):
                written = [
                    models.PointStruct(
                        id=payload.engine_id(scope, point.document_id),
                        vector={spec.name: point.vector.tolist() if point.vector is not None else []},
                        payload=payload.payload(scope, point),
                    )
                    for point in group
                ]
                self._client.upsert(space, written, wait=True, update_filter=_fence(version, epoch))

    def delete_older(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> None:
        """Delete surplus parts."""
        older = _SAY.between(payload.EPOCH, lt=epoch)
        self._delete_where(_of_sources(scope, collection_id, source_ids, [older]))

    def count(self, scope: Scope, collection_id: str, source_ids: Sequence[str], epoch: int) -> int:
        """Return how many points of these sources carry exactly this epoch."""
        mine = models.FieldCondition(key=payload.EPOCH, match=models.MatchValue(value=epoch))
        return self._count_where(_of_sources(scope, collection_id, source_ids, [mine]))

    def epochs(self, scope: Scope, collection_id: str, source_id: str) -> dict[str, int]:
        """Return document id → epoch of every point of one source."""
        found: dict[str, int] = {}
        wanted = _of_sources(scope, collection_id, [source_id], [])
        carried = [payload.DOCUMENT, payload.EPOCH]
        with _telling_failures():
            for space in self._spaces():
                offset: Any = None
                while True:
                    records, offset = self._client.scroll(
                        space, wanted, limit=_SCROLL, offset=offset, with_payload=carried, with_vectors=False
                    )
                    for record in records:
                        content = record.payload or {}
                        found[str(content[payload.DOCUMENT])] = int(content[payload.EPOCH])
                    if offset is None:
                        break
        return found

    def delete(self, scope: Scope, document_ids: Sequence[str], *, up_to_epoch: int) -> None:
        """Delete these documents' points unless they are newer."""
        ids = models.HasIdCondition(has_id=[payload.engine_id(scope, one) for one in document_ids])
        self._delete_where(models.Filter(must=[_mine(scope), ids, _SAY.between(payload.EPOCH, lte=up_to_epoch)]))

    def delete_collection(self, scope: Scope, collection_id: str, *, up_to_epoch: int) -> None:
        """Delete all points of a collection that are not newer."""
        whole = [_SAY.any_of(payload.COLLECTION, [collection_id]), _SAY.between(payload.EPOCH, lte=up_to_epoch)]
        self._delete_where(models.Filter(must=[_mine(scope), *whole]))

    def delete_namespace(self, scope: Scope) -> None:
        """Delete everything of a namespace."""
        self._delete_where(models.Filter(must=[_mine(scope)]))

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
        if not collection_ids or limit < 1 or document_ids == []:
            return []
        must = [_mine(scope), _SAY.any_of(payload.COLLECTION, collection_ids)]
        if filter is not None:
            must.append(translate(filter, _SAY))
        if document_ids is not None:
            must.append(models.HasIdCondition(has_id=[payload.engine_id(scope, one) for one in document_ids]))
        with _telling_failures():
            if _PREFIX + spec.name not in self._spaces():
                return []
            quantised = models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
            found = self._client.query_points(
                _PREFIX + spec.name,
                query=query.tolist(),
                using=spec.name,
                query_filter=models.Filter(must=must),
                limit=limit + _SPARE,
                with_payload=[payload.DOCUMENT],
                search_params=models.SearchParams(quantization=quantised),
            )
        hits = [Hit(str((point.payload or {})[payload.DOCUMENT]), float(point.score)) for point in found.points]
        hits.sort(key=lambda hit: (-hit.score, hit.document_id))
        return hits[:limit]

    def supports(self, filter: Filter) -> bool:  # noqa: A002
        """Say whether the index can evaluate a filter exactly."""
        return supports(filter)

    def count_all(self, scope: Scope, collection_id: str) -> int:
        """Return how many points a collection has, of any epoch."""
        return self._count_where(models.Filter(must=[_mine(scope), _SAY.any_of(payload.COLLECTION, [collection_id])]))

    def check(self) -> None:
        """Prove that the server answers, and is new enough."""
        with _telling_failures():
            version = self._client.info().version
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
        if numbers < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise Unavailable(
                "vector index", f"the Qdrant server is version {version}, and {oldest} or newer is needed"
            )

    def settle(self) -> float:
        """Do nothing: the server tidies itself up."""
        return 0.0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _ensure(self, space: str, spec: VectorSpec) -> None:
        """Make the Qdrant collection of a kind of vectors, unless some process has made it."""
        if space in self._made:
            return
        with self._making:
            if not self._client.collection_exists(space):
                try:
                    self._create(space, spec)
                except UnexpectedResponse as error:
                    if error.status_code not in {400, 409}:  # another process was faster
                        raise
            for key in payload.INDEXED:
                tenant = models.KeywordIndexParams(
                    type=models.KeywordIndexType.KEYWORD, is_tenant=key == payload.TENANT
                )
                self._client.create_payload_index(space, key, tenant, wait=True)
            for key in (payload.EPOCH, payload.VERSION):
                self._client.create_payload_index(space, key, models.PayloadSchemaType.INTEGER, wait=True)
            self._made.add(space)
            self._listed = (0.0, [])

    def _create(self, space: str, spec: VectorSpec) -> None:
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        self._client.create_collection(
            space,
            vectors_config={spec.name: models.VectorParams(size=spec.dimensions, distance=models.Distance.COSINE)},
            quantization_config=models.ScalarQuantization(scalar=int8),
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
        )

    def _spaces(self) -> list[str]:
        """Return our Qdrant collections, asked for again when the answer is older than 5 s."""
        asked, names = self._listed
        if time.monotonic() - asked > _REMEMBER_SECONDS or not names:
            listed = self._client.get_collections().collections
            names = sorted(one.name for one in listed if one.name.startswith(_PREFIX))
            self._listed = (time.monotonic(), names)
        return names

    def _delete_where(self, condition: models.Filter) -> None:
        with _telling_failures():
            for space in self._spaces():
                self._client.delete(space, models.FilterSelector(filter=condition), wait=True)

    def _count_where(self, condition: models.Filter) -> int:
        with _telling_failures():
            return sum(self._client.count(space, condition, exact=True).count for space in self._spaces())


def _mine(scope: Scope) -> Any:
    return _SAY.any_of(payload.TENANT, [payload.tenant(scope)])


def _of_sources(scope: Scope, collection_id: str, source_ids: Sequence[str], further: Sequence[Any]) -> models.Filter:
    own = [_mine(scope), _SAY.any_of(payload.COLLECTION, [collection_id]), _SAY.any_of(payload.SOURCE, source_ids)]
    return models.Filter(must=[*own, *further])


def _fence(version: int, epoch: int) -> models.Filter:
    """Return the condition under which an existing point may be replaced: it is not newer than ours."""
    same = models.FieldCondition(key=payload.VERSION, match=models.MatchValue(value=version))
    return models.Filter(
        should=[
            _SAY.between(payload.VERSION, lt=version),
            models.Filter(must=[same, _SAY.between(payload.EPOCH, lte=epoch)]),
        ]
    )


@contextmanager
def _telling_failures() -> Iterator[None]:
    try:
        yield
    except OpenPeekError:
        raise
    except UnexpectedResponse as error:
        said = (error.content or b"").decode(errors="replace")[:200]
        if error.status_code == 507 or "No space left" in said:  # noqa: PLR2004
            raise StorageFull("vector index", "the disk of the Qdrant server is full") from error
        raise Unavailable("vector index", f"the Qdrant server answered {error.status_code}: {said}") from error
    except (ResponseHandlingException, ApiException, OSError) as error:
        cause = getattr(error, "source", None) or error
        raise Unavailable("vector index", f"the Qdrant server: {type(cause).__name__}") from error
