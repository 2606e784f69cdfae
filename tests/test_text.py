"""Descriptions: round trips of made-up and real graphs, what the text says, hostile text, other levels."""

import os
import random
import re
import subprocess
import sys
import tracemalloc
from math import inf, prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import archgauge
from archgauge.datasets import (
    accel_nasbench,
    channel_bench_macro,
    darts,
    nas_bench_101,
    nas_bench_201,
    nas_bench_macro,
    nats_bench_sss,
    ofa_mbv3,
    transnas_bench_101,
)
from archgauge.datasets.onnx_builder import OnnxBuilder
from archgauge.encoders.errors import ConfigError, GraphError, LimitError, ReadError, UnreadableFileError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.onnx_reader import Limits, read
from archgauge.encoders.text import describe, is_description, parse, read_file

SPACES: dict[str, Any] = {
    "accel_nasbench": accel_nasbench,
    "channel_bench_macro/resnet": channel_bench_macro.SPACES["resnet"],
    "channel_bench_macro/mobilenet": channel_bench_macro.SPACES["mobilenet"],
    "darts": darts,
    "nas_bench_101": nas_bench_101,
    "nas_bench_201": nas_bench_201,
    "nas_bench_macro": nas_bench_macro,
    "nats_bench_sss": nats_bench_sss,
    "ofa_mbv3": ofa_mbv3,
    "transnas_bench_101/micro": transnas_bench_101.SPACES["micro"],
    "transnas_bench_101/macro": transnas_bench_101.SPACES["macro"],
}
LOSSLESS = ("full", "compact")


def check(graph: ArchGraph) -> str:
    """Both lossless levels give the graph back, parameters included; the compact text."""
    text = ""
    for level in ("full", "compact"):
        text = describe(graph, level)
        again = parse(text)
        assert again.nodes == graph.nodes
        assert again.outputs == graph.outputs
        assert again.hash == graph.hash
    return text


def sampled(space: Any, count: int, seed: int) -> list[ArchGraph]:
    return [read(space.build(spec, space.TASKS[0])) for spec in space.sample(count, seed)]


# --- made-up graphs ---------------------------------------------------------------------------------------------------

INTS = st.integers(-3, 5) | st.sampled_from([2**63 - 1, -(2**63) + 1])
FLOATS = st.floats(allow_nan=False) | st.sampled_from([inf, -inf, 0.1, -0.0, 1e-12])
STRINGS = st.text(max_size=6) | st.sampled_from(['"', "\\", "\n", "{}", "$1", "\x00", "inf", "(1 2)", "\ud800"])
VALUES = (
    INTS
    | FLOATS
    | STRINGS
    | st.lists(INTS, max_size=4).map(tuple)
    | st.lists(FLOATS, max_size=3).map(tuple)
    | st.lists(STRINGS, max_size=3).map(tuple)
)
NAME_WORDS = (
    "bias group pads strides dilations kernel_shape axis axes start end left perm body mode alpha shape w params tied "
    "dw prev none out repeat block k3 s2 x4 inf transA"
)
NAMES = st.sampled_from(re.split(" ", NAME_WORDS)) | st.text(max_size=4)
OP_WORDS = (
    "Input Zero Relu Add Mul Concat Conv ConvTranspose MaxPool AveragePool Linear Reshape Slice Select Pad Transpose "
    "LayerNormalization BatchNormalization PRelu ReduceMean Embedding Softmax Einsum Flatten B1 custom::Op"
)
OPS = st.sampled_from(re.split(" ", OP_WORDS)) | st.text(max_size=5)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
PICTURES = st.tuples(st.just(1), st.sampled_from([2, 4]), st.just(6), st.just(6))


@st.composite
def graphs(draw: st.DrawFn) -> ArchGraph:
    nodes: list[Node] = []
    for position in range(draw(st.integers(1, 9))):
        inputs = tuple(draw(st.lists(st.integers(0, position - 1), max_size=3))) if position else ()
        attributes = draw(st.dictionaries(NAMES, VALUES, max_size=3))
        if draw(st.booleans()):
            attributes |= {"bias": 1}
        nodes.append(
            Node(
                draw(OPS),
                inputs,
                draw(PICTURES | SHAPES),
                tuple(sorted(attributes.items())),
                tuple(draw(st.lists(PICTURES | SHAPES, max_size=2))),
                draw(st.integers(-1, position - 1)),
                draw(st.sampled_from([0, 0, 1, 4, 8, 77])),
            )
        )
    outputs = draw(st.lists(st.integers(0, len(nodes) - 1), max_size=3)) or [len(nodes) - 1]
    return ArchGraph(tuple(nodes), tuple(outputs))


def costs_known(graph: ArchGraph) -> bool:
    try:
        return graph.macs < 1 << 60 and all(prod(w) < 1 << 44 for n in graph.nodes for w in (n.shape, *n.weights))
    except (IndexError, TypeError, ValueError):
        return False


@given(graphs())
@settings(max_examples=200)
def test_any_graph_comes_back(graph: ArchGraph) -> None:
    assume(costs_known(graph))
    check(graph)


@given(graphs(), st.data())
@settings(max_examples=150)
def test_any_change_changes_the_text(graph: ArchGraph, data: st.DataObject) -> None:
    assume(costs_known(graph))
    position = data.draw(st.integers(0, len(graph) - 1))
    node = graph.nodes[position]
    match data.draw(st.sampled_from(["attribute", "new attribute", "shape", "weights", "op", "params", "output"])):
        case "attribute" if node.attributes:
            name = data.draw(st.sampled_from([name for name, _ in node.attributes]))
            value = data.draw(VALUES)
            changed = node._replace(attributes=tuple(sorted({**dict(node.attributes), name: value}.items())))
        case "shape":
            changed = node._replace(shape=data.draw(SHAPES))
        case "weights":
            changed = node._replace(weights=(*node.weights, data.draw(SHAPES)))
        case "op":
            changed = node._replace(op=data.draw(OPS))
        case "params":
            changed = node._replace(params=node.params + 1)
        case "output":
            other = ArchGraph(graph.nodes, (*graph.outputs, position))
            assert all(describe(graph, level) != describe(other, level) for level in ("full", "compact"))
            return
        case _:
            changed = node._replace(attributes=tuple(sorted({**dict(node.attributes), "added": 3}.items())))
    assume(repr(changed) != repr(node))
    other = ArchGraph((*graph.nodes[:position], changed, *graph.nodes[position + 1 :]), graph.outputs)
    assume(costs_known(other))
    assert all(describe(graph, level) != describe(other, level) for level in ("full", "compact"))


@given(st.lists(graphs(), min_size=2, max_size=6))
@settings(max_examples=60)
def test_different_graphs_have_different_texts(found: list[ArchGraph]) -> None:
    different = {repr(graph.nodes) + repr(graph.outputs): graph for graph in found}
    for level in ("full", "compact"):
        assert len({describe(graph, level) for graph in different.values()}) == len(different)


@given(st.lists(st.sampled_from("ABCD"), max_size=60), st.integers(0, 3))
@settings(max_examples=150)
def test_folding_repetition_loses_nothing(letters: list[str], spread: int) -> None:
    """Long sequences of few statements, with widths and references that change."""
    nodes = [Node("Input", (), (1, 4, 6, 6))]
    for step, letter in enumerate(letters):
        last = len(nodes) - 1
        before, width = nodes[-1].shape[1], 4 + 4 * (step * spread // 20)
        match letter:
            case "A":
                nodes.append(Node("Relu", (last,), nodes[-1].shape))
            case "B":
                weight = (width, before, 3, 3)
                attributes = (("bias", 1), ("pads", (1, 1, 1, 1)))
                nodes.append(Node("Conv", (last,), (1, width, 6, 6), attributes, (weight,), -1, prod(weight) + width))
            case "C":
                other = max(0, last - 1 - spread)
                shape = (1, before + nodes[other].shape[1], 6, 6)
                nodes.append(Node("Concat", (last, other), shape, (("axis", 1),)))
                nodes.append(Node("Conv", (last + 1,), (1, 4, 6, 6), (), ((4, shape[1], 1, 1),), -1, 4 * shape[1]))
            case _:
                nodes.append(Node("Softmax", (last,), nodes[-1].shape, (("axis", step // 10),)))
    check(ArchGraph(tuple(nodes), (len(nodes) - 1,)))


# --- real networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_sampled_networks_come_back(name: str) -> None:
    texts = {}
    for graph in sampled(SPACES[name], 2, 3):
        text = check(graph)
        assert "ordered" not in text.split("\n")[0]
        texts[text] = graph.hash
    assert len(texts) == len(set(texts.values()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_many_sampled_networks_come_back(name: str) -> None:
    found = {(graph.hash, repr([node.params for node in graph.nodes])): graph for graph in sampled(SPACES[name], 30, 0)}
    assert len({check(graph) for graph in found.values()}) == len(found)


def words(text: str) -> int:
    return len(re.findall(r"\d+|[A-Za-z_]+|[^\sA-Za-z_\d]", text))


@pytest.mark.parametrize(("space", "share"), [(nas_bench_201, 5), (darts, 10)])
def test_compact_is_a_fraction_of_chain_slim(space: Any, share: int) -> None:
    for graph in sampled(space, 3, 0):
        assert words(describe(graph)) * share < words(describe(graph, "chain_slim"))


def network() -> ArchGraph:
    """Two stages of two residual blocks."""
    net = OnnxBuilder("net", (3, 32, 32))
    x = net.relu(net.batch_norm(net.conv(net.input, 16, kernel=3)))
    for width in (16, 32):
        for block in range(2):
            stride = 2 if width > 16 and not block else 1
            y = net.relu(net.batch_norm(net.conv(x, width, kernel=3, stride=stride)))
            y = net.batch_norm(net.conv(y, width, kernel=3))
            short = net.batch_norm(net.conv(x, width, kernel=1, stride=stride, padding=0)) if stride > 1 else x
            x = net.relu(net.add(y, short))
    return read(net.build(net.linear(net.flatten(net.global_avg_pool(x)), 10)))


def test_text_reads_as_documented() -> None:
    graph = network()
    full, compact = describe(graph, "full"), describe(graph)
    assert full.startswith("archgauge 1 b2\nInput 1x3x32x32\nConv 16 k3 1x16x32x32\na: Relu\nConv 16 k3\n")
    assert full.endswith("GlobalAveragePool 1x32x1x1\nReshape 1x32\nLinear 10 1x10\n")
    assert "Conv a 32 k1 s2 1x32x16x16\n" in full
    assert full.count("\n") == 1 + len(graph)
    assert words(compact) < 0.8 * words(full)
    assert describe(graph, "compact") == compact


def test_published_example_is_what_describe_writes() -> None:
    page = (Path(__file__).parents[1] / "docs" / "description.md").read_text(encoding="utf-8")
    example = page.split("```")[1].strip() + "\n"
    graph = parse(example)
    assert describe(graph) == example
    assert graph.macs == 1_814_073_344
    assert [node.op for node in graph.nodes].count("Conv") == 20


def test_widths_that_change_become_arguments() -> None:
    net = OnnxBuilder("widths", (3, 32, 32))
    x = net.input
    for width in (24, 40, 64, 112):
        x = net.relu(net.batch_norm(net.conv(net.relu(net.conv(x, width, kernel=3)), width, kernel=1, padding=0)))
    graph = read(net.build(x))
    text = check(graph)
    assert "block B1 {" in text
    assert re.findall(r"B1\((\d+)\)", text) == ["24", "40", "64", "112"]


def test_people_may_write_statements_in_any_order() -> None:
    header = "archgauge 1 # two branches\n"
    one = parse(header + "x: Input 1x8x8x8\na: Conv 8 k3\nb: Conv x 8 k1\nAdd a b")
    two = parse(header + "x: Input 1x8x8x8 b: Conv x 8 a: Conv x 8 k3 p1 Add b a\nout prev")
    assert one == two
    assert one.nodes == two.nodes
    assert one.nodes[-1].op == "Add"


def test_names_mean_the_latest_statement_that_carries_them() -> None:
    graph = parse("archgauge 1\na: Input 1x4\nrepeat 2 { a: Relu a }\nConcat a ^2 ^3 ^3")
    concat = graph.nodes[-1]
    assert concat.inputs == (2, 1, 0, 0)
    assert concat.shape == (1, 16)


def test_blocks_take_numbers() -> None:
    graph = parse(
        "archgauge 1\nblock B1 { Conv $1 k$2 Relu repeat $3 { Sigmoid } }\nInput 1x3x8x8 B1(4 3 1) B1(6 1 2) x2"
    )
    assert [node.op for node in graph.nodes].count("Sigmoid") == 5
    assert [node.weights[0] for node in graph.nodes if node.weights] == [(4, 3, 3, 3), (6, 4, 1, 1), (6, 6, 1, 1)]


def test_shared_weights_and_several_outputs() -> None:
    text = "archgauge 1\na: Input 1x6\nb: Linear 6\nc: Linear 6 tied=b\nLinear 6 tied=c\nout prev b"
    graph = parse(text)
    assert [node.tied for node in graph.nodes] == [-1, -1, 1, 1]
    assert graph.params == 36 + 3 * 6
    assert graph.outputs == (3, 1)
    check(graph)


def test_unknown_operators_and_strings() -> None:
    body = "0123456789abcdef" * 4
    nodes = (
        Node("Input", (), (1, 4)),
        Node(
            "odd domain::Op{}", (0,), (2, 7), (("a b", ("x", 'y"\n')), ("body", body), ("f", -inf), ("t", ((1, 2.5),)))
        ),  # type: ignore[arg-type]
        Node("Loop", (0, 1), (3,), (("body", body), ("body_macs", 12))),
        Node("Select", (2,), (9, 9), (("index", 1),)),
    )
    check(ArchGraph(nodes, (2, 3)))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("Relu", 1, "the header"),
        ("archgauge 99\nRelu", 1, "version 1"),
        ("archgauge 1 fast\nRelu", 1, "options"),
        ("archgauge 1\nInput 1x4\nAdd prev a", 3, "the name of a statement above"),
        ("archgauge 1\nInput 1x4\nRelu ^9", 3, "among the 1 statements"),
        ("archgauge 1\nInput", 2, "the shape of the output of Input"),
        ("archgauge 1\nInput 1x4\nLinear 4 5", 3, "only once"),
        ("archgauge 1\nInput 1x4\nSoftmax axis=1 axis=1", 3, "only once"),
        ("archgauge 1\nInput 1x4\nRelu dw", 3, "only where the operator has one"),
        ("archgauge 1\nInput 1x4\nRelu 5", 3, "only where the operator has one"),
        ("archgauge 1\nInput 1x4\nrepeat 0 { Relu }", 3, "1 or more"),
        ("archgauge 1\nInput 1x4\nrepeat 3 { }", 3, "statements in the braces"),
        ("archgauge 1\nInput 1x4\nrepeat 3 { Relu", 3, "an operator"),
        ("archgauge 1\nInput 1x4\nB1(3)", 3, "defined above"),
        ("archgauge 1\nblock B1 { Relu }\nInput 1x4 B1(3)", 3, "0 numbers for B1"),
        ("archgauge 1\nInput 1x4\nRelu $1", 3, "only in a block"),
        ("archgauge 1\nInput 1x3x8x8\nConv 4 k3 g2", 3, "the weight of Conv"),
        ("archgauge 1\nInput 1x3x8x8\nConv 4 k9 p0", 3, "the shape of the output of Conv"),
        ("archgauge 1\nInput 1x4\nRelu alpha=", 3, "a number, a string"),
        ("archgauge 1\nInput 1x4\nRelu alpha=99999999999999999999", 3, "63 bits"),
        ('archgauge 1\nInput 1x4\nRelu mode="\\q"', 3, "escapes of JSON"),
        ("archgauge 1\nInput 1x4\nRelu !", 3, "an operator, a name or a number"),
        ("archgauge 1\na: Input 1x4\nRelu\nRelu a", 4, "that nothing uses"),
    ],
)
def test_errors_name_line_and_what_was_expected(text: str, line: int, message: str) -> None:
    with pytest.raises(ReadError, match=rf"line {line}: expected.*{re.escape(message)}"):
        parse(text)


@pytest.mark.parametrize(
    "body",
    [
        "Input 1x4 " + "repeat 1000 { " * 6 + "Relu" + " }" * 6,
        "".join(f"block B{i} {{ {f'B{i - 1}() x999' if i else 'Relu'} }} " for i in range(30)) + "Input 1x4 B29()",
        "a: Input 1x4 repeat 9999 { Concat " + "a " * 1000 + "}",
        "Input 1x99999999999999x9999999",
        "a: Input 1x4 repeat 1900 { Add prev a a }",
        "Input a=(" + "1 " * 40_000,
        "Input 1x4 " + "Relu " * 3000,
        "a: Input 1x4 repeat 900 { Add " + "a " * 1000 + "a: Relu }",
        'Input 1x4 repeat 1900 { Relu body="' + "x" * 100_000 + '" }',
        "Input " + "1x" * 1000 + "1 repeat 1900 { Transpose }",
    ],
)
def test_text_that_stands_for_too_much_is_refused(body: str) -> None:
    tracemalloc.start()
    with pytest.raises(LimitError):
        parse("archgauge 1\n" + body, limits=Limits(nodes=2000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


@pytest.mark.parametrize("body", ["Input 1" + "x1" * 500_000, "Relu k1" + "x1" * 500_000, "a" + "::b" * 500_000])
def test_endless_words_take_little_memory(body: str) -> None:
    text = "archgauge 1\n" + body
    tracemalloc.start()
    with pytest.raises(ReadError, match="expected"):
        parse(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20


@pytest.mark.parametrize("opening", ["repeat 2 { ", "Relu a=" + "(" * 1000, "block B1 { " * 3, '"\n', "{", "(" * 1000])
def test_unfinished_text_is_refused(opening: str) -> None:
    with pytest.raises(ReadError):
        parse("archgauge 1\nInput 1x4 " + opening * 200)


def test_long_texts_are_refused() -> None:
    with pytest.raises(LimitError, match="structure_bytes"):
        parse("archgauge 1\n" + "#" * 2000, limits=Limits(structure_bytes=1000))


INSERT_WORDS = """repeat 9999999 { | { | } | ( | ) | $1 | ^1 | ^99999 | " | "a"= | k0 | s0 | g0 | dw | 0 | -1 | 1x0x3 |
x99999 | a: | 999999999999 | k9223372036854775807 | w=(1 2 | w=() | params=3 | tied=prev | shape=() | out | block B1 { |
inf | Concat a a axis=7 | Slice axis=9 | Attention prev prev prev | MatMul prev prev | LSTM | Transpose perm=(1 0) |
Einsum prev prev equation="ij,jk->ik" | Pad pads=(1 1) | ReduceMean axes=(9) | ConvTranspose 3 k2 | Conv prev -w |
Embedding w=(3 4) | Relu none | Zero 1x2 | strides=(0 0) | pads=(-9 0 0 0) | group=0 | axis="x" | left=1"""
INSERTS = [insert.strip() for insert in INSERT_WORDS.split("|")]


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        pieces = re.split(r"(\s+)", text)
        at = chance.randrange(len(pieces))
        match chance.randrange(6):
            case 0:
                pieces[at] = chance.choice(INSERTS)
            case 1:
                del pieces[at]
            case 2:
                pieces.insert(at, f" {chance.choice(INSERTS)} ")
            case 3:
                pieces.insert(chance.randrange(len(pieces)), f" {pieces[at]} ")
            case 4:
                pieces[at] = pieces[at][:1] + chr(chance.choice([chance.randrange(32, 127), 0, 955, 0x1F600]))
            case _:
                first, second = sorted(chance.sample(range(len(pieces)), 2)) if len(pieces) > 1 else (0, 0)
                pieces = pieces[:first] + pieces[second:]
        text = "".join(pieces)
    return text


def test_mutated_text_gives_a_graph_or_our_error() -> None:
    chance = random.Random(0)
    limits = Limits(nodes=2000)
    texts = [describe(g, level) for g in (network(), *sampled(ofa_mbv3, 1, 0)) for level in ("full", "compact")]
    outcomes = {"graph": 0, "error": 0}
    for _ in range(500):
        text = mutated(chance.choice(texts), chance)
        try:
            graph = parse(text, limits)
        except ReadError:
            outcomes["error"] += 1
            continue
        outcomes["graph"] += 1
        assert parse(describe(graph), limits).nodes == graph.nodes
    assert outcomes["graph"] > 10
    assert outcomes["error"] > 100


@pytest.mark.parametrize(
    "attributes", [(("b", 1), ("a", 2)), (("a", 1), ("a", 2)), (("a", 1 << 64),), (("a", None),), (("a", True),)]
)
def test_what_cannot_be_written_is_refused(attributes: Any) -> None:
    with pytest.raises(GraphError, match="Relu"):
        describe(ArchGraph((Node("Input", (), (1,)), Node("Relu", (0,), (1,), attributes)), (1,)))


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_is_description_looks_at_the_first_line() -> None:
    assert is_description(describe(network()))
    assert is_description("\n archgauge 7 whatever\nnew things")
    assert not is_description("archgauge\n1")
    assert not is_description("model.onnx")
    assert not is_description(describe(network(), "summary"))


def test_files_with_descriptions(tmp_path: Path) -> None:
    graph = network()
    path = tmp_path / "net.txt"
    path.write_text("\ufeff" + describe(graph).replace("\n", "\r\n"), encoding="utf-8")
    assert read_file(path) == graph
    path.write_bytes(b"\x08\x07archgauge 1")
    assert read_file(path) is None
    path.write_bytes(b'archgauge 1\nInput 1x4 "\xff"')
    with pytest.raises(ReadError, match=r"net\.txt: expected UTF-8"):
        read_file(path)
    with pytest.raises(UnreadableFileError, match=r"none\.txt: cannot be read"):
        read_file(tmp_path / "none.txt")
    path.write_text(describe(graph))
    with pytest.raises(LimitError, match="more than 100 bytes"):
        read_file(path, Limits(structure_bytes=100))


def test_read_takes_files_with_descriptions(tmp_path: Path) -> None:
    """By what they begin with, not by their names; other files go to the ONNX reader."""
    graph = network()
    path = tmp_path / "net.onnx"
    for start in ("", "\ufeff", "\n  "):
        path.write_text(start + describe(graph), encoding="utf-8")
        assert archgauge.read(path) == archgauge.read(str(path)) == graph
    path.write_text("archgauge 1\nInput 1x4 " + "Relu " * 9)
    with pytest.raises(LimitError, match="nodes"):
        archgauge.read(path, limits=Limits(nodes=5))
    path.write_text("no header\n" + describe(graph))
    with pytest.raises(ReadError, match="ONNX"):
        archgauge.read(path)
    with pytest.raises(UnreadableFileError, match=r"none\.onnx.*No such file"):
        archgauge.read(tmp_path / "none.onnx")
    with pytest.raises(UnreadableFileError):
        archgauge.read(tmp_path)
    assert archgauge.parse(archgauge.describe(graph)) == graph


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_pipes_are_left_to_the_onnx_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "pipe") is None  # opening it would wait for a writer


def test_text_is_the_same_in_every_process() -> None:
    """Python's hashes of strings differ between processes; the text must not."""
    program = (
        "from archgauge.datasets import darts\nfrom archgauge.encoders.onnx_reader import read\n"
        "from archgauge.encoders.text import describe\n"
        "print(describe(read(darts.build(darts.sample(1, 0)[0], 'cifar10'))))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_graphs_without_nodes_and_without_outputs() -> None:
    check(ArchGraph((), ()))
    check(ArchGraph((Node("Input", (), (2, 3)),), ()))


def test_summary_names_stages_and_costs() -> None:
    graph = network()
    lines = describe(graph, "summary").splitlines()
    assert lines[0] == "archgauge summary: input 1x3x32x32, output 1x10"
    assert f"{graph.params:,} parameters, {graph.macs:,} multiply-accumulates" in lines[1]
    assert [line.split(":")[0] for line in lines[2:]] == ["32x32", "16x16", "vector"]
    assert "5 Conv 3" in lines[2]
    shares = [float(found) for found in re.findall(r"([\d.]+) % of", "\n".join(lines))]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def chain(*ops: tuple[str, int]) -> ArchGraph:
    """An Input, then a pool or a rectifier of the node given."""
    nodes = [Node("Input", (), (1, 4, 8, 8))]
    for op, operand in ops:
        pool = (("kernel_shape", (3, 3)), ("pads", (1, 1, 1, 1))) if op == "MaxPool" else ()
        nodes.append(Node(op, (operand,), (1, 4, 8, 8), pool))
    return ArchGraph(tuple(nodes), (len(nodes) - 1, len(nodes) - 2))


def test_chain_slim_has_the_defects_of_onnx_net() -> None:
    """Two wirings, one text; a slope that changes nothing. Ours tells them apart."""
    one = chain(("Relu", 0), ("Sigmoid", 1), ("Tanh", 2), ("MaxPool", 1))
    two = chain(("Relu", 0), ("Sigmoid", 1), ("Tanh", 2), ("MaxPool", 2))
    assert one != two
    assert describe(one, "chain_slim") == describe(two, "chain_slim")
    assert describe(one) != describe(two)
    assert "MaxPool()(kernel_shape=3,pads=1)" in describe(one, "chain_slim")
    slopes = [
        ArchGraph((Node("Input", (), (1, 4)), Node("LeakyRelu", (0,), (1, 4), (("alpha", a),))), (1,))
        for a in (0.1, 0.2)
    ]
    assert describe(slopes[0], "chain_slim") == describe(slopes[1], "chain_slim")
    assert describe(slopes[0]) != describe(slopes[1])


def test_unknown_level() -> None:
    with pytest.raises(ConfigError, match="choose one of full, compact, summary, chain_slim"):
        describe(network(), "tiny")  # type: ignore[arg-type]
