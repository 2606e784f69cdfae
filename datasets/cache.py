"""Processed graphs on disk. A cached file's name is a hash of all that it was made from, so it is never out of date."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ..encoders.errors import ArchGaugeError, ConfigError, DataError
from ..encoders.graph import GRAPH_VERSION, ArchGraph
from .download import locked
from .graph_store import STORE_VERSION, GraphStore

CHUNK = 1_000
"""Networks that are saved together while a cache is built; what an interruption can cost."""

_PACKAGE = __name__.split(".")[0]
_PARSING = threading.Lock()
"""`ast.parse` fails in Python 3.11 when two threads are in it (SystemError: recursion depth mismatch)."""


def default_cache_dir() -> Path:
    """Folder of everything that can be made again: `ARCHGAUGE_CACHE`, or `archgauge` in the user's cache folder."""
    named = os.environ.get("ARCHGAUGE_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "archgauge"


def cached_graphs(
    benchmark: str,
    task: str,
    specs: Sequence[str],
    *,
    module: str,
    space: str = "",
    chosen: Sequence[int] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
) -> GraphStore:
    """Graphs of a benchmark's networks, from the cache or built and put there.

    Every spec goes the way of any network: the space's builder writes an ONNX model, the reader reads it. Chunks of
    `CHUNK` networks are saved as they are built, so an interrupted build goes on where it stopped. A second process
    that wants the same graphs waits for the first.

    Args:
        benchmark: Name of the benchmark.
        task: Task; it decides input size and number of classes.
        specs: All networks of the benchmark in the language of its builder.
        module: Module of `archgauge.datasets` that has the builder.
        space: Space inside the module, if it holds several.
        chosen: Positions in `specs` to build; None for all. Taken out of the cache of all, if there is one.
        cache: Cache folder; default `default_cache_dir()`.
        progress: Show a bar on stderr; None: if stderr is a terminal.
        workers: Processes that build; default 2, or 1 on a computer with one core.

    Returns:
        The graphs of `specs` (or of those chosen), in order.

    Raises:
        DataError: A network could not be built; the message names its spec.
        ConfigError: `workers` is below 1.
    """
    folder = Path(cache if cache is not None else default_cache_dir()) / "graphs"
    sources = source_hashes(f"{_PACKAGE}.datasets.{module}", f"{_PACKAGE}.encoders.onnx_reader")
    stem = f"{benchmark.replace('/', '-')}-{task}"

    def file_of(wanted: Sequence[str]) -> Path:
        content = json.dumps(
            [GRAPH_VERSION, STORE_VERSION, _onnx_version(), sources, module, space, task, list(wanted)]
        )
        return folder / f"{stem}-{hashlib.sha256(content.encode()).hexdigest()[:20]}.safetensors"

    whole = file_of(specs)
    if chosen is not None and whole.exists():
        return GraphStore.load(whole).select(chosen)
    wanted = list(specs) if chosen is None else [specs[at] for at in chosen]
    target = file_of(wanted)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not target.exists():
                _build_all(target, wanted, module, space, task, progress, workers)
    return GraphStore.load(target)


def builder(module: str, space: str = "") -> Any:
    """What offers TASKS, build, read_labels and sample: the module, or that space in its `SPACES`, if it holds several.

    Raises:
        ConfigError: The module has no such space.
    """
    found: Any = importlib.import_module(f".{module}", __package__)
    spaces = getattr(found, "SPACES", None)
    if spaces is None:
        return found
    if space not in spaces:
        raise ConfigError(f"{module} has no space {space!r}; it has {', '.join(spaces)}")
    return spaces[space]


def source_hashes(*modules: str) -> dict[str, str]:
    """SHA-256 of the source of `modules` and of every module of this package that they import, directly or not."""
    hashes: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in hashes:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin).read_bytes()
        hashes[name] = hashlib.sha256(source).hexdigest()
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        with _PARSING:
            waiting += _imports(source, package)
    return dict(sorted(hashes.items()))


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Modules of this package that the source of a module in `package` imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.split(".")[0] == _PACKAGE:
                names = [f"{base}.{alias.name}" for alias in node.names]
                found += [name if _is_module(name) else base for name in names]
    return tuple(name for name in found if name.split(".")[0] == _PACKAGE)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _onnx_version() -> str:
    from importlib.metadata import version

    return version("onnx")


def _build_all(
    target: Path, specs: list[str], module: str, space: str, task: str, progress: bool | None, workers: int | None
) -> None:
    parts = target.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    chunks = [
        (parts / f"{start:08d}.safetensors", specs[start : start + CHUNK]) for start in range(0, len(specs), CHUNK)
    ]
    missing = [(path, chunk) for path, chunk in chunks if not path.exists()]
    processes = min(len(missing), workers if workers is not None else min(2, os.cpu_count() or 1))
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, expected 1 or more")
    jobs = [(path, chunk, module, space, task) for path, chunk in missing]
    done = len(specs) - sum(len(chunk) for _, chunk in missing)
    with _bar(f"{target.name.rpartition('-')[0]}: building graphs", len(specs), progress) as advance:
        advance(done)
        if processes <= 1:
            for job in jobs:
                _build_chunk(*job, advance)
        else:
            # loky starts fresh interpreters without running the caller's script again, so a script needs no main guard.
            import joblib

            parallel = joblib.Parallel(n_jobs=processes, backend="loky", return_as="generator_unordered")
            for count in parallel(joblib.delayed(_build_chunk)(*job) for job in jobs):
                advance(count)
    GraphStore.concat([GraphStore.load(path) for path, _ in chunks]).save(target)
    shutil.rmtree(parts, ignore_errors=True)


def _build_chunk(
    path: Path, specs: list[str], module: str, space: str, task: str, advance: Callable[[int], None] | None = None
) -> int:
    """Builds and saves the graphs of `specs`; runs in its own process, or here if `advance` takes each network."""
    source = builder(module, space)

    def graphs() -> Iterator[ArchGraph]:
        for spec in specs:
            yield _graph(source, spec, task)
            if advance is not None:
                advance(1)

    GraphStore.from_graphs(graphs()).save(path)
    return len(specs)


def _graph(source: Any, spec: str, task: str) -> ArchGraph:
    from ..encoders import onnx_reader

    try:
        return onnx_reader.read(source.build(spec, task))
    except ArchGaugeError as error:
        raise DataError(f"the network {spec!r} (task {task!r}) cannot be built: {error}") from error


@contextmanager
def _bar(text: str, total: int, progress: bool | None) -> Iterator[Callable[[int], None]]:
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(text, total=total)
        yield lambda count: bar.advance(task, count)
