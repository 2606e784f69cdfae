"""Measuring a predictor: beside the trivial rows, out of family, and with few labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..encoders.errors import DataError
from ..encoders.graph import ArchGraph
from ..encoders.operators import Kind, kind_of
from .metrics import RANK_METRICS, Interval, Metric, bootstrap_interval, kendall, mean_absolute_error
from .score import Score
from .tables import aligned

if TYPE_CHECKING:
    from .model import Predictor

Floats = NDArray[np.float64]

TRIVIAL: Mapping[str, Callable[[ArchGraph], float]] = {
    "macs": lambda graph: float(graph.macs),
    "params": lambda graph: float(graph.params),
    "depth": lambda graph: float(graph.depth),
    "convolutions": lambda graph: float(sum(kind_of(node.op) is Kind.CONV for node in graph.nodes)),
}
"""Scores anybody gets without learning anything."""


@dataclass(frozen=True)
class Row:
    """One line of a table of results.

    Attributes:
        name: What was measured, such as `predictor` or `macs`.
        metrics: Name of the metric → value with its interval.
        note: What to know when reading it, such as `transductive`.
    """

    name: str
    metrics: Mapping[str, Interval]
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """How well scores agree with the measured accuracies of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        task: Its task.
        n: Networks measured on.
        seen: Networks left out because their graph was in the training data.
        rows: The predictor's rows first, then the trivial ones and the best of those picked with hindsight.
        scores: (n,) what the predictor said, in the order of the networks measured on.
        accuracy: (n,) what was measured, percent.
    """

    benchmark: str
    task: str
    n: int
    seen: int
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    accuracy: Floats

    def __getitem__(self, metric: str) -> float:
        """The predictor's value of a metric, for example `evaluation["kendall"]`."""
        return self.rows[0].metrics[metric].value

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but the scores of single networks; undefined numbers are None."""
        rows = [
            {
                "name": row.name,
                "note": row.note,
                "metrics": {
                    name: {key: _number(part) for key, part in vars(interval).items()}
                    for name, interval in row.metrics.items()
                },
            }
            for row in self.rows
        ]
        return {"benchmark": self.benchmark, "task": self.task, "n": self.n, "seen": self.seen, "rows": rows}

    def table(self) -> str:
        """A plain-text table, one line per row, 95 % intervals of the predictor's rows in brackets."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        lines = [["", *names, ""]]
        lines += [[row.name, *(_cell(row.metrics.get(name)) for name in names), row.note] for row in self.rows]
        seen = f", {self.seen} more were in the training data and are left out" if self.seen else ""
        return f"{self.benchmark}, task {self.task}: {self.n} networks{seen}\n{aligned(lines)}"

    def __str__(self) -> str:
        return self.table()


@dataclass(frozen=True)
class FewShot:
    """Results by number of labels, each over several seeds.

    Attributes:
        benchmark: Name of the benchmark.
        task: Its task.
        sizes: Numbers of labels.
        values: Metric → (sizes, seeds) array.
    """

    benchmark: str
    task: str
    sizes: tuple[int, ...]
    values: Mapping[str, Floats]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: per size the mean and the standard deviation over the seeds of every metric."""
        rows = [
            {"labels": size, **{name: {"mean": _number(m), "std": _number(s)} for name, (m, s) in row.items()}}
            for size, row in zip(self.sizes, self._summary(), strict=True)
        ]
        seeds = next(iter(self.values.values())).shape[1]
        return {"benchmark": self.benchmark, "task": self.task, "seeds": seeds, "rows": rows}

    def table(self) -> str:
        """A plain-text table, one line per number of labels: mean ± standard deviation over the seeds."""
        lines = [["labels", *self.values]]
        for size, row in zip(self.sizes, self._summary(), strict=True):
            lines.append([str(size), *("-" if isnan(m) else f"{m:.3f} ± {s:.3f}" for m, s in row.values())])
        return f"{self.benchmark}, task {self.task}\n{aligned(lines)}"

    def _summary(self) -> list[dict[str, tuple[float, float]]]:
        return [
            {name: (float(v[i].mean()), float(v[i].std())) for name, v in self.values.items()}
            for i in range(len(self.sizes))
        ]

    def __str__(self) -> str:
        return self.table()


def measure(
    benchmark: Benchmark,
    scores: Sequence[Score],
    *,
    pooled: Sequence[Score] = (),
    seen: int = 0,
    groups: bool = False,
    trivial: Mapping[str, Floats] | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> Evaluation:
    """Compare scores with a benchmark's accuracies.

    Args:
        benchmark: n networks.
        scores: n scores of single networks.
        pooled: n scores that ranked the networks against each other, or none.
        seen: Networks left out of the benchmark before, for the record.
        groups: Resample whole groups for the intervals.
        trivial: (n,) scores by name for the trivial rows; default `trivial_scores`.
        n_resamples: Bootstrap resamples; 0 gives no intervals.
        seed: Seed of the bootstrap.

    Raises:
        DataError: A score is missing.
    """
    truth = np.asarray(benchmark.accuracy, np.float64)
    failed = [score.name for score in scores if score.error is not None]
    if failed or len(scores) != len(truth):
        raise DataError(f"{benchmark.name}: {len(failed)} networks have no score, first {failed[:1]}: leave them out")
    families = list(benchmark.groups) if groups else None

    def intervals(values: Floats, resamples: int) -> dict[str, Interval]:
        return {name: _interval(m, truth, values, families, resamples, seed) for name, m in RANK_METRICS.items()}

    own = intervals(np.array([score.rank_score for score in scores]), n_resamples)
    estimates = [score.accuracy for score in scores]
    if None not in estimates:
        own["mae"] = _interval(mean_absolute_error, truth, np.array(estimates, np.float64), families, n_resamples, seed)
        low = np.array([nan if score.low is None else score.low for score in scores])
        high = np.array([nan if score.high is None else score.high for score in scores])
        own["coverage"] = Interval(float(((low <= truth) & (truth <= high)).mean()), nan, nan)
        own["width"] = Interval(float((high - low).mean()), nan, nan)
    rows = [Row("predictor", own)]
    if pooled:
        ranked = intervals(np.array([score.rank_score for score in pooled]), n_resamples)
        rows.append(Row("predictor, pool", ranked, "transductive: ranks by size within this pool enter"))
    plain = trivial_scores(benchmark) if trivial is None else trivial
    simple = [Row(name, intervals(values, 0)) for name, values in plain.items()]
    rows += simple
    if simple:
        best = max(simple, key=lambda row: -np.inf if isnan(k := row.metrics["kendall"].value) else k)
        rows.append(Row("best trivial", best.metrics, f"{best.name}, picked with hindsight"))
    return Evaluation(benchmark.name, benchmark.task, len(truth), seen, tuple(rows), tuple(scores), truth)


def trivial_scores(benchmark: Benchmark) -> dict[str, Floats]:
    """The trivial scores (n,) of every network by name: MACs, parameters, depth, number of convolutions."""
    values: dict[str, list[float]] = {name: [] for name in TRIVIAL}
    for graph in benchmark.graphs:
        for name, function in TRIVIAL.items():
            values[name].append(function(graph))
    return {name: np.array(column) for name, column in values.items()}


def leave_groups_out(
    make_predictor: Callable[[], Predictor],
    benchmark: Benchmark,
    n_folds: int | None = 10,
    seed: int = 0,
    *,
    progress: bool = False,
    workers: int | None = None,
) -> Evaluation:
    """Score every network of a benchmark by a predictor that has seen none of its group (family).

    Args:
        make_predictor: Gives a new predictor, not fitted.
        benchmark: The benchmark; its groups say what is left out together.
        n_folds: Folds of groups; None leaves out one group at a time.
        seed: Seed of the folds.
        progress: Show a progress bar.
        workers: Processes that fit folds; default 2, or 1 on a computer with one core.

    Returns:
        The evaluation of all out-of-group scores together; intervals resample whole groups.
    """
    place = {name: i for i, name in enumerate(benchmark.names)}
    scores: list[Score | None] = [None] * len(benchmark)
    folds = benchmark.group_folds(n_folds, seed)
    processes = workers if workers is not None else min(2, os.cpu_count() or 1)
    parallel = joblib.Parallel(min(processes, len(folds)), return_as="generator")
    results = parallel(joblib.delayed(_fit_and_score)(make_predictor, train, test) for train, test in folds)
    for _, fold in zip(_tracked(folds, "leave groups out", progress), results, strict=True):
        for score in fold:
            scores[place[score.name]] = score
    return measure(benchmark, [score for score in scores if score is not None], groups=True, seed=seed)


def _fit_and_score(make_predictor: Callable[[], Predictor], train: Benchmark, test: Benchmark) -> list[Score]:
    return make_predictor().fit(train).score(test, task=test.task, epochs=test.epochs)


def few_shot(
    fit: Callable[[Benchmark], Predictor],
    benchmark: Benchmark,
    sizes: Sequence[int] = (78, 781),
    seeds: int = 5,
    *,
    progress: bool = False,
) -> FewShot:
    """Fit on a few random networks of a benchmark and measure on all the rest, again and again.

    The metrics are those on the rest without graphs that occur among the few. Papers measure on all remaining networks,
    copies included; `kendall, copies kept` is that number.

    Args:
        fit: Gives a fitted predictor for the few labels, such as `Predictor().fit` or `predictor.finetune`.
        benchmark: The benchmark; the graphs of the few never occur in the rest.
        sizes: Numbers of labels.
        seeds: Random draws per number.
        progress: Show a progress bar.
    """
    trials = [(i, j) for i in range(len(sizes)) for j in range(seeds)]
    values: dict[str, Floats] = {}
    for i, j in _tracked(trials, "few-shot", progress):
        few, rest = benchmark.split(sizes[i], seed=j)
        drawn, apart = set(few.names), set(rest.names)
        remaining = benchmark.select([at for at, name in enumerate(benchmark.names) if name not in drawn])
        scores = fit(few).score(remaining, task=benchmark.task, epochs=benchmark.epochs)
        result = measure(rest, [s for s in scores if s.name in apart], trivial={}, n_resamples=0)
        found = {name: interval.value for name, interval in result.rows[0].metrics.items()}
        found["kendall, copies kept"] = kendall(remaining.accuracy, [score.rank_score for score in scores])
        for name, value in found.items():
            values.setdefault(name, np.full((len(sizes), seeds), nan))[i, j] = value
    return FewShot(benchmark.name, benchmark.task, tuple(sizes), values)


def _interval(
    metric: Metric, truth: Floats, values: Floats, groups: Sequence[str] | None, resamples: int, seed: int
) -> Interval:
    if not resamples:
        return Interval(metric(truth, values), nan, nan)
    return bootstrap_interval(metric, truth, values, groups=groups, n_resamples=resamples, seed=seed)


def _tracked(items: Sequence[Any], description: str, progress: bool) -> Iterable[Any]:
    if not progress:
        return items
    from rich.progress import track

    return track(items, description=description)


def _number(value: float) -> float | None:
    return None if isnan(value) else float(value)


def _cell(interval: Interval | None) -> str:
    if interval is None or isnan(interval.value):
        return "-"
    return f"{interval.value:.3f}" if isnan(interval.low) else str(interval)
