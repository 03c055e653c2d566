"""Request bodies: strict JSON in, and unknown keys named instead of silently dropped."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from api import auth
from api.errors import Refused
from domain.errors import BadRequest, OpenPeekError, TooLarge
from domain.json_types import MAX_DEPTH, Json, strings

MAX_BODY_BYTES: Final = 32 * 1024 * 1024


class Body(BaseModel):
    """Base of request bodies. Explicit nulls are normal; unknown keys are kept apart and named in ``warnings``."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    quiet: ClassVar[frozenset[str]] = frozenset({"namespace_id"})

    def unknown_keys(self) -> list[str]:
        """Return a warning for each key that this server does not know."""
        return [f"The key {path!r} is not known here and was ignored." for path in _unknown(self, "")]


def _unknown(model: BaseModel, prefix: str) -> Iterator[str]:
    for key in model.model_extra or {}:
        if not (isinstance(model, Body) and key in model.quiet):
            yield prefix + key
    for name in type(model).model_fields:
        value = getattr(model, name)
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, BaseModel):
                yield from _unknown(item, f"{prefix}{name}.{index}." if isinstance(value, list) else f"{prefix}{name}.")


class StrictRequest(Request):
    """A request whose JSON is read strictly: no NaN, no lone surrogates, no NUL, no bottomless nesting."""

    async def body(self) -> bytes:
        """Return the body; an absent one on a writing method is an empty object."""
        if not hasattr(self, "_body"):
            pieces: list[bytes] = []
            size = 0
            async for piece in self.stream():
                size += len(piece)
                if size > MAX_BODY_BYTES:
                    message = f"The body is larger than {MAX_BODY_BYTES:,} bytes. Send less at a time."
                    raise Refused(TooLarge(message, limit=MAX_BODY_BYTES))
                pieces.append(piece)
            self._body = b"".join(pieces)
        raw = self._body
        return raw if raw or self.method not in {"POST", "PATCH", "PUT"} else b"{}"

    async def json(self) -> Any:
        """Return the parsed body, once."""
        if not hasattr(self, "_parsed"):
            self._parsed = parse(await self.body())
        return self._parsed


def parse(raw: bytes) -> Json:
    """Read JSON strictly.

    Raises:
        Refused: it is malformed, holds a NUL character, or is nested deeper than 64 levels.
    """
    try:
        parsed: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refused(BadRequest(f"The body is not valid JSON: {error}.", code="json_malformed")) from error
    if b"\\u0000" in raw and any("\x00" in text for text in strings(parsed)):
        raise Refused(BadRequest("The body holds a NUL character, which cannot be stored.", code="nul_character"))
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _too_deep(parsed):
        raise Refused(BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.", code="json_too_deep"))
    return parsed


def _too_deep(parsed: Json) -> bool:
    level: list[Json] = [parsed]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Json] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return False
        level = inner
    return True


class StrictRoute(APIRoute):
    """A route that asks for the key before it looks at the body, and reads the body strictly."""

    anonymous: ClassVar[bool] = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that FastAPI will call."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            if not self.anonymous:
                try:
                    key_hash = auth.key_hash_of(request)
                    known = auth.recall(request, key_hash)
                    request.state.caller = known or await run_in_threadpool(auth.look_up, request, key_hash)
                except OpenPeekError as error:
                    raise Refused(error) from error
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


class OpenRoute(StrictRoute):
    """A route that the contract wants answered without any key."""

    anonymous = True
