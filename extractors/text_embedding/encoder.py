"""The encoder: texts in, vectors out; one per model and process, working on one batch at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor

from domain.errors import WeightsBroken
from extractors.contract import Vectors
from extractors.text_embedding.models import Model
from extractors.text_embedding.tokens import TextTokenizer

# Padded tokens of one forward pass: enough to keep the cores busy, few enough to stay in cache and to
# report progress every few seconds.
_TOKENS_AT_ONCE: Final = 2_048


class Network(Protocol):
    """A model that turns token ids into unit vectors."""

    def embed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Return float32[B, D] for the token ids of B texts; a row does not depend on the other rows."""


class Encoder:
    """Tokenizer and network of one model.

    Raises:
        WeightsBroken: the files in ``folder`` are not those of the model.
    """

    def __init__(self, model: Model, folder: Path, device: str) -> None:
        self.tokenizer = TextTokenizer(folder, model.model_id)
        self._network = _network(model, folder, device)
        self._model = model
        self._turn = threading.Lock()

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Vectors:
        """Return float32[n, D], unit length, in the order of the texts; prefixes are already in them.

        Texts of like length share a batch, so little is padded; a text's vector does not depend on its company.

        Args:
            texts: none longer than the model reads.
            progress: called with the number of texts finished so far.

        Raises:
            WeightsBroken: the network gives other vectors than the model is known for.
        """
        ids = self.tokenizer.encode(texts)
        vectors = np.empty((len(ids), self._model.width), dtype=np.float32)
        finished = 0
        for batch in _batches([len(one) for one in ids]):
            with self._turn:
                embedded = self._network.embed([ids[index] for index in batch]).to("cpu", torch.float32).numpy()
            if embedded.shape != (len(batch), self._model.width) or not np.isfinite(embedded).all():
                problem = f"they give vectors of shape {list(embedded.shape)} or with values that are no numbers."
                raise WeightsBroken(self._model.model_id, problem)
            vectors[batch] = embedded
            finished += len(batch)
            if progress is not None:
                progress(finished)
        return vectors


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the positions of texts that go through the network together: shortest first, like with like."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _network(model: Model, folder: Path, device: str) -> Network:
    if model.network is not None:
        return model.network(model.model_id, folder, device)
    if model.family == "nomic_moe":
        from extractors.text_embedding.nomic_moe import NomicMoe  # noqa: PLC0415 - one family loads, not both

        return NomicMoe(model.model_id, folder, device)
    from extractors.text_embedding.hf_encoder import HfEncoder  # noqa: PLC0415 - transformers takes seconds to load

    return HfEncoder(model.model_id, folder, device)
