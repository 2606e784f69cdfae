"""Small tables that ship with the package: xz-compressed CSV files, a row for each value of a flat dataclass."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Sequence
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from ..encoders.errors import DataError
from ..encoders.files import replacing

Row = TypeVar("Row")


def read_xz_table(path: Path, kind: type[Row]) -> tuple[Row, ...]:
    """The values that `write_xz_table` wrote.

    Args:
        path: The file.
        kind: A dataclass whose fields are str, int or float.

    Raises:
        DataError: The file is missing or damaged.
    """
    every: Any = kind
    kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(every)}
    try:
        text = lzma.decompress(path.read_bytes(), format=lzma.FORMAT_XZ).decode()
        reader = csv.DictReader(StringIO(text, newline=""))
        if reader.fieldnames != list(kinds):
            raise ValueError(f"its columns are {reader.fieldnames}, expected {list(kinds)}")
        return tuple(every(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in reader)
    except (OSError, lzma.LZMAError, EOFError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable table ({error}): install archgauge again, or run "
            "python -m archgauge.datasets.imagenet_zoo_build"
        ) from error


def write_xz_table(path: Path, rows: Sequence[Any]) -> None:
    """Write dataclass values, at least one; the same values give the same bytes."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(rows[0])]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    with replacing(path) as file:
        file.write(lzma.compress(text.getvalue().encode(), format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))
