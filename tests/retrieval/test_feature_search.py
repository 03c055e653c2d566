"""The stage feature_search against a search that compares with every document."""

import pytest

from domain.filters import matches, parse
from retrieval.fusion import reciprocal_rank
from tests.retrieval.shelf import WIDTH, cosine, vector_of

NESTED = {"stage_name": "s", "stage_type": "filter"}


def nested(**parameters):
    return {**NESTED, "config": {"stage_id": "feature_search", "parameters": parameters}}


def brute_force(shelf, text, *, wanted=None, among=None, least=None, collections=None):
    """Return ids by (-score, id), and their scores."""
    query = vector_of(text) if isinstance(text, str) else text
    scored = [
        (-cosine(query, vector_of(document.fields["text"])), document.document_id)
        for document in shelf.documents
        if (wanted is None or matches(parse(wanted), document.fields))
        and (among is None or document.document_id in among)
        and (collections is None or document.collection_id in collections)
    ]
    return [(one, -score) for score, one in sorted(scored) if least is None or -score >= least]


def fused(*rankings):
    """Return ids by reciprocal rank, computed apart from the code under test."""
    scores = {}
    for weight, ranking in rankings:
        for rank, (one, _) in enumerate(ranking, start=1):
            scores[one] = scores.get(one, 0) + weight / (60 + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize(
    "stage",
    [
        nested(searches=[{"query": "apple plum"}]),
        nested(searches=[{"query": {"input_mode": "text", "value": "apple plum"}}]),
        nested(searches=[{"query": {"input_mode": "text", "text": "apple plum"}}]),
        nested(searches=[{"query": {"input_mode": "content", "value": "apple plum"}}]),
        nested(searches=[{"query": {"text": "apple plum"}, "top_k": None, "weight": None, "filters": None}]),
        nested(searches=[{"query": {"input_mode": "vector", "value": vector_of("apple plum")}}]),
        nested(searches=[{"query": {"input_mode": "vector", "values": vector_of("apple plum")}}]),
        nested(searches=[{"query": vector_of("apple plum")}]),
        nested(query="apple plum"),
        nested(feature_uri="mixpeek://text_extractor@v1/x", input="apple plum"),
        nested(feature_uri="mixpeek://text_extractor@v1/x", input={"text": "apple plum"}, limit=25),
        nested(feature_uris=[{"input": {"text": "apple plum"}, "uri": "mixpeek://text_extractor@v1/x"}]),
        {"stage_type": "filter", "stage_id": "feature_search", "parameters": {"query": "apple plum"}},
        {"stage_id": "feature_search", "query": "apple plum"},
        {"type": "feature_search", "feature_extractor": {"type": "text"}, "query": "apple plum", "collection_ids": [],
         "limit": 25},
        {"type": "feature_search", "feature_extractor": {"type": "text"}, "query": "apple plum",
         "collection_ids": [None], "limit": 25},
        {"type": "semantic_search", "query": "apple plum"},
        {"type": "hybrid_search", "query": "apple plum"},
        {"type": "knn_search", "query": "apple plum"},
    ],
)  # fmt: skip
def test_every_spelling_of_one_search_finds_the_nearest_with_their_cosine(run, shelf, stage):
    execution = run(stage)
    assert [(one.document_id, pytest.approx(one.score)) for one in execution.documents] == brute_force(
        shelf, "apple plum"
    )[:25]
    assert execution.warnings == []


def test_a_number_in_a_query_is_a_text(run, shelf):
    run(nested(query="{{INPUT.n}}"), inputs={"n": 5})
    assert [request.query for request, _ in shelf.asked] == ["5"]


@pytest.mark.parametrize(
    ("parameters", "count"),
    [({"limit": 3}, 3), ({"top_k": 30}, 30), ({"final_top_k": 2}, 2), ({"top_k": 9, "final_top_k": 4}, 4), ({}, 25)],
)
def test_flat_limits_say_how_many_come_out(found, shelf, parameters, count):  # fmt: skip
    expected = [one for one, _ in brute_force(shelf, "fig")]
    assert found(nested(query="fig", **parameters)) == expected[:count]


def test_several_searches_are_fused_by_weighted_rank(run, shelf):
    stage = nested(
        searches=[
            {"query": "apple", "top_k": 10},
            {"query": "plum", "top_k": 8, "weight": 2.5, "filters": {"lang": "de"}},
            {"query": vector_of("fig"), "collection_identifiers": ["col_1"], "min_score": 0.5},
        ],
        final_top_k=12,
    )
    expected = fused(
        (1, brute_force(shelf, "apple")[:10]),
        (2.5, brute_force(shelf, "plum", wanted={"lang": "de"})[:8]),
        (1, brute_force(shelf, "fig", collections=["col_1"], least=0.5)),
    )[:12]
    assert [(one.document_id, pytest.approx(one.score)) for one in run(stage).documents] == expected


def test_equal_searches_rank_as_one_and_ties_are_settled_by_id(shelf, run):
    documents = run(nested(searches=[{"query": "apple"}, {"query": "apple"}])).documents
    assert [one.document_id for one in documents] == [one for one, _ in brute_force(shelf, "apple")][:25]
    one, other = shelf.documents[3], shelf.documents[1]
    assert [each.document_id for each in reciprocal_rank([(1, [one]), (1, [other])])] == ["doc_01", "doc_03"]
    assert reciprocal_rank([]) == []


def test_the_filters_of_stage_search_pre_filter_and_caller_all_hold(found, shelf):
    stage = nested(
        searches=[{"query": "apple", "filters": {"tags": "even"}}],
        filters={"field": "number", "operator": "gt", "value": 3},
    )
    stage["config"]["pre_filters"] = {"lang": "en"}
    wanted = {
        "tags": "even",
        "lang": "en",
        "AND": [{"field": "number", "operator": "gt", "value": 3}],
        "NOT": {"number": 12},
    }
    assert found(stage, wanted=parse({"NOT": {"number": 12}})) == [
        one for one, _ in brute_force(shelf, "apple", wanted=wanted)
    ]  # fmt: skip


def test_after_another_stage_only_what_arrived_is_ranked_by_the_new_score(run, shelf):
    first = nested(query="apple", limit=10)
    again = nested(query="plum")
    arrived = {one for one, _ in brute_force(shelf, "apple")[:10]}
    execution = run(first, again)
    assert [(one.document_id, pytest.approx(one.score)) for one in execution.documents] == brute_force(
        shelf, "plum", among=arrived
    )
    assert list(execution.stages) == ["s", "s_2"]


def test_what_arrived_is_searched_however_far_it_is(found):
    farthest = found(nested(query="fig", limit=32), {"type": "limit", "limit": 10, "offset": 22})
    again = nested(query="fig", top_k=3)
    assert found(nested(query="fig", limit=32), {"type": "limit", "limit": 10, "offset": 22}, again) == farthest[:3]


def test_after_an_empty_list_nothing_is_searched(run, shelf):
    nothing = {"type": "attribute_filter", "conditions": {"lang": "xx"}}
    assert run(nothing, {"type": "limit"}, nested(query="plum")).documents == []
    assert shelf.asked == []


def test_what_an_earlier_stage_has_added_stays_with_the_document(run, shelf):
    shelf.documents = [one.with_score(0.0, rerank=0.5) for one in shelf.documents]
    everything = {"type": "attribute_filter", "conditions": {"field": "number", "operator": "gte", "value": 0}}
    found = run(everything, {"type": "limit"}, nested(query="plum")).documents
    assert found
    assert all(one.scores == {"rerank": 0.5} for one in found)


def test_an_empty_query_is_refused(refusal, run):
    for query in ("", "  ", None, {"input_mode": "text", "value": ""}, {}, [], {"input_mode": "vector", "values": []}):
        error = refusal(nested(searches=[{"query": "fig"}, {"query": query}]))
        assert (error.code, error.location[-3:]) == ("empty_query", ("searches", 1, "query"))
    with pytest.raises(type(error), match="empty"):
        run(nested(query="{{INPUT.q}}"), inputs={"q": " "})


def test_an_empty_query_may_be_left_out(run, shelf):
    stage = nested(
        searches=[
            {"query": "fig"},
            {"query": "{{INPUT.more}}", "optional": True},
            {"query": "{{INPUT.other}}", "on_empty": "skip"},
            {"query": "{{INPUT.none}}", "on_empty": "skip"},
        ]
    )
    execution = run(stage, schema={"more": {}, "other": {}, "none": {}}, inputs={"other": " "})
    assert [(one.document_id, pytest.approx(one.score)) for one in execution.documents] == brute_force(shelf, "fig")[
        :25
    ]
    assert execution.warnings == [f"Search {index} was left out: its query is empty." for index in (2, 3)]  # fmt: skip


def test_when_every_search_is_left_out_documents_go_on_as_they_came(found):
    lonely = nested(searches=[{"query": "", "optional": True}])
    assert found(lonely) == []
    assert found({"type": "attribute_filter", "conditions": {"lang": "de"}}, {"type": "limit", "limit": 2}, lonely) == [
        "doc_04",
        "doc_10",
    ]


@pytest.mark.parametrize(
    ("parameters", "code", "location"),
    [
        ({"query": "a", "fusion": "dbsf"}, "not_offered", ("fusion",)),
        ({"query": "a", "fusion": "learned"}, "not_offered", ("fusion",)),
        ({"query": "a", "fusion": "nope"}, "stage_parameters_wrong", ("fusion",)),
        ({"query": "a", "group_by": {"field": "x"}}, "not_offered", ("group_by",)),
        ({"query": "a", "facets": [{"key": "x"}]}, "not_offered", ("facets",)),
        ({"query": "a", "learning_config": {"x": 1}}, "not_offered", ("learning_config",)),
        ({"searches": [{"query": "a", "lexical": True}]}, "not_offered", ("searches", 0, "lexical")),
        ({"searches": [{"query": "a", "on_empty": "random"}]}, "not_offered", ("searches", 0, "on_empty")),
        (
            {"searches": [{"query": {"input_mode": "document", "document_ref": {}}}]},
            "not_offered",
            ("searches", 0, "query", "input_mode"),
        ),
        (
            {"searches": [{"query": {"input_mode": "multi_content"}}]},
            "not_offered",
            ("searches", 0, "query", "input_mode"),
        ),
        ({"searches": []}, "stage_parameters_wrong", ("searches",)),
        ({}, "stage_parameters_wrong", ("searches",)),
        ({"searches": [{"query": "a"}] * 11}, "stage_parameters_wrong", ("searches",)),
        ({"searches": [{"query": "a", "top_k": 5001}]}, "stage_parameters_wrong", ("searches", 0, "top_k")),
        ({"searches": [{"query": "a", "top_k": "many"}]}, "stage_parameters_wrong", ("searches", 0, "top_k")),
        ({"searches": [{"query": "a", "weight": -1}]}, "stage_parameters_wrong", ("searches", 0, "weight")),
        ({"query": "a", "final_top_k": 0}, "stage_parameters_wrong", ("final_top_k",)),
        ({"searches": [{"query": ["a"]}]}, "invalid", ("searches", 0, "query")),
        ({"searches": [{"query": True}]}, "invalid", ("searches", 0, "query")),
        (
            {"searches": [{"query": "a", "feature_uri": "mixpeek://x"}]},
            "feature_uri_malformed",
            ("searches", 0, "feature_uri"),
        ),
        (
            {"searches": [{"query": "a", "filters": {"AND": [{"field": "x", "operator": "like", "value": 1}]}}]},
            "unknown_operator",
            ("searches", 0, "filters", "AND", 0, "operator"),
        ),
    ],
)
def test_what_is_not_offered_or_wrong_is_refused_at_creation(refusal, parameters, code, location):
    error = refusal(nested(**parameters))
    assert (error.code, error.location) == (code, ("body", "stages", 0, "config", "parameters", *location))


def test_parameters_that_are_not_known_are_named(run):
    execution = run(nested(searches=[{"query": "a", "colour": 1}], hard_timeout_ms=5))
    assert execution.warnings == [
        "s: the parameter 'hard_timeout_ms' is not known here and was ignored.",
        "s: the parameter 'searches.colour' is not known here and was ignored.",
    ]


def test_a_vector_of_another_width_is_refused_by_the_corpus(run):
    with pytest.raises(Exception, match=f"{WIDTH + 1} dimensions"):
        run(nested(query=[1.0] * (WIDTH + 1)))
