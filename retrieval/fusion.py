"""Reciprocal rank fusion: several rankings become one, by ranks alone, so scores need no common scale."""

from collections.abc import Sequence
from typing import Final

from domain.documents import Document

RANK_CONSTANT: Final = 60


def reciprocal_rank(rankings: Sequence[tuple[float, Sequence[Document]]]) -> list[Document]:
    """Fuse rankings, each with its weight.

    A document scores the sum of weight / (60 + rank), ranks beginning at 1. Ordered by (-score, id), so that
    ties never depend on which search answered first.
    Source: Cormack, Clarke & Büttcher 2009, SIGIR.
    """
    scores: dict[str, float] = {}
    documents: dict[str, Document] = {}
    for weight, ranking in rankings:
        for rank, document in enumerate(ranking, start=1):
            scores[document.document_id] = scores.get(document.document_id, 0.0) + weight / (RANK_CONSTANT + rank)
            documents.setdefault(document.document_id, document)
    fused = [documents[one].with_score(score) for one, score in scores.items()]
    return sorted(fused, key=lambda document: (-(document.score or 0.0), document.document_id))
