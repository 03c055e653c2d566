"""Both modes as running processes, behind one fixture."""

import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Api
from tests.doubles.qdrant_rest import make_server
from tests.e2e.topology import ADMIN_KEY, Topology
from tests.services.fixtures import postgres_server, seaweedfs_server, valkey_server  # noqa: F401 - fixtures
from tests.services.ports import free_port

REAL_QDRANT = os.environ.get("OPENPEEK_TEST_QDRANT_URL")


def services_of(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """Return the settings of a distributed set-up over real services; only Qdrant may be a double."""
    name = f"e2e_{uuid.uuid4().hex[:8]}"
    s3 = request.getfixturevalue("seaweedfs_server")
    if REAL_QDRANT is None:
        double = make_server(free_port(), folder / "qdrant-double", api_key="double-key")
        threading.Thread(target=double.serve_forever, daemon=True).start()
        request.addfinalizer(double.server_close)
        request.addfinalizer(double.shutdown)
        qdrant, key = f"http://127.0.0.1:{double.server_address[1]}", "double-key"
    else:
        qdrant, key = REAL_QDRANT, os.environ.get("OPENPEEK_TEST_QDRANT_API_KEY", "")
    return {
        "OPENPEEK_DATABASE_URL": request.getfixturevalue("postgres_server").create_database(name),
        "OPENPEEK_QUEUE_URL": request.getfixturevalue("valkey_server").url,
        "OPENPEEK_BLOBS": f"s3://{s3.bucket}/{name}",
        "OPENPEEK_S3_ENDPOINT": s3.endpoint,
        "OPENPEEK_VECTORS_URL": qdrant,
        "OPENPEEK_VECTORS_API_KEY": key,
        "OPENPEEK_SECRET_KEY": "0123456789abcdef0123456789abcdef",
        **s3.environment,
    }


@pytest.fixture(scope="module", params=["embedded", pytest.param("distributed", marks=pytest.mark.services)])
def topology(request, tmp_path_factory) -> Iterator[Topology]:
    """OpenPeek running in one mode."""
    folder = tmp_path_factory.mktemp(request.param)
    services = services_of(request, folder) if request.param == "distributed" else {}
    running = Topology(request.param, folder, services)
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
def peek(topology: Topology) -> Iterator[Api]:
    """A client of the first API, inside a fresh namespace."""
    with topology.client() as client:
        yield Api(client, ADMIN_KEY).fresh()
