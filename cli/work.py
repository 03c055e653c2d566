"""`openpeek worker`: processes that do the work of distributed mode, kept alive by their parent."""

import os
import signal
import subprocess
import sys
import time
from typing import Final

import structlog

from cli import logs, wiring
from cli.settings import Settings, SettingsWrong
from workers.celery_app import build, run

_STOP_SECONDS: Final = 45
_LONGEST_PAUSE_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


def require_distributed(settings: Settings) -> None:
    """Raise SettingsWrong in embedded mode, whose workers are threads of `openpeek serve`."""
    if not settings.is_distributed:
        message = (
            "OPENPEEK_QUEUE_URL is not set, so the workers are threads of `openpeek serve`. "
            "Set OPENPEEK_QUEUE_URL, OPENPEEK_DATABASE_URL and OPENPEEK_VECTORS_URL for workers of their own."
        )
        raise SettingsWrong(message)


def work(settings: Settings) -> None:
    """Be one worker process, until told to stop."""
    require_distributed(settings)
    assert settings.queue_url is not None
    logs.configure()
    house = wiring.build(settings)
    try:
        app, loop = build(settings.queue_url.get_secret_value(), house.runtime())
        log.info("worker_started", process_id=os.getpid())
        run(app, loop)
    finally:
        house.close()


def supervise(settings: Settings, processes: int) -> None:
    """Keep so many worker processes alive; on TERM or Ctrl-C stop them and wait for what they have in hand."""
    require_distributed(settings)
    logs.configure()
    children = [_Child(processes) for _ in range(processes)]
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    while not stopping:
        for child in children:
            child.look_after()
        time.sleep(0.2)
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for child in children:
        child.wait_until(deadline)


class _Child:
    """A worker process and when it may be started again."""

    def __init__(self, siblings: int) -> None:
        threads = str(max(1, (os.cpu_count() or 1) // siblings))
        self._environment = {"OMP_NUM_THREADS": threads, **os.environ}
        self._pause = 1.0
        self._start()

    def look_after(self) -> None:
        """Start the process again if it has ended, at once at first and more slowly when it keeps ending."""
        if self.process.poll() is None:
            return
        lived = time.monotonic() - self._started
        self._pause = 1.0 if lived > 60 else min(self._pause * 2, _LONGEST_PAUSE_SECONDS)  # noqa: PLR2004
        if lived < self._pause:
            return
        log.warning("worker_restarted", code=self.process.returncode)
        self._start()

    def wait_until(self, deadline: float) -> None:
        """Wait for the process to end, and kill it at the deadline: its leases run out by themselves."""
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _start(self) -> None:
        self._started = time.monotonic()
        self.process = subprocess.Popen([sys.executable, "-m", "cli", "worker", "--alone"], env=self._environment)
