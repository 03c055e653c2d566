"""The canary: the same files must give the same vector as when they were first used."""

import os

import numpy as np
import pytest

from domain.errors import WeightsBroken
from extractors.contract import ModelHome
from extractors.text_embedding import engine as engines
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.nomic_moe import NomicMoe
from storage.canaries import DatabaseCanaries
from storage.database import Database
from storage.tables import vectors


@pytest.fixture
def database(tmp_path):
    from cli import schema

    database = Database(f"sqlite:///{tmp_path / 'openpeek.db'}")
    schema.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def engine(tiny, database, monkeypatch):
    """Make engines as a process that has just been started would have them."""

    def make(precision="fp32") -> Engine:
        monkeypatch.setattr(engines, "_encoders", {})
        home = ModelHome(tiny.home.folder, canaries=DatabaseCanaries(database))
        return Engine(tiny.model, home, precision)

    return make


def turn(monkeypatch, by: float) -> None:
    """Let the network compute something else, as after an upgrade that went wrong."""
    right = NomicMoe.embed

    def wrong(self, batch, *more):
        vectors = right(self, batch, *more).clone()
        vectors[:, 0] += by
        return vectors / vectors.norm(dim=1, keepdim=True)

    monkeypatch.setattr(NomicMoe, "embed", wrong)


def test_the_first_vector_is_kept_and_found_again(engine, database):
    engine().load()
    engine().load()
    with database.reading() as session:
        assert session.query(vectors.VectorRow).count() == 1


def test_drift_refuses_to_serve_and_names_the_figures(engine, monkeypatch):
    engine().load()
    turn(monkeypatch, by=0.05)
    drifted = engine()
    for _ in range(2):
        with pytest.raises(WeightsBroken) as refusal:
            drifted.encode(["text"])
        assert "1 - cosine is" in refusal.value.message
        assert "1e-05 is allowed" in refusal.value.message


def test_what_other_hardware_adds_up_otherwise_is_no_drift(engine, monkeypatch):
    engine().load()
    turn(monkeypatch, by=1e-4)
    engine().load()


def test_without_a_book_nothing_is_compared(tiny, monkeypatch):
    monkeypatch.setattr(engines, "_encoders", {})
    Engine(tiny.model, tiny.home).load()


def test_another_process_that_was_first_is_believed(database):
    book = DatabaseCanaries(database)
    one, other = np.eye(2, dtype=np.float32)
    assert np.array_equal(book.first("key", one), one)
    assert np.array_equal(book.first("key", other), one)


def test_a_model_whose_file_was_exchanged_is_loaded_anew(engine, tiny):
    engine = engine()
    engine.load()
    weights = tiny.home_folder / "model.safetensors"
    before = weights.stat()
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        engine.load()
        assert len(engines._encoders) == 1
        (key,) = engines._encoders
        assert key.modified_ns == before.st_mtime_ns + 1
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
