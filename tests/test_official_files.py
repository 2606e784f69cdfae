"""Official distributions, in small: files that these tests write in exactly the published layouts."""

import base64
import bz2
import collections
import json
import pickle
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archgauge.datasets import nas_bench_101, nas_bench_201
from archgauge.datasets.official_files import (
    load_official,
    read_nas_bench_101,
    read_nas_bench_201,
    read_nats_bench,
)
from archgauge.datasets.tfrecord import MAX_RECORD_BYTES, masked_crc32c, protobuf_fields, read_records
from archgauge.encoders.errors import ConfigError, DataError

# --- TFRecord -------------------------------------------------------------------------------------------------------


def crc32c(text: bytes) -> int:
    """Bit by bit, after RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in text:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(text: bytes) -> int:
    crc = crc32c(text)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked(head)) + data + struct.pack("<I", masked(data))


def test_checksums_are_those_of_the_standards() -> None:
    """RFC 3720, B.4: 32 zeros, 32 ones, rising and falling bytes; then texts of many lengths against a plain loop."""
    known = {
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
    }
    for text, crc in known.items():
        assert crc32c(text) == crc
    texts = [*known, b"", b"a", *(np.random.default_rng(0).bytes(n) for n in (1, 7, 300, 2, 2, 1000, 0))]
    assert masked_crc32c(texts).tolist() == [masked(text) for text in texts]
    assert masked_crc32c([]).tolist() == []


def test_records_come_back(tmp_path: Path) -> None:
    records = [b"", b"one", bytes(5000), *(str(n).encode() for n in range(9000))]
    path = tmp_path / "file.tfrecord"
    path.write_bytes(b"".join(map(framed, records)))
    assert list(read_records(path)) == records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "record 2: the file is cut off"),
        (lambda text: text + b"x", "record 3: the file is cut off"),
        (lambda text: text.replace(b"two", b"twa"), "record 1: the checksum of its data"),
        (lambda text: text[:8] + b"\0\0\0\0" + text[12:], "record 0: the checksum of its length"),
        (lambda text: b"\xff" * 8 + text[8:], "record 0: its length has a wrong checksum"),
        (lambda text: framed(bytes(MAX_RECORD_BYTES + 1)) + text, "at most 1,048,576"),
    ],
)
def test_damaged_records_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "file.tfrecord"
    path.write_bytes(change(b"".join(map(framed, (b"one", b"two", b"three")))))
    with pytest.raises(DataError, match=message):
        list(read_records(path))


def test_missing_record_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.tfrecord: cannot be read"):
        list(read_records(tmp_path / "none.tfrecord"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", []),
        (b"\x08\x96\x01", [(1, 150)]),
        (b"\x12\x03abc\x1d\x01\x02\x03\x04", [(2, b"abc"), (3, b"\x01\x02\x03\x04")]),
        (b"\x21" + struct.pack("<d", 0.5), [(4, struct.pack("<d", 0.5))]),
        (b"\xf8\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", [(127, 2**64 - 1)]),
    ],
)
def test_protobuf_fields(message: bytes, expected: list[Any]) -> None:
    """Examples of the protobuf encoding guide."""
    assert list(protobuf_fields(message, "test")) == expected


@pytest.mark.parametrize(
    "message", [b"\x08", b"\x08\x80", b"\x12\x05abc", b"\x21abc", b"\x0b", b"\x08" + b"\xff" * 11, b"\x02\x00"]
)
def test_damaged_protobuf_messages_are_refused(message: bytes) -> None:
    with pytest.raises(DataError, match="protobuf"):
        list(protobuf_fields(message, "test"))


# --- NAS-Bench-101 --------------------------------------------------------------------------------------------------

CELLS = (
    "0110001000010000:input,maxpool3x3,conv3x3-bn-relu,output",
    "0100:input,output",
    "0111001100010000:input,conv1x1-bn-relu,conv3x3-bn-relu,output",
)


def varint(number: int) -> bytes:
    result = b""
    while number >= 0x80:
        result += bytes([number & 0x7F | 0x80])
        number >>= 7
    return result + bytes([number])


def evaluation(epoch: float, seconds: float, train: float, valid: float, test: float) -> bytes:
    numbers = (epoch, seconds, train, valid, test)
    content = b"".join(varint(at << 3 | 1) + struct.pack("<d", value) for at, value in enumerate(numbers, start=1))
    return content + b"\x32\x05/ckpt"


def model_metrics(params: int, evaluations: Iterable[bytes], total: float = 9.0) -> bytes:
    content = b"".join(b"\x0a" + varint(len(part)) + part for part in evaluations)
    return content + b"\x10" + varint(params) + b"\x19" + struct.pack("<d", total)


def row_101(cell: str, epochs: int, run: int, **changed: Any) -> bytes:
    """A record as nasbench writes it; the label tells cell, epochs and run."""
    digits, _, operations = cell.partition(":")
    base = 0.5 + CELLS.index(cell) / 10 + epochs / 10000 + run / 100000
    parts = [
        evaluation(0.0, 0.0, 0.1, 0.1, 0.1),
        evaluation(epochs / 2, 50.0 + run, 0.9, base - 0.2, base - 0.3),
        evaluation(epochs, 100.0 + run, 1.0, base + 0.1, base),
    ]
    content = changed.get("metrics", model_metrics(changed.get("params", 1000 + len(digits)), parts))
    row = [f"hash{cell}", epochs, digits, operations, base64.b64encode(content).decode()]
    return json.dumps(changed.get("row", row)).encode()


def write_101(path: Path, rows: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(map(framed, rows)))
    return path


@pytest.fixture
def nas_101(tmp_path: Path) -> Path:
    rows = [row_101(cell, epochs, run) for cell in CELLS for epochs in (108, 4, 12, 36) for run in range(3)]
    return write_101(tmp_path / "nasbench_full.tfrecord", rows)


def test_nas_bench_101_labels(nas_101: Path) -> None:
    labels = read_nas_bench_101(nas_101)
    assert labels.specs == CELLS
    assert [nas_bench_101.spec_of(nas_bench_101.parse(cell)) for cell in CELLS] == list(CELLS)
    expected = [50 + 10 * at + 1.08 + 0.001 for at in range(3)]
    np.testing.assert_allclose(labels.accuracy, expected)
    np.testing.assert_allclose(labels.spread, 0.001)
    assert labels.runs.tolist() == [3, 3, 3]
    assert labels.params.tolist() == [1016, 1004, 1016]
    np.testing.assert_allclose(labels.seconds, 101)
    assert labels.label == "test accuracy after 108 epochs, own weights, mean of 3 to 3 trainings"
    valid = read_nas_bench_101(nas_101, split="valid", epochs=12)
    np.testing.assert_allclose(valid.accuracy, [60 + 10 * at + 0.12 + 0.001 for at in range(3)])
    half = read_nas_bench_101(nas_101, split="valid", epochs=4, halfway=True)
    np.testing.assert_allclose(half.accuracy, [30 + 10 * at + 0.04 + 0.001 for at in range(3)])
    np.testing.assert_allclose(half.seconds, 51)
    assert (labels.epochs, valid.epochs, half.epochs) == (108, 12, None)


def test_nas_bench_101_cells_are_pruned(tmp_path: Path) -> None:
    row = json.loads(row_101(CELLS[0], 108, 0))
    row[2:4] = "0111001000010000", "input,conv3x3-bn-relu,conv1x1-bn-relu,output"
    row[2] = "0110000000010000"
    path = write_101(tmp_path / "nasbench_only108.tfrecord", [json.dumps(row).encode()])
    labels = read_nas_bench_101(path)
    assert labels.specs == ("010001000:input,conv1x1-bn-relu,output",)
    assert labels.runs.tolist() == [1]
    assert np.isnan(labels.spread).all()


def test_nas_bench_101_becomes_a_benchmark(nas_101: Path) -> None:
    bench = load_official(nas_101, workers=1)
    assert (bench.name, bench.task, len(bench)) == ("nas_bench_101", "cifar10", 3)
    assert bench.names == CELLS
    assert bench.accuracy.argmax() == 2
    assert "108 epochs" in bench.label
    assert bench.epochs == 108
    few = load_official(nas_101, split="valid", epochs=36, limit=2, seed=1, workers=1)
    assert (len(few), few.epochs) == (2, 36)
    assert set(few.names) < set(CELLS)
    assert (
        dict(zip(few.names, few.hashes, strict=True)).items()
        <= dict(zip(bench.names, bench.hashes, strict=True)).items()
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no training of 108 epochs, there are none"),
        ([row_101(CELLS[0], 4, 0)], "no training of 108 epochs, there are 4"),
        ([b"junk"], "record 0: expected a JSON list"),
        ([row_101(CELLS[0], 108, 0, row=["hash", 108, "0100", "input,output"])], "expected a JSON list"),
        ([row_101(CELLS[0], 108, 0, row=["hash", 108, "0100", "input,output", "!"])], "expected a JSON list"),
        ([row_101(CELLS[0], 108, 0, row=["hash", 108, "0100", "input,output", 5])], "expected a JSON list"),
        ([row_101(CELLS[0], 108, 0, row=["hash", "108", "0100", "input,output", ""])], "epochs a whole number"),
        ([row_101(CELLS[0], 108, 0, row=["hash", 108, "0100", "input,output", ""])], "0 evaluations and 0 parameters"),
        ([row_101(CELLS[0], 108, 0, metrics=model_metrics(5, [evaluation(0, 0, 0, 0, 0)] * 2))], "2 evaluations"),
        ([row_101(CELLS[0], 108, 0, metrics=b"\x0a\x63")], "damaged protobuf"),
        ([row_101(CELLS[0], 108, 0, metrics=model_metrics(5, [b"\x21\x00"] * 3))], "damaged protobuf"),
        ([row_101(CELLS[0], 108, 0, metrics=model_metrics(5, [b"\x28\x01"] * 3))], "field of 8 bytes"),
        ([row_101(CELLS[0], 108, 0, metrics=model_metrics(5, [evaluation(0, 0, 0, 7, 7)] * 3))], "from 0 to 100"),
        ([row_101(CELLS[0], 108, 0), row_101(CELLS[0], 108, 1, params=7)], "another one here than before"),
        ([row_101(CELLS[0], 108, 0).replace(b"maxpool3x3", b"maxpool5x5")], "unknown operation"),
    ],
)
def test_wrong_nas_bench_101_files_are_refused(tmp_path: Path, rows: list[bytes], message: str) -> None:
    path = write_101(tmp_path / "file.tfrecord", rows)
    with pytest.raises(DataError, match=message):
        read_nas_bench_101(path)


# --- NAS-Bench-201 and NATS-Bench -----------------------------------------------------------------------------------

ARCHS = nas_bench_201.sample(4, 0)
WIDTHS = ["8:16:24:32:40", "64:64:64:64:64"]
DATASETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}


def accuracy_of(arch: int, dataset: str, split: str, epochs: int, seed: int) -> float:
    """An accuracy that tells what it is of."""
    return (
        40 + arch + 10 * list(DATASETS).index(dataset) + DATASETS[dataset].index(split) + epochs / 1000 + seed / 100000
    )


def training(arch: int, arch_str: str, dataset: str, epochs: int, seed: int) -> dict[str, Any]:
    """`ResultsCount` as the official code stores it."""
    keys = [(split, epoch) for split in DATASETS[dataset] for epoch in (0, epochs - 1)]
    return {
        "name": "infer.tiny",
        "net_state_dict": None,
        "train_acc1es": {0: 10.0, epochs - 1: 99.0},
        "train_acc5es": {0: 50.0, epochs - 1: 99.9},
        "train_losses": {0: 2.3, epochs - 1: 0.1},
        "train_times": collections.OrderedDict((epoch, 2.0) for epoch in range(epochs)),
        "arch_config": {"name": "infer.tiny", "channel": 16, "num_cells": 5, "arch_str": arch_str, "class_num": 10},
        "params": 0.073306,
        "flop": 7.78305,
        "seed": seed,
        "epochs": epochs,
        "latency": [0.013, 0.014],
        "eval_names": list(DATASETS[dataset]),
        "eval_acc1es": {
            f"{split}@{epoch}": accuracy_of(arch, dataset, split, epochs, seed) if epoch else 1.0
            for split, epoch in keys
        },
        "eval_times": {},
        "eval_losses": {},
    }


def results(arch: int, arch_str: str, epochs: int, seeds: tuple[int, ...] = (777, 888)) -> dict[str, Any]:
    """`ArchResults` as the official code stores it."""
    return {
        "arch_index": arch,
        "arch_str": arch_str,
        "all_results": {
            (dataset, seed): training(arch, arch_str, dataset, epochs, seed) for dataset in DATASETS for seed in seeds
        },
        "dataset_seed": {dataset: list(seeds) for dataset in DATASETS},
        "clear_net_done": True,
    }


def content_201(archs: list[str] = ARCHS) -> dict[str, Any]:
    return {
        "meta_archs": list(archs),
        "total_archs": len(archs),
        "arch2infos": {
            at: {"full": results(at, arch, 200), "less": results(at, arch, 12)} for at, arch in enumerate(archs)
        },
        "evaluated_indexes": set(range(len(archs))),
    }


def content_nats(archs: list[str], budgets: tuple[str, ...]) -> dict[str, Any]:
    return {
        "meta_archs": list(archs),
        "arch2infos": {
            at: collections.OrderedDict((hp, results(at, arch, int(hp))) for hp in budgets)
            for at, arch in enumerate(archs)
        },
        "evaluated_indexes": set(range(len(archs))),
    }


def legacy_torch(content: Any) -> bytes:
    """What torch before 1.6 wrote, without tensors."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = (0x1950A86A20F9469CFC6C, 1001, system, content, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def write_pbz2(path: Path, content: Any) -> Path:
    with bz2.BZ2File(path, "wb") as file:
        pickle.dump(content, file, protocol=4)
    return path


@pytest.fixture
def nas_201(tmp_path: Path) -> Path:
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    path.write_bytes(legacy_torch(content_201()))
    return path


EXPECTED = {
    ("cifar10", "test"): ("cifar10", "ori-test"),
    ("cifar10", "valid"): ("cifar10-valid", "x-valid"),
    ("cifar100", "test"): ("cifar100", "x-test"),
    ("cifar100", "valid"): ("cifar100", "x-valid"),
    ("imagenet16_120", "test"): ("ImageNet16-120", "x-test"),
    ("imagenet16_120", "valid"): ("ImageNet16-120", "x-valid"),
}


@pytest.mark.parametrize(("task", "split"), EXPECTED)
@pytest.mark.parametrize("epochs", [200, 12])
def test_nas_bench_201_labels(nas_201: Path, task: str, split: Any, epochs: int) -> None:
    labels = read_nas_bench_201(nas_201, task, split=split, epochs=epochs)
    assert labels.specs == tuple(ARCHS)
    trained, evaluated = EXPECTED[task, split]
    expected = [
        np.mean([accuracy_of(at, trained, evaluated, epochs, seed) for seed in (777, 888)]) for at in range(len(ARCHS))
    ]
    np.testing.assert_allclose(labels.accuracy, expected)
    assert labels.runs.tolist() == [2] * 4
    assert labels.params.tolist() == [73306] * 4
    np.testing.assert_allclose(labels.seconds, 2.0 * epochs)
    assert f"{epochs} epochs" in labels.label
    assert labels.epochs == epochs
    assert trained in labels.label


def test_nas_bench_201_in_the_zip_format_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    content = content_201()
    content["arch2infos"][0]["full"]["all_results"]["cifar10", 777]["net_state_dict"] = {"w": torch.ones(3)}
    torch.save(content, path)
    assert read_nas_bench_201(path).specs == tuple(ARCHS)


def test_nas_bench_201_becomes_a_benchmark(nas_201: Path) -> None:
    bench = load_official(nas_201, "imagenet16_120", workers=1)
    assert (bench.name, bench.task, bench.names) == ("nas_bench_201", "imagenet16_120", tuple(ARCHS))
    assert bench.graphs[0].nodes[0].shape == (1, 3, 16, 16)


def test_nats_bench_files(tmp_path: Path) -> None:
    cells = write_pbz2(tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2", content_nats(ARCHS, ("12", "200")))
    labels = read_nats_bench(cells, "cifar100")
    assert (labels.benchmark, labels.specs) == ("nas_bench_201", tuple(ARCHS))
    assert "200 epochs" in labels.label
    assert labels.accuracy[1] == pytest.approx(40 + 1 + 20 + 2 + 0.2 + 832.5 / 100000)
    widths = write_pbz2(tmp_path / "NATS-sss-v1_0-50262.pickle.pbz2", content_nats(WIDTHS, ("01", "12", "90")))
    labels = read_nats_bench(widths, epochs=1)
    assert (labels.benchmark, labels.specs) == ("nats_bench_sss", tuple(WIDTHS))
    bench = load_official(widths, workers=1)
    assert bench.relatives == "nas_bench_201"  # one skeleton: left out together
    assert bench.licence
    assert bench.names == tuple(WIDTHS)
    assert "90 epochs" in bench.label
    assert (labels.epochs, bench.epochs) == (1, 90)


def test_nats_bench_folders(tmp_path: Path) -> None:
    folder = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    content = content_nats(ARCHS, ("12", "200"))
    write_pbz2(folder / "meta.pickle.pbz2", {key: content[key] for key in ("meta_archs", "evaluated_indexes")})
    for at, name in ((3, "000003"), (0, "000000"), (1, "1")):
        write_pbz2(folder / f"{name}.pickle.pbz2", content["arch2infos"][at])
    (folder / "readme.txt").write_text("not a network")
    labels = read_nats_bench(folder)
    assert labels.specs == (ARCHS[0], ARCHS[1], ARCHS[3])
    assert load_official(folder, workers=1).names == labels.specs
    write_pbz2(folder / "000001.pickle.pbz2", content["arch2infos"][1])
    with pytest.raises(DataError, match="one file each"):
        read_nats_bench(folder)
    (folder / "000001.pickle.pbz2").rename(folder / "000004.pickle.pbz2")
    with pytest.raises(DataError, match="0 to 3"):
        read_nats_bench(folder)


def test_networks_without_a_label_are_listed(tmp_path: Path) -> None:
    content = content_201()
    del content["arch2infos"][2]["full"]["dataset_seed"]["cifar10"]
    path = tmp_path / "file.pth"
    path.write_bytes(legacy_torch(content))
    bench = load_official(path, workers=1)
    assert len(bench) == 3
    assert bench.skipped == ((ARCHS[2], "no training on cifar10 with 200 epochs"),)
    for results_of in content["arch2infos"].values():
        results_of["full"]["dataset_seed"] = {}
    path.write_bytes(legacy_torch(content))
    with pytest.raises(DataError, match="no network has this label; "):
        read_nas_bench_201(path)


def changed(*keys: Any, to: Any = None, drop: bool = False) -> dict[str, Any]:
    content: Any = content_201()
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if drop:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    return dict(content)


RUN = ("arch2infos", 1, "full", "all_results", ("cifar10", 777))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no entry 'meta_archs'; found list"),
        ({}, "no entry 'meta_archs'; found none"),
        (changed("meta_archs", to=[]), "list of texts"),
        (changed("meta_archs", to=[1, 2, 3, 4]), "list of texts"),
        (changed("meta_archs", 1, to="|none~0|"), "network 1: NAS-Bench-201 cell"),
        (changed("meta_archs", 1, to=ARCHS[0]), "twice"),
        (changed("meta_archs", to=ARCHS[:2]), "0 to 1"),
        (changed("arch2infos", drop=True), "no entry 'arch2infos'; found 'meta_archs'"),
        (changed("arch2infos", to=[]), "dict by index"),
        (changed("arch2infos", "x", to={}), "dict by index"),
        (changed("arch2infos", 1, to=None), "network 1: no entry 'full'; found NoneType"),
        (changed("arch2infos", 1, "full", drop=True), "network 1: no entry 'full'; found 'less'"),
        (changed("arch2infos", 1, "full", "dataset_seed", to=[]), "dict of lists"),
        (changed("arch2infos", 1, "full", "dataset_seed", "cifar10", to=5), "dict of lists"),
        (changed("arch2infos", 1, "full", "dataset_seed", "cifar10", to=[999]), r"no entry \('cifar10', 999\)"),
        (changed(*RUN, "eval_acc1es", drop=True), "no entry 'eval_acc1es'"),
        (changed(*RUN, "eval_acc1es", "ori-test@199", drop=True), "no entry 'ori-test@199'"),
        (changed(*RUN, "eval_acc1es", "ori-test@199", to="x"), "expected a number"),
        (changed(*RUN, "eval_acc1es", "ori-test@199", to=101.0), "from 0 to 100"),
        (changed(*RUN, "params", drop=True), "no entry 'params'"),
        (changed(*RUN, "train_times", to={0: "x"}), "train_times: expected a number"),
    ],
)
def test_wrong_nas_bench_201_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(legacy_torch(content))
    with pytest.raises(DataError, match=message) as caught:
        read_nas_bench_201(path)
    assert str(path) in str(caught.value)


def test_missing_times_are_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(legacy_torch(changed(*RUN, "train_times", to=None)))
    seconds = read_nas_bench_201(path).seconds
    assert np.isnan(seconds[1])
    assert not np.isnan(seconds[[0, 2, 3]]).any()


def test_options_that_do_not_exist_are_refused(nas_101: Path, nas_201: Path, tmp_path: Path) -> None:
    split: Any = "train"
    for read in (read_nas_bench_101, read_nas_bench_201, read_nats_bench):
        with pytest.raises(ConfigError, match="split is 'train'"):
            read(nas_201, split=split)
    with pytest.raises(DataError, match="no training of 90 epochs, expected 12, 200"):
        read_nas_bench_201(nas_201, epochs=90)
    cells = write_pbz2(tmp_path / "file.pickle.pbz2", content_nats(ARCHS, ("12", "200")))
    with pytest.raises(DataError, match="no training of 90 epochs, expected 12, 200"):
        read_nats_bench(cells, epochs=90)
    for task in ("mnist", "cifar100"):
        with pytest.raises(DataError, match=f"no task '{task}'"):
            load_official(nas_101, task)
    with pytest.raises(DataError, match="no task 'mnist'"):
        load_official(nas_201, "mnist")
    with pytest.raises(ConfigError, match="expected a file"):
        load_official(tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match="limit is 0"):
        load_official(nas_101, limit=0)
    with pytest.raises(DataError, match="no meta"):
        load_official(tmp_path)
