"""The stage ``attribute_filter``."""

from typing import Any, ClassVar, Final

from pydantic import Field, model_validator

from domain.documents import Document
from domain.errors import Invalid
from domain.filters import Filter, both, matches, parse
from domain.json_types import Json
from retrieval.contract import Category, Context, StageParameters
from retrieval.registry import register

MAX_FIRST: Final = 1_000


class AttributeFilterParameters(StageParameters):
    """One condition, or a group of them."""

    field: str | None = None
    operator: str | None = "eq"
    value: Json = None
    conditions: Json = Field(None, description="A filter: a condition, a group with AND, OR, NOT, or {field: value}.")
    case_insensitive: bool | None = None
    natural_language: Json = None

    @model_validator(mode="before")
    @classmethod
    def _groups_at_the_root(cls, raw: Any) -> Any:
        """Accept AND, OR and NOT beside the other parameters."""
        if not isinstance(raw, dict):
            return raw
        groups = {key: raw[key] for key in ("AND", "OR", "NOT") if raw.get(key) is not None}
        rest = {key: value for key, value in raw.items() if key not in groups}
        return {**rest, "conditions": groups} if groups and not raw.get("conditions") else raw

    def parsed(self) -> Filter | None:
        """Return the filter these parameters ask for. Raises Invalid."""
        if self.natural_language:
            message = "Filters in natural language are not offered; write conditions."
            raise Invalid(message, location=("natural_language",), code="not_offered")
        if self.field is not None:
            raw: dict[str, Json] = {"field": self.field, "operator": self.operator or "eq", "value": self.value}
            return parse(raw, location=())
        conditions = self.conditions
        if isinstance(conditions, list):
            conditions = {"AND": conditions}
        return parse(conditions, location=("conditions",))


@register("attribute_filter")
class AttributeFilter:
    """Keep documents whose fields match; as the first stage, fetch those that do. Order is kept (oldest first)."""

    category: ClassVar[Category] = Category.FILTER
    icon: ClassVar[str] = "filter"
    Parameters: ClassVar[type[StageParameters]] = AttributeFilterParameters

    def __init__(self, parameters: AttributeFilterParameters) -> None:
        self._wanted = parameters.parsed()

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Filter the list, or begin it."""
        if not first:
            return [one for one in documents if self._wanted is None or matches(self._wanted, one.fields)]
        wanted = both(self._wanted, context.filter)
        found: list[Document] = []
        for collection_id in context.corpus.collection_ids:
            some = context.corpus.fetch(wanted, [collection_id], MAX_FIRST + 1)
            if len(some) > MAX_FIRST:
                context.warnings.append(
                    f"attribute_filter fetched the first {MAX_FIRST:,} of the documents that match in {collection_id}."
                )
            found.extend(some[:MAX_FIRST])
        return found
