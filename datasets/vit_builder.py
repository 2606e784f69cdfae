"""Parts of vision transformers for the builder: tokens, attention with relative positions, the feed-forward block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from ..encoders.errors import GraphError
from .onnx_builder import OnnxBuilder, Value


class RelativePositions(NamedTuple):
    """The index of the relative position of every pair of tokens, shared by all layers of a network.

    Attributes:
        rows: Name of the indices into the tables of rows.
        columns: Name of the indices into the tables of columns.
        tokens: N; the indices have the shape (N, N).
        entries: Rows of a table.
    """

    rows: str
    columns: str
    tokens: int
    entries: int


class VitBuilder(OnnxBuilder):
    """An `OnnxBuilder` that knows tokens: values of shape (N, C)."""

    def tokens(self, x: Value) -> Value:
        """The pixels of x (C, H, W) as tokens (H * W, C)."""
        channels, height, width = x.shape
        return self.transpose(self.reshape(x, (channels, height * width)), (1, 0))

    def image(self, x: Value, height: int, width: int) -> Value:
        """Tokens (H * W, C) as an image (C, H, W)."""
        return self.reshape(self.transpose(x, (1, 0)), (x.shape[1], height, width))

    def learned_token(self, like: Value) -> Value:
        """A learned token (1, C), for example the class token.

        It is written as zeros of the batch size plus the learned vector: the first of the tokens `like` times zero.
        """
        return self.add_parameter(self.zero(self.slice(like, (0,), (0,), (1,))), (1, like.shape[1]))

    def mean_token(self, x: Value) -> Value:
        """The mean (C,) of the tokens x (N, C)."""
        return self._emit("ReduceMean", [x.name, self._integers((1,))], x.shape[1:], {"keepdims": 0})

    def attention(
        self, x: Value, heads: int, head_width: int, relative: RelativePositions | None = None, bias: bool = True
    ) -> Value:
        """Multi-head self-attention (Vaswani et al. 2017, sec. 3.2) of tokens x (N, C), without norm and shortcut.

        Args:
            x: Tokens.
            heads: Heads.
            head_width: Channels of one head.
            relative: Adds learned relative positions to the keys and to the values (Shaw et al. 2018, sec. 3.2), with
                one table for rows and one for columns each (Wu et al. 2021).
            bias: Whether queries, keys and values have a bias.
        """
        count, width = x.shape[0], heads * head_width
        qkv = self.reshape(self.linear(x, 3 * width, bias=bias), (count, 3, heads, head_width))
        query, key, value = (
            self.transpose(self.reshape(self.slice(qkv, (1,), (at,), (at + 1,)), (count, heads, head_width)), (1, 0, 2))
            for at in range(3)
        )
        factor = head_width**-0.5
        scores = self.scale(self.matmul(query, self.transpose(key, (0, 2, 1))), factor)
        if relative is not None:
            by_query = self.transpose(query, (1, 0, 2))
            table = self._pairs(relative, head_width, transposed=True)
            further = self._matmul_shared(by_query, table, relative.tokens)
            scores = self.add(scores, self.scale(self.transpose(further, (1, 0, 2)), factor))
        weights = self.softmax(scores)
        mixed = self.transpose(self.matmul(weights, value), (1, 0, 2))
        if relative is not None:
            table = self._pairs(relative, head_width, transposed=False)
            mixed = self.add(mixed, self._matmul_shared(self.transpose(weights, (1, 0, 2)), table, head_width))
        return self.linear(self.reshape(mixed, (count, width)), x.shape[1])

    def transformer_layer(
        self, x: Value, heads: int, head_width: int, hidden: int, relative: RelativePositions | None = None
    ) -> Value:
        """A pre-norm layer (Dosovitskiy et al. 2021, sec. 3.1): attention and a GELU network of `hidden` channels."""
        x = self.add(x, self.attention(self.layer_norm(x), heads, head_width, relative))
        y = self.linear(self.activation(self.linear(self.layer_norm(x), hidden), "Gelu"), x.shape[1])
        return self.add(x, y)

    def relative_positions(self, side: int, farthest: int) -> RelativePositions:
        """Indices for a class token and side * side patches in rows; distances are cut at `farthest`.

        Index 0 is a pair with the class token, d + farthest + 1 is the distance d.

        Raises:
            GraphError: `farthest` is above 127, so the indices do not fit into a byte.
        """
        entries = 2 * farthest + 2
        if entries > 256:
            raise GraphError(f"relative positions up to {farthest}: expected at most 127")
        row, column = np.divmod(np.arange(side * side), side)
        names = []
        for axis, place in (("rows", row), ("columns", column)):
            index = np.zeros((len(place) + 1,) * 2, dtype=np.uint8)
            index[1:, 1:] = (place[None] - place[:, None]).clip(-farthest, farthest) + farthest + 1
            names.append(self._indices(f"relative_{axis}", index))
        return RelativePositions(names[0], names[1], side * side + 1, entries)

    def _indices(self, name: str, index: np.ndarray) -> str:
        """A constant of indices below 256: stored as bytes, cast to what Gather takes."""
        self._graph.initializer.add(
            name=f"{name}.bytes", dims=index.shape, data_type=TensorProto.UINT8, raw_data=index.tobytes()
        )
        node = self._graph.node.add(op_type="Cast", name=name, input=[f"{name}.bytes"], output=[name])
        node.attribute.append(self._attribute(("to", int(TensorProto.INT64))))
        self._describe(name, index.shape, TensorProto.INT64)
        return name

    def _pairs(self, relative: RelativePositions, width: int, transposed: bool) -> str:
        """The learned vectors of all pairs of tokens, (N, N, width) or (N, width, N): the same for all samples."""
        n = relative.tokens
        name = f"Positions_{len(self._graph.node)}"
        parts = []
        for index in (relative.rows, relative.columns):
            table = self._weight(f"{name}.{index}.table", (relative.entries, width))
            parts.append(self._shared("Gather", f"{name}.{index}", [table, index], (n, n, width)))
        total = self._shared("Add", f"{name}.sum", parts, (n, n, width))
        if not transposed:
            return total
        node_name = self._shared("Transpose", f"{name}.turned", [total], (n, width, n))
        self._graph.node[-1].attribute.append(self._attribute(("perm", (0, 2, 1))))
        return node_name

    def _shared(self, op: str, name: str, inputs: list[str], shape: tuple[int, ...]) -> str:
        """A node whose result has no batch axis."""
        self._graph.node.add(op_type=op, name=name, input=inputs, output=[name])
        self._describe(name, shape, TensorProto.FLOAT)
        return name

    def _describe(self, name: str, shape: tuple[int, ...], kind: int) -> None:
        described = self._graph.value_info.add(name=name).type.tensor_type
        described.elem_type = kind
        for size in shape:
            described.shape.dim.add(dim_value=size)

    def _matmul_shared(self, x: Value, table: str, columns: int) -> Value:
        """The product of x (N, m, k) and a value (N, k, columns) without batch axis."""
        return self._emit("MatMul", [x.name, table], (*x.shape[:-1], columns))
