"""GraphGym: a design space of graph neural networks; 96 designs trained on each of 43 graph tasks.

J. You, R. Ying, J. Leskovec, "Design Space for Graph Neural Networks", NeurIPS 2020, sections 3 and 4 and the official
code (GraphGym). The labels are the second round: a full grid of 96 designs with one recipe (400 epochs, Adam at 0.01,
batch norm, PReLU, no dropout; link tasks 100 epochs). A label is the validation accuracy of the last epoch, mean of 3
seeds. Round one (random designs whose recipes vary) has no labels here.

A spec names the design: `pre=1,mp=2,post=2,stage=skipsum,agg=add,bn=1,act=prelu` (layers before, of and after message
passing; how layers are joined; aggregation; batch norm; activation). Widths are no free choice: GraphGym takes the
smallest width whose parameters reach those of the reference design (one layer before, two of width 256, one after,
stack) when node features and classes count 1; features that a synthetic task adds count 10 more. The published
parameter counts follow this rule on all 4,123 rows, which is also where features and classes of each task come from.

See `gnn_layers` for the graph the networks are written for. Graph tasks add up all nodes before the last layers; link
tasks end in the scalar products of all pairs of nodes.
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
from .raw_files import check_spec, check_task, number, raw_path, read_csv_rows
from .space import check_count

_FILE = "design_v2_grid_round2_val.csv"
LINK_TABLE = "gnn_link.csv.gz"
"""The extract with the labels of the link tasks."""

_REFERENCE_WIDTH = 256
_ADDED_FEATURES = 10


class _Task(NamedTuple):
    """A task as the table names it, features and classes (1: one logit) of its data, and node, graph or link."""

    dataset: str
    feature: str
    label: str
    features: int
    classes: int
    level: str


def _tasks() -> dict[str, _Task]:
    real = (
        ("AmazonComputers", 767, 10, False),
        ("AmazonPhoto", 745, 8, False),
        ("CiteSeer", 3703, 6, False),
        ("CoauthorCS", 6805, 15, False),
        ("CoauthorPhysics", 8415, 5, False),
        ("Cora", 1433, 7, False),
        ("TU_BZR", 53, 1, True),
        ("TU_COX2", 35, 1, True),
        ("TU_DD", 89, 1, True),
        ("TU_ENZYMES", 3, 6, True),
        ("TU_IMDB", 1, 3, True),
        ("TU_PROTEINS", 3, 1, True),
    )
    tasks = {
        name.lower().removeprefix("tu_"): _Task(name, "", "", features, classes, "graph" if graph else "node")
        for name, features, classes, graph in real
    }
    short = {
        "clustering": "node_clustering_coefficient",
        "const": "node_const",
        "onehot": "node_onehot",
        "pagerank": "node_pagerank",
        "path": "graph_path_len",
    }
    for dataset, feature, label in product(
        ("scalefree", "smallworld"), ("clustering", "const", "onehot", "pagerank"), ("clustering", "pagerank", "path")
    ):
        if feature != label:
            tasks[f"{dataset}-{feature}-{label}"] = _Task(
                dataset, short[feature], short[label], _ADDED_FEATURES + 1, 5, "graph" if label == "path" else "node"
            )
    for name, features, _, _ in real:
        if name != "TU_IMDB":
            tasks[f"{name.lower().removeprefix('tu_')}-link"] = _Task(name, "", "", features, 0, "link")
    return tasks


_TASKS = _tasks()
TASKS = tuple(_TASKS)
"""Six node and six graph data sets, ten pairs of feature and statistic for two synthetic ones each, 11 link tasks."""
SIZE = 1_944
"""Specs that `sample` gives at most."""


class Design(NamedTuple):
    """A design; the fields stand in a spec in this order."""

    pre: int
    mp: int
    post: int
    stage: str
    agg: str
    bn: int
    act: str


_CHOICES: dict[str, tuple[int, ...] | tuple[str, ...]] = {
    "pre": (1, 2, 3),
    "mp": (2, 4, 6, 8),
    "post": (1, 2, 3),
    "stage": ("stack", "skipsum", "skipconcat"),
    "agg": ("add", "mean", "max"),
    "bn": (0, 1),
    "act": ("relu", "prelu", "swish"),
}


def parse(spec: str) -> Design:
    """The design of a spec.

    Raises:
        DataError: It is not a design of this space.
    """
    found = dict(part.partition("=")[::2] for part in spec.split(","))
    known = {name: {str(choice): choice for choice in choices} for name, choices in _CHOICES.items()}
    if list(found) != list(known) or any(found[name] not in known[name] for name in known):
        expected = ", ".join(f"{name}={'/'.join(choices)}" for name, choices in known.items())
        raise DataError(f"GraphGym design {spec!r}: expected {expected} in this order")
    if spec != (design := spec_of(Design(*(known[name][found[name]] for name in known)))):  # type: ignore[arg-type]
        raise DataError(f"GraphGym design {spec!r}: expected {design}")
    return Design(*(known[name][found[name]] for name in known))  # type: ignore[arg-type]


def spec_of(design: Design) -> str:
    """The spec of a design."""
    return ",".join(f"{name}={value}" for name, value in design._asdict().items())


def build(spec: str, task: str) -> ModelProto:
    """The network of a design with the features and classes of a task, and the width GraphGym gives it.

    Inputs are `features` (32, F) and `adjacency` (32, 32); the output is (32, classes), for graph tasks
    (1, classes), for link tasks (32, 32).

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "GraphGym")
    design, about = parse(spec), _TASKS[task]
    size = width(design, about.features if about.feature else 1, link=about.level == "link")
    b = _Network(spec, about.features, design)
    x = b.input
    for _ in range(design.pre):
        x = b.act(b.dense(x, size))
    for _ in range(design.mp):
        y = b.message_passing(x, size)
        if design.stage == "skipsum":
            y = b.add(x, y)
        elif design.stage == "skipconcat":
            y = b.concat([x, y], axis=1)
        x = b.act(y)
    x = b.unit_length(x)
    if about.level == "graph":
        x = b.reduce("ReduceSum", x, axis=0, keep=True)
    for _ in range(design.post - 1):
        x = b.act(b.dense(x, x.shape[1]))
    x = b.linear(x, about.classes or x.shape[1])
    return b.build(b.matmul(x, b.transpose(x, (1, 0))) if about.level == "link" else x)


def width(design: Design, features: int, *, link: bool = False) -> int:
    """The width of a design: the smallest whose parameters reach the reference design's, for one class.

    Args:
        design: The design.
        features: Node features that are counted: 1, or 11 where a synthetic task adds ten.
        link: Whether the last layer keeps its width, as for links, instead of having one class.
    """
    reference = _params(Design(1, 2, 1, "stack", "add", 1, "prelu"), _REFERENCE_WIDTH, 1, link)
    return next(size for size in range(1, 10_000) if _params(design, size, features, link) >= reference)


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and validation accuracies (percent), sorted by spec.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    rows = _rows(paths, task)
    return list(rows), np.array([100 * accuracy for accuracy, _ in rows.values()])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], None]:
    """Parameters as published, in the order of `read_labels`; there are no multiply-accumulates."""
    return np.array([params for _, params in _rows(paths, task).values()]), None


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above the size of the space.
    """
    check_count(n, SIZE, "GraphGym")
    specs = _all_specs()
    return [specs[i] for i in np.random.default_rng(seed).choice(len(specs), n, replace=False)]


class _Network(GnnBuilder):
    """Layers of one design: its normalisation, its aggregation and its one activation with a shared slope."""

    def __init__(self, name: str, features: int, design: Design) -> None:
        super().__init__(name, features)
        self._design = design
        self._slope = ""

    def dense(self, x: Value, size: int) -> Value:
        """A linear layer, with batch norm in place of the bias if the design has it."""
        y = self.linear(x, size, bias=not self._design.bn)
        return self.batch_norm(y) if self._design.bn else y

    def message_passing(self, x: Value, size: int) -> Value:
        """A general graph convolution: a linear map, the aggregation of the neighbours, batch norm or bias."""
        y = self.linear(x, size, bias=False)
        match self._design.agg:
            case "add":
                y = self.sum_of_neighbours(y)
            case "mean":
                y = self.mean_of_neighbours(y)
            case _:
                y = self.max_of_neighbours(y)
        return self.batch_norm(y) if self._design.bn else self.add_parameter(y, (size,))

    def act(self, x: Value) -> Value:
        """The design's activation; one PReLU slope serves the whole network, as in the official code."""
        if self._design.act == "prelu":
            y, self._slope = self.prelu(x, self._slope)
            return y
        return self.activation(x, "Relu" if self._design.act == "relu" else "Silu")


def _params(design: Design, size: int, features: int, link: bool) -> int:
    """Parameters of a design of some width, for one class or for links."""
    per_output = 2 if design.bn else 1
    total, inside = int(design.act == "prelu"), features
    for _ in range(design.pre):
        total, inside = total + (inside + per_output) * size, size
    for _ in range(design.mp):
        total += (inside + per_output) * size
        inside += size if design.stage == "skipconcat" else 0
    last = (inside + 1) * (inside if link else 1)
    return total + (design.post - 1) * (inside + per_output) * inside + last


@cache
def _all_specs() -> tuple[str, ...]:
    return tuple(spec_of(Design(*choices)) for choices in product(*_CHOICES.values()))  # type: ignore[arg-type]


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, tuple[float, float]]:
    """Spec → accuracy (0 to 1) and parameters, sorted by spec."""
    check_task(task, TASKS, "GraphGym")
    about = _TASKS[task]
    design_columns = ("l_pre", "l_mp", "l_post", "stage", "agg")
    rows: dict[str, tuple[float, float]] = {}
    for source, row in _table(paths, about.level, (*design_columns, "accuracy", "params")):
        if (row["dataset"], row.get("feature", ""), row.get("label", "")) != (
            about.dataset,
            about.feature,
            about.label,
        ):
            continue
        named = zip(("pre", "mp", "post", "stage", "agg"), design_columns, strict=True)
        spec = ",".join([*(f"{name}={row[column]}" for name, column in named), "bn=1", "act=prelu"])
        check_spec(spec, parse, source)
        if spec in rows:
            raise DataError(f"{source}: the design {spec} occurs twice for {task}")
        rows[spec] = (number(row["accuracy"], source), number(row["params"], source))
    if not rows:
        raise DataError(f"{paths[LINK_TABLE if about.level == 'link' else _FILE]}: no row for {task}")
    return dict(sorted(rows.items()))


def _table(paths: Mapping[str, Path], level: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """The rows of the file with the tasks of a level, each with its place."""
    if level == "link":
        return read_extract(paths, LINK_TABLE, ("dataset", *columns))
    path = raw_path(paths, _FILE)
    rows = read_csv_rows(path, ("dataset", "feature", "label", *columns))
    return [(f"{path}, line {line}", row) for line, row in enumerate(rows, start=2)]
