"""Models by name: what counts as a name, that the networks are the published ones, and what errors say."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch

from archgauge import Predictor, ReadError, UnreadableFileError, read
from archgauge.encoders import model_names
from archgauge.encoders.model_names import build, is_name

pytest.importorskip("onnxscript", reason="networks by name are exported, which needs onnxscript")
TINY_GPT2 = "transformers:GPT2LMHeadModel?n_layer=2&n_embd=48&n_head=4&vocab_size=100&n_positions=40"


def parameters(name: str) -> int:
    return sum(parameter.numel() for parameter in build(name).module.parameters())


# --- what is a name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "timm:resnet50",
        "timm:resnet50.a1_in1k",
        "torchvision:vit_b_16?image_size=384",
        "pytorchcv:ResNet50",
        "transformers:google/vit-base-patch16-224",
        "transformers:/a/folder with spaces",
        "transformers:C:\\models\\bert",
    ],
)
def test_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "C:\\x.onnx",
        "dir/torchvision:x.onnx",
        "timm:x.ONNX",
        "./timm:resnet50",
        "timm",
        "timm:",
        "timm:?a=1",
        "Timm:resnet50",
        "keras:ResNet50",
        "resnet50.onnx",
        "",
        Path("timm:resnet50"),
        b"timm:resnet50",
        None,
    ],
)
def test_no_names(text: object) -> None:
    assert not is_name(text)


def test_a_path_is_a_file_whatever_it_is_called() -> None:
    with pytest.raises(UnreadableFileError, match="No such file"):
        read(Path("timm:resnet50"))


# --- torchvision, timm, pytorchcv -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "published", "shape"),
    [
        ("resnet50", 25_557_032, (1, 3, 224, 224)),
        ("resnet50?num_classes=10", 23_528_522, (1, 3, 224, 224)),
        ("inception_v3", 23_834_568, (1, 3, 299, 299)),
        ("googlenet", 6_624_904, (1, 3, 224, 224)),
        ("efficientnet_b7", 66_347_960, (1, 3, 600, 600)),
        ("vit_h_14", 632_045_800, (1, 3, 224, 224)),
        ("vit_b_16?image_size=384", 86_859_496, (1, 3, 384, 384)),
        ("regnet_y_128gf", 644_812_894, (1, 3, 224, 224)),
        ("r3d_18", 33_371_472, (1, 3, 16, 112, 112)),
        ("mvit_v2_s", 34_537_744, (1, 3, 16, 224, 224)),
        ("lraspp_mobilenet_v3_large", 3_221_538, (1, 3, 520, 520)),
    ],
)
def test_torchvision(model: str, published: int, shape: tuple[int, ...]) -> None:
    pytest.importorskip("torchvision", reason="the extra `names` is not installed")
    built = build(f"torchvision:{model}")
    assert sum(parameter.numel() for parameter in built.module.parameters()) == published
    assert built.input_shapes == shape
    assert not built.module.training


def test_a_constructor_that_looks_at_numbers_has_only_small_tensors_in_memory() -> None:
    pytest.importorskip("torchvision", reason="the extra `names` is not installed")
    module = build("torchvision:regnet_y_128gf").module
    real = sum(tensor.numel() for tensor in module.parameters() if tensor.device.type != "meta")
    assert 0 < real < 2_000_000


def test_optical_flow_takes_two_images() -> None:
    pytest.importorskip("torchvision", reason="the extra `names` is not installed")
    shapes = build("torchvision:raft_small").input_shapes
    assert shapes == {"image1": (1, 3, 520, 960), "image2": (1, 3, 520, 960)}


def test_timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed; it is part of the extra `names`")
    assert build("timm:resnet50.a1_in1k").input_shapes == (1, 3, 224, 224)
    assert parameters("timm:resnet50.a1_in1k") == parameters("timm:resnet50") == 25_557_032
    assert parameters("timm:vit_tiny_patch16_224") == 5_717_416
    assert build("timm:vit_tiny_patch16_224?img_size=384").input_shapes == (1, 3, 384, 384)
    assert build("timm:resnet18?in_chans=1").input_shapes == (1, 1, 224, 224)
    assert build("timm:resnet18?features_only=true").input_shapes == (1, 3, 224, 224)
    assert build("timm:efficientnet_b4").input_shapes == (1, 3, 320, 320)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet5o", "perhaps 'resnet50'"),
        ("resnet50.a1_in2k", "perhaps 'a1_in1k'"),
        ("hf-hub:timm/resnet50.a1_in1k", "never downloads"),
        ("resnet18?width=2", "unexpected keyword argument"),
    ],
)
def test_timm_errors(model: str, message: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed; it is part of the extra `names`")
    with pytest.raises(ReadError, match=message) as caught:
        build(f"timm:{model}")
    assert caught.value.source == f"timm:{model}"


def test_pytorchcv() -> None:
    pytest.importorskip("pytorchcv", reason="the extra `names` is not installed")
    assert parameters("pytorchcv:resnet50") == 25_557_032
    assert build("pytorchcv:ResNet50").input_shapes == (1, 3, 224, 224)
    assert build("pytorchcv:resnet20_cifar10").input_shapes == (1, 3, 32, 32)
    assert build("pytorchcv:resnet18?in_size=320&in_channels=1").input_shapes == (1, 1, 320, 320)
    assert build("pytorchcv:inceptionv4").input_shapes == (1, 3, 299, 299)
    with pytest.raises(ReadError, match="perhaps 'resnet50'"):
        build("pytorchcv:resnet5o")


# --- transformers ---------------------------------------------------------------------------------------------------

PUBLISHED = {
    "albert/albert-base-v2": 11_221_680,
    "distilbert/distilbert-base-uncased": 66_985_530,
    "distilbert/distilgpt2": 81_912_576,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-70m": 70_426_624,
    "facebook/bart-base": 139_420_416,
    "facebook/bart-large": 406_291_456,
    "facebook/convnext-tiny-224": 28_589_128,
    "facebook/deit-base-distilled-patch16-224": 87_338_192,
    "facebook/deit-small-patch16-224": 22_050_664,
    "facebook/deit-tiny-patch16-224": 5_717_416,
    "facebook/opt-125m": 125_239_296,
    "facebook/wav2vec2-base": 94_371_712,
    "FacebookAI/roberta-base": 124_697_433,
    "FacebookAI/roberta-large": 355_412_057,
    "google-bert/bert-base-cased": 108_340_804,
    "google-bert/bert-base-uncased": 109_514_298,
    "google-bert/bert-large-uncased": 335_174_458,
    "google-t5/t5-base": 222_903_552,
    "google-t5/t5-small": 60_506_624,
    "google/electra-small-discriminator": 13_549_057,
    "google/vit-base-patch16-224": 86_567_656,
    "google/vit-large-patch16-224": 304_326_632,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "microsoft/resnet-18": 11_689_512,
    "microsoft/resnet-50": 25_557_032,
    "microsoft/swin-tiny-patch4-window7-224": 28_288_354,
    "openai/clip-vit-base-patch32": 151_277_313,
    "openai/whisper-tiny": 37_760_640,
    "openai-community/gpt2": 124_439_808,
    "openai-community/gpt2-large": 774_030_080,
    "openai-community/gpt2-medium": 354_823_168,
    "openai-community/gpt2-xl": 1_557_611_200,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
}
"""Numbers of parameters as published, tied ones counted once."""


@pytest.mark.parametrize(("model", "published"), PUBLISHED.items())
def test_well_known_models_have_their_published_number_of_parameters(model: str, published: int) -> None:
    assert parameters(f"transformers:{model}") == published


def test_every_well_known_model_builds_with_inputs_and_under_its_short_name() -> None:
    known = model_names._WELL_KNOWN
    assert set(known) >= set(PUBLISHED)
    assert len(model_names._SHORT) == len(known)
    for model in known:
        built = build(f"transformers:{model.rpartition('/')[2]}")
        assert type(built.module).__name__ == known[model].model
        assert built.input_shapes


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("BertModel", {"input_ids": (1, 128)}),
        ("BertForSequenceClassification?num_labels=7&max_position_embeddings=64", {"input_ids": (1, 64)}),
        ("ViTModel?image_size=96&num_channels=1", {"pixel_values": (1, 1, 96, 96)}),
        ("T5ForConditionalGeneration", {"input_ids": (1, 128), "decoder_input_ids": (1, 128)}),
        ("CLIPModel", {"input_ids": (1, 77), "pixel_values": (1, 3, 224, 224)}),
        ("VideoMAEModel", {"pixel_values": (1, 16, 3, 224, 224)}),
        ("ASTModel", {"input_values": (1, 1024, 128)}),
        ("WhisperModel", {"input_features": (1, 80, 3000), "decoder_input_ids": (1, 128)}),
    ],
)
def test_inputs_of_classes(model: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert build(f"transformers:{model}").input_shapes == shapes


def test_values_of_a_configuration() -> None:
    assert parameters("transformers:GPT2LMHeadModel?n_layer=6") == PUBLISHED["distilbert/distilgpt2"]
    assert parameters("transformers:gpt2?n_layer=6") == PUBLISHED["distilbert/distilgpt2"]
    assert parameters("transformers:gpt2?num_hidden_layers=6") == PUBLISHED["distilbert/distilgpt2"]
    # values that follow from others do so: the decoder of T5 is as deep as its encoder unless it says otherwise
    assert parameters("transformers:t5-small?num_layers=2") == 31_136_256


def test_a_detector_of_transformers_does_not_fetch_the_weights_of_its_backbone() -> None:
    pytest.importorskip("timm", reason="timm is not installed; it is part of the extra `names`")
    assert parameters("transformers:DetrForObjectDetection") > 40_000_000


def test_local_configuration(tmp_path: Path) -> None:
    values = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 2, "n_embd": 48, "n_head": 4}
    values |= {"vocab_size": 100, "n_positions": 40, "auto_map": {"AutoModel": "somewhere--code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for name in (f"transformers:{tmp_path}", f"transformers:{tmp_path / 'config.json'}"):
        built = build(name)
        assert type(built.module).__name__ == "GPT2LMHeadModel"
        assert built.input_shapes == {"input_ids": (1, 40)}
        assert parameters(name) == parameters(TINY_GPT2)
    assert parameters(f"transformers:{tmp_path}?n_layer=1") < parameters(TINY_GPT2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a config.json"),
        ("{", "no JSON"),
        ("[]", "names no model class"),
        ('{"model_type": "bert"}', "names no model class"),
        ('{"architectures": ["BertModle"]}', "perhaps 'BertModel'"),
        ('{"architectures": ["CustomNet"]}', "no model class 'CustomNet'"),
        ('{"architectures": ["BertModel"], "model_type": "gpt2"}', "takes 'bert'"),
        ('{"architectures": ["BertModel"], "hidden_size": "wide"}', "do not fit BertConfig"),
    ],
)
def test_bad_local_configurations(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ReadError, match=message):
        build(f"transformers:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformers:BertModle", "perhaps 'BertModel'"),
        ("transformers:BertConfig", "no model class"),
        ("transformers:AutoModelForCausalLM", "no architecture"),
        ("transformers:gtp2", r"never downloads \(perhaps 'gpt2'\?\)"),
        ("transformers:somebody/some-model", "never downloads"),
        ("transformers:gpt2?n_layers=6", "perhaps 'n_layer'"),
        ("transformers:gpt2?n_layer=six", "n_layer is 12 in GPT2Config, expected its like, got 'six'"),
        ("transformers:gpt2?n_layer=true", "expected its like"),
        ("transformers:gpt2?n_embd=385", "cannot be built"),
        ("transformers:gpt2?n_layer", "not of the form key=value"),
        ("transformers:gpt2?n_layer=1&n_layer=2", "given twice"),
        ("timm:resnet18?pretrained=true", "never loaded"),
        ("torchvision:resnet18?weights=DEFAULT", "never loaded"),
        ("keras:ResNet50", "expected LIBRARY:MODEL"),
    ],
)
def test_errors_name_the_model_and_what_to_do(name: str, message: str) -> None:
    if name.startswith("t"):
        pytest.importorskip(name.partition(":")[0], reason="the extra `names` is not installed")
    with pytest.raises(ReadError, match=message) as caught:
        build(name)
    assert caught.value.source == name


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="timm")

    monkeypatch.setattr(model_names, "import_module", missing)
    with pytest.raises(ReadError, match=r"pip install timm, or pip install 'archgauge\[names\]'"):
        read("timm:resnet18")


def test_no_constructor_opens_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def fetch() -> torch.nn.Module:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return torch.nn.Linear(2, 2)

        with pytest.raises(ReadError, match="never does"):
            model_names._built(fetch)
        fetch()  # and afterwards all is as it was


# --- read, score ----------------------------------------------------------------------------------------------------


def test_reading_a_name() -> None:
    graph = read(TINY_GPT2)
    assert graph.params == parameters(TINY_GPT2)
    assert graph.unknown_ops == ()


@pytest.mark.slow
def test_other_inputs_than_the_usual_ones() -> None:
    graph = read(TINY_GPT2)
    shorter = read(TINY_GPT2, input_shapes={"input_ids": (1, 10)})
    assert shorter.macs < graph.macs
    assert read(TINY_GPT2, input_shapes=(1, 10)).hash == shorter.hash
    assert read(TINY_GPT2, input_shapes=[(1, 10)]).hash == shorter.hash


def test_an_error_of_the_export_names_the_model() -> None:
    with pytest.raises(ReadError, match="positive") as caught:
        read(TINY_GPT2, input_shapes=(1, -1))
    assert caught.value.source == TINY_GPT2


@pytest.mark.slow
def test_only_the_experts_that_are_chosen_cost_macs() -> None:
    name = "transformers:MixtralForCausalLM?num_hidden_layers=1&hidden_size=256&intermediate_size=512&vocab_size=1000"
    graph = read(f"{name}&num_attention_heads=8&num_key_value_heads=4")
    attention = 2 * 256 * 256 + 2 * 256 * 128 + 2 * 128 * 256  # linear layers, products of 128 tokens
    experts = 2 * (256 * 1024 + 512 * 256) + 256 * 8  # two of eight, and the choice
    assert graph.macs == 128 * (attention + experts + 256 * 1000)
    assert graph.unknown_ops == ()


def test_more_shapes_than_inputs_are_refused() -> None:
    with pytest.raises(ReadError, match="2 shapes, expected those of input_ids"):
        read(TINY_GPT2, input_shapes=[(1, 10), (1, 10)])


def test_a_detector_is_refused_with_advice() -> None:
    pytest.importorskip("torchvision", reason="the extra `names` is not installed")
    with pytest.raises(ReadError, match="weights_backbone=None"):
        read("torchvision:fasterrcnn_resnet50_fpn")


def test_a_keras_model_is_refused_with_advice() -> None:
    keras_like = type("Functional", (torch.nn.Module,), {"__module__": "keras.src.models.functional"})
    with pytest.raises(ReadError, match=r"model\.export\('model\.onnx', format='onnx'\)"):
        read(keras_like(), input_shapes=(1, 8))


def test_names_are_scored_beside_files() -> None:
    pytest.importorskip("torchvision", reason="the extra `names` is not installed")
    scores = Predictor.load().score(["torchvision:squeezenet1_1", "torchvision:squeezenet9"], on_error="skip")
    assert [score.name for score in scores] == ["torchvision:squeezenet1_1", "torchvision:squeezenet9"]
    assert scores[0].error is None
    assert "perhaps 'squeezenet" in str(scores[1].error)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["torchvision", "timm", "pytorchcv"])
def test_the_same_network_of_every_library(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed; it is part of the extra `names`")
    from_name = read(f"{library}:resnet18")
    reference = read("transformers:microsoft/resnet-18")
    assert (from_name.params, from_name.macs) == (reference.params, reference.macs) == (11_689_512, 1_814_073_344)
    assert from_name.hash == reference.hash
