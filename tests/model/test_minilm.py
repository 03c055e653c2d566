"""The model that is installed with OpenPeek: its published values, and meaning."""

import numpy as np
import pytest

from extractors.contract import Extractor, ModelHome, Source
from extractors.registry import configure

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def minilm(tmp_path_factory) -> Extractor:
    home = ModelHome(str(tmp_path_factory.mktemp("no-models")))
    return configure("text_extractor", {"model_id": "sentence-transformers/all-MiniLM-L6-v2"}, home)


def embed(minilm: Extractor, *texts: str) -> np.ndarray:
    return minilm.embed(texts, lambda _: None)


def test_its_weights_are_those_of_the_pinned_revision(minilm):
    identity = minilm.identity()
    assert identity is not None
    assert identity.revision == "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"


def test_a_published_vector_is_found_again(minilm):
    """The model card's own example begins with these numbers."""
    (vector,) = embed(minilm, "This is an example sentence")
    assert np.abs(vector[:4] - [0.0677, 0.0635, 0.0487, 0.0793]).max() < 1e-4


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("king", "queen", "car"),
        ("a recipe for bread", "how to bake a loaf", "the rules of chess"),
        ("The cat sleeps.", "A kitten is napping.", "Interest rates have risen."),
    ],
)
def test_what_means_the_same_is_nearer(minilm, word, near, far):
    here, there, elsewhere = embed(minilm, word, near, far)
    assert here @ there > here @ elsewhere + 0.1


def test_a_query_finds_the_passage_that_answers_it(minilm):
    passages = [
        "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
        "The Treaty of Westphalia ended the Thirty Years' War in 1648.",
        "Lists in Python are sorted with sorted() or their own sort method.",
    ]
    for index, query in enumerate(["How do plants make food?", "When did the war end?", "order a list in python"]):
        assert int(np.argmax(embed(minilm, *passages) @ minilm.embed_query(query))) == index


def test_the_same_text_gives_the_same_vector_beside_long_and_short_texts(minilm):
    texts = ["king", "word " * 240, "a recipe for bread", "x", "The cat sleeps. " * 20]
    together = embed(minilm, *texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.abs(embed(minilm, text)[0] - vector).max() <= 1e-6


def test_long_text_becomes_parts_of_at_most_256_tokens(minilm):
    text = "The quick brown fox jumps over the lazy dog. " * 120
    parts = minilm.parts(Source("obj_1", {}, {"text": text})).parts
    assert max(part.tokens for part in parts) <= 256
    assert "".join(str(part.fields["text"]) for part in parts) == text
