"""The statistics read off the graph embedding: the map, its file, and the encoder that ships."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from archgauge.datasets import nas_bench_201, nats_bench_sss, pit
from archgauge.encoders import graph_readings
from archgauge.encoders.errors import CheckpointError, DataError
from archgauge.encoders.graph_readings import PENALTIES, SHIPPED_READINGS, GraphReadingsEncoder, Readings, weights_of
from archgauge.encoders.reading import read
from archgauge.encoders.registry import SHIPPED_GRAPH, get_encoder


def sample(noise, spaces=8, each=30, seed=0):
    """Embeddings of several spaces far from each other, and statistics that are linear in them but for noise."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(spaces), each)
    embeddings = random.normal(size=(spaces, 20))[owner] + 0.3 * random.normal(size=(len(owner), 20))
    statistics = embeddings[:, :3] @ random.normal(size=(3, 4)) + noise * random.normal(size=(len(owner), 4))
    return embeddings, statistics, [f"space {i}" for i in owner]


def test_what_is_linear_is_read_and_the_penalty_is_chosen_in_spaces_left_out():
    embeddings, statistics, spaces = sample(0.0)
    readings, penalty, share = Readings.fit(embeddings, statistics, spaces)
    assert set(share) == set(PENALTIES)
    assert penalty == max(share, key=share.__getitem__) == min(PENALTIES)
    assert share[penalty] > 0.99
    standard = (statistics - statistics.mean(0)) / statistics.std(0)
    np.testing.assert_allclose(readings(embeddings), np.clip(standard, -4, 4), atol=0.1)
    noisy = Readings.fit(*sample(5.0))
    assert noisy[1] > penalty
    assert noisy[2][noisy[1]] < 0.5


def test_a_number_that_never_varied_says_nothing_and_outliers_are_clipped():
    embeddings, statistics, spaces = sample(0.1)
    embeddings[:, 5] = 3.0
    statistics[:, 1] = 7.0
    readings, _, _ = Readings.fit(embeddings, statistics, spaces)
    moved = embeddings.copy()
    moved[:, 5] += 100
    np.testing.assert_array_equal(readings(moved), readings(embeddings))
    np.testing.assert_allclose(readings(embeddings)[:, 1], 0, atol=1e-9)
    np.testing.assert_array_equal(readings(embeddings + 1e6)[:, 0], readings(embeddings + 1e9)[:, 0])


def test_shapes_that_do_not_fit_are_refused():
    embeddings, statistics, spaces = sample(0.1)
    for bad in ((embeddings[1:], statistics, spaces), (embeddings, statistics, ["one"] * len(spaces))):
        with pytest.raises(DataError, match="two spaces or more"):
            Readings.fit(*bad)


def test_the_file_brings_the_map_back_for_its_own_weights_only(tmp_path, spoilt):
    embeddings, statistics, spaces = sample(0.1)
    readings, _, _ = Readings.fit(embeddings, statistics, spaces)
    file = tmp_path / "readings.safetensors"
    readings.save(file, {"weights": "abc"})
    np.testing.assert_allclose(Readings.load(file, "abc")(embeddings), readings(embeddings), atol=5e-3)
    with pytest.raises(CheckpointError, match="expected def; make it again"):
        Readings.load(file, "def")
    for bad in spoilt(file, {"weights": "x"}, vars(readings)):
        with pytest.raises(CheckpointError):
            Readings.load(bad, "abc")


@pytest.fixture(scope="module")
def graphs():
    models = [nas_bench_201.build(spec, "cifar10") for spec in nas_bench_201.sample(8, 5)]
    models += [nats_bench_sss.build(spec, "cifar10") for spec in nats_bench_sss.sample(8, 5)]
    models += [pit.SPACES["tiny"].build(spec, "imagenet1k") for spec in pit.SPACES["tiny"].sample(8, 5)]
    return [read(model) for model in models]


def test_the_shipped_map_belongs_to_the_shipped_weights_and_reads_size(graphs):
    assert SHIPPED_READINGS.stat().st_size < 300_000
    Readings.load(SHIPPED_READINGS, weights_of(SHIPPED_GRAPH))
    encoder = get_encoder("graph_readings")
    rows = encoder.encode(graphs)
    assert rows.shape == (len(graphs), len(encoder.columns)) == (len(graphs), 172)
    assert len(encoder.monotone) == 172
    assert np.isfinite(rows).all()
    sizes = rows[:, [encoder.columns.index(name) for name in encoder.sizes]]
    assert spearmanr(sizes[:, 0], [graph.macs for graph in graphs])[0] > 0.95
    known = get_encoder("statistics").encode(graphs)
    every = [spearmanr(a, b)[0] for a, b in zip(rows.T, known.T, strict=True) if min(np.ptp(a), np.ptp(b)) > 0]
    assert np.median(every) > 0.8
    np.testing.assert_allclose(encoder.encode(graphs[3:4])[0], rows[3], atol=2e-3)


def test_the_version_changes_with_the_map(tmp_path, monkeypatch):
    before = GraphReadingsEncoder().version
    file = tmp_path / "readings.safetensors"
    file.write_bytes(SHIPPED_READINGS.read_bytes() + b" ")
    monkeypatch.setattr(graph_readings, "SHIPPED_READINGS", file)
    assert GraphReadingsEncoder().version != before
