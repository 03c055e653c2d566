"""How vectors should lie: one Edge shard per namespace, or one for all with a tenant key.

python -m benchmarks.vector_layout
"""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.platform_server import describe
from domain.documents import Scope
from domain.features import VectorSpec
from storage.ports import Point
from storage.vectors.embedded import EdgeIndex

POINTS, WIDTH = 20_000, 384
SPEC = VectorSpec("m", "bench", "revision", WIDTH)


def rss_mb() -> float:
    """Return this process' resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def disk_mb(folder: Path) -> float:
    """Return what a folder takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(namespaces: int, *, shared: bool) -> str:
    """Write and search with one layout; return a row of figures."""
    folder = Path(tempfile.mkdtemp(prefix="openpeek-layout-"))
    before = rss_mb()
    scopes = [Scope("org", f"ns_{number}") for number in range(namespaces)]
    random = np.random.default_rng(1)
    began = time.perf_counter()
    one = EdgeIndex(folder / "shared") if shared else None
    indexes = [one or EdgeIndex(folder / scope.namespace_id) for scope in scopes]
    each = max(1, POINTS // namespaces)
    for scope, index in zip(scopes, indexes, strict=True):
        for start in range(0, each, 64):
            vectors = random.standard_normal((min(64, each - start), WIDTH)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            index.upsert(
                scope,
                SPEC,
                [
                    Point(f"doc_{start + n}", "col", f"obj_{start + n}", 1, 1, {"n": n}, v)
                    for n, v in enumerate(vectors)
                ],
            )
    written = time.perf_counter() - began
    took = []
    for number in range(200):
        chosen = number * 7919 % namespaces
        query = random.standard_normal(WIDTH).astype(np.float32)
        began = time.perf_counter()
        indexes[chosen].search(scopes[chosen], SPEC, query / np.linalg.norm(query), collection_ids=["col"], limit=10)
        took.append(time.perf_counter() - began)
    files = len(list(Path("/proc/self/fd").iterdir()))
    memory = rss_mb() - before
    for index in dict.fromkeys(indexes):
        index.close()
    disk = disk_mb(folder)
    gc.collect()
    shutil.rmtree(folder, ignore_errors=True)
    layout = "shared" if shared else "a shard each"
    return (
        f"| {namespaces:,} | {layout} | {each * namespaces / written:,.0f}/s | {sorted(took)[100] * 1000:.2f} ms "
        f"| {memory:,.0f} MB | {disk:,.0f} MB | {files} |"
    )


def main() -> None:
    """Measure every layout in a process of its own, so that memory is its own."""
    if len(sys.argv) > 1:
        print(measure(int(sys.argv[1]), shared=sys.argv[2] == "shared"))
        return
    print(describe("python -m benchmarks.vector_layout"))
    print("| namespaces | layout | write | search p50 | memory | disk | open files |\n|---|---|---|---|---|---|---|")
    for namespaces in (1, 100, 1_000):
        for layout in ("shared", "each"):
            command = [sys.executable, "-m", "benchmarks.vector_layout", str(namespaces), layout]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            told = (
                done.stdout.strip()
                or f"| {namespaces:,} | {layout} | failed: {done.stderr.strip().splitlines()[-1][:120]} |"
            )
            print(told, flush=True)


if __name__ == "__main__":
    main()
