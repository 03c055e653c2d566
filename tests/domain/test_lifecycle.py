"""The states of batches and items."""

import itertools

import pytest

from domain.lifecycle import LIFECYCLE, OPEN_ITEMS, TERMINAL_BATCHES, BatchStatus, ItemState, may_move, outcome

ALLOWED = {
    ("DRAFT", "PENDING"), ("DRAFT", "CANCELED"), ("PENDING", "PROCESSING"),
    *(("PENDING", end) for end in ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")),
    *(("PROCESSING", end) for end in ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(itertools.product(BatchStatus, BatchStatus)))
def test_a_batch_moves_only_as_listed(before, after):
    assert may_move(before, after) == ((before, after) in ALLOWED)


def test_nothing_leaves_an_end():
    assert not any(may_move(end, other) for end in TERMINAL_BATCHES for other in BatchStatus)


def test_every_state_has_a_coarser_word():
    assert set(LIFECYCLE) == set(BatchStatus)


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        ({}, "COMPLETED"),
        ({ItemState.COMPLETED: 3}, "COMPLETED"),
        ({ItemState.SKIPPED: 3}, "COMPLETED"),
        ({ItemState.SUPERSEDED: 1, ItemState.FAILED: 1}, "COMPLETED_WITH_ERRORS"),
        ({ItemState.COMPLETED: 1, ItemState.FAILED: 1}, "COMPLETED_WITH_ERRORS"),
        ({ItemState.FAILED: 1}, "FAILED"),
        ({ItemState.FAILED: 1, ItemState.CANCELED: 1}, "FAILED"),
        ({ItemState.COMPLETED: 0, ItemState.FAILED: 1}, "FAILED"),
    ],
)
def test_a_batch_ends_as_its_items_did(counts, ends):
    assert outcome(counts) == ends


@pytest.mark.parametrize("open_state", sorted(OPEN_ITEMS))
def test_a_batch_with_open_items_has_not_ended(open_state):
    assert outcome({open_state: 1, ItemState.FAILED: 5, ItemState.COMPLETED: 5}) is None
    assert outcome({open_state: 0, ItemState.COMPLETED: 5}) is not None
