"""NAS-Bench-101: cells of up to seven vertices and nine edges, trained on CIFAR-10.

C. Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019.

A spec is the adjacency matrix, row by row, and the operations in vertex order, e.g.
`0110001000010000:input,maxpool3x3,conv3x3-bn-relu,output`. The labels are validation accuracies after 108 epochs of the
500 cells published with NAS-Bench-Suite-Zero (Krishnakumar et al. 2022).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, column, field, read_json_object
from .space import check_count

TASKS = ("cifar10",)
SIZE = 100_000
"""Specs that `sample` gives at most."""
OPERATIONS = ("maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu")
MAX_VERTICES = 7
MAX_EDGES = 9

_FILE = "zc_nasbench101.json"
_CODES = dict(enumerate(("input", "output", *OPERATIONS)))
_KEY = re.compile(r"\([0-9](, [0-9]){55}\)")


class Cell(NamedTuple):
    """A cell without the vertices that lie on no path from input to output.

    Attributes:
        edges: `edges[i]` holds the vertices that vertex i feeds, ascending.
        operations: One per vertex; the first is "input", the last "output".
    """

    edges: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]


def parse(spec: str) -> Cell:
    """The pruned cell of a spec.

    Raises:
        DataError: The spec is not a cell of this space.
    """
    digits, _, names = spec.partition(":")
    operations = names.split(",")
    n = isqrt(len(digits))
    if n * n != len(digits) or not 2 <= n <= MAX_VERTICES or not set(digits) <= set("01"):
        raise DataError(
            f"NAS-Bench-101 cell {spec!r}: expected n*n digits out of 0, 1 for 2 to {MAX_VERTICES} vertices"
        )
    if len(operations) != n or operations[0] != "input" or operations[-1] != "output":
        raise DataError(f"NAS-Bench-101 cell {spec!r}: expected {n} operations from input to output, got {names!r}")
    unknown = [op for op in operations[1:-1] if op not in OPERATIONS]
    if unknown:
        raise DataError(f"NAS-Bench-101 cell {spec!r}: unknown operation {unknown[0]!r}; expected {OPERATIONS}")
    matrix = np.array([int(digit) for digit in digits], dtype=bool).reshape(n, n)
    if np.tril(matrix).any():
        raise DataError(f"NAS-Bench-101 cell {spec!r}: the matrix must be upper triangular (edges go forward)")
    return _prune(matrix, operations, spec)


def spec_of(cell: Cell) -> str:
    """The spec of a cell."""
    n = len(cell.edges)
    digits = "".join("1" if j in cell.edges[i] else "0" for i in range(n) for j in range(n))
    return f"{digits}:{','.join(cell.operations)}"


def vertex_channels(cell: Cell, channels: int) -> tuple[int, ...]:
    """Channels of every interior vertex for `channels` cell outputs (Ying et al. 2019, sec. 2.1), 0 for the ends.

    The vertices that feed the output share its channels, the first ones get the remainder; any other vertex has the
    maximum of its successors.
    """
    last = len(cell.edges) - 1
    sharing = [i for i in range(1, last) if last in cell.edges[i]]
    result = [0] * (last + 1)
    for position, i in enumerate(sharing):
        result[i] = channels // len(sharing) + (position < channels % len(sharing))
    for i in range(last - 1, 0, -1):
        if not result[i]:
            result[i] = max(result[j] for j in cell.edges[i])
    return tuple(result)


def build(spec: str, task: str) -> ModelProto:
    """The network of a cell: three stacks of three cells with 128, 256 and 512 channels, input 3x32x32.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-101")
    cell = parse(spec)
    b = OnnxBuilder(spec, (3, 32, 32))
    x = _conv_bn_relu(b, b.input, 128, 3)
    for channels in (128, 256, 512):
        if channels > 128:
            x = b.max_pool(x, kernel=2, stride=2)
        for _ in range(3):
            x = _cell(b, x, cell, channels)
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and validation accuracies (percent, 108 epochs) of the 500 published cells, in the order of the file.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    rows = _rows(paths, task)
    return list(rows), column(rows, "val_accuracy", _FILE)


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published (batch norm counted), in the order of `read_labels`."""
    rows = _rows(paths, task)
    return (column(rows, "params", _FILE) * 1e6).round(), (column(rows, "flops", _FILE) * 1e6).round()


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different pruned cells; the same for the same seed.

    Edges and operations are drawn uniformly for seven vertices and cells that break the rules are drawn again, so this
    is no uniform sample of the cells.

    Raises:
        DataError: n is negative or above 100,000.
    """
    check_count(n, SIZE, "NAS-Bench-101")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        matrix = np.triu(rng.random((MAX_VERTICES, MAX_VERTICES)) < 0.5, 1)
        inner = rng.choice(OPERATIONS, MAX_VERTICES - 2)
        try:
            found[spec_of(_prune(matrix, ["input", *map(str, inner), "output"], "sample"))] = None
        except DataError:
            continue
    return list(found)


def _prune(matrix: NDArray[np.bool_], operations: list[str], spec: str) -> Cell:
    n = len(operations)
    reached, reaching = {0}, {n - 1}
    for i in range(n):
        if i in reached:
            reached |= {int(j) for j in np.flatnonzero(matrix[i])}
    for i in reversed(range(n)):
        if any(matrix[i, j] for j in reaching):
            reaching.add(i)
    kept = sorted(reached & reaching)
    if len(kept) < 2 or kept[0] != 0 or kept[-1] != n - 1:
        raise DataError(f"NAS-Bench-101 cell {spec!r}: there is no path from input to output")
    edges = tuple(tuple(kept.index(j) for j in kept if matrix[i, j]) for i in kept)
    if sum(map(len, edges)) > MAX_EDGES:
        raise DataError(f"NAS-Bench-101 cell {spec!r}: {sum(map(len, edges))} edges, expected at most {MAX_EDGES}")
    return Cell(edges, tuple(operations[i] for i in kept))


def _cell(b: OnnxBuilder, x: Value, cell: Cell, channels: int) -> Value:
    last = len(cell.edges) - 1
    widths = vertex_channels(cell, channels)
    values: list[Value] = [x]
    for i in range(1, last):
        operands = [_truncate(b, values[j], widths[i]) for j in range(1, i) if i in cell.edges[j]]
        if i in cell.edges[0]:
            operands.append(_conv_bn_relu(b, x, widths[i], 1))
        total = operands[0] if len(operands) == 1 else b.add(*operands)
        values.append(_operation(b, total, cell.operations[i]))
    parts = [values[i] for i in range(1, last) if last in cell.edges[i]]
    if not parts:
        return _conv_bn_relu(b, x, channels, 1)
    joined = parts[0] if len(parts) == 1 else b.concat(parts)
    return b.add(joined, _conv_bn_relu(b, x, channels, 1)) if last in cell.edges[0] else joined


def _operation(b: OnnxBuilder, x: Value, operation: str) -> Value:
    if operation == "maxpool3x3":
        return b.max_pool(x, kernel=3, padding=1)
    return _conv_bn_relu(b, x, x.shape[0], 1 if operation == "conv1x1-bn-relu" else 3)


def _conv_bn_relu(b: OnnxBuilder, x: Value, channels: int, kernel: int) -> Value:
    return b.relu(b.batch_norm(b.conv(x, channels, kernel=kernel)))


def _truncate(b: OnnxBuilder, x: Value, channels: int) -> Value:
    return x if x.shape[0] == channels else b.slice(x, (0,), (0,), (channels,))


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, object]:
    check_task(task, TASKS, "NAS-Bench-101")
    content = read_json_object(paths, _FILE)
    cells = field(field(content, "nasbench101", _FILE), "cifar10", _FILE)
    if not isinstance(cells, dict):
        raise DataError(f"{_FILE}: expected one entry per network below nasbench101/cifar10")
    return {_spec_of_key(key): row for key, row in cells.items()}


def _spec_of_key(key: str) -> str:
    """The spec of `(49 matrix digits, 7 operation codes)` as the published file writes it."""
    numbers = [int(digit) for digit in re.findall("[0-9]", key)]
    if not _KEY.fullmatch(key) or any(code not in _CODES for code in numbers[49:]):
        raise DataError(f"{_FILE}: expected a key of 49 matrix entries and 7 operation codes, got {key[:200]!r}")
    spec = "".join(map(str, numbers[:49])) + ":" + ",".join(_CODES[code] for code in numbers[49:])
    return check_spec(spec, parse, _FILE)
