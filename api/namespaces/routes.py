"""Namespaces: addressed by path, never by header."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from api.bodies import StrictRoute
from api.deps import Asked, CallerNow, Paging, ServicesNow
from api.namespaces.schemas import NamespaceCreate, NamespaceQuery, view
from api.replies import reply
from api.services import Services
from domain.errors import Conflict
from domain.ids import new_id
from storage.tables import batches, namespaces, removal, statistics
from storage.tables.namespaces import NamespaceRow

router = APIRouter(prefix="/namespaces", route_class=StrictRoute, tags=["namespaces"])
ThisPage = Annotated[Asked, Depends(Paging())]


@router.post("")
def create_namespace(body: NamespaceCreate, caller: CallerNow, services: ServicesNow) -> Response:
    """Create a namespace. It is ready at once."""
    row = NamespaceRow(
        id=body.namespace_id or new_id("ns"),
        organization_id=caller.organization_id,
        name=body.namespace_name,
        description=body.description,
        settings={"feature_extractors": body.feature_extractors or [], "payload_indexes": body.payload_indexes or []},
    )
    with services.storage.database.writing() as uow:
        namespaces.add(uow.session, row)
        content = _shown(uow.session, row)
    return reply(content, warnings=body.unknown_keys())


@router.get("")
def list_namespaces_get(
    asked: ThisPage,
    caller: CallerNow,
    services: ServicesNow,
    search: Annotated[str | None, Query(max_length=256)] = None,
) -> Response:
    """List the namespaces of the organization, oldest first."""
    return _listed(services, caller.organization_id, asked, search)


@router.post("/list")
def list_namespaces(body: NamespaceQuery, asked: ThisPage, caller: CallerNow, services: ServicesNow) -> Response:
    """List the namespaces of the organization, oldest first."""
    return _listed(services, caller.organization_id, asked, body.search)


@router.get("/{namespace_identifier}")
def get_namespace(namespace_identifier: str, caller: CallerNow, services: ServicesNow) -> Response:
    """Return a namespace by id or name."""
    with services.storage.database.reading() as session:
        return reply(_shown(session, namespaces.require(session, caller.organization_id, namespace_identifier)))


@router.delete("/{namespace_identifier}")
def delete_namespace(
    namespace_identifier: str, caller: CallerNow, services: ServicesNow, *, force: bool = False
) -> Response:
    """Delete a namespace with everything in it. While batches run this is refused, unless forced."""
    with services.storage.database.writing() as uow:
        row = namespaces.require(uow.session, caller.organization_id, namespace_identifier)
        running = batches.running_on(uow.session, row.scope)
        if running and not force:
            message = f"{len(running)} batches are running in this namespace. Cancel them, or delete with ?force=true."
            raise Conflict(message, code="namespace_busy", batch_ids=[one.id for one in running[:10]])
        task = removal.receipt(uow.session, row.scope, "api_namespaces_delete", {"namespace_id": row.id})
        removal.hide_namespace(uow.session, row.scope, again_ms=2 * services.lease_ms)
    return reply({"success": True, "task_id": task.id, "status": task.status, "namespace_id": row.id})


def _shown(session: Session, row: NamespaceRow) -> dict[str, Any]:
    return view(row, statistics.of_namespace(session, row.scope))


def _listed(services: Services, organization_id: str, asked: Asked, search: str | None) -> Response:
    with services.storage.database.reading() as session:
        page = namespaces.list_page(session, organization_id, asked.page, search)
        results = [_shown(session, row) for row in page.rows]
    return reply({"results": results, "total_count": page.total, "pagination": asked.pagination(page)})
