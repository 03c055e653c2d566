"""Celery's view of the workers: a bell that makes a worker look at the rows.

The pool is solo: torch does not survive a fork, and a task that is killed costs nothing, because what it
held comes back when its lease runs out. While a task drains, TERM is noticed between portions.
"""

import threading

from celery import Celery
from celery.worker import state

from storage.queues.celery import TASK, celery_app
from workers.loop import WorkLoop
from workers.runtime import Runtime


def build(url: str, runtime: Runtime) -> tuple[Celery, WorkLoop]:
    """Return the application and the loop that looks at the rows when no bell rings."""
    app = celery_app(url)
    pause = threading.Event()

    def wait(seconds: float, heard: int) -> int:
        pause.wait(seconds)
        return heard

    loop = WorkLoop(runtime, wait, threads=1)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def drain() -> None:
        loop.drain_now(until=lambda: bool(state.should_stop or state.should_terminate))

    return app, loop


def run(app: Celery, loop: WorkLoop) -> None:
    """Work until the process is told to stop."""
    loop.start()
    try:
        app.worker_main(
            ["worker", "--pool=solo", "--concurrency=1", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
        )
    finally:
        loop.stop()
