"""API keys: how they are made, how they are recognised, and what is derived from the server's one secret."""

import hashlib
import hmac
import secrets
import zlib
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT: Final = b"openpeek/v1"


def derive(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for one purpose: HKDF-SHA256 (RFC 5869) with a single output block."""
    extracted = hmac.digest(_SALT, secret.encode(), "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


def new_key() -> str:
    """Return a fresh secret: ``sk_``, 256 random bits in base 62, and a checksum that tells typos apart."""
    body = _base62(secrets.randbits(256), 43)
    return f"sk_{body}{_base62(zlib.crc32(body.encode()), 6)}"


def hash_key(pepper: bytes, key: str) -> str:
    """Return what is stored of a key: HMAC-SHA256 under the server's pepper, in hex."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _base62(value: int, length: int) -> str:
    characters = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))
