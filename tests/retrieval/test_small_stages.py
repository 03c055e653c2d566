"""The stages attribute_filter, sort_attribute and limit."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.documents import Document
from domain.filters import matches, parse
from retrieval.contract import Context
from retrieval.registry import STAGES
from retrieval.stages import attribute_filter
from retrieval.stages.sort_attribute import SortAttribute, SortAttributeParameters
from tests.domain.filter_strategies import values

ALL = {"type": "attribute_filter", "conditions": {"field": "number", "operator": "gte", "value": 0}}
SEARCH = {"type": "feature_search", "query": "fig", "limit": 32}
MINIMAL = {
    "attribute_filter": {"field": "a", "value": 1},
    "feature_search": {"query": "a"},
    "limit": {},
    "sort_attribute": {},
}


@pytest.mark.parametrize("stage_id", [name for name, _ in STAGES.items()])
def test_every_stage_describes_itself_and_survives_an_empty_list(stage_id, shelf):
    plugin = STAGES.require(stage_id)
    schema = plugin.Parameters.model_json_schema()
    assert plugin.__doc__
    assert plugin.icon
    assert all(one.get("description") for one in schema["properties"].values()), schema["properties"]
    stage = plugin(plugin.Parameters.model_validate(MINIMAL[stage_id]))
    assert stage.run([], Context(shelf, {}), first=False) == []


def both_ways(condition):
    """The same question after a fetch of everything, and as the first stage."""
    return [[ALL, {"type": "limit", "limit": 100}, condition], [condition]]


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({"field": "lang", "operator": "eq", "value": "de"}, {"lang": "de"}),
        ({"field": "lang", "value": "de"}, {"lang": "de"}),
        ({"field": "lang", "operator": None, "value": "de"}, {"lang": "de"}),
        (
            {"field": "price", "operator": "is_null", "value": True},
            {"field": "price", "operator": "is_null", "value": True},
        ),
        ({"conditions": {"lang": "de"}}, {"lang": "de"}),
        ({"conditions": [{"lang": "de"}, {"tags": "odd"}]}, {"lang": "de", "tags": "odd"}),
        ({"conditions": {"NOT": [{"lang": "de"}]}}, {"NOT": [{"lang": "de"}]}),
        ({"AND": [{"lang": "de"}], "NOT": [{"tags": "odd"}]}, {"AND": [{"lang": "de"}], "NOT": [{"tags": "odd"}]}),
        ({"OR": [{"lang": "de"}], "conditions": {"tags": "odd"}}, {"lang": "de", "tags": "odd"}),
        ({"OR": [{"lang": "de"}], "conditions": [{"tags": "odd"}]}, {"lang": "de", "tags": "odd"}),
        ({"field": "lang", "value": "de", "conditions": {"tags": "odd"}}, {"lang": "de", "tags": "odd"}),
        ({"field": "lang", "operator": "contains", "value": "D", "case_insensitive": True}, {"lang": "de"}),
        ({}, {"NOT": [{"number": -1}]}),
    ],
)
def test_a_filter_keeps_what_matches_in_its_order(found, shelf, parameters, wanted):
    expected = [one.document_id for one in shelf.documents if matches(parse(wanted), one.fields)]
    after, first = both_ways({"stage_id": "attribute_filter", "parameters": parameters})
    assert found(*after) == [one for one in found(ALL) if one in expected]
    assert sorted(found(*first)) == sorted(expected)


def test_a_first_filter_also_obeys_the_callers_filter_and_tells_when_it_took_only_some(run, shelf, monkeypatch):
    monkeypatch.setattr(attribute_filter, "MAX_FIRST", 3)
    execution = run(ALL, wanted=parse({"lang": "de"}))
    assert [one.document_id for one in execution.documents] == [
        "doc_04",
        "doc_10",
        "doc_16",
        "doc_01",
        "doc_07",
        "doc_13",
    ]
    assert execution.warnings == [
        f"More than 3 documents match in {one}; attribute_filter took the oldest." for one in ("col_0", "col_1")
    ]


def test_filters_between_stages_see_scores_and_ids(run):
    scored = run(SEARCH).documents
    median = sorted(one.score for one in scored)[16]
    above = {"type": "attribute_filter", "field": "score", "operator": "gte", "value": median}
    here = {"type": "attribute_filter", "conditions": {"collection_id": "col_1", "NOT": {"document_id": "doc_01"}}}
    expected = [
        one.document_id
        for one in scored
        if one.score >= median and one.collection_id == "col_1" and one.document_id != "doc_01"
    ]
    assert [one.document_id for one in run(SEARCH, above, here).documents] == expected
    post = {**SEARCH, "post_filters": {"field": "score", "operator": "gte", "value": median}}
    assert len(run(post).documents) == len([one for one in scored if one.score >= median])


@pytest.mark.parametrize(
    ("parameters", "code", "location"),
    [
        ({"natural_language": "cheap ones"}, "not_offered", ("natural_language",)),
        ({"field": "a", "value": "x", "case_insensitive": True}, "not_offered", ("case_insensitive",)),
        ({"field": "a", "operator": "like", "value": "x"}, "unknown_operator", ("operator",)),
        ({"field": 5, "value": "x"}, "stage_parameters_wrong", ("field",)),
        ({"conditions": {"a": {"b": 1}}}, "invalid", ("conditions", "a", "value")),
    ],
)
def test_a_filter_that_could_never_run_is_refused(refusal, parameters, code, location):
    error = refusal({"config": {"stage_id": "attribute_filter", "parameters": parameters}})
    assert (error.code, error.location) == (code, ("body", "stages", 0, "config", "parameters", *location))


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"field": "number"}, lambda one: -one.fields["number"]),
        ({"field": "number", "direction": "asc"}, lambda one: one.fields["number"]),
        ({"sort_field": "number", "order": "ASC"}, lambda one: one.fields["number"]),
        ({"field": "metadata.number", "direction": "asc"}, lambda one: one.fields["number"]),
        ({"field": "score", "direction": "asc"}, lambda one: one.score),
        ({"field": "document_id", "direction": "asc"}, lambda one: one.document_id),
        ({"field": "_internal.lineage.part", "direction": "asc"}, lambda one: one.internal["lineage"]["part"]),
        ({"field": "_internal.created_at", "direction": "asc"}, lambda one: one.internal["created_at"]),
        ({}, lambda one: -one.fields["number"]),
        ({"field": None, "direction": None}, lambda one: -one.fields["number"]),
    ],
)
def test_sorting_by_a_field_keeps_ties_in_order(run, parameters, key):
    scored = run(SEARCH).documents
    assert run(SEARCH, {"stage_id": "sort_attribute", "parameters": parameters}).documents == sorted(scored, key=key)


@pytest.mark.parametrize(
    ("parameters", "last"),
    [
        ({}, True),
        ({"nulls_last": False}, False),
        ({"null_handling": "first"}, False),
        ({"null_handling": "last"}, True),
    ],
)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_documents_without_the_field_come_where_they_should_in_both_directions(
    found, shelf, parameters, last, direction
):
    sort = {"stage_id": "sort_attribute", "parameters": {"field": "price", "direction": direction, **parameters}}
    ordered = found(ALL, sort)
    absent = [one for one in found(ALL) if int(one[4:]) % 3 == 0]
    assert (ordered[-len(absent) :] if last else ordered[: len(absent)]) == absent


def sort(found, direction, **more):
    documents = [Document(f"d{index}", "c", {"x": value}) for index, value in enumerate(found)]
    stage = SortAttribute(SortAttributeParameters(field="x", direction=direction, **more))
    return [one.fields["x"] for one in stage.run(documents, None, first=False)]


def test_types_have_an_order_among_themselves():
    mixed = [{"b": 1}, True, "b", 10, [2], "a", False, 2.5, -1, None, "B"]
    ordered = [-1, 2.5, 10, "B", "a", "b", False, True, [2], {"b": 1}]
    assert sort(mixed, "asc") == [*ordered, None]
    assert sort(mixed, "desc") == [*reversed(ordered), None]


@settings(deadline=None, max_examples=100)
@given(st.lists(values, max_size=8), st.sampled_from(["asc", "desc"]))
def test_any_values_sort_into_one_order_whatever_order_they_come_in(found, direction):
    def shown(values):
        return [
            repr(float(one)) if isinstance(one, int | float) and not isinstance(one, bool) else repr(one)
            for one in values
        ]

    def settled(values):
        return [one.replace("-0.0", "0.0") for one in shown(sort(values, direction))]

    expected = settled(found)
    assert sorted(expected) == sorted(one.replace("-0.0", "0.0") for one in shown(found))
    if not any(isinstance(one, dict | list) for one in found):
        assert settled(list(reversed(found))) == expected


@pytest.mark.parametrize(("limit", "offset"), list(itertools.product([1, 5, 32, 100, 10_000], [0, 3, 31, 32, 10_000])))
def test_limit_cuts_a_slice(found, limit, offset):
    assert found(ALL, {"type": "limit", "limit": limit, "offset": offset}) == found(ALL)[offset : offset + limit]


def test_limit_is_ten_unless_said(found):
    assert found(ALL, {"type": "limit"}) == found(ALL)[:10]
    assert found(ALL, {"type": "limit", "limit": None, "offset": None}) == found(ALL)[:10]


@pytest.mark.parametrize(
    "parameters", [{"limit": 0}, {"limit": 10_001}, {"offset": -1}, {"limit": "x"}, {"limit": 1.5}]
)
def test_a_limit_out_of_range_is_refused(refusal, parameters):
    error = refusal({"stage_id": "limit", "parameters": parameters})
    assert (error.code, error.location) == ("stage_parameters_wrong", ("body", "stages", 0, "parameters", *parameters))
