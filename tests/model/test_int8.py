"""int8: near the exact vectors, the same in any company, and honest about what it costs."""

import ast
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from domain.errors import WeightsBroken
from extractors.contract import ModelHome
from extractors.registry import configure
from extractors.text_embedding import calibration, encoder, linear, models
from extractors.text_embedding.calibration import Loss
from extractors.text_embedding.encoder import Encoder
from extractors.text_embedding.models import NOMIC
from extractors.text_embedding.nomic_moe import NomicMoe
from extractors.text_embedding.synthesize import synthesize

pytestmark = pytest.mark.skipif(not linear.has_int8("cpu"), reason="int8 is for x86-64")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A checkpoint drawn as before training: one drawn wide turns any rounding into another expert."""
    return synthesize(tmp_path_factory.mktemp("calm"), seed=6, layers=4, width=256, inner=512, deviation=0.02)


@pytest.fixture(scope="module")
def model():
    return replace(NOMIC, model_id="tests/calm", width=256)


def texts(*lengths: int) -> list[list[int]]:
    drawn = np.random.default_rng(1).integers(4, 300, size=(len(lengths), max(lengths)))
    return [[0, *map(int, row[:length]), 2] for row, length in zip(drawn, lengths, strict=True)]


def test_vectors_in_int8_are_near_the_exact_ones(calm):
    batch = texts(3, 9, 40, 100, 200)
    exact, other = (NomicMoe("tests/calm", calm, precision=one).embed(batch) for one in ("fp32", "int8"))
    apart = 1 - (exact * other).sum(dim=1)
    assert 0 < apart.mean() <= 1e-3
    assert torch.allclose(other.norm(dim=1), torch.ones(len(batch)), atol=1e-5)


def test_a_text_has_the_same_vector_in_int8_whatever_it_is_batched_with(calm):
    network = NomicMoe("tests/calm", calm, precision="int8")
    batch = texts(30, 4, 64, 2, 9, 31, 64, 150)
    alone = torch.cat([network.embed([text]) for text in batch])
    assert (network.embed(batch) - alone).abs().max() <= 1e-6
    assert (network.embed(batch[::-1]).flip(0) - alone).abs().max() <= 1e-6


def test_a_product_keeps_rows_that_are_constant_zero_or_far_from_zero():
    weight, bias = torch.randn(24, 32, generator=torch.Generator().manual_seed(2)), torch.arange(24.0)
    rows = torch.stack(
        [torch.zeros(32), torch.full((32,), 3.0), torch.linspace(100, 101, 32), torch.linspace(-1, 1, 32)]
    )
    exact, product = rows @ weight.T + bias, linear.prepare(weight, bias, "int8")(rows)
    reach = weight.abs().sum(dim=1).max() * (rows.amax(1) + 1)[:, None] / 127
    assert ((product - exact).abs() <= reach).all()
    assert (product[0] - bias).abs().max() < 1e-12


def test_a_network_that_lets_go_of_its_layers_computes_the_same(calm):
    batch = texts(5, 50, 7)
    kept, passing = NomicMoe("tests/calm", calm), NomicMoe("tests/calm", calm, passing=True)
    assert torch.equal(kept.embed(batch), passing.embed(batch))


def test_the_loss_is_measured_when_the_model_is_loaded(calm, model):
    loaded = Encoder(model, calm, "cpu", "int8")
    assert loaded.loss is not None
    assert 0 < loaded.loss.mean <= loaded.loss.worst < 1e-3
    assert loaded.loss.overlap >= calibration.REFUSE_UNDER
    assert loaded.loss.texts == len(calibration.TEXTS)
    assert Encoder(model, calm, "cpu").loss is None


def spoil(monkeypatch, by: float) -> None:
    """Make int8 worse, as weights with large values among small ones would."""
    right = linear.Int8.__call__

    def worse(self, rows, *, gelu=False):
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(len(rows)))
        return right(self, rows + by * rows.std() * noise, gelu=gelu)

    monkeypatch.setattr(linear.Int8, "__call__", worse)


def test_int8_that_loses_much_is_used_with_a_warning(calm, model, monkeypatch):
    told = []
    monkeypatch.setattr(encoder.log, "warning", lambda event, **what: told.append((event, what)))
    monkeypatch.setattr(calibration, "WARN_ABOVE", 1e-7)
    Encoder(model, calm, "cpu", "int8")
    assert [event for event, _ in told] == ["int8_loses_much"]
    assert "mean of 1 - cosine" in told[0][1]["loss"]


def test_int8_that_loses_too_much_is_refused_with_the_figures(calm, model, monkeypatch):
    spoil(monkeypatch, by=2.0)
    with pytest.raises(WeightsBroken) as refusal:
        Encoder(model, calm, "cpu", "int8")
    assert "int8 loses too much" in refusal.value.message
    assert "use fp32" in refusal.value.message
    assert "nearest ten the same" in refusal.value.message


@pytest.mark.parametrize(
    ("mean", "overlap", "much", "too_much"),
    [(1e-3, 0.99, False, False), (3e-3, 0.99, True, False), (1.1e-2, 0.99, True, True), (1e-3, 0.94, False, True)],
)
def test_the_limits_are_those_that_are_documented(mean, overlap, much, too_much):
    loss = Loss(mean, mean, overlap, 64)
    assert (loss.is_much, loss.is_too_much) == (much, too_much)


def test_int8_on_another_device_is_refused(calm, model):
    with pytest.raises(WeightsBroken, match="x86-64"):
        Encoder(model, calm, "cuda", "int8")


@pytest.fixture(scope="module")
def passages() -> list[str]:
    """Texts that every machine with Python has: what its library says about itself."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [*library.glob("*.py"), *library.glob("[a-z]*/__init__.py")]
    texts = [ast.get_docstring(ast.parse(file.read_bytes())) for file in sorted(files)]
    return [text[:600] for text in texts if text and len(text) > 60]


@pytest.mark.model
def test_a_real_small_model_in_int8_finds_what_it_finds_in_fp32(tmp_path, passages):
    home = ModelHome(str(tmp_path))
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert models.require(name).package
    found = {}
    for precision in ("fp32", "int8"):
        extractor = configure("text_extractor", {"model_id": name, "precision": precision}, home)
        documents = extractor.embed(passages, lambda _: None)
        queries = np.stack([extractor.embed_query(text.split("\n")[0][:80]) for text in passages])
        found[precision] = documents, queries
    (exact, asked), (other, asked_int8) = found["fp32"], found["int8"]
    assert (1 - (exact * other).sum(axis=1)).mean() <= 2e-3
    nearest = [np.argsort(-(q @ d.T), axis=1)[:, :10].tolist() for q, d in ((asked, exact), (asked_int8, other))]
    overlap = np.mean([len(set(one) & set(two)) / 10 for one, two in zip(*nearest, strict=True)])
    first = np.mean([one[0] == two[0] for one, two in zip(*nearest, strict=True)])
    print(f"{len(passages)} passages: nearest ten the same {overlap:.3f}, first the same {first:.3f}")
    assert overlap >= 0.95
    assert first >= 0.98
