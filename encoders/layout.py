"""Reshapes and transposes in canonical form, and how other operators pass through them.

A layout operator stands as late as it can: what works on every element alone, or along axes that a reshape or transpose
before it only moves, is done first and the layout operator follows. So pairs that undo each other meet and fall away,
whether an exporter flattened the leading axes for a matrix product, or a framework keeps the channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from .draft import Constant, Draft, DraftNode, Operand
from .graph import Shape

LAYOUT = frozenset({"Reshape", "Transpose"})
_DEEPEST = 8
"""Layout operators in a row that an operator is taken through."""


def reshape(draft: Draft, source: int, shape: Shape) -> int:
    """`source` in another shape; reshapes in a row are one, and one that changes nothing is none."""
    nodes = draft.nodes
    while nodes[source].op == "Reshape" and nodes[source].shape != shape:
        source = nodes[source].inputs[0]
    if nodes[source].shape == shape:
        return source
    found = group_norm(draft, source, shape) if nodes[source].op == "InstanceNormalization" else None
    return draft.add("Reshape", (source,), shape) if found is None else found


def group_norm(draft: Draft, source: int, shape: Shape) -> int | None:
    """`Reshape(InstanceNormalization(Reshape(x → (N, G, …))))` is GroupNormalization (Wu and He 2018, fig. 3)."""
    norm = draft.nodes[source]
    if norm.op != "InstanceNormalization" or len(shape) < 3:
        return None
    before = draft.nodes[norm.inputs[0]]
    groups = norm.shape[1]
    if before.op != "Reshape" or draft.shape(before.inputs[0])[:2] != shape[:2] or not groups or shape[1] % groups:
        return None
    op = "InstanceNormalization" if groups == shape[1] else "GroupNormalization"
    inner = reshape(draft, before.inputs[0], shape)
    return draft.add(op, (inner,), shape, () if groups == shape[1] else (("num_groups", groups),))


def transpose(draft: Draft, source: int, perm: tuple[int, ...]) -> int:
    """`source` with its axes in another order.

    Transposes in a row are one, axes of size 1 stay where they are (a reshape behind puts them in place), and a reshape
    before that only merges or splits axes which stay together comes behind; a transpose before one that splits axes is
    taken in.
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
            groups = _groups(draft.shape(before.inputs[0]), before.shape)
            places = _places(groups, wanted)
            if places is None:
                split = _split_before(draft, before, groups)
                if split is None:
                    break
                source = split[0]
                wanted = [split[1][p] for p in wanted]
                continue
            wanted = places
        else:
            break
        source = before.inputs[0]
    if wanted == sorted(wanted):
        return reshape(draft, source, result)
    shape = draft.shape(source)
    order = iter(wanted)
    full = tuple([axis if n == 1 else next(order) for axis, n in enumerate(shape)])
    return reshape(draft, draft.add("Transpose", (source,), tuple([shape[p] for p in full]), (("perm", full),)), result)


def _split_before(draft: Draft, layout: DraftNode, groups: _Groups | None) -> tuple[int, dict[int, int]] | None:
    """A transpose and then a reshape that only splits axes, as the split alone.

    Returns:
        The split signal, and for each axis (of more than one element) of the result which of its axes that is.
    """
    before = draft.nodes[layout.inputs[0]]
    if before.op != "Transpose" or groups is None or any(len(below) > 1 for below, _ in groups):
        return None
    above_of = {below[0]: above for below, above in groups}
    perm: tuple[int, ...] = before.attribute("perm")
    sizes: list[int] = []
    found: dict[int, int] = {}
    for axis in range(len(perm)):
        above = above_of.get(perm.index(axis), ())
        for part in above:
            found[part] = len(sizes)
            sizes.append(layout.shape[part])
        if not above:
            sizes.append(1)
    return reshape(draft, before.inputs[0], tuple(sizes)), found


_Groups = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def _places(groups: _Groups | None, wanted: list[int]) -> list[int] | None:
    """The axes before a reshape that these axes behind it are; None if axes that belong together are torn apart."""
    if groups is None:
        return None
    by_first = {above[0]: (below, above) for below, above in groups}
    found: list[int] = []
    i = 0
    while i < len(wanted):
        below, above = by_first.get(wanted[i], ((), ()))
        if not above or tuple(wanted[i : i + len(above)]) != above:
            return None
        found.extend(below)
        i += len(above)
    return found


def _larger_axes(shape: Shape) -> list[int]:
    return [axis for axis, n in enumerate(shape) if n != 1]


# --- passing through ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _groups(inner: Shape, outer: Shape) -> _Groups | None:
    """Axes of two shapes of one reshape that hold the same elements: the shortest runs of equal size, ones left out."""
    a, b = _larger_axes(inner), _larger_axes(outer)
    if 0 in inner or 0 in outer:
        return None
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        first, second = i, j
        left, right = inner[a[i]], outer[b[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                if i == len(a):
                    return None
                left *= inner[a[i]]
                i += 1
            else:
                if j == len(b):
                    return None
                right *= outer[b[j]]
                j += 1
        found.append((tuple(a[first:i]), tuple(b[second:j])))
    return tuple(found) if i == len(a) and j == len(b) else None


def axes_below(draft: Draft, layout: DraftNode, axes: Sequence[int]) -> tuple[int, ...] | None:
    """Which axes of a layout operator's operand are these axes of its result; None if they are not whole axes of it."""
    if layout.op == "Transpose":
        perm = layout.attribute("perm")
        return tuple(sorted([perm[axis] for axis in axes]))
    inner, outer = draft.shape(layout.inputs[0]), layout.shape
    groups = _groups(inner, outer)
    if groups is None or any(outer[axis] == 1 for axis in axes):
        return None
    wanted = set(axes)
    found: list[int] = []
    for below, above in groups:
        if wanted.issuperset(above):
            found.extend(below)
        elif not wanted.isdisjoint(above):
            return None
    return tuple(found)


def axis_below(draft: Draft, layout: DraftNode, axis: int) -> int | None:
    """Which one axis of a layout operator's operand is this axis of its result."""
    found = axes_below(draft, layout, (axis,))
    return found[0] if found is not None and len(found) == 1 else None


@lru_cache(maxsize=4096)
def _shape_below(inner: Shape, outer: Shape, perm: Shape | None, shape: Shape) -> Shape | None:
    """The shape that something broadcast to a layout operator's result has before it; None if it cannot be had.

    Args:
        inner: Shape of the layout operator's operand.
        outer: Shape of its result.
        perm: The order of the axes if it is a transpose.
        shape: What is broadcast.
    """
    padded = (1,) * (len(outer) - len(shape)) + shape
    result = [1] * len(inner)
    if perm is not None:
        for axis, size in zip(perm, padded, strict=True):
            result[axis] = size
        return tuple(result)
    groups = _groups(inner, outer)
    if groups is None:
        return None
    for below, above in groups:
        if all(padded[axis] == 1 for axis in above):
            continue
        if any(padded[axis] != outer[axis] for axis in above):
            return None
        for axis in below:
            result[axis] = inner[axis]
    return tuple(result)


def _operand_below(draft: Draft, position: int, operand: Operand) -> Operand | None:
    """`operand`, which is broadcast to the result of the layout operator at `position`, as it is before it."""
    layout = draft.nodes[position]
    if operand == position:
        return layout.inputs[0]
    if isinstance(operand, Constant) and not operand.shape:
        return operand
    perm: tuple[int, ...] | None = layout.attribute("perm")
    shape = _shape_below(draft.shape(layout.inputs[0]), layout.shape, perm, draft.shape(operand))
    if shape is None:
        return None
    if isinstance(operand, Constant):
        rank = len(layout.shape)

        def moved(constant: Constant) -> Constant:
            value = constant.value
            if value is not None and perm is not None:
                value = value.reshape((1,) * (rank - value.ndim) + value.shape)
                value = value.transpose([perm.index(axis) for axis in range(rank)])
            return Constant(shape, None if value is None else value.reshape(shape), constant.sources, constant.dead)

        return draft.derived(operand, f"{layout.op}{perm}{shape}", moved)
    node = draft.nodes[operand]
    if node.op == layout.op and draft.shape(node.inputs[0]) == shape and node.attributes == layout.attributes:
        return node.inputs[0]
    if len(_larger_axes(shape)) <= 1:
        return reshape(draft, operand, shape)
    if node.op == "Reshape" and perm is not None and len(node.shape) == len(layout.shape):
        back = transpose(draft, operand, tuple([perm.index(axis) for axis in range(len(perm))]))
        if draft.nodes[back].op != "Transpose" and draft.nodes[back].op != "Reshape":
            return back
    return None


def elementwise(
    draft: Draft, operands: Sequence[Operand], shape: Shape, make: Callable[[list[Operand], Shape], int]
) -> int:
    """An operator on every element alone, done before the layout operators that its operands share.

    Args:
        draft: The draft.
        operands: Its operands; they are broadcast.
        shape: The shape of its result.
        make: Makes the operator, given operands and shape.
    """
    nodes = draft.nodes
    current = list(operands)
    layers: list[DraftNode] = []
    while len(layers) < _DEEPEST:
        for lead in current:
            if isinstance(lead, Constant) or nodes[lead].op not in LAYOUT or nodes[lead].shape != shape:
                continue
            below = []
            for operand in current:
                moved = _operand_below(draft, lead, operand)
                if moved is None:
                    break
                below.append(moved)
            else:
                layers.append(nodes[lead])
                current, shape = below, draft.shape(nodes[lead].inputs[0])
                break
        else:
            break
    return _laid_out(draft, make(current, shape), layers)


def along_axis(draft: Draft, source: int, axis: int, make: Callable[[int, int], int], last: bool = False) -> int:
    """An operator along one axis, done before the layout operators that only move this axis; it may change its size.

    Args:
        draft: The draft.
        source: The operand.
        axis: The axis of the operand.
        make: Makes the operator, given operand and axis.
        last: Whether the operator can only work along the last axis.
    """
    nodes = draft.nodes
    layers: list[tuple[DraftNode, int]] = []
    while len(layers) < _DEEPEST and nodes[source].op in LAYOUT:
        layout = nodes[source]
        below = axis_below(draft, layout, axis)
        inner = layout.inputs[0]
        if below is None or (last and below != len(draft.shape(inner)) - 1):
            shorter = _only_around(draft, layout, axis, last)
            if shorter is not None and shorter[0] != layout.shape:
                layers.append((layout, axis))
                axis = shorter[1]
                source = reshape(draft, inner, shorter[0])
            break
        layers.append((layout, axis))
        source, axis = inner, below
    result = make(source, axis)
    size = draft.shape(result)[axis]
    for layout, place in reversed(layers):
        if layout.op == "Transpose":
            result = transpose(draft, result, layout.attribute("perm"))
        else:
            shape = layout.shape
            result = reshape(draft, result, (*shape[:place], size, *shape[place + 1 :]))
    return result


def _only_around(draft: Draft, layout: DraftNode, axis: int, last: bool) -> tuple[Shape, int] | None:
    """The shape, and the axis in it, that a reshape gives if it is only to change what concerns one axis."""
    if layout.op != "Reshape":
        return None
    inner, outer = draft.shape(layout.inputs[0]), layout.shape
    for below, above in _groups(inner, outer) or ():
        if axis in above:
            place = below[0]
            after = () if last and below[-1] == _larger_axes(inner)[-1] else inner[below[-1] + 1 :]
            sizes = [outer[i] for i in above]
            return (*inner[:place], *sizes, *after), place + above.index(axis)
    return None


def over_axes(draft: Draft, source: int, axes: tuple[int, ...], make: Callable[[int, tuple[int, ...]], int]) -> int:
    """A reduction over whole axes, which stay with size 1, done before the layout operators that only move them."""
    nodes = draft.nodes
    layers: list[tuple[DraftNode, tuple[int, ...]]] = []
    while len(layers) < _DEEPEST and nodes[source].op in LAYOUT:
        layout = nodes[source]
        below = axes_below(draft, layout, axes)
        if not below:
            break
        layers.append((layout, axes))
        source, axes = layout.inputs[0], below
    result = make(source, axes)
    for layout, gone in reversed(layers):
        if layout.op == "Transpose":
            result = transpose(draft, result, layout.attribute("perm"))
        else:
            result = reshape(draft, result, tuple([1 if i in gone else n for i, n in enumerate(layout.shape)]))
    return result


def _laid_out(draft: Draft, position: int, layers: Sequence[DraftNode]) -> int:
    """The same layout operators, the last one first, on something of the same shape."""
    for layout in reversed(layers):
        if layout.op == "Transpose":
            position = transpose(draft, position, layout.attribute("perm"))
        else:
            position = reshape(draft, position, layout.shape)
    return position
