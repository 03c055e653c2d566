"""Tiny seeded checkpoints in the real layout, and the network and the oracle that read them."""

from pathlib import Path

import pytest
from oracle import Oracle

from extractors.text_embedding.nomic_moe import NomicMoe
from extractors.text_embedding.synthesize import synthesize


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("tiny"), seed=20250207)


@pytest.fixture(scope="session")
def network(checkpoint: Path) -> NomicMoe:
    return NomicMoe("tests/tiny", checkpoint)


@pytest.fixture(scope="session")
def oracle(checkpoint: Path) -> Oracle:
    return Oracle(checkpoint)
