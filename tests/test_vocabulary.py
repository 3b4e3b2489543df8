"""The engine's tokens are held against a second implementation, and the first that differs is named."""

import json
import random

import pytest
import tinymodels
import tuning

from freehold.errors import BadModel, CannotDo
from freehold.tune import tensors, vocabulary

pytest.importorskip("torch", reason=tuning.LESS)
pytest.importorskip("tokenizers", reason=tuning.LESS)

TEXTS = [
    "Order 12345 costs 99.50 and it's the 3rd",
    "<|im_start|>user\nHi  there\n\n\tIt's 2024<|im_end|>\n",
    "naïve Übung, 日本語 😀 é",
    "",
    "   x\t\t\n\n  y",
    "I'LL don't",
]


def drawn(count: int) -> list[str]:
    """Texts of letters, marks, digits and spaces from here and there."""
    draw = random.Random(0)
    ranges = [(32, 127), (160, 700), (0x4E00, 0x5000), (0x1F600, 0x1F640), (10, 11), (32, 33)]
    return ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(40)) for _ in range(count)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An engine with the little vocabulary, and its file."""
    file = tinymodels.write(tinymodels.make("qwen2"), tmp_path_factory.mktemp("vocabulary") / "m.gguf")
    with tuning.probe(file) as probe:
        yield probe, file


def published(file) -> dict:
    """The tokenizer.json that such a model's publisher would have."""
    made, source = vocabulary._tokenizer({"m.gguf": file})
    assert source == "the vocabulary in the GGUF"
    return json.loads(made.to_str())


def test_both_read_the_same_tokens(tiny, tmp_path):
    """Of the GGUF's own vocabulary, and of the publisher's file."""
    probe, file = tiny
    texts = TEXTS + drawn(30)
    compared = vocabulary.compare(texts, probe.tokens, {"m.gguf": file})
    assert compared.texts == 36 and compared.tokens > 1000 and compared.against == "the vocabulary in the GGUF"
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(published(file)))
    compared = vocabulary.compare(texts, probe.tokens, {"m.gguf": file, "tokenizer.json": path})
    assert compared.texts == 36 and compared.against == "tokenizer.json" and not compared.skipped


def test_the_starters_tokens_are_its_own(real, starter_file):
    """The real vocabulary, with all of its merges."""
    with tuning.probe(starter_file) as probe:
        compared = vocabulary.compare(TEXTS + drawn(30), probe.tokens, {"m.gguf": starter_file})
    assert compared.texts == 36 and not compared.skipped


def test_the_first_difference_is_named(tiny, tmp_path):
    """Two words in each other's place: the text, the place, both tokens, and what follows from it."""
    probe, file = tiny
    said = published(file)
    words = said["model"]["vocab"]
    words["the"], words["ing"] = words["ing"], words["the"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(said))
    with pytest.raises(CannotDo) as raised:
        vocabulary.compare(["nothing here", "in the end"], probe.tokens, {"m.gguf": file, "tokenizer.json": path})
    assert "text 1" in raised.value.message and "token 4" in raised.value.message, raised.value.message
    assert "'ing'" in raised.value.message and "'the'" in raised.value.message


def test_a_text_that_ends_earlier_differs_too(tiny, tmp_path):
    """A token more on one side."""
    probe, file = tiny
    with pytest.raises(CannotDo, match="is none for the one"):
        vocabulary.compare(["the end"], lambda text: probe.tokens(text)[:-1], {"m.gguf": file})
    with pytest.raises(CannotDo, match="and none for the other"):
        vocabulary.compare(["the end"], lambda text: (*probe.tokens(text), 5), {"m.gguf": file})


def test_what_cannot_be_compared_is_said(tiny, tmp_path):
    """A way to split that has no second implementation here; no tokenizer at all; one that cannot be read."""
    probe, file = tiny
    whole = tensors.File(file)
    odd = tinymodels.rewrite(whole, tmp_path / "odd.gguf", list(whole.tensors), {"tokenizer.ggml.pre": "mystery"})
    compared = vocabulary.compare(["x"], probe.tokens, {"odd.gguf": odd})
    assert "mystery" in compared.skipped and compared.texts == 0
    assert vocabulary.compare(["x"], probe.tokens, {}).skipped == "the model has no tokenizer.json"
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadModel, match=r"tokenizer\.json cannot be read"):
        vocabulary.compare(["x"], probe.tokens, {"tokenizer.json": tmp_path / "tokenizer.json"})
