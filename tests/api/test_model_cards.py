"""Models as one can look at them over HTTP, and the collection bodies that they offer."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from api.model_cards import how_to_get
from domain.errors import WeightsBroken
from extractors.text_embedding import calibration, cards, models
from extractors.text_embedding import engine as engine_module
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.models import MINILM, NOMIC
from storage.embeddings import HttpEmbeddings

PUBLISHED = [model for model in models.all_known() if model.family != "plugin"]
PAGES = Path(__file__).parents[2] / "docs" / "models"
URI = "mixpeek://text_extractor@v1/nomic_embed_v2_moe_v1"


@pytest.fixture
def anonymous(server):
    """Return a caller without key and namespace."""

    def get(path, status=200):
        response = server.client.get(f"/v1/discovery/models{path}")
        assert response.status_code == status, response.text
        return response.json()

    return get


def test_every_model_is_listed_for_anybody_and_exactly_one_is_the_default(anonymous):
    listed = anonymous("")
    assert {one["model_id"] for one in listed} >= {model.model_id for model in PUBLISHED}
    assert [one["is_default"] for one in listed] == [True] + [False] * (len(listed) - 1)


@pytest.mark.parametrize(
    "name",
    [
        NOMIC.model_id,
        quote(NOMIC.model_id, safe=""),
        NOMIC.inference_name,
        "nomic-embed-text-v2-moe",
        "NOMIC-AI/Nomic-Embed-Text-v2-MoE",
    ],
)
def test_a_model_is_found_by_any_of_its_names_slash_or_no_slash(anonymous, name):
    shown = anonymous(f"/{name}")
    assert shown["model_id"] == NOMIC.model_id
    assert shown["feature_uri"] == URI
    assert shown["dimensions"] == {"default": 768, "minimum": 256, "maximum": 768}
    assert (shown["document_prefix"], shown["query_prefix"]) == ("search_document: ", "search_query: ")
    assert shown["max_tokens"] == 512
    assert shown["retriever_stages"] == ["feature_search"]
    assert shown["feature_extractors"] == ["text_extractor@v1"]
    assert all(score["source"] for score in shown["scores"])


def test_what_int8_costs_is_shown_once_it_has_been_measured(anonymous, house, monkeypatch):
    engine = Engine(MINILM, house.models, "int8")
    monkeypatch.setattr(engine_module, "_encoders", {})
    assert anonymous(f"/{MINILM.model_id}")["int8"] is None
    engine.load()
    shown = anonymous(f"/{MINILM.model_id}")["int8"]
    assert shown["status"] == "OK"
    assert 0 < shown["mean_cosine_loss"] < 2e-3
    assert shown["mean_cosine_loss"] <= shown["worst_cosine_loss"]
    assert shown["nearest_ten_overlap"] > 0.95
    assert shown["texts"] > 50


def test_int8_that_was_refused_is_shown_with_the_figures(anonymous, house, monkeypatch):
    monkeypatch.setattr(engine_module, "_encoders", {})
    monkeypatch.setattr(calibration, "REFUSE_ABOVE", 1e-6)
    with pytest.raises(WeightsBroken):
        Engine(MINILM, house.models, "int8").load()
    shown = anonymous(f"/{MINILM.model_id}")["int8"]
    assert shown["status"] == "REFUSED"
    assert "mean of 1 - cosine" in shown["reason"]


def test_what_is_at_hand_is_told_without_naming_a_folder_of_the_server(anonymous, house):
    listed = {one["model_id"]: one for one in anonymous("")}
    assert listed["sentence-transformers/all-MiniLM-L6-v2"]["weights"]["at_hand"] is True
    assert listed[NOMIC.model_id]["weights"]["at_hand"] is False
    assert "openpeek model pull" in listed[NOMIC.model_id]["weights"]["how_to_get"]
    assert house.models.folder not in str(listed)


def test_where_an_embeddings_server_embeds_no_weights_are_asked_for(house):
    home = replace(house.models, server=HttpEmbeddings("http://127.0.0.1:9"))
    assert "Not needed" in how_to_get(NOMIC, home)


def test_a_model_that_a_plugin_brings_is_shown_as_far_as_it_is_known(anonymous):
    shown = anonymous("/openpeek/standin")
    assert shown["dimensions"]["default"] == 384
    assert "scores" not in shown


@pytest.mark.parametrize("name", ["text-embedding-3-small", "nomic-ai/", "a/b/c", "%00", "x" * 3_000, ""])
def test_an_unknown_model_answers_404_and_says_where_the_others_are(anonymous, name):
    if name == "%00":
        assert anonymous("/%00", 400)["error"]["code"] == "nul_character"
        return
    error = anonymous(f"/{name}", 404)["error"]
    assert error["code"] == "model_not_found"
    assert "GET /v1/discovery/models" in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", ""])
def test_the_catalogue_answers_under_every_prefix(server, prefix):
    assert server.client.get(f"{prefix}/discovery/models/{NOMIC.model_id}").status_code == 200


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.model_id)
def test_the_collection_body_on_a_models_page_is_accepted_as_it_is(api, model):
    page = (PAGES / f"{model.model_id.rpartition('/')[2]}.md").read_text()
    body = json.loads(page.partition("```json")[2].partition("```")[0])
    assert body == api.ok("GET", f"/discovery/models/{model.model_id}")["collection_body"]
    api.bucket("texts")
    made = api.ok("POST", "/collections", body)
    assert made["vector_indexes"][0]["feature_uri"] == str(cards.feature_uri(model))


def test_every_published_model_has_a_card():
    assert [model.model_id for model in PUBLISHED if cards.find(model) is None] == []
