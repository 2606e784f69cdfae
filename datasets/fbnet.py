"""FBNet: 22 layers with nine candidate blocks each, for ImageNet and CIFAR-100. No labels.

B. Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search", CVPR 2019,
tables 1 and 2 and fig. 3; the networks FBNet-A, B and C of the paper are networks of this space.

A spec is the list of operations of HW-NAS-Bench (C. Li et al., "HW-NAS-Bench: Hardware-Aware Neural Architecture Search
Benchmark", ICLR 2021): 22 positions in `OPERATIONS` as compact JSON, `[0,3,8,...]`. Its layers, widths and strides for
both data sets are those of the benchmark's code; the insides of the blocks follow the paper and the search code of the
benchmark's authors, and give for FBNet-C the network that timm has (1,984 channels in the last convolution are said
there to be "not 100 % clear" from the paper).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task, parse_json
from .space import check_count
from .unlabelled import no_labels

TASKS = ("imagenet1k", "cifar100")
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
OPERATIONS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
LAYERS = (1, 4, 4, 4, 4, 4, 1)
"""Layers of the seven stages."""
WIDTHS = (16, 24, 32, 64, 112, 184, 352)
"""Channels of the seven stages."""

_STEM = 16


class _Setting(NamedTuple):
    size: int
    stem_stride: int
    strides: tuple[int, ...]
    last: int
    classes: int


_SETTINGS = {
    "imagenet1k": _Setting(224, 2, (1, 2, 2, 2, 1, 2, 1), 1984, 1000),
    "cifar100": _Setting(32, 1, (1, 1, 2, 2, 1, 2, 1), 1504, 100),
}


def parse(spec: str) -> tuple[str, ...]:
    """The operations of the 22 layers.

    Raises:
        DataError: It is no network of this space.
    """
    source = f"FBNet network {spec!r}"
    positions = parse_json(spec, source)
    if (
        not isinstance(positions, list)
        or len(positions) != sum(LAYERS)
        or any(type(at) is not int or not 0 <= at < len(OPERATIONS) for at in positions)
    ):
        raise DataError(
            f"{source}: expected a list of {sum(LAYERS)} whole numbers from 0 to {len(OPERATIONS) - 1}, got {positions}"
        )
    operations = tuple(OPERATIONS[at] for at in positions)
    if spec != spec_of(operations):
        raise DataError(f"{source}: expected it to be written {spec_of(operations)!r}")
    return operations


def spec_of(operations: Sequence[str]) -> str:
    """The spec of 22 operations."""
    return json.dumps([OPERATIONS.index(op) for op in operations], separators=(",", ":"))


def build(spec: str, task: str) -> ModelProto:
    """The network of a spec, input 3x224x224 (ImageNet) or 3x32x32 (CIFAR-100).

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "FBNet")
    operations = iter(parse(spec))
    setting = _SETTINGS[task]
    b = OnnxBuilder(spec, (3, setting.size, setting.size))
    x = b.relu(b.batch_norm(b.conv(b.input, _STEM, stride=setting.stem_stride)))
    for layers, width, stride in zip(LAYERS, WIDTHS, setting.strides, strict=True):
        for position in range(layers):
            x = _layer(b, x, next(operations), width, stride if position == 0 else 1)
    x = b.relu(b.batch_norm(b.conv(x, setting.last, kernel=1)))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), setting.classes))


read_labels = no_labels("FBNet", TASKS)
"""There are none: always raises a `DataError` that says so."""


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, every operation uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "FBNet")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[spec_of([OPERATIONS[at] for at in rng.integers(len(OPERATIONS), size=sum(LAYERS))])] = None
    return list(found)


def _layer(b: OnnxBuilder, x: Value, op: str, width: int, stride: int) -> Value:
    same = stride == 1 and x.shape[0] == width
    if op == "skip":
        return x if same else b.relu(b.batch_norm(b.conv(x, width, kernel=1, stride=stride)))
    kernel, expansion = int(op[1]), int(op[4])
    groups = 2 if op.endswith("_g2") else 1
    hidden = x.shape[0] * expansion
    y = b.relu(b.batch_norm(b.conv(x, hidden, kernel=1, groups=groups)))
    if groups > 1:
        y = _shuffle(b, y, groups)
    y = b.relu(b.batch_norm(b.conv(y, hidden, kernel=kernel, stride=stride, groups=hidden)))
    y = b.batch_norm(b.conv(y, width, kernel=1, groups=groups))
    return b.add(x, y) if same else y


def _shuffle(b: OnnxBuilder, x: Value, groups: int) -> Value:
    """The channels of the groups by turns (Zhang et al. 2018, ShuffleNet)."""
    channels, height, width = x.shape
    split = b.reshape(x, (groups, channels // groups, height, width))
    return b.reshape(b.transpose(split, (1, 0, 2, 3)), (channels, height, width))
