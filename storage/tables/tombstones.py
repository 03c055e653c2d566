"""Tombstones: what must still be made true outside the database after something was deleted or given up.

They come due twice: at once, and again when the last worker that could not know has lost its lease.
"""

from sqlalchemy import BigInteger, Index, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from storage.database import BigId, Row, now_ms


class TombstoneRow(Row):
    """A duty of the sweep.

    ``kind``: ``source`` (make the points of one source in one collection equal to its rows), or
    ``collection``, ``bucket``, ``namespace`` (remove everything of it).
    """

    __tablename__ = "tombstones"
    __table_args__ = (Index("ix_tombstones_due", "due_at"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    organization_id: Mapped[str] = mapped_column(String(40))
    namespace_id: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(12))
    subject: Mapped[str] = mapped_column(String(128))
    source_id: Mapped[str | None] = mapped_column(String(40))
    last: Mapped[bool] = mapped_column(default=True)
    due_at: Mapped[int] = mapped_column(BigInteger)

    @property
    def scope(self) -> Scope:
        """Whose duty it is."""
        return Scope(self.organization_id, self.namespace_id)


def add(
    session: Session, scope: Scope, kind: str, subject: str, *, source_id: str | None = None, again_ms: int
) -> None:
    """Ask the sweep to act now and once more ``again_ms`` later."""
    now = session.scalar(select(now_ms())) or 0
    for delay, last in ((0, False), (again_ms, True)):
        row = TombstoneRow(
            organization_id=scope.organization_id,
            namespace_id=scope.namespace_id,
            kind=kind,
            subject=subject,
            source_id=source_id,
            last=last,
            due_at=now + delay,
        )
        session.add(row)
    session.flush()


def due(session: Session, limit: int = 100) -> list[TombstoneRow]:
    """Return duties whose time has come, the longest due first."""
    statement = select(TombstoneRow).where(TombstoneRow.due_at <= now_ms())
    return list(session.scalars(statement.order_by(TombstoneRow.due_at, TombstoneRow.id).limit(limit)))


def done(session: Session, tombstone_id: int) -> None:
    """Strike a duty off."""
    session.execute(delete(TombstoneRow).where(TombstoneRow.id == tombstone_id))


def count(session: Session) -> int:
    """Return how many duties are left, due or not."""
    return len(list(session.scalars(select(TombstoneRow.id))))
