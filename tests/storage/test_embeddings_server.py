"""The operator's embeddings server, over a double of one: what is asked, what is believed, what is told."""

import base64
from collections.abc import Iterator

import numpy as np
import pytest

from domain.errors import EmbeddingsServerAway, EmbeddingsServerWrong
from storage import embeddings
from storage.embeddings import UNKNOWN_REVISION, HttpEmbeddings
from tests.doubles.embeddings_server import Scripted, by_length, embeddings_server
from tests.services.ports import free_port

KEY = "sk-canary-0123456789"
MODEL = "nomic-ai/nomic-embed-text-v2-moe"


@pytest.fixture
def script() -> Iterator[Scripted]:
    with embeddings_server() as script:
        yield script


@pytest.fixture
def make(script):
    made: list[HttpEmbeddings] = []
    pauses: list[float] = []

    def new(path: str = "", **given) -> HttpEmbeddings:
        one = HttpEmbeddings(script.url + path, **{"key": KEY, "pause": pauses.append, **given})
        one.pauses = pauses
        made.append(one)
        return one

    yield new
    for one in made:
        one.close()


def ask(server: HttpEmbeddings, *texts: str, urgent: bool = False):
    return server.embed(MODEL, list(texts) or ["a"], urgent=urgent)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/embeddings"])
def test_the_address_may_be_given_with_or_without_the_route(make, script, path):
    ask(make(path))
    assert script.paths == ["/v1/embeddings"]


def test_model_texts_and_key_are_sent(make, script):
    ask(make(), "a", "ü\u2028")
    assert script.requests == [{"model": MODEL, "input": ["a", "ü\u2028"], "encoding_format": "float"}]
    assert script.keys == [f"Bearer {KEY}"]


def test_without_a_key_none_is_sent_and_the_servers_own_name_of_the_model_is(make, script):
    ask(make(key=None, name="nomic-v2"))
    assert script.keys == [None]
    assert script.requests[0]["model"] == "nomic-v2"


def test_vectors_come_back_in_the_order_of_the_texts_however_they_were_answered(make, script):
    script.spoil = lambda answer: {**answer, "data": answer["data"][::-1]}
    assert ask(make(), "a", "bb", "ccc")[:, 0].tolist() == [1, 2, 3]
    assert ask(make(), "a").dtype == np.float32


def test_packed_vectors_are_understood(make, script):
    script.embed = lambda texts: [base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode() for _ in texts]
    assert ask(make(), "a").tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda answer: {**answer, "data": answer["data"][:1]}, "1 vectors for 2 texts"),
        (lambda answer: {**answer, "data": answer["data"] * 2}, "4 vectors for 2 texts"),
        (lambda answer: {**answer, "data": [answer["data"][0]] * 2}, "which vector belongs to which text"),
        (lambda answer: {**answer, "data": [{**one, "index": 9} for one in answer["data"]]}, "which vector belongs"),
        (lambda answer: {**answer, "data": ["x", "y"]}, "which vector belongs"),
        (lambda answer: {"data": None}, "not a list of embeddings"),
        (lambda _answer: ["x"], "not a list of embeddings"),
        (
            lambda answer: {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]},
            "widths: [1, 2]",
        ),
        (lambda answer: {"data": [{"index": n, "embedding": ["1"]} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n, "embedding": [None]} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n, "embedding": []} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n, "embedding": [[1.0]]} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n, "embedding": "%%%"} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n} for n in (0, 1)]}, "not a list of numbers"),
        (lambda answer: {"data": [{"index": n, "embedding": [True, False]} for n in (0, 1)]}, "not a list of numbers"),
    ],
)
def test_an_answer_that_is_not_one_vector_per_text_is_refused(make, script, spoil, words):
    script.spoil = spoil
    with pytest.raises(EmbeddingsServerWrong, match="embeddings server") as refusal:
        ask(make(), "a", "bb")
    assert words in refusal.value.message


@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"data": [{"embedding": [NaN], "index": 0}]}', b"\xff"])
def test_an_answer_that_is_no_json_is_refused(make, script, raw):
    script.raw = raw
    with pytest.raises(EmbeddingsServerWrong):
        ask(make())


def test_an_answer_without_end_is_refused(make, monkeypatch):
    monkeypatch.setattr(embeddings, "_MAX_REPLY", 50)
    with pytest.raises(EmbeddingsServerWrong, match="more than any vectors need"):
        ask(make())


@pytest.mark.parametrize("status", [408, 424, 429, 500, 502, 503])
def test_a_moment_of_weakness_is_waited_out(make, script, status):
    script.statuses = [status, status]
    server = make()
    assert ask(server).shape == (1, 4)
    assert len(script.requests) == 3
    assert len(server.pauses) == 2
    assert 0 < server.pauses[0] < 1


def test_a_server_that_names_a_time_is_left_alone_that_long_but_not_for_ever(make, script):
    script.statuses, script.headers = [429], {"Retry-After": "3"}
    server = make()
    ask(server)
    script.statuses, script.headers = [429], {"Retry-After": "3600"}
    ask(server)
    assert server.pauses == [3.0, 5.0]


def test_one_that_stays_away_is_told_as_unavailable_without_its_address(make, script):
    script.statuses = [503] * 3
    with pytest.raises(EmbeddingsServerAway) as refusal:
        ask(make())
    error = refusal.value
    assert (error.status, error.retryable) == (503, True)
    assert error.details["retry_after_seconds"] > 0
    assert "503" in error.message
    assert "127.0.0.1" not in error.message


def test_nobody_listening_is_told_as_unavailable_without_address_or_key():
    server = HttpEmbeddings(f"http://127.0.0.1:{free_port()}", KEY, pause=lambda _seconds: None)
    for call in (lambda: ask(server), lambda: server.revision(MODEL)):
        with pytest.raises(EmbeddingsServerAway) as refusal:
            call()
        told = f"{refusal.value} {refusal.value.details} {refusal.value.__cause__}"
        assert "no connection was possible" in told
        assert "127.0.0.1" not in told
        assert KEY not in told
    server.close()


@pytest.mark.parametrize(("urgent", "name"), [(True, "QUERY_SECONDS"), (False, "DOCUMENT_SECONDS")])
def test_a_server_that_is_too_slow_is_given_up(make, script, monkeypatch, urgent, name):
    monkeypatch.setattr(embeddings, name, 0.3)
    script.delay_seconds = 5
    with pytest.raises(EmbeddingsServerAway, match="took"):
        ask(make(), urgent=urgent)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_without_anything_that_the_server_says(make, script, status):
    script.statuses, script.error = [status], {"error": {"message": f"Incorrect API key: {KEY[:9]}…{KEY[-4:]}"}}
    with pytest.raises(EmbeddingsServerWrong, match="OPENPEEK_EMBEDDINGS_KEY") as refusal:
        ask(make())
    assert "canary" not in str(refusal.value)
    assert KEY[-4:] not in str(refusal.value)
    assert len(script.requests) == 1, "a refusal is not tried again"


@pytest.mark.parametrize(
    "error",
    [{"error": {"message": f"bad input, key {KEY}"}}, {"error": f"bad input, {KEY}"}, {"message": f"bad input {KEY}"}],
)
def test_what_a_server_says_is_passed_on_without_the_key(make, script, error):
    script.statuses, script.error = [413], error
    with pytest.raises(EmbeddingsServerWrong, match="413: bad input") as refusal:
        ask(make())
    assert KEY not in str(refusal.value)


def test_control_characters_and_long_speeches_of_a_server_do_not_reach_the_log(make, script):
    script.statuses, script.error = [400], {"error": "a\n\x1b[31mb" + "c" * 5_000}
    with pytest.raises(EmbeddingsServerWrong) as refusal:
        ask(make())
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_a_redirect_is_not_followed_with_the_key(make, script):
    script.statuses, script.headers = [307], {"Location": "http://127.0.0.1:9/steal"}
    with pytest.raises(EmbeddingsServerWrong, match="a redirect"):
        ask(make())


def test_a_wrong_route_or_model_is_told_as_such(make, script):
    script.statuses = [404]
    with pytest.raises(EmbeddingsServerWrong, match="nomic-embed-text-v2-moe"):
        ask(make())


# ---- revisions


def test_the_stated_revision_holds_and_nobody_is_asked(make, script):
    server = make(revision="abc")
    assert server.revision(MODEL) == server.revision_at_hand() == "abc"
    assert script.info_asked == 0


def test_the_revision_that_the_server_tells_is_asked_for_once_in_a_while(make, script, monkeypatch):
    script.info = {"model_id": MODEL, "model_sha": "1066b66"}
    server = make()
    assert server.revision_at_hand() is None
    assert [server.revision(MODEL) for _ in range(3)] == ["1066b66"] * 3
    assert (script.info_asked, server.revision_at_hand()) == (1, "1066b66")
    monkeypatch.setattr(embeddings, "_ASK_AGAIN_SECONDS", 0.0)
    script.info["model_sha"] = "other"
    assert server.revision(MODEL) == "other"


@pytest.mark.parametrize("info", [None, {}, {"model_sha": None}, {"model_sha": 7}, {"model_id": "/data"}, ["x"]])
def test_a_server_that_does_not_tell_has_the_stated_constant(make, script, info):
    script.info = info
    assert make().revision(MODEL) == UNKNOWN_REVISION == "remote"


def test_a_server_of_another_model_is_refused(make, script):
    script.info = {"model_id": "intfloat/multilingual-e5-base", "model_sha": "x"}
    with pytest.raises(EmbeddingsServerWrong, match="it serves 'intfloat/multilingual-e5-base'"):
        make().revision(MODEL)
    assert make(name="mine").revision(MODEL) == "x", "who names the model knows what it is"


@pytest.mark.parametrize(
    ("status", "kind"), [(500, EmbeddingsServerAway), (429, EmbeddingsServerAway), (401, EmbeddingsServerWrong)]
)
def test_a_revision_that_cannot_be_had_now_is_not_taken_for_unknown(make, script, status, kind):
    script.info, script.info_status = {"model_sha": "x"}, status
    with pytest.raises(kind):
        make().revision(MODEL)


def test_after_an_outage_the_revision_is_asked_for_again(make, script):
    script.info = {"model_sha": "one"}
    server = make()
    server.revision(MODEL)
    script.statuses = [503] * 3
    with pytest.raises(EmbeddingsServerAway):
        ask(server)
    script.info = {"model_sha": "two"}
    assert server.revision(MODEL) == "two"


def test_every_model_is_compared_with_the_one_that_is_served(make, script):
    script.info = {"model_id": MODEL, "model_sha": "x"}
    server = make()
    assert server.revision(MODEL) == "x"
    with pytest.raises(EmbeddingsServerWrong):
        server.revision("intfloat/multilingual-e5-base")


def test_while_it_is_away_those_who_queue_do_not_all_wait_for_it(make, script, monkeypatch):
    script.info, script.info_status = {"model_sha": "x"}, 500
    server = make()
    for _ in range(5):
        with pytest.raises(EmbeddingsServerAway, match="500"):
            server.revision(MODEL)
    assert script.info_asked == 1
    script.info_status = 200
    clock = embeddings.time.monotonic() + 10
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: clock)
    assert server.revision(MODEL) == "x"


def test_the_double_tells_texts_apart():
    assert by_length(["a", "bb"]) == [[1, 2, 2, 2], [2, 2, 2, 2]]
