"""Vectors of recent queries: who asks the same again does not pay the model again."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from extractors.contract import Vectors

KEPT: Final = 1_024  # at 768 dimensions 3 MB


class QueryKey(NamedTuple):
    """All that a query's vector depends on."""

    model_id: str
    revision: str
    precision: str
    prefix: str
    text: str


class QueryCache:
    """The vectors of the queries last asked for, at full width, so that collections of any dimensions share them.

    Args:
        kept: how many; the one not asked for the longest goes first.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._vectors: OrderedDict[QueryKey, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: QueryKey, embed: Callable[[], Vectors]) -> Vectors:
        """Return float32[1, width], embedding it if it is not kept. What `embed` raises is kept by nobody."""
        with self._lock:
            found = self._vectors.get(key)
            if found is not None:
                self._vectors.move_to_end(key)
                return found
        made = embed()
        made.setflags(write=False)  # every caller gets the same one
        with self._lock:
            self._vectors[key] = made
            while len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)
        return made
