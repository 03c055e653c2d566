"""What every vector index promises. One suite, run over every adapter."""

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.documents import Scope
from domain.errors import Invalid
from domain.features import VectorSpec
from domain.filters import And, Condition, Not, Operator, Or, matches, parse
from storage.ports import Point

WIDTH = 8


def spec(name: str = "standin", dimensions: int = WIDTH) -> VectorSpec:
    return VectorSpec("m", name, "revision", dimensions)


def unit(*numbers: float) -> np.ndarray:
    vector = np.zeros(WIDTH, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def point(document: str, vector=None, *, source="obj_1", collection="col_1", version=1, epoch=1, **fields) -> Point:
    return Point(document, collection, source, version, epoch, fields, unit(1.0) if vector is None else vector)


@pytest.fixture
def scope(unique) -> Scope:
    return Scope(f"org_{unique}", f"ns_{unique}")


def found(index, scope, query=None, collections=("col_1",), **more) -> list[str]:
    query = unit(1.0) if query is None else query
    hits = index.search(
        scope, more.pop("spec", spec()), query, collection_ids=list(collections), limit=more.pop("limit", 10), **more
    )
    return [hit.document_id for hit in hits]


def test_writing_a_point_twice_keeps_one(index, scope):
    for _ in range(2):
        index.upsert(scope, spec(), [point("doc_1")])
    assert index.count_all(scope, "col_1") == 1
    assert found(index, scope) == ["doc_1"]


def test_an_older_epoch_leaves_the_newer_point_alone(index, scope):
    index.upsert(scope, spec(), [point("doc_1", unit(1.0), epoch=7)])
    index.upsert(scope, spec(), [point("doc_1", unit(0.0, 1.0), epoch=6)])
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_1": 7}
    assert index.search(scope, spec(), unit(1.0), collection_ids=["col_1"], limit=1)[0].score == pytest.approx(
        1.0, abs=1e-4
    )


def test_the_same_epoch_may_write_again(index, scope):
    index.upsert(scope, spec(), [point("doc_1", unit(1.0), epoch=7)])
    index.upsert(scope, spec(), [point("doc_1", unit(0.0, 1.0), epoch=7)])
    assert index.search(scope, spec(), unit(0.0, 1.0), collection_ids=["col_1"], limit=1)[0].score == pytest.approx(
        1.0, abs=1e-4
    )


def test_a_lower_object_version_never_replaces_a_higher_one_whatever_its_epoch(index, scope):
    index.upsert(scope, spec(), [point("doc_1", version=2, epoch=5)])
    index.upsert(scope, spec(), [point("doc_1", version=1, epoch=9)])
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_1": 5}
    index.upsert(scope, spec(), [point("doc_1", version=3, epoch=4)])
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_1": 4}


def test_points_of_several_versions_go_in_one_call(index, scope):
    index.upsert(scope, spec(), [point(f"doc_{n}", source=f"obj_{n}", version=n, epoch=n) for n in range(1, 6)])
    assert index.count_all(scope, "col_1") == 5


def test_surplus_parts_go_and_others_stay(index, scope):
    index.upsert(scope, spec(), [point(f"doc_{n}", epoch=1) for n in range(3)])
    index.upsert(scope, spec(), [point("doc_0", epoch=2), point("doc_x", source="obj_2", epoch=1)])
    index.delete_older(scope, "col_1", ["obj_1"], 2)
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_0": 2}
    assert index.epochs(scope, "col_1", "obj_2") == {"doc_x": 1}
    assert index.count(scope, "col_1", ["obj_1", "obj_2"], 2) == 1


def test_scopes_never_see_each_other(index, scope):
    others = [Scope(scope.organization_id, "ns_other"), Scope("org_other", scope.namespace_id)]
    for one in (scope, *others):
        index.upsert(one, spec(), [point("doc_1")])
    index.delete_namespace(others[0])
    index.delete(others[1], ["doc_1"], up_to_epoch=2**60)
    assert found(index, scope) == ["doc_1"]
    assert index.count_all(scope, "col_1") == 1
    for one in others:
        assert found(index, one) == []
        assert index.epochs(one, "col_1", "obj_1") == {}


def test_results_are_nearest_first_and_ties_are_ordered_by_id(index, scope):
    index.upsert(
        scope, spec(), [point(f"doc_{n:02}", unit(1.0)) for n in (3, 1, 2, 5, 4)] + [point("doc_00", unit(1.0, 1.0))]
    )
    assert found(index, scope) == ["doc_01", "doc_02", "doc_03", "doc_04", "doc_05", "doc_00"]
    assert found(index, scope, limit=2) == ["doc_01", "doc_02"]


def test_among_many_equals_the_first_ids_come_first_however_few_are_asked_for(index, scope):
    """Equal texts are common, and an engine cuts through equals as it likes."""
    order = np.random.default_rng(1).permutation(300)
    index.upsert(scope, spec(), [point(f"doc_{n:03}", unit(1.0)) for n in order])
    for limit in (1, 7, 299):
        assert found(index, scope, limit=limit) == [f"doc_{n:03}" for n in range(limit)]


def test_the_nearest_are_those_of_an_exhaustive_comparison(index, scope):
    random = np.random.default_rng(7)
    vectors = random.standard_normal((200, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.upsert(scope, spec(), [point(f"doc_{n:03}", vector) for n, vector in enumerate(vectors)])
    for vector in vectors[:5] + 0.1:
        query = vector / np.linalg.norm(vector)
        nearest = np.argsort(-(vectors @ query), kind="stable")[:10]
        hits = index.search(scope, spec(), query, collection_ids=["col_1"], limit=10)
        assert [hit.document_id for hit in hits] == [f"doc_{n:03}" for n in nearest]
        assert [hit.score for hit in hits] == pytest.approx([float(vectors[n] @ query) for n in nearest], abs=1e-5)


def test_scores_are_cosine_similarities(index, scope):
    index.upsert(scope, spec(), [point("doc_1", unit(1.0, 1.0))])
    hit = index.search(scope, spec(), unit(1.0), collection_ids=["col_1"], limit=1)[0]
    assert hit.score == pytest.approx(2**-0.5, abs=1e-5)


def test_a_search_stays_inside_its_collections_and_ids(index, scope):
    index.upsert(
        scope, spec(), [point("doc_1"), point("doc_2", collection="col_2"), point("doc_3", collection="col_3")]
    )
    assert found(index, scope, collections=["col_1", "col_3"]) == ["doc_1", "doc_3"]
    assert found(index, scope, collections=[]) == []
    everywhere = ["col_1", "col_2", "col_3"]
    assert found(index, scope, collections=everywhere, document_ids=["doc_2", "doc_9"]) == ["doc_2"]
    assert found(index, scope, collections=everywhere, document_ids=[]) == []


def test_an_unknown_kind_of_vector_finds_nothing(index, scope):
    assert found(index, scope, spec=spec("never_written")) == []


def test_two_kinds_of_vectors_live_side_by_side(index, scope):
    index.upsert(scope, spec(), [point("doc_1")])
    index.upsert(scope, spec("other"), [point("doc_2", collection="col_2")])
    assert found(index, scope, collections=["col_1", "col_2"]) == ["doc_1"]
    assert found(index, scope, collections=["col_1", "col_2"], spec=spec("other")) == ["doc_2"]
    index.delete_namespace(scope)
    assert index.count_all(scope, "col_2") == 0


def test_a_vector_of_the_wrong_width_is_refused_by_name(index, scope):
    with pytest.raises(Invalid) as refused:
        index.upsert(scope, spec(), [point("doc_1", np.ones(3, dtype=np.float32))])
    assert refused.value.code == "vector_schema_mismatch"


def test_a_query_of_the_wrong_width_is_refused_by_name(index, scope):
    index.upsert(scope, spec(), [point("doc_1")])
    with pytest.raises(Invalid) as refused:
        found(index, scope, np.ones(3, dtype=np.float32))
    assert refused.value.code == "vector_schema_mismatch"


def test_naming_nothing_deletes_and_counts_nothing(index, scope):
    index.upsert(scope, spec(), [point("doc_1", epoch=1)])
    index.delete(scope, [], up_to_epoch=2**60)
    index.delete_older(scope, "col_1", [], 2**60)
    assert index.count(scope, "col_1", [], 1) == 0
    assert index.count_all(scope, "col_1") == 1


def test_every_part_of_a_long_source_is_listed(index, scope, monkeypatch):
    monkeypatch.setattr("storage.vectors.embedded._PAGE", 7)
    monkeypatch.setattr("storage.vectors.server._SCROLL", 7)
    index.upsert(scope, spec(), [point(f"doc_{n}", epoch=3) for n in range(30)])
    assert index.epochs(scope, "col_1", "obj_1") == {f"doc_{n}": 3 for n in range(30)}


def test_deleting_spares_what_is_newer(index, scope):
    index.upsert(scope, spec(), [point("doc_1", epoch=5), point("doc_2", epoch=6), point("doc_3", collection="col_2")])
    index.delete(scope, ["doc_1", "doc_2"], up_to_epoch=5)
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_2": 6}
    index.delete_collection(scope, "col_1", up_to_epoch=6)
    assert index.count_all(scope, "col_1") == 0
    assert index.count_all(scope, "col_2") == 1


def test_an_empty_write_and_points_without_a_vector_are_no_error(index, scope):
    index.upsert(scope, spec(), [])
    index.upsert(scope, None, [Point("doc_1", "col_1", "obj_1", 1, 1, {}, None)])
    assert index.count_all(scope, "col_1") == 0


def test_the_index_says_that_it_is_well(index):
    index.check()
    assert index.settle() == 0.0


PATHS = [
    "a",
    "b",
    "a.b",
    "metadata.a",
    "metadata.metadata.a",
    "metadata",
    "n",
    'odd"key',
    "it's",
    "$x",
    "a.b.c",
    "a\x1fb",
]
LARGEST = sys.float_info.max
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3),
    st.sampled_from([0.5, -0.0, 2.0, 1e20, 2**53 + 1, 10**400, -(10**400), LARGEST]),
    st.sampled_from(["", "x", "5", "5.0", "true", "X", "ü", "long " * 40, "\x1f", "b\x1fx", "\x00"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c", "x.y"]), inner, max_size=3)
    ),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.sampled_from([*PATHS, "metadata"]), VALUES, max_size=5)
OPERATORS = st.sampled_from(["eq", "ne", "gt", "lt", "gte", "lte", "contains"])
PLAIN = st.sampled_from(
    [
        True,
        False,
        0,
        2,
        -1,
        0.5,
        1e20,
        2**53,
        10**400,
        LARGEST,
        -LARGEST,
        "x",
        "5",
        "1e999",
        "true",
        "",
        "ü",
        "long " * 40,
    ]
)


def conditions():
    one = st.builds(
        lambda path, operator, value: Condition(path, Operator(operator), (value,)),
        st.sampled_from(PATHS),
        OPERATORS,
        PLAIN,
    )
    many = st.builds(
        lambda path, operator, values: Condition(path, Operator(operator), tuple(values)),
        st.sampled_from(PATHS), st.sampled_from(["in", "nin"]), st.lists(PLAIN, max_size=3),
    )  # fmt: skip
    flags = st.builds(
        lambda path, operator, value: Condition(path, Operator(operator), (value,)),
        st.sampled_from(PATHS), st.sampled_from(["exists", "is_null"]), st.booleans(),
    )  # fmt: skip
    return st.one_of(one, many, flags)


FILTERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda members: And(tuple(members)), st.lists(inner, max_size=3)),
        st.builds(lambda members: Or(tuple(members)), st.lists(inner, max_size=3)),
    ),
    max_leaves=4,
)


@settings(
    max_examples=40,  # with 15 to 25 filters over 5 to 15 documents: about 8,000 pairs for each adapter
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(documents=st.lists(DOCUMENTS, min_size=5, max_size=15), filters=st.lists(FILTERS, min_size=15, max_size=25))
def test_filters_mean_in_the_index_what_they_mean_in_python(index, scope, documents, filters):
    index.delete_namespace(scope)
    index.upsert(
        scope,
        spec(),
        [Point(f"doc_{n:03}", "col_1", f"obj_{n}", 1, 1, fields, unit(1.0)) for n, fields in enumerate(documents)],
    )
    for wanted in filters:
        if not index.supports(wanted):
            with pytest.raises(ValueError, match="cannot answer"):
                found(index, scope, filter=wanted)
            continue
        expected = [f"doc_{n:03}" for n, fields in enumerate(documents) if matches(wanted, fields)]
        assert found(index, scope, filter=wanted, limit=100) == expected, wanted


def test_a_filter_that_tokens_cannot_answer_is_not_supported(index):
    assert not index.supports(parse({"field": "a", "operator": "contains", "value": "x"}))
    assert not index.supports(parse({"field": "a", "operator": "gt", "value": "2024-01-01"}))
    assert not index.supports(parse({"field": "a", "operator": "lt", "value": 10**400}))
    assert not index.supports(parse({"OR": [{"a": 1}, {"NOT": {"field": "a", "operator": "lt", "value": "x"}}]}))
    assert not index.supports(Condition("a" * 600, Operator.EXISTS, (False,)))
    assert index.supports(parse({"field": "a", "operator": "gt", "value": 5}))


def test_text_of_a_user_never_reaches_the_engine_as_a_key(index, scope):
    fields = {"a[0].b": 1, "x[]": {"y": 2}, "tenant": "org_other/ns_other", "collection_id": "col_2", "epoch": 99}
    index.upsert(scope, spec(), [Point("doc_1", "col_1", "obj_1", 1, 4, fields, unit(1.0))])
    assert index.epochs(scope, "col_1", "obj_1") == {"doc_1": 4}
    for asked in ({"a[0].b": 1}, {"x[].y": 2}, {"tenant": "org_other/ns_other"}, {"epoch": 99}):
        assert found(index, scope, filter=parse(asked)) == ["doc_1"]
    assert found(index, scope, filter=parse({"epoch": 4})) == []
