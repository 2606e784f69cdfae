"""Baselines: sizes, counts and paths of operators, and trees on them."""

from dataclasses import replace

import numpy as np
import pytest

from archgauge.datasets import nas_bench_201, nas_bench_macro
from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders import onnx_reader
from archgauge.encoders.errors import DataError, NotFittedError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.statistics import FEATURE_NAMES, statistics
from archgauge.predictor.baselines import CATEGORIES, TRIVIAL_ROWS, OperatorPaths, OperatorPlaces, category
from archgauge.predictor.metrics import spearman
from archgauge.predictor.ranker import ranker_entry


def conv(source, channels, width, side, kernel=3, **attributes):
    weights = ((width, channels // attributes.get("group", 1), kernel, kernel),)
    return Node("Conv", (source,), (1, width, side, side), tuple(sorted(attributes.items())), weights)


@pytest.fixture
def branched():
    """Input → 3x3 → (1x1 → ReLU | max pool) → Add → 5x5 depthwise → global pool."""
    nodes = (
        Node("Input", (), (1, 3, 8, 8)),
        conv(0, 3, 4, 8, pads=(1, 1, 1, 1)),
        conv(1, 4, 4, 8, kernel=1),
        Node("Relu", (2,), (1, 4, 8, 8)),
        Node("MaxPool", (1,), (1, 4, 8, 8), (("kernel_shape", (3, 3)), ("pads", (1, 1, 1, 1)))),
        Node("Add", (3, 4), (1, 4, 8, 8)),
        conv(5, 4, 4, 8, kernel=5, group=4, pads=(2, 2, 2, 2)),
        Node("GlobalAveragePool", (6,), (1, 4, 1, 1)),
        Node("Reshape", (7,), (1, 4)),
    )
    return ArchGraph(nodes, (8,))


def test_operators_fall_into_their_categories(branched):
    names = [CATEGORIES[c] if (c := category(node)) >= 0 else "" for node in branched.nodes]
    assert names == [
        "",
        "conv 3x3",
        "conv 1x1",
        "activation",
        "max pool",
        "add",
        "conv depthwise",
        "global pool",
        "",
    ]
    assert CATEGORIES[category(conv(0, 4, 4, 8, dilations=(2, 2)))] == "conv dilated"
    assert CATEGORIES[category(Node("my.domain::Odd", (0,), (1, 4)))] == "other"


def test_paths_are_counted_by_hand(branched):
    encoder = OperatorPaths()
    (row,) = encoder.encode([branched])
    value = dict(zip(encoder.columns, row.tolist(), strict=True))
    expected = {
        "count: conv 3x3": 1,
        "least on a path: conv 1x1": 0,
        "most on a path: conv 1x1": 1,
        "least on a path: max pool": 0,
        "shortest without: conv 1x1": 5,  # 3x3, max pool, add, depthwise, global pool
        "shortest without: max pool": 6,
        "shortest without: add": -1,  # on every path
        "inputs: add": 2,
        "outputs: conv 3x3": 2,
        "shortest path": 5,
        "longest path": 6,
        "edges": 9,
        "degree of the input": 1,
        "degree of the output": 1,
    }
    assert {name: value[name] for name in expected} == expected


def test_places_are_quarters_of_the_longest_path(branched):
    encoder = OperatorPlaces()
    (row,) = encoder.encode([branched])
    value = dict(zip(encoder.columns, row.tolist(), strict=True))
    quarters = [sum(value[f"q{q}: {kind}"] for kind in CATEGORIES) for q in (1, 2, 3, 4)]
    assert sum(quarters) == sum(value[f"all: {kind}"] for kind in CATEGORIES) == 7
    assert value["q1: conv 3x3"] == 1
    assert value["q4: global pool"] == 1


def test_encoders_give_every_column_and_take_no_graph(branched):
    for encoder in (OperatorPaths(), OperatorPlaces()):
        table = encoder.encode([branched, branched])
        assert table.shape == (2, len(encoder.columns))
        assert np.isfinite(table).all()
        assert encoder.encode([]).shape == (0, len(encoder.columns))
        assert len(set(encoder.columns)) == len(encoder.columns)


def test_trivial_rankers_read_the_graph(branched):
    score = {name: ranker_entry(name).make(0).fit(()).rank_scores([branched])[0] for name in TRIVIAL_ROWS}
    assert score["macs"] == branched.macs
    assert score["params"] == branched.params
    assert score["depth"] == branched.depth == 3
    assert score["convolutions"] == 3
    assert score["nwot"] == statistics(branched)[FEATURE_NAMES.index("nwot_0.5")]


@pytest.fixture(scope="module")
def spaces():
    """Two spaces whose label is the number of 3x3 convolutions and larger, with noise."""
    found = []
    for module in (nas_bench_201, nas_bench_macro):
        specs = module.sample(40, 0)
        graphs = [onnx_reader.read(module.build(spec, "cifar10")) for spec in specs]
        random = np.random.default_rng(1)
        label = [sum(1 for node in g.nodes if node.op == "Conv" and node.weights[0][2] >= 3) for g in graphs]
        accuracy = 20 + np.array(label) + random.normal(0, 0.1, len(graphs))
        name = module.__name__.rpartition(".")[2]
        found.append(Benchmark(name, "cifar10", graphs, accuracy, tuple(specs)))
    return found


@pytest.mark.parametrize("name", ["graf", "gbdt_nas", "naive_gbdt"])
def test_tree_baselines_learn_and_repeat(spaces, name):
    make = ranker_entry(name).make
    train = [bench.select(range(30)) for bench in spaces]
    scores = make(3).fit(train).rank_scores(spaces[0].graphs[30:])
    assert spearman(spaces[0].accuracy[30:], scores) > 0.4
    assert make(3).fit(train).rank_scores(spaces[0].graphs[30:]).tobytes() == scores.tobytes()
    assert (make(4).fit(train).rank_scores(spaces[0].graphs[30:]) != scores).any()
    with pytest.raises(NotFittedError):
        make(0).rank_scores(spaces[0].graphs)


def test_the_size_prior_alone_looks_at_no_label(spaces):
    make = ranker_entry("size").make
    graphs = spaces[0].graphs
    scores = make(0).fit(spaces).rank_scores(graphs)
    assert spearman(np.array([graph.macs for graph in graphs], np.float64), scores) > 0.7
    others = [replace(bench, accuracy=bench.accuracy[::-1]) for bench in spaces]
    assert make(1).fit(others).rank_scores(graphs).tobytes() == scores.tobytes()
    assert make(0).fit(spaces).rank_scores(graphs[3:4])[0] == scores[3]
    with pytest.raises(NotFittedError):
        make(0).rank_scores(graphs)
    with pytest.raises(DataError, match="all of one size"):
        make(0).fit([spaces[0].select([0])])
