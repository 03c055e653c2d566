"""What a file is: by its first bytes, and where those leave a doubt by what it was declared to be.

Loads no parser: the API asks, too, when an object is created.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from domain.errors import ObjectFailed

Format = Literal["text", "html", "pdf", "docx"]

DOCX_TYPE: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
CONTENT_TYPES: Final[Mapping[Format, str]] = {
    "text": "text/plain; charset=utf-8",
    "html": "text/html",
    "pdf": "application/pdf",
    "docx": DOCX_TYPE,
}
READABLE: Final = "plain text, Markdown, HTML, PDF and DOCX can be read"

_HEAD: Final = 4_096
_PDF_HEAD: Final = 1_024  # so far down readers look for the header, as other bytes may come before it
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HTML: Final = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--[^\x00]{0,2000}?-->\s*){0,3}<(?:!doctype\s+html|html[\s>])", re.IGNORECASE
)
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE: Final = "EncryptedPackage".encode("utf-16-le")
_RTF: Final = b"{\\rtf1"
_OTHERS: Final[Mapping[bytes, str]] = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    _RTF: "an RTF file",
    b"ID3": "an MP3 recording",
    b"OggS": "an Ogg recording",
}


def recognise(raw: bytes, declared: str, content_type: str) -> Format:
    """Return what a file is to be read as.

    Args:
        raw: all of its bytes.
        declared: the type of its blob: ``text`` or ``pdf``.
        content_type: as it came with the bytes, parameters and all; empty where nothing is known.

    Raises:
        ObjectFailed: UNSUPPORTED_FORMAT, or DOCX_ENCRYPTED.
    """
    head = _head(raw)
    media = content_type.partition(";")[0].strip().lower()
    if head.lstrip().startswith(b"%PDF-"):
        return "pdf"
    if raw.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_zip(raw, media)
    if raw.startswith(_OLE):
        raise _old_office(raw)
    is_text = _is_text(head)
    for magic, name in _OTHERS.items():
        if raw.startswith(magic) and (not is_text or magic == _RTF):  # a text may begin with GIF89a, or with ID3
            raise ObjectFailed(f"The file is {name}; only {READABLE}.", code="UNSUPPORTED_FORMAT")
    if media in {"text/html", "application/xhtml+xml"} or begins_as_html(raw):
        return "html"
    if declared == "pdf" or media == "application/pdf" or (b"%PDF-" in raw[:_PDF_HEAD] and not is_text):
        return "pdf"
    return "docx" if media == DOCX_TYPE else "text"


def begins_as_html(raw: bytes) -> bool:
    """Say whether bytes begin as a page of HTML does, in UTF-8 or UTF-16."""
    return _HTML.match(_head(raw).replace(b"\x00", b"")) is not None


def _head(raw: bytes) -> bytes:
    head = raw[:_HEAD]
    for bom in _BOMS:
        head = head.removeprefix(bom)
    return head


def _in_zip(raw: bytes, media: str) -> Format:
    """Tell Word's ZIP from others by the names in it: a broken one has no directory that could be asked."""
    if media == DOCX_TYPE or b"word/" in raw:
        return "docx"
    name = next((name for mark, name in ((b"xl/", "an Excel"), (b"ppt/", "a PowerPoint")) if mark in raw), "a ZIP")
    if name == "a ZIP" and b"[Content_Types].xml" in raw[:_HEAD]:
        return "docx"  # a piece of an Office file, and of these Word's are the most
    raise ObjectFailed(f"This is {name} file; only {READABLE}.", code="UNSUPPORTED_FORMAT")


def _old_office(raw: bytes) -> ObjectFailed:
    if _ENCRYPTED_OFFICE in raw:
        message = "The file is protected by a password. Save it without one, and upload it again."
        return ObjectFailed(message, code="DOCX_ENCRYPTED")
    message = f"The file is of an Office before 2007 (.doc); only {READABLE}. Save it as DOCX."
    return ObjectFailed(message, code="UNSUPPORTED_FORMAT")


def _is_text(head: bytes) -> bool:
    """Say whether bytes are UTF-8; the last character may have been cut."""
    return b"\x00" not in head and "\ufffd" not in head.decode("utf-8", "replace")[:-4]
