"""The pipeline's promises: claims, fences, leases, deaths, cancellation, reconciliation."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from api.app import create_app
from cli import secrets
from cli.wiring import House
from domain.errors import Unavailable
from domain.ids import document_id
from extractors.text_embedding import models
from extractors.text_embedding.encoder import Encoder
from storage.database import now_ms
from storage.tables import counters, items, tombstones, vectors
from storage.tables.documents import DocumentRow
from storage.tables.items import ItemRow
from storage.tables.vectors import VectorRow
from tests.conftest import Api
from workers import completion, ingest, sweep
from workers.loop import drain
from workers.runtime import Runtime


class Workshop:
    """A house whose workers are moved by hand, one step at a time."""

    def __init__(self, house: House, api: Api) -> None:
        self.house = house
        self.api = api
        self.runtime = house.runtime()
        self.bucket = api.bucket()
        self.collection = api.collection(self.bucket)["collection_id"]

    def submit(self, *texts: str, **more) -> str:
        self.ids = self.api.objects(self.bucket, [{"body": text} for text in texts])
        return self.api.submit(self.bucket, self.ids, **more)

    def again(self, **more) -> str:
        return self.api.submit(self.bucket, self.ids, **more)

    def worker(self) -> Runtime:
        return self.house.runtime()

    def claim(self, lease_ms: int = 60_000):
        with self.house.storage.database.writing() as uow:
            found = items.find_work(uow.session, [])
            assert found is not None
            taken = items.claim(uow.session, *found, "tests", lease_ms)
        assert taken is not None
        return taken

    def states(self, batch: str) -> list[str]:
        with self.house.storage.database.reading() as session:
            return list(session.scalars(select(ItemRow.state).where(ItemRow.batch_id == batch).order_by(ItemRow.id)))

    def rows(self) -> list[DocumentRow]:
        with self.house.storage.database.reading() as session:
            statement = select(DocumentRow).where(DocumentRow.collection_id == self.collection)
            return list(session.scalars(statement.order_by(DocumentRow.source_id, DocumentRow.part)))

    def expire_leases(self) -> None:
        with self.house.storage.database.writing() as uow:
            uow.session.execute(update(ItemRow).values(lease_until=now_ms() - 1))
        sweep.sweep(self.runtime)

    def assert_index_equals_rows(self) -> None:
        rows = self.rows()
        scope = rows[0].scope if rows else None
        if scope is None:
            return
        index = self.house.storage.vectors
        for source in {row.source_id for row in rows}:
            wanted = {row.id: row.epoch for row in rows if row.source_id == source}
            assert index.epochs(scope, self.collection, source) == wanted
        assert index.count_all(scope, self.collection) == len(rows)


@pytest.fixture(scope="module")
def still_house(make_house) -> Iterator[tuple[House, Api]]:
    """A house without running workers."""
    house = make_house(lease_seconds=60)
    with TestClient(create_app(house.services("http://testserver")), raise_server_exceptions=False) as client:
        yield house, Api(client)


@pytest.fixture
def shop(still_house) -> Workshop:
    house, api = still_house
    drain(house.runtime())  # what other tests left behind
    return Workshop(house, api.fresh())


def test_a_batch_goes_through_and_rows_and_index_agree(shop):
    batch = shop.submit("one", "two", "three")
    assert drain(shop.runtime) == 1
    assert shop.states(batch) == ["completed"] * 3
    assert shop.api.ok("GET", f"/batches/{batch}")["status"] == "COMPLETED"
    assert [row.id for row in shop.rows()] == [
        document_id(shop.collection, one, "text_extractor_v1", 0) for one in sorted(shop.ids)
    ]
    shop.assert_index_equals_rows()


def test_claims_take_at_most_256_items_and_about_16k_tokens(shop):
    shop.submit(*[f"short {number}" for number in range(260)])
    assert len(shop.claim().items) == 256
    assert len(shop.claim().items) == 4
    shop.submit(*["long " * 6_000] * 3)
    assert len(shop.claim().items) == 1


def test_what_a_dead_worker_held_comes_back_and_is_tried_alone(shop):
    batch = shop.submit("a", "b", "c")
    shop.claim()
    shop.expire_leases()
    assert shop.states(batch) == ["pending"] * 3
    assert len(shop.claim().items) == 1
    shop.expire_leases()
    drain(shop.runtime)
    assert shop.states(batch) == ["completed"] * 3
    assert len(shop.rows()) == 3


def test_a_source_over_which_three_workers_died_alone_is_failed_and_its_neighbours_are_not(shop):
    batch = shop.submit("poison", "innocent")
    shop.claim()
    shop.expire_leases()
    for _ in range(3):
        with shop.house.storage.database.writing() as uow:
            poison = uow.session.scalar(select(ItemRow).where(ItemRow.batch_id == batch).order_by(ItemRow.id).limit(1))
            other = select(ItemRow.id).where(ItemRow.batch_id == batch, ItemRow.id != poison.id)
            uow.session.execute(update(ItemRow).where(ItemRow.id.in_(other)).values(next_at=now_ms() + 60_000))
        shop.claim()
        shop.expire_leases()
    with shop.house.storage.database.writing() as uow:
        uow.session.execute(update(ItemRow).values(next_at=0))
    drain(shop.runtime)
    done = shop.api.ok("GET", f"/batches/{batch}")
    assert done["status"] == "COMPLETED_WITH_ERRORS"
    assert [one["error_code"] for one in done["failed_objects"]] == ["WORKER_CRASHED"]


def test_a_late_writer_whose_lease_was_lost_changes_nothing(shop):
    batch = shop.submit("late")
    slow = shop.worker()
    taken = shop.claim()
    shop.expire_leases()
    drain(shop.runtime)
    before = [(row.id, row.epoch) for row in shop.rows()]
    with shop.house.storage.database.reading() as session:
        collection = ingest.collections.get(session, shop.collection)
    extractor = slow.extractor_of(collection)
    written, embedded = ingest._extract(slow, taken, collection, extractor, lambda *_: None)
    ingest._index(slow, taken, collection, ingest.fit_each(extractor, embedded.all), written, lambda *_: None)
    completion.complete(slow, taken, collection, written, embedded.unkept)
    assert [(row.id, row.epoch) for row in shop.rows()] == before
    assert shop.states(batch) == ["completed"]
    shop.assert_index_equals_rows()


def test_epochs_only_grow(shop):
    with shop.house.storage.database.writing() as uow:
        drawn = [counters.next_epoch(uow.session) for _ in range(5)]
    assert drawn == sorted(set(drawn))
    with shop.house.storage.database.reading() as session:
        assert counters.current_epoch(session) == drawn[-1]


def test_an_unchanged_object_is_skipped_and_force_writes_no_second_copy(shop):
    shop.submit("same", "same too")
    drain(shop.runtime)
    again = shop.again()
    assert shop.states(again) == ["skipped", "skipped"]
    assert shop.api.ok("GET", f"/batches/{again}")["status"] == "COMPLETED"
    forced = shop.again(dedup_strategy="force")
    drain(shop.runtime)
    assert shop.states(forced) == ["completed", "completed"]
    assert len(shop.rows()) == 2
    shop.assert_index_equals_rows()


def test_a_forced_run_asks_the_model_nothing(shop, monkeypatch):
    shop.submit("embedded once")
    drain(shop.runtime)
    asked = []
    real = Encoder.encode

    def watched(self, texts, progress=None, **named):
        asked.extend(texts)
        return real(self, texts, progress, **named)

    monkeypatch.setattr(Encoder, "encode", watched)
    shop.again(dedup_strategy="force")
    drain(shop.worker())
    assert asked == []
    assert len(shop.rows()) == 1


def test_fewer_parts_than_before_leave_no_surplus(shop):
    small = shop.api.collection(shop.bucket, "words", parameters={"split_by": "words", "chunk_size": 2})
    shop.submit("one two three four five six")
    drain(shop.runtime)
    scope = shop.rows()[0].scope
    index = shop.house.storage.vectors
    assert index.count_all(scope, small["collection_id"]) == 3
    # The same source, cut otherwise, as after a change of the object.
    with shop.house.storage.database.writing() as uow:
        row = ingest.collections.get(uow.session, small["collection_id"])
        row.parameters = {**row.parameters, "chunk_size": 6}
    shop.again(dedup_strategy="force")
    drain(shop.worker())
    assert index.count_all(scope, small["collection_id"]) == 1
    assert shop.api.ok("GET", "/collections/words/documents/count")["count"] == 1


def test_canceling_in_the_middle_keeps_what_is_done_and_lets_nothing_more_count(shop):
    batch = shop.submit(*[f"text {number}" for number in range(260)])
    ingest.work_once(shop.runtime)
    taken = shop.claim()
    shop.api.ok("POST", f"/batches/{batch}/cancel")
    assert shop.api.ok("GET", f"/batches/{batch}")["status"] == "CANCELED"
    with shop.house.storage.database.reading() as session:
        collection = ingest.collections.get(session, shop.collection)
    runtime = shop.worker()
    extractor = runtime.extractor_of(collection)
    with runtime.turn:
        written, embedded = ingest._extract(runtime, taken, collection, extractor, lambda *_: None)
    ingest._index(runtime, taken, collection, ingest.fit_each(extractor, embedded.all), written, lambda *_: None)
    completion.complete(runtime, taken, collection, written, embedded.unkept)
    assert len(shop.rows()) == 256
    states = shop.states(batch)
    assert states.count("completed") == 256
    assert states.count("canceled") == 4
    sweep.sweep(runtime)
    shop.assert_index_equals_rows()
    assert drain(runtime) == 0


def test_an_outage_of_the_index_burns_no_attempt(shop, monkeypatch):
    batch = shop.submit("patient")

    def away(*_given, **_named):
        raise Unavailable("vector index", "it is away")

    monkeypatch.setattr(type(shop.house.storage.vectors), "upsert", away)
    for _ in range(7):
        with pytest.raises(Unavailable):
            ingest.work_once(shop.runtime)
    with shop.house.storage.database.reading() as session:
        item = session.scalar(select(ItemRow).where(ItemRow.batch_id == batch))
    assert (item.state, item.attempts) == ("pending", 0)
    monkeypatch.undo()
    drain(shop.runtime)
    assert shop.states(batch) == ["completed"]


def test_a_fault_of_a_plugin_is_tried_five_times_alone_and_then_told(shop, monkeypatch):
    batch = shop.submit("good", "bad")
    real = ingest._extract_one

    def stumble(runtime, collection, extractor, source, texts):
        if source.fields["body"] == "bad":
            raise ZeroDivisionError("the plugin divides by zero")
        return real(runtime, collection, extractor, source, texts)

    monkeypatch.setattr(ingest, "_extract_one", stumble)
    for _ in range(12):
        ingest.work_once(shop.runtime)
        with shop.house.storage.database.writing() as uow:
            uow.session.execute(update(ItemRow).where(ItemRow.batch_id == batch).values(next_at=0))
    done = shop.api.ok("GET", f"/batches/{batch}")
    assert done["status"] == "COMPLETED_WITH_ERRORS"
    failure = done["failed_objects"][0]
    assert (failure["error_code"], failure["attempts"]) == ("INTERNAL_ERROR", 5)
    assert "divides by zero" in failure["error"]


def test_points_that_are_lost_are_written_again_from_the_rows(shop):
    shop.submit("lost and found")
    drain(shop.runtime)
    row = shop.rows()[0]
    shop.house.storage.vectors.delete(row.scope, [row.id], up_to_epoch=2**60)
    assert sweep.reconcile_source(shop.runtime, row.scope, shop.collection, row.source_id)
    shop.assert_index_equals_rows()
    assert shop.api.search("lost")[0]["document_id"] == row.id


def test_reconciling_waits_while_a_worker_has_the_source_in_hand(shop):
    shop.submit("busy")
    taken = shop.claim()
    with shop.house.storage.database.reading() as session:
        collection = ingest.collections.get(session, shop.collection)
    assert not sweep.reconcile_source(shop.runtime, collection.scope, shop.collection, taken.items[0].source_id)


def test_a_deleted_bucket_leaves_no_points_rows_or_blobs(shop):
    long = "a stored file " * 10_000
    shop.api.ok(
        "POST", f"/buckets/{shop.bucket}/objects", {"blobs": [{"property": "body", "type": "text", "data": long}]}
    )
    listed = shop.api.ok("GET", f"/buckets/{shop.bucket}/objects")["results"]
    batch = shop.api.submit(shop.bucket, [one["object_id"] for one in listed])
    drain(shop.runtime)
    assert shop.api.ok("GET", f"/batches/{batch}")["status"] == "COMPLETED"
    scope = shop.rows()[0].scope
    folder = shop.house.settings.data / "blobs"
    before = [path for path in folder.rglob("*") if path.is_file()]
    assert before
    shop.api.ok("DELETE", f"/buckets/{shop.bucket}")
    with shop.house.storage.database.writing() as uow:
        uow.session.execute(update(tombstones.TombstoneRow).values(due_at=0))
    sweep.sweep(shop.runtime)
    sweep.sweep(shop.runtime)
    assert shop.rows() == []
    assert shop.house.storage.vectors.count_all(scope, shop.collection) == 0
    assert len([path for path in folder.rglob("*") if path.is_file()]) < len(before)
    with shop.house.storage.database.reading() as session:
        assert tombstones.count(session) == 0


def test_missing_weights_make_a_batch_wait_with_a_name_and_not_fail(shop):
    # The stand-in's files are moved away, as if they had never been downloaded.
    folder = models.require("openpeek/standin").folder
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    try:
        batch = shop.submit("waiting for weights")
        ingest.work_once(shop.worker())
        waiting = shop.api.ok("GET", f"/batches/{batch}")
        assert waiting["status"] == "PENDING"
        assert "model_weights" in waiting["lifecycle_reason"]
        deep = shop.api.ok("GET", "/health/deep")
        assert deep["status"] == "DEGRADED"
        assert "openpeek/standin" in deep["problems"]["inference"]
    finally:
        weights.write_bytes(content)
    drain(shop.worker())
    done = shop.api.ok("GET", f"/batches/{batch}")
    assert done["status"] == "COMPLETED"
    assert done["lifecycle_reason"] is None


def test_a_large_backlog_does_not_starve_another_organization(shop, still_house):
    house, api = still_house
    key = secrets.create_organization(house.storage.database, house.secrets, f"other-{shop.bucket}")
    other = Api(api.client, key).fresh()
    shop.submit(*[f"big {number}" for number in range(200)])
    bucket = other.bucket()
    other.collection(bucket)
    batch = other.submit(bucket, other.objects(bucket, [{"body": "small"}]))
    for _ in range(2):
        ingest.work_once(shop.runtime)
    assert other.ok("GET", f"/batches/{batch}")["status"] == "COMPLETED"


def test_one_organization_sees_nothing_of_another(shop, still_house):
    house, api = still_house
    stranger = Api(api.client, secrets.create_organization(house.storage.database, house.secrets, f"x-{shop.bucket}"))
    batch = shop.submit("secret")
    drain(shop.runtime)
    stranger.refused(404, "GET", f"/batches/{batch}")
    stranger.refused(404, "POST", f"/batches/{batch}/cancel")
    stranger.inside(shop.api.namespace).refused(404, "GET", f"/buckets/{shop.bucket}")
    task = shop.api.ok("GET", f"/batches/{batch}")["task_id"]
    stranger.refused(404, "GET", f"/tasks/{task}")
    inside = stranger.fresh()
    inside.refused(404, "GET", f"/buckets/{shop.bucket}")
    inside.refused(404, "GET", f"/collections/{shop.collection}/documents")
    assert inside.search("secret") == []


def test_vectors_are_kept_once_per_text(shop):
    shop.submit("twin", "twin")
    drain(shop.runtime)
    keys = {row.vector_key for row in shop.rows()}
    assert len(keys) == 1
    with shop.house.storage.database.reading() as session:
        assert len(vectors.find(session, sorted(keys))) == 1
        assert session.get(VectorRow, keys.pop()).organization_id


def test_documents_replaced_keep_the_time_of_their_creation(shop):
    shop.submit("steady")
    drain(shop.runtime)
    before = shop.rows()[0]
    shop.again(dedup_strategy="force")
    drain(shop.runtime)
    after = shop.rows()[0]
    assert after.created_at == before.created_at
    assert after.epoch > before.epoch
