"""Networks as rows of a table: the columns of several encoders, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..encoders.graph import ArchGraph
from ..encoders.registry import core_of, encode_table, get_encoder
from .ensemble import Columns

Floats = NDArray[np.float64]


class Features:
    """What encoders say of networks, and what their columns mean.

    Args:
        encoders: Names of encoders, see `archgauge.encoders.registry`.
        cache: Folder that keeps encoded networks between runs, or None.

    Attributes:
        encoders: The encoders.
        columns: Where in the table the columns of each stand.
        names: Names of all columns; those of several encoders begin with the encoder's.

    Raises:
        ConfigError: No such encoder.
    """

    def __init__(self, encoders: Sequence[str], cache: str | os.PathLike[str] | None = None) -> None:
        self.encoders = tuple(get_encoder(name) for name in encoders)
        self.cache = cache
        columns, start = [], 0
        for encoder in self.encoders:
            core = tuple(start + encoder.columns.index(name) for name in core_of(encoder))
            columns.append(Columns(encoder.name, tuple(range(start, start + len(encoder.columns))), core))
            start += len(encoder.columns)
        self.columns = tuple(columns)
        prefixes = ("",) if len(self.encoders) == 1 else tuple(f"{encoder.name}." for encoder in self.encoders)
        pairs = zip(prefixes, self.encoders, strict=True)
        self.names = tuple(f"{prefix}{column}" for prefix, encoder in pairs for column in encoder.columns)

    def table(self, graphs: Sequence[ArchGraph], hashes: Sequence[str] | None = None, progress: bool = False) -> Floats:
        """One row per network: (n, d) for d names.

        Args:
            graphs: The networks.
            hashes: Their hashes, if known.
            progress: Show progress.
        """
        return np.hstack(
            [
                encode_table(graphs, encoder, hashes=hashes, cache=self.cache, progress=progress)
                for encoder in self.encoders
            ]
        )

    def sizes(self, table: Floats) -> tuple[Floats, list[int]]:
        """The measures of size in a table (n, d): (n, k), and how many are of each encoder."""
        pairs = zip(self.columns, self.encoders, strict=True)
        positions = [at.positions[encoder.columns.index(name)] for at, encoder in pairs for name in encoder.sizes]
        return table[:, positions], [len(encoder.sizes) for encoder in self.encoders]

    def placed(self, table: Floats) -> Floats:
        """The columns of a table (n, d) in which distances are measured: those of the first encoder."""
        return table[:, : len(self.encoders[0].columns)]

    def monotone(self, opinions: int) -> list[int]:
        """Signs of the columns and of so many opinions of a prior behind them, of which the last is its score."""
        signs = [sign for encoder in self.encoders for sign in encoder.monotone]
        return [*signs, *([0] * (opinions - 1)), 1] if opinions else signs
