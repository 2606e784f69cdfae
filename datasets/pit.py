"""Pooling-based vision transformers (PiT), the spaces of training-free transformer search, by definition only.

B. Heo, S. Yun, D. Han, S. Chun, J. Choe, S. J. Oh, "Rethinking Spatial Dimensions of Vision Transformers", ICCV 2021,
for the network; Q. Zhou et al., "Training-free Transformer Architecture Search", CVPR 2022 (TF-TAS), sec. 4.1 and its
published configurations, for the choices. There, one base width (channels of a head) and one ratio hold for all three
stages, heads and layers are chosen per stage. Its sampling code is not published; heads never fall from stage to stage
here, since the grouped convolution between stages needs multiples.

A spec is JSON with the names of those configurations, without spaces:
`{"mlp_ratio":4,"num_heads":[2,4,8],"depth":[2,6,4],"base_dim":32}`. archgauge has no labels of these networks.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .raw_files import check_space, check_task, parse_json
from .space import Space, check_count
from .unlabelled import no_labels
from .vit_builder import VitBuilder

TASKS = ("imagenet1k",)
SIZE = 4_320
"""Networks of each of the three spaces."""
MLP_RATIOS = (2, 4, 6, 8)
DEPTHS = ((1, 2, 3), (4, 6, 8), (2, 4, 6))
"""Layers that each stage may have."""

_NAME = "PiT"
_KEYS = ("mlp_ratio", "num_heads", "depth", "base_dim")


class Choices(NamedTuple):
    """What one of the spaces lets choose, beside `MLP_RATIOS` and `DEPTHS`.

    Attributes:
        num_heads: Heads of a stage.
        base_dim: Channels of a head, the same in all stages.
    """

    num_heads: tuple[int, ...]
    base_dim: tuple[int, ...]


CHOICES = {
    "tiny": Choices((2, 4, 8), (16, 24, 32, 40)),
    "xs": Choices((2, 4, 8), (40, 48, 56, 64)),
    "small": Choices((3, 6, 12), (36, 48, 60, 72)),
}


class Network(NamedTuple):
    """A network of the space; the attributes are those of the spec."""

    mlp_ratio: int
    num_heads: tuple[int, int, int]
    depth: tuple[int, int, int]
    base_dim: int


def parse(spec: str) -> Network:
    """The network of a spec.

    Raises:
        DataError: It is none of the three spaces, or not written as `spec_of` writes it.
    """
    where = f"{_NAME} network {spec!r}"
    content = parse_json(spec, where)
    if not isinstance(content, dict) or set(content) != set(_KEYS):
        raise DataError(f"{where}: expected a JSON object with {', '.join(_KEYS)}")
    ratio, heads, depth, base = (content[key] for key in _KEYS)
    if ratio not in MLP_RATIOS:
        raise DataError(f"{where}: mlp_ratio is {ratio!r}, expected one of {MLP_RATIOS}")
    if not isinstance(depth, list) or len(depth) != 3 or any(d not in c for d, c in zip(depth, DEPTHS, strict=True)):
        raise DataError(f"{where}: depth is {depth!r}, expected one value out of each of {DEPTHS}")
    if not any(_allowed(heads, base, choices) for choices in CHOICES.values()):
        spaces = "; ".join(f"{choices.num_heads}, {choices.base_dim}" for choices in CHOICES.values())
        raise DataError(
            f"{where}: num_heads {heads!r} and base_dim {base!r} are in none of the spaces; expected three numbers of "
            f"heads that never fall and a width out of {spaces}"
        )
    network = Network(ratio, (heads[0], heads[1], heads[2]), (depth[0], depth[1], depth[2]), base)
    if spec_of(network) != spec:
        raise DataError(f"{where}: expected it written as {spec_of(network)}")
    return network


def spec_of(network: Network) -> str:
    """The spec of a network."""
    content = {
        "mlp_ratio": int(network.mlp_ratio),
        "num_heads": [int(heads) for heads in network.num_heads],
        "depth": [int(layers) for layers in network.depth],
        "base_dim": int(network.base_dim),
    }
    return json.dumps(content, separators=(",", ":"))


def build(spec: str, task: str) -> ModelProto:
    """The network with patches of 16x16 pixels every 8 pixels, input 3x224x224.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, _NAME)
    network = parse(spec)
    b = VitBuilder(spec, (3, 224, 224))
    width = network.base_dim * network.num_heads[0]
    x = b.conv(b.input, width, kernel=16, stride=8, padding=0, bias=True)
    x = b.add_parameter(x, x.shape)
    patches = b.tokens(x)
    token = b.learned_token(patches)
    for stage, (heads, depth) in enumerate(zip(network.num_heads, network.depth, strict=True)):
        if stage:
            side, width = x.shape[1], network.base_dim * heads
            x = b.conv(b.image(patches, side, side), width, kernel=3, stride=2, groups=x.shape[0], bias=True)
            patches, token = b.tokens(x), b.linear(token, width)
        y = b.concat([token, patches], axis=0)
        for _ in range(depth):
            y = b.transformer_layer(y, heads, network.base_dim, network.mlp_ratio * y.shape[1])
        token = b.slice(y, (0,), (0,), (1,))
        if stage < 2:
            patches = b.slice(y, (0,), (1,), (y.shape[0],))
    return b.build(b.linear(b.reshape(b.layer_norm(token), (token.shape[1],)), 1000))


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above the size of the space (4,320), or the space does not exist.
    """
    check_space(space, CHOICES, _NAME)
    choices = CHOICES[space]
    networks = [
        Network(ratio, (first, second, third), (short, long, end), base)
        for ratio, base in product(MLP_RATIOS, choices.base_dim)
        for first, second, third in product(choices.num_heads, repeat=3)
        if first <= second <= third
        for short, long, end in product(*DEPTHS)
    ]
    check_count(n, SIZE, f"{_NAME} {space}")
    return [spec_of(networks[at]) for at in np.random.default_rng(seed).choice(len(networks), n, replace=False)]


def _allowed(heads: object, base: object, choices: Choices) -> bool:
    return (
        isinstance(heads, list)
        and len(heads) == 3
        and all(count in choices.num_heads for count in heads)
        and heads == sorted(heads)
        and base in choices.base_dim
    )


SPACES = {
    space: Space(TASKS, SIZE, build, no_labels(f"{_NAME} {space}", TASKS), partial(sample, space=space))
    for space in CHOICES
}
"""The three spaces: tiny, xs and small."""
