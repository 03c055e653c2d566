"""Named points at which the chaos tests let a worker die, hang or stumble. Costs nothing when unused.

``OPENPEEK_FAULT_<POINT>`` is ``kill``, ``hang`` or ``raise``; ``kill:3`` strikes at the third passage.
"""

import os
import signal
import time
from collections import Counter
from typing import Final

from domain.errors import Unavailable

_PREFIX: Final = "OPENPEEK_FAULT_"
_PLANNED: Final = {name.removeprefix(_PREFIX): value for name, value in os.environ.items() if name.startswith(_PREFIX)}
_passages: Counter[str] = Counter()


def point(name: str) -> None:
    """Pass a named point."""
    if not _PLANNED:
        return
    kind, _, number = _PLANNED.get(name.upper(), "").partition(":")
    if not kind:
        return
    _passages[name] += 1
    if _passages[name] != int(number or 1):
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(3600)
    if kind == "raise":
        raise Unavailable("fault point", name)
