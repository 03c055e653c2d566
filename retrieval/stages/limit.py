"""The stage ``limit``."""

from typing import ClassVar

from pydantic import Field

from domain.documents import Document
from retrieval.contract import Category, Context, StageParameters
from retrieval.registry import register


class LimitParameters(StageParameters):
    """How many, from where."""

    limit: int = Field(10, ge=1, le=10_000, description="The most documents that go on.")
    offset: int = Field(0, ge=0, le=10_000, description="Documents left out at the beginning.")


@register("limit")
class Limit:
    """Let only the first documents go on. Order is kept."""

    category: ClassVar[Category] = Category.REDUCE
    icon: ClassVar[str] = "scissors"
    Parameters: ClassVar[type[StageParameters]] = LimitParameters

    def __init__(self, parameters: LimitParameters) -> None:
        self._parameters = parameters

    def run(self, documents: list[Document], context: Context, *, first: bool) -> list[Document]:  # noqa: ARG002
        """Cut the list."""
        return documents[self._parameters.offset : self._parameters.offset + self._parameters.limit]
