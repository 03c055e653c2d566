"""What a key may look like: made by the server, so that no user's text ever becomes a path."""

import re
from typing import Final

MOST_CHARACTERS: Final = 200

_SEGMENT: Final = r"[a-z0-9_-][a-z0-9_.-]*"  # no leading dot: that rules out `.`, `..` and our own hidden files
_KEY: Final = re.compile(rf"(?!.*\.\.){_SEGMENT}(?:/{_SEGMENT})*")


def check_key(key: str) -> str:
    """Return the key.

    Raises:
        ValueError: it is not one of ours, which is a fault in our code and never a user's.
    """
    if len(key) > MOST_CHARACTERS or not _KEY.fullmatch(key):
        raise ValueError(f"not a blob key: {key[:100]!r}")
    return key
