"""The stores of this process in one hand, for API and workers alike."""

from collections.abc import Callable
from dataclasses import dataclass

from storage.database import Database
from storage.ports import BlobStore, JobQueue, VectorIndex


@dataclass(frozen=True, slots=True)
class Storage:
    """Rows, bytes, vectors and hints.

    Attributes:
        wake_relay: tell the relay of this process that a hint waits in the outbox; harmless if nobody listens.
    """

    database: Database
    blobs: BlobStore
    vectors: VectorIndex
    queue: JobQueue
    wake_relay: Callable[[], None]

    def close(self) -> None:
        """Let go of everything, vectors first: they write out what they still hold."""
        self.vectors.close()
        self.blobs.close()
        self.queue.close()
        self.database.close()
