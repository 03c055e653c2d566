"""What a file is taken for, and that nothing but text or a reason ever comes out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import ObjectFailed
from extractors.reading import Reading, read
from extractors.reading.formats import DOCX_TYPE, recognise
from extractors.reading.layout import Code, Heading, Layout, Page, from_plain, join, to_plain
from tests.extractors.reading.samples import p, pdf, word, zipped

PDF, DOCX = pdf("A page."), word(p("A paragraph."))
HTML = b"<!DOCTYPE html><p>A page."


@pytest.mark.parametrize(
    ("raw", "declared", "content_type", "found"),
    [
        (PDF, "text", "text/plain", "pdf"),
        (PDF, "pdf", "", "pdf"),
        (b"\n" + PDF, "text", "application/octet-stream", "pdf"),
        (b"\x00\x01" + PDF, "text", "", "pdf"),
        (b"nothing of the kind", "pdf", "", "pdf"),
        (b"nothing of the kind", "text", "application/pdf", "pdf"),
        (DOCX, "text", "", "docx"),
        (DOCX, "pdf", "application/pdf", "docx"),
        (b"garbage", "text", DOCX_TYPE, "docx"),
        (HTML, "text", "text/plain", "html"),
        (b"  \n<?xml version='1.0'?>\n<!-- a -->\n<HTML lang=en>", "text", "", "html"),
        ("<html>".encode("utf-16"), "text", "", "html"),
        (b"<p>a piece", "text", "text/html; charset=utf-8", "html"),
        (HTML, "pdf", "", "html"),
        (b"<p>a piece", "text", "", "text"),
        (b"<htmlx>", "text", "", "text"),
        (b"# Markdown on %PDF-1.7", "text", "text/markdown", "text"),
        (b"ID3 is a tag of music, GIF89a one of pictures.", "text", "", "text"),
        (b"MM" + "ü".encode() * 3_000, "text", "", "text"),
        (b"", "text", "", "text"),
    ],
)
def test_the_bytes_decide_and_where_they_leave_a_doubt_the_declared_type(raw, declared, content_type, found):
    assert recognise(raw, declared, content_type) == found


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "UNSUPPORTED_FORMAT"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", "UNSUPPORTED_FORMAT"),
        (b"{\\rtf1\\ansi text}", "UNSUPPORTED_FORMAT"),
        (zipped({"xl/workbook.xml": "<x/>"}), "UNSUPPORTED_FORMAT"),
        (zipped({"any.txt": "x"}), "UNSUPPORTED_FORMAT"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, "UNSUPPORTED_FORMAT"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "DOCX_ENCRYPTED"),
        (b"\x00\xff\xfe\x80 unknown", "NOT_UTF8"),
        (b"", "EMPTY_TEXT"),
    ],
)
def test_what_cannot_be_read_is_named(raw, code):
    with pytest.raises(ObjectFailed) as caught:
        read(raw)
    assert caught.value.code == code


def test_text_is_read_as_utf8_and_as_utf16_that_says_so():
    assert read("\ufeffGrüße".encode()) == Reading("Grüße")
    assert read("Grüße".encode("utf-16")) == Reading("Grüße")


def test_line_ends_stay_as_they_are_for_positions_to_be_those_of_the_file():
    assert read(b"a\r\n\r\nb\rc\n").text == "a\r\n\r\nb\rc\n"


@pytest.mark.parametrize(
    "raw",
    [
        "Привет, мир".encode("utf-16-le"),
        "Hello, world".encode("utf-16-be"),
        "Hello, world".encode("utf-32"),
        bytes(range(32)) * 100,
        b"\x00\x00\x00\x20ftypisom" + b"\x00" * 30,
        "\ufeffHello".encode("utf-16-le") + b"x",
        "Grüße".encode("latin-1"),
        "こんにちは".encode("shift_jis"),
    ],
    ids=["UTF-16", "UTF-16 the other way", "UTF-32", "controls", "a film", "half a character", "Latin-1", "Shift JIS"],
)
def test_bytes_that_are_utf8_by_accident_or_not_at_all_are_no_text(raw):
    with pytest.raises(ObjectFailed) as caught:
        read(raw)
    assert caught.value.code == "NOT_UTF8"
    assert "Convert it" in caught.value.message


def test_a_zero_and_a_control_character_do_not_make_a_text_binary():
    assert read(b"Page one\x0cPage two, with a zero\x00 and \x1b[1mbold\x1b[0m").text.count("\x00") == 0


def test_plain_text_is_as_long_as_any_other_text_at_most(monkeypatch):
    monkeypatch.setattr("extractors.reading.layout.MOST_CHARACTERS", 10)
    assert read(b"ten chars.").text == "ten chars."
    with pytest.raises(ObjectFailed) as caught:
        read(b"eleven char")
    assert caught.value.code == "TOO_LARGE"


@pytest.mark.parametrize("raw", [b"text", HTML, PDF, DOCX], ids=["text", "html", "pdf", "docx"])
def test_a_file_of_more_bytes_than_are_read_is_refused_whatever_it_is(raw, monkeypatch):
    monkeypatch.setattr("extractors.reading.MOST_BYTES", len(raw) - 1)
    with pytest.raises(ObjectFailed) as caught:
        read(raw)
    assert caught.value.code == "TOO_LARGE"
    assert "Split it" in caught.value.message


def attempt(raw: bytes, declared: str, content_type: str) -> None:
    failed: ObjectFailed | None = None
    try:
        found = read(raw, declared, content_type)
    except ObjectFailed as error:
        failed = error
    if failed:
        assert failed.code != "EXTRACTION_FAILED"
        assert failed.message
        return
    found.text.encode()  # no halves of surrogate pairs
    assert "\x00" not in found.text
    layout = found.layout or Layout()
    for places in (layout.pages, layout.headings, layout.code):
        starts = [one.start for one in places]
        assert starts == sorted(starts)
        assert all(0 <= start <= len(found.text) for start in starts)
    assert from_plain(to_plain(found)) == found


MAGICS = [
    b"",
    b"%PDF-1.7\n",
    b"PK\x03\x04word/document.xml",
    b"<html>",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    b"\xff\xfe",
]
TYPES = ["", "text/html", "application/pdf", DOCX_TYPE, "text/html; charset=utf-7", "text/plain; charset=\x00"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAGICS), st.binary(max_size=300), st.sampled_from(["text", "pdf"]), st.sampled_from(TYPES))
def test_any_bytes_end_in_text_or_in_a_reason(magic, rest, declared, content_type):
    attempt(magic + rest, declared, content_type)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PDF, DOCX, HTML]), st.data())
def test_any_damage_to_a_good_file_ends_in_text_or_in_a_reason(raw, data):
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(damaged)))
        damaged[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    attempt(bytes(damaged), data.draw(st.sampled_from(["text", "pdf"])), data.draw(st.sampled_from(TYPES)))


TAGS = re.findall(
    "<[^>]+>|x",
    "<table><tr><td></td></tr></table><h1></h1><h2></h3><ul><ol><li></ul></ol><pre></pre><p><div></div><br><b></b>"
    "<script></script><dialog><p hidden>x<textarea><svg></svg><select>",
)
WORDS = re.findall(r"\w+", "tbl tr tc sdt sdtContent p r ins del ruby rt txbxContent pPr numPr hyperlink")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=40))
def test_any_soup_of_tags_ends_in_text_or_in_a_reason(tags):
    attempt(b"<html>" + " ".join(tags).encode(), "text", "")


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.sampled_from(
            [p("x"), p("h", '<w:outlineLvl w:val="0"/>'), "<w:t>x</w:t>", "<w:p/>", "<w:ruby/>", "<w:sym/>"]
        ),
        lambda inner: st.tuples(
            st.sampled_from(WORDS),
            st.lists(inner, max_size=3),
        ).map(lambda one: f"<w:{one[0]}>{''.join(one[1])}</w:{one[0]}>"),
        max_leaves=12,
    )
)
def test_any_order_of_words_elements_ends_in_text_or_in_a_reason(body):
    attempt(word(body), "text", "")


def test_several_readings_become_one_text_and_their_places_move_along():
    first = Reading("ab", Layout(pages=[Page(0, 1), Page(1, 2)]))
    second = Reading("# x", Layout(headings=[Heading(0, 1, "x")], code=[Code(2, 3)]))
    found = join([first, Reading("plain"), second])
    assert found.text == "ab\n\nplain\n\n# x"
    assert found.layout == Layout([Page(0, 1), Page(1, 2)], [Heading(11, 1, "x")], [Code(13, 14)])
    assert join([Reading("a"), Reading("b")]).layout is None


def test_whoever_starts_loads_no_parser():
    code = "import sys, api.app, workers.sources; print(*sorted({'pypdf', 'lxml', 'docx'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert loaded.stdout.split() == []
