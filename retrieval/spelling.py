"""Stages as users write them: three spellings come in, one goes on.

new     {"stage_name", "stage_type", "config": {"stage_id", "parameters", "pre_filters", "post_filters"}}
old     {"stage_type", "stage_id", "parameters"}
oldest  {"type": "feature_search", …parameters}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from domain.errors import Invalid
from domain.json_types import Fields, Json
from retrieval.registry import STAGES

MAX_STAGES: Final = 20
_LONGEST_NAME: Final = 100
# Names that older pages of the contract use.
_RETIRED: Final = {
    "hybrid_search": "feature_search",
    "semantic_search": "feature_search",
    "knn_search": "feature_search",
    "feature_filter": "feature_search",
    "filter": "attribute_filter",
}
_NOT_BUILT: Final = frozenset(
    {
        *("llm_filter", "query_expand", "agent_search"),
        *("sort_relevance", "rerank", "maxsim_rerank", "mmr", "score_normalize"),
        *("sample", "deduplicate", "aggregate", "summarize", "group_by", "cluster"),
        *("json_transform", "rag_prepare", "unwind", "api_call", "sql_lookup", "web_scrape"),
        *("external_web_search", "external_reverse_image", "code_execution", "cross_compare"),
        *("llm_enrich", "taxonomy_enrich", "document_enrich", "agentic_enrich"),
        *("traverse_edge", "moment_group"),
    }
)
_NO_PARAMETERS: Final = frozenset(
    {
        *("type", "stage_id", "stage_name", "stage_type", "config", "parameters", "version"),
        *("pre_filters", "post_filters", "on_error", "output_alias", "batch_size"),
    }
)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as it is stored and shown.

    Attributes:
        parameters: as written; templates in them are filled in when the stage runs.
        on_error: error or skip.
        location: where the caller wrote the stage, for messages.
        inside: what leads from there to the parameters.
    """

    name: str
    stage_id: str
    parameters: Fields
    pre_filters: Json
    post_filters: Json
    on_error: str
    output_alias: str | None
    location: tuple[str | int, ...]
    inside: tuple[str, ...] = ("config", "parameters")

    def at(self, part: str) -> tuple[str | int, ...]:
        """Return where the parameters, pre_filters or post_filters were written."""
        if part == "parameters":
            return (*self.location, *self.inside)
        return (*self.location, *(one for one in self.inside if one != "parameters"), part)

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
    names: set[str] = set()
    return _filter_first([_read(stage, (*root, index), names) for index, stage in enumerate(raw)])


def _read(raw: Any, location: tuple[str | int, ...], names: set[str]) -> StageSpec:
    if not isinstance(raw, dict):
        raise Invalid("A stage is an object.", location=location)
    config = raw.get("config")
    nested = isinstance(config, dict) and bool(config)
    written: dict[str, Any] = config if isinstance(config, dict) and config else raw
    way = ("config",) if nested else ()
    key = next((one for one in ("stage_id", "type") if written.get(one)), "stage_id")
    if nested and not written.get(key) and raw.get("stage_id"):
        stage_id = _known(raw["stage_id"], (*location, "stage_id"))
    else:
        stage_id = _known(written.get(key), (*location, *way, key))
    parameters, inside = written.get("parameters"), (*way, "parameters")
    if parameters is None and nested and raw.get("parameters") is not None:
        parameters, inside = raw["parameters"], ("parameters",)
    if parameters is None:
        parameters, inside = {name: written[name] for name in written if name not in _NO_PARAMETERS}, way
    if not isinstance(parameters, dict):
        raise Invalid("The parameters of a stage are an object.", location=(*location, *inside))
    on_error = raw.get("on_error") or "error"
    if on_error not in {"error", "skip"}:
        raise Invalid("on_error is error or skip.", location=(*location, "on_error"))
    alias = raw.get("output_alias")
    return StageSpec(
        name=_unique(str(raw.get("stage_name") or stage_id)[:_LONGEST_NAME], names),
        stage_id=stage_id,
        parameters=parameters,
        pre_filters=written.get("pre_filters") or raw.get("pre_filters"),
        post_filters=written.get("post_filters") or raw.get("post_filters"),
        on_error=on_error,
        output_alias=alias[:_LONGEST_NAME] if isinstance(alias, str) and alias else None,
        location=location,
        inside=inside,
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


def _unique(name: str, names: set[str]) -> str:
    """Return a name that no earlier stage has: statistics are kept by name."""
    unique, number = name, 1
    while unique in names:
        number += 1
        unique = f"{name}_{number}"
    names.add(unique)
    return unique


def _filter_first(stages: list[StageSpec]) -> list[StageSpec]:
    """Search among what matches, instead of fetching first and searching the fetched."""
    ahead, search = stages[0], stages[min(1, len(stages) - 1)]
    if (ahead.stage_id, search.stage_id) != ("attribute_filter", "feature_search"):
        return stages
    if ahead.pre_filters or ahead.post_filters or ahead.on_error != "error" or ahead.output_alias:
        return stages
    wanted = _as_filter(ahead.parameters)
    if wanted is None:
        return stages
    combined: Json = {"AND": [wanted, search.pre_filters]} if search.pre_filters else wanted
    return [replace(search, pre_filters=combined), *stages[2:]]


def _as_filter(parameters: Mapping[str, Json]) -> Json:
    """Return the filter of an attribute_filter that has nothing but conditions; None otherwise."""
    if parameters.get("natural_language") or parameters.get("case_insensitive"):
        return None
    members: list[Json] = []
    if parameters.get("field") is not None:
        condition = {"field": parameters["field"], "operator": parameters.get("operator") or "eq"}
        members.append({**condition, "value": parameters.get("value")})
    conditions = parameters.get("conditions")
    if conditions:
        members.append({"AND": conditions} if isinstance(conditions, list) else conditions)
    groups: Fields = {key: parameters[key] for key in ("AND", "OR", "NOT") if parameters.get(key)}
    if groups:
        members.append(groups)
    return {"AND": members} if len(members) > 1 else next(iter(members), None)
