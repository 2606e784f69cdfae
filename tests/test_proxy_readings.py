"""Proxies read off structure: the perceptron, its file, and the encoder that ships."""

import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from archgauge.datasets import nas_bench_201
from archgauge.datasets.corpus import draw_corpus
from archgauge.encoders import proxy_readings
from archgauge.encoders.errors import CheckpointError, DataError
from archgauge.encoders.proxies import PROXY_NAMES
from archgauge.encoders.proxy_readings import SHIPPED_PROXY_READINGS, ProxyReadings, ProxyReadingsEncoder, sources
from archgauge.encoders.reading import read
from archgauge.encoders.registry import get_encoder


def sample(seed=0, each=320):
    """Two spaces far from each other, with a proxy that bends inside each and one whose scale differs a lot."""
    random = np.random.default_rng(seed)
    inside = random.normal(size=(2 * each, 6))
    owner = np.repeat([0, 1], each)
    features = inside + 2.0 * owner[:, None]
    proxies = np.column_stack([np.abs(inside[:, 0]) + 3 * owner, inside[:, 2] * (1 + 9 * owner)])
    return features, proxies, [f"space {i}" for i in owner]


@pytest.fixture(scope="module")
def fitted():
    return ProxyReadings.fit(*sample(), members=2, hidden=64, epochs=200)


def test_what_bends_inside_a_space_is_read(fitted):
    features, proxies, spaces = sample()
    found = fitted(features)
    for space in set(spaces):
        at = np.array(spaces) == space
        assert spearmanr(found[at, 0], proxies[at, 0])[0] > 0.85
    fresh, expected, _ = sample(1)
    assert spearmanr(fitted(fresh)[320:, 1], expected[320:, 1])[0] > 0.9


def test_it_says_what_torch_says(fitted):
    features = sample(2)[0]
    said = []
    for member in fitted.members:
        layers = {name: torch.tensor(value) for name, value in member.items()}
        said.append(through_torch(layers, torch.tensor(np.clip((features - fitted.centre) / fitted.scale, -6, 6))))
    assert (said[0] != said[1]).any()
    np.testing.assert_allclose(fitted(features), np.mean(said, axis=0), atol=1e-9)


def through_torch(layers, x):
    for linear, norm in (("0", "1"), ("4", "5")):
        x = torch.nn.functional.linear(x, layers[f"{linear}.weight"], layers[f"{linear}.bias"])
        x = torch.nn.functional.layer_norm(x, x.shape[1:], layers[f"{norm}.weight"], layers[f"{norm}.bias"])
        x = torch.nn.functional.silu(x)
    return torch.nn.functional.linear(x, layers["7.weight"], layers["7.bias"]).numpy()


def test_a_seed_gives_one_perceptron_and_leaves_torchs_random_numbers_alone():
    torch.manual_seed(5)
    first = ProxyReadings.fit(*sample(), hidden=8, epochs=2, seed=3)
    after = torch.rand(3)
    torch.manual_seed(5)
    np.testing.assert_array_equal(after, torch.rand(3))
    features = sample(2)[0]
    np.testing.assert_array_equal(first(features), ProxyReadings.fit(*sample(), hidden=8, epochs=2, seed=3)(features))
    assert (first(features) != ProxyReadings.fit(*sample(), hidden=8, epochs=2, seed=4)(features)).any()


def test_small_spaces_count_as_much_as_large_ones():
    targets = np.random.default_rng(0).normal(size=(60, 2)) * [1.0, 0.01]
    weights = proxy_readings._weights(targets, ["a"] * 10 + ["b"] * 50)
    assert weights[:10, 1].sum() == pytest.approx(weights[10:, 1].sum())
    assert weights.max() <= proxy_readings.HEAVIEST


def test_shapes_that_do_not_fit_are_refused():
    features, proxies, spaces = sample()
    for bad in ((features[1:], proxies, spaces), (features[:20], proxies[:20], spaces[:20])):
        with pytest.raises(DataError, match="expected as many of each"):
            ProxyReadings.fit(*bad)


def test_the_file_brings_the_perceptron_back_for_its_own_sources_only(fitted, tmp_path, spoilt):
    features = sample(3)[0]
    file = tmp_path / "readings.safetensors"
    fitted.save(file, {"sources": "abc"})
    np.testing.assert_allclose(ProxyReadings.load(file, "abc")(features), fitted(features), atol=1e-4)
    with pytest.raises(CheckpointError, match="expected def; make it again"):
        ProxyReadings.load(file, "def")
    for bad in spoilt(file, {"sources": "abc"}, ("centre", "scale")):
        with pytest.raises(CheckpointError):
            ProxyReadings.load(bad, "abc")


def test_the_shipped_perceptron_reads_what_running_tells():
    assert SHIPPED_PROXY_READINGS.stat().st_size < 1_000_000
    ProxyReadings.load(SHIPPED_PROXY_READINGS, sources())
    specs = [spec for spec in nas_bench_201.sample(400, 77) if "none" not in spec][:50]
    graphs = [read(nas_bench_201.build(spec, "cifar10")) for spec in specs]
    encoder = get_encoder("proxy_readings")
    rows = encoder.encode(graphs)
    assert rows.shape == (len(graphs), len(encoder.columns)) == (len(graphs), len(PROXY_NAMES))
    run = get_encoder("proxies").encode(graphs)
    assert spearmanr(rows[:, 2], run[:, 2])[0] > 0.9
    np.testing.assert_allclose(encoder.encode(graphs[3:4])[0], rows[3], atol=2e-3)


def test_the_version_changes_with_the_perceptron(tmp_path, monkeypatch):
    before = ProxyReadingsEncoder().version
    file = tmp_path / "readings.safetensors"
    file.write_bytes(SHIPPED_PROXY_READINGS.read_bytes() + b" ")
    monkeypatch.setattr(proxy_readings, "SHIPPED_PROXY_READINGS", file)
    assert ProxyReadingsEncoder().version != before


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module("pretrain_proxy_readings")


def test_large_networks_are_run_in_smaller_numbers(script, monkeypatch):
    graphs = [read(nas_bench_201.build(spec, "cifar10")) for spec in nas_bench_201.sample(6, 0)]
    assert script.affordable(graphs) == graphs
    monkeypatch.setattr(script, "MOST_NODES", len(graphs[0]) + len(graphs[1]))
    assert script.affordable(graphs) == graphs[:2]
    monkeypatch.setattr(script, "MOST_PARAMS", 1)
    assert script.affordable(graphs) == graphs[:1]


@pytest.mark.slow
def test_the_command_runs_networks_and_writes_what_reads_them(script, tmp_path, monkeypatch, capsys):
    spaces = ["nas_bench_macro", "nats_bench_sss"]
    monkeypatch.setattr(script, "draw_corpus", partial(draw_corpus, spaces=spaces, workers=1))
    monkeypatch.setattr(script, "default_cache_dir", lambda: tmp_path / "cache")
    out = tmp_path / "readings.safetensors"
    options = ["--per-space", "160", "--epochs", "60", "--members", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["pretrain_proxy_readings.py", *options])
    script.main()
    printed = capsys.readouterr().out
    assert "networks of 2 spaces" in printed
    known = float(printed.partition("same spaces: Spearman naswot ")[2].partition(",")[0])
    assert known > 0.5
    made = ProxyReadings.load(out, sources())
    assert len(made.members) == 2
    graphs = [read(nas_bench_201.build(spec, "cifar10")) for spec in nas_bench_201.sample(5, 1)]
    assert made(get_encoder("statistics").encode(graphs)).shape == (5, 3)
