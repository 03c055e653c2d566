"""What an execution leaves out because an input was not given: filter conditions, and optional searches.

Inside a filter a value may also be written ``{"type": "dynamic", "field": "inputs.x"}``: the template ``{{inputs.x}}``.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from domain.errors import Invalid
from domain.json_types import Fields, Json, is_vector

# Parameters of stages that hold a filter, wherever they stand.
FILTER_KEYS: Final = frozenset({"conditions", "filters", "AND", "OR", "NOT"})
_GROUPS: Final = frozenset({"AND", "OR", "NOT"})
_DYNAMIC: Final = re.compile(r"[\w-]+(\.[\w-]+)*")
_LEFT_OUT: Final = object()


def is_condition(value: Json) -> bool:
    """Say whether an object is one condition, as `domain.filters.parse` decides it."""
    return isinstance(value, dict) and "field" in value and ("value" in value or "operator" in value)


def map_filters(value: Json, change: Callable[[Json], Json], *, is_filter: bool = False) -> Json:
    """Return stage parameters with every filter in them changed; a changed filter of None is no filter.

    Args:
        value: parameters, or a part of them; they are not changed.
        change: gets a whole filter and returns what is to stand in its place.
        is_filter: whether the value itself is a filter.
    """
    if is_filter:
        return change(value)
    if isinstance(value, list):
        return value if is_vector(value) else [map_filters(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    if is_condition(value):
        rest = {key: item for key, item in value.items() if key not in {"field", "operator", "value"}}
        own = change({key: item for key, item in value.items() if key in {"field", "operator", "value"}})
        changed = map_filters(rest, change)
        assert isinstance(changed, dict)
        return {**(own if isinstance(own, dict) else {}), **changed}
    return {key: map_filters(item, change, is_filter=key in FILTER_KEYS) for key, item in value.items()}


def spell_dynamic(wanted: Json) -> Json:
    """Return a filter whose dynamic values are written as templates.

    Raises:
        Invalid: a dynamic value does not name a path.
    """
    if isinstance(wanted, list):
        return [spell_dynamic(item) for item in wanted]
    if not isinstance(wanted, dict):
        return wanted
    if is_condition(wanted):
        return {**wanted, "value": _template(wanted.get("value"))}
    return {key: spell_dynamic(item) if key in _GROUPS else _template(item) for key, item in wanted.items()}


def _template(value: Json) -> Json:
    if not isinstance(value, dict) or value.get("type", "dynamic") != "dynamic" or "field" not in value:
        return value
    path = value["field"]
    if not isinstance(path, str) or not _DYNAMIC.fullmatch(path):
        raise Invalid("A dynamic value names a path such as inputs.user_id.", code="dynamic_value_malformed")
    return f"{{{{{path}}}}}"


def relax(wanted: Json, missing: Callable[[Json], str | None], dropped: list[Fields]) -> Json:
    """Return a filter without the conditions whose input is missing; None if nothing is left.

    Args:
        wanted: a filter; it is not changed.
        missing: says why a value cannot be filled in, or None if it can.
        dropped: gets ``{"field", "reason"}`` of every condition that was left out.
    """
    relaxed = _relax(wanted, missing, dropped)
    return None if relaxed is _LEFT_OUT else relaxed


def _relax(wanted: Any, missing: Callable[[Json], str | None], dropped: list[Fields]) -> Any:
    if isinstance(wanted, list):
        kept = [_relax(item, missing, dropped) for item in wanted]
        return [item for item in kept if item is not _LEFT_OUT] if kept else wanted
    if not isinstance(wanted, dict):
        reason = missing(wanted)
        if reason is not None:
            dropped.append({"field": None, "reason": reason})
        return wanted if reason is None else _LEFT_OUT
    if is_condition(wanted):
        reason = missing(wanted.get("value"))
        if reason is None:
            return wanted
        dropped.append({"field": wanted.get("field"), "reason": reason})
        return _LEFT_OUT
    relaxed: dict[str, Any] = {}
    for key, item in wanted.items():
        if key in _GROUPS:
            relaxed[key] = _relax(item, missing, dropped)
        elif (reason := missing(item)) is None:
            relaxed[key] = item
        else:
            dropped.append({"field": key, "reason": reason})
            relaxed[key] = _LEFT_OUT
    return {key: item for key, item in relaxed.items() if item is not _LEFT_OUT}


def leave_out_optional(value: Json, missing: Callable[[Json], str | None]) -> Json:
    """Return parameters in which what may be empty is null where its input is missing.

    An object may be empty if it says ``optional: true`` or ``on_empty: skip``.
    """
    if isinstance(value, list):
        return value if is_vector(value) else [leave_out_optional(item, missing) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("optional") is True or value.get("on_empty") == "skip":
        return {key: None if missing(item) is not None else item for key, item in value.items()}
    return {key: leave_out_optional(item, missing) for key, item in value.items()}
