"""What an extractor reads: an object or an upstream document, with its inputs mapped and its blobs fetched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.documents import Scope
from domain.errors import NotFound, ObjectFailed
from domain.json_types import MISSING, Fields, Json, Missing, lookup
from extractors.contract import Source
from storage.database import Database
from storage.fetch import Fetcher
from storage.ports import BlobStore
from storage.tables import documents, objects
from storage.tables.collections import CollectionRow
from storage.tables.items import Claim

MAX_FETCH_BYTES: Final = 20 * 1024 * 1024
FETCH_SECONDS: Final = 30.0


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
        ObjectFailed: a blob is gone, or is no text.
        SourceUnavailable: a foreign address does not answer now.
        Unavailable: the blob store does not answer.
    """
    inputs: dict[str, Json] = {}
    for key, mapping in collection.input_mappings.items():
        if isinstance(mapping, dict) and "literal" in mapping:
            inputs[key] = mapping["literal"]
        elif isinstance(mapping, dict) and isinstance(mapping.get("path"), str):
            inputs[key] = _read(loaded, str(mapping["path"]), blobs, fetcher)
    return Source(loaded.source_id, loaded.fields, inputs)


def _read(loaded: Loaded, path: str, blobs: BlobStore, fetcher: Fetcher) -> Json:
    texts = [
        _blob_text(blob, blobs, fetcher)
        for blob in loaded.blobs
        if isinstance(blob, dict) and blob.get("property") == path
    ]
    if texts:
        return texts[0] if len(texts) == 1 else "\n\n".join(texts)
    found = lookup(loaded.fields, path)
    return None if found is MISSING else found  # type: ignore[return-value]


def _blob_text(blob: Mapping[str, Json], blobs: BlobStore, fetcher: Fetcher) -> str:
    inline = blob.get("text")
    if isinstance(inline, str):
        return inline
    kind = blob.get("type")
    if kind not in {"text", "string"}:
        raise ObjectFailed(
            f"The blob {blob.get('property')!r} is of type {kind!r}; only text can be read yet.",
            code="UNSUPPORTED_TYPE",
        )
    try:
        url = blob.get("url")
        raw = (
            fetcher.get(url, max_bytes=MAX_FETCH_BYTES, timeout_seconds=FETCH_SECONDS).body
            if isinstance(url, str)
            else blobs.get(str(blob.get("key")))
        )
    except NotFound as error:
        message = f"The content of the blob {blob.get('property')!r} is no longer in the blob store."
        raise ObjectFailed(message, code="SOURCE_NOT_FOUND") from error
    try:
        return raw.decode("utf-8-sig").replace("\x00", "")
    except UnicodeDecodeError as error:
        what = f"The blob {blob.get('property')!r} is not UTF-8 text (byte {error.start})."
        message = f"{what} Convert it, and upload it again."
        raise ObjectFailed(message, code="NOT_UTF8") from error


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
