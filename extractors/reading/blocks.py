"""Writing a text down block by block, as Markdown would have it, while noting where headings and code begin."""

import re
from typing import Final

from extractors.reading.layout import Code, Heading, Layout, Reading, check_length, clean

_MOST_HEADING: Final = 200  # characters of a heading that a path repeats
_DEEPEST: Final = 6
_TICKS: Final = re.compile(r"`{3,}")
_LINES: Final = re.compile(r"\s*[\r\n]+\s*")


class Blocks:
    """A text that grows by one block at a time."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._group = ""
        self._headings: list[Heading] = []
        self._code: list[Code] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been written yet."""
        return not self._pieces

    def add(self, text: str, group: str = "") -> int:
        """Write a block, unless it is blank, and return where it begins.

        Args:
            text: the block.
            group: no empty line parts it from a block of the same group (items of a list, rows of a table).
        """
        text = clean(text)
        if not text.strip():
            return self._length
        if self._pieces:
            self._push("\n" if group and group == self._group else "\n\n")
        start = self._length
        self._push(text)
        self._group = group
        check_length(self._length)
        return start

    def heading(self, level: int, text: str) -> None:
        """Write a heading on a line of its own; level 0 is the title of all."""
        title = _LINES.sub(" ", clean(text)).strip()
        if title:
            start = self.add("#" * min(max(level, 1), _DEEPEST) + " " + title)
            self._headings.append(Heading(start, level, title[:_MOST_HEADING]))

    def code(self, text: str, language: str | None = None) -> None:
        """Write a block of code as it is, between fences."""
        text = text.strip("\r\n")
        if not text.strip():
            return
        longest = max((len(ticks) for ticks in _TICKS.findall(text)), default=2)
        fence = "`" * (longest + 1)
        start = self.add(f"{fence}{language or ''}\n{text}\n{fence}")
        self._code.append(Code(start, self._length, language))

    def row(self, cells: list[str], table: int) -> None:
        """Write a row of a table, the ``table``-th of the file, on one line."""
        flat = [_LINES.sub(" ", cell).strip() for cell in cells]
        if any(flat):
            self.add("| " + " | ".join(flat) + " |", f"table {table}")

    def reading(self) -> Reading:
        """Return the text and its places."""
        return Reading("".join(self._pieces), Layout(headings=self._headings, code=self._code))

    def _push(self, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)
