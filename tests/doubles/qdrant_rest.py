"""A double of a Qdrant server: the part of its REST API that our adapter uses, over the real engine (Edge).

It is no Qdrant server. It exists because none can be installed where the tests run, and so that the client's
connections, timeouts and errors are exercised all the same. Run:

    python -m tests.doubles.qdrant_rest PORT FOLDER        (or --port PORT --folder FOLDER [--api-key KEY])

It can be told to misbehave, in process by ``server.faults.set(...)``, from outside by PUT /double/fault with
{"kind": "down" | "slow" | "hang" | "busy" | "reply lost" | null, "seconds": 5, "only": "part of a path", "times": 1}:
down cuts the connection, slow answers late, hang never answers, busy asks to come again, reply lost does as asked
and then cuts.
"""

import argparse
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import qdrant_edge as edge

VERSION = "1.17.0"
_U = edge.UpdateOperation


class NoSuchCollection(KeyError):
    """What a real server answers with 404."""


@dataclass
class Fault:
    """One way to misbehave, for some requests."""

    kind: str
    seconds: float = 60.0
    only: str = ""
    times: int | None = None


class Faults:
    """The way to misbehave that is set, if any."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        self.over = threading.Event()

    def set(self, kind: str | None, **more) -> None:
        with self._lock:
            self._fault = None if kind is None else Fault(kind, **more)
            self.over.set()  # whoever hangs may go
            self.over = threading.Event()

    def take(self, path: str) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is None or fault.only not in path or fault.times == 0:
                return None
            if fault.times is not None:
                fault.times -= 1
            return fault


class Engine:
    """Edge shards by the name of their collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.shards = {place.name: edge.EdgeShard.load(str(place)) for place in folder.iterdir() if place.is_dir()}

    def get(self, name: str) -> edge.EdgeShard:
        if name not in self.shards:
            raise NoSuchCollection(f"Not found: Collection `{name}` doesn't exist!")
        return self.shards[name]

    def create(self, name: str, body: dict) -> None:
        int8 = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned)
        vectors = {
            key: edge.EdgeVectorParams(size=value["size"], distance=edge.Distance.Cosine, quantization_config=int8)
            for key, value in body["vectors"].items()
        }
        config = edge.EdgeConfig(
            vectors=vectors, hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
        )
        place = self.folder / name
        place.mkdir()
        self.shards[name] = edge.EdgeShard.create(str(place), config)
        (place / "vectors.json").write_text(json.dumps(body["vectors"]))

    def describe(self, name: str) -> dict:
        schema = self.get(name).info().payload_schema
        vectors = json.loads((self.folder / name / "vectors.json").read_text())
        hnsw = {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000, "payload_m": 16}
        optimizer = {
            "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 1,
            "flush_interval_sec": 5,
        }  # fmt: skip
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {"params": {"vectors": vectors}, "hnsw_config": hnsw, "optimizer_config": optimizer},
            "payload_schema": {key: {"data_type": _kind(one.data_type), "points": 0} for key, one in schema.items()},
        }

    def drop(self, name: str) -> None:
        with self.lock:
            self.shards.pop(name).close()
            shutil.rmtree(self.folder / name)

    def close(self) -> None:
        for shard in self.shards.values():
            shard.flush()
            shard.close()
        self.shards.clear()


def _kind(data_type) -> str:
    return str(data_type).rsplit(".", 1)[-1].lower()


def translate(raw: dict | None) -> edge.Filter | None:
    """Turn a filter of the REST API into one of Edge."""
    if raw is None:
        return None
    return edge.Filter(
        **{
            key: [_condition(one) for one in _listed(raw[key])]
            for key in ("must", "should", "must_not")
            if raw.get(key)
        }
    )


def _listed(value):
    return value if isinstance(value, list) else [value]


def _nearest(query) -> list[float]:
    return query["nearest"] if isinstance(query, dict) else query


def _condition(raw: dict):
    if "has_id" in raw:
        return edge.HasIdCondition({uuid.UUID(one) for one in raw["has_id"]})
    if "key" not in raw:
        return translate(raw)
    if raw.get("range") is not None:
        bounds = {key: value for key, value in raw["range"].items() if value is not None}
        return edge.FieldCondition(raw["key"], range=edge.RangeFloat(**bounds))
    match = raw["match"]
    kind = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
    return edge.FieldCondition(raw["key"], match=kind)


def _index(raw) -> object:
    if raw["type"] == "keyword":
        return edge.KeywordIndexParams(is_tenant=bool(raw.get("is_tenant")))
    if raw["type"] == "integer":
        return edge.IntegerIndexParams(lookup=raw.get("lookup"), range=raw.get("range"))
    return edge.FloatIndexParams()


class Handler(BaseHTTPRequestHandler):
    """One connection; a request after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def log_message(self, *_given):
        pass

    def send(self, document: dict, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, result, status: int = 200) -> None:
        told = "ok" if status == 200 else {"error": str(result)}
        self.send({"result": result, "status": told, "time": 0.0}, status)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def misbehave(self, fault: Fault | None) -> bool:
        """Do as the fault says; return whether the request is at its end."""
        match fault.kind if fault else None:
            case "down":
                self.cut()
            case "hang":
                self.server.faults.over.wait(fault.seconds)
                self.cut()
            case "busy":
                self.send({"status": {"error": "Rate limiting exceeded"}}, 429, {"Retry-After": "1"})
            case "slow":
                time.sleep(fault.seconds)
                return False
            case "reply lost":
                self.send = lambda *_given: self.cut()
                return False
            case _:
                return False
        return True

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        body = json.loads(raw) if raw else {}
        path = self.path.split("?")[0]
        if path == "/double/fault":
            self.server.faults.set(body.pop("kind"), **body)
            self.answer(True)
            return
        if self.misbehave(self.server.faults.take(path)):
            return
        if self.server.api_key is not None and self.headers.get("api-key") != self.server.api_key:
            self.answer("Must provide an API key or an Authorization bearer token", 401)
            return
        try:
            self.route(path, body)
        except NoSuchCollection as error:
            self.answer(error.args[0], 404)
        except KeyError as error:
            self.answer(f"Not found: {error}", 404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has given up
        except Exception as error:
            is_asked_wrongly = "dimension error" in str(error) or "Wrong input" in str(error)
            self.answer(f"Wrong input: {error}" if is_asked_wrongly else str(error), 400 if is_asked_wrongly else 500)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def route(self, path: str, body: dict) -> None:
        engine = self.server.engine
        if path == "/":
            self.send({"title": "a double of a Qdrant server", "version": self.server.version})
            return
        if path == "/collections":
            self.answer({"collections": [{"name": name} for name in sorted(engine.shards)]})
            return
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if match is None:
            raise KeyError(path)
        name, action = match[1], match[2] or ""
        if action == "/exists":
            self.answer({"exists": name in engine.shards})
        elif action == "" and self.command == "GET":
            self.answer(engine.describe(name))
        elif action == "" and self.command == "DELETE":
            engine.drop(name)
            self.answer(True)
        elif action == "" and self.command == "PUT":
            with engine.lock:
                if name in engine.shards:
                    self.answer(f"Wrong input: Collection `{name}` already exists!", 409)
                    return
                engine.create(name, body)
            self.answer(True)
        else:
            self.points(engine.get(name), action, body)

    def points(self, shard: edge.EdgeShard, action: str, body: dict) -> None:
        done = {"operation_id": 0, "status": "completed"}
        if action == "/index":
            shard.update(_U.create_field_index(body["field_name"], _index(body["field_schema"])))
            self.answer(done)
        elif action == "/points":
            points = [edge.Point(uuid.UUID(one["id"]), one["vector"], one["payload"]) for one in body["points"]]
            shard.update(_U.upsert_points(points, condition=translate(body.get("update_filter"))))
            self.answer(done)
        elif action == "/points/delete":
            shard.update(_U.delete_points_by_filter(translate(body["filter"])))
            self.answer(done)
        elif action == "/points/count":
            self.answer({"count": shard.count(edge.CountRequest(exact=True, filter=translate(body.get("filter"))))})
        elif action == "/points/scroll":
            offset = uuid.UUID(body["offset"]) if body.get("offset") else None
            request = edge.ScrollRequest(
                offset=offset, limit=body["limit"], filter=translate(body.get("filter")), with_payload=True
            )
            records, following = shard.scroll(request)
            shown = [{"id": str(one.id), "payload": one.payload} for one in records]
            self.answer({"points": shown, "next_page_offset": str(following) if following else None})
        elif action == "/points/query":
            self.answer({"points": _found(shard, body)})
        else:
            raise KeyError(action)


def _found(shard: edge.EdgeShard, body: dict) -> list[dict]:
    request = edge.QueryRequest(
        limit=body["limit"],
        query=edge.Query.Nearest(_nearest(body["query"]), using=body["using"]),
        filter=translate(body.get("filter")),
        with_payload=body["with_payload"],
        params=edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=True, oversampling=3.0)),
    )
    return [
        {"id": str(one.id), "version": 0, "score": one.score, "payload": one.payload} for one in shard.query(request)
    ]


class Server(ThreadingHTTPServer):
    """Threads that do not outlive the process, and a queue long enough for tests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, folder: Path, api_key: str | None, version: str) -> None:
        self.engine = Engine(folder)
        self.faults = Faults()
        self.api_key = api_key
        self.version = version
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_given):
        pass  # a client that has gone away

    def server_close(self) -> None:
        self.faults.set(None)
        super().server_close()
        self.engine.close()


def make_server(port: int, folder: Path, api_key: str | None = None, *, version: str = VERSION) -> Server:
    """Return a server on loopback; port 0 takes a free one."""
    return Server(port, folder, api_key, version)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", nargs="*", metavar="PORT FOLDER")
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--api-key", default=os.environ.get("QDRANT_DOUBLE_API_KEY"))
    given = parser.parse_args()
    port, folder = given.place or (given.port, given.folder)
    make_server(int(port), Path(folder), given.api_key).serve_forever()


if __name__ == "__main__":
    main()
