"""Putting the items of a batch into the queue: one statement per collection, however many objects there are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, false, func, insert, literal, select
from sqlalchemy.orm import Session, aliased

from domain.lifecycle import ItemState
from storage.database import now_ms
from storage.tables.batches import BatchObjectRow, BatchRow
from storage.tables.documents import DocumentRow
from storage.tables.items import ItemRow
from storage.tables.objects import ObjectRow


def enqueue_objects(session: Session, batch: BatchRow, collection_id: str) -> None:
    """Make the items of a collection that reads the bucket.

    An object deleted in the meantime becomes a failed item, so that the batch still accounts for it; with
    ``skip``, an object whose present version went through this collection before becomes a skipped one.
    """
    source = (
        select(
            BatchObjectRow.object_id.label("source_id"),
            BatchObjectRow.object_id.label("object_id"),
            func.coalesce(ObjectRow.version, 0).label("version"),
            func.coalesce(ObjectRow.estimated_tokens, 0).label("tokens"),
            (func.coalesce(ObjectRow.state, "gone") != "active").label("gone"),
        )
        .outerjoin(ObjectRow, ObjectRow.id == BatchObjectRow.object_id)
        .where(BatchObjectRow.batch_id == batch.id)
        .order_by(BatchObjectRow.object_id)
        .subquery()
    )
    _enqueue(session, batch, collection_id, 0, source.c)


def enqueue_documents(
    session: Session, batch: BatchRow, collection_id: str, tier: int, upstream: Sequence[str]
) -> None:
    """Make the items of a collection that reads other collections: their documents of this batch's objects.

    A document's version is the epoch that wrote it, so an unchanged one is skipped like an unchanged object.
    """
    chosen = select(BatchObjectRow.object_id).where(BatchObjectRow.batch_id == batch.id)
    source = (
        select(
            DocumentRow.id.label("source_id"),
            DocumentRow.object_id.label("object_id"),
            DocumentRow.epoch.label("version"),
            DocumentRow.tokens.label("tokens"),
            false().label("gone"),
        )
        .where(DocumentRow.collection_id.in_(upstream), DocumentRow.object_id.in_(chosen))
        .where(DocumentRow.state == "active")
        .order_by(DocumentRow.id)
        .subquery()
    )
    _enqueue(session, batch, collection_id, tier, source.c)


def _enqueue(session: Session, batch: BatchRow, collection_id: str, tier: int, source: Any) -> None:
    gone = source.gone
    values: dict[str, ColumnElement[Any]] = {
        "organization_id": literal(batch.organization_id),
        "namespace_id": literal(batch.namespace_id),
        "batch_id": literal(batch.id),
        "collection_id": literal(collection_id),
        "tier": literal(tier),
        "source_id": source.source_id,
        "object_id": source.object_id,
        "object_version": source.version,
        "estimated_tokens": source.tokens,
        "state": _state(batch, collection_id, source),
        "reason_code": case((gone, "SOURCE_DELETED")),
        "reason": case((gone, "The object was deleted before it was processed.")),
        "error_type": case((gone, "permanent")),
        "alone": false(),
        "updated_at": now_ms(),
    }
    values |= {
        name: literal(0) for name in ("attempts", "deaths", "epoch", "next_at", "parts", "tokens", "truncated_tokens")
    }
    session.execute(insert(ItemRow).from_select(list(values), select(*values.values())))


def _state(batch: BatchRow, collection_id: str, source: Any) -> ColumnElement[str]:
    states: list[tuple[Any, str]] = [(source.gone, ItemState.FAILED.value)]
    if batch.dedup_strategy == "skip":
        done = aliased(ItemRow)
        before = select(done.id).where(
            done.collection_id == collection_id,
            done.source_id == source.source_id,
            done.state == ItemState.COMPLETED.value,
            done.object_version == source.version,
        )
        states.append((before.exists(), ItemState.SKIPPED.value))
    return case(*states, else_=ItemState.PENDING.value)
