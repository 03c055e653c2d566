"""The filter language: parsed once, evaluated alike by the vector index, the databases and Python.

    group     {"AND": […], "OR": […], "NOT": […] or one, "case_sensitive": false}   keys combine as a conjunction
    condition {"field": "a.b", "operator": "eq", "value": …}
    shorthand {"a.b": value, …}                                                     equality of each pair

What a condition means is decided here, by `matches`; the other evaluators are tested against it:

* A path descends objects by dots (`domain.json_types.lookup`). Lists are never descended into; a condition
  on a list holds if it holds for one of its elements.
* A missing field and null fail every operator, except `ne`, `nin`, `exists: false` and `is_null: true`.
  `exists` asks for the key (null counts as there), `is_null` for a missing key or null; `eq null` is `is_null`.
* Numbers compare as 64-bit floats (5 = 5.0); booleans are no numbers; strings compare by code point.
* A string in the *filter* that is written as a number or as true/false also matches such a value, because
  templates and query strings bring strings. A string in the *document* is never taken for a number.
* `contains` looks for a part of a string, or for an element of a list; it folds case unless `case_sensitive`.
* NOT holds if none of its members holds. A group without members holds, an empty OR too: nothing was asked.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, Union

from domain.errors import Invalid
from domain.json_types import MISSING, Json, lookup

MAX_CLAUSES: Final = 100
MAX_DEPTH: Final = 8
MAX_LIST: Final = 1_000
MAX_PATH: Final = 512
MAX_STEPS: Final = 16  # databases must try every way to read the dots of a path
_NUMBER: Final = re.compile(r"[+-]?(\d{1,300}(\.\d{0,300})?|\.\d{1,300})([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_YET: Final = frozenset(
    {"starts_with", "ends_with", "regex", "text", "phrase", "words", "geo_radius", "geo_bounding_box", "geo_polygon"}
)


class Operator(StrEnum):
    """What a condition asks of a field."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    LT = "lt"
    GTE = "gte"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    CONTAINS = "contains"
    EXISTS = "exists"
    IS_NULL = "is_null"


Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One question about one field. ``values`` holds the single value, or all of `in` and `nin`."""

    path: str
    operator: Operator
    values: tuple[Scalar, ...]
    case_sensitive: bool = False

    @property
    def value(self) -> Scalar:
        """The single value of an operator that takes one."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class And:
    """All members hold; an empty one always does."""

    members: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one member holds."""

    members: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The member does not hold."""

    member: "Filter"


Filter: TypeAlias = Union[Condition, And, Or, Not]


def parse(raw: Json, *, location: tuple[str | int, ...] = ("body", "filters")) -> Filter | None:
    """Read a filter from JSON; None or an empty object means no filter.

    Raises:
        Invalid: it is malformed, too deep or too large, or uses an operator that is not offered;
            the location points at the clause.
    """
    if raw is None or raw == {}:
        return None
    parsed = _parse(raw, location, case_sensitive=False, depth=1)
    if sum(1 for _ in conditions(parsed)) > MAX_CLAUSES:
        raise Invalid(f"A filter may have at most {MAX_CLAUSES} clauses.", location=location, code="filter_too_large")
    return parsed


def conditions(parsed: Filter) -> Iterator[Condition]:
    """Yield every condition of a filter, from left to right."""
    match parsed:
        case Condition():
            yield parsed
        case Not(member):
            yield from conditions(member)
        case And(members) | Or(members):
            for member in members:
                yield from conditions(member)


def both(one: Filter | None, other: Filter | None) -> Filter | None:
    """Return the filter that demands two others, either of which may be absent."""
    if one is None or other is None:
        return one or other
    return And((one, other))


def matches(parsed: Filter, fields: Mapping[str, Json]) -> bool:
    """Say whether a document's fields satisfy a filter."""
    match parsed:
        case And(members):
            return all(matches(member, fields) for member in members)
        case Or(members):
            return any(matches(member, fields) for member in members)
        case Not(member):
            return not matches(member, fields)
        case Condition():
            return _holds(parsed, fields)


def _parse(raw: Json, location: tuple[str | int, ...], *, case_sensitive: bool, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise Invalid(f"A filter may be at most {MAX_DEPTH} levels deep.", location=location, code="filter_too_deep")
    if not isinstance(raw, dict):
        message = (
            "A filter is an object: a condition {field, operator, value}, a group {AND, OR, NOT}, or {field: value}."
        )
        raise Invalid(message, location=location, code="filter_malformed")
    fold = raw.get("case_sensitive")
    case_sensitive = fold if isinstance(fold, bool) else case_sensitive
    if "field" in raw and ("value" in raw or "operator" in raw):
        return _condition(raw, location, case_sensitive=case_sensitive)
    groups = {key: value for key, value in raw.items() if key in {"AND", "OR", "NOT"} and value is not None}
    rest = [key for key in raw if key not in {"AND", "OR", "NOT", "case_sensitive", "case_insensitive"}]
    members: list[Filter] = []
    for key, value in groups.items():
        listed = value if isinstance(value, list) else [value]
        parsed = tuple(
            _parse(item, (*location, key, index), case_sensitive=case_sensitive, depth=depth + 1)
            for index, item in enumerate(listed)
            if item != {}
        )
        if key == "NOT":
            members.extend(Not(member) for member in parsed)
        elif key == "OR" and parsed:
            members.append(Or(parsed))
        else:
            members.extend(parsed)
    for key in rest:
        pair: dict[str, Json] = {"field": key, "operator": "eq", "value": raw[key]}
        members.append(_condition(pair, (*location, key), case_sensitive=case_sensitive))
    return members[0] if len(members) == 1 else And(tuple(members))


def _condition(raw: Mapping[str, Json], location: tuple[str | int, ...], *, case_sensitive: bool) -> Condition:
    path, name, value = raw.get("field"), raw.get("operator") or "eq", raw.get("value")
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH or path.count(".") >= MAX_STEPS:
        message = f"field must be a dotted path of 1 to {MAX_PATH} characters and at most {MAX_STEPS} steps."
        raise Invalid(message, location=(*location, "field"))
    if not isinstance(name, str) or name not in Operator.__members__.values():
        offered = ", ".join(Operator)
        soon = " It is not offered yet." if str(name) in _NOT_YET else ""
        message = f"Unknown operator {str(name)[:100]!r}.{soon} Offered: {offered}."
        raise Invalid(message, location=(*location, "operator"), code="unknown_operator")
    operator = Operator(name)
    values = _values(operator, value, (*location, "value"))
    if operator is Operator.EQ and values == (None,):
        operator, values = Operator.IS_NULL, (True,)
    if operator is Operator.NE and values == (None,):
        operator, values = Operator.IS_NULL, (False,)
    return Condition(path, operator, values, case_sensitive)


def _values(operator: Operator, value: Json, location: tuple[str | int, ...]) -> tuple[Scalar, ...]:
    if operator in {Operator.IN, Operator.NIN}:
        if not isinstance(value, list) or len(value) > MAX_LIST:
            raise Invalid(f"{operator} takes a list of at most {MAX_LIST} values.", location=location)
        return tuple(_scalar(item, operator, (*location, index)) for index, item in enumerate(value))
    if operator in {Operator.EXISTS, Operator.IS_NULL}:
        flag = {None: True, "true": True, "false": False}.get(value) if isinstance(value, str | None) else value
        if not isinstance(flag, bool):
            raise Invalid(f"{operator} takes true or false.", location=location)
        return (flag,)
    scalar = _scalar(value, operator, location)
    if scalar is None and operator not in {Operator.EQ, Operator.NE}:
        raise Invalid(f"{operator} needs a value.", location=location)
    return (scalar,)


def _scalar(value: Json, operator: Operator, location: tuple[str | int, ...]) -> Scalar:
    if isinstance(value, dict | list):
        raise Invalid(
            f"{operator} compares with a string, a number or a boolean; for several values use 'in'.", location=location
        )
    return value


def as_number(value: Scalar) -> float | None:
    """Return a number, or the number that a string in a filter is written as; None otherwise."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        return float(value) + 0.0 if _NUMBER.fullmatch(value) else None
    return _double(value) + 0.0  # -0.0 becomes 0.0


def _double(value: float) -> float:
    """Return a number as the nearest 64-bit float, which is infinite for integers beyond its range."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def as_boolean(value: Scalar) -> bool | None:
    """Return a boolean, or the one that a string in a filter is written as; None otherwise."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value)
    return value if isinstance(value, bool) else None


def fold(text: str) -> str:
    """Return a text as `contains` compares it when case does not matter."""
    return text.casefold()


def _holds(condition: Condition, fields: Mapping[str, Json]) -> bool:
    found = lookup(fields, condition.path)
    match condition.operator:
        case Operator.EXISTS:
            return (found is not MISSING) is condition.value
        case Operator.IS_NULL:
            return (found is MISSING or found is None) is condition.value
        case Operator.EQ | Operator.IN:
            return _any_equal(found, condition.values)
        case Operator.NE | Operator.NIN:
            return not _any_equal(found, condition.values)
        case Operator.CONTAINS:
            return _contains(found, condition)
        case _:
            return any(_ordered(item, condition.operator, condition.value) for item in _candidates(found))


def _candidates(found: object) -> Sequence[object]:
    return found if isinstance(found, list) else (found,)


def _any_equal(found: object, values: Sequence[Scalar]) -> bool:
    return any(_equal(item, value) for item in _candidates(found) for value in values)


def _equal(stored: object, wanted: Scalar) -> bool:
    if wanted is None or stored is None or stored is MISSING:
        return False
    if isinstance(stored, bool):
        return stored is as_boolean(wanted)
    if isinstance(stored, int | float):
        return _double(stored) == as_number(wanted)
    return isinstance(stored, str) and stored == wanted


def _ordered(stored: object, operator: Operator, wanted: Scalar) -> bool:
    left: float | str
    right: float | str | None
    if isinstance(stored, str):
        left, right = stored, wanted if isinstance(wanted, str) else None
    elif isinstance(stored, int | float) and not isinstance(stored, bool):
        left, right = _double(stored), as_number(wanted)
    else:
        return False
    if right is None:
        return False
    pair: tuple[float, float] | tuple[str, str] = (left, right)  # type: ignore[assignment]
    match operator:
        case Operator.GT:
            return pair[0] > pair[1]  # type: ignore[operator]
        case Operator.LT:
            return pair[0] < pair[1]  # type: ignore[operator]
        case Operator.GTE:
            return pair[0] >= pair[1]  # type: ignore[operator]
        case _:
            return pair[0] <= pair[1]  # type: ignore[operator]


def _contains(found: object, condition: Condition) -> bool:
    wanted = condition.value
    if isinstance(found, str):
        if not isinstance(wanted, str):
            return False
        return wanted in found if condition.case_sensitive else fold(wanted) in fold(found)
    if not isinstance(found, list):
        return False
    if isinstance(wanted, str) and not condition.case_sensitive:
        folded = fold(wanted)
        if any(isinstance(item, str) and fold(item) == folded for item in found):
            return True
    return _any_equal(found, condition.values)
