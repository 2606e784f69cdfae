"""Encoders by name, and the cache of encoded tables."""

import numpy as np
import pytest

from archgauge.encoders.errors import ConfigError, DataError
from archgauge.encoders.graph import ArchGraph, Node
from archgauge.encoders.registry import ENCODERS, encode_table, get_encoder, register_encoder


def network(width):
    nodes = (Node("Input", (), (1, 3, 8, 8)), Node("Conv", (0,), (1, width, 8, 8), (), ((width, 3, 1, 1),)))
    return ArchGraph(nodes, (1,))


class Counting:
    name, version, columns, monotone, sizes = "counting", 1, ("width", "nodes"), (1, 0), ()

    def __init__(self):
        self.calls = 0

    def encode(self, graphs):
        self.calls += len(graphs)
        return np.array([[graph.nodes[-1].shape[1], len(graph)] for graph in graphs], float)


GRAPHS = [network(width) for width in (1, 2, 3, 2)]


def test_every_encoder_keeps_its_promises():
    for name in ENCODERS:
        encoder = get_encoder(name)
        table = encoder.encode(GRAPHS)
        assert encoder.name == name
        assert table.shape == (4, len(encoder.columns))
        assert table.dtype == np.float64
        assert np.isfinite(table).all()
        np.testing.assert_array_equal(table[1], table[3])
        assert len(encoder.monotone) == len(set(encoder.columns)) == len(encoder.columns)
        assert set(encoder.sizes) <= set(encoder.columns)
        assert encoder.encode([]).shape == (0, len(encoder.columns))


def test_names_are_taken_once_and_unknown_ones_are_hinted():
    with pytest.raises(ConfigError, match="registered already"):
        register_encoder("statistics")(Counting)
    with pytest.raises(ConfigError, match="did you mean 'statistics'"):
        get_encoder("statistic")


def test_each_different_graph_is_encoded_once():
    encoder = Counting()
    np.testing.assert_array_equal(encode_table(GRAPHS, encoder)[:, 0], [1, 2, 3, 2])
    assert encoder.calls == 3
    assert encode_table([], encoder).shape == (0, 2)


def test_the_cache_remembers_between_calls(tmp_path):
    encoder = Counting()
    first = encode_table(GRAPHS[:2], encoder, cache=tmp_path)
    second = encode_table(GRAPHS, encoder, cache=tmp_path)
    np.testing.assert_array_equal(second[:2], first)
    assert encoder.calls == 3
    np.testing.assert_array_equal(encode_table(GRAPHS, encoder, cache=tmp_path), second)
    assert encoder.calls == 3
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npz"]


def test_known_hashes_spare_reading_the_graphs(tmp_path):
    encoder = Counting()
    table = encode_table(GRAPHS, encoder, cache=tmp_path)
    unread = [None] * 4
    again = encode_table(unread, encoder, hashes=[graph.hash for graph in GRAPHS], cache=tmp_path)
    np.testing.assert_array_equal(again, table)


def test_another_version_does_not_see_the_old_rows(tmp_path):
    old, new = Counting(), Counting()
    new.version = 2
    encode_table(GRAPHS, old, cache=tmp_path)
    encode_table(GRAPHS, new, cache=tmp_path)
    assert new.calls == 3


def test_a_damaged_cache_is_written_anew(tmp_path):
    encoder = Counting()
    table = encode_table(GRAPHS, encoder, cache=tmp_path)
    (file,) = (path for path in tmp_path.rglob("*.npz"))
    file.write_bytes(file.read_bytes()[:50])
    np.testing.assert_array_equal(encode_table(GRAPHS, encoder, cache=tmp_path), table)
    assert encoder.calls == 6


def test_an_interruption_damages_nothing(tmp_path, monkeypatch):
    encoder = Counting()
    encode_table(GRAPHS[:1], encoder, cache=tmp_path)

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        encode_table(GRAPHS, encoder, cache=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.rglob("*.*"))) == 1
    encode_table(GRAPHS[:1], encoder, cache=tmp_path)
    assert encoder.calls == 3


def test_bad_rows_are_named():
    encoder = Counting()
    encoder.encode = lambda graphs: np.full((len(graphs), 2), np.nan)
    with pytest.raises(DataError, match="column 'width'"):
        encode_table(GRAPHS, encoder)
    encoder.encode = lambda graphs: np.zeros((len(graphs), 5))
    with pytest.raises(DataError, match=r"shape \(3, 5\), expected \(3, 2\)"):
        encode_table(GRAPHS, encoder)


@pytest.mark.slow
def test_several_processes_give_the_same_table(tmp_path):
    graphs = [network(width) for width in range(1, 200)]
    encoder = get_encoder("statistics")
    np.testing.assert_array_equal(encode_table(graphs, encoder, workers=2), encode_table(graphs, encoder))
