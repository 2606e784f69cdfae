"""CVPR 2022 NAS challenge, track 2: 500 vision transformers and their ranks on eight recognition tasks.

Training set of the performance-prediction track of the CVPR 2022 lightweight NAS challenge (Baidu); no paper describes
the space. The meaning of the code is the organisers' table as kept by a participant. The networks are sub-networks of a
jointly trained supernet, so weights are inherited, not trained alone.

A spec is the official code of 37 characters: depth (j, k, l: 10, 11, 12 blocks) and twelve triples, zeros behind the
last block: heads (1, 2, 3: 12, 11, 10), MLP ratio (1, 2, 3: 4, 3.5, 3), width (1: 768). Blocks are those of ViT-Base
(Dosovitskiy et al. 2021): patches of 16 pixels, class token, 64 channels a head. The output is the normalised class
token; input sizes differ by task and are not given, 224 pixels stand in.

Labels are MINUS the rank (0 is the best of 500): larger is better, but no accuracy (`UNIT`). The file does not state
the direction; it follows from larger networks having smaller ranks on seven of the tasks. `cplfw` is mostly noise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..encoders.errors import DataError
from .raw_files import check_spec, check_task, field, number, raw_path, read_json_object
from .space import check_count
from .vit_builder import VitBuilder

UNIT = "minus rank among 500"
TASKS = ("market1501", "dukemtmc", "msmt17", "veri", "vehicleid", "veriwild", "sop", "cplfw")
"""Person, vehicle and product retrieval, and face verification."""
SIZE = 1_000_000
"""Specs that `sample` gives at most."""

_FILE = "CVPR_2022_NAS_Track2_train.json"
_SPEC = re.compile("([jkl])((?:[123][123]1){10,12})((?:000){0,2})")
_DEPTHS = {"j": 10, "k": 11, "l": 12}
_HEADS = {"1": 12, "2": 11, "3": 10}
_HIDDEN = {"1": 3072, "2": 2688, "3": 2304}
_WIDTH, _HEAD_WIDTH, _PATCH, _IMAGE = 768, 64, 16, 224


class Block(NamedTuple):
    """A block: heads, and hidden channels of its MLP."""

    heads: int
    hidden: int


def parse(spec: str) -> tuple[Block, ...]:
    """The blocks of a code.

    Raises:
        DataError: It is not a network of this space.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or len(spec) != 37 or len(match[2]) != 3 * _DEPTHS[match[1]]:
        raise DataError(
            f"vision transformer {spec!r}: expected 37 characters: j, k or l for 10, 11 or 12 blocks, a triple of "
            "heads (1 to 3), MLP (1 to 3) and width (1) for each, and zeros"
        )
    triples = match[2]
    return tuple(Block(_HEADS[triples[i]], _HIDDEN[triples[i + 1]]) for i in range(0, len(triples), 3))


def spec_of(blocks: tuple[Block, ...]) -> str:
    """The code of 10 to 12 blocks."""
    letter = {depth: letter for letter, depth in _DEPTHS.items()}[len(blocks)]
    heads = {value: digit for digit, value in _HEADS.items()}
    hidden = {value: digit for digit, value in _HIDDEN.items()}
    triples = "".join(f"{heads[block.heads]}{hidden[block.hidden]}1" for block in blocks)
    return letter + triples.ljust(36, "0")


def build(spec: str, task: str) -> ModelProto:
    """The transformer of a code, input 3x224x224, output the class token (768).

    Raises:
        DataError: The spec or the task does not exist.
    """
    check_task(task, TASKS, "CVPR 2022 track 2")
    blocks = parse(spec)
    b = VitBuilder(spec, (3, _IMAGE, _IMAGE))
    patches = b.tokens(b.conv(b.input, _WIDTH, kernel=_PATCH, stride=_PATCH, padding=0, bias=True))
    x = b.concat([b.learned_token(patches), patches])
    x = b.add_parameter(x, x.shape)
    for block in blocks:
        x = b.transformer_layer(x, block.heads, _HEAD_WIDTH, block.hidden)
    return b.build(b.reshape(b.slice(b.layer_norm(x), (0,), (0,), (1,)), (_WIDTH,)))


def read_labels(paths: Mapping[str, Path], task: str) -> tuple[list[str], NDArray[np.float64]]:
    """Codes and minus ranks, in the order of the file; see `UNIT`.

    Raises:
        DataError: The file is missing or damaged, the ranks are not 0 to n - 1, or the task does not exist.
    """
    check_task(task, TASKS, "CVPR 2022 track 2")
    path = raw_path(paths, _FILE)
    ranks: dict[str, float] = {}
    for key, row in read_json_object(paths, _FILE).items():
        source = f"{path}, {key}"
        spec = check_spec(str(field(row, "arch", source)), parse, source)
        if spec in ranks:
            raise DataError(f"{source}: the network {spec} occurs twice")
        ranks[spec] = number(field(row, f"{task}_rank", source), source)
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise DataError(f"{path}: the ranks for {task} are not the numbers from 0 to {len(ranks) - 1}, each once")
    return list(ranks), -np.array(list(ranks.values()))


def sample(n: int, seed: int) -> list[str]:
    """Draw `n` different codes uniformly per choice; the same for the same seed.

    Raises:
        DataError: n is negative or above 1,000,000.
    """
    check_count(n, SIZE, "CVPR 2022 track 2")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        depth = int(rng.integers(10, 13))
        choices = rng.integers(3, size=(depth, 2)).tolist()
        heads, hidden = tuple(_HEADS.values()), tuple(_HIDDEN.values())
        found[spec_of(tuple(Block(heads[i], hidden[j]) for i, j in choices))] = None
    return list(found)
