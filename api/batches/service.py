"""What happens to batches on request: made, filled, submitted, canceled."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from api.batches.schemas import BatchCreate, view
from api.collections.service import weights_warning
from api.deps import Inside
from api.services import Services
from domain.errors import Conflict, Invalid
from domain.ids import new_id
from domain.lifecycle import BatchStatus
from storage.database import UnitOfWork, now_ms
from storage.tables import batches, buckets, collections, ending, items, objects, outbox, tasks, tombstones
from storage.tables.batches import BatchRow
from storage.tables.collections import CollectionRow
from storage.tables.tasks import TaskRow


def create_batch(here: Inside, uow: UnitOfWork, bucket_identifier: str, body: BatchCreate) -> BatchRow:
    """Make a draft.

    Raises:
        NotFound: the bucket or a collection does not exist.
        Invalid: an object is not in the bucket, or neither objects nor filters were given.
    """
    session = uow.session
    bucket = buckets.require(session, here.scope, bucket_identifier)
    if body.filters:
        message = "Choosing objects by filters is not offered yet; give object_ids."
        raise Invalid(message, location=("body", "filters"), code="not_offered")
    object_ids = list(dict.fromkeys(body.object_ids or []))[: body.limit]
    if not object_ids:
        raise Invalid("A batch needs object_ids: at least one.", location=("body", "object_ids"))
    _check_objects(session, here, bucket.id, object_ids)
    row = BatchRow(
        id=new_id("btch"),
        organization_id=here.scope.organization_id,
        namespace_id=here.scope.namespace_id,
        bucket_id=bucket.id,
        name=body.batch_name or "",
        status=BatchStatus.DRAFT.value,
        collection_ids=_collection_ids(session, here, body.collection_ids or []),
        dag_tiers=[],
        dedup_strategy=body.dedup_strategy or "skip",
        settings={"metadata": body.metadata or {}},
    )
    return batches.add(session, row, object_ids)


def add_objects(
    here: Inside, uow: UnitOfWork, bucket_identifier: str, batch_id: str, object_ids: Sequence[str]
) -> BatchRow:
    """Put more objects into a draft. Raises Conflict once it has been submitted."""
    bucket = buckets.require(uow.session, here.scope, bucket_identifier)
    row = batches.require(uow.session, here.scope, bucket.id, batch_id, lock=True)
    if row.status != BatchStatus.DRAFT:
        message = f"The batch is {row.status}; objects can be added to a DRAFT only. Make another batch for them."
        raise Conflict(message, code="batch_not_draft", status=row.status)
    wanted = list(dict.fromkeys(object_ids))
    _check_objects(uow.session, here, bucket.id, wanted)
    batches.add_objects(uow.session, row, wanted)
    return row


def submit(here: Inside, uow: UnitOfWork, row: BatchRow, dedup_strategy: str | None = None) -> TaskRow:
    """Queue a draft: its items and the hint to the workers are written in one transaction.

    Raises:
        Conflict: it was submitted before, or no collection reads the bucket.
    """
    session = uow.session
    if row.status != BatchStatus.DRAFT:
        message = f"The batch was submitted before and is {row.status}. Make a new batch to process again."
        raise Conflict(message, code="batch_already_submitted", status=row.status)
    tiers = _tiers(session, here, row)
    if not tiers:
        message = (
            f"No collection reads bucket {row.bucket_id}. Create one over it with POST /v1/collections, then submit."
        )
        raise Conflict(message, code="no_collection", bucket_id=row.bucket_id)
    row.dag_tiers = [[one.id for one in tier] for tier in tiers]
    row.dedup_strategy = dedup_strategy or row.dedup_strategy
    row.status = BatchStatus.PENDING.value
    row.submitted_at = now_ms()
    session.flush()
    ending.start(session, row)
    outbox.add(session, "drain", row.id)
    uow.after_commit(here.services.storage.wake_relay)
    return tasks.of_batch(session, row.id)[0]


def cancel(services: Services, uow: UnitOfWork, row: BatchRow) -> list[TaskRow]:
    """Cancel a batch, at once and for good: what was in hand no longer counts; what is completed stays.

    Cancelling twice is no error. Raises Conflict when it has ended otherwise.
    """
    session = uow.session
    if row.status == BatchStatus.CANCELED:
        return tasks.of_batch(session, row.id)
    if row.is_terminal:
        message = f"The batch has ended as {row.status}; there is nothing left to cancel."
        raise Conflict(message, code="batch_ended", status=row.status)
    for item in items.cancel_open(session, row.id):
        tombstones.add(
            session, row.scope, "source", item.collection_id, source_id=item.source_id, again_ms=2 * services.lease_ms
        )
    batches.finish(session, row, BatchStatus.CANCELED, "Canceled on request.")
    tasks.set_status(session, row.id, BatchStatus.CANCELED.value)
    return tasks.of_batch(session, row.id)


def warnings_of(here: Inside, row: BatchRow) -> list[str]:
    """Return what will keep a submitted batch waiting, if anything does."""
    with here.services.storage.database.reading() as session:
        rows = collections.load(
            session, here.scope, [one for tier in range(len(row.dag_tiers)) for one in row.tier(tier)]
        )
    return weights_warning(here, rows)


def shown(session: Session, rows: Sequence[BatchRow], *, with_objects: bool = True) -> list[dict[str, Any]]:
    """Return batches as the contract wants them."""
    ids = [row.id for row in rows]
    object_ids = batches.object_ids(session, ids) if with_objects else {}
    counts, work = items.counts(session, ids), items.work_done(session, ids)
    now = items.database_now(session)
    return [
        view(
            row,
            object_ids=object_ids.get(row.id, []),
            counts=counts[row.id],
            work=work.get(row.id, (0, 0, 0)),
            failures=items.failures(session, row.id),
            receipts=tasks.of_batch(session, row.id),
            now=now,
        )
        for row in rows
    ]


def _check_objects(session: Session, here: Inside, bucket_id: str, object_ids: Sequence[str]) -> None:
    known = objects.among(session, here.scope, bucket_id, object_ids)
    unknown = [one for one in object_ids if one not in known]
    if unknown:
        shown_ids = ", ".join(one[:60] for one in unknown[:5])
        message = f"{len(unknown)} of the object_ids are not in this bucket: {shown_ids}."
        raise Invalid(message, location=("body", "object_ids"), code="object_not_found", object_ids=unknown[:100])


def _collection_ids(session: Session, here: Inside, identifiers: Sequence[str]) -> list[Any]:
    return [collections.require(session, here.scope, one).id for one in dict.fromkeys(identifiers)]


def _tiers(session: Session, here: Inside, row: BatchRow) -> list[list[CollectionRow]]:
    tiers = collections.fed_by(collections.all_living(session, here.scope), row.bucket_id)
    if not row.collection_ids:
        return tiers
    # A named collection needs the tiers it reads from; unnamed ones beside it are left out.
    wanted = set(row.collection_ids)
    kept: list[list[CollectionRow]] = []
    for tier in reversed(tiers):
        chosen = [one for one in tier if one.id in wanted]
        wanted.update(source for one in chosen for source in one.source_ids("collection"))
        if chosen:
            kept.insert(0, chosen)
    return kept
