"""Plain text and Markdown: UTF-8, or UTF-16 that says so in its first bytes."""

import re
from typing import Final

from domain.errors import ObjectFailed
from extractors.reading.formats import READABLE
from extractors.reading.layout import Reading, check_length

_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_HEAD: Final = 4_096
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_ONE_IN: Final = 10


def read(raw: bytes, _content_type: str = "") -> Reading:
    """Return the text. Raises ObjectFailed (NOT_UTF8, TOO_LARGE)."""
    try:
        text = raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(f"is not UTF-8 text (byte {error.start})") from error
    head = text[:_HEAD]
    # UTF-16 without a mark, UTF-32 and many binary files are valid UTF-8 by accident: their letters would be noise.
    if len(_CONTROLS.findall(head)) * _ONE_IN > len(head):
        raise _no_text("is full of control characters, as UTF-16 without a byte order mark is")
    check_length(len(text))
    return Reading(text.replace("\x00", ""))


def _no_text(what: str) -> ObjectFailed:
    message = f"The file {what}, and nothing else that is known: {READABLE}. Convert it, and upload it again."
    return ObjectFailed(message, code="NOT_UTF8")
