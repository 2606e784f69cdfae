"""Networks as text: `describe` writes an `ArchGraph` for people and language models, `parse` reads it back.

The grammar is published in docs/description.md. Four ideas keep the text short without losing anything:

- What follows from the rest is not written: an operand that is the statement before, a shape that follows from operands
  and attributes, "same" padding, the kernels of a convolution that keeps its channels. The writer works out what the
  parser would, and writes what differs. So operators that nobody knows cost more text, but lose nothing.
- The parser puts nodes into canonical order itself, so statements may stand in an order of their own: deepest operand
  first, then by what lies around a node. Cells that are alike are then written alike, whatever their canonical order.
  If a graph is not what the parser would make of it, it is written in its own order, and the header says so.
- Runs of equal statements become `repeat n { ... }`. Segments that differ in numbers only become a block with
  parameters. Both are found by sorting all suffixes (Manber and Myers 1993, sec. 2), most saved text first.
- A name means the latest statement that carries it, so a repeated body can refer to what stands before it.

`Node.params` is written too, where it does not follow from the weights: equal graphs whose files store different
numbers of parameters have different texts.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from .canonical import finish, live, merge_sums
from .draft import COMMUTATIVE, Constant, Draft, DraftNode
from .errors import ConfigError, GraphError, LimitError, ReadError, UnreadableFileError
from .graph import ArchGraph, Node, Shape
from .onnx_file import DEFAULT_LIMITS, Limits
from .operators import Kind, kind_of
from .shapes import SHAPE_RULES, broadcast

TEXT_VERSION = 1
"""Version of the grammar and of what is derived; it stands in the header of every description."""

Level = Literal["full", "compact", "summary", "chain_slim"]
"""How much `describe` says; `full` and `compact` lose nothing."""

_HEADER = "archgauge"
_LARGEST = (1 << 63) - 1
_DEEPEST = 128
_WORK_PER_NODE = 256
_MOST_DIMENSIONS = 1024
_MOST_TERMS = 2048
_TOKENS_PER_NODE = 16
_INDENT = "  "
_LINE = 100

Attributes = Mapping[str, Any]
Part = tuple[tuple[Any, ...] | None, bool]
"""Numbers of one part of a statement (None: they differ between the places it stands for), and whether they follow."""


# ---------------------------------------------------------------------------------------------------------------------
# What follows from what: shared by writer and parser
# ---------------------------------------------------------------------------------------------------------------------

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
_WINDOWS = _CONVOLUTIONS | _POOLS
_PADDED = frozenset({"Conv"}) | _POOLS
_NO_OPERAND = frozenset({"Input", "Zero"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})
_LAST_AXIS_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_CHANNEL_NORMS = frozenset({"GroupNormalization", "InstanceNormalization"})
_ATTRIBUTES: dict[str, dict[str, int]] = {
    **{
        op: {"bias": 1}
        for op in (*_CONVOLUTIONS, "Linear", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
    },
    "Concat": {"axis": 1},
    "Slice": {"axis": 1, "start": 0},
}


def _is_ints(value: Any) -> bool:
    return type(value) is tuple and all(type(part) is int for part in value)


def _expected_attributes(op: str, shapes: Sequence[Shape], attributes: Attributes) -> dict[str, int]:
    """Attributes that need not be written if they have these values."""
    expected = _ATTRIBUTES.get(op, {})
    if op == "Slice" and shapes:
        axis = attributes.get("axis", expected["axis"])
        if type(axis) is int and 0 <= axis < len(shapes[0]):
            return {**expected, "end": shapes[0][axis]}
    return expected


def _expected_pads(op: str, kernel: Any, dilations: Any, rank: int) -> Shape:
    """Half the kernel on every side; nothing if a kernel is even. All zeros count as no padding: an empty tuple."""
    if op not in _PADDED or not _is_ints(kernel) or len(kernel) != rank or not all(k % 2 for k in kernel):
        return ()
    if not _is_ints(dilations) or len(dilations) != rank:
        dilations = (1,) * rank
    half = tuple([d * (k - 1) // 2 for k, d in zip(kernel, dilations, strict=True)])
    return half * 2 if any(half) and min(half) >= 0 else ()


def _expected_weights(op: str, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Weights of operators that have no width of their own."""
    x = shapes[0] if shapes else ()
    if op in _LAST_AXIS_NORMS and x:
        return (x[-1:],)
    if op in _CHANNEL_NORMS and len(x) > 1:
        return ((x[1],),)
    if op == "PRelu" and len(x) > 1:
        return ((x[1],) + (1,) * (len(x) - 2),)
    if op in _BINARY and len(shapes) == 1:
        return ((),)
    return ()


def _kernel(
    op: str, shapes: Sequence[Shape], attributes: Attributes, width: int | None, kernel: Shape | None
) -> Shape | None:
    """Shape of the weight of a convolution or linear layer; None if it cannot be told."""
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
    channels = x[1]
    width = channels if width is None else width
    kernel = (1,) * (len(x) - 2) if kernel is None else kernel
    first, second = (width, channels) if op == "Conv" else (channels, width)
    return None if second % group else (first, second // group, *kernel)


def _width(op: str, weight: Shape, attributes: Attributes) -> int | None:
    """What `_kernel` has to be told to give this weight; None if there is nothing."""
    if len(weight) < 2:
        return None
    if op == "Linear":
        return weight[0] if attributes.get("left") else weight[1]
    group = attributes.get("group", 1)
    return weight[0] if op == "Conv" else weight[1] * group if type(group) is int else None


def _stored(
    op: str, shape: Shape, attributes: Attributes, weights: tuple[Shape, ...], tied: bool, convolution_bias: int
) -> tuple[int, int, int]:
    """Learned numbers of the weights, channels, and numbers a channel beyond the weights that are expected."""
    base = sum([prod(weight) for weight in (weights[1:] if tied else weights)])
    bias = attributes.get("bias") == 1
    if op in _CONVOLUTIONS:
        return base, shape[1] if len(shape) > 1 else 0, convolution_bias if bias else 0
    if op == "BatchNormalization":
        return base, shape[1] if len(shape) > 1 else 0, 0 if weights else 2
    if not bias or not weights:
        return base, 0, 0
    if op == "Linear":
        return base, _width(op, weights[0], attributes) or 0, 1
    return base, prod(weights[0]), 1


def _transposed_shape(shapes: Sequence[Shape], attributes: Attributes, weights: tuple[Shape, ...]) -> Shape | None:
    """ONNX operator reference, `ConvTranspose`."""
    x, weight = shapes[0], weights[0]
    rank = len(x) - 2
    ones, zeros = (1,) * rank, (0,) * (2 * rank)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    pads, extra = attributes.get("pads", zeros), attributes.get("output_padding", zeros[:rank])
    sizes = [
        (x[i + 2] - 1) * strides[i] + extra[i] + (weight[i + 2] - 1) * dilations[i] + 1 - pads[i] - pads[i + rank]
        for i in range(rank)
    ]
    return (x[0], weight[1] * attributes.get("group", 1), *sizes) if len(weight) == rank + 2 else None


def _linear_shape(shapes: Sequence[Shape], attributes: Attributes, weights: tuple[Shape, ...]) -> Shape | None:
    x, weight = shapes[0], weights[0]
    if len(weight) != 2:
        return None
    return (*x[:-2], weight[0], x[-1]) if attributes.get("left") else (*x[:-1], weight[1])


def _slice_shape(shapes: Sequence[Shape], attributes: Attributes, _weights: tuple[Shape, ...]) -> Shape | None:
    x, axis = shapes[0], attributes["axis"]
    kept = len(range(attributes["start"], attributes["end"], attributes.get("step", 1)))
    return (*x[:axis], kept, *x[axis + 1 :]) if 0 <= axis < len(x) else None


def _reduced_shape(shapes: Sequence[Shape], attributes: Attributes, _weights: tuple[Shape, ...]) -> Shape | None:
    axes = attributes["axes"]
    return tuple([1 if i in axes else n for i, n in enumerate(shapes[0])])


def _padded_shape(shapes: Sequence[Shape], attributes: Attributes, _weights: tuple[Shape, ...]) -> Shape | None:
    x, pads = shapes[0], attributes["pads"]
    return tuple([n + pads[i] + pads[i + len(x)] for i, n in enumerate(x)])


def _flat_shape(shapes: Sequence[Shape], _attributes: Attributes, _weights: tuple[Shape, ...]) -> Shape | None:
    return (shapes[0][0], prod(shapes[0][1:]))


_Derivation = Callable[[Sequence[Shape], Attributes, tuple[Shape, ...]], "Shape | None"]
_OWN_SHAPES: dict[str, _Derivation] = {
    "ConvTranspose": _transposed_shape,
    "Linear": _linear_shape,
    "Slice": _slice_shape,
    "Pad": _padded_shape,
    "Reshape": _flat_shape,
    "Embedding": lambda shapes, _attributes, weights: (*shapes[0], *weights[0][1:]),
    "Attention": lambda shapes, _attributes, _weights: (*shapes[0][:-1], shapes[2][-1]),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"), _reduced_shape),
}
_BROADCAST = frozenset({"Max", "Min", "Mean", "And", "Or", "Xor", "Equal", "Greater", "Less", "Mod", "PRelu"})


def _expected_shape(
    op: str, shapes: Sequence[Shape], attributes: Attributes, weights: tuple[Shape, ...]
) -> Shape | None:
    """The output shape that need not be written: that of a known operator, else that of the first operand."""
    if not shapes:
        return None
    found: Shape | None
    try:
        if op in _OWN_SHAPES:
            found = _OWN_SHAPES[op](shapes, attributes, weights)
        elif op in _BROADCAST:
            found = broadcast([*shapes, *weights])
        elif op in SHAPE_RULES:
            found = SHAPE_RULES[op]([*shapes, *weights], attributes)
        else:
            found = shapes[0]
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError):
        return None  # operands or attributes are not what the operator takes: the shape has to be written
    if not _is_ints(found) or (found and not 0 <= min(found) <= max(found) <= _LARGEST):
        return None
    return found


# ---------------------------------------------------------------------------------------------------------------------
# From statements to a graph
# ---------------------------------------------------------------------------------------------------------------------


def _assemble(statements: Sequence[Node], outputs: Sequence[int]) -> ArchGraph:
    """The canonical graph of statements in any topological order; all of them must be alive.

    `tied` is the position of any earlier statement with the same weight.
    """
    draft = Draft()
    root: list[int] = []
    shared: Counter[int] = Counter()
    for position, node in enumerate(statements):
        root.append(position if node.tied < 0 else root[node.tied])
        shared[root[-1]] += 1
    for position, node in enumerate(statements):
        weights = tuple([Constant(shape) for shape in node.weights])
        if weights and shared[root[position]] > 1:
            weights[0].sources = ((f"weight {root[position]}", 0),)
        stored = ((f"stored {position}", node.params),) if node.params else ()
        draft.nodes.append(DraftNode(node.op, node.inputs, node.shape, node.attributes, weights, stored))
    return finish(draft, outputs, list(range(len(statements))))


def _longest_sum(nodes: Sequence[Node]) -> int:
    """Terms of the largest sum that a chain or tree of Adds makes; canonical order takes their number squared."""
    uses: Counter[int] = Counter(operand for node in nodes for operand in node.inputs)
    terms: list[int] = []
    for node in nodes:
        size = 1
        if node.op == "Add":
            size = sum([terms[i] if uses[i] == 1 else 1 for i in node.inputs])
        terms.append(size)
    return max(terms, default=0)


def _in_text_order(graph: ArchGraph) -> tuple[list[Node], list[int]] | None:
    """The statements of a graph and its outputs in the order of the text; None if the parser would get another graph.

    Sums of several terms are one statement. Sharing nodes are `tied` to the latest earlier one.
    """
    nodes, outputs = graph.nodes, list(graph.outputs)
    draft = Draft()
    draft.nodes = [DraftNode(node.op, node.inputs, node.shape, node.attributes, (), ()) for node in nodes]
    alive = live(draft, outputs)
    if not nodes or len(alive) != len(nodes) or _longest_sum(nodes) > _MOST_TERMS:
        return None
    alive = merge_sums(draft, outputs, alive)
    order = _text_order(graph, draft.nodes, alive)
    place = {position: at for at, position in enumerate(order)}
    latest: dict[int, int] = {}
    statements: list[Node] = []
    for at, position in enumerate(order):
        node = nodes[position]
        inputs = tuple([place[i] for i in draft.nodes[position].inputs])
        if len(inputs) > 1 and node.op in COMMUTATIVE:
            inputs = tuple(sorted(inputs, reverse=True))
        root = position if node.tied < 0 else node.tied
        statements.append(node._replace(inputs=inputs, tied=latest.get(root, -1)))
        latest[root] = at
    places = [place[output] for output in outputs]
    again = _assemble(statements, places)
    if again.nodes != nodes or again.outputs != graph.outputs:
        return None
    return statements, places


_ROUNDS = 3


def _text_order(graph: ArchGraph, nodes: list[DraftNode], alive: list[int]) -> list[int]:
    """Depth-first from the outputs, operands before consumers, of operands the deepest first, then by surroundings.

    Surroundings say nothing of widths and look first at the node, then one edge further, and so on (colour
    refinement), so corresponding nodes of cells that are alike come in the same order.
    """
    consumers: dict[int, list[int]] = {position: [] for position in alive}
    depth: dict[int, int] = {}
    for position in alive:
        inputs = nodes[position].inputs
        depth[position] = 1 + max([depth[i] for i in inputs], default=0)
        for operand in inputs:
            consumers[operand].append(position)
    own: dict[int, Any] = {}
    for position in alive:
        node = nodes[position]
        attributes = [pair for pair in node.attributes if pair[0] != "group"]
        own[position] = repr((node.op, attributes, [w[2:] for w in graph.nodes[position].weights]))
    colour = _ranks(own)
    for _ in range(_ROUNDS):
        for position in alive:
            before = [colour[i] for i in nodes[position].inputs]
            if nodes[position].op in COMMUTATIVE:
                before.sort()
            own[position] = (colour[position], before, sorted([colour[i] for i in consumers[position]]))
        colour = _ranks(own)
    order: list[int] = []
    placed: set[int] = set()
    for output in graph.outputs:
        stack = [output]
        while stack:
            position = stack[-1]
            waiting = [] if position in placed else [i for i in nodes[position].inputs if i not in placed]
            if not waiting:
                stack.pop()
                if position not in placed:
                    placed.add(position)
                    order.append(position)
                continue
            if len(waiting) > 1:
                waiting.sort(key=lambda i: (-depth[i], colour[i], i), reverse=True)
            stack.extend(waiting)
    return order


def _ranks(keys: dict[int, Any]) -> dict[int, int]:
    """Keys replaced by their ranks; equal keys have one rank."""
    order = sorted(keys, key=keys.__getitem__)
    ranks: dict[int, int] = {}
    rank, last = -1, None
    for position in order:
        if keys[position] != last:
            rank, last = rank + 1, keys[position]
        ranks[position] = rank
    return ranks


# ---------------------------------------------------------------------------------------------------------------------
# One statement
# ---------------------------------------------------------------------------------------------------------------------


class _Template(NamedTuple):
    """A statement without its numbers.

    Attributes:
        op: Operator as it is written.
        refs: How many statements back the operands stand; None if they follow.
        tied: How many statements back the same weight was last used; 0 if it is new.
        formats: For every part its text, with `_HOLE` for the numbers.
        fixed: Parts without numbers that could change.
    """

    op: str
    refs: tuple[int, ...] | None
    tied: int
    formats: tuple[str, ...]
    fixed: tuple[str, ...]


_OPERATOR = re.compile(r"[A-Z]\w*|[A-Za-z_][\w.]*(?:::[\w.]+)+", re.ASCII)
_PLAIN_NAME = re.compile(r"[a-z_][a-z_0-9A-Z]+", re.ASCII)
_SUGAR = re.compile(r"[a-z]\d+(?:x\d+)*")
_RESERVED = frozenset({"shape", "w", "params", "tied", "dw", "repeat", "block", "out", "prev", "none", "inf", "nan"})


def _operator_text(op: str) -> str:
    return op if _OPERATOR.fullmatch(op) else json.dumps(op)


def _name_text(name: str) -> str:
    plain = _PLAIN_NAME.fullmatch(name) and not _SUGAR.fullmatch(name) and name not in _RESERVED
    return name if plain else json.dumps(name)


def _literal(value: Any, where: str) -> str:
    kind = type(value)
    if kind is int:
        return _checked(value, where)
    if kind is float:
        return repr(value)
    if kind is str:
        return json.dumps(value)
    if kind is tuple:
        return f"({' '.join([_literal(part, where) for part in value])})"
    raise GraphError(f"{where} is {value!r} of type {kind.__name__}, expected an int, float, str or a tuple of them")


def _checked(number: int, where: str) -> str:
    if not -_LARGEST <= number <= _LARGEST:
        raise GraphError(f"{where} has the number {number}, expected at most 63 bits")
    return str(number)


_HOLE = "\0"


def _dims(rank: int) -> str:
    return "x".join([_HOLE] * rank)


def _tuple_format(name: str, rank: int) -> str:
    return f"{name}=({' '.join([_HOLE] * rank)})"


def _filled(text: str, numbers: Sequence[Any]) -> str:
    pieces = text.split(_HOLE)
    return pieces[0] + "".join([f"{n}{piece}" for n, piece in zip(numbers, pieces[1:], strict=True)])


_Spelled = tuple[tuple[str, ...], tuple[str, ...], tuple[Part, ...]]
"""Formats, fixed parts and numbered parts."""


class _Speller:
    """Writes nodes as templates and parts; equal work is done once."""

    def __init__(self, convolution_bias: int, full: bool) -> None:
        self.convolution_bias, self.full = convolution_bias, full
        self._known: dict[Any, _Spelled] = {}

    def spell(self, statements: Sequence[Node], position: int) -> tuple[_Template, tuple[Part, ...]]:
        node = statements[position]
        shapes = tuple([statements[i].shape for i in node.inputs])
        key = (node.op, shapes, node.shape, repr(node.attributes), node.weights, node.tied >= 0, node.params)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._parts(node, shapes)
        formats, fixed, parts = found
        refs: tuple[int, ...] | None = tuple([position - i for i in node.inputs])
        if refs == (() if node.op in _NO_OPERAND else (1,)):
            refs = None
        tied = position - node.tied if node.tied >= 0 else 0
        return _Template(_operator_text(node.op), refs, tied, formats, fixed), parts

    def _parts(self, node: Node, shapes: tuple[Shape, ...]) -> _Spelled:
        """Formats, fixed parts and numbered parts of one node."""
        op = node.op
        attributes: dict[str, Any] = dict(node.attributes)
        where = f"a node {op!r}"
        if list(node.attributes) != sorted(attributes.items(), key=lambda pair: pair[0]):
            raise GraphError(f"{where} has the attributes {node.attributes}; expected different names, sorted")
        formats: list[str] = []
        parts: list[Part] = []
        fixed: list[str] = []

        def part(text: str, values: Sequence[int] | None, follows: bool) -> None:
            for value in values or ():
                _checked(value, where)
            formats.append(text)
            parts.append((None if values is None else tuple(values), follows))

        rank = max(0, len(shapes[0]) - 2) if shapes else 0
        left = dict(attributes)
        weights = node.weights
        kernel: Any = left.get("kernel_shape")
        plain = False
        if op in _CONVOLUTIONS or op == "Linear":
            kernel = weights[0][2:] if weights else None
            if len(weights) == 1:
                width = _width(op, weights[0], attributes)
                plain = width is not None and _kernel(op, shapes, attributes, width, kernel) == weights[0]
            if plain:
                assert width is not None
                same = _kernel(op, shapes, attributes, None, kernel) == weights[0]
                part(_HOLE, (width,), same and not self.full)
        if op in _WINDOWS and rank:
            self._window(op, shapes, left, kernel, rank, plain, part, fixed)
        expected = _expected_attributes(op, shapes, attributes)
        for name, value in expected.items():
            if name not in left:
                if name not in attributes:
                    fixed.append(f"-{name}")
            elif type(left[name]) is int:
                part(f"{name}={_HOLE}", (left[name],), left.pop(name) == value)
        for name, given in left.items():
            written = _name_text(name)
            if type(given) is int:
                part(f"{written}={_HOLE}", (given,), False)
            elif _is_ints(given) and given:
                part(_tuple_format(written, len(given)), given, False)
            else:
                fixed.append(f"{written}={_literal(given, where)}")
        if not plain and (op in _CONVOLUTIONS or op == "Linear" or weights != _expected_weights(op, shapes)):
            if not weights:
                fixed.append("-w")
            for weight in weights:
                part(_tuple_format("w", len(weight)), weight, False)
        derived = _expected_shape(op, shapes, attributes, weights)
        size = len(node.shape)
        follows = derived == node.shape and not (self.full and derived != shapes[0])
        part(_dims(size) if size > 1 else _tuple_format("shape", size), node.shape, follows)
        base, channels, per_channel = _stored(
            op, node.shape, attributes, weights, node.tied >= 0, self.convolution_bias
        )
        more, rest = divmod(node.params - base, channels) if channels else (0, node.params - base)
        if rest or not 0 <= more <= 9:
            part(f"params={_HOLE}", (node.params,), False)
        elif channels:
            part("b" + _HOLE, (more,), more == per_channel)
        return tuple(formats), tuple(fixed), tuple(parts)

    @staticmethod
    def _window(
        op: str,
        shapes: tuple[Shape, ...],
        left: dict[str, Any],
        kernel: Any,
        rank: int,
        plain: bool,
        part: Callable[[str, Sequence[int] | None, bool], None],
        fixed: list[str],
    ) -> None:
        """Kernel, strides, padding, dilations and groups; what is said here leaves `left`."""
        if plain or (op in _POOLS and _is_ints(kernel) and len(kernel) == rank and min(kernel) >= 0):
            same = len(set(kernel)) == 1
            part("k" + (_HOLE if same else _dims(rank)), kernel[:1] if same else kernel, False)
            left.pop("kernel_shape", None)
        dilations = left.get("dilations")
        for letter, name in (("s", "strides"), ("d", "dilations")):
            value: Any = left.get(name)
            if name not in left:
                part(letter + _HOLE, (1,), True)
            elif _is_ints(value) and len(value) == rank and len(set(value)) == 1 and value[0] > 1:
                part(letter + _HOLE, left.pop(name)[:1], False)
        pads: Any = left.get("pads")
        follow = _expected_pads(op, kernel, dilations, rank)
        if "pads" not in left or pads == follow != ():
            around = follow if "pads" in left else (0,)
            left.pop("pads", None)
            part("p" + _HOLE, around[:1] if len(set(around)) == 1 else None, pads == (follow or None))
        elif _is_ints(pads) and len(pads) == 2 * rank and len(set(pads)) == 1 and pads[0] > 0:
            part("p" + _HOLE, left.pop("pads")[:1], False)
        if op in _CONVOLUTIONS:
            group = left.get("group")
            if "group" not in left:
                part("g" + _HOLE, (1,), True)
            elif type(group) is int and group > 1:
                if len(shapes[0]) > 1 and group == shapes[0][1]:
                    fixed.append("dw")
                else:
                    part("g" + _HOLE, (group,), False)
                left.pop("group")


# ---------------------------------------------------------------------------------------------------------------------
# Folding repetition
# ---------------------------------------------------------------------------------------------------------------------


class _Item:
    """A statement, a repetition or a call.

    Attributes:
        template: Of a statement.
        block: Of a call: the block's number.
        body: Of a repetition: what is repeated.
        slots: Numbers: of a statement its parts, of a repetition the count and then all of the body, of a call the
            arguments. Inside a block a number may be a parameter: a str such as `$1`.
        structure: Equal for items that differ in numbers only.
        exact: Equal for items that are written alike.
        weight: About how many tokens it takes.
        joins: Whether it (or its last statement) has several operands.
    """

    __slots__ = ("block", "body", "exact", "joins", "slots", "structure", "template", "weight")

    def __init__(
        self,
        interned: dict[Any, int],
        slots: tuple[Part, ...],
        template: _Template | None = None,
        body: list[_Item] | None = None,
        block: int = -1,
    ) -> None:
        self.template, self.body, self.block, self.slots = template, body, block, slots
        self.structure: int
        kind: Any = template or (block if body is None else tuple([item.structure for item in body]))
        self.structure = interned.setdefault((body is None, kind), len(interned))
        said = tuple([None if follows else values for values, follows in slots])
        self.exact = interned.setdefault((self.structure, said), len(interned))
        if template is not None:
            words = 1 + len(template.op) // 12 + len(template.refs or ()) + 2 * (template.tied > 0)
            words += sum([len(text) // 3 + 1 for text in template.fixed])
            self.weight = words + sum([1 + len(values or ()) for values in said if values is not None])
            self.joins = template.refs is not None and len(template.refs) > 1
        elif body is not None:
            self.weight = 3 + sum([item.weight for item in body])
            self.joins = body[-1].joins
        else:
            self.weight = 3 + len(slots)
            self.joins = True


class _Folder:
    """Finds repetition in a list of items; `blocks` holds the bodies of the blocks it made."""

    def __init__(self) -> None:
        self.interned: dict[Any, int] = {}
        self.blocks: list[list[_Item]] = []

    def statement(self, template: _Template, parts: tuple[Part, ...]) -> _Item:
        return _Item(self.interned, parts, template)

    def fold(self, items: list[_Item]) -> list[_Item]:
        items = self._runs(items)
        for _ in range(_MOST_BLOCKS):
            sequences = [items, *self.blocks]
            sequences += [body for sequence in sequences for body in _bodies(sequence)]
            found = self._best_block(sequences)
            if found is None:
                break
            self._extract(*found)
            self.blocks = [self._runs(self._refreshed(body)) for body in self.blocks]
            items = self._runs(self._refreshed(items))
        return items

    # --- runs ---

    def _runs(self, items: list[_Item]) -> list[_Item]:
        """Runs of equal segments become repetitions: what saves most first, then inside the bodies and once more."""
        while len(items) > 1:
            chosen = self._choose_runs(items)
            if not chosen:
                break
            folded: list[_Item] = []
            at = 0
            for start, period, count in sorted(chosen):
                folded += items[at:start]
                at = start + period * count
                folded.append(self._repetition(items[start:at], period, count))
            items = folded + items[at:]
        return items

    def _choose_runs(self, items: list[_Item]) -> list[tuple[int, int, int]]:
        """Disjoint runs (start, period, count), greedily by what they save."""
        exact = np.array([item.exact for item in items], dtype=np.int64)
        length = np.cumsum([0.0, *[item.weight for item in items]])
        joins = [item.joins for item in items]
        runs: list[tuple[float, int, int, int]] = []
        for period in _periods(exact):
            same = np.concatenate(([False], exact[:-period] == exact[period:], [False]))
            edges = np.flatnonzero(same[1:] != same[:-1])
            for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                if end - start < period:
                    continue
                count, spare = divmod(end - start + period, period)
                shift = next((s for s in range(min(spare, period - 1) + 1) if joins[start + s + period - 1]), 0)
                start += shift
                saved = float(length[start + period * count] - length[start + period])
                if saved > _REPEAT:
                    runs.append((-saved, period, start, count))
        taken = np.zeros(len(items), dtype=bool)
        chosen: list[tuple[int, int, int]] = []
        for _, period, start, count in sorted(runs):
            if not taken[start : start + period * count].any():
                taken[start : start + period * count] = True
                chosen.append((start, period, count))
        return chosen

    def _repetition(self, items: list[_Item], period: int, count: int) -> _Item:
        instances = [_slots(items[i : i + period]) for i in range(0, len(items), period)]
        merged = [
            column[0] if not column[0][1] or all(c[0] == column[0][0] for c in column) else (None, True)
            for column in zip(*instances, strict=True)
        ]
        body = self._runs(self._with_slots(items[:period], iter(merged)))
        return self._repeat((((count,), False)), body)

    def _repeat(self, count: Part, body: list[_Item]) -> _Item:
        return _Item(self.interned, (count, *_slots(body)), body=body)

    def _with_slots(self, items: list[_Item], slots: Iterator[Part]) -> list[_Item]:
        """The same items with other numbers."""
        result = []
        for item in items:
            if item.body is not None:
                count = next(slots)
                result.append(self._repeat(count, self._with_slots(item.body, slots)))
            else:
                own = tuple([next(slots) for _ in item.slots])
                result.append(_Item(self.interned, own, item.template, None, item.block))
        return result

    def _refreshed(self, items: list[_Item]) -> list[_Item]:
        """The items with what bodies of repetitions have become."""
        return [
            item if item.body is None else self._repeat(item.slots[0], self._runs(self._refreshed(item.body)))
            for item in items
        ]

    # --- blocks ---

    def _best_block(self, sequences: list[list[_Item]]) -> tuple[list[list[_Item]], list[tuple[int, int]], int] | None:
        """Sequences, places (sequence, start) and length of the segment that saves most as a block."""
        symbols: list[int] = []
        weights: list[float] = []
        origin: list[tuple[int, int]] = []
        for number, sequence in enumerate(sequences):
            for at, item in enumerate(sequence):
                symbols.append(item.structure)
                weights.append(item.weight)
                origin.append((number, at))
            symbols.append(-1 - number)
            weights.append(0.0)
            origin.append((number, len(sequence)))
        length = np.cumsum([0.0, *weights])
        suffixes, intervals = _repeated(np.array(symbols, dtype=np.int64))
        candidates: list[tuple[float, int, int, int]] = []
        for size, first, end in intervals:
            if size < 2:
                continue
            weight = float(length[suffixes[first] + size] - length[suffixes[first]])
            most = min(end - first, len(symbols) // size)
            candidates.append((-(most - 1) * weight, size, first, end))
        candidates.sort()
        best: tuple[float, list[int], int] | None = None
        for bound, size, first, end in candidates[:_TRIED]:
            if best is not None and -bound <= best[0]:
                break
            disjoint: list[int] = []
            for place in sorted(suffixes[first:end]):
                if not disjoint or place >= disjoint[-1] + size:
                    disjoint.append(place)
            if len(disjoint) < 2:
                continue
            saved = self._saved([_segment(sequences, origin[p], size) for p in disjoint])
            if saved > 0 and (best is None or saved > best[0]):
                best = saved, disjoint, size
        return None if best is None else (sequences, [origin[p] for p in best[1]], best[2])

    def _saved(self, segments: list[list[_Item]]) -> float:
        columns = _parameters([_slots(segment) for segment in segments])
        if columns is None:
            return 0.0
        arguments = len({tuple(c) for c in columns[1]})
        body = 4 + sum([item.weight for item in segments[0]])
        alone = sum([item.weight for segment in segments for item in segment])
        return alone - body - len(segments) * (3.0 + arguments) - _LEAST_SAVED

    def _extract(self, sequences: list[list[_Item]], places: list[tuple[int, int]], size: int) -> None:
        """Makes a block of the segments at `places` and puts calls in their stead."""
        segments = [_segment(sequences, place, size) for place in places]
        found = _parameters([_slots(segment) for segment in segments])
        assert found is not None
        slots, columns = found
        numbers: dict[tuple[Any, ...], str] = {}
        for column in columns:
            numbers.setdefault(tuple(column), f"${len(numbers) + 1}")
        filled: list[Part] = []
        for values, follows in slots:
            if values is not None and not follows:
                values = tuple([numbers[v.column] if isinstance(v, _Column) else v for v in values])
            filled.append((values, follows))
        block = len(self.blocks)
        self.blocks.append(self._with_slots(segments[0], iter(filled)))
        for rank, (number, start) in reversed(list(enumerate(places))):
            arguments = tuple([((column[rank],), False) for column in numbers])
            sequences[number][start : start + size] = [_Item(self.interned, arguments, block=block)]


_REPEAT = 6.0
_MOST_BLOCKS = 48
_LEAST_SAVED = 4.0
_TRIED = 48


class _Column(NamedTuple):
    """A number that differs between the segments of a block: its value in each."""

    column: tuple[Any, ...]


def _parameters(instances: list[list[Part]]) -> tuple[list[Part], list[tuple[Any, ...]]] | None:
    """One list of slots for all instances, with `_Column` where numbers differ, and these; None if that cannot be."""
    slots: list[Part] = []
    columns: list[tuple[Any, ...]] = []
    for places in zip(*instances, strict=True):
        first = places[0][0]
        if all(follows for _, follows in places):
            slots.append((first if all(values == first for values, _ in places) else None, True))
            continue
        if any(values is None for values, _ in places):
            return None
        merged: list[Any] = []
        for numbers in zip(*[values for values, _ in places if values is not None], strict=True):
            if type(numbers[0]) is int and all(number == numbers[0] for number in numbers):
                merged.append(numbers[0])
            else:
                merged.append(_Column(numbers))
                columns.append(numbers)
        slots.append((tuple(merged), False))
    return slots, columns


def _slots(items: list[_Item]) -> list[Part]:
    return [slot for item in items for slot in item.slots]


def _bodies(items: list[_Item]) -> Iterator[list[_Item]]:
    for item in items:
        if item.body is not None:
            yield item.body
            yield from _bodies(item.body)


def _segment(sequences: list[list[_Item]], place: tuple[int, int], size: int) -> list[_Item]:
    return sequences[place[0]][place[1] : place[1] + size]


_PERIODS = 48


def _periods(symbols: npt.NDArray[np.int64]) -> list[int]:
    """Distances at which segments of 1, 2, 4, 8 ... symbols occur again, the most promising of every length."""
    total = len(symbols)
    ranks = np.unique(symbols, return_inverse=True)[1].astype(np.int64)
    periods: set[int] = set()
    width = 1
    while width <= total // 2:
        order = np.argsort(ranks, kind="stable")
        gaps = np.diff(order)[np.diff(ranks[order]) == 0]
        gaps = gaps[gaps >= width]
        if not gaps.size:
            break
        sizes, counts = np.unique(gaps, return_counts=True)
        best = np.lexsort((sizes, -counts * sizes))[:_PERIODS]
        periods.update(sizes[best].tolist())
        pairs = ranks[:-width] * (int(ranks.max()) + 1) + ranks[width:]
        ranks = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        width *= 2
    return sorted(period for period in periods if period <= total // 2)


def _repeated(symbols: npt.NDArray[np.int64]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The sorted suffixes, and every segment that occurs more than once and cannot be made longer.

    A segment is (its length, the first suffix that starts with it, one past the last).

    Suffixes are sorted by doubling (Manber and Myers 1993, sec. 2); common prefixes follow from the ranks of one suffix
    after the other (Kasai et al. 2001, fig. 3); segments are the intervals of that list (Abouelhoda et al. 2004,
    sec. 3).
    """
    total = len(symbols)
    ranks = np.unique(symbols, return_inverse=True)[1].astype(np.int64)
    width = 1
    while width < total:
        second = np.full(total, -1, dtype=np.int64)
        second[:-width] = ranks[width:]
        pairs = ranks * (total + 1) + second + 1
        distinct, ranks = np.unique(pairs, return_inverse=True)
        ranks = ranks.astype(np.int64)
        if len(distinct) == total:
            break
        width *= 2
    suffixes = np.argsort(ranks).tolist()
    rank, text = ranks.tolist(), symbols.tolist()
    common = [0] * (total + 1)  # common[i]: of the suffixes i - 1 and i
    shared = 0
    for start in range(total):
        if rank[start]:
            other = suffixes[rank[start] - 1]
            while start + shared < total and other + shared < total and text[start + shared] == text[other + shared]:
                shared += 1
            common[rank[start]] = shared
            shared = max(0, shared - 1)
        else:
            shared = 0
    intervals: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = [(0, 0)]  # (length, first suffix)
    for at in range(1, total + 1):
        first = at - 1
        while stack[-1][0] > common[at]:
            size, first = stack.pop()
            intervals.append((size, first, at))
        if stack[-1][0] < common[at]:
            stack.append((common[at], first))
    return suffixes, intervals


# ---------------------------------------------------------------------------------------------------------------------
# Names and text
# ---------------------------------------------------------------------------------------------------------------------


class _Line:
    """A statement where it stands in the text, once, however often it is carried out."""

    __slots__ = ("name", "refs", "tied")

    def __init__(self, refs: Sequence[int], tied: int) -> None:
        self.name = ""
        self.refs: list[Any] = list(refs)  # how far back; where there is a name for it, the name
        self.tied: Any = tied


_OLDEST = 99


class _Writer:
    """Turns folded items into text."""

    def __init__(self, items: list[_Item], blocks: list[list[_Item]], outputs: list[int], full: bool) -> None:
        self.items, self.blocks, self.full = items, blocks, full
        self.lines: dict[int, _Line] = {}
        self.titles: dict[int, str] = {}
        executed: list[_Line] = []
        self._execute(items, (), executed)
        total = len(executed)
        self.out = _Line([total - output for output in outputs], 0)
        executed.append(self.out)
        self._name(executed)

    def _execute(self, items: list[_Item], arguments: tuple[int, ...], executed: list[_Line]) -> None:
        """The statements in the order in which they are carried out."""

        def value(slot: Part) -> int:
            number = slot[0][0] if slot[0] else 0
            return arguments[int(number[1:]) - 1] if isinstance(number, str) else number

        for item in items:
            if item.template is not None:
                line = self.lines.get(id(item))
                if line is None:
                    refs = item.template.refs
                    line = self.lines[id(item)] = _Line(refs if refs is not None else (), item.template.tied)
                executed.append(line)
            elif item.body is not None:
                for _ in range(value(item.slots[0])):
                    self._execute(item.body, arguments, executed)
            else:
                self._execute(self.blocks[item.block], tuple([value(slot) for slot in item.slots]), executed)

    def _name(self, executed: list[_Line]) -> None:
        """Gives names to the lines that others refer to.

        All lines that one reference means at different times get one name. If it always means the latest line with
        that name but one, two, ..., it says so; if it is not always the same one, it stays a number of steps back.
        Names are used again as soon as nothing refers to them any more.
        """
        uses: dict[tuple[int, int], list[int]] = {}
        line_of: dict[int, _Line] = {}
        for at, line in enumerate(executed):
            line_of[id(line)] = line
            for slot, back in enumerate([*line.refs, line.tied]):
                if back > 1 or (back == 1 and slot == len(line.refs)):
                    uses.setdefault((id(line), slot), []).append(at)
        while True:
            group = {key: key for key in line_of}

            def find(key: int, group: dict[int, int] = group) -> int:
                while group[key] != key:
                    group[key] = group[group[key]]
                    key = group[key]
                return key

            targets: dict[int, list[tuple[tuple[int, int], int]]] = {}
            for use, times in uses.items():
                back = _back(line_of[use[0]], use[1])
                first = find(id(executed[times[0] - back]))
                for at in times:
                    group[find(id(executed[at - back]))] = first
                    targets.setdefault(at, []).append((use, at - back))
            named = {find(id(executed[t])) for found in targets.values() for _, t in found}
            carried: dict[int, int] = {}  # group: how often its name has been given
            turn: dict[int, int] = {}  # time: how often it had been given before
            ages: dict[tuple[int, int], set[int]] = {}
            spans: dict[int, list[list[int]]] = {}
            for at, line in enumerate(executed):
                for use, target in targets.get(at, ()):
                    key = find(id(executed[target]))
                    age = carried[key] - turn[target]
                    ages.setdefault(use, set()).add(age)
                    spans[key][-age][1] = at
                key = find(id(line))
                if key in named:
                    turn[at] = carried.get(key, 0)
                    carried[key] = turn[at] + 1
                    spans.setdefault(key, []).append([at, at + 1])
            wrong = [use for use, found in ages.items() if len(found) > 1 or max(found) > _OLDEST]
            if not wrong:
                break
            for use in wrong:
                del uses[use]
        for use, (age,) in ages.items():
            if age > 1:  # nothing else may carry the name in between
                key = find(id(executed[uses[use][0] - _back(line_of[use[0]], use[1])]))
                spans[key] = [[spans[key][0][0], max(end for _, end in spans[key])]]
        names = _colours(spans)
        for line in line_of.values():
            line.name = names.get(find(id(line)), "")
        for use, times in uses.items():
            line, slot = line_of[use[0]], use[1]
            (age,) = ages[use]
            name = names[find(id(executed[times[0] - _back(line, slot)]))] + (f"^{age}" if age > 1 else "")
            if slot == len(line.refs):
                line.tied = name
            else:
                line.refs[slot] = name

    # --- text ---

    def text(self) -> str:
        rows: list[str] = []
        order: list[int] = []
        self._needed(self.items, order)
        self.titles = {block: f"B{rank + 1}" for rank, block in enumerate(order)}
        for block in order:
            self._rows(self.blocks[block], f"block {self.titles[block]} {{", rows, "")
        self._rows(self.items, "", rows, "")
        last = [1]
        if self.out.refs != last:
            rows.append(" ".join(["out", *map(_reference, self.out.refs)]))
        return "".join([row + "\n" for row in rows])

    def _needed(self, items: list[_Item], order: list[int]) -> None:
        """Blocks in the order in which they can be defined."""
        for item in items:
            if item.body is not None:
                self._needed(item.body, order)
            elif item.block >= 0 and item.block not in order:
                self._needed(self.blocks[item.block], order)
                order.append(item.block)

    def _rows(self, items: list[_Item], opening: str, rows: list[str], indent: str) -> None:
        """Adds the lines of text of a sequence, in braces if there is an opening."""
        inside = indent + _INDENT if opening else indent
        body: list[str] = []
        words: list[str] = []

        def close() -> None:
            if words:
                body.append(inside + " ".join(words))
                words.clear()

        for item in items:
            if item.body is not None:
                count = str(item.slots[0][0][0]) if item.slots[0][0] else ""
                only = item.body[0]
                if len(item.body) == 1 and only.block >= 0:
                    words.append(f"{self._call(only)} x{count}")
                else:
                    close()
                    self._rows(item.body, f"repeat {count} {{", body, inside)
                continue
            words.append(self._call(item) if item.template is None else self._statement(item))
            if self.full or item.joins or sum(map(len, words)) + len(words) > _LINE:
                close()
        close()
        if not opening:
            rows.extend(body)
        elif len(body) == 1 and len(body[0]) + len(opening) < _LINE:
            rows.append(f"{indent}{opening} {body[0].strip()} }}")
        else:
            rows.extend([indent + opening, *body, indent + "}"])

    def _call(self, item: _Item) -> str:
        arguments = [str(values[0]) for values, _ in item.slots if values]
        return f"{self.titles[item.block]}({' '.join(arguments)})"

    def _statement(self, item: _Item) -> str:
        template, line = item.template, self.lines[id(item)]
        assert template is not None
        words = [f"{line.name}:"] if line.name else []
        words.append(template.op)
        if template.refs is not None:
            words += map(_reference, line.refs) if line.refs else ["none"]
        for text, (values, follows) in zip(template.formats, item.slots, strict=True):
            if values is not None and not follows:
                words.append(_filled(text, values))
        words += template.fixed
        if line.tied:
            words.append(f"tied={_reference(line.tied)}")
        return " ".join(words)


def _back(line: _Line, slot: int) -> int:
    return int(line.tied if slot == len(line.refs) else line.refs[slot])


def _reference(ref: Any) -> str:
    if isinstance(ref, str):
        return ref
    return "prev" if ref == 1 else f"^{ref}"


def _colours(spans: dict[int, list[list[int]]]) -> dict[int, str]:
    """Names such that those of spans that overlap differ, few and in order of first use."""
    taken: list[tuple[list[int], list[int]]] = []
    names: dict[int, str] = {}
    for key, own in sorted(spans.items(), key=lambda pair: pair[1][0]):
        for starts, ends in taken:
            if all(bisect_left(starts, end) == bisect_right(ends, start) for start, end in own):
                break
        else:
            starts, ends = [], []
            taken.append((starts, ends))
        if ends and own[0][0] < ends[-1]:
            merged = sorted([*zip(starts, ends, strict=True), *[(start, end) for start, end in own]])
            starts[:], ends[:] = zip(*merged, strict=True)
        else:
            starts.extend([start for start, _ in own])
            ends.extend([end for _, end in own])
        names[key] = _letters(next(number for number, pair in enumerate(taken) if pair[0] is starts))
    return names


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ... without words that mean something else."""
    name = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = chr(97 + letter) + name
    return f"{name}_" if name in _RESERVED else name


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------

_NUMBER = r"(?:\d+|\$\d+)"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<line>\n)
    |(?P<string>"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*")
    |(?P<float>-?(?:inf|nan)(?![\w:])|-?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)(?![\w.]))
    |(?P<dims>{_NUMBER}(?:x{_NUMBER})+(?![\w.$]))
    |(?P<number>(?:-?\d+|\$\d+)(?![\w.$]))
    |(?P<sugar>[a-z]{_NUMBER}(?:x{_NUMBER})*(?![\w.$:]))
    |(?P<back>\^\d+(?!\w))
    |(?P<older>[a-z_]\w*\^\d+(?!\w))
    |(?P<operator>{_OPERATOR.pattern})
    |(?P<without>-[a-z_]\w*)
    |(?P<word>[a-z_]\w*)
    |(?P<sign>[:=(){{}}])""",
    re.VERBOSE | re.ASCII,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        return "the end of the text" if not self.kind else repr(self.text[:40])


def _fail(line: int, expected: str, found: object) -> ReadError:
    return ReadError(f"line {line}: expected {expected}, found {found}; see docs/description.md", source="description")


def _tokens(text: str, limits: Limits) -> list[_Token]:
    most = limits.nodes * _TOKENS_PER_NODE
    found: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _fail(line, "an operator, a name or a number", repr(text[at : at + 20].split("\n")[0]))
        kind = str(match.lastgroup)
        if kind == "line":
            line += 1
        elif kind != "space":
            found.append(_Token(kind, match.group(), line))
            if len(found) > most:
                raise LimitError(
                    f"line {line}: more than {most:,} words; pass limits=Limits(nodes=...) if that is meant",
                    source="description",
                )
        at = match.end()
    found.append(_Token("", "", line))
    return found


class _Parameter(int):
    """The number of an argument of the block, where a number is expected."""


_Ref = int | tuple[str, int]
"""An operand: so many steps back, or a name and which of those that carried it, the latest first."""


class _Written:
    """A statement, repetition or call as it is written; `body` is empty in the former only."""

    __slots__ = (
        "arguments", "attributes", "body", "count", "dims", "line", "name", "op", "refs", "sugar", "tied",
        "weights", "width", "without", "work",
    )  # fmt: skip

    def __init__(self, line: int) -> None:
        self.line = line
        self.name = self.op = ""
        self.refs: list[_Ref] | None = None  # names or numbers of steps back
        self.tied: _Ref | None = None
        self.width: int | None = None
        self.dims: tuple[Any, ...] | None = None
        self.sugar: dict[str, tuple[Any, ...]] = {}
        self.attributes: dict[str, Any] = {}
        self.weights: list[tuple[Any, ...]] | None = None
        self.without: set[str] = set()
        self.count: int = 1
        self.body: list[_Written] = []
        self.arguments: list[int] = []
        self.work = 1


class _Reader:
    """Recursive descent over the tokens, one ahead."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at = tokens, 0
        self.blocks: dict[str, tuple[list[_Written], int]] = {}
        self.parameters = 0  # of the block that is read; -1 outside of blocks
        self.out: list[_Ref] | None = None

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != ""
        return token

    def sign(self, text: str) -> _Token:
        token = self.take()
        if token.text != text:
            raise _fail(token.line, repr(text), token)
        return token

    def has(self, text: str, ahead: int = 0) -> bool:
        at = self.at + ahead
        return at < len(self.tokens) and self.tokens[at].kind in ("sign", "word") and self.tokens[at].text == text

    def program(self) -> list[_Written]:
        """The whole text after the header."""
        self.parameters = -1
        body: list[_Written] = []
        while self.next.kind:
            if self.has("block"):
                self.block()
            elif self.has("out"):
                self.out = []
                self.take()
                while self.next.kind in ("word", "back", "older"):
                    self.out.append(self.reference())
                if self.next.kind:
                    raise _fail(self.next.line, "nothing behind the names of the outputs", self.next)
            else:
                body.append(self.step(0))
        return body

    def block(self) -> None:
        self.take()
        title = self.take()
        if title.kind != "operator" or title.text in self.blocks:
            raise _fail(title.line, "the name of a new block, such as B1", title)
        self.parameters = 0
        body = self.braces(1)
        self.blocks[title.text] = body, self.parameters
        self.parameters = -1

    def braces(self, depth: int) -> list[_Written]:
        opening = self.sign("{")
        if depth > _DEEPEST:
            raise _fail(opening.line, f"at most {_DEEPEST} braces in one another", "more")
        body = []
        while not self.has("}"):
            body.append(self.step(depth))
        if not body:
            raise _fail(opening.line, "statements in the braces", "none")
        self.take()
        return body

    def step(self, depth: int) -> _Written:
        """A statement, a repetition or a call."""
        token = self.next
        if self.has("repeat"):
            self.take()
            written = _Written(token.line)
            written.count = self.number("how many times to repeat")
            written.body = self.braces(depth + 1)
            return written
        if token.kind == "operator" and self.has("(", 1):
            return self.call()
        return self.statement()

    def call(self) -> _Written:
        title = self.take()
        written = _Written(title.line)
        if title.text not in self.blocks:
            raise _fail(title.line, "the name of a block that is defined above", title)
        written.body, count = self.blocks[title.text]
        self.sign("(")
        while not self.has(")"):
            written.arguments.append(self.number("a number or )"))
        self.take()
        if len(written.arguments) != count:
            raise _fail(title.line, f"{count} numbers for {title.text}", len(written.arguments))
        if self.next.kind == "sugar" and self.next.text[0] == "x":
            token = self.take()
            found = self.numbers(token.text[1:], token)
            if len(found) != 1:
                raise _fail(token.line, "x and how many times", token)
            written.count = found[0]
        return written

    def statement(self) -> _Written:
        token = self.take()
        written = _Written(token.line)
        if token.kind == "word" and self.has(":"):
            written.name = token.text
            self.take()
            token = self.take()
        if token.kind == "string":
            written.op = self.string(token)
        elif token.kind == "operator":
            written.op = token.text
        else:
            raise _fail(token.line, "an operator", token)
        start = self.at
        while self.argument(written):
            pass
        written.work += self.at - start
        return written

    def argument(self, written: _Written) -> bool:
        """Reads one argument of a statement; False if there is none left."""
        token = self.next
        if token.kind in ("word", "string") and self.has("=", 1):
            self.setting(written)
            return True
        if token.kind in ("back", "older") or (token.kind == "word" and not self.has(":", 1)):
            if token.text in ("repeat", "block", "out"):
                return False
            if token.text == "dw":
                self.take()
                written.sugar["dw"] = ()
                return True
            if token.text == "none":
                self.take()
                written.refs = self.once(written.refs, [], token)
                return True
            written.refs = [] if written.refs is None else written.refs
            written.refs.append(self.reference())
            return True
        if token.kind == "dims":
            self.take()
            written.dims = self.once(written.dims, self.numbers(token.text, token), token)
        elif token.kind == "number":
            written.width = self.once(written.width, self.number("a width"), token)
        elif token.kind == "sugar" and token.text[0] in "ksdpgb":
            self.take()
            letter = token.text[0]
            written.sugar[letter] = self.once(written.sugar.get(letter), self.numbers(token.text[1:], token), token)
        elif token.kind == "without":
            self.take()
            written.without.add(token.text[1:])
        else:
            return False
        return True

    @staticmethod
    def once(before: Any, value: Any, token: _Token) -> Any:
        if before is not None:
            raise _fail(token.line, "this only once in a statement", token)
        return value

    def setting(self, written: _Written) -> None:
        """`name=value`."""
        token = self.take()
        self.take()
        name = token.text if token.kind == "word" else self.string(token)
        if token.kind == "word" and name == "tied":
            written.tied = self.once(written.tied, self.reference(), token)
            return
        value = self.value(0)
        if token.kind == "word" and name in ("shape", "w", "params"):
            if name == "params":
                if not isinstance(value, int):
                    raise _fail(token.line, "params=number", "something else")
                written.sugar["params"] = self.once(written.sugar.get("params"), (value,), token)
                return
            if type(value) is not tuple or not all(isinstance(v, int) for v in value):
                raise _fail(token.line, f"{name}=(numbers)", "something else")
            if name == "shape":
                written.dims = self.once(written.dims, value, token)
            else:
                written.weights = [] if written.weights is None else written.weights
                written.weights.append(value)
            return
        written.attributes[name] = self.once(written.attributes.get(name), value, token)

    def value(self, depth: int) -> Any:
        token = self.take()
        if token.kind == "number":
            self.at -= 1
            return self.number("a number")
        if token.kind == "float":
            return float(token.text)
        if token.kind == "string":
            return self.string(token)
        if token.kind == "sign" and token.text == "(" and depth < _DEEPEST:
            values = []
            while not self.has(")"):
                values.append(self.value(depth + 1))
            self.take()
            return tuple(values)
        raise _fail(token.line, "a number, a string or numbers in parentheses", token)

    def string(self, token: _Token) -> str:
        try:
            return str(json.loads(token.text, strict=False))
        except ValueError:
            raise _fail(token.line, "a string with the escapes of JSON", token) from None

    def reference(self) -> _Ref:
        token = self.take()
        if token.kind == "back":
            return self.bounded(token.text[1:], token)
        name, _, age = token.text.partition("^")
        if token.kind not in ("word", "older") or name in _RESERVED - {"prev"} or (age and name == "prev"):
            raise _fail(token.line, "a name, prev or ^ and a number", token)
        return 1 if name == "prev" else (name, self.bounded(age or "1", token))

    def number(self, expected: str) -> int:
        token = self.take()
        if token.kind != "number":
            raise _fail(token.line, expected, token)
        return self.numbers(token.text, token)[0]

    def numbers(self, text: str, token: _Token) -> tuple[int, ...]:
        found = []
        for part in text.split("x"):
            if part[0] != "$":
                found.append(self.bounded(part, token))
                continue
            number = self.bounded(part[1:], token)
            if self.parameters < 0 or not 0 < number <= _MOST_PARAMETERS:
                raise _fail(token.line, f"${_MOST_PARAMETERS} at most, and only in a block", token)
            self.parameters = max(self.parameters, number)
            found.append(_Parameter(number))
        return tuple(found)

    @staticmethod
    def bounded(text: str, token: _Token) -> int:
        if len(text) > 20 or not -_LARGEST <= (number := int(text)) <= _LARGEST:
            raise _fail(token.line, "numbers of at most 63 bits", token)
        return number


_MOST_PARAMETERS = 10_000


class _Machine:
    """Carries out what is written and collects the statements."""

    def __init__(self, limits: Limits, convolution_bias: int) -> None:
        self.limits, self.convolution_bias = limits, convolution_bias
        self.nodes: list[Node] = []
        self.named: dict[str, list[int]] = {}
        self.work = 0
        self._known: dict[Any, Node] = {}

    def run(self, body: list[_Written], arguments: Sequence[int], depth: int) -> None:
        for written in body:
            if not written.body:
                self.statement(written, arguments)
                continue
            if depth > _DEEPEST:
                raise _fail(written.line, f"at most {_DEEPEST} repetitions and calls in one another", "more")
            count = _plain(written.count, arguments)
            if count < 1:
                raise _fail(written.line, "a repetition of 1 or more", count)
            inner = [_plain(a, arguments) for a in written.arguments] if written.arguments else arguments
            for _ in range(count):
                self.run(written.body, inner, depth + 1)

    def back(self, ref: _Ref, line: int) -> int:
        """Position of the statement that a reference means."""
        if isinstance(ref, tuple):
            name, age = ref
            positions = self.named.get(name, ())
            if not 0 < age <= len(positions):
                raise _fail(line, "the name of a statement above", repr(name + (f"^{age}" if age != 1 else "")))
            return positions[-age]
        if not 0 < ref <= len(self.nodes):
            raise _fail(line, f"an operand among the {len(self.nodes)} statements above", f"one {ref} statements back")
        return len(self.nodes) - ref

    def statement(self, written: _Written, arguments: Sequence[int]) -> None:
        line = written.line
        if len(self.nodes) >= self.limits.nodes or self.work > self.limits.nodes * _WORK_PER_NODE:
            raise LimitError(
                f"line {line}: the text stands for more than {self.limits.nodes:,} operators (or very long ones); "
                "pass limits=Limits(nodes=...) if that is meant",
                source="description",
            )
        refs: Sequence[_Ref] = written.refs if written.refs is not None else [1]
        if written.refs is None and written.op in _NO_OPERAND:
            refs = ()
        inputs = tuple([self.back(ref, line) for ref in refs])
        shapes = tuple([self.nodes[i].shape for i in inputs])
        tied = -1 if written.tied is None else self.back(written.tied, line)
        if len(inputs) > 4:
            node = self.build(written, shapes, arguments, tied >= 0)
        else:
            key = (id(written), shapes, tuple(arguments))
            found = self._known.get(key)
            node = found or self._known.setdefault(key, self.build(written, shapes, arguments, tied >= 0))
        self.work += written.work + sum([len(shape) for shape in shapes]) + len(node.shape)
        if written.name:
            self.named.setdefault(written.name, []).append(len(self.nodes))
        self.nodes.append(node._replace(inputs=inputs, tied=tied))

    def build(self, written: _Written, shapes: Sequence[Shape], arguments: Sequence[int], tied: bool) -> Node:
        """The node without its operands."""
        op, line = written.op, written.line
        attributes: dict[str, Any] = {n: _plain(value, arguments) for n, value in written.attributes.items()}
        sugar: dict[str, tuple[int, ...]] = {n: _plain(value, arguments) for n, value in written.sugar.items()}
        width = None if written.width is None else _plain(written.width, arguments)
        weights = None if written.weights is None else tuple([_plain(w, arguments) for w in written.weights])
        dims = None if written.dims is None else _plain(written.dims, arguments)
        if "w" in written.without:
            weights = ()
        sizes = [n for given in (dims or (), *(weights or ()), *sugar.values()) for n in given]
        if any(len(given) > _MOST_DIMENSIONS for given in (dims or (), *(weights or ()), *sugar.values())):
            raise _fail(line, f"at most {_MOST_DIMENSIONS} dimensions", "more")
        if (width is not None and width < 0) or any(n < 0 for n in sizes):
            raise _fail(line, "sizes of 0 and more", "a negative one")
        rank = max(0, len(shapes[0]) - 2) if shapes else 0
        weighed = op in _CONVOLUTIONS or op == "Linear"
        if (width is not None and not weighed) or (sugar.keys() & set("ksdpg") and op not in _WINDOWS):
            raise _fail(line, "a width, k, s, d, p or g only where the operator has one", f"one at {op}")
        kernel = sugar.get("k")
        if kernel is not None and len(kernel) == 1:
            kernel *= rank
        if op in _WINDOWS:
            self.window(op, shapes, attributes, sugar, kernel, weights, rank, line)
        for name, value in _expected_attributes(op, shapes, attributes).items():
            if name not in written.without:
                attributes.setdefault(name, value)
        if weights is None and weighed:
            weight = _kernel(op, shapes, attributes, width, kernel)
            if weight is None:
                raise _fail(line, f"an operand and groups from which the weight of {op} follows", f"{list(shapes)}")
            weights = (weight,)
        elif weights is None:
            weights = _expected_weights(op, shapes)
        shape = _expected_shape(op, shapes, attributes, weights) if dims is None else dims
        if shape is None:
            raise _fail(line, f"the shape of the output of {op} of {list(shapes)}, such as 1x64x56x56", "none")
        if max([prod(size) for size in (shape, *weights)]) > self.limits.elements:
            raise LimitError(
                f"line {line}: {op} of shape {shape} and weights {weights} has a tensor of more than "
                f"{self.limits.elements:,} elements (limits.elements)",
                source="description",
            )
        base, channels, per_channel = _stored(op, shape, attributes, weights, tied, self.convolution_bias)
        params = sugar["params"][0] if "params" in sugar else base + channels * sugar.get("b", (per_channel,))[0]
        return Node(op, (), shape, tuple(sorted(attributes.items(), key=lambda pair: pair[0])), weights, -1, params)

    @staticmethod
    def window(
        op: str,
        shapes: Sequence[Shape],
        attributes: dict[str, Any],
        sugar: dict[str, tuple[int, ...]],
        kernel: Shape | None,
        weights: tuple[Shape, ...] | None,
        rank: int,
        line: int,
    ) -> None:
        """What k, s, d, p, g and dw mean."""
        if sugar.keys() & {"s", "d", "p", "g", "dw", "k"} and not rank:
            raise _fail(line, "an operand of three and more dimensions", f"{list(shapes)}")
        if op in _POOLS and kernel is not None:
            attributes["kernel_shape"] = kernel
        elif op in _CONVOLUTIONS:
            kernel = (weights[0][2:] if weights else None) if weights is not None else kernel or (1,) * rank
        for letter, name in (("s", "strides"), ("d", "dilations")):
            if sugar.get(letter, (1,))[0] != 1:
                attributes[name] = sugar[letter][:1] * rank
        if "p" in sugar:
            if sugar["p"][0]:
                attributes["pads"] = sugar["p"][:1] * (2 * rank)
        elif "pads" not in attributes:
            own = attributes.get("kernel_shape") if op in _POOLS else kernel
            pads = _expected_pads(op, own, attributes.get("dilations"), rank)
            if pads:
                attributes["pads"] = pads
        if "dw" in sugar:
            attributes["group"] = shapes[0][1]
        elif sugar.get("g", (1,))[0] != 1:
            attributes["group"] = sugar["g"][0]


def _plain(value: Any, arguments: Sequence[int]) -> Any:
    """The value with arguments in place of parameters."""
    if type(value) is tuple:
        return tuple([_plain(part, arguments) for part in value])
    return arguments[value - 1] if type(value) is _Parameter else value


# ---------------------------------------------------------------------------------------------------------------------
# What is public
# ---------------------------------------------------------------------------------------------------------------------

_FIRST_LINE = re.compile(rf"[\s\ufeff]*{_HEADER} (\d{{1,6}})((?: [a-z0-9]+)*)[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")


def is_description(text: str) -> bool:
    """Whether a text starts with the header of a description, of any version."""
    return _FIRST_LINE.match(text) is not None


def describe(graph: ArchGraph, level: Level = "compact") -> str:
    """The network as text.

    Args:
        graph: Any graph.
        level: `full`: one statement a line, with widths and with shapes where they change. `compact`: what repeats is
            written once. `parse` gives the graph back from both. `summary`: stages, counts and costs in a few lines.
            `chain_slim`: the text that ONNX-Net uses (Qin et al. 2025), for comparison; see docs/description.md for
            what it loses.

    Returns:
        The text, lines ended by newlines; the same for the same graph and the same `Node.params`.

    Raises:
        ConfigError: No such level.
        GraphError: An attribute is no int, float, str or tuple, is not sorted by name, or is beyond 63 bits.
    """
    if level not in get_args(Level):
        raise ConfigError(f"level {level!r} does not exist; choose one of {', '.join(get_args(Level))}")
    if level == "summary":
        return _summary(graph)
    if level == "chain_slim":
        return _chain_slim(graph)
    found = _in_text_order(graph)
    statements, outputs = found or (graph.nodes, list(graph.outputs))
    bias = _usual_bias(statements)
    header = f"{_HEADER} {TEXT_VERSION}{f' b{bias}' if bias != 1 else ''}{'' if found else ' ordered'}\n"
    if not statements:
        return header + "out\n"
    speller = _Speller(bias, level == "full")
    folder = _Folder()
    items = [folder.statement(*speller.spell(statements, at)) for at in range(len(statements))]
    if level == "compact":
        items = folder.fold(items)
    return header + _Writer(items, folder.blocks, outputs, level == "full").text()


def _usual_bias(statements: Sequence[Node]) -> int:
    """Numbers a channel that most convolutions with a bias store beyond their weights, 1 to 9."""
    seen: Counter[int] = Counter()
    for node in statements:
        if node.op in _CONVOLUTIONS and node.attribute("bias") == 1 and len(node.shape) > 1 and node.shape[1]:
            base = sum([prod(weight) for weight in (node.weights[1:] if node.tied >= 0 else node.weights)])
            more, rest = divmod(node.params - base, node.shape[1])
            if not rest and 1 <= more <= 9:
                seen[more] += 1
    return min(seen, key=lambda more: (-seen[more], more), default=1)


def parse(text: str, limits: Limits = DEFAULT_LIMITS) -> ArchGraph:
    """The network that a description of level `full` or `compact` stands for.

    Args:
        text: The description; people and programs may write one, too (grammar: docs/description.md).
        limits: Bounds; `nodes` counts statements after all repetition is carried out, `structure_bytes` characters.

    Raises:
        ReadError: The text breaks the grammar, or something cannot be derived and is not written.
        LimitError: It is longer, or stands for more operators or larger tensors, than `limits` allow.
    """
    if len(text) > limits.structure_bytes:
        raise LimitError(
            f"{len(text):,} characters, expected at most {limits.structure_bytes:,} (limits.structure_bytes)",
            source="description",
        )
    match = _FIRST_LINE.match(text)
    if match is None:
        raise _fail(1, f"the header '{_HEADER} {TEXT_VERSION}'", repr(text[:20].split("\n")[0]))
    if int(match[1]) != TEXT_VERSION:
        raise _fail(1, f"version {TEXT_VERSION}; write the text again, or update archgauge", f"version {match[1]}")
    bias, ordered = 1, False
    for option in match[2].split():
        if option == "ordered":
            ordered = True
        elif re.fullmatch(r"b[0-9]", option):
            bias = int(option[1])
        else:
            raise _fail(1, "the options b0 to b9 and ordered only", repr(option))
    before = match.end()
    reader = _Reader(_tokens("\n" * text.count("\n", 0, before) + text[before:], limits))
    program = reader.program()
    machine = _Machine(limits, bias)
    machine.run(program, (), 0)
    statements = machine.nodes
    last = reader.next.line
    outputs = [machine.back(ref, last) for ref in (reader.out if reader.out is not None else [1])]
    if ordered:
        graph = ArchGraph(tuple(statements), tuple(outputs))
    else:
        _check_alive(statements, outputs, last)
        if _longest_sum(statements) > _MOST_TERMS:
            raise LimitError(
                f"a sum of more than {_MOST_TERMS:,} terms; write the statements in canonical order and '{_HEADER} "
                f"{TEXT_VERSION} ordered' in the first line if that is meant",
                source="description",
            )
        graph = _assemble(statements, outputs)
    try:
        macs = graph.macs
    except (TypeError, ValueError, IndexError) as error:
        raise ReadError(
            "operands, weights and attributes of an operator do not fit one another, so its costs cannot be told "
            f"({error}); check the statements of matrix products, attention and recurrent cells",
            source="description",
        ) from error
    if macs > limits.macs:
        raise LimitError(f"{macs:,} multiply-accumulates, more than limits.macs allows", source="description")
    return graph


def _check_alive(statements: Sequence[Node], outputs: Sequence[int], line: int) -> None:
    alive = set(outputs)
    for position in range(len(statements) - 1, -1, -1):
        if position in alive:
            alive.update(statements[position].inputs)
    if len(alive) != len(statements):
        dead = next(position for position in range(len(statements)) if position not in alive)
        raise _fail(
            line,
            "statements that an output depends on (name more outputs with 'out', or leave the statement out)",
            f"statement {dead + 1} ({statements[dead].op}) that nothing uses",
        )


def read_file(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ArchGraph | None:
    """The network in a file that holds a description; None if the file does not start with the header of one.

    Raises:
        UnreadableFileError: No such file, or the system refuses to open it.
        ReadError: As for `parse`, or the file is not UTF-8.
        LimitError: As for `parse`.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            start = file.read(_START)
            if not is_description(start.decode("utf-8", "ignore")):
                return None
            content = start + file.read(max(0, limits.structure_bytes + 1 - len(start)))
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror or error}); check the path", source=name) from error
    if len(content) > limits.structure_bytes:
        raise LimitError(f"more than {limits.structure_bytes:,} bytes (limits.structure_bytes)", source=name)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ReadError(f"expected UTF-8, found other bytes at {error.start}; convert the file", source=name) from error
    return parse(text, limits)


_START = 256


# --- levels that lose something --------------------------------------------------------------------------------------


def _summary(graph: ArchGraph) -> str:
    """Size and costs, then a line for every stage: operators of one spatial size (or number of tokens)."""
    sizes = {"x".join(map(str, node.shape)) for node in graph.nodes if node.op == "Input"}
    rows = [
        f"{_HEADER} summary: input {', '.join(sorted(sizes)) or 'none'}, output "
        f"{', '.join(['x'.join(map(str, graph.nodes[o].shape)) or 'scalar' for o in graph.outputs]) or 'none'}",
        f"{len(graph):,} operators, depth {graph.depth}, {graph.params:,} parameters, "
        f"{graph.macs:,} multiply-accumulates",
    ]
    stages: dict[str, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        shape = node.shape
        space = shape[2:] if len(shape) > 3 else shape[1:-1]
        stages.setdefault("x".join(map(str, space)) if prod(space) > 1 else "vector", []).append(position)
    total = max(1, graph.macs)
    for size, positions in stages.items():
        counts: Counter[str] = Counter()
        widths: list[int] = []
        for position in positions:
            node = graph.nodes[position]
            name = node.op
            if node.op in _CONVOLUTIONS and node.weights:
                kernel = node.weights[0][2:]
                name += f" {kernel[0]}" if len(set(kernel)) == 1 else f" {'x'.join(map(str, kernel))}"
                group = node.attribute("group", 1)
                name += "" if group == 1 else " depthwise" if node.weights[0][1] == 1 else " grouped"
            if kind_of(node.op) in (Kind.CONV, Kind.LINEAR) and node.weights:
                widths.append(node.shape[1] if len(node.shape) > 3 else node.shape[-1] if node.shape else 0)
            counts[name] += 1
        share = 100 * sum([graph.node_macs[position] for position in positions]) / total
        said = ", ".join([f"{count} {name}" for name, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))])
        width = "" if not widths else f"; width {min(widths)}" + (f" to {max(widths)}" if len(set(widths)) > 1 else "")
        rows.append(f"{size}: {said}{width}; {share:.1f} % of the multiply-accumulates")
    return "".join([row + "\n" for row in rows])


def _chain_slim(graph: ArchGraph) -> str:
    """ONNX-Net's text (Qin et al. 2025) of the canonical nodes, with its defects.

    Tensors inside a chain have no name, numbers that stand alone (groups, axes, slopes) are dropped, and the text
    follows the order of the nodes.
    """
    names: dict[int, str] = {}
    rows: list[str] = []
    chain: list[str] = []
    last = -1

    def close() -> None:
        if chain:
            shape = "x".join(map(str, graph.nodes[last].shape))
            names[last] = "Out" if last in graph.outputs else f"Value{len(rows) + 1}"
            rows.append(" --> ".join([*chain, f"{names[last]}:{shape}"]))
            chain.clear()

    for position, node in enumerate(graph.nodes):
        if node.op == "Input":
            names[position] = "x".join(map(str, node.shape))
            continue
        single = len(node.inputs) == 1
        if not single or node.inputs[0] != last:
            close()
        weights = [f"Param[{','.join(map(str, weight))}]" for weight in node.weights]
        if node.attribute("bias") and node.shape:
            weights.append(
                f"Param[{node.shape[1] if node.op in _CONVOLUTIONS and len(node.shape) > 1 else node.shape[-1]}]"
            )
        unnamed = ["prev"] if weights or not single else []
        operands = [part for i in node.inputs for part in ([names[i]] if i in names else unnamed)]
        lists = {name: value for name, value in node.attributes if type(value) is tuple}
        if node.op in _CONVOLUTIONS and node.weights:
            lists["kernel_shape"] = node.weights[0][2:]
        said = [
            f"{name}={value[0] if len(set(value)) == 1 else '[' + ','.join(map(str, value)) + ']'}"
            for name, value in sorted(lists.items())
            if value
        ]
        chain.append(f"{node.op}({', '.join([*operands, *weights])})" + (f"({','.join(said)})" if said else ""))
        last = position
        if not single:
            close()
            last = -1
    close()
    return "".join([row + "\n" for row in rows])
