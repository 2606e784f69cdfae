"""What a predictor learnt, and how that becomes the files of a checkpoint and comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, ConfigError
from ..encoders.registry import Encoder
from . import checkpoint
from .card import model_card
from .distance import Reference
from .ensemble import Ensemble, HeadBlend, View
from .features import Features
from .heads import HeadState
from .size_prior import SizePrior
from .tasks import TaskModel

if TYPE_CHECKING:
    from .model import Predictor

Floats = NDArray[np.float64]
PRIOR_LABELS = 1
"""How many labels the zero-shot score is worth in the blend when a predictor is fine-tuned: it ranks where one or two
labels say nothing. What more it is worth, the heads find out, of which it is a feature."""


@dataclass(frozen=True)
class Prior:
    """What a fine-tuned predictor started from.

    Attributes:
        predictor: The zero-shot predictor.
        centre: Its median score on the few networks.
        scale: Standard deviation of its scores on them.
        labels: Number of labels fine-tuned on; the blend is (labels · own + prior) / (labels + 1).
        task: The task it scores for, "" if it knows none.
    """

    predictor: Predictor
    centre: float
    scale: float
    labels: int
    task: str

    def opinions(self, plain: Floats, features: Features) -> Floats:
        """What it says of networks, see `Predictor._opinions`: (n, k), its score last.

        Args:
            plain: (n, d) features of the networks.
            features: What the columns are; those of its own encoders are among them.
        """
        return self.predictor._opinions(features.part(plain, self.predictor._features), self.task)

    def draw(self, scores: Floats, own: Floats) -> Floats:
        """Scores (..., n) of heads, blended with the scores (n,) that it gives itself."""
        return (self.labels * scores + PRIOR_LABELS * (own - self.centre) / self.scale) / (self.labels + PRIOR_LABELS)


@dataclass(frozen=True)
class Fitted:
    """Everything a predictor learns.

    Attributes:
        ensemble: Heads, with weights for networks like those of the training set and for others.
        reference: Sample of the training networks, for distances.
        tasks: What gives accuracies, one per task.
        seen: First 64 bits of the hashes of all training graphs, sorted, uint64.
        data: One record per training benchmark, for the model card.
        report: What fitting found out: weight and out-of-fold Kendall of each head and benchmark.
        prior: Set on fine-tuned predictors.
        size_prior: The measure of size of which heads have a share; None on fine-tuned predictors.
        rank_errors: How far below and above the score of a network the normal quantile of its rank in its own space may
            lie when that space was left out: quantiles of the difference, for the 90 % interval of far networks. None
            where fewer than three spaces were there to leave out.
    """

    ensemble: Ensemble
    reference: Reference
    tasks: tuple[TaskModel, ...]
    seen: NDArray[np.uint64]
    data: tuple[dict[str, Any], ...]
    report: dict[str, Any]
    prior: Prior | None
    size_prior: SizePrior | None
    rank_errors: tuple[float, float] | None = None


def to_files(
    fitted: Fitted, settings: Mapping[str, Any], encoders: Sequence[Encoder], own_views: int, prefix: str
) -> dict[str, bytes]:
    """The files of a checkpoint, without those of the prior.

    Args:
        fitted: What was learnt.
        settings: Arguments of the predictor's constructor.
        encoders: Its encoders.
        own_views: How many of the ensemble's views its heads have; the others are those of far heads.
        prefix: What the names of the files begin with.
    """
    arrays = {f"reference.{name}": array for name, array in fitted.reference.arrays().items()}
    arrays["seen"] = fitted.seen
    ensembles = {"ranks": fitted.ensemble}
    ensembles |= {f"direct_{i}": model.direct for i, model in enumerate(fitted.tasks) if model.direct is not None}
    members = {
        kind: [
            [_store(state, f"{kind}.{view.name}.{i}", arrays) for i, state in enumerate(states)]
            for view, states in zip(ensemble.views, ensemble.states(), strict=True)
        ]
        for kind, ensemble in ensembles.items()
    }
    calibration: dict[str, Any] = {
        "blends": {kind: [asdict(blend) for blend in ensemble.blends] for kind, ensemble in ensembles.items()},
        "tasks": [model.to_dict() for model in fitted.tasks],
    }
    if fitted.prior is not None:
        calibration["prior"] = {key: getattr(fitted.prior, key) for key in ("centre", "scale", "labels", "task")}
    if fitted.size_prior is not None:
        calibration["size_prior"] = asdict(fitted.size_prior)
    if fitted.rank_errors is not None:
        calibration["rank_errors"] = fitted.rank_errors
    config = {
        "kind": checkpoint.KIND,
        "format": checkpoint.FORMAT,
        "versions": checkpoint.library_versions(),
        "options": settings,
        "encoders": [{"name": e.name, "version": e.version, "columns": e.columns} for e in encoders],
        "members": members,
        "far_views": [view.name for view in fitted.ensemble.views[own_views:]],
        "data": fitted.data,
        "report": fitted.report,
    }
    return {
        f"{prefix}config.json": checkpoint.as_json(config),
        f"{prefix}calibration.json": checkpoint.as_json(calibration),
        f"{prefix}arrays.safetensors": checkpoint.as_safetensors(arrays),
        f"{prefix}card.md": model_card(config, tuple(model.task for model in fitted.tasks)).encode(),
    }


@dataclass(frozen=True)
class Stored:
    """The files that `to_files` made, parsed.

    Attributes:
        config: What `config.json` says.
        calibration: What `calibration.json` says.
        arrays: The arrays.
        file: Where `config.json` is, for messages.
    """

    config: dict[str, Any]
    calibration: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    file: Path

    @classmethod
    def parse(cls, files: Mapping[str, bytes], folder: Path, prefix: str) -> Stored:
        """Parse the files of one predictor in a folder.

        Raises:
            CheckpointError: One is missing or damaged.
        """

        def content(name: str) -> tuple[bytes, Path]:
            file = folder / f"{prefix}{name}"
            if file.name not in files:
                raise CheckpointError(f"{file}: missing; the folder is incomplete, save it again")
            return files[file.name], file

        return cls(
            config=checkpoint.parse_json(*content("config.json")),
            calibration=checkpoint.parse_json(*content("calibration.json")),
            arrays=checkpoint.from_safetensors(*content("arrays.safetensors")),
            file=folder / f"{prefix}config.json",
        )

    @contextmanager
    def faults_named(self) -> Iterator[None]:
        """Whatever goes wrong inside is raised as a `CheckpointError` that names the file."""
        try:
            yield
        except CheckpointError:
            raise
        except ConfigError as error:
            raise CheckpointError(f"{self.file}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"{self.file}: the saved predictor is inconsistent ({type(error).__name__}: {error}): save it again"
            ) from error

    def check(self, encoders: Sequence[Encoder]) -> None:
        """Compare the encoders as saved with those installed.

        Raises:
            CheckpointError: Version or columns differ.
        """
        for encoder, saved in zip(encoders, self.config["encoders"], strict=True):
            checkpoint.check_columns(saved, encoder.version, encoder.columns, self.file)

    def fitted(self, own_views: tuple[View, ...], far_views: tuple[View, ...], prior: Prior | None) -> Fitted:
        """What was learnt.

        Args:
            own_views: Views of the predictor's heads.
            far_views: Views of its far heads.
            prior: What it started from.
        """
        ensembles = {}
        for kind, by_head in self.config["members"].items():
            states = [[_restore(entry, self.arrays) for entry in entries] for entries in by_head]
            blends = [HeadBlend(**_finite(blend)) for blend in self.calibration["blends"][kind]]
            views = own_views + far_views if kind == "ranks" else own_views
            ensembles[kind] = Ensemble.restore(views, states, blends)
        tasks = enumerate(self.calibration["tasks"])
        return Fitted(
            ensemble=ensembles["ranks"],
            reference=Reference.restore(_part(self.arrays, "reference.")),
            tasks=tuple(TaskModel.from_dict(part, ensembles.get(f"direct_{i}")) for i, part in tasks),
            seen=np.asarray(self.arrays["seen"], np.uint64),
            data=tuple(self.config["data"]),
            report=self.config["report"],
            prior=prior,
            size_prior=_size_prior(self.calibration),
            rank_errors=_rank_errors(self.calibration),
        )


def _size_prior(calibration: Mapping[str, Any]) -> SizePrior | None:
    values = calibration.get("size_prior")
    if not values:
        return None
    centres, scales, groups = (tuple(values[key]) for key in ("centres", "scales", "groups"))
    return SizePrior(centres, scales, groups, float(values["deviation"]))


def _rank_errors(calibration: Mapping[str, Any]) -> tuple[float, float] | None:
    values = calibration.get("rank_errors")
    return (float(values[0]), float(values[1])) if values else None


def _store(state: HeadState, key: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Put a head's arrays where they belong; what is left is JSON."""
    for name, array in state.arrays.items():
        arrays[f"{key}.{name}"] = array
    return {"values": state.values, "arrays": f"{key}."}


def _restore(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> HeadState:
    return HeadState(entry["values"], _part(arrays, entry["arrays"]))


def _finite(blend: Mapping[str, float | None]) -> dict[str, float]:
    """A blend as JSON keeps it, with nan where it has null."""
    return {key: nan if value is None else float(value) for key, value in blend.items()}


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
