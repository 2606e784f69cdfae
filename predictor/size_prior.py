"""The part of a score that is size: what anybody knows of a network in a space nobody has trained on.

Inside a space, larger networks (more multiply-accumulates) are mostly better; how much learnt features add to that
differs from space to space. So the heads of a predictor for several spaces learn what is left of the labels after a
share of size is taken off, and the score puts the share back. It is GENNAPE's label transform by FLOPs (Mills et al.
2023) turned to ranks: there labels are divided by a function of FLOPs, here a term is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import kendall
from .transforms import normal_ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

SHARES = (0.0, 0.15, 0.3, 0.45)
"""Shares tried; one is chosen by leaving out the training spaces in turn."""


@dataclass(frozen=True)
class SizePrior:
    """A term of the score that grows with size.

    Attributes:
        share: What one standard deviation of size is worth, in units of the score.
        centre: Mean over the training spaces of their median size.
        scale: Mean over the training spaces of the standard deviation of size.
    """

    share: float
    centre: float
    scale: float

    def __call__(self, size: Floats) -> Floats:
        """The term for networks of these sizes (n,)."""
        return np.asarray(self.share * (size - self.centre) / self.scale, np.float64)

    def in_pool(self, size: Floats) -> Floats:
        """The term from the ranks of the sizes (n,) within a pool."""
        return self.share * normal_ranks(size)


def within_spaces(size: Floats, owner: Integers) -> Floats:
    """Normal quantile of the rank of every size (n,) inside its own benchmark."""
    ranks = np.zeros(len(size))
    for i in np.unique(owner):
        ranks[owner == i] = normal_ranks(size[owner == i])
    return ranks


def fit_size_prior(
    size: Floats, labels: Floats, owner: Integers, held_out: Callable[[Floats], Floats]
) -> SizePrior | None:
    """Chooses the share of size by how well whole spaces that were left out are ranked.

    Args:
        size: (n,) sizes on a log scale.
        labels: (n,) normal quantiles inside each benchmark.
        owner: (n,) benchmark of every row.
        held_out: Gives, for labels (n,), the out-of-space outputs (h, n) of h heads.

    Returns:
        The prior; None if size helps nowhere, or does not vary.
    """
    scales = [float(size[owner == i].std()) for i in np.unique(owner)]
    scale = float(np.mean(scales))
    if scale < 1e-9:
        return None
    ranks = within_spaces(size, owner)
    centre = float(np.mean([np.median(size[owner == i]) for i in np.unique(owner)]))
    quality = {}
    for share in SHARES:
        prior = SizePrior(share, centre, scale)
        score = held_out(labels - share * ranks).mean(axis=0) + prior(size)
        each = [kendall(labels[owner == i], score[owner == i]) for i in np.unique(owner)]
        quality[share] = float(np.mean(np.nan_to_num(each)))
    best = max(SHARES, key=quality.__getitem__)
    return SizePrior(best, centre, scale) if best else None
