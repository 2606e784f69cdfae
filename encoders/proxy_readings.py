"""Training-free proxies as they are read off structure, without running the network.

`proxies` runs a network at random in some tens of milliseconds. What comes out is a function of the structure, and some
perceptrons have learnt it from the statistics: on networks drawn from every space, without a label. Spaces count alike,
and inside a space it is differences between its networks that count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from functools import partial
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .arrays_file import load_arrays, save_arrays
from .errors import CheckpointError, DataError
from .graph import ArchGraph
from .graph_readings import scaled, spread
from .proxies import PROXIES_VERSION, PROXY_NAMES
from .registry import SHIPPED_PROXY_READINGS, get_encoder
from .statistics import STATISTICS_VERSION

Floats = NDArray[np.float64]

LEAST = 0.1
"""Least deviation of a proxy inside a space, in units of its deviation over all, that its networks are weighted by."""
HEAVIEST = 20.0
"""Largest weight of a network in the mean over all."""
BATCH = 128
RATE = 2e-3
_DECIMALS = 4
_FORMAT = "archgauge.proxy_readings"


@dataclass(frozen=True)
class ProxyReadings:
    """The mean of perceptrons from scaled features to standardised proxies: two hidden layers, normalised, with SiLU.

    Attributes:
        centre: (d,) mean of each feature.
        scale: (d,) its standard deviation; infinite where it is constant.
        members: For each perceptron, name → array, as torch names them.
    """

    centre: Floats
    scale: Floats
    members: tuple[Mapping[str, Floats], ...]

    @classmethod
    def fit(
        cls,
        features: Floats,
        proxies: Floats,
        spaces: Sequence[str],
        *,
        members: int = 1,
        hidden: int = 256,
        epochs: int = 300,
        seed: int = 0,
        report: Callable[[str], None] | None = None,
    ) -> Self:
        """Learn to read.

        Args:
            features: (n, d) what to read off.
            proxies: (n, k) what is to be read.
            spaces: (n,) space of every network.
            members: How many perceptrons.
            hidden: Width of the hidden layers.
            epochs: Times every network is seen.
            seed: Seed of weights and order.
            report: Is told the error of every fiftieth epoch.

        Raises:
            DataError: Shapes do not fit, or there are fewer networks than in one batch.
        """
        if not len(features) == len(proxies) == len(spaces) or len(features) < BATCH:
            raise DataError(
                f"{len(features)} rows of features, {len(proxies)} of proxies and {len(spaces)} spaces, expected as "
                f"many of each, and at least {BATCH}"
            )
        centre, scale = spread(features)
        mean, deviation = spread(proxies)
        targets = (proxies - mean) / deviation
        rows, weights = scaled(features, centre, scale), _weights(targets, spaces)
        fit = partial(_fit, rows, targets, weights, hidden=hidden, epochs=epochs, report=report)
        return cls(centre, scale, tuple(fit(seed=seed + 1000 * member) for member in range(members)))

    def __call__(self, features: Floats) -> Floats:
        """Standardised proxies (n, k) of features (n, d)."""
        rows = scaled(features, self.centre, self.scale)
        return np.asarray(np.mean([_output(member, rows) for member in self.members], axis=0), np.float64)

    def save(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        """Write it as safetensors; `about` tells how it was made, and under "sources" from what (`sources()`)."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name).astype(np.float32) for name in ("centre", "scale")}
        for number, member in enumerate(self.members):
            arrays |= {f"{number}.{name}": value.astype(np.float16) for name, value in member.items()}
        save_arrays(path, _FORMAT, arrays, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], sources: str) -> Self:
        """What `save` wrote.

        Args:
            path: The file.
            sources: What the features come from, see `sources`.

        Raises:
            CheckpointError: The file is missing, damaged or something else, or belongs to other features.
        """
        advice = "benchmarks/pretrain_proxy_readings.py"
        members: dict[str, dict[str, Floats]] = {}
        try:
            arrays = load_arrays(path, _FORMAT, ("sources", sources), advice)
            centre, scale = arrays.pop("centre"), arrays.pop("scale")
        except KeyError as error:
            raise CheckpointError(f"{path}: holds no array {error}; make it again: {advice}") from error
        for key, value in arrays.items():
            number, _, name = key.partition(".")
            members.setdefault(number, {})[name] = value
        return cls(centre, scale, tuple(members[number] for number in sorted(members)))


class ProxyReadingsEncoder:
    """The proxies, standardised, as read off the statistics."""

    name = "proxy_readings"
    columns: tuple[str, ...] = tuple(f"read_{name}" for name in PROXY_NAMES)
    monotone: tuple[int, ...] = (0,) * len(columns)
    sizes: tuple[str, ...] = ()
    sources = ("statistics",)

    @property
    def version(self) -> int:
        """32 bits of the hash of the perceptrons and of the versions of its sources."""
        versions = [get_encoder(name).version for name in self.sources]
        return int(sha256(SHIPPED_PROXY_READINGS.read_bytes() + str(versions).encode()).hexdigest()[:8], 16)

    def derive(self, rows: Floats) -> Floats:
        """One row (3,) for the rows (n, d) of the sources, side by side."""
        return np.round(_shipped()(rows), _DECIMALS)

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, 3) float64."""
        return self.derive(np.hstack([get_encoder(name).encode(graphs) for name in self.sources]))


def sources() -> str:
    """What the shipped readings must have been made from."""
    return f"proxies {PROXIES_VERSION}, statistics {STATISTICS_VERSION}"


@once
def _shipped() -> ProxyReadings:
    return ProxyReadings.load(SHIPPED_PROXY_READINGS, sources())


def _fit(
    features: Floats,
    targets: Floats,
    weights: Floats,
    *,
    hidden: int,
    epochs: int,
    seed: int,
    report: Callable[[str], None] | None,
) -> dict[str, Floats]:
    """One perceptron."""
    import torch
    from torch import nn

    x, y, w = (torch.tensor(each, dtype=torch.float32) for each in (features, targets, weights))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, y.shape[1]),
        )
        steps = len(x) // BATCH
        optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps + 1)
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(x))[: steps * BATCH].reshape(steps, BATCH):
                loss = (w[rows] * (network(x[rows]) - y[rows]) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            if report is not None and (epoch + 1) % 50 == 0:
                report(f"epoch {epoch + 1} of {epochs}, error {total / steps:.4f}")
    return {name: value.numpy().astype(np.float16).astype(np.float64) for name, value in network.state_dict().items()}


def _output(layers: Mapping[str, Floats], rows: Floats) -> Floats:
    """What one perceptron says (n, k) of scaled features (n, d)."""
    hidden = rows
    for linear, norm in (("0", "1"), ("4", "5")):
        hidden = hidden @ layers[f"{linear}.weight"].T + layers[f"{linear}.bias"]
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        hidden = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
        hidden = hidden * layers[f"{norm}.weight"] + layers[f"{norm}.bias"]
        hidden = hidden / (1 + np.exp(-hidden))
    return np.asarray(hidden @ layers["7.weight"].T + layers["7.bias"], np.float64)


def _weights(targets: Floats, spaces: Sequence[str]) -> Floats:
    """Weights (n, k) of errors: spaces count alike, and an error as much as a proxy differs inside its space."""
    names, owner = np.unique(list(spaces), return_inverse=True)
    weights = np.zeros_like(targets)
    for number in range(len(names)):
        rows = owner == number
        weights[rows] = 1 / np.maximum(targets[rows].std(axis=0), LEAST) ** 2 / rows.sum()
    return np.asarray(np.minimum(weights / weights.mean(axis=0), HEAVIEST), np.float64)
