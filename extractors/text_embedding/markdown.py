"""Reading just enough Markdown to cut it: headings, fenced code, front matter. Linear in the length of the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from domain.json_types import Fields, Json

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\s`{]*)")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_UNDERLINE: Final = re.compile(r" {0,3}(={3,}|-{3,})[ \t]*$")
_FRONT_MATTER: Final = re.compile(r"---[ \t]*\r?\n[\w-]+[ \t]*:")
_FRONT_MATTER_END: Final = re.compile(r"^(?:---|\.\.\.)[ \t]*\r?$", re.MULTILINE)
_MOST_HEADING: Final = 200  # characters of a heading that a path repeats


@dataclass(frozen=True, slots=True)
class Section:
    """Characters [start, end), a section or a block of code, with the headings it stands under."""

    start: int
    end: int
    about: "Fields"


def sections(text: str) -> list[Section]:
    """Cut a text at its headings and around its fenced code; together the sections are the whole text."""
    reader = _Reader()
    body = _front_matter(text)
    for start, line in _lines(text):
        if start >= body:
            reader.read(start, line)
    return reader.finish(len(text))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line
        start += len(line)


def _front_matter(text: str) -> int:
    """Return where the body begins: 0 unless there is a block of ``key: value`` lines between dashes before it."""
    if not _FRONT_MATTER.match(text):
        return 0
    end = _FRONT_MATTER_END.search(text, 3)
    return end.end() if end else 0


class _Reader:
    """Where in the document we are, while it is read line by line."""

    def __init__(self) -> None:
        self._found: list[Section] = []
        self._path: list[tuple[int, str]] = []
        self._start = 0
        self._about: Fields = self._section()
        self._fence = ""
        self._previous = (0, "")

    def read(self, start: int, line: str) -> None:
        bare = line.rstrip()
        if self._fence:
            self._in_code(start, line, bare)
        elif fence := _FENCE.match(bare):
            self._close(start)
            self._fence = fence[1]
            self._about = {"chunk_kind": "code", "heading_path": self._headings(), "code_language": fence[2] or None}
        elif heading := _HEADING.match(bare):
            self._open(start, len(heading[1]), bare[heading.end() :].strip().rstrip("#").rstrip())
        elif (underline := _UNDERLINE.match(bare)) and self._is_title():
            self._open(self._previous[0], 1 if underline[1][0] == "=" else 2, self._previous[1].strip())
            bare = ""
        self._previous = (start, "" if self._fence or _HEADING.match(bare) else bare)

    def finish(self, end: int) -> list[Section]:
        self._close(end)
        return self._found

    def _in_code(self, start: int, line: str, bare: str) -> None:
        closing = bare.strip()
        if len(closing) >= len(self._fence) and set(closing) == {self._fence[0]}:
            self._close(start + len(line))
            self._fence = ""
            self._about = self._section()

    def _is_title(self) -> bool:
        """Say whether the line before is the text of an underlined heading, and no list, quote or table."""
        before = self._previous[1].strip()
        return bool(before) and before[0] not in "-*+>|<=" and self._previous[0] >= self._start

    def _open(self, start: int, level: int, title: str) -> None:
        self._close(start)
        self._path = [one for one in self._path if one[0] < level]
        self._path.append((level, title[:_MOST_HEADING]))
        self._about = self._section()

    def _close(self, end: int) -> None:
        if end > self._start:
            self._found.append(Section(self._start, end, self._about))
        self._start = end

    def _section(self) -> "Fields":
        return {"chunk_kind": "section", "heading_path": self._headings()}

    def _headings(self) -> "list[Json]":
        return [title for _, title in self._path]
