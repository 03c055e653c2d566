"""A model behind a server: the same vectors, prefixes, limits and revisions as in this process."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_model import LIMIT, Tiny

from domain.errors import EmbeddingsServerWrong, Invalid, WeightsBroken, WeightsMissing
from extractors.contract import ModelHome
from extractors.registry import configure
from extractors.text_embedding.engine import Engine, choose
from extractors.text_embedding.models import NOMIC
from extractors.text_embedding.remote import RemoteEncoder


class Server:
    """A double of the server's port: the tiny model itself, or whatever `answer` gives."""

    def __init__(self, tiny: Tiny) -> None:
        self._engine = Engine(tiny.model, tiny.home)
        self.sent: list[list[str]] = []
        self.urgent: list[bool] = []
        self.answer = lambda texts: self._engine.encode(texts) * np.float32(3)  # not of unit length
        self.known: str | None = None
        self.asked = 0

    def revision(self, _model_id):
        self.asked += 1
        return "theirs"

    def revision_at_hand(self):
        return self.known

    def embed(self, _model_id, texts, *, urgent):
        self.sent.append(list(texts))
        self.urgent.append(urgent)
        return self.answer(list(texts))

    def close(self):
        """Keep nothing open."""


@pytest.fixture
def server(tiny):
    return Server(tiny)


@pytest.fixture
def away(tiny, server, tmp_path):
    """Return a tiny model of which only the tokenizer lies here."""
    folder = tmp_path / "openpeek-tests" / "tiny-moe"
    folder.mkdir(parents=True)
    shutil.copy(tiny.home_folder / "tokenizer.json", folder)
    return Tiny(tiny.model, ModelHome(str(tmp_path), server=server))


def unwatched(_finished):
    """Take progress and do nothing with it."""


def test_vectors_are_those_of_this_process_made_unit_length(tiny, away):
    texts = ["a fox", "a much longer text about foxes", "x"]
    here, there = tiny.extractor().embed(texts, unwatched), away.extractor().embed(texts, unwatched)
    assert np.allclose(here, there, atol=1e-6)
    assert np.allclose(np.linalg.norm(there, axis=1), 1, atol=1e-6)


def test_prefixes_are_put_before_texts_here_and_queries_are_urgent(away, server):
    away.extractor().embed(["a fox"], unwatched)
    away.extractor().embed_query("who?")
    assert server.sent == [["search_document: a fox"], ["search_query: who?"]]
    assert server.urgent == [False, True]


def test_the_revision_is_the_servers_and_the_tokenizers_hash_is_ours(tiny, away):
    theirs, ours = away.extractor().identity(), tiny.extractor().identity()
    assert (theirs.model_id, theirs.revision, theirs.weights_sha256) == (ours.model_id, "theirs", "")
    assert theirs.tokenizer_sha256 == ours.tokenizer_sha256


def test_the_catalogue_and_the_making_of_collections_wait_for_no_server(away, server):
    assert away.extractor().output().spec.revision == ""
    server.known = "theirs"
    assert away.extractor().output().spec.revision == "theirs"
    assert server.asked == 0


def test_texts_are_split_and_counted_here_as_ever(tiny, away):
    text = "one two three four five six seven. " * 30
    here, there = tiny.extractor().parts, away.extractor().parts
    source = _source(text)
    assert there(source) == here(source)
    assert all(part.tokens <= LIMIT for part in there(source).parts)


def test_a_query_that_is_too_long_is_refused_before_it_is_sent(away, server):
    with pytest.raises(Invalid) as refusal:
        away.extractor().embed_query("word " * 100)
    assert refusal.value.code == "query_too_long"
    assert server.sent == []


def test_without_a_tokenizer_nothing_is_sent_because_a_server_might_cut_it(tiny, server, tmp_path):
    nowhere = Tiny(tiny.model, ModelHome(str(tmp_path), server=server))
    for use in (
        lambda: nowhere.parts("a"),
        lambda: nowhere.extractor().embed(["a"], unwatched),
        lambda: nowhere.extractor().embed_query("a"),
    ):
        with pytest.raises(WeightsMissing, match=r"tokenizer\.json"):
            use()
    assert server.sent == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda texts: np.ones((len(texts), 63), np.float32), "shape [1, 63], not [1, 64]"),
        (lambda texts: np.ones((len(texts) + 1, 64), np.float32), "shape [2, 64]"),
        (lambda texts: np.ones((64,), np.float32), "shape [64]"),
        (lambda texts: np.full((len(texts), 64), np.nan, np.float32), "no numbers"),
        (lambda texts: np.full((len(texts), 64), np.inf, np.float32), "no numbers"),
        (lambda texts: np.zeros((len(texts), 64), np.float32), "all zero"),
    ],
)
def test_a_wrong_answer_is_refused_and_no_vector_of_it_is_used(away, server, answer, words):
    server.answer = answer
    for use in (lambda: away.extractor().embed(["a"], unwatched), lambda: away.extractor().embed_query("wrong")):
        with pytest.raises(EmbeddingsServerWrong) as refusal:
            use()
        assert words in refusal.value.message
        assert isinstance(refusal.value, WeightsBroken), "work waits, as with broken weights"


def test_one_bad_number_among_many_good_texts_refuses_them_all(away, server):
    def nearly(texts):
        given = np.ones((len(texts), 64), np.float32)
        given[-1, -1] = np.nan
        return given

    server.answer = nearly
    with pytest.raises(EmbeddingsServerWrong):
        away.extractor().embed([f"text {n}" for n in range(40)], unwatched)


def test_very_large_but_finite_values_are_normalised(away, server):
    server.answer = lambda texts: np.full((len(texts), 64), 3e38, np.float32)
    assert np.allclose(np.linalg.norm(away.extractor().embed(["a"], unwatched), axis=1), 1)


def test_no_request_has_more_texts_or_tokens_than_servers_take_and_progress_is_told(tiny, server):
    model = replace(tiny.model, max_tokens=100_000)
    encoder = RemoteEncoder(model, server, Engine(tiny.model, tiny.home).tokenizer())
    server.answer = lambda texts: np.ones((len(texts), 64), np.float32)
    finished: list[int] = []
    texts = ["a"] * 70 + ["word " * 3_000] * 3 + ["b"]
    assert encoder.encode(texts, finished.append).shape == (74, 64)
    assert [text for request in server.sent for text in request] == texts
    assert max(map(len, server.sent)) == 32
    for request in server.sent:
        assert len(request) == 1 or sum(encoder.tokenizer.count(request)) <= 8_192
    assert finished[-1] == 74
    assert finished == sorted(finished)
    assert len(finished) == len(server.sent)


def test_no_text_is_no_request(away, server):
    assert away.extractor().embed([], unwatched).shape == (0, 64)
    assert server.sent == []


def test_a_collection_that_names_no_model_gets_the_best_one_where_a_server_embeds(server, tmp_path):
    assert choose(None, ModelHome(str(tmp_path), server=server)) is NOMIC
    assert choose(None, ModelHome(str(tmp_path), "all-MiniLM-L6-v2", server=server)).width == 384


def test_torch_is_not_loaded_where_a_server_embeds(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from extractors.contract import ModelHome\nfrom extractors.registry import configure\n"
        "class Server:\n"
        "    def revision(self, m): return 'r'\n"
        "    def revision_at_hand(self): return 'r'\n"
        "    def embed(self, m, texts, *, urgent):\n"
        "        import numpy as np; return np.ones((len(texts), 384), np.float32)\n"
        f"home = ModelHome({str(tmp_path)!r}, server=Server())\n"
        "e = configure('text_extractor', {'model_id': 'all-MiniLM-L6-v2'}, home)\n"
        "assert e.embed_query('a').shape == (384,)\n"
        "print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def _source(text):
    from extractors.contract import Source

    return Source("obj_1", {}, {"text": text})


def test_configuring_asks_nobody(away, server):
    configure("text_extractor", {"model_id": away.model.model_id}, away.home).resolved()
    assert server.asked == 0
