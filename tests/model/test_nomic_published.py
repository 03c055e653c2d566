"""The published weights, where they are on this machine: values that others have published for them."""

import os

import pytest

from extractors.contract import Extractor, ModelHome
from extractors.registry import configure
from extractors.text_embedding import weights
from extractors.text_embedding.models import NOMIC

HOME = ModelHome(os.environ.get("OPENPEEK_MODELS", "models"))
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not weights.is_here(NOMIC, HOME), reason="the nomic weights are not on this machine"),
]


@pytest.fixture(scope="module")
def nomic() -> Extractor:
    return configure("text_extractor", {"model_id": NOMIC.model_id}, HOME)


def test_the_weights_are_those_of_the_pinned_revision(nomic):
    identity = nomic.identity()
    assert identity is not None
    assert identity.revision == NOMIC.revision


def test_the_model_cards_own_example_has_the_similarity_it_says(nomic):
    one, other = nomic.embed(["Hello!", "¡Hola!"], lambda _: None)
    assert abs(float(one @ other) - 0.9118) < 5e-4


def test_a_query_finds_its_passage_in_another_language(nomic):
    passages = [
        "Die Hauptstadt von Frankreich ist Paris.",
        "パンは小麦粉から作られます。",
        "El gato duerme en el sofá.",
    ]
    vectors = nomic.embed(passages, lambda _: None)
    for index, query in enumerate(
        ["What is the capital of France?", "How is bread made?", "Where does the cat sleep?"]
    ):
        assert int((vectors @ nomic.embed_query(query)).argmax()) == index
