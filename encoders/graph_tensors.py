"""Graphs as arrays for neural networks: node features, edges, depths, and batches of several graphs.

Nodes of one *signature* (operator, shape, attributes, weights) have the same features, so features are kept once per
signature in a `NodeTable`, and a graph is a list of numbers into it. Nothing here depends on the order of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2, prod
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from .costs import fan_in, macs_of
from .graph import ArchGraph, AttributeValue, Node, Shape
from .operators import KINDS, Kind, kind_of

Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]

OPERATORS = ("<masked>", "<unknown>", *KINDS)
"""Operators by number; operators archgauge does not understand share a number and differ in their hashed name."""
KIND_NAMES = tuple(Kind)

_NUMBERS = (
    "channels",
    "positions",
    "rank",
    "fan_in",
    "weights",
    "second_weights",
    "kernel",
    "kernel_aspect",
    "stride",
    "dilation",
    "groups",
    "group_width",
    "macs",
    "widening",
    "shrinking",
    "padding",
    "operands",
)
_FLAGS = ("bias", "depthwise", "grouped", "tied", "weighted", "global_kernel", "upsampling", "even_padding")
_HASHED = 8
FEATURES = (*_NUMBERS, *_FLAGS, *(f"hashed_{i}" for i in range(_HASHED)))
"""Names of the node features; numbers are base-2 logarithms over 4, flags 0 or 1, the rest hashes -1, 0 or 1."""
POSITIONS = ("from_start", "to_end", "share", "length", "operands", "consumers", "is_output", "resolution")
"""Names of the features of a node's place in its graph, which are no part of its signature."""

_Key = tuple[str, Shape, tuple[tuple[str, AttributeValue], ...], tuple[Shape, ...], bool, tuple[Shape, ...]]


class NodeTable:
    """Signatures seen so far, their numbers and features; it only grows.

    Number 0 is the masked node: nothing is known of it.
    """

    def __init__(self) -> None:
        self._codes: dict[_Key, int] = {}
        self._operators = [0]
        self._kinds = [KIND_NAMES.index(Kind.UNKNOWN)]
        self._rows = [np.zeros(len(FEATURES), np.float32)]

    def __len__(self) -> int:
        return len(self._rows)

    def code(self, node: Node, operands: tuple[Shape, ...]) -> int:
        """The number of the node's signature; `operands` are the shapes of its operands."""
        key = (node.op, node.shape, node.attributes, node.weights, node.tied >= 0, operands)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self._rows)
            self._operators.append(_OPERATOR_NUMBERS.get(node.op, 1))
            self._kinds.append(KIND_NAMES.index(kind_of(node.op)))
            self._rows.append(_features(node, operands))
        return code

    @property
    def operators(self) -> Ints:
        """(s,) number in `OPERATORS` of every signature."""
        return np.array(self._operators, np.int64)

    @property
    def kinds(self) -> Ints:
        """(s,) number in `KIND_NAMES` of every signature."""
        return np.array(self._kinds, np.int64)

    @property
    def features(self) -> Floats32:
        """(s, f) features of every signature."""
        return np.stack(self._rows)


_OPERATOR_NUMBERS = {name: number for number, name in enumerate(OPERATORS)}


def _scaled(value: float) -> float:
    return log2(1.0 + max(value, 0.0)) / 4.0


def channels_and_positions(shape: Shape) -> tuple[int, int]:
    """Channels and positions of a tensor: axis 1 holds the channels of maps (4 axes or more), the last axis else."""
    if len(shape) >= 4:
        return shape[1], prod(shape[2:])
    if not shape:
        return 1, 1
    return shape[-1], prod(shape[:-1])


def _features(node: Node, operands: tuple[Shape, ...]) -> Floats32:
    channels, positions = channels_and_positions(node.shape)
    before = operands[0] if operands else node.shape
    channels_in, positions_in = channels_and_positions(before)
    kernel = node.weights[0] if node.weights else ()
    convolves = node.op in ("Conv", "ConvTranspose", "DeformConv") and len(kernel) > 2
    taps = kernel[2:] if convolves else _numbers(node, "kernel_shape")
    group = max(1, next(iter(_numbers(node, "group")), 1))
    strides, dilations, pads = (_numbers(node, name) for name in ("strides", "dilations", "pads"))
    width = kernel[1] if convolves else 0
    macs = macs_of(node, [Node("Input", (), shape) for shape in operands])
    numbers = (
        _scaled(channels),
        _scaled(positions),
        len(node.shape) / 4,
        _scaled(fan_in(node)),
        _scaled(prod(kernel)) if kernel else 0.0,
        _scaled(sum(prod(shape) for shape in node.weights[1:])),
        _scaled(prod(taps)) if taps else 0.0,
        (log2(max(1, *taps) / max(1, min(taps))) / 4) if taps else 0.0,
        log2(prod(strides)) / 4 if strides and prod(strides) > 0 else 0.0,
        log2(prod(dilations)) / 4 if dilations and prod(dilations) > 0 else 0.0,
        log2(group) / 4,
        _scaled(width),
        _scaled(macs) / 2,
        log2(max(1, channels) / max(1, channels_in)) / 4,
        log2(max(1, positions) / max(1, positions_in)) / 4,
        _scaled(sum(abs(pad) for pad in pads)) if pads else 0.0,
        _scaled(len(operands)),
    )
    flags = (
        bool(node.attribute("bias", 0)),
        group > 1 and width == 1,
        group > 1 and width != 1,
        node.tied >= 0,
        bool(node.weights),
        bool(taps) and prod(taps) >= positions_in > 1,
        positions > positions_in,
        bool(pads) and len(set(pads)) == 1,
    )
    hashed = np.zeros(_HASHED, np.float32)
    words = [f"{name}={value}" for name, value in node.attributes if name not in _COVERED]
    if kind_of(node.op) is Kind.UNKNOWN:
        words.append(node.op)
    for word in words:
        number = crc32(word.encode())
        hashed[number % _HASHED] += 1.0 if number >> 16 & 1 else -1.0
    return np.concatenate([np.array(numbers, np.float32), np.array(flags, np.float32), np.clip(hashed, -1, 1)])


def _numbers(node: Node, name: str) -> tuple[int, ...]:
    """An attribute's whole numbers; none if it has another type, as it may in operators of other domains."""
    value = node.attribute(name, ())
    values = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in values if isinstance(part, int))


_COVERED = frozenset({"bias", "group", "strides", "dilations", "pads", "kernel_shape"})


@dataclass(frozen=True)
class GraphTensors:
    """One graph as arrays.

    Attributes:
        codes: (n,) number of every node's signature in the table it was made with.
        edges: (2, e) operand and consumer of every edge; an operand used twice has two edges.
        places: (n, p) place of every node, see `POSITIONS`.
        from_start: (n,) longest path from an input, in edges.
        to_end: (n,) longest path to a node without consumers, in edges.
    """

    codes: Ints
    edges: Ints
    places: Floats32
    from_start: Ints
    to_end: Ints

    def __len__(self) -> int:
        return len(self.codes)


def tensors_of(graph: ArchGraph, table: NodeTable) -> GraphTensors:
    """The graph as arrays; signatures it has first are entered into `table`."""
    nodes = graph.nodes
    n = len(nodes)
    codes, sources, targets = [], [], []
    depth, height = [0] * n, [0] * n
    for at, node in enumerate(nodes):
        codes.append(table.code(node, tuple([nodes[i].shape for i in node.inputs])))
        for operand in node.inputs:
            sources.append(operand)
            targets.append(at)
            if depth[operand] >= depth[at]:
                depth[at] = depth[operand] + 1
    for at in range(n - 1, -1, -1):
        above = height[at] + 1
        for operand in nodes[at].inputs:
            if height[operand] < above:
                height[operand] = above
    edges = np.array([sources, targets], np.int64).reshape(2, -1)
    start, end = np.array(depth, np.int64), np.array(height, np.int64)
    length = start + end
    sizes = np.array([channels_and_positions(node.shape)[1] for node in nodes], np.float32)
    places = np.zeros((n, len(POSITIONS)), np.float32)
    places[:, 0] = np.log2(1 + start) / 8
    places[:, 1] = np.log2(1 + end) / 8
    places[:, 2] = start / np.maximum(length, 1)
    places[:, 3] = np.log2(1 + length) / 8
    places[:, 4] = np.log2(1 + np.bincount(edges[1], minlength=n)) / 4
    places[:, 5] = np.log2(1 + np.bincount(edges[0], minlength=n)) / 4
    places[list(graph.outputs), 6] = 1
    places[:, 7] = np.log2((1 + sizes) / (1 + sizes.max(initial=0))) / 8
    return GraphTensors(np.array(codes, np.int64), edges, places, start, end)


@dataclass(frozen=True)
class Batch:
    """Several graphs as one, without edges between them.

    Attributes:
        codes: (n,) number of every node's signature, a row of `operators`, `kinds` and `features`.
        edges: (2, e) operand and consumer.
        owner: (n,) number of the graph every node belongs to; ascending.
        places: (n, p) see `POSITIONS`.
        from_start: (n,) longest path from an input.
        to_end: (n,) longest path to a node without consumers.
        operators: (s,) see `NodeTable`.
        kinds: (s,)
        features: (s, f)
        size: Number of graphs.
    """

    codes: Ints
    edges: Ints
    owner: Ints
    places: Floats32
    from_start: Ints
    to_end: Ints
    operators: Ints
    kinds: Ints
    features: Floats32
    size: int

    def __len__(self) -> int:
        return len(self.codes)


def batch_of(
    graphs: Sequence[GraphTensors],
    operators: Ints,
    kinds: Ints,
    features: Floats32,
    codes: Sequence[Ints] | None = None,
) -> Batch:
    """The graphs as one batch.

    Args:
        graphs: Graphs of one table.
        operators: The table's operators; so are the next two.
        kinds: Its kinds.
        features: Its features.
        codes: Codes to take instead of the graphs' own, where some nodes are masked.
    """
    own = np.concatenate([graph.codes for graph in graphs] if codes is None else list(codes))
    used, local = np.unique(own, return_inverse=True)
    sizes = np.array([len(graph) for graph in graphs])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    edges = np.concatenate([graph.edges + start for graph, start in zip(graphs, starts, strict=True)], axis=1)
    return Batch(
        codes=local.reshape(-1).astype(np.int64),
        edges=edges,
        owner=np.repeat(np.arange(len(graphs)), sizes),
        places=np.concatenate([graph.places for graph in graphs]),
        from_start=np.concatenate([graph.from_start for graph in graphs]),
        to_end=np.concatenate([graph.to_end for graph in graphs]),
        operators=operators[used],
        kinds=kinds[used],
        features=features[used],
        size=len(graphs),
    )


def by_node_budget(
    sizes: Sequence[int] | Ints, budget: int, *, order: Sequence[int] | Ints | None = None
) -> Iterator[Ints]:
    """Groups of graphs with at most `budget` nodes together; a larger graph is a group of its own.

    Args:
        sizes: Nodes of every graph.
        budget: Nodes of a group, at most.
        order: Order in which the graphs are taken; default: by size, so that groups hold graphs of similar size.

    Yields:
        Positions in `sizes`.
    """
    sizes = np.asarray(sizes)
    order = np.argsort(sizes, kind="stable") if order is None else np.asarray(order)
    group: list[int] = []
    total = 0
    for at in order.tolist():
        if group and total + int(sizes[at]) > budget:
            yield np.array(group)
            group, total = [], 0
        group.append(at)
        total += int(sizes[at])
    if group:
        yield np.array(group)


def shared_classes(batch: Batch, rounds: int) -> list[tuple[Ints, Ints]]:
    """Which nodes of a batch any message passing of so many rounds cannot tell apart, round by round.

    Nodes are refined by their signatures and those of their operands and consumers (Weisfeiler and Lehman 1968), in all
    graphs of the batch at once: repeated blocks, and blocks that several networks share, are worked out once.

    Args:
        batch: Graphs.
        rounds: Rounds of message passing.

    Returns:
        For every round 0 to `rounds`: (c,) one node of each class, and (n,) class of every node. Multisets are told
        apart by sums of 64-bit hashes, so two classes are one by chance with a probability of about c² / 2⁶⁴.
    """
    source, target = batch.edges
    n = len(batch)
    classes = batch.codes
    result = []
    for step in range(rounds + 1):
        if step:
            with np.errstate(over="ignore"):
                mixed = _mixed(classes.astype(np.uint64))
                before, after = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
                np.add.at(before, target, mixed[source])
                np.add.at(after, source, mixed[target])
                key = mixed * _ODD[0] + _mixed(before * _ODD[1]) + _mixed(after * _ODD[2] + _ODD[3])
            _, first, classes = np.unique(key, return_index=True, return_inverse=True)
        else:
            _, first, classes = np.unique(classes, return_index=True, return_inverse=True)
        classes = classes.reshape(-1)
        result.append((first, classes))
    return result


_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit numbers that scatters them (Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
