"""How a portion of work ends: completed, given back, or tried again. Every write is fenced by the epoch."""

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy.orm import Session

from domain.errors import OpenPeekError, Unavailable
from domain.ids import digest
from domain.json_types import Fields
from domain.lifecycle import ItemState
from storage.ports import Vector
from storage.tables import batches, documents, ending, items, json_filters, objects, tombstones, vectors
from storage.tables.collections import CollectionRow
from storage.tables.items import Claim, Item
from workers.runtime import Runtime

if TYPE_CHECKING:
    from workers.ingest import Written

MAX_ATTEMPTS: Final = 5
_LONGEST_PAUSE_MS: Final = 30_000


def complete(
    runtime: Runtime,
    taken: Claim,
    collection: CollectionRow,
    written: Mapping[int, "Written"],
    unkept: Mapping[str, Vector],
) -> None:
    """Write documents and close items in one transaction, as far as they are still ours; keep vectors in any case."""
    with runtime.storage.database.writing() as uow:
        session = uow.session
        vectors.keep(session, collection.organization_id, unkept)
        batches.lock(session, taken.batch_id)
        ours = items.still_ours(session, taken)
        current = _current_versions(session, taken, collection)
        changes: list[dict[str, object]] = []
        rows: list[dict[str, object]] = []
        parts: dict[str, int] = {}
        for item in taken.items:
            one = written.get(item.id)
            if item.id not in ours:
                _doubt(session, collection, item, runtime)
                continue
            if one is None or current.get(item.source_id) is None:
                changes.append(_failed(item, "SOURCE_DELETED", "The source was deleted before it was processed."))
                _doubt(session, collection, item, runtime)
            elif current[item.source_id] != one.loaded.version or one.loaded.version != item.object_version:
                changes.append({"id": item.id, "state": ItemState.SUPERSEDED.value})
                _doubt(session, collection, item, runtime)
            elif one.failure is not None:
                changes.append(_failure(session, item, one.failure))
            else:
                rows.extend(_document_rows(taken, collection, one))
                parts[one.loaded.source_id] = len(one.fields)
                changes.append(
                    {
                        "id": item.id,
                        "state": ItemState.COMPLETED.value,
                        "parts": len(one.fields),
                        "tokens": sum(one.tokens),
                        "truncated_tokens": one.truncated_tokens,
                    }
                )
        documents.replace(session, collection.id, parts, rows)
        _close(session, changes)
        ending.finish_if_done(session, taken.batch_id)


def give_back(runtime: Runtime, taken: Claim, *, delay_ms: int = 0) -> None:
    """Release what is in hand without burning an attempt; if even that fails, the lease runs out by itself."""
    try:
        with runtime.storage.database.writing() as uow:
            items.release(uow.session, taken, delay_ms=delay_ms)
    except Unavailable:
        return


def retry_alone(runtime: Runtime, taken: Claim, reason: str) -> None:
    """Try items again one by one after a pause, or fail them when they have had their attempts."""
    with runtime.storage.database.writing() as uow:
        batches.lock(uow.session, taken.batch_id)
        ours = items.still_ours(uow.session, taken)
        changes: list[dict[str, object]] = []
        for item in taken.items:
            if item.id not in ours:
                continue
            if item.attempts >= MAX_ATTEMPTS:
                changes.append(_failed(item, "INTERNAL_ERROR", reason[:1_000]))
            else:
                next_at = items.database_now(uow.session) + _pause_ms(item)
                changes.append({"id": item.id, "state": ItemState.PENDING.value, "alone": True, "next_at": next_at})
        _close(uow.session, changes)
        ending.finish_if_done(uow.session, taken.batch_id)


def fail_collection(runtime: Runtime, collection_id: str) -> None:
    """Close what is still open for a collection that no longer lives."""
    with runtime.storage.database.writing() as uow:
        reason = "The collection was deleted before this was processed."
        for batch_id in items.fail_open(uow.session, collection_id=collection_id, code="SOURCE_DELETED", reason=reason):
            ending.finish_if_done(uow.session, batch_id)


def _current_versions(session: Session, taken: Claim, collection: CollectionRow) -> dict[str, int]:
    source_ids = [item.source_id for item in taken.items]
    if taken.items[0].tier == 0:
        return objects.versions(session, collection.scope, source_ids)
    return {row.id: row.epoch for row in documents.load_sources(session, source_ids).values()}


def _doubt(session: Session, collection: CollectionRow, item: Item, runtime: Runtime) -> None:
    """Have the sweep make the points of this source equal to its rows: ours may be among them."""
    tombstones.add(
        session, collection.scope, "source", collection.id, source_id=item.source_id, again_ms=2 * runtime.lease_ms
    )


def _failed(item: Item, code: str, reason: str) -> dict[str, object]:
    return {
        "id": item.id,
        "state": ItemState.FAILED.value,
        "reason_code": code,
        "reason": reason,
        "error_type": "permanent",
    }


def _failure(session: Session, item: Item, failure: OpenPeekError) -> dict[str, object]:
    """A foreign source that does not answer is asked again, up to five times; anything else is final."""
    if failure.retryable and item.attempts < MAX_ATTEMPTS:
        return {
            "id": item.id,
            "state": ItemState.PENDING.value,
            "reason_code": failure.code,
            "reason": failure.message,
            "next_at": items.database_now(session) + _pause_ms(item),
        }
    failed = _failed(item, failure.code, failure.message)
    return {**failed, "error_type": "transient"} if failure.retryable else failed


def _pause_ms(item: Item) -> int:
    """Return a pause with full jitter that grows with the attempts."""
    return random.randint(0, min(_LONGEST_PAUSE_MS, 500 * 2**item.attempts))  # noqa: S311 - jitter


def _close(session: Session, changes: list[dict[str, object]]) -> None:
    # One statement per set of columns: SQLAlchemy sends rows of the same columns together.
    by_columns: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for change in changes:
        by_columns.setdefault(tuple(sorted(change)), []).append(change)
    for group in by_columns.values():
        items.close(session, group)


def _document_rows(taken: Claim, collection: CollectionRow, one: "Written") -> list[dict[str, object]]:
    loaded = one.loaded
    return [
        {
            "id": one.ids[part],
            "organization_id": collection.organization_id,
            "namespace_id": collection.namespace_id,
            "state": "active",
            "collection_id": collection.id,
            "bucket_id": loaded.bucket_id,
            "object_id": loaded.object_id,
            "source_id": loaded.source_id,
            "batch_id": taken.batch_id,
            "object_version": loaded.version,
            "part": part,
            "epoch": taken.epoch,
            "tokens": one.tokens[part],
            "fields": fields,
            "folded": json_filters.folded(fields),
            "lineage": loaded.lineage,
            "content_hash": _content_hash(fields),
            "vector_key": one.keys[part],
        }
        for part, fields in enumerate(one.fields)
    ]


def _content_hash(fields: Fields) -> str:
    return digest(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()).hex()
