"""The stage ``sort_attribute``."""

from typing import Any, ClassVar, Literal

import orjson
from pydantic import AliasChoices, Field, model_validator

from domain.documents import Document
from domain.filters import MAX_PATH
from domain.json_types import Json, Missing, lookup
from retrieval.contract import Category, Context, StageParameters
from retrieval.fields import visible
from retrieval.registry import register


class SortAttributeParameters(StageParameters):
    """By what, and in which direction."""

    field: str = Field(
        "metadata.created_at",
        min_length=1,
        max_length=MAX_PATH,
        validation_alias=AliasChoices("field", "sort_field"),
        description="A field of the documents, score, document_id, collection_id, or one under _internal.",
    )
    direction: Literal["asc", "desc"] = Field(
        "desc", validation_alias=AliasChoices("direction", "order"), description="asc or desc."
    )
    nulls_last: bool = Field(default=True, description="Whether documents without the field come last.")

    @model_validator(mode="before")
    @classmethod
    def _other_spellings(cls, raw: Any) -> Any:
        """Accept directions in any case, and ``null_handling`` first or last."""
        if not isinstance(raw, dict):
            return raw
        given = {
            key: value.lower() if key in {"direction", "order"} and isinstance(value, str) else value
            for key, value in raw.items()
        }
        nulls = given.pop("null_handling", None)
        if isinstance(nulls, str) and given.get("nulls_last") is None:
            given["nulls_last"] = nulls.lower() not in {"first", "nulls_first"}
        return given


@register("sort_attribute")
class SortAttribute:
    """Sort by a field.

    Numbers come before texts, texts before booleans (false before true), booleans before lists and objects;
    descending is the other way round. Numbers compare as 64-bit floats, texts by code point, lists and objects
    by their JSON. Null counts as absent. Documents that tie keep their order, in both directions.
    """

    category: ClassVar[Category] = Category.SORT
    icon: ClassVar[str] = "arrow-down-wide-narrow"
    Parameters: ClassVar[type[StageParameters]] = SortAttributeParameters

    def __init__(self, parameters: SortAttributeParameters) -> None:
        self._parameters = parameters

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:  # noqa: ARG002
        """Sort the list."""
        keyed = [(_value_of(document, self._parameters.field), document) for document in documents]
        there = [(value, document) for value, document in keyed if value is not None]
        absent = [document for value, document in keyed if value is None]
        # Python keeps ties in order even when it sorts in reverse.
        there.sort(key=lambda pair: _order(pair[0]), reverse=self._parameters.direction == "desc")
        ordered = [document for _, document in there]
        return [*ordered, *absent] if self._parameters.nulls_last else [*absent, *ordered]


def _value_of(document: Document, path: str) -> Json:
    """Return what a document has at a path, or None; ``metadata.x`` also finds what ``_internal`` knows."""
    found = lookup(visible(document), path)
    if isinstance(found, Missing) and path.startswith("metadata."):
        found = lookup(document.internal, path.removeprefix("metadata."))
    return None if isinstance(found, Missing) else found


def _order(value: Json) -> tuple[int, float, str]:
    if isinstance(value, bool):
        return (2, float(value), "")
    if isinstance(value, int | float):
        return (0, float(value), "")
    if isinstance(value, str):
        return (1, 0.0, value)
    return (3, 0.0, orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())
