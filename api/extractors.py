"""The catalogue of extractors: what can turn objects into documents."""

from typing import Any

from fastapi import APIRouter, Response

from api.bodies import OpenRoute
from api.deps import ServicesNow
from api.replies import reply
from domain.errors import NotFound
from extractors.contract import Extractor, ModelHome
from extractors.registry import EXTRACTORS, configure

router = APIRouter(prefix="/collections/features", route_class=OpenRoute, tags=["extractors"])


@router.get("/extractors")
def list_feature_extractors(services: ServicesNow) -> Response:
    """List every extractor, with its parameters and outputs."""
    return reply([_shown(plugin, services.models) for _, plugin in EXTRACTORS.items()])


@router.get("/extractors/{feature_extractor_id}")
def get_feature_extractor(feature_extractor_id: str, services: ServicesNow) -> Response:
    """Return one extractor by name, alias or id (name and version)."""
    name, _, version = feature_extractor_id.rpartition("_")
    plugin = EXTRACTORS.find(feature_extractor_id)
    if plugin is None and name:
        plugin = EXTRACTORS.find(name)
        plugin = plugin if plugin is not None and plugin.version == version else None
    if plugin is None:
        raise NotFound("extractor", feature_extractor_id, "List them with GET /v1/collections/features/extractors.")
    return reply(_shown(plugin, services.models))


def _shown(plugin: type[Extractor], models: ModelHome) -> dict[str, Any]:
    catalogue = plugin.catalogue
    schema = plugin.Parameters.model_json_schema()
    defaults = {
        name: rule.get("default")
        for name, rule in schema.get("properties", {}).items()
        if rule.get("default") is not None
    }
    return {
        "feature_extractor_name": plugin.name,
        "version": plugin.version,
        "feature_extractor_id": f"{plugin.name}_{plugin.version}",
        "source": "builtin",
        "description": catalogue.description,
        "icon": catalogue.icon,
        "input_schema": {"properties": {key: {"type": kind} for key, kind in catalogue.inputs.items()}},
        "output_schema": {"properties": dict(catalogue.output_schema)},
        "supported_input_types": list(catalogue.supported_input_types),
        "max_inputs": dict(catalogue.max_inputs),
        "default_parameters": defaults,
        "parameter_schema": schema,
        "required_vector_indexes": _indexes(plugin, models),
        "required_payload_indexes": [],
    }


def _indexes(plugin: type[Extractor], models: ModelHome) -> list[dict[str, Any]]:
    output = configure(plugin.name, {}, models).output() if plugin.catalogue.has_vectors else None
    if output is None:
        return []
    name = f"{plugin.name}_{plugin.version}_embedding"
    index = {
        "name": name,
        "description": output.description,
        "dimensions": output.spec.dimensions,
        "distance": output.distance,
        "type": "dense",
        "inference_name": output.spec.inference_name,
    }
    return [{"name": name, "description": output.description, "type": "single", "index": index}]
