"""Identifiers: sortable random ids for what users make, derived ids for what the pipeline makes.

A random id is a prefix and 26 Crockford base-32 characters: 48 bits of UTC milliseconds, then 80 random
bits. Sorting by id is sorting by creation time to the millisecond, and nobody can guess a neighbour's id.
A derived id is a hash of what it stands for, so running a job twice writes the same rows and points.
"""

import base64
import hashlib
import os
import time
import uuid
from typing import Final, Literal

Prefix = Literal["org", "usr", "key", "ns", "bkt", "obj", "blob", "col", "btch", "task", "ret", "exec", "req"]

_CROCKFORD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")
_POINTS: Final = uuid.UUID("6f70656e-7065-656b-8000-706f696e7473")


def _base32(value: int) -> str:
    """Return 26 characters for 128 bits: the standard library's base 32 in Crockford's alphabet, zeros cut off."""
    return base64.b32encode(value.to_bytes(20)).translate(_CROCKFORD)[-26:].decode()


def new_id(prefix: Prefix) -> str:
    """Return a fresh id such as ``obj_06b…``: 128 bits, time-ordered, unguessable."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10))
    return f"{prefix}_{_base32(value)}"


def digest(*parts: str) -> bytes:
    """Hash text parts so that no two different lists of parts give the same 32 bytes."""
    hasher = hashlib.blake2b(digest_size=32)
    for part in parts:
        raw = part.encode()
        hasher.update(len(raw).to_bytes(8))
        hasher.update(raw)
    return hasher.digest()


def document_id(collection_id: str, source_id: str, extractor_id: str, part: int) -> str:
    """Return the id of one part of one source in one collection: the same on every run."""
    value = int.from_bytes(digest(collection_id, source_id, extractor_id, str(part))[:16])
    return f"doc_{_base32(value)}"


def point_id(organization_id: str, namespace_id: str, document_id: str) -> str:
    """Return the id under which the vector index keeps a document (a UUID, as Qdrant wants it)."""
    return str(uuid.uuid5(_POINTS, f"{organization_id}/{namespace_id}/{document_id}"))


def vector_key(organization_id: str, text: str, model_id: str, revision: str, prefix: str, precision: str) -> str:
    """Return the key of a cached embedding: equal exactly when the model would be asked the same thing.

    The organization is part of the key, so that nobody learns from a fast answer what others have embedded.
    """
    return digest(organization_id, text, model_id, revision, prefix, precision).hex()
