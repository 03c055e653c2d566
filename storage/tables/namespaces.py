"""Namespaces: spaces inside an organization. Every other table carries their id."""

from sqlalchemy import BigInteger, Index, String, Text, bindparam, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.errors import AlreadyExists, NotFound
from storage.database import JsonColumn, JsonObject, Row, now_ms
from storage.tables.paging import Page, PageRequest, page


class NamespaceRow(Row):
    """A namespace. The id may be of the user's choosing, so it is unique inside the organization only."""

    __tablename__ = "namespaces"
    __table_args__ = (Index("ux_namespaces_name", "organization_id", "name", unique=True),)
    organization_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    description: Mapped[str | None] = mapped_column(Text)
    settings: Mapped[JsonObject] = mapped_column(JsonColumn)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now_ms(), onupdate=now_ms())

    @property
    def scope(self) -> Scope:
        """What every query inside this namespace carries."""
        return Scope(self.organization_id, self.id)


# Made once: every request asks it, and building it takes longer than the answer.
_NAMED = (
    select(NamespaceRow)
    .where(NamespaceRow.organization_id == bindparam("organization"))
    .where(or_(NamespaceRow.id == bindparam("wanted"), NamespaceRow.name == bindparam("wanted")))
    .order_by((NamespaceRow.id == bindparam("wanted")).desc())
)


def add(session: Session, row: NamespaceRow) -> NamespaceRow:
    """Insert a namespace now, so that a taken name is an answer and not a crash at commit.

    Raises:
        AlreadyExists: the id or the name is taken in this organization.
    """
    if find(session, row.organization_id, row.name) or find(session, row.organization_id, row.id):
        raise AlreadyExists("namespace", row.name)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise AlreadyExists("namespace", row.name) from error
    return row


def find(session: Session, organization_id: str, identifier: str) -> NamespaceRow | None:
    """Return a namespace by id or name; an id wins over a name."""
    return session.scalars(_NAMED, {"organization": organization_id, "wanted": identifier}).first()


def require(session: Session, organization_id: str, identifier: str) -> NamespaceRow:
    """Return a namespace by id or name.

    Raises:
        NotFound: this organization has none of that id or name.
    """
    row = find(session, organization_id, identifier)
    if row is None:
        raise NotFound("namespace", identifier, "Make one with POST /v1/namespaces, or list them.")
    return row


def list_page(session: Session, organization_id: str, request: PageRequest, search: str | None) -> Page[NamespaceRow]:
    """Return one page of an organization's namespaces, with their number."""
    statement = select(NamespaceRow).where(NamespaceRow.organization_id == organization_id)
    if search:
        statement = statement.where(func.lower(NamespaceRow.name).contains(search.lower(), autoescape=True))
    return page(session, statement, (NamespaceRow.created_at, NamespaceRow.id), request, count=True)


def remove(session: Session, scope: Scope) -> None:
    """Delete the namespace's own row."""
    statement = delete(NamespaceRow).where(
        NamespaceRow.organization_id == scope.organization_id, NamespaceRow.id == scope.namespace_id
    )
    session.execute(statement)
