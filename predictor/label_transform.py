"""GENNAPE's transform of labels by FLOPs: what a network reaches for its size, on one scale for all of a training set.

Mills et al. (2023, sec. 4.3): y = z-score of accuracy / (log10(FLOPs + 1) + 1) with FLOPs in units of 10⁹ and the mean
and deviation of the training set. Here FLOPs are multiply-accumulates (`ArchGraph.macs`), each counted once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..encoders.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FlopsTransform:
    """The transform and its inverse.

    Attributes:
        mean: Mean of accuracy / (log10(FLOPs + 1) + 1) over the training set.
        deviation: Its standard deviation; 1 where it is 0.
    """

    mean: float
    deviation: float

    @classmethod
    def fit(cls, accuracy: ArrayLike, macs: ArrayLike) -> Self:
        """Learn mean and deviation from accuracies (n,) in percent and multiply-accumulates (n,).

        Raises:
            DataError: There is no network, shapes differ, or a number is negative or not finite.
        """
        ratio = np.asarray(accuracy, np.float64) / _divisor(macs)
        if ratio.ndim != 1 or ratio.shape != np.shape(accuracy) or not len(ratio) or not np.isfinite(ratio).all():
            raise DataError(f"expected one finite accuracy for each of the networks, got {np.shape(accuracy)}")
        deviation = float(ratio.std())
        return cls(float(ratio.mean()), deviation if deviation > 1e-12 else 1.0)

    def __call__(self, accuracy: ArrayLike, macs: ArrayLike) -> Floats:
        """Transformed labels (n,) of accuracies (n,) in percent."""
        return np.asarray((np.asarray(accuracy, np.float64) / _divisor(macs) - self.mean) / self.deviation, np.float64)

    def inverse(self, label: ArrayLike, macs: ArrayLike) -> Floats:
        """Accuracies (n,) in percent of transformed labels (n,); they may lie outside of 0 to 100."""
        return np.asarray((np.asarray(label, np.float64) * self.deviation + self.mean) * _divisor(macs), np.float64)


def _divisor(macs: ArrayLike) -> Floats:
    """log10(FLOPs + 1) + 1, FLOPs in units of 10⁹."""
    counts = np.asarray(macs, np.float64)
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise DataError("a number of multiply-accumulates is negative or not finite, expected 0 or more")
    return np.asarray(np.log10(counts / 1e9 + 1) + 1, np.float64)
