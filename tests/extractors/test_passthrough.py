"""The smallest extractor: one part, no vector."""

import pytest

from domain.errors import Invalid
from extractors.contract import ModelHome, Source
from extractors.registry import configure


@pytest.mark.parametrize("name", ["passthrough_extractor", "passthrough"])
def test_one_source_is_one_document_without_a_vector(name):
    extractor = configure(name, {"extractor_type": "passthrough_extractor"}, ModelHome("nowhere"))
    extraction = extractor.parts(Source("obj_1", {"title": "x"}, {}))
    assert [(part.fields, part.text) for part in extraction.parts] == [({}, None)]
    assert extractor.output() is None
    assert extractor.identity() is None
    assert extractor.document_prefix() == ""
    assert extractor.embed([], lambda _: None).shape == (0, 0)
    assert extractor.resolved().model_dump()["extractor_type"] == "passthrough_extractor"


def test_what_has_no_vectors_cannot_be_searched_by_meaning():
    extractor = configure("passthrough_extractor", {}, ModelHome("nowhere"))
    with pytest.raises(Invalid, match="no vectors"):
        extractor.embed_query("x")
