"""The restricted pickle reader: what it admits comes back whole, and nothing else can be called."""

import bz2
import collections
import copyreg
import io
import os
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archgauge.datasets.restricted_pickle import load_bz2_pickle, load_torch
from archgauge.encoders.errors import DataError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(bz2.compress(content))
    return path


def load(tmp_path: Path, content: bytes) -> Any:
    return load_bz2_pickle(write(tmp_path / "table.pickle.pbz2", content))


TABLE = {
    "names": ["a", "ä" * 300, ""],
    "pairs": {("cifar10", 777): 1.5, ("cifar10", 888): None},
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "set": {1, 2, 3},
    "numbers": [0, -1, 2**40, 2**80, 1e-300, float("inf"), True, False],
    "bytes": b"\x00\xff",
    "scalars": [np.float64(0.25), np.float32(0.5), np.int64(-7), np.uint8(200), np.bool_(True)],
}


@pytest.mark.parametrize("protocol", range(6))
def test_containers_and_numbers_come_back(tmp_path: Path, protocol: int) -> None:
    table = {key: value for key, value in TABLE.items() if protocol > 0 or key != "bytes"}
    found = load(tmp_path, pickle.dumps(table, protocol=protocol))
    assert found == table
    assert list(found["ordered"]) == ["b", "a"]
    assert [type(value) for value in found["scalars"]] == [float, float, int, int, bool]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float64).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int32).reshape(3, 4)),
        np.array([], dtype=np.float32),
        np.array(3.5),
        np.array([1, 2], dtype=">i8"),
        np.array([True, False]),
        np.arange(5, dtype=np.float16),
    ],
)
def test_arrays_come_back(tmp_path: Path, array: Any, protocol: int) -> None:
    found = load(tmp_path, pickle.dumps(array, protocol=protocol))
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)


def test_shared_and_recursive_containers_come_back(tmp_path: Path) -> None:
    shared = [1]
    table: dict[str, Any] = {"first": shared, "second": shared}
    table["self"] = table
    found = load(tmp_path, pickle.dumps(table))
    assert found["first"] is found["second"]
    assert found["self"] is found


# --- what must never run --------------------------------------------------------------------------------------------


class Evil:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def evil_pickles(ran: Path) -> dict[str, bytes]:
    target = str(ran)
    command = f"touch {target}"
    quoted = repr(f"open({target!r}, 'w')").encode()
    return {
        "os.system": pickle.dumps(Evil(os.system, command)),
        "os.system, protocol 0": pickle.dumps(Evil(os.system, command), protocol=0),
        "eval": pickle.dumps(Evil(eval, f"open({target!r}, 'w')")),
        "exec": pickle.dumps({"meta_archs": Evil(exec, f"open({target!r}, 'w')")}),
        "open": pickle.dumps(Evil(open, target, "w")),
        "getattr": pickle.dumps(Evil(getattr, {}, "clear")),
        "import": pickle.dumps(Evil(__import__, "os")),
        "path": pickle.dumps(Path(target)),
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"
        + bytes([len(command)])
        + command.encode()
        + b"\x85R.",
        "inst": b"(S" + repr(command).encode() + b"\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS" + repr(command).encode() + b"\no.",
        "newobj": b"\x80\x02cbuiltins\neval\nS" + quoted + b"\n\x85\x81.",
        "dotted name": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
        "dotted module": b"ccollections.abc\nMapping\n.",
        "import of a module that is not loaded": b"cthis\ns\n.",
        "numpy load": b"cnumpy\nload\nS" + repr(target).encode() + b"\n\x85R.",
        "torch load": b"ctorch\nload\nS" + repr(target).encode() + b"\n\x85R.",
        "reduce with a constructor": b"\x80\x02ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
    }


@pytest.mark.parametrize("name", evil_pickles(Path("x")))
def test_a_file_cannot_call_anything(tmp_path: Path, ran: Path, name: str) -> None:
    content = evil_pickles(ran)[name]
    with pytest.raises(DataError, match="it was not called"):
        load(tmp_path, content)
    for torch_file in (legacy(content), zipped(content)):
        path = tmp_path / "file.pth"
        path.write_bytes(torch_file)
        with pytest.raises(DataError, match="it was not called"):
            load_torch(path)
    assert not ran.exists()


def test_the_evil_pickles_are_evil(ran: Path) -> None:
    """Plain unpickling would run them: the test above tests something."""
    for name in ("os.system", "stack global", "inst", "obj"):
        pickle.loads(evil_pickles(ran)[name])
        assert ran.exists()
        ran.unlink()


def test_the_message_names_what_was_forbidden(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.pickle\.pbz2: the file names (posix|nt)\.system"):
        load(tmp_path, pickle.dumps(Evil(os.system, "true")))


def test_a_file_cannot_change_what_is_admitted(tmp_path: Path) -> None:
    """Opcode BUILD sets states and attributes: on an admitted name it must fail, and change nothing."""
    ordered = b"\x80\x02ccollections\nOrderedDict\n"
    for build in (
        ordered + b"}U\x05_callcbuiltins\nset\nsb.",
        ordered + b"N}U\x05_callcbuiltins\nset\ns\x86b.",
        b"\x80\x02cnumpy\nndarray\n}U\x01xK\x01sb.",
        b"\x80\x02ctorch\nFloatStorage\nN}U\x05dtypeK\x01s\x86b.",
    ):
        with pytest.raises(DataError, match="not a readable pickle"):
            load(tmp_path, build)
    assert load(tmp_path, pickle.dumps(collections.OrderedDict(a=1))) == {"a": 1}


def test_extension_codes_are_looked_up_too(tmp_path: Path, ran: Path) -> None:
    copyreg.add_extension("posix", "system", 240)
    try:
        content = b"\x80\x02\x82\xf0U\x04true\x85R."
        assert pickle.loads(content) == 0  # now the process has the function in its cache of extensions
        with pytest.raises(DataError, match=r"posix\.system"):
            load(tmp_path, content)
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (b"junk", "not a readable pickle"),
        (pickle.dumps(TABLE)[:-20], "not a readable pickle"),
        (b"\x80\x02X\xff\xff\xff\x7f.", "not a readable pickle"),
        (b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.", "expected plain numbers"),
        (b"\x80\x02cnumpy\ndtype\nU\x03V99\x85R.", "expected plain numbers"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aU\x05utf-8\x86R.", "expected latin1"),
        (b"\x80\x02U\x01aQ.", "outside of the pickle"),
        (pickle.dumps(np.array(["text"])), "expected plain numbers"),
        (pickle.dumps(np.array([{}, 1], dtype=object)), "expected plain numbers"),
        (pickle.dumps(np.float64(1)).replace(struct.pack("<d", 1.0), struct.pack("<d", 1.0)[:7] + b"\x94"), ""),
    ],
)
def test_damaged_and_foreign_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    if message:
        with pytest.raises(DataError, match=message):
            load(tmp_path, content)
    else:
        assert isinstance(load(tmp_path, content), float)


def test_arrays_of_a_wrong_size_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(np.arange(100, dtype=np.uint8), protocol=2)
    shape = next(position for opcode, argument, position in pickletools.genops(content) if argument == 100)
    wrong = content[: shape + 1] + b"\x65" + content[shape + 2 :]
    with pytest.raises(DataError, match="with 100 bytes"):
        load(tmp_path, wrong)


def test_files_that_are_no_bzip2_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pickle.pbz2"
    path.write_bytes(pickle.dumps(TABLE))
    with pytest.raises(DataError, match="bzip2"):
        load_bz2_pickle(path)
    path.write_bytes(bz2.compress(pickle.dumps(list(range(100_000))))[:-100])
    with pytest.raises(DataError, match="download it again"):
        load_bz2_pickle(path)
    with pytest.raises(DataError, match=r"missing\.pbz2"):
        load_bz2_pickle(tmp_path / "missing.pbz2")
    with pytest.raises(DataError, match=r"missing\.pth"):
        load_torch(tmp_path / "missing.pth")


# --- torch.save -----------------------------------------------------------------------------------------------------

MAGIC = 0x1950A86A20F9469CFC6C


def legacy(main: bytes, storages: tuple[tuple[str, bytes, int], ...] = (), **changed: Any) -> bytes:
    """The legacy layout: four pickles before the keys of the storages, then the storages."""
    head = [
        pickle.dumps(changed.get("magic", MAGIC), protocol=2),
        pickle.dumps(1001, protocol=2),
        pickle.dumps({"protocol_version": 1001, "little_endian": changed.get("little", True)}, protocol=2),
    ]
    keys = pickle.dumps([key for key, _, _ in storages], protocol=2)
    return b"".join([*head, main, keys, *(struct.pack("<q", count) + data for _, data, count in storages)])


def zipped(main: bytes, storages: tuple[tuple[str, bytes, int], ...] = (), method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", main)
        for key, data, _ in storages:
            archive.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


def tensor_pickle(
    key: str = "0", count: int = 6, offset: int = 0, size: bytes = b"K\x02K\x03\x86", stride: bytes = b"K\x03K\x01\x86"
) -> bytes:
    """A float tensor as torch writes it: its storage by a persistent reference."""
    reference = (
        b"(U\x07storagectorch\nFloatStorage\nU" + bytes([len(key)]) + key.encode() + b"U\x03cpuK" + bytes([count])
    )
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + reference
        + b"tQK"
        + bytes([offset])
        + size
        + stride
        + (b"\x89ccollections\nOrderedDict\n)RtR.")
    )


NUMBERS = np.arange(6, dtype="<f4")


@pytest.mark.parametrize("layout", [legacy, zipped])
def test_tensors_come_back_as_arrays(tmp_path: Path, layout: Any) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(layout(tensor_pickle(), (("0", NUMBERS.tobytes(), 6),)))
    found = load_torch(path)
    np.testing.assert_array_equal(found, NUMBERS.reshape(2, 3))
    path.write_bytes(
        layout(tensor_pickle(offset=1, size=b"K\x02\x85", stride=b"K\x02\x85"), (("0", NUMBERS.tobytes(), 6),))
    )
    np.testing.assert_array_equal(load_torch(path), [1, 3])


@pytest.mark.parametrize("layout", [legacy, zipped])
@pytest.mark.parametrize(
    "options",
    [
        {"offset": 1},
        {"stride": b"K\x04K\x01\x86"},
        {"size": b"K\x02J\xff\xff\xff\xff\x86"},
        {"size": b"K\x07K\x01\x86"},
        {"size": b"K\x06\x85"},
    ],
)
def test_tensors_outside_of_their_storage_are_refused(tmp_path: Path, layout: Any, options: dict[str, Any]) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(layout(tensor_pickle(**options), (("0", NUMBERS.tobytes(), 6),)))
    with pytest.raises(DataError, match="tensor"):
        load_torch(path)


@pytest.mark.parametrize("zip_format", [False, True])
def test_what_torch_writes_is_read(tmp_path: Path, zip_format: bool) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    base = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    content = {
        "meta_archs": ["a"],
        "arch2infos": {0: {"full": {"all_results": {("cifar10", 777): {"flop": 1.5, "latency": [0.1]}}}}},
        "evaluated_indexes": {0, 1},
        "weights": layer.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": base.t()[1:, ::2],
        "same": base,
        "kinds": [torch.ones(2, dtype=kind) for kind in (torch.int8, torch.int16, torch.int64, torch.bool, torch.half)],
        "number": torch.tensor(3),
        "empty": torch.empty(0, 3),
    }
    path = tmp_path / "file.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_format)
    found = load_torch(path)
    assert found["arch2infos"] == content["arch2infos"]
    assert found["evaluated_indexes"] == {0, 1}
    np.testing.assert_array_equal(found["weights"]["weight"], layer.weight.detach().numpy())
    np.testing.assert_array_equal(found["parameter"], [1, 1])
    np.testing.assert_array_equal(found["view"], content["view"].numpy())
    np.testing.assert_array_equal(found["same"], base.numpy())
    assert [str(array.dtype) for array in found["kinds"]] == ["int8", "int16", "int64", "bool", "float16"]
    assert found["number"] == 3
    assert found["empty"].shape == (0, 3)
    torch.save({"module": layer}, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(DataError, match=r"torch\.nn\.modules\.linear\.Linear"):
        load_torch(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable pickle"),
        (b"junk", "not a readable pickle"),
        (b"PK\x03\x04junk", "not a readable torch file"),
        (legacy(pickle.dumps(1), magic=1), "not a file that torch.save wrote"),
        (legacy(pickle.dumps(1), little=False), "big-endian"),
        (legacy(tensor_pickle(), ()), "other storages"),
        (legacy(tensor_pickle(), (("0", NUMBERS.tobytes()[:-1], 6),)), "cut off"),
        (legacy(tensor_pickle(), (("0", NUMBERS.tobytes(), 5),)), "cut off"),
        (legacy(tensor_pickle(count=255), (("0", NUMBERS.tobytes(), 6),)), "larger than the file"),
        (legacy(b"\x80\x02U\x01aQ."), "not a readable pickle"),
        (zipped(tensor_pickle(), ()), "0 bytes for 6"),
        (zipped(tensor_pickle(), (("0", NUMBERS.tobytes()[:-4], 6),)), "20 bytes"),
        (zipped(pickle.dumps(1), method=zipfile.ZIP_DEFLATED), "compressed"),
    ],
)
def test_damaged_torch_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_torch(path)


def test_other_zip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"without data\.pkl"):
        load_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(1))
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(DataError, match="big-endian"):
        load_torch(path)
