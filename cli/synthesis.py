"""`openpeek model synthesize`: a checkpoint that means nothing, for benchmarks and for trying what runs on it."""

import shutil
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from domain.errors import Invalid
from extractors.text_embedding import weights, xlm_roberta
from extractors.text_embedding.synthesize import synthesize

# Of the published checkpoint; 0.02 is the deviation that training starts from.
_REAL: Final = {"layers": 12, "width": 768, "heads": 12, "inner": 3072, "experts": 8, "vocabulary": 250_048}
_REAL_DEVIATION: Final = 0.02


def make(folder: Path, seed: int, *, is_full: bool, sizes: dict[str, int | None]) -> None:
    """Make a checkpoint in a folder, which appears whole or not at all.

    Args:
        folder: not there yet, or empty.
        seed: of the weights.
        is_full: as large as the published one, with its vocabulary where that is at hand.
        sizes: arguments of `synthesize`; those that are None have its defaults, or the published model's.

    Raises:
        Invalid: the folder holds something, the sizes do not go together, or there is no room.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Invalid(f"{folder} is there already, and is not empty. Name a new folder, or remove it.")
    console = Console()
    words = xlm_roberta.locate() if is_full else None
    given = (_REAL if is_full else {}) | {name: size for name, size in sizes.items() if size is not None}
    partial = folder.with_name(f".{folder.name}.partial")
    began = time.monotonic()
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with console.status("Drawing weights"):
            synthesize(partial, seed=seed, words=words, deviation=_REAL_DEVIATION if is_full else None, **given)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise Invalid(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _tell(console, folder, words, time.monotonic() - began)


def _tell(console: Console, folder: Path, words: Path | None, seconds: float) -> None:
    file = folder / weights.WEIGHTS
    vocabulary = "the vocabulary of XLM-RoBERTa" if words else "a small vocabulary of its own"
    size = f"{file.stat().st_size / 1e6:,.0f} MB"
    console.print(Text(f"{folder}: a checkpoint of {size} with {vocabulary}, made in {seconds:.1f} s."), soft_wrap=True)
    console.print(Text(f"SHA-256 of its weights: {weights.sha256(file)}"), soft_wrap=True)
    console.print(
        "Its weights are random, so its vectors mean nothing; layout and speed are real. Use it so:", soft_wrap=True
    )
    console.print(Text(f"  openpeek embed --model {folder} --input texts.jsonl --output vectors.npy"), soft_wrap=True)
