"""A Gaussian process as a head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .head import Floats, Head, HeadState, register_head
from .kernel import RATIOS, matern, ratio_loss
from .seeding import integer_seed
from .transforms import Scaler

STRETCHES = np.geomspace(0.4, 16.0, 12)
"""Lengths of the kernel that are tried, in units of the median distance between training rows."""
VARIANCES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of the slopes of linear columns that are tried, in units of the signal's."""
LEAST = 0.01
"""Posterior share below which a length is left out."""


@register_head("gp")
class GPHead(Head):
    """Gaussian process with an isotropic Matérn 5/2 kernel on scaled features: for few labels.

    k(x, x') = s² ((1 + r + r²/3) exp(-r) + v z·z'), r = √5 |x - x'| / l (Rasmussen and Williams 2006, eq. 4.17); z are
    columns of which a linear function is expected (ibid. sec. 2.7), such as the score of an earlier predictor.
    Predictions are the mean over a grid of lengths l, ratios of noise to signal and variances v of the slopes, each
    weighted by its posterior density, so that a handful of labels does not stand or fall by one choice; the signal s²
    has a closed form (ibid. eq. 5.8). Log-normal priors keep l and the ratio sane: the fewer labels, the longer l.

    Args:
        max_rows: Rows used at most, drawn with the seed; the cost is cubic in them.
        linear: How many of the last columns are z; the others are x.
        seed: Seed of the draw of rows.
    """

    seeded = False

    def __init__(self, max_rows: int = 1000, linear: int = 0, seed: int = 0) -> None:
        self.max_rows, self.linear, self.seed = max_rows, linear, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        if len(table) > self.max_rows:
            random = np.random.default_rng(integer_seed(self.seed, "gp"))
            rows = np.sort(random.choice(len(table), self.max_rows, replace=False))
            table, labels, weights = table[rows], labels[rows], weights[rows]
        if not 0 <= self.linear <= table.shape[1]:
            raise ValueError(f"linear is {self.linear}, expected 0 to {table.shape[1]}, the number of columns")
        weights = np.maximum(weights, 1e-6)
        self.scaler_ = Scaler.fit(table)
        points, lines = self._parts(table)
        self.points_ = points.astype(np.float32).astype(np.float64)  # stored in half the space
        self.mean_ = float(np.average(labels, weights=weights))
        root = np.sqrt(weights)
        residual, lines = root * (labels - self.mean_), root[:, None] * lines
        distance = _distances(self.points_, self.points_)
        apart = distance[distance > 0]
        typical = float(np.median(apart)) if len(apart) else 1.0
        self.lengths_, self.weights_ = np.array([typical]), np.zeros((1, len(labels)))
        self.slopes_ = np.zeros(lines.shape[1])
        if not residual.any():
            return
        losses, pulls, slopes = _over_grid(distance / typical, root, residual, lines)
        posterior = np.exp(losses.min() - losses)
        posterior[posterior.sum(axis=(1, 2)) < LEAST * posterior.sum()] = 0.0
        posterior /= posterior.sum()
        kept = posterior.any(axis=(1, 2))
        self.lengths_ = typical * STRETCHES[kept]
        self.weights_ = np.einsum("ijk,ijkn->in", posterior[kept], pulls[kept])
        self.slopes_ = np.einsum("ijk,ijkm->m", posterior, slopes)

    def _parts(self, table: Floats) -> tuple[Floats, Floats]:
        """Scaled columns x (n, d) and z (n, k) of rows."""
        scaled = self.scaler_(table)
        width = scaled.shape[1] - self.linear
        return scaled[:, :width], scaled[:, width:]

    def _predict(self, table: Floats) -> Floats:
        points, lines = self._parts(table)
        blocks = [points[i : i + 4096] for i in range(0, len(points), 4096)]
        parts = [self._smooth(_distances(block, self.points_)) for block in blocks]
        return np.asarray(np.concatenate(parts) + lines @ self.slopes_ + self.mean_, np.float64)

    def _smooth(self, distance: Floats) -> Floats:
        pairs = zip(self.lengths_.tolist(), self.weights_, strict=True)
        return np.asarray(sum(matern(distance / length) @ weights for length, weights in pairs), np.float64)

    def _state(self) -> HeadState:
        points = self.points_.astype(np.float32)
        arrays: dict[str, NDArray[Any]] = {**self.scaler_.arrays(), "points": points, "slopes": self.slopes_}
        arrays |= {"lengths": self.lengths_, "weights": self.weights_}
        return HeadState({"mean": self.mean_}, arrays)

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.points_ = np.asarray(state.arrays["points"], np.float64)
        self.lengths_ = np.asarray(state.arrays["lengths"], np.float64)
        self.weights_ = np.asarray(state.arrays["weights"], np.float64)
        self.slopes_ = np.asarray(state.arrays["slopes"], np.float64)
        self.linear = len(self.slopes_)


def _over_grid(distance: Floats, root: Floats, residual: Floats, lines: Floats) -> tuple[Floats, Floats, Floats]:
    """What follows from every length, ratio and variance of the grids (a, b, c); one variance if there are no lines.

    Args:
        distance: (n, n) distances of rows in units of their median.
        root: (n,) square roots of the rows' weights.
        residual: (n,) labels without their mean, times `root`.
        lines: (n, m) linear columns, times `root`.

    Returns:
        Minus the log posterior density (a, b, c), weights of the rows (a, b, c, n) and slopes (a, b, c, m).
    """
    n, m = lines.shape
    variances = VARIANCES if m else (1.0,)
    losses = np.empty((len(STRETCHES), len(RATIOS), len(variances)))
    pulls, slopes = np.empty((*losses.shape, n)), np.empty((*losses.shape, m))
    usual = 3.0 * (n / 40) ** (-1 / 3)
    for i, stretch in enumerate(STRETCHES):
        values, vectors = np.linalg.eigh(root[:, None] * matern(distance / stretch) * root)
        turned, turned_lines = vectors.T @ residual, vectors.T @ lines
        for j, (ratio, noise_loss) in enumerate(zip(RATIOS, ratio_loss(), strict=True)):
            inverse = 1 / (np.maximum(values, 0.0) + ratio)
            along, among = turned_lines.T @ (inverse * turned), turned_lines.T @ (inverse[:, None] * turned_lines)
            prior = 0.5 * (np.log(stretch / usual) / 0.5) ** 2 + noise_loss
            for k, variance in enumerate(variances):  # the lines enter by the matrix inversion lemma
                inner = np.eye(m) + variance * among
                slopes[i, j, k] = slope = variance * np.linalg.solve(inner, along)
                signal = (float(inverse @ turned**2) - float(along @ slope)) / n
                determinant = float(np.linalg.slogdet(inner)[1]) - float(np.log(inverse).sum())
                losses[i, j, k] = 0.5 * n * np.log(signal) + 0.5 * determinant + prior
                pulls[i, j, k] = inverse * (turned - turned_lines @ slope)
        pulls[i] = root * (pulls[i] @ vectors.T)
    return losses, pulls, slopes


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances (n, m) between the rows of a (n, d) and b (m, d)."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), np.float64)
