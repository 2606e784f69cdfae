"""A builder for networks that are no image networks: several inputs, token ids, reductions, no batch axis.

`ArrayBuilder` writes the same weightless files as `OnnxBuilder`. The difference: a shape here is the whole shape of an
array, with every axis fixed, and axes are numbered as they stand. Graph networks, recurrent cells and token models need
that, because their first axis is no batch (nodes of a graph) or because operators work across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from onnx import TensorProto, TypeProto

from ..encoders.errors import GraphError
from .onnx_builder import OnnxBuilder, Shape, Value


class ArrayBuilder(OnnxBuilder):
    """Writes a network operator by operator; shapes are those of whole arrays, without a hidden batch axis.

    Convolutions, pooling, `flatten`, `slice` and `pad` of `OnnxBuilder` count on a batch axis: do not use them here.

    Args:
        name: Name of the graph in the file.
        input_shape: Shape of the first input, every axis.
        input_name: Name of the first input.
        integer: Whether the first input holds integers (token ids), not floats.
    """

    def __init__(
        self, name: str, input_shape: Sequence[int], *, input_name: str = "input", integer: bool = False
    ) -> None:
        super().__init__(name, input_shape)
        self.input = Value(input_name, tuple(input_shape))
        self._graph.input[0].name = input_name
        if integer:
            self._graph.input[0].type.tensor_type.elem_type = TensorProto.INT64

    def add_input(self, name: str, shape: Sequence[int], *, integer: bool = False) -> Value:
        """A further input of the network."""
        value = self._graph.input.add(name=name, type=self._type(tuple(shape)))
        if integer:
            value.type.tensor_type.elem_type = TensorProto.INT64
        return Value(name, tuple(shape))

    # Learned layers

    def embedding(self, ids: Value, vocabulary: int, features: int, table: str = "") -> tuple[Value, str]:
        """Rows of a learned table (vocabulary, features) at the places `ids`; also the name of the table.

        Args:
            ids: Integers of any shape.
            vocabulary: Rows of the table.
            features: Length of a row.
            table: Name of a table that exists already, to share it.
        """
        name = self._fresh("Gather")
        table = table or self._weight(f"{name}.weight", (vocabulary, features))
        return self._emit("Gather", [table, ids.name], (*ids.shape, features), {"axis": 0}, name), table

    def shared_linear(self, x: Value, table: str, rows: int, *, bias: bool = False) -> Value:
        """The product of x (n, features) with a table (rows, features) that exists already, transposed."""
        inputs = [x.name, table]
        if bias:
            inputs.append(self._weight(f"{self._fresh('Gemm')}.bias", (rows,)))
        return self._emit("Gemm", inputs, (x.shape[0], rows), {"transB": 1})

    def mul_parameter(self, x: Value, shape: Sequence[int]) -> Value:
        """The product with a learned tensor of `shape`, broadcast over the leading axes."""
        name = self._fresh("Mul")
        return self._emit("Mul", [x.name, self._weight(f"{name}.weight", tuple(shape))], x.shape, {}, name)

    def batch_norm(self, x: Value) -> Value:
        """Batch normalisation of x (n, features, ...) over axis 1, with scale, shift and running statistics."""
        name = self._fresh("BatchNormalization")
        parts = (self._weight(f"{name}.{part}", x.shape[1:2]) for part in ("weight", "bias", "mean", "var"))
        return self._emit("BatchNormalization", [x.name, *parts], x.shape, {}, name)

    def layer_norm_without_shift(self, x: Value) -> Value:
        """Layer normalisation over the last axis, with a scale only."""
        name = self._fresh("LayerNormalization")
        return self._emit(
            "LayerNormalization", [x.name, self._weight(f"{name}.weight", x.shape[-1:])], x.shape, {}, name
        )

    def rms_norm(self, x: Value) -> Value:
        """Division by the root mean square along the last axis, times a learned scale (Zhang and Sennrich 2019)."""
        square = self.reduce("ReduceMean", self.mul(x, x), axis=len(x.shape) - 1, keep=True)
        return self.mul_parameter(self.divide(x, self.unary("Sqrt", self.shift(square, 1e-6))), x.shape[-1:])

    def prelu(self, x: Value, slope: str = "") -> tuple[Value, str]:
        """max(x, 0) + a * min(x, 0) with one learned a; also the name of a.

        Args:
            x: Input.
            slope: Name of an a that exists already, to share it.
        """
        name = self._fresh("PRelu")
        slope = slope or self._weight(f"{name}.weight", (1,))
        return self._emit("PRelu", [x.name, slope], x.shape, {}, name), slope

    def unit_length(self, x: Value) -> Value:
        """Division by the Euclidean length along the last axis."""
        return self._emit("LpNormalization", [x.name], x.shape, {"axis": -1, "p": 2})

    # Arithmetic

    def binary(self, op: str, x: Value, y: Value) -> Value:
        """An element-wise operator of two arrays, broadcast as numpy does.

        Raises:
            GraphError: The shapes do not fit.
        """
        longest = max(len(x.shape), len(y.shape))
        left, right = ((1,) * (longest - len(shape)) + shape for shape in (x.shape, y.shape))
        if any(a != b and 1 not in (a, b) for a, b in zip(left, right, strict=True)):
            raise GraphError(f"{op} of {x.shape} and {y.shape}: the shapes do not fit")
        return self._emit(op, [x.name, y.name], tuple(map(max, zip(left, right, strict=True))))

    def divide(self, x: Value, y: Value) -> Value:
        """The quotient of x and y, broadcast."""
        return self.binary("Div", x, y)

    def shift(self, x: Value, amount: float) -> Value:
        """The sum of x and a constant."""
        return self._emit("Add", [x.name, self._scalar(amount)], x.shape)

    def power(self, x: Value, exponent: float) -> Value:
        """A constant power of x."""
        return self._emit("Pow", [x.name, self._scalar(exponent)], x.shape)

    def at_least(self, x: Value, least: float) -> Value:
        """max(x, least)."""
        return self._emit("Clip", [x.name, self._scalar(least)], x.shape)

    def unary(self, op: str, x: Value) -> Value:
        """An element-wise operator without attributes, by its ONNX name (Sqrt, Neg, Sigmoid, EyeLike ...)."""
        return self._emit(op, [x.name], x.shape)

    def reduce(self, op: str, x: Value, *, axis: int, keep: bool = False) -> Value:
        """ReduceSum, ReduceMean or ReduceMax along one axis, which stays as 1 with `keep`."""
        rest = (1,) if keep else ()
        shape = (*x.shape[:axis], *rest, *x.shape[axis + 1 :])
        return self._emit(op, [x.name, self._integers((axis,))], shape, {"keepdims": int(keep)})

    # Layout

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Concatenation along `axis`, counted over all axes.

        Raises:
            GraphError: The other axes differ.
        """
        first = values[0].shape
        axis %= len(first)
        if any(v.shape[:axis] + v.shape[axis + 1 :] != first[:axis] + first[axis + 1 :] for v in values):
            raise GraphError(f"Concat of {[v.shape for v in values]} along axis {axis}: the other axes must be equal")
        shape = (*first[:axis], sum(value.shape[axis] for value in values), *first[axis + 1 :])
        return self._emit("Concat", [value.name for value in values], shape, {"axis": axis})

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Give x another shape of as many elements.

        Raises:
            GraphError: The number of elements differs.
        """
        if prod(shape) != prod(x.shape):
            raise GraphError(f"Reshape of {x.shape} to {tuple(shape)}: the number of elements differs")
        return self._emit("Reshape", [x.name, self._integers(tuple(shape))], tuple(shape))

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Put the axes of x in the order `axes`.

        Raises:
            GraphError: An axis is missing or stands twice.
        """
        if sorted(axes) != list(range(len(x.shape))):
            raise GraphError(f"Transpose of {x.shape} by {tuple(axes)}: expected every axis once")
        return self._emit("Transpose", [x.name], tuple(x.shape[axis] for axis in axes), {"perm": tuple(axes)})

    def part(self, x: Value, axis: int, start: int, end: int) -> Value:
        """What lies between `start` (included) and `end` (excluded) along one axis.

        Raises:
            GraphError: The part is empty or out of range.
        """
        if not 0 <= start < end <= x.shape[axis]:
            raise GraphError(f"Slice {start}:{end} of axis {axis} of {x.shape} is empty or out of range")
        shape = (*x.shape[:axis], end - start, *x.shape[axis + 1 :])
        return self._emit("Slice", [x.name, *(self._integers((at,)) for at in (start, end, axis))], shape)

    def _type(self, shape: Shape) -> TypeProto:
        known = self._types.get(shape)
        if known is None:
            known = TypeProto()
            known.tensor_type.elem_type = TensorProto.FLOAT
            known.tensor_type.shape.SetInParent()
            for size in shape:
                known.tensor_type.shape.dim.add(dim_value=size)
            self._types[shape] = known
        return known
