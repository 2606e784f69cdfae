"""A Gaussian process over what stands in texts: labels of statements in context, and a language model's vectors.

The distance of two texts is a weighted sum of squared distances: of the logarithms of how often each label occurs, one
sum for every family of labels (`text_context`), and of the vectors. The weights and the noise are those of highest
posterior density, so labels of a depth that says nothing about the labels at hand lose their weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..encoders.text_context import FAMILIES, Counts
from .kernel import RATIOS, matern, ratio_loss
from .seeding import drawn_rows, generator
from .transforms import Scaler

Floats = NDArray[np.float64]

_START = 0.2
_STEPS = (1 / 3, 3.0)
_LEAST = 0.005
_ROUNDS = 4
_ROWS_AT_ONCE = 2048


class Told(NamedTuple):
    """What the process says of texts.

    Attributes:
        mean: (n,) expected labels.
        share: (n,) share of the variance, 0 to 1, that the labels it has learned from explain: near 1 for texts like
            theirs, 0 for texts that have nothing in common with them.
    """

    mean: Floats
    share: Floats


class TextProcess:
    """Gaussian process with a Matérn 5/2 kernel, for up to some hundred labels.

    k(x, x') = s² (1 + r + r²/3) exp(-r), r² = 5 Σ w_f d_f²(x, x') over the families f (Rasmussen and Williams 2006, eq.
    4.17); every d² is 1 between two typical texts. The signal s² has a closed form (ibid. eq. 5.8); the weights are
    searched one after the other, with log-normal priors on them and on the noise.

    Args:
        max_rows: Texts used at most, drawn with the seed; the cost is cubic in them.
        seed: Seed of that draw.
    """

    def __init__(self, max_rows: int = 1000, seed: int = 0) -> None:
        self.max_rows, self.seed = max_rows, seed

    def fit(
        self, counts: Sequence[tuple[Counts, ...]], vectors: Floats, labels: Floats, weights: Floats
    ) -> TextProcess:
        """Learns from texts.

        Args:
            counts: n times the counts of every family, see `text_context.counted`.
            vectors: (n, d) vectors of a language model.
            labels: (n,) labels.
            weights: (n,) weights, of which the mean is 1.
        """
        rows = drawn_rows(len(labels), self.max_rows, generator(self.seed, "text process"))
        counts, vectors = [counts[row] for row in rows], vectors[rows]
        labels, weights = labels[rows], np.maximum(weights[rows], 1e-6)
        self._tables = [_Table(f, counts) for f in range(len(FAMILIES))]
        self._scaler = Scaler.fit(vectors)
        self._points = self._scaler(vectors)
        parts = self._squared(counts, vectors)
        self._typical = [float(np.median(part[part > 0])) if (part > 0).any() else 1.0 for part in parts]
        parts = [part / typical for part, typical in zip(parts, self._typical, strict=True)]
        self._mean, self._root = float(np.average(labels, weights=weights)), np.sqrt(weights)
        residual = self._root * (labels - self._mean)
        self._stretch = np.full(len(parts), _START)
        if not residual.any():
            self._solved, self._inverse = np.zeros(len(labels)), np.zeros((len(labels), len(labels)))
            return self
        self._search(parts, residual)
        return self

    def _search(self, parts: list[Floats], residual: Floats) -> None:
        best, ratio = self._loss(parts, self._stretch, residual)
        for _ in range(_ROUNDS):
            before = best
            for at in range(len(parts)):
                for step in _STEPS:
                    tried = self._stretch.copy()
                    tried[at] *= step
                    loss, its = self._loss(parts, tried, residual) if tried[at] > _LEAST else (np.inf, 0.0)
                    if loss < best:
                        best, ratio, self._stretch = loss, its, tried
            if best == before:
                break
        values, vectors = np.linalg.eigh(self._kernel(parts, self._stretch))
        spread = np.maximum(values, 0.0) + ratio
        self._solved = self._root * (vectors @ (vectors.T @ residual / spread))
        self._inverse = self._root[:, None] * (vectors / spread @ vectors.T) * self._root

    def _loss(self, parts: list[Floats], stretch: Floats, residual: Floats) -> tuple[float, float]:
        """Minus the logarithm of the posterior density, and the ratio of noise to signal where it is highest."""
        values, vectors = np.linalg.eigh(self._kernel(parts, stretch))
        rotated = vectors.T @ residual
        spread = np.maximum(values, 0.0) + RATIOS[:, None]
        losses = 0.5 * len(residual) * np.log(np.mean(rotated**2 / spread, axis=1)) + 0.5 * np.log(spread).sum(1)
        losses += ratio_loss() + 0.125 * float((np.log(stretch / _START) ** 2).sum())
        at = int(np.argmin(losses))
        return float(losses[at]), float(RATIOS[at])

    def _kernel(self, parts: list[Floats], stretch: Floats) -> Floats:
        return self._root[:, None] * _weighted(stretch, parts) * self._root

    def predict(self, counts: Sequence[tuple[Counts, ...]], vectors: Floats) -> Told:
        """What the process says of texts with these counts and vectors (n, d)."""
        mean, share = [np.empty(0)], [np.empty(0)]
        for start in range(0, len(counts), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            parts = self._squared(counts[rows], vectors[rows])
            kernel = _weighted(self._stretch / self._typical, parts)
            mean.append(kernel @ self._solved + self._mean)
            share.append(np.clip(((kernel @ self._inverse) * kernel).sum(1), 0.0, 1.0))
        return Told(np.concatenate(mean), np.concatenate(share))

    def _squared(self, counts: Sequence[tuple[Counts, ...]], vectors: Floats) -> list[Floats]:
        """Squared distances (n, m) to the m texts learned from: of every family, and of the vectors."""
        scaled = self._scaler(vectors)
        squared = (scaled**2).sum(1)[:, None] + (self._points**2).sum(1) - 2 * scaled @ self._points.T
        return [*[table.squared(counts) for table in self._tables], np.maximum(squared, 0.0)]


class _Table:
    """Counts of one family in the texts that are learned from."""

    def __init__(self, family: int, counts: Sequence[tuple[Counts, ...]]) -> None:
        self._family = family
        self._columns: dict[int, int] = {}
        for row in counts:
            for label in row[family]:
                self._columns.setdefault(label, len(self._columns))
        self._known, self._norms = self._rows(counts)

    def _rows(self, counts: Sequence[tuple[Counts, ...]]) -> tuple[Any, Floats]:
        """Logarithms of the counts of labels that are known (n, labels), and the sums of squares of all (n,)."""
        values: list[float] = []
        columns: list[int] = []
        ends, norms = [0], []
        for row in counts:
            total = 0.0
            for label, count in row[self._family].items():
                value = log1p(count)
                total += value * value
                if label in self._columns:
                    columns.append(self._columns[label])
                    values.append(value)
            ends.append(len(columns))
            norms.append(total)
        return sparse.csr_matrix((values, columns, ends), shape=(len(counts), len(self._columns))), np.array(norms)

    def squared(self, counts: Sequence[tuple[Counts, ...]]) -> Floats:
        """Squared distances (n, m)."""
        rows, norms = self._rows(counts)
        products = np.asarray((rows @ self._known.T).todense(), np.float64)
        return np.asarray(np.maximum(norms[:, None] + self._norms - 2 * products, 0.0), np.float64)


def _weighted(weights: Floats, parts: Sequence[Floats]) -> Floats:
    """The kernel (n, m) of a weighted sum of squared distances (n, m)."""
    squared = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        squared += weight * part
    return matern(np.sqrt(squared))
