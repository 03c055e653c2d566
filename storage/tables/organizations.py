"""Organizations (the tenants) and the users inside them."""

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.errors import AlreadyExists
from domain.ids import new_id
from storage.database import Row, now_ms


class OrganizationRow(Row):
    """A tenant. ``served_epoch`` is when workers last took work of it, so that they take turns."""

    __tablename__ = "organizations"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    served_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())


class UserRow(Row):
    """A person or program of an organization."""

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("organization_id", "email"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    email: Mapped[str] = mapped_column(String(320))
    user_name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(20), default="admin")
    status: Mapped[str] = mapped_column(String(20), default="active")
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())


def add(session: Session, name: str) -> tuple[OrganizationRow, UserRow]:
    """Add an organization with its first user, an administrator.

    Raises:
        AlreadyExists: the name is taken.
    """
    organization = OrganizationRow(id=new_id("org"), name=name)
    user = UserRow(id=new_id("usr"), organization_id=organization.id, email="admin@localhost", user_name="admin")
    try:
        with session.begin_nested():
            session.add(organization)
            session.flush()
            session.add(user)
    except IntegrityError as error:
        raise AlreadyExists("organization", name) from error
    return organization, user


def find(session: Session, name: str) -> tuple[OrganizationRow, UserRow] | None:
    """Return an organization and its first user by the organization's name."""
    statement = (
        select(OrganizationRow, UserRow)
        .join(UserRow, UserRow.organization_id == OrganizationRow.id)
        .where(OrganizationRow.name == name)
        .order_by(UserRow.created_at)
        .limit(1)
    )
    row = session.execute(statement).first()
    return (row[0], row[1]) if row else None
