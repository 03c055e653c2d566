"""The relay: takes hints from the outbox to the queue, so that no request ever waits for a broker."""

import threading
from typing import Final

import structlog

from domain.errors import OpenPeekError
from storage.database import Database
from storage.ports import JobQueue
from storage.tables import outbox

_LOOK_EVERY_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.05  # at most about 20 rings a second, however many batches are submitted

log = structlog.get_logger(__name__)


class Relay:
    """A thread that rings the queue's bell for what waits in the outbox. One per API process."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        self._database = database
        self._queue = queue
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def wake(self) -> None:
        """Say that something waits; returns at once."""
        self._awake.set()

    def start(self) -> None:
        """Begin to relay."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present round."""
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def relay_once(self) -> int:
        """Ring once for all hints that wait, then strike them off; return how many there were.

        Ringing before striking off may ring twice, which is harmless; the other way round could lose a hint.
        """
        with self._database.reading() as session:
            if not outbox.has_unsent(session):
                return 0
        self._queue.ring()
        with self._database.writing() as uow:
            waiting = outbox.unsent(uow.session)
            outbox.mark_sent(uow.session, waiting)
            return len(waiting)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.relay_once()
            except OpenPeekError as error:
                log.warning("relay_waits", code=error.code, reason=error.message)
            self._awake.wait(_LOOK_EVERY_SECONDS)
            self._stopping.wait(_PAUSE_SECONDS)
            self._awake.clear()
