"""A filter means the same in Python, in SQLite and in PostgreSQL."""

import itertools
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, delete, insert, select
from sqlalchemy.dialects import postgresql

from domain.filters import MAX_CLAUSES, MAX_LIST, MAX_STEPS, Not, matches, parse
from storage.database import Database, JsonColumn
from storage.tables.json_filters import compile_filter, folded
from tests.domain.filter_strategies import KEYS, NUMBERS, TEXTS, documents, filters
from tests.services.fixtures import postgres_server  # noqa: F401 - a fixture

TABLE = Table(
    "filtered",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("fields", JsonColumn, nullable=False),
    Column("folded", JsonColumn, nullable=False),
)
NAMES = itertools.count(1)


class Asked:
    """A database that is asked what `domain.filters.matches` also answers."""

    def __init__(self, url):
        self.database = Database(url)
        self.dialect = self.database.engine.dialect.name
        self.compared = 0
        with self.database.writing() as uow:
            TABLE.create(uow.session.connection())

    def answers(self, found, wanted):
        """Return for each document and each filter what the database says, after checking that it is no NULL."""
        rows = [{"id": index, "fields": one, "folded": folded(one)} for index, one in enumerate(found)]
        conditions = [
            compile_filter(one, TABLE.c.fields, TABLE.c.folded, self.dialect).label(f"answer_{index}")
            for index, one in enumerate(wanted)
        ]
        with self.database.writing() as uow:
            uow.session.execute(delete(TABLE))
            uow.session.execute(insert(TABLE), rows)
            matrix = [
                tuple(row)[1:] for row in uow.session.execute(select(TABLE.c.id, *conditions).order_by(TABLE.c.id))
            ]
        assert all(answer in {0, 1} for row in matrix for answer in row), "no condition is NULL"
        self.compared += len(found) * len(wanted)
        return [[bool(answer) for answer in row] for row in matrix]

    def agrees(self, found, wanted):
        """Check every document against every filter."""
        assert self.answers(found, wanted) == [[matches(one, each) for one in wanted] for each in found]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    asked = Asked(f"sqlite:///{tmp_path_factory.mktemp('filters') / 'filters.db'}")
    yield asked
    asked.database.close()


@pytest.fixture(scope="module")
def postgres(postgres_server):  # noqa: F811
    name = f"filters_{next(NAMES)}"
    asked = Asked(postgres_server.create_database(name))
    yield asked
    asked.database.close()
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def asked(request):
    return request.getfixturevalue(request.param)


many = st.lists(documents, min_size=6, max_size=10), st.lists(filters, min_size=5, max_size=8)
patiently = settings(
    max_examples=75,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@patiently
@given(*many)
def _agree_everywhere(asked, found, wanted):
    asked.agrees(found, wanted)


def test_random_filters_find_in_the_database_what_they_find_in_python(asked):
    _agree_everywhere(asked)
    assert asked.compared >= 3_000


@pytest.mark.parametrize("key", [key for key in KEYS if key])
def test_no_key_means_anything_but_itself(asked, key):
    found = [{key: "here"}, {"other": {key: 5}}, {"other": [{key: 5}]}, {"other": 5}, {}]
    wanted = [
        parse({"field": path, "operator": operator, "value": value})
        for path in (key, f"other.{key}", f"metadata.{key}", f"other.{key}.{key}")
        for operator, value in (("exists", True), ("eq", "here"), ("gte", 5), ("contains", "HER"), ("is_null", True))
    ]
    asked.agrees(found, wanted)


@pytest.mark.parametrize(
    "operator", ["eq", "ne", "gt", "lt", "gte", "lte", "in", "nin", "contains", "contains exactly"]
)
def test_every_pair_of_values_compares_alike(asked, operator):
    pool = [*TEXTS, *NUMBERS, True, False]
    found = [{}, {"a": None}, *({"a": value} for value in pool), *({"a": [value, None]} for value in pool)]
    name, _, exactly = operator.partition(" ")
    wanted = [
        parse({"field": "a", "operator": name, "value": [value] if name in {"in", "nin"} else value}
              | {"case_sensitive": bool(exactly)})
        for value in pool
    ]  # fmt: skip
    asked.agrees(found, wanted)


def test_postgres_compares_texts_by_code_point_whatever_its_locale():
    wanted = parse(
        {"AND": [{"field": "a", "operator": operator, "value": "b"} for operator in ("gt", "eq", "contains")]}
    )
    condition = compile_filter(wanted, TABLE.c.fields, TABLE.c.folded, "postgresql")
    assert str(condition.compile(dialect=postgresql.dialect())).count('COLLATE "C"') >= 4


def test_a_condition_and_its_negation_never_both_fail(asked):
    found = [{}, {"a": None}, {"a": []}, {"a": [None]}, {"a": {}}, {"a": 5}, {"a": "5"}, {"a": True}, {"a": [5, "b"]}]
    wanted = [
        parse({"field": "a", "operator": operator, "value": value})
        for operator in ("eq", "ne", "gt", "lte", "contains")
        for value in (5, "5", "b", True)
    ]
    asked.agrees(found, wanted + [Not(one) for one in wanted] + [Not(Not(one)) for one in wanted])
    answers = asked.answers(found, wanted + [Not(one) for one in wanted])
    assert all(row[index] is not row[index + len(wanted)] for row in answers for index in range(len(wanted)))


def test_a_key_with_dots_wins_over_descending_at_every_level(asked):
    found = [
        {"a.b.c": 1, "a": {"b.c": 2, "b": {"c": 3}}},
        {"a": {"b.c": 2, "b": {"c": 3}}},
        {"a": {"b": {"c": 3}}},
        {"a.b": {"c": 4}},
        {"a": [{"b": {"c": 3}}]},
        {"a": {"b": {"c": None}}},
        {"a.b.c": None, "a": {"b": {"c": 3}}},
        {"metadata": {"a": {"b": {"c": 5}}}, "a": {"b": {"c": 6}}},
        {"metadata": {"other": 1}, "a": {"b": {"c": 6}}},
    ]
    wanted = [
        parse({"field": path, "operator": "eq", "value": value})
        for path in ("a.b.c", "metadata.a.b.c")
        for value in range(1, 7)
    ]
    asked.agrees(found, [*wanted, parse({"field": "a.b.c", "operator": "exists", "value": True})])


def test_the_largest_filter_that_is_allowed_is_answered(asked):
    path = ".".join("a" * MAX_STEPS)
    nested = 5
    for _ in range(MAX_STEPS):
        nested = {"a": nested}
    listed = [str(number) for number in range(MAX_LIST)]
    widest = {"AND": [{"field": "a.a", "operator": "in", "value": listed}] * MAX_CLAUSES}
    deepest = {"field": path, "operator": "in", "value": listed}
    asked.agrees([nested, {"a": {"a": "7"}}, {}], [parse(widest), parse(deepest)])


def test_an_injected_filter_leaves_the_table_alone(asked):
    nasty = ["'); DROP TABLE filtered; --", '"; DROP TABLE filtered; --', "$.a' OR 1=1 --", "a}'::jsonb OR true --"]
    found = [{"a": 1}, {nasty[0]: nasty[1]}]
    wanted = [
        parse({"field": path, "operator": operator, "value": value})
        for path in nasty
        for value in nasty
        for operator in ("eq", "contains", "lt")
    ]
    asked.agrees(found, wanted)
    asked.agrees([{}], [parse({"a": 1})])


def test_folding_touches_values_and_leaves_keys_and_other_types_alone():
    document = {"Straße": "STRASSE ẞ", "List": ["A", 1, True, None, {"B": "C"}], "N": 1.5}
    assert folded(document) == {"Straße": "strasse ss", "List": ["a", 1, True, None, {"B": "c"}], "N": 1.5}


def test_more_filters_at_once_than_anybody_remembers_are_all_answered(sqlite):
    """Each statement carries its own filter: nothing is looked up that another thread may have forgotten."""
    wrong = []

    def ask(start):
        with sqlite.database.reading() as session:
            for number in range(start, start + 300):
                wanted = parse({"field": "n", "operator": "eq", "value": number})
                condition = compile_filter(wanted, TABLE.c.fields, TABLE.c.folded, "sqlite")
                found = session.scalars(select(TABLE.c.id).where(condition)).all()
                if found != [number // 100]:
                    wrong.append((number, found))

    sqlite.answers([{"n": list(range(hundred, hundred + 100))} for hundred in range(0, 1_200, 100)], [parse({"n": 1})])
    threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 300, 600, 900)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
