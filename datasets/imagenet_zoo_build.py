"""Rebuilds the shipped networks of `imagenet_zoo`: `python -m archgauge.datasets.imagenet_zoo_build [--timm]`.

Every torchvision and pytorchcv classification network is built (on the meta device where it can be; no weights are
fetched), exported to a weightless ONNX model and read. Exports run in worker processes, which are replaced when they
crash or take too long, and are kept in a cache folder, so that an interrupted run goes on where it stopped. The labels
are parsed from the installed packages: weight enums of torchvision, tables in the package description of pytorchcv.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from ..encoders.errors import ArchGaugeError, DataError
from ..encoders.files import replacing
from ..encoders.graph import ArchGraph
from ..encoders.onnx_reader import read
from . import imagenet_zoo, imagenet_zoo_timm
from .graph_store import GraphStore
from .imagenet_zoo import Entry
from .registry import benchmark_record, raw_paths
from .xz_table import write_xz_table

WORKER_FLAG = "--worker"
_JOBS_PER_WORKER = 60
_CLASSES = 1000

_FAMILIES = {
    "alexnet": "alexnetb?|zfnetb?",
    "vgg": r"(?:bn_)?vgg\d+b?",
    "squeezenet": r"squeezenet|squeezeresnet",
    "squeezenext": r"sqnxt",
    # the residual trunk with other blocks, widths, dilations, groups, attention and normalisation
    "resnet": (
        r"(?:wide_|pre|se|sepre|ibnb?_|bam_|cbam_)?resnet(?:a|d|bc|abc|dbc)?\d+b?|resnest(?:a|bc|abc)?\d+|wrn\d+|"
        r"(?:se|ibn_)?resnext\d+|senet\d+|air(?:net|next)\d+|sc(?:net|neta)\d+|pyramidnet\d+|drn[cd]\d+|bagnet\d+"
    ),
    "diracnet": r"diracnet\d+v2",
    "irevnet": "irevnet",
    "regnet": r"regnet[xy]?",
    "densenet": r"(?:ibn_)?densenet\d+|condensenet\d+|peleenet",
    "hardnet": "hardnet",
    "vovnet": r"vovnet\d+s?",
    "dla": r"dla\d+x?c?",
    "dpn": "dpn",
    "darknet": "darknet",
    "fishnet": "fishnet",
    "hrnet": r"hrnet(?:v2)?",
    "selecsls": r"selecsls\d+b?",
    "inception": r"googlenet|bninception|inception_?v\d|inceptionresnetv\d|polynet",
    "xception": "xception",
    "nasnet": "nasnet|pnasnet5large|darts",
    "mobilenetv2": r"mobilenet_?v2b?|igcv3",
    "mobilenetv3": r"mobilenet_?v3",
    "mobilenet": "(?:fd)?mobilenetb?",
    "mnasnet": r"mnasnet|proxylessnas|spnasnet|fbnet",
    "mixnet": "mixnet",
    "efficientnet": "efficientnet",
    "shufflenet": r"shufflenet_g\d|menet\d+",
    "shufflenetv2": r"shufflenet_?v2b?",
    "espnetv2": "espnetv2",
    "dicenet": "dicenet",
    "convnext": "convnext",
    "swin": "swin",
    "maxvit": "maxvit",
    "vit": "vit",
}
"""Family -> pattern of the beginning of its models' names; the first that fits counts."""


@dataclass(frozen=True, order=True)
class Job:
    """One network to export: package, model name, image side in pixels."""

    package: str
    name: str
    image_size: int

    def path(self, cache: Path) -> Path:
        """Where the export is kept; the package's version is part of it."""
        return cache / f"{self.package}-{metadata.version(self.package)}" / f"{self.name}@{self.image_size}.onnx"


def torchvision_entries() -> list[Entry]:
    """Published ImageNet-1k results of torchvision's classification networks, one entry a set of weights."""
    from torchvision import models

    version, entries = metadata.version("torchvision"), []
    for name in sorted(models.list_models(module=models)):
        for weights in models.get_model_weights(name):
            measured = weights.meta["_metrics"].get("ImageNet-1K", {})
            if not math.isfinite(measured.get("acc@1", math.nan)):
                continue  # VGG-16 features for detection: no classifier
            tag = weights.name
            extra = "SWAG" in tag
            entries.append(
                Entry(
                    package="torchvision",
                    version=version,
                    name=name,
                    weights=tag,
                    family=family_of(name),
                    top1=float(measured["acc@1"]),
                    top5=float(measured["acc@5"]),
                    params=int(weights.meta["num_params"]),
                    gmacs=float(weights.meta["_ops"]),
                    image_size=int(weights.transforms.keywords["crop_size"]),
                    extra_data="instagram-3.6b" if extra else "",
                    recipe="extra_data" if extra else "scratch",
                    remark=str(weights.meta.get("recipe", "")),
                    licence="BSD-3-Clause",
                )
            )
    return entries


def pytorchcv_entries() -> list[Entry]:
    """Published ImageNet-1k results of pytorchcv's networks.

    Raises:
        DataError: The package's tables do not look as expected.
    """
    text = metadata.metadata("pytorchcv").json["description"]
    found = re.search(r"^### ImageNet-1K$(.*?)^### ", str(text), re.MULTILINE | re.DOTALL)
    if found is None:
        raise DataError("the description of pytorchcv has no section 'ImageNet-1K': install pytorchcv 0.0.74")
    table = resources.files("pytorchcv") / "models" / "common" / "model_metainfos.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    known = {row["model_name"]: row for row in csv.DictReader(lines) if row["test_dataset"] == "in1k"}
    version, entries = metadata.version("pytorchcv"), []
    for line in found[1].splitlines():
        log = re.search(r"/([A-Za-z0-9_]+)-\d+-[0-9a-f]{8}\.pth\.log\)", line)
        if log is None:
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        name = log[1]
        if len(cells) != 6 or name not in known:
            raise DataError(f"pytorchcv's table row of {name!r} has {len(cells)} cells and no known model, expected 6")
        entries.append(
            Entry(
                package="pytorchcv",
                version=version,
                name=name,
                weights="",
                family=family_of(name),
                top1=round(100 - float(cells[1].rstrip("*")), 2),
                top5=round(100 - float(cells[2].rstrip("*")), 2),
                params=int(cells[3].replace(",", "")),
                gmacs=round(float(cells[4].replace(",", "").removesuffix("M")) / 1000, 5),
                image_size=int(size) if (size := known[name]["img_size"]).isdigit() else 224,
                extra_data="",
                recipe="scratch",
                remark=re.sub(r"\s*\(\[log\].*", "", cells[5]),
                licence="MIT",
            )
        )
    return entries


def family_of(name: str) -> str:
    """The architecture family of a model of either package.

    Families are wide on purpose, so that no close relative of a network stays behind when its family is left out.

    Raises:
        DataError: The name fits no family.
    """
    for family, pattern in _FAMILIES.items():
        if re.match(rf"(?:{pattern})(?![a-z])", name):
            return family
    raise DataError(f"the model {name!r} belongs to no known family: add it to _FAMILIES")


def unite_families(rows: Sequence[Entry]) -> list[Entry]:
    """Merges families that have a graph in common; the first name in alphabetical order stays."""
    joined = imagenet_zoo.join_families([(entry.graph, entry.family) for entry in rows])
    return [replace(entry, family=joined[entry.family]) for entry in rows]


def build_network(package: str, name: str, image_size: int) -> Any:
    """The torch module in inference mode, on the meta device where the package allows it; no weights are fetched."""
    import torch

    try:
        with torch.device("meta"):
            return _construct(package, name, image_size).eval()
    except NotImplementedError:  # torchvision's RegNet works out its widths with tensors
        return _construct(package, name, image_size).eval()


def _construct(package: str, name: str, image_size: int) -> Any:
    if package == "torchvision":
        from torchvision import models

        # other sizes than a vision transformer's own have other position tables
        sized = {"image_size": image_size} if name.startswith("vit_") else {}
        return models.get_model(name, weights=None, **sized)
    if package == "timm":
        return _construct_timm(name, image_size)
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False)


def _construct_timm(name: str, image_size: int) -> Any:
    """A timm network; those whose weights depend on the resolution are told it, the others take no such argument."""
    import timm

    try:
        return timm.create_model(name, pretrained=False, num_classes=_CLASSES, img_size=image_size)
    except TypeError:
        return timm.create_model(name, pretrained=False, num_classes=_CLASSES)


def export_network(job: Job, target: Path) -> None:
    """Writes the weightless ONNX model of one network."""
    from ..encoders.torch_reader import export

    proto = export(build_network(job.package, job.name, job.image_size), (1, 3, job.image_size, job.image_size))
    with replacing(target) as file:
        file.write(proto.SerializeToString(deterministic=True))


def worker() -> None:
    """Exports the networks named on standard input, one a line; answers each with one line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print does not mix with the answers
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        package, name, image_size, target = line.rstrip("\n").split("\t")
        try:
            export_network(Job(package, name, int(image_size)), Path(target))
            answer = "ok"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        answers.write(answer + "\n")
        answers.flush()


def export_all(jobs: Sequence[Job], cache: Path, *, workers: int = 2, timeout: float = 600.0) -> dict[Job, str]:
    """Exports what the cache lacks, in worker processes.

    Args:
        jobs: Networks to export.
        cache: Folder for the exports.
        workers: Worker processes.
        timeout: Seconds after which a worker is ended and its network given up.

    Returns:
        The networks that failed, with the reason.
    """
    todo: SimpleQueue[Job] = SimpleQueue()
    missing = [job for job in jobs if not job.path(cache).exists()]
    for job in missing:
        todo.put(job)
    failures: dict[Job, str] = {}
    done, start, lock = [0], time.monotonic(), threading.Lock()

    def serve() -> None:
        process, served = None, 0
        try:
            while True:
                try:
                    job = todo.get_nowait()
                except Empty:
                    return
                if process is None or served >= _JOBS_PER_WORKER:
                    _end(process)
                    process, served = _start_worker(), 0
                served += 1
                answer = _ask(process, job, job.path(cache), timeout)
                if answer != "ok":
                    failures[job] = answer or f"the worker crashed or took more than {timeout:.0f} s"
                    if not answer:
                        _end(process)
                        process = None
                with lock:
                    done[0] += 1
                    elapsed = time.monotonic() - start
                    _say(f"[{done[0]}/{len(missing)}] {elapsed:6.0f} s {job.package} {job.name}: {answer[:150]}")
        finally:
            _end(process)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(max(1, min(workers, len(missing))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(sorted(failures.items()))


def _start_worker() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, WORKER_FLAG]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def _ask(process: subprocess.Popen[str], job: Job, target: Path, timeout: float) -> str:
    """The worker's answer; empty if it died."""
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        stdin, stdout = _pipes(process)
        stdin.write("\t".join((job.package, job.name, str(job.image_size), str(target))) + "\n")
        stdin.flush()
        return stdout.readline().strip()
    except OSError:
        return ""
    finally:
        timer.cancel()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise OSError("the worker has no pipes")
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[str] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # a killed worker leaves a line unread
                    pipe.close()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def build(cache: Path, *, workers: int, timeout: float) -> int:
    """Exports, reads and writes everything; returns the number of networks that had to be left out."""
    rows = sorted(torchvision_entries() + pytorchcv_entries(), key=lambda entry: entry.title)
    graphs, failures = _read_all(sorted({_job(entry) for entry in rows}), cache, workers, timeout)
    places: dict[tuple[str, int], int] = {}  # graphs that differ in stored parameters only are kept apart
    stored: list[ArchGraph] = []
    kept: list[Entry] = []
    for row in rows:
        graph = graphs.get(_job(row))
        if graph is not None:
            place = places.setdefault((graph.hash, graph.params), len(stored))
            if place == len(stored):
                stored.append(graph)
            kept.append(replace(row, graph=graph.hash, place=place))
    kept = unite_families(kept)
    GraphStore.from_graphs(stored).save_compressed(imagenet_zoo.GRAPHS_PATH)
    write_xz_table(imagenet_zoo.TABLE_PATH, kept)
    size = imagenet_zoo.GRAPHS_PATH.stat().st_size + imagenet_zoo.TABLE_PATH.stat().st_size
    families = len({row.family for row in kept})
    _say(f"{len(kept)} results, {len(stored)} graphs, {families} families, {size / 1e3:.0f} kB")
    return len(failures)


def build_timm(cache: Path, *, workers: int, timeout: float) -> int:
    """The same for the networks of timm that have a published accuracy; needs the table with those (ARCHGAUGE_DATA)."""
    results = imagenet_zoo_timm.read_results(raw_paths(benchmark_record(imagenet_zoo_timm.NAME), imagenet_zoo.TASK))
    jobs = [Job("timm", result.arch, result.image_size) for result in results]
    graphs, failures = _read_all(jobs, cache, workers, timeout)
    rows = [
        imagenet_zoo_timm.Network(job.name, job.image_size, graph.hash, place)
        for place, (job, graph) in enumerate(graphs.items())
    ]
    imagenet_zoo_timm.write(rows, GraphStore.from_graphs(graphs.values()))
    size = imagenet_zoo_timm.GRAPHS_PATH.stat().st_size + imagenet_zoo_timm.NETWORKS_PATH.stat().st_size
    _say(f"{len(rows)} networks of timm, {len({row.graph for row in rows})} graphs, {size / 1e3:.0f} kB")
    return len(failures)


def _read_all(
    jobs: Sequence[Job], cache: Path, workers: int, timeout: float
) -> tuple[dict[Job, ArchGraph], dict[Job, str]]:
    """The graphs of networks, exported first where that was not done, and why some have none."""
    failures = export_all(jobs, cache, workers=workers, timeout=timeout)
    graphs: dict[Job, ArchGraph] = {}
    for job in jobs:
        if job in failures:
            continue
        try:
            graphs[job] = read(job.path(cache))
        except ArchGaugeError as error:
            failures[job] = str(error)
    for job, reason in failures.items():
        _say(f"left out: {job.package} {job.name} at {job.image_size} pixels: {reason}")
    return graphs, failures


def _job(entry: Entry) -> Job:
    return Job(entry.package, entry.name, entry.image_size)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=Path("zoo_onnx"), help="folder for the exports (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="seconds a network may take (default: %(default)s)"
    )
    parser.add_argument("--timm", action="store_true", help="the networks of timm instead (imagenet_zoo_timm.xz)")
    parser.add_argument(WORKER_FLAG, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker()
    else:
        make = build_timm if options.timm else build
        raise SystemExit(1 if make(options.cache, workers=options.workers, timeout=options.timeout) else 0)


if __name__ == "__main__":
    main()
