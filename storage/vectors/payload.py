"""What a point carries beside its vector, shared by both adapters.

Users' fields are not mirrored: user-chosen keys would become key paths of the engine, booleans never match in
Edge, and every field would need an index of its own. Instead each reachable path of a document becomes a few
facts in one array under one index:

    the path exists · it is null · it holds this string · this boolean · this number (as a 64-bit float)

and numbers are kept once more under a safe key of their own, for ranges.

A fact is a 64-bit hash, kept as an integer, because Edge takes and compares integers faster than strings
(docs/adr/0004). Two facts of a billion different ones collide with a chance
of 1 in 10^10 per question asked; whoever forces a collision deceives the searches of their own namespace only,
because the tenant is a keyword of its own, compared in full.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from domain.documents import Scope
from domain.errors import Invalid
from domain.features import VectorSpec
from domain.filters import MAX_PATH, MAX_STEPS
from domain.ids import point_id
from domain.json_types import Fields, Json
from storage.ports import Point, Vector

TENANT: Final = "tenant"
COLLECTION: Final = "collection_id"
SOURCE: Final = "source_id"
DOCUMENT: Final = "document_id"
VERSION: Final = "object_version"
EPOCH: Final = "epoch"
FACTS: Final = "facts"
NUMBERS: Final = "num_"  # the first letters of every key that holds numbers
KEYWORDS: Final = (TENANT, COLLECTION, SOURCE)  # indexed, beside FACTS

LARGEST: Final = sys.float_info.max
_PATHS_REMEMBERED: Final = 4_096  # the same few paths come again with every document


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
        FACTS: [in_collection(point.collection_id), *facts],
        **numbers,
    }


def derive(fields: Fields) -> tuple[list[int], dict[str, float | list[float]]]:
    """Return facts and numbers of a document's fields."""
    found: dict[str, Json] = {}
    _reach(fields, "", found)
    facts: list[int] = []
    numbers: dict[str, list[float]] = {}
    for path, value in found.items():
        facts.append(exists(path))
        if value is None:
            facts.append(null(path))
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, bool):
                facts.append(boolean(path, value=item))
            elif isinstance(item, int | float):
                held = _double(item)
                facts.append(number(path, held))
                # An integer beyond all doubles counts as infinite, which JSON cannot say. The largest double
                # lies on the same side of every bound that `conditions.supports` says yes to.
                numbers.setdefault(number_key(path), []).append(max(-LARGEST, min(LARGEST, held)))
            elif isinstance(item, str):
                facts.append(string(path, item))
    # Edge reads a bare number faster than a list of one.
    bare: dict[str, float | list[float]] = {key: held[0] if len(held) == 1 else held for key, held in numbers.items()}
    return list(dict.fromkeys(facts)), bare


def _reach(level: Mapping[str, Json], prefix: str, found: dict[str, Json]) -> None:
    """Collect every path that `lookup` can find, with the value it finds: a key with dots wins over descending.

    Paths that no filter may be written with are left out.
    """
    for key, value in level.items():
        path = prefix + key
        if askable(path):
            found.setdefault(path, value)
    for key, value in level.items():
        if isinstance(value, dict) and "." not in key and askable(prefix + key):
            _reach(value, f"{prefix}{key}.", found)


def askable(path: str) -> bool:
    """Say whether a filter may be written over a path: others are not in the index."""
    return len(path) <= MAX_PATH and path.count(".") < MAX_STEPS


def _double(value: float) -> float:
    try:
        return float(value) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


@lru_cache(_PATHS_REMEMBERED)
def in_collection(collection_id: str) -> int:
    """Return the fact that a point is of a collection: in a search it costs a third of comparing the keyword."""
    return _fact("c", collection_id)


@lru_cache(_PATHS_REMEMBERED)
def exists(path: str) -> int:
    """Return the fact that a path exists."""
    return _fact("e", path)


def null(path: str) -> int:
    """Return the fact that a path holds null."""
    return _fact("z", path)


def string(path: str, value: str) -> int:
    """Return the fact that a path holds a string."""
    return _fact("s", path, value)


def boolean(path: str, *, value: bool) -> int:
    """Return the fact that a path holds a boolean."""
    return _fact("b", path, "true" if value else "false")


@lru_cache(_PATHS_REMEMBERED)
def number(path: str, value: float) -> int:
    """Return the fact that a path holds a number."""
    return _fact("n", path, repr(value))


def _fact(kind: str, path: str, value: str = "") -> int:
    """Hash a fact; the length of the path says where the value begins, so that no two facts are spelled alike."""
    spelled = f"{kind}{len(path)}:{path}{value}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest(), signed=True)


NEVER: Final = _fact("never", "")  # a fact that no point has


@lru_cache(_PATHS_REMEMBERED)
def number_key(path: str) -> str:
    """Return the payload key of a path's numbers: nothing of the user's text is in it."""
    return NUMBERS + hashlib.blake2b(path.encode(errors="surrogatepass"), digest_size=10).hexdigest()


def versions(points: Sequence[Point]) -> Iterator[tuple[int, int, list[Point]]]:
    """Yield points in groups of the same object version and epoch: the fence is one condition per write."""
    groups: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.object_version, point.epoch), []).append(point)
    for (version, epoch), group in groups.items():
        yield version, epoch, group


def demand_width(spec: VectorSpec, vector: Vector) -> None:
    """Refuse a vector whose width is not the spec's.

    Raises:
        Invalid: with the code ``vector_schema_mismatch``.
    """
    if vector.shape != (spec.dimensions,):
        message = f"A vector of {spec.name} has {spec.dimensions} dimensions, not {vector.shape}."
        raise Invalid(message, code="vector_schema_mismatch")
