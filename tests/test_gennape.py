"""The six-member ensemble: members, weights, fine-tuning, and what it says in percent."""

import numpy as np
import pytest

from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.errors import ConfigError, DataError, NotFittedError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.registry import get_encoder
from archgauge.predictor.gennape import MEMBERS, Gennape
from archgauge.predictor.label_transform import FlopsTransform
from archgauge.predictor.metrics import kendall

HEADS = tuple(name for name in MEMBERS if name != "kgnn")


def network(widths):
    nodes = [Node("Input", (), (1, 3, 32, 32))]
    for width in widths:
        weights = ((int(width), nodes[-1].shape[1], 3, 3),)
        shape = (1, int(width), 32, 32)
        nodes.append(Node("Conv", (len(nodes) - 1,), shape, (("bias", 1),), weights, params=int(np.prod(weights[0]))))
        nodes.append(Node("Relu", (len(nodes) - 1,), shape))
    return ArchGraph(tuple(nodes), (len(nodes) - 1,))


def space(name="toy", n=60, seed=0, sign=1.0, **options):
    """Chains that are better (or worse) for being deeper."""
    random = np.random.default_rng(seed)
    graphs = {network(4 * random.integers(1, 17, random.integers(1, 7))): None for _ in range(4 * n)}
    chosen = list(graphs)[:n]
    accuracy = [70 + sign * 3 * graph.depth + random.normal(0, 0.3) for graph in chosen]
    return Benchmark(name, "toy", chosen, np.array(accuracy), tuple(f"{name} {i}" for i in range(n)), **options)


@pytest.fixture(scope="module")
def bench():
    return space()


@pytest.fixture(scope="module")
def fitted(bench):
    return Gennape("statistics").fit(bench.select(range(45)))


@pytest.fixture(scope="module")
def light(bench):
    return Gennape("statistics", members=HEADS).fit(bench)


def test_all_six_members_rank_and_count_equally(fitted, bench):
    rest = bench.select(range(45, 60))
    assert fitted.weights == pytest.approx(dict.fromkeys(MEMBERS, 1 / 6))
    scores = fitted.member_scores(rest.graphs)
    assert scores.shape == (6, 15)
    quality = {name: kendall(rest.accuracy, row) for name, row in zip(MEMBERS, scores, strict=True)}
    assert min(quality[name] for name in ("cl_fcm_t", "cl_t", "cl_pairwise", "cl_pairwise_fcm")) > 0.6
    assert kendall(rest.accuracy, fitted.rank_scores(rest.graphs)) > 0.6
    np.testing.assert_array_equal(scores[-1].argsort(), np.argsort([graph.macs for graph in rest.graphs]))


def test_a_score_depends_on_no_other_network_but_a_pool_score_does(fitted, bench):
    graphs = bench.graphs[45:60]
    whole = fitted.rank_scores(graphs)
    np.testing.assert_allclose(fitted.rank_scores(graphs[:4]), whole[:4], atol=1e-5)
    pooled = fitted.pool_scores(graphs)
    assert abs(pooled.mean()) < 1e-9
    assert np.abs(fitted.pool_scores(graphs[:4]) - pooled[:4]).max() > 0.01
    assert fitted.rank_scores([]).shape == fitted.pool_scores([]).shape == (0,)


def test_blend_is_the_weighted_sum_of_standardised_scores(bench):
    model = Gennape("statistics", members=("cl_t", "flops")).fit(bench)
    scores = model.member_scores(bench.graphs)
    standard = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
    np.testing.assert_allclose(model.rank_scores(bench.graphs), standard.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.pool_scores(bench.graphs), standard.mean(0), atol=1e-6)


def test_finetuning_weighs_members_by_the_softmax_of_their_kendall(light, bench):
    model = light
    before = model.rank_scores(bench.graphs)
    turned = space("turned", 40, 7, sign=-1.0)
    few, rest = turned.select(range(25)), turned.select(range(25, 40))
    tuned = model.finetune(few)
    np.testing.assert_array_equal(model.rank_scores(bench.graphs), before)
    assert model.weights == pytest.approx(dict.fromkeys(HEADS, 1 / 5))
    quality = np.array([kendall(few.accuracy, row) for row in tuned.member_scores(few.graphs)])
    shares = np.exp(quality) / np.exp(quality).sum()
    np.testing.assert_allclose([tuned.weights[name] for name in HEADS], shares)
    assert tuned.weights["flops"] == min(tuned.weights.values())
    assert kendall(rest.accuracy, model.rank_scores(rest.graphs)) < 0
    assert kendall(rest.accuracy, tuned.rank_scores(rest.graphs)) > 0.4


def test_the_network_trained_end_to_end_is_finetuned_too(fitted):
    few = space("few", 10, 9)
    tuned = fitted.finetune(few)
    place = MEMBERS.index("kgnn")
    assert (tuned.member_scores(few.graphs)[place] != fitted.member_scores(few.graphs)[place]).any()


def test_members_with_the_transform_speak_in_percent(fitted, light, bench):
    rest = bench.select(range(45, 60))
    macs = np.array([graph.macs for graph in rest.graphs])
    transform = FlopsTransform.fit(bench.accuracy[:45], [graph.macs for graph in bench.graphs[:45]])
    table = get_encoder("statistics").encode(rest.graphs)
    expected = transform.inverse(fitted._heads["cl_t"].predict(table), macs)
    np.testing.assert_allclose(fitted.member_scores(rest.graphs)[MEMBERS.index("cl_t")], expected)
    assert np.abs(light.accuracy(bench.graphs) - bench.accuracy).mean() < 2


def test_several_benchmarks_rank_but_give_no_accuracies(bench):
    two = Gennape("statistics", members=("cl_t", "cl_pairwise")).fit([bench, space("other", 40, 3)])
    assert kendall(bench.accuracy, two.rank_scores(bench.graphs)) > 0.6
    for model, graphs in (
        (two, bench.graphs),
        (Gennape("statistics", members=("cl_t",)).fit(space("nats", 20, 2, unit="nats")), bench.graphs),
        (Gennape("statistics", members=("cl_pairwise", "flops")).fit(bench), bench.graphs),
    ):
        with pytest.raises(ConfigError, match="no accuracies"):
            model.accuracy(graphs)


def test_the_same_seed_gives_the_same_scores(bench):
    members = ("cl_pairwise_fcm",)
    one, two, other = (
        Gennape("statistics", seed, members=members).fit(bench).rank_scores(bench.graphs) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_one_label_is_enough(light, bench):
    assert np.isfinite(light.finetune(bench.select([3])).rank_scores(bench.graphs)).all()


def test_flops_alone_need_no_encoder(bench):
    model = Gennape("statistics", members=("flops",)).fit(bench)
    model.encoder = None
    np.testing.assert_array_equal(
        model.rank_scores(bench.graphs).argsort(), np.argsort([graph.macs for graph in bench.graphs])
    )


def test_bad_calls_are_refused(bench):
    with pytest.raises(NotFittedError):
        Gennape("statistics").rank_scores(bench.graphs)
    with pytest.raises(NotFittedError):
        Gennape("statistics").finetune(bench)
    with pytest.raises(DataError, match="at least one benchmark"):
        Gennape("statistics").fit([])
    for options in ({"members": ("cl", "nope")}, {"members": ()}, {"members": ("cl", "cl")}, {"seed": -1}):
        with pytest.raises(ConfigError):
            Gennape("statistics", **options)
    with pytest.raises(ConfigError, match="encoder"):
        Gennape("nope")
