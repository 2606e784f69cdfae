"""Metrics against hand values, brute force, scipy and scikit-learn."""

from itertools import combinations
from math import isnan, log2, sqrt

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from archgauge.encoders.errors import DataError
from archgauge.predictor.metrics import (
    RANK_METRICS,
    bootstrap_interval,
    kendall,
    mean_absolute_error,
    ndcg,
    ndcg_at_10,
    spearman,
    top_regret,
)


def tau_b(a, b):
    pairs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    x, y = np.array(pairs).T
    return (x * y).sum() / sqrt((x != 0).sum() * (y != 0).sum())


def with_ties(seed, n=40):
    random = np.random.default_rng(seed)
    return random.integers(0, 8, n).astype(float), random.integers(0, 6, n).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_kendall_equals_its_definition_with_ties(seed):
    a, b = with_ties(seed)
    assert kendall(a, b) == pytest.approx(tau_b(a, b), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_spearman_equals_scipy_with_ties(seed):
    a, b = with_ties(seed)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ndcg_equals_scikit_learn_with_ties(seed):
    accuracy, score = with_ties(seed)
    gains = (accuracy - accuracy.min()) / (accuracy.max() - accuracy.min())
    assert ndcg_at_10(accuracy, score) == pytest.approx(ndcg_score([gains], [score], k=10), abs=1e-12)


def test_ndcg_by_hand():
    # gains 0, 1, 0.5; the score ranks them 0.5, 0, 1
    expected = (0.5 / 1 + 0 / log2(3) + 1 / 2) / (1 / 1 + 0.5 / log2(3) + 0 / 2)
    assert ndcg([60, 80, 70], [2, 1, 3], k=3) == pytest.approx(expected)


def test_regret_by_hand():
    accuracy = np.arange(200.0) / 4
    assert top_regret(accuracy, accuracy) == 0
    assert top_regret(accuracy, -accuracy) == pytest.approx(199 / 4 - 1 / 4)  # two chosen: 0 and 0.25
    assert top_regret([50, 60, 90], [1, 3, 2]) == 30


def test_regret_of_ties_is_the_expectation_over_random_choices():
    # one of three tied networks is chosen
    assert top_regret([50, 60, 70, 10], [1, 1, 1, 0]) == pytest.approx(70 - 60)
    # two of three: 60, 70, 70 are the maxima of the three choices
    assert top_regret([50, 60, 70], [1, 1, 1], share=0.67) == pytest.approx(70 - (60 + 70 + 70) / 3)


def test_regret_of_a_constant_score_is_that_of_a_random_choice():
    random = np.random.default_rng(0)
    accuracy = random.normal(50, 5, 300)
    draws = [accuracy.max() - random.choice(accuracy, 3, replace=False).max() for _ in range(20_000)]
    assert top_regret(accuracy, np.zeros(300)) == pytest.approx(np.mean(draws), abs=0.1)


def test_perfect_and_reversed():
    accuracy = np.array([10.0, 30, 20, 90])
    for metric in (spearman, kendall):
        assert metric(accuracy, accuracy**3) == pytest.approx(1)
        assert metric(accuracy, -accuracy) == pytest.approx(-1)
    assert ndcg_at_10(accuracy, accuracy) == pytest.approx(1)


@pytest.mark.parametrize("metric", [spearman, kendall, ndcg_at_10])
@pytest.mark.parametrize(("accuracy", "score"), [([], []), ([5], [1]), ([5, 5, 5], [1, 2, 3])])
def test_undefined_is_nan(metric, accuracy, score):
    assert isnan(metric(accuracy, score))


def test_a_constant_score_has_no_rank_correlation():
    assert isnan(spearman([1, 2], [3, 3]))
    assert isnan(kendall([1, 2], [3, 3]))
    assert 0 < ndcg_at_10([1, 2], [3, 3]) < 1


def test_errors_and_regrets_of_nothing_are_nan():
    assert isnan(mean_absolute_error([], []))
    assert isnan(top_regret([], []))
    assert mean_absolute_error([10, 20], [12, 15]) == 3.5


@pytest.mark.parametrize("metric", RANK_METRICS.values())
def test_numbers_that_are_not_finite_are_named(metric):
    with pytest.raises(DataError, match="score 1 is nan"):
        metric([1, 2, 3], [1, np.nan, 3])
    with pytest.raises(DataError, match="one length"):
        metric([1, 2, 3], [1, 2])


def test_bootstrap_holds_the_value_and_is_repeatable():
    accuracy, score = with_ties(1, 200)
    score = score + accuracy
    interval = bootstrap_interval(kendall, accuracy, score, seed=3)
    assert interval.low < interval.value < interval.high
    assert interval == bootstrap_interval(kendall, accuracy, score, seed=3)
    assert interval != bootstrap_interval(kendall, accuracy, score, seed=4)


def test_bootstrap_by_groups_is_wider_when_groups_agree():
    random = np.random.default_rng(0)
    accuracy = np.repeat(random.normal(size=12), 30)
    score = np.repeat(accuracy[::30] + random.normal(size=12), 30)
    groups = [str(i // 30) for i in range(360)]
    single = bootstrap_interval(spearman, accuracy, score)
    grouped = bootstrap_interval(spearman, accuracy, score, groups=groups)
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_bootstrap_of_one_network_has_no_interval():
    interval = bootstrap_interval(mean_absolute_error, [50], [52])
    assert interval.value == 2
    assert isnan(interval.low)
    assert isnan(interval.high)
