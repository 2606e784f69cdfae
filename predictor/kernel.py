"""What Gaussian processes share: a kernel, what noise they expect, and what follows from labels."""

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


def consequences(
    similar: Floats, root: Floats, residual: Floats, lines: Floats, ratios: Floats, variances: Floats
) -> tuple[Floats, Floats, Floats]:
    """What follows from a kernel for every ratio of noise to signal (a) and every variance of slopes (b).

    The labels' covariance is s² (K + v Z Z' + r W⁻¹); s² has a closed form (Rasmussen and Williams 2006, eq. 5.8), and
    the lines Z enter by the matrix inversion lemma.

    Args:
        similar: (n, n) the kernel K between the rows.
        root: (n,) square roots of the rows' weights W.
        residual: (n,) labels without their mean, times `root`.
        lines: (n, m) linear columns Z, times `root`.
        ratios: (a,) ratios r.
        variances: (b,) variances v of the slopes, in units of the signal's.

    Returns:
        Minus the log evidence (a, b) up to a constant, weights of the rows (a, b, n) and slopes (a, b, m).
    """
    n, m = lines.shape
    values, vectors = np.linalg.eigh(root[:, None] * similar * root)
    turned, turned_lines = vectors.T @ residual, vectors.T @ lines
    inverse = 1 / (np.maximum(values, 0.0) + ratios[:, None])
    along = (inverse * turned) @ turned_lines
    among = np.einsum("nm,an,no->amo", turned_lines, inverse, turned_lines)
    inner = np.eye(m) + variances[:, None, None] * among[:, None]
    slopes = variances[:, None] * np.linalg.solve(inner, along[:, None, :, None])[..., 0]
    signal = ((inverse @ turned**2)[:, None] - (along[:, None] * slopes).sum(axis=2)) / n
    determinant = np.linalg.slogdet(inner)[1] - np.log(inverse).sum(axis=1, keepdims=True)
    pulls = root * ((inverse[:, None] * (turned - slopes @ turned_lines.T)) @ vectors.T)
    return 0.5 * n * np.log(signal) + 0.5 * determinant, pulls, slopes
