"""ArchGraph: costs of small networks counted by hand, validation, equality, JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgauge.datasets import nas_bench_201
from archgauge.datasets.onnx_builder import OnnxBuilder
from archgauge.encoders import operators
from archgauge.encoders.costs import COUNTED, fan_in, macs_of
from archgauge.encoders.errors import GraphError
from archgauge.encoders.graph import GRAPH_VERSION, ArchGraph, Node
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.operators import KINDS, Kind, kind_of


def chain(*nodes: Node) -> ArchGraph:
    return ArchGraph(nodes, (len(nodes) - 1,))


X = Node("Input", (), (1, 3, 8, 8))


def test_convolutional_network_counted_by_hand() -> None:
    net = OnnxBuilder("hand", (3, 32, 32))
    x = net.relu(net.batch_norm(net.conv(net.input, 16, kernel=3)))  # 432 weights + 32; 432 · 1024 products
    y = net.conv(x, 16, kernel=3, groups=16)  # 144; 144 · 1024
    y = net.conv(y, 32, kernel=1, stride=2, padding=0, bias=True)  # 512 + 32; 512 · 256
    z = net.conv(y, 32, kernel=3, dilation=2)  # 9216; 9216 · 256
    z = net.linear(net.flatten(net.global_avg_pool(net.add(y, z))), 10)  # 320 + 10; 320
    graph = read(net.build(z))
    assert graph.params == 432 + 32 + 144 + 512 + 32 + 9216 + 330
    assert graph.macs == 432 * 1024 + 144 * 1024 + 512 * 256 + 9216 * 256 + 320
    assert graph.activations == 2 * 16 * 1024 + 2 * 32 * 256 + 10
    assert graph.depth == 5
    assert graph.unknown_ops == ()


def test_transformer_block_counted_by_hand() -> None:
    length, width = 10, 8
    net = OnnxBuilder("block", (length, width))
    x = net.layer_norm(net.input)
    q, k, v = (net.linear(x, width, bias=False) for _ in range(3))
    mixed = net.matmul(net.softmax(net.matmul(q, net.transpose(k, (1, 0)))), v)
    y = net.add(net.input, net.linear(mixed, width))
    z = net.linear(net.activation(net.linear(net.layer_norm(y), 4 * width), "Gelu"), width)
    graph = read(net.build(net.add(y, z)))
    weights = 4 * width * width + 8 * width * width
    assert graph.params == weights + width + 4 * width + width + 2 * 2 * width
    assert graph.macs == length * weights + 2 * length * length * width
    assert sum(node.op == "Attention" for node in graph.nodes) == 1
    assert graph.depth == 4


@pytest.mark.parametrize(
    ("node", "operands", "macs"),
    [
        (Node("Conv", (0,), (1, 6, 4, 4), (), ((6, 1, 3, 3),)), [X], 6 * 16 * 9),
        (Node("ConvTranspose", (0,), (1, 5, 16, 16), (("strides", (2, 2)),), ((3, 5, 2, 2),)), [X], 3 * 64 * 5 * 4),
        (Node("Conv", (0, 1), (1, 4, 6, 6)), [X, Node("Input", (), (4, 3, 3, 3))], 4 * 36 * 27),
        (Node("Linear", (0,), (1, 7, 5), (), ((4, 5),)), [Node("Input", (), (1, 7, 4))], 7 * 5 * 4),
        (Node("Linear", (0,), (1, 6, 4), (("left", 1),), ((6, 7),)), [Node("Input", (), (1, 7, 4))], 6 * 7 * 4),
        (
            Node("MatMul", (0, 1), (2, 3, 5)),
            [Node("Input", (), (2, 3, 4)), Node("Input", (), (2, 4, 5))],
            2 * 3 * 4 * 5,
        ),
        (
            Node("Attention", (0, 1, 2), (2, 3, 6)),
            [Node("Input", (), (2, 3, 4)), Node("Input", (), (2, 5, 4)), Node("Input", (), (2, 5, 6))],
            2 * 3 * 5 * (4 + 6),
        ),
        (
            Node("LSTM", (0,), (7, 1, 1, 3), (), ((1, 12, 4), (1, 12, 3))),
            [Node("Input", (), (7, 1, 4))],
            7 * (12 * 4 + 12 * 3),
        ),
        (Node("Loop", (0,), (1,), (("body", "x"), ("body_macs", 42))), [X], 42),
        (Node("Relu", (0,), (1, 3, 8, 8)), [X], 0),
        (Node("Linear", (0,), (1, 3)), [X], 0),
    ],
)
def test_macs_of_single_operators(node: Node, operands: list[Node], macs: int) -> None:
    assert macs_of(node, operands) == macs
    assert (node.op in COUNTED) or macs == 0


def test_fan_in() -> None:
    assert fan_in(Node("Conv", (0,), (1, 6, 4, 4), (), ((6, 2, 3, 3),))) == 18
    assert fan_in(Node("ConvTranspose", (0,), (1, 5, 16, 16), (("strides", (2, 2)),), ((3, 5, 4, 4),))) == 12
    assert fan_in(Node("Linear", (0,), (1, 5), (), ((4, 5),))) == 4
    assert fan_in(Node("Relu", (0,), (1, 5))) == 0


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ((X, Node("Relu", (1,), (1,))), (1,), "operands"),
        ((X, Node("Relu", (-1,), (1,))), (1,), "operands"),
        ((Node("Relu", (0,), (1,)), X), (0,), "operands"),
        ((X, Node("Relu", (0,), (1, -2))), (1,), "negative"),
        ((X, Node("Linear", (0,), (1,), tied=1)), (1,), "tied"),
        ((X,), (1,), "output 1"),
        ((X,), (-1,), "output -1"),
    ],
)
def test_broken_graphs_are_rejected(nodes: tuple[Node, ...], outputs: tuple[int, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ArchGraph(nodes, outputs)


def test_equality_is_that_of_content_and_not_of_stored_parameters() -> None:
    one = chain(X, Node("Linear", (0,), (1, 3), (), ((8, 3),), params=24))
    same = chain(X, Node("Linear", (0,), (1, 3), (), ((8, 3),), params=27))
    other = chain(X, Node("Linear", (0,), (1, 3), (("bias", 1),), ((8, 3),), params=24))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "a graph"
    assert len({one, same, other}) == 2
    assert "2 nodes" in repr(one)


@pytest.mark.parametrize(
    "change",
    [
        {"op": "Sigmoid"},
        {"shape": (1, 3, 8, 9)},
        {"attributes": (("axis", 1),)},
        {"weights": ((3,),)},
        {"inputs": (0, 0)},
    ],
)
def test_every_part_of_a_node_counts_for_the_hash(change: dict[str, object]) -> None:
    relu = Node("Relu", (0,), (1, 3, 8, 8))
    assert chain(X, relu).hash != chain(X, relu._replace(**change)).hash  # type: ignore[arg-type]


def test_outputs_count_for_the_hash() -> None:
    nodes = (X, Node("Relu", (0,), X.shape), Node("Tanh", (1,), X.shape))
    assert len({ArchGraph(nodes, outputs).hash for outputs in ((2,), (1, 2), (2, 1))}) == 3


def test_json_gives_the_same_graph_back() -> None:
    for spec in nas_bench_201.sample(3, seed=1):
        graph = read(nas_bench_201.build(spec, "cifar10"))
        again = ArchGraph.from_json(graph.to_json())
        assert again.nodes == graph.nodes
        assert again.outputs == graph.outputs
        assert (again.hash, again.params, again.macs) == (graph.hash, graph.params, graph.macs)


values = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(st.integers(-9, 9), max_size=4).map(tuple),
)


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.dictionaries(st.text(max_size=5), values, max_size=3))))
def test_json_gives_any_graph_back(parts: list[tuple[str, dict[str, object]]]) -> None:
    nodes = [X]
    for op, attributes in parts:
        nodes.append(Node(op, (len(nodes) - 1,), (1, 2), tuple(sorted(attributes.items())), ((4, 2), ()), -1, 7))  # type: ignore[arg-type]
    graph = chain(*nodes)
    again = ArchGraph.from_json(graph.to_json())
    assert again.nodes == graph.nodes
    assert again.hash == graph.hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        f'{{"version": {GRAPH_VERSION}, "nodes": [[]], "outputs": []}}',
        f'{{"version": {GRAPH_VERSION}, "nodes": [["Relu", [5], [1], [], [], -1, 0]], "outputs": [0]}}',
        f'{{"version": {GRAPH_VERSION}, "nodes": 3, "outputs": []}}',
    ],
)
def test_broken_json_is_a_graph_error(text: str) -> None:
    with pytest.raises(GraphError):
        ArchGraph.from_json(text)


def test_json_of_another_version_says_so() -> None:
    content = json.loads(chain(X).to_json())
    content["version"] = GRAPH_VERSION + 1
    with pytest.raises(GraphError, match=f"version {GRAPH_VERSION + 1}"):
        ArchGraph.from_json(json.dumps(content))


def test_depth_is_the_longest_path_and_not_the_number_of_layers() -> None:
    linear = Node("Linear", (0,), (1, 3, 8, 8), (), ((8, 8),))
    nodes = (X, linear, linear, linear._replace(inputs=(2,)), Node("Add", (1, 3), X.shape))
    assert ArchGraph(nodes, (4,)).depth == 2


def test_vocabulary_has_no_operator_twice() -> None:
    names = [name for listed in operators._BY_KIND.values() for name in listed.split()]
    assert len(names) == len(set(names)) == len(KINDS)
    assert kind_of("Conv") is Kind.CONV
    assert kind_of("com.acme::Thing") is Kind.UNKNOWN
