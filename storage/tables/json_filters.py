"""The filter language over a document's JSON, in both databases.

SQLite runs in this process, so it simply asks `domain.filters.matches` row by row. PostgreSQL gets SQL, in
which every condition yields TRUE or FALSE and never NULL, so that NOT means what it says; paths and values
are bound parameters. PostgreSQL does not fold case as Python does, so documents keep a second copy of their
fields whose strings are folded.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import (
    ColumnElement,
    Double,
    Text,
    and_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from domain.filters import (
    And,
    Condition,
    Filter,
    Not,
    Operator,
    Or,
    Scalar,
    as_boolean,
    as_number,
    fold,
    matches,
)
from domain.json_types import Fields, Json

_FUNCTION: Final = "openpeek_matches"
_REMEMBERED: Final = 1_000
_COMPARE: Final[dict[Operator, Callable[[Any, Any], ColumnElement[bool]]]] = {
    Operator.GT: lambda left, right: left > right,
    Operator.LT: lambda left, right: left < right,
    Operator.GTE: lambda left, right: left >= right,
    Operator.LTE: lambda left, right: left <= right,
}
_remembered: dict[str, Filter] = {}
_remembering = threading.Lock()


def folded(fields: Fields) -> Fields:
    """Return a document with every string value case-folded; keys stay."""
    return {key: _folded(value) for key, value in fields.items()}


def _folded(value: Json) -> Json:
    if isinstance(value, str):
        return fold(value)
    if isinstance(value, list):
        return [_folded(item) for item in value]
    return folded(value) if isinstance(value, dict) else value


def compile_filter(wanted: Filter, fields: Any, folded_fields: Any, dialect: str) -> ColumnElement[bool]:
    """Return the SQL condition that a document matches, exactly as `domain.filters.matches` decides it."""
    if dialect != "postgresql":
        agrees: ColumnElement[bool] = getattr(func, _FUNCTION)(_remember(wanted), fields) == 1
        return agrees
    return _compile(wanted, fields, folded_fields)


def teach_sqlite(connection: sqlite3.Connection) -> None:
    """Give a SQLite connection the function that evaluates filters."""
    connection.create_function(_FUNCTION, 2, _evaluate, deterministic=True)


def _remember(wanted: Filter) -> str:
    """Keep a filter where the function finds it again, under a name that only equal filters share."""
    name = repr(wanted)
    with _remembering:
        while len(_remembered) >= _REMEMBERED:
            _remembered.pop(next(iter(_remembered)))
        _remembered[name] = wanted
    return name


def _evaluate(name: str, fields: str) -> int:
    return int(matches(_remembered[name], orjson.loads(fields)))


def _compile(wanted: Filter, fields: Any, folds: Any) -> ColumnElement[bool]:
    match wanted:
        case And(members):
            return and_(true(), *(_compile(member, fields, folds) for member in members))
        case Or(members):
            return or_(false(), *(_compile(member, fields, folds) for member in members))
        case Not(member):
            return not_(_compile(member, fields, folds))
        case Condition():
            return _condition(wanted, fields, folds)


def _condition(condition: Condition, fields: Any, folds: Any) -> ColumnElement[bool]:
    found = _lookup(fields, condition.path)
    match condition.operator:
        case Operator.EXISTS:
            present: ColumnElement[bool] = found.is_not(None)
            return present if condition.value else not_(present)
        case Operator.IS_NULL:
            absent = func.coalesce(_kind(found), "null") == "null"
            return absent if condition.value else not_(absent)
        case Operator.EQ | Operator.IN:
            return _any_element(found, lambda item: _equals_any(item, condition.values))
        case Operator.NE | Operator.NIN:
            return not_(_any_element(found, lambda item: _equals_any(item, condition.values)))
        case Operator.CONTAINS:
            return _contains(condition, found, _lookup(folds, condition.path))
        case _:
            return _any_element(found, lambda item: _ordered(item, condition))


def _lookup(column_: Any, path: str) -> Any:
    """Return the value at a path, or SQL NULL where there is none: a key with dots wins over descending."""
    found = _descend(column_, path)
    if path.startswith("metadata."):
        return func.coalesce(found, _descend(column_, path.removeprefix("metadata.")), type_=JSONB)
    return found


def _descend(column_: Any, path: str) -> Any:
    here = column_.op("->", return_type=JSONB)(literal(path, Text()))
    head, dot, rest = path.partition(".")
    if not dot:
        return here
    inner = column_.op("->", return_type=JSONB)(literal(head, Text()))
    return func.coalesce(here, _descend(inner, rest), type_=JSONB)


def _kind(value: Any) -> ColumnElement[str]:
    return func.jsonb_typeof(value)


def _text(value: Any) -> Any:
    return value.op("#>>")(literal([], ARRAY(Text()))).collate("C")


def _number(value: Any) -> Any:
    return cast(value.op("#>>")(literal([], ARRAY(Text()))), Double)


def _any_element(
    found: Any, holds: Callable[[Any], ColumnElement[bool]], *, lists_only: bool = False
) -> ColumnElement[bool]:
    """Return: the condition holds for the value, or for an element of it if it is a list."""
    single = func.jsonb_build_array() if lists_only else func.jsonb_build_array(found)
    elements = func.jsonb_array_elements(case((_kind(found) == "array", found), else_=single)).table_valued(
        column("value", JSONB)
    )
    return exists(select(literal(1)).select_from(elements).where(holds(elements.c.value)))


def _equals_any(item: Any, values: Sequence[Scalar]) -> ColumnElement[bool]:
    texts = [value for value in values if isinstance(value, str)]
    numbers = [number for value in values if (number := as_number(value)) is not None]
    booleans = [str(boolean).lower() for value in values if (boolean := as_boolean(value)) is not None]
    options = [
        case((_kind(item) == kind, condition), else_=false())
        for kind, given, condition in (
            ("string", texts, _text(item).in_(texts)),
            ("number", numbers, _number(item).in_(numbers)),
            ("boolean", booleans, _text(item).in_(booleans)),
        )
        if given
    ]
    return or_(false(), *options)


def _ordered(item: Any, condition: Condition) -> ColumnElement[bool]:
    compare, number = _COMPARE[condition.operator], as_number(condition.value)
    options = []
    if isinstance(condition.value, str):
        options.append(case((_kind(item) == "string", compare(_text(item), condition.value)), else_=false()))
    if number is not None:
        options.append(case((_kind(item) == "number", compare(_number(item), literal(number, Double))), else_=false()))
    return or_(false(), *options)


def _contains(condition: Condition, found: Any, folded_found: Any) -> ColumnElement[bool]:
    wanted = condition.value
    among = _any_element(found, lambda item: _equals_any(item, condition.values), lists_only=True)
    if not isinstance(wanted, str):
        return among
    if condition.case_sensitive:
        return or_(_has_part(found, wanted), among)
    needle = fold(wanted)
    alike = _any_element(folded_found, lambda item: _equals_text(item, needle), lists_only=True)
    return or_(_has_part(folded_found, needle), alike, among)


def _equals_text(item: Any, wanted: str) -> ColumnElement[bool]:
    return case((_kind(item) == "string", _text(item) == wanted), else_=false())


def _has_part(found: Any, needle: str) -> ColumnElement[bool]:
    return case((_kind(found) == "string", func.strpos(_text(found), needle) > 0), else_=false())
