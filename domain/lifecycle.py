"""The states of batches and of the items inside them, and which move may follow which."""

from enum import StrEnum
from typing import Final


class BatchStatus(StrEnum):
    """What users see of a batch."""

    DRAFT = "DRAFT"
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class ItemState(StrEnum):
    """Where one object is on its way through one collection. Items are the queue."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    SUPERSEDED = "superseded"
    SKIPPED = "skipped"


TERMINAL_BATCHES: Final = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.COMPLETED_WITH_ERRORS, BatchStatus.FAILED, BatchStatus.CANCELED}
)
OPEN_ITEMS: Final = frozenset({ItemState.PENDING, ItemState.PROCESSING})

_BATCH_MOVES: Final = {
    BatchStatus.DRAFT: {BatchStatus.PENDING, BatchStatus.CANCELED},
    BatchStatus.PENDING: {BatchStatus.PROCESSING, *TERMINAL_BATCHES},
    BatchStatus.PROCESSING: set(TERMINAL_BATCHES),
}

# What the contract calls `lifecycle`: a coarser word for where the batch is.
LIFECYCLE: Final = {
    BatchStatus.DRAFT: "accepted",
    BatchStatus.PENDING: "queued",
    BatchStatus.PROCESSING: "extracting",
    BatchStatus.COMPLETED: "indexed",
    BatchStatus.COMPLETED_WITH_ERRORS: "indexed",
    BatchStatus.FAILED: "failed",
    BatchStatus.CANCELED: "canceled",
}


def may_move(before: BatchStatus, after: BatchStatus) -> bool:
    """Say whether a batch in one state may enter another."""
    return after in _BATCH_MOVES.get(before, set())


def outcome(counts: dict[ItemState, int]) -> BatchStatus | None:
    """Return how a batch with these items ends, or None while work is left."""
    if any(counts.get(state) for state in OPEN_ITEMS):
        return None
    failed = counts.get(ItemState.FAILED, 0)
    good = sum(counts.get(state, 0) for state in (ItemState.COMPLETED, ItemState.SKIPPED, ItemState.SUPERSEDED))
    if failed and good:
        return BatchStatus.COMPLETED_WITH_ERRORS
    if failed:
        return BatchStatus.FAILED
    return BatchStatus.COMPLETED
