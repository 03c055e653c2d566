"""A stand-in for a model, named as one: deterministic, fast, and just sensible enough to rank by shared words.

Loaded through OPENPEEK_PLUGINS=tests.doubles.standin. Its tokenizer is a real one; its network adds up a fixed
random vector per token, so texts that share words are near each other.
"""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from extractors.text_embedding import models
from extractors.text_embedding.models import Model

MODEL_ID = "openpeek/standin"
WIDTH = 384
MAX_TOKENS = 512


class StandinNetwork:
    """Token ids in, unit vectors out: the same for the same tokens, whatever the batch."""

    tokens_at_once = 2_048
    is_padding = False

    def __init__(self, _model_id: str, _folder: Path, _device: str) -> None:
        self._table = np.random.default_rng(7).standard_normal((8_192, WIDTH)).astype(np.float32)

    def embed(self, batch: Sequence[Sequence[int]], _pause=None):
        import torch

        sums = np.stack([self._table[np.asarray(ids) % 8_192].sum(axis=0) for ids in batch])
        return torch.from_numpy(sums / np.linalg.norm(sums, axis=1, keepdims=True))


def _folder() -> Path:
    from extractors.text_embedding.synthesize import save_tokenizer

    folder = Path(tempfile.mkdtemp(prefix="openpeek-standin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"stand-in")
    return folder


models.register(
    Model(
        model_id=MODEL_ID,
        inference_name="standin_v1",
        family="plugin",
        revision="standin",
        width=WIDTH,
        narrowest=8,
        max_tokens=MAX_TOKENS,
        document_prefix="d: ",
        query_prefix="q: ",
        folder=_folder(),
        network=StandinNetwork,
    )
)
