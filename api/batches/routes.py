"""Batches: under their bucket, and organization-wide."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.batches import service
from api.batches.schemas import BatchCreate, BatchObjects, BatchSubmit, task_view
from api.bodies import Body, StrictRoute
from api.buckets.schemas import ListQuery
from api.deps import Asked, CallerNow, InNamespace, Inside, Paging, ServicesNow
from api.replies import reply
from storage.tables import batches, buckets

router = APIRouter(prefix="/buckets/{bucket_identifier}/batches", route_class=StrictRoute, tags=["batches"])
organization_router = APIRouter(prefix="/batches", route_class=StrictRoute, tags=["batches"])
ThisPage = Annotated[Asked, Depends(Paging(default=100))]


class BatchQuery(ListQuery):
    """What a list of batches may be asked for."""

    status: str | None = None


@router.post("")
def create_batch(
    here: InNamespace, bucket_identifier: str, body: BatchCreate, *, auto_submit: bool = False
) -> Response:
    """Make a draft of some objects; with ``auto_submit`` it is submitted at once."""
    with here.services.storage.database.writing() as uow:
        row = service.create_batch(here, uow, bucket_identifier, body)
        if auto_submit or body.auto_submit:
            service.submit(here, uow, row)
    return _shown(here, row.id, row.bucket_id, body.unknown_keys())


@router.post("/list")
def list_batches(here: InNamespace, bucket_identifier: str, asked: ThisPage, body: BatchQuery) -> Response:
    """List the batches of a bucket, oldest first (without their object ids: ask for one batch to see them)."""
    with here.services.storage.database.reading() as session:
        bucket = buckets.require(session, here.scope, bucket_identifier)
        page = batches.list_page(session, here.scope, bucket.id, asked.page, body.status)
        results = service.shown(session, page.rows, with_objects=False)
    content = {"results": results, "total_count": page.total, "pagination": asked.pagination(page)}
    return reply(content, warnings=body.unknown_keys())


@router.get("/{batch_id}")
def get_batch(here: InNamespace, bucket_identifier: str, batch_id: str) -> Response:
    """Return a batch: its state, its progress, and why objects failed."""
    with here.services.storage.database.reading() as session:
        bucket = buckets.require(session, here.scope, bucket_identifier)
        row = batches.require(session, here.scope, bucket.id, batch_id)
        return reply(service.shown(session, [row])[0])


@router.post("/{batch_id}/objects")
def add_objects(here: InNamespace, bucket_identifier: str, batch_id: str, body: BatchObjects) -> Response:
    """Put more objects into a draft."""
    with here.services.storage.database.writing() as uow:
        row = service.add_objects(here, uow, bucket_identifier, batch_id, body.object_ids)
    return _shown(here, row.id, row.bucket_id, body.unknown_keys())


@router.post("/{batch_id}/submit")
def submit_batch(here: InNamespace, bucket_identifier: str, batch_id: str, body: BatchSubmit) -> Response:
    """Queue a draft. The reply is the task; `warnings` say what it may have to wait for."""
    with here.services.storage.database.writing() as uow:
        bucket = buckets.require(uow.session, here.scope, bucket_identifier)
        row = batches.require(uow.session, here.scope, bucket.id, batch_id, lock=True)
        task = service.submit(here, uow, row, body.dedup_strategy)
    return reply(task_view(task), warnings=[*body.unknown_keys(), *service.warnings_of(here, row)])


@router.post("/{batch_id}/cancel")
def cancel_batch(here: InNamespace, bucket_identifier: str, batch_id: str, body: Body) -> Response:
    """Cancel a batch. What is completed stays; what was in hand no longer counts."""
    with here.services.storage.database.writing() as uow:
        bucket = buckets.require(uow.session, here.scope, bucket_identifier)
        row = batches.require(uow.session, here.scope, bucket.id, batch_id, lock=True)
        receipts = service.cancel(here.services, uow, row)
    content = task_view(receipts[0]) if receipts else {"task_id": None, "status": row.status}
    return reply({**content, "batch_id": row.id}, warnings=body.unknown_keys())


@organization_router.get("/{batch_id}")
def get_batch_by_id(caller: CallerNow, services: ServicesNow, batch_id: str) -> Response:
    """Return a batch of any namespace of the organization."""
    with services.storage.database.reading() as session:
        row = batches.require_in_organization(session, caller.organization_id, batch_id)
        return reply(service.shown(session, [row])[0])


@organization_router.post("/{batch_id}/cancel")
def cancel_batch_by_id(caller: CallerNow, services: ServicesNow, batch_id: str, body: Body) -> Response:
    """Cancel a batch of any namespace of the organization."""
    with services.storage.database.writing() as uow:
        row = batches.require_in_organization(uow.session, caller.organization_id, batch_id, lock=True)
        receipts = service.cancel(services, uow, row)
    content = task_view(receipts[0]) if receipts else {"task_id": None, "status": row.status}
    return reply({**content, "batch_id": row.id}, warnings=body.unknown_keys())


def _shown(here: Inside, batch_id: str, bucket_id: str, warnings: list[str]) -> Response:
    with here.services.storage.database.reading() as session:
        row = batches.require(session, here.scope, bucket_id, batch_id)
        content = service.shown(session, [row])[0]
    if content["status"] == "DRAFT":
        content["next_step"] = f"Submit it with POST /v1/buckets/{bucket_id}/batches/{batch_id}/submit."
    return reply(content, warnings=warnings)
