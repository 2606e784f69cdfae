"""Runs an `ArchGraph` in torch with random weights: what a network would compute before any training.

A graph says what is computed but not with which numbers, so weights are drawn: convolutions as He et al. 2015 do,
linear layers with variance 1 / fan-in, biases and other constants neutral. Batch norms are folded into convolutions in
canonical form; a convolution with a bias is taken for one with a batch norm behind it, which at the start of training
scales every channel to mean 0 and variance 1 over the batch. Most networks have them; for others it is a fair start.

The network can run on smaller inputs than it was made for. Where shapes then no longer fit, `UnfitError` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from .errors import GraphError
from .graph import ArchGraph, Node, Shape
from .operators import Kind, kind_of

if TYPE_CHECKING:
    import torch

Watch = Callable[[int, Node, "torch.Tensor"], None]
"""Is told position, node and value: of activations the operand, of everything else the output."""


class UnfitError(GraphError):
    """A graph cannot be run: an operator is not supported, or a shape does not fit."""


class Executable:
    """A graph with weights.

    Args:
        graph: The graph; its inputs must be images or vectors with the batch as first dimension.
        draw: Position of a node and shape of its weight → the weight.

    Attributes:
        inputs: Positions of the inputs.

    Raises:
        UnfitError: An input is no batch of numbers.
    """

    def __init__(self, graph: ArchGraph, draw: Callable[[int, Shape], torch.Tensor]) -> None:
        self.graph, self._draw = graph, draw
        self._weights: dict[int, torch.Tensor] = {}
        self.inputs = tuple(at for at, node in enumerate(graph.nodes) if node.op == "Input")
        for at in self.inputs:
            node = graph.nodes[at]
            if node.attribute("type") == "int" or len(node.shape) < 2 or node.shape[0] != 1:
                raise UnfitError(f"input {at} has the shape {node.shape}, expected numbers with a batch dimension of 1")
        self._last_use = [at for at, _ in enumerate(graph.nodes)]
        for at, node in enumerate(graph.nodes):
            for operand in node.inputs:
                self._last_use[operand] = at

    @classmethod
    def random(cls, graph: ArchGraph, seed: int) -> Executable:
        """The graph with random weights; the same seed gives the same weights."""
        import torch

        generator = torch.Generator().manual_seed(seed)

        def draw(at: int, shape: Shape) -> torch.Tensor:
            weight = torch.randn(shape, generator=generator)
            node = graph.nodes[at]
            if node.op == "Linear":
                return weight / sqrt(max(1, shape[-1 if node.attribute("left") else -2]))
            return weight * sqrt(2 / max(1, prod(shape[1:])))

        return cls(graph, draw)

    def run(self, signals: Sequence[torch.Tensor], watch: Watch | None = None) -> tuple[torch.Tensor, ...]:
        """Outputs for the inputs, in the order of `graph.outputs`.

        Args:
            signals: One tensor per input, (batch, *rest); sizes behind the channels may be smaller than the graph's.
            watch: See `Watch`.

        Raises:
            UnfitError: An operator is not supported, or shapes do not fit.
        """
        nodes, kept = self.graph.nodes, set(self.graph.outputs)
        values: dict[int, torch.Tensor] = dict(zip(self.inputs, signals, strict=True))
        batch = len(signals[0]) if signals else 1
        exact = all(tuple(values[at].shape[1:]) == nodes[at].shape[1:] for at in self.inputs)
        for at, node in enumerate(nodes):
            if node.op == "Input":
                continue
            operands = [values[i] for i in node.inputs]
            try:
                value = self._apply(at, node, operands, batch, exact)
            except UnfitError:
                raise
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                sizes = [tuple(x.shape) for x in operands]
                raise UnfitError(f"node {at} ({node.op}) does not run on {sizes}: {error}") from error
            expected = (node.shape[0] * batch, *node.shape[1:]) if node.shape else ()
            if value.dim() != len(expected) or (exact and tuple(value.shape) != expected):
                raise UnfitError(f"node {at} ({node.op}) gives the shape {tuple(value.shape)}, expected {expected}")
            values[at] = value
            if watch is not None:
                watch(at, node, operands[0] if kind_of(node.op) is Kind.ACTIVATION and operands else value)
            for i in node.inputs:
                if self._last_use[i] == at and i not in kept:
                    values.pop(i, None)
        return tuple(values[at] for at in self.graph.outputs)

    def weight(self, at: int, node: Node) -> torch.Tensor:
        """The weight of a convolution or linear layer, drawn when it is first asked for."""
        home = at if node.tied < 0 else node.tied
        if home not in self._weights:
            self._weights[home] = self._draw(home, self.graph.nodes[home].weights[0])
        return self._weights[home]

    def _apply(self, at: int, node: Node, x: list[torch.Tensor], batch: int, exact: bool) -> torch.Tensor:
        import torch

        if node.op == "Zero":
            return torch.zeros((node.shape[0] * batch, *node.shape[1:]))
        shapes = [self.graph.nodes[i].shape for i in node.inputs]
        match node.op:
            case "Conv" | "ConvTranspose":
                y = _convolved(node, x[0], self.weight(at, node))
                if not node.attribute("bias"):
                    return y
                return torch.nn.functional.batch_norm(y, None, None, training=True)
            case "Linear":
                weight = self.weight(at, node)
                if weight.dim() != 2:
                    raise UnfitError(
                        f"node {at} (Linear) has a weight of shape {tuple(weight.shape)}, expected two axes"
                    )
                return weight @ x[0] if node.attribute("left") else x[0] @ weight
            case "Reshape":
                return _reshaped(x[0], shapes[0], node.shape, batch)
            case "Expand":
                if not exact:
                    return x[0]  # what follows broadcasts
                return x[0].expand((node.shape[0] * batch, *node.shape[1:]))
            case "Concat":
                return _joined(node, x, batch)
            case "Resize" | "Upsample":
                return _resized(node, x[0], shapes[0])
            case "Slice":
                return _sliced(node, x[0], shapes[0])
        function = _functions().get(node.op)
        if function is None:
            raise UnfitError(f"node {at}: the operator {node.op} is not supported")
        return function(node, x)


def _normalised(x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Mean 0 and variance 1 along `axes` (Ioffe and Szegedy 2015, alg. 1, without scale and shift)."""
    import torch

    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def _padded(x: torch.Tensor, pads: Shape, fill: float = 0.0) -> tuple[torch.Tensor, int | Shape]:
    """Padding that torch's windows take themselves, or the signal padded before where the two sides differ."""
    import torch.nn.functional as F  # noqa: N812

    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half] or 0
    around = [size for pair in zip(reversed(pads[:half]), reversed(pads[half:]), strict=True) for size in pair]
    return F.pad(x, around, value=fill), 0


def _convolved(node: Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    import torch.nn.functional as F  # noqa: N812

    rank = weight.dim() - 2
    strides, dilations = node.attribute("strides", 1), node.attribute("dilations", 1)
    group, pads = int(node.attribute("group", 1)), node.attribute("pads", ())
    if not 1 <= rank <= 3:
        raise UnfitError(f"a {node.op} over {rank} axes is not supported")
    if node.op == "Conv":
        x, padding = _padded(x, pads)
        return (F.conv1d, F.conv2d, F.conv3d)[rank - 1](x, weight, None, strides, padding, dilations, group)
    half = len(pads) // 2
    extra = node.attribute("output_padding", 0)
    if pads[:half] != pads[half:]:
        raise UnfitError("a ConvTranspose with unequal padding is not supported")
    functions = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    return functions[rank - 1](x, weight, None, strides, pads[:half] or 0, extra, group, dilations)


def _pooled(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    """Max and average pools; windows that ceil_mode adds at the end are found by padding there."""
    import torch.nn.functional as F  # noqa: N812

    (signal,) = x
    kernel: Shape = node.attribute("kernel_shape")
    rank = len(kernel)
    strides, pads = node.attribute("strides", (1,) * rank), node.attribute("pads", (0,) * (2 * rank))
    if not 1 <= rank <= 3 or node.attribute("auto_pad") is not None:
        raise UnfitError(f"a {node.op} over {rank} axes with these attributes is not supported")
    around = [size for pair in zip(reversed(pads[:rank]), reversed(pads[rank:]), strict=True) for size in pair]
    ceil = bool(node.attribute("ceil_mode", 0))
    if node.op == "MaxPool":
        dilations = node.attribute("dilations", 1)
        signal = F.pad(signal, around, value=float("-inf")) if any(pads) else signal
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1](signal, kernel, strides, 0, dilations, ceil)
    if node.attribute("dilations") is not None:
        raise UnfitError("an AveragePool with dilations is not supported")
    function: Callable[..., torch.Tensor] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    if not any(pads):
        return function(signal, kernel, strides, 0, ceil)
    if node.attribute("count_include_pad"):
        return function(F.pad(signal, around), kernel, strides, 0, ceil)
    if pads[:rank] == pads[rank:]:
        return function(signal, kernel, strides, pads[:rank], ceil, False)
    ones = F.pad(signal.new_ones((1, 1, *signal.shape[2:])), around)
    return function(F.pad(signal, around), kernel, strides, 0, ceil) / function(ones, kernel, strides, 0, ceil)


def _groups(before: Shape, after: Shape) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Cuts two shapes of equal size into runs of equal size, as short as can be: (start, stop) in each."""
    i = j = 0
    while i < len(before) or j < len(after):
        start, first = (i, j), (before[i] if i < len(before) else 1, after[j] if j < len(after) else 1)
        a, b = first
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while a != b:
            if a < b and i < len(before):
                a, i = a * before[i], i + 1
            elif j < len(after):
                b, j = b * after[j], j + 1
            else:
                raise UnfitError(f"the shape {before} does not reshape to {after}")
        if i == len(before):
            j = len(after)
        if j == len(after):
            i = len(before)
        yield (start[0], i), (start[1], j)


def _reshaped(x: torch.Tensor, before: Shape, after: Shape, batch: int) -> torch.Tensor:
    """`before` → `after` for a signal with a batch in its first axis and perhaps other sizes elsewhere."""
    sizes: list[int] = []
    for (i, stop), (j, end) in _groups(before, after):
        real, told, wanted = tuple(x.shape[i:stop]), before[i:stop], list(after[j:end])
        times = batch if i == 0 else 1
        if real == (told[0] * times, *told[1:]) if told else True:
            if wanted:
                wanted[0] *= times
            sizes += wanted
        elif sum(size != 1 for size in wanted) <= 1:
            place = next((at for at, size in enumerate(wanted) if size != 1), 0)
            full = [1] * len(wanted)
            full[place] = prod(real)
            sizes += full
        else:
            raise UnfitError(f"the shape {real} does not reshape to {tuple(wanted)}, as {told} would")
    return x.reshape(sizes)


def _joined(node: Node, x: list[torch.Tensor], batch: int) -> torch.Tensor:
    """Concatenation; constants between the operands (class tokens, dead branches) are 0."""
    import torch

    axis = int(node.attribute("axis", 1))
    slots: tuple[int, ...] = node.attribute("constant_slots", ())
    if not slots:
        return torch.cat(x, axis)
    if len(slots) > 1 or axis == 0:
        raise UnfitError("a Concat with several constants is not supported")
    size = node.shape[axis] - sum(part.shape[axis] for part in x)
    shape = (*x[0].shape[:axis], size, *x[0].shape[axis + 1 :])
    parts = list(x)
    parts.insert(slots[0], x[0].new_zeros(shape))
    return torch.cat(parts, axis)


def _resized(node: Node, x: torch.Tensor, before: Shape) -> torch.Tensor:
    import torch.nn.functional as F  # noqa: N812

    sizes = [max(1, round(n * b / a)) for n, a, b in zip(x.shape[2:], before[2:], node.shape[2:], strict=True)]
    rank = len(sizes)
    modes = {"nearest": "nearest", "linear": ("linear", "bilinear", "trilinear")[rank - 1], "cubic": "bicubic"}
    mode = modes.get(str(node.attribute("mode", "nearest")))
    if mode is None or node.shape[1] != before[1]:
        raise UnfitError(f"a {node.op} of these attributes is not supported")
    return F.interpolate(x, sizes, mode=mode)


def _sliced(node: Node, x: torch.Tensor, before: Shape) -> torch.Tensor:
    axis, start, end = (int(node.attribute(name, 0)) for name in ("axis", "start", "end"))
    if x.shape[axis] != before[axis] and axis > 0:  # a smaller input: keep what is cut off at the end
        end = max(start + 1, x.shape[axis] - (before[axis] - end))
    index = [slice(None)] * x.dim()
    index[axis] = slice(start, end, int(node.attribute("step", 1)))
    return x[tuple(index)]


def _combined(
    function: Callable[[Any, Any], Any], neutral: float
) -> Callable[[Node, list[torch.Tensor]], torch.Tensor]:
    """A binary operator; a constant operand is neutral."""

    def apply(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
        if len(x) == 2:
            found: torch.Tensor = function(x[0], x[1])
        elif node.attribute("constant_slots") == (0,):
            found = function(x[0].new_full((), neutral), x[0])
        else:
            found = function(x[0], x[0].new_full((), neutral))
        return found

    return apply


def _attention(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    """softmax(q kᵀ / √d) v (Vaswani et al. 2017, eq. 1); masks are left out."""
    import torch.nn.functional as F  # noqa: N812

    if len(x) < 3:
        raise UnfitError("an Attention with constant operands is not supported")
    return F.scaled_dot_product_attention(x[0], x[1], x[2])


def _norm_axes(node: Node, x: torch.Tensor) -> tuple[int, ...]:
    axis = int(node.attribute("axis", x.dim() - 1))
    return tuple(range(axis, x.dim()))


def _group_norm(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    (signal,) = x
    groups = int(node.attribute("num_groups", signal.shape[1]))
    parted = signal.reshape(signal.shape[0], groups, -1)
    return _normalised(parted, (2,)).reshape(signal.shape)


def _functions() -> Mapping[str, Callable[[Node, list[torch.Tensor]], torch.Tensor]]:
    if not _FUNCTIONS:
        _FUNCTIONS.update(_make_functions())
    return _FUNCTIONS


_FUNCTIONS: dict[str, Callable[[Node, list[Any]], Any]] = {}


def _make_functions() -> dict[str, Callable[[Node, list[Any]], Any]]:
    import torch
    import torch.nn.functional as F  # noqa: N812

    def plain(function: Callable[..., Any]) -> Callable[[Node, list[Any]], Any]:
        return lambda node, x: function(x[0])

    def along(function: Callable[..., Any]) -> Callable[[Node, list[Any]], Any]:
        return lambda node, x: function(x[0], node.attribute("axis", -1))

    def over(function: Callable[..., Any]) -> Callable[[Node, list[Any]], Any]:
        return lambda node, x: function(x[0], node.attribute("axes", tuple(range(1, x[0].dim()))), keepdim=True)

    def behind_channels(function: Callable[..., Any]) -> Callable[[Node, list[Any]], Any]:
        return lambda node, x: function(x[0], tuple(range(2, x[0].dim())), keepdim=True)

    def clipped(node: Node, x: list[Any]) -> Any:
        return torch.clamp(x[0], node.attribute("min"), node.attribute("max"))

    def padded(node: Node, x: list[Any]) -> Any:
        pads, rank = node.attribute("pads"), x[0].dim()
        around = [size for pair in zip(reversed(pads[:rank]), reversed(pads[rank:]), strict=True) for size in pair]
        mode, fill = node.attribute("mode", "constant"), node.attribute("fill", 0.0)
        if mode == "constant":
            return F.pad(x[0], around, value=fill)
        return F.pad(x[0], around[: 2 * (rank - 2)], mode={"edge": "replicate", "wrap": "circular"}.get(mode, mode))

    def to_space(node: Node, x: list[Any]) -> Any:
        return F.pixel_shuffle(x[0], int(node.attribute("blocksize")))

    def to_depth(node: Node, x: list[Any]) -> Any:
        return F.pixel_unshuffle(x[0], int(node.attribute("blocksize")))

    def gathered(node: Node, x: list[Any]) -> Any:
        if len(x) != 1 or not node.weights or len(node.weights[0]) != 1:
            raise UnfitError("a Gather of other than constant indices is not supported")
        axis = int(node.attribute("axis", 0))
        return x[0].narrow(axis, 0, node.weights[0][0])

    def root_mean_square(node: Node, x: list[Any]) -> Any:
        return x[0] * torch.rsqrt(x[0].square().mean(_norm_axes(node, x[0]), keepdim=True) + 1e-5)

    def total(node: Node, x: list[Any]) -> Any:
        return sum(x[1:], x[0]) / (len(x) if node.op == "Mean" else 1)

    unary: dict[str, Callable[..., Any]] = {
        "Relu": F.relu,
        "Relu6": F.relu6,
        "Selu": F.selu,
        "Gelu": F.gelu,
        "Silu": F.silu,
        "Swish": F.silu,
        "QuickGelu": lambda x: x * torch.sigmoid(1.702 * x),
        "Mish": F.mish,
        "HardSwish": F.hardswish,
        "HardSigmoid": F.hardsigmoid,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "Softplus": F.softplus,
        "Softsign": F.softsign,
        "Erf": torch.erf,
        "PRelu": lambda x: F.leaky_relu(x, 0.25),
        "Abs": torch.abs,
        "Exp": torch.exp,
        "Log": torch.log,
        "Sqrt": lambda x: torch.sqrt(x.clamp_min(1e-12)),
        "Neg": torch.neg,
        "Reciprocal": torch.reciprocal,
        "Sin": torch.sin,
        "Cos": torch.cos,
        "Identity": lambda x: x,
        "Dropout": lambda x: x,
        "Cast": lambda x: x,
        "BatchNormalization": lambda x: F.batch_norm(x, None, None, training=True),
        "InstanceNormalization": lambda x: _normalised(x, tuple(range(2, x.dim()))),
    }
    return {
        **{name: plain(function) for name, function in unary.items()},
        "LeakyRelu": lambda node, x: F.leaky_relu(x[0], float(node.attribute("alpha", 0.01))),
        "Elu": lambda node, x: F.elu(x[0], float(node.attribute("alpha", 1.0))),
        "Celu": lambda node, x: F.celu(x[0], float(node.attribute("alpha", 1.0))),
        "Clip": clipped,
        "Softmax": along(torch.softmax),
        "LogSoftmax": along(torch.log_softmax),
        "LayerNormalization": lambda node, x: _normalised(x[0], _norm_axes(node, x[0])),
        "RMSNormalization": root_mean_square,
        "GroupNormalization": _group_norm,
        "LpNormalization": lambda node, x: F.normalize(x[0], dim=int(node.attribute("axis", -1))),
        "LRN": lambda node, x: F.local_response_norm(x[0], int(node.attribute("size", 5))),
        "MaxPool": _pooled,
        "AveragePool": _pooled,
        "GlobalAveragePool": behind_channels(torch.mean),
        "GlobalMaxPool": behind_channels(torch.amax),
        "ReduceMean": over(torch.mean),
        "ReduceSum": over(torch.sum),
        "ReduceMax": over(torch.amax),
        "ReduceMin": over(torch.amin),
        "ReduceL2": over(lambda x, axes, keepdim: torch.linalg.vector_norm(x, dim=axes, keepdim=keepdim)),
        "ReduceL1": over(lambda x, axes, keepdim: x.abs().sum(axes, keepdim)),
        "ReduceSumSquare": over(lambda x, axes, keepdim: x.square().sum(axes, keepdim)),
        "Add": _combined(torch.add, 0.0),
        "Sub": _combined(torch.sub, 0.0),
        "Mul": _combined(torch.mul, 1.0),
        "Div": _combined(torch.div, 1.0),
        "Pow": _combined(torch.pow, 2.0),
        "Max": _combined(torch.maximum, float("-inf")),
        "Min": _combined(torch.minimum, float("inf")),
        "Sum": total,
        "Mean": total,
        "MatMul": lambda node, x: x[0] @ x[1],
        "Attention": _attention,
        "Einsum": lambda node, x: torch.einsum(str(node.attribute("equation")), *x),
        "Transpose": lambda node, x: x[0].permute(node.attribute("perm")),
        "Squeeze": lambda node, x: x[0].reshape(-1, *node.shape[1:]),
        "Unsqueeze": lambda node, x: x[0].reshape(-1, *node.shape[1:]),
        "Flatten": lambda node, x: x[0].reshape(x[0].shape[0], -1),
        "Pad": padded,
        "DepthToSpace": to_space,
        "SpaceToDepth": to_depth,
        "Gather": gathered,
    }
