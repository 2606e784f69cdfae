"""Once-for-All ResNet50: sub-networks with elastic depth, bottleneck, width and resolution, for ImageNet. No labels.

H. Cai, C. Gan, T. Wang, Z. Zhang, S. Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment",
ICLR 2020; the ResNet50 supernet was published later with the authors' library (`ofa_resnet50`), whose values these are:
depths, bottleneck shares, width factors, and the eight resolutions of its accuracy predictor.

A spec is the library's architecture as compact JSON, `{"d":[2,1,2,0,1],"e":[0.25,...],"w":[2,...],"image_size":224}`:
`d` holds 2 if the stem has its residual convolution, else 0, and the blocks that the four stages have beyond 2, 2, 4
and 2; `e` the bottleneck shares of the 18 possible blocks (4, 4, 6 and 4 per stage), 0 where the depth leaves the block
out; `w` the positions of the width factors 0.65, 0.8 and 1 for the stem's first and last convolution and the stages.
`spec_of` puts the zeros into `e`, for which the library may hold any value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto

from ..encoders.errors import DataError
from .onnx_builder import OnnxBuilder, Value
from .raw_files import check_task, field, parse_json
from .space import check_count
from .unlabelled import no_labels

TASKS = ("imagenet1k",)
SIZE = 1_000_000
"""Specs that `sample` gives at most."""
BOTTLENECKS = (0.2, 0.25, 0.35)
WIDTHS = (0.65, 0.8, 1.0)
RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)

_DEEPER = (0, 1, 2)
_STEM = (0, 2)
_LEAST_DEPTHS = (2, 2, 4, 2)
_MOST_DEPTHS = tuple(depth + max(_DEEPER) for depth in _LEAST_DEPTHS)
_STAGE_WIDTHS = (256, 512, 1024, 2048)
_STRIDES = (1, 2, 2, 2)


class SubNetwork(NamedTuple):
    """A sub-network.

    Attributes:
        stem: Whether the stem has its residual convolution.
        stages: Bottleneck shares of the blocks of the four stages.
        widths: Width factors of the stem's first and last convolution and of the stages.
        image_size: Height and width of the input.
    """

    stem: bool
    stages: tuple[tuple[float, ...], ...]
    widths: tuple[float, ...]
    image_size: int


def parse(spec: str) -> SubNetwork:
    """The sub-network of a spec.

    Raises:
        DataError: It is no network of this space.
    """
    source = f"OFA-ResNet50 network {spec!r}"
    choice = parse_json(spec, source)
    d = _choices(field(choice, "d", source), f"{source}, d", [_STEM, *[_DEEPER] * 4])
    e = _choices(field(choice, "e", source), f"{source}, e", [(0, *BOTTLENECKS)] * sum(_MOST_DEPTHS))
    w = _choices(field(choice, "w", source), f"{source}, w", [tuple(range(len(WIDTHS)))] * 6)
    (size,) = _choices([field(choice, "image_size", source)], f"{source}, image_size", [RESOLUTIONS])
    canonical = spec_of(d, e, w, size)
    if spec != canonical:
        raise DataError(f"{source}: expected it to be written {canonical!r}")
    stages = tuple(
        tuple(e[sum(_MOST_DEPTHS[:stage]) :][: least + d[1 + stage]]) for stage, least in enumerate(_LEAST_DEPTHS)
    )
    if any(0 in stage for stage in stages):
        raise DataError(f"{source}, e: expected bottleneck shares of {sum(map(len, stages))} blocks, got a 0 for one")
    return SubNetwork(d[0] > 0, stages, tuple(WIDTHS[at] for at in w), size)


def spec_of(d: Sequence[int], e: Sequence[float], w: Sequence[int], image_size: int) -> str:
    """The spec of an architecture of the library; shares of blocks that the depths leave out become 0."""
    shares = list(e)
    first = 0
    for more, least, most in zip(d[1:], _LEAST_DEPTHS, _MOST_DEPTHS, strict=True):
        shares[first + least + more : first + most] = [0] * (most - least - more)
        first += most
    choice = {"d": list(d), "e": shares, "w": list(w), "image_size": image_size}
    return json.dumps(choice, separators=(",", ":"))


def build(spec: str, task: str) -> ModelProto:
    """The sub-network, input of the spec's resolution.

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "OFA-ResNet50")
    network = parse(spec)
    b = OnnxBuilder(spec, (3, network.image_size, network.image_size))
    first, last, *factors = network.widths
    x = _convolution(b, b.input, _divisible(_divisible(64 * first) // 2), 3, 2)
    if network.stem:
        x = b.add(_convolution(b, x, x.shape[0], 3, 1), x)
    x = _convolution(b, x, _divisible(64 * last), 3, 1)
    x = b.max_pool(x, kernel=3, stride=2, padding=1)
    for shares, base, factor, first_stride in zip(network.stages, _STAGE_WIDTHS, factors, _STRIDES, strict=True):
        width = _divisible(base * factor)
        for position, share in enumerate(shares):
            x = _block(b, x, width, share, position == 0, first_stride if position == 0 else 1)
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 1000))


read_labels = no_labels("OFA-ResNet50", TASKS)
"""There are none: always raises a `DataError` that says so."""


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different specs, every choice uniformly; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "OFA-ResNet50")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        d = [_STEM[int(rng.integers(2))], *map(int, rng.integers(3, size=4))]
        e = [BOTTLENECKS[at] for at in rng.integers(3, size=sum(_MOST_DEPTHS))]
        w = [int(at) for at in rng.integers(3, size=6)]
        found[spec_of(d, e, w, RESOLUTIONS[int(rng.integers(len(RESOLUTIONS)))])] = None
    return list(found)


def _choices(values: Any, source: str, allowed: Sequence[tuple[Any, ...]]) -> list[Any]:
    if not isinstance(values, list) or len(values) != len(allowed):
        raise DataError(f"{source}: expected a list of {len(allowed)}, got {values!r}")
    for value, choices in zip(values, allowed, strict=True):
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise DataError(f"{source}: expected one of {', '.join(map(str, choices))}, got {value!r}")
    return values


def _divisible(channels: float) -> int:
    """The nearest multiple of 8 that is not below nine tenths of `channels` (Sandler et al. 2018)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _convolution(b: OnnxBuilder, x: Value, channels: int, kernel: int, stride: int) -> Value:
    return b.relu(b.batch_norm(b.conv(x, channels, kernel=kernel, stride=stride)))


def _halve(b: OnnxBuilder, x: Value) -> Value:
    return b.avg_pool(x, kernel=2, stride=2, ceil_mode=True)


def _block(b: OnnxBuilder, x: Value, width: int, share: float, first: bool, stride: int) -> Value:
    inner = _divisible(round(width * share))
    y = _convolution(b, _convolution(b, x, inner, 1, 1), inner, 3, stride)
    y = b.batch_norm(b.conv(y, width, kernel=1))
    if first:
        x = b.batch_norm(b.conv(_halve(b, x) if stride == 2 else x, width, kernel=1))
    return b.relu(b.add(y, x))
