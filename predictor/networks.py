"""What can be scored: files, models, modules, names, graphs or a benchmark, as graphs with names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..datasets.benchmark import Benchmark
from ..encoders.errors import ArchGaugeError, ConfigError
from ..encoders.graph import ArchGraph
from ..encoders.model_names import is_name
from ..encoders.reading import Shapes, is_module, read

if TYPE_CHECKING:
    import onnx
    import torch

Network: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto | torch.nn.Module | ArchGraph"
Networks: TypeAlias = "Network | Iterable[Network] | Benchmark"
OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Item:
    """One network.

    Attributes:
        name: File name, model name, name in its benchmark, or the beginning of its hash.
        graph: The network; None if it cannot be read.
        error: Why not.
    """

    name: str
    graph: ArchGraph | None
    error: str | None = None


def gather(networks: Networks, on_error: OnError, input_shapes: Shapes | None) -> list[Item]:
    """Read networks, in their order.

    Args:
        networks: One network, several, or a benchmark.
        on_error: `raise` the first error, or `skip`: what cannot be read keeps its place without a graph.
        input_shapes: As for `read`, for all networks.

    Raises:
        ConfigError: `on_error` is neither.
        ReadError: A network cannot be read and `on_error` is `raise`.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
    if isinstance(networks, Benchmark):
        return [Item(name, graph) for name, graph in zip(networks.names, networks.graphs, strict=True)]
    single = isinstance(networks, str | os.PathLike | bytes | ArchGraph) or is_module(networks)
    if single or not isinstance(networks, Iterable):
        networks = [networks]  # type: ignore[list-item]

    items = []
    for position, network in enumerate(networks):
        if isinstance(network, ArchGraph):
            items.append(Item(network.hash[:12], network))
            continue
        name = ""
        if isinstance(network, str | os.PathLike):
            name = str(network) if is_name(network) else Path(network).name
        try:
            graph = read(network, input_shapes=input_shapes)
            items.append(Item(name or graph.hash[:12], graph))
        except (ArchGaugeError, OSError) as error:
            if on_error == "raise":
                raise
            items.append(Item(name or f"network {position}", None, str(error)))
    return items
