"""What the server adapter promises when the server is away, slow, old, or not as we left it. Over the REST double."""

import threading
import time

import httpx
import numpy as np
import pytest

from domain.documents import Scope
from domain.errors import Invalid, Unavailable
from domain.features import VectorSpec
from domain.filters import parse
from storage.ports import Point
from storage.vectors import server as adapter
from storage.vectors.server import QdrantIndex, connect
from tests.doubles.qdrant_rest import make_server
from tests.services.ports import free_port

SCOPE, SPEC = Scope("org", "ns"), VectorSpec("m", "standin", "revision", 8)
SPACE = f"openpeek_{SPEC.name}"
ALONG = np.eye(8, dtype=np.float32)[0]


def points(number: int, epoch: int = 1, **fields) -> list[Point]:
    return [Point(f"doc_{n}", "col", "obj", 1, epoch, {"n": n, **fields}, ALONG) for n in range(number)]


def opened(double, key: str = "double-key") -> QdrantIndex:
    return QdrantIndex(connect(f"http://127.0.0.1:{double.server_address[1]}", key, timeout_seconds=1))


def search(index: QdrantIndex, wanted=None) -> list[str]:
    read = None if wanted is None else parse(wanted)
    hits = index.search(SCOPE, SPEC, ALONG, collection_ids=["col"], filter=read, limit=10)
    return [hit.document_id for hit in hits]


@pytest.fixture
def index(double):
    made = opened(double)
    yield made
    made.close()


def test_a_server_that_is_down_is_no_obstacle_to_starting():
    index = QdrantIndex(connect(f"http://127.0.0.1:{free_port()}", "key"))
    for ask in (index.check, lambda: search(index), lambda: index.upsert(SCOPE, SPEC, points(1))):
        with pytest.raises(Unavailable) as told:
            ask()
        assert told.value.code == "vector_index_unavailable"
    index.close()


@pytest.mark.parametrize("kind", ["down", "hang", "busy"])
def test_a_server_that_goes_away_is_told_in_time_and_used_again_when_it_is_back(double, index, kind):
    index.upsert(SCOPE, SPEC, points(2))
    double.faults.set(kind)
    for ask in (index.check, lambda: search(index), lambda: index.upsert(SCOPE, SPEC, points(2, epoch=2))):
        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask()
        assert time.monotonic() - began < 3
    double.faults.set(None)
    assert search(index) == ["doc_0", "doc_1"]
    assert index.epochs(SCOPE, "col", "obj") == {"doc_0": 1, "doc_1": 1}


def test_a_slow_answer_is_an_answer(double, index):
    index.upsert(SCOPE, SPEC, points(1))
    double.faults.set("slow", seconds=0.2, only="/points/query")
    assert search(index) == ["doc_0"]


def test_a_write_whose_answer_was_lost_may_be_repeated(double, index):
    index.upsert(SCOPE, SPEC, points(1))
    double.faults.set("reply lost", only="/points", times=1)
    with pytest.raises(Unavailable):
        index.upsert(SCOPE, SPEC, points(3, epoch=2))
    assert index.count(SCOPE, "col", ["obj"], 2) == 3  # it was done all the same
    index.upsert(SCOPE, SPEC, points(3, epoch=2))
    assert index.count_all(SCOPE, "col") == 3


def test_faults_can_be_set_from_another_process(double, index):
    index.upsert(SCOPE, SPEC, points(1))
    route = f"http://127.0.0.1:{double.server_address[1]}/double/fault"
    httpx.put(route, json={"kind": "down", "times": 1})
    with pytest.raises(Unavailable):
        search(index)
    assert search(index) == ["doc_0"]


def test_a_wrong_key_is_told(double):
    index = opened(double, key="another")
    with pytest.raises(Unavailable, match="401"):
        index.check()
    index.close()


def test_a_server_that_is_too_old_is_named_and_never_written_to(tmp_path):
    """It would take the write and ignore the fence."""
    old = make_server(free_port(), tmp_path / "old", version="1.15.4")
    threading.Thread(target=old.serve_forever, args=(0.01,), daemon=True).start()
    index = opened(old)
    for ask in (index.check, lambda: index.upsert(SCOPE, SPEC, points(1))):
        with pytest.raises(Unavailable, match=r"version 1\.15\.4, and 1\.16\.0 or newer is needed"):
            ask()
    assert old.engine.shards == {}
    index.close()
    old.shutdown()
    old.server_close()


def test_a_space_that_somebody_dropped_finds_nothing_and_is_made_anew(double, index):
    index.upsert(SCOPE, SPEC, points(2))
    double.engine.drop(SPACE)
    assert search(index) == []
    assert index.count_all(SCOPE, "col") == 0
    double.engine.create(SPACE, {"vectors": {SPEC.name: {"size": 8, "distance": "Cosine"}}})
    double.engine.drop(SPACE)
    index.upsert(SCOPE, SPEC, points(2))
    assert search(index) == ["doc_0", "doc_1"]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_space_of_another_width_is_refused_by_name(double, index, is_known):
    if is_known:
        index.upsert(SCOPE, SPEC, points(1))
        double.engine.drop(SPACE)
    double.engine.create(SPACE, {"vectors": {SPEC.name: {"size": 4, "distance": "Cosine"}}})
    with pytest.raises(Invalid) as refused:
        index.upsert(SCOPE, SPEC, points(1))
    assert refused.value.code == "vector_schema_mismatch"


def test_a_deletion_reaches_a_space_that_another_process_has_just_made(double, index):
    assert index.count_all(SCOPE, "col") == 0  # it has looked, and seen none
    other = opened(double)
    other.upsert(SCOPE, SPEC, points(2))
    index.delete_namespace(SCOPE)
    assert other.count_all(SCOPE, "col") == 0
    other.close()


def test_processes_that_meet_a_new_kind_of_vector_together_all_write(double):
    writers = [opened(double) for _ in range(6)]
    failures: list[BaseException] = []

    def write(index: QdrantIndex, number: int) -> None:
        point = Point(f"doc_{number}", "col", "obj", 1, 1, {}, ALONG)
        try:
            index.upsert(SCOPE, SPEC, [point])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(one, n)) for n, one in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(search(writers[0])) == 6
    for one in writers:
        one.close()


def test_numbers_are_indexed_where_they_are_compared_but_not_without_limit(double, index, monkeypatch):
    monkeypatch.setattr(adapter, "_MOST_RANGES", 1)
    index.upsert(SCOPE, SPEC, points(2, a=1, b=2))
    for path in ("nowhere", "a", "b"):
        search(index, {"field": path, "operator": "gt", "value": 0})
    schema = index._client.get_collection(SPACE).payload_schema
    assert sum(key.startswith("num_") for key in schema) == 1
    again = opened(double)
    assert search(again, {"field": "b", "operator": "gte", "value": 2}) == ["doc_0", "doc_1"]
    assert sum(key.startswith("num_") for key in index._client.get_collection(SPACE).payload_schema) == 1
    again.close()
