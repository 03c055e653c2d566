"""What extractors write, stages pass on, and users get."""

from dataclasses import dataclass, field, replace
from typing import Self

from domain.json_types import Fields


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose data: every query of every store carries both. An organization is the tenant."""

    organization_id: str
    namespace_id: str


@dataclass(frozen=True, slots=True)
class Document:
    """One result in a retriever's pipeline: the user's fields, and how it was found.

    Attributes:
        fields: what the user sees at the root of the document; enrichments are added here.
        internal: lineage and times, shown under ``_internal``.
        score: relevance, higher is better; None where no search has scored it.
        scores: named scores that stages have added.
    """

    document_id: str
    collection_id: str
    fields: Fields
    internal: Fields = field(default_factory=dict)
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def with_score(self, score: float, **named: float) -> Self:
        """Return a copy with this score."""
        return replace(self, score=score, scores={**self.scores, **named})
