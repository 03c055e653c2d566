"""One portion of work, from claim to completion. Safe to run twice, and to be killed at any line.

    find → (weights) → claim → read → split → embed → upsert points → delete surplus → count → complete

No transaction is open while a model, a blob store or the index works. What was written under an epoch that
has been lost counts for nothing: the completion refuses it, and the sweep removes its points.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import structlog

from domain.errors import ObjectFailed, OpenPeekError, Unavailable, WeightsBroken, WeightsMissing
from domain.ids import document_id, vector_key
from domain.json_types import Fields
from extractors.contract import Extraction, Extractor
from storage.fetch import SourceUnavailable
from storage.ports import Point, Vector
from storage.tables import batches, collections, items, vectors
from storage.tables.collections import CollectionRow
from storage.tables.items import Claim
from workers import completion, faults, sources
from workers.runtime import Progress, Runtime, keeping_lease
from workers.sources import Loaded

EMBED_AT_ONCE = 64
UPSERT_AT_ONCE = 256  # at 1,024 dimensions about 6 MB of JSON; a Qdrant server takes 32 MB at once
KEEP_AFTER_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What one source became: its documents' fields and vectors, or why there are none."""

    loaded: Loaded
    ids: Sequence[str] = ()
    fields: Sequence[Fields] = ()
    keys: Sequence[str | None] = ()
    tokens: Sequence[int] = ()
    truncated_tokens: int = 0
    failure: OpenPeekError | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Full-width vectors by key: all that a portion needs, and those that nobody has kept yet."""

    all: dict[str, Vector]
    unkept: dict[str, Vector]


def work_once(runtime: Runtime) -> bool:
    """Do one portion of work; return False when there is none.

    Raises:
        Unavailable: a store does not answer. What was in hand has been given back, no attempt is burned.
    """
    with runtime.turn:
        return _work_in_turn(runtime)


def _work_in_turn(runtime: Runtime) -> bool:
    with runtime.storage.database.reading() as session:
        found = items.find_work(session, runtime.refused())
        collection = collections.get(session, found[1]) if found else None
    if found is None:
        return False
    batch_id, collection_id = found
    if collection is None or collection.state != "active":
        completion.fail_collection(runtime, collection_id)
        return True
    try:
        extractor = runtime.extractor_of(collection)
        collection = _with_model(runtime, collection, extractor)
        # Before anything is claimed: whoever dies while a model loads must not be held against the sources.
        with runtime.aside():
            runtime.warm(collection.id, extractor)
    except OpenPeekError as error:
        _wait(runtime, batch_id, collection_id, error)
        return True
    with runtime.storage.database.writing() as uow:
        taken = items.claim(uow.session, batch_id, collection_id, runtime.worker_id, runtime.lease_ms)
    if taken is None:
        return True
    faults.point("after_claim")
    with keeping_lease(runtime, taken) as progress:
        _work_on(runtime, taken, collection, extractor, progress)
    return True


def _with_model(runtime: Runtime, collection: CollectionRow, extractor: Extractor) -> CollectionRow:
    """Bind the collection to the weights of this machine, or refuse weights it was not bound to."""
    identity = extractor.identity()
    if identity is None:
        return collection
    if collection.revision is None:
        with runtime.storage.database.writing() as uow:
            collections.bind_model(
                uow.session, collection.id, identity.revision, identity.weights_sha256, identity.tokenizer_sha256
            )
        with runtime.storage.database.reading() as session:
            collection = collections.get(session, collection.id) or collection
    if collection.revision != identity.revision:
        problem = (
            f"the collection {collection.name!r} was made with revision {collection.revision}, and this machine has "
            f"{identity.revision}. Put the former revision back, or make a new collection."
        )
        raise WeightsBroken(identity.model_id, problem)
    return collection


def _wait(runtime: Runtime, batch_id: str, collection_id: str, error: OpenPeekError) -> None:
    """Say on the batch what it waits for; another collection's work goes on."""
    log.warning("collection_waits", collection_id=collection_id, code=error.code, reason=error.message)
    runtime.refuse(collection_id)
    with runtime.storage.database.writing() as uow:
        batches.set_waiting(uow.session, batch_id, f"{error.code}: {error.message}")


def _work_on(
    runtime: Runtime, taken: Claim, collection: CollectionRow, extractor: Extractor, progress: Progress
) -> None:
    try:
        written, embedded = _extract(runtime, taken, collection, extractor, progress)
        faults.point("after_embed")
        points_stand = _index(runtime, taken, collection, fit_each(extractor, embedded.all), written, progress)
        faults.point("after_upsert")
        if points_stand:
            completion.complete(runtime, taken, collection, written, embedded.unkept)
        else:
            completion.give_back(runtime, taken, delay_ms=1_000)
        faults.point("after_complete")
    except (WeightsMissing, WeightsBroken) as error:
        completion.give_back(runtime, taken)
        _wait(runtime, taken.batch_id, taken.collection_id, error)
    except Unavailable:
        completion.give_back(runtime, taken)
        raise
    except Exception as error:
        # A fault of ours or of a plugin. The items are tried again one by one, so that one cannot take the
        # others with it, and end as failed after five attempts.
        log.exception("portion_failed", batch_id=taken.batch_id, collection_id=taken.collection_id)
        completion.retry_alone(runtime, taken, f"{type(error).__name__}: {error}")


def _extract(
    runtime: Runtime, taken: Claim, collection: CollectionRow, extractor: Extractor, progress: Progress
) -> tuple[dict[int, Written], "Embedded"]:
    """Return what each item became, and the full-width vector of every text."""
    loaded = sources.load(runtime.storage.database, collection.scope, taken)
    written: dict[int, Written] = {}
    texts: dict[str, str] = {}
    for item_id, source in loaded.items():
        written[item_id] = _extract_one(runtime, collection, extractor, source, texts)
        progress()
    return written, _embed(runtime, collection, extractor, texts, progress)


def _extract_one(
    runtime: Runtime, collection: CollectionRow, extractor: Extractor, source: Loaded, texts: dict[str, str]
) -> Written:
    try:
        carried = sources.passed_through(source, collection)
        with runtime.aside() if source.blobs else nullcontext():
            prepared = sources.prepare(source, collection, runtime.storage.blobs, runtime.fetcher)
        extraction = extractor.parts(prepared)
    except (ObjectFailed, SourceUnavailable) as error:
        return Written(source, failure=error)
    except RecursionError:
        return Written(source, failure=ObjectFailed("The source is nested too deeply.", code="TOO_DEEP"))
    keys = _keys(collection, extractor, extraction)
    texts.update((key, part.text) for key, part in zip(keys, extraction.parts, strict=True) if key and part.text)
    return Written(
        source,
        ids=[
            document_id(collection.id, source.source_id, collection.extractor_id, part)
            for part in range(len(extraction.parts))
        ],
        fields=[{**carried, **part.fields} for part in extraction.parts],
        keys=keys,
        tokens=[part.tokens for part in extraction.parts],
        truncated_tokens=extraction.truncated_tokens,
    )


def _keys(collection: CollectionRow, extractor: Extractor, extraction: Extraction) -> list[str | None]:
    """Return the key of each part's embedding, None where there is nothing to embed."""
    spec, prefix, owner = collection.spec, extractor.document_prefix(), collection.organization_id
    if spec is None:
        return [None] * len(extraction.parts)
    return [
        None
        if part.text is None
        else vector_key(owner, part.text, spec.model_id, spec.revision, prefix, spec.precision)
        for part in extraction.parts
    ]


def _embed(
    runtime: Runtime, collection: CollectionRow, extractor: Extractor, texts: dict[str, str], progress: Progress
) -> Embedded:
    """Embed what no earlier run has embedded.

    What took long is kept at once, so that a killed worker loses about a second of the model's work; what was
    quick is kept by the completion, which spares a commit.
    """
    if not texts:
        return Embedded({}, {})
    with runtime.storage.database.reading() as session:
        known = vectors.find(session, list(texts))
    missing = [key for key in texts if key not in known]
    unkept: dict[str, Vector] = {}
    kept_at = time.monotonic()
    for start in range(0, len(missing), EMBED_AT_ONCE):
        keys = missing[start : start + EMBED_AT_ONCE]
        with runtime.aside():
            embedded = extractor.embed([texts[key] for key in keys], progress)
        unkept.update(zip(keys, embedded, strict=True))
        known.update(unkept)
        progress()
        if time.monotonic() - kept_at > KEEP_AFTER_SECONDS:
            with runtime.storage.database.writing() as uow:
                vectors.keep(uow.session, collection.organization_id, unkept)
            unkept = {}
            kept_at = time.monotonic()
    return Embedded(known, unkept)


def _index(
    runtime: Runtime,
    taken: Claim,
    collection: CollectionRow,
    fitted: dict[str, Vector],
    written: dict[int, Written],
    progress: Progress,
) -> bool:
    """Write the points, remove surplus ones, and say whether all of ours stand."""
    good = [one for one in written.values() if one.failure is None]
    if collection.spec is None or not good:
        return True
    index, scope = runtime.storage.vectors, collection.scope
    points = list(_points(taken, collection, fitted, good))
    for start in range(0, len(points), UPSERT_AT_ONCE):
        index.upsert(scope, collection.spec, points[start : start + UPSERT_AT_ONCE])
        progress()
    faults.point("before_surplus")
    source_ids = [one.loaded.source_id for one in good]
    index.delete_older(scope, collection.id, source_ids, taken.epoch)
    return index.count(scope, collection.id, source_ids, taken.epoch) == len(points)


def _points(
    taken: Claim, collection: CollectionRow, fitted: dict[str, Vector], written: Sequence[Written]
) -> Iterator[Point]:
    for one in written:
        for document, fields, key in zip(one.ids, one.fields, one.keys, strict=True):
            if key is not None:
                yield Point(
                    document_id=document,
                    collection_id=collection.id,
                    source_id=one.loaded.source_id,
                    object_version=one.loaded.version,
                    epoch=taken.epoch,
                    fields=fields,
                    vector=fitted[key],
                )


def fit_each(extractor: Extractor, full: dict[str, Vector]) -> dict[str, Vector]:
    """Cut full-width vectors to the collection's width, all in one step."""
    if not full:
        return {}
    fitted = extractor.fit(np.stack(list(full.values())))
    return dict(zip(full, fitted, strict=True))
