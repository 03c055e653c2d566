"""The filter language over a document's JSON, in both databases.

SQLite runs in this process, so it simply asks `domain.filters.matches` row by row. PostgreSQL gets SQL, in
which every condition yields TRUE or FALSE and never NULL, so that NOT means what it says; paths and values
are bound parameters. PostgreSQL does not fold case as Python does, so documents keep a second copy of their
fields whose strings are folded.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import (
    ColumnElement,
    Double,
    Text,
    and_,
    any_,
    case,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH

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
_COMPARE: Final[dict[Operator, Callable[[Any, Any], ColumnElement[bool]]]] = {
    Operator.GT: lambda left, right: left > right,
    Operator.LT: lambda left, right: left < right,
    Operator.GTE: lambda left, right: left >= right,
    Operator.LTE: lambda left, right: left <= right,
}
_Holds: TypeAlias = Callable[[Any], ColumnElement[bool]]


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
    """Return the SQL condition that a document matches, exactly as `domain.filters.matches` decides it.

    Args:
        wanted: the filter; it holds no NUL characters, which PostgreSQL cannot be asked about.
        fields: the JSON column of the documents' fields.
        folded_fields: the JSON column of the same, `folded`.
        dialect: the name of the database's dialect; SQLite's connections must have been `teach_sqlite`.
    """
    if dialect == "postgresql":
        return _compile(wanted, fields, folded_fields)
    answer: ColumnElement[int] = getattr(func, _FUNCTION)(json.dumps(_written(wanted)), fields)
    return answer == 1


def teach_sqlite(connection: sqlite3.Connection) -> None:
    """Give a SQLite connection the function that evaluates filters."""
    connection.create_function(_FUNCTION, 2, _evaluate, deterministic=True)


def _evaluate(written: str, fields: str) -> int:
    return int(matches(_read(written), orjson.loads(fields)))


def _written(wanted: Filter) -> Any:
    """Return a filter as JSON that `_restored` reads back, so that the question travels with the statement."""
    match wanted:
        case And(members):
            return ["and", *map(_written, members)]
        case Or(members):
            return ["or", *map(_written, members)]
        case Not(member):
            return ["not", _written(member)]
        case Condition():
            return [wanted.operator.value, wanted.path, wanted.case_sensitive, *wanted.values]


@lru_cache(maxsize=100)
def _read(written: str) -> Filter:
    return _restored(json.loads(written))


def _restored(written: list[Any]) -> Filter:
    match written:
        case ["and", *members]:
            return And(tuple(map(_restored, members)))
        case ["or", *members]:
            return Or(tuple(map(_restored, members)))
        case ["not", member]:
            return Not(_restored(member))
        case _:
            operator, path, case_sensitive, *values = written
            return Condition(path, Operator(operator), tuple(values), case_sensitive)


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
            there: ColumnElement[bool] = found.is_not(None)
            return there if condition.value else not_(there)
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
    """Return the value at a path, or SQL NULL where there is none, as `domain.json_types.lookup` finds it."""
    candidates = _candidates(path)
    if path.startswith("metadata."):
        candidates += _candidates(path.removeprefix("metadata."))
    found = [_follow(column_, keys) for keys in candidates]
    return found[0] if len(found) == 1 else func.coalesce(*found, type_=JSONB)


def _candidates(path: str) -> list[list[str]]:
    """Return the ways to read a path, the best first: as one key, or descending by ever more of its dots."""
    steps = path.split(".")
    return [[*steps[:depth], ".".join(steps[depth:])] for depth in range(len(steps))]


def _follow(column_: Any, keys: Sequence[str]) -> Any:
    if len(keys) == 1:
        return column_.op("->", return_type=JSONB)(literal(keys[0], Text()))
    # Strict, because a lax path would descend into lists; silent, because what is not there is no error.
    path = "strict $" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in keys)
    nothing = literal_column("'{}'", JSONB)
    return func.jsonb_path_query_first(column_, cast(literal(path, Text()), JSONPATH), nothing, true(), type_=JSONB)


def _kind(value: Any) -> ColumnElement[str]:
    return func.jsonb_typeof(value)


def _text(value: Any) -> Any:
    return value.op("#>>", return_type=Text)(literal_column("'{}'")).collate("C")


def _number(value: Any) -> Any:
    return cast(value.op("#>>", return_type=Text)(literal_column("'{}'")), Double)


def _any_element(found: Any, holds: _Holds, *, lists_only: bool = False) -> ColumnElement[bool]:
    """Return: the condition holds for the value, or for an element of it if it is a list."""
    single = func.jsonb_build_array() if lists_only else func.jsonb_build_array(found)
    elements = func.jsonb_array_elements(case((_kind(found) == "array", found), else_=single)).table_valued(
        column("value", JSONB)
    )
    return exists(select(literal(1)).select_from(elements).where(holds(elements.c.value)))


def _equals_any(item: Any, values: Sequence[Scalar]) -> ColumnElement[bool]:
    """Return: an element equals one of the values. Each kind of values is one parameter, however many there are."""
    texts = [value for value in values if isinstance(value, str)]
    numbers = [number for value in values if (number := as_number(value)) is not None]
    booleans = [str(boolean).lower() for value in values if (boolean := as_boolean(value)) is not None]
    options = [
        case((_kind(item) == kind, left == any_(literal(given, ARRAY(type_)))), else_=false())
        for kind, left, given, type_ in (
            ("string", _text(item), texts, Text()),
            ("number", _number(item), numbers, Double()),
            ("boolean", _text(item), booleans, Text()),
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
