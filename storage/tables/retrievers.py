"""Retrievers: saved pipelines of stages."""

from sqlalchemy import Index, Integer, Text, func, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from storage.database import JsonColumn, JsonList, JsonObject, Row
from storage.tables.paging import Page, PageRequest, page
from storage.tables.scoped import NamedRow, add_named, living, require_named, within


class RetrieverRow(NamedRow, Row):
    """A retriever. ``stages`` are in the canonical spelling, ``collection_ids`` are ids only."""

    __tablename__ = "retrievers"
    __table_args__ = (
        Index(
            "ux_retrievers_name",
            "organization_id",
            "namespace_id",
            "name",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )
    description: Mapped[str | None] = mapped_column(Text)
    stages: Mapped[JsonList] = mapped_column(JsonColumn)
    input_schema: Mapped[JsonObject] = mapped_column(JsonColumn)
    collection_ids: Mapped[JsonList] = mapped_column(JsonColumn)
    settings: Mapped[JsonObject] = mapped_column(JsonColumn)
    version: Mapped[int] = mapped_column(Integer, default=1)


def add(session: Session, row: RetrieverRow) -> RetrieverRow:
    """Insert a retriever. Raises AlreadyExists when the name is taken."""
    return add_named(session, row, "retriever")


def require(session: Session, scope: Scope, identifier: str) -> RetrieverRow:
    """Return a retriever by id or name. Raises NotFound."""
    return require_named(session, RetrieverRow, scope, "retriever", identifier)


def list_page(session: Session, scope: Scope, request: PageRequest, search: str | None = None) -> Page[RetrieverRow]:
    """Return one page of a namespace's retrievers, with their number."""
    statement = living(RetrieverRow, scope)
    if search:
        statement = statement.where(func.lower(RetrieverRow.name).contains(search.lower(), autoescape=True))
    return page(session, statement, (RetrieverRow.created_at, RetrieverRow.id), request, count=True)


def remove(session: Session, scope: Scope, retriever_id: str) -> None:
    """Hide a retriever; nothing else depends on it."""
    statement = update(RetrieverRow).where(within(RetrieverRow, scope), RetrieverRow.id == retriever_id)
    session.execute(statement.values(state="deleting"))
