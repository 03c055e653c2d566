"""`openpeek model`: what is known, what is here, and how the rest is had."""

import json
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli import wiring
from cli.settings import Settings
from extractors.contract import ModelHome
from extractors.text_embedding import cards, models, weights
from extractors.text_embedding.models import Model
from retrieval.companions import stages_of_vectors

_SPREAD: Final = ("Feature URI", "Weights", "Paper")  # of no use side by side


def show_all(settings: Settings) -> None:
    """Print the known models."""
    home = _home(settings)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Model", overflow="fold", min_width=39)
    for heading in ("Dims", "Tokens", "Licence", "Weights"):
        table.add_column(heading, overflow="fold")
    for model in models.all_known():
        here = Text("here", "green") if weights.is_here(model, home) else Text("not here", "dim")
        table.add_row(
            model.model_id,
            "-".join(map(str, sorted({model.narrowest, model.width}))),
            str(model.max_tokens),
            model.licence or "-",
            here,
        )
    console = Console()
    console.print(table)
    console.print("`openpeek model show MODEL` says more.", style="dim")


def show(settings: Settings, name: str) -> None:
    """Print what is known of a model. Raises Invalid when it is not known."""
    home = _home(settings)
    model = models.require(name)
    console = Console()
    console.print(Text(model.model_id, "bold"))
    card = cards.find(model)
    if card is not None:
        console.print(Text(card.summary))
    console.print()
    console.print(_grid({label: [text] for label, text in _facts(model, home).items()}))
    console.print(Text("\nA collection of it: POST /v1/collections", "bold"))
    console.print(Text(json.dumps(cards.collection_body(model), indent=2)))


def compare(settings: Settings, one: str, other: str) -> None:
    """Print two models side by side. Raises Invalid when one is not known."""
    home = _home(settings)
    pair = (models.require(one), models.require(other))
    columns = [{**_facts(model, home), **_scores(model)} for model in pair]
    labels = dict.fromkeys(label for column in columns for label in column)  # in the order of the first
    rows = {label: [column.get(label, "-") for column in columns] for label in labels if label not in _SPREAD}
    rows.pop("Published", None)
    console = Console()
    console.print(_grid(rows, [model.model_id.replace("/", "/\n", 1) for model in pair]))
    if pair[0] != pair[1]:
        console.print("Vectors of two models cannot be compared: a collection has one of them.", style="dim")


def pull(settings: Settings, name: str) -> None:
    """Download a model."""
    console = Console()
    model = models.require(name)
    folder = weights.pull(model, ModelHome(str(settings.models_folder)), console.print)
    console.print(f"{model.model_id} is in {folder}. Collections that wait for it go on by themselves.")


def _home(settings: Settings) -> ModelHome:
    wiring.load_plugins(settings)
    return ModelHome(str(settings.models_folder))


def _facts(model: Model, home: ModelHome) -> dict[str, str]:
    """Return what is to be said of a model, by label, in the order of interest."""
    card = cards.find(model)
    facts = {"Feature URI": str(cards.feature_uri(model))}
    if card is not None:
        facts |= {
            "Architecture": card.architecture,
            "Parameters": _millions(card.parameters, card.active_parameters),
            "Languages": card.languages,
        }
    facts |= {
        "Dimensions": cards.dimensions(model),
        "Reads": f"{model.max_tokens} tokens, prefix included",
        "Doc prefix": repr(model.document_prefix) if model.document_prefix else "none",
        "Query prefix": repr(model.query_prefix) if model.query_prefix else "none",
        "Licence": model.licence or "not known",
        "Revision": model.revision[:12],
    }
    if card is not None:
        facts["Paper"] = card.paper
        facts["Published"] = "\n".join(f"{score.benchmark}: {score.value:g} ({score.source})" for score in card.scores)
    facts["Stages"] = ", ".join(stages_of_vectors())
    if weights.is_here(model, home):
        facts["Weights"] = f"here, in {weights.locate(model, home).folder}"
    else:
        facts["Weights"] = f"not here. {weights.ways(model, home)}"
    return {label: text for label, text in facts.items() if text}


def _scores(model: Model) -> dict[str, str]:
    card = cards.find(model)
    return {score.benchmark: f"{score.value:g}" for score in card.scores} if card else {}


def _millions(parameters: int, active: int | None) -> str:
    at_work = f", {active / 1e6:,.0f} M at work on a token" if active else ""
    return f"{parameters / 1e6:,.0f} M{at_work}"


def _grid(rows: Mapping[str, list[str]], headings: list[str] | None = None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="bold")
    table.add_column("", style="dim", max_width=12)
    for heading in headings or [""]:
        table.add_column(heading, overflow="fold", ratio=1)
    for label, texts in rows.items():
        table.add_row(label, *(Text(text) for text in texts))
    return table
