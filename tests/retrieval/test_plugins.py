"""Stages and extractors of installed packages are found by their entry points, and work like our own.

Each test runs in a process of its own, because plugins are registered once per process.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = Path(__file__).parent / "example_package"


def python(code, *paths):
    """Run some lines with folders on the path, and return what they print."""
    lines = f"import sys; sys.path[:0] = {[str(path) for path in (ROOT, *paths)]!r}\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_stage_of_an_installed_package_runs_in_a_pipeline():
    code = """
        from domain.documents import Document
        from retrieval import engine
        from retrieval.contract import Context
        from retrieval.registry import STAGES
        from retrieval.spelling import read_stages

        class Corpus:
            collection_ids = ["col"]
            def fetch(self, filter, collection_ids, limit):
                return [Document(f"doc_{n}", "col", {"n": n}) for n in range(6)]

        stages = read_stages([
            {"type": "attribute_filter", "conditions": {"field": "n", "operator": "gte", "value": 0}},
            {"stage_id": "half", "parameters": {"begin": "{{INPUT.begin}}"}},
        ])
        engine.check(stages, {"begin": {"type": "integer"}})
        print(*[name for name, _ in STAGES.items()])
        print(*[one.document_id for one in engine.execute(stages, Context(Corpus(), {"begin": 1})).documents])
        print(stages[1].shown()["stage_type"])
    """
    names, found, kind = python(code, PACKAGE)
    assert names == "attribute_filter every_other feature_search limit sort_attribute"
    assert found == "doc_1 doc_3 doc_5"
    assert kind == "reduce"


def test_without_the_package_its_stage_is_unknown():
    code = """
        from domain.errors import Invalid
        from retrieval.spelling import read_stages
        try:
            read_stages([{"stage_id": "every_other"}])
        except Invalid as refused:
            print(refused.code)
    """
    assert python(code) == ["unknown_stage"]


def test_an_extractor_of_an_installed_package_extracts():
    code = """
        from extractors.contract import ModelHome, Source
        from extractors.registry import configure

        extractor = configure("title_only", {}, ModelHome("/nonexistent"))
        print(extractor.parts(Source("obj_1", {"title": "Moby", "text": "long"}, {})).parts[0].fields)
        print(extractor.output(), extractor.identity())
    """
    assert python(code, PACKAGE) == ["{'title': 'Moby'}", "None None"]
