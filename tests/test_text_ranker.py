"""Ranking by text: both presets learn, the same seed gives the same scores, benchmarks are never compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from archgauge.datasets import nas_bench_201, nats_bench_sss
from archgauge.datasets.benchmark import Benchmark
from archgauge.encoders.errors import ConfigError, DataError, NotFittedError
from archgauge.encoders.language import CompactText
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.text_model import TextModel, TextModelShape
from archgauge.encoders.tokenizer import Tokenizer
from archgauge.predictor.metrics import spearman
from archgauge.predictor.text_ranker import Pairwise, TextRanker, _pairs

TOKENIZER = Tokenizer.shipped()
SHAPE = TextModelShape(TOKENIZER.size, 12, 16, 1, 24, 1, heads=2, embedding=12, segment=80, window=8, wide=128)
SPECS = nats_bench_sss.sample(40, 0)
GRAPHS = [read(nats_bench_sss.build(spec, "cifar10")) for spec in SPECS]
LABELS = np.array([100 * np.log10(graph.macs) / 12 for graph in GRAPHS])
BENCH = Benchmark("sizes", "cifar10", GRAPHS, LABELS, tuple(SPECS))
QUICK = Pairwise(epochs=12, learning_rate=3e-3)


def language():
    return CompactText(TextModel(SHAPE, torch.from_numpy(TOKENIZER.magnitudes)).eval(), TOKENIZER)


@pytest.mark.parametrize("preset", ["default", "pwr"])
def test_ranks_by_size_where_size_decides(preset):
    few, rest = BENCH.split(28, seed=0)
    ranker = TextRanker(preset, language(), heads=("mlp",), members=1, pairwise=QUICK)
    scores = ranker.fit([few]).rank_scores(rest.graphs)
    assert scores.shape == (len(rest),)
    assert scores.dtype == np.float64
    assert spearman(rest.accuracy, scores) > (0.6 if preset == "pwr" else 0.2)
    again = TextRanker(preset, language(), heads=("mlp",), members=1, pairwise=QUICK).fit([few])
    np.testing.assert_array_equal(again.rank_scores(rest.graphs), scores)
    other = TextRanker(preset, language(), heads=("mlp",), members=1, pairwise=QUICK, seed=1).fit([few])
    assert not np.array_equal(other.rank_scores(rest.graphs), scores)


@pytest.mark.parametrize("preset", ["default", "pwr"])
def test_labels_of_different_benchmarks_are_not_compared(preset):
    first, second = BENCH.select(range(16)), BENCH.select(range(16, 32))
    lower = Benchmark("others", "svhn", second.graphs, second.accuracy / 2, second.names)
    options = {"heads": ("mlp",), "members": 1, "pairwise": replace(QUICK, epochs=2)}
    one = TextRanker(preset, language(), **options).fit([first, second]).rank_scores(GRAPHS)
    other = TextRanker(preset, language(), **options).fit([first, lower]).rank_scores(GRAPHS)
    np.testing.assert_array_equal(one, other)


def test_statements_in_context_tell_how_a_cell_is_wired():
    specs = nas_bench_201.sample(240, 0)
    cells = [read(nas_bench_201.build(spec, "cifar10")) for spec in specs]
    bench = Benchmark("wiring", "cifar10", cells, np.array([float(cell.depth) for cell in cells]), tuple(specs))
    few, rest = bench.split(140, seed=0)
    found = {}
    for context in (True, False):
        ranker = TextRanker(language=language(), heads=("ridge",), context=context).fit([few])
        found[context] = spearman(rest.accuracy, ranker.rank_scores(rest.graphs))
    assert found[True] > max(0.8, found[False] + 0.1), found


def test_the_process_counts_for_the_variance_that_it_explains():
    ranker = TextRanker(language=language(), heads=("ridge",)).fit([BENCH.select(range(20))])
    prepared = ranker.prepare(GRAPHS)
    assert ranker.prepare([GRAPHS[3], GRAPHS[3]]) == [prepared[3], prepared[3]]
    vectors = ranker.language.embed_prepared([text.tokens for text in prepared]).vectors
    told = ranker._process.predict([text.counts for text in prepared], vectors)
    assert 0 < told.share[:20].mean() < 1
    assert told.share[20:].mean() < told.share[:20].mean()
    heads = ranker._heads[0].predict(vectors)
    np.testing.assert_allclose(ranker.rank_scores(GRAPHS), told.share * told.mean + (1 - told.share) * heads)
    alone = TextRanker(language=language(), heads=()).fit([BENCH.select(range(20))])
    np.testing.assert_allclose(alone.rank_scores(GRAPHS), told.share * told.mean)


def test_pairs():
    labels = np.array([3.0, 1.0, 1.05, 2.0])
    better, worse = _pairs(labels, 100, 0.1, np.random.default_rng(0))
    assert {*zip(better.tolist(), worse.tolist(), strict=True)} == {(0, 1), (0, 2), (0, 3), (3, 1), (3, 2)}
    better, worse = _pairs(labels, 3, 0.0, np.random.default_rng(0))
    assert len(better) == len(worse) == 3
    assert (labels[better] > labels[worse]).all()


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ConfigError, match="preset"):
        TextRanker("best", language())
    with pytest.raises(ConfigError, match="heads is empty"):
        TextRanker(language=language(), heads=(), context=False)
    with pytest.raises(NotFittedError, match="call fit first"):
        TextRanker(language=language()).rank_scores(GRAPHS[:1])
    with pytest.raises(DataError, match="no benchmark"):
        TextRanker(language=language()).fit([])


@pytest.mark.parametrize("preset", ["default", "pwr"])
def test_constant_labels(preset):
    flat = Benchmark("flat", "cifar10", GRAPHS[:8], np.full(8, 90.0), BENCH.names[:8])
    ranker = TextRanker(preset, language(), heads=("mlp",), members=1, pairwise=replace(QUICK, epochs=1)).fit([flat])
    assert np.isfinite(ranker.rank_scores(GRAPHS[:3])).all()
