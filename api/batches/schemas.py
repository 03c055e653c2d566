"""What batches look like on the wire."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import AliasChoices, Field

from api.bodies import Body
from api.replies import moment
from domain.json_types import Json
from domain.lifecycle import LIFECYCLE, BatchStatus, ItemState
from storage.tables.batches import BatchRow
from storage.tables.items import ItemRow
from storage.tables.tasks import TaskRow

MAX_OBJECTS = 50_000
_DONE = (ItemState.COMPLETED, ItemState.FAILED, ItemState.CANCELED, ItemState.SUPERSEDED, ItemState.SKIPPED)


class BatchCreate(Body):
    """A new batch: which objects, through which collections (all that the bucket feeds, if none are named)."""

    object_ids: list[str] | None = Field(None, max_length=MAX_OBJECTS)
    filters: Json = None
    collection_ids: list[str] | None = Field(
        None, max_length=1_000, validation_alias=AliasChoices("collection_ids", "collection_identifiers")
    )
    limit: int | None = Field(None, ge=1, le=MAX_OBJECTS)
    dedup_strategy: str | None = Field("skip", pattern="^(skip|replace|force)$")
    metadata: dict[str, Json] | None = None
    batch_name: str | None = Field(None, max_length=256)
    auto_submit: bool | None = False


class BatchObjects(Body):
    """Objects to be put into a draft."""

    object_ids: list[str] = Field(min_length=1, max_length=MAX_OBJECTS)


class BatchSubmit(Body):
    """How a batch is to be submitted."""

    include_processing_history: bool | None = True
    webhook_url: str | None = None
    dedup_strategy: str | None = Field(None, pattern="^(skip|replace|force)$")


Counts = Mapping[int, Mapping[ItemState, int]]


def progress(row: BatchRow, counts: Counts, now: int) -> dict[str, Any]:
    """Return how far a batch is: items of all tiers that have begun."""
    total = sum(sum(states.values()) for states in counts.values())
    processed = sum(number for states in counts.values() for state, number in states.items() if state in _DONE)
    eta = None
    if row.started_at is not None and not row.is_terminal and processed:
        eta = round((now - row.started_at) / 1000 * (total - processed) / processed, 1)
    percent = 100.0 if row.status == BatchStatus.COMPLETED else round(100 * processed / total, 1) if total else 0.0
    return {"processed": processed, "total": total, "percent": percent, "eta_seconds": eta}


def view(
    row: BatchRow,
    *,
    object_ids: Sequence[str],
    counts: Counts,
    work: tuple[int, int, int],
    failures: Sequence[ItemRow],
    receipts: Sequence[TaskRow],
    now: int,
) -> dict[str, Any]:
    """Return a batch as the contract wants it, with a reason for every object that failed."""
    by_state: dict[str, int] = {}
    for states in counts.values():
        for state, number in states.items():
            by_state[state.value] = by_state.get(state.value, 0) + number
    return {
        "batch_id": row.id,
        "bucket_id": row.bucket_id,
        "namespace_id": row.namespace_id,
        "batch_name": row.name,
        "status": row.status,
        "lifecycle": LIFECYCLE[BatchStatus(row.status)],
        "lifecycle_reason": row.waiting_reason,
        "object_ids": list(object_ids),
        "object_count": len(object_ids),
        "collection_ids": [one for tier in row.dag_tiers if isinstance(tier, list) for one in tier]
        or row.collection_ids,
        "dag_tiers": row.dag_tiers,
        "current_tier": max(row.current_tier, 0),
        "total_tiers": max(len(row.dag_tiers), 1),
        "tier_tasks": [_tier(task, row) for task in receipts],
        "task_id": receipts[0].id if receipts else None,
        "progress": progress(row, counts, now),
        "item_counts": by_state,
        "documents_written": work[0],
        "tokens_processed": work[1],
        "tokens_truncated": work[2],
        "failed_objects": [_failure(item) for item in failures],
        "failure_reason": row.failure_reason,
        "dedup_strategy": row.dedup_strategy,
        "metadata": row.settings.get("metadata") or {},
        "max_node_death_resubmits": 3,
        "max_deploy_resubmits": 3,
        "submitted_at": moment(row.submitted_at),
        "started_at": moment(row.started_at),
        "completed_at": moment(row.finished_at),
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }


def _tier(task: TaskRow, row: BatchRow) -> dict[str, Any]:
    number = task.tier or 0
    return {
        "tier_num": number,
        "source_type": "bucket" if number == 0 else "collection",
        "task_id": task.id,
        "status": task.status,
        "collection_ids": row.tier(number),
        "source_collection_ids": row.tier(number - 1) if number else [],
        "started_at": moment(task.created_at),
        "completed_at": moment(task.updated_at) if task.status not in {"PENDING", "PROCESSING"} else None,
        "errors": [],
    }


def _failure(item: ItemRow) -> dict[str, Any]:
    return {
        "object_id": item.object_id,
        "collection_id": item.collection_id,
        "tier_num": item.tier,
        "error": item.reason or item.reason_code,
        "error_code": item.reason_code,
        "error_type": item.error_type or "permanent",
        "attempts": item.attempts,
        "timestamp": moment(item.updated_at),
    }


def task_view(task: TaskRow) -> dict[str, Any]:
    """Return a task as the contract wants it."""
    return {
        "task_id": task.id,
        "task_type": task.type,
        "status": task.status,
        "namespace_id": task.namespace_id,
        "inputs": [],
        "outputs": [],
        "additional_data": task.details,
        "error_message": task.error,
        "created_at": moment(task.created_at),
        "updated_at": moment(task.updated_at),
    }
