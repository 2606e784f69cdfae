"""The registry of rankers, and the predictor as one of them."""

import numpy as np
import pytest

from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.errors import ConfigError, NotFittedError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.predictor import ranker as rankers
from archgauge.predictor.model import Predictor
from archgauge.predictor.ranker import (
    EstimatingRanker,
    PoolRanker,
    PredictorRanker,
    TunableRanker,
    ranker_entry,
    register_ranker,
)

QUICK = {"heads": ("gbdt",), "n_seeds": 1, "options": {"gbdt": {"n_trees": 40}}}


def network(widths):
    nodes = [Node("Input", (), (1, 3, 16, 16))]
    for width in widths:
        weights = ((int(width), nodes[-1].shape[1], 3, 3),)
        conv = Node("Conv", (len(nodes) - 1,), (1, int(width), 16, 16), (("pads", (1, 1, 1, 1)),), weights)
        nodes += [conv._replace(params=int(np.prod(weights[0]))), Node("Relu", (len(nodes),), conv.shape)]
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def space(name, seed, n=40):
    random = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        widths = tuple((4 * random.integers(1, 17, random.integers(1, 6))).tolist())
        found[network(widths)] = 50 + 8 * len(widths) + 3 * np.log(np.mean(widths)) + random.normal(0, 0.5)
    names = tuple(f"{name} {i}" for i in range(n))
    return Benchmark(name, "toy", tuple(found), np.clip(np.array(list(found.values())), 0, 100), names)


@pytest.fixture(scope="module")
def spaces():
    return [space(f"space {i}", i) for i in range(4)]


def test_the_predictor_is_a_ranker_in_both_modes(spaces, tmp_path):
    ranker = PredictorRanker(QUICK, cache=tmp_path).fit(spaces[:3])
    model = Predictor(**QUICK).fit(spaces[:3])
    graphs = spaces[3].graphs
    assert ranker.rank_scores(graphs).tolist() == [s.rank_score for s in model.score(graphs)]
    assert ranker.pool_scores(graphs).tolist() == [s.rank_score for s in model.score(graphs, pool=True)]
    estimates = ranker.estimates(graphs, "toy")
    assert estimates.shape == (40, 3)
    assert (estimates[:, 1] <= estimates[:, 0]).all()
    assert (estimates[:, 0] <= estimates[:, 2]).all()
    assert ranker.estimates(graphs, "another") is None
    asked = [[s.accuracy, s.low, s.high] for s in model.score(graphs, task="toy", epochs=9)]
    assert ranker.estimates(graphs, "toy", 9).tolist() == asked != estimates.tolist()
    for extra in (PoolRanker, TunableRanker, EstimatingRanker):
        assert isinstance(ranker, extra)


def test_a_predictor_of_one_space_has_no_pool_mode(spaces, tmp_path):
    ranker = PredictorRanker(QUICK, cache=tmp_path).fit(spaces[:1])
    assert ranker.pool_scores(spaces[1].graphs) is None


def test_finetuning_leaves_the_ranker_as_it_was(spaces, tmp_path):
    ranker = PredictorRanker(QUICK, cache=tmp_path).fit(spaces[:2])
    before = ranker.rank_scores(spaces[3].graphs)
    tuned = ranker.finetune(spaces[3].select(range(10)))
    assert (ranker.rank_scores(spaces[3].graphs) == before).all()
    assert (tuned.rank_scores(spaces[3].graphs) != before).any()


def test_a_ranker_that_is_not_fitted_says_so(spaces):
    with pytest.raises(NotFittedError, match="fit"):
        PredictorRanker(QUICK).rank_scores(spaces[0].graphs)


def test_names_are_looked_up_and_taken_once(monkeypatch):
    monkeypatch.setattr(rankers, "RANKERS", dict(rankers.RANKERS))
    register_ranker("mine", seeded=False)(lambda seed: PredictorRanker(QUICK))
    assert ranker_entry("mine").make(3) == PredictorRanker(QUICK)
    assert not ranker_entry("mine").seeded
    with pytest.raises(ConfigError, match="mine"):
        register_ranker("mine")(lambda seed: PredictorRanker(QUICK))
    with pytest.raises(ConfigError, match="archgauge"):
        ranker_entry("archguage")


def test_the_seed_reaches_the_predictor():
    assert ranker_entry("archgauge").make(7).options["seed"] == 7
    assert ranker_entry("archgauge-proxies").make(7).options["evidence"] == ("proxies",)
    assert ranker_entry("shipped-heads+proxies").make(7).tuning == {"evidence": ("proxies",)}
    assert set(ranker_entry("shipped-heads").make(1).options["heads"]) == {"extra_trees", "gbdt", "gp", "mlp"}
