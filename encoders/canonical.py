"""Passes over the whole draft, and the canonical order in which it becomes an `ArchGraph`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from .draft import COMMUTATIVE, Attributes, Draft, DraftNode
from .graph import ArchGraph, Node, Shape
from .operators import Kind, kind_of
from .shapes import broadcast
from .trace import Trace

_ABSORBING = frozenset({"Conv", "ConvTranspose", "Linear", "BatchNormalization"})
_SHARING = frozenset({"Conv", "ConvTranspose", "DeformConv", "Linear", "Embedding", "LSTM", "GRU", "RNN"})
"""Operators whose use of another one's weight is told (`Node.tied`)."""
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_FEWEST = 8
_AFFINE = frozenset({"BatchNormalization", "Add", "Mul"})


def live(draft: Draft, outputs: Sequence[int]) -> list[int]:
    """Positions of the nodes that an output depends on, ascending."""
    nodes = draft.nodes
    seen = set(outputs)
    stack = list(seen)
    while stack:
        for operand in nodes[stack.pop()].inputs:
            if operand not in seen:
                seen.add(operand)
                stack.append(operand)
    return sorted(seen)


def absorb_affine(draft: Draft, outputs: Sequence[int], trace: Trace | None = None) -> tuple[list[int], list[int]]:
    """Takes batch norms, biases and channel-wise scales into the linear operator or batch norm they follow.

    Precondition: none. Postcondition: no batch norm, and no sum or product with a constant vector over the channels,
    follows a convolution, linear layer or batch norm that nothing else uses; layers that took in a shift have
    `bias` = 1. Returns the new positions of the outputs, and those of all nodes they depend on, ascending.
    Lost: what stood there (`Node.params` still counts what was stored).
    """
    nodes = draft.nodes
    alive = _without_shared_attention(draft, outputs)
    if trace is not None:
        used = set(alive)
        trace.unused.update(node.op for position, node in enumerate(nodes) if position not in used)
    uses = [0] * len(nodes)
    for position in alive:
        for operand in nodes[position].inputs:
            uses[operand] += 1
    for output in outputs:
        uses[output] += 1
    moved: dict[int, int] = {}
    for position in alive:
        node = nodes[position]
        inputs = node.inputs
        for operand in inputs:
            if operand in moved:
                node.inputs = inputs = tuple([moved.get(i, i) for i in inputs])
                break
        if node.op not in _AFFINE or len(inputs) != 1:
            continue
        before = inputs[0]
        layer = nodes[before]
        if layer.op not in _ABSORBING or uses[before] != 1 or layer.shape != node.shape:
            continue
        if node.op != "BatchNormalization":
            if len(node.weights) != 1 or not _over_channels(node.weights[0].shape, layer):
                continue
            layer.bias += node.weights[0].sources
        else:
            layer.bias += node.bias
        if node.op != "Mul" and layer.op != "BatchNormalization":
            layer.attributes = _with_bias(layer.attributes)
        if trace is not None:
            trace.absorbed[node.op, layer.op] += 1
        moved[position] = before
        uses[before] = uses[position]
    if moved:
        alive = [position for position in alive if position not in moved]
    _give_back_shifts(nodes, alive)
    return [moved.get(output, output) for output in outputs], alive


def _without_shared_attention(draft: Draft, outputs: Sequence[int]) -> list[int]:
    """Writes Attention as a product again where its weights are used elsewhere, as they would be computed twice.

    Precondition: none. Postcondition: the softmax inside a live Attention has no other use, another Attention included.
    Returns the positions of the nodes that an output depends on then, ascending.
    """
    while True:
        alive = live(draft, outputs)
        fused = [position for position in alive if position in draft.fused]
        if not fused:
            return alive
        used = set(alive)
        users: dict[int, int] = {}
        for position in fused:
            softmax = draft.fused[position][0]
            users[softmax] = users.get(softmax, 0) + 1
        again = [p for p in fused if draft.fused[p][0] in used or users[draft.fused[p][0]] > 1]
        if not again:
            return alive
        for position in again:
            node = draft.nodes[position]
            node.op, node.inputs, node.attributes, node.bias = "MatMul", draft.fused.pop(position), (), ()


def _give_back_shifts(nodes: list[DraftNode], alive: Sequence[int]) -> None:
    """Flags shifts that an exporter left out because they were zero, with the batch norms folded: untrained networks.

    Such a file has no norm at all, and most of its convolutions no bias; no network is built like that. Precondition:
    norms are absorbed. Postcondition: in such a network of `_FEWEST` convolutions or more, all convolutions and linear
    layers have `bias` = 1.
    """
    biased = [bool(nodes[position].attribute("bias")) for position in alive if nodes[position].op in _CONVOLUTIONS]
    if len(biased) < _FEWEST or 2 * sum(biased) > len(biased):
        return
    if any(kind_of(nodes[position].op) is Kind.NORM for position in alive):
        return
    for position in alive:
        node = nodes[position]
        if node.op in _CONVOLUTIONS or node.op == "Linear":
            node.attributes = _with_bias(node.attributes)


@lru_cache(maxsize=4096)
def _with_bias(attributes: Attributes) -> Attributes:
    return tuple(sorted({**dict(attributes), "bias": 1}.items()))


def _over_channels(shape: Shape, layer: DraftNode) -> bool:
    """Whether a constant of this shape is one number a channel of the layer's output."""
    if not shape:
        return True
    if layer.op == "Linear":
        return shape == layer.shape[-1:] and not layer.attribute("left")
    return len(layer.shape) > 1 and shape == (layer.shape[1], *(1,) * (len(layer.shape) - 2))


def merge_sums(draft: Draft, outputs: Sequence[int], alive: list[int]) -> list[int]:
    """Makes a chain or tree of sums one sum of all its terms, so that it does not matter which are added first.

    Precondition: none. Postcondition: no term of a sum is itself a sum of the same shape that nothing else uses.
    Returns the positions in `alive` that are left.
    """
    nodes = draft.nodes
    sums = [p for p in alive if nodes[p].op == "Add" and len(nodes[p].inputs) > 1]
    inner = {i for p in sums for i in nodes[p].inputs if nodes[i].op == "Add" and len(nodes[i].inputs) > 1}
    if not inner:
        return alive
    uses = dict.fromkeys(inner, 0)
    for position in alive:
        for operand in nodes[position].inputs:
            if operand in inner:
                uses[operand] += 1
    kept = set(outputs)
    gone = {
        p
        for position in sums
        for p in nodes[position].inputs
        if p in inner and uses[p] == 1 and p not in kept and nodes[p].shape == nodes[position].shape
    }
    for position in sums:
        if position in gone:
            continue
        terms: list[int] = []
        stack = list(reversed(nodes[position].inputs))
        while stack:
            operand = stack.pop()
            if operand in gone:
                stack.extend(reversed(nodes[operand].inputs))
            else:
                terms.append(operand)
        nodes[position].inputs = tuple(terms)
    return [position for position in alive if position not in gone] if gone else alive


# --- canonical order -----------------------------------------------------------------------------------------------

_MASK = (1 << 64) - 1


def _mix(a: int, b: int) -> int:
    """Mixes two 64-bit numbers into one (multiplication and shift, as in splitmix64: Steele et al. 2014, fig. 16)."""
    z = (a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    return z ^ (z >> 27)


@lru_cache(maxsize=1 << 16)
def _content_key(op: str, shape: Shape, attributes: Attributes, weights: tuple[Shape, ...]) -> int:
    """64 bits of a node's own content."""
    return int.from_bytes(blake2b(repr((op, shape, attributes, weights)).encode(), digest_size=8).digest(), "little")


def finish(draft: Draft, outputs: Sequence[int], alive: list[int], trace: Trace | None = None) -> ArchGraph:
    """The live part of the draft (`alive`, ascending) in canonical order.

    The order is a depth-first walk from the outputs towards the inputs, operands before consumers. Operands of
    commutative operators are visited in the order of structural keys (what lies before and behind them), so that
    neither names nor the order in the file play a part. Sums of several become chains of sums of two.
    """
    nodes = draft.nodes
    before = len(alive)
    alive = merge_sums(draft, outputs, alive)
    if trace is not None:
        trace.merged_sums += before - len(alive)
    keys = _structural_keys(nodes, alive, outputs)
    order: list[int] = []
    placed: set[int] = set()
    for output in outputs:
        stack = [output]
        while stack:
            position = stack[-1]
            if position in placed:
                stack.pop()
                continue
            node = nodes[position]
            inputs = node.inputs
            for operand in inputs:
                if operand not in placed:
                    break
            else:
                placed.add(position)
                order.append(position)
                stack.pop()
                continue
            if len(inputs) > 1:
                if node.op in COMMUTATIVE:
                    inputs = tuple(sorted(inputs, key=keys.__getitem__))
                stack.extend([i for i in reversed(inputs) if i not in placed])
            else:
                stack.append(inputs[0])
    return _emit(nodes, order, outputs)


def _emit(nodes: list[DraftNode], order: list[int], outputs: Sequence[int]) -> ArchGraph:
    place: dict[int, int] = {}
    counted: set[str] = set()
    first_user: dict[str, int] = {}
    result: list[Node] = []
    for position in order:
        node = nodes[position]
        inputs = tuple([place[i] for i in node.inputs])
        if len(inputs) > 1 and node.op in COMMUTATIVE:
            inputs = tuple(sorted(inputs))
            if len(inputs) > 2 and node.op == "Add":
                total = inputs[0]
                for term in inputs[1:-1]:
                    shape = broadcast((result[total].shape, result[term].shape)) or ()
                    result.append(Node("Add", (total, term), shape))
                    total = len(result) - 1
                inputs = (total, inputs[-1])
        here = place[position] = len(result)
        params, tied = 0, -1
        shapes: tuple[Shape, ...] = ()
        stored = node.bias
        if node.weights:
            first = node.weights[0].sources
            shapes = tuple([weight.shape for weight in node.weights])
            stored = sum([weight.sources for weight in node.weights], stored) if len(shapes) > 1 else first + stored
            if first and len(shapes[0]) > 1 and node.op in _SHARING:
                tied = first_user.setdefault(first[0][0], here)
                if tied == here:
                    tied = -1
        for name, size in stored:
            if name not in counted:
                counted.add(name)
                params += size
        result.append(Node(node.op, inputs, node.shape, node.attributes, shapes, tied, params))
    return ArchGraph(tuple(result), tuple([place[output] for output in outputs]))


def _structural_keys(nodes: list[DraftNode], alive: list[int], outputs: Sequence[int]) -> dict[int, int]:
    """Node → 64-bit key, by which the operands of every commutative operator can be told apart.

    The key says what lies before a node (weights that are used twice included). If that leaves a tie, it also says what
    lies behind the node; if that leaves one too, ties are broken one by one (`_break_ties`).
    """
    own: dict[int, int] = {}
    forward: dict[int, int] = {}
    twofold: list[int] = []
    users: dict[str, list[int]] = {}
    for position in alive:
        node = nodes[position]
        weights = node.weights
        if weights:
            shapes: tuple[Shape, ...] = tuple([weight.shape for weight in weights])
            if len(shapes[0]) > 1 and weights[0].sources and node.op in _SHARING:
                users.setdefault(weights[0].sources[0][0], []).append(position)
        else:
            shapes = ()
        own[position] = key = _content_key(node.op, node.shape, node.attributes, shapes)
        inputs = node.inputs
        if len(inputs) == 1:
            key = _mix(key, forward[inputs[0]])
        elif inputs:
            before = [forward[i] for i in inputs]
            if node.op in COMMUTATIVE:
                before.sort()
                twofold.append(position)
            for k in before:
                key = _mix(key, k)
        forward[position] = key
    if not _tied(nodes, twofold, forward):
        return forward
    shared = [group for group in users.values() if len(group) > 1]
    if not shared and _only_twins(nodes, alive, outputs, twofold, forward):
        return forward
    backward = dict.fromkeys(alive, 0)
    for slot, output in enumerate(outputs):
        backward[output] = (backward[output] + _mix(slot + 1, 1)) & _MASK
    for position in reversed(alive):
        node = nodes[position]
        here = _mix(own[position], backward[position])
        commutative = node.op in COMMUTATIVE
        for slot, operand in enumerate(node.inputs):
            backward[operand] = (backward[operand] + _mix(here, 0 if commutative else slot + 1)) & _MASK
    keys = {position: _mix(forward[position], backward[position]) for position in alive}
    if not _tied(nodes, twofold, keys):
        return keys
    return _break_ties(nodes, alive, shared, keys)


def _tied(nodes: list[DraftNode], twofold: list[int], keys: dict[int, int]) -> bool:
    """Whether two different operands of a commutative operator have one key."""
    for position in twofold:
        inputs = nodes[position].inputs
        if len(inputs) == 2:
            if inputs[0] != inputs[1] and keys[inputs[0]] == keys[inputs[1]]:
                return True
        elif len(set(inputs)) != len({keys[i] for i in inputs}):
            return True
    return False


def _only_twins(
    nodes: list[DraftNode], alive: list[int], outputs: Sequence[int], twofold: list[int], keys: dict[int, int]
) -> bool:
    """Whether tied operands are chains that fork from one node and that nothing else uses: any order will do then."""
    uses = dict.fromkeys(alive, 0)
    for position in alive:
        for operand in nodes[position].inputs:
            uses[operand] += 1
    for output in outputs:
        uses[output] += 1
    for position in twofold:
        first: dict[int, int] = {}
        for operand in nodes[position].inputs:
            like = first.setdefault(keys[operand], operand)
            if like != operand and not _twins(nodes, uses, like, operand):
                return False
    return True


def _twins(nodes: list[DraftNode], uses: dict[int, int], left: int, right: int) -> bool:
    while left != right:
        if uses[left] != 1 or uses[right] != 1 or len(nodes[left].inputs) != 1 or len(nodes[right].inputs) != 1:
            return False
        left, right = nodes[left].inputs[0], nodes[right].inputs[0]
    return True


def _break_ties(
    nodes: list[DraftNode], alive: list[int], shared: list[list[int]], keys: dict[int, int]
) -> dict[int, int]:
    """Tells all nodes apart: colour refinement, then one member of a class set apart, then refinement again, and so on.

    Refinement by splitting classes (Paige and Tarjan 1987): only members of classes that split change their key, so all
    of it takes O(edges · log nodes). Which member is set apart does not matter if refinement leaves only nodes in one
    class that a symmetry of the graph exchanges; graphs that break this exist, but they are not networks
    (Cai, Fürer and Immerman 1992).

    Args:
        nodes: All nodes of the draft.
        alive: Positions of those that count, ascending.
        shared: Groups of nodes that use one weight.
        keys: Keys to begin with, equal for nodes that a symmetry exchanges.
    """
    touching: dict[int, list[tuple[int, int]]] = {position: [] for position in alive}
    for position in alive:
        node = nodes[position]
        commutative = node.op in COMMUTATIVE
        for slot, operand in enumerate(node.inputs):
            edge = 4 if commutative else 2 * slot + 6
            touching[position].append((edge, operand))
            touching[operand].append((edge + 1, position))
    colour = dict(keys)
    for number, group in enumerate(shared):  # a weight is a node beside the graph
        weight = -1 - number
        touching[weight] = [(2, user) for user in group]
        colour[weight] = 1
        for user in group:
            touching[user].append((3, weight))
    classes: dict[int, set[int]] = {}
    for item, key in colour.items():
        classes.setdefault(key, set()).add(item)
    pending = sorted(classes)
    _split_until_stable(touching, colour, classes, pending)
    for key in sorted(classes):
        family = [key]
        while family:
            members = classes[family[-1]]
            if len(members) < 2:
                family.pop()
                continue
            chosen = min(members)
            members.remove(chosen)
            alone = _mix(family[-1], 11 + len(members))
            colour[chosen] = alone
            classes[alone] = {chosen}
            born = _split_until_stable(touching, colour, classes, [alone])
            family.extend(sorted((k for k in born if len(classes[k]) > 1), reverse=True))
    return colour


def _split_until_stable(
    touching: dict[int, list[tuple[int, int]]],
    colour: dict[int, int],
    classes: dict[int, set[int]],
    pending: list[int],
) -> list[int]:
    """Splits classes whose members touch a pending class in different ways; the keys of the new classes."""
    born: list[int] = []
    queue = deque(pending)
    while queue:
        splitter = queue.popleft()
        touched: dict[int, int] = {}
        for member in classes[splitter]:
            for edge, item in touching[member]:
                touched[item] = (touched.get(item, 0) + _mix(splitter, edge)) & _MASK
        by_class: dict[int, dict[int, list[int]]] = {}
        for item, mark in touched.items():
            if len(classes[colour[item]]) > 1:
                by_class.setdefault(colour[item], {}).setdefault(mark, []).append(item)
        for key in sorted(by_class):
            marks = by_class[key]
            rest = len(classes[key]) - sum(map(len, marks.values()))
            if not rest and len(marks) == 1:
                continue
            for mark in sorted(marks):
                part = marks[mark]
                if not rest and mark == max(marks):
                    break  # one part keeps the key
                new = _mix(key, mark)
                classes[key].difference_update(part)
                classes[new] = set(part)
                for item in part:
                    colour[item] = new
                queue.append(new)
                born.append(new)
            queue.append(key)
    return born
