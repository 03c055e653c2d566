"""From a text to its stored vector, against the oracle; and every mistake that could be made on the way is seen.

`test_nomic_moe` does the same for the network alone. Here the text goes through the extractor: tokenizer, prefix,
limit, pooling, cutting to fewer dimensions.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle import MISTAKES, Oracle
from tokenizers import Tokenizer

from domain.errors import Invalid, WeightsBroken
from extractors.contract import ModelHome, Source
from extractors.registry import configure
from extractors.text_embedding import TextEmbedding, models
from extractors.text_embedding.fitting import Fitter
from extractors.text_embedding.models import NOMIC, Model
from extractors.text_embedding.nomic_moe import NomicMoe
from extractors.text_embedding.tokens import TextTokenizer

TOLERANCE = 1e-5
VISIBLE = 1e-4
ROOT = Path(__file__).resolve().parents[2]
DIMENSIONS, LIMIT = 16, 512
DOCUMENT, QUERY = "search_document: ", "search_query: "
# Short ones: the mean over many tokens hides what is small.
TEXTS = ["the search of a document", "x", "Umlaute: äöü", "42", "query", "漢", "to be and the other", "#!", "ing"]
ON_THE_WAY = (
    "no prefix",
    "prefix twice",
    "prefix without its blank",
    "the other side's prefix",
    "no special tokens",
    "one special token",
    "layer norm before truncation",
    "normalised before truncation",
    "last dimensions",
)


class Path2Vector:
    """What the whole way should give, computed with nothing of the extractor's."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._oracle = Oracle(folder)

    def vector(self, text: str, prefix: str = DOCUMENT, mistake: str = "") -> np.ndarray:
        """Return float64[DIMENSIONS]."""
        other = {DOCUMENT: QUERY, QUERY: DOCUMENT}[prefix]
        spelled = {
            "no prefix": text,
            "prefix twice": prefix + prefix + text,
            "prefix without its blank": prefix.strip() + text,
            "the other side's prefix": other + text,
        }.get(mistake, prefix + text)
        ids = self._tokenizer.encode(spelled).ids
        ids = {"no special tokens": ids[1:-1], "one special token": ids[:-1]}.get(mistake, ids)
        pooled = self._oracle.pooled(ids, mistake if mistake in MISTAKES else "")
        if mistake == "layer norm before truncation":
            pooled = (pooled - pooled.mean()) / pooled.std()
        if mistake == "normalised before truncation":
            return (pooled / np.linalg.norm(pooled))[:DIMENSIONS]
        cut = pooled[-DIMENSIONS:] if mistake == "last dimensions" else pooled[:DIMENSIONS]
        return cut / np.linalg.norm(cut)


@pytest.fixture(scope="module")
def home(checkpoint, tmp_path_factory) -> ModelHome:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(checkpoint, folder / "openpeek-tests" / "whole-way")
    models.register(
        Model(
            model_id="openpeek-tests/whole-way",
            inference_name="whole_way_v1",
            family="nomic_moe",
            revision="0" * 40,
            width=64,
            narrowest=16,
            max_tokens=LIMIT,
            document_prefix=DOCUMENT,
            query_prefix=QUERY,
        )
    )
    return ModelHome(str(folder))


@pytest.fixture(scope="module")
def extractor(home) -> TextEmbedding:
    made = configure("text_extractor", {"model_id": "openpeek-tests/whole-way", "dimensions": DIMENSIONS}, home)
    assert isinstance(made, TextEmbedding)
    return made


@pytest.fixture(scope="module")
def right(checkpoint) -> Path2Vector:
    return Path2Vector(checkpoint)


def stored(extractor: TextEmbedding, texts: list[str]) -> np.ndarray:
    """Return the vectors that come to stand in the index for whole documents."""
    parts = [part for text in texts for part in extractor.parts(Source("obj_1", {}, {"text": text})).parts]
    assert len(parts) == len(texts)
    return extractor.fit(extractor.embed([part.text for part in parts], lambda _: None))


def test_a_document_has_the_vector_that_the_oracle_of_the_whole_way_says(extractor, right):
    expected = np.stack([right.vector(text) for text in TEXTS])
    assert np.abs(stored(extractor, TEXTS) - expected).max() < TOLERANCE


def test_a_query_has_the_vector_that_the_oracle_of_the_whole_way_says(extractor, right):
    for text in TEXTS:
        assert np.abs(extractor.embed_query(text) - right.vector(text, QUERY)).max() < TOLERANCE


@pytest.mark.parametrize("mistake", [*ON_THE_WAY, *MISTAKES])
def test_a_mistake_anywhere_on_the_way_would_be_seen_in_a_document(extractor, right, mistake):
    wrong = np.stack([right.vector(text, DOCUMENT, mistake) for text in TEXTS])
    assert np.abs(stored(extractor, TEXTS) - wrong).max() > VISIBLE


@pytest.mark.parametrize("mistake", ON_THE_WAY)
def test_a_mistake_anywhere_on_the_way_would_be_seen_in_a_query(extractor, right, mistake):
    wrong = max(np.abs(extractor.embed_query(text) - right.vector(text, QUERY, mistake)).max() for text in TEXTS)
    assert wrong > VISIBLE


def test_normalising_before_truncating_keeps_the_direction_and_spoils_dot_products(extractor, right):
    first = right.vector(TEXTS[0], mistake="normalised before truncation")
    assert np.linalg.norm(first) < 0.9
    assert np.abs(first / np.linalg.norm(first) - right.vector(TEXTS[0])).max() < TOLERANCE
    assert np.allclose(np.linalg.norm(stored(extractor, TEXTS), axis=1), 1, atol=1e-6)


def test_the_catalogues_own_model_has_the_prefixes_and_the_limit_that_its_card_says():
    assert (NOMIC.document_prefix, NOMIC.query_prefix) == (DOCUMENT, QUERY)
    assert (NOMIC.max_tokens, NOMIC.width, NOMIC.family) == (LIMIT, 768, "nomic_moe")


def longest_input(extractor: TextEmbedding, monkeypatch: pytest.MonkeyPatch, text: str) -> int:
    """Split and embed a text, and return the most tokens that the network was ever given for one of its parts."""
    lengths: list[int] = []
    real = NomicMoe.embed

    def watched(self, batch, *more, **named):
        lengths.extend(map(len, batch))
        return real(self, batch, *more, **named)

    monkeypatch.setattr(NomicMoe, "embed", watched)
    parts = extractor.parts(Source("obj_1", {}, {"text": text})).parts
    extractor.embed([part.text for part in parts], lambda _: None)
    assert len(lengths) >= len(parts)
    return max(lengths)


WITHOUT_BLANKS = "0123456789" * 130


@pytest.fixture
def fresh(home) -> Callable[[], TextEmbedding]:
    """Make extractors that have not counted anything yet."""

    def make() -> TextEmbedding:
        made = configure("text_extractor", {"model_id": "openpeek-tests/whole-way"}, home)
        assert isinstance(made, TextEmbedding)
        return made

    return make


def test_the_network_is_given_exactly_as_many_tokens_as_it_reads_and_no_more(fresh, monkeypatch):
    assert longest_input(fresh(), monkeypatch, WITHOUT_BLANKS) == LIMIT


@pytest.mark.parametrize("mistake", ["prefix not counted", "special tokens not counted", "limit of another model"])
def test_a_limit_that_forgets_something_would_be_seen(fresh, monkeypatch, mistake):
    made, count, reach = Fitter.__init__, TextTokenizer.count, TextTokenizer.reach
    if mistake == "prefix not counted":
        monkeypatch.setattr(Fitter, "__init__", lambda self, tokens, _, *more: made(self, tokens, "", *more))
    elif mistake == "special tokens not counted":
        monkeypatch.setattr(TextTokenizer, "count", lambda self, texts: [number - 2 for number in count(self, texts)])
        monkeypatch.setattr(
            TextTokenizer, "reach", lambda self, prefix, text, limit: reach(self, prefix, text, limit + 2)
        )
    else:
        monkeypatch.setattr(
            Fitter, "__init__", lambda self, tokens, prefix, _, *more: made(self, tokens, prefix, 2_048, *more)
        )
    assert longest_input(fresh(), monkeypatch, WITHOUT_BLANKS) > LIMIT


def test_a_query_is_measured_with_its_prefix_and_special_tokens(fresh, right):
    extractor = fresh()
    room = LIMIT - len(right._tokenizer.encode(QUERY).ids)
    fits = next(text for size in range(room, 0, -1) if right_size(right, text := WITHOUT_BLANKS[:size]))
    assert extractor.embed_query(fits).shape == (64,)
    with pytest.raises(Invalid) as refused:
        extractor.embed_query(WITHOUT_BLANKS[: len(fits) + 1])
    assert refused.value.code == "query_too_long"


def right_size(right: Path2Vector, text: str) -> bool:
    return len(right._tokenizer.encode(QUERY + text).ids) <= LIMIT


WITHOUT_TRANSFORMERS = """
import sys
sys.modules["transformers"] = None  # whoever imports it now gets an ImportError
from extractors.contract import ModelHome
from extractors.registry import configure
from extractors.text_embedding import models
from extractors.text_embedding.models import Model
models.register(Model("openpeek-tests/alone", "alone_v1", "nomic_moe", "0" * 40, 64, 16, 512, "search_document: "))
extractor = configure("text_extractor", {"model_id": "openpeek-tests/alone"}, ModelHome(sys.argv[1]))
print(*extractor.embed([sys.argv[2]], lambda _: None)[0])
"""


def test_the_mixture_of_experts_needs_nothing_of_transformers(checkpoint, tmp_path, right):
    """Its AutoModel would load the checkpoint, drop every expert and say nothing."""
    shutil.copytree(checkpoint, tmp_path / "openpeek-tests" / "alone")
    command = [sys.executable, "-c", WITHOUT_TRANSFORMERS, str(tmp_path), TEXTS[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    vector = np.array([float(number) for number in done.stdout.split()])[:DIMENSIONS]
    assert np.abs(vector / np.linalg.norm(vector) - right.vector(TEXTS[0])).max() < TOLERANCE


@pytest.mark.parametrize("said", ["nomic_bert", "bert"])
def test_a_mixture_of_experts_that_is_registered_as_another_family_is_refused(checkpoint, tmp_path, said):
    """By its type; and by its tensors, should its config.json lie about the type."""
    folder = tmp_path / "openpeek-tests" / f"posing-{said}"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    small = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96}
    (folder / "config.json").write_text(json.dumps({**config, **small, "model_type": said}))
    name = f"openpeek-tests/posing-{said}"
    models.register(Model(name, f"posing_{said}_v1", "transformers", "0" * 40, 64, 64, 512))
    extractor = configure("text_extractor", {"model_id": name}, ModelHome(str(tmp_path)))
    with pytest.raises(WeightsBroken) as refusal:
        extractor.embed(["text"], lambda _: None)
    told = "of type 'nomic_bert'" if said == "nomic_bert" else "does not fit its config.json: missing"
    assert told in refusal.value.message
