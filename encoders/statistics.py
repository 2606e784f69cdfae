"""What a graph says by itself: a fixed vector of named statistics that mean the same in every space.

Nothing here runs the network and nothing depends on its weights' values, on `Node.params` or on which of several
topological orders the nodes stand in. One sweep forwards and one backwards over the nodes collect everything but the
spectrum, so the time is linear in the size of the graph; the eigenproblem is bounded (see `laplacian_eigenvalues`).

Conventions:

- *layer*: a convolution, linear layer or recurrent cell. Weights are counted from the shapes of its kernels and
  matrices, shared ones once, without biases and normalisation scales, so folding a batch norm changes nothing.
- *positions* of a layer: elements of its output per channel (height x width, or tokens). *Resolution* is the square
  root of the positions, so 196 tokens and a 14 x 14 map have the same; layers whose positions have the same rounded
  base-2 logarithm are one *stage* (196 and 197 tokens are). Layers with one position (heads, squeeze-and-excite) belong
  to no stage, unless the network has no others.
- *mixing layer*: a layer that mixes positions: a convolution with a kernel of 2 or more, attention (softmax times
  values), a recurrent cell, or a linear layer along another axis than the channels.
- *rectifier*: any activation that is not a gate; a gate is a sigmoid that only feeds a product. The units and channels
  of a rectifier count once for every layer it feeds, because equal operators on one operand are one node.

Signal propagation is mean-field theory at random initialisation (Poole et al. 2016, sec. 2; Schoenholz et al. 2017,
sec. 2 and 4): every node carries the second moment q of its elements and the correlation c of the responses to two
inputs, for starting correlations .1, .5 and .9.

- Convolutions with a bias flag may have absorbed a batch norm, so they put out q = 1. Other layers keep q, undoing
  the loss of an activation directly before them (the scaling of He et al. 2015, sec. 2.2). Normalisations set q = 1.
- ReLU halves q and maps c to (sqrt(1 - c^2) + (pi - arccos c) c) / pi (Cho and Saul 2009, sec. 2). A leaky ReLU mixes
  that with the identity. Other activations are taken at unit variance: with the Hermite coefficients a_k of the
  function, q becomes q sum(a_k^2), and c becomes sum(a_k^2 c^k) / sum(a_k^2), from a table.
- An addition sums q and mixes c by q (branches count as independent; x + x is 4 q). A concatenation mixes by channels
  and q. A product multiplies q and c. Averaging over m positions divides q by sqrt(m) (neighbours are correlated);
  attention at initialisation averages over all tokens. Everything else keeps q and c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import acos, erf, exp, inf, log, log1p, log2, log10, pi, prod, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .costs import fan_in, macs_of
from .graph import ArchGraph, Node
from .operators import KINDS, Kind

STATISTICS_VERSION = 1
"""Raised whenever a statistic is added, removed or changes its value, so that no cached row is taken for another's."""

STARTS = (0.1, 0.5, 0.9)
"""Correlations of two inputs from which the propagation starts."""


class Feature(NamedTuple):
    """One column of the statistics.

    Attributes:
        name: Unique name of the column.
        description: What it is, with its unit or scale.
        group: One of size, operators, stages, width, paths, structure, attention, propagation, spectrum.
        monotone: +1 where a larger value may be assumed to do no harm (measures of size); 0 where nothing is assumed.
    """

    name: str
    description: str
    group: str
    monotone: int = 0


# ---------------------------------------------------------------------------------------------------------------------
# The columns
# ---------------------------------------------------------------------------------------------------------------------

_QUANTITIES = {
    "layers": "layers, log(1 + x)",
    "mixing": "mixing layers, log(1 + x)",
    "rectifiers": "rectifiers, log(1 + x)",
    "fan": "sum of the natural logarithms of the layers' fan-in, log(1 + x)",
    "pools": "pooling operators, log(1 + x)",
    "weights": "weights, log10(1 + x)",
    "reach": "receptive field in pixels of the input along one axis, log2(1 + x)",
}
_COUNTED_KINDS = (
    Kind.CONV,
    Kind.LINEAR,
    Kind.MATMUL,
    Kind.RECURRENT,
    Kind.NORM,
    Kind.ACTIVATION,
    Kind.SOFTMAX,
    Kind.POOL,
    Kind.ADD,
    Kind.MULTIPLY,
    Kind.CONCAT,
    Kind.RESIZE,
    Kind.LAYOUT,
    Kind.REDUCE,
    Kind.UNKNOWN,
)
_CONV_CLASSES = {
    "k1": "with kernel 1",
    "k3": "with kernel 2 or 3",
    "k5": "with kernel 4 or 5",
    "k7": "with kernel 6 or more",
    "depthwise": "with one input channel per group and several groups",
    "grouped": "with several groups that are not depthwise",
    "strided": "with a stride above 1",
    "dilated": "with a dilation above 1",
}
_THIRDS = ("first", "middle", "last")


def _features() -> tuple[Feature, ...]:
    columns: list[Feature] = []

    def group(name: str, *rows: tuple[str, str] | tuple[str, str, int]) -> None:
        columns.extend(Feature(row[0], row[1], name, row[2] if len(row) == 3 else 0) for row in rows)

    group(
        "size",
        ("log_params", "Weights of layers and embedding tables, log10(1 + x)", 1),
        ("log_macs", "Multiply-accumulates (`costs.macs_of`), log10(1 + x)", 1),
        ("log_activations", "Elements that layers and matrix products put out, log10(1 + x)"),
        ("log_units", "Elements that rectifiers put out, log10(1 + x)", 1),
        ("log_relu_channels", "Channels of all rectifiers, log10(1 + x)", 1),
        ("log_nodes", "Nodes, log(1 + x)"),
        ("log_edges", "Edges, log(1 + x)"),
        ("log_layers", "Layers, log(1 + x)"),
        ("log_params_per_unit", "log_params - log_units"),
        ("log_macs_per_param", "log_macs - log_params"),
        ("log_macs_per_depth", "log_macs - log10(1 + layers on the longest path)"),
        ("log_macs_per_layer", "log_macs - log10(1 + layers)"),
        ("log_input_positions", "Positions (pixels, tokens) of the largest input, log2"),
        ("log_output_size", "Elements of all outputs, log2(1 + x)"),
        ("n_inputs", "Inputs, log(1 + x)"),
        ("n_outputs", "Outputs, log(1 + x)"),
        ("is_connected", "1 if an output depends on an input, else 0"),
    )
    group(
        "operators", *((f"share_{kind}", f"Share of the nodes that are of the kind {kind}") for kind in _COUNTED_KINDS)
    )
    group(
        "operators",
        *((f"n_conv_{name}", f"Convolutions {text}, log(1 + x)") for name, text in _CONV_CLASSES.items()),
        *(
            (f"share_conv_{name}", f"Share of the layers that are convolutions {_CONV_CLASSES[name]}")
            for name in ("k1", "k3", "k5", "k7", "depthwise", "grouped")
        ),
        *(
            (f"macs_conv_{name}", f"Share of the multiply-accumulates in convolutions {_CONV_CLASSES[name]}")
            for name in ("k1", "k3", "k5", "k7", "depthwise", "grouped")
        ),
        ("macs_linear", "Share of the multiply-accumulates in linear layers"),
        ("macs_attention", "Share of the multiply-accumulates in products of two activations (attention)"),
        ("macs_recurrent", "Share of the multiply-accumulates in recurrent cells"),
        ("n_average_pool", "Average pooling operators, log(1 + x)"),
        ("n_max_pool", "Other pooling operators, log(1 + x)"),
        ("n_add", "Additions of two activations, log(1 + x)"),
        ("n_concat", "Concatenations, log(1 + x)"),
        ("pool_share", "Pooling operators / (pooling operators + layers)"),
        ("mixing_share", "Share of the layers that are mixing layers"),
    )
    for third in _THIRDS:
        stages = f"in the {third} third of the stages"
        group(
            "stages",
            (f"stage_layers_{third}", f"Layers {stages}, log(1 + x)"),
            (f"stage_macs_{third}", f"Multiply-accumulates of layers {stages}, log10(1 + x)"),
            (f"stage_weights_{third}", f"Weights {stages}, log10(1 + x)"),
            (f"stage_macs_share_{third}", f"Share of the layers' multiply-accumulates {stages}"),
            (f"stage_width_{third}", f"Median output channels of the layers {stages}, log2(1 + x)"),
            (f"stage_mixing_{third}", f"Mixing layers {stages}, log(1 + x)"),
        )
    for name, text in (("macs", "multiply-accumulates"), ("weights", "weights"), ("layers", "layers")):
        group(
            "stages",
            (f"stage_centroid_{name}", f"Mean position (0 = first stage, 1 = last) of the {text}"),
            (f"stage_entropy_{name}", f"Entropy of the stages' shares of the {text}, nats"),
            (f"stage_peak_{name}", f"Largest share of the {text} in one stage"),
        )
    group(
        "stages",
        ("n_stages", "Stages (distinct resolutions), log(1 + x)"),
        ("first_resolution", "Resolution of the first stage, log2"),
        ("last_resolution", "Resolution of the last stage, log2"),
        ("narrowest_stage", "Median channels of the narrowest stage, log2(1 + x)"),
        ("mean_stage_width", "Mean over stages of the log2(1 + median channels)"),
        ("bottleneck", "Least channels x positions of a layer, log2"),
        ("depth_macs_first", "Share of the layers' multiply-accumulates in the first third of the depth"),
        ("depth_macs_last", "Share of the layers' multiply-accumulates in the last third of the depth"),
        ("width_slope", "Mean log2 channels in the last third of the depth less that in the first"),
    )
    group(
        "width",
        ("fan_min", "Least log fan-in of a layer"),
        ("fan_mean", "Mean log fan-in of the layers"),
        ("fan_sum", "Sum of the log fan-in of the layers, log(1 + x)"),
        ("fan_spread", "Standard deviation of the log fan-in of the layers"),
        ("width_min", "Least output channels of a layer that has positions, log2"),
        ("width_mean", "Mean log2 output channels of the layers that have positions"),
        ("width_max", "Largest output channels of a layer that has positions, log2"),
        (
            "entropy",
            "Sum of log fan-in x log(channels x positions of the deepest map), log(1 + x); Shen et al. 2023",
            1,
        ),
        ("regions", "sqrt(sum of C log C over the rectifiers' channels C), log(1 + x)"),
        ("expansion_mean", "Mean log2(out / in) of point-wise layers with a rectifier behind (MLP ratio)"),
        ("expansion_max", "Largest log2(out / in) of point-wise layers with a rectifier behind"),
        ("residual_width", "Median channels at additions, log2(1 + x) (embedding width of a transformer)"),
    )
    for statistic, words in (
        ("min", "Least over all paths from input to output"),
        ("max", "Largest over all paths from input to output"),
        ("mean", "Mean over paths weighted by the variance they carry"),
    ):
        group("paths", *((f"path_{statistic}_{name}", f"{words}: {text}") for name, text in _QUANTITIES.items()))
    group(
        "paths",
        ("log_paths", "Number of paths from input to output, log(1 + natural logarithm)"),
        ("path_ratio", "Layers of the shortest path / layers of the longest"),
        ("path_mean_ratio", "Layers of the mean path / layers of the longest"),
        ("reach_ratio", "Receptive field of the mean path / resolution of the input, log2"),
    )
    group(
        "structure",
        ("n_joins", "Additions and concatenations of several activations, log(1 + x)"),
        ("n_branchings", "Nodes with several consumers, log(1 + x)"),
        ("n_cycles", "Edges - nodes + 1, log(1 + x)"),
        ("cycles_per_node", "(Edges - nodes + 1) / nodes"),
        ("joins_per_layer", "Additions and concatenations / (1 + layers)"),
        ("fan_out_max", "Most consumers of a node, log2(1 + x)"),
        ("skip_mean", "Mean difference in layers between the operands of a join, log(1 + x)"),
        ("skip_max", "Largest difference in layers between the operands of a join, log(1 + x)"),
        ("skip_long", "Share of the joins whose operands differ by two or more layers"),
        ("skip_balanced", "Share of the joins whose operands are equally deep"),
        ("skip_direct", "Share of the joins with an operand that others use too"),
        ("concat_operands", "Mean operands of a concatenation"),
        ("n_gates", "Products with a sigmoid, log(1 + x)"),
        ("n_squeeze_excite", "Products with a sigmoid of fewer elements (squeeze-and-excite), log(1 + x)"),
        ("gates_per_layer", "Products with a sigmoid / (1 + layers)"),
    )
    group(
        "attention",
        ("n_attention", "Attention operators (softmax over tokens), log(1 + x)"),
        ("attention_tokens", "Most tokens that are attended to, log2(1 + x)"),
        ("attention_heads", "Mean heads of the attention operators, log2(1 + x)"),
    )
    for start in STARTS:
        group(
            "propagation",
            (
                f"nwot_{start}",
                f"Analytic NWOT at input correlation {start}: log(units) + (31 log(1 - p) + log(1 + 31 p)) / 32, p = "
                "mean share of rectifier units in equal state for two inputs, after Mellor et al. 2021, sec. 3",
                1,
            ),
            (f"correlation_{start}", f"1 - correlation at the outputs for input correlation {start}, log10"),
        )
    group(
        "propagation",
        ("agreement", "p of nwot_0.5"),
        ("correlation_spread", "Output correlation for .9 less that for .1, log10(1e-9 + x)"),
        ("power_out", "Second moment at the outputs, log10"),
        ("power_joins", "Mean log10 second moment behind additions"),
        ("gradient_mean", "Mean log10 energy of the gradient at the layers (1 at the outputs)"),
        ("gradient_spread", "Standard deviation of the log10 energy of the gradient at the layers"),
        ("gradient_min", "Least log10 energy of the gradient at a layer"),
        ("gradient_max", "Largest log10 energy of the gradient at a layer"),
        (
            "synflow",
            "Log of the sum over paths of the product of sqrt(4 fan / pi) (Tanaka et al. 2020), sign x log(1 + x)",
        ),
    )
    group(
        "spectrum",
        *(
            (f"laplacian_{k}", f"Eigenvalue {k} (from 0) of the normalised Laplacian of the undirected graph, log10")
            for k in range(1, 5)
        ),
        ("algebraic_connectivity", "Eigenvalue 1 of the normalised Laplacian x (number of nodes)^2, log10"),
    )
    return tuple(columns)


FEATURES: tuple[Feature, ...] = _features()
"""The columns of `statistics`, in order."""

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
"""Their names."""

CORE: tuple[str, ...] = (
    "log_params",
    "log_macs",
    "log_activations",
    "log_units",
    "log_relu_channels",
    "log_layers",
    *(f"path_{statistic}_{name}" for statistic in ("min", "max", "mean") for name in _QUANTITIES),
    "log_paths",
    "path_ratio",
    "path_mean_ratio",
    "reach_ratio",
    *(f"{name}_{start}" for name in ("nwot", "correlation") for start in STARTS),
    "agreement",
    "correlation_spread",
    "power_out",
    "power_joins",
    "gradient_mean",
    "gradient_spread",
    "synflow",
)
"""The columns on sizes, paths and signal propagation: the few that mean the same far from every training space."""

SIZES: tuple[str, ...] = ("log_macs", "nwot_0.5", "log_relu_channels", "entropy")
"""The columns that measure size; its prior lies between the first two, where the others say (`size_prior`)."""


# ---------------------------------------------------------------------------------------------------------------------
# Activations
# ---------------------------------------------------------------------------------------------------------------------


class _Response(NamedTuple):
    """How an activation changes the signal: factors on the second moment and the gradient's, map of correlations."""

    power: float
    slope: float
    mix: float
    """Share of the ReLU map in the map of correlations, the rest being the identity; unused with a table."""
    table: tuple[float, ...] | None


_RECTIFIER = _Response(0.5, 0.5, 1.0, None)
_STEPS = 256
_TERMS = 64


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x))


_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "Elu": lambda x: x if x > 0 else exp(x) - 1,
    "Celu": lambda x: x if x > 0 else exp(x) - 1,
    "Selu": lambda x: 1.0507 * (x if x > 0 else 1.67326 * (exp(x) - 1)),
    "Gelu": lambda x: x * 0.5 * (1 + erf(x / sqrt(2))),
    "QuickGelu": lambda x: x * _sigmoid(1.702 * x),
    "Silu": lambda x: x * _sigmoid(x),
    "Swish": lambda x: x * _sigmoid(x),
    "Mish": lambda x: x * (1 - 2 / ((1 + exp(x)) ** 2 + 1)),
    "HardSwish": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "HardSigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "Sigmoid": _sigmoid,
    "Tanh": lambda x: 2 * _sigmoid(2 * x) - 1,
    "Erf": erf,
    "Softplus": lambda x: log1p(exp(x)),
    "Softsign": lambda x: x / (1 + abs(x)),
    "Shrink": lambda x: x if abs(x) > 0.5 else 0.0,
}


@lru_cache(maxsize=64)
def _response(op: str, slope: float) -> _Response:
    """Response of the activation `op`; `slope` is that of a leaky ReLU below zero.

    Raises:
        Nothing: an activation without a formula here counts as a ReLU.
    """
    if op in ("LeakyRelu", "PRelu"):
        squares = 1 + slope * slope
        return _Response(squares / 2, squares / 2, (1 - slope) ** 2 / squares, None)
    function = _FUNCTIONS.get(op)
    if function is None:
        return _RECTIFIER
    x = np.linspace(-8, 8, 2001)
    density = np.exp(-x * x / 2)
    density /= density.sum()
    values = np.array([function(float(point)) for point in x])
    power = float(density @ values**2)
    derivative = np.gradient(values, x)
    before, hermite = np.zeros_like(x), np.ones_like(x)  # orthonormal for the density, by the three-term recurrence
    squares_by_degree = []
    for degree in range(_TERMS):
        squares_by_degree.append(float(density @ (values * hermite)) ** 2)
        before, hermite = hermite, (x * hermite - sqrt(degree) * before) / sqrt(degree + 1)
    shares = np.array(squares_by_degree) / sum(squares_by_degree)
    table = np.polynomial.polynomial.polyval(np.linspace(0, 1, _STEPS + 1), shares)
    return _Response(power, float(density @ derivative**2), 0.0, (*table.tolist(), 1.0))


def _rectified(correlation: float) -> tuple[float, float]:
    """ReLU's map of the correlation, and arccos of the correlation before it."""
    if correlation >= 1.0:
        return 1.0, 0.0
    angle = acos(correlation)
    mapped = (sqrt(1.0 - correlation * correlation) + (pi - angle) * correlation) / pi
    return (mapped if mapped < 1.0 else 1.0), angle


def _activated(correlation: float, response: _Response) -> tuple[float, float]:
    """The map of `response`, and arccos of the correlation before it."""
    mapped, angle = _rectified(correlation)
    if response.table is None:
        return correlation + response.mix * (mapped - correlation), angle
    place = min(correlation, 1.0) * _STEPS
    step = int(place)
    low = response.table[step]
    return low + (place - step) * (response.table[step + 1] - low), angle


# ---------------------------------------------------------------------------------------------------------------------
# The sweep forwards
# ---------------------------------------------------------------------------------------------------------------------

_ORDER = tuple(Kind)
_CODES = {op: _ORDER.index(kind) for op, kind in KINDS.items()}
_INPUT, _CONV, _LINEAR, _MATMUL, _RECURRENT, _EMBEDDING, _NORM, _ACTIVATION, _SOFTMAX, _POOL, _GLOBAL_POOL = (
    _ORDER.index(kind)
    for kind in (
        Kind.INPUT,
        Kind.CONV,
        Kind.LINEAR,
        Kind.MATMUL,
        Kind.RECURRENT,
        Kind.EMBEDDING,
        Kind.NORM,
        Kind.ACTIVATION,
        Kind.SOFTMAX,
        Kind.POOL,
        Kind.GLOBAL_POOL,
    )
)
_ADD, _MULTIPLY, _CONCAT, _REDUCE, _ELEMENTWISE, _CONTROL, _OTHER, _UNKNOWN = (
    _ORDER.index(kind)
    for kind in (
        Kind.ADD,
        Kind.MULTIPLY,
        Kind.CONCAT,
        Kind.REDUCE,
        Kind.ELEMENTWISE,
        Kind.CONTROL,
        Kind.OTHER,
        Kind.UNKNOWN,
    )
)
_EQUAL_OPERANDS = frozenset({_ELEMENTWISE, _CONTROL, _OTHER, _UNKNOWN})
_LAYER_OPS = frozenset(op for op, code in _CODES.items() if code in (_CONV, _LINEAR, _RECURRENT))
_SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})
_CHANNELS_LAST = frozenset({"LayerNormalization", "RMSNormalization", "Embedding", "LSTM", "GRU", "RNN"})
_CHANNELS_FIRST = frozenset({_CONV, _POOL, _GLOBAL_POOL})
_LARGEST = 1 << 80
"""Products of dimensions are cut here, so that a hostile file cannot overflow a float."""
_LEAST_POWER, _LARGEST_POWER = 1e-60, 1e60

_Q = len(_QUANTITIES)
_LAYERS, _MIXING, _RECTIFIERS, _FAN, _POOLS, _WEIGHTS, _REACH = range(_Q)


class _Layer(NamedTuple):
    """What the profiles need of one convolution, linear layer or recurrent cell."""

    macs: int
    weights: int
    log_fan: float
    channels: int
    positions: int
    mixing: bool
    depth: float


@dataclass(slots=True)
class _Sweep:
    """Everything the sweep over the nodes collects."""

    consumers: list[int]
    paths: list[list[float]] = field(default_factory=list)
    """Per node: least, largest and weighted mean of every quantity over the paths from the inputs to it."""
    power: list[float] = field(default_factory=list)
    correlations: list[tuple[float, float, float]] = field(default_factory=list)
    synflow: list[float] = field(default_factory=list)
    log_paths: list[float] = field(default_factory=list)
    gains: list[float | tuple[float, ...]] = field(default_factory=list)
    """Per node: what share of the gradient's energy at its output reaches its operand (or each of several)."""
    sizes: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=lambda: [0] * len(_ORDER))
    layers: list[_Layer] = field(default_factory=list)
    layer_nodes: list[int] = field(default_factory=list)
    conv_count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_CONV_CLASSES, 0))
    conv_macs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_CONV_CLASSES, 0))
    macs: dict[int, int] = field(default_factory=lambda: {_CONV: 0, _LINEAR: 0, _MATMUL: 0, _RECURRENT: 0})
    tables: int = 0
    matmul_size: int = 0
    units: float = 0.0
    disagreement: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    rectified_channels: list[int] = field(default_factory=list)
    average_pools: int = 0
    n_add: int = 0
    differences: list[float] = field(default_factory=list)
    direct: int = 0
    join_powers: list[float] = field(default_factory=list)
    join_channels: list[int] = field(default_factory=list)
    concat_operands: list[int] = field(default_factory=list)
    gates: int = 0
    squeezes: int = 0
    expansions: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)
    image: float = 1.0


def _product(dimensions: Sequence[int]) -> int:
    total = prod(dimensions)
    return total if total < _LARGEST else _LARGEST


def _input_positions(shape: Sequence[int]) -> int:
    """Pixels or tokens of an input: (1, C, H, W, ...) has H W ..., (1, L, D) or (1, D, L) the longer, (1, L) has L."""
    if len(shape) >= 4:
        return max(1, _product(shape[2:]))
    return max(1, *shape[1:]) if len(shape) > 1 else 1


def _macs(node: Node, nodes: Sequence[Node]) -> int:
    """`costs.macs_of`, 0 where shapes of too few dimensions give it nothing to count."""
    try:
        return min(macs_of(node, [nodes[operand] for operand in node.inputs]), _LARGEST)
    except IndexError:
        return 0


def _channels(shape: Sequence[int], channels_last: bool) -> int:
    return (shape[-1] if channels_last or len(shape) < 2 else shape[1]) if shape else 1


def _transposed(channels_last: bool, node: Node) -> bool:
    """Whether the channels are the last axis behind a transposition: yes unless they become the second."""
    rank = len(node.shape)
    order = node.attribute("perm", tuple(range(rank))[::-1])
    channel = rank - 1 if channels_last else 1
    return not (isinstance(order, tuple) and len(order) == rank and rank > 2 and order[1] == channel)


def _joined(
    sweep: _Sweep, nodes: Sequence[Node], code: int, node: Node
) -> tuple[float, tuple[float, float, float], list[float], float, float]:
    """State behind the operands of a node that has several, before the node does anything else with it.

    Returns:
        Second moment, correlations, path statistics, log synflow and log number of paths. Appends the node's gradient
        gains to `sweep.gains`.
    """
    inputs = node.inputs
    if code == _ADD and len(inputs) == 2:
        return _added(sweep, *inputs)
    powers = [sweep.power[operand] for operand in inputs]
    correlations = [sweep.correlations[operand] for operand in inputs]
    spread = 1.0 / len(inputs)
    gains: tuple[float, ...]
    if code == _ADD:
        power = sum(powers)
        weights = [part / power for part in powers] if power > 0 else [spread] * len(powers)
        a, b, c = [sum(map(float.__mul__, weights, column)) for column in zip(*correlations, strict=True)]
        gains = (1.0,) * len(inputs)
        scales = [1.0] * len(inputs)
    elif code == _CONCAT:
        sizes = [sweep.sizes[operand] for operand in inputs]
        total = sum(sizes)
        gains = tuple(size / total for size in sizes) if total else (spread,) * len(sizes)
        parts = [share * part for share, part in zip(gains, powers, strict=True)]
        power = sum(parts)
        weights = [part / power for part in parts] if power > 0 else list(gains)
        a, b, c = [sum(map(float.__mul__, weights, column)) for column in zip(*correlations, strict=True)]
        scales = list(gains)
    elif code == _MULTIPLY or (code == _MATMUL and len(inputs) == 2):
        attends = code == _MATMUL and nodes[inputs[0]].op == "Softmax"
        if attends:
            tokens = max(1, nodes[inputs[0]].shape[-1]) if nodes[inputs[0]].shape else 1
            power, (a, b, c) = powers[1] / sqrt(tokens), correlations[1]
            weights, gains = [0.0, 1.0], (0.0, 1.0 / tokens)
        else:
            power = prod(powers)
            a, b, c = (prod(column) for column in zip(*correlations, strict=True))
            gains = tuple(power / part if part > 0 else 0.0 for part in powers)
            weights = [0.0 if nodes[operand].op in _SIGMOIDS else float(sweep.sizes[operand]) for operand in inputs]
            largest = max(weights)
            weights = [1.0 if weight == largest else 0.0 for weight in weights]
            count = sum(weights)
            weights = [weight / count for weight in weights]
        scales = weights
    elif code == _MATMUL and node.op == "Attention":
        values = inputs[2]
        tokens = max(1, nodes[values].shape[-2]) if len(nodes[values].shape) > 1 else 1
        power, (a, b, c) = powers[2] / sqrt(tokens), correlations[2]
        weights = [0.0] * len(inputs)
        weights[2] = 1.0
        gains = tuple(weight / tokens for weight in weights)
        scales = weights
    elif code in _EQUAL_OPERANDS or code == _MATMUL:
        weights = [spread] * len(inputs)
        power = sum(powers) * spread
        a, b, c = (sum(column) * spread for column in zip(*correlations, strict=True))
        gains = tuple(weights)
        scales = weights
    else:
        power, (a, b, c) = powers[0], correlations[0]
        weights = [1.0] + [0.0] * (len(inputs) - 1)
        gains = tuple(weights)
        scales = weights
    power = 0.0 if power == 0 else min(max(power, _LEAST_POWER), _LARGEST_POWER)
    sweep.gains.append(gains)
    rows = [sweep.paths[operand] for operand in inputs]
    if len(inputs) == 2:
        path = _merged(rows[0], rows[1], weights[0], weights[1])
    else:
        columns = list(zip(*rows, strict=True))
        path = [
            *map(min, columns[:_Q]),
            *map(max, columns[_Q : 2 * _Q]),
            *[sum(map(float.__mul__, weights, column)) for column in columns[2 * _Q :]],
        ]
    flows = [sweep.synflow[operand] for operand in inputs]
    top = max(flows)
    flow = top + log(max(sum([scale * exp(part - top) for scale, part in zip(scales, flows, strict=True)]), 1e-300))
    log_paths = sweep.log_paths[inputs[0]]
    for operand in inputs[1:]:
        log_paths = _log_sum(log_paths, sweep.log_paths[operand])
    return power, (a, b, c), path, flow, log_paths


def _added(sweep: _Sweep, i: int, j: int) -> tuple[float, tuple[float, float, float], list[float], float, float]:
    """`_joined` for the addition of two operands, by far the most frequent join."""
    p, r = sweep.power[i], sweep.power[j]
    power = p + r
    u = p / power if power > 0 else 0.5
    v = 1.0 - u
    first, second = sweep.correlations[i], sweep.correlations[j]
    correlation = (u * first[0] + v * second[0], u * first[1] + v * second[1], u * first[2] + v * second[2])
    if i == j:
        power *= 2
        sweep.gains.append((2.0, 2.0))
    else:
        sweep.gains.append((1.0, 1.0))
    path = _merged(sweep.paths[i], sweep.paths[j], u, v)
    flow = _log_sum(sweep.synflow[i], sweep.synflow[j])
    log_paths = _log_sum(sweep.log_paths[i], sweep.log_paths[j])
    return min(power, _LARGEST_POWER), correlation, path, flow, log_paths


def _merged(first: list[float], second: list[float], u: float, v: float) -> list[float]:
    """Path statistics behind two operands that carry the shares u and v of the variance."""
    if first is second:
        return first
    path = [x if x < y else y for x, y in zip(first[:_Q], second[:_Q], strict=True)]
    path += [x if x > y else y for x, y in zip(first[_Q : 2 * _Q], second[_Q : 2 * _Q], strict=True)]
    path += [u * x + v * y for x, y in zip(first[2 * _Q :], second[2 * _Q :], strict=True)]
    return path


def _log_sum(x: float, y: float) -> float:
    """log(exp(x) + exp(y)); either may be minus infinity."""
    if x < y:
        x, y = y, x
    return x + log1p(exp(y - x)) if y > -inf else x


def _forward(graph: ArchGraph) -> _Sweep:
    """One sweep over the nodes: counts, path statistics and signal propagation."""
    nodes = graph.nodes
    consumers = [0] * len(nodes)
    fed = [0] * len(nodes)  # layers that take the node as their first operand
    gates: set[int] = set()
    for node in nodes:
        inputs = node[1]
        for operand in inputs:
            consumers[operand] += 1
        if inputs and node[0] in _LAYER_OPS:
            fed[inputs[0]] += 1
        elif node[0] == "Mul" and len(inputs) == 2:
            gates.update(operand for operand in inputs if nodes[operand].op in _SIGMOIDS)
    gates = {position for position in gates if consumers[position] == 1}
    sweep = _Sweep(consumers)
    sweep.image = float(max((_input_positions(node.shape) for node in nodes if node.op == "Input"), default=1))
    side = sqrt(sweep.image)

    power, correlations, paths = sweep.power, sweep.correlations, sweep.paths
    synflow, log_paths, gains, sizes, kinds = sweep.synflow, sweep.log_paths, sweep.gains, sweep.sizes, sweep.kinds
    before: list[float] = []  # second moment, that before the activation behind an activation
    last: list[bool] = []  # whether the channels are the last axis
    growth: dict[int, float] = {}  # log2(out / in) of point-wise layers
    nothing = [0.0] * (3 * _Q)

    for position, node in enumerate(nodes):
        op, inputs, shape, attributes, weights, tied, _ = node
        code = _CODES.get(op, _UNKNOWN)
        kinds[code] += 1
        size = _product(shape)
        sizes.append(size)

        if len(inputs) == 1:
            source = inputs[0]
            q, c, path = power[source], correlations[source], paths[source]
            flow, count, channels_last = synflow[source], log_paths[source], last[source]
            gains.append(1.0)
        elif not inputs:
            dead = op != "Input"
            q, c, path = (0.0 if dead else 1.0), STARTS, nothing
            flow, count, channels_last = 0.0, (-inf if dead else 0.0), len(shape) <= 3
            gains.append(1.0)
        else:
            source = inputs[0]
            q, c, path, flow, count = _joined(sweep, nodes, code, node)
            channels_last = last[source]
            _record_join(sweep, nodes, code, node, channels_last)
        if op in _CHANNELS_LAST:
            channels_last = True
        elif code in _CHANNELS_FIRST:
            channels_last = False
        elif op == "Transpose":
            channels_last = _transposed(channels_last, node)
        elif code == _LINEAR and len(shape) < 3:
            channels_last = True
        was = q

        if code in (_CONV, _LINEAR, _RECURRENT):
            mixing = code == _RECURRENT
            reach = 0.0
            normalised = False
            kernel = 1
            classes: list[str] = []
            if code == _CONV and weights and inputs:
                kernel_shape = weights[0]
                spatial = kernel_shape[2:]
                kernel = max(spatial, default=1)
                mixing = kernel > 1
                classes.append("k1" if kernel <= 1 else "k3" if kernel <= 3 else "k5" if kernel <= 5 else "k7")
                for key, value in attributes:
                    if key == "bias":
                        normalised = True
                    elif key == "group" and isinstance(value, int) and value > 1:
                        classes.append("depthwise" if kernel_shape[1:2] == (1,) else "grouped")
                    elif key == "strides" and isinstance(value, tuple) and max(value, default=1) != 1:
                        classes.append("strided")
                    elif key == "dilations" and isinstance(value, tuple) and max(value, default=1) != 1:
                        classes.append("dilated")
                if mixing:
                    seen = max(1, _product(nodes[source].shape[2:]))
                    reach = (kernel - 1) * (max(1.0, sweep.image / seen) ** (1 / max(1, len(spatial))))
            elif code == _LINEAR:
                mixing = channels_last == bool(node.attribute("left"))
            if op == "Conv" and weights:
                fan = _product(weights[0][1:])
                macs = min(size * fan, _LARGEST)
            else:
                fan = min(fan_in(node), _LARGEST)
                macs = _macs(node, nodes)
            if code == _RECURRENT:
                fan = sum(shape_[-1] for shape_ in weights[:2] if shape_)
            if mixing and not reach:
                reach = side
            channels = _channels(shape, channels_last)
            positions = max(1, size // channels) if channels else 1
            learned = 0 if tied >= 0 else min(sum(map(prod, weights)), _LARGEST)
            log_fan = log(fan) if fan > 1 else 0.0
            path = path[:]
            for offset in (0, _Q, 2 * _Q):
                path[offset] += 1.0
                path[offset + _FAN] += log_fan
                path[offset + _WEIGHTS] += learned
                if mixing:
                    path[offset + _MIXING] += 1.0
                    path[offset + _REACH] += reach
            sweep.layers.append(_Layer(macs, learned, log_fan, channels, positions, mixing, path[_Q]))
            sweep.layer_nodes.append(position)
            sweep.macs[code] += macs
            for name in classes:
                sweep.conv_count[name] += 1
                sweep.conv_macs[name] += macs
            pointwise = not mixing if code == _LINEAR else classes == ["k1"] and positions > 1
            if pointwise and fan > 0 and channels > 0:
                growth[position] = log2(channels / fan)
            flow += 0.5 * log(4.0 * fan / pi) if fan > 0 else 0.0
            if inputs:
                q = (1.0 if normalised else before[source]) if q > 0 else 0.0
            if code == _RECURRENT:
                response = _response("Tanh", 0.0)
                a, b, d = c
                c = (_activated(a, response)[0], _activated(b, response)[0], _activated(d, response)[0])
        elif code == _ACTIVATION:
            response = _RECTIFIER
            if op != "Relu" and op != "Relu6":
                slope = node.attribute("alpha", 0.01 if op == "LeakyRelu" else 0.25) if "Relu" in op else 0.0
                response = _response(op, float(slope))
            a, b, d = c
            if response is _RECTIFIER:
                a, angle_a = _rectified(a)
                b, angle_b = _rectified(b)
                d, angle_d = _rectified(d)
            else:
                a, angle_a = _activated(a, response)
                b, angle_b = _activated(b, response)
                d, angle_d = _activated(d, response)
            c = (a, b, d)
            q = was * response.power
            if len(inputs) == 1:
                gains[position] = response.slope
            if position not in gates:
                path = path[:]
                path[_RECTIFIERS] += 1.0
                path[_Q + _RECTIFIERS] += 1.0
                path[2 * _Q + _RECTIFIERS] += 1.0
                times = fed[position] or 1
                units = size * times
                sweep.units += units
                disagreement = sweep.disagreement
                disagreement[0] += units * angle_a
                disagreement[1] += units * angle_b
                disagreement[2] += units * angle_d
                channels = _channels(shape, channels_last)
                sweep.rectified_channels += [channels] * min(times, 64)
                if inputs and inputs[0] in growth:
                    sweep.expansions.append(growth[inputs[0]])
        elif code == _NORM:
            q = 1.0 if q > 0 else 0.0
        elif code in (_POOL, _GLOBAL_POOL, _REDUCE):
            window = 1.0
            if code == _POOL:
                kernel_sides = node.attribute("kernel_shape", ())
                if isinstance(kernel_sides, tuple) and kernel_sides:
                    window = float(max(1, _product(kernel_sides)))
                reach = 0.0
                if inputs and window > 1:
                    seen = max(1, _product(nodes[source].shape[2:]))
                    reach = (max(kernel_sides) - 1) * (max(1.0, sweep.image / seen) ** (1 / len(kernel_sides)))
                path = path[:]
                for offset in (0, _Q, 2 * _Q):
                    path[offset + _POOLS] += 1.0
                    path[offset + _REACH] += reach
                sweep.average_pools += op == "AveragePool"
            elif inputs and size:
                window = max(1.0, sizes[source] / size)
            if op in ("AveragePool", "GlobalAveragePool", "ReduceMean"):
                q /= sqrt(window)
                if len(inputs) == 1:
                    gains[position] = 1.0 / window
        elif code == _SOFTMAX:
            if len(shape) >= 3 and shape[-1] > 1 and node.attribute("axis", -1) in (-1, len(shape) - 1):
                sweep.tokens.append(shape[-1])
                sweep.heads.append(shape[-3] if len(shape) >= 4 else 1)
            q = (1.0 / max(1, shape[-1]) ** 2 if shape else 1.0) if q > 0 else 0.0
        elif code == _MATMUL:
            macs = _macs(node, nodes)
            sweep.macs[_MATMUL] += macs
            sweep.matmul_size += size
            attends = op == "Attention" and len(inputs) >= 3
            if attends:
                keys = nodes[inputs[1]].shape
                keys = keys if len(keys) > 1 else (1, 1)
                sweep.tokens.append(keys[-2])
                sweep.heads.append(shape[-3] if len(shape) >= 4 else 1)
            elif inputs:
                keys = nodes[source].shape[:-2] + nodes[source].shape[-1:] + (1,)
                attends = nodes[source].op == "Softmax"
            if attends:
                reach = side
                if len(shape) >= 4 and size:  # (..., windows, heads, tokens, channels): attention may see a window only
                    reach *= min(1.0, sqrt(keys[-2] * shape[-3] * shape[-1] / size))
                path = path[:]
                for offset in (0, _Q, 2 * _Q):
                    path[offset + _MIXING] += 1.0
                    path[offset + _REACH] += reach
        elif code == _EMBEDDING:
            q = 1.0 if q > 0 else 0.0
            sweep.tables += 0 if tied >= 0 else min(sum(map(prod, weights)), _LARGEST)

        if was > 0 and q != was and code != _ACTIVATION and code <= _SOFTMAX and len(inputs) == 1:
            gains[position] = q / was
        before.append(was if code == _ACTIVATION else q)
        power.append(q)
        correlations.append(c)
        paths.append(path)
        synflow.append(flow)
        log_paths.append(count)
        last.append(channels_last)
    return sweep


def _record_join(sweep: _Sweep, nodes: Sequence[Node], code: int, node: Node, channels_last: bool) -> None:
    """Notes what the structure statistics need of an addition, concatenation or product of several activations."""
    if code == _MULTIPLY:
        signal = max(sweep.sizes[operand] for operand in node.inputs)
        gates = [operand for operand in node.inputs if nodes[operand].op in _SIGMOIDS]
        sweep.gates += bool(gates)
        sweep.squeezes += any(sweep.sizes[operand] < signal for operand in gates)
        return
    if code != _ADD and code != _CONCAT:
        return
    depths = [sweep.paths[operand][_Q] for operand in node.inputs]
    sweep.differences.append(max(depths) - min(depths))
    sweep.direct += any(sweep.consumers[operand] > 1 for operand in node.inputs)
    if code == _CONCAT:
        sweep.concat_operands.append(len(node.inputs))
        return
    sweep.n_add += 1
    total = sum(sweep.power[operand] for operand in node.inputs)
    sweep.join_powers.append(log10(max(total, 1e-60)))
    sweep.join_channels.append(_channels(node.shape, channels_last))


def _gradients(graph: ArchGraph, sweep: _Sweep) -> list[float]:
    """Energy (sum of squares over all elements) of the gradient at every layer's output, log10; 1 at the outputs."""
    energy = [0.0] * len(graph.nodes)
    for output in graph.outputs:
        energy[output] = 1.0 / len(graph.outputs)
    nodes, gains = graph.nodes, sweep.gains
    for position in range(len(nodes) - 1, -1, -1):
        here = energy[position]
        if not here:
            continue
        if here > 1e200:
            here = energy[position] = 1e200
        gain = gains[position]
        inputs = nodes[position][1]
        if isinstance(gain, float):
            if inputs:
                energy[inputs[0]] += here * min(gain, 1e60)
        else:
            for operand, part in zip(inputs, gain, strict=True):
                energy[operand] += here * min(part, 1e60)
    return [log10(energy[position]) for position in sweep.layer_nodes if energy[position] > 1e-250]


# ---------------------------------------------------------------------------------------------------------------------
# From the sweep to values
# ---------------------------------------------------------------------------------------------------------------------


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _profile(values: dict[str, float], layers: list[_Layer]) -> None:
    """Stages by resolution, thirds of the depth, widths and fan-in."""
    spatial = [layer for layer in layers if layer.positions > 1] or layers
    stages: dict[int, list[_Layer]] = {}
    for layer in spatial:
        stages.setdefault(round(log2(layer.positions)), []).append(layer)
    order = sorted(stages, reverse=True)
    columns = {
        "macs": [sum([layer.macs for layer in stages[key]]) for key in order],
        "weights": [sum([layer.weights for layer in stages[key]]) for key in order],
        "layers": [len(stages[key]) for key in order],
    }
    mixing = [sum([layer.mixing for layer in stages[key]]) for key in order]
    thirds = [min(2, 3 * (2 * rank + 1) // (2 * len(order))) for rank in range(len(order))]
    all_macs = max(1, sum(columns["macs"]))
    for third, name in enumerate(_THIRDS):
        inside = [rank for rank in range(len(order)) if thirds[rank] == third]
        widths = [layer.channels for rank in inside for layer in stages[order[rank]]]
        macs = sum([columns["macs"][rank] for rank in inside])
        values[f"stage_layers_{name}"] = log1p(len(widths))
        values[f"stage_macs_{name}"] = log10(1 + macs)
        values[f"stage_weights_{name}"] = log10(1 + sum([columns["weights"][rank] for rank in inside]))
        values[f"stage_macs_share_{name}"] = macs / all_macs
        values[f"stage_width_{name}"] = log2(1 + _median(widths)) if widths else 0.0
        values[f"stage_mixing_{name}"] = log1p(sum([mixing[rank] for rank in inside]))
    for name, column in columns.items():
        total = sum(column)
        shares = [part / total for part in column] if total else [1 / len(column)] * len(column) if column else []
        values[f"stage_centroid_{name}"] = sum([share * rank for rank, share in enumerate(shares)]) / max(
            1, len(shares) - 1
        )
        values[f"stage_entropy_{name}"] = -sum([share * log(share) for share in shares if share > 0])
        values[f"stage_peak_{name}"] = max(shares, default=0.0)
    stage_widths = [log2(1 + _median([layer.channels for layer in stages[key]])) for key in order]
    values["n_stages"] = log1p(len(order))
    values["first_resolution"] = order[0] / 2 if order else 0.0
    values["last_resolution"] = order[-1] / 2 if order else 0.0
    values["narrowest_stage"] = min(stage_widths, default=0.0)
    values["mean_stage_width"] = sum(stage_widths) / max(1, len(stage_widths))
    values["bottleneck"] = log2(max(1, min((layer.channels * layer.positions for layer in spatial), default=1)))

    deepest = max([layer.depth for layer in spatial], default=1.0)
    early = [layer for layer in spatial if 3 * layer.depth <= deepest + 1]
    late = [layer for layer in spatial if 3 * layer.depth > 2 * deepest]
    total = max(1, sum([layer.macs for layer in spatial]))
    values["depth_macs_first"] = sum([layer.macs for layer in early]) / total
    values["depth_macs_last"] = sum([layer.macs for layer in late]) / total
    widths_early, widths_late = (
        sum([log2(max(1, layer.channels)) for layer in part]) / max(1, len(part)) for part in (early, late)
    )
    values["width_slope"] = widths_late - widths_early if early and late else 0.0

    fans = [layer.log_fan for layer in layers] or [0.0]
    widths_all = [log2(max(1, layer.channels)) for layer in spatial] or [0.0]
    fan_sum = sum(fans)
    values["fan_min"] = min(fans)
    values["fan_mean"] = fan_sum / len(fans)
    values["fan_sum"] = log1p(fan_sum)
    values["fan_spread"] = _deviation(fans)
    values["width_min"] = min(widths_all)
    values["width_mean"] = sum(widths_all) / len(widths_all)
    values["width_max"] = max(widths_all)
    _, last_map = max(((layer.depth, layer.channels * layer.positions) for layer in spatial), default=(0.0, 1))
    values["entropy"] = log1p(fan_sum * log(max(1, last_map)))


def _sizes(values: dict[str, float], graph: ArchGraph, sweep: _Sweep) -> None:
    """Sizes, operator counts, structure and attention."""
    layers, kinds = sweep.layers, sweep.kinds
    n_nodes, n_edges, n_layers = len(graph.nodes), sum(sweep.consumers), len(layers)
    macs = sum(sweep.macs.values())
    deepest = max((layer.depth for layer in layers), default=0.0)
    log_params = log10(1 + sum([layer.weights for layer in layers]) + sweep.tables)
    log_macs = log10(1 + macs)
    log_units = log10(1 + sweep.units)
    values["log_params"] = log_params
    values["log_macs"] = log_macs
    layer_size = sum([sweep.sizes[position] for position in sweep.layer_nodes])
    values["log_activations"] = log10(1 + layer_size + sweep.matmul_size)
    values["log_units"] = log_units
    values["log_relu_channels"] = log10(1 + sum(sweep.rectified_channels))
    values["log_nodes"] = log1p(n_nodes)
    values["log_edges"] = log1p(n_edges)
    values["log_layers"] = log1p(n_layers)
    values["log_params_per_unit"] = log_params - log_units
    values["log_macs_per_param"] = log_macs - log_params
    values["log_macs_per_depth"] = log_macs - log10(1 + deepest)
    values["log_macs_per_layer"] = log_macs - log10(1 + n_layers)
    values["log_input_positions"] = log2(sweep.image)
    values["log_output_size"] = log2(1 + sum([sweep.sizes[output] for output in graph.outputs]))
    values["n_inputs"] = log1p(sum([node.op == "Input" for node in graph.nodes]))
    values["n_outputs"] = log1p(len(graph.outputs))
    values["is_connected"] = float(any(sweep.log_paths[output] > -inf for output in graph.outputs))

    for kind in _COUNTED_KINDS:
        values[f"share_{kind}"] = kinds[_ORDER.index(kind)] / max(1, n_nodes)
    for name in _CONV_CLASSES:
        values[f"n_conv_{name}"] = log1p(sweep.conv_count[name])
        values[f"share_conv_{name}"] = sweep.conv_count[name] / max(1, n_layers)
        values[f"macs_conv_{name}"] = sweep.conv_macs[name] / max(1, macs)
    values["macs_linear"] = sweep.macs[_LINEAR] / max(1, macs)
    values["macs_attention"] = sweep.macs[_MATMUL] / max(1, macs)
    values["macs_recurrent"] = sweep.macs[_RECURRENT] / max(1, macs)
    values["n_average_pool"] = log1p(sweep.average_pools)
    values["n_max_pool"] = log1p(kinds[_POOL] - sweep.average_pools)
    values["n_add"] = log1p(sweep.n_add)
    values["n_concat"] = log1p(kinds[_CONCAT])
    values["pool_share"] = kinds[_POOL] / max(1, kinds[_POOL] + n_layers)
    values["mixing_share"] = sum([layer.mixing for layer in layers]) / max(1, n_layers)

    differences = sweep.differences
    n_joins = len(differences)
    cycles = max(0, n_edges - n_nodes + 1)
    values["n_joins"] = log1p(n_joins)
    values["n_branchings"] = log1p(sum([count > 1 for count in sweep.consumers]))
    values["n_cycles"] = log1p(cycles)
    values["cycles_per_node"] = cycles / max(1, n_nodes)
    values["joins_per_layer"] = n_joins / (1 + n_layers)
    values["fan_out_max"] = log2(1 + max(sweep.consumers, default=0))
    values["skip_mean"] = log1p(sum(differences) / max(1, n_joins))
    values["skip_max"] = log1p(max(differences, default=0.0))
    values["skip_long"] = sum([difference >= 2 for difference in differences]) / max(1, n_joins)
    values["skip_balanced"] = sum([difference == 0 for difference in differences]) / max(1, n_joins)
    values["skip_direct"] = sweep.direct / max(1, n_joins)
    values["concat_operands"] = sum(sweep.concat_operands) / max(1, len(sweep.concat_operands))
    values["n_gates"] = log1p(sweep.gates)
    values["n_squeeze_excite"] = log1p(sweep.squeezes)
    values["gates_per_layer"] = sweep.gates / (1 + n_layers)

    values["n_attention"] = log1p(len(sweep.tokens))
    values["attention_tokens"] = log2(1 + max(sweep.tokens, default=0))
    values["attention_heads"] = log2(1 + sum(sweep.heads) / max(1, len(sweep.heads)))
    channels = [max(1, count) for count in sweep.rectified_channels]
    values["regions"] = log1p(sqrt(sum([count * log(count) for count in channels])))
    values["expansion_mean"] = sum(sweep.expansions) / max(1, len(sweep.expansions))
    values["expansion_max"] = max(sweep.expansions, default=0.0)
    values["residual_width"] = log2(1 + _median(sweep.join_channels)) if sweep.join_channels else 0.0


def _signals(values: dict[str, float], graph: ArchGraph, sweep: _Sweep) -> None:
    """Paths, propagation of variance, correlation and gradient."""
    outputs = graph.outputs
    rows = [sweep.paths[output] for output in outputs] or [[0.0] * (3 * _Q)]
    columns = list(zip(*rows, strict=True))
    path = [
        *map(min, columns[:_Q]),
        *map(max, columns[_Q : 2 * _Q]),
        *[sum(column) / len(column) for column in columns[2 * _Q :]],
    ]
    for offset, statistic in ((0, "min"), (_Q, "max"), (2 * _Q, "mean")):
        for rank, name in enumerate(_QUANTITIES):
            value = path[offset + rank]
            scaled = log10(1 + value) if rank == _WEIGHTS else log2(1 + value) if rank == _REACH else log1p(value)
            values[f"path_{statistic}_{name}"] = scaled
    longest = max(1.0, path[_Q])
    values["path_ratio"] = path[0] / longest
    values["path_mean_ratio"] = path[2 * _Q] / longest
    values["reach_ratio"] = log2((1 + path[2 * _Q + _REACH]) / sqrt(sweep.image))
    values["log_paths"] = log1p(max(0.0, max((sweep.log_paths[output] for output in outputs), default=0.0)))

    units = sweep.units
    for rank, start in enumerate(STARTS):
        apart = sweep.disagreement[rank] / (pi * units) if units else 0.0
        kernel = (31 * log(max(apart, 1e-12)) + log(1 + 31 * (1 - apart))) / 32
        values[f"nwot_{start}"] = log(units) + kernel if units else 0.0
        if rank == 1:
            values["agreement"] = 1.0 - apart if units else 1.0
        apart_out = [1 - sweep.correlations[output][rank] for output in outputs]
        values[f"correlation_{start}"] = log10(max(sum(apart_out) / max(1, len(outputs)), 1e-9))
    spread = [sweep.correlations[output][2] - sweep.correlations[output][0] for output in outputs]
    values["correlation_spread"] = log10(1e-9 + max(0.0, sum(spread) / max(1, len(spread))))
    power = sum([sweep.power[output] for output in outputs]) / max(1, len(outputs))
    values["power_out"] = log10(max(power, 1e-60))
    values["power_joins"] = sum(sweep.join_powers) / max(1, len(sweep.join_powers))
    gradients = _gradients(graph, sweep) or [0.0]
    values["gradient_mean"] = sum(gradients) / len(gradients)
    values["gradient_spread"] = _deviation(gradients)
    values["gradient_min"] = min(gradients)
    values["gradient_max"] = max(gradients)
    flow = max((sweep.synflow[output] for output in outputs), default=0.0)
    values["synflow"] = log1p(flow) if flow >= 0 else -log1p(-flow)


# ---------------------------------------------------------------------------------------------------------------------
# Spectrum
# ---------------------------------------------------------------------------------------------------------------------

_PIECES = 64
_DENSE = 256
_KNOTS = 64
_RELAXATIONS = 8


def _spectrum(values: dict[str, float], graph: ArchGraph, consumers: list[int]) -> None:
    """Smallest eigenvalues of the normalised Laplacian of the undirected graph, on a skeleton of it."""
    n_nodes = len(graph.nodes)
    eigenvalues = laplacian_eigenvalues(graph, 5, consumers)
    for rank in range(1, 5):
        values[f"laplacian_{rank}"] = log10(max(eigenvalues[rank], 1e-12))
    values["algebraic_connectivity"] = log10(max(eigenvalues[1] * n_nodes**2, 1e-6))


def laplacian_eigenvalues(graph: ArchGraph, count: int, consumers: Sequence[int] | None = None) -> list[float]:
    """Smallest eigenvalues of the normalised Laplacian I - D^-1/2 A D^-1/2 of the graph without directions.

    Chains (nodes with one operand and one consumer) are contracted: a chain of K edges becomes p = ceil(K / s) pieces
    of conductance p / K and mass K / p at either end, with s = max(1, nodes // 64). Up to 127 nodes s is 1 and the
    result exact; beyond, it errs by second order in the piece's length. If more than 256 nodes are left, the problem
    is solved among 64 functions: piecewise linear in the depth, relaxed by 8 Jacobi steps (Rayleigh and Ritz; never
    below the skeleton's true values). So the cost is linear in the graph but for one dense problem of at most 256 rows.

    Args:
        graph: Any graph.
        count: How many eigenvalues.
        consumers: Number of consumers of every node, if known.

    Returns:
        `count` values in ascending order, padded with 2, the upper bound, where the graph has fewer.
    """
    nodes = graph.nodes
    if consumers is None:
        counted = [0] * len(nodes)
        for node in nodes:
            for operand in node.inputs:
                counted[operand] += 1
        consumers = counted
    piece = max(1, len(nodes) // _PIECES)
    row = [-1] * len(nodes)  # row of the skeleton; -1 inside a chain
    root = [0] * len(nodes)  # row where the chain starts
    length = [0] * len(nodes)  # edges from there
    depths: list[int] = []  # per row, for the fallback
    starts: list[int] = []
    ends: list[int] = []
    edge_lengths: list[float] = []
    depth = [0] * len(nodes)
    for position, node in enumerate(nodes):
        inputs = node[1]
        if len(inputs) == 1 and consumers[position] == 1:
            source = inputs[0]
            depth[position] = depth[source] + 1
            inside = row[source] < 0
            root[position], length[position] = (root[source], length[source] + 1) if inside else (row[source], 1)
            continue
        row[position] = here = len(depths)
        depth[position] = 1 + max([depth[source] for source in inputs]) if inputs else 0
        depths.append(depth[position])
        for source in inputs:
            start, edges = (root[source], length[source] + 1) if row[source] < 0 else (row[source], 1)
            pieces = -(-edges // piece)
            base = depths[start]
            for rank in range(1, pieces):
                starts.append(start)
                edge_lengths.append(edges / pieces)
                start = len(depths)
                ends.append(start)
                depths.append(base + round(rank * edges / pieces))
            starts.append(start)
            ends.append(here)
            edge_lengths.append(edges / pieces)
    rows = len(depths)
    if not starts:
        return ([0.0] * rows + [2.0] * count)[:count]
    a, b, mass = np.array(starts, np.int64), np.array(ends, np.int64), np.array(edge_lengths, np.float64)
    conductance = 1.0 / mass
    masses = np.asarray(np.bincount(a, mass, rows) + np.bincount(b, mass, rows), np.float64)
    with _blas().limit(limits=1, user_api="blas"):  # in matrices this small, threads only wait for each other
        if rows <= _DENSE:
            scale = 1.0 / np.sqrt(np.where(masses > 0, masses, 1.0))
            laplacian = np.bincount(a * rows + b, -conductance, rows * rows).reshape(rows, rows)
            laplacian += laplacian.T
            laplacian.flat[:: rows + 1] -= laplacian.sum(axis=1)
            found = np.linalg.eigvalsh(scale[:, None] * laplacian * scale)
        else:
            found = _by_depth(np.array(depths, dtype=np.float64), a, b, conductance, masses)
    return [min(float(value), 2.0) if value > 1e-12 else 0.0 for value in found[:count]] + [2.0] * (count - len(found))


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """Handle on numpy's linear algebra library; finding it takes milliseconds, so it is kept."""
    return ThreadpoolController()


def _by_depth(
    depths: NDArray[np.float64],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    conductance: NDArray[np.float64],
    masses: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Ritz values, ascending, among functions that are piecewise linear in the depth, relaxed by Jacobi steps."""
    from scipy.sparse import coo_array

    rows, deepest = len(depths), float(depths.max())
    knots = min(_KNOTS, int(deepest) + 1)
    basis = np.maximum(0.0, 1.0 - np.abs((depths * ((knots - 1) / max(1.0, deepest)))[:, None] - np.arange(knots)))
    weights = coo_array((np.tile(conductance, 2), (np.append(a, b), np.append(b, a))), shape=(rows, rows)).tocsr()
    degree = np.asarray(weights.sum(axis=1), dtype=np.float64).reshape(rows, 1)
    step = (2.0 / 3.0) / np.where(degree > 0, degree, 1.0)
    for _ in range(_RELAXATIONS):
        basis -= step * (degree * basis - weights @ basis)
    stiffness = basis.T @ (degree * basis - weights @ basis)
    values, vectors = np.linalg.eigh(basis.T @ (masses[:, None] * basis))
    kept = values > 1e-9 * values[-1]
    vectors = vectors[:, kept] / np.sqrt(values[kept])
    return np.asarray(np.linalg.eigvalsh(vectors.T @ stiffness @ vectors), dtype=np.float64)


# ---------------------------------------------------------------------------------------------------------------------


def statistics(graph: ArchGraph) -> NDArray[np.float64]:
    """The statistics of one graph.

    Args:
        graph: Any graph, also without layers, with unknown operators, several inputs or outputs, or a single `Zero`.

    Returns:
        Float64 array of shape `(len(FEATURES),)`, in the order of `FEATURES`, all finite, rounded to 9 decimals so that
        the order in which sums were taken does not show.
    """
    sweep = _forward(graph)
    values: dict[str, float] = {}
    _sizes(values, graph, sweep)
    _profile(values, sweep.layers)
    _signals(values, graph, sweep)
    _spectrum(values, graph, sweep.consumers)
    row = np.array([values[name] for name in FEATURE_NAMES], dtype=np.float64)
    return np.round(row, 9) + 0.0  # no negative zeros
