"""Trees flattened into arrays, and their evaluation in numpy: what fitted forests and boosted trees are kept as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]

CELLS = 1 << 16
"""Pairs of a row and a tree that are walked at once; a matter of speed and memory only."""


@dataclass(frozen=True)
class Forest:
    """The nodes of t trees, one tree after the other, each depth first: a node's left child is the node after it.

    A row goes left where its value in the node's column is at most the threshold; both are compared as numbers of the
    thresholds' type.

    Attributes:
        roots: (t,) int32, first node of each tree.
        right: (n,) int32, right child of each node; -1: the node is a leaf.
        column: (n,) int16, or int32 in wide tables; 0 or less in leaves, where it is not used.
        threshold: (n,) float32 or float64; not used in leaves.
        value: (n,) float32 or float64, output of each leaf; not used in other nodes.
    """

    roots: Integers
    right: Integers
    column: Integers
    threshold: NDArray[np.floating[Any]]
    value: NDArray[np.floating[Any]]

    def __call__(self, table: Floats) -> Floats:
        """Sum over the trees, (n,), of the leaf that each row of a table (n, d) of finite numbers falls into.

        All trees are walked at once, level by level. The sum has the order of the trees: what a row gets does not
        depend on the rows beside it.
        """
        values = table.astype(self.threshold.dtype, copy=False)
        total, trees = np.zeros(len(values)), len(self.roots)
        if not trees:
            return total
        for start in range(0, len(values), step := max(1, CELLS // trees)):
            block = values[start : start + step]
            leaves = self._leaves(block).reshape(len(block), trees)
            outputs = self.value.take(leaves)
            total[start : start + step] = np.cumsum(outputs, axis=1, dtype=np.float64)[:, -1]
        return total

    def _leaves(self, block: NDArray[np.floating[Any]]) -> Integers:
        """The leaf, (n · t,), of every row of a block (n, d) in every tree."""
        rows, width = block.shape
        cells = block.ravel()
        node: Integers = np.tile(self.roots, rows)
        # Of the pairs that are not in a leaf yet: their place, the node they are at, its right child, the row's start.
        place: Integers = np.arange(len(node))
        at, right, first = node, self.right.take(node), place // len(self.roots) * width
        while True:
            inner = np.flatnonzero(right >= 0)
            if len(inner) < len(at):
                node[place] = at
                place, at, right, first = place.take(inner), at.take(inner), right.take(inner), first.take(inner)
            if not len(at):
                return node
            low = cells.take(first + self.column.take(at)) <= self.threshold.take(at)
            at = np.where(low, at + 1, right)
            right = self.right.take(at)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], width: int) -> Self:
        """The forest that wrote `arrays`.

        Args:
            arrays: The arrays, by name.
            width: Columns of the tables it is for.

        Raises:
            KeyError: An array is missing.
            ValueError: They are no trees for such tables: walking them would not end, or end outside.
        """
        forest = cls(*(np.asarray(arrays[part.name]) for part in fields(cls)))
        nodes = len(forest.right)
        inner = np.flatnonzero(forest.right >= 0)
        right, column = forest.right[inner], forest.column[inner]
        if (
            any(len(part) != nodes for part in (forest.column, forest.threshold, forest.value))
            or (right <= inner + 1).any()
            or (right >= nodes).any()
            or ((column < 0) | (column >= width)).any()
            or ((forest.roots < 0) | (forest.roots >= nodes)).any()
        ):
            raise ValueError(f"the arrays are no trees of {width} columns")
        return forest


def column_type(width: int) -> type[np.int16] | type[np.int32]:
    """The type for the columns of a forest on tables of `width` columns."""
    return np.int16 if width <= np.iinfo(np.int16).max + 1 else np.int32
