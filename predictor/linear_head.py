"""Linear regressions as heads."""

from __future__ import annotations

import numpy as np

from .head import Floats, Head, HeadState, register_head
from .kernel import consequences
from .seeding import drawn_rows, integer_seed
from .transforms import Scaler

PENALTIES = np.geomspace(1e-3, 1e4, 29)
"""Penalties that ridge regression tries."""
RATIOS = np.geomspace(1e-3, 30.0, 16)
"""Ratios of noise to signal that Bayesian regression tries."""
VARIANCES = np.array([0.03, 0.3, 3.0])
"""Variances of the slopes of columns apart that it tries, in units of that of all others together."""


class _LinearHead(Head):
    """A mean and a slope for every scaled column."""

    seeded = False
    scaler_: Scaler
    slopes_: Floats
    mean_: float

    def _predict(self, table: Floats) -> Floats:
        return np.asarray(self.scaler_(table) @ self.slopes_ + self.mean_, np.float64)

    def _state(self) -> HeadState:
        return HeadState({"mean": self.mean_}, {**self.scaler_.arrays(), "slopes": self.slopes_})

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.slopes_ = np.asarray(state.arrays["slopes"], np.float64)


@register_head("ridge")
class RidgeHead(_LinearHead):
    """Linear regression on scaled features with a squared penalty, chosen by leaving out each row in turn.

    The left-out errors have a closed form (Allen 1974; Golub, Heath and Wahba 1979).

    Args:
        seed: Not used: nothing is drawn.
    """

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


@register_head("bayes_linear")
class BayesLinearHead(_LinearHead):
    """Linear regression on scaled columns whose slopes are normal: a Gaussian process with a linear kernel.

    k = s² (x·x' / d + v z·z') (Rasmussen and Williams 2006, sec. 2.1 and 2.7). Predictions are the mean over a grid of
    ratios of noise to signal and of v, each weighted by its evidence; a penalty that leaving out rows picks (`ridge`)
    stands or falls by chance where rows are few.

    Args:
        max_rows: Rows used at most, drawn with the seed; the cost is cubic in them.
        linear: How many of the last columns are z, whose slopes have a variance of their own; the d others are x.
        seed: Seed of the draw of rows.
    """

    def __init__(self, max_rows: int = 1000, linear: int = 0, seed: int = 0) -> None:
        self.max_rows, self.linear, self.seed = max_rows, linear, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        random = np.random.default_rng(integer_seed(self.seed, "bayes_linear"))
        rows = drawn_rows(len(table), self.max_rows, random)
        table, labels, weights = table[rows], labels[rows], np.maximum(weights[rows], 1e-6)
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
