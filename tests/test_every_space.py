"""What holds for every search space: samples are valid, distinct and repeatable, wrong specs and tasks are refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archgauge.datasets.cache import builder
from archgauge.datasets.corpus import can_draw, different_spaces, draw_corpus
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.datasets.registry import benchmark_record, list_benchmarks
from archgauge.encoders.errors import ConfigError, DataError
from archgauge.encoders.onnx_reader import read

SPACES = [record.name for record in different_spaces()]
every_space = pytest.mark.parametrize("name", SPACES)
CHANGES = 60
"""Places of a spec that are changed at most."""


def space_of(name: str) -> Any:
    record = benchmark_record(name)
    return builder(record.module, record.space)


@every_space
def test_samples_are_valid_distinct_and_repeatable(assert_onnx_agrees: Callable[..., Any], name: str) -> None:
    space = space_of(name)
    specs = space.sample(12, 7)
    assert space.sample(12, 7) == specs
    assert space.sample(12, 8) != specs
    assert len(set(specs)) == 12
    assert space.sample(0, 0) == []
    for spec in specs[:2]:
        model = space.build(spec, space.TASKS[0])
        assert_onnx_agrees(model)
        assert space.build(spec, space.TASKS[0]).SerializeToString(deterministic=True) == model.SerializeToString(
            deterministic=True
        )
        graph = read(model)
        assert graph.unknown_ops == ()
        assert 0 <= graph.params <= stored_costs(model)[0]
        assert math.isfinite(graph.macs)
        assert graph.macs >= 0


@every_space
def test_networks_fit_every_task(assert_onnx_agrees: Callable[..., Any], name: str) -> None:
    space = space_of(name)
    (spec,) = space.sample(1, 5)
    for task in space.TASKS[1:6]:
        assert_onnx_agrees(space.build(spec, task))


@pytest.mark.slow
@every_space
def test_many_samples_are_read(name: str) -> None:
    space = space_of(name)
    graphs = [read(space.build(spec, space.TASKS[0])) for spec in space.sample(12, 1)]
    assert all(graph.unknown_ops == () and math.isfinite(graph.macs) for graph in graphs)
    assert len({graph.hash for graph in graphs}) > 6


@every_space
def test_impossible_samples_are_refused(name: str) -> None:
    space = space_of(name)
    for n in (-1, space.SIZE + 1):
        with pytest.raises(DataError, match=rf"can sample 0 to {space.SIZE:,} networks, not {n:,}"):
            space.sample(n, 0)


@pytest.mark.parametrize("name", [name for name in SPACES if space_of(name).SIZE < 40_000])
def test_small_spaces_give_all_their_networks(name: str) -> None:
    space = space_of(name)
    assert len(set(space.sample(space.SIZE, 0))) == space.SIZE


@every_space
def test_unknown_tasks_are_refused(name: str) -> None:
    space = space_of(name)
    with pytest.raises(DataError, match="no task 'mnist'"):
        space.build(space.sample(1, 0)[0], "mnist")
    with pytest.raises(DataError, match="no task 'mnist'"):
        space.read_labels({}, "mnist")


@every_space
def test_labels_need_files_or_there_are_none(name: str) -> None:
    space = space_of(name)
    with pytest.raises(DataError, match=r"is needed, got none|by its definition only.*sample\(\) and build\(\)"):
        space.read_labels({}, space.TASKS[0])


@every_space
def test_changed_specs_are_refused_or_are_other_networks(name: str) -> None:
    """Dropping a character of a spec gives an error that names it or another valid spec, never a crash."""
    space = space_of(name)
    spec = min(space.sample(4, 3), key=len)
    messages: dict[str, str] = {}
    places = np.unique(np.linspace(0, len(spec) - 1, CHANGES).astype(int)).tolist()
    for position in places:
        changed = spec[:position] + spec[position + 1 :]
        try:
            space.build(changed, space.TASKS[0])
        except DataError as error:
            messages[changed] = str(error)
    assert len(messages) > len(places) // 3
    for changed, message in messages.items():
        assert repr(changed)[:60] in message
        assert len(message) < 3000


@every_space
def test_nonsense_is_refused(name: str) -> None:
    space = space_of(name)
    for spec in ("", "[]", "null", "{}", "()", "[" * 5000, "x" * 100, "\x00"):
        with pytest.raises(DataError):
            space.build(spec, space.TASKS[0])


# --- networks of all spaces together --------------------------------------------------------------------------------


def test_spaces_are_drawn_from_once() -> None:
    drawn = set(SPACES)
    assert {"darts_trained/oncenas", "nas_bench_101", "lemur"} <= drawn
    assert not drawn & {"darts_trained/swap", "nas_bench_101/ec_nas_4v", "nas_bench_201/robustness", "imagenet_zoo"}
    assert drawn <= {record.name for record in list_benchmarks() if can_draw(record)}


def test_a_corpus_takes_all_of_a_small_space(tmp_path: Path) -> None:
    names = ["lemur", "nas_bench_macro"]
    corpus = draw_corpus(40, seed=3, spaces=names, cache=tmp_path, workers=1)
    assert list(corpus) == names
    assert [len(drawn.specs) for drawn in corpus.values()] == [35, 40]
    for name, drawn in corpus.items():
        record = benchmark_record(name)
        assert (drawn.relatives, drawn.task) == (record.relatives, record.tasks[0].name)
        assert len(drawn.graphs) == len(set(drawn.specs))
        assert drawn.graphs[0] == read(builder(record.module, record.space).build(drawn.specs[0], drawn.task))
    again = draw_corpus(40, seed=3, spaces=names[1:], cache=tmp_path, workers=1)["nas_bench_macro"]
    assert again.specs == corpus["nas_bench_macro"].specs
    with pytest.raises(ConfigError, match="no benchmark 'lemurs'"):
        draw_corpus(5, spaces=["lemurs"], cache=tmp_path)
