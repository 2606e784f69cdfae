"""The part of a score that is size: what anybody knows of a network in a space nobody has trained on.

Inside a space, larger networks are mostly better; how much learnt features add to that differs from space to space.
So the heads of a predictor for several spaces learn what is left of the labels after a share of size is taken off, and
the score puts the share back. It is GENNAPE's label transform by FLOPs (Mills et al. 2023) turned to ranks: there
labels are divided by a function of FLOPs, here a term is subtracted.

No single measure of size holds everywhere: MACs tell little in OnceNAS (Spearman .19), the analytic NWOT score in
Accel-NASBench (.21), parameters in the macro space of TransNAS-Bench-101 (.19). A measure that puts a network far above
or below the training spaces misleads most, so the term is a mean of medians, see `middling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .distance import farness
from .transforms import normal_ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

SHARE = 0.6
"""What one standard deviation of size is worth in a predictor for three spaces or more, in units of the score.

Of .3, .6 and .9, chosen while looking at the spaces of the leave-one-space-out table.
"""
FAR_SHARE = 0.3
"""The same far from one or two training spaces.

Of .2, .3, .45 and .6 a compromise between what NAS-Bench-101 (less) and other single spaces (.6) teach of the rest.
"""
OUTSIDE_TRUST = 0.7
"""What share of what heads learnt of several spaces counts outside all of them.

Of 1, .7 and .5, chosen while looking at the same spaces: the mean is level, but with all of it a narrow space, where
sizes differ little and what was learnt elsewhere is mostly noise, is ranked worse than by MACs.
"""
FAR_TRUST = 0.5
"""What share of that is left far from all of them, beyond the edge of the broadest too.

Of 1, .7, .5, .3 and 0, chosen while looking at the real networks, which lie there when they are left out, and at seven
search spaces left out of training sets without real networks.
"""


@dataclass(frozen=True)
class SizePrior:
    """A term of the score that grows with size.

    Attributes:
        centres: (k,) for each measure, the mean over the training spaces of their medians.
        scales: (k,) for each measure, the mean of the standard deviations in those training spaces where it varies; 0
            for one that varies nowhere, which is not used.
        groups: How many of the measures are of each encoder; the term is the mean over the encoders.
        deviation: Mean standard deviation in the training spaces of the term before it is divided by this.
    """

    centres: tuple[float, ...]
    scales: tuple[float, ...]
    groups: tuple[int, ...]
    deviation: float = 1.0

    def __call__(self, sizes: Floats) -> Floats:
        """The term (n,) for networks of these sizes (n, k), in standard deviations."""
        used = np.array(self.scales) > 0
        standard = (sizes - np.array(self.centres)) / np.where(used, self.scales, 1.0)
        parts = (np.split(each, np.cumsum(self.groups)[:-1], axis=-1) for each in (standard, used))
        terms = [middling(group[:, kept]) for group, kept in zip(*parts, strict=True) if kept.any()]
        return np.asarray(np.mean(terms, axis=0) / self.deviation, np.float64)

    def in_pool(self, sizes: Floats) -> Floats:
        """The term (n,) of candidates that are ranked together: mean of their own and of its rank in the pool."""
        term = self(sizes)
        return 0.5 * (term + normal_ranks(term))


def middling(measures: Floats) -> Floats:
    """Size (n,) from k standardised measures of it (n, k).

    The mean of the medians of the first, the second and each other one: it lies between the first two, where the others
    say. Of one or two it is their mean.
    """
    if measures.shape[1] <= 2:
        return np.asarray(measures.mean(axis=1), np.float64)
    low, high = np.sort(measures[:, :2], axis=1).T
    return np.asarray(np.clip(measures[:, 2:], low[:, None], high[:, None]).mean(axis=1), np.float64)


def within_spaces(term: Floats, owner: Integers) -> Floats:
    """Normal quantile (n,) of the rank of every network's size (n,) inside its own benchmark."""
    ranks = np.zeros(len(term))
    for i in np.unique(owner):
        ranks[owner == i] = normal_ranks(term[owner == i])
    return ranks


def fit_size_prior(sizes: Floats, groups: Sequence[int], owner: Integers) -> SizePrior | None:
    """The size prior of several training spaces; None if size does not vary.

    Args:
        sizes: (n, k) measures of size on a log scale.
        groups: How many of the measures are of each encoder, see `SizePrior`.
        owner: (n,) benchmark of every row.
    """
    each = [sizes[owner == i] for i in np.unique(owner)]
    deviations = np.array([size.std(axis=0) for size in each])
    varies = deviations > _VARIES
    if not varies.any():
        return None
    scales = (deviations * varies).sum(axis=0) / np.maximum(varies.sum(axis=0), 1)
    centres = np.mean([np.median(size, axis=0) for size in each], axis=0)
    prior = SizePrior(tuple(centres.tolist()), tuple(scales.tolist()), tuple(groups))
    spreads = np.array([prior(size).std() for size in each])
    spreads = spreads[spreads > _VARIES]
    return replace(prior, deviation=float(spreads.mean())) if len(spreads) else None


_VARIES = 1e-9
"""Least standard deviation of a measure that counts as varying."""


def trust(distance: Floats, away: Floats) -> Floats:
    """What share of what heads learnt of several spaces counts, (n,): less outside of them, still less far away.

    Args:
        distance: (n,) distances to the nearest training space.
        away: (n,) how far beyond the edges of all of them, 0 to 1.
    """
    return (1 - (1 - OUTSIDE_TRUST) * away) * (1 - (1 - FAR_TRUST) * farness(distance))
