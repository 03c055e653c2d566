"""`openpeek serve`: the API, and in embedded mode the workers too, in one process."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.health import examine
from cli import logs, secrets, wiring
from cli.preload import Preload
from cli.settings import Settings
from cli.wiring import House
from workers.loop import WorkLoop

log = structlog.get_logger(__name__)


def serve(settings: Settings, host: str, port: int, *, preload: bool = False) -> None:
    """Serve until told to stop.

    Args:
        settings: what the operator said.
        host: address to listen on.
        port: to listen on; 0 takes any.
        preload: load models now, and say not to be ready until then.
    """
    logs.configure()
    public_url = settings.public_url or f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{port}"  # noqa: S104
    house = wiring.build(settings, public_url=public_url)
    try:
        key = secrets.ensure_admin_key(house.storage.database, settings, house.secrets, host)
        path = secrets.write_credentials(settings.data, public_url, key)
        _announce(house, public_url, key if settings.admin_api_key is None else None, path)
        app = application(house, public_url, preload=preload)
        server = uvicorn.Server(
            uvicorn.Config(app, host, port, log_config=None, access_log=False, timeout_graceful_shutdown=15)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn stops on these and then raises them again for whoever handled them before: nobody must, or
            # the process would end before its stores are closed.
            signal.signal(number, lambda _number, _frame: None)
        server.run()
        if not server.started:
            raise SystemExit(1)  # uvicorn has said why: the port is taken, most often
    finally:
        house.close()


def application(house: House, public_url: str, *, preload: bool = False) -> FastAPI:
    """Return the application of a house, which starts and stops the house's threads."""
    models = Preload(house.storage.database, house.models) if preload else None
    loop: WorkLoop | None = house.embedded_loop()

    @asynccontextmanager
    async def running(_app: FastAPI) -> AsyncIterator[None]:
        house.relay.start()
        if loop is not None:
            loop.start()
        if models is not None:
            models.start()
        yield
        if models is not None:
            models.stop()
        if loop is not None:
            loop.stop()

    services = house.services(public_url) if models is None else house.services(public_url, models.state)
    return create_app(services, lifespan=running)


def _announce(house: House, url: str, key: str | None, credentials: Path) -> None:
    mode = "distributed: workers run by `openpeek worker`" if house.settings.is_distributed else "embedded"
    print(f"OpenPeek {mode}. API at {url}/v1, reference at {url}/docs", flush=True)  # noqa: T201
    if key is not None:
        print(f"Your first API key, shown once: {key}", flush=True)  # noqa: T201
    print(f"Address and key for the command line: {credentials}", flush=True)  # noqa: T201
    for part, problem in examine(house.services(url)).items():
        if problem is not None:
            log.warning("part_degraded", part=part, problem=problem)
