"""NAS-Bench-201 under attack: accuracies of all 15,625 CIFAR-10 networks on images that were changed to mislead them.

S. Jung, J. Lukasik, M. Keuper, "Neural Architecture Design and Robustness: A Dataset", ICLR 2023. The networks are
those of NAS-Bench-201 with its weights, trained without any defence. A task is an attack and its strength: `pgd_0.5`
changes every pixel by at most 0.5 / 255. Of the published strengths those are offered that still tell networks apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from . import nas_bench_201
from .extracts import read_extract
from .raw_files import check_spec, check_task, number

TASKS = tuple(f"{attack}_{strength}" for attack in ("fgsm", "pgd", "apgd-ce", "square") for strength in ("0.5", "1.0"))

_FILE = "robustness_cifar10.csv.gz"


def build(spec: str, task: str) -> ModelProto:
    """The network of a cell for CIFAR-10, as in NAS-Bench-201.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-201 robustness")
    return nas_bench_201.build(spec, "cifar10")


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Cell strings and accuracies under the attack (percent), in the benchmark's own order.

    Raises:
        DataError: A file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-201 robustness")
    attack, strength = task.split("_")
    name = f"cifar10_{attack}_linf_{strength}_accuracy"
    cells = {
        row["index"]: check_spec(row["arch_str"], nas_bench_201.parse, source)
        for source, row in read_extract(paths, nas_bench_201.HARDWARE, ("index", "arch_str"))
    }
    found: dict[str, float] = {}
    for source, row in read_extract(paths, _FILE, ("index", name)):
        if row["index"] not in cells:
            raise DataError(f"{source}: the index {row['index']!r} is not in {nas_bench_201.HARDWARE}")
        found[cells[row["index"]]] = number(row[name], f"{source}, {name}")
    return list(found), np.array(list(found.values()))
