"""Every failure leaves in the contract's envelope, with a code, what was wrong and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from api.replies import reply
from domain.errors import OpenPeekError

log = structlog.get_logger(__name__)

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 405: "MethodNotAllowedError"}
_CODES = {404: "route_not_found", 405: "method_not_allowed"}


class Refused(HTTPException):
    """Carries an error of ours through code that lets only HTTP exceptions pass."""

    def __init__(self, error: OpenPeekError) -> None:
        super().__init__(error.status, error.message)
        self.error = error


def install(app: FastAPI) -> None:
    """Make every exception leave in the envelope."""
    app.add_exception_handler(OpenPeekError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)


def envelope(
    request: Request, status: int, kind: str, code: str, message: str, details: Mapping[str, Any], *, retryable: bool
) -> Response:
    """Return the error body of the contract, with our additions inside ``error``."""
    error: dict[str, Any] = {
        "message": message,
        "type": kind,
        "code": code,
        "details": dict(details),
        "retryable": retryable,
        "request_id": getattr(request.state, "request_id", None),
    }
    problems = details.get("validation_errors")
    if isinstance(problems, list) and problems and isinstance(problems[0], dict):
        error["pointer"] = "/" + "/".join(str(part) for part in problems[0].get("location") or [])
    response = reply({"success": False, "status": status, "error": error}, status=status)
    after = details.get("retry_after_seconds")
    if after is not None:
        response.headers["Retry-After"] = str(after)
    if status == 401:  # noqa: PLR2004
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _ours(request: Request, error: OpenPeekError) -> Response:
    return envelope(
        request, error.status, error.type, error.code, error.message, error.details, retryable=error.retryable
    )


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, OpenPeekError)
    return _ours(request, error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return _ours(request, error.error)
    code = _CODES.get(error.status_code, "bad_request")
    kind = _TYPES.get(error.status_code, "BadRequestError")
    message = (
        f"There is no route {request.method} {request.url.path[:200]}." if code == "route_not_found" else error.detail
    )
    if code == "method_not_allowed":
        message = f"{request.method} is not offered on {request.url.path[:200]}."
    return envelope(request, error.status_code, kind, code, message, {}, retryable=False)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [_problem(item) for item in error.errors()[:50]]
    first = problems[0]
    where = ".".join(str(part) for part in first["location"])
    message = f"{where}: {first['message']}"
    if first["location"] == ["body"] and "json" not in request.headers.get("content-type", "json"):
        message = "The body was not read as JSON: send the header 'Content-Type: application/json'."
    return envelope(
        request, 422, "ValidationError", "validation_failed", message, {"validation_errors": problems}, retryable=False
    )


def _problem(item: Mapping[str, Any]) -> dict[str, Any]:
    location: Sequence[Any] = item.get("loc", ())
    return {
        "type": str(item.get("type")),
        "location": [part if isinstance(part, int) else str(part)[:200] for part in location],
        "message": str(item.get("msg")),
    }


async def _on_fault(request: Request, error: Exception) -> Response:
    # A fault of ours. It is logged whole; the caller learns the request's id and nothing of our insides.
    log.error("request_failed", path=request.url.path, error=repr(error), exc_info=error)
    message = "The server made a mistake. It has been logged under this request id."
    return envelope(request, 500, "InternalServerError", "internal_error", message, {}, retryable=True)
