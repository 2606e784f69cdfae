"""The ImageNet-1k networks of torchvision, pytorchcv and timm as one benchmark, one label for each graph.

What the three packages publish is of one kind: top-1 of their own weights on the validation set. Ranked apart, an
architecture that two of them have would be a good one of the weaker set and a poor one of the stronger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import imagenet_zoo, imagenet_zoo_timm
from .benchmark import Benchmark
from .graph_store import GraphStore
from .imagenet_zoo_timm import TASKS

__all__ = ["NAME", "TASKS", "load"]

NAME = "imagenet_zoo/all"


def load(paths: Mapping[str, Path]) -> Benchmark:
    """The networks and their best accuracies from scratch.

    Args:
        paths: Where the table with timm's accuracies is, by name.

    Returns:
        The benchmark; its groups are families, those of different packages united where they share a graph or a name.

    Raises:
        DataError: The table or a shipped file is missing or damaged.
    """
    parts = (imagenet_zoo_timm.load(paths), imagenet_zoo.load(labels="best"))
    rows = [
        (-accuracy, name, key, family, graph)
        for part in parts
        for accuracy, name, key, family, graph in zip(
            part.accuracy.tolist(), part.names, part.hashes, part.groups, part.graphs, strict=True
        )
    ]
    joined = imagenet_zoo.join_families([(key, family) for _, _, key, family, _ in rows])
    first: dict[str, tuple[float, str, str, str, object]] = {}
    for row in sorted(rows, key=lambda row: row[:2]):
        first.setdefault(row[2], row)
    chosen = sorted(first.values(), key=lambda row: row[1])
    return Benchmark(
        name=NAME,
        task=imagenet_zoo.TASK,
        graphs=GraphStore.from_graphs(graph for *_, graph in chosen),  # type: ignore[misc]
        accuracy=np.array([-row[0] for row in chosen]),
        names=tuple(row[1] for row in chosen),
        groups=tuple(joined[row[3]] for row in chosen),
        relatives="imagenet_zoo",
        label="best published top-1 of weights trained on ImageNet-1k only, validation set, recipes differ",
        licence="; ".join(part.licence for part in parts),
        skipped=parts[0].skipped,
    )
