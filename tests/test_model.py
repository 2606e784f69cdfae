"""The predictor from fit to score: contract, honesty, few labels."""

from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest

from archgauge.datasets.benchmark import Benchmark, leave_space_out
from archgauge.encoders.errors import ConfigError, DataError, NotFittedError, ReadError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.registry import ENCODERS, get_encoder, register_encoder
from archgauge.predictor.distance import FAR, NEAR, Reference, farness
from archgauge.predictor.evaluation import few_shot, leave_groups_out
from archgauge.predictor.figure import draw_map
from archgauge.predictor.metrics import kendall
from archgauge.predictor.model import Predictor
from archgauge.predictor.size_prior import FAR_SHARE, FAR_TRUST, OUTSIDE_TRUST, SHARE


def network(widths, kernel=3, resolution=32, odd=False):
    """A chain of convolutions and ReLUs."""
    nodes = [Node("Input", (), (1, 3, resolution, resolution))]
    for width in widths:
        channels = nodes[-1].shape[1]
        shape = (1, int(width), resolution, resolution)
        weights = ((int(width), channels, kernel, kernel),)
        nodes.append(Node("Conv", (len(nodes) - 1,), shape, (("bias", 1),), weights, params=int(np.prod(weights[0]))))
        nodes.append(Node("Relu", (len(nodes) - 1,), shape))
    if odd:
        nodes.append(Node("my.domain::Magic", (len(nodes) - 1,), nodes[-1].shape))
    nodes.append(Node("GlobalAveragePool", (len(nodes) - 1,), (1, nodes[-1].shape[1], 1, 1)))
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def space(name, n=60, seed=0, task="toy", kernel=3, relatives="", families=0):
    """Networks whose accuracy grows with depth and width, saturating, with a little noise."""
    random = np.random.default_rng(seed)
    graphs, accuracy = [], []
    while len(graphs) < n:
        widths = 4 * random.integers(1, 17, random.integers(1, 7))
        graph = network(widths, kernel)
        if graph in graphs:
            continue
        graphs.append(graph)
        accuracy.append(90 - 60 / (1 + 0.3 * len(widths) * np.log(widths.mean())) + random.normal(0, 0.5))
    groups = tuple(f"family {i % families}" for i in range(n)) if families else ()
    names = tuple(f"{name} {i}" for i in range(n))
    return Benchmark(name, task, graphs, np.array(accuracy), names, groups, relatives or name)


def quick(**options):
    return Predictor(**{"heads": ("gbdt", "gp"), "n_seeds": 2, "options": {"gbdt": {"n_trees": 120}}, **options})


@pytest.fixture(scope="module")
def bench():
    return space("alpha", 90, seed=1)


@pytest.fixture(scope="module")
def fitted(bench):
    return quick().fit(bench.select(range(60)))


@pytest.fixture(scope="module")
def two_spaces():
    return quick().fit([space("alpha", 50, 1), space("beta", 50, 2, "other", kernel=5)])


def test_learns_to_rank_and_to_estimate(fitted, bench):
    rest = bench.select(range(60, 90))
    scores = fitted.score(rest)
    assert kendall(rest.accuracy, [s.rank_score for s in scores]) > 0.75
    assert np.mean([abs(s.accuracy - a) for s, a in zip(scores, rest.accuracy, strict=True)]) < 1.5
    inside = [s.low <= a <= s.high for s, a in zip(scores, rest.accuracy, strict=True)]
    assert np.mean(inside) >= 0.75
    assert all(0 <= s.low <= s.accuracy <= s.high <= 100 for s in scores)
    assert {s.task for s in scores} == {"toy"}
    assert [s.name for s in scores] == list(rest.names)


def test_members_differ(fitted, bench):
    one = quick(heads=("gbdt",), n_seeds=3).fit(bench)
    assert min(score.spread for score in one.score(bench)) > 0
    assert fitted.report["heads"].keys() == {"gbdt", "gp"}
    assert sum(head["weight"] for head in fitted.report["heads"].values()) == pytest.approx(1)


def test_a_score_does_not_depend_on_the_company(fitted, bench):
    together = fitted.score(bench)
    assert fitted.score(bench.graphs[3])[0].rank_score == pytest.approx(together[3].rank_score, abs=1e-9)


def test_distance_is_small_inside_and_large_outside(fitted, bench):
    near, far = fitted.score([bench.graphs[0], network([2000] * 40, 11, 300)])
    assert near.distance < 1 < far.distance
    assert far.high - far.low > near.high - near.low


def test_rank_is_the_order_of_scores(fitted, bench):
    ranked = fitted.rank(bench)
    values = [entry.score.rank_score for entry in ranked]
    assert values == sorted(values, reverse=True)
    assert sorted(entry.index for entry in ranked) == list(range(len(bench)))
    assert all(entry.name == bench.names[entry.index] for entry in ranked)


def test_embed_is_scaled_and_named(fitted, bench):
    vectors = fitted.embed(bench.select(range(60)))
    assert vectors.dtype == np.float32
    assert vectors.shape == (60, len(fitted.columns))
    assert np.abs(vectors.mean(0)).max() < 0.2
    np.testing.assert_array_equal(fitted.embed(bench.graphs[5]), vectors[5:6])


def test_unknown_operators_are_reported(fitted):
    score = fitted.score(network([8, 8], odd=True))[0]
    assert score.unknown_ops == ("my.domain::Magic",)
    assert 0 < score.unknown_share < 0.5


def test_a_network_that_cannot_be_read(fitted, tmp_path, bench):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ReadError, match="broken"):
        fitted.score([bench.graphs[0], broken])
    scores = fitted.score([bench.graphs[0], broken, tmp_path / "missing.onnx", bench.graphs[1]], on_error="skip")
    assert [score.error is None for score in scores] == [True, False, False, True]
    assert scores[1].name == "broken.onnx"
    assert isnan(scores[1].rank_score)
    assert scores[1].accuracy is None
    assert scores[3].rank_score == pytest.approx(fitted.score(bench.graphs[1])[0].rank_score)
    ranked = fitted.rank([broken, bench.graphs[0]], on_error="skip")
    assert [entry.index for entry in ranked] == [1, 0]
    with pytest.raises(ConfigError, match="on_error"):
        fitted.score(bench, on_error="ignore")


def test_nothing_to_score_gives_nothing(fitted):
    assert fitted.score([]) == []
    assert fitted.rank([]) == []


def test_tasks(two_spaces, bench):
    assert two_spaces.tasks == ("toy", "other")
    plain = two_spaces.score(bench.graphs[0])[0]
    assert plain.task == "toy"
    named = two_spaces.score(bench.graphs[0], task="other")[0]
    assert 0 <= named.low <= named.accuracy <= named.high <= 100
    with pytest.raises(ConfigError, match="expected one of toy, other"):
        two_spaces.score(bench, task="imagenet1k")


def test_two_benchmarks_of_one_task_are_blended_by_closeness():
    low, high = space("alpha", 40, 1), space("beta", 40, 2, kernel=5)
    low = Benchmark(low.name, low.task, low.graphs, low.accuracy - 25, low.names, relatives=low.relatives)
    model = quick().fit([low, high])
    for bench in (low, high):
        errors = [s.accuracy - a for s, a in zip(model.score(bench, task="toy"), bench.accuracy, strict=True)]
        assert np.abs(errors).mean() < 4


def test_pool_scores_are_marked_and_single_ones_kept(two_spaces, fitted, bench):
    pooled, single = two_spaces.score(bench, pool=True), two_spaces.score(bench)
    assert all(score.pooled for score in pooled)
    assert not any(score.pooled for score in single)
    assert [s.rank_score for s in pooled] != [s.rank_score for s in single]
    assert not any(score.pooled for score in fitted.score(bench, pool=True))
    rows = [row.name for row in two_spaces.evaluate(space("gamma", 30, 5, "third")).rows]
    assert rows[:2] == ["predictor", "predictor, pool"]


def test_labels_of_one_benchmark_are_not_compared_with_those_of_another():
    low, high = space("alpha", 40, 1), space("beta", 40, 2, kernel=5)
    shifted = Benchmark(low.name, low.task, low.graphs, low.accuracy * 0.3, low.names, relatives=low.relatives)
    scores = [
        [score.rank_score for score in quick(heads=("gbdt",), n_seeds=1).fit([first, high]).score(high)]
        for first in (low, shifted)
    ]
    assert scores[0] == scores[1]


def test_target_labels_cannot_leak_into_zero_shot_scores():
    spaces = [space("alpha", 30, 1), space("beta", 30, 2, kernel=5), space("beta", 30, 2, "other", kernel=5)]
    target = spaces[1]
    noise = np.random.default_rng(0).uniform(0, 100, len(target))
    tampered = [
        Benchmark(b.name, b.task, b.graphs, noise, b.names, relatives=b.relatives) if b.name == "beta" else b
        for b in spaces
    ]
    outcomes = []
    for benchmarks in (spaces, tampered):
        train, held = leave_space_out(benchmarks, "beta:toy")
        model = quick(n_seeds=1).fit(train)
        outcomes.append([(s.rank_score, s.accuracy, s.low, s.high, s.distance) for s in model.score(held, pool=True)])
    assert outcomes[0] == outcomes[1]


def test_evaluate_prints_the_trivial_rows_and_leaves_out_what_was_seen(fitted, bench):
    result = fitted.evaluate(bench)
    assert (result.n, result.seen) == (30, 60)
    names = [row.name for row in result.rows]
    assert names == ["predictor", "macs", "params", "depth", "convolutions", "best trivial"]
    best = max(row.metrics["kendall"].value for row in result.rows[1:5])
    assert result.rows[5].metrics["kendall"].value == best
    assert result["kendall"] > 0.7
    interval = result.rows[0].metrics["kendall"]
    assert interval.low < interval.value < interval.high
    stored = result.to_dict()
    assert stored["rows"][0]["metrics"]["mae"]["value"] == result["mae"]
    for text in ("best trivial", "60 more were in the training data", "regret_top_1_percent"):
        assert text in result.table()
    with pytest.raises(DataError, match="nothing is left"):
        fitted.evaluate(bench.select(range(10)))
    assert fitted.evaluate(bench.select(range(10)), exclude_seen=False).n == 10


def test_evaluate_on_an_unknown_task_measures_the_ranking_only(fitted):
    result = fitted.evaluate(space("gamma", 20, 9, "third"), n_resamples=0)
    assert "mae" not in result.rows[0].metrics
    assert isnan(result.rows[0].metrics["kendall"].low)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
def test_finetune_with_a_handful_of_labels(two_spaces, n):
    target = space("gamma", 60, 7, "new", kernel=7)
    few = target.select(range(n))
    before = [s.rank_score for s in two_spaces.score(target)]
    tuned = two_spaces.finetune(few)
    assert [s.rank_score for s in two_spaces.score(target)] == before
    rest = target.select(range(20, 60))
    scores = tuned.score(rest)
    zero_shot = kendall(rest.accuracy, [s.rank_score for s in two_spaces.score(rest)])
    assert kendall(rest.accuracy, [s.rank_score for s in scores]) > zero_shot - 0.1
    assert tuned.tasks == ("new",)
    assert all(0 <= s.low <= s.accuracy <= s.high <= 100 for s in scores)
    assert tuned.report["labels"] == n
    if n == 1:
        assert kendall(before, [s.rank_score for s in tuned.score(target)]) == pytest.approx(1)
        assert scores[0].accuracy == pytest.approx(few.accuracy[0], abs=1e-6)
    if n == 20:
        assert np.mean([abs(s.accuracy - a) for s, a in zip(scores, rest.accuracy, strict=True)]) < 4
        assert isinstance(tuned.report["prior_kendall"], float)


@pytest.mark.parametrize("n", [2, 30])
def test_finetune_on_constant_labels_keeps_the_ranking(two_spaces, n):
    target = space("gamma", n, 7, "new", kernel=7)
    flat = Benchmark("flat", "new", target.graphs, np.full(n, 70.0), target.names)
    tuned = two_spaces.finetune(flat)
    before = [s.rank_score for s in two_spaces.score(target)]
    assert kendall(before, [s.rank_score for s in tuned.score(target)]) == pytest.approx(1)
    assert all(s.accuracy == pytest.approx(70) for s in tuned.score(target))


def test_finetune_on_losses_ranks_and_gives_no_accuracies(two_spaces):
    target = space("gamma", 60, 7, "new", kernel=7)
    losses = Benchmark("gamma", "loss", target.graphs, target.accuracy / 10 - 12, target.names, unit="minus nats")
    tuned = two_spaces.finetune(losses.select(range(20)))
    assert tuned.tasks == ()
    scores = tuned.score(losses.select(range(20, 60)))
    assert kendall(losses.accuracy[20:], [s.rank_score for s in scores]) > 0.5
    assert scores[0].accuracy is None


def test_finetune_keeps_the_earlier_scale_of_a_known_task(two_spaces):
    few = space("gamma", 20, 7, "toy", kernel=3).select([0])
    tuned = two_spaces.finetune(few)
    estimates = [s.accuracy for s in tuned.score(space("gamma", 20, 7, "toy"))]
    assert np.ptp(estimates) > 1
    assert tuned.score(few)[0].high < 100


def test_what_a_predictor_says_is_a_feature_of_the_next(two_spaces):
    target = space("gamma", 40, 7, "new", kernel=7)
    tuned = two_spaces.finetune(target.select(range(12)))
    plain = two_spaces._table(target)
    said = two_spaces._opinions(plain, "")
    heads, benchmarks = len(two_spaces.fitted.ensemble.views), 2
    assert said.shape == (40, heads + benchmarks + 1)
    np.testing.assert_array_equal(said[:, -1], [s.rank_score for s in two_spaces.score(target)])
    nearest = said[:, heads:-1].min(axis=1)
    np.testing.assert_array_equal(nearest, [s.distance for s in two_spaces.score(target)])
    rows = np.array([5, 2, 30])
    np.testing.assert_allclose(two_spaces._opinions(plain[rows], ""), said[rows], atol=1e-12)
    table = tuned._heard(tuned._table(target)).table
    np.testing.assert_array_equal(table[:, len(tuned.columns) :], said)
    assert len(tuned._features.monotone(said.shape[1])) == table.shape[1]


def test_evidence_is_seen_by_every_head_and_inherited():
    """Labels are chance but for one number, which only the evidence knows."""
    random = np.random.default_rng(0)
    alpha, beta = space("alpha", 150, 1), space("beta", 40, 2, "other", kernel=5)
    alpha, beta = (replace(b, accuracy=random.permutation(b.accuracy)) for b in (alpha, beta))
    known = {key: label for b in (alpha, beta) for key, label in zip(b.hashes, b.accuracy, strict=True)}

    class Told:
        name, version, columns, monotone, sizes = "told", 1, ("told",), (0,), ()

        def encode(self, graphs):
            return np.array([[known[graph.hash]] for graph in graphs])

    register_encoder("told")(Told)
    try:
        model = quick(evidence=("told",)).fit(alpha)
        assert model.columns[-1] == "told.told"
        table = model._table(alpha)
        for view in model.fitted.ensemble.views:
            np.testing.assert_array_equal(view.of(table)[:, -1], alpha.accuracy)
        assert model.report["heads"]["gbdt"]["kendall"] > 0.4
        assert kendall(beta.accuracy, [s.rank_score for s in model.score(beta)]) > 0.3
        tuned = model.finetune(beta.select(range(20)), evidence=())
        assert (tuned.encoders, tuned.evidence) == (("statistics", "graph"), ("told",))
        own = tuned.fitted.prior.opinions(tuned._table(beta), tuned._features)
        np.testing.assert_array_equal(own[:, -1], [s.rank_score for s in model.score(beta)])
    finally:
        del ENCODERS["told"]


def test_evidence_that_is_an_encoder_already_is_not_taken_twice(two_spaces):
    few = space("gamma", 12, 7, "new", kernel=7)
    assert two_spaces.finetune(few, heads=("gbdt",), encoders=("proxy_readings",)).evidence == ()
    tuned = two_spaces.finetune(few, heads=("gbdt",), encoders=())
    assert (tuned.encoders, tuned.evidence) == (("statistics",), ("proxy_readings",))
    own = get_encoder("proxy_readings")
    np.testing.assert_array_equal(tuned._table(few)[:, -len(own.columns) :], own.encode(few.graphs))


def test_evidence_must_differ_from_the_encoders():
    with pytest.raises(ConfigError, match="encoders and evidence"):
        Predictor(evidence=("statistics",))


def test_finetune_twice(two_spaces):
    first = two_spaces.finetune(space("gamma", 10, 7, "new", kernel=7))
    second = first.finetune(space("delta", 10, 8, "newer", kernel=1))
    assert second.tasks == ("newer",)
    assert all(np.isfinite(s.rank_score) for s in second.score(space("delta", 20, 8)))


def test_finetune_uses_its_labels():
    upside_down = space("alpha", 60, 3)
    flipped = Benchmark("flipped", "toy", upside_down.graphs, 100 - upside_down.accuracy, upside_down.names)
    model = quick().fit(space("alpha", 60, 1))
    tuned = model.finetune(flipped.select(range(40)))
    assert tuned.evaluate(flipped)["kendall"] > 0.5
    assert tuned.report["prior_kendall"] < -0.5


def test_leave_groups_out_never_trains_on_the_family(monkeypatch):
    bench = space("alpha", 40, 4, families=5)
    trained, scored = [], []
    fit, score = Predictor.fit, Predictor.score

    def spy_fit(self, benchmarks, **options):
        trained.append(set(benchmarks.groups))
        return fit(self, benchmarks, **options)

    def spy_score(self, networks, **options):
        scored.append(set(networks.groups))
        return score(self, networks, **options)

    monkeypatch.setattr(Predictor, "fit", spy_fit)
    monkeypatch.setattr(Predictor, "score", spy_score)
    result = leave_groups_out(lambda: quick(heads=("gp",)), bench, n_folds=None, workers=1)
    assert len(trained) == len(scored) == 5
    assert all(not (a & b) for a, b in zip(trained, scored, strict=True))
    assert result.n == 40
    assert result["kendall"] > 0.6
    assert result["mae"] < 3


def test_few_shot_improves_with_labels():
    bench = space("alpha", 90, 4)
    curve = few_shot(quick(heads=("gp",)).fit, bench, sizes=(6, 50), seeds=3)
    assert curve.values["kendall"].shape == (2, 3)
    low, high = curve.values["kendall"].mean(1)
    assert low < high
    assert curve.to_dict()["rows"][1]["labels"] == 50
    assert "±" in curve.table()


def test_options_are_checked():
    for options in (
        {"heads": ()},
        {"options": {"gbdt": {"trees": 5}}},
        {"options": {"forest": {}}},
        {"heads": ("gbdt", "gbdt")},
        {"heads": ("svm",)},
        {"encoders": ("magic",)},
    ):
        with pytest.raises(ConfigError):
            Predictor(**options)
    with pytest.raises(ConfigError, match="n_seeds"):
        Predictor(n_seeds=0)
    assert Predictor(heads="gbdt").heads == ("gbdt",)


def test_before_fit(bench):
    for use in (lambda p: p.score(bench), lambda p: p.embed(bench), lambda p: p.report, lambda p: p.finetune(bench)):
        with pytest.raises(NotFittedError, match="not fitted"):
            use(Predictor())


def test_the_same_benchmark_twice_is_refused(bench):
    with pytest.raises(DataError, match="given twice"):
        quick().fit([bench, bench])
    with pytest.raises(DataError, match="at least one"):
        quick().fit([])


def test_heads_see_one_encoder_each(bench):
    """A head named with an encoder sees that encoder's columns only; a plain one is fitted on each."""
    both = quick(encoders=("statistics", "graph"), heads=("gp@graph", "gbdt@statistics")).fit(bench.select(range(40)))
    assert set(both.report["heads"]) == {"gp@graph", "gbdt@statistics"}
    every = quick(encoders=("statistics", "graph"), heads=("gp",)).fit(bench.select(range(40)))
    assert set(every.report["heads"]) == {"gp@statistics", "gp@graph"}
    with pytest.raises(ConfigError, match="wants the encoder 'text'"):
        quick(heads=("gp@text",))
    with pytest.raises(ConfigError, match="is there twice"):
        quick(heads=("gp", "gp@statistics"))


def test_finetuning_does_not_take_over_options_for_thousands(two_spaces, bench):
    """A shipped predictor's large leaves would leave no split in a handful of labels."""
    large = quick(options={"gbdt": {"min_leaf": 60}}).fit([space("alpha", 80, 1), space("beta", 80, 2, kernel=5)])
    tuned = large.finetune(bench.select(range(30)))
    outputs = tuned._heard(tuned._table(bench)).said
    assert outputs.learnt.std(axis=1).min() > 1e-6


def test_the_share_of_size_can_be_set(bench):
    plain, sized = quick().fit(bench), quick(size_share=0.5).fit(bench)
    assert [blend.share for blend in plain.fitted.ensemble.blends] == [0.0, 0.0, FAR_SHARE]
    assert [blend.share for blend in sized.fitted.ensemble.blends] == [0.5, 0.5, FAR_SHARE]
    several = quick(heads=("gbdt", "extra_trees@core")).fit([space(str(i), 30, i) for i in range(3)])
    assert [blend.share for blend in several.fitted.ensemble.blends] == [SHARE, SHARE]
    assert len(several.fitted.ensemble.views) == 2, "no heads of their own for far networks"
    with pytest.raises(ConfigError, match="size_share is -1"):
        quick(size_share=-1)


def test_networks_near_a_task_are_ranked_by_its_accuracy(two_spaces, fitted, bench):
    """What the task's own labels teach counts for networks like its own; elsewhere all benchmarks count alike."""
    (task,) = (each for each in two_spaces.fitted.tasks if each.task == "toy")
    table = two_spaces._table(bench)
    distance = two_spaces.fitted.reference.place(table).distance(task.owners)
    scores = two_spaces._scores(table, "toy", False, named=True)
    general = two_spaces._rank_scores(table)
    near = [i for i in range(len(bench)) if distance[i] <= 1]
    assert len(near) > len(bench) // 2
    told = np.array([scores[i].accuracy for i in near])
    order = np.argsort([scores[i].rank_score for i in near])
    assert (np.diff(told[order]) >= 0).all()
    assert kendall(told, general[near]) < 1
    far = table + 9 * two_spaces.fitted.reference.scaler.scale.clip(0, 10)
    np.testing.assert_allclose(two_spaces._rank_scores(far, "toy"), two_spaces._rank_scores(far))
    assert [s.rank_score for s in two_spaces.score(bench)] == general.tolist(), "no task is named"
    assert [s.rank_score for s in two_spaces.score(bench, task="toy")] == [s.rank_score for s in scores]
    assert all(model.scale is None for model in fitted.fitted.tasks), "a single benchmark needs no such thing"


def test_far_networks_are_scored_by_heads_of_their_own(bench):
    model = quick(size_share=0.0).fit(bench)
    near, far = (
        np.array([getattr(blend, kind) for blend in model.fitted.ensemble.blends]) for kind in ("weight", "far")
    )
    assert [view.name for view in model.fitted.ensemble.views] == [*model.heads, "extra_trees@core"]
    assert near[-1] == 0
    assert far.tolist() == [0, 0, 1]
    own = model._table(bench)
    reference = model.fitted.reference
    moved = own.copy()
    moved[:, : len(model.columns)] += 9 * reference.scaler.scale.clip(0, 10) * reference.edges[0]
    assert reference.place(moved).distance().min() > FAR
    table, size = moved, model.fitted.size_prior(model._features.sizes(moved)[0])
    said = model.fitted.ensemble.member_outputs(table, np.ones(len(table)))
    np.testing.assert_allclose(model._rank_scores(moved), (said.weights * said.scores(size)).sum(0))
    inside = reference.place(own).distance() <= 1
    assert inside.any()
    said = model.fitted.ensemble.member_outputs(own[inside])
    np.testing.assert_allclose(model._rank_scores(own)[inside], (said.weights * said.learnt).sum(0))
    without = quick(size_share=0.0, far_heads=()).fit(bench)
    assert len(without.fitted.ensemble.views) == 2
    said = without.fitted.ensemble.member_outputs(moved)
    np.testing.assert_allclose(without._rank_scores(moved), (said.weights * said.learnt).sum(0))


def test_outside_several_spaces_all_heads_count_alike():
    model = quick(n_seeds=1, heads=("gbdt", "extra_trees", "ridge")).fit([space(str(i), 30, i) for i in range(3)])
    near, far = (
        np.array([getattr(blend, kind) for blend in model.fitted.ensemble.blends]) for kind in ("weight", "far")
    )
    assert near.sum() == pytest.approx(1)
    assert far.tolist() == [1 / 3] * 3
    assert near.std() > 0
    own = model._table(space("other", 30, 9))
    distances = []
    for moved in (0, 0.5, 1, 1.5, 2, 5):
        table = own + moved * model.fitted.reference.scaler.scale.clip(0, 10)
        place = model.fitted.reference.place(table)
        far_off = place.outside() >= NEAR
        size = model.fitted.size_prior(model._features.sizes(table)[0])
        said = model.fitted.ensemble.member_outputs(table)
        trust = OUTSIDE_TRUST * (1 - (1 - FAR_TRUST) * farness(place.distance()))
        expected = far @ (trust * said.learnt + said.scores(size) - said.learnt)
        np.testing.assert_allclose(model._rank_scores(table)[far_off], expected[far_off])
        distances += place.distance()[far_off].tolist()
    assert min(distances) < NEAR < FAR < max(distances)


def test_a_space_inside_the_edge_of_a_broad_benchmark_is_outside():
    random = np.random.default_rng(0)
    broad, dense = random.normal(scale=10, size=(200, 4)), random.normal(scale=0.1, size=(2, 200, 4))
    table = np.concatenate([broad, *(dense + np.array([[[20.0]], [[-20.0]]]))])
    reference = Reference.fit(table, np.repeat([0, 1, 2], 200).astype(np.int32), seed=0)
    other = reference.place(random.normal(scale=0.1, size=(50, 4)))
    assert other.distance().max() < 1
    assert other.outside().min() > 2
    held = reference.place(random.normal(scale=0.1, size=(50, 4)) + 20)
    assert np.quantile(held.outside(), 0.8) < 1.2


def test_intervals_of_far_networks_know_what_ranks_elsewhere_are_worth(bench):
    model = quick(n_seeds=1).fit([space(str(i), 30, i) for i in range(3)])
    low, high = model.fitted.rank_errors
    assert low < 0 < high
    table = model._table(space("other", 30, 9))
    table += 5 * model.fitted.reference.scaler.scale.clip(0, 10)
    place = model.fitted.reference.place(table)
    assert place.distance().min() > FAR
    (task,) = (each for each in model.fitted.tasks if each.task == model.tasks[0])
    belongs = place.membership(task.owners).T
    scores = model._rank_scores(table)
    least, most = ((belongs * np.stack([each(scores + e) for each in task.maps])).sum(0) for e in (low, high))
    for score, bottom, top in zip(model._scores(table, task.task, False, named=True), least, most, strict=True):
        assert score.low <= bottom + 1e-9
        assert score.high >= top - 1e-9
    assert quick(n_seeds=1).fit(bench).fitted.rank_errors is None


@pytest.fixture(scope="module")
def two_budgets():
    """The same networks after 100 epochs, and after 10 with lower labels, under one task."""
    long = replace(space("alpha", 60, 1), epochs=100)
    short = replace(long, name="short", accuracy=long.accuracy * 0.6, epochs=10)
    return quick(n_seeds=1).fit([long, short]), long, short


def told(scores):
    return np.array([[score.accuracy, score.low, score.high] for score in scores]).T


def test_the_benchmark_of_the_budget_asked_for_counts(two_budgets):
    model, *benches = two_budgets
    assert [record["epochs"] for record in model.data] == [100, 10]
    for bench in benches:
        accuracy, low, high = told(model.score(bench, epochs=bench.epochs))
        assert np.abs(accuracy - bench.accuracy).mean() < 2
        assert ((low <= bench.accuracy) & (bench.accuracy <= high)).mean() > 0.8
        for factor in (1 / 3, 3.0):
            if not 10 <= bench.epochs * factor <= 100:  # else the other benchmark's budget is as near
                beyond = told(model.score(bench, epochs=bench.epochs * factor))
                assert (np.sign(beyond[0] - accuracy) == np.sign(factor - 1)).all()
                assert (width_in_logits(*beyond) > width_in_logits(accuracy, low, high)).all()
    between = told(model.score(benches[0], epochs=10**1.5))
    both = told(model.score(benches[0]))
    assert np.abs(between[0] - both[0]).max() < 15
    assert (width_in_logits(*between) > width_in_logits(*both)).all()


def width_in_logits(_, low, high):
    low, high = (np.clip(each / 100, 1e-4, 1 - 1e-4) for each in (low, high))
    return np.log(high / (1 - high)) - np.log(low / (1 - low))


def test_a_budget_changes_no_ranking(two_budgets, two_spaces, bench):
    for model in (two_budgets[0], two_spaces):
        for options in ({}, {"task": "toy"}, {"task": "toy", "pool": True}):
            plain = model.rank(bench, **options)
            for epochs in (3, 10, 100):
                ranked = model.rank(bench, epochs=epochs, **options)
                assert [(r.index, r.score.rank_score) for r in ranked] == [(r.index, r.score.rank_score) for r in plain]
            assert model.rank(bench, epochs=None, **options) == plain


def test_an_unknown_budget_is_taken_for_a_training_without_end(fitted, bench):
    plain, asked, endless = (told(fitted.score(bench, epochs=epochs)) for epochs in (None, 50, inf))
    assert (asked[0] < plain[0]).all()
    assert (asked[1] < plain[1]).all()
    np.testing.assert_array_equal(endless, plain)
    rest = replace(bench.select(range(60, 90)), epochs=50)
    evaluated = fitted.evaluate(rest, n_resamples=0)
    np.testing.assert_array_equal(told(evaluated.scores), asked[:, 60:])


def test_the_further_off_a_budget_the_wider_and_lower(bench):
    model = quick(n_seeds=1).fit(replace(bench, epochs=40))
    plain = told(model.score(bench))
    asked = np.array([told(model.score(bench, epochs=epochs)) for epochs in (40, 30, 20, 10, 2)])
    np.testing.assert_array_equal(asked[0], plain)
    assert (np.diff(asked[:, 0], axis=0) < 0).all()
    assert (np.diff([width_in_logits(*each) for each in asked[:4]], axis=0) > 0).all()


@pytest.mark.parametrize("bad", [0, -3, nan])
def test_budgets_that_make_no_sense_are_refused(fitted, bench, bad):
    for call in (fitted.score, fitted.rank):
        with pytest.raises(ConfigError, match=rf"epochs is {bad}, expected a number above 0, or None"):
            call(bench, epochs=bad)


def test_a_budget_without_a_task_changes_nothing(fitted, bench):
    ranks_only = quick(n_seeds=1, heads=("gp",)).fit(replace(bench, task=""))
    assert ranks_only.score(bench, epochs=5) == ranks_only.score(bench)
    assert ranks_only.score(bench, epochs=5)[0].accuracy is None
    with pytest.raises(ConfigError, match="knows no task"):
        fitted.score(bench, task="imagenet1k", epochs=5)


def test_far_heads_can_be_chosen(bench):
    chosen = quick(n_seeds=1, far_heads=("ridge",)).fit(bench)
    assert chosen.fitted.ensemble.views[-1].name == "ridge"
    with pytest.raises(ConfigError, match="'graph' names no core columns"):
        quick(encoders=("graph",), far_heads=("extra_trees@core",))
    assert len(quick(encoders=("graph",), heads=("ridge",)).fit(bench).fitted.ensemble.views) == 1


def test_nearest_networks_and_maps(fitted, bench, tmp_path):
    (name, distance), *others = fitted.nearest(bench.graphs[7], bench, k=3)
    assert name == bench.names[7]
    assert distance == pytest.approx(0, abs=1e-4)
    assert len(others) == 2
    assert fitted.nearest(bench.graphs[7], bench, k=1, encoder="graph")[0][0] == bench.names[7]
    fitted.map([bench.select(range(30)), space("beta", 20, 2, kernel=5)], tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="a figure ends in"):
        fitted.map([bench], tmp_path / "map.bmp")
    with pytest.raises(DataError, match="5 networks or more"):
        fitted.map([bench.select(range(3))], tmp_path / "map.png")
    with pytest.raises(DataError, match="equal embeddings"):
        draw_map(np.ones((6, 3), np.float32), ["alpha"] * 6, tmp_path / "map.png")
