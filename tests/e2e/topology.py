"""OpenPeek as real processes: one in embedded mode; two APIs and two Celery workers in distributed mode."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.services.ports import free_port

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "sk_end_to_end_tests_with_more_than_thirty_two_characters"
_LIBC = ctypes.CDLL(None)


class Process:
    """One process of OpenPeek, which dies with the tests."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: _LIBC.prctl(1, signal.SIGKILL),  # noqa: PLW1509 - one system call
            )

    def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(45)


class Topology:
    """All processes of one mode, and the client that speaks to the first API."""

    def __init__(self, mode: str, folder: Path, services: Mapping[str, str], *, lease_seconds: float = 5) -> None:
        self.mode = mode
        self.ports = [free_port() for _ in range(2 if mode == "distributed" else 1)]
        shared = {
            "OPENPEEK_DATA": str(folder / "data"),
            "OPENPEEK_ADMIN_API_KEY": ADMIN_KEY,
            "OPENPEEK_PLUGINS": "tests.doubles.standin",
            "OPENPEEK_LEASE_SECONDS": str(lease_seconds),
            **services,
        }
        self.folder = folder
        self.apis = [
            Process(f"api-{number}", ["serve", "--port", str(port)], shared, folder / f"api-{number}.log")
            for number, port in enumerate(self.ports)
        ]
        self.workers = [
            Process(f"worker-{number}", ["worker", "--alone"], shared, folder / f"worker-{number}.log")
            for number in range(2 if mode == "distributed" else 0)
        ]
        self._migration = Process("migrate", ["migrate"], shared, folder / "migrate.log")

    @property
    def url(self) -> str:
        """Address of the first API."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        """Start everything, and wait until every API answers."""
        if self.mode == "distributed":
            self._migration.start()
            assert self._migration.process is not None
            assert self._migration.process.wait(60) == 0, self._migration.log.read_text()
        for process in [*self.apis, *self.workers]:
            process.start()
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = 30) -> None:
        """Wait until every API answers."""
        deadline = time.monotonic() + seconds
        for process, port in zip(self.apis, self.ports, strict=True):
            while True:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
                assert process.process is not None
                alive = process.process.poll() is None
                assert alive, f"{process.name} ended:\n{process.log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, (
                    f"{process.name} does not answer:\n{process.log.read_text()[-3000:]}"
                )

    def client(self, number: int = 0) -> httpx.Client:
        """Return a client of one API."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports[number]}", timeout=60)

    def close(self) -> None:
        """End everything."""
        for process in [*self.workers, *self.apis]:
            process.kill()
