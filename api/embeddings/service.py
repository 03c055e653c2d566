"""From texts to vectors: which model, with which prefix, and whether it reads all of them whole."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from domain.errors import Invalid
from extractors.contract import ModelHome, Vectors
from extractors.text_embedding.batching import TOKENS_AT_ONCE, Batcher
from extractors.text_embedding.engine import Engine, choose
from extractors.text_embedding.matryoshka import shorten
from extractors.text_embedding.models import Model

_MOST_NAMED: Final = 50


@dataclass(frozen=True, slots=True)
class Prepared:
    """Texts that the model reads whole, ready to be embedded.

    Attributes:
        texts: with the model's prefix.
        tokens: how many the model reads for all of them, prefix and special tokens included.
    """

    engine: Engine
    texts: Sequence[str]
    tokens: int
    dimensions: int

    def shortened(self, vectors: Vectors) -> Vectors:
        """Return float32[n, dimensions], unit length."""
        return shorten(vectors, self.dimensions)


class Batchers:
    """One batcher per model, made with the first text."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Batcher] = {}
        self._lock = threading.Lock()

    def submit(self, prepared: Prepared) -> "Future[Vectors]":
        """Have texts embedded together with those of other callers. Raises Busy."""
        engine = prepared.engine
        with self._lock:
            batcher = self._made.setdefault(
                (engine.model.model_id, engine.precision), Batcher(partial(engine.encode, urgent=True))
            )
        return batcher.submit(prepared.texts, prepared.tokens)


def prepare(
    home: ModelHome, texts: Sequence[str], model: str | None, dimensions: int | None, input_type: str | None
) -> Prepared:
    """Choose the model and count the texts.

    Raises:
        Invalid: the model is unknown, has not so many dimensions, does not read a text whole, or the texts are too
            many for one request.
        WeightsMissing, WeightsBroken: the model cannot be used on this machine.
    """
    engine = Engine(_model(model, home), home)
    chosen = engine.model
    if dimensions is not None and dimensions > chosen.width:
        message = f"{chosen.model_id} makes vectors of up to {chosen.width} dimensions, not {dimensions}."
        raise Invalid(message, location=("body", "dimensions"), code="dimensions_out_of_range")
    prefix = chosen.query_prefix if input_type == "query" else chosen.document_prefix
    prefixed = [prefix + text for text in texts]
    counts = engine.tokenizer().count(prefixed)
    long = [(index, count) for index, count in enumerate(counts) if count > chosen.max_tokens]
    if long:
        index, count = long[0]
        more = f" So are {len(long) - 1} more." if len(long) > 1 else ""
        message = (
            f"Text {index} is too long: it has {count:,} tokens, prefix included, and {chosen.model_id} reads "
            f"{chosen.max_tokens:,}.{more} Split it; nothing is cut off unasked."
        )
        too_long = [{"index": index, "tokens": count, "limit": chosen.max_tokens} for index, count in long]
        raise Invalid(message, location=("body", "input", index), code="text_too_long", too_long=too_long[:_MOST_NAMED])
    tokens = sum(counts)
    if tokens > TOKENS_AT_ONCE:
        message = (
            f"The {len(texts):,} texts have {tokens:,} tokens together; {TOKENS_AT_ONCE:,} are taken in one request. "
            "Send fewer texts at a time."
        )
        raise Invalid(message, location=("body", "input"), code="too_many_tokens", tokens=tokens, limit=TOKENS_AT_ONCE)
    return Prepared(engine, prefixed, tokens, dimensions or chosen.width)


def _model(name: str | None, home: ModelHome) -> Model:
    try:
        return choose(name, home)
    except Invalid as error:
        raise Invalid(error.message, location=("body", "model"), code=error.code) from error
