"""Session fixtures: one server of each kind for a whole test run, started when the first test asks for it.

A test that stops, kills or fills a server starts one of its own: these are shared.
"""

import functools
from typing import TypeVar

import pytest

from tests.services.postgres import PostgresServer
from tests.services.processes import Server
from tests.services.seaweedfs import SeaweedServer
from tests.services.valkey import ValkeyServer

S = TypeVar("S", bound=Server)


@functools.cache
def _shared(kind: type[S]) -> S:
    """Start the one server of a kind; it ends with the process, whichever conftest brought these fixtures in."""
    server = kind()
    try:
        return server.start()
    except BaseException:
        server.close()
        raise


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """PostgreSQL; take a database of your own with `create_database`."""
    return _shared(PostgresServer)


@pytest.fixture(scope="session")
def valkey_server() -> ValkeyServer:
    """Valkey without a password; take keys of your own."""
    return _shared(ValkeyServer)


@pytest.fixture(scope="session")
def seaweedfs_server() -> SeaweedServer:
    """SeaweedFS with one bucket; take a prefix of your own."""
    return _shared(SeaweedServer)
