"""From parameters to a stage: when it runs, and before that, to see whether it ever could."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from domain.errors import Invalid
from domain.filters import Operator
from domain.json_types import Fields, Json
from retrieval.contract import Stage
from retrieval.registry import STAGES
from retrieval.relaxing import is_condition, map_filters
from retrieval.spelling import StageSpec
from retrieval.templates import has_template


def build(spec: StageSpec, parameters: Fields) -> tuple[Stage, list[str]]:
    """Return a stage, and warnings about parameters that it does not know.

    Raises:
        Invalid: the parameters do not fit the stage; the location points at the fault.
    """
    plugin = STAGES.require(spec.stage_id)
    try:
        # An explicit null means the default.
        checked = plugin.Parameters.model_validate({key: item for key, item in parameters.items() if item is not None})
        stage = plugin(checked)
    except ValidationError as error:
        raise _told(spec, dict(error.errors(include_url=False)[0])) from error
    except Invalid as error:
        raise located(error, spec.at("parameters")) from error
    unknown = [f"{spec.name}: the parameter {path!r} is not known here and was ignored." for path in _extra(checked)]
    return stage, unknown


def check_parameters(spec: StageSpec) -> None:
    """Refuse parameters that could never fit, whatever their templates will bring.

    Raises:
        Invalid: as `build`, for a fault in what is written out.
    """
    plugin = STAGES.require(spec.stage_id)
    literal = map_filters(spec.parameters, without_templates)
    assert isinstance(literal, dict)
    try:
        plugin(plugin.Parameters.model_validate({key: item for key, item in literal.items() if item is not None}))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            if not (isinstance(problem["input"], str) and has_template(problem["input"])):
                raise _told(spec, dict(problem)) from error
    except Invalid as error:
        if not _is_templated(literal, error.location):
            raise located(error, spec.at("parameters")) from error


def without_templates(wanted: Json) -> Json:
    """Return a filter with stand-ins for its templates, so that the rest of it can be checked."""
    if isinstance(wanted, list):
        return [without_templates(item) for item in wanted if not (isinstance(item, str) and has_template(item))]
    if not isinstance(wanted, dict):
        return None if has_template(wanted) else wanted
    if is_condition(wanted):
        operator = "eq" if has_template(wanted.get("operator")) else wanted.get("operator")
        path = "template" if has_template(wanted.get("field")) else wanted.get("field")
        if not has_template(wanted.get("value")):
            return {**wanted, "operator": operator, "field": path}
        stand_in: Json = "template"
        if operator in {Operator.IN, Operator.NIN}:
            stand_in = []
        elif operator in {Operator.EXISTS, Operator.IS_NULL}:
            stand_in = True
        return {**wanted, "operator": operator, "field": path, "value": stand_in}
    return {
        key: without_templates(item) if key in {"AND", "OR", "NOT"} else "template" if has_template(item) else item
        for key, item in wanted.items()
    }


def located(error: Invalid, location: tuple[str | int, ...]) -> Invalid:
    """Return the same error, its location continued from here unless it points into the request already."""
    inner = error.location
    if inner[:1] == ("body",) and inner[:2] != ("body", "filters"):
        return error
    # ("body", "filters") is where `domain.filters.parse` believes to be when a stage does not tell it.
    return type(error)(error.message, location=(*location, *inner[inner[:1] == ("body",) :]), code=error.code)


def _told(spec: StageSpec, problem: dict[str, Any]) -> Invalid:
    path = ".".join(map(str, problem["loc"]))
    message = f"{spec.name}: {path}: {str(problem['msg']).removeprefix('Value error, ')}."
    return Invalid(message[:500], location=(*spec.at("parameters"), *problem["loc"]), code="stage_parameters_wrong")


def _is_templated(parameters: Json, location: tuple[str | int, ...]) -> bool:
    """Say whether what stands at a location, or at the key that led to it in a flat spelling, holds a template."""
    found: Any = parameters
    if isinstance(found, dict) and location and location[0] not in found:
        flat = [key for key in location if key in found]
        return has_template(found[flat[-1]] if flat else found)
    for key in location:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            break
    return has_template(found)


def _extra(model: BaseModel, prefix: str = "") -> Iterator[str]:
    for key in model.model_extra or {}:
        yield prefix + key
    for name in type(model).model_fields:
        value = getattr(model, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield from _extra(item, f"{prefix}{name}.")
