"""A retriever's inputs: what it declares, and what a caller brings."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from domain.errors import Invalid
from domain.json_types import Fields, Json

MAX_BYTES: Final = 1_000_000
_SHOWN: Final = 200


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "text": _is_text,
    "string": _is_text,
    "number": _is_number,
    "float": _is_number,
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "date": _is_text,
    "datetime": _is_text,
    "image": _is_text,
    "audio": _is_text,
    "video": _is_text,
    "pdf": _is_text,
    "excel": _is_text,
    "document_reference": lambda value: isinstance(value, str | dict),
}


def read_schema(raw: Json) -> Fields:
    """Return ``{name: {"type", "required", "default", …}}``, unwrapped from ``{"properties": …}``.

    Raises:
        Invalid: it is no object, an input has a type that is not known, or a default of another type.
    """
    if raw is None:
        return {}
    where = ("body", "input_schema")
    if not isinstance(raw, dict):
        raise Invalid("input_schema is an object {name: {type}}.", location=where)
    schema, required = _unwrapped(raw)
    read: Fields = {}
    for name, written in schema.items():
        rule: Json = {"type": written} if isinstance(written, str) else written
        if not isinstance(rule, dict):
            raise Invalid("An input is an object with a type.", location=(*where, name))
        kind = str(rule.get("type") or "string").lower()
        if kind not in _CHECKS:
            message = f"{kind[:40]!r} is not a type of input. Known: {', '.join(_CHECKS)}."
            raise Invalid(message, location=(*where, name, "type"), code="unknown_input_type")
        default = rule.get("default")
        if default is not None and not _CHECKS[kind](default):
            raise Invalid(f"The default of {name!r} is not of type {kind}.", location=(*where, name, "default"))
        read[name] = {**rule, "type": kind, **({"required": True} if name in required else {})}
    return read


def check_inputs(schema: Mapping[str, Json], given: Mapping[str, Json]) -> Fields:
    """Return the inputs with defaults filled in; an explicit null counts as absent, undeclared inputs stay.

    Args:
        schema: as `read_schema` gives it.
        given: what the caller brought; it is not changed.

    Raises:
        Invalid: a required input is missing, one is of the wrong type, or all are larger than 1 MB.
    """
    if len(orjson.dumps(given)) > MAX_BYTES:
        message = f"The inputs are larger than {MAX_BYTES:,} bytes."
        raise Invalid(message, location=("body", "inputs"), code="inputs_too_large")
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
            message = f"The input {name!r} must be one of {str(allowed)[:_SHOWN]}."
            raise Invalid(message, location=where, code="input_not_allowed")
    return inputs


def _unwrapped(raw: Fields) -> tuple[Fields, list[Json]]:
    """Return the inputs by name, and the names that a JSON Schema around them requires."""
    inner = raw.get("properties")
    wraps = isinstance(inner, dict) and (set(raw) == {"properties"} or raw.get("type") == "object")
    if not wraps or not isinstance(inner, dict):
        return raw, []
    required = raw.get("required")
    return inner, required if isinstance(required, list) else []
