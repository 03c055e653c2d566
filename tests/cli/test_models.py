"""`openpeek model`: list, show, compare and verify, as a user meets them in a terminal of 80 columns."""

import json
from dataclasses import replace
from math import log2

import pytest
from typer.testing import CliRunner

from cli import scifact
from cli.__main__ import app
from cli.model_check import Wanted, verify
from domain.errors import Invalid
from extractors.contract import ModelHome
from extractors.text_embedding import cards, models, verification, weights
from extractors.text_embedding.cards import Score, Similarity
from extractors.text_embedding.models import MINILM, NOMIC
from extractors.text_embedding.synthesize import synthesize

WIDTH = 80


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return what runs `openpeek model …` and returns exit code and output, without any weights but the installed."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))

    def openpeek(*arguments):
        result = CliRunner().invoke(app, ["model", *map(str, arguments), "--data", str(tmp_path / "data")])
        assert all(len(line) <= WIDTH for line in result.stdout.splitlines() if "https://" not in line)
        return result.exit_code, " ".join((result.stdout + result.stderr).split())

    return openpeek


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("seeded"), seed=7)


@pytest.fixture
def published(seeded, monkeypatch):
    """A double: NOMIC as if the seeded checkpoint were the published one. Returns its folder."""
    model = replace(NOMIC, folder=seeded, width=64, narrowest=1)
    one, other = verification.Engine(model, ModelHome(".")).encode(["search_document: Hello!", "search_document: Ho"])
    header = weights.read_header(model.model_id, seeded / weights.WEIGHTS)
    card = replace(
        cards.find(NOMIC),
        tensors=len(header),
        parameters=sum(_size(shape) for _, shape in header.values()),
        similarity=Similarity("Hello!", "Ho", round(float(one @ other), 4), 5e-4, "this test"),
        scores=(Score(cards.SCIFACT, 1.0, "this test"),),
    )
    hashes = {name: weights.sha256(seeded / name) for name in NOMIC.sha256}
    monkeypatch.setitem(cards._CARDS, NOMIC.model_id, card)
    monkeypatch.setitem(models._KNOWN, NOMIC.model_id, replace(NOMIC, sha256=hashes))
    return seeded


@pytest.fixture
def data(tmp_path):
    """Return a folder in BEIR's form to whose only query all documents are relevant, so any order is the best."""
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": str(n), "title": f"Title {n}", "text": f"abstract {n} " * 700} for n in range(3)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "Title 1"}\n{"_id": "not judged", "text": "x"}')
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q\t{n}\t1\n" for n in range(3))
    )
    return folder


def _size(shape):
    count = 1
    for length in shape:
        count *= length
    return count


def test_the_list_names_every_model_and_what_is_here(run):
    code, told = run("list")
    assert code == 0
    for model in models.all_known():
        assert model.model_id in told
    assert f"{MINILM.model_id} 64-384 256 Apache-2.0 here" in told
    assert f"{NOMIC.model_id} 256-768 512 Apache-2.0 not here" in told


@pytest.mark.parametrize("model", [NOMIC, MINILM], ids=lambda model: model.inference_name)
def test_a_model_is_shown_with_its_sources_and_a_collection_body(run, model):
    code, told = run("show", model.inference_name)
    assert code == 0
    assert str(cards.feature_uri(model)) in told
    for score in cards.find(model).scores:
        assert f"{score.value:g} ({score.source})" in told
    assert json.loads(told[told.index("{") :]) == cards.collection_body(model)


def test_two_models_stand_side_by_side_with_the_benchmarks_that_either_has(run):
    code, told = run("compare", NOMIC.model_id, "multilingual-e5-base")
    assert code == 0
    assert "MIRACL, mean 65.8 62.3" in told
    assert "may be cut to 256 (trained" in told
    assert "may be cut to 64 (not" in told
    assert "cannot be compared" in told


@pytest.mark.parametrize(
    "arguments", [("show", "gpt"), ("compare", "gpt", NOMIC.model_id), ("verify", "--model", "gpt")]
)
def test_an_unknown_model_is_refused_naming_the_known_ones(run, arguments):
    code, told = run(*arguments)
    assert code == 2
    assert "'gpt' is not known here. Known: intfloat/" in told


def test_a_seeded_checkpoint_has_the_layout_and_is_told_from_the_published_weights(run, seeded):
    code, told = run("verify", seeded)
    assert code == 1
    assert "ok layout" in told
    assert "NO size" in told
    assert "NO model.safetensors" in told
    assert "NO similarity" in told
    assert "expected: 0.9118 ± 0.0005" in told
    assert f"These are not the published weights of {NOMIC.model_id}" in told


def test_the_installed_model_is_the_published_one(run):
    code, told = run("verify", "--model", MINILM.model_id)
    assert code == 0, told
    assert told.count("ok ") == 4
    assert "NO" not in told
    assert "These are the published weights" in told


def test_weights_that_agree_with_everything_published_pass_with_scifact_and_a_device(run, published, data):
    code, told = run("verify", published, "--scifact", data, "--device", "cpu")
    assert code == 0, told
    assert "ok similarity" in told
    assert "ok SciFact" in told
    assert "ok cpu" in told
    assert "tokens/s" in told
    assert "NO" not in told


def test_whoever_passes_without_scifact_is_told_how_to_get_it(run, published):
    code, told = run("verify", published)
    assert code == 0
    assert "Not measured: SciFact." in told
    assert scifact.HOW_TO_GET.splitlines()[0] in told


def test_another_file_with_the_same_values_is_called_that(run, published, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in NOMIC.sha256:
        (other / name).write_bytes((published / name).read_bytes())
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert "something else is wrong: see config.json" in run("verify", other)[1]
    whole = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, told = run("verify", other)
    assert code == 1
    assert "compute as" in told
    assert "not the published files: see model.safetensors, config.json" in told


def test_a_truncated_or_foreign_or_missing_checkpoint_says_what_is_wrong(run, seeded, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in NOMIC.sha256:
        (other / name).write_bytes((seeded / name).read_bytes())
    (other / "model.safetensors").write_bytes((seeded / "model.safetensors").read_bytes()[:-10])
    code, told = run("verify", other)
    assert code == 1
    assert "NO layout" in told
    assert "its header promises" in told
    assert "similarity" not in told.partition("These are")[0]
    code, told = run("verify", weights.locate(MINILM, ModelHome(str(tmp_path))).folder)
    assert code == 1
    assert "model_type: 'bert'" in told
    code, told = run("verify", "--model", "multilingual-e5-base", seeded)
    assert code == 1
    assert "hidden_size: None, not 768" in told
    (other / "tokenizer.json").unlink()
    (other / "tokenizer.json").symlink_to(other)
    assert "tokenizer.json missing" in run("verify", other)[1]
    assert run("verify", tmp_path)[0] == 1
    assert run("verify", seeded / "config.json")[0] == 2
    assert run("verify", tmp_path / "nowhere")[0] == 2
    code, told = run("verify")
    assert code == 2
    assert "openpeek model pull" in told


def test_a_file_that_cannot_be_read_is_a_failed_check(seeded, monkeypatch):
    def broken(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weights, "sha256", broken)
    findings = list(verification.check_hashes(replace(NOMIC, folder=seeded)))
    assert {finding.state for finding in findings} == {"wrong"}
    assert findings[0].found == "it cannot be read: Permission denied"


def test_the_smallest_e5_is_not_taken_for_minilm_of_the_same_width(run, tmp_path):
    code, told = run(
        "verify", "--model", "multilingual-e5-small", weights.locate(MINILM, ModelHome(str(tmp_path))).folder
    )
    assert code == 1
    assert "expected: about 117,653,760 parameters" in told


def test_a_device_that_is_not_there_is_a_failed_check(run, seeded):
    code, told = run("verify", seeded, "--device", "toaster")
    assert code == 1
    assert "NO toaster torch cannot compute on it" in told


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("corpus.jsonl", None, "cannot be read. SciFact in BEIR's form is had with: curl"),
        ("corpus.jsonl", '{"_id": "1", "text": "x"}\n{"_id": "2"', "corpus.jsonl, line 2 is not of the form"),
        ("queries.jsonl", '{"_id": "1"}', "queries.jsonl, line 1 is not of the form"),
        ("queries.jsonl", "[]", "queries.jsonl, line 1 is not of the form"),
        ("qrels/test.tsv", "a\tb\tc\nq 1 1\n", "test.tsv, line 2 is not query, document and a number"),
        ("qrels/test.tsv", "a\tb\tc\nq\t77\t1\n", "names '77', which the other files lack"),
        ("qrels/test.tsv", "a\tb\tc\n", "judges nothing"),
    ],
)
def test_data_that_is_not_scifact_is_refused_before_any_work(run, seeded, data, file, content, words):
    path = data / file
    path.unlink() if content is None else path.write_text(content)
    code, told = run("verify", seeded, "--scifact", data)
    assert code == 2
    assert words in told
    assert "layout" not in told


def test_ndcg_is_what_one_computes_by_hand():
    relevance = {"a": 1, "b": 1}
    assert scifact.ndcg(["a", "b", "c"], relevance) == 1.0
    assert scifact.ndcg(["c", "a", "d", "b"], relevance) == pytest.approx(
        (1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3))
    )
    assert scifact.ndcg(["c"] * 10 + ["a", "b"], relevance) == 0.0
    assert scifact.ndcg(["a"], {"a": 0}) == 0.0


@pytest.mark.model
def test_a_real_model_finds_the_abstract_that_speaks_of_a_claim(tmp_path):
    (tmp_path / "qrels").mkdir()
    documents = {"1": "Vitamin C and the common cold.", "2": "Masonry arches of Rome.", "3": "Kernel scheduling."}
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in documents.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "Ascorbic acid shortens colds."}')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    home = ModelHome(str(tmp_path))
    done = []
    score = scifact.score(verification.Engine(MINILM, home), scifact.read(tmp_path), done.append)
    assert score == 1.0
    assert sum(done) == 4


def test_verifying_needs_no_known_result_to_report_one(seeded, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(cards._CARDS, NOMIC.model_id, replace(cards.find(NOMIC), scores=()))
    assert verify(tmp_path, Wanted(NOMIC.model_id, seeded, data=data)) is False
    assert "no other result is known here" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(Invalid):
        verify(tmp_path, Wanted("gpt"))
