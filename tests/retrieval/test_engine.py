"""The engine: what it refuses when a pipeline is made, and what it does when one runs."""

import pytest

from domain.errors import Invalid, Unavailable
from domain.filters import parse
from retrieval import engine
from retrieval.contract import Category, StageParameters
from retrieval.registry import STAGES
from retrieval.spelling import read_stages
from retrieval.templates import MissingInput

ALL = {"type": "attribute_filter", "conditions": {"field": "number", "operator": "gte", "value": 0}}
LIMIT = {"type": "limit", "limit": 100}


def search(query="fig", **more):
    return {
        "stage_name": "search",
        "config": {"stage_id": "feature_search", "parameters": {"query": query, "limit": 32}, **more},
    }


@pytest.fixture
def stage(monkeypatch):
    """Register a stage for one test."""

    def register(name, act, category=Category.APPLY):
        class Planted:
            """A stage of a test."""

            icon = "x"
            Parameters = StageParameters

            def __init__(self, parameters):
                self.parameters = parameters

            def run(self, documents, context, *, first):
                return act(documents, context, first)

        Planted.category = category
        STAGES.find(name)
        monkeypatch.setitem(STAGES._plugins, name, Planted)
        return {"type": name}

    return register


@pytest.mark.parametrize(
    ("raw", "schema", "code", "location"),
    [
        ({"type": "limit", "limit": "{{INPUT.k}}"}, {"q": {}}, "unknown_input", ("limit",)),
        (
            {"stage_id": "limit", "parameters": {"limit": "{{INPUT.k}}"}},
            {"q": {}},
            "unknown_input",
            ("parameters", "limit"),
        ),
        ({"type": "limit", "limit": "{{nope}}"}, {}, "unknown_template_name", ("limit",)),
        ({"type": "limit", "limit": "{{DOC.k}}"}, {}, "template_name_not_here", ("limit",)),
        ({"type": "limit", "limit": "{{nope()}}"}, {}, "unknown_template_function", ("limit",)),
        ({"type": "limit", "limit": "{{INPUT.k}}", "offset": "x"}, {}, "stage_parameters_wrong", ("offset",)),
        (
            {**LIMIT, "pre_filters": {"field": "a", "operator": "like", "value": 1}},
            {},
            "unknown_operator",
            ("pre_filters", "operator"),
        ),
        (
            {**LIMIT, "post_filters": {"OR": [{"field": "a", "operator": "like", "value": "{{INPUT.x}}"}]}},
            {},
            "unknown_operator",
            ("post_filters", "OR", 0, "operator"),
        ),
        ({**LIMIT, "post_filters": {"a": "{{INPUT.x}}"}}, {"y": {}}, "unknown_input", ("post_filters", "a")),
        (
            {
                "type": "attribute_filter",
                "conditions": {"field": "a", "value": {"type": "dynamic", "field": "inputs.x"}},
            },
            {"y": {}},
            "unknown_input",
            ("conditions", "value"),
        ),
        (
            {"type": "attribute_filter", "conditions": {"field": "a", "value": {"type": "dynamic", "field": "x}}"}}},
            {},
            "dynamic_value_malformed",
            (),
        ),
        (
            search(pre_filters={"field": "a", "operator": "in", "value": "x"}),
            {},
            "invalid",
            ("config", "pre_filters", "value"),
        ),
    ],
)
def test_what_could_never_run_is_refused_when_it_is_made(refusal, raw, schema, code, location):
    error = refusal(raw, schema=schema)
    assert (error.code, error.location) == (code, ("body", "stages", 0, *location))


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "limit", "limit": "{{INPUT.k}}"},
        search("{{INPUT.k}}"),
        search({"input_mode": "vector", "values": "{{INPUT.k}}"}),
        search("x", pre_filters="{{INPUT.k}}"),
        search("x", pre_filters={"AND": ["{{INPUT.k}}", {"field": "a", "operator": "in", "value": "{{INPUT.k}}"}]}),
        search("x", post_filters={"field": "{{INPUT.k}}", "operator": "{{INPUT.k}}", "value": "{{INPUT.k}}"}),
        search("x", post_filters={"NOT": {"field": "a", "operator": "exists", "value": "{{INPUT.k}}"}}),
        {"type": "feature_search", "searches": "{{INPUT.k}}"},
        {"type": "feature_search", "searches": [{"query": "x", "top_k": "{{INPUT.k}}", "weight": "{{INPUT.k}}"}]},
        {"type": "attribute_filter", "conditions": "{{INPUT.k}}"},
        {"type": "attribute_filter", "field": "a", "operator": "in", "value": "{{INPUT.k}}"},
        {"type": "sort_attribute", "field": "{{INPUT.k}}", "direction": "{{INPUT.k}}"},
    ],
)
def test_what_a_template_may_still_bring_is_not_held_against_it(raw):
    engine.check(read_stages([raw]), {"k": {}})


def test_statistics_tell_what_each_stage_did(run):
    execution = run(ALL, LIMIT, {"stage_name": "few", "stage_id": "limit", "parameters": {"limit": 8}})
    assert list(execution.stages) == ["attribute_filter", "limit", "few"]
    for name, before, after, efficiency in (
        ("attribute_filter", 0, 32, 1.0),
        ("limit", 32, 32, 1.0),
        ("few", 32, 8, 0.25),
    ):
        told = execution.stages[name]
        assert (told["input_count"], told["output_count"], told["efficiency"]) == (before, after, efficiency)
        assert 0 <= told["duration_ms"] <= execution.total_ms


def test_templates_are_filled_with_their_types_and_statistics(found):
    templated = {"type": "limit", "limit": "{{INPUT.k}}", "offset": "{{ max(INPUT.k, 1) }}"}
    assert found(ALL, templated, inputs={"k": 3}) == found(ALL)[3:6]
    some = {**LIMIT, "limit": 20, "output_alias": "some"}
    counted = {"type": "limit", "limit": "{{STAGE.some.output_count}}"}
    assert len(found(ALL, some, {"type": "limit", "limit": "{{STAGE.limit.output_count}}"}, counted)) == 20


def test_templates_know_the_clock_and_secrets(found, run):
    early = {"field": "_internal.created_at", "operator": "lt", "value": "{{time_ago(days=2)}}"}
    late = {"field": "_internal.created_at", "operator": "lt", "value": "{{utc_now()}}"}
    assert found(ALL, LIMIT, {"type": "attribute_filter", "conditions": late}) == found(ALL)
    assert found(ALL, LIMIT, {"type": "attribute_filter", "conditions": {"AND": [early, {"number": 31}]}}) == []
    by_secret = {"type": "attribute_filter", "conditions": {"lang": "{{SECRET.lang}}"}}
    assert len(found(by_secret, secrets={"lang": "de"})) == 11
    with pytest.raises(Invalid, match="no secret"):
        run(by_secret)


def test_an_input_is_text_even_if_it_looks_like_a_template(found):
    assert (
        found({"type": "attribute_filter", "conditions": {"lang": "{{INPUT.lang}}"}}, inputs={"lang": "{{SECRET.x}}"})
        == []
    )


def test_a_missing_input_is_an_error_outside_filters(run):
    with pytest.raises(MissingInput) as refused:
        run(search("{{INPUT.q}}"))
    assert (refused.value.code, refused.value.location) == ("missing_input", ("body", "inputs", "q"))


@pytest.mark.parametrize(
    ("stage", "dropped", "left"),
    [
        ({"conditions": {"field": "lang", "value": "{{INPUT.x}}"}}, ["lang"], 32),
        ({"conditions": {"lang": "{{INPUT.x}}"}}, ["lang"], 32),
        ({"conditions": "{{INPUT.x}}"}, [None], 32),
        ({"field": "lang", "operator": "eq", "value": "{{INPUT.x}}"}, ["lang"], 32),
        ({"field": "lang", "value": {"type": "dynamic", "field": "inputs.x"}}, ["lang"], 32),
        ({"field": "lang", "value": {"field": "INPUT.x"}, "conditions": {"tags": "odd"}}, ["lang"], 16),
        ({"AND": [{"lang": "{{INPUT.x}}"}, {"tags": "odd"}]}, ["lang"], 16),
        ({"OR": [{"lang": "{{INPUT.x}}"}, {"field": "tags", "value": "odd"}]}, ["lang"], 16),
        ({"NOT": {"field": "lang", "value": "{{INPUT.x}}"}}, ["lang"], 32),
        ({"NOT": [{"lang": "a {{INPUT.x}}"}, {"tags": "{{INPUT.tag}}"}]}, ["lang"], 16),
        (
            {"conditions": {"lang": "{{INPUT.x}}", "tags": "{{INPUT.tag}}", "number": "{{INPUT.y}}"}},
            ["lang", "number"],
            16,
        ),
    ],
)
def test_a_condition_whose_input_was_not_given_is_dropped_and_reported(run, stage, dropped, left):
    execution = run({"type": "attribute_filter", **stage}, inputs={"tag": "odd"})
    assert len(execution.documents) == left
    assert [one["field"] for one in execution.relaxations] == dropped
    assert all("was not given" in one["reason"] for one in execution.relaxations)


def test_conditions_are_dropped_wherever_a_stage_holds_a_filter(run, shelf):
    lang = {"lang": "{{INPUT.lang}}"}
    stage = {"type": "feature_search", "searches": [{"query": "fig", "filters": lang}], "filters": lang,
             "pre_filters": lang, "post_filters": lang, "final_top_k": 100}  # fmt: skip
    assert len(run(stage).documents) == 32
    assert len(run(stage).relaxations) == 4
    assert {one.fields["lang"] for one in run(stage, inputs={"lang": "de"}).documents} == {"de"}
    assert run(stage, inputs={"lang": "de"}).relaxations == []


def test_a_dynamic_value_is_the_input_it_names(found):
    wanted = {"field": "number", "operator": "eq", "value": {"type": "dynamic", "field": "inputs.who.number"}}
    for conditions in (wanted, {"AND": [wanted]}, {"NOT": {"NOT": wanted}}, [wanted]):
        stage = {"type": "attribute_filter", "conditions": conditions}
        assert found(stage, inputs={"who": {"number": 7}}) == ["doc_07"]


def test_post_filters_and_pre_filters_hold_for_every_stage(found):
    odd, german = {"tags": "odd"}, {"lang": "de"}
    expected = [one for one in found(ALL) if int(one[4:]) % 2 and int(one[4:]) % 3 == 1]
    assert found({**ALL, "pre_filters": odd, "post_filters": german}) == expected
    assert found(ALL, {**LIMIT, "pre_filters": odd, "post_filters": german}) == expected
    assert sorted(found(search(pre_filters=odd, post_filters=german))) == sorted(expected)


def test_the_callers_filter_holds_for_every_search_and_stays_when_a_stage_adds_its_own(found, shelf):
    found(search(pre_filters={"tags": "odd"}), search(), wanted=parse({"lang": "de"}))
    assert [request.filter for request, _ in shelf.asked] == [
        parse({"AND": [{"lang": "de"}, {"tags": "odd"}]}),
        parse({"lang": "de"}),
    ]


def test_a_failing_stage_ends_the_pipeline_unless_it_may_be_skipped(run, stage):
    def fail(documents, context, first):
        raise Unavailable("web", "it is raining")

    broken = stage("broken", fail)
    with pytest.raises(Unavailable):
        run(ALL, LIMIT, broken)
    execution = run(ALL, LIMIT, {**broken, "on_error": "skip"}, {"stage_name": "few", "stage_id": "limit", "limit": 2})
    assert len(execution.documents) == 2
    assert [one["resource"] for one in execution.degraded] == ["broken"]
    assert "raining" in execution.degraded[0]["reason"]
    assert (execution.stages["broken"]["input_count"], execution.stages["broken"]["output_count"]) == (32, 32)


def test_a_stranger_that_breaks_is_skipped_without_telling_its_secrets(run, stage):
    def fail(documents, context, first):
        raise KeyError("password hunter2")

    broken = stage("rude", fail)
    with pytest.raises(KeyError):
        run(broken)
    (told,) = run({**broken, "on_error": "skip"}).degraded
    assert told["reason"] == "It failed with KeyError."


def test_first_is_whoever_begins_the_list(run, stage):
    seen = []

    def look(documents, context, first):
        seen.append((len(documents), first))
        return documents

    def fail(documents, context, first):
        raise Unavailable("web", "it is raining")

    look_stage, broken = stage("look", look), stage("broken", fail, Category.FILTER)
    nothing = {"type": "attribute_filter", "conditions": {"lang": "xx"}}
    assert (
        len(run(look_stage, {**broken, "on_error": "skip"}, {**search(), "stage_name": "s"}, look_stage).documents)
        == 32
    )
    assert seen == [(0, True), (32, False)]
    seen.clear()
    assert run(nothing, look_stage, search()).documents == []
    assert seen == [(0, False)]


def test_a_stage_cannot_change_what_an_earlier_one_gave(run, stage):
    def empty(documents, context, first):
        documents.clear()
        raise Unavailable("web", "it is raining")

    assert len(run(ALL, LIMIT, {**stage("greedy", empty), "on_error": "skip"}).documents) == 32


def test_a_stage_reports_of_itself_in_its_statistics(run, stage):
    def report(documents, context, first):
        context.details["tell"] = {"embed_ms": 1.5}
        context.warnings.append("careful")
        return documents

    execution = run(stage("tell", report))
    assert execution.stages["tell"]["embed_ms"] == 1.5
    assert execution.warnings == ["careful"]
