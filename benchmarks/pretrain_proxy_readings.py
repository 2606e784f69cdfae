"""Teaches perceptrons to read training-free proxies off structure; no label is looked at.

    python benchmarks/pretrain_proxy_readings.py [--per-space 1000] [--out encoders/shipped/proxy_readings.safetensors]

Networks are drawn from every space and run at random; what that tells is kept in the cache, so a second call goes on
where the first was interrupted. Then perceptrons learn: one for each third of the spaces that is left out, with a tenth
of every other space kept back, to say how well it reads; and several from everything, whose mean is written.
"""

import argparse
import time
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from archgauge.datasets.cache import default_cache_dir
from archgauge.datasets.corpus import draw_corpus
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.proxies import BATCH, PROXY_NAMES, proxies
from archgauge.encoders.proxy_readings import ProxyReadings, ProxyReadingsEncoder, sources
from archgauge.encoders.registry import SHIPPED_PROXY_READINGS, encode_table, get_encoder
from archgauge.predictor.metrics import spearman

Floats = NDArray[np.float64]
FOLDS = 3
MOST_NODES, MOST_MACS, MOST_PARAMS = 120_000, 6e11, 1e9
"""Networks of a space are run until they have so many nodes, multiply-accumulates or weights together."""


def affordable(graphs: list[ArchGraph]) -> list[ArchGraph]:
    """The first networks, as many as are run of a space; at least one."""
    shape = proxies(graphs[0]).shape  # smaller than the network's own input where its shapes allow it
    own = next((node.shape for node in graphs[0].nodes if node.op == "Input"), ())
    share = BATCH * prod(shape[2:]) / prod(own[2:]) if shape else BATCH
    costs = np.cumsum([(len(graph), graph.macs * share, graph.params) for graph in graphs], axis=0)
    return graphs[: max(1, int((costs <= (MOST_NODES, MOST_MACS, MOST_PARAMS)).all(axis=1).sum()))]


def rows(per_space: int, seed: int) -> tuple[Floats, Floats, list[str], list[str]]:
    """Features and proxies of the networks that can be run, their spaces and those spaces' relatives."""
    features, values, spaces, kin = [], [], [], []
    drawn = draw_corpus(per_space, seed=seed, cache=default_cache_dir())
    for name, space in track(drawn.items(), description="running networks"):
        graphs = affordable(list(space.graphs))
        encoders = (*ProxyReadingsEncoder.sources, "proxies")
        tables = [encode_table(graphs, get_encoder(each), cache=default_cache_dir()) for each in encoders]
        run = tables[-1][:, -1] == 0
        features.append(np.hstack(tables[:-1])[run])
        values.append(tables[-1][run, : len(PROXY_NAMES)])
        spaces += [name] * int(run.sum())
        kin += [space.relatives] * int(run.sum())
    return np.concatenate(features), np.concatenate(values), spaces, kin


def read_right(truth: Floats, read: Floats, spaces: NDArray[np.str_]) -> list[float]:
    """Mean over the spaces of Spearman inside each, for every proxy."""
    found = []
    for name in np.unique(spaces):
        at = spaces == name
        if at.sum() > 9:
            found.append([spearman(truth[at, k], read[at, k]) for k in range(truth.shape[1])])
    return [float(value) for value in np.nanmean(found, axis=0)]


def main() -> None:
    """Draws, runs, learns, saves, and says how well proxies are read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=1000, help="networks drawn from each space")
    parser.add_argument("--members", type=int, default=3, help="perceptrons whose mean reads")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED_PROXY_READINGS)
    options = parser.parse_args()
    start = time.perf_counter()
    features, values, names, kin = rows(options.per_space, options.seed)
    spaces = np.array(names)
    print(f"{len(features)} networks of {len(set(names))} spaces, {time.perf_counter() - start:.0f} s", flush=True)

    def learn(at: NDArray[np.bool_], members: int) -> ProxyReadings:
        settings = {"members": members, "epochs": options.epochs, "seed": options.seed, "report": told}
        return ProxyReadings.fit(features[at], values[at], spaces[at].tolist(), **settings)

    def told(line: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True)

    random = np.random.default_rng(options.seed)
    kept_back = random.random(len(features)) < 0.1
    _, owner = np.unique(kin, return_inverse=True)
    apart, table = np.zeros_like(values), {}
    for fold in range(FOLDS):
        held = owner % FOLDS == fold
        readings = learn(~held & ~kept_back, 1)
        apart[held] = readings(features[held])
        if fold == 0:
            other = ~held & kept_back
            shares = read_right(values[other], readings(features[other]), spaces[other])
            table["other networks of the same spaces"] = shares
        told(f"fold {fold + 1} of {FOLDS} done")
    table["spaces left out with their relatives"] = read_right(values, apart, spaces)
    for title, shares in table.items():
        pairs = zip(PROXY_NAMES, shares, strict=True)
        print(f"{title}: Spearman " + ", ".join(f"{name} {share:.3f}" for name, share in pairs), flush=True)

    about = {"sources": sources(), "networks": len(features), "spaces": sorted(set(names))}
    about |= {name: getattr(options, name) for name in ("per_space", "members", "epochs", "seed")}
    learn(np.full(len(features), True), options.members).save(options.out, about)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
