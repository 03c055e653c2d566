"""Every adapter of the vector index, behind one fixture."""

import os
import threading
import uuid
import warnings
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient

from storage.vectors.embedded import EdgeIndex
from storage.vectors.server import QdrantIndex, connect
from tests.doubles.qdrant_rest import Server, make_server
from tests.services.ports import free_port

REAL = os.environ.get("OPENPEEK_TEST_QDRANT_URL")


class Locked:
    """qdrant-client's local mode is not thread-safe, and warns about everything it ignores."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self._lock = threading.Lock()

    def __getattr__(self, name):
        found = getattr(self._client, name)
        if not callable(found):
            return found

        def call(*given, **named):
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return found(*given, **named)

        return call


@pytest.fixture
def double(tmp_path) -> Iterator[Server]:
    """The REST double, running in a thread."""
    server = make_server(free_port(), tmp_path / "double", api_key="double-key")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["edge", "local mode", "double", "server"])
def index(request, tmp_path) -> Iterator[EdgeIndex | QdrantIndex]:
    """The index over Edge in a folder, over qdrant-client's local mode, over the REST double, over a real server."""
    if request.param == "edge":
        made = EdgeIndex(tmp_path / "vectors")
    elif request.param == "local mode":
        made = QdrantIndex(Locked(QdrantClient(":memory:")))
    elif request.param == "double":
        server = request.getfixturevalue("double")
        made = QdrantIndex(connect(f"http://127.0.0.1:{server.server_address[1]}", "double-key"))
    else:
        if REAL is None:
            pytest.skip("no real Qdrant server: set OPENPEEK_TEST_QDRANT_URL")
        made = QdrantIndex(connect(REAL, os.environ.get("OPENPEEK_TEST_QDRANT_API_KEY")))
    yield made
    made.close()


@pytest.fixture
def unique() -> str:
    """Something that no other test has used, so that a shared server stays usable."""
    return uuid.uuid4().hex[:10]
