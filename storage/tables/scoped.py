"""What rows of one namespace have in common: whose they are, when they were made, whether they still live."""

from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Select, String, and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.documents import Scope
from domain.errors import AlreadyExists, NotFound
from storage.database import now_ms


class ScopedRow:
    """Columns of every row inside a namespace. ``state`` is active, or deleting until the sweep is through."""

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    organization_id: Mapped[str] = mapped_column(String(40))
    namespace_id: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(10), default="active")
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())
    updated_at: Mapped[int] = mapped_column(BigInteger, default=now_ms(), onupdate=now_ms())

    @property
    def scope(self) -> Scope:
        """What every query about this row carries."""
        return Scope(self.organization_id, self.namespace_id)


class NamedRow(ScopedRow):
    """A row that users may also address by its name."""

    name: Mapped[str] = mapped_column(String(256))


S = TypeVar("S", bound=ScopedRow)
N = TypeVar("N", bound=NamedRow)


def within(row: type[ScopedRow] | Any, scope: Scope) -> ColumnElement[bool]:
    """Return the condition that a row belongs to this scope and lives."""
    return and_(
        row.organization_id == scope.organization_id, row.namespace_id == scope.namespace_id, row.state == "active"
    )


def living(row: type[S], scope: Scope) -> Select[S]:
    """Select the living rows of a scope."""
    return select(row).where(within(row, scope))


def find_named(session: Session, row: type[N], scope: Scope, identifier: str) -> N | None:
    """Return a living row by id or name; an id wins over a name."""
    statement = living(row, scope).where(or_(row.id == identifier, row.name == identifier))
    return session.scalars(statement.order_by((row.id == identifier).desc())).first()


def require_named(session: Session, row: type[N], scope: Scope, resource: str, identifier: str, hint: str = "") -> N:
    """Return a living row by id or name.

    Raises:
        NotFound: the scope has none of that id or name.
    """
    found = find_named(session, row, scope, identifier)
    if found is None:
        raise NotFound(resource, identifier, hint)
    return found


def add_named(session: Session, row: N, resource: str) -> N:
    """Insert a row now, so that a taken name is an answer and not a crash at commit.

    Raises:
        AlreadyExists: the scope already has a living row of this name.
    """
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise AlreadyExists(resource, row.name) from error
    return row
