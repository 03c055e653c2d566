"""A tiny real model for the extractor's tests: seeded weights, a real tokenizer, a limit that is soon reached."""

import pytest
from tiny_model import LIMIT, Tiny

from extractors.contract import ModelHome
from extractors.text_embedding import models
from extractors.text_embedding.models import Model
from extractors.text_embedding.synthesize import synthesize


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    home = tmp_path_factory.mktemp("models")
    model = Model(
        model_id="openpeek-tests/tiny-moe",
        inference_name="tiny_moe_v1",
        family="nomic_moe",
        revision="0" * 40,
        width=64,
        narrowest=16,
        max_tokens=LIMIT,
        document_prefix="search_document: ",
        query_prefix="search_query: ",
    )
    models.register(model)
    synthesize(home / "openpeek-tests" / "tiny-moe", seed=1, layers=2)
    return Tiny(model, ModelHome(str(home)))
