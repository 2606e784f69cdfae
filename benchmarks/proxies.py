"""What training-free proxies cost, and what they add to structure.

    python benchmarks/proxies.py [--limit 300] [--only cost nas_bench_201 spaces] [--json]

Three measurements on random samples of the spaces: milliseconds a network takes (one thread), how many networks
cannot be run; Spearman on NAS-Bench-201 of every proxy alone and of the sum of its rank and that of MACs, no label
used; and leave-one-space-out with and without the proxies among the features. Needs the benchmark files
(ARCHGAUGE_DATA).
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

import archgauge as ag
from archgauge.datasets.cache import default_cache_dir
from archgauge.encoders.proxies import PROXY_NAMES, proxies
from archgauge.encoders.registry import encode_table, get_encoder
from archgauge.predictor.metrics import kendall, spearman
from archgauge.predictor.protocols import SPACES, Run, leave_one_space_out, load_spaces
from archgauge.predictor.ranker import PredictorRanker

PARTS = ("cost", "nas_bench_201", "spaces")


def cost(specs: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Milliseconds of processor time a network, and why some have no values."""
    rows = []
    for bench in load_spaces(Run(limit=count), specs):
        graphs = list(bench.graphs)
        start = time.process_time()
        found = [proxies(graph) for graph in graphs]
        seconds = time.process_time() - start
        reasons = sorted({each.reason for each in found if each.reason})
        missing = sum(bool(each.reason) for each in found)
        rows.append(
            {
                "space": bench.name,
                "n": len(graphs),
                "ms": 1e3 * seconds / len(graphs),
                "missing": missing,
                "reasons": reasons,
            }
        )
        print(f"{bench.name:28s} {rows[-1]['ms']:7.0f} ms a network, {missing} of {len(graphs)} without", flush=True)
        for reason in reasons[:3]:
            print(f"{'':28s}   {reason[:100]}")
    return rows


def nas_bench_201(limit: int) -> list[dict[str, Any]]:
    """Rank correlations of every proxy, alone and with MACs (sum of ranks); all networks, and those without none."""
    bench = ag.load_benchmark("nas_bench_201", "cifar10", limit=limit or None, seed=1)
    table = encode_table(bench.graphs, get_encoder("proxies"), hashes=bench.graphs.hashes, cache=default_cache_dir())
    macs = np.array([graph.macs for graph in bench.graphs], np.float64)
    live = np.array(["none" not in name for name in bench.names])
    columns: dict[str, NDArray[np.float64]] = {"macs": macs}
    for at, name in enumerate(PROXY_NAMES):
        values = np.where(table[:, -1] == 0, table[:, at], -np.inf)  # what cannot be run (dead networks) is last
        columns[name] = rankdata(values)
        columns[f"{name} + macs"] = rankdata(values) + rankdata(macs)
    rows = []
    for title, part in ((f"all {len(bench)}", np.full(len(bench), True)), (f"{live.sum()} without none", live)):
        for name, values in columns.items():
            truth = bench.accuracy[part]
            row = {"networks": title, "row": name}
            row |= {"spearman": spearman(truth, values[part]), "kendall": kendall(truth, values[part])}
            rows.append(row)
            print(f"{title:18s} {name:22s} spearman {row['spearman']:.3f}  kendall {row['kendall']:.3f}", flush=True)
    return rows


def spaces(limit: int, seeds: int, names: Sequence[str]) -> dict[str, Any]:
    """Leave-one-space-out with and without proxies."""
    heads = {"heads": tuple(names), "n_seeds": 1}
    both = {"evidence": ("proxies",), **heads}
    run = Run(
        {
            "statistics": lambda seed: PredictorRanker({**heads, "seed": seed}),
            "with proxies": lambda seed: PredictorRanker({**both, "seed": seed}),
        },
        seeds=seeds,
        limit=limit,
        report=lambda cell: print(f"  {cell.row}: {cell.target} {cell.metrics['spearman']:.3f}", flush=True),
    )
    grid = leave_one_space_out(run)
    print(grid.table(("spearman", "kendall")))
    return grid.to_dict()


def main() -> None:
    """Runs the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=300, help="networks taken of each space")
    parser.add_argument("--count", type=int, default=20, help="networks of each space whose time is taken")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the predictors")
    parser.add_argument("--heads", nargs="+", default=["extra_trees", "gbdt"], help="heads of the predictors")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", action="store_true", help="print everything as JSON at the end")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if "cost" in options.only:
        results["cost"] = cost(SPACES, options.count)
    if "nas_bench_201" in options.only:
        results["nas_bench_201"] = nas_bench_201(options.limit)
    if "spaces" in options.only:
        results["spaces"] = spaces(options.limit, options.seeds, options.heads)
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
