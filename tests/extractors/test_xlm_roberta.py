"""The real vocabulary, where a package provides it: ids that others have published, and SentencePiece's own rules."""

import struct
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer

from extractors.text_embedding import xlm_roberta
from extractors.text_embedding.synthesize import save_tokenizer

FILE = xlm_roberta.locate()
needs_the_package = pytest.mark.skipif(FILE is None, reason="the package with the vocabulary is not installed")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return xlm_roberta.tokenizer(FILE)


@needs_the_package
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [0, 35378, 8999, 2]),
        ("Hello world!", [0, 35378, 8999, 38, 2]),
        (
            "query: how much protein should a female eat",
            [0, 41, 1294, 12, 3642, 5045, 21308, 5608, 10, 117776, 73203, 2],
        ),
        ("Hello  \n\t world", [0, 35378, 8999, 2]),
        ("", [0, 2]),
    ],
)
def test_a_text_has_the_ids_that_the_published_tokenizer_gives_it(tokenizer, text, ids):
    assert tokenizer.encode(text).ids == ids


@needs_the_package
def test_its_pieces_are_250_002_and_the_specials_are_where_the_model_has_them(tokenizer):
    assert tokenizer.get_vocab_size() == 250_002
    specials = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 250_001}
    assert {one: tokenizer.token_to_id(one) for one in specials} == specials


@needs_the_package
def test_every_character_is_normalised_as_the_package_says(tokenizer):
    """The package lists what SentencePiece makes of every character that it changes."""
    content = FILE.read_bytes()
    number, _, _, _, _, length = struct.unpack_from("<5iQ", content, 44)
    here = 44 + 28 + 4 * (number + 1) + 4 * number + length
    entries, _ = struct.unpack_from("<iI", content, here)
    here += 8
    becomes = {}
    for _ in range(entries):
        character, count = struct.unpack_from("<IB", content, here)
        becomes[chr(character)] = "".join(map(chr, struct.unpack_from(f"<{count}I", content, here + 5)))
        here += 5 + 4 * count
    assert len(becomes) > 4_000
    noncharacters = {*map(chr, range(0xFDD0, 0xFDF0))}
    for code in range(0x11_0000):
        character = chr(code)
        if unicodedata.category(character) in {"Cs", "Cn"} or character in noncharacters:
            continue
        assert tokenizer.normalizer.normalize_str(character) == becomes.get(character, character), hex(code)


@needs_the_package
def test_letters_and_their_accents_are_one_however_they_were_typed(tokenizer):
    for text in ("Zürich", "Việt Nam", "가나다"):
        assert tokenizer.encode(unicodedata.normalize("NFD", text)).ids == tokenizer.encode(text).ids


@needs_the_package
def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    save_tokenizer(tmp_path, FILE)
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("Das Wetter ist schön.", "今日は天気がいい。", "👩‍🚀 → ½"):
        assert again.encode(text).ids == tokenizer.encode(text).ids


def test_without_the_package_there_is_no_vocabulary(monkeypatch):
    monkeypatch.setattr(xlm_roberta, "_PACKAGE", "no_such_package")
    assert xlm_roberta.locate() is None
    monkeypatch.setattr(xlm_roberta, "_PACKAGE", "json")
    assert xlm_roberta.locate() is None


def _file(pieces: list[str], magic: bytes = b"E5S1", specials=(0, 2, 1, 3)) -> bytes:
    encoded = [piece.encode() for piece in pieces]
    places = np.cumsum([0, *map(len, encoded)]).astype("<u4").tobytes()
    counts = struct.pack("<5iQ", len(pieces), *specials, sum(map(len, encoded)))
    scores = np.arange(len(pieces), dtype="<f4").tobytes()
    return magic + bytes(40) + counts + places + scores + b"".join(encoded)


def test_a_file_of_another_layout_is_refused(tmp_path):
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁ü", "<mask>"]
    file = tmp_path / "model.bin"
    file.write_bytes(_file(pieces))
    assert xlm_roberta.read_pieces(file) == [(piece, float(place)) for place, piece in enumerate(pieces)]
    for content in (
        _file(pieces, magic=b"E6S1"),
        _file(pieces, specials=(1, 2, 0, 3)),
        _file(pieces[::-1]),
        _file(pieces[:-1]),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="does not"):
            xlm_roberta.read_pieces(file)
