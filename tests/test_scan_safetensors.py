"""safetensors files: sound ones pass, every byte that could hide something is found, and nothing makes it fall."""

import json
import random
import struct
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.scan import formats, safetensors
from freehold.types import Judged


def judge(content: bytes, name: str = "model.safetensors") -> Judged:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return formats.judge(file.fileno(), len(content), name)


def accounted(judged: Judged) -> bool:
    return judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == judged.size


def packed(header: object, data: bytes = b"", pad: bytes = b"", length: int | None = None) -> bytes:
    content = (header if isinstance(header, bytes) else json.dumps(header).encode()) + pad
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def entry(start: int, end: int, dtype: str = "F32", shape: object = None) -> dict:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


TWO = {"b": entry(8, 16), "a": entry(0, 8)}

SOUND = {
    "two tensors, out of order": packed(TWO, bytes(16)),
    "no tensor": packed({}),
    "metadata alone": packed({"__metadata__": {"format": "pt"}}),
    "an address in it": packed({"__metadata__": {"url": "https://x.org/{m}?a=\"b\""}, **TWO}, bytes(16)),
    "a scalar": packed({"s": entry(0, 4, shape=[])}, bytes(4)),
    "an empty tensor": packed({"e": entry(0, 0, shape=[0, 7]), "f": entry(0, 4)}, bytes(4)),
    "padded with spaces": packed(TWO, bytes(16), pad=b" " * 4096),
    "spread over lines": packed(json.dumps(TWO, indent=2).encode(), bytes(16)),
    "half bytes": packed({"q": entry(0, 2, "F4", [2, 2])}, bytes(2)),
    "six bits": packed({"q": entry(0, 3, "F6_E2M3", [4])}, bytes(3)),
    "a name that sounds bad": packed({"os.system": entry(0, 4), "lambda_1": entry(4, 8)}, bytes(8)),
    "names in any script": packed('{"层.权重":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.encode(), b"x"),
    "an escaped name": packed(b'{"a\\"}{\\u00e9":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
}  # fmt: skip


@pytest.mark.parametrize("how", SOUND)
def test_a_sound_file_passes(how):
    """With no finding, every byte accounted for."""
    judged = judge(SOUND[how])
    assert judged.format == "safetensors" and judged.findings == () and judged.unjudged == () and accounted(judged)


def test_a_sound_file_gives_its_facts():
    """Tensors, parameters, types, and metadata."""
    judged = judge(packed({"__metadata__": {"format": "pt"}, **TWO, "c": entry(16, 18, "BF16", [1])}, bytes(18)))
    assert judged.facts == {
        "tensors": 3, "parameters": 5, "dtypes": {"F32": 2, "BF16": 1}, "metadata": {"format": "pt"},
        "weights": True,
    }  # fmt: skip
    assert judged.data == 18


TENSOR = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'

BROKEN = {
    "header past the end": (packed(TWO, length=10_000), "scan.truncated"),
    "header of 2**63": (packed(TWO, length=1 << 63), "safetensors.length"),
    "header over the limit": (packed(TWO, length=100_000_001), "safetensors.length"),
    "no header": (packed(b"{"), "safetensors.header"),
    "broken JSON": (packed(b'{"a":{"dtype"}}', bytes(1)), "safetensors.header"),
    "a list": (packed(b"{[]}"), "safetensors.header"),
    "NaN": (packed(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"), "safetensors.header"),
    "broken UTF-8": (packed(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"), "safetensors.header"),
    "half a surrogate pair": (packed(b'{"\\ud800":' + TENSOR[4:] + b"}", b"x"), "safetensors.header"),
    "zeros for padding": (packed(TWO, bytes(16), pad=b"\0" * 8), "safetensors.header"),
    "a second object behind the first": (packed(b"{" + TENSOR + b"}{}", b"x"), "safetensors.header"),
    "a tensor twice": (packed(b"{" + TENSOR + b"," + TENSOR + b"}", b"x"), "safetensors.key"),
    "a tensor twice, once escaped": (packed(b"{" + TENSOR + b"," + TENSOR.replace(b"a", b"\\u0061", 1) + b"}", b"x"),
                                     "safetensors.key"),
    "a property twice": (packed(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
                         "safetensors.key"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), "safetensors.metadata"),
    "metadata of lists": (packed({"__metadata__": {"a": ["b"]}}), "safetensors.metadata"),
    "metadata of objects": (packed({"__metadata__": {"a": {"b": "c"}}}), "safetensors.header"),
    "an unknown property": (packed({"a": entry(0, 4) | {"code": "x"}}, bytes(4)), "safetensors.entry"),
    "a property too few": (packed({"a": {"dtype": "F32"}}), "safetensors.entry"),
    "unknown type": (packed({"a": entry(0, 4, "F99")}, bytes(4)), "safetensors.dtype"),
    "type a list": (packed({"a": entry(0, 4) | {"dtype": ["F32"]}}, bytes(4)), "safetensors.dtype"),
    "negative size": (packed({"a": entry(0, 4, shape=[-1])}, bytes(4)), "safetensors.shape"),
    "size true": (packed({"a": entry(0, 4, shape=[True])}, bytes(4)), "safetensors.shape"),
    "size a fraction": (packed({"a": entry(0, 4, shape=[1.0])}, bytes(4)), "safetensors.shape"),
    "product overflow": (packed({"a": entry(0, 4, shape=[1 << 40, 1 << 40])}, bytes(4)), "safetensors.shape"),
    "product that wraps to 4": (packed({"a": entry(0, 4, "U8", [(1 << 62) + 1, 4])}, bytes(4)), "safetensors.shape"),
    "reversed": (packed({"a": entry(4, 0, shape=[1])}, bytes(4)), "safetensors.entry"),
    "negative offset": (packed({"a": entry(-4, 0, shape=[1])}, bytes(4)), "safetensors.entry"),
    "three offsets": (packed({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}, bytes(4)), "safetensors.entry"),
    "shape and bytes disagree": (packed({"a": entry(0, 8, shape=[1])}, bytes(8)), "safetensors.span"),
    "half a byte": (packed({"a": entry(0, 1, "F4", [1])}, bytes(1)), "safetensors.span"),
    "overlap": (packed({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "safetensors.offsets"),
    "the same bytes twice": (packed({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "safetensors.offsets"),
    "hole": (packed({"a": entry(0, 8), "b": entry(12, 16)}, bytes(16)), "safetensors.offsets"),
    "hole at the start": (packed({"a": entry(4, 8)}, bytes(8)), "safetensors.offsets"),
    "data cut off": (packed(TWO, bytes(15)), "safetensors.truncated"),
    "a zip behind": (packed(TWO, bytes(16) + b"PK\x03\x04 and more"), "safetensors.trailing"),
    "bytes behind nothing": (packed({}, b"x"), "safetensors.trailing"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_each_broken_rule_is_named(how):
    """With where it is and what to do, and the file blocked."""
    content, rule = BROKEN[how]
    judged = judge(content)
    (finding,) = judged.findings
    assert (finding.rule, finding.severity) == (rule, "block") and accounted(judged)
    assert finding.where and finding.meaning.endswith(".") and finding.remedy


def test_a_pickle_by_that_name_is_no_safetensors_file():
    """Content decides, not the name."""
    assert judge(b"\x80\x04]\x94.").format != "safetensors"


def test_a_header_of_many_tensors_is_read_in_bounded_memory():
    """30,000 tensors, in parts, quickly."""
    names = [f"model.layers.{number}.mlp.experts.down_proj.weight" for number in range(30_000)]
    header = {name: entry(4 * at, 4 * at + 4) for at, name in enumerate(names)}
    items = list(header.items())
    random.Random(1).shuffle(items)
    content = packed(dict(items), bytes(4 * len(names)))
    start = time.perf_counter()
    judged = judge(content)
    assert judged.findings == () and judged.facts["tensors"] == 30_000 and time.perf_counter() - start < 5


def test_a_long_entry_is_read_whole_and_a_hopeless_one_given_up():
    """Metadata of megabytes passes; a string without end is refused without trying it over and over."""
    assert judge(packed({"__metadata__": {"tags": "x" * 5_000_000}})).findings == ()
    start = time.perf_counter()
    (finding,) = judge(packed(b'{"' + b"x\\" * 15_000_000 + b"}")).findings
    assert finding.rule == "safetensors.header" and time.perf_counter() - start < 5


def whole(judged: Judged) -> None:
    """What holds for every file whatever."""
    assert accounted(judged) and all(found.rule != "scan.fault" for found in judged.findings)
    assert judged.findings or not judged.unjudged


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 40), at=st.integers(0, 200), put=st.binary(min_size=1, max_size=9))
def test_a_damaged_file_is_judged_and_never_a_crash(cut, at, put):
    """Any bytes anywhere, cut anywhere."""
    content = packed({"__metadata__": {"format": "pt"}, **TWO}, bytes(16))
    whole(judge((content[:at] + put + content[at + len(put) :])[: len(content) - cut]))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='{}[]":,\\ aF32_dtypeshoff0123456789-.', max_size=120))
def test_any_header_is_judged(header):
    """And so is noise."""
    whole(judge(packed(b"{" + header.encode(), bytes(8))))


def test_the_formats_own_reader_agrees(tmp_path):
    """What its own library refuses, we refuse; what we admit, it reads."""
    library = pytest.importorskip("safetensors")
    for how, content in SOUND.items():
        path = tmp_path / "sound.safetensors"
        path.write_bytes(content)
        with library.safe_open(path, "np") as opened:
            assert len(opened.keys()) == judge(content).facts["tensors"], how
    for how, (content, _) in BROKEN.items():
        path = tmp_path / "broken.safetensors"
        path.write_bytes(content)
        if how not in MORE_STRICT:
            with pytest.raises(library.SafetensorError), library.safe_open(path, "np"):
                pytest.fail(how)


MORE_STRICT = {"an unknown property", "a tensor twice", "a tensor twice, once escaped"}


def test_every_type_has_a_width():
    """Whole bits, none over 64."""
    assert all(0 < bits <= 64 for bits in safetensors.BITS.values())
