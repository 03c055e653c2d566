"""A retriever's inputs: what it declares, and what a caller brings."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from domain.errors import Invalid
from domain.json_types import Fields, Json

_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda value: isinstance(value, str),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "date": lambda value: isinstance(value, str),
    "datetime": lambda value: isinstance(value, str),
    "image": lambda value: isinstance(value, str),
    "document_reference": lambda value: isinstance(value, str | dict),
}


def read_schema(raw: Json) -> Fields:
    """Return ``{name: {"type", "required", "default", …}}``, unwrapped from ``{"properties": …}``.

    Raises:
        Invalid: it is no object, or an input has a type that is not known.
    """
    if raw is None:
        return {}
    where = ("body", "input_schema")
    if not isinstance(raw, dict):
        raise Invalid("input_schema is an object {name: {type}}.", location=where)
    inner = raw.get("properties")
    schema = inner if set(raw) == {"properties"} and isinstance(inner, dict) else raw
    read: Fields = {}
    for name, rule in schema.items():
        rule = {"type": rule} if isinstance(rule, str) else rule  # noqa: PLW2901
        if not isinstance(rule, dict):
            raise Invalid("An input is an object with a type.", location=(*where, name))
        kind = str(rule.get("type", "string")).lower()
        if kind not in _CHECKS:
            message = f"{kind[:40]!r} is not a type of input. Known: {', '.join(_CHECKS)}."
            raise Invalid(message, location=(*where, name, "type"))
        read[name] = {**rule, "type": kind}
    return read


def check_inputs(schema: Mapping[str, Json], given: Mapping[str, Json]) -> Fields:
    """Return the inputs with defaults filled in; an explicit null counts as absent.

    Raises:
        Invalid: a required input is missing, or one is of the wrong type.
    """
    inputs: Fields = {name: value for name, value in given.items() if value is not None}
    for name, rule in schema.items():
        if not isinstance(rule, dict):
            continue
        where = ("body", "inputs", name)
        if name not in inputs:
            if rule.get("default") is not None:
                inputs[name] = rule["default"]
            elif rule.get("required"):
                raise Invalid(f"The input {name!r} is required.", location=where, code="missing_input")
            continue
        kind = str(rule.get("type"))
        if not _CHECKS[kind](inputs[name]):
            raise Invalid(f"The input {name!r} must be of type {kind}.", location=where, code="input_wrong_type")
        allowed = rule.get("enum")
        if isinstance(allowed, list) and allowed and inputs[name] not in allowed:
            raise Invalid(f"The input {name!r} must be one of {allowed!r}."[:500], location=where)
    return inputs
