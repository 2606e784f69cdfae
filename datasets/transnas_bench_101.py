"""TransNAS-Bench-101: 4,096 micro (cell) and 3,256 macro backbones trained on seven Taskonomy tasks.

Y. Duan et al., "TransNAS-Bench-101: Improving Transferability and Generalizability of Cross-Task Neural Architecture
Search", CVPR 2021. The labels are final validation values, from the archives of NAS-Bench-Suite-Zero (Krishnakumar et
al. 2022).

A spec is the official string: `64-41414-1_02_333` (micro) or `64-2311-basic` (macro). For `class_object` and
`class_scene` the network ends in its classifier; for the other tasks only the backbone is built, because the published
decoders are the same for all networks; `jigsaw` takes one of its nine tiles. The label of `room_layout` is minus a
loss, so it ranks networks but is no percentage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .darts import factorized_reduce
from .nas_bench_201 import EDGES, relu_conv_bn
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_spec, check_task, field, number, parse_json, raw_path, zip_members
from .space import Space, check_count

TASKS = ("class_object", "class_scene", "jigsaw", "segmentsemantic", "autoencoder", "normal", "room_layout")
"""Percent of top-1 (class_object, class_scene, jigsaw) and pixel accuracy; SSIM in percent (autoencoder, normal); minus
the loss (room_layout)."""

_FILES = {"micro": "all_benchmarks_zen.zip", "macro": "tnb101_macro_zen.zip"}
_SIZES = {"micro": 4096, "macro": 3256}
_CLASSES = {"class_object": 75, "class_scene": 47}
_SSIM = ("autoencoder", "normal")
_KEY = re.compile(r"\([0-9](, [0-9])*\)")
_MICRO = re.compile(r"64-41414-([0-3])_([0-3]{2})_([0-3]{3})")
_MACRO = re.compile(r"64-([1-4]{4,6})-basic")


def parse(spec: str) -> tuple[str, tuple[int, ...]]:
    """The stages (digits 1 to 4) and, for a micro network, the six edge operations (0 to 3; empty for macro).

    Raises:
        DataError: The spec is no network of either space.
    """
    if match := _MICRO.fullmatch(spec):
        return "41414", tuple(map(int, "".join(match.groups())))
    if (match := _MACRO.fullmatch(spec)) and _allowed(match[1]):
        return match[1], ()
    raise DataError(
        f"TransNAS-Bench-101 network {spec!r}: expected 64-41414-a_bc_def with digits 0 to 3, or 64-stages-basic with "
        "4 to 6 digits 1 to 4 that double the channels 1 to 3 times and halve the resolution 1 to 4 times"
    )


def build(spec: str, task: str) -> ModelProto:
    """The backbone of a spec and, for the two classification tasks, its classifier (75 objects, 47 scenes).

    The input is 3x256x256, for jigsaw one tile of 3x64x64. Zero edges are written as a multiplication by zero.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "TransNAS-Bench-101")
    stages, operations = parse(spec)
    size = 64 if task == "jigsaw" else 256
    b = OnnxBuilder(spec, (3, size, size))
    x = b.batch_norm(b.conv(b.input, 32, stride=2))
    x = relu_conv_bn(b, x, 64, 3, stride=2)
    for stage in stages:
        channels = x.shape[0] * (2 if stage in "24" else 1)
        for stride in (2 if stage in "34" else 1, 1):
            x = cell(b, x, operations, channels, stride)
    if task in _CLASSES:
        x = b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES[task])
    return b.build(x)


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and final validation values (percent; minus the loss for room_layout) of a space, sorted by spec.

    Raises:
        DataError: The archive is missing or damaged, or the task or space does not exist.
    """
    check_task(task, TASKS, "TransNAS-Bench-101")
    check_space(space, _FILES, "TransNAS-Bench-101")
    path = raw_path(paths, _FILES[space])
    rows: dict[str, float] = {}
    for name, content in zip_members(path, f"transbench101_{space}--{task}--"):
        source = f"{path}, {name}"
        entries = parse_json(content, source)
        if not isinstance(entries, list):
            raise DataError(f"{source}: expected a list of networks")
        for entry in entries:
            spec = _spec_of_key(field(entry, "arch", source), space, source)
            value = number(field(entry, "val_accuracy", source), f"{source}, {spec}")
            if rows.setdefault(spec, value) != value:
                raise DataError(f"{source}: {spec} has the values {rows[spec]} and {value}")
    if len(rows) != _SIZES[space]:
        raise DataError(f"{path}: {len(rows):,} networks for {task}, expected {_SIZES[space]:,}")
    specs = sorted(rows)
    return specs, np.array([rows[spec] for spec in specs]) * (100.0 if task in _SSIM else 1.0)


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above the size of the space, or the space does not exist.
    """
    check_space(space, _FILES, "TransNAS-Bench-101")
    check_count(n, _SIZES[space], f"TransNAS-Bench-101 {space}")
    if space == "micro":
        specs = [_micro_spec(operations) for operations in product("0123", repeat=6)]
    else:
        stages = ("".join(digits) for length in (4, 5, 6) for digits in product("1234", repeat=length))
        specs = [f"64-{digits}-basic" for digits in stages if _allowed(digits)]
    return [specs[i] for i in np.random.default_rng(seed).choice(len(specs), n, replace=False)]


def _allowed(stages: str) -> bool:
    doubled = sum(stages.count(digit) for digit in "24")
    halved = sum(stages.count(digit) for digit in "34")
    return 1 <= doubled <= 3 and 1 <= halved <= 4


def _micro_spec(operations: tuple[str, ...]) -> str:
    a, b, c, d, e, f = operations
    return f"64-41414-{a}_{b}{c}_{d}{e}{f}"


def _spec_of_key(key: object, space: str, source: str) -> str:
    """The spec of `(digits)` as the archives write it."""
    digits = tuple(re.findall("[0-9]", str(key)))
    if not _KEY.fullmatch(str(key)) or (space == "micro" and len(digits) != 6):
        raise DataError(f"{source}: expected (digit, digit, ...), six of them for micro, got {key!r}")
    spec = _micro_spec(digits) if space == "micro" else f"64-{''.join(digits)}-basic"
    return check_spec(spec, parse, source)


def cell(b: OnnxBuilder, x: Value, operations: tuple[int, ...], channels: int, stride: int) -> Value:
    """A micro cell of the operations given, or without any a residual block."""
    if operations:
        return _micro_cell(b, x, operations, channels, stride)
    main = relu_conv_bn(b, relu_conv_bn(b, x, channels, 3, stride), channels, 3)
    if stride == 1 and channels == x.shape[0]:
        return b.add(main, x)
    return b.add(main, b.batch_norm(b.conv(x, channels, kernel=1, stride=stride)))


def _micro_cell(b: OnnxBuilder, x: Value, operations: tuple[int, ...], channels: int, stride: int) -> Value:
    nodes: list[Value] = [x]
    for target in (1, 2, 3):
        edges = [
            _micro_edge(b, nodes[source], op, channels, stride if source == 0 else 1)
            for (to, source), op in zip(EDGES, operations, strict=True)
            if to == target
        ]
        nodes.append(edges[0] if len(edges) == 1 else b.add(*edges))
    return nodes[3]


def _micro_edge(b: OnnxBuilder, x: Value, op: int, channels: int, stride: int) -> Value:
    changes = stride != 1
    match op:
        case 0:
            return b.zero(b.concat([b.max_pool(x, kernel=1, stride=stride)] * 2) if changes else x)
        case 1:
            return factorized_reduce(b, x, channels) if changes else x
        case _:
            return relu_conv_bn(b, x, channels, 1 if op == 2 else 3, stride)


SPACES = {
    space: Space(TASKS, _SIZES[space], build, partial(read_labels, space=space), partial(sample, space=space))
    for space in _FILES
}
"""The two spaces: micro and macro."""
