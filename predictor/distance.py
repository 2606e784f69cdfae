"""How far a network is from those a predictor was trained on, in scaled features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .seeding import generator
from .transforms import Scaler

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

NEIGHBOURS = 5
NEAR, FAR = 1.5, 2.5
"""Up to which distance a network counts as near one or two training spaces, and from which on as far.

95 % of the networks of a space lie below 1.2 of a reference made of 78 others, families left out of the real networks
mostly below 1.4; networks of other spaces lie at 3 to 6 of NAS-Bench-101.
"""


def farness(distance: Floats) -> Floats:
    """0 up to `NEAR`, 1 from `FAR` on, rising in between: (n,) of distances (n,)."""
    return np.asarray(np.clip((distance - NEAR) / (FAR - NEAR), 0, 1), np.float64)


def beyond_edge(distance: Floats) -> Floats:
    """0 up to the edge of the training set, 1 from `NEAR` on, rising in between: (n,) of distances (n,)."""
    return np.asarray(np.clip((distance - 1) / (NEAR - 1), 0, 1), np.float64)


@dataclass(frozen=True)
class Place:
    """Where networks lie among the benchmarks of a reference.

    Attributes:
        apart: (n, b) mean distance to the five nearest rows of each benchmark.
        edges: (b,) the same at the edge of each benchmark.
        owners: (b,) numbers of the benchmarks.
    """

    apart: Floats
    edges: Floats
    owners: tuple[int, ...]

    def distances(self) -> Floats:
        """Distance (n, b) to each benchmark; 1 at its edge."""
        return _rounded(self.apart / self.edges)

    def distance(self, owners: Sequence[int] | None = None) -> Floats:
        """Distance (n,) to the nearest of the benchmarks `owners`, or of all; 1 at its edge."""
        chosen = self._among(self.owners if owners is None else owners)
        return np.asarray(self.distances()[:, chosen].min(axis=1), np.float64)

    def outside(self) -> Floats:
        """Distance (n,) to the nearest benchmark in units of an edge that is no wider than the median of all.

        A search space that was left out lies inside the edge of a benchmark as broad as all real networks together
        (.3 to 1.1 of it), but at 1.4 to 3.5 of the nearest search space.
        """
        return _rounded((self.apart / np.minimum(self.edges, np.median(self.edges))).min(axis=1))

    def membership(self, owners: Sequence[int]) -> Floats:
        """How much each row belongs to each of the benchmarks `owners`: (n, len(owners)), rows sum to 1.

        The membership of fuzzy c-means (Bezdek 1981, ch. 3), d^(-2 / (m - 1)) with m = 1.25 and d the mean distance to
        the benchmark's five nearest rows.
        """
        chosen = self._among(owners)
        distances = self.apart[:, chosen] + 1e-3 * self.edges[chosen].min()
        share = (distances.min(axis=1, keepdims=True) / distances) ** 8
        return np.asarray(share / share.sum(axis=1, keepdims=True), np.float64)

    def _among(self, owners: Sequence[int]) -> list[int]:
        return [self.owners.index(owner) for owner in owners]


@dataclass(frozen=True)
class Reference:
    """A sample of the training networks, against which distances are measured.

    The distance of a row to a benchmark is the mean Euclidean distance to the five nearest of its rows, divided by the
    95th percentile of the same for the benchmark's rows themselves, each left out in turn: 1 is the edge of the
    benchmark, whether its networks are much alike or not. The distance to the training set is that to the nearest
    benchmark.

    Attributes:
        scaler: Scaling of the features.
        points: (m, d) float32, scaled training rows.
        owner: (m,) int32, number of the benchmark of each.
        edges: The divisors by benchmark; a benchmark of one row has the mean of the others', or 1.
    """

    scaler: Scaler
    points: NDArray[np.float32]
    owner: Integers
    edges: Mapping[int, float]

    @classmethod
    def fit(cls, table: Floats, owner: Integers, *, seed: int, limit: int = 3000) -> Reference:
        """Take at most `limit` of the training rows (n, d), about equally many of each benchmark."""
        scaler = Scaler.fit(table, limit=8.0)
        rows = sample_rows(owner, limit, seed)
        points = scaler(table[rows]).astype(np.float32)
        owners = owner[rows].astype(np.int32)
        edges = {}
        for each in np.unique(owners).tolist():
            mine = points[owners == each]
            if len(mine) > 1:
                edges[each] = max(float(np.quantile(_nearest(mine, mine, skip_self=True), 0.95)), _LEAST)
        usual = float(np.mean(list(edges.values()))) if edges else 1.0
        return cls(scaler, points, owners, {each: edges.get(each, usual) for each in np.unique(owners).tolist()})

    def place(self, table: Floats) -> Place:
        """Where feature rows (n, d) lie among the benchmarks."""
        scaled = self.scaler(table)
        apart = [_nearest(scaled, self.points[self.owner == owner]) for owner in self.edges]
        return Place(np.stack(apart, axis=1), np.array([*self.edges.values()]), tuple(self.edges))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs, as arrays."""
        scaler = {f"scaler_{key}": array for key, array in self.scaler.arrays().items()}
        return {**scaler, "points": self.points, "owner": self.owner, "edges": np.array([*self.edges.values()])}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Reference:
        """The reference that wrote `arrays`."""
        scaler = Scaler.restore({key.removeprefix("scaler_"): array for key, array in arrays.items()})
        points, owner = np.asarray(arrays["points"], np.float32), np.asarray(arrays["owner"], np.int32)
        edges = np.asarray(arrays["edges"], np.float64).tolist()
        return cls(scaler, points, owner, dict(zip(np.unique(owner).tolist(), edges, strict=True)))


def sample_rows(owner: Integers, limit: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most `limit` rows, about equally many of each owner, in ascending order."""
    if len(owner) <= limit:
        return np.arange(len(owner))
    random = generator(seed, "reference")
    members = sorted((random.permutation(np.flatnonzero(owner == o)) for o in np.unique(owner)), key=len)
    taken, room = [], limit
    for i, rows in enumerate(members):
        share = min(len(rows), room // (len(members) - i))
        taken.append(rows[:share])
        room -= share
    return np.sort(np.concatenate(taken))


def fold_places(table: Floats, folds: Integers, owner: Integers, *, seed: int) -> tuple[Floats, Floats]:
    """`distance` and `outside` (n,) of each row in a reference made of the other folds only."""
    distance, outside = np.ones((2, len(table)))
    for fold in np.unique(folds):
        held = folds == fold
        if not held.all():
            reference = Reference.fit(table[~held], owner[~held], seed=seed, limit=1000)
            place = reference.place(table[held])
            distance[held], outside[held] = place.distance(), place.outside()
    return distance, outside


_LEAST = 1e-6
"""Least divisor of a distance: the networks of a benchmark may all be alike."""
_DECIMALS = 6
"""What is kept of a distance, so that a network's does not depend on those it is scored with."""


def _rounded(distance: Floats) -> Floats:
    return np.asarray(np.round(distance, _DECIMALS), np.float64)


def _nearest(queries: NDArray[np.floating], points: NDArray[np.float32], *, skip_self: bool = False) -> Floats:
    """Mean distance (n,) to the nearest points, of which `queries` are the same rows if `skip_self`."""
    points, queries = points.astype(np.float64), queries.astype(np.float64)
    k = min(NEIGHBOURS, len(points) - skip_self)
    if k < 1:
        return np.zeros(len(queries))
    result = np.empty(len(queries))
    norms = (points * points).sum(1)
    for start in range(0, len(queries), 1024):
        block = queries[start : start + 1024]
        squared = np.maximum((block * block).sum(1)[:, None] + norms - 2 * block @ points.T, 0)
        if skip_self:
            squared[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        near = np.partition(squared, k - 1, axis=1)[:, :k]
        result[start : start + len(block)] = np.sqrt(near).mean(1)
    return result
