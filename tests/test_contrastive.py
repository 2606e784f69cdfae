"""Pretraining of the graph encoder: objectives, seeds, interruption, files."""

import numpy as np
import pytest
import torch

from archgauge.datasets import nas_bench_201
from archgauge.encoders.contrastive import Objectives, corpus_of, load_encoder, pretrain, save_encoder
from archgauge.encoders.errors import CheckpointError, ConfigError
from archgauge.encoders.gnn import GNNConfig
from archgauge.encoders.reading import read
from archgauge.encoders.registry import encode_table, get_encoder

SMALL = GNNConfig(width=16, rounds=1)


@pytest.fixture(scope="module")
def graphs():
    return [read(nas_bench_201.build(spec, "cifar10")) for spec in nas_bench_201.sample(12, 0)]


@pytest.fixture(scope="module")
def corpus(graphs):
    return corpus_of(graphs, encode_table(graphs, get_encoder("statistics")))


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_corpus_is_standardised(corpus):
    assert corpus.statistics.shape[0] == len(corpus.tensors) == 12
    assert np.abs(corpus.statistics).max() <= 4
    moving = corpus.statistics.std(axis=0) > 1e-4
    assert moving.sum() > 50
    np.testing.assert_allclose(corpus.statistics[:, ~moving], 0, atol=1e-6)
    assert corpus.spectra.shape == (12, 21)
    assert (np.diff(corpus.spectra) >= -1e-6).all()


@pytest.mark.parametrize("weights", [{"statistics": 1.0}, {"masked": 1.0}, {"spectral": 1.0}])
def test_every_objective_is_learnt(corpus, weights):
    lines = []
    pretrain(corpus, SMALL, weights, epochs=12, node_budget=2000, learning_rate=5e-3, report=lines.append)
    losses = [float(line.split()[-1]) for line in lines]
    assert len(losses) == 12
    assert min(losses[-3:]) < losses[0]


def test_a_batch_of_a_single_graph_has_nothing_to_be_compared_with(corpus):
    """As a graph larger than a batch is; the steps before and after go on."""
    sizes = sorted(len(graph) for graph in corpus.tensors)
    start, alone, mixed = (
        pretrain(corpus, SMALL, {"spectral": 1.0}, epochs=2, node_budget=budget, learning_rate=rate)
        for budget, rate in ((1, 1e-3), (1, 1e-2), (sizes[0] + sizes[1], 1e-2))
    )
    assert same(start, alone)
    assert not same(alone, mixed)


def test_views_of_graphs_with_one_spectrum_are_drawn_together():
    objectives = Objectives(SMALL, 5)
    objectives.common = objectives.project = torch.nn.Identity()
    spectra = torch.tensor([[0.0] * 21, [0.0] * 21, [1.0] * 21])
    near = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.0, 0.0, 1.0]])
    apart = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.1, 0.0]])
    assert objectives.spectral(near, near, spectra) < objectives.spectral(apart, apart, spectra)


def test_the_same_seed_gives_the_same_weights_also_after_an_interruption(corpus, tmp_path):
    weights = {"statistics": 1.0, "masked": 0.1, "spectral": 0.1}
    options = {"epochs": 3, "node_budget": 500}
    whole = pretrain(corpus, SMALL, weights, seed=1, **options)
    assert same(whole, pretrain(corpus, SMALL, weights, seed=1, **options))
    assert not same(whole, pretrain(corpus, SMALL, weights, seed=2, **options))

    class StoppedError(Exception):
        pass

    def stop(line):
        if line.startswith("epoch 2"):
            raise StoppedError

    file = tmp_path / "run.state"
    with pytest.raises(StoppedError):
        pretrain(corpus, SMALL, weights, seed=1, checkpoint=file, report=stop, **options)
    assert same(whole, pretrain(corpus, SMALL, weights, seed=1, checkpoint=file, **options))
    with pytest.raises(CheckpointError, match="another run"):
        pretrain(corpus, SMALL, weights, seed=5, checkpoint=file, **options)


def test_nonsense_is_refused(corpus):
    with pytest.raises(ConfigError, match="no objective 'contrast'"):
        pretrain(corpus, SMALL, {"contrast": 1.0}, epochs=1)
    with pytest.raises(ConfigError, match="a weight above 0"):
        pretrain(corpus, SMALL, {"masked": 0.0}, epochs=1)


def test_files_keep_the_encoder(corpus, graphs, tmp_path):
    encoder = pretrain(corpus, SMALL, {"masked": 1.0}, epochs=1)
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, encoder, {"epochs": 1})
    again = load_encoder(file)
    np.testing.assert_allclose(again.embed(graphs), encoder.embed(graphs), atol=2e-2)  # kept in 16 bits
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        load_encoder(tmp_path / "missing.safetensors")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_encoder(file)
