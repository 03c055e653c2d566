"""What `passes` does, compiled by numba when it is first used (a second or two), on OpenMP's threads.

All loops over a row are of the kind that compilers turn into vector instructions: no sums of floats, whose order would
matter, and no comparison of floats, which they leave alone because of NaN.
"""

from typing import Any, Final

import numba
import numpy as np

numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]

_f32: Final = np.float32
_i32: Final = np.int32
_MOST: Final = _i32(0x7FFFFFFF)
_ROOT_OF_HALF: Final = _f32(0.5**0.5)
_compiled: Final = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy", inline="always")
_parallel: Final = numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy", parallel=True)


def use_threads(number: int) -> None:
    """Work on as many threads as torch does, if there are so many. Every thread of Python has its own setting."""
    wanted = min(number, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)


@_parallel
def to_whole(rows: Any, numbers: Any, scale: Any, offset: Any) -> None:
    """Turn float32[T, M] into int8[T, M] with a scale and an offset for each row."""
    bits = rows.view(np.int32)
    for row in numba.prange(rows.shape[0]):
        scale[row], offset[row] = _to_whole(rows[row], bits[row], numbers[row])


@_parallel
def finish(product: Any, scale: Any, offset: Any, sums: Any, bias: Any) -> None:
    """Scale float32[T, N] by row, and add offset and bias; in place."""
    for row in numba.prange(product.shape[0]):
        values, by, add = product[row], scale[row], offset[row]
        for k in range(values.shape[0]):
            values[k] = values[k] * by + (add * sums[k] + bias[k])


@_parallel
def finish_for_next(
    product: Any, scale: Any, offset: Any, sums: Any, bias: Any, numbers: Any, next_scale: Any, next_offset: Any
) -> None:
    """Do `finish`, then GELU, then `to_whole`, row by row; what is left in ``product`` means nothing."""
    bits = product.view(np.int32)
    for row in numba.prange(product.shape[0]):
        values, by, add = product[row], scale[row], offset[row]
        for k in range(values.shape[0]):
            values[k] = _gelu(values[k] * by + (add * sums[k] + bias[k]))
        next_scale[row], next_offset[row] = _to_whole(values, bits[row], numbers[row])


@_compiled
def _to_whole(values: Any, bits: Any, numbers: Any) -> tuple[Any, Any]:
    """Write a row's whole numbers; return its scale and offset. ``bits`` are its floats, looked at as int32."""
    low, high = _MOST, -_MOST - _i32(1)
    for k in range(bits.shape[0]):
        # With the bits of negative floats turned over, floats have the order of whole numbers.
        ordered = bits[k] ^ ((bits[k] >> _i32(31)) & _MOST)
        low, high = min(low, ordered), max(high, ordered)
    ends = np.empty(2, np.int32)
    ends[0], ends[1] = low ^ ((low >> _i32(31)) & _MOST), high ^ ((high >> _i32(31)) & _MOST)
    lowest, highest = ends.view(np.float32)
    scale = max((highest - lowest) * _f32(1 / 255), _f32(1e-20))
    shrink = _f32(1) / scale
    shift = _f32(-127.5) - lowest * shrink
    for k in range(values.shape[0]):
        numbers[k] = np.int8(_i32(np.floor(values[k] * shrink + shift)))
    return scale, lowest + _f32(128) * scale


@_compiled
def _gelu(value: Any) -> Any:
    """Return x/2 · (1 + erf(x/√2)), erf as the quotient of two polynomials (to 1e-6, as Eigen and XLA have it)."""
    z = value * _ROOT_OF_HALF
    z = min(z, _f32(4))  # where erf is 1 to the last bit
    z = max(z, _f32(-4))
    square = z * z
    above = _f32(-2.72614225801306e-10)
    above = above * square + _f32(2.77068142495902e-08)
    above = above * square + _f32(-2.10102402082508e-06)
    above = above * square + _f32(-5.69250639462346e-05)
    above = above * square + _f32(-7.34990630326855e-04)
    above = above * square + _f32(-2.95459980854025e-03)
    above = above * square + _f32(-1.60960333262415e-02)
    below = _f32(-1.45660718464996e-05)
    below = below * square + _f32(-2.13374055278905e-04)
    below = below * square + _f32(-1.68282697438203e-03)
    below = below * square + _f32(-7.37332916720468e-03)
    below = below * square + _f32(-1.42647390514189e-02)
    return _f32(0.5) * value * (_f32(1) + z * above / below)
