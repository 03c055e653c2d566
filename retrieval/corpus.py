"""The documents of some collections, as stages see them: found through the index, believed from the rows."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from domain.documents import Document, Scope
from domain.errors import Conflict, Invalid
from domain.features import FeatureURI, VectorSpec
from domain.filters import Filter
from domain.json_types import Fields
from extractors.contract import Extractor
from retrieval.contract import SearchRequest, Vector
from retrieval.fusion import reciprocal_rank
from storage.bundle import Storage
from storage.tables import collections, documents
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow
from storage.tables.paging import PageRequest

MAX_FETCH: Final = 1_000
_MOST_ROUNDS: Final = 5
# Names under which users ask for "the text vectors", whatever the model is called.
_ALIASES: Final = frozenset({"embedding", "text_embedding"})


@dataclass(slots=True)
class LiveCorpus:
    """The living collections of one retriever in one namespace.

    Attributes:
        extractor_of: gives the configured extractor of a collection, whose model embeds the queries.
        internal: turns a row and its collection into what is shown under ``_internal``.
        timings: milliseconds spent on embedding queries, in the index and with rows, added up.
    """

    storage: Storage
    scope: Scope
    rows: Sequence[CollectionRow]
    extractor_of: Callable[[CollectionRow], Extractor]
    internal: Callable[[DocumentRow, CollectionRow], Fields]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def collection_ids(self) -> Sequence[str]:
        """The ids of the collections."""
        return [row.id for row in self.rows]

    def search(self, request: SearchRequest, *, among: Sequence[str] | None = None) -> list[Document]:
        """Return live documents, nearest first by (-score, id). Raises as `retrieval.contract.Corpus.search`."""
        chosen = self._with_feature(self._chosen(request.collection_ids), request.feature)
        by_spec: dict[VectorSpec, list[CollectionRow]] = {}
        for row in chosen:
            if row.spec is not None:
                by_spec.setdefault(_comparable(row.spec), []).append(row)
        if len({(spec.model_id, spec.revision) for spec in by_spec}) > 1 and not isinstance(request.query, str):
            message = "These collections hold vectors of different models. Name the feature that the vector belongs to."
            raise Conflict(message, code="model_mismatch")
        rankings: list[tuple[float, list[Document]]] = []
        for spec, rows in by_spec.items():
            with self._timing("embed_ms"):
                query = self._query_vector(rows[0], request.query)
            rankings.append((1.0, self._nearest(spec, rows, query, request, among)))
        if len(rankings) == 1:
            return rankings[0][1]
        # Cosines of different widths or revisions have no common scale, so such groups are fused by rank.
        return reciprocal_rank(rankings)[: request.limit]

    def fetch(self, filter: Filter | None, collection_ids: Sequence[str], limit: int) -> list[Document]:  # noqa: A002
        """Return live documents that match, oldest first, without a score."""
        ids = [row.id for row in self._chosen(collection_ids)]
        with self.storage.database.reading() as session:
            page = documents.list_page(session, self.scope, ids, PageRequest(limit=limit), filter)
        return [self._document(row, None) for row in page.rows]

    def _chosen(self, identifiers: Sequence[str]) -> list[CollectionRow]:
        if not identifiers:
            return list(self.rows)
        known = {name: row for row in self.rows for name in (row.name, row.id)}
        unknown = [one for one in identifiers if one not in known]
        if unknown:
            names = ", ".join(sorted(row.name for row in self.rows)) or "none"
            message = f"This retriever has no collection {unknown[0][:100]!r}. It has: {names}."
            raise Invalid(message, code="unknown_collection", location=("collection_identifiers",))
        return list({known[one].id: known[one] for one in identifiers}.values())

    def _with_feature(self, rows: Sequence[CollectionRow], feature: FeatureURI | str | None) -> list[CollectionRow]:
        """Return the collections that have this feature; without one, those with the only text index there is."""
        with_vectors = [row for row in rows if row.feature_uri is not None]
        matching = [row for row in with_vectors if feature is None or _is_called(row, feature)]
        models = {(row.model_id, row.revision) for row in matching}
        unclear = len(models) > 1 and (feature is None or _is_alias(feature))
        if (matching and not unclear) or (feature is None and not rows):
            return matching
        available = ", ".join(sorted({str(row.feature_uri) for row in with_vectors})) or "none"
        asked = "No feature was named" if feature is None else f"No single text index here is {str(feature)[:200]!r}"
        raise Invalid(f"{asked}. Available: {available}.", code="unknown_feature", location=("feature_uri",))

    def _query_vector(self, row: CollectionRow, query: str | Sequence[float]) -> Vector:
        if isinstance(query, str):
            extractor = self.extractor_of(row)
            identity = extractor.identity()
            if identity is not None and identity.revision != row.revision:
                message = (
                    f"The documents of {row.name!r} were embedded with revision {row.revision} of {row.model_id}, and "
                    f"this machine has {identity.revision}. Put the former revision back, or embed them again."
                )
                raise Conflict(message, code="model_mismatch")
            return extractor.embed_query(query)
        if len(query) != row.dimensions:
            message = f"The vector has {len(query)} dimensions; {row.feature_uri} has {row.dimensions}."
            raise Invalid(message, code="dimension_mismatch", location=("query", "value"))
        vector = np.asarray(query, dtype=np.float32)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0.0:
            raise Invalid("A query vector must be finite and not all zero.", location=("query", "value"))
        return vector / np.float32(length)

    def _nearest(
        self,
        spec: VectorSpec,
        rows: Sequence[CollectionRow],
        query: Vector,
        request: SearchRequest,
        among: Sequence[str] | None,
    ) -> list[Document]:
        """Ask the index for more until enough live documents are found or there are no more."""
        ids = [row.id for row in rows]
        wanted, only = request.filter, None if among is None else list(among)
        if wanted is not None and not self.storage.vectors.supports(wanted):
            with self.storage.database.reading() as session:
                matching = documents.resolve(session, self.scope, ids, wanted)
            only = matching if only is None else sorted(set(only).intersection(matching))
            wanted = None
        if only == []:
            return []
        limit = request.limit
        live: list[Document] = []
        for _ in range(_MOST_ROUNDS):
            with self._timing("index_ms"):
                hits = self.storage.vectors.search(
                    self.scope, spec, query, collection_ids=ids, filter=wanted, document_ids=only, limit=limit
                )
            with self._timing("rows_ms"), self.storage.database.reading() as session:
                found = documents.load(session, self.scope, [hit.document_id for hit in hits])
            live = [
                self._document(row, hit.score)
                for hit in hits
                if (row := found.get(hit.document_id)) is not None and row.collection_id in ids
            ]
            if len(live) >= request.limit or len(hits) < limit:
                break
            limit = min(limit * 4, 50_000)
        return live[: request.limit]

    @contextmanager
    def _timing(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings[what] = self.timings.get(what, 0.0) + (time.perf_counter() - began) * 1000

    def _document(self, row: DocumentRow, score: float | None) -> Document:
        collection = next(one for one in self.rows if one.id == row.collection_id)
        return Document(row.id, row.collection_id, row.fields, self.internal(row, collection), score)


def _comparable(spec: VectorSpec) -> VectorSpec:
    """Vectors of both precisions answer each other's queries."""
    return VectorSpec(spec.model_id, spec.inference_name, spec.revision, spec.dimensions, "fp32", spec.quantisation)


def _is_alias(feature: FeatureURI | str) -> bool:
    output = feature.output if isinstance(feature, FeatureURI) else feature
    return output is None or output in _ALIASES


def _is_called(row: CollectionRow, feature: FeatureURI | str) -> bool:
    index_name = f"{row.extractor_id}_embedding"
    if isinstance(feature, str):
        return feature in {row.inference_name, index_name, *_ALIASES}
    own = row.feature_uri
    same = own is not None and feature.version == own.version and feature.extractor in {own.extractor, "text_embedding"}
    return same and (_is_alias(feature) or feature.output in {row.inference_name, index_name})


def check_live(rows: Sequence[CollectionRow], collection_ids: Sequence[str]) -> None:
    """Raise Conflict when a collection that a retriever was made over has been deleted."""
    living = {row.id for row in rows}
    gone = [one for one in collection_ids if one not in living]
    if gone:
        message = (
            f"The collection {gone[0]} that this retriever reads has been deleted. Change or delete the retriever."
        )
        raise Conflict(message, code="collection_deleted", collection_ids=list(gone))


def load_rows(storage: Storage, scope: Scope, collection_ids: Sequence[str]) -> list[CollectionRow]:
    """Return living collections by id."""
    with storage.database.reading() as session:
        return collections.load(session, scope, collection_ids)
