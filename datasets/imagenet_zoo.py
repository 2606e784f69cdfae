"""ImageNet-1k networks of torchvision and pytorchcv with their published accuracies; ships with the package.

Two files beside this module, both written by `imagenet_zoo_build`: `imagenet_zoo.xz` holds the graphs,
`imagenet_zoo_table.xz` a CSV table with one row for every published result. Accuracies are what the packages state
about their own weights (50,000 validation images, centre crop); neither weights nor code of the packages is included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..encoders.errors import ConfigError, DataError
from .benchmark import Benchmark
from .graph_store import GraphStore
from .xz_table import read_xz_table

Package = Literal["torchvision", "pytorchcv"]
Labels = Literal["scratch", "best", "all"]

TASK = "imagenet1k"
GRAPHS_PATH = Path(__file__).with_name("imagenet_zoo.xz")
TABLE_PATH = Path(__file__).with_name("imagenet_zoo_table.xz")

OWN_PIPELINE = "Converted from GL model"
"""Remark of the pytorchcv results that its author trained himself; the others were taken over from other packages."""


@dataclass(frozen=True)
class Entry:
    """One published result: a network, a set of weights, a resolution.

    Attributes:
        package: Package that publishes the weights.
        version: Its version.
        name: Name of the model in the package.
        weights: Tag of the weights; empty where the package has one set a model.
        family: Architecture family; relatives share it, and so do all entries with the same graph.
        top1: Top-1 accuracy on the ImageNet-1k validation set, percent.
        top5: Top-5 accuracy, percent.
        params: Parameters as published; may count auxiliary heads that the graph, made for inference, does not have.
        gmacs: Multiply-accumulates as published, 10^9; pytorchcv counts normalisation and activations in.
        image_size: Side of the square input, pixels.
        extra_data: Data beyond ImageNet-1k that the weights have seen; empty if none.
        recipe: `scratch` (ImageNet-1k only) or `extra_data`.
        remark: What the package says about the origin of the weights or the recipe.
        licence: Licence of the package.
        graph: Hash of the network's `ArchGraph`; a VGG with batch norm has the same as the one without.
        place: Position of the graph in `imagenet_zoo.xz`.
    """

    package: str
    version: str
    name: str
    weights: str
    family: str
    top1: float
    top5: float
    params: int
    gmacs: float
    image_size: int
    extra_data: str
    recipe: str
    remark: str
    licence: str
    graph: str = ""
    place: int = -1

    @property
    def title(self) -> str:
        """A name that no other entry has, such as `torchvision:resnet50.IMAGENET1K_V2` or `pytorchcv:resnet50`."""
        return f"{self.package}:{self.name}{'.' if self.weights else ''}{self.weights}"


@cache
def entries() -> tuple[Entry, ...]:
    """All published results, sorted by package, name and weights.

    Raises:
        DataError: The shipped table is missing or damaged.
    """
    return read_xz_table(TABLE_PATH, Entry)


def load(subset: Package | None = None, labels: Labels = "scratch") -> Benchmark:
    """The networks and their accuracies.

    Args:
        subset: Networks of one package only; None takes both.
        labels: Which of the results count.
            `scratch`: one an architecture (graph hash), trained on ImageNet-1k only, by the most uniform recipes:
            torchvision's original one (V1), pytorchcv's own training before weights taken over from elsewhere, then the
            better result. An architecture that both packages have counts once, as pytorchcv's.
            `best`: one an architecture, trained on ImageNet-1k only, the best of all.
            `all`: every result, extra data included; architectures occur more than once.

    Returns:
        The benchmark; its groups are architecture families.

    Raises:
        ConfigError: `subset` or `labels` is none of the above.
        DataError: A shipped file is missing or damaged.
    """
    if subset is not None and subset not in get_args(Package):
        raise ConfigError(f"subset is {subset!r}, expected one of {', '.join(get_args(Package))}, or None for both")
    if labels not in get_args(Labels):
        raise ConfigError(f"labels is {labels!r}, expected one of {', '.join(get_args(Labels))}")
    chosen = choose([entry for entry in entries() if subset in (None, entry.package)], labels)
    store = _graphs()
    hashes = store.hashes
    for entry in chosen:
        if not 0 <= entry.place < len(hashes) or hashes[entry.place] != entry.graph:
            raise DataError(
                f"{TABLE_PATH}: {entry.title} points to graph {entry.place} of {GRAPHS_PATH.name}, another one: "
                "install archgauge again, or run python -m archgauge.datasets.imagenet_zoo_build"
            )
    return Benchmark(
        name="imagenet_zoo" if subset is None else f"imagenet_zoo/{subset}",
        task=TASK,
        graphs=store.select([entry.place for entry in chosen]),
        accuracy=np.array([entry.top1 for entry in chosen]),
        names=tuple(entry.title for entry in chosen),
        groups=tuple(entry.family for entry in chosen),
        relatives="imagenet_zoo",
        label=f"published top-1 of trained weights, validation set, {labels}",
        licence="; ".join(sorted({f"{entry.licence} ({entry.package})" for entry in chosen})),
    )


def choose(rows: Iterable[Entry], labels: Labels) -> list[Entry]:
    """The entries that `load` takes, in their order; one for every graph unless `labels` is `all`."""
    rows = list(rows)
    if labels == "all":
        return rows
    first: dict[str, Entry] = {}
    for entry in sorted(rows, key=_preference if labels == "scratch" else _quality):
        if entry.recipe == "scratch":
            first.setdefault(entry.graph, entry)
    kept = {entry.title for entry in first.values()}
    return [entry for entry in rows if entry.title in kept]


def _preference(entry: Entry) -> tuple[int, float, str]:
    if entry.package == "pytorchcv":
        rank = 0 if entry.remark == OWN_PIPELINE else 1
    else:
        rank = 2 if entry.weights == "IMAGENET1K_V1" else 3
    return rank, -entry.top1, entry.title


def _quality(entry: Entry) -> tuple[float, str]:
    return -entry.top1, entry.title


@cache
def _graphs() -> GraphStore:
    return GraphStore.load_compressed(GRAPHS_PATH)


def join_families(members: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Family → name of the joined family; families that have a graph in common are one, named by the first in order.

    Args:
        members: Graph and family of every network.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    first: dict[str, str] = {}
    for graph, family in members:
        low, high = sorted((root(first.setdefault(graph, family)), root(family)))
        parent[high] = low
    return {family: root(family) for family in list(parent)}
