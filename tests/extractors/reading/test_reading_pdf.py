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


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        (b"/Kids [4 0 R 6 0 R 8 0 R]", b"/Kids [4 0 R 77 0 R 8 0 R]"),
        (b"/Kids [4 0 R 6 0 R 8 0 R]", b"/Kids [4 0 R 3 0 R 8 0 R]"),
        (b"/Kids [4 0 R 6 0 R 8 0 R]", b"/Kids [4 0 R (x) 8 0 R]"),
        (b"/Count 3", b"/Count 9"),
    ],
    ids=["gone", "no page", "a string", "fewer than are counted"],
)
def test_a_page_that_is_gone_fails_the_file_as_all_after_it_would_have_wrong_numbers(whole, damaged):
    raw = pdf("First.", "Second.", "Third.")
    assert whole in raw
    found = failure(raw.replace(whole, damaged))
    assert found.code == "PDF_BROKEN"
    assert "are there" in found.message


def test_a_page_of_whose_content_a_piece_is_missing_fails_the_file():
    raw = pdf("First.", "Second.").replace(b"/Contents 7 0 R", b"/Contents [7 0 R 99 0 R]")
    assert "Page 2" in failure(raw).message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("(/etc/hosts)", "/etc/hosts"),
        ("[(red) (blue)]", "red\nblue"),
        ("7 0 R", "long, in a stream"),
        ("<FEFF006B00F6006C006E>", "köln"),
        ("[6 0 R [(deep)] (shown)]", "shown"),
    ],
    ids=["with a slash", "several", "stream", "UTF-16", "in itself"],
)
def test_whatever_form_the_value_of_a_field_has_it_is_read(value, text):
    field = f"<< /Type /Annot /Subtype /Widget /FT /Tx /V {value} >>".encode()
    raw = pdf("A form", extra="/Annots [6 0 R]", more=[field, stream(b"long, in a stream")])
    assert read(raw, "pdf").text == f"A form\n{text}"


def test_more_notes_than_are_read_are_refused_and_not_cut(monkeypatch):
    monkeypatch.setattr(reader, "_MOST_NOTES", 2)
    raw = pdf("x", extra="/Annots [6 0 R 6 0 R 6 0 R]", more=[b"<< /Subtype /FreeText /Contents (note) >>"])
    assert failure(raw).code == "TOO_LARGE"


def test_letters_that_no_font_explains_are_no_text_and_a_few_of_them_are():
    unexplained = pdf("All of these letters").replace(b"/F1 3 0 R", b"/F9 3 0 R")
    found = failure(unexplained)
    assert found.code == "PDF_WITHOUT_TEXT"
    assert "page 1" in found.message
    assert "\ufffd" in read(pdf("Bullet", "And a page").replace(b"/F1 3 0 R", b"/F9 3 0 R", 1), "pdf").text


def test_a_form_that_only_acrobat_draws_says_how_to_get_its_text():
    raw = pdf("Please wait...").replace(b"/Type /Catalog", b"/Type /Catalog /NeedsRendering true")
    found = failure(raw)
    assert found.code == "PDF_WITHOUT_TEXT"
    assert "Print it" in found.message


def test_bombs_end_with_a_reason():
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >>"
    doubling = [stream(b"/X Do /X Do", (form % (7 + level)).decode()) for level in range(30)]
    raw = pdf("x", resources="/XObject << /X 6 0 R >>", after=b" /X Do", more=[*doubling, stream(b"")])
    assert "Page 1" in failure(raw).message
    twice = zlib.compress(zlib.compress(b" " * 100_000_000))
    packed = pdf("x", more=[stream(twice, "/Filter [/FlateDecode /FlateDecode]")])
    assert failure(packed.replace(b"/Contents 5 0 R", b"/Contents 6 0 R")).code == "TOO_LARGE"
    assert failure(pdf("x", extra="/Annots 6 0 R", more=[b"[" * 100_000])).code == "PDF_BROKEN"


def test_a_file_of_another_kind_that_is_said_to_be_a_pdf_is_told_so():
    assert "does not begin as one" in failure(b"Plain text.").message
