"""Encoders by name, and tables of encoded networks with a cache on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache as once
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .files import replacing
from .graph import ArchGraph
from .names import look_up, take_name

if TYPE_CHECKING:
    from .gnn import GraphEncoder
    from .language import CompactText

Floats = NDArray[np.float64]


class Encoder(Protocol):
    """Turns graphs into rows of numbers; a pure function of graph, name and version.

    Attributes:
        name: Name in the registry.
        version: Raised whenever a graph's row changes.
        columns: Name of each of the d columns.
        monotone: +1 for columns of which more is never worse (sizes), else 0; (d,).
        sizes: Columns that measure size on a log scale, the two that say most first (see `size_prior`); may be empty.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def monotone(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def sizes(self) -> tuple[str, ...]: ...  # noqa: D102

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph: (n, d) float64, all finite."""
        ...


Factory = TypeVar("Factory", bound=Callable[[], Encoder])
ENCODERS: dict[str, Callable[[], Encoder]] = {}
"""Name → what makes the encoder (a class or a function without arguments)."""
SHIPPED_GRAPH = Path(__file__).parent / "shipped" / "graph.safetensors"
"""Weights of the graph network, made by `benchmarks/pretrain_graph.py`."""
SHIPPED_READINGS = SHIPPED_GRAPH.with_name("graph_readings.safetensors")
"""What reads the statistics off its embedding, made by `benchmarks/pretrain_graph.py --readings`."""
SHIPPED_PROXY_READINGS = SHIPPED_GRAPH.with_name("proxy_readings.safetensors")
"""What reads proxies off structure, made by `benchmarks/pretrain_proxy_readings.py`."""
SHIPPED_TEXT = SHIPPED_GRAPH.with_name("text.safetensors")
"""Weights of the language model, made by `benchmarks/pretrain_text.py`."""


def register_encoder(name: str) -> Callable[[Factory], Factory]:
    """Decorator that enters an encoder's class or factory under `name`.

    Raises:
        ConfigError: The name is taken.
    """

    def enter(factory: Factory) -> Factory:
        take_name(ENCODERS, name, factory, "an encoder")
        return factory

    return enter


def core_of(encoder: Encoder) -> tuple[str, ...]:
    """The columns that mean the same in every space, for models far from what they were trained on.

    An encoder names them in an attribute `core`; one without it has none.
    """
    return tuple(getattr(encoder, "core", ()))


def derived(encoder: Encoder, tables: Mapping[str, Floats]) -> Floats | None:
    """An encoder's rows (n, d) worked out from rows of other encoders that are at hand.

    An encoder that can do so names these in an attribute `sources` and has a method `derive`, which takes their rows
    side by side.

    Args:
        encoder: The encoder.
        tables: Name of an encoder → its rows.

    Returns:
        The rows; None where the encoder works from graphs alone, or a source is missing.
    """
    sources: tuple[str, ...] = getattr(encoder, "sources", ())
    if not sources or any(name not in tables for name in sources):
        return None
    derive: Callable[[Floats], Floats] = encoder.derive  # type: ignore[attr-defined]
    return derive(np.hstack([tables[name] for name in sources]))


def get_encoder(name: str) -> Encoder:
    """The encoder called `name`.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    return look_up(ENCODERS, name, "encoder")()


@register_encoder("statistics")
class StatisticsEncoder:
    """What a graph says by itself; see `statistics`."""

    name = "statistics"

    @property
    def version(self) -> int:
        """Version of the statistics."""
        from .statistics import STATISTICS_VERSION

        return STATISTICS_VERSION

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the statistics."""
        from .statistics import FEATURE_NAMES

        return FEATURE_NAMES

    @property
    def monotone(self) -> tuple[int, ...]:
        """+1 for sizes, of which more is never worse."""
        from .statistics import FEATURES

        return tuple(feature.monotone for feature in FEATURES)

    @property
    def sizes(self) -> tuple[str, ...]:
        """Multiply-accumulates, the analytic NWOT score, channels of rectifiers, entropy."""
        from .statistics import SIZES

        return SIZES

    @property
    def core(self) -> tuple[str, ...]:
        """Sizes, paths and signal propagation."""
        from .statistics import CORE

        return CORE

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row of statistics per graph, (n, d) float64."""
        from .statistics import statistics

        if not graphs:
            return np.empty((0, len(self.columns)))
        return np.stack([statistics(graph) for graph in graphs])


@register_encoder("graph")
class GraphNetworkEncoder:
    """The embedding of the graph network that ships; see `gnn` and `contrastive`."""

    name = "graph"
    columns: tuple[str, ...] = tuple(f"graph_{i}" for i in range(672))
    monotone: tuple[int, ...] = (0,) * 672
    sizes: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """32 bits of the hash of the weights."""
        return _version_of(SHIPPED_GRAPH)

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, 672) float64."""
        return np.round(_graph_network().embed(graphs), _DECIMALS)


@register_encoder("graph_readings")
def _graph_readings() -> Encoder:
    """The statistics as they are read off the graph network's embedding; see `graph_readings`."""
    from .graph_readings import GraphReadingsEncoder

    return GraphReadingsEncoder()


@register_encoder("proxy_readings")
def _proxy_readings() -> Encoder:
    """What random instantiations would tell, as read off structure; see `proxy_readings`."""
    from .proxy_readings import ProxyReadingsEncoder

    return ProxyReadingsEncoder()


_NEURAL_VERSION = 2
"""Raised whenever a row of a neural encoder changes though its weights do not."""
_DECIMALS = 4
"""What is kept of a neural encoder's numbers: how graphs are put into batches changes the sixth decimal."""


def _version_of(*files: Path) -> int:
    content = b"".join(file.read_bytes() for file in files) + bytes([_NEURAL_VERSION])
    return int(sha256(content).hexdigest()[:8], 16)


@once
def _graph_network() -> GraphEncoder:
    from .contrastive import load_encoder

    return load_encoder(SHIPPED_GRAPH)


@once
def _language() -> CompactText:
    from .language import CompactText

    return CompactText.shipped()


@register_encoder("proxies")
def _proxies() -> Encoder:
    """What random instantiations tell; see `proxies`."""
    from .proxies import ProxiesEncoder

    return ProxiesEncoder()


@register_encoder("text")
class TextEncoder:
    """What the language model that ships says about a network's description; see `language`."""

    name = "text"
    columns: tuple[str, ...] = tuple(f"text_{i}" for i in range(172))
    monotone: tuple[int, ...] = (0,) * 172
    sizes: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """32 bits of the hash of the weights and the vocabulary."""
        return _version_of(SHIPPED_TEXT, SHIPPED_TEXT.with_name("tokenizer.json"))

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, 172) float64."""
        return np.round(_language().embed(graphs).vectors, _DECIMALS)


def encode_table(
    graphs: Sequence[ArchGraph],
    encoder: Encoder,
    *,
    hashes: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
    workers: int = 1,
) -> Floats:
    """Encode many graphs, each different one once.

    Args:
        graphs: n graphs; equal ones (by hash) get equal rows.
        encoder: The encoder.
        hashes: The graphs' hashes where they are known, so that graphs found in the cache need not be read.
        cache: Folder that keeps the rows between runs, one file per encoder, version and set of columns, or None. It is
            replaced in one step every few thousand rows, so an interruption loses little and damages nothing.
        progress: Show a progress bar.
        workers: Processes; more than one needs an encoder of the registry.

    Returns:
        (n, d) float64.

    Raises:
        DataError: A graph has been given a row that is not finite or not of d numbers.
    """
    hashes = [graph.hash for graph in graphs] if hashes is None else hashes
    store = None if cache is None else _cache_file(Path(cache), encoder)
    rows = {} if store is None else _read_rows(store)
    missing = {key: i for i, key in enumerate(hashes) if key not in rows}
    unsaved = 0
    for keys, block in _encode(graphs, list(missing.items()), encoder, progress, workers):
        _check(block, keys, encoder)
        rows.update(zip(keys, block, strict=True))
        unsaved += len(keys)
        if store is not None and unsaved >= _SAVE_EVERY:
            _write_rows(store, rows)
            unsaved = 0
    if store is not None and unsaved:
        _write_rows(store, rows)
    table = np.empty((len(hashes), len(encoder.columns)))
    for i, key in enumerate(hashes):
        table[i] = rows[key]
    return table


_BLOCK = 64
_SAVE_EVERY = 4096
_Items = list[tuple[str, int]]
_Block = tuple[tuple[str, ...], Floats]


def _encode(
    graphs: Sequence[ArchGraph], items: _Items, encoder: Encoder, progress: bool, workers: int
) -> Iterator[_Block]:
    blocks = [items[i : i + _BLOCK] for i in range(0, len(items), _BLOCK)]
    if workers > 1 and len(blocks) > 1:
        import joblib

        jobs = (joblib.delayed(_encode_by_name)(encoder.name, [graphs[i] for _, i in block]) for block in blocks)
        tables = joblib.Parallel(min(workers, len(blocks)), backend="loky", return_as="generator")(jobs)
        for block, table in zip(_tracked(blocks, encoder.name, progress), tables, strict=True):
            yield tuple(key for key, _ in block), table
        return
    for block in _tracked(blocks, encoder.name, progress):
        yield tuple(key for key, _ in block), encoder.encode([graphs[i] for _, i in block])


def _encode_by_name(name: str, graphs: list[ArchGraph]) -> Floats:
    return get_encoder(name).encode(graphs)


def _tracked(blocks: list[_Items], name: str, progress: bool) -> Iterator[_Items]:
    if not progress:
        yield from blocks
        return
    from rich.progress import track

    yield from track(blocks, description=f"{name} ({sum(map(len, blocks))} networks)")


def _check(block: Floats, keys: tuple[str, ...], encoder: Encoder) -> None:
    expected = (len(keys), len(encoder.columns))
    if block.shape != expected:
        raise DataError(f"encoder {encoder.name!r} gave a table of shape {block.shape}, expected {expected}")
    if not np.isfinite(block).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(block))[0])
        raise DataError(
            f"encoder {encoder.name!r} gave {block[row, column]} in column {encoder.columns[column]!r} "
            f"for the graph {keys[row][:12]}, expected a finite number: please report this network"
        )


def _cache_file(folder: Path, encoder: Encoder) -> Path:
    columns = sha256("\n".join(encoder.columns).encode()).hexdigest()[:12]
    return folder / "encodings" / f"{encoder.name}-v{encoder.version}-{columns}.npz"


_KEPT: dict[Path, tuple[tuple[int, int], dict[str, Floats]]] = {}
"""Rows of the cache files read last, with the time and size of the file they were read from."""


def _read_rows(file: Path) -> dict[str, Floats]:
    if not file.exists():
        return {}
    state = file.stat()
    stamp = (state.st_mtime_ns, state.st_size)
    if file not in _KEPT or _KEPT[file][0] != stamp:
        _KEPT[file] = (stamp, _load_rows(file))
    return dict(_KEPT[file][1])


def _load_rows(file: Path) -> dict[str, Floats]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            keys, table = stored["keys"], stored["table"]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return {}  # a damaged cache is only a slow one: it is written anew
    return {key.decode(): row for key, row in zip(keys, table, strict=True)}


def _write_rows(file: Path, rows: dict[str, Floats]) -> None:
    everything = {**_read_rows(file), **rows}  # another process may have added rows meanwhile
    keys = sorted(everything)
    with replacing(file) as stream:
        np.savez(stream, keys=np.array(keys, dtype="S64"), table=np.stack([everything[key] for key in keys]))
