"""What an extractor reads: an object or an upstream document, with its inputs mapped and its blobs fetched."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.documents import Scope
from domain.errors import NotFound, ObjectFailed
from domain.json_types import MISSING, Fields, Json, Missing, lookup
from extractors.contract import Source
from extractors.reading.formats import READABLE
from extractors.reading.layout import Layout, Reading, join
from storage.database import Database
from storage.fetch import Fetcher
from storage.ports import BlobStore
from storage.tables import documents, objects
from storage.tables.collections import CollectionRow
from storage.tables.items import Claim
from workers import reading

MAX_FETCH_BYTES: Final = 20 * 1024 * 1024
FETCH_SECONDS: Final = 30.0
# For all files of one object together: the lease is not renewed when an object takes a minute.
OBJECT_SECONDS: Final = 50.0
LEAST_SECONDS: Final = 5.0
READ_TYPES: Final = frozenset({"text", "string", "pdf"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A source as it stands in the database, before any blob is read."""

    item_id: int
    source_id: str
    object_id: str
    bucket_id: str
    version: int
    fields: Fields
    blobs: Sequence[Json]
    lineage: Fields


def load(database: Database, scope: Scope, taken: Claim) -> dict[int, Loaded]:
    """Return item id → source for what still exists; what is absent has been deleted."""
    with database.reading() as session:
        if taken.items[0].tier == 0:
            rows = objects.load_sources(session, scope, [item.source_id for item in taken.items])
            return {
                item.id: Loaded(
                    item.id,
                    row.id,
                    row.id,
                    row.bucket_id,
                    row.version,
                    row.fields,
                    row.blobs,
                    {"source_type": "bucket", "source_object_id": row.id},
                )
                for item in taken.items
                if (row := rows.get(item.source_id))
            }
        upstream = documents.load_sources(session, [item.source_id for item in taken.items])
        return {
            item.id: Loaded(
                item.id,
                found.id,
                found.object_id,
                found.bucket_id,
                found.epoch,
                found.fields,
                [],
                {
                    "source_type": "collection",
                    "source_document_id": found.id,
                    "source_collection_id": found.collection_id,
                    "source_object_id": found.object_id,
                },
            )
            for item in taken.items
            if (found := upstream.get(item.source_id))
        }


def prepare(loaded: Loaded, collection: CollectionRow, blobs: BlobStore, fetcher: Fetcher) -> Source:
    """Map the inputs of one source.

    Raises:
        ObjectFailed: a blob is gone, or cannot be read.
        SourceUnavailable: a foreign address does not answer now.
        Unavailable: the blob store does not answer.
    """
    inputs: dict[str, Json] = {}
    layouts: dict[str, Layout] = {}
    deadline = time.monotonic() + OBJECT_SECONDS
    for key, mapping in collection.input_mappings.items():
        if isinstance(mapping, dict) and "literal" in mapping:
            inputs[key] = mapping["literal"]
        elif isinstance(mapping, dict) and isinstance(mapping.get("path"), str):
            path = str(mapping["path"])
            found = _read_blobs(loaded, path, blobs, fetcher, deadline)
            inputs[key] = _field(loaded, path) if found is None else found.text
            if found is not None and found.layout is not None:
                layouts[key] = found.layout
    return Source(loaded.source_id, loaded.fields, inputs, layouts)


def _field(loaded: Loaded, path: str) -> Json:
    found = lookup(loaded.fields, path)
    return None if found is MISSING else found  # type: ignore[return-value]


def _read_blobs(loaded: Loaded, path: str, blobs: BlobStore, fetcher: Fetcher, deadline: float) -> Reading | None:
    """Return the text of all blobs of a property, one after the other; None if there is none."""
    found = [
        _read_blob(blob, blobs, fetcher, deadline)
        for blob in loaded.blobs
        if isinstance(blob, dict) and blob.get("property") == path
    ]
    return join(found) if found else None


def _read_blob(blob: Mapping[str, Json], blobs: BlobStore, fetcher: Fetcher, deadline: float) -> Reading:
    inline = blob.get("text")
    if isinstance(inline, str):
        return Reading(inline)
    kind = blob.get("type")
    if kind not in READ_TYPES:
        raise ObjectFailed(
            f"The blob {blob.get('property')!r} is of type {kind!r}; only {READABLE}.",
            code="UNSUPPORTED_TYPE",
        )
    try:
        raw, content_type = _content(blob, blobs, fetcher)
    except NotFound as error:
        message = f"The content of the blob {blob.get('property')!r} is no longer in the blob store."
        raise ObjectFailed(message, code="SOURCE_NOT_FOUND") from error
    try:
        return reading.read(raw, str(kind), content_type, seconds=max(LEAST_SECONDS, deadline - time.monotonic()))
    except ObjectFailed as failed:
        raise ObjectFailed(f"The blob {blob.get('property')!r}: {failed.message}", code=failed.code) from failed


def _content(blob: Mapping[str, Json], blobs: BlobStore, fetcher: Fetcher) -> tuple[bytes, str]:
    """Return a blob's bytes, and the content type that came with them."""
    url = blob.get("url")
    if isinstance(url, str):
        fetched = fetcher.get(url, max_bytes=MAX_FETCH_BYTES, timeout_seconds=FETCH_SECONDS)
        return fetched.body, fetched.content_type
    return blobs.get(str(blob.get("key"))), str(blob.get("mime_type") or "")


def passed_through(loaded: Loaded, collection: CollectionRow) -> Fields:
    """Return the fields of the source that its documents carry.

    Raises:
        ObjectFailed: a field that must be passed on is missing.
    """
    fields: Fields = dict(loaded.fields) if collection.include_all_source_fields else {}
    for rule in collection.field_passthrough:
        if not isinstance(rule, dict):
            continue
        source_path = str(rule["source_path"])
        found = lookup(loaded.fields, source_path)
        if found is MISSING:
            found = _inline_text(loaded, source_path)
        if found is MISSING and rule.get("required"):
            raise ObjectFailed(f"The required field {source_path!r} is missing.", code="REQUIRED_FIELD_MISSING")
        if found is MISSING:
            if rule.get("default") is None:
                continue
            found = rule["default"]
        _put(fields, str(rule.get("target_path") or source_path), found)  # type: ignore[arg-type]
    return fields


def _inline_text(loaded: Loaded, name: str) -> Json | Missing:
    for blob in loaded.blobs:
        if isinstance(blob, dict) and blob.get("property") == name and isinstance(blob.get("text"), str):
            return str(blob["text"])
    return MISSING


def _put(fields: Fields, path: str, value: Json) -> None:
    *parents, last = path.split(".")
    target = fields
    for name in parents:
        found = target.get(name)
        inner: Fields = dict(found) if isinstance(found, dict) else {}  # a copy: the source's own stays as it is
        target[name] = inner
        target = inner
    target[last] = value
