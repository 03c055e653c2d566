"""Ids: sortable, unguessable, and the same again for what the pipeline derives."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import ids

texts = st.text(st.characters(codec="utf-8"), max_size=8)


def test_an_id_is_its_prefix_and_26_characters_without_look_alikes():
    assert re.fullmatch(r"obj_[0-9a-hjkmnp-tv-z]{26}", ids.new_id("obj"))


def test_ids_sort_by_the_millisecond_of_their_making(monkeypatch):
    made = []
    for milliseconds in (1, 2, 31, 32, 1_800_000_000_000, 1_800_000_000_001):
        monkeypatch.setattr(ids.time, "time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(ids.new_id("col"))
    assert made == sorted(made)


def test_ten_thousand_ids_are_all_different():
    assert len({ids.new_id("obj") for _ in range(10_000)}) == 10_000


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_only_equal_parts_have_equal_digests(one, other):
    assert (ids.digest(*one) == ids.digest(*other)) == (one == other)


def test_a_document_has_the_same_id_on_every_run_and_another_one_for_each_part():
    again = [ids.document_id("col_1", "obj_1", "text_extractor_v1", part) for part in (0, 1, 0)]
    assert again[0] == again[2] != again[1]
    assert re.fullmatch(r"doc_[0-9a-z]{26}", again[0])


@pytest.mark.parametrize("changed", range(4))
def test_whatever_a_document_is_derived_from_changes_its_id(changed):
    parts = ["col_1", "obj_1", "text_extractor_v1", 0]
    other = [*parts]
    other[changed] = 1 if changed == 3 else "other"
    assert ids.document_id(*parts) != ids.document_id(*other)


def test_a_point_id_is_a_uuid_that_differs_between_tenants():
    points = {ids.point_id(organization, namespace, "doc_1") for organization in "ab" for namespace in "cd"}
    assert len(points) == 4
    assert all(uuid.UUID(point).version == 5 for point in points)


@pytest.mark.parametrize("changed", range(6))
def test_everything_a_model_is_asked_is_part_of_the_key_of_its_answer(changed):
    asked = ["org_1", "text", "model", "revision", "prefix", "fp32"]
    other = [*asked]
    other[changed] += "x"
    assert ids.vector_key(*asked) != ids.vector_key(*other)
