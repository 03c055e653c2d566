"""`openpeek embed` and `openpeek model synthesize`, as a user meets them, on a real small checkpoint."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import embed
from cli.__main__ import app
from extractors.contract import ModelHome
from extractors.text_embedding import folders, weights
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.synthesize import synthesize

ROOT = Path(__file__).parents[2]
WIDTH = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("seeded"), seed=7, layers=2)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(model, place):
    """Return what embeds lines, and returns exit code, what was said, and the array or None."""

    def openpeek(lines, *options):
        (place / "in.jsonl").write_bytes(
            b"".join(line if isinstance(line, bytes) else orjson.dumps({"text": line}) + b"\n" for line in lines)
        )
        arguments = ["embed", "--model", str(model), "--input", "in.jsonl", "--output", "out.npy", *options]
        result = CliRunner().invoke(app, arguments)
        out = place / "out.npy"
        assert not list(place.glob(".*")), "a temporary file is left"
        return result.exit_code, result.output, np.load(out) if out.exists() else None

    return openpeek


def vectors(model, texts, dimensions=WIDTH):
    made = Engine(folders.describe(model), ModelHome(".")).encode(texts)[:, :dimensions]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_vectors_come_in_the_order_of_the_texts_with_the_documents_prefix(run, model):
    texts = [f"text {number} " + "word " * ((number * 37) % 90) for number in range(60)]
    code, said, array = run(texts)
    assert code == 0
    assert array.dtype == np.float32
    assert array.shape == (60, WIDTH)
    assert np.abs(array - vectors(model, [f"search_document: {text}" for text in texts])).max() < 1e-6
    assert "[60, 64]" in said


def test_a_query_has_the_querys_prefix_and_any_number_of_dimensions(run, model):
    code, _, array = run(["one", "two"], "--task", "query", "--dimensions", "17")
    assert code == 0
    assert np.abs(array - vectors(model, ["search_query: one", "search_query: two"], 17)).max() < 1e-6


def test_windows_of_the_file_make_the_same_vectors_as_the_whole(run, monkeypatch):
    texts = [f"text {number} " + "word " * (number % 50) for number in range(40)]
    _, _, whole = run(texts)
    monkeypatch.setattr(embed, "_WINDOW_TEXTS", 7)
    monkeypatch.setattr(embed, "_SLICE_TOKENS", 100)
    _, _, parts = run(texts)
    assert np.abs(whole - parts).max() < 1e-6


def test_a_file_without_texts_makes_an_array_without_rows(run):
    code, _, array = run([])
    assert code == 0
    assert array.shape == (0, WIDTH)


def test_wrong_lines_are_named_by_number_and_nothing_is_written(run):
    wrong = [b"\n", b'{"x":1}\n', b"[1]\n", b'{"text":" "}\n', b'{"text":3}\n', b'{"text"\n', b"\xff\n"]
    code, said, array = run(["right", *wrong])
    assert code == 2
    assert array is None
    for number in range(2, 9):
        assert f"line {number} " in said
    assert "line 1 " not in said


def test_of_very_many_wrong_lines_the_first_ten_are_named(run):
    code, said, _ = run([b"{}\n"] * 2_000)
    assert code == 2
    assert "line 10 " in said
    assert "line 11 " not in said
    assert "and 1,990 more" in said


def test_a_text_that_is_too_long_is_an_error_that_names_its_line(run):
    code, said, array = run(["short", "long " * 600])
    assert code == 2
    assert array is None
    assert "line 2 has" in said
    assert "512" in said
    assert "--truncate" in said


def test_truncate_embeds_the_beginning_and_counts_what_is_lost(run, model):
    text = " ".join(f"w{number}" for number in range(900))
    code, said, array = run(["short", text], "--truncate")
    assert code == 0
    tokenizer = Engine(folders.describe(model), ModelHome(".")).tokenizer()
    total = tokenizer.count([f"search_document: {text}"])[0]
    assert f"cut: 1; {total - 512:,} of their tokens" in said
    longest = max(
        end
        for end in range(1, len(text))
        if text[end - 1] != " " and tokenizer.count([f"search_document: {text[:end]}"])[0] <= 512
    )
    assert np.abs(array[1] - vectors(model, [f"search_document: {text[:longest]}"])[0]).max() < 1e-6


def test_int8_says_what_it_costs_or_refuses_with_the_figures(run):
    code, said, array = run(["one", "two"], "--precision", "int8")
    assert "mean of 1 - cosine" in said
    assert (code == 0) == (array is not None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--model": "nobody/nothing"}, "no model of that name"),
        ({"--input": "absent.jsonl"}, "absent.jsonl is not a file"),
        ({"--output": "absent/out.npy"}, "absent for the output does not exist"),
        ({"--output": "."}, "is a folder"),
        ({"--output": "in.jsonl"}, "the same file"),
        ({"--dimensions": "65"}, "1 to 64 dimensions, not 65"),
    ],
)
def test_an_order_that_cannot_be_done_says_why_before_any_work(model, place, changed, words):
    (place / "in.jsonl").write_text('{"text": "a"}\n')
    options = {"--model": str(model), "--input": "in.jsonl", "--output": "out.npy"} | changed
    result = CliRunner().invoke(app, ["embed", *(part for pair in options.items() for part in pair)])
    assert result.exit_code == 2
    assert words in result.output
    assert sorted(path.name for path in place.iterdir()) == ["in.jsonl"]
    assert (place / "in.jsonl").read_text() == '{"text": "a"}\n'


def test_no_room_for_the_vectors_is_said_before_the_work(run, monkeypatch):
    monkeypatch.setattr(embed.shutil, "disk_usage", lambda _: _Full())
    code, said, array = run(["a"])
    assert code == 2
    assert "0 MB are free" in said
    assert array is None


class _Full:
    """A double of a full disk."""

    free = 3


def test_a_file_that_changes_meanwhile_is_refused(run, monkeypatch):
    states = iter([(1, 1), (1, 2)])
    monkeypatch.setattr(embed, "_state", lambda _: next(states))
    code, said, array = run(["a"])
    assert code == 2
    assert "changed while it was read" in said
    assert array is None


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_what_was_there_before(model, place, stop):
    (place / "in.jsonl").write_bytes(
        b"".join(orjson.dumps({"text": f"{number} " + "word " * 90}) + b"\n" for number in range(60_000))
    )
    (place / "out.npy").write_bytes(b"former")
    files = ["--input", str(place / "in.jsonl"), "--output", str(place / "out.npy")]
    command = [sys.executable, "-m", "cli", "embed", "--model", str(model), *files]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while not list(place.glob(".out.npy.*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (embed.INTERRUPTED, "Interrupted. Nothing was written.")
    assert sorted(path.name for path in place.iterdir()) == ["in.jsonl", "out.npy"]
    assert (place / "out.npy").read_bytes() == b"former"


@given(st.lists(st.integers(1, 9_000), max_size=60))
def test_slices_hold_every_text_once_and_like_with_like(lengths):
    slices = list(embed._slices(lengths))
    assert sorted(place for some in slices for place in some) == list(range(len(lengths)))
    ordered = [lengths[place] for some in slices for place in some]
    assert ordered == sorted(ordered)
    assert all(len(some) == 1 or sum(lengths[place] for place in some) <= embed._SLICE_TOKENS for some in slices)


def synthesized(*arguments):
    result = CliRunner().invoke(app, ["model", "synthesize", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_a_synthesized_checkpoint_is_the_same_for_the_same_seed_and_can_be_used_at_once(place):
    for folder, seed in (("one", 5), ("same", 5), ("other", 6)):
        code, said = synthesized(folder, "--seed", seed, "--layers", 2)
        assert code == 0
        assert "mean nothing" in said
    hashes = [weights.sha256(place / folder / weights.WEIGHTS) for folder in ("one", "same", "other")]
    assert hashes[0] == hashes[1] != hashes[2]
    (place / "in.jsonl").write_text('{"text": "a"}\n')
    result = CliRunner().invoke(app, ["embed", "--model", "one", "--input", "in.jsonl", "--output", "out.npy"])
    assert result.exit_code == 0
    assert np.load(place / "out.npy").shape == (1, 64)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--width", 100], "n_embd: 100 is not a multiple of twice n_head: 4"),
        (["--experts", 1], "moe_top_k: 2 is more than num_experts: 1"),
        (["--vocabulary", 12], "the vocabulary must hold as many"),
        (["--vocabulary", 2_000_000_000_000], "MB are free"),
    ],
)
def test_sizes_that_do_not_go_together_make_no_folder(place, options, words):
    code, said = synthesized("made", *options)
    assert code == 2
    assert words in said
    assert not list(place.iterdir())


def test_a_folder_that_holds_something_is_left_alone(place):
    (place / "made").mkdir()
    assert synthesized("made", "--layers", 2)[0] == 0  # it was empty
    before = weights.sha256(place / "made" / weights.WEIGHTS)
    code, said = synthesized("made", "--seed", 9)
    assert code == 2
    assert "not empty" in said
    assert weights.sha256(place / "made" / weights.WEIGHTS) == before
