"""Health: is the process alive, can it serve, and how is each part."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import text

from api.bodies import OpenRoute, StrictRoute
from api.deps import ServicesNow
from api.replies import moment, reply
from api.services import Services
from domain.errors import OpenPeekError
from extractors import registry
from storage.tables import collections, workers

plain = APIRouter(route_class=OpenRoute, tags=["health"])
router = APIRouter(tags=["health"])


@plain.get("/healthz")
def is_alive() -> Response:
    """Say that the process runs."""
    return reply({"status": "OK"})


@plain.get("/readyz")
def is_ready(services: ServicesNow) -> Response:
    """Say whether requests can be served; parts that are away are named."""
    parts = {**examine(services), "preload": services.preloading()}
    ready = parts["metadata"] is None and parts["preload"] is None
    body = {"status": "OK" if all(value is None for value in parts.values()) else "DEGRADED", "parts": _said(parts)}
    return reply(body, status=200 if ready else 503)


@plain.get("/v1/health")
def health() -> Response:
    """Say that the process runs, as the contract words it."""
    return reply({"status": "OK", "service": "openpeek"})


@plain.get("/v1/health/liveness")
def liveness() -> Response:
    """Say that the process runs."""
    return reply({"status": "OK"})


@plain.get("/v1/health/beat")
def beat(services: ServicesNow) -> Response:
    """Say when a worker was last heard of."""
    with services.storage.database.reading() as session:
        last, age_ms, alive = workers.latest_beat(session)
    body = {
        "beat_running": alive > 0,
        "last_heartbeat": moment(last),
        "age_seconds": round(age_ms / 1000, 1) if age_ms is not None else None,
        "workers": alive,
    }
    return reply(body)


deep = APIRouter(route_class=StrictRoute)


@deep.get("/health/deep")
def deep_health(services: ServicesNow) -> Response:
    """Try every part and say which ones answer; what does not is explained under ``problems``."""
    parts = examine(services)
    good = all(value is None for value in parts.values())
    return reply(
        {
            "status": "OK" if good else "DEGRADED",
            "data": {name: value is None for name, value in parts.items()},
            "problems": {name: value for name, value in parts.items() if value is not None},
        }
    )


router.include_router(deep)


def examine(services: Services) -> dict[str, str | None]:
    """Return part → what is wrong with it, or None where all is well."""
    storage = services.storage
    parts = {
        "cache": lambda: None,
        "metadata": lambda: _try_database(services),
        "vector_store": storage.vectors.check,
        "object_storage": storage.blobs.check,
        "task_queue": storage.queue.check,
        "inference": lambda: _try_models(services),
    }
    return {name: _try(check) for name, check in parts.items()}


def _try(check: Callable[[], Any]) -> str | None:
    try:
        check()
    except OpenPeekError as error:
        return error.message
    return None


def _try_database(services: Services) -> None:
    with services.storage.database.reading() as session:
        session.execute(text("SELECT 1"))


def _try_models(services: Services) -> None:
    """Only a model that a living collection uses can make the inference part ill."""
    with services.storage.database.reading() as session:
        used = collections.models_in_use(session)
    for row in used:
        registry.configure(row.extractor_name, row.parameters, services.models).identity()


def _said(parts: dict[str, str | None]) -> dict[str, str]:
    return {name: value or "OK" for name, value in parts.items()}
