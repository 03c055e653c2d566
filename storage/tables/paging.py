"""Pages of rows by (created_at, id): as fast at the millionth row as at the first."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import orjson
from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from domain.errors import Invalid


class _Listed(Protocol):
    id: Any
    created_at: Any


R = TypeVar("R", bound=_Listed)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is wanted. A cursor wins over an offset."""

    limit: int = 10
    offset: int = 0
    cursor: str | None = None
    include_total: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some rows, where the next ones begin, and how many there are (None unless asked)."""

    rows: Sequence[R]
    next_cursor: str | None
    total: int | None


def page(
    session: Session,
    statement: Select[R],
    key: tuple[InstrumentedAttribute[int], InstrumentedAttribute[str]],
    request: PageRequest,
    *,
    count: bool = False,
) -> Page[R]:
    """Return one page of a statement's rows, oldest first.

    Raises:
        Invalid: the cursor is not one that this server gave out.
    """
    wanted_total = count or request.include_total
    total = session.scalar(select(func.count()).select_from(statement.subquery())) if wanted_total else None
    created_at, row_id = key
    ordered = statement.order_by(created_at, row_id).limit(request.limit + 1)
    if request.cursor is not None:
        ordered = ordered.where(tuple_(created_at, row_id) > tuple_(*_decode(request.cursor)))
    else:
        ordered = ordered.offset(request.offset)
    rows = list(session.scalars(ordered))
    more = len(rows) > request.limit
    rows = rows[: request.limit]
    return Page(rows, _encode(rows[-1].created_at, rows[-1].id) if more else None, total)


def _encode(created_at: int, row_id: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([created_at, row_id])).decode().rstrip("=")


def _decode(cursor: str) -> tuple[int, str]:
    try:
        created_at, row_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        created_at, row_id = None, None
    if not isinstance(created_at, int) or not isinstance(row_id, str):
        message = "This cursor was not given out by this server. Start again without one."
        raise Invalid(message, location=("query", "cursor"), code="cursor_malformed")
    return created_at, row_id
