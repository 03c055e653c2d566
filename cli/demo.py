"""`make demo`: the whole way from a bucket to answers, on real input, over HTTP, in about two minutes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli import demo_input, settings, wiring
from cli.secrets import read_credentials
from domain.errors import OpenPeekError
from domain.json_types import Fields
from extractors import registry
from extractors.contract import ModelHome
from extractors.text_embedding import models, weights
from extractors.text_embedding.models import Model

NAMESPACE: Final = "python-docs"
_WARM_UP: Final = 16
_MEASURED: Final = 192
_ENGLISH: Final = (
    "How do I run a function in another thread and get its result later?",
    "Which function reads a date from ISO text?",
    "I want to compress a file with gzip",
    "How can I measure how long a small piece of code takes?",
    "Find the most common elements of a list",
)
_OTHERS: Final = ("Wie lese ich eine CSV-Datei Zeile für Zeile?", "一時ファイルを作って自動的に削除するには？")  # noqa: RUF001
_DONE: Final = frozenset({"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"})


def run(data: Path, model_id: str | None, seconds: int) -> None:
    """Run the demo; Ctrl-C stops it and leaves a data folder that the next run can use.

    Raises:
        OpenPeekError: the wanted model is not known or cannot be had; the message tells the ways.
    """
    console = Console()
    data.mkdir(parents=True, exist_ok=True)
    found = settings.load(data=data)
    wiring.load_plugins(found)
    home = ModelHome(str(found.models_folder), found.default_model)
    model = _choose_model(console, home, model_id)
    try:
        with _server(console, data) as client:
            _Demo(console, client, model, seconds, data).tell()
    except KeyboardInterrupt:
        console.print("\n[yellow]Stopped.[/] What was embedded is kept; `make demo` goes on from there.")
        raise SystemExit(130) from None


def _choose_model(console: Console, home: ModelHome, wanted: str | None) -> Model:
    """Return the model to use: the wanted one, downloaded if need be, or the best that is here."""
    if wanted is None:
        output = registry.configure("text_extractor", {}, home).output()
        assert output is not None
        model = models.require(output.spec.model_id)
        weights.locate(model, home)
        return model
    model = models.require(wanted)
    if not weights.is_here(model, home):
        size = f"{model.size_bytes / 1e9:.1f} GB" if model.size_bytes else "its weights"
        console.print(f"{model.model_id} is not on this machine: downloading {size} …")
        weights.pull(model, home, console.print)
    return model


@contextmanager
def _server(console: Console, data: Path) -> Iterator[httpx.Client]:
    """Start `openpeek serve` on a free port, in a process that ends with this one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (data / "credentials.json").touch(mode=0o600)
    began = time.perf_counter()
    log = (data / "demo.log").open("ab")
    command = [sys.executable, "-m", "cli", "serve", "--port", str(port), "--data", str(data)]
    # A session of its own, so that Ctrl-C reaches this process only, which then stops the server in good order.
    server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ.copy(), start_new_session=True)  # noqa: S603
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(server, url, data)
        console.print(f"Server started in {time.perf_counter() - began:.1f} s on {url}, data in [bold]{data}[/]")
        key = read_credentials(data).get("api_key") or os.environ.get("OPENPEEK_ADMIN_API_KEY", "")
        headers = {"Authorization": f"Bearer {key}", "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=60) as client:
            yield client
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def _wait_for(server: subprocess.Popen[bytes], url: str, data: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            tail = (data / "demo.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise settings.SettingsWrong("The server did not start: " + " ".join(tail))
        try:
            if httpx.get(f"{url}/healthz", timeout=1).status_code == 200:  # noqa: PLR2004
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise settings.SettingsWrong(f"The server did not answer within 60 s; see {data / 'demo.log'}.")


@dataclass(slots=True)
class _Demo:
    """The story, step by step."""

    console: Console
    client: httpx.Client
    model: Model
    seconds: int
    data: Path

    def tell(self) -> None:
        """Run every step."""
        self.console.print(
            f"Model: [bold]{self.model.model_id}[/] ({self.model.width} dimensions, {self.model.max_tokens} tokens)"
        )
        bucket, collection = self._make()
        every = demo_input.objects()
        self.console.print(f"Input: {len(every):,} docstrings of this Python's standard library")
        began = time.perf_counter()
        ids = self._ingest(bucket, every)
        self._process(bucket, ids[:_WARM_UP], "Warming up")
        done = self._process(bucket, ids[_WARM_UP : _WARM_UP + _MEASURED], "Measuring")
        rate = done["documents"] / done["seconds"]
        rest = ids[_WARM_UP + _MEASURED :]
        fits = int(rate * max(self.seconds - (time.perf_counter() - began), 1))
        if fits < len(rest):
            total = f"{fits + _WARM_UP + _MEASURED:,} of {len(ids):,}"
            self.console.print(f"At {rate:.0f} documents/s, {total} objects fit into {self.seconds} s.")
        if fits and rest:
            done = self._process(bucket, rest[:fits], "Embedding")
        self._summarise(done)
        self._ask(collection)
        self._leave()

    def _post(self, path: str, body: Fields | None = None) -> dict[str, Any]:
        return self._read(self.client.post(path, json=body or {}))

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        content: dict[str, Any] = response.json()
        if response.status_code != 200:  # noqa: PLR2004
            raise OpenPeekError(content.get("error", {}).get("message", response.text[:300]))
        return content

    def _make(self) -> tuple[str, str]:
        """Make namespace, bucket, collection and retriever; what a former run left is removed first."""
        if self.client.get(f"/namespaces/{NAMESPACE}").status_code == 200:  # noqa: PLR2004
            self._read(self.client.delete(f"/namespaces/{NAMESPACE}", params={"force": True}))
        self._post("/namespaces", {"namespace_name": NAMESPACE})
        properties: Fields = {name: {"type": "string"} for name in ("name", "module", "kind", "signature")}
        properties["doc"] = {"type": "text", "required": True}
        bucket = self._post("/buckets", {"bucket_name": "docstrings", "bucket_schema": {"properties": properties}})
        collection = self._post(
            "/collections",
            {
                "collection_name": "docstrings",
                "source": {"type": "bucket", "bucket_ids": [bucket["bucket_id"]]},
                "feature_extractor": {
                    "feature_extractor_name": "text_extractor",
                    "version": "v1",
                    "parameters": {"model_id": self.model.model_id},
                    "field_passthrough": ["name", "module", "kind", "signature"],
                },
            },
        )
        uri = collection["vector_indexes"][0]["feature_uri"]
        search: Fields = {"feature_uri": uri, "query": "{{INPUT.query}}", "top_k": 25}
        stage: Fields = {
            "stage_name": "search",
            "stage_type": "filter",
            "config": {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 3}},
        }
        self._post(
            "/retrievers",
            {
                "retriever_name": "ask",
                "collection_identifiers": [collection["collection_id"]],
                "input_schema": {"query": {"type": "text", "required": True}},
                "stages": [stage],
            },
        )
        return bucket["bucket_id"], collection["collection_id"]

    def _ingest(self, bucket: str, every: list[Fields]) -> list[str]:
        ids: list[str] = []
        with self._progress() as progress:
            task = progress.add_task("Ingesting objects", total=len(every), note="")
            for start in range(0, len(every), 100):
                reply = self._post(f"/buckets/{bucket}/objects/batch", {"objects": every[start : start + 100]})  # type: ignore[dict-item]
                ids.extend(one["object_id"] for one in reply["succeeded"])
                progress.update(
                    task,
                    completed=start + 100,
                    note=f"{reply['failed_count']} refused" if reply["failed_count"] else "",
                )
        return ids

    def _process(self, bucket: str, ids: list[str], title: str) -> dict[str, Any]:
        """Submit a batch and watch it; return what it did."""
        began = time.perf_counter()
        batch = self._post(f"/buckets/{bucket}/batches", {"object_ids": ids})  # type: ignore[dict-item]
        address = f"/buckets/{bucket}/batches/{batch['batch_id']}"
        self._post(f"{address}/submit")
        with self._progress() as progress:
            task = progress.add_task(title, total=len(ids), note="")
            while True:
                now = self._read(self.client.get(f"/batches/{batch['batch_id']}"))
                passed = time.perf_counter() - began
                tokens, processed = now["tokens_processed"], now["progress"]["processed"]
                eta = now["progress"]["eta_seconds"]
                left = f", {eta:.0f} s left" if eta else ""
                note = now["lifecycle_reason"] or f"{tokens / passed:,.0f} tokens/s{left}"
                progress.update(task, completed=processed, note=escape(note if processed else "starting"))
                if now["status"] in _DONE:
                    break
                time.sleep(0.25)
        return {
            "status": now["status"], "documents": now["documents_written"], "tokens": tokens, "seconds": passed,
            "failed": now["failed_objects"],
        }  # fmt: skip

    def _summarise(self, done: dict[str, Any]) -> None:
        rate, tokens = done["documents"] / done["seconds"], done["tokens"] / done["seconds"]
        self.console.print(
            f"[green]{done['status']}[/]: {done['documents']:,} documents, {done['tokens']:,} tokens "
            f"in {done['seconds']:.1f} s ({rate:.0f} documents/s, {tokens:,.0f} tokens/s)"
        )
        for failure in done["failed"][:3]:
            self.console.print(f"  [red]{failure['object_id']}[/]: {escape(failure['error'])}")

    def _ask(self, collection: str) -> None:
        questions = list(_ENGLISH)
        if self.model.family == "nomic_moe" or "multilingual" in self.model.model_id:
            questions[-2:] = _OTHERS
        self.console.print(f"\nFive questions to {self._count(collection):,} documents:")
        self._post("/retrievers/ask/execute", {"inputs": {"query": "warm up"}})
        for question in questions:
            began = time.perf_counter()
            reply = self._post("/retrievers/ask/execute", {"inputs": {"query": question}})
            took = (time.perf_counter() - began) * 1000
            stage = reply["stage_statistics"]["stages"]["search"]
            table = Table(
                title=f"[bold]{escape(question)}[/]", title_justify="left", show_header=False, box=None, pad_edge=False
            )
            for place, document in enumerate(reply["documents"], start=1):
                text = " ".join(document["text"].removeprefix(f"{document['name']}:").split())
                table.add_row(
                    f" {place}.", f"{document['score']:.3f}", f"[cyan]{escape(document['name'])}[/]", escape(text[:70])
                )
            self.console.print(table)
            parts = ", ".join(
                f"{name.removesuffix('_ms')} {stage[name]:.1f}"
                for name in ("embed_ms", "index_ms", "rows_ms")
                if name in stage
            )
            self.console.print(
                f"    [dim]{took:.0f} ms: {parts}, HTTP and the rest {took - stage['duration_ms']:.1f}[/]\n"
            )

    def _count(self, collection: str) -> int:
        return int(self._read(self.client.get(f"/collections/{collection}/documents/count"))["count"])

    def _leave(self) -> None:
        self.console.print(
            f"Data and key stay in [bold]{self.data}[/]. Go on with:\n\n"
            f"  .venv/bin/openpeek serve --data {self.data}\n"
            f"  export KEY=$(python3 -c \"import json; print(json.load(open('{self.data}/credentials.json'))"
            "['api_key'])\")\n\n"
            "and ask from wherever you are:\n",
            soft_wrap=True,
        )
        self.console.print(_EXAMPLES, markup=False, highlight=False, soft_wrap=True)

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description:<17}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=self.console,
        )  # fmt: skip


_EXAMPLES: Final = r"""# curl
curl -s localhost:8000/v1/retrievers/ask/execute -H "Authorization: Bearer $KEY" \
  -H 'X-Namespace: python-docs' -H 'Content-Type: application/json' \
  -d '{"inputs": {"query": "parse command line options"}}'

# Python (pip install mixpeek)
from mixpeek import Mixpeek
mx = Mixpeek(api_key=KEY, namespace="python-docs", base_url="http://localhost:8000/v1")
print(mx.retrievers.execute("ask", inputs={"query": "parse command line options"})["documents"])

// JavaScript
const reply = await fetch("http://localhost:8000/v1/retrievers/ask/execute", { method: "POST",
  headers: { Authorization: `Bearer ${KEY}`, "X-Namespace": "python-docs", "Content-Type": "application/json" },
  body: JSON.stringify({ inputs: { query: "parse command line options" } }) });
console.log((await reply.json()).documents);"""
