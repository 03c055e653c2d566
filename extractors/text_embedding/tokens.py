"""Counting tokens as the model counts them, with the tokenizer that came with its weights."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from domain.errors import WeightsBroken
from extractors.text_embedding.weights import TOKENIZER


class TextTokenizer:
    """A model's own tokenizer, never truncating and never padding.

    Raises:
        WeightsBroken: the file is no tokenizer.
    """

    def __init__(self, folder: Path, model_id: str) -> None:
        path = folder / TOKENIZER
        try:
            self.raw = _load(str(path), path.stat().st_mtime_ns, model_id)
        except OSError as error:
            raise WeightsBroken(model_id, f"{path} cannot be read: {error}") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of each text, special tokens included."""
        return [encoding.ids for encoding in self.raw.encode_batch_fast(list(texts))]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model reads for each text, special tokens included."""
        if len(texts) == 1:  # a batch of one pays for threads it does not need
            return [len(self.raw.encode(texts[0]))]
        return [len(encoding) for encoding in self.raw.encode_batch_fast(list(texts))]

    def reach(self, prefix: str, text: str, limit: int) -> tuple[int, bool]:
        """Return how many characters of a text lie within the first ``limit`` tokens, and whether all of them do.

        The prefix and the special tokens are within the limit.
        """
        encoding = self.raw.encode(prefix + text)
        if len(encoding) <= limit:
            return len(text), True
        special = encoding.special_tokens_mask
        ends = [end for (_, end), mask in zip(encoding.offsets, special, strict=True) if not mask]
        kept = ends[: max(0, limit - sum(special))]
        return max(0, max(kept, default=0) - len(prefix)), False


@lru_cache(maxsize=16)
def _load(path: str, modified: int, model_id: str) -> Tokenizer:  # noqa: ARG001 - part of the key: a new file is read
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises bare Exceptions
        raise WeightsBroken(model_id, f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
