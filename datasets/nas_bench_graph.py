"""NAS-Bench-Graph: 26,206 graph neural networks of four operations, trained on nine graph data sets.

Y. Qin, Z. Zhang, X. Wang, Z. Zhang, W. Zhu, "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search",
NeurIPS 2022 (Datasets and Benchmarks). Layers, widths and the order inside a cell follow the benchmark generation code
in the paper's supplement; that code is the only source for "batch norm and ReLU come before an operation, unless its
input is the raw features", for the four attention heads (a comment in the repository says two), and for the missing
activation between the last two linear layers.

A spec is the official pair of lists, `0-0-1-2|gcn-gin-fc-cheb`: the input of each operation (0 is the network's input,
i the output of operation i) and the four operations. The labels are test accuracies at the epoch of the best
validation, mean of 3 seeds (`proteins`: ROC-AUC in percent). See `gnn_layers` for the graph the networks are written
for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .extracts import read_extract
from .gnn_layers import GnnBuilder
from .onnx_builder import Value
from .pickled_numbers import read_pickled_numbers
from .raw_files import check_spec, check_task, number, raw_path, zip_members
from .space import check_count

TABLE = "nas_bench_graph.csv.gz"
"""The extract of the published files; `read_labels` takes it where those are not given."""

WHEEL = "nas_bench_graph-1.4.0-py3-none-any.whl"
"""The published files of all tasks, as the package nas-bench-graph holds them."""

OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
LINKS = (
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 1, 1),
    (0, 0, 1, 2),
    (0, 0, 1, 3),
    (0, 1, 1, 1),
    (0, 1, 1, 2),
    (0, 1, 2, 2),
    (0, 1, 2, 3),
)
_HEADS = 4


class Layers(NamedTuple):
    """What is tuned for a data set: the width, and the linear layers before and after the cell."""

    width: int
    before: int
    after: int


class _Data(NamedTuple):
    """A data set, its features and classes, and the layers tuned for it."""

    features: int
    classes: int
    layers: Layers


_DATA = {
    "cora": _Data(1433, 7, Layers(256, 0, 1)),
    "citeseer": _Data(3703, 6, Layers(256, 0, 1)),
    "pubmed": _Data(500, 3, Layers(128, 0, 0)),
    "cs": _Data(6805, 15, Layers(128, 1, 0)),
    "physics": _Data(8415, 5, Layers(256, 1, 0)),
    "photo": _Data(745, 8, Layers(128, 0, 0)),
    "computers": _Data(767, 10, Layers(64, 1, 1)),
    "arxiv": _Data(128, 40, Layers(128, 0, 1)),
    "proteins": _Data(8, 112, Layers(256, 1, 1)),
}
TASKS = tuple(_DATA)
SIZE = 33_550
"""Specs that `sample` gives at most."""


class Cell(NamedTuple):
    """Input of each operation (0 to 3), and the operations."""

    links: tuple[int, ...]
    operations: tuple[str, ...]

    @property
    def leaves(self) -> tuple[int, ...]:
        """Operations (1 to 4) that feed no other; their outputs are concatenated."""
        return tuple(i for i in range(1, 5) if i not in self.links)

    @property
    def raw(self) -> tuple[bool, ...]:
        """Whether state i (0 to 4) is the cell's input, handed on by `skip` alone."""
        states = [True]
        for link, op in zip(self.links, self.operations, strict=True):
            states.append(states[link] and op == "skip")
        return tuple(states)


def parse(spec: str) -> Cell:
    """The cell of a spec.

    Raises:
        DataError: It is not a network of this space.
    """
    links, _, operations = spec.partition("|")
    ops = tuple(operations.split("-"))
    known = {"-".join(map(str, link)): link for link in LINKS}
    if links not in known or len(ops) != 4 or not set(ops) <= set(OPERATIONS):
        raise DataError(
            f"NAS-Bench-Graph network {spec!r}: expected inputs|operations like 0-0-1-2|gcn-gin-fc-cheb with "
            f"the inputs {', '.join(known)} and the operations {', '.join(OPERATIONS)}"
        )
    cell = Cell(known[links], ops)
    if any(cell.raw[leaf] for leaf in cell.leaves):
        raise DataError(
            f"NAS-Bench-Graph network {spec!r}: an output is the input itself; expected an operation other than skip "
            "on every way"
        )
    return cell


def spec_of(cell: Cell) -> str:
    """The spec of a cell."""
    return f"{'-'.join(map(str, cell.links))}|{'-'.join(cell.operations)}"


def build(spec: str, task: str, layers: Layers | None = None) -> ModelProto:
    """The network of a cell with the features, classes and tuned widths of a data set.

    Inputs are `features` (32, F) and `adjacency` (32, 32), the output is (32, classes). Other `layers` than
    the tuned ones can be given.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-Graph")
    cell, data = parse(spec), _DATA[task]
    width, before, after = layers or data.layers
    b = GnnBuilder(spec, data.features)
    states: list[Value] = [b.linear(b.input, width) if before else b.input]
    for link, op in zip(cell.links, cell.operations, strict=True):
        x = states[link]
        if before or not cell.raw[link]:
            x = b.relu(b.batch_norm(x))
        states.append(_operation(b, x, op, width))
    leaves = [states[leaf] for leaf in cell.leaves]
    x = b.relu(leaves[0] if len(leaves) == 1 else b.concat(leaves, axis=1))
    for _ in range(after):
        x = b.linear(x, width)
    return b.build(b.linear(x, data.classes))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and test accuracies (percent), sorted by spec, from the wheel, `<task>.bench`, or else from the extract.

    Raises:
        DataError: A file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-Graph")
    if WHEEL in paths or f"{task}.bench" in paths:
        rows = {spec: 100 * values["perf"] for spec, values in _published(paths, task).items()}
    else:
        rows = _extract(paths, f"{task}_test")
    specs = sorted(rows)
    return specs, np.array([rows[spec] for spec in specs])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], None]:
    """Published parameters (wheel or `<task>.bench`) less those without any effect, in the order of `read_labels`.

    The source counts a batch norm for every operation, also where the input is raw and none is applied, and the second
    weight of an ARMA filter (width x width), which a filter of one step never uses. The numbers of 1,567
    networks of `physics` are not whole: they are means of three trainings, one of which had 128 channels instead of 256
    and no layer before the cell.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-Graph")
    rows = _published(paths, task)
    layers = _DATA[task].layers
    return np.array([round(1e6 * rows[spec]["para"], 2) - without_effect(spec, layers) for spec in sorted(rows)]), None


def without_effect(spec: str, layers: Layers) -> int:
    """Parameters that the source counts for a network with these layers, and that have no effect."""
    cell = parse(spec)
    idle = 0 if layers.before else sum(cell.raw[link] for link in cell.links)
    return 2 * layers.width * idle + layers.width**2 * cell.operations.count("arma")


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly; the same for the same seed.

    No two are the same tree of operations.

    Raises:
        DataError: n is negative or above the size of the space.
    """
    check_count(n, SIZE, "NAS-Bench-Graph")
    specs = _all_specs()
    return [specs[i] for i in np.random.default_rng(seed).choice(len(specs), n, replace=False)]


@cache
def _all_specs() -> tuple[str, ...]:
    found: dict[object, str] = {}
    for links in LINKS:
        for operations in product(OPERATIONS, repeat=4):
            cell = Cell(links, operations)
            if not any(cell.raw[leaf] for leaf in cell.leaves):
                found.setdefault(_tree(cell, 0), spec_of(cell))
    return tuple(found.values())


def _tree(cell: Cell, state: int) -> tuple[object, ...]:
    """What hangs on a state, whatever the order of the operations."""
    below = (
        (cell.operations[i], repr(_tree(cell, i + 1)), _tree(cell, i + 1))
        for i, link in enumerate(cell.links)
        if link == state
    )
    return tuple((op, tree) for op, _, tree in sorted(below, key=lambda item: item[:2]))


def _operation(b: GnnBuilder, x: Value, op: str, width: int) -> Value:
    match op:
        case "skip":
            return x
        case "fc":
            return b.linear(x, width)
        case "gat":
            return b.gat(x, width, _HEADS)
        case "gcn":
            return b.gcn(x, width)
        case "gin":
            return b.gin(x, width)
        case "cheb":
            return b.chebyshev(x, width)
        case "sage":
            return b.sage(x, width)
        case "arma":
            return b.arma(x, width)
        case _:
            return b.k_gnn(x, width)


def _published(paths: Mapping[str, Path], task: str) -> dict[str, dict[str, float]]:
    """Spec → the numbers of a published file: a pickled dict, link index and four base-10 digits → numbers."""
    path = raw_path(paths, WHEEL if WHEEL in paths else f"{task}.bench")
    if path.name == WHEEL:
        members = dict(zip_members(path, f"light/{task}.bench"))
        if len(members) != 1:
            raise DataError(f"{path}: expected one file light/{task}.bench, got {len(members)}")
        content = members.popitem()[1]
    else:
        content = path.read_bytes()
    rows: dict[str, dict[str, float]] = {}
    for key, values in read_pickled_numbers(content, str(path)).items():
        digits = [int(key) // 10**place % 10 for place in (3, 2, 1, 0)]
        link = int(key) // 10**4
        if link >= len(LINKS) or max(digits) >= len(OPERATIONS) or not {"perf", "para"} <= set(values):
            raise DataError(f"{path}: the entry {key} with {', '.join(values)} is no network of NAS-Bench-Graph")
        spec = spec_of(Cell(LINKS[link], tuple(OPERATIONS[digit] for digit in digits)))
        rows[check_spec(spec, parse, str(path))] = values
    return rows


def _extract(paths: Mapping[str, Path], column: str) -> dict[str, float]:
    rows: dict[str, float] = {}
    for source, row in read_extract(paths, TABLE, ("link", "ops", column)):
        if row[column]:
            spec = check_spec(f"{row['link']}|{row['ops']}", parse, source)
            if spec in rows:
                raise DataError(f"{source}: the network {spec!r} occurs twice")
            rows[spec] = number(row[column], source)
    return rows
