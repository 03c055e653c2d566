"""The filter language: what may be asked, and what it means."""

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.filters import (
    MAX_CLAUSES,
    MAX_DEPTH,
    MAX_LIST,
    And,
    Condition,
    Not,
    Operator,
    Or,
    as_boolean,
    as_number,
    both,
    conditions,
    matches,
    parse,
)
from tests.domain.filter_strategies import documents, filters, raw_filters, values


def holds(fields, path, operator, value=None, **more):
    return matches(parse({"field": path, "operator": operator, "value": value, **more}), fields)


@pytest.mark.parametrize("raw", [None, {}])
def test_nothing_asked_is_no_filter(raw):
    assert parse(raw) is None


def test_three_spellings_of_equality_are_one():
    wanted = Condition("a.b", Operator.EQ, (5,))
    assert parse({"field": "a.b", "operator": "eq", "value": 5}) == wanted
    assert parse({"field": "a.b", "value": 5}) == wanted
    assert parse({"case_sensitive": False, "field": "a.b", "operator": None, "value": 5}) == wanted
    assert parse({"a.b": 5}) == wanted


def test_keys_of_a_group_combine_as_a_conjunction():
    parsed = parse({"AND": [{"a": 1}, {"b": 2}], "OR": [{"c": 3}, {"d": 4}], "NOT": [{"e": 5}, {"f": 6}], "g": 7})
    one = [Condition(path, Operator.EQ, (value,)) for value, path in enumerate("abcdefg", start=1)]
    assert parsed == And((one[0], one[1], Or((one[2], one[3])), Not(one[4]), Not(one[5]), one[6]))


def test_not_takes_a_list_or_one_and_none_of_its_members_may_hold():
    assert parse({"NOT": {"a": 1}}) == parse({"NOT": [{"a": 1}]})
    neither = parse({"NOT": [{"a": 1}, {"b": 1}]})
    assert [matches(neither, one) for one in ({}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1})] == [True, False, False, False]


def test_case_sensitivity_is_inherited_by_what_is_inside():
    parsed = parse({"case_sensitive": True, "AND": [{"a": 1}, {"case_sensitive": False, "OR": [{"b": 1}]}]})
    assert [one.case_sensitive for one in conditions(parsed)] == [True, False]


def test_a_field_may_be_called_field():
    assert parse({"field": "x"}) == Condition("field", Operator.EQ, ("x",))


@pytest.mark.parametrize(
    ("raw", "code", "location"),
    [
        ([], "filter_malformed", ()),
        ("a", "filter_malformed", ()),
        ({"AND": ["a"]}, "filter_malformed", ("AND", 0)),
        ({"AND": [{"a": 1}, {"OR": [5]}]}, "filter_malformed", ("AND", 1, "OR", 0)),
        ({"field": "a", "operator": "like", "value": 1}, "unknown_operator", ("operator",)),
        ({"field": "a", "operator": "regex", "value": "("}, "unknown_operator", ("operator",)),
        ({"field": "a", "operator": {"$ne": 1}, "value": 1}, "unknown_operator", ("operator",)),
        ({"field": "a", "operator": ["eq"], "value": 1}, "unknown_operator", ("operator",)),
        ({"field": "", "value": 1}, "invalid", ("field",)),
        ({"field": 5, "value": 1}, "invalid", ("field",)),
        ({"field": "a" * 513, "value": 1}, "invalid", ("field",)),
        ({"field": ".".join("a" * 17), "value": 1}, "invalid", ("field",)),
        ({"a": {"$gt": 5}}, "invalid", ("a", "value")),
        ({"a": [1]}, "invalid", ("a", "value")),
        ({"field": "a", "operator": "in", "value": "x"}, "invalid", ("value",)),
        ({"field": "a", "operator": "in", "value": [1, [2]]}, "invalid", ("value", 1)),
        ({"field": "a", "operator": "exists", "value": "yes"}, "invalid", ("value",)),
        ({"field": "a", "operator": "exists", "value": 1}, "invalid", ("value",)),
        ({"field": "a", "operator": "gt", "value": None}, "invalid", ("value",)),
    ],
)
def test_what_is_malformed_is_refused_where_it_stands(raw, code, location):
    with pytest.raises(Invalid) as refused:
        parse(raw, location=())
    assert (refused.value.code, refused.value.location) == (code, location)


def test_limits_are_allowed_and_one_more_is_not():
    def deep(levels):
        raw = {"a": 1}
        for _ in range(levels - 1):
            raw = {"AND": [raw, {"b": 1}]}
        return raw

    clause = {"a": 1}
    parse({"OR": [clause] * MAX_CLAUSES})
    parse(deep(MAX_DEPTH))
    parse({"field": "a", "operator": "in", "value": list(range(MAX_LIST))})
    for raw, code in (
        ({"OR": [clause] * (MAX_CLAUSES + 1)}, "filter_too_large"),
        (deep(MAX_DEPTH + 1), "filter_too_deep"),
        (deep(900), "filter_too_deep"),
        ({"field": "a", "operator": "in", "value": list(range(MAX_LIST + 1))}, "invalid"),
    ):
        with pytest.raises(Invalid) as refused:
            parse(raw)
        assert refused.value.code == code


@pytest.mark.parametrize("absent", [{}, {"a": None}])
def test_a_missing_field_fails_every_operator_but_four(absent):
    answers = {
        operator: holds(absent, "a", operator, [1] if operator in {"in", "nin"} else 1)
        for operator in ("eq", "ne", "gt", "lt", "gte", "lte", "in", "nin", "contains")
    }
    assert {operator for operator, answer in answers.items() if answer} == {"ne", "nin"}
    assert holds(absent, "a", "is_null", value=True)
    assert holds(absent, "a", "exists", value=False) == (absent == {})
    assert holds(absent, "a", "eq", None)
    assert not holds(absent, "a", "ne", None)


@pytest.mark.parametrize(
    ("fields", "operator", "value", "answer"),
    [
        ({"a": 5}, "eq", 5.0, True),
        ({"a": 5}, "eq", "5", True),
        ({"a": "5"}, "eq", 5, False),
        ({"a": "5"}, "eq", "5", True),
        ({"a": "5"}, "eq", "5.0", False),
        ({"a": True}, "eq", 1, False),
        ({"a": 1}, "eq", True, False),
        ({"a": True}, "eq", "true", True),
        ({"a": True}, "eq", "True", False),
        ({"a": -0.0}, "eq", 0, True),
        ({"a": 3}, "eq", "\u0663", False),
        ({"a": [1, 2]}, "eq", 2, True),
        ({"a": [1, 2]}, "ne", 2, False),
        ({"a": [[2]]}, "eq", 2, False),
        ({"a": {"b": 2}}, "eq", 2, False),
        ({"a": [1, 9]}, "gt", 8, True),
        ({"a": 10}, "gt", "9", True),
        ({"a": "10"}, "gt", "9", False),
        ({"a": "\uffff"}, "lt", "\U0001f600", True),
        ({"a": "Z"}, "lt", "a", True),
        ({"a": True}, "gte", 0, False),
        ({"a": "Straße"}, "contains", "STRASSE", True),
        ({"a": "abc"}, "contains", "", True),
        ({"a": "5"}, "contains", 5, False),
        ({"a": ["B", 5]}, "contains", "b", True),
        ({"a": ["B", 5]}, "contains", "5", True),
        ({"a": ["abc"]}, "contains", "b", False),
        ({"a": 5}, "contains", 5, False),
    ],
)
def test_values_compare_as_decided(fields, operator, value, answer):
    assert holds(fields, "a", operator, value) is answer


def test_contains_minds_case_only_when_asked():
    assert holds({"a": "ABC"}, "a", "contains", "b")
    assert not holds({"a": "ABC"}, "a", "contains", "b", case_sensitive=True)
    assert not holds({"a": ["B"]}, "a", "contains", "b", case_sensitive=True)


def test_groups_without_members_hold():
    assert all(matches(parse({key: []}), {}) for key in ("AND", "OR", "NOT"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5.0), ("-1.5e3", -1500.0), (".5", 0.5), ("5.", 5.0), ("+0", 0.0), ("1e999", math.inf), ("5 ", None),
     ("0x10", None), ("1_000", None), ("nan", None), ("inf", None), ("", None), ("\u0663", None), ("9" * 301, None)],
)  # fmt: skip
def test_a_text_is_a_number_only_if_written_as_one(text, number):
    assert as_number(text) == number


def test_integers_beyond_doubles_are_infinite_and_break_nothing():
    assert as_number(10**400) == math.inf
    assert as_number(-(10**400)) == -math.inf
    assert holds({"a": 5}, "a", "lt", 10**400)
    assert holds({"a": 10**400}, "a", "gt", 5)


def test_booleans_are_no_numbers_and_the_other_way_round():
    assert as_number(True) is None
    assert as_boolean(1) is None
    assert as_boolean("false") is False


def test_both_demands_what_is_there():
    one, other = parse({"a": 1}), parse({"b": 1})
    assert both(None, None) is None
    assert both(one, None) == both(None, one) == one
    assert both(one, other) == And((one, other))


json_values = st.recursive(values, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)


@settings(deadline=None, max_examples=150)
@given(json_values)
def test_no_json_breaks_the_reader(raw):
    with contextlib.suppress(Invalid):
        parse(raw)


@settings(deadline=None, max_examples=150)
@given(filters, documents)
def test_a_filter_and_its_negation_are_opposites(wanted, document):
    assert matches(Not(wanted), document) is not matches(wanted, document)


@settings(deadline=None, max_examples=100)
@given(raw_filters, documents)
def test_a_filter_means_the_same_however_it_is_wrapped(raw, document):
    answer = matches(parse(raw), document)
    for wrapped in ({"AND": [raw]}, {"OR": [raw]}, {"NOT": {"NOT": raw}}, {"AND": raw}):
        parsed = parse({"NOT": [{"NOT": [raw]}]} if wrapped == {"NOT": {"NOT": raw}} else wrapped)
        assert matches(parsed, document) is answer
