"""The share of size: between two measures, those that do not vary, spaces without variety, pools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archgauge.predictor.size_prior import fit_size_prior, middling, within_spaces
from archgauge.predictor.transforms import normal_ranks

OWNER = np.repeat([0, 1], 20).astype(np.int32)
SIZES = np.random.default_rng(0).normal(size=(40, 4)) + OWNER[:, None]


@given(arrays(np.float64, (6, 4), elements=st.floats(-5, 5)), st.integers(0, 3), st.floats(0, 3))
def test_size_lies_between_the_first_two_and_never_falls(measures, column, more):
    size = middling(measures)
    assert (size >= measures[:, :2].min(axis=1) - 1e-12).all()
    assert (size <= measures[:, :2].max(axis=1) + 1e-12).all()
    medians = [np.median(measures[:, [0, 1, third]], axis=1) for third in (2, 3)]
    np.testing.assert_allclose(size, np.mean(medians, axis=0))
    larger = measures.copy()
    larger[:, column] += more
    assert (middling(larger) >= size - 1e-12).all()
    np.testing.assert_allclose(middling(measures[:, :2]), measures[:, :2].mean(axis=1))
    np.testing.assert_allclose(middling(measures[:, :1]), measures[:, 0])


def test_larger_is_better_and_a_pool_ranks_alike():
    prior = fit_size_prior(SIZES, [4], OWNER)
    term = prior(SIZES)
    assert term.shape == (40,)
    assert np.mean([term[i == OWNER].std() for i in (0, 1)]) == pytest.approx(1)
    assert prior(SIZES + 1).min() > term.min()
    np.testing.assert_allclose(prior.in_pool(SIZES[:20]), (term[:20] + normal_ranks(term[:20])) / 2)
    np.testing.assert_allclose(within_spaces(term, OWNER)[20:], normal_ranks(term[20:]))


def test_encoders_count_alike():
    alone = [fit_size_prior(SIZES[:, part], [2], OWNER) for part in (slice(2), slice(2, 4))]
    both = fit_size_prior(SIZES, [2, 0, 2], OWNER)
    each = [prior(SIZES[:, part]) * prior.deviation for prior, part in zip(alone, (slice(2), slice(2, 4)), strict=True)]
    np.testing.assert_allclose(both(SIZES) * both.deviation, np.mean(each, axis=0))


def test_a_measure_that_never_varies_is_not_used():
    constant = SIZES.copy()
    constant[:, 1] = 3.0
    prior = fit_size_prior(constant, [4], OWNER)
    np.testing.assert_allclose(
        prior(constant), fit_size_prior(constant[:, [0, 2, 3]], [3], OWNER)(constant[:, [0, 2, 3]])
    )
    np.testing.assert_array_equal(prior(constant + np.array([0.0, 5.0, 0.0, 0.0])), prior(constant))
    assert fit_size_prior(np.ones((40, 2)), [2], OWNER) is None
    assert fit_size_prior(np.ones((40, 0)), [0], OWNER) is None


def test_a_space_of_one_network_changes_no_scale():
    before = fit_size_prior(SIZES, [4], OWNER)
    more = fit_size_prior(np.vstack([SIZES, [[9.0] * 4]]), [4], np.append(OWNER, 2))
    np.testing.assert_allclose(more.scales, before.scales)
