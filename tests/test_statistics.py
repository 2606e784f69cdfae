"""The statistics encoder: values worked out by hand on small graphs, and what must hold on any graph."""

from __future__ import annotations

from math import acos, cos, log, log1p, log2, log10, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.operators import KINDS
from archgauge.encoders.statistics import (
    CORE,
    FEATURE_NAMES,
    FEATURES,
    SIZES,
    STATISTICS_VERSION,
    laplacian_eigenvalues,
    statistics,
)


class Net:
    """A graph under construction; every method returns the new node's position."""

    def __init__(self, *shape: int) -> None:
        self.nodes = [Node("Input", (), (1, *shape))]

    def add(self, op: str, *inputs: int, shape: tuple[int, ...] | None = None, **fields: object) -> int:
        shape = self.nodes[inputs[0]].shape if shape is None else shape
        self.nodes.append(Node(op, inputs, shape, **fields))  # type: ignore[arg-type]
        return len(self.nodes) - 1

    def conv(self, x: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> int:
        _, width, height, _ = self.nodes[x].shape
        attributes: list[tuple[str, object]] = [("bias", 1)] if bias else []
        if groups > 1:
            attributes.append(("group", groups))
        if stride > 1:
            attributes.append(("strides", (stride, stride)))
        return self.add(
            "Conv",
            x,
            shape=(1, channels, height // stride, height // stride),
            attributes=tuple(attributes),
            weights=((channels, width // groups, kernel, kernel),),
        )

    def linear(self, x: int, width: int) -> int:
        shape = self.nodes[x].shape
        return self.add("Linear", x, shape=(*shape[:-1], width), weights=((shape[-1], width),))

    def graph(self, *outputs: int) -> ArchGraph:
        return ArchGraph(tuple(self.nodes), outputs or (len(self.nodes) - 1,))


def features(graph: ArchGraph) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, statistics(graph).tolist(), strict=True))


def relu_map(c: float) -> float:
    return (sqrt(1 - c * c) + (pi - acos(c)) * c) / pi


def chain() -> ArchGraph:
    """Conv 3x3 3->8 on 16x16, ReLU, conv 3x3 with stride 2 8->16, ReLU, 1x1 16->4."""
    net = Net(3, 16, 16)
    x = net.add("Relu", net.conv(0, 8, kernel=3))
    x = net.add("Relu", net.conv(x, 16, kernel=3, stride=2))
    return net.graph(net.conv(x, 4))


def residual() -> ArchGraph:
    """Conv, then x + conv(relu(conv(x)))."""
    net = Net(3, 8, 8)
    x = net.conv(0, 4, kernel=3)
    y = net.conv(net.add("Relu", net.conv(x, 4, kernel=3)), 4, kernel=1)
    return net.graph(net.add("Add", y, x))


def many_cells(cells: int) -> ArchGraph:
    net = Net(3, 8, 8)
    x = net.conv(0, 4, kernel=3)
    for _ in range(cells):
        y = net.conv(net.add("Relu", net.conv(x, 4, kernel=3)), 4, kernel=3)
        x = net.add("Relu", net.add("Add", y, x))
    return net.graph(x)


def dense_laplacian(graph: ArchGraph) -> np.ndarray:
    """Eigenvalues of the normalised Laplacian by the definition, without contraction."""
    n = len(graph.nodes)
    adjacency = np.zeros((n, n))
    for position, node in enumerate(graph.nodes):
        for operand in node.inputs:
            adjacency[position, operand] += 1
            adjacency[operand, position] += 1
    scale = 1 / np.sqrt(adjacency.sum(axis=1))
    return np.linalg.eigvalsh(np.eye(n) - scale[:, None] * adjacency * scale)


# --- the table -------------------------------------------------------------------------------------------------------


def test_columns_are_unique_documented_and_versioned() -> None:
    assert STATISTICS_VERSION >= 1
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES) == len(FEATURES)
    assert len({feature.description for feature in FEATURES}) == len(FEATURES)
    assert all(len(feature.description) > 5 and feature.group for feature in FEATURES)


def test_only_measures_of_size_are_monotone() -> None:
    assert {feature.name for feature in FEATURES if feature.monotone} == {
        "log_params",
        "log_macs",
        "log_units",
        "log_relu_channels",
        "entropy",
        "nwot_0.1",
        "nwot_0.5",
        "nwot_0.9",
    }
    assert {feature.monotone for feature in FEATURES} == {0, 1}


def test_selections_are_columns() -> None:
    assert len(set(CORE)) == len(CORE) == 44
    assert set(CORE) <= set(FEATURE_NAMES)
    assert all(feature.monotone == 1 for feature in FEATURES if feature.name in SIZES)
    assert set(SIZES) <= set(FEATURE_NAMES)


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_sizes_of_a_chain() -> None:
    graph = chain()
    f = features(graph)
    macs = 8 * 256 * 27 + 16 * 64 * 72 + 4 * 64 * 16
    assert graph.macs == macs
    assert f["log_macs"] == pytest.approx(log10(1 + macs))
    assert f["log_params"] == pytest.approx(log10(1 + 8 * 27 + 16 * 72 + 4 * 16))
    assert f["log_units"] == pytest.approx(log10(1 + 8 * 256 + 16 * 64))
    assert f["log_relu_channels"] == pytest.approx(log10(1 + 24))
    assert f["log_activations"] == pytest.approx(log10(1 + 8 * 256 + 16 * 64 + 4 * 64))
    assert f["macs_conv_k3"] == pytest.approx((8 * 256 * 27 + 16 * 64 * 72) / macs)
    assert f["share_conv"] == pytest.approx(3 / 6)
    assert f["n_conv_strided"] == pytest.approx(log1p(1))


def test_paths_of_a_chain() -> None:
    f = features(chain())
    fan = log(27) + log(72) + log(16)
    for statistic in ("min", "max", "mean"):
        assert f[f"path_{statistic}_layers"] == pytest.approx(log1p(3))
        assert f[f"path_{statistic}_mixing"] == pytest.approx(log1p(2))
        assert f[f"path_{statistic}_rectifiers"] == pytest.approx(log1p(2))
        assert f[f"path_{statistic}_fan"] == pytest.approx(log1p(fan))
        # Both 3x3 convolutions read the full 16 x 16 map, so each adds 2 pixels to the one that is seen without them.
        assert f[f"path_{statistic}_reach"] == pytest.approx(log2(1 + 4))
    assert f["log_paths"] == 0
    assert f["path_ratio"] == 1


def test_receptive_field_grows_with_the_stride_before() -> None:
    net = Net(3, 16, 16)
    x = net.conv(0, 4, kernel=3, stride=4)
    f = features(net.graph(net.conv(x, 4, kernel=3)))
    assert f["path_max_reach"] == pytest.approx(log2(1 + 2 + 2 * 4))


def test_stages_of_a_chain() -> None:
    f = features(chain())
    macs = np.array([8 * 256 * 27, 16 * 64 * 72 + 4 * 64 * 16])
    shares = macs / macs.sum()
    assert f["n_stages"] == pytest.approx(log1p(2))
    assert (f["first_resolution"], f["last_resolution"]) == (4, 3)
    assert f["stage_layers_first"] == pytest.approx(log1p(1))
    assert f["stage_layers_middle"] == 0
    assert f["stage_layers_last"] == pytest.approx(log1p(2))
    assert f["stage_macs_share_last"] == pytest.approx(shares[1])
    assert f["stage_width_last"] == pytest.approx(log2(1 + (16 + 4) / 2))
    assert f["stage_centroid_macs"] == pytest.approx(shares[1])
    assert f["stage_entropy_macs"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert f["bottleneck"] == pytest.approx(log2(4 * 64))
    assert f["entropy"] == pytest.approx(log1p((log(27) + log(72) + log(16)) * log(4 * 64)))
    assert f["regions"] == pytest.approx(log1p(sqrt(8 * log(8) + 16 * log(16))))


def test_residual_paths() -> None:
    f = features(residual())
    assert f["path_min_layers"] == pytest.approx(log1p(1))
    assert f["path_max_layers"] == pytest.approx(log1p(3))
    # Both branches are normalised and carry the same variance, so the mean path lies half way.
    assert f["path_mean_layers"] == pytest.approx(log1p(2))
    assert f["path_ratio"] == pytest.approx(1 / 3)
    assert f["log_paths"] == pytest.approx(log1p(log(2)))
    assert f["power_out"] == pytest.approx(log10(2))
    assert (f["skip_long"], f["skip_balanced"], f["skip_direct"]) == (1, 0, 1)
    assert f["skip_mean"] == pytest.approx(log1p(2))
    assert f["n_cycles"] == pytest.approx(log1p(1))


def test_number_of_paths_doubles_with_every_block() -> None:
    assert features(many_cells(10))["log_paths"] == pytest.approx(log1p(10 * log(2)))


@pytest.mark.parametrize(("column", "start"), [("0.1", 0.1), ("0.5", 0.5), ("0.9", 0.9)])
def test_relu_correlation_is_the_arc_cosine_map(column: str, start: float) -> None:
    net = Net(3, 8, 8)
    f = features(net.graph(net.add("Relu", net.conv(0, 4, kernel=3))))
    assert f[f"correlation_{column}"] == pytest.approx(log10(1 - relu_map(start)))
    agreement = 1 - acos(start) / pi
    expected = log(4 * 64) + (31 * log(1 - agreement) + log(1 + 31 * agreement)) / 32
    assert f[f"nwot_{column}"] == pytest.approx(expected)


def test_relu_correlation_at_one_half() -> None:
    net = Net(3, 8, 8)
    f = features(net.graph(net.add("Relu", 0)))
    assert cos(pi / 3) == pytest.approx(0.5)
    assert f["correlation_0.5"] == pytest.approx(log10(1 - (sqrt(3) / 2 / pi + 1 / 3)))
    assert f["agreement"] == pytest.approx(2 / 3)
    assert f["power_out"] == pytest.approx(log10(0.5))


@pytest.mark.parametrize(("op", "power"), [("Gelu", 0.4252), ("Silu", 0.3557), ("Tanh", 0.3943), ("Sigmoid", 0.2934)])
def test_second_moment_of_other_activations(op: str, power: float) -> None:
    net = Net(3, 8, 8)
    f = features(net.graph(net.add(op, 0)))
    assert 10 ** f["power_out"] == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize("op", ["Gelu", "Silu", "HardSwish", "Tanh"])
def test_correlation_map_agrees_with_simulation(op: str) -> None:
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 500_000))
    v = 0.5 * u + sqrt(0.75) * v
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    functions = {
        "Gelu": lambda x: x * sigmoid(1.702 * x),
        "Silu": lambda x: x * sigmoid(x),
        "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        "Tanh": np.tanh,
    }
    a, b = functions[op](u), functions[op](v)
    net = Net(3, 8, 8)
    f = features(net.graph(net.add(op, 0)))
    assert 1 - 10 ** f["correlation_0.5"] == pytest.approx((a * b).mean() / (a * a).mean(), abs=0.01)


def test_leaky_relu_lies_between_relu_and_identity() -> None:
    def out(slope: float) -> float:
        net = Net(3, 8, 8)
        return features(net.graph(net.add("LeakyRelu", 0, attributes=(("alpha", slope),))))["correlation_0.5"]

    assert out(0.0) == pytest.approx(log10(1 - relu_map(0.5)))
    assert out(1.0) == pytest.approx(log10(0.5))
    assert out(0.0) < out(0.3) < out(1.0)


def test_addition_mixes_correlations_by_variance() -> None:
    net = Net(4, 8, 8)
    rectified = net.add("Relu", 0)  # second moment 1/2
    f = features(net.graph(net.add("Add", rectified, 0)))
    assert f["correlation_0.5"] == pytest.approx(log10(1 - (0.5 * relu_map(0.5) + 0.5) / 1.5))
    assert f["power_out"] == pytest.approx(log10(1.5))
    assert f["path_mean_rectifiers"] == pytest.approx(log1p(1 / 3))


def test_concatenation_mixes_by_channels_and_variance() -> None:
    net = Net(4, 8, 8)
    wide = net.conv(0, 12)
    narrow = net.add("Relu", net.conv(0, 4))
    f = features(net.graph(net.add("Concat", wide, narrow, shape=(1, 16, 8, 8), attributes=(("axis", 1),))))
    power = 0.75 * 1 + 0.25 * 0.5
    assert f["power_out"] == pytest.approx(log10(power))
    assert f["correlation_0.5"] == pytest.approx(log10(1 - (0.75 * 0.5 + 0.125 * relu_map(0.5)) / power))


def test_convolution_without_norm_undoes_the_loss_of_the_relu() -> None:
    net = Net(4, 8, 8)
    f = features(net.graph(net.conv(net.add("Relu", 0), 4, bias=False)))
    assert f["power_out"] == 0


def test_average_pooling_divides_the_variance_by_its_side() -> None:
    net = Net(4, 8, 8)
    attributes = (("kernel_shape", (2, 2)), ("strides", (2, 2)))
    f = features(net.graph(net.add("AveragePool", 0, shape=(1, 4, 4, 4), attributes=attributes)))
    assert f["power_out"] == pytest.approx(log10(0.5))


def test_gradient_is_halved_by_relu_and_restored_by_normalisation() -> None:
    net = Net(4, 8, 8)
    first = net.conv(0, 4)
    net.conv(net.add("Relu", first), 4)
    f = features(net.graph())
    # The second convolution raises the second moment from 1/2 to 1, so it doubles the energy that ReLU halves.
    assert f["gradient_min"] == pytest.approx(0)
    assert f["gradient_max"] == pytest.approx(0)
    plain = features(net.graph(first + 1))
    assert plain["gradient_min"] == pytest.approx(log10(0.5))


def test_synflow_sums_over_paths() -> None:
    net = Net(4, 8, 8)
    a, b = net.conv(0, 4), net.conv(0, 4, kernel=3)
    f = features(net.graph(net.add("Add", a, b)))
    expected = log(sqrt(16 / pi) + sqrt(4 * 36 / pi))
    assert f["synflow"] == pytest.approx(log1p(expected))


def test_attention() -> None:
    net = Net(16, 32)  # 16 tokens of width 32
    heads = (1, 4, 16, 8)
    q, k, v = (net.add("Reshape", net.linear(0, 32), shape=heads) for _ in range(3))
    k = net.add("Transpose", k, shape=(1, 4, 8, 16), attributes=(("perm", (0, 1, 3, 2)),))
    weights = net.add("Softmax", net.add("MatMul", q, k, shape=(1, 4, 16, 16)))
    x = net.add("Reshape", net.add("MatMul", weights, v, shape=heads), shape=(1, 16, 32))
    x = net.add("Add", net.linear(x, 32), 0)
    y = net.linear(net.add("Gelu", net.linear(net.add("LayerNormalization", x, weights=((32,),)), 128)), 32)
    graph = net.graph(net.add("Add", y, x))
    f = features(graph)
    assert f["macs_attention"] == pytest.approx(2 * 16 * 16 * 32 / graph.macs)
    assert f["attention_tokens"] == pytest.approx(log2(1 + 16))
    assert f["attention_heads"] == pytest.approx(log2(1 + 4))
    assert f["expansion_mean"] == f["expansion_max"] == 2
    assert f["residual_width"] == pytest.approx(log2(1 + 32))
    assert f["first_resolution"] == f["last_resolution"] == 2  # sqrt(16) = 4
    assert f["path_max_mixing"] == pytest.approx(log1p(1))
    assert f["path_min_layers"] == 0
    assert f["path_max_layers"] == pytest.approx(log1p(4))


def test_linear_layer_over_tokens_is_a_mixing_layer() -> None:
    net = Net(16, 32)
    x = net.add("Transpose", 0, shape=(1, 32, 16), attributes=(("perm", (0, 2, 1)),))
    x = net.add("Gelu", net.linear(x, 64))
    x = net.add("Transpose", net.linear(x, 16), shape=(1, 16, 32), attributes=(("perm", (0, 2, 1)),))
    assert features(net.graph(x))["path_max_mixing"] == pytest.approx(log1p(2))
    assert features(net.graph(net.linear(x, 32)))["path_max_mixing"] == pytest.approx(log1p(2))


def test_squeeze_and_excite() -> None:
    net = Net(8, 8, 8)
    x = net.conv(0, 8, kernel=3)
    s = net.add("GlobalAveragePool", x, shape=(1, 8, 1, 1))
    gate = net.add("Sigmoid", net.conv(net.add("Relu", net.conv(s, 2)), 8))
    f = features(net.graph(net.add("Mul", x, gate)))
    assert f["n_gates"] == f["n_squeeze_excite"] == pytest.approx(log1p(1))
    assert f["log_units"] == pytest.approx(log10(1 + 2))  # the sigmoid is a gate, not a unit
    assert f["path_mean_layers"] == pytest.approx(log1p(1))  # the gate carries no signal
    assert f["path_max_layers"] == pytest.approx(log1p(3))


def test_depthwise_and_grouped_convolutions() -> None:
    net = Net(8, 8, 8)
    net.conv(net.conv(net.conv(0, 8, kernel=3, groups=8), 8, kernel=5, groups=2), 8)
    f = features(net.graph())
    for name in ("k1", "k3", "k5", "depthwise", "grouped"):
        assert f[f"share_conv_{name}"] == pytest.approx(1 / 3)
    assert f["n_conv_k7"] == 0


def test_tied_weights_count_once() -> None:
    net = Net(8, 8, 8)
    first = net.conv(0, 8)
    net.add("Conv", first, attributes=(("bias", 1),), weights=((8, 8, 1, 1),), tied=first)
    assert features(net.graph())["log_params"] == pytest.approx(log10(1 + 64))


# --- spectrum --------------------------------------------------------------------------------------------------------


def test_laplacian_of_a_path() -> None:
    n = 9
    net = Net(4, 8, 8)
    for position in range(n - 1):
        net.add("Relu", position)
    graph = net.graph()
    expected = [1 - cos(pi * k / (n - 1)) for k in range(5)]  # normalised Laplacian of a path (Chung 1997, sec. 1.2)
    assert laplacian_eigenvalues(graph, 5) == pytest.approx(expected, abs=1e-12)
    f = features(graph)
    assert f["laplacian_1"] == pytest.approx(log10(expected[1]))
    assert f["algebraic_connectivity"] == pytest.approx(log10(expected[1] * n * n))


def test_laplacian_of_a_triangle_is_padded_with_the_upper_bound() -> None:
    net = Net(4, 8, 8)
    net.add("Add", net.add("Relu", 0), 0)
    assert laplacian_eigenvalues(net.graph(), 5) == pytest.approx([0, 1.5, 1.5, 2, 2])


@pytest.mark.parametrize(("cells", "tolerance"), [(20, 1e-9), (60, 0.01), (200, 0.01)])
def test_contracted_laplacian_is_close_to_the_whole(cells: int, tolerance: float) -> None:
    graph = many_cells(cells)
    assert laplacian_eigenvalues(graph, 5)[1:] == pytest.approx(dense_laplacian(graph)[1:5], rel=tolerance)


# --- robustness ------------------------------------------------------------------------------------------------------


def check(graph: ArchGraph) -> dict[str, float]:
    row = statistics(graph)
    assert row.shape == (len(FEATURES),)
    assert row.dtype == np.float64
    assert np.isfinite(row).all()
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def test_disconnected_network() -> None:
    f = check(ArchGraph((Node("Zero", (), (1, 10)),), (0,)))
    assert f["is_connected"] == 0
    assert f["log_macs"] == f["log_params"] == f["log_units"] == 0
    assert check(chain())["is_connected"] == 1


@pytest.mark.parametrize(
    "graph",
    [
        ArchGraph((), ()),
        ArchGraph((Node("Input", (), ()),), (0,)),
        ArchGraph((Node("Input", (), (1, 0)), Node("Linear", (0,), (1, 5), (), ((0, 5),))), (1,)),
        ArchGraph((Node("Input", (), (1, 4, 9)), Node("Conv", (0,), (1, 8, 9), (), ((8, 4, 3),))), (1,)),
        ArchGraph(
            (Node("Input", (), (1, 4, 3, 9, 9)), Node("Conv", (0,), (1, 8, 3, 9, 9), (), ((8, 4, 3, 3, 3),))), (1,)
        ),
        ArchGraph((Node("Input", (), (1, 4)), Node("Conv", (0,), (1, 4)), Node("Linear", (1,), ())), (2,)),
        ArchGraph((Node("Input", (), (1, 7)), Node("Input", (), (1, 7)), Node("a::B", (0, 1), (1, 7))), (0, 2)),
        ArchGraph(
            (Node("Input", (), (1, 50, 32)), Node("LSTM", (0,), (50, 1, 1, 64), (), ((1, 256, 32), (1, 256, 64)))), (1,)
        ),
        ArchGraph((Node("Input", (), (1, 9)), Node("Embedding", (0,), (1, 9, 16), (), ((100, 16),))), (1,)),
        ArchGraph(
            (Node("Input", (), (1, 5)), Node("Attention", (0, 0, 0), (1, 5)), Node("MatMul", (0, 1), (5,))), (2,)
        ),
    ],
    ids=[
        "empty",
        "scalar",
        "zero-size",
        "1-D",
        "3-D",
        "no-weights",
        "two-inputs",
        "recurrent",
        "text",
        "flat-attention",
    ],
)
def test_odd_graphs_are_finite(graph: ArchGraph) -> None:
    check(graph)


def test_thousands_of_nodes_without_normalisation() -> None:
    net = Net(4, 8, 8)
    x = 0
    for _ in range(1500):
        x = net.add("Add", net.conv(net.add("Relu", x), 4, bias=False), x)
    f = check(net.graph(x))
    assert f["log_paths"] == pytest.approx(log1p(1500 * log(2)))
    assert f["path_max_layers"] == pytest.approx(log1p(1500))


def test_absurd_dimensions() -> None:
    huge = (2**62,) * 7
    nodes = (Node("Input", (), huge), Node("Conv", (0,), huge, (), (huge,)), Node("Linear", (1,), huge, (), (huge,)))
    f = check(ArchGraph(nodes, (2,)))
    assert f["log_macs"] > 20


@st.composite
def graphs(draw: st.DrawFn) -> ArchGraph:
    shapes = st.lists(st.integers(0, 9), max_size=5).map(tuple)
    ops = st.sampled_from([*sorted(KINDS), "some.domain::Thing"])
    attributes = st.sampled_from(
        [
            (),
            (("bias", 1), ("group", 2), ("strides", (2, 2))),
            (("alpha", 0.2),),
            (("axis", -1),),
            (("kernel_shape", (3, 3)),),
            (("left", 1),),
            (("perm", (0, 2, 1)),),
        ]
    )
    nodes = [Node("Input", (), draw(shapes))]
    for position in range(1, draw(st.integers(1, 25))):
        operands = draw(st.lists(st.integers(0, position - 1), max_size=4))
        weights = tuple(draw(st.lists(shapes, max_size=3)))
        tied = draw(st.integers(-1, position - 1))
        nodes.append(Node(draw(ops), tuple(operands), draw(shapes), draw(attributes), weights, tied))
    outputs = draw(st.lists(st.integers(0, len(nodes) - 1), max_size=3))
    return ArchGraph(tuple(nodes), tuple(outputs))


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_any_graph_is_finite(graph: ArchGraph) -> None:
    check(graph)


def reordered(graph: ArchGraph, rng: np.random.Generator) -> ArchGraph:
    """The same graph with its nodes in another topological order."""
    waiting, order = set(range(len(graph.nodes))), []
    while waiting:
        ready = sorted(i for i in waiting if not waiting.intersection(graph.nodes[i].inputs))
        ready = [i for i in ready if graph.nodes[i].tied not in waiting]
        order.append(int(rng.choice(ready)))
        waiting.remove(order[-1])
    place = {old: new for new, old in enumerate(order)}
    nodes = []
    for old in order:
        node = graph.nodes[old]
        tied = place[node.tied] if node.tied >= 0 else -1
        nodes.append(node._replace(inputs=tuple(place[i] for i in node.inputs), tied=tied))
    return ArchGraph(tuple(nodes), tuple(place[i] for i in graph.outputs))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_order_of_the_nodes_does_not_matter(graph: ArchGraph, seed: int) -> None:
    other = reordered(graph, np.random.default_rng(seed))
    np.testing.assert_allclose(statistics(other), statistics(graph), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_the_nodes_does_not_matter_in_cells(seed: int) -> None:
    net = Net(3, 16, 16)
    x = net.conv(0, 8, kernel=3)
    for channels in (8, 16, 32):
        x = net.add("Relu", net.conv(x, channels, kernel=3, stride=2 if channels > 8 else 1))
        a, b = net.conv(x, channels, kernel=3), net.add("AveragePool", x, attributes=(("kernel_shape", (3, 3)),))
        c = net.add("Add", net.conv(net.add("Relu", a), channels), b)
        x = net.add("Concat", c, a, x, shape=(1, 3 * channels, *net.nodes[x].shape[2:]), attributes=(("axis", 1),))
    graph = net.graph(x)
    other = reordered(graph, np.random.default_rng(seed))
    assert other.hash != graph.hash
    np.testing.assert_array_equal(statistics(other), statistics(graph))


def test_stored_parameters_do_not_matter() -> None:
    graph = residual()
    stored = ArchGraph(tuple(node._replace(params=123 * i) for i, node in enumerate(graph.nodes)), graph.outputs)
    assert stored.params != graph.params
    np.testing.assert_array_equal(statistics(stored), statistics(graph))
