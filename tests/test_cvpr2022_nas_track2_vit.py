"""Vision transformers of the CVPR 2022 challenge: ranks, parameters by hand, strict codes and files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from archgauge.datasets import cvpr2022_nas_track2_vit as track2
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

EXAMPLE = "j111231321311311221231121111231000000"
NAME = "CVPR_2022_NAS_Track2_train.json"


def test_ranks_are_complete_and_prefer_larger_networks(benchmarks_root: Path) -> None:
    paths = {NAME: benchmarks_root / "cvpr2022_nas_track2_vit" / "raw" / NAME}
    for task in track2.TASKS:
        specs, scores = track2.read_labels(paths, task)
        assert len(set(specs)) == 500
        assert sorted(scores.tolist()) == list(range(-499, 1))
        hidden = [np.mean([block.hidden for block in track2.parse(spec)]) for spec in specs]
        correlation = float(np.corrcoef(hidden, scores)[0, 1])
        assert correlation > 0.35 or task in ("veri", "vehicleid", "cplfw")


def test_example_of_the_organisers() -> None:
    blocks = track2.parse(EXAMPLE)
    assert [block.heads for block in blocks] == [12, 11, 10, 10, 10, 11, 11, 12, 12, 11]
    assert [block.hidden for block in blocks[:3]] == [3072, 2304, 2688]
    assert track2.spec_of(blocks) == EXAMPLE


def test_full_network_is_vit_base_without_its_classifier() -> None:
    """85,798,656 parameters: ViT-B/16 at 224 pixels has 86,567,656 with the classifier of 1,000 classes."""
    model = track2.build("l" + "111" * 12, "sop")
    graph = read(model)
    assert stored_costs(model)[0] == graph.params == 86_567_656 - 769 * 1000


def test_samples_are_valid_distinct_and_repeatable() -> None:
    specs = track2.sample(300, 1)
    assert specs == track2.sample(300, 1) != track2.sample(300, 2)
    assert len(set(specs)) == 300
    for spec in specs[:3]:
        assert track2.spec_of(track2.parse(spec)) == spec
        model = track2.build(spec, "veri")
        graph = read(model)
        assert (graph.params, graph.macs) == stored_costs(model)
        assert graph.unknown_ops == ()
    onnx.checker.check_model(with_zero_weights(model), full_check=True)
    for n in (-1, 10_000_000):
        with pytest.raises(DataError, match="can sample"):
            track2.sample(n, 0)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        EXAMPLE[:-1],
        EXAMPLE + "000",
        "k" + EXAMPLE[1:],
        "m" + EXAMPLE[1:],
        EXAMPLE.replace("321", "421"),
        EXAMPLE.replace("321", "322"),
    ],
)
def test_malformed_codes_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match="expected 37 characters"):
        track2.build(spec, "sop")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": {"arch": EXAMPLE, "sop_rank": 0}, "b": {"arch": EXAMPLE, "sop_rank": 1}}, "occurs twice"),
        ({"a": {"arch": EXAMPLE, "sop_rank": 1}}, "not the numbers from 0 to 0"),
        ({"a": {"arch": EXAMPLE}}, "no field 'sop_rank'"),
        ({"a": {"arch": "x", "sop_rank": 0}}, "json, a: vision transformer 'x'"),
        ({}, "expected a JSON object"),
    ],
)
def test_damaged_files_are_refused(rows: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        track2.read_labels({NAME: path}, "sop")


def test_unknown_task_and_missing_file_are_named() -> None:
    with pytest.raises(DataError, match="no task 'mnist'"):
        track2.build(EXAMPLE, "mnist")
    with pytest.raises(DataError, match="is needed, got none"):
        track2.read_labels({}, "sop")
