"""`Predictor`: networks in, rank scores and accuracies out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..datasets.benchmark import Benchmark
from ..encoders.errors import ConfigError, DataError, NotFittedError
from ..encoders.graph import ArchGraph
from ..encoders.reading import Shapes
from ..encoders.registry import encode_table, get_encoder
from . import checkpoint
from .distance import Place, beyond_edge, farness
from .ensemble import CORE, HeadOptions, MemberOutputs, View, views_of, weighted_deviation, weighted_mean
from .features import Features
from .fitted import Fitted, Prior, Stored, to_files
from .heads import make_head
from .learning import SEVERAL, Recipe, learn, prefixes, spaces_of
from .networks import Item, Network, Networks, OnError, gather
from .score import Ranked, Score
from .size_prior import trust

if TYPE_CHECKING:
    from .evaluation import Evaluation

Floats = NDArray[np.float64]

FAR_HEADS = (f"extra_trees@{CORE}",)
"""Heads far from the training set of a predictor for one or two spaces."""
SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the predictor that comes with the package."""


class Predictor:
    """Predicts how well networks would do once trained.

    Encoders turn a network into a row of features; heads, several seeds each, learn the normal quantile of the rank
    inside each training benchmark; a map per task turns the blended score into percent. Networks outside the training
    spaces are scored by heads that see less if these are one or two, else by all heads alike.

    Args:
        encoders: Names of encoders, see `archgauge.encoders.registry`.
        heads: Names of heads, see `archgauge.predictor.heads`. With several encoders, `gbdt` is fitted on the columns
            of each of them, `gbdt@statistics` on those of one, `gbdt@core` on the first's core columns.
        far_heads: Heads of a predictor for one or two spaces for networks far from these; none: the other heads serve
            there too. Default: `extra_trees@core`; none if the first encoder has no core columns. Not used from three
            training spaces on.
        evidence: Names of further encoders with few columns, which every head sees beside those of its own encoder,
            such as `proxies`.
        n_seeds: Members of each head that has a seed.
        seed: Seed of everything; the same seed gives the same predictor, byte for byte.
        monotone: Forbid trees to rate a network lower for being larger (the encoders say in which columns).
        size_share: What one standard deviation of size is worth in the score, see `size_prior`; default: 0.6 with three
            or more training spaces, else 0. Far heads have 0.3 in any case.
        cache: Folder that keeps encoded networks between runs, or None.
        options: Head name → options of its constructor, such as `{"gbdt": {"n_trees": 1000}}`.

    Raises:
        ConfigError: No such encoder, head or option, or a number is out of range.

    Example:
        >>> from archgauge.predictor.model import Predictor
        >>> Predictor(heads=("gbdt",), seed=1).heads
        ('gbdt',)
    """

    def __init__(
        self,
        encoders: Sequence[str] = ("statistics",),
        heads: Sequence[str] = ("gbdt", "mlp"),
        *,
        far_heads: Sequence[str] | None = None,
        evidence: Sequence[str] = (),
        n_seeds: int = 3,
        seed: int = 0,
        monotone: bool = True,
        size_share: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        options: HeadOptions | None = None,
    ) -> None:
        self.encoders = _names(encoders, "encoders")
        self.evidence = tuple(evidence)
        _names((*self.encoders, *self.evidence), "encoders and evidence")
        self.heads = _names(heads, "heads")
        self.options = {name: dict(values) for name, values in (options or {}).items()}
        self.far_heads = None if far_heads is None else tuple(far_heads)
        names = (*self.heads, *(self.far_heads or ()))
        for head in dict.fromkeys((*(name.partition("@")[0] for name in names), *self.options)):
            make_head(head, options=self.options.get(head))
        if n_seeds < 1 or seed < 0:
            raise ConfigError(f"n_seeds is {n_seeds} and seed {seed}, expected at least 1 and 0")
        self.n_seeds, self.seed, self.monotone = n_seeds, seed, monotone
        if size_share is not None and size_share < 0:
            raise ConfigError(f"size_share is {size_share}, expected 0 or more")
        self.size_share = size_share
        self.cache = cache
        self._features = Features(self.encoders, self.evidence, cache)
        self._views = views_of(self.heads, self._features.columns)
        views_of(self.far_heads or (), self._features.columns)
        self._fitted: Fitted | None = None

    def __repr__(self) -> str:
        options = f"encoders={self.encoders}, heads={self.heads}, n_seeds={self.n_seeds}, seed={self.seed}"
        if self._fitted is None:
            return f"Predictor({options}, not fitted)"
        networks = sum(record["n"] for record in self._fitted.data)
        return f"Predictor({options}, fitted on {networks:,} networks of {len(self._fitted.data)} benchmarks)"

    # -- properties ------------------------------------------------------------------------------------------------

    @property
    def fitted(self) -> Fitted:
        """What `fit` learnt.

        Raises:
            NotFittedError: Nothing yet.
        """
        if self._fitted is None:
            raise NotFittedError("this predictor is not fitted: call fit(benchmarks), or use Predictor.load()")
        return self._fitted

    @property
    def report(self) -> dict[str, Any]:
        """What fitting found out: weights of the heads, out-of-fold Kendall τ-b; after `finetune` also the prior's.

        A head's own Kendall is taken with its share of size.
        """
        return self.fitted.report

    @property
    def data(self) -> tuple[dict[str, Any], ...]:
        """Records of the training benchmarks: name, task, n, licence, label, epochs, relatives, hash."""
        return self.fitted.data

    @property
    def _pools(self) -> bool:
        """Whether scoring candidates together differs from scoring each alone."""
        return self.fitted.size_prior is not None and spaces_of(self.data) > 1

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks for which accuracies in percent are known."""
        return tuple(model.task for model in self.fitted.tasks)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoders' columns, as `embed` gives them."""
        return self._features.names

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(self, benchmarks: Benchmark | Sequence[Benchmark], *, progress: bool = False) -> Self:
        """Learn from benchmarks.

        Labels are compared only within a benchmark, and a benchmark of n networks counts as n^½.

        Args:
            benchmarks: One or several; of one space on two tasks, each is a benchmark. One whose task is "" teaches
                ranks only: labels of another budget than the task's, say, that must not bend its accuracies.
            progress: Show progress while encoding.

        Returns:
            self.

        Raises:
            DataError: No benchmark, or one is given twice.
        """
        given = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
        if not given:
            raise DataError("fit needs at least one benchmark, got none")
        keys = [f"{benchmark.name}:{benchmark.task}" for benchmark in given]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"benchmark {twice} is given twice, expected every benchmark and task once")
        self._fitted = self._learn(given, None, progress)
        return self

    def finetune(
        self,
        few: Benchmark,
        *,
        heads: Sequence[str] | None = None,
        encoders: Sequence[str] = ("graph",),
        evidence: Sequence[str] = ("proxy_readings",),
        progress: bool = False,
    ) -> Predictor:
        """A new predictor for one benchmark, from this one and a few labels; this one is left as it is.

        The heads learn the mean of the normal quantile of the rank and of the standardised (logit of the) label, and
        they also see what this predictor says: what each of its heads learnt, the distance to each of its training
        benchmarks, and its score; and evidence, three proxies by default. Gaussian processes expect a linear function
        of the score, and the rest has a kernel of its own. One label is enough; with one, the ranking stays that of
        this predictor.

        Args:
            few: Networks with labels, 1 to some 10,000.
            heads: Heads to fit, with this predictor's options; default, with their own options: a Gaussian process and
                a Bayesian linear regression on each encoder; on the first one boosted trees, below 30 labels randomised
                trees, from 200 on an MLP.
            encoders: Encoders used beside this predictor's own.
            evidence: Encoders with few columns that every head sees, beside this predictor's own evidence;
                `("proxies",)` runs every network once with random weights, in some 50 ms.
            progress: Show progress while encoding.

        Returns:
            The new predictor; its `report` tells how well it ranks the few out of fold, and how well this one does.

        Raises:
            NotFittedError: This predictor is not fitted.
        """
        prior = self._like(self.encoders, self.heads, self.evidence, self.options)
        prior._fitted = self.fitted
        task = few.task if few.task in prior.tasks else ""
        scores = prior._rank_scores(self._table(few, progress), task)
        scale = float(scores.std()) if len(few) >= 3 else 0.0
        centre = float(np.median(scores))
        every = tuple(dict.fromkeys((*self.encoders, *encoders)))
        seen = tuple(name for name in dict.fromkeys((*self.evidence, *evidence)) if name not in every)
        options = self.options if heads is not None else {}  # those of heads for thousands of networks suit no handful
        if heads is None:
            first = self.encoders[0]
            heads = (*(f"{head}@{name}" for head in ("gp", "bayes_linear") for name in every), f"gbdt@{first}")
            heads += (f"extra_trees@{first}",) * (len(few) < 30) + (f"mlp@{first}",) * (len(few) >= 200)
        tuned = self._like(every, heads, seen, options)
        tuned._fitted = tuned._learn(
            [few], Prior(prior, centre, scale if scale > 1e-9 else 1.0, len(few), task), progress
        )
        return tuned

    def _like(
        self, encoders: Sequence[str], heads: Sequence[str], evidence: Sequence[str], options: HeadOptions
    ) -> Predictor:
        """A predictor with these encoders, heads and their options, and else as this one, not fitted."""
        return Predictor(
            encoders,
            heads,
            evidence=evidence,
            n_seeds=self.n_seeds,
            seed=self.seed,
            monotone=self.monotone,
            size_share=self.size_share,
            cache=self.cache,
            options=options,
        )

    def _learn(self, benchmarks: Sequence[Benchmark], prior: Prior | None, progress: bool) -> Fitted:
        tables = [self._table(benchmark, progress) for benchmark in benchmarks]
        recipe = Recipe(
            self._views,
            self._far_views(),
            self.options,
            n_seeds=self.n_seeds,
            seed=self.seed,
            monotone=self.monotone,
            size_share=self.size_share,
        )
        return learn(recipe, self._features, benchmarks, np.concatenate(tables), prior)

    # -- scoring ---------------------------------------------------------------------------------------------------

    def score(
        self,
        networks: Networks,
        *,
        task: str | None = None,
        input_shapes: Shapes | None = None,
        on_error: OnError = "raise",
        pool: bool = False,
        epochs: float | None = None,
    ) -> list[Score]:
        """Score networks.

        Args:
            networks: One network or several (path, bytes or model of ONNX, torch module, or graph), or a benchmark.
            task: Task to estimate accuracies for; default: that of the first benchmark the predictor was fitted on.
                If it is named, networks like those of its benchmark are ranked by their estimated accuracy; if not,
                by what all benchmarks say together.
            input_shapes: As for `read`, for all networks: needed for torch modules and for dynamic dimensions other
                than the batch.
            on_error: `raise` the first error, or `skip`: a network that cannot be read keeps its place with a score
                that says why.
            pool: Let the networks' ranks by size among themselves enter the share of size in the rank score, which then
                depends on the company. It changes nothing where the predictor was fitted on a single space.
            epochs: Training epochs after which the accuracy is wanted, `inf` for a training without end. Then only
                those of the task's benchmarks count whose `Benchmark.epochs` are nearest, and where even these have
                others, the accuracy follows a power law of training and its interval is wider. Unknown ones are taken
                for a training without end. Default: all benchmarks count alike. The ranking is the same in any case.

        Returns:
            One score per network, in their order.

        Raises:
            NotFittedError: The predictor is not fitted.
            ConfigError: The predictor does not know the task, `on_error` is neither, or `epochs` is no number above 0.
            ReadError: A network cannot be read and `on_error` is `raise`.
        """
        chosen = self._task(task)
        if epochs is not None and not epochs > 0:
            raise ConfigError(f"epochs is {epochs}, expected a number above 0, or None")
        items = gather(networks, on_error, input_shapes)
        good = [item.graph for item in items if item.graph is not None]
        table, named = self._features.table(good), task is not None
        scores = iter(self._scores(table, chosen, pool and self._pools, named=named, epochs=epochs))
        result = []
        for item in items:
            if item.graph is None:
                result.append(Score(item.name, nan, None, None, None, nan, (), nan, nan, chosen, False, item.error))
            else:
                result.append(_named(next(scores), item))
        return result

    def rank(
        self,
        networks: Networks,
        *,
        task: str | None = None,
        input_shapes: Shapes | None = None,
        on_error: OnError = "raise",
        pool: bool = False,
        epochs: float | None = None,
    ) -> list[Ranked]:
        """Networks, best first; skipped ones last, equal ones in the order given. Arguments as for `score`."""
        scores = self.score(networks, task=task, input_shapes=input_shapes, on_error=on_error, pool=pool, epochs=epochs)
        good = [i for i, score in enumerate(scores) if score.error is None]
        failed = [i for i, score in enumerate(scores) if score.error is not None]
        best_first = sorted(good, key=lambda i: -scores[i].rank_score)
        return [Ranked(i, scores[i].name, scores[i]) for i in best_first + failed]

    def embed(
        self, networks: Networks, *, encoder: str | None = None, input_shapes: Shapes | None = None
    ) -> NDArray[np.float32]:
        """Embeddings of networks, (n, d) float32.

        Args:
            networks: As for `score`.
            encoder: Name of any encoder, as it encodes; default: the predictor's first one, scaled to the training set.
            input_shapes: As for `score`.

        Raises:
            NotFittedError: The predictor is not fitted.
            ConfigError: There is no such encoder.
            ReadError: A network cannot be read.
        """
        fitted = self.fitted
        graphs: Sequence[ArchGraph]
        if isinstance(networks, Benchmark):
            graphs, hashes = networks.graphs, networks.hashes
        else:
            items = gather(networks, "raise", input_shapes)
            graphs = [item.graph for item in items if item.graph is not None]
            hashes = tuple(graph.hash for graph in graphs)
        chosen = self._features.encoders[0] if encoder is None else get_encoder(encoder)
        table = encode_table(graphs, chosen, hashes=hashes, cache=self.cache)
        return (fitted.reference.scaler(table) if encoder is None else table).astype(np.float32)

    def nearest(
        self, network: Network, benchmark: Benchmark, k: int = 5, *, encoder: str | None = None
    ) -> list[tuple[str, float]]:
        """The networks of a benchmark that are most like a network.

        Args:
            network: One network, as for `score`.
            benchmark: Where to look.
            k: How many; fewer if the benchmark has fewer.
            encoder: As for `embed`.

        Returns:
            Name and Euclidean distance of their embeddings, nearest first.
        """
        own = self.embed(network, encoder=encoder)
        apart = np.linalg.norm(self.embed(benchmark, encoder=encoder) - own[:1], axis=1)
        return [(benchmark.names[i], float(apart[i])) for i in np.argsort(apart, kind="stable")[:k]]

    def map(self, benchmarks: Sequence[Benchmark], path: str | os.PathLike[str], *, encoder: str | None = None) -> None:
        """Draw a map of the networks of benchmarks by their embeddings: near means alike, a colour for each benchmark.

        Args:
            benchmarks: Benchmarks; a thousand networks in all take some ten seconds.
            path: File to write, `.png`, `.pdf` or `.svg`.
            encoder: As for `embed`.

        Raises:
            ConfigError: matplotlib (the extra `plots`) is not installed, or the file has another ending.
            DataError: There are fewer than 5 networks, or all are alike.
        """
        from .figure import check_figure, draw_map

        check_figure(Path(path))
        if not benchmarks:
            raise DataError("a map needs a benchmark, got none")
        table = np.concatenate([self.embed(benchmark, encoder=encoder) for benchmark in benchmarks])
        spaces = [benchmark.name for benchmark in benchmarks for _ in range(len(benchmark))]
        draw_map(table, spaces, Path(path), seed=self.seed)

    def evaluate(self, benchmark: Benchmark, *, exclude_seen: bool = True, n_resamples: int = 200) -> Evaluation:
        """Compare scores with a benchmark's accuracies, beside the trivial rows.

        Args:
            benchmark: The benchmark; its task may be unknown to the predictor, then only the ranking is measured. The
                accuracies asked for are those after its `epochs`, if it tells.
            exclude_seen: Leave out networks whose graph was in the training data.
            n_resamples: Bootstrap resamples of the intervals; 0 for none.

        Returns:
            The evaluation: `.table()` for reading, `.to_dict()` for JSON, `["kendall"]` for a number.

        Raises:
            NotFittedError: The predictor is not fitted.
            DataError: No network is left.
        """
        from .evaluation import measure

        seen = self._seen(benchmark.hashes)
        if exclude_seen and seen.any():
            if seen.all():
                raise DataError(
                    f"all {len(benchmark)} networks of {benchmark.name!r} were in the training data, nothing is left "
                    "to measure on: split the benchmark before fitting, or pass exclude_seen=False"
                )
            benchmark = benchmark.select(np.flatnonzero(~seen))
        table = self._table(benchmark)
        task = benchmark.task if benchmark.task in self.tasks else ""
        found = self._scores(table, task, False, named=True, epochs=benchmark.epochs)
        scores = [replace(score, name=name) for score, name in zip(found, benchmark.names, strict=True)]
        pooled = []
        if self._pools and len(benchmark) > 1:
            pooled = self._scores(table, task, True, named=True)
        left_out = int(seen.sum()) if exclude_seen else 0
        return measure(benchmark, scores, pooled=pooled, seen=left_out, n_resamples=n_resamples, seed=self.seed)

    # -- files -----------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the predictor to a folder (see `checkpoint`), in one step; a predictor that is there is replaced.

        Returns:
            The folder.

        Raises:
            NotFittedError: The predictor is not fitted.
            ConfigError: The folder holds something else.
        """
        return checkpoint.write_folder(folder, self._files(""))

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str] | None = None, *, cache: str | os.PathLike[str] | None = None
    ) -> Predictor:
        """The predictor in a folder; without one, the predictor that comes with the package.

        Args:
            folder: What `save` wrote, or None.
            cache: As for the constructor.

        Raises:
            CheckpointError: The folder is no predictor, damaged, incomplete, of another format, or of other encoders.
        """
        source = SHIPPED if folder is None else Path(folder)
        return cls._from_files(checkpoint.read_folder(source), source, "", cache)

    def _files(self, prefix: str) -> dict[str, bytes]:
        settings = {
            "encoders": self.encoders,
            "heads": self.heads,
            "far_heads": self.far_heads,
            "evidence": self.evidence,
            "n_seeds": self.n_seeds,
            "seed": self.seed,
            "monotone": self.monotone,
            "size_share": self.size_share,
            "options": self.options,
        }
        files = to_files(self.fitted, settings, self._features.encoders, len(self._views), prefix)
        if self.fitted.prior is not None:
            files |= self.fitted.prior.predictor._files(f"{prefix}prior_")
        return files

    @classmethod
    def _from_files(
        cls, files: Mapping[str, bytes], folder: Path, prefix: str, cache: str | os.PathLike[str] | None
    ) -> Predictor:
        stored = Stored.parse(files, folder, prefix)
        with stored.faults_named():
            predictor = cls(**stored.config["options"], cache=cache)
            stored.check(predictor._features.encoders)
            prior = None
            if "prior" in stored.calibration:
                before = cls._from_files(files, folder, f"{prefix}prior_", cache)
                prior = Prior(before, **stored.calibration["prior"])
            far_views = views_of(stored.config["far_views"], predictor._features.columns)
            predictor._fitted = stored.fitted(predictor._views, far_views, prior)
        return predictor

    # -- inside ----------------------------------------------------------------------------------------------------

    def _table(self, benchmark: Benchmark, progress: bool = False) -> Floats:
        return self._features.table(benchmark.graphs, benchmark.hashes, progress)

    def _far_views(self) -> tuple[View, ...]:
        """The views of `far_heads`, or of their default."""
        if self.far_heads is not None:
            return views_of(self.far_heads, self._features.columns)
        return views_of(FAR_HEADS, self._features.columns) if self._features.columns[0].core else ()

    def _task(self, task: str | None) -> str:
        known = self.tasks
        if task is None:
            return known[0] if known else ""
        if task not in known:
            raise ConfigError(f"this predictor knows no task {task!r}, expected one of {', '.join(known)}")
        return task

    def _seen(self, hashes: Sequence[str]) -> NDArray[np.bool_]:
        own = np.isin(prefixes(hashes), self.fitted.seen)
        return own if self.fitted.prior is None else own | self.fitted.prior.predictor._seen(hashes)

    def _heard(self, plain: Floats) -> _Heard:
        """What is known of a table of features (n, d) before it is scored."""
        fitted = self.fitted
        table = plain
        if fitted.prior is not None:
            table = np.hstack([plain, fitted.prior.opinions(plain, self._features)])
        place = fitted.reference.place(self._features.placed(plain))
        several, distance = spaces_of(self.data) >= SEVERAL, place.distance()
        away = beyond_edge(place.outside()) if several else farness(distance)
        counts = trust(distance, away) if several else None
        return _Heard(table, place, distance, fitted.ensemble.member_outputs(table, away, counts))

    def _opinions(self, plain: Floats, task: str) -> Floats:
        """What is said of a table of features (n, d), as features for a predictor that starts from this one.

        Returns:
            (n, h + b + 1): what each head learnt beside size, distances to the training benchmarks, the rank score.
        """
        heard = self._heard(plain)
        scores = self._rank_scores(plain, task, heard)
        return np.column_stack([heard.said.by_head().T, heard.place.distances(), scores])

    def _rank_scores(self, plain: Floats, task: str = "", heard: _Heard | None = None) -> Floats:
        """Rank scores (n,) of a table of features (n, d), for a task or none."""
        return np.array([score.rank_score for score in self._scores(plain, task, False, named=True, heard=heard)])

    def _scores(
        self,
        plain: Floats,
        task: str,
        pool: bool,
        *,
        named: bool,
        epochs: float | None = None,
        heard: _Heard | None = None,
    ) -> list[Score]:
        """Scores without names and operators for a table of features (n, d).

        Args:
            plain: The table.
            task: Task to score for, or "".
            pool: Whether size counts by its rank in the table, too.
            named: Whether to rank for the task.
            epochs: Budget of the accuracies, as for `score`.
            heard: What `_heard` found of the table, if that is known.
        """
        fitted = self.fitted
        if not len(plain):
            return []
        heard = self._heard(plain) if heard is None else heard
        table, place, said, parts = heard.table, heard.place, heard.said, heard.said.weights

        def scores(size: Floats | None) -> Floats:
            found = said.scores(size)
            return found if fitted.prior is None else fitted.prior.draw(found, table[:, -1])

        sizes, _ = self._features.sizes(plain)
        outputs = scores(None if fitted.size_prior is None else fitted.size_prior(sizes))
        score, spread = weighted_mean(outputs, parts), weighted_deviation(outputs, parts)
        ranking = score
        if pool and fitted.size_prior is not None:
            ranking = weighted_mean(scores(fitted.size_prior.in_pool(sizes)), parts)
        model = next((model for model in fitted.tasks if model.task == task), None)
        if model is None:
            return [
                Score("", float(r), None, None, None, float(s), (), 0.0, float(d), "", pool)
                for r, s, d in zip(ranking, spread, heard.distance, strict=True)
            ]
        nearest = model.nearest_budget(epochs)
        told = nearest.estimate(table, outputs, parts, place, fitted.rank_errors)
        if named and model.scale is not None:
            off_task = farness(place.distance(model.owners))
            ranking = ranking + (1 - off_task) * (model.scale(told.accuracy) - ranking)
        told = told.at_budget(nearest.steps(place, epochs))
        columns = (part.tolist() for part in (ranking, told.accuracy, told.low, told.high, told.spread, heard.distance))
        return [
            Score("", rank, percent, least, most, deviation, (), 0.0, far, task, pool)
            for rank, percent, least, most, deviation, far in zip(*columns, strict=True)
        ]


@dataclass(frozen=True)
class _Heard:
    """What is known of networks before they are scored.

    Attributes:
        table: (n, d) features, with the opinions of the prior behind them if there is one.
        place: Where they lie among the training benchmarks.
        distance: (n,) distance to the nearest of these.
        said: What every member of the ensemble says of them.
    """

    table: Floats
    place: Place
    distance: Floats
    said: MemberOutputs


def _named(score: Score, item: Item) -> Score:
    assert item.graph is not None
    graph = item.graph
    return replace(score, name=item.name, unknown_ops=graph.unknown_ops, unknown_share=graph.unknown_share)


def _names(names: Sequence[str], what: str) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names)
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"{what} are {found}, expected one or more different names")
    return found
