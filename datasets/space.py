"""What one search space offers, for the modules that hold several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError

Labelled = tuple[list[str], dict[str, NDArray[np.float64]]]
"""Specs, and numbers of each by name."""


class Space(NamedTuple):
    """A search space inside a module; a module with a single space offers the same five names itself.

    Attributes:
        TASKS: Tasks with labels.
        SIZE: How many specs `sample` gives at most.
        build: Spec and task → weightless ONNX model.
        read_labels: Published files by name and task → specs and accuracies in percent.
        sample: Number and seed → that many different specs, the same for the same seed.
        read_side: Published files by name and task → specs and further measured numbers by name, each of shape (n,);
            None where there are none. A module with a single space has the function, or has none.
    """

    TASKS: tuple[str, ...]
    SIZE: int
    build: Callable[[str, str], ModelProto]
    read_labels: Callable[[Mapping[str, Path], str], tuple[list[str], NDArray[np.float64]]]
    sample: Callable[[int, int], list[str]]
    read_side: Callable[[Mapping[str, Path], str], Labelled] | None = None


def check_count(n: int, most: int, space: str) -> None:
    """Raise a `DataError` unless n different specs can be sampled, 0 to `most`."""
    if not 0 <= n <= most:
        raise DataError(f"{space}: can sample 0 to {most:,} networks, not {n:,}")
