"""Buckets: a schema, and the objects that keep to it."""

from sqlalchemy import Index, Text, func, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from storage.database import JsonColumn, JsonObject, Row
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import NamedRow, add_named, living, require_named, within


class BucketRow(NamedRow, Row):
    """A bucket. ``schema`` is ``{property: {type, required, …}}``."""

    __tablename__ = "buckets"
    __table_args__ = (
        Index(
            "ux_buckets_name",
            "organization_id",
            "namespace_id",
            "name",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )
    description: Mapped[str | None] = mapped_column(Text)
    schema: Mapped[JsonObject] = mapped_column(JsonColumn)
    settings: Mapped[JsonObject] = mapped_column(JsonColumn)


HINT = "Make one with POST /v1/buckets, or list them with POST /v1/buckets/list."


def add(session: Session, row: BucketRow) -> BucketRow:
    """Insert a bucket. Raises AlreadyExists when the name is taken."""
    return add_named(session, row, "bucket")


def require(session: Session, scope: Scope, identifier: str) -> BucketRow:
    """Return a bucket by id or name. Raises NotFound."""
    return require_named(session, BucketRow, scope, "bucket", identifier, HINT)


def list_page(session: Session, scope: Scope, request: PageRequest, search: str | None = None) -> Page[BucketRow]:
    """Return one page of a namespace's buckets, with their number."""
    statement = living(BucketRow, scope)
    if search:
        statement = statement.where(func.lower(BucketRow.name).contains(search.lower(), autoescape=True))
    return page(session, statement, (BucketRow.created_at, BucketRow.id), request, count=True)


def mark_deleting(session: Session, scope: Scope, bucket_id: str) -> None:
    """Hide a bucket; the sweep removes what is in it."""
    statement = update(BucketRow).where(within(BucketRow, scope), BucketRow.id == bucket_id)
    session.execute(statement.values(state="deleting"))
