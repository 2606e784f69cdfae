"""The share of size: measures that do not vary, spaces without variety, pools."""

import numpy as np

from archgauge.predictor.size_prior import fit_size_prior, within_spaces

OWNER = np.repeat([0, 1], 20).astype(np.int32)
SIZES = np.random.default_rng(0).normal(size=(40, 2)) + OWNER[:, None]


def test_larger_is_better_and_a_pool_ranks_alike():
    prior = fit_size_prior(SIZES, OWNER)
    term = prior(SIZES)
    assert term.shape == (40,)
    assert prior(SIZES + 1).min() > term.min()
    np.testing.assert_allclose(prior.in_pool(SIZES[:20]), (term[:20] + within_spaces(SIZES[:20], OWNER[:20])) / 2)


def test_a_measure_that_never_varies_adds_nothing():
    constant = SIZES.copy()
    constant[:, 1] = 3.0
    prior = fit_size_prior(constant, OWNER)
    other = constant + np.array([0.0, 5.0])
    np.testing.assert_allclose(prior(other), prior(constant), atol=1e-9)
    assert fit_size_prior(np.ones((40, 2)), OWNER) is None
    assert fit_size_prior(np.ones((40, 0)), OWNER) is None


def test_a_space_of_one_network_changes_no_scale():
    more = fit_size_prior(np.vstack([SIZES, [[9.0, 9.0]]]), np.append(OWNER, 2))
    np.testing.assert_allclose(more.scales, fit_size_prior(SIZES, OWNER).scales)
