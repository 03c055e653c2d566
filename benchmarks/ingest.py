"""Platform cost of ingestion: objects a second from submit to searchable, the model being a stand-in.

python -m benchmarks.ingest [OBJECTS] [distributed]
"""

import statistics
import sys

from benchmarks.platform_server import describe, distributed, memory_mb, prepare, process_all, serving

RUNS = 3


def main() -> None:
    """Measure and print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(describe(f"python -m benchmarks.ingest {number}"))
    with serving() as (client, process, start_up):
        print(f"embedded: start-up {start_up:.2f} s, {memory_mb(process):.0f} MB at start")
        prepare_and_run(client, 256)  # the model's libraries load with the first text
        rates = [number / prepare_and_run(client, number) for _ in range(RUNS)]
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        median = statistics.median(rates)
        print(f"embedded: {median:,.0f} objects/s (median of {shown}), {memory_mb(process):.0f} MB after")
        if "distributed" in sys.argv:
            measure_distributed(number)


def measure_distributed(number: int) -> None:
    """Measure one API and two workers over PostgreSQL, Valkey, SeaweedFS and the double of a Qdrant server."""
    with distributed() as client:
        prepare_and_run(client, 256)
        rates = [number / prepare_and_run(client, number) for _ in range(RUNS)]
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(f"distributed, 1 API + 2 workers: {statistics.median(rates):,.0f} objects/s (median of {shown})")


def prepare_and_run(client, number: int) -> float:  # noqa: ANN001
    """Make objects, then measure their processing."""
    bucket, ids, headers = prepare(client, number)
    return process_all(client, bucket, ids, headers)


if __name__ == "__main__":
    main()
