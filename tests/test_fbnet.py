"""FBNet: specs, and FBNet-C as timm has it."""

import json
import re

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import archgauge
from archgauge.datasets import fbnet
from archgauge.datasets.onnx_builder import OnnxBuilder, stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read

# FBNet-C (Wu et al. 2019, fig. 4).
FBNET_C = [0, 3, 8, 0, 0, 7, 6, 7, 3, 7, 6, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 3]


def spec(operations: list[int]) -> str:
    return json.dumps(operations, separators=(",", ":"))


def costs(operations: list[int], task: str) -> tuple[int, int]:
    model = fbnet.build(spec(operations), task)
    graph = read(model)
    assert (graph.params, graph.macs) == stored_costs(model)
    return graph.params, graph.macs


def test_fbnet_c_costs_what_is_known() -> None:
    # timm's fbnetc_100; the paper says 5.5 M parameters and 375 M multiply-accumulates.
    assert costs(FBNET_C, "imagenet1k") == (5_572_200, 384_960_160)


@pytest.mark.slow
def test_fbnet_c_is_that_of_timm() -> None:
    pytest.importorskip("timm", reason="needs the extra names")
    pytest.importorskip("onnxscript", reason="needs the extra names")
    found = archgauge.diff(read(fbnet.build(spec(FBNET_C), "imagenet1k")), archgauge.read("timm:fbnetc_100"))
    assert found.same, found.text()


@pytest.mark.parametrize(
    ("operation", "kernel", "expansion", "groups"),
    [(0, 3, 1, 1), (1, 3, 1, 2), (2, 3, 3, 1), (3, 3, 6, 1), (4, 5, 1, 1), (5, 5, 1, 2), (6, 5, 3, 1), (7, 5, 6, 1)],
)
@pytest.mark.parametrize(("task", "size"), [("imagenet1k", 14), ("cifar100", 8)])
def test_blocks_cost_what_their_names_say(
    operation: int, kernel: int, expansion: int, groups: int, task: str, size: int
) -> None:
    """Compared with a skip in the second layer of the fourth stage, 64 channels."""
    before = costs([*FBNET_C[:10], 8, *FBNET_C[11:]], task)
    after = costs([*FBNET_C[:10], operation, *FBNET_C[11:]], task)
    inner = 64 * expansion
    weights = 2 * 64 * inner // groups + inner * kernel**2
    assert after[0] - before[0] == weights + 2 * (2 * inner + 64)
    assert after[1] - before[1] == weights * size**2


def test_a_skip_that_changes_shape_is_a_convolution() -> None:
    skipping = costs([*FBNET_C[:9], 8, *FBNET_C[10:]], "imagenet1k")
    block = costs([*FBNET_C[:9], 0, *FBNET_C[10:]], "imagenet1k")
    # 32 to 64 channels, 28 x 28 to 14 x 14.
    assert skipping[0] - block[0] == 2 * 64 + 32 * 64 - (32 * 32 + 32 * 9 + 32 * 64 + 2 * (32 + 32 + 64))
    assert skipping[1] - block[1] == -(32 * 32 * 28 * 28 + 32 * 9 * 14 * 14)


def test_grouped_blocks_mix_their_groups() -> None:
    b = OnnxBuilder("shuffle", (6, 1, 1))
    shuffled = ReferenceEvaluator(b.build(fbnet._shuffle(b, b.input, 2))).run(
        None, {"input": np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)}
    )
    assert np.ravel(shuffled).tolist() == [0, 3, 1, 4, 2, 5]
    operators = [node.op_type for node in fbnet.build(spec([1, *FBNET_C[1:]]), "imagenet1k").graph.node]
    first = operators.index("Transpose")
    assert operators[first - 2 : first + 3] == ["Relu", "Reshape", "Transpose", "Reshape", "Conv"]
    assert operators.count("Transpose") == 1


def test_the_smallest_network_skips_all() -> None:
    operations = fbnet.parse(spec([8] * 22))
    assert set(operations) == {"skip"}
    model = fbnet.build(spec([8] * 22), "cifar100")
    # The first stage and the layers behind the first of a stage vanish: stem, six skips that change shape, head.
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Conv", "BatchNormalization", "Relu"] * 8 + ["GlobalAveragePool", "Flatten", "Gemm"]
    ends, sizes = ((16, 24), (24, 32), (32, 64), (64, 112), (112, 184), (184, 352)), (32, 16, 8, 8, 4, 4)
    assert costs([8] * 22, "cifar100") == (
        16 * 27 + 2 * 16 + sum(a * b + 2 * b for a, b in ends) + 352 * 1504 + 2 * 1504 + 1504 * 100 + 100,
        16 * 27 * 32**2
        + sum(a * b * size**2 for (a, b), size in zip(ends, sizes, strict=True))
        + 352 * 1504 * 4**2
        + 1504 * 100,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "{}",
        "[0]",
        spec([0] * 21),
        spec([0] * 23),
        spec([9] * 22),
        spec([-1] * 22),
        json.dumps(FBNET_C),
        spec([0] * 21)[:-1] + ",0.0]",
        spec([0] * 21)[:-1] + ",true]",
        spec([0] * 21)[:-1] + ',"0"]',
    ],
)
def test_malformed_specs_are_refused(text: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(text))):
        fbnet.parse(text)
