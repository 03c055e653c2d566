"""The encoder whose network runs elsewhere: what a server answers is believed only after it has been checked."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from domain.errors import EmbeddingsServerWrong
from extractors.contract import EmbeddingsServer, Vectors
from extractors.text_embedding.models import Model
from extractors.text_embedding.tokens import TextTokenizer

# What servers take at once unless they are told otherwise, and what a slow one finishes within the time-out.
_TEXTS_AT_ONCE: Final = 32
_TOKENS_AT_ONCE: Final = 8_192


class RemoteEncoder:
    """A model behind a server, with the same rules as one in this process."""

    def __init__(self, model: Model, server: EmbeddingsServer, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._server = server

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None, *, urgent: bool = False
    ) -> Vectors:
        """Return float32[n, width], unit length, in order. Nothing is returned unless all of it is right.

        Raises:
            EmbeddingsServerAway: the server does not answer.
            EmbeddingsServerWrong: it answers vectors of another width or number, or with values that are no numbers.
        """
        vectors = np.empty((len(texts), self._model.width), dtype=np.float32)
        for start, end in _requests(self.tokenizer.count(texts)):
            given = self._server.embed(self._model.model_id, texts[start:end], urgent=urgent)
            vectors[start:end] = self._checked(given, end - start)
            if progress is not None:
                progress(end)
        return vectors

    def _checked(self, given: Vectors, wanted: int) -> Vectors:
        width = self._model.width
        if given.shape != (wanted, width):
            problem = f"it answered vectors of shape {list(given.shape)}, not [{wanted}, {width}]."
            raise EmbeddingsServerWrong(self._model.model_id, problem)
        length = np.linalg.norm(given.astype(np.float64), axis=1, keepdims=True)
        if not np.isfinite(length).all() or not (length > 0).all():
            problem = "it answered vectors with values that are no numbers, or that are all zero."
            raise EmbeddingsServerWrong(self._model.model_id, problem)
        unit: Vectors = (given / length).astype(np.float32)
        return unit


def _requests(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield start and end of the texts that are sent together."""
    start = tokens = 0
    for index, length in enumerate(lengths):
        if index > start and (index - start == _TEXTS_AT_ONCE or tokens + length > _TOKENS_AT_ONCE):
            yield start, index
            start, tokens = index, 0
        tokens += length
    if start < len(lengths):
        yield start, len(lengths)
