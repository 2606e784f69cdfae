"""A saved predictor: a folder of JSON and safetensors, written in one step and checked when read.

    config.json         format number, library versions, options, encoders with their columns, training data, hashes
    calibration.json    blend of the heads, accuracy maps per task
    arrays.safetensors  every array: MLP weights, Gaussian processes, trees, the reference for distances
    card.md             the model card

A fine-tuned predictor keeps the one it started from in the same folder; the names of its files begin with `prior_`.
Nothing is pickled, so loading runs no code from the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import CheckpointError, ConfigError, OutputError
from ..encoders.files import make_folder

FORMAT = 6
"""Number of the folder's format; another one cannot be read.

1: boosted trees were text, far heads apart. 2: a Gaussian process had one length, labels no epochs.
3: size was a mean of two measures. 4: a fine-tuned predictor saw the score it started from and nothing else it says.
5: a Gaussian process learnt from one draw of the rows.
"""
CONFIG = "config.json"
KIND = "archgauge.predictor"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a predictor was fitted with."""
    found = {}
    for name in ("archgauge", "lightgbm", "numpy", "onnx", "scikit-learn", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def as_json(value: Any) -> bytes:
    """JSON text of a value, the same bytes every time; nan becomes null, infinities the strings "inf" and "-inf"."""
    return (json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def as_safetensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays in the safetensors format, the same bytes every time."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def from_safetensors(content: bytes, file: Path) -> dict[str, NDArray[Any]]:
    """The arrays that `as_safetensors` wrote.

    Raises:
        CheckpointError: The content is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(content))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error}): save or fetch it again") from error


def write_folder(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> Path:
    """Write a predictor's files to a temporary folder beside `folder`, then put it in place.

    `files` must hold `config.json`; hashes of the others are entered there. A predictor that is there already is
    replaced, anything else is left alone.

    Raises:
        ConfigError: The folder exists and holds something other than a predictor.
        OutputError: It cannot be written.
    """
    target = Path(folder).resolve()
    _check_replaceable(target)
    make_folder(target.parent)
    try:
        return _write_folder(target, files)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error}); choose another place") from error


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not (target.is_dir() and ((target / CONFIG).is_file() or not any(target.iterdir()))):
        raise ConfigError(f"{target} exists and is no saved predictor: choose another folder, or remove it first")
    if (target / CONFIG).is_file():
        listed = parse_json((target / CONFIG).read_bytes(), target / CONFIG)
        known = set(listed.get("files", {})) if isinstance(listed, dict) else set()
        strange = sorted(path.name for path in target.iterdir() if path.name not in known | {CONFIG})
        if strange:
            raise ConfigError(
                f"{target} holds {strange[0]!r}, which no predictor wrote: move it, or choose another folder"
            )


def _write_folder(target: Path, files: Mapping[str, bytes]) -> Path:
    config = json.loads(files[CONFIG])
    config["files"] = {name: sha256(files[name]).hexdigest() for name in sorted(files) if name != CONFIG}
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made.chmod(0o755)
        for name, content in {**files, CONFIG: as_json(config)}.items():
            (made / name).write_bytes(content)
        if target.exists():
            old = made.with_name(f"{made.name}-old")
            target.replace(old)
            made.replace(target)
            shutil.rmtree(old)
        else:
            made.replace(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def read_folder(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    """The files of a saved predictor, checked: format, completeness and hashes.

    Raises:
        CheckpointError: The folder is no predictor, of another format, incomplete or damaged.
    """
    source = Path(folder)
    head = source / CONFIG
    config = parse_json(_read(head, "this folder holds no saved predictor: give the folder that `save` wrote"), head)
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise CheckpointError(f"{head}: this is not the configuration of a predictor, expected kind {KIND!r}")
    number = config.get("format")
    if not isinstance(number, int) or number < 1:
        raise CheckpointError(f"{head}: the format is {number!r}, expected {FORMAT}")
    if number != FORMAT:
        written = config.get("versions", {}).get("archgauge", "another version")
        advice = "upgrade archgauge to load it" if number > FORMAT else "train it again with this archgauge"
        raise CheckpointError(
            f"{head}: the format is {number}, expected {FORMAT}: it was saved by archgauge {written}; {advice}"
        )
    files = {CONFIG: head.read_bytes()}
    for name, expected in config.get("files", {}).items():
        if Path(name).name != name:
            raise CheckpointError(f"{head}: lists the file {name!r}, expected plain file names")
        content = _read(source / name, f"{CONFIG} lists it: the folder is incomplete, save or fetch it again")
        got = sha256(content).hexdigest()
        if got != expected:
            raise CheckpointError(
                f"{source / name}: damaged or edited, expected SHA-256 {expected[:16]}..., got {got[:16]}...: "
                "save or fetch it again"
            )
        files[name] = content
    return files


def parse_json(content: bytes, file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        CheckpointError: The content is not JSON.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}): save or fetch it again") from error


def check_columns(saved: Mapping[str, Any], current_version: int, current: Iterable[str], file: Path) -> None:
    """Compare an encoder as saved with the one installed.

    Raises:
        CheckpointError: Version or columns differ.
    """
    name, columns = saved["name"], tuple(current)
    if saved["version"] != current_version:
        raise CheckpointError(
            f"{file}: encoder {name!r} has version {saved['version']}, this archgauge has {current_version}: "
            f"load it with the archgauge that saved it ({saved.get('archgauge', 'see versions')}), or fit again"
        )
    if tuple(saved["columns"]) != columns:
        different = sorted(set(saved["columns"]).symmetric_difference(columns)) or ["their order"]
        raise CheckpointError(
            f"{file}: encoder {name!r} has {len(saved['columns'])} columns, this archgauge has {len(columns)}; they "
            f"differ in {', '.join(different[:5])}: load it with the archgauge that saved it, or fit again"
        )


def _read(file: Path, otherwise: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error}); {otherwise}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
