"""Zero-shot: every space in turn is left out, with its relatives, and ranked by a predictor trained on the others.

    python benchmarks/leave_space_out.py [--limit 400] [--heads extra_trees gbdt] [--only nas_bench_macro]

Prints Spearman for single networks, for the pool (transductive: ranks within the candidates are features) and for the
trivial rows, and writes everything as JSON with --out. Graphs that occur in the target are removed from the training
spaces. Needs the benchmark files (ARCHGAUGE_DATA).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ship import load_sources

import archgauge as ag
from archgauge.encoders.files import replacing

ROWS = ("predictor", "predictor, pool", "macs", "params", "depth", "convolutions", "best trivial")


def main() -> None:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=400, help="networks taken of each space")
    parser.add_argument("--heads", nargs="+", default=["extra_trees", "gbdt"])
    parser.add_argument("--seeds", type=int, default=1, help="members of each kind of head")
    parser.add_argument("--only", nargs="+", help="targets; default all")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sources = load_sources(options.limit)
    targets = [bench for bench in sources if bench.name != "nas_bench_201" or bench.task == "cifar10"]
    results = []
    print(f"{'Spearman':32s}" + "".join(f"{row:>17s}" for row in ROWS) + "   share of size")
    for target in targets:
        if options.only and target.name not in options.only:
            continue
        train, test = ag.leave_space_out([b for b in sources if b is target or b.name != target.name], target.name)
        model = ag.Predictor(heads=tuple(options.heads), n_seeds=options.seeds).fit(train)
        evaluation = model.evaluate(test, n_resamples=0)
        rows = {row.name: row.metrics for row in evaluation.rows}
        results.append({"training": [b.name for b in train], **evaluation.to_dict()})
        cells = "".join(f"{rows[row]['spearman'].value:17.3f}" for row in ROWS)
        print(f"{target.name:32s}{cells}   {model.report['size_share']}", flush=True)
    means = ""
    for row in ROWS:  # a trivial score that is constant in a space ranks nothing there: 0
        found = [r["metrics"]["spearman"]["value"] for result in results for r in result["rows"] if r["name"] == row]
        means += f"{np.mean([value or 0.0 for value in found]):17.3f}"
    print(f"{f'mean of {len(results)}':32s}{means}")
    if options.out is not None:
        with replacing(options.out) as file:
            file.write((json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
