"""Replies: JSON as the contract wants it, written once and fast."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import Response


def reply(content: Any, *, status: int = 200, warnings: list[str] | None = None) -> Response:
    """Return a JSON response; ``warnings`` are added to an object that has something to say."""
    if warnings and isinstance(content, dict):
        content = {**content, "warnings": [*content.get("warnings", []), *warnings]}
    return Response(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json")


def moment(milliseconds: int | None) -> str | None:
    """Return a time as RFC 3339 in UTC with milliseconds."""
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the keys that have nothing to say."""
    return {key: value for key, value in content.items() if value is not None}
