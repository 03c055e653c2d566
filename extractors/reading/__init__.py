"""Reading files: bytes in, text out, with the places of pages and headings kept. One file per format.

Every reader takes bytes and returns a `Reading`, or raises `ObjectFailed` with a code that says why. Nothing else
comes out of `read`, whatever the bytes. What takes too long or too much memory is the caller's to end: workers read
in a process of its own (`child.py`).
"""

import importlib
from typing import Final

from domain.errors import ObjectFailed
from extractors.reading.formats import Format, recognise
from extractors.reading.layout import MOST_BYTES, SAVE_AGAIN, Reading

__all__ = ["Reading", "read", "read_as"]

_NAMES: Final[dict[Format, str]] = {"text": "text file", "html": "HTML page", "pdf": "PDF", "docx": "DOCX"}


def read(raw: bytes, declared: str = "text", content_type: str = "") -> Reading:
    """Return the text of a file and its places.

    Args:
        raw: the file.
        declared: the type of its blob: ``text`` or ``pdf``.
        content_type: as it came with the bytes.

    Raises:
        ObjectFailed: it cannot be read; the code says why.
    """
    return read_as(recognise(raw, declared, content_type), raw, content_type)


def read_as(format_: Format, raw: bytes, content_type: str = "") -> Reading:
    """Return the text of a file whose format is known. Raises as `read`."""
    name = _NAMES[format_]
    if not raw:
        raise ObjectFailed("The file is empty: it has no bytes. Upload it again.", code="EMPTY_TEXT")
    if len(raw) > MOST_BYTES:
        message = f"The {name} has {len(raw):,} bytes; at most {MOST_BYTES:,} are read. Split it."
        raise ObjectFailed(message, code="TOO_LARGE")
    try:
        # The parsers load here: a process that reads plain text alone never has them.
        module = importlib.import_module("extractors.reading." + ("plain" if format_ == "text" else format_))
        reading: Reading = module.read(raw, content_type)
    except ObjectFailed:
        raise
    except MemoryError as error:
        message = f"The {name} needs more memory to be read than one file may have. Split it."
        raise ObjectFailed(message, code="TOO_LARGE") from error
    except Exception as error:  # parsers of foreign bytes raise whatever they stumble over
        why = f"{type(error).__name__}: {str(error)[:200]}".rstrip(": .")
        message = f"The {name} is broken and cannot be read: {why}. {SAVE_AGAIN}"
        raise ObjectFailed(message, code=f"{format_.upper()}_BROKEN") from error
    return reading
