"""The work loop: takes work while there is some, otherwise waits for the bell or looks again after 2 s.

Embedded mode runs it on threads of the API process, `openpeek worker` in a process of its own: the same loop.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from domain.errors import OpenPeekError
from storage.tables import workers
from workers.ingest import work_once
from workers.runtime import Runtime
from workers.sweep import sweep

LOOK_EVERY_SECONDS: Final = 2.0
_BEAT_EVERY_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


def drain(runtime: Runtime) -> int:
    """Work until nothing is left to claim or the process is to stop; return the portions done."""
    portions = 0
    while not runtime.should_stop() and work_once(runtime):
        portions += 1
    return portions


class WorkLoop:
    """Worker threads and the sweep of one process.

    Args:
        wait: waits up to so many seconds for a ring beyond those heard; returns how many there have been.
        threads: how many portions are in hand at once; the model itself works on one at a time.
    """

    def __init__(self, runtime: Runtime, wait: Callable[[float, int], int], *, threads: int = 2) -> None:
        self._stopping = threading.Event()
        runtime.should_stop = self._stopping.is_set
        self._runtime = runtime
        self._wait = wait
        self._turns = threading.Semaphore(threads)
        self._threads = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(threads)]
        self._threads.append(threading.Thread(target=self._sweep, name="sweep", daemon=True))

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_seconds: float = 20.0) -> None:
        """Stop after the portions in hand; what is not done by then comes back when its lease runs out."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def drain_now(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work on the calling thread, unless enough threads are at it already.

        Args:
            until: asked between portions; True ends it early.
        """
        if not self._turns.acquire(blocking=False):
            return
        try:
            while not until() and not self._stopping.is_set() and work_once(self._runtime):
                pass
        except OpenPeekError as error:
            log.warning("worker_waits", code=error.code, reason=error.message)
        finally:
            self._turns.release()

    def _work(self) -> None:
        heard = 0
        while not self._stopping.is_set():
            try:
                with self._turns:
                    drain(self._runtime)
            except OpenPeekError as error:
                log.warning("worker_waits", code=error.code, reason=error.message)
                self._stopping.wait(LOOK_EVERY_SECONDS)
            except Exception:
                log.exception("worker_stumbled")
                self._stopping.wait(LOOK_EVERY_SECONDS)
            else:
                heard = self._wait(LOOK_EVERY_SECONDS, heard)

    def _sweep(self) -> None:
        every = min(5.0, self._runtime.lease_ms / 2_000)
        beat_at = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() - beat_at > _BEAT_EVERY_SECONDS:
                    beat_at = time.monotonic()
                    with self._runtime.storage.database.writing() as uow:
                        workers.beat(uow.session, self._runtime.worker_id, os.getpid())
                sweep(self._runtime)
                self._runtime.storage.vectors.settle()
            except OpenPeekError as error:
                log.warning("sweep_waits", code=error.code, reason=error.message)
            except Exception:
                log.exception("sweep_stumbled")
            self._stopping.wait(every)
