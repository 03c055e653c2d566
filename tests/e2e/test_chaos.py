"""Killed at random moments: every object ends exactly once, every document exists exactly once, index equals rows.

`make chaos SEED=…` runs all kills; `make test` runs a few of them (test_a_few_kills…).
"""

import os
import random
import time

import pytest
from sqlalchemy import func, select

from storage.database import Database
from storage.tables.documents import DocumentRow
from storage.tables.items import MAX_CLAIM, ItemRow
from storage.vectors.embedded import EdgeIndex
from storage.vectors.server import QdrantIndex, connect
from tests.conftest import Api
from tests.e2e.conftest import services_of
from tests.e2e.topology import ADMIN_KEY, Topology

SEED = int(os.environ.get("OPENPEEK_TEST_SEED", "1"))
OBJECTS = 800
TWO_PORTIONS = MAX_CLAIM + 50


def kill_and_check(request, tmp_path, mode: str, kills: int) -> None:
    dice = random.Random(SEED)
    services = services_of(request, tmp_path) if mode == "distributed" else {}
    running = Topology(mode, tmp_path, services, lease_seconds=2)
    request.addfinalizer(running.close)
    running.start()
    with running.client() as client:
        peek = Api(client, ADMIN_KEY).fresh()
        bucket = peek.bucket()
        collection = peek.collection(bucket, parameters={"split_by": "words", "chunk_size": 4})["collection_id"]
        texts = [f"object {n} says {dice.random()} and more words follow" if n % 25 else "  " for n in range(OBJECTS)]
        ids = peek.objects(bucket, [{"body": text} for text in texts])
        batches = [peek.submit(bucket, ids, dedup_strategy="force")]
        for number in range(kills):
            time.sleep(dice.uniform(0.0, 2.5))
            if ended(peek, batches[-1]):
                batches.append(peek.submit(bucket, ids, dedup_strategy="force"))
                time.sleep(dice.uniform(0.0, 0.3))
            victim = dice.choice([*running.workers, *running.apis]) if mode == "distributed" else running.apis[0]
            print(f"kill {number + 1}/{kills}: {victim.name}", flush=True)
            victim.kill()
            victim.start()
            running.wait_until_ready()
        for batch in batches:
            done = peek.wait(batch, seconds=120)
            assert done["status"] == "COMPLETED_WITH_ERRORS"
            assert {one["error_code"] for one in done["failed_objects"]} == {"EMPTY_TEXT"}, done["failed_objects"]
            assert sum(done["item_counts"].values()) == OBJECTS
            assert done["item_counts"]["failed"] == len([text for text in texts if not text.strip()])
    running.close()
    assert_index_equals_rows(services, tmp_path, collection)


def ended(peek: Api, batch: str) -> bool:
    return peek.ok("GET", f"/batches/{batch}")["status"] not in {"PENDING", "PROCESSING"}


def assert_index_equals_rows(services, folder, collection: str) -> None:
    database = Database(services.get("OPENPEEK_DATABASE_URL", f"sqlite:///{folder / 'data' / 'openpeek.db'}"))
    with database.reading() as session:
        rows = list(session.scalars(select(DocumentRow).where(DocumentRow.collection_id == collection)))
        open_items = session.scalar(
            select(func.count()).select_from(ItemRow).where(ItemRow.state.in_(["pending", "processing"]))
        )
    database.close()
    assert open_items == 0
    assert len({(row.source_id, row.part) for row in rows}) == len(rows)
    url = services.get("OPENPEEK_VECTORS_URL")
    index = (
        QdrantIndex(connect(url, services["OPENPEEK_VECTORS_API_KEY"]))
        if url
        else EdgeIndex(folder / "data" / "vectors")
    )
    wanted: dict[str, dict[str, int]] = {}
    for row in rows:
        wanted.setdefault(row.source_id, {})[row.id] = row.epoch
    try:
        there = {source: index.epochs(rows[0].scope, collection, source) for source in wanted}
        assert there == wanted
        assert index.count_all(rows[0].scope, collection) == len(rows)
    finally:
        index.close()


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["embedded", pytest.param("distributed", marks=pytest.mark.services)])
def test_twenty_five_kills_lose_and_double_nothing(request, tmp_path, mode):
    kill_and_check(request, tmp_path, mode, kills=25)


@pytest.mark.services
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["embedded", "distributed"])
def test_a_few_kills_lose_and_double_nothing(request, tmp_path, mode):
    kill_and_check(request, tmp_path, mode, kills=3)


@pytest.mark.services
@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", ["AFTER_CLAIM", "AFTER_EMBED", "BEFORE_SURPLUS", "AFTER_UPSERT", "AFTER_COMPLETE"])
def test_a_kill_at_each_named_point_loses_and_doubles_nothing(request, tmp_path, point):
    running = Topology("embedded", tmp_path, {f"OPENPEEK_FAULT_{point}": "kill:2"}, lease_seconds=2)
    request.addfinalizer(running.close)
    running.start()
    with running.client() as client:
        peek = Api(client, ADMIN_KEY).fresh()
        bucket = peek.bucket()
        collection = peek.collection(bucket)["collection_id"]
        ids = peek.objects(bucket, [{"body": f"object {n} of the kill at a named point"} for n in range(TWO_PORTIONS)])
        batch = peek.submit(bucket, ids)
        assert running.apis[0].process.wait(60) == -9, "the fault point strikes"
    calm = Topology("embedded", tmp_path, {}, lease_seconds=2)
    request.addfinalizer(calm.close)
    calm.start()
    with calm.client() as client:
        done = Api(client, ADMIN_KEY).wait(batch, seconds=60)
    assert done["item_counts"] == {"completed": TWO_PORTIONS}
    calm.close()
    assert_index_equals_rows({}, tmp_path, collection)
