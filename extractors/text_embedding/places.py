"""Where in a file a part stands: pages and headings, as whoever read the file found them."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from extractors.reading.layout import Code, Heading, Layout

if TYPE_CHECKING:
    from domain.json_types import Fields, Json


class Places:
    """The pages and headings of one text, to be asked for the place of each of its parts."""

    def __init__(self, layout: Layout | None) -> None:
        layout = layout or Layout()
        self._pages = layout.pages
        self._page_starts = [page.start for page in layout.pages]
        self._heading_starts = [heading.start for heading in layout.headings]
        self._paths = _paths(layout.headings)
        self._code = layout.code

    @property
    def page_starts(self) -> Sequence[int]:
        """The positions at which pages begin."""
        return self._page_starts

    def about(self, start: int, end: int) -> "Fields":
        """Return what is known of the place of the visible characters [start, end)."""
        about: Fields = {}
        if self._pages:
            first = max(0, bisect_right(self._page_starts, start) - 1)
            last = max(first, bisect_right(self._page_starts, max(start, end - 1)) - 1)
            while self._pages[last].number < self._pages[first].number:  # another file began in between
                last -= 1
            about["page_number"] = self._pages[first].number
            if last != first:
                about["page_end"] = self._pages[last].number
        if self._heading_starts:
            about["heading_path"] = self.heading_path(start)
        return about

    def heading_path(self, position: int) -> "list[Json]":
        """Return the headings above a position, the highest first."""
        before = bisect_right(self._heading_starts, position)
        return list(self._paths[before - 1]) if before else []

    def sections(self, length: int) -> "list[tuple[int, int, Fields]]":
        """Cut a text at headings and around code, or at pages if it has those; together the whole text."""
        code = {one.start: one for one in self._code}
        cuts = {0, length, *self._page_starts, *self._heading_starts, *code, *(one.end for one in self._code)}
        ordered = sorted(cut for cut in cuts if 0 <= cut <= length)
        return [
            (start, end, {**_kind(code.get(start)), "heading_path": self.heading_path(start)})
            for start, end in pairwise(ordered)
        ]


def _kind(code: Code | None) -> "Fields":
    if code is None:
        return {"chunk_kind": "section"}
    return {"chunk_kind": "code", "code_language": code.language}


def _paths(headings: Sequence[Heading]) -> "list[tuple[Json, ...]]":
    """Return, for each heading, those it stands under and itself."""
    paths: list[tuple[Json, ...]] = []
    above: list[Heading] = []
    for heading in headings:
        above = [one for one in above if one.level < heading.level]
        above.append(heading)
        paths.append(tuple(one.title for one in above))
    return paths
