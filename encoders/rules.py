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
from .draft import Attributes, Constant, Draft, Operand, RawOperator, Sources, stored_as_integers, without_ones
from .errors import ReadError
from .graph import AttributeValue, Shape
from .layout import LAYOUT, along_axis, axis_below, elementwise, over_axes, reshape, transpose
from .operators import KINDS, Kind
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
    if len(raw.shapes) == 1 and raw.op in _ELEMENTWISE and None not in raw.operands:
        for operand in raw.operands:
            if isinstance(operand, int) and draft.nodes[operand].op in LAYOUT:
                return [elementwise(draft, raw.operands, raw.shape, lambda o, s: _kept(draft, raw, o, [s])[0])]  # type: ignore[arg-type, return-value]
    return _kept(draft, raw, raw.operands, raw.shapes)


_ELEMENTWISE = frozenset(op for op, kind in KINDS.items() if kind in (Kind.ACTIVATION, Kind.ELEMENTWISE)) | {
    "Sub",
    "Div",
}


def _kept(draft: Draft, raw: RawOperator, operands: Sequence[Operand | None], shapes: list[Shape]) -> list[Operand]:
    inputs: list[int] = []
    weights: list[Constant] = []
    attributes = dict(raw.attributes)
    early: list[int] = []
    for slot, operand in enumerate(operands):
        if operand is None:
            continue
        if not isinstance(operand, Constant):
            inputs.append(operand)
            continue
        if operand.value is not None and operand.value.dtype.kind in "iub" and operand.value.size <= 16:
            attributes[f"input_{slot}"] = operand.ints() or ()
            continue
        if any(isinstance(later, int) for later in operands[slot + 1 :]):
            early.append(slot)
        weights.append(draft.plain(operand))
    if early:
        attributes["constant_slots"] = tuple(early)
    for name in ("axis", "axes"):
        if name in attributes:
            attributes[name] = positive_axes(attributes[name], len(draft.shape(inputs[0])))
    first = draft.add(raw.op, tuple(inputs), shapes[0], _sorted(attributes), tuple(weights))
    return _with_selects(draft, shapes, first)


def _with_selects(draft: Draft, shapes: Sequence[Shape], first: int) -> list[Operand]:
    """The outputs of an operator that may have several."""
    others = [draft.add("Select", (first,), s, (("index", i),)) for i, s in enumerate(shapes[1:], 1)]
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
    source = _unscaled(draft, source)
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
    if op == "Conv" and (before.op == "Pad" or before.op == "Transpose"):
        padding = _padding(draft, source)
        merged = None if padding is None else _merged_pads(padding[0], pads, len(spatial))
        if padding is not None and padding[1] == 0 and merged is not None:
            pads, source = merged, padding[2]
    bias = operands[2] if len(operands) > 2 else None
    if isinstance(bias, Constant) and bias.is_number(0):
        bias = None
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


def _padding(draft: Draft, source: int) -> tuple[Shape, float | None, int] | None:
    """What a Pad, perhaps with a transpose behind it, puts around a signal: pads, number, and the signal without."""
    node = draft.nodes[source]
    if node.op == "Pad":
        return node.attribute("pads"), node.attribute("fill"), node.inputs[0]
    before = draft.nodes[node.inputs[0]] if node.op == "Transpose" else node
    if before.op != "Pad":
        return None
    perm: tuple[int, ...] = node.attribute("perm")
    pads: Shape = before.attribute("pads")
    moved = (*[pads[axis] for axis in perm], *[pads[axis + len(perm)] for axis in perm])
    return moved, before.attribute("fill"), transpose(draft, before.inputs[0], perm)


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
        return _linear(draft, left, right, (("bias", 1),), shift.sources)
    product = _product(draft, left, right, raw.shape)
    if shift is None:
        return product
    return _add(draft, RawOperator("Add", [product, shift], {}, raw.shapes, raw.opset, raw.name))


def _transposed(draft: Draft, operand: Operand) -> Operand:
    if isinstance(operand, int):
        return transpose(draft, operand, (1, 0))
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
            matrix = _matrix(draft, right)
            if len(matrix.shape) == 2 and len(draft.shape(left)) > 1:
                return _linear(draft, left, matrix)
            return draft.add("Linear", (left,), shape, (), (matrix,))
        return idioms.attention(draft, left, right, shape) or draft.add("MatMul", (left, right), shape)
    if isinstance(right, int):
        return draft.add("Linear", (right,), shape, (("left", 1),), (_matrix(draft, left),))
    return Constant(shape, None, left.sources + right.sources)


def _linear(draft: Draft, source: int, matrix: Constant, attributes: Attributes = (), bias: Sources = ()) -> int:
    """A product of the last axis with a learned matrix."""

    def make(position: int, _axis: int) -> int:
        position = _unscaled(draft, position)
        shape = (*draft.shape(position)[:-1], matrix.shape[1])
        return draft.add("Linear", (position,), shape, attributes, (matrix,), bias)

    return along_axis(draft, source, len(draft.shape(source)) - 1, make, last=True)


def _matrix(draft: Draft, constant: Constant) -> Constant:
    if len(constant.shape) < 3 or constant.shape[0] != 1:
        return constant
    return draft.derived(constant, "matrix", lambda c: without_ones(c, 2))


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
        return reshape(draft, transpose(draft, operand, tuple(perm)), shape)
    return draft.derived(operand, f"{perm}{shape}", lambda c: Constant(shape, None, c.sources, c.dead))


@rule("Attention")
def _attention(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """One operator since opset 23: heads apart, grouped keys and values repeated, scale dropped."""
    signals = raw.operands[:3]
    if not all(isinstance(operand, int) for operand in signals) or len(raw.shapes) > 1 or len(raw.operands) > 4:
        return keep(draft, raw)
    heads = [raw.attributes.get(name, 0) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    q, k, v = (_heads(draft, s, count) for s, count in zip(signals, heads, strict=True))  # type: ignore[arg-type]
    groups = draft.shape(q)[1] // max(1, draft.shape(k)[1])
    k, v = _repeated(draft, k, groups), _repeated(draft, v, groups)
    mask = raw.operands[3] if len(raw.operands) > 3 else None
    stored = isinstance(mask, Constant) and mask.uniform() is None
    masked = bool(raw.attributes.get("is_causal")) or stored
    sources = mask.sources if stored and isinstance(mask, Constant) else ()
    shape = (*draft.shape(q)[:-1], draft.shape(v)[-1])
    operands = (q, k, v, mask) if isinstance(mask, int) else (q, k, v)
    found = draft.add("Attention", operands, shape, (("mask", 1),) if masked else (), (), sources)
    if len(raw.shape) == 3:
        found = transpose(draft, found, (0, 2, 1, 3))
    return reshape(draft, found, raw.shape)


def _heads(draft: Draft, source: int, count: int) -> int:
    """Batch, heads, positions, channels of an operand of attention, which may have the heads among the channels."""
    shape = draft.shape(source)
    if len(shape) == 4:
        return source
    apart = reshape(draft, source, (*shape[:2], count, shape[2] // max(1, count)))
    return transpose(draft, apart, (0, 2, 1, 3))


def _repeated(draft: Draft, source: int, times: int) -> int:
    """Every head several times in a row."""
    if times <= 1:
        return source
    batch, heads, *rest = draft.shape(source)
    wide = draft.add("Expand", (reshape(draft, source, (batch, heads, 1, *rest)),), (batch, heads, times, *rest))
    return reshape(draft, wide, (batch, heads * times, *rest))


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
    return _with_selects(draft, raw.shapes, first)


# --- quantised operators ------------------------------------------------------------------------------------------


@rule("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
def _quantised_signal(draft: Draft, raw: RawOperator) -> list[Operand]:
    """Rounding a signal to few bits and back is no operator of the architecture, but quantisers take in a Relu.

    They leave it out where no negative number can be stored, as its zero point is the least one.
    """
    source = _node(raw, 0)
    zero = raw.constant(2) if raw.op == "QuantizeLinear" else None
    if zero is not None and zero.value is not None and zero.value.dtype.kind in "iu":
        least = np.iinfo(zero.value.dtype).min
        if bool((zero.value == least).all()) and not _never_negative(draft, source):
            source = _on_each(draft, "Relu", source)
    return [source, *[Constant(shape) for shape in raw.shapes[1:]]]


_NOT_NEGATIVE = frozenset({"Relu", "Relu6", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Sqrt", "Abs"})
_PASSING = "MaxPool AveragePool GlobalAveragePool GlobalMaxPool Reshape Transpose Slice Concat Add Mul Pad Resize"
_AS_THEIR_OPERANDS = frozenset(_PASSING.split())


def _never_negative(draft: Draft, position: int, depth: int = 8) -> bool:
    """Whether a signal is known to have no negative number (or is the network's input, whose range is not its own)."""
    node = draft.nodes[position]
    if node.op in _NOT_NEGATIVE or node.op == "Input":
        return True
    return depth > 0 and (
        node.op in _AS_THEIR_OPERANDS
        and not node.weights
        and all(_never_negative(draft, operand, depth - 1) for operand in node.inputs)
    )


@rule("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
def _quantised_layer(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """The operator that it computes, with the weights that were quantised."""
    operands = raw.operands
    second = 3 if raw.op.startswith("QLinear") else 1
    taken = [operands[0], operands[second]]
    if raw.op == "QLinearConv" and len(operands) > 8:
        taken.append(operands[8])
    for slot, operand in enumerate(taken):
        if isinstance(operand, Constant) and not operand.sources:
            taken[slot] = stored_as_integers(operand.shape, f"{raw.name}/{slot}")
    op = "Conv" if "Conv" in raw.op else "MatMul"
    return RULES[op](draft, raw._replace(op=op, operands=taken))


# --- normalisation ------------------------------------------------------------------------------------------------


@rule("BatchNormalization")
def _batch_norm(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    source, scale, shift = raw.operands[:3]
    if not (isinstance(source, int) and isinstance(scale, Constant) and isinstance(shift, Constant)):
        return keep(draft, raw)

    def make(position: int, axis: int) -> int:
        shape = draft.shape(position)
        if axis == 1:
            return draft.add("BatchNormalization", (position,), shape, (), (), scale.sources + shift.sources)
        ones = (1,) * (len(shape) - 1 - axis)
        factor, term = (
            draft.derived(c, f"behind{len(ones)}", lambda c: Constant((*c.shape, *ones), None, c.sources))
            for c in (scale, shift)
        )
        scaled = draft.add("Mul", (position,), shape, (), (factor,))
        return draft.add("Add", (scaled,), shape, (), (term,))

    return along_axis(draft, source, 1, make) if len(raw.shape) > 1 else make(source, 1)


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
    if shift is not None and shift.is_number(0):
        shift = None
    if raw.op == "InstanceNormalization" and rank == 3 and draft.nodes[source].op == "Reshape":
        # exporters write a group norm with a scale of ones and a shift of zeros, and its own scale and shift behind
        ones = None if scale is None else scale.uniform()
        zeros = None if shift is None else shift.uniform()
        if ones is not None and ones == 1 and (shift is None or (zeros is not None and zeros == 0)):
            scale = shift = None
    if shift is not None:
        attributes["bias"] = 1
    weights = () if scale is None else (scale,)
    bias = () if shift is None else shift.sources
    fixed = _sorted(attributes)

    def make(position: int, _axis: int) -> int:
        return draft.add(raw.op, (position,), draft.shape(position), fixed, weights, bias)

    if raw.op in ("LayerNormalization", "RMSNormalization") and "axis" not in attributes and len(raw.shapes) == 1:
        return along_axis(draft, source, rank - 1, make, last=True)
    return _with_selects(draft, raw.shapes, make(source, 1))


# --- sums and products --------------------------------------------------------------------------------------------


@rule("Add", "Sum")
def _add(draft: Draft, raw: RawOperator) -> Operand:
    """One sum of all operands that are nodes, then one of each constant; zeros are left out."""
    operands, shape = raw.operands, raw.shapes[0]
    left, right = operands[0], operands[-1]
    if len(operands) == 2 and left.__class__ is int and right.__class__ is int:
        return _binary(draft, "Add", left, right, shape)
    terms = tuple([operand for operand in operands if isinstance(operand, int)])
    total = terms[0]
    if len(terms) > 1:
        sizes = broadcast([draft.shape(term) for term in terms])
        if sizes is None:
            raise ReadError("a sum of shapes that do not broadcast", node=raw.name)
        total = elementwise(draft, terms, sizes, lambda o, s: draft.add("Add", tuple(o), s))  # type: ignore[arg-type]
    for operand in operands:
        if isinstance(operand, Constant) and not operand.dead and not operand.is_number(0):
            total = _shifted(draft, total, draft.plain(operand))
    if draft.shape(total) != shape:  # a dead operand still broadcasts
        return draft.add("Expand", (total,), shape)
    return total


def _binary(draft: Draft, op: str, left: int, right: int, shape: Shape) -> int:
    """An operator on every element of two operands."""
    nodes = draft.nodes
    if nodes[left].op in LAYOUT or nodes[right].op in LAYOUT:
        return elementwise(draft, (left, right), shape, lambda o, s: _binary_here(draft, op, o[0], o[1], s))
    return _binary_here(draft, op, left, right, shape)


def _binary_here(draft: Draft, op: str, left: Operand, right: Operand, shape: Shape) -> int:
    assert isinstance(left, int)
    assert isinstance(right, int)
    found = idioms.normalised_by_moments(draft, left, right, shape) if op == "Add" else None
    return draft.add(op, (left, right), shape) if found is None else found


def _shifted(draft: Draft, position: int, shift: Constant) -> int:
    def make(operands: list[Operand], shape: Shape) -> int:
        source, term = operands[0], draft.plain(operands[1])  # type: ignore[arg-type]
        assert isinstance(source, int)
        return idioms.shifted(draft, source, term, shape) or draft.add("Add", (source,), shape, (), (term,))

    shape = broadcast((draft.shape(position), shift.shape)) or ()
    return elementwise(draft, (position, shift), shape, make)


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
        if right.is_number(1) and draft.shape(left) == shape:
            return left
    nodes = draft.nodes
    if nodes[left].op in LAYOUT or (isinstance(right, int) and nodes[right].op in LAYOUT):
        return elementwise(draft, (left, right), shape, lambda o, s: _times_here(draft, o[0], o[1], s))
    return _times_here(draft, left, right, shape)


def _times_here(draft: Draft, left: Operand, right: Operand, shape: Shape) -> int:
    assert isinstance(left, int)
    if isinstance(right, Constant):
        right = draft.plain(right)
        if right.is_number(1) and draft.shape(left) == shape:
            return left
        earlier = draft.nodes[left]
        if earlier.op == "Mul" and len(earlier.inputs) == 1 and _is_fixed(right) and _is_fixed(earlier.weights[0]):
            number = np.asarray(earlier.weights[0].scalar) * np.asarray(right.scalar)
            return _times_here(draft, earlier.inputs[0], Constant((), number), shape)
        found = idioms.activation(draft, left, right) or idioms.scaled(draft, left, right, shape)
        if earlier.op == "ReduceSum" and earlier.shape == shape and _is_fixed(right):
            axes: tuple[int, ...] = earlier.attribute("axes")
            count = prod(draft.shape(earlier.inputs[0])[axis] for axis in axes)
            if abs(count * (right.scalar or 0.0) - 1) < 1e-4:  # a sum over n, divided by n
                return _over(draft, "ReduceMean", earlier.inputs[0], axes)
        return found or draft.add("Mul", (left,), shape, (), (right,))
    if left != right:
        found = idioms.activation(draft, left, right) or _ratio(draft, left, right, shape)
        if found is not None:
            return found
    return draft.add("Mul", (left, right), shape)


def _is_fixed(constant: Constant) -> bool:
    """Whether a constant is one number that is not learned."""
    return not constant.sources and not constant.shape and constant.scalar is not None


def _unscaled(draft: Draft, source: int) -> int:
    """The signal without the fixed numbers it is multiplied with: the weights of a linear operator take them in."""
    node = draft.nodes[source]
    while node.op == "Mul" and len(node.inputs) == 1 and _is_fixed(node.weights[0]):
        source = node.inputs[0]
        node = draft.nodes[source]
    return source


def _ratio(draft: Draft, left: int, right: int, shape: Shape) -> int | None:
    """A product with a reciprocal is a quotient."""
    for numerator, inverse in ((left, right), (right, left)):
        node = draft.nodes[inverse]
        if node.op == "Reciprocal":
            return _quotient(draft, numerator, node.inputs[0], shape)
    return None


def _quotient(draft: Draft, numerator: int, denominator: int, shape: Shape) -> int:
    def make(operands: list[Operand], here: Shape) -> int:
        left, right = operands
        assert isinstance(left, int)
        assert isinstance(right, int)
        found = idioms.normalised(draft, left, right, here)
        return draft.add("Div", (left, right), here) if found is None else found

    return elementwise(draft, (numerator, denominator), shape, make)


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
                return _binary(draft, "Mul", source, source, raw.shape)
            case 0.5:
                return _on_each(draft, "Sqrt", source)
            case -0.5:
                return _on_each(draft, "Reciprocal", _on_each(draft, "Sqrt", source))
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
        return _on_each(draft, "Relu", source)
    if named == {"min": 0, "max": 6}:
        return _on_each(draft, "Relu6", source)
    return _on_each(draft, "Clip", source, _sorted(named)) if named else source


@rule("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "Mish", "Exp", "Sqrt", "Neg", "Abs", "Reciprocal", "HardSigmoid")
def _unary(draft: Draft, raw: RawOperator) -> Operand:
    """Operators whose attributes, if any, are left out: HardSigmoid's slope is 1/6 in torch and 1/5 in Keras."""
    return _on_each(draft, raw.op, raw.operands[0])  # type: ignore[arg-type]


def _on_each(draft: Draft, op: str, source: int, attributes: Attributes = ()) -> int:
    """An operator of one operand on every element."""
    node = draft.nodes[source]
    if node.op in LAYOUT:
        return elementwise(draft, (source,), node.shape, lambda o, s: draft.add(op, (o[0],), s, attributes))  # type: ignore[arg-type]
    return draft.add(op, (source,), node.shape, attributes)


@rule("Swish")
def _swish(draft: Draft, raw: RawOperator) -> Operand:
    return _on_each(draft, "Silu", _node(raw, 0))


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

    def make(position: int, along: int) -> int:
        here = draft.shape(position)
        return draft.add(raw.op, (position,), here, () if along == len(here) - 1 else (("axis", along),))

    return along_axis(draft, source, axis, make) if rank else make(source, -1)


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
    padding = _padding(draft, source)
    if padding is not None and (raw.op == "AveragePool" or not any(pads)):
        neutral = 0 if raw.op == "AveragePool" else -np.inf
        merged = _merged_pads(padding[0], pads, len(kernel))
        fits = padding[1] == neutral and (padding_counts or not any(pads))
        if merged is not None and fits and raw.op != "LpPool":
            pads, source, padding_counts = merged, padding[2], raw.op == "AveragePool"
    if kernel == draft.shape(source)[2:] and not any(pads) and raw.op != "LpPool" and len(raw.shapes) == 1:
        name = {"MaxPool": "ReduceMax", "AveragePool": "ReduceMean"}[raw.op]
        return [_over(draft, name, source, tuple(range(2, len(raw.shape))))]
    kept = (*_window(strides, pads, dilations), ("kernel_shape", kernel))
    if padding_counts and any(pads):
        kept += (("count_include_pad", 1),)
    return _with_selects(draft, raw.shapes, draft.add(raw.op, (source,), raw.shape, tuple(sorted(kept))))


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(draft: Draft, raw: RawOperator) -> Operand:
    op = "ReduceMean" if raw.op == "GlobalAveragePool" else "ReduceMax"
    return _over(draft, op, _node(raw, 0), tuple(range(2, len(raw.shape))))


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
    return reshape(draft, _over(draft, raw.op, source, axes), raw.shape)


def _over(draft: Draft, op: str, source: int, axes: tuple[int, ...]) -> int:
    """A reduction over these axes, which stay with size 1."""

    def make(position: int, over: tuple[int, ...]) -> int:
        node = draft.nodes[position]
        if node.op in (op, _POOLS.get(op)) and op in _SAME_WITHOUT_AXES:  # one after the other is both at once
            earlier = node.attribute("axes") or tuple(range(2, len(node.shape)))
            position, over = node.inputs[0], tuple(sorted({*over, *earlier}))
        before = draft.shape(position)
        kept = tuple([1 if i in over else n for i, n in enumerate(before)])
        pool = _POOLS.get(op) if len(before) > 2 and over == tuple(range(2, len(before))) else None
        return draft.add(pool, (position,), kept) if pool else draft.add(op, (position,), kept, (("axes", over),))

    return over_axes(draft, source, axes, make)


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
        if draft.guessed:  # the shape of an unknown operator, perhaps far before, was wrong
            return draft.add("Reshape", (source,), raw.shape)
        raise ReadError(f"{raw.op} from {draft.shape(source)} to {raw.shape}: other number of elements", node=raw.name)
    return reshape(draft, source, raw.shape)


@rule("Transpose")
def _transpose(draft: Draft, raw: RawOperator) -> Operand:
    source = _node(raw, 0)
    rank = len(draft.shape(source))
    perm = tuple(raw.attributes.get("perm") or reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise ReadError(f"Transpose of {rank} axes by {perm}; expected every axis once", node=raw.name)
    return transpose(draft, source, perm)


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
    """One concatenation of all parts: those of parts that are concatenations themselves, slices in a row as one."""
    if len(raw.operands) == 1:
        return _node(raw, 0)
    parts = [operand for operand in raw.operands if isinstance(operand, int)]
    if len(parts) < len(raw.operands):
        return keep(draft, raw)
    axis = positive_axes(raw.attributes["axis"], len(raw.shape))
    return _joined(draft, parts, axis, raw.shape)


def _joined(draft: Draft, parts: Sequence[int], axis: int, shape: Shape) -> int:
    nodes = draft.nodes
    layout = nodes[parts[0]]
    if layout.op in LAYOUT:
        below = axis_below(draft, layout, axis)
        inner = [nodes[p].inputs[0] for p in parts if nodes[p].op == layout.op]
        if below is not None and len(inner) == len(parts):
            shapes = [draft.shape(p) for p in inner]
            rest = {(s[:below], s[below + 1 :]) for s in shapes}
            if len(rest) == 1 and len({nodes[p].attributes for p in parts}) == 1:
                size = sum(s[below] for s in shapes)
                if all(axis_below(draft, nodes[p], axis) == below for p in parts):
                    joined = _joined(draft, inner, below, (*shapes[0][:below], size, *shapes[0][below + 1 :]))
                    if layout.op == "Transpose":
                        return transpose(draft, joined, layout.attribute("perm"))
                    return reshape(draft, joined, shape)
    flat: list[int] = []
    for part in parts:
        node = nodes[part]
        inside = node.inputs if node.op == "Concat" and node.attribute("axis") == axis and not node.weights else (part,)
        for piece in inside:
            whole = _rejoined(draft, flat[-1], piece, axis) if flat else None
            if whole is None:
                flat.append(piece)
            else:
                flat[-1] = whole
    return flat[0] if len(flat) == 1 else draft.add("Concat", tuple(flat), shape, (("axis", axis),))


def _rejoined(draft: Draft, left: int, right: int, axis: int) -> int | None:
    """Two slices of one signal, the second beginning where the first ends, as one."""
    a, b = draft.nodes[left], draft.nodes[right]
    if a.op != "Slice" or b.op != "Slice" or a.inputs != b.inputs or a.attribute("axis") != axis:
        return None
    if (
        b.attribute("axis") != axis
        or a.attribute("end") != b.attribute("start")
        or len(a.attributes + b.attributes) > 6
    ):
        return None
    start, end = a.attribute("start"), b.attribute("end")
    shape = (*a.shape[:axis], end - start, *a.shape[axis + 1 :])
    return _cut(draft, a.inputs[0], axis, start, end, 1, shape)


def _cut(draft: Draft, source: int, axis: int, start: int, end: int, step: int, shape: Shape) -> int:
    """A slice along one axis. Of slices in a row those along earlier axes come first."""
    if shape == draft.shape(source) and step == 1:
        return source
    size = shape[axis]
    if draft.nodes[source].op in LAYOUT:
        return along_axis(draft, source, axis, lambda p, a: _cut_here(draft, p, a, start, end, step, size))
    return _cut_here(draft, source, axis, start, end, step, size)


def _cut_here(draft: Draft, source: int, axis: int, start: int, end: int, step: int, size: int) -> int:
    before = draft.nodes[source]
    shape = (*before.shape[:axis], size, *before.shape[axis + 1 :])
    if before.op == "Slice":
        whole = draft.shape(before.inputs[0])
        place = before.attribute("axis")
        if place > axis:
            inner = _cut(draft, before.inputs[0], axis, start, end, step, (*whole[:axis], size, *whole[axis + 1 :]))
            return draft.add("Slice", (inner,), shape, before.attributes)
        if place == axis and step == 1 and before.attribute("step", 1) == 1:
            first = before.attribute("start")
            return _cut(draft, before.inputs[0], axis, first + start, first + end, 1, shape)
    if before.op == "Concat" and before.attribute("axis") == axis and step == 1 and not before.weights:
        parts = _covered(draft, before.inputs, axis, start, end)
        if parts:
            return parts[0] if len(parts) == 1 else draft.add("Concat", parts, shape, before.attributes)
    attributes: list[tuple[str, AttributeValue]] = [("axis", axis), ("end", end), ("start", start)]
    if step != 1:
        attributes.append(("step", step))
    return draft.add("Slice", (source,), shape, tuple(attributes))


def _covered(draft: Draft, parts: Sequence[int], axis: int, start: int, end: int) -> tuple[int, ...]:
    """Those of the concatenated parts that a slice consists of; none if it cuts through one."""
    found: list[int] = []
    place = 0
    for part in parts:
        after = place + draft.shape(part)[axis]
        if place < end and after > start:
            if place < start or after > end:
                return ()
            found.append(part)
        place = after
    return tuple(found)


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


@rule("SequenceAt")
def _sequence_at(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A member of a sequence whose making is known: the signal it was made of, or a slice."""
    sequence = draft.nodes[_node(raw, 0)]
    index = raw.constant(1)
    position = index.ints() if index is not None else None
    if position is None or sequence.weights:
        return keep(draft, raw)
    if sequence.op == "SequenceConstruct":
        return sequence.inputs[position[0]]
    if sequence.op != "SplitToSequence" or len(sequence.inputs) != 1:
        return keep(draft, raw)
    source = sequence.inputs[0]
    shape = draft.shape(source)
    axis: int = sequence.attribute("axis", 0)
    sizes: tuple[int, ...] = sequence.attribute("input_1", (1,))
    if len(sizes) == 1:
        starts = range(0, shape[axis], max(sizes[0], 1))
        start = starts[position[0]]
        size = min(starts.step, shape[axis] - start)
    else:
        number = range(len(sizes))[position[0]]
        start, size = sum(sizes[:number]), sizes[number]
    part = (*shape[:axis], size, *shape[axis + 1 :])
    cut = _cut(draft, source, axis, start, start + size, 1, part)
    if sequence.attribute("input_1") is None and sequence.attribute("keepdims", 1) == 0:
        return reshape(draft, cut, (*shape[:axis], *shape[axis + 1 :]))
    return cut


@rule("ConcatFromSequence")
def _concat_from_sequence(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A concatenation (or, with a new axis, a stack) of the signals that the sequence was made of."""
    sequence = draft.nodes[_node(raw, 0)]
    if sequence.op != "SequenceConstruct" or sequence.weights or sequence.attributes:
        return keep(draft, raw)
    parts = list(sequence.inputs)
    shape = draft.shape(parts[0])
    axis = positive_axes(raw.attributes["axis"], len(shape) + (1 if raw.attributes.get("new_axis") else 0))
    if raw.attributes.get("new_axis"):
        shape = (*shape[:axis], 1, *shape[axis:])
        parts = [reshape(draft, part, shape) for part in parts]
    total = sum(draft.shape(part)[axis] for part in parts)
    return _joined(draft, parts, axis, (*shape[:axis], total, *shape[axis + 1 :]))


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


@rule("ScatterND", "ScatterElements")
def _scatter(draft: Draft, raw: RawOperator) -> Operand | list[Operand]:
    """A signal written over all of another one (indices are never twice the same) is that signal, in some order."""
    updates = raw.operands[2]
    if isinstance(updates, int) and isinstance(raw.operands[1], Constant) and "reduction" not in raw.attributes:
        shape = draft.shape(updates)
        if prod(shape) == prod(raw.shape):
            return reshape(draft, updates, raw.shape)
    return keep(draft, raw)


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
    attributes: dict[str, AttributeValue] = {}
    if mode != "constant":
        attributes["mode"] = mode
    elif number is not None:
        attributes["fill"] = float(number) if abs(number) < 1e30 else float("-inf") if number < 0 else float("inf")
    layers: list[tuple[int, ...]] = []
    while draft.nodes[source].op == "Transpose":
        perm: tuple[int, ...] = draft.nodes[source].attribute("perm")
        layers.append(perm)
        back = [perm.index(axis) for axis in range(rank)]
        around = (*[around[axis] for axis in back], *[around[axis + rank] for axis in back])
        source = draft.nodes[source].inputs[0]
    attributes["pads"] = around
    shape = tuple([n + around[i] + around[i + rank] for i, n in enumerate(draft.shape(source))])
    padded = draft.add("Pad", (source,), shape, _sorted(attributes))
    for perm in reversed(layers):
        padded = transpose(draft, padded, perm)
    return padded


def _node(raw: RawOperator, slot: int) -> int:
    """The operand in this slot, which has to be a node."""
    operand = raw.operands[slot] if slot < len(raw.operands) else None
    if isinstance(operand, int):
        return operand
    raise ReadError(
        f"operand {slot} of {raw.op} is a constant where a signal is expected; check the model", node=raw.name
    )
