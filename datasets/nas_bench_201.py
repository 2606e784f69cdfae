"""NAS-Bench-201: 15,625 cells of four nodes, trained on CIFAR-10, CIFAR-100 and ImageNet16-120.

X. Dong, Y. Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.

A spec is the official cell string `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`. The labels are test accuracies after 200
epochs, means over 1 to 3 seeds, from the extract published with GENIUS (Zheng et al. 2023), in the order of that file;
the official indices are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .extracts import read_extract
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, column, number, read_json_object
from .space import Labelled, check_count

TASKS = ("cifar10", "cifar100", "imagenet16_120")
SIZE = 15_625
"""Specs that `sample` gives at most."""
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from) of the six edges, in the order of the cell string."""

_OP = f"({'|'.join(OPERATIONS)})"
_CELL = re.compile(rf"\|{_OP}~0\|\+\|{_OP}~0\|{_OP}~1\|\+\|{_OP}~0\|{_OP}~1\|{_OP}~2\|")
_FILES = {
    "cifar10": "nasbench201_cifar10.json",
    "cifar100": "nasbench201_cifar100.json",
    "imagenet16_120": "nasbench201_imagenet.json",
}
HARDWARE = "hw_nas_bench_cifar10.csv.gz"
_HARDWARE_UNITS = {
    "edgegpu_latency": "ms",
    "edgegpu_energy": "mj",
    "raspi4_latency": "ms",
    "edgetpu_latency": "ms",
    "pixel3_latency": "ms",
    "eyeriss_latency": "ms",
    "eyeriss_energy": "mj",
    "eyeriss_arithmetic_intensity": "ops_per_bit",
    "fpga_latency": "ms",
    "fpga_energy": "mj",
}
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet16_120": 120}
_SIZES = {"cifar10": 32, "cifar100": 32, "imagenet16_120": 16}


def parse(spec: str) -> tuple[str, ...]:
    """The operations of the six edges of a cell string, in the order of `EDGES`.

    Raises:
        DataError: The string is not a cell of this space.
    """
    match = _CELL.fullmatch(spec)
    if match is None:
        raise DataError(
            f"NAS-Bench-201 cell {spec!r}: expected the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2| and operations out of "
            f"{', '.join(OPERATIONS)}"
        )
    return match.groups()


def spec_of(operations: tuple[str, ...]) -> str:
    """The cell string of six operations in the order of `EDGES`."""
    a, b, c, d, e, f = operations
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def build(spec: str, task: str) -> ModelProto:
    """The network of a cell: 3 stages of 5 cells with 16, 32 and 64 channels (Dong & Yang 2020, fig. 1).

    `none` edges are written as a multiplication by zero.

    Args:
        spec: Cell string.
        task: One of `TASKS`; sets the input size (3x32x32 or 3x16x16) and the classes.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-201")
    operations = parse(spec)
    b = OnnxBuilder(spec, (3, _SIZES[task], _SIZES[task]))
    x = b.batch_norm(b.conv(b.input, 16))
    for channels in (16, 32, 64):
        if channels > 16:
            x = reduction_block(b, x, channels)
        for _ in range(5):
            x = cell(b, x, operations)
    x = b.relu(b.batch_norm(x))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES[task]))


def relu_conv_bn(b: OnnxBuilder, x: Value, channels: int, kernel: int, stride: int = 1) -> Value:
    """ReLU, convolution without bias, batch norm."""
    return b.batch_norm(b.conv(b.relu(x), channels, kernel=kernel, stride=stride))


def reduction_block(b: OnnxBuilder, x: Value, channels: int) -> Value:
    """The residual block between stages: half the resolution, `channels` channels."""
    main = relu_conv_bn(b, relu_conv_bn(b, x, channels, 3, stride=2), channels, 3)
    return b.add(main, b.conv(b.avg_pool(x, kernel=2, stride=2), channels, kernel=1))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Cell strings and test accuracies (percent, 200 epochs) in the order of the published file.

    Args:
        paths: Published files by name.
        task: One of `TASKS`.

    Raises:
        DataError: A file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-201")
    name = _FILES[task]
    rows = read_json_object(paths, name)
    return [check_spec(spec, parse, name) for spec in rows], column(rows, "test_acc_200", name)


def read_side(paths: Mapping[str, Path], task: str) -> Labelled:
    """Latency and energy of every network for CIFAR-10 on six devices (C. Li et al., HW-NAS-Bench, ICLR 2021).

    Raises:
        DataError: The file is missing or damaged, or the task is not `cifar10`.
    """
    check_task(task, ("cifar10",), "HW-NAS-Bench")
    rows = read_extract(paths, HARDWARE, ("arch_str", *_HARDWARE_UNITS))
    specs = [check_spec(row["arch_str"], parse, source) for source, row in rows]
    side = {
        f"{name}_{unit}": np.array([number(row[name], f"{source}, {name}") for source, row in rows])
        for name, unit in _HARDWARE_UNITS.items()
    }
    return specs, side


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different cell strings uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 15,625.
    """
    check_count(n, SIZE, "NAS-Bench-201")
    cells = [spec_of(operations) for operations in product(OPERATIONS, repeat=len(EDGES))]
    return [cells[i] for i in np.random.default_rng(seed).choice(len(cells), n, replace=False)]


def cell(b: OnnxBuilder, x: Value, operations: tuple[str, ...]) -> Value:
    """A cell of four nodes, each the sum of one operation on every earlier node."""
    nodes: list[Value] = [x]
    for target in (1, 2, 3):
        edges = [
            _edge(b, nodes[source], op) for (to, source), op in zip(EDGES, operations, strict=True) if to == target
        ]
        nodes.append(edges[0] if len(edges) == 1 else b.add(*edges))
    return nodes[3]


def _edge(b: OnnxBuilder, x: Value, op: str) -> Value:
    match op:
        case "none":
            return b.zero(x)
        case "skip_connect":
            return x
        case "avg_pool_3x3":
            return b.avg_pool(x, kernel=3, padding=1)
        case _:
            return relu_conv_bn(b, x, x.shape[0], 1 if op == "nor_conv_1x1" else 3)
