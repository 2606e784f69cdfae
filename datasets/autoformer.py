"""AutoFormer: the vision transformer spaces supernet-tiny, -small and -base, by definition only.

M. Chen, H. Peng, J. Fu, H. Ling, "AutoFormer: Searching Transformers for Visual Recognition", ICCV 2021, table 1 and
sec. 3; choices and details (relative positions on keys and values, 64 channels a head, mean of the patch tokens before
the classifier, biases) after the official code. Networks of the base space have 8, 9 or 10 heads a layer: published
configurations do; one copy of the code has 9 and 10 only.

A spec is JSON with the names of the official configuration files, without spaces:
`{"mlp_ratio":[3.5,4.0,...],"num_heads":[3,4,...],"depth":12,"embed_dim":192}` with one ratio and one number of heads a
layer. The three spaces share no embedding width, so a spec tells its space. archgauge has no labels of these networks.
"""

from __future__ import annotations

import json
from functools import partial
from typing import NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .raw_files import check_space, check_task, parse_json
from .space import Space, check_count
from .unlabelled import no_labels
from .vit_builder import VitBuilder

TASKS = ("imagenet1k",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
HEAD_WIDTH = 64
FARTHEST = 14
"""Distances of rows and columns beyond this share an entry of the position tables."""

_NAME = "AutoFormer"


class Choices(NamedTuple):
    """What one of the spaces lets choose.

    Attributes:
        mlp_ratio: Hidden channels of a feed-forward block over the embedding width, per layer.
        num_heads: Heads, per layer.
        depth: Layers.
        embed_dim: Embedding width.
    """

    mlp_ratio: tuple[float, ...]
    num_heads: tuple[int, ...]
    depth: tuple[int, ...]
    embed_dim: tuple[int, ...]


CHOICES = {
    "tiny": Choices((3.5, 4.0), (3, 4), (12, 13, 14), (192, 216, 240)),
    "small": Choices((3.0, 3.5, 4.0), (5, 6, 7), (12, 13, 14), (320, 384, 448)),
    "base": Choices((3.0, 3.5, 4.0), (8, 9, 10), (14, 15, 16), (528, 576, 624)),
}


class Network(NamedTuple):
    """A network of the space.

    Attributes:
        mlp_ratio: One per layer.
        num_heads: One per layer.
        embed_dim: Embedding width.
    """

    mlp_ratio: tuple[float, ...]
    num_heads: tuple[int, ...]
    embed_dim: int


def parse(spec: str) -> Network:
    """The network of a spec.

    Raises:
        DataError: It is none of the three spaces, or not written as `spec_of` writes it.
    """
    where = f"{_NAME} network {spec!r}"
    content = parse_json(spec, where)
    if not isinstance(content, dict) or set(content) != {"mlp_ratio", "num_heads", "depth", "embed_dim"}:
        raise DataError(f"{where}: expected a JSON object with mlp_ratio, num_heads, depth and embed_dim")
    choices = next((c for c in CHOICES.values() if content["embed_dim"] in c.embed_dim), None)
    if choices is None:
        widths = [width for c in CHOICES.values() for width in c.embed_dim]
        raise DataError(f"{where}: embed_dim is {content['embed_dim']!r}, expected one of {widths}")
    if content["depth"] not in choices.depth:
        raise DataError(f"{where}: depth is {content['depth']!r}, expected one of {choices.depth} at this width")
    for key, allowed in (("mlp_ratio", choices.mlp_ratio), ("num_heads", choices.num_heads)):
        values = content[key]
        if not isinstance(values, list) or len(values) != content["depth"] or any(v not in allowed for v in values):
            raise DataError(f"{where}: {key} is {values!r}, expected {content['depth']} values out of {allowed}")
    network = Network(tuple(content["mlp_ratio"]), tuple(content["num_heads"]), content["embed_dim"])
    if spec_of(network) != spec:
        raise DataError(f"{where}: expected it written as {spec_of(network)}")
    return network


def spec_of(network: Network) -> str:
    """The spec of a network."""
    content = {
        "mlp_ratio": [float(ratio) for ratio in network.mlp_ratio],
        "num_heads": [int(heads) for heads in network.num_heads],
        "depth": len(network.num_heads),
        "embed_dim": int(network.embed_dim),
    }
    return json.dumps(content, separators=(",", ":"))


def build(spec: str, task: str) -> ModelProto:
    """The network with patches of 16x16 pixels, input 3x224x224.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, _NAME)
    network = parse(spec)
    b = VitBuilder(spec, (3, 224, 224))
    x = b.tokens(b.conv(b.input, network.embed_dim, kernel=16, stride=16, padding=0, bias=True))
    x = b.concat([b.learned_token(x), x], axis=0)
    x = b.add_parameter(x, x.shape)
    relative = b.relative_positions(14, FARTHEST)
    for ratio, heads in zip(network.mlp_ratio, network.num_heads, strict=True):
        x = b.transformer_layer(x, heads, HEAD_WIDTH, int(ratio * network.embed_dim), relative)
    x = b.layer_norm(x)
    patches = b.slice(x, (0,), (1,), (x.shape[0],))
    return b.build(b.linear(b.mean_token(patches), 1000))


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs of a space, depth, width, ratios and heads uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000, or the space does not exist.
    """
    check_space(space, CHOICES, _NAME)
    check_count(n, SIZE, f"{_NAME} {space}")
    choices = CHOICES[space]
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        depth = int(rng.choice(choices.depth))
        ratios = tuple(float(ratio) for ratio in rng.choice(choices.mlp_ratio, depth))
        heads = tuple(int(count) for count in rng.choice(choices.num_heads, depth))
        found[spec_of(Network(ratios, heads, int(rng.choice(choices.embed_dim))))] = None
    return list(found)


SPACES = {
    space: Space(TASKS, SIZE, build, no_labels(f"{_NAME} {space}", TASKS), partial(sample, space=space))
    for space in CHOICES
}
"""The three spaces: tiny, small and base."""
