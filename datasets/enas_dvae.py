"""ENAS macro networks of six layers: 20,015 networks with accuracies under SHARED weights.

M. Zhang, S. Jiang, Z. Cui, R. Garnett, Y. Chen, "D-VAE: A Variational Autoencoder for Directed Acyclic Graphs",
NeurIPS 2019; space: H. Pham, M. Guan, B. Zoph, Q. Le, J. Dean, "Efficient Neural Architecture Search via Parameter
Sharing", ICML 2018, section 2.3. No network was trained alone: the labels are validation accuracies with the supernet's
weights, all within a few points. Use them for pretraining or to test encoders, not as truth.

A spec is six layers joined by `|`, `type` or `type:bits`: bit j of layer i says whether state j (0: stem, j: output of
layer j-1) is added. Types: 0 conv 3x3, 1 separable conv 3x3, 2 conv 5x5, 3 separable conv 5x5, 4 average pooling 3x3,
5 max pooling 3x3. Details (36 channels everywhere, where norms stand) follow the data set's description; nothing
published could be compared with our parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .extracts import read_extract
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_spec, check_task, number
from .space import check_count

TABLE = "enas_dvae.csv.gz"
"""The extract with the labels."""

TASKS = ("cifar10",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
_LAYERS, _CHANNELS = 6, 36
_HALVED_AFTER = (1, 3)
_SPEC = re.compile("[0-5]" + "".join(rf"\|[0-5]:[01]{{{i}}}" for i in range(1, _LAYERS)))


class Layer(NamedTuple):
    """A layer: its type (0 to 5) and the states that are added (0: stem, j: output of layer j-1)."""

    kind: int
    skips: tuple[int, ...]


def parse(spec: str) -> tuple[Layer, ...]:
    """The six layers of a spec.

    Raises:
        DataError: It is not a network of this space.
    """
    if not _SPEC.fullmatch(spec):
        raise DataError(
            f"ENAS network {spec!r}: expected six layers like 0|5:1|5:11|4:111|2:1010|2:00100, types 0 to 5 and "
            "one bit for each earlier state"
        )
    layers = []
    for part in spec.split("|"):
        kind, _, bits = part.partition(":")
        layers.append(Layer(int(kind), tuple(j for j, bit in enumerate(bits) if bit == "1")))
    return tuple(layers)


def spec_of(layers: tuple[Layer, ...]) -> str:
    """The spec of six layers."""
    bits = ["".join(str(int(j in layer.skips)) for j in range(i)) for i, layer in enumerate(layers)]
    return "|".join(f"{layer.kind}:{bit}" if bit else str(layer.kind) for layer, bit in zip(layers, bits, strict=True))


def build(spec: str, task: str) -> ModelProto:
    """The network of a spec, input 3x32x32, ten classes.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "ENAS")
    b = OnnxBuilder(spec, (3, 32, 32))
    states = [b.batch_norm(b.conv(b.input, _CHANNELS))]
    for i, layer in enumerate(parse(spec)):
        x = _operation(b, states[-1], layer.kind)
        if i > 0:
            x = b.batch_norm(b.add(x, *(states[j] for j in layer.skips)) if layer.skips else x)
        states.append(x)
        if i in _HALVED_AFTER:
            states = [_halved(b, state) for state in states]
    return b.build(b.linear(b.flatten(b.global_avg_pool(states[-1])), 10, bias=False))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and validation accuracies under shared weights (percent), sorted by spec.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    check_task(task, TASKS, "ENAS")
    column = "cifar10_supernet_val_accuracy"
    rows: dict[str, float] = {}
    for source, row in read_extract(paths, TABLE, ("arch", column)):
        spec = check_spec(row["arch"], parse, source)
        if spec in rows:
            raise DataError(f"{source}: the network {spec} occurs twice")
        rows[spec] = number(row[column], source)
    return sorted(rows), np.array([rows[spec] for spec in sorted(rows)])


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "ENAS")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        layers = (
            Layer(int(rng.integers(6)), tuple(np.flatnonzero(rng.integers(2, size=i)).tolist())) for i in range(_LAYERS)
        )
        found[spec_of(tuple(layers))] = None
    return list(found)


def _operation(b: OnnxBuilder, x: Value, kind: int) -> Value:
    x = b.relu(b.batch_norm(b.conv(x, _CHANNELS, kernel=1)))
    if kind == 4:
        return b.avg_pool(x, kernel=3, padding=1)
    if kind == 5:
        return b.max_pool(x, kernel=3, padding=1)
    kernel = 3 if kind < 2 else 5
    if kind in (1, 3):
        x = b.conv(x, _CHANNELS, kernel=kernel, groups=_CHANNELS)
        x = b.conv(x, _CHANNELS, kernel=1)
    else:
        x = b.conv(x, _CHANNELS, kernel=kernel)
    return b.relu(b.batch_norm(x))


def _halved(b: OnnxBuilder, x: Value) -> Value:
    """Half the resolution by two 1x1 convolutions with stride 2, the second one pixel further down and right."""
    height, width = x.shape[1:]
    shifted = b.slice(x, (1, 2), (1, 1), (height, width))
    halves = [b.conv(part, _CHANNELS // 2, kernel=1, stride=2) for part in (x, shifted)]
    return b.batch_norm(b.concat(halves))
