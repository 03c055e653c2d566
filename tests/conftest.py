"""Fixtures that several rooms share: a whole house in this process, and a client that speaks to it."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cli import secrets, settings, wiring
from cli.serve import application
from cli.wiring import House

ADMIN_KEY = "sk_tests_only"
_numbers = itertools.count(1)


class Api:
    """A client with a key, inside a namespace: answers are parsed, unexpected states fail the test."""

    def __init__(self, client: Any, key: str = ADMIN_KEY, namespace: str | None = None, prefix: str = "/v1") -> None:
        self.client = client
        self.key = key
        self.namespace = namespace
        self.prefix = prefix

    def inside(self, namespace: str) -> "Api":
        """Return a client for another namespace."""
        return Api(self.client, self.key, namespace, self.prefix)

    def send(
        self, method: str, path: str, *, json: Any = None, headers: dict[str, str] | None = None, **more: Any
    ) -> Any:
        """Send a request and return the raw response."""
        sent = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.namespace:
            sent["X-Namespace"] = self.namespace
        given = {} if json is None else {"json": json}
        return self.client.request(method, self.prefix + path, headers={**sent, **(headers or {})}, **given, **more)

    def ok(self, method: str, path: str, json: Any = None, **more: Any) -> Any:
        """Return the parsed answer of a request that must succeed with exactly 200."""
        response = self.send(method, path, json=json, **more)
        assert response.status_code == 200, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        return response.json()

    def refused(self, status: int, method: str, path: str, json: Any = None, **more: Any) -> dict[str, Any]:
        """Return the error of a request that must be refused, after checking the envelope."""
        response = self.send(method, path, json=json, **more)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text[:2000]}"
        body = response.json()
        assert body["success"] is False
        assert body["status"] == status
        error = body["error"]
        assert error["message"], "an error says what was wrong"
        assert error["type"], "an error has a type"
        assert error["code"], "an error has a code"
        assert response.headers["x-request-id"]
        return error

    def fresh(self) -> "Api":
        """Return a client inside a namespace of its own."""
        name = f"ns-{next(_numbers)}-{time.time_ns()}"
        return self.inside(self.ok("POST", "/namespaces", {"namespace_name": name})["namespace_id"])

    def bucket(self, name: str = "texts", **properties: Any) -> str:
        """Make a bucket with a text and return its id."""
        schema = {"properties": {"body": {"type": "text"}, "lang": {"type": "string"}, **properties}}
        return self.ok("POST", "/buckets", {"bucket_name": name, "bucket_schema": schema})["bucket_id"]

    def collection(
        self, bucket: str, name: str = "parts", model: str = "openpeek/standin", **more: Any
    ) -> dict[str, Any]:
        """Make a collection of the stand-in model over a bucket."""
        parameters = {"model_id": model, **more.pop("parameters", {})}
        extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "parameters": parameters, **more}
        source = {"type": "bucket", "bucket_ids": [bucket]}
        body = {"collection_name": name, "source": source, "feature_extractor": extractor}
        return self.ok("POST", "/collections", body)

    def objects(self, bucket: str, objects: list[dict[str, Any]]) -> list[str]:
        """Put objects into a bucket and return their ids."""
        ids = []
        for start in range(0, len(objects), 100):
            reply = self.ok("POST", f"/buckets/{bucket}/objects/batch", {"objects": objects[start : start + 100]})
            assert reply["failed"] == []
            ids += [one["object_id"] for one in reply["succeeded"]]
        return ids

    def submit(self, bucket: str, ids: list[str], **more: Any) -> str:
        """Make a batch and submit it; return its id."""
        batch = self.ok("POST", f"/buckets/{bucket}/batches", {"object_ids": ids, **more})["batch_id"]
        self.ok("POST", f"/buckets/{bucket}/batches/{batch}/submit")
        return batch

    def wait(self, batch: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a batch has ended and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = self.ok("GET", f"/batches/{batch}")
            if now["status"] not in {"DRAFT", "PENDING", "PROCESSING"}:
                return now
            time.sleep(0.02)
        raise AssertionError(f"the batch did not end within {seconds} s: {now}")

    def run(self, bucket: str, ids: list[str], **more: Any) -> dict[str, Any]:
        """Submit a batch, wait for its end and return it."""
        return self.wait(self.submit(bucket, ids, **more))

    def search(
        self, query: Any, limit: int = 10, collections: list[str] | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """Search by meaning and return documents."""
        parameters = {"searches": [{"query": query, "top_k": max(limit, 100), **more}], "final_top_k": limit}
        stage = {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": parameters}}
        body = {"stages": [stage], "collection_identifiers": collections or [], "limit": limit}
        return self.ok("POST", "/retrievers/execute", body)["documents"]


@pytest.fixture(scope="session")
def make_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., House]]:
    """Return a maker of embedded houses, each in a folder of its own, with the stand-in model."""
    made: list[House] = []

    def make(folder: Path | None = None, **given: Any) -> House:
        data = folder or tmp_path_factory.mktemp("data")
        found = settings.load(data=data, plugins="tests.doubles.standin", admin_api_key=ADMIN_KEY, **given)
        house = wiring.build(found)
        secrets.ensure_admin_key(house.storage.database, found, house.secrets, "127.0.0.1")
        made.append(house)
        return house

    yield make
    for house in made:
        house.close()


@pytest.fixture(scope="session")
def house(make_house: Callable[..., House]) -> House:
    """Return one embedded house for all tests that do not need their own."""
    return make_house(lease_seconds=5)


@pytest.fixture(scope="session")
def server(house: House) -> Iterator[Api]:
    """Return a client of that house, its workers running."""
    app = application(house, "http://testserver")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Api(client)


@pytest.fixture
def api(server: Api) -> Api:
    """Return a client inside a fresh namespace."""
    return server.fresh()
