"""The command `openpeek`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import settings as settings_module
from cli import wiring
from cli.settings import Settings

app = typer.Typer(
    name="openpeek",
    help="OpenPeek: the open, self-hosted pipeline platform that speaks the Mixpeek API.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=True,
)
keys = typer.Typer(help="API keys, on the server's host.", no_args_is_help=True)
org = typer.Typer(help="Organizations, on the server's host.", no_args_is_help=True)
model = typer.Typer(help="Models and their weights.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(org, name="org")
app.add_typer(model, name="model")

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data (default: OPENPEEK_DATA, ./openpeek-data).")
]


ModelName = Annotated[str, typer.Argument(help="A repository, an inference name or an alias.")]


Size = Annotated[int | None, typer.Option(min=1, help="Instead of the default, or of what --full says.")]


class Task(StrEnum):
    """What texts are to be found as."""

    DOCUMENT = "document"
    QUERY = "query"


class Arithmetic(StrEnum):
    """What the model computes in."""

    FP32 = "fp32"
    INT8 = "int8"


def _settings(data: Path | None = None) -> Settings:
    return settings_module.load(data=data)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on.")] = 8000,
    *,
    preload: Annotated[
        bool, typer.Option("--preload", help="Load models at the start; /readyz answers 503 until they are.")
    ] = False,
    data: Data = None,
) -> None:
    """Serve the API; without OPENPEEK_QUEUE_URL the workers run in this process too."""
    with wiring.told():
        found = _settings(data)
        from cli.serve import serve as run  # noqa: PLC0415 - `--help` needs no server

        run(found, host, port, preload=preload)


@app.command()
def worker(
    processes: Annotated[int, typer.Option(min=1, max=256, help="Worker processes to keep alive.")] = 1,
    *,
    alone: Annotated[bool, typer.Option("--alone", hidden=True)] = False,
    data: Data = None,
) -> None:
    """Do the work of distributed mode (needs OPENPEEK_QUEUE_URL)."""
    with wiring.told():
        found = _settings(data)
        from cli import work  # noqa: PLC0415

        if alone:
            work.work(found)
        else:
            work.supervise(found, processes)


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the database's schema to what this version needs."""
    with wiring.told():
        from cli import schema  # noqa: PLC0415

        database = wiring.open_database(_settings(data), prepare=False)
        before = schema.current(database)
        schema.upgrade(database)
        after = schema.current(database)
        typer.echo(
            f"The schema was at {before}, and is at {after}." if before != after else f"The schema is at {after}."
        )
        database.close()


@app.command()
def doctor(data: Data = None) -> None:
    """Look at every part and say what was found; exits with 1 if something is wrong."""
    with wiring.told():
        from cli.doctor import examine  # noqa: PLC0415

        if not examine(_settings(data)):
            raise typer.Exit(1)


@app.command()
def demo(
    data: Annotated[Path, typer.Option(help="Folder that the demo leaves its data in.")] = Path("demo-data"),
    model_id: Annotated[
        str | None, typer.Option("--model", help="Use this model; its weights are downloaded if absent.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, max=3_600, help="How long ingestion may take.")] = 120,
) -> None:
    """Run the main job on real input: ingest a bucket, extract, index, search, and show what happened."""
    with wiring.told():
        from cli.demo import run  # noqa: PLC0415

        run(data, model_id, seconds)


@keys.command("reset")
def reset_key(
    data: Data = None,
    organization: Annotated[str, typer.Option(help="Name of the organization.")] = "default",
) -> None:
    """Make a new admin key; the former one stops working."""
    with wiring.told():
        from cli import secrets  # noqa: PLC0415

        found = _settings(data)
        database = wiring.open_database(found)
        key = secrets.reset_admin_key(database, secrets.load_secrets(found), organization)
        if key is None:
            typer.echo(
                f"openpeek: there is no organization {organization!r}. `openpeek org create` makes one.", err=True
            )
            raise typer.Exit(2)
        if organization == secrets.DEFAULT_ORGANIZATION:
            known = secrets.read_credentials(found.data)
            secrets.write_credentials(found.data, known.get("url", "http://127.0.0.1:8000"), key)
        typer.echo(f"The new admin key, shown once: {key}")
        database.close()


@org.command("create")
def create_org(name: Annotated[str, typer.Argument(help="Name of the organization.")], data: Data = None) -> None:
    """Make an organization and print its admin key."""
    with wiring.told():
        from cli import secrets  # noqa: PLC0415

        found = _settings(data)
        database = wiring.open_database(found)
        key = secrets.create_organization(database, secrets.load_secrets(found), name)
        typer.echo(f"The organization {name!r} is made. Its admin key, shown once: {key}")
        database.close()


@app.command()
def embed(
    model_id: Annotated[str, typer.Option("--model", help="A known model, or a folder with one.")],
    source: Annotated[Path, typer.Option("--input", help='A file with one {"text": "…"} on each line.')],
    target: Annotated[Path, typer.Option("--output", help="The .npy file: float32 [n, dimensions], in input order.")],
    task: Annotated[Task, typer.Option(help="Which of the model's prefixes stands before each text.")] = Task.DOCUMENT,
    dimensions: Annotated[
        int | None,
        typer.Option(
            min=1, help="1 to the model's width, which is the default. Nomic trained its model for 256 or more."
        ),
    ] = None,
    precision: Annotated[
        Arithmetic, typer.Option(help="int8 is faster, takes less memory, and says what it costs.")
    ] = Arithmetic.FP32,
    *,
    truncate: Annotated[
        bool, typer.Option("--truncate/--reject", help="Cut texts that are too long, or refuse the file.")
    ] = False,
    data: Data = None,
) -> None:
    """Turn a file of texts into a file of vectors, without a server."""
    with wiring.told():
        from cli.embed import Order, run  # noqa: PLC0415

        order = Order(model_id, source, target, task is Task.QUERY, dimensions, precision.value, truncate)
        run(_settings(data), order)


@model.command("list")
def list_models(data: Data = None) -> None:
    """List the known models, and which weights are on this machine."""
    with wiring.told():
        from cli.models import show_all  # noqa: PLC0415

        show_all(_settings(data))


@model.command("show")
def show_model(name: ModelName, data: Data = None) -> None:
    """Say what a model is, what it demands, and how a collection asks for it."""
    with wiring.told():
        from cli.models import show  # noqa: PLC0415

        show(_settings(data), name)


@model.command("compare")
def compare_models(one: ModelName, other: ModelName, data: Data = None) -> None:
    """Show two models side by side."""
    with wiring.told():
        from cli.models import compare  # noqa: PLC0415

        compare(_settings(data), one, other)


@model.command("verify")
def verify_model(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of the weights (default: where this server finds them).", exists=True, file_okay=False
        ),
    ] = None,
    name: Annotated[str, typer.Option("--model", help="Which model it should be.")] = "nomic-embed-text-v2-moe",
    device: Annotated[
        str | None, typer.Option(help="Compare a device, cuda for instance, with the CPU. Untested: we had no GPU.")
    ] = None,
    scifact: Annotated[
        Path | None, typer.Option(help="Folder with BEIR's SciFact: measure nDCG@10, half an hour on 2 cores.")
    ] = None,
    data: Data = None,
) -> None:
    """Check weights against what is published of them, without the network; exits with 1 if something is wrong."""
    with wiring.told():
        from cli.model_check import Wanted, verify  # noqa: PLC0415

        if not verify(_settings(data).models_folder, Wanted(name, folder, device, scifact)):
            raise typer.Exit(1)


@model.command("synthesize")
def synthesize_model(
    folder: Annotated[Path, typer.Argument(help="Where it is put; a folder that is not there yet.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed and sizes give the same bytes.")] = 1,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="As large as the published model: 475 M weights, 1.9 GB.")
    ] = False,
    layers: Size = None,
    width: Size = None,
    heads: Size = None,
    inner: Size = None,
    experts: Size = None,
    vocabulary: Size = None,
) -> None:
    """Make a checkpoint with random weights in the layout of nomic-embed-text-v2-moe, to measure or to try things."""
    with wiring.told():
        from cli.synthesis import make  # noqa: PLC0415

        sizes = {"layers": layers, "width": width, "heads": heads, "inner": inner, "experts": experts}
        make(folder, seed, is_full=full, sizes={**sizes, "vocabulary": vocabulary})


@model.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="For instance nomic-ai/nomic-embed-text-v2-moe.")], data: Data = None
) -> None:
    """Download a model's weights at the pinned revision, and check their hashes."""
    with wiring.told():
        from cli.models import pull  # noqa: PLC0415

        pull(_settings(data), name)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
