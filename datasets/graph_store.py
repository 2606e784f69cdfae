"""`GraphStore`: many graphs in a few numpy columns instead of millions of Python objects.

A node is written as an operator signature (name, shape, attributes, weights, params) and a wiring (how many places
back its operands stand). Both, and their pairs, repeat endlessly inside a search space, so each distinct pair is kept
once as a *row* and a graph is a run of row numbers, two to four bytes a node. Graphs are rebuilt when asked for.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from ..encoders.errors import DataError
from ..encoders.files import replacing
from ..encoders.graph import GRAPH_VERSION, ArchGraph, Node

STORE_VERSION = 1
"""Raised whenever the layout of the files changes."""

Array = npt.NDArray[Any]
Wiring = tuple[int, ...]

_FORMAT = "archgauge.graph_store"
_DTYPES = {"U8": "<u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8"}
_KEPT_NODES = 100_000


@dataclass(frozen=True, eq=False)
class _Columns:
    """The arrays of a store, as they stand in its file; all but `hashes` are one-dimensional.

    `*_starts` hold one number more than there are things: thing i reaches from starts[i] to starts[i + 1].
    """

    signatures: Array  # uint8: JSON texts, one a line
    row_signature: Array  # int32 per row: line in `signatures`
    row_wiring: Array  # int32 per row
    wiring_starts: Array  # int64
    wiring_values: Array  # int32: [steps back to the tied node, or the negative `tied`; steps back to every operand]
    codes: Array  # uint16 or uint32 per node: row
    starts: Array  # int64
    output_pattern: Array  # int32 per graph
    pattern_starts: Array  # int64
    pattern_values: Array  # int32: steps from the end of the nodes back to every output
    hashes: Array  # uint8 (n, 32): SHA-256 of every graph


_NAMES = tuple(part.name for part in fields(_Columns))


@dataclass(eq=False)
class _Rows:
    """Rows of a store as Python values, decoded as they are needed, and nodes that graphs of the store share."""

    columns: _Columns
    nodes: dict[int, Node] = field(default_factory=dict)

    @cached_property
    def texts(self) -> list[bytes]:
        return _lines(self.columns)

    @cached_property
    def wirings(self) -> list[Wiring]:
        return _ragged(self.columns.wiring_starts, self.columns.wiring_values)

    @cached_property
    def patterns(self) -> list[Wiring]:
        return _ragged(self.columns.pattern_starts, self.columns.pattern_values)

    @cached_property
    def _row_parts(self) -> tuple[list[int], list[int]]:
        return self.columns.row_signature.tolist(), self.columns.row_wiring.tolist()

    @cached_property
    def _decoded(self) -> dict[int, tuple[Any, ...]]:
        return {}

    def node(self, position: int, code: int) -> Node:
        signatures, wirings = self._row_parts
        signature = signatures[code]
        parts = self._decoded.get(signature)
        if parts is None:
            parts = self._decoded[signature] = _tuples(json.loads(self.texts[signature]))
        op, shape, attributes, weights, params = parts
        tied, *steps = self.wirings[wirings[code]]
        inputs = tuple([position - step for step in steps])
        return Node(op, inputs, shape, attributes, weights, position - tied if tied > 0 else tied, params)

    def graph(self, codes: list[int], pattern: int) -> ArchGraph:
        count, known = len(self.columns.row_signature), self.nodes
        nodes = []
        for position, code in enumerate(codes):
            key = position * count + code
            node = known.get(key)
            if node is None:
                node = self.node(position, code)
                if len(known) >= _KEPT_NODES:
                    known.clear()
                known[key] = node
            nodes.append(node)
        return ArchGraph(tuple(nodes), tuple([len(codes) - step for step in self.patterns[pattern]]))


class GraphStore(Sequence[ArchGraph]):
    """Many graphs, held compactly and rebuilt when asked for.

    It is a sequence of `ArchGraph`: `store[3]` rebuilds one graph (hash and parameters exactly as they were),
    `store[10:20]` and `select` give views that share the columns. Make one with `from_graphs`, `load` or
    `load_compressed`.
    """

    def __init__(
        self, columns: _Columns, index: npt.NDArray[np.int64] | None = None, rows: _Rows | None = None
    ) -> None:
        self._columns, self._index = columns, index
        self._rows = rows if rows is not None else _Rows(columns)

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self._columns, "_index": self._index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._columns, self._index = state["_columns"], state["_index"]
        self._rows = _Rows(self._columns)

    def __len__(self) -> int:
        return len(self._columns.output_pattern) if self._index is None else len(self._index)

    @overload
    def __getitem__(self, position: int) -> ArchGraph: ...
    @overload
    def __getitem__(self, position: slice) -> GraphStore: ...
    def __getitem__(self, position: int | slice) -> ArchGraph | GraphStore:
        if isinstance(position, slice):
            return self.select(range(*position.indices(len(self))))
        at = range(len(self))[position]
        at = at if self._index is None else int(self._index[at])
        columns = self._columns
        try:
            start, stop = int(columns.starts[at]), int(columns.starts[at + 1])
            graph = self._rows.graph(columns.codes[start:stop].tolist(), int(columns.output_pattern[at]))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"graph {at} of the store is damaged ({error}): delete the file and build it again"
            ) from error
        graph.__dict__["hash"] = columns.hashes[at].tobytes().hex()
        return graph

    def __iter__(self) -> Iterator[ArchGraph]:
        for position in range(len(self)):
            yield self[position]

    def __repr__(self) -> str:
        return f"GraphStore({len(self):,} graphs, {int(self.sizes.sum()):,} nodes, {self.nbytes / 1e6:.1f} MB)"

    @property
    def hashes(self) -> tuple[str, ...]:
        """The graphs' SHA-256 hashes, 64 hexadecimal digits each; no graph is rebuilt."""
        raw = self._columns.hashes if self._index is None else self._columns.hashes[self._index]
        text = raw.tobytes().hex()
        return tuple(text[at : at + 64] for at in range(0, len(text), 64))

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of nodes of every graph, shape (n,); no graph is rebuilt."""
        sizes = np.diff(self._columns.starts)
        return sizes if self._index is None else sizes[self._index]

    @property
    def params(self) -> npt.NDArray[np.int64]:
        """Parameters of every graph (a count, as `ArchGraph.params`), shape (n,); no graph is rebuilt."""
        columns = self._compacted()
        texts = _lines(columns)
        by_signature = np.array([json.loads(text)[-1] for text in texts], dtype=np.int64)
        if not len(columns.codes):
            return np.zeros(len(self), dtype=np.int64)
        total = np.concatenate(([0], np.cumsum(by_signature[columns.row_signature][columns.codes])))
        return np.asarray(total[columns.starts[1:]] - total[columns.starts[:-1]], dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, those that lie in a mapped file included."""
        return sum(getattr(self._columns, name).nbytes for name in _NAMES)

    @classmethod
    def from_graphs(cls, graphs: Iterable[ArchGraph]) -> GraphStore:
        """Stores `graphs`, in their order.

        Raises:
            DataError: An attribute of a node is of a type that a graph may not hold.
        """
        if isinstance(graphs, GraphStore):
            return cls(graphs._compacted())
        tables = _Tables()
        codes: list[Array] = []
        patterns: list[int] = []
        hashes: list[bytes] = []
        for graph in graphs:
            codes.append(np.array([tables.code(at, node) for at, node in enumerate(graph.nodes)], dtype=np.uint32))
            patterns.append(tables.pattern(tuple(len(graph.nodes) - output for output in graph.outputs)))
            hashes.append(bytes.fromhex(graph.hash))
        return cls(tables.columns(codes, patterns, b"".join(hashes)))

    @classmethod
    def concat(cls, stores: Iterable[GraphStore]) -> GraphStore:
        """All graphs of `stores`, one after the other, in one store."""
        tables = _Tables()
        codes: list[Array] = []
        patterns: list[int] = []
        lengths: list[Array] = []
        hashes: list[bytes] = []
        for store in stores:
            columns = store._compacted()
            known = _Rows(columns)
            texts, wirings = known.texts, known.wirings
            to_code = np.array(
                [
                    tables.row(texts[signature], wirings[wiring])
                    for signature, wiring in zip(
                        columns.row_signature.tolist(), columns.row_wiring.tolist(), strict=True
                    )
                ],
                dtype=np.uint32,
            )
            to_pattern = [tables.pattern(pattern) for pattern in known.patterns]
            codes.append(to_code[columns.codes])
            lengths.append(np.diff(columns.starts))
            patterns.extend(to_pattern[pattern] for pattern in columns.output_pattern.tolist())
            hashes.append(columns.hashes.tobytes())
        return cls(tables.columns(codes, patterns, b"".join(hashes), lengths))

    def select(self, indices: Iterable[int] | Array) -> GraphStore:
        """The graphs at `indices`, in that order, as a view: nothing is copied.

        Raises:
            IndexError: An index is out of range.
        """
        chosen = as_indices(indices, len(self))
        return GraphStore(self._columns, chosen if self._index is None else self._index[chosen], self._rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the store to one file in safetensors layout, which `load` maps without reading it.

        The same graphs in the same order give the same bytes, however the store came about.
        """
        with replacing(Path(path)) as file:
            _write(file, self._compacted())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GraphStore:
        """Opens what `save` wrote; the file is mapped, so this takes milliseconds at any size.

        Raises:
            DataError: The file is missing, damaged, or of another version.
        """
        path = Path(path)
        try:
            content = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable graph store ({error})") from error
        return cls(_read(content, str(path)))

    def save_compressed(self, path: str | os.PathLike[str]) -> None:
        """Writes the store as small as it gets (LZMA), for sets that are shipped; `load_compressed` reads it.

        The same graphs in the same order give the same bytes.
        """
        plain = BytesIO()
        _write(plain, self._compacted())
        content = plain.getvalue()
        window = min(max(1 << (len(content) - 1).bit_length(), 1 << 12), 1 << 26)
        method = {
            "id": lzma.FILTER_LZMA2,
            "preset": 9 | lzma.PRESET_EXTREME,
            "dict_size": window,
            "lc": 1,
            "lp": 1,
            "pb": 1,
        }
        with replacing(Path(path)) as file:
            file.write(lzma.compress(content, format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=[method]))

    @classmethod
    def load_compressed(cls, path: str | os.PathLike[str]) -> GraphStore:
        """Reads what `save_compressed` wrote.

        Raises:
            DataError: The file is missing, damaged, or of another version.
        """
        path = Path(path)
        try:
            content = lzma.decompress(path.read_bytes(), format=lzma.FORMAT_XZ)
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise DataError(f"{path}: not a readable compressed graph store ({error})") from error
        return cls(_read(np.frombuffer(content, dtype=np.uint8), str(path)))

    def _compacted(self) -> _Columns:
        """The columns of just these graphs, everything numbered by first occurrence."""
        if self._index is None:
            return self._columns
        columns, index = self._columns, self._index
        lengths = np.diff(columns.starts)[index]
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        places = np.arange(starts[-1]) + np.repeat(columns.starts[index] - starts[:-1], lengths)
        used, codes = _renumber(columns.codes[places], len(columns.row_signature))
        used_signatures, row_signature = _renumber(columns.row_signature[used], len(self._rows.texts))
        used_wirings, row_wiring = _renumber(columns.row_wiring[used], len(self._rows.wirings))
        used_patterns, output_pattern = _renumber(columns.output_pattern[index], len(self._rows.patterns))
        wirings = [self._rows.wirings[at] for at in used_wirings.tolist()]
        patterns = [self._rows.patterns[at] for at in used_patterns.tolist()]
        texts = [self._rows.texts[at] for at in used_signatures.tolist()]
        return _columns(
            texts, row_signature, row_wiring, wirings, codes, starts, output_pattern, patterns, columns.hashes[index]
        )


class _Tables:
    """Distinct signatures, wirings, rows and output patterns, numbered as they come."""

    def __init__(self) -> None:
        self.signatures: dict[bytes, int] = {}
        self.wirings: dict[Wiring, int] = {}
        self.rows: dict[tuple[int, int], int] = {}
        self.patterns: dict[Wiring, int] = {}
        self._codes: dict[tuple[Any, ...], int] = {}

    def code(self, position: int, node: Node) -> int:
        op, inputs, shape, attributes, weights, tied, params = node
        wiring = (position - tied if tied >= 0 else tied, *[position - operand for operand in inputs])
        # Attributes go by their text: as values 1, 1.0 and True would be one key, and NaN none.
        key = (op, shape, repr(attributes) if attributes else "", weights, params, wiring)
        code = self._codes.get(key)
        if code is None:
            try:
                text = json.dumps([op, shape, attributes, weights, params], separators=(",", ":")).encode()
            except TypeError as error:
                raise DataError(
                    f"node {position} ({op}) holds a value that is no int, float, str or tuple of them: {error}"
                ) from error
            code = self._codes[key] = self.row(text, wiring)
        return code

    def row(self, signature: bytes, wiring: Wiring) -> int:
        pair = (
            self.signatures.setdefault(signature, len(self.signatures)),
            self.wirings.setdefault(wiring, len(self.wirings)),
        )
        return self.rows.setdefault(pair, len(self.rows))

    def pattern(self, pattern: Wiring) -> int:
        return self.patterns.setdefault(pattern, len(self.patterns))

    def columns(
        self, codes: list[Array], patterns: list[int], hashes: bytes, lengths: list[Array] | None = None
    ) -> _Columns:
        sizes = np.concatenate(lengths) if lengths else np.array([len(part) for part in codes], dtype=np.int64)
        pairs = np.array(list(self.rows), dtype=np.int32).reshape(-1, 2)
        return _columns(
            list(self.signatures),
            pairs[:, 0],
            pairs[:, 1],
            list(self.wirings),
            np.concatenate(codes) if codes else np.zeros(0),
            np.concatenate(([0], np.cumsum(sizes))),
            np.array(patterns),
            list(self.patterns),
            np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 32),
        )


def _columns(
    texts: list[bytes],
    row_signature: Array,
    row_wiring: Array,
    wirings: list[Wiring],
    codes: Array,
    starts: Array,
    output_pattern: Array,
    patterns: list[Wiring],
    hashes: Array,
) -> _Columns:
    return _Columns(
        signatures=np.frombuffer(b"\n".join(texts), dtype=np.uint8),
        row_signature=np.ascontiguousarray(row_signature, dtype="<i4"),
        row_wiring=np.ascontiguousarray(row_wiring, dtype="<i4"),
        wiring_starts=_starts(wirings),
        wiring_values=np.array([value for wiring in wirings for value in wiring], dtype="<i4"),
        codes=np.ascontiguousarray(codes, dtype="<u2" if len(row_signature) <= 1 << 16 else "<u4"),
        starts=np.ascontiguousarray(starts, dtype="<i8"),
        output_pattern=np.ascontiguousarray(output_pattern, dtype="<i4"),
        pattern_starts=_starts(patterns),
        pattern_values=np.array([value for pattern in patterns for value in pattern], dtype="<i4"),
        hashes=np.ascontiguousarray(hashes),
    )


def _starts(parts: list[Wiring]) -> Array:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype("<i8")


def _ragged(starts: Array, values: Array) -> list[Wiring]:
    bounds, flat = starts.tolist(), values.tolist()
    return [tuple(flat[start:stop]) for start, stop in pairwise(bounds)]


def _lines(columns: _Columns) -> list[bytes]:
    return columns.signatures.tobytes().split(b"\n") if len(columns.signatures) else []


def _renumber(values: Array, count: int) -> tuple[Array, Array]:
    """Distinct values in order of first occurrence, and `values` renumbered that way; values are below `count`."""
    first = np.full(count, len(values), dtype=np.int64)
    first[values[::-1]] = np.arange(len(values) - 1, -1, -1)
    used = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(values))]
    number = np.zeros(count, dtype=np.int64)
    number[used] = np.arange(len(used))
    return used, number[values]


def as_indices(indices: Iterable[int] | Array, length: int) -> npt.NDArray[np.int64]:
    """Positions 0 to `length` - 1 from positions (negative ones count from the end) or a mask of `length` booleans.

    Raises:
        IndexError: A position is out of range.
        TypeError: They are no integers.
    """
    chosen = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices))
    if chosen.dtype == bool and chosen.shape == (length,):
        return np.flatnonzero(chosen)
    if chosen.size and not np.issubdtype(chosen.dtype, np.integer):
        raise TypeError(f"indices must be integers or a mask of {length} booleans, got {chosen.dtype} {chosen.shape}")
    chosen = chosen.astype(np.int64).reshape(-1)
    if chosen.size and not (-length <= chosen.min() and chosen.max() < length):
        raise IndexError(f"index {chosen[(chosen < -length) | (chosen >= length)][0]} of {length} graphs")
    return np.where(chosen < 0, chosen + length, chosen)


def _tuples(value: Any) -> Any:
    return tuple([_tuples(part) for part in value]) if isinstance(value, list) else value


def _write(file: IO[bytes], columns: _Columns) -> None:
    """The safetensors layout: length of the header (8 bytes), header (JSON), then every array."""
    names = {np.dtype(text): name for name, text in _DTYPES.items()}
    header: dict[str, Any] = {
        "__metadata__": {"format": _FORMAT, "version": str(STORE_VERSION), "graph_version": str(GRAPH_VERSION)}
    }
    at = 0
    order = sorted(_NAMES, key=lambda name: -getattr(columns, name).itemsize)
    for name in order:
        array = getattr(columns, name)
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in order:
        file.write(memoryview(getattr(columns, name)).cast("B") if getattr(columns, name).size else b"")


def _read(content: Array, name: str) -> _Columns:
    """The columns in `content` (uint8), as views of it."""
    try:
        length = int.from_bytes(content[:8].tobytes(), "little")
        if not 0 < length <= len(content) - 8:
            raise ValueError("it is too short")
        header = json.loads(content[8 : 8 + length].tobytes())
        about = header["__metadata__"]
        if about["format"] != _FORMAT:
            raise ValueError(f"it holds {about['format']!r}")
        found = (about["version"], about["graph_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: not a graph store ({error}); expected a file written by GraphStore.save") from error
    if found != (str(STORE_VERSION), str(GRAPH_VERSION)):
        raise DataError(
            f"{name}: written with store version {found[0]} and graph version {found[1]}, expected {STORE_VERSION} and "
            f"{GRAPH_VERSION}: build it again with this archgauge"
        )
    try:
        data = content[8 + length :]
        arrays = {}
        for part in _NAMES:
            entry = header[part]
            start, stop = entry["data_offsets"]
            if not 0 <= start <= stop <= len(data):
                raise ValueError(f"{part} reaches to byte {stop} of {len(data)}")
            arrays[part] = data[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        columns = _Columns(**arrays)
        count = len(columns.output_pattern)
        if columns.hashes.shape != (count, 32) or columns.starts.shape != (count + 1,):
            raise ValueError("its columns differ in length")
        if int(columns.starts[0]) != 0 or int(columns.starts[-1]) != len(columns.codes):
            raise ValueError("its columns do not fit together")
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: the graph store is damaged ({error}): delete it and build it again") from error
    return columns
