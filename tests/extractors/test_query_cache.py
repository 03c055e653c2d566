"""Who asks the same again does not pay the model again."""

import threading

import numpy as np
import pytest

from domain.errors import Invalid
from extractors import text_embedding
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.query_cache import QueryCache, QueryKey

KEY = QueryKey("m", "r", "fp32", "q: ", "text")


@pytest.fixture
def passes(monkeypatch):
    """Return what is given to the model, query by query, with an empty cache."""
    seen: list[str] = []
    original = Engine.encode

    def watched(self, texts, progress=None, *, urgent=False):
        seen.extend(texts)
        return original(self, texts, progress, urgent=urgent)

    monkeypatch.setattr(Engine, "encode", watched)
    monkeypatch.setattr(text_embedding, "_queries", QueryCache())
    return seen


def test_a_repeated_query_reaches_the_model_once_and_its_vector_is_the_same(tiny, passes):
    first = tiny.extractor().embed_query("a fox")
    assert np.array_equal(tiny.extractor().embed_query("a fox"), first)
    assert passes == ["search_query: a fox"]


def test_collections_of_different_dimensions_share_the_vector(tiny, passes):
    wide = tiny.extractor().embed_query("a fox")
    narrow = tiny.extractor(dimensions=16).embed_query("a fox")
    assert passes == ["search_query: a fox"]
    assert np.allclose(narrow, wide[:16] / np.linalg.norm(wide[:16]), atol=1e-6)


def test_what_a_caller_does_to_its_vector_does_not_reach_the_next(tiny, passes):
    first = tiny.extractor().embed_query("a fox")
    first[:] = 0
    assert np.linalg.norm(tiny.extractor().embed_query("a fox")) == pytest.approx(1)


def test_a_query_that_is_too_long_is_refused_every_time(tiny, passes):
    for _ in range(2):
        with pytest.raises(Invalid):
            tiny.extractor().embed_query("word " * 100)
    assert passes == []


@pytest.mark.parametrize("field", QueryKey._fields)
def test_everything_that_a_vector_depends_on_is_part_of_the_key(field):
    cache = QueryCache()
    one = cache.get(KEY, lambda: np.zeros((1, 2), np.float32))
    other = cache.get(KEY._replace(**{field: "other"}), lambda: np.ones((1, 2), np.float32))
    assert not np.array_equal(one, other)
    assert np.array_equal(cache.get(KEY, lambda: pytest.fail("it was kept")), one)


def test_no_more_are_kept_than_should_be_and_the_one_unused_for_the_longest_goes():
    cache = QueryCache(kept=2)
    keys = [KEY._replace(text=text) for text in "abc"]
    for key in (keys[0], keys[1], keys[0], keys[2]):
        cache.get(key, lambda: np.zeros((1, 2), np.float32))
    assert len(cache) == 2
    cache.get(keys[0], lambda: pytest.fail("it was used a moment ago"))
    made = []
    cache.get(keys[1], lambda: made.append(1) or np.zeros((1, 2), np.float32))
    assert made == [1]


def test_an_error_is_not_kept():
    cache = QueryCache()
    with pytest.raises(ValueError, match="once"):
        cache.get(KEY, lambda: (_ for _ in ()).throw(ValueError("once")))
    assert cache.get(KEY, lambda: np.ones((1, 2), np.float32)).tolist() == [[1, 1]]


def test_threads_may_share_it():
    cache = QueryCache(kept=8)

    def ask():
        for n in range(2_000):
            key = KEY._replace(text=str(n % 16))
            assert cache.get(key, lambda n=n: np.full((1, 1), n % 16, np.float32))[0, 0] == n % 16

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 8
