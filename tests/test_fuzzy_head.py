"""Heads with a perceptron per fuzzy cluster, the pairwise head, and going on from fitted weights."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

from archgauge.predictor.fuzzy_head import FuzzyMLPHead
from archgauge.predictor.heads import HEADS, MLPHead, PairwiseHead
from archgauge.predictor.metrics import kendall
from archgauge.predictor.pairwise_head import pairwise_logistic


def two_regimes(n=200, seed=0):
    """Two clusters; in one the label rises with a column, in the other it falls."""
    random = np.random.default_rng(seed)
    side = np.where(np.arange(n) % 2, 4.0, -4.0)
    table = random.normal(size=(n, 4))
    table[:, 0] += side
    return table, np.sign(side) * table[:, 1]


def test_output_is_the_blend_of_the_perceptrons_by_membership():
    table, labels = two_regimes()
    head = FuzzyMLPHead(clusters=2, steps=50).fit(table, labels)
    shares = head.fuzzy_.memberships(table)
    each = head.layers_(head.scaler_(table))
    assert each.shape == (2, len(table))
    np.testing.assert_allclose(head.predict(table), (shares.T * each).sum(0) * head.scale_ + head.mean_)


def test_two_linear_regimes_need_two_linear_perceptrons():
    table, labels = two_regimes()
    linear = {"layers": 0, "steps": 400, "weight_decay": 0.0, "learning_rate": 0.05}
    one, two = (FuzzyMLPHead(clusters=c, fuzzifier=1.5, **linear).fit(table, labels) for c in (1, 2))
    assert kendall(labels, one.predict(table)) < 0.5
    assert kendall(labels, two.predict(table)) > 0.75


def test_one_cluster_is_a_plain_perceptron():
    table, labels = two_regimes()
    head = FuzzyMLPHead(clusters=1, steps=20).fit(table, labels)
    assert head.fuzzy_ is None
    assert head.layers_.kernels[0].ndim == 2
    again = FuzzyMLPHead.restore(head.state())
    np.testing.assert_array_equal(again.predict(table), head.predict(table))


def test_pairwise_loss_is_the_mean_over_ordered_pairs():
    output, labels, weights = (torch.tensor(v) for v in ([0.3, -1.0, 2.0], [1.0, 2.0, 2.0], [1.0, 3.0, 0.5]))
    pairs = [(1, 0), (2, 0)]  # equal labels are no pair
    total = sum(weights[a] * weights[b] for a, b in pairs)
    expected = sum(weights[a] * weights[b] * torch.log1p(torch.exp(output[b] - output[a])) for a, b in pairs) / total
    torch.testing.assert_close(pairwise_logistic(output, labels, weights), expected)


def test_pairwise_scores_are_on_the_scale_of_the_labels():
    table, labels = two_regimes()
    head = PairwiseHead(steps=200).fit(table, 100 + 7 * labels)
    predicted = head.predict(table)
    assert kendall(labels, predicted) > 0.7
    assert abs(predicted.mean() - (100 + 7 * labels).mean()) < 0.5
    assert 0.5 < predicted.std() / (7 * labels).std() < 1.1


def test_a_monotone_map_of_the_labels_leaves_pairwise_weights_alone():
    table, labels = two_regimes()
    one, other = (PairwiseHead(steps=20).fit(table, y) for y in (labels, np.exp(labels)))
    for a, b in zip(one.layers_.kernels, other.layers_.kernels, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("head", [MLPHead(), FuzzyMLPHead(clusters=2), PairwiseHead()], ids=lambda h: type(h).__name__)
def test_finetuning_goes_on_from_the_weights_and_leaves_the_head_alone(head):
    table, labels = two_regimes(240)
    head.set_params(steps=150).fit(table[:200], labels[:200])
    before = head.predict(table)
    few, rest = slice(200, 220), slice(220, 240)
    moved = 50 + 3 * labels
    tuned = head.finetune(table[few], moved[few], steps=30)
    np.testing.assert_array_equal(head.predict(table), before)
    fresh = type(head)(**head.get_params()).set_params(steps=30).fit(table[few], moved[few])
    assert kendall(moved[rest], tuned.predict(table[rest])) > kendall(moved[rest], fresh.predict(table[rest]))
    assert 40 < tuned.predict(table).mean() < 60
    again = head.finetune(table[few], moved[few], steps=30)
    np.testing.assert_array_equal(again.predict(table), tuned.predict(table))
    np.testing.assert_array_equal(type(head).restore(tuned.state()).predict(table), tuned.predict(table))


def test_finetuning_needs_a_fitted_head_and_its_columns():
    table, labels = two_regimes()
    with pytest.raises(NotFittedError):
        FuzzyMLPHead().finetune(table, labels)
    head = FuzzyMLPHead(steps=2).fit(table, labels)
    with pytest.raises(ValueError, match="features"):
        head.finetune(table[:, :3], labels)


def test_the_registry_knows_the_heads_without_torch_or_lightgbm():
    code = (
        "import sys\nfrom archgauge.predictor.heads import HEADS\n"
        "print(sorted(HEADS), sorted({'torch', 'lightgbm'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{sorted(HEADS)} []"
