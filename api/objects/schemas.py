"""What objects look like on the wire."""

from typing import Any, ClassVar

from pydantic import Field

from api.bodies import Body
from api.replies import moment, without_none
from domain.json_types import Fields, Json
from domain.lifecycle import ItemState
from storage.tables.objects import ObjectRow

RESERVED = frozenset(
    {"object_id", "bucket_id", "organization_id", "status", "consistency", "created_at", "updated_at", "version"}
)


class BlobCreate(Body):
    """Bytes or text that belong to an object, under a property of the bucket's schema."""

    property: str = Field(min_length=1, max_length=100)
    type: str = Field(min_length=1, max_length=20)
    data: str | None = None
    upload_id: str | None = None
    metadata: dict[str, Json] | None = None
    checksum: str | None = None
    key_prefix: str | None = None


class ObjectCreate(Body):
    """A new object. Every other key at the root is a field of the user's own."""

    quiet: ClassVar[frozenset[str]] = frozenset({"namespace_id"})
    key_prefix: str | None = Field(None, max_length=1_024)
    blobs: list[BlobCreate] = Field(default_factory=list, max_length=100)
    skip_duplicates: bool | None = None
    idempotency_key: str | None = Field(None, max_length=255)

    def own_fields(self) -> Fields:
        """Return the user's fields."""
        extra: Fields = dict(self.model_extra or {})
        extra.pop("namespace_id", None)
        return extra

    def unknown_keys(self) -> list[str]:
        """Return no warnings about the root: its keys are the user's fields."""
        return [warning for blob in self.blobs for warning in blob.unknown_keys()]


class ObjectsCreate(Body):
    """Up to 100 new objects; each succeeds or fails by itself."""

    objects: list[Any] = Field(min_length=1, max_length=100)


def status_of(states: set[ItemState]) -> str:
    """Derive an object's status from the states of its items."""
    if ItemState.PROCESSING in states:
        return "PROCESSING"
    if ItemState.PENDING in states or not states:
        return "PENDING"
    if ItemState.COMPLETED in states or ItemState.SKIPPED in states:
        return "COMPLETED_WITH_ERRORS" if ItemState.FAILED in states else "COMPLETED"
    return "FAILED" if ItemState.FAILED in states else "CANCELED"


def view(row: ObjectRow, states: set[ItemState], urls: dict[str, str] | None = None) -> dict[str, Any]:
    """Return an object as the contract wants it: the user's fields at the root."""
    return {
        **row.fields,
        "object_id": row.id,
        "bucket_id": row.bucket_id,
        "key_prefix": row.key_prefix,
        "status": status_of(states),
        "blobs": [_blob(blob, urls or {}) for blob in row.blobs if isinstance(blob, dict)],
        "consistency": {"retriever_visible": "after_processing"},
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _blob(blob: dict[str, Json], urls: dict[str, str]) -> dict[str, Any]:
    details = without_none({key: blob.get(key) for key in ("filename", "size_bytes", "mime_type", "hash")})
    shown = {
        "blob_id": blob.get("blob_id"),
        "property": blob.get("property"),
        "type": blob.get("type"),
        "properties": blob.get("metadata") or {},
        "details": details,
        "data": blob.get("text"),
        "url": blob.get("url"),
        "presigned_url": urls.get(str(blob.get("blob_id"))),
    }
    return without_none(shown)
