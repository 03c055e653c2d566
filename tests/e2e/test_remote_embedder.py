"""A whole house whose model runs on a server: it waits while the server is away, and writes nothing half."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from cli import doctor, settings
from cli.serve import application
from extractors.contract import ModelHome
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.models import require
from storage.tables.documents import DocumentRow
from storage.tables.items import ItemRow
from storage.tables.vectors import VectorRow
from tests.conftest import Api
from tests.doubles.embeddings_server import Scripted, embeddings_server
from tests.doubles.standin import MODEL_ID as MODEL

KEY = "sk-canary-9876543210"
TEXTS = ["a red fox in the snow", "blue whales sing", "bread and butter", "a fox and a whale"]


@pytest.fixture
def script() -> Iterator[Scripted]:
    with embeddings_server() as script:
        engine = Engine(require(MODEL), ModelHome("nowhere"))
        script.embed = lambda texts: engine.encode(texts) * np.float32(2)
        script.info = {"model_id": MODEL, "model_sha": "rev-one"}
        yield script


@pytest.fixture
def remote(make_house, script) -> Iterator[tuple[Api, object]]:
    """Return a client of a house whose embeddings come from the double."""
    house = make_house(embeddings_url=script.url, embeddings_key=KEY, lease_seconds=5)
    with TestClient(application(house, "http://testserver"), raise_server_exceptions=False) as client:
        yield Api(client).fresh(), house


def rows(house, kind, *columns):
    with house.storage.database.reading() as session:
        return session.execute(select(*columns or (kind,))).all()


def waiting_for(api: Api, batch: str, words: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reason = api.ok("GET", f"/batches/{batch}").get("lifecycle_reason") or ""
        if words in reason:
            return
        time.sleep(0.05)
    raise AssertionError(f"the batch does not wait for {words!r} but {reason!r}")


def made(api: Api) -> tuple[str, list[str]]:
    bucket = api.bucket()
    return bucket, api.objects(bucket, [{"body": text} for text in TEXTS])


def collect(api: Api, bucket: str):
    return api.collection(bucket, input_mappings={"text": "body"})


def test_ingestion_and_search_go_through_the_server(remote, script):
    api, house = remote
    bucket, ids = made(api)
    collect(api, bucket)
    assert api.run(bucket, ids)["status"] == "COMPLETED"
    assert api.search("red fox")[0]["text"] == TEXTS[0]
    sent = [text for request in script.requests for text in request["input"]]
    assert {f"d: {text}" for text in TEXTS} <= set(sent)
    assert "q: red fox" in sent
    assert set(script.keys) == {f"Bearer {KEY}"}
    assert {row.revision for (row,) in _collections(house)} == {"rev-one"}
    vectors = [np.frombuffer(vector, "<f4") for (vector,) in rows(house, VectorRow, VectorRow.data)]
    assert np.allclose([np.linalg.norm(one) for one in vectors], 1, atol=1e-5)


def _collections(house):
    from storage.tables.collections import CollectionRow

    return rows(house, CollectionRow)


def test_a_repeated_query_is_not_sent_again(remote, script):
    api, _house = remote
    bucket, ids = made(api)
    collect(api, bucket)
    api.run(bucket, ids)
    api.search("a query that nobody asked before")
    before = len(script.requests)
    api.search("a query that nobody asked before")
    assert len(script.requests) == before


def test_while_the_server_is_away_the_batch_waits_and_no_attempt_is_burned(remote, script):
    api, house = remote
    bucket, ids = made(api)
    collect(api, bucket)
    script.statuses = [503] * 8
    batch = api.submit(bucket, ids)
    waiting_for(api, batch, "embeddings server")
    assert "127.0.0.1" not in api.ok("GET", f"/batches/{batch}")["lifecycle_reason"]
    assert {attempts for (attempts,) in rows(house, ItemRow, ItemRow.attempts)} == {0}
    assert rows(house, DocumentRow) == []
    script.statuses = []
    assert api.wait(batch)["status"] == "COMPLETED"
    assert {attempts for (attempts,) in rows(house, ItemRow, ItemRow.attempts)} == {1}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda answer: {**answer, "data": answer["data"][:-1]}, "vectors for"),
        (
            lambda answer: {**answer, "data": [{**one, "embedding": one["embedding"][:-1]} for one in answer["data"]]},
            "383",
        ),
        (lambda answer: {**answer, "data": [{**one, "embedding": [0.0] * 384} for one in answer["data"]]}, "all zero"),
    ],
)
def test_a_wrong_answer_writes_nothing_and_the_batch_goes_on_once_it_is_right(remote, script, spoil, words):
    api, house = remote
    bucket, ids = made(api)
    collect(api, bucket)
    script.spoil = spoil
    batch = api.submit(bucket, ids)
    waiting_for(api, batch, words)
    assert rows(house, DocumentRow) == []
    assert rows(house, VectorRow) == []
    script.spoil = lambda answer: answer
    assert api.wait(batch)["status"] == "COMPLETED"
    assert len(api.search("fox")) == len(TEXTS)


def test_another_revision_at_the_server_is_refused_for_work_and_for_searches(remote, script, monkeypatch):
    from storage import embeddings

    monkeypatch.setattr(embeddings, "_ASK_AGAIN_SECONDS", 0.0)
    api, _house = remote
    bucket, ids = made(api)
    collect(api, bucket)
    api.run(bucket, ids[:2])
    script.info = {"model_id": MODEL, "model_sha": "rev-two"}
    stage = {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"searches": [{"query": "a"}]}}}
    error = api.refused(409, "POST", "/retrievers/execute", {"stages": [stage], "collection_identifiers": []})
    assert error["code"] == "model_mismatch"
    batch = api.submit(bucket, ids[2:])
    waiting_for(api, batch, "rev-two")
    script.info = {"model_id": MODEL, "model_sha": "rev-one"}
    assert api.wait(batch)["status"] == "COMPLETED"


def test_a_collection_can_be_made_while_the_server_is_away_and_says_that_it_will_wait(remote, script):
    api, _house = remote
    bucket, _ids = made(api)
    script.info_status = 503
    reply = collect(api, bucket)
    assert any("embeddings server" in warning for warning in reply["warnings"])


def test_the_embeddings_route_goes_through_the_server_and_never_tells_the_key(remote, script):
    api, _house = remote
    body = {"input": ["a", "b"], "model": MODEL}
    assert len(api.ok("POST", "/embeddings", body)["data"]) == 2
    script.statuses, script.error = [401], {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    response = api.send("POST", "/embeddings", json=body)
    assert response.status_code == 503
    assert KEY not in response.text
    script.statuses = [500] * 3
    response = api.send("POST", "/embeddings", json=body)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "127.0.0.1" not in response.text


def test_health_tells_that_the_server_is_away(remote, script, monkeypatch):
    from storage import embeddings

    monkeypatch.setattr(embeddings, "_ASK_AGAIN_SECONDS", 0.0)
    api, _house = remote
    bucket, _ids = made(api)
    collect(api, bucket)
    assert api.ok("GET", "/health/deep")["data"]["inference"] is True
    script.info_status = 503
    reply = api.ok("GET", "/health/deep")
    assert reply["data"]["inference"] is False
    assert "embeddings server" in reply["problems"]["inference"]


def test_the_doctor_asks_the_server_and_says_what_is_wrong_with_it(script, tmp_path, capsys):
    def examined() -> str:
        found = settings.load(
            data=tmp_path, plugins="tests.doubles.standin", default_model=MODEL, embeddings_url=script.url
        )
        healthy = doctor.examine(found)
        return f"{healthy} {' '.join(capsys.readouterr().out.split())}"

    assert "rev-one" in examined()
    script.spoil = lambda answer: {"data": []}
    assert examined().startswith("False")
    script.spoil = lambda answer: answer
    script.info_status = 503
    assert "embeddings server" in examined()
