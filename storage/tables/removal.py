"""Deletion: first everything is hidden in one transaction, later the sweep takes it away piece by piece."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from domain.documents import Scope
from domain.ids import new_id
from domain.json_types import Fields
from storage.tables import (
    batches,
    buckets,
    collections,
    documents,
    ending,
    items,
    namespaces,
    objects,
    tasks,
    tombstones,
)
from storage.tables.batches import BatchObjectRow, BatchRow
from storage.tables.buckets import BucketRow
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow
from storage.tables.items import ItemRow
from storage.tables.objects import ObjectRow
from storage.tables.retrievers import RetrieverRow
from storage.tables.tasks import TaskRow

_SCOPED = (ItemRow, DocumentRow, TaskRow, RetrieverRow, ObjectRow, CollectionRow, BucketRow)


def hide_collection(session: Session, scope: Scope, collection_id: str, *, again_ms: int) -> None:
    """Hide a collection, close its open items, and leave the rest to the sweep."""
    collections.mark_deleting(session, scope, collection_id)
    reason = "The collection was deleted before this was processed."
    for batch_id in items.fail_open(session, collection_id=collection_id, code="SOURCE_DELETED", reason=reason):
        ending.finish_if_done(session, batch_id)
    for row in collections.all_living(session, scope):
        if collection_id in row.source_ids("collection"):
            collections.note_lost_source(session, scope, row, "source_collection_deleted")
    tombstones.add(session, scope, "collection", collection_id, again_ms=again_ms)


def hide_bucket(session: Session, scope: Scope, bucket_id: str, *, again_ms: int) -> None:
    """Hide a bucket, its objects, batches and everything derived from them."""
    buckets.mark_deleting(session, scope, bucket_id)
    running = batches.running_on(session, scope, bucket_id=bucket_id)
    reason = "The bucket was deleted before this was processed."
    items.fail_open(session, batch_ids=[row.id for row in running], code="SOURCE_DELETED", reason=reason)
    for row in running:
        ending.finish_if_done(session, row.id)
    objects.mark_deleting(session, scope, bucket_id)
    documents.hide_bucket(session, scope, bucket_id)
    batches.mark_deleting(session, scope, bucket_id)
    for collection in collections.all_living(session, scope):
        if collection.source_ids("bucket") == [bucket_id]:
            collections.note_lost_source(session, scope, collection, "source_bucket_deleted")
    tombstones.add(session, scope, "bucket", bucket_id, again_ms=again_ms)


def hide_namespace(session: Session, scope: Scope, *, again_ms: int) -> None:
    """Take a namespace away: its row at once, everything in it by the sweep."""
    running = batches.running_on(session, scope)
    reason = "The namespace was deleted before this was processed."
    items.fail_open(session, batch_ids=[row.id for row in running], code="SOURCE_DELETED", reason=reason)
    for row in running:
        ending.finish_if_done(session, row.id)
    for table in (BucketRow, CollectionRow, RetrieverRow, BatchRow):
        hidden = update(table).where(
            table.organization_id == scope.organization_id, table.namespace_id == scope.namespace_id
        )
        session.execute(hidden.values(state="deleting"))
    namespaces.remove(session, scope)
    tombstones.add(session, scope, "namespace", scope.namespace_id, again_ms=again_ms)


def some_objects(session: Session, scope: Scope, bucket_id: str | None) -> tuple[list[str], list[str]]:
    """Return up to 1,000 hidden objects and the blob keys they point to."""
    statement = select(ObjectRow).where(
        ObjectRow.organization_id == scope.organization_id, ObjectRow.namespace_id == scope.namespace_id
    )
    if bucket_id is not None:
        statement = statement.where(ObjectRow.bucket_id == bucket_id, ObjectRow.state == "deleting")
    rows = list(session.scalars(statement.limit(1_000)))
    keys = [str(blob["key"]) for row in rows for blob in row.blobs if isinstance(blob, dict) and blob.get("key")]
    return [row.id for row in rows], keys


def remove_objects(session: Session, object_ids: Sequence[str]) -> None:
    """Delete objects that nothing points to any more."""
    session.execute(delete(ObjectRow).where(ObjectRow.id.in_(object_ids)))


def remove_roots(session: Session, scope: Scope, kind: str, subject: str) -> None:
    """Delete the rows of the deleted thing itself, once nothing is left that it held."""
    if kind == "collection":
        session.execute(delete(CollectionRow).where(CollectionRow.id == subject))
    elif kind == "bucket":
        _remove_batches(session, BatchRow.bucket_id == subject)
        session.execute(delete(BucketRow).where(BucketRow.id == subject))
    elif kind == "namespace":
        mine = (BatchRow.organization_id == scope.organization_id) & (BatchRow.namespace_id == scope.namespace_id)
        _remove_batches(session, mine)
        for table in _SCOPED:
            session.execute(
                delete(table).where(
                    table.organization_id == scope.organization_id, table.namespace_id == scope.namespace_id
                )
            )


def _remove_batches(session: Session, chosen) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    ids = select(BatchRow.id).where(chosen)
    session.execute(delete(ItemRow).where(ItemRow.batch_id.in_(ids)))
    session.execute(delete(BatchObjectRow).where(BatchObjectRow.batch_id.in_(ids)))
    session.execute(delete(BatchRow).where(chosen))


def receipt(session: Session, scope: Scope, task_type: str, details: Fields) -> TaskRow:
    """Return the receipt of a deletion: what users see is done when the transaction is."""
    row = TaskRow(
        id=new_id("task"),
        organization_id=scope.organization_id,
        namespace_id=scope.namespace_id,
        type=task_type,
        status="COMPLETED",
        details=details,
    )
    return tasks.add(session, row)
