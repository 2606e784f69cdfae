"""Search spaces that are known by definition only: specs, samples, and networks that cost what was published."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import archgauge as ag
from archgauge.datasets import autoformer, einspace, gennape_families, hnas_bench_201, pit
from archgauge.datasets.onnx_builder import stored_costs, with_zero_weights
from archgauge.datasets.vit_builder import VitBuilder
from archgauge.encoders.errors import DataError, GraphError

SPACES: dict[str, tuple[Any, Any]] = {
    f"{name}/{space}": (module, part)
    for name, module in (
        ("autoformer", autoformer),
        ("pit", pit),
        ("hnas_bench_201", hnas_bench_201),
        ("einspace", einspace),
        ("gennape_families", gennape_families),
    )
    for space, part in getattr(module, "SPACES", {"": module}).items()
}


@pytest.mark.parametrize("name", SPACES)
def test_specs_are_written_in_one_way(name: str) -> None:
    module, space = SPACES[name]
    specs = space.sample(12, 7)
    assert [module.spec_of(module.parse(spec)) for spec in specs] == specs


# --- AutoFormer -----------------------------------------------------------------------------------------------------

# The searched networks of the official configuration files.
AUTOFORMER_S = (
    '{"mlp_ratio":[3.0,3.5,3.0,3.5,4.0,4.0,4.0,4.0,4.0,4.0,4.0,3.5,4.0],'
    '"num_heads":[6,6,5,7,5,5,5,6,6,7,7,6,7],"depth":13,"embed_dim":384}'
)
AUTOFORMER_B = (
    '{"mlp_ratio":[3.5,3.5,4.0,3.5,4.0,3.5,3.5,3.0,4.0,4.0,3.0,4.0,3.0,3.5],'
    '"num_heads":[9,9,9,9,9,10,9,9,10,9,10,9,9,10],"depth":14,"embed_dim":576}'
)


@pytest.mark.parametrize(("spec", "millions", "gmacs"), [(AUTOFORMER_S, 22.9, 5.1), (AUTOFORMER_B, 54, 11)])
def test_autoformer_networks_have_the_published_size(spec: str, millions: float, gmacs: float) -> None:
    """Chen et al. 2021, table 3: 22.9 M parameters and 5.1 G for AutoFormer-S, 54 M and 11 G for AutoFormer-B."""
    model = autoformer.build(spec, "imagenet1k")
    params, macs = stored_costs(model)
    assert ag.read(model).params == params
    assert params / 1e6 == pytest.approx(millions, abs=0.5 if millions == 54 else 0.05)
    assert macs / 1e9 == pytest.approx(gmacs, rel=0.07)


def test_autoformer_parameters_by_hand() -> None:
    network = autoformer.parse(AUTOFORMER_S)
    width = network.embed_dim
    expected = 3 * 16 * 16 * width + width + width + 197 * width + 2 * width + 1001 * width + 1000 - width
    for ratio, heads in zip(network.mlp_ratio, network.num_heads, strict=True):
        inner, hidden = 64 * heads, int(ratio * width)
        expected += 4 * width + 3 * inner * (width + 1) + (inner + 1) * width + 4 * 30 * 64
        expected += (width + 1) * hidden + (hidden + 1) * width
    assert stored_costs(autoformer.build(AUTOFORMER_S, "imagenet1k"))[0] == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"embed_dim":384', '"embed_dim":385', "embed_dim is 385"),
        ('"embed_dim":384', '"embed_dim":[384]', "embed_dim is"),
        ('"depth":13', '"depth":12', "12 values"),
        ('"depth":13', '"depth":16', "depth is 16"),
        ('"depth":13', '"depth":13.0', "written as"),
        ('"num_heads":[6', '"num_heads":[4', "num_heads is"),
        ('"num_heads":[6', '"num_heads":[true', "num_heads is"),
        ('"mlp_ratio":[3.0', '"mlp_ratio":[3', "written as"),
        ('"mlp_ratio":[3.0', '"mlp_ratio":["3"', "mlp_ratio is"),
        ('"depth":13', '"depth":13,"depth":13', "occurs twice"),
        ('"depth":13', '"depth": 13', "written as"),
        ('"depth":13', '"depth":13,"dropout":0', "JSON object with"),
    ],
)
def test_autoformer_refuses_wrong_specs(old: str, new: str, message: str) -> None:
    assert old in AUTOFORMER_S
    with pytest.raises(DataError, match=re.escape(message)):
        autoformer.parse(AUTOFORMER_S.replace(old, new))


def test_relative_attention_computes_what_it_says() -> None:
    """Against the formulas of Shaw et al. 2018, eq. 3 and 4, in numpy."""
    b = VitBuilder("attention", (5, 6))
    relative = b.relative_positions(2, 1)
    model = b.build(b.attention(b.input, 2, 3, relative, bias=False))
    rng = np.random.default_rng(0)
    weights = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights[tensor.name] = rng.normal(size=tuple(tensor.dims)).astype(np.float32)
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = weights[tensor.name].tobytes()
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)
    result: Any = ReferenceEvaluator(model).run(None, {"input": x})[0]

    def distance(first: int, second: int, axis: int) -> int:
        if 0 in (first, second):
            return 0
        places = [((place - 1) // 2, (place - 1) % 2)[axis] for place in (first, second)]
        return int(np.clip(places[1] - places[0], -1, 1)) + 2

    rows = np.array([[distance(i, j, 0) for j in range(5)] for i in range(5)])
    columns = np.array([[distance(i, j, 1) for j in range(5)] for i in range(5)])
    tables = [value for name, value in weights.items() if "table" in name]
    keys, values = tables[0][rows] + tables[1][columns], tables[2][rows] + tables[3][columns]
    matrices = [value for name, value in weights.items() if "MatMul" in name]
    bias = next(value for name, value in weights.items() if "Add" in name)
    q, k, v = ((x @ matrices[0])[..., 6 * at : 6 * at + 6].reshape(2, 5, 2, 3) for at in range(3))
    scores = np.einsum("bihd,bjhd->bhij", q, k) + np.einsum("bihd,ijd->bhij", q, keys)
    share = np.exp(scores / np.sqrt(3))
    share /= share.sum(-1, keepdims=True)
    mixed = np.einsum("bhij,bjhd->bihd", share, v) + np.einsum("bhij,ijd->bihd", share, values)
    np.testing.assert_allclose(result, mixed.reshape(2, 5, 6) @ matrices[1] + bias, rtol=1e-4, atol=1e-5)


def test_relative_positions_beyond_a_byte_are_refused() -> None:
    with pytest.raises(GraphError, match="at most 127"):
        VitBuilder("far", (5, 6)).relative_positions(2, 128)


# --- PiT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "width", "params"),
    [([2, 4, 8], 32, 4_847_272), ([2, 4, 8], 48, 10_618_888), ([3, 6, 12], 48, 23_461_912)],
)
def test_pit_networks_cost_what_the_original_ones_do(heads: list[int], width: int, params: int) -> None:
    """PiT-Ti, -XS and -S of Heo et al. 2021, table 5 (4.9, 10.6 and 23.5 M parameters), as built by timm."""
    content = {"mlp_ratio": 4, "num_heads": heads, "depth": [2, 6, 4], "base_dim": width}
    model = pit.build(json.dumps(content, separators=(",", ":")), "imagenet1k")
    graph = ag.read(model)
    assert (graph.params, graph.macs) == stored_costs(model)
    assert graph.params == params


@pytest.mark.parametrize("space", pit.CHOICES)
def test_pit_spaces_have_4320_networks(space: str) -> None:
    assert len(set(pit.sample(4320, 0, space))) == 4320
    with pytest.raises(DataError, match="0 to 4,320"):
        pit.sample(4321, 0, space)


@pytest.mark.parametrize(
    "spec",
    [
        '{"mlp_ratio":4,"num_heads":[2,8,4],"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,6],"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,8],"depth":[2,6,4],"base_dim":72}',
        '{"mlp_ratio":3,"num_heads":[2,4,8],"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,8],"depth":[2,6],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,8],"depth":[6,2,4],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,"8"],"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":[4],"num_heads":[2,4,8],"depth":[2,6,4],"base_dim":32}',
        '{"num_heads":[2,4,8],"mlp_ratio":4,"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":4.0,"num_heads":[2,4,8],"depth":[2,6,4],"base_dim":32}',
        '{"mlp_ratio":4,"num_heads":[2,4,8],"depth":[true,6,4],"base_dim":32}',
    ],
)
def test_pit_refuses_wrong_specs(spec: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(spec))):
        pit.parse(spec)


# --- hierarchical NAS-Bench-201 -------------------------------------------------------------------------------------


def cell(*operations: str) -> str:
    return f"(CELL Cell {' '.join(f'(OPS {operation})' for operation in operations)})"


CONV = "Linear1 (CONVBLOCK Linear3 (ACT relu) (CONV conv3x3o) (NORM batch))"
IDENTITY = cell("zero", "zero", "zero", "id", "zero", "zero")
"""A cell that gives its input back."""


def stacked(inner: str) -> str:
    """The smallest derivation, all cells alike."""
    once = f"(C Linear2 {inner} {inner})"
    d1 = f"(D1 Linear3 {once} {once} (DOWN Linear2 {inner} resBlock))"
    return f"(D2 Linear3 {d1} {d1} (D0 Linear3 {once} {once} {inner}))"


def test_hnas_networks_of_identity_cells_cost_stem_blocks_and_head() -> None:
    params, macs = stored_costs(hnas_bench_201.build(stacked(IDENTITY), "cifar10"))
    blocks = [(16, 32, 16), (32, 64, 8)]
    expected = sum(9 * a * c + 9 * c * c + a * c + 4 * c for a, c, _ in blocks)
    assert params == 27 * 16 + 32 + expected + 128 + 650
    per_block = sum((9 * a * c + 9 * c * c + a * c) * side * side for a, c, side in blocks)
    assert macs == 27 * 16 * 1024 + per_block + 640


def test_hnas_cells_of_six_convolutions_cost_six_convolutions() -> None:
    params, _ = stored_costs(hnas_bench_201.build(stacked(cell(*[CONV] * 6)), "cifar10"))
    plain, _ = stored_costs(hnas_bench_201.build(stacked(IDENTITY), "cifar10"))
    assert params - plain == sum(5 * 6 * (9 * c * c + 2 * c) for c in (16, 32, 64))


@pytest.mark.parametrize(
    ("norm", "conv", "params"),
    [
        ("batch", "conv1x1o", lambda c, side: c * c + 2 * c),
        ("instance", "dconv3x3o", lambda c, side: 9 * c + 2 * c),
        ("layer", "conv3x3o", lambda c, side: 9 * c * c + 2 * c * side * side),
    ],
)
def test_hnas_blocks_cost_what_their_operations_do(
    assert_onnx_agrees: Callable[..., Any], norm: str, conv: str, params: Any
) -> None:
    block = f"Linear1 (CONVBLOCK Linear3 (ACT mish) (CONV {conv}) (NORM {norm}))"
    spec = stacked(cell("zero", "zero", "zero", block, "zero", "zero"))
    model = hnas_bench_201.build(spec, "cifar10")
    assert_onnx_agrees(model)
    plain, _ = stored_costs(hnas_bench_201.build(stacked(IDENTITY), "cifar10"))
    assert stored_costs(model)[0] - plain == sum(5 * params(c, side) for c, side in ((16, 32), (32, 16), (64, 8)))


def test_hnas_residual_topologies_add_their_shortcut() -> None:
    inner = IDENTITY
    conv = cell("zero", "zero", "zero", CONV, "zero", "zero")
    once = f"(C Residual2 {conv} {inner} {inner})"
    spec = stacked(inner).replace(f"(C Linear2 {inner} {inner})", once, 1)
    with_shortcut = hnas_bench_201.build(spec, "cifar10")
    without = hnas_bench_201.build(stacked(inner).replace(inner, conv, 1), "cifar10")
    assert stored_costs(with_shortcut) == stored_costs(without)
    adds = [sum(node.op_type == "Add" for node in model.graph.node) for model in (with_shortcut, without)]
    # Three cells with five additions each stand in place of two, and one addition joins the two ways.
    assert adds[0] - adds[1] == 4


def test_hnas_samples_use_every_production_and_keep_every_cell_open() -> None:
    specs = hnas_bench_201.sample(60, 1)
    text = " ".join(specs)
    for symbol, rules in hnas_bench_201.GRAMMAR.items():
        for rule in rules:
            assert f"({symbol} {rule[0]}" in text
    assert "(OPS zero)" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (IDENTITY, cell("id", "zero", "zero", "zero", "zero", "zero"), "no path"),
        ("(OPS id)", "(OPS id2)", "expected id or zero or Linear1 or avg_pool after OPS, got 'id2'"),
        ("(OPS id)", "(OPS Linear1)", "'('"),
        ("resBlock", "block", "'resBlock'"),
        ("C Linear2", "C Diamond2", "Diamond2"),
        ("(D2 Linear3 ", "(D2 Linear4 ", "expected"),
        ("(D2 Linear3 ", "(D2  Linear3 ", "expected"),
        ("(D2 Linear3 ", "(D2\nLinear3 ", "expected"),
        ("(D2 Linear3 ", "( D2 Linear3 ", "expected single spaces"),
        ("(OPS id)", "(OPS id )", "expected single spaces"),
    ],
)
def test_hnas_refuses_wrong_derivations(old: str, new: str, message: str) -> None:
    spec = stacked(IDENTITY)
    assert old in spec
    with pytest.raises(DataError, match=re.escape(message)):
        hnas_bench_201.parse(spec.replace(old, new, 1))
    with pytest.raises(DataError, match="the end"):
        hnas_bench_201.parse(spec + ")")


# --- einspace -------------------------------------------------------------------------------------------------------


def einspace_layer(text: str) -> onnx.ModelProto:
    return einspace.build(f"sequential_module({text},computation_module(identity))", "cifar10")


def test_einspace_convolution_and_its_parts_cost_the_same() -> None:
    """im2col, a linear layer and col2im are a convolution; with something between, the parts stay apart."""
    whole = einspace_layer("routing_module(im2col3k2s1p,computation_module(linear64),col2im)")
    parts = einspace_layer(
        "routing_module(im2col3k2s1p,sequential_module(computation_module(linear64),computation_module(identity)),col2im)"
    )
    assert stored_costs(whole) == stored_costs(parts)
    assert [node.op_type for node in whole.graph.node] == ["Conv", "ReduceMean", "Gemm"]
    assert "Conv" not in [node.op_type for node in parts.graph.node]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 4, 0), (8, 8, 0)]
)
def test_einspace_im2col_unfolds_like_torch(kernel: int, stride: int, padding: int) -> None:
    torch = pytest.importorskip("torch")
    name = f"im2col{kernel}k{stride}s{padding}p"
    model = einspace.build(f"routing_module({name},computation_module(leakyrelu),identity)", "cifar10")
    unfolded = next(node for node in model.graph.node if node.op_type == "LeakyRelu").input[0]
    model.graph.output.add(name=unfolded)
    data = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    result: Any = ReferenceEvaluator(with_zero_weights(model)).run(None, {"input": data})[1]
    wanted = torch.nn.functional.unfold(torch.from_numpy(data), kernel, padding=padding, stride=stride)
    np.testing.assert_array_equal(result, wanted.transpose(1, 2).numpy())


def test_einspace_col2im_restores_the_image() -> None:
    model = einspace.build("routing_module(im2col1k1s0p,computation_module(leakyrelu),col2im)", "cifar10")
    image = next(node for node in model.graph.node if node.op_type == "ReduceMean").input[0]
    model.graph.output.add(name=image)
    data = np.abs(np.random.default_rng(0).normal(size=(2, 3, 32, 32))).astype(np.float32)
    result: Any = ReferenceEvaluator(with_zero_weights(model)).run(None, {"input": data})[1]
    np.testing.assert_array_equal(result, data)


def test_einspace_branches_of_four_and_eight_have_weights_of_their_own() -> None:
    inner = "computation_module(linear16)"
    four, eight = (einspace.build(f"branching_module(clone_tensor{n},{inner},add_tensors)", "cifar10") for n in (4, 8))
    once = 32 * 16 + 16
    assert stored_costs(four)[0] == 4 * once + 40
    assert stored_costs(eight)[0] == 8 * once + 40


def test_einspace_writes_attention(assert_onnx_agrees: Callable[..., Any]) -> None:
    """Scaled products of two learned maps of the patches (Ericsson et al. 2024, fig. 2)."""
    scores = (
        "branching_module(clone_tensor2,computation_module(linear64),"
        "routing_module(identity,computation_module(linear64),permute21),scaled_dot_product)"
    )
    attention = (
        f"branching_module(clone_tensor2,sequential_module({scores},computation_module(softmax)),"
        "computation_module(linear64),dot_product)"
    )
    model = einspace.build(f"routing_module(im2col4k4s0p,{attention},col2im)", "cifar10")
    assert_onnx_agrees(model)
    params, macs = stored_costs(model)
    assert params == 3 * (48 * 64 + 64) + 64 * 10 + 10
    assert macs == 3 * 64 * 48 * 64 + 2 * 64 * 64 * 64 + 640


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("computation_module(linear64)", "character 0: expected sequential_module( or"),
        ("sequential_module(computation_module(linear64))", "expected ','"),
        ("routing_module(col2im,computation_module(norm),identity)", "expected one of identity"),
        ("routing_module(identity,computation_module(linear63),identity)", "linear63"),
        ("branching_module(clone_tensor3,computation_module(norm),add_tensors)", "clone_tensor3"),
        (
            "branching_module(clone_tensor4,computation_module(norm),computation_module(norm),add_tensors)",
            "expected one of",
        ),
        ("branching_module(clone_tensor2,computation_module(norm),add_tensors)", "expected sequential_module("),
        ("routing_module(identity,computation_module(norm),identity))", "expected the end"),
        ("routing_module(identity, computation_module(norm),identity)", "expected sequential_module("),
        ("sequential_module(" * 200, "modules within modules"),
    ],
)
def test_einspace_refuses_wrong_derivations(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        einspace.parse(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("routing_module(permute21,computation_module(norm),identity)", "permute21 of (3, 32, 32)"),
        ("routing_module(identity,computation_module(norm),col2im)", "col2im of (3, 32, 32)"),
        (
            "branching_module(group_dim2s1d,computation_module(norm),computation_module(norm),add_tensors)",
            "group_dim2s1d",
        ),
        (
            "branching_module(clone_tensor2,computation_module(norm),computation_module(linear64),add_tensors)",
            "add_tensors",
        ),
        ("branching_module(clone_tensor4,computation_module(norm),cat_tensors1d2t)", "cat_tensors1d2t"),
        ("branching_module(clone_tensor4,computation_module(norm),dot_product)", "dot_product"),
        (
            "routing_module(im2col16k16s0p,routing_module(im2col3k1s1p,computation_module(norm),identity),col2im)",
            "im2col3k1s1p",
        ),
        ("routing_module(permute321,computation_module(linear2048),permute321)", ""),
    ],
)
def test_einspace_refuses_operations_that_do_not_fit(spec: str, message: str) -> None:
    assert einspace.spec_of(einspace.parse(spec)) == spec
    if message:
        with pytest.raises(DataError, match=re.escape(message)):
            einspace.build(spec, "cifar10")
    else:
        assert stored_costs(einspace.build(spec, "cifar10"))[0] == 3 * 2048 + 2048 + 2048 * 10 + 10


def test_einspace_keeps_networks_within_its_limits() -> None:
    wide = "computation_module(linear2048)"
    huge = f"sequential_module({wide},routing_module(permute132,{wide},identity))"
    with pytest.raises(DataError, match="numbers"):
        einspace.build(huge, "cifar10")
    deep = "computation_module(norm)"
    for _ in range(4):
        deep = f"branching_module(clone_tensor8,{deep},add_tensors)"
    with pytest.raises(DataError, match="more than 1,000 operations"):
        einspace.build(deep, "cifar10")


def test_einspace_depth_of_samples() -> None:
    for depth, most in ((1, 1), (3, 3)):
        nested = []
        for spec in einspace.sample(40, 5, depth):
            level = deepest = 0
            for word in re.findall(r"[a-z]+_module\(|\)", spec):
                level += 1 if word.endswith("(") else -1
                deepest = max(deepest, level)
            nested.append(deepest)
        assert max(nested) == most + 1
    with pytest.raises(DataError, match="modules within modules"):
        einspace.sample(1, 0, 0)


def test_einspace_samples_use_every_operation() -> None:
    text = " ".join(einspace.sample(300, 0))
    for operations in einspace.OPERATIONS.values():
        for operation in operations:
            assert operation in text


# --- HiAML, Inception, Two-Path -------------------------------------------------------------------------------------


def conv_params(kernel: int, inside: int, outside: int, bias: bool = False) -> int:
    """Convolution and batch norm."""
    return kernel * inside * outside + (3 if bias else 2) * outside


def compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def crossed(inside: int, outside: int) -> int:
    """1x3 and 3x1 convolutions."""
    return conv_params(3, inside, outside) + conv_params(3, outside, outside)


HIAML_COSTS = {
    "hiaml_z": lambda i, o: conv_params(9, i, o) + crossed(o, o),
    "hiaml_a22": lambda i, o: conv_params(9, i, o) + 2 * conv_params(1, o, o),
    "hiaml_b23": lambda i, o: crossed(i, o) + crossed(o, o) + (i != o) * conv_params(1, i, o),
    "hiaml_j30": lambda i, o: conv_params(9, i, o) + crossed(o, o) + (i != o) * conv_params(1, i, o),
    "hiaml_g30": lambda i, o: crossed(i, o) + crossed(o, o) + conv_params(1, o, o) + (i != o) * conv_params(1, i, o),
    "hiaml_r30": lambda i, o: (
        crossed(i, o) + crossed(o, o) + conv_params(1, o, o) + 2 * (i != o) * conv_params(1, i, o)
    ),
    "hiaml_l20": lambda i, o: conv_params(9, i, o) + conv_params(1, o, o),
    "hiaml_t20": lambda i, o: conv_params(1, i, o) + crossed(i, o),
    "hiaml_t31": lambda i, o: (
        crossed(i, o) + crossed(o, o) + conv_params(1, o, o) + 2 * (i != o) * conv_params(1, i, o)
    ),
    "hiaml_src0": lambda i, o: conv_params(1, i, o) + 2 * conv_params(9, o, o),
    "hiaml_src1": lambda i, o: conv_params(1, i, o) + conv_params(9, i, i) + conv_params(9, i, o),
    "hiaml_src3": lambda i, o: (
        conv_params(1, i, o) + conv_params(1, i, i) + conv_params(9, i, o) + conv_params(1, o, o)
    ),
    "hiaml_src7": lambda i, o: conv_params(1, i, o) + 2 * crossed(o, o),
    "hiaml_src8": lambda i, o: conv_params(1, i, o) + crossed(o, o) + conv_params(1, o, o),
}


@pytest.mark.parametrize("name", gennape_families.HIAML_BLOCKS)
def test_hiaml_blocks_cost_what_the_published_ones_do(assert_onnx_agrees: Callable[..., Any], name: str) -> None:
    model = gennape_families.build(compact([name] * 4), "cifar10")
    assert_onnx_agrees(model)
    cost = HIAML_COSTS[name]
    widths = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 128), (128, 256), (256, 256)]
    expected = conv_params(9, 3, 64) + sum(cost(i, o) for i, o in widths) + 2570
    params, macs = stored_costs(model)
    graph = ag.read(model)
    assert (graph.params, graph.macs) == (params, macs)
    assert params == expected


def test_hiaml_has_38416_networks() -> None:
    assert len(set(gennape_families.sample(38_416, 0, "hiaml"))) == 14**4
    with pytest.raises(DataError, match="0 to 38,416"):
        gennape_families.sample(38_417, 0, "hiaml")


def two_path(*blocks: list[str], reductions: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    """A network whose second path is as small as can be."""

    def path(parts: tuple[list[str], ...]) -> list[dict[str, list[str]]]:
        supp = gennape_families.TWO_PATH_OPERATIONS["supp"]
        return [{"op_names": ops, "op_types": ["supp" if op in supp else "conv" for op in ops]} for ops in parts]

    return {
        "path1": path(blocks),
        "path2": path((["conv3x3"], ["conv3x3"])),
        "path1_reduce_inds": list(reductions),
        "path2_reduce_inds": [0, 1],
    }


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("conv3x3", conv_params(9, 32, 64)),
        ("conv5x5", conv_params(25, 32, 64)),
        ("double3x3", conv_params(9, 32, 32) + conv_params(9, 32, 64)),
        ("bottleneck-r2-k3", conv_params(9, 32, 16) + conv_params(9, 16, 64)),
        ("bottleneck-r4-k3", conv_params(9, 32, 8) + conv_params(9, 8, 64)),
        ("bottleneck-e2-k3", conv_params(9, 32, 64) + conv_params(9, 64, 64)),
        ("inception_s3x3", conv_params(3, 32, 64) + conv_params(3, 64, 64)),
        ("inception_s5x5", conv_params(5, 32, 64) + conv_params(5, 64, 64)),
    ],
)
@pytest.mark.parametrize("before", [None, "avgpool3x3", "conv1x1", "bottleneck-r2-k1", "bottleneck-e2-k1"])
def test_two_path_networks_cost_what_their_operations_do(
    assert_onnx_agrees: Callable[..., Any], operation: str, params: int, before: str | None
) -> None:
    extra = {
        None: 0,
        "avgpool3x3": 64,
        "conv1x1": conv_params(1, 32, 32),
        "bottleneck-r2-k1": conv_params(1, 32, 16) + conv_params(1, 16, 32),
        "bottleneck-e2-k1": conv_params(1, 32, 64) + conv_params(1, 64, 32),
    }[before]
    first = [operation] if before is None else [before, operation]
    content = two_path(first, ["conv3x3"])
    model = gennape_families.build(compact(content), "cifar10")
    assert_onnx_agrees(model)
    plain = conv_params(9, 3, 32) + conv_params(9, 32, 32) + conv_params(9, 256, 512) + 5130
    second = conv_params(9, 32, 64) + 2 * conv_params(9, 64, 128)
    assert stored_costs(model)[0] == plain + second + params + extra


def test_two_path_blocks_that_keep_their_shape_have_a_shortcut() -> None:
    with_shortcut = gennape_families.build(compact(two_path(["conv3x3"], ["conv3x3"], ["conv3x3"])), "cifar10")
    assert [node.op_type for node in with_shortcut.graph.node].count("Add") == 1
    assert [node.op_type for node in with_shortcut.graph.node].count("Concat") == 1


def inception(paths: list[dict[str, Any]]) -> dict[str, Any]:
    """A network whose later stages are as small as can be."""
    plain = {"ops": ["conv3x3"], "op_types": ["conv"]}
    stages = [{"block": {"paths": paths}, "n_blocks": 2, "C_in": 32, "C_out": 32, "stride": 1}]
    for width in (64, 128, 256):
        path = {**plain, "C_internal": width, "C_out": width}
        stages.append({"block": {"paths": [path]}, "n_blocks": 2, "C_in": width // 2, "C_out": width, "stride": 2})
    return {"stages": stages}


INCEPTION_PLAIN = {"ops": ["conv3x3"], "op_types": ["conv"], "C_internal": 32, "C_out": 32}


@pytest.mark.parametrize(
    ("ops", "types", "inner", "params"),
    [
        (["conv3x3"], ["conv"], 32, conv_params(9, 32, 32, True)),
        (["inception_s5x5"], ["conv"], 32, 2 * conv_params(5, 32, 32, True)),
        (["inception_p3x3"], ["conv"], 32, 2 * conv_params(3, 32, 16, True)),
        (["depthwise5x5"], ["conv"], 32, 25 * 32 + 3 * 32),
        (["conv3x3", "depthwise3x3"], ["conv", "conv"], 16, conv_params(9, 32, 16, True) + 16 * 32 + 12 * 32),
        (["conv1x1", "maxpool3x3", "conv3x3"], None, 32, 0),
        (["conv1x1", "conv3x3"], ["supp", "conv"], 64, conv_params(1, 32, 64, True) + conv_params(9, 64, 32, True)),
        (
            ["conv3x3", "conv5x5", "double1x1"],
            ["conv", "conv", "supp"],
            16,
            conv_params(9, 32, 16, True)
            + conv_params(25, 16, 16, True)
            + conv_params(1, 16, 32, True)
            + conv_params(1, 32, 32, True),
        ),
        (["avgpool3x3", "conv3x3"], ["supp", "conv"], 32, 64 + conv_params(9, 32, 32, True)),
    ],
)
def test_inception_paths_cost_what_their_operations_do(
    assert_onnx_agrees: Callable[..., Any], ops: list[str], types: list[str] | None, inner: int, params: int
) -> None:
    path = {"ops": ops, "op_types": types or ["supp", "supp", "conv"], "C_internal": inner, "C_out": 32}
    spec = compact(inception([path]))
    if types is None:
        with pytest.raises(DataError, match="at most one supp"):
            gennape_families.parse(spec)
        return
    model = gennape_families.build(spec, "cifar10")
    assert_onnx_agrees(model)
    plain = gennape_families.build(compact(inception([INCEPTION_PLAIN])), "cifar10")
    assert stored_costs(model)[0] - stored_costs(plain)[0] == 2 * (params - conv_params(9, 32, 32, True))


def test_inception_networks_by_hand() -> None:
    widths = [
        (3, 32),
        (32, 32),
        (32, 32),
        (32, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
    ]
    sides = [32, 32, 32, 16, 16, 8, 8, 4, 4, 4]
    model = gennape_families.build(compact(inception([INCEPTION_PLAIN])), "cifar10")
    params, macs = stored_costs(model)
    assert params == sum(conv_params(9, i, o, True) for i, o in widths) + 5130
    assert macs == sum(9 * i * o * side * side for (i, o), side in zip(widths, sides, strict=True)) + 5120
    assert [node.op_type for node in model.graph.node].count("Add") == 5


def test_inception_blocks_of_narrow_paths_are_projected() -> None:
    narrow = {"ops": ["conv3x3", "conv3x3"], "op_types": ["conv", "conv"], "C_internal": 16, "C_out": 16}
    model = gennape_families.build(compact(inception([narrow] * 4)), "cifar10")
    plain = gennape_families.build(compact(inception([INCEPTION_PLAIN])), "cifar10")
    paths = 4 * (conv_params(9, 32, 16, True) + conv_params(9, 16, 16, True)) + conv_params(1, 64, 32, True)
    assert stored_costs(model)[0] - stored_costs(plain)[0] == 2 * (paths - conv_params(9, 32, 32, True))


@pytest.mark.parametrize("space", ["inception", "two_path"])
def test_gennape_samples_use_every_operation(space: str) -> None:
    text = " ".join(gennape_families.sample(150, 1, space))
    tables = {"inception": gennape_families.INCEPTION_OPERATIONS, "two_path": gennape_families.TWO_PATH_OPERATIONS}
    for names in tables[space].values():
        for name in names:
            assert f'"{name}"' in text


def changed(content: dict[str, Any], *keys: Any, to: Any) -> str:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return compact(copy)


TWO_PATH = two_path(["conv3x3"], ["conv3x3"], ["conv3x3"])
INCEPTION = inception([INCEPTION_PLAIN])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (compact(["hiaml_z"] * 3), "list of 4 blocks"),
        (compact(["hiaml_z"] * 3 + ["hiaml_y"]), "list of 4 blocks"),
        (compact(["hiaml_z"] * 3 + [["hiaml_z"]]), "list of 4 blocks"),
        (json.dumps(["hiaml_z"] * 4), "no spaces"),
        (changed(TWO_PATH, "path1", to=[]), "2 to 4 blocks"),
        (changed(TWO_PATH, "path1", 0, to=[]), "object with op_names"),
        (changed(TWO_PATH, "path1", 0, "op_names", to=["conv7x7"]), "conv7x7"),
        (changed(TWO_PATH, "path1", 0, "op_names", to=[3]), "operations are [3]"),
        (changed(TWO_PATH, "path1", 0, "op_names", to=["conv1x1"]), "expected ['supp']"),
        (changed(TWO_PATH, "path1", 0, "op_types", to=["supp"]), "expected ['conv']"),
        (changed(TWO_PATH, "path1_reduce_inds", to=[1, 0]), "ascending"),
        (changed(TWO_PATH, "path1_reduce_inds", to=[0]), "two of its blocks"),
        (changed(TWO_PATH, "path1_reduce_inds", to=[0, 3]), "two of its blocks"),
        (changed(TWO_PATH, "path1_reduce_inds", to=[0, 1.0]), "whole numbers"),
        (changed(TWO_PATH, "path1_reduce_inds", to=[False, True]), "whole numbers"),
        (changed(TWO_PATH, "path3", to=[]), "path1_reduce_inds"),
        (changed(INCEPTION, "stages", to=[]), "a list of 4"),
        (changed(INCEPTION, "stages", 0, to=[]), "stage 0: expected an object"),
        (changed(INCEPTION, "stages", 0, "n_blocks", to=7), "n_blocks is 7"),
        (changed(INCEPTION, "stages", 1, "C_in", to=64), "stage 1: C_in is 64, expected 32"),
        (changed(INCEPTION, "stages", 0, "stride", to=True), "whole numbers"),
        (changed(INCEPTION, "stages", 0, "block", to=[]), "paths, a list of 1 to 4"),
        (changed(INCEPTION, "stages", 0, "block", "paths", to=[]), "paths, a list of 1 to 4"),
        (changed(INCEPTION, "stages", 0, "block", "paths", 0, to=1), "a path should be an object"),
        (
            changed(INCEPTION, "stages", 0, "block", "paths", 0, "C_out", to=16),
            "C_out of the paths is [16], expected [32]",
        ),
        (changed(INCEPTION, "stages", 0, "block", "paths", 0, "C_internal", to=16), "expected one of [32]"),
        (
            compact(inception([{"ops": ["conv3x3"] * 4, "op_types": ["conv"] * 4, "C_internal": 32, "C_out": 32}])),
            "than 3",
        ),
        (compact(inception([{**INCEPTION_PLAIN, "C_internal": 16, "C_out": 16}] * 3)), "expected at least 2"),
    ],
)
def test_gennape_families_refuse_wrong_specs(spec: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        gennape_families.parse(spec)
