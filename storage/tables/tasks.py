"""Tasks: the public receipt of long work."""

from typing import Any

from sqlalchemy import Index, Integer, String, Text, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.errors import NotFound
from domain.ids import new_id
from storage.database import JsonColumn, JsonObject, Row
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import ScopedRow


class TaskRow(ScopedRow, Row):
    """A receipt. Its state is copied from what it is a receipt for, in the same transaction."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index("ix_tasks_listed", "organization_id", "created_at", "id"),
        Index("ix_tasks_batch", "batch_id", "tier"),
    )
    type: Mapped[str] = mapped_column(String(60))
    status: Mapped[str] = mapped_column(String(30))
    batch_id: Mapped[str | None] = mapped_column(String(40))
    tier: Mapped[int | None] = mapped_column(Integer)
    details: Mapped[JsonObject] = mapped_column(JsonColumn)
    error: Mapped[str | None] = mapped_column(Text)


def add(session: Session, row: TaskRow) -> TaskRow:
    """Insert a receipt."""
    session.add(row)
    session.flush()
    return row


def for_tier(batch: Any, tier: int, status: str) -> TaskRow:
    """Return a new receipt for one tier of a batch."""
    return TaskRow(
        id=new_id("task"),
        organization_id=batch.organization_id,
        namespace_id=batch.namespace_id,
        type="api_buckets_batches_process",
        status=status,
        batch_id=batch.id,
        tier=tier,
        details={"batch_id": batch.id, "bucket_id": batch.bucket_id, "tier_num": tier},
    )


def set_status(
    session: Session, batch_id: str, status: str, *, tier: int | None = None, error: str | None = None
) -> None:
    """Copy a batch's state onto its receipts (or onto that of one tier) that are still open."""
    statement = update(TaskRow).where(TaskRow.batch_id == batch_id, TaskRow.status.in_(("PENDING", "PROCESSING")))
    if tier is not None:
        statement = statement.where(TaskRow.tier == tier)
    session.execute(statement.values(status=status, error=error))


def of_batch(session: Session, batch_id: str) -> list[TaskRow]:
    """Return the receipts of a batch, one a tier that has begun."""
    return list(session.scalars(select(TaskRow).where(TaskRow.batch_id == batch_id).order_by(TaskRow.tier)))


def require(session: Session, organization_id: str, task_id: str) -> TaskRow:
    """Return a receipt of an organization. Raises NotFound."""
    statement = select(TaskRow).where(TaskRow.organization_id == organization_id, TaskRow.id == task_id)
    row = session.scalar(statement)
    if row is None:
        raise NotFound("task", task_id)
    return row


def list_page(
    session: Session, organization_id: str, request: PageRequest, status: str | None, task_type: str | None
) -> Page[TaskRow]:
    """Return one page of an organization's receipts."""
    statement = select(TaskRow).where(TaskRow.organization_id == organization_id)
    if status:
        statement = statement.where(TaskRow.status == status)
    if task_type:
        statement = statement.where(TaskRow.type == task_type)
    return page(session, statement, (TaskRow.created_at, TaskRow.id), request)
