"""The encoder: texts in, vectors out; one per model and process, working on one batch at a time."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from extractors.contract import Vectors
from extractors.text_embedding.models import Model
from extractors.text_embedding.nomic_moe import NomicMoe
from extractors.text_embedding.sentence_transformer import SentenceTransformer
from extractors.text_embedding.tokens import TextTokenizer

# Padded tokens of one forward pass: enough to keep the cores busy, small enough to stay in cache.
_TOKENS_AT_ONCE: Final = 4_096


class Network(Protocol):
    """A model that turns token ids into unit vectors."""

    def embed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Return float32[B, D] for B texts."""


class Encoder:
    """Tokenizer and network of one model."""

    def __init__(self, model: Model, folder: Path, device: str) -> None:
        self.tokenizer = TextTokenizer(folder, model.model_id)
        network = NomicMoe if model.family == "nomic_moe" else SentenceTransformer
        self._network: Network = network(model.model_id, folder, device)
        self._turn = threading.Lock()
        self._width = model.width

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Return float32[n, D], unit length, in the order of the texts; prefixes are already in them.

        Texts of like length share a batch, so little is padded; a text's vector does not depend on its company.
        """
        ids = self.tokenizer.encode(texts)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        vectors = np.empty((len(ids), self._width), dtype=np.float32)
        finished = 0
        for batch in _portions(order, [len(one) for one in ids]):
            with self._turn:
                embedded = self._network.embed([ids[index] for index in batch])
            vectors[batch] = embedded.to("cpu", torch.float32).numpy()
            finished += len(batch)
            if progress is not None:
                progress(finished)
        return vectors


def _portions(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    portions: list[list[int]] = []
    current: list[int] = []
    for index in order:
        if current and (len(current) + 1) * lengths[index] > _TOKENS_AT_ONCE:
            portions.append(current)
            current = []
        current.append(index)
    return [*portions, current] if current else portions
