"""The catalogue of stages: what a retriever can be made of."""

import inspect

from fastapi import APIRouter, Response

from api.bodies import OpenRoute
from api.replies import reply
from retrieval.registry import STAGES

router = APIRouter(prefix="/retrievers", route_class=OpenRoute, tags=["stages"])


@router.get("/stages")
def list_stages() -> Response:
    """List every stage, with its category and parameters."""
    return reply(
        [
            {
                "stage_id": stage_id,
                "description": inspect.getdoc(stage) or stage_id,
                "category": stage.category.value,
                "icon": stage.icon,
                "parameter_schema": stage.Parameters.model_json_schema(),
            }
            for stage_id, stage in STAGES.items()
        ]
    )
