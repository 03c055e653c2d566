"""A double of a Qdrant server: the part of its REST API that our adapter uses, over the real engine (Edge).

It is no Qdrant server. It exists because none can be installed where the tests run, and so that the client's
connections, timeouts and errors are exercised all the same. Run: python -m tests.doubles.qdrant_rest PORT FOLDER
"""

import json
import os
import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import qdrant_edge as edge

VERSION = "1.17.0"
_U = edge.UpdateOperation


class Engine:
    """Edge shards by the name of their collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.shards = {place.name: edge.EdgeShard.load(str(place)) for place in folder.iterdir() if place.is_dir()}

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
        return edge.FieldCondition(
            raw["key"], range=edge.RangeFloat(**{k: v for k, v in raw["range"].items() if v is not None})
        )
    match = raw["match"]
    return edge.FieldCondition(
        raw["key"], match=edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(match["value"])
    )


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: Engine
    api_key: str | None = None

    def log_message(self, *_given):
        pass

    def answer(self, result, status: int = 200) -> None:
        body = json.dumps(
            {"result": result, "status": "ok" if status == 200 else {"error": str(result)}, "time": 0.0}
        ).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        if self.api_key is not None and self.headers.get("api-key") != self.api_key:
            self.answer("Must provide an API key", 401)
            return
        path = self.path.split("?")[0]
        try:
            self.route(path, json.loads(raw) if raw else {})
        except KeyError as error:
            self.answer(f"Not found: {error}", 404)
        except Exception as error:
            self.answer(str(error), 500)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def route(self, path: str, body: dict) -> None:
        if path == "/":
            reply = json.dumps({"title": "a double of a Qdrant server", "version": VERSION}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
            return
        if path == "/collections":
            self.answer({"collections": [{"name": name} for name in sorted(self.engine.shards)]})
            return
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if match is None:
            raise KeyError(path)
        name, action = match[1], match[2] or ""
        if action == "/exists":
            self.answer({"exists": name in self.engine.shards})
        elif action == "" and self.command == "PUT":
            with self.engine.lock:
                if name in self.engine.shards:
                    self.answer(f"Collection `{name}` already exists!", 409)
                    return
                self.engine.create(name, body)
            self.answer(True)
        else:
            self.points(self.engine.shards[name], action, body)

    def points(self, shard: edge.EdgeShard, action: str, body: dict) -> None:
        done = {"operation_id": 0, "status": "completed"}
        if action == "/index":
            kind = body["field_schema"]
            is_keyword = isinstance(kind, dict)
            parameters = (
                edge.KeywordIndexParams(is_tenant=bool(kind.get("is_tenant")))
                if is_keyword
                else edge.IntegerIndexParams()
            )
            shard.update(_U.create_field_index(body["field_name"], parameters))
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
            request = edge.ScrollRequest(limit=body["limit"], filter=translate(body.get("filter")), with_payload=True)
            records, _ = shard.scroll(request)
            self.answer(
                {"points": [{"id": str(one.id), "payload": one.payload} for one in records], "next_page_offset": None}
            )
        elif action == "/points/query":
            request = edge.QueryRequest(
                limit=body["limit"],
                query=edge.Query.Nearest(_nearest(body["query"]), using=body["using"]),
                filter=translate(body.get("filter")),
                with_payload=body["with_payload"],
                params=edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=True, oversampling=3.0)),
            )
            found = shard.query(request)
            shown = [{"id": str(one.id), "version": 0, "score": one.score, "payload": one.payload} for one in found]
            self.answer({"points": shown})
        else:
            raise KeyError(action)


class Server(ThreadingHTTPServer):
    """Threads that do not outlive the process, and a queue long enough for tests."""

    daemon_threads = True
    request_queue_size = 128


def make_server(port: int, folder: Path, api_key: str | None = None) -> Server:
    """Return a server on loopback."""
    handler = type("BoundHandler", (Handler,), {"engine": Engine(folder), "api_key": api_key})
    return Server(("127.0.0.1", port), handler)


if __name__ == "__main__":
    make_server(int(sys.argv[1]), Path(sys.argv[2]), os.environ.get("QDRANT_DOUBLE_API_KEY")).serve_forever()
