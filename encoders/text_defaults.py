"""What a description need not say: the values that its writer leaves out and its parser puts in.

Both ask the functions of this module, so a default that is missing here, or does not fit a network, costs text and
nothing else. The few words and bounds that both have to agree on stand here as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from .graph import Shape
from .shapes import SHAPE_RULES

Attributes = Mapping[str, Any]

LARGEST = (1 << 63) - 1
"""Largest number of a description."""
MOST_PARAMETERS = 1000
"""Numbers that a block may take."""
MOST_TERMS = 2048
"""Terms of a sum, however it is written; canonical order takes time in their number squared."""
OPERATOR = re.compile(r"[A-Z]\w*|[A-Za-z_][\w.]*(?:::[\w.]+)++", re.ASCII)
"""Operators that need no quotes."""
RESERVED = frozenset({"shape", "w", "params", "tied", "dw", "repeat", "block", "out", "prev", "none", "inf", "nan"})
"""Words that are neither names of statements nor, without quotes, of attributes."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
WINDOWS = CONVOLUTIONS | POOLS
WEIGHED = CONVOLUTIONS | {"Linear"}
"""Operators with a width, from which their weight follows."""
NO_OPERAND = frozenset({"Input", "Zero"})

_BIASED = frozenset({*WEIGHED, "LayerNormalization", "GroupNormalization", "InstanceNormalization"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})

LETTERS = {"s": ("strides", 1), "d": ("dilations", 1), "p": ("pads", 0), "g": ("group", 1)}
"""Letter of a window operator: its attribute, and the number that stands for an attribute that is not there."""


def lettered(letter: str, number: int, rank: int) -> int | Shape | None:
    """The attribute's value that a letter with a number means, None for no attribute; rank: spatial dimensions."""
    if number == LETTERS[letter][1]:
        return None
    return number if letter == "g" else (number,) * (2 * rank if letter == "p" else rank)


def is_ints(value: Any) -> bool:
    """Whether this is a tuple of integers."""
    return type(value) is tuple and all(type(part) is int for part in value)


def spatial_rank(shapes: Sequence[Shape]) -> int:
    """Dimensions of the first operand behind batch and channels."""
    return max(0, len(shapes[0]) - 2) if shapes else 0


def attributes(op: str, shapes: Sequence[Shape], attributes: Attributes) -> dict[str, int]:
    """Attributes that need not be written if they have these values."""
    if op in _BIASED:
        return {"bias": 1}
    if op == "Concat":
        return {"axis": 1}
    if op == "Slice":
        axis = attributes.get("axis", 1)
        end = {"end": shapes[0][axis]} if type(axis) is int and shapes and 0 <= axis < len(shapes[0]) else {}
        return {"axis": 1, "start": 0, **end}
    return {}


def pads(op: str, kernel: Any, dilations: Any, rank: int) -> Shape | None:
    """Half the kernel on every side; None, for no attribute, if a kernel is even or all are 1."""
    if op == "ConvTranspose" or not is_ints(kernel) or len(kernel) != rank or not all(k % 2 for k in kernel):
        return None
    if not is_ints(dilations) or len(dilations) != rank:
        dilations = (1,) * rank
    half = tuple([d * (k - 1) // 2 for k, d in zip(kernel, dilations, strict=True)])
    return half * 2 if any(half) and min(half) >= 0 else None


def weight(
    op: str, shapes: Sequence[Shape], attributes: Attributes, width: int | None, kernel: Shape | None
) -> Shape | None:
    """Weight of one of the `WEIGHED`; None if it cannot be told.

    Without a width the operator keeps its channels, without a kernel it is a pointwise one.
    """
    x = shapes[0] if shapes else ()
    if op == "Linear":
        axis = 2 if attributes.get("left") else 1
        if len(x) < axis:
            return None
        given = x[-axis]
        width = given if width is None else width
        return (width, given) if axis == 2 else (given, width)
    group = attributes.get("group", 1)
    if len(x) < 3 or type(group) is not int or group < 1:
        return None
    width = x[1] if width is None else width
    first, second = (width, x[1]) if op == "Conv" else (x[1], width)
    return None if second % group else (first, second // group, *((1,) * (len(x) - 2) if kernel is None else kernel))


def weights(op: str, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Weights of the other operators."""
    x = shapes[0] if shapes else ()
    if op in ("LayerNormalization", "RMSNormalization") and x:
        return (x[-1:],)
    if op in ("GroupNormalization", "InstanceNormalization") and len(x) > 1:
        return ((x[1],),)
    if op == "PRelu" and len(x) > 1:
        return ((x[1],) + (1,) * (len(x) - 2),)
    return ((),) if op in _BINARY and len(shapes) == 1 else ()


def width_of(op: str, shape: Shape, attributes: Attributes) -> int:
    """Channels of an output; 0 if it has none."""
    axis = 1 if op != "Linear" else len(shape) - (2 if attributes.get("left") else 1)
    return shape[axis] if 0 <= axis < len(shape) else 0


def params(
    op: str, shape: Shape, attributes: Attributes, weights: tuple[Shape, ...], tied: bool, convolution_bias: int
) -> tuple[int, int, int]:
    """Learned numbers of the weights, channels, and how many more a channel has: `Node.params` is a + b * c."""
    base = sum([prod(weight) for weight in (weights[1:] if tied else weights)])
    bias = int(attributes.get("bias") == 1)
    if op == "BatchNormalization":
        return base, width_of(op, shape, attributes), 0 if weights else 2
    if op in WEIGHED:
        return base, width_of(op, shape, attributes), bias * (1 if op == "Linear" else convolution_bias)
    return base, prod(weights[0]) if bias and weights else 0, 1


def shape(op: str, shapes: Sequence[Shape], attributes: Attributes, weights: tuple[Shape, ...]) -> Shape | None:
    """The output shape that need not be written: that of a known operator, else that of the first operand."""
    if not shapes:
        return None
    x = shapes[0]
    found: Shape | None
    try:
        if op == "Linear":
            weight = weights[0]
            found = (*x[:-2], weight[0], x[-1]) if attributes.get("left") else (*x[:-1], weight[1])
        elif op == "Reshape":
            found = (x[0], prod(x[1:]))
        elif op == "Slice":
            axis = attributes["axis"]
            kept = len(range(attributes["start"], attributes["end"], attributes.get("step", 1)))
            found = (*x[:axis], kept, *x[axis + 1 :]) if 0 <= axis < len(x) else None
        elif op in SHAPE_RULES:
            found = SHAPE_RULES[op]([*shapes, *weights], attributes)
        else:
            found = x
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError):
        return None  # operands or attributes are not what the operator takes: the shape has to be written
    if not is_ints(found) or (found and not 0 <= min(found) <= max(found) <= LARGEST):
        return None
    return found
