"""Feature URIs, and the names of vectors."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.features import FeatureURI, VectorSpec


@pytest.mark.parametrize(
    "text",
    ["mixpeek://text_extractor@v1/all_minilm_l6_v2_v1", "mixpeek://a@v1", "mixpeek://A-b_9@v1234/x.y-z"],
)
def test_a_uri_reads_and_writes_the_same(text):
    assert str(FeatureURI.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "mixpeek://", "mixpeek://a", "mixpeek://a@1/x", "mixpeek://a@v1/", "mixpeek://a@v1/x/y", "http://a@v1/x",
     "mixpeek://a@v1/x ", "mixpeek://a@v1/x\n", "mixpeek://a@v12345/x", f"mixpeek://{'a' * 101}@v1/x", "mixpeek://ä@v1"],
)  # fmt: skip
def test_anything_else_is_refused_with_the_form(text):
    with pytest.raises(Invalid, match="mixpeek://extractor@v1/output") as refused:
        FeatureURI.parse(text)
    assert refused.value.code == "feature_uri_malformed"


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader(text):
    with contextlib.suppress(Invalid):
        assert str(FeatureURI.parse(text)) == text


def test_a_vector_is_named_for_its_model_revision_and_width_but_not_its_precision():
    spec = VectorSpec("m/m", "m_v1", "1110a243fdf4706b", 384)
    assert spec.name == "m_v1_1110a243_384"
    assert VectorSpec("m/m", "m_v1", "1110a243fdf4706b", 384, precision="int8").name == spec.name
    assert VectorSpec("m/m", "m_v1", "1110a243fdf4706b", 384, quantisation="binary").name == spec.name + "_binary"
