"""Reads pickled tables of numbers without unpickling: nothing in the file is ever called or imported.

NAS-Bench-Graph publishes dicts {integer: {name: float}} as pickles whose floats are partly numpy scalars. This reader
walks the opcodes (listed by `pickletools`, which runs none of them) on a stack of its own and knows only integers,
floats, short strings, dicts and little-endian float64 scalars; any other opcode or name is an error.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Iterator
from typing import Any, Final

from ..encoders.errors import DataError

_SCALARS: Final = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_DTYPE: Final = "numpy dtype"
_MARK: Final = object()
_MAX_OPCODES: Final = 20_000_000
_SIMPLE = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINBYTES")
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class _Name:
    """A global of the file: a name, nothing behind it."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Float64:
    """The element type `numpy.dtype("<f8")`."""


def read_pickled_numbers(content: bytes, source: str) -> dict[int, dict[str, float]]:
    """The dict {integer: {name: number}} in a pickle.

    Args:
        content: The pickle.
        source: Where it comes from, for messages.

    Raises:
        DataError: The pickle is damaged or holds anything else.
    """
    try:
        result = _run(content, source)
    except (ValueError, IndexError, KeyError, TypeError, struct.error, UnicodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source}: not a pickled table of numbers: {error}; download it again") from error
    if not isinstance(result, dict):
        raise DataError(f"{source}: expected a dict of networks, got {type(result).__name__}")
    for key, values in result.items():
        if not isinstance(key, int) or not isinstance(values, dict):
            raise DataError(f"{source}: expected an integer with a dict of numbers, got {key!r}")
        for name, value in values.items():
            if not isinstance(name, str) or not isinstance(value, float) or not math.isfinite(value):
                raise DataError(f"{source}: entry {key}: expected names with finite numbers, got {name!r}: {value!r}")
    return result


def _run(content: bytes, source: str) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    opcodes: Iterator[tuple[Any, Any, Any]] = pickletools.genops(content)
    for count, (opcode, argument, position) in enumerate(opcodes):
        name: str = opcode.name
        if count > _MAX_OPCODES:
            raise DataError(f"{source}: more than {_MAX_OPCODES:,} opcodes")
        if name in _SIMPLE:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _to_mark(stack)
            target = stack[-1]
            for key, value in zip(items[::2], items[1::2], strict=True):
                if not isinstance(key, (int, str)) or target.setdefault(key, value) is not value:
                    raise DataError(f"{source}: the key {key!r} occurs twice or is none (byte {position})")
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            size = 0 if name == "TUPLE" else int(name[-1])
            items = [stack.pop() for _ in range(size)][::-1] if size else _to_mark(stack)
            stack.append(tuple(items))
        elif name == "GLOBAL":
            if argument not in (*_SCALARS, _DTYPE):
                raise DataError(f"{source}: names {argument!r} (byte {position}), expected numbers only")
            stack.append(_Name(argument))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_reduced(stack.pop(), arguments, source))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Float64) or state[1] != "<":
                raise DataError(f"{source}: expected little-endian numbers (byte {position})")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise DataError(f"{source}: the opcode {name} (byte {position}) has no place in a table of numbers")
    raise DataError(f"{source}: the file is cut off")


def _reduced(name: Any, arguments: Any, source: str) -> object:
    """What the two admitted calls give: `dtype("f8", ...)` and `scalar(dtype, 8 bytes)`."""
    text = name.text if isinstance(name, _Name) else repr(name)
    if text == _DTYPE and arguments[0] == "f8":
        return _Float64()
    if text in _SCALARS and isinstance(arguments[0], _Float64):
        value: float = struct.unpack("<d", arguments[1])[0]
        return value
    raise DataError(f"{source}: expected float64 numbers, got {text} of {arguments!r}")


def _to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]
