"""Counting tokens as the model counts them, with the tokenizer that came with its weights."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from domain.errors import WeightsBroken
from extractors.text_embedding.weights import TOKENIZER


class TextTokenizer:
    """A model's own tokenizer, never truncating and never padding."""

    def __init__(self, folder: Path, model_id: str) -> None:
        self.raw = _load(str(folder / TOKENIZER), model_id)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of each text, special tokens included."""
        return [encoding.ids for encoding in self.raw.encode_batch(list(texts))]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads for each text, special tokens included."""
        return [len(encoding) for encoding in self.raw.encode_batch_fast(list(texts))]

    def end_of(self, text: str, tokens: int) -> int:
        """Return the character at which the given number of tokens of a text ends (special tokens included)."""
        encoding = self.raw.encode(text)
        special = sum(encoding.special_tokens_mask)
        offsets = [
            offset
            for offset, is_special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
            if not is_special
        ]
        kept = offsets[: max(0, tokens - special)]
        return max((end for _, end in kept), default=0)


@lru_cache(maxsize=16)
def _load(path: str, model_id: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsBroken(model_id, f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
