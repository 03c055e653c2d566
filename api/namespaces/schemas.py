"""What namespaces look like on the wire."""

from typing import Any

from pydantic import Field

from api.bodies import Body
from api.replies import moment
from domain.json_types import Json
from storage.tables.namespaces import NamespaceRow


class NamespaceCreate(Body):
    """A new namespace. The id may be chosen; otherwise it is made."""

    namespace_name: str = Field(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")
    namespace_id: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")
    description: str | None = Field(None, max_length=4_000)
    mode: str | None = Field(None, pattern="^managed$", description="standalone namespaces are not offered yet")
    feature_extractors: list[dict[str, Json]] | None = None
    payload_indexes: list[dict[str, Json]] | None = None


class NamespaceQuery(Body):
    """What a list of namespaces may be asked for, beside the page."""

    search: str | None = Field(None, max_length=256)
    limit: Json = None
    page_size: Json = None
    offset: Json = None
    page: Json = None
    cursor: Json = None
    include_total: Json = None


def view(row: NamespaceRow, counts: dict[str, int]) -> dict[str, Any]:
    """Return a namespace as the contract wants it."""
    return {
        "namespace_id": row.id,
        "namespace_name": row.name,
        "description": row.description,
        "mode": "managed",
        "namespace_ready": True,
        "feature_extractors": row.settings.get("feature_extractors") or [],
        "payload_indexes": row.settings.get("payload_indexes") or [],
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
        **counts,
    }
