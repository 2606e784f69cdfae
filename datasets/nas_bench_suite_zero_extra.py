"""NAS-Bench-Suite-Zero's extra data sets: some 200 known architectures on SVHN, Spherical-CIFAR-100 and NinaPro.

A. Krishnakumar, C. White, A. Zela, R. Tu, M. Safari, F. Hutter, "NAS-Bench-Suite-Zero: Accelerating Research on Zero
Cost Proxies", NeurIPS 2022 (Datasets and Benchmarks). Three spaces: `nas_bench_201` and `nas_bench_301` on all three
data sets, `transnas_bench_101_micro` on SVHN only, because its deepest cells meet odd resolutions on the others and how
the source halves them could not be checked.

Specs are the cell string of NAS-Bench-201, two cells in the notation of `darts` (8 cells, 32 channels, as in
NAS-Bench-301) and the TransNAS string. The labels are validation accuracies (percent), one training each; epochs and
recipe are not known. The inputs are those of NAS-Bench-360 (R. Tu et al., NeurIPS 2022): 3x60x60 for the sphere and
1x16x52 for NinaPro (18 gestures); neither they nor any parameter count could be compared with the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from . import darts, nas_bench_201, transnas_bench_101
from .extracts import read_extract
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_spec, check_task, number
from .space import Space

TABLE = "nas_bench_suite_zero_extra.csv.gz"
"""The extract with the labels."""


class _Data(NamedTuple):
    """Input shape and classes of a data set."""

    shape: tuple[int, int, int]
    classes: int


_DATA = {"svhn": _Data((3, 32, 32), 10), "scifar100": _Data((3, 60, 60), 100), "ninapro": _Data((1, 16, 52), 18)}
_TASKS = {
    "nas_bench_201": tuple(_DATA),
    "nas_bench_301": tuple(_DATA),
    "transnas_bench_101_micro": ("svhn",),
}
_SIZES = {
    "nas_bench_201": nas_bench_201.SIZE,
    "nas_bench_301": darts.SIZE,
    "transnas_bench_101_micro": transnas_bench_101.SPACES["micro"].SIZE,
}
_CHANNELS, _CELLS = 32, 8
_PAIR = re.compile(r"\(([0-4]), ([0-6])\)")
_COMPACT = re.compile(
    r"\(\((\([0-4], [0-6]\)(, \([0-4], [0-6]\)){7})\), \((\([0-4], [0-6]\)(, \([0-4], [0-6]\)){7})\)\)"
)


def build(spec: str, task: str, space: str) -> ModelProto:
    """The network of a spec for a data set.

    Raises:
        DataError: The spec, the task or the space does not exist.
    """
    _check(task, space)
    data = _DATA[task]
    b = OnnxBuilder(spec, data.shape)
    x = _BODIES[space](b, spec)
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), data.classes))


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and validation accuracies (percent), sorted by spec.

    Raises:
        DataError: The file is missing or damaged, or the task or space does not exist.
    """
    _check(task, space)
    column = f"{task}_val_accuracy"
    rows: dict[str, float] = {}
    for source, row in read_extract(paths, TABLE, ("space", "arch", column)):
        if row["space"] != space or not row[column]:
            continue
        text = row["arch"]
        spec = check_spec(spec_of_compact(text) if space == "nas_bench_301" else text, _PARSERS[space], source)
        if spec in rows:
            raise DataError(f"{source}: the network {spec} occurs twice")
        rows[spec] = number(row[column], source)
    if not rows:
        raise DataError(f"{paths[TABLE]}: no network of {space} with a label for {task}")
    return sorted(rows), np.array([rows[spec] for spec in sorted(rows)])


def spec_of_compact(text: str) -> str:
    """The spec, in the notation of `darts`, of a compact tuple ((input, operation), ...) as the source writes it.

    Raises:
        DataError: It is no such tuple.
    """
    match = _COMPACT.fullmatch(text)
    if match is None:
        raise DataError(f"NAS-Bench-301 tuple {text!r}: expected two cells of eight (input, operation) pairs")
    normal, reduction = (
        tuple((darts.OPERATIONS[1:][int(op)], int(source)) for source, op in _PAIR.findall(match[group]))
        for group in (1, 3)
    )
    return darts.spec_of(normal, reduction)


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space, as its own module does; the same for the same seed.

    Raises:
        DataError: n is negative or too large, or the space does not exist.
    """
    check_space(space, _TASKS, "nas_bench_suite_zero_extra")
    if space == "nas_bench_201":
        return nas_bench_201.sample(n, seed)
    if space == "nas_bench_301":
        return darts.sample(n, seed)
    return transnas_bench_101.sample(n, seed, "micro")


def _check(task: str, space: str) -> None:
    check_space(space, _TASKS, "nas_bench_suite_zero_extra")
    check_task(task, _TASKS[space], f"nas_bench_suite_zero_extra/{space}")


def _nas_bench_201(b: OnnxBuilder, spec: str) -> Value:
    operations = nas_bench_201.parse(spec)
    x = b.batch_norm(b.conv(b.input, 16))
    for channels in (16, 32, 64):
        if channels > 16:
            x = nas_bench_201.reduction_block(b, x, channels)
        for _ in range(5):
            x = nas_bench_201.cell(b, x, operations)
    return b.relu(b.batch_norm(x))


def _nas_bench_301(b: OnnxBuilder, spec: str) -> Value:
    normal, reduction = darts.parse(spec)
    before = x = b.batch_norm(b.conv(b.input, 3 * _CHANNELS))
    width = _CHANNELS
    for position in range(_CELLS):
        reduces = position in (_CELLS // 3, 2 * _CELLS // 3)
        if reduces:
            width *= 2
        before, x = x, darts.cell(b, before, x, reduction if reduces else normal, width, 2 if reduces else 1)
    return x


def _transnas(b: OnnxBuilder, spec: str) -> Value:
    stages, operations = _transnas_parse(spec)
    x = b.batch_norm(b.conv(b.input, 32, stride=2))
    x = nas_bench_201.relu_conv_bn(b, x, 64, 3, stride=2)
    for stage in stages:
        channels = x.shape[0] * (2 if stage in "24" else 1)
        for stride in (2 if stage in "34" else 1, 1):
            x = transnas_bench_101.cell(b, x, operations, channels, stride)
    return x


def _transnas_parse(spec: str) -> tuple[str, tuple[int, ...]]:
    stages, operations = transnas_bench_101.parse(spec)
    if not operations:
        raise DataError(f"TransNAS-Bench-101 network {spec!r}: expected one of the micro space")
    return stages, operations


_BODIES: dict[str, Callable[[OnnxBuilder, str], Value]] = {
    "nas_bench_201": _nas_bench_201,
    "nas_bench_301": _nas_bench_301,
    "transnas_bench_101_micro": _transnas,
}
_PARSERS: dict[str, Callable[[str], object]] = {
    "nas_bench_201": nas_bench_201.parse,
    "nas_bench_301": darts.parse,
    "transnas_bench_101_micro": _transnas_parse,
}

SPACES = {
    space: Space(
        tasks,
        _SIZES[space],
        partial(build, space=space),
        partial(read_labels, space=space),
        partial(sample, space=space),
    )
    for space, tasks in _TASKS.items()
}
"""The three spaces."""
