"""Pretraining of the text model without labels: hidden tokens, and the statistics of a network from its text.

Two losses, on networks of several spaces at each step:

- Some tokens of some segments are hidden and guessed from the others (Devlin et al. 2019).
- The statistics (`statistics.FEATURES`: costs, stages, paths, signal propagation, spectrum) are told from the vector of
  the text: their values, and how they differ from one network to another of the same space, in units of the spread
  within the space. What sets networks of one space apart is small beside what sets spaces apart, so it has a loss of
  its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .errors import CheckpointError, DataError
from .files import replacing
from .graph import ArchGraph
from .language import plain
from .statistics import FEATURES, statistics
from .text import describe
from .text_model import TextModel, TextModelShape, Tokens, in_segments, padded
from .tokenizer import MASK, Segment, Tokenizer

Floats = NDArray[np.float64]
Text = tuple[Segment, ...]
_FARTHEST = 6.0
_LEAST_SPREAD = 0.02
_LEAST_NETWORKS = 4


@dataclass(frozen=True)
class Space:
    """Networks of one space, ready for pretraining.

    Attributes:
        family: Spaces of the same value take turns.
        texts: (n,) segments of the texts.
        statistics: (n, d) float64.
    """

    family: str
    texts: tuple[Text, ...]
    statistics: Floats

    @classmethod
    def of(cls, graphs: Sequence[ArchGraph], family: str, tokenizer: Tokenizer, longest: int) -> Space:
        """Describes networks and counts their statistics; networks of the same text are taken once.

        Args:
            graphs: The networks.
            family: Name of the family.
            tokenizer: The tokenizer.
            longest: Most tokens of a segment.
        """
        found = {}
        for graph in graphs:
            text = tuple(tokenizer.segments(describe(plain(graph)), longest))
            if text not in found:
                found[text] = statistics(graph)
        return cls(family, tuple(found), np.array(list(found.values())).reshape(len(found), len(FEATURES)))


@dataclass(frozen=True)
class Pretraining:
    """How to pretrain.

    Attributes:
        steps: Steps.
        spaces: Spaces a step, of different families if there are enough.
        networks: Most networks of each.
        tokens: Most tokens in the different segments of these; fewer networks are taken where texts are long.
        learning_rate: Highest learning rate; it rises over the first 5 % of the steps and falls along a cosine.
        weight_decay: Of matrices.
        hidden: Share of the tokens that are hidden, in those segments where some are.
        hiding: Share of the segments with hidden tokens.
        hidden_weight: Weight of the loss on hidden tokens.
        seed: Seed of the weights and of what is drawn.
    """

    steps: int = 1200
    spaces: int = 4
    networks: int = 24
    tokens: int = 1200
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    hidden: float = 0.15
    hiding: float = 0.15
    hidden_weight: float = 0.2
    seed: int = 0


class Pretrainer:
    """Trains a `TextModel` on networks without labels; the same seed gives the same weights.

    Args:
        spaces: Name → networks.
        shape: Sizes of the model.
        tokenizer: The tokenizer.
        options: How to train.

    Attributes:
        model: The model.
        step: Steps done.
        centre: (d,) mean of the statistics over the spaces, each counted alike.
        scale: (d,) their standard deviation; the model says (statistic - centre) / scale.

    Raises:
        DataError: There is no network.
    """

    def __init__(
        self, spaces: Mapping[str, Space], shape: TextModelShape, tokenizer: Tokenizer, options: Pretraining
    ) -> None:
        self._spaces = [space for space in spaces.values() if len(space.texts) > 1]
        if not self._spaces:
            raise DataError("no space has two different networks: there is nothing to pretrain on")
        self.options = options
        self.model = TextModel(shape, torch.from_numpy(tokenizer.magnitudes), options.seed)
        decayed = [p for p in self.model.parameters() if p.ndim == 2]
        others = [p for p in self.model.parameters() if p.ndim != 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.centre = np.mean([space.statistics.mean(0) for space in self._spaces], axis=0)
        spread = np.mean([((space.statistics - self.centre) ** 2).mean(0) for space in self._spaces], axis=0) ** 0.5
        self.scale = np.where(spread > 1e-6, spread, 1.0)
        self._targets = [
            torch.from_numpy(np.clip((space.statistics - self.centre) / self.scale, -_FARTHEST, _FARTHEST)).float()
            for space in self._spaces
        ]
        families = sorted({space.family for space in self._spaces})
        self._families = [[at for at, s in enumerate(self._spaces) if s.family == family] for family in families]

    def train(
        self,
        *,
        checkpoint: Path | None = None,
        every: int = 200,
        until: int | None = None,
        report: Callable[[int, dict[str, float]], None] | None = None,
    ) -> TextModel:
        """Does the steps that are left.

        Args:
            checkpoint: File that keeps the state; if it is there, training goes on from it.
            every: Steps between checkpoints and reports.
            until: Step to stop before, to go on later; default: all of them.
            report: Called with the step and the mean losses since the last call.

        Returns:
            The model.

        Raises:
            CheckpointError: The checkpoint is of another training.
        """
        if checkpoint is not None and checkpoint.exists():
            self.restore(checkpoint)
        losses: dict[str, float] = {}
        self.model.train()
        for step in range(self.step, self.options.steps if until is None else until):
            for name, loss in self._train_step(step).items():
                losses[name] = losses.get(name, 0.0) + loss / every
            self.step = step + 1
            if self.step % every == 0 or self.step == self.options.steps:
                if report is not None:
                    report(self.step, losses)
                losses = {}
                if checkpoint is not None:
                    self.save(checkpoint)
        return self.model.eval()

    def _train_step(self, step: int) -> dict[str, float]:
        options = self.options
        random = np.random.default_rng([options.seed, step])
        warm = max(1, options.steps // 20)
        rate = min((step + 1) / warm, 0.5 + 0.5 * cos(pi * min(1.0, step / options.steps))) * options.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        chosen, rows = self._draw(random)
        texts = [self._spaces[at].texts[row] for at, part in zip(chosen, rows, strict=True) for row in part]
        parts = in_segments(texts)
        said = self.model.says(self.model(parts))
        values = torch.cat([self._targets[at][part] for at, part in zip(chosen, rows, strict=True)])
        absolute = functional.smooth_l1_loss(said, values)
        relative = self._relative(said, chosen, rows)
        guessed = self._guessed(parts.segments, random)
        loss = absolute + relative + options.hidden_weight * guessed
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        return {"values": absolute.item(), "differences": relative.item(), "hidden": guessed.item()}

    def _draw(self, random: np.random.Generator) -> tuple[list[int], list[NDArray[np.int64]]]:
        """Positions of spaces, and of networks in them."""
        many = min(self.options.spaces, len(self._families))
        families = random.choice(len(self._families), many, replace=False)
        chosen = [int(random.choice(self._families[family])) for family in families]
        return chosen, [self._rows(self._spaces[at].texts, random) for at in chosen]

    def _rows(self, texts: Sequence[Text], random: np.random.Generator) -> NDArray[np.int64]:
        """Positions of some networks."""
        order = random.permutation(len(texts))[: self.options.networks]
        seen: set[Tokens] = set()
        tokens = 0
        for count, row in enumerate(order):
            new = {segment.tokens for segment in texts[row]} - seen
            tokens += sum(map(len, new))
            seen |= new
            if tokens > self.options.tokens and count >= _LEAST_NETWORKS:
                return order[:count]
        return order

    def _relative(self, said: Tensor, chosen: list[int], rows: list[NDArray[np.int64]]) -> Tensor:
        losses, start = [], 0
        for at, part in zip(chosen, rows, strict=True):
            spread = self._targets[at].std(0)
            varied = spread > 1e-4
            values = self._targets[at][part]
            mine = said[start : start + len(part)]
            start += len(part)
            error = (mine - mine.mean(0)) - (values - values.mean(0))
            error = error / spread.clamp(min=_LEAST_SPREAD)
            if bool(varied.any()):
                losses.append(functional.smooth_l1_loss(error[:, varied], torch.zeros_like(error[:, varied])))
        return torch.stack(losses).mean()

    def _guessed(self, segments: Sequence[Tokens], random: np.random.Generator) -> Tensor:
        options = self.options
        count = max(1, round(options.hiding * len(segments)))
        chosen = sorted(random.choice(len(segments), count, replace=False).tolist())
        tokens, present = padded([segments[at] for at in chosen])
        hidden = torch.from_numpy(random.random(tokens.shape) < options.hidden) & present
        hidden[0, 0] = True  # at least one
        states = self.model.token_states(tokens.masked_fill(hidden, MASK), present)
        return functional.cross_entropy(self.model.guesses(states[hidden]), tokens[hidden])

    def save(self, file: Path) -> None:
        """Writes the state of the training.

        Raises:
            OutputError: It cannot be written.
        """
        from safetensors.torch import save

        tensors = dict(self.model.state_dict())
        names = [name for name, _ in sorted(self.model.named_parameters(), key=lambda pair: pair[1].ndim != 2)]
        for name, state in zip(names, self._optimizer.state_dict()["state"].values(), strict=True):
            tensors |= {f"first:{name}": state["exp_avg"], f"second:{name}": state["exp_avg_sq"]}
        metadata = {"step": str(self.step), "of": self._of()}
        with replacing(file) as stream:
            stream.write(save({k: v.contiguous() for k, v in tensors.items()}, metadata))

    def restore(self, file: Path) -> None:
        """Takes up the state that `save` wrote.

        Raises:
            CheckpointError: The file is damaged, or of another training.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as stored:
                metadata: Mapping[str, str] = stored.metadata() or {}
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error}); delete it to start anew") from error
        if metadata.get("of") != self._of():
            raise CheckpointError(
                f"{file}: belongs to a training with other options or networks; delete it to start anew"
            )
        self.step = int(metadata["step"])
        self.model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(("first:", "second:"))})
        names = [name for name, _ in sorted(self.model.named_parameters(), key=lambda pair: pair[1].ndim != 2)]
        state: dict[int, Any] = {
            at: {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"first:{name}"],
                "exp_avg_sq": tensors[f"second:{name}"],
            }
            for at, name in enumerate(names)
        }
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})

    def _of(self) -> str:
        """What the training is made of, as text."""
        sizes = [len(space.texts) for space in self._spaces]
        return repr((asdict(self.options), asdict(self.model.shape), sizes, float(np.abs(self.centre).sum()).hex()))
