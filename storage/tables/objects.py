"""Objects: one raw row in a bucket, and the blobs it points to."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Index, Integer, String, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.errors import NotFound
from storage.database import JsonColumn, JsonList, JsonObject, Row
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import ScopedRow, living, within


class ObjectRow(ScopedRow, Row):
    """An object.

    ``fields`` are the user's own, ``blobs`` a list of ``{blob_id, property, type, …}`` whose content is either
    ``text`` (inline) or a ``key`` in the blob store. ``version`` counts its changes; ``estimated_tokens``
    lets workers take even portions.
    """

    __tablename__ = "objects"
    __table_args__ = (
        # Begins with the bucket and not with the tenant: otherwise SQLite prefers it to the primary key.
        Index("ix_objects_listed", "bucket_id", "created_at", "id"),
    )
    bucket_id: Mapped[str] = mapped_column(String(40))
    version: Mapped[int] = mapped_column(Integer, default=1)
    key_prefix: Mapped[str | None] = mapped_column(String(1024))
    fields: Mapped[JsonObject] = mapped_column(JsonColumn)
    blobs: Mapped[JsonList] = mapped_column(JsonColumn)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    estimated_tokens: Mapped[int] = mapped_column(Integer, default=0)


class ObjectSource(NamedTuple):
    """What a worker reads of an object."""

    id: str
    bucket_id: str
    version: int
    fields: JsonObject
    blobs: JsonList


def add_all(session: Session, rows: Sequence[dict[str, object]]) -> None:
    """Insert many objects at once."""
    if rows:
        session.execute(insert(ObjectRow), list(rows))


def require(session: Session, scope: Scope, bucket_id: str, object_id: str) -> ObjectRow:
    """Return a living object of a bucket.

    Raises:
        NotFound: the bucket has none of that id.
    """
    statement = living(ObjectRow, scope).where(ObjectRow.bucket_id == bucket_id, ObjectRow.id == object_id)
    row = session.scalar(statement)
    if row is None:
        raise NotFound("object", object_id)
    return row


def among(session: Session, scope: Scope, bucket_id: str, object_ids: Sequence[str]) -> set[str]:
    """Return which of these ids are living objects of the bucket."""
    found: set[str] = set()
    for start in range(0, len(object_ids), 5_000):
        some = object_ids[start : start + 5_000]
        statement = select(ObjectRow.id).where(
            within(ObjectRow, scope), ObjectRow.bucket_id == bucket_id, ObjectRow.id.in_(some)
        )
        found.update(session.scalars(statement))
    return found


def load(session: Session, scope: Scope, object_ids: Sequence[str]) -> dict[str, ObjectRow]:
    """Return living objects by id; absent ones are left out."""
    statement = living(ObjectRow, scope).where(ObjectRow.id.in_(object_ids))
    return {row.id: row for row in session.scalars(statement)}


def load_sources(session: Session, scope: Scope, object_ids: Sequence[str]) -> dict[str, ObjectSource]:
    """Return living objects by id, for a worker that reads them as sources."""
    columns = (ObjectRow.id, ObjectRow.bucket_id, ObjectRow.version, ObjectRow.fields, ObjectRow.blobs)
    statement = select(*columns).where(within(ObjectRow, scope), ObjectRow.id.in_(object_ids))
    return {row.id: row for row in map(ObjectSource._make, session.execute(statement))}


def list_page(session: Session, scope: Scope, bucket_id: str, request: PageRequest) -> Page[ObjectRow]:
    """Return one page of a bucket's objects, in the order of their creation."""
    statement = living(ObjectRow, scope).where(ObjectRow.bucket_id == bucket_id)
    return page(session, statement, (ObjectRow.created_at, ObjectRow.id), request)


def totals(session: Session, scope: Scope, bucket_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return number of objects and bytes of each bucket."""
    statement = (
        select(ObjectRow.bucket_id, func.count(), func.coalesce(func.sum(ObjectRow.size_bytes), 0))
        .where(within(ObjectRow, scope), ObjectRow.bucket_id.in_(bucket_ids))
        .group_by(ObjectRow.bucket_id)
    )
    return {bucket_id: (count, int(size)) for bucket_id, count, size in session.execute(statement)}


def mark_deleting(session: Session, scope: Scope, bucket_id: str) -> None:
    """Hide all objects of a bucket; the sweep removes them and their blobs."""
    statement = update(ObjectRow).where(within(ObjectRow, scope), ObjectRow.bucket_id == bucket_id)
    session.execute(statement.values(state="deleting", version=ObjectRow.version + 1))


def versions(session: Session, scope: Scope, object_ids: Sequence[str]) -> dict[str, int]:
    """Return object id → present version of the living ones among these ids."""
    statement = select(ObjectRow.id, ObjectRow.version).where(within(ObjectRow, scope), ObjectRow.id.in_(object_ids))
    return {object_id: version for object_id, version in session.execute(statement)}  # noqa: C416 - rows, not tuples
