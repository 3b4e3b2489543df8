"""GGUF files: sound ones pass with their facts, every broken rule is named, and nothing makes the scanner fall."""

import struct

import pytest
from harness import gguf as sound
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.scan import gguf


def judge(tmp_path, content: bytes):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    return gguf.scan(path)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def head(tensors: int, pairs: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + pairs


def tensor(name: str = "t", dims: tuple = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", kind, offset)


def filled(content: bytes, data: int = 32) -> bytes:
    return content + b"\0" * (-len(content) % 32) + b"\1" * data


def test_a_sound_file_gives_its_facts(tmp_path):
    """Architecture, context, licence, and arrays cut to what is useful."""
    header, findings = judge(tmp_path, sound(pairs={"general.license": "apache-2.0", "x.words": ["a"] * 100}))
    assert findings == [] and (header.architecture, header.context, header.licence) == ("llama", 4096, "apache-2.0")
    assert len(header.metadata["x.words"]) == gguf.MAX_KEPT and header.tensors == 1


def test_a_vocabulary_alone_is_sound(tmp_path):
    """No tensors, no data."""
    assert judge(tmp_path, sound(tensors=0))[1] == []


def test_the_starter_model_is_sound(starter_file):
    """The real one."""
    header, findings = gguf.scan(starter_file)
    assert findings == [] and header.architecture == "llama" and header.tensors == 272


BROKEN = {
    "empty": (b"", "gguf.truncated"),
    "not gguf": (b"PK\x03\x04" + b"\0" * 100, "gguf.magic"),
    "version 1": (head(0, version=1), "gguf.version"),
    "version 4": (head(0, version=4), "gguf.version"),
    "2**61 tensors": (head(1 << 61), "gguf.count"),
    "2**61 keys": (head(0, count=1 << 61), "gguf.count"),
    "string of 2**63": (head(0, struct.pack("<Q", 1 << 63), 1), "gguf.string"),
    "string past the end": (head(0, text("k") + struct.pack("<IQ", 8, 1000), 1), "gguf.truncated"),
    "empty key": (head(0, text("") + struct.pack("<II", 4, 1), 1), "gguf.key"),
    "key twice": (head(0, (text("k") + struct.pack("<II", 4, 1)) * 2, 2), "gguf.key"),
    "key not ascii": (head(0, struct.pack("<Q", 2) + "é".encode() + struct.pack("<II", 4, 1), 1), "gguf.key"),
    "unknown value type": (head(0, text("k") + struct.pack("<II", 99, 1), 1), "gguf.type"),
    "truth value 2": (head(0, text("k") + struct.pack("<IB", 7, 2), 1), "gguf.bool"),
    "array of 2**40": (head(0, text("k") + struct.pack("<IIQ", 9, 0, 1 << 40), 1), "gguf.array"),
    "array past the end": (head(0, text("k") + struct.pack("<IIQ", 9, 4, 1 << 20), 1), "gguf.truncated"),
    "arrays in arrays": (head(0, text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9, 1), "gguf.array"),
    "alignment 3": (head(0, text("general.alignment") + struct.pack("<II", 4, 3), 1), "gguf.alignment"),
    "alignment a string": (head(0, text("general.alignment") + struct.pack("<I", 8) + text("x"), 1), "gguf.alignment"),
    "name of 64": (filled(head(1) + tensor("n" * 64)), "gguf.string"),
    "name twice": (filled(head(2) + tensor() + tensor(offset=32), 64), "gguf.tensor.name"),
    "5 dimensions": (filled(head(1) + tensor(dims=(8, 1, 1, 1, 1))), "gguf.tensor.shape"),
    "product overflow": (filled(head(1) + tensor(dims=(1 << 40, 1 << 40))), "gguf.tensor.shape"),
    "half a block": (filled(head(1) + tensor(dims=(31,), kind=2)), "gguf.tensor.shape"),
    "removed type 4": (filled(head(1) + tensor(kind=4)), "gguf.tensor.type"),
    "type 999": (filled(head(1) + tensor(kind=999)), "gguf.tensor.type"),
    "overlap": (filled(head(2) + tensor("a") + tensor("b", offset=0), 64), "gguf.tensor.offset"),
    "hole": (filled(head(2) + tensor("a") + tensor("b", offset=64), 96), "gguf.tensor.offset"),
    "data cut off": (filled(head(2) + tensor("a") + tensor("b", offset=32), 32), "gguf.truncated"),
    "bytes behind": (sound(tail=b"PK\x03\x04 a zip"), "gguf.trailing"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_each_broken_rule_is_named(tmp_path, how):
    """With where it is and what to do."""
    content, rule = BROKEN[how]
    header, (finding,) = judge(tmp_path, content)
    assert header is None and finding.rule == rule
    assert finding.where.startswith("byte ") and finding.meaning.endswith(".") and finding.remedy


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), at=st.integers(0, 300), put=st.binary(min_size=1, max_size=9))
def test_a_damaged_file_is_judged_and_never_a_crash(tmp_path, cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    content = sound(tensors=2, pairs={"x.words": ["a", "b"], "general.license": "mit"})
    damaged = (content[:at] + put + content[at + len(put) :])[: len(content) - cut if cut < len(content) else 0]
    header, findings = judge(tmp_path, damaged)
    assert (header is None) == bool(findings)
