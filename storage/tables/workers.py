"""Workers: who is alive, for health checks and `doctor`. Nothing is decided by it."""

from sqlalchemy import BigInteger, Integer, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage.database import Row, now_ms


class WorkerRow(Row):
    """A worker process and when it last said that it lives."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    process_id: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())
    beat_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())


def beat(session: Session, worker_id: str, process_id: int) -> None:
    """Say that a worker lives; forget those that have not for a day."""
    row = session.get(WorkerRow, worker_id)
    if row is None:
        session.add(WorkerRow(id=worker_id, process_id=process_id))
        session.execute(delete(WorkerRow).where(WorkerRow.beat_at < now_ms() - 86_400_000))
    else:
        row.beat_at = now_ms()


def leave(session: Session, worker_id: str) -> None:
    """Say that a worker has gone in good order."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


def latest_beat(session: Session) -> tuple[int | None, int | None, int]:
    """Return when any worker last beat (UTC ms), how many ms ago, and how many beat in the last minute."""
    last = session.scalar(select(func.max(WorkerRow.beat_at)))
    now = session.scalar(select(now_ms())) or 0
    alive = session.scalar(select(func.count()).where(WorkerRow.beat_at > now - 60_000)) or 0
    return last, now - last if last is not None else None, alive
