"""The demo's input, which is on every machine: the docstrings of the Python standard library.

The source files are parsed, not imported: some modules open browsers or windows when they are imported.
"""

import ast
import importlib
import inspect
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from domain.json_types import Fields

_LEFT_OUT: Final = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "ensurepip", "encodings"}
)
_SHORTEST: Final = 30
_SEED: Final = 42


def objects(limit: int = 6_000) -> list[Fields]:
    """Return ``{name, module, kind, signature, doc}`` for public things of the library, in a fixed mixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [entry for path in sorted(root.rglob("*.py")) if _wanted(path, root) for entry in _entries(path, root)]
    found += [
        entry for name in sorted(sys.builtin_module_names) if not name.startswith("_") for entry in _built_in(name)
    ]
    random.Random(_SEED).shuffle(found)  # noqa: S311 - any fixed order would do
    return found[:limit]


def _built_in(name: str) -> Iterator[Fields]:
    """Yield the docstrings of a module that is compiled into the interpreter; importing it does nothing."""
    module = importlib.import_module(name)
    for key, thing in sorted(vars(module).items()):
        if key.startswith("_") or isinstance(thing, int | float | str):
            continue
        yield from _described(thing, name, f"{name}.{key}", "class" if inspect.isclass(thing) else "function")
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for inner, method in sorted(vars(thing).items()):
                if not inner.startswith("_"):
                    yield from _described(method, name, f"{name}.{key}.{inner}", "method")


def _described(thing: object, module: str, name: str, kind: str) -> Iterator[Fields]:
    doc = inspect.getdoc(thing) or ""
    if len(doc) >= _SHORTEST:
        yield {"name": name, "module": module, "kind": kind, "signature": "", "doc": f"{name}: {doc}"}


def _wanted(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return not any(part in _LEFT_OUT or part.startswith(("_", "test_")) for part in parts if part != "__init__.py")


def _entries(path: Path, root: Path) -> Iterator[Fields]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    yield from _entry(tree, module, module, "module")
    for node in tree.body:
        yield from _definition(node, module, module)


def _definition(node: ast.AST, module: str, owner: str) -> Iterator[Fields]:
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        yield from _entry(node, module, f"{owner}.{node.name}", "class")
        for inner in node.body:
            yield from _definition(inner, module, f"{owner}.{node.name}")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
        kind = "function" if owner == module else "method"
        yield from _entry(node, module, f"{owner}.{node.name}", kind, f"{node.name}({ast.unparse(node.args)})")


def _entry(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
    module: str,
    name: str,
    kind: str,
    signature: str = "",
) -> Iterator[Fields]:
    doc = ast.get_docstring(node)
    if doc and len(doc) >= _SHORTEST and "\x00" not in doc:
        yield {"name": name, "module": module, "kind": kind, "signature": signature[:300], "doc": f"{name}: {doc}"}
