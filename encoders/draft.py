"""The graph under construction: what the reader, the rules and the passes work on before there is an `ArchGraph`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .graph import AttributeValue, Shape

SMALL = 4096
"""Constants with at most this many elements keep their values (shapes, axes, scalars)."""

Sources = tuple[tuple[str, int], ...]
"""`(name, elements)` of stored tensors; they count as learned numbers."""

Attributes = tuple[tuple[str, AttributeValue], ...]
"""Attributes sorted by name."""


COMMUTATIVE = frozenset(
    {"Add", "Mul", "Max", "Min", "Mean", "And", "Or", "Xor", "Equal", "BitwiseAnd", "BitwiseOr", "BitwiseXor"}
)
"""Operators whose operands may change places (a Sum has become Adds)."""


class Constant:
    """A tensor that does not depend on any input of the network.

    Attributes:
        shape: Its shape.
        value: Its elements, if they are few and known.
        sources: The stored learned tensors it is made of. A single stored number whose value is known is one of 0
            elements: it may be learned or not, so it is neither counted nor taken for a fixed number.
        dead: It stands for a signal that was cut off from the input (a product with zero and what follows it).
        fill: The number that all its elements are, without dimensions, if they are many and that is known.
    """

    __slots__ = ("dead", "fill", "shape", "sources", "value")

    def __init__(
        self,
        shape: Shape,
        value: np.ndarray | None = None,
        sources: Sources = (),
        dead: bool = False,
        fill: np.ndarray | None = None,
    ) -> None:
        self.shape, self.value, self.sources, self.dead, self.fill = shape, value, sources, dead, fill

    @property
    def learned(self) -> bool:
        """Whether it counts as learned."""
        return any(size for _, size in self.sources)

    @property
    def scalar(self) -> float | None:
        """The one number it holds, if it holds one and the number is known."""
        value = self.value
        if value is None or value.size != 1 or value.dtype.kind not in "fiub":
            return None
        return float(value.reshape(()))

    def is_number(self, number: float) -> bool:
        """Whether it holds nothing but this number, and is not learned."""
        value = self.fill if self.value is None else self.value
        return (
            value is not None
            and not self.sources
            and value.dtype.kind in "fiub"
            and value.size > 0
            and bool((value == number).all())
        )

    def uniform(self) -> np.ndarray | None:
        """The number that all its elements are, without dimensions, if there is one and it is known."""
        value = self.value
        if value is None:
            return self.fill
        return value.reshape(-1)[:1].reshape(()) if value.size and bool((value == value.flat[0]).all()) else None

    def ints(self) -> tuple[int, ...] | None:
        """Its elements as integers, flattened, if they are known."""
        return None if self.value is None else tuple([int(v) for v in self.value.reshape(-1)])


Operand = int | Constant


class DraftNode:
    """A node under construction. `bias` holds the sources of absorbed biases, scales and shifts."""

    __slots__ = ("attributes", "bias", "inputs", "op", "shape", "weights")

    def __init__(
        self,
        op: str,
        inputs: tuple[int, ...],
        shape: Shape,
        attributes: Attributes,
        weights: tuple[Constant, ...],
        bias: Sources,
    ) -> None:
        self.op, self.inputs, self.shape = op, inputs, shape
        self.attributes, self.weights, self.bias = attributes, weights, bias

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of the attribute `name`, or `default`."""
        for key, value in self.attributes:
            if key == name:
                return value
        return default


class RawOperator(NamedTuple):
    """One operator of the file as a rule sees it.

    Attributes:
        op: Operator name; `domain::Name` outside the standard domain.
        operands: One entry an input, None where an optional input is left out.
        attributes: Attributes that differ from the operator's defaults; not to be changed.
        shapes: Shapes of the outputs.
        opset: Version of the standard operator set the file uses.
        name: How to call the operator in an error.
    """

    op: str
    operands: list[Operand | None]
    attributes: dict[str, Any]
    shapes: list[Shape]
    opset: int
    name: str

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.shapes[0]

    def constant(self, slot: int) -> Constant | None:
        """The operand in this slot if there is one and it is a constant."""
        operand = self.operands[slot] if slot < len(self.operands) else None
        return operand if isinstance(operand, Constant) else None


class Draft:
    """Nodes under construction; equal nodes are made once. `guessed` says whether any shape is not known for sure."""

    def __init__(self) -> None:
        self.guessed = False
        self.fused: dict[int, tuple[int, int]] = {}
        """Attention → the softmax and the values it is made of, for the case that the softmax is used elsewhere too."""
        self.nodes: list[DraftNode] = []
        self._known: dict[Any, int] = {}
        self._derived: dict[Any, tuple[Constant, Constant]] = {}

    def add(
        self,
        op: str,
        inputs: tuple[int, ...],
        shape: Shape,
        attributes: Attributes = (),
        weights: tuple[Constant, ...] = (),
        bias: Sources = (),
    ) -> int:
        """The position of this node, which is new unless an equal one exists."""
        if len(inputs) > 1 and op in COMMUTATIVE:
            inputs = tuple(sorted(inputs))
        key: Any = (op, inputs, shape, attributes)
        if weights or bias:
            key += (bias, *[_identity(weight) for weight in weights])
        nodes = self.nodes
        position = self._known.setdefault(key, len(nodes))
        if position == len(nodes):
            nodes.append(DraftNode(op, inputs, shape, attributes, weights, bias))
        return position

    def input(self, shape: Shape, attributes: Attributes = ()) -> int:
        """A new network input."""
        self.nodes.append(DraftNode("Input", (), shape, attributes, (), ()))
        return len(self.nodes) - 1

    def shape(self, operand: Operand) -> Shape:
        """Shape of a node's output or of a constant."""
        return operand.shape if operand.__class__ is Constant else self.nodes[operand].shape  # type: ignore[index]

    def plain(self, constant: Constant) -> Constant:
        """The constant without leading dimensions of 1, which broadcasting adds anyway."""
        shape = constant.shape
        return self.derived(constant, "plain", without_ones) if shape and shape[0] == 1 else constant

    def derived(self, constant: Constant, how: str, make: Callable[[Constant], Constant]) -> Constant:
        """What `make` makes of a constant; asked again, the same object."""
        found = self._derived.get((id(constant), how))
        if found is None:
            found = self._derived[id(constant), how] = constant, make(constant)
        return found[1]


def stored_as_integers(shape: Shape, name: str) -> Constant:
    """The learned numbers that a stored tensor of integers stands for; a single number is not learned."""
    size = prod(shape)
    return Constant(shape, None, ((name, size),) if size > 1 else ())


def without_ones(constant: Constant, rank: int = 0) -> Constant:
    """The constant without leading dimensions of 1, as long as it has more than `rank` dimensions."""
    shape = constant.shape
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    value = None if constant.value is None else constant.value.reshape(shape)
    return Constant(shape, value, constant.sources, constant.dead, constant.fill)


def _identity(weight: Constant) -> Any:
    """What makes two constants the same: for single numbers that are not learned their value, else the object."""
    value = weight.value
    return id(weight) if value is None or weight.sources or value.size != 1 else (value.item(),)
