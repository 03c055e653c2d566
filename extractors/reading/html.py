"""HTML: everything that a reader of the page sees, in the order of the page, as Markdown.

Deliberately no extractor of "main content": those guess, and lose what they guess wrong (docs/documents.md). What is
left out is what a browser does not show: scripts, styles, templates, comments, hidden elements.
"""

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from lxml import etree

from domain.errors import ObjectFailed
from extractors.reading.blocks import Blocks
from extractors.reading.layout import SAVE_AGAIN, Reading

# The last is no mark: the first character of a page is < or white space, and a zero beside it tells UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x00", "utf-16-be"),
)
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_META: Final = re.compile(
    rb"(?:<meta[^>]{0,300}?charset|<\?xml[^>]{0,100}?encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE
)
_META_WITHIN: Final = 4_096
# Pages name the smaller of two sets and use the larger, and browsers go by that (encoding.spec.whatwg.org).
_AS_BROWSERS_DO: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# A page cannot name the first two in ASCII; the others are no character sets, and slow or not to be trusted.
_NEVER_NAMED: Final = ("utf-16", "utf-32", "utf-7", "punycode", "idna", "unicode", "raw-unicode", "undefined")
_NOT_WESTERN: Final = re.compile(rb"[\xa1-\xff]{4}")  # no Western word has so many letters with accents in a row
_SPACES: Final = re.compile(r"[ \t\n\r\f\v]+")
_AROUND_BREAKS: Final = re.compile(r" *\n *")
_INVISIBLE: Final = re.compile(r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_LANGUAGE: Final = re.compile(r"(?:^|\s)(?:language|lang|highlight)-([\w+#.-]{1,30})")
_BREAK: Final = "\x01"  # a line break among white space that will be collapsed; not a character that HTML may have
_NEVER_SHOWN: Final = frozenset(
    [
        "script",
        "style",
        "template",
        "noscript",
        "head",
        "title",
        "iframe",
        "object",
        "embed",
        "video",
        "audio",
        "canvas",
        "datalist",
        "annotation",
        "annotation-xml",
        "defs",
        "metadata",
        "param",
        "source",
        "track",
    ]
)
_INLINE: Final = frozenset(
    [
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "input",
        "ins",
        "kbd",
        "label",
        "mark",
        "meter",
        "nobr",
        "output",
        "picture",
        "progress",
        "q",
        "rp",
        "rb",
        "rt",
        "rtc",
        "ruby",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
        "br",
        "svg",
        "math",
        "mi",
        "mn",
        "mo",
        "ms",
        "mtext",
        "mrow",
        "msub",
        "msup",
        "msubsup",
        "mfrac",
        "msqrt",
        "mroot",
        "mstyle",
        "mover",
        "munder",
        "semantics",
        "tspan",
    ]
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_MAKES_LAYOUT: Final = ("h1", "h2", "h3", "h4", "h5", "h6", "table", "pre")
_SHOWN_INPUTS: Final = frozenset({"", "text", "search", "email", "url", "tel", "number", "date", "submit", "button"})


def read(raw: bytes, content_type: str = "") -> Reading:
    """Return the visible text, with the places of headings and code.

    Raises:
        ObjectFailed: NOT_UTF8, HTML_BROKEN, HTML_WITHOUT_TEXT, TOO_LARGE.
    """
    root = _parse(_decoded(raw, content_type))
    blocks = Blocks()
    if root is not None:
        title = _title(root)
        if title:
            blocks.heading(1, title)
        # Where a page goes on after its end, the parser begins another.
        for page in (root, *root.itersiblings()):
            _Walk(page, blocks).go()
    reading = blocks.reading()
    if not reading.text.strip():
        message = "The HTML page has no text: what it shows is made by scripts, or pictures. Save it as it is shown."
        raise ObjectFailed(message, code="HTML_WITHOUT_TEXT")
    return reading


def _decoded(raw: bytes, content_type: str) -> str:
    """Decode a page, without a replacement character where bytes are wrong: the rest would be wrong, too."""
    names = _names(raw, content_type)
    for name in names:
        with suppress(UnicodeDecodeError):
            return raw.decode(name)
    name = names[0].upper().removesuffix("-SIG")
    message = f"The characters of the HTML page cannot be read as {name}. Save it as UTF-8, and upload that."
    raise ObjectFailed(message, code="NOT_UTF8")


def _names(raw: bytes, content_type: str) -> list[str]:
    """Return what to decode by: what the first bytes say, or the header and the page, or a guess where it is safe."""
    for mark, name in _MARKS:
        if raw.startswith(mark):
            return [name]
    if raw[1:2] == b"\x00":
        return ["utf-16-le"]
    told = list(_told(raw, content_type))
    if told:
        return [*told, "utf-8"]
    return ["utf-8"] if _NOT_WESTERN.search(raw) else ["utf-8", "cp1252"]


def _told(raw: bytes, content_type: str) -> Iterator[str]:
    """Yield what header and page say they are written in, as far as it is known."""
    for found in (_CHARSET.search(content_type), _META.search(raw[:_META_WITHIN])):
        name = "" if found is None else found[1] if isinstance(found[1], str) else found[1].decode("ascii", "replace")
        with suppress(LookupError):
            known = codecs.lookup(name).name
            if not known.startswith(_NEVER_NAMED):
                yield _AS_BROWSERS_DO.get(known, known)


def _parse(text: str) -> Any:
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, no_network=True, huge_tree=True)
    shown = text.replace("\x00", "").replace(_BREAK, "").encode("utf-8", "replace")
    if not shown.strip():
        return None
    try:
        root = etree.fromstring(shown, parser)
    except etree.XMLSyntaxError as error:
        if error.code == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        raise
    fatal = parser.error_log.filter_from_fatals()
    if fatal:  # the parser stops there, and what follows would be lost without a word
        why = fatal[0].message.partition(", use XML")[0][:200]  # the rest is for programmers
        raise ObjectFailed(f"The HTML page cannot be read to its end: {why}. {SAVE_AGAIN}", code="HTML_BROKEN")
    return root


def _title(root: Any) -> str | None:
    """Return the title of a page whose body has no heading of the first rank, and would have no name otherwise."""
    found = root.find("head/title")
    if found is None or root.find(".//h1") is not None:
        return None
    return _SPACES.sub(" ", "".join(found.itertext())).strip()


class _Walk:
    """Where in the page we are, while it is read from its beginning to its end."""

    def __init__(self, root: Any, blocks: Blocks) -> None:
        self._root = root
        self._blocks = blocks
        self._inline: list[str] = []
        self._heading = 0  # the level of the heading we are in
        self._pre = 0
        self._language: str | None = None
        self._lists: list[int | None] = []  # for each list around us: the next number, None for bullets
        self._mark = ""  # of a list item that has not shown any text yet
        self._tables = 0
        self._rows: list[list[list[str]]] = []  # for each table around us: cells of the row, each a list of blocks
        # Tables that hold headings, code or tables arrange a page; as rows they would lose those.
        self._arranging: set[Any] = set()
        for element in root.iter(*_MAKES_LAYOUT):
            for table in element.iterancestors("table"):
                if table in self._arranging:
                    break
                self._arranging.add(table)

    def go(self) -> None:
        walk = etree.iterwalk(self._root, events=("start", "end"))
        hidden: Any = None
        for event, element in walk:
            tag = element.tag if isinstance(element.tag, str) else ""
            if event == "start":
                if _is_hidden(element, tag):
                    hidden = element
                    walk.skip_subtree()
                    continue
                self._enter(element, tag)
                self._text(element.text)
                continue
            if element is hidden:
                hidden = None
                if tag not in _INLINE and tag not in _NEVER_SHOWN:
                    self._inline.append(" ")
            else:
                self._leave(tag)
            self._text(element.tail)
        self._flush()

    def _text(self, text: str | None) -> None:
        if text:
            self._inline.append(text)

    def _enter(self, element: Any, tag: str) -> None:  # noqa: C901 - one branch per kind of element
        if tag == "br":
            self._inline.append("\n" if self._pre else _BREAK)
        elif tag == "img":
            self._text(f" {element.get('alt') or ''} ")
        elif tag == "input" and (element.get("type") or "").lower() in _SHOWN_INPUTS:
            self._text(f" {element.get('value') or ''} ")
        elif tag == "code" and self._pre:
            self._language = self._language or _language(element)
        if tag in _INLINE or self._heading or self._pre:
            self._between(tag)
            return
        self._flush()
        if tag in _HEADINGS and not self._rows:
            self._heading = _HEADINGS[tag]
        elif tag == "pre":
            self._pre += 1
            self._language = _language(element)
        elif tag in {"ul", "ol", "menu"}:
            self._lists.append(_first_number(element) if tag == "ol" else None)
        elif tag == "li":
            self._mark = self._next_mark()
        elif tag == "table" and element not in self._arranging:
            self._rows.append([])
            self._tables += 1
        elif tag == "tr" and self._rows:
            self._end_row()
        elif tag in {"td", "th"} and self._rows:
            self._rows[-1].append([])

    def _leave(self, tag: str) -> None:
        if tag == "pre" and self._pre:
            self._end_code()
        elif tag in _HEADINGS and self._heading:
            self._blocks.heading(self._heading, self._collapsed().replace("\n", " "))
            self._heading = 0
        elif tag in _INLINE or self._heading or self._pre:
            self._between(tag)
        else:
            self._flush()
            if tag in {"ul", "ol", "menu"} and self._lists:
                self._lists.pop()
            elif tag == "li":
                self._mark = ""
            elif tag == "tr" and self._rows:
                self._end_row()
            elif tag == "table" and self._rows:
                self._end_row()
                self._rows.pop()

    def _between(self, tag: str) -> None:
        """Part the words of blocks within a heading, where no block can begin."""
        if tag not in _INLINE and not self._pre:
            self._inline.append(" ")

    def _flush(self) -> None:
        text = self._collapsed()
        if not text.strip():
            return
        if self._rows and self._rows[-1]:
            self._rows[-1][-1].append(self._mark + text)
        elif self._lists:
            indent = "  " * (len(self._lists) - 1)
            self._blocks.add(indent + (self._mark or "  ") + text.replace("\n", f"\n{indent}  "), "list")
        else:
            self._blocks.add(self._mark + text, "list" if self._mark else "")
        self._mark = ""

    def _collapsed(self) -> str:
        text = _SPACES.sub(" ", "".join(self._inline)).replace(_BREAK, "\n")
        self._inline = []
        return _AROUND_BREAKS.sub("\n", text).strip(" \n")

    def _end_code(self) -> None:
        text, self._inline, self._pre = "".join(self._inline), [], 0
        if self._rows and self._rows[-1]:
            self._rows[-1][-1].append(text.strip())
        else:
            self._blocks.code(text.expandtabs(), self._language)
        self._language, self._mark = None, ""

    def _end_row(self) -> None:
        self._blocks.row([" ".join(cell) for cell in self._rows[-1]], self._tables)
        self._rows[-1] = []

    def _next_mark(self) -> str:
        if not self._lists or self._lists[-1] is None:
            return "- "
        self._lists[-1] += 1
        return f"{self._lists[-1] - 1}. "


def _is_hidden(element: Any, tag: str) -> bool:
    if tag in _NEVER_SHOWN or (tag == "dialog" and element.get("open") is None):
        return True
    if element.get("hidden") is not None:
        return True
    style = element.get("style")
    return style is not None and _INVISIBLE.search(style) is not None


def _language(element: Any) -> str | None:
    found = _LANGUAGE.search(element.get("class") or "")
    return found[1] if found else None


def _first_number(element: Any) -> int:
    given = element.get("start") or "1"
    return int(given) if given.isdecimal() and len(given) < 9 else 1  # noqa: PLR2004 - no longer than a number
