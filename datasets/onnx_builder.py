"""A small, quick builder of weightless ONNX models, for writing the networks of search spaces.

*Weightless*: every learned tensor keeps its name, type and dimensions and points to the external file `weights.bin`,
which does not exist; small integer constants (slice bounds, target shapes) stand inline. A 300-node network takes a few
milliseconds: the builder fills the protobuf messages itself and tracks shapes itself, so every value in the file
carries its shape. The files follow opset 20 and IR version 10; the batch dimension is symbolic (`batch`).

`onnx.checker.check_model` looks for the external file on disk and so rejects any model whose data file is missing.
`with_zero_weights` gives a copy with zeros in place of the missing data, which passes the full check.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from onnx import AttributeProto, ModelProto, TensorProto, TypeProto

from ..encoders.errors import ConfigError, GraphError

OPSET = 20
IR_VERSION = 10
WEIGHTS_FILE = "weights.bin"

Shape = tuple[int, ...]
_Attribute = int | float | tuple[int, ...]

_PLAIN_ACTIVATIONS = frozenset(
    ("Relu", "Sigmoid", "Tanh", "Gelu", "HardSwish", "Mish", "Elu", "Selu", "Celu", "LeakyRelu", "Softplus", "Erf")
)


class Value(NamedTuple):
    """A tensor of the network.

    Attributes:
        name: Its name in the file.
        shape: Shape of one sample, without the batch axis: (C, H, W) for images.
    """

    name: str
    shape: Shape


class OnnxBuilder:
    """Writes a network operator by operator; every method takes values and returns the new one.

    Shapes and axes are those of one sample: the batch axis stands in the file but is never named here.

    Args:
        name: Name of the graph in the file.
        input_shape: Shape of one input sample, e.g. (3, 32, 32).
    """

    def __init__(self, name: str, input_shape: Sequence[int]) -> None:
        self._model = ModelProto(ir_version=IR_VERSION, producer_name="archgauge")
        self._model.opset_import.add(domain="", version=OPSET)
        self._graph = self._model.graph
        self._graph.name = name
        self._types: dict[Shape, TypeProto] = {}
        self._attributes: dict[tuple[str, _Attribute], AttributeProto] = {}
        self._tensors: dict[Shape, TensorProto] = {}
        self._constants: dict[tuple[int, ...] | float, str] = {}
        self._values: dict[str, Shape] = {}
        self.input = Value("input", tuple(input_shape))
        self._graph.input.add(name="input", type=self._type(self.input.shape))

    # Convolutions and linear layers

    def conv(
        self,
        x: Value,
        channels: int,
        *,
        kernel: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> Value:
        """A 2-d convolution of x (C, H, W) to `channels` maps.

        Args:
            x: Input.
            channels: Output channels.
            kernel: Kernel height and width.
            stride: Stride of both axes, or of each.
            padding: Zeros on every side, one number per axis; None keeps the resolution at stride 1.
            groups: Groups; `x.shape[0]` makes it depthwise.
            dilation: Dilation of both axes.
            bias: Whether a bias is added.

        Raises:
            GraphError: Shapes do not fit.
        """
        height, width = _pair(kernel)
        tall, wide = (height - 1) * dilation + 1, (width - 1) * dilation + 1
        pad_h, pad_w = (tall // 2, wide // 2) if padding is None else _pair(padding)
        in_channels = self._image(x, "Conv")[0]
        if in_channels % groups or channels % groups:
            raise GraphError(
                f"Conv from {in_channels} to {channels} channels: both must be divisible by the groups ({groups})"
            )
        strides = _pair(stride)
        shape = (channels, *self._window("Conv", x, (tall, wide), strides, (pad_h, pad_w)))
        name = self._fresh("Conv")
        inputs = [x.name, self._weight(f"{name}.weight", (channels, in_channels // groups, height, width))]
        if bias:
            inputs.append(self._weight(f"{name}.bias", (channels,)))
        attributes: dict[str, _Attribute] = {"kernel_shape": (height, width)}
        if strides != (1, 1):
            attributes["strides"] = strides
        if pad_h or pad_w:
            attributes["pads"] = (pad_h, pad_w, pad_h, pad_w)
        if dilation != 1:
            attributes["dilations"] = (dilation, dilation)
        if groups != 1:
            attributes["group"] = groups
        return self._emit("Conv", inputs, shape, attributes, name)

    def linear(self, x: Value, features: int, *, bias: bool = True) -> Value:
        """A linear layer on the last axis of x: Gemm for vectors, MatMul (and Add) for more axes."""
        if len(x.shape) == 1:
            name = self._fresh("Gemm")
            inputs = [x.name, self._weight(f"{name}.weight", (features, x.shape[0]))]
            if bias:
                inputs.append(self._weight(f"{name}.bias", (features,)))
            return self._emit("Gemm", inputs, (features,), {"transB": 1}, name)
        name = self._fresh("MatMul")
        weight = self._weight(f"{name}.weight", (x.shape[-1], features))
        y = self._emit("MatMul", [x.name, weight], (*x.shape[:-1], features), {}, name)
        return self.add_parameter(y, (features,)) if bias else y

    def matmul(self, x: Value, y: Value) -> Value:
        """The matrix product of two values (..., m, k) and (..., k, n) with equal leading axes."""
        if len(x.shape) < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
            raise GraphError(f"MatMul of {x.shape} and {y.shape}: expected (..., m, k) and (..., k, n)")
        return self._emit("MatMul", [x.name, y.name], (*x.shape[:-1], y.shape[-1]))

    # Normalisation and activations

    def batch_norm(self, x: Value) -> Value:
        """Batch normalisation over axis 0 of x, with scale, shift and running statistics."""
        name = self._fresh("BatchNormalization")
        channels = x.shape[:1]
        inputs = [x.name, *(self._weight(f"{name}.{part}", channels) for part in ("weight", "bias", "mean", "var"))]
        return self._emit("BatchNormalization", inputs, x.shape, {}, name)

    def layer_norm(self, x: Value) -> Value:
        """Layer normalisation over the last axis of x, with scale and shift."""
        name = self._fresh("LayerNormalization")
        inputs = [x.name, *(self._weight(f"{name}.{part}", x.shape[-1:]) for part in ("weight", "bias"))]
        return self._emit("LayerNormalization", inputs, x.shape, {}, name)

    def relu(self, x: Value) -> Value:
        """max(x, 0)."""
        return self._emit("Relu", [x.name], x.shape)

    def activation(self, x: Value, op: str) -> Value:
        """An activation by its canonical name, e.g. "Relu", "Relu6", "Silu", "HardSwish", "HardSigmoid", "Gelu".

        Raises:
            ConfigError: There is no such activation.
        """
        if op in _PLAIN_ACTIVATIONS:
            return self._emit(op, [x.name], x.shape)
        if op == "Silu":
            return self.mul(x, self._emit("Sigmoid", [x.name], x.shape))
        if op == "Relu6":
            return self._emit("Clip", [x.name, self._scalar(0.0), self._scalar(6.0)], x.shape)
        if op == "HardSigmoid":
            return self._emit(op, [x.name], x.shape, {"alpha": 1 / 6})
        known = ", ".join(sorted([*_PLAIN_ACTIVATIONS, "Silu", "Relu6", "HardSigmoid"]))
        raise ConfigError(f"there is no activation {op!r}; expected one of {known}")

    def softmax(self, x: Value) -> Value:
        """Softmax over the last axis."""
        return self._emit("Softmax", [x.name], x.shape, {"axis": -1})

    # Arithmetic

    def add(self, x: Value, y: Value, *more: Value) -> Value:
        """The sum, as a chain of binary additions; axes of size 1 are broadcast."""
        total = self._emit("Add", [x.name, y.name], _broadcast("Add", x, y))
        for value in more:
            total = self._emit("Add", [total.name, value.name], _broadcast("Add", total, value))
        return total

    def mul(self, x: Value, y: Value) -> Value:
        """The element-wise product; axes of size 1 are broadcast."""
        return self._emit("Mul", [x.name, y.name], _broadcast("Mul", x, y))

    def scale(self, x: Value, factor: float) -> Value:
        """`factor` times x."""
        return self._emit("Mul", [x.name, self._scalar(factor)], x.shape)

    def zero(self, x: Value) -> Value:
        """Zeros of the shape of x, written as x times 0: the edge stays visible in the file."""
        return self.scale(x, 0.0)

    def add_parameter(self, x: Value, shape: Sequence[int]) -> Value:
        """Add to x a learned tensor of `shape` (a bias, position embeddings), broadcast over the leading axes."""
        name = self._fresh("Add")
        return self._emit("Add", [x.name, self._weight(f"{name}.weight", tuple(shape))], x.shape, {}, name)

    # Pooling

    def max_pool(self, x: Value, *, kernel: int, stride: int = 1, padding: int = 0) -> Value:
        """Max pooling of x (C, H, W)."""
        return self._pool("MaxPool", x, kernel, stride, padding, {})

    def avg_pool(
        self,
        x: Value,
        *,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        count_include_pad: bool = False,
        ceil_mode: bool = False,
    ) -> Value:
        """Average pooling of x (C, H, W); padding counts in the mean only with `count_include_pad`.

        With `ceil_mode` a last window that reaches over the edge is kept, cut off at the edge.
        """
        attributes: dict[str, _Attribute] = {"count_include_pad": 1} if count_include_pad else {}
        if ceil_mode:
            attributes["ceil_mode"] = 1
        return self._pool("AveragePool", x, kernel, stride, padding, attributes)

    def global_avg_pool(self, x: Value) -> Value:
        """The mean over H and W: (C, H, W) to (C, 1, 1)."""
        return self._emit("GlobalAveragePool", [x.name], (self._image(x, "GlobalAveragePool")[0], 1, 1))

    # Layout

    def concat(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Concatenation along `axis` (0: channels)."""
        first = values[0].shape
        axis %= len(first)
        for value in values:
            if value.shape[:axis] + value.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
                raise GraphError(f"Concat of {first} and {value.shape} along axis {axis}: the other axes must be equal")
        shape = (*first[:axis], sum(value.shape[axis] for value in values), *first[axis + 1 :])
        return self._emit("Concat", [value.name for value in values], shape, {"axis": axis + 1})

    def flatten(self, x: Value) -> Value:
        """All axes of x in one."""
        return self._emit("Flatten", [x.name], (prod(x.shape),), {"axis": 1})

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Give x another sample shape of as many elements."""
        if prod(shape) != prod(x.shape):
            raise GraphError(f"Reshape of {x.shape} to {tuple(shape)}: the number of elements differs")
        return self._emit("Reshape", [x.name, self._integers((0, *shape))], tuple(shape))

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Put the axes of x in the order `axes`."""
        if sorted(axes) != list(range(len(x.shape))):
            raise GraphError(f"Transpose of {x.shape} by {tuple(axes)}: expected every axis once")
        perm = (0, *(axis + 1 for axis in axes))
        return self._emit("Transpose", [x.name], tuple(x.shape[axis] for axis in axes), {"perm": perm})

    def slice(self, x: Value, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> Value:
        """The part of x between `starts` (included) and `ends` (excluded) on `axes`, all counted from the front."""
        shape = list(x.shape)
        for axis, start, end in zip(axes, starts, ends, strict=True):
            if not 0 <= start < end <= x.shape[axis]:
                raise GraphError(f"Slice {start}:{end} of axis {axis} of {x.shape} is empty or out of range")
            shape[axis] = end - start
        constants = (tuple(starts), tuple(ends), tuple(axis + 1 for axis in axes))
        return self._emit("Slice", [x.name, *(self._integers(part) for part in constants)], tuple(shape))

    def pad(self, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
        """Add zeros before and after each axis of x."""
        shape = tuple(sum(sizes) for sizes in zip(x.shape, before, after, strict=True))
        return self._emit("Pad", [x.name, self._integers((0, *before, 0, *after))], shape)

    # The end

    def build(self, *outputs: Value) -> ModelProto:
        """The finished model with the given outputs.

        Raises:
            GraphError: There is no output, or one that is the network's input.
        """
        if not outputs or self.input in outputs:
            raise GraphError(f"{self._graph.name}: a network needs an output that is not its input")
        names = {output.name for output in outputs}
        for output in outputs:
            self._graph.output.add(name=output.name, type=self._type(output.shape))
        add = self._graph.value_info.add
        for name, shape in self._values.items():
            if name not in names:
                add(name=name, type=self._type(shape))
        return self._model

    # Messages

    def _fresh(self, op: str) -> str:
        return f"{op}_{len(self._values)}"

    def _emit(
        self,
        op: str,
        inputs: list[str],
        shape: Shape,
        attributes: dict[str, _Attribute] | None = None,
        name: str = "",
    ) -> Value:
        name = name or self._fresh(op)
        node = self._graph.node.add(op_type=op, name=name, input=inputs, output=(name,))
        if attributes:
            node.attribute.extend([self._attribute(item) for item in attributes.items()])
        self._values[name] = shape
        return Value(name, shape)

    def _attribute(self, item: tuple[str, _Attribute]) -> AttributeProto:
        known = self._attributes.get(item)
        if known is None:
            name, value = item
            if isinstance(value, tuple):
                known = AttributeProto(name=name, type=AttributeProto.INTS, ints=value)
            elif isinstance(value, float):
                known = AttributeProto(name=name, type=AttributeProto.FLOAT, f=value)
            else:
                known = AttributeProto(name=name, type=AttributeProto.INT, i=value)
            self._attributes[item] = known
        return known

    def _type(self, shape: Shape) -> TypeProto:
        known = self._types.get(shape)
        if known is None:
            known = TypeProto()
            known.tensor_type.elem_type = TensorProto.FLOAT
            known.tensor_type.shape.dim.add(dim_param="batch")
            for size in shape:
                known.tensor_type.shape.dim.add(dim_value=size)
            self._types[shape] = known
        return known

    def _weight(self, name: str, shape: Shape) -> str:
        known = self._tensors.get(shape)
        if known is None:
            known = TensorProto(dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
            known.external_data.add(key="location", value=WEIGHTS_FILE)
            self._tensors[shape] = known
        tensor = self._graph.initializer.add()
        tensor.CopyFrom(known)
        tensor.name = name
        return name

    def _integers(self, values: tuple[int, ...]) -> str:
        name = self._constants.get(values)
        if name is None:
            name = self._constants[values] = f"constant_{len(self._constants)}"
            raw = struct.pack(f"<{len(values)}q", *values)
            self._graph.initializer.add(name=name, dims=(len(values),), data_type=TensorProto.INT64, raw_data=raw)
        return name

    def _scalar(self, value: float) -> str:
        name = self._constants.get(value)
        if name is None:
            name = self._constants[value] = f"constant_{len(self._constants)}"
            self._graph.initializer.add(name=name, data_type=TensorProto.FLOAT, raw_data=struct.pack("<f", value))
        return name

    def _pool(
        self, op: str, x: Value, kernel: int, stride: int, padding: int, attributes: dict[str, _Attribute]
    ) -> Value:
        sizes = self._window(
            op, x, (kernel, kernel), (stride, stride), (padding, padding), ceil="ceil_mode" in attributes
        )
        shape = (self._image(x, op)[0], *sizes)
        attributes = {"kernel_shape": (kernel, kernel), "strides": (stride, stride), **attributes}
        if padding:
            attributes["pads"] = (padding,) * 4
        return self._emit(op, [x.name], shape, attributes)

    def _window(
        self,
        op: str,
        x: Value,
        window: tuple[int, int],
        strides: tuple[int, int],
        padding: tuple[int, int],
        ceil: bool = False,
    ) -> tuple[int, int]:
        height, width = (
            (size + 2 * pad - reach + (step - 1) * ceil) // step + 1
            for size, reach, pad, step in zip(x.shape[1:], window, padding, strides, strict=True)
        )
        if height < 1 or width < 1:
            raise GraphError(f"{op} with a window of {window} and padding {padding} does not fit into {x.shape}")
        return height, width

    def _image(self, x: Value, op: str) -> Shape:
        if len(x.shape) != 3:
            raise GraphError(f"{op} takes a value of shape (C, H, W), got {x.shape}")
        return x.shape


def stored_costs(model: ModelProto) -> tuple[int, int]:
    """Parameters and multiply-accumulates of everything a built file holds, dead branches included.

    Counts like `ArchGraph.params` and `ArchGraph.macs`: learned numbers without running statistics;
    products of convolutions, linear layers and matrix products, at batch size 1.

    Args:
        model: A model from `OnnxBuilder.build`: every value must carry its shape.
    """
    graph = model.graph
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    learned = {t.name: prod(t.dims) for t in graph.initializer if t.data_location == TensorProto.EXTERNAL}
    shapes = {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for values in (graph.input, graph.value_info, graph.output)
        for value in values
    }
    macs = 0
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            for running in node.input[3:5]:
                learned.pop(running, None)
        elif node.op_type == "Conv":
            macs += prod(shapes[node.output[0]]) * prod(dims[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            macs += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return sum(learned.values()), macs


def with_zero_weights(model: ModelProto) -> ModelProto:
    """A copy of a weightless model in which every missing tensor is zeros, so that any ONNX tool can load it."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = bytes(4 * prod(tensor.dims))
    return copy


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _broadcast(op: str, x: Value, y: Value) -> Shape:
    if x.shape == y.shape:
        return x.shape
    if len(x.shape) != len(y.shape) or any(a != b and 1 not in (a, b) for a, b in zip(x.shape, y.shape, strict=True)):
        raise GraphError(f"{op} of {x.shape} and {y.shape}: the shapes do not fit")
    return tuple(map(max, zip(x.shape, y.shape, strict=True)))
