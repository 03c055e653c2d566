"""What documents look like on the wire: the user's fields at the root, ours under ``_internal``."""

from typing import Any

from api.replies import moment
from domain.json_types import Fields
from storage.tables.documents import DocumentRow


def internal(row: DocumentRow) -> Fields:
    """Return what the platform knows of a document."""
    return {
        "namespace_id": row.namespace_id,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
        "content_hash": row.content_hash,
        "batch_id": row.batch_id,
        "lineage": {**row.lineage, "root_object_id": row.object_id, "root_bucket_id": row.bucket_id, "part": row.part},
    }


def view(row: DocumentRow, vectors: dict[str, list[float]] | None = None) -> dict[str, Any]:
    """Return a document as the contract wants it."""
    content = {
        **row.fields,
        "document_id": row.id,
        "collection_id": row.collection_id,
        "_internal": internal(row),
        "searchable_at": moment(row.updated_at),
    }
    return content if vectors is None else {**content, "vectors": vectors}
