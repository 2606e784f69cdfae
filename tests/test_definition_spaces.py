"""Spaces known by their definition: samples are valid, distinct and repeatable, wrong specs are refused."""

from collections.abc import Callable
from typing import Any

import pytest

from archgauge.datasets import fbnet, nas_bench_301, nds, ofa_resnet50, proxylessnas
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

SPACES: dict[str, Any] = {
    **{f"nds/{name}": space for name, space in nds.SPACES.items()},
    "nas_bench_301": nas_bench_301,
    "ofa_resnet50": ofa_resnet50,
    "proxylessnas": proxylessnas,
    "fbnet": fbnet,
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


@every_space
def test_samples_are_valid_distinct_and_repeatable(assert_onnx_agrees: Callable[..., Any], space: Any) -> None:
    specs = space.sample(6, 7)
    assert space.sample(6, 7) == specs
    assert space.sample(6, 8) != specs
    assert len(set(specs)) == 6
    assert space.sample(0, 0) == []
    for task in space.TASKS:
        for spec in specs[:2]:
            model = space.build(spec, task)
            assert_onnx_agrees(model)
            graph = read(model)
            assert graph.unknown_ops == ()
            assert 0 < graph.params <= stored_costs(model)[0]
            assert 0 < graph.macs <= stored_costs(model)[1]


@pytest.mark.slow
@every_space
def test_a_hundred_samples_are_read(space: Any) -> None:
    for spec in space.sample(100, 1):
        graph = read(space.build(spec, space.TASKS[0]))
        assert graph.unknown_ops == ()
        assert graph.params > 0


@every_space
def test_impossible_samples_are_refused(space: Any) -> None:
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="sample"):
            space.sample(n, 0)


@every_space
def test_unknown_tasks_are_refused(space: Any) -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        space.build(space.sample(1, 0)[0], "mnist")
    with pytest.raises(DataError, match="no task 'mnist'"):
        space.read_labels({}, "mnist")


@every_space
def test_labels_need_files_or_there_are_none(space: Any) -> None:
    with pytest.raises(DataError, match=r"is needed, got none|by its definition only"):
        space.read_labels({}, space.TASKS[0])


@every_space
def test_changed_specs_are_refused_or_are_other_networks(space: Any) -> None:
    """Every way of dropping one character of a spec gives an error that names it or another valid spec."""
    spec = space.sample(1, 3)[0]
    messages: dict[str, str] = {}
    for position in range(len(spec)):
        changed = spec[:position] + spec[position + 1 :]
        try:
            space.build(changed, space.TASKS[0])
        except DataError as error:
            messages[changed] = str(error)
    assert len(messages) > len(spec) // 3
    assert all(repr(changed) in message for changed, message in messages.items())
