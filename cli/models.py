"""`openpeek model`: what is known, what is here, and how the rest is had."""

from rich.console import Console
from rich.table import Table

from cli import wiring
from cli.settings import Settings
from extractors.contract import ModelHome
from extractors.text_embedding import models, weights


def show(settings: Settings) -> None:
    """Print the known models."""
    wiring.load_plugins(settings)
    home = ModelHome(str(settings.models_folder))
    table = Table(title="Models")
    table.add_column("Model", no_wrap=True)
    for heading in ("Dimensions", "Tokens", "Licence", "Weights"):
        table.add_column(heading, overflow="fold")
    for model in models.all_known():
        where = (
            str(weights.locate(model, home).folder) if weights.is_here(model, home) else "not here: openpeek model pull"
        )
        widths = f"{model.narrowest}-{model.width}" if model.narrowest < model.width else str(model.width)
        table.add_row(model.model_id, widths, str(model.max_tokens), model.licence, where)
    Console().print(table)


def pull(settings: Settings, name: str) -> None:
    """Download a model."""
    console = Console()
    model = models.require(name)
    folder = weights.pull(model, ModelHome(str(settings.models_folder)), console.print)
    console.print(f"{model.model_id} is in {folder}. Collections that wait for it go on by themselves.")
