"""PDF: the text layer of each page, as pypdf finds it, and what forms and notes on the page say.

Pages are parted by form feeds, so a page that is empty still counts. Nothing is recognised in pictures. One page
that cannot be read fails the whole file: a text with a hole in it would pass for the whole.
"""

import io
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

from pypdf import PageObject, PdfReader, apply_configuration, get_configuration
from pypdf.errors import DependencyError, LimitReachedError, PyPdfError
from pypdf.generic import IndirectObject

from domain.errors import ObjectFailed
from extractors.reading.layout import Layout, Page, Reading, check_length, clean

MOST_PAGES: Final = 10_000
_MOST_NOTES: Final = 10_000  # on a page
_MOST_PARENTS: Final = 20
# Tighter than pypdf's own: text is small, and several of these may be held at once.
_LIMITS: Final = get_configuration().with_overwrites(
    maximum_declared_stream_length=50_000_000,
    array_based_stream_maximum_output_length=50_000_000,
    zlib_maximum_output_length=50_000_000,
    lzw_maximum_output_length=50_000_000,
    run_length_maximum_output_length=50_000_000,
    jbig2dec_binary=None,  # no other program is started over a foreign file
)

# pypdf mends what it can and goes on without the rest, with no more than a warning. These warnings mean that text
# of the page is gone, always or if the page turns out to have none.
_LOST: Final = ("Error -", "Impossible to decode XForm", "Exceeded %(limit)d form XObject", "Page contents are not a")
_LOST_IF_EMPTY: Final = ("Object %(idnum)d %(generation)d not defined",)


class _Listener(logging.Handler):
    """Keeps the first warning of each of the two kinds; there may be millions, and none is for the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: ContextVar[dict[str, str] | None] = ContextVar("heard", default=None)

    def emit(self, record: logging.LogRecord) -> None:
        heard = self.heard.get()
        if heard is not None:
            for kind, beginnings in (("lost", _LOST), ("empty", _LOST_IF_EMPTY)):
                if kind not in heard and str(record.msg).startswith(beginnings):
                    heard[kind] = record.getMessage()[:200]


_listener: Final = _Listener()
_log: Final = logging.getLogger("pypdf")
_log.addHandler(_listener)
_log.propagate = False


def read(raw: bytes, _content_type: str = "") -> Reading:
    """Return the text, with the places of all pages.

    Raises:
        ObjectFailed: PDF_ENCRYPTED, PDF_BROKEN, PDF_WITHOUT_TEXT, TOO_LARGE.
    """
    with apply_configuration(_LIMITS):
        try:
            return _read(raw)
        except LimitReachedError as error:
            raise ObjectFailed(f"The PDF is larger unpacked than is read: {error}", code="TOO_LARGE") from error


def _read(raw: bytes) -> Reading:
    reader = PdfReader(io.BytesIO(raw))
    if reader.is_encrypted:
        _open(reader)
    amount = len(reader.pages)
    if amount > MOST_PAGES:
        raise ObjectFailed(f"The PDF has {amount:,} pages; at most {MOST_PAGES:,} are read.", code="TOO_LARGE")
    texts: list[str] = []
    pages: list[Page] = []
    length = 0
    for number, page in enumerate(reader.pages, 1):
        text = _text_of(page, number)
        pages.append(Page(length, number))
        texts.append(text)
        length += len(text) + 1
        check_length(length)
    if not any(text.strip() for text in texts):
        message = (
            f"None of the {amount} pages of the PDF has text; they are pictures, perhaps scans. "
            "Text in pictures is not recognised here: run the file through OCR, and upload it again."
        )
        raise ObjectFailed(message, code="PDF_WITHOUT_TEXT")
    return Reading("\f".join(texts), Layout(pages=pages))


def _open(reader: PdfReader) -> None:
    """Unlock a file that asks for no password to be read, only to be changed or printed."""
    try:
        opened = reader.decrypt("")
    except (DependencyError, PyPdfError, ValueError) as error:
        raise ObjectFailed(f"The PDF is encrypted in a way that is not known: {error}", code="PDF_ENCRYPTED") from error
    if not opened:
        message = "The PDF is protected by a password. Save it without one, and upload it again."
        raise ObjectFailed(message, code="PDF_ENCRYPTED")


def _text_of(page: PageObject, number: int) -> str:
    heard: dict[str, str] = {}
    token = _listener.heard.set(heard)
    try:
        parts = [page.extract_text(), *_filled_in(page)]
    except (LimitReachedError, MemoryError):
        raise
    except Exception as error:
        message = f"Page {number} of the PDF is broken: {type(error).__name__}: {str(error)[:200]}"
        raise ObjectFailed(message, code="PDF_BROKEN") from error
    finally:
        _listener.heard.reset(token)
    lost = heard.get("lost") or (None if any(parts) else heard.get("empty"))
    if lost is not None:
        raise ObjectFailed(f"Page {number} of the PDF cannot be read whole: {lost}", code="PDF_BROKEN")
    # Form feeds part the pages, so there is none within a page.
    return clean("\n".join(part for part in parts if part)).replace("\f", "\n")


def _filled_in(page: PageObject) -> Iterator[str]:
    """Yield what is written into form fields and into text notes: it is drawn apart from the page's own text."""
    listed: Any = page["/Annots"].get_object() if "/Annots" in page else None
    for reference in list(listed)[:_MOST_NOTES] if isinstance(listed, list) else []:
        one = reference.get_object()
        if not isinstance(one, dict):
            continue
        kind = one.get("/Subtype")
        value: Any = _field_value(one) if kind == "/Widget" else one.get("/Contents") if kind == "/FreeText" else None
        if isinstance(value, IndirectObject):
            value = value.get_object()
        if isinstance(value, str) and not value.startswith("/"):  # a name, such as /Off, is a state and no text
            yield value


def _field_value(field: Any) -> Any:
    """Return the value of a form field, which a field of several places has in common with its siblings."""
    for _ in range(_MOST_PARENTS):
        if field.get("/FT") == "/Btn":
            return None
        if "/V" in field:
            return field["/V"]
        if "/Parent" not in field:
            return None
        field = field["/Parent"]
        if not isinstance(field, dict):
            return None
    return None
