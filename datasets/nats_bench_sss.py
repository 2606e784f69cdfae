"""NATS-Bench size search space: one fixed cell, five free widths, 32,768 networks trained on CIFAR-10.

X. Dong, L. Liu, K. Musial, B. Gabrys, "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size",
IEEE TPAMI 2021.

A spec is five channel counts joined by colons, each one of 8, 16, ..., 64, e.g. `8:16:64:8:40`. The label is the test
accuracy after 90 epochs, one seed, from the extract published with BossNAS (Li et al. 2021).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .nas_bench_201 import reduction_block, relu_conv_bn
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, number, raw_path, read_text
from .space import check_count

TASKS = ("cifar10",)
SIZE = 8**5
"""Specs that `sample` gives at most."""
WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)
_FILE = "nats_cifar10_acc_rank.yml"
_LINE = re.compile(r"'?([0-9:]+)'?: ([0-9.]+)")


def parse(spec: str) -> tuple[int, ...]:
    """The five channel counts of a spec.

    Raises:
        DataError: It is not five widths of this space.
    """
    parts = spec.split(":")
    if len(parts) != 5 or any(part not in map(str, WIDTHS) for part in parts):
        raise DataError(f"NATS-Bench network {spec!r}: expected five widths out of {WIDTHS} joined by colons")
    return tuple(map(int, parts))


def build(spec: str, task: str) -> ModelProto:
    """The network of five widths, input 3x32x32: cells 1, 3 and 5 are the fixed cell, 2 and 4 reduce.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NATS-Bench size space")
    widths = parse(spec)
    b = OnnxBuilder(spec, (3, 32, 32))
    x = b.batch_norm(b.conv(b.input, widths[0]))
    for position, channels in enumerate(widths):
        x = reduction_block(b, x, channels) if position in (1, 3) else _cell(b, x, channels)
    x = b.relu(b.batch_norm(x))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and test accuracies (percent, 90 epochs) in the order of the published file.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NATS-Bench size space")
    path = raw_path(paths, _FILE)
    rows: dict[str, float] = {}
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}, line {line_number}"
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise DataError(f"{where}: expected 'c1:c2:c3:c4:c5': accuracy, got {line[:80]!r}")
        spec = check_spec(match[1], parse, where)
        if spec in rows:
            raise DataError(f"{where}: the network {spec} occurs twice")
        rows[spec] = number(match[2], where)
    if not rows:
        raise DataError(f"{path}: the file is empty")
    return list(rows), np.array(list(rows.values()))


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 32,768.
    """
    check_count(n, SIZE, "NATS-Bench size space")
    chosen = np.random.default_rng(seed).choice(SIZE, n, replace=False)
    return [":".join(str(WIDTHS[int(digit)]) for digit in f"{i:05o}") for i in chosen]


def _cell(b: OnnxBuilder, x: Value, channels: int) -> Value:
    skip = x if x.shape[0] == channels else b.batch_norm(b.conv(x, channels, kernel=1))
    first = relu_conv_bn(b, x, channels, 3)
    second = b.add(relu_conv_bn(b, x, channels, 3), relu_conv_bn(b, first, channels, 3))
    return b.add(skip, relu_conv_bn(b, first, channels, 3), relu_conv_bn(b, second, channels, 3))
