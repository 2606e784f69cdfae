"""Accuracy maps, labels and weights, folds, blends, distances."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from archgauge.predictor.calibration import (
    BUDGET_ERROR,
    BUDGET_POWER,
    BUDGET_SCALE,
    LEVEL_SPREAD,
    Margins,
    RankMap,
    RankScale,
    at_budget,
    best_share,
    budget_step,
    cross_mapped,
    error_range,
    widen_levels,
    widen_ranks,
)
from archgauge.predictor.checkpoint import as_json
from archgauge.predictor.distance import FAR, NEAR, Place, Reference, beyond_edge, farness, fold_places, sample_rows
from archgauge.predictor.ensemble import assign_folds, blend_heads, combine
from archgauge.predictor.seeding import generator, integer_seed
from archgauge.predictor.tasks import TaskModel
from archgauge.predictor.transforms import Scaler, normal_ranks, ranks_and_values, space_weights


def drawn(n, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    score = random.normal(size=n)
    width = noise * np.where(score < 0, 3.0, 1.0)
    return score, np.clip(70 + 8 * np.tanh(score) + width * random.normal(size=n), 0, 100)


def test_labels_are_normal_quantiles_of_ranks():
    np.testing.assert_allclose(normal_ranks([30, 10, 20]), norm.ppf([5 / 6, 1 / 6, 3 / 6]))
    assert normal_ranks([1, 1, 5])[0] == normal_ranks([1, 1, 5])[1]
    assert not normal_ranks([4, 4, 4]).any()
    assert normal_ranks([]).shape == (0,)
    np.testing.assert_array_equal(normal_ranks([1, 2, 9]), normal_ranks([10, 20, 21]))


def test_few_labels_keep_how_far_apart_they_are():
    labels = np.array([90.0, 91.0, 92.0, 93.0, 93.1, 94.0])
    ranks, mixed = normal_ranks(labels), ranks_and_values(labels, True)
    assert (np.argsort(mixed) == np.argsort(labels)).all()
    assert mixed[4] - mixed[3] < 0.6 * (ranks[4] - ranks[3])
    values = np.log(labels / (100 - labels))
    np.testing.assert_allclose(mixed, (ranks + (values - values.mean()) / values.std()) / 2)
    np.testing.assert_allclose(ranks_and_values(labels, False), ranks_and_values(3 * labels - 500, False))
    assert not ranks_and_values([100.0, 100.0], True).any()
    assert ranks_and_values([], False).shape == (0,)


def test_a_failed_network_does_not_hide_how_far_apart_the_others_are():
    labels = np.linspace(90, 94, 20)
    usual, failed = (ranks_and_values([*labels, last], True)[:20] for last in (89.8, 0.0))
    np.testing.assert_allclose(failed, usual, atol=0.25)
    same = ranks_and_values([50.0] * 9 + [0.0, 100.0], True)
    assert same[9] < same[0] < same[10]


def test_a_space_of_n_counts_as_the_root_of_n():
    sizes = np.array([100, 400])
    weights = space_weights(sizes)
    totals = weights * sizes
    assert totals[1] / totals[0] == pytest.approx(2)
    assert totals.sum() == pytest.approx(sizes.sum())


def test_scaler_clips_and_silences_constants():
    table = np.column_stack([np.arange(50.0), np.full(50, 3.0)])
    scaler = Scaler.fit(table)
    scaled = scaler(np.array([[1e9, 99.0], [24.5, 3.0]]))
    np.testing.assert_allclose(scaled, [[4, 0], [0, 0]])
    again = Scaler.restore(scaler.arrays())
    np.testing.assert_array_equal(again(table), scaler(table))


def calibrated(score, accuracy, **options):
    """A map, and margins from estimates by maps that did not see the network."""
    groups = options.pop("groups", list(range(len(score))))
    mapped = cross_mapped(score, accuracy, groups, seed=0)
    return RankMap.fit(score, accuracy), Margins.fit(mapped, accuracy, groups=groups, **options)


@pytest.mark.parametrize("seed", range(3))
def test_interval_covers_about_as_often_as_it_says(seed):
    fitted, margins = calibrated(*drawn(600, seed))
    new, truth = drawn(4000, seed + 100)
    estimate = fitted(new)
    below, above = margins(estimate, np.full(4000, 0.8), np.zeros(4000))
    inside = (estimate - below <= truth) & (truth <= estimate + above)
    assert 0.86 < inside.mean() < 0.95
    wide, narrow = (above + below)[new < -0.5].mean(), (above + below)[new > 0.5].mean()
    assert wide > 1.5 * narrow


def test_map_rises_and_stays_within_the_labels():
    score, accuracy = drawn(200)
    fitted = RankMap.fit(score, accuracy)
    values = fitted(np.linspace(-8, 8, 400))
    assert (np.diff(values) >= -1e-9).all()
    assert values[0] >= accuracy.min()
    assert values[-1] <= accuracy.max()
    assert np.abs(fitted(score) - (70 + 8 * np.tanh(score))).mean() < 1


def test_groups_count_once():
    random = np.random.default_rng(0)
    score = random.normal(size=330)
    accuracy = 60 + 5 * score + random.normal(size=330)
    accuracy[:300] = 60 + 5 * score[:300] + 0.01 * random.normal(size=300)  # one large family, easy to guess
    estimate = 60 + 5 * score
    groups = [0] * 300 + list(range(1, 31))
    widths = [
        sum(side.mean() for side in margins(estimate, np.ones(330), np.zeros(330)))
        for margins in (Margins.fit(estimate, accuracy), Margins.fit(estimate, accuracy, groups=groups))
    ]
    assert widths[1] > 1.5 * widths[0]


def test_a_network_is_never_mapped_by_its_own_group():
    score, accuracy = drawn(100)
    groups = [i // 10 for i in range(100)]
    before = cross_mapped(score, accuracy, groups, seed=0)
    changed = accuracy.copy()
    changed[:10] = 5.0
    after = cross_mapped(score, changed, groups, seed=0)
    np.testing.assert_array_equal(before[:10], after[:10])
    assert (before[10:] != after[10:]).any()


def test_distance_and_spread_widen():
    _, margins = calibrated(*drawn(200), spread_edge=1.0)
    at = np.full(3, 70.0)
    zero = np.zeros(3)
    below, above = margins(at, np.array([0.5, 1.0, 3.0]), zero)
    assert above[0] == above[1]
    assert above[2] == pytest.approx(3 * above[0])
    spread = margins(at, zero, np.array([0.0, 1.0, 20.0]))[1]
    assert spread[0] == spread[1]
    assert spread[2] > 20
    assert below.min() > 0


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_few_labels_give_a_rising_line_and_honest_width(n):
    score, accuracy = drawn(n, noise=0.5)
    fitted, margins = calibrated(score, accuracy)
    ends = fitted(np.array([-1.0, 1.0]))
    assert ends[0] <= ends[1]
    assert fitted(np.array([score.mean()]))[0] == pytest.approx(accuracy.mean())
    width = sum(side[0] for side in margins(np.full(1, 70.0), np.ones(1), np.zeros(1)))
    assert width == 200 if n < 3 else width < 60


def test_an_earlier_map_lends_its_slope_to_one_label():
    before, margins_before = calibrated(*drawn(300))
    score, accuracy = np.array([0.2]), np.array([50.0])
    fitted = RankMap.fit(score, accuracy, before=before)
    at = np.array([-0.3, 0.7])
    assert np.diff(fitted(at))[0] == pytest.approx(np.diff(before(at))[0])
    margins = Margins.fit(accuracy, accuracy, before=margins_before)
    width = sum(side[0] for side in margins(accuracy, np.ones(1), np.zeros(1)))
    assert 2 < width < 40


@pytest.mark.parametrize("n", [5, 50])
def test_constant_labels(n):
    fitted, margins = calibrated(np.linspace(-1, 1, n), np.full(n, 42.0))
    np.testing.assert_allclose(fitted(np.array([-3.0, 0, 3])), 42)
    assert sum(side[0] for side in margins(np.full(1, 42.0), np.ones(1), np.zeros(1))) < 1


@pytest.mark.parametrize("n", [1, 10, 100])
def test_maps_and_margins_survive_json(n):
    fitted, margins = calibrated(*drawn(n))
    at = np.linspace(-3, 3, 20)
    np.testing.assert_array_equal(RankMap.from_dict(json.loads(as_json(fitted.to_dict())))(at), fitted(at))
    again = Margins.from_dict(json.loads(as_json(margins.to_dict())))
    np.testing.assert_array_equal(again(at + 70, at + 3, at + 3), margins(at + 70, at + 3, at + 3))


def test_the_better_estimate_gets_the_larger_share():
    truth = np.linspace(0, 100, 50)
    wrong = truth + 10 * np.random.default_rng(0).normal(size=50)
    assert best_share(wrong, truth, truth) == 1
    assert best_share(truth, wrong, truth) == 0
    other = truth + 10 * np.random.default_rng(1).normal(size=50)
    assert 0.2 < best_share(wrong, other, truth) < 0.8


def test_folds_keep_rows_that_share_any_key_together():
    keys = [(f"hash {i % 40}", f"family {i // 5}") for i in range(60)]
    folds = assign_folds(keys, 4, 0)
    for position in (0, 1):
        for name in {key[position] for key in keys}:
            assert len({fold for fold, key in zip(folds, keys, strict=True) if key[position] == name}) == 1
    assert set(folds) <= set(range(4))
    alone = assign_folds([(str(i),) for i in range(10)], 5, 0)
    assert np.bincount(alone).tolist() == [2] * 5
    assert set(assign_folds([("a",), ("a",)], 5, 0)) == {0}


def test_the_better_head_weighs_more_and_a_useless_one_little():
    random = np.random.default_rng(0)
    labels = random.normal(size=300)
    outputs = np.stack(
        [labels + 0.2 * random.normal(size=300), labels + random.normal(size=300), random.normal(size=300)]
    )
    blends = blend_heads(outputs, labels, np.zeros(300, np.int32))
    weights = [blend.weight for blend in blends]
    assert weights[0] > weights[1] > weights[2]
    assert sum(weights) == pytest.approx(1)
    alike = [blend.far for blend in blend_heads(outputs, labels, np.zeros(300, np.int32), alike_far=True)]
    assert [blend.far for blend in blends] == weights
    assert alike == pytest.approx([1 / 3] * 3)
    nothing = np.zeros(300)
    assert np.corrcoef(combine(outputs, blends, nothing, nothing), labels)[0, 1] > 0.95
    sized = blend_heads(outputs, labels, np.zeros(300, np.int32), share=0.5)
    np.testing.assert_allclose(
        combine(outputs, sized, nothing + 2, nothing) - combine(outputs, blends, nothing, nothing), 1.0
    )


def test_heads_are_compared_with_their_share_of_size():
    """How well a head tells what little size leaves over matters no more than that is worth."""
    random = np.random.default_rng(0)
    size, rest, error = random.normal(size=(3, 400))
    labels = 0.3 * rest
    outputs = np.stack([labels, labels + 0.3 * error])
    owner = np.zeros(400, np.int32)
    apart = [blend.kendall for blend in blend_heads(outputs, labels, owner, share=1.0)]
    together = [blend.kendall for blend in blend_heads(outputs, labels, owner, share=1.0, size=size)]
    assert apart == [pytest.approx(1), pytest.approx(0.5, abs=0.1)]
    assert together == [pytest.approx(1), pytest.approx(0.83, abs=0.05)]


def test_heads_are_judged_inside_each_benchmark():
    labels = np.tile(np.linspace(-1, 1, 50), 2)
    owner = np.repeat([0, 1], 50).astype(np.int32)
    offset = labels + 10 * owner
    pooled = np.sort(labels)
    blends = blend_heads(np.stack([offset, pooled]), labels, owner)
    assert blends[0].kendall == pytest.approx(1)


def test_distance_counts_from_the_edge():
    random = np.random.default_rng(0)
    table = random.normal(size=(400, 5))
    reference = Reference.fit(table, np.zeros(400, np.int32), seed=0)
    inside = reference.place(random.normal(size=(400, 5))).distance()
    assert 0.85 < (inside < 1).mean() < 0.99
    assert reference.place(np.full((1, 5), 30.0)).distance()[0] > 3
    again = Reference.restore(reference.arrays())
    np.testing.assert_array_equal(again.place(table).distance(), reference.place(table).distance())


def test_accuracies_become_ranks_and_keep_their_order():
    labels = np.random.default_rng(0).normal(70, 5, 500).round(1)
    scale = RankScale.fit(labels)
    values = scale(np.linspace(0, 100, 400))
    assert (np.diff(values) > 0).all()
    assert scale(np.array([np.median(labels)]))[0] == pytest.approx(0, abs=0.1)
    assert RankScale.from_dict(scale.to_dict())(labels).tolist() == scale(labels).tolist()
    assert RankScale.fit(np.full(50, 3.0)) is None


def test_error_range_counts_every_benchmark_alike():
    errors = np.concatenate([np.linspace(-1, 1, 1001), np.linspace(-3, 3, 101)])
    owner = np.repeat([0, 1], [1001, 101]).astype(np.int32)
    low, high = error_range(errors, owner)
    share = np.mean([((low <= errors[owner == i]) & (errors[owner == i] <= high)).mean() for i in (0, 1)])
    assert share == pytest.approx(0.9, abs=0.02)
    assert error_range(np.full(1102, 2.0), owner)[0] == 0


def test_networks_become_far_behind_the_edge():
    assert farness(np.array([0.0, NEAR, (NEAR + FAR) / 2, FAR, 9.0])).tolist() == [0, 0, 0.5, 1, 1]
    assert beyond_edge(np.array([0.0, 1.0, (1 + NEAR) / 2, NEAR, 9.0])).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("n", [1, 2])
def test_distance_with_a_training_set_of_one_or_two(n):
    reference = Reference.fit(np.arange(3.0 * n).reshape(n, 3), np.zeros(n, np.int32), seed=0)
    assert np.isfinite(reference.place(np.ones((4, 3))).distance()).all()


def test_membership_follows_closeness():
    random = np.random.default_rng(0)
    table = np.concatenate([random.normal(-2, 1, (50, 4)), random.normal(2, 1, (80, 4))])
    owner = np.repeat([3, 7], [50, 80]).astype(np.int32)
    reference = Reference.fit(table, owner, seed=0)
    share = reference.place(np.array([[-2.0] * 4, [2.0] * 4])).membership([3, 7])
    np.testing.assert_allclose(share.sum(1), 1)
    assert share[0, 0] > 0.9
    assert share[1, 1] > 0.9
    assert reference.place(table).membership([7]).tolist() == [[1.0]] * 130


def test_held_out_folds_are_farther_than_their_own():
    table = np.concatenate([np.random.default_rng(0).normal(size=(50, 3)), np.full((10, 3), 9.0)])
    folds = np.repeat([0, 1, 2], [25, 25, 10]).astype(np.int32)
    distances, _ = fold_places(table, folds, np.zeros(60, np.int32), seed=0)
    assert distances[50:].min() > 2 > np.median(distances[:50])


def test_the_sample_takes_all_of_the_small_and_shares_the_rest():
    owner = np.repeat([0, 1, 2], [10, 500, 500]).astype(np.int32)
    rows = sample_rows(owner, 210, 0)
    assert np.bincount(owner[rows]).tolist() == [10, 100, 100]
    np.testing.assert_array_equal(rows, sample_rows(owner, 210, 0))


def test_parts_of_a_seed_are_independent_and_repeatable():
    assert integer_seed(0, "mlp", 1) == integer_seed(0, "mlp", 1)
    assert len({integer_seed(s, name, i) for s in (0, 1) for name in ("mlp", "gbdt") for i in (0, 1)}) == 8
    assert generator(5, "x").random() == generator(5, "x").random()


def task_model(budgets):
    """A task's benchmarks at these budgets; the map of each says its number."""
    maps = tuple(RankMap(np.zeros(1), np.array([float(i)]), 0.0, 0.0, 0.0, 100.0) for i in range(len(budgets)))
    margins = (Margins.fit(np.arange(5.0), np.arange(5.0)),) * len(budgets)
    return TaskModel("toy", tuple(range(3, 3 + len(budgets))), tuple(budgets), maps, margins, None, 0.0)


@pytest.mark.parametrize(
    ("budgets", "epochs", "kept", "step"),
    [
        ((200.0, 12.0, None), None, (3, 4, 5), 0),
        ((200.0, 12.0, None), 200, (3,), 0),
        ((200.0, 12.0, 200.0), 200, (3, 5), 0),
        ((200.0, 12.0, None), 48, (4,), budget_step(12, 48)),  # 12 and 200 are nearer in ratio than in difference
        ((200.0, 12.0, None), 250, (3,), budget_step(200, 250)),
        ((None, None), 30, (3, 4), -BUDGET_SCALE * 30**-BUDGET_POWER),
        ((100.0,), np.inf, (3,), BUDGET_SCALE * 100**-BUDGET_POWER),
        ((None, 100.0), np.inf, (3,), 0),
        ((12.0, 200.0), np.inf, (4,), BUDGET_SCALE * 200**-BUDGET_POWER),
    ],
)
def test_benchmarks_of_the_nearest_budget_count(budgets, epochs, kept, step):
    model = task_model(budgets)
    chosen = model.nearest_budget(epochs)
    assert chosen.owners == kept
    assert [each(np.zeros(1))[0] for each in chosen.maps] == [owner - 3 for owner in kept]
    assert chosen.budgets == tuple(budgets[owner - 3] for owner in kept)
    assert len(kept) < len(budgets) or chosen is model
    place = Place(np.random.default_rng(0).uniform(1, 2, (4, len(budgets))), np.ones(len(budgets)), model.owners)
    np.testing.assert_allclose(chosen.steps(place, epochs), step, atol=1e-12)
    again = TaskModel.from_dict(json.loads(as_json(model.to_dict())), None)
    assert again.budgets == model.budgets


epochs_given = st.floats(1, 1e6)


@given(epochs_given, epochs_given, epochs_given)
def test_labels_rise_with_the_budget_and_steps_add_up(a, b, c):
    assert np.sign(budget_step(a, b)) == np.sign(b - a) or abs(b - a) < 1e-9 * b
    np.testing.assert_allclose(budget_step(a, b) + budget_step(b, c), budget_step(a, c), atol=1e-12)
    assert budget_step(None, a) <= 0 == budget_step(a, a)


def test_the_power_law_is_that_of_the_cells():
    """Medians of 91 cells of NAS-Bench-101 after 4, 12, 36 and 108 epochs (EC-NAS), printed by label_levels.py."""
    logits = np.log(np.array([49.4, 79.6, 88.0, 90.6]) / (100 - np.array([49.4, 79.6, 88.0, 90.6])))
    steps = [budget_step(epochs, 108) for epochs in (4, 12, 36, 108)]
    np.testing.assert_allclose(logits[-1] - logits, steps, atol=0.02)


def test_errors_of_ranks_count_by_the_slope_in_the_middle():
    steep = RankMap.fit(np.linspace(-2, 2, 400), np.concatenate([np.linspace(10, 80, 40), np.linspace(88, 94, 360)]))
    slope = steep.logits_per_score()
    ends = steep(np.array([-0.6745, 0.6745])) / 100
    assert slope == pytest.approx(np.diff(np.log(ends / (1 - ends)))[0] / 1.349)
    accuracy, low, high = np.full(3, 91.0), np.array([90.0, 90.0, 10.0]), np.array([92.0, 92.0, 99.9])
    bottom, top = widen_ranks(accuracy, low, high, (-1.5, 1.2), slope * np.array([0.0, 1.0, 1.0]))
    assert (bottom[0], top[0], bottom[2], top[2]) == (90, 92, 10, 99.9)
    np.testing.assert_allclose(np.log(bottom[1] / (100 - bottom[1])), np.log(91 / 9) - 1.5 * slope)
    np.testing.assert_allclose(np.log(top[1] / (100 - top[1])), np.log(91 / 9) + 1.2 * slope)
    middle = np.interp(91, steep.accuracy, steep.scores)
    (far_down, _, _), _ = widen_ranks(accuracy, low, high, (-1.9, 1.2), np.full(3, slope))
    assert far_down > steep(np.array([middle - 1.9]))[0] + 5, "the tail of one benchmark counts nowhere else"


def test_another_budget_moves_and_widens():
    accuracy, low, high = np.array([93.0, 93.0, 93.0]), np.array([91.0, 91.0, 91.0]), np.array([94.0, 94.0, 94.0])
    step = np.array([0.0, -1.0, 0.4])
    moved, bottom, top = at_budget(accuracy, low, high, step)
    assert (moved[0], bottom[0], top[0]) == (93.0, 91.0, 94.0)
    logit = [np.log(each / (100 - each)) for each in (accuracy, low, high)]
    after = [np.log(each / (100 - each)) for each in (moved, bottom, top)]
    np.testing.assert_allclose(after[0], logit[0] + step)
    for end, before in zip(after[1:], logit[1:], strict=True):
        np.testing.assert_allclose(
            np.abs(end - after[0]), np.hypot(before - logit[0], 1.645 * BUDGET_ERROR * np.abs(step))
        )


def test_levels_widen_intervals_outside_only():
    accuracy, low, high = np.array([93.0, 93.0, 100.0, 0.0]), np.array([91.0, 91.0, 99.0, 0.0]), np.full(4, 100.0)
    high[:2] = 94.0
    same = widen_levels(accuracy, low, high, np.zeros(4))
    np.testing.assert_array_equal(same, (low, high))
    bottom, top = widen_levels(accuracy, low, high, np.array([1.0, 0.5, 1.0, 1.0]))
    assert (bottom <= low).all()
    assert (top >= high).all()
    assert bottom[0] < bottom[1] < 91
    assert 94 < top[1] < top[0] < 100
    alone = widen_levels(accuracy[:1], accuracy[:1], accuracy[:1], np.ones(1))
    odds = np.array(alone) / (100 - np.array(alone))
    np.testing.assert_allclose(np.log(odds / (93 / 7)), 1.645 * LEVEL_SPREAD * np.array([[-1], [1]]))
