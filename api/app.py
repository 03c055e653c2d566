"""The application: routes, errors, and what happens to every request on its way in and out."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import blobs, errors, extractors, health, identity, model_cards, stages
from api.auth import KeyMemory
from api.batches import routes as batches
from api.buckets import routes as buckets
from api.collections import routes as collections
from api.documents import routes as documents
from api.embeddings import routes as embeddings
from api.embeddings.service import Batchers
from api.namespaces import routes as namespaces
from api.objects import routes as objects
from api.retrievers import routes as retrievers
from api.services import Services
from api.tasks import routes as tasks
from domain.ids import new_id

_ROOTS = (
    "health",
    "me",
    "namespaces",
    "buckets",
    "collections",
    "batches",
    "tasks",
    "documents",
    "retrievers",
    "blobs",
    "embeddings",
    "inference",
    "discovery",
)


def create_app(services: Services, *, lifespan: Callable[[FastAPI], Any] | None = None) -> FastAPI:
    """Return the application over these services."""
    app = FastAPI(
        title="OpenPeek",
        summary="The open, self-hosted pipeline platform that speaks the Mixpeek API.",
        version="0.1.0",
        lifespan=lifespan,
        strict_content_type=False,
        redirect_slashes=False,
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.services = services
    app.state.keys = KeyMemory()
    app.state.batchers = Batchers()
    errors.install(app)
    app.include_router(health.plain)
    # Literal paths come before paths with parameters: /collections/features before /collections/{id}.
    for router in (
        health.router,
        identity.router,
        blobs.router,
        extractors.router,
        stages.router,
        model_cards.router,
        namespaces.router,
        objects.router,
        batches.router,
        batches.organization_router,
        buckets.router,
        documents.router,
        collections.router,
        retrievers.router,
        tasks.router,
        embeddings.router,
    ):
        app.include_router(router, prefix="/v1")
    app.add_middleware(Doorway)
    return app


class Doorway:
    """Every request gets an id and a decent path; every response carries the id and safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        scope["path"] = _canonical(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id.encode()))
                message["headers"].append((b"x-content-type-options", b"nosniff"))
            await send(message)

        if "\x00" in scope["path"] or b"%00" in scope.get("query_string", b""):
            await _refuse_nul(send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _canonical(path: str) -> str:
    """Serve every route at /v1, at /api/v1 and bare, so that no client trips over its base URL."""
    if path.startswith("/api/v1/"):
        return path.removeprefix("/api")
    root = path.split("/", 2)[1] if path.startswith("/") else ""
    return f"/v1{path}" if root in _ROOTS else path


async def _refuse_nul(send: Send) -> None:
    body = (
        b'{"success":false,"status":400,"error":{"message":"The address holds a NUL character.",'
        b'"type":"BadRequestError","code":"nul_character","details":{},"retryable":false}}'
    )
    response = Response(body, 400, media_type="application/json")
    await response({"type": "http"}, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
