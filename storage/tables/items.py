"""Batch items: one source on its way through one collection. These rows are the queue.

Claims carry a lease and an epoch. A lease says until when nobody else may take the item; the epoch is the
fence: whoever lost the item may still be running, but nothing it writes counts any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    case,
    func,
    select,
    text,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.lifecycle import OPEN_ITEMS, BatchStatus, ItemState
from storage.database import BigId, Row, now_ms
from storage.tables.batches import BatchRow
from storage.tables.counters import next_epoch
from storage.tables.organizations import OrganizationRow

MAX_CLAIM = 256  # short sources: what a portion costs beside its items is shared by many
MAX_CLAIM_TOKENS = 16_384
MAX_DEATHS = 3


class ItemRow(Row):
    """One source (an object, or an upstream document) for one collection of one batch.

    ``alone`` marks what was in hand when a worker died: it is claimed by itself from then on, so that its
    neighbours do not suffer with it, and ``deaths`` counts how often a worker died over it alone.
    """

    __tablename__ = "batch_items"
    __table_args__ = (
        UniqueConstraint("batch_id", "source_id", "collection_id"),
        Index("ix_batch_items_state", "batch_id", "state"),
        Index("ix_batch_items_source", "collection_id", "source_id", "state"),
        Index("ix_batch_items_object", "object_id"),
        Index(
            "ix_batch_items_claimable",
            "batch_id",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_batch_items_leased",
            "lease_until",
            sqlite_where=text("state = 'processing'"),
            postgresql_where=text("state = 'processing'"),
        ),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    organization_id: Mapped[str] = mapped_column(String(40))
    namespace_id: Mapped[str] = mapped_column(String(128))
    batch_id: Mapped[str] = mapped_column(String(40))
    collection_id: Mapped[str] = mapped_column(String(40))
    tier: Mapped[int] = mapped_column(Integer)
    source_id: Mapped[str] = mapped_column(String(40))
    object_id: Mapped[str] = mapped_column(String(40))
    object_version: Mapped[int] = mapped_column(BigInteger)
    estimated_tokens: Mapped[int] = mapped_column(Integer, default=0)
    state: Mapped[str] = mapped_column(String(12))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    alone: Mapped[bool] = mapped_column(Boolean, default=False)
    deaths: Mapped[int] = mapped_column(Integer, default=0)
    epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    next_at: Mapped[int] = mapped_column(BigInteger, default=0)
    parts: Mapped[int] = mapped_column(Integer, default=0)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    truncated_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    reason_code: Mapped[str | None] = mapped_column(String(60))
    reason: Mapped[str | None] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(String(12))
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now_ms(), onupdate=now_ms())


class Item(NamedTuple):
    """What a worker needs of a row in hand, as it was when it was claimed."""

    id: int
    tier: int
    source_id: str
    object_version: int
    attempts: int


_ITEM = (ItemRow.id, ItemRow.tier, ItemRow.source_id, ItemRow.object_version, ItemRow.attempts)


@dataclass(frozen=True, slots=True)
class Claim:
    """Items in hand, all of one batch and one collection, under one epoch."""

    batch_id: str
    collection_id: str
    epoch: int
    items: Sequence[Item]

    @property
    def ids(self) -> list[int]:
        """The ids of the items."""
        return [item.id for item in self.items]


def find_work(session: Session, not_ready: Sequence[str]) -> tuple[str, str] | None:
    """Return batch and collection of the work that should be done next, without claiming it.

    Organizations take turns, and so do the batches inside one: a large backlog cannot starve a small one.
    ``not_ready`` are collections that this worker cannot serve now (their weights are missing, say).
    """
    first = (
        select(ItemRow.collection_id)
        .where(ItemRow.batch_id == BatchRow.id, ItemRow.state == ItemState.PENDING.value, ItemRow.next_at <= now_ms())
        .where(ItemRow.collection_id.not_in(not_ready))
        .order_by(ItemRow.id)
        .limit(1)
        .scalar_subquery()
    )
    candidates = (
        select(
            BatchRow.id, first.label("collection_id"), OrganizationRow.served_epoch, BatchRow.served_epoch.label("turn")
        )
        .join(OrganizationRow, OrganizationRow.id == BatchRow.organization_id)
        .where(BatchRow.status.in_((BatchStatus.PENDING.value, BatchStatus.PROCESSING.value)))
        .subquery()
    )
    statement = (
        select(candidates.c.id, candidates.c.collection_id)
        .where(candidates.c.collection_id.is_not(None))
        .order_by(candidates.c.served_epoch, candidates.c.turn, candidates.c.id)
        .limit(1)
    )
    row = session.execute(statement).first()
    return (row[0], row[1]) if row else None


def claim(session: Session, batch_id: str, collection_id: str, owner: str, lease_ms: int) -> Claim | None:
    """Take up to 256 items of about 16,000 tokens, or one that a worker has died over.

    Returns None when another worker was faster, or the batch is no longer open.
    """
    batch = session.scalar(select(BatchRow).where(BatchRow.id == batch_id).with_for_update())
    if batch is None or batch.status not in {BatchStatus.PENDING, BatchStatus.PROCESSING}:
        return None
    wanted = _choose(session, batch_id, collection_id)
    if not wanted:
        return None
    epoch = next_epoch(session)
    batch.served_epoch = epoch
    if batch.status == BatchStatus.PENDING:
        batch.status = BatchStatus.PROCESSING.value
        batch.started_at = now_ms()
    batch.waiting_reason = None
    session.flush()
    statement = (
        update(ItemRow)
        .where(ItemRow.id.in_(wanted))
        .values(state=ItemState.PROCESSING.value, attempts=ItemRow.attempts + 1, epoch=epoch, lease_owner=owner)
        .values(lease_until=now_ms() + lease_ms, updated_at=now_ms())
        .returning(*_ITEM)
    )
    claimed = session.execute(statement, execution_options={"synchronize_session": False})
    items = sorted(Item(*row) for row in claimed)
    turn = update(OrganizationRow).where(OrganizationRow.id == batch.organization_id)
    session.execute(turn.values(served_epoch=epoch))
    return Claim(batch_id, collection_id, epoch, items)


def _choose(session: Session, batch_id: str, collection_id: str) -> list[int]:
    statement = (
        select(ItemRow.id, ItemRow.estimated_tokens, ItemRow.alone)
        .where(ItemRow.batch_id == batch_id, ItemRow.collection_id == collection_id)
        .where(ItemRow.state == ItemState.PENDING.value, ItemRow.next_at <= now_ms())
        .order_by(ItemRow.id)
        .limit(MAX_CLAIM)
    )
    wanted: list[int] = []
    tokens = 0
    for item_id, estimate, alone in session.execute(statement):
        if wanted and (alone or tokens + estimate > MAX_CLAIM_TOKENS):
            break
        wanted.append(item_id)
        tokens += estimate
        if alone:
            break
    return wanted


def renew(session: Session, taken: Claim, lease_ms: int) -> int:
    """Push the lease of what is still ours; return how many items that is."""
    statement = _ours(taken).values(lease_until=now_ms() + lease_ms)
    return session.execute(statement).rowcount  # type: ignore[attr-defined,no-any-return]


def still_ours(session: Session, taken: Claim) -> set[int]:
    """Return the ids of the items that nobody has taken from us, locked until the transaction ends."""
    statement = select(ItemRow.id).where(
        ItemRow.id.in_(taken.ids), ItemRow.epoch == taken.epoch, ItemRow.state == ItemState.PROCESSING.value
    )
    return set(session.scalars(statement.with_for_update()))


def close(session: Session, changes: Sequence[dict[str, object]]) -> None:
    """Write the ends of items by primary key; the caller knows that they are still ours."""
    if not changes:
        return
    # Over the table and not the class: the session has no rows of these to keep in step.
    table = cast("Table", ItemRow.__table__)
    statement = update(table).where(table.c.id == bindparam("closed"))
    rows = [{**change, "lease_owner": None, "lease_until": None, "closed": change["id"]} for change in changes]
    session.execute(statement, rows)


def release(session: Session, taken: Claim, *, delay_ms: int = 0) -> None:
    """Give items back as if they had never been claimed: no attempt is burned."""
    statement = _ours(taken).values(state=ItemState.PENDING.value, attempts=ItemRow.attempts - 1, lease_owner=None)
    session.execute(statement.values(lease_until=None, next_at=now_ms() + delay_ms))


def _ours(taken: Claim):  # type: ignore[no-untyped-def]  # noqa: ANN202 - an Update whose type has no public name
    return update(ItemRow).where(
        ItemRow.id.in_(taken.ids), ItemRow.epoch == taken.epoch, ItemRow.state == ItemState.PROCESSING.value
    )


def orphan_all(session: Session) -> None:
    """Let every lease run out now, because the only process that could hold one has just started."""
    statement = update(ItemRow).where(ItemRow.state == ItemState.PROCESSING.value)
    session.execute(statement.values(lease_until=0))


def expire(session: Session) -> list[str]:
    """Take back what dead workers held; return the ids of the batches concerned.

    A source over which three workers died alone is failed as WORKER_CRASHED.
    """
    overdue = (ItemRow.state == ItemState.PROCESSING.value, ItemRow.lease_until < now_ms())
    deaths = ItemRow.deaths + case((ItemRow.alone, 1), else_=0)
    crashed = deaths >= MAX_DEATHS
    message = f"The worker died {MAX_DEATHS} times while it processed this source alone."
    statement = (
        update(ItemRow)
        .where(*overdue)
        .values(
            state=case((crashed, ItemState.FAILED.value), else_=ItemState.PENDING.value),
            reason_code=case((crashed, "WORKER_CRASHED")),
            reason=case((crashed, message)),
            error_type=case((crashed, "permanent")),
            deaths=deaths,
            alone=True,
            lease_owner=None,
            lease_until=None,
            updated_at=now_ms(),
        )
        .returning(ItemRow.batch_id)
    )
    return sorted(set(session.scalars(statement)))


def cancel_open(session: Session, batch_id: str) -> list[ItemRow]:
    """Close every open item of a batch as canceled under a new epoch; return those that were in hand."""
    in_hand = select(ItemRow).where(ItemRow.batch_id == batch_id, ItemRow.state == ItemState.PROCESSING.value)
    held = list(session.scalars(in_hand.with_for_update()))
    for item in held:
        session.expunge(item)  # what they were when they were canceled
    statement = update(ItemRow).where(ItemRow.batch_id == batch_id, ItemRow.state.in_(OPEN_ITEMS))
    session.execute(
        statement.values(
            state=ItemState.CANCELED.value,
            epoch=next_epoch(session),
            lease_owner=None,
            lease_until=None,
            reason_code="CANCELED",
            reason="The batch was canceled.",
            updated_at=now_ms(),
        ),
        execution_options={"synchronize_session": False},
    )
    return held


def fail_open(
    session: Session, *, batch_ids: Sequence[str] = (), collection_id: str | None = None, code: str, reason: str
) -> list[str]:
    """Fail every open item of some batches or of a collection; return the ids of the batches concerned."""
    chosen = ItemRow.batch_id.in_(batch_ids) if collection_id is None else ItemRow.collection_id == collection_id
    statement = (
        update(ItemRow)
        .where(chosen, ItemRow.state.in_(OPEN_ITEMS))
        .values(state=ItemState.FAILED.value, epoch=next_epoch(session), reason_code=code, reason=reason)
        .values(error_type="permanent", lease_owner=None, lease_until=None, updated_at=now_ms())
        .returning(ItemRow.batch_id)
    )
    return sorted(set(session.scalars(statement, execution_options={"synchronize_session": False})))


def counts(session: Session, batch_ids: Sequence[str]) -> dict[str, dict[int, dict[ItemState, int]]]:
    """Return batch id → tier → state → number of items. Counts are always derived, never kept."""
    statement = (
        select(ItemRow.batch_id, ItemRow.tier, ItemRow.state, func.count())
        .where(ItemRow.batch_id.in_(batch_ids))
        .group_by(ItemRow.batch_id, ItemRow.tier, ItemRow.state)
    )
    found: dict[str, dict[int, dict[ItemState, int]]] = {batch_id: {} for batch_id in batch_ids}
    for batch_id, tier, state, number in session.execute(statement):
        found[batch_id].setdefault(tier, {})[ItemState(state)] = number
    return found


def work_done(session: Session, batch_ids: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return batch id → documents written, tokens embedded, tokens cut off."""
    statement = (
        select(ItemRow.batch_id, func.sum(ItemRow.parts), func.sum(ItemRow.tokens), func.sum(ItemRow.truncated_tokens))
        .where(ItemRow.batch_id.in_(batch_ids))
        .group_by(ItemRow.batch_id)
    )
    return {row[0]: (int(row[1] or 0), int(row[2] or 0), int(row[3] or 0)) for row in session.execute(statement)}


def failures(session: Session, batch_id: str, limit: int = 100) -> list[ItemRow]:
    """Return failed items of a batch, oldest first."""
    statement = select(ItemRow).where(ItemRow.batch_id == batch_id, ItemRow.state == ItemState.FAILED.value)
    return list(session.scalars(statement.order_by(ItemRow.id).limit(limit)))


def states_of_objects(session: Session, object_ids: Sequence[str]) -> dict[str, set[ItemState]]:
    """Return object id → states of its items in any batch, from which the object's own status is derived."""
    statement = select(ItemRow.object_id, ItemRow.state).where(ItemRow.object_id.in_(object_ids)).distinct()
    found: dict[str, set[ItemState]] = {}
    for object_id, state in session.execute(statement):
        found.setdefault(object_id, set()).add(ItemState(state))
    return found


def in_hand(session: Session, collection_id: str, source_id: str) -> bool:
    """Say whether a worker holds this source for this collection right now."""
    statement = select(ItemRow.id).where(
        ItemRow.collection_id == collection_id,
        ItemRow.source_id == source_id,
        ItemRow.state == ItemState.PROCESSING.value,
    )
    return session.scalar(statement.limit(1)) is not None


def database_now(session: Session) -> int:
    """Return the database's clock in UTC milliseconds."""
    return session.scalar(select(now_ms())) or 0
