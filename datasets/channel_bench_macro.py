"""Channel-Bench-Macro: all 16,384 widths of a ResNet-like and of a MobileNetV2-like network, trained on CIFAR-10.

X. Su et al., "Searching for Network Width with Bilaterally Coupled Network", IEEE TPAMI 2022.

A spec is the space and seven digits, e.g. `resnet-4432214`: digit d gives d quarters of the largest width. The label is
the mean test accuracy of three trainings of 60 epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .nas_bench_macro import inverted_residual
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_spec, check_task, column, read_json_object
from .space import Space, check_count

TASKS = ("cifar10",)
SIZE = 4**7
"""Networks of each of the two spaces."""
_FILES = {"resnet": "Results_ResNet.json", "mobilenet": "Results_MobileNet.json"}
_LARGEST = {"resnet": (256, 256, 256, 512, 512, 512, 512), "mobilenet": (128, 768, 768, 768, 256, 1536, 1024)}


def parse(spec: str) -> tuple[str, tuple[int, ...]]:
    """The space and the seven channel counts of a spec.

    Raises:
        DataError: It is not a network of either space.
    """
    space, _, digits = spec.partition("-")
    if space not in _FILES or len(digits) != 7 or not set(digits) <= set("1234"):
        raise DataError(
            f"Channel-Bench-Macro network {spec!r}: expected resnet- or mobilenet- and seven digits out of 1, 2, 3, 4"
        )
    return space, tuple(int(d) * most // 4 for d, most in zip(digits, _LARGEST[space], strict=True))


def build(spec: str, task: str) -> ModelProto:
    """The network of seven widths, input 3x32x32, stem with stride 2.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "Channel-Bench-Macro")
    space, widths = parse(spec)
    b = OnnxBuilder(spec, (3, 32, 32))
    x = b.relu(b.batch_norm(b.conv(b.input, widths[0], stride=2)))
    first, last = widths[0], widths[4]
    if space == "resnet":
        for middle, channels, stride in (
            (widths[1], first, 1),
            (widths[2], first, 1),
            (widths[3], last, 2),
            (widths[5], last, 1),
            (widths[6], last, 1),
        ):
            x = _residual_block(b, x, middle, channels, stride)
    else:
        for hidden, channels, stride in (
            (widths[1], first, 1),
            (widths[2], first, 1),
            (widths[3], last, 2),
            (widths[5], last, 1),
        ):
            x = inverted_residual(b, x, hidden, channels, 3, stride)
        x = b.relu(b.batch_norm(b.conv(x, widths[6], kernel=1)))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and mean test accuracies (percent) of a space in the order of the published file.

    Raises:
        DataError: The file is missing or damaged, or the task or space does not exist.
    """
    rows = _rows(paths, task, space)
    specs = [check_spec(f"{space}-{digits}", parse, _FILES[space]) for digits in rows]
    return specs, column(rows, "mean", _FILES[space])


def published_costs(
    paths: Mapping[str, Path], task: str, space: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published, in the order of `read_labels`."""
    rows = _rows(paths, task, space)
    return column(rows, "params", _FILES[space]), column(rows, "flops", _FILES[space])


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 16,384, or the space does not exist.
    """
    check_space(space, _FILES, "Channel-Bench-Macro")
    check_count(n, SIZE, f"Channel-Bench-Macro {space}")
    chosen = np.random.default_rng(seed).choice(SIZE, n, replace=False)
    return [f"{space}-{int(np.base_repr(i, 4)) + 1_111_111}" for i in chosen]


def _rows(paths: Mapping[str, Path], task: str, space: str) -> dict[str, object]:
    check_task(task, TASKS, "Channel-Bench-Macro")
    check_space(space, _FILES, "Channel-Bench-Macro")
    return read_json_object(paths, _FILES[space])


def _residual_block(b: OnnxBuilder, x: Value, middle: int, channels: int, stride: int) -> Value:
    y = b.relu(b.batch_norm(b.conv(x, middle, stride=stride)))
    y = b.batch_norm(b.conv(y, channels))
    return b.relu(b.add(x, y) if stride == 1 else y)


SPACES = {
    space: Space(TASKS, SIZE, build, partial(read_labels, space=space), partial(sample, space=space))
    for space in _FILES
}
"""The two spaces: resnet and mobilenet."""
