"""GENNAPE's tables on the labels at hand, and what each part of it adds.

    python benchmarks/gennape.py in-space      labels of the space itself: NAS-Bench-201 78, 156, 781, NAS-Bench-101 100
    python benchmarks/gennape.py transfer      trained on NAS-Bench-101 only, then zero-shot on other spaces
    python benchmarks/gennape.py few-shot      the same, then 50 labels of the target (GENNAPE's second table)
    python benchmarks/gennape.py ablation      encoder weights x one head or fuzzy heads x labels with or without FLOPs

    --encoder none=untrained --encoder spectral=runs/spectral.safetensors --encoder ours=   weights of the graph encoder
        by name: a file that `benchmarks/pretrain_graph.py` wrote, "untrained", or nothing for those that ship
    --rows far GENNAPE      only rows with one of these words in their name (and the trivial ones)
    --targets nas_bench_201 ofa      only targets with one of these words in their name

All tables have the trivial rows (no labels, no learning) under them, and the deviation over the seeds. What is ranked
without labels of the target has seen none. `pool` rows are transductive: candidates are standardised among themselves.
NAS-Bench-201 is measured on all 15,625 cells and on the 4,096 without `none`. Needs the benchmark files
(ARCHGAUGE_DATA). Finished cells are kept in --folder, and a second call goes on where the first stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import archgauge as ag
from archgauge.datasets.cache import default_cache_dir
from archgauge.encoders.contrastive import load_encoder
from archgauge.encoders.gnn import GraphEncoder
from archgauge.encoders.registry import ENCODERS, get_encoder, register_encoder
from archgauge.predictor.gennape import EMBEDDED, MEMBERS, Gennape
from archgauge.predictor.graph_ranker import GraphRanker
from archgauge.predictor.grid import Grid
from archgauge.predictor.protocols import Part, Run, Split, run_splits, teaching, without_graphs
from archgauge.predictor.ranker import FAR_ENCODERS, PredictorRanker, Ranker, ranker_entry
from archgauge.predictor.seeding import integer_seed
from archgauge.predictor.tables import aligned

Floats = NDArray[np.float64]
Rows = dict[str, Callable[[int], Ranker]]

HEADS = ("gp", "gbdt", "mlp")
"""Heads with labels of the target."""
TRANSFER_HEADS = ("extra_trees",)
"""Heads without labels of the target: trees do not extrapolate."""
GNN_OPTIONS = {"learning_rate": 1e-3, "epochs": 100, "width": 64}
"""Settings of the end-to-end rows that are not the paper's: it trains on 40,000 networks, here there are some 600."""
LEAST = 80.0
"""Networks of NAS-Bench-101 below this accuracy are not learnt from (Mills et al. 2023, sec. 5.1)."""
OTHERS = ("ofa_mbv3", "darts_trained/oncenas", "darts_trained/nas_efh", "darts_trained/swap")
"""Targets beside NAS-Bench-201."""
ABLATED = ("nas_bench_201 without none", "ofa_mbv3", "darts_trained/oncenas")
"""Zero-shot targets of the ablation."""


@dataclass(frozen=True)
class Weights:
    """The graph encoder with other weights than those that ship.

    Attributes:
        name: Name in the registry; it holds a hash of the weights.
        encoder: The encoder.
    """

    name: str
    encoder: GraphEncoder
    version = 1
    sizes = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbers of the embedding."""
        return tuple(f"embedding_{i}" for i in range(self.encoder.config.embedding))

    @property
    def monotone(self) -> tuple[int, ...]:
        """0: more is neither better nor worse."""
        return (0,) * self.encoder.config.embedding

    def encode(self, graphs: Sequence[ag.ArchGraph]) -> Floats:
        """Embeddings (n, d)."""
        return self.encoder.embed(graphs)


def register(spec: str) -> str:
    """Enter the encoder of `name=file`, `name=untrained` or `name=`; returns its name in the registry."""
    name, _, source = spec.partition("=")
    if not source:
        get_encoder("graph")
        return "graph"
    if source == "untrained":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer_seed(0, "untrained"))
            encoder = GraphEncoder().eval()
    else:
        encoder = load_encoder(source)
    digest = sha256(b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())).hexdigest()
    made = Weights(f"{name}@{digest[:6]}", encoder)
    if made.name not in ENCODERS:
        register_encoder(made.name)(lambda: made)
    return made.name


# -- data ------------------------------------------------------------------------------------------------------------


def sources(least: float = LEAST) -> tuple[ag.Benchmark, ...]:
    """The cells of NAS-Bench-101 with labels of 108 epochs: 500 of seven vertices, and 91 of up to four."""
    found = [ag.load_benchmark(name) for name in ("nas_bench_101", "nas_bench_101/ec_nas_4v")]
    return tuple(bench.select(bench.accuracy >= least) for bench in found)


def targets(networks: int) -> list[ag.Benchmark]:
    """Spaces to rank, each with at most so many networks (0: all), NAS-Bench-201 both ways."""
    limit = networks or None
    cells = ag.load_benchmark("nas_bench_201", "cifar10", limit=limit)
    live = cells.select(["none" not in name for name in cells.names])
    others = [ag.load_benchmark(name, limit=limit) for name in OTHERS]
    return [cells, replace(live, name="nas_bench_201 without none"), *others]


# -- splits ----------------------------------------------------------------------------------------------------------


def zero_shot(train: tuple[ag.Benchmark, ...], found: Sequence[ag.Benchmark]) -> list[Split]:
    """What learnt from `train` ranks each target; networks that occur in a target are not learnt from."""
    taught = teaching(without_graphs(train, {key for target in found for key in target.hashes}), False)
    return [Split(target.name, target, (Part(taught, None, np.arange(len(target))),)) for target in found]


def with_labels(
    target: ag.Benchmark, sizes: Sequence[int], draws: int, train: tuple[ag.Benchmark, ...] | None = None
) -> list[Split]:
    """Random networks of a target are learnt from (or fine-tuned on, after `train`), and all others are ranked."""
    splits = []
    place = {name: at for at, name in enumerate(target.names)}
    taught = None if train is None else without_graphs(train, target.hashes)
    for size in sizes:
        for draw in range(draws):
            few, _ = target.split(size, seed=draw)
            seen = set(few.hashes)
            copies = np.array([key in seen for key in target.hashes])
            rows = np.setdiff1d(np.arange(len(target)), [place[name] for name in few.names])
            part = Part((few,), None, rows) if taught is None else Part(taught, few, rows)
            splits.append(Split(target.name, target, (part,), size, draw, copies))
    return splits


# -- rankers ---------------------------------------------------------------------------------------------------------


def predictors(encoders: Sequence[str], heads: Sequence[str]) -> Rows:
    """`Predictor` on statistics, on each encoder alone, and on both."""

    def make(names: tuple[str, ...]) -> Callable[[int], Ranker]:
        options = {"encoders": names, "heads": tuple(heads), "n_seeds": 1}
        return lambda seed: PredictorRanker({**options, "seed": seed})

    chosen = [("statistics",), *((name,) for name in encoders), *(("statistics", name) for name in encoders)]
    return {f"{' + '.join(names)} ({' '.join(heads)})": make(names) for names in chosen}


def far() -> Rows:
    """Rankers for spaces far from the one trained on, by their names in the registry."""
    return {name: ranker_entry(name).make for name in FAR_ENCODERS}


def ensembles(encoders: Sequence[str], members: Mapping[str, tuple[str, ...]]) -> Rows:
    """`Gennape` on every encoder with these members: name of the row → members."""

    def make(encoder: str, chosen: tuple[str, ...]) -> Callable[[int], Ranker]:
        return lambda seed: Gennape(encoder, seed, chosen, cache=default_cache_dir())

    return {f"{row} on {name}": make(name, chosen) for row, chosen in members.items() for name in encoders}


def plain(encoders: Sequence[str]) -> Rows:
    """Heads that are no perceptrons, on every encoder: randomised trees without a share of size, Gaussian processes."""

    def make(encoder: str, head: str) -> Callable[[int], Ranker]:
        return lambda seed: PredictorRanker({"encoders": (encoder,), "heads": (head,), "seed": seed})

    heads = {"trees": "extra_trees", "gp": "gp"}
    return {f"{row} on {name}": make(name, head) for name in encoders for row, head in heads.items()}


def end_to_end(backbones: Sequence[str]) -> Rows:
    """The k-GNN as in the paper, and backbones trained longer, by pairs."""
    rows: Rows = {"k-GNN": lambda seed: GraphRanker(seed=seed)}
    for name in backbones:
        rows[f"{name}, end to end"] = lambda seed, name=name: GraphRanker(
            name, loss="pairwise", seed=seed, **GNN_OPTIONS
        )
    return rows


def table(grid: Grid, metric: str) -> str:
    """A line per ranker, a column per target and number of labels: mean and standard deviation over the seeds."""
    places = grid.places
    sizes = {place: max(cell.n for cell in grid.cells if cell.place == place) for place in places}
    heads = [f"{name}{f', {labels} labels' if labels else ''}, n {sizes[name, labels]}" for name, labels in places]
    lines = [[metric, *heads]]
    for row in grid.rows:
        values = [np.array(grid.values(row, place, metric), np.float64) for place in places]
        cells = [f"{v.mean():.3f}" + (f" ± {v.std():.3f}" if len(v) > 1 else "") if len(v) else "-" for v in values]
        lines.append([row, *cells])
    return aligned(lines)


def main() -> None:
    """Runs one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("in-space", "transfer", "few-shot", "ablation"))
    parser.add_argument("--encoder", action="append", metavar="NAME=FILE", help="default: the weights that ship")
    parser.add_argument("--labels", type=int, nargs="+", help="default 78 156 781, for the ablation 78 781")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of what learns, or draws of the labels")
    parser.add_argument("--networks", type=int, default=0, help="networks of each target at most, 0: all")
    parser.add_argument("--least", type=float, default=LEAST, help="least accuracy of the cells learnt from, percent")
    parser.add_argument("--heads", nargs="+", help="heads of the predictors")
    parser.add_argument("--backbones", nargs="*", default=[], help="backbones trained end to end, beside the k-GNN")
    parser.add_argument("--rows", nargs="+", default=[""], help="words, one of which is in a row's name")
    parser.add_argument("--targets", nargs="+", default=[""], help="words, one of which is in a target's name")
    parser.add_argument("--folder", type=Path, help="keeps finished cells")
    options = parser.parse_args()
    start = time.perf_counter()
    encoders = [register(spec) for spec in options.encoder or ["ours="]]
    rows = predictors(encoders, options.heads or (TRANSFER_HEADS if options.table == "transfer" else HEADS))
    splits: list[Split] = []
    if options.table == "in-space":
        splits += with_labels(targets(options.networks)[0], options.labels or (78, 156, 781), options.seeds)
        splits += with_labels(ag.load_benchmark("nas_bench_101"), (100,), options.seeds)
        rows |= end_to_end(options.backbones) if options.backbones else {}
    elif options.table == "transfer":
        splits += zero_shot(sources(options.least), targets(options.networks))
        rows |= far() | ensembles(encoders, {"GENNAPE": MEMBERS}) | end_to_end(options.backbones)
    elif options.table == "few-shot":
        for target in targets(options.networks)[1:]:
            splits += with_labels(target, options.labels or (50,), options.seeds, sources(options.least))
        rows |= ensembles(encoders, {"GENNAPE": MEMBERS}) | end_to_end(options.backbones)
    else:
        found = [target for target in targets(options.networks) if target.name in ABLATED]
        splits += zero_shot(sources(options.least), found)
        splits += with_labels(targets(options.networks)[0], options.labels or (78, 781), options.seeds)
        splits += with_labels(ag.load_benchmark("nas_bench_101"), (100,), options.seeds)
        rows = ensembles(encoders, {name: (name,) for name in EMBEDDED}) | plain(encoders)
    rows = {name: make for name, make in rows.items() if any(word in name for word in options.rows)}
    splits = [split for split in splits if any(word in split.name for word in options.targets)]
    grids = [
        run_splits(
            Run(rows, options.seeds, folder=options.folder, report=lambda cell: print(".", end="", flush=True)),
            [split for split in splits if bool(split.labels) == few],
            f"gennape {options.table}",
        )
        for few in (False, True)
        if any(bool(split.labels) == few for split in splits)
    ]
    print()
    for grid in grids:
        metrics = [name for name in ("spearman", "kendall", "kendall_copies_kept") if name in grid.cells[0].metrics]
        print("\n\n".join(table(grid, metric) for metric in metrics), "\n")
    print(f"{options.seeds} seeds, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
