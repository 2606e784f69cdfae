"""A Gaussian process as a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .head import Floats, Head, HeadState, register_head
from .kernel import RATIOS, consequences, matern, ratio_loss
from .seeding import drawn_rows, integer_seed
from .transforms import Scaler

STRETCHES = np.geomspace(0.4, 16.0, 12)
"""Lengths of the kernels that are tried, in units of the median distance between training rows."""
SHARES = (0.0, 0.3, 1.0, 3.0)
"""Variances of the second kernel that are tried, in units of the first's."""
VARIANCES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of the slopes of linear columns that are tried, in units of the signal's."""
LIMIT = 4.0
"""Deviations from the mean beyond which scaled features are clipped; in units of `STEP` it fits into 16 bits."""
STEP = 2.0**-12
"""To what training rows are rounded: they take a quarter of the space, and a row is exactly 0 away from itself."""
LEAST = 0.01
"""Posterior share below which a length is left out."""
MANY = 200
"""Rows above which the second kernel is left out: it costs as many decompositions as there are `SHARES`, and the labels
say what it would."""


@register_head("gp")
class GPHead(Head):
    """Gaussian process with isotropic Matérn 5/2 kernels on scaled features: for few labels.

    k = s² (m(|x - x'| / l) + w m(|u - u'| / l) + v z·z') with m the Matérn kernel (Rasmussen and Williams 2006,
    eq. 4.17) and distances in units of their median among the training rows. z are columns of which a linear function
    is expected (ibid. sec. 2.7), such as the score of an earlier predictor, and u such that are not to drown among the
    many x, such as what its heads say. Predictions are the mean over a grid of lengths l, ratios of noise to signal and
    variances w and v, each weighted by its posterior density, so that a handful of labels does not stand or fall by one
    choice; the signal s² has a closed form (ibid. eq. 5.8). Log-normal priors keep l and the ratio sane: the fewer
    labels, the longer l.

    The cost is cubic in the rows. Beyond `max_rows` the process learns from so many drawn ones, or it is the mean of
    several with a draw each.

    Args:
        max_rows: Rows used at most of each draw.
        draws: How many draws, if there are more rows.
        second: How many columns before the last `linear` ones are u; up to 200 rows, else they are left out.
        linear: How many of the last columns are z; the others are x.
        seed: Seed of the draws.
    """

    seeded = False

    def __init__(self, max_rows: int = 1000, draws: int = 1, second: int = 0, linear: int = 0, seed: int = 0) -> None:
        self.max_rows, self.draws, self.second, self.linear, self.seed = max_rows, draws, second, linear, seed

    def _fit(self, table: Floats, labels: Floats, weights: Floats) -> None:
        if self.second < 0 or self.linear < 0 or self.second + self.linear > table.shape[1]:
            raise ValueError(
                f"second is {self.second} and linear {self.linear}, expected at least 0 each and together at most "
                f"{table.shape[1]}, the number of columns"
            )
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}, expected at least 1")
        weights = np.maximum(weights, 1e-6)
        self.scaler_ = Scaler.fit(table, limit=LIMIT)
        self.mean_ = float(np.average(labels, weights=weights))
        self.kernels_: list[_Kernel] = []
        self.slopes_ = np.zeros(self.linear)
        *parts, lines = self._parts(table)
        root = np.sqrt(weights)
        residual, lines = root * (labels - self.mean_), root[:, None] * lines
        random = np.random.default_rng(integer_seed(self.seed, "gp"))
        draws = self.draws if len(table) > self.max_rows else 1
        for _ in range(draws):
            rows = drawn_rows(len(table), self.max_rows, random)
            if residual[rows].any():
                kernels, slopes = _learnt([part[rows] for part in parts], root[rows], residual[rows], lines[rows])
                self.kernels_ += [replace(kernel, weights=kernel.weights / draws) for kernel in kernels]
                self.slopes_ += slopes / draws

    def _parts(self, table: Floats) -> tuple[Floats, Floats, Floats]:
        """Scaled columns x (n, d), u (n, e) and z (n, m) of rows."""
        scaled = self.scaler_(table)
        last = scaled.shape[1] - self.linear
        first = last - self.second
        return scaled[:, :first], scaled[:, first:last], scaled[:, last:]

    def _predict(self, table: Floats) -> Floats:
        *parts, lines = self._parts(table)
        smooth = sum(kernel.smooth(parts[kernel.part]) for kernel in self.kernels_)
        return np.asarray(smooth + lines @ self.slopes_ + self.mean_, np.float64)

    def _state(self) -> HeadState:
        arrays: dict[str, NDArray[Any]] = {**self.scaler_.arrays(), "slopes": self.slopes_}
        for i, kernel in enumerate(self.kernels_):
            arrays |= {f"points_{i}": kernel.points, f"lengths_{i}": kernel.lengths, f"weights_{i}": kernel.weights}
        return HeadState({"mean": self.mean_, "parts": [kernel.part for kernel in self.kernels_]}, arrays)

    def _restore(self, state: HeadState) -> None:
        self.mean_ = float(state.values["mean"])
        self.scaler_ = Scaler.restore(state.arrays)
        self.kernels_ = [
            _Kernel(int(part), *(state.arrays[f"{name}_{i}"] for name in ("points", "lengths", "weights")))
            for i, part in enumerate(state.values["parts"])
        ]
        self.slopes_ = np.asarray(state.arrays["slopes"], np.float64)


@dataclass(frozen=True)
class _Kernel:
    """A Matérn kernel of several lengths and what the training rows contribute through it.

    Attributes:
        part: Which columns it sees: 0 for x, 1 for u.
        points: (n, d) scaled training rows, in units of `STEP`.
        lengths: (k,) lengths.
        weights: (k, n) weight of each row.
    """

    part: int
    points: NDArray[np.int16]
    lengths: Floats
    weights: Floats

    def smooth(self, rows: Floats) -> Floats:
        """What the training rows contribute to the predictions (m,) of rows (m, d)."""
        blocks = (rows[i : i + 4096] for i in range(0, len(rows), 4096))
        points = _unpacked(self.points)
        return np.concatenate([self._smooth(_distances(block, points)) for block in blocks] or [np.zeros(0)])

    def _smooth(self, distance: Floats) -> Floats:
        pairs = zip(self.lengths.tolist(), self.weights, strict=True)
        return np.asarray(sum(matern(distance / length) @ weights for length, weights in pairs), np.float64)


def _learnt(parts: Sequence[Floats], root: Floats, residual: Floats, lines: Floats) -> tuple[list[_Kernel], Floats]:
    """Kernels with what n rows contribute through them, and slopes (m,) of the lines.

    Args:
        parts: Scaled columns x (n, d) and u (n, e).
        root: (n,) square roots of the rows' weights.
        residual: (n,) labels without their mean, times `root`.
        lines: (n, m) linear columns, times `root`.
    """
    used = 2 if parts[1].shape[1] and len(root) <= MANY else 1
    points = [np.rint(part / STEP).astype(np.int16) for part in parts[:used]]
    apart = [_distances(part, part) for part in map(_unpacked, points)]
    lengths = [_typical(distance) for distance in apart]
    distances = [distance / length for distance, length in zip(apart, lengths, strict=True)]
    shares = SHARES if used > 1 else (0.0,)
    losses, pulls, slopes = _over_grid(distances, shares, root, residual, lines)
    posterior = np.exp(losses.min() - losses)
    posterior[posterior.sum(axis=(1, 2, 3)) < LEAST * posterior.sum()] = 0.0
    posterior /= posterior.sum()
    kept = posterior.any(axis=(1, 2, 3))
    each = np.einsum("iwjk,iwjkn->win", posterior[kept], pulls[kept])
    factors = (np.ones(len(shares)), np.array(shares))
    kernels = [
        _Kernel(i, part, length * STRETCHES[kept], np.einsum("w,win->in", factor, each))
        for i, (part, length, factor) in enumerate(zip(points, lengths, factors, strict=False))
    ]
    return kernels, np.einsum("iwjk,iwjkm->m", posterior, slopes)


def _over_grid(
    distances: Sequence[Floats], shares: Sequence[float], root: Floats, residual: Floats, lines: Floats
) -> tuple[Floats, Floats, Floats]:
    """What follows from every length, share, ratio and variance of the grids (a, b, c, d).

    There is one variance if there are no lines.

    Args:
        distances: For each of one or two kernels, the distances (n, n) of rows in units of their median.
        shares: (b,) variances of the second kernel; (0,) if there is one.
        root: (n,) square roots of the rows' weights.
        residual: (n,) labels without their mean, times `root`.
        lines: (n, m) linear columns, times `root`.

    Returns:
        Minus the log posterior density (a, b, c, d), weights of the rows (a, b, c, d, n) and slopes (a, b, c, d, m).
    """
    n, m = lines.shape
    variances = np.array(VARIANCES if m else (1.0,))
    losses = np.empty((len(STRETCHES), len(shares), len(RATIOS), len(variances)))
    pulls, slopes = np.empty((*losses.shape, n)), np.empty((*losses.shape, m))
    usual = 3.0 * (n / 40) ** (-1 / 3)
    for (i, stretch), (j, share) in product(enumerate(STRETCHES), enumerate(shares)):
        similar = matern(distances[0] / stretch)
        if share:
            similar += share * matern(distances[1] / stretch)
        loss, pulls[i, j], slopes[i, j] = consequences(similar, root, residual, lines, RATIOS, variances)
        losses[i, j] = loss + 0.5 * (np.log(stretch / usual) / 0.5) ** 2 + ratio_loss()[:, None]
    return losses, pulls, slopes


def _unpacked(points: NDArray[np.int16]) -> Floats:
    return points.astype(np.float64) * STEP


def _typical(distance: Floats) -> float:
    """Median of the distances (n, n) that are not 0, or 1."""
    apart = distance[distance > 0]
    return float(np.median(apart)) if len(apart) else 1.0


def _distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances (n, m) between the rows of a (n, d) and b (m, d)."""
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), np.float64)
