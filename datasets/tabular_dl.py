"""Networks on table rows: MLPs, ResNets and transformers with embeddings of the numerical features.

Y. Gorishniy, I. Rubachev, A. Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022;
layers as in that paper's official code and in Y. Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data",
NeurIPS 2021 (FT-Transformer: pre-norm, ReGLU, 8 heads, no norm before the first attention). Sizes of the data sets are
solved from the published parameters, which ours equal on all 210 rows.

A spec is `backbone|embedding`: `mlp:224,163,359` (widths), `resnet:4x363x1227` (blocks, width, hidden width) or
`transformer:3x191` (blocks, hidden width), and `raw`, or steps joined by `-`: `bins:54` (a feature is encoded as 54
numbers before it enters) or `p:47` (periodic, 47 frequencies), then `l:216`, `lr:216`, `lrlr:216` (one linear layer per
feature, with ReLU, twice). The transformer needs a last step with a width, which is that of its tokens.

The labels are test accuracies (percent), mean over 15 seeds, early stopping. Widths and recipe were tuned for each row
and data set, so a row says what that kind of network reached; size says little, and the spread between rows is about
three times the noise of one run. The data sets scored by an error have no percent and are left out here, like AutoDis,
DICE and Fourier features, other ways of preparing a row, and the other studies of the extract.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .array_builder import ArrayBuilder
from .extracts import read_extract
from .onnx_builder import Value
from .raw_files import check_task, field, number, parse_json
from .space import check_count

TABLE = "tabular_dl.csv.gz"
"""The extract with the labels."""


class _Data(NamedTuple):
    """Numerical features, sizes of all categories together, categorical features, outputs."""

    numbers: int
    categories: int
    columns: int
    outputs: int


_DATA = {
    "adult": _Data(6, 102, 8, 1),
    "churn": _Data(10, 3, 1, 1),
    "covtype": _Data(54, 0, 0, 7),
    "gesture": _Data(32, 0, 0, 5),
    "higgs_small": _Data(28, 0, 0, 1),
    "otto": _Data(93, 0, 0, 9),
    "santander": _Data(200, 0, 0, 1),
}
TASKS = tuple(_DATA)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""

_HEADS = 8
_SIZE = "([1-9][0-9]{0,3})"
_MLP = re.compile(rf"mlp:{_SIZE}(,{_SIZE}){{0,15}}")
_RESNET = re.compile(rf"resnet:([1-9]|1[0-6])x{_SIZE}x{_SIZE}")
_TRANSFORMER = re.compile(rf"transformer:([1-9]|1[0-6])x{_SIZE}")
_EMBEDDING = re.compile(rf"(?:(bins|p):{_SIZE})?(?:(?:^|(?<!^)-)(lrlr|lr|l):{_SIZE})?")
_ARCHITECTURES = {
    (): "",
    ("linear",): "l",
    ("linear", "relu"): "lr",
    ("linear", "relu", "linear", "relu"): "lrlr",
}


class Network(NamedTuple):
    """A network on rows.

    Attributes:
        backbone: "mlp", "resnet" or "transformer".
        sizes: Widths; or blocks, width and hidden width; or blocks and hidden width.
        bins: Numbers that encode a feature; 1: the feature itself.
        periodic: Frequencies per feature; 0: none.
        layers: "", "l", "lr" or "lrlr".
        width: Width of those layers.
    """

    backbone: str
    sizes: tuple[int, ...]
    bins: int
    periodic: int
    layers: str
    width: int


def parse(spec: str) -> Network:
    """The network of a spec.

    Raises:
        DataError: It is no spec of this space.
    """
    body, _, embedding = spec.partition("|")
    match = _EMBEDDING.fullmatch("" if embedding == "raw" else embedding)
    known = next((p for p in (_MLP, _RESNET, _TRANSFORMER) if p.fullmatch(body)), None)
    if match is None or known is None or not embedding:
        raise DataError(
            f"tabular network {spec!r}: expected mlp:224,163 or resnet:4x363x1227 or transformer:3x191, then | and raw "
            "or steps like bins:54, p:47, l:216, lr:216, lrlr:216, p:47-lr:216"
        )
    backbone, _, sizes = body.partition(":")
    first, count, layers, width = match.groups()
    net = Network(
        backbone,
        tuple(map(int, re.split("[,x]", sizes))),
        int(count) if first == "bins" else 1,
        int(count) if first == "p" else 0,
        layers or "",
        int(width or 0),
    )
    if backbone == "transformer" and (not net.layers or net.width % _HEADS):
        raise DataError(f"tabular network {spec!r}: expected a last step whose width is a multiple of {_HEADS}")
    return net


def spec_of(net: Network) -> str:
    """The spec of a network."""
    steps = [f"bins:{net.bins}"] if net.bins > 1 else [f"p:{net.periodic}"] if net.periodic else []
    steps += [f"{net.layers}:{net.width}"] if net.layers else []
    separator = "," if net.backbone == "mlp" else "x"
    return f"{net.backbone}:{separator.join(map(str, net.sizes))}|{'-'.join(steps) or 'raw'}"


def build(spec: str, task: str) -> ModelProto:
    """The network of a spec for one row of a data set.

    Inputs are `numbers` (features, 1 or bins) and, where there are any, `categories`: one-hot (1, sizes), or for
    transformers row numbers (columns,) of the table of all categories. The output is (1, outputs).

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "tabular_dl")
    net, data = parse(spec), _DATA[task]
    b = _RowBuilder(spec, data, net.bins)
    x = b.embedded(net)
    if net.backbone == "transformer":
        return b.build(b.transformer(x, *net.sizes))
    x = b.reshape(x, (1, x.shape[0] * x.shape[1]))
    if data.categories:
        x = b.concat([x, b.add_input("categories", (1, data.categories))], axis=1)
    return b.build(b.mlp(x, net.sizes) if net.backbone == "mlp" else b.resnet(x, *net.sizes))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and test accuracies (percent), sorted by spec; rows of one network have their mean.

    Raises:
        DataError: The file is missing or damaged, or the task does not exist.
    """
    rows = _rows(paths, task)
    return sorted(rows), np.array([100 * float(np.mean([score for score, _ in rows[spec]])) for spec in sorted(rows)])


def published_costs(paths: Mapping[str, Path], task: str) -> tuple[NDArray[np.float64], None]:
    """Parameters as published, in the order of `read_labels`; there are no multiply-accumulates.

    The numbers of bins of a spec are solved from these parameters, so for those rows they check the divisibility only.
    """
    rows = _rows(paths, task)
    return np.array([rows[spec][0][1] for spec in sorted(rows)]), None


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different networks with sizes in the ranges that the paper tunes over; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "tabular_dl")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[spec_of(_random(rng))] = None
    return list(found)


class _RowBuilder(ArrayBuilder):
    """Writes networks for one row; features or tokens stand on the first axis until they are flattened."""

    def __init__(self, name: str, data: _Data, bins: int) -> None:
        super().__init__(name, (data.numbers, bins), input_name="numbers")
        self._data = data

    def embedded(self, net: Network) -> Value:
        """The numerical features as (features, width)."""
        x = self.input
        if net.periodic:
            x = self._periodic(x, net.periodic)
        for layer in net.layers:
            x = self._per_feature(x, net.width) if layer == "l" else self.relu(x)
        return x

    def mlp(self, x: Value, widths: tuple[int, ...]) -> Value:
        """Linear layers with ReLU, and the last one."""
        for width in widths:
            x = self.relu(self.linear(x, width))
        return self.linear(x, self._data.outputs)

    def resnet(self, x: Value, blocks: int, width: int, hidden: int) -> Value:
        """Blocks of batch norm, linear, ReLU, linear with skips; batch norm and ReLU before the last layer."""
        x = self.linear(x, width)
        for _ in range(blocks):
            x = self.add(x, self.linear(self.relu(self.linear(self.batch_norm(x), hidden)), width))
        return self.linear(self.relu(self.batch_norm(x)), self._data.outputs)

    def transformer(self, x: Value, blocks: int, hidden: int) -> Value:
        """FT-Transformer: category tokens and a class token join, pre-norm blocks, the class token is read out."""
        width = x.shape[1]
        tokens = [x]
        if self._data.columns:
            ids = self.add_input("categories", (self._data.columns,), integer=True)
            table, _ = self.embedding(ids, self._data.categories, width)
            tokens.append(self.add_parameter(table, (self._data.columns, width)))
        tokens.append(self._class_token(width))
        x = self.concat(tokens, axis=0)
        for block in range(blocks):
            x = self.add(x, self._attention(self.layer_norm(x) if block else x))
            y = self.linear(self.layer_norm(x), 2 * hidden)
            y = self.mul(self.part(y, 1, 0, hidden), self.relu(self.part(y, 1, hidden, 2 * hidden)))
            x = self.add(x, self.linear(y, width))
        x = self.part(x, 0, x.shape[0] - 1, x.shape[0])
        return self.linear(self.relu(self.layer_norm(x)), self._data.outputs)

    def _attention(self, x: Value) -> Value:
        tokens, width = x.shape
        shape = (tokens, _HEADS, width // _HEADS)
        queries, keys, values = (
            self.transpose(self.reshape(self.linear(x, width), shape), axes)
            for axes in ((1, 0, 2), (1, 2, 0), (1, 0, 2))
        )
        weights = self.softmax(self.scale(self.matmul(queries, keys), (width // _HEADS) ** -0.5))
        y = self.reshape(self.transpose(self.matmul(weights, values), (1, 0, 2)), (tokens, width))
        return self.linear(y, width)

    def _class_token(self, width: int) -> Value:
        """A learned token: zeros made from the input, plus the parameter, so that it is no constant of the file."""
        first = self.part(self.part(self.input, 0, 0, 1), 1, 0, 1)
        name = self._fresh("Add")
        return self._emit(
            "Add", [self.zero(first).name, self._weight(f"{name}.weight", (1, width))], (1, width), {}, name
        )

    def _per_feature(self, x: Value, width: int) -> Value:
        """A linear layer of its own for every feature: (features, in) to (features, width)."""
        features, inside = x.shape
        if inside == 1:
            name = self._fresh("Mul")
            y = self._emit(
                "Mul", [x.name, self._weight(f"{name}.weight", (features, width))], (features, width), {}, name
            )
        else:
            rows = self.reshape(x, (features, 1, inside))
            name = self._fresh("MatMul")
            weight = self._weight(f"{name}.weight", (features, inside, width))
            product = self._emit("MatMul", [rows.name, weight], (features, 1, width), {}, name)
            y = self.reshape(product, (features, width))
        return self.add_parameter(y, (features, width))

    def _periodic(self, x: Value, frequencies: int) -> Value:
        """Cosines and sines of 2 pi c x with learned frequencies c (section 3.3 of the paper)."""
        features = x.shape[0]
        name = self._fresh("Mul")
        weight = self._weight(f"{name}.weight", (features, frequencies))
        phases = self.scale(self._emit("Mul", [x.name, weight], (features, frequencies), {}, name), 2 * np.pi)
        return self.concat([self.unary("Cos", phases), self.unary("Sin", phases)], axis=1)


def _random(rng: np.random.Generator) -> Network:
    backbone = ("mlp", "resnet", "transformer")[int(rng.integers(3))]
    layers = ("", "l", "lr", "lrlr")[int(rng.integers(1 if backbone == "transformer" else 0, 4))]
    first = int(rng.integers(3))
    sizes: tuple[int, ...]
    if backbone == "mlp":
        sizes = tuple(int(rng.integers(1, 1025)) for _ in range(int(rng.integers(1, 9))))
    elif backbone == "resnet":
        width = int(rng.integers(1, 513))
        sizes = (int(rng.integers(1, 9)), width, int(rng.integers(width, 4 * width + 1)))
    else:
        sizes = (int(rng.integers(1, 5)), int(rng.integers(64, 1025)))
    step = _HEADS if backbone == "transformer" else 1
    return Network(
        backbone,
        sizes,
        int(rng.integers(2, 257)) if first == 1 else 1,
        int(rng.integers(1, 129)) if first == 2 else 0,
        layers,
        step * int(rng.integers(8, 128 // step + 1)) if layers else 0,
    )


def _rows(paths: Mapping[str, Path], task: str) -> dict[str, list[tuple[float, float]]]:
    """Spec → test score (0 to 1) and parameters of every row of that network."""
    check_task(task, TASKS, "tabular_dl")
    columns = ("source", "dataset", "model", "variant", "test_score", "params", "config")
    rows: dict[str, list[tuple[float, float]]] = {}
    for source, row in read_extract(paths, TABLE, columns):
        ours = (row["source"], row["dataset"].replace("-", "_"), row["variant"]) == (
            "num_embeddings",
            task,
            "0_evaluation",
        )
        if not ours or row["model"] in ("mlp-autodis", "mlp-dice", "mlp-fourier"):
            continue
        params = number(row["params"], source)
        encoded = "-q" in row["model"] or "-t" in row["model"]
        net = _network(parse_json(row["config"], source), source)
        if encoded:
            net = net._replace(bins=_bins(net, _DATA[task], params, source))
        spec = spec_of(net)
        parse(spec)
        rows.setdefault(spec, []).append((number(row["test_score"], source), params))
    if not rows:
        raise DataError(f"{paths[TABLE]}: no row of the study for {task}")
    return rows


def _network(config: Any, source: str) -> Network:
    """The network of a configuration, without its number of bins."""
    steps = tuple(map(str, field(config, "num_embedding_arch", source)))
    periodic = config.get("periodic") or config.get("positional_encoding")
    has_periodic = steps[:1] == ("positional",)
    steps = steps[1:] if has_periodic else steps
    if steps not in _ARCHITECTURES:
        raise DataError(f"{source}: there is no embedding {steps}")
    backbone = next((name for name in ("mlp", "resnet", "transformer") if config.get(name)), "")
    keys = {
        "mlp": ("d_layers",),
        "resnet": ("n_blocks", "d_main", "d_hidden"),
        "transformer": ("n_blocks", "ffn_d_hidden"),
    }
    if not backbone:
        raise DataError(f"{source}: expected a configuration of an mlp, resnet or transformer")
    sizes: Any = [field(config[backbone], key, source) for key in keys[backbone]]
    if backbone == "mlp" and isinstance(sizes[0], list):
        sizes = sizes[0]
    return Network(
        backbone,
        tuple(int(number(size, source)) for size in sizes),
        1,
        int(number(field(periodic, "n", source), source)) if has_periodic else 0,
        _ARCHITECTURES[steps],
        int(number(field(config, "d_num_embedding", source), source)) if steps else 0,
    )


def _bins(net: Network, data: _Data, params: float, source: str) -> int:
    """Bins of a row, from its parameters: they grow by the same amount with every bin."""
    found = [_params(net._replace(bins=bins), data) for bins in (2, 3)]
    bins = 2 + (params - found[0]) / (found[1] - found[0])
    if bins != int(bins) or bins < 2:
        raise DataError(f"{source}: no number of bins gives {params:,.0f} parameters")
    return int(bins)


def _params(net: Network, data: _Data) -> int:
    """Parameters of an MLP, ResNet or transformer on encoded features."""
    inside, total = net.bins, 0
    for _ in range(net.layers.count("l")):
        total, inside = total + data.numbers * (inside + 1) * net.width, net.width
    if net.backbone == "transformer":
        blocks, hidden = net.sizes
        width = net.width
        tokens = 1 + data.categories + data.columns
        block = 4 * (width + 1) * width + 4 * width + (width + 1) * 2 * hidden + (hidden + 1) * width
        return total + tokens * width + blocks * block + (width + 1) * data.outputs
    flat = data.numbers * inside + data.categories
    if net.backbone == "mlp":
        widths = (flat, *net.sizes, data.outputs)
        return total + sum((a + 1) * b for a, b in pairwise(widths))
    blocks, width, hidden = net.sizes
    block = 2 * width + (width + 1) * hidden + (hidden + 1) * width
    return total + (flat + 1) * width + blocks * block + 2 * width + (width + 1) * data.outputs
