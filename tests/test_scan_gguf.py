"""GGUF files: sound ones pass with their facts, every broken rule is named, and nothing makes the scanner fall."""

import struct
import tempfile
import time

import pytest
from harness import gguf as sound
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.scan import formats, gguf
from freehold.types import Judged, Severity


def judge(content: bytes, name: str = "x.gguf") -> Judged:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return formats.judge(file.fileno(), len(content), name)


def accounted(judged: Judged) -> bool:
    return judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == judged.size


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def head(tensors: int, pairs: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + pairs


def tensor(name: str = "t", dims: tuple = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)


def filled(content: bytes, data: int = 32, pad: bytes = b"\0") -> bytes:
    return content + pad * (-len(content) % 32) + b"\1" * data


def strings(key: str, values: list[str]) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def test_a_sound_file_gives_its_facts():
    """Architecture, context, licence, sizes, and arrays cut to what is useful; every byte is accounted for."""
    judged = judge(sound(tensors=2, pairs={"general.license": "apache-2.0", "x.words": ["a"] * 100}))
    facts = judged.facts
    assert judged.findings == () and judged.unjudged == () and accounted(judged)
    assert (facts["architecture"], facts["context"], facts["licence"]) == ("llama", 4096, "apache-2.0")
    assert len(facts["metadata"]["x.words"]) == gguf.MAX_KEPT
    assert (facts["tensors"], facts["parameters"], judged.data) == (2, 16, 64)


def test_where_a_model_comes_from_is_a_fact():
    """Base models by hub name where an address says so, by their own name where not; licence link and split too."""
    pairs = {
        "general.base_model.0.name": "Base One", "general.base_model.0.repo_url": "https://huggingface.co/org/base-1",
        "general.base_model.1.name": "Other", "general.license.name": "own", "general.license.link": "https://x.example",
        "general.type": "adapter", "split.no": 1, "split.count": 3,
    }  # fmt: skip
    facts = judge(sound(pairs=pairs)).facts
    assert facts["base_models"] == ["org/base-1", "Other"] and facts["split"] == [1, 3] and facts["type"] == "adapter"
    assert (facts["licence_name"], facts["licence_link"]) == ("own", "https://x.example")


def test_a_vocabulary_alone_is_sound():
    """No tensors, no data."""
    judged = judge(sound(tensors=0))
    assert judged.findings == () and accounted(judged)


def test_a_vocabulary_with_a_command_in_it_is_sound():
    """Words are data: "os.system" among them means nothing."""
    assert judge(sound(pairs={"tokenizer.ggml.tokens": ["os.system", "__import__", "eval("]})).findings == ()


def test_the_starter_model_is_sound(starter_file):
    """The real one."""
    with starter_file.open("rb") as file:
        judged = formats.judge(file.fileno(), starter_file.stat().st_size, "model.gguf")
    assert judged.findings == () and judged.facts["architecture"] == "llama" and judged.facts["tensors"] == 272
    assert judged.facts["parameters"] == 134_515_008 and accounted(judged)


def test_a_large_vocabulary_is_quick():
    """50,000 tokens and as many merges take a fraction of a second."""
    words = [f"token {number}" for number in range(50_000)]
    content = head(0, strings("tokens", words) + strings("merges", words), 2)
    start = time.perf_counter()
    judged = judge(content)
    assert time.perf_counter() - start < 1 and judged.findings == () and judged.parsed == len(content)
    assert judged.facts["metadata"]["merges"] == words[: gguf.MAX_KEPT]


def test_strings_of_every_length_come_out_whole():
    """Reading many strings at once loses none, whatever their lengths."""
    words = ["", "a" * 7, "b" * 70_000, "", "c" * 3_000_000, "d"]
    judged = judge(head(0, strings("k", words) + text("last") + struct.pack("<II", 4, 7), 2))
    assert judged.findings == () and judged.facts["metadata"]["last"] == 7
    assert judged.facts["metadata"]["k"] == [word[: gguf.MAX_STRING_KEPT] for word in words]


def test_what_is_kept_is_bounded():
    """However much metadata there is, little of it is kept."""
    pairs = {f"k{number}": "x" * 60_000 for number in range(150)}
    judged = judge(sound(pairs=pairs))
    assert judged.findings == ()
    assert sum(len(str(value)) for value in judged.facts["metadata"].values()) < gguf.MAX_ROOM + 1000


def test_a_chat_template_in_it_is_judged():
    """By its name, with its hash kept; a malicious one blocks the file."""
    pairs = {"tokenizer.chat_template": "{{ messages }}", "tokenizer.chat_template.tool_use": "{{ ''.__class__ }}"}
    judged = judge(sound(pairs=pairs))
    assert judged.facts["templates"].keys() == {"default", "tool_use"}
    assert {found.rule for found in judged.findings} == {"template.attribute"}


def test_chat_templates_in_a_list_are_judged():
    """A list where one text belongs holds the file, and each of its texts is judged."""
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        rules = {found.rule for found in judge(sound(pairs={key: ["{{ messages }}", "{{ ''.__class__ }}"]})).findings}
        assert rules == {"gguf.template", "template.attribute"}
        sound_texts = judge(sound(pairs={key: ["{{ messages }}"]}))
        assert [found.rule for found in sound_texts.findings] == ["gguf.template"]
        assert [found.rule for found in judge(sound(pairs={key: 7})).findings] == ["gguf.template"]


def test_a_list_of_the_names_of_templates_is_sound():
    """It says which templates there are; each of them has its own key."""
    pairs = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "{{ messages }}"}
    assert judge(sound(pairs=pairs)).findings == ()


@pytest.mark.parametrize("key", ["general.\0name", "tokenizer.chat_template\0", "a\nb", "a\x7f"])
def test_a_key_with_characters_that_are_not_shown_is_refused(key):
    """A reader that stops at the NUL reads another key than the one that was judged."""
    found = judge(sound(pairs={key: "x"})).findings
    assert [each.rule for each in found] == ["gguf.key"] and found[0].severity == Severity.BLOCK


def test_names_are_shown_as_text():
    """As the publisher wrote them, and not as bytes."""
    faults = [tensor(dims=(8,) * 5), tensor(kind=99), tensor() + tensor(offset=32), tensor(offset=64)]
    for content, count in zip(faults, (1, 1, 2, 1), strict=True):
        (found,) = judge(filled(head(count, content))).findings
        assert "tensor 't'" in found.meaning or "name 't'" in found.meaning


def test_padding_may_be_left_out_at_the_end_alone():
    """The last tensor's padding may be missing; padding that holds something is held."""
    entry = tensor(dims=(1,))
    assert judge(filled(head(1) + entry, 4)).findings == ()
    (finding,) = judge(filled(head(1) + entry, 4, b"x")).findings
    assert finding.rule == "gguf.padding" and finding.severity is Severity.HOLD


BROKEN = {
    "cut in the magic": (b"GGUF", "scan.truncated"),
    "version 1": (head(0, version=1), "gguf.version"),
    "version 4": (head(0, version=4), "gguf.version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf.endian"),
    "2**61 tensors": (head(1 << 61), "gguf.count"),
    "2**61 keys": (head(0, count=1 << 61), "gguf.count"),
    "string of 2**63": (head(0, struct.pack("<Q", 1 << 63), 1), "gguf.string"),
    "string in an array of 2**63": (
        head(0, text("k") + struct.pack("<IIQQ", 9, 8, 1, 1 << 63), 1), "gguf.string"),
    "value string of 2**63": (head(0, text("k") + struct.pack("<IQ", 8, 1 << 63), 1), "gguf.string"),
    "string past the end": (head(0, text("k") + struct.pack("<IQ", 8, 1000), 1), "scan.truncated"),
    "strings past the end": (head(0, strings("k", ["a", "b"])[:-1], 1), "scan.truncated"),
    "empty key": (head(0, text("") + struct.pack("<II", 4, 1), 1), "gguf.key"),
    "key twice": (head(0, (text("k") + struct.pack("<II", 4, 1)) * 2, 2), "gguf.key"),
    "key not ascii": (head(0, text("é") + struct.pack("<II", 4, 1), 1), "gguf.key"),
    "unknown value type": (head(0, text("k") + struct.pack("<II", 99, 1), 1), "gguf.type"),
    "unknown array type": (head(0, text("k") + struct.pack("<IIQ", 9, 99, 1), 1), "gguf.type"),
    "truth value 2": (head(0, text("k") + struct.pack("<IB", 7, 2), 1), "gguf.bool"),
    "truth values up to 2": (head(0, text("k") + struct.pack("<IIQ", 9, 7, 99) + b"\0" * 98 + b"\2", 1), "gguf.bool"),
    "array of 2**40": (head(0, text("k") + struct.pack("<IIQ", 9, 0, 1 << 40), 1), "gguf.array"),
    "array past the end": (head(0, text("k") + struct.pack("<IIQ", 9, 4, 1 << 20), 1), "scan.truncated"),
    "arrays in arrays": (head(0, text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, 1), "gguf.array"),
    "alignment 3": (head(0, text("general.alignment") + struct.pack("<II", 4, 3), 1), "gguf.alignment"),
    "alignment a string": (head(0, text("general.alignment") + struct.pack("<I", 8) + text("x"), 1), "gguf.alignment"),
    "alignment true": (head(0, text("general.alignment") + struct.pack("<IB", 7, 1), 1), "gguf.alignment"),
    "name of 64": (filled(head(1) + tensor("n" * 64)), "gguf.string"),
    "name twice": (filled(head(2) + tensor() + tensor(offset=32), 64), "gguf.tensor.name"),
    "5 dimensions": (filled(head(1) + tensor(dims=(8, 1, 1, 1, 1))), "gguf.tensor.shape"),
    "product overflow": (filled(head(1) + tensor(dims=(1 << 40, 1 << 40))), "gguf.tensor.shape"),
    "product that wraps to 8": (filled(head(1) + tensor(dims=((1 << 61) + 1, 8))), "gguf.tensor.shape"),
    "half a block": (filled(head(1) + tensor(dims=(31,), kind=2)), "gguf.tensor.shape"),
    "removed type 4": (filled(head(1) + tensor(kind=4)), "gguf.tensor.type"),
    "removed type 31": (filled(head(1) + tensor(kind=31)), "gguf.tensor.type"),
    "type 999": (filled(head(1) + tensor(kind=999)), "gguf.tensor.type"),
    "overlap": (filled(head(2) + tensor("a") + tensor("b", offset=0), 64), "gguf.tensor.offset"),
    "hole": (filled(head(2) + tensor("a") + tensor("b", offset=64), 96), "gguf.tensor.offset"),
    "data past the end": (filled(head(2) + tensor("a") + tensor("b", offset=32), 32), "gguf.truncated"),
    "bytes behind": (sound(tail=b"PK\x03\x04 a zip"), "gguf.trailing"),
    "bytes behind a vocabulary": (sound(tensors=0, tail=b"PK\x03\x04 a zip"), "gguf.trailing"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_each_broken_rule_is_named(how):
    """With where it is and what to do."""
    content, rule = BROKEN[how]
    judged = judge(content)
    (finding,) = judged.findings
    assert finding.rule == rule and accounted(judged)
    assert finding.where.startswith("byte ") and finding.meaning.endswith(".") and finding.remedy


def test_another_file_with_a_header_inside_is_not_this_format():
    """A program that carries a GGUF file is a program."""
    judged = judge(b"\x7fELF" + b"\0" * 60 + sound())
    assert judged.format != "gguf" and judged.findings


def whole(judged: Judged) -> None:
    """What holds for every file whatever."""
    assert accounted(judged) and judged.digest.startswith("sha256:")
    assert all(found.rule != "scan.fault" for found in judged.findings)
    assert judged.findings or not judged.unjudged


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 400), at=st.integers(0, 300), put=st.binary(min_size=1, max_size=9))
def test_a_damaged_file_is_judged_and_never_a_crash(cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    content = sound(tensors=2, pairs={"x.words": ["a", "b"], "tokenizer.chat_template": "{{ x }}"})
    damaged = (content[:at] + put + content[at + len(put) :])[: len(content) - cut if cut < len(content) else 0]
    whole(judge(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic_are_judged(rest):
    """And so is noise."""
    whole(judge(b"GGUF\3\0\0\0" + rest))
