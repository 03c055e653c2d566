"""The passes around products of 8-bit numbers: compiled or by torch, they do what is written down here in NumPy."""

import sys
from math import erf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.text_embedding import passes
from extractors.text_embedding.passes import Whole

_is_compiled = passes.is_compiled


@pytest.fixture(params=["compiled", "torch"], autouse=True, scope="module")
def way(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(passes, "is_compiled", lambda: False)
        elif not passes.is_compiled():
            pytest.skip("numba cannot use OpenMP's threads here")
        yield request.param


def drawn(*shape, seed=1):
    """Return random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def back(rows: Whole):
    scale, offset = (torch.from_numpy(one).double()[:, None] for one in (rows.scale, rows.offset))
    return rows.numbers.double() * scale + offset


@pytest.mark.parametrize("rows", [1, 3, 4, 17, 300])
@pytest.mark.parametrize("width", [1, 7, 64, 768])
def test_a_row_comes_back_to_within_half_a_step(rows, width):
    given_rows = drawn(rows, width) * torch.logspace(-6, 6, rows)[:, None]
    made = passes.whole(given_rows)
    assert made.numbers.dtype == torch.int8
    assert (
        (back(made) - given_rows).abs() <= 0.502 * torch.from_numpy(made.scale)[:, None] + 1e-6 * given_rows.abs()
    ).all()


def test_rows_that_are_constant_negative_or_zero_come_back():
    given_rows = torch.tensor([[0.0] * 8, [-0.0] * 8, [3.5] * 8, [-7.25] * 8, [-3, -2, -1, -4, -5, -6, -7, -8.0]])
    assert (back(passes.whole(given_rows)) - given_rows).abs().max() <= 0.5 * 7 / 255 + 1e-6


def test_a_row_does_not_depend_on_the_others():
    given_rows, product = drawn(40, 96), drawn(40, 64, seed=2)
    sums, bias = drawn(64, seed=3).numpy(), drawn(64, seed=4).numpy()
    together = passes.whole(given_rows)
    after = passes.finish_for_next(product.clone(), together, sums, bias)
    finished = passes.finish(product.clone(), together, sums, bias)
    for row in range(40):
        alone = passes.whole(given_rows[row : row + 1])
        one = slice(row, row + 1)
        assert torch.equal(alone.numbers, together.numbers[one])
        assert np.array_equal(alone.scale, together.scale[one])
        assert torch.equal(passes.finish(product[one].clone(), alone, sums, bias), finished[one])
        again = passes.finish_for_next(product[one].clone(), alone, sums, bias)
        assert torch.equal(again.numbers, after.numbers[one])
        assert np.array_equal(again.offset, after.offset[one])


def test_a_product_is_finished_with_the_scale_the_offset_and_the_bias():
    rows, product = passes.whole(drawn(12, 32)), drawn(12, 20, seed=2)
    sums, bias = drawn(20, seed=3).numpy(), drawn(20, seed=4).numpy()
    wanted = product.double().numpy() * rows.scale[:, None] + rows.offset[:, None] * sums + bias
    assert np.abs(passes.finish(product, rows, sums, bias).numpy() - wanted).max() < 1e-5


def test_what_the_next_product_takes_is_the_exact_gelu():
    rows = Whole(torch.zeros(1, 4, dtype=torch.int8), np.ones(1, np.float32), np.zeros(1, np.float32))
    values = torch.linspace(-9, 9, 4_001)[None]
    zeros = np.zeros(values.shape[1], np.float32)
    made = passes.finish_for_next(values.clone(), rows, zeros, zeros)
    wanted = np.array([x / 2 * (1 + erf(x / 2**0.5)) for x in values[0].double().tolist()])
    assert np.abs(back(made)[0].numpy() - wanted).max() <= 0.502 * made.scale.item() + 2e-6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_does_not_become_one(bad):
    given_rows = drawn(4, 16)
    given_rows[2, 5] = bad
    made = passes.whole(given_rows)
    assert not torch.isfinite(back(made)[2]).all()
    assert torch.isfinite(back(made)[[0, 1, 3]]).all()


def test_rows_that_are_not_laid_out_one_after_the_other_are_read_right():
    wide = drawn(10, 80)
    assert torch.equal(passes.whole(wide[:, 8:40]).numbers, passes.whole(wide[:, 8:40].contiguous()).numbers)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_row_of_numbers_comes_back(values):
    row = torch.tensor([values])
    made = passes.whole(row)
    step = max((max(values) - min(values)) / 255, 1e-20)
    largest = max(map(abs, values))
    assert (back(made) - row).abs().max().item() <= 0.51 * step + 3e-7 * largest * 256


def test_both_ways_give_nearly_the_same_numbers(monkeypatch):
    given_rows = drawn(64, 200)
    here = passes.whole(given_rows)
    monkeypatch.setattr(passes, "is_compiled", lambda: False)
    there = passes.whole(given_rows)
    assert (here.numbers.int() - there.numbers.int()).abs().max() <= 1
    assert np.allclose(here.scale, there.scale, rtol=1e-6)


def test_without_openmp_torch_does_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.omppool", None)
    assert _is_compiled.__wrapped__() is False
