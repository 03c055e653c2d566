"""The house rules that no linter knows. Each is shown to bite by a test on a small planted fault."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("api", "cli", "domain", "extractors", "retrieval", "storage", "workers")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "handler", "handlers"}
LEFTOVERS = ("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplementedError")
MAX_LINES = 400
MAX_FUNCTION = 60


def modules() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def faults_of(path: Path, source: str) -> list[str]:  # noqa: C901 - a list of rules
    """Return what a module does against the rules."""
    faults = []
    tree = ast.parse(source)
    if len(source.splitlines()) > MAX_LINES:
        faults.append(f"{path}: more than {MAX_LINES} lines")
    if path.stem in BANNED_NAMES:
        faults.append(f"{path}: named for nothing it does")
    if not ast.get_docstring(tree):
        faults.append(f"{path}: no docstring says what it is for")
    faults += [f"{path}: {word} is left over" for word in LEFTOVERS if word in source]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > MAX_FUNCTION:
                faults.append(f"{path}:{node.lineno}: {node.name} has {length} lines")
        if isinstance(node, ast.AsyncFunctionDef) and path.parts[0] not in {"api", "cli"}:
            faults.append(f"{path}:{node.lineno}: one colour: sync")
        if isinstance(node, ast.Attribute) and node.attr == "commit":
            faults.append(f"{path}:{node.lineno}: only `Database.writing` commits")
        if isinstance(node, ast.ImportFrom) and any(name.name == "*" for name in node.names):
            faults.append(f"{path}:{node.lineno}: star import")
        if isinstance(node, ast.Name) and node.id == "print" and path.parts[0] != "cli":
            faults.append(f"{path}:{node.lineno}: print")
    return faults


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_keeps_the_house_rules(path):
    assert faults_of(path.relative_to(ROOT), path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("api/utils.py", '"""D."""\n', "named for nothing"),
        ("api/x.py", "x = 1\n", "no docstring"),
        ("api/x.py", '"""D."""\n# ' + LEFTOVERS[0] + "\n", "left over"),
        ("api/x.py", '"""D."""\n' + "x = 1\n" * 400, "more than 400"),
        ("api/x.py", '"""D."""\ndef f():\n' + "    x = 1\n" * 60, "has 61 lines"),
        ("storage/x.py", '"""D."""\nsession.commit()\n', "commits"),
        ("workers/x.py", '"""D."""\nasync def f(): ...\n', "one colour"),
        ("workers/x.py", '"""D."""\nfrom os import *\n', "star import"),
        ("workers/x.py", '"""D."""\nprint(1)\n', "print"),
    ],
)
def test_the_rules_bite(name, source, fault):
    assert any(fault in found for found in faults_of(Path(name), source))


def test_every_function_of_the_tables_that_the_api_calls_takes_a_scope():
    """No look-up by id alone on behalf of a user. Those named here cannot reach another tenant's rows."""
    allowed = {
        # counted or shown for rows that a scoped look-up has already returned
        "items.counts", "items.work_done", "items.failures", "items.states_of_objects", "items.database_now",
        "items.cancel_open", "batches.object_ids", "batches.finish", "batches.add", "batches.add_objects",
        "tasks.of_batch", "tasks.set_status", "ending.start", "vectors.find", "outbox.add",
        # inserts of rows that carry their scope, and the server's own state
        "namespaces.add", "buckets.add", "collections.add", "retrievers.add", "objects.add_all",
        "api_keys.find_active", "workers.latest_beat", "collections.models_in_use", "collections.fed_by",
    }  # fmt: skip
    tables = {path.stem for path in (ROOT / "storage" / "tables").glob("*.py")}
    signatures: dict[str, list[str]] = {}
    for path in (ROOT / "storage" / "tables").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                signatures[f"{path.stem}.{node.name}"] = [argument.arg for argument in arguments]
    unscoped = set()
    for path in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in tables:
                called = f"{node.value.id}.{node.attr}"
                arguments = signatures.get(called)
                if arguments is not None and not {"scope", "organization_id"} & set(arguments):
                    unscoped.add(called)
    assert unscoped - allowed == set()
    assert allowed - unscoped == set(), "the list of exceptions has grown stale"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("api.app", {"torch", "transformers", "celery", "boto3", "qdrant_client"}),
        ("cli.__main__", {"torch", "transformers", "celery", "boto3", "qdrant_client", "uvicorn"}),
        ("extractors.text_embedding", {"torch", "transformers"}),
    ],
)
def test_importing_a_room_does_not_load_what_it_only_needs_later(module, absent):
    code = f"import sys, {module}; print(*sorted({absent!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.split() == []


def test_the_wheel_holds_no_tests():
    text = (ROOT / "pyproject.toml").read_text()
    included = text.split("packages.find.include", 1)[1].split("\n", 1)[0]
    assert "tests" not in included
