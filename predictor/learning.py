"""What a predictor learns from benchmarks: heads, their blend, distances, accuracies and what is reported of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from .calibration import error_range
from .distance import Reference, beyond_edge, fold_places
from .ensemble import (
    Ensemble,
    HeadBlend,
    HeadOptions,
    View,
    assign_folds,
    blend_heads,
    combine,
    components,
    fit_members,
    out_of_fold,
    scaled,
    weighted_mean,
    weights_of,
)
from .features import Features
from .fitted import Fitted, Prior
from .metrics import kendall
from .seeding import integer_seed
from .size_prior import FAR_SHARE, OUTSIDE_TRUST, SHARE, fit_size_prior, trust, within_spaces
from .tasks import TaskModel, TaskRows, fit_task
from .transforms import normal_ranks, ranks_and_values, space_weights

Floats = NDArray[np.float64]

NEAR = 10
"""From how many labels on a fine-tuned predictor measures distances from its own training networks."""
SEVERAL = 3
"""From how many training spaces on a predictor is one for several."""


@dataclass(frozen=True)
class Recipe:
    """How a predictor learns.

    Attributes:
        views: Views of its heads.
        far_views: Views of the heads for networks far from the training set, if it is of one or two spaces.
        options: Head name → options of its constructor.
        n_seeds: Members of each head that has a seed.
        seed: Seed of everything.
        monotone: Whether trees may not rate a network lower for being larger.
        size_share: What one standard deviation of size is worth; None: 0.6 with several training spaces, else 0.
    """

    views: tuple[View, ...]
    far_views: tuple[View, ...]
    options: HeadOptions
    n_seeds: int
    seed: int
    monotone: bool
    size_share: float | None


def learn(
    recipe: Recipe, features: Features, benchmarks: Sequence[Benchmark], plain: Floats, prior: Prior | None = None
) -> Fitted:
    """Fit heads, blend, distances and accuracies.

    Args:
        recipe: How.
        features: What the columns of `plain` are.
        benchmarks: What to learn from; one, if there is a prior.
        plain: (n, d) features of all their networks, in their order.
        prior: What a fine-tuned predictor starts from.
    """
    opinions = np.zeros((len(plain), 0)) if prior is None else prior.opinions(plain, features)
    table = np.hstack([plain, opinions])
    lengths = [len(benchmark) for benchmark in benchmarks]
    owner = np.repeat(np.arange(len(benchmarks)), lengths).astype(np.int32)
    accuracy = np.concatenate([benchmark.accuracy for benchmark in benchmarks])
    weights = np.repeat(space_weights(lengths), lengths)
    hashes = [key for benchmark in benchmarks for key in benchmark.hashes]
    families = [f"{b.relatives}/{group}" for b in benchmarks for group in b.groups]
    keys = list(zip(hashes, families, strict=True))
    folds = assign_folds(keys, _n_folds(len(table)), integer_seed(recipe.seed, "folds"))
    data = tuple(_record(benchmark) for benchmark in benchmarks)
    several = prior is None and spaces_of(data) >= SEVERAL

    labels = np.concatenate([normal_ranks(benchmark.accuracy) for benchmark in benchmarks])
    monotone = features.monotone(opinions.shape[1]) if recipe.monotone else None
    options = recipe.options
    if prior is not None:
        labels = ranks_and_values(benchmarks[0].accuracy, benchmarks[0].unit == "percent")
        second = features.evidence_width + opinions.shape[1] - 1
        roles = {"gp": {"second": second, "linear": 1}, "bayes_linear": {"linear": 1}}
        options = {**options, **{head: {**options.get(head, {}), **role} for head, role in roles.items()}}

    sizes, groups = features.sizes(plain)
    size_prior = fit_size_prior(sizes, groups, owner) if prior is None else None
    size, share = np.zeros(len(plain)), 0.0
    if size_prior is not None:
        size = size_prior(sizes)
        share = SHARE * several if recipe.size_share is None else recipe.size_share
    inside = within_spaces(size, owner)
    targets = labels - share * inside

    fold = partial(
        out_of_fold, recipe.views, table, targets, weights, seed=recipe.seed, monotone=monotone, options=options
    )
    fit = partial(fit_members, n_seeds=recipe.n_seeds, monotone=monotone, options=options)
    near, apart = fold(folds), None
    if several:
        spaces = [(benchmark.relatives,) for benchmark in benchmarks for _ in benchmark.names]
        apart = fold(assign_folds(spaces, 4, integer_seed(recipe.seed, "spaces")))
    blends = blend_heads(near, targets, owner, alike_far=several, share=share, size=inside)
    members = fit(recipe.views, table, targets, weights, seed=recipe.seed)
    distance, outside = fold_places(features.placed(plain), folds, owner, seed=recipe.seed)
    away = beyond_edge(outside) if several else np.zeros(len(outside))
    said = scaled(near, blends, size, trust(distance, away) if several else 1.0)
    parts = weights_of(blends, away)
    unseen = weighted_mean(said, parts)
    if prior is not None:
        said, unseen = prior.draw(said, opinions[:, -1]), prior.draw(unseen, opinions[:, -1])
    rows = TaskRows(
        table=table,
        accuracy=accuracy,
        weights=weights,
        owner=owner,
        folds=folds,
        groups=components(keys),
        distance=distance,
        score=unseen,
        members=said,
        parts=parts,
    )
    far_views = () if several or size_prior is None else recipe.far_views
    if far_views:
        seed = integer_seed(recipe.seed, "far")
        members += fit(far_views, table, labels - FAR_SHARE * inside, weights, seed=seed)
        blends = [replace(blend, far=0.0) for blend in blends]
        blends += [HeadBlend(0.0, 1 / len(far_views), 0.0, 1.0, nan, FAR_SHARE)] * len(far_views)

    def by_benchmark(scores: Floats) -> dict[str, float]:
        pairs = enumerate(benchmarks)
        return {f"{b.name}:{b.task}": kendall(accuracy[owner == i], scores[owner == i]) for i, b in pairs}

    report: dict[str, Any] = {
        "size_share": share,
        "heads": {
            view.name: {"weight": blend.weight, "far": blend.far, "kendall": blend.kendall}
            for view, blend in zip(recipe.views, blends, strict=False)
        },
        "out_of_fold_kendall": by_benchmark(unseen),
    }
    rank_errors = None
    if apart is not None:
        apart_scores = combine(apart, blends, size, np.ones(len(size)), OUTSIDE_TRUST)
        rank_errors = error_range(labels - apart_scores, owner)
        report["out_of_space_kendall"] = by_benchmark(apart_scores)
    if prior is not None:
        report["labels"] = prior.labels
        report["prior_kendall"] = kendall(accuracy, opinions[:, -1])
        report["seen_by_prior"] = int(prior.predictor._seen(hashes).sum())
    if prior is not None and len(plain) < NEAR:  # a handful of networks says nothing of what is near
        reference = prior.predictor.fitted.reference
    else:
        reference = Reference.fit(features.placed(plain), owner, seed=recipe.seed)
    return Fitted(
        ensemble=Ensemble((*recipe.views, *far_views), members, tuple(blends)),
        reference=reference,
        tasks=_tasks(recipe, benchmarks, rows, monotone, options, prior),
        seen=np.unique(prefixes(hashes)),
        data=data,
        report=report,
        prior=prior,
        size_prior=size_prior,
        rank_errors=rank_errors,
    )


def spaces_of(data: Iterable[Mapping[str, Any]]) -> int:
    """Of how many different spaces these records of benchmarks are."""
    return len({record["relatives"] for record in data})


def prefixes(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """First 64 bits of hashes (n,)."""
    return np.array([int(key[:16], 16) for key in hashes], np.uint64)


def _tasks(
    recipe: Recipe,
    benchmarks: Sequence[Benchmark],
    rows: TaskRows,
    monotone: Sequence[int] | None,
    options: HeadOptions,
    prior: Prior | None,
) -> tuple[TaskModel, ...]:
    """What gives accuracies, for each task that has some in percent."""
    names = [benchmark.task if benchmark.unit == "percent" else "" for benchmark in benchmarks]
    before = {} if prior is None else {model.task: model for model in prior.predictor.fitted.tasks}
    found = []
    for task in dict.fromkeys(name for name in names if name):
        owners = tuple(i for i, name in enumerate(names) if name == task)
        found.append(
            fit_task(
                task,
                owners,
                tuple(benchmarks[i].epochs for i in owners),
                rows,
                recipe.views,
                n_seeds=recipe.n_seeds,
                seed=integer_seed(recipe.seed, "task", task),
                monotone=monotone,
                options=options,
                before=before.get(task),
                scaled=len(benchmarks) > 1,
            )
        )
    return tuple(found)


def _n_folds(rows: int) -> int:
    """Folds for this many rows; fewer from 200 on, where fine-tuning adds a perceptron."""
    return 10 if rows < 200 else 5 if rows <= 3000 else 3


def _record(benchmark: Benchmark) -> dict[str, Any]:
    content = json.dumps([benchmark.hashes, benchmark.accuracy.tolist(), benchmark.groups]).encode()
    return {
        "name": benchmark.name,
        "task": benchmark.task,
        "n": len(benchmark),
        "label": benchmark.label,
        "epochs": benchmark.epochs,
        "licence": benchmark.licence,
        "relatives": benchmark.relatives,
        "sha256": sha256(content).hexdigest(),
    }
