"""Networks by name, `library:model`, built without weights, without memory for them, and without the network.

    torchvision:resnet50                                 any name of `torchvision.models.list_models`
    timm:resnet50.a1_in1k?num_classes=10                 any name of timm, with or without the tag of its weights
    pytorchcv:resnet50                                   any name of `pytorchcv.model_provider`
    transformers:bert-base-uncased                       a well-known name, from a table of published configurations
    transformers:GPT2LMHeadModel?n_layer=6&n_embd=384    a class of transformers, with the defaults of its configuration
    transformers:some/folder                             a local config.json

What follows `?` goes to the library: keyword arguments of the factory, or values of the transformers configuration.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ReadError
from .names import perhaps
from .quiet import one_line, quiet

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torchvision", "timm", "pytorchcv", "transformers")

Value = int | float | bool | str
Values = dict[str, Value]
InputShapes = tuple[int, ...] | dict[str, tuple[int, ...]]

_NAME = re.compile(rf"({'|'.join(LIBRARIES)}):([^?]+)(?:\?(.*))?", re.DOTALL)
_WEIGHTS = {
    "backbone_weights",
    "cache_dir",
    "checkpoint_path",
    "model_root",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "root",
    "use_pretrained_backbone",
    "weights",
    "weights_backbone",
}
_TOKENS = 128
_SIDE = 224
_SEGMENTED, _FLOW, _SAMPLES = 520, (520, 960), 16_000
_CLIP_FRAMES = 16
_SMALL = 2**12  # tensors that keep their numbers where a constructor wants to see some


@dataclass(frozen=True)
class BuiltModel:
    """A network that was built from its name.

    Attributes:
        module: The module in inference mode; all or most of its parameters are on the meta device.
        input_shapes: Its usual inputs, batch included, as `torch_reader.export` takes them; None if its library says
            nothing of them.
        dtypes: Element types of the inputs, as `torch_reader.export` takes them; None for the default.
    """

    module: torch.nn.Module
    input_shapes: InputShapes | None
    dtypes: Mapping[str, str] | str | None = None


def is_name(text: object) -> bool:
    """Whether this is text of the form `library:model`; a text that ends in ".onnx" is a file's path."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None and not text.lower().endswith(".onnx")


def build(name: str) -> BuiltModel:
    """The network called `name`; see the head of this module for the names there are.

    Modules are built on the meta device. Where a constructor looks at numbers, only its large tensors are.

    Args:
        name: `library:model` or `library:model?key=value&key=value`. Values are integers, numbers, `true`, `false`, or
            text.

    Raises:
        ReadError: The name has another form, the library is not installed, it has no such model or no such option, the
            model cannot be built, or building it would download something.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ReadError(f"expected LIBRARY:MODEL with a library of {', '.join(LIBRARIES)}", source=name)
    library, model, query = match.groups()
    try:
        return _BUILDERS[library](model, _values(query or ""))
    except ReadError as error:
        raise ReadError(error.reason, source=name) from error


def _values(query: str) -> Values:
    """The options after the question mark."""
    values: Values = {}
    for part in filter(None, query.split("&")):
        key, equals, text = part.partition("=")
        if not key.isidentifier() or not equals or not text:
            raise ReadError(f"the option {part!r} is not of the form key=value")
        if key in values:
            raise ReadError(f"the option {key!r} is given twice")
        if key in _WEIGHTS:
            raise ReadError(f"the option {key!r} is about weights, and weights are never loaded: leave it out")
        values[key] = _value(text)
    return values


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# --- image libraries ------------------------------------------------------------------------------------------------


def _torchvision(model: str, values: Values) -> BuiltModel:
    models = _library("torchvision.models", "torchvision")
    detection = _library("torchvision.models.detection", "torchvision")
    _check_known(model, models.list_models(), "torchvision")
    if model in models.list_models(detection):
        side = 800 if (sized := re.search(r"300|320", model)) is None else int(sized[0])
        raise ReadError(
            "a detector selects boxes by their scores, which no fixed graph can express: read the part before that, "
            f"as in archgauge.read(torchvision.models.get_model({model!r}, weights=None, "
            f"weights_backbone=None).backbone, input_shapes=(1, 3, {side}, {side}))"
        )
    arguments: dict[str, Any] = {"weights": None, **values}
    if "weights_backbone" in signature(models.get_model_builder(model)).parameters:
        arguments["weights_backbone"] = None
    if model.removeprefix("quantized_") in ("googlenet", "inception_v3"):
        arguments = {"aux_logits": False, "init_weights": False} | arguments
    module = _built(lambda: models.get_model(model, **arguments))
    return BuiltModel(module, _torchvision_shapes(models, model, module))


def _torchvision_shapes(models: Any, model: str, module: torch.nn.Module) -> InputShapes:
    if model.startswith("raft_"):
        return {"image1": (1, 3, *_FLOW), "image2": (1, 3, *_FLOW)}
    own = getattr(module, "image_size", None)  # vision transformers work at one size only
    if isinstance(own, int):
        return (1, 3, own, own)
    presets = [weights.transforms() for weights in models.get_model_weights(model)]
    crops = [list(preset.crop_size) for preset in presets if getattr(preset, "crop_size", None)]
    if not crops:
        return (1, 3, _SEGMENTED, _SEGMENTED)  # segmentation, which resizes to this side
    height, width = min((crop * 2)[:2] for crop in crops)
    if type(presets[0]).__name__ == "VideoClassification":
        return (1, 3, _CLIP_FRAMES, height, width)
    return (1, 3, height, width)


def _timm(model: str, values: Values) -> BuiltModel:
    timm = _library("timm", "timm")
    if ":" in model:
        raise ReadError(
            f"{model!r} would be downloaded, and archgauge never downloads models: use a name of timm's own"
        )
    architecture, _, tag = model.partition(".")
    _check_known(architecture, timm.list_models(), "timm")
    tags = {name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")}
    if tag and tag not in tags:
        near = perhaps(get_close_matches(tag, tags, 2))
        raise ReadError(
            f"timm has no weights {tag!r} of {architecture!r}{near}; the tag may be left out, the network is the same"
        )
    module = _built(lambda: timm.create_model(model, pretrained=False, **values))
    settings = getattr(module, "pretrained_cfg", None) or timm.get_pretrained_cfg(model).to_dict()
    channels, height, width = settings["input_size"]
    return BuiltModel(module, (1, int(values.get("in_chans", channels)), *_sides(values, "img_size", (height, width))))


def _pytorchcv(model: str, values: Values) -> BuiltModel:
    provider = _library("pytorchcv.model_provider", "pytorchcv")
    _check_known(model.lower(), provider._models, "pytorchcv")
    options: dict[str, Any] = dict(values)
    if isinstance(options.get("in_size"), int):
        options["in_size"] = (options["in_size"], options["in_size"])
    module = _built(lambda: provider.get_model(model, **options))
    size, stem = getattr(module, "in_size", None), _stem(module)
    return BuiltModel(module, None if size is None or stem is None else (1, stem, *size))


def _stem(module: torch.nn.Module) -> int | None:
    """Channels that go into the first two-dimensional convolution."""
    from torch.nn import Conv2d

    return next((part.in_channels for part in module.modules() if isinstance(part, Conv2d)), None)


def _sides(values: Values, key: str, default: tuple[int, int]) -> tuple[int, int]:
    side = values.get(key)
    return (side, side) if isinstance(side, int) else default


# --- transformers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A published configuration: the class of the model, and the values that differ from that class's defaults."""

    model: str
    values: Mapping[str, Any]


_OPT = {"ffn_dim": 3072, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_ROBERTA |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_BART_BASE = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072}
_BART_BASE |= {"decoder_ffn_dim": 3072, "encoder_attention_heads": 12, "decoder_attention_heads": 12}
_T5_BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}
_IMAGENET = {"num_labels": 1000}

# Keys are the names on huggingface.co, where the configurations are published; the part after "/" is enough.
_WELL_KNOWN: dict[str, _Known] = {
    "albert/albert-base-v2": _Known(
        "AlbertForMaskedLM",
        {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "distilbert/distilbert-base-uncased": _Known("DistilBertForMaskedLM", {}),
    "distilbert/distilgpt2": _Known("GPT2LMHeadModel", {"n_layer": 6}),
    "distilbert/distilroberta-base": _Known("RobertaForMaskedLM", {**_ROBERTA, "num_hidden_layers": 6}),
    "EleutherAI/pythia-160m": _Known(
        "GPTNeoXForCausalLM",
        {
            "vocab_size": 50304,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    ),
    "EleutherAI/pythia-70m": _Known(
        "GPTNeoXForCausalLM",
        {
            "vocab_size": 50304,
            "hidden_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
        },
    ),
    "facebook/bart-base": _Known("BartModel", _BART_BASE),
    "facebook/bart-large": _Known("BartModel", {}),
    "facebook/convnext-tiny-224": _Known("ConvNextForImageClassification", _IMAGENET),
    "facebook/deit-base-distilled-patch16-224": _Known("DeiTForImageClassificationWithTeacher", _IMAGENET),
    "facebook/deit-small-patch16-224": _Known(
        "ViTForImageClassification",
        {**_IMAGENET, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    ),
    "facebook/deit-tiny-patch16-224": _Known(
        "ViTForImageClassification",
        {**_IMAGENET, "hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    ),
    "facebook/opt-125m": _Known("OPTForCausalLM", {**_OPT, "word_embed_proj_dim": 768}),
    "facebook/wav2vec2-base": _Known("Wav2Vec2Model", {}),
    "FacebookAI/roberta-base": _Known("RobertaForMaskedLM", _ROBERTA),
    "FacebookAI/roberta-large": _Known("RobertaForMaskedLM", {**_ROBERTA, **_BERT_LARGE}),
    "FacebookAI/xlm-roberta-base": _Known("XLMRobertaForMaskedLM", {**_ROBERTA, "vocab_size": 250_002}),
    "google-bert/bert-base-cased": _Known("BertForMaskedLM", {"vocab_size": 28996}),
    "google-bert/bert-base-multilingual-cased": _Known("BertForMaskedLM", {"vocab_size": 119_547}),
    "google-bert/bert-base-uncased": _Known("BertForMaskedLM", {}),
    "google-bert/bert-large-uncased": _Known("BertForMaskedLM", _BERT_LARGE),
    "google-t5/t5-base": _Known("T5ForConditionalGeneration", _T5_BASE),
    "google-t5/t5-small": _Known("T5ForConditionalGeneration", {}),
    "google/electra-base-discriminator": _Known(
        "ElectraForPreTraining",
        {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "google/electra-small-discriminator": _Known("ElectraForPreTraining", {}),
    "google/vit-base-patch16-224": _Known("ViTForImageClassification", _IMAGENET),
    "google/vit-large-patch16-224": _Known("ViTForImageClassification", {**_IMAGENET, **_BERT_LARGE}),
    "HuggingFaceTB/SmolLM2-135M": _Known(
        "LlamaForCausalLM",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "microsoft/resnet-18": _Known(
        "ResNetForImageClassification",
        {**_IMAGENET, "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    ),
    "microsoft/resnet-50": _Known("ResNetForImageClassification", _IMAGENET),
    "microsoft/swin-tiny-patch4-window7-224": _Known("SwinForImageClassification", _IMAGENET),
    "openai/clip-vit-base-patch32": _Known("CLIPModel", {}),
    "openai/whisper-tiny": _Known("WhisperForConditionalGeneration", {}),
    "openai-community/gpt2": _Known("GPT2LMHeadModel", {}),
    "openai-community/gpt2-large": _Known("GPT2LMHeadModel", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "openai-community/gpt2-medium": _Known("GPT2LMHeadModel", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "openai-community/gpt2-xl": _Known("GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    "Qwen/Qwen2.5-0.5B": _Known(
        "Qwen2ForCausalLM",
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
    ),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _Known(
        "LlamaForCausalLM",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "intermediate_size": 5632,
        },
    ),
}
_SHORT = {name.rpartition("/")[2]: known for name, known in _WELL_KNOWN.items()}


def _transformers(model: str, values: Values) -> BuiltModel:
    transformers = _library("transformers", "transformers")
    path = Path(model)
    known = _WELL_KNOWN.get(model) or _SHORT.get(model)
    if known is not None:
        kind = _model_class(transformers, known.model)
        config = _config(kind, known.values, values)
    elif path.is_dir() or path.suffix == ".json":
        kind, content = _local_config(transformers, path / "config.json" if path.is_dir() else path)
        config = _config(kind, content, values)
    elif re.fullmatch(r"[A-Z]\w*", model):
        kind = _model_class(transformers, model)
        config = _config(kind, {}, values)
    else:
        near = perhaps(get_close_matches(model, [*_SHORT, *_WELL_KNOWN], 2))
        raise ReadError(
            f"archgauge does not know {model!r} and never downloads{near}: name a class such as BertModel, or the "
            "folder of a config.json"
        )
    module = _built(lambda: kind(config))
    return BuiltModel(module, _transformers_shapes(kind, config))


def _model_class(transformers: Any, name: str) -> Any:
    """The model class of that name."""
    kind: Any = getattr(transformers, name, None)
    is_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if is_model and kind.config_class is not None:
        return kind
    if name.startswith("Auto"):
        raise ReadError(f"{name!r} is no architecture: name a class such as BertModel")
    classes = [other for other in dir(transformers) if re.match(r"(?!Auto).*(Model$|For[A-Z]|With[A-Z])", other)]
    raise ReadError(f"transformers has no model class {name!r}{perhaps(get_close_matches(name, classes, 2))}")


def _local_config(transformers: Any, file: Path) -> tuple[Any, dict[str, Any]]:
    """Model class and values of a configuration file; code that the file names is not run."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"cannot read {file}: {error.strerror or error}; expected a config.json") from error
    except ValueError as error:
        raise ReadError(f"{file} is no JSON file: {error}") from error
    names = content.get("architectures") if isinstance(content, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ReadError(f'{file} names no model class: add "architectures": ["BertModel"], for example')
    kind = _model_class(transformers, names[0])
    stated = content.pop("model_type", None)
    if stated not in (None, kind.config_class.model_type):
        raise ReadError(
            f"{file} has model_type {stated!r}, but {names[0]} takes {kind.config_class.model_type!r}: correct one"
        )
    return kind, {key: value for key, value in content.items() if key not in ("auto_map", "quantization_config")}


def _config(kind: Any, values: Mapping[str, Any], overrides: Values) -> Any:
    """The configuration of a model of class `kind`, without cache and without weights of a backbone."""
    try:
        with quiet(("transformers", "timm")):
            config = kind.config_class(**values)
            _check_overrides(config, overrides)
            if overrides:
                config = kind.config_class(**{**values, **overrides})
    except ReadError:
        raise
    except Exception as error:  # transformers checks values with errors of many types
        raise ReadError(f"the values do not fit {kind.config_class.__name__}: {one_line(error)}") from error
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False  # else the constructor fetches weights
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "batched_mm"  # the way to mix experts whose shapes do not depend on values
    config.return_dict = True  # models take their own parts' outputs by name
    return config


def _check_overrides(config: Any, values: Values) -> None:
    keys = {*config.to_dict(), *config.attribute_map, "num_labels"}
    for key, value in values.items():
        if key not in keys:
            near = perhaps(get_close_matches(key, keys, 2))
            raise ReadError(f"{type(config).__name__} has no value {key!r}{near}")
        present = getattr(config, key, None)
        alike = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(type(present))
        if alike is not None and type(value) not in alike:
            raise ReadError(f"{key} is {present!r} in {type(config).__name__}, expected its like, got {value!r}")


def _transformers_shapes(kind: Any, config: Any) -> InputShapes | None:
    """The usual inputs of a model: 128 tokens, an image of its size, a second of sound."""
    parameters = signature(kind.forward).parameters
    shapes: dict[str, tuple[int, ...]] = {}
    if kind.main_input_name == "input_ids" or ("input_ids" in parameters and "pixel_values" in parameters):
        longest = getattr(config.get_text_config(), "max_position_embeddings", None)
        tokens = min(_TOKENS, longest) if isinstance(longest, int) and longest > 0 else _TOKENS
        shapes["input_ids"] = (1, tokens)
    if kind.main_input_name == "pixel_values" or (shapes and "pixel_values" in parameters):
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", None) or _SIDE
        height, width = (side, side) if isinstance(side, int) else tuple(side)
        frames = getattr(vision, "num_frames", None)
        channels = getattr(vision, "num_channels", 3)
        shapes["pixel_values"] = (1, *([frames] if isinstance(frames, int) else []), channels, height, width)
    if kind.main_input_name == "input_values":
        bins = getattr(config, "num_mel_bins", None)
        shapes["input_values"] = (1, config.max_length, bins) if isinstance(bins, int) else (1, _SAMPLES)
    if kind.main_input_name == "input_features" and hasattr(config, "max_source_positions"):
        shapes["input_features"] = (1, config.num_mel_bins, 2 * config.max_source_positions)
    if config.is_encoder_decoder and shapes and "decoder_input_ids" in parameters:
        shapes["decoder_input_ids"] = shapes.get("input_ids", (1, _TOKENS))
    return shapes or None


# --- building -------------------------------------------------------------------------------------------------------

_BUILDERS: dict[str, Callable[[str, Values], BuiltModel]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "pytorchcv": _pytorchcv,
    "transformers": _transformers,
}


def _library(module: str, package: str) -> Any:
    try:
        with quiet(("transformers", "timm")):
            import torch  # noqa: F401

            return import_module(module)
    except ImportError as error:
        missing = (error.name or package).partition(".")[0]
        raise ReadError(
            f"names of {package} need the package {missing}, which is not installed: pip install {missing}, "
            "or pip install 'archgauge[names]'"
        ) from error
    except Exception as error:  # torchvision of another torch, for example
        raise ReadError(f"{package} is installed and cannot be imported: {one_line(error)}") from error


def _check_known(model: str, known: Iterator[str] | Sequence[str] | Mapping[str, Any], library: str) -> None:
    names = list(known)
    if model not in names:
        raise ReadError(f"{library} has no model {model!r}{perhaps(get_close_matches(model, names, 3))}")


def _built(construct: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """What `construct` returns, its tensors on the meta device, or at least its large ones."""
    import torch

    failures: list[Exception] = []
    for device in (torch.device("meta"), _large_on_meta()):
        try:
            with quiet(("transformers", "timm")), _offline(), torch.no_grad(), device:
                module = construct()
            break
        except Exception as error:  # libraries raise anything
            if _watched.refused:
                raise ReadError("building this model would download something, and archgauge never does") from error
            if isinstance(error, ModuleNotFoundError) and error.name:
                raise ReadError(f"this model needs the package {error.name}: pip install {error.name}") from error
            failures.append(error)
    else:
        raise ReadError(f"the model cannot be built: {one_line(failures[-1])}") from failures[-1]
    if not isinstance(module, torch.nn.Module):
        raise ReadError(f"the library returned {type(module).__name__}, expected a torch.nn.Module")
    return module.eval()


def _large_on_meta() -> Any:
    """A context in which new tensors are on the CPU if they are small, on the meta device otherwise."""
    import torch
    from torch.overrides import TorchFunctionMode

    makers = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    class LargeOnMeta(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in makers and kwargs.get("device") is None:
                outline = func(*args, **{**kwargs, "device": "meta"})
                if prod(outline.shape) > _SMALL:
                    return outline
            return func(*args, **kwargs)

    return LargeOnMeta()


_NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_watched = threading.local()
_watch_started = threading.Lock()
_watching = False


def _refuse(event: str, _: object) -> None:
    if event in _NETWORK_EVENTS and getattr(_watched, "offline", False):
        _watched.refused = True
        raise ConnectionRefusedError("archgauge opens no connection")


@contextmanager
def _offline() -> Iterator[None]:
    """Whatever the constructor of a model tries, this thread opens no connection."""
    global _watching
    with _watch_started:
        if not _watching:
            sys.addaudithook(_refuse)
            _watching = True
    _watched.offline, _watched.refused = True, False
    try:
        yield
    finally:
        _watched.offline = False
