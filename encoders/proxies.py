"""Training-free proxies: what random instantiations of a network tell, beyond its structure.

They are extra evidence, used only when asked for (`Predictor(evidence=("proxies",))`): a network is run on noise with
random weights, forwards and backwards, in some tens of milliseconds, on an input smaller than its own where its shapes
allow it. A network that cannot be run says why and gets no values; nothing is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, log1p, nan, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .executable import Executable, UnfitError
from .graph import ArchGraph, Node
from .operators import Kind, kind_of

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

PROXIES_VERSION = 1
"""Raised whenever a value changes."""
PROXY_NAMES = ("naswot", "jacobian", "expressivity")
"""Proxies, in the order of `Proxies.values`."""
BATCH = 16
"""Inputs in a batch."""
MOST_MACS = 20e9
"""Most multiply-accumulates of a batch; a network that takes more is not run."""
MOST_PARAMS = 200e6
"""Most weights to draw."""
_GATES = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Clip", "Shrink"})


@dataclass(frozen=True)
class Proxies:
    """Proxies of one network.

    Attributes:
        values: One per `PROXY_NAMES`, larger meaning better according to their authors; `nan` where unknown.
        reason: Why there are none, or "".
        shape: Shape of the input it was run on.
    """

    values: tuple[float, ...]
    reason: str
    shape: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> float:
        return self.values[PROXY_NAMES.index(name)]


def proxies(graph: ArchGraph, seed: int = 0) -> Proxies:
    """Runs a random instantiation of a network.

    - `naswot`: log-determinant of the kernel of agreements between the inputs' activation patterns, over all
      activations that switch (Mellor et al. 2021, sec. 3.2).
    - `jacobian`: -Σ (log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlations between the inputs'
      gradients, k = 10⁻⁵ (Mellor et al. 2020, sec. 3.1), on a log scale.
    - `expressivity`: entropy of the shares of the principal components of the last signal of every resolution, summed
      (Lee and Ham 2024, sec. 3.1).

    Args:
        graph: The network.
        seed: Seed of weights and inputs.

    Returns:
        The values, or why there are none.
    """
    reason = ""
    for shapes in _input_shapes(graph):
        own = (node.shape for node in graph.nodes if node.op == "Input")
        shares = [prod(shape[2:]) / max(1, prod(full[2:])) for shape, full in zip(shapes, own, strict=True)]
        macs = graph.macs * max(shares) * BATCH
        if macs > MOST_MACS or graph.params > MOST_PARAMS:
            reason = reason or f"{macs:.2g} multiply-accumulates and {graph.params:,} weights"
            continue
        try:
            with _one_thread():
                values = _measure(graph, shapes, seed)
        except UnfitError as error:
            reason = str(error)
            continue
        except (RuntimeError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        if all(map(isfinite, values)):
            return Proxies(values, "", shapes[0] if shapes else ())
        reason = f"not finite: {', '.join(n for n, v in zip(PROXY_NAMES, values, strict=True) if not isfinite(v))}"
    return Proxies((nan,) * len(PROXY_NAMES), reason or "the network has no input")


class ProxiesEncoder:
    """Encoder: `proxies` of every graph, compressed, and whether they are missing (then the others are 0)."""

    name = "proxies"
    version = PROXIES_VERSION
    columns = (*PROXY_NAMES, "proxies_missing")
    monotone = (0,) * len(columns)
    sizes = ("naswot",)

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, d) float64."""
        rows = [proxies(graph) for graph in graphs]
        table = [[0.0] * len(PROXY_NAMES) + [1.0] if row.reason else [*row.values, 0.0] for row in rows]
        return np.array(table, np.float64).reshape(len(rows), len(self.columns))


def _input_shapes(graph: ArchGraph) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the inputs to try: images made smaller, then as they are."""
    own = [node.shape for node in graph.nodes if node.op == "Input"]
    if not own:
        return
    small = [_smaller(shape) for shape in own]
    if small != own:
        yield small
    yield own


SIDES = ((64, 16), (10**9, 32))
"""Images up to the first number of pixels a side are run with the second."""


def _smaller(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 4 or shape[2] != shape[3]:
        return shape
    side = next(side for limit, side in SIDES if shape[2] <= limit)
    return (*shape[:2], min(side, shape[2]), min(side, shape[3]))


def _measure(graph: ArchGraph, shapes: Sequence[tuple[int, ...]], seed: int) -> tuple[float, ...]:
    import torch

    generator = torch.Generator().manual_seed(seed + 1)
    executable = Executable.random(graph, seed)
    signals = [torch.randn((BATCH, *shape[1:]), generator=generator) for shape in shapes]
    kernel = torch.zeros(BATCH, BATCH, dtype=torch.float64)
    last: dict[tuple[int, ...], Any] = {}

    def watch(at: int, node: Node, value: torch.Tensor) -> None:
        kind = kind_of(node.op)
        if kind is Kind.ACTIVATION and node.op not in _GATES:
            codes = (value.detach() > 0).reshape(BATCH, -1).float()
            same = codes @ codes.T
            ones = codes.sum(1)
            kernel.add_(codes.shape[1] - ones[:, None] - ones[None] + 2 * same)
        elif kind in (Kind.CONV, Kind.ADD, Kind.CONCAT, Kind.LINEAR) and value.dim() == 4 and value.shape[0] == BATCH:
            last[node.shape[2:]] = value.detach()

    for signal in signals:
        signal.requires_grad_(True)
    total = torch.stack([value.sum() for value in executable.run(signals, watch)]).sum()
    gradients = torch.autograd.grad(total, signals, allow_unused=True)
    given = [gradient.reshape(BATCH, -1) for gradient in gradients if gradient is not None]
    jacobian = _jacobian(torch.cat(given, 1)) if given else nan
    naswot = float(torch.linalg.slogdet(kernel + 1e-3 * torch.eye(BATCH)).logabsdet) if kernel.any() else 0.0
    return naswot, jacobian, sum(map(_entropy, last.values()))


def _jacobian(gradients: torch.Tensor) -> float:
    """Score of the correlations between the rows; compressed, as it ranges over many magnitudes."""
    import torch

    rows = gradients.double()
    rows = rows - rows.mean(1, keepdim=True)
    norm = rows.norm(dim=1, keepdim=True)
    if float(norm.min()) < 1e-30:
        return nan
    rows = rows / norm
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + 1e-5
    return -log1p(float((values.log() + 1 / values).sum()) - BATCH)


def _entropy(value: torch.Tensor) -> float:
    """Entropy of the shares of the principal components of the channels (batch and positions are samples)."""
    import torch

    channels = value.shape[1]
    rows = value.permute(1, 0, 2, 3).reshape(channels, -1).double()
    rows = rows - rows.mean(1, keepdim=True)
    gram = rows @ rows.T if channels <= rows.shape[1] else rows.T @ rows
    shares = torch.linalg.eigvalsh(gram).clamp_min(0)
    shares = shares / shares.sum().clamp_min(1e-30)
    return float(-(shares * (shares + 1e-30).log()).sum())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are added in the same order on every machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
