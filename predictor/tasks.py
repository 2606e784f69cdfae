"""Accuracies on a task: what a predictor learns of labels beside their ranks, and what it says of networks.

The parts are in `calibration`: a map of rank scores to percent for each benchmark, heads that predict percent from the
features, and margins. Here they are fitted together on scores of networks the heads had not seen, and put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, log2, nan
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .calibration import (
    FEW,
    SIDE,
    Margins,
    RankMap,
    RankScale,
    at_budget,
    best_share,
    budget_step,
    cross_mapped,
    widen_levels,
    widen_ranks,
)
from .distance import Place, beyond_edge
from .ensemble import (
    Ensemble,
    HeadBlend,
    HeadOptions,
    View,
    fit_members,
    out_of_fold,
    weighted_deviation,
    weighted_mean,
)

Floats = NDArray[np.float64]

ENDLESS = 1e9
"""Epochs of a training without end when budgets are compared."""


@dataclass(frozen=True)
class TaskRows:
    """Training rows of all benchmarks, n of them, with what is known about each out of fold; h heads.

    Attributes:
        table: (n, d) features.
        accuracy: (n,) labels, percent.
        weights: (n,) weights.
        owner: (n,) number of the benchmark.
        folds: (n,) folds.
        groups: (n,) groups that were held out together.
        distance: (n,) distance from the other folds.
        score: (n,) rank scores.
        members: (h, n) the heads' scores.
        parts: (h, n) the heads' weights.
    """

    table: Floats
    accuracy: Floats
    weights: Floats
    owner: NDArray[np.int32]
    folds: NDArray[np.int32]
    groups: NDArray[np.intp]
    distance: Floats
    score: Floats
    members: Floats
    parts: Floats


@dataclass(frozen=True)
class Estimates:
    """What a task's model says of n networks, in percent and points.

    Attributes:
        accuracy: (n,) accuracies.
        low: (n,) lower ends of the 90 % intervals.
        high: (n,) upper ends.
        spread: (n,) standard deviations over the members.
    """

    accuracy: Floats
    low: Floats
    high: Floats
    spread: Floats

    def at_budget(self, step: Floats) -> Estimates:
        """The same at a budget that is so many logits (n,) better."""
        accuracy, low, high = at_budget(self.accuracy, self.low, self.high, step)
        return Estimates(accuracy, low, high, self.spread)


@dataclass(frozen=True)
class TaskModel:
    """What turns rank scores into accuracies on one task.

    Attributes:
        task: The task.
        owners: Numbers, in the order of fitting, of the benchmarks that have this task.
        budgets: Training epochs behind the labels of each of them; None where they are unknown.
        maps: Rank score → accuracy for each of them.
        margins: Interval for each of them.
        direct: Heads that predict the accuracy itself; None with few labels.
        share: Share of the direct estimate, 0 to 1; the rest is the mapped one.
        scale: Accuracy → rank score of networks near the benchmark, if there is one only and the predictor was fitted
            on others too: what its own labels teach ranks such networks better than what all benchmarks say together.
    """

    task: str
    owners: tuple[int, ...]
    budgets: tuple[float | None, ...]
    maps: tuple[RankMap, ...]
    margins: tuple[Margins, ...]
    direct: Ensemble | None
    share: float
    scale: RankScale | None = None

    def nearest_budget(self, epochs: float | None) -> TaskModel:
        """The model of those benchmarks whose budget is nearest to `epochs` in ratio; with None, of all.

        A budget that is unknown counts as a training without end.
        """
        if epochs is None:
            return self
        wanted, *known = (log2(min(ENDLESS, inf if each is None else each)) for each in (epochs, *self.budgets))
        apart = [abs(wanted - each) for each in known]
        kept = [i for i, each in enumerate(apart) if each <= min(apart) + 1e-9]
        if len(kept) == len(apart):
            return self
        # The heads that predict the accuracy itself have learnt from labels of all budgets.
        return replace(
            self,
            owners=tuple(self.owners[i] for i in kept),
            budgets=tuple(self.budgets[i] for i in kept),
            maps=tuple(self.maps[i] for i in kept),
            margins=tuple(self.margins[i] for i in kept),
            direct=None,
            share=0.0,
        )

    def steps(self, place: Place, epochs: float | None) -> Floats:
        """By how many logits (n,) labels after `epochs` are better than those that taught it; None: no step."""
        if epochs is None:
            return np.zeros(len(place.apart))
        each = [budget_step(budget, epochs) for budget in self.budgets]
        return np.asarray(place.membership(self.owners) @ each, np.float64)

    def estimate(
        self,
        table: Floats,
        outputs: Floats,
        parts: Floats,
        place: Place,
        rank_errors: tuple[float, float] | None,
    ) -> Estimates:
        """Accuracies and intervals of n networks.

        Args:
            table: (n, d) features.
            outputs: (m, n) rank scores of the members of the predictor's ensemble.
            parts: (m, n) their weights.
            place: Where the networks lie.
            rank_errors: How far off rank scores may be in other spaces; networks beyond the edge of the task's
                benchmarks have intervals at least as wide as that makes them, and wider since labels of other
                benchmarks have another level. None: neither.
        """
        score = weighted_mean(outputs, parts)
        belongs = place.membership(self.owners).T
        mapped = np.stack([each(score) for each in self.maps])
        accuracy = (belongs * mapped).sum(0)
        between = (1 - self.share) ** 2 * (belongs * (mapped - accuracy) ** 2).sum(0)
        members = np.einsum("bn,bmn->mn", belongs, np.stack([each(outputs) for each in self.maps]))
        if self.direct is not None:
            direct = self.direct.member_outputs(table)
            told = np.clip(direct.scores(None), 0, 100)
            mean = weighted_mean(told, direct.weights)
            told = np.concatenate([told, np.tile(mean, (len(members) - len(told), 1))])  # far heads estimate nothing
            accuracy = accuracy + self.share * (mean - accuracy)
            members = members + self.share * (told - members)
        spread = weighted_deviation(members, parts)
        sides = np.stack([margins(accuracy, place.distance(), spread) for margins in self.margins])
        below, above = np.sqrt((belongs[:, None] * sides**2).sum(0) + SIDE**2 * between)
        low, high = accuracy - below, accuracy + above
        if rank_errors is not None:
            widened = beyond_edge(place.distance(self.owners))
            slopes = widened * (np.array([each.logits_per_score() for each in self.maps]) @ belongs)
            low, high = widen_ranks(accuracy, low, high, rank_errors, slopes)
            low, high = widen_levels(accuracy, low, high, widened)
        return Estimates(accuracy, np.clip(low, 0, 100), np.clip(high, 0, 100), spread)

    def to_dict(self) -> dict[str, Any]:
        """JSON values of all but the direct heads."""
        return {
            "task": self.task,
            "owners": self.owners,
            "budgets": self.budgets,
            "maps": [each.to_dict() for each in self.maps],
            "margins": [each.to_dict() for each in self.margins],
            "share": self.share,
            "scale": None if self.scale is None else self.scale.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], direct: Ensemble | None) -> Self:
        """The model that wrote `values`, with its direct heads."""
        return cls(
            task=values["task"],
            owners=tuple(values["owners"]),
            budgets=tuple(values["budgets"]),
            maps=tuple(RankMap.from_dict(each) for each in values["maps"]),
            margins=tuple(Margins.from_dict(each) for each in values["margins"]),
            direct=direct,
            share=float(values["share"]),
            scale=RankScale.from_dict(values["scale"]) if values["scale"] else None,
        )


def fit_task(
    task: str,
    owners: tuple[int, ...],
    budgets: tuple[float | None, ...],
    rows: TaskRows,
    views: Sequence[View],
    *,
    n_seeds: int,
    seed: int,
    monotone: Sequence[int] | None = None,
    options: HeadOptions | None = None,
    before: TaskModel | None = None,
    scaled: bool = False,
) -> TaskModel:
    """Learn a task's model.

    Args:
        task: The task.
        owners: Numbers of its benchmarks.
        budgets: Training epochs behind the labels of each of them, or None.
        rows: Rows of all benchmarks.
        views: Heads for the direct estimate, and what they see.
        n_seeds: Members of each head.
        seed: Seed.
        monotone: One 0 or +1 per column.
        options: Options of the heads.
        before: An earlier model of the task, for a handful of labels.
        scaled: Whether to learn the `scale` too, where there is a direct estimate and one benchmark only.
    """
    mine = np.isin(rows.owner, owners)
    maps = []
    estimate, members = np.zeros(len(mine)), np.zeros(rows.members.shape)
    for i in owners:
        at = rows.owner == i
        score, accuracy = rows.score[at], rows.accuracy[at]
        each = RankMap.fit(score, accuracy, before=None if before is None else before.maps[0])
        few = len(score) < FEW
        estimate[at] = each(score) if few else cross_mapped(score, accuracy, rows.groups[at].tolist(), seed=seed)
        members[:, at] = each(rows.members[:, at])
        maps.append(each)
    direct, share = None, 0.0
    if mine.sum() >= FEW:
        labels, table, weights = rows.accuracy[mine], rows.table[mine], rows.weights[mine]
        outputs = out_of_fold(
            views, table, labels, weights, rows.folds[mine], seed=seed, monotone=monotone, options=options
        )
        precision = 1 / np.maximum(((outputs - labels) ** 2).mean(1), 1e-9)
        parts = precision / precision.sum()
        told = np.clip(parts @ outputs, 0, 100)
        share = best_share(estimate[mine], told, labels)
        estimate[mine] += share * (told - estimate[mine])
        members[:, mine] += share * (np.clip(outputs, 0, 100) - members[:, mine])
        if share > 0:
            fitted = fit_members(
                views, table, labels, weights, n_seeds=n_seeds, seed=seed, monotone=monotone, options=options
            )
            blends = tuple(HeadBlend(part, part, 0.0, 1.0, nan) for part in parts.tolist())
            direct = Ensemble(tuple(views), fitted, blends)
    spread = weighted_deviation(members, rows.parts)
    margins = tuple(
        Margins.fit(
            estimate[at],
            rows.accuracy[at],
            groups=rows.groups[at].tolist(),
            distance_edge=max(1.0, float(np.quantile(rows.distance[at], 0.9))),
            spread_edge=float(np.quantile(spread[at], 0.9)),
            before=None if before is None else before.margins[0],
        )
        for at in (rows.owner == i for i in owners)
    )
    scale = RankScale.fit(rows.accuracy[mine]) if scaled and direct is not None and len(owners) == 1 else None
    return TaskModel(task, owners, budgets, tuple(maps), margins, direct, share, scale)
