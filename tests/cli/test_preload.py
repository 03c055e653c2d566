"""`serve --preload`: not ready until the models have computed, whatever comes in between."""

import time

import pytest
from starlette.testclient import TestClient

from cli import preload
from cli.serve import application
from extractors.text_embedding import engine
from tests.conftest import Api


@pytest.fixture(autouse=True)
def _never_asked_before(monkeypatch, request):
    monkeypatch.setattr(preload, "_QUERY", request.node.name)  # what was asked before is remembered, and not embedded


@pytest.fixture
def house(make_house):
    return make_house()


def ready(client):
    response = client.get("/readyz")
    return response.status_code, response.json()["parts"]["preload"]


def wait_until(says, seconds=30):
    deadline = time.monotonic() + seconds
    while not says():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def gate(monkeypatch):
    """Return a list of what loading a model does next: raise an error; with none left, it goes on."""
    errors: list[Exception] = []
    real = engine.Engine.encode

    def encode(self, *given, **more):
        if errors:
            raise errors[-1]
        return real(self, *given, **more)

    monkeypatch.setattr(engine.Engine, "encode", encode)
    monkeypatch.setattr(preload, "RETRY_SECONDS", 0.02)
    return errors


def test_readiness_says_why_not_until_the_models_of_the_collections_have_computed(make_house, tmp_path, gate):
    first = make_house(tmp_path)
    with TestClient(application(first, "http://testserver")) as client:
        api = Api(client).fresh()
        api.collection(api.bucket())
    first.close()
    house = make_house(tmp_path)
    gate.append(engine.WeightsBroken("openpeek/standin", "the disk is slow."))
    with TestClient(application(house, "http://testserver", preload=True)) as client:
        wait_until(lambda: "the disk is slow" in ready(client)[1])
        assert ready(client)[0] == 503
        assert client.get("/healthz").status_code == 200
        gate.clear()
        wait_until(lambda: ready(client)[0] == 200)
        assert ready(client) == (200, "OK")


def test_without_collections_the_default_model_is_loaded(make_house, monkeypatch):
    asked = []
    monkeypatch.setattr(engine.Engine, "encode", _noting(asked, engine.Engine.encode))
    house = make_house(default_model="openpeek/standin")
    with TestClient(application(house, "http://testserver", preload=True)) as client:
        wait_until(lambda: ready(client)[0] == 200)
    assert asked == ["openpeek/standin"]


def _noting(asked, real):
    def encode(self, *given, **more):
        asked.append(self.model.model_id)
        return real(self, *given, **more)

    return encode


def test_without_the_option_nothing_is_waited_for(house):
    with TestClient(application(house, "http://testserver")) as client:
        assert ready(client) == (200, "OK")


def test_a_server_that_is_stopped_while_it_waits_for_weights_stops(house, gate):
    gate.append(engine.WeightsBroken("openpeek/standin", "gone."))
    began = time.monotonic()
    with TestClient(application(house, "http://testserver", preload=True)) as client:
        assert ready(client)[0] == 503
    assert time.monotonic() - began < 20
