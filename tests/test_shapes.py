"""The table of output shapes against ONNX's own inference."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, shape_inference

from archgauge.datasets import nas_bench_201, nas_bench_macro
from archgauge.encoders.draft import Constant
from archgauge.encoders.inference import InferenceError, infer
from archgauge.encoders.onnx_reader import _attributes
from archgauge.encoders.shapes import SHAPE_RULES, UNCHANGED, VALUE_RULES, broadcast

Shape = tuple[int, ...]
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def inferred(op: str, shapes: list[Shape], attributes: dict[str, object], opset: int = 20) -> Shape | None:
    """Shape by onnx of the first output of one operator; None if onnx rejects it."""
    names = [f"x{i}" for i in range(len(shapes))]
    node = helper.make_node(op, names, ["y"], **attributes)  # type: ignore[arg-type]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        output = shape_inference.infer_shapes(model, strict_mode=True).graph.output[0]
    except shape_inference.InferenceError:
        return None
    return tuple(d.dim_value for d in output.type.tensor_type.shape.dim)


def by_table(op: str, shapes: list[Shape], attributes: dict[str, object], opset: int = 20) -> Shape | None:
    node = helper.make_node(op, [f"x{i}" for i in range(len(shapes))], ["y"], **attributes)  # type: ignore[arg-type]
    return SHAPE_RULES[op](shapes, _attributes(node, opset))


def all_values(model: onnx.ModelProto) -> Iterator[tuple[str, Shape, Shape]]:
    """(operator, shape by the table, shape by onnx) of every first output the table knows."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim and value.type.tensor_type.shape.dim[0].HasField("dim_param"):
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    opset = max(o.version for o in model.opset_import if not o.domain)
    for node in graph.node:
        operands = [shapes.get(name) for name in node.input]
        if None in operands[:1] or node.output[0] not in shapes:
            continue
        if node.op_type in UNCHANGED:
            assert operands[0] is not None
            yield node.op_type, operands[0], shapes[node.output[0]]
        elif node.op_type in SHAPE_RULES and None not in operands:
            found = SHAPE_RULES[node.op_type](operands, _attributes(node, opset))
            assert found is not None, node
            yield node.op_type, found, shapes[node.output[0]]


def check(model: onnx.ModelProto) -> int:
    count = 0
    for op, found, expected in all_values(model):
        assert found == expected, op
        count += 1
    return count


@pytest.mark.parametrize("space", [nas_bench_201, nas_bench_macro])
def test_networks_of_spaces(space: object) -> None:
    for spec in space.sample(5, seed=3):  # type: ignore[attr-defined]
        assert check(space.build(spec, "cifar10")) > 30  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models(path: Path) -> None:
    assert check(onnx.load(path)) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t"])
def test_exported_modules(name: str) -> None:
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    from archgauge.encoders.torch_reader import export

    assert check(export(models.get_model(name, weights=None), (1, 3, 224, 224))) > 100


@st.composite
def windows(draw: st.DrawFn) -> tuple[Shape, Shape, dict[str, object]]:
    """Input size, kernel, attributes of a convolution or pool over one to three axes."""
    rank = draw(st.integers(1, 3))

    def some(low: int, high: int, count: int = rank) -> Shape:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    attributes: dict[str, object] = {}
    kernel = some(1, 5)
    if draw(st.booleans()):
        attributes["strides"] = some(1, 4)
    if draw(st.booleans()):
        attributes["dilations"] = some(1, 3)
    auto = draw(st.sampled_from(["", "", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto:
        attributes["auto_pad"] = auto
    if auto in ("", "NOTSET") and draw(st.booleans()):
        attributes["pads"] = some(0, 2, 2 * rank)
    return some(1, 14), kernel, attributes


def fits(size: Shape, kernel: Shape, attributes: dict[str, object]) -> bool:
    """Whether the window fits into the padded input (onnx rounds towards zero and puts out 1 where it does not)."""
    if str(attributes.get("auto_pad")).startswith("SAME"):
        return True
    rank = len(size)
    pads: Shape = attributes.get("pads", (0,) * 2 * rank)  # type: ignore[assignment]
    dilations: Shape = attributes.get("dilations", (1,) * rank)  # type: ignore[assignment]
    return all(n + pads[i] + pads[i + rank] >= dilations[i] * (kernel[i] - 1) + 1 for i, n in enumerate(size))


@given(windows(), st.integers(1, 3), st.integers(1, 2))
def test_convolutions(window: tuple[Shape, Shape, dict[str, object]], channels: int, group: int) -> None:
    size, kernel, attributes = window
    attributes["group"] = group
    shapes = [(2, channels * group, *size), (4 * group, channels, *kernel)]
    found = by_table("Conv", shapes, attributes)
    assert found == (inferred("Conv", shapes, attributes) if fits(size, kernel, attributes) else None)


@given(windows(), st.sampled_from(["MaxPool", "AveragePool"]), st.booleans(), st.sampled_from([12, 19, 22]))
def test_pools(window: tuple[Shape, Shape, dict[str, object]], op: str, ceil: bool, opset: int) -> None:
    size, kernel, attributes = window
    attributes["kernel_shape"] = kernel
    if op == "AveragePool" and opset < 19:
        attributes.pop("dilations", None)
    if ceil and "auto_pad" not in attributes:
        attributes["ceil_mode"], opset = 1, 22  # inference of older ones counts windows that start in the padding
    pads: Shape = attributes.get("pads", (0,) * 2 * len(kernel))  # type: ignore[assignment]
    assume(all(p < k for p, k in zip(pads, kernel * 2, strict=True)))
    shapes = [(2, 3, *size)]
    found = by_table(op, shapes, attributes, opset)
    assert found == (inferred(op, shapes, attributes, opset) if fits(size, kernel, attributes) else None)


dims = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(dims, dims)
def test_broadcasting(a: Shape, b: Shape) -> None:
    expected: Shape | None = None
    with suppress(ValueError):
        expected = np.broadcast_shapes(a, b)
    assert broadcast([a, b]) == expected
    assert broadcast([a, None]) is None


@given(dims, dims, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_matrix_products(a: Shape, b: Shape, m: int, k: int, n: int) -> None:
    shapes = [(*a[:2], m, k), (*b[:2], k, n)]
    assert by_table("MatMul", shapes, {}) == inferred("MatMul", shapes, {})
    shapes[1] = (*b[:2], k + 1, n)
    assert by_table("MatMul", shapes, {}) is None


@given(st.booleans(), st.booleans(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_gemm(trans_a: bool, trans_b: bool, m: int, k: int, n: int) -> None:
    shapes: list[Shape] = [(k, m) if trans_a else (m, k), (n, k) if trans_b else (k, n)]
    attributes: dict[str, object] = {"transA": int(trans_a), "transB": int(trans_b)}
    assert by_table("Gemm", shapes, attributes) == inferred("Gemm", shapes, attributes) == (m, n)


@given(dims, st.integers(-4, 3), st.integers(1, 3))
def test_concat_flatten_transpose(shape: Shape, axis: int, more: int) -> None:
    assume(-len(shape) <= axis < len(shape))
    other = list(shape)
    other[axis] += more
    for op, shapes, attributes in (
        ("Concat", [shape, tuple(other)], {"axis": axis}),
        ("Flatten", [shape], {"axis": axis}),
        ("Transpose", [shape], {"perm": list(np.roll(range(len(shape)), more))}),
        ("Transpose", [shape], {}),
    ):
        assert by_table(op, shapes, attributes) == inferred(op, shapes, attributes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("Conv", [(1, 3, 8, 8), (4, 5, 3, 3)], {}),
        ("Conv", [(1, 3, 8), (4, 3, 3, 3)], {}),
        ("Conv", [(1, 3, 8, 8), (4, 3, 3, 3)], {"strides": [0, 1]}),
        ("Conv", [(1, 3, 8, 8), (4, 3, 3, 3)], {"pads": [1, 1]}),
        ("MaxPool", [(1, 3, 8, 8)], {}),
        ("GlobalAveragePool", [(3,)], {}),
        ("Concat", [(1, 2), (1, 2, 3)], {"axis": 1}),
        ("Concat", [(2, 2), (3, 2)], {"axis": 1}),
        ("Concat", [(2, 2), (3, 2)], {"axis": 5}),
        ("Concat", [(2, 2), (3, 2)], {}),
        ("Transpose", [(1, 2)], {"perm": [0, 0]}),
        ("Gemm", [(1, 2), (3, 2)], {}),
    ],
)
def test_what_does_not_fit_is_left_to_onnx(op: str, shapes: list[Shape], attributes: dict[str, object]) -> None:
    assert by_table(op, shapes, attributes) is None


def test_inference_of_one_operator_uses_known_values() -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    target = Constant((2,), np.asarray([0, -1]))
    opsets = [helper.make_opsetid("", 20)]
    assert infer(node, [(1, 4, 3, 3), target], opsets) == [(1, 36)]
    assert infer(node, [(1, 4, 3, 3), Constant((2,))], opsets) == [(None, None)]
    assert infer(helper.make_node("Thing", ["x"], ["y"]), [(1,)], opsets) is None
    with pytest.raises(InferenceError):
        infer(helper.make_node("Split", ["x"], ["y"], axis=3, num_outputs=1), [(1, 4)], opsets)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("bhid, bhjd -> bhij", [(1, 2, 5, 4), (1, 2, 6, 4)]),
        ("...ij,...jk->...ik", [(7, 5, 2, 3), (7, 5, 3, 4)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("ij->", [(2, 3)]),
        ("ba", [(2, 3)]),
    ],
)
def test_einsum(equation: str, shapes: list[Shape]) -> None:
    expected = inferred("Einsum", shapes, {"equation": equation})
    assert expected is not None
    assert by_table("Einsum", shapes, {"equation": equation}) == expected


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (5, 4)]),
        ("ij,jk->iz", [(2, 3), (3, 4)]),
        ("ijk,jk->i", [(2, 3), (3, 4)]),
        ("ij", [(2, 3), (3, 4)]),
        ("i1->i", [(2, 3)]),
        ("bij,\x01bjk -> bik", [(5, 2, 3), (5, 3, 4)]),  # onnx's inference never returns from this one
    ],
)
def test_senseless_equations(equation: str, shapes: list[Shape]) -> None:
    assert by_table("Einsum", shapes, {"equation": equation}) is None


@st.composite
def valued(draw: st.DrawFn) -> tuple[str, list[Shape | Constant | None], dict[str, object], int]:
    """An operator whose output shapes depend on its operands' values: name, operands, attributes, outputs."""
    x = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    rank = len(x)
    axis = draw(st.integers(-rank, rank - 1))

    def ints(*values: int) -> Constant:
        return Constant((len(values),), np.asarray(values, np.int64))

    def some(low: int, high: int, least: int = 1, most: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=least, max_size=most))

    op = draw(st.sampled_from(sorted(VALUE_RULES)))
    if op == "Reshape":
        target = some(-1, 6, 0, 4)
        return op, [x, ints(*target)], draw(st.sampled_from([{}, {"allowzero": 1}])), 1
    if op == "Unsqueeze":
        return op, [x, ints(*some(-rank - 2, rank + 1, 1, 2))], {}, 1
    if op == "Squeeze":
        return op, [x, ints(*some(-rank, rank - 1))], {}, 1
    if op == "Slice":
        axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
        starts, ends = (some(-7, 7, len(axes), len(axes)) for _ in range(2))
        steps = some(1, 3, len(axes), len(axes))
        return op, [x, ints(*starts), ints(*ends), ints(*axes), ints(*steps)], {}, 1
    if op in ("Expand", "Tile"):
        return op, [x, ints(*some(1, 5, rank if op == "Tile" else 1, rank if op == "Tile" else 5))], {}, 1
    if op == "Gather":
        return op, [x, ints(*some(0, 0, 1, 3))], {"axis": axis}, 1
    if op == "Split":
        sizes = some(0, 5, 1, 3)
        operands: list[Shape | Constant | None] = [x, ints(*sizes)] if draw(st.booleans()) else [x]
        return (
            op,
            operands,
            {"axis": axis} if len(operands) == 2 else {"axis": axis, "num_outputs": len(sizes)},
            len(sizes),
        )
    if op == "Pad":
        return op, [x, ints(*some(-1, 3, 2 * rank, 2 * rank))], {}, 1
    if op == "Shape":
        return op, [x], draw(st.sampled_from([{}, {"start": 1}, {"start": -2, "end": -1}])), 1
    return op, [x, ints(*some(-rank, rank - 1))], draw(st.sampled_from([{}, {"keepdims": 0}])), 1


@given(valued())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_shapes_that_depend_on_values(case: tuple[str, list[Shape | Constant | None], dict[str, object], int]) -> None:
    op, operands, attributes, count = case
    names = [f"x{i}" for i in range(len(operands))]
    node = helper.make_node(op, names, [f"y{i}" for i in range(count)], **attributes)  # type: ignore[arg-type]
    found = VALUE_RULES[op](operands, _attributes(node, 20), count)
    try:
        expected = infer(node, operands, [helper.make_opsetid("", 20)])
    except InferenceError:
        assert found is None or op in ("Gather", "Split", "Expand")  # onnx is stricter about values it can see
        return
    assert expected is not None
    if found is not None:
        assert found == expected
    else:
        assume(False)
