"""Reading extracts: gzipped tables with a header, one row per network, made from published files."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

from ..encoders.errors import DataError
from .raw_files import MAX_FILE_BYTES, raw_path


def read_extract(paths: Mapping[str, Path], name: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """The rows of the table `name`, each with its place ("file, line 7") for messages.

    Args:
        paths: Files by name.
        name: Name of the table, `*.csv.gz`.
        columns: Columns that must be there.

    Raises:
        DataError: The file is missing or damaged, a column is missing, a row has too few fields, or there is no row.
    """
    path = raw_path(paths, name)
    unpack = zlib.decompressobj(wbits=31)
    try:
        content = unpack.decompress(path.read_bytes(), MAX_FILE_BYTES)
        text = content.decode()
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable gzip table: {error}; copy it again") from error
    if not unpack.eof:
        raise DataError(f"{path}: the table is cut off, or larger than {MAX_FILE_BYTES:,} bytes; copy it again")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; the columns are {reader.fieldnames}")
    rows: list[tuple[str, dict[str, str]]] = []
    try:
        for row in reader:
            if any(row[column] is None for column in columns):
                raise DataError(f"{path}: line {reader.line_num} has too few fields")
            rows.append((f"{path}, line {reader.line_num}", row))
    except csv.Error as error:
        raise DataError(f"{path}: not a valid CSV file: {error}") from error
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows
