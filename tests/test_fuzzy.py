"""Fuzzy c-means: memberships, typicality, the choice of clusters, and determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from archgauge.encoders.errors import ConfigError, DataError
from archgauge.predictor.checkpoint import as_safetensors, from_safetensors
from archgauge.predictor.fuzzy import FuzzyMeans

CENTRES = np.array([[0.0, 0, 0, 0], [12, 0, 12, 0], [0, 12, 0, 12]])


def blobs(n=90, seed=0):
    random = np.random.default_rng(seed)
    owner = np.arange(n) % 3
    return CENTRES[owner] + random.normal(size=(n, 4)), owner


tables = st.tuples(st.integers(1, 30), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 40.0]))
)


@settings(max_examples=40)
@given(table=tables, clusters=st.integers(1, 5), fuzzifier=st.sampled_from([None, 1.05, 2.0, 5.0]))
def test_memberships_sum_to_one_and_typicality_is_a_share(table, clusters, fuzzifier):
    found = FuzzyMeans.fit(table, clusters=clusters, fuzzifier=fuzzifier, restarts=1)
    elsewhere = np.vstack([table, 1e6 * table, table + 1e12])
    shares = found.memberships(elsewhere)
    assert shares.shape == (len(elsewhere), min(clusters, len(found.centroids)))
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-12)
    assert ((shares >= 0) & (shares <= 1)).all()
    typical = found.typicality(elsewhere)
    assert ((typical >= 0) & (typical <= 1)).all()


@settings(max_examples=25)
@given(table=tables, seed=st.integers(0, 1000))
def test_the_order_of_the_rows_plays_no_part(table, seed):
    shuffled = np.random.default_rng(seed).permutation(len(table))
    one = FuzzyMeans.fit(table, clusters=3, restarts=1)
    other = FuzzyMeans.fit(table[shuffled], clusters=3, restarts=1)
    np.testing.assert_array_equal(one.centroids, other.centroids)
    np.testing.assert_array_equal(one.memberships(table)[shuffled], other.memberships(table[shuffled]))


def test_clusters_are_found_and_their_number_is_chosen():
    table, owner = blobs()
    found = FuzzyMeans.fit(table)
    assert len(found.centroids) == 3
    best = found.memberships(table).argmax(1)
    assert len({(a, b) for a, b in zip(owner, best, strict=True)}) == 3


def test_a_far_row_belongs_to_all_and_is_typical_of_none():
    table, _ = blobs()
    found = FuzzyMeans.fit(table)
    far = np.array([[500.0, 500, 500, 500]])
    assert found.memberships(far).max() < 0.5
    assert found.typicality(far)[0] < 0.01
    assert np.median(found.typicality(table)) > 0.3


def test_a_row_far_off_the_principal_components_is_atypical_too():
    random = np.random.default_rng(0)
    table = random.normal(size=(100, 8)) * np.array([1, 1, 1, 1, 1, 1, 1, 1])
    table[:, 7] = table[:, 6] + 1e-3 * random.normal(size=100)  # together 6 and 7 are one component
    found = FuzzyMeans.fit(table, clusters=2, dimensions=1)
    across = table[:1].copy()
    across[0, 6] += 30
    across[0, 7] -= 30
    assert found.typicality(across)[0] < 0.1 * found.typicality(table[:1])[0]


def test_a_larger_fuzzifier_blurs():
    table, _ = blobs()
    crisp, blurred = (FuzzyMeans.fit(table, clusters=3, fuzzifier=m).memberships(table).max(1) for m in (1.1, 4.0))
    assert crisp.mean() > 0.99
    assert blurred.mean() < 0.9


def test_a_row_on_a_centroid_belongs_to_it_alone():
    table = np.repeat([[0.0, 0], [1, 0], [0, 5]], 4, axis=0)
    found = FuzzyMeans.fit(table, clusters=3, fuzzifier=2.0)
    np.testing.assert_allclose(np.sort(found.memberships(table), axis=1)[:, -1], 1, atol=1e-6)
    assert (found.typicality(table) > 0.99).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_there_are_never_more_clusters_than_different_rows(rows):
    table = np.repeat(np.arange(rows, dtype=float)[:, None], 3, axis=0)
    found = FuzzyMeans.fit(table, clusters=7)
    assert len(found.centroids) == rows
    assert np.isfinite(found.memberships(table)).all()


def test_few_rows_are_one_cluster_unless_told():
    table, _ = blobs(39)
    assert len(FuzzyMeans.fit(table).centroids) == 1
    assert len(FuzzyMeans.fit(table, clusters=3).centroids) == 3


def test_constant_columns_change_nothing():
    table, _ = blobs()
    plain = FuzzyMeans.fit(table).memberships(table)
    wider = np.column_stack([table, np.full(len(table), 7.0)])
    np.testing.assert_allclose(FuzzyMeans.fit(wider).memberships(wider), plain, atol=1e-8)
    every = np.full((5, 3), 2.5)
    np.testing.assert_array_equal(FuzzyMeans.fit(every, clusters=4).memberships(every), np.ones((5, 1)))


def test_duplicates_of_all_rows_change_nothing():
    table, _ = blobs(60)
    once = FuzzyMeans.fit(table, clusters=3, fuzzifier=2.0)
    twice = FuzzyMeans.fit(np.vstack([table, table]), clusters=3, fuzzifier=2.0)
    order = [np.argsort(each.memberships(CENTRES).argmax(0)) for each in (once, twice)]
    np.testing.assert_allclose(once.memberships(table)[:, order[0]], twice.memberships(table)[:, order[1]], atol=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_arrays_restore_it(tmp_path):
    table, _ = blobs()
    one, two = FuzzyMeans.fit(table, seed=3), FuzzyMeans.fit(table, seed=3)
    stored = as_safetensors(one.arrays())
    assert stored == as_safetensors(two.arrays())
    again = FuzzyMeans.restore(from_safetensors(stored, tmp_path / "file"))
    np.testing.assert_array_equal(again.memberships(table), one.memberships(table))
    np.testing.assert_array_equal(again.typicality(table), one.typicality(table))


def test_many_rows_are_sampled():
    table, _ = blobs(600)
    found = FuzzyMeans.fit(table, max_rows=100)
    assert len(found.centroids) == 3
    assert np.median(found.typicality(table)) > 0.3


@pytest.mark.parametrize("table", [np.zeros((0, 3)), np.array([[np.nan]]), np.zeros(3)])
def test_bad_tables_are_refused(table):
    with pytest.raises(DataError, match="finite numbers"):
        FuzzyMeans.fit(table)


@pytest.mark.parametrize("options", [{"clusters": 0}, {"fuzzifier": 1.0}, {"dimensions": 0}, {"fuzzifier": np.inf}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected"):
        FuzzyMeans.fit(np.eye(3), **options)
