"""Stages as users write them: three spellings come in, one goes on.

new     {"stage_name", "stage_type", "config": {"stage_id", "parameters", "pre_filters", "post_filters"}}
old     {"stage_type", "stage_id", "parameters"}
oldest  {"type": "feature_search", …parameters}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import Invalid
from domain.json_types import Fields, Json
from retrieval.registry import STAGES

MAX_STAGES: Final = 20
_RETIRED: Final = {
    "hybrid_search": "feature_search",
    "semantic_search": "feature_search",
    "knn_search": "feature_search",
    "filter": "attribute_filter",
    "feature_filter": "feature_search",
}
_NOT_BUILT: Final = frozenset(
    """llm_filter query_expand agent_search sort_relevance rerank maxsim_rerank mmr score_normalize sample deduplicate
    aggregate summarize group_by cluster json_transform rag_prepare unwind api_call sql_lookup web_scrape
    external_web_search external_reverse_image code_execution cross_compare llm_enrich taxonomy_enrich document_enrich
    agentic_enrich traverse_edge moment_group""".split()
)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as it is stored and shown.

    Attributes:
        location: where the caller wrote it, for messages.
    """

    name: str
    stage_id: str
    parameters: Fields
    pre_filters: Json
    post_filters: Json
    on_error: str
    output_alias: str | None
    location: tuple[str | int, ...]

    def shown(self) -> Fields:
        """Return the stage in the contract's new spelling, parameters copied to where the SDK reads them."""
        config: Fields = {"stage_id": self.stage_id, "parameters": self.parameters}
        if self.pre_filters:
            config["pre_filters"] = self.pre_filters
        if self.post_filters:
            config["post_filters"] = self.post_filters
        shown: Fields = {
            "stage_name": self.name,
            "stage_type": STAGES.require(self.stage_id).category.value,
            "config": config,
            "parameters": self.parameters,
            "on_error": self.on_error,
        }
        return {**shown, "output_alias": self.output_alias} if self.output_alias else shown


def read_stages(raw: Sequence[Any], *, root: tuple[str | int, ...] = ("body", "stages")) -> list[StageSpec]:
    """Read stages in any spelling; an attribute_filter right before a first search becomes its pre-filter.

    Raises:
        Invalid: a stage is unknown, not offered, or malformed; the location points at it.
    """
    if not raw:
        raise Invalid("A retriever needs at least one stage.", location=root)
    if len(raw) > MAX_STAGES:
        raise Invalid(f"A retriever has at most {MAX_STAGES} stages.", location=root, code="too_many_stages")
    names: dict[str, int] = {}
    return _filter_first([_read(stage, (*root, index), names) for index, stage in enumerate(raw)])


def _read(raw: Any, location: tuple[str | int, ...], names: dict[str, int]) -> StageSpec:
    if not isinstance(raw, dict):
        raise Invalid("A stage is an object.", location=location)
    config = raw.get("config") if isinstance(raw.get("config"), dict) else {}
    nested = bool(config)
    stage_id = config.get("stage_id") or raw.get("stage_id") or raw.get("type")
    where = (*location, "config", "stage_id") if nested else (*location, "stage_id")
    stage_id = _known(stage_id, where)
    parameters = config.get("parameters") if nested else raw.get("parameters")
    if parameters is None and not nested and "stage_id" not in raw:
        parameters = {
            key: value for key, value in raw.items() if key not in {"type", "stage_name", "stage_type", "on_error"}
        }
    if parameters is not None and not isinstance(parameters, dict):
        raise Invalid("The parameters of a stage are an object.", location=(*location, "parameters"))
    on_error = raw.get("on_error") or "error"
    if on_error not in {"error", "skip"}:
        raise Invalid("on_error is error or skip.", location=(*location, "on_error"))
    alias = raw.get("output_alias")
    return StageSpec(
        name=_unique(str(raw.get("stage_name") or stage_id)[:100], names),
        stage_id=stage_id,
        parameters=dict(parameters or {}),
        pre_filters=config.get("pre_filters") or raw.get("pre_filters"),
        post_filters=config.get("post_filters") or raw.get("post_filters"),
        on_error=on_error,
        output_alias=alias if isinstance(alias, str) else None,
        location=location,
    )


def _known(stage_id: Any, where: tuple[str | int, ...]) -> str:
    if not isinstance(stage_id, str) or not stage_id:
        raise Invalid("A stage needs a stage_id.", location=where)
    canonical = stage_id if STAGES.find(stage_id) else _RETIRED.get(stage_id, stage_id)
    if STAGES.find(canonical) is None and canonical in _NOT_BUILT:
        known = ", ".join(name for name, _ in STAGES.items())
        message = f"The stage {canonical!r} is not offered yet. Offered: {known}."
        raise Invalid(message, location=where, code="not_offered")
    STAGES.require(canonical, location=where)
    return canonical


def _unique(name: str, names: dict[str, int]) -> str:
    names[name] = names.get(name, 0) + 1
    return name if names[name] == 1 else f"{name}_{names[name]}"


def _filter_first(stages: list[StageSpec]) -> list[StageSpec]:
    """Search among what matches, instead of fetching first and searching the fetched."""
    if len(stages) < 2 or (stages[0].stage_id, stages[1].stage_id) != ("attribute_filter", "feature_search"):  # noqa: PLR2004
        return stages
    ahead, search = stages[0], stages[1]
    if ahead.pre_filters or ahead.post_filters or ahead.on_error != "error":
        return stages
    wanted = _as_filter(ahead.parameters)
    if wanted is None:
        return stages
    combined: Json = {"AND": [wanted, search.pre_filters]} if search.pre_filters else wanted
    merged = StageSpec(
        search.name, search.stage_id, search.parameters, combined, search.post_filters, search.on_error,
        search.output_alias, search.location,
    )  # fmt: skip
    return [merged, *stages[2:]]


def _as_filter(parameters: Mapping[str, Json]) -> Json:
    groups: Fields = {key: parameters[key] for key in ("AND", "OR", "NOT") if parameters.get(key)}
    if parameters.get("field") is not None:
        operator = parameters.get("operator") or "eq"
        return {"field": parameters["field"], "operator": operator, "value": parameters.get("value")}
    conditions = parameters.get("conditions")
    return ({"AND": conditions} if isinstance(conditions, list) else conditions) or groups or None
