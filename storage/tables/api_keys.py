"""API keys. Only a keyed hash is stored, so a copy of the database opens nothing."""

from typing import Final

from sqlalchemy import BigInteger, ForeignKey, String, UniqueConstraint, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from domain.ids import new_id
from storage.database import JsonColumn, JsonList, Row, now_ms

ADMIN_KEY: Final = "admin-key"


class ApiKeyRow(Row):
    """A key. ``key_hash`` is HMAC-SHA256 under the server's pepper; prefix and last four are for people."""

    __tablename__ = "api_keys"
    __table_args__ = (UniqueConstraint("user_id", "name"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(100))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    key_prefix: Mapped[str] = mapped_column(String(16))
    last_four: Mapped[str] = mapped_column(String(4))
    permissions: Mapped[JsonList] = mapped_column(JsonColumn)
    status: Mapped[str] = mapped_column(String(20), default="active")
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())


def find_active(session: Session, key_hash: str) -> ApiKeyRow | None:
    """Return the key of that hash if it is active and has not expired."""
    statement = select(ApiKeyRow).where(
        ApiKeyRow.key_hash == key_hash,
        ApiKeyRow.status == "active",
        ApiKeyRow.expires_at.is_(None) | (ApiKeyRow.expires_at > now_ms()),
    )
    return session.scalar(statement)


def set_admin_key(session: Session, organization_id: str, user_id: str, key_hash: str, key: str) -> None:
    """Make this the organization's only admin key; a former one stops working."""
    session.execute(delete(ApiKeyRow).where(ApiKeyRow.user_id == user_id, ApiKeyRow.name == ADMIN_KEY))
    # The same secret may belong to another name only by the operator's wish: it moves to the admin key.
    session.execute(delete(ApiKeyRow).where(ApiKeyRow.key_hash == key_hash))
    row = ApiKeyRow(
        id=new_id("key"),
        organization_id=organization_id,
        user_id=user_id,
        name=ADMIN_KEY,
        key_hash=key_hash,
        key_prefix=key[:6] if len(key) >= 24 else "",  # noqa: PLR2004 - of a short key nothing is shown
        last_four=key[-4:] if len(key) >= 24 else "",  # noqa: PLR2004
        permissions=["read", "write", "delete", "admin"],
    )
    session.add(row)


def find_admin_key(session: Session, user_id: str) -> ApiKeyRow | None:
    """Return the admin key of a user, if there is one."""
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.user_id == user_id, ApiKeyRow.name == ADMIN_KEY))
