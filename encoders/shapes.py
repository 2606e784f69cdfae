"""Output shapes of the operators that networks are mostly made of.

`onnx.shape_inference` knows every operator, but asking it costs more than all the rest of reading the operator. So the
reader asks this table first, and onnx (`inference`) only for an operator, or a case, that the table leaves out. Tests
compare the two. Every function takes the operands' shapes (None where an optional operand is left out) and the
attributes that differ from the defaults, and gives the first output's shape, or None if it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from .draft import Constant
from .graph import Shape

Shapes = Sequence[Shape | None]
ShapeRule = Callable[[Shapes, Mapping[str, Any]], Shape | None]


def broadcast(shapes: Shapes, _attributes: Mapping[str, Any] | None = None) -> Shape | None:
    """The shape of numpy broadcasting; None if the shapes do not fit."""
    result = shapes[0]
    if result is None:
        return None
    for shape in shapes[1:]:
        if shape == result:
            continue
        if shape is None:
            return None
        long, short = (result, shape) if len(result) >= len(shape) else (shape, result)
        start = len(long) - len(short)
        sizes = list(long)
        for i, size in enumerate(short):
            other = long[start + i]
            if size != other:
                if other != 1 and size != 1:
                    return None
                sizes[start + i] = size if other == 1 else other
        result = tuple(sizes)
    return result


def _windows(size: Shape, kernel: Shape, attributes: Mapping[str, Any]) -> Shape | None:
    """Spatial output sizes of a convolution or pool (ONNX operator reference, `Conv` and `MaxPool`)."""
    rank = len(kernel)
    if len(size) != rank:
        return None
    strides = attributes.get("strides") or (1,) * rank
    if not all(strides):
        return None
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return tuple([-(-n // s) for n, s in zip(size, strides, strict=True)])
    pads = attributes.get("pads") or (0,) * (2 * rank)
    dilations = attributes.get("dilations") or (1,) * rank
    if len(pads) != 2 * rank or len(strides) != rank or len(dilations) != rank:
        return None
    ceil = attributes.get("ceil_mode", 0)
    sizes = []
    for i in range(rank):
        room = size[i] + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1
        if room < 0:
            return None
        count = -(-room // strides[i]) + 1 if ceil else room // strides[i] + 1
        if ceil and (count - 1) * strides[i] >= size[i] + pads[i]:
            count -= 1
        sizes.append(count)
    return tuple(sizes)


def _conv(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    x, kernel = shapes[0], shapes[1]
    if x is None or kernel is None or len(x) != len(kernel) or x[1] != kernel[1] * attributes.get("group", 1):
        return None
    sizes = _windows(x[2:], kernel[2:], attributes)
    return None if sizes is None else (x[0], kernel[0], *sizes)


def _pool(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    x, kernel = shapes[0], attributes.get("kernel_shape")
    if x is None or not kernel:
        return None
    sizes = _windows(x[2:], kernel, attributes)
    return None if sizes is None else (*x[:2], *sizes)


def _global_pool(shapes: Shapes, _attributes: Mapping[str, Any]) -> Shape | None:
    x = shapes[0]
    return None if x is None or len(x) < 2 else x[:2] + (1,) * (len(x) - 2)


def _gemm(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    a, b = shapes[0], shapes[1]
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    a = a[::-1] if attributes.get("transA") else a
    b = b[::-1] if attributes.get("transB") else b
    return (a[0], b[1]) if a[1] == b[0] else None


def _matmul(shapes: Shapes, _attributes: Mapping[str, Any]) -> Shape | None:
    a, b = shapes[0], shapes[1]
    if a is None or b is None or len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        return None
    outer = broadcast((a[:-2], b[:-2]))
    return None if outer is None else (*outer, a[-2], b[-1])


def _operands(rule: ShapeRule, *slots: int) -> ShapeRule:
    """The rule for an operator whose first two operands stand in these slots (scales and zero points between them)."""
    return lambda shapes, attributes: rule([shapes[slot] for slot in slots], attributes)


def _concat(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    first, axis = shapes[0], attributes.get("axis")
    if first is None or axis is None or not -len(first) <= axis < len(first):
        return None
    axis %= len(first)
    total = 0
    for shape in shapes:
        if shape is None or len(shape) != len(first) or shape[:axis] != first[:axis]:
            return None
        if shape[axis + 1 :] != first[axis + 1 :]:
            return None
        total += shape[axis]
    return (*first[:axis], total, *first[axis + 1 :])


def _flatten(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    x = shapes[0]
    if x is None:
        return None
    axis = attributes.get("axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    return (prod(x[:axis]), prod(x[axis:]))


def _transpose(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    x = shapes[0]
    if x is None:
        return None
    perm = attributes.get("perm")
    if perm is None:
        return x[::-1]
    return tuple([x[p] for p in perm]) if sorted(perm) == list(range(len(x))) else None


def _einsum(shapes: Shapes, attributes: Mapping[str, Any]) -> Shape | None:
    """Einstein summation; `...` stands for axes that broadcast (ONNX operator reference, `Einsum`)."""
    terms, arrow, out = str(attributes.get("equation", "")).replace(" ", "").partition("->")
    names = terms.split(",")
    if len(names) != len(shapes):
        return None
    sizes: dict[str, int] = {}
    outer: Shape = ()
    for term, shape in zip(names, shapes, strict=True):
        head, dots, tail = term.partition("...")
        rest = 0 if shape is None else len(shape) - len(head) - len(tail)
        if shape is None or rest < 0 or (rest and not dots) or not all(map(str.isalpha, head + tail)):
            return None
        common = broadcast((outer, shape[len(head) : len(head) + rest]))
        if common is None:
            return None
        outer = common
        for letter, size in zip(head + tail, shape[: len(head)] + shape[len(head) + rest :], strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    if not arrow:
        out = ("..." if "..." in terms else "") + "".join(c for c in sorted(sizes) if terms.count(c) == 1)
    head, dots, tail = out.partition("...")
    if not sizes.keys() >= set(head + tail):
        return None
    return tuple([sizes[c] for c in head]) + (outer if dots else ()) + tuple([sizes[c] for c in tail])


_UNCHANGED = (
    "BatchNormalization LayerNormalization GroupNormalization InstanceNormalization RMSNormalization LRN Identity "
    "Dropout Cast Relu LeakyRelu Elu Selu Celu Gelu HardSwish HardSigmoid Sigmoid Tanh Softplus Mish Erf Clip "
    "Softmax LogSoftmax Sqrt Exp Neg Abs Reciprocal Swish QuantizeLinear DequantizeLinear Sin Cos Log Floor Ceil Round "
    "CastLike Sign Not IsNaN Trilu PRelu ThresholdedRelu Softsign Erfc ScatterND ScatterElements"
)
UNCHANGED = frozenset(_UNCHANGED.split())
"""Operators whose (first) output has the shape of their first operand."""

SHAPE_RULES: dict[str, ShapeRule] = {
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QLinearConv": _operands(_conv, 0, 3),
    "ConvInteger": _operands(_conv, 0, 1),
    "QLinearMatMul": _operands(_matmul, 0, 3),
    "MatMulInteger": _operands(_matmul, 0, 1),
    "Concat": _concat,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Einsum": _einsum,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum", "Pow", "Where", "Max", "Min", "Mod"), broadcast),
    **dict.fromkeys(("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or"), broadcast),
}
"""Operator → the rule for the shape of its first output, for those whose shape is not that of the first operand."""


# --- shapes that depend on values ----------------------------------------------------------------------------------

Known = Sequence["Shape | Constant | None"]
ValueRule = Callable[[Known, Mapping[str, Any], int], "list[Shape] | None"]
"""Operands (shapes, or constants whose values may be known), attributes, number of outputs → shapes of the outputs."""


def _shape_of(operand: Shape | Constant | None) -> Shape | None:
    return operand.shape if isinstance(operand, Constant) else operand


def _ints(operands: Known, slot: int, attributes: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    """What newer opsets give as an operand and older ones as an attribute; None if it is absent or not known."""
    operand = operands[slot] if slot < len(operands) else None
    if isinstance(operand, Constant):
        return operand.ints()
    return attributes.get(name) if operand is None else None


def _axes(operands: Known, slot: int, attributes: Mapping[str, Any], rank: int) -> tuple[int, ...] | None:
    """Axes counted from the front, each once, or None."""
    given = _ints(operands, slot, attributes, "axes")
    if given is None or any(not -rank <= axis < rank for axis in given):
        return None
    axes = tuple(sorted([axis % rank for axis in given]))
    return axes if len(set(axes)) == len(axes) else None


def _reshaped(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, target = _shape_of(operands[0]), _ints(operands, 1, attributes, "shape")
    if x is None or target is None or 0 in x or (0 in target and attributes.get("allowzero")):
        return None
    sizes = [x[i] if size == 0 and i < len(x) else size for i, size in enumerate(target)]
    if -1 in sizes:
        rest = -prod(sizes)
        if sizes.count(-1) > 1 or not rest:
            return None
        sizes[sizes.index(-1)] = prod(x) // rest
    return [tuple(sizes)] if prod(sizes) == prod(x) and min(sizes, default=1) > 0 else None


def _unsqueezed(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, given = _shape_of(operands[0]), _ints(operands, 1, attributes, "axes")
    if x is None or given is None:
        return None
    axes = _axes(operands, 1, attributes, len(x) + len(given))
    if axes is None:
        return None
    sizes = iter(x)
    return [tuple([1 if i in axes else next(sizes) for i in range(len(x) + len(axes))])]


def _squeezed(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x = _shape_of(operands[0])
    axes = None if x is None else _axes(operands, 1, attributes, len(x))
    if x is None or axes is None or any(x[axis] != 1 for axis in axes):
        return None
    return [tuple([n for i, n in enumerate(x) if i not in axes])]


def _sliced(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, starts, ends = (
        _shape_of(operands[0]),
        *[_ints(operands, slot, attributes, name) for slot, name in ((1, "starts"), (2, "ends"))],
    )
    if x is None or starts is None or ends is None or len(starts) != len(ends):
        return None
    named = len(operands) > 3 or "axes" in attributes
    axes = _ints(operands, 3, attributes, "axes") if named else tuple(range(len(starts)))
    steps = _ints(operands, 4, attributes, "steps") if len(operands) > 4 else None
    if steps is None and len(operands) <= 4:
        steps = (1,) * len(starts)
    if axes is None or steps is None or not len(axes) == len(starts) == len(steps) or min(steps) < 1:
        return None
    if any(not -len(x) <= axis < len(x) for axis in axes):
        return None
    sizes = list(x)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        sizes[axis] = len(range(x[axis])[start:end:step])
    return [tuple(sizes)]


def _reduced(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x = _shape_of(operands[0])
    axes = None if x is None else _axes(operands, 1, attributes, len(x))
    if x is None or not axes:
        return None
    if attributes.get("keepdims", 1):
        return [tuple([1 if i in axes else n for i, n in enumerate(x)])]
    return [tuple([n for i, n in enumerate(x) if i not in axes])]


def _expanded(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, target = _shape_of(operands[0]), _ints(operands, 1, attributes, "shape")
    shape = None if x is None or target is None or min(target, default=1) < 1 else broadcast((x, target))
    return None if shape is None else [shape]


def _tiled(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, repeats = _shape_of(operands[0]), _ints(operands, 1, attributes, "repeats")
    if x is None or repeats is None or len(repeats) != len(x) or min(repeats, default=1) < 1:
        return None
    return [tuple([n * times for n, times in zip(x, repeats, strict=True)])]


def _gathered(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, indices = _shape_of(operands[0]), _shape_of(operands[1])
    axis = attributes.get("axis", 0)
    if x is None or indices is None or not -len(x) <= axis < len(x):
        return None
    axis %= len(x)
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def _split(operands: Known, attributes: Mapping[str, Any], count: int) -> list[Shape] | None:
    x, axis = _shape_of(operands[0]), attributes.get("axis", 0)
    if x is None or not -len(x) <= axis < len(x):
        return None
    axis %= len(x)
    sizes = _ints(operands, 1, attributes, "split")
    if sizes is None:
        if len(operands) > 1 or x[axis] % count:
            return None
        sizes = (x[axis] // count,) * count
    if len(sizes) != count or sum(sizes) != x[axis] or min(sizes) < 0:
        return None
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def _padded(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x, pads = _shape_of(operands[0]), _ints(operands, 1, attributes, "pads")
    if x is None or pads is None or len(operands) > 3 or len(pads) != 2 * len(x):
        return None
    sizes = tuple([n + pads[i] + pads[i + len(x)] for i, n in enumerate(x)])
    return [sizes] if min(sizes, default=1) >= 0 else None


def _sizes(operands: Known, attributes: Mapping[str, Any], _count: int) -> list[Shape] | None:
    x = _shape_of(operands[0])
    return None if x is None else [(len(x[attributes.get("start", 0) : attributes.get("end", len(x))]),)]


VALUE_RULES: dict[str, ValueRule] = {
    "Shape": _sizes,
    "Reshape": _reshaped,
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed,
    "Slice": _sliced,
    "Expand": _expanded,
    "Tile": _tiled,
    "Gather": _gathered,
    "Split": _split,
    "Pad": _padded,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"), _reduced),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"), _reduced),
}
"""Operator → the rule for the shapes of its outputs, where they depend on operands' values."""
