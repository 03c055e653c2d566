"""Numbers about whole namespaces. Always counted, never kept."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain.documents import Scope
from storage.tables.buckets import BucketRow
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow
from storage.tables.objects import ObjectRow
from storage.tables.retrievers import RetrieverRow
from storage.tables.scoped import within

_COUNTED = {
    "document_count": DocumentRow,
    "object_count": ObjectRow,
    "bucket_count": BucketRow,
    "collection_count": CollectionRow,
    "retriever_count": RetrieverRow,
}


def documents_in_all(session: Session) -> int:
    """Return how many documents there are, of all organizations; for `doctor`."""
    return session.scalar(select(func.count()).select_from(DocumentRow)) or 0


def of_namespace(session: Session, scope: Scope) -> dict[str, int]:
    """Return how many documents, objects, buckets, collections and retrievers live in a namespace."""
    return {
        name: session.scalar(select(func.count()).select_from(row).where(within(row, scope))) or 0
        for name, row in _COUNTED.items()
    }
