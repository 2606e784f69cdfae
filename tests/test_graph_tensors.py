"""Graphs as arrays: features by signature, depths, batches, classes of nodes that message passing cannot tell apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgauge.datasets import nas_bench_201, nds
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.graph_tensors import (
    FEATURES,
    OPERATORS,
    POSITIONS,
    NodeTable,
    batch_of,
    by_node_budget,
    channels_and_positions,
    shared_classes,
    tensors_of,
)
from archgauge.encoders.reading import read


def conv(source, width, before):
    return Node("Conv", (source,), (1, width, 8, 8), (("pads", (1, 1, 1, 1)),), ((width, before, 3, 3),))


CHAIN = ArchGraph((Node("Input", (), (1, 3, 8, 8)), conv(0, 8, 3), conv(1, 8, 8), conv(2, 8, 8), conv(3, 8, 8)), (4,))
FORK = ArchGraph(
    (Node("Input", (), (1, 3, 8, 8)), conv(0, 8, 3), conv(1, 8, 8), Node("Add", (1, 2), (1, 8, 8, 8))), (3,)
)


def batch(*graphs):
    table = NodeTable()
    tensors = [tensors_of(graph, table) for graph in graphs]
    return batch_of(tensors, table.operators, table.kinds, table.features), tensors, table


def test_signatures_share_a_number():
    together, (chain, fork), table = batch(CHAIN, FORK)
    assert chain.codes[2] == chain.codes[3] == chain.codes[4] == fork.codes[2]
    assert len({*chain.codes, *fork.codes}) == len(table) - 1 == 4  # number 0 is the masked node
    assert table.features.shape == (5, len(FEATURES))
    assert np.isfinite(table.features).all()
    assert OPERATORS[table.operators[fork.codes[3]]] == "Add"
    assert len(together) == 9
    assert together.owner.tolist() == [0] * 5 + [1] * 4
    assert together.edges.min(axis=1).tolist() == [0, 1]


def test_depths_and_places():
    _, (chain, fork), _ = batch(CHAIN, FORK)
    assert chain.from_start.tolist() == [0, 1, 2, 3, 4]
    assert fork.from_start.tolist() == [0, 1, 2, 3]
    assert fork.to_end.tolist() == [3, 2, 1, 0]
    assert fork.edges.T.tolist() == [[0, 1], [1, 2], [1, 3], [2, 3]]
    assert fork.places[:, POSITIONS.index("is_output")].tolist() == [0, 0, 0, 1]
    assert fork.places[:, POSITIONS.index("share")] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_channels_of_maps_stand_second_and_of_rows_last():
    assert channels_and_positions((1, 16, 8, 4)) == (16, 32)
    assert channels_and_positions((1, 197, 64)) == (64, 197)
    assert channels_and_positions(()) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"op": "MaxPool", "weights": ()},
        {"shape": (1, 8, 4, 4)},
        {"attributes": (("bias", 1), ("pads", (1, 1, 1, 1)))},
        {"attributes": (("group", 8), ("pads", (1, 1, 1, 1)))},
        {"attributes": (("dilations", (2, 2)), ("pads", (2, 2, 2, 2)))},
        {"weights": ((8, 8, 5, 5),)},
        {"attributes": (("pads", (1, 1, 1, 1)), ("something", 3))},
    ],
)
def test_whatever_changes_a_node_changes_its_features(changes):
    other = ArchGraph((*FORK.nodes[:2], FORK.nodes[2]._replace(**changes), FORK.nodes[3]), (3,))
    _, (one, two), table = batch(FORK, other)
    a, b = one.codes[2], two.codes[2]
    assert (table.features[a] != table.features[b]).any() or table.operators[a] != table.operators[b]


def test_groups_keep_the_budget_and_every_graph_once():
    sizes = [5, 50, 3, 8, 8, 120, 1]
    groups = list(by_node_budget(sizes, 20))
    assert sorted(i for group in groups for i in group) == list(range(7))
    assert all(len(group) == 1 or sum(sizes[i] for i in group) <= 20 for group in groups)


def test_classes_are_those_of_message_passing():
    """Nodes are in one class after k rounds exactly if their k-round neighbourhoods are equal, by plain recursion."""
    graphs = [read(nas_bench_201.build(spec, "cifar10")) for spec in nas_bench_201.sample(4, 3)]
    together, _, _ = batch(*graphs, CHAIN, FORK)
    rounds = 3
    names = [(int(code),) for code in together.codes]
    for found, classes in shared_classes(together, rounds):
        same = {}
        for name, number in zip(names, classes.tolist(), strict=True):
            assert same.setdefault(name, number) == number
        assert len(set(classes.tolist())) == len(set(names)) == len(found)
        assert classes[found].tolist() == list(range(len(found)))
        before, after = [[] for _ in names], [[] for _ in names]
        for source, target in together.edges.T.tolist():
            before[target].append(names[source])
            after[source].append(names[target])
        names = [(n, tuple(sorted(b)), tuple(sorted(a))) for n, b, a in zip(names, before, after, strict=True)]


def test_repetition_is_shared():
    spec = nds.SPACES["resnet"].sample(1, 0)[0]
    graph = read(nds.SPACES["resnet"].build(spec, "cifar10"))
    together, _, _ = batch(graph, graph)
    assert len(shared_classes(together, 2)[-1][0]) < len(graph)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 60))
def test_no_group_is_empty(sizes, budget):
    groups = list(by_node_budget(sizes, budget))
    assert all(len(group) for group in groups)
    assert sorted(int(i) for group in groups for i in group) == list(range(len(sizes)))
