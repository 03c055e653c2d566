"""Other sentence-transformers models (MiniLM, multilingual E5), run by transformers from a local folder."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from domain.errors import WeightsBroken
from extractors.text_embedding.linear import prepare
from extractors.text_embedding.models import Precision
from extractors.text_embedding.weights import READABLE, WEIGHTS, read_config, read_header

# Architectures whose vector is the mean over the last layer's tokens, and which transformers runs as published.
_UNDERSTOOD: Final = frozenset({"bert", "xlm-roberta", "roberta", "mpnet"})
# Not on the way from tokens to the mean, so a checkpoint may lack them.
_UNUSED: Final = ("pooler.", "embeddings.position_ids")
_MOST_NAMED: Final = 10


class HfEncoder:
    """An encoder with mean pooling: token ids in, unit vectors out.

    Raises:
        WeightsBroken: the folder holds another architecture, or its tensors are not those its config demands.
    """

    def __init__(self, model_id: str, folder: Path, device: str = "cpu", precision: Precision = "fp32") -> None:
        config = read_config(model_id, folder)
        kind = config.get("model_type")
        if kind not in _UNDERSTOOD:
            # Above all nomic_bert: transformers would load it, drop every expert, and say nothing.
            problem = f"{folder} is of type {kind!r}; this loader takes {', '.join(sorted(_UNDERSTOOD))} only."
            raise WeightsBroken(model_id, problem)
        for name, (dtype, _) in read_header(model_id, folder / WEIGHTS).items():
            if dtype not in READABLE and not name.endswith("position_ids"):
                raise WeightsBroken(model_id, f"{name} is {dtype}, not F32, F16 or BF16.")
        self._model = _load(model_id, folder).eval().to(device)
        if precision == "int8":
            _quantise(self._model)
        self._pause: Callable[[], None] = lambda: None
        for layer in _layers(self._model):
            layer.register_forward_hook(lambda *_: self._pause())
        self._pad = int(config.get("pad_token_id") or 0)
        self._device = device
        self.is_padding = True
        self.tokens_at_once = 1_024

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]], pause: Callable[[], None] = lambda: None) -> Tensor:
        """Return float32[B, D], unit length: the mean over each text's tokens, specials included.

        Args:
            batch: token ids of each of B texts, without padding.
            pause: called after every layer; not from two threads at a time.
        """
        self._pause = pause
        longest = max(len(ids) for ids in batch)
        tokens = torch.tensor([[*ids, *[self._pad] * (longest - len(ids))] for ids in batch], device=self._device)
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch], device=self._device)
        hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


class _Quantised(nn.Module):
    """A linear layer whose product is one of 8-bit numbers."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        bias = None if layer.bias is None else layer.bias.detach()
        self._product = prepare(layer.weight.detach(), bias, "int8")

    def forward(self, hidden: Tensor) -> Tensor:
        """Return float32[…, N] for float32[…, M]."""
        return self._product(hidden.flatten(0, -2)).view(*hidden.shape[:-1], -1)


@torch.inference_mode()
def _quantise(model: nn.Module) -> None:
    """Put products of 8-bit numbers in the places of all linear layers."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, _Quantised(child))


def _layers(model: Any) -> Iterator[nn.Module]:
    """Yield the layers of the stack, whatever this architecture calls it."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            yield from module


def _load(model_id: str, folder: Path) -> Any:
    """Return the model in float32, every tensor of it from the checkpoint."""
    with _quiet():
        try:
            model, report = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are in the report, by name
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:300]
            raise WeightsBroken(model_id, f"{folder} cannot be loaded: {reason}") from error
    # What a checkpoint lacks, transformers makes up at random, and only logs it.
    problems = [f"missing {name}" for name in sorted(report["missing_keys"]) if not name.startswith(_UNUSED)]
    problems += [f"{one[0]} has another shape" for one in sorted(report["mismatched_keys"])]
    problems += [f"unexpected {name}" for name in sorted(report["unexpected_keys"]) if not name.startswith(_UNUSED)]
    if problems:
        rest = f" … and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        shown = "; ".join(problems[:_MOST_NAMED])
        raise WeightsBroken(model_id, f"the checkpoint does not fit its config.json: {shown}{rest}.")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the console while it loads."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
