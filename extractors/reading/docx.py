"""DOCX: Word's own XML, paragraphs and tables in the order of the document, headings as Markdown.

Read without a DOCX library: those pass over what is inserted as a tracked change, stands in a content control or a
text box, or at the foot of a page (docs/documents.md). Elements are known by their local names, as the two dialects of
the format (transitional and strict) differ in namespaces alone.

Left out: deleted text, comments, hidden text, field codes, charts and diagrams, and the numbers that Word makes for
lists and headings. A document with another document inside fails, as that would be left out, too.
"""

import io
import itertools
import posixpath
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lxml import etree

from domain.errors import ObjectFailed
from extractors.reading.blocks import Blocks
from extractors.reading.layout import SAVE_AGAIN, Reading

MOST_PARTS: Final = 10_000  # files in the ZIP
MOST_UNPACKED: Final = 64 * 1024 * 1024  # bytes of XML that are read, all parts together
_LOWEST: Final = 9
_NOTES: Final = {"footnoteReference": "footnotes", "endnoteReference": "endnotes"}
# What Word calls its headings where a file names them but says no outline level: other programs write such files.
_HEADING_NAME: Final = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|rubrik|overskrift|otsikko|nagłówek|nadpis|címsor|ba\u015fl\u0131k|"
    r"заголовок|επικεφαλίδα|見出し|标题|標題|제목|cabeçalho|encabezado)\s?([1-9])",
    re.IGNORECASE,
)
_TITLE_NAMES: Final = frozenset({"title"})
_SKIPPED: Final = frozenset(
    {
        *("pPr", "rPr", "tblPr", "trPr", "tcPr", "tblGrid", "sectPr", "sdtPr", "sdtEndPr", "rubyPr", "fldChar"),
        *("del", "moveFrom", "instrText", "delText", "delInstrText", "commentReference"),
    }
)
_CHARACTERS: Final = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "\u2011"}


def read(raw: bytes, _content_type: str = "") -> Reading:
    """Return the text, with the places of headings.

    Raises:
        ObjectFailed: DOCX_BROKEN, DOCX_ENCRYPTED, DOCX_EMBEDS, DOCX_WITHOUT_TEXT, TOO_LARGE.
    """
    package = _Package(raw)
    main = package.main
    if main is None:
        raise ObjectFailed(f"The DOCX is broken: it holds no document. {SAVE_AGAIN}", code="DOCX_BROKEN")
    blocks = Blocks()
    writer = _Writer(blocks, _styles(package), {kind: _notes(package, kind) for kind in _NOTES.values()})
    _margins(package, "header", writer)
    writer.blocks(main)
    _margins(package, "footer", writer)
    reading = blocks.reading()
    if not reading.text.strip():
        message = "The DOCX has no text, perhaps pictures; text in pictures is not recognised here. Run it through OCR."
        raise ObjectFailed(message, code="DOCX_WITHOUT_TEXT")
    return reading


class _Package:
    """The parts of the ZIP, unpacked when asked for, and never more of them than the limit."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(raw))
        except zipfile.BadZipFile as error:
            message = f"The DOCX is broken or incomplete: {error}. Upload it again."
            raise ObjectFailed(message, code="DOCX_BROKEN") from error
        if len(self._zip.filelist) > MOST_PARTS:
            raise ObjectFailed(f"The DOCX has more than {MOST_PARTS:,} parts. Split it.", code="TOO_LARGE")
        self._left = MOST_UNPACKED
        roots = self._relations("")
        self._path = next((path for kind, path in roots if kind == "officeDocument"), "word/document.xml")
        self.related = self._relations(self._path)
        self.main = self.xml(self._path)

    def parts(self, kind: str) -> Iterator[Any]:
        """Yield the roots of parts that the document refers to as ``kind``."""
        for found, path in self.related:
            if found == kind and (root := self.xml(path)) is not None:
                yield root

    def xml(self, path: str) -> Any:
        """Return the root element of a part, or None where there is none."""
        try:
            info = self._zip.getinfo(path)
        except KeyError:
            return None
        if info.flag_bits & 1:
            message = "The DOCX is protected by a password. Save it without one, and upload it again."
            raise ObjectFailed(message, code="DOCX_ENCRYPTED")
        # A ZIP may lie about a size; then zipfile stops at what was told, and finds the checksum wrong.
        self._left -= info.file_size
        if self._left < 0:
            message = f"The DOCX is larger unpacked than the {MOST_UNPACKED:,} bytes that are read. Split it."
            raise ObjectFailed(message, code="TOO_LARGE")
        parser = etree.XMLParser(
            resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True, remove_pis=True
        )
        root = etree.fromstring(self._zip.read(info), parser)
        if root.getroottree().docinfo.doctype:
            # No program writes one; it could only define entities that multiply.
            message = f"The DOCX is broken: its XML has a document type declaration. {SAVE_AGAIN}"
            raise ObjectFailed(message, code="DOCX_BROKEN")
        return root

    def _relations(self, path: str) -> list[tuple[str, str]]:
        folder, name = posixpath.split(path)
        root = self.xml(posixpath.join(folder, "_rels", f"{name}.rels"))
        return [
            (
                one.get("Type", "").rsplit("/", 1)[-1],
                posixpath.normpath(posixpath.join("/", folder, one.get("Target", ""))).lstrip("/"),
            )
            for one in (() if root is None else root)
            if isinstance(one.tag, str) and one.get("TargetMode") != "External"
        ]


def _name(element: Any) -> str:
    """Return an element's name without its namespace; empty for what is no element."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _value(element: Any, name: str = "val") -> str | None:
    """Return an attribute, whatever its namespace."""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def _child(element: Any, *names: str) -> Any:
    """Return the first child of that name, its first child of the next name, and so on; or None."""
    for name in names:
        if element is None:
            return None
        element = next((one for one in element if _name(one) == name), None)
    return element


def _is_on(properties: Any, name: str) -> bool:
    switch = _child(properties, name) if properties is not None else None
    return switch is not None and (_value(switch) or "true").lower() not in {"false", "0", "off"}


def _styles(package: _Package) -> dict[str, int]:
    """Return the heading level of each style that is one: by its outline level, its own or inherited, or its name."""
    levels: dict[str, int] = {}
    above: dict[str, str] = {}
    for root in package.parts("styles"):
        for style in root:
            identity = _value(style, "styleId")
            if _name(style) != "style" or identity is None:
                continue
            name = (_value(_child(style, "name")) or "" if _child(style, "name") is not None else "").strip()
            outline = _outline(_child(style, "pPr"))
            named = _HEADING_NAME.fullmatch(name)
            if name.lower() in _TITLE_NAMES:
                levels[identity] = 0
            elif outline is not None:
                levels[identity] = outline
            elif named:
                levels[identity] = int(named[1])
            based = _child(style, "basedOn")
            above[identity] = (_value(based) or "") if based is not None else ""
    return {identity: level for identity in above if (level := _inherited(identity, levels, above)) is not None}


def _inherited(identity: str, levels: Mapping[str, int], above: Mapping[str, str]) -> int | None:
    seen: set[str] = set()
    while identity in above and identity not in seen:  # a style may be based on itself, in a broken file
        if identity in levels:
            level = levels[identity]
            return level if level <= _LOWEST else None
        seen.add(identity)
        identity = above[identity]
    return None


def _outline(properties: Any) -> int | None:
    """Return an outline level as headings count, from 1; 10 is Word's word for body text."""
    element = _child(properties, "outlineLvl") if properties is not None else None
    value = _value(element) if element is not None else None
    return int(value) + 1 if value is not None and value.isdecimal() and len(value) == 1 else None


def _notes(package: _Package, kind: str) -> dict[str, Any]:
    """Return note id → note. Ids below 1 are the lines that part notes from the text."""
    return {
        str(_value(note, "id")): note
        for root in package.parts(kind)
        for note in root
        if _value(note, "type") in {None, "normal"}
    }


def _margins(package: _Package, kind: str, writer: "_Writer") -> None:
    """Write headers or footers, each of them once however many sections repeat it."""
    seen: set[str] = set()
    for root in package.parts(kind):
        text = writer.flat(root)
        if text not in seen:
            seen.add(text)
            writer.blocks(root)


class _Writer:
    """Turns Word's elements into blocks of text."""

    def __init__(
        self,
        blocks: Blocks,
        styles: Mapping[str, int],
        notes: Mapping[str, Mapping[str, Any]],
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._blocks = blocks
        self._styles = styles
        self._notes = notes
        self._numbers = numbers or itertools.count(1)
        self._tables = 0

    def blocks(self, container: Any) -> None:
        """Write the paragraphs and tables in an element, in order."""
        for element in container:
            name = _name(element)
            if name == "p":
                self._paragraph(element)
            elif name == "tbl":
                self._table(element)
            elif name == "AlternateContent":
                self.blocks(_chosen(element))
            elif name == "altChunk":
                message = "The DOCX has another document inside. Open it in Word, which merges them, and save it again."
                raise ObjectFailed(message, code="DOCX_EMBEDS")
            elif name and name not in _SKIPPED:
                self.blocks(element)

    def flat(self, container: Any) -> str:
        """Return what an element holds on one line, without headings."""
        inner = Blocks()
        _Writer(inner, {}, self._notes, self._numbers).blocks(container)
        return " ".join(inner.reading().text.split("\n")).strip()

    def _paragraph(self, element: Any) -> None:
        inline = _Inline(element, self._numbers)
        level = self._level(element)
        if level is not None:
            self._blocks.heading(level, inline.text)
        elif _child(element, "pPr", "numPr") is not None and inline.text.strip():
            depth = _child(element, "pPr", "numPr", "ilvl")
            indent = int(_value(depth) or 0) if depth is not None and (_value(depth) or "0").isdecimal() else 0
            self._blocks.add("  " * min(indent, _LOWEST) + "- " + inline.text.strip("\n"), "list")
        else:
            self._blocks.add(inline.text.strip("\n"))
        for box in inline.boxes:
            self.blocks(box)
        for number, kind, identity in inline.notes:
            note = self._notes.get(kind, {}).get(identity)
            if note is not None:
                self._blocks.add(f"[^{number}]: {self.flat(note)}", "notes")

    def _level(self, paragraph: Any) -> int | None:
        properties = _child(paragraph, "pPr")
        if properties is None:
            return None
        own = _outline(properties)
        if own is not None:
            return own if own <= _LOWEST else None
        style = _child(properties, "pStyle")
        return self._styles.get(_value(style) or "") if style is not None else None

    def _table(self, table: Any) -> None:
        rows = [list(_inside(row, "tc")) for row in _inside(table, "tr")]
        if all(len(row) <= 1 for row in rows) or self._arranges(table):
            for cell in (cell for row in rows for cell in row):
                self.blocks(cell)
            return
        self._tables += 1
        for row in rows:
            self._blocks.row([self.flat(cell) for cell in row], self._tables)

    def _arranges(self, table: Any) -> bool:
        """Say whether a table holds headings or tables: it arranges a page, and rows would lose them."""
        return any(
            (_name(one) == "p" and self._level(one) is not None) or (_name(one) == "tbl" and one is not table)
            for one in table.iter()
        )


class _Inline:
    """The text of one paragraph, and what hangs on it."""

    def __init__(self, paragraph: Any, numbers: Iterator[int]) -> None:
        self.boxes: list[Any] = []
        self.notes: list[tuple[int, str, str]] = []
        self._numbers = numbers
        self._pieces: list[str] = []
        self._collect(paragraph)
        self.text = "".join(self._pieces)

    def _collect(self, container: Any) -> None:  # noqa: C901 - one branch per kind of element
        for element in container:
            name = _name(element)
            if name == "t":
                self._pieces.append(element.text or "")
            elif name in _CHARACTERS:
                self._pieces.append(_CHARACTERS[name])
            elif name == "sym":
                self._pieces.append(_symbol(element))
            elif name in _NOTES:
                self._note(element, _NOTES[name])
            elif name == "AlternateContent":
                self._collect(_chosen(element))
            elif name == "txbxContent":
                self.boxes.append(element)
            elif name == "r" and _is_on(_child(element, "rPr"), "vanish"):
                continue
            elif name == "ruby":
                self._ruby(element)
            elif name and name not in _SKIPPED:
                self._collect(element)

    def _note(self, element: Any, kind: str) -> None:
        number = next(self._numbers)
        self.notes.append((number, kind, str(_value(element, "id"))))
        self._pieces.append(f"[^{number}]")

    def _ruby(self, element: Any) -> None:
        """Write the base first and its reading after it, as one reads them; the file has them the other way round."""
        for name, before, after in (("rubyBase", "", ""), ("rt", "(", ")")):
            part = _child(element, name)
            if part is not None:
                self._pieces.append(before)
                self._collect(part)
                self._pieces.append(after)


def _chosen(alternatives: Any) -> Any:
    """Return the one of several forms that a new Word shows: they say the same thing more than once."""
    found = _child(alternatives, "Choice")
    if found is None:
        found = _child(alternatives, "Fallback")
    return () if found is None else found


def _symbol(element: Any) -> str:
    try:
        code = int(_value(element, "char") or "", 16)
    except ValueError:
        return ""
    return chr(code) if 0x20 <= code < 0xD800 else ""  # noqa: PLR2004 - above are places in symbol fonts, no characters


def _inside(container: Any, wanted: str) -> Iterator[Any]:
    """Yield rows of a table or cells of a row, those in content controls and insertions, too."""
    for element in container:
        name = _name(element)
        if name == wanted:
            yield element
        elif name in {"sdt", "sdtContent", "ins", "customXml", "moveTo"}:
            yield from _inside(element, wanted)
