"""Micro-batching: who comes at the same time shares a forward pass, and nothing else."""

import threading
import time

import numpy as np
import pytest

from domain.errors import Busy, EmbeddingsServerAway, Unavailable, WeightsBroken
from extractors.text_embedding import batching
from extractors.text_embedding.batching import Batcher


class Model:
    """A double of a model: a text's vector is its length; it can be held, and it can fail."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.entered = threading.Event()

    def encode(self, texts):
        self.calls.append(texts)
        self.entered.set()
        assert self.may_go.wait(10)
        if "poison" in texts:
            raise WeightsBroken("m", "poison")
        if "away" in texts:
            raise EmbeddingsServerAway("m", "gone")
        if "down" in texts:
            raise Unavailable("engine", "gone")
        if "fault" in texts:
            raise ValueError("a fault")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
def model():
    return Model()


def held(model: Model, **given) -> Batcher:
    """Return a batcher whose model is busy with a first caller until `may_go`."""
    model.may_go.clear()
    made = Batcher(model.encode, **given)
    made.submit(["first"], 5)
    assert model.entered.wait(10)
    return made


def test_callers_who_come_while_the_model_works_share_its_next_pass(model):
    batcher = held(model)
    futures = [batcher.submit(["a" * n, "b" * (n + 10)], 4) for n in range(1, 6)]
    model.may_go.set()
    for n, future in enumerate(futures, start=1):
        assert future.result(10).tolist() == [[n], [n + 10]]
    assert len(model.calls) == 2
    assert len(model.calls[1]) == 10


def test_concurrent_threads_share_passes_and_each_gets_its_own_vectors(model):
    batcher = held(model)
    found: dict[int, list] = {}

    def ask(n):
        found[n] = batcher.submit(["x" * n], n).result(10).tolist()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 41)]
    for thread in threads:
        thread.start()
    while len(batcher._queue) < 40:
        time.sleep(0.001)
    model.may_go.set()
    for thread in threads:
        thread.join()
    assert found == {n: [[n]] for n in range(1, 41)}
    assert len(model.calls) == 2, "forty callers cost one pass, after the one that was under way"


def test_a_pass_holds_no_more_tokens_than_it_should_and_keeps_the_order(model):
    batcher = held(model, tokens_at_once=10)
    futures = [batcher.submit([name], 4) for name in "abcde"]
    model.may_go.set()
    for future in futures:
        future.result(10)
    assert model.calls[1:] == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(("text", "kind"), [("poison", WeightsBroken), ("fault", ValueError)])
def test_one_callers_error_does_not_reach_another(model, text, kind):
    batcher = held(model)
    before, wrong, after = batcher.submit(["a"], 1), batcher.submit([text], 1), batcher.submit(["bb"], 1)
    model.may_go.set()
    assert before.result(10).tolist() == [[1]]
    assert after.result(10).tolist() == [[2]]
    with pytest.raises(kind):
        wrong.result(10)
    assert batcher.submit(["ccc"], 1).result(10).tolist() == [[3]], "the thread lives on"


@pytest.mark.parametrize("text", ["away", "down"])
def test_an_engine_that_is_away_is_asked_once_for_all_who_wait(model, text):
    batcher = held(model)
    futures = [batcher.submit([one], 1) for one in ("a", text, "b")]
    model.may_go.set()
    for future in futures:
        with pytest.raises(Unavailable):
            future.result(10)
    assert len(model.calls) == 2


def test_when_as_much_waits_as_may_wait_the_next_caller_is_refused_and_told_when_to_come_again(model):
    batcher = held(model, tokens_waiting=100)
    futures = [batcher.submit(["a"], 60), batcher.submit(["b"], 40)]
    with pytest.raises(Busy) as refusal:
        batcher.submit(["c"], 1)
    assert refusal.value.status == 429
    assert 1 <= refusal.value.details["retry_after_seconds"] <= 60
    model.may_go.set()
    for future in futures:
        future.result(10)
    assert batcher.submit(["c"], 1).result(10).tolist() == [[1]]


def test_how_long_to_wait_follows_from_what_waits_and_how_fast_the_model_was(model):
    batcher = held(model, tokens_waiting=20_000)
    batcher.submit(["a"], 20_000)
    batcher._rate = 500.0
    with pytest.raises(Busy) as refusal:
        batcher.submit(["c"], 1)
    assert refusal.value.details["retry_after_seconds"] == 40
    model.may_go.set()


def test_a_caller_with_more_than_may_wait_is_taken_when_nobody_waits(model):
    assert Batcher(model.encode, tokens_waiting=10).submit(["a"], 1_000).result(10).tolist() == [[1]]


def test_a_caller_who_has_left_costs_nothing(model):
    batcher = held(model)
    left, stays = batcher.submit(["gone"], 1), batcher.submit(["a"], 1)
    assert left.cancel()
    model.may_go.set()
    assert stays.result(10).tolist() == [[1]]
    assert model.calls[1:] == [["a"]]


def test_all_callers_having_left_the_thread_goes_on(model):
    batcher = held(model)
    assert batcher.submit(["gone"], 1).cancel()
    model.may_go.set()
    assert batcher.submit(["a"], 1).result(10).tolist() == [[1]]


def test_the_thread_ends_when_nobody_comes_and_another_begins_when_somebody_does(model, monkeypatch):
    monkeypatch.setattr(batching, "_IDLE_SECONDS", 0.05)
    batcher = Batcher(model.encode)
    assert batcher.submit(["a"], 1).result(10).tolist() == [[1]]
    deadline = time.monotonic() + 10
    while batcher._is_running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not batcher._is_running
    assert batcher.submit(["bb"], 1).result(10).tolist() == [[2]]
