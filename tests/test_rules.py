"""Every rule: what an operator or idiom becomes, that spellings agree, and that look-alikes are left alone."""

import re
from collections import Counter
from math import prod

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from archgauge.encoders.errors import ReadError
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.onnx_reader import read

IMAGE = "float[N,4,8,8] x"
SEQUENCE = "float[N,6,8] x"
WEIGHTS = {"k": (4, 4, 3, 3), "c": (4,), "c1": (4, 1, 1), "d": (8,), "w": (8, 8), "b": (8,), "e": (1,)}


def model(
    body: str, *, inputs: str = IMAGE, opset: int = 20, weights: dict[str, tuple[int, ...]] | None = None
) -> onnx.ModelProto:
    """A weightless model of `body` in ONNX text with the output `y`; names of WEIGHTS that it only uses are stored.

    `{2}` stands for a stored number, `[1, 2]` among the operands for a stored list of integers.
    """
    constants: list[TensorProto] = []

    def stored(match: re.Match[str]) -> str:
        text = match.group(1)
        value = (
            np.asarray(float(text), np.float32) if match.group(0)[0] == "{" else np.asarray(integers(text), np.int64)
        )
        constants.append(numpy_helper.from_array(value, f"n{len(constants)}"))
        return constants[-1].name

    body = re.sub(r"\{([^}]*)\}", stored, body)
    body = re.sub(r"(?<=[(, ])\[([-\d, ]*)\](?=[,)])", stored, body)
    result = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}, "acme": 1]> g ({inputs}) => (float[] y) {{ {body} }}'
    )
    result.graph.initializer.extend(constants)
    computed = {name for names in re.findall(r"(?:^|\) )((?:\w+, )*\w+) =", body) for name in names.split(", ")}
    names = set(re.findall(r"\w+", body)) - computed - set(re.findall(r"\] (\w+)", inputs))
    for name, shape in {**WEIGHTS, **(weights or {})}.items():
        if name in names:
            tensor = result.graph.initializer.add(name=name, dims=shape, data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")
    return result


def integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def graph(body: str, **options: object) -> ArchGraph:
    return read(model(body, **options))  # type: ignore[arg-type]


def ops(found: ArchGraph) -> list[str]:
    return [node.op for node in found.nodes if node.op != "Input"]


# --- activations ---------------------------------------------------------------------------------------------------

SPELLINGS = {
    "Silu": ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)"],
    "QuickGelu": [
        "t = Mul(x, {1.702}) s = Sigmoid(t) y = Mul(x, s)",
        "t = Mul({1.702}, x) s = Sigmoid(t) y = Mul(s, x)",
    ],
    "HardSigmoid": [
        "y = HardSigmoid<alpha=0.16666667>(x)",
        "y = HardSigmoid(x)",
        "a = Add(x, {3}) c = Clip(a, {0}, {6}) y = Div(c, {6})",
        "a = Add({3}, x) c = Clip(a, {0}, {6}) y = Mul(c, {0.16666667})",
    ],
    "HardSwish": [
        "y = HardSwish(x)",
        "h = HardSigmoid(x) y = Mul(x, h)",
        "a = Add(x, {3}) c = Clip(a, {0}, {6}) m = Mul(x, c) y = Div(m, {6})",
        "a = Add(x, {3}) c = Clip(a, {0}, {6}) m = Mul(c, x) y = Mul({0.16666667}, m)",
        "a = Add(x, {3}) c = Clip(a, {0}, {6}) m = Div(c, {6}) y = Mul(x, m)",
    ],
    "Mish": ["y = Mish(x)", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)", "s = Softplus(x) t = Tanh(s) y = Mul(t, x)"],
    "Gelu": [
        "y = Gelu(x)",
        "d = Div(x, {1.4142135}) e = Erf(d) a = Add(e, {1}) m = Mul(x, a) y = Mul(m, {0.5})",
        "d = Mul(x, {0.70710677}) e = Erf(d) a = Add({1}, e) h = Mul({0.5}, x) y = Mul(h, a)",
        "d = Mul({0.70710677}, x) e = Erf(d) a = Add(e, {1}) h = Mul(a, {0.5}) y = Mul(x, h)",
        "d = Div(x, {1.4142135}) e = Erf(d) a = Add(e, {1}) h = Div(x, {2}) y = Mul(a, h)",
    ],
    "Relu": ["y = Relu(x)", "y = Clip(x, {0})", "y = Clip(x, {0}, {3e38})"],
    "Relu6": ["y = Clip(x, {0}, {6})"],
    "Sqrt": ["y = Sqrt(x)", "y = Pow(x, {0.5})"],
    "Mul": ["y = Mul(x, x)", "y = Pow(x, {2})"],
    "Reciprocal": ["y = Reciprocal(x)", "y = Div({1}, x)"],
}
CASES = [(op, body) for op, bodies in SPELLINGS.items() for body in bodies]


@pytest.mark.parametrize(("op", "body"), CASES)
def test_spellings_of_activations(op: str, body: str) -> None:
    found = graph(body)
    assert ops(found) == [op]
    assert found == graph(SPELLINGS[op][0])


TANH_GELU = [
    "y = Gelu<approximate='tanh'>(x)",
    "p = Pow(x, {3}) q = Mul(p, {0.044715}) r = Add(x, q) s = Mul(r, {0.7978846}) t = Tanh(s) u = Add(t, {1}) "
    "h = Mul(x, {0.5}) y = Mul(h, u)",
    "a = Mul(x, x) p = Mul(a, x) q = Mul({0.044715}, p) r = Add(q, x) s = Mul({0.7978846}, r) t = Tanh(s) "
    "u = Add({1}, t) h = Mul({0.5}, u) y = Mul(h, x)",
]


@pytest.mark.parametrize("body", TANH_GELU)
def test_gelu_by_tanh(body: str) -> None:
    found = graph(body.replace("'", '"'))
    assert ops(found) == ["Gelu"]
    assert found.nodes[-1].attributes == (("approximate", "tanh"),)


@pytest.mark.parametrize(
    "body",
    [
        "z = Relu(x) s = Sigmoid(z) y = Mul(x, s)",
        "t = Mul(x, {3}) s = Sigmoid(t) y = Mul(x, s)",
        "a = Add(x, {2}) c = Clip(a, {0}, {6}) m = Mul(x, c) y = Div(m, {6})",
        "a = Add(x, {3}) c = Clip(a, {0}, {6}) m = Mul(x, c) y = Div(m, {5})",
        "d = Div(x, {1.4142135}) e = Erf(d) a = Add(e, {2}) m = Mul(x, a) y = Mul(m, {0.5})",
        "d = Div(x, {9}) e = Erf(d) a = Add(e, {1}) m = Mul(x, a) y = Mul(m, {0.5})",
        "r = Relu(x) s = Softplus(r) t = Tanh(s) y = Mul(x, t)",
    ],
)
def test_look_alikes_of_activations_are_left_alone(body: str) -> None:
    assert not {"Silu", "QuickGelu", "HardSwish", "HardSigmoid", "Gelu", "Mish"} & set(ops(graph(body)))


def test_a_part_of_an_idiom_that_is_used_elsewhere_stays() -> None:
    assert Counter(ops(graph("s = Sigmoid(x) m = Mul(x, s) y = Concat<axis=1>(m, s)"))) == {
        "Sigmoid": 1,
        "Silu": 1,
        "Concat": 1,
    }


def test_clip_keeps_its_bounds_and_no_bounds_are_no_operator() -> None:
    assert graph("y = Clip(x, {-1}, {1})").nodes[-1].attributes == (("max", 1.0), ("min", -1.0))
    assert graph("y = Clip(x, {-1}, {1})") == graph("y = Clip<min = -1.0, max = 1.0>(x)", opset=10)
    assert ops(graph("r = Relu(x) y = Clip(r)")) == ["Relu"]


def test_old_swish_and_new() -> None:
    assert graph("y = Swish(x)", opset=24) == graph("s = Sigmoid(x) y = Mul(x, s)")


# --- what does nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "a = Identity(x) y = Relu(a)",
        "a = Dropout(x) y = Relu(a)",
        "a, mask = Dropout(x) y = Relu(a)",
        "a = Cast<to=10>(x) b = Relu(a) y = Cast<to=1>(b)",
        "a = Mul(x, {1}) y = Relu(a)",
        "a = Add(x, {0}) y = Relu(a)",
        "a = Sub(x, {0}) y = Relu(a)",
        "a = Div(x, {1}) y = Relu(a)",
        "a = Pow(x, {1}) y = Relu(a)",
        "a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,3,1,2]>(a) y = Relu(b)",
        "a = Reshape(x, [0, -1]) b = Reshape(a, [1, 4, 8, 8]) y = Relu(b)",
        "a = Unsqueeze(x, [0]) b = Squeeze(a, [0]) y = Relu(b)",
        "a = Pad(x, [0, 0, 0, 0, 0, 0, 0, 0]) y = Relu(a)",
        "a = Concat<axis=1>(x) y = Relu(a)",
        "a = Expand(x, [1, 4, 8, 8]) y = Relu(a)",
        "a = Tile(x, [1, 1, 1, 1]) y = Relu(a)",
        "a = Slice(x, [0], [99], [1]) y = Relu(a)",
        "n = IsNaN(x) a = Where(n, {0}, x) y = Relu(a)",
        "u = Sigmoid(x) y = Relu(x)",
        "a = Resize(x, , , [1, 4, 8, 8]) y = Relu(a)",
        "a = Gather<axis=1>(x, [0, 1, 2, 3]) y = Relu(a)",
        "s = Shape(x) a = Reshape(x, s) y = Relu(a)",
    ],
)
def test_operators_that_do_nothing(body: str) -> None:
    assert graph(body) == graph("y = Relu(x)")


# --- linear operators ---------------------------------------------------------------------------------------------


def test_batch_norm_is_absorbed_and_counted() -> None:
    plain = graph("y = Conv<pads=[1,1,1,1]>(x, k)")
    folded = graph("y = Conv<pads=[1,1,1,1]>(x, k, c)")
    kept = graph(
        "a = Conv<pads=[1,1,1,1]>(x, k) y = BatchNormalization(a, c, g, m, v)", weights=dict.fromkeys("gmv", (4,))
    )
    assert kept == folded != plain
    assert (plain.params, folded.params, kept.params) == (144, 148, 152)
    assert ops(kept) == ["Conv"]


def test_batch_norm_behind_two_consumers_stays() -> None:
    body = "a = Conv<pads=[1,1,1,1]>(x, k) n = BatchNormalization(a, c, g, m, v) r = Relu(a) y = Add(n, r)"
    assert "BatchNormalization" in ops(graph(body, weights=dict.fromkeys("gmv", (4,))))


def test_batch_norm_on_its_own_stays_and_absorbs_the_next() -> None:
    weights = dict.fromkeys("gmv", (4,))
    once = graph("r = Relu(x) y = BatchNormalization(r, c, g, m, v)", weights=weights)
    assert ops(once) == ["Relu", "BatchNormalization"]
    caffe = graph("r = Relu(x) a = BatchNormalization(r, c, g, m, v) b = Mul(a, c1) y = Add(b, c1)", weights=weights)
    assert caffe == once
    assert caffe.params == 8 + 4
    assert graph("r = Relu(x) a = Mul(r, c1) y = Add(a, h)", weights={"h": (4, 1, 1)}) == once


@pytest.mark.parametrize(
    "tail", ["y = Mul(a, c1)", "y = Add(a, c1)", "y = Mul(a, {2})", "b = Mul(a, c1) y = Add(c1, b)"]
)
def test_channel_wise_affine_is_absorbed(tail: str) -> None:
    assert ops(graph(f"a = Conv<pads=[1,1,1,1]>(x, k) {tail}")) == ["Conv"]


def test_norms_of_untrained_networks_that_were_folded_without_a_trace() -> None:
    def deep(tail: str, last: str = "Relu(x8)", weights: str = "") -> ArchGraph:
        layer = "f{0} = Conv<pads=[1,1,1,1]>(x{0}, k) " + tail + " x{1} = Relu(n{0}) "
        layers = "".join(layer.format(i, i + 1) for i in range(8))
        return graph(f"x0 = Relu(x) {layers} y = {last}", weights=dict.fromkeys(weights, (4,)))

    folded, normed = deep("n{0} = Identity(f{0})"), deep("n{0} = BatchNormalization(f{0}, c, g, m, v)", weights="gmv")
    assert folded == normed
    assert folded.params < normed.params
    shallow = graph(
        "f = Conv<pads=[1,1,1,1]>(x, k) y = BatchNormalization(f, c, g, m, v)", weights=dict.fromkeys("gmv", (4,))
    )
    assert shallow != graph("y = Conv<pads=[1,1,1,1]>(x, k)")  # too few to tell
    other = deep("n{0} = Identity(f{0})", last="InstanceNormalization(x8, c, g)", weights="g")
    assert not any(node.attribute("bias") for node in other.nodes if node.op == "Conv")


def test_affine_over_another_axis_is_not_absorbed() -> None:
    assert ops(graph("a = Conv<pads=[1,1,1,1]>(x, k) y = Mul(a, d)")) == ["Conv", "Mul"]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op", ["Conv<strides=[2,2], {}>(x, k)", "MaxPool<kernel_shape=[3,3], strides=[2,2], {}>(x)"])
def test_same_padding_is_made_explicit(op: str, auto_pad: str) -> None:
    pads = "0,0,1,1" if auto_pad == "SAME_UPPER" else "1,1,0,0"
    named = graph("y = " + op.format(f'auto_pad="{auto_pad}"'))
    assert named == graph("y = " + op.format(f"pads=[{pads}]"))
    assert ("pads", tuple(integers(pads))) in named.nodes[-1].attributes


def test_valid_padding_is_none() -> None:
    assert (
        graph('y = Conv<auto_pad="VALID">(x, k)') == graph("y = Conv(x, k)") == graph("y = Conv<pads=[0,0,0,0]>(x, k)")
    )


@pytest.mark.parametrize("opset", [10, 11, 20])
def test_pad_is_merged_into_the_convolution(opset: int) -> None:
    pad = "p = Pad(x, [0,0,1,0,0,0,1,2])" if opset > 10 else "p = Pad<pads=[0,0,1,0,0,0,1,2]>(x)"
    assert graph(f"{pad} y = Conv<pads=[0,1,0,0]>(p, k)", opset=opset) == graph("y = Conv<pads=[1,1,1,2]>(x, k)")


@pytest.mark.parametrize(
    "pad",
    [
        "Pad(x, [0,1,0,0,0,1,0,0])",
        'Pad<mode="reflect">(x, [0,0,1,1,0,0,1,1])',
        "Pad(x, [0,0,1,1,0,0,1,1], {1})",
    ],
)
def test_other_pads_stay(pad: str) -> None:
    kernel = (4, 6, 3, 3) if "[0,1" in pad else (4, 4, 3, 3)
    assert ops(graph(f"p = {pad} y = Conv(p, q)", weights={"q": kernel})) == ["Pad", "Conv"]


def test_pad_with_axes_is_pad_of_all() -> None:
    assert graph("y = Pad(x, [1, 2], , [2])") == graph("y = Pad(x, [0,0,1,0,0,0,2,0])")


def test_pad_before_pools() -> None:
    inside = graph("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)")
    assert graph("p = Pad(x, [0,0,1,1,0,0,1,1]) y = AveragePool<kernel_shape=[3,3]>(p)") == inside
    assert inside != graph("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)")
    low = "p = Pad(x, [0,0,1,1,0,0,1,1], {-inf}) y = MaxPool<kernel_shape=[3,3]>(p)"
    assert graph(low) == graph("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)")
    assert ops(graph("p = Pad(x, [0,0,1,1,0,0,1,1]) y = MaxPool<kernel_shape=[3,3]>(p)")) == ["Pad", "MaxPool"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm(f, w, b)",
        "y = Gemm<transB=1>(f, w, b)",
        "a = MatMul(f, w) y = Add(a, b)",
        "a = MatMul(f, w) y = Add(b, a)",
        "t = Transpose<perm=[1,0]>(w) a = MatMul(f, t) y = Add(a, b)",
    ],
)
def test_linear_layers(body: str) -> None:
    found = graph(body, inputs="float[N,8] f")
    assert ops(found) == ["Linear"]
    assert found == graph("y = Gemm(f, w, b)", inputs="float[N,8] f")
    assert (found.params, found.macs) == (72, 64)


def test_linear_layer_without_bias() -> None:
    one = graph("y = Gemm(f, w)", inputs="float[N,8] f")
    assert (
        one == graph("y = MatMul(f, w)", inputs="float[N,8] f") == graph("y = Gemm(f, w, {0})", inputs="float[N,8] f")
    )
    assert one != graph("y = Gemm(f, w, b)", inputs="float[N,8] f")


def test_products_of_signals_keep_their_transposes() -> None:
    inputs = "float[3,5] f, float[4,5] h"
    assert graph("y = Gemm<transB=1>(f, h)", inputs=inputs) == graph("t = Transpose(h) y = MatMul(f, t)", inputs=inputs)
    assert graph("y = Gemm<transB=1>(f, h)", inputs=inputs).macs == 60


def test_matrix_on_the_left() -> None:
    found = graph("y = MatMul(q, x)", inputs=SEQUENCE, weights={"q": (5, 6)})
    assert found.nodes[-1].attribute("left") == 1
    assert found.macs == 5 * 6 * 8


def test_flattening_around_a_linear_layer() -> None:
    plain = graph("a = MatMul(x, w) y = Add(a, b)", inputs=SEQUENCE)
    assert plain == graph("f = Reshape(x, [6, 8]) g = Gemm(f, w, b) y = Reshape(g, [1, 6, 8])", inputs=SEQUENCE)
    assert plain == graph(
        "f = Reshape(x, [6, 8]) m = MatMul(f, w) a = Add(m, b) y = Reshape(a, [1, 6, 8])", inputs=SEQUENCE
    )


def test_einsum_is_a_product() -> None:
    inputs = "float[1,2,6,8] q, float[1,2,6,8] k"
    product = graph("t = Transpose<perm=[0,1,3,2]>(k) y = MatMul(q, t)", inputs=inputs)
    assert graph('y = Einsum<equation="bhid,bhjd->bhij">(q, k)', inputs=inputs) == product
    assert product.macs == 2 * 6 * 6 * 8
    linear = graph('y = Einsum<equation="bld,de->ble">(x, w)', inputs=SEQUENCE)
    assert linear == graph("y = MatMul(x, w)", inputs=SEQUENCE)
    assert ops(graph('y = Einsum<equation="bii->bi">(x)', inputs="float[N,6,6] x")) == ["Einsum"]


def test_groups_and_transposed_convolutions() -> None:
    deep = graph("y = Conv<group=4>(x, q)", weights={"q": (8, 1, 3, 3)})
    assert (deep.params, deep.macs) == (72, 8 * 36 * 9)
    up = graph(
        "y = ConvTranspose<strides=[2,2], output_padding=[1,1], pads=[1,1,1,1]>(x, q)", weights={"q": (4, 6, 3, 3)}
    )
    assert up.nodes[-1].shape == (1, 6, 16, 16)
    assert up.macs == 4 * 64 * 6 * 9
    with pytest.raises(ReadError, match=r"node 'y'.*does not fit"):
        graph("y = Conv<group=2>(x, q)", weights={"q": (4, 5, 3, 3)})


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_cells(op: str, gates: int) -> None:
    weights = {"i": (1, gates * 5, 4), "h": (1, gates * 5, 5), "o": (1, 2 * gates * 5)}
    body = f"s, l = {op}<hidden_size=5>(x, i, h, o) y = Squeeze(s, [1])"
    found = graph(body, inputs="float[7,1,4] x", weights=weights)
    assert found.params == gates * 5 * (4 + 5 + 2)
    assert found.macs == 7 * gates * 5 * (4 + 5)
    assert found.nodes[-1].shape == (7, 1, 5)
    last = graph(f"s, y = {op}<hidden_size=5>(x, i, h, o)", inputs="float[7,1,4] x", weights=weights)
    assert last.nodes[-1].op == "Select"
    assert last.nodes[-1].attributes == (("index", 1),)


def test_means_one_after_the_other_are_one_mean() -> None:
    for keep in (0, 1):
        body = f"a = Constant<value_ints=[3]>() b = Constant<value_ints=[2]>() m = ReduceMean<keepdims={keep}>(x, a) "
        body += f"y = ReduceMean<keepdims={keep}>(m, b)"
        both = f"a = Constant<value_ints=[2,3]>() y = ReduceMean<keepdims={keep}>(x, a)"
        assert graph(body) == graph(both)


def test_a_sum_over_n_divided_by_n_is_a_mean() -> None:
    axes = "a = Constant<value_ints=[2,3]>() "
    mean = graph(axes + "y = ReduceMean(x, a)")
    assert graph(axes + "s = ReduceSum(x, a) y = Div(s, {64})") == mean
    assert graph(axes + "s = ReduceSum(x, a) y = Mul(s, {0.5})") != mean


def test_embedding_tied_to_the_output_is_counted_once() -> None:
    body = "e = Gather(w, i) t = Transpose<perm=[1,0]>(w) y = MatMul(e, t)"
    found = graph(body, inputs="int64[N,6] i")
    assert ops(found) == ["Embedding", "Linear"]
    assert found.params == 64
    assert found.nodes[-1].tied == 1
    assert found.macs == 6 * 64
    assert found != graph("e = Gather(w, i) y = MatMul(e, v)", inputs="int64[N,6] i", weights={"v": (8, 8)})


# --- normalisation -------------------------------------------------------------------------------------------------


LAYER_NORM = [
    "y = LayerNormalization(x, d, b)",
    "m = ReduceMean<axes=[-1]>(x) c0 = Sub(x, m) p = Pow(c0, {2}) v = ReduceMean<axes=[-1]>(p) a = Add(v, {1e-5}) "
    "s = Sqrt(a) n = Div(c0, s) g = Mul(n, d) y = Add(g, b)",
    "m = ReduceMean<axes=[2]>(x) c0 = Sub(x, m) p = Mul(c0, c0) v = ReduceMean<axes=[2]>(p) a = Add({1e-5}, v) "
    "s = Sqrt(a) r = Reciprocal(s) n = Mul(r, c0) g = Mul(d, n) y = Add(b, g)",
    "m = ReduceMean<axes=[2]>(x) c0 = Sub(x, m) c2 = Sub(x, m) p = Pow(c2, {2}) v = ReduceMean<axes=[2]>(p) "
    "a = Add(v, {1e-5}) s = Pow(a, {0.5}) n = Div(c0, s) g = Mul(n, d) y = Add(g, b)",
    "m = ReduceMean<axes=[2]>(x) c0 = Sub(x, m) p = Mul(c0, c0) v = ReduceMean<axes=[2]>(p) a = Add({1e-5}, v) "
    "r = Pow(a, {-0.5}) n = Mul(c0, r) g = Mul(n, d) y = Add(b, g)",
]


@pytest.mark.parametrize("body", LAYER_NORM)
def test_layer_norm(body: str) -> None:
    found = graph(body, inputs=SEQUENCE, opset=17)
    assert ops(found) == ["LayerNormalization"]
    assert found == graph(LAYER_NORM[0], inputs=SEQUENCE)
    assert found.params == 16


def test_layer_norm_over_channels_is_that_of_the_last_axis_between_transposes() -> None:
    body = LAYER_NORM[1].replace("[-1]", "[1]")
    found = graph(body, inputs="float[N,8,8] x", opset=17)
    assert ops(found)[:3] == ["Transpose", "LayerNormalization", "BatchNormalization"]
    assert found != graph(LAYER_NORM[1], inputs="float[N,8,8] x", opset=17)


def test_rms_norm() -> None:
    fused = graph("y = RMSNormalization(x, d)", inputs=SEQUENCE, opset=23)
    spelt = graph(
        "p = Pow(x, {2}) v = ReduceMean(p, [-1]) a = Add(v, {1e-6}) s = Sqrt(a) n = Div(x, s) y = Mul(d, n)",
        inputs=SEQUENCE,
    )
    assert spelt == fused
    assert spelt.params == 8


def test_group_norm() -> None:
    fused = graph("y = GroupNormalization<num_groups=2>(x, c, h)", weights={"h": (4,)}, opset=21)
    spelt = "f = Reshape(x, [0, 2, -1]) i = InstanceNormalization(f, s, t) g = Reshape(i, [1, 4, 8, 8]) "
    affine = "m = Mul(g, c1) y = Add(m, h)"
    found = graph(spelt + affine, weights={"h": (4, 1, 1), "s": (2,), "t": (2,)})
    assert ops(found) == ["GroupNormalization"]
    assert found.params == fused.params == 8
    assert found == fused


# --- attention -----------------------------------------------------------------------------------------------------

QKV = "float[N,2,6,4] q, float[N,2,6,4] k0, float[N,2,6,4] v"
ATTENTION = [
    "y = Attention(q, k0, v)",
    "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) s = Softmax(l) y = MatMul(s, v)",
    "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) m = Mul(l, {0.5}) s = Softmax<axis=3>(m) y = MatMul(s, v)",
    "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) m = Div(l, {2}) s = Softmax(m) d = Dropout(s) y = MatMul(d, v)",
    "a = Mul(q, {0.7}) t = Transpose<perm=[0,1,3,2]>(k0) z = Mul(t, {0.7}) l = MatMul(a, z) s = Softmax(l) "
    "y = MatMul(s, v)",
    "a = Mul(q, {0.7}) z = Mul(k0, {0.7}) t = Transpose<perm=[0,1,3,2]>(z) l = MatMul(a, t) s = Softmax(l) "
    "y = MatMul(s, v)",
    "f = Reshape(k0, [2, 6, 4]) t = Transpose<perm=[0,2,1]>(f) r = Reshape(t, [1, 2, 4, 6]) l = MatMul(q, r) "
    "s = Softmax(l) n = IsNaN(s) g = Where(n, {0}, s) y = MatMul(g, v)",
    'l = Einsum<equation="bhid,bhjd->bhij">(q, k0) s = Softmax(l) y = Einsum<equation="bhij,bhjd->bhid">(s, v)',
]


@pytest.mark.parametrize("body", ATTENTION)
def test_attention(body: str) -> None:
    found = graph(body, inputs=QKV, opset=23)
    assert ops(found) == ["Attention"]
    assert found == graph(ATTENTION[0], inputs=QKV, opset=23)
    assert found.macs == 2 * 2 * 6 * 6 * 4


HEADS_IN_CHANNELS = "float[N,6,8] q, float[N,6,8] k0, float[N,6,8] v"
HEADS_APART = (
    "e = Reshape(q, [1, 6, 2, 4]) f = Reshape(k0, [1, 6, 2, 4]) g = Reshape(v, [1, 6, 2, 4]) "
    "h = Transpose<perm=[0,2,1,3]>(e) i = Transpose<perm=[0,2,3,1]>(f) j = Transpose<perm=[0,2,1,3]>(g) "
    "l = MatMul(h, i) s = Softmax(l) o = MatMul(s, j) t = Transpose<perm=[0,2,1,3]>(o) y = Reshape(t, [1, 6, 8])"
)


def test_attention_as_one_operator() -> None:
    assert graph("y = Attention(q, k0, v)", inputs=QKV, opset=23) == graph(ATTENTION[0], inputs=QKV, opset=23)
    flat = graph("y = Attention<q_num_heads=2, kv_num_heads=2>(q, k0, v)", inputs=HEADS_IN_CHANNELS, opset=23)
    assert flat == graph(HEADS_APART, inputs=HEADS_IN_CHANNELS, opset=23)
    causal = graph("y = Attention<is_causal=1>(q, k0, v)", inputs=QKV, opset=23)
    head = "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) "
    assert causal == graph(head + "a = Add(l, p) s = Softmax(a) y = MatMul(s, v)", inputs=QKV, weights={"p": (6, 6)})


def test_grouped_keys_and_values_are_repeated() -> None:
    inputs = "float[N,4,6,8] q, float[N,2,6,8] k0, float[N,2,6,8] v"
    spread = (
        "a{0} = Reshape({1}, [1, 2, 1, 6, 8]) b{0} = Expand(a{0}, [1, 2, 2, 6, 8]) c{0} = Reshape(b{0}, [1, 4, 6, 8]) "
    )
    spelled = "".join(spread.replace("{0}", n).replace("{1}", s) for n, s in (("0", "k0"), ("1", "v")))
    spelled += "t = Transpose<perm=[0,1,3,2]>(c0) l = MatMul(q, t) s = Softmax(l) y = MatMul(s, c1)"
    assert graph("y = Attention(q, k0, v)", inputs=inputs, opset=23) == graph(spelled, inputs=inputs, opset=23)


def test_group_norm_behind_a_transpose() -> None:
    inputs = "float[N,8,2,3,2] x"
    body = (
        "t = Transpose<perm=[0,1,2,4,3]>(x) r = Reshape(t, [1, 1, 96]) i = InstanceNormalization(r, one, zero) "
        "b = Reshape(i, [1, 8, 4, 3]) y = Relu(b)"
    )
    made = model(body, inputs=inputs)
    for name, value in (("one", 1.0), ("zero", 0.0)):
        made.graph.initializer.append(numpy_helper.from_array(np.full(1, value, np.float32), name))
    assert ops(read(made)) == ["Transpose", "Reshape", "GroupNormalization", "Relu"]


def test_attention_whose_weights_are_used_again_is_no_attention() -> None:
    head = "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) s = Softmax(l) a = MatMul(s, v) "
    twice = graph(head + "r = Relu(v) b = MatMul(s, r) y = Add(a, b)", inputs=QKV, opset=23)
    assert Counter(ops(twice))["MatMul"] == 3
    assert twice.macs == 3 * 2 * 6 * 6 * 4
    kept = graph(head + "m = ReduceMean(s, [3]) y = Add(a, m)", inputs=QKV, opset=23)
    assert kept.macs == 2 * 2 * 6 * 6 * 4


def test_masks_of_attention() -> None:
    head = "t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) "
    plain = graph(ATTENTION[0], inputs=QKV, opset=23)
    stored = graph(head + "a = Add(l, p) s = Softmax(a) y = MatMul(s, v)", inputs=QKV, weights={"p": (2, 6, 6)})
    assert ops(stored) == ["Attention"]
    assert stored.nodes[-1].attributes == (("mask", 1),)
    assert stored.params == 72
    live = graph(head + "a = Add(l, z) s = Softmax(a) y = MatMul(s, v)", inputs=QKV + ", float[1,1,6,6] z")
    assert ops(live) == ["Attention"]
    assert len(live.nodes[-1].inputs) == 4
    assert len({plain, stored, live}) == 3


@pytest.mark.parametrize(
    "tail",
    ["s = Softmax<axis=2>(l) y = MatMul(s, v)", "s = Sigmoid(l) y = MatMul(s, v)", "s = Softmax(l) y = MatMul(v, s)"],
)
def test_look_alikes_of_attention_are_left_alone(tail: str) -> None:
    inputs = QKV.replace("2,6,4] v", "2,6,6] v")
    found = graph("t = Transpose<perm=[0,1,3,2]>(k0) l = MatMul(q, t) " + tail, inputs=inputs)
    assert Counter(ops(found))["MatMul"] == 2


# --- sums, products, dead edges -----------------------------------------------------------------------------------


def test_sums_of_several_are_chains() -> None:
    three = "a = Relu(x) b = Tanh(x) "
    assert graph(three + "y = Sum(a, b, x)") == graph(three + "s = Add(a, b) y = Add(s, x)")


@pytest.mark.parametrize(
    "dead",
    [
        "z = Mul(x, {0})",
        "c0 = Conv<pads=[1,1,1,1]>(x, k) z = Mul(c0, {0})",
        "m = Mul(x, {0}) z = Relu(m)",
        "m = Mul(x, {0}) c0 = Conv<pads=[1,1,1,1]>(m, k, c) z = BatchNormalization(c0, c, c, c, c)",
        "m = Mul({0}, x) z = Identity(m)",
        "s = Shape(x) o = ConstantOfShape(s) z = Mul(x, o)",
    ],
)
def test_products_with_zero_are_dead_edges(dead: str) -> None:
    assert graph(f"{dead} a = Relu(x) y = Add(a, z)") == graph("y = Relu(x)")


def test_a_network_that_does_not_depend_on_its_input_is_zero() -> None:
    found = graph("y = Mul(x, {0})")
    assert [(node.op, node.shape) for node in found.nodes] == [("Zero", (1, 4, 8, 8))]
    assert (found.params, found.macs) == (0, 0)


def test_learned_numbers_are_not_taken_for_fixed_ones() -> None:
    """A gate that starts at zero (ReZero, SkipInit) is no dead edge, with or without its value in the file."""
    weightless = model("a = Relu(x) b = Mul(a, e) y = Add(x, b)")
    stored = model("a = Relu(x) b = Mul(a, e) y = Add(x, b)")
    stored.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "e"))
    assert read(weightless) == read(stored)
    assert ops(read(stored)) == ["Relu", "Mul", "Add"]


def test_dead_operand_still_broadcasts() -> None:
    found = graph("p = GlobalAveragePool(x) z = Mul(x, {0}) y = Add(p, z)")
    assert ops(found) == ["GlobalAveragePool", "Expand"]
    assert found.nodes[-1].shape == (1, 4, 8, 8)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_operands_may_change_places(op: str) -> None:
    both = [f"a = Relu(x) b = Tanh(x) y = {op}({order})" for order in ("a, b", "b, a")]
    assert graph(both[0]) == graph(both[1])
    sub = [body.replace(f"{op}(", "Sub(") for body in both]
    assert graph(sub[0]) != graph(sub[1])


# --- pooling, reduction, layout -----------------------------------------------------------------------------------

GLOBAL = [
    "y = GlobalAveragePool(x)",
    "y = ReduceMean(x, [2, 3])",
    "y = ReduceMean(x, [-1, -2])",
    "a = ReduceMean<keepdims=0>(x, [2, 3]) y = Reshape(a, [1, 4, 1, 1])",
    "y = AveragePool<kernel_shape=[8,8]>(x)",
    "y = AveragePool<kernel_shape=[8,8], strides=[8,8]>(x)",
    "a = GlobalAveragePool(x) f = Flatten(a) y = Unsqueeze(f, [2, 3])",
]


@pytest.mark.parametrize("body", GLOBAL)
def test_global_average_pooling(body: str) -> None:
    assert graph(body) == graph(GLOBAL[0])
    assert ops(graph(body)) == ["GlobalAveragePool"]


def test_global_max_pooling() -> None:
    one = graph("y = GlobalMaxPool(x)")
    assert one == graph("y = MaxPool<kernel_shape=[8,8]>(x)") == graph("y = ReduceMax(x, [2, 3])")


def test_reductions_over_opsets() -> None:
    for op in ("ReduceSum", "ReduceL2", "ReduceMax"):
        assert graph(f"y = {op}<axes=[1]>(x)", opset=11) == graph(f"y = {op}(x, [1])") == graph(f"y = {op}(x, [-3])")


@pytest.mark.parametrize("flat", ["Flatten(p)", "Reshape(p, [0, -1])", "Reshape(p, [1, 4])", "Squeeze(p, [2, 3])"])
def test_reshapes_are_one(flat: str) -> None:
    found = graph(f"p = GlobalAveragePool(x) f = {flat} y = Gemm(f, q)", weights={"q": (4, 10)})
    assert ops(found) == ["GlobalAveragePool", "Reshape", "Linear"]
    assert found == graph("p = GlobalAveragePool(x) f = Flatten(p) y = MatMul(f, q)", weights={"q": (4, 10)})


def test_squeeze_over_opsets() -> None:
    body = "p = GlobalAveragePool(x) y = Squeeze{}(p{})"
    assert graph(body.format("<axes=[2,3]>", ""), opset=11) == graph(body.format("", ", [2, 3]"))


def test_split_is_slices() -> None:
    tail = " r = Relu(a) y = Concat<axis=1>(r, b)"
    slices = graph("a = Slice(x, [0], [1], [1]) b = Slice(x, [1], [4], [1])" + tail)
    assert slices == graph("a, b = Split<axis=1>(x, [1, 3])" + tail)
    assert slices == graph("a, b = Split<axis=1, split=[1,3]>(x)" + tail, opset=11)
    assert slices == graph(
        "a = Slice<axes=[1], starts=[0], ends=[1]>(x) b = Slice<axes=[1], starts=[-3], ends=[99]>(x)" + tail, opset=9
    )


def test_gather_of_one_is_a_slice() -> None:
    tail = " y = Relu(a)"
    one = graph("s = Slice(x, [1], [2], [1]) a = Squeeze(s, [1])" + tail, inputs=SEQUENCE)
    assert one == graph("i = Constant<value_int=1>() a = Gather<axis=1>(x, i)" + tail, inputs=SEQUENCE)
    assert one == graph("i = Constant<value_int=-5>() a = Gather<axis=1>(x, i)" + tail, inputs=SEQUENCE)
    shuffled = graph("a = Gather<axis=1>(x, [1, 0, 2, 3, 4, 5])" + tail, inputs=SEQUENCE)
    assert ops(shuffled) == ["Gather", "Relu"]


def test_slices_of_two_axes_and_backwards() -> None:
    both = graph("y = Slice(x, [1, 2], [5, 6], [2, 3])")
    assert both == graph("a = Slice(x, [2], [6], [3]) y = Slice(a, [1], [5], [2])")
    assert both.nodes[-1].shape == (1, 4, 4, 4)
    turned = graph("y = Slice(x, [-1], [-99], [3], [-1])")
    assert turned.nodes[-1].shape == (1, 4, 8, 8)
    assert turned.nodes[-1].attribute("step") == -1


def test_transposes_are_one_and_size_one_axes_do_not_move() -> None:
    double = graph("a = Transpose<perm=[0,2,3,1]>(x) y = Transpose<perm=[0,2,1,3]>(a)")
    assert double == graph("y = Transpose<perm=[0,3,2,1]>(x)")
    assert ops(graph("p = GlobalAveragePool(x) y = Transpose<perm=[0,2,3,1]>(p)")) == ["GlobalAveragePool", "Reshape"]
    squeezed = graph("a = Squeeze(x, [0]) t = Transpose<perm=[0,2,1]>(a) y = Unsqueeze(t, [0])", inputs=IMAGE)
    assert squeezed == graph("y = Transpose<perm=[0,1,3,2]>(x)")


def test_resize_spellings() -> None:
    sizes = graph("y = Resize(x, , , [1, 4, 16, 16])")
    assert sizes.nodes[-1].attributes == ()
    assert sizes == graph("s = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() y = Resize(x, , s)")
    assert sizes == graph("s = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() y = Upsample(x, s)", opset=9)
    assert sizes != graph('y = Resize<mode="linear">(x, , , [1, 4, 16, 16])')


def test_softmax_over_opsets() -> None:
    flat = "f = Flatten(x) "
    assert graph(flat + "y = Softmax(f)", opset=11) == graph(flat + "y = Softmax(f)", opset=13)
    old = graph("y = Softmax(x)", opset=11)  # over all of C, H and W at once
    assert ops(old) == ["Reshape", "Softmax", "Reshape"]
    assert old != graph("y = Softmax<axis=1>(x)", opset=13)


# --- shapes as values ----------------------------------------------------------------------------------------------


def test_shape_arithmetic_is_folded() -> None:
    body = (
        "s = Shape(x) i = Constant<value_int=1>() c0 = Gather(s, i) u = Unsqueeze(c0, [0]) "
        "f = Concat<axis=0>([1], u, [-1]) y = Reshape(x, f)"
    )
    found = graph(body)
    assert ops(found) == ["Reshape"]
    assert found.nodes[-1].shape == (1, 4, 64)
    assert graph("n = Size(x) u = Unsqueeze(n, [0]) y = Reshape(x, u)").nodes[-1].shape == (256,)


def test_reshape_that_does_not_fit() -> None:
    with pytest.raises(ReadError, match="node 'y'"):
        graph("y = Reshape(x, [7, 7])")


# --- what is not understood ----------------------------------------------------------------------------------------


def test_unknown_operators_keep_their_place_shape_and_attributes() -> None:
    found = graph('a = acme.Thing<alpha=2, axis = -1, name="n">(x, c, [3, 4]) y = Relu(a)')
    node = found.nodes[1]
    assert (node.op, node.shape, node.inputs, node.weights) == ("acme::Thing", (1, 4, 8, 8), (0,), ((4,),))
    assert dict(node.attributes) == {"alpha": 2, "axis": 3, "name": "n", "input_2": (3, 4)}
    assert found.unknown_ops == ("acme::Thing",)
    assert found.params == 4


def test_the_shape_that_a_file_states_for_an_unknown_operator_is_used() -> None:
    stated = model("a = acme.Pool(x) y = Relu(a)")
    stated.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 4, 2, 2]))
    assert read(stated).nodes[-1].shape == (1, 4, 2, 2)


def test_constant_operands_on_either_side_are_told_apart() -> None:
    assert graph("y = Sub(x, c1)") != graph("y = Sub(c1, x)")
    assert graph("y = Concat<axis=1>(x, q)", weights={"q": (1, 4, 8, 8)}) != graph(
        "y = Concat<axis=1>(q, x)", weights={"q": (1, 4, 8, 8)}
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y = Conv<strides=[1,1]>(x, k)", "y = Conv<strides=[2,2]>(x, k)"),
        ("y = Conv<pads=[1,1,1,1]>(x, k)", "y = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, k)"),
        ("y = Conv(x, k)", "y = Conv(x, k, c)"),
        ("y = MaxPool<kernel_shape=[2,2]>(x)", "y = AveragePool<kernel_shape=[2,2]>(x)"),
        ("y = LeakyRelu<alpha=0.1>(x)", "y = LeakyRelu<alpha=0.2>(x)"),
        ("y = Concat<axis=1>(x, x)", "y = Concat<axis=2>(x, x)"),
        ("y = Gelu(x)", 'y = Gelu<approximate="tanh">(x)'),
        ("a = Relu(x) y = Sigmoid(a)", "a = Sigmoid(x) y = Relu(a)"),
        ("y = Slice(x, [0], [4], [2])", "y = Slice(x, [4], [8], [2])"),
        ("y = Softmax<axis=1>(x)", "y = Softmax<axis=2>(x)"),
        ("y = Transpose<perm=[0,1,3,2]>(x)", "y = Identity(x)"),
        ("y = ReduceSum(x, [2])", "y = ReduceSum(x, [3])"),
        ("y = GlobalAveragePool(x)", "y = GlobalMaxPool(x)"),
        ("y = Resize(x, , , [1, 4, 16, 16])", "y = Resize(x, , , [1, 4, 16, 8])"),
    ],
)
def test_other_attributes_are_other_networks(one: str, other: str) -> None:
    assert graph(one) != graph(other)


def test_stored_tensors_count_once_however_often_they_are_used() -> None:
    found = graph("a = Conv<pads=[1,1,1,1]>(x, k) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, k)")
    assert found.params == prod(WEIGHTS["k"])
    assert [node.tied for node in found.nodes] == [-1, -1, -1, 1]
    twice = graph("a = Conv<pads=[1,1,1,1]>(x, k) b = Conv<pads=[1,1,1,1]>(x, k) r = Relu(a) y = Add(r, b)")
    assert Counter(ops(twice))["Conv"] == 1


# --- what quantisers, simplifiers and other frameworks write ---------------------------------------------------------

QUANTISED = "z = Constant<value_float=0.1>() o = Constant<value_int=0>() u = Cast<to=2>(o) i = Cast<to=3>(o) "


def test_quantised_signals_are_the_signals() -> None:
    plain = graph("c = Conv(x, k) y = Relu(c)")
    around = "q = QuantizeLinear(x, z, i) d = DequantizeLinear(q, z, i) c = Conv(d, k) r = Relu(c) "
    assert graph(QUANTISED + around + "p = QuantizeLinear(r, z, u) y = DequantizeLinear(p, z, u)") == plain


def test_a_relu_that_a_quantiser_took_in_comes_back() -> None:
    clipped = QUANTISED + "c = Conv(x, k) q = QuantizeLinear(c, z, u) y = DequantizeLinear(q, z, u)"
    assert graph(clipped) == graph("c = Conv(x, k) y = Relu(c)")
    signed = QUANTISED + "c = Conv(x, k) q = QuantizeLinear(c, z, i) y = DequantizeLinear(q, z, i)"
    assert graph(signed) == graph("y = Conv(x, k)")


def test_weights_stored_as_integers_count() -> None:
    body = QUANTISED + "w = DequantizeLinear(weight, z, i) y = Conv(x, w)"
    quantised = model(body, weights={"weight": (8, 4, 3, 3)})
    quantised.graph.initializer[-1].data_type = TensorProto.INT8
    assert read(quantised) == graph("y = Conv(x, weight)", weights={"weight": (8, 4, 3, 3)})
    assert read(quantised).params == 8 * 4 * 9


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        ("y = QLinearConv(x, z, u, weight, z, u, z, u)", "y = Conv(x, weight)"),
        ("y = ConvInteger(x, weight, u, u)", "y = Conv(x, weight)"),
        ("y = QLinearMatMul(x, z, u, matrix, z, u, z, u)", "y = MatMul(x, matrix)"),
        ("y = MatMulInteger(x, matrix, u, u)", "y = MatMul(x, matrix)"),
    ],
)
def test_quantised_layers(body: str, plain: str) -> None:
    weights = {"weight": (8, 4, 3, 3), "matrix": (8, 6)}
    used = {name: shape for name, shape in weights.items() if name in body}
    quantised = model(QUANTISED + body, weights=used)
    quantised.graph.initializer[-1].data_type = TensorProto.INT8
    assert read(quantised) == graph(plain, weights=used)
    assert read(quantised).params == graph(plain, weights=used).params


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (
            "h = Constant<value_int=2>() s = SplitToSequence<axis=1>(x, h) i = Constant<value_int=1>() "
            "y = SequenceAt(s, i)",
            "y = Slice(x, [2], [4], [1])",
        ),
        (
            "h = Constant<value_ints=[1,3]>() s = SplitToSequence<axis=1>(x, h) i = Constant<value_int=-1>() "
            "y = SequenceAt(s, i)",
            "y = Slice(x, [1], [4], [1])",
        ),
        ("r = Relu(x) s = SequenceConstruct(x, r) i = Constant<value_int=1>() y = SequenceAt(s, i)", "y = Relu(x)"),
        (
            "r = Relu(x) s = SequenceConstruct(x, r) y = ConcatFromSequence<axis=1>(s)",
            "r = Relu(x) y = Concat<axis=1>(x, r)",
        ),
        (
            "r = Relu(x) s = SequenceConstruct(x, r) y = ConcatFromSequence<axis=1, new_axis=1>(s)",
            "u = Unsqueeze(x, [1]) r = Relu(x) v = Unsqueeze(r, [1]) y = Concat<axis=1>(u, v)",
        ),
    ],
)
def test_sequences_whose_members_are_known(body: str, plain: str) -> None:
    assert graph(body) == graph(plain)


def test_gelu_without_its_half_and_by_the_complement() -> None:
    gelu = graph("y = Gelu(x)")
    assert graph("d = Div(x, {1.4142135}) e = Erf(d) a = Add(e, {1}) y = Mul(x, a)") == gelu
    assert graph("n = Neg(x) d = Mul(n, {0.70710678}) e = Erfc(d) h = Mul(x, {0.5}) y = Mul(h, e)") == gelu
    product = "p = Relu(x) q = Mul(p, x) d = Div(q, {1.4142135}) e = Erf(d) a = Add(e, {1}) "
    assert graph(product + "m = Mul(q, a) y = Mul(m, {0.5})") == graph("p = Relu(x) q = Mul(p, x) y = Gelu(q)")


MOMENTS = "a = Constant<value_ints=[2]>() m = ReduceMean(x, a) "


@pytest.mark.parametrize(
    "body",
    [
        MOMENTS + "c = Sub(x, m) q = Mul(c, c) v = ReduceMean(q, a) w = Add(v, {1e-3}) s = Sqrt(w) r = Reciprocal(s) "
        "f = Mul(r, d) l = Mul(x, f) n = Neg(m) t = Mul(n, f) y = Add(l, t)",
        MOMENTS + "q = Mul(x, x) e = ReduceMean(q, a) k2 = Mul(m, m) v = Sub(e, k2) z = Constant<value_float=0.0>() "
        "p = Max(v, z) w = Add(p, {1e-3}) s = Sqrt(w) c = Sub(x, m) n = Div(c, s) y = Mul(n, d)",
    ],
)
def test_layer_norm_by_moments(body: str) -> None:
    tokens = "float[N,6,8] x"
    weights = {"d": (8,)}
    assert ops(graph(body, inputs=tokens, weights=weights)) == ["LayerNormalization"]
    assert graph(body, inputs=tokens, weights=weights) == graph(
        "y = LayerNormalization(x, d)", inputs=tokens, weights=weights
    )


def test_fixed_numbers_before_layers_are_the_weights() -> None:
    assert graph("s = Mul(x, {0.5}) t = Mul(s, {3}) y = Conv(t, k)") == graph("y = Conv(x, k)")
    assert graph("s = Mul(x, {0.5}) t = Mul(s, {2}) y = Sigmoid(t)") == graph("y = Sigmoid(x)")
    assert graph("s = Mul(x, {0.5}) y = Sigmoid(s)") != graph("y = Sigmoid(x)")


def test_a_mask_of_one_number_masks_nothing() -> None:
    tokens = "float[N,6,8] x"
    scores = "t = Transpose<perm=[0,2,1]>(x) p = MatMul(x, t) "
    plain = graph(scores + "s = Softmax(p) y = MatMul(s, x)", inputs=tokens)
    uniform = scores + "n = Constant<value_ints=[6,6]>() m = ConstantOfShape(n) q = Add(p, m) s = Softmax(q) "
    assert graph(uniform + "y = MatMul(s, x)", inputs=tokens) == plain
    wide = scores + "n = Constant<value_ints=[1,96,96]>() z = Constant<value_float=-5.0>() m = Expand(z, n) "
    wide += "q = Add(p, m) s = Softmax(q) y = MatMul(s, x)"
    large = "float[N,96,8] x"
    assert graph(wide, inputs=large) == graph(scores + "s = Softmax(p) y = MatMul(s, x)", inputs=large)
    stored = graph(scores + "q = Add(p, mask) s = Softmax(q) y = MatMul(s, x)", inputs=tokens, weights={"mask": (6, 6)})
    assert stored != plain


def test_a_signal_written_over_another_is_that_signal() -> None:
    body = "r = Relu(x) i = Constant<value_ints=[0,1,2,3]>() j = Unsqueeze(i, [1]) "
    turned = "t = Transpose<perm=[1,0,2,3]>(x) u = Transpose<perm=[1,0,2,3]>(r) "
    assert graph(body + turned + "y = ScatterND(t, j, u)") == graph("r = Relu(x) y = Transpose<perm=[1,0,2,3]>(r)")


def test_shapes_behind_an_unknown_operator_are_taken_as_stated() -> None:
    found = graph("h = acme.Halve(x) s = Constant<value_ints=[1,4,32]>() y = Reshape(h, s)")
    assert found.unknown_ops == ("acme::Halve",)
    assert 0 < found.unknown_share < 1
    assert found.nodes[found.outputs[0]].shape == (1, 4, 32)
