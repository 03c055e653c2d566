"""The stage ``sort_attribute``."""

from typing import ClassVar, Literal

from pydantic import AliasChoices, Field

from domain.documents import Document
from domain.json_types import MISSING, Json, lookup
from retrieval.contract import Category, Context, StageParameters
from retrieval.registry import register


class SortAttributeParameters(StageParameters):
    """By what, and in which direction."""

    field: str = Field(
        "metadata.created_at",
        min_length=1,
        max_length=512,
        validation_alias=AliasChoices("field", "sort_field"),
        description="A field of the documents, or one under _internal.",
    )
    direction: Literal["asc", "desc"] = Field("desc", validation_alias=AliasChoices("direction", "order"))
    nulls_last: bool = Field(default=True, description="Whether documents without the field come last.")


@register("sort_attribute")
class SortAttribute:
    """Sort by a field. Numbers come before strings before booleans before the rest; ties keep their order."""

    category: ClassVar[Category] = Category.SORT
    icon: ClassVar[str] = "arrow-down-wide-narrow"
    Parameters: ClassVar[type[StageParameters]] = SortAttributeParameters

    def __init__(self, parameters: SortAttributeParameters) -> None:
        self._parameters = parameters

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:  # noqa: ARG002
        """Sort the list."""
        keyed = [(value_of(document, self._parameters.field), document) for document in documents]
        there = [(value, document) for value, document in keyed if value is not None]
        absent = [document for value, document in keyed if value is None]
        descending = self._parameters.direction == "desc"
        there.sort(key=lambda pair: _order(pair[0]), reverse=descending)  # stable in both directions
        ordered = [document for _, document in there]
        return [*ordered, *absent] if self._parameters.nulls_last else [*absent, *ordered]


def value_of(document: Document, path: str) -> Json:
    """Return what a document has at a path; score and ids count as fields, so do internal ones."""
    own: dict[str, Json] = {
        "score": document.score,
        "document_id": document.document_id,
        "collection_id": document.collection_id,
    }
    found = lookup(document.fields, path)
    if found is MISSING:
        found = lookup({**own, "_internal": document.internal}, path)
    if found is MISSING and path.startswith("metadata."):
        found = lookup(document.internal, path.removeprefix("metadata."))
    return None if found is MISSING else found  # type: ignore[return-value]


def _order(value: Json) -> tuple[int, float, str]:
    if isinstance(value, bool):
        return (2, float(value), "")
    if isinstance(value, int | float):
        return (0, float(value), "")
    if isinstance(value, str):
        return (1, 0.0, value)
    return (3, 0.0, str(value))
