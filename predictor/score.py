"""What a predictor says about a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """What a predictor says about one network.

    Attributes:
        name: File name, name of the model (`timm:resnet18`), name in the benchmark, or the first 12 digits of the
            graph's hash.
        rank_score: Higher is better; comparable between networks scored in one call for one task, about standard normal
            over the networks of a training space; `nan` for a network that was skipped.
        accuracy: Estimated accuracy on `task` in percent, or None where the predictor knows no such task.
        low: Lower end of the 90 % interval, percent, or None.
        high: Upper end, percent, or None.
        spread: Standard deviation over the members of the ensemble, in points; in units of `rank_score` where there is
            no accuracy.
        unknown_ops: Operators that archgauge does not understand.
        unknown_share: How much of the network they carry: see `ArchGraph.unknown_share`.
        distance: Distance from the nearest training networks: 1 is the edge of the training set, and far above 1 the
            score is a guess.
        task: Task the accuracy is for, or "".
        pooled: Whether the score compares the network with the others of the call (transductive).
        error: Why the network was skipped, or None.
    """

    name: str
    rank_score: float
    accuracy: float | None
    low: float | None
    high: float | None
    spread: float
    unknown_ops: tuple[str, ...]
    unknown_share: float
    distance: float
    task: str
    pooled: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Ranked:
    """A network's place in a ranking.

    Attributes:
        index: Its position among the networks given.
        name: Its name.
        score: Its score.
    """

    index: int
    name: str
    score: Score
