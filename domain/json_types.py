"""JSON values, and how a dotted path finds one inside a document."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, Union

from typing_extensions import TypeAliasType

# Pydantic follows recursive types by their name only, and type checkers follow plain aliases only.
if TYPE_CHECKING:
    Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
else:
    Json = TypeAliasType("Json", Union[bool, int, float, str, list["Json"], dict[str, "Json"], None])
Fields: TypeAlias = dict[str, Json]

MAX_DEPTH: Final = 64
_NUMBERS: Final = frozenset({int, float})


class Missing:
    """What a path finds where there is nothing; unlike ``None``, which is a value users may store."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


def lookup(fields: Mapping[str, Json], path: str) -> Json | Missing:
    """Return the value at a dotted path, or MISSING.

    A key that itself contains dots wins over descending. Lists are values, never descended into.
    ``metadata.x`` also finds a root field ``x``, because users of the API write both.
    """
    found = _descend(fields, path)
    if found is MISSING and path.startswith("metadata."):
        return _descend(fields, path.removeprefix("metadata."))
    return found


def _descend(fields: Mapping[str, Json], path: str) -> Json | Missing:
    if path in fields:
        return fields[path]
    head, dot, rest = path.partition(".")
    inner = fields.get(head, MISSING) if dot else MISSING
    return _descend(inner, rest) if isinstance(inner, dict) else MISSING


def is_vector(value: Json) -> bool:
    """Say whether a value is a list of numbers only; they are asked for their kind all at once, because many come."""
    return isinstance(value, list) and set(map(type, value)) <= _NUMBERS


def strings(value: Json) -> Iterator[str]:
    """Yield every string inside a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
