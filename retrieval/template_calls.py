"""What templates may call: the contract's functions and filters, and nothing else."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import orjson

from domain.json_types import Json

Clock: TypeAlias = Callable[[], datetime]
Function: TypeAlias = Callable[[Clock, Sequence[Json], Mapping[str, Json]], Json]
Filter: TypeAlias = Callable[[Json, Sequence[Json], Mapping[str, Json]], Json]

MAX_TEXT: Final = 1_000_000
_SPANS: Final = frozenset({"weeks", "days", "hours", "minutes", "seconds", "milliseconds"})
_INTEGERS: Final = range(-(2**63), 2**64)


def render(value: Json) -> str:
    """Return a value as it reads inside a longer text: strings as they are, nothing for null, the rest as JSON.

    Raises:
        TypeError: a number in it is beyond what JSON carries here.
    """
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _numbers(given: Sequence[Json]) -> list[float]:
    flat = given[0] if len(given) == 1 and isinstance(given[0], list) else given
    numbers = [item for item in flat if isinstance(item, int | float) and not isinstance(item, bool)]
    if not numbers or len(numbers) != len(flat):
        raise TypeError("numbers are needed")
    return numbers


def _number(given: Sequence[Json]) -> float:
    (number,) = _numbers(given)
    return number


def _whole(number: float) -> Json:
    """Return a whole number as an integer, where JSON can carry it as one."""
    return int(number) if int(number) in _INTEGERS else float(number)


def _round(given: Sequence[Json]) -> Json:
    if len(given) == 1:
        return _whole(round(_number(given)))
    number, digits = _numbers(given)
    return round(number, int(digits))


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now(clock: Clock, given: Sequence[Json], named: Mapping[str, Json]) -> Json:
    if given or named:
        raise ValueError("utc_now takes nothing")
    return _moment(clock())


def _ago(clock: Clock, given: Sequence[Json], named: Mapping[str, Json]) -> Json:
    if given or not named or not set(named) <= _SPANS:
        raise ValueError("say minutes=5, for instance")
    return _moment(clock() - timedelta(**{unit: _number([amount]) for unit, amount in named.items()}))


FUNCTIONS: Final[Mapping[str, Function]] = {
    "max": lambda _clock, given, _named: max(_numbers(given)),
    "min": lambda _clock, given, _named: min(_numbers(given)),
    "abs": lambda _clock, given, _named: abs(_number(given)),
    "round": lambda _clock, given, _named: _round(given),
    "ceil": lambda _clock, given, _named: _whole(math.ceil(_number(given))),
    "floor": lambda _clock, given, _named: _whole(math.floor(_number(given))),
    "utc_now": _now,
    "time_ago": _ago,
}


def _listed(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return value


def _map(value: Json, given: Sequence[Json], named: Mapping[str, Json]) -> Json:
    key = given[0] if given else named["attribute"]
    return [item.get(str(key)) if isinstance(item, dict) else None for item in _listed(value)]


def _join(value: Json, given: Sequence[Json], _named: Mapping[str, Json]) -> Json:
    separator = render(given[0]) if given else ""
    pieces = [render(item) for item in _listed(value)]
    if sum(map(len, pieces)) + len(separator) * len(pieces) > MAX_TEXT:
        raise ValueError("the text would be too long")
    return separator.join(pieces)


def _length(value: Json, _given: Sequence[Json], _named: Mapping[str, Json]) -> Json:
    if not isinstance(value, str | list | dict):
        raise TypeError("only texts, lists and objects have a length")
    return len(value)


def _slug(value: Json, _given: Sequence[Json], _named: Mapping[str, Json]) -> Json:
    return re.sub(r"[\W_]+", "-", render(value).casefold()).strip("-")


def _bool(value: Json, _given: Sequence[Json], _named: Mapping[str, Json]) -> Json:
    return value.strip().casefold() in {"true", "1", "yes", "on"} if isinstance(value, str) else bool(value)


FILTERS: Final[Mapping[str, Filter]] = {
    "first": lambda value, _given, _named: _listed(value)[0] if value else None,
    "last": lambda value, _given, _named: _listed(value)[-1] if value else None,
    "map": _map,
    "join": _join,
    "length": _length,
    "slugify": _slug,
    "bool": _bool,
    "tojson": lambda value, _given, _named: orjson.dumps(value).decode(),
}
