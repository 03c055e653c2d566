"""Buckets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from api.bodies import StrictRoute
from api.buckets.schemas import BucketCreate, ListQuery, view
from api.deps import Asked, InNamespace, Inside, Paging
from api.replies import reply, without_none
from domain.errors import Conflict
from domain.ids import new_id
from storage.tables import batches, buckets, objects, removal
from storage.tables.buckets import BucketRow

router = APIRouter(prefix="/buckets", route_class=StrictRoute, tags=["buckets"])
ThisPage = Annotated[Asked, Depends(Paging())]


@router.post("")
def create_bucket(here: InNamespace, body: BucketCreate) -> Response:
    """Create a bucket. Objects put into it are checked against its schema."""
    properties = body.bucket_schema.properties if body.bucket_schema else {}
    row = BucketRow(
        id=new_id("bkt"),
        organization_id=here.scope.organization_id,
        namespace_id=here.scope.namespace_id,
        name=body.bucket_name,
        description=body.description,
        schema={name: without_none(field.model_dump()) for name, field in properties.items()},
        settings={"metadata": body.metadata or {}},
    )
    with here.services.storage.database.writing() as uow:
        buckets.add(uow.session, row)
    return reply(view(row, (0, 0)), warnings=body.unknown_keys())


@router.get("")
def list_buckets_get(
    here: InNamespace, asked: ThisPage, search: Annotated[str | None, Query(max_length=256)] = None
) -> Response:
    """List buckets, oldest first."""
    return _listed(here, asked, search)


@router.post("/list")
def list_buckets(here: InNamespace, asked: ThisPage, body: ListQuery) -> Response:
    """List buckets, oldest first."""
    return _listed(here, asked, body.search)


@router.get("/{bucket_identifier}")
def get_bucket(here: InNamespace, bucket_identifier: str) -> Response:
    """Return a bucket by id or name."""
    with here.services.storage.database.reading() as session:
        row = buckets.require(session, here.scope, bucket_identifier)
        return reply(_shown(session, here, [row])[0])


@router.delete("/{bucket_identifier}")
def delete_bucket(here: InNamespace, bucket_identifier: str, *, force_foreclose: bool = False) -> Response:
    """Delete a bucket with its objects and all documents made from them; collections over it stay."""
    with here.services.storage.database.writing() as uow:
        row = buckets.require(uow.session, here.scope, bucket_identifier)
        running = batches.running_on(uow.session, here.scope, bucket_id=row.id)
        if running and not force_foreclose:
            message = (
                f"{len(running)} batches of this bucket are running. Cancel them, or delete with ?force_foreclose=true."
            )
            raise Conflict(message, code="bucket_busy", batch_ids=[one.id for one in running[:10]])
        count, _ = objects.totals(uow.session, here.scope, [row.id]).get(row.id, (0, 0))
        task = removal.receipt(uow.session, here.scope, "api_buckets_delete", {"bucket_id": row.id})
        removal.hide_bucket(uow.session, here.scope, row.id, again_ms=2 * here.services.lease_ms)
    return reply(
        {
            "task_id": task.id,
            "status": task.status,
            "bucket_id": row.id,
            "bucket_name": row.name,
            "object_count": count,
        }
    )


def _shown(session: Session, here: Inside, rows: list[BucketRow]) -> list[dict[str, Any]]:
    totals = objects.totals(session, here.scope, [row.id for row in rows])
    return [view(row, totals.get(row.id, (0, 0))) for row in rows]


def _listed(here: Inside, asked: Asked, search: str | None) -> Response:
    with here.services.storage.database.reading() as session:
        page = buckets.list_page(session, here.scope, asked.page, search)
        results = _shown(session, here, list(page.rows))
    return reply({"results": results, "total_count": page.total, "pagination": asked.pagination(page)})
