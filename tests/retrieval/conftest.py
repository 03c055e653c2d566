"""A shelf of documents, and short ways to run stages over it."""

from datetime import UTC, datetime

import pytest

from domain.documents import Document
from domain.errors import Invalid
from retrieval import engine
from retrieval.contract import Context
from retrieval.spelling import read_stages
from tests.retrieval.shelf import Shelf

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
WORDS = [
    "apple", "pear", "plum", "cherry", "quince", "medlar", "sloe", "fig",
    "grape", "lemon", "lime", "orange", "melon", "mango", "kiwi", "date",
]  # fmt: skip


@pytest.fixture
def shelf():
    """Thirty-two documents in two collections; languages alternate, every third has no price."""
    documents = []
    for number in range(32):
        fields = {
            "text": f"{WORDS[number % 16]} {WORDS[(number * 7 + 3) % 16]}",
            "lang": ("en", "de", "fr")[number % 3],
            "number": number,
            "tags": ["even" if number % 2 == 0 else "odd", f"t{number % 5}"],
        }
        if number % 3:
            fields["price"] = (number * 37) % 11
        internal = {"created_at": f"2026-01-01T00:00:{number:02}.000Z", "lineage": {"part": number % 4}}
        documents.append(Document(f"doc_{number:02}", f"col_{number % 2}", fields, internal))
    return Shelf(documents)


@pytest.fixture
def run(shelf):
    """Check and run a pipeline as the API does; returns the execution."""

    def run(*stages, inputs=None, wanted=None, schema=None, **more):
        specs = read_stages(list(stages))
        engine.check(specs, schema or {})
        context = Context(shelf, inputs or {}, wanted)
        return engine.execute(specs, context, clock=lambda: NOON, **more)

    return run


@pytest.fixture
def found(run):
    """Run a pipeline and return the ids of what it found."""

    def found(*stages, **more):
        return [document.document_id for document in run(*stages, **more).documents]

    return found


@pytest.fixture
def refusal():
    """Return the error with which stages are refused when a retriever is made."""

    def refusal(*stages, schema=None):
        with pytest.raises(Invalid) as refused:
            engine.check(read_stages(list(stages)), schema or {})
        return refused.value

    return refusal
