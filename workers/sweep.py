"""The sweep: repairs what no request and no portion of work can finish by itself. Every duty may run twice.

expired leases → ends of batches → duties left by deletions and lost leases → rest for the index
"""

import structlog

from domain.documents import Scope
from domain.errors import OpenPeekError
from storage.ports import Point
from storage.tables import batches, collections, counters, documents, ending, items, removal, tombstones, vectors
from storage.tables.collections import CollectionRow
from storage.tables.documents import DocumentRow
from storage.tables.tombstones import TombstoneRow
from workers.ingest import fit_each
from workers.runtime import Runtime

_FOREVER = 2**62

log = structlog.get_logger(__name__)


def sweep(runtime: Runtime) -> None:
    """Do every duty that is due.

    Raises:
        Unavailable: a store does not answer; what is left is done next time.
    """
    _expire_leases(runtime)
    _end_batches(runtime)
    _bury(runtime)


def _expire_leases(runtime: Runtime) -> None:
    with runtime.storage.database.writing() as uow:
        concerned = items.expire(uow.session)
        for batch_id in concerned:
            ending.finish_if_done(uow.session, batch_id)
    if concerned:
        log.warning("leases_expired", batches=len(concerned))


def _end_batches(runtime: Runtime) -> None:
    with runtime.storage.database.reading() as session:
        over = [one for one in batches.open_ids(session) if not ending.has_open(session, one)]
    for batch_id in over:
        with runtime.storage.database.writing() as uow:
            ending.finish_if_done(uow.session, batch_id)


def _bury(runtime: Runtime) -> None:
    with runtime.storage.database.reading() as session:
        due = tombstones.due(session)
    for duty in due:
        try:
            finished = _do(runtime, duty)
        except OpenPeekError as error:
            log.warning("duty_waits", kind=duty.kind, subject=duty.subject, code=error.code, reason=error.message)
            continue
        if finished:
            with runtime.storage.database.writing() as uow:
                tombstones.done(uow.session, duty.id)


def _do(runtime: Runtime, duty: TombstoneRow) -> bool:
    if duty.kind == "source":
        return reconcile_source(runtime, duty.scope, duty.subject, duty.source_id or "")
    if duty.kind == "collection":
        runtime.storage.vectors.delete_collection(duty.scope, duty.subject, up_to_epoch=_FOREVER)
        _remove_documents(runtime, duty.scope, collection_id=duty.subject)
    elif duty.kind == "bucket":
        _remove_documents(runtime, duty.scope, bucket_id=duty.subject)
        _remove_objects(runtime, duty.scope, duty.subject)
    elif duty.kind == "namespace":
        runtime.storage.vectors.delete_namespace(duty.scope)
        _remove_documents(runtime, duty.scope)
        _remove_objects(runtime, duty.scope, None)
    if duty.last:
        with runtime.storage.database.writing() as uow:
            removal.remove_roots(uow.session, duty.scope, duty.kind, duty.subject)
    return True


def _remove_documents(
    runtime: Runtime, scope: Scope, *, collection_id: str | None = None, bucket_id: str | None = None
) -> None:
    while True:
        with runtime.storage.database.reading() as session:
            some = documents.some_ids(session, scope, collection_id=collection_id, bucket_id=bucket_id)
        if not some:
            return
        runtime.storage.vectors.delete(scope, some, up_to_epoch=_FOREVER)
        with runtime.storage.database.writing() as uow:
            documents.remove(uow.session, some)


def _remove_objects(runtime: Runtime, scope: Scope, bucket_id: str | None) -> None:
    while True:
        with runtime.storage.database.reading() as session:
            some, keys = removal.some_objects(session, scope, bucket_id)
        if not some:
            return
        runtime.storage.blobs.delete(keys)
        with runtime.storage.database.writing() as uow:
            removal.remove_objects(uow.session, some)


def reconcile_source(runtime: Runtime, scope: Scope, collection_id: str, source_id: str) -> bool:
    """Make the points of one source in one collection equal to its rows; False means: again later.

    Points are removed only up to the epoch drawn last before the rows were read, so whoever claims the
    source meanwhile is not disturbed; and if the rows have changed by the end, the duty stays.
    """
    with runtime.storage.database.reading() as session:
        if items.in_hand(session, collection_id, source_id):
            return False
        last_epoch = counters.current_epoch(session)
        collection = collections.get(session, collection_id)
        rows = documents.of_source(session, collection_id, source_id)
    wanted = {row.id: row.epoch for row in rows if row.vector_key}
    index = runtime.storage.vectors
    there = index.epochs(scope, collection_id, source_id)
    stray = [one for one, epoch in there.items() if wanted.get(one) != epoch]
    if stray:
        index.delete(scope, stray, up_to_epoch=last_epoch)
    missing = [row for row in rows if row.vector_key and there.get(row.id) != row.epoch]
    if missing and collection is not None:
        _rewrite(runtime, collection, missing)
    if stray or missing:
        log.info("source_reconciled", collection_id=collection_id, removed=len(stray), rewritten=len(missing))
    with runtime.storage.database.reading() as session:
        after = {row.id: row.epoch for row in documents.of_source(session, collection_id, source_id) if row.vector_key}
        return after == wanted and not items.in_hand(session, collection_id, source_id)


def _rewrite(runtime: Runtime, collection: CollectionRow, rows: list[DocumentRow]) -> None:
    """Write points anew from rows and kept vectors: no model is asked."""
    spec = collection.spec
    if spec is None:
        return
    with runtime.storage.database.reading() as session:
        full = vectors.find(session, sorted({row.vector_key for row in rows if row.vector_key}))
    fitted = fit_each(runtime.extractor_of(collection), full)
    points = [
        Point(
            row.id, row.collection_id, row.source_id, row.object_version, row.epoch, row.fields, fitted[row.vector_key]
        )
        for row in rows
        if row.vector_key in fitted
    ]
    if points:
        runtime.storage.vectors.upsert(collection.scope, spec, points)
