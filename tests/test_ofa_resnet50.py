"""Once-for-All ResNet50: specs, and networks that cost what ResNet50-D costs."""

import json
import re
from typing import Any

import pytest

import archgauge
from archgauge.datasets import ofa_resnet50
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

# ResNet50-D (He et al. 2019, "Bag of Tricks"): depths 3, 4, 6, 3, a quarter of the channels inside, full width.
RESNET50D = {"d": [2, 1, 2, 2, 1], "e": [0.25] * 18, "w": [2] * 6, "image_size": 224}


def spec_with(**changes: Any) -> str:
    """The spec of ResNet50-D with other choices, written as it is."""
    zeros = {3: 0, 17: 0}
    choice = {**RESNET50D, "e": [zeros.get(at, 0.25) for at in range(18)]} | changes
    return json.dumps(choice, separators=(",", ":"))


def test_resnet50d_costs_what_is_known() -> None:
    model = ofa_resnet50.build(ofa_resnet50.spec_of(**RESNET50D), "imagenet1k")
    graph = read(model)
    # timm's resnet50d: 25,576,264 parameters and 4,328,824,832 multiply-accumulates at 224 pixels.
    assert (graph.params, graph.macs) == stored_costs(model) == (25_576_264, 4_328_824_832)


def test_the_largest_and_the_smallest_network() -> None:
    largest = ofa_resnet50.spec_of([2] * 5, [0.35] * 18, [2] * 6, 256)
    smallest = ofa_resnet50.spec_of([0] * 5, [0.2] * 18, [0] * 6, 128)
    assert ofa_resnet50.parse(largest).stages == tuple((0.35,) * depth for depth in (4, 4, 6, 4))
    assert ofa_resnet50.parse(smallest) == ofa_resnet50.SubNetwork(
        False, ((0.2,) * 2, (0.2,) * 2, (0.2,) * 4, (0.2,) * 2), (0.65,) * 6, 128
    )
    costs = [stored_costs(ofa_resnet50.build(spec, "imagenet1k")) for spec in (smallest, largest)]
    assert costs[0][0] < costs[1][0] / 5
    assert costs[0][1] < costs[1][1] / 20


def test_channels_are_multiples_of_8() -> None:
    spec = ofa_resnet50.spec_of([2] * 5, [0.2] * 18, [0, 1, 0, 1, 2, 0], 160)
    model = ofa_resnet50.build(spec, "imagenet1k")
    widths = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 4}
    # Stem 64 * 0.65 / 2 and 64 * 0.8; first stage 256 * 0.65 and a fifth of it.
    assert list(widths.values())[:6] == [24, 24, 48, 32, 32, 168]
    assert all(width % 8 == 0 for width in widths.values())


def test_odd_sizes_are_halved_upwards_on_both_ways() -> None:
    spec = ofa_resnet50.spec_of([0] * 5, [0.25] * 18, [2] * 6, 144)
    model = ofa_resnet50.build(spec, "imagenet1k")
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] for value in model.graph.value_info
    }
    pools = [shapes[node.output[0]] for node in model.graph.node if node.op_type == "AveragePool"]
    assert pools == [[18, 18], [9, 9], [5, 5]]
    assert read(model).macs == stored_costs(model)[1]


def test_shares_of_blocks_that_are_left_out_are_zero() -> None:
    assert ofa_resnet50.spec_of(**RESNET50D) == spec_with()
    assert ofa_resnet50.spec_of(**(RESNET50D | {"e": [0.25] * 3 + [0.35] + [0.25] * 14})) == spec_with()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d": [1, 1, 2, 2, 1]}, "d: expected one of 0, 2, got 1"),
        ({"d": [2, 1, 3, 2, 1]}, "d: expected one of 0, 1, 2, got 3"),
        ({"d": [2, 1, 2.0, 2, 1]}, "d: expected one of 0, 1, 2, got 2.0"),
        ({"d": [2, True, 2, 2, 1]}, "d: expected one of 0, 1, 2, got True"),
        ({"d": [2, 1, 2, 2]}, "d: expected a list of 5"),
        ({"d": "21221"}, "d: expected a list of 5"),
        ({"e": [0.25] * 18}, "expected it to be written"),
        ({"e": [0] * 18}, "e: expected bottleneck shares of 16 blocks"),
        ({"e": [0.3] * 18}, "e: expected one of 0, 0.2, 0.25, 0.35, got 0.3"),
        ({"w": [3] * 6}, "w: expected one of 0, 1, 2, got 3"),
        ({"w": [2] * 5}, "w: expected a list of 6"),
        ({"image_size": 200}, "image_size: expected one of 128, 144"),
        ({"name": "x"}, "expected it to be written"),
    ],
)
def test_other_choices_are_refused(changes: dict[str, Any], message: str) -> None:
    spec = spec_with(**changes)
    with pytest.raises(DataError, match=message) as caught:
        ofa_resnet50.parse(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("spec", ["", "[]", json.dumps(RESNET50D), '{"d":[2,1,2,2,1]}'])
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        ofa_resnet50.parse(spec)


@pytest.mark.slow
def test_the_network_differs_from_timms_resnet50d_in_the_shortcut_of_the_stem_only() -> None:
    pytest.importorskip("timm", reason="needs the extra names")
    pytest.importorskip("onnxscript", reason="needs the extra names")
    mine = read(ofa_resnet50.build(ofa_resnet50.spec_of(**RESNET50D), "imagenet1k"))
    found = archgauge.diff(mine, archgauge.read("timm:resnet50d"))
    assert [(change.kind, change.op) for change in found.changes] == [("removed", "Add")]
