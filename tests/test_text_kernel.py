"""The process over texts: it learns, says how much it knows, and finds out which labels matter."""

import numpy as np

from archgauge.encoders.text_context import FAMILIES
from archgauge.predictor.metrics import spearman
from archgauge.predictor.text_kernel import TextProcess

RANDOM = np.random.default_rng(0)


def texts(count, family, labels=range(6), random=RANDOM):
    """Counts of labels that differ in one family, and what they add up to."""
    counts, sums = [], []
    for _ in range(count):
        row = [{1: 1} for _ in FAMILIES]
        row[family] = {label: int(random.integers(1, 9)) for label in labels}
        counts.append(tuple(row))
        sums.append(sum(np.log1p(row[family][label]) * (label % 3 - 1) for label in labels))
    return counts, np.array(sums)


def test_learns_from_counts_and_from_vectors():
    for family in (0, 3):
        counts, labels = texts(160, family)
        vectors = RANDOM.normal(size=(160, 3))
        process = TextProcess().fit(counts[:80], vectors[:80] * 0, labels[:80], np.ones(80))
        assert spearman(labels[80:], process.predict(counts[80:], vectors[80:] * 0).mean) > 0.9
    flat = [tuple({1: 1} for _ in FAMILIES)] * 160
    labels = vectors @ np.array([1.0, -2.0, 0.5])
    told = TextProcess().fit(flat[:80], vectors[:80], labels[:80], np.ones(80)).predict(flat[80:], vectors[80:])
    assert spearman(labels[80:], told.mean) > 0.9


def test_share_is_high_near_what_was_learned_and_low_far_from_it():
    counts, labels = texts(100, 1)
    strange, _ = texts(5, 1, labels=range(100, 130))
    process = TextProcess().fit(counts[:90], np.zeros((90, 1)), labels[:90], np.ones(90))
    near, far = process.predict(counts[90:], np.zeros((10, 1))), process.predict(strange, np.zeros((5, 1)))
    assert near.share.min() > 0.6
    assert far.share.max() < 0.3
    assert (near.share <= 1).all()
    assert np.abs(far.mean - labels.mean()).max() < np.abs(labels - labels.mean()).max() / 2


def test_weight_goes_to_the_family_that_tells():
    random = np.random.default_rng(1)
    counts, labels = texts(90, 2, random=random)
    noise, _ = texts(90, 4, random=random)
    mixed = [(*one[:4], other[4]) for one, other in zip(counts, noise, strict=True)]
    process = TextProcess().fit(mixed, np.zeros((90, 1)), labels, np.ones(90))
    assert process._stretch[2] > 3 * process._stretch[4]


def test_rows_without_weight_count_for_nothing_and_constant_labels_stay():
    counts, labels = texts(60, 0)
    weights = np.repeat([2.0, 0.0], 30)
    wrong = np.where(weights > 0, labels, 50.0)
    zeros = np.zeros((60, 1))
    told = TextProcess().fit(counts, zeros, wrong, weights).predict(counts[:30], zeros[:30])
    assert np.abs(told.mean - labels[:30]).max() < 1.0
    told = TextProcess().fit(counts, zeros, np.full(60, 3.0), np.ones(60)).predict(counts, zeros)
    np.testing.assert_allclose(told.mean, 3.0)
    assert (told.share == 0).all()


def test_many_rows_are_drawn_with_the_seed():
    counts, labels = texts(60, 0)
    vectors = np.zeros((60, 1))

    def means(seed):
        process = TextProcess(max_rows=20, seed=seed).fit(counts, vectors, labels, np.ones(60))
        return process.predict(counts, vectors).mean

    np.testing.assert_array_equal(means(0), means(0))
    assert not np.array_equal(means(0), means(1))


def test_no_texts_and_one_text():
    counts, labels = texts(5, 0)
    process = TextProcess().fit(counts, np.zeros((5, 1)), labels, np.ones(5))
    assert process.predict([], np.zeros((0, 1))).mean.shape == (0,)
    alone = TextProcess().fit(counts[:1], np.zeros((1, 1)), labels[:1], np.ones(1))
    np.testing.assert_allclose(alone.predict(counts, np.zeros((5, 1))).mean, labels[0])
