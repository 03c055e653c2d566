"""Who is calling: the key in the header, looked up by its hash, remembered for two seconds."""

import threading
import time
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from api.keys import hash_key
from api.services import Services
from domain.errors import Unauthorized
from domain.json_types import Json
from storage.tables import api_keys

# Short enough that a revoked key dies within two seconds in every process, long enough to spare a query each.
_REMEMBER_SECONDS: Final = 2.0
_REMEMBER_AT_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key this is."""

    organization_id: str
    user_id: str
    key_id: str
    key_name: str
    permissions: tuple[Json, ...]
    expires_at: int | None


class KeyMemory:
    """Keys seen in the last moments, by hash. Only good ones are kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Caller]] = {}
        self._lock = threading.Lock()

    def recall(self, key_hash: str) -> Caller | None:
        """Return the caller if the key was good a moment ago."""
        with self._lock:
            known = self._known.get(key_hash)
            return known[1] if known and known[0] > time.monotonic() else None

    def remember(self, key_hash: str, caller: Caller) -> None:
        """Keep a good key for a moment."""
        with self._lock:
            if len(self._known) >= _REMEMBER_AT_MOST:
                self._known.clear()
            self._known[key_hash] = (time.monotonic() + _REMEMBER_SECONDS, caller)


def key_hash_of(request: Request) -> str:
    """Return the hash of the key in the header. Raises Unauthorized when there is none."""
    services: Services = request.app.state.services
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        message = "This route needs an API key: send the header 'Authorization: Bearer sk_…'."
        raise Unauthorized(message, code="key_missing")
    return hash_key(services.pepper, key)


def recall(request: Request, key_hash: str) -> Caller | None:
    """Return who calls, if the key was good a moment ago; asks no database."""
    memory: KeyMemory = request.app.state.keys
    return memory.recall(key_hash)


def look_up(request: Request, key_hash: str) -> Caller:
    """Return who calls.

    Raises:
        Unauthorized: the key is unknown, revoked or expired.
        Unavailable: the database does not answer.
    """
    services: Services = request.app.state.services
    memory: KeyMemory = request.app.state.keys
    with services.storage.database.reading() as session:
        row = api_keys.find_active(session, key_hash)
    if row is None:
        message = (
            "This API key is unknown, revoked or expired. `openpeek keys reset` on the server's host makes a new one."
        )
        raise Unauthorized(message, code="key_invalid")
    caller = Caller(row.organization_id, row.user_id, row.id, row.name, tuple(row.permissions), row.expires_at)
    memory.remember(key_hash, caller)
    return caller
