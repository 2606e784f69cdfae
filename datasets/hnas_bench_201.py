"""Hierarchical NAS-Bench-201: networks derived from a context-free grammar, by definition only.

S. Schrodi, D. Stoll, B. Ru, R. Sukthanker, T. Brox, F. Hutter, "Construction of Hierarchical Neural Architecture Search
Spaces based on Context-free Grammars", NeurIPS 2023, sec. 5.1; grammar, topologies and operations as in the official
code (its space `variable_multi_multi`). The Diamond topologies of an earlier version of that code are not in the
published grammar and are refused.

A spec is the derivation as the official code writes it: every nonterminal with its production in parentheses, e.g.
`(D2 Linear3 (D1 Linear3 (C Linear2 (CELL Cell (OPS id) (OPS zero) ... (OPS Linear1 (CONVBLOCK Linear3 (ACT relu) (CONV
conv3x3o) (NORM batch)))) ...`. The grammar has no recursion, so every derivation ends. As in the code, a cell must keep
a path from its input to its output that `zero` does not cut. archgauge has no labels of these networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .nas_bench_201 import EDGES as CELL_EDGES
from .nas_bench_201 import reduction_block
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task
from .space import check_count
from .unlabelled import no_labels, shown

TASKS = ("cifar10", "cifar100", "imagenet16_120", "addnist", "cifartile")
SIZE = 100_000
"""Specs that `sample` gives at most."""
GRAMMAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "D2": (("Linear3", "D1", "D1", "D0"), ("Linear3", "D0", "D1", "D1"), ("Linear4", "D1", "D1", "D0", "D0")),
    "D1": (
        ("Linear3", "C", "C", "DOWN"),
        ("Linear4", "C", "C", "C", "DOWN"),
        ("Residual3", "C", "C", "DOWN", "DOWN"),
    ),
    "D0": (
        ("Linear3", "C", "C", "CELL"),
        ("Linear4", "C", "C", "C", "CELL"),
        ("Residual3", "C", "C", "CELL", "CELL"),
    ),
    "DOWN": (
        ("Linear2", "CELL", "resBlock"),
        ("Linear3", "CELL", "CELL", "resBlock"),
        ("Residual2", "CELL", "resBlock", "resBlock"),
    ),
    "C": (("Linear2", "CELL", "CELL"), ("Linear3", "CELL", "CELL", "CELL"), ("Residual2", "CELL", "CELL", "CELL")),
    "CELL": (("Cell", "OPS", "OPS", "OPS", "OPS", "OPS", "OPS"),),
    "OPS": (("id",), ("zero",), ("Linear1", "CONVBLOCK"), ("Linear1", "CONVBLOCK"), ("avg_pool",)),
    "CONVBLOCK": (("Linear3", "ACT", "CONV", "NORM"),),
    "CONV": (("conv3x3o",), ("conv1x1o",), ("dconv3x3o",)),
    "NORM": (("batch",), ("instance",), ("layer",)),
    "ACT": (("relu",), ("hardswish",), ("mish",)),
}
"""Productions of every nonterminal: a topology or an operation, then what fills it; `sample` takes each alike often."""

_NAME = "hierarchical NAS-Bench-201"
_START = "D2"
_TOKEN = re.compile(r"[()]|[^() ]+|.")
# (from, to) of every part, in the order of the production; the values of edges into one node are added.
_TOPOLOGIES = {
    **{f"Linear{n}": tuple((at, at + 1) for at in range(n)) for n in (1, 2, 3, 4)},
    "Residual2": ((0, 1), (0, 2), (1, 2)),
    "Residual3": ((0, 1), (1, 2), (0, 3), (2, 3)),
    "Cell": tuple((source, target) for target, source in CELL_EDGES),
}
_SIZES = {"cifar10": 32, "cifar100": 32, "imagenet16_120": 16, "addnist": 28, "cifartile": 64}
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet16_120": 120, "addnist": 20, "cifartile": 4}


class Part(NamedTuple):
    """A part of a derivation.

    Attributes:
        symbol: Its nonterminal; for a bare operation inside a production (`resBlock`) the operation itself.
        head: Topology or operation of the production.
        parts: What fills the topology.
    """

    symbol: str
    head: str
    parts: tuple[Part, ...] = ()


def parse(spec: str) -> Part:
    """The derivation of a spec.

    Raises:
        DataError: It is no derivation of the grammar, is not written as `spec_of` writes it, or a cell has no path from
            its input to its output.
    """
    tokens: list[str] = _TOKEN.findall(spec)
    part, end = _parse(tokens, 0, _START, spec)
    if end != len(tokens):
        raise _wrong(spec, "the end", tokens[end])
    if spec_of(part) != spec:
        raise DataError(f"{_NAME} network {shown(spec)}: expected single spaces between its parts")
    return part


def spec_of(part: Part) -> str:
    """The spec of a derivation."""
    if part.symbol == part.head:
        return part.head
    return f"({' '.join((part.symbol, part.head, *map(spec_of, part.parts)))})"


def build(spec: str, task: str) -> ModelProto:
    """The network of a derivation: 16 channels after the first convolution, doubled twice (Schrodi et al. 2023, C.1).

    `zero` edges are written as a multiplication by zero.

    Args:
        spec: Derivation.
        task: One of `TASKS`; sets the input size (3x32x32, 3x16x16, 3x28x28 for addnist, 3x64x64 for cifartile) and the
            classes.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, _NAME)
    network = parse(spec)
    b = _Builder(spec, (3, _SIZES[task], _SIZES[task]))
    x = _apply(b, network, b.batch_norm(b.conv(b.input, 16)))
    x = b.relu(b.batch_norm(x))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES[task]))


read_labels = no_labels(_NAME, TASKS)


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, every production of a nonterminal alike often; the same for the same seed.

    As in the official code, `zero` is left out where it would cut the last path through its cell.

    Raises:
        DataError: n is negative or above 100,000.
    """
    check_count(n, SIZE, _NAME)
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[spec_of(_draw(rng, _START))] = None
    return list(found)


class _Builder(OnnxBuilder):
    def normalise(self, x: Value, kind: str) -> Value:
        """Batch, instance or layer normalisation with learned scale and shift; layer: over channels and pixels."""
        if kind == "batch":
            return self.batch_norm(x)
        op, shape = ("InstanceNormalization", x.shape[:1]) if kind == "instance" else ("LayerNormalization", x.shape)
        name = self._fresh(op)
        inputs = [x.name, *(self._weight(f"{name}.{part}", shape) for part in ("weight", "bias"))]
        return self._emit(op, inputs, x.shape, {} if kind == "instance" else {"axis": 1}, name)


def _parse(tokens: list[str], at: int, symbol: str, spec: str) -> tuple[Part, int]:
    """The part of that nonterminal (or operation) from token `at` on, and where it ends."""
    if symbol not in GRAMMAR:
        return Part(symbol, symbol), _expect(tokens, at, symbol, spec)
    at = _expect(tokens, _expect(tokens, at, "(", spec), symbol, spec)
    at = _skip_space(tokens, at)
    head = tokens[at] if at < len(tokens) else "the end"
    production = [rule for rule in GRAMMAR[symbol] if rule[0] == head]
    if not production:
        heads = " or ".join(dict.fromkeys(rule[0] for rule in GRAMMAR[symbol]))
        raise _wrong(spec, f"{heads} after {symbol}", head)
    # Two productions may share a topology: the first fitting child decides.
    following = _skip_space(tokens, at + 1)
    opened = tokens[following + 1] if tokens[following : following + 1] == ["("] and following + 1 < len(tokens) else ""
    rule = next((rule for rule in production if rule[1:2] == (opened,)), production[0])
    at += 1
    parts = []
    for child in rule[1:]:
        part, at = _parse(tokens, at, child, spec)
        parts.append(part)
    at = _expect(tokens, at, ")", spec)
    result = Part(symbol, head, tuple(parts))
    if symbol == "CELL" and not _connected([part.head != "zero" for part in parts]):
        raise DataError(
            f"{_NAME} network {shown(spec)}: the cell {spec_of(result)} has no path from its input to its output"
        )
    return result, at


def _expect(tokens: list[str], at: int, wanted: str, spec: str) -> int:
    at = _skip_space(tokens, at)
    got = tokens[at] if at < len(tokens) else "the end"
    if got != wanted:
        raise _wrong(spec, repr(wanted), got)
    return at + 1


def _skip_space(tokens: list[str], at: int) -> int:
    return at + 1 if at < len(tokens) and tokens[at] == " " else at


def _wrong(spec: str, expected: str, got: str) -> DataError:
    return DataError(f"{_NAME} network {shown(spec)}: expected {expected}, got {got!r}")


def _connected(kept: list[bool]) -> bool:
    """Whether the kept edges of a cell (the first ones; those not named count as kept) join input and output."""
    edges = _TOPOLOGIES["Cell"]
    reached = {0}
    for (source, target), keep in zip(edges, kept + [True] * (len(edges) - len(kept)), strict=True):
        if keep and source in reached:
            reached.add(target)
    return 3 in reached


def _draw(rng: np.random.Generator, symbol: str) -> Part:
    if symbol not in GRAMMAR:
        return Part(symbol, symbol)
    rules = GRAMMAR[symbol]
    rule = rules[int(rng.integers(len(rules)))]
    if symbol != "CELL":
        return Part(symbol, rule[0], tuple(_draw(rng, child) for child in rule[1:]))
    parts: list[Part] = []
    for child in rule[1:]:
        part = _draw(rng, child)
        while part.head == "zero" and not _connected([*(known.head != "zero" for known in parts), False]):
            part = _draw(rng, child)
        parts.append(part)
    return Part(symbol, rule[0], tuple(parts))


def _apply(b: _Builder, part: Part, x: Value) -> Value:
    operation = _OPERATIONS.get(part.head)
    if operation is not None:
        return operation(b, x)
    edges = _TOPOLOGIES[part.head]
    nodes: dict[int, Value] = {0: x}
    for child, (source, target) in sorted(zip(part.parts, edges, strict=True), key=lambda item: item[1][1]):
        value = _apply(b, child, nodes[source])
        nodes[target] = b.add(nodes[target], value) if target in nodes else value
    return nodes[max(nodes)]


_OPERATIONS: dict[str, Callable[[_Builder, Value], Value]] = {
    "id": lambda b, x: x,
    "zero": lambda b, x: b.zero(x),
    "avg_pool": lambda b, x: b.avg_pool(x, kernel=3, padding=1),
    "resBlock": lambda b, x: reduction_block(b, x, 2 * x.shape[0]),
    "conv3x3o": lambda b, x: b.conv(x, x.shape[0]),
    "conv1x1o": lambda b, x: b.conv(x, x.shape[0], kernel=1),
    "dconv3x3o": lambda b, x: b.conv(x, x.shape[0], groups=x.shape[0]),
    "batch": lambda b, x: b.normalise(x, "batch"),
    "instance": lambda b, x: b.normalise(x, "instance"),
    "layer": lambda b, x: b.normalise(x, "layer"),
    "relu": lambda b, x: b.activation(x, "Relu"),
    "hardswish": lambda b, x: b.activation(x, "HardSwish"),
    "mish": lambda b, x: b.activation(x, "Mish"),
}
