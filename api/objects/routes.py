"""Objects: one by one, or up to a hundred at a time."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.bodies import StrictRoute
from api.buckets.schemas import ListQuery
from api.deps import Asked, InNamespace, Inside, Paging
from api.objects import intake
from api.objects.intake import Intake
from api.objects.schemas import ObjectCreate, ObjectsCreate, view
from api.replies import reply
from domain.errors import Invalid, OpenPeekError
from domain.json_types import Json
from storage.tables import buckets, collections, items, objects
from storage.tables.buckets import BucketRow
from storage.tables.objects import ObjectRow

router = APIRouter(prefix="/buckets/{bucket_identifier}/objects", route_class=StrictRoute, tags=["objects"])
ThisPage = Annotated[Asked, Depends(Paging(default=10))]


@router.post("")
def create_object(here: InNamespace, bucket_identifier: str, body: ObjectCreate) -> Response:
    """Create an object. Nothing is processed until a batch with it is submitted."""
    bucket = _bucket(here, bucket_identifier)
    taken = intake.take_in(here.scope, bucket, body)
    _keep(here, [taken])
    with here.services.storage.database.reading() as session:
        row = objects.require(session, here.scope, bucket.id, taken.row["id"])
        content = {**view(row, set()), "next_step": _next_step(session, here, bucket)}
    return reply(content, warnings=body.unknown_keys())


@router.post("/batch")
def create_objects_batch(here: InNamespace, bucket_identifier: str, body: ObjectsCreate) -> Response:
    """Create up to 100 objects. Each stands or falls by itself; the reply says which and why."""
    bucket = _bucket(here, bucket_identifier)
    taken: list[Intake] = []
    failed: list[dict[str, Json]] = []
    for index, raw in enumerate(body.objects):
        try:
            one = intake.take_in(here.scope, bucket, ObjectCreate.model_validate(raw))
            intake.keep_blobs(one, here.services.storage.blobs)
            taken.append(one)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"{where}: {first['msg']}" if where else first["msg"]
            failed.append({"object_index": index, "error": message, "error_type": "ValidationError"})
        except Invalid as error:
            failed.append({"object_index": index, "error": error.message, "error_type": error.type})
    _insert(here, taken)
    with here.services.storage.database.reading() as session:
        rows = objects.load(session, here.scope, [one.row["id"] for one in taken])
        next_step = _next_step(session, here, bucket)
    return reply(
        {
            "succeeded": [view(rows[one.row["id"]], set()) for one in taken if one.row["id"] in rows],
            "failed": failed,
            "total_requested": len(body.objects),
            "succeeded_count": len(taken),
            "failed_count": len(failed),
            "next_step": next_step,
        },
        warnings=body.unknown_keys(),
    )


@router.get("")
def list_objects_get(here: InNamespace, bucket_identifier: str, asked: ThisPage) -> Response:
    """List the objects of a bucket, oldest first."""
    return _listed(here, bucket_identifier, asked)


@router.post("/list")
def list_objects(here: InNamespace, bucket_identifier: str, asked: ThisPage, body: ListQuery) -> Response:
    """List the objects of a bucket, oldest first."""
    if body.filters:
        raise Invalid("Filters on objects are not offered yet.", location=("body", "filters"), code="not_offered")
    return _listed(here, bucket_identifier, asked, body.unknown_keys())


@router.get("/{object_identifier}")
def get_object(
    here: InNamespace, bucket_identifier: str, object_identifier: str, *, return_presigned_urls: bool = False
) -> Response:
    """Return an object, on request with URLs from which its blobs can be read for an hour."""
    bucket = _bucket(here, bucket_identifier)
    with here.services.storage.database.reading() as session:
        row = objects.require(session, here.scope, bucket.id, object_identifier)
        states = items.states_of_objects(session, [row.id]).get(row.id, set())
    return reply(view(row, states, _urls(here, row) if return_presigned_urls else None))


def _bucket(here: Inside, identifier: str) -> BucketRow:
    with here.services.storage.database.reading() as session:
        return buckets.require(session, here.scope, identifier)


def _keep(here: Inside, taken: Sequence[Intake]) -> None:
    for one in taken:
        intake.keep_blobs(one, here.services.storage.blobs)
    _insert(here, taken)


def _insert(here: Inside, taken: Sequence[Intake]) -> None:
    try:
        with here.services.storage.database.writing() as uow:
            objects.add_all(uow.session, [one.row for one in taken])
    except OpenPeekError:
        # The rows were not written, so nothing points to these bytes; a crash here leaves them to the sweep.
        here.services.storage.blobs.delete([key for one in taken for key in one.pending])
        raise


def _next_step(session: Session, here: Inside, bucket: BucketRow) -> str:
    tiers = collections.fed_by(collections.all_living(session, here.scope), bucket.id)
    if not tiers:
        return (
            f"No collection reads this bucket yet: create one with POST /v1/collections and source bucket {bucket.id}."
        )
    return f"Put the object into a batch with POST /v1/buckets/{bucket.id}/batches, then submit it."


def _urls(here: Inside, row: ObjectRow) -> dict[str, str]:
    return {
        str(blob["blob_id"]): here.services.storage.blobs.read_url(
            str(blob["key"]),
            filename=str(blob.get("property")),
            content_type=str(blob.get("mime_type") or "application/octet-stream"),
        )
        for blob in row.blobs
        if isinstance(blob, dict) and blob.get("key")
    }


def _listed(here: Inside, bucket_identifier: str, asked: Asked, warnings: list[str] | None = None) -> Response:
    bucket = _bucket(here, bucket_identifier)
    with here.services.storage.database.reading() as session:
        page = objects.list_page(session, here.scope, bucket.id, asked.page)
        states = items.states_of_objects(session, [row.id for row in page.rows])
    results: list[dict[str, Any]] = [view(row, states.get(row.id, set())) for row in page.rows]
    size = sum(row.size_bytes for row in page.rows)
    content = {
        "results": results,
        "pagination": asked.pagination(page),
        "stats": {"total_objects": len(results), "total_size_bytes": size},
    }
    return reply(content, warnings=warnings)
