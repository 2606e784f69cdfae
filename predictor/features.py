"""Networks as rows of a table: the columns of several encoders, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..encoders.graph import ArchGraph
from ..encoders.registry import core_of, derived, encode_table, get_encoder
from .ensemble import Columns

Floats = NDArray[np.float64]


class Features:
    """What encoders say of networks, and what their columns mean.

    Args:
        encoders: Names of encoders, see `archgauge.encoders.registry`. Heads are fitted on the columns of one of them.
        evidence: Names of further encoders; every head sees their columns, too.
        cache: Folder that keeps encoded networks between runs, or None.

    Attributes:
        encoders: All encoders, in the order of the table.
        columns: Where in it the columns of each of them stand, but for those of the evidence, which are behind these.
        evidence_width: How many columns the evidence has.
        names: Names of all columns; those of several encoders begin with the encoder's.

    Raises:
        ConfigError: No such encoder.
    """

    def __init__(
        self, encoders: Sequence[str], evidence: Sequence[str] = (), cache: str | os.PathLike[str] | None = None
    ) -> None:
        self.encoders = tuple(get_encoder(name) for name in (*encoders, *evidence))
        self.cache = cache
        places, start = [], 0
        for name, encoder in zip((*encoders, *evidence), self.encoders, strict=True):
            core = tuple(start + encoder.columns.index(column) for column in core_of(encoder))
            places.append(Columns(name, tuple(range(start, start + len(encoder.columns))), core))
            start += len(encoder.columns)
        self._places = {place.name: place for place in places}
        self.columns = tuple(places[: len(encoders)])
        self.evidence_width = sum(len(place.positions) for place in places[len(encoders) :])
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
        tables: dict[str, Floats] = {}
        for name, encoder in zip(self._places, self.encoders, strict=True):
            rows = derived(encoder, tables)
            if rows is None:
                rows = encode_table(graphs, encoder, hashes=hashes, cache=self.cache, progress=progress)
            tables[name] = rows
        return np.hstack(list(tables.values()))

    def part(self, table: Floats, other: Features) -> Floats:
        """The columns of a table (n, d) that others have, in their order; all of their encoders must be here, too."""
        return np.hstack([table[:, self._places[name].positions] for name in other._places])

    def sizes(self, table: Floats) -> tuple[Floats, list[int]]:
        """The measures of size in a table (n, d): (n, k), and how many are of each encoder; evidence has none."""
        pairs = list(zip(self.columns, self.encoders, strict=False))
        positions = [at.positions[encoder.columns.index(name)] for at, encoder in pairs for name in encoder.sizes]
        return table[:, positions], [len(encoder.sizes) for _, encoder in pairs]

    def placed(self, table: Floats) -> Floats:
        """The columns of a table (n, d) in which distances are measured: those of the first encoder."""
        return table[:, : len(self.encoders[0].columns)]

    def monotone(self, opinions: int) -> list[int]:
        """Signs of the columns and of so many opinions of a prior behind them, of which the last is its score."""
        signs = [sign for encoder in self.encoders for sign in encoder.monotone]
        return [*signs, *([0] * (opinions - 1)), 1] if opinions else signs
