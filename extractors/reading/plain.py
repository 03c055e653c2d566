"""Plain text and Markdown: UTF-8, or UTF-16 that says so in its first bytes."""

from domain.errors import ObjectFailed
from extractors.reading.formats import READABLE
from extractors.reading.layout import Reading

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read(raw: bytes, _content_type: str = "") -> Reading:
    """Return the text. Raises ObjectFailed (NOT_UTF8)."""
    try:
        text = raw.decode("utf-16" if raw.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"The file is not UTF-8 text (byte {error.start}), and nothing else that is known: {READABLE}."
        raise ObjectFailed(f"{message} Convert it, and upload it again.", code="NOT_UTF8") from error
    return Reading(text.replace("\x00", ""))
