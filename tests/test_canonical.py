"""One network, one graph: neither names nor order nor operators that do nothing change the hash; anything else does."""

import random
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import networkx as nx  # type: ignore[import-untyped]
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from archgauge.datasets import nas_bench_201
from archgauge.encoders.canonical import absorb_affine, finish, live
from archgauge.encoders.draft import COMMUTATIVE, Constant, Draft
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_reader import read

SHAPE = [1, 4, 6, 6]


class Step(NamedTuple):
    """One operator of a random network; operands are earlier steps, 0 is the input."""

    op: str
    operands: tuple[int, ...]
    weight: int = -1  # number of the stored kernel
    norm: bool = False  # a batch norm behind the convolution


class Style(NamedTuple):
    """How a random network is written down."""

    seed: int = 0
    rename: bool = False
    shuffle: bool = False
    swap: bool = False
    noise: float = 0.0
    fold: bool = False


PLAIN = Style()


def write(steps: list[Step], style: Style = PLAIN, outputs: list[int] | None = None) -> onnx.ModelProto:
    """The network as a weightless model. Steps that nothing uses are outputs, summed up, unless outputs are given."""
    rng = random.Random(style.seed)
    uses = Counter(step.weight for step in steps)  # a kernel that two layers share cannot take in a norm
    nodes: list[onnx.NodeProto] = []
    kernels: dict[str, list[int]] = {}

    def noisy(name: str) -> str:
        if rng.random() >= style.noise:
            return name
        new = f"{name}~{len(nodes)}"
        kind = rng.choice(["Identity", "Dropout", "Cast", "Mul"])
        if kind == "Mul":
            nodes.append(helper.make_node("Constant", [], [new + "!"], value_float=1.0))
        operands = [name, new + "!"] if kind == "Mul" else [name]
        nodes.append(helper.make_node(kind, operands, [new], **({"to": 1} if kind == "Cast" else {})))  # type: ignore[arg-type]
        return new

    def emit(op: str, operands: list[str], output: str) -> None:
        if style.swap and op in ("Add", "Mul", "Max"):
            rng.shuffle(operands)
        nodes.append(helper.make_node(op, [noisy(name) for name in operands], [output]))

    for i, step in enumerate(steps, 1):
        operands = [f"v{j}" for j in step.operands]
        if step.op.startswith("Conv"):
            size = int(step.op[4:])
            kernel = f"k{step.weight}_{size}"
            kernels[kernel] = [4, 4, size, size]
            stored = [kernel]
            pads = [size // 2] * 4
            fold = style.fold and uses[step.weight] == 1
            if not step.norm or fold:
                if step.norm:
                    kernels[f"b{i}"] = [4]
                    stored.append(f"b{i}")
                nodes.append(helper.make_node("Conv", [noisy(operands[0]), *stored], [f"v{i}"], pads=pads))
            else:
                nodes.append(helper.make_node("Conv", [noisy(operands[0]), *stored], [f"c{i}"], pads=pads))
                parts = [f"n{i}{part}" for part in "sbmv"]
                kernels.update({part: [4] for part in parts})
                nodes.append(helper.make_node("BatchNormalization", [noisy(f"c{i}"), *parts], [f"v{i}"]))
        else:
            emit(step.op, operands, f"v{i}")
    used = {j for step in steps for j in step.operands}
    ends = [i for i in range(1, len(steps) + 1) if i not in used] if outputs is None else outputs
    names = [f"v{i}" for i in ends]
    if outputs is None and len(names) > 1:
        emit("Sum", names if not style.swap else rng.sample(names, len(names)), "sum")
        names = ["sum"]
    if style.shuffle:
        rng.shuffle(nodes)
    stored_names = list(kernels)
    if style.shuffle:
        rng.shuffle(stored_names)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, SHAPE)],
        [helper.make_empty_tensor_value_info(name) for name in names],
    )
    for name in stored_names:
        tensor = graph.initializer.add(name=name, dims=kernels[name], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    if style.rename:
        rename(graph, rng)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rename(graph: onnx.GraphProto, rng: random.Random) -> None:
    """Gives every value, node and the graph a random name."""
    new: dict[str, str] = {"": ""}

    def renamed(name: str) -> str:
        return new.setdefault(name, f"{rng.getrandbits(64):x}")

    graph.name = renamed("graph")
    for node in graph.node:
        node.name = f"{rng.getrandbits(64):x}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed(value.name)


@st.composite
def networks(draw: st.DrawFn) -> list[Step]:
    """Random networks with many equal branches; some weights are used twice."""
    steps: list[Step] = []
    weights = 0
    for _ in range(draw(st.integers(1, 7))):
        here = len(steps)
        source = draw(st.integers(0, here))
        kind = draw(st.sampled_from(["unary", "conv", "join", "twins", "fork", "again"]))
        if kind == "unary":
            steps.append(Step(draw(st.sampled_from(["Relu", "Tanh"])), (source,)))
        elif kind == "conv":
            steps.append(Step(draw(st.sampled_from(["Conv1", "Conv3"])), (source,), weights, draw(st.booleans())))
            weights += 1
        elif kind == "join":
            operands = draw(st.lists(st.integers(0, here), min_size=2, max_size=2))
            steps.append(Step(draw(st.sampled_from(["Add", "Mul", "Sub", "Max"])), tuple(operands)))
        elif kind == "again" and weights:
            steps.append(Step("Conv1", (source,), draw(st.integers(0, weights - 1))))
        else:  # equal branches from one node, joined or left open; forks end in two consumers each
            copies, depth = draw(st.integers(2, 3)), draw(st.integers(1, 2))
            ends = []
            for _ in range(copies):
                last = source
                for _ in range(depth):
                    steps.append(Step("Conv3", (last,), weights))
                    weights += 1
                    steps.append(Step("Relu", (len(steps),)))
                    last = len(steps)
                ends.append(last)
            if kind == "twins":
                steps.append(Step("Max", tuple(ends)))
            else:
                for a, b in pairwise([*ends, ends[0]]):
                    steps.append(Step("Add", (a, b)))
    return steps


@settings(max_examples=150)
@given(networks(), st.integers(0, 2**32), st.floats(0, 0.6))
def test_names_order_operand_order_and_no_operations_do_not_count(steps: list[Step], seed: int, noise: float) -> None:
    plain = read(write(steps))
    style = Style(seed, rename=True, shuffle=True, swap=True, noise=noise, fold=bool(seed % 2))
    other = read(write(steps, style))
    assert other.hash == plain.hash
    assert other.macs == plain.macs


@given(networks(), st.integers(0, 2**32))
def test_several_outputs_keep_their_order(steps: list[Step], seed: int) -> None:
    outputs = [len(steps), max(1, len(steps) // 2)]
    style = Style(seed, rename=True, shuffle=True, swap=True, noise=0.3)
    assert read(write(steps, outputs=outputs)) == read(write(steps, style, outputs))


@given(networks(), st.data())
def test_every_change_of_a_kernel_or_operator_counts(steps: list[Step], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(steps) - 1))
    step = steps[i]
    other = {
        "Relu": step._replace(op="Sigmoid"),
        "Tanh": step._replace(op="Exp"),
        "Add": step._replace(op="Min"),
        "Mul": step._replace(op="Min"),
        "Max": step._replace(op="Min"),
        "Sub": step._replace(op="Min"),
        "Conv1": step._replace(op="Conv5", weight=999),
        "Conv3": step._replace(op="Conv5", weight=999),
    }[step.op]
    changed = [*steps[:i], other, *steps[i + 1 :]]
    assert read(write(changed)).hash != read(write(steps)).hash


def labelled(graph: ArchGraph) -> nx.MultiDiGraph:
    """The graph for networkx: nodes with their content, edges with the operand's place where it matters."""
    result = nx.MultiDiGraph()
    for i, node in enumerate(graph.nodes):
        places = tuple(j for j, output in enumerate(graph.outputs) if output == i)
        result.add_node(i, content=(node.op, node.shape, node.attributes, node.weights, places))
    for i, node in enumerate(graph.nodes):
        for slot, operand in enumerate(node.inputs):
            result.add_edge(operand, i, place=0 if node.op in COMMUTATIVE else slot)
        if node.tied >= 0:
            result.add_edge(node.tied, i, place=-1)
    return result


@settings(max_examples=150)
@given(networks(), st.data())
def test_hashes_agree_exactly_when_graphs_are_isomorphic(steps: list[Step], data: st.DataObject) -> None:
    """Against an independent test of isomorphism, on a network and the same with one wire moved."""
    i = data.draw(st.integers(0, len(steps) - 1))
    slot = data.draw(st.integers(0, len(steps[i].operands) - 1))
    operands = list(steps[i].operands)
    operands[slot] = data.draw(st.integers(0, i))
    moved = [*steps[:i], steps[i]._replace(operands=tuple(operands)), *steps[i + 1 :]]
    one, other = read(write(steps)), read(write(moved, Style(1, rename=True, shuffle=True, swap=True)))
    same = nx.is_isomorphic(
        labelled(one),
        labelled(other),
        node_match=lambda a, b: a["content"] == b["content"],
        edge_match=lambda a, b: sorted(e["place"] for e in a.values()) == sorted(e["place"] for e in b.values()),
    )
    assert (one.hash == other.hash) == same


@given(networks())
def test_order_is_topological_and_everything_leads_to_an_output(steps: list[Step]) -> None:
    graph = read(write(steps))
    for i, node in enumerate(graph.nodes):
        assert all(operand < i for operand in node.inputs)
    used = {operand for node in graph.nodes for operand in node.inputs} | set(graph.outputs)
    assert used == set(range(len(graph)))


CROSSED = [
    # Two pairs of equal branches, crossed: which of a pair is taken first has to agree with the other pair.
    Step("Conv3", (0,), 0), Step("Conv3", (0,), 1), Step("Conv1", (0,), 2), Step("Conv1", (0,), 3),
    Step("Add", (1, 3)), Step("Add", (2, 4)), Step("Add", (1, 4)), Step("Add", (2, 3)),
    Step("Relu", (5,)), Step("Relu", (6,)), Step("Tanh", (7,)), Step("Tanh", (8,)),
    Step("Max", (9, 10)), Step("Max", (11, 12)),
]  # fmt: skip
RING = [
    # Eight equal branches joined in a ring: a symmetric graph where one choice decides all the others.
    *(Step("Conv3", (0,), i) for i in range(8)),
    *(Step("Add", (1 + i, 1 + (i + 1) % 8)) for i in range(8)),
]
TWO_RINGS = [
    *(Step("Conv3", (0,), i) for i in range(8)),
    *(Step("Add", (1 + i, 1 + i // 4 * 4 + (i + 1) % 4)) for i in range(8)),
]


@pytest.mark.parametrize("steps", [CROSSED, RING, TWO_RINGS], ids=["crossed", "ring", "two rings"])
def test_symmetric_networks(steps: list[Step]) -> None:
    hashes = {read(write(steps, Style(seed, True, True, True, 0.2))).hash for seed in range(40)}
    assert len(hashes) == 1


def test_tied_weights_tell_equal_branches_apart() -> None:
    def pair(first: int, second: int) -> list[Step]:
        branches = [Step("Conv1", (0,), 0), Step("Conv1", (0,), 1), Step("Relu", (1,)), Step("Relu", (2,))]
        return [*branches, Step("Conv1", (3,), first), Step("Conv1", (4,), second)]

    same = {read(write(pair(0, 1), Style(seed, True, True, True))).hash for seed in range(10)}
    crossed = {read(write(pair(1, 0), Style(seed, True, True, True))).hash for seed in range(10)}
    free = read(write(pair(2, 3))).hash
    assert len(same) == len(crossed) == 1
    assert len({*same, *crossed, free}) == 3


@pytest.mark.parametrize("spec", nas_bench_201.sample(8, seed=7))
def test_cells_of_nas_bench_201(spec: str) -> None:
    model = nas_bench_201.build(spec, "cifar10")
    graph = read(model)
    for seed in range(3):
        rng = random.Random(seed)
        other = onnx.ModelProto.FromString(model.SerializeToString())
        del other.graph.value_info[:]
        insert_no_operations(other.graph, rng)
        for node in other.graph.node:
            if node.op_type == "Add" and rng.random() < 0.5:
                node.input[:] = node.input[::-1]
        nodes = list(other.graph.node)
        rng.shuffle(nodes)
        del other.graph.node[:]
        other.graph.node.extend(nodes)
        rename(other.graph, rng)
        again = read(other)
        assert again.hash == graph.hash
        assert (again.params, again.macs, again.nodes) == (graph.params, graph.macs, graph.nodes)


def insert_no_operations(graph: onnx.GraphProto, rng: random.Random) -> None:
    stored = {tensor.name for tensor in graph.initializer}
    for node in list(graph.node):
        for slot, name in enumerate(node.input):
            if name not in stored and rng.random() < 0.3:
                new = f"{name}/{node.output[0]}/{slot}"
                graph.node.append(helper.make_node(rng.choice(["Identity", "Dropout"]), [name], [new]))
                node.input[slot] = new


def test_all_different_cells_have_different_graphs() -> None:
    """Cells that are the same once zeros and skips are worked out share a hash; sampled cells without either do not."""
    ops = ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    rng = random.Random(0)
    cells = {tuple(rng.choice(ops) for _ in range(6)) for _ in range(30)}
    specs = [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in sorted(cells)]
    assert len({read(nas_bench_201.build(spec, "cifar10")).hash for spec in specs}) == len(specs)


# --- the passes alone ---------------------------------------------------------------------------------------------


def test_live_leaves_out_what_no_output_needs() -> None:
    draft = Draft()
    x = draft.input((1, 2))
    dead = draft.add("Relu", (x,), (1, 2))
    y = draft.add("Tanh", (x,), (1, 2))
    assert live(draft, [y]) == [x, y]
    assert live(draft, [dead, y]) == [x, dead, y]


def test_equal_nodes_are_made_once() -> None:
    draft = Draft()
    x = draft.input((1, 2))
    kernel = Constant((2, 2), None, (("k", 4),))
    assert draft.add("Linear", (x,), (1, 2), (), (kernel,)) == draft.add("Linear", (x,), (1, 2), (), (kernel,))
    assert draft.add("Linear", (x,), (1, 2), (), (Constant((2, 2), None, (("l", 4),)),)) == 2
    assert draft.input((1, 2)) == 3


def test_absorbing_moves_outputs_and_stops_at_branches() -> None:
    draft = Draft()
    x = draft.input((1, 4, 2, 2))
    conv = draft.add("Conv", (x,), (1, 4, 2, 2), (), (Constant((4, 4, 1, 1), None, (("k", 16),)),))
    norm = draft.add("BatchNormalization", (conv,), (1, 4, 2, 2), (), (), (("s", 4), ("b", 4)))
    outputs, alive = absorb_affine(draft, [norm])
    assert (outputs, alive) == ([conv], [x, conv])
    graph = finish(draft, outputs, alive)
    assert [node.op for node in graph.nodes] == ["Input", "Conv"]
    assert graph.params == 24
    assert graph.nodes[1].attributes == (("bias", 1),)


def test_absorbing_leaves_what_two_use() -> None:
    draft = Draft()
    x = draft.input((1, 4))
    linear = draft.add("Linear", (x,), (1, 4), (), (Constant((4, 4), None, (("k", 16),)),))
    shifted = draft.add("Add", (linear,), (1, 4), (), (Constant((4,), None, (("b", 4),)),))
    outputs, _ = absorb_affine(draft, [shifted, linear])
    assert outputs == [shifted, linear]


def test_parameters_are_counted_once_and_at_their_first_user() -> None:
    draft = Draft()
    x = draft.input((1, 4))
    kernel = Constant((4, 4), None, (("k", 16),))
    first = draft.add("Linear", (x,), (1, 4), (), (kernel,))
    relu = draft.add("Relu", (first,), (1, 4))
    second = draft.add("Linear", (relu,), (1, 4), (), (kernel,))
    graph = finish(draft, [second], live(draft, [second]))
    assert [node.params for node in graph.nodes] == [0, 16, 0, 0]
    assert [node.tied for node in graph.nodes] == [-1, -1, -1, 1]
