"""In-space accuracy with few labels: train on n random networks of a benchmark, measure on all the rest.

    python benchmarks/few_shot.py --benchmark nas_bench_201:cifar10 --labels 78 781 --seeds 5

Prints mean and standard deviation over the seeds of Spearman, Kendall, NDCG@10 and top-1 % regret on the networks that
are left (copies of the training graphs removed; once more with them, as papers do), and the trivial rows on the whole
benchmark. Needs the benchmark's files (ARCHGAUGE_DATA).
"""

import argparse
import json
import time

import archgauge as ag
from archgauge.predictor.evaluation import few_shot, trivial_scores
from archgauge.predictor.metrics import kendall, spearman


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="nas_bench_201:cifar10")
    parser.add_argument("--labels", type=int, nargs="+", default=[78, 781])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", nargs="+", default=["gbdt", "mlp"])
    parser.add_argument("--limit", type=int, help="networks of the benchmark, drawn at random; default all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    name, _, task = options.benchmark.partition(":")
    bench = ag.load_benchmark(name, task or None, limit=options.limit)
    start = time.perf_counter()
    result = few_shot(
        lambda few: ag.Predictor(heads=tuple(options.heads)).fit(few),
        bench,
        options.labels,
        options.seeds,
        progress=not options.json,
    )
    trivial = {
        row: {"spearman": spearman(bench.accuracy, values), "kendall": kendall(bench.accuracy, values)}
        for row, values in trivial_scores(bench).items()
    }
    if options.json:
        print(json.dumps({**result.to_dict(), "n": len(bench), "heads": options.heads, "trivial": trivial}, indent=2))
        return
    print(f"{len(bench)} networks, heads {' + '.join(options.heads)}, {options.seeds} seeds, statistics alone")
    print(result.table())
    print("\ntrivial rows on all networks (no labels)")
    for row, values in trivial.items():
        print(f"{row:14s} spearman {values['spearman']:.3f}  kendall {values['kendall']:.3f}")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
