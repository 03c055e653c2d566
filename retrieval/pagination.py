"""Cutting one page out of a pipeline's results, as the contract's methods describe pages."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from domain.documents import Document
from domain.errors import Invalid
from domain.ids import digest
from domain.json_types import Fields, Json

_WHERE: Final = ("body", "pagination")
_MOST: Final = 500
_LAST_PAGE: Final = 100_000


def cut(
    documents: Sequence[Document],
    asked: Mapping[str, Json] | None,
    *,
    limit: int | None,
    default: int = 10,
    about: str = "",
) -> tuple[list[Document], Fields]:
    """Return one page and its description; ``total`` counts what was computed before the cut. Order is kept.

    Args:
        documents: all that the pipeline found.
        asked: the explicit pagination, which wins; its ``method`` defaults to cursor, or offset by its keys.
        limit: the body's limit, which sizes the default cursor pagination.
        default: the size where nobody asked for one.
        about: what was asked, as a text; a cursor only goes on with what it was given out for.

    Raises:
        Invalid: a number is out of range, a cursor is not ours or of another query, or the method is not offered.
    """
    asked = asked or {}
    method = asked.get("method") or ("offset" if "page_number" in asked else "cursor")
    if method == "offset":
        size = _number(asked, "page_size", limit or default)
        number = _number(asked, "page_number", 1, most=_LAST_PAGE)
        start = (number - 1) * size
        shown: Fields = {"method": "offset", "page_number": number, "page_size": size}
        more = start + size < len(documents)
    elif method == "cursor":
        size = _number(asked, "limit", limit or default)
        start = _decode(asked.get("cursor"), about)
        more = start + size < len(documents)
        shown = {"method": "cursor", "limit": size, "cursor": _encode(start + size, about) if more else None}
    else:
        message = f"Pagination by {str(method)[:40]!r} is not offered yet; use offset or cursor."
        raise Invalid(message, location=(*_WHERE, "method"), code="not_offered")
    page = list(documents[start : start + size])
    return page, {**shown, "returned": len(page), "total": len(documents), "has_next": more}


def _number(asked: Mapping[str, Json], name: str, default: int, *, most: int = _MOST) -> int:
    value: Any = asked.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Invalid(f"{name} must be a whole number from 1 to {most:,}.", location=(*_WHERE, name))
    return value


def _fingerprint(about: str) -> str:
    return digest(about)[:6].hex()


def _encode(start: int, about: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([_fingerprint(about), start])).decode().rstrip("=")


def _decode(cursor: Json, about: str) -> int:
    if cursor is None or cursor == "":
        return 0
    mark, start = None, None
    try:
        if isinstance(cursor, str):
            mark, start = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, TypeError):
        start = None
    if not isinstance(mark, str) or isinstance(start, bool) or not isinstance(start, int) or start < 0:
        message = "This cursor was not given out by this server. Start again without one."
        raise Invalid(message, location=(*_WHERE, "cursor"), code="cursor_malformed")
    if mark != _fingerprint(about):
        message = "This cursor belongs to another query. Start again without one."
        raise Invalid(message, location=(*_WHERE, "cursor"), code="cursor_of_another_query")
    return start
