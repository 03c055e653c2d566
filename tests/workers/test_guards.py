"""Each guard of the pipeline, at the moment for which it is there: something happens while a worker is half-way."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient
from test_pipeline import Workshop

from api.app import create_app
from cli.wiring import House
from domain.errors import ObjectFailed, Unavailable
from extractors.text_embedding.encoder import Encoder
from storage.database import now_ms
from storage.tables import batches, collections, ending, items, tombstones
from storage.tables.batches import BatchRow
from storage.tables.items import ItemRow
from storage.tables.objects import ObjectRow
from storage.tables.tombstones import TombstoneRow
from tests.conftest import Api
from workers import completion, faults, ingest, runtime, sweep
from workers.loop import drain


class Half(Workshop):
    """A workshop where something can be made to happen while a worker is half-way."""

    def __init__(self, house: House, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(house, api)
        self.patch = monkeypatch

    def when_at(self, point: str, act: Callable[[], object]) -> list[str]:
        """Do something once, when a worker passes a point of its work; return the points passed by then."""
        passed: list[str] = []

        def pass_by(name: str) -> None:
            if name == point and point not in passed:
                passed.append(name)
                act()

        self.patch.setattr(faults, "point", pass_by)
        return passed

    def change(self, table, **values) -> None:
        with self.house.storage.database.writing() as uow:
            uow.session.execute(update(table).values(**values), execution_options={"synchronize_session": False})

    def item(self, batch: str) -> ItemRow:
        with self.house.storage.database.reading() as session:
            (row,) = session.scalars(select(ItemRow).where(ItemRow.batch_id == batch))
            return row

    def lose(self) -> None:
        """Let every lease run out, and have the sweep notice."""
        self.expire_leases()

    def do_duties(self) -> None:
        """Do every duty now, the second ones of each pair too."""
        for _ in range(2):
            self.change(TombstoneRow, due_at=0)
            sweep.sweep(self.runtime)
        with self.house.storage.database.reading() as session:
            assert tombstones.count(session) == 0

    def points(self) -> int:
        with self.house.storage.database.reading() as session:
            scope = collections.get(session, self.collection).scope
        return self.house.storage.vectors.count_all(scope, self.collection)

    def failing(self, store: object, method: str) -> None:
        """Let a store be away for one of its methods until the patches are undone."""

        def away(*_given, **_named):
            raise Unavailable("a store", "it is away")

        self.patch.setattr(type(store), method, away)


@pytest.fixture(scope="module")
def quiet_house(make_house) -> Iterator[tuple[House, Api]]:
    """A house without running workers."""
    house = make_house(lease_seconds=60)
    with TestClient(create_app(house.services("http://testserver")), raise_server_exceptions=False) as client:
        yield house, Api(client)


@pytest.fixture
def half(quiet_house, monkeypatch) -> Half:
    house, api = quiet_house
    made = Half(house, api.fresh(), monkeypatch)
    made.change(ItemRow, next_at=0)
    made.lose()
    drain(house.runtime())  # what other tests left behind
    return made


def test_who_lost_an_item_that_another_holds_now_writes_no_rows_and_leaves_it_in_that_ones_hands(half):
    batch = half.submit("wanted by two")
    second = []
    passed = half.when_at("after_embed", lambda: (half.lose(), second.append(half.claim())))
    ingest.work_once(half.worker())
    assert passed
    assert half.rows() == []
    assert (half.item(batch).state, half.item(batch).epoch) == ("processing", second[0].epoch)
    half.lose()
    drain(half.worker())
    assert half.states(batch) == ["completed"]
    half.assert_index_equals_rows()


def test_who_lost_an_item_gives_back_nothing_that_another_holds_now(half):
    batch = half.submit("wanted by two")
    second = []

    def lose_it_and_fail() -> None:
        half.lose()
        second.append(half.claim())
        raise Unavailable("a store", "it is away")

    half.when_at("after_embed", lose_it_and_fail)
    with pytest.raises(Unavailable):
        ingest.work_once(half.worker())
    item = half.item(batch)
    assert (item.state, item.epoch, item.attempts) == ("processing", second[0].epoch, 2)


def test_who_lost_an_item_and_stumbles_does_not_put_it_back_either(half):
    batch = half.submit("wanted by two")
    second = []

    def lose_it_and_stumble() -> None:
        half.lose()
        second.append(half.claim())
        raise ZeroDivisionError

    half.when_at("after_embed", lose_it_and_stumble)
    ingest.work_once(half.worker())
    assert (half.item(batch).state, half.item(batch).epoch) == ("processing", second[0].epoch)


def test_a_lease_that_was_lost_is_not_renewed_for_the_one_who_lost_it(half):
    half.submit("wanted by two")
    first = half.claim()
    half.lose()
    second = half.claim(lease_ms=60_000)
    with half.house.storage.database.writing() as uow:
        before = uow.session.scalar(select(ItemRow.lease_until).where(ItemRow.epoch == second.epoch))
        assert items.renew(uow.session, first, 900_000) == 0
    with half.house.storage.database.writing() as uow:
        assert uow.session.scalar(select(ItemRow.lease_until).where(ItemRow.epoch == second.epoch)) == before
        assert items.renew(uow.session, second, 900_000) == 1


def test_a_lease_is_renewed_for_as_long_as_the_work_moves(half):
    half.submit("takes its time")
    worker = half.worker()
    worker.lease_ms = 200
    taken = half.claim(lease_ms=200)
    with runtime.keeping_lease(worker, taken):
        half.change(ItemRow, lease_until=1)
        until = 1
        while until == 1:  # as long as it takes; the test's own time limit ends it
            with half.house.storage.database.reading() as session:
                until = session.scalar(select(ItemRow.lease_until).where(ItemRow.epoch == taken.epoch))
    assert until > 1


class Seen(runtime.Progress):
    """Progress that says what it is told to, and counts how often it was asked."""

    asked = 0
    stuck = False

    @property
    def is_stuck(self) -> bool:
        type(self).asked += 1
        return self.stuck


def test_a_lease_is_not_renewed_when_the_work_is_stuck(half):
    class Stuck(Seen):
        stuck = True

    half.patch.setattr(runtime, "Progress", Stuck)
    renewed = []
    half.patch.setattr(items, "renew", lambda *given: renewed.append(given) or 1)
    half.submit("hangs")
    worker = half.worker()
    worker.lease_ms = 40
    with runtime.keeping_lease(worker, half.claim()):
        while not Stuck.asked:
            pass
    assert renewed == []


def test_a_lease_is_not_asked_for_again_once_it_is_lost(half):
    class Moving(Seen):
        pass

    half.patch.setattr(runtime, "Progress", Moving)
    renewed = []
    half.patch.setattr(items, "renew", lambda *given: renewed.append(given) and 0)
    half.submit("lost")
    worker = half.worker()
    worker.lease_ms = 40
    threads = []
    real = runtime.threading.Thread
    half.patch.setattr(runtime.threading, "Thread", lambda **given: threads.append(real(**given)) or threads[-1])
    with runtime.keeping_lease(worker, half.claim()):
        threads[0].join()  # it ends by itself
    assert len(renewed) == 1


def test_living_leases_are_left_alone_by_the_sweep(half):
    batch = half.submit("busy")
    taken = half.claim(lease_ms=600_000)
    sweep.sweep(half.runtime)
    assert (half.item(batch).state, half.item(batch).epoch) == ("processing", taken.epoch)


@pytest.mark.parametrize("point", ["after_claim", "after_embed"])
def test_an_object_that_changes_while_it_is_worked_on_is_superseded_and_leaves_no_points(half, point):
    batch = half.submit("changes")
    passed = half.when_at(point, lambda: half.change(ObjectRow, version=ObjectRow.version + 1))
    drain(half.worker())
    assert passed
    assert half.states(batch) == ["superseded"]
    assert half.rows() == []
    half.do_duties()
    assert half.points() == 0


@pytest.mark.parametrize("point", ["after_claim", "after_embed"])
def test_an_object_that_goes_while_it_is_worked_on_is_told_as_deleted_and_leaves_no_points(half, point):
    batch = half.submit("goes")
    passed = half.when_at(point, lambda: half.change(ObjectRow, state="deleting"))
    drain(half.worker())
    assert passed
    assert (half.item(batch).state, half.item(batch).reason_code) == ("failed", "SOURCE_DELETED")
    assert half.rows() == []
    half.do_duties()
    assert half.points() == 0


def test_points_of_a_writer_so_late_that_even_the_second_sweep_had_passed_are_removed(half):
    batch = half.submit("late after a cancellation")

    def cancel_and_forget() -> None:
        half.api.ok("POST", f"/batches/{batch}/cancel")
        half.do_duties()

    half.when_at("after_embed", cancel_and_forget)
    ingest.work_once(half.worker())
    assert half.states(batch) == ["canceled"]
    assert half.points() == 1
    half.do_duties()
    assert half.points() == 0


def test_a_duty_comes_due_twice_the_second_time_after_every_lease(half):
    with half.house.storage.database.reading() as session:
        scope = collections.get(session, half.collection).scope
    with half.house.storage.database.writing() as uow:
        tombstones.add(uow.session, scope, "source", half.collection, source_id="obj_none", again_ms=120_000)
    sweep.sweep(half.runtime)
    with half.house.storage.database.reading() as session:
        assert tombstones.count(session) == 1
    half.change(TombstoneRow, due_at=0)
    sweep.sweep(half.runtime)
    with half.house.storage.database.reading() as session:
        assert tombstones.count(session) == 0


def test_points_that_went_missing_before_the_end_are_noticed_and_written_again_after_a_pause(half):
    batch = half.submit("written and lost", "written and kept")
    index = half.house.storage.vectors

    def lose_a_point() -> None:
        with half.house.storage.database.reading() as session:
            scope = collections.get(session, half.collection).scope
        for source in half.ids[:1]:
            index.delete(scope, list(index.epochs(scope, half.collection, source)), up_to_epoch=2**60)

    half.when_at("before_surplus", lose_a_point)
    ingest.work_once(half.worker())
    assert half.states(batch) == ["pending", "pending"]
    assert half.rows() == []
    with half.house.storage.database.reading() as session:
        rows = list(session.scalars(select(ItemRow).where(ItemRow.batch_id == batch)))
    assert {row.attempts for row in rows} == {0}
    assert all(row.next_at >= row.updated_at + 900 for row in rows)
    half.change(ItemRow, next_at=0)
    drain(half.worker())
    assert half.states(batch) == ["completed", "completed"]
    half.assert_index_equals_rows()


def test_what_is_to_be_tried_later_is_neither_found_nor_claimed_before(half):
    half.submit("later", "now")
    with half.house.storage.database.writing() as uow:
        first = uow.session.scalar(select(ItemRow.id).order_by(ItemRow.id.desc()).limit(1))
        uow.session.execute(update(ItemRow).where(ItemRow.id == first).values(next_at=now_ms() + 600_000))
    assert len(half.claim().items) == 1
    with half.house.storage.database.reading() as session:
        assert items.find_work(session, []) is None
    half.change(ItemRow, next_at=0)


def test_a_collection_that_this_worker_cannot_serve_is_left_to_others(half):
    half.submit("waits")
    other = half.api.collection(half.bucket, "other")["collection_id"]
    half.again()
    with half.house.storage.database.reading() as session:
        assert items.find_work(session, [half.collection])[1] == other
        assert items.find_work(session, [half.collection, other]) is None


def test_batches_of_one_organization_take_turns(half):
    half.patch.setattr(items, "MAX_CLAIM", 2)
    big = half.submit(*[f"big {number}" for number in range(6)])
    small = half.submit("small")
    ingest.work_once(half.worker())
    ingest.work_once(half.worker())
    assert half.states(small) == ["completed"]
    assert half.states(big).count("completed") == 2


def test_nothing_of_a_batch_that_has_ended_is_claimed(half):
    batch = half.submit("left behind")
    with half.house.storage.database.writing() as uow:
        uow.session.execute(update(BatchRow).where(BatchRow.id == batch).values(status="CANCELED"))
    with half.house.storage.database.writing() as uow:
        assert items.claim(uow.session, batch, half.collection, "tests", 60_000) is None


def test_a_batch_that_has_ended_is_not_ended_again(half):
    batch = half.submit("over")
    half.api.ok("POST", f"/batches/{batch}/cancel")
    with half.house.storage.database.writing() as uow:
        ending.finish_if_done(uow.session, batch)
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "CANCELED"


def test_a_batch_whose_last_worker_died_before_ending_it_is_ended_by_the_sweep(half):
    batch = half.submit("done but not told")
    half.patch.setattr(ending, "finish_if_done", lambda *_given: None)
    ingest.work_once(half.worker())
    half.patch.undo()
    assert half.states(batch) == ["completed"]
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "PROCESSING"
    sweep.sweep(half.runtime)
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "COMPLETED"


def test_canceled_items_get_an_epoch_that_no_worker_holds(half):
    batch = half.submit("in hand")
    taken = half.claim()
    half.api.ok("POST", f"/batches/{batch}/cancel")
    assert half.item(batch).epoch > taken.epoch


def test_only_a_version_that_was_completed_in_this_collection_is_skipped(half):
    first = half.submit("seen before")
    drain(half.worker())
    assert half.states(first) == ["completed"]
    assert half.states(half.again()) == ["skipped"]
    half.api.collection(half.bucket, "later")
    assert sorted(half.states(half.again())) == ["pending", "skipped"]
    drain(half.worker())
    half.change(ObjectRow, version=ObjectRow.version + 1)
    changed = half.again()
    assert half.states(changed) == ["pending", "pending"]
    half.api.ok("POST", f"/batches/{changed}/cancel")
    assert half.states(half.again()) == ["pending", "pending"]  # canceled is not completed
    drain(half.worker())


def test_an_object_deleted_before_its_batch_is_submitted_is_told_and_not_worked_on(half):
    ids = half.api.objects(half.bucket, [{"body": "here"}, {"body": "gone"}])
    batch = half.api.ok("POST", f"/buckets/{half.bucket}/batches", {"object_ids": ids})["batch_id"]
    with half.house.storage.database.writing() as uow:
        uow.session.execute(update(ObjectRow).where(ObjectRow.id == ids[1]).values(state="deleting"))
    half.api.ok("POST", f"/buckets/{half.bucket}/batches/{batch}/submit")
    assert sorted(half.states(batch)) == ["failed", "pending"]
    drain(half.worker())
    told = half.api.ok("GET", f"/batches/{batch}")
    assert [one["error_code"] for one in told["failed_objects"]] == ["SOURCE_DELETED"]


def test_a_foreign_source_that_never_answers_is_asked_five_times(half):
    batch = half.submit("behind a broken link")

    class Away(ObjectFailed):
        retryable = True

    def silent(*_given):
        raise Away("The source does not answer.", code="SOURCE_UNAVAILABLE")

    half.patch.setattr(ingest.sources, "prepare", silent)
    for _ in range(9):
        ingest.work_once(half.worker())
        half.change(ItemRow, next_at=0)
    item = half.item(batch)
    assert (item.state, item.attempts, item.error_type) == ("failed", completion.MAX_ATTEMPTS, "transient")


def test_points_go_before_rows_so_that_an_outage_between_leaves_nothing_behind(half):
    half.submit("to be buried")
    drain(half.worker())
    assert half.points() == 1
    with half.house.storage.database.reading() as session:
        scope = collections.get(session, half.collection).scope
    half.api.ok("DELETE", f"/buckets/{half.bucket}")
    half.failing(half.house.storage.vectors, "delete")
    sweep.sweep(half.runtime)
    half.patch.undo()
    half.do_duties()
    assert half.house.storage.vectors.count_all(scope, half.collection) == 0


def test_blobs_go_before_their_objects_so_that_an_outage_between_leaves_nothing_behind(half):
    data = "a stored file " * 10_000
    blob = {"blobs": [{"property": "body", "type": "text", "data": data}]}
    half.api.ok("POST", f"/buckets/{half.bucket}/objects", blob)
    folder = half.house.settings.data / "blobs"
    before = {path for path in folder.rglob("*") if path.is_file()}
    half.api.ok("DELETE", f"/buckets/{half.bucket}")
    half.failing(half.house.storage.blobs, "delete")
    sweep.sweep(half.runtime)
    half.patch.undo()
    half.do_duties()
    assert {path for path in folder.rglob("*") if path.is_file()} < before


def test_a_duty_that_could_not_be_finished_stays(half):
    half.submit("busy")
    taken = half.claim()
    with half.house.storage.database.reading() as session:
        scope = collections.get(session, half.collection).scope
    with half.house.storage.database.writing() as uow:
        source = taken.items[0].source_id
        tombstones.add(uow.session, scope, "source", half.collection, source_id=source, again_ms=120_000)
    sweep.sweep(half.runtime)
    with half.house.storage.database.reading() as session:
        assert tombstones.count(session) == 2
    half.lose()
    half.do_duties()


def test_a_collection_deleted_while_it_is_worked_on_lets_its_batch_end_and_leaves_nothing(half):
    batch = half.submit("one", "two")
    half.when_at("after_embed", lambda: half.api.ok("DELETE", f"/collections/{half.collection}?force=true"))
    with half.house.storage.database.reading() as session:
        scope = collections.get(session, half.collection).scope
    drain(half.worker())
    assert half.states(batch) == ["failed", "failed"]
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "FAILED"
    half.do_duties()
    assert half.house.storage.vectors.count_all(scope, half.collection) == 0
    assert half.rows() == []
    with half.house.storage.database.reading() as session:
        assert collections.get(session, half.collection) is None


def test_the_row_of_a_deleted_collection_stays_until_the_last_lease_is_over(half):
    half.submit("buried")
    drain(half.worker())
    half.api.ok("DELETE", f"/collections/{half.collection}")
    sweep.sweep(half.runtime)
    with half.house.storage.database.reading() as session:
        assert collections.get(session, half.collection) is not None
    half.do_duties()
    with half.house.storage.database.reading() as session:
        assert collections.get(session, half.collection) is None


def test_a_collection_bound_to_other_weights_waits_for_them_and_embeds_nothing(half):
    batch = half.submit("bound elsewhere")
    with half.house.storage.database.writing() as uow:
        collections.get(uow.session, half.collection).revision = "f" * 40
    ingest.work_once(half.worker())
    assert half.states(batch) == ["pending"]
    assert "f" * 40 in half.api.ok("GET", f"/batches/{batch}")["lifecycle_reason"]
    half.api.ok("POST", f"/batches/{batch}/cancel")


def test_who_dies_while_a_model_loads_has_claimed_nothing(half):
    batch = half.submit("not yet in hand")
    worker = half.worker()
    seen = []
    half.patch.setattr(
        type(worker), "warm", lambda *_given: seen.append((half.item(batch).state, half.item(batch).attempts))
    )
    ingest.work_once(worker)
    assert seen == [("pending", 0)]


def test_nothing_is_completed_for_a_collection_that_is_being_deleted(half):
    batch = half.submit("no longer wanted")
    with half.house.storage.database.writing() as uow:
        collections.get(uow.session, half.collection).state = "deleting"
    drain(half.worker())
    assert (half.item(batch).state, half.item(batch).reason_code) == ("failed", "SOURCE_DELETED")
    assert half.points() == 0


def test_reconciling_leaves_alone_what_a_worker_has_written_and_not_yet_completed(half):
    batch = half.submit("written, not yet told")
    with half.house.storage.database.reading() as session:
        scope = collections.get(session, half.collection).scope
    said = []
    half.when_at(
        "after_upsert",
        lambda: said.append(sweep.reconcile_source(half.runtime, scope, half.collection, half.ids[0])),
    )
    ingest.work_once(half.worker())
    assert said == [False]
    assert half.states(batch) == ["completed"]
    half.assert_index_equals_rows()


def test_reconciling_spares_points_that_were_written_after_the_rows_were_read(half):
    """Whoever claims the source in the meantime writes with a higher epoch."""
    half.submit("written meanwhile")
    drain(half.worker())
    row = half.rows()[0]
    index = half.house.storage.vectors
    real = type(index).epochs

    def and_then_written(self, *given):
        found = real(self, *given)
        half.patch.setattr(type(index), "epochs", real)
        half.again(dedup_strategy="force")
        drain(half.worker())
        return {**found, row.id: found[row.id] - 1}  # as it would look had it been written by someone before

    half.patch.setattr(type(index), "epochs", and_then_written)
    half.patch.setattr(sweep, "_rewrite", lambda *_given: None)
    assert not sweep.reconcile_source(half.runtime, row.scope, half.collection, row.source_id)
    half.patch.undo()
    half.assert_index_equals_rows()


def test_vectors_of_a_writer_who_lost_are_kept_all_the_same(half):
    half.submit("worth keeping")
    half.when_at("after_embed", half.lose)
    ingest.work_once(half.worker())
    assert half.rows() == []
    asked = []
    real = Encoder.encode

    def watched(self, texts, *more, **named):
        asked.extend(texts)
        return real(self, texts, *more, **named)

    half.patch.setattr(Encoder, "encode", watched)
    drain(half.worker())
    assert asked == []
    assert len(half.rows()) == 1


def test_a_tier_begins_when_nothing_of_the_one_before_is_open(half):
    half.patch.setattr(items, "MAX_CLAIM", 1)
    batch = half.submit("one", "two")
    ingest.work_once(half.worker())
    assert half.states(batch) == ["completed", "pending"]
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "PROCESSING"
    drain(half.worker())
    assert half.api.ok("GET", f"/batches/{batch}")["status"] == "COMPLETED"
    with half.house.storage.database.reading() as session:
        assert batch not in batches.open_ids(session)
