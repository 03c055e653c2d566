"""A corpus on a shelf, for tests of stages: documents in memory, searched by comparing with every one."""

import math
from dataclasses import dataclass, field, replace

from domain.documents import Document
from domain.errors import Invalid
from domain.filters import matches

WIDTH = 8


def vector_of(text):
    """A unit vector that texts with the same letters share: no model, but a stable order."""
    counts = [0.01] * WIDTH
    for character in text:
        counts[ord(character) % WIDTH] += 1.0
    length = math.sqrt(sum(one * one for one in counts))
    return [one / length for one in counts]


def cosine(one, other):
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths


@dataclass
class Shelf:
    """What `retrieval.contract.Corpus` asks for, over a list of documents whose field ``text`` is embedded.

    ``asked`` records the requests, so that a test can see how often and how a stage searched.
    """

    documents: list[Document]
    asked: list = field(default_factory=list)

    @property
    def collection_ids(self):
        return list(dict.fromkeys(document.collection_id for document in self.documents))

    def search(self, request, *, among=None):
        self.asked.append((request, among))
        unknown = set(request.collection_ids) - set(self.collection_ids)
        if unknown:
            raise Invalid(f"This retriever has no collection {min(unknown)!r}.", code="unknown_collection")
        query = vector_of(request.query) if isinstance(request.query, str) else request.query
        if len(query) != WIDTH:
            raise Invalid(f"The vector has {len(query)} dimensions.", code="dimension_mismatch")
        scored = [
            replace(document, score=cosine(query, vector_of(document.fields["text"])))
            for document in self._chosen(request.filter, request.collection_ids)
            if among is None or document.document_id in among
        ]
        return sorted(scored, key=lambda one: (-one.score, one.document_id))[: request.limit]

    def fetch(self, filter, collection_ids, limit):  # noqa: A002
        return self._chosen(filter, collection_ids)[:limit]

    def _chosen(self, wanted, collection_ids):
        return [
            document
            for document in self.documents
            if (not collection_ids or document.collection_id in collection_ids)
            and (wanted is None or matches(wanted, document.fields))
        ]
