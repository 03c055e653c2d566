"""What collections look like on the wire, in the contract's many spellings."""

from typing import Any

from pydantic import Field, model_validator

from api.bodies import Body
from api.replies import moment
from domain.json_types import Json
from storage.tables.collections import CollectionRow


class SourceBody(Body):
    """What a collection reads."""

    type: str = "bucket"
    bucket_ids: list[str] | None = Field(None, max_length=100)
    bucket_id: str | None = None
    collection_ids: list[str] | None = Field(None, max_length=100)
    collection_id: str | None = None
    source_filters: Json = None
    field_map: Json = None

    def identifiers(self, kind: str) -> list[str]:
        """Return ids or names of the given kind, whichever spelling was used."""
        many = self.bucket_ids if kind == "bucket" else self.collection_ids
        one = self.bucket_id if kind == "bucket" else self.collection_id
        return list(many or ([one] if one else []))


class ExtractorBody(Body):
    """Which extractor, and how it is to work."""

    feature_extractor_name: str = Field(min_length=1, max_length=100)
    version: str | None = "v1"
    parameters: dict[str, Json] | None = None
    input_mappings: Json = None
    field_passthrough: list[Json] | None = None
    include_all_source_fields: bool | None = None


class CollectionCreate(Body):
    """A new collection."""

    collection_name: str = Field(min_length=3, max_length=100)
    source: SourceBody
    feature_extractor: ExtractorBody
    description: str | None = Field(None, max_length=4_000)
    input_schema: Json = None
    metadata: dict[str, Json] | None = None
    enabled: bool | None = True

    @model_validator(mode="before")
    @classmethod
    def _one_extractor(cls, raw: Any) -> Any:
        """Accept ``feature_extractors`` with one entry."""
        if isinstance(raw, dict) and raw.get("feature_extractor") is None:
            listed = raw.get("feature_extractors")
            if isinstance(listed, list) and len(listed) == 1:
                rest = {key: value for key, value in raw.items() if key != "feature_extractors"}
                return {**rest, "feature_extractor": listed[0]}
        return raw


def vector_indexes(row: CollectionRow) -> list[dict[str, Any]]:
    """Return the vector indexes of a collection: one or none."""
    if row.inference_name is None:
        return []
    return [
        {
            "name": f"{row.extractor_id}_embedding",
            "description": f"Text vectors of {row.model_id}",
            "feature_uri": str(row.feature_uri),
            "type": "single",
            "index": {
                "name": f"{row.extractor_id}_embedding",
                "description": f"Text vectors of {row.model_id}",
                "dimensions": row.dimensions,
                "distance": "cosine",
                "type": "dense",
                "inference_name": row.inference_name,
            },
        }
    ]


def view(row: CollectionRow, document_count: int) -> dict[str, Any]:
    """Return a collection as the contract wants it."""
    return {
        "collection_id": row.id,
        "collection_name": row.name,
        "description": row.description,
        "source": row.source,
        "feature_extractor": {
            "feature_extractor_name": row.extractor_name,
            "version": row.extractor_version,
            "feature_extractor_id": row.extractor_id,
            "parameters": row.parameters,
            "input_mappings": _mappings(row),
            "field_passthrough": row.field_passthrough,
            "include_all_source_fields": row.include_all_source_fields,
        },
        "input_schema": row.input_schema,
        "output_schema": row.output_schema,
        "vector_indexes": vector_indexes(row),
        "model": row.model,
        "document_count": document_count,
        "metadata": row.settings.get("metadata") or {},
        "enabled": row.enabled,
        "schema_version": 1,
        "lifecycle_state": "active",
        "lifecycle_reason": row.lifecycle_reason,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _mappings(row: CollectionRow) -> dict[str, Any]:
    return {
        key: mapping["path"]
        for key, mapping in row.input_mappings.items()
        if isinstance(mapping, dict) and isinstance(mapping.get("path"), str)
    }
