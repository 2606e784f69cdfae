"""Idioms: operators that exporters spell out in several smaller ones.

Every function is asked at the last operator of the idiom, looks backwards in the draft, and gives the position of the
one operator that stands for all of them, or None. What the idiom was made of falls away unless something else uses it.
"""

from __future__ import annotations

from .draft import Constant, Draft, DraftNode, Operand, Sources
from .graph import Shape
from .layout import elementwise, reshape, transpose

# --- activations ---------------------------------------------------------------------------------------------------


def activation(draft: Draft, left: int, right: Operand) -> int | None:
    """The activation that the product of two operands is, if it is one."""
    if isinstance(right, Constant):
        return _gelu(draft, left, right) or _hard_swish(draft, left, right)
    return _gated(draft, left, right) or _gelu(draft, left, right)


def _gated(draft: Draft, left: int, right: int) -> int | None:
    """`x * Sigmoid(x)` is Silu, `x * HardSigmoid(x)` is HardSwish, `x * Tanh(Softplus(x))` is Mish."""
    for x, gate in ((left, right), (right, left)):
        node = draft.nodes[gate]
        if len(node.inputs) != 1:
            continue
        if node.op == "Sigmoid":
            if node.inputs == (x,):
                return draft.add("Silu", (x,), node.shape)
            if _is_scaled(draft, node.inputs[0], x, 1.702):
                return draft.add("QuickGelu", (x,), node.shape)
        elif node.op == "HardSigmoid" and node.inputs == (x,):
            return draft.add("HardSwish", (x,), node.shape)
        elif node.op == "Tanh":
            before = draft.nodes[node.inputs[0]]
            if before.op == "Softplus" and before.inputs == (x,):
                return draft.add("Mish", (x,), node.shape)
    return None


def _is_scaled(draft: Draft, position: int, x: int, factor: float) -> bool:
    node = draft.nodes[position]
    return node.op == "Mul" and node.inputs == (x,) and _near(node.weights[0].scalar, factor)


def _near(number: float | None, expected: float) -> bool:
    return number is not None and abs(number - expected) <= 1e-2 * abs(expected)


def _factors(draft: Draft, operand: Operand) -> list[list[Operand]]:
    """An operand as a product: of itself alone, and of two factors if it is one."""
    if isinstance(operand, Constant):
        return [[operand]]
    node = draft.nodes[operand]
    return [[operand], [*node.inputs, *node.weights]] if node.op == "Mul" else [[operand]]


def _gelu(draft: Draft, left: int, right: Operand) -> int | None:
    """`x/2 * (1 + erf(x / sqrt 2))` in any order, or its tanh approximation (Hendrycks and Gimpel 2016).

    The half may be missing, as simplifiers take it into the next layer's weights, or come last.
    """
    if isinstance(right, Constant) and draft.nodes[left].op == "Gelu":
        return left if _near(right.scalar, 0.5) else None
    for first in _factors(draft, left):
        for second in _factors(draft, right):
            factors = first + second
            nodes = [factor for factor in factors if isinstance(factor, int)]
            constants = [factor for factor in factors if isinstance(factor, Constant)]
            if len(nodes) != 2 or len(constants) > 1 or (constants and not _near(constants[0].scalar, 0.5)):
                continue
            found = _gelu_of(draft, nodes[0], nodes[1])
            if found is None:
                found = _gelu_of(draft, nodes[1], nodes[0])
            if found is not None:
                return found
    return None


def _gelu_of(draft: Draft, x: int, rest: int) -> int | None:
    plus_one = draft.nodes[rest]
    if plus_one.op == "Erfc":  # 1 + erf(z) = erfc(-z)
        inner = draft.nodes[plus_one.inputs[0]]
        if inner.op == "Mul" and len(inner.inputs) == 1:
            turned = draft.nodes[inner.inputs[0]]
            sign = -1.0 if turned.op == "Neg" else 1.0
            source = turned.inputs[0] if turned.op == "Neg" else inner.inputs[0]
            if source == x and _near(inner.weights[0].scalar, -sign * 0.7071):
                return draft.add("Gelu", (x,), plus_one.shape)
        return None
    if plus_one.op != "Add" or len(plus_one.inputs) != 1 or plus_one.weights[0].scalar != 1:
        return None
    curve = draft.nodes[plus_one.inputs[0]]
    if curve.op == "Erf" and _is_scaled(draft, curve.inputs[0], x, 0.7071):
        return draft.add("Gelu", (x,), plus_one.shape)
    if curve.op == "Tanh" and x in _ancestors(draft, curve.inputs[0], 6):
        return draft.add("Gelu", (x,), plus_one.shape, (("approximate", "tanh"),))
    return None


def _ancestors(draft: Draft, position: int, depth: int) -> set[int]:
    found = {position}
    frontier = {position}
    for _ in range(depth):
        frontier = {i for p in frontier for i in draft.nodes[p].inputs} - found
        found |= frontier
    return found


def _hard_swish(draft: Draft, left: int, scale: Constant) -> int | None:
    """`x * Clip(x + 3, 0, 6) / 6` is HardSwish (Howard et al. 2019, eq. 1); `Clip(x + 3, 0, 6) / 6` is HardSigmoid."""
    if not _near(scale.scalar, 1 / 6):
        return None
    node = draft.nodes[left]
    if node.op == "Relu6" and (x := _plus_three(draft, left)) is not None:
        return draft.add("HardSigmoid", (x,), node.shape)
    if node.op == "Mul" and len(node.inputs) == 2:
        for x, gate in (node.inputs, node.inputs[::-1]):
            if draft.nodes[gate].op == "Relu6" and _plus_three(draft, gate) == x:
                return draft.add("HardSwish", (x,), node.shape)
    return None


def _plus_three(draft: Draft, clip: int) -> int | None:
    node = draft.nodes[draft.nodes[clip].inputs[0]]
    return node.inputs[0] if node.op == "Add" and node.weights and node.weights[0].scalar == 3 else None


# --- normalisation -------------------------------------------------------------------------------------------------


def normalised(draft: Draft, numerator: int, denominator: int, shape: Shape) -> int | None:
    """`d / sqrt(mean(d²) + eps)`: LayerNormalization if d = x - mean(x), else RMSNormalization; without a scale.

    Ba et al. 2016, eq. 3; Zhang and Sennrich 2019, eq. 4. The variance may be `mean(x²) - mean(x)²`, cut at 0.
    """
    found = _mean_of_squares(draft, denominator)
    if found is None:
        return None
    deviation, axes = found
    if draft.shape(deviation) != shape:
        return None
    x = centred(draft, numerator, axes)
    if x is not None and (deviation == x or centred(draft, deviation, axes) == x):
        return _normalised_over(draft, "LayerNormalization", x, axes)
    if deviation == numerator:
        return _normalised_over(draft, "RMSNormalization", numerator, axes)
    return None


def _mean_of_squares(draft: Draft, position: int) -> tuple[int, tuple[int, ...]] | None:
    """The d and the axes of `sqrt(mean(d²) + eps)`; for `sqrt(mean(x²) - mean(x)² + eps)` the x."""
    nodes = draft.nodes
    root = nodes[position]
    if root.op != "Sqrt":
        return None
    inside = nodes[root.inputs[0]]
    while inside.op in ("Add", "Max", "Reshape", "Relu") and len(inside.inputs) == 1:
        if inside.weights and inside.weights[0].scalar is None:
            return None
        inside = nodes[inside.inputs[0]]
    if inside.op == "Sub" and len(inside.inputs) == 2:
        mean = _squared(draft, inside.inputs[1])
        inside = nodes[inside.inputs[0]]
        x = _squared(draft, inside.inputs[0]) if inside.inputs else None
        axes = _mean_axes(inside)
        if x is None or mean is None or axes is None or nodes[mean].inputs != (x,) or _mean_axes(nodes[mean]) != axes:
            return None
        return x, axes
    axes = _mean_axes(inside)
    d = None if axes is None else _squared(draft, inside.inputs[0])
    return None if d is None or axes is None else (d, axes)


def _squared(draft: Draft, position: int) -> int | None:
    node = draft.nodes[position]
    if node.op != "Mul" or len(node.inputs) != 2 or node.inputs[0] != node.inputs[1]:
        return None
    return node.inputs[0]


def _normalised_over(draft: Draft, op: str, x: int, axes: tuple[int, ...]) -> int | None:
    """A normalisation over these axes: the last ones, or a single one, which is made the last."""
    shape = draft.shape(x)
    rank = len(shape)
    if axes == tuple(range(axes[0], rank)) and axes[0] > 0:
        return draft.add(op, (x,), shape, () if axes[0] == rank - 1 else (("axis", axes[0]),))
    if len(axes) > 1 or axes[0] == 0:
        return None
    there = (*[axis for axis in range(rank) if axis != axes[0]], axes[0])
    moved = transpose(draft, x, there)
    result = draft.add(op, (moved,), draft.shape(moved))
    return transpose(draft, result, tuple([there.index(axis) for axis in range(rank)]))


def normalised_by_moments(draft: Draft, left: int, right: int, shape: Shape) -> int | None:
    """`x · s + (-mean(x)) · s` with `s = gamma / sqrt(var(x) + eps)` is LayerNormalization with the scale gamma.

    The second product may be taken off a learned shift instead, which becomes a sum behind.
    """
    nodes = draft.nodes
    for scaled_x, rest in ((left, right), (right, left)):
        product = nodes[scaled_x]
        if product.op not in ("Mul", "Div") or len(product.inputs) != 2:
            continue
        shift: Constant | None = None
        other = nodes[rest]
        if other.op == "Sub" and len(other.inputs) == 1 and other.attribute("constant_slots") == (0,):
            shift, other = other.weights[0], nodes[other.inputs[0]]
            negative = False
        else:
            negative = True
        if other.op not in ("Mul", "Div") or len(other.inputs) != 2:
            continue
        for x, inverse in (product.inputs, product.inputs[::-1]):
            if inverse not in other.inputs:
                continue
            mean = other.inputs[0] if other.inputs[1] == inverse else other.inputs[1]
            if negative:
                if nodes[mean].op != "Neg":
                    continue
                mean = nodes[mean].inputs[0]
            axes = _mean_axes(nodes[mean])
            if axes is None or nodes[mean].inputs != (x,):
                continue
            result = _by_inverse(draft, x, inverse, axes, shape)
            if result is None:
                continue
            if shift is not None:
                result = elementwise(draft, (result, shift), shape, lambda o, s: _with_shift(draft, o, s))
            return result
    return None


def _with_shift(draft: Draft, operands: list[Operand], shape: Shape) -> int:
    source, shift = operands
    assert isinstance(source, int)
    assert isinstance(shift, Constant)
    shift = draft.plain(shift)
    return shifted(draft, source, shift, shape) or draft.add("Add", (source,), shape, (), (shift,))


def _by_inverse(draft: Draft, x: int, inverse: int, axes: tuple[int, ...], shape: Shape) -> int | None:
    """The normalisation of x by `gamma / sqrt(var(x) + eps)`."""
    nodes = draft.nodes
    factor: Constant | None = None
    node = nodes[inverse]
    if node.op == "Mul" and len(node.inputs) == 1:
        factor, node = node.weights[0], nodes[node.inputs[0]]
    if node.op != "Reciprocal":
        return None
    found = _mean_of_squares(draft, node.inputs[0])
    if found is None or found[1] != axes or (found[0] != x and centred(draft, found[0], axes) != x):
        return None
    result = _normalised_over(draft, "LayerNormalization", x, axes)
    if result is None or factor is None:
        return result

    def make(operands: list[Operand], here: Shape) -> int:
        source, scale = operands
        assert isinstance(source, int)
        assert isinstance(scale, Constant)
        scale = draft.plain(scale)
        return scaled(draft, source, scale, here) or draft.add("Mul", (source,), here, (), (scale,))

    return elementwise(draft, (result, factor), shape, make)


def centred(draft: Draft, position: int, axes: tuple[int, ...]) -> int | None:
    """The x of `x - mean(x)` over these axes."""
    node = draft.nodes[position]
    if node.op != "Sub" or len(node.inputs) != 2:
        return None
    x, mean = node.inputs
    average = draft.nodes[mean]
    return x if average.inputs == (x,) and _mean_axes(average) == axes else None


def _mean_axes(node: DraftNode) -> tuple[int, ...] | None:
    """The axes that this node takes the mean over; None if it does not."""
    if node.op == "GlobalAveragePool":
        return tuple(range(2, len(node.shape)))
    axes: tuple[int, ...] | None = node.attribute("axes") if node.op == "ReduceMean" else None
    return axes


def scaled(draft: Draft, position: int, factor: Constant, shape: Shape) -> int | None:
    """A normalisation without a scale, times a constant over its axes or channels: the same with this scale."""
    node = draft.nodes[position]
    if node.weights or node.bias or node.shape != shape or not _fits(node, factor):
        return None
    return draft.add(node.op, node.inputs, shape, node.attributes, (_flat(draft, node, factor),))


def shifted(draft: Draft, position: int, shift: Constant, shape: Shape) -> int | None:
    """A normalisation with a scale, plus a constant over its axes or channels: the same with a bias.

    A product and a sum with constant vectors over the channels are a batch norm.
    """
    node = draft.nodes[position]
    if node.shape != shape:
        return None
    if node.op == "Mul":
        over = (shape[1], *(1,) * (len(shape) - 2)) if len(shape) > 2 else None
        if len(node.inputs) == 1 and node.weights[0].shape == over == shift.shape and shift.learned:
            return draft.add("BatchNormalization", node.inputs, shape, (), (), node.weights[0].sources + shift.sources)
        return None
    if not node.weights or node.attribute("bias") or not _fits(node, shift):
        return None
    attributes = tuple(sorted((*node.attributes, ("bias", 1))))
    return draft.add(node.op, node.inputs, shape, attributes, node.weights, shift.sources)


def _fits(node: DraftNode, constant: Constant) -> bool:
    """Whether a constant has one number for every element (or channel) that this normalisation scales alone."""
    shape = node.shape
    if node.op in ("LayerNormalization", "RMSNormalization"):
        return constant.shape == shape[node.attribute("axis", len(shape) - 1) :]
    if node.op in ("GroupNormalization", "InstanceNormalization"):
        return constant.shape == (shape[1], *(1,) * (len(shape) - 2))
    return False


def _flat(draft: Draft, node: DraftNode, constant: Constant) -> Constant:
    if node.op in ("LayerNormalization", "RMSNormalization"):
        return constant
    return draft.derived(constant, "channels", lambda c: Constant(c.shape[:1], None, c.sources))


# --- attention -----------------------------------------------------------------------------------------------------


def attention(draft: Draft, weights: int, values: int, shape: Shape) -> int | None:
    """`Softmax(q kᵀ · scale + mask) v` is Attention of q, k and v (Vaswani et al. 2017, eq. 1).

    Scales are dropped wherever they stand, and so are reshapes of the logits and masks that mask nothing. A mask or
    bias that depends on the input is the fourth operand; stored ones leave `mask` = 1, for files do not say which of
    them is learned.
    """
    softmax = draft.nodes[weights]
    if softmax.op != "Softmax" or softmax.attributes:
        return None
    logits = softmax.inputs[0]
    masks: list[int] = []
    stored: Sources = ()
    masked = False
    product = draft.nodes[logits]
    while product.op != "MatMul":
        if product.op == "Mul" and len(product.inputs) == 1:
            stored += product.weights[0].sources
            logits = product.inputs[0]
        elif product.op == "Reshape" and product.shape[-2:] == draft.shape(product.inputs[0])[-2:]:
            logits = product.inputs[0]
        elif product.op == "Add" and len(product.inputs) == 1:
            if product.weights[0].uniform() is None:  # one number for all logits changes nothing
                stored += product.weights[0].sources
                masked = True
            logits = product.inputs[0]
        elif product.op == "Add" and not masks:
            inner = [i for i in product.inputs if _leads_to_product(draft, i)]
            if len(inner) != 1:
                return None
            logits = inner[0]
            masks = [i for i in product.inputs if i != logits]
        else:
            return None
        product = draft.nodes[logits]
    if len(product.inputs) != 2 or product.attributes:
        return None
    q = _without_scales(draft, product.inputs[0])
    k = _swapped(draft, _without_scales(draft, product.inputs[1]))
    q_shape, k_shape, v_shape = draft.shape(q), draft.shape(k), draft.shape(values)
    if product.shape != softmax.shape or q_shape[:-2] != k_shape[:-2]:
        return None
    if k_shape[:-1] != v_shape[:-1] or shape != (*q_shape[:-1], v_shape[-1]):
        return None
    attributes = (("mask", 1),) if masked else ()
    found = draft.add("Attention", (q, k, values, *masks), shape, attributes, (), stored)
    draft.fused.setdefault(found, (weights, values))
    return found


def _leads_to_product(draft: Draft, position: int) -> bool:
    node = draft.nodes[position]
    while _is_scale(node) or (node.op == "Add" and len(node.inputs) == 1):
        node = draft.nodes[node.inputs[0]]
    return node.op == "MatMul"


def _is_scale(node: DraftNode) -> bool:
    return node.op == "Mul" and len(node.inputs) == 1 and node.weights[0].scalar is not None


def _without_scales(draft: Draft, position: int) -> int:
    """The same chain of reshapes and transposes without the products with single numbers in it."""
    node = draft.nodes[position]
    if _is_scale(node):
        return _without_scales(draft, node.inputs[0])
    if node.op == "Reshape":
        return reshape(draft, _without_scales(draft, node.inputs[0]), node.shape)
    if node.op == "Transpose":
        return transpose(draft, _without_scales(draft, node.inputs[0]), node.attribute("perm"))
    return position


def _swapped(draft: Draft, position: int) -> int:
    """The transpose over the last two axes."""
    rank = len(draft.shape(position))
    return transpose(draft, position, (*range(rank - 2), rank - 1, rank - 2))
