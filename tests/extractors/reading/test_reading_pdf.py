"""PDF: pages and their places; and every way in which a PDF can be bad."""

import zlib

import pytest

from domain.errors import ObjectFailed
from extractors.reading import pdf as reader
from extractors.reading import read
from tests.extractors.reading.samples import assembled, encrypted_pdf, pdf, stream


def failure(raw: bytes, declared: str = "pdf") -> ObjectFailed:
    with pytest.raises(ObjectFailed) as caught:
        read(raw, declared)
    return caught.value


def test_the_text_of_every_page_is_there_and_every_page_has_its_place():
    found = read(pdf("First page.\nIts second line.", "Second page.", "Third, in Köln."), "pdf")
    pages = found.layout.pages
    assert [page.number for page in pages] == [1, 2, 3]
    assert found.text[: pages[1].start].strip() == "First page.\nIts second line."
    assert found.text[pages[1].start : pages[2].start].strip() == "Second page."
    assert found.text[pages[2].start :].strip() == "Third, in Köln."


def test_a_page_without_text_among_others_is_counted():
    found = read(pdf("One.", "", "Three."), "pdf")
    assert found.text.split("\f") == ["One.", "", "Three."]
    assert found.text[found.layout.pages[2].start :] == "Three."


def test_what_is_written_into_a_form_and_into_notes_is_read_and_a_ticked_box_is_not():
    fields = [
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Ada Lovelace) /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /Widget /Parent 9 0 R /Rect [0 0 9 9] >>",
        b"<< /Type /Annot /Subtype /FreeText /Contents (Seen, and approved) /Rect [0 0 9 9] >>",
        b"<< /FT /Tx /T (city) /V (London) >>",
        b"<< /Type /Annot /Subtype /Widget /FT /Btn /V /Yes /Rect [0 0 9 9] >>",
    ]
    raw = pdf("A form", extra="/Annots [6 0 R 7 0 R 8 0 R 10 0 R]", more=fields)
    assert read(raw, "pdf").text == "A form\nAda Lovelace\nLondon\nSeen, and approved"


def test_an_empty_user_password_opens_a_file_that_only_forbids_changes():
    for algorithm in ("RC4-128", "AES-128", "AES-256"):
        assert read(encrypted_pdf("", algorithm), "pdf").text == "For few eyes only."


def test_a_file_with_a_password_says_so():
    assert failure(encrypted_pdf("secret")).code == "PDF_ENCRYPTED"


def test_a_file_of_pictures_says_that_nothing_is_recognised_in_them():
    found = failure(pdf("", ""))
    assert found.code == "PDF_WITHOUT_TEXT"
    assert "OCR" in found.message


@pytest.mark.parametrize(
    "raw",
    [
        b"%PDF-1.7\n",
        b"%PDF-1.7\n" + b"garbage \xff\x00" * 500,
        pdf("whole", "and truncated")[:300],
        pdf("whole")[:60],
        b"no PDF at all",
    ],
    ids=["header only", "garbage", "truncated", "cut early", "text declared as PDF"],
)
def test_a_broken_file_is_called_broken(raw):
    assert failure(raw).code in {"PDF_BROKEN", "PDF_WITHOUT_TEXT"}
    assert failure(raw).message


def test_no_bytes_are_no_text():
    assert failure(b"").code == "EMPTY_TEXT"


def test_one_broken_page_fails_the_file_and_is_named():
    whole = pdf("First.", "Second.", compressed=True)
    text = zlib.compress(b"BT /F1 12 Tf 14 TL 72 720 Td (Second.) Tj ET")
    assert text in whole
    assert "Page 2" in failure(whole.replace(text, b"\x00" * len(text))).message


def test_a_form_on_a_page_that_cannot_be_read_fails_the_file():
    """pypdf goes on without it, and only warns."""
    form = stream(
        b"\x00\x01",
        "/Type /XObject /Subtype /Form /Filter /NoSuchFilter /BBox [0 0 9 9] /Resources << /Font << /F1 3 0 R >> >>",
    )
    raw = pdf("Seen.", resources="/XObject << /X 6 0 R >>", after=b" /X Do", more=[form])
    assert "Page 1" in failure(raw).message


def test_a_page_whose_content_is_missing_fails_the_file():
    whole = pdf("First.", "Second.")
    assert "Page 2" in failure(whole.replace(b"/Contents 7 0 R", b"/Contents 9 0 R")).message


def test_a_stream_that_unpacks_to_a_hundred_megabytes_is_refused():
    raw = pdf("Small.", after=b" " * 100_000_000, compressed=True)
    assert len(raw) < 200_000
    assert failure(raw).code == "TOO_LARGE"


def test_more_pages_than_are_read_are_refused_before_the_first(monkeypatch):
    monkeypatch.setattr(reader, "MOST_PAGES", 2)
    assert failure(pdf("1", "2", "3")).code == "TOO_LARGE"


def test_pages_that_lead_back_to_themselves_end():
    raw = assembled(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 /Parent 2 0 R >>"]
    )
    assert failure(raw).code in {"PDF_BROKEN", "PDF_WITHOUT_TEXT"}


def test_fields_that_are_their_own_parents_end():
    raw = pdf("Fine", extra="/Annots [6 0 R]", more=[b"<< /Subtype /Widget /FT /Tx /Parent 6 0 R >>"])
    assert read(raw, "pdf").text == "Fine"
