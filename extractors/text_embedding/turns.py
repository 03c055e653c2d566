"""Who computes: one thread at a time, and whoever is waited for goes first, even before one in the middle."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# After so long even documents get their next step, or searches without end would stop ingestion for good.
_PATIENCE_SECONDS: Final = 1.0


class Turns:
    """A lock with two kinds of owners. Documents pause between steps, and there queries overtake them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False
        self._urgent_waiting = 0
        self._overdue = 0

    @contextmanager
    def taken(self, *, urgent: bool) -> Iterator[None]:
        """Have the turn; wait for it first."""
        self._take(urgent=urgent)
        try:
            yield
        finally:
            self._give()

    def pause(self) -> None:
        """Let those go first who are urgent. Called by the owner, between two steps of something long."""
        if self._urgent_waiting:  # a glance without the lock: who is missed now is seen at the next step
            self._give()
            self._take(urgent=False)

    def _take(self, *, urgent: bool) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        is_overdue = False
        with self._changed:
            self._urgent_waiting += urgent
            while self._is_taken or (self._overdue if urgent else self._urgent_waiting and not is_overdue):
                self._changed.wait(_PATIENCE_SECONDS)
                if not urgent and not is_overdue and time.monotonic() > until:
                    is_overdue = True
                    self._overdue += 1
            self._urgent_waiting -= urgent
            self._overdue -= is_overdue
            self._is_taken = True

    def _give(self) -> None:
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()
