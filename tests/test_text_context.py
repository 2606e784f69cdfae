"""Statements of a description in context: they are those of the network, however much of it is folded."""

from collections import Counter

import pytest

from archgauge.datasets import darts, nas_bench_101, nas_bench_201, nats_bench_sss, ofa_mbv3
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.text import describe
from archgauge.encoders.text_context import FAMILIES, counted, statements
from archgauge.encoders.text_order import in_text_order

SPACES = [nas_bench_101, nas_bench_201, nats_bench_sss, ofa_mbv3, darts]


def graphs(space, count=3):
    return [read(space.build(spec, space.TASKS[0])) for spec in space.sample(count, 0)]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__.split(".")[-1])
def test_full_text_has_the_statements_and_operands_of_the_graph(space):
    for graph in graphs(space):
        nodes, _ = in_text_order(graph)
        found = statements(describe(graph, "full"))
        assert [statement.label.split(" ")[0] for statement in found] == [node.op for node in nodes]
        assert [sorted(statement.operands) for statement in found] == [sorted(node.inputs) for node in nodes]
        assert {statement.times for statement in found} == {1}


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__.split(".")[-1])
def test_folded_text_counts_what_is_carried_out(space):
    for graph in graphs(space):
        whole, folded = Counter(), Counter()
        for level, into in (("full", whole), ("compact", folded)):
            for statement in statements(describe(graph, level)):
                into[statement.label] += statement.times
        assert folded == whole
        assert counted(describe(graph))[0] == counted(describe(graph, "full"))[0]


TEXT = """archgauge 1 b2
block B1 {
  b: Relu Conv $1 k3 s2
  repeat 3 { c: Relu Conv k1 perm=(0 2 1) Add prev c }
  Add prev b
}
Input 1x3x8x8 a: Conv 16 k3
B1(32)
B1(64) x3
"odd op" "k 1"=2 mode="a b" shape=(64)
Linear 10 tied=a
out prev a
"""


def test_calls_arguments_repetition_and_names():
    found = statements(TEXT)
    assert [s.label for s in found[:4]] == ["Input", "Conv k3", "Relu", "Conv k3 s2"]
    assert [s.label for s in found[-2:]] == ['"odd op" "k 1"=2 mode="a b"', "Linear tied"]
    assert found[-2].sizes == "shape=(64)"
    assert found[-1].sizes == "10"
    body = found[2:11]  # the first call: two statements, two turns of the repetition, the sum
    assert [s.times for s in body] == [1, 1, 1, 1, 1, 2, 2, 2, 1]
    assert body[1].sizes == "32"
    assert body[4].operands == (5, 4)
    assert body[7].operands == (8, 7)
    assert body[8].operands == (9, 2)
    assert [s.times for s in found[20:29]] == [2, 2, 2, 2, 2, 4, 4, 4, 2]
    assert found[21].sizes == "64"
    assert len(found) == 2 + 3 * 9 + 2
    assert statements("archgauge 1\nInput 1x3x8x8\nBernoulli none 1x3x8x8\nAdd ^2 prev\n")[1:] == [
        ("Bernoulli", "1x3x8x8", (), 1),
        ("Add", "", (0, 1), 1),
    ]


def test_labels_of_depth_tell_what_is_before_and_after():
    one = counted("archgauge 1\nInput 1x3x8x8 a: Conv 8 Relu Sigmoid Add prev a\n")
    other = counted("archgauge 1\nInput 1x3x8x8 a: Conv 8 Sigmoid Relu Add prev a\n")
    assert len(one) == len(FAMILIES)
    assert one[0] == other[0]
    assert one[1] == other[1]
    assert one[2] != other[2]
    renamed = counted("archgauge 1\nInput 1x3x8x8 q: Conv 8 Relu Sigmoid Add prev q\n")
    assert renamed == one
    wider = counted("archgauge 1\nInput 1x3x8x8 a: Conv 16 Relu Sigmoid Add prev a\n")
    assert [a == b for a, b in zip(one, wider, strict=True)] == [True, False, True, True, True]


def test_the_hash_of_a_label_is_the_same_in_every_process():
    counts = counted("archgauge 1\nInput 1x3x8x8\n")
    assert counts[0] == {12160646898833644176: 1}
