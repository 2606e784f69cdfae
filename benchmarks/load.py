"""Measures how long benchmarks take from their raw files to canonical graphs, the first time and from the cache.

    python benchmarks/load.py [--only NAME] [--limit N] [--all-tasks] [--out FILE] [--json]

Every load runs in a fresh interpreter, the first with an empty cache folder and two processes that build, the second
with the cache that the first left. Peak memory is that of the loading process and of one building process (the largest
of both kinds). A computer that does other work at the same time makes all of it slower; the CPU seconds of all
processes together tell it: on two free cores a first load takes about half of them. With `--out` results are kept in
that file and what stands there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from archgauge.datasets.registry import list_benchmarks
from archgauge.encoders.files import replacing

CHILD = """
import json, resource, sys, time
import archgauge as ag
name, task, cache, limit = sys.argv[1:]
start = time.perf_counter()
bench = ag.load_benchmark(name, task, cache=cache, limit=int(limit) or None, progress=False, workers=2)
hashes = bench.hashes
seconds = time.perf_counter() - start
if "joblib" in sys.modules:  # children count once they have ended
    from joblib.externals.loky import get_reusable_executor
    get_reusable_executor().shutdown(wait=True)
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
memory = [use.ru_maxrss / 1024 for use in usage]
print(json.dumps([len(bench), len(set(hashes)), seconds, sum(use.ru_utime + use.ru_stime for use in usage), *memory]))
"""


@dataclass(frozen=True)
class Measured:
    """One benchmark.

    Attributes:
        benchmark: Its name.
        task: The task.
        networks: Networks loaded.
        graphs: Different graphs among them.
        first: Seconds from the raw files, with an empty cache folder.
        first_cpu: CPU seconds of all processes together, starting Python included.
        cached: Seconds from the cache, the checks of the raw files included.
        cached_cpu: CPU seconds of that, starting Python included.
        memory: Peak MiB of the loading process, the larger of both loads.
        building: Peak MiB of a building process; 0 if the loading process built alone.
    """

    benchmark: str
    task: str
    networks: int
    graphs: int
    first: float
    first_cpu: float
    cached: float
    cached_cpu: float
    memory: float
    building: float


def measure(name: str, task: str, limit: int) -> Measured:
    """Load a benchmark twice, in two fresh interpreters."""
    with tempfile.TemporaryDirectory() as cache:
        runs = []
        for _ in range(2):
            command = [sys.executable, "-P", "-c", CHILD, name, task, cache, str(limit)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}, {task}: {done.stderr[-2000:]}")
            runs.append(json.loads(done.stdout))
    (networks, graphs, *first, memory, building), (_, _, *cached, again, _) = runs
    seconds = [round(value, 2) for value in (*first, *cached)]
    return Measured(name, task, networks, graphs, *seconds, round(max(memory, again)), round(building))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all benchmarks whose files are there, and print a table."""
    parser = argparse.ArgumentParser(description="Measure how long benchmarks take to load.")
    parser.add_argument("--only", default="", help="only benchmarks whose name contains this")
    parser.add_argument("--limit", type=int, default=0, help="networks per benchmark (default: all)")
    parser.add_argument("--all-tasks", action="store_true", help="every task, not only the first of a benchmark")
    parser.add_argument("--out", type=Path, help="file of results so far; what stands in it is not measured again")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    done = (
        [Measured(**row) for row in json.loads(options.out.read_text())] if options.out and options.out.exists() else []
    )
    jobs = [
        (record.name, task.name)
        for record in list_benchmarks()
        if options.only in record.name and record.present()
        for task in (record.tasks if options.all_tasks else record.tasks[:1])
    ]
    known = {(row.benchmark, row.task) for row in done}
    for name, task in jobs:
        if (name, task) not in known:
            done.append(measure(name, task, options.limit))
            print(f"{name}, {task}: {done[-1].first:.1f} s", file=sys.stderr, flush=True)
            if options.out:
                with replacing(options.out) as file:
                    file.write(json.dumps([asdict(row) for row in done], indent=1).encode())
    rows = [row for row in done if (row.benchmark, row.task) in set(jobs)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    numbers = ("networks", "graphs", "first", "first_cpu", "a_second", "cached", "cached_cpu", "memory", "building")
    print(f"{'benchmark':52}{'task':17}" + "".join(f"{name:>11}" for name in numbers))
    for row in rows:
        values = {**asdict(row), "a_second": round(row.networks / row.first)}
        print(f"{row.benchmark:52}{row.task:17}" + "".join(f"{values[name]:11}" for name in numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
