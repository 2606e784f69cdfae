"""The statistics as they are read off the graph embedding: 172 columns of known meaning instead of 672 of none.

Heads that learn from one or two spaces and score others suffer from the embedding's columns: most of them tell spaces
apart, and what trees say of a new space is extrapolated. What the embedding was pretrained to know are the statistics;
here they are read off it by ridge regression (Hoerl and Kennard 1970), worked out once on networks drawn from every
space, without a label. The penalty is the one with which the statistics of spaces left out are read best.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .arrays_file import load_arrays, save_arrays
from .errors import CheckpointError, DataError
from .graph import ArchGraph
from .registry import SHIPPED_GRAPH, SHIPPED_READINGS, get_encoder
from .statistics import FEATURE_NAMES, FEATURES, SIZES

Floats = NDArray[np.float64]

LIMIT = 6.0
"""Scaled numbers of the embedding are clipped to ± this, scaled statistics to ± 4 where the map is fitted."""
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Penalties tried."""
FOLDS = 6
_DECIMALS = 4
_FORMAT = "archgauge.graph_readings"


@dataclass(frozen=True)
class Readings:
    """A linear map of scaled embeddings to standardised statistics.

    Attributes:
        centre: (d,) mean of each number of the embedding.
        scale: (d,) its standard deviation; infinite where it is constant.
        slopes: (d, k) slope of each statistic in each scaled number; statistics are in standard deviations.
        shift: (k,) added afterwards.
    """

    centre: Floats
    scale: Floats
    slopes: Floats
    shift: Floats

    @classmethod
    def fit(
        cls, embeddings: Floats, statistics: Floats, spaces: Sequence[str]
    ) -> tuple[Self, float, dict[float, float]]:
        """Work out the map.

        Args:
            embeddings: (n, d) embeddings.
            statistics: (n, k) what is to be read off them.
            spaces: (n,) space of every network; the penalty is chosen by leaving out a sixth of the spaces in turn.

        Returns:
            The map, the penalty chosen, and for every penalty the share of the statistics' variance that is read right
            in spaces left out.

        Raises:
            DataError: Shapes do not fit, or there are fewer than two spaces.
        """
        if not len(embeddings) == len(statistics) == len(spaces) or len(set(spaces)) < 2:
            raise DataError(
                f"{len(embeddings)} embeddings, {len(statistics)} statistics and {len(spaces)} spaces, expected as "
                "many of each, and two spaces or more"
            )
        centre, scale = spread(embeddings)
        x = scaled(embeddings, centre, scale)
        y = scaled(statistics, *spread(statistics), limit=4.0)
        _, owner = np.unique(list(spaces), return_inverse=True)
        folds = owner % FOLDS
        wrong = dict.fromkeys(PENALTIES, 0.0)
        for fold in np.unique(folds):
            held = folds == fold
            for penalty in PENALTIES:
                slopes, shift = _ridge(x[~held], y[~held], penalty)
                wrong[penalty] += float(np.square(x[held] @ slopes + shift - y[held]).sum())
        read = {penalty: 1 - error / float(np.square(y).sum()) for penalty, error in wrong.items()}
        best = max(read, key=read.__getitem__)
        return cls(centre, scale, *_ridge(x, y, best)), best, read

    def __call__(self, embeddings: Floats) -> Floats:
        """Standardised statistics (n, k) of embeddings (n, d)."""
        return np.asarray(scaled(embeddings, self.centre, self.scale) @ self.slopes + self.shift, np.float64)

    def save(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        """Write it as safetensors; `about` tells how it was made, and under "weights" with which encoder's weights."""
        arrays: dict[str, NDArray[Any]] = {name: value.astype(np.float32) for name, value in vars(self).items()}
        save_arrays(path, _FORMAT, {**arrays, "slopes": self.slopes.astype(np.float16)}, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], weights: str) -> Self:
        """What `save` wrote.

        Args:
            path: The file.
            weights: SHA-256 of the weights of the encoder that it is used with.

        Raises:
            CheckpointError: The file is missing, damaged or something else, or belongs to other weights.
        """
        try:
            return cls(**load_arrays(path, _FORMAT, ("weights", weights), "benchmarks/pretrain_graph.py --readings"))
        except TypeError as error:
            raise CheckpointError(f"{path}: holds other arrays than readings ({error}); make it again") from error


class GraphReadingsEncoder:
    """The statistics, standardised, as read off the embedding of the graph network that ships."""

    name = "graph_readings"
    columns: tuple[str, ...] = tuple(f"read_{name}" for name in FEATURE_NAMES)
    monotone: tuple[int, ...] = tuple(feature.monotone for feature in FEATURES)
    sizes: tuple[str, ...] = tuple(f"read_{name}" for name in SIZES)

    @property
    def version(self) -> int:
        """32 bits of the hash of the map and of the embedding's version."""
        content = SHIPPED_READINGS.read_bytes() + str(get_encoder("graph").version).encode()
        return int(sha256(content).hexdigest()[:8], 16)

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, 172) float64."""
        return np.round(_shipped()(get_encoder("graph").encode(graphs)), _DECIMALS)


@once
def _shipped() -> Readings:
    return Readings.load(SHIPPED_READINGS, weights_of(SHIPPED_GRAPH))


def spread(table: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation (d,) of the columns of a table (n, d); the latter is infinite where constant."""
    deviation = table.std(axis=0)
    return table.mean(axis=0), np.where(deviation > 1e-9, deviation, np.inf)


def scaled(table: Floats, centre: Floats, scale: Floats, limit: float = LIMIT) -> Floats:
    """A table (n, d) in deviations from the mean, at most `limit`."""
    return np.asarray(np.clip((table - centre) / scale, -limit, limit), np.float64)


def weights_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return sha256(Path(path).read_bytes()).hexdigest()


def _ridge(x: Floats, y: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Slopes (d, k) and shift (k,) of a regression with a squared penalty."""
    centre, mean = x.mean(axis=0), y.mean(axis=0)
    own = x - centre
    slopes = np.linalg.solve(own.T @ own + penalty * np.eye(own.shape[1]), own.T @ (y - mean))
    return np.asarray(slopes, np.float64), np.asarray(mean - centre @ slopes, np.float64)
