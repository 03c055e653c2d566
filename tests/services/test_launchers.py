"""The servers that other tests lean on: they keep their data through kills, freeze, and never outlive the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services.ports import free_ports
from tests.services.postgres import PostgresServer
from tests.services.processes import package_folder
from tests.services.valkey import ValkeyServer

pytestmark = pytest.mark.services


def test_postgres_starts_fast_keeps_rows_through_a_kill_and_leaves_nothing():
    start = time.monotonic()
    with PostgresServer() as server:
        assert time.monotonic() - start < 5
        url = server.create_database("one")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE rows (n integer)")
            connection.execute("INSERT INTO rows SELECT generate_series(1, 1000)")
        held = psycopg.connect(url)
        server.kill()
        server.start()
        held.close()
        with psycopg.connect(server.socket_url("one")) as connection:
            assert connection.execute("SELECT count(*) FROM rows").fetchone() == (1000,)
        server.restart()
        copy = server.create_database("two", template="one")
        with psycopg.connect(copy) as connection:
            assert connection.execute("SELECT count(*) FROM rows").fetchone() == (1000,)
        with psycopg.connect(copy):
            server.drop_database("two")
        server.drop_database("two")
        folder = server.folder
    assert not folder.exists()


def test_postgres_asks_for_its_password_over_tcp(postgres_server):
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url().replace(postgres_server.password, "wrong"))


def test_a_frozen_server_keeps_silent_until_it_is_resumed():
    with PostgresServer() as server:
        server.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url(), connect_timeout=2)
        server.resume()
        psycopg.connect(server.url(), connect_timeout=5).close()
        server.pause()
        server.stop()  # a frozen server can still be stopped


@pytest.mark.parametrize("persistent", [True, False])
def test_valkey_keeps_its_keys_through_a_kill_exactly_if_it_is_to(persistent):
    with ValkeyServer(password="pw", persistent=persistent) as server:
        client = server.client()
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == (b"value" if persistent else None)
        client.close()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)).ping()


def test_a_server_that_cannot_start_says_why():
    with ValkeyServer() as first:
        second = ValkeyServer()
        second.port = first.port
        with pytest.raises(RuntimeError, match="Address already in use"):
            second.start()
        second.close()


def test_servers_die_with_a_run_that_is_killed(tmp_path):
    code = f"""
import sys, time, pathlib
sys.path.insert(0, {str(package_folder("storage").parent)!r})
from tests.services.postgres import PostgresServer
from tests.services.valkey import ValkeyServer
servers = [PostgresServer().start(), ValkeyServer().start()]
said = pathlib.Path(sys.argv[1])
said.with_suffix(".new").write_text(" ".join(str(s.pid) + " " + str(s.folder) for s in servers))
said.with_suffix(".new").rename(said)
time.sleep(60)
"""
    said = tmp_path / "said"
    run = subprocess.Popen([sys.executable, "-c", code, str(said)], stdin=subprocess.DEVNULL)
    while not said.exists():
        assert run.poll() is None
        time.sleep(0.02)
    postgres, folder, valkey, other_folder = said.read_text().split()
    run.kill()
    run.wait()
    deadline = time.monotonic() + 5
    while any(is_running(int(pid)) for pid in (postgres, valkey)):
        assert time.monotonic() < deadline, "a server outlived its run"
        time.sleep(0.02)
    for left in (folder, other_folder):  # nobody was left to remove them
        subprocess.run(["rm", "-rf", left], check=True)


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_ports_are_free_and_differ():
    ports = free_ports(20)
    assert len(set(ports)) == 20


def test_signals_of_the_terminal_do_not_reach_servers():
    with ValkeyServer() as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up its rights")
def test_postgres_runs_from_a_copy_where_its_package_is_hidden_from_others(monkeypatch):
    # A double of an installation below /root.
    monkeypatch.setattr("tests.services.postgres._everybody_can_enter", lambda folder: False)
    with PostgresServer() as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
