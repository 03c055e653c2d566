"""Paths into documents, and the strings inside them."""

import pytest

from domain.json_types import MISSING, lookup, strings


@pytest.mark.parametrize(
    ("fields", "path", "found"),
    [
        ({"a": 1}, "a", 1),
        ({"a": {"b": {"c": 1}}}, "a.b.c", 1),
        ({"a": None}, "a", None),
        ({"a": {"b": None}}, "a.b", None),
        ({}, "a", MISSING),
        ({"a": 1}, "a.b", MISSING),
        ({"a": {}}, "a.b", MISSING),
        ({"a": [{"b": 1}]}, "a.b", MISSING),
        ({"a": [1]}, "a.0", MISSING),
        ({"a": {"0": 1}}, "a.0", 1),
        ({"": {"": 1}}, ".", 1),
        ({"a.": 1}, "a.", 1),
    ],
)
def test_a_path_descends_objects_and_nothing_else(fields, path, found):
    assert lookup(fields, path) is found or lookup(fields, path) == found


def test_a_key_with_dots_wins_over_descending():
    assert lookup({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert lookup({"a": {"b.c": 1, "b": {"c": 2}}}, "a.b.c") == 1


def test_metadata_also_finds_a_root_field_but_its_own_first():
    assert lookup({"x": 1}, "metadata.x") == 1
    assert lookup({"metadata": {"x": 2}, "x": 1}, "metadata.x") == 2
    assert lookup({"metadata": {"x": None}, "x": 1}, "metadata.x") is None
    assert lookup({"metadata": {"x": 1}}, "x") is MISSING


def test_missing_is_false_and_says_its_name():
    assert not MISSING
    assert repr(MISSING) == "MISSING"


def test_every_string_is_found_keys_included():
    assert sorted(strings({"a": ["b", {"c": "d"}, 1, None, True]})) == ["a", "b", "c", "d"]
