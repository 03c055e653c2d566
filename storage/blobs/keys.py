"""What a key may look like: made by the server, so that no user's text ever becomes a path."""

import re
from typing import Final

_KEY: Final = re.compile(r"(?!.*(?:^|/)\.)[a-z0-9_.-]{1,80}(?:/[a-z0-9_.-]{1,80}){0,5}")


def check_key(key: str) -> str:
    """Return the key, or raise ValueError: a key that is not ours is a fault in our code."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a blob key: {key[:100]!r}")
    return key
