"""Cutting a text into parts: first by the units the user chose, then so that the model can read each whole.

A part is a span of characters of the source. Unless overlap was asked for, spans touch and do not overlap;
together they always cover every character, so nothing is lost between them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from semantic_text_splitter import TextSplitter
from sentencex import get_sentence_boundaries

from domain.json_types import Fields
from extractors.text_embedding.tokens import TextTokenizer

SplitBy = Literal["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"]
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*\n\s*")
_FENCE: Final = re.compile(r" {0,3}(```+|~~~+)\s*([\w+#.-]*)")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of the source, and what is known of them."""

    start: int
    end: int
    about: Fields = field(default_factory=dict)


def split(text: str, by: SplitBy, size: int, overlap: int, language: str) -> list[Span]:
    """Cut a text into parts of at most ``size`` units, each beginning ``overlap`` units before the last one's end.

    Blank units never stand alone: they belong to the part before them (or, at the very start, after).
    """
    if by == "markdown":
        return _without_blanks(text, _markdown(text))
    if by == "none":
        return [Span(0, len(text))]
    cuts = _cuts(text, by, language)
    units = _without_blanks(text, [Span(start, end) for start, end in pairwise(cuts)])
    if by == "pages":
        numbered = [Span(unit.start, unit.end, {"page_number": text.count("\f", 0, unit.start) + 1}) for unit in units]
        return numbered if size == 1 else list(_grouped(numbered, size, overlap))
    return list(_grouped(units, size, overlap))


def _cuts(text: str, by: SplitBy, language: str) -> list[int]:
    """Return ascending positions from 0 to the end, between which the units lie."""
    match by:
        case "characters":
            inner = list(range(1, len(text)))
        case "words":
            inner = [match.end() for match in re.finditer(r"\S+\s+", text)]
        case "sentences":
            inner = [int(boundary["end_index"]) for boundary in get_sentence_boundaries(language, text)]
        case "paragraphs":
            inner = [match.end() for match in _PARAGRAPH.finditer(text)]
        case _:
            inner = [match.end() for match in re.finditer("\f", text)]
    return [0, *sorted({cut for cut in inner if 0 < cut < len(text)}), len(text)]


def _without_blanks(text: str, spans: Sequence[Span]) -> list[Span]:
    """Join units of nothing but white space to a neighbour."""
    joined: list[Span] = []
    for span in spans:
        if joined and (not text[span.start : span.end].strip() or not text[joined[-1].start : joined[-1].end].strip()):
            about = joined[-1].about or span.about
            if not text[joined[-1].start : joined[-1].end].strip():
                about = span.about
            joined[-1] = Span(joined[-1].start, span.end, about)
        else:
            joined.append(span)
    return joined


def _grouped(units: Sequence[Span], size: int, overlap: int) -> Iterator[Span]:
    step = size - overlap
    for first in range(0, len(units), step):
        last = min(first + size, len(units)) - 1
        yield Span(units[first].start, units[last].end, units[first].about)
        if last == len(units) - 1:
            return


def _markdown(text: str) -> list[Span]:
    """Cut at headings and around fenced code; each part knows the headings it stands under."""
    spans: list[Span] = []
    path: list[tuple[int, str]] = []
    start = position = 0
    about: Fields = {"chunk_kind": "section", "heading_path": []}
    fence: str | None = None

    def close(end: int) -> None:
        if end > start:
            spans.append(Span(start, end, about))

    for line in text.splitlines(keepends=True):
        fenced = _FENCE.match(line)
        heading = _HEADING.match(line) if fence is None else None
        if fence is None and fenced:
            close(position)
            start, fence = position, fenced[1]
            about = {
                "chunk_kind": "code",
                "heading_path": [title for _, title in path],
                "code_language": fenced[2] or None,
            }
        elif (
            fence is not None and fenced and fenced[1][0] == fence[0] and len(fenced[1]) >= len(fence) and not fenced[2]
        ):
            close(position + len(line))
            start, fence = position + len(line), None
            about = {"chunk_kind": "section", "heading_path": [title for _, title in path]}
        elif heading:
            close(position)
            level = len(heading[1])
            path = [*((depth, title) for depth, title in path if depth < level), (level, heading[2])]
            start = position
            about = {"chunk_kind": "section", "heading_path": [title for _, title in path]}
        position += len(line)
    close(len(text))
    return spans or [Span(0, len(text), about)]


class Fitter:
    """Cuts spans further until the model can read each whole.

    Args:
        tokenizer: the model's own.
        prefix: what stands before each text when it is embedded; it counts.
        limit: the most tokens the model reads, prefix and special tokens included.
    """

    def __init__(self, tokenizer: TextTokenizer, prefix: str, limit: int) -> None:
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._limit = limit
        room = limit - tokenizer.count([prefix])[0]
        self._splitter = TextSplitter.from_huggingface_tokenizer(tokenizer.raw, max(1, room), trim=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads for each text, prefix and special tokens included."""
        return self._tokenizer.count([self._prefix + text for text in texts])

    def fit(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, int]]:
        """Return spans that fit, with their tokens; a span that is too long becomes several."""
        fitted: list[tuple[Span, int]] = []
        counts = self.count([text[span.start : span.end] for span in spans])
        for span, tokens in zip(spans, counts, strict=True):
            fitted.extend([(span, tokens)] if tokens <= self._limit else self._cut(text, span))
        return fitted

    def truncate(self, text: str, span: Span) -> tuple[Span, int]:
        """Return the beginning of a span that just fits, and its tokens."""
        piece = text[span.start : span.end]
        end = self._tokenizer.end_of(self._prefix + piece, self._limit) - len(self._prefix)
        while end > 0:
            tokens = self.count([piece[:end]])[0]
            if tokens <= self._limit:
                return Span(span.start, span.start + end, span.about), tokens
            end -= max(1, (tokens - self._limit) // 2)
        return Span(span.start, span.start, span.about), self.count([""])[0]

    def _cut(self, text: str, span: Span) -> list[tuple[Span, int]]:
        """Cut one span at the best boundaries (paragraph, sentence, word), and by force where there are none."""
        piece = text[span.start : span.end]
        starts = [start for start, _ in self._splitter.chunk_indices(piece)]
        bounds = sorted({0, *starts, len(piece)})
        parts = [Span(span.start + a, span.start + b, span.about) for a, b in pairwise(bounds) if a < b]
        parts = _without_blanks(text, parts)
        counts = self.count([text[part.start : part.end] for part in parts])
        fitted: list[tuple[Span, int]] = []
        for part, tokens in zip(parts, counts, strict=True):
            fitted.extend([(part, tokens)] if tokens <= self._limit else self._halve(text, part))
        return fitted

    def _halve(self, text: str, span: Span) -> list[tuple[Span, int]]:
        """Halve a span until it fits; one character is taken as it is, however many tokens it may be."""
        tokens = self.count([text[span.start : span.end]])[0]
        if tokens <= self._limit or span.end - span.start <= 1:
            return [(span, tokens)]
        middle = (span.start + span.end) // 2
        halves = _without_blanks(text, [Span(span.start, middle, span.about), Span(middle, span.end, span.about)])
        if len(halves) == 1:
            return self._shrink(text, span)
        return [fitted for half in halves for fitted in self._halve(text, half)]

    def _shrink(self, text: str, span: Span) -> list[tuple[Span, int]]:
        """Handle a span that is all white space on one side: cut through the middle of what is not."""
        piece = text[span.start : span.end]
        first = span.start + len(piece) - len(piece.lstrip())
        last = span.start + len(piece.rstrip())
        middle = (first + last) // 2
        if not first < middle < last:
            return [(span, self.count([piece])[0])]
        return [
            fitted
            for part in (Span(span.start, middle, span.about), Span(middle, span.end, span.about))
            for fitted in self._halve(text, part)
        ]
