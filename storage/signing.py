"""Signed URLs of the folder blob store: a token that says what may be read, until when, and that we said so."""

import base64
import hmac
import time
from dataclasses import dataclass
from typing import Final

import orjson

from domain.errors import Forbidden

_PURPOSE: Final = b"openpeek/blob/read\x00"


@dataclass(frozen=True, slots=True)
class BlobGrant:
    """What a token allows: reading one key, under this name and type."""

    key: str
    filename: str
    content_type: str
    expires_at: int  # UTC seconds


def sign_blob(secret: bytes, grant: BlobGrant) -> str:
    """Return a URL-safe token for a grant."""
    body = orjson.dumps([grant.key, grant.filename, grant.content_type, grant.expires_at])
    return _encode(hmac.digest(secret, _PURPOSE + body, "sha256")) + "." + _encode(body)


def verify_blob(secret: bytes, token: str, *, now: float | None = None) -> BlobGrant:
    """Return what a token allows.

    Raises:
        Forbidden: it was not signed by this server, or it has expired.
    """
    signature, _, body = token.partition(".")
    raw, given = _decode(body), _decode(signature)
    if not hmac.compare_digest(hmac.digest(secret, _PURPOSE + raw, "sha256"), given):
        raise _not_ours()
    grant = BlobGrant(*orjson.loads(raw))
    if grant.expires_at < (time.time() if now is None else now):
        raise Forbidden("This address has expired. Ask for a new one.", code="signature_expired")
    return grant


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """Return the bytes of a text that `_encode` made; other spellings of the same bytes do not count."""
    try:
        raw = base64.b64decode((text + "=" * (-len(text) % 4)).encode("ascii"), altchars=b"-_", validate=True)
    except ValueError as error:  # binascii's own error and one of the encoding are kinds of it
        raise _not_ours() from error
    if _encode(raw) != text:
        raise _not_ours()
    return raw


def _not_ours() -> Forbidden:
    return Forbidden("This address was not signed by this server.", code="signature_invalid")
