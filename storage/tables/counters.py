"""The epoch: one number for the whole database that only grows. Whoever claims work later writes later."""

from sqlalchemy import BigInteger, Sequence, String, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage.database import Row

EPOCHS = Sequence("epochs")


class CounterRow(Row):
    """A counter for databases that have no sequences (SQLite)."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, default=0)


def next_epoch(session: Session) -> int:
    """Draw the next epoch; only inside a writing transaction."""
    if session.get_bind().dialect.name == "postgresql":
        return int(session.scalar(select(EPOCHS.next_value())) or 0)
    advance = update(CounterRow).where(CounterRow.name == "epoch").values(value=CounterRow.value + 1)
    return int(session.scalar(advance.returning(CounterRow.value)) or 0)


def current_epoch(session: Session) -> int:
    """Return the last epoch that was drawn."""
    if session.get_bind().dialect.name == "postgresql":
        return int(session.scalar(text("SELECT last_value FROM epochs")) or 0)
    return int(session.scalar(select(CounterRow.value).where(CounterRow.name == "epoch")) or 0)
