"""Accel-NASBench: 5,125 MnasNet-like networks, really trained on ImageNet with a short recipe.

A. Ahmad et al., "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS", DAC 2024.

A spec is seven blocks joined by hyphens, each expansion, kernel, layers and, with squeeze-and-excite, `se`:
`e6k3l1-e4k5l2se-...`. The label is the top-1 validation accuracy after 16 epochs with progressive resizing; the 13
architectures trained twice have the mean of both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, field, number, parse_json, raw_path, tar_members
from .space import Labelled, check_count

TASKS = ("imagenet1k",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
_FILE = "anb_dataset_jsons.tar.gz"
_BLOCK = re.compile(r"e([146])k([35])l([1-4])(se)?")
_OUT = (16, 24, 40, 80, 112, 192, 320)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_MAX_LAYERS = (3, 3, 3, 3, 3, 4, 3)
_MEASURED = (
    ("latency", "ms", ("zcu102", "vck190")),
    ("throughput", "images_per_s", ("a100", "3090", "tpuv2", "tpuv3", "zcu102", "vck190")),
)
"""What was measured on which devices (two FPGA boards, two graphics cards, two tensor processors)."""


class Block(NamedTuple):
    """A block: expansion, depthwise kernel, layers, and whether it has squeeze-and-excite."""

    expansion: int
    kernel: int
    layers: int
    squeeze: bool


def parse(spec: str) -> tuple[Block, ...]:
    """The seven blocks of a spec.

    Raises:
        DataError: It is not a network of this space.
    """
    blocks: list[Block] = []
    for part in spec.split("-"):
        match = _BLOCK.fullmatch(part)
        if match is None:
            raise DataError(f"Accel-NASBench network {spec!r}: expected blocks like e4k5l2se, got {part!r}")
        blocks.append(Block(int(match[1]), int(match[2]), int(match[3]), match[4] is not None))
    if len(blocks) != len(_OUT) or any(block.layers > most for block, most in zip(blocks, _MAX_LAYERS, strict=True)):
        raise DataError(f"Accel-NASBench network {spec!r}: expected 7 blocks with at most {_MAX_LAYERS} layers")
    return tuple(blocks)


def spec_of(blocks: tuple[Block, ...]) -> str:
    """The spec of seven blocks."""
    return "-".join(f"e{b.expansion}k{b.kernel}l{b.layers}{'se' if b.squeeze else ''}" for b in blocks)


def build(spec: str, task: str) -> ModelProto:
    """The network of seven blocks, input 3x224x224, ReLU and hard-sigmoid gates.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "Accel-NASBench")
    blocks = parse(spec)
    b = OnnxBuilder(spec, (3, 224, 224))
    x = b.relu(b.batch_norm(b.conv(b.input, 32, stride=2)))
    for block, channels, stride in zip(blocks, _OUT, _STRIDES, strict=True):
        for layer in range(block.layers):
            x = _layer(b, x, block, channels, stride if layer == 0 else 1)
    x = b.relu(b.batch_norm(b.conv(x, 1280, kernel=1)))
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 1000))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and top-1 accuracies (percent), sorted by spec.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    rows = _rows(paths, task)
    return list(rows), np.array(
        [np.mean([number(run[0]["val_top1"], _FILE) for run in runs]) for runs in rows.values()]
    )


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published, in the order of `read_labels`.

    The published multiply-accumulates count batch norm and activations too, unlike ours.
    """
    rows = _rows(paths, task)
    costs = [[round(1e6 * number(runs[0][1][key], _FILE)) for runs in rows.values()] for key in ("params", "macs")]
    return np.array(costs[0], dtype=float), np.array(costs[1], dtype=float)


def read_side(paths: Mapping[str, Path], task: str) -> Labelled:
    """Measured latencies (`latency_<device>_ms`) and throughputs (`throughput_<device>_images_per_s`), NaN where none.

    A network that was trained twice has the mean.
    """
    rows = _rows(paths, task)
    side = {}
    for kind, unit, devices in _MEASURED:
        for device in devices:
            values = [[_measured(run[2], f"{kind}_{device}", f"{kind}_mean") for run in runs] for runs in rows.values()]
            side[f"{kind}_{device}_{unit}"] = np.array([float(np.mean(pair)) for pair in values])
    return list(rows), side


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly per choice; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "Accel-NASBench")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        blocks = tuple(
            Block(
                int(rng.choice((1, 4, 6))),
                int(rng.choice((3, 5))),
                int(rng.integers(1, most + 1)),
                bool(rng.integers(2)),
            )
            for most in _MAX_LAYERS
        )
        found[spec_of(blocks)] = None
    return list(found)


def _layer(b: OnnxBuilder, x: Value, block: Block, channels: int, stride: int) -> Value:
    in_channels = x.shape[0]
    hidden = in_channels * block.expansion
    y = b.relu(b.batch_norm(b.conv(x, hidden, kernel=1))) if block.expansion > 1 else x
    y = b.relu(b.batch_norm(b.conv(y, hidden, kernel=block.kernel, stride=stride, groups=hidden)))
    if block.squeeze:
        y = squeeze_excite(b, y, max(1, in_channels // 4))
    y = b.batch_norm(b.conv(y, channels, kernel=1))
    return b.add(x, y) if stride == 1 and in_channels == channels else y


def squeeze_excite(b: OnnxBuilder, x: Value, squeezed: int) -> Value:
    """Squeeze-and-excite (Hu et al. 2018) with `squeezed` channels, ReLU and a hard-sigmoid gate."""
    gate = b.relu(b.conv(b.global_avg_pool(x), squeezed, kernel=1, bias=True))
    return b.mul(x, b.activation(b.conv(gate, x.shape[0], kernel=1, bias=True), "HardSigmoid"))


_Run = tuple[dict[str, object], dict[str, object], dict[str, object]]


def _measured(performance: dict[str, object], key: str, mean: str) -> float:
    """What a network reached on one device; NaN where it was not measured there."""
    value = performance.get(key)
    value = value.get(mean) if isinstance(value, dict) else None
    return math.nan if value is None else number(value, f"{_FILE}, {key}")


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, list[_Run]]:
    """Spec → (metrics, model_info, platform_perf) of every training of it, sorted by spec."""
    check_task(task, TASKS, "Accel-NASBench")
    path = raw_path(paths, _FILE)
    rows: dict[str, list[_Run]] = {}
    for name, content in tar_members(path):
        if not name.endswith(".json"):
            continue
        source = f"{path}, {name}"
        run = parse_json(content, source)
        choices = field(run, "architecture", source)
        spec = spec_of(
            tuple(
                Block(*(field(choices, f"block{i}_{key}", source) for key in ("e", "k", "l", "se")))
                for i in range(len(_OUT))
            )
        )
        check_spec(spec, parse, source)
        metrics, info = field(run, "metrics", source), field(run, "model_info", source)
        number(field(metrics, "val_top1", source), source)
        for key in ("params", "macs"):
            number(field(info, key, source), source)
        rows.setdefault(spec, []).append((metrics, info, run.get("platform_perf", {})))
    if not rows:
        raise DataError(f"{path}: no result in the archive")
    return dict(sorted(rows.items()))
