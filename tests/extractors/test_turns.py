"""Queries overtake documents, and documents are not stopped for good."""

import threading
import time

import pytest

from extractors.text_embedding import turns
from extractors.text_embedding.turns import Turns


def started(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_an_urgent_one_goes_before_a_long_one_is_finished():
    both, seen, begun = Turns(), [], threading.Event()

    def document():
        with both.taken(urgent=False):
            for step in range(20):
                seen.append(step)
                begun.set()
                time.sleep(0.01)
                both.pause()

    long = started(document)
    begun.wait(5)
    with both.taken(urgent=True):
        seen.append("query")
    long.join(5)
    assert seen.index("query") < 19
    assert [one for one in seen if one != "query"] == list(range(20))


def test_only_one_computes_at_a_time():
    both, inside, most = Turns(), [], []

    def work(urgent: bool):
        for _ in range(20):
            with both.taken(urgent=urgent):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()
                if not urgent:
                    both.pause()

    threads = [started(lambda urgent=urgent: work(urgent)) for urgent in (True, False, True, False)]
    for thread in threads:
        thread.join(10)
    assert len(most) == 80
    assert max(most) == 1


def test_nobody_is_let_before_when_nobody_waits():
    both = Turns()
    with both.taken(urgent=False):
        both.pause()
    with both.taken(urgent=True):
        pass


def test_documents_get_on_although_queries_never_end(monkeypatch):
    monkeypatch.setattr(turns, "_PATIENCE_SECONDS", 0.05)
    both, stop, steps = Turns(), threading.Event(), []

    def queries():
        while not stop.is_set():
            with both.taken(urgent=True):
                time.sleep(0.002)

    asking = [started(queries) for _ in range(3)]
    with both.taken(urgent=False):
        for step in range(5):
            steps.append(step)
            both.pause()
    stop.set()
    for thread in asking:
        thread.join(5)
    assert steps == list(range(5))


def test_a_turn_is_given_back_when_its_work_fails():
    both = Turns()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), both.taken(urgent=False):
            1 / 0  # noqa: B018
    with both.taken(urgent=True):
        pass
