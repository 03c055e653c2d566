"""The bell of distributed mode, on a real server that is killed, frozen, filled and emptied."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from domain.errors import Unavailable
from storage.queues.celery import KEY_PREFIX, QUEUE, TASK, CeleryQueue, celery_app
from tests.services.ports import free_port
from tests.services.processes import Server, package_folder
from tests.services.valkey import ValkeyServer

pytestmark = pytest.mark.services

KEY = KEY_PREFIX + QUEUE
PASSWORD = "valkey-canary-55"


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A server that this test may break."""
    with ValkeyServer(password=PASSWORD) as server:
        yield server


@pytest.fixture
def make_queue() -> Iterator[Callable[[str], CeleryQueue]]:
    """Return a maker of queues that are closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(url: str) -> CeleryQueue:
            made = CeleryQueue(url)
            stack.callback(made.close)
            return made

        yield make


def messages(server: ValkeyServer) -> list[dict[str, Any]]:
    client = server.client()
    try:
        return [json.loads(raw) for raw in client.lrange(KEY, 0, -1)]
    finally:
        client.close()


def seconds_until_refused(call: Callable[[], None]) -> tuple[float, Unavailable]:
    start = time.monotonic()
    with pytest.raises(Unavailable) as told:
        call()
    return time.monotonic() - start, told.value


def test_a_ring_is_one_message_that_says_nothing_but_the_name_of_the_task(own_valkey, make_queue):
    make_queue(own_valkey.url).ring()
    (message,) = messages(own_valkey)
    assert message["headers"]["task"] == TASK == "workers.drain"
    assert message["content-type"] == "application/json"
    assert message["headers"]["eta"] is None
    assert message["headers"]["argsrepr"] == "()"


def test_many_rings_without_a_worker_leave_one_message(own_valkey, make_queue):
    first, second = make_queue(own_valkey.url), make_queue(own_valkey.url)
    for _ in range(50):
        first.ring()
        second.ring()
    assert len(messages(own_valkey)) == 1


def test_the_bell_rings_over_a_unix_socket_too(own_valkey, make_queue):
    queue = make_queue(own_valkey.socket_url)
    queue.check()
    queue.ring()
    queue.ring()
    assert len(messages(own_valkey)) == 1


def test_all_keys_carry_our_prefix(own_valkey, make_queue):
    make_queue(own_valkey.url).ring()
    client = own_valkey.client()
    assert all(key.startswith(KEY_PREFIX.encode()) for key in client.keys("*"))
    client.close()


def test_a_server_that_was_emptied_is_rung_again(own_valkey, make_queue):
    queue = make_queue(own_valkey.url)
    queue.ring()
    client = own_valkey.client()
    client.flushall()
    client.close()
    queue.ring()
    assert len(messages(own_valkey)) == 1


def test_a_dead_server_is_told_within_four_seconds_and_forgotten_once_it_is_back(own_valkey, make_queue):
    used, fresh = make_queue(own_valkey.url), make_queue(own_valkey.url)
    used.ring()
    own_valkey.kill()
    for queue in (used, fresh):
        for call in (queue.ring, queue.check):
            took, told = seconds_until_refused(call)
            assert took < 4
            assert told.retryable
            assert "no connection to Redis" in told.message
            assert PASSWORD not in told.message
    own_valkey.start()
    used.check()
    used.ring()
    fresh.ring()
    assert len(messages(own_valkey)) == 1, "the first message outlived the kill, so none was added"


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_frozen_server_costs_at_most_four_seconds(own_valkey, make_queue, seen_before):
    queue = make_queue(own_valkey.url)
    if seen_before:
        queue.check()
    own_valkey.pause()
    try:
        took, told = seconds_until_refused(queue.check if seen_before else queue.ring)
        assert took < 4
        assert "no answer within 2 s" in told.message
    finally:
        own_valkey.resume()
    queue.ring()
    assert len(messages(own_valkey)) == 1


def test_a_server_that_freezes_just_before_the_message_costs_at_most_four_seconds(own_valkey, make_queue, monkeypatch):
    queue = make_queue(own_valkey.url)
    # A double of the unlucky moment: the question whether a message waits was answered, and then silence.
    monkeypatch.setattr(queue._redis, "llen", lambda key: own_valkey.pause() or 0)
    try:
        took, told = seconds_until_refused(queue.ring)
    finally:
        own_valkey.resume()
    assert took < 4
    assert "no answer within 2 s" in told.message


def test_a_full_server_is_told_and_rung_again_when_there_is_room(own_valkey, make_queue):
    queue = make_queue(own_valkey.url)
    client = own_valkey.client()
    client.config_set("maxmemory", "1")
    _, told = seconds_until_refused(queue.ring)
    assert "no memory left" in told.message
    queue.check()
    client.config_set("maxmemory", "0")
    client.close()
    queue.ring()
    assert len(messages(own_valkey)) == 1


def test_a_wrong_password_is_told_without_showing_it(own_valkey, make_queue):
    queue = make_queue(own_valkey.url.replace(PASSWORD, "wrong-canary"))
    for call in (queue.ring, queue.check):
        _, told = seconds_until_refused(call)
        assert "refuses the password" in told.message
        assert "canary" not in told.message


def test_making_a_queue_asks_nobody_and_a_server_that_never_was_is_told(make_queue):
    queue = make_queue(f"redis://127.0.0.1:{free_port()}/0")
    took, _ = seconds_until_refused(queue.ring)
    assert took < 4


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://:p@redis.test:6380/2", "required"),
        ("rediss://redis.test/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca.pem", "required"),
        ("rediss://redis.test/0?ssl_cert_reqs=none", "none"),
    ],
)
def test_certificates_are_checked_unless_the_operator_says_no(url, expected, make_queue):
    wanted = {"required": ssl.CERT_REQUIRED, "none": ssl.CERT_NONE}[expected]
    assert celery_app(url).connection_for_write().ssl["ssl_cert_reqs"] == wanted
    connection = make_queue(url)._redis.connection_pool.make_connection()
    assert connection.cert_reqs == wanted
    assert connection.check_hostname is (expected == "required")


def test_both_clients_of_a_queue_mean_the_same_database(make_queue):
    queue = make_queue("redis+socket://:geheim@/run/v.sock?virtual_host=3")
    given = queue._redis.connection_pool.connection_kwargs
    assert (given["path"], given["db"], given["password"]) == ("/run/v.sock", 3, "geheim")


class Worker(Server):
    """A Celery worker on the application of this room, as a child."""

    name = "celery"
    ready_within_seconds = 20.0

    def __init__(self, url: str) -> None:
        super().__init__()
        code = """
            import os, pathlib, sys, time
            from storage.queues.celery import TASK, celery_app
            app = celery_app(sys.argv[1])
            folder = pathlib.Path(sys.argv[2])

            @app.task(name=TASK)
            def drain():
                with (folder / "drained").open("a") as file:
                    file.write("x")
                while (folder / "hold").exists():
                    time.sleep(0.02)

            @app.on_after_configure.connect
            def nothing(**kwargs): pass
            from celery.signals import worker_ready
            worker_ready.connect(lambda **kwargs: (folder / "ready").touch(), weak=False)
            app.worker_main(["worker", "--pool=solo", "--concurrency=1", "--without-gossip", "--without-mingle"])
        """
        self._code = textwrap.dedent(code)
        self._url = url
        self.drained = self.folder / "drained"
        self.hold = self.folder / "hold"

    def command(self) -> list[str]:
        (self.folder / "ready").unlink(missing_ok=True)
        root = package_folder("storage").parent
        code = f"import sys; sys.path.insert(0, {str(root)!r})\n{self._code}"
        return [sys.executable, "-c", code, self._url, str(self.folder)]

    def answers(self) -> bool:
        return (self.folder / "ready").exists()

    def count(self, at_least: int, within_seconds: float) -> int:
        """Wait until the task has run so often, and return how often it has."""
        deadline = time.monotonic() + within_seconds
        while True:
            count = len(self.drained.read_text()) if self.drained.exists() else 0
            if count >= at_least or time.monotonic() > deadline:
                return count
            time.sleep(0.02)


def test_a_worker_hears_the_bell_and_again_after_the_server_was_away(own_valkey, make_queue):
    queue = make_queue(own_valkey.url)
    with Worker(own_valkey.url) as worker:
        queue.ring()
        assert worker.count(1, within_seconds=5) == 1
        own_valkey.kill()
        own_valkey.start()
        queue.ring()
        assert worker.count(2, within_seconds=15) == 2, worker.log.read_text()
        assert messages(own_valkey) == []
        log = worker.log.read_text()
    assert PASSWORD not in log
    assert "Deprecat" not in log


def test_a_worker_that_could_not_acknowledge_because_the_server_was_away_hears_the_next_ring(own_valkey, make_queue):
    queue = make_queue(own_valkey.url)
    with Worker(own_valkey.url) as worker:
        worker.hold.touch()
        queue.ring()
        assert worker.count(1, within_seconds=5) == 1
        own_valkey.kill()
        worker.hold.unlink()
        deadline = time.monotonic() + 10
        while "Couldn't ack" not in worker.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        own_valkey.start()
        queue.ring()
        assert worker.count(2, within_seconds=15) >= 2, worker.log.read_text()


def test_a_ring_while_the_worker_is_busy_waits_for_it(own_valkey, make_queue):
    queue = make_queue(own_valkey.url)
    with Worker(own_valkey.url) as worker:
        worker.hold.touch()
        queue.ring()
        assert worker.count(1, within_seconds=5) == 1
        queue.ring()
        queue.ring()
        worker.hold.unlink()
        assert worker.count(2, within_seconds=5) == 2


def test_importing_the_bell_loads_no_worker_and_warns_of_nothing():
    root = str(package_folder("storage").parent)
    code = "import sys, storage.queues.celery; sys.exit('workers' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, env={"PATH": os.environ["PATH"]}, check=False
    )
    assert done.returncode == 0


def test_the_settings_are_those_that_were_measured():
    app = celery_app("redis://127.0.0.1/0")
    assert dict(app.conf.broker_transport_options) == {
        "visibility_timeout": 120,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "global_keyprefix": "openpeek:",
    }
    conf = app.conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.worker_prefetch_multiplier) == (True, False, 0)
    assert (conf.task_ignore_result, conf.result_backend, conf.accept_content) == (True, None, ["json"])
    assert (conf.task_time_limit, conf.task_soft_time_limit) == (None, None)
