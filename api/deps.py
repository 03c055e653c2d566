"""What routes ask for: the services, the caller, the namespace, the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from api.auth import Caller
from api.replies import without_none
from api.services import Services
from domain.documents import Scope
from domain.errors import BadRequest, Invalid
from storage.tables import namespaces
from storage.tables.paging import Page, PageRequest

MAX_LIMIT: Final = 1_000
MAX_OFFSET: Final = 10_000


# These only hand on what is in memory. As plain functions FastAPI would send each of them to another thread.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _json_object(request: Request) -> Mapping[str, Any]:
    if request.method not in {"POST", "PUT", "PATCH"}:
        return {}
    content_type = request.headers.get("content-type", "application/json")
    if "json" not in content_type:
        return {}
    parsed = await request.json()
    return parsed if isinstance(parsed, dict) else {}


ServicesNow = Annotated[Services, Depends(_services)]
CallerNow = Annotated[Caller, Depends(_caller)]
RawBody = Annotated[Mapping[str, Any], Depends(_json_object)]


@dataclass(frozen=True, slots=True)
class Inside:
    """A caller inside one namespace: what every namespaced route works with."""

    services: Services
    caller: Caller
    scope: Scope


def _inside(request: Request, services: ServicesNow, caller: CallerNow, body: RawBody) -> Inside:
    """Resolve the namespace from the header, else from the body.

    Raises:
        BadRequest: there is none, or header and body (or two headers) disagree.
        NotFound: the caller's organization has no such namespace.
    """
    named = [*request.headers.getlist("x-namespace"), *request.headers.getlist("x-namespace-id")]
    wanted = {name.strip() for name in named if name.strip()}
    in_body = body.get("namespace_id")
    if isinstance(in_body, str) and in_body.strip():
        wanted.add(in_body.strip())
    if not wanted:
        message = (
            "This route needs a namespace: send the header 'X-Namespace: <id or name>', or namespace_id in the body."
        )
        raise BadRequest(message, code="namespace_missing")
    with services.storage.database.reading() as session:
        rows = {namespaces.require(session, caller.organization_id, name).id for name in sorted(wanted)}
    if len(rows) > 1:
        message = "The request names two different namespaces. Name one, in the X-Namespace header or in the body."
        raise BadRequest(message, code="namespace_conflict")
    return Inside(services, caller, Scope(caller.organization_id, rows.pop()))


InNamespace = Annotated[Inside, Depends(_inside)]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page was asked for, and whatever else a list takes."""

    page: PageRequest
    number: int

    def pagination(self, page: Page[Any]) -> dict[str, Any]:
        """Return the contract's description of a page."""
        limit = self.page.limit
        total = page.total if self.page.include_total else None
        more = page.next_cursor is not None
        by_cursor = self.page.cursor is not None
        return {
            **without_none(
                {
                    "total": total,
                    "total_pages": -(-total // limit) if total is not None else None,
                    "page": None if by_cursor else self.number,
                    "next_page": self.number + 1 if more and not by_cursor else None,
                    "previous_page": self.number - 1 if self.number > 1 and not by_cursor else None,
                }
            ),
            "page_size": limit,
            "next_cursor": page.next_cursor,
        }


class Paging:
    """A dependency that reads the contract's many spellings of a page, from the query and from the body."""

    def __init__(self, default: int = 10, most: int = MAX_LIMIT) -> None:
        self._default = default
        self._most = most

    async def __call__(self, request: Request, body: RawBody) -> Asked:
        """Return what was asked for; the body wins over the query.

        Raises:
            Invalid: a number is out of its range.
        """
        asked = {**request.query_params, **{key: value for key, value in body.items() if value is not None}}
        limit = _number(asked, ("limit", "page_size"), self._default, 1, self._most)
        number = _number(asked, ("page",), 1, 1, MAX_OFFSET + 1)
        offset = _number(asked, ("offset",), (number - 1) * limit, 0, MAX_OFFSET)
        cursor = next((asked[key] for key in ("cursor", "next_cursor", "after") if asked.get(key)), None)
        if cursor is not None and not isinstance(cursor, str):
            raise Invalid("cursor must be a string.", location=("body", "cursor"))
        total = str(asked.get("include_total", "")).lower() == "true"
        return Asked(PageRequest(limit, min(offset, MAX_OFFSET), cursor, total), offset // limit + 1)


def _number(asked: Mapping[str, Any], names: tuple[str, ...], default: int, least: int, most: int) -> int:
    for name in names:
        value = asked.get(name)
        if value is None or value == "":
            continue
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            raise Invalid(f"{name} must be a whole number from {least} to {most:,}.", location=("query", name))
        return number
    return default
