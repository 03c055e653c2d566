"""The stage engine: checks a pipeline when it is made, and runs it stage by stage, timing each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from domain.documents import Document
from domain.errors import Invalid, OpenPeekError
from domain.filters import Filter, both, matches, parse
from domain.json_types import Fields, Json
from retrieval.contract import Context, Stage
from retrieval.registry import STAGES
from retrieval.spelling import StageSpec
from retrieval.templates import Clock, MissingInput, TemplateWrong, fill, paths_used

_FILTER_KEYS: Final = frozenset({"conditions", "filters", "AND", "OR", "NOT"})


@dataclass(slots=True)
class Execution:
    """What came of running a pipeline.

    Attributes:
        stages: stage name → input and output count, milliseconds, and what the stage reports of itself.
        degraded: stages that failed and were skipped because they may be.
        relaxations: conditions that were dropped because their input was not given.
    """

    documents: list[Document]
    stages: dict[str, Fields] = field(default_factory=dict)
    total_ms: float = 0.0
    warnings: list[str] = field(default_factory=list)
    degraded: list[Fields] = field(default_factory=list)
    relaxations: list[Fields] = field(default_factory=list)


def check(stages: Sequence[StageSpec], input_schema: Mapping[str, Json]) -> None:
    """Refuse at creation what could never run.

    Raises:
        Invalid: parameters, filters or templates are wrong, or a template names an input that is not declared;
            the location points at the fault.
    """
    for stage in stages:
        templated = False
        for value in (stage.parameters, stage.pre_filters, stage.post_filters):
            try:
                used = list(paths_used(value))
            except TemplateWrong as error:
                raise _at(error, stage.location) from error
            templated = templated or bool(used)
            for root, name in used:
                if root == "INPUT" and input_schema and name and name not in input_schema:
                    message = f"The template names the input {name!r}; declared are {', '.join(sorted(input_schema))}."
                    raise Invalid(message, location=(*stage.location, "parameters"), code="unknown_input")
        # What a template will bring is not known yet: with one inside, only the rest can be checked.
        _build(_without_templates(stage) if templated else stage)


def execute(
    stages: Sequence[StageSpec],
    context: Context,
    *,
    clock: Clock = lambda: datetime.now(UTC),
    secrets: Mapping[str, Json] | None = None,
) -> Execution:
    """Run a pipeline.

    Raises:
        Invalid: an input is missing, or parameters are wrong once templates are filled in.
        Whatever a stage raises that may not be skipped.
    """
    execution = Execution([], warnings=context.warnings)
    names: dict[str, Json] = {"INPUT": dict(context.inputs), "CONTEXT": {}, "STAGE": {}, "SECRET": dict(secrets or {})}
    began = time.perf_counter()
    own_filter = context.filter
    for index, spec in enumerate(stages):
        started, before = time.perf_counter(), len(execution.documents)
        try:
            execution.documents = _run(spec, execution, context, names, clock, first=index == 0)
        except OpenPeekError as error:
            if spec.on_error != "skip":
                raise
            execution.degraded.append(
                {"resource": spec.name, "reason": error.message, "next_step": "Skipped, as on_error says."}
            )
        finally:
            context.filter = own_filter
        after = len(execution.documents)
        execution.stages[spec.name] = {
            "input_count": before,
            "output_count": after,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
            "efficiency": round(after / before, 4) if before else 1.0,
            **context.details.get(spec.name, {}),
        }
    execution.total_ms = round((time.perf_counter() - began) * 1000, 3)
    return execution


def _run(
    spec: StageSpec, execution: Execution, context: Context, names: Mapping[str, Json], clock: Clock, *, first: bool
) -> list[Document]:
    def filled(value: Json, *inside: str) -> Json:
        relaxed = _relax(value, names, clock, execution) if inside else value
        return fill(relaxed, names, clock=clock, location=(*spec.location, *inside))

    parameters: Fields = {
        key: filled(value, key)
        if key in _FILTER_KEYS
        else fill(value, names, clock=clock, location=(*spec.location, key))
        for key, value in spec.parameters.items()
    }
    before = parse(filled(spec.pre_filters, "pre_filters"), location=(*spec.location, "pre_filters"))
    after = parse(filled(spec.post_filters, "post_filters"), location=(*spec.location, "post_filters"))
    stage = _build(spec, parameters)
    context.filter = both(context.filter, before)
    documents = execution.documents
    if before is not None and not first:
        documents = _keep(before, documents)
    documents = stage.run(documents, context, first=first)
    return documents if after is None else _keep(after, documents)


def _keep(wanted: Filter, documents: Sequence[Document]) -> list[Document]:
    return [document for document in documents if matches(wanted, document.fields)]


def _relax(value: Json, names: Mapping[str, Json], clock: Clock, execution: Execution) -> Json:
    """Drop conditions whose input was not given, and say so."""
    if isinstance(value, list):
        kept = [_relax(item, names, clock, execution) for item in value]
        return [item for item in kept if item is not None]
    if not isinstance(value, dict):
        return value
    if "field" in value and ("value" in value or "operator" in value):
        try:
            fill(value.get("value"), names, clock=clock)
        except MissingInput as error:
            execution.relaxations.append({"field": str(value.get("field")), "reason": error.message})
            return None
        return value
    relaxed = {key: _relax(item, names, clock, execution) for key, item in value.items()}
    return {key: item for key, item in relaxed.items() if item is not None or value[key] is None}


def _build(spec: StageSpec, parameters: Fields | None = None) -> Stage:
    plugin = STAGES.require(spec.stage_id)
    given = spec.parameters if parameters is None else parameters
    where = (*spec.location, "parameters")
    try:
        return plugin(plugin.Parameters.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{spec.name}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise Invalid(message, location=(*where, *first["loc"]), code="stage_parameters_wrong") from error
    except Invalid as error:
        raise _at(error, where) from error


def _at(error: Invalid, location: tuple[str | int, ...]) -> Invalid:
    """Return the same error, located inside the stage."""
    inner = tuple(part for part in error.location if part not in {"body", "filters"})
    return Invalid(error.message, location=(*location, *inner), code=error.code)


def _without_templates(spec: StageSpec) -> StageSpec:
    def strip(value: Json) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items()}
        if isinstance(value, list):
            return [strip(item) for item in value]
        return "template" if isinstance(value, str) and "{{" in value else value

    def is_plain(value: Json) -> bool:
        return "{{" not in str(value)

    # A whole parameter that is a template could become anything; texts with one inside stay texts.
    parameters = {
        key: strip(value) for key, value in spec.parameters.items() if is_plain(value) or isinstance(value, dict | list)
    }
    query = spec.parameters.get("query", spec.parameters.get("input"))
    if isinstance(query, str) and not is_plain(query):
        parameters["query"] = "template"
    return StageSpec(
        spec.name, spec.stage_id, parameters, None, None, spec.on_error, spec.output_alias, spec.location
    )  # fmt: skip
