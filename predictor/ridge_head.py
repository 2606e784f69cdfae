"""Ridge regression as a head."""

from __future__ import annotations

import numpy as np

from .head import Floats, Head, HeadState, register_head
from .transforms import Scaler

PENALTIES = np.geomspace(1e-3, 1e4, 29)
"""Penalties tried."""


@register_head("ridge")
class RidgeHead(Head):
    """Linear regression on scaled features with a squared penalty, chosen by leaving out each row in turn.

    The left-out errors have a closed form (Allen 1974; Golub, Heath and Wahba 1979).

    Args:
        seed: Not used: nothing is drawn.
    """

    seeded = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        self.scaler_ = Scaler.fit(table)
        scaled = self.scaler_(table)
        total = weights.sum()
        centre, self.mean_ = weights @ scaled / total, float(weights @ labels / total)
        root = np.sqrt(weights)
        rows, residual = root[:, None] * (scaled - centre), root * (labels - self.mean_)
        left, values, right = np.linalg.svd(rows, full_matrices=False)
        told = left.T @ residual
        best = np.inf
        self.slopes_ = np.zeros(table.shape[1])
        for penalty in PENALTIES:
            shrunk = values**2 / (values**2 + penalty)
            leverage = (left**2 * shrunk).sum(1) + weights / total  # the mean is fitted too
            loss = float((((residual - left @ (shrunk * told)) / np.maximum(1 - leverage, 1e-3)) ** 2).sum())
            if loss < best:
                best = loss
                self.slopes_ = right.T @ (values / (values**2 + penalty) * told)
        self.mean_ -= float(centre @ self.slopes_)

    def _predict(self, table: Floats) -> Floats:
        return np.asarray(self.scaler_(table) @ self.slopes_ + self.mean_, np.float64)

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, {**self.scaler_.arrays(), "slopes": self.slopes_})

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.slopes_ = np.asarray(state.arrays["slopes"], np.float64)
