"""What a worker has in hand while it works, and how it keeps its leases."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from domain.errors import OpenPeekError
from extractors import registry
from extractors.contract import Extractor, ModelHome
from storage.bundle import Storage
from storage.fetch import Fetcher
from storage.tables import items
from storage.tables.collections import CollectionRow
from storage.tables.items import Claim

# Without any progress for so long, an item is taken to be stuck: its lease is no longer renewed.
STUCK_AFTER_SECONDS: Final = 60.0
RETRY_NOT_READY_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Runtime:
    """Stores, models and settings of one worker process. Made once, after any fork.

    Attributes:
        lease_ms: for how long a claim holds without being renewed.
        not_ready: collection id → when to look again whether this worker can serve it.
        should_stop: asked between portions of work.
        turn: held by the one thread that does the platform's own work. Threads that shared the interpreter for it
            were a quarter slower than one alone; a second one is there for while the first waits, see `aside`.
    """

    storage: Storage
    models: ModelHome
    fetcher: Fetcher
    worker_id: str
    lease_ms: int = 60_000
    should_stop: Callable[[], bool] = lambda: False
    not_ready: dict[str, float] = field(default_factory=dict)
    extractors: dict[str, Extractor] = field(default_factory=dict)
    warmed: set[str] = field(default_factory=set)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def extractor_of(self, collection: CollectionRow) -> Extractor:
        """Return the configured extractor of a collection, made once."""
        known = self.extractors.get(collection.id)
        if known is None:
            known = registry.configure(collection.extractor_name, collection.parameters, self.models)
            self.extractors[collection.id] = known
        return known

    def warm(self, collection_id: str, extractor: Extractor) -> None:
        """Have an extractor load what it needs, once. Raises WeightsMissing, WeightsBroken."""
        if collection_id not in self.warmed:
            extractor.embed([], lambda _finished: None)
            self.warmed.add(collection_id)
            gc.collect()
            gc.freeze()  # what a model and its libraries loaded stays: the collector need not walk through it again

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let another thread work meanwhile: around what waits for a model or for bytes from elsewhere."""
        self.turn.release()
        try:
            yield
        finally:
            self.turn.acquire()

    def refuse(self, collection_id: str) -> None:
        """Leave a collection alone for a moment: what it needs is not here."""
        self.not_ready[collection_id] = time.monotonic() + RETRY_NOT_READY_SECONDS

    def refused(self) -> list[str]:
        """Return the collections that are to be left alone now."""
        now = time.monotonic()
        for collection_id in [one for one, again in self.not_ready.items() if again <= now]:
            del self.not_ready[collection_id]
        return list(self.not_ready)


class Progress:
    """When a claim last got anywhere. Called by whoever finishes a text, a part or a source."""

    def __init__(self) -> None:
        self.moved_at = time.monotonic()

    def __call__(self, _count: int = 0) -> None:
        """Note that something was finished."""
        self.moved_at = time.monotonic()

    @property
    def is_stuck(self) -> bool:
        """Whether nothing has been finished for a minute."""
        return time.monotonic() - self.moved_at > STUCK_AFTER_SECONDS


@contextmanager
def keeping_lease(runtime: Runtime, taken: Claim) -> Iterator[Progress]:
    """Renew a claim's lease on a thread for as long as the work moves."""
    progress = Progress()
    done = threading.Event()

    def keep() -> None:
        while not done.wait(runtime.lease_ms / 4_000):
            if progress.is_stuck:
                log.warning("lease_given_up", batch_id=taken.batch_id, epoch=taken.epoch)
                return
            try:
                with runtime.storage.database.writing() as uow:
                    if not items.renew(uow.session, taken, runtime.lease_ms):
                        return
            except OpenPeekError as error:
                log.warning("lease_not_renewed", reason=error.message)

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield progress
    finally:
        done.set()
        keeper.join()


def new_worker_id() -> str:
    """Return a name for this worker: host, process, and something that no restart repeats."""
    return f"{os.uname().nodename[:40]}-{os.getpid()}-{os.urandom(4).hex()}"
