"""Collections."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from api.bodies import StrictRoute
from api.buckets.schemas import ListQuery
from api.collections import service
from api.collections.schemas import CollectionCreate, view
from api.deps import Asked, InNamespace, Inside, Paging
from api.replies import reply
from domain.errors import Conflict
from storage.tables import batches, collections, documents, removal
from storage.tables.collections import CollectionRow

router = APIRouter(prefix="/collections", route_class=StrictRoute, tags=["collections"])
ThisPage = Annotated[Asked, Depends(Paging())]


@router.post("")
def create_collection(here: InNamespace, body: CollectionCreate) -> Response:
    """Create a collection over a bucket or over other collections; nothing is processed until a batch is submitted."""
    made = service.create_collection(here, body)
    row = made.row
    buckets = row.source_ids("bucket")
    where = f"bucket {buckets[0]}" if buckets else "the bucket that feeds it"
    step = f"Submit a batch of {where} with POST /v1/buckets/…/batches; objects already there are processed then."
    return reply({**view(row, 0), "next_step": step}, warnings=made.warnings)


@router.get("")
def list_collections_get(
    here: InNamespace, asked: ThisPage, search: Annotated[str | None, Query(max_length=256)] = None
) -> Response:
    """List collections, oldest first."""
    return _listed(here, asked, search)


@router.post("/list")
def list_collections(here: InNamespace, asked: ThisPage, body: ListQuery) -> Response:
    """List collections, oldest first."""
    return _listed(here, asked, body.search)


@router.get("/{collection_identifier}")
def get_collection(here: InNamespace, collection_identifier: str) -> Response:
    """Return a collection by id or name."""
    with here.services.storage.database.reading() as session:
        row = collections.require(session, here.scope, collection_identifier)
        return reply(_shown(session, here, [row])[0])


@router.delete("/{collection_identifier}")
def delete_collection(here: InNamespace, collection_identifier: str, *, force: bool = False) -> Response:
    """Delete a collection and its documents; while a batch works on it this is refused, unless forced."""
    with here.services.storage.database.writing() as uow:
        row = collections.require(uow.session, here.scope, collection_identifier)
        running = [
            one.id
            for one in batches.running_on(uow.session, here.scope)
            if any(row.id in one.tier(number) for number in range(len(one.dag_tiers)))
        ]
        if running and not force:
            message = f"{len(running)} batches are working on this collection. Cancel them, or delete with ?force=true."
            raise Conflict(message, code="collection_busy", batch_ids=running[:10])
        removal.hide_collection(uow.session, here.scope, row.id, again_ms=2 * here.services.lease_ms)
    message = f"The collection {row.name!r} and its documents are deleted."
    return reply({"success": True, "message": message, "collection_id": row.id})


def _shown(session: Session, here: Inside, rows: list[CollectionRow]) -> list[dict[str, Any]]:
    counts = documents.count_each(session, here.scope, [row.id for row in rows])
    return [view(row, counts.get(row.id, 0)) for row in rows]


def _listed(here: Inside, asked: Asked, search: str | None) -> Response:
    with here.services.storage.database.reading() as session:
        page = collections.list_page(session, here.scope, asked.page, search)
        results = _shown(session, here, list(page.rows))
    return reply({"results": results, "total_count": page.total, "pagination": asked.pagination(page)})
