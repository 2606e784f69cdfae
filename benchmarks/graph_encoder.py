"""Measures the graph encoder that ships: time a network, work shared between equal nodes, independence of node order.

    python benchmarks/graph_encoder.py [--per-space 40] [--threads 1]

Networks are drawn from every space; no benchmark file is needed. Times are medians over three runs in this process.
"""

import argparse
import time

import numpy as np
import torch

from archgauge.datasets.corpus import draw_corpus
from archgauge.encoders.contrastive import load_encoder
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.graph_tensors import NodeTable, batch_of, by_node_budget, shared_classes, tensors_of
from archgauge.encoders.registry import SHIPPED_GRAPH

TIMED = ("nas_bench_201", "nas_bench_101", "ofa_mbv3", "nas_bench_301", "autoformer/tiny", "nds/nasnet")


def shuffled(graph: ArchGraph, random: np.random.Generator) -> ArchGraph:
    """The graph with its nodes in a random topological order."""
    place: dict[int, int] = {}
    waiting = set(range(len(graph)))
    while waiting:
        ready = sorted(i for i in waiting if all(j in place for j in graph.nodes[i].inputs))
        chosen = ready[random.integers(len(ready))]
        place[chosen] = len(place)
        waiting.remove(chosen)
    nodes = [
        graph.nodes[i]._replace(
            inputs=tuple(place[j] for j in graph.nodes[i].inputs),
            tied=place[graph.nodes[i].tied] if graph.nodes[i].tied >= 0 else -1,
        )
        for i in sorted(place, key=place.__getitem__)
    ]
    return ArchGraph(tuple(nodes), tuple(place[i] for i in graph.outputs))


def main() -> None:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = load_encoder(SHIPPED_GRAPH)
    drawn = draw_corpus(options.per_space, seed=1)
    random = np.random.default_rng(0)

    print("space                nodes   ms a network   largest change of a number in another order of the nodes")
    for name in TIMED:
        graphs = list(drawn[name].graphs)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            embedded = encoder.embed(graphs)
            times.append((time.perf_counter() - start) / len(graphs) * 1e3)
        some = slice(0, 5)
        apart = np.abs(encoder.embed([shuffled(graph, random) for graph in graphs[some]]) - embedded[some]).max()
        print(f"{name:20s} {np.mean([len(g) for g in graphs]):5.0f} {np.median(times):14.2f}   {apart:.1e}", flush=True)

    table = NodeTable()
    tensors = [tensors_of(graph, table) for space in drawn.values() for graph in space.graphs]
    columns = table.operators, table.kinds, table.features
    counts, total = np.zeros(4), 0
    for group in by_node_budget([len(t) for t in tensors], 16_000, order=random.permutation(len(tensors))):
        batch = batch_of([tensors[i] for i in group], *columns)
        counts += [len(found) for found, _ in shared_classes(batch, 3)]
        total += len(batch)
    shares = ", ".join(f"{count / total:.2f}" for count in counts)
    print(f"different nodes after 0 to 3 rounds, as a share of {total:,} in batches over {len(drawn)} spaces: {shares}")


if __name__ == "__main__":
    main()
