"""`openpeek embed`: a file of texts in, a file of vectors out, without a server.

The texts are read twice: first all of them are checked and counted, then they are embedded, a window of the file at
a time. So a mistake in the last line costs no model's work, and memory does not grow with the file.
"""

import os
import shutil
import signal
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cli import wiring
from cli.settings import Settings
from domain.errors import Invalid
from extractors.contract import ModelHome, Vectors
from extractors.text_embedding import folders, models
from extractors.text_embedding.chunking import Span
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.fitting import Fitter
from extractors.text_embedding.matryoshka import shorten
from extractors.text_embedding.models import Model, Precision

_COUNTED_AT_ONCE: Final = 512
_WINDOW_TEXTS: Final = 8_192
_WINDOW_TOKENS: Final = 65_536
_SLICE_TOKENS: Final = 8_192
_MOST_NAMED: Final = 10
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be embedded, and how.

    Attributes:
        model: the name of a known model, or a folder with one.
        dimensions: None for the model's full width.
        is_query: which of the model's prefixes stands before each text.
        may_cut: cut a text that is too long, instead of refusing the whole file.
    """

    model: str
    source: Path
    target: Path
    is_query: bool = False
    dimensions: int | None = None
    precision: Precision = "fp32"
    may_cut: bool = False


@dataclass(slots=True)
class _Counted:
    """What the first reading found.

    Attributes:
        state: of the file, which must not change until it is read again.
        tokens: of each text, as many as the model will read of it, prefix and special tokens included.
        cut: texts that are too long.
        lost: tokens of theirs that the model will not read.
        wrong: lines that cannot be embedded; ``problems`` says of the first ones why.
    """

    state: tuple[int, int]
    tokens: "array[int]" = field(default_factory=lambda: array("I"))
    cut: int = 0
    lost: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def refuse(self, problem: str) -> None:
        """Note a line that cannot be embedded."""
        self.wrong += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)


def run(settings: Settings, order: Order) -> None:
    """Embed a file.

    Raises:
        Invalid: a line is wrong (its number is named), a text is too long, or the order itself is wrong.
        WeightsMissing, WeightsBroken: the model cannot be used.
        SystemExit: it was interrupted; no file was written.
    """
    console = Console(stderr=True)
    wiring.load_plugins(settings)
    home = ModelHome(str(settings.models_folder), device=settings.device)
    engine = Engine(_model(order.model), home, order.precision)
    width = engine.model.width
    dimensions = order.dimensions or width
    if dimensions > width:
        raise Invalid(f"{engine.model.model_id} makes vectors of 1 to {width} dimensions, not {dimensions}.")
    _check_places(order)
    prefix = engine.model.query_prefix if order.is_query else engine.model.document_prefix
    fitter = Fitter(engine.tokenizer(), prefix, engine.model.max_tokens)
    began = time.monotonic()
    with _stoppable(console), _bar(console) as bar:
        counted = _count(order, engine.model, fitter, bar)
        job = _Job(engine, fitter, prefix, dimensions)
        engine.load()
        with _written(order.target, (len(counted.tokens), dimensions)) as write:
            task = bar.add_task("Embedding", total=sum(counted.tokens) or 1, unit="tokens/s")
            job.embed(order.source, counted, write, lambda tokens: bar.advance(task, tokens))
            if _state(order.source) != counted.state:
                raise Invalid(f"{order.source} changed while it was read. Nothing was written.")
    _tell(console, order, engine, counted, time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Job:
    """One model at work on one file."""

    engine: Engine
    fitter: Fitter
    prefix: str
    dimensions: int

    def embed(
        self, source: Path, counted: _Counted, write: Callable[[Vectors], None], advance: Callable[[float], None]
    ) -> None:
        """Write the vectors of all texts, in their order."""
        texts: list[str] = []
        lengths: list[int] = []
        for text, tokens in zip(_texts(source), counted.tokens, strict=True):
            texts.append(text)
            lengths.append(tokens)
            if len(texts) == _WINDOW_TEXTS or sum(lengths) >= _WINDOW_TOKENS:
                write(self._window(texts, lengths, advance))
                texts, lengths = [], []
        if texts:
            write(self._window(texts, lengths, advance))

    def _window(self, texts: list[str], lengths: list[int], advance: Callable[[float], None]) -> Vectors:
        """Return float32[n, dimensions]; texts of like length go through the model together."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        limit = self.engine.model.max_tokens
        for places in _slices(lengths):
            given = [self.prefix + self._cut(texts[place], lengths[place] >= limit) for place in places]
            share = sum(lengths[place] for place in places) / len(places)
            told = 0

            def progress(finished: int, share: float = share) -> None:
                nonlocal told
                advance((finished - told) * share)
                told = finished

            vectors[places] = shorten(self.engine.encode(given, progress), self.dimensions)
            progress(len(places))
        return vectors

    def _cut(self, text: str, may_be_long: bool) -> str:
        if not may_be_long or self.fitter.count([text])[0] <= self.engine.model.max_tokens:
            return text
        span = self.fitter.truncate(text, Span(0, len(text)))
        return text[span.start : span.end]


def _model(name: str) -> Model:
    if Path(name).is_dir():
        return folders.describe(Path(name))
    try:
        return models.require(name)
    except Invalid as error:
        raise Invalid(f"There is no folder {name!r}, and no model of that name. {error.message}") from error


def _check_places(order: Order) -> None:
    if not order.target.parent.is_dir():
        raise Invalid(f"The folder {order.target.parent} for the output does not exist.")
    if order.target.is_dir():
        raise Invalid(f"The output {order.target} is a folder.")
    if not order.source.is_file():
        raise Invalid(f"The input {order.source} is not a file. It is read twice, so it cannot be a pipe.")
    if order.target.exists() and order.target.samefile(order.source):
        raise Invalid("Input and output are the same file.")


def _texts(source: Path) -> Iterator[str]:
    """Yield the texts of a file that has been checked."""
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield _text(number, line)


def _text(number: int, line: bytes) -> str:
    """Return the text of a line. Raises ValueError saying what is wrong with it."""
    if not line.strip():
        raise ValueError(f"line {number} is empty")
    try:
        parsed = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON: {error.msg}, at character {error.colno}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("text"), str):
        raise ValueError(f'line {number} is not of the form {{"text": "…"}}')  # noqa: TRY004 - it is the line
    if not parsed["text"].strip():
        raise ValueError(f"line {number} has an empty text, or one of white space only")
    text: str = parsed["text"]
    return text


def _count(order: Order, model: Model, fitter: Fitter, bar: Progress) -> _Counted:
    """Read the file once and return the tokens of every text.

    Raises:
        Invalid: lines are wrong or, unless they may be cut, too long; the first of them are named.
    """
    counted = _Counted(_state(order.source))
    task = bar.add_task("Counting", total=max(1, counted.state[0]) / 1e6, unit="MB/s")
    pending: list[tuple[int, str]] = []

    def count() -> None:
        for (number, _), tokens in zip(pending, fitter.count([text for _, text in pending]), strict=True):
            counted.tokens.append(min(tokens, model.max_tokens))
            if tokens > model.max_tokens:
                counted.cut += 1
                counted.lost += tokens - model.max_tokens
                if not order.may_cut:
                    counted.refuse(f"line {number} has {tokens:,} tokens; {model.model_id} reads {model.max_tokens:,}")
        pending.clear()

    with order.source.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                pending.append((number, _text(number, line)))
            except ValueError as error:
                counted.refuse(str(error))
            if len(pending) == _COUNTED_AT_ONCE:
                count()
            bar.advance(task, len(line) / 1e6)
    count()
    bar.remove_task(task)
    if counted.wrong:
        raise Invalid(_refusal(order, counted))
    return counted


def _refusal(order: Order, counted: _Counted) -> str:
    more = counted.wrong - len(counted.problems)
    lines = [f"{order.source} cannot be embedded, and nothing was written:", *counted.problems]
    if more:
        lines.append(f"and {more:,} more")
    if counted.cut and not order.may_cut:
        lines.append("--truncate embeds the beginning of texts that are too long; ingestion cuts them into parts.")
    return "\n  ".join(lines)


def _slices(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of texts that are embedded together: like with like, a few seconds' work."""
    some: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if some and tokens + lengths[place] > _SLICE_TOKENS:
            yield some
            some, tokens = [], 0
        some.append(place)
        tokens += lengths[place]
    if some:
        yield some


def _state(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change of a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@contextmanager
def _written(target: Path, shape: tuple[int, int]) -> Iterator[Callable[[Vectors], None]]:
    """Give a function that writes the next rows of an .npy file, which appears whole at the end, or not at all.

    Raises:
        Invalid: there is no room for it, or it cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    needed, free = 4 * shape[0] * shape[1], shutil.disk_usage(target.parent).free
    if needed > free:
        raise Invalid(f"{target} takes {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free there.")
    try:
        with partial.open("xb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)

            def write(vectors: Vectors) -> None:
                file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())

            yield write
        partial.replace(target)
    except OSError as error:
        raise Invalid(f"{target} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _stoppable(console: Console) -> Iterator[None]:
    """End with one line and no file when told to stop, by Ctrl-C or politely by the system."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as stop:
        console.print("Interrupted. Nothing was written.")
        raise SystemExit(INTERRUPTED) from stop
    finally:
        signal.signal(signal.SIGTERM, former)


class _Speed(ProgressColumn):
    """How fast it goes, in the unit of the task."""

    def render(self, task: Task) -> Text:
        """Return the speed of the last half minute."""
        return Text(f"{task.speed:,.0f} {task.fields['unit']}" if task.speed else "", "cyan")


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _Speed(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _tell(console: Console, order: Order, engine: Engine, counted: _Counted, seconds: float) -> None:
    texts, tokens = len(counted.tokens), sum(counted.tokens)
    dimensions = order.dimensions or engine.model.width
    task = "queries" if order.is_query else "documents"
    lines = [
        f"{order.target}: float32 [{texts:,}, {dimensions}], {task} of {engine.model.model_id}.",
        f"{tokens:,} tokens in {seconds:,.1f} s with loading, {tokens / seconds:,.0f} tokens/s, {order.precision}.",
    ]
    if counted.cut:
        lines.append(f"Texts that were cut: {counted.cut:,}; {counted.lost:,} of their tokens were not read.")
    loss = engine.loss()
    if loss is not None:
        lines.append(f"int8 against fp32, measured on this model: {loss}.")
    for line in lines:
        console.print(Text(line), soft_wrap=True)
