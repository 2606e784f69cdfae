"""The part of a score that is size: what anybody knows of a network in a space nobody has trained on.

Inside a space, larger networks are mostly better; how much learnt features add to that differs from space to space.
Size is what the encoders rank pools by: multiply-accumulates and the analytic NWOT score, half each. So the heads of a
predictor for several spaces learn what is left of the labels after a share of size is taken off, and the score puts the
share back. It is GENNAPE's label transform by FLOPs (Mills et al. 2023) turned to ranks: there labels are divided by a
function of FLOPs, here a term is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .transforms import normal_ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

SHARE = 0.6
"""What one standard deviation of size is worth, in units of the score.

Chosen by looking at twelve spaces left out in turn: of .3, .6, .8 and 1 it was best for boosted trees; for randomised
trees .3 and .6 were level. So results on those spaces carry this selection.
"""


_CONSTANT = 1e12
"""Scale of a measure that varies nowhere: it adds nothing."""


@dataclass(frozen=True)
class SizePrior:
    """A term of the score that grows with size: the mean of k measures of it, each standardised.

    Attributes:
        share: What one standard deviation of size is worth, in units of the score.
        centres: For each measure, the mean over the training spaces of their medians.
        scales: For each measure, the mean of the standard deviations in those training spaces where it varies.
    """

    share: float
    centres: tuple[float, ...]
    scales: tuple[float, ...]

    def __call__(self, sizes: Floats) -> Floats:
        """The term (n,) for networks of these sizes (n, k)."""
        standard = (sizes - np.array(self.centres)) / np.array(self.scales)
        return np.asarray(self.share * standard.mean(axis=1), np.float64)

    def in_pool(self, sizes: Floats) -> Floats:
        """The term (n,) from the ranks of the sizes (n, k) within a pool."""
        return self.share * within_spaces(sizes, np.zeros(len(sizes), np.int32))


def within_spaces(sizes: Floats, owner: Integers) -> Floats:
    """Normal quantile of the rank of every size (n, k) inside its own benchmark, mean over the measures: (n,)."""
    ranks = np.zeros(sizes.shape)
    for i in np.unique(owner):
        for column in range(sizes.shape[1]):
            ranks[owner == i, column] = normal_ranks(sizes[owner == i, column])
    return np.asarray(ranks.mean(axis=1), np.float64)


def fit_size_prior(sizes: Floats, owner: Integers, share: float) -> SizePrior | None:
    """The size prior of several training spaces; None if size does not vary.

    Args:
        sizes: (n, k) measures of size on a log scale.
        owner: (n,) benchmark of every row.
        share: What one standard deviation of size is worth.
    """
    each = [sizes[owner == i] for i in np.unique(owner)]
    deviations = np.array([size.std(axis=0) for size in each])
    varies = deviations > 1e-9
    if not varies.any():
        return None
    scales = (deviations * varies).sum(axis=0) / np.maximum(varies.sum(axis=0), 1)
    scales = np.where(varies.any(axis=0), scales, _CONSTANT)
    centres = np.mean([np.median(size, axis=0) for size in each], axis=0)
    return SizePrior(share, tuple(centres.tolist()), tuple(scales.tolist()))
