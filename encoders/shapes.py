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
    "Softmax LogSoftmax Sqrt Exp Neg Abs Reciprocal Swish"
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
    "Concat": _concat,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Einsum": _einsum,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Sum", "Pow", "Where"), broadcast),
}
"""Operator → the rule for the shape of its first output, for those whose shape is not that of the first operand."""
