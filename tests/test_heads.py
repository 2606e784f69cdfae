"""Heads: scikit-learn's contract, the same bytes for the same seed, and a lossless way to disk."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from archgauge.datasets import nas_bench_201
from archgauge.encoders.errors import ConfigError
from archgauge.predictor import gp_head, linear_head
from archgauge.predictor.heads import HEADS, Head, head_class, make_head, register_head
from archgauge.predictor.kernel import RATIOS
from archgauge.predictor.transforms import Scaler

QUICK = {
    "gbdt": {"n_trees": 30},
    "mlp": {"steps": 30},
    "fuzzy_mlp": {"steps": 30},
    "pairwise": {"steps": 30},
    "extra_trees": {"n_trees": 20},
    "gp": {},
    "ridge": {},
    "bayes_linear": {},
}
LEAST_CORRELATION = {"ridge": 0.75, "bayes_linear": 0.75}  # of a rule that is not linear
HEAVY = ("sklearn", "scipy.stats", "pandas", "lightgbm", "torch")
"""Modules of which each takes a good part of a second to import."""


def data(n=120, d=12, seed=0):
    random = np.random.default_rng(seed)
    table = random.normal(size=(n, d))
    return table, table[:, 0] + 0.5 * np.abs(table[:, 1]) + 0.05 * random.normal(size=n)


def scikit_learn_checks():
    """Every head with every check of scikit-learn."""
    reason = "rows are sampled or binned by number, so a row of weight 2 is not the same as the row twice"
    failing = {"check_sample_weight_equivalence_on_dense_data": reason, "check_sample_weights_invariance": reason}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimator .* does not inherit")
        for name in sorted(QUICK):
            head = HEADS[name](**QUICK[name])
            yield from estimator_checks_generator(head, expected_failed_checks=failing, mark="xfail")


def name_of(part):
    return repr(part) if isinstance(part, Head) else getattr(part, "func", part).__name__


@pytest.mark.parametrize(("estimator", "check"), list(scikit_learn_checks()), ids=name_of)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_a_perceptron_goes_no_further_than_its_limit():
    table, labels = data()
    far, farther = table.copy(), table.copy()
    far[:, 0], farther[:, 0] = table[:, 0].mean() + 3 * table[:, 0].std(), table[:, 0].mean() + 30 * table[:, 0].std()
    near_sighted = make_head("mlp", options={"limit": 2.0, **QUICK["mlp"]}).fit(table, labels)
    np.testing.assert_array_equal(near_sighted.predict(far), near_sighted.predict(farther))
    usual = make_head("mlp", options=QUICK["mlp"]).fit(table, labels)
    assert np.abs(usual.predict(far) - usual.predict(farther)).max() > 0.01


def test_every_head_is_tested():
    assert set(QUICK) == set(HEADS)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_learns_a_simple_rule(name):
    table, labels = data(250)
    head = make_head(name).fit(table[:200], labels[:200])
    assert np.corrcoef(head.predict(table[200:]), labels[200:])[0, 1] > LEAST_CORRELATION.get(name, 0.85)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_state_restores_the_same_predictions(name):
    table, labels = data()
    head = HEADS[name](**QUICK[name]).fit(table, labels)
    state = head.state()
    again = HEADS[name].restore(state)
    np.testing.assert_array_equal(again.predict(table), head.predict(table))
    assert again.get_params() == head.get_params()
    assert all(isinstance(array, np.ndarray) for array in state.arrays.values())


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(name):
    table, labels = data()
    first, second, other = (HEADS[name](**QUICK[name], seed=seed).fit(table, labels).state() for seed in (1, 1, 2))
    assert first.arrays.keys() == second.arrays.keys()
    assert all(first.arrays[key].tobytes() == second.arrays[key].tobytes() for key in first.arrays)
    differs = any(first.arrays[key].tobytes() != other.arrays[key].tobytes() for key in first.arrays)
    assert differs == HEADS[name].seeded


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_rows(name, n):
    table, labels = data(20)
    head = HEADS[name](**QUICK[name]).fit(table[:n], labels[:n])
    assert np.isfinite(head.predict(table)).all()


@pytest.mark.parametrize("name", sorted(HEADS))
def test_constant_labels_and_columns_predict_the_constant(name):
    table, _ = data()
    table[:, 3] = 7
    head = HEADS[name](**QUICK[name]).fit(table, np.full(len(table), 1.5))
    np.testing.assert_allclose(head.predict(table + 1), 1.5, atol=0.02)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_rows_without_weight_are_nearly_ignored(name):
    table, labels = data(200)
    wrong = labels.copy()
    wrong[100:] = -5 * labels[100:]
    weights = np.where(np.arange(200) < 100, 1.0, 1e-9)
    head = make_head(name).fit(table, wrong, sample_weight=weights)
    assert np.corrcoef(head.predict(table[:100]), labels[:100])[0, 1] > LEAST_CORRELATION.get(name, 0.8)


@pytest.mark.parametrize("name", [name for name in sorted(HEADS) if HEADS[name].takes_monotone])
def test_monotone_constraint_holds(name):
    table, labels = data(300, 4)
    head = make_head(name, monotone=[1, 0, 0, 0]).fit(table, labels + np.sin(6 * table[:, 0]))
    sweep = np.zeros((50, 4))
    sweep[:, 0] = np.linspace(-2, 2, 50)
    predicted = head.predict(sweep)
    assert (np.diff(predicted) >= -1e-9).all()
    assert predicted[-1] > predicted[0]
    with pytest.raises(ConfigError, match="one per column"):
        clone(head).fit(table[:, :3], labels)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_before_fit(name):
    with pytest.raises(NotFittedError):
        HEADS[name]().predict(np.zeros((2, 3)))


def test_far_inputs_stay_finite():
    table, labels = data()
    for name in HEADS:
        head = HEADS[name](**QUICK[name]).fit(table, labels)
        assert np.isfinite(head.predict(np.full((1, 12), 1e12))).all()


def test_registry_refuses_a_taken_and_an_unknown_name():
    with pytest.raises(ConfigError, match="registered already"):

        @register_head("gbdt")
        class Another(Head):
            pass

    with pytest.raises(ConfigError, match="did you mean 'gbdt'"):
        head_class("gbtd")


def test_heads_survive_the_copies_scikit_learn_makes_between_processes():
    table, labels = data()
    head = HEADS["gbdt"](n_trees=5).fit(table, labels)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(head)).predict(table), head.predict(table))


def test_scikit_learn_takes_heads_apart_and_searches_their_arguments():
    table, labels = data(60)
    head = HEADS["ridge"](seed=3)
    assert is_regressor(head)
    assert repr(head) == "RidgeHead(seed=3)"
    assert repr(HEADS["gbdt"]()) == "GBDTHead()"
    assert clone(head).get_params() == {"seed": 3}
    with pytest.raises(ValueError, match="invalid parameter 'speed'"):
        head.set_params(speed=1)
    weights = np.linspace(0.1, 1, len(table))
    head.fit(table, labels)
    assert head.score(table, labels, weights) == r2_score(labels, head.predict(table), sample_weight=weights)
    assert len(cross_val_score(make_pipeline(StandardScaler(), head), table, labels, cv=3)) == 3
    search = GridSearchCV(HEADS["gbdt"](n_trees=5), {"leaves": [2, 8]}, cv=2).fit(table, labels, sample_weight=weights)
    assert search.best_params_ == {"leaves": 8}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_any_table_of_the_same_numbers_predicts_the_same(name):
    table, labels = data(40)
    table = np.round(table, 1).astype(np.float32).astype(np.float64)
    head = HEADS[name](**QUICK[name]).fit(table, labels)
    want = head.predict(table)
    for other in (table.tolist(), table.astype(np.float32), np.asfortranarray(table), table.astype(">f8")):
        np.testing.assert_allclose(head.predict(other), want, rtol=1e-12)
    for wrong in (np.full((1, 12), np.nan), table[:, :5], table[0], table[:0]):
        with pytest.raises(ValueError, match=r"NaN|features|2D|sample"):
            head.predict(wrong)


def imported(code, *arguments):
    """Which of `HEAVY` a fresh interpreter has imported after `code`."""
    code = f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_restored_head_predicts_without_heavy_imports(name, tmp_path):
    table, labels = data(40)
    head = HEADS[name](**QUICK[name]).fit(table, labels)
    state = head.state()
    np.savez(tmp_path / "arrays.npz", **state.arrays)
    np.save(tmp_path / "table.npy", table)
    code = (
        "import numpy as np\n"
        "from archgauge.predictor.heads import HEADS, HeadState\n"
        f"arrays = dict(np.load(sys.argv[1] + '/arrays.npz'))\n"
        f"head = HEADS[{name!r}].restore(HeadState({state.values!r}, arrays))\n"
        "np.save(sys.argv[1] + '/said.npy', head.predict(np.load(sys.argv[1] + '/table.npy')))"
    )
    assert imported(code, str(tmp_path)) == []
    np.testing.assert_array_equal(np.load(tmp_path / "said.npy"), head.predict(table))


def test_the_shipped_predictor_loads_and_scores_a_file_without_heavy_imports(tmp_path):
    file = tmp_path / "network.onnx"
    file.write_bytes(nas_bench_201.build(nas_bench_201.sample(1, 0)[0], "cifar10").SerializeToString())
    code = "import archgauge\nassert archgauge.Predictor.load().score(sys.argv[1])[0].rank_score is not None"
    assert imported(code, str(file)) == []


def dense(kernel, cross, labels):
    """Mean of a Gaussian process (Rasmussen and Williams 2006, eq. 2.23), and -2 log evidence (eq. 5.8)."""
    pull = np.linalg.solve(kernel, labels)
    signal = labels @ pull / len(labels)
    return cross @ pull, len(labels) * np.log(signal) + np.linalg.slogdet(kernel)[1]


@pytest.mark.parametrize(("second", "linear"), [(0, 0), (0, 1), (0, 2), (2, 0), (1, 1)])
def test_a_gaussian_process_is_the_mean_over_its_grid(second, linear, monkeypatch):
    table, labels = data(n=25, d=4)
    new, _ = data(n=7, d=4, seed=1)
    grids = {"STRETCHES": np.array([1.0, 2.5]), "SHARES": (0.0, 0.7), "VARIANCES": (0.2, 1.0), "LEAST": 0.0}
    for name, grid in grids.items():
        monkeypatch.setattr(gp_head, name, grid)
    head = make_head("gp", options={"second": second, "linear": linear}).fit(table, labels)
    scaler = Scaler.fit(table)
    first, others, lines = np.split(scaler(np.concatenate([table, new])), [4 - linear - second, 4 - linear], axis=1)
    for columns in (first, others):
        columns[:25] = np.rint(columns[:25] / gp_head.STEP) * gp_head.STEP

    def similar(columns, stretch):
        apart = np.linalg.norm(columns[:, None] - columns, axis=2)
        r = np.sqrt(5) * apart / (stretch * np.median(apart[:25, :25][apart[:25, :25] > 0]))
        return (1 + r + r * r / 3) * np.exp(-r)

    means, losses = [], []
    for stretch in grids["STRETCHES"]:
        for share in grids["SHARES"] if second else (0.0,):
            smooth = similar(first, stretch) + (share * similar(others, stretch) if share else 0.0)
            for ratio in RATIOS:
                for variance in grids["VARIANCES"] if linear else (0.0,):
                    kernel = smooth + variance * lines @ lines.T
                    mean, loss = dense(kernel[:25, :25] + ratio * np.eye(25), kernel[25:, :25], labels - labels.mean())
                    prior = (np.log(stretch / (3 * (25 / 40) ** (-1 / 3))) / 0.5) ** 2
                    means.append(mean)
                    losses.append(0.5 * (loss + prior + (np.log(ratio / 0.1) / 1.5) ** 2))
    weights = np.exp(np.min(losses) - losses)
    expected = labels.mean() + weights @ means / weights.sum()
    np.testing.assert_allclose(head.predict(new), expected, atol=1e-6)
    np.testing.assert_array_equal(head_class("gp").restore(head.state()).predict(new), head.predict(new))


@pytest.mark.parametrize("linear", [0, 1])
def test_bayesian_linear_regression_is_the_mean_over_its_grid(linear, monkeypatch):
    table, labels = data(n=25, d=4)
    table[:, 0] = 3.0  # says nothing, and is not counted among the columns
    new, _ = data(n=7, d=4, seed=1)
    grids = {"RATIOS": np.array([0.1, 1.0]), "VARIANCES": np.array([0.2, 1.0])}
    for name, grid in grids.items():
        monkeypatch.setattr(linear_head, name, grid)
    head = make_head("bayes_linear", options={"linear": linear}).fit(table, labels)
    both = Scaler.fit(table)(np.concatenate([table, new]))
    points, lines = np.split(both, [4 - linear], axis=1)
    means, losses = [], []
    for ratio in grids["RATIOS"]:
        for variance in grids["VARIANCES"] if linear else (1.0,):
            kernel = points @ points.T / (3 - linear) + variance * lines @ lines.T
            mean, loss = dense(kernel[:25, :25] + ratio * np.eye(25), kernel[25:, :25], labels - labels.mean())
            means.append(mean)
            losses.append(loss / 2)
    weights = np.exp(np.min(losses) - losses)
    expected = labels.mean() + weights @ means / weights.sum()
    np.testing.assert_allclose(head.predict(new), expected, atol=1e-8)
    np.testing.assert_allclose(head_class("bayes_linear").restore(head.state()).predict(new), expected, atol=1e-8)
    with pytest.raises(ValueError, match="linear is 4, expected 0 to 3"):
        make_head("bayes_linear", options={"linear": 4}).fit(table, labels)


def test_a_gaussian_process_does_not_lose_a_few_columns_among_many():
    """Two columns that tell and two hundred that do not; with many rows the second kernel is left out."""
    random = np.random.default_rng(0)
    table = random.normal(size=(400, 202))
    labels = np.sin(2 * table[:, -1]) + table[:, -2]
    apart, together = (make_head("gp", options={"second": second}).fit(table[:60], labels[:60]) for second in (2, 0))
    told, drowned = (np.corrcoef(head.predict(table[60:]), labels[60:])[0, 1] for head in (apart, together))
    assert told > 0.8 > 0.5 > drowned
    many = make_head("gp", options={"second": 2}).fit(table[:300], labels[:300])
    assert len(many.kernels_) == 1
    assert np.isfinite(many.predict(table)).all()


def test_a_gaussian_process_goes_on_along_linear_columns():
    table, _ = data(n=60, d=3)
    labels = np.sin(table[:, 0]) + 2 * table[:, 2]
    line, none = (make_head("gp", options={"linear": linear}).fit(table, labels) for linear in (1, 0))
    far = np.array([[0.0, 0.0, 3.5], [0.0, 0.0, -3.5]])
    assert np.abs(line.predict(far) - [7, -7]).max() < 0.5 < np.abs(none.predict(far) - [7, -7]).min()
    with pytest.raises(ValueError, match=r"second is 2 and linear 2, expected .* at most 3"):
        make_head("gp", options={"second": 2, "linear": 2}).fit(table, labels)


def test_a_gaussian_process_learns_from_several_draws_of_many_rows():
    table, labels = data(n=700, d=5)
    labels = labels + np.random.default_rng(1).normal(size=700)
    truth = table[600:, 0] + 0.5 * np.abs(table[600:, 1])

    def error(draws, seed):
        head = make_head("gp", options={"max_rows": 60, "draws": draws}, seed=seed).fit(table[:600], labels[:600])
        assert len(head.kernels_) == draws
        said = head.predict(table[600:])
        np.testing.assert_array_equal(head_class("gp").restore(head.state()).predict(table[600:]), said)
        return np.mean((said - truth) ** 2)

    assert np.mean([error(6, seed) for seed in range(3)]) < 0.8 * np.mean([error(1, seed) for seed in range(9)])
    few, same = (make_head("gp", options={"draws": draws}).fit(table, labels).predict(table) for draws in (1, 6))
    np.testing.assert_array_equal(few, same, err_msg="there is only one draw of all rows")
    with pytest.raises(ValueError, match="draws is 0"):
        make_head("gp", options={"draws": 0}).fit(table, labels)
