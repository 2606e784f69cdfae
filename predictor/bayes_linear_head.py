"""Bayesian linear regression as a head."""

from __future__ import annotations

import numpy as np

from .head import Floats, Head, HeadState, register_head
from .kernel import consequences, drawn_rows
from .seeding import integer_seed
from .transforms import Scaler

RATIOS = np.geomspace(1e-3, 30.0, 16)
"""Ratios of noise to signal that are tried."""
VARIANCES = np.array([0.03, 0.3, 3.0])
"""Variances of the slopes of columns apart that are tried, in units of that of all others together."""


@register_head("bayes_linear")
class BayesLinearHead(Head):
    """Linear regression on scaled columns whose slopes are normal: a Gaussian process with a linear kernel.

    k = s² (x·x' / d + v z·z') (Rasmussen and Williams 2006, sec. 2.1 and 2.7). Predictions are the mean over a grid of
    ratios of noise to signal and of v, each weighted by its evidence; a penalty that leaving out rows picks (`ridge`)
    stands or falls by chance where rows are few.

    Args:
        max_rows: Rows used at most, drawn with the seed; the cost is cubic in them.
        linear: How many of the last columns are z, whose slopes have a variance of their own; the d others are x.
        seed: Seed of the draw of rows.
    """

    seeded = False

    def __init__(self, max_rows: int = 1000, linear: int = 0, seed: int = 0) -> None:
        self.max_rows, self.linear, self.seed = max_rows, linear, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        seed = integer_seed(self.seed, "bayes_linear")
        table, labels, weights = drawn_rows(self.max_rows, seed, table, labels, weights)
        if not 0 <= self.linear < table.shape[1]:
            raise ValueError(f"linear is {self.linear}, expected 0 to {table.shape[1] - 1}, one less than the columns")
        self.scaler_ = Scaler.fit(table)
        width = table.shape[1] - self.linear
        points, lines = np.split(self.scaler_(table), [width], axis=1)
        self.mean_ = float(np.average(labels, weights=weights))
        self.slopes_ = np.zeros(table.shape[1])
        root = np.sqrt(weights)
        residual = root * (labels - self.mean_)
        if not residual.any():
            return
        varying = max(1, int(np.isfinite(self.scaler_.scale[:width]).sum()))
        variances = VARIANCES if self.linear else np.ones(1)
        losses, pulls, slopes = consequences(
            points @ points.T / varying, root, residual, root[:, None] * lines, RATIOS, variances
        )
        posterior = np.exp(losses.min() - losses)
        posterior /= posterior.sum()
        self.slopes_[:width] = np.einsum("ab,abn->n", posterior, pulls) @ points / varying
        self.slopes_[width:] = np.einsum("ab,abm->m", posterior, slopes)

    def _predict(self, table: Floats) -> Floats:
        return np.asarray(self.scaler_(table) @ self.slopes_ + self.mean_, np.float64)

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, {**self.scaler_.arrays(), "slopes": self.slopes_})

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.slopes_ = np.asarray(state.arrays["slopes"], np.float64)
