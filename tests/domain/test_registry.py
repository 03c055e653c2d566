"""The registry of plugins."""

import sys
import textwrap

import pytest

from domain.errors import Invalid
from domain.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with one module per given source; it is forgotten afterwards."""

    def make(name, **modules):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text('"""Plugins."""\n')
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
        return name

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_one_file_in_the_folder_is_one_plugin(package):
    package("birds_a", registry="", crow="import birds_a; birds_a.seen = [*getattr(birds_a, 'seen', []), 'crow']")
    registry = Registry("bird", "birds_a", "openpeek.none")
    assert registry.find("crow") is None
    assert sys.modules["birds_a"].seen == ["crow"]
    registry.find("crow")
    assert sys.modules["birds_a"].seen == ["crow"], "the folder is read once"


def test_a_plugin_is_found_by_its_name_and_its_aliases(package):
    registry = Registry("bird", package("birds_b"), "openpeek.none")
    registry.register("crow", "raven")(int)
    assert registry.require("crow") is registry.require("raven") is int
    assert list(registry.items()) == [("crow", int)]


def test_an_unknown_name_is_answered_with_the_known_ones(package):
    registry = Registry("bird", package("birds_c"), "openpeek.none")
    registry.register("crow")(int)
    registry.register("auk")(str)
    with pytest.raises(Invalid, match=r"no bird 'emu'\. Known: auk, crow") as refused:
        registry.require("emu", location=("body", "bird"))
    assert (refused.value.code, refused.value.location) == ("unknown_bird", ("body", "bird"))


def test_two_plugins_cannot_have_one_name_but_one_may_come_twice(package):
    registry = Registry("bird", package("birds_d"), "openpeek.none")
    registry.register("crow")(int)
    registry.register("crow")(int)
    with pytest.raises(ValueError, match="two birds are named 'crow'"):
        registry.register("crow")(str)


def test_items_come_in_the_order_of_their_names(package):
    registry = Registry("bird", package("birds_e"), "openpeek.none")
    for name in ("owl", "auk", "crow"):
        registry.register(name)(object())
    assert [name for name, _ in registry.items()] == ["auk", "crow", "owl"]
