"""The filter language, said to an engine: one walk over the filter, one small dialect per engine."""

from collections.abc import Sequence
from typing import Any, Protocol

from domain.filters import And, Condition, Filter, Not, Operator, Or, Scalar, as_boolean, as_number, conditions
from storage.vectors import payload

_RANGES = {Operator.GT: "gt", Operator.LT: "lt", Operator.GTE: "gte", Operator.LTE: "lte"}


class Dialect(Protocol):
    """How an engine writes its conditions."""

    def any_of(self, key: str, values: Sequence[str]) -> Any:
        """Return: the key holds one of these keywords."""

    def between(self, key: str, **bounds: float) -> Any:
        """Return: the key holds a number within bounds (gt, lt, gte, lte)."""

    def all(self, members: Sequence[Any]) -> Any:
        """Return: all members hold."""

    def some(self, members: Sequence[Any]) -> Any:
        """Return: at least one member holds."""

    def none(self, members: Sequence[Any]) -> Any:
        """Return: no member holds."""


def supports(wanted: Filter) -> bool:
    """Say whether tokens and numbers can answer a filter exactly.

    They cannot compare strings by order, and `contains` asks whether a field is a string or a list, which
    tokens do not tell. Such filters are resolved over the rows.
    """
    return all(_supported(condition) for condition in conditions(wanted))


def _supported(condition: Condition) -> bool:
    if condition.operator is Operator.CONTAINS:
        return False
    if condition.operator in _RANGES:
        return isinstance(condition.value, int | float) and not isinstance(condition.value, bool)
    return True


def range_keys(wanted: Filter) -> set[str]:
    """Return the payload keys over which a filter asks for ranges, so that they can be indexed."""
    paths = [condition.path for condition in conditions(wanted) if condition.operator in _RANGES]
    return {payload.number_key(one) for path in paths for one in (path, path.removeprefix("metadata."))}


def translate(wanted: Filter, engine: Dialect) -> Any:
    """Return the engine's condition for a filter that `supports` says yes to.

    Raises:
        ValueError: it says no.
    """
    match wanted:
        case And(members):
            return engine.all([translate(member, engine) for member in members])
        case Or(members):
            return engine.some([translate(member, engine) for member in members])
        case Not(member):
            return engine.none([translate(member, engine)])
        case Condition():
            if not _supported(wanted):
                raise ValueError(f"the index cannot answer {wanted.operator} on {wanted.value!r}")
            return _condition(wanted, engine)


def _condition(condition: Condition, engine: Dialect) -> Any:
    """Say a condition; ``metadata.x`` means the root field ``x`` where there is no ``metadata.x``."""
    positive = _positive(condition, condition.path, engine)
    if condition.path.startswith("metadata."):
        root = condition.path.removeprefix("metadata.")
        absent = engine.none([engine.any_of(payload.FACTS, [payload.exists(condition.path)])])
        positive = engine.some([positive, engine.all([absent, _positive(condition, root, engine)])])
    return engine.none([positive]) if _is_negative(condition) else positive


def _is_negative(condition: Condition) -> bool:
    match condition.operator:
        case Operator.NE | Operator.NIN:
            return True
        case Operator.EXISTS:
            return condition.value is False
        case Operator.IS_NULL:
            return condition.value is True
        case _:
            return False


def _positive(condition: Condition, path: str, engine: Dialect) -> Any:
    match condition.operator:
        case Operator.EXISTS:
            return engine.any_of(payload.FACTS, [payload.exists(path)])
        case Operator.IS_NULL:  # the positive form: there, and not null
            there = engine.any_of(payload.FACTS, [payload.exists(path)])
            return engine.all([there, engine.none([engine.any_of(payload.FACTS, [payload.null(path)])])])
        case Operator.GT | Operator.LT | Operator.GTE | Operator.LTE:
            bound = as_number(condition.value)
            assert bound is not None
            return engine.between(payload.number_key(path), **{_RANGES[condition.operator]: bound})
        case _:
            return engine.any_of(payload.FACTS, [token for value in condition.values for token in _tokens(path, value)])


def _tokens(path: str, value: Scalar) -> list[str]:
    tokens: list[str] = []
    if isinstance(value, str):
        tokens.append(payload.string(path, value))
    number, boolean = as_number(value), as_boolean(value)
    if number is not None:
        tokens.append(payload.number(path, number))
    if boolean is not None:
        tokens.append(payload.boolean(path, value=boolean))
    return tokens
