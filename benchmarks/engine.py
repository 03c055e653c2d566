"""The engine against its peers, in one run, on the same weights, texts and threads.

python -m benchmarks.engine [FOLDER] [--peer-b PYTHON] [--rounds N] [--json FILE]

FOLDER holds a checkpoint; without one a seeded checkpoint of the real size is made (2 GB). Texts are token ids drawn at
random, so what is measured is the network, not the tokenizer. Peer A: benchmarks/peers/eager.py. Peer B, if a Python
with llama-cpp-python is named: benchmarks/peers/llama_cpp.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the field's own abbreviation

from benchmarks.peers.eager import Eager
from benchmarks.platform_server import describe
from extractors.text_embedding.encoder import Network, batches
from extractors.text_embedding.nomic_moe import Mixture, NomicMoe
from extractors.text_embedding.synthesize import synthesize

REAL_SIZE = {"layers": 12, "width": 768, "heads": 12, "inner": 3072, "experts": 8, "vocabulary": 250_048}
QUERY = "one query of {} tokens"
Batch = Sequence[Sequence[int]]
Embed = Callable[[Batch], torch.Tensor]


def workloads() -> dict[str, list[int]]:
    """Return name → lengths in tokens."""
    mixed = np.random.default_rng(3).integers(16, 513, 40).tolist()
    return {
        "mixed 16-512": mixed,
        "128 each": [128] * 16,
        "512 each": [512] * 6,
        "32 each": [32] * 64,
        QUERY.format(32): [32],
        QUERY.format(12): [12],
    }


def texts(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Return token ids as a tokenizer gives them."""
    drawn = np.random.default_rng(seed)
    return [[0, *map(int, drawn.integers(4, 50_000, length - 2)), 2] for length in lengths]


def padded(lengths: Sequence[int], size: int = 8) -> list[list[int]]:
    """Return the peer's batches: eight texts each, sorted by length."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def seconds(embed: Embed, batches: Sequence[Batch]) -> float:
    """Time one pass."""
    began = time.perf_counter()
    for batch in batches:
        embed(batch)
    return time.perf_counter() - began


def compare(networks: dict[str, Network], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return workload → runtime → seconds of each round, the runtimes taking turns."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, lengths in workloads().items():
        given = texts(lengths, seed=len(lengths))
        ways = {
            runtime: [
                [given[i] for i in batch]
                for batch in (padded(lengths) if runtime == "A" else batches(lengths, network))
            ]
            for runtime, network in networks.items()
        }
        taken: dict[str, list[float]] = {runtime: [] for runtime in networks}
        for number in range(rounds * (5 if len(lengths) == 1 else 1) + 1):
            for runtime, network in networks.items():
                took = seconds(network.embed, ways[runtime])
                if number:  # the first pass warms up
                    taken[runtime].append(took)
        found[name] = taken
        print(
            f"  {name}: " + ", ".join(f"{key} {sum(lengths) / min(took):,.0f}/s" for key, took in taken.items()),
            flush=True,
        )
    return found


def ceiling(network: NomicMoe, tokens: int = 1_024, length: int = 128) -> float:
    """Return the tokens a second of the matrix products and the attention alone, each the faster of two libraries."""
    width, layers = network.config.width, list(network.layers)
    hidden = torch.randn(tokens, width)
    share = torch.randn(tokens * network.config.experts_per_token // network.config.experts, width)
    inner, expert_inner = torch.randn(tokens, network.config.inner), torch.randn(len(share), network.config.inner)

    def ours() -> None:
        for layer in layers:
            layer.attention(hidden)
            layer.output(hidden)
            if isinstance(layer.forward, Mixture):
                for expert in layer.forward.experts:
                    expert.first(share)
                    expert.second(expert_inner)
            else:
                layer.forward.first(hidden)
                layer.forward.second(inner)

    shapes = [(tokens, 3 * width, width), (tokens, width, width)]
    per_layer = [
        shapes
        + (
            [(len(share), network.config.inner, width), (len(share), width, network.config.inner)]
            * network.config.experts
            if isinstance(layer.forward, Mixture)
            else [(tokens, network.config.inner, width), (tokens, width, network.config.inner)]
        )
        for layer in layers
    ]
    weights = [[torch.randn(n, m) for _, n, m in one] for one in per_layer]
    rows = {(t, m): torch.randn(t, m) for one in per_layer for t, _, m in one}

    def plain() -> None:
        for one, held in zip(per_layer, weights, strict=True):
            for (t, _, m), weight in zip(one, held, strict=True):
                F.linear(rows[t, m], weight)

    query = torch.randn(tokens // length, network.config.heads, length, width // network.config.heads)

    def attention() -> None:
        for _ in layers:
            F.scaled_dot_product_attention(query, query, query)

    with torch.inference_mode():
        products = min(fastest(ours), fastest(plain))
        return tokens / (products + fastest(attention))


def fastest(work: Callable[[], None], times: int = 4) -> float:
    """Return the least seconds of several tries."""
    took = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took[1:])


MEMORY = """
import sys
from dataclasses import replace
from pathlib import Path
def megabytes():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")]
from extractors.text_embedding.encoder import Encoder
from extractors.text_embedding.models import NOMIC
folder, precision = Path(sys.argv[1]), sys.argv[2]
encoder = Encoder(NOMIC, folder, "cpu", precision)
loaded, highest = megabytes()
long = "a part of a text of a megabyte " * 60
encoder.encode([long[:1500]] * 24 + ["a short text"] * 200)
now, peak = megabytes()
print(loaded, highest, now, peak, encoder.loss)
"""


def memory(folder: Path, precision: str) -> str:
    """Return resident megabytes of a fresh process: loaded, most while loading, most after long and short texts."""
    command = [sys.executable, "-c", MEMORY, str(folder), precision]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=4)
    loaded, highest, _, peak = (float(one) for one in told[:4])
    return (
        f"{loaded:,.0f} MB loaded, {highest:,.0f} at most while loading, {peak:,.0f} at most while embedding; "
        f"{told[4].strip()}"
    )


def growth(folder: Path, counts: Sequence[int]) -> list[tuple[int, float]]:
    """Return how many short texts, and tokens a second for them."""
    from extractors.text_embedding.encoder import Encoder  # noqa: PLC0415
    from extractors.text_embedding.models import NOMIC  # noqa: PLC0415

    encoder = Encoder(NOMIC, folder, "cpu")
    found = []
    for count in counts:
        some = [f"a short text with number {number} in it" for number in range(count)]
        tokens = sum(encoder.tokenizer.count(some))
        began = time.perf_counter()
        for start in range(0, count, 256):  # a worker's portions
            encoder.encode(some[start : start + 256])
        found.append((count, tokens / (time.perf_counter() - began)))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return medians and ratios as Markdown."""
    names = list(next(iter(found.values())))
    ratios = [f"{ours} ÷ {peer}" for ours in ("fp32", "int8") for peer in names if peer not in ("fp32", "int8")]
    lines = ["| | " + " | ".join(f"{name}, tokens/s" for name in names) + " | " + " | ".join(ratios) + " |"]
    lines.append("|---" * (1 + len(names) + len(ratios)) + "|")
    for workload, taken in found.items():
        tokens, middle = sum(workloads()[workload]), {name: statistics.median(took) for name, took in taken.items()}
        cells = [
            f"{tokens / middle[name]:,.0f}" + (f" ({middle[name] * 1e3:.0f} ms)" if tokens < 64 else "")
            for name in names
        ]
        cells += [f"{middle[ratio.split(' ÷ ')[1]] / middle[ratio.split(' ÷ ')[0]]:.2f}" for ratio in ratios]
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--peer-b", metavar="PYTHON", help="a Python that has llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = asked.folder or synthesize(Path(tempfile.mkdtemp()), seed=1, deviation=0.02, **REAL_SIZE)
    print(
        describe(" ".join(["python -m benchmarks.engine", *sys.argv[1:]])),
        f"· torch {torch.__version__}, {torch.get_num_threads()} threads",
    )
    result: dict[str, Any] = {"machine": describe("benchmarks.engine")}
    ours, peer = NomicMoe("benchmark", folder), Eager(folder)
    some = texts([7, 40, 128], 1)
    print(f"agreement with A: {(ours.embed(some) - peer.embed(some)).abs().max():.1e}")
    int8 = NomicMoe("benchmark", folder, precision="int8")
    found = compare({"fp32": ours, "int8": int8, "A": peer}, asked.rounds)
    print(table(found), flush=True)
    most = ceiling(ours)
    reached = sum(workloads()["128 each"]) / min(found["128 each"]["fp32"])
    result |= {"seconds": found, "tokens": {name: sum(one) for name, one in workloads().items()}, "ceiling": most}
    print(
        f"ceiling of products and attention, 128 each: {most:,.0f} tokens/s; fp32 reaches {reached / most:.0%}",
        flush=True,
    )
    del ours, peer, int8
    for precision in ("fp32", "int8"):
        result[precision] = memory(folder, precision)
        print(f"{precision}: {result[precision]}", flush=True)
    small = synthesize(Path(tempfile.mkdtemp()), seed=2, layers=2, width=768, heads=12, inner=64, deviation=0.02)
    result["growth"] = growth(small, (1_000, 10_000, 100_000))
    print("growth: " + ", ".join(f"{count:,} texts {rate:,.0f} tokens/s" for count, rate in result["growth"]))
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
