"""The compact transformer over tokens of descriptions: segments are encoded by themselves, then the text from them.

Two stages. Segments of a text (`Tokenizer.segments`) go through a small transformer with rotary positions (Su et al.
2021), pre-normalisation (Xiong et al. 2020) and gated units (Shazeer 2020), and become one vector each. A second, even
smaller one goes over the vectors of a text in order, each with the number of times that its segment is carried out. As
segments know nothing of each other, one that occurs in several texts is encoded once.

Beside the transformers a wide, linear part (Cheng et al. 2016) counts pairs of an operator and a token of its
statement, each as often as it is carried out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log1p
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import CheckpointError
from .files import replacing
from .tokenizer import TOKENIZER_VERSION, Segment

_TOKENS_AT_ONCE = 8192
_SEGMENTS_AT_ONCE = 4096
_BASE = 1000.0
_WIDE_SCALE = 0.25
_MOST_KNOWN = 50_000
Tokens = tuple[int, ...]


class TextParts(NamedTuple):
    """Texts by their different segments.

    Attributes:
        segments: The different segments, in order of appearance.
        documents: Positions of the segments of every text.
        times: How often each of these is carried out.
    """

    segments: list[Tokens]
    documents: list[list[int]]
    times: list[list[int]]


@dataclass(frozen=True)
class TextModelShape:
    """Sizes of a `TextModel`.

    Attributes:
        tokens: Different tokens.
        targets: Numbers that the model can say about a text (statistics in pretraining).
        width: Channels of the first stage.
        layers: Layers of the first stage.
        document_width: Channels of the second stage.
        document_layers: Layers of the second stage.
        heads: Attention heads of both stages.
        embedding: Channels of the vector of a text.
        segment: Most tokens of a segment.
        window: Most segments that the second stage sees at once; of longer texts the windows' vectors are averaged.
        wide: Slots of the wide part, over which pairs are spread.
    """

    tokens: int
    targets: int
    width: int = 128
    layers: int = 3
    document_width: int = 192
    document_layers: int = 2
    heads: int = 4
    embedding: int = 128
    segment: int = 160
    window: int = 256
    wide: int = 2048


def _rotation(length: int, channels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (length, channels / 2) of rotary positions."""
    rates = _BASE ** (-torch.arange(0, channels, 2) / channels)
    angles = torch.arange(length)[:, None] * rates
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = (part[: x.shape[-2]].to(x.dtype) for part in rotation)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), -1)


class _Layer(nn.Module):
    """Self-attention and gated units, each behind a norm and around which the signal passes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = 2 * width
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.units_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: tuple[Tensor, Tensor]) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(self.attention_norm(x)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            _rotated(q, rotation), _rotated(k, rotation), v, attn_mask=mask
        )
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, width))
        units, gate = self.up(self.units_norm(x)).chunk(2, -1)
        result: Tensor = x + self.down(units * functional.silu(gate))
        return result


def _pooled(x: Tensor, present: Tensor, logarithms: Tensor) -> Tensor:
    """Mean, maximum and log of the sum of exponentials over what is present, and log of how much: (n, 3 * width + 1).

    Sizes and costs add up over a network, and are told as logarithms: so do the sums of exponentials.

    Args:
        x: (n, length, width).
        present: (n, length) what counts.
        logarithms: (n, length) natural logarithm of how often each counts in the sums.
    """
    missing = ~present.unsqueeze(-1)
    count = present.sum(1, keepdim=True).to(x.dtype)
    mean = x.masked_fill(missing, 0.0).sum(1) / count
    highest = x.masked_fill(missing, float("-inf")).amax(1)
    often = logarithms.masked_fill(~present, float("-inf"))
    total = (x + often.unsqueeze(-1)).logsumexp(1)
    return torch.cat((mean, highest, total, often.logsumexp(1, keepdim=True)), -1)


class TextModel(nn.Module):
    """Tokens of segments to a vector of every text, and from it to numbers about the text.

    Args:
        shape: Sizes.
        magnitudes: (tokens, 3) what can be seen of every token, see `Tokenizer.magnitudes`.
        seed: Seed of the weights.
    """

    magnitudes: Tensor

    def __init__(self, shape: TextModelShape, magnitudes: Tensor, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        width, wide = shape.width, shape.document_width
        self.register_buffer("magnitudes", magnitudes[:, :2] / torch.tensor([1.0, 16.0]), persistent=False)
        self._operators = frozenset(magnitudes[:, 2].nonzero()[:, 0].tolist())
        self._known_pairs: dict[Tokens, list[tuple[int, int]]] = {}
        self.token = nn.Embedding(shape.tokens, width)
        self.magnitude = nn.Linear(2, width, bias=False)
        self.layers = nn.ModuleList(_Layer(width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        self.guess = nn.Linear(width, width)
        self.segment = nn.Linear(3 * width + 1, wide)
        self.document_layers = nn.ModuleList(_Layer(wide, shape.heads) for _ in range(shape.document_layers))
        self.document_norm = nn.LayerNorm(wide)
        self.document = nn.Linear(3 * wide + 1, 2 * shape.embedding)
        self.vector = nn.Linear(2 * shape.embedding, shape.embedding)
        self.often = nn.Linear(1, wide, bias=False)
        self.wide = nn.EmbeddingBag(shape.wide, shape.embedding, mode="sum")
        self.says = nn.Linear(shape.embedding, shape.targets)
        self._rotation = _rotation(shape.segment, width // shape.heads)
        self._document_rotation = _rotation(shape.window, wide // shape.heads)
        self._start(seed)

    def _start(self, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    scale = {"token.weight": 0.05, "wide.weight": 0.0}.get(name, parameter.shape[1] ** -0.5)
                    if name.endswith(("out.weight", "down.weight")):
                        scale *= 0.5
                    parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
                elif "bias" in name:
                    parameter.zero_()

    def token_states(self, tokens: Tensor, present: Tensor) -> Tensor:
        """States (n, length, width) of the tokens (n, length) of segments; `present` marks those that count."""
        x = self.token(tokens) + self.magnitude(self.magnitudes[tokens])
        mask = None if bool(present.all()) else present[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask, self._rotation)
        return torch.as_tensor(self.norm(x))

    def guesses(self, states: Tensor) -> Tensor:
        """Logits (n, tokens) of the tokens that stand where the states (n, width) come from."""
        return functional.gelu(self.guess(states)) @ self.token.weight.T

    def encode_segments(self, segments: Sequence[Sequence[int]]) -> Tensor:
        """Vectors (n, document_width) of segments."""
        if not segments:
            return torch.zeros(0, self.shape.document_width)
        order = sorted(range(len(segments)), key=lambda i: len(segments[i]))
        found: list[Tensor] = []
        for at in batches([len(segments[i]) for i in order], _TOKENS_AT_ONCE):
            tokens, present = padded([segments[order[i]] for i in at])
            states = self.token_states(tokens, present)
            found.append(self.segment(_pooled(states, present, torch.zeros(tokens.shape))))
        places = torch.empty(len(order), dtype=torch.long)
        places[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(found)[places]

    def encode_documents(self, vectors: Tensor, parts: TextParts) -> Tensor:
        """Vectors (n, embedding) of texts from those of their different segments."""
        if not parts.documents:
            return torch.zeros(0, self.shape.embedding)
        window = self.shape.window
        windows = [
            (row, slice(start, start + window))
            for row, document in enumerate(parts.documents)
            for start in range(0, max(1, len(document)), window)
        ]
        blank = len(vectors)
        vectors = torch.cat((vectors, vectors.new_zeros(1, vectors.shape[1])))
        lengths = [max(1, len(parts.documents[row][cut])) for row, cut in windows]
        order = sorted(range(len(windows)), key=lambda i: lengths[i])
        found: list[Tensor] = []
        for at in batches([lengths[i] for i in order], _SEGMENTS_AT_ONCE):
            chosen = [windows[order[i]] for i in at]
            places, present = padded([parts.documents[row][cut] or [blank] for row, cut in chosen])
            often = padded([parts.times[row][cut] or [1] for row, cut in chosen])[0].clamp(min=1).log()
            x = vectors[places] + self.often(often.unsqueeze(-1))
            mask = None if bool(present.all()) else present[:, None, None, :]
            for layer in self.document_layers:
                x = layer(x, mask, self._document_rotation)
            found.append(self.vector(functional.silu(self.document(_pooled(self.document_norm(x), present, often)))))
        rows = torch.tensor([windows[i][0] for i in order])
        total = torch.zeros(len(parts.documents), self.shape.embedding).index_add(0, rows, torch.cat(found).float())
        return total / torch.bincount(rows, minlength=len(parts.documents))[:, None] + self._counted(parts)

    def _counted(self, parts: TextParts) -> Tensor:
        """What the wide part says: (n, embedding)."""
        slots: list[int] = []
        counts: list[float] = []
        starts: list[int] = []
        for document, times in zip(parts.documents, parts.times, strict=True):
            total: dict[int, int] = {}
            for at, often in zip(document, times, strict=True):
                for slot, count in self._pairs(parts.segments[at]):
                    total[slot] = total.get(slot, 0) + often * count
            starts.append(len(slots))
            slots += total
            counts += [log1p(count) for count in total.values()]
        weights = torch.tensor(counts) * _WIDE_SCALE
        places = torch.tensor(slots, dtype=torch.long)
        return torch.as_tensor(self.wide(places, torch.tensor(starts), per_sample_weights=weights))

    def _pairs(self, segment: Tokens) -> list[tuple[int, int]]:
        """Slots of the pairs of an operator and a token of its statement, and how many there are of each."""
        found = self._known_pairs.get(segment)
        if found is None:
            total: dict[int, int] = {}
            operator = 0
            for token in segment:
                operator = token if token in self._operators else operator
                slot = (operator * 1009 + token) % self.shape.wide
                total[slot] = total.get(slot, 0) + 1
            if len(self._known_pairs) >= _MOST_KNOWN:
                self._known_pairs.clear()
            found = self._known_pairs[segment] = list(total.items())
        return found

    def forward(self, parts: TextParts) -> Tensor:
        """Vectors (n, embedding) of texts."""
        return self.encode_documents(self.encode_segments(parts.segments), parts)


def batches(lengths: Sequence[int], most: int) -> list[range]:
    """Cuts rows, whose lengths ascend, into ranges that take at most about `most` places when padded."""
    found: list[range] = []
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or (end + 1 - start) * lengths[end] > most or lengths[end] > 1.25 * lengths[start] + 8:
            found.append(range(start, end))
            start = end
    return found


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of numbers in one table (n, longest), filled up with 0, and which of its places they take."""
    longest = max(map(len, rows))
    table = torch.tensor([[*row, *([0] * (longest - len(row)))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return table, torch.arange(longest) < lengths[:, None]


def in_segments(texts: Sequence[Sequence[Segment]]) -> TextParts:
    """Texts by their different segments."""
    places: dict[Tokens, int] = {}
    documents = [[places.setdefault(segment.tokens, len(places)) for segment in text] for text in texts]
    return TextParts(list(places), documents, [[segment.times for segment in text] for text in texts])


def save_model(model: TextModel, file: str | os.PathLike[str]) -> None:
    """Writes a model's sizes and weights; numbers are rounded to 16 bits.

    Raises:
        OutputError: The file cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().half().contiguous() for name, tensor in sorted(model.state_dict().items())}
    metadata = {"shape": json.dumps(asdict(model.shape)), "tokenizer": str(TOKENIZER_VERSION)}
    with replacing(file) as stream:
        stream.write(save(tensors, metadata))


def load_model(file: str | os.PathLike[str], magnitudes: Tensor) -> TextModel:
    """The model that `save_model` wrote, ready to be used.

    Args:
        file: The file.
        magnitudes: See `TextModel`.

    Raises:
        CheckpointError: The file is missing, damaged, or of another version of the tokenizer.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(file), "pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
        shape = TextModelShape(**json.loads(metadata["shape"]))
        if metadata["tokenizer"] != str(TOKENIZER_VERSION):
            raise CheckpointError(
                f"{file}: made for version {metadata['tokenizer']} of the tokenizer, expected {TOKENIZER_VERSION}"
            )
        model = TextModel(shape, magnitudes)
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: holds no text model ({error}); write it again") from error
    return model.eval()
