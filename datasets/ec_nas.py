"""EC-NAS: small NAS-Bench-101 cells, trained again with the original pipeline.

P. Bakhtiarifard, C. Igel, R. Selvan, "EC-NAS: Energy Consumption Aware Tabular Benchmarks for Neural Architecture
Search", ICASSP 2024. `ec_nas_4v` has all 91 cells with at most four vertices after 108 epochs, `ec_nas_5v` 2,532 cells
with at most five after 4 epochs, a weak stand-in for a full training (correlation 0.41 with 108 epochs on the 91
cells).
A spec is that of NAS-Bench-101.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import DataError
from . import nas_bench_101
from .extracts import read_extract
from .nas_bench_101 import TASKS, build, sample
from .raw_files import check_space, check_spec, check_task, number
from .space import Space

_TABLES = {"ec_nas_4v": ("ec_nas_4v.csv.gz", "108"), "ec_nas_5v": ("ec_nas_5v_4ep.csv.gz", "4")}
_COLUMNS = ("adjacency", "operations", "params", "epochs", "cifar10_test_accuracy")


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and test accuracies (percent) after the epochs of the set, in the order of the file.

    Raises:
        DataError: The file is missing or damaged, or the task or the set does not exist.
    """
    rows = _rows(paths, task, space)
    return list(rows), np.array([accuracy for accuracy, _ in rows.values()])


def published_costs(paths: Mapping[str, Path], task: str, space: str) -> tuple[NDArray[np.float64], None]:
    """Parameters as published, in the order of `read_labels`; there are no multiply-accumulates."""
    return np.array([params for _, params in _rows(paths, task, space).values()]), None


def _rows(paths: Mapping[str, Path], task: str, space: str) -> dict[str, tuple[float, float]]:
    """Spec → accuracy and parameters."""
    check_space(space, _TABLES, "EC-NAS")
    check_task(task, TASKS, "EC-NAS")
    name, epochs = _TABLES[space]
    rows: dict[str, tuple[float, float]] = {}
    for source, row in read_extract(paths, name, _COLUMNS):
        if row["epochs"] != epochs:
            continue
        spec = check_spec(f"{row['adjacency']}:{row['operations']}", nas_bench_101.parse, source)
        if spec in rows:
            raise DataError(f"{source}: the cell {spec} occurs twice")
        rows[spec] = (
            number(row["cifar10_test_accuracy"], f"{source}, cifar10_test_accuracy"),
            number(row["params"], f"{source}, params"),
        )
    if not rows:
        raise DataError(f"{name}: no training of {epochs} epochs")
    return rows


SPACES = {
    space: Space(TASKS, nas_bench_101.SIZE, build, partial(read_labels, space=space), sample) for space in _TABLES
}
"""The two sets: ec_nas_4v and ec_nas_5v."""
