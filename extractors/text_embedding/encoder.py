"""The encoder: texts in, vectors out; one per model, precision and process, working on one batch at a time."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
import torch
from torch import Tensor

from domain.errors import WeightsBroken
from extractors.contract import Vectors
from extractors.text_embedding import calibration, linear
from extractors.text_embedding.calibration import Loss
from extractors.text_embedding.models import Model, Precision
from extractors.text_embedding.tokens import TextTokenizer
from extractors.text_embedding.turns import Turns

log = structlog.get_logger(__name__)


class Network(Protocol):
    """A model that turns token ids into unit vectors.

    Attributes:
        tokens_at_once: of one batch, at most. Enough to keep the cores busy and each expert's product large, few enough
            that a layer of it takes no longer than about a tenth of a second, after which queries can overtake.
        is_padding: whether a short text costs as much as the longest of its batch.
    """

    tokens_at_once: int
    is_padding: bool

    def embed(self, batch: Sequence[Sequence[int]], pause: Callable[[], None] = ...) -> Tensor:
        """Return float32[B, D] for the token ids of B texts; a row does not depend on the other rows.

        ``pause`` is called between steps of a fraction of a second: others have their turn there.
        """


class Encoder:
    """Tokenizer and network of one model.

    Attributes:
        loss: what int8 costs, measured when it was loaded; None for fp32.

    Raises:
        WeightsBroken: the files in ``folder`` are not those of the model, or int8 would lose too much of it.
    """

    def __init__(self, model: Model, folder: Path, device: str, precision: Precision = "fp32") -> None:
        self.tokenizer = TextTokenizer(folder, model.model_id)
        self._model = model
        self._turns = Turns()
        if precision == "int8" and not linear.has_int8(device):
            problem = f"int8 is computed on x86-64 CPUs here, and this machine is set to {device}; use fp32."
            raise WeightsBroken(model.model_id, problem)
        exact = self._calibrate(_network(model, folder, device, "fp32", passing=True)) if precision == "int8" else None
        self._network = _network(model, folder, device, precision)
        self.loss = None if exact is None else self._measured(exact)
        _give_memory_back()

    def encode(
        self, texts: Sequence[str], progress: Callable[[int], None] | None = None, *, urgent: bool = False
    ) -> Vectors:
        """Return float32[n, D], unit length, in the order of the texts; prefixes are already in them.

        Texts of like length share a batch; a text's vector does not depend on its company.

        Args:
            texts: none longer than the model reads.
            progress: called with the number of texts finished so far.
            urgent: somebody waits for it: it overtakes what is not urgent, also in the middle of a batch.

        Raises:
            WeightsBroken: the network gives other vectors than the model is known for.
        """
        ids = self.tokenizer.encode(texts)
        vectors = np.empty((len(ids), self._model.width), dtype=np.float32)
        finished = 0
        for batch in batches([len(one) for one in ids], self._network):
            with self._turns.taken(urgent=urgent):
                embedded = self._network.embed([ids[index] for index in batch], _go_on if urgent else self._turns.pause)
            made = embedded.to("cpu", torch.float32).numpy()
            if made.shape != (len(batch), self._model.width) or not np.isfinite(made).all():
                problem = f"they give vectors of shape {list(made.shape)} or with values that are no numbers."
                raise WeightsBroken(self._model.model_id, problem)
            vectors[batch] = made
            finished += len(batch)
            if progress is not None:
                progress(finished)
        return vectors

    def _calibrate(self, network: Network) -> Vectors:
        """Return float32[n, D] of the calibration texts, all with the model's document prefix."""
        ids = sorted(self.tokenizer.encode([self._model.document_prefix + text for text in calibration.TEXTS]), key=len)
        ids = [one for one in ids if len(one) <= self._model.max_tokens]
        vectors: Vectors = network.embed(ids).to("cpu", torch.float32).numpy()
        return vectors

    def _measured(self, exact: Vectors) -> Loss:
        """Return what int8 loses; warn, or raise WeightsBroken, where that is much."""
        loss = calibration.compare(exact, self._calibrate(self._network))
        if loss.is_too_much:
            problem = f"int8 loses too much of it here ({loss}); use fp32."
            raise WeightsBroken(self._model.model_id, problem)
        if loss.is_much:
            log.warning("int8_loses_much", model_id=self._model.model_id, loss=str(loss))
        return loss


def _give_memory_back() -> None:
    """Return to the system what loading has freed (half a gigabyte), where the C library can be told to."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _go_on() -> None:
    """Let nobody else go first."""


def batches(lengths: Sequence[int], network: Network) -> Iterator[list[int]]:
    """Yield the positions of texts that go through the network together: shortest first, like with like."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens = (len(batch) + 1) * lengths[index] if network.is_padding else tokens + lengths[index]
        if batch and tokens > network.tokens_at_once:
            yield batch
            batch = []
            tokens = lengths[index]
        batch.append(index)
    if batch:
        yield batch


def _network(model: Model, folder: Path, device: str, precision: Precision, *, passing: bool = False) -> Network:
    """Make the network of a model; a passing one is used once, and may build each layer when it is its turn."""
    if model.network is not None:
        return model.network(model.model_id, folder, device)
    if model.family == "nomic_moe":
        from extractors.text_embedding.nomic_moe import NomicMoe  # noqa: PLC0415 - one family loads, not both

        return NomicMoe(model.model_id, folder, device, precision, passing=passing)
    from extractors.text_embedding.hf_encoder import HfEncoder  # noqa: PLC0415 - transformers takes seconds to load

    return HfEncoder(model.model_id, folder, device, precision)
