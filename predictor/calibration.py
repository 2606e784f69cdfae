"""From rank scores to accuracies in percent with intervals, learnt from scores of networks a member had not seen.

Two estimates are blended. The rank score passes through a rising map, one per benchmark, which stays sensible far from
the training networks. A direct regression of the accuracy sees the features themselves, so it knows the networks that
fail, which a rank tells apart from merely poor ones only faintly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .seeding import generator
from .transforms import QUARTILE, logit

Floats = NDArray[np.float64]

LEVEL = 0.9
"""Share of networks whose measured accuracy should lie inside the interval."""
SIDE = 1.645
"""Standard deviations to either end of a normal interval of that level."""
FEW = 20
"""With fewer labels than this a straight line and Student's t take the place of isotonic regression and conformal
quantiles, and there is no direct regression."""

LEVEL_SPREAD = 0.32
"""Standard deviation between benchmarks of a task of the logit of their median accuracy, budgets allowed for.

Of eight benchmarks of CIFAR-10 and three of ImageNet-1k (`benchmarks/label_levels.py`). It widens intervals outside a
task's benchmark and nothing else.
"""
BUDGET_SCALE, BUDGET_POWER = 6.93, 0.73
"""After e epochs labels lie 6.93 · e^-0.73 logits below those of a training without end.

A power law of training (as in Domhan, Springenberg and Hutter 2015), fitted to the medians of 91 cells of NAS-Bench-101
after 4, 12, 36 and 108 epochs (EC-NAS; `benchmarks/label_levels.py`).
"""
BUDGET_ERROR = 0.25
"""Standard deviation of a step from one budget to another, in units of the step.

The power law is that of one space. Accel-NASBench (16 epochs), which had no part in it, lies below the real networks by
that step of .92 logits to 3 % of it, and below OFA to 24 % (`benchmarks/label_levels.py`).
"""


class _Stored:
    """JSON values of a dataclass of numbers and arrays."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` gives the object back."""
        return {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The object that `to_dict` wrote."""
        return cls(**{k: np.asarray(v, np.float64) if isinstance(v, list) else float(v) for k, v in values.items()})


@dataclass(frozen=True)
class RankMap(_Stored):
    """Rank score → accuracy for one benchmark, never falling.

    Piecewise linear through the centres of the blocks of an isotonic regression (Barlow et al. 1972) of accuracy on
    out-of-fold scores, and beyond the outermost half as steep as the outer fifth. With few labels, a line.

    Attributes:
        scores: (k,) ascending rank scores of the knots.
        accuracy: (k,) percent at the knots.
        slope_below: Percent per unit of score below the first knot.
        slope_above: Percent per unit of score above the last knot.
        least: Lowest accuracy the map gives, percent: the lowest label, or 0 if there were few.
        most: Highest accuracy the map gives, percent: the highest label, or 100 if there were few.
    """

    scores: Floats
    accuracy: Floats
    slope_below: float
    slope_above: float
    least: float
    most: float

    def __call__(self, score: Floats) -> Floats:
        """Accuracy in percent for rank scores of any shape."""
        inside = np.interp(score, self.scores, self.accuracy)
        below = self.slope_below * np.minimum(score - self.scores[0], 0.0)
        above = self.slope_above * np.maximum(score - self.scores[-1], 0.0)
        return np.asarray(np.clip(inside + below + above, self.least, self.most), np.float64)

    def logits_per_score(self) -> float:
        """Slope of the logit of the accuracy between the quartiles of a standard normal score."""
        below, above = logit(self(np.array([-QUARTILE, QUARTILE]))).tolist()
        return float((above - below) / (2 * QUARTILE))

    @classmethod
    def fit(cls, score: Floats, accuracy: Floats, *, before: RankMap | None = None) -> RankMap:
        """Learn a map.

        Args:
            score: (n,) out-of-fold rank scores.
            accuracy: (n,) measured accuracies, percent.
            before: An earlier map of the same task; with few labels its slope is worth two labels. Without it, two
                labels' worth of no slope are assumed.
        """
        if len(score) < FEW or score.min() == score.max() or accuracy.min() == accuracy.max():
            middle = score.mean()
            x, y = score - middle, accuracy - accuracy.mean()
            expected = 0.0 if before is None else float(np.diff(before(middle + np.array([-0.5, 0.5])))[0])
            slope = max(0.0, float((x @ y + 2 * expected) / (x @ x + 2)))
            return cls(np.array([middle]), np.array([accuracy.mean()]), slope, slope, 0.0, 100.0)
        knots, values = _isotonic(score, accuracy)
        below, above = np.quantile(score, [0.2, 0.8])
        risen = np.interp([below, above], knots, values)
        return cls(
            scores=knots,
            accuracy=values,
            slope_below=0.5 * float(risen[0] - values[0]) / max(1e-3, float(below - knots[0])),
            slope_above=0.5 * float(values[-1] - risen[1]) / max(1e-3, float(knots[-1] - above)),
            least=float(accuracy.min()),
            most=float(accuracy.max()),
        )


@dataclass(frozen=True)
class RankScale(_Stored):
    """Accuracy → rank score: the normal quantile of its rank among the labels of a task, rising everywhere.

    Attributes:
        accuracy: (k,) ascending quantiles of the labels, percent.
        scores: (k,) normal quantiles of their levels.
        slope: Score per point beyond the first and the last.
    """

    accuracy: Floats
    scores: Floats
    slope: float

    def __call__(self, accuracy: Floats) -> Floats:
        """Rank scores (n,) of accuracies (n,) in percent."""
        beyond = accuracy - np.clip(accuracy, self.accuracy[0], self.accuracy[-1])
        return np.asarray(np.interp(accuracy, self.accuracy, self.scores) + self.slope * beyond, np.float64)

    @classmethod
    def fit(cls, labels: Floats) -> RankScale | None:
        """Learn from labels (n,); None if they are all alike."""
        from scipy.special import ndtri

        levels = (np.arange(k := min(100, len(labels))) + 0.5) / k
        knots, first = np.unique(np.quantile(labels, levels), return_index=True)
        if len(knots) < 2:
            return None
        scores = ndtri(levels[first])
        return cls(knots, scores, float((scores[-1] - scores[0]) / (knots[-1] - knots[0])))


@dataclass(frozen=True)
class Margins(_Stored):
    """How far the measured accuracy may lie from the estimate, for one benchmark.

    The split-conformal interval for scaled residuals (Lei et al. 2018, sec. 5.2), lower and upper side apart; a group
    of m networks counts as much as one of a single network (Dunn, Wasserman and Ramdas 2023). It is widened beyond the
    distances and the spreads met while calibrating.

    Attributes:
        estimates: (k,) ascending estimates, percent.
        error: (k,) typical error there, points.
        low: Lower quantile of residual / typical error.
        high: Upper quantile.
        distance_edge: Distance up to which nothing is widened.
        spread_edge: Spread (points) up to which nothing is widened.
    """

    estimates: Floats
    error: Floats
    low: float
    high: float
    distance_edge: float = 1.0
    spread_edge: float = np.inf

    def __call__(self, estimate: Floats, distance: Floats, spread: Floats) -> tuple[Floats, Floats]:
        """Points below and above the estimate (n,), both 0 or more.

        Args:
            estimate: (n,) estimated accuracies, percent.
            distance: (n,) distances from the training set, see `distance`.
            spread: (n,) standard deviations over the members, points.
        """
        typical = np.interp(estimate, self.estimates, self.error) * np.maximum(1.0, distance / self.distance_edge)
        extra = SIDE * np.maximum(0.0, spread - self.spread_edge)
        below, above = (np.sqrt((typical * side) ** 2 + extra**2) for side in (-self.low, self.high))
        return np.asarray(below, np.float64), np.asarray(above, np.float64)

    @classmethod
    def fit(
        cls,
        estimate: Floats,
        accuracy: Floats,
        *,
        groups: Sequence[int] | None = None,
        distance_edge: float = 1.0,
        spread_edge: float = np.inf,
        before: Margins | None = None,
    ) -> Margins:
        """Learn the margins.

        Args:
            estimate: (n,) out-of-fold estimates, percent.
            accuracy: (n,) measured accuracies, percent.
            groups: (n,) number of the group of each network; groups were held out together.
            distance_edge: See the class.
            spread_edge: See the class.
            before: Earlier margins of the same task: with one or two labels, half as much again is all there is to say.
                Without them, the interval is everything from 0 to 100.
        """
        n = len(estimate)
        residual = accuracy - estimate
        if n < 3:
            error = 100.0 if before is None else 1.5 * float(before.error.mean())
            width = 1.0 if before is None else max(before.high, -before.low)
            return cls(estimate[:1], np.array([error]), -width, width, distance_edge, spread_edge)
        if n < FEW:
            from scipy.special import stdtrit

            error = float(np.sqrt(residual @ residual / (n - 1.5))) + 0.05
            width = float(stdtrit(n - 1, (1 + LEVEL) / 2) * np.sqrt(1 + 1 / n))
            return cls(estimate[:1], np.array([error]), -width, width, distance_edge, spread_edge)
        size = np.abs(residual)
        parts = np.array_split(np.argsort(estimate, kind="stable"), max(1, min(8, n // 30)))
        floor = max(0.02, 0.2 * float(size.mean()))
        estimates = np.array([estimate[part].mean() for part in parts])
        errors = np.array([max(floor, float(size[part].mean())) for part in parts])
        scaled = residual / np.interp(estimate, estimates, errors)
        members = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        weights = 1.0 / np.bincount(members)[members]
        high = max(0.0, _conformal(scaled, weights, (1 + LEVEL) / 2))
        low = min(0.0, -_conformal(-scaled, weights, (1 + LEVEL) / 2))
        return cls(estimates, errors, low, high, distance_edge, spread_edge)


def cross_mapped(score: Floats, accuracy: Floats, groups: Sequence[int], *, seed: int) -> Floats:
    """Accuracy (n,) of each network by a `RankMap` fitted without its group, from out-of-fold scores (n,)."""
    whole = RankMap.fit(score, accuracy)
    members = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_folds = min(5, int(members.max()) + 1)
    if len(score) < FEW or n_folds < 2:
        return whole(score)
    fold_of = np.empty(members.max() + 1, np.intp)
    fold_of[generator(seed, "calibration").permutation(len(fold_of))] = np.arange(len(fold_of)) % n_folds
    result = np.empty(len(score))
    for fold in range(n_folds):
        held = fold_of[members] == fold
        result[held] = RankMap.fit(score[~held], accuracy[~held])(score[held])
    return result


def error_range(errors: Floats, owner: NDArray[np.int32]) -> tuple[float, float]:
    """The two ends, around 0, between which 90 % of errors (n,) lie if every benchmark counts alike."""
    counts = np.bincount(owner)
    weights = 1.0 / counts[owner]
    high = max(0.0, _conformal(errors, weights, (1 + LEVEL) / 2))
    low = min(0.0, -_conformal(-errors, weights, (1 + LEVEL) / 2))
    return low, high


def widen_ranks(
    accuracy: Floats, low: Floats, high: Floats, errors: tuple[float, float], slopes: Floats
) -> tuple[Floats, Floats]:
    """The ends of 90 % intervals (n,), at least as far out as rank scores may be wrong.

    An error of the score counts by a slope common to all networks: the tail of networks that fail, where a benchmark's
    accuracies fall steeply with rank, is a matter of that benchmark and not of networks elsewhere.

    Args:
        accuracy: (n,) estimates, percent.
        low: (n,) lower ends, percent.
        high: (n,) upper ends, percent.
        errors: How far below and above a score may lie, see `error_range`.
        slopes: (n,) logits of accuracy per unit of score; where they are 0 nothing changes.
    """
    middle = logit(accuracy)
    least, most = (_percent(middle + error * slopes) for error in errors)
    wider = slopes > 0
    return np.where(wider, np.minimum(low, least), low), np.where(wider, np.maximum(high, most), high)


def widen_levels(accuracy: Floats, low: Floats, high: Floats, away: Floats) -> tuple[Floats, Floats]:
    """The ends of 90 % intervals (n,) if the label is not of the benchmark that taught the task.

    The ends are deviations of the logit of the accuracy, and to their squares that of the level is added.

    Args:
        accuracy: (n,) estimates, percent.
        low: (n,) lower ends, percent.
        high: (n,) upper ends, percent.
        away: (n,) how far the networks are from that benchmark, 0 to 1; at 0 nothing changes.
    """
    _, least, most = _at_level(accuracy, low, high, 0.0, SIDE * LEVEL_SPREAD * away)
    low, high = np.minimum(low, least), np.maximum(high, most)
    return low, high


def budget_step(epochs: float | None, wanted: float) -> float:
    """By how many logits labels rise from `epochs` of training to `wanted`.

    Unknown epochs (None) count as a training without end, and less than one epoch as one.
    """
    before, after = (inf if each is None else max(each, 1.0) for each in (epochs, wanted))
    return float(BUDGET_SCALE * (before**-BUDGET_POWER - after**-BUDGET_POWER))


def at_budget(accuracy: Floats, low: Floats, high: Floats, step: Floats) -> tuple[Floats, Floats, Floats]:
    """Accuracies and the ends of their intervals (n,) in percent, at a budget that is so many logits (n,) better."""
    return _at_level(accuracy, low, high, step, SIDE * BUDGET_ERROR * np.abs(step))


def _at_level(
    accuracy: Floats, low: Floats, high: Floats, step: Floats | float, spread: Floats
) -> tuple[Floats, Floats, Floats]:
    """The same, moved by `step` and widened by `spread` (n,) logits; where both are 0 nothing changes."""
    middle, bottom, top = (logit(each) for each in (accuracy, low, high))
    moved = middle + step
    ends = (moved, moved - np.hypot(middle - bottom, spread), moved + np.hypot(top - middle, spread))
    still = (np.asarray(step) == 0) & (spread == 0)
    found = zip((accuracy, low, high), ends, strict=True)
    accuracy, low, high = (np.where(still, old, _percent(logit)) for old, logit in found)
    return accuracy, low, high


def _percent(logits: Floats) -> Floats:
    return np.asarray(100 / (1 + np.exp(-logits)), np.float64)


def best_share(mapped: Floats, direct: Floats, accuracy: Floats) -> float:
    """Share of the direct estimate in the blend with the mapped one that has the least mean absolute error."""
    shares = np.linspace(0, 1, 11)
    return float(shares[np.argmin([np.abs((1 - s) * mapped + s * direct - accuracy).mean() for s in shares])])


def _isotonic(score: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    """Centres of the blocks of the isotonic regression: (k,) scores and (k,) accuracies, both ascending."""
    from sklearn.isotonic import isotonic_regression

    order = np.lexsort((accuracy, score))
    positions, first, counts = np.unique(score[order], return_index=True, return_counts=True)
    means = np.add.reduceat(accuracy[order], first) / counts
    fitted = isotonic_regression(means, sample_weight=counts.astype(np.float64))
    blocks = np.cumsum(np.r_[0, np.diff(fitted) > 1e-12])
    weight = np.bincount(blocks, counts)
    knots = np.bincount(blocks, positions * counts) / weight
    values = np.bincount(blocks, fitted * counts) / weight
    if len(knots) > 200:
        kept = np.unique(np.linspace(0, len(knots) - 1, 200).round().astype(int))
        knots, values = knots[kept], values[kept]
    return knots, values


def _conformal(values: Floats, weights: Floats, level: float) -> float:
    """Weighted conformal upper quantile; the largest value half as much again when there are too few for the level."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= level * (weights.sum() + weights.mean())
    if not reached.any():
        return float(values[order[-1]]) * 1.5
    return float(values[order[int(np.argmax(reached))]])
