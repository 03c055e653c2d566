"""Taking objects in: fields and blobs are checked against the bucket's schema before anything is written."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from api.buckets.schemas import BLOB_TYPES
from api.objects.schemas import RESERVED, BlobCreate, ObjectCreate
from domain.documents import Scope
from domain.errors import Invalid, ObjectFailed
from domain.ids import new_id
from domain.json_types import Fields, Json
from extractors.reading.formats import CONTENT_TYPES, READABLE, begins_as_html, recognise
from storage.ports import BlobStore
from storage.tables.buckets import BucketRow

INLINE_BYTES: Final = 64 * 1024
# A guess good enough for even portions: subword tokenizers make a token of 3 to 4 bytes of most scripts.
_BYTES_PER_TOKEN: Final = 3
_URL: Final = re.compile(r"https?://\S{3,4000}", re.IGNORECASE)
_SENT_AS_TEXT: Final = frozenset({"document", "html", "docx", "doc", "markdown", "md", "file"})
_DATA_URI: Final = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<options>(;[\w=.+-]+)*),", re.IGNORECASE)


@dataclass(slots=True)
class Intake:
    """A checked object, ready to be inserted once its blobs are kept.

    Attributes:
        pending: blob key → bytes that are still to be put into the blob store.
    """

    row: dict[str, Any]
    pending: dict[str, tuple[bytes, str]] = field(default_factory=dict)


def take_in(scope: Scope, bucket: BucketRow, body: ObjectCreate) -> Intake:
    """Check one object against its bucket.

    Raises:
        Invalid: a field or blob is wrong; the location points at it.
    """
    fields = body.own_fields()
    for name in fields:
        if name in RESERVED:
            raise Invalid(f"{name!r} is set by the server and cannot be given.", location=("body", name))
    given = {blob.property for blob in body.blobs}
    _check_fields(bucket.schema, fields, given)
    intake = Intake({})
    size = len(orjson.dumps(fields))
    blobs: list[Json] = []
    for index, blob in enumerate(body.blobs):
        kept, length = _take_blob(intake, scope, bucket, blob, ("body", "blobs", index))
        blobs.append(kept)
        size += length
    intake.row = {
        "id": new_id("obj"),
        "organization_id": scope.organization_id,
        "namespace_id": scope.namespace_id,
        "bucket_id": bucket.id,
        "state": "active",
        "version": 1,
        "key_prefix": body.key_prefix,
        "fields": fields,
        "blobs": blobs,
        "size_bytes": size,
        "estimated_tokens": min(size // _BYTES_PER_TOKEN + 1, 2**31 - 1),
    }
    return intake


def keep_blobs(intake: Intake, store: BlobStore) -> None:
    """Put an object's bytes into the blob store. Raises as `BlobStore.put`."""
    for key, (data, content_type) in intake.pending.items():
        store.put(key, data, content_type)


def _check_fields(schema: Mapping[str, Json], fields: Fields, given_blobs: set[str]) -> None:
    for name, rule in schema.items():
        if not isinstance(rule, dict):
            continue
        if name not in fields or fields[name] is None:
            if rule.get("default") is not None and name not in given_blobs:
                fields[name] = rule["default"]
            elif rule.get("required") and name not in given_blobs:
                message = f"{name!r} is required by the schema of this bucket."
                raise Invalid(message, location=("body", name), code="schema_violation")
            continue
        _check_value(name, rule, fields[name])


def _check_value(name: str, rule: Mapping[str, Json], value: Json) -> None:
    kind = str(rule.get("type"))
    if not _fits(kind, value):
        message = f"{name!r} must be of type {kind}, as the schema of this bucket says; this is {_kind(value)}."
        raise Invalid(message, location=("body", name), code="schema_violation")
    allowed = rule.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        message = f"{name!r} must be one of {orjson.dumps(allowed).decode()[:300]}."
        raise Invalid(message, location=("body", name), code="schema_violation")


def _fits(kind: str, value: Json) -> bool:  # noqa: PLR0911 - one answer per type
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "string" | "text":
            return isinstance(value, str)
        case "number" | "float":
            return is_number
        case "integer":
            return is_number and float(value) == int(value)  # type: ignore[arg-type]
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "date" | "datetime":
            return isinstance(value, str) and _is_date(value)
        case _:
            return isinstance(value, str)  # a file given by its address


def _is_date(value: str) -> bool:
    for read in (datetime.fromisoformat, date.fromisoformat):
        try:
            read(value)
        except ValueError:
            continue
        return True
    return False


def _kind(value: Json) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _take_blob(
    intake: Intake, scope: Scope, bucket: BucketRow, blob: BlobCreate, location: tuple[str | int, ...]
) -> tuple[dict[str, Json], int]:
    kind = _blob_type(bucket, blob, location)
    if blob.upload_id is not None:
        message = "Uploads are not offered yet; give the content as data."
        raise Invalid(message, location=(*location, "upload_id"), code="not_offered")
    if not blob.data:
        raise Invalid("A blob needs data: text, a data: URI or an http(s) URL.", location=(*location, "data"))
    kept: dict[str, Json] = {
        "blob_id": new_id("blob"),
        "property": blob.property,
        "type": kind,
        "metadata": dict(blob.metadata or {}),
    }
    if blob.data.lower().startswith("s3://"):
        message = "s3:// sources are not offered yet; give the content as data or an http(s) URL."
        raise Invalid(message, location=(*location, "data"), code="not_offered")
    if _URL.fullmatch(blob.data):
        kept["url"] = blob.data
        return kept, 0
    raw, content_type, is_plain = _content(kind, blob.data, (*location, "data"))
    kept |= {"size_bytes": len(raw), "mime_type": content_type, "hash": hashlib.sha256(raw).hexdigest()}
    if is_plain and len(raw) <= INLINE_BYTES:
        kept["text"] = raw.decode()
        return kept, len(raw)
    kept["key"] = f"{scope.organization_id}/{kept['blob_id']}"
    intake.pending[str(kept["key"])] = (raw, content_type)
    return kept, len(raw)


def _blob_type(bucket: BucketRow, blob: BlobCreate, location: tuple[str | int, ...]) -> str:
    kind = "text" if blob.type.lower() == "string" else blob.type.lower()
    if kind not in BLOB_TYPES:
        message = f"{blob.type!r} is not a type of blob. Known: {', '.join(BLOB_TYPES)}."
        if kind in _SENT_AS_TEXT:
            message += " Send it as type text, with its content type: data:<content type>;base64,…"
        raise Invalid(message, location=(*location, "type"))
    rule = bucket.schema.get(blob.property)
    if bucket.schema and not isinstance(rule, dict):
        known = ", ".join(sorted(bucket.schema)[:30])
        message = f"The schema of this bucket has no property {blob.property!r}. It has: {known}."
        raise Invalid(message, location=(*location, "property"), code="schema_violation")
    wanted = rule.get("type") if isinstance(rule, dict) else kind
    if wanted != kind and not (kind == "text" and wanted == "string"):
        message = f"The schema says {blob.property!r} is of type {wanted}, and the blob says {kind}."
        raise Invalid(message, location=(*location, "type"), code="schema_violation")
    return kind


def _content(kind: str, data: str, location: tuple[str | int, ...]) -> tuple[bytes, str, bool]:
    """Return the bytes, their content type, and whether they are plain text that needs no reader."""
    match = _DATA_URI.match(data)
    if match is None and kind == "text":
        raw = data.encode()
        is_html = begins_as_html(raw)  # what else there is to recognise is binary, and no string of JSON
        return raw, f"{CONTENT_TYPES['html' if is_html else 'text'].partition(';')[0]}; charset=utf-8", not is_html
    try:
        if match is None:
            raw, told = base64.b64decode(data, validate=True), ""
        else:
            body, options = data[match.end() :], match["options"] or ""
            is_base64 = ";base64" in options.lower()
            raw = base64.b64decode(body, validate=True) if is_base64 else unquote_to_bytes(body)
            told = (match["type"] or "text/plain") + re.sub(";base64", "", options, flags=re.IGNORECASE)
    except (binascii.Error, ValueError) as error:
        message = "The data is no text, no URL, and not valid base64."
        raise Invalid(message, location=location, code="base64_malformed") from error
    if kind == "text":
        return _text_content(raw, told, location)
    return raw, told or (CONTENT_TYPES["pdf"] if kind == "pdf" else "application/octet-stream"), False


def _text_content(raw: bytes, told: str, location: tuple[str | int, ...]) -> tuple[bytes, str, bool]:
    """Return text as UTF-8, and files that hold text as they are."""
    try:
        found = recognise(raw, "text", told)
    except ObjectFailed as failed:
        raise Invalid(failed.message, location=location, code=failed.code.lower()) from failed
    if found != "text":
        return raw, told if told.partition(";")[0] != "text/plain" else CONTENT_TYPES[found], False
    try:
        return raw.decode("utf-8-sig").replace("\x00", "").encode(), told, True
    except UnicodeDecodeError as error:
        message = f"The data is not UTF-8 text, and nothing else that is known: {READABLE}."
        raise Invalid(message, location=location, code="not_utf8") from error
