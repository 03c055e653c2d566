"""DOCX: paragraphs and tables in order, headings in any language, and what other readers pass over."""

import re
import zipfile

import docx
import pytest

from domain.errors import ObjectFailed
from extractors.reading import docx as reader
from extractors.reading import read
from tests.extractors.reading.samples import p, word, written_by_word, zipped


def failure(raw: bytes) -> ObjectFailed:
    with pytest.raises(ObjectFailed) as caught:
        read(raw)
    return caught.value


def style(identity: str, name: str, inner: str = "") -> str:
    return f'<w:style w:type="paragraph" w:styleId="{identity}"><w:name w:val="{name}"/>{inner}</w:style>'


def test_headings_paragraphs_tables_and_margins_come_in_order():
    def fill(document):
        document.add_heading("Report", 0)
        document.add_heading("Sales", 1)
        document.add_paragraph("Before the table.")
        table = document.add_table(2, 2)
        for cell, text in zip((c for row in table.rows for c in row.cells), ("Year", "Sum", "2026", "7"), strict=True):
            cell.text = text
        document.add_paragraph("After it.")
        document.add_heading("Europe", 2)
        document.add_paragraph("Flat.")
        document.sections[0].header.paragraphs[0].text = "Acme"
        document.sections[0].footer.paragraphs[0].text = "Confidential"

    found = read(written_by_word(fill))
    assert found.text == (
        "Acme\n\n# Report\n\n# Sales\n\nBefore the table.\n\n| Year | Sum |\n| 2026 | 7 |\n\nAfter it.\n\n"
        "## Europe\n\nFlat.\n\nConfidential"
    )
    assert [(one.level, one.title) for one in found.layout.headings] == [(0, "Report"), (1, "Sales"), (2, "Europe")]
    assert all(found.text[one.start :].lstrip("# ").startswith(one.title) for one in found.layout.headings)


@pytest.mark.parametrize(
    "styles",
    [
        style("berschrift2", "heading 2", '<w:pPr><w:outlineLvl w:val="1"/></w:pPr>'),
        style("berschrift2", "Überschrift 2"),
        style("berschrift2", "見出し 2"),
        style("berschrift2", "Заголовок 2"),
        style("Grund", "x", '<w:pPr><w:outlineLvl w:val="1"/></w:pPr>')
        + style("berschrift2", "Mine", '<w:basedOn w:val="Grund"/>'),
    ],
    ids=["outline level", "German", "Japanese", "Russian", "inherited"],
)
def test_headings_are_known_in_any_language_and_through_inheritance(styles):
    raw = word(p("Kapitel", '<w:pStyle w:val="berschrift2"/>') + p("Text"), styles=styles)
    [heading] = read(raw).layout.headings
    assert (heading.level, heading.title) == (2, "Kapitel")


def test_a_paragraph_may_be_a_heading_by_itself_or_be_none_in_spite_of_its_style():
    styles = style("h", "heading 1", '<w:pPr><w:outlineLvl w:val="0"/></w:pPr>')
    own = p("Own", '<w:outlineLvl w:val="2"/>')
    none = p("None", '<w:pStyle w:val="h"/><w:outlineLvl w:val="9"/>')
    assert [(one.level, one.title) for one in read(word(own + none, styles=styles)).layout.headings] == [(3, "Own")]


def test_styles_that_are_based_on_each_other_end():
    styles = style("a", "a", '<w:basedOn w:val="b"/>') + style("b", "b", '<w:basedOn w:val="a"/>')
    assert read(word(p("x", '<w:pStyle w:val="a"/>'), styles=styles)).layout.headings == []


HARD_TO_SEE = {
    "inserted as a tracked change": "<w:p><w:ins><w:r><w:t>seen</w:t></w:r></w:ins></w:p>",
    "in a content control": f"<w:sdt><w:sdtContent>{p('seen')}</w:sdtContent></w:sdt>",
    "in a field": "<w:p><w:fldSimple w:instr='REF'><w:r><w:t>seen</w:t></w:r></w:fldSimple></w:p>",
    "in a text box": f"<w:p><w:r><w:drawing><wps:txbx><w:txbxContent>{p('seen')}</w:txbxContent></wps:txbx>"
    "</w:drawing></w:r></w:p>",
    "in a formula": "<w:p><m:oMath><m:r><m:t>seen</m:t></m:r></m:oMath></w:p>",
    "in a row of a content control": "<w:tbl><w:tr><w:tc>" + p("x") + "</w:tc><w:tc>" + p("y") + "</w:tc></w:tr>"
    f"<w:sdt><w:sdtContent><w:tr><w:tc>{p('seen')}</w:tc><w:tc>{p('z')}</w:tc></w:tr></w:sdtContent></w:sdt></w:tbl>",
}


@pytest.mark.parametrize("body", HARD_TO_SEE.values(), ids=HARD_TO_SEE.keys())
def test_what_is_hard_to_see_is_read(body):
    assert "seen" in read(word(p("before") + body + p("after"))).text


def test_a_docx_library_passes_over_much_of_that():
    """Why this reader walks the XML itself. Should this fail one day, the library has become as good."""
    lost = []
    for name, body in HARD_TO_SEE.items():
        raw = word(p("before") + body, styles="")
        with zipfile.ZipFile(__import__("io").BytesIO(raw)) as archive:
            files = {one: archive.read(one).decode() for one in archive.namelist()}
        main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
        files["[Content_Types].xml"] = files["[Content_Types].xml"].replace(
            "/>",
            '><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
        document = docx.Document(__import__("io").BytesIO(zipped(files)))
        cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
        if "seen" not in "".join([*(one.text for one in document.paragraphs), *cells]):
            lost.append(name)
    assert len(lost) >= 4, lost


def test_what_was_deleted_or_hidden_is_not_read():
    gone = "<w:p><w:del><w:r><w:delText>no</w:delText></w:r></w:del><w:moveFrom><w:r><w:t>no</w:t></w:r></w:moveFrom>"
    gone += "<w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t></w:r><w:r><w:instrText>no</w:instrText></w:r></w:p>"
    assert read(word(p("a") + gone + p("b"))).text == "a\n\nb"


def test_one_of_two_forms_of_the_same_is_read():
    both = f"<mc:AlternateContent><mc:Choice>{p('new')}</mc:Choice><mc:Fallback>{p('old')}</mc:Fallback>"
    assert read(word(f"{p('x')}{both}</mc:AlternateContent>")).text == "x\n\nnew"


def test_notes_follow_the_paragraph_that_refers_to_them():
    body = '<w:p><w:r><w:t>Claim</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>' + p("Next")
    notes = (
        f'<w:footnote w:type="separator" w:id="-1">{p("no")}</w:footnote><w:footnote w:id="2">{p("Proof")}</w:footnote>'
    )
    assert read(word(body, footnotes=notes)).text == "Claim[^1]\n\n[^1]: Proof\n\nNext"


def test_lists_are_indented_and_line_breaks_and_tabs_stay():
    items = p("one", "<w:numPr/>") + p("two", '<w:numPr><w:ilvl w:val="1"/></w:numPr>')
    broken = "<w:p><w:r><w:t>a</w:t><w:br/><w:t>b</w:t><w:tab/><w:t>c</w:t></w:r></w:p>"
    assert read(word(items + broken)).text == "- one\n  - two\n\na\nb\tc"


def test_a_table_of_one_column_or_with_headings_gives_blocks():
    box = f"<w:tbl><w:tr><w:tc>{p('one')}{p('two')}</w:tc></w:tr></w:tbl>"
    assert read(word(box)).text == "one\n\ntwo"


def test_a_file_with_a_document_type_is_refused_whatever_it_defines():
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    xml = f'{bomb}<w:document xmlns:w="http://x"><w:body><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:body></w:document>'
    assert failure(zipped({"word/document.xml": xml})).code == "DOCX_BROKEN"


def test_an_entity_never_reads_a_file(tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    xml = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file://{tmp_path}/secret">]><w:document xmlns:w="http://x">&a;</w:document>'
    found = failure(zipped({"word/document.xml": xml}))
    assert "hunter2" not in found.message


def test_a_part_that_unpacks_to_more_than_is_read_is_refused_before_it_is_unpacked():
    raw = zipped({"word/document.xml": b" " * (reader.MOST_UNPACKED + 1)})
    assert len(raw) < 100_000
    assert failure(raw).code == "TOO_LARGE"


def test_a_size_that_is_a_lie_is_found_out():
    raw = bytearray(word(p("x" * 10_000)))
    place = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"word/document.xml"))
    raw[place + 24 : place + 28] = (10).to_bytes(4, "little")
    assert failure(bytes(raw)).code == "DOCX_BROKEN"


def test_too_many_parts_are_refused(monkeypatch):
    monkeypatch.setattr(reader, "MOST_PARTS", 3)
    assert failure(word(p("x"))).code == "TOO_LARGE"


def test_notes_that_refer_to_themselves_end():
    body = '<w:p><w:r><w:t>x</w:t><w:footnoteReference w:id="2"/></w:r></w:p>'
    assert failure(word(body, footnotes=f'<w:footnote w:id="2">{body}</w:footnote>')).code == "DOCX_BROKEN"


@pytest.mark.parametrize(
    "raw",
    [
        word(p("whole"))[:200],
        b"PK\x03\x04" + b"word/document.xml" + b"garbage" * 100,
        zipped({"word/document.xml": "<unclosed"}),
        zipped({"word/other.xml": "<x/>", "x/word/document": ""}),
    ],
    ids=["truncated", "garbage", "broken XML", "no document"],
)
def test_a_broken_file_is_called_broken(raw):
    assert failure(raw).code == "DOCX_BROKEN"


def test_a_document_without_text_says_so():
    assert failure(written_by_word(lambda document: None)).code == "DOCX_WITHOUT_TEXT"


def test_a_document_inside_the_document_fails_it_as_its_text_would_be_left_out():
    found = failure(word(p("Cover") + '<w:altChunk xmlns:r="http://r" r:id="r1"/>'))
    assert found.code == "DOCX_EMBEDS"
    assert "save it again" in found.message


def test_parts_with_a_password_say_so():
    raw = bytearray(word(p("x")))
    for place in (found.start() for found in re.finditer(b"PK\x01\x02", bytes(raw))):
        raw[place + 8] |= 1
    assert failure(bytes(raw)).code == "DOCX_ENCRYPTED"


def test_elements_nested_without_end_are_refused():
    deep = "<w:sdt><w:sdtContent>" * 5_000 + p("x") + "</w:sdtContent></w:sdt>" * 5_000
    assert failure(word(deep)).code == "DOCX_BROKEN"


def test_notes_that_double_with_every_step_are_refused(monkeypatch):
    monkeypatch.setattr("extractors.reading.layout.MOST_CHARACTERS", 10_000)
    twice = '<w:footnoteReference w:id="{0}"/><w:footnoteReference w:id="{0}"/>'
    notes = "".join(
        f'<w:footnote w:id="{number}"><w:p><w:r><w:t>note</w:t>{twice.format(number + 1)}</w:r></w:p></w:footnote>'
        for number in range(1, 40)
    )
    assert failure(word(f"<w:p><w:r>{twice.format(1)}</w:r></w:p>", footnotes=notes)).code == "TOO_LARGE"


def test_nothing_outside_the_file_is_read(tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    inclusion = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{tmp_path}/secret" parse="text"/>'
    assert read(word(inclusion + p("x"))).text == "x"
    # The tests allow no connection; a document at an address is none that is there.
    for away in (f'"../../../../../../../..{tmp_path}/secret"', '"http://127.0.0.1:1/x.xml" TargetMode="External"'):
        main = f'<Relationships><Relationship Type="x/officeDocument" Target={away}/></Relationships>'
        assert failure(zipped({"_rels/.rels": main, "word/other.xml": "<x/>"})).code == "DOCX_BROKEN"
