"""Trains the predictor that ships with archgauge and writes it to predictor/shipped, model card included.

    python benchmarks/ship.py [--limit 1500] [--out predictor/shipped]

Needs the benchmark files (ARCHGAUGE_DATA). Labels of different budgets are never mixed: accuracies are learnt from the
first benchmark with a task, the others teach ranks only.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import archgauge as ag
from archgauge.predictor.protocols import SOURCES, Run, load_spaces
from archgauge.predictor.ranker import SHIPPED_OPTIONS

TASKS = ("imagenet1k", "cifar10", "cifar100", "imagenet16_120")
"""Tasks the predictor gives accuracies for."""


def load_sources(limit: int) -> list[ag.Benchmark]:
    """At most `limit` networks of every source, all of the real ones; those that teach ranks only have no task."""
    sources: list[ag.Benchmark] = []
    for bench in load_spaces(Run(limit=limit), SOURCES):
        first = bench.task in TASKS and bench.task not in {other.task for other in sources}
        sources.append(bench if first else replace(bench, task=""))
    return sources


def main() -> None:
    """Trains, saves, and says how long it took and how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1500, help="networks taken of each source")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "predictor" / "shipped")
    options = parser.parse_args()
    start = time.perf_counter()
    sources = load_sources(options.limit)
    predictor = ag.Predictor(**SHIPPED_OPTIONS).fit(sources, progress=True)
    predictor.save(options.out)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    print(f"{predictor!r}: {size / 1e6:.1f} MB in {options.out}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
