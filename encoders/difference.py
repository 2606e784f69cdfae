"""Why two networks are, or are not, the same: `diff` pairs the nodes of two graphs and says what is left over.

Positions say little, as an early change moves everything in the canonical order, so nodes are paired by structure:
first those with the same network before or behind them (exactly, then without shapes, then without weights), then
what touches paired nodes, then the rest by the alignment of the two sequences that scores best
(Needleman and Wunsch 1970, with the gaps of Gotoh 1982).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

import numpy as np

from .draft import COMMUTATIVE
from .errors import GraphError, ReadError
from .graph import ArchGraph, Node
from .model_names import is_name
from .onnx_file import structure
from .operators import Kind, kind_of
from .reading import Shapes, read
from .text import is_description, read_file


class Aspect(NamedTuple):
    """One thing in which two paired nodes differ.

    Attributes:
        name: "op", "shape", "weights", "inputs", "tied", or "attribute NAME".
        a: What it is in the first graph; None if it is not there.
        b: What it is in the second.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Change:
    """One located difference.

    Attributes:
        kind: "removed": only in the first graph; "added": only in the second; "changed": in both, but not alike;
            "outputs": the network's outputs are others; "order": the same nodes and wires in another canonical order.
        a: Position in the first graph, or None.
        b: Position in the second graph, or None.
        op: The operator (of the first graph if it has the node).
        aspects: What differs; empty unless the node is in both graphs.
    """

    kind: Literal["removed", "added", "changed", "outputs", "order"]
    a: int | None
    b: int | None
    op: str
    aspects: tuple[Aspect, ...] = ()


class Total(NamedTuple):
    """A figure of the whole network that differs."""

    name: str
    a: Any
    b: Any


class Region(NamedTuple):
    """Removed and added nodes that stand in the same place: `a` instead of `b` (positions, ascending)."""

    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """What `diff` found.

    Attributes:
        same: Whether the graphs are equal (their hashes are).
        totals: Figures that differ: params, macs, nodes, depth, inputs, outputs (shapes).
        operators: `(operator, times in a, times in b)` where the counts differ.
        changes: What differs of itself; never empty unless `same`.
        consequences: Nodes whose shape, operands or sizes differ only because of a change before them.
        regions: The removed and added nodes of `changes`, grouped by place.
        remarks: Likely causes, where the evidence allows to name one.
        a: The first graph.
        b: The second graph.
    """

    same: bool
    totals: tuple[Total, ...]
    operators: tuple[tuple[str, int, int], ...]
    changes: tuple[Change, ...]
    consequences: tuple[Change, ...]
    regions: tuple[Region, ...]
    remarks: tuple[str, ...]
    a: ArchGraph = field(repr=False)
    b: ArchGraph = field(repr=False)

    def __str__(self) -> str:
        return self.text()

    def text(self, limit: int = 12) -> str:
        """A report to read: the verdict, what differs in total, the changes, their consequences, remarks.

        Args:
            limit: At most this many lines of changes; changes of one kind share a line.
        """
        return "\n".join(_lines(self, limit))

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values for JSON, without the graphs."""
        return {
            "same": self.same,
            "hash": {"a": self.a.hash, "b": self.b.hash},
            "totals": {total.name: {"a": total.a, "b": total.b} for total in self.totals},
            "operators": {op: {"a": before, "b": after} for op, before, after in self.operators},
            "changes": [_change_dict(change) for change in self.changes],
            "consequences": [_change_dict(change) for change in self.consequences],
            "regions": [{"a": list(region.a), "b": list(region.b)} for region in self.regions],
            "remarks": list(self.remarks),
        }


def diff(a: ArchGraph, b: ArchGraph) -> Difference:
    """Says why two networks are, or are not, the same.

    Args:
        a: The first graph.
        b: The second graph.

    Returns:
        The difference; `same` exactly if `a == b`, and then without changes (figures that are no part of a graph's
        identity, such as `params`, may still differ). Which node of `a` is which of `b` is a best guess where the two
        are far apart.

    Raises:
        GraphError: One of them is no `ArchGraph`.
    """
    for graph in (a, b):
        if not isinstance(graph, ArchGraph):
            raise GraphError(f"expected two graphs, got {type(graph).__name__}: read the network first, with read()")
    totals = tuple(_totals(a, b))
    before, after = Counter(node.op for node in a.nodes), Counter(node.op for node in b.nodes)
    operators = tuple([(op, before[op], after[op]) for op in sorted(before | after) if before[op] != after[op]])
    if a.hash == b.hash:
        remarks = tuple(_remarks_on_same(a, b))
        return Difference(True, totals, operators, (), (), (), remarks, a, b)
    left, right = _View.of(a), _View.of(b)
    if a.hash < b.hash:  # so that it does not matter which comes first
        partners = _Pairing(left, right).run()
    else:
        partners = _inverse(_Pairing(right, left).run(), len(left.nodes))
    changes, consequences = (
        [_in_graphs(change, left, right) for change in part] for part in _compare(left, right, partners)
    )
    if not changes:
        if consequences:
            changes, consequences = consequences[:1], consequences[1:]
        else:
            changes = [Change("order", None, None, "")]
    regions = tuple(
        Region(tuple(left.origin[i] for i in region.a), tuple(right.origin[j] for j in region.b))
        for region in _regions(left, right, partners)
    )
    remarks = tuple(_remarks(a, b, changes, regions))
    return Difference(False, totals, operators, tuple(changes), tuple(consequences), regions, remarks, a, b)


def read_pair(a: str, b: str, input_shapes: Shapes | None = None) -> tuple[ArchGraph, ArchGraph]:
    """Reads two networks, files or names, with the input shapes that each of them needs.

    Args:
        a: As for `read`.
        b: As for `read`.
        input_shapes: As for `read`. By name: each file takes those of its own inputs. Without names: in the order of
            the inputs, for files as well.

    Raises:
        ReadError: One of them cannot be read, or neither has an input of a name that is given.
    """
    wanted = [_inputs_of(source) if input_shapes is not None else None for source in (a, b)]
    if isinstance(input_shapes, Mapping) and None not in wanted:
        for name in input_shapes:
            if not any(name in names for names in wanted if names is not None):
                raise ReadError(f"no input is called {name!r}: {a} has {wanted[0]}, {b} has {wanted[1]}")
    first, second = [
        read(source, input_shapes=_fitting(input_shapes, names)) for source, names in zip((a, b), wanted, strict=True)
    ]
    return first, second


def _inputs_of(source: str) -> list[str] | None:
    """Names of the inputs of an ONNX file; None for the name of a model and for a text description."""
    if is_name(source) or is_description(source) or read_file(source) is not None:
        return None
    graph = structure(source).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in stored]


def _fitting(shapes: Shapes | None, names: list[str] | None) -> Shapes | None:
    """Those of the shapes that are meant for a file with inputs of these names."""
    if shapes is None or names is None:
        return shapes
    if isinstance(shapes, Mapping):
        return {name: shape for name, shape in shapes.items() if name in names}
    listed: Any = [shapes] if all(isinstance(size, int) for size in shapes) else shapes
    return dict(zip(names, listed, strict=False))


# --- sums of several terms ----------------------------------------------------------------------------------------


class _View(NamedTuple):
    """A graph whose chains of sums are one sum each, as which terms are added first says nothing.

    Attributes:
        nodes: Nodes, their operands being positions in this view.
        outputs: Positions of the outputs in this view.
        origin: Position in the graph of every node.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    origin: tuple[int, ...]

    @classmethod
    def of(cls, graph: ArchGraph) -> _View:
        nodes = graph.nodes
        uses = Counter(i for node in nodes for i in node.inputs)
        terms: dict[int, tuple[int, ...]] = {}  # of the sums that go up in a larger one
        inputs: list[tuple[int, ...]] = []
        for node in nodes:
            flat: list[int] = []
            for operand in node.inputs:
                inner = nodes[operand]
                partial = (
                    node.op == inner.op == "Add" and len(inner.inputs) > 1 and not (inner.attributes or inner.weights)
                )
                if partial and uses[operand] == 1 and operand not in graph.outputs and inner.shape == node.shape:
                    terms[operand] = inputs[operand]
                    flat.extend(inputs[operand])
                else:
                    flat.append(operand)
            inputs.append(tuple(flat))
        origin = tuple([i for i in range(len(nodes)) if i not in terms])
        place = {position: i for i, position in enumerate(origin)}
        view = [
            nodes[i]._replace(
                inputs=tuple([place[k] for k in inputs[i]]), tied=place[nodes[i].tied] if nodes[i].tied >= 0 else -1
            )
            for i in origin
        ]
        return cls(tuple(view), tuple([place[i] for i in graph.outputs]), origin)


def _in_graphs(change: Change, a: _View, b: _View) -> Change:
    """The change with positions in the graphs instead of the views."""

    def placed(value: Any, view: _View) -> Any:
        if isinstance(value, tuple):
            return tuple([view.origin[i] for i in value])
        return None if value is None else view.origin[value]

    aspects = [
        Aspect(x.name, placed(x.a, a), placed(x.b, b)) if x.name in ("inputs", "tied", "outputs") else x
        for x in change.aspects
    ]
    return Change(change.kind, placed(change.a, a), placed(change.b, b), change.op, tuple(aspects))


# --- pairing --------------------------------------------------------------------------------------------------------

_Content = Callable[[Node], Hashable]
_LEVELS: tuple[_Content, ...] = (
    lambda node: (node.op, node.attributes, node.weights, node.shape, node.tied >= 0),
    lambda node: (node.op, node.attributes, node.weights),
    lambda node: (node.op, node.attributes),
    lambda node: node.op,
)
"""What is looked at of a node, from everything to the operator's name."""
_CELLS = 30_000_000
"""Largest table of the sequence alignment, in cells of one byte."""


def _inverse(partners: list[int | None], size: int) -> list[int | None]:
    """The same pairs, seen from the second graph, which has `size` nodes."""
    back: list[int | None] = [None] * size
    for left, right in enumerate(partners):
        if right is not None:
            back[right] = left
    return back


class _Side:
    """One of the two graphs while it is being paired."""

    def __init__(self, graph: _View) -> None:
        self.nodes, self.outputs = graph.nodes, graph.outputs
        self.consumers: list[list[tuple[int, int]]] = [[] for _ in graph.nodes]
        self.depth: list[int] = []
        for position, node in enumerate(graph.nodes):
            commutative = node.op in COMMUTATIVE
            self.depth.append(1 + max((self.depth[i] for i in node.inputs), default=0))
            for slot, operand in enumerate(node.inputs):
                self.consumers[operand].append((position, -1 if commutative else slot))
        self.partner: list[int | None] = [None] * len(graph.nodes)
        self.codes: list[list[int]] = []
        self.ahead: list[list[int]] = []
        self.behind: list[list[int]] = []
        self.around: list[list[int]] = []

    def free(self) -> list[int]:
        """Positions without a partner, ascending."""
        return [position for position, partner in enumerate(self.partner) if partner is None]


class _Pairing:
    """Finds which node of one graph is which of the other."""

    def __init__(self, a: _View, b: _View) -> None:
        self.a, self.b = _Side(a), _Side(b)
        self.known: dict[Hashable, int] = {}

    def run(self) -> list[int | None]:
        """For every node of the first graph the position of its partner in the second, or None."""
        for content in _LEVELS:
            for side in (self.a, self.b):
                self._keys(side, content)
        for level in range(3):
            self._pair_equal(level, "ahead", "behind")
            self._pair_equal(level, "ahead", alone=True)
            self._pair_equal(level, "behind", alone=True)
            if level < 2:
                self._spread(level)
            self._pair_equal(level, "ahead", "around")
            self._pair_equal(level, "behind", "around")
            if level < 2:
                self._spread(level)
        orders = [[p for p in _walk(side) if side.partner[p] is None] for side in (self.a, self.b)]
        self._align(orders[0], orders[1])
        self._doubt()
        for level in range(4):
            self._spread(level, guess=True)
        return self.a.partner

    def _code(self, key: Hashable) -> int:
        return self.known.setdefault(key, len(self.known))

    def _keys(self, side: _Side, content: _Content) -> None:
        """Codes of every node: its content; that and all before it; that and all behind it; that and what is near."""
        codes = [self._code(content(node)) for node in side.nodes]
        ahead: list[int] = []
        for code, node in zip(codes, side.nodes, strict=True):
            before = [ahead[i] for i in node.inputs]
            if node.op in COMMUTATIVE:
                before.sort()
            ahead.append(self._code((code, ahead[node.tied] if node.tied >= 0 else -1, *before)))
        behind = [0] * len(codes)
        slots: dict[int, list[int]] = {}
        for slot, output in enumerate(side.outputs):
            slots.setdefault(output, []).append(slot)
        for position in reversed(range(len(codes))):
            after = sorted([(behind[consumer], slot) for consumer, slot in side.consumers[position]])
            behind[position] = self._code((codes[position], tuple(slots.get(position, ())), tuple(after), "behind"))
        around = codes
        for _ in range(2):
            around = [
                self._code(
                    (
                        around[position],
                        tuple(sorted([around[i] for i in node.inputs])),
                        tuple(sorted([(around[consumer], slot) for consumer, slot in side.consumers[position]])),
                    )
                )
                for position, node in enumerate(side.nodes)
            ]
        side.codes.append(codes)
        side.around.append(around)
        side.ahead.append(ahead)
        side.behind.append(behind)

    def _pair(self, left: int, right: int) -> None:
        self.a.partner[left] = right
        self.b.partner[right] = left

    def _pair_equal(self, level: int, *kinds: Literal["ahead", "behind", "around"], alone: bool = False) -> None:
        """Pairs free nodes of equal keys, if there are as many here as there (`alone`: one)."""
        groups: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
        for number, side in enumerate((self.a, self.b)):
            columns: list[list[int]] = [getattr(side, kind)[level] for kind in kinds]
            for position in side.free():
                key = tuple([column[position] for column in columns])
                groups.setdefault(key, ([], []))[number].append(position)
        for here, there in groups.values():
            if len(here) == len(there) and (len(here) == 1 or not alone):
                for one, other in zip(here, there, strict=True):
                    self._pair(one, other)

    def _spread(self, level: int, guess: bool = False) -> None:
        """Pairs the free neighbours of paired nodes, where content and slot say which is which.

        Args:
            level: What is looked at.
            guess: Whether neighbours that look the same are paired in the order in which they stand.
        """
        queue = deque([(i, partner) for i, partner in enumerate(self.a.partner) if partner is not None])
        while queue:
            left, right = queue.popleft()
            for here, there in self._neighbours(left, right, level):
                for one, other in self._matches(here, there, level, guess):
                    self._pair(one, other)
                    queue.append((one, other))

    def _matches(self, here: list[int], there: list[int], level: int, guess: bool) -> list[tuple[int, int]]:
        """Which of the nodes of equal content is which, if there are as many here as there."""
        if len(here) != len(there):
            return []
        if len(here) == 1:
            return [(here[0], there[0])]
        around = self.a.around[level], self.b.around[level]
        found: list[tuple[int, int]] = []
        for key in dict.fromkeys([around[0][i] for i in here]):
            same = [i for i in here if around[0][i] == key], [j for j in there if around[1][j] == key]
            if len(same[0]) == len(same[1]) == 1 or (guess and len(same[0]) == len(same[1])):
                found.extend(zip(*same, strict=True))
        left = [i for i in here if i not in {i for i, _ in found}], [j for j in there if j not in {j for _, j in found}]
        if len(left[0]) == 1 or guess:
            found.extend(zip(*left, strict=True))
        return found

    def _neighbours(self, left: int, right: int, level: int) -> Iterator[tuple[list[int], list[int]]]:
        """Free operands and consumers of two nodes, grouped by slot and content."""
        for behind in (False, True):
            groups: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
            for number, (side, position) in enumerate(((self.a, left), (self.b, right))):
                node = side.nodes[position]
                near: Iterable[tuple[int, int]]
                if behind:
                    near = side.consumers[position]
                else:
                    commutative = node.op in COMMUTATIVE
                    near = [(operand, -1 if commutative else slot) for slot, operand in enumerate(node.inputs)]
                for neighbour, slot in dict.fromkeys(near):
                    if side.partner[neighbour] is None:
                        group = groups.setdefault((slot, side.codes[level][neighbour]), ([], []))[number]
                        if neighbour not in group:
                            group.append(neighbour)
            for here, there in groups.values():
                if all(self.a.partner[i] is None for i in here) and all(self.b.partner[i] is None for i in there):
                    yield here, there

    def _align(self, left: list[int], right: list[int]) -> None:
        """Pairs nodes of two sequences without crossings, so that the pairs are as alike as can be."""
        if not left or not right:
            return
        if len(left) * len(right) <= _CELLS:
            for i, j in _best_alignment(self._features(self.a, left), self._features(self.b, right)):
                self._pair(left[i], right[j])
            return
        codes = [[side.codes[1][p] for p in order] for side, order in ((self.a, left), (self.b, right))]
        blocks = SequenceMatcher(None, codes[0], codes[1]).get_matching_blocks()
        if len(blocks) == 1:
            half = (len(left) // 2, len(right) // 2)
            self._align(left[: half[0]], right[: half[1]])
            self._align(left[half[0] :], right[half[1] :])
            return
        i = j = 0
        for block in blocks:
            self._align(left[i : block.a], right[j : block.b])
            for step in range(block.size):
                self._pair(left[block.a + step], right[block.b + step])
            i, j = block.a + block.size, block.b + block.size

    def _features(self, side: _Side, order: list[int]) -> np.ndarray:
        """Rows of codes for the nodes: operator, attributes, weights, shape, kind, surroundings, paired neighbours."""
        numbers = range(len(side.nodes))
        # A paired node goes by its position in the first graph.
        names = numbers if side is self.a else [-1 if p is None else p for p in side.partner]
        rows: list[list[int]] = []
        for position in order:
            node = side.nodes[position]
            consumers = side.consumers[position]
            kind = kind_of(node.op)
            anchors = tuple([names[i] for i in node.inputs if side.partner[i] is not None])
            users = tuple(sorted([names[i] for i, _ in consumers if side.partner[i] is not None]))
            rows.append(
                [
                    side.codes[3][position],
                    side.codes[2][position],
                    self._code(("weights", node.weights)),
                    self._code(("shape", node.shape)),
                    self._code(("kind", kind if kind in _EXCHANGEABLE else (node.op, kind))),
                    self._code(("before", tuple(sorted([side.nodes[i].op for i in node.inputs])))),
                    self._code(("behind", tuple(sorted([side.nodes[i].op for i, _ in consumers])))),
                    self._code(("operands", anchors)) if anchors else -1,
                    self._code(("users", users)) if users else -1,
                ]
            )
        return np.array(rows, dtype=np.int64)

    def _doubt(self) -> None:
        """Undoes pairs that nothing but chance speaks for: no neighbours in common, and not alike."""
        a, b = self.a, self.b
        doubtful = []
        for left, right in enumerate(a.partner):
            if right is None or a.codes[2][left] == b.codes[2][right]:
                continue
            mine, theirs = a.nodes[left], b.nodes[right]
            near = {a.partner[i] for i in mine.inputs} & set(theirs.inputs)
            near |= {a.partner[i] for i, _ in a.consumers[left]} & {i for i, _ in b.consumers[right]}
            ends = left in a.outputs and right in b.outputs
            if not near - {None} and not ends and (mine.inputs or theirs.inputs):
                doubtful.append((left, right))
        for left, right in doubtful:
            a.partner[left] = b.partner[right] = None


_EXCHANGEABLE = frozenset(
    {
        Kind.CONV,
        Kind.RECURRENT,
        Kind.NORM,
        Kind.ACTIVATION,
        Kind.SOFTMAX,
        Kind.POOL,
        Kind.GLOBAL_POOL,
        Kind.ADD,
        Kind.MULTIPLY,
        Kind.REDUCE,
    }
)
"""Kinds of which one operator may stand where another stood."""


def _walk(side: _Side) -> list[int]:
    """All nodes, operands first, by a walk from the outputs that goes into the deepest operand of a sum first."""
    order: list[int] = []
    placed = [False] * len(side.nodes)
    ahead = side.ahead[2]
    for output in (*side.outputs, *reversed(range(len(side.nodes)))):
        stack = [output]
        while stack:
            position = stack[-1]
            if placed[position]:
                stack.pop()
                continue
            node = side.nodes[position]
            waiting = [i for i in node.inputs if not placed[i]]
            if not waiting:
                placed[position] = True
                order.append(position)
                stack.pop()
                continue
            if len(waiting) > 1 and node.op in COMMUTATIVE:
                waiting.sort(key=lambda i: (-side.depth[i], ahead[i]))
            stack.extend(reversed(waiting))
    return order


_OPEN, _NEVER = 3, -(10**6)


def _best_alignment(left: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """The pairs (row of left, row of right) of the best global alignment; gaps cost `_OPEN`, however long.

    Args:
        left: Features (n, 9) of one sequence; see `_Pairing._features`.
        right: Features (m, 9) of the other.
    """
    n, m = len(left), len(right)
    features = np.ascontiguousarray(right.T)
    # Best scores of what ends with a pair (state 0), with a node of `left` alone (1), with one of `right` alone (2).
    pair, down, across = np.full(m + 1, _NEVER), np.full(m + 1, _NEVER), np.full(m + 1, -_OPEN)
    pair[0] = 0
    trace = np.zeros((n + 1, m + 1), dtype=np.uint8)
    for i in range(1, n + 1):
        row = left[i - 1]
        same = [column == value for column, value in zip(features, row, strict=True)]
        likeness = np.where(
            same[0],
            3 + 3 * same[1] + 2 * same[2] + 2 * same[3],
            np.where(same[4], 1 + same[2] + 1 * same[3], _NEVER),
        )
        likeness += same[5]
        likeness += same[6]
        for anchored in (7, 8):
            if row[anchored] >= 0:
                likeness += 5 * same[anchored]
        # Where a pair at (i, j) came from: bits 0 and 1, the state at (i - 1, j - 1).
        best = np.maximum(np.maximum(pair, down), across)
        came = np.where(pair == best, 0, np.where(down == best, 1, 2)).astype(np.uint8)
        new_pair = np.full(m + 1, _NEVER)
        new_pair[1:] = best[:-1] + likeness
        trace[i, 1:] = came[:-1]
        # Left alone: bit 2 if it was so at (i - 1, j) too, else bit 3 if the state there was 2.
        opened = np.maximum(pair, across) - _OPEN
        new_down = np.maximum(down, opened)
        trace[i] |= ((down >= opened) << 2).astype(np.uint8) | ((across > pair) << 3).astype(np.uint8)
        # Right alone: bit 4 if it was so at (i, j - 1) too, else bit 5 if the state there was 1.
        opened = np.maximum(new_pair, new_down) - _OPEN
        new_across = np.full(m + 1, _NEVER)
        new_across[1:] = np.maximum.accumulate(opened)[:-1]
        trace[i, 1:] |= ((new_across[1:] > opened[:-1]) << 4).astype(np.uint8)
        trace[i, 1:] |= ((new_down > new_pair)[:-1] << 5).astype(np.uint8)
        pair, down, across = new_pair, new_down, new_across
    found: list[tuple[int, int]] = []
    i, j = n, m
    state = int(np.argmax([pair[m], down[m], across[m]]))
    while i > 0 and j > 0:
        cell = int(trace[i, j])
        if state == 0:
            found.append((i - 1, j - 1))
            state = cell & 3
            i, j = i - 1, j - 1
        elif state == 1:
            state = 1 if cell & 4 else 2 if cell & 8 else 0
            i -= 1
        else:
            state = 2 if cell & 16 else 1 if cell & 32 else 0
            j -= 1
    return found[::-1]


# --- comparing ------------------------------------------------------------------------------------------------------


def _compare(a: _View, b: _View, partners: list[int | None]) -> tuple[list[Change], list[Change]]:
    """Changes, and what merely follows from them."""
    back = _inverse(partners, len(b.nodes))
    shared = _tie_groups(a), _tie_groups(b)
    removed = [Change("removed", i, None, a.nodes[i].op) for i, partner in enumerate(partners) if partner is None]
    added = [Change("added", None, j, b.nodes[j].op) for j, partner in enumerate(back) if partner is None]
    changed: list[Change] = []
    consequences: list[Change] = []
    for left, right in enumerate(partners):
        if right is None:
            continue
        mine, theirs = a.nodes[left], b.nodes[right]
        aspects = _node_aspects(mine, theirs)
        own = False  # whether anything differs that no operand explains
        operands: tuple[list[int | None], list[int | None]] = [partners[i] for i in mine.inputs], list(theirs.inputs)
        if mine.op in COMMUTATIVE:
            operands[0].sort(key=lambda i: -1 if i is None else i)
            operands[1].sort(key=lambda i: -1 if i is None else i)
        rewired = operands[0] != operands[1]
        here, there = Counter(operands[0]) - Counter(operands[1]), Counter(operands[1]) - Counter(operands[0])
        by_hand = rewired and not (None in here or any(back[i] is None for i in there if i is not None))
        resized = len(mine.inputs) != len(theirs.inputs) or any(
            partner is not None and a.nodes[i].shape != b.nodes[partner].shape
            for i, partner in ((i, partners[i]) for i in mine.inputs)
        )
        for aspect in aspects:
            if aspect.name == "shape" and len(aspects) > 1 and not (rewired or resized):
                continue
            own |= not ((rewired or resized) and _follows(aspect, mine, theirs, a, b))
        if rewired:
            aspects.append(Aspect("inputs", mine.inputs, theirs.inputs))
            own |= by_hand
        if (tie := _tie(left, right, a, b, partners, shared)) is not None:
            aspects.append(tie)
            own |= not (mine.tied >= 0 and partners[mine.tied] is None) and not (
                theirs.tied >= 0 and back[theirs.tied] is None
            )
        if aspects:
            (changed if own else consequences).append(Change("changed", left, right, mine.op, tuple(aspects)))
    outputs = [partners[i] for i in a.outputs]
    if outputs != list(b.outputs):
        change = Change("outputs", None, None, "", (Aspect("outputs", a.outputs, b.outputs),))
        replaced = any(i is None for i in outputs) or any(back[j] is None for j in b.outputs)
        (consequences if replaced else changed).append(change)
    return removed + added + changed, consequences


def _node_aspects(mine: Node, theirs: Node) -> list[Aspect]:
    """What differs between two nodes, wiring and ties aside."""
    if mine[:1] + mine[2:5] == theirs[:1] + theirs[2:5]:
        return []
    aspects = []
    if mine.op != theirs.op:
        aspects.append(Aspect("op", mine.op, theirs.op))
    here, there = dict(mine.attributes), dict(theirs.attributes)
    for name in sorted(here | there):
        # repr, as the hash sees it: 1 and 1.0 are two values
        if repr(here.get(name)) != repr(there.get(name)):
            aspects.append(Aspect(f"attribute {name}", here.get(name), there.get(name)))
    if mine.weights != theirs.weights:
        aspects.append(Aspect("weights", mine.weights, theirs.weights))
    if mine.shape != theirs.shape:
        aspects.append(Aspect("shape", mine.shape, theirs.shape))
    return aspects


_SIZES = frozenset({"start", "end", "step", "input_1", "sizes", "split", "repeats", "output_shape"})
"""Attributes that go with the size of the operand."""


def _follows(aspect: Aspect, mine: Node, theirs: Node, a: _View, b: _View) -> bool:
    """Whether an aspect of a node can come from nothing but other sizes of its operands."""
    if aspect.name == "shape":
        return True
    if aspect.name == "op" or mine.op != theirs.op:
        return False
    depthwise = all(
        node.op == "Conv" and bool(node.inputs) and len(graph.nodes[node.inputs[0]].shape) > 1
        and node.attribute("group", 1) == graph.nodes[node.inputs[0]].shape[1]
        for node, graph in ((mine, a), (theirs, b))
    )  # fmt: skip
    if aspect.name == "attribute group":
        return depthwise
    if aspect.name == "weights":
        if [len(w) for w in mine.weights] != [len(w) for w in theirs.weights]:
            return False
        kind = kind_of(mine.op)
        if kind in (Kind.NORM, Kind.ACTIVATION, Kind.ADD, Kind.MULTIPLY):
            return mine.shape != theirs.shape
        if not mine.weights:
            return False
        here, there = mine.weights[0], theirs.weights[0]
        axes = {axis for axis, (m, n) in enumerate(zip(here, there, strict=True)) if m != n}
        if mine.op == "Conv":
            return axes <= ({0, 1} if depthwise else {1})
        if mine.op == "ConvTranspose":
            return axes <= {0}
        if mine.op == "Linear":
            return axes <= {len(here) - 1 if mine.attribute("left") or len(here) == 1 else len(here) - 2}
        return kind is Kind.RECURRENT and axes <= {len(here) - 1}
    name = aspect.name.removeprefix("attribute ")
    return name in _SIZES and kind_of(mine.op) in (Kind.LAYOUT, Kind.RESIZE, Kind.OTHER, Kind.UNKNOWN)


def _tie_groups(graph: _View) -> dict[int, frozenset[int]]:
    """Node → all nodes that use its weight, for weights that several use."""
    members: dict[int, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        if node.tied >= 0:
            members.setdefault(node.tied, [node.tied]).append(position)
    return {position: frozenset(group) for group in members.values() for position in group}


def _tie(
    left: int,
    right: int,
    a: _View,
    b: _View,
    partners: list[int | None],
    shared: tuple[dict[int, frozenset[int]], dict[int, frozenset[int]]],
) -> Aspect | None:
    """The difference in whose weight two paired nodes use again, if there is one."""
    mine, theirs = a.nodes[left].tied, b.nodes[right].tied
    if (mine < 0 and theirs < 0) or (mine >= 0 and partners[mine] == theirs):
        return None
    if {partners[i] for i in shared[0].get(left, ())} == shared[1].get(right, frozenset()):
        return None  # the same nodes share it, another one of them comes first
    return Aspect("tied", mine if mine >= 0 else None, theirs if theirs >= 0 else None)


def _totals(a: ArchGraph, b: ArchGraph) -> Iterator[Total]:
    figures: tuple[tuple[str, Callable[[ArchGraph], Any]], ...] = (
        ("params", lambda graph: graph.params),
        ("macs", lambda graph: graph.macs),
        ("nodes", len),
        ("depth", lambda graph: graph.depth),
        ("inputs", lambda graph: tuple(node.shape for node in graph.nodes if node.op == "Input")),
        ("outputs", lambda graph: tuple(graph.nodes[i].shape for i in graph.outputs)),
    )
    for name, figure in figures:
        before, after = figure(a), figure(b)
        if before != after:
            yield Total(name, before, after)


def _regions(a: _View, b: _View, partners: list[int | None]) -> tuple[Region, ...]:
    """Nodes without a partner, grouped: neighbours, and nodes of both graphs that touch one pair on the same side."""
    removed = [i for i, partner in enumerate(partners) if partner is None]
    taken = {partner for partner in partners if partner is not None}
    added = [j for j in range(len(b.nodes)) if j not in taken]
    parent: dict[tuple[int, int], tuple[int, int]] = {}

    def root(item: tuple[int, int]) -> tuple[int, int]:
        while parent.setdefault(item, item) != item:
            parent[item] = item = parent[parent[item]]
        return item

    touching: dict[tuple[str, int | None], list[tuple[int, int]]] = {}
    for number, (graph, alone) in enumerate(((a, set(removed)), (b, set(added)))):
        for position, node in enumerate(graph.nodes):
            for operand in node.inputs:
                if position in alone and operand in alone:
                    parent[root((number, position))] = root((number, operand))
                elif position in alone:
                    pair = operand if number else partners[operand]
                    touching.setdefault(("behind", pair), []).append((number, position))
                elif operand in alone:
                    pair = position if number else partners[position]
                    touching.setdefault(("before", pair), []).append((number, operand))
    for items in touching.values():
        if len({number for number, _ in items}) == 2:
            for item in items[1:]:
                parent[root(item)] = root(items[0])
    groups: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    for item in [(0, i) for i in removed] + [(1, j) for j in added]:
        groups.setdefault(root(item), ([], []))[item[0]].append(item[1])
    return tuple([Region(tuple(here), tuple(there)) for here, there in groups.values()])


# --- remarks --------------------------------------------------------------------------------------------------------


def _remarks_on_same(a: ArchGraph, b: ArchGraph) -> Iterator[str]:
    if a.params != b.params:
        yield (
            f"the files store other numbers of parameters ({a.params:,} and {b.params:,}), which is no part of a "
            "network's identity: one may have batch norms folded into its convolutions, or store a shared weight twice"
        )


_PARTS = (
    "Sigmoid Mul Div Add Sub Erf Tanh Clip Relu Relu6 HardSigmoid Softplus Exp Log Pow Max Min Neg Abs Sqrt Reciprocal "
    "Where ReduceMean"
)
_SPELLED = frozenset(_PARTS.split())
"""What activations and norms are written out with."""


def _remarks(a: ArchGraph, b: ArchGraph, changes: Sequence[Change], regions: Sequence[Region]) -> Iterator[str]:
    """Likely causes; each is stated only if the evidence is there."""
    changed = [change for change in changes if change.kind == "changed"]
    times: Counter[str] = Counter(aspect.name for change in changed for aspect in change.aspects)
    yield from _input_remarks(a, b)
    if any(change.kind == "order" for change in changes):
        yield (
            "every node and every wire has its partner, so it is one network in two canonical orders: please report "
            "this as a fault of archgauge"
        )
    if count := times["attribute bias"]:
        bare = [sum(not a_or_b for a_or_b in side) for side in zip(*_values(changed, "attribute bias"), strict=True)]
        where = f"{bare[0]} lack it in A, {bare[1]} in B" if all(bare) else f"all lack it in {'A' if bare[0] else 'B'}"
        yield (
            f"{_count(count, 'layer')} with a bias in one network only ({where}): a bias of zeros that one exporter "
            "left out, a norm that was folded in, or layers built with bias=False"
        )
    if times["attribute mode"]:
        for op in sorted({c.op for c in changed if any(s.name == "attribute mode" for s in c.aspects)}):
            modes = sorted({f"{x or 'nearest'} / {y or 'nearest'}" for x, y in _values(changed, "attribute mode", op)})
            if op == "Resize":
                yield f"Resize modes differ ({', '.join(modes)}): one network interpolates in another way"
            else:
                yield f"{op} modes differ"
    if count := times["tied"]:
        yield (
            f"{_count(count, 'layer')} with a weight that another layer uses too, in one network only or with another "
            "layer"
        )
    strange = [sorted(set(x.unknown_ops) - set(y.unknown_ops)) for x, y in ((a, b), (b, a))]
    for name, found in zip("AB", strange, strict=True):
        if found:
            yield f"operators that archgauge does not understand occur in {name} only: {', '.join(found)}"
    yield from _region_remarks(a, b, changes, regions)


def _values(changes: Iterable[Change], name: str, op: str | None = None) -> list[tuple[Any, Any]]:
    return [(aspect.a, aspect.b) for c in changes if op in (None, c.op) for aspect in c.aspects if aspect.name == name]


def _input_remarks(a: ArchGraph, b: ArchGraph) -> Iterator[str]:
    here, there = ([node for node in graph.nodes if node.op == "Input"] for graph in (a, b))
    if len(here) != len(there):
        yield f"A has {len(here)} inputs that count, B {len(there)}"
        return
    for mine, theirs in zip(here, there, strict=True):
        x, y = mine.shape, theirs.shape
        if x == y:
            continue
        if len(x) == len(y) == 4 and y in ((x[0], *x[2:], x[1]), (x[0], x[3], *x[1:3])):
            yield f"the inputs have other layouts ({_shown(x)} and {_shown(y)}): one takes channels last"
        elif len(x) == len(y) and x[1:] == y[1:]:
            yield f"the networks were read at other batch sizes ({x[0]} and {y[0]}): export both with batch 1"
        elif len(x) == len(y):
            yield (
                f"the networks were read at other input sizes ({_shown(x)} and {_shown(y)}): give both the same with "
                "--input-shape or input_shapes, or export them again at one size"
            )
        else:
            yield f"the inputs have other numbers of dimensions ({_shown(x)} and {_shown(y)})"


def _region_remarks(a: ArchGraph, b: ArchGraph, changes: Sequence[Change], regions: Sequence[Region]) -> Iterator[str]:
    spelled: Counter[tuple[str, str, str, str]] = Counter()
    norms: Counter[str] = Counter()
    layout = bool(regions)
    for region in regions:
        ops = [a.nodes[i].op for i in region.a], [b.nodes[j].op for j in region.b]
        layout &= all(kind_of(op) is Kind.LAYOUT or op in _NO_ARITHMETIC for side in ops for op in side)
        for (name, long), (other, short) in ((("A", ops[0]), ("B", ops[1])), (("B", ops[1]), ("A", ops[0]))):
            if len(short) == 1 < len(long) and set(long) <= _SPELLED and kind_of(short[0]) in _WRITTEN_OUT:
                spelled[name, _listed(long), other, short[0]] += 1
            if long == ["BatchNormalization"] and not short:
                norms[name] += 1
    for (name, long_ops, other, op), count in sorted(spelled.items()):
        yield f"{name} keeps {long_ops} where {other} has {op} ({count} times): one operator spelled in two ways"
    for name, count in sorted(norms.items()):
        yield f"{count} batch norms stand alone in {name} only: the other network has them folded in, or has none"
    for change in changes:
        layout &= kind_of(change.op) is Kind.LAYOUT or change.op in _NO_ARITHMETIC or change.kind == "outputs"
        layout &= all(aspect.name in ("shape", "inputs", "outputs") for aspect in change.aspects)
    if layout and a.params == b.params and a.macs == b.macs:
        yield (
            "only operators that move, cut or convert numbers differ; parameters and MACs agree, so this is likely one "
            "network spelled in two ways"
        )


_WRITTEN_OUT = frozenset({Kind.ACTIVATION, Kind.NORM, Kind.SOFTMAX})
_MOVES = "Cast Identity Pad Concat DepthToSpace SpaceToDepth SplitToSequence SequenceAt"
_NO_ARITHMETIC = frozenset(_MOVES.split())


# --- the report -----------------------------------------------------------------------------------------------------


def _lines(found: Difference, limit: int) -> Iterator[str]:
    a = found.a
    if found.same:
        yield f"same: A and B are one architecture ({len(a):,} nodes, hash {a.hash[:12]})"
    else:
        yield (
            f"different: {_count(len(found.changes), 'change')}, {_count(len(found.consequences), 'node')} that "
            f"follow{'s' if len(found.consequences) == 1 else ''} from them (A → B)"
        )
    for total in found.totals:
        yield f"  {total.name:<8} {_shown(total.a)} → {_shown(total.b)}"
    if found.operators:
        yield "  counts   " + ", ".join(f"{op} {before} → {after}" for op, before, after in found.operators)
    lines = _grouped(found)
    if lines:
        yield "changes, first place of each (positions in the canonical order):"
        yield from (f"  {line}" for line in lines[:limit])
        if len(lines) > limit:
            yield f"  … and {len(lines) - limit} more"
    if found.consequences:
        kinds: Counter[str] = Counter()
        for change in found.consequences:
            names = [_PLAINER.get(aspect.name, aspect.name.removeprefix("attribute ")) for aspect in change.aspects]
            kinds[" and ".join(names)] += 1
        yield "follows from these: " + ", ".join(f"{count} × {name}" for name, count in kinds.most_common(6))
    if found.remarks:
        yield "remarks:"
        yield from (f"  - {remark}" for remark in found.remarks)


_PLAINER = {"inputs": "operands", "tied": "shared weight"}


def _grouped(found: Difference) -> list[str]:
    """One line for all changes of one kind."""
    a, b = found.a, found.b
    lines: dict[str, list[str]] = {}
    for region in found.regions:
        here, there = _listed([a.nodes[i].op for i in region.a]), _listed([b.nodes[j].op for j in region.b])
        place = ", ".join(
            [f"{name} {_spans(part)}" for name, part in (("A", region.a), ("B", region.b)) if part]
            + [_behind(a, region.a) if region.a else _behind(b, region.b)]
        )
        what = f"{here} instead of {there}" if here and there else f"{here or there} only in {'A' if here else 'B'}"
        if here and there:
            what = f"A has {here}, B has {there}"
        lines.setdefault(what, []).append(place)
    for change in found.changes:
        if change.kind == "changed" and change.a is not None and change.b is not None:
            node = a.nodes[change.a]
            telling = [aspect for aspect in change.aspects if aspect.name != "shape" or len(change.aspects) == 1]
            what = f"{change.op}: " + "; ".join([_aspect(aspect, found) for aspect in telling])
            lines.setdefault(what, []).append(f"A {change.a}, B {change.b}, output {_shown(node.shape)}")
        elif change.kind == "outputs":
            lines.setdefault("the outputs are others", []).append(
                "; ".join([_aspect(aspect, found) for aspect in change.aspects])
            )
        elif change.kind == "order":
            lines.setdefault("the canonical order", []).append("all nodes and wires agree")
    return [f"{f'{len(places)} × ' if len(places) > 1 else ''}{what} ({places[0]})" for what, places in lines.items()]


def _aspect(aspect: Aspect, found: Difference) -> str:
    """What differs, without positions where operators say it."""
    name, a, b = aspect
    if name == "inputs":
        ops = [_listed([graph.nodes[i].op for i in part]) for graph, part in ((found.a, a), (found.b, b))]
        return f"operands {ops[0]} → {ops[1]}" if ops[0] != ops[1] else f"takes another {ops[0]}"
    if name == "tied":
        ops = ["own" if i is None else f"that of a {graph.nodes[i].op}" for graph, i in ((found.a, a), (found.b, b))]
        return f"weight {ops[0]} → {ops[1]}" if ops[0] != ops[1] else f"weight that of another {found.a.nodes[a].op}"
    if name.startswith("attribute "):
        return f"{name.removeprefix('attribute ')} {_plain(a)} → {_plain(b)}"
    if name == "outputs":
        return f"nodes {_plain(a)} → {_plain(b)}"
    return f"{name} {_shown(a)} → {_shown(b)}"


def _plain(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _behind(graph: ArchGraph, positions: Sequence[int]) -> str:
    """Where a group of nodes begins."""
    node = graph.nodes[positions[0]]
    if not node.inputs:
        return f"shape {_shown(node.shape)}"
    before = graph.nodes[node.inputs[0]]
    return f"behind {before.op} {_shown(before.shape)}"


def _spans(positions: Sequence[int]) -> str:
    """`3, 5–8` for 3, 5, 6, 7, 8; shortened if there are many."""
    spans: list[list[int]] = []
    for position in positions:
        if spans and position == spans[-1][1] + 1:
            spans[-1][1] = position
        else:
            spans.append([position, position])
    shown = [str(low) if low == high else f"{low}–{high}" for low, high in spans]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _listed(ops: Sequence[str]) -> str:
    """`Conv, 3 × Relu`: operators in the order in which they first occur."""
    counts = Counter(ops)
    parts = [op if count == 1 else f"{count} × {op}" for op, count in counts.items()]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")


def _shown(value: Any) -> str:
    """A value for people: shapes as 1×3×8×8, none as a dash."""
    if value is None:
        return "none"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple):
        if value and all(isinstance(part, int) for part in value):
            return "×".join(map(str, value))
        shown = ", ".join(_shown(part) if part != () else "scalar" for part in value[:6])
        return (shown + (", …" if len(value) > 6 else "")) or "scalar"
    return str(value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _change_dict(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "a": change.a,
        "b": change.b,
        "op": change.op,
        "aspects": {aspect.name: {"a": aspect.a, "b": aspect.b} for aspect in change.aspects},
    }
