"""ImageNet-1k networks of timm with their published accuracies: graphs ship with the package, labels do not.

`imagenet_zoo_timm.xz` holds the graphs and `imagenet_zoo_timm_networks.xz` says whose they are; both are written by
`python -m archgauge.datasets.imagenet_zoo_build --timm`. timm itself states no accuracies, its repository does
(Wightman 2019, `results/results-imagenet.csv`), so they are read from a table made out of that file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..encoders.errors import DataError
from .benchmark import Benchmark
from .extracts import read_extract
from .graph_store import GraphStore
from .imagenet_zoo import TASK, join_families
from .raw_files import number
from .xz_table import read_xz_table, write_xz_table

NAME = "imagenet_zoo/timm"
TASKS = (TASK,)
LABELS = "imagenet_zoo.csv.gz"
"""The table with the accuracies."""
GRAPHS_PATH = Path(__file__).with_name("imagenet_zoo_timm.xz")
NETWORKS_PATH = Path(__file__).with_name("imagenet_zoo_timm_networks.xz")
_COLUMNS = ("source", "dataset", "arch", "weights", "family", "top1", "params", "img_size", "recipe_class")


@dataclass(frozen=True)
class Result:
    """The best published result of an architecture trained on ImageNet-1k only, without teacher or first stage.

    Attributes:
        arch: Name of the architecture in timm.
        weights: Tag of the weights.
        family: timm's module that defines it.
        top1: Top-1 accuracy on the ImageNet-1k validation set, percent.
        params: Parameters of the built module.
        image_size: Side of the square test images, pixels.
    """

    arch: str
    weights: str
    family: str
    top1: float
    params: int
    image_size: int

    @property
    def title(self) -> str:
        """Such as `timm:resnet50.a1h_in1k`."""
        return f"timm:{self.arch}.{self.weights}"


@dataclass(frozen=True)
class Network:
    """Whose a shipped graph is.

    Attributes:
        arch: Name of the architecture in timm.
        image_size: Side of the square input, pixels.
        graph: Hash of the graph.
        place: Its position in `imagenet_zoo_timm.xz`.
    """

    arch: str
    image_size: int
    graph: str
    place: int


def read_results(paths: Mapping[str, Path]) -> list[Result]:
    """One result an architecture, by name.

    Raises:
        DataError: The table is missing or damaged.
    """
    best: dict[str, Result] = {}
    for source, row in read_extract(paths, LABELS, _COLUMNS):
        if (row["source"], row["dataset"], row["recipe_class"]) != ("timm", TASK, "scratch"):
            continue
        top1, params, image_size = (
            number(row[column], f"{source}, {column}") for column in ("top1", "params", "img_size")
        )
        result = Result(row["arch"], row["weights"], row["family"], top1, int(params), int(image_size))
        if result.arch not in best or top1 > best[result.arch].top1:
            best[result.arch] = result
    return [best[arch] for arch in sorted(best)]


@cache
def networks() -> Mapping[tuple[str, int], Network]:
    """The shipped networks by architecture and image size.

    Raises:
        DataError: The shipped table is missing or damaged.
    """
    return {(each.arch, each.image_size): each for each in read_xz_table(NETWORKS_PATH, Network)}


def write(rows: Sequence[Network], graphs: GraphStore) -> None:
    """Write both shipped files."""
    graphs.save_compressed(GRAPHS_PATH)
    write_xz_table(NETWORKS_PATH, rows)


def load(paths: Mapping[str, Path]) -> Benchmark:
    """The networks and their best accuracies from scratch; of equal graphs, the better one.

    Args:
        paths: Where the table with the accuracies is, by name.

    Returns:
        The benchmark; its groups are timm's families, united where they have a graph in common.

    Raises:
        DataError: The table or a shipped file is missing or damaged, or no network of the table has a graph.
    """
    known, store = networks(), _graphs()
    skipped: list[tuple[str, str]] = []
    first: dict[str, tuple[Result, Network]] = {}
    members: list[tuple[str, str]] = []
    for result in sorted(read_results(paths), key=lambda result: (-result.top1, result.arch)):
        network = known.get((result.arch, result.image_size))
        if network is None:
            skipped.append((result.title, f"no graph of it at {result.image_size} pixels comes with archgauge"))
            continue
        if network.place >= len(store) or store.hashes[network.place] != network.graph:
            raise DataError(f"{NETWORKS_PATH}: {result.arch} points to another graph: install archgauge again")
        members.append((network.graph, result.family))
        if network.graph in first:
            skipped.append((result.title, f"the same graph as {first[network.graph][0].title}"))
        else:
            first[network.graph] = result, network
    chosen = sorted(first.values(), key=lambda pair: pair[0].arch)
    families = join_families(members)
    return Benchmark(
        name=NAME,
        task=TASK,
        graphs=store.select([network.place for _, network in chosen]),
        accuracy=np.array([result.top1 for result, _ in chosen]),
        names=tuple(result.title for result, _ in chosen),
        groups=tuple(families[result.family] for result, _ in chosen),
        relatives="imagenet_zoo",
        label="best published top-1 of weights trained on ImageNet-1k only, validation set, recipes differ",
        licence="Apache-2.0",
        skipped=tuple(sorted(skipped)),
    )


@cache
def _graphs() -> GraphStore:
    return GraphStore.load_compressed(GRAPHS_PATH)
