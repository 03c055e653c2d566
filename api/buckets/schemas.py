"""What buckets look like on the wire, and what a bucket's schema may say."""

from typing import Annotated, Any, Final

from pydantic import AliasChoices, BeforeValidator, Field

from api.bodies import Body
from api.replies import moment
from domain.json_types import Json
from storage.tables.buckets import BucketRow

METADATA_TYPES: Final = ("string", "number", "integer", "float", "boolean", "object", "array", "date", "datetime")
BLOB_TYPES: Final = ("text", "image", "audio", "video", "pdf", "excel")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


TypeName = Annotated[str, BeforeValidator(_lower), Field(pattern=f"^({'|'.join(METADATA_TYPES + BLOB_TYPES)})$")]


class SchemaField(Body):
    """One property of a bucket's schema."""

    type: TypeName
    required: bool | None = None
    description: str | None = None
    enum: list[Json] | None = None
    default: Json = None
    items: Json = None
    properties: Json = None
    examples: Json = None


class BucketSchema(Body):
    """The properties that objects of a bucket have."""

    properties: dict[Annotated[str, Field(min_length=1, max_length=100)], SchemaField] = Field(max_length=500)


class BucketCreate(Body):
    """A new bucket."""

    bucket_name: str = Field(min_length=1, max_length=100)
    bucket_schema: BucketSchema | None = Field(None, validation_alias=AliasChoices("bucket_schema", "schema"))
    description: str | None = Field(None, max_length=4_000)
    metadata: dict[str, Json] | None = None


class ListQuery(Body):
    """What lists may be asked for, beside the page."""

    search: str | None = Field(None, max_length=256)
    limit: Json = None
    page_size: Json = None
    offset: Json = None
    page: Json = None
    cursor: Json = None
    next_cursor: Json = None
    after: Json = None
    include_total: Json = None
    filters: Json = None
    sort: Json = None


def view(row: BucketRow, totals: tuple[int, int]) -> dict[str, Any]:
    """Return a bucket as the contract wants it."""
    return {
        "bucket_id": row.id,
        "bucket_name": row.name,
        "description": row.description,
        "bucket_schema": {"properties": row.schema},
        "metadata": row.settings.get("metadata") or {},
        "object_count": totals[0],
        "total_size_bytes": totals[1],
        "status": "ACTIVE",
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }
