"""A platform under measurement: `openpeek serve` in a process of its own, with the fast stand-in for a model."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.e2e.topology import ADMIN_KEY, Topology
from tests.services.ports import free_port
from tests.services.postgres import PostgresServer
from tests.services.seaweedfs import SeaweedServer
from tests.services.valkey import ValkeyServer

KEY = "sk_benchmark"


def describe(command: str) -> str:
    """Return machine, date and command in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d} · {machine} · {command}"


@contextmanager
def serving(environment: dict[str, str] | None = None) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes], float]]:
    """Start a server on a fresh folder; yield a client, the process, and the seconds until it answered."""
    folder = Path(tempfile.mkdtemp(prefix="openpeek-bench-"))
    port = free_port()
    env = {
        **os.environ,
        "OPENPEEK_DATA": str(folder),
        "OPENPEEK_ADMIN_API_KEY": KEY,
        "OPENPEEK_PLUGINS": "tests.doubles.standin",
        **(environment or {}),
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "cli", "serve", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}/v1", headers={"Authorization": f"Bearer {KEY}"}, timeout=120
    )
    try:
        while True:
            try:
                client.get("/health")
                break
            except httpx.TransportError:
                if process.poll() is not None:
                    raise RuntimeError((folder / "log").read_text()) from None
                time.sleep(0.01)
        yield client, process, time.perf_counter() - began
    finally:
        client.close()
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def distributed() -> Iterator[httpx.Client]:
    """Start an API, two Celery workers and all services they need; the Qdrant server is the tests' double."""
    folder = Path(tempfile.mkdtemp(prefix="openpeek-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = stack.enter_context(PostgresServer())
        valkey = stack.enter_context(ValkeyServer())
        seaweed = stack.enter_context(SeaweedServer())
        port = free_port()
        double = subprocess.Popen(
            [sys.executable, "-m", "tests.doubles.qdrant_rest", str(port), str(folder / "qdrant")]
        )
        stack.callback(double.kill)
        services = {
            "OPENPEEK_DATABASE_URL": postgres.create_database("bench"),
            "OPENPEEK_QUEUE_URL": valkey.url,
            "OPENPEEK_BLOBS": f"s3://{seaweed.bucket}",
            "OPENPEEK_S3_ENDPOINT": seaweed.endpoint,
            "OPENPEEK_VECTORS_URL": f"http://127.0.0.1:{port}",
            "OPENPEEK_SECRET_KEY": "0123456789abcdef0123456789abcdef",
            **seaweed.environment,
        }
        topology = Topology("distributed", folder, services, lease_seconds=60)
        stack.callback(topology.close)
        topology.start()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        yield stack.enter_context(httpx.Client(base_url=f"{topology.url}/v1", headers=headers, timeout=120))


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def prepare(client: httpx.Client, number: int) -> tuple[str, list[str], dict[str, str]]:
    """Make a namespace, a bucket with so many objects, and a collection; return bucket, object ids and headers."""
    name = f"bench-{time.time_ns()}"
    client.post("/namespaces", json={"namespace_name": name}).raise_for_status()
    headers = {"X-Namespace": name}
    schema = {"properties": {"body": {"type": "text"}, "lang": {"type": "string"}}}
    bucket = client.post("/buckets", json={"bucket_name": "b", "bucket_schema": schema}, headers=headers).json()[
        "bucket_id"
    ]
    extractor = {
        "feature_extractor_name": "text_extractor",
        "version": "v1",
        "parameters": {"model_id": "openpeek/standin"},
        "field_passthrough": ["lang"],
    }
    source = {"type": "bucket", "bucket_ids": [bucket]}
    body = {"collection_name": "parts", "source": source, "feature_extractor": extractor}
    client.post("/collections", json=body, headers=headers).raise_for_status()
    ids: list[str] = []
    for start in range(0, number, 100):
        objects = [
            {
                "body": f"object {n} says {n * 7919 % 10_007} about the sea and {n % 13} ships",
                "lang": "en" if n % 20 else "de",
            }
            for n in range(start, min(start + 100, number))
        ]
        reply = client.post(f"/buckets/{bucket}/objects/batch", json={"objects": objects}, headers=headers).json()
        ids += [one["object_id"] for one in reply["succeeded"]]
    return bucket, ids, headers


def process_all(client: httpx.Client, bucket: str, ids: list[str], headers: dict[str, str]) -> float:
    """Submit one batch; return the seconds from submit until everything is searchable."""
    batch = client.post(f"/buckets/{bucket}/batches", json={"object_ids": ids}, headers=headers).json()["batch_id"]
    began = time.perf_counter()
    task = client.post(f"/buckets/{bucket}/batches/{batch}/submit", headers=headers).json()["task_id"]
    while client.get(f"/tasks/{task}").json()["status"] in {"PENDING", "PROCESSING"}:
        time.sleep(0.1)
    took = time.perf_counter() - began
    now = client.get(f"/batches/{batch}").json()
    assert now["status"] == "COMPLETED", now["failed_objects"][:3]
    return took
