"""What a retriever declares as its inputs, and what callers bring."""

import pytest

from domain.errors import Invalid
from retrieval.inputs import MAX_BYTES, check_inputs, read_schema


@pytest.mark.parametrize(
    "raw",
    [
        {"q": {"type": "text", "required": True}, "n": {"type": "integer"}},
        {"properties": {"q": {"type": "text", "required": True}, "n": {"type": "integer"}}},
        {"type": "object", "properties": {"q": {"type": "TEXT"}, "n": "integer"}, "required": ["q"]},
    ],
)
def test_a_schema_is_read_with_or_without_its_wrapping(raw):
    assert read_schema(raw) == {"q": {"type": "text", "required": True}, "n": {"type": "integer"}}


def test_an_input_may_be_called_properties():
    assert set(read_schema({"properties": {"type": "object"}, "q": {"type": "text"}})) == {"properties", "q"}
    assert read_schema(None) == {}


@pytest.mark.parametrize(
    ("raw", "location"),
    [
        ([], ()),
        ({"q": 5}, ("q",)),
        ({"q": {"type": "sparkle"}}, ("q", "type")),
        ({"q": {"type": "integer", "default": "x"}}, ("q", "default")),
    ],
)
def test_a_schema_that_means_nothing_is_refused(raw, location):
    with pytest.raises(Invalid) as refused:
        read_schema(raw)
    assert refused.value.location == ("body", "input_schema", *location)


GOOD = {
    "text": "a", "string": "a", "number": 1.5, "float": 1, "integer": 5, "boolean": True, "object": {}, "array": [],
    "date": "2026-01-01", "datetime": "2026-01-01T00:00:00Z", "image": "https://x", "document_reference": {"a": 1},
}  # fmt: skip
BAD = {
    "text": 5, "string": [], "number": "1", "float": True, "integer": 1.5, "boolean": 1, "object": [], "array": {},
    "date": 5, "datetime": {}, "image": 5, "document_reference": 5,
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_each_type_takes_its_values_and_no_others(kind):
    schema = read_schema({"x": {"type": kind}})
    assert check_inputs(schema, {"x": GOOD[kind]}) == {"x": GOOD[kind]}
    with pytest.raises(Invalid, match=f"must be of type {kind}") as refused:
        check_inputs(schema, {"x": BAD[kind]})
    assert (refused.value.code, refused.value.location) == ("input_wrong_type", ("body", "inputs", "x"))


def test_a_whole_float_is_an_integer():
    assert check_inputs(read_schema({"x": {"type": "integer"}}), {"x": 5.0}) == {"x": 5.0}


@pytest.mark.parametrize("given", [{}, {"q": None}])
def test_a_required_input_must_be_there_and_is_named(given):
    with pytest.raises(Invalid, match="'q' is required") as refused:
        check_inputs(read_schema({"q": {"type": "text", "required": True}}), given)
    assert (refused.value.status, refused.value.code) == (422, "missing_input")
    assert refused.value.location == ("body", "inputs", "q")


def test_defaults_stand_in_and_nulls_count_as_absent():
    schema = read_schema({"a": {"default": "x", "required": True}, "b": {"type": "boolean", "default": False}, "c": {}})
    assert check_inputs(schema, {"a": None, "c": None, "extra": 1, "none": None}) == {"a": "x", "b": False, "extra": 1}


def test_only_listed_values_are_allowed():
    schema = read_schema({"x": {"type": "string", "enum": ["a", "b"]}})
    assert check_inputs(schema, {"x": "a"}) == {"x": "a"}
    with pytest.raises(Invalid, match="must be one of") as refused:
        check_inputs(schema, {"x": "c"})
    assert refused.value.code == "input_not_allowed"


def test_inputs_have_a_size_limit():
    check_inputs({}, {"x": "a" * (MAX_BYTES - 8)})
    with pytest.raises(Invalid) as refused:
        check_inputs({}, {"x": "a" * (MAX_BYTES - 7)})
    assert refused.value.code == "inputs_too_large"
