"""Shorter vectors out of long ones: cut first, then normalised."""

import numpy as np

from extractors.contract import Vectors

_TINY = np.float32(1e-12)


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """Return float32[n, dimensions] of unit length from float32[n, width].

    Any number of dimensions from 1 to the width can be had; how few still rank well is the model's own affair.
    """
    cut = np.asarray(vectors, dtype=np.float32)[:, :dimensions]
    length = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.ascontiguousarray(cut / np.maximum(length, _TINY), dtype=np.float32)
