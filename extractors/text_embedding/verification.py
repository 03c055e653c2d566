"""Are these the published weights? What a folder holds is compared with what is known of a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Final, Literal

from domain.errors import WeightsBroken
from extractors.contract import ModelHome
from extractors.text_embedding import cards, nomic_config, weights
from extractors.text_embedding.engine import Engine
from extractors.text_embedding.models import Model

State = Literal["ok", "wrong", "unknown"]  # unknown: there is nothing published to compare with
_SHOWN: Final = 16
_ROUNDING: Final = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``expected`` is empty where all is as it should be."""

    check: str
    state: State
    found: str
    expected: str = ""


def lying_in(model: Model, folder: Path, home: ModelHome) -> Model:
    """Return a model whose files lie in a folder.

    Raises:
        WeightsBroken: files are missing, or their config.json is not that of the model's family.
    """
    there = replace(model, folder=folder)
    weights.locate(there, home)
    if model.family == "nomic_moe":
        return replace(there, width=nomic_config.read(model.model_id, folder).width)
    return there


def check_layout(model: Model) -> Iterator[Finding]:
    """Yield whether the checkpoint is whole and fits its config.json, and whether it has the published size."""
    folder = _folder(model)
    try:
        header = weights.read_header(model.model_id, folder / weights.WEIGHTS)
        yield Finding("layout", "ok", _layout(model, folder, header))
    except WeightsBroken as error:
        yield Finding("layout", "wrong", str(error.details["problem"]), f"that of {model.model_id}")
        return
    parameters = sum(prod(shape) for dtype, shape in header.values() if dtype in weights.READABLE)
    yield _check_size(model, len(header), parameters)


def _layout(model: Model, folder: Path, header: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Return what fits. Raises WeightsBroken where something does not."""
    if model.family == "nomic_moe":
        weights.check_layout(model.model_id, header, nomic_config.layout(nomic_config.read(model.model_id, folder)))
        return "whole, and exactly the tensors that config.json demands"
    width = weights.read_config(model.model_id, folder).get("hidden_size")
    if width != model.width:
        raise WeightsBroken(model.model_id, f"config.json says hidden_size: {width!r}, not {model.width}.")
    return f"whole, of width {width}"


def _check_size(model: Model, tensors: int, parameters: int) -> Finding:
    found = f"{tensors:,} tensors, {parameters:,} parameters"
    card = cards.find(model)
    if card is None:
        return Finding("size", "unknown", f"{found}; no other count is known here")
    if card.tensors is not None:
        is_same, expected = (tensors, parameters) == (card.tensors, card.parameters), f"{card.tensors:,} tensors, "
    else:  # published in millions
        is_same, expected = abs(parameters / card.parameters - 1) < _ROUNDING, "about "
    return (
        Finding("size", "ok", found)
        if is_same
        else Finding("size", "wrong", found, f"{expected}{card.parameters:,} parameters")
    )


def check_hashes(model: Model) -> Iterator[Finding]:
    """Yield for each file that has a published hash whether it is that file. Reads all of it."""
    if not model.sha256:
        yield Finding("hashes", "unknown", "no hash of this model's files is known here")
    for name, wanted in model.sha256.items():
        try:
            there = weights.sha256(_folder(model) / name)
        except OSError as error:
            yield Finding(name, "wrong", f"it cannot be read: {error.strerror}", f"SHA-256 {wanted[:_SHOWN]}…")
            continue
        if there == wanted:
            yield Finding(name, "ok", f"SHA-256 {there[:_SHOWN]}… of revision {model.revision[:8]}")
        else:
            yield Finding(name, "wrong", f"SHA-256 {there[:_SHOWN]}…, unknown", f"{wanted[:_SHOWN]}…")


def check_similarity(engine: Engine) -> Finding:
    """Return whether the published example comes out as published.

    Raises:
        WeightsBroken: the weights cannot be used.
    """
    card = cards.find(engine.model)
    if card is None or card.similarity is None:
        return Finding("similarity", "unknown", "none is published for this model")
    wanted = card.similarity
    one, other = engine.encode([engine.model.document_prefix + text for text in (wanted.one, wanted.other)])
    there = float(one @ other)
    found = f"{there:.4f} of {wanted.one!r} and {wanted.other!r}"
    if abs(there - wanted.value) <= wanted.tolerance:
        return Finding("similarity", "ok", f"{found}, published: {wanted.value}")
    return Finding("similarity", "wrong", found, f"{wanted.value} ± {wanted.tolerance} ({wanted.source})")


def cut(engine: Engine, texts: Sequence[str], prefix: str) -> tuple[list[str], list[int]]:
    """Return texts behind their prefix, each no longer than the model reads, and the tokens of each."""
    tokenizer, limit = engine.tokenizer(), engine.model.max_tokens
    counts = tokenizer.count([prefix + text for text in texts])
    fitting = [
        prefix + (text if count <= limit else text[: tokenizer.reach(prefix, text, limit)[0]])
        for text, count in zip(texts, counts, strict=True)
    ]
    return fitting, [min(count, limit) for count in counts]


def device_problem(device: str) -> str | None:
    """Return why torch cannot compute on a device here; None if it can."""
    import torch  # noqa: PLC0415 - whoever asks is about to load it anyway

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        return str(error).splitlines()[0]
    return None


def _folder(model: Model) -> Path:
    assert model.folder is not None, "lying_in() names it"
    return model.folder
