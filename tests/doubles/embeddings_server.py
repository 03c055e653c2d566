"""A double of an embeddings server: it speaks the part of OpenAI's and TEI's API that is used, and can misbehave."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.services.http import QuietHandler, serving

Embed = Callable[[Sequence[str]], Any]


def by_length(texts: Sequence[str], width: int = 4) -> list[list[float]]:
    """Return vectors that tell texts of different lengths apart, and that are not of unit length."""
    return [[float(len(text)), *([2.0] * (width - 1))] for text in texts]


@dataclass
class Scripted:
    """What the double does next, and what it has been asked.

    Attributes:
        embed: makes the vectors of a good answer.
        spoil: changes the parsed answer before it is sent.
        statuses: what the next requests for vectors are answered with, one each; then 200.
        info: the answer to GET /info; None for 404.
    """

    embed: Embed = by_length
    spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    error: Any = None
    raw: bytes | None = None
    delay_seconds: float = 0.0
    info: dict[str, Any] | None = None
    info_status: int = 200
    info_asked: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def embeddings_server(script: Scripted | None = None) -> Iterator[Scripted]:
    """Serve the double and yield its script."""
    script = script or Scripted()
    lock = threading.Lock()

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            with lock:
                script.info_asked += 1
                script.keys.append(self.headers["Authorization"])
            if script.info is None:
                self._send(404, b"not here")
            else:
                self._send(script.info_status, json.dumps(script.info).encode())

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                script.requests.append(body)
                script.paths.append(self.path)
                script.keys.append(self.headers["Authorization"])
                status = script.statuses.pop(0) if script.statuses else 200
            time.sleep(script.delay_seconds)
            if status != 200:
                self._send(status, json.dumps(script.error).encode())
                return
            if script.raw is not None:
                self._send(200, script.raw)
                return
            rows = script.embed(body["input"])
            rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
            data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
            answer = {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 1}}
            self._send(200, json.dumps(script.spoil(answer)).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as port:
        script.port = port
        yield script
