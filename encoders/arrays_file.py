"""Arrays that belong to something else that ships: a safetensors file that says what it was made from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError
from .files import replacing

Floats = NDArray[np.float64]


def save_arrays(
    path: str | os.PathLike[str], kind: str, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Write arrays; `about` tells how they were made, and under one of its keys from what."""
    from safetensors.numpy import save

    with replacing(path) as file:
        file.write(save(dict(arrays), {"kind": kind, "about": json.dumps(dict(about))}))


def load_arrays(path: str | os.PathLike[str], kind: str, origin: tuple[str, str], advice: str) -> dict[str, Floats]:
    """What `save_arrays` wrote, as float64.

    Args:
        path: The file.
        kind: What it must be.
        origin: A key of `about`, and what must stand there.
        advice: How to make it again.

    Raises:
        CheckpointError: The file is missing, damaged or something else, or was made from something else.
    """
    from safetensors import SafetensorError, safe_open

    file, (key, expected) = Path(path), origin
    try:
        with safe_open(file, "np") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name).astype(np.float64) for name in stored.keys()}  # noqa: SIM118
        used = str(json.loads(metadata["about"])[key]) if metadata.get("kind") == kind else "unknown"
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as {kind} ({error}); make it again: {advice}") from error
    if used != expected:
        raise CheckpointError(f"{file}: was made with the {key} {used}, expected {expected}; make it again: {advice}")
    return arrays
