"""Three spellings of stages come in, one goes out."""

import pytest

from domain.errors import Invalid
from retrieval.spelling import MAX_STAGES, read_stages

PARAMETERS = {"limit": 3}
SHOWN = {
    "stage_name": "limit",
    "stage_type": "reduce",
    "config": {"stage_id": "limit", "parameters": PARAMETERS},
    "parameters": PARAMETERS,
    "on_error": "error",
}


def shown(*raw):
    return [one.shown() for one in read_stages(list(raw))]


@pytest.mark.parametrize(
    "raw",
    [
        {"stage_name": "limit", "stage_type": "reduce", "config": {"stage_id": "limit", "parameters": PARAMETERS}},
        {"config": {"stage_id": "limit", "parameters": PARAMETERS}, "parameters": {"limit": 9}},
        {"config": {"stage_id": "limit"}, "parameters": PARAMETERS},
        {"config": {"stage_id": "limit", "limit": 3}},
        {"config": {"parameters": PARAMETERS}, "stage_id": "limit"},
        {"stage_type": "group", "stage_id": "limit", "parameters": PARAMETERS, "version": "v1", "batch_size": 5},
        {"stage_id": "limit", "limit": 3},
        {"type": "limit", "limit": 3},
        {"type": "limit", "parameters": PARAMETERS},
        {"stage_name": None, "stage_type": None, "config": None, "type": "limit", "limit": 3, "on_error": None},
        {"config": {}, "stage_id": "limit", "parameters": PARAMETERS, "output_alias": ""},
    ],
)
def test_every_spelling_is_shown_as_the_new_one(raw):
    assert shown(raw) == [SHOWN]


def test_what_is_shown_reads_as_itself():
    raw = {
        "stage_name": "mine",
        "config": {"stage_id": "limit", "parameters": {}, "pre_filters": {"a": 1}, "post_filters": {"b": 2}},
        "on_error": "skip",
        "output_alias": "few",
    }
    once = shown(raw)
    assert shown(*once) == once
    assert (once[0]["config"]["pre_filters"], once[0]["config"]["post_filters"]) == ({"a": 1}, {"b": 2})
    assert (once[0]["on_error"], once[0]["output_alias"]) == ("skip", "few")


def test_filters_beside_flat_parameters_are_not_parameters():
    (spec,) = read_stages([{"type": "limit", "limit": 3, "pre_filters": {"a": 1}, "post_filters": {"b": 1}}])
    assert (spec.parameters, spec.pre_filters, spec.post_filters) == ({"limit": 3}, {"a": 1}, {"b": 1})


def test_names_are_made_unique_whatever_others_are_called():
    names = [None, None, "limit_2", "limit", "limit_2"]
    stages = [{"stage_id": "limit", "stage_name": name} for name in names]
    assert [one["stage_name"] for one in shown(*stages)] == ["limit", "limit_2", "limit_2_2", "limit_3", "limit_2_3"]


@pytest.mark.parametrize(
    ("retired", "stage_id"), [("filter", "attribute_filter"), ("feature_filter", "feature_search")]
)
def test_retired_names_mean_their_successors(retired, stage_id):
    assert shown({"stage_id": retired, "parameters": {}})[0]["config"]["stage_id"] == stage_id


@pytest.mark.parametrize(
    ("raw", "code", "location"),
    [
        ({"config": {"stage_id": "nope"}}, "unknown_stage", ("config", "stage_id")),
        ({"stage_id": "nope"}, "unknown_stage", ("stage_id",)),
        ({"type": "nope"}, "unknown_stage", ("type",)),
        ({"config": {"stage_id": "rerank"}}, "not_offered", ("config", "stage_id")),
        ({"type": "moment_group"}, "not_offered", ("type",)),
        ({"stage_name": "x"}, "invalid", ("stage_id",)),
        ({"stage_id": 5}, "invalid", ("stage_id",)),
        ({"config": {"parameters": {}}}, "invalid", ("config", "stage_id")),
        ("limit", "invalid", ()),
        ({"stage_id": "limit", "parameters": [1]}, "invalid", ("parameters",)),
        ({"config": {"stage_id": "limit", "parameters": "x"}}, "invalid", ("config", "parameters")),
        ({"stage_id": "limit", "on_error": "ignore"}, "invalid", ("on_error",)),
    ],
)
def test_what_cannot_be_read_is_refused_where_it_stands(raw, code, location):
    with pytest.raises(Invalid) as refused:
        read_stages([{"stage_id": "limit"}, raw])
    assert (refused.value.code, refused.value.location) == (code, ("body", "stages", 1, *location))


def test_an_unknown_stage_is_answered_with_the_known_ones():
    with pytest.raises(Invalid, match="Known: attribute_filter, feature_search, limit, sort_attribute"):
        read_stages([{"stage_id": "nope"}])


def test_there_is_at_least_one_stage_and_at_most_twenty():
    assert len(read_stages([{"stage_id": "limit"}] * MAX_STAGES)) == MAX_STAGES
    for raw in ([], [{"stage_id": "limit"}] * (MAX_STAGES + 1)):
        with pytest.raises(Invalid) as refused:
            read_stages(raw)
        assert refused.value.location == ("body", "stages")


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({"conditions": {"lang": "de"}}, {"lang": "de"}),
        ({"conditions": [{"a": 1}, {"b": 2}]}, {"AND": [{"a": 1}, {"b": 2}]}),
        ({"field": "lang", "value": "de"}, {"field": "lang", "operator": "eq", "value": "de"}),
        ({"OR": [{"a": 1}]}, {"OR": [{"a": 1}]}),
        ({"OR": [{"a": 1}], "conditions": {"b": 2}}, {"AND": [{"b": 2}, {"OR": [{"a": 1}]}]}),
    ],
)
def test_a_filter_ahead_of_the_first_search_becomes_its_pre_filter(parameters, wanted):
    search = {"type": "feature_search", "query": "x"}
    (only,) = read_stages([{"type": "attribute_filter", **parameters}, search])
    assert (only.stage_id, only.pre_filters) == ("feature_search", wanted)
    (both,) = read_stages([{"type": "attribute_filter", **parameters}, {**search, "pre_filters": {"z": 1}}])
    assert both.pre_filters == {"AND": [wanted, {"z": 1}]}


@pytest.mark.parametrize(
    "ahead",
    [
        {"conditions": None},
        {"natural_language": "cheap", "conditions": {"a": 1}},
        {"conditions": {"a": 1}, "on_error": "skip"},
        {"conditions": {"a": 1}, "post_filters": {"b": 1}},
    ],
)
def test_a_filter_that_is_more_than_a_filter_stays_a_stage(ahead):
    assert len(read_stages([{"type": "attribute_filter", **ahead}, {"type": "feature_search", "query": "x"}])) == 2


def test_a_filter_behind_a_search_stays_where_it_is():
    raw = [{"type": "feature_search", "query": "x"}, {"type": "attribute_filter", "conditions": {"a": 1}}]
    assert [one.stage_id for one in read_stages(raw)] == ["feature_search", "attribute_filter"]
