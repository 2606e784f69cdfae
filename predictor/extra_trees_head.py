"""Extremely randomised trees as a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError
from .forest import Forest, column_type
from .head import Floats, Head, HeadState, register_head
from .seeding import integer_seed


@register_head("extra_trees")
class ExtraTreesHead(Head):
    """Extremely randomised trees (Geurts et al. 2006): low variance, the safer head far from the training spaces.

    Args:
        n_trees: Trees.
        min_leaf: Least rows in a leaf; None adapts: 1 up to 50 rows, 2 up to 500, else 5.
        columns: Share of the columns tried at each split.
        monotone: One 0 or +1 per column; None: no constraint.
        seed: Seed of the splits.
    """

    takes_monotone = True

    def __init__(
        self,
        n_trees: int = 120,
        min_leaf: int | None = None,
        columns: float = 0.4,
        monotone: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.n_trees, self.min_leaf, self.columns = n_trees, min_leaf, columns
        self.monotone, self.seed = monotone, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        rows, width = table.shape
        if self.monotone is not None and len(self.monotone) != width:
            raise ConfigError(f"monotone has {len(self.monotone)} entries, expected one per column, {width}")
        forest = ExtraTreesRegressor(
            self.n_trees,
            min_samples_leaf=self.min_leaf or (1 if rows <= 50 else 2 if rows <= 500 else 5),
            max_features=self.columns,
            monotonic_cst=self.monotone,
            random_state=integer_seed(self.seed, "extra_trees"),
            n_jobs=1,
        ).fit(table, labels, sample_weight=weights)
        self.forest_ = _flattened([tree.tree_ for tree in forest.estimators_], width)

    def _predict(self, table: Floats) -> Floats:
        return self.forest_(table) / len(self.forest_.roots)

    def _state(self) -> HeadState:
        return HeadState({}, self.forest_.arrays())

    def _restore(self, state: HeadState) -> None:
        self.forest_ = Forest.restore(state.arrays, self.n_features_in_)


def _flattened(trees: Sequence[Any], width: int) -> Forest:
    """The forest of scikit-learn's trees, which grow depth first, on tables of `width` columns."""
    counts = [tree.node_count for tree in trees]
    roots = np.cumsum([0, *counts])[:-1]

    def joined(part: Callable[[Any], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([part(tree) for tree in trees])

    right = joined(lambda tree: tree.children_right)
    # Values are compared in float32; the next float32 below a threshold splits them as the threshold does.
    threshold = joined(lambda tree: tree.threshold)
    rounded = threshold.astype(np.float32)
    lower = np.nextafter(rounded, np.float32(-np.inf))
    return Forest(
        roots=roots.astype(np.int32),
        right=np.where(right < 0, -1, right + np.repeat(roots, counts)).astype(np.int32),
        column=joined(lambda tree: tree.feature).astype(column_type(width)),
        threshold=np.where(rounded > threshold, lower, rounded).astype(np.float32),
        value=joined(lambda tree: tree.value[:, 0, 0]).astype(np.float32),
    )
