"""A restricted reader of pickle files: containers, numbers, texts and arrays; nothing in a file can call anything else.

NAS-Bench-201 and NATS-Bench publish their tables as pickles (`torch.save`, `pickle.dump`). A pickle names functions and
classes that plain `pickle.load` would import and call. Here every name is looked up in a short list that holds only
functions of this module, written for the containers those files hold; any other name is a `DataError`, and nothing is
ever imported. What the list gives out cannot be changed by a file either: its entries refuse new attributes and states.

Admitted: `collections.OrderedDict`, `set`, numpy scalars and arrays of plain numbers, and the tensors of `torch.save`
(both its zip format and the legacy one), which come back as numpy arrays. torch is not needed.
"""

from __future__ import annotations

import bz2
import copyreg
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import DataError

Array = NDArray[Any]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPE = re.compile(r"[<>|=]?([biuf])([1248])")
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


def load_bz2_pickle(path: Path) -> Any:
    """The content of a `.pickle.pbz2` file, as NATS-Bench publishes them.

    Raises:
        DataError: The file cannot be read or holds something that is not admitted.
    """
    try:
        with bz2.open(path, "rb") as file:
            return _Reader(file, str(path)).read()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable bzip2 file: {error}; download it again") from error


def load_torch(path: Path) -> Any:
    """The content of a file that `torch.save` wrote, in the zip format or the legacy one; tensors as numpy arrays.

    Raises:
        DataError: The file cannot be read or holds something that is not admitted.
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return _load_zip(file, str(path))
            file.seek(0)
            return _load_legacy(file, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


class _Sealed:
    """Something that a file may name. It takes no attributes and no state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state for a name, expected one for an array")


class _Function(_Sealed):
    """A function that a file may call."""

    __slots__ = ("_call",)
    _call: Callable[..., object]

    def __init__(self, call: Callable[..., object]) -> None:
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a new attribute for a function")

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)


class _Name(_Sealed):
    """A name without a function behind it: an argument of one."""

    __slots__ = ()


class _StorageKind(_Sealed):
    """A class of torch storages: it stands for the type of their numbers."""

    __slots__ = ("dtype",)
    dtype: np.dtype[Any]

    def __init__(self, dtype: str) -> None:
        object.__setattr__(self, "dtype", np.dtype(dtype))

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a new attribute for a storage")


class _Ordered(dict[Any, Any]):
    """An OrderedDict as a dict; the attributes that torch puts on it are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Dtype:
    """The type of numpy numbers; its state sets the byte order."""

    __slots__ = ("value",)

    def __init__(self, name: object, *_: object) -> None:
        match = _DTYPE.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise pickle.UnpicklingError(f"the numpy type {name!r}, expected plain numbers")
        self.value = np.dtype(str(name))

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"the state {state!r} of a numpy type")
        self.value = self.value.newbyteorder("=" if order == "|" else order)


class _Array(np.ndarray[Any, Any]):
    """A numpy array whose state is checked before it is taken."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, content = state
        if self.size or not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not made of plain numbers")
        if any(type(size) is not int or size < 0 for size in shape):
            raise pickle.UnpicklingError(f"an array of the shape {shape!r}")
        if len(content) != prod(shape) * dtype.value.itemsize:
            raise pickle.UnpicklingError(f"an array of {shape} {dtype.value} with {len(content):,} bytes")
        checked: Any = (1, shape, dtype.value, bool(by_columns), content)
        super().__setstate__(checked)


def _scalar(dtype: object, content: object) -> object:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or len(content) != dtype.value.itemsize:
        raise pickle.UnpicklingError("a numpy scalar that is no plain number")
    return np.frombuffer(content, dtype.value)[0].item()


def _empty_array(*_: object) -> Array:
    return np.empty(0).view(_Array)


def _encode(text: object, encoding: object) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Bytes without content, as Python 3 writes them for Python 2."""
    return b""


def _tensor(storage: object, offset: Any, size: Any, stride: Any, *_: object) -> Array:
    """A tensor as a view of its storage, checked to stay inside it."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage")
    if any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor of the size {size!r} and stride {stride!r}")
    end = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1
    if prod(size) and end > storage.size:
        raise pickle.UnpicklingError(f"a tensor of the size {size!r} in a storage of {storage.size:,} numbers")
    if not prod(size):
        return np.empty(size, storage.dtype).view(_Array)
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).view(_Array)


def _parameter(tensor: object, *_: object) -> object:
    return tensor


_ADMITTED: Mapping[tuple[str, str], _Sealed] = {
    ("collections", "OrderedDict"): _Function(_Ordered),
    ("builtins", "set"): _Function(set),
    ("__builtin__", "set"): _Function(set),
    ("builtins", "bytes"): _Function(_no_bytes),
    ("__builtin__", "bytes"): _Function(_no_bytes),
    ("_codecs", "encode"): _Function(_encode),
    ("numpy", "dtype"): _Function(_Dtype),
    ("numpy", "ndarray"): _Name(),
    **{
        (f"numpy.{core}.multiarray", name): _Function(call)
        for core in ("core", "_core")
        for name, call in (("scalar", _scalar), ("_reconstruct", _empty_array))
    },
    **{("torch", name): _StorageKind(dtype) for name, dtype in _STORAGES.items()},
    ("torch._utils", "_rebuild_tensor"): _Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
}


class _Reader(pickle.Unpickler):
    """Reads one pickle; every name goes through `find_class`, every torch storage through `storage`."""

    def __init__(
        self, file: IO[bytes], source: str, storage: Callable[[np.dtype[Any], str, int], Array] | None = None
    ) -> None:
        super().__init__(file)
        self._source = source
        self._storage = storage

    def read(self) -> Any:
        # Extension codes already looked up by this process would not pass through find_class.
        copyreg.clear_extension_cache()
        try:
            return self.load()
        except (DataError, OSError):
            raise
        except Exception as error:  # a damaged pickle fails in many ways
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{self._source}: not a readable pickle: {reason}; download it again") from error

    def find_class(self, module_name: str, global_name: str) -> Any:
        found = _ADMITTED.get((module_name, global_name))
        if found is None:
            raise DataError(
                f"{self._source}: the file names {module_name}.{global_name}, which a table of results does not need; "
                "it was not called. Only containers, numbers and arrays are read: is it the published file?"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise DataError(f"{self._source}: the file refers to data outside of the pickle")
        what, kind, key, _, count = pid[:5]
        if what != "storage" or not isinstance(kind, _StorageKind) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f"the reference {pid!r}, expected a storage")
        return self._storage(kind.dtype, str(key), count)


def _load_zip(file: IO[bytes], source: str) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            main = next((name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")), None)
            if main is None:
                raise DataError(f"{source}: a zip archive without data.pkl, expected a file that torch.save wrote")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
                raise DataError(f"{source}: compressed members, which torch.save does not write")
            folder = main.removesuffix("data.pkl")
            if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
                raise DataError(f"{source}: big-endian numbers, expected little-endian ones")
            storages: dict[str, Array] = {}

            def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
                if key not in storages:
                    member = f"{folder}data/{key}"
                    content = archive.read(member) if member in members else b""
                    if len(content) != count * dtype.itemsize:
                        raise DataError(f"{source}: storage {key!r} has {len(content):,} bytes for {count:,} {dtype}")
                    storages[key] = np.frombuffer(content, dtype)
                return storages[key]

            with archive.open(main) as stream:
                return _Reader(stream, source, storage).read()
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{source}: not a readable torch file: {error}; download it again") from error


def _load_legacy(file: IO[bytes], source: str) -> Any:
    """Magic number, protocol version, system, object and keys of the storages, five pickles, then the storages."""
    head = [_Reader(file, source).read() for _ in range(3)]
    if head[:2] != [_MAGIC, _PROTOCOL]:
        raise DataError(f"{source}: not a file that torch.save wrote")
    if not isinstance(head[2], dict) or head[2].get("little_endian") is not True:
        raise DataError(f"{source}: big-endian numbers, expected little-endian ones")
    here = file.tell()
    left = file.seek(0, io.SEEK_END) - here
    file.seek(here)
    storages: dict[str, Array] = {}

    def storage(dtype: np.dtype[Any], key: str, count: int) -> Array:
        nonlocal left
        if key not in storages:
            left -= count * dtype.itemsize
            if left < 0:
                raise DataError(f"{source}: storage {key!r} of {count:,} {dtype} is larger than the file")
            storages[key] = np.zeros(count, dtype)
        return storages[key]

    content = _Reader(file, source, storage).read()
    keys = _Reader(file, source).read()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise DataError(f"{source}: the file lists other storages than its tensors use")
    for key in keys:
        target = storages[str(key)]
        head_bytes = file.read(8)
        data = file.read(target.nbytes)
        if len(head_bytes) != 8 or struct.unpack("<q", head_bytes)[0] != target.size or len(data) != target.nbytes:
            raise DataError(f"{source}: storage {key!r} is cut off or of another length; download the file again")
        target[:] = np.frombuffer(data, target.dtype)
    return content
