"""`ArchGraph`: a network's architecture as one small immutable value, in canonical order, with static shapes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from .errors import GraphError
from .operators import Kind, kind_of

GRAPH_VERSION = 2
"""Raised whenever the canonical form changes, so that no hash of one form is taken for another's."""

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Shape = tuple[int, ...]


class Node(NamedTuple):
    """One operator.

    Attributes:
        op: Canonical operator name (see `operators`).
        inputs: Positions in `ArchGraph.nodes` of the operands that depend on a network input, in operand order.
            Operands that are constants are not listed; their shapes stand in `weights`.
        shape: Shape of the output, with batch size 1.
        attributes: `(name, value)` pairs sorted by name; those that equal the operator's default are left out.
        weights: Shapes of the constant tensors the operator uses (kernels, matrices, tables, scales), in operand order;
            a bias is not listed but flagged by the attribute `bias`.
        tied: Position of the earlier node whose weight this node uses again, or -1. Only for convolutions, linear
            layers, recurrent cells and embeddings: exporters merge equal scales and tables, those of fresh norms, say.
        params: Learned numbers stored for this node, biases and normalisation scales included, running statistics not;
            0 where the weights are tied. It says what the file stores and is no part of the graph's identity:
            a convolution with its batch norm folded in has fewer than the same with the two apart.
    """

    op: str
    inputs: tuple[int, ...]
    shape: Shape
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    weights: tuple[Shape, ...] = ()
    tied: int = -1
    params: int = 0

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of the attribute `name`, or `default`."""
        for key, value in self.attributes:
            if key == name:
                return value
        return default

    @property
    def size(self) -> int:
        """Elements of the output."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class ArchGraph:
    """A network's architecture: operators in canonical topological order.

    Two graphs are equal when their hashes are: same operators, wiring, shapes and attributes. Names, file order and
    weights' values play no part.

    Args:
        nodes: Operators; every operand stands before its consumer.
        outputs: Positions of the network's outputs in `nodes`.

    Raises:
        GraphError: An index is out of order or out of range, or a dimension is negative.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    def __post_init__(self) -> None:
        for position, node in enumerate(self.nodes):
            inputs, shape = node.inputs, node.shape
            if inputs and (max(inputs) >= position or min(inputs) < 0):
                raise GraphError(
                    f"node {position} ({node.op}) takes the operands {inputs}, expected 0 to {position - 1}"
                )
            if shape and min(shape) < 0:
                raise GraphError(f"node {position} ({node.op}) has the shape {shape}; dimensions cannot be negative")
            if node.tied >= position:
                raise GraphError(f"node {position} ({node.op}) is tied to node {node.tied}, expected an earlier one")
        for output in self.outputs:
            if not 0 <= output < len(self.nodes):
                raise GraphError(f"output {output} is no node; the graph has {len(self.nodes)}")

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchGraph) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"ArchGraph({len(self)} nodes, {self.params:,} parameters, {self.macs:,} MACs, hash {self.hash[:12]})"

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical content, 64 hexadecimal digits."""
        content = repr((GRAPH_VERSION, [node[:6] for node in self.nodes], self.outputs))
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def node_macs(self) -> tuple[int, ...]:
        """Multiply-accumulates of every node; see `costs.macs_of` for the convention."""
        from .costs import COUNTED, macs_of

        nodes = self.nodes
        return tuple([macs_of(n, [nodes[i] for i in n.inputs]) if n.op in COUNTED else 0 for n in nodes])

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass at batch size 1."""
        return sum(self.node_macs)

    @cached_property
    def params(self) -> int:
        """Learned numbers, shared ones counted once, running statistics of batch norm not counted."""
        return sum(node.params for node in self.nodes)

    @cached_property
    def activations(self) -> int:
        """Elements that convolutions, matrix products and recurrent cells put out (Radosavovic et al. 2020, sec. 3)."""
        return sum(node.size for node in self.nodes if kind_of(node.op) in _WEIGHED)

    @cached_property
    def peak_activations(self) -> int:
        """Elements that signals take up at once, at most; see `costs.peak_activations` for the convention."""
        from .costs import peak_activations

        return peak_activations(self.nodes, self.outputs)

    @cached_property
    def depth(self) -> int:
        """Learned layers (convolutions, linear layers, recurrent cells) on the longest path."""
        longest: list[int] = []
        for node in self.nodes:
            before = max((longest[i] for i in node.inputs), default=0)
            longest.append(before + (kind_of(node.op) in _LAYERS))
        return max(longest, default=0)

    @cached_property
    def unknown_ops(self) -> tuple[str, ...]:
        """Names of the operators that archgauge does not understand, sorted, each once."""
        return tuple(sorted({node.op for node in self.nodes if kind_of(node.op) is Kind.UNKNOWN}))

    @cached_property
    def unknown_share(self) -> float:
        """Share, 0 to 1, of all elements that nodes put out which come from operators archgauge does not understand.

        Their multiply-accumulates are not known, so this stands for how much of the compute they carry.
        """
        if not self.unknown_ops:
            return 0.0
        total = sum(node.size for node in self.nodes if node.inputs)
        unknown = sum(node.size for node in self.nodes if kind_of(node.op) is Kind.UNKNOWN)
        return unknown / total if total else 0.0

    def to_json(self) -> str:
        """The graph as JSON text; `from_json` gives it back, hash and parameters included."""
        return json.dumps(
            {"version": GRAPH_VERSION, "outputs": self.outputs, "nodes": self.nodes}, separators=(",", ":")
        )

    @classmethod
    def from_json(cls, text: str) -> ArchGraph:
        """The graph that `to_json` wrote.

        Raises:
            GraphError: The text is no graph, or one of another version.
        """
        try:
            content = json.loads(text)
            if content["version"] != GRAPH_VERSION:
                raise GraphError(f"graph of version {content['version']}, expected {GRAPH_VERSION}: write it again")
            nodes = tuple(
                Node(op, _tuples(inputs), _tuples(shape), _tuples(attributes), _tuples(weights), tied, params)
                for op, inputs, shape, attributes, weights, tied, params in content["nodes"]
            )
            return cls(nodes, tuple(content["outputs"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, GraphError):
                raise
            raise GraphError(f"the text is not a graph written by to_json: {error}") from error


_LAYERS = frozenset({Kind.CONV, Kind.LINEAR, Kind.RECURRENT})
_WEIGHED = _LAYERS | {Kind.MATMUL}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
