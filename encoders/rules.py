"""From one ONNX operator to its canonical form.

Each operator of a file is given its operands, which are either nodes of the draft or constants, and a *rule* says what
it becomes: another operand, a constant, or a new node. Rules look backwards only, so an idiom such as `x * Sigmoid(x)`
is recognised at its last operator (`idioms`), and the rest falls away unless something else uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from . import idioms
from .draft import Attributes, Constant, Draft, Operand, RawOperator
from .errors import ReadError
from .graph import AttributeValue, Shape
from .idioms import reshape
from .shapes import broadcast

Rule = Callable[[Draft, RawOperator], "Operand | list[Operand]"]
RULES: dict[str, Rule] = {}
"""Operator name → rule. Operators without one go through `keep`."""


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Registers a rule for the operators named."""

    def register(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return register


def keep(draft: Draft, raw: RawOperator) -> list[Operand]:
    """Any operator as it is: nodes among its operands become inputs, constants become weights or attributes."""
    inputs: list[int] = []
    weights: list[Constant] = []
    attributes = dict(raw.attributes)
    early: list[int] = []
    for slot, operand in enumerate(raw.operands):
        if operand is None:
            continue
        if not isinstance(operand, Constant):
            inputs.append(operand)
            continue
        if operand.value is not None and operand.value.dtype.kind in "iub" and operand.value.size <= 16:
            attributes[f"input_{slot}"] = operand.ints() or ()
            continue
        if any(isinstance(later, int) for later in raw.operands[slot + 1 :]):
            early.append(slot)
        weights.append(_plain(draft, operand))
    if early:
        attributes["constant_slots"] = tuple(early)
    for name in ("axis", "axes"):
        if name in attributes:
            attributes[name] = positive_axes(attributes[name], len(draft.shape(inputs[0])))
    first = draft.add(raw.op, tuple(inputs), raw.shape, _sorted(attributes), tuple(weights))
    return _with_selects(draft, raw, first)


def _with_selects(draft: Draft, raw: RawOperator, first: int) -> list[Operand]:
    """The outputs of an operator that may have several."""
    others = [draft.add("Select", (first,), s, (("index", i),)) for i, s in enumerate(raw.shapes[1:], 1)]
    return [first, *others]


def _sorted(attributes: dict[str, Any]) -> Attributes:
    """Attributes sorted by name, floats at four digits (half precision has no more)."""
    return tuple([(name, _short(value)) for name, value in sorted(attributes.items())])


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, tuple):
        return tuple([_short(part) for part in value])
    return value


def positive_axes(axes: Any, rank: int) -> Any:
    """Axes counted from the front."""
    if isinstance(axes, int):
        return axes + rank if axes < 0 else axes
    return tuple([a + rank if a < 0 else a for a in axes])


def _plain(draft: Draft, constant: Constant) -> Constant:
    """The constant without leading dimensions of 1, which broadcasting adds anyway."""
    shape = constant.shape
    if not shape or shape[0] != 1:
        return constant
    return draft.derived(constant, "plain", _without_ones)


def _without_ones(constant: Constant, rank: int = 0) -> Constant:
    shape = constant.shape
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    value = None if constant.value is None else constant.value.reshape(shape)
    return Constant(shape, value, constant.sources, constant.dead)


# --- shapes as values ----------------------------------------------------------------------------------------------


@rule("Shape")
def _shape(draft: Draft, raw: RawOperator) -> Operand:
    shape = draft.shape(_node(raw, 0))
    array = np.asarray(shape[raw.attributes.get("start", 0) : raw.attributes.get("end", len(shape))], np.int64)
    return Constant(array.shape, array)


@rule("Size")
def _size(draft: Draft, raw: RawOperator) -> Operand:
    return Constant((), np.asarray(prod(draft.shape(_node(raw, 0)))))


# --- operators that do nothing at inference ------------------------------------------------------------------------


@rule("Identity", "Cast", "Dropout", "CastLike")
def _no_operation(_draft: Draft, raw: RawOperator) -> Operand:
    operand = raw.operands[0]
    assert operand is not None, "rules are for operators with a live operand"
    return operand


@rule("Where")
def _where(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A guard that replaces NaN, `Where(IsNaN(x), number, x)`, does nothing."""
    condition, _, otherwise = raw.operands
    if isinstance(condition, int) and isinstance(otherwise, int):
        test = draft.nodes[condition]
        if test.op == "IsNaN" and test.inputs == (otherwise,) and raw.constant(1) is not None:
            return otherwise
    return keep(draft, raw)


# --- linear operators ---------------------------------------------------------------------------------------------


@rule("Conv", "ConvTranspose")
def _convolution(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    op, operands, attributes, shapes, _, name = raw
    source, kernel = operands[0], operands[1]
    if not isinstance(source, int) or not isinstance(kernel, Constant):
        return keep(draft, raw)
    before = draft.nodes[source]
    group = attributes.get("group", 1)
    given, expected = before.shape[1], kernel.shape[1] * group if op == "Conv" else kernel.shape[0]
    if given != expected:
        raise ReadError(
            f"{op} of {given} channels with a kernel {kernel.shape} in {group} groups; expected {expected} channels",
            node=name,
        )
    spatial = kernel.shape[2:]
    pads = attributes.get("pads", ())
    auto = attributes.get("auto_pad", "NOTSET")
    if auto != "NOTSET":
        pads = ()
        if auto != "VALID" and op == "Conv":
            strides, dilations = attributes.get("strides", ()), attributes.get("dilations", ())
            pads = same_pads(before.shape[2:], spatial, strides, dilations, auto == "SAME_UPPER")
    if before.op == "Pad" and op == "Conv" and before.attribute("fill") == 0:
        merged = _merged_pads(before.attribute("pads"), pads, len(spatial))
        if merged is not None:
            pads, source = merged, before.inputs[0]
    bias = operands[2] if len(operands) > 2 else None
    kept = _window(
        attributes.get("strides", ()),
        pads,
        attributes.get("dilations", ()),
        group,
        attributes.get("output_padding", ()),
        isinstance(bias, Constant),
    )
    if bias is None:
        return draft.add(op, (source,), shapes[0], kept, (kernel,))
    if isinstance(bias, Constant):
        return draft.add(op, (source,), shapes[0], kept, (kernel,), bias.sources)
    return draft.add(op, (source, bias), shapes[0], kept, (kernel,))


@lru_cache(maxsize=4096)
def _window(
    strides: Shape, pads: Shape, dilations: Shape, group: int = 1, output_padding: Shape = (), bias: bool = False
) -> Attributes:
    """The attributes of a convolution or pool that differ from the defaults."""
    found: list[tuple[str, AttributeValue]] = []
    if bias:
        found.append(("bias", 1))
    if any(d != 1 for d in dilations):
        found.append(("dilations", dilations))
    if group != 1:
        found.append(("group", group))
    if any(output_padding):
        found.append(("output_padding", output_padding))
    if any(pads):
        found.append(("pads", pads))
    if any(s != 1 for s in strides):
        found.append(("strides", strides))
    return tuple(found)


def _merged_pads(around: Shape, inner: Shape, spatial: int) -> Shape | None:
    """Padding of a `Pad` and of the window behind it together; None if the Pad touches batch or channels."""
    half = len(around) // 2
    if half != spatial + 2 or any(around[:2]) or any(around[half : half + 2]):
        return None
    outer = (*around[2:half], *around[half + 2 :])
    return tuple([a + b for a, b in zip(outer, inner, strict=True)]) if inner else outer


def same_pads(size: Shape, kernel: Shape, strides: Shape, dilations: Shape, upper: bool) -> Shape:
    """Explicit padding (begins, then ends) of ONNX's `auto_pad` SAME_UPPER or SAME_LOWER."""
    begins, ends = [], []
    ones = (1,) * len(kernel)
    for n, k, s, d in zip(size, kernel, strides or ones, dilations or ones, strict=True):
        total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


@rule("Gemm")
def _gemm(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A Gemm is a MatMul and an Add."""
    left, right = raw.operands[0], raw.operands[1]
    if left is None or right is None:
        raise ReadError("Gemm with a left-out operand; expected two matrices", node=raw.name)
    if raw.attributes.get("transA"):
        left = _transposed(draft, left)
    if raw.attributes.get("transB"):
        right = _transposed(draft, right)
    shift = raw.operands[2] if len(raw.operands) > 2 and raw.attributes.get("beta", 1.0) != 0 else None
    if isinstance(shift, Constant) and shift.is_number(0):
        shift = None
    if isinstance(left, int) and isinstance(right, Constant) and isinstance(shift, Constant):
        return draft.add("Linear", (left,), raw.shape, (("bias", 1),), (right,), shift.sources)
    product = _product(draft, left, right, raw.shape)
    if shift is None:
        return product
    return _add(draft, RawOperator("Add", [product, shift], {}, raw.shapes, raw.opset, raw.name))


def _transposed(draft: Draft, operand: Operand) -> Operand:
    if isinstance(operand, int):
        return idioms.transpose(draft, operand, (1, 0))
    return draft.derived(operand, "transposed", lambda c: Constant(c.shape[::-1], None, c.sources, c.dead))


@rule("MatMul")
def _matmul(draft: Draft, raw: RawOperator) -> Operand:
    left, right = raw.operands
    assert left is not None, "shapes are known only if both operands are there"
    assert right is not None, "shapes are known only if both operands are there"
    return _product(draft, left, right, raw.shape)


def _product(draft: Draft, left: Operand, right: Operand, shape: Shape) -> Operand:
    if isinstance(left, int):
        if isinstance(right, Constant):
            return draft.add("Linear", (left,), shape, (), (_matrix(draft, right),))
        return idioms.attention(draft, left, right, shape) or draft.add("MatMul", (left, right), shape)
    if isinstance(right, int):
        return draft.add("Linear", (right,), shape, (("left", 1),), (_matrix(draft, left),))
    return Constant(shape, None, left.sources + right.sources)


def _matrix(draft: Draft, constant: Constant) -> Constant:
    if len(constant.shape) < 3 or constant.shape[0] != 1:
        return constant
    return draft.derived(constant, "matrix", lambda c: _without_ones(c, 2))


@rule("Einsum")
def _einsum(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """Two operands whose letters each are batch, contracted or free: transposes, a matrix product, transposes."""
    terms, _, out = str(raw.attributes.get("equation", "")).replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(raw.operands) != 2 or len(letters) != 2 or not out or "." in terms:
        return keep(draft, raw)
    a, b = letters
    left, right = raw.operands
    if left is None or right is None or any(len(set(t)) != len(t) for t in (a, b, out)):
        return keep(draft, raw)
    sizes = dict(zip(a, draft.shape(left), strict=True)) | dict(zip(b, draft.shape(right), strict=True))
    batch = [c for c in out if c in a and c in b]
    summed = [c for c in a if c in b and c not in out]
    rows, columns = ([c for c in out if c in t and c not in o] for t, o in ((a, b), (b, a)))
    if sorted(a) != sorted(batch + summed + rows) or sorted(b) != sorted(batch + summed + columns):
        return keep(draft, raw)
    outer = tuple([sizes[c] for c in batch])
    m, k, n = (prod(sizes[c] for c in group) for group in (rows, summed, columns))
    left = _arranged(draft, left, [a.index(c) for c in batch + rows + summed], (*outer, m, k))
    right = _arranged(draft, right, [b.index(c) for c in batch + summed + columns], (*outer, k, n))
    product = _product(draft, left, right, (*outer, m, n))
    now = batch + rows + columns
    product = _arranged(draft, product, list(range(len(outer) + 2)), tuple([sizes[c] for c in now]))
    return _arranged(draft, product, [now.index(c) for c in out], raw.shape)


def _arranged(draft: Draft, operand: Operand, perm: Sequence[int], shape: Shape) -> Operand:
    """The operand with its axes in another order and then in another shape."""
    if isinstance(operand, int):
        return reshape(draft, idioms.transpose(draft, operand, tuple(perm)), shape)
    return draft.derived(operand, f"{perm}{shape}", lambda c: Constant(shape, None, c.sources, c.dead))


@rule("LSTM", "GRU", "RNN")
def _recurrent(draft: Draft, raw: RawOperator) -> list[Operand]:
    matrices = [raw.constant(slot) for slot in (1, 2)]
    if raw.operands[0].__class__ is not int or None in matrices:
        return keep(draft, raw)
    bias = raw.constant(3)
    attributes = {k: v for k, v in raw.attributes.items() if k != "hidden_size"}
    if bias is not None:
        attributes["bias"] = 1
    states = [operand for operand in raw.operands[4:] if isinstance(operand, int)]
    first = draft.add(
        raw.op,
        (_node(raw, 0), *states),
        raw.shape,
        _sorted(attributes),
        tuple([matrix for matrix in matrices if matrix is not None]),
        bias.sources if bias is not None else (),
    )
    return _with_selects(draft, raw, first)


# --- normalisation ------------------------------------------------------------------------------------------------


@rule("BatchNormalization")
def _batch_norm(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    source, scale, shift = raw.operands[:3]
    if isinstance(source, int) and isinstance(scale, Constant) and isinstance(shift, Constant):
        return draft.add("BatchNormalization", (source,), raw.shapes[0], (), (), scale.sources + shift.sources)
    return keep(draft, raw)


@rule("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization")
def _normalization(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    if any(isinstance(operand, int) for operand in raw.operands[1:]):
        return keep(draft, raw)
    source = _node(raw, 0)
    rank = len(draft.shape(source))
    attributes = {k: v for k, v in raw.attributes.items() if k not in ("epsilon", "stash_type")}
    if "axis" in attributes:
        attributes["axis"] = positive_axes(attributes["axis"], rank)
        if attributes["axis"] == rank - 1:
            del attributes["axis"]
    scale, shift = raw.constant(1), raw.constant(2)
    if shift is not None:
        attributes["bias"] = 1
    first = draft.add(
        raw.op,
        (source,),
        raw.shape,
        _sorted(attributes),
        () if scale is None else (scale,),
        () if shift is None else shift.sources,
    )
    return _with_selects(draft, raw, first)


# --- sums and products --------------------------------------------------------------------------------------------


@rule("Add", "Sum")
def _add(draft: Draft, raw: RawOperator) -> Operand:
    """One sum of all operands that are nodes, then one of each constant; zeros are left out."""
    operands, shape = raw.operands, raw.shapes[0]
    left, right = operands[0], operands[-1]
    if len(operands) == 2 and left.__class__ is int and right.__class__ is int:
        return draft.add("Add", (left, right), shape)
    terms = tuple([operand for operand in operands if isinstance(operand, int)])
    total = terms[0]
    if len(terms) > 1:
        sizes = broadcast([draft.shape(term) for term in terms])
        if sizes is None:
            raise ReadError("a sum of shapes that do not broadcast", node=raw.name)
        total = draft.add("Add", terms, sizes)
    for operand in operands:
        if isinstance(operand, Constant) and not operand.dead and not operand.is_number(0):
            total = _shifted(draft, total, _plain(draft, operand))
    if draft.shape(total) != shape:  # a dead operand still broadcasts
        return draft.add("Expand", (total,), shape)
    return total


def _shifted(draft: Draft, position: int, shift: Constant) -> int:
    shape = broadcast((draft.shape(position), shift.shape)) or ()
    return idioms.shifted(draft, position, shift, shape) or draft.add("Add", (position,), shape, (), (shift,))


@rule("Sub")
def _sub(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    left, right = raw.operands
    if isinstance(left, int) and isinstance(right, Constant):
        return _add(draft, raw)
    return keep(draft, raw)


@rule("Mul")
def _mul(draft: Draft, raw: RawOperator) -> Operand:
    left, right = raw.operands
    if isinstance(left, Constant):
        left, right = right, left
    assert isinstance(left, int), "operators without a live operand are folded"
    assert right is not None, "shapes are known only if both operands are there"
    return _times(draft, left, right, raw.shapes[0])


def _times(draft: Draft, left: int, right: Operand, shape: Shape) -> Operand:
    if isinstance(right, Constant):
        if right.dead or right.is_number(0):
            return Constant(shape, None, dead=True)
        right = _plain(draft, right)
        if right.is_number(1) and draft.shape(left) == shape:
            return left
        found = idioms.activation(draft, left, right) or idioms.scaled(draft, left, right, shape)
        return found or draft.add("Mul", (left,), shape, (), (right,))
    if left != right:
        found = idioms.activation(draft, left, right) or _ratio(draft, left, right, shape)
        if found is not None:
            return found
    return draft.add("Mul", (left, right), shape)


def _ratio(draft: Draft, left: int, right: int, shape: Shape) -> int | None:
    """A product with a reciprocal is a quotient."""
    for numerator, inverse in ((left, right), (right, left)):
        node = draft.nodes[inverse]
        if node.op == "Reciprocal":
            return _quotient(draft, numerator, node.inputs[0], shape)
    return None


def _quotient(draft: Draft, numerator: int, denominator: int, shape: Shape) -> int:
    found = idioms.normalised(draft, numerator, denominator, shape)
    return draft.add("Div", (numerator, denominator), shape) if found is None else found


@rule("Div")
def _div(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    left, right = raw.operands
    if isinstance(left, int) and isinstance(right, int):
        return _quotient(draft, left, right, raw.shape)
    if isinstance(left, int) and isinstance(right, Constant):
        return _times(draft, left, draft.derived(right, "inverse", _inverse), raw.shape)
    if isinstance(left, Constant) and isinstance(right, int) and left.is_number(1) and draft.shape(right) == raw.shape:
        return draft.add("Reciprocal", (right,), raw.shape)
    return keep(draft, raw)


def _inverse(constant: Constant) -> Constant:
    value = constant.value
    if value is not None:
        value = np.divide(1.0, value.astype(np.float64), where=value != 0, out=np.full(value.shape, np.inf))
    return Constant(constant.shape, value, constant.sources)


@rule("Pow")
def _pow(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    source, exponent = raw.operands[0], raw.constant(1)
    if isinstance(source, int) and exponent is not None and draft.shape(source) == raw.shape:
        match exponent.scalar:
            case 1.0:
                return source
            case 2.0:
                return draft.add("Mul", (source, source), raw.shape)
            case 0.5:
                return draft.add("Sqrt", (source,), raw.shape)
            case -0.5:
                return draft.add("Reciprocal", (draft.add("Sqrt", (source,), raw.shape),), raw.shape)
    return keep(draft, raw)


# --- activations --------------------------------------------------------------------------------------------------


@rule("Clip")
def _clip(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    if any(isinstance(operand, int) for operand in raw.operands[1:]):
        return keep(draft, raw)
    bounds: list[float | None] = []
    for slot, name in ((1, "min"), (2, "max")):
        operand = raw.constant(slot)
        bounds.append(operand.scalar if operand is not None else raw.attributes.get(name))
    source = _node(raw, 0)
    named = {name: v for name, v in zip(("min", "max"), bounds, strict=True) if v is not None and abs(v) < 1e30}
    if named == {"min": 0}:
        return draft.add("Relu", (source,), raw.shape)
    if named == {"min": 0, "max": 6}:
        return draft.add("Relu6", (source,), raw.shape)
    return draft.add("Clip", (source,), raw.shape, _sorted(named)) if named else source


@rule("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "Mish", "Exp", "Sqrt", "Neg", "Abs", "Reciprocal", "HardSigmoid")
def _unary(draft: Draft, raw: RawOperator) -> Operand:
    """Operators whose attributes, if any, are left out: HardSigmoid's slope is 1/6 in torch and 1/5 in Keras."""
    return draft.add(raw.op, (raw.operands[0],), raw.shapes[0])  # type: ignore[arg-type]


@rule("Swish")
def _swish(draft: Draft, raw: RawOperator) -> Operand:
    return draft.add("Silu", (_node(raw, 0),), raw.shape)


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(draft: Draft, raw: RawOperator) -> Operand:
    """Before opset 13 these work on all axes from `axis` on at once."""
    source = _node(raw, 0)
    shape = raw.shape
    rank = len(shape)
    axis = positive_axes(raw.attributes.get("axis", 1 if raw.opset < 13 else -1), rank)
    if raw.opset < 13 and prod(shape[axis:]) != shape[axis]:
        flat = (prod(shape[:axis]), prod(shape[axis:]))
        return reshape(draft, draft.add(raw.op, (reshape(draft, source, flat),), flat), shape)
    return draft.add(raw.op, (source,), shape, () if axis == rank - 1 else (("axis", axis),))


# --- pooling and reduction ----------------------------------------------------------------------------------------


@rule("MaxPool", "AveragePool", "LpPool")
def _pool(draft: Draft, raw: RawOperator) -> list[Operand]:
    source = _node(raw, 0)
    attributes = raw.attributes
    kernel = tuple(attributes.get("kernel_shape", ()))
    strides, dilations = attributes.get("strides", ()), attributes.get("dilations", ())
    pads = attributes.get("pads", ())
    padding_counts = bool(attributes.get("count_include_pad"))
    auto = attributes.get("auto_pad", "NOTSET")
    if auto != "NOTSET":
        size = draft.shape(source)[2:]
        pads = () if auto == "VALID" else same_pads(size, kernel, strides, dilations, auto == "SAME_UPPER")
    before = draft.nodes[source]
    if before.op == "Pad" and (raw.op == "AveragePool" or not any(pads)):
        neutral = 0 if raw.op == "AveragePool" else -np.inf
        merged = _merged_pads(before.attribute("pads"), pads, len(kernel))
        fits = before.attribute("fill") == neutral and (padding_counts or not any(pads))
        if merged is not None and fits and raw.op != "LpPool":
            pads, source, padding_counts = merged, before.inputs[0], raw.op == "AveragePool"
    if kernel == draft.shape(source)[2:] and not any(pads) and raw.op != "LpPool" and len(raw.shapes) == 1:
        name = {"MaxPool": "GlobalMaxPool", "AveragePool": "GlobalAveragePool"}[raw.op]
        return [draft.add(name, (source,), raw.shape)]
    kept = (*_window(strides, pads, dilations), ("kernel_shape", kernel))
    if padding_counts and any(pads):
        kept += (("count_include_pad", 1),)
    return _with_selects(draft, raw, draft.add(raw.op, (source,), raw.shape, tuple(sorted(kept))))


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(draft: Draft, raw: RawOperator) -> Operand:
    return draft.add(raw.op, (_node(raw, 0),), raw.shape)


_REDUCTIONS = (
    "ReduceMean ReduceMax ReduceSum ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp"
)


@rule(*_REDUCTIONS.split())
def _reduce(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """The reduced axes stay as dimensions of 1. A mean over all axes behind the channels is global average pooling."""
    if any(isinstance(operand, int) for operand in raw.operands[1:]):
        return keep(draft, raw)
    source = _node(raw, 0)
    shape = draft.shape(source)
    given = raw.constant(1)
    axes = raw.attributes.get("axes") if given is None else given.ints()
    if not axes:
        if raw.attributes.get("noop_with_empty_axes"):
            return source if raw.op in _SAME_WITHOUT_AXES else keep(draft, raw)
        axes = tuple(range(len(shape)))
    axes = tuple(sorted(positive_axes(tuple(axes), len(shape))))
    kept = tuple([1 if i in axes else n for i, n in enumerate(shape)])
    pool = _POOLS.get(raw.op) if len(shape) > 2 and axes == tuple(range(2, len(shape))) else None
    reduced = draft.add(pool, (source,), kept) if pool else draft.add(raw.op, (source,), kept, (("axes", axes),))
    return reshape(draft, reduced, raw.shape)


_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
_SAME_WITHOUT_AXES = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceProd"})


# --- layout -------------------------------------------------------------------------------------------------------


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    source = raw.operands[0]
    if not isinstance(source, int):
        return keep(draft, raw)
    target = raw.constant(1)
    if raw.op == "Reshape" and target and target.value is not None and prod(draft.shape(source)) != prod(raw.shape):
        raise ReadError(f"{raw.op} from {draft.shape(source)} to {raw.shape}: other number of elements", node=raw.name)
    return reshape(draft, source, raw.shape)


@rule("Transpose")
def _transpose(draft: Draft, raw: RawOperator) -> Operand:
    source = _node(raw, 0)
    rank = len(draft.shape(source))
    perm = tuple(raw.attributes.get("perm") or reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise ReadError(f"Transpose of {rank} axes by {perm}; expected every axis once", node=raw.name)
    return idioms.transpose(draft, source, perm)


@rule("Expand", "Tile")
def _expand(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    source = raw.operands[0]
    if isinstance(source, int) and draft.shape(source) == raw.shape:
        return source
    if isinstance(source, Constant) or any(n != 1 for n in _grown(draft.shape(_node(raw, 0)), raw.shape)):
        return keep(draft, raw)
    return draft.add("Expand", (_node(raw, 0),), raw.shape)


def _grown(before: Shape, after: Shape) -> list[int]:
    """The sizes, of the axes that change, before they do."""
    padded = (1,) * (len(after) - len(before)) + before
    return [a for a, b in zip(padded, after, strict=True) if a != b]


@rule("Resize", "Upsample")
def _resize(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """The shape says the scale; of the options only the mode is kept (which coordinates are meant is lost)."""
    if not isinstance(raw.operands[0], int):
        return keep(draft, raw)
    source = _node(raw, 0)
    if draft.shape(source) == raw.shape:
        return source
    mode = raw.attributes.get("mode", "nearest")
    return draft.add("Resize", (source,), raw.shape, () if mode == "nearest" else (("mode", mode),))


@rule("Concat")
def _concat(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    if len(raw.operands) == 1:
        return _node(raw, 0)
    return keep(draft, raw)


def _cut(draft: Draft, source: int, axis: int, start: int, end: int, step: int, shape: Shape) -> int:
    """A slice along one axis. Of slices in a row those along earlier axes come first."""
    if shape == draft.shape(source) and step == 1:
        return source
    before = draft.nodes[source]
    if before.op == "Slice" and before.attribute("axis") > axis:
        whole = draft.shape(before.inputs[0])
        inner = _cut(draft, before.inputs[0], axis, start, end, step, (*whole[:axis], shape[axis], *whole[axis + 1 :]))
        return draft.add("Slice", (inner,), shape, before.attributes)
    attributes: list[tuple[str, AttributeValue]] = [("axis", axis), ("end", end), ("start", start)]
    if step != 1:
        attributes.append(("step", step))
    return draft.add("Slice", (source,), shape, tuple(attributes))


@rule("Slice")
def _slice(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A slice of several axes is a chain of slices of one, in the order of the axes."""
    given = [_integers(raw, slot, name) for slot, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))]
    if given[0] is None or given[1] is None or any(isinstance(o, int) for o in raw.operands[1:]):
        return keep(draft, raw)
    starts, ends = given[0], given[1]
    position = _node(raw, 0)
    shape = draft.shape(position)
    axes = positive_axes(given[2] or tuple(range(len(starts))), len(shape))
    steps = given[3] or (1,) * len(starts)
    for axis, start, end, step in sorted(zip(axes, starts, ends, steps, strict=True)):
        kept = range(shape[axis])[start : (None if end < -(2**31) else end) : step]
        now = draft.shape(position)
        cut = (*now[:axis], len(kept), *now[axis + 1 :])
        stop = kept.stop if step > 0 else -1
        position = _cut(draft, position, axis, kept.start, stop, step, cut)
    return position


def _integers(raw: RawOperator, slot: int, name: str) -> tuple[int, ...] | None:
    """What newer opsets give as an operand and older ones as an attribute."""
    operand = raw.constant(slot)
    found = raw.attributes.get(name) if operand is None else operand.ints()
    return None if found is None else tuple(found)


@rule("Split")
def _split(draft: Draft, raw: RawOperator) -> list[Operand]:
    source = _node(raw, 0)
    axis = positive_axes(raw.attributes.get("axis", 0), len(draft.shape(source)))
    parts: list[Operand] = []
    start = 0
    for shape in raw.shapes:
        parts.append(_cut(draft, source, axis, start, start + shape[axis], 1, shape))
        start += shape[axis]
    return parts


@rule("Gather")
def _gather(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """Rows of a stored table are an embedding, neighbours in a signal a slice."""
    table, indices = raw.operands[0], raw.operands[1]
    if isinstance(table, Constant) and isinstance(indices, int):
        return draft.add("Embedding", (indices,), raw.shape, (), (table,))
    picked = indices.ints() if isinstance(indices, Constant) else None
    if isinstance(table, int) and picked:
        shape = draft.shape(table)
        axis = positive_axes(raw.attributes.get("axis", 0), len(shape))
        start, count = picked[0] % max(shape[axis], 1), len(picked)
        if start + count <= shape[axis] and all(i % shape[axis] == start + n for n, i in enumerate(picked)):
            cut = _cut(draft, table, axis, start, start + count, 1, (*shape[:axis], count, *shape[axis + 1 :]))
            return reshape(draft, cut, raw.shape)
    return keep(draft, raw)


@rule("Pad")
def _pad(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """Padding of all axes; `fill` is what is put there if the mode is constant and the number is known."""
    if any(isinstance(operand, int) for operand in raw.operands[1:]):
        return keep(draft, raw)
    source = _node(raw, 0)
    rank = len(draft.shape(source))
    around = _integers(raw, 1, "pads") or raw.attributes.get("paddings")
    if around is None:
        return keep(draft, raw)
    given = raw.constant(3)
    if given is not None:
        axes = positive_axes(given.ints() or (), rank)
        spread = [0] * (2 * rank)
        for i, axis in enumerate(axes):
            spread[axis], spread[axis + rank] = around[i], around[i + len(axes)]
        around = tuple(spread)
    if not any(around):
        return source
    mode = raw.attributes.get("mode", "constant")
    fill = raw.constant(2)
    number = raw.attributes.get("value", 0.0) if fill is None else fill.scalar
    attributes: dict[str, AttributeValue] = {"pads": around}
    if mode != "constant":
        attributes["mode"] = mode
    elif number is not None:
        attributes["fill"] = float(number) if abs(number) < 1e30 else float("-inf") if number < 0 else float("inf")
    return draft.add("Pad", (source,), raw.shape, _sorted(attributes))


def _node(raw: RawOperator, slot: int) -> int:
    """The operand in this slot, which has to be a node."""
    operand = raw.operands[slot] if slot < len(raw.operands) else None
    if isinstance(operand, int):
        return operand
    raise ReadError(
        f"operand {slot} of {raw.op} is a constant where a signal is expected; check the model", node=raw.name
    )
