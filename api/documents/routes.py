"""Documents of a collection, read from the rows."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from api.bodies import StrictRoute
from api.buckets.schemas import ListQuery
from api.deps import Asked, InNamespace, Inside, Paging
from api.documents.schemas import view
from api.replies import reply
from domain import filters
from domain.errors import Invalid
from domain.json_types import Json
from extractors import registry
from storage.tables import collections, documents, vectors
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow

router = APIRouter(prefix="/collections/{collection_identifier}/documents", route_class=StrictRoute, tags=["documents"])
ThisPage = Annotated[Asked, Depends(Paging())]


class DocumentQuery(ListQuery):
    """What a list of documents may be asked for."""

    return_vectors: bool | None = False
    return_presigned_urls: bool | None = False


@router.get("")
def list_documents_get(
    here: InNamespace,
    collection_identifier: str,
    asked: ThisPage,
    wanted: Annotated[str | None, Query(alias="filters", max_length=20_000)] = None,
    *,
    return_vectors: bool = False,
) -> Response:
    """List documents, oldest first; ``filters`` is URL-encoded JSON."""
    parsed: Json = None
    if wanted:
        try:
            parsed = orjson.loads(wanted)
        except orjson.JSONDecodeError as error:
            raise Invalid("filters is not valid JSON.", location=("query", "filters")) from error
    return _listed(here, collection_identifier, asked, parsed, [], with_vectors=return_vectors)


@router.post("/list")
def list_documents(here: InNamespace, collection_identifier: str, asked: ThisPage, body: DocumentQuery) -> Response:
    """List documents that match a filter, oldest first."""
    if body.sort:
        raise Invalid(
            "Sorting documents is not offered yet; they come oldest first.",
            location=("body", "sort"),
            code="not_offered",
        )
    with_vectors = bool(body.return_vectors)
    return _listed(here, collection_identifier, asked, body.filters, body.unknown_keys(), with_vectors=with_vectors)


@router.get("/count")
def count_documents(here: InNamespace, collection_identifier: str) -> Response:
    """Return how many documents a collection has."""
    with here.services.storage.database.reading() as session:
        row = collections.require(session, here.scope, collection_identifier)
        return reply({"collection_id": row.id, "count": documents.count(session, here.scope, row.id)})


@router.get("/{document_id}")
def get_document(
    here: InNamespace, collection_identifier: str, document_id: str, *, return_vectors: bool = False
) -> Response:
    """Return a document, on request with its vector."""
    with here.services.storage.database.reading() as session:
        collection = collections.require(session, here.scope, collection_identifier)
        row = documents.require(session, here.scope, collection.id, document_id)
        shown = _shown(session, here, collection, [row], with_vectors=return_vectors)
    return reply(shown[0])


def _listed(
    here: Inside, identifier: str, asked: Asked, raw: Json, warnings: list[str], *, with_vectors: bool
) -> Response:
    wanted = filters.parse(raw)
    with here.services.storage.database.reading() as session:
        collection = collections.require(session, here.scope, identifier)
        page = documents.list_page(session, here.scope, [collection.id], asked.page, wanted)
        results = _shown(session, here, collection, page.rows, with_vectors=with_vectors)
    return reply({"results": results, "pagination": asked.pagination(page)}, warnings=warnings)


def _shown(
    session: Session, here: Inside, collection: CollectionRow, rows: Sequence[DocumentRow], *, with_vectors: bool
) -> list[dict[str, Any]]:
    if not with_vectors or collection.feature_uri is None:
        return [view(row, collection) for row in rows]
    full = vectors.find(session, [row.vector_key for row in rows if row.vector_key])
    extractor = registry.configure(collection.extractor_name, collection.parameters, here.services.models)
    name = collection.inference_name or ""
    fitted = {key: extractor.fit(vector[None, :])[0].tolist() for key, vector in full.items()}
    return [view(row, collection, {name: fitted[row.vector_key]} if row.vector_key in fitted else {}) for row in rows]
