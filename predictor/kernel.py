"""What Gaussian processes share: their kernel, and what noise they expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATIOS = np.geomspace(1e-3, 3.0, 12)
"""Ratios of noise to signal that are tried."""


def matern(distance: Floats) -> Floats:
    """The Matérn 5/2 kernel (1 + r + r²/3) exp(-r), r = √5 d, of distances d in units of its length.

    Rasmussen and Williams 2006, eq. 4.17.
    """
    r = np.sqrt(5.0) * distance
    return np.asarray((1 + r + r * r / 3) * np.exp(-r), np.float64)


def ratio_loss() -> Floats:
    """Minus the logarithm of a log-normal prior of each of the `RATIOS`, with median .1, up to a constant."""
    return np.asarray(0.5 * (np.log(RATIOS / 0.1) / 1.5) ** 2, np.float64)
