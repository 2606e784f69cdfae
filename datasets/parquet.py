"""A benchmark as a Parquet table, with its graphs in a file beside it.

`bench.parquet` has one row per network: name, accuracy, group, hash, params, macs and one column `side.<name>` per
side number. What holds for the whole benchmark (task, unit, licence, ...) is JSON in the metadata of the table, under
the key `archgauge`. The graphs stand in `bench.graphs.safetensors`, as `GraphStore.save` writes them: quick to open,
and read only where they are needed. The hashes of both files must agree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders.errors import ConfigError, DataError
from ..encoders.files import replacing
from .graph_store import GraphStore

if TYPE_CHECKING:
    from .benchmark import Benchmark

FORMAT = 1
"""Raised whenever the layout of the table changes."""

_KEY = b"archgauge"
_COLUMNS = ("name", "accuracy", "group", "hash", "params", "macs")
_SIDE = "side."
_ABOUT = ("name", "task", "relatives", "label", "licence", "unit")


def graphs_path(path: str | os.PathLike[str]) -> Path:
    """Where the graphs of a table lie: beside it, `.graphs.safetensors` in place of its last ending."""
    return Path(path).with_suffix(".graphs.safetensors")


def write(bench: Benchmark, path: str | os.PathLike[str]) -> None:
    """Writes the table and, before it, the file of its graphs; see `Benchmark.to_parquet`."""
    arrow, parquet = _pyarrow()
    store = bench.graphs if isinstance(bench.graphs, GraphStore) else GraphStore.from_graphs(bench.graphs)
    about = {"format": FORMAT, **{name: getattr(bench, name) for name in _ABOUT}, "skipped": bench.skipped}
    about["epochs"] = bench.epochs
    columns = {
        "name": list(bench.names),
        "accuracy": bench.accuracy,
        "group": list(bench.groups),
        "hash": list(bench.hashes),
        "params": bench.params,
        "macs": np.array([graph.macs for graph in bench.graphs], dtype=np.int64),
        **{f"{_SIDE}{name}": values for name, values in bench.side.items()},
    }
    table = arrow.table(columns).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    store.save(graphs_path(path))
    with replacing(path) as file:
        parquet.write_table(table, file)


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The fields of the benchmark that `write` wrote; see `Benchmark.from_parquet`."""
    arrow, parquet = _pyarrow()
    try:
        table = parquet.read_table(Path(path), partitioning=None)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the table does not exist") from error
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet table ({error})") from error
    try:
        about = json.loads(table.schema.metadata[_KEY])
        version, skipped = about["format"], tuple((str(name), str(reason)) for name, reason in about["skipped"])
        fields = {name: about[name] for name in _ABOUT}
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: not a table that Benchmark.to_parquet wrote; Benchmark.from_csv reads labels of your own"
        ) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if version != FORMAT or missing or not all(isinstance(value, str) for value in fields.values()):
        raise DataError(
            f"{path}: a table of format {version}, missing columns {', '.join(missing) or 'none'}; expected format "
            f"{FORMAT}: write it again with Benchmark.to_parquet"
        )
    graphs = GraphStore.load(graphs_path(path))
    if list(graphs.hashes) != table["hash"].to_pylist():
        raise DataError(f"{graphs_path(path)}: holds other graphs than {path} names; write both again")
    side = {name: table[name].to_numpy() for name in table.column_names if name.startswith(_SIDE)}
    return {
        **fields,
        "skipped": skipped,
        "epochs": about.get("epochs"),  # older tables have none
        "graphs": graphs,
        "accuracy": table["accuracy"].to_numpy(),
        "names": tuple(table["name"].to_pylist()),
        "groups": tuple(table["group"].to_pylist()),
        "side": {name.removeprefix(_SIDE): values for name, values in side.items()},
    }


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Parquet files need the package pyarrow, which is not installed: pip install 'archgauge[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet
