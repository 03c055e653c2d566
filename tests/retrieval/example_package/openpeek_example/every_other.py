"""The stage ``every_other``."""

from typing import ClassVar

from pydantic import Field

from domain.documents import Document
from retrieval.contract import Category, Context, StageParameters
from retrieval.registry import register


class EveryOtherParameters(StageParameters):
    """Where to begin."""

    begin: int = Field(0, ge=0, le=1, description="0 keeps the first document, 1 the second.")


@register("every_other", "half")
class EveryOther:
    """Keep every other document. Order is kept."""

    category: ClassVar[Category] = Category.REDUCE
    icon: ClassVar[str] = "minus"
    Parameters: ClassVar[type[StageParameters]] = EveryOtherParameters

    def __init__(self, parameters: EveryOtherParameters) -> None:
        self._begin = parameters.begin

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:
        """Leave out the others."""
        return documents[self._begin :: 2]
