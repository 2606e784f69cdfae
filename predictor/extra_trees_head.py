"""Extremely randomised trees as a head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError
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
        trees = [tree.tree_ for tree in forest.estimators_]
        self.roots_ = np.cumsum([0, *[tree.node_count for tree in trees]])[:-1].astype(np.int32)

        def joined(part: Callable[[Any], NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([part(tree) for tree in trees])

        # A node's left child is the node after it (trees grow depth first): only right children are kept; -1: a leaf.
        shift = np.repeat(self.roots_, [tree.node_count for tree in trees])
        right = joined(lambda tree: tree.children_right)
        self.right_ = np.where(right < 0, -1, right + shift).astype(np.int32)
        self.column_ = joined(lambda tree: tree.feature).astype(np.int16)
        # Values are compared in float32; the next float32 below a threshold splits them as the threshold does.
        threshold = joined(lambda tree: tree.threshold)
        rounded = threshold.astype(np.float32)
        lower = np.nextafter(rounded, np.float32(-np.inf))
        self.threshold_ = np.where(rounded > threshold, lower, rounded).astype(np.float32)
        self.value_ = joined(lambda tree: tree.value[:, 0, 0]).astype(np.float32)

    def _predict(self, table: Floats) -> Floats:
        values = table.astype(np.float32)  # what scikit-learn's trees compare
        total = np.zeros(len(values))
        every = np.arange(len(values))
        for root in self.roots_:
            node = np.full(len(values), root, np.int32)
            active = every
            while len(active):
                at = node[active]
                inner = self.right_[at] >= 0
                active, at = active[inner], at[inner]
                low = values[active, self.column_[at]] <= self.threshold_[at]
                node[active] = np.where(low, at + 1, self.right_[at])
            total += self.value_[node]
        return total / len(self.roots_)

    def _state(self) -> HeadState:
        names = ("roots", "right", "column", "threshold", "value")
        return HeadState({}, {name: getattr(self, f"{name}_") for name in names})

    def _restore(self, state: HeadState) -> None:
        for name, array in state.arrays.items():
            setattr(self, f"{name}_", np.asarray(array))
