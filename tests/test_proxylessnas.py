"""ProxylessNAS: specs, and the networks of the paper as pytorchcv has them."""

import re

import pytest

import archgauge
from archgauge.datasets import proxylessnas
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

# The networks that the search found for a phone and for a GPU (Cai et al. 2019, fig. 5): kernel and expansion of every
# layer, "-" where a layer is left out; widths; parameters and multiply-accumulates of the networks of pytorchcv.
FOUND = {
    "mobile": (
        "53 33 - - 73 33 53 53 76 53 53 53 56 53 53 53 76 76 73 73 76",
        (32, 16, 32, 40, 80, 96, 192, 320, 1280),
        4_080_512,
        320_427_584,
    ),
    "gpu": (
        "53 - - - 73 - - 33 76 - - 53 56 - 33 53 76 76 76 56 76",
        (40, 24, 32, 56, 112, 128, 256, 432, 1728),
        7_119_848,
        465_260_160,
    ),
}


def stages_of(text: str) -> list[list[str]]:
    operations = [proxylessnas.ZERO if op == "-" else f"{op[0]}x{op[0]}_MBConv{op[1]}" for op in text.split()]
    return [[operations.pop(0) for _ in range(layers)] for layers in proxylessnas.LAYERS]


@pytest.mark.parametrize("target", FOUND)
def test_networks_of_the_paper_cost_what_is_known(target: str) -> None:
    text, widths, params, macs = FOUND[target]
    model = proxylessnas.model(target, stages_of(text), widths)
    graph = read(model)
    assert (graph.params, graph.macs) == stored_costs(model) == (params, macs)


def test_activations_are_cut_at_6_and_layers_end_without() -> None:
    spec = proxylessnas.spec_of([["3x3_MBConv3"] * layers for layers in proxylessnas.LAYERS])
    operators = [node.op_type for node in proxylessnas.build(spec, "imagenet1k").graph.node]
    # Stem, first layer, two for each of the 21 layers, last convolution.
    assert operators.count("Clip") == 1 + 1 + 42 + 1
    assert operators.count("Add") == 15
    assert not {"Relu", "HardSwish"} & set(operators)


def test_samples_leave_layers_out_but_not_the_first_of_a_stage() -> None:
    stages = [stage for spec in proxylessnas.sample(50, 0) for stage in proxylessnas.parse(spec)]
    assert {op for stage in stages for op in stage[1:]} == {*proxylessnas.OPERATIONS, proxylessnas.ZERO}
    assert {stage[0] for stage in stages} == set(proxylessnas.OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("target", FOUND)
def test_networks_of_the_paper_are_those_of_pytorchcv(target: str) -> None:
    pytest.importorskip("pytorchcv", reason="needs the extra names")
    pytest.importorskip("onnxscript", reason="needs the extra names")
    text, widths, *_ = FOUND[target]
    mine = read(proxylessnas.model(target, stages_of(text), widths))
    found = archgauge.diff(mine, archgauge.read(f"pytorchcv:proxylessnas_{target}"))
    assert found.same, found.text()


def test_a_layer_left_out_costs_nothing() -> None:
    stages = [["3x3_MBConv3"] * layers for layers in proxylessnas.LAYERS]
    full = stored_costs(proxylessnas.build(proxylessnas.spec_of(stages), "imagenet1k"))
    stages[1][2] = proxylessnas.ZERO
    less = stored_costs(proxylessnas.build(proxylessnas.spec_of(stages), "imagenet1k"))
    # 40 channels at 28 x 28, three times as many inside.
    assert full[0] - less[0] == 40 * 120 * 2 + 120 * 9 + 2 * (120 + 120 + 40)
    assert full[1] - less[1] == (40 * 120 * 2 + 120 * 9) * 28 * 28


def test_specs_name_the_operations_of_the_stages() -> None:
    text = ",".join(["7x7_MBConv6", "Zero", "3x3_MBConv3", "Zero"] * 5 + ["5x5_MBConv6"])
    stages = proxylessnas.parse(text)
    assert [len(stage) for stage in stages] == [4, 4, 4, 4, 4, 1]
    assert stages[4] == ("7x7_MBConv6", "Zero", "3x3_MBConv3", "Zero")
    assert proxylessnas.spec_of(stages) == text


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (["3x3_MBConv3"] * 20, "expected 21 operations, got 20"),
        (["Zero"] + ["3x3_MBConv3"] * 20, "operation 1 of stage 1, got 'Zero'"),
        (["3x3_MBConv3"] * 20 + ["Zero"], "operation 1 of stage 6, got 'Zero'"),
        (["3x3_MBConv3"] * 5 + ["3x3_MBConv4"] + ["3x3_MBConv3"] * 15, "operation 2 of stage 2, got '3x3_MBConv4'"),
        (["3x3_MBConv3"] * 5 + ["3x5_MBConv3"] + ["3x3_MBConv3"] * 15, "got '3x5_MBConv3'"),
        (["3x3_MBConv3"] * 5 + [" 3x3_MBConv3"] + ["3x3_MBConv3"] * 15, "got ' 3x3_MBConv3'"),
        ([""], "expected 21 operations"),
    ],
)
def test_malformed_specs_are_refused(operations: list[str], message: str) -> None:
    spec = ",".join(operations)
    with pytest.raises(DataError, match=message) as caught:
        proxylessnas.parse(spec)
    assert re.search(re.escape(repr(spec)), str(caught.value))
