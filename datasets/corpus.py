"""Networks without labels, drawn from every space: what encoders are pretrained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..encoders.errors import ConfigError
from .cache import builder, cached_graphs
from .graph_store import GraphStore
from .registry import BenchmarkRecord, benchmark_record, list_benchmarks


@dataclass(frozen=True)
class Drawn:
    """Networks drawn from one space.

    Attributes:
        relatives: Spaces of the same value are left out together.
        task: Task whose input size and number of classes the networks have.
        specs: (n,) specs, in the notation of the space.
        graphs: (n,) graphs.
    """

    relatives: str
    task: str
    specs: tuple[str, ...]
    graphs: GraphStore


def can_draw(record: BenchmarkRecord) -> bool:
    """Whether networks of the space can be drawn; those of a zoo, say, cannot."""
    return callable(getattr(builder(record.module, record.space), "sample", None)) if record.module else False


def draw_corpus(
    per_space: int,
    *,
    seed: int = 0,
    spaces: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    workers: int | None = None,
) -> Mapping[str, Drawn]:
    """Draws networks from every space by its definition; no label is looked at, and no file of a benchmark is needed.

    Args:
        per_space: Networks of each space; all, where a space has fewer.
        seed: Seed of the draws.
        spaces: Names as in `list_benchmarks`; default: every space that networks can be drawn from, once where several
            benchmarks share a space.
        cache: Cache folder; see `load_benchmark`.
        progress: Show bars on stderr; None: if stderr is a terminal.
        workers: Processes that build graphs; default 2.

    Returns:
        Name of the space → networks drawn, in the order of `spaces`.

    Raises:
        ConfigError: There is no such space, or none that networks can be drawn from.
        DataError: A network could not be built.
    """
    records = different_spaces() if spaces is None else [benchmark_record(name) for name in spaces]
    drawn = {}
    for record in records:
        if not can_draw(record):
            raise ConfigError(f"{record.name}: networks of it cannot be drawn, choose a space that has a definition")
        task = record.tasks[0].name
        space = builder(record.module, record.space)
        specs = space.sample(min(per_space, space.SIZE), seed)
        graphs = cached_graphs(
            f"{record.name}-drawn",
            task,
            specs,
            module=record.module,
            space=record.space,
            cache=cache,
            progress=progress,
            workers=workers,
        )
        drawn[record.name] = Drawn(record.relatives, task, tuple(specs), graphs)
    return drawn


def different_spaces() -> list[BenchmarkRecord]:
    """Every record that networks can be drawn from; of those that share samples and builder the first."""
    first: dict[tuple[object, object, str], BenchmarkRecord] = {}
    for record in filter(can_draw, list_benchmarks()):
        space = builder(record.module, record.space)
        first.setdefault((space.sample, space.build, record.tasks[0].name), record)
    return list(first.values())
