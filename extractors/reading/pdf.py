"""PDF: the text layer of each page, as pypdf finds it, and what forms and notes on the page say.

Pages are parted by form feeds, so a page that is empty still counts. Nothing is recognised in pictures. One page
that cannot be read fails the whole file: a text with a hole in it would pass for the whole.
"""

import io
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final, cast

from pypdf import PageObject, PdfReader, apply_configuration, get_configuration
from pypdf.errors import DependencyError, LimitReachedError, PyPdfError
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, PdfObject, StreamObject, create_string_object

from domain.errors import ObjectFailed
from extractors.reading.layout import SAVE_AGAIN, Layout, Page, Reading, check_length, clean

MOST_PAGES: Final = 10_000
_HEAD: Final = 1_024
_MOST_NOTES: Final = 10_000  # on a page
_MOST_PARENTS: Final = 20
_MOST_UNKNOWN: Final = 10  # letters of a page; more are no bullets and logos, if they are also the half of it
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
            message = f"The PDF is larger unpacked than is read ({str(error).rstrip('.')}). Split it."
            raise ObjectFailed(message, code="TOO_LARGE") from error


def _read(raw: bytes) -> Reading:
    if b"%PDF-" not in raw[:_HEAD]:
        raise ObjectFailed(
            "The file is said to be a PDF, and does not begin as one. Send it as what it is.", code="PDF_BROKEN"
        )
    reader = PdfReader(io.BytesIO(raw))
    if reader.is_encrypted:
        _open(reader)
    amount = _amount(reader)
    if amount > MOST_PAGES:
        message = f"The PDF has {amount:,} pages; at most {MOST_PAGES:,} are read. Split it."
        raise ObjectFailed(message, code="TOO_LARGE")
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
            f"No page of the PDF has text ({amount:,} in all); they are pictures, perhaps scans. "
            "Text in pictures is not recognised here: run the file through OCR, and upload it again."
        )
        raise ObjectFailed(message, code="PDF_WITHOUT_TEXT")
    return Reading("\f".join(texts), Layout(pages=pages))


def _open(reader: PdfReader) -> None:
    """Unlock a file that asks for no password to be read, only to be changed or printed."""
    try:
        opened = reader.decrypt("")
    except (DependencyError, PyPdfError, ValueError) as error:
        message = f"The PDF is encrypted in a way that is not known: {error}. Save it without, and upload it again."
        raise ObjectFailed(message, code="PDF_ENCRYPTED") from error
    if not opened:
        message = "The PDF is protected by a password. Save it without one, and upload it again."
        raise ObjectFailed(message, code="PDF_ENCRYPTED")


def _amount(reader: PdfReader) -> int:
    """Return how many pages there are; pypdf passes over those that are gone, and the rest would move up."""
    catalog = reader.root_object
    if bool(catalog.get("/NeedsRendering")):
        message = "The PDF is a dynamic form: its text is made when Acrobat opens it. Print it as PDF, and upload that."
        raise ObjectFailed(message, code="PDF_WITHOUT_TEXT")
    found = len(reader.pages)
    told = cast("DictionaryObject", catalog["/Pages"]).get("/Count")
    if isinstance(told, int) and found < told:
        message = f"Of the {told:,} pages of the PDF only {found:,} are there. {SAVE_AGAIN}"
        raise ObjectFailed(message, code="PDF_BROKEN")
    return found


def _text_of(page: PageObject, number: int) -> str:
    heard: dict[str, str] = {}
    token = _listener.heard.set(heard)
    try:
        parts = [page.extract_text(), *_filled_in(page)]
        lost = heard.get("lost") or (None if any(parts) else heard.get("empty")) or _missing(page)
    except (LimitReachedError, MemoryError, ObjectFailed):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:200]}".rstrip(": .")
        raise ObjectFailed(f"Page {number} of the PDF is broken: {why}. {SAVE_AGAIN}", code="PDF_BROKEN") from error
    finally:
        _listener.heard.reset(token)
    if lost is not None:
        message = f"Page {number} of the PDF cannot be read whole: {lost.rstrip('.')}. {SAVE_AGAIN}"
        raise ObjectFailed(message, code="PDF_BROKEN")
    # Form feeds part the pages, so there is none within a page.
    text = clean("\n".join(part for part in parts if part)).replace("\f", "\n")
    unknown = text.count("\ufffd")
    if unknown > _MOST_UNKNOWN and unknown * 2 > len(text) - text.count("\n") - text.count(" "):
        message = (
            f"The fonts on page {number} of the PDF do not say which letters they draw. Run the file through OCR, "
            "and upload it again."
        )
        raise ObjectFailed(message, code="PDF_WITHOUT_TEXT")
    return text


def _missing(page: PageObject) -> str | None:
    """Return what is wrong when a piece of a page's content is not there; pypdf goes on without it."""
    contents = page.get("/Contents")
    if isinstance(contents, ArrayObject) and not all(isinstance(one.get_object(), StreamObject) for one in contents):
        return "a piece of its content is missing"
    return None


def _filled_in(page: PageObject) -> Iterator[str]:
    """Yield what is written into form fields and into text notes: it is drawn apart from the page's own text."""
    listed = _resolved(page.get("/Annots"))
    notes = listed if isinstance(listed, ArrayObject) else ()
    if len(notes) > _MOST_NOTES:
        message = f"A page of the PDF has {len(notes):,} notes; at most {_MOST_NOTES:,} are read. Split it."
        raise ObjectFailed(message, code="TOO_LARGE")
    for reference in notes:
        one = reference.get_object()
        if not isinstance(one, DictionaryObject):
            continue
        kind = one.get("/Subtype")
        value = _field_value(one) if kind == "/Widget" else one.get("/Contents") if kind == "/FreeText" else None
        yield from _strings(_resolved(value))


def _strings(value: PdfObject | None) -> Iterator[str]:
    """Yield the texts of a value: one, several that were chosen, or a long one in a stream. A name is a state."""
    if isinstance(value, ArrayObject):
        for one in value:
            if not isinstance(one := one.get_object(), ArrayObject):
                yield from _strings(one)
    elif isinstance(value, StreamObject):
        yield from _strings(create_string_object(value.get_data()))
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, str) and not isinstance(value, NameObject):
        yield value


def _field_value(field: DictionaryObject) -> PdfObject | None:
    """Return the value of a form field, which a field of several places has in common with its siblings."""
    for _ in range(_MOST_PARENTS):
        if field.get("/FT") == "/Btn":
            return None
        if "/V" in field:
            return field.get("/V")
        above = _resolved(field.get("/Parent"))
        if not isinstance(above, DictionaryObject):
            return None
        field = above
    return None


def _resolved(value: Any) -> PdfObject | None:
    found: PdfObject | None = None if value is None else value.get_object()
    return found
