"""The FLOPs transform of labels: its formula, its inverse, its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgauge.encoders.errors import DataError
from archgauge.predictor.label_transform import FlopsTransform


def test_formula():
    accuracy, macs = np.array([90.0, 80.0, 93.0]), np.array([0.0, 9e9, 99e9])
    ratio = accuracy / np.array([1.0, 2.0, 3.0])
    found = FlopsTransform.fit(accuracy, macs)
    np.testing.assert_allclose(found(accuracy, macs), (ratio - ratio.mean()) / ratio.std())
    assert found.mean == pytest.approx(ratio.mean())


networks = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e13)), min_size=1, max_size=20)


@given(train=networks, other=networks)
def test_inverse_is_exact(train, other):
    found = FlopsTransform.fit(*map(np.array, zip(*train, strict=True)))
    accuracy, macs = map(np.array, zip(*other, strict=True))
    labels = found(accuracy, macs)
    np.testing.assert_allclose(found.inverse(labels, macs), accuracy, atol=1e-9 * max(1.0, found.deviation**-1))


def test_equal_networks_have_deviation_one():
    found = FlopsTransform.fit([91.0, 91.0], [1e9, 1e9])
    assert found.deviation == 1
    np.testing.assert_allclose(found([91.0], [1e9]), 0)


def test_at_one_label_the_larger_network_is_said_to_be_better():
    found = FlopsTransform.fit([90.0, 92.0, 94.0], [1e9, 2e9, 3e9])
    assert np.diff(found.inverse([0.1, 0.1], [1e9, 2e9]))[0] > 0


@pytest.mark.parametrize(
    ("accuracy", "macs", "message"),
    [
        ([], [], "one finite accuracy"),
        ([90.0], [-1.0], "negative"),
        ([90.0], [np.inf], "not finite"),
        ([np.nan], [1.0], "one finite accuracy"),
        ([90.0], [1.0, 2.0], "one finite accuracy"),
        (90.0, 1.0, "one finite accuracy"),
    ],
)
def test_bad_input_is_refused(accuracy, macs, message):
    with pytest.raises(DataError, match=message):
        FlopsTransform.fit(accuracy, macs)
