"""`openpeek doctor`: looks at every part and says what it found and what to do."""

import shutil
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from cli import schema, wiring
from cli.settings import Settings, SettingsWrong
from domain.errors import OpenPeekError
from extractors.contract import ModelHome
from extractors.text_embedding import models, weights
from extractors.text_embedding.engine import Engine, choose
from storage.tables import collections, statistics, workers

_LOW_DISK_BYTES = 2 * 1024**3
_MANY_POINTS = 200_000


def examine(settings: Settings) -> bool:
    """Print what was found; return whether everything is well."""
    console = Console()
    table = Table(title="OpenPeek doctor", show_lines=False)
    for heading in ("Part", "State", "What was found"):
        table.add_column(heading, overflow="fold")
    healthy = True

    def tell(part: str, problem: str | None, found: str) -> None:
        nonlocal healthy
        healthy = healthy and problem is None
        table.add_row(part, "[green]ok[/]" if problem is None else "[red]problem[/]", problem or found)

    mode = "distributed (Celery workers)" if settings.is_distributed else "embedded (threads of `openpeek serve`)"
    tell("mode", None, mode)
    _look_at_disk(settings, tell)
    try:
        house = wiring.build(settings)
    except SettingsWrong as error:
        tell("database", str(error), "")
        console.print(table)
        return False
    except Exception as error:
        if type(error).__name__ != "FolderInUse":
            raise
        tell("vectors", None, f"{error} That is as it should be while `openpeek serve` runs.")
        console.print(table)
        return healthy
    try:
        _look_at_parts(house, tell)
        _look_at_models(house, tell)
    finally:
        house.close()
    console.print(table)
    return healthy


Tell = Callable[[str, str | None, str], None]


def _look_at_disk(settings: Settings, tell: Tell) -> None:
    folder = settings.data if settings.data.exists() else settings.data.resolve().parent
    free = shutil.disk_usage(folder if folder.exists() else "/").free
    low = (
        f"Only {free / 1024**3:.1f} GiB are free where {settings.data} lies. Make room."
        if free < _LOW_DISK_BYTES
        else None
    )
    tell("disk", low, f"{free / 1024**3:.0f} GiB free at {settings.data}")


def _look_at_parts(house: wiring.House, tell: Tell) -> None:
    storage, settings = house.storage, house.settings
    kind = "SQLite in the data folder" if storage.database.is_sqlite else "PostgreSQL"
    tell("database", None, f"{kind}, schema {schema.current(storage.database)}")
    parts: dict[str, tuple[Any, str]] = {
        "blobs": (storage.blobs, settings.blobs or f"folder {settings.data / 'blobs'}"),
        "vectors": (
            storage.vectors,
            "Qdrant server" if settings.vectors_url else f"folder {settings.data / 'vectors'}",
        ),
        "queue": (storage.queue, "Redis" if settings.queue_url else "threads"),
    }
    for name, (part, found) in parts.items():
        try:
            part.check()
        except OpenPeekError as error:
            tell(name, error.message, "")
        else:
            tell(name, None, found)
    with storage.database.reading() as session:
        last, age_ms, alive = workers.latest_beat(session)
        many = statistics.documents_in_all(session)
    if not settings.vectors_url:
        advice = (
            f" Beyond {_MANY_POINTS:,} a Qdrant server (OPENPEEK_VECTORS_URL) serves better."
            if many > _MANY_POINTS
            else ""
        )
        tell("documents", None, f"{many:,} documents.{advice}")
    if settings.is_distributed:
        seen = (
            f"the last was heard of {age_ms // 1000} s ago"
            if last is not None and age_ms is not None
            else "none was ever seen"
        )
        tell(
            "workers",
            None if alive else f"No worker is alive ({seen}). Start one with `openpeek worker`.",
            f"{alive} alive",
        )


def _look_at_models(house: wiring.House, tell: Tell) -> None:
    with house.storage.database.reading() as session:
        used = {row.model_id for row in collections.models_in_use(session)}
    if house.models.server is not None:
        _look_at_server(house.models, sorted({str(one) for one in used if one}), tell)
        return
    for model in models.all_known():
        here = weights.is_here(model, house.models)
        if here:
            located = weights.locate(model, house.models)
            tell("model", None, f"{model.model_id}: {located.folder}")
        elif model.model_id in used:
            tell(
                "model",
                f"A collection uses {model.model_id}, and its weights are missing. {weights.ways(model, house.models)}",
                "",
            )


def _look_at_server(home: ModelHome, used: list[str], tell: Tell) -> None:
    """Ask the embeddings server for each model that a collection uses, or for the one that the next would get."""
    for model_id in used or [choose(None, home).model_id]:
        try:
            engine = Engine(models.require(model_id), home)
            identity = engine.identity()
            engine.encode(["word"], urgent=True)
        except OpenPeekError as error:
            tell("model", error.message, "")
        else:
            tell("model", None, f"{model_id}: embeddings server, revision {identity.revision}")
