"""The graph encoder: every backbone, independence of order and company, recurrences, memory on large graphs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from archgauge.datasets import nas_bench_101, nas_bench_201, pit
from archgauge.encoders.errors import ConfigError
from archgauge.encoders.flow import Sweep, run, sweeps
from archgauge.encoders.gnn import BACKBONES, GNNConfig, GraphEncoder, register_backbone
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.graph_tensors import NodeTable, batch_of, shared_classes, tensors_of
from archgauge.encoders.reading import read

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def graphs():
    models = [nas_bench_201.build(spec, "cifar10") for spec in nas_bench_201.sample(3, 0)]
    models += [nas_bench_101.build(spec, "cifar10") for spec in nas_bench_101.sample(2, 0)]
    models += [pit.SPACES["tiny"].build(spec, "imagenet1k") for spec in pit.SPACES["tiny"].sample(1, 0)]
    return [read(model) for model in models]


def encoder(backbone="flow", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GraphEncoder(backbone=backbone, width=32, rounds=2).eval()


def in_another_order(graph, seed):
    """The same graph with its nodes in a random topological order."""
    random = np.random.default_rng(seed)
    waiting = set(range(len(graph)))
    place = {}
    while waiting:
        ready = sorted(i for i in waiting if all(j in place for j in graph.nodes[i].inputs))
        chosen = ready[random.integers(len(ready))]
        place[chosen] = len(place)
        waiting.remove(chosen)
    nodes = [None] * len(graph)
    for old, new in place.items():
        node = graph.nodes[old]
        nodes[new] = node._replace(
            inputs=tuple(place[i] for i in node.inputs), tied=place[node.tied] if node.tied >= 0 else -1
        )
    return ArchGraph(tuple(nodes), tuple(place[i] for i in graph.outputs))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_order_and_company_change_nothing(backbone, graphs):
    network = encoder(backbone)
    together = network.embed(graphs)
    assert together.shape == (len(graphs), 7 * 32)
    assert together.dtype == np.float64
    assert np.isfinite(together).all()
    alone = np.concatenate([network.embed([graph]) for graph in graphs])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    shuffled = network.embed([in_another_order(graph, 1) for graph in graphs])
    assert np.abs(shuffled - together).max() < 1e-5
    assert len(np.unique(together.round(6), axis=0)) == len(graphs)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_learns(backbone, graphs):
    network = encoder(backbone).train()
    table = NodeTable()
    tensors = [tensors_of(graph, table) for graph in graphs]
    network(batch_of(tensors, table.operators, table.kinds, table.features)).square().sum().backward()
    silent = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert silent == []


def test_work_shared_between_equal_nodes_changes_no_state(graphs):
    """The rounds of `flow` on classes of nodes equal the same rounds on every node."""
    network = encoder()
    table = NodeTable()
    tensors = [tensors_of(graph, table) for graph in graphs]
    batch = batch_of(tensors, table.operators, table.kinds, table.features)
    near = network.backbone.near
    with torch.inference_mode():
        shared = near(network.inputs(batch), batch)
        x = network.inputs(batch)[torch.from_numpy(batch.codes)]
        source, target = torch.from_numpy(batch.edges)
        ones = torch.ones(len(source), 1)
        for layer, norm in zip(near.layers, near.norms, strict=True):
            state, parts = norm(x), [norm(x)]
            for start, to in ((source, target), (target, source)):
                total = torch.zeros_like(x).index_add_(0, to, state[start])
                count = torch.zeros(len(x), 1).index_add_(0, to, ones).clamp_min(1)
                parts.append(total / count.sqrt())
            x = x + layer(torch.cat(parts, dim=1))
    assert len(shared_classes(batch, 2)[-1][0]) < len(batch)
    torch.testing.assert_close(shared, x, atol=1e-5, rtol=1e-4)


def test_recurrences_follow_their_definition(graphs):
    graph = graphs[0]
    table = NodeTable()
    batch = batch_of([tensors_of(graph, table)], table.operators, table.kinds, table.features)
    random = torch.Generator().manual_seed(0)
    n = len(graph)
    keep, add, length = torch.rand(n, 3, generator=random), torch.randn(n, 3, generator=random), torch.randn(n, 2)
    gated, tropical = run(sweeps(batch)[0], keep, add, length)
    for at, node in enumerate(graph.nodes):
        before = list(node.inputs)
        mean = gated[before].mean(0) if before else torch.zeros(3)
        most = tropical[before].max(0).values if before else torch.zeros(2)
        torch.testing.assert_close(gated[at], keep[at] * mean + add[at])
        torch.testing.assert_close(tropical[at], length[at] + most)


def test_gradients_of_the_recurrences_are_right(graphs):
    table = NodeTable()
    batch = batch_of([tensors_of(graphs[3], table)], table.operators, table.kinds, table.features)
    random = torch.Generator().manual_seed(0)
    for sweep in sweeps(batch):
        exact = Sweep(**{**vars(sweep), "share": sweep.share.double()})
        inputs = [
            torch.randn(len(batch), 1, dtype=torch.double, generator=random, requires_grad=True) for _ in range(3)
        ]
        assert torch.autograd.gradcheck(lambda a, b, c, plan=exact: run(plan, a, b, c), inputs)


@pytest.mark.slow
def test_memory_is_bounded_on_a_graph_of_20_000_nodes():
    """By the command that measures it, in a process of its own: torch's memory is seen by the resident set only."""
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "graph_encoder.py"), "--large", "20000"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in run.stdout.splitlines() if line.split()[2:3] in (["chain"], ["dense"])]
    more = {(row[2], int(row[0])): float(row[4]) for row in rows}
    assert len(more) == 8
    assert more["dense", 20_000] < 250  # measured: 127 MB; a table of pairs of nodes would take 1,600
    assert more["dense", 20_000] < 3 * max(more["dense", 10_000], 40)  # about linear: squares would be 4


def test_configurations_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'flow'"):
        GraphEncoder(backbone="flwo")
    with pytest.raises(ConfigError, match="no configuration"):
        GraphEncoder.described({"wide": 3})
    with pytest.raises(ConfigError, match="registered already"):
        register_backbone("gin")(BACKBONES["gin"])
    assert GraphEncoder.described(encoder().describe()).config == GNNConfig("flow", 32, 2)


@pytest.mark.parametrize("attributes", [{"strides": 2}, {"pads": "same"}, {"group": "a"}, {"kernel_shape": 3}])
def test_foreign_operators_may_use_familiar_names(attributes):
    nodes = (
        Node("Input", (), (1, 8, 4, 4)),
        Node("com.acme::Foo", (0,), (1, 8, 4, 4), tuple(attributes.items())),
    )
    assert np.isfinite(encoder().embed([ArchGraph(nodes, (1,))])).all()
