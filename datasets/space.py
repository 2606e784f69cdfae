"""What one search space offers, for the modules that hold several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto


class Space(NamedTuple):
    """A search space inside a module; a module with a single space offers the same four names itself.

    Attributes:
        TASKS: Tasks with labels.
        build: Spec and task → weightless ONNX model.
        read_labels: Published files by name and task → specs and accuracies in percent.
        sample: Number and seed → that many different specs, the same for the same seed.
    """

    TASKS: tuple[str, ...]
    build: Callable[[str, str], ModelProto]
    read_labels: Callable[[Mapping[str, Path], str], tuple[list[str], NDArray[np.float64]]]
    sample: Callable[[int, int], list[str]]
