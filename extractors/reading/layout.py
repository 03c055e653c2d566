"""What reading a file gives: its text, and where in that text its pages, headings and blocks of code begin."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from domain.errors import ObjectFailed

MOST_CHARACTERS: Final = 20_000_000  # of text in one file; a thousand thick books have fewer pages than this
MOST_BYTES: Final = 100 * 1024 * 1024  # of a file
SAVE_AGAIN: Final = "Save it anew with the program that made it, and upload that."


@dataclass(frozen=True, slots=True)
class Page:
    """A page begins at ``start``. ``number`` is its place in the file, from 1, whatever is printed on it."""

    start: int
    number: int


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading begins at ``start``. ``level`` 0 is the title of the whole file, 1 is the highest heading."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Code:
    """Characters [start, end) are a block of code, its fences included."""

    start: int
    end: int
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in a text, each list in ascending order of ``start``."""

    pages: Sequence[Page] = field(default_factory=list)
    headings: Sequence[Heading] = field(default_factory=list)
    code: Sequence[Code] = field(default_factory=list)

    def moved(self, by: int) -> "Layout":
        """Return the same places in a text that has ``by`` more characters before it."""
        return Layout(
            [replace(one, start=one.start + by) for one in self.pages],
            [replace(one, start=one.start + by) for one in self.headings],
            [replace(one, start=one.start + by, end=one.end + by) for one in self.code],
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of a file. ``layout`` is None for plain text and Markdown, whose places are in the text itself."""

    text: str
    layout: Layout | None = None


def join(readings: Sequence[Reading], between: str = "\n\n") -> Reading:
    """Return several readings as one text, their places moved along."""
    if len(readings) == 1:
        return readings[0]
    pages: list[Page] = []
    headings: list[Heading] = []
    code: list[Code] = []
    start = 0
    for one in readings:
        moved = (one.layout or Layout()).moved(start)
        pages += moved.pages
        headings += moved.headings
        code += moved.code
        start += len(one.text) + len(between)
    has_layout = any(one.layout for one in readings)
    text = between.join(one.text for one in readings)
    return Reading(text, Layout(pages, headings, code) if has_layout else None)


def clean(text: str) -> str:
    """Return a text that every store takes: no NUL, and halves of surrogate pairs replaced."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def check_length(characters: int) -> None:
    """Raise ObjectFailed when a file has more text than is stored for one."""
    if characters > MOST_CHARACTERS:
        message = f"The file has more than {MOST_CHARACTERS:,} characters of text. Split it."
        raise ObjectFailed(message, code="TOO_LARGE")


def to_plain(reading: Reading) -> dict[str, Any]:
    """Return a reading as lists and numbers, to be sent from one process to another."""
    layout = reading.layout
    places: Iterable[Any] = () if layout is None else (layout.pages, layout.headings, layout.code)
    return {
        "text": reading.text,
        "layout": [[[getattr(one, name) for name in one.__slots__] for one in kind] for kind in places] or None,
    }


def from_plain(plain: dict[str, Any]) -> Reading:
    """Return the reading that `to_plain` took apart."""
    if plain["layout"] is None:
        return Reading(plain["text"])
    pages, headings, code = plain["layout"]
    return Reading(
        plain["text"],
        Layout([Page(*one) for one in pages], [Heading(*one) for one in headings], [Code(*one) for one in code]),
    )
