"""Networks ranked by their text alone.

Two presets. `pwr` is the recipe of ONNX-Net (Qin et al. 2025, their released training code): the whole language model
and a linear output learn from pairs of networks of one batch. `default` leaves the language model as it is. It fits
heads (`heads`) to its vectors, and a Gaussian process (`text_kernel`) to the vectors and to counts of the statements of
the description in their context. The process counts for as much of the score of a network as the labels explain of
its variance there, the heads for the rest: among networks like those learned from it decides, far from them they do.
Either preset learns from within benchmarks only, so labels of different tasks and budgets are never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..encoders.errors import ConfigError, DataError, NotFittedError
from ..encoders.graph import ArchGraph
from ..encoders.text import describe
from ..encoders.text_context import Counts, counted
from .heads import Head, make_head
from .seeding import drawn_rows, generator, integer_seed
from .text_kernel import TextProcess
from .transforms import normal_ranks, space_weights

if TYPE_CHECKING:
    from ..encoders.language import CompactText, HuggingFaceText

Floats = NDArray[np.float64]
Preset = Literal["default", "pwr"]


@dataclass(frozen=True)
class Pairwise:
    """ONNX-Net's training with pairs (`pwr`).

    Attributes:
        epochs: Times that every network is seen.
        batch: Networks of a batch, all of one benchmark.
        pairs: Most pairs of a batch, as a multiple of its networks.
        margin: By how much the better network's score should be higher.
        threshold: Pairs whose labels differ by no more are left out (percent).
        learning_rate: Highest learning rate; None: 5e-5, ONNX-Net's, or 5e-4 for the compact model, which is small.
        warm_up: Share of the steps in which the learning rate rises.
        final: Share of the learning rate that is left at the end, to which it falls in a straight line.
        weight_decay: Decoupled weight decay.
    """

    epochs: int = 5
    batch: int = 16
    pairs: int = 4
    margin: float = 0.1
    threshold: float = 0.0
    learning_rate: float | None = None
    warm_up: float = 0.06
    final: float = 0.1
    weight_decay: float = 0.1


class PreparedText(NamedTuple):
    """A text, ready to be scored.

    Attributes:
        tokens: What the language model has prepared.
        counts: Labels of its statements in context, see `text_context.counted`; none for `pwr`.
    """

    tokens: Any
    counts: tuple[Counts, ...] = ()


class TextRanker:
    """Scores networks by their descriptions.

    Args:
        preset: `default` or `pwr`; see above.
        language: The language model; default: the compact one that ships with archgauge. `pwr` changes its weights.
        heads: Heads of `default`, see `heads`; their scores are averaged.
        context: Whether the process over statements in context takes part in `default`.
        members: Members of each head, with different seeds.
        pairwise: Training of `pwr`.
        seed: Seed of all that is drawn.

    Raises:
        ConfigError: No such preset, or nothing that could learn.
    """

    def __init__(
        self,
        preset: Preset = "default",
        language: CompactText | HuggingFaceText | None = None,
        *,
        heads: Sequence[str] = ("gbdt", "mlp"),
        context: bool = True,
        members: int = 3,
        pairwise: Pairwise = Pairwise(),
        seed: int = 0,
    ) -> None:
        if preset not in get_args(Preset):
            raise ConfigError(f"preset {preset!r} does not exist; choose one of {', '.join(get_args(Preset))}")
        if preset == "default" and not heads and not context:
            raise ConfigError("heads is empty and context is off, expected one of them for the preset 'default'")
        from ..encoders.language import CompactText

        self.preset, self.heads, self.members, self.pairwise, self.seed = preset, tuple(heads), members, pairwise, seed
        self.context = context and preset == "default"
        self.language = language or CompactText.shipped()
        self._heads: list[Head] = []
        self._process: TextProcess | None = None
        self._output: Any = None

    def fit(self, benchmarks: Sequence[Benchmark]) -> TextRanker:
        """Learns from labelled networks.

        Args:
            benchmarks: Any; networks are compared within each.

        Raises:
            DataError: There is no benchmark.
        """
        prepared = [self.prepare(benchmark.graphs) for benchmark in benchmarks]
        return self.fit_prepared(prepared, [benchmark.accuracy for benchmark in benchmarks])

    def prepare(self, graphs: Sequence[ArchGraph]) -> list[PreparedText]:
        """Texts of networks, ready to be scored; equal graphs are described once."""
        from ..encoders.language import plain

        different = {graph.hash: graph for graph in graphs}
        plains = [plain(graph) for graph in different.values()]
        texts = [describe(graph, self.language.level) for graph in plains]
        tokens = self.language.prepare_texts(texts)
        counts: list[tuple[Counts, ...]] = [()] * len(texts)
        if self.context:
            lossless = self.language.level in ("full", "compact")
            counts = [counted(text) for text in (texts if lossless else map(describe, plains))]
        found = dict(zip(different, map(PreparedText, tokens, counts), strict=True))
        return [found[graph.hash] for graph in graphs]

    def fit_prepared(self, prepared: Sequence[Sequence[PreparedText]], accuracies: Sequence[Floats]) -> TextRanker:
        """Learns from texts that `prepare` gave, and from labels, (n,) of each benchmark.

        Raises:
            DataError: There is no benchmark.
        """
        if not prepared:
            raise DataError("there is no benchmark to learn from")
        if self.preset == "pwr":
            import torch

            with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
                torch.manual_seed(integer_seed(self.seed, "dropout"))
                self._fit_pairs(prepared, accuracies)
        else:
            self._fit_heads(prepared, accuracies)
        return self

    def rank_scores(self, graphs: Sequence[ArchGraph]) -> Floats:
        """Scores (n,) of networks: the higher, the better; they compare networks of one task.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        return self.rank_prepared(self.prepare(graphs))

    def rank_prepared(self, prepared: Sequence[PreparedText]) -> Floats:
        """Scores (n,) of texts that `prepare` gave."""
        if not self._heads and self._process is None and self._output is None:
            raise NotFittedError("the text ranker has learned nothing yet: call fit first")
        table = self.language.embed_prepared([text.tokens for text in prepared]).vectors
        if self.preset == "pwr":
            weight, bias = self._output
            return np.asarray(table @ weight + bias, np.float64)
        scores = np.mean([head.predict(table) for head in self._heads], axis=0) if self._heads else np.zeros(len(table))
        if self._process is not None:
            told = self._process.predict([text.counts for text in prepared], table)
            scores = told.share * told.mean + (1 - told.share) * scores
        return np.asarray(scores, np.float64)

    def _fit_heads(self, prepared: Sequence[Sequence[PreparedText]], accuracies: Sequence[Floats]) -> None:
        texts = [text for benchmark in prepared for text in benchmark]
        table = self.language.embed_prepared([text.tokens for text in texts]).vectors
        labels = np.concatenate([normal_ranks(accuracy) for accuracy in accuracies])
        sizes = [len(accuracy) for accuracy in accuracies]
        weights = np.repeat(space_weights(sizes), sizes)
        self._heads, self._process = [], None
        for name in self.heads:
            for member in range(self.members):
                head = make_head(name, seed=integer_seed(self.seed, "text", name, member))
                self._heads.append(head.fit(table, labels, weights))
                if not head.seeded:
                    break
        if self.context:
            process = TextProcess(seed=integer_seed(self.seed, "text", "process"))
            self._process = process.fit([text.counts for text in texts], table, labels, weights)

    def _fit_pairs(self, prepared: Sequence[Sequence[PreparedText]], accuracies: Sequence[Floats]) -> None:
        import torch

        options, language = self.pairwise, self.language
        random = generator(self.seed, "pwr")
        sizes = [len(accuracy) for accuracy in accuracies]
        batches = [rows for _ in range(options.epochs) for rows in self._batches(sizes, random)]
        output = torch.nn.Linear(language.width, 1)
        with torch.no_grad():
            start = torch.Generator().manual_seed(integer_seed(self.seed, "output"))
            output.weight.copy_(torch.randn(output.weight.shape, generator=start) * 0.02)
            output.bias.zero_()
        rate = options.learning_rate
        if rate is None:
            from ..encoders.language import CompactText

            rate = 5e-4 if isinstance(language, CompactText) else 5e-5
        parameters = [*language.module.parameters(), *output.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=options.weight_decay)
        warm = max(1, round(options.warm_up * len(batches)))

        def share(step: int) -> float:
            left = (len(batches) - step) / max(1, len(batches) - warm)
            return min((step + 1) / warm, options.final + (1 - options.final) * left)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        language.module.train()
        for at, rows in batches:
            labels = accuracies[at][rows]
            better, worse = _pairs(labels, options.pairs * len(rows), options.threshold, random)
            if len(better):
                scores = output(language.forward([prepared[at][row].tokens for row in rows]))[:, 0]
                loss = torch.relu(options.margin - (scores[better] - scores[worse])).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            schedule.step()
        language.module.eval()
        language.forget()
        weight = output.weight.detach()[0].double().numpy().copy()
        self._output = (weight, float(output.bias.detach()[0]))

    def _batches(self, sizes: Sequence[int], random: np.random.Generator) -> list[tuple[int, NDArray[np.int64]]]:
        """One epoch: benchmark and rows of every batch, in random order."""
        found = []
        for at, size in enumerate(sizes):
            order = random.permutation(size)
            found += [(at, order[i : i + self.pairwise.batch]) for i in range(0, size, self.pairwise.batch)]
        return [found[i] for i in random.permutation(len(found))]


def _pairs(
    labels: Floats, most: int, threshold: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of better and of worse networks: all pairs whose labels differ, or `most` of them."""
    better, worse = np.nonzero(labels[:, None] - labels > threshold)
    chosen = drawn_rows(len(better), most, random)
    return better[chosen], worse[chosen]
