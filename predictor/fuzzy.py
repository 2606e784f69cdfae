"""Fuzzy c-means: how much a network belongs to each of a few clusters of embeddings, and how typical it is of any.

Memberships sum to one wherever a row lies (Bezdek 1981, ch. 3): a row far from every cluster belongs to all of them a
little. Whether it resembles anything at all is said by its typicality (Krishnapuram and Keller 1993), which falls to 0.
Nothing here looks at a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError, DataError
from .seeding import drawn_rows, generator
from .transforms import Scaler

Floats = NDArray[np.float64]

MOST_CLUSTERS = 8
ROWS_PER_CLUSTER = 20
"""Rows that a cluster needs on average, where the number of clusters is chosen."""
ITERATIONS = 300
TOLERANCE = 1e-9
"""Iteration ends when the objective falls by less than this share."""


@dataclass(frozen=True)
class FuzzyMeans:
    """Clusters of rows.

    Rows are scaled and projected on their first principal components before they are clustered: in many dimensions all
    distances become alike, and the memberships with them (Winkler, Klawonn and Kruse 2011).

    Attributes:
        scaler: Scaling of the features.
        axes: (d, k) principal components.
        centroids: (c, k) centroids of the projected rows.
        radii: (c,) squared distance at which a row is typical of a cluster by one half.
        fuzzifier: m > 1; memberships are crisp near 1 and alike for large m.
    """

    scaler: Scaler
    axes: Floats
    centroids: Floats
    radii: Floats
    fuzzifier: float

    @classmethod
    def fit(
        cls,
        table: Floats,
        *,
        clusters: int | None = None,
        fuzzifier: float | None = None,
        dimensions: int = 6,
        restarts: int = 4,
        max_rows: int = 4000,
        seed: int = 0,
    ) -> Self:
        """Find the clusters; the order of the rows plays no part.

        Args:
            table: (n, d) features, n at least 1.
            clusters: Number of clusters, fewer where there are fewer different rows. None: the number from 2 to 8, with
                20 rows per cluster or more, of the least index of Xie and Beni (1991); 1 below 40 rows.
            fuzzifier: None: the rule of Schwämmle and Jensen (2010, eq. 5) for the number of rows and dimensions, at
                most 3.
            dimensions: Principal components, fewer where the rows span fewer.
            restarts: Starts by k-means++ (Arthur and Vassilvitskii 2007) per number of clusters; the best one is kept.
            max_rows: Rows used at most, drawn with the seed.
            seed: Seed of the starts and of that draw.

        Raises:
            DataError: There is no row, or a number is not finite.
            ConfigError: An option is out of range.
        """
        if table.ndim != 2 or not len(table) or not np.isfinite(table).all():
            raise DataError(f"fuzzy c-means needs a table of finite numbers with one row or more, got {table.shape}")
        if min(dimensions, restarts, max_rows) < 1 or (clusters is not None and clusters < 1):
            raise ConfigError(
                f"clusters, dimensions, restarts and max_rows are {clusters}, {dimensions}, {restarts} and {max_rows}, "
                "expected 1 or more"
            )
        if fuzzifier is not None and not 1 < fuzzifier < np.inf:
            raise ConfigError(f"fuzzifier is {fuzzifier}, expected more than 1")
        table = table[np.lexsort(table.T[::-1])] if table.shape[1] else table
        table = table[drawn_rows(len(table), max_rows, generator(seed, "fuzzy rows"))]
        scaler = Scaler.fit(table, limit=np.inf)
        scaled = scaler(table)
        axes = _principal_axes(scaled, dimensions)
        points = scaled @ axes
        m = _usual_fuzzifier(*points.shape) if fuzzifier is None else fuzzifier
        distinct = len(np.unique(points, axis=0))
        if clusters is None:
            numbers = range(2, min(MOST_CLUSTERS, distinct, len(points) // ROWS_PER_CLUSTER) + 1) or range(1, 2)
        else:
            numbers = range(min(clusters, distinct), min(clusters, distinct) + 1)
        found = [_best_centroids(points, number, m, restarts, seed) for number in numbers]
        centroids = min(found, key=lambda each: _xie_beni(points, each, m)) if len(found) > 1 else found[0]
        powers = _memberships(_squared(points, centroids), m) ** m
        whole = _squared(points, centroids) + _outside(scaled, points)[:, None]
        radii = (powers * whole).sum(0) / np.maximum(powers.sum(0), 1e-300)
        return cls(scaler, axes, centroids, np.maximum(radii, 1e-12), float(m))

    def memberships(self, table: Floats) -> Floats:
        """How much each row (n, d) belongs to each cluster: (n, c), rows sum to 1."""
        return _memberships(_squared(self.scaler(table) @ self.axes, self.centroids), self.fuzzifier)

    def typicality(self, table: Floats) -> Floats:
        """How typical each row (n, d) is of the cluster it resembles most: (n,), 1 at a centroid, 0 far from all.

        t = 1 / (1 + (d² / η)^(1 / (m - 1))) with η the cluster's mean squared distance (Krishnapuram and Keller 1993,
        eq. 8 and 9, K = 1); d is measured in all columns, not only along the principal components.
        """
        scaled = self.scaler(table)
        points = scaled @ self.axes
        whole = _squared(points, self.centroids) + _outside(scaled, points)[:, None]
        with np.errstate(over="ignore"):
            each = 1 / (1 + (whole / self.radii) ** (1 / (self.fuzzifier - 1)))
        return np.asarray(each.max(1), np.float64)

    def arrays(self) -> dict[str, Floats]:
        """What `restore` needs, as arrays."""
        scaler = {f"scaler_{key}": array for key, array in self.scaler.arrays().items()}
        rest = {"axes": self.axes, "centroids": self.centroids, "radii": self.radii}
        return {**scaler, **rest, "fuzzifier": np.array([self.fuzzifier])}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The clusters that wrote `arrays`."""
        scaler = Scaler.restore(
            {key.removeprefix("scaler_"): array for key, array in arrays.items() if key.startswith("scaler_")}
        )
        axes, centroids, radii = (np.asarray(arrays[key], np.float64) for key in ("axes", "centroids", "radii"))
        return cls(scaler, axes, centroids, radii, float(arrays["fuzzifier"][0]))


def _principal_axes(scaled: Floats, dimensions: int) -> Floats:
    """(d, k) directions of the greatest variance of rows that are centred, at least one."""
    if not scaled.shape[1]:
        return np.zeros((0, 1))
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    kept = max(1, min(dimensions, int((values > 1e-9 * max(float(values[-1]), 1e-300)).sum())))
    return np.ascontiguousarray(vectors[:, ::-1][:, :kept])


def _usual_fuzzifier(rows: int, dimensions: int) -> float:
    exponent = -0.0406 * np.log(rows) - 0.1134
    value = 1 + (1418 / rows + 22.05) / dimensions**2 + (12.33 / rows + 0.243) * dimensions**exponent
    return float(min(value, 3.0))


def _best_centroids(points: Floats, number: int, m: float, restarts: int, seed: int) -> Floats:
    runs = [_iterate(points, _start(points, number, seed, restart), m) for restart in range(restarts)]
    return min(runs, key=lambda run: run[0])[1]


def _start(points: Floats, number: int, seed: int, restart: int) -> Floats:
    """Centroids drawn among the rows, each with a chance that grows with its squared distance to those drawn."""
    random = generator(seed, "fuzzy", number, restart)
    chosen = [int(random.integers(len(points)))]
    nearest = _squared(points, points[chosen])[:, 0]
    while len(chosen) < number:
        total = np.cumsum(nearest)
        chosen.append(min(int(np.searchsorted(total, random.random() * total[-1], "right")), len(points) - 1))
        nearest = np.minimum(nearest, _squared(points, points[chosen[-1:]])[:, 0])
    return np.asarray(points[chosen], np.float64)


def _iterate(points: Floats, centroids: Floats, m: float) -> tuple[float, Floats]:
    """The objective Σ u^m d² where it no longer falls, and the centroids there (Bezdek 1981, alternating steps)."""
    before = np.inf
    for _ in range(ITERATIONS):
        squared = _squared(points, centroids)
        powers = _memberships(squared, m) ** m
        objective = float((powers * squared).sum())
        if not before - objective > TOLERANCE * max(objective, 1e-300):
            break
        before = objective
        centroids = (powers.T @ points) / np.maximum(powers.sum(0), 1e-300)[:, None]
    return objective, centroids


def _xie_beni(points: Floats, centroids: Floats, m: float) -> float:
    """Compactness over separation, Σ u^m d² / (n · least squared distance of two centroids); smaller is better."""
    squared = _squared(points, centroids)
    apart = _squared(centroids, centroids)[np.triu_indices(len(centroids), 1)].min()
    return float((_memberships(squared, m) ** m * squared).sum() / (len(points) * max(float(apart), 1e-300)))


def _memberships(squared: Floats, m: float) -> Floats:
    """u_j = d_j^(-2 / (m - 1)) over their sum; a row on a centroid belongs to it alone."""
    logs = -np.log(np.maximum(squared, 1e-300)) / (m - 1)
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True), np.float64)


def _squared(points: Floats, centroids: Floats) -> Floats:
    """Squared distances (n, c)."""
    return np.asarray(np.square(points[:, None, :] - centroids[None]).sum(2), np.float64)


def _outside(scaled: Floats, points: Floats) -> Floats:
    """Squared distance (n,) of scaled rows from the space of the principal components."""
    return np.asarray(np.maximum((scaled**2).sum(1) - (points**2).sum(1), 0.0), np.float64)
