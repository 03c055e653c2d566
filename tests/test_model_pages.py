"""The generated pages of the models are what the generator would write now."""

import json
import subprocess
import sys

from benchmarks import model_pages
from extractors.text_embedding.models import MINILM, NOMIC


def test_no_page_is_stale():
    # In a process of its own: in this one, tests may have registered models and stages of theirs.
    checked = subprocess.run(
        [sys.executable, "-m", "benchmarks.model_pages", "--check"],
        cwd=model_pages.ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


def test_a_page_that_was_edited_or_is_nobodys_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(model_pages, "PAGES", tmp_path)
    for path, text in model_pages.pages().items():
        path.write_text(text)
    assert model_pages.stale() == []
    (tmp_path / "all-MiniLM-L6-v2.md").write_text("edited")
    (tmp_path / "gone.md").write_text("of a model that is no longer known")
    assert [path.name for path in model_pages.stale()] == ["all-MiniLM-L6-v2.md", "gone.md"]


def test_a_figure_is_shown_with_its_date_and_command_and_a_missing_one_as_missing():
    figure = {"value": 5508, "date": "2026-11-23", "command": "python -m benchmarks.x", "note": "a note"}
    known = {MINILM.model_id: {"tokens_per_second_fp32": figure, "memory_mb_fp32": None}}
    rows = model_pages._measured({"machine": "a machine", "models": known}, MINILM)
    assert rows[0] == "On a machine."
    assert rows[-2:] == [
        "| Speed, fp32 | 5,508 tokens/s | 2026-11-23; `python -m benchmarks.x`; a note |",
        "| Memory of the process, fp32 | not measured yet | |",
    ]


def test_the_figures_file_names_known_models_and_figures():
    figures = json.loads(model_pages.FIGURES.read_text())["models"]
    assert NOMIC.model_id in figures
    for named in figures.values():
        assert set(named) <= set(model_pages.WORDS)
