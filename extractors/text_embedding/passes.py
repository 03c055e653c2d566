"""The passes over activations around products of 8-bit numbers: into whole numbers, and out of them again.

A product of 8-bit numbers is so fast that what stands around it, ten simple operations one after the other, would take
twice its time: each of them reads and writes megabytes. Here numba compiles them to two passes that stay within a row.
Where it cannot run on the threads that torch uses (see `is_compiled`), torch does the same operation by operation.

Shapes: T rows, M numbers in each. A row does not depend on the other rows.
"""

import importlib
from functools import lru_cache
from types import ModuleType
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST: Final = 127.0
_STEPS: Final = 255.0
_HALF: Final = 128.0
_TINY: Final = 1e-20  # a row of zeros has a scale, too


Floats: TypeAlias = npt.NDArray[np.float32]


class Whole(NamedTuple):
    """Rows as whole numbers: a row is about ``numbers * scale + offset``.

    Attributes:
        numbers: int8[T, M].
        scale: float32[T].
        offset: float32[T].
    """

    numbers: Tensor
    scale: Floats
    offset: Floats


@lru_cache(maxsize=1)
def is_compiled() -> bool:
    """Say whether the compiled passes can be used: on OpenMP's threads, of which torch has a pool, too.

    Numba's other pool would wait for a core while torch's threads spin, and ends the process when two threads use it.
    """
    try:
        importlib.import_module("numba.np.ufunc.omppool")  # not to be had without libgomp
    except ImportError:
        return False
    return True


def whole(rows: Tensor) -> Whole:
    """Return float32[T, M] as whole numbers, each row with a scale and an offset of its own."""
    if is_compiled():
        numbers, scale, offset = _empty(rows.shape)
        _compiled().to_whole(rows.contiguous().numpy(), numbers, scale, offset)
        return Whole(torch.from_numpy(numbers), scale, offset)
    lowest = rows.amin(dim=1, keepdim=True)
    step = rows.amax(dim=1, keepdim=True).sub_(lowest).clamp_min_(_TINY).div_(_STEPS)
    shrink = step.reciprocal()
    made = (rows * shrink).sub_(lowest * shrink + _HALF).round_().to(torch.int8)
    return Whole(made, step[:, 0].numpy(), (lowest + _HALF * step)[:, 0].numpy())


def finish(product: Tensor, rows: Whole, sums: Floats, bias: Floats) -> Tensor:
    """Turn the product of whole numbers into that of the rows, in place, and return it.

    Args:
        product: float32[T, N], rows.numbers @ weight.T.
        rows: with T rows.
        sums: float32[N], the sums over the weight's columns.
        bias: float32[N].
    """
    if is_compiled():
        _compiled().finish(product.numpy(), rows.scale, rows.offset, sums, bias)
        return product
    scale, offset, *others = (torch.from_numpy(one) for one in (rows.scale, rows.offset, sums, bias))
    torch.addcmul(others[1], product, scale[:, None], out=product)
    return product.addcmul_(offset[:, None], others[0])


def finish_for_next(product: Tensor, rows: Whole, sums: Floats, bias: Floats) -> Whole:
    """Finish a product, apply the exact GELU, and return what the next product takes. ``product`` is used up."""
    if not is_compiled():
        return whole(torch.ops.aten.gelu_(finish(product, rows, sums, bias)))
    numbers, scale, offset = _empty(product.shape)
    _compiled().finish_for_next(product.numpy(), rows.scale, rows.offset, sums, bias, numbers, scale, offset)
    return Whole(torch.from_numpy(numbers), scale, offset)


def _empty(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.int8], Floats, Floats]:
    return np.empty(shape, np.int8), np.empty(shape[0], np.float32), np.empty(shape[0], np.float32)


def _compiled() -> ModuleType:
    from extractors.text_embedding import compiled_passes  # noqa: PLC0415 - numba takes a second to load

    compiled_passes.use_threads(torch.get_num_threads())
    return compiled_passes
