"""Pages of an execution's results."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import Document
from domain.errors import Invalid
from retrieval.pagination import cut

DOCUMENTS = [Document(f"doc_{index:03}", "col", {}) for index in range(25)]


def test_the_shapes_are_those_of_the_contract():
    _, offset = cut(DOCUMENTS, {"method": "offset", "page_size": 10, "page_number": 3}, limit=None)
    assert offset == {
        "method": "offset", "page_number": 3, "page_size": 10, "returned": 5, "total": 25, "has_next": False,
    }  # fmt: skip
    _, cursor = cut(DOCUMENTS, {"method": "cursor", "limit": 10}, limit=None)
    assert set(cursor) == {"method", "limit", "cursor", "returned", "total", "has_next"}
    assert (cursor["returned"], cursor["total"], cursor["has_next"]) == (10, 25, True)
    assert isinstance(cursor["cursor"], str)


@pytest.mark.parametrize(
    ("asked", "limit", "size"),
    [
        (None, None, 10),
        ({}, 7, 7),
        ({"limit": 3}, 7, 3),
        ({"method": "offset"}, 7, 7),
        ({"page_number": 1, "page_size": 2}, 7, 2),
        ({"method": None, "limit": None, "cursor": None}, None, 10),
    ],
)
def test_explicit_pagination_wins_over_the_limit(asked, limit, size):  # fmt: skip
    page, about = cut(DOCUMENTS, asked, limit=limit)
    assert page == DOCUMENTS[:size]
    assert about["returned"] == size


@given(st.integers(0, 60), st.integers(1, 20))
def test_following_cursors_sees_everything_once(count, size):
    documents = [Document(f"doc_{index:03}", "col", {}) for index in range(count)]
    seen, cursor, pages = [], None, 0
    while True:
        page, about = cut(documents, {"method": "cursor", "limit": size, "cursor": cursor}, limit=None, about="query")
        seen += page
        pages += 1
        cursor = about["cursor"]
        assert about["has_next"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == documents
    assert pages == max(1, -(-count // size))


@given(st.integers(0, 60), st.integers(1, 20))
def test_counting_pages_sees_everything_once(count, size):
    documents = [Document(f"doc_{index:03}", "col", {}) for index in range(count)]
    seen, number, more = [], 1, True
    while more:
        page, about = cut(documents, {"method": "offset", "page_size": size, "page_number": number}, limit=None)
        seen, number, more = [*seen, *page], number + 1, about["has_next"]
    assert seen == documents


def test_a_cursor_serves_only_the_query_it_was_given_out_for():
    _, about = cut(DOCUMENTS, None, limit=None, about="one")
    with pytest.raises(Invalid) as refused:
        cut(DOCUMENTS, {"cursor": about["cursor"]}, limit=None, about="other")
    assert refused.value.code == "cursor_of_another_query"


def encoded(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["x", "ä", "====", "a" * 5_000, encoded("{}"), encoded("[1,2]"), encoded('["x"]'), encoded('["x",-1]'),
     encoded("5"),      encoded('["x",true]'), encoded('["x",1.5]'), encoded('["x","1"]'), 5, ["x"], {"a": 1}, True],
)  # fmt: skip
def test_a_cursor_of_others_is_refused(cursor):
    with pytest.raises(Invalid) as refused:
        cut(DOCUMENTS, {"method": "cursor", "cursor": cursor}, limit=None)
    assert refused.value.code == "cursor_malformed"
    assert refused.value.location == ("body", "pagination", "cursor")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"limit": 0}, "limit"), ({"limit": 501}, "limit"), ({"limit": True}, "limit"), ({"limit": "5"}, "limit"),
        ({"method": "offset", "page_size": 501}, "page_size"), ({"method": "offset", "page_number": 0}, "page_number"),
        ({"method": "offset", "page_number": 1.5}, "page_number"), ({"method": "scroll"}, "method"),
        ({"method": "keyset"}, "method"), ({"method": 5}, "method"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_and_methods_not_offered_are_refused(asked, name):
    with pytest.raises(Invalid) as refused:
        cut(DOCUMENTS, asked, limit=None)
    assert refused.value.location == ("body", "pagination", name)
    assert (refused.value.code == "not_offered") == (name == "method")
