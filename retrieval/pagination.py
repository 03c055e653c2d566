"""Cutting one page out of a pipeline's results, as the contract's methods describe pages."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from domain.documents import Document
from domain.errors import Invalid
from domain.json_types import Fields, Json

_WHERE: Final = ("body", "pagination")
_MOST: Final = 500


def cut(
    documents: Sequence[Document], asked: Mapping[str, Json] | None, *, limit: int | None, default: int = 10
) -> tuple[list[Document], Fields]:
    """Return one page and its description; ``total`` counts what was computed before the cut.

    Args:
        asked: the explicit pagination, which wins; its ``method`` defaults to cursor, or offset by its keys.
        limit: the body's limit, which sizes the default cursor pagination.

    Raises:
        Invalid: a number is out of range, a cursor is not ours, or the method is not offered.
    """
    asked = asked or {}
    method = asked.get("method") or ("offset" if "page_number" in asked else "cursor")
    if method == "offset":
        size = _number(asked, "page_size", limit or default)
        number = _number(asked, "page_number", 1, most=100_000)
        start = (number - 1) * size
        page = list(documents[start : start + size])
        about: Fields = {"method": "offset", "page_number": number, "page_size": size}
        more = start + size < len(documents)
    elif method == "cursor":
        size = _number(asked, "limit", limit or default)
        start = _decode(asked.get("cursor"))
        page = list(documents[start : start + size])
        more = start + size < len(documents)
        about = {"method": "cursor", "limit": size, "cursor": _encode(start + size) if more else None}
    else:
        message = f"Pagination by {str(method)[:40]!r} is not offered yet; use offset or cursor."
        raise Invalid(message, location=(*_WHERE, "method"), code="not_offered")
    return page, {**about, "returned": len(page), "total": len(documents), "has_next": more}


def _number(asked: Mapping[str, Json], name: str, default: int, *, most: int = _MOST) -> int:
    value: Any = asked.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Invalid(f"{name} must be a whole number from 1 to {most:,}.", location=(*_WHERE, name))
    return value


def _encode(start: int) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(["page", start])).decode().rstrip("=")


def _decode(cursor: Json) -> int:
    if cursor is None or cursor == "":
        return 0
    try:
        kind, start = orjson.loads(base64.urlsafe_b64decode(str(cursor) + "=" * (-len(str(cursor)) % 4)))
    except (binascii.Error, ValueError, TypeError):
        kind, start = None, None
    if kind != "page" or not isinstance(start, int) or start < 0:
        message = "This cursor was not given out by this server. Start again without one."
        raise Invalid(message, location=(*_WHERE, "cursor"), code="cursor_malformed")
    return start
