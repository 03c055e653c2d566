"""What documents look like on the wire: the user's fields at the root, ours under ``_internal``."""

from typing import Any

from api.replies import moment
from domain.json_types import Fields
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow


def internal(row: DocumentRow, collection: CollectionRow) -> Fields:
    """Return what the platform knows of a document, and of the model that its collection is bound to."""
    known: Fields = {
        "namespace_id": row.namespace_id,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
        "content_hash": row.content_hash,
        "batch_id": row.batch_id,
        "lineage": {**row.lineage, "root_object_id": row.object_id, "root_bucket_id": row.bucket_id, "part": row.part},
    }
    return known if collection.model is None else {**known, "model": collection.model}


def view(row: DocumentRow, collection: CollectionRow, vectors: dict[str, list[float]] | None = None) -> dict[str, Any]:
    """Return a document as the contract wants it."""
    content = {
        **row.fields,
        "document_id": row.id,
        "collection_id": row.collection_id,
        "_internal": internal(row, collection),
        "searchable_at": moment(row.updated_at),
    }
    return content if vectors is None else {**content, "vectors": vectors}
