"""Tokens of descriptions: nothing is lost, numbers show their magnitude, segments cut nothing off."""

import subprocess
import sys
from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archgauge.datasets import darts, einspace, nas_bench_201, nats_bench_sss
from archgauge.encoders.errors import DataError
from archgauge.encoders.onnx_reader import read
from archgauge.encoders.text import describe
from archgauge.encoders.tokenizer import GLUE, MASK, PAD, SPACE, Tokenizer

TOKENIZER = Tokenizer.shipped()
WRITTEN = (
    "archgauge block B1 B7 B99 repeat Conv Relu prev a a: b_1: k3 k1x7 x5 x40 $1 $12 -bias ^5 ( ) () { } = : x - . , w="
    ' shape=(64) alpha=0.1 1e-05 0.044715 inf 1x3x224x224 1000 30522 007 com.x::Op Conv2 "a b" --> Param[3,3] Ünïcode'
)
WORDS = st.sampled_from(WRITTEN.split())
SPACES = st.sampled_from(["", " ", "  ", "\n", "\n  ", "\n     ", "\n            ", "\t", "\r\n", "\n\n"])
NUMBERS = st.integers(0, 2**63 + 5).map(str) | st.integers(0, 5000).map(str)
FLOATS = st.floats(allow_nan=False).map(repr)
PARTS = st.lists(st.tuples(WORDS | NUMBERS | FLOATS, SPACES))
LIKE_DESCRIPTIONS = PARTS.map(lambda parts: "".join(map("".join, parts)))


@given(st.text() | LIKE_DESCRIPTIONS)
def test_every_text_comes_back(text):
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens) == text
    assert all(0 <= token < TOKENIZER.size for token in tokens)
    assert not {PAD, MASK} & set(tokens)


def test_lone_surrogates_come_back():
    assert TOKENIZER.decode(TOKENIZER.encode("Conv \ud800\udc00 \udfff")) == "Conv \ud800\udc00 \udfff"


@given(st.text() | LIKE_DESCRIPTIONS, st.integers(1, 30))
def test_segments_hold_every_token_in_order(text, longest):
    segments = TOKENIZER.segments(text, longest)
    assert [token for segment in segments for token in segment.tokens] == TOKENIZER.encode(text)
    assert all(0 < len(segment.tokens) <= longest for segment in segments)


@pytest.mark.parametrize("space", [nas_bench_201, nats_bench_sss, darts, einspace], ids=lambda space: space.__name__)
def test_descriptions_take_no_spelling(space):
    for spec in space.sample(5, 0):
        text = describe(read(space.build(spec, space.TASKS[0])))
        tokens = TOKENIZER.encode(text)
        assert TOKENIZER.decode(tokens) == text
        assert len(tokens) < len(text) / 2
        spelled = sum(4 <= token < 260 or token in (SPACE, GLUE) for token in tokens)
        assert spelled <= len(tokens) / 20


def test_blocks_are_segments_of_their_own():
    text = "archgauge 1\nblock B1 {\n  Conv k3 Relu\n  Conv k1\n}\nblock B2 { Relu B1() }\nInput 1x3x8x8 B2()\n"
    text += "repeat 2 { B1() }\nRelu\n"
    segments = TOKENIZER.segments(text, 160)
    assert [segment.times for segment in segments] == [1, 3, 1, 1, 2, 1]
    parts = [TOKENIZER.decode(segment.tokens) for segment in segments]
    assert parts == [
        "archgauge 1",
        "\nblock B1 {\n  Conv k3 Relu\n  Conv k1\n}",
        "\nblock B2 { Relu B1() }",
        "\nInput 1x3x8x8 B2()",
        "\nrepeat 2 { B1() }",
        "\nRelu\n",
    ]


def test_how_often_blocks_are_carried_out():
    text = (
        "archgauge 1\nblock B1 { Relu }\nblock B2 {\n  repeat 3 {\n    B1() x2\n    Relu\n  }\n  B1()\n}\n"
        "Input 1x3x8x8 B2() B1()\nrepeat 5 {\n  B2()\n}\nB2() x4\n"
    )
    times = {
        TOKENIZER.decode(segment.tokens).split()[1]: segment.times for segment in TOKENIZER.segments(text, 160)[1:3]
    }
    assert times == {"B1": (1 + 5 + 4) * 7 + 1, "B2": 1 + 5 + 4}
    assert [segment.times for segment in TOKENIZER.segments("block B3 {\nno description", 160)] == [1]


def test_numbers_show_their_magnitude():
    magnitudes = TOKENIZER.magnitudes
    assert magnitudes.shape == (TOKENIZER.size, 3)
    for number in (0, 7, 15, 16, 64, 96, 224, 1000, 30522, 2**63 - 1):
        first, *rest = TOKENIZER.encode(str(number))
        assert magnitudes[first, 0] == 1
        assert magnitudes[first, 1] == pytest.approx(log2(1 + number), abs=0.2)
        assert len(rest) <= 10
    assert len(TOKENIZER.encode("1024")) == len(TOKENIZER.encode("96")) == 1
    assert len(TOKENIZER.encode("1000")) == 2
    assert TOKENIZER.encode("1000")[0] == TOKENIZER.encode("960")[0]
    small, large = TOKENIZER.encode("0.001")[0], TOKENIZER.encode("0.1")[0]
    assert magnitudes[small, 1] < magnitudes[large, 1]
    assert magnitudes[TOKENIZER.encode("Conv")[0]].tolist() == [0, 0, 1]
    assert magnitudes[TOKENIZER.encode("prev")[0]].tolist() == [0, 0, 0]
    assert magnitudes[TOKENIZER.encode("k7")[0], 1] == magnitudes[TOKENIZER.encode("7")[0], 1]


def test_common_words_are_one_token():
    for word in ("Conv", "prev", "k3", "a:", "B1", "-bias", "$1", "x5", "()", "GlobalAveragePool"):
        assert len(TOKENIZER.encode(word)) == 1
    assert len(TOKENIZER.encode("Conv 64 k3 s2 Relu")) == 5


def test_any_tokens_can_be_decoded():
    text = [token for token in range(TOKENIZER.size) if not 132 <= token < 260]  # the others are halves of signs
    assert "GlobalAveragePool" in TOKENIZER.decode(text)
    for token in text:
        assert isinstance(TOKENIZER.decode([token]), str)
    with pytest.raises(DataError, match="no token"):
        TOKENIZER.decode([TOKENIZER.size])


def test_words_must_differ():
    with pytest.raises(DataError, match="twice"):
        Tokenizer(["Conv", "Conv"])


def test_tokens_are_the_same_in_every_process():
    text = "Conv 640 k3 x=1e-05 Ü"
    code = f"from archgauge.encoders.tokenizer import Tokenizer; print(Tokenizer.shipped().encode({text!r}))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(TOKENIZER.encode(text))
