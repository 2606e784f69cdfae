"""HiAML, Inception and Two-Path: the families that GENNAPE was tested on, by definition only.

K. G. Mills, F. X. Han, J. Zhang, F. Chudak, A. S. Mamaghani, M. Salameh, W. Lu, S. Jui, D. Niu, "GENNAPE: Towards
Generalized Neural Architecture Performance Estimators", AAAI 2023. The paper names the families; blocks, operations,
widths and the rules of sampling follow the code that the authors published with it (`model_src/search_space`).

A spec is the configuration that this code saves, as JSON without spaces:

* HiAML: four blocks, one a stage: `["hiaml_z","hiaml_a22","hiaml_src0","hiaml_t31"]` (14 blocks, 38,416 networks).
* Two-Path: `{"path1":[{"op_names":["conv3x3"],"op_types":["conv"]},...],"path2":[...],"path1_reduce_inds":[0,2],
  "path2_reduce_inds":[0,1]}`.
* Inception: `{"stages":[{"block":{"paths":[{"ops":["conv3x3"],"op_types":["conv"],"C_internal":32,"C_out":32}]},
  "n_blocks":2,"C_in":32,"C_out":32,"stride":1},...]}`.

Assumed: the zeros around an image stand on both sides alike, as in the torch version of that code (its TensorFlow
version, from which GENNAPE's graphs were taken, puts the odd one last), and average pooling leaves them out of the
mean. GENNAPE's labels are published as pickled graphs on a drive; archgauge does not read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_task, parse_json
from .space import Space, check_count
from .unlabelled import no_labels, shown

TASKS = ("cifar10",)
FAMILIES = ("hiaml", "inception", "two_path")

_NAME = "GENNAPE family"
_SIZES = {"hiaml": 14**4, "inception": 100_000, "two_path": 100_000}
_CLASSES = 10


class Step(NamedTuple):
    """An operation inside a HiAML block.

    Attributes:
        operation: `conv3x3`, `conv1x1` or `inception_s`.
        inputs: Places of its operands, which are added; 0 is the block's input, 1 the first step.
        relu: Whether a ReLU follows the batch norm (inception_s has its own).
        widens: Whether it takes the block's stride and output width; the others keep the shape.
    """

    operation: str
    inputs: tuple[int, ...]
    relu: bool = False
    widens: bool = False


class Block(NamedTuple):
    """A HiAML block: its steps, and the places whose values are added for its output."""

    steps: tuple[Step, ...]
    output: tuple[int, ...]


def _block(output: tuple[int, ...], *steps: tuple[str, tuple[int, ...], str]) -> Block:
    return Block(tuple(Step(op, inputs, "r" in flags, "w" in flags) for op, inputs, flags in steps), output)


HIAML_BLOCKS = {
    "hiaml_z": _block((1, 2), ("conv3x3", (0,), "rw"), ("inception_s", (1,), "")),
    "hiaml_a22": _block((1, 3), ("conv3x3", (0,), "rw"), ("conv1x1", (1,), "r"), ("conv1x1", (2,), "")),
    "hiaml_b23": _block((0, 2), ("inception_s", (0,), "w"), ("inception_s", (1,), "")),
    "hiaml_j30": _block((0, 2), ("conv3x3", (0,), "rw"), ("inception_s", (1,), "")),
    "hiaml_g30": _block((1, 3), ("inception_s", (0,), "w"), ("inception_s", (0, 1), ""), ("conv1x1", (2,), "")),
    "hiaml_r30": _block((0, 2, 3), ("inception_s", (0,), "w"), ("conv1x1", (0, 1), ""), ("inception_s", (1,), "")),
    "hiaml_l20": _block((2,), ("conv3x3", (0,), "rw"), ("conv1x1", (1,), "")),
    "hiaml_t20": _block((1, 2), ("conv1x1", (0,), "w"), ("inception_s", (0,), "w")),
    "hiaml_t31": _block((0, 2, 3), ("inception_s", (0,), "w"), ("conv1x1", (1,), "r"), ("inception_s", (0, 2), "")),
    "hiaml_src0": _block((1, 3), ("conv1x1", (0,), "rw"), ("conv3x3", (1,), "r"), ("conv3x3", (2,), "")),
    "hiaml_src1": _block((1, 3), ("conv1x1", (0,), "rw"), ("conv3x3", (0,), "r"), ("conv3x3", (2,), "w")),
    "hiaml_src3": _block(
        (1, 4), ("conv1x1", (0,), "w"), ("conv1x1", (0,), "r"), ("conv3x3", (2,), "rw"), ("conv1x1", (3,), "")
    ),
    "hiaml_src7": _block((1, 3), ("conv1x1", (0,), "w"), ("inception_s", (1,), ""), ("inception_s", (2,), "")),
    "hiaml_src8": _block((1, 3), ("conv1x1", (0,), "w"), ("inception_s", (1,), ""), ("conv1x1", (2,), "")),
}
"""The blocks of HiAML. Where a sum takes the block's input and its shape differs, a 1x1 convolution projects it."""

TWO_PATH_OPERATIONS = {
    "conv": (
        "conv3x3",
        "double3x3",
        "conv5x5",
        "bottleneck-r2-k3",
        "bottleneck-r4-k3",
        "bottleneck-e2-k3",
        "inception_s3x3",
        "inception_s5x5",
    ),
    "supp": ("conv1x1", "bottleneck-r2-k1", "bottleneck-e2-k1", "avgpool3x3", "maxpool3x3"),
}
INCEPTION_OPERATIONS = {
    "conv": (
        "conv3x3",
        "inception_s3x3",
        "inception_p3x3",
        "depthwise3x3",
        "conv5x5",
        "depthwise5x5",
        "inception_s5x5",
        "inception_p5x5",
    ),
    "supp": ("conv1x1", "avgpool3x3", "maxpool3x3", "double1x1"),
}
_STAGES = 4
_PATH_BLOCKS = (2, 3, 4)
_BLOCK_STEPS = (1, 2, 3)
_REDUCTIONS = 2
_STEM_WIDTH = 32
_NARROWEST = 16
_STAGE_BLOCKS = (2, 3, 4, 5, 6)
_PATH_LIMITS = {1: (1, 3), 2: (1, 4), 3: (2, 8), 4: (2, 10)}  # paths: fewest operations a path, most a block
_CHANGES = ((0.5, 0.3), (1.0, 0.6), (2.0, 0.1))  # inner width of a path over its outer width, and how often


def parse(spec: str) -> tuple[str, Any]:
    """The family of a spec (`hiaml`, `two_path` or `inception`) and its configuration as read from JSON.

    Raises:
        DataError: It is a network of none of the families, or not written as `spec_of` writes it.
    """
    where = f"{_NAME} network {shown(spec)}"
    content = parse_json(spec, where)
    if isinstance(content, list):
        family, check = "hiaml", _check_hiaml
    elif isinstance(content, dict) and "stages" in content:
        family, check = "inception", _check_inception
    else:
        family, check = "two_path", _check_two_path
    check(content, where)
    if not _whole(content) or spec_of((family, content)) != spec:
        raise DataError(f"{where}: expected whole numbers, no spaces and the order of keys of {shown(_order(content))}")
    return family, content


def spec_of(network: tuple[str, Any]) -> str:
    """The spec of a family and its configuration."""
    return _order(network[1])


def build(spec: str, task: str) -> ModelProto:
    """The network, input 3x32x32.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, _NAME)
    family, content = parse(spec)
    b = _Builder(spec[:200], (3, 32, 32))
    features: dict[str, Callable[[_Builder, Any], Value]] = {
        "hiaml": _hiaml,
        "two_path": _two_path,
        "inception": _inception,
    }
    x = features[family](b, content)
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES))


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a family by the rules of the published samplers; the same for the same seed.

    Raises:
        DataError: n is negative or above 38,416 (HiAML) or 100,000, or the space does not exist.
    """
    check_space(space, FAMILIES, _NAME)
    check_count(n, _SIZES[space], f"{_NAME} {space}")
    rng = np.random.default_rng(seed)
    if space == "hiaml":
        names = list(HIAML_BLOCKS)
        chosen = rng.choice(len(names) ** _STAGES, n, replace=False)
        places = [np.unravel_index(at, (len(names),) * _STAGES) for at in chosen]
        return [_order([names[int(stage)] for stage in place]) for place in places]
    draw = _draw_inception if space == "inception" else _draw_two_path
    found: dict[str, None] = {}
    while len(found) < n:
        found[_order(draw(rng))] = None
    return list(found)


class _Builder(OnnxBuilder):
    def conv_bn(
        self,
        x: Value,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        *,
        activation: str = "",
        bias: bool = False,
    ) -> Value:
        """Convolution, batch norm and perhaps an activation."""
        y = self.batch_norm(self.conv(x, channels, kernel=kernel, stride=stride, bias=bias))
        return self.activation(y, activation) if activation else y

    def line(self, x: Value, channels: int, kernel: int, stride: int, vertical: bool) -> Value:
        """A convolution with bias and batch norm over one axis, of kernel and stride on that axis only."""
        pair, strides = ((kernel, 1), (stride, 1)) if vertical else ((1, kernel), (1, stride))
        return self.batch_norm(self.conv(x, channels, kernel=pair, stride=strides, bias=True))


def _order(content: Any) -> str:
    """A configuration as text, its keys in the order of the published code."""
    if isinstance(content, dict):
        keys = [key for key in _KEYS if key in content] + [key for key in content if key not in _KEYS]
        return "{" + ",".join(f"{json.dumps(key)}:{_order(content[key])}" for key in keys) + "}"
    if isinstance(content, list):
        return "[" + ",".join(map(_order, content)) + "]"
    return json.dumps(content)


def _whole(content: Any) -> bool:
    """Whether all numbers in a checked configuration are whole, true and false not being numbers."""
    if isinstance(content, dict | list):
        return all(map(_whole, content.values() if isinstance(content, dict) else content))
    return type(content) in (int, str)


_KEYS = (
    "path1",
    "path2",
    "path1_reduce_inds",
    "path2_reduce_inds",
    "op_names",
    "stages",
    "block",
    "n_blocks",
    "C_in",
    "paths",
    "ops",
    "op_types",
    "C_internal",
    "C_out",
    "stride",
)


# --- HiAML ---


def _check_hiaml(content: Any, where: str) -> None:
    if len(content) != _STAGES or any(name not in list(HIAML_BLOCKS) for name in content):
        raise DataError(f"{where}: expected a list of {_STAGES} blocks out of {', '.join(HIAML_BLOCKS)}")


def _hiaml(b: _Builder, content: Any) -> Value:
    x = b.conv_bn(b.input, 64, 3, 2, activation="Relu")
    for stage, name in enumerate(content):
        for position in range(2):
            reduces = stage in (1, 3) and position == 0
            x = _hiaml_block(b, x, HIAML_BLOCKS[name], x.shape[0] * (2 if reduces else 1), 2 if reduces else 1)
    return x


def _hiaml_block(b: _Builder, x: Value, block: Block, width: int, stride: int) -> Value:
    values = [x]

    def total(places: tuple[int, ...]) -> Value:
        projects = stride != 1 or width != x.shape[0]
        parts = [
            b.conv_bn(x, width, 1, stride) if place == 0 and projects and len(places) > 1 else values[place]
            for place in places
        ]
        return parts[0] if len(parts) == 1 else b.add(parts[0], parts[1], *parts[2:])

    for step in block.steps:
        y = total(step.inputs)
        channels, stepping = (width, stride) if step.widens else (y.shape[0], 1)
        if step.operation == "inception_s":
            y = _inception_s(b, y, channels, 3, stepping)
        else:
            kernel = int(step.operation[-1])
            y = b.conv_bn(y, channels, kernel, stepping, activation="Relu" if step.relu else "")
        values.append(y)
    return b.relu(total(block.output))


def _inception_s(b: _Builder, x: Value, channels: int, kernel: int, stride: int) -> Value:
    y = b.conv_bn(x, channels, (1, kernel), stride, activation="Relu6")
    return b.conv_bn(y, channels, (kernel, 1), activation="Relu6")


# --- Two-Path ---


def _check_two_path(content: Any, where: str) -> None:
    keys = ("path1", "path2", "path1_reduce_inds", "path2_reduce_inds")
    if not isinstance(content, dict) or set(content) != set(keys):
        raise DataError(
            f"{where}: expected a list of HiAML blocks, or an object with stages, or one with {', '.join(keys)}"
        )
    for path in keys[:2]:
        blocks, reductions = content[path], content[f"{path}_reduce_inds"]
        if not isinstance(blocks, list) or len(blocks) not in _PATH_BLOCKS:
            raise DataError(f"{where}: {path} should be a list of 2 to 4 blocks")
        for block in blocks:
            if not isinstance(block, dict) or set(block) != {"op_names", "op_types"}:
                raise DataError(f"{where}: a block of {path} should be an object with op_names and op_types")
            _check_operations(block["op_names"], block["op_types"], TWO_PATH_OPERATIONS, where)
            if len(block["op_names"]) not in _BLOCK_STEPS:
                raise DataError(f"{where}: a block of {path} has {len(block['op_names'])} operations, expected 1 to 3")
        if reductions not in [[i, j] for j in range(len(blocks)) for i in range(j)]:
            raise DataError(f"{where}: {path}_reduce_inds is {reductions!r}, expected two of its blocks, ascending")


def _check_operations(names: Any, types: Any, operations: dict[str, tuple[str, ...]], where: str) -> None:
    """Operations of a block or path: each of its type, at least one conv, at most one supp."""
    known = {name: kind for kind, group in operations.items() for name in group}
    if not isinstance(names, list) or not names or any(not isinstance(n, str) or n not in known for n in names):
        raise DataError(f"{where}: operations are {names!r}, expected a list out of {', '.join(known)}")
    kinds = [known[name] for name in names]
    if types != kinds or "conv" not in kinds or kinds.count("supp") > 1:
        raise DataError(
            f"{where}: op_types are {types!r} for {names!r}, expected {kinds!r}, with at least one conv and at "
            "most one supp"
        )


def _two_path(b: _Builder, content: Any) -> Value:
    stem = b.conv_bn(b.input, _STEM_WIDTH, 3, activation="Relu6")
    stem = b.conv_bn(stem, _STEM_WIDTH, 3, 2, activation="Relu6")
    ends = []
    for path in ("path1", "path2"):
        x = stem
        for position, block in enumerate(content[path]):
            reduces = position in content[f"{path}_reduce_inds"]
            x = _two_path_block(b, x, block, x.shape[0] * (2 if reduces else 1), 2 if reduces else 1)
        ends.append(x)
    return b.conv_bn(b.concat(ends), 512, 3, activation="Relu6")


def _two_path_block(b: _Builder, x: Value, block: Any, width: int, stride: int) -> Value:
    y = x
    first = block["op_types"].index("conv")
    for position, name in enumerate(block["op_names"]):
        y = _two_path_step(b, y, name, *((width, stride) if position == first else (y.shape[0], 1)))
    return b.add(y, x) if y.shape == x.shape else y


def _two_path_step(b: _Builder, x: Value, name: str, width: int, stride: int) -> Value:
    if name in ("avgpool3x3", "maxpool3x3"):
        pool = b.avg_pool if name == "avgpool3x3" else b.max_pool
        return b.batch_norm(pool(x, kernel=3, padding=1))
    kernel = int(name[-1])
    if name.startswith("conv"):
        return b.conv_bn(x, width, kernel, stride, activation="Relu6")
    if name.startswith("double"):
        x = b.conv_bn(x, x.shape[0], kernel, stride, activation="Relu6")
        return b.conv_bn(x, width, kernel, activation="Relu6")
    if name.startswith("inception_s"):
        return _inception_s(b, x, width, kernel, stride)
    _, ratio, _ = name.split("-")
    hidden = x.shape[0] // int(ratio[1:]) if ratio[0] == "r" else x.shape[0] * int(ratio[1:])
    return b.conv_bn(b.conv_bn(x, hidden, kernel, stride), width, kernel)


# --- Inception ---


def _check_inception(content: Any, where: str) -> None:
    if set(content) != {"stages"} or not isinstance(content["stages"], list) or len(content["stages"]) != _STAGES:
        raise DataError(f"{where}: expected an object with stages, a list of {_STAGES}")
    for number, stage in enumerate(content["stages"]):
        here = f"{where}, stage {number}"
        if not isinstance(stage, dict) or set(stage) != {"block", "n_blocks", "C_in", "C_out", "stride"}:
            raise DataError(f"{here}: expected an object with block, n_blocks, C_in, C_out and stride")
        expected = _stage_frame(number)
        for key, value in expected.items():
            if stage[key] != value:
                raise DataError(f"{here}: {key} is {stage[key]!r}, expected {value}")
        if stage["n_blocks"] not in _STAGE_BLOCKS:
            raise DataError(f"{here}: n_blocks is {stage['n_blocks']!r}, expected 2 to 6")
        block = stage["block"]
        paths = block.get("paths") if isinstance(block, dict) and set(block) == {"paths"} else None
        if not isinstance(paths, list) or len(paths) not in _PATH_LIMITS:
            raise DataError(f"{here}: block should be an object with paths, a list of 1 to 4")
        _check_paths(paths, expected["C_out"], here)


def _check_paths(paths: list[Any], width: int, here: str) -> None:
    fewest, most = _PATH_LIMITS[len(paths)]
    for path in paths:
        if not isinstance(path, dict) or set(path) != {"ops", "op_types", "C_internal", "C_out"}:
            raise DataError(f"{here}: a path should be an object with ops, op_types, C_internal and C_out")
        _check_operations(path["ops"], path["op_types"], INCEPTION_OPERATIONS, here)
        if len(path["ops"]) < fewest:
            raise DataError(f"{here}: a path has {len(path['ops'])} operations, expected at least {fewest}")
    if sum(len(path["ops"]) for path in paths) > most:
        raise DataError(f"{here}: a block of {len(paths)} paths has more than {most} operations")
    outer = [path["C_out"] for path in paths]
    if any(type(value) is not int for value in outer) or sorted(outer) != sorted(_path_widths(len(paths), width)):
        expected = _path_widths(len(paths), width)
        raise DataError(f"{here}: C_out of the paths is {outer!r}, expected {expected} in any order")
    for path in paths:
        allowed = _inner_widths(path["ops"], path["op_types"], path["C_out"])
        if path["C_internal"] not in allowed:
            raise DataError(f"{here}: C_internal is {path['C_internal']!r}, expected one of {allowed}")


def _stage_frame(number: int) -> dict[str, int]:
    """Widths and stride of a stage."""
    width = _STEM_WIDTH * 2**number
    return {"C_in": width if number == 0 else width // 2, "C_out": width, "stride": 1 if number == 0 else 2}


def _path_widths(paths: int, width: int) -> list[int]:
    """Output widths of the paths of a block: equal shares, of three paths one has half."""
    shares = [width // 2, width // 4, width // 4] if paths == 3 else [width // paths] * paths
    return [max(share, _NARROWEST) for share in shares]


def _width_changers(names: list[str], types: list[str]) -> list[int]:
    """Places of the operations of a path that can change the width."""
    return [
        at
        for at, (name, kind) in enumerate(zip(names, types, strict=True))
        if kind == "conv" or name in ("conv1x1", "double1x1")
    ]


def _inner_widths(names: list[str], types: list[str], width: int) -> list[int]:
    if len(_width_changers(names, types)) == 1:
        return [width]
    return [max(int(width * factor), _NARROWEST) for factor, _ in _CHANGES]


def _inception(b: _Builder, content: Any) -> Value:
    x = b.conv_bn(b.input, _STEM_WIDTH, 3, activation="Relu6", bias=True)
    for stage in content["stages"]:
        for position in range(stage["n_blocks"]):
            x = _inception_block(b, x, stage["block"]["paths"], stage["C_out"], 1 if position else stage["stride"])
    return b.conv_bn(x, 512, 3, activation="Relu6", bias=True)


def _inception_block(b: _Builder, x: Value, paths: list[Any], width: int, stride: int) -> Value:
    ends = []
    for path in paths:
        y = x
        changers = _width_changers(path["ops"], path["op_types"])
        for at, name in enumerate(path["ops"]):
            inner = path["C_internal"] if at == changers[0] else y.shape[0]
            channels = path["C_out"] if at == changers[-1] != changers[0] else inner
            y = _inception_step(b, y, name, channels, stride if at == path["op_types"].index("conv") else 1)
        ends.append(y)
    y = ends[0] if len(ends) == 1 else b.concat(ends)
    if y.shape[0] != width:
        y = b.conv_bn(y, width, 1, bias=True)
    return b.add(y, x) if y.shape == x.shape else y


def _inception_step(b: _Builder, x: Value, name: str, width: int, stride: int) -> Value:
    kernel = int(name[-1])
    if name in ("avgpool3x3", "maxpool3x3"):
        return _two_path_step(b, x, name, width, stride)
    if name.startswith("conv"):
        return b.conv_bn(x, width, kernel, stride, activation="Relu6", bias=True)
    if name.startswith("double"):
        x = b.conv_bn(x, width, kernel, activation="Relu6", bias=True)
        return b.conv_bn(x, width, kernel, stride, activation="Relu6", bias=True)
    if name.startswith("depthwise"):
        x = x if x.shape[0] == width else b.conv(x, width, kernel=1)
        y = b.conv(x, width, kernel=kernel, stride=stride, groups=width, bias=True)
        return b.activation(b.batch_norm(y), "Relu6")
    if name.startswith("inception_s"):
        x = b.activation(b.line(x, width, kernel, stride, vertical=False), "Relu6")
        return b.activation(b.line(x, width, kernel, stride, vertical=True), "Relu6")
    halves = []
    for channels, vertical in ((width // 2, False), (width - width // 2, True)):
        y = b.line(x, channels, kernel, stride, vertical)
        halves.append(y if stride == 1 else b.line(y, channels, kernel, stride, not vertical))
    return b.activation(b.concat(halves), "Relu6")


# --- sampling ---


def _draw_operations(
    rng: np.random.Generator, count: int, operations: dict[str, tuple[str, ...]]
) -> tuple[list[str], list[str]]:
    """Operations in random order and their types: one conv for sure, then each alike likely, at most one supp."""
    kinds = ["conv"]
    share = len(operations["supp"]) / sum(map(len, operations.values()))
    for _ in range(count - 1):
        kinds.append("supp" if rng.random() < share and "supp" not in kinds else "conv")
    kinds = [kinds[at] for at in rng.permutation(count)]
    return [str(rng.choice(operations[kind])) for kind in kinds], kinds


def _draw_two_path(rng: np.random.Generator) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for path in ("path1", "path2"):
        blocks = []
        for _ in range(int(rng.choice(_PATH_BLOCKS))):
            names, kinds = _draw_operations(rng, int(rng.choice(_BLOCK_STEPS)), TWO_PATH_OPERATIONS)
            blocks.append({"op_names": names, "op_types": kinds})
        content[path] = blocks
        content[f"{path}_reduce_inds"] = sorted(rng.choice(len(blocks), _REDUCTIONS, replace=False).tolist())
    return content


def _draw_inception(rng: np.random.Generator) -> dict[str, Any]:
    stages = []
    for number in range(_STAGES):
        frame = _stage_frame(number)
        count = int(rng.integers(1, 5))
        fewest, most = _PATH_LIMITS[count]
        paths: list[dict[str, Any]] = []
        for at, width in enumerate(rng.permutation(_path_widths(count, frame["C_out"])).tolist()):
            left = most - sum(len(path["ops"]) for path in paths) - fewest * (count - at - 1)
            names, kinds = _draw_operations(rng, int(rng.integers(fewest, left + 1)), INCEPTION_OPERATIONS)
            inner = _inner_widths(names, kinds, width)
            chosen = inner[0] if len(inner) == 1 else inner[int(rng.choice(len(_CHANGES), p=[p for _, p in _CHANGES]))]
            paths.append({"ops": names, "op_types": kinds, "C_internal": chosen, "C_out": width})
        stages.append({"block": {"paths": paths}, "n_blocks": int(rng.choice(_STAGE_BLOCKS)), **frame})
    return {"stages": stages}


SPACES = {
    space: Space(TASKS, _SIZES[space], build, no_labels(f"{_NAME} {space}", TASKS), partial(sample, space=space))
    for space in FAMILIES
}
"""The three families: hiaml, inception and two_path."""
