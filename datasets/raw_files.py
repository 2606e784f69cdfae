"""Safe reading of the files that benchmarks publish: size limits, no extraction to disk, no pickle.

Every function says which file is wrong, and why, with a `DataError`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import DataError

MAX_FILE_BYTES = 256 * 2**20
"""Files, and members of archives together, above this size are refused."""


def raw_path(paths: Mapping[str, Path], name: str) -> Path:
    """The path of the published file `name`.

    Raises:
        DataError: It is not among `paths`, or is no file, or is too large.
    """
    if name not in paths:
        raise DataError(f"the published file {name} is needed, got {', '.join(sorted(paths)) or 'none'}")
    path = Path(paths[name])
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; download the benchmark again")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path}: {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
    return path


def read_text(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error


def read_json_object(paths: Mapping[str, Path], name: str) -> dict[str, Any]:
    """The JSON object in the published file `name`; a key that occurs twice is an error."""
    path = raw_path(paths, name)
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected a JSON object with one entry per network")
    return content


def parse_json(text: str | bytes, source: str) -> Any:
    """The value of a JSON text; keys that occur twice are an error."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, source))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source}: not valid JSON: {error}") from error


def read_csv_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header that holds `columns`."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; the columns are {reader.fieldnames}")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}: not a valid CSV file: {error}") from error
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise DataError(f"{path}: line {number} has too few fields")
    return rows


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every regular file in a gzipped tar archive, read in memory."""
    budget = MAX_FILE_BYTES
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            for member in archive:
                budget = _spend(budget, member.size, path)
                stream = archive.extractfile(member) if member.isfile() else None
                if stream is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable tar archive: {error}; download it again") from error


def zip_members(path: Path, contains: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the files in a zip archive whose names contain `contains`, read in memory."""
    budget = MAX_FILE_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.is_dir() or contains not in member.filename:
                    continue
                budget = _spend(budget, member.file_size, path)
                yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable zip archive: {error}; download it again") from error


def number(value: Any, source: str) -> float:
    """A finite number from JSON or CSV.

    Raises:
        DataError: It is none; `source` says where it stands.
    """
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise DataError(f"{source}: expected a number, got {value!r}") from None
    if not math.isfinite(result):
        raise DataError(f"{source}: expected a finite number, got {value!r}")
    return result


def column(rows: Mapping[str, Any], key: str, source: str) -> NDArray[np.float64]:
    """The numbers `rows[network][key]` of all networks as one array."""
    return np.array(
        [number(field(row, key, f"{source}, {name}"), f"{source}, {name}, {key}") for name, row in rows.items()]
    )


def field(row: Any, key: str, source: str) -> Any:
    """`row[key]`, or a `DataError` that names the source."""
    if not isinstance(row, dict) or key not in row:
        found = ", ".join(map(str, row)) if isinstance(row, dict) else repr(row)
        raise DataError(f"{source}: no field {key!r}; found {found}")
    return row[key]


def check_spec(spec: str, parse: Callable[[str], object], source: str) -> str:
    """The spec, or a `DataError` that names the source if `parse` refuses it."""
    try:
        parse(spec)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    return spec


def check_task(task: str, tasks: tuple[str, ...], benchmark: str) -> None:
    """Raise a `DataError` unless the benchmark has the task."""
    if task not in tasks:
        raise DataError(f"{benchmark} has no task {task!r}; expected one of {', '.join(tasks)}")


def check_space(space: str, spaces: Iterable[str], benchmark: str) -> None:
    """Raise a `DataError` unless the benchmark has the space."""
    if space not in spaces:
        raise DataError(f"{benchmark} has no space {space!r}; expected one of {', '.join(spaces)}")


def _spend(budget: int, size: int, path: Path) -> int:
    if size > budget:
        raise DataError(f"{path}: the members are larger than {MAX_FILE_BYTES:,} bytes together")
    return budget - size


def _unique(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"{source}: the key {twice!r} occurs twice")
    return result
