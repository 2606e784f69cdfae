"""Decoder transformers of scaling studies: width, depth and heads, trained from scratch with token budgets.

`openlm`: 130 networks of S. Y. Gadre et al., "Language models scale reliably with over-training and on downstream
tasks", 2024 (hyper-parameter grid), each trained on 20 tokens per parameter with one to four lengths of warm-up. A spec
is the source's own, `d=1024_l=12_h=16`. Blocks as in the official code (open_lm): layer norm with a gain only before
attention and before a SwiGLU of hidden size 256 * ceil(floor(8 d / 3) / 256), rotary positions, no biases, separate
embedding and output. The paper also normalises queries and keys; the published parameters leave no room for the gains
of that, so it is not written here.

`gemstones`: 22 networks of S. McLeish et al., "Gemstones: A Model Suite for Multi-Faceted Scaling Laws", 2025, at 350 B
tokens and constant learning rate. A spec is width x depth, `1024x28`. Gemma-like blocks: RMS norms, gated GELU of
hidden size 4 d, heads of 128, half as many heads for keys and values. Head counts and the vocabulary of 50,304 are
solved from the published parameters, which ours equal on all 22; the order inside a block was not verified.

Labels are MINUS the validation loss (nats per token): larger is better, but they are no percent (`UNIT`). For `openlm`
it is the best over warm-ups, since short ones sometimes diverge. Tokens grow with size there, so size explains nearly
everything; compare shapes of one size.

A network is written for its training context of 2,048 tokens. Its inputs are the tokens, the causal mask that is added
to attention scores, and the cosines and sines of the rotary positions, which are no parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .array_builder import ArrayBuilder
from .onnx_builder import Value
from .raw_files import (
    check_space,
    check_spec,
    check_task,
    field,
    number,
    parse_json,
    raw_path,
    read_json_object,
    read_text,
)
from .space import Space, check_count

UNIT = "minus nats per token"
CONTEXT = 2048

_TASKS = {"openlm": ("openlm",), "gemstones": ("fineweb_edu",)}
_SIZES = {"openlm": 2_530, "gemstones": 1_014}
_GRID = "grid.json"
_LOSSES = "fineweb_edu_losses_combined.jsonl"
_LAST_TOKENS = 350_119_526_400
_OPENLM_SPEC = re.compile(r"d=([1-9][0-9]{0,4})_l=([1-9][0-9]{0,2})_h=([1-9][0-9]{0,2})")
_GEMSTONES_SPEC = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,2})")
_HEAD = 128


class Decoder(NamedTuple):
    """A decoder transformer.

    Attributes:
        width: Size of a token's state.
        depth: Blocks.
        heads: Heads of queries.
        shared: Heads of keys and values.
        head: Size of a head.
        hidden: Hidden size of the gated layers.
        vocabulary: Rows of the embedding and of the output.
        gemma: RMS norms and gated GELU, else layer norms with gain only and SwiGLU.
    """

    width: int
    depth: int
    heads: int
    shared: int
    head: int
    hidden: int
    vocabulary: int
    gemma: bool


def parse(spec: str) -> Decoder:
    """The network of a spec.

    Raises:
        DataError: It is no spec of either space.
    """
    if match := _OPENLM_SPEC.fullmatch(spec):
        width, depth, heads = map(int, match.groups())
        hidden = 256 * -(-(8 * width // 3) // 256)
        if width // heads % 2 == 0 and width // heads > 0:
            return Decoder(width, depth, heads, heads, width // heads, hidden, 50_432, gemma=False)
    if (match := _GEMSTONES_SPEC.fullmatch(spec)) and (int(match[1]) % (2 * _HEAD) == 0 or match[1] == "384"):
        width, heads = int(match[1]), int(match[1]) // _HEAD
        return Decoder(width, int(match[2]), heads, heads // 2, _HEAD, 4 * width, 50_304, gemma=True)
    raise DataError(
        f"language model {spec!r}: expected d=1024_l=12_h=16 with heads of an even size, or width x depth like 1024x28 "
        f"with the width 384 or a multiple of {2 * _HEAD}"
    )


def build(spec: str, task: str, space: str) -> ModelProto:
    """The network of a spec for 2,048 tokens; the output is (2048, vocabulary).

    Raises:
        DataError: The spec, the task or the space does not exist.
    """
    _check(task, space)
    net = _parse_in(spec, space)
    b = _DecoderBuilder(spec, net)
    x, _ = b.embedding(b.input, net.vocabulary, net.width)
    for _ in range(net.depth):
        x = b.add(x, b.attention(b.norm(x)))
        x = b.add(x, b.gated(b.norm(x)))
    return b.build(b.linear(b.norm(x), net.vocabulary, bias=False))


def read_labels(paths: Mapping[str, Path], task: str, space: str) -> tuple[list[str], NDArray[np.float64]]:
    """Specs and minus validation losses (nats per token), sorted by spec; see `UNIT`.

    Raises:
        DataError: The file is missing or damaged, or the task or space does not exist.
    """
    _check(task, space)
    losses = _openlm_losses(paths) if space == "openlm" else {s: loss for s, (loss, _) in _gemstones(paths).items()}
    return sorted(losses), np.array([-losses[spec] for spec in sorted(losses)])


def published_costs(paths: Mapping[str, Path]) -> tuple[NDArray[np.float64], None]:
    """Parameters of the 22 networks of `gemstones` as published, in the order of `read_labels`."""
    rows = _gemstones(paths)
    return np.array([float(rows[spec][1]) for spec in sorted(rows)]), None


def sample(n: int, seed: int, space: str) -> list[str]:
    """Draw `n` different specs uniformly from a grid around the published networks; the same for the same seed.

    Raises:
        DataError: n is negative or above the size of the grid, or the space does not exist.
    """
    check_space(space, _TASKS, "lm_scaling")
    check_count(n, _SIZES[space], f"lm_scaling/{space}")
    if space == "openlm":
        choices = product(range(96, 1025, 32), range(2, 25), (4, 8, 12, 16))
        specs = [f"d={d}_l={layers}_h={h}" for d, layers, h in choices if d // h % 2 == 0]
    else:
        specs = [f"{width}x{depth}" for width, depth in product((384, *range(256, 3073, 256)), range(3, 81))]
    return [specs[i] for i in np.random.default_rng(seed).choice(len(specs), n, replace=False)]


class _DecoderBuilder(ArrayBuilder):
    """Writes the blocks of one decoder; x is always (2048, width)."""

    def __init__(self, name: str, net: Decoder) -> None:
        super().__init__(name, (CONTEXT,), input_name="tokens", integer=True)
        self._net = net
        self._mask = self.add_input("mask", (CONTEXT, CONTEXT))
        self._cos = self.add_input("cos", (CONTEXT, net.head))
        self._sin = self.add_input("sin", (CONTEXT, net.head))

    def norm(self, x: Value) -> Value:
        """The network's normalisation."""
        return self.rms_norm(x) if self._net.gemma else self.layer_norm_without_shift(x)

    def attention(self, x: Value) -> Value:
        """Causal attention with rotary positions (Su et al. 2021); groups of heads share keys and values."""
        net = self._net
        queries = self._rotated(self._heads(x, net.heads))
        keys = self._repeated(self._rotated(self._heads(x, net.shared)))
        values = self._repeated(self._heads(x, net.shared))
        scores = self.scale(self.matmul(queries, self.transpose(keys, (0, 2, 1))), net.head**-0.5)
        y = self.matmul(self.softmax(self.binary("Add", scores, self._mask)), values)
        return self.linear(
            self.reshape(self.transpose(y, (1, 0, 2)), (CONTEXT, net.heads * net.head)), net.width, bias=False
        )

    def gated(self, x: Value) -> Value:
        """A gated linear layer (Shazeer 2020) and the way back."""
        gate = self.activation(self.linear(x, self._net.hidden, bias=False), "Gelu" if self._net.gemma else "Silu")
        return self.linear(self.mul(gate, self.linear(x, self._net.hidden, bias=False)), self._net.width, bias=False)

    def _heads(self, x: Value, heads: int) -> Value:
        y = self.linear(x, heads * self._net.head, bias=False)
        return self.transpose(self.reshape(y, (CONTEXT, heads, self._net.head)), (1, 0, 2))

    def _rotated(self, x: Value) -> Value:
        half = self._net.head // 2
        turned = self.concat([self.unary("Neg", self.part(x, 2, half, 2 * half)), self.part(x, 2, 0, half)], axis=2)
        return self.add(self.binary("Mul", x, self._cos), self.binary("Mul", turned, self._sin))

    def _repeated(self, x: Value) -> Value:
        net = self._net
        if net.heads == net.shared:
            return x
        single = self.reshape(x, (net.shared, 1, CONTEXT, net.head))
        return self.reshape(self.concat([single] * (net.heads // net.shared), axis=1), (net.heads, CONTEXT, net.head))


def _check(task: str, space: str) -> None:
    check_space(space, _TASKS, "lm_scaling")
    check_task(task, _TASKS[space], f"lm_scaling/{space}")


def _parse_in(spec: str, space: str) -> Decoder:
    net = parse(spec)
    if net.gemma != (space == "gemstones"):
        raise DataError(f"language model {spec!r}: expected a network of lm_scaling/{space}")
    return net


def _openlm_losses(paths: Mapping[str, Path]) -> dict[str, float]:
    path = raw_path(paths, _GRID)
    losses: dict[str, float] = {}
    for key, value in read_json_object(paths, _GRID).items():
        source = f"{path}, {key}"
        spec = check_spec(key.partition("-")[0], partial(_parse_in, space="openlm"), source)
        losses[spec] = min(number(value, source), losses.get(spec, float("inf")))
    return losses


def _gemstones(paths: Mapping[str, Path]) -> dict[str, tuple[float, int]]:
    """Spec → loss at the last point of training and parameters."""
    path = raw_path(paths, _LOSSES)
    rows: dict[str, tuple[float, int]] = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        source = f"{path}, line {line}"
        row = parse_json(text, source)
        if number(field(row, "tokens", source), source) != _LAST_TOKENS:
            continue
        spec = f"{field(row, 'width', source)}x{field(row, 'depth', source)}"
        check_spec(spec, partial(_parse_in, space="gemstones"), source)
        if spec in rows:
            raise DataError(f"{source}: the network {spec} occurs twice at {_LAST_TOKENS:,} tokens")
        params = number(field(row, "params_active_precise", source), source)
        rows[spec] = (number(field(row, "final_loss", source), source), int(params))
    if not rows:
        raise DataError(f"{path}: no loss at {_LAST_TOKENS:,} tokens")
    return rows


SPACES = {
    space: Space(
        tasks,
        _SIZES[space],
        partial(build, space=space),
        partial(read_labels, space=space),
        partial(sample, space=space),
    )
    for space, tasks in _TASKS.items()
}
"""The two studies: openlm and gemstones."""
