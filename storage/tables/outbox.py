"""The outbox: hints that are to leave the house, written in the same transaction as what they are about."""

from sqlalchemy import BigInteger, Index, String, delete, insert, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage.database import BigId, Row, now_ms


class OutboxRow(Row):
    """A hint. ``sent_at`` is set once it has been published, which may happen twice."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_unsent", "id", sqlite_where=text("sent_at IS NULL"), postgresql_where=text("sent_at IS NULL")),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    topic: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())
    sent_at: Mapped[int | None] = mapped_column(BigInteger)


def add(session: Session, topic: str, subject: str) -> None:
    """Ask for a hint to be sent after the commit."""
    session.execute(insert(OutboxRow).values(topic=topic, subject=subject))


def unsent(session: Session, limit: int = 100) -> list[int]:
    """Take the ids of unsent hints; on PostgreSQL another relay's are skipped."""
    statement = select(OutboxRow.id).where(OutboxRow.sent_at.is_(None)).order_by(OutboxRow.id).limit(limit)
    if session.get_bind().dialect.name == "postgresql":
        statement = statement.with_for_update(skip_locked=True)
    return list(session.scalars(statement))


def has_unsent(session: Session) -> bool:
    """Say whether any hint waits."""
    return session.scalar(select(OutboxRow.id).where(OutboxRow.sent_at.is_(None)).limit(1)) is not None


def mark_sent(session: Session, ids: list[int]) -> None:
    """Record that hints have left, and forget those that left an hour ago."""
    session.execute(update(OutboxRow).where(OutboxRow.id.in_(ids)).values(sent_at=now_ms()))
    session.execute(delete(OutboxRow).where(OutboxRow.sent_at < now_ms() - 3_600_000))
