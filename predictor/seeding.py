"""One seed for everything, spawned per part by name, so that adding a part changes no other part's random numbers."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray


def spawn(seed: int, *names: str | int) -> np.random.SeedSequence:
    """The seed sequence of the part called `names` under the run's `seed`.

    Args:
        seed: The run's seed, 0 or more.
        names: Path of the part, outermost first, for example `"gbdt", 2`.
    """
    key = tuple(name if isinstance(name, int) else crc32(name.encode()) for name in names)
    return np.random.SeedSequence(seed, spawn_key=key)


def integer_seed(seed: int, *names: str | int) -> int:
    """A 31-bit seed for libraries that take an integer (LightGBM, scikit-learn, torch)."""
    return int(spawn(seed, *names).generate_state(1, np.uint32)[0] >> 1)


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the part called `names`."""
    return np.random.default_rng(spawn(seed, *names))


def drawn_rows(rows: int, limit: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Positions of at most `limit` of so many rows, in ascending order."""
    return np.arange(rows) if rows <= limit else np.sort(random.choice(rows, limit, replace=False))
