"""Reshapes and transposes: other operators pass through them, and what is computed stays the same."""

from __future__ import annotations

from math import erf, prod

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_reader import read

Shape = tuple[int, ...]


class Program:
    """A network without weights, written operator by operator."""

    def __init__(self, shape: Shape) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.values: list[tuple[str, Shape]] = [("x", shape)]
        self.input = shape

    def number(self, value: object, dtype: type = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, operands: list[str], shape: Shape, **attributes: object) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, operands, [name], **attributes))  # type: ignore[arg-type]
        self.values.append((name, shape))

    def model(self) -> onnx.ModelProto:
        last = self.values[-1]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input)],
            [helper.make_tensor_value_info(last[0], TensorProto.FLOAT, last[1])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Layout operators mixed with operators on elements and along axes; later ones may use any earlier value."""
    program = Program((1, *draw(st.lists(st.integers(1, 4), max_size=4))))
    for _ in range(draw(st.integers(1, 12))):
        name, shape = draw(st.sampled_from(program.values[-3:]))
        rank = len(shape)
        kind = draw(
            st.sampled_from(["reshape", "transpose", "each", "axis", "reduce", "slice", "concat", "two", "pad"])
        )
        axis = draw(st.integers(0, rank - 1)) if rank else 0
        if not rank:
            kind = "each"
        if kind == "reshape":
            target: list[int] = []
            for size in shape:
                divisor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
                target += [divisor, size // divisor]
            merged = [target[0]]
            for size in target[1:]:
                if draw(st.booleans()):
                    merged[-1] *= size
                else:
                    merged.append(size)
            program.add("Reshape", [name, program.number(merged)], tuple(merged))
        elif kind == "transpose":
            perm = draw(st.permutations(range(rank)))
            program.add("Transpose", [name], tuple(shape[p] for p in perm), perm=list(perm))
        elif kind == "each":
            op = draw(st.sampled_from(["Relu", "Sigmoid", "Neg", "Erf"]))
            program.add(op, [name], shape)
        elif kind == "axis":
            program.add("Softmax", [name], shape, axis=axis)
        elif kind == "reduce":
            axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
            keep = draw(st.booleans())
            left = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
            program.add("ReduceMean", [name, program.number(axes)], left, keepdims=int(keep))
        elif kind == "slice":
            start = draw(st.integers(0, shape[axis] - 1))
            end = draw(st.integers(start + 1, shape[axis]))
            cut = (*shape[:axis], end - start, *shape[axis + 1 :])
            program.add("Slice", [name, *[program.number([n]) for n in (start, end, axis)]], cut)
        elif kind == "concat":
            others = [v for v in program.values if v[1][:axis] + v[1][axis + 1 :] == shape[:axis] + shape[axis + 1 :]]
            others = [v for v in others if len(v[1]) == rank]
            other = draw(st.sampled_from(others))
            whole = (*shape[:axis], shape[axis] + other[1][axis], *shape[axis + 1 :])
            program.add("Concat", [name, other[0]], whole, axis=axis)
        elif kind == "two":
            fitting = [v for v in program.values if v[1] == shape or (v[1] and set(v[1]) == {1} and len(v[1]) <= rank)]
            op = draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
            program.add(op, [name, draw(st.sampled_from(fitting))[0]], shape)
        else:
            around = [0] * (2 * rank)
            around[axis] = draw(st.integers(0, 1))
            around[axis + rank] = draw(st.integers(0, 1))
            wide = tuple(n + around[i] + around[i + rank] for i, n in enumerate(shape))
            program.add("Pad", [name, program.number(around)], wide)
        if prod(program.values[-1][1]) > 4096:
            break
    return program


def run(graph: ArchGraph, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a canonical graph of operators without weights computes, by its published meaning alone."""
    values: list[NDArray[np.float64]] = []
    for node in graph.nodes:
        given = [values[i] for i in node.inputs]
        a = given[0] if given else x
        attribute = node.attribute
        match node.op:
            case "Input":
                result = x
            case "Reshape":
                result = a.reshape(node.shape)
            case "Transpose":
                result = a.transpose(attribute("perm"))
            case "Relu":
                result = np.maximum(a, 0)
            case "Sigmoid":
                result = 1 / (1 + np.exp(-a))
            case "Silu":
                result = a / (1 + np.exp(-a))
            case "Neg":
                result = -a
            case "Erf":
                result = np.vectorize(erf, otypes=[float])(a) if a.size else a
            case "Softmax":
                shifted = np.exp(a - a.max(axis=attribute("axis", -1), keepdims=True))
                result = shifted / shifted.sum(axis=attribute("axis", -1), keepdims=True)
            case "ReduceMean":
                result = a.mean(axis=attribute("axes"), keepdims=True)
            case "GlobalAveragePool":
                result = a.mean(axis=tuple(range(2, a.ndim)), keepdims=True)
            case "Slice":
                index = [slice(None)] * a.ndim
                index[attribute("axis")] = slice(attribute("start"), attribute("end"))
                result = a[tuple(index)]
            case "Concat":
                result = np.concatenate(given, axis=attribute("axis"))
            case "Add" | "Sub" | "Mul" | "Max":
                result = given[0]
                for other in given[1:]:
                    functions = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum}
                    result = functions[node.op](result, other)
            case "Pad":
                pads = attribute("pads")
                result = np.pad(a, [(pads[i], pads[i + a.ndim]) for i in range(a.ndim)])
            case _:
                raise AssertionError(f"{node.op} is not expected here")
        assert result.shape == node.shape, node
        values.append(result)
    return values[graph.outputs[0]]


@given(programs())
@settings(max_examples=400, deadline=None)
def test_the_canonical_graph_computes_what_the_file_computes(program: Program) -> None:
    if not program.nodes:
        return
    model = program.model()
    x = np.random.default_rng(0).normal(size=program.input)
    expected = ReferenceEvaluator(model).run(None, {"x": x.astype(np.float32)})[0]
    found = run(read(model, input_shapes={"x": program.input}), x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)


def text(body: str, inputs: str, weights: dict[str, Shape] | None = None) -> ArchGraph:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => (float[] y) {{ {body} }}'
    )
    for name, shape in (weights or {}).items():
        tensor = model.graph.initializer.add(name=name, dims=shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    return read(model)


TOKENS = "float[1,6,8] x"
FLAT = "s = Constant<value_ints=[6,8]>() f = Reshape(x, s) "
BACK = " t = Constant<value_ints=[1,6,-1]>() y = Reshape(z, t)"


@pytest.mark.parametrize(
    ("operator", "weights"),
    [
        ("Relu({})", {}),
        ("Softmax<axis=-1>({})", {}),
        ("MatMul({}, w)", {"w": (8, 5)}),
        ("Gemm({}, w, b)", {"w": (8, 5), "b": (5,)}),
        ("Add({}, d)", {"d": (8,)}),
        ("LayerNormalization({}, d, e)", {"d": (8,), "e": (8,)}),
        ("LeakyRelu<alpha=0.3>({})", {}),
    ],
)
def test_flattening_around_an_operator_on_tokens(operator: str, weights: dict[str, Shape]) -> None:
    around = text(FLAT + "z = " + operator.format("f") + BACK, TOKENS, weights)
    plain = operator.replace("Gemm({}, w, b)", "MatMul({}, w)")
    tail = "" if plain == operator else " y = Add(z, b)"
    assert around == text(("z = " if tail else "y = ") + plain.format("x") + tail, TOKENS, weights)


CHANNELS_LAST = "l = Transpose<perm=[0,2,3,1]>(x) "
CHANNELS_FIRST = " y = Transpose<perm=[0,3,1,2]>(z)"


@pytest.mark.parametrize(
    ("last", "first", "weights"),
    [
        ("z = Relu(l)", "y = Relu(x)", {}),
        ("z = Add(l, l)", "y = Add(x, x)", {}),
        ("z = Concat<axis=3>(l, l)", "y = Concat<axis=1>(x, x)", {}),
        ("z = Softmax<axis=3>(l)", "y = Softmax<axis=1>(x)", {}),
        ("r = Sigmoid(l) z = Mul(r, l)", "r = Sigmoid(x) y = Mul(r, x)", {}),
        ("a = Constant<value_ints=[1,2]>() z = ReduceMean(l, a)", "y = GlobalAveragePool(x)", {}),
        ("z = Add(l, d)", "y = Add(x, e)", {"d": (4,), "e": (4, 1, 1)}),
        (
            "p = Constant<value_ints=[0,1,1,0,0,1,1,0]>() z = Pad(l, p)",
            "p = Constant<value_ints=[0,0,1,1,0,0,1,1]>() y = Pad(x, p)",
            {},
        ),
        (
            "a = Constant<value_ints=[1,2]>() m = ReduceMean(l, a) s = Sigmoid(m) z = Mul(l, s)",
            "m = GlobalAveragePool(x) s = Sigmoid(m) y = Mul(x, s)",
            {},
        ),
    ],
)
def test_channels_last_between_transposes(last: str, first: str, weights: dict[str, Shape]) -> None:
    used_last = {k: v for k, v in weights.items() if k == "d"}
    used_first = {k: v for k, v in weights.items() if k == "e"}
    found = text(CHANNELS_LAST + last + CHANNELS_FIRST, "float[1,4,6,5] x", used_last)
    assert found == text(first, "float[1,4,6,5] x", used_first)


def test_a_pad_before_the_transpose_is_the_convolutions() -> None:
    weights = {"k": (7, 4, 3, 3)}
    padded = text(
        "p = Constant<value_ints=[0,1,1,0,0,1,1,0]>() q = Pad(x, p) t = Transpose<perm=[0,3,1,2]>(q) y = Conv(t, k)",
        "float[1,6,5,4] x",
        weights,
    )
    assert padded == text(
        "t = Transpose<perm=[0,3,1,2]>(x) y = Conv<pads=[1,1,1,1]>(t, k)", "float[1,6,5,4] x", weights
    )


def test_a_transpose_that_mixes_what_a_reshape_merged_stays() -> None:
    body = "s = Constant<value_ints=[1,6,2,4]>() r = Reshape(x, s) t = Transpose<perm=[0,2,1,3]>(r) y = Relu(t)"
    assert [node.op for node in text(body, TOKENS).nodes] == ["Input", "Relu", "Reshape", "Transpose"]


def test_parts_that_are_cut_and_joined_again_are_the_whole() -> None:
    cut = "a, b = Split<axis=2, num_outputs=2>(x) "
    assert text(cut + "c = Concat<axis=2>(a, b) y = Relu(c)", TOKENS) == text("y = Relu(x)", TOKENS)
    swapped = text(cut + "c = Concat<axis=2>(b, a) y = Relu(c)", TOKENS)
    assert swapped != text("y = Relu(x)", TOKENS)
    inner = "r = Relu(x) c = Concat<axis=2>(x, r) d = Concat<axis=2>(c, x) y = Neg(d)"
    assert text(inner, TOKENS) == text("r = Relu(x) d = Concat<axis=2>(x, r, x) y = Neg(d)", TOKENS)
