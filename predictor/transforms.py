"""Small numeric transforms: training labels, weights, and the scaling of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

QUARTILE = 0.6745
"""Standard deviations to either quartile of a normal distribution."""
FARTHEST = 3.0
"""Standard deviations from the median beyond which labels count as no farther."""


def normal_ranks(values: ArrayLike) -> Floats:
    """Normal quantile of the mid-rank: Φ⁻¹((rank − ½) / n), ties share their average rank (van der Waerden scores).

    Args:
        values: (n,) numbers of one benchmark.

    Returns:
        (n,) about standard normal; all 0 when the values are constant.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    array = np.asarray(values, np.float64)
    if not len(array) or array.min() == array.max():
        return np.zeros(len(array))
    return np.asarray(ndtri((rankdata(array) - 0.5) / len(array)), np.float64)


def ranks_and_values(values: ArrayLike, percent: bool) -> Floats:
    """Mean of the normal quantile of the rank and of the standardised value, the logit of one in percent.

    Ranks alone lose how far apart two networks are; values alone hang on the few that failed, though none is taken to
    lie farther from the median than `FARTHEST` standard deviations, as the quartiles tell them.

    Args:
        values: (n,) numbers of one benchmark.
        percent: Whether they are percentages, 0 to 100.

    Returns:
        (n,) in the order of the values; all 0 when these are constant.
    """
    array = np.asarray(values, np.float64)
    ranks = normal_ranks(array)
    if not ranks.any():
        return ranks
    array = logit(array) if percent else array
    low, middle, high = np.quantile(array, [0.25, 0.5, 0.75])
    deviation = (high - low) / (2 * QUARTILE)
    if deviation > 0:
        array = np.clip((array - middle) / deviation, -FARTHEST, FARTHEST)
    spread = float(array.std())
    return 0.5 * (ranks + (array - array.mean()) / spread) if spread > 0 else ranks


def logit(percent: Floats) -> Floats:
    """log(p / (1 - p)) of percentages, kept .01 away from 0 and 100."""
    share = np.clip(percent / 100, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(share / (1 - share)), np.float64)


def space_weights(sizes: ArrayLike) -> Floats:
    """Weight of each row of a benchmark of n networks: n^-½, scaled so that the mean over all rows is 1.

    Args:
        sizes: (b,) networks per benchmark.

    Returns:
        (b,) weight of one row of each benchmark.
    """
    counts = np.asarray(sizes, np.float64)
    weights = counts**-0.5
    return np.asarray(weights * counts.sum() / (weights @ counts), np.float64)


@dataclass(frozen=True)
class Scaler:
    """Subtract the mean, divide by the standard deviation, clip.

    A column that is constant in training becomes 0 wherever the scaler is applied: a feature that said nothing in
    training says nothing later. Clipping keeps a network unlike all others from being extrapolated to.

    Attributes:
        centre: (d,) means.
        scale: (d,) standard deviations; infinite for constant columns.
        limit: Scaled values are clipped to ± limit.
    """

    centre: Floats
    scale: Floats
    limit: float

    @classmethod
    def fit(cls, table: Floats, limit: float = 4.0) -> Scaler:
        """Learn from a table of shape (n, d)."""
        centre, deviation = table.mean(axis=0), table.std(axis=0)
        tiny = 1e-9 * np.maximum(1.0, np.abs(centre))
        return cls(centre, np.where(deviation > tiny, deviation, np.inf), limit)

    def __call__(self, table: Floats) -> Floats:
        """The scaled table, (n, d) float64."""
        return np.asarray(np.clip((table - self.centre) / self.scale, -self.limit, self.limit), np.float64)

    def arrays(self) -> dict[str, Floats]:
        """What `restore` needs, as arrays."""
        return {"centre": self.centre, "scale": self.scale, "limit": np.array([self.limit])}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Scaler:
        """The scaler that wrote `arrays`."""
        centre, scale = (np.asarray(arrays[key], np.float64) for key in ("centre", "scale"))
        return cls(centre, scale, float(np.asarray(arrays["limit"], np.float64)[0]))
