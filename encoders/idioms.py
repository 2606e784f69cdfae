"""Idioms: operators that exporters spell out in several smaller ones.

Every function is asked at the last operator of the idiom, looks backwards in the draft, and gives the position of the
one operator that stands for all of them, or None. What the idiom was made of falls away unless something else uses it.
"""

from __future__ import annotations

from .draft import Constant, Draft, DraftNode, Operand, Sources
from .graph import Shape

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


def _factors(draft: Draft, operand: Operand, depth: int = 3) -> list[Operand]:
    """The operands that a chain of products multiplies."""
    if isinstance(operand, Constant) or depth == 0:
        return [operand]
    node = draft.nodes[operand]
    if node.op != "Mul":
        return [operand]
    parts: list[Operand] = [*node.inputs, *node.weights]
    return [factor for part in parts for factor in _factors(draft, part, depth - 1)]


def _gelu(draft: Draft, left: int, right: Operand) -> int | None:
    """`x/2 * (1 + erf(x / sqrt 2))` in any order, or its tanh approximation (Hendrycks and Gimpel 2016)."""
    factors = _factors(draft, left) + _factors(draft, right)
    if len(factors) != 3:
        return None
    nodes = [factor for factor in factors if isinstance(factor, int)]
    if len(nodes) != 2 or not _near(next(f for f in factors if isinstance(f, Constant)).scalar, 0.5):
        return None
    for x, rest in (nodes, nodes[::-1]):
        plus_one = draft.nodes[rest]
        if plus_one.op != "Add" or len(plus_one.inputs) != 1 or plus_one.weights[0].scalar != 1:
            continue
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

    Ba et al. 2016, eq. 3; Zhang and Sennrich 2019, eq. 4.
    """
    root = draft.nodes[denominator]
    if root.op != "Sqrt":
        return None
    inside = draft.nodes[root.inputs[0]]
    if inside.op == "Add" and len(inside.inputs) == 1 and inside.weights[0].scalar is not None:
        inside = draft.nodes[inside.inputs[0]]
    if inside.op == "Reshape":
        inside = draft.nodes[inside.inputs[0]]
    axes = _mean_axes(inside)
    if axes is None:
        return None
    square = draft.nodes[inside.inputs[0]]
    if square.op != "Mul" or len(square.inputs) != 2 or square.inputs[0] != square.inputs[1]:
        return None
    rank = len(shape)
    if axes != tuple(range(axes[0], rank)) or axes[0] == 0 or draft.shape(square.inputs[0]) != shape:
        return None
    attributes = () if axes[0] == rank - 1 else (("axis", axes[0]),)
    deviation = square.inputs[0]
    x = centred(draft, numerator, axes)
    if x is not None and centred(draft, deviation, axes) == x:
        return draft.add("LayerNormalization", (x,), shape, attributes)
    if deviation == numerator:
        return draft.add("RMSNormalization", (numerator,), shape, attributes)
    return None


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


def group_norm(draft: Draft, source: int, shape: Shape) -> int | None:
    """`Reshape(InstanceNormalization(Reshape(x → (N, G, …))))` is GroupNormalization (Wu and He 2018, fig. 3)."""
    norm = draft.nodes[source]
    if norm.op != "InstanceNormalization" or len(shape) < 3:
        return None
    before = draft.nodes[norm.inputs[0]]
    groups = norm.shape[1]
    if before.op != "Reshape" or draft.shape(before.inputs[0]) != shape or not groups or shape[1] % groups:
        return None
    op = "InstanceNormalization" if groups == shape[1] else "GroupNormalization"
    return draft.add(op, before.inputs, shape, () if groups == shape[1] else (("num_groups", groups),))


# --- attention -----------------------------------------------------------------------------------------------------


def attention(draft: Draft, weights: int, values: int, shape: Shape) -> int | None:
    """`Softmax(q kᵀ · scale + mask) v` is Attention of q, k and v (Vaswani et al. 2017, eq. 1).

    Scales are dropped wherever they stand, and so are reshapes of the logits. A mask or bias that depends on the input
    is the fourth operand; stored ones leave `mask` = 1, for files do not say which of them is learned.
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
    return draft.add("Attention", (q, k, values, *masks), shape, attributes, (), stored)


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


# --- layout --------------------------------------------------------------------------------------------------------


def reshape(draft: Draft, source: int, shape: Shape) -> int:
    """`source` in another shape; reshapes in a row are one, and one that changes nothing is none."""
    nodes = draft.nodes
    while nodes[source].op == "Reshape" and nodes[source].shape != shape:
        source = nodes[source].inputs[0]
    if nodes[source].shape == shape:
        return source
    idiom = _AROUND.get(nodes[source].op)
    found = idiom(draft, source, shape) if idiom else None
    return draft.add("Reshape", (source,), shape) if found is None else found


def _unflattened(draft: Draft, source: int, shape: Shape) -> int | None:
    """A linear layer between two reshapes that only flatten and restore the leading axes needs neither."""
    node = draft.nodes[source]
    if node.op == "Add" and len(node.inputs) == 1 and len(node.weights[0].shape) < 2:
        inner = _unflattened(draft, node.inputs[0], shape)
        return None if inner is None else draft.add("Add", (inner,), shape, (), node.weights)
    if node.op != "Linear" or node.attribute("left") or not shape:
        return None
    before = draft.nodes[node.inputs[0]]
    if before.op != "Reshape" or shape[-1] != node.shape[-1]:
        return None
    x = draft.shape(before.inputs[0])
    if x[:-1] != shape[:-1] or x[-1:] != before.shape[-1:]:
        return None
    return draft.add("Linear", before.inputs, shape, node.attributes, node.weights, node.bias)


def _unmerged(draft: Draft, source: int, shape: Shape) -> int | None:
    """The last two axes change place between two reshapes that only merge and split the others: without them."""
    node = draft.nodes[source]
    before = draft.nodes[node.inputs[0]]
    rank = len(node.shape)
    if before.op != "Reshape" or rank < 2 or node.attribute("perm") != (*range(rank - 2), rank - 1, rank - 2):
        return None
    x = draft.shape(before.inputs[0])
    if x[-2:] != before.shape[-2:] or shape != (*x[:-2], x[-1], x[-2]):
        return None
    return transpose(draft, before.inputs[0], (*range(len(x) - 2), len(x) - 1, len(x) - 2))


_AROUND = {
    "InstanceNormalization": group_norm,
    "Linear": _unflattened,
    "Add": _unflattened,
    "Transpose": _unmerged,
}
"""Operator → what it may be together with the reshapes before and behind it."""


def transpose(draft: Draft, source: int, perm: tuple[int, ...]) -> int:
    """`source` with its axes in another order.

    Transposes in a row are one, axes of size 1 stay where they are (a reshape behind puts them in place), and a reshape
    before that only adds or drops such axes is taken away.
    """
    shape = draft.shape(source)
    result = tuple([shape[p] for p in perm])
    wanted = [p for p in perm if shape[p] != 1]
    if wanted == sorted(wanted):
        return reshape(draft, source, result)
    while True:
        before = draft.nodes[source]
        if before.op == "Transpose":
            earlier: tuple[int, ...] = before.attribute("perm")
            wanted = [earlier[p] for p in wanted]
        elif before.op == "Reshape":
            inner = draft.shape(before.inputs[0])
            if [n for n in inner if n != 1] != [n for n in before.shape if n != 1]:
                break
            places = dict(zip(_larger_axes(before.shape), _larger_axes(inner), strict=True))
            wanted = [places[p] for p in wanted]
        else:
            break
        source = before.inputs[0]
    if wanted == sorted(wanted):
        return reshape(draft, source, result)
    shape = draft.shape(source)
    order = iter(wanted)
    full = tuple([axis if n == 1 else next(order) for axis, n in enumerate(shape)])
    return reshape(draft, draft.add("Transpose", (source,), tuple([shape[p] for p in full]), (("perm", full),)), result)


def _larger_axes(shape: Shape) -> list[int]:
    return [axis for axis, n in enumerate(shape) if n != 1]
