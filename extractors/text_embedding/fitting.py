"""Cutting spans until the model can read each whole, counted with the model's own tokenizer.

A window of the text is tokenised, the character at which the limit is reached is looked up in the offsets, and
the best boundary before it is taken: a cut the caller wants, a paragraph, a sentence, a line, a word, a token.
Then the part is counted alone, with the model's prefix, because a text may have other tokens alone than inside
another one. Work and memory grow with the length of the text and no faster, whatever the script.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from domain.errors import ObjectFailed
from extractors.text_embedding.chunking import Span, core, paragraph_ends, sentence_ends, visible, word_ends

if TYPE_CHECKING:
    from extractors.text_embedding.tokens import TextTokenizer

_JOINERS: Final = "\u200d\ufe0e\ufe0f"
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_FLAGS: Final = range(0x1F1E6, 0x1F200)
# A span with more characters than this per token of the limit is not counted whole first: it will not fit.
_LONG: Final = 32


class Fitter:
    """Cuts spans to what a model reads.

    Args:
        tokenizer: the model's own.
        prefix: what stands before each text when it is embedded; it counts.
        limit: the most tokens the model reads, prefix and special tokens included.
        language: ISO code, for the ends of sentences.
    """

    def __init__(self, tokenizer: "TextTokenizer", prefix: str, limit: int, language: str = "en") -> None:
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._limit = limit
        self._language = language
        self._least = self.count([""])[0]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads for each text, prefix and special tokens included."""
        return self._tokenizer.count([self._prefix + text for text in texts])

    def fit(self, text: str, spans: Sequence[Span]) -> list[Span]:
        """Return spans that fit, counted; one that is too long becomes several, which together are the whole of it.

        Of spans that overlap and must be cut, a piece that brings nothing new is left out.

        Raises:
            ObjectFailed: a single character has more tokens than the model reads.
        """
        short = [span for span in spans if span.end - span.start <= _LONG * self._limit]
        whole = {id(span): counted for span, counted in zip(short, self.counted(text, short), strict=True)}
        fitted: list[Span] = []
        for span in spans:
            counted = whole.get(id(span))
            fits = counted is not None and (counted.tokens or 0) <= self._limit
            pieces = [counted] if counted and fits else self.counted(text, self._cut(text, span))
            fitted.extend(piece for piece in pieces if not fitted or piece.end > fitted[-1].end)
        return fitted

    def counted(self, text: str, spans: Sequence[Span]) -> list[Span]:
        """Return spans with the tokens of what is embedded of them: the characters without the blanks around."""
        counts = self.count([visible(text, span) for span in spans])
        return [replace(span, tokens=tokens) for span, tokens in zip(spans, counts, strict=True)]

    def truncate(self, text: str, span: Span) -> Span:
        """Return the beginning of a span, as long as fits, without the blanks around it.

        Raises:
            ObjectFailed: its first character alone has more tokens than the model reads.
        """
        start, end = core(text, span.start, span.end)
        return replace(span, start=start, end=self._longest(text, start, end, self._limit * 4))

    def _cut(self, text: str, span: Span) -> list[Span]:
        parts: list[Span] = []
        start, window = span.start, self._limit * 4
        while start < span.end:
            end = self._next_end(text, start, span, window)
            parts.append(replace(span, start=start, end=end, cuts=()))
            window = max(16, 2 * (end - start))  # characters; the next part is about as long as this one
            start = end
        return parts

    def _next_end(self, text: str, start: int, span: Span, window: int) -> int:
        """Return where the part that begins at ``start`` ends; never blank, and leaving nothing blank behind."""
        first, last = core(text, start, span.end)
        longest = self._longest(text, first, span.end, window)
        if longest == span.end and self._fits(text[start : span.end]):
            return longest
        longest = min(longest, last - 1)  # one visible character at least is left for the next part
        if longest <= first:
            return span.end  # one visible character among blanks, which are not embedded
        sentences = None if span.about.get("chunk_kind") == "code" else self._sentences
        end = _best(text, first, longest, span.cuts, sentences)
        while end > first + 1 and not self._fits(text[first:end]):  # shorter, and yet more tokens: rare
            end = _best(text, first, end - 1, span.cuts, sentences)
        return end

    def _longest(self, text: str, start: int, end: int, window: int) -> int:
        """Return the greatest position up to which [start, …) surely fits; at least one character further.

        ``window`` is how many characters to look at first; more are looked at if all of those fit.
        """
        stop = min(end, start + window)
        while True:
            reached, whole = self._tokenizer.reach(self._prefix, text[start:stop], self._limit)
            if not whole:
                break
            if stop == end:
                return end
            stop = min(end, start + 2 * (stop - start))
        longest = _whole_cluster(text, start, start + reached)
        while longest > start and (tokens := self.count([text[start:longest]])[0]) > self._limit:
            # Offsets may be coarse, where a tokenizer joins many unknown characters to one: shrink in proportion.
            share = min(0.97, max(0, self._limit - self._least) / max(1, tokens - self._least))
            shorter = start + int((longest - start) * share)
            longest = min(longest - 1, _whole_cluster(text, start, shorter))
        if longest > start:
            return longest
        if not self._fits(text[start]):
            message = (
                f"The character U+{ord(text[start]):04X} alone has more tokens than the {self._limit} of the model."
            )
            raise ObjectFailed(message, code="TEXT_TOO_LONG")
        return start + 1

    def _fits(self, text: str) -> bool:
        return self.count([text])[0] <= self._limit

    def _sentences(self, text: str) -> list[int]:
        return sentence_ends(text, self._language)


def _best(
    text: str, start: int, longest: int, cuts: Sequence[int], sentences: Callable[[str], list[int]] | None
) -> int:
    """Return the best position in (start, longest] to cut at.

    The cuts that were asked for come first, wherever they lie; of the others those that leave the part at least
    half full: paragraphs, sentences, lines, words. Where there are none, tokens or whole characters.
    """
    wanted = bisect_right(cuts, longest)
    if wanted and cuts[wanted - 1] > start:
        return cuts[wanted - 1]
    piece = text[start:longest]
    half = len(piece) // 2
    kinds: list[Callable[[str], list[int]]] = [paragraph_ends, sentences, _line_ends] if sentences else [_line_ends]
    for ends in (*kinds, word_ends):
        found = [end for end in ends(piece) if half < end < len(piece)]
        if found:
            return start + found[-1]
    return longest


def _line_ends(text: str) -> list[int]:
    last = text.rfind("\n")
    return [last + 1] if last >= 0 else []


def _whole_cluster(text: str, start: int, position: int) -> int:
    """Move a position back so that no character is torn from its marks; leave it if nothing else would remain."""
    moved = position
    while start < moved < len(text) and _belongs(text, start, moved):
        moved -= 1
    return moved if moved > start else position


def _belongs(text: str, start: int, position: int) -> bool:
    """Say whether the character at a position is part of what stands before it (an accent, an emoji's half)."""
    before, here = text[position - 1], text[position]
    if here in _JOINERS or before == "\u200d" or unicodedata.category(here) in {"Mn", "Mc", "Me"}:
        return True
    if (before, here) == ("\r", "\n") or ord(here) in _SKIN_TONES:
        return True
    if ord(here) in _FLAGS and ord(before) in _FLAGS:
        flags = 0
        while position - flags > start and ord(text[position - flags - 1]) in _FLAGS:
            flags += 1
        return flags % 2 == 1
    return False
