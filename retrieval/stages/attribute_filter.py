"""The stage ``attribute_filter``."""

from typing import Any, ClassVar, Final

from pydantic import Field, model_validator

from domain.documents import Document
from domain.errors import Invalid
from domain.filters import Filter, Operator, both, conditions, matches, parse
from domain.json_types import Json
from retrieval.contract import Category, Context, StageParameters
from retrieval.fields import visible
from retrieval.registry import register

MAX_FIRST: Final = 1_000
_CASE_FREE: Final = frozenset({Operator.CONTAINS, Operator.EXISTS, Operator.IS_NULL})


class AttributeFilterParameters(StageParameters):
    """One condition, or a group of them; both, if both are given."""

    field: str | None = Field(None, description="A dotted path into the document.")
    operator: str | None = Field("eq", description="eq, ne, gt, lt, gte, lte, in, nin, contains, exists or is_null.")
    value: Json = Field(None, description="What the field is compared with.")
    conditions: Json = Field(None, description="A filter: a condition, a group with AND, OR, NOT, or {field: value}.")
    case_insensitive: bool | None = Field(None, description="Only contains can ignore case; it always does.")
    natural_language: Json = Field(None, description="Not offered.")

    @model_validator(mode="before")
    @classmethod
    def _groups_at_the_root(cls, raw: Any) -> Any:
        """Accept AND, OR and NOT beside the other parameters."""
        if not isinstance(raw, dict):
            return raw
        groups = {key: raw[key] for key in ("AND", "OR", "NOT") if raw.get(key) is not None}
        if not groups:
            return raw
        rest = {key: value for key, value in raw.items() if key not in groups}
        given = rest.get("conditions")
        listed = given if isinstance(given, list) else [given]
        return {**rest, "conditions": {"AND": [groups, *listed]} if given else groups}

    def parsed(self) -> Filter | None:
        """Return the filter these parameters ask for.

        Raises:
            Invalid: it is malformed, or asks for what is not offered.
        """
        if self.natural_language:
            message = "Filters in natural language are not offered; write conditions."
            raise Invalid(message, location=("natural_language",), code="not_offered")
        one = None
        if self.field is not None:
            one = parse({"field": self.field, "operator": self.operator or "eq", "value": self.value}, location=())
        group: Json = {"AND": self.conditions} if isinstance(self.conditions, list) else self.conditions
        wanted = both(one, parse(group, location=("conditions",)))
        if self.case_insensitive and wanted and any(each.operator not in _CASE_FREE for each in conditions(wanted)):
            message = "Only contains ignores case; comparisons that ignore case are not offered yet."
            raise Invalid(message, location=("case_insensitive",), code="not_offered")
        return wanted


@register("attribute_filter")
class AttributeFilter:
    """Keep documents whose fields match. Order is kept.

    As the first stage it fetches those that match, oldest first, at most 1,000 of each collection.
    """

    category: ClassVar[Category] = Category.FILTER
    icon: ClassVar[str] = "filter"
    Parameters: ClassVar[type[StageParameters]] = AttributeFilterParameters

    def __init__(self, parameters: AttributeFilterParameters) -> None:
        self._wanted = parameters.parsed()

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Filter the list, or begin it."""
        if not first:
            return [one for one in documents if self._wanted is None or matches(self._wanted, visible(one))]
        wanted = both(self._wanted, context.filter)
        found: list[Document] = []
        for collection_id in context.corpus.collection_ids:
            some = context.corpus.fetch(wanted, [collection_id], MAX_FIRST + 1)
            if len(some) > MAX_FIRST:
                context.warnings.append(
                    f"More than {MAX_FIRST:,} documents match in {collection_id}; attribute_filter took the oldest."
                )
            found.extend(some[:MAX_FIRST])
        return found
