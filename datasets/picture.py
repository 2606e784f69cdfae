"""A picture of a benchmark: how its accuracies are spread, and how they go with size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..encoders.errors import ConfigError
from ..encoders.files import replacing

if TYPE_CHECKING:
    from .benchmark import Benchmark

_POINTS = 5_000
"""Networks that are drawn as points at most; more are a random part."""


def histogram(bench: Benchmark, path: str | os.PathLike[str], bins: int) -> None:
    """Draws the picture; see `Benchmark.histogram`."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError(
            "pictures need the package matplotlib, which is not installed: pip install 'archgauge[plots]'"
        ) from error
    if bins < 1:
        raise ConfigError(f"bins is {bins}, expected 1 or more")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    title = f"{bench.name}, {bench.task}"
    left.hist(bench.accuracy, bins=bins, orientation="horizontal", color="#4477aa")
    left.set(xlabel="networks", ylabel="accuracy in percent" if bench.unit == "percent" else bench.unit)
    left.set_title(f"{title}: {len(bench):,} networks", fontsize=10)
    sized = np.flatnonzero(bench.params > 0)
    shown = np.random.default_rng(0).permutation(sized)[:_POINTS]
    right.scatter(bench.params[shown], bench.accuracy[shown], s=4, alpha=0.4, color="#4477aa", linewidths=0)
    right.set(xlabel="parameters", xscale="log")
    right.set_title(f"{len(shown):,} of them by size" if len(shown) < len(bench) else "by size", fontsize=10)
    with replacing(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})
