"""ProxylessNAS: MobileNetV2-like networks, 21 layers with kernels 3, 5, 7 and expansions 3, 6, for ImageNet. No labels.

H. Cai, L. Zhu, S. Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019,
sec. 4.2.

A spec is the operations of the 21 searched layers in the notation of the authors' search code, joined by commas:
`3x3_MBConv3`, ..., `7x7_MBConv6`, or `Zero` for a layer that is left out (not the first of a stage). Stages, widths and
strides are the defaults of that code; the networks of the paper have other widths (`model` builds them).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task
from .space import check_count
from .unlabelled import no_labels

TASKS = ("imagenet1k",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
OPERATIONS = ("3x3_MBConv3", "3x3_MBConv6", "5x5_MBConv3", "5x5_MBConv6", "7x7_MBConv3", "7x7_MBConv6")
ZERO = "Zero"
LAYERS = (4, 4, 4, 4, 4, 1)
"""Layers of the six stages."""
WIDTHS = (32, 16, 24, 40, 80, 96, 192, 320, 1280)
"""Channels of the stem, the fixed first layer, the six stages and the last convolution."""

_STRIDES = (2, 2, 2, 1, 2, 1)
_OPERATION = re.compile(r"([357])x\1_MBConv([36])")


def parse(spec: str) -> tuple[tuple[str, ...], ...]:
    """The operations of the six stages.

    Raises:
        DataError: It is no network of this space.
    """
    operations = spec.split(",")
    if len(operations) != sum(LAYERS):
        raise DataError(f"ProxylessNAS network {spec!r}: expected {sum(LAYERS)} operations, got {len(operations)}")
    stages: list[tuple[str, ...]] = []
    for layers in LAYERS:
        stage, operations = tuple(operations[:layers]), operations[layers:]
        for position, op in enumerate(stage):
            allowed = OPERATIONS if position == 0 else (*OPERATIONS, ZERO)
            if op not in allowed:
                raise DataError(
                    f"ProxylessNAS network {spec!r}: expected one of {', '.join(allowed)} as operation {position + 1} "
                    f"of stage {len(stages) + 1}, got {op!r}"
                )
        stages.append(stage)
    return tuple(stages)


def spec_of(stages: Sequence[Sequence[str]]) -> str:
    """The spec of the operations of six stages."""
    return ",".join(op for stage in stages for op in stage)


def build(spec: str, task: str) -> ModelProto:
    """The network of a spec, input 3x224x224.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "ProxylessNAS")
    return model(spec, parse(spec), WIDTHS)


def model(name: str, stages: Sequence[Sequence[str]], widths: Sequence[int]) -> ModelProto:
    """The network of six stages with other widths.

    Args:
        name: Name of the graph in the file.
        stages: Operations of the six stages.
        widths: Channels in the order of `WIDTHS`.
    """
    b = OnnxBuilder(name, (3, 224, 224))
    stem, first, *channels, last = widths
    x = b.activation(b.batch_norm(b.conv(b.input, stem, stride=2)), "Relu6")
    x = _layer(b, x, 3, 1, first, 1)
    for stage, width, stride in zip(stages, channels, _STRIDES, strict=True):
        for position, op in enumerate(stage):
            if match := _OPERATION.fullmatch(op):
                x = _layer(b, x, int(match[1]), int(match[2]), width, stride if position == 0 else 1)
    x = b.activation(b.batch_norm(b.conv(x, last, kernel=1)), "Relu6")
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 1000))


read_labels = no_labels("ProxylessNAS", TASKS)
"""There are none: always raises a `DataError` that says so."""


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, every operation uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "ProxylessNAS")
    rng = np.random.default_rng(seed)
    choices = (*OPERATIONS, ZERO)
    found: dict[str, None] = {}
    while len(found) < n:
        stages = [
            [choices[int(rng.integers(len(OPERATIONS) + (position > 0)))] for position in range(layers)]
            for layers in LAYERS
        ]
        found[spec_of(stages)] = None
    return list(found)


def _layer(b: OnnxBuilder, x: Value, kernel: int, expansion: int, channels: int, stride: int) -> Value:
    hidden = x.shape[0] * expansion
    y = b.activation(b.batch_norm(b.conv(x, hidden, kernel=1)), "Relu6") if expansion > 1 else x
    y = b.activation(b.batch_norm(b.conv(y, hidden, kernel=kernel, stride=stride, groups=hidden)), "Relu6")
    y = b.batch_norm(b.conv(y, channels, kernel=1))
    return b.add(x, y) if stride == 1 and x.shape[0] == channels else y
