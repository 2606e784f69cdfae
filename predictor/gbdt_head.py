"""Boosted trees as a head."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..encoders.errors import ConfigError
from .head import Floats, Head, HeadState, register_head
from .seeding import integer_seed


@register_head("gbdt")
class GBDTHead(Head):
    """Gradient-boosted trees (LightGBM, Ke et al. 2017) with a squared loss, sized by the number of rows.

    Args:
        n_trees: Boosting rounds; None adapts to the rows.
        leaves: Leaves per tree; None adapts.
        min_leaf: Least rows in a leaf; None adapts.
        learning_rate: Shrinkage.
        columns: Share of the columns each tree may use.
        monotone: One 0 or +1 per column: +1 forces predictions not to fall with it. None: no constraint.
        threads: LightGBM threads for many rows (fewer than 4,000 use one); they change nothing but the speed.
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
        threads: int = 2,
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
            "num_threads": self.threads if rows >= 4000 else 1,
            "seed": integer_seed(self.seed, "gbdt"),
            "verbosity": -1,
        }
        if self.monotone is not None and any(self.monotone):
            parameters["monotone_constraints"] = list(self.monotone)
        if rows == 1:  # LightGBM's bagging would leave it no row
            table, labels, weights = np.repeat(table, 2, 0), np.repeat(labels, 2), np.repeat(weights, 2)
        data = lightgbm.Dataset(table, labels - self.mean_, weight=weights, params=parameters, free_raw_data=True)
        booster = lightgbm.train(parameters, data, num_boost_round=self.n_trees or n_trees)
        self._take(booster.model_to_string())

    def _take(self, text: str) -> None:
        import lightgbm

        self.text_ = text
        self.booster_ = lightgbm.Booster(model_str=text)

    def _predict(self, table: Floats) -> Floats:
        raw = self.booster_.predict(table, num_threads=self.threads if len(table) >= 4000 else 1)
        return np.asarray(raw, np.float64) + self.mean_

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, {}, self.text_)

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self._take(state.text)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "booster_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "text_" in state:
            self._take(state["text_"])


def _tree_sizes(rows: int) -> tuple[int, int, int]:
    """Rounds, leaves and least rows per leaf for a training set of `rows`."""
    if rows <= 120:
        return 400, 6, max(1, min(4, rows // 5))
    if rows <= 2000:
        return 600, 12, 6
    return 600, 15, min(60, rows // 200)
