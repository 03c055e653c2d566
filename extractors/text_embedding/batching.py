"""Micro-batching: the texts of callers who come at the same time go through the model together.

One thread per model collects what waits and calls the model once. How much may wait is bounded: who comes when
that is full is told when to come again, instead of waiting in a queue that grows.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from domain.errors import Busy, Unavailable, WeightsBroken
from extractors.contract import Vectors

TOKENS_AT_ONCE: Final = 8_192
TOKENS_WAITING: Final = 16_384  # at 1,000 tokens a second nobody waits longer than half a minute
_IDLE_SECONDS: Final = 30.0
_LONGEST_RETRY: Final = 60
_ASSUMED_RATE: Final = 1_000.0  # tokens a second, until one has been measured


@dataclass(frozen=True, slots=True)
class _Waiting:
    texts: Sequence[str]
    tokens: int
    vectors: "Future[Vectors]"


class Batcher:
    """Collects callers' texts for one model.

    Args:
        encode: returns float32[n, width] for n texts, in order.
        tokens_at_once: how many tokens of several callers go through the model in one call; a single caller may
            bring more.
        tokens_waiting: how many may wait; a caller who finds nobody waiting is always taken.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], Vectors],
        *,
        tokens_at_once: int = TOKENS_AT_ONCE,
        tokens_waiting: int = TOKENS_WAITING,
    ) -> None:
        self._encode = encode
        self._at_once = tokens_at_once
        self._most = tokens_waiting
        self._queue: deque[_Waiting] = deque()
        self._tokens = 0
        self._rate = _ASSUMED_RATE
        self._changed = threading.Condition()
        self._is_running = False

    def submit(self, texts: Sequence[str], tokens: int) -> "Future[Vectors]":
        """Return what will hold float32[n, width] in the order of the texts, or the error.

        Args:
            texts: one at least.
            tokens: how many the model reads for all of them.

        Raises:
            Busy: too much waits already.
        """
        one = _Waiting(texts, tokens, Future())
        with self._changed:
            if self._queue and self._tokens + tokens > self._most:
                seconds = min(_LONGEST_RETRY, max(1, math.ceil(self._tokens / self._rate)))
                raise Busy(f"{self._tokens:,} tokens are waiting for the model already.", retry_after_seconds=seconds)
            self._queue.append(one)
            self._tokens += tokens
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="embeddings", daemon=True).start()
            self._changed.notify()
        return one.vectors

    def _run(self) -> None:
        """Embed what waits; end when nobody has come for a while."""
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._queue, timeout=_IDLE_SECONDS):
                    self._is_running = False
                    return
                batch = self._take()
            self._embed(batch)

    def _take(self) -> list[_Waiting]:
        """Return those who go through the model together, in the order in which they came."""
        batch: list[_Waiting] = []
        tokens = 0
        while self._queue and (not batch or tokens + self._queue[0].tokens <= self._at_once):
            one = self._queue.popleft()
            self._tokens -= one.tokens
            if one.vectors.set_running_or_notify_cancel():  # otherwise the caller has left
                batch.append(one)
                tokens += one.tokens
        return batch

    def _embed(self, batch: Sequence[_Waiting]) -> None:
        began = time.monotonic()
        try:
            vectors = self._encode([text for one in batch for text in one.texts]) if batch else None
        except BaseException as error:  # noqa: BLE001 - this thread must not die with its callers waiting
            self._tell(batch, error)
            return
        end = 0
        for one in batch:
            assert vectors is not None
            start, end = end, end + len(one.texts)
            one.vectors.set_result(vectors[start:end])
        if batch:
            seconds = max(time.monotonic() - began, 1e-3)
            self._rate = 0.7 * self._rate + 0.3 * sum(one.tokens for one in batch) / seconds

    def _tell(self, batch: Sequence[_Waiting], error: BaseException) -> None:
        """Give the error to the caller whose it is: unless it must be everybody's, each is tried alone."""
        everybodys = isinstance(error, Unavailable) and not isinstance(error, WeightsBroken)
        if len(batch) == 1 or everybodys:
            for one in batch:
                one.vectors.set_exception(error)
            return
        for one in batch:
            self._embed([one])
