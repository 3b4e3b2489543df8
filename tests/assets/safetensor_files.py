"""safetensors: honest headers, and every way in which header and data can disagree.

Format: huggingface/safetensors, ``README.md`` and ``safetensors/src/tensor.rs``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from assets import zips
from assets.opcodes import attack, pickled, value
from assets.shelf import Draft, Link, admit, block, family, hold

Header = dict[str, object]


def packed(header: Header | str | bytes, data: bytes = b"", claimed: int | None = None) -> bytes:
    """A length, a header and data; the header as an object, or as text to be taken as it is."""
    text = json.dumps(header, separators=(",", ":")) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if claimed is None else claimed) + raw + data


def entry(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


DATA = struct.pack("<4f", 0, 1, 2, 3)
PAIR: Header = {"a": entry([2], 0, 8), "b": entry([2], 8, 16)}


def lie(slug: str, says: str, header: Header | str | bytes, data: bytes = DATA, *, claimed: int | None = None) -> Draft:
    return block(slug, "model.safetensors", packed(header, data, claimed), says)


def questionable(slug: str, says: str, header: str) -> Draft:
    """Against the rules, and the reference reader opens it all the same."""
    return hold(slug, "model.safetensors", packed(header, DATA), says)


@family("safetensors")
def lengths() -> Iterator[Draft]:
    """The eight bytes that say how long the header is."""
    yield lie("header-beyond-file", "A header that is longer than the file.", PAIR, claimed=1_000_000)
    yield lie("header-huge", "A header of 2**63 bytes.", PAIR, claimed=1 << 63)
    yield lie(
        "header-all-ones", "A header of 2**64 - 1 bytes: added to 8, it wraps round.", PAIR, claimed=(1 << 64) - 1
    )
    yield lie("header-100mb", "A header of 100,000,001 bytes, one more than allowed.", PAIR, claimed=100_000_001)
    yield lie(
        "header-short",
        "A header that is one byte short, so that the data begins with a brace.",
        PAIR,
        claimed=len(json.dumps(PAIR, separators=(",", ":"))) - 1,
    )
    yield lie("header-empty", "A header of no bytes.", b"", b"")
    yield block("cut-length", "model.safetensors", b"\x10\0\0", "A file of three bytes.")
    yield block("empty-file", "model.safetensors", b"", "An empty file, called .safetensors.")
    yield lie("data-cut", "The file ends inside the last tensor.", PAIR, DATA[:-1])
    yield lie("data-missing", "A header and no data at all.", PAIR, b"")
    yield lie(
        "trailing", "Bytes behind the last tensor, which belong to nothing.", PAIR, DATA + b"\x7fELF" + b"\1" * 60
    )
    yield lie("trailing-byte", "One byte behind the last tensor.", PAIR, DATA + b"\0")
    yield lie(
        "trailing-zip",
        "A zip behind the last tensor: zipfile opens the same file and finds a pickle.",
        PAIR,
        DATA + zips.named({"archive/data.pkl": attack()}),
    )
    yield lie("trailing-pickle", "A pickle behind the last tensor.", PAIR, DATA + attack(4))
    yield lie(
        "zip-in-tensor",
        "A zip that is the last tensor: its end record ends the file, so torch.load opens it.",
        {"a": entry([len(ZIPPED)], 0, len(ZIPPED), "U8")},
        ZIPPED,
    )


ZIPPED = zips.named({"archive/data.pkl": attack(), "archive/version": b"3\n"})


@family("safetensors")
def spans() -> Iterator[Draft]:
    """Where tensors lie."""
    yield lie("overlap", "Two tensors over the same bytes.", {"a": entry([4], 0, 16), "b": entry([2], 8, 16)})
    yield lie(
        "overlap-whole", "Two tensors over exactly the same bytes.", {"a": entry([4], 0, 16), "b": entry([4], 0, 16)}
    )
    yield lie("hole", "A hole between two tensors.", {"a": entry([1], 0, 4), "b": entry([2], 8, 16)})
    yield lie("hole-first", "A hole before the first tensor.", {"a": entry([2], 8, 16)})
    yield lie("reversed", "An end before its start.", {"a": entry([4], 16, 0)})
    yield lie("beyond", "An end beyond the file.", {"a": entry([8], 0, 32)})
    yield lie("beyond-64-bit", "An end of 2**64.", {"a": entry([4], 0, 1 << 64)})
    yield lie("negative", "A start of -16.", {"a": entry([8], -16, 16)})
    yield lie(
        "float-offset", "Offsets that are fractions.", '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0.0,16.0]}}'
    )
    yield lie(
        "offset-exponent", "An offset written as 1e1.", '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1.6e1]}}'
    )
    yield lie("three-offsets", "Three offsets.", {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 16]}})
    yield lie("one-offset", "One offset.", {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}})
    yield lie("shape-too-small", "A shape that needs fewer bytes than its span.", {"a": entry([2], 0, 16)})
    yield lie("shape-too-large", "A shape that needs more bytes than its span.", {"a": entry([1 << 20], 0, 16)})
    yield lie(
        "shape-overflow",
        "A shape whose product is 2**64 + 4: it wraps round to 4.",
        {"a": entry([(1 << 62) + 1, 4], 0, 16)},
    )
    yield lie(
        "shape-overflow-zero",
        "A shape whose product is 2**64: it wraps round to 0.",
        {"a": entry([1 << 32, 1 << 32], 0, 0)},
        b"",
    )
    yield lie(
        "shape-overflow-then-zero", "A shape that overflows before its zero.", {"a": entry([1 << 63, 2, 0], 0, 0)}, b""
    )
    yield lie("shape-negative", "A shape with -1 twice, whose product fits.", {"a": entry([-2, -2], 0, 16)})
    yield lie("shape-float", "A shape that is a fraction.", '{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}')
    yield lie("shape-text", "A shape that is text.", '{"a":{"dtype":"F32","shape":["4"],"data_offsets":[0,16]}}')
    yield lie(
        "shape-bool", "A shape that is a truth value.", '{"a":{"dtype":"F32","shape":[4,true],"data_offsets":[0,16]}}'
    )
    yield lie("shape-missing", "A tensor without a shape.", {"a": {"dtype": "F32", "data_offsets": [0, 16]}})
    yield lie("dtype-unknown", "A type that does not exist.", {"a": entry([4], 0, 16, "F31")})
    yield lie("dtype-case", "A type in lower case.", {"a": entry([4], 0, 16, "f32")})
    yield lie(
        "dtype-half-byte", "Three values of four bits: a byte and a half.", {"a": entry([3], 0, 2, "F4")}, b"\0\0"
    )


@family("safetensors")
def headers() -> Iterator[Draft]:
    """What the JSON may not be."""
    tensor = '"dtype":"F32","shape":[4],"data_offsets":[0,16]'
    yield lie(
        "duplicate",
        "One name twice: which tensor is meant depends on the reader.",
        f'{{"a":{{{tensor}}},"a":{{{tensor}}}}}',
    )
    yield lie(
        "duplicate-escaped", "One name twice, once with an escape.", f'{{"a":{{{tensor}}},"\\u0061":{{{tensor}}}}}'
    )
    yield lie("duplicate-key", "Two shapes in one tensor.", f'{{"a":{{"shape":[1],{tensor}}}}}')
    yield lie(
        "duplicate-metadata",
        "Two metadata blocks.",
        f'{{"__metadata__":{{"a":"1"}},"__metadata__":{{"a":"2"}},"a":{{{tensor}}}}}',
    )
    yield lie("metadata-number", "Metadata that is a number.", {"__metadata__": {"step": 3}, "a": entry([4], 0, 16)})
    yield lie(
        "metadata-nested", "Metadata inside metadata.", {"__metadata__": {"x": {"y": "z"}}, "a": entry([4], 0, 16)}
    )
    yield lie("metadata-list", "Metadata that is a list.", {"__metadata__": ["x"], "a": entry([4], 0, 16)})
    yield lie("metadata-null", "Metadata with a null.", {"__metadata__": {"x": None}, "a": entry([4], 0, 16)})
    yield lie("array", "A header that is a list.", "[]", b"")
    yield lie("not-json", "A header that is not JSON.", "{'a': 1}")
    yield lie("python-json", "NaN, which Python reads and JSON has not.", f'{{"a":{{{tensor},"x":NaN}}}}')
    yield questionable("leading-space", "A header that begins with a space.", " " + json.dumps(PAIR))
    yield lie("bom", "A header that begins with a byte order mark.", b"\xef\xbb\xbf" + json.dumps(PAIR).encode())
    yield lie("not-utf8", "A header that is not UTF-8.", b'{"\xff\xfe":{' + tensor.encode() + b"}}")
    yield lie("nul-padded", "A header that is padded with NUL.", json.dumps(PAIR) + "\0" * 8)
    yield lie("junk-after", "Words after the closing brace, inside the header.", json.dumps(PAIR) + "os.system")
    yield questionable(
        "unknown-field",
        "A tensor with a field that the format does not have.",
        f'{{"a":{{{tensor},"loader":"os.system"}}}}',
    )
    yield lie("deep", "Brackets 100,000 deep.", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", b"")
    yield lie(
        "long-number",
        "A number of 100,000 digits.",
        '{"a":{"dtype":"F32","shape":[' + "9" * 100_000 + '],"data_offsets":[0,16]}}',
    )
    yield lie("surrogate", "Half a character.", '{"\\ud800":{' + tensor + "}}")


@family("safetensors")
def disguises() -> Iterator[Draft]:
    """Other things that are called .safetensors, and folders whose index lies."""
    yield block("pickle", "model.safetensors", attack(4), "A malicious pickle, called .safetensors.")
    yield block("pickle-0", "model.safetensors", attack(0), "A malicious pickle of protocol 0, called .safetensors.")
    yield block(
        "html", "model.safetensors", "<!DOCTYPE html><title>401</title>", "A hub's error page in place of the weights."
    )
    yield hold(
        "lfs-pointer",
        "model.safetensors",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 988097824\n",
        "A Git-LFS pointer in place of the weights.",
    )
    whole = packed(PAIR, DATA)
    for slug, name in {
        "climbs": "../../other/model.safetensors",
        "absolute": "/tmp/freehold.safetensors",
        "url": "https://freehold.invalid/x",
        "pickle": "pytorch_model.bin",
        "windows": "..\\x.safetensors",
    }.items():
        index = json.dumps({"metadata": {"total_size": 16}, "weight_map": {"a": name, "b": "model.safetensors"}})
        yield (
            block(
                f"index-{slug}",
                "",
                {"model.safetensors.index.json": index, "model.safetensors": whole, "pytorch_model.bin": attack()},
                f"An index that leads to {name}.",
            )
            if slug in ("climbs", "absolute", "pickle", "windows")
            else hold(
                f"index-{slug}",
                "",
                {"model.safetensors.index.json": index, "model.safetensors": whole},
                f"An index that leads to {name}.",
            )
        )
    yield hold(
        "index-missing",
        "",
        {
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
            ),
            "model-00001-of-00002.safetensors": packed({"a": entry([4], 0, 16)}, DATA),
        },
        "An index with a shard that is not there.",
    )
    yield hold(
        "symlink",
        "",
        {"model.safetensors": Link("../../../../../../etc/hostname"), "config.json": "{}"},
        "Weights that are a symbolic link out of the folder.",
    )


@family("safetensors")
def sound() -> Iterator[Draft]:
    """Files that the reference reader opens."""

    def fine(slug: str, says: str, header: Header | str | bytes, data: bytes = DATA) -> Draft:
        return admit(slug, "model.safetensors", packed(header, data), says)

    yield fine("two", "Two tensors.", PAIR)
    yield fine("empty", "No tensors at all.", "{}", b"")
    yield fine("metadata-alone", "Metadata and no tensor.", {"__metadata__": {"format": "pt"}}, b"")
    yield fine("scalar", "A tensor of no dimensions.", {"a": entry([], 0, 4)}, DATA[:4])
    yield fine(
        "hollow",
        "A tensor with no values, between two others.",
        {"a": entry([2], 0, 8), "n": entry([0, 5], 8, 8), "b": entry([2], 8, 16)},
    )
    yield fine("padded", "A header padded with spaces to a multiple of eight.", json.dumps(PAIR) + " " * 5)
    yield fine("padded-much", "A header with a thousand spaces behind it.", json.dumps(PAIR) + " " * 1000)
    yield fine("spaced", "A header with spaces and line ends inside.", json.dumps(PAIR, indent=2))
    yield fine(
        "unsorted", "Tensors in another order than their offsets.", {"b": entry([2], 8, 16), "a": entry([2], 0, 8)}
    )
    yield fine(
        "urls",
        "URLs and commands as metadata: text that nobody runs.",
        {
            "__metadata__": {
                "source": "https://example.org/x?y=1",
                "cmd": "os.system('echo freehold')",
                "template": "{{ x }}",
            },
            **PAIR,
        },
    )
    yield fine(
        "names", "Tensors called after functions.", {"os.system": entry([2], 0, 8), "__reduce__": entry([2], 8, 16)}
    )
    yield fine("unicode", "A name that is not ASCII.", {"Gewicht.größe": entry([4], 0, 16)})
    yield fine("data-alike", "Data that reads like a pickle.", {"a": entry([16], 0, 16, "U8")}, b"cos\nsystem\n(S'x.")
    for kind, size in {
        "F64": 8,
        "BF16": 2,
        "F16": 2,
        "I64": 8,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
        "F8_E4M3": 1,
        "U16": 2,
    }.items():
        yield fine(
            f"dtype-{kind.lower().replace('_', '-')}",
            f"A tensor of {kind}.",
            {"a": entry([3], 0, 3 * size, kind)},
            b"\0" * 3 * size,
        )
    yield fine(
        "many",
        "2,000 tensors.",
        {f"model.layers.{n}.weight": entry([1], 4 * n, 4 * n + 4) for n in range(2000)},
        b"\0" * 8000,
    )
    yield fine("no-metadata-block", "The same tensors as numpy saves them.", {"b": entry([2, 2], 0, 16)})
    yield admit("no-extension", "weights", packed(PAIR, DATA), "A safetensors file without an extension.")
    shards = {
        "model-00001-of-00002.safetensors": packed({"a": entry([4], 0, 16)}, DATA),
        "model-00002-of-00002.safetensors": packed({"b": entry([4], 0, 16)}, DATA),
    }
    index = {
        "metadata": {"total_size": 32},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    yield admit(
        "shards",
        "",
        {"model.safetensors.index.json": json.dumps(index, indent=2), **shards},
        "Two shards and their index.",
    )
    yield admit(
        "lora",
        "",
        {
            "adapter_model.safetensors": packed(PAIR, DATA),
            "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "org/base"}),
        },
        "A LoRA adapter with its settings.",
    )
    yield admit(
        "beside-plain-pickle",
        "",
        {"model.safetensors": packed(PAIR, DATA), "vocab.pkl": pickled(value({"os.system": 1}))},
        "Weights beside a plain vocabulary.",
    )
