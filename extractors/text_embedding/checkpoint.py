"""Tensors of a safetensors file, each mapped into memory on its own and let go of on its own.

A file that is mapped as a whole stays counted as memory of the process until the last tensor of it is gone; here a
layer that has been brought into another form leaves nothing behind.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from extractors.text_embedding.weights import tensor_places

_NUMPY: Final = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # numpy has no bfloat16: its bits


class Checkpoint:
    """The tensors of one file by name, in float32 on a device; `weights.check_layout` has been over it."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = path
        self._places = tensor_places(path)
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor in float32; one that is kept in float32 is read when its values are."""
        return self.mapped(name).float()

    def mapped(self, name: str) -> Tensor:
        """Return a tensor as it is kept: on a CPU, pages of the file that come into memory when they are read."""
        place = self._places[name]
        pages = np.memmap(self._path, _NUMPY[place.dtype], "c", place.offset, place.shape)
        tensor = torch.from_numpy(pages)
        return (tensor.view(torch.bfloat16) if place.dtype == "BF16" else tensor).to(self._device)
