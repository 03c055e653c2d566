"""Embedding texts directly: OpenAI's route, the contract's raw inference, and what both refuse."""

import base64
import threading

import numpy as np
import pytest

from api.embeddings import schemas
from domain.errors import Busy, WeightsBroken
from extractors.text_embedding.batching import TOKENS_AT_ONCE
from tests.conftest import Api

MODEL = "openpeek/standin"
WIDTH, LIMIT = 384, 512


@pytest.fixture
def outside(server: Api) -> Api:
    """Return a client that names no namespace."""
    return server.inside("")


def embed(outside: Api, texts, **more):
    return outside.ok("POST", "/embeddings", {"input": texts, "model": MODEL, **more})


def vectors(reply) -> np.ndarray:
    return np.array([one["embedding"] for one in reply["data"]], dtype=np.float32)


def test_texts_come_back_as_unit_vectors_in_their_order_in_the_shape_of_openai(outside):
    reply = embed(outside, ["red fox", "blue whale", "red fox"])
    assert reply["object"] == "list"
    assert [one["index"] for one in reply["data"]] == [0, 1, 2]
    assert {one["object"] for one in reply["data"]} == {"embedding"}
    assert reply["model"] == MODEL
    found = vectors(reply)
    assert found.shape == (3, WIDTH)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


def test_a_single_string_is_a_list_of_one(outside):
    assert np.array_equal(vectors(embed(outside, "red fox")), vectors(embed(outside, ["red fox"])))


def test_tokens_are_counted_as_the_model_reads_them_prefix_and_specials_included(outside):
    one, two = embed(outside, ["a"])["usage"], embed(outside, ["a", "a"])["usage"]
    assert one["prompt_tokens"] == one["total_tokens"] >= 3
    assert two["total_tokens"] == 2 * one["total_tokens"]


def test_documents_are_the_default_and_queries_get_the_prefix_of_queries(outside, house):
    from extractors.registry import configure

    extractor = configure("text_extractor", {"model_id": MODEL}, house.models)
    document = extractor.embed(["red fox"], lambda _n: None)[0]
    query = extractor.embed_query("red fox")
    assert np.allclose(vectors(embed(outside, "red fox")), document, atol=1e-6)
    assert np.allclose(vectors(embed(outside, "red fox", input_type=None)), document, atol=1e-6)
    assert np.allclose(vectors(embed(outside, "red fox", input_type="query")), query, atol=1e-6)
    assert not np.allclose(document, query, atol=1e-3)


@pytest.mark.parametrize("dimensions", [1, 2, 100, WIDTH])
def test_vectors_of_any_length_are_cut_first_and_then_normalised(outside, dimensions):
    full = vectors(embed(outside, "red fox"))[0]
    (cut,) = vectors(embed(outside, "red fox", dimensions=dimensions))
    assert cut.shape == (dimensions,)
    assert np.allclose(cut, full[:dimensions] / np.linalg.norm(full[:dimensions]), atol=1e-6)


def test_base64_holds_the_same_floats_little_endian(outside):
    plain = vectors(embed(outside, ["red fox", "x"]))
    packed = embed(outside, ["red fox", "x"], encoding_format="base64")
    unpacked = [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in packed["data"]]
    assert np.array_equal(np.stack(unpacked), plain)


@pytest.mark.parametrize("name", ["standin_v1", "OpenPeek/Standin"])
def test_a_model_goes_by_any_of_its_names_and_answers_by_its_own(outside, name):
    assert outside.ok("POST", "/embeddings", {"input": "a", "model": name})["model"] == MODEL


def test_every_spelling_of_the_route_answers(server):
    for prefix in ("/v1", "/api/v1", ""):
        reply = Api(server.client, prefix=prefix).ok("POST", "/embeddings", {"input": "a", "model": MODEL})
        assert len(reply["data"]) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "Field required"),
        ({"input": None}, "string or a list of strings"),
        ({"input": 7}, "string or a list of strings"),
        ({"input": {"text": "a"}}, "string or a list of strings"),
        ({"input": []}, "holds no text"),
        ({"input": ""}, "text 0 is empty"),
        ({"input": ["a", " \n"]}, "text 1 is empty"),
        ({"input": ["a", None]}, "text 1 is not a string"),
        ({"input": [1, 2, 3]}, "token arrays are not taken"),
        ({"input": [[1, 2], [3]]}, "token arrays are not taken"),
        ({"input": ["a"] * (schemas.MAX_TEXTS + 1)}, "2049 texts"),
        ({"input": "a " * schemas.MAX_CHARACTERS}, "characters"),
        ({"input": "a", "dimensions": 0}, "the least is 1"),
        ({"input": "a", "dimensions": WIDTH + 1}, "up to 384"),
        ({"input": "a", "dimensions": "many"}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "input_type": "passage"}, "input_type"),
        ({"input": "a", "model": "text-embedding-3-small"}, "not known here. Known:"),
        ({"input": "a", "model": 3}, "model"),
    ],
)
def test_a_wrong_request_is_refused_and_says_what_was_wrong(outside, body, words):
    error = outside.refused(422, "POST", "/embeddings", {"model": MODEL, **body})
    assert words in error["message"]


def test_an_unknown_model_is_found_wrong_where_it_stands(outside):
    error = outside.refused(422, "POST", "/embeddings", {"input": "a", "model": "nobody/nothing"})
    assert error["pointer"] == "/body/model"
    assert error["code"] == "unknown_model"


def test_a_text_longer_than_the_model_reads_is_never_cut_but_named_with_its_counts(outside):
    long = "word " * 600
    error = outside.refused(422, "POST", "/embeddings", {"input": ["fits", long, "fits", long], "model": MODEL})
    assert error["code"] == "text_too_long"
    assert error["pointer"] == "/body/input/1"
    assert "Text 1" in error["message"]
    assert "512" in error["message"]
    assert [one["index"] for one in error["details"]["too_long"]] == [1, 3]
    assert all(one["tokens"] > LIMIT == one["limit"] for one in error["details"]["too_long"])


def test_more_tokens_than_one_request_may_have_are_refused_naming_the_limit(outside):
    texts = ["word " * 100] * 100
    error = outside.refused(422, "POST", "/embeddings", {"input": texts, "model": MODEL})
    assert error["code"] == "too_many_tokens"
    assert f"{TOKENS_AT_ONCE:,}" in error["message"]
    assert error["details"]["limit"] == TOKENS_AT_ONCE < error["details"]["tokens"]


def test_unknown_keys_are_ignored_and_named_and_those_of_openai_are_known(outside):
    assert embed(outside, "a", input_kind="query")["warnings"] == [
        "The key 'input_kind' is not known here and was ignored."
    ]
    assert "warnings" not in embed(outside, "a", user="somebody")


def test_without_a_key_nothing_is_embedded(server):
    for path in ("/embeddings", "/inference"):
        assert server.client.post("/v1" + path, json={"input": "a"}).status_code == 401


def test_weights_that_are_not_here_are_told_with_when_to_come_again(outside):
    response = outside.send("POST", "/embeddings", json={"input": "a", "model": "intfloat/multilingual-e5-base"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "openpeek model pull" in response.json()["error"]["message"]


def test_when_too_much_waits_callers_are_told_when_to_come_again(outside, monkeypatch):
    batchers = outside.client.app.state.batchers

    def full(_prepared):
        raise Busy("16,384 tokens are waiting for the model already.", retry_after_seconds=7)

    monkeypatch.setattr(batchers, "submit", full)
    for path, body in (
        ("/embeddings", {"input": "a", "model": MODEL}),
        ("/inference", {"inputs": {"text": "a"}, "model": MODEL}),
    ):
        response = outside.send("POST", path, json=body)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "7"
        assert response.json()["error"]["type"] == "TooManyRequestsError"


def test_a_full_queue_of_the_real_batcher_answers_429_while_others_wait_and_get_their_vectors(outside, monkeypatch):
    embed(outside, "warm")
    [batcher] = [one for (model, _), one in outside.client.app.state.batchers._made.items() if model == MODEL]
    entered, go_on = threading.Event(), threading.Event()
    original = batcher._encode

    def slow(texts):
        entered.set()
        assert go_on.wait(30)
        return original(texts)

    monkeypatch.setattr(batcher, "_encode", slow)
    monkeypatch.setattr(batcher, "_most", 10)
    states: list[int] = []

    def ask():
        states.append(outside.send("POST", "/embeddings", json={"input": "a b c", "model": MODEL}).status_code)

    inside, waiting = threading.Thread(target=ask), threading.Thread(target=ask)
    inside.start()
    assert entered.wait(30)
    waiting.start()
    while not batcher._queue:
        pass
    refused = outside.send("POST", "/embeddings", json={"input": "a b c", "model": MODEL})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert outside.send("GET", "/me").status_code == 200  # whoever waits for the model holds up nobody else
    go_on.set()
    inside.join()
    waiting.join()
    assert states == [200, 200]


def test_a_broken_model_is_told_and_the_next_request_is_served(outside, monkeypatch):
    embed(outside, "warm")
    [batcher] = [one for (model, _), one in outside.client.app.state.batchers._made.items() if model == MODEL]
    original = batcher._encode

    def broken(_texts):
        raise WeightsBroken(MODEL, "they give no numbers.")

    monkeypatch.setattr(batcher, "_encode", broken)
    assert outside.refused(503, "POST", "/embeddings", {"input": "a", "model": MODEL})["code"] == "model_weights_broken"
    monkeypatch.setattr(batcher, "_encode", original)
    embed(outside, "a")


# ---- the contract's raw inference


def infer(outside: Api, **body):
    return outside.ok("POST", "/inference", body)


def test_raw_inference_gives_the_vectors_of_the_embeddings_route(outside):
    reply = infer(outside, inference_name="standin_v1", inputs={"text": "red fox"}, parameters={})
    assert np.allclose(reply["data"]["embedding"], vectors(embed(outside, "red fox"))[0])
    assert (reply["provider"], reply["model"], reply["cached"]) == ("openpeek", MODEL, False)
    assert reply["tokens_used"] == embed(outside, "red fox")["usage"]
    assert reply["latency_ms"] > 0


def test_raw_inference_takes_many_texts_and_the_parameters_of_embeddings(outside):
    asked = {"input_type": "query", "dimensions": 16}
    reply = infer(outside, model=MODEL, provider="openpeek", inputs={"texts": ["a", "b"]}, parameters=asked)
    assert np.allclose(reply["data"]["embeddings"], vectors(embed(outside, ["a", "b"], **asked)))


def test_a_feature_uri_names_the_model_behind_it(outside):
    assert infer(outside, feature_uri="mixpeek://text_extractor@v1/standin_v1", inputs={"text": "a"})["model"] == MODEL


def test_a_namespace_header_does_no_harm(api):
    assert api.ok("POST", "/inference", {"model": MODEL, "inputs": {"text": "a"}})["model"] == MODEL


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"inputs": {"prompts": ["hello"]}}, "not_offered"),
        ({"inputs": {}}, "not_offered"),
        ({"inputs": {"text": "a", "texts": ["b"]}}, "not_offered"),
        ({"inputs": {"text": "a"}, "provider": "openai"}, "not_offered"),
        ({"inputs": {"text": [1, 2]}}, "token_arrays"),
        ({"inputs": {"text": ""}}, "input_blank"),
        ({"inputs": {"texts": []}}, "input_empty"),
        ({"inputs": {"text": "a"}, "feature_uri": "nonsense"}, "feature_uri_malformed"),
        ({"inputs": {"text": "a"}, "inference_name": "my_own_1_0_0"}, "unknown_model"),
        ({"inputs": {"text": "a"}, "parameters": {"dimensions": 0}}, "validation_failed"),
        ({"inputs": "a"}, "validation_failed"),
        ({}, "validation_failed"),
    ],
)
def test_inference_that_is_not_offered_is_refused(outside, body, code):
    assert outside.refused(422, "POST", "/inference", {"model": MODEL, **body})["code"] == code
