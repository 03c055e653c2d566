"""Tasks: receipts of long work, organization-wide."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.batches.schemas import task_view
from api.bodies import StrictRoute
from api.buckets.schemas import ListQuery
from api.deps import Asked, CallerNow, Paging, ServicesNow
from api.replies import reply
from storage.tables import tasks

router = APIRouter(prefix="/tasks", route_class=StrictRoute, tags=["tasks"])


class TaskQuery(ListQuery):
    """What a list of tasks may be asked for."""

    status: str | None = None
    task_type: str | None = None


@router.get("/{task_id}")
def get_task(task_id: str, caller: CallerNow, services: ServicesNow) -> Response:
    """Return a task."""
    with services.storage.database.reading() as session:
        return reply(task_view(tasks.require(session, caller.organization_id, task_id)))


@router.post("/list")
def list_tasks(
    body: TaskQuery, asked: Annotated[Asked, Depends(Paging())], caller: CallerNow, services: ServicesNow
) -> Response:
    """List the tasks of the organization, oldest first."""
    with services.storage.database.reading() as session:
        page = tasks.list_page(session, caller.organization_id, asked.page, body.status, body.task_type)
    content = {"results": [task_view(row) for row in page.rows], "pagination": asked.pagination(page)}
    return reply(content, warnings=body.unknown_keys())
