"""How good a ranking or an accuracy estimate is. Accuracies are percent (0 to 100), scores any real numbers.

A metric that is not defined is `nan`: a rank correlation or NDCG of fewer than two networks, or when either side is
constant; a regret or an error of no network at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..encoders.errors import DataError
from .seeding import generator

Floats = NDArray[np.float64]
Metric = Callable[[ArrayLike, ArrayLike], float]


def spearman(accuracy: ArrayLike, score: ArrayLike) -> float:
    """Spearman's rank correlation: Pearson's correlation of the average ranks (Spearman 1904).

    Args:
        accuracy: (n,) measured accuracies.
        score: (n,) predicted scores.

    Returns:
        -1 to 1; `nan` for fewer than two networks or a constant side.
    """
    truth, predicted = _pair(accuracy, score)
    if _constant(truth) or _constant(predicted):
        return nan
    from scipy.stats import rankdata

    a, b = rankdata(truth), rankdata(predicted)
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def kendall(accuracy: ArrayLike, score: ArrayLike) -> float:
    """Kendall's tau-b: concordant minus discordant pairs, corrected for ties (Kendall 1945).

    Args:
        accuracy: (n,) measured accuracies.
        score: (n,) predicted scores.

    Returns:
        -1 to 1; `nan` for fewer than two networks or a constant side.
    """
    truth, predicted = _pair(accuracy, score)
    if _constant(truth) or _constant(predicted):
        return nan
    from scipy.stats import kendalltau

    return float(kendalltau(truth, predicted, variant="b").statistic)


def ndcg(accuracy: ArrayLike, score: ArrayLike, k: int = 10) -> float:
    """Normalised discounted cumulative gain of the k best by score (Järvelin and Kekäläinen 2002, sec. 3).

    The gain of a network is its accuracy rescaled to 0..1 within the pool (worst 0, best 1), the discount of position i
    is log2(i + 1). Networks with equal scores share the average gain of their group (McSherry and Najork 2008).

    Args:
        accuracy: (n,) measured accuracies.
        score: (n,) predicted scores.
        k: Positions counted; all of them when there are fewer.

    Returns:
        0 to 1; `nan` for fewer than two networks or constant accuracies.
    """
    truth, predicted = _pair(accuracy, score)
    if _constant(truth):
        return nan
    gains = (truth - truth.min()) / (truth.max() - truth.min())
    _, group = np.unique(-predicted, return_inverse=True)
    shared = np.bincount(group, gains) / np.bincount(group)
    ranked = shared[np.sort(group)][:k]
    discounts = np.log2(np.arange(2, len(ranked) + 2))
    ideal = np.sort(gains)[::-1][:k]
    return float((ranked / discounts).sum() / (ideal / discounts).sum())


def ndcg_at_10(accuracy: ArrayLike, score: ArrayLike) -> float:
    """`ndcg` with k = 10."""
    return ndcg(accuracy, score, 10)


def top_regret(accuracy: ArrayLike, score: ArrayLike, share: float = 0.01) -> float:
    """What is lost by training only the best-scored `share` of the pool and keeping the best of them, in points.

    The best accuracy of the pool minus the best among the `share` (rounded down, at least one network) with the highest
    scores. Where equal scores straddle the limit, the expectation over a random choice among them is taken.

    Args:
        accuracy: (n,) measured accuracies, percent.
        score: (n,) predicted scores.
        share: Share of the pool, 0 to 1.

    Returns:
        Percentage points, 0 or more; `nan` for no network.
    """
    truth, predicted = _pair(accuracy, score)
    if not len(truth):
        return nan
    k = max(1, int(len(truth) * share))
    limit = np.sort(predicted)[-k]
    above, tied = truth[predicted > limit], np.sort(truth[predicted == limit])
    draws = k - len(above)
    best = above.max() if len(above) else -np.inf
    values = np.maximum(tied, best)
    places = np.arange(draws, len(tied) + 1)
    chance = np.array([np.exp(_log_choose(j - 1, draws - 1) - _log_choose(len(tied), draws)) for j in places.tolist()])
    expected = float(chance @ values[places - 1] / chance.sum())
    return max(0.0, float(truth.max()) - expected)


def mean_absolute_error(accuracy: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute difference in points; `nan` for no network.

    Args:
        accuracy: (n,) measured accuracies, percent.
        predicted: (n,) predicted accuracies, percent.
    """
    truth, estimate = _pair(accuracy, predicted)
    return float(np.abs(truth - estimate).mean()) if len(truth) else nan


RANK_METRICS: Mapping[str, Metric] = {
    "spearman": spearman,
    "kendall": kendall,
    "ndcg_at_10": ndcg_at_10,
    "regret_top_1_percent": top_regret,
}
"""The metrics of a ranking by name; all but the regret are better when larger."""


@dataclass(frozen=True)
class Interval:
    """A metric with its bootstrap interval.

    Attributes:
        value: The metric on all networks.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    metric: Metric,
    accuracy: ArrayLike,
    score: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    n_resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """The metric with a percentile bootstrap interval (Efron and Tibshirani 1993, ch. 13).

    Args:
        metric: A function of (accuracy, score).
        accuracy: (n,) measured accuracies.
        score: (n,) predicted scores or accuracies.
        groups: (n,) group of each network; whole groups are drawn, since networks of one family are not independent.
            Default: networks are drawn one by one.
        level: Share of the resamples inside the interval.
        n_resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The interval; its ends are `nan` where the metric is undefined on every resample.
    """
    truth, predicted = _pair(accuracy, score)
    value = metric(truth, predicted)
    if len(truth) < 2:
        return Interval(value, nan, nan)
    labels = np.arange(len(truth)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    random = generator(seed, "bootstrap")
    values = []
    for _ in range(n_resamples):
        drawn = random.integers(len(members), size=len(members))
        rows = drawn if groups is None else np.concatenate([members[i] for i in drawn])
        values.append(metric(truth[rows], predicted[rows]))
    defined = np.array([v for v in values if not np.isnan(v)])
    if not len(defined):
        return Interval(value, nan, nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _pair(accuracy: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    truth, predicted = np.asarray(accuracy, np.float64), np.asarray(score, np.float64)
    if truth.ndim != 1 or truth.shape != predicted.shape:
        raise DataError(f"expected two vectors of one length, got the shapes {truth.shape} and {predicted.shape}")
    for side, values in (("accuracy", truth), ("score", predicted)):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"{side} {row} is {values[row]}, expected a finite number: leave unscored networks out")
    return truth, predicted


def _constant(values: Floats) -> bool:
    return len(values) < 2 or bool(values.min() == values.max())


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
