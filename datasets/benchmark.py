"""`Benchmark`: networks with measured accuracies, and the ways to split them without leaks."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..encoders import onnx_reader
from ..encoders.errors import ArchGaugeError, ConfigError, DataError
from ..encoders.files import replacing
from ..encoders.graph import ArchGraph
from ..encoders.names import perhaps
from . import parquet, picture
from .graph_store import GraphStore, as_indices

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A space with labels: n networks and what each one reached on one task.

    Args:
        name: Name of the benchmark, such as `nas_bench_201` or `transnas_bench_101/micro`.
        task: Data set the labels were measured on, such as `cifar10`.
        graphs: The n networks; a `GraphStore` or any sequence.
        accuracy: Shape (n,), percent (0 to 100), or what `unit` says; larger is better.
        names: n different names.
        groups: Group (family) of every network, for splits by group. Default: the graph's hash, so that duplicates
            form a group.
        relatives: Spaces of the same value are left out together. Default: `name` up to its `/`.
        label: The label budget in words.
        licence: Under what terms the labels were published.
        skipped: (name, reason) of the rows that were left out while reading.
        unit: Unit of the labels. Any but "percent", such as "minus nats per word", teaches and measures ranks only.
        side: Further numbers of every network by name, each of shape (n,), NaN where there is none; what the name says,
            such as `edgegpu_latency_ms`. Nothing is learned from them.
        epochs: Training epochs behind the labels; None if that is unknown, not the same for all networks, or if they
            were not trained on their own (weights of a supernet).

    Raises:
        DataError: Lengths differ, a label is not a number from 0 to 100, a name occurs twice, there is no network, or
            `epochs` is no finite number above 0.
    """

    name: str
    task: str
    graphs: Sequence[ArchGraph]
    accuracy: Floats
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    relatives: str = ""
    label: str = ""
    licence: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    unit: str = "percent"
    side: Mapping[str, Floats] = field(default_factory=dict)
    epochs: float | None = None

    def __post_init__(self) -> None:
        where = f"benchmark {self.name!r}, task {self.task!r}"
        try:
            accuracy = np.array(self.accuracy, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: accuracy must be numbers in percent ({error})") from error
        graphs = self.graphs if isinstance(self.graphs, GraphStore) else tuple(self.graphs)
        names, groups = tuple(self.names), tuple(self.groups)
        if accuracy.shape != (len(graphs),) or len(names) != len(graphs) or len(groups) not in (0, len(graphs)):
            raise DataError(
                f"{where}: expected one accuracy, name and group for each of {len(graphs)} graphs, got accuracy of "
                f"shape {accuracy.shape}, {len(names)} names and {len(groups)} groups"
            )
        if not len(graphs):
            raise DataError(f"{where}: holds no network")
        percent = self.unit == "percent"
        fine = (accuracy >= 0) & (accuracy <= 100) if percent else np.isfinite(accuracy)
        bad = np.flatnonzero(~fine)
        if bad.size:
            raise DataError(
                f"{where}: {names[bad[0]]!r} (number {bad[0]}) has the accuracy {accuracy[bad[0]]}, expected "
                f"{'percent from 0 to 100' if percent else self.unit}; {bad.size} of {len(graphs)} labels are wrong"
            )
        if len(set(names)) != len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise DataError(f"{where}: the name {twice!r} occurs twice, expected different names")
        side = {name: np.array(values, dtype=np.float64) for name, values in self.side.items()}
        for name, values in side.items():
            if values.shape != accuracy.shape:
                raise DataError(
                    f"{where}: the side numbers {name!r} have shape {values.shape}, expected {accuracy.shape}"
                )
            values.setflags(write=False)
        if self.epochs is not None:
            object.__setattr__(self, "epochs", _epochs(self.epochs, where))
        accuracy.setflags(write=False)
        object.__setattr__(self, "side", side)
        object.__setattr__(self, "graphs", graphs)
        object.__setattr__(self, "accuracy", accuracy)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "groups", groups or self.hashes)
        object.__setattr__(self, "relatives", self.relatives or self.name.split("/")[0])

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        low, high = self.accuracy.min(), self.accuracy.max()
        labels = (
            f"accuracy {low:.2f} to {high:.2f} %" if self.unit == "percent" else f"{low:.2f} to {high:.2f} {self.unit}"
        )
        return f"Benchmark({self.name}:{self.task}, {len(self):,} networks, {labels})"

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """Hash of every graph; equal ones are the same network."""
        return self.graphs.hashes if isinstance(self.graphs, GraphStore) else tuple(graph.hash for graph in self.graphs)

    def select(self, indices: Iterable[int] | npt.NDArray[Any]) -> Benchmark:
        """The networks at `indices` (positions, or a mask of n booleans), in that order.

        Raises:
            IndexError: A position is out of range.
            DataError: No network is left, or one is chosen twice.
        """
        chosen = as_indices(indices, len(self))
        positions = chosen.tolist()
        graphs = self.graphs
        return replace(
            self,
            graphs=graphs.select(chosen) if isinstance(graphs, GraphStore) else tuple(graphs[at] for at in positions),
            accuracy=self.accuracy[chosen],
            names=tuple(self.names[at] for at in positions),
            groups=tuple(self.groups[at] for at in positions),
            side={name: values[chosen] for name, values in self.side.items()},
        )

    def split(
        self, n_train: int, seed: int = 0, by: Literal["network", "group"] = "network"
    ) -> tuple[Benchmark, Benchmark]:
        """Splits at random into `n_train` networks to learn from and the rest.

        The same network (graph hash) never stands on both sides: duplicates of a training network are removed from the
        rest. With one seed, a smaller training part is contained in a larger one.

        Args:
            n_train: Networks in the training part, 1 to n - 1.
            seed: Seed of the shuffle.
            by: `network` draws single networks. `group` draws whole groups until there are enough; what the last group
                has too much is left out of both parts, so no group stands on both sides.

        Returns:
            The training part and the rest, each in this benchmark's order.

        Raises:
            DataError: `n_train` is out of range, or nothing is left for the rest.
            ConfigError: `by` is neither `network` nor `group`.
        """
        if not 1 <= n_train < len(self):
            raise DataError(
                f"n_train is {n_train}, expected 1 to {len(self) - 1} for the {len(self)} networks of {self.name!r}"
            )
        if seed < 0:
            raise ConfigError(f"seed is {seed}, expected 0 or more")
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        if by == "network":
            train = rng.permutation(len(self))[:n_train]
            taken = np.zeros(len(self), dtype=bool)
            taken[train] = True
        elif by == "group":
            members = _members(self.groups)
            order = [members[at] for at in rng.permutation(len(members))]
            sizes = np.cumsum([len(part) for part in order])
            drawn = np.concatenate(order[: int(np.searchsorted(sizes, n_train)) + 1])
            train = drawn[:n_train]
            taken = np.zeros(len(self), dtype=bool)
            taken[drawn] = True
        else:
            raise ConfigError(f"by is {by!r}, expected 'network' or 'group'")
        seen = {self.hashes[at] for at in train.tolist()}
        rest = [at for at in np.flatnonzero(~taken).tolist() if self.hashes[at] not in seen]
        if not rest:
            raise DataError(
                f"splitting {n_train} of {len(self)} networks of {self.name!r} by {by} leaves none for the rest: "
                "all others share a group or a graph with them; take fewer"
            )
        return self.select(np.sort(train)), self.select(rest)

    def group_folds(self, n_folds: int | None = None, seed: int = 0) -> list[tuple[Benchmark, Benchmark]]:
        """Cross-validation that keeps every group on one side.

        Networks of the training part whose graph occurs in the test part are removed from the training part.

        Args:
            n_folds: Number of folds, from 2 to the number of groups; None leaves out one group at a time.
            seed: Seed of the assignment of groups to folds; the folds are about equally large.

        Returns:
            (training part, test part) of every fold.

        Raises:
            DataError: There are fewer groups than folds, or a training part would be empty.
        """
        members = _members(self.groups)
        count = len(members) if n_folds is None else n_folds
        if not 2 <= count <= len(members):
            raise DataError(f"{count} folds of {self.name!r}, expected 2 to {len(members)}, its number of groups")
        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(members)).tolist()
        order.sort(key=lambda at: -len(members[at]))
        folds: list[list[Indices]] = [[] for _ in range(count)]
        sizes = [0] * count
        for at in order:
            smallest = sizes.index(min(sizes))
            folds[smallest].append(members[at])
            sizes[smallest] += len(members[at])
        return [self._held_out(np.sort(np.concatenate(fold))) for fold in folds]

    def _held_out(self, test: Indices) -> tuple[Benchmark, Benchmark]:
        held = {self.hashes[at] for at in test.tolist()}
        outside = np.ones(len(self), dtype=bool)
        outside[test] = False
        train = [at for at in np.flatnonzero(outside).tolist() if self.hashes[at] not in held]
        if not train:
            raise DataError(f"a fold of {self.name!r} leaves nothing to train on: all graphs occur in its test part")
        return self.select(train), self.select(test)

    def distinct(self) -> Benchmark:
        """Every graph once: accuracy is the mean over its duplicates, name, group and side are those of the first."""
        first: dict[str, int] = {}
        number = np.array([first.setdefault(value, len(first)) for value in self.hashes])
        mean = np.bincount(number, weights=self.accuracy) / np.bincount(number)
        chosen = np.unique(number, return_index=True)[1]
        return replace(self.select(chosen), accuracy=np.clip(mean, 0, 100) if self.unit == "percent" else mean)

    def summary(self) -> dict[str, Any]:
        """Numbers that describe the benchmark, ready for JSON.

        Keys: name, task, label, epochs, licence, n (networks), distinct (different graphs), groups, skipped, accuracy
        (minimum, quartiles and maximum, percent), params and macs (medians, counts).
        """
        return {
            "name": self.name,
            "task": self.task,
            "label": self.label,
            "epochs": self.epochs,
            "licence": self.licence,
            "n": len(self),
            "distinct": len(set(self.hashes)),
            "groups": len(set(self.groups)),
            "skipped": len(self.skipped),
            "accuracy": [float(value) for value in np.quantile(self.accuracy, (0, 0.25, 0.5, 0.75, 1))],
            "params": float(np.median(self.params)),
            "macs": float(np.median([graph.macs for graph in self.graphs])),
        }

    @property
    def params(self) -> npt.NDArray[np.int64]:
        """Parameters of every network, shape (n,)."""
        if isinstance(self.graphs, GraphStore):
            return self.graphs.params
        return np.array([graph.params for graph in self.graphs], dtype=np.int64)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes name, accuracy (percent), group, hash and params of every network; `from_csv` reads it back.

        The graphs themselves are not in it; `to_parquet` writes those too.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", "accuracy", "group", "hash", "params"))
        accuracy = (repr(value) for value in self.accuracy.tolist())
        writer.writerows(zip(self.names, accuracy, self.groups, self.hashes, self.params.tolist(), strict=True))
        with replacing(Path(path)) as file:
            file.write(text.getvalue().encode())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes everything, and `from_parquet` gives the same benchmark back.

        The table at `path` has one row per network: name, accuracy, group, hash, params, macs and side numbers
        (`side.<name>`); what holds for all of them stands in its metadata. The graphs go to a file beside it, which
        ends in `.graphs.safetensors`: keep the two together.

        Raises:
            ConfigError: The package pyarrow is missing.
            OutputError: A file cannot be written.
        """
        parquet.write(self, path)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> Benchmark:
        """Reads the table that `to_parquet` wrote, and the graphs beside it; they stay on disk until they are used.

        Raises:
            ConfigError: The package pyarrow is missing.
            DataError: A file is missing or damaged, or the two do not belong together.
        """
        return cls(**parquet.read(path))

    def histogram(self, path: str | os.PathLike[str], bins: int = 50) -> None:
        """Draws a PNG picture: how many networks reach which accuracy, and accuracy against parameters beside it.

        Raises:
            ConfigError: The package matplotlib is missing, or `bins` is below 1.
            OutputError: The file cannot be written.
        """
        picture.histogram(self, path, bins)

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        onnx_dir: str | os.PathLike[str],
        accuracy: str = "accuracy",
        name: str = "name",
        group: str | None = None,
        unit: Literal["percent", "fraction"] = "percent",
        task: str = "custom",
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        epochs: float | None = None,
    ) -> Benchmark:
        """Reads labels from a table, and the networks they belong to from ONNX files (weights are not needed).

        Args:
            path: Comma-separated table with a header line, UTF-8, plain or `.gz`.
            onnx_dir: Folder that holds the networks; files outside are never opened.
            accuracy: Column of the labels.
            name: Column of the model files' paths below `onnx_dir`, with or without `.onnx`.
            group: Column of the groups (families). Default: `group` or `family`, if there is such a column.
            unit: `percent` (0 to 100) or `fraction` (0 to 1) for the labels in the file.
            task: Data set the labels were measured on.
            input_shapes: Shapes for inputs that the files leave open, as for `read`.
            on_error: `raise`, or `skip` to leave out rows with a bad label or a bad file and list them in `skipped`.
            epochs: Training epochs behind the labels, see `Benchmark`.

        Returns:
            The benchmark; its name is that of the file without its ending.

        Raises:
            DataError: The table, a label or a network is missing or wrong; the message names the file and the line. Or
                `epochs` is no finite number above 0.
            ConfigError: `unit` or `on_error` has a value that does not exist.
        """
        path, folder = Path(path), Path(onnx_dir)
        _check_choice("unit", unit, ("percent", "fraction"))
        _check_choice("on_error", on_error, ("raise", "skip"))
        if not folder.is_dir():
            raise DataError(f"{folder}: the folder of the networks (onnx_dir) does not exist")
        header, rows = _table(path)
        group = group or next((column for column in ("group", "family") if column in header), None)
        for wanted in filter(None, (name, accuracy, group)):
            if wanted not in header:
                raise DataError(f"{path}: has no column {wanted!r}; it has {', '.join(map(repr, header))}")

        skipped: list[tuple[str, str]] = []

        def problem(line: int, model: str, reason: str, cause: BaseException | None = None) -> None:
            if on_error == "raise":
                raise DataError(f"{path}, line {line}, {model!r}: {reason}") from cause
            skipped.append((model, f"line {line}: {reason}"))

        labelled: list[tuple[int, str, float, str]] = []
        lines: dict[str, int] = {}
        for line, row in rows:
            model = (row[name] or "").strip()
            value, reason = _number(row[accuracy])
            if not model:
                reason = f"the column {name!r} is empty, expected a model's file name"
            elif model in lines:
                reason = f"the name occurs twice, first in line {lines[model]}; expected one row per network"
            if reason:
                problem(line, model, reason)
                continue
            lines[model] = line
            labelled.append((line, model, value, (row[group] or "").strip() if group else ""))
        labelled = list(_in_percent(labelled, unit, path, problem))

        kept: list[tuple[str, float, str]] = []

        def graphs() -> Iterator[ArchGraph]:
            for line, model, value, family in labelled:
                file, reason = _model_file(folder, model)
                if file is None:
                    problem(line, model, reason)
                    continue
                try:
                    graph = onnx_reader.read(file, input_shapes=input_shapes)
                except (ArchGaugeError, OSError) as error:
                    problem(line, model, str(error), error)
                    continue
                except Exception as error:
                    # One file must not cost the user the other ten thousand; the reason is kept for them to see.
                    if on_error == "raise":
                        raise
                    problem(line, model, f"{type(error).__name__}: {error}")
                    continue
                kept.append((model, value, family or graph.hash))
                yield graph

        store = GraphStore.from_graphs(graphs())
        if not kept:
            first = f"; the first: {skipped[0][0]!r}, {skipped[0][1]}" if skipped else ""
            raise DataError(f"{path}: no network is left, {len(skipped)} rows were skipped{first}")
        return cls(
            name=path.name.removesuffix(".gz").removesuffix(".csv"),
            task=task,
            graphs=store,
            accuracy=np.array([value for _, value, _ in kept]),
            names=tuple(model for model, _, _ in kept),
            groups=tuple(family for _, _, family in kept),
            skipped=tuple(skipped),
            epochs=epochs,
        )

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str], *, labels: str = "labels.csv", **options: Any) -> Benchmark:
        """Reads a folder that holds both the ONNX files and the table of their labels.

        Args:
            folder: The folder; it gives the benchmark its name.
            labels: File name of the table inside it.
            options: As for `from_csv`.

        Raises:
            DataError: As for `from_csv`.
        """
        folder = Path(folder)
        return replace(
            cls.from_csv(folder / labels, onnx_dir=folder, **options), name=folder.resolve().name, relatives=""
        )


def leave_space_out(benchmarks: Iterable[Benchmark], target: str) -> tuple[list[Benchmark], Benchmark]:
    """Splits benchmarks into those to train on and the one to test on, so that nothing of the target is seen.

    The target's relatives (the same space on other tasks included) are dropped from the training list, and so is every
    network whose graph occurs in the target.

    Args:
        benchmarks: The target and others.
        target: Name of the target, as `name` or `name:task`.

    Returns:
        The benchmarks to train on, in their order, and the target.

    Raises:
        ConfigError: No benchmark, or more than one, has that name.
        DataError: Nothing is left to train on.
    """
    benchmarks = list(benchmarks)
    full = [f"{benchmark.name}:{benchmark.task}" for benchmark in benchmarks]
    found = [b for b, text in zip(benchmarks, full, strict=True) if target in (b.name, text)]
    if not found:
        near = difflib.get_close_matches(target, {*full, *(b.name for b in benchmarks)}, n=3)
        raise ConfigError(f"no benchmark is called {target!r}{perhaps(near)}; there are {', '.join(full) or 'none'}")
    if len(found) > 1:
        raise ConfigError(
            f"{target!r} names {len(found)} benchmarks, expected one: "
            f"{', '.join(f'{b.name}:{b.task}' for b in found)}; name the task too"
        )
    held = found[0]
    hashes = set(held.hashes)
    train = []
    for benchmark in benchmarks:
        if benchmark.relatives == held.relatives or benchmark.name == held.name:
            continue
        kept = [at for at, value in enumerate(benchmark.hashes) if value not in hashes]
        if kept:
            train.append(benchmark if len(kept) == len(benchmark) else benchmark.select(kept))
    if not train:
        raise DataError(f"without {target!r} and its relatives ({held.relatives!r}) there is nothing left to train on")
    return train, held


def _epochs(value: object, where: str) -> float:
    try:
        epochs = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        epochs = math.nan
    if not 0 < epochs < math.inf:
        raise DataError(f"{where}: epochs is {value!r}, expected a finite number above 0, or None")
    return epochs


def _members(groups: Sequence[str]) -> list[Indices]:
    """Positions of every group's networks, groups in order of first occurrence."""
    members: dict[str, list[int]] = {}
    for at, group in enumerate(groups):
        members.setdefault(group, []).append(at)
    return [np.array(part, dtype=np.int64) for part in members.values()]


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}, expected {' or '.join(map(repr, choices))}")


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """Columns of a CSV file, and (line number, row) of its rows."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: the table of labels does not exist") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable table, expected CSV in UTF-8 ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a table ({error})") from error
    if not rows:
        raise DataError(f"{path}: the table has no rows, expected a header line and one row per network")
    return header, rows


def _number(text: str | None) -> tuple[float, str]:
    """The number in a cell, and what is wrong with it (empty if nothing)."""
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan, f"the label is {text!r}, expected a number"
    if not text:
        return value, "the label is empty, expected a number"
    return value, "" if math.isfinite(value) else f"the label is {text!r}, expected a finite number"


def _in_percent(
    rows: list[tuple[int, str, float, str]], unit: str, path: Path, problem: Any
) -> Iterator[tuple[int, str, float, str]]:
    high = max((value for _, _, value, _ in rows), default=0.0)
    if unit == "percent" and 0 < high <= 1:
        raise DataError(
            f"{path}: unit is 'percent' but no label is above {high:g}, so they look like fractions: "
            "pass unit='fraction'"
        )
    if unit == "fraction" and high > 1 and sum(value > 1 for _, _, value, _ in rows) > len(rows) / 2:
        raise DataError(
            f"{path}: unit is 'fraction' but most labels are above 1 (the highest is {high:g}), so they look like "
            "percent: pass unit='percent'"
        )
    limit = 100 if unit == "percent" else 1
    for line, model, value, family in rows:
        if not 0 <= value <= limit:
            problem(line, model, f"the label is {value:g}, expected 0 to {limit} for unit {unit!r}")
        else:
            yield line, model, value * (100 / limit), family


def _model_file(folder: Path, model: str) -> tuple[Path | None, str]:
    """The file of a model below `folder`, or None and what is wrong."""
    candidates = [folder / model] + ([] if model.endswith(".onnx") else [folder / f"{model}.onnx"])
    try:
        for candidate in candidates:
            if not candidate.resolve().is_relative_to(folder.resolve()):
                return None, f"the file lies outside of {folder}, expected a path below that folder"
        for candidate in candidates:
            if candidate.is_file():
                return candidate, ""
    except (OSError, ValueError) as error:
        return None, f"not a file name ({error})"
    return None, f"no such file in {folder}, expected {' or '.join(repr(c.name) for c in candidates)}"
