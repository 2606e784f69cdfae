"""Rankers by name: everything that can be measured by `protocols`, and `Predictor` as one of them.

A ranker learns from benchmarks and gives graphs a score, higher for better. It is handed the graphs of a target but
never their accuracies, so what it says of them cannot depend on those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..datasets.cache import default_cache_dir
from ..encoders.errors import NotFittedError
from ..encoders.graph import ArchGraph
from ..encoders.names import look_up, take_name

if TYPE_CHECKING:
    from .model import Predictor

Floats = NDArray[np.float64]


class Ranker(Protocol):
    """Learns from benchmarks, then ranks graphs."""

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Learn; labels are comparable only within a benchmark."""
        ...

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,), higher is better, each from its graph alone."""
        ...


@runtime_checkable
class PoolRanker(Protocol):
    """A ranker that can also let the graphs of a call enter each other's scores (transductive)."""

    def pool_scores(self, graphs: Sequence[ArchGraph]) -> Floats | None:
        """Scores (n,) within this pool; None if this ranker, as fitted, makes no difference between the modes."""
        ...


@runtime_checkable
class TunableRanker(Protocol):
    """A ranker that goes on learning from a few labels of a new space."""

    def finetune(self, few: Benchmark) -> Ranker:
        """A new ranker for the space of `few`."""
        ...


@runtime_checkable
class EstimatingRanker(Protocol):
    """A ranker that also knows accuracies."""

    def estimates(self, graphs: Sequence[ArchGraph], task: str, epochs: float | None = None) -> Floats | None:
        """Accuracy after so many training epochs, if that is known, and the two ends of its 90 % interval.

        (n, 3) percent; None if the task is unknown.
        """
        ...


@dataclass(frozen=True)
class RankerEntry:
    """A ranker in the registry.

    Attributes:
        make: Seed → a new ranker.
        seeded: Whether another seed makes a difference; one run does where it does not.
        learns: Whether it looks at labels; if not, it needs no training spaces.
    """

    make: Callable[[int], Ranker]
    seeded: bool = True
    learns: bool = True


Factory = TypeVar("Factory", bound=Callable[[int], Ranker])
RANKERS: dict[str, RankerEntry] = {}
"""Name → ranker."""
MODULES = ("baselines", "gennape")
"""Modules of this package that register rankers when they are imported."""


def register_ranker(name: str, *, seeded: bool = True, learns: bool = True) -> Callable[[Factory], Factory]:
    """Decorator that enters what makes a ranker, a class or function of a seed; see `RankerEntry`.

    Raises:
        ConfigError: The name is taken.
    """

    def enter(factory: Factory) -> Factory:
        take_name(RANKERS, name, RankerEntry(factory, seeded, learns), "a ranker")
        return factory

    return enter


def ranker_entry(name: str) -> RankerEntry:
    """The entry of the ranker called `name`.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    for module in MODULES:
        import_module(f".{module}", __package__)
    return look_up(RANKERS, name, "ranker")


@dataclass
class PredictorRanker:
    """`Predictor` as a ranker.

    Attributes:
        options: Arguments of `Predictor`.
        tuning: Arguments of its `finetune`.
        cache: Folder that keeps encoded networks; default `default_cache_dir()`.
    """

    options: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    cache: str | os.PathLike[str] | None = None
    _model: Predictor | None = field(default=None, repr=False)

    @property
    def model(self) -> Predictor:
        """The predictor.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        if self._model is None:
            raise NotFittedError("this ranker is not fitted: call fit(benchmarks)")
        return self._model

    def fit(self, benchmarks: Sequence[Benchmark]) -> Self:
        """Fit a predictor on the benchmarks."""
        from .model import Predictor

        cache = self.cache if self.cache is not None else default_cache_dir()
        self._model = Predictor(**self.options, cache=cache).fit(benchmarks)
        return self

    def finetune(self, few: Benchmark) -> PredictorRanker:
        """This predictor adapted to the few."""
        return replace(self, _model=self.model.finetune(few, **self.tuning))

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Rank scores (n,) of single networks."""
        return np.array([score.rank_score for score in self.model.score(graphs)])

    def pool_scores(self, graphs: Sequence[ArchGraph]) -> Floats | None:
        """Rank scores (n,) within this pool, if the predictor was fitted on spaces enough to have that mode."""
        scores = self.model.score(graphs, pool=True)
        return np.array([score.rank_score for score in scores]) if scores and scores[0].pooled else None

    def estimates(self, graphs: Sequence[ArchGraph], task: str, epochs: float | None = None) -> Floats | None:
        """Accuracy, low and high (n, 3) of single networks, if the predictor was fitted on the task."""
        if task not in self.model.tasks:
            return None
        scores = self.model.score(graphs, task=task, epochs=epochs)
        return np.array([[score.accuracy, score.low, score.high] for score in scores], np.float64).reshape(-1, 3)


@register_ranker("archgauge")
def _archgauge(seed: int) -> PredictorRanker:
    """`Predictor` as it is by default."""
    return PredictorRanker({"seed": seed})


SHIPPED_OPTIONS: dict[str, Any] = {
    "heads": ("extra_trees", "gbdt", "gp", "mlp"),
    "n_seeds": 4,
    "options": {
        "extra_trees": {"n_trees": 60, "columns": 0.2, "min_leaf": 10},
        "gbdt": {"columns": 0.1, "min_leaf": 60},
        "gp": {"draws": 4},
        "mlp": {"limit": 2.0},
    },
}
"""Options of the predictor that comes with the package."""


@register_ranker("shipped-heads")
def _shipped_heads(seed: int) -> PredictorRanker:
    """`Predictor` with the heads of the predictor that comes with the package."""
    return PredictorRanker({**SHIPPED_OPTIONS, "seed": seed})


@register_ranker("shipped-heads+proxies")
def _shipped_heads_with_proxies(seed: int) -> PredictorRanker:
    """The same; once it is fine-tuned, its heads also see what running every network with random weights tells."""
    return PredictorRanker({**SHIPPED_OPTIONS, "seed": seed}, {"evidence": ("proxies",)})


FAR_ENCODERS = {
    "far-statistics": ("statistics",),
    "far-graph": ("graph_readings",),
    "far-statistics+graph": ("statistics", "graph_readings"),
}
"""Rankers that learn from one or two spaces and rank others, by name → encoders."""


def _register_far(name: str, encoders: tuple[str, ...]) -> None:
    """Enter `Predictor` with randomised trees on all columns of each encoder, beside a share of size when far."""
    options = {"encoders": encoders, "heads": ("extra_trees",), "far_heads": ("extra_trees",), "n_seeds": 8}
    trees = {"extra_trees": {"columns": 0.2}}
    register_ranker(name)(lambda seed: PredictorRanker({**options, "options": trees, "seed": seed}))


for _name, _encoders in FAR_ENCODERS.items():
    _register_far(_name, _encoders)


@register_ranker("archgauge-proxies")
def _with_proxies(seed: int) -> PredictorRanker:
    """`Predictor` that also measures random instantiations of the networks: more than structure alone."""
    return PredictorRanker({"evidence": ("proxies",), "seed": seed})


@register_ranker("graph")
def _graph(seed: int) -> PredictorRanker:
    """`Predictor` on the graph network's embedding alone."""
    return PredictorRanker({"encoders": ("graph",), "heads": ("gp", "gbdt"), "seed": seed})


@register_ranker("statistics+graph")
def _statistics_and_graph(seed: int) -> PredictorRanker:
    """`Predictor` on statistics and the graph network's embedding: a Gaussian process on each, trees on statistics."""
    heads = ("gp@statistics", "gp@graph", "gbdt@statistics")
    return PredictorRanker({"encoders": ("statistics", "graph"), "heads": heads, "seed": seed})
