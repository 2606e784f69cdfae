"""Measures the graph encoder that ships: time a network, work shared between equal nodes, independence of node order.

    python benchmarks/graph_encoder.py [--per-space 40] [--threads 1]
    python benchmarks/graph_encoder.py --large 20000      memory and time of graphs of up to so many nodes

Networks are drawn from every space; no benchmark file is needed. Times are medians over three runs in this process, by
the clock and of the processor (all threads); on a busy machine only the second says what the work costs.
Memory is the process's largest resident set, less what it was after a small graph had been encoded.
"""

import argparse
import resource
import sys
import time

import numpy as np
import torch

from archgauge.datasets.corpus import draw_corpus
from archgauge.encoders.contrastive import load_encoder
from archgauge.encoders.gnn import GraphEncoder
from archgauge.encoders.graph import ArchGraph, Node
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


def large_graph(kind: str, nodes: int) -> ArchGraph:
    """A network of so many nodes.

    Args:
        kind: "chain": convolutions and activations in a row, as deep as there are nodes. "dense": beside them, every
            fourth node adds up the nodes that lie 1, 2, 4, 8 ... 128 before it.
        nodes: Nodes.
    """
    shape = (1, 16, 8, 8)
    made = [Node("Input", (), shape)]
    while len(made) < nodes:
        at = len(made)
        if kind == "dense" and at % 4 == 0:
            made.append(Node("Add", tuple(at - 2**i for i in range(8) if 2**i <= at), shape))
        elif at % 2:
            made.append(Node("Conv", (at - 1,), shape, (("bias", 1),), ((16, 16, 3, 3),)))
        else:
            made.append(Node("Relu", (at - 1,), shape))
    return ArchGraph(tuple(made), (nodes - 1,))


def peak() -> float:
    """Largest resident set of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure_memory(encoder: GraphEncoder, nodes: int) -> None:
    """Prints what an eighth, a quarter, a half of so many nodes, and all of them, take."""
    encoder.embed([large_graph(kind, 100) for kind in ("chain", "dense")])
    before = peak()
    print(f"{before:.0f} MB before\nnodes   edges   kind    seconds   MB more")
    for count in (nodes // 8, nodes // 4, nodes // 2, nodes):
        for kind in ("chain", "dense"):
            graph = large_graph(kind, count)
            start = time.perf_counter()
            embedding = encoder.embed([graph])
            seconds = time.perf_counter() - start
            if not np.isfinite(embedding).all():
                raise SystemExit(f"the embedding of the {kind} of {count} nodes is not finite")
            edges = sum(len(node.inputs) for node in graph.nodes)
            print(f"{count:6d} {edges:7d}   {kind:6s} {seconds:8.2f} {peak() - before:9.0f}", flush=True)


def main() -> None:
    """Prints the three tables, or the one of memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", type=int, default=0, metavar="NODES", help="measure memory on large graphs instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = load_encoder(SHIPPED_GRAPH)
    if options.large:
        measure_memory(encoder, options.large)
        return
    drawn = draw_corpus(options.per_space, seed=1)
    random = np.random.default_rng(0)

    print("space                nodes   ms a network   ms of processor   largest change in another order of the nodes")
    for name in TIMED:
        graphs = list(drawn[name].graphs)
        times = []
        for _ in range(3):
            start = np.array([time.perf_counter(), time.process_time()])
            embedded = encoder.embed(graphs)
            times.append((np.array([time.perf_counter(), time.process_time()]) - start) / len(graphs) * 1e3)
        some = slice(0, 5)
        apart = np.abs(encoder.embed([shuffled(graph, random) for graph in graphs[some]]) - embedded[some]).max()
        clock, processor = np.median(times, axis=0)
        nodes = np.mean([len(g) for g in graphs])
        print(f"{name:20s} {nodes:5.0f} {clock:14.2f} {processor:17.2f}   {apart:.1e}", flush=True)

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
