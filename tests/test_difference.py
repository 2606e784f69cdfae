"""`diff`: the verdict is the hash's, and what is reported is what was changed."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from archgauge import Difference, GraphError, ReadError, diff, read
from archgauge.datasets import nas_bench_201
from archgauge.encoders.difference import Aspect, Change, read_pair
from archgauge.encoders.graph import ArchGraph, Node

LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


def residual(blocks: int = 6, width: int = 8) -> list[Node]:
    """A stem, blocks of conv-relu-conv-add-relu, a head."""
    shape = (1, width, 8, 8)
    pads = ("pads", (1, 1, 1, 1))
    nodes = [Node("Input", (), (1, 3, 8, 8)), Node("Conv", (0,), shape, (pads,), ((width, 3, 3, 3),))]
    for _ in range(blocks):
        start = len(nodes) - 1
        conv = Node("Conv", (start,), shape, (pads,), ((width, width, 3, 3),))
        nodes += [conv, Node("Relu", (start + 1,), shape), conv._replace(inputs=(start + 2,))]
        nodes += [Node("Add", (start, start + 3), shape), Node("Relu", (start + 4,), shape)]
    end = len(nodes) - 1
    nodes += [Node("GlobalAveragePool", (end,), (1, width, 1, 1)), Node("Reshape", (end + 1,), (1, width))]
    return [*nodes, Node("Linear", (end + 2,), (1, 10), (("bias", 1),), ((width, 10),))]


def graph(nodes: list[Node]) -> ArchGraph:
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def inserted(nodes: list[Node], position: int, op: str = "Tanh") -> list[Node]:
    """The network with an operator of one operand behind the node at `position`."""
    new = [*nodes[: position + 1], Node(op, (position,), nodes[position].shape)]
    for node in nodes[position + 1 :]:
        new.append(node._replace(inputs=tuple(i + (i >= position) for i in node.inputs)))
    return new


RESIDUAL = residual()


@st.composite
def networks(draw: st.DrawFn) -> ArchGraph:
    """A random network with branches."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    shape = (1, 4, 6, 6)
    nodes = [Node("Input", (), shape)]
    for _ in range(draw(st.integers(2, 30))):
        kind = rng.choice(["Conv", "Relu", "Sigmoid", "Add", "Mul", "Concat"])
        recent = range(max(0, len(nodes) - 4), len(nodes))
        if kind in ("Add", "Mul", "Concat"):
            nodes.append(Node(kind, (rng.choice(recent), rng.choice(recent)), shape))
        elif kind == "Conv":
            size = rng.choice([1, 3, 5])
            nodes.append(Node(kind, (rng.choice(recent),), shape, (), ((4, 4, size, size),)))
        else:
            nodes.append(Node(kind, (rng.choice(recent),), shape))
    return ArchGraph(tuple(nodes), tuple(sorted({len(nodes) - 1, *rng.sample(range(len(nodes)), 1)})))


@given(networks())
def test_a_network_does_not_differ_from_itself(one: ArchGraph) -> None:
    found = diff(one, ArchGraph.from_json(one.to_json()))
    assert found.same
    assert (found.totals, found.operators, found.changes, found.consequences, found.remarks) == ((),) * 5
    assert str(found).startswith("same: ")


@given(networks(), networks())
def test_the_verdict_is_that_of_the_hashes(one: ArchGraph, other: ArchGraph) -> None:
    found = diff(one, other)
    assert found.same == (one.hash == other.hash)
    assert bool(found.changes) != found.same
    assert found.text().splitlines()[0].startswith("same: " if found.same else "different: ")


@given(networks(), networks())
def test_every_node_is_accounted_for_once(one: ArchGraph, other: ArchGraph) -> None:
    found = diff(one, other)
    removed = [change.a for change in found.changes if change.kind == "removed"]
    added = [change.b for change in found.changes if change.kind == "added"]
    if not found.same:
        left = Counter(node.op for node in one.nodes) - Counter(one.nodes[i].op for i in removed)
        right = Counter(node.op for node in other.nodes) - Counter(other.nodes[i].op for i in added)
        renamed = [c for c in found.changes if any(aspect.name == "op" for aspect in c.aspects)]
        left -= Counter(one.nodes[c.a].op for c in renamed)
        right -= Counter(other.nodes[c.b].op for c in renamed)
        left["Add"] = right["Add"] = 0  # sums of several terms count once
        assert left == right  # the rest is in pairs
    pairs = [(c.a, c.b) for c in (*found.changes, *found.consequences) if c.kind == "changed"]
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert not {a for a, _ in pairs} & set(removed)
    assert sorted(i for region in found.regions for i in region.a) == removed
    assert sorted(i for region in found.regions for i in region.b) == added


@given(networks(), st.data())
def test_one_attribute_of_one_node_is_found_there(one: ArchGraph, data: st.DataObject) -> None:
    places = [i for i, node in enumerate(one.nodes) if node.op != "Add"]  # chains of sums count as one sum
    position = data.draw(st.sampled_from(places))
    nodes = list(one.nodes)
    nodes[position] = nodes[position]._replace(attributes=(("strange", 7),))
    found = diff(one, ArchGraph(tuple(nodes), one.outputs))
    aspects = (Aspect("attribute strange", None, 7),)
    (change,) = found.changes
    assert change.aspects == aspects
    assert change.kind == "changed"
    assert not found.consequences
    twins = [i for i, node in enumerate(one.nodes) if node == one.nodes[position]]
    assert change.a == position or (change.a in twins and change.a != change.b)


@given(networks(), st.data())
def test_changing_sides_swaps_removed_and_added(one: ArchGraph, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(one) - 2))
    nodes = list(one.nodes)
    other = ArchGraph(tuple(inserted(nodes, position, "Cosh")), tuple(i + (i > position) for i in one.outputs))
    there, back = diff(one, other), diff(other, one)
    for found, new, old in ((there, "added", "removed"), (back, "removed", "added")):
        ops = [change.op for change in found.changes if change.kind == new]
        assert sorted(ops) in (["Cosh"], ["Add", "Cosh"])  # a sum of several terms may fall in two
        assert not [change for change in found.changes if change.kind == old]
    assert there.operators == (("Cosh", 0, 1),)
    assert back.operators == (("Cosh", 1, 0),)


@given(networks(), networks())
def test_it_does_not_matter_which_network_comes_first(one: ArchGraph, other: ArchGraph) -> None:
    there, back = diff(one, other), diff(other, one)
    other_kind = {"removed": "added", "added": "removed"}

    def places(found: Difference) -> set[tuple[str, int | None, int | None]]:
        return {(change.kind, change.a, change.b) for change in (*found.changes, *found.consequences)}

    assert places(there) == {(other_kind.get(kind, kind), a, b) for kind, b, a in places(back)}
    assert len(there.changes) == len(back.changes)


@pytest.mark.parametrize("position", range(2, 28, 5))
def test_a_stride_in_the_middle_is_one_change_and_the_shapes_behind_it_follow(position: int) -> None:
    """The halved shapes go on to the global pooling, and skip connections are pooled by nobody here."""
    nodes = list(RESIDUAL)
    nodes[position] = nodes[position]._replace(attributes=(*nodes[position].attributes, ("strides", (2, 2))))
    reached = {position}
    for i, node in enumerate(nodes):
        if i in reached or reached & set(node.inputs):
            reached.add(i)
            if len(node.shape) == 4 and node.op != "GlobalAveragePool":
                nodes[i] = nodes[i]._replace(shape=(1, 8, 4, 4))
            else:
                reached.discard(i)
    found = diff(graph(RESIDUAL), graph(nodes))
    (change,) = found.changes
    assert (change.kind, change.a, change.b) == ("changed", position, position)
    assert Aspect("attribute strides", None, (2, 2)) in change.aspects
    assert {change.a for change in found.consequences} == reached - {position}


def test_a_wider_layer_is_one_change_and_what_takes_its_channels_follows() -> None:
    nodes = list(RESIDUAL)
    wide = (1, 16, 8, 8)
    nodes[2] = nodes[2]._replace(shape=wide, weights=((16, 8, 3, 3),))
    nodes[3] = nodes[3]._replace(shape=wide)
    nodes[4] = nodes[4]._replace(weights=((8, 16, 3, 3),))
    found = diff(graph(RESIDUAL), graph(nodes))
    assert [change.a for change in found.changes] == [2]
    assert [(change.a, [a.name for a in change.aspects]) for change in found.consequences] == [
        (3, ["shape"]),
        (4, ["weights"]),
    ]


def test_another_input_size_is_one_change_at_the_input() -> None:
    nodes = [node._replace(shape=(*node.shape[:2], 16, 16)) if node.shape[2:] == (8, 8) else node for node in RESIDUAL]
    found = diff(graph(RESIDUAL), graph(nodes))
    assert found.changes == (Change("changed", 0, 0, "Input", (Aspect("shape", (1, 3, 8, 8), (1, 3, 16, 16)),)),)
    assert len(found.consequences) == 31
    assert "other input sizes (1×3×8×8 and 1×3×16×16)" in found.text()


def test_two_changes_far_apart_leave_what_lies_between_them_alone() -> None:
    nodes = inserted(inserted(residual(40), 7), 170, "Sigmoid")
    found = diff(graph(residual(40)), graph(nodes))
    assert [(change.kind, change.b) for change in found.changes] == [("added", 8), ("added", 171)]
    assert {tuple(aspect.name for aspect in change.aspects) for change in found.consequences} == {("inputs",)}
    assert len(found.consequences) <= 4


@pytest.mark.parametrize("changed", [(), (3,), (3, 153)])
def test_a_removed_block_among_equal_ones_is_one_region(changed: tuple[int, ...]) -> None:
    long, short = residual(40), residual(37)
    for position in changed:
        short[position] = short[position]._replace(op="Elu")
    found = diff(graph(long), graph(short))
    assert sum(change.kind == "removed" for change in found.changes) == 15
    assert not [change for change in found.changes if change.kind == "added"]
    assert len(found.regions) == 1
    assert sum(change.kind == "changed" for change in found.changes) == len(changed)
    assert "6 × Conv" in found.text()


def test_a_rewired_operand_is_a_change_of_its_own() -> None:
    nodes = list(RESIDUAL)
    nodes[10] = nodes[10]._replace(inputs=(3, nodes[10].inputs[1]))
    found = diff(graph(RESIDUAL), graph(nodes))
    (change,) = found.changes
    assert change == Change("changed", 10, 10, "Add", (Aspect("inputs", (6, 9), (3, 9)),))


def test_another_output_is_a_change() -> None:
    one = ArchGraph(tuple(RESIDUAL), (len(RESIDUAL) - 1,))
    other = ArchGraph(tuple(RESIDUAL), (len(RESIDUAL) - 1, 6))
    (change,) = diff(one, other).changes
    assert change.kind == "outputs"


def test_a_shared_weight_is_a_change_at_the_second_layer() -> None:
    nodes = list(RESIDUAL)
    nodes[9] = nodes[9]._replace(tied=4)
    found = diff(graph(RESIDUAL), graph(nodes))
    assert found.changes == (Change("changed", 9, 9, "Conv", (Aspect("tied", None, 4),)),)
    assert any("a weight that another layer uses" in remark for remark in found.remarks)


def test_two_orders_of_one_network_are_told_as_such() -> None:
    shape = (1, 4)
    one = [Node("Input", (), shape), Node("Relu", (0,), shape), Node("Tanh", (0,), shape), Node("Add", (1, 2), shape)]
    other = [one[0], one[2], one[1], one[3]]
    found = diff(graph(one), graph(other))
    assert [change.kind for change in found.changes] == ["order"]
    assert not found.same
    assert "fault of archgauge" in found.text()


def test_parameters_are_no_difference_but_a_remark() -> None:
    nodes = [node._replace(params=5) for node in RESIDUAL]
    found = diff(graph(RESIDUAL), graph(nodes))
    assert found.same
    assert found.totals == (("params", 0, 5 * len(nodes)),)
    assert "no part of a network's identity" in found.text()


def test_an_activation_spelled_out_is_one_region_and_a_remark() -> None:
    nodes = inserted(RESIDUAL, 3, "Mul")
    nodes[3] = nodes[3]._replace(op="Sigmoid")
    nodes[4] = nodes[4]._replace(inputs=(2, 3))
    short = list(RESIDUAL)
    short[3] = short[3]._replace(op="Silu")
    found = diff(graph(nodes), graph(short))
    text = found.text()
    assert "Sigmoid" in text
    assert "Silu" in text
    assert len(found.changes) <= 3


def test_a_missing_bias_is_remarked_once_for_all_layers() -> None:
    bare = [
        node._replace(attributes=(("bias", 1), *node.attributes)) if node.op == "Conv" else node for node in RESIDUAL
    ]
    found = diff(graph(RESIDUAL), graph(bare))
    assert len(found.changes) == 13
    assert found.text().count("13 × Conv: bias none → 1") == 1
    assert any("13 layers with a bias in one network only (all lack it in A)" in remark for remark in found.remarks)


def test_the_report_is_cut_at_the_limit() -> None:
    nodes = list(RESIDUAL)
    for number, position in enumerate((3, 8, 13, 18, 23)):
        nodes[position] = nodes[position]._replace(attributes=(("alpha", float(number)),))
    found = diff(graph(RESIDUAL), graph(nodes))
    assert "… and 3 more" in found.text(limit=2)
    assert "more" not in found.text(limit=5)


def test_cells_of_one_space_differ_where_their_operators_do() -> None:
    one, other = (
        read(nas_bench_201.build(spec, "cifar10"))
        for spec in (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|",
        )
    )
    found = diff(one, other)
    assert len(found.changes) == 15  # one operator in each of 15 cells
    assert {(change.kind, change.op) for change in found.changes} == {("changed", "Conv")}


def test_five_thousand_nodes_and_a_thousand_changes() -> None:
    long, other = residual(1000), residual(998)
    for position in range(3, len(other) - 10, 10):
        other[position] = other[position]._replace(op="Silu" if other[position].op == "Relu" else other[position].op)
    found = diff(graph(long), graph(other))
    assert sum(change.kind == "removed" for change in found.changes) == 10
    assert not [change for change in found.changes if change.kind == "added"]


def test_only_graphs_are_taken() -> None:
    with pytest.raises(GraphError, match="read the network first"):
        diff(graph(RESIDUAL), "model.onnx")  # type: ignore[arg-type]


def test_the_dictionary_is_plain() -> None:
    found = diff(graph(RESIDUAL), graph(inserted(RESIDUAL, 7)))
    assert isinstance(found, Difference)
    content = found.to_dict()
    assert content["changes"][0] == {"kind": "added", "a": None, "b": 8, "op": "Tanh", "aspects": {}}
    assert content["operators"] == {"Tanh": {"a": 0, "b": 1}}


def dynamic(name: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph([helper.make_node("Relu", [name], ["y"])], "g", [value], [result]))


@pytest.mark.parametrize(
    "shapes",
    [{"left": (1, 3, 8, 8), "right": (1, 3, 8, 8)}, (1, 3, 8, 8), [(1, 3, 8, 8)]],
    ids=["names", "one", "list"],
)
def test_a_pair_takes_the_shapes_of_its_own_inputs(tmp_path: Path, shapes: object) -> None:
    files = []
    for name in ("left", "right"):
        files.append(str(tmp_path / f"{name}.onnx"))
        onnx.save_model(dynamic(name), files[-1])
    one, other = read_pair(files[0], files[1], shapes)  # type: ignore[arg-type]
    assert one == other
    with pytest.raises(ReadError, match="no input is called 'up'"):
        read_pair(files[0], files[1], {"up": (1, 3, 8, 8)})


def test_real_networks_far_apart_are_compared() -> None:
    graphs = [read(file) for file in LIGHT]
    for one in graphs[:3]:
        for other in graphs[3:6]:
            found = diff(one, other)
            assert not found.same
            assert 0 < len(found.text().splitlines()) < 60
