"""Conditions on points, said to an engine: the filter language, scopes and fences, in one small dialect per engine."""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from domain.documents import Scope
from domain.filters import And, Condition, Filter, Not, Operator, Or, Scalar, as_boolean, as_number, conditions
from storage.vectors import payload

_RANGES: Final = {Operator.GT: "gt", Operator.LT: "lt", Operator.GTE: "gte", Operator.LTE: "lte"}


class Dialect(Protocol):
    """How an engine writes its conditions. No list that is handed in is empty."""

    def any_of(self, key: str, values: Sequence[str] | Sequence[int]) -> Any:
        """Return: the key holds one of these keywords or integers."""

    def between(self, key: str, **bounds: float) -> Any:
        """Return: the key holds a number within bounds (gt, lt, gte, lte)."""

    def all(self, members: Sequence[Any]) -> Any:
        """Return: all members hold."""

    def some(self, members: Sequence[Any]) -> Any:
        """Return: at least one member holds."""

    def none(self, members: Sequence[Any]) -> Any:
        """Return: no member holds."""


def within(scope: Scope, engine: Dialect) -> Any:
    """Return the condition that every question and every deletion demands: the points are this namespace's."""
    return engine.any_of(payload.TENANT, [payload.tenant(scope)])


def of_collections(collection_ids: Sequence[str], engine: Dialect) -> Any:
    """Return the condition, for searches, that the points are of one of these collections."""
    return engine.any_of(payload.FACTS, [payload.in_collection(one) for one in collection_ids])


def of_sources(scope: Scope, collection_id: str, source_ids: Sequence[str], engine: Dialect) -> list[Any]:
    """Return the conditions that points are made from these sources in this collection."""
    return [
        within(scope, engine),
        engine.any_of(payload.COLLECTION, [collection_id]),
        engine.any_of(payload.SOURCE, source_ids),
    ]


def not_newer(version: int, epoch: int, engine: Dialect) -> Any:
    """Return the fence: the condition under which an existing point may be replaced."""
    same = engine.any_of(payload.VERSION, [version])
    not_later = engine.between(payload.EPOCH, lte=float(epoch))
    return engine.some([engine.between(payload.VERSION, lt=float(version)), engine.all([same, not_later])])


def supports(wanted: Filter) -> bool:
    """Say whether facts and numbers can answer a filter exactly.

    They cannot compare strings by order, and `contains` asks for a part of a string where a field is one. Such
    filters are resolved over the rows.
    """
    return all(_supported(condition) for condition in conditions(wanted))


def _supported(condition: Condition) -> bool:
    if condition.operator is Operator.CONTAINS or not payload.askable(condition.path):
        return False
    if condition.operator in _RANGES:
        bound = None if isinstance(condition.value, str) else as_number(condition.value)
        return bound is not None and abs(bound) < payload.LARGEST
    return True


def ranges(wanted: Filter) -> dict[str, int]:
    """Return the payload keys over which a filter asks for ranges → the fact that a point has such a key."""
    paths = [condition.path for condition in conditions(wanted) if condition.operator in _RANGES]
    both = [one for path in paths for one in (path, path.removeprefix("metadata."))]
    return {payload.number_key(path): payload.exists(path) for path in both}


def translate(wanted: Filter, engine: Dialect, indexed: Collection[str] = ()) -> Any:
    """Return the engine's condition for a filter that `supports` says yes to.

    Args:
        wanted: the filter.
        engine: how to say it.
        indexed: the keys of `ranges` that have an index.

    Raises:
        ValueError: it says no.
    """
    match wanted:
        case And(()):
            return engine.none([_fact(payload.NEVER, engine)])
        case Or(()):
            return _fact(payload.NEVER, engine)
        case And(members):
            return engine.all([translate(member, engine, indexed) for member in members])
        case Or(members):
            return engine.some([translate(member, engine, indexed) for member in members])
        case Not(member):
            return engine.none([translate(member, engine, indexed)])
        case Condition():
            if not _supported(wanted):
                raise ValueError(f"the index cannot answer {wanted.operator} on {wanted.value!r}")
            return _condition(wanted, engine, indexed)


def _condition(condition: Condition, engine: Dialect, indexed: Collection[str]) -> Any:
    """Say a condition; ``metadata.x`` means the root field ``x`` where there is no ``metadata.x``."""
    positive = _positive(condition, condition.path, engine, indexed)
    if condition.path.startswith("metadata."):
        root = condition.path.removeprefix("metadata.")
        absent = engine.none([_fact(payload.exists(condition.path), engine)])
        positive = engine.some([positive, engine.all([absent, _positive(condition, root, engine, indexed)])])
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


def _positive(condition: Condition, path: str, engine: Dialect, indexed: Collection[str]) -> Any:
    there = _fact(payload.exists(path), engine)
    match condition.operator:
        case Operator.EXISTS:
            return there
        case Operator.IS_NULL:  # the positive form: there, and not null
            return engine.all([there, engine.none([_fact(payload.null(path), engine)])])
        case Operator.GT | Operator.LT | Operator.GTE | Operator.LTE:
            bound = as_number(condition.value)
            assert bound is not None
            key = payload.number_key(path)
            inside = engine.between(key, **{_RANGES[condition.operator]: bound})
            # Without an index the engine reads a whole payload per point; `there` spares it those without the field.
            return inside if key in indexed else engine.all([there, inside])
        case _:
            facts = [fact for value in condition.values for fact in _facts(path, value)]
            return engine.any_of(payload.FACTS, facts or [payload.NEVER])


def _fact(fact: int, engine: Dialect) -> Any:
    return engine.any_of(payload.FACTS, [fact])


def _facts(path: str, value: Scalar) -> list[int]:
    facts: list[int] = []
    if isinstance(value, str):
        facts.append(payload.string(path, value))
    number, boolean = as_number(value), as_boolean(value)
    if number is not None:
        facts.append(payload.number(path, number))
    if boolean is not None:
        facts.append(payload.boolean(path, value=boolean))
    return facts
