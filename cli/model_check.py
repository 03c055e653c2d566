"""`openpeek model verify`: whether the weights in a folder are the published ones, and compute what they should."""

import builtins
import inspect
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cli import scifact
from domain.errors import WeightsBroken
from extractors.contract import ModelHome, Vectors
from extractors.text_embedding import cards, models, verification, weights
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.models import Model
from extractors.text_embedding.verification import Finding, State

# Another cut of the texts, other arithmetic and ties move the mean over 300 queries by a few thousandths at most.
_SCIFACT_TOLERANCE: Final = 0.005
_COMPARED_TEXTS: Final = 200
_MEAN_COSINE: Final = 0.9999
_STYLES: Final = {"ok": ("ok", "green"), "wrong": ("NO", "bold red"), "unknown": ("--", "yellow")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be verified.

    Attributes:
        model: one of the known models.
        folder: where it lies; None for where it is looked for when texts are embedded.
        device: compared with the CPU.
        data: a folder with BEIR's SciFact.
    """

    model: str
    folder: Path | None = None
    device: str | None = None
    data: Path | None = None


def verify(models_folder: Path, wanted: Wanted) -> bool:
    """Print each check on its own line as it is done; return whether nothing was wrong.

    Raises:
        Invalid: the model is unknown, or the data cannot be read.
        WeightsMissing: there is nothing to verify.
    """
    console = Console()
    known, home = models.require(wanted.model), ModelHome(str(models_folder))
    folder = wanted.folder or weights.locate(known, home).folder
    data = scifact.read(wanted.data) if wanted.data is not None else None  # before the long work, not after it
    console.print(Text(f"{known.model_id} in {folder}"))
    findings = []
    for finding in _look(known, folder, home, wanted.device, data):
        _tell(console, finding)
        findings.append(finding)
    is_well = _conclude(console, known, findings)
    card = cards.find(known)
    if is_well and data is None and card is not None and card.scifact is not None:
        console.print("Not measured: SciFact. Get the data, and give its folder as --scifact scifact:", style="dim")
        console.print(Text(scifact.HOW_TO_GET), soft_wrap=True)
    return is_well


def _look(
    known: Model, folder: Path, home: ModelHome, device: str | None, data: scifact.Scifact | None
) -> Iterator[Finding]:
    try:
        model = verification.lying_in(known, folder, home)
    except WeightsBroken as error:
        yield Finding("files", "wrong", str(error.details["problem"]), f"the files of {known.model_id}")
        return
    layout = list(verification.check_layout(model))
    yield from layout
    yield from verification.check_hashes(model)
    if layout[0].state == "wrong":
        return  # it cannot be loaded
    engine = Engine(model, home)
    try:
        yield verification.check_similarity(engine)
        if data is not None:
            yield _check_scifact(engine, data)
        if device is not None:
            yield _check_device(engine, device)
    except WeightsBroken as error:
        yield Finding("computing", "wrong", str(error.details["problem"]), "vectors")


def _check_scifact(engine: Engine, data: scifact.Scifact) -> Finding:
    with _bar() as bar:
        task = bar.add_task("SciFact", total=len(data.documents) + len(data.queries))
        there = scifact.score(engine, data, lambda texts: bar.advance(task, texts))
    card = cards.find(engine.model)
    found = f"{there:.4f} nDCG@10 ({len(data.queries):,} queries, {len(data.documents):,} documents)"
    if card is None or card.scifact is None:
        return Finding("SciFact", "unknown", f"{found}; no other result is known here")
    wanted = f"{card.scifact.value} ± {_SCIFACT_TOLERANCE}, from {card.scifact.source}"
    if abs(there - card.scifact.value) <= _SCIFACT_TOLERANCE:
        return Finding("SciFact", "ok", f"{found}; expected: {wanted}")
    return Finding("SciFact", "wrong", found, wanted)


def _check_device(engine: Engine, device: str) -> Finding:
    """Return whether a device gives the CPU's vectors. No GPU was at hand where OpenPeek was made."""
    problem = verification.device_problem(device)
    if problem is not None:
        return Finding(device, "wrong", f"torch cannot compute on it: {problem}", "a device that torch has here")
    texts, counts = verification.cut(engine, _texts(), engine.model.document_prefix)
    with _bar() as bar:
        theirs, their_seconds = _timed(replace(engine, home=replace(engine.home, device=device)), texts, bar)
        ours, our_seconds = _timed(engine, texts, bar)
    cosines = (ours * theirs).sum(axis=1)
    found = (
        f"cosine to the CPU's vectors of {len(texts)} texts: mean {cosines.mean():.6f}, lowest {cosines.min():.6f}; "
        f"{sum(counts) / their_seconds:,.0f} tokens/s, CPU {sum(counts) / our_seconds:,.0f}"
    )
    if cosines.mean() >= _MEAN_COSINE:
        return Finding(device, "ok", found)
    return Finding(device, "wrong", found, f"a mean of at least {_MEAN_COSINE}")


def _texts() -> list[str]:
    """Return texts of all lengths that every machine has: what Python says of its own functions."""
    told = (inspect.getdoc(thing) for owner in (builtins, str, dict, os, math) for thing in vars(owner).values())
    return list(dict.fromkeys(doc for doc in told if doc))[:_COMPARED_TEXTS]


def _timed(engine: Engine, texts: list[str], bar: Progress) -> tuple[Vectors, float]:
    """Return the vectors of texts and how many seconds they took."""
    task = bar.add_task(f"{len(texts)} texts on {engine.home.device}", total=len(texts))
    engine.encode(texts[:8])  # loads, and warms up
    began = time.perf_counter()
    vectors = engine.encode(texts, lambda finished: bar.update(task, completed=finished))
    return vectors, time.perf_counter() - began


def _bar() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def _tell(console: Console, finding: Finding) -> None:
    word, style = _STYLES[finding.state]
    line = Table.grid(padding=(0, 2))
    line.add_column(width=2)
    line.add_column(width=17)
    line.add_column(overflow="fold")
    line.add_row(Text(word, style), Text(finding.check), Text(finding.found))
    if finding.expected:
        line.add_row("", "", Text(f"expected: {finding.expected}", "dim"))
    console.print(line)


def _conclude(console: Console, model: Model, findings: list[Finding]) -> bool:
    states = {finding.check: finding.state for finding in findings}
    wrong = [check for check, state in states.items() if state == "wrong"]
    verdict = _verdict(model.model_id, states)
    if wrong:
        console.print(Text(f"{verdict}: see {', '.join(wrong)}.", "bold red"))
    else:
        console.print(Text(f"{verdict}.", "green"))
    return not wrong


def _verdict(model_id: str, states: Mapping[str, State]) -> str:
    is_published = states.get(weights.WEIGHTS) == "ok"
    if "wrong" not in states.values():
        if is_published:
            return f"These are the published weights of {model_id}"
        return f"Nothing that is known of {model_id} speaks against these weights"
    if is_published:
        return f"The weights are the published ones of {model_id}, and something else is wrong"
    if states.get("similarity") == "ok":
        return f"These compute as {model_id} does, but are not the published files"
    return f"These are not the published weights of {model_id}"
