"""Ten thousand texts in forty scripts: every character in some part, every part within what the model reads.

What is true of a text is found out here with nothing of the extractor's but its output, and the tokenizer's file.
"""

import unicodedata
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
from scripts import SCRIPTS, texts
from tokenizers import Tokenizer

from extractors.contract import Extraction, ModelHome, Source
from extractors.registry import configure
from extractors.text_embedding import models, xlm_roberta
from extractors.text_embedding.chunking import BLANKS
from extractors.text_embedding.fitting import Fitter
from extractors.text_embedding.models import Model
from extractors.text_embedding.synthesize import save_tokenizer
from extractors.text_embedding.tokens import TextTokenizer

LIMIT = 512
PREFIX = "search_document: "
SHARDS = 4
TEXTS = 10_000
WAYS = ("none", "sentences", "paragraphs", "words", "markdown")


@dataclass(frozen=True)
class Reader:
    """A model that only reads: its files, and a tokenizer of the tests' own."""

    model: Model
    folder: Path
    home: ModelHome

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def extractor(self, **parameters):
        return configure("text_extractor", {"model_id": self.model.model_id, **parameters}, self.home)

    def read(self, text: str, **parameters) -> Extraction:
        return self.extractor(**parameters).parts(Source("obj_1", {}, {"text": text}))

    def tokens(self, text: str) -> int:
        """How many tokens the model reads for a document."""
        return len(self.tokenizer.encode(PREFIX + text).ids)


def reader(home: Path, name: str, words: Path | None) -> Reader:
    """Make a model of a tokenizer and nothing else."""
    folder = home / "openpeek-tests" / name
    folder.mkdir(parents=True)
    save_tokenizer(folder, words)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"never read")
    model = Model(
        model_id=f"openpeek-tests/{name}",
        inference_name=name.replace("-", "_"),
        family="nomic_moe",
        revision="0" * 40,
        width=64,
        narrowest=16,
        max_tokens=LIMIT,
        document_prefix=PREFIX,
        query_prefix="search_query: ",
    )
    models.register(model)
    return Reader(model, folder, ModelHome(str(home)))


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Reader:
    words = xlm_roberta.locate()
    if words is None:
        pytest.skip("the package with XLM-RoBERTa's vocabulary is not installed")
    return reader(tmp_path_factory.mktemp("models"), "real-words", words)


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory) -> Reader:
    """A tokenizer for which most characters are two to four tokens."""
    return reader(tmp_path_factory.mktemp("models"), "bytewise", None)


def shows_nothing(text: str) -> bool:
    """Whether there are only blanks, controls and marks of direction."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def check(reader: Reader, text: str, extraction: Extraction) -> None:
    """Assert all that must be true of the parts of a text that was split and not truncated."""
    assert extraction.truncated_tokens == 0
    covered = 0
    for part in extraction.parts:
        start, end = part.fields["start_char"], part.fields["end_char"]
        assert start == covered < end
        assert part.fields["text"] == text[start:end]
        assert part.text
        before, found, after = text[start:end].partition(part.text)
        assert found
        assert shows_nothing(before + after), "only what shows nothing may be left out of what is embedded"
        covered = end
    assert covered == len(text)
    counted = [len(one.ids) for one in reader.tokenizer.encode_batch([PREFIX + part.text for part in extraction.parts])]
    assert max(counted) <= LIMIT
    assert counted == [part.tokens for part in extraction.parts]


def check_truncated(reader: Reader, text: str, extraction: Extraction) -> None:
    """Assert all that must be true of a text in one part, of which the model reads the beginning."""
    (part,) = extraction.parts
    kept, whole = part.text, text.strip(BLANKS)
    assert whole.startswith(kept)
    read = reader.tokens(kept)
    entire = read if whole == kept else reader.tokens(whole)
    assert part.tokens == read <= LIMIT
    assert extraction.truncated_tokens == max(0, entire - read)
    if whole != kept:
        assert entire > LIMIT, "what fits is not truncated"
        following = whole[: len(kept) + 200]
        assert len(following) < len(kept) + 200 or reader.tokens(following) > LIMIT, "more would have fitted"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_character_is_lost_every_part_fits_and_what_truncation_drops_is_counted(real, shard):
    extractors = [real.extractor(split_by=way) for way in WAYS]
    truncating = real.extractor(oversize="truncate")
    cut = truncated = 0
    for index, text in enumerate(texts(shard, TEXTS // SHARDS)):
        source = Source("obj_1", {}, {"text": text})
        extraction = extractors[index % len(WAYS)].parts(source)
        check(real, text, extraction)
        beginning = truncating.parts(source)
        check_truncated(real, text, beginning)
        cut += len(extraction.parts) > 1
        truncated += beginning.truncated_tokens > 0
    assert min(cut, truncated) > 80


def test_nothing_is_lost_either_where_a_character_is_several_tokens(bytewise):
    split, truncate = bytewise.extractor(), bytewise.extractor(oversize="truncate")
    for text in texts(200, 800):
        source = Source("obj_1", {}, {"text": text})
        check(bytewise, text, split.parts(source))
        check_truncated(bytewise, text, truncate.parts(source))


def test_the_texts_are_of_all_scripts_and_their_hard_cases():
    assert len(SCRIPTS) >= 30
    seen = "".join(texts(0, 400))
    for letters, marks in SCRIPTS.values():
        for ranges in (letters, marks):
            assert not ranges or any(first <= ord(one) <= last for first, last in ranges for one in set(seen))
    for hard in ("👨‍👩‍👧‍👦", "\u200b", "\u202e", "\r\n", "\t", "\x00", "\U0010ffff", "</s>"):
        assert hard in seen


def without_specials(self, given):
    return [len(one.ids) - 2 for one in self.raw.encode_batch(list(given))]


LONG = "中a" * 1_500  # no blanks: it is cut at the very token


@pytest.mark.parametrize("mistake", ["no prefix", "no specials", "one token too many", "whole text", "gap", "trimmed"])
def test_the_check_would_notice(real, monkeypatch, mistake):
    check(real, LONG, real.read(LONG))
    if mistake == "no prefix":
        monkeypatch.setattr(Fitter, "__init__", _forgetting_the_prefix(Fitter.__init__))
    elif mistake == "no specials":
        monkeypatch.setattr(TextTokenizer, "count", without_specials)
        monkeypatch.setattr(TextTokenizer, "reach", _reaching_further(TextTokenizer.reach, 2))
    elif mistake == "one token too many":
        monkeypatch.setattr(Fitter, "__init__", _with_a_higher_limit(Fitter.__init__))
    elif mistake == "whole text":
        monkeypatch.setattr(Fitter, "fit", lambda self, text, spans: self.counted(text, spans))
    extraction = real.read(LONG)
    if mistake == "gap":
        extraction = replace(extraction, parts=[*extraction.parts[:1], *extraction.parts[2:]])
    elif mistake == "trimmed":
        first = extraction.parts[0]
        extraction = replace(extraction, parts=[replace(first, text=first.text[:-1]), *extraction.parts[1:]])
    with pytest.raises(AssertionError):
        check(real, LONG, extraction)


def _forgetting_the_prefix(real_init):
    def init(self, tokenizer, _prefix, *more, **named):
        real_init(self, tokenizer, "", *more, **named)

    return init


def _with_a_higher_limit(real_init):
    def init(self, tokenizer, prefix, limit, *more, **named):
        real_init(self, tokenizer, prefix, limit + 1, *more, **named)

    return init


def _reaching_further(real_reach, tokens):
    return lambda self, prefix, text, limit: real_reach(self, prefix, text, limit + tokens)


@pytest.mark.parametrize("off_by", [-1, 1])
def test_the_check_of_truncation_would_notice(real, off_by):
    extraction = real.read(LONG, oversize="truncate")
    check_truncated(real, LONG, extraction)
    assert extraction.truncated_tokens > 0
    with pytest.raises(AssertionError):
        check_truncated(real, LONG, replace(extraction, truncated_tokens=extraction.truncated_tokens + off_by))
    (part,) = extraction.parts
    shorter = replace(part, text=part.text[: len(part.text) // 2])
    fewer = real.tokens(LONG.strip()) - real.tokens(shorter.text)
    with pytest.raises(AssertionError):
        check_truncated(real, LONG, replace(extraction, parts=[replace(shorter, tokens=fewer)], truncated_tokens=fewer))
