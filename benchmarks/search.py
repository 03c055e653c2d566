"""Search over HTTP against the bare vector store, in the same run, over the same vectors.

python -m benchmarks.search [DOCUMENTS]
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from benchmarks.platform_server import describe, prepare, process_all, serving
from domain.documents import Scope
from domain.features import VectorSpec
from storage.ports import Point
from storage.vectors.embedded import EdgeIndex

QUERIES = 300
WIDTH = 384


def percentiles(ask: Callable[[int], object]) -> tuple[float, float]:
    """Return p50 and p99 of a call in milliseconds, after a warm-up."""
    for number in range(20):
        ask(number)
    took = []
    for number in range(QUERIES):
        began = time.perf_counter()
        ask(number)
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return took[QUERIES // 2], took[QUERIES * 99 // 100]


def bare(number: int, filtered: str | None) -> tuple[float, float]:
    """Measure the store alone, in this process: no HTTP, no rows."""
    folder = Path(tempfile.mkdtemp(prefix="openpeek-bare-"))
    index, scope, spec = EdgeIndex(folder), Scope("org", "ns"), VectorSpec("m", "bare", "revision", WIDTH)
    random = np.random.default_rng(1)
    for start in range(0, number, 64):
        vectors = random.standard_normal((64, WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        points = [
            Point(f"doc_{start + n}", "col", f"obj_{start + n}", 1, 1, {"lang": "en" if (start + n) % 20 else "de"}, v)
            for n, v in enumerate(vectors)
        ]
        index.upsert(scope, spec, points)
    index.settle()
    queries = random.standard_normal((QUERIES, WIDTH)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    from domain.filters import parse  # noqa: PLC0415

    wanted = parse({"lang": filtered}) if filtered else None
    figures = percentiles(
        lambda n: index.search(scope, spec, queries[n % QUERIES], collection_ids=["col"], filter=wanted, limit=10)
    )
    index.close()
    shutil.rmtree(folder, ignore_errors=True)
    return figures


def over_http(client: httpx.Client, headers: dict[str, str], filtered: str | None) -> tuple[float, float]:
    """Measure the platform: HTTP, key, namespace, stage engine, index, rows, JSON. Queries are vectors."""
    random = np.random.default_rng(2)
    queries = random.standard_normal((QUERIES, WIDTH)).astype(np.float32).tolist()

    def ask(number: int) -> None:
        parameters = {"searches": [{"query": queries[number % QUERIES], "top_k": 10}], "final_top_k": 10}
        stage = {"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": parameters}}
        body = {"stages": [stage], "filters": {"lang": filtered} if filtered else None}
        reply = client.post("/retrievers/execute", json=body, headers=headers)
        assert len(reply.json()["documents"]) == 10, reply.text

    return percentiles(ask)


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(describe(f"python -m benchmarks.search {number}"))
    print("| | bare store p50 | p99 | over HTTP p50 | p99 | above the bare store, p50 |\n|---|---|---|---|---|---|")
    with serving() as (client, _process, _start_up):
        bucket, ids, headers = prepare(client, number)
        process_all(client, bucket, ids, headers)
        time.sleep(8)  # the sweep settles the index
        for name, filtered in (("unfiltered", None), ("filter that keeps 5 %", "de")):
            alone, served = bare(number, filtered), over_http(client, headers, filtered)
            print(
                f"| {name} | {alone[0]:.2f} ms | {alone[1]:.2f} ms | {served[0]:.2f} ms | {served[1]:.2f} ms "
                f"| {served[0] - alone[0]:.2f} ms |"
            )


if __name__ == "__main__":
    main()
