"""Baselines by name: what anybody gets from sizes, from operator counts, or from features and trees alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..datasets.cache import default_cache_dir
from ..encoders.errors import DataError, NotFittedError
from ..encoders.graph import ArchGraph, Node
from ..encoders.operators import Kind, kind_of
from ..encoders.registry import Encoder, encode_table, get_encoder
from .evaluation import TRIVIAL
from .ranker import register_ranker
from .seeding import integer_seed
from .size_prior import SizePrior, fit_size_prior
from .transforms import normal_ranks, space_weights

Floats = NDArray[np.float64]

SIZES = ("macs", "params", "depth", "convolutions")
"""Rankers that only measure how large a network is."""
TRIVIAL_ROWS = (*SIZES, "nwot")
"""Rankers that learn nothing."""


class SizeRanker:
    """Ranks networks by one number that is read off the graph."""

    def __init__(self, measure: Callable[[ArchGraph], float]) -> None:
        self.measure = measure

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Learns nothing."""
        return self

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """The number (n,)."""
        return np.array([self.measure(graph) for graph in graphs], np.float64)


def _register_sizes() -> None:
    for name in SIZES:
        register_ranker(name, seeded=False, learns=False)(lambda seed, name=name: SizeRanker(TRIVIAL[name]))


_register_sizes()


@register_ranker("nwot", seeded=False, learns=False)
class AnalyticNwot:
    """Ranks by the analytic NWOT score: how differently ReLUs treat two inputs of correlation ½, without weights.

    It is the expectation, over random weights, of the kernel score of Mellor et al. 2021 (sec. 3.2); see `statistics`.
    """

    def __init__(self, seed: int) -> None:
        pass

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Learns nothing."""
        return self

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """The score (n,)."""
        encoder = get_encoder("statistics")
        return _encoded(graphs, encoder)[:, encoder.columns.index("nwot_0.5")]


@register_ranker("size", seeded=False)
class SizePriorRanker:
    """Ranks by the size prior alone: several measures of size, put together on the scales of the training networks.

    It looks at no label; what `Predictor` learns beyond size is the distance to this row.
    """

    def __init__(self, seed: int) -> None:
        self._prior: SizePrior | None = None

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Learn where the training networks lie.

        Raises:
            DataError: They are all of one size.
        """
        tables = [_sizes(benchmark.graphs) for benchmark in benchmarks]
        owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables]).astype(np.int32)
        self._prior = fit_size_prior(np.concatenate(tables), [tables[0].shape[1]], owner)
        if self._prior is None:
            raise DataError("the training networks are all of one size, expected networks of different sizes")
        return self

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,).

        Raises:
            NotFittedError: `fit` has not been called.
        """
        if self._prior is None:
            raise NotFittedError("this baseline is not fitted: call fit(benchmarks)")
        return self._prior(_sizes(graphs))


def _sizes(graphs: Sequence[ArchGraph]) -> Floats:
    encoder = get_encoder("statistics")
    return _encoded(graphs, encoder)[:, [encoder.columns.index(name) for name in encoder.sizes]]


class TableRanker:
    """A regressor on one encoder's columns; its labels are normal quantiles of the ranks inside each benchmark."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._predict: Callable[[Floats], Floats] | None = None

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """What turns graphs into columns."""

    @abstractmethod
    def _regressor(self, table: Floats, labels: Floats, weights: Floats) -> Callable[[Floats], Floats]:
        """A fitted function from columns (n, d) to scores (n,)."""

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Learn; a benchmark of n networks counts as n^½."""
        sizes = [len(benchmark) for benchmark in benchmarks]
        table = np.concatenate([_encoded(benchmark.graphs, self.encoder) for benchmark in benchmarks])
        labels = np.concatenate([normal_ranks(benchmark.accuracy) for benchmark in benchmarks])
        self._predict = self._regressor(table, labels, np.repeat(space_weights(sizes), sizes))
        return self

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,).

        Raises:
            NotFittedError: `fit` has not been called.
        """
        if self._predict is None:
            raise NotFittedError("this baseline is not fitted: call fit(benchmarks)")
        return np.asarray(self._predict(_encoded(graphs, self.encoder)), np.float64)


@register_ranker("naive_gbdt")
class NaiveGbdt(TableRanker):
    """LightGBM as it comes on the statistics: no constraint, no pool, no ensemble."""

    @property
    def encoder(self) -> Encoder:
        """The statistics."""
        return get_encoder("statistics")

    def _regressor(self, table: Floats, labels: Floats, weights: Floats) -> Callable[[Floats], Floats]:
        return _lightgbm(table, labels, weights, integer_seed(self.seed, "naive_gbdt"))


@register_ranker("gbdt_nas")
class GbdtNas(TableRanker):
    """GBDT-NAS (Luo et al. 2020, sec. 3): LightGBM on which operator stands where.

    There every layer of one space has a column for each operator it may be. Networks of different spaces have no layers
    in common, so here the columns count each kind of operator in each quarter of the network.
    """

    @property
    def encoder(self) -> Encoder:
        """Counts by operator and quarter."""
        return OperatorPlaces()

    def _regressor(self, table: Floats, labels: Floats, weights: Floats) -> Callable[[Floats], Floats]:
        return _lightgbm(table, labels, weights, integer_seed(self.seed, "gbdt_nas"))


@register_ranker("graf")
class Graf(TableRanker):
    """GRAF (Kadlecová et al. 2024, sec. 3): a random forest on counts, path lengths and degrees of operators.

    There the features are of a cell, once for every set of its operators; here they are of the whole graph, for each
    kind of operator that changes a signal and for all but that kind.
    """

    @property
    def encoder(self) -> Encoder:
        """Counts, paths and degrees by operator."""
        return OperatorPaths()

    def _regressor(self, table: Floats, labels: Floats, weights: Floats) -> Callable[[Floats], Floats]:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(n_estimators=100, random_state=integer_seed(self.seed, "graf"), n_jobs=1)
        forest.fit(table, labels, sample_weight=weights)
        return lambda rows: np.asarray(forest.predict(rows), np.float64)


# -- features --------------------------------------------------------------------------------------------------------

CATEGORIES = (
    "conv 1x1",
    "conv 3x3",
    "conv larger",
    "conv depthwise",
    "conv dilated",
    "linear",
    "product",
    "norm",
    "activation",
    "max pool",
    "average pool",
    "global pool",
    "add",
    "multiply",
    "concat",
    "other",
)
"""Kinds of operators that the features tell apart."""


def category(node: Node) -> int:
    """Position in `CATEGORIES`, or -1 for inputs and for operators that only rearrange."""
    kind = kind_of(node.op)
    if kind is Kind.CONV:
        if int(node.attribute("group", 1)) > 1 and node.weights and node.weights[0][1] == 1:
            return 3
        if any(int(step) > 1 for step in node.attribute("dilations", ())):
            return 4
        reach = max(node.weights[0][2:], default=1) if node.weights else 1
        return 0 if reach == 1 else 1 if reach <= 3 else 2
    if kind is Kind.POOL:
        return 9 if node.op == "MaxPool" else 10
    if kind in (Kind.INPUT, Kind.LAYOUT):
        return -1
    return _OF_KIND.get(kind, 15)


_OF_KIND = {
    Kind.LINEAR: 5,
    Kind.EMBEDDING: 5,
    Kind.RECURRENT: 5,
    Kind.MATMUL: 6,
    Kind.SOFTMAX: 6,
    Kind.NORM: 7,
    Kind.ACTIVATION: 8,
    Kind.GLOBAL_POOL: 11,
    Kind.REDUCE: 11,
    Kind.ADD: 12,
    Kind.MULTIPLY: 13,
    Kind.CONCAT: 14,
}


class OperatorPlaces:
    """Encoder: number of operators of every category, in the whole graph and in each quarter of its longest path."""

    name = "operator_places"
    version = 1
    columns = tuple(f"{where}: {what}" for where in ("all", "q1", "q2", "q3", "q4") for what in CATEGORIES)
    monotone = (0,) * len(columns)
    sizes: tuple[str, ...] = ()

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, d) float64."""
        return np.array([_places(graph) for graph in graphs], np.float64).reshape(len(graphs), len(self.columns))


def _places(graph: ArchGraph) -> Floats:
    counts = np.zeros((5, len(CATEGORIES)))
    level: list[int] = []
    for node in graph.nodes:
        level.append(1 + max((level[i] for i in node.inputs), default=-1))
    last = max(level, default=0) + 1
    for node, place in zip(graph.nodes, level, strict=True):
        if (kind := category(node)) >= 0:
            counts[0, kind] += 1
            counts[1 + 4 * place // last, kind] += 1
    return counts.ravel()


_PATHS = ("count", "least on a path", "most on a path", "shortest without", "inputs", "outputs")


class OperatorPaths:
    """Encoder: for each category counts, least and most of it on a path, the shortest path without it, and degrees."""

    name = "operator_paths"
    version = 1
    columns = (
        *(f"{what}: {kind}" for kind in CATEGORIES for what in _PATHS),
        "shortest path",
        "longest path",
        "edges",
        "degree of the input",
        "degree of the output",
    )
    monotone = (0,) * len(columns)
    sizes: tuple[str, ...] = ()

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, d) float64."""
        return np.array([_paths(graph) for graph in graphs], np.float64).reshape(len(graphs), len(self.columns))


def _paths(graph: ArchGraph) -> Floats:
    nodes = graph.nodes
    kinds = np.array([category(node) for node in nodes])
    uses = np.bincount([i for node in nodes for i in node.inputs], minlength=len(nodes))
    width = len(CATEGORIES)
    here = np.zeros((len(nodes), width))
    here[np.flatnonzero(kinds >= 0), kinds[kinds >= 0]] = 1
    counted = (kinds >= 0).astype(np.float64)
    least, most = np.zeros((len(nodes), width)), np.zeros((len(nodes), width))
    without = np.zeros((len(nodes), width))  # length of the shortest path on which a category does not occur
    short, long = np.zeros(len(nodes)), np.zeros(len(nodes))
    for at, node in enumerate(nodes):
        before = list(node.inputs)
        if before:
            least[at], most[at], without[at] = least[before].min(0), most[before].max(0), without[before].min(0)
            short[at], long[at] = short[before].min(), long[before].max()
        least[at] += here[at]
        most[at] += here[at]
        without[at] += np.where(here[at] > 0, inf, counted[at])
        short[at] += counted[at]
        long[at] += counted[at]
    ends = list(graph.outputs)
    passing = without[ends].min(0)
    degrees = np.array([[len(node.inputs) for node in nodes], uses.tolist()], np.float64)
    counts = here.sum(0)
    mean_degrees = degrees @ here / np.maximum(counts, 1)
    table = np.stack([counts, least[ends].min(0), most[ends].max(0), np.where(np.isinf(passing), -1, passing)])
    sources = [at for at, node in enumerate(nodes) if not node.inputs]
    rest = [
        short[ends].min(),
        long[ends].max(),
        float(uses.sum()),
        float(uses[sources].max(initial=0)),
        float(max((len(nodes[end].inputs) for end in ends), default=0)),
    ]
    return np.concatenate([np.concatenate([table, mean_degrees]).T.ravel(), rest])


# -- helpers ---------------------------------------------------------------------------------------------------------


def _encoded(graphs: Sequence[ArchGraph], encoder: Encoder) -> Floats:
    return encode_table(graphs, encoder, hashes=getattr(graphs, "hashes", None), cache=default_cache_dir())


def _lightgbm(table: Floats, labels: Floats, weights: Floats, seed: int) -> Callable[[Floats], Floats]:
    """100 trees of 31 leaves at a rate of .05, as in GBDT-NAS."""
    import lightgbm

    parameters = {
        "objective": "regression",
        "num_leaves": 31,
        "learning_rate": 0.05,
        "min_data_in_leaf": max(1, min(20, len(table) // 10)),
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": seed,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(table, labels, weight=weights, params=parameters), 100)
    return lambda rows: np.asarray(booster.predict(rows, num_threads=1), np.float64)
