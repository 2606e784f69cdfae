"""ONNX-Bench: folders of ONNX files that carry their accuracy in the model's metadata.

S. Qin et al., "ONNX-Net: Towards Universal Representations and Instant Performance Prediction for Neural
Architectures", arXiv 2510.04938. What is known of the layout is what the authors' reader expects: `.onnx` files, in
folders and subfolders, whose first metadata entry (`ModelProto.metadata_props`) has the accuracy as its value,
whatever its key; the folder of einspace has subfolders `<task>/<seed>/`. The files themselves are at Hugging Face.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ..encoders import onnx_reader
from ..encoders.errors import ArchGaugeError, ConfigError, DataError
from ..encoders.graph import ArchGraph
from ..encoders.onnx_file import structure
from .benchmark import Benchmark
from .graph_store import GraphStore

Row = tuple[str, float, str]


def from_onnx_folder(
    folder: str | os.PathLike[str],
    *,
    key: str | None = None,
    unit: Literal["percent", "fraction"] = "percent",
    task: str = "cifar10",
    name: str | None = None,
    group: Callable[[str], str] | None = None,
    on_error: Literal["raise", "skip"] = "skip",
    epochs: float | None = None,
) -> Benchmark:
    """Reads networks and their accuracies from a folder of ONNX files with labels inside, as ONNX-Bench has them.

    Subfolders are searched too; files that a link leads out of the folder to are never opened. The weights are not
    needed: external data files need not exist.

    Args:
        folder: The folder.
        key: Key of the metadata entry with the accuracy. Default: the first entry, as the authors' reader takes it.
        unit: `percent` (0 to 100) or `fraction` (0 to 1) for the accuracies in the files.
        task: Data set the labels were measured on.
        name: Name of the benchmark; default the folder's.
        group: Gives each name (path below the folder, without `.onnx`) its group (family). Default: the graph's hash.
        on_error: `skip` leaves out files without an accuracy and files that cannot be read, and lists them in
            `skipped`; `raise` stops at the first.
        epochs: Training epochs behind the accuracies, see `Benchmark`.

    Returns:
        The benchmark, sorted by name.

    Raises:
        DataError: There is no such folder, no network is left, or `epochs` is no finite number above 0; with `raise`
            any wrong file.
        ConfigError: `unit` or `on_error` has a value that does not exist.
    """
    folder = Path(folder)
    for option, value, choices in (
        ("unit", unit, ("percent", "fraction")),
        ("on_error", on_error, ("raise", "skip")),
    ):
        if value not in choices:
            raise ConfigError(f"{option} is {value!r}, expected {' or '.join(map(repr, choices))}")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder, expected one with ONNX files")
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []

    def graphs() -> Iterator[ArchGraph]:
        for path in sorted(folder.rglob("*.onnx")):
            model = path.relative_to(folder).with_suffix("").as_posix()
            try:
                graph, accuracy = _read(path, folder, key, unit)
            except ArchGaugeError as error:
                if on_error == "raise":
                    raise
                skipped.append((model, str(error)))
                continue
            rows.append((model, accuracy, group(model) if group else graph.hash))
            yield graph

    store = GraphStore.from_graphs(graphs())
    if not rows:
        first = f"; the first of {len(skipped)}: {skipped[0][0]!r}, {skipped[0][1]}" if skipped else ""
        raise DataError(f"{folder}: no ONNX file with an accuracy{first}")
    accuracy = np.array([value for _, value, _ in rows])
    if unit == "percent" and 0 < accuracy.max() <= 1:
        raise DataError(
            f"{folder}: unit is 'percent' but no label is above {accuracy.max():g}, so they look like fractions: pass "
            "unit='fraction'"
        )
    return Benchmark(
        name=name or folder.resolve().name,
        task=task,
        graphs=store,
        accuracy=accuracy,
        names=tuple(model for model, _, _ in rows),
        groups=tuple(family for _, _, family in rows),
        label="accuracy in the metadata of the ONNX files",
        skipped=tuple(skipped),
        epochs=epochs,
    )


def _read(path: Path, folder: Path, key: str | None, unit: str) -> tuple[ArchGraph, float]:
    """A file's graph and accuracy in percent."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error}") from error
    if not inside:
        raise DataError(f"{path}: no file, or outside of {folder}")
    try:
        model = structure(path)
        entries = [(entry.key, entry.value) for entry in model.metadata_props]
        accuracy = _accuracy(entries, key, path) * (100 if unit == "fraction" else 1)
        graph = onnx_reader.read(model)
    except ArchGaugeError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # one file must not cost the user the other ten thousand; the reason is kept
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error
    if not 0 <= accuracy <= 100:
        raise DataError(f"{path}: the accuracy is {accuracy:g} percent, expected 0 to 100 (unit {unit!r})")
    return graph, accuracy


def _accuracy(entries: list[tuple[str, str]], key: str | None, path: Path) -> float:
    values = [value for name, value in entries if key in (None, name)]
    if not values:
        found = ", ".join(repr(name) for name, _ in entries) or "none"
        wanted = "an entry with the accuracy" if key is None else f"the entry {key!r}"
        raise DataError(f"{path}: the metadata lacks {wanted}; its entries are {found}")
    try:
        result = float(values[0])
    except ValueError:
        result = math.nan
    if not math.isfinite(result):
        raise DataError(f"{path}: the accuracy in the metadata is {values[0][:80]!r}, expected a number")
    return result
