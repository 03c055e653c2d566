"""Products of activations with fixed weights: `rows @ weight.T + bias`, in the form that is fastest where we are.

All forms keep one promise: a row of the result does not depend on the other rows, so that a text has the same
vector in any company.
"""

import platform
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from extractors.text_embedding import passes
from extractors.text_embedding.models import Precision
from extractors.text_embedding.passes import Whole

# Rows come in multiples of this: kernels like it, one is made for every number of rows that is met (a millisecond
# or two), and no number is so small that another kind of kernel would be chosen.
TILE: Final = 4

# How many rows the layout of weights is chosen for. Any number may come; measured, the choice makes no difference.
_USUAL_ROWS: Final = 256
# How many rows a plain product takes at once: see `multiply`.
_FEWEST_ROWS: Final = 16
_MOST_ROWS: Final = 256
# Rows that a feed-forward part takes at once in float32: what lies between its products then stays in the cache.
_ROWS_IN_CACHE: Final = 512
_TINY: Final = 1e-20  # a row of zeros has a scale, too


class Linear(Protocol):
    """A product with weights that are fixed."""

    def __call__(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """Return float32[T, N] for float32[T, M], with the exact GELU if asked."""


def prepare(weight: Tensor, bias: Tensor | None, precision: Precision) -> Linear:
    """Bring weights into the form in which they are used.

    Args:
        weight: float32[N, M]; it is not needed afterwards on a CPU.
        bias: float32[N], or None.
        precision: of the product; int8 is for CPUs.
    """
    if weight.device.type != "cpu" or not _has_onednn():
        return Plain(weight.contiguous(), bias)
    return Int8(weight, bias) if precision == "int8" else Exact(weight, bias)


def has_int8(device: str) -> bool:
    """Return whether products of 8-bit numbers can be had on a device."""
    return device == "cpu" and _has_onednn()


def _has_onednn() -> bool:
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_library and platform.machine() in {"x86_64", "AMD64"}


class Exact:
    """float32 through oneDNN, with the weight laid out beforehand and the GELU inside the product.

    Its kernels add up in the same order however many rows there are, as long as there are several (tests/model).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # PyTorch's own compiler calls these two operators under these names; there is no public way to them.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _USUAL_ROWS)  # noqa: SLF001
        self._bias = bias

    def __call__(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """Return float32[T, N]."""
        filled = in_tiles(rows)
        after = "gelu" if gelu else "none"
        multiply_packed = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        product: Tensor = multiply_packed(filled, self._weight, self._bias, after, [], "none")
        return product[: len(rows)]


class Int8:
    """Whole numbers of 8 bits: a fixed scale per row of the weight; scale and offset per row of activations, anew.

    Found for each token, they need no calibration, keep tokens with large values from blurring others, and make the
    result independent of the batch. The offset is worth it: activations lean to one side (after a GELU they are hardly
    ever negative), and without it the other side's half of the 256 numbers is wasted. Measured on MiniLM, 1 - cosine
    is 0.9e-3 with it and 2.1e-3 without.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._scale = weight.abs().amax(dim=1).clamp_min_(_TINY).div_(passes.LARGEST)
        whole = (weight / self._scale[:, None]).round_().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole.contiguous(), None)
        self._zero = torch.zeros(len(weight), dtype=torch.int32)
        self._sums = (whole.sum(dim=1, dtype=torch.int32) * self._scale).numpy()
        self._bias = (torch.zeros(len(weight)) if bias is None else bias).numpy()

    def __call__(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """Return float32[T, N]."""
        product = self.of_whole(passes.whole(in_tiles(rows)))
        return (torch.ops.aten.gelu_(product) if gelu else product)[: len(rows)]

    def of_whole(self, rows: Whole) -> Tensor:
        """Return float32[T, N]; T is a multiple of the tile."""
        return passes.finish(self._multiply(rows), rows, self._sums, self._bias)

    def for_next(self, rows: Whole) -> Whole:
        """Return the GELU of the product, T rows of N numbers, as another product takes it."""
        return passes.finish_for_next(self._multiply(rows), rows, self._sums, self._bias)

    def _multiply(self, rows: Whole) -> Tensor:
        """Return float32[T, N], the product of the whole numbers alone, scaled by row of the weight."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows.numbers, 1.0, 0, self._weight, self._scale, self._zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product


class Plain:
    """float32 as torch does it, on any device."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: Tensor, *, gelu: bool = False) -> Tensor:
        """Return float32[T, N]."""
        product = multiply(rows, self._weight, self._bias)
        return F.gelu(product) if gelu else product


def feed_forward(first: Linear, second: Linear, rows: Tensor) -> Tensor:
    """Return float32[T, N], the second product of the exact GELU (erf, not tanh) of the first."""
    if isinstance(first, Int8) and isinstance(second, Int8):
        return second.of_whole(first.for_next(passes.whole(in_tiles(rows))))[: len(rows)]
    return torch.cat([second(first(some, gelu=True)) for some in torch.split(rows, _ROWS_IN_CACHE)])


def in_tiles(rows: Tensor) -> Tensor:
    """Return rows, float32[T, M], with as many rows of zeros behind them as make T a multiple of the tile."""
    lacking = -len(rows) % TILE
    return F.pad(rows, (0, 0, 0, lacking)) if lacking else rows


def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return float32[T, N], ``rows @ weight.T + bias``, each row the same whatever the other rows are.

    Libraries choose a kernel by the number of rows, and another kernel adds up in another order: twelve layers
    make 1e-5 of that. Between 16 and 256 rows, measured on MKL, it is always the same one. So more rows are taken
    in turns, and fewer are filled up.

    Args:
        rows: float32[T, M].
        weight: float32[N, M].
        bias: float32[N].
    """
    if rows.device.type != "cpu":
        return F.linear(rows, weight, bias)
    out = rows.new_empty(len(rows), len(weight))
    for start in range(0, len(rows), _MOST_ROWS):
        some = rows[start : start + _MOST_ROWS]
        filled = F.pad(some, (0, 0, 0, _FEWEST_ROWS - len(some))) if len(some) < _FEWEST_ROWS else some
        out[start : start + _MOST_ROWS] = F.linear(filled, weight, bias)[: len(some)]
    return out
