"""NDS: the design spaces of "On Network Design Spaces", five of cells and four of residual or plain stages.

I. Radosavovic, J. Johnson, S. Xie, W.-Y. Lo, P. Dollár, "On Network Design Spaces for Visual Recognition", ICCV 2019.

A spec is the `net` of the published file as compact JSON, without the entries that do not shape the network. Cells:
`{"genotype":{"normal":[["sep_conv_3x3",1],...],"normal_concat":[2,...],"reduce":[...],"reduce_concat":[...]},
"width":16,"depth":12}`; stages, the stem first: `{"block_type":"res_bottleneck_block","ds":[1,4,8,2],"ws":[16,64,...],
"ss":[1,1,2,2],"bot_muls":[0.0,0.25,...],"num_gs":[1,2,...]}`. `spec_of_net` writes the spec of a published `net`.

Spaces are named after the published files, in small letters: `nasnet` is NASNet.json (CIFAR-10), `nasnet_in` is
NASNet_in.json (ImageNet). `Vanilla.json` has stages without shortcuts. The sweeps of learning rates, of one fixed width
and depth, of seeds and `ResNet-B.json` hold networks of the same kinds and are no spaces of their own.

What is checked and what is not. Operations, skeletons, stems, heads and blocks follow the authors' library pycls and
their `unnas`; DARTS V2 on ImageNet, ResNet-56, ResNet-50 and ResNeXt-50, which are networks of these spaces, are the
graphs that other libraries give. The number of cells that the paper gives for every cell space equals what `sample`
draws from (two inputs with repetition for every node), and so do the sizes of the stage spaces. Widths and depths of
the cells are those of the paper; where it only gives a range and a number of values "about evenly spaced in log space"
(depths and widths of `resnet` and `vanilla`), the values themselves are ours, and so are the four stages of the
ResNeXts on ImageNet. Any values can be read. The published files (data.zip of facebookresearch/nds) could not be had:
the reader is tested on files of the layout that the authors' notebooks and others' readers of these files use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .darts import Edges, edge, factorized_reduce, relu_conv_bn, separable
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_space, check_task, field, number, parse_json, raw_path, read_text
from .space import Space, check_count

TASKS = ("cifar10", "imagenet1k")
"""Every space has one of them: ImageNet if its name ends in `_in`."""
SIZE = 1_000_000
"""Specs that `sample` gives at most."""

_CLASSES = {"cifar10": 10, "imagenet1k": 1000}
_SIZES = {"cifar10": 32, "imagenet1k": 224}
_MAX_DEPTH = 64
_MAX_WIDTH = 4096

_Choice = TypeVar("_Choice")


class CellSpace(NamedTuple):
    """A space of cells.

    Attributes:
        operations: What an edge can be.
        nodes: Nodes of a cell besides its two inputs; each adds up two edges.
        loose: A sampled cell gives out the nodes that no other node takes, instead of all.
    """

    operations: tuple[str, ...]
    nodes: int
    loose: bool


class StageSpace(NamedTuple):
    """A space of stages of equal blocks.

    Attributes:
        block: Name of the block.
        depths: Blocks of a stage that `sample` draws from.
        widths: Channels.
        bottlenecks: Inner channels of a block as a share of the width; empty for blocks without.
        groups: Groups of the inner convolution; empty for blocks without.
    """

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottlenecks: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()


_SEPARABLE = ("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "avg_pool_3x3", "max_pool_3x3")
_CELL_SPACES = {
    "nasnet": CellSpace(
        (
            *_SEPARABLE,
            "max_pool_5x5",
            "max_pool_7x7",
            "conv_1x1",
            "conv_3x3",
            "conv_3x1_1x3",
            "conv_7x1_1x7",
            "dil_conv_3x3",
        ),
        5,
        True,
    ),
    "amoeba": CellSpace((*_SEPARABLE, "dil_sep_conv_3x3", "conv_7x1_1x7"), 5, True),
    "pnas": CellSpace((*_SEPARABLE, "dil_conv_3x3", "conv_7x1_1x7"), 5, False),
    "enas": CellSpace(("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3"), 5, True),
    "darts": CellSpace(
        (
            "none",
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
            "avg_pool_3x3",
            "max_pool_3x3",
        ),
        4,
        False,
    ),
}
_CELL_WIDTHS = (16, 24, 32)
_CELL_DEPTHS = (4, 8, 12, 16, 20)

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
_WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)
_POWERS = (1, 2, 4, 8, 16)
_STAGE_SPACES = {
    "vanilla": StageSpace("double_plain_block", _DEPTHS, _WIDTHS),
    "resnet": StageSpace("res_basic_block", _DEPTHS, _WIDTHS),
    "resnext_a": StageSpace(
        "res_bottleneck_block", _POWERS, tuple(16 * k for k in _POWERS), (0.25, 0.5, 1.0), (1, 2, 4)
    ),
    "resnext_b": StageSpace("res_bottleneck_block", _POWERS, tuple(64 * k for k in _POWERS), (0.25, 0.5, 1.0), _POWERS),
}
_STRIDES = {"cifar10": (1, 1, 2, 2), "imagenet1k": (4, 1, 2, 2, 2)}
_STEM_WIDTHS = {"cifar10": 16, "imagenet1k": 64}

_FILES = {
    "nasnet": "NASNet.json",
    "nasnet_in": "NASNet_in.json",
    "amoeba": "Amoeba.json",
    "amoeba_in": "Amoeba_in.json",
    "pnas": "PNAS.json",
    "pnas_in": "PNAS_in.json",
    "enas": "ENAS.json",
    "enas_in": "ENAS_in.json",
    "darts": "DARTS.json",
    "darts_in": "DARTS_in.json",
    "vanilla": "Vanilla.json",
    "resnet": "ResNet.json",
    "resnext_a": "ResNeXt-A.json",
    "resnext_a_in": "ResNeXt-A_in.json",
    "resnext_b": "ResNeXt-B.json",
    "resnext_b_in": "ResNeXt-B_in.json",
}


class Genotype(NamedTuple):
    """A normal and a reduction cell: edges (operation, input) and the vertices that are given out."""

    normal: Edges
    normal_concat: tuple[int, ...]
    reduce: Edges
    reduce_concat: tuple[int, ...]


class CellNetwork(NamedTuple):
    """A network of cells: genotype, channels of the first cells, and number of cells."""

    genotype: Genotype
    width: int
    depth: int


class StageNetwork(NamedTuple):
    """A network of stages, the stem first; bottlenecks and groups are empty for blocks without."""

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    bottlenecks: tuple[float, ...]
    groups: tuple[int, ...]


def parse(spec: str, space: str) -> CellNetwork | StageNetwork:
    """The network of a spec.

    Raises:
        DataError: It is no network of the space, or the space does not exist.
    """
    source = f"NDS network {spec!r}"
    network = network_of_net(parse_json(spec, source), space, source)
    if spec != spec_of(network):
        raise DataError(f"{source}: expected it to be written {spec_of(network)!r}")
    return network


def spec_of(network: CellNetwork | StageNetwork) -> str:
    """The spec of a network."""
    net: dict[str, Any]
    if isinstance(network, CellNetwork):
        net = {"genotype": network.genotype._asdict(), "width": network.width, "depth": network.depth}
    else:
        net = {"block_type": network.block, "ds": network.depths, "ws": network.widths, "ss": network.strides}
        if network.bottlenecks:
            net |= {"bot_muls": network.bottlenecks, "num_gs": network.groups}
    return json.dumps(net, separators=(",", ":"))


def spec_of_net(net: Mapping[str, Any], space: str) -> str:
    """The spec of a `net` as the published files hold it; entries that do not shape the network are left out.

    Raises:
        DataError: It is no network of the space, or the space does not exist.
    """
    return spec_of(network_of_net(net, space, "NDS net"))


def network_of_net(net: Any, space: str, source: str) -> CellNetwork | StageNetwork:
    """The network of a `net` as the published files hold it.

    Args:
        net: The JSON object.
        space: One of `SPACES`.
        source: Where it stands, for errors.

    Raises:
        DataError: It is no network of the space, or the space does not exist.
    """
    check_space(space, _FILES, "NDS")
    base = space.removesuffix("_in")
    if base in _CELL_SPACES:
        return _cell_network(net, _CELL_SPACES[base], source)
    return _stage_network(net, _STAGE_SPACES[base], _task(space), source)


def build(spec: str, task: str, space: str) -> ModelProto:
    """The network of a spec, input 3x32x32 (CIFAR-10) or 3x224x224 (ImageNet), without auxiliary head.

    `none` edges are written as a multiplication by zero.

    Raises:
        DataError: The spec, the space or its task does not exist.
    """
    check_space(space, _FILES, "NDS")
    check_task(task, (_task(space),), f"NDS {space}")
    network = parse(spec, space)
    if isinstance(network, CellNetwork):
        return cell_model(spec, network, task)
    b = OnnxBuilder(spec, (3, _SIZES[task], _SIZES[task]))
    x = b.input
    if task == "imagenet1k":
        x = b.relu(b.batch_norm(b.conv(x, network.widths[0], kernel=7, stride=2)))
        x = b.max_pool(x, kernel=3, stride=2, padding=1)
    else:
        x = b.relu(b.batch_norm(b.conv(x, network.widths[0])))
    for stage in range(1, len(network.depths)):
        for position in range(network.depths[stage]):
            x = _block(b, x, network, stage, network.strides[stage] if position == 0 else 1)
    return _classified(b, x, task)


def cell_model(name: str, network: CellNetwork, task: str) -> ModelProto:
    """The network of cells as DARTS stacks them (Liu et al. 2019, app. A.2 and A.3), without auxiliary head.

    Cells at a third and two thirds of the depth are reduction cells and double the channels. On ImageNet three
    convolutions with stride 2 come first.

    Args:
        name: Name of the graph in the file.
        network: Genotype, width and depth.
        task: "cifar10" (input 3x32x32) or "imagenet1k" (3x224x224).
    """
    genotype, width, depth = network
    b = OnnxBuilder(name, (3, _SIZES[task], _SIZES[task]))
    if task == "imagenet1k":
        x = b.relu(b.batch_norm(b.conv(b.input, width // 2, stride=2)))
        before = b.batch_norm(b.conv(x, width, stride=2))
        x = b.batch_norm(b.conv(b.relu(before), width, stride=2))
    else:
        before = x = b.batch_norm(b.conv(b.input, 3 * width))
    for position in range(depth):
        reduces = position in (depth // 3, 2 * depth // 3)
        if reduces:
            width *= 2
        edges = genotype.reduce if reduces else genotype.normal
        given = genotype.reduce_concat if reduces else genotype.normal_concat
        before, x = x, _cell(b, before, x, edges, given, width, 2 if reduces else 1)
    return _classified(b, x, task)


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and accuracies (percent, 100 minus the published test error of the last epoch) by first appearance.

    Networks that were trained several times have the mean.

    Raises:
        DataError: The file is missing or damaged, or the space or its task does not exist.
    """
    rows = _rows(paths, task, space)
    return list(rows), np.array([100.0 - np.mean([row.error for row in found]) for found in rows.values()])


def published_costs(
    paths: Mapping[str, Path], task: str, space: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters and multiply-accumulates as published, in the order of `read_labels`."""
    rows = _rows(paths, task, space)
    return (
        np.array([found[0].params for found in rows.values()]),
        np.array([found[0].flops for found in rows.values()]),
    )


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space, every choice uniformly; the same for the same seed.

    Networks whose output does not depend on the input, which `none` makes possible, are drawn again.

    Raises:
        DataError: n is negative or above 1,000,000, or the space does not exist.
    """
    check_space(space, _FILES, "NDS")
    check_count(n, SIZE, f"NDS {space}")
    rng = np.random.default_rng(seed)
    base = space.removesuffix("_in")
    found: dict[str, None] = {}
    while len(found) < n:
        if base in _STAGE_SPACES:
            found[spec_of(_random_stages(rng, _STAGE_SPACES[base], _task(space)))] = None
        elif _sees_input(network := _random_cells(rng, _CELL_SPACES[base])):
            found[spec_of(network)] = None
    return list(found)


def _task(space: str) -> str:
    return "imagenet1k" if space.endswith("_in") else "cifar10"


# Specs


def _cell_network(net: Any, space: CellSpace, source: str) -> CellNetwork:
    genotype = field(net, "genotype", source)
    cells: list[Edges] = []
    given: list[tuple[int, ...]] = []
    for kind in ("normal", "reduce"):
        cells.append(_edges(field(genotype, kind, source), space, f"{source}, {kind}"))
        vertices = _integers(field(genotype, f"{kind}_concat", source), f"{source}, {kind}_concat", 2, space.nodes + 1)
        if not vertices or list(vertices) != sorted(set(vertices)):
            raise DataError(f"{source}, {kind}_concat: expected different vertices, ascending, got {list(vertices)}")
        given.append(vertices)
    width = _integer(field(net, "width", source), f"{source}, width", 2, _MAX_WIDTH)
    if width % 2:
        raise DataError(f"{source}, width: expected an even number, got {width}")
    depth = _integer(field(net, "depth", source), f"{source}, depth", 1, _MAX_DEPTH)
    return CellNetwork(Genotype(cells[0], given[0], cells[1], given[1]), width, depth)


def _edges(cell: Any, space: CellSpace, source: str) -> Edges:
    if not isinstance(cell, list) or len(cell) != 2 * space.nodes:
        raise DataError(f"{source}: expected a list of {2 * space.nodes} edges, got {cell!r}")
    edges: list[tuple[str, int]] = []
    for position, pair in enumerate(cell):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] not in space.operations:
            raise DataError(
                f"{source}, edge {position}: expected an operation and an input, with an operation out of "
                f"{', '.join(space.operations)}, got {pair!r}"
            )
        edges.append((pair[0], _integer(pair[1], f"{source}, input of edge {position}", 0, position // 2 + 1)))
    return tuple(edges)


def _stage_network(net: Any, space: StageSpace, task: str, source: str) -> StageNetwork:
    block = field(net, "block_type", source)
    if block != space.block:
        raise DataError(f"{source}, block_type: expected {space.block!r}, got {block!r}")
    depths = _integers(field(net, "ds", source), f"{source}, ds", 1, _MAX_DEPTH)
    stages = len(depths)
    widths = _integers(field(net, "ws", source), f"{source}, ws", 1, _MAX_WIDTH, stages)
    strides = _integers(field(net, "ss", source), f"{source}, ss", 1, 4, stages)
    stem = _STRIDES[task][0]
    if not 2 <= stages <= 6 or depths[0] != 1 or strides[0] != stem or max(strides[1:]) > 2:
        raise DataError(
            f"{source}: expected a stem (ds 1, ss {stem}) and one to five stages of stride 1 or 2, got ds "
            f"{list(depths)} and ss {list(strides)}"
        )
    if not space.bottlenecks:
        if net.get("bot_muls") or net.get("num_gs"):
            raise DataError(f"{source}: the block {block} has no bottleneck, expected no bot_muls and no num_gs")
        return StageNetwork(block, depths, widths, strides, (), ())
    shares = field(net, "bot_muls", source)
    if not isinstance(shares, list) or len(shares) != stages:
        raise DataError(f"{source}, bot_muls: expected a list of {stages} numbers, got {shares!r}")
    bottlenecks = (0.0, *(number(share, f"{source}, bot_muls") for share in shares[1:]))
    groups = (1, *_integers(field(net, "num_gs", source), f"{source}, num_gs", 1, _MAX_WIDTH, stages)[1:])
    for width, share, group in zip(widths[1:], bottlenecks[1:], groups[1:], strict=True):
        if not 0 < share <= 4 or not round(width * share) or round(width * share) % group:
            raise DataError(f"{source}: {width} channels times {share} cannot be divided into {group} groups")
    return StageNetwork(block, depths, widths, strides, bottlenecks, groups)


def _integers(values: Any, source: str, least: int, most: int, length: int | None = None) -> tuple[int, ...]:
    if not isinstance(values, list) or length not in (None, len(values)):
        wanted = "a list" if length is None else f"a list of {length}"
        raise DataError(f"{source}: expected {wanted}, got {values!r}")
    return tuple(_integer(value, source, least, most) for value in values)


def _integer(value: Any, source: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise DataError(f"{source}: expected a whole number from {least} to {most}, got {value!r}")
    return value


# Samples


def _random_cells(rng: np.random.Generator, space: CellSpace) -> CellNetwork:
    cells = [
        tuple(
            (_one(rng, space.operations), int(rng.integers(2 + node))) for node in range(space.nodes) for _ in range(2)
        )
        for _ in range(2)
    ]
    given = [
        tuple(
            vertex
            for vertex in range(2, space.nodes + 2)
            if not space.loose or all(source != vertex for _, source in edges)
        )
        for edges in cells
    ]
    genotype = Genotype(cells[0], given[0], cells[1], given[1])
    return CellNetwork(genotype, _one(rng, _CELL_WIDTHS), _one(rng, _CELL_DEPTHS))


def _sees_input(network: CellNetwork) -> bool:
    """Whether the output depends on the input: whether a way through all cells has no `none`."""
    genotype, _, depth = network
    before = x = True
    for position in range(depth):
        reduces = position in (depth // 3, 2 * depth // 3)
        states = [before, x]
        edges = genotype.reduce if reduces else genotype.normal
        for node in range(len(edges) // 2):
            states.append(any(op != "none" and states[source] for op, source in edges[2 * node :][:2]))
        given = genotype.reduce_concat if reduces else genotype.normal_concat
        before, x = x, any(states[vertex] for vertex in given)
    return x


def _random_stages(rng: np.random.Generator, space: StageSpace, task: str) -> StageNetwork:
    strides = _STRIDES[task]
    stages = len(strides) - 1
    return StageNetwork(
        space.block,
        (1, *(_one(rng, space.depths) for _ in range(stages))),
        (_STEM_WIDTHS[task], *(_one(rng, space.widths) for _ in range(stages))),
        strides,
        (0.0, *(_one(rng, space.bottlenecks) for _ in range(stages))) if space.bottlenecks else (),
        (1, *(_one(rng, space.groups) for _ in range(stages))) if space.groups else (),
    )


def _one(rng: np.random.Generator, choices: tuple[_Choice, ...]) -> _Choice:
    return choices[int(rng.integers(len(choices)))]


# Networks


def _cell(
    b: OnnxBuilder, before: Value, x: Value, edges: Edges, given: Iterable[int], width: int, stride: int
) -> Value:
    enter = relu_conv_bn if before.shape[1:] == x.shape[1:] else factorized_reduce
    vertices = [enter(b, before, width), relu_conv_bn(b, x, width)]
    for node in range(len(edges) // 2):
        operands = [
            _operation(b, vertices[source], op, stride if source < 2 else 1) for op, source in edges[2 * node :][:2]
        ]
        vertices.append(b.add(operands[0], operands[1]))
    outputs = [vertices[vertex] for vertex in given]
    return outputs[0] if len(outputs) == 1 else b.concat(outputs)


def _operation(b: OnnxBuilder, x: Value, op: str, stride: int) -> Value:
    kernel = int(op[-1]) if op[-1].isdigit() else 0
    match op:
        case "conv_1x1" | "conv_3x3":
            return b.batch_norm(b.conv(b.relu(x), x.shape[0], kernel=kernel, stride=stride))
        case "conv_3x1_1x3" | "conv_7x1_1x7":
            y = b.conv(b.relu(x), x.shape[0], kernel=(1, kernel), stride=(1, stride))
            return b.batch_norm(b.conv(y, x.shape[0], kernel=(kernel, 1), stride=(stride, 1)))
        case "max_pool_5x5" | "max_pool_7x7":
            return b.max_pool(x, kernel=kernel, stride=stride, padding=kernel // 2)
        case "sep_conv_7x7":
            return separable(b, separable(b, x, kernel, stride, 1), kernel, 1, 1)
        case "dil_sep_conv_3x3":
            return separable(b, separable(b, x, kernel, stride, 2), kernel, 1, 2)
        case _:
            return edge(b, x, op, stride)


def _block(b: OnnxBuilder, x: Value, network: StageNetwork, stage: int, stride: int) -> Value:
    width = network.widths[stage]
    if network.bottlenecks:
        inner = round(width * network.bottlenecks[stage])
        y = b.relu(b.batch_norm(b.conv(x, inner, kernel=1)))
        y = b.relu(b.batch_norm(b.conv(y, inner, stride=stride, groups=network.groups[stage])))
        y = b.batch_norm(b.conv(y, width, kernel=1))
    else:
        y = b.relu(b.batch_norm(b.conv(x, width, stride=stride)))
        y = b.batch_norm(b.conv(y, width))
    if network.block == "double_plain_block":
        return b.relu(y)
    if stride != 1 or x.shape[0] != width:
        x = b.batch_norm(b.conv(x, width, kernel=1, stride=stride))
    return b.relu(b.add(x, y))


def _classified(b: OnnxBuilder, x: Value, task: str) -> ModelProto:
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), _CLASSES[task]))


# Labels


class _Row(NamedTuple):
    error: float
    params: float
    flops: float


def _rows(paths: Mapping[str, Path], task: str, space: str) -> dict[str, list[_Row]]:
    """Spec → its trainings."""
    check_space(space, _FILES, "NDS")
    check_task(task, (_task(space),), f"NDS {space}")
    path = raw_path(paths, _FILES[space])
    entries = parse_json(read_text(path), str(path))
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of trained networks, got {str(entries)[:80]}")
    rows: dict[str, list[_Row]] = {}
    for position, entry in enumerate(entries):
        source = f"{path}, entry {position}"
        spec = spec_of(network_of_net(field(entry, "net", source), space, source))
        errors = field(entry, "test_ep_top1", source)
        if not isinstance(errors, list) or not errors:
            raise DataError(f"{source}, test_ep_top1: expected a list with one error per epoch, got {errors!r}")
        error = number(errors[-1], f"{source}, test_ep_top1")
        if not 0 <= error <= 100:
            raise DataError(f"{source}, test_ep_top1: expected errors from 0 to 100 percent, got {error}")
        costs = (number(field(entry, key, source), f"{source}, {key}") for key in ("params", "flops"))
        rows.setdefault(spec, []).append(_Row(error, *costs))
    return rows


SPACES = {
    space: Space(
        (_task(space),),
        SIZE,
        partial(build, space=space),
        partial(read_labels, space=space),
        partial(sample, space=space),
    )
    for space in _FILES
}
"""All spaces by name: `nasnet`, `nasnet_in`, ..., `resnext_b_in`."""
