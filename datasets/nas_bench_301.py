"""NAS-Bench-301: cells of the DARTS space in a network of 8 cells with 32 channels, trained on CIFAR-10.

A. Zela, J. Siems, L. Zimmer, J. Lukasik, M. Keuper, F. Hutter, "Surrogate NAS Benchmarks: Going Beyond the Limited
Search Spaces of Tabular NAS Benchmarks", ICLR 2022 (first: J. Siems et al., "NAS-Bench-301 and the Case for Surrogate
Benchmarks for Neural Architecture Search", 2020).

A spec is the architecture's part of a ConfigSpace configuration, as the published result files write it, as compact
JSON in a fixed order: for the normal and then the reduction cell the operations of its eight edges
(`"NetworkSelectorDatasetInfo:darts:edge_normal_0":"sep_conv_3x3"`, edges numbered from 0 to 13 by their end and then
their start) and the two starts of the edges into the vertices 3 to 5
(`"NetworkSelectorDatasetInfo:darts:inputs_node_normal_3":"0_2"`). `spec_of_config` writes the spec of a configuration.

The labels are validation accuracies of real trainings (about 100 epochs, 40,000 training images), not of the surrogate
models. The files (about 60,000, on figshare) could not be had: names and layout are those of the example in the
authors' repository, and the tests write such files. The one training of that repository has the parameters that
`published_costs` expects of its network, auxiliary head included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .darts import OPERATIONS as DARTS_OPERATIONS
from .darts import Edges
from .nds import CellNetwork, Genotype, cell_model
from .raw_files import check_task, field, number, parse_json, raw_path, read_text, zip_members
from .space import check_count

TASKS = ("cifar10",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
OPERATIONS = tuple(op for op in DARTS_OPERATIONS if op != "none")
CHANNELS = 32
CELLS = 8

PREFIX = "NetworkSelectorDatasetInfo:darts:"
_VERTICES = (2, 3, 4, 5)
_FIRST_EDGE = {2: 0, 3: 2, 4: 5, 5: 9}
_RESULT = re.compile(r"results[^/]*\.json")


def parse(spec: str) -> tuple[Edges, Edges]:
    """The normal and the reduction cell of a spec, each 8 pairs of operation and input.

    Raises:
        DataError: It is no architecture of this space.
    """
    source = f"NAS-Bench-301 architecture {spec!r}"
    cells = cells_of_config(parse_json(spec, source), source)
    if spec != spec_of(*cells):
        raise DataError(f"{source}: expected it to be written {spec_of(*cells)!r}")
    return cells


def spec_of(normal: Edges, reduction: Edges) -> str:
    """The spec of two cells; the two edges into a vertex may come in any order."""
    config: dict[str, str] = {}
    for kind, edges in (("normal", normal), ("reduce", reduction)):
        pairs = {vertex: sorted(edges[2 * vertex - 4 :][:2], key=lambda edge: edge[1]) for vertex in _VERTICES}
        for vertex, pair in pairs.items():
            config |= {f"{PREFIX}edge_{kind}_{_FIRST_EDGE[vertex] + start}": op for op, start in pair}
        for vertex in _VERTICES[1:]:
            config[f"{PREFIX}inputs_node_{kind}_{vertex}"] = "_".join(str(start) for _, start in pairs[vertex])
    return json.dumps(config, separators=(",", ":"))


def spec_of_config(config: Mapping[str, Any]) -> str:
    """The spec of a whole configuration; what does not shape the cells is left out.

    Raises:
        DataError: It holds no architecture of this space.
    """
    return spec_of(*cells_of_config(config, "NAS-Bench-301 configuration"))


def cells_of_config(config: Any, source: str) -> tuple[Edges, Edges]:
    """The normal and the reduction cell of a configuration.

    Raises:
        DataError: It holds no architecture of this space; `source` says where it stands.
    """
    normal, reduction = (_cell(config, kind, source) for kind in ("normal", "reduce"))
    return normal, reduction


def build(spec: str, task: str) -> ModelProto:
    """The network of an architecture, input 3x32x32, without the auxiliary head.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "NAS-Bench-301")
    normal, reduction = parse(spec)
    genotype = Genotype(normal, _VERTICES, reduction, _VERTICES)
    return cell_model(spec, CellNetwork(genotype, CHANNELS, CELLS), task)


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and validation accuracies (percent), by first appearance in the files in order of their names.

    Architectures that were trained several times have the mean.

    Args:
        paths: Result files by name: `results*.json` with one training each, or `.zip` archives of them (larger ones
            than 256 MB have to be unpacked first).
        task: One of `TASKS`.

    Raises:
        DataError: A file is missing or damaged or of another setting, or the task does not exist.
    """
    rows = _rows(paths, task)
    return list(rows), np.array([np.mean([run.accuracy for run in runs]) for runs in rows.values()])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], None]:
    """Parameters as published less those of the auxiliary head, in the order of `read_labels`.

    Multiply-accumulates are not published.
    """
    head = auxiliary_parameters(CHANNELS)
    return np.array([runs[0].params - head for runs in _rows(paths, task).values()]), None


def auxiliary_parameters(channels: int) -> int:
    """Parameters of the auxiliary head of DARTS (Liu et al. 2019) on CIFAR-10 behind the second reduction cell.

    A 1x1 convolution to 128 channels, a 2x2 convolution to 768, batch norm after both, and a linear layer.

    Args:
        channels: Channels of the first cells.
    """
    entering = 16 * channels
    return entering * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, every choice uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "NAS-Bench-301")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        cells = [
            tuple(
                (OPERATIONS[int(rng.integers(len(OPERATIONS)))], start)
                for vertex in _VERTICES
                for start in _one_pair(rng, vertex)
            )
            for _ in range(2)
        ]
        found[spec_of(cells[0], cells[1])] = None
    return list(found)


def _one_pair(rng: np.random.Generator, vertex: int) -> tuple[int, int]:
    pairs = list(combinations(range(vertex), 2))
    return pairs[int(rng.integers(len(pairs)))]


def _cell(config: Any, kind: str, source: str) -> Edges:
    edges: list[tuple[str, int]] = []
    for vertex in _VERTICES:
        pairs = ["_".join(map(str, pair)) for pair in combinations(range(vertex), 2)]
        key = f"{PREFIX}inputs_node_{kind}_{vertex}"
        starts = "0_1" if vertex == 2 else field(config, key, source)
        if starts not in pairs:
            raise DataError(f"{source}, {key}: expected one of {', '.join(pairs)}, got {starts!r}")
        for start in map(int, starts.split("_")):
            key = f"{PREFIX}edge_{kind}_{_FIRST_EDGE[vertex] + start}"
            op = field(config, key, source)
            if op not in OPERATIONS:
                raise DataError(f"{source}, {key}: expected one of {', '.join(OPERATIONS)}, got {op!r}")
            edges.append((op, start))
    return tuple(edges)


class _Run(NamedTuple):
    accuracy: float
    params: float


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, list[_Run]]:
    """Spec → its trainings."""
    check_task(task, TASKS, "NAS-Bench-301")
    rows: dict[str, list[_Run]] = {}
    for source, text in _results(paths):
        run = parse_json(text, source)
        config = field(run, "optimized_hyperparamater_config", source)
        for key, wanted in ((f"{PREFIX}init_channels", CHANNELS), (f"{PREFIX}layers", CELLS)):
            if (got := field(config, key, source)) != wanted:
                raise DataError(f"{source}, {key}: expected {wanted} (the setting of the benchmark), got {got!r}")
        info = field(run, "info", source)
        if not isinstance(info, list) or not info:
            raise DataError(f"{source}, info: expected a list, got {info!r}")
        accuracy = number(field(info[0], "val_accuracy", source), f"{source}, val_accuracy")
        if not 0 <= accuracy <= 100:
            raise DataError(f"{source}, val_accuracy: expected percent, got {accuracy}")
        params = number(field(info[0], "model_parameters", source), f"{source}, model_parameters")
        rows.setdefault(spec_of(*cells_of_config(config, source)), []).append(_Run(accuracy, params))
    if not rows:
        raise DataError(f"NAS-Bench-301: a file results*.json is needed, got {', '.join(sorted(paths)) or 'none'}")
    return rows


def _results(paths: Mapping[str, Path]) -> Iterator[tuple[str, str | bytes]]:
    for name in sorted(paths):
        path = raw_path(paths, name)
        if name.endswith(".zip"):
            members = ((member, content) for member, content in zip_members(path, "results"))
            yield from ((f"{path}, {m}", content) for m, content in members if _RESULT.fullmatch(m.rpartition("/")[2]))
        elif _RESULT.fullmatch(name.rpartition("/")[2]):
            yield str(path), read_text(path)
