"""NDS: what its networks cost, its specs, and the reader of its files.

The published files could not be had: the tests write small ones in the layout that the authors' notebooks and the
readers of others use (a list of trainings with `net`, `test_ep_top1`, `params` and `flops`, and more that is not read).
"""

import json
import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import archgauge
from archgauge.datasets import darts, nds
from archgauge.datasets.onnx_builder import stored_costs
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read


def stage_net(**changes: Any) -> dict[str, Any]:
    """The `net` of a small ResNeXt on CIFAR-10 as published."""
    net: dict[str, Any] = {
        "block_type": "res_bottleneck_block",
        "ds": [1, 1, 2, 1],
        "ws": [16, 32, 64, 32],
        "ss": [1, 1, 2, 2],
        "bot_muls": [0.0, 0.25, 0.5, 1.0],
        "num_gs": [1, 2, 4, 1],
    }
    return net | changes


def cell_net(nodes: int = 5, **changes: Any) -> dict[str, Any]:
    """The `net` of a network of cells as published; changes may also be of the genotype."""
    edges = [["sep_conv_3x3", 0], ["skip_connect", 1], *[["max_pool_3x3", node] for node in range(2 * nodes - 2)]]
    edges = [[op, min(source, at // 2 + 1)] for at, (op, source) in enumerate(edges)]
    genotype: dict[str, Any] = {
        "normal": edges,
        "normal_concat": list(range(2, nodes + 2)),
        "reduce": edges,
        "reduce_concat": [nodes + 1],
    }
    net = {"genotype": genotype, "width": 16, "depth": 4, "aux": False, "drop_prob": 0.0}
    for key, value in changes.items():
        (genotype if key in genotype else net)[key] = value
    return net


def cost(spec: str, space: str) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the file and, checked to be the same, of the graph."""
    model = nds.build(spec, nds.SPACES[space].TASKS[0], space)
    graph = read(model)
    assert (graph.params, graph.macs) == stored_costs(model)
    return graph.params, graph.macs


# --- networks -------------------------------------------------------------------------------------------------------


def test_cells_of_darts_are_those_of_the_darts_module() -> None:
    spec = darts.sample(1, 5)[0]
    normal, reduction = darts.parse(spec)
    genotype = nds.Genotype(normal, (2, 3, 4, 5), reduction, (2, 3, 4, 5))
    same = nds.spec_of(nds.CellNetwork(genotype, darts.CHANNELS, darts.CELLS))
    assert read(nds.build(same, "cifar10", "darts")).hash == read(darts.build(spec, "cifar10")).hash


DARTS_V2 = {
    "genotype": {
        "normal": [
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 0],
            ["sep_conv_3x3", 1],
            ["sep_conv_3x3", 1],
            ["skip_connect", 0],
            ["skip_connect", 0],
            ["dil_conv_3x3", 2],
        ],
        "normal_concat": [2, 3, 4, 5],
        "reduce": [
            ["max_pool_3x3", 0],
            ["max_pool_3x3", 1],
            ["skip_connect", 2],
            ["max_pool_3x3", 1],
            ["max_pool_3x3", 0],
            ["skip_connect", 2],
            ["skip_connect", 2],
            ["max_pool_3x3", 1],
        ],
        "reduce_concat": [2, 3, 4, 5],
    },
    "width": 48,
    "depth": 14,
}
RESNET_56 = {"block_type": "res_basic_block", "ds": [1, 9, 9, 9], "ws": [16, 16, 32, 64], "ss": [1, 1, 2, 2]}
RESNET_50 = stage_net(
    ds=[1, 3, 4, 6, 3],
    ws=[64, 256, 512, 1024, 2048],
    ss=[4, 1, 2, 2, 2],
    bot_muls=[0.0, 0.25, 0.25, 0.25, 0.25],
    num_gs=[1, 1, 1, 1, 1],
)
RESNEXT_50 = RESNET_50 | {"bot_muls": [0.0, 0.5, 0.5, 0.5, 0.5], "num_gs": [1, 32, 32, 32, 32]}
KNOWN: list[tuple[str, dict[str, Any], str, int, int]] = [
    ("darts_in", DARTS_V2, "pytorchcv:darts", 4_718_752, 529_911_552),
    ("resnet", RESNET_56, "pytorchcv:resnet56_cifar10", 855_770, 125_747_840),
    ("resnext_a_in", RESNET_50, "torchvision:resnet50", 25_557_032, 4_089_184_256),
    ("resnext_b_in", RESNEXT_50, "torchvision:resnext50_32x4d", 25_028_904, 4_230_479_872),
]
every_known = pytest.mark.parametrize(
    ("space", "net", "name", "params", "macs"), KNOWN, ids=["darts_v2", "resnet_56", "resnet_50", "resnext_50"]
)


@every_known
def test_known_networks_cost_what_is_known(space: str, net: dict[str, Any], name: str, params: int, macs: int) -> None:
    assert cost(nds.spec_of_net(net, space), space) == (params, macs)


@pytest.mark.slow
@every_known
def test_known_networks_are_those_of_other_libraries(
    space: str, net: dict[str, Any], name: str, params: int, macs: int
) -> None:
    library, _, _ = name.partition(":")
    pytest.importorskip(library, reason="needs the extra names")
    pytest.importorskip("onnxscript", reason="needs the extra names")
    mine = read(nds.build(nds.spec_of_net(net, space), nds.SPACES[space].TASKS[0], space))
    found = archgauge.diff(mine, archgauge.read(name))
    assert found.same, found.text()


def test_stages_without_shortcuts_cost_the_same_less_the_projections() -> None:
    net = {"ds": [1, 2, 2, 1], "ws": [16, 24, 24, 40], "ss": [1, 1, 2, 2]}
    plain = cost(nds.spec_of_net(net | {"block_type": "double_plain_block"}, "vanilla"), "vanilla")
    residual = cost(nds.spec_of_net(net | {"block_type": "res_basic_block"}, "resnet"), "resnet")
    projections = ((16, 24, 32), (24, 24, 16), (24, 40, 8))
    assert residual[0] - plain[0] == sum(i * o + 2 * o for i, o, _ in projections)
    assert residual[1] - plain[1] == sum(i * o * size**2 for i, o, size in projections)


@pytest.mark.parametrize(
    "operation", sorted({op for space in nds._CELL_SPACES.values() for op in space.operations} - {"none"})
)
def test_operations_cost_what_their_names_say(operation: str) -> None:
    """Changes one edge of the reduction cell from a pool to the operation: 2 reductions, at 32 and 64 channels."""
    space = next(name for name, found in nds._CELL_SPACES.items() if operation in found.operations)
    nodes = nds._CELL_SPACES[space].nodes
    edges = cell_net(nodes)["genotype"]["reduce"]
    before = cost(nds.spec_of_net(cell_net(nodes, reduce=[["max_pool_3x3", 0], *edges[1:]]), space), space)
    after = cost(nds.spec_of_net(cell_net(nodes, reduce=[[operation, 0], *edges[1:]]), space), space)
    params = macs = 0
    for channels, size in ((32, 16), (64, 8)):
        area, kernel = size**2, int(re.findall("[0-9]+", operation + "0")[0])
        square = channels**2
        match operation:
            case "avg_pool_3x3" | "max_pool_3x3" | "max_pool_5x5" | "max_pool_7x7":
                pass
            case "skip_connect":
                params, macs = params + square + 2 * channels, macs + square * area
            case "conv_1x1" | "conv_3x3":
                params, macs = params + square * kernel**2 + 2 * channels, macs + square * kernel**2 * area
            case "conv_3x1_1x3" | "conv_7x1_1x7":
                # The first strip halves the width only.
                params, macs = params + 2 * square * kernel + 2 * channels, macs + 3 * square * kernel * area
            case "dil_conv_3x3" | "dil_conv_5x5":
                one = channels * kernel**2 + square
                params, macs = params + one + 2 * channels, macs + one * area
            case _:
                one = channels * kernel**2 + square
                params, macs = params + 2 * (one + 2 * channels), macs + 2 * one * area
    assert (after[0] - before[0], after[1] - before[1]) == (params, macs)


def nodes_of(net: dict[str, Any], space: str) -> list[tuple[str, dict[str, Any]]]:
    """Operators and attributes of the file of a network."""
    model = nds.build(nds.spec_of_net(net, space), nds.SPACES[space].TASKS[0], space)
    return [
        (node.op_type, {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute})
        for node in model.graph.node
    ]


def test_dilated_separable_convolutions_are_dilated_twice() -> None:
    edges = cell_net()["genotype"]["normal"]
    nodes = nodes_of(cell_net(normal=[["dil_sep_conv_3x3", 0], *edges[1:]]), "amoeba")
    dilated = [attributes for op, attributes in nodes if attributes.get("dilations") == [2, 2]]
    # Two in each of the two normal cells.
    assert [attributes["pads"] for attributes in dilated] == [[2, 2, 2, 2]] * 4


def test_blocks_without_shortcuts_end_in_an_activation() -> None:
    net = {"block_type": "double_plain_block", "ds": [1, 2, 1], "ws": [16, 24, 40], "ss": [1, 1, 2]}
    operators = [op for op, _ in nodes_of(net, "vanilla")]
    assert operators == ["Conv", "BatchNormalization", "Relu"] * 7 + ["GlobalAveragePool", "Flatten", "Gemm"]


def test_stages_on_imagenet_begin_as_resnets_do() -> None:
    nodes = nodes_of(RESNET_50, "resnext_a_in")
    assert [op for op, _ in nodes[:5]] == ["Conv", "BatchNormalization", "Relu", "MaxPool", "Conv"]
    assert (nodes[0][1]["kernel_shape"], nodes[0][1]["strides"]) == ([7, 7], [2, 2])
    assert nodes[3][1] == {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("space", "billions"),
    [("nasnet", 71_465_842), ("amoeba", 556_628), ("pnas", 556_628), ("enas", 5_063), ("darts", 242)],
)
def test_cell_spaces_are_as_large_as_in_the_paper(space: str, billions: int) -> None:
    found = nds._CELL_SPACES[space]
    cells = prod((len(found.operations) * (2 + node)) ** 2 for node in range(found.nodes))
    assert round(cells / 1e9 + 1e-9) == billions


@pytest.mark.parametrize(
    ("space", "size"),
    [("vanilla", 1_259_712), ("resnet", 1_259_712), ("resnext_a", 11_390_625), ("resnext_b", 52_734_375)],
)
def test_stage_spaces_are_as_large_as_in_the_paper(space: str, size: int) -> None:
    found = nds._STAGE_SPACES[space]
    choices = (found.depths, found.widths, found.bottlenecks or (1,), found.groups or (1,))
    assert prod(len(set(values)) for values in choices) ** 3 == size


def test_sampled_cells_give_out_what_is_not_taken_or_all() -> None:
    for spec in nds.sample(20, 0, "enas"):
        network = nds.parse(spec, "enas")
        assert isinstance(network, nds.CellNetwork)
        for edges, given in (network.genotype[:2], network.genotype[2:]):
            taken = {source for _, source in edges}
            assert given == tuple(vertex for vertex in range(2, 7) if vertex not in taken)
    for spec in nds.sample(20, 0, "pnas"):
        network = nds.parse(spec, "pnas")
        assert isinstance(network, nds.CellNetwork)
        assert network.genotype.normal_concat == network.genotype.reduce_concat == (2, 3, 4, 5, 6)


def test_networks_that_do_not_see_their_input_are_not_drawn() -> None:
    blind = [["none", 0], ["none", 1], ["none", 1], ["none", 2], ["none", 1], ["max_pool_3x3", 2]]
    blind += [["dil_conv_5x5", 3], ["sep_conv_5x5", 4]]
    spec = nds.spec_of_net(cell_net(4, normal=blind), "darts")
    assert read(nds.build(spec, "cifar10", "darts")).params == 0
    network = nds.parse(spec, "darts")
    assert isinstance(network, nds.CellNetwork)
    assert not nds._sees_input(network)
    # An edge from the cell before the last keeps it alive, if that cell is alive.
    seeing = nds.parse(nds.spec_of_net(cell_net(4, normal=[["skip_connect", 0], *blind[1:]]), "darts"), "darts")
    assert isinstance(seeing, nds.CellNetwork)
    assert nds._sees_input(seeing)
    for spec in nds.sample(300, 0, "darts"):
        drawn = nds.parse(spec, "darts")
        assert isinstance(drawn, nds.CellNetwork)
        assert nds._sees_input(drawn)


# --- specs ----------------------------------------------------------------------------------------------------------


def test_a_published_net_becomes_a_spec_and_back() -> None:
    spec = nds.spec_of_net(stage_net(), "resnext_a")
    assert nds.parse(spec, "resnext_a") == nds.StageNetwork(
        "res_bottleneck_block", (1, 1, 2, 1), (16, 32, 64, 32), (1, 1, 2, 2), (0.0, 0.25, 0.5, 1.0), (1, 2, 4, 1)
    )
    spec = nds.spec_of_net(cell_net(), "enas")
    assert json.loads(spec)["genotype"] == cell_net()["genotype"]
    assert nds.spec_of(nds.parse(spec, "enas")) == spec
    assert "aux" not in spec


@pytest.mark.parametrize(
    ("space", "net", "message"),
    [
        ("enas", cell_net(normal=[["none", 0]] * 10), "expected an operation and an input"),
        ("enas", cell_net(normal=[["skip_connect", 0]] * 8), "expected a list of 10 edges"),
        (
            "darts",
            cell_net(4, normal=[["skip_connect", 2]] * 8),
            "input of edge 0: expected a whole number from 0 to 1",
        ),
        ("darts", cell_net(4, normal=[["skip_connect", True]] * 8), "input of edge 0"),
        ("enas", cell_net(reduce_concat=[]), "reduce_concat: expected different vertices"),
        ("enas", cell_net(reduce_concat=[3, 2]), "reduce_concat: expected different vertices"),
        ("enas", cell_net(reduce_concat=[7]), "reduce_concat: expected a whole number from 2 to 6"),
        ("enas", cell_net(reduce_concat=2), "reduce_concat: expected a list"),
        ("enas", cell_net(width=15), "width: expected an even number"),
        ("enas", cell_net(depth=0), "depth: expected a whole number from 1"),
        ("enas", stage_net(), "no field 'genotype'"),
        ("resnext_a", cell_net(), "no field 'block_type'"),
        ("resnet", stage_net(), "block_type: expected 'res_basic_block'"),
        ("resnet", stage_net(block_type="res_basic_block"), "expected no bot_muls"),
        ("resnext_a", stage_net(ss=[4, 1, 2, 2]), r"expected a stem \(ds 1, ss 1\)"),
        ("resnext_a_in", stage_net(), r"expected a stem \(ds 1, ss 4\)"),
        ("resnext_a", stage_net(ss=[1, 1, 3, 2]), "stages of stride 1 or 2"),
        ("resnext_a", stage_net(ds=[2, 1, 2, 1]), "expected a stem"),
        ("resnext_a", stage_net(ws=[16, 32, 64]), "ws: expected a list of 4"),
        ("resnext_a", stage_net(bot_muls=[0.0, 0.25, 0.5]), "bot_muls: expected a list of 4 numbers"),
        ("resnext_a", stage_net(bot_muls=[0.0, 0.25, "x", 1]), "bot_muls: expected a number"),
        ("resnext_a", stage_net(bot_muls=[0.0, 0.25, -0.5, 1.0]), "cannot be divided"),
        ("resnext_a", stage_net(num_gs=[1, 3, 1, 1]), "cannot be divided into 3 groups"),
        ("nasbench", stage_net(), "NDS has no space 'nasbench'"),
    ],
)
def test_nets_outside_the_space_are_refused(space: str, net: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        nds.spec_of_net(net, space)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "[]",
        "null",
        json.dumps(stage_net()),
        json.dumps(stage_net(extra=1), separators=(",", ":")),
        json.dumps(stage_net(bot_muls=[1.0, 0.25, 0.5, 1.0]), separators=(",", ":")),
        '{"block_type":1,"block_type":1}',
    ],
)
def test_malformed_specs_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        nds.parse(spec, "resnext_a")


# --- published files ------------------------------------------------------------------------------------------------


def entry(net: dict[str, Any], *errors: Any, **more: Any) -> dict[str, Any]:
    """One training as published."""
    return {
        "job_id": "0",
        "rng_seed": 1,
        "net": net,
        "optim": {"base_lr": 0.1, "wd": 0.0005, "max_ep": len(errors)},
        "params": 1234,
        "flops": 5678,
        "act_mem": 1.0,
        "exp_mem": 1.0,
        "iter_time": 0.1,
        "prec_time": 0.1,
        "min_test_top1": min(errors, default=0),
        "train_ep_loss": [float("nan"), 1.5],
        "train_ep_top1": [50.0, 20.0],
        "test_ep_top1": list(errors),
    } | more


def write(folder: Path, name: str, content: Any) -> dict[str, Path]:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return {name: path}


def test_labels_are_accuracies_of_the_last_epoch_and_repeats_are_averaged(tmp_path: Path) -> None:
    other = stage_net(ds=[1, 1, 1, 1])
    entries = [
        entry(stage_net(), 40.0, 10.0, 12.0),
        entry(other, 90.0, 30.5, params=99, flops=7),
        entry(stage_net(bot_muls=[1, 0.25, 0.5, 1], drop=0), 50.0, 14.0),
    ]
    paths = write(tmp_path, "ResNeXt-A.json", entries)
    specs, accuracy = nds.read_labels(paths, "cifar10", "resnext_a")
    assert specs == [nds.spec_of_net(net, "resnext_a") for net in (stage_net(), other)]
    np.testing.assert_allclose(accuracy, [87.0, 69.5])
    params, flops = nds.published_costs(paths, "cifar10", "resnext_a")
    assert params.tolist() == [1234, 99]
    assert flops.tolist() == [5678, 7]
    assert nds.SPACES["resnext_a"].read_labels(paths, "cifar10")[0] == specs


def test_labels_of_cells_on_imagenet(tmp_path: Path) -> None:
    paths = write(tmp_path, "ENAS_in.json", [entry(cell_net(depth=8), 60.0, 40.25)])
    specs, accuracy = nds.SPACES["enas_in"].read_labels(paths, "imagenet1k")
    assert accuracy.tolist() == [59.75]
    assert json.loads(specs[0])["depth"] == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a list of trained networks"),
        ({"top": [], "mid": []}, "expected a list of trained networks"),
        ([entry(stage_net(), 10.0), 3], "entry 1: no field 'net'"),
        ([entry(stage_net(ds=[1]), 10.0)], "entry 0, ws: expected a list of 1"),
        ([entry(stage_net())], "entry 0, test_ep_top1: expected a list with one error per epoch"),
        ([entry(stage_net(), 10.0, test_ep_top1=[10.0, "x"])], "test_ep_top1: expected a number"),
        ([entry(stage_net(), 10.0, 101.0)], "expected errors from 0 to 100 percent, got 101"),
        ([entry(stage_net(), 10.0, float("nan"))], "expected a finite number"),
        ([entry(stage_net(), 10.0, params=None)], "entry 0, params: expected a number"),
    ],
)
def test_damaged_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    paths = write(tmp_path, "ResNeXt-A.json", content)
    with pytest.raises(DataError, match=message) as caught:
        nds.read_labels(paths, "cifar10", "resnext_a")
    assert "ResNeXt-A.json" in str(caught.value)


def test_files_tasks_and_spaces_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ResNet\.json is needed"):
        nds.read_labels({}, "cifar10", "resnet")
    with pytest.raises(DataError, match=r"NDS resnet has no task 'imagenet1k'"):
        nds.read_labels({}, "imagenet1k", "resnet")
    with pytest.raises(DataError, match="NDS has no space"):
        nds.read_labels({}, "cifar10", "resnet_in")
    with pytest.raises(DataError, match="no task 'cifar10'"):
        nds.build(nds.sample(1, 0, "enas_in")[0], "cifar10", "enas_in")
