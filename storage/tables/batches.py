"""Batches: objects submitted together, and the collections they go through, tier by tier."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.errors import NotFound
from domain.lifecycle import TERMINAL_BATCHES, BatchStatus
from storage.database import JsonColumn, JsonList, JsonObject, Row, now_ms
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import NamedRow, living, within

_OPEN = (BatchStatus.PENDING, BatchStatus.PROCESSING)


class BatchRow(NamedRow, Row):
    """A batch. ``dag_tiers`` are the collection ids of each tier, fixed when it is submitted.

    ``waiting_reason`` names what the batch waits for although workers are there (weights, say).
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_listed", "bucket_id", "created_at", "id"),
        Index(
            "ix_batches_open",
            "served_epoch",
            sqlite_where=text("status IN ('PENDING', 'PROCESSING')"),
            postgresql_where=text("status IN ('PENDING', 'PROCESSING')"),
        ),
    )
    bucket_id: Mapped[str] = mapped_column(String(40))
    status: Mapped[str] = mapped_column(String(30), default=BatchStatus.DRAFT.value)
    collection_ids: Mapped[JsonList] = mapped_column(JsonColumn)
    dag_tiers: Mapped[JsonList] = mapped_column(JsonColumn)
    current_tier: Mapped[int] = mapped_column(Integer, default=0)
    dedup_strategy: Mapped[str] = mapped_column(String(10), default="skip")
    settings: Mapped[JsonObject] = mapped_column(JsonColumn)
    waiting_reason: Mapped[str | None] = mapped_column(Text)
    failure_reason: Mapped[str | None] = mapped_column(Text)
    served_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    submitted_at: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)

    def tier(self, number: int) -> list[str]:
        """Return the collection ids of one tier, empty beyond the last."""
        tiers = self.dag_tiers[number : number + 1]
        return [str(item) for item in tiers[0]] if tiers and isinstance(tiers[0], list) else []

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in TERMINAL_BATCHES


class BatchObjectRow(Row):
    """That an object is in a batch."""

    __tablename__ = "batch_objects"
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True)
    object_id: Mapped[str] = mapped_column(String(40), primary_key=True)


def add(session: Session, row: BatchRow, object_ids: Sequence[str]) -> BatchRow:
    """Insert a batch with its objects."""
    session.add(row)
    session.flush()
    add_objects(session, row, object_ids)
    return row


def add_objects(session: Session, row: BatchRow, object_ids: Sequence[str]) -> None:
    """Put objects into a batch; one that is in it already stays once."""
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    for start in range(0, len(object_ids), 5_000):
        rows = [{"batch_id": row.id, "object_id": object_id} for object_id in object_ids[start : start + 5_000]]
        session.execute(insert(BatchObjectRow).on_conflict_do_nothing(), rows)


def require(session: Session, scope: Scope, bucket_id: str, batch_id: str, *, lock: bool = False) -> BatchRow:
    """Return a batch of a bucket, locked until the transaction ends if asked.

    Raises:
        NotFound: the bucket has none of that id.
    """
    statement = living(BatchRow, scope).where(BatchRow.bucket_id == bucket_id, BatchRow.id == batch_id)
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFound("batch", batch_id)
    return row


def require_in_organization(session: Session, organization_id: str, batch_id: str, *, lock: bool = False) -> BatchRow:
    """Return a batch of any namespace of an organization. Raises NotFound."""
    statement = select(BatchRow).where(
        BatchRow.organization_id == organization_id, BatchRow.id == batch_id, BatchRow.state == "active"
    )
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFound("batch", batch_id)
    return row


def lock(session: Session, batch_id: str) -> BatchRow | None:
    """Return a batch for a worker, locked until the transaction ends."""
    return session.scalar(select(BatchRow).where(BatchRow.id == batch_id).with_for_update())


def list_page(
    session: Session, scope: Scope, bucket_id: str, request: PageRequest, status: str | None
) -> Page[BatchRow]:
    """Return one page of a bucket's batches, with their number."""
    statement = living(BatchRow, scope).where(BatchRow.bucket_id == bucket_id)
    if status:
        statement = statement.where(BatchRow.status == status)
    return page(session, statement, (BatchRow.created_at, BatchRow.id), request, count=True)


def object_ids(session: Session, batch_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the object ids of batches, in the order of the objects' creation."""
    statement = (
        select(BatchObjectRow.batch_id, BatchObjectRow.object_id)
        .where(BatchObjectRow.batch_id.in_(batch_ids))
        .order_by(BatchObjectRow.batch_id, BatchObjectRow.object_id)
    )
    found: dict[str, list[str]] = {batch_id: [] for batch_id in batch_ids}
    for batch_id, object_id in session.execute(statement):
        found[batch_id].append(object_id)
    return found


def running_on(session: Session, scope: Scope, *, bucket_id: str | None = None) -> list[BatchRow]:
    """Return the batches of a namespace (or of one bucket) that are not through."""
    statement = living(BatchRow, scope).where(BatchRow.status.in_(_OPEN))
    if bucket_id is not None:
        statement = statement.where(BatchRow.bucket_id == bucket_id)
    return list(session.scalars(statement))


def open_ids(session: Session) -> list[str]:
    """Return the ids of all batches that are not through, for the sweep."""
    return list(session.scalars(select(BatchRow.id).where(BatchRow.status.in_(_OPEN))))


def set_waiting(session: Session, batch_id: str, reason: str | None) -> None:
    """Say what a batch waits for, or that it no longer waits."""
    statement = update(BatchRow).where(BatchRow.id == batch_id, BatchRow.waiting_reason.is_distinct_from(reason))
    session.execute(statement.values(waiting_reason=reason))


def finish(session: Session, row: BatchRow, status: BatchStatus, reason: str | None = None) -> None:
    """Close a batch. The caller holds its lock."""
    row.status = status.value
    row.failure_reason = reason
    row.waiting_reason = None
    row.finished_at = now_ms()
    session.flush()


def mark_deleting(session: Session, scope: Scope, bucket_id: str) -> None:
    """Hide all batches of a bucket."""
    session.execute(
        update(BatchRow).where(within(BatchRow, scope), BatchRow.bucket_id == bucket_id).values(state="deleting")
    )
