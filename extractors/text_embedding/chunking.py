"""Cutting a text into the units that a collection asked for: words, sentences, paragraphs, pages, sections.

A part is a span of characters of the source. Spans touch and, unless overlap was asked for, do not overlap;
together they always cover every character, so nothing is lost between them. What is still longer than the
model reads is cut further in `fitting`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from sentencex import get_sentence_boundaries

from domain.errors import ObjectFailed
from extractors.text_embedding import markdown
from extractors.text_embedding.places import Places

if TYPE_CHECKING:
    from domain.json_types import Fields

SplitBy = Literal["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"]

# Characters that show nothing: white space, controls, zero-width and direction marks. A part of these alone
# is never embedded, and they do not count at either end of one.
BLANKS: Final = "".join(
    map(
        chr,
        (
            *range(0x21),
            *range(0x7F, 0xA1),
            *(0xAD, 0x1680, 0x3000, 0xFEFF),
            *range(0x2000, 0x2010),
            *range(0x2028, 0x2030),
            *range(0x205F, 0x2070),
        ),
    )
)
MOST_PARTS: Final = 100_000
MOST_CHARACTERS: Final = 200_000_000

_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*\n\s*|\u2029\s*")
_WORD: Final = re.compile(r"\S+\s+")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of the source.

    Attributes:
        about: what else is known of them, for the document's fields.
        cuts: positions inside where it should be cut, if it must be.
        tokens: what the model reads for what is visible of them, prefix included; None where nobody has counted.
    """

    start: int
    end: int
    about: "Fields" = field(default_factory=dict)
    cuts: Sequence[int] = ()
    tokens: int | None = None


def is_blank(text: str) -> bool:
    """Say whether a text shows nothing at all."""
    return not text.strip(BLANKS)


def visible(text: str, span: Span) -> str:
    """Return the characters of a span without the blanks around them: what is embedded."""
    start, end = core(text, span.start, span.end)
    return text[start:end]


def core(text: str, start: int, end: int) -> tuple[int, int]:
    """Return [start, end) without the blanks at both ends; an empty range at ``start`` if there is nothing else."""
    piece = text[start:end]
    kept = len(piece.rstrip(BLANKS))
    return (start + len(piece) - len(piece.lstrip(BLANKS)), start + kept) if kept else (start, start)


def split(text: str, by: SplitBy, size: int, overlap: int, language: str, places: Places | None = None) -> list[Span]:
    """Cut a text into spans of at most ``size`` units, each beginning ``overlap`` units before the last one's end.

    Blank units never stand alone: they belong to the one before them (or, at the very start, after).

    Args:
        text: at least one of its characters is not blank.
        by: the units; ``none`` is one span, ``markdown`` one span for each section and each block of code.
        size: units in a span; sections of Markdown are not counted.
        overlap: fewer than ``size``.
        language: ISO code, for the ends of sentences.
        places: pages and headings of the file that the text was read from; without it the text's own form feeds and
            Markdown say where those are.

    Raises:
        ObjectFailed: there would be more parts than can be stored.
    """
    match by:
        case "none":
            return [Span(0, len(text))]
        case "markdown" if places is not None:
            return _joined(text, [Span(*section) for section in places.sections(len(text))])
        case "markdown":
            return _joined(text, [Span(one.start, one.end, one.about) for one in markdown.sections(text)])
        case "characters":
            _check_amount(len(text), size, overlap, len(text))
            return _joined(text, _grouped(range(len(text) + 1), size, overlap, keep_cuts=False))
        case _:
            pages = places.page_starts if places is not None and by == "pages" else ()
            cuts = _without_blanks(text, _cuts(text, by, language, pages))
            _check_amount(len(cuts) - 1, size, overlap, len(text))
            return list(_grouped(cuts, size, overlap, keep_cuts=by != "words"))


def page_of(text: str, start: int, end: int) -> int:
    """Return the number, from 1, of the page on which the first visible character of [start, end) stands."""
    return text.count("\f", 0, core(text, start, end)[0]) + 1


def sentence_ends(text: str, language: str) -> list[int]:
    """Return the positions after each sentence of a text, white space included, in ascending order."""
    return [int(boundary["end_index"]) for boundary in get_sentence_boundaries(language, text)]


def paragraph_ends(text: str) -> list[int]:
    """Return the positions after each blank line of a text."""
    return [found.end() for found in _PARAGRAPH.finditer(text)]


def word_ends(text: str) -> list[int]:
    """Return the positions after each word of a text and the white space that follows it."""
    return [found.end() for found in _WORD.finditer(text)]


def _cuts(text: str, by: SplitBy, language: str, pages: Sequence[int]) -> list[int]:
    """Return ascending positions from 0 to the end, between which the units lie."""
    match by:
        case "words":
            inner = word_ends(text)
        case "sentences":
            inner = sentence_ends(text, language)
        case "paragraphs":
            inner = paragraph_ends(text)
        case _:
            inner = [*pages, *(found.end() for found in re.finditer("\f", text))]
    return [0, *sorted({cut for cut in inner if 0 < cut < len(text)}), len(text)]


def _without_blanks(text: str, cuts: Sequence[int]) -> list[int]:
    """Leave out those cuts that would make a blank unit."""
    kept = [0]
    for start, end in pairwise(cuts):
        if not is_blank(text[start:end]):
            kept.append(end)
        elif len(kept) > 1:
            kept[-1] = end
    return kept


def _joined(text: str, spans: Sequence[Span]) -> list[Span]:
    """Join blank spans to a neighbour."""
    joined: list[Span] = []
    lead: int | None = None  # where blanks began that nothing has come before
    for span in spans:
        if not is_blank(text[span.start : span.end]):
            start = span.start if lead is None else lead
            joined.append(Span(start, span.end, span.about, span.cuts))
            lead = None
        elif joined:
            last = joined[-1]
            joined[-1] = Span(last.start, max(last.end, span.end), last.about, last.cuts)
        elif lead is None:
            lead = span.start
    return joined


def _grouped(cuts: Sequence[int], size: int, overlap: int, *, keep_cuts: bool) -> list[Span]:
    """Put units together; ``cuts`` are the positions around each of them."""
    return list(_groups(cuts, size, size - overlap, keep_cuts=keep_cuts))


def _groups(cuts: Sequence[int], size: int, step: int, *, keep_cuts: bool) -> Iterator[Span]:
    units = len(cuts) - 1
    for first in range(0, units, step):
        last = min(first + size, units)
        yield Span(cuts[first], cuts[last], cuts=cuts[first + 1 : last] if keep_cuts else ())
        if last == units:
            return


def _check_amount(units: int, size: int, overlap: int, characters: int) -> None:
    parts = max(1, -(-(units - overlap) // (size - overlap)))
    stored = characters * size // (size - overlap)
    if parts > MOST_PARTS or (parts > 1 and stored > MOST_CHARACTERS):
        message = (
            f"The text would become {parts:,} parts with about {stored:,} characters; at most {MOST_PARTS:,} parts and "
            f"{MOST_CHARACTERS:,} characters are stored for one object. Use a larger chunk_size or a smaller overlap."
        )
        raise ObjectFailed(message, code="TOO_MANY_PARTS")
