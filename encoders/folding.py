"""Constant folding: operators none of whose operands depends on an input, most of them arithmetic on shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .draft import SMALL, Constant, Operand, RawOperator, Sources, stored_as_integers


def fold(raw: RawOperator) -> list[Operand]:
    """Outputs of an operator all of whose operands are constants: constants again, with values where cheap to know."""
    value = known_value(raw.op, raw.operands, raw.attributes, raw.name) if len(raw.shapes) == 1 else None
    if value is not None:
        return [value]
    operands = [operand for operand in raw.operands if isinstance(operand, Constant)]
    if raw.op == "DequantizeLinear" and operands and not operands[0].sources:  # weights stored as integers
        return [stored_as_integers(raw.shapes[0], raw.name)]
    sources = tuple(dict.fromkeys(source for operand in operands for source in operand.sources))
    dead = any(operand.dead for operand in operands)
    fill = None if sources or dead or len(raw.shapes) > 1 else _filling(raw)
    return [Constant(shape, None, sources, dead, fill) for shape in raw.shapes]


def _filling(raw: RawOperator) -> np.ndarray | None:
    """The number that a tensor too large to keep is full of, if it is made of such tensors."""
    operands = raw.operands
    if raw.op in _REARRANGING:
        first = operands[0]
        return first.uniform() if isinstance(first, Constant) else None
    if raw.op not in _ON_ELEMENTS:
        return None
    values = [operand.uniform() if isinstance(operand, Constant) else None for operand in operands]
    if any(value is None for value in values):
        return None
    value = evaluate(raw.op, values, raw.attributes)
    return value if value is not None and not value.ndim else None


def known_value(
    op: str, operands: Sequence[Operand | None], attributes: Mapping[str, Any], name: str
) -> Constant | None:
    """What an operator puts out, if that can be computed now; None if not."""
    if not operands:
        return None
    sources: Sources = ()
    known = True
    for operand in operands:
        if isinstance(operand, Constant):
            sources += operand.sources
            known = known and operand.value is not None and not operand.dead
        elif operand is not None:
            return None
    first = operands[0]
    if not isinstance(first, Constant):
        return None
    if op == "ConstantOfShape":
        return _filled(first, attributes, name)
    if op == "Shape":
        sizes = first.shape[attributes.get("start", 0) : attributes.get("end", len(first.shape))]
        return Constant((len(sizes),), np.asarray(sizes, np.int64))
    if op == "Size":
        return Constant((), np.asarray(prod(first.shape), np.int64))
    if not known:
        return None
    value = evaluate(op, [None if o is None else o.value for o in operands], attributes)  # type: ignore[union-attr]
    if value is None:
        return None
    return Constant(value.shape, value, tuple(dict.fromkeys(sources)) if value.dtype.kind == "f" else ())


def _filled(size: Constant, attributes: Mapping[str, Any], name: str) -> Constant | None:
    """A tensor of one number. With any number but 0 and those that masks are made of, it stands for a weight."""
    shape = size.ints()
    if shape is None:
        return None
    fill = attributes.get("value", (0.0,))[0]
    count = prod(shape)
    learned = isinstance(fill, float) and 0 < abs(fill) < 1 and count > 1
    if learned:
        return Constant(shape, None, ((name, count),))
    if count > SMALL:
        return Constant(shape, fill=np.asarray(fill))
    return Constant(shape, np.full(shape, fill))


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mod": np.mod,
    "Pow": np.power,
    "Xor": np.logical_xor,
}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Round": np.round,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sqrt": np.sqrt,
}
_REDUCING: dict[str, Callable[..., Any]] = {
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
}


_REARRANGING = frozenset({"Expand", "Tile", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Identity"})
_ON_ELEMENTS = frozenset({*_BINARY, *_UNARY, "Where", "Cast", "CastLike", "Clip", "Div"})


def evaluate(op: str, values: list[Any], attributes: Mapping[str, Any]) -> np.ndarray | None:
    """The value of an operator on small known constants; None if it is not simple arithmetic on shapes."""
    with np.errstate(all="ignore"):
        try:
            result = _evaluate(op, values, attributes)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError):
            return None
    if result is None:
        return None
    result = np.asarray(result)
    return result if result.size <= SMALL else None


def _evaluate(op: str, values: list[Any], attributes: Mapping[str, Any]) -> Any:
    first = values[0]
    if op in _BINARY and len(values) == 2:
        return _BINARY[op](*values)
    if op in _UNARY:
        return _UNARY[op](first)
    if op in _REDUCING:
        given = attributes.get("axes") if len(values) < 2 else values[1]
        over = None if given is None or not np.size(given) else tuple(int(a) for a in np.reshape(given, -1))
        if over is None and attributes.get("noop_with_empty_axes"):
            return first
        return _REDUCING[op](first, axis=over, keepdims=bool(attributes.get("keepdims", 1)))
    match op:
        case "Clip":
            low, high = [*values, None, None][1:3]
            low = attributes.get("min") if low is None else low
            high = attributes.get("max") if high is None else high
            return first if low is None and high is None else np.clip(first, low, high)
        case "Tile":
            count = prod(int(v) for v in values[1]) * first.size
            return np.tile(first, [int(v) for v in values[1]]) if 0 <= count <= SMALL else None
        case "Div":
            exact = first.dtype.kind in "iu"
            return np.trunc(first / values[1]).astype(first.dtype) if exact else np.divide(*values)
        case "Identity" | "Dropout":
            return first
        case "CastLike":
            return first.astype(values[1].dtype)
        case "Cast":
            return first.astype(_NUMPY.get(attributes.get("to", 0), first.dtype))
        case "Gather":
            return np.take(first, values[1], axis=attributes.get("axis", 0))
        case "Concat":
            return np.concatenate([np.atleast_1d(v) for v in values], axis=attributes.get("axis", 0))
        case "Unsqueeze" | "Squeeze":
            axes = attributes.get("axes") if "axes" in attributes else (values[1] if len(values) > 1 else None)
            axes = None if axes is None else tuple(int(a) for a in np.reshape(axes, -1))
            if op == "Squeeze":
                return np.squeeze(first, axes)
            return np.expand_dims(first, axes or ())
        case "Slice" if len(values) >= 3:
            starts, ends = values[1], values[2]
            axes = values[3] if len(values) > 3 and values[3] is not None else np.arange(len(starts))
            steps = values[4] if len(values) > 4 and values[4] is not None else np.ones(len(starts), int)
            index: list[Any] = [slice(None)] * first.ndim
            for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
                index[int(axis)] = slice(int(start), int(end) if end > -(2**31) else None, int(step))
            return first[tuple(index)]
        case "Reshape":
            return first.reshape([int(v) for v in values[1]])
        case "Transpose":
            return np.transpose(first, attributes.get("perm"))
        case "Range":
            count = (values[1] - values[0]) / values[2]
            return np.arange(values[0], values[1], values[2]) if 0 <= count <= SMALL else None
        case "Expand":
            shape = [int(v) for v in values[1]]
            return first * np.ones(shape, first.dtype) if prod(shape) <= SMALL else None
        case "Where":
            return np.where(*values)
    return None


_NUMPY: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}
