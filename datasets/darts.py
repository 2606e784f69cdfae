"""DARTS cells: genotypes of the DARTS search space, built as the CIFAR-10 network with 36 channels and 20 cells.

H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

A spec is the normal and the reduction cell joined by `|`; a cell is 8 edges `operation@input`, two for each of the
vertices 2 to 5, joined by `;`. Three sets of genotypes were trained for CIFAR-10:

* `oncenas`: 545 genotypes of OnceNAS-Bench, validation accuracy after 50 epochs; a few runs diverged.
* `nas_efh`: the 214 random genotypes of A. Yang, P. M. Esperança, F. M. Carlucci, "NAS Evaluation is Frustratingly
  Hard", ICLR 2020; best test accuracy in 600 epochs, 96.2 to 97.6 %.
* `swap`: 1,000 random cells, the normal one and the reduction the same, beside the code of Y. Peng, A. Song, H. M.
  Fayek, V. Ciesielski, X. Chang, "SWAP-NAS", ICLR 2024. The network behind these labels is not published; by their
  level (79 % after 200 epochs) it was far smaller than the one built here, so only their order means something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .extracts import read_extract
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_spec, check_task, column, number, raw_path, read_csv_rows
from .space import Labelled, Space, check_count

TASKS = ("cifar10",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CHANNELS = 36
CELLS = 20

_FILE = "data-545.csv"
_TABLES = {
    "nas_efh": ("nas_efh_random.csv.gz", "cifar10_test_accuracy_600ep"),
    "swap": ("swap_darts.csv.gz", "cifar10_valid_accuracy_200ep"),
}
_EDGE = re.compile(r"(\w+)@([0-4])")
_PUBLISHED = re.compile(r"\('(\w+)', ([0-9])\)")

Edges = tuple[tuple[str, int], ...]


def parse(spec: str) -> tuple[Edges, Edges]:
    """The normal and the reduction cell of a spec, each 8 pairs of operation and input.

    Raises:
        DataError: It is not a genotype of this space.
    """
    parts = spec.split("|")
    if len(parts) != 2:
        raise DataError(f"DARTS genotype {spec!r}: expected a normal and a reduction cell joined by |")
    normal, reduction = (_parse_cell(part, spec) for part in parts)
    return normal, reduction


def spec_of(normal: Edges, reduction: Edges) -> str:
    """The spec of two cells."""
    return "|".join(";".join(f"{op}@{source}" for op, source in cell) for cell in (normal, reduction))


def build(spec: str, task: str) -> ModelProto:
    """The network of a genotype, input 3x32x32, without the auxiliary head.

    `none` edges are written as a multiplication by zero.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "DARTS")
    normal, reduction = parse(spec)
    b = OnnxBuilder(spec, (3, 32, 32))
    before = x = b.batch_norm(b.conv(b.input, 3 * CHANNELS))
    width = CHANNELS
    for position in range(CELLS):
        reduces = position in (CELLS // 3, 2 * CELLS // 3)
        if reduces:
            width *= 2
        before, x = x, cell(b, before, x, reduction if reduces else normal, width, 2 if reduces else 1)
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and accuracies (percent) of a set, in the order of its file; a genotype trained twice has the mean.

    Raises:
        DataError: The file is missing or damaged, or the task or the set does not exist.
    """
    check_space(space, ("oncenas", *_TABLES), "darts_trained")
    if space == "oncenas":
        rows = _rows(paths, task)
        return list(rows), column(rows, "valid_acc50", _FILE)
    check_task(task, TASKS, "DARTS")
    name, label = _TABLES[space]
    found: dict[str, list[float]] = {}
    for source, row in read_extract(paths, name, ("normal", "reduce", label)):
        spec = check_spec(f"{row['normal']}|{row['reduce']}", parse, source)
        found.setdefault(spec, []).append(number(row[label], f"{source}, {label}"))
    return list(found), np.array([float(np.mean(values)) for values in found.values()])


def read_side(paths: Mapping[str, Path], task: str) -> Labelled:
    """Measured latencies (ms) of the networks of `oncenas` on a graphics card.

    The latencies of other devices in that file are left out: they have nothing to do with the networks.
    """
    rows = _rows(paths, task)
    return list(rows), {"gpu_latency_ms": column(rows, "gpu_latency", _FILE)}


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates of the networks of `oncenas` as published, in the order of `read_labels`."""
    rows = _rows(paths, task)
    return (1e6 * column(rows, "params", _FILE)).round(), (1e6 * column(rows, "flop", _FILE)).round()


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different genotypes without `none` uniformly per choice; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "DARTS")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        cells = [
            tuple(
                (str(rng.choice(OPERATIONS[1:])), int(source))
                for vertex in range(2, 6)
                for source in rng.choice(vertex, 2, replace=False)
            )
            for _ in range(2)
        ]
        found[spec_of(cells[0], cells[1])] = None
    return list(found)


def factorized_reduce(b: OnnxBuilder, x: Value, channels: int) -> Value:
    """Half the resolution by two 1x1 convolutions with stride 2, the second one pixel further down and right."""
    y = b.relu(x)
    height, width = y.shape[1:]
    shifted = b.slice(y, (1, 2), (1, 1), (height, width))
    halves = (b.conv(part, channels // 2, kernel=1, stride=2) for part in (y, shifted))
    return b.batch_norm(b.concat(tuple(halves)))


def cell(b: OnnxBuilder, before: Value, x: Value, edges: Edges, width: int, stride: int) -> Value:
    """A cell of four vertices on the two cells before it; the vertices are concatenated."""
    enter = relu_conv_bn if before.shape[1:] == x.shape[1:] else factorized_reduce
    vertices = [enter(b, before, width), relu_conv_bn(b, x, width)]
    for vertex in range(4):
        operands = [
            edge(b, vertices[source], op, stride if source < 2 else 1) for op, source in edges[2 * vertex :][:2]
        ]
        vertices.append(b.add(operands[0], operands[1]))
    return b.concat(vertices[2:])


def edge(b: OnnxBuilder, x: Value, op: str, stride: int) -> Value:
    """One operation between two vertices."""
    channels = x.shape[0]
    kernel = 5 if op.endswith("5x5") else 3
    match op:
        case "none":
            return b.zero(x if stride == 1 else b.max_pool(x, kernel=1, stride=stride))
        case "skip_connect":
            return x if stride == 1 else factorized_reduce(b, x, channels)
        case "max_pool_3x3":
            return b.max_pool(x, kernel=3, stride=stride, padding=1)
        case "avg_pool_3x3":
            return b.avg_pool(x, kernel=3, stride=stride, padding=1)
        case "sep_conv_3x3" | "sep_conv_5x5":
            return separable(b, separable(b, x, kernel, stride, 1), kernel, 1, 1)
        case _:
            return separable(b, x, kernel, stride, 2)


def separable(b: OnnxBuilder, x: Value, kernel: int, stride: int, dilation: int) -> Value:
    """A separable convolution, once: ReLU, depthwise, pointwise, batch norm."""
    channels = x.shape[0]
    y = b.conv(b.relu(x), channels, kernel=kernel, stride=stride, groups=channels, dilation=dilation)
    return b.batch_norm(b.conv(y, channels, kernel=1))


def relu_conv_bn(b: OnnxBuilder, x: Value, channels: int) -> Value:
    """ReLU, 1x1 convolution, batch norm."""
    return b.batch_norm(b.conv(b.relu(x), channels, kernel=1))


def _parse_cell(text: str, spec: str) -> Edges:
    edges: list[tuple[str, int]] = []
    for position, part in enumerate(text.split(";")):
        match = _EDGE.fullmatch(part)
        if match is None or match[1] not in OPERATIONS or int(match[2]) > position // 2 + 1:
            raise DataError(
                f"DARTS genotype {spec!r}: edge {position} should be operation@input with one of {OPERATIONS} "
                f"and an input below {position // 2 + 2}, got {part!r}"
            )
        edges.append((match[1], int(match[2])))
    if len(edges) != 8:
        raise DataError(f"DARTS genotype {spec!r}: expected 8 edges per cell, got {len(edges)}")
    return tuple(edges)


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, dict[str, str]]:
    check_task(task, TASKS, "DARTS")
    path = raw_path(paths, _FILE)
    rows: dict[str, dict[str, str]] = {}
    for line, row in enumerate(read_csv_rows(path, ("architecture", "flop", "params", "valid_acc50")), start=2):
        edges = tuple((op, int(source)) for op, source in _PUBLISHED.findall(row["architecture"]))
        if len(edges) != 16:
            raise DataError(f"{path}, line {line}: expected a genotype of 16 edges, got {len(edges)}")
        spec = check_spec(spec_of(edges[:8], edges[8:]), parse, f"{path}, line {line}")
        if spec in rows:
            raise DataError(f"{path}, line {line}: this genotype occurs twice")
        rows[spec] = row
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    return rows


SPACES = {
    space: Space(
        TASKS, SIZE, build, partial(read_labels, space=space), sample, read_side if space == "oncenas" else None
    )
    for space in ("oncenas", *_TABLES)
}
"""The three trained sets: oncenas, nas_efh and swap."""
