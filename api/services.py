"""What the API has in hand: the stores, the models, and what it was told at the start."""

from collections.abc import Callable
from dataclasses import dataclass

from extractors.contract import ModelHome
from storage.bundle import Storage

LEASE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may use.

    Attributes:
        pepper: under which API keys are hashed.
        blob_secret: which signs the URLs of the folder blob store.
        lease_ms: how long a worker may go on without knowing that something was deleted.
        preloading: says why requests should not come yet, or None when they may.
    """

    storage: Storage
    models: ModelHome
    pepper: bytes
    blob_secret: bytes
    public_url: str
    lease_ms: int = LEASE_SECONDS * 1000
    preloading: Callable[[], str | None] = lambda: None
