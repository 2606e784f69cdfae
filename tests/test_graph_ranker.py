"""The graph neural network trained end to end: learning, fine-tuning, checkpoints, the same seed."""

import numpy as np
import pytest
import torch

from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.errors import CheckpointError, ConfigError, DataError, NotFittedError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.predictor.graph_ranker import GraphRanker
from archgauge.predictor.metrics import kendall


def network(widths):
    nodes = [Node("Input", (), (1, 3, 32, 32))]
    for width in widths:
        weights = ((int(width), nodes[-1].shape[1], 3, 3),)
        shape = (1, int(width), 32, 32)
        nodes.append(Node("Conv", (len(nodes) - 1,), shape, (("bias", 1),), weights, params=int(np.prod(weights[0]))))
        nodes.append(Node("Relu", (len(nodes) - 1,), shape))
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def space(name="toy", n=40, seed=0, **options):
    """Chains that are better for being wider."""
    random = np.random.default_rng(seed)
    graphs = {network(4 * random.integers(1, 17, random.integers(1, 5))): None for _ in range(4 * n)}
    chosen = list(graphs)[:n]
    accuracy = [60 + 5 * np.mean([np.log2(node.shape[1]) for node in graph.nodes[1:]]) for graph in chosen]
    return Benchmark(name, "toy", chosen, np.array(accuracy), tuple(f"{name} {i}" for i in range(n)), **options)


def quick(**options):
    return GraphRanker(**{"width": 8, "epochs": 3, "learning_rate": 3e-3, **options})


@pytest.fixture(scope="module")
def bench():
    return space()


@pytest.mark.parametrize(("backbone", "loss", "rate"), [("flow", "squared", 3e-3), ("kgnn", "pairwise", 1e-3)])
def test_learns_to_rank(bench, backbone, loss, rate):
    ranker = quick(backbone=backbone, loss=loss, learning_rate=rate, epochs=60, batch=10, width=16)
    ranker.fit(bench.select(range(30)))
    rest = bench.select(range(30, 40))
    assert kendall(rest.accuracy, ranker.rank_scores(rest.graphs)) > 0.4


@pytest.mark.parametrize("backbone", ["kgnn", "gin", "gps", "flow"])
def test_every_backbone_trains_and_scores_alone_what_it_scores_together(bench, backbone):
    ranker = quick(backbone=backbone, epochs=1).fit(bench)
    scores = ranker.rank_scores(bench.graphs)
    assert scores.shape == (40,)
    assert scores.std() > 0
    alone = np.concatenate([ranker.rank_scores([graph]) for graph in bench.graphs[:5]])
    np.testing.assert_allclose(alone, scores[:5], rtol=1e-3)


def test_the_same_seed_gives_the_same_scores_and_another_does_not(bench):
    torch.manual_seed(1)
    one = quick(seed=1, backbone="flow").fit(bench).rank_scores(bench.graphs)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = quick(seed=1, backbone="flow").fit(bench).rank_scores(bench.graphs)
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(one, two)
    assert (quick(seed=2, backbone="flow").fit(bench).rank_scores(bench.graphs) != one).any()


def test_fitting_twice_starts_anew(bench):
    ranker = quick()
    np.testing.assert_array_equal(
        ranker.fit(bench).rank_scores(bench.graphs), ranker.fit(bench).rank_scores(bench.graphs)
    )


def test_accuracy_is_on_the_scale_of_the_labels(bench):
    ranker = quick(epochs=20).fit(bench)
    said = ranker.accuracy(bench.graphs)
    assert np.abs(said - bench.accuracy).mean() < bench.accuracy.std()
    scores = ranker.rank_scores(bench.graphs)
    np.testing.assert_allclose(said, scores * bench.accuracy.std() + bench.accuracy.mean())


def test_accuracy_is_refused_where_it_means_nothing(bench):
    other = space("other", 20, 1)
    nats = space("nats", 20, 2, unit="nats")
    for ranker in (quick().fit([bench, other]), quick(loss="pairwise").fit(bench), quick().fit(nats)):
        with pytest.raises(ConfigError, match="no accuracies"):
            ranker.accuracy(bench.graphs)


def test_finetuning_adapts_and_leaves_the_ranker_alone(bench):
    ranker = quick(epochs=15).fit(bench)
    before = ranker.rank_scores(bench.graphs)
    turned = space("turned", 30, 5)
    turned = Benchmark("turned", "toy", turned.graphs, 100 - turned.accuracy, turned.names)
    few, rest = turned.select(range(20)), turned.select(range(20, 30))
    tuned = ranker.finetune(few, epochs=60)
    np.testing.assert_array_equal(ranker.rank_scores(bench.graphs), before)
    assert kendall(rest.accuracy, ranker.rank_scores(rest.graphs)) < 0
    assert kendall(rest.accuracy, tuned.rank_scores(rest.graphs)) > 0


def test_pairs_are_compared_only_within_a_benchmark(bench):
    ranker = quick(loss="pairwise")
    output, labels = torch.randn(6), torch.arange(6.0)
    weights, owner = torch.ones(6), np.array([0, 0, 0, 1, 1, 1])
    moved = labels + 10 * torch.from_numpy(owner)
    one, other = (ranker._loss(output, y, weights, owner) for y in (labels, moved))
    torch.testing.assert_close(one, other)


def test_training_resumes_to_the_same_weights(bench, tmp_path, monkeypatch):
    whole = quick(epochs=4, backbone="flow").fit(bench).rank_scores(bench.graphs)
    file = tmp_path / "run.safetensors"

    ranker, done = quick(epochs=4, backbone="flow"), []
    original = GraphRanker._loss

    def stops(self, *arguments):
        done.append(1)
        if len(done) > 5:  # two steps per epoch: in the third epoch
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(GraphRanker, "_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        ranker.fit(bench, checkpoint=file)
    monkeypatch.setattr(GraphRanker, "_loss", original)
    again = quick(epochs=4, backbone="flow").fit(bench, checkpoint=file)
    np.testing.assert_array_equal(again.rank_scores(bench.graphs), whole)

    monkeypatch.setattr(GraphRanker, "_loss", lambda *arguments: pytest.fail("nothing was left to train"))
    finished = quick(epochs=4, backbone="flow").fit(bench, checkpoint=file)
    np.testing.assert_array_equal(finished.rank_scores(bench.graphs), whole)


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(bench, tmp_path):
    file = tmp_path / "run.safetensors"
    quick().fit(bench, checkpoint=file)
    for other, data in ((quick(seed=3), bench), (quick(), bench.select(range(39)))):
        with pytest.raises(CheckpointError, match="other options"):
            other.fit(data, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        quick().fit(bench, checkpoint=file)


def test_no_graphs_and_one_label(bench):
    ranker = quick().fit(bench.select([0]))
    assert ranker.rank_scores([]).shape == (0,)
    assert np.isfinite(ranker.rank_scores(bench.graphs)).all()


def test_bad_calls_are_refused(bench):
    with pytest.raises(NotFittedError):
        quick().rank_scores(bench.graphs)
    with pytest.raises(NotFittedError):
        quick().finetune(bench)
    with pytest.raises(DataError, match="at least one benchmark"):
        quick().fit([])
    for options in ({"loss": "hinge"}, {"backbone": "gcn"}, {"width": 0}, {"learning_rate": 0.0}, {"seed": -1}):
        with pytest.raises(ConfigError):
            quick(**options)
