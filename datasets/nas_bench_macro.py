"""NAS-Bench-Macro: 6,561 MobileNet-like networks for CIFAR-10, eight layers with three choices each.

X. Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.

A spec is eight digits, one per layer: 0 identity, 1 inverted residual with kernel 3 and expansion 3, 2 inverted
residual with kernel 5 and expansion 6. The label is the mean test accuracy of three trainings of 50 epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, column, read_json_object
from .space import check_count

TASKS = ("cifar10",)
SIZE = 3**8
"""Specs that `sample` gives at most."""
_FILE = "nas-bench-macro_cifar10.json"
_STAGES = ((64, 2), (128, 3), (256, 3))
_LAYERS = 8


def parse(spec: str) -> tuple[int, ...]:
    """The eight digits of a spec.

    Raises:
        DataError: It is not eight digits out of 0, 1, 2.
    """
    if len(spec) != _LAYERS or not set(spec) <= set("012"):
        raise DataError(f"NAS-Bench-Macro network {spec!r}: expected {_LAYERS} digits out of 0, 1, 2")
    return tuple(map(int, spec))


def build(spec: str, task: str) -> ModelProto:
    """The network of eight layers in three stages with 64, 128 and 256 channels, input 3x32x32.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-Macro")
    digits = iter(parse(spec))
    b = OnnxBuilder(spec, (3, 32, 32))
    x = b.relu(b.batch_norm(b.conv(b.input, 32)))
    for channels, layers in _STAGES:
        for layer in range(layers):
            x = _layer(b, x, next(digits), channels, 2 if layer == 0 else 1)
    x = b.relu(b.batch_norm(b.conv(x, 1280, kernel=1)))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def inverted_residual(b: OnnxBuilder, x: Value, hidden: int, channels: int, kernel: int, stride: int) -> Value:
    """1x1 convolution to `hidden`, depthwise convolution, 1x1 convolution (Sandler et al. 2018), with ReLU."""
    y = b.relu(b.batch_norm(b.conv(x, hidden, kernel=1)))
    y = b.relu(b.batch_norm(b.conv(y, hidden, kernel=kernel, stride=stride, groups=hidden)))
    y = b.batch_norm(b.conv(y, channels, kernel=1))
    return b.add(x, y) if stride == 1 and x.shape[0] == channels else y


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and mean test accuracies (percent) in the order of the published file.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-Macro")
    rows = read_json_object(paths, _FILE)
    return [check_spec(spec, parse, _FILE) for spec in rows], column(rows, "mean_acc", _FILE)


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published, in the order of `read_labels`."""
    check_task(task, TASKS, "NAS-Bench-Macro")
    rows = read_json_object(paths, _FILE)
    return column(rows, "params", _FILE), column(rows, "flops", _FILE)


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 6,561.
    """
    check_count(n, SIZE, "NAS-Bench-Macro")
    chosen = np.random.default_rng(seed).choice(SIZE, n, replace=False)
    return [np.base_repr(i, 3).zfill(_LAYERS) for i in chosen]


def _layer(b: OnnxBuilder, x: Value, digit: int, channels: int, stride: int) -> Value:
    if digit == 0:
        return x if stride == 1 else b.batch_norm(b.conv(x, channels, kernel=1, stride=stride))
    kernel, expansion = (3, 3) if digit == 1 else (5, 6)
    return inverted_residual(b, x, x.shape[0] * expansion, channels, kernel, stride)
