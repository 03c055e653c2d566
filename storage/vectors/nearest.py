"""Order of hits: by score, ties by id, also where the list is cut."""

from collections.abc import Callable
from typing import Final

from storage.ports import Hit

_SPARE: Final = 16
_MOST: Final = 65_536


def nearest(ask: Callable[[int], list[Hit]], limit: int) -> list[Hit]:
    """Return the first hits by (-score, id).

    An engine orders equal scores as it likes, so more is asked for than needed, until the worst hit is worse than
    the last one wanted: equal texts are common, and pages must not differ from one call to the next.

    Args:
        ask: returns that many best hits, best first.
        limit: how many are wanted, at least 1.
    """
    asked = limit + _SPARE
    hits = ask(asked)
    while len(hits) == asked and hits[-1].score == hits[limit - 1].score and asked < _MOST:
        asked = min(asked * 4, _MOST)
        hits = ask(asked)
    hits.sort(key=lambda hit: (-hit.score, hit.document_id))
    return hits[:limit]
