"""Boosted trees as a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..encoders.errors import ConfigError
from .forest import Forest, column_type
from .head import Floats, Head, HeadState, register_head
from .seeding import integer_seed

ZERO = float(np.float32(1e-35))
"""LightGBM's `kZeroThreshold`."""


@register_head("gbdt")
class GBDTHead(Head):
    """Gradient-boosted trees (LightGBM, Ke et al. 2017) with a squared loss, sized by the number of rows.

    LightGBM grows the trees; they are kept and evaluated as a `Forest`, without LightGBM.

    Args:
        n_trees: Boosting rounds; None adapts to the rows.
        leaves: Leaves per tree; None adapts.
        min_leaf: Least rows in a leaf; None adapts.
        learning_rate: Shrinkage.
        columns: Share of the columns each tree may use.
        monotone: One 0 or +1 per column: +1 forces predictions not to fall with it. None: no constraint.
        threads: LightGBM threads; they change how fast it fits, nothing else. Two pay on an idle machine only:
            where another process wants a core, its threads wait for each other most of the time.
        seed: Seed of the column and row sampling.
    """

    takes_monotone = True

    def __init__(
        self,
        n_trees: int | None = None,
        leaves: int | None = None,
        min_leaf: int | None = None,
        learning_rate: float = 0.03,
        columns: float = 0.2,
        monotone: list[int] | None = None,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        self.n_trees, self.leaves, self.min_leaf = n_trees, leaves, min_leaf
        self.learning_rate, self.columns, self.monotone = learning_rate, columns, monotone
        self.threads, self.seed = threads, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        import lightgbm

        rows, width = table.shape
        if self.monotone is not None and len(self.monotone) != width:
            raise ConfigError(f"monotone has {len(self.monotone)} entries, expected one per column, {width}")
        self.mean_ = float(np.average(labels, weights=weights))
        n_trees, leaves, min_leaf = _tree_sizes(rows)
        parameters = {
            "objective": "regression",
            "num_leaves": self.leaves or leaves,
            "min_data_in_leaf": self.min_leaf or min_leaf,
            "min_sum_hessian_in_leaf": 1e-6,
            "min_data_in_bin": 3 if rows > 200 else 1,
            "learning_rate": self.learning_rate,
            "feature_fraction": max(self.columns, min(1.0, 4 / width)),
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 1.0,
            "feature_pre_filter": False,
            "boost_from_average": False,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "seed": integer_seed(self.seed, "gbdt"),
            "verbosity": -1,
        }
        if self.monotone is not None and any(self.monotone):
            parameters["monotone_constraints"] = list(self.monotone)
        if rows == 1:  # LightGBM's bagging would leave it no row
            table, labels, weights = np.repeat(table, 2, 0), np.repeat(labels, 2), np.repeat(weights, 2)
        data = lightgbm.Dataset(table, labels - self.mean_, weight=weights, params=parameters, free_raw_data=True)
        booster = lightgbm.train(parameters, data, num_boost_round=self.n_trees or n_trees)
        self.forest_ = _flattened(booster.dump_model()["tree_info"], width)

    def _predict(self, table: Floats) -> Floats:
        return self.forest_(table) + self.mean_

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, self.forest_.arrays())

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.forest_ = Forest.restore(state.arrays, self.n_features_in_)


def _flattened(trees: Iterable[Mapping[str, Any]], width: int) -> Forest:
    """The forest of LightGBM's trees, as `dump_model` has them, on tables of `width` columns.

    It gives the sum that LightGBM gives for finite numbers: they are never missing, so default directions play no part.
    """
    roots: list[int] = []
    right: list[int] = []
    column: list[int] = []
    threshold: list[float] = []
    value: list[float] = []
    for tree in trees:
        roots.append(len(right))
        waiting = [(tree["tree_structure"], -1)]  # nodes, and of which node they are the right child
        while waiting:
            node, parent = waiting.pop()
            at, leaf = len(right), "leaf_value" in node
            if parent >= 0:
                right[parent] = at
            right.append(-1)
            column.append(0 if leaf else node["split_feature"])
            threshold.append(0.0 if leaf else node["threshold"])
            value.append(node["leaf_value"] if leaf else 0.0)
            if not leaf:
                waiting += [(node["right_child"], at), (node["left_child"], -1)]
    # LightGBM reads what is no farther than ZERO from 0 as 0, and has no threshold nearer: only -ZERO itself differs.
    edges = np.array(threshold, np.float64)
    return Forest(
        roots=np.array(roots, np.int32),
        right=np.array(right, np.int32),
        column=np.array(column, column_type(width)),
        threshold=np.where(edges == -ZERO, np.nextafter(-ZERO, -np.inf), edges),
        value=np.array(value, np.float64),
    )


def _tree_sizes(rows: int) -> tuple[int, int, int]:
    """Rounds, leaves and least rows per leaf for a training set of `rows`."""
    if rows <= 120:
        return 400, 6, max(1, min(4, rows // 5))
    if rows <= 2000:
        return 600, 12, 6
    return 600, 15, min(60, rows // 200)
