"""Once-for-All MobileNetV3 w1.0: 2,162 sub-networks with ImageNet accuracies of weights inherited from the supernet.

H. Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020; measured in the
searches of DyNAS-T (Cummings et al. 2022), so biased towards good networks.

A spec is five stages joined by hyphens, each 2 to 4 blocks of kernel and expansion joined by commas:
`k3e3,k5e4-k7e6,k3e3,k3e3-...`. Repeated measurements are averaged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .accel_nasbench import squeeze_excite
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, number, parse_json, raw_path, read_csv_rows
from .space import check_count

TASKS = ("imagenet1k",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
_FILES = (
    "mbnv3w10_evoga_acc.csv",
    "mbnv3w10_evonsga2_acc_macs.csv",
    "mbnv3w10_evounsga3_acc_macs_params.csv",
    "mbnv3w10_linasga_acc.csv",
    "mbnv3w10_linasnsga2_acc_macs.csv",
)
_COLUMNS = ("Sub-network", "Model Parameters", "MACs", "Top-1 Acc (%)")
_BLOCK = re.compile(r"k([357])e([346])")
_WIDTHS = (24, 40, 80, 112, 160)
_STRIDES = (2, 2, 2, 1, 2)
_ACTIVATIONS = ("Relu", "Relu", "HardSwish", "HardSwish", "HardSwish")
_SQUEEZED = (False, True, False, True, True)

Stage = tuple[tuple[int, int], ...]


def parse(spec: str) -> tuple[Stage, ...]:
    """The five stages of a spec, each a tuple of (kernel, expansion).

    Raises:
        DataError: It is not a network of this space.
    """
    stages: list[Stage] = []
    for part in spec.split("-"):
        matches = [_BLOCK.fullmatch(block) for block in part.split(",")]
        stage = tuple((int(match[1]), int(match[2])) for match in matches if match is not None)
        if len(stage) != len(matches) or not 2 <= len(stage) <= 4:
            raise DataError(f"OFA-MBv3 network {spec!r}: expected stages of 2 to 4 blocks like k5e4, got {part!r}")
        stages.append(stage)
    if len(stages) != len(_WIDTHS):
        raise DataError(f"OFA-MBv3 network {spec!r}: expected {len(_WIDTHS)} stages, got {len(stages)}")
    return tuple(stages)


def spec_of(stages: tuple[Stage, ...]) -> str:
    """The spec of five stages."""
    return "-".join(",".join(f"k{kernel}e{expansion}" for kernel, expansion in stage) for stage in stages)


def build(spec: str, task: str) -> ModelProto:
    """The sub-network, input 3x224x224.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "OFA-MBv3")
    stages = parse(spec)
    b = OnnxBuilder(spec, (3, 224, 224))
    x = b.activation(b.batch_norm(b.conv(b.input, 16, stride=2)), "HardSwish")
    y = b.relu(b.batch_norm(b.conv(x, 16, groups=16)))
    x = b.add(x, b.batch_norm(b.conv(y, 16, kernel=1)))
    for stage, width, first, activation, squeezed in zip(
        stages, _WIDTHS, _STRIDES, _ACTIVATIONS, _SQUEEZED, strict=True
    ):
        for position, (kernel, expansion) in enumerate(stage):
            stride = first if position == 0 else 1
            x = _block(b, x, kernel, expansion, width, stride, activation, squeezed)
    x = b.activation(b.batch_norm(b.conv(x, 960, kernel=1)), "HardSwish")
    x = b.activation(b.conv(b.global_avg_pool(x), 1280, kernel=1), "HardSwish")
    return b.build(b.linear(b.flatten(x), 1000))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and top-1 accuracies (percent, mean over measurements) in order of first appearance.

    Raises:
        DataError: A file is missing or damaged, or the task does not exist.
    """
    rows = _rows(paths, task)
    return list(rows), np.array([np.mean(row["Top-1 Acc (%)"]) for row in rows.values()])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published, in the order of `read_labels`."""
    rows = _rows(paths, task).values()
    return (
        np.array([row["Model Parameters"][0] for row in rows]),
        np.array([row["MACs"][0] for row in rows]),
    )


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, depth, kernels and expansions uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "OFA-MBv3")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        stages = tuple(
            tuple((int(rng.choice((3, 5, 7))), int(rng.choice((3, 4, 6)))) for _ in range(rng.integers(2, 5)))
            for _ in _WIDTHS
        )
        found[spec_of(stages)] = None
    return list(found)


def _block(
    b: OnnxBuilder,
    x: Value,
    kernel: int,
    expansion: int,
    channels: int,
    stride: int,
    activation: str,
    squeezed: bool,
) -> Value:
    hidden = _round_to_8(x.shape[0] * expansion)
    y = b.activation(b.batch_norm(b.conv(x, hidden, kernel=1)), activation)
    y = b.activation(b.batch_norm(b.conv(y, hidden, kernel=kernel, stride=stride, groups=hidden)), activation)
    if squeezed:
        y = squeeze_excite(b, y, _round_to_8(hidden // 4))
    y = b.batch_norm(b.conv(y, channels, kernel=1))
    return b.add(x, y) if stride == 1 and x.shape[0] == channels else y


def _round_to_8(channels: int) -> int:
    """The nearest multiple of 8 that is not below nine tenths of `channels` (Sandler et al. 2018)."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, dict[str, list[float]]]:
    check_task(task, TASKS, "OFA-MBv3")
    rows: dict[str, dict[str, list[float]]] = {}
    for name in _FILES:
        path = raw_path(paths, name)
        for line, row in enumerate(read_csv_rows(path, _COLUMNS), start=2):
            where = f"{path}, line {line}"
            measured = rows.setdefault(_spec_of_row(row["Sub-network"], where), {})
            for column in _COLUMNS[1:]:
                measured.setdefault(column, []).append(number(row[column], f"{where}, {column}"))
    return rows


def _spec_of_row(text: str, where: str) -> str:
    """The spec of a sub-network written as a Python dictionary of kernels, expansions, depths and resolution."""
    try:
        choice = parse_json(text.replace("'", '"').replace("None", "null"), where)
        kernels, expansions, depths = choice["ks"], choice["e"], choice["d"]
        stages = tuple(
            tuple((kernels[4 * i + j], expansions[4 * i + j]) for j in range(depth)) for i, depth in enumerate(depths)
        )
        resolution = choice["r"]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where}: not a sub-network ({error!r}): {text[:120]!r}") from error
    if resolution != [224]:
        raise DataError(f"{where}: expected the resolution [224], got {resolution}")
    return check_spec(spec_of(stages), parse, where)
