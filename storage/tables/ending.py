"""How a batch ends: tier by tier, decided by whoever finishes an item, under the lock of the batch."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.lifecycle import OPEN_ITEMS, BatchStatus, ItemState, outcome
from storage.tables import batches, enqueueing, items, tasks
from storage.tables.batches import BatchRow
from storage.tables.collections import CollectionRow
from storage.tables.items import ItemRow


def start(session: Session, batch: BatchRow) -> None:
    """Put the first tier of a submitted batch into the queue. The caller holds the batch's lock."""
    batch.current_tier = -1
    session.flush()
    _advance(session, batch)


def finish_if_done(session: Session, batch_id: str) -> None:
    """Start the next tier, or close the batch, if nothing of the present tier is open.

    Two workers that finish the last two items each wait for the other here: one of them sees the end.
    """
    batch = batches.lock(session, batch_id)
    if batch is None or batch.status not in {BatchStatus.PENDING, BatchStatus.PROCESSING}:
        return
    if not has_open(session, batch_id):
        _close_tier(session, batch)
        _advance(session, batch)


def has_open(session: Session, batch_id: str) -> bool:
    """Say whether any item of a batch is neither finished nor given up."""
    statement = select(ItemRow.id).where(ItemRow.batch_id == batch_id, ItemRow.state.in_(OPEN_ITEMS))
    return session.scalar(statement.limit(1)) is not None


def _advance(session: Session, batch: BatchRow) -> None:
    while batch.current_tier + 1 < len(batch.dag_tiers):
        batch.current_tier += 1
        session.flush()
        _enqueue_tier(session, batch, batch.current_tier)
        tasks.add(session, tasks.for_tier(batch, batch.current_tier, batch.status))
        if has_open(session, batch.id):
            return
        _close_tier(session, batch)
    _close(session, batch)


def _enqueue_tier(session: Session, batch: BatchRow, tier: int) -> None:
    for collection_id in batch.tier(tier):
        if tier == 0:
            enqueueing.enqueue_objects(session, batch, collection_id)
            continue
        collection = session.get(CollectionRow, collection_id)
        above = set(batch.tier(tier - 1))
        upstream = [one for one in (collection.source_ids("collection") if collection else []) if one in above]
        enqueueing.enqueue_documents(session, batch, collection_id, tier, upstream)


def _close_tier(session: Session, batch: BatchRow) -> None:
    counts = items.counts(session, [batch.id])[batch.id].get(batch.current_tier, {})
    status = outcome(counts)
    if status is not None:
        tasks.set_status(session, batch.id, status.value, tier=batch.current_tier)


def _close(session: Session, batch: BatchRow) -> None:
    total: dict[ItemState, int] = {}
    for tier in items.counts(session, [batch.id])[batch.id].values():
        for state, number in tier.items():
            total[state] = total.get(state, 0) + number
    status = outcome(total) or BatchStatus.COMPLETED
    reason = None
    if status is BatchStatus.FAILED:
        first = items.failures(session, batch.id, limit=1)
        reason = f"Every object failed; the first reason was: {first[0].reason}" if first else "Every object failed."
    batches.finish(session, batch, status, reason)
