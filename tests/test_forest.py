"""Flattened trees: what they add up to, LightGBM's and scikit-learn's predictions, and arrays that are no trees."""

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor

from archgauge.predictor import forest as module
from archgauge.predictor.extra_trees_head import _flattened as flat_extra_trees
from archgauge.predictor.forest import Forest, column_type
from archgauge.predictor.gbdt_head import ZERO
from archgauge.predictor.gbdt_head import _flattened as flat_booster


def small_forest(kind=np.float64):
    """x1 <= 0.5 ? (x0 <= -1 ? 1 : 2) : 4, and a tree that is a single leaf, 10."""
    return Forest(
        roots=np.array([0, 5], np.int32),
        right=np.array([4, 3, -1, -1, -1, -1], np.int32),
        column=np.array([1, 0, -2, -2, -2, 0], np.int16),
        threshold=np.array([0.5, -1, 0, 0, 0, 0], kind),
        value=np.array([0, 0, 1, 2, 4, 10], kind),
    )


def boosted(table, labels, rounds=20, **options):
    """LightGBM's model of a table, and its trees as a forest."""
    parameters = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_in_bin": 1, **options}
    booster = lightgbm.train(parameters, lightgbm.Dataset(table, labels, params=parameters), rounds)
    return booster, flat_booster(booster.dump_model()["tree_info"], table.shape[1])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_fall_left_at_the_threshold_and_the_leaves_are_added(kind):
    table = np.array([[-1, 0.5], [-0.9, 0.5], [-5, 0.6]])
    np.testing.assert_array_equal(small_forest(kind)(table), [11, 12, 14])


def test_no_rows_and_no_trees_add_up_to_nothing():
    empty = Forest(*(part[:0] for part in small_forest().arrays().values()))
    np.testing.assert_array_equal(empty(np.ones((3, 2))), np.zeros(3))
    assert small_forest()(np.ones((0, 2))).shape == (0,)


def test_trees_without_columns_are_leaves():
    forest = Forest(*(part[5:] for part in small_forest().arrays().values()))
    forest = replace(forest, roots=np.zeros(2, np.int32))
    np.testing.assert_array_equal(forest(np.ones((3, 0))), [20, 20, 20])


def lattice(random, rows, width):
    """Numbers of which many are equal, 0, next to 0, or huge."""
    table = np.round(random.normal(size=(rows, width)), 1) * 10.0 ** random.integers(-3, 4, width)
    odd = [0.0, -0.0, ZERO, -ZERO, 2 * ZERO, -2 * ZERO, 1e-36, -1e-36, 5e-324, -5e-324, 1e300, -1e300]
    return np.where(random.random(table.shape) < 0.3, random.choice(odd, table.shape), table)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60), width=st.integers(1, 6), leaves=st.integers(2, 15))
@settings(max_examples=60, deadline=None)
def test_boosted_trees_predict_what_lightgbm_predicts(seed, rows, width, leaves):
    random = np.random.default_rng(seed)
    table = lattice(random, rows, width)
    booster, forest = boosted(table, random.normal(size=rows), num_leaves=leaves)
    inner = forest.right >= 0
    edges = np.concatenate([forest.threshold[inner], [0.0]])
    at_edges = random.choice(edges, (50, width))
    beside = np.nextafter(at_edges, random.choice([-np.inf, np.inf], at_edges.shape))
    for each in (table, lattice(random, 50, width), at_edges, beside):
        np.testing.assert_array_equal(forest(each), booster.predict(each, num_threads=1))


def test_zeros_stand_on_the_side_lightgbm_puts_them_on():
    table = np.repeat([[-1.0], [0.0], [1.0]], 5, axis=0)
    booster, forest = boosted(table, np.repeat([3.0, 0.0, 7.0], 5), num_leaves=3)
    near = np.array([[sign * size] for sign in (-1, 1) for size in (0.0, 5e-324, 1e-36, ZERO, 2 * ZERO, 1e-30)])
    np.testing.assert_array_equal(forest(near), booster.predict(near))
    assert len(set(forest(near))) == 3


def test_a_booster_that_found_no_split_is_a_leaf():
    table = np.ones((8, 2))
    booster, forest = boosted(table, np.arange(8.0))
    np.testing.assert_allclose(forest(table), booster.predict(table), rtol=1e-15)


def test_extra_trees_predict_what_scikit_learn_predicts():
    random = np.random.default_rng(0)
    table, labels = np.round(random.normal(size=(300, 8)), 1), random.normal(size=300)
    model = ExtraTreesRegressor(30, random_state=0).fit(table, labels)
    trees = [tree.tree_ for tree in model.estimators_]
    forest = flat_extra_trees(trees, 8)
    thresholds = np.concatenate([tree.threshold[tree.children_right >= 0] for tree in trees])
    for each in (table, random.choice(thresholds, (300, 8)), random.choice(thresholds, (300, 8)).astype(np.float32)):
        np.testing.assert_allclose(forest(each) / 30, model.predict(each), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("cells", [1, 70, 1000])
def test_what_a_row_gets_does_not_depend_on_the_rows_beside_it(cells, monkeypatch):
    random = np.random.default_rng(1)
    table = random.normal(size=(80, 5))
    _, forest = boosted(table, random.normal(size=80), 50)
    together = forest(table)
    monkeypatch.setattr(module, "CELLS", cells)
    np.testing.assert_array_equal(forest(table), together)
    np.testing.assert_array_equal([forest(row[None])[0] for row in table], together)
    np.testing.assert_array_equal(forest(np.asfortranarray(table)), together)


def test_arrays_restore_the_forest():
    forest = Forest.restore(small_forest().arrays(), 2)
    np.testing.assert_array_equal(forest(np.zeros((1, 2))), [12])


@pytest.mark.parametrize(
    ("name", "position", "wrong"),
    [
        ("right", 0, 0),  # walks in a circle
        ("right", 1, 2),  # both children are one
        ("right", 0, 6),
        ("column", 0, 2),
        ("column", 1, -1),
        ("roots", 1, 6),
        ("roots", 0, -1),
    ],
)
def test_arrays_that_are_no_trees_are_refused(name, position, wrong):
    arrays = small_forest().arrays()
    arrays[name] = arrays[name].copy()
    arrays[name][position] = wrong
    with pytest.raises(ValueError, match="no trees of 2 columns"):
        Forest.restore(arrays, 2)


def test_arrays_of_other_lengths_and_missing_ones_are_refused():
    arrays = small_forest().arrays()
    with pytest.raises(ValueError, match="no trees"):
        Forest.restore(arrays | {"value": arrays["value"][:3]}, 2)
    with pytest.raises(KeyError, match="right"):
        Forest.restore({key: array for key, array in arrays.items() if key != "right"}, 2)


def test_columns_of_wide_tables_have_room():
    assert column_type(32768) is np.int16
    assert column_type(32769) is np.int32
