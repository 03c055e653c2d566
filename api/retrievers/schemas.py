"""What retrievers and their executions look like on the wire."""

from collections.abc import Sequence
from typing import Any

from pydantic import AliasChoices, Field

from api.bodies import Body
from api.replies import moment, without_none
from domain.documents import Document
from domain.json_types import Fields, Json
from retrieval.engine import Execution
from storage.tables.retrievers import RetrieverRow


class RetrieverCreate(Body):
    """A new retriever."""

    retriever_name: str = Field(min_length=1, max_length=100)
    stages: list[Any] = Field(min_length=1, max_length=20)
    collection_identifiers: list[str] = Field(
        default_factory=list, max_length=100, validation_alias=AliasChoices("collection_identifiers", "collection_ids")
    )
    input_schema: Json = None
    description: str | None = Field(None, max_length=4_000)
    tags: list[str] | None = None
    metadata: dict[str, Json] | None = None


class ExecuteBody(Body):
    """An execution of a saved retriever."""

    inputs: dict[str, Json] | None = None
    filters: Json = None
    pagination: dict[str, Json] | None = None
    limit: int | None = Field(None, ge=1, le=500, validation_alias=AliasChoices("limit", "page_size"))
    settings: dict[str, Json] | None = None
    stream: bool | None = None
    return_urls: Json = None
    session_id: Json = None
    consistency: Json = None

    def wanted_limit(self) -> int | None:
        """Return the limit, also from ``settings`` where the high-level client puts it."""
        inner = (self.settings or {}).get("limit")
        return self.limit or (inner if isinstance(inner, int) and not isinstance(inner, bool) else None)


class AdhocBody(ExecuteBody):
    """An execution of stages that are not saved."""

    stages: list[Any] = Field(min_length=1, max_length=20)
    collection_identifiers: list[str] = Field(
        default_factory=list, max_length=100, validation_alias=AliasChoices("collection_identifiers", "collection_ids")
    )
    input_schema: Json = None
    pre_filters: Json = None


def view(row: RetrieverRow) -> dict[str, Any]:
    """Return a retriever as the contract wants it: flat."""
    return {
        "retriever_id": row.id,
        "retriever_name": row.name,
        "description": row.description,
        "collection_identifiers": row.collection_ids,
        "collection_ids": row.collection_ids,
        "stages": row.stages,
        "fusion": None,
        "input_schema": row.input_schema,
        "tags": row.settings.get("tags") or [],
        "metadata": row.settings.get("metadata") or {},
        "version": row.version,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def document_view(document: Document) -> dict[str, Any]:
    """Return one result."""
    shown = {
        **document.fields,
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "score": document.score,
        "_internal": document.internal,
    }
    return {**shown, "scores": document.scores} if document.scores else shown


def execution_view(
    execution_id: str, retriever_id: str | None, execution: Execution, page: Sequence[Document], pagination: Fields
) -> dict[str, Any]:
    """Return an execution as the contract wants it."""
    shown: dict[str, Any] = {
        "execution_id": execution_id,
        "retriever_id": retriever_id,
        "status": "degraded" if execution.degraded else "completed",
        "documents": [document_view(document) for document in page],
        "pagination": pagination,
        "stage_statistics": {
            "stages": execution.stages,
            "total_time_ms": execution.total_ms,
            "credits_used": 0.0,
        },
        "budget": {"credits_used": 0.0, "credits_remaining": None, "time_used_ms": execution.total_ms},
        "degraded": execution.degraded,
        "limits": [],
        "cache_hit": False,
        "interpretation": {"relaxations": execution.relaxations} if execution.relaxations else None,
        "warnings": execution.warnings or None,
    }
    return without_none(shown)
