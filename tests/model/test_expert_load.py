"""Which experts work on which language: counted as an independent oracle counts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import Oracle

from benchmarks import expert_load
from benchmarks.expert_load import Load, Observatory
from extractors.text_embedding.tokens import TextTokenizer

ROOT = Path(__file__).parents[2]
PREFIX = "search_document: "


class CountingOracle(Oracle):
    """The oracle, which also notes whom its routers chose for each token of each layer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.chosen: list[np.ndarray] = []

    def _experts(self, name, hidden, mistake):
        logits = hidden @ self.tensors[f"{name}.mlp.router.layer.weight"].T
        self.chosen.append(np.argsort(-logits, axis=1)[:, : self.config["moe_top_k"]])
        return super()._experts(name, hidden, mistake)


def test_the_loads_are_those_that_the_oracle_counts(checkpoint):
    texts = ["The cat sleeps.", "A much longer text about trains and the coast in the morning.", "x"]
    tokenizer = TextTokenizer(checkpoint, "tests/tiny")
    prefix = tokenizer.encode([PREFIX.strip()])[0][:-1]
    oracle = CountingOracle(checkpoint)
    own = []
    for ids in tokenizer.encode([PREFIX + text for text in texts]):
        assert ids[: len(prefix)] == prefix, "the prefix is cut into the same tokens before any text"
        oracle.embed(ids)
        own.append(len(ids) - len(prefix) - 1)
    observatory = Observatory(checkpoint)
    load = observatory.load(texts)
    assert load.tokens == sum(own)
    assert observatory.layers == [1, 3]
    for index in range(2):
        chosen = [oracle.chosen[2 * text + index][len(prefix) : -1] for text in range(len(texts))]
        counts = np.bincount(np.concatenate(chosen).ravel(), minlength=8)
        assert np.allclose(load.shares[index], counts / counts.sum())
        assert 0 < float(load.weights[index]) < 1


def test_the_load_of_a_language_does_not_depend_on_the_order_of_its_texts(checkpoint):
    texts = json.loads(expert_load.TEXTS.read_text())["English"]
    observatory = Observatory(checkpoint)
    assert torch.equal(observatory.load(texts).shares, observatory.load(texts[::-1]).shares)


def test_the_texts_say_the_same_number_of_things_in_at_least_eight_languages():
    texts = json.loads(expert_load.TEXTS.read_text())
    assert len(texts) >= 8
    assert {len(said) for said in texts.values()} == {10}
    assert len({text for said in texts.values() for text in said}) == 10 * len(texts)


def test_evenness_and_distance_are_what_one_computes_by_hand():
    even, one = torch.full((8,), 1 / 8), torch.eye(8)[0]
    assert expert_load.evenness(even) == pytest.approx(1)
    assert expert_load.evenness(one) == 0
    assert expert_load.evenness(torch.tensor([0.5, 0.5, 0, 0])) == pytest.approx(0.5)
    assert expert_load.distance(one, torch.eye(8)[1]) == 1
    assert expert_load.distance(even, even) == 0


def test_the_report_fits_into_a_terminal():
    load = Load(123_456, torch.eye(8)[:1].double(), torch.tensor([0.5]))
    lines = expert_load.report([11], {"A language with a long name": load})
    assert max(map(len, lines)) <= 80
    assert "100.0" in lines[3]


def test_the_command_measures_a_folder_and_refuses_another(checkpoint, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "benchmarks.expert_load", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    measured = run(checkpoint)
    assert measured.returncode == 0, measured.stderr
    assert "layer 3" in measured.stdout
    refused = run(tmp_path)
    assert refused.returncode == 1
    assert "config.json cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "usage" in run().stderr


def test_the_example_on_the_page_prints_what_the_page_says(capsys):
    page = (ROOT / "docs" / "how-moe-works.md").read_text()
    code, _, rest = page.partition("```python\n")[2].partition("```")
    exec(code)
    assert capsys.readouterr().out == rest.partition("```\n")[2].partition("```")[0]
