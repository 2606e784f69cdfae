"""A Gaussian process as a head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .head import Floats, Head, HeadState, register_head
from .seeding import integer_seed
from .transforms import Scaler


@register_head("gp")
class GPHead(Head):
    """Gaussian process with an isotropic Matérn 5/2 kernel on scaled features: for few labels.

    k(x, x') = s² (1 + r + r²/3) exp(-r), r = √5 |x - x'| / l (Rasmussen and Williams 2006, eq. 4.17). The length l and
    the ratio of noise to signal are those of highest posterior density on a grid, the signal s² has a closed form
    (ibid. eq. 5.8); log-normal priors keep them sane when there are only a few labels.

    Args:
        max_rows: Rows used at most, drawn with the seed; the cost is cubic in them.
        seed: Seed of that draw.
    """

    seeded = False

    def __init__(self, max_rows: int = 1000, seed: int = 0) -> None:
        self.max_rows, self.seed = max_rows, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        if len(table) > self.max_rows:
            random = np.random.default_rng(integer_seed(self.seed, "gp"))
            rows = np.sort(random.choice(len(table), self.max_rows, replace=False))
            table, labels, weights = table[rows], labels[rows], weights[rows]
        weights = np.maximum(weights, 1e-6)
        self.scaler_ = Scaler.fit(table)
        self.points_ = self.scaler_(table).astype(np.float32).astype(np.float64)  # stored in half the space
        self.mean_ = float(np.average(labels, weights=weights))
        root = np.sqrt(weights)
        residual = root * (labels - self.mean_)
        distance = _distances(self.points_, self.points_)
        apart = distance[distance > 0]
        typical = float(np.median(apart)) if len(apart) else 1.0
        best = np.inf
        self.length_, self.weights_ = typical, np.zeros(len(labels))
        if not residual.any():
            return
        for stretch in np.geomspace(0.4, 12.0, 10):
            kernel = _matern(distance, stretch * typical)
            values, vectors = np.linalg.eigh(root[:, None] * kernel * root)
            rotated = vectors.T @ residual
            for ratio in np.geomspace(1e-3, 3.0, 12):
                spread = np.maximum(values, 0.0) + ratio
                signal = float(np.mean(rotated**2 / spread))
                loss = 0.5 * len(labels) * np.log(signal) + 0.5 * float(np.log(spread).sum())
                loss += 0.5 * np.log(stretch / 2.0) ** 2 + 0.5 * (np.log(ratio / 0.1) / 1.5) ** 2
                if loss < best:
                    best = loss
                    self.length_ = float(stretch * typical)
                    self.weights_ = root * (vectors @ (rotated / spread))

    def _predict(self, table: Floats) -> Floats:
        scaled = self.scaler_(table)
        blocks = [scaled[i : i + 4096] for i in range(0, len(scaled), 4096)]
        parts = [_matern(_distances(block, self.points_), self.length_) @ self.weights_ for block in blocks]
        return np.asarray(np.concatenate(parts) + self.mean_, np.float64)

    def _state(self) -> HeadState:
        points = self.points_.astype(np.float32)
        arrays: dict[str, NDArray[Any]] = {**self.scaler_.arrays(), "points": points, "weights": self.weights_}
        return HeadState({"mean": self.mean_, "length": self.length_}, arrays)

    def _restore(self, state: HeadState) -> None:
        self.mean_, self.length_ = float(state.values["mean"]), float(state.values["length"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.points_ = np.asarray(state.arrays["points"], np.float64)
        self.weights_ = np.asarray(state.arrays["weights"], np.float64)


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances (n, m) between the rows of a (n, d) and b (m, d)."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), np.float64)


def _matern(distance: Floats, length: float) -> Floats:
    r = np.sqrt(5.0) * distance / length
    return np.asarray((1 + r + r * r / 3) * np.exp(-r), np.float64)
