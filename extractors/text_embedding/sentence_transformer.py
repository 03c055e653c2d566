"""Other sentence-transformers models (MiniLM, multilingual E5), run by transformers from a local folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from domain.errors import WeightsBroken
from extractors.text_embedding.weights import read_config

# Architectures whose vector is the mean over the last layer's tokens, and which transformers runs as published.
_UNDERSTOOD = frozenset({"bert", "xlm-roberta", "roberta", "mpnet"})


class SentenceTransformer:
    """An encoder with mean pooling: token ids in, unit vectors out."""

    def __init__(self, model_id: str, folder: Path, device: str = "cpu") -> None:
        config = read_config(model_id, folder)
        if config.get("model_type") not in _UNDERSTOOD:
            # Above all nomic_bert: transformers would load it, drop every expert, and say nothing.
            problem = (
                f"{folder} is of type {config.get('model_type')!r}; this door takes {', '.join(sorted(_UNDERSTOOD))}."
            )
            raise WeightsBroken(model_id, problem)
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(logging.ERROR)
        try:
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise WeightsBroken(model_id, f"{folder} cannot be loaded: {str(error).splitlines()[0][:300]}") from error
        self._model = model.eval().to(device)
        self._pad = int(config.get("pad_token_id") or 0)
        self._device = device

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Return float32[B, D], unit length, for the token ids of B texts."""
        longest = max(len(ids) for ids in batch)
        tokens = torch.tensor([[*ids, *[self._pad] * (longest - len(ids))] for ids in batch], device=self._device)
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch], device=self._device)
        hidden = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)
