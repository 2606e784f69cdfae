import hashlib
import importlib
import json
import re
import threading
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from archgauge.datasets import cache, nas_bench_macro, registry
from archgauge.datasets.cache import cached_graphs, source_hashes
from archgauge.datasets.corpus import can_draw
from archgauge.datasets.download import verify
from archgauge.datasets.registry import BenchmarkRecord, benchmark_record, list_benchmarks, load_benchmark
from archgauge.encoders import onnx_reader
from archgauge.encoders.errors import ConfigError, DataError, DownloadError
from archgauge.encoders.graph import ArchGraph
from archgauge.predictor.model import Predictor

RECORDS = list_benchmarks()
WITH_FILES = [record for record in RECORDS if record.files]
SPECS = nas_bench_macro.sample(10, seed=0)


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_record_is_complete(record: BenchmarkRecord) -> None:
    assert all((record.title, record.citation, record.licence, record.relatives))
    assert all(task.label and (task.noise is None or 0 < task.noise < 15) for task in record.tasks)
    assert len({task.name for task in record.tasks}) == len(record.tasks) > 0
    assert not (record.files and record.definition)
    for file in (*record.files, *record.alternatives):
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/[\w./+-]+", file.url) or (
            not file.url and (file.table or re.fullmatch(r"[\w-]+==[\d.]+", file.package))
        )
        assert set(file.tasks) <= {task.name for task in record.tasks}
        assert 0 < file.size < 1 << 27
    assert record.folder + (f"/{record.space}" if record.space else "") == record.name


@pytest.mark.parametrize("record", WITH_FILES, ids=lambda record: record.name)
def test_record_fits_its_module(record: BenchmarkRecord) -> None:
    source = cache.builder(record.module, record.space)
    tasks = [task.name for task in record.tasks]
    assert tasks == [
        task for task in source.TASKS if task in tasks
    ]  # a module may know tasks that only official files have
    assert all(record.files_for(task) for task in tasks)
    assert not can_draw(record) or len(source.sample(3, 0)) == 3


def test_records_agree_with_what_was_published(benchmarks_root: Path) -> None:
    published = tomllib.loads((benchmarks_root / "UPSTREAM.toml").read_text())["file"]
    known = {(entry["benchmark"], entry["name"]): entry for entry in published}
    for record in WITH_FILES:
        for file in record.files:
            if not file.url:
                if file.table:
                    assert verify(record.path(file, benchmarks_root), sha256=file.sha256, size=file.size) is None
                continue
            entry = known[record.folder, file.name]
            assert (file.size, file.sha256) == (entry["bytes"], entry["sha256"])
            assert file.url.endswith(f"/{entry['repository']}/{entry['commit']}/{entry['path']}")
            assert record.licence == entry["licence"] or entry["licence"] == "none stated (as above)"


@pytest.mark.parametrize("record", [r for r in RECORDS if r.definition], ids=lambda record: record.name)
def test_spaces_known_by_definition_say_so(record: BenchmarkRecord, tmp_path: Path) -> None:
    source = cache.builder(record.module, record.space)
    assert {task.name for task in record.tasks} <= set(source.TASKS)
    assert len(source.sample(2, 0)) == 2
    assert not record.present(tmp_path)
    with pytest.raises(DataError):
        load_benchmark(record.name, root=tmp_path)


def test_a_missing_file_without_address_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pip download --no-deps nas-bench-graph==1\.4\.0"):
        load_benchmark("nas_bench_graph", root=tmp_path)
    with pytest.raises(DataError, match="not offered for download"):
        load_benchmark("enas_dvae", root=tmp_path)


def test_an_alternative_does_instead(benchmarks_root: Path, tmp_path: Path) -> None:
    record = benchmark_record("nas_bench_graph")
    (other,) = record.alternatives
    assert not record.present(tmp_path)
    path = record.path(other, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the wheel")
    assert record.present(tmp_path)
    with pytest.raises(DataError, match=re.escape(other.name)):
        load_benchmark("nas_bench_graph", root=tmp_path)


def test_labels_that_are_no_percent_teach_ranks(benchmarks_root: Path, tmp_path: Path) -> None:
    bench = load_benchmark("nas_bench_nlp", root=benchmarks_root, limit=30, cache=tmp_path)
    assert bench.unit == "minus nats per word"
    assert bench.accuracy.max() < 0
    model = Predictor(encoders=("statistics",), heads=("extra_trees",), seed=0).fit(bench)
    assert model.tasks == ()
    assert model.score(bench.graphs[:2])[0].accuracy is None


@pytest.mark.parametrize(
    ("name", "column", "growing"),
    [
        ("nas_bench_201", "raspi4_latency_ms", True),
        ("accel_nasbench", "throughput_a100_images_per_s", False),
        ("darts_trained/oncenas", "gpu_latency_ms", True),
    ],
)
def test_side_numbers_go_with_their_networks(
    name: str, column: str, growing: bool, benchmarks_root: Path, tmp_path: Path
) -> None:
    task = benchmark_record(name).task()
    bench = load_benchmark(name, side=True, root=benchmarks_root, limit=20, cache=tmp_path, workers=1)
    assert tuple(bench.side) == task.side
    assert all(values.shape == (20,) and np.isfinite(values).all() for values in bench.side.values())
    macs = [graph.macs for graph in bench.graphs]
    assert (spearmanr(macs, bench.side[column]).statistic > 0.3) == growing
    same = load_benchmark(name, side=True, root=benchmarks_root, limit=10, cache=tmp_path, workers=1)
    for spec, value in zip(same.names, same.side[column], strict=True):
        if spec in bench.names:
            assert bench.side[column][bench.names.index(spec)] == value
    assert load_benchmark(name, root=benchmarks_root, limit=20, cache=tmp_path).side == {}


def test_side_numbers_need_their_file_only_when_asked_for(benchmarks_root: Path, tmp_path: Path) -> None:
    record = benchmark_record("nas_bench_201")
    for file in record.files_for("cifar10"):
        path = record.path(file, tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(record.path(file, benchmarks_root))
    assert record.present(tmp_path, "cifar10")
    assert len(load_benchmark("nas_bench_201", root=tmp_path, limit=2, cache=tmp_path, workers=1)) == 2
    with pytest.raises(DataError, match=r"hw_nas_bench_cifar10\.csv\.gz"):
        load_benchmark("nas_bench_201", side=True, root=tmp_path, limit=2, cache=tmp_path)
    with pytest.raises(ConfigError, match="no side numbers for the task 'cifar100'; nas_bench_201:cifar10, "):
        load_benchmark("nas_bench_201", "cifar100", side=True, root=tmp_path)


def test_what_was_not_measured_is_nan() -> None:
    aligned = registry._aligned(["b", "x", "a"], ["a", "b"], {"ms": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(aligned["ms"], [2.0, np.nan, 1.0])


def test_a_task_may_have_a_unit_of_its_own() -> None:
    record = benchmark_record("transnas_bench_101/micro")
    assert {task.name: task.unit for task in record.tasks if task.unit != "percent"} == {"room_layout": "minus loss"}
    assert benchmark_record("nas_bench_nlp").task().unit == "minus nats per word"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_budgets_are_those_that_the_labels_state(record: BenchmarkRecord) -> None:
    for task in record.tasks:
        stated = [int(one or other) for one, other in re.findall(r"(\d+) epochs|epoch of (\d+)", task.label)]
        assert [task.epochs] == (stated or [None]), task.label


def test_relatives_of_one_origin_stay_together() -> None:
    relatives = {record.name: record.relatives for record in RECORDS}
    for one, other in (
        ("channel_bench_macro/resnet", "channel_bench_macro/mobilenet"),
        ("transnas_bench_101/micro", "transnas_bench_101/macro"),
        ("nas_bench_201", "nats_bench_sss"),
        ("imagenet_zoo/pytorchcv", "imagenet_zoo"),
    ):
        assert relatives[one] == relatives[other]
    assert len(set(relatives.values())) > 5


def test_all_names_can_be_told_apart() -> None:
    assert len({record.name for record in RECORDS}) == len(RECORDS)
    assert benchmark_record("nas_bench_201").task().name == "cifar10"


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("nasbench201", None, "no benchmark 'nasbench201' .perhaps 'nas_bench_201'"),
        ("xyz", None, "no benchmark 'xyz'; there are nas_bench_201, "),
        ("transnas_bench_101", None, "several spaces, name one of transnas_bench_101/micro, transnas_bench_101/macro"),
        (
            "nas_bench_201",
            "cifar-100",
            r"no task 'cifar-100' .perhaps 'cifar100'.*it has cifar10, cifar100, imagenet16_120",
        ),
        ("../nas_bench_201", None, "no benchmark"),
    ],
)
def test_unknown_names(name: str, task: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_benchmark(name, task)


def test_same_name_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "a", "title": "", "citation": "", "licence": "", "relatives": "", "module": "", "tasks": []}
    monkeypatch.setattr(tomllib, "load", lambda file: {"benchmark": [entry, entry]})
    with pytest.raises(ConfigError, match="'a' stands there twice"):
        registry._records.__wrapped__()


def test_space_that_the_module_has_not() -> None:
    with pytest.raises(ConfigError, match="has no space 'vgg'; it has resnet, mobilenet"):
        cache.builder("channel_bench_macro", "vgg")


# --- where files are --------------------------------------------------------------------------------------------------


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARCHGAUGE_DATA", str(tmp_path / "data"))
    assert registry.data_root() == tmp_path / "data"
    assert registry.data_root(tmp_path) == tmp_path
    monkeypatch.delenv("ARCHGAUGE_DATA")
    monkeypatch.setenv("ARCHGAUGE_CACHE", str(tmp_path / "cache"))
    assert registry.data_root() == tmp_path / "cache" / "benchmarks"
    monkeypatch.delenv("ARCHGAUGE_CACHE")
    assert cache.default_cache_dir().name == "archgauge"
    assert cache.default_cache_dir().is_absolute()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BenchmarkRecord:
    """NAS-Bench-Macro with ten networks, published as a file of this computer."""
    source = tmp_path / "published" / "nas-bench-macro_cifar10.json"
    source.parent.mkdir()
    keys = {"mean_acc": 90.0, "test_acc": [90.0] * 3, "std": 0, "params": 1, "flops": 1, "runs": 3}
    source.write_text(json.dumps({spec: {**keys, "mean_acc": 80.0 + at} for at, spec in enumerate(SPECS)}))
    content = source.read_bytes()
    real = benchmark_record("nas_bench_macro")
    file = replace(real.files[0], url=source.as_uri(), size=len(content), sha256=hashlib.sha256(content).hexdigest())
    record = replace(real, files=(file,))
    monkeypatch.setattr(registry, "_records", lambda: {record.name: record})
    monkeypatch.setenv("ARCHGAUGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ARCHGAUGE_CACHE", str(tmp_path / "cache"))
    return record


def test_missing_file_says_what_to_do(small: BenchmarkRecord, tmp_path: Path) -> None:
    assert not small.present()
    with pytest.raises(DataError) as caught:
        load_benchmark("nas_bench_macro")
    for part in (str(tmp_path / "data"), "ARCHGAUGE_DATA", "download=True", small.files[0].url, small.files[0].name):
        assert part in str(caught.value)


def test_downloads_and_loads(small: BenchmarkRecord, tmp_path: Path) -> None:
    bench = load_benchmark("nas_bench_macro", download=True)
    assert small.present()
    assert (tmp_path / "data" / "nas_bench_macro" / "raw" / small.files[0].name).exists()
    assert bench.names == tuple(SPECS)
    assert bench.accuracy.tolist() == [80.0 + at for at in range(10)]
    assert (bench.task, bench.licence, bench.label) == ("cifar10", small.licence, small.tasks[0].label)
    assert bench.epochs == small.tasks[0].epochs == 50
    for spec, graph in zip(SPECS, bench.graphs, strict=True):
        assert graph == onnx_reader.read(nas_bench_macro.build(spec, "cifar10"))
    again = load_benchmark("nas_bench_macro", root=tmp_path / "data")
    assert again.hashes == bench.hashes


def test_damaged_file_is_noticed_and_can_be_replaced(small: BenchmarkRecord) -> None:
    load_benchmark("nas_bench_macro", download=True)
    path = small.path(small.files[0])
    path.write_bytes(path.read_bytes().replace(b"80.0", b"99.0"))
    assert small.present()
    with pytest.raises(DataError, match=rf"{path}.*expected SHA-256 {small.files[0].sha256}, got [0-9a-f]{{64}}"):
        load_benchmark("nas_bench_macro")
    assert load_benchmark("nas_bench_macro", download=True).accuracy[0] == 80


def test_download_that_fails(small: BenchmarkRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "published" / small.files[0].name).unlink()
    with pytest.raises(DownloadError, match=small.files[0].name):
        load_benchmark("nas_bench_macro", download=True)


def test_limit_draws_before_building(small: BenchmarkRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    parts = [load_benchmark("nas_bench_macro", download=True, limit=4, seed=seed) for seed in (0, 0, 1)]
    assert parts[0].names == parts[1].names != parts[2].names
    assert len(built) == 8
    whole = load_benchmark("nas_bench_macro", limit=99)
    assert len(whole) == 10
    position = {name: at for at, name in enumerate(whole.names)}
    for part in parts:
        chosen = [position[name] for name in part.names]
        assert chosen == sorted(chosen)
        assert part.hashes == tuple(whole.hashes[at] for at in chosen)
        assert part.accuracy.tolist() == whole.accuracy[chosen].tolist()
    assert load_benchmark("nas_bench_macro", limit=4, seed=7).names
    assert len(built) == 18  # the last one came out of the cache of all
    with pytest.raises(ConfigError, match="limit is 0"):
        load_benchmark("nas_bench_macro", limit=0)


# --- the cache of graphs ----------------------------------------------------------------------------------------------


def count_builds(monkeypatch: pytest.MonkeyPatch, stop_at: int = -1) -> list[str]:
    """Specs that are built in this process from now on; building number `stop_at` is interrupted."""
    built: list[str] = []
    graph: Callable[[Any, str, str], ArchGraph] = cache._graph

    def counted(source: Any, spec: str, task: str) -> ArchGraph:
        if len(built) == stop_at:
            raise KeyboardInterrupt
        built.append(spec)
        return graph(source, spec, task)

    monkeypatch.setattr(cache, "_graph", counted)
    return built


def build(folder: Path, specs: list[str] = SPECS, **options: Any) -> Any:
    options = {"module": "nas_bench_macro", "cache": folder, "workers": 1, **options}
    return cached_graphs("folder/space", "cifar10", specs, **options)


def test_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    first, second = build(tmp_path), build(tmp_path)
    assert built == SPECS
    assert first.hashes == second.hashes
    [file] = (path for path in (tmp_path / "graphs").iterdir() if not path.name.startswith("."))
    assert re.fullmatch(r"folder-space-cifar10-[0-9a-f]{20}\.safetensors", file.name)


def test_what_it_is_made_from_is_in_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    build(tmp_path)
    build(tmp_path, SPECS[::-1])
    build(tmp_path, space="other")
    assert len(built) == 30
    monkeypatch.setattr(cache, "GRAPH_VERSION", 999)
    build(tmp_path)
    assert len(built) == 40
    sources = source_hashes("archgauge.datasets.nas_bench_macro")
    monkeypatch.setattr(cache, "source_hashes", lambda *modules: {**sources, "archgauge.datasets.onnx_builder": "x"})
    build(tmp_path)
    assert len(built) == 50


def test_sources_are_followed() -> None:
    found = source_hashes("archgauge.datasets.nats_bench_sss", "archgauge.encoders.onnx_reader")
    wanted = {"datasets.nats_bench_sss", "datasets.nas_bench_201", "datasets.onnx_builder"}
    wanted |= {"encoders.onnx_reader", "encoders.canonical", "encoders.graph"}
    assert {f"archgauge.{name}" for name in wanted} <= set(found)
    assert not any(name.startswith("archgauge.predictor") or not name.startswith("archgauge") for name in found)
    source = Path(importlib.import_module("archgauge.encoders.graph").__file__ or "").read_bytes()
    assert found["archgauge.encoders.graph"] == hashlib.sha256(source).hexdigest()


def test_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)
    with monkeypatch.context() as patch:
        count_builds(patch, stop_at=9)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path)
    built = count_builds(monkeypatch)
    store = build(tmp_path)
    assert built == SPECS[8:]
    assert store.hashes == build(tmp_path / "else").hashes
    assert not list(tmp_path.rglob("*.parts"))
    assert not list(tmp_path.rglob("*.tmp"))


def test_threads_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    stores: list[Any] = []
    threads = [threading.Thread(target=lambda: stores.append(build(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == SPECS
    assert len(stores) == 4
    assert len({store.hashes for store in stores}) == 1


def test_several_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 3)
    built = count_builds(monkeypatch)
    build(tmp_path / "two", workers=2)
    assert built == []
    monkeypatch.setattr(cache, "CHUNK", 1_000)
    build(tmp_path / "one")
    one, two = (sorted((tmp_path / name / "graphs").glob("*.safetensors")) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert one[0].read_bytes() == two[0].read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_network_that_cannot_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(cache, "CHUNK", 2)
    with pytest.raises(DataError, match=r"the network .99. .task .cifar10.. cannot be built"):
        build(tmp_path, [*SPECS, "99"], workers=workers)
    assert not list(tmp_path.rglob("folder*.safetensors"))


def test_wrong_number_of_workers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers is 0"):
        build(tmp_path, workers=0)


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")
    build(tmp_path / "shown", progress=True)
    shown = capsys.readouterr()
    assert "folder-space-cifar10" in shown.err
    assert shown.out == ""


# --- the real thing ---------------------------------------------------------------------------------------------------


def check_real(record: BenchmarkRecord, root: Path) -> None:
    assert record.present(root)
    for task in record.tasks:
        bench = load_benchmark(record.name, task.name, root=root, limit=4)
        assert len(bench) == 4
        assert bench.params.max() > 0  # a cell without a path from input to output has none
        assert (bench.name, bench.task, bench.relatives) == (record.name, task.name, record.relatives)
        assert bench.graphs[0].unknown_ops == ()


@pytest.mark.parametrize("name", ["nas_bench_201", "nas_bench_macro", "channel_bench_macro/resnet"])
def test_real_files(name: str, benchmarks_root: Path) -> None:
    check_real(benchmark_record(name), benchmarks_root)


@pytest.mark.slow
@pytest.mark.parametrize("record", WITH_FILES, ids=lambda record: record.name)
def test_all_real_files(record: BenchmarkRecord, benchmarks_root: Path) -> None:
    if all(file.package for file in record.files) and not record.present(benchmarks_root):
        pytest.skip(f"needs the package {record.files[0].package} among the benchmark files")
    check_real(record, benchmarks_root)


def test_best_cell_of_nas_bench_201(benchmarks_root: Path) -> None:
    record = benchmark_record("nas_bench_201")
    best = []
    for task in record.tasks:
        paths = registry.raw_paths(record, task.name, root=benchmarks_root)
        specs, accuracy = cache.builder(record.module).read_labels(paths, task.name)
        assert len(specs) == 15_625
        best.append(round(float(accuracy.max()), 2))
    assert best == [94.37, 73.51, 47.31]  # Dong & Yang 2020, table 5
