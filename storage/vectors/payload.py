"""What a point carries beside its vector, shared by both adapters.

Users' fields are not mirrored: user-chosen keys would become key paths of the engine, booleans never match in
Edge, and every field would need an index of its own. Instead each reachable path of a document becomes short
tokens in one keyword array, under one index:

    e␟path          the path exists              s␟path␟text     it holds this string (long ones as a hash)
    z␟path          it is null                   b␟path␟true     it holds this boolean
                                                 n␟path␟5.0      it holds this number, as a 64-bit float

and numbers are kept once more under a safe key of their own, for ranges.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from domain.documents import Scope
from domain.ids import point_id
from domain.json_types import Fields, Json
from storage.ports import Point

TENANT: Final = "tenant"
COLLECTION: Final = "collection_id"
SOURCE: Final = "source_id"
DOCUMENT: Final = "document_id"
VERSION: Final = "object_version"
EPOCH: Final = "epoch"
FACTS: Final = "facts"
INDEXED: Final = (TENANT, COLLECTION, SOURCE, FACTS)

_SEPARATOR: Final = "\x1f"
_LONG: Final = 96


def tenant(scope: Scope) -> str:
    """Return the value that every condition on points demands: organization and namespace in one."""
    return f"{scope.organization_id}/{scope.namespace_id}"


def engine_id(scope: Scope, document_id: str) -> str:
    """Return the id of a document's point."""
    return point_id(scope.organization_id, scope.namespace_id, document_id)


def payload(scope: Scope, point: Point) -> dict[str, Any]:
    """Return what the engine keeps of a point beside its vector."""
    facts, numbers = derive(point.fields)
    return {
        TENANT: tenant(scope),
        COLLECTION: point.collection_id,
        SOURCE: point.source_id,
        DOCUMENT: point.document_id,
        VERSION: point.object_version,
        EPOCH: point.epoch,
        FACTS: facts,
        **numbers,
    }


def derive(fields: Fields) -> tuple[list[str], dict[str, list[float]]]:
    """Return tokens and numbers of a document's fields."""
    found: dict[str, Json] = {}
    _reach(fields, "", found)
    facts: list[str] = []
    numbers: dict[str, list[float]] = {}
    for path, value in found.items():
        facts.append(exists(path))
        if value is None:
            facts.append(null(path))
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, bool):
                facts.append(boolean(path, value=item))
            elif isinstance(item, int | float):
                facts.append(number(path, float(item) + 0.0))
                numbers.setdefault(number_key(path), []).append(float(item) + 0.0)
            elif isinstance(item, str):
                facts.append(string(path, item))
    return list(dict.fromkeys(facts)), numbers


def _reach(level: Mapping[str, Json], prefix: str, found: dict[str, Json]) -> None:
    """Collect every path that `lookup` can find, with the value it finds: a key with dots wins over descending."""
    for key, value in level.items():
        found.setdefault(prefix + key, value)
    for key, value in level.items():
        if isinstance(value, dict) and "." not in key:
            _reach(value, f"{prefix}{key}.", found)


def exists(path: str) -> str:
    """Return the token that a path exists."""
    return f"e{_SEPARATOR}{path}"


def null(path: str) -> str:
    """Return the token that a path holds null."""
    return f"z{_SEPARATOR}{path}"


def string(path: str, value: str) -> str:
    """Return the token that a path holds a string."""
    if len(value) > _LONG:
        value = f"#{len(value)}{_SEPARATOR}{hashlib.blake2b(value.encode(), digest_size=16).hexdigest()}"
    return f"s{_SEPARATOR}{path}{_SEPARATOR}{value}"


def boolean(path: str, *, value: bool) -> str:
    """Return the token that a path holds a boolean."""
    return f"b{_SEPARATOR}{path}{_SEPARATOR}{'true' if value else 'false'}"


def number(path: str, value: float) -> str:
    """Return the token that a path holds a number."""
    return f"n{_SEPARATOR}{path}{_SEPARATOR}{value!r}"


def number_key(path: str) -> str:
    """Return the payload key of a path's numbers: nothing of the user's text is in it."""
    return f"num_{hashlib.blake2b(path.encode(), digest_size=10).hexdigest()}"


def versions(points: list[Point]) -> Iterator[tuple[int, int, list[Point]]]:
    """Yield points in groups of the same object version and epoch: the fence is one condition per write."""
    groups: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.object_version, point.epoch), []).append(point)
    for (version, epoch), group in groups.items():
        yield version, epoch, group
