"""LEMUR: the FractalNet variants of the neural network data set of ABrain, trained with one fixed recipe.

A. T. Goodarzi et al., "LEMUR Neural Network Dataset: Towards Seamless AutoML", 2025; the networks after G. Larsson,
M. Maire, G. Shakhnarovich, "FractalNet: Ultra-Deep Neural Networks without Residuals", ICLR 2017. Only this family has
thousands of trainings with one recipe and networks that can be written down without running anybody's code.

The wheel `nn-dataset` holds 1,649 FractalNet files of one template. What differs between them is a function that
nothing calls, and two numbers: units and columns. So they are only 30 networks, trained 1 to 66 times each (29 of them
2 to 35 times over five epochs). The labels are means over those trainings: test accuracies on CIFAR-10 after five
epochs. One training has a standard deviation of 0.9 points. There is no norm and no activation in the networks besides
max pooling.

A spec is `N=3,num_columns=7`, the two numbers as the files name them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task, field, number, parse_json, raw_path, zip_members
from .space import check_count

WHEEL = "nn_dataset-2.1.2-py3-none-any.whl"
"""The published file, from PyPI; later releases carry no results."""

TASKS = ("cifar10",)
SIZE = 35
"""Specs that `sample` gives at most."""
_EPOCHS = 5
_RECIPE = {"lr": 0.01, "batch": 16, "momentum": 0.9, "dropout": 0.2, "transform": "norm_flip"}
_SPEC = re.compile(r"N=([1-5]),num_columns=([1-7])")
_UNITS = re.compile(r"^ +N = ([0-9]+)$", re.MULTILINE)
_COLUMNS = re.compile(r"^ +num_columns = ([0-9]+)$", re.MULTILINE)
_PLAIN_BLOCK = re.compile(r"nn\.Conv2d\(in_ch_ij, out_channels, kernel_size=3, stride=1, padding=1, bias=False\)")
_CODE = "ab/nn/nn/FractalNet-"
_RESULTS = "ab/nn/stat/train/img-classification_cifar-10_acc_FractalNet-"


class FractalNet(NamedTuple):
    """Units, each followed by pooling, and columns of a fractal block."""

    units: int
    columns: int


def parse(spec: str) -> FractalNet:
    """The network of a spec.

    Raises:
        DataError: It is not a network of this space.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise DataError(f"LEMUR FractalNet {spec!r}: expected N=1 to 5 and num_columns=1 to 7, like N=3,num_columns=7")
    return FractalNet(int(match[1]), int(match[2]))


def spec_of(net: FractalNet) -> str:
    """The spec of a network."""
    return f"N={net.units},num_columns={net.columns}"


def build(spec: str, task: str) -> ModelProto:
    """The network of a spec, input 3x32x32, ten classes.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "LEMUR")
    net = parse(spec)
    b = OnnxBuilder(spec, (3, 32, 32))
    x = b.input
    for unit in range(net.units):
        x = b.max_pool(_block(b, x, min(64 * 2**unit, 512), net.columns), kernel=2, stride=2)
    return b.build(b.linear(b.flatten(x), 10))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and test accuracies after five epochs (percent), means over the trainings, sorted by spec.

    The wheel's code is read as text; nothing of it is run.

    Raises:
        DataError: The wheel is missing or damaged, a file does not follow the template, or there is no such task.
    """
    check_task(task, TASKS, "LEMUR")
    path = raw_path(paths, WHEEL)
    nets = {name[len(_CODE) : -3]: _net_of(content, f"{path}, {name}") for name, content in zip_members(path, _CODE)}
    rows: dict[str, list[float]] = {}
    for name, content in zip_members(path, _RESULTS):
        source = f"{path}, {name}"
        key, _, epoch = name[len(_RESULTS) :].partition("/")
        spec = nets.get(key)
        if epoch != f"{_EPOCHS}.json" or spec is None:
            continue
        runs: Any = parse_json(content, source)
        if not isinstance(runs, list):
            raise DataError(f"{source}: expected a list of trainings")
        for run in runs:
            if all(field(run, item, source) == value for item, value in _RECIPE.items()):
                rows.setdefault(spec, []).append(100 * number(field(run, "accuracy", source), source))
    if not rows:
        raise DataError(f"{path}: no FractalNet with a result after {_EPOCHS} epochs of the fixed recipe")
    return sorted(rows), np.array([float(np.mean(rows[spec])) for spec in sorted(rows)])


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different networks of the 35 with up to 5 units and 7 columns; the same for the same seed.

    Raises:
        DataError: n is negative or above 35.
    """
    check_count(n, SIZE, "LEMUR FractalNet")
    specs = [spec_of(FractalNet(units, columns)) for units in range(1, 6) for columns in range(1, 8)]
    return [specs[i] for i in np.random.default_rng(seed).choice(len(specs), n, replace=False)]


def _block(b: OnnxBuilder, x: Value, channels: int, columns: int) -> Value:
    """A fractal block: column j has a convolution at every 2^j-th level; columns that end at a level are averaged."""
    outs = [x] * columns
    for level in range(1, 2 ** (columns - 1) + 1):
        ends = [b.conv(outs[j], channels) for j in range(columns) if level % 2**j == 0]
        joined = ends[0] if len(ends) == 1 else b.scale(b.add(*ends), 1 / len(ends))
        outs[: len(ends)] = [joined] * len(ends)
    return outs[0]


def _net_of(content: bytes, source: str) -> str | None:
    """The spec of a file of the template; None for a file of another kind."""
    text = content.decode(errors="replace")
    if not _PLAIN_BLOCK.search(text):
        return None
    units, columns = _UNITS.findall(text), _COLUMNS.findall(text)
    if len(units) != 1 or len(columns) != 1:
        raise DataError(f"{source}: expected one line N = ... and one num_columns = ..., got {units} and {columns}")
    spec = f"N={units[0]},num_columns={columns[0]}"
    parse(spec)
    return spec
