"""The configuration of a training run: a frozen dataclass that is written to and read from TOML."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..encoders.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """What `train` does.

    Attributes:
        benchmarks: Benchmarks to train on, each `name` or `name:task`.
        encoders: Encoders whose features are joined.
        heads: Kinds of head in the ensemble.
        n_seeds: Members of each kind of head.
        seed: Seed of everything.
        folds: Parts for the cross-validated table; families (or copies of one graph) stay on one side. With several
            benchmarks the table leaves out one space at a time instead. 0: no table.
        limit: Networks taken of each benchmark, drawn at random; 0: all.
        out: Folder for the run.
    """

    benchmarks: tuple[str, ...] = ("imagenet_zoo",)
    encoders: tuple[str, ...] = ("statistics",)
    heads: tuple[str, ...] = ("gbdt", "mlp")
    n_seeds: int = 3
    seed: int = 0
    folds: int = 10
    limit: int = 0
    out: str = "runs/latest"

    def __post_init__(self) -> None:
        for name in ("benchmarks", "encoders", "heads"):
            values = getattr(self, name)
            if (
                not isinstance(values, tuple)
                or not values
                or not all(isinstance(value, str) and value for value in values)
            ):
                raise ConfigError(f"{name}: expected a list of at least one name, got {values!r}")
        for name, low in (("n_seeds", 1), ("seed", 0), ("folds", 0), ("limit", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ConfigError(f"{name}: expected a whole number of at least {low}, got {value!r}")
        if not isinstance(self.out, str) or not self.out:
            raise ConfigError(f"out: expected the name of a folder, got {self.out!r}")
        if self.folds == 1:
            raise ConfigError("folds: expected 0 (no table) or at least 2, got 1")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainConfig:
        """Reads a TOML file; what it leaves out keeps its default.

        Raises:
            ConfigError: The file is missing or no TOML, has an unknown key, or a value does not fit.
        """
        try:
            with Path(path).open("rb") as file:
                values = tomllib.load(file)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error
        return cls().updated(**values)

    def updated(self, **values: Any) -> TrainConfig:
        """A copy with other values; lists become tuples.

        Raises:
            ConfigError: An unknown key, or a value that does not fit.
        """
        names = {field.name for field in fields(self)}
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(names))}"
                raise ConfigError(f"unknown option {key!r}{hint}")
        given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return replace(self, **given)

    def to_toml(self) -> str:
        """The configuration as TOML text; `load` reads it back."""
        lines = []
        for key, value in asdict(self).items():
            # JSON's numbers, strings and arrays of strings are TOML's as well, but for one character to be escaped.
            text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
            lines.append(f"{key} = {text}".replace("\x7f", "\\u007f"))
        return "\n".join(lines) + "\n"
