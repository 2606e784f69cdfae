"""einspace: networks from a probabilistic grammar of branching, merging, routing and computation, by definition only.

L. Ericsson, M. Espinosa, C. Yang, A. Antoniou, A. Storkey, S. B. Cohen, S. McDonagh, E. J. Crowley, "einspace:
Searching for Neural Architectures from Fundamental Operations", NeurIPS 2024, sec. 3; operations, shapes and the head
of the network as in the official code.

The official code keeps a derivation as nested dictionaries. A spec here is the same tree as text, with the code's names
and no spaces, the parts of a module in the order of the code's dictionary:

    module  = sequential_module(module,module)
            | branching_module(branching,module,module,merging)   two branches
            | branching_module(branching,module,merging)          four or eight branches, each with weights of its own
            | routing_module(routing,module,routing)
            | computation_module(computation)

for example `sequential_module(routing_module(im2col3k1s1p,computation_module(linear64),col2im),...)`. The outermost
module is no computation_module. A value is an image (C, H, W) or, after im2col, a matrix (patches, features); col2im
gives it back the height and width that the closest im2col in force left. Which operations fit depends on the shapes, so
a spec may fit one input and not another; `build` refuses one that does not fit.

What differs from the official code: a merging must fit the number of branches of its own branching (there, one that
follows a nested branching may escape that check); a split is allowed wherever its axis is divisible; values are limited
to `MAX_ELEMENTS` and networks to `MAX_OPERATIONS`, so that no network is beyond use; im2col with overlapping windows is
written as slices and a concatenation, and, as in the code, im2col, a linear layer and col2im together as a convolution.
archgauge has no labels of these networks.
"""

from __future__ import annotations

import re
from math import prod
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task
from .space import check_count
from .unlabelled import no_labels, shown

TASKS = ("cifar10", "cifar100")
SIZE = 100_000
"""Specs that `sample` gives at most."""
COMPUTATION_SHARE = 0.32
"""How often a module is a computation_module when `sample` draws it (Ericsson et al. 2024, sec. 3.4)."""
MAX_DEPTH = 100
"""Modules within modules that a spec may have."""
SAMPLE_DEPTH = 10
"""Modules within modules that `sample` draws; at this depth it takes computation modules only."""
MAX_ELEMENTS = 2**22
"""Numbers that any value of a network may have per sample, and any weight."""
MAX_OPERATIONS = 1000
"""Operations that a network may have, repeated branches counted each."""

_NAME = "einspace"
_CLASSES = {"cifar10": 10, "cifar100": 100}
_INPUT = (3, 32, 32)
_BRANCHES = (2, 4, 8)
_PERMUTATIONS = {
    f"permute{axes}": tuple(int(axis) - 1 for axis in axes) for axes in ("132", "213", "231", "312", "321")
}
_IM2COL = re.compile(r"im2col([0-9]+)k([0-9]+)s([01])p")
_GROUP = re.compile(r"group_dim([248])s([123])d")
_CAT = re.compile(r"cat_tensors([123])d([248])t")

_BRANCHINGS = (
    *(f"clone_tensor{n}" for n in _BRANCHES),
    *(f"group_dim{n}s{axis}d" for n in _BRANCHES for axis in (1, 2, 3)),
)
_MERGINGS = (
    "dot_product",
    "scaled_dot_product",
    "add_tensors",
    *(f"cat_tensors{axis}d{n}t" for n in _BRANCHES for axis in (1, 2, 3)),
)
_BOTH_WAYS = ("identity", "permute21", *_PERMUTATIONS)
_BEFORE = (
    *_BOTH_WAYS,
    "im2col1k1s0p",
    "im2col1k2s0p",
    "im2col3k1s1p",
    "im2col3k2s1p",
    "im2col4k4s0p",
    "im2col8k8s0p",
    "im2col16k16s0p",
)
_AFTER = (*_BOTH_WAYS, "col2im")
_COMPUTATIONS = (
    "identity",
    *(f"linear{2**power}" for power in range(4, 12)),
    "norm",
    "leakyrelu",
    "softmax",
    "learnable_positional_encoding",
)
OPERATIONS = {"branching": _BRANCHINGS, "merging": _MERGINGS, "before": _BEFORE, "after": _AFTER}
"""Operations by their place; `before` and `after` are the two routings of a routing_module."""
_MODULES = ("sequential_module", "branching_module", "routing_module", "computation_module")

Window = tuple[int, int] | None


class Module(NamedTuple):
    """A module of a derivation.

    Attributes:
        kind: `sequential_module`, `branching_module`, `routing_module` or `computation_module`.
        parts: Its operations (text) and modules, in the order of the spec.
    """

    kind: str
    parts: tuple[str | Module, ...]


class _MisfitError(Exception):
    """An operation does not fit the shape of its input."""


def parse(spec: str) -> Module:
    """The derivation of a spec; whether its shapes fit is seen when it is built.

    Raises:
        DataError: It is no derivation of the grammar.
    """
    module, end = _parse_module(spec, 0, 0, _MODULES[:-1])
    if end != len(spec):
        raise _wrong(spec, end, "the end")
    return module


def spec_of(module: Module) -> str:
    """The spec of a derivation."""
    parts = (part if isinstance(part, str) else spec_of(part) for part in module.parts)
    return f"{module.kind}({','.join(parts)})"


def build(spec: str, task: str) -> ModelProto:
    """The network of a derivation, input 3x32x32, with the mean over pixels (or features) and a linear layer behind.

    Raises:
        DataError: The spec or the task does not exist, or an operation does not fit its input.
    """
    check_task(task, TASKS, _NAME)
    network = parse(spec)
    b = _Builder(spec[:200], _INPUT)
    try:
        x = _apply(b, network, b.input, None)
    except _MisfitError as error:
        raise DataError(f"{_NAME} network {shown(spec)} does not fit the input {_INPUT}: {error}") from error
    return b.build(b.linear(b.mean_of_rest(x), _CLASSES[task]))


read_labels = no_labels(_NAME, TASKS)


def sample(n: int, seed: int, depth: int = SAMPLE_DEPTH) -> list[str]:
    """Draw `n` different specs that fit the input 3x32x32, as the paper does; the same for the same seed.

    A module is a computation_module with the probability `COMPUTATION_SHARE` and each of the others alike often; every
    operation that fits is alike likely. Where nothing fits, and above the limits of this module, the whole network is
    drawn again; the official code steps back by one choice instead.

    Args:
        n: Number of specs.
        seed: Seed of the draw.
        depth: Modules within modules, 1 to `MAX_DEPTH`.

    Raises:
        DataError: n is negative or above 100,000, or depth is out of range.
    """
    check_count(n, SIZE, _NAME)
    if not 1 <= depth <= MAX_DEPTH:
        raise DataError(f"{_NAME}: cannot sample with {depth} modules within modules, expected 1 to {MAX_DEPTH}")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        b = _Builder("sample", _INPUT)
        try:
            module, _ = _draw(rng, b, b.input, None, 0, depth)
        except _MisfitError:
            continue
        found[spec_of(module)] = None
    return list(found)


class _Builder(OnnxBuilder):
    """Counts operations against the limits, and knows strides and means that the plain builder does not."""

    operations = 0

    def strided(self, x: Value, starts: tuple[int, int], ends: tuple[int, int], step: int) -> Value:
        """Every `step`-th pixel of an image between starts and ends."""
        shape = tuple((end - start - 1) // step + 1 for start, end in zip(starts, ends, strict=True))
        constants = (starts, ends, (2, 3), (step, step))
        inputs = [x.name, *(self._integers(part) for part in constants)]
        return self._emit("Slice", inputs, (x.shape[0], *shape))

    def mean_of_rest(self, x: Value) -> Value:
        """The mean over all axes but the first: (C,) of an image, (patches,) of a matrix."""
        axes = tuple(range(2, len(x.shape) + 1))
        return self._emit("ReduceMean", [x.name, self._integers(axes)], x.shape[:1], {"keepdims": 0})

    def checked(self, x: Value) -> Value:
        """x, counted.

        Raises:
            _MisfitError: It is beyond the limits.
        """
        self.operations += 1
        if self.operations > MAX_OPERATIONS:
            raise _MisfitError(f"more than {MAX_OPERATIONS:,} operations")
        if prod(x.shape) > MAX_ELEMENTS:
            raise _MisfitError(f"a value of {x.shape}, more than {MAX_ELEMENTS:,} numbers")
        return x


# --- reading a spec ---


def _parse_module(spec: str, at: int, depth: int, kinds: tuple[str, ...]) -> tuple[Module, int]:
    if depth > MAX_DEPTH:
        raise DataError(f"{_NAME} network {shown(spec)}: more than {MAX_DEPTH} modules within modules")
    kind = next((name for name in kinds if spec.startswith(f"{name}(", at)), None)
    if kind is None:
        raise _wrong(spec, at, " or ".join(f"{name}(" for name in kinds))
    at += len(kind) + 1
    places: tuple[str, ...]
    match kind:
        case "sequential_module":
            places = ("module", "module")
        case "routing_module":
            places = ("before", "module", "after")
        case "computation_module":
            places = ("computation",)
        case _:
            branching, _ = _parse_operation(spec, at, _BRANCHINGS)
            places = ("branching", *("module",) * (2 if _branches(branching) == 2 else 1), "merging")
    parts: list[str | Module] = []
    for number, place in enumerate(places):
        if number:
            at = _expect(spec, at, ",")
        if place == "module":
            module, at = _parse_module(spec, at, depth + 1, _MODULES)
            parts.append(module)
        else:
            allowed = OPERATIONS.get(place, _COMPUTATIONS)
            operation, at = _parse_operation(spec, at, allowed)
            parts.append(operation)
    return Module(kind, tuple(parts)), _expect(spec, at, ")")


def _parse_operation(spec: str, at: int, allowed: tuple[str, ...]) -> tuple[str, int]:
    end = at
    while end < len(spec) and spec[end] not in "(),":
        end += 1
    if spec[at:end] not in allowed:
        raise _wrong(spec, at, f"one of {', '.join(allowed)}")
    return spec[at:end], end


def _expect(spec: str, at: int, wanted: str) -> int:
    if not spec.startswith(wanted, at):
        raise _wrong(spec, at, repr(wanted))
    return at + 1


def _wrong(spec: str, at: int, expected: str) -> DataError:
    got = repr(spec[at : at + 40]) if at < len(spec) else "the end"
    return DataError(f"{_NAME} network {shown(spec)}, character {at}: expected {expected}, got {got}")


# --- building ---


def _branches(branching: str) -> int:
    match = _GROUP.fullmatch(branching)
    return int(match[1]) if match else int(branching.removeprefix("clone_tensor"))


def _apply(b: _Builder, module: Module, x: Value, window: Window) -> Value:
    """The module's value for x; `window`: height and width that the closest im2col in force left, None without one."""
    match module.kind, module.parts:
        case "sequential_module", (Module() as first, Module() as second):
            return _apply(b, second, _apply(b, first, x, window), window)
        case "routing_module", (str(before), Module() as inner, str(after)):
            if _is_convolution(before, inner, after):
                return _convolution(b, before, inner, x)
            y, left = _route(b, before, x, window)
            return _route(b, after, _apply(b, inner, y, window), left)[0]
        case "branching_module", (str(branching), *inner, str(merging)):
            ways = _split(b, branching, x)
            chosen = [part for part in inner if isinstance(part, Module)] * (len(ways) // len(inner))
            return _merge(b, merging, [_apply(b, part, way, window) for part, way in zip(chosen, ways, strict=True)])
        case _:
            return _compute(b, str(module.parts[0]), x)


def _may_split(branching: str, x: Value) -> bool:
    match = _GROUP.fullmatch(branching)
    return match is None or (int(match[2]) <= len(x.shape) and x.shape[int(match[2]) - 1] % int(match[1]) == 0)


def _split(b: _Builder, branching: str, x: Value) -> list[Value]:
    if not _may_split(branching, x):
        raise _MisfitError(f"{branching} of {x.shape}")
    count = _branches(branching)
    match = _GROUP.fullmatch(branching)
    if match is None:
        return [x] * count
    axis = int(match[2]) - 1
    size = x.shape[axis] // count
    return [b.checked(b.slice(x, (axis,), (size * at,), (size * (at + 1),))) for at in range(count)]


def _may_merge(merging: str, shapes: list[tuple[int, ...]]) -> bool:
    if len({len(shape) for shape in shapes}) != 1:
        return False
    if match := _CAT.fullmatch(merging):
        axis = int(match[1]) - 1
        same = len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) == 1
        return int(match[2]) == len(shapes) and axis < len(shapes[0]) and same
    if merging == "add_tensors":
        return len(set(shapes)) == 1
    first, second = shapes[0], shapes[1]
    return len(shapes) == 2 and first[:-2] == second[:-2] and first[-1] == second[-2]


def _merge(b: _Builder, merging: str, values: list[Value]) -> Value:
    shapes = [value.shape for value in values]
    if not _may_merge(merging, shapes):
        raise _MisfitError(f"{merging} of {' and '.join(map(str, shapes))}")
    if match := _CAT.fullmatch(merging):
        return b.checked(b.concat(values, int(match[1]) - 1))
    if merging == "add_tensors":
        return b.checked(b.add(values[0], values[1], *values[2:]))
    product = b.checked(b.matmul(values[0], values[1]))
    return b.scale(product, shapes[0][-1] ** -0.5) if merging == "scaled_dot_product" else product


def _may_route(routing: str, x: Value, window: Window) -> bool:
    image = len(x.shape) == 3
    if routing == "col2im":
        return not image and window is not None and prod(x.shape) % prod(window) == 0
    if match := _IM2COL.fullmatch(routing):
        return image and min(x.shape[1:]) >= int(match[1])
    return routing == "identity" or image == (routing in _PERMUTATIONS)


def _route(b: _Builder, routing: str, x: Value, window: Window) -> tuple[Value, Window]:
    """The value of a routing, and the window in force for a col2im after it."""
    if not _may_route(routing, x, window):
        raise _MisfitError(f"{routing} of {x.shape}")
    if routing == "identity":
        return x, window
    if routing == "col2im" and window is not None:
        turned = b.transpose(x, (1, 0))
        return b.checked(b.reshape(turned, (prod(x.shape) // prod(window), *window))), window
    if match := _IM2COL.fullmatch(routing):
        kernel, stride, padding = map(int, match.groups())
        return _unfold(b, x, kernel, stride, padding)
    return b.checked(b.transpose(x, _PERMUTATIONS.get(routing, (1, 0)))), window


def _unfold(b: _Builder, x: Value, kernel: int, stride: int, padding: int) -> tuple[Value, Window]:
    """All windows of an image as the rows of a matrix (places, C * kernel * kernel), and their number each way."""
    channels, height, width = x.shape
    rows, columns = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    if channels * kernel * kernel * rows * columns > MAX_ELEMENTS:
        raise _MisfitError(f"im2col with a kernel of {kernel} of {x.shape}, more than {MAX_ELEMENTS:,} numbers")
    if kernel == stride and not padding:
        if (rows * kernel, columns * kernel) != (height, width):
            x = b.slice(x, (1, 2), (0, 0), (rows * kernel, columns * kernel))
        y = b.reshape(x, (channels, rows, kernel, columns, kernel))
        y = b.transpose(y, (1, 3, 0, 2, 4))
        return b.checked(b.reshape(y, (rows * columns, channels * kernel * kernel))), (rows, columns)
    if padding:
        x = b.pad(x, (0, padding, padding), (0, padding, padding))
    places = []
    for top in range(kernel):
        for left in range(kernel):
            ends = (top + (rows - 1) * stride + 1, left + (columns - 1) * stride + 1)
            place = b.strided(x, (top, left), ends, stride)
            places.append(b.reshape(place, (channels, 1, rows * columns)))
    y = places[0] if len(places) == 1 else b.concat(places, 1)
    y = b.reshape(y, (channels * kernel * kernel, rows * columns))
    return b.checked(b.transpose(y, (1, 0))), (rows, columns)


def _is_convolution(before: str, inner: Module, after: str) -> bool:
    linear = inner.kind == "computation_module" and str(inner.parts[0]).startswith("linear")
    return before.startswith("im2col") and after == "col2im" and linear


def _convolution(b: _Builder, before: str, inner: Module, x: Value) -> Value:
    match = _IM2COL.fullmatch(before)
    if match is None or len(x.shape) != 3 or min(x.shape[1:]) < int(match[1]):
        raise _MisfitError(f"{before} of {x.shape}")
    kernel, stride, padding = map(int, match.groups())
    channels = int(str(inner.parts[0]).removeprefix("linear"))
    if x.shape[0] * kernel * kernel * channels > MAX_ELEMENTS:
        raise _MisfitError(f"a convolution of {x.shape} to {channels} channels, more than {MAX_ELEMENTS:,} weights")
    y = b.conv(x, channels, kernel=kernel, stride=stride, padding=padding, bias=True)
    return b.checked(y)


def _compute(b: _Builder, computation: str, x: Value) -> Value:
    match computation:
        case "identity":
            return x
        case "norm":
            return b.checked(b.batch_norm(x) if len(x.shape) == 3 else b.layer_norm(x))
        case "leakyrelu":
            return b.checked(b.activation(x, "LeakyRelu"))
        case "softmax":
            return b.checked(b.softmax(x))
        case "learnable_positional_encoding":
            return b.checked(b.add_parameter(x, x.shape))
    features = int(computation.removeprefix("linear"))
    if x.shape[-1] * features > MAX_ELEMENTS:
        raise _MisfitError(f"{computation} of {x.shape}, more than {MAX_ELEMENTS:,} weights")
    return b.checked(b.linear(x, features))


# --- sampling ---


def _draw(
    rng: np.random.Generator, b: _Builder, x: Value, window: Window, depth: int, most: int
) -> tuple[Module, Value]:
    """A random module for x, and its value."""
    share = 0.0 if depth == 0 else 1.0 if depth >= most else COMPUTATION_SHARE
    others = (1 - share) / 3
    kind = str(rng.choice(_MODULES, p=(others, others, others, share)))
    match kind:
        case "sequential_module":
            first, y = _draw(rng, b, x, window, depth + 1, most)
            second, y = _draw(rng, b, y, window, depth + 1, most)
            return Module(kind, (first, second)), y
        case "routing_module":
            before = _choose(rng, [name for name in _BEFORE if _may_route(name, x, window)])
            y, left = _route(b, before, x, window)
            inner, y = _draw(rng, b, y, window, depth + 1, most)
            after = _choose(rng, [name for name in _AFTER if _may_route(name, y, left)])
            return Module(kind, (before, inner, after)), _route(b, after, y, left)[0]
        case "branching_module":
            branching = _choose(rng, [name for name in _BRANCHINGS if _may_split(name, x)])
            ways = _split(b, branching, x)
            drawn = [_draw(rng, b, way, window, depth + 1, most) for way in ways[: 2 if len(ways) == 2 else 1]]
            modules, values = [module for module, _ in drawn], [value for _, value in drawn]
            values += [_apply(b, modules[0], way, window) for way in ways[len(drawn) :]]
            merging = _choose(rng, [name for name in _MERGINGS if _may_merge(name, [v.shape for v in values])])
            return Module(kind, (branching, *modules, merging)), _merge(b, merging, values)
        case _:
            computation = _choose(rng, list(_COMPUTATIONS))
            return Module(kind, (computation,)), _compute(b, computation, x)


def _choose(rng: np.random.Generator, names: list[str]) -> str:
    if not names:
        raise _MisfitError("nothing fits")
    return str(rng.choice(names))
