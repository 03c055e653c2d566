"""The bell of embedded mode: worker threads of this process listen."""

import threading


class ThreadQueue:
    """A bell that wakes whoever waits, and is remembered by whoever was busy."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self._number = 0

    def ring(self) -> None:
        """Wake all who wait."""
        with self._rung:
            self._number += 1
            self._rung.notify_all()

    def wait(self, seconds: float, heard: int) -> int:
        """Wait until the bell has rung more often than ``heard``, or for so long; return how often it has."""
        with self._rung:
            self._rung.wait_for(lambda: self._number != heard, timeout=seconds)
            return self._number

    def check(self) -> None:
        """Do nothing: a bell in memory cannot be away."""

    def close(self) -> None:
        """Do nothing: a bell in memory holds no connection."""
