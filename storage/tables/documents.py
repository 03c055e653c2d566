"""Documents: what extractors wrote. These rows are the truth; the vector index is derived from them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Index, Integer, String, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.errors import Invalid, NotFound
from domain.filters import Filter
from storage.database import JsonColumn, JsonObject, Row, now_ms
from storage.tables import json_filters
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import ScopedRow, living, within

MAX_RESOLVED = 50_000


class DocumentRow(ScopedRow, Row):
    """One document.

    ``folded`` is ``fields`` with every string case-folded, because no two databases fold alike; ``object_id``
    is the root object, ``source_id`` what the extractor read (that object, or an upstream document);
    ``vector_key`` finds its embedding in `vectors`.
    """

    __tablename__ = "documents"
    __table_args__ = (
        # Begins with the collection and not with the tenant: otherwise SQLite prefers it to the primary key.
        Index("ix_documents_listed", "collection_id", "created_at", "id"),
        Index("ix_documents_source", "collection_id", "source_id", "part"),
        Index("ix_documents_object", "object_id"),
        Index("ix_documents_bucket", "bucket_id"),
    )
    collection_id: Mapped[str] = mapped_column(String(40))
    bucket_id: Mapped[str] = mapped_column(String(40))
    object_id: Mapped[str] = mapped_column(String(40))
    source_id: Mapped[str] = mapped_column(String(40))
    batch_id: Mapped[str] = mapped_column(String(40))
    object_version: Mapped[int] = mapped_column(BigInteger)
    part: Mapped[int] = mapped_column(Integer)
    epoch: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int] = mapped_column(Integer, default=0)
    fields: Mapped[JsonObject] = mapped_column(JsonColumn)
    folded: Mapped[JsonObject] = mapped_column(JsonColumn, deferred=True)
    lineage: Mapped[JsonObject] = mapped_column(JsonColumn)
    content_hash: Mapped[str] = mapped_column(String(64))
    vector_key: Mapped[str | None] = mapped_column(String(64))


class DocumentSource(NamedTuple):
    """What a worker reads of a document that another collection is made from."""

    id: str
    collection_id: str
    object_id: str
    bucket_id: str
    epoch: int
    fields: JsonObject


def replace(
    session: Session, collection_id: str, sources: Mapping[str, int], rows: Sequence[dict[str, object]]
) -> None:
    """Make these rows the documents of these sources.

    ``sources`` is source id → number of parts: parts from that number on are removed. ``rows`` hold all
    columns but the times: a document that exists keeps the time of its creation.
    """
    by_parts: dict[int, list[str]] = {}
    for source_id, parts in sources.items():
        by_parts.setdefault(parts, []).append(source_id)
    for parts, source_ids in by_parts.items():
        session.execute(
            delete(DocumentRow).where(
                DocumentRow.collection_id == collection_id,
                DocumentRow.source_id.in_(source_ids),
                DocumentRow.part >= parts,
            )
        )
    if not rows:
        return
    dialect_insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    statement = dialect_insert(DocumentRow)
    changed = {name: getattr(statement.excluded, name) for name in rows[0] if name != "id"}
    changed["updated_at"] = now_ms()
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), list(rows))


def require(session: Session, scope: Scope, collection_id: str, document_id: str) -> DocumentRow:
    """Return a living document of a collection. Raises NotFound."""
    statement = living(DocumentRow, scope).where(
        DocumentRow.collection_id == collection_id, DocumentRow.id == document_id
    )
    row = session.scalar(statement)
    if row is None:
        raise NotFound("document", document_id)
    return row


def load(session: Session, scope: Scope, document_ids: Sequence[str]) -> dict[str, DocumentRow]:
    """Return the living documents among these ids."""
    statement = living(DocumentRow, scope).where(DocumentRow.id.in_(document_ids))
    return {row.id: row for row in session.scalars(statement)}


def load_sources(session: Session, document_ids: Sequence[str]) -> dict[str, DocumentSource]:
    """Return living documents by id, for a worker that reads them as sources."""
    columns = (DocumentRow.id, DocumentRow.collection_id, DocumentRow.object_id)
    statement = select(*columns, DocumentRow.bucket_id, DocumentRow.epoch, DocumentRow.fields)
    statement = statement.where(DocumentRow.id.in_(document_ids), DocumentRow.state == "active")
    return {row.id: row for row in map(DocumentSource._make, session.execute(statement))}


def of_source(session: Session, collection_id: str, source_id: str) -> list[DocumentRow]:
    """Return the documents of one source in one collection, living ones only, for a worker."""
    statement = select(DocumentRow).where(
        DocumentRow.collection_id == collection_id, DocumentRow.source_id == source_id, DocumentRow.state == "active"
    )
    return list(session.scalars(statement.order_by(DocumentRow.part)))


def list_page(
    session: Session, scope: Scope, collection_ids: Sequence[str], request: PageRequest, wanted: Filter | None
) -> Page[DocumentRow]:
    """Return one page of documents of some collections, oldest first."""
    statement = living(DocumentRow, scope).where(DocumentRow.collection_id.in_(collection_ids))
    if wanted is not None:
        statement = statement.where(_matching(session, wanted))
    return page(session, statement, (DocumentRow.created_at, DocumentRow.id), request)


def count(session: Session, scope: Scope, collection_id: str) -> int:
    """Return the number of living documents of a collection."""
    statement = select(func.count()).select_from(DocumentRow)
    return session.scalar(statement.where(within(DocumentRow, scope), DocumentRow.collection_id == collection_id)) or 0


def count_each(session: Session, scope: Scope, collection_ids: Sequence[str]) -> dict[str, int]:
    """Return collection id → number of living documents."""
    statement = (
        select(DocumentRow.collection_id, func.count())
        .where(within(DocumentRow, scope), DocumentRow.collection_id.in_(collection_ids))
        .group_by(DocumentRow.collection_id)
    )
    return {collection_id: number for collection_id, number in session.execute(statement)}  # noqa: C416 - rows, not tuples


def resolve(session: Session, scope: Scope, collection_ids: Sequence[str], wanted: Filter) -> list[str]:
    """Return the ids of all documents that match, for filters that the index cannot evaluate.

    Raises:
        Invalid: more than 50,000 match (code ``filter_too_broad``).
    """
    statement = (
        select(DocumentRow.id)
        .where(within(DocumentRow, scope), DocumentRow.collection_id.in_(collection_ids))
        .where(_matching(session, wanted))
        .limit(MAX_RESOLVED + 1)
    )
    found = list(session.scalars(statement))
    if len(found) > MAX_RESOLVED:
        message = f"This filter matches more than {MAX_RESOLVED:,} documents. Add a condition that narrows it."
        raise Invalid(message, code="filter_too_broad", location=("body", "filters"))
    return found


def _matching(session: Session, wanted: Filter):  # type: ignore[no-untyped-def]  # noqa: ANN202
    return json_filters.compile_filter(wanted, DocumentRow.fields, DocumentRow.folded, session.get_bind().dialect.name)


def hide_bucket(session: Session, scope: Scope, bucket_id: str) -> None:
    """Hide every document that came out of a bucket; the sweep removes them."""
    statement = update(DocumentRow).where(within(DocumentRow, scope), DocumentRow.bucket_id == bucket_id)
    session.execute(statement.values(state="deleting"))


def some_ids(
    session: Session, scope: Scope, *, collection_id: str | None = None, bucket_id: str | None = None
) -> list[str]:
    """Return up to 1,000 document ids, hidden ones included, for the sweep to remove."""
    statement = select(DocumentRow.id).where(
        DocumentRow.organization_id == scope.organization_id, DocumentRow.namespace_id == scope.namespace_id
    )
    if collection_id is not None:
        statement = statement.where(DocumentRow.collection_id == collection_id)
    if bucket_id is not None:
        statement = statement.where(DocumentRow.bucket_id == bucket_id)
    return list(session.scalars(statement.limit(1_000)))


def remove(session: Session, document_ids: Sequence[str]) -> None:
    """Delete rows, for the sweep."""
    session.execute(delete(DocumentRow).where(DocumentRow.id.in_(document_ids)))
