"""GGUF: sound files of both versions, and every number in the header that can lie.

Format: ggml-org/ggml, ``docs/gguf.md``; tensor types as in ``ggml.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from assets import zips
from assets.opcodes import attack
from assets.shelf import Draft, Link, admit, block, family, hold

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
BASE: dict[str, object] = {"general.architecture": "llama", "llama.context_length": 4096}


def text(value: str | bytes, claimed: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if claimed is None else claimed) + raw


def scalar(kind: int, value: float) -> bytes:
    return struct.pack("<I" + FORMATS[kind], kind, value)


def field(key: str | bytes, value: object) -> bytes:
    """A key and its value; bytes are a value that is already written, with its type."""
    return text(key) + typed(value)


def typed(value: object) -> bytes:
    match value:
        case bytes():
            return value
        case bool():
            return scalar(BOOL, value)
        case int():
            return scalar(U32, value)
        case float():
            return scalar(F32, value)
        case str():
            return struct.pack("<I", STRING) + text(value)
        case list():
            body = [typed(item) for item in value]
            kind = body[0][:4] if body else struct.pack("<I", STRING)
            return struct.pack("<I", ARRAY) + kind + struct.pack("<Q", len(value)) + b"".join(item[4:] for item in body)
    raise TypeError(type(value))


def tensor(
    name: str | bytes = "t", shape: Iterable[int] = (8,), kind: int = 0, offset: int = 0, rank: int | None = None
) -> bytes:
    extents = tuple(shape)
    head = text(name) + struct.pack("<I", len(extents) if rank is None else rank)
    return head + struct.pack(f"<{len(extents)}Q", *extents) + struct.pack("<IQ", kind, offset)


def gguf(
    fields: Mapping[str, object] | bytes | None = None,
    tensors: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    count: int | None = None,
    pairs: int | None = None,
    align: int = 32,
) -> bytes:
    """A whole file. ``fields`` come on top of the usual two, or are bytes that are taken as they are."""
    infos = list(tensors)
    if isinstance(fields, bytes):
        body, number = fields, 1
    else:
        all_fields = BASE | dict(fields or {})
        body, number = b"".join(field(key, value) for key, value in all_fields.items()), len(all_fields)
    head = magic + struct.pack(
        "<IQQ", version, len(infos) if count is None else count, number if pairs is None else pairs
    )
    out = head + body + b"".join(infos)
    return out + b"\0" * (-len(out) % align) + data if infos or data else out


ROW = struct.pack("<8f", *range(8))


def lie(slug: str, says: str, content: bytes) -> Draft:
    return block(slug, "model.gguf", content, says)


@family("gguf")
def counts() -> Iterator[Draft]:
    """How many, and how long."""
    yield lie("tensors-2-61", "A count of 2**61 tensors: times its size, it wraps round.", gguf(count=1 << 61))
    yield lie("pairs-2-61", "A count of 2**61 keys.", gguf(pairs=1 << 61))
    yield lie("pairs-more", "A count of one key more than there are.", gguf(pairs=3))
    yield lie("tensors-more", "A count of one tensor more than there are.", gguf(None, [tensor()], ROW, count=2))
    yield lie("tensors-negative", "A count of -1 tensors.", gguf(count=(1 << 64) - 1))
    yield lie(
        "string-2-63", "A string of 2**63 bytes.", gguf(text("a") + struct.pack("<I", STRING) + text("x", 1 << 63))
    )
    yield lie(
        "string-all-ones",
        "A string of 2**64 - 1 bytes: plus one for its NUL, it is empty.",
        gguf(text("a") + struct.pack("<I", STRING) + text("x", (1 << 64) - 1)),
    )
    yield lie(
        "string-beyond",
        "A string that ends beyond the file.",
        gguf(text("a") + struct.pack("<I", STRING) + text("x", 5000)),
    )
    yield lie("key-2-63", "A key of 2**63 bytes.", gguf(text("a", 1 << 63)))
    yield lie("key-long", "A key of 70,000 bytes.", gguf(field("k" * 70_000, 1)))
    yield lie("key-empty", "A key without a name.", gguf(field("", 1)))
    yield lie(
        "key-twice",
        "One key twice: which one counts depends on the reader.",
        gguf(field("general.architecture", "llama") + field("general.architecture", "gpt2"), pairs=2),
    )
    yield lie("key-not-ascii", "A key that is not ASCII.", gguf(field("général", 1)))
    yield lie("array-2-61", "An array of 2**61 numbers.", gguf(text("a") + struct.pack("<IIQ", ARRAY, U64, 1 << 61)))
    yield lie("array-2-40", "An array of 2**40 bytes.", gguf(text("a") + struct.pack("<IIQ", ARRAY, U8, 1 << 40)))
    yield lie(
        "array-strings",
        "An array of 2**29 strings, and the file has none.",
        gguf(text("a") + struct.pack("<IIQ", ARRAY, STRING, 1 << 29)),
    )
    yield lie(
        "array-deep",
        "Arrays 10,000 deep.",
        gguf(text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 10_000 + struct.pack("<IQ", U8, 0)),
    )
    yield lie("array-type", "An array of the type 99.", gguf(text("a") + struct.pack("<IIQ", ARRAY, 99, 1) + b"\0"))
    yield lie("type-13", "A value of the type 13, which does not exist.", gguf(text("a") + struct.pack("<IQ", 13, 0)))
    yield lie("type-huge", "A value of the type 2**32 - 1.", gguf(text("a") + struct.pack("<IQ", 0xFFFFFFFF, 0)))
    yield lie("bool-2", "A truth value of 2.", gguf(text("a") + struct.pack("<IB", BOOL, 2)))
    yield lie(
        "bool-in-array",
        "A truth value of 255 in an array.",
        gguf(text("a") + struct.pack("<IIQ", ARRAY, BOOL, 2) + b"\1\xff"),
    )


@family("gguf")
def tensors() -> Iterator[Draft]:
    """Shapes, types and places."""
    yield lie(
        "dims-overflow",
        "CVE-2026-27940: dimensions whose product wraps round to something small.",
        gguf(None, [tensor(shape=(1 << 32, 1 << 32, 2, 1))], ROW),
    )
    yield lie(
        "dims-overflow-odd",
        "CVE-2026-27940: a product of 2**64 + 8.",
        gguf(None, [tensor(shape=((1 << 61) + 1, 8))], ROW),
    )
    yield lie(
        "dims-negative",
        "A dimension of -8, as signed readers see it.",
        gguf(None, [tensor(shape=((1 << 64) - 8,))], ROW),
    )
    yield lie("dims-bytes-overflow", "Few enough values, too many bytes.", gguf(None, [tensor(shape=(1 << 62,))], ROW))
    yield lie(
        "dims-5",
        "Five dimensions where the reader has room for four.",
        gguf(None, [tensor(shape=(8, 1, 1, 1, 1))], ROW),
    )
    yield lie("dims-2-31", "2**31 dimensions.", gguf(None, [tensor(rank=1 << 31)], ROW))
    yield lie(
        "data-beyond", "CVE-2026-7482: a tensor that ends beyond the file.", gguf(None, [tensor(shape=(4096,))], ROW)
    )
    yield lie("data-none", "CVE-2026-7482: tensors and no data at all.", gguf(None, [tensor()]))
    yield lie("data-cut", "The file ends four bytes early.", gguf(None, [tensor()], ROW[:-4]))
    yield lie("offset-beyond", "An offset beyond the file.", gguf(None, [tensor(offset=1 << 40)], ROW))
    yield lie("offset-wraps", "An offset of 2**64 - 32.", gguf(None, [tensor(offset=(1 << 64) - 32)], ROW))
    yield lie("offset-odd", "An offset that is not aligned.", gguf(None, [tensor(), tensor("u", offset=36)], ROW * 2))
    yield lie("overlap", "Two tensors over the same bytes.", gguf(None, [tensor(), tensor("u")], ROW * 2))
    yield lie(
        "overlap-part",
        "Two tensors that share a block.",
        gguf(None, [tensor(shape=(16,)), tensor("u", offset=32)], ROW * 2),
    )
    yield lie("hole", "A hole between two tensors.", gguf(None, [tensor(), tensor("u", offset=64)], ROW * 3))
    yield lie("trailing", "Bytes behind the last tensor.", gguf(None, [tensor()], ROW + b"\x7fELF" + b"\1" * 60))
    yield lie(
        "trailing-zip",
        "A zip behind the last tensor.",
        gguf(None, [tensor()], ROW + zips.named({"data.pkl": attack()})),
    )
    yield lie("trailing-pickle", "A pickle behind a vocabulary-only file.", gguf() + attack(4))
    yield lie("name-twice", "One name twice.", gguf(None, [tensor(), tensor(offset=32)], ROW * 2))
    yield lie(
        "name-64", "A name of 64 bytes, one more than the reader has room for.", gguf(None, [tensor("n" * 64)], ROW)
    )
    yield lie("name-4096", "A name of 4,096 bytes.", gguf(None, [tensor("n" * 4096)], ROW))
    for kind in (4, 5, 31, 32, 33, 36, 37, 38, 99, 0xFFFFFFFF):
        yield lie(
            f"tensor-type-{kind}",
            f"The tensor type {kind}, which was removed or never was.",
            gguf(None, [tensor(shape=(256,), kind=kind)], b"\0" * 1024),
        )
    yield lie(
        "half-block",
        "A row of 31 values in a type of 32 a block.",
        gguf(None, [tensor(shape=(31,), kind=2)], b"\0" * 32),
    )
    for align in (0, 3, 24, 1 << 31):
        yield (
            lie(f"alignment-{align}", f"An alignment of {align}.", gguf({"general.alignment": align}, [tensor()], ROW))
            if align != 1 << 31
            else hold(
                "alignment-2-31",
                "model.gguf",
                gguf({"general.alignment": align}, [tensor()], ROW),
                "An alignment of 2**31: the data would begin there.",
            )
        )
    yield lie("alignment-text", "An alignment that is text.", gguf({"general.alignment": "32"}, [tensor()], ROW))


@family("gguf")
def disguises() -> Iterator[Draft]:
    """Whole files that are not what they say."""
    whole = gguf(None, [tensor()], ROW)
    yield lie("version-1", "Version 1, whose numbers have another width.", gguf(version=1))
    yield lie("version-99", "A version that does not exist.", gguf(version=99))
    yield lie("magic", "The magic number in other letters.", gguf(magic=b"GGUG"))
    yield lie("cut-header", "A file that ends after 20 bytes.", whole[:20])
    yield lie("cut-in-a-key", "A file that ends inside its first key.", whole[:40])
    yield hold(
        "ggjt",
        "model.bin",
        b"tjgg" + struct.pack("<8I", 3, 32000, 4096, 256, 32, 32, 128, 2),
        "The format before GGUF, which has no parser here.",
    )
    yield hold("big-endian", "model.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "A big-endian file.")
    yield block(
        "elf", "model.gguf", b"\x7fELF\2\1\1" + b"\0" * 57 + whole, "A program with a GGUF inside, called .gguf."
    )
    yield block("mz", "model.gguf", b"MZ\x90\0" + b"\0" * 60 + whole, "A Windows program with a GGUF inside.")
    yield hold(
        "llamafile",
        "model.llamafile",
        b"MZqFpD='\n" + b"#!/bin/sh\necho freehold\n" + b"\0" * 64 + whole,
        "A llamafile: a program that carries its model.",
    )
    yield block("shell", "model.gguf", b"#!/bin/sh\necho freehold\n", "A shell script, called .gguf.")
    yield block("pickle", "model.gguf", attack(2), "A malicious pickle, called .gguf.")
    yield hold("zip", "model.gguf", zips.named({"model.gguf": whole + b"\0"}), "A zip, called .gguf.")
    yield hold(
        "symlink",
        "",
        {"model.gguf": Link("../../../../../../../etc/hostname")},
        "A model that is a symbolic link out of its folder.",
    )


@family("gguf")
def sound() -> Iterator[Draft]:
    """What llama.cpp and the gguf package write."""

    def fine(slug: str, says: str, content: bytes) -> Draft:
        return admit(slug, "model.gguf", content, says)

    yield fine("one", "One tensor.", gguf(None, [tensor()], ROW))
    yield fine("two", "Two tensors.", gguf(None, [tensor(), tensor("u", offset=32)], ROW * 2))
    yield fine("version-2", "Version 2.", gguf(None, [tensor()], ROW, version=2))
    vocabulary = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["<s>", "os.system", "eval(", "{{", "ünï"],
        "tokenizer.ggml.scores": [0.0, -1.0, -2.0, -3.0, -4.0],
        "tokenizer.ggml.token_type": [3, 1, 1, 1, 1],
    }
    yield fine("vocabulary", "A vocabulary alone, with words such as os.system.", gguf(vocabulary))
    yield fine("vocabulary-and-tensor", "A vocabulary and a tensor.", gguf(vocabulary, [tensor()], ROW))
    kinds = {
        "u8": scalar(U8, 1),
        "i8": scalar(I8, -1),
        "u16": scalar(U16, 1),
        "i16": scalar(I16, -1),
        "i32": scalar(I32, -1),
        "f32": scalar(F32, 0.5),
        "bool": scalar(BOOL, 1),
        "u64": scalar(U64, 1 << 63),
        "i64": scalar(I64, -1),
        "f64": scalar(F64, 0.5),
    }
    yield fine("all-types", "A value of every type.", gguf({f"x.{name}": value for name, value in kinds.items()}))
    yield fine(
        "nested-array",
        "An array of arrays.",
        gguf({"x.pairs": struct.pack("<IIQ", ARRAY, ARRAY, 1) + struct.pack("<IQ", U8, 2) + b"\1\2"}),
    )
    yield fine("empty-array", "An array of nothing.", gguf({"x.none": struct.pack("<IIQ", ARRAY, I32, 0)}))
    yield fine("empty-string", "An empty string.", gguf({"general.description": ""}))
    yield fine(
        "alignment-64",
        "An alignment of 64.",
        gguf({"general.alignment": 64}, [tensor(), tensor("u", offset=64)], ROW + b"\0" * 32 + ROW, align=64),
    )
    yield fine("padded", "Padding behind the last tensor.", gguf(None, [tensor(shape=(2,))], ROW[:8] + b"\0" * 24))
    yield fine("unpadded", "No padding behind the last tensor.", gguf(None, [tensor(shape=(2,))], ROW[:8]))
    yield fine("name-63", "A name of 63 bytes.", gguf(None, [tensor("n" * 63)], ROW))
    yield fine("four-dims", "Four dimensions.", gguf(None, [tensor(shape=(2, 2, 2, 1))], ROW))
    for kind, name, size in (
        (1, "F16", 512),
        (2, "Q4_0", 144),
        (8, "Q8_0", 272),
        (12, "Q4_K", 144),
        (14, "Q6_K", 210),
        (30, "BF16", 512),
        (24, "I8", 256),
        (39, "MXFP4", 136),
    ):
        yield fine(
            f"tensor-{name.lower().replace('_', '-')}",
            f"A tensor of {name}.",
            gguf(None, [tensor(shape=(256,), kind=kind)], b"\0" * (size + -size % 32)),
        )
    yield fine(
        "urls",
        "URLs and commands as metadata.",
        gguf(
            {"general.url": "https://example.org/model", "general.description": "Runs os.system('echo freehold')? No."}
        ),
    )
    yield fine(
        "licence",
        "A licence and a base model.",
        gguf(
            {
                "general.license": "apache-2.0",
                "general.base_model.count": 1,
                "general.base_model.0.name": "Base",
                "general.base_model.0.repo_url": "https://huggingface.co/org/base",
            }
        ),
    )
    yield fine(
        "adapter",
        "A LoRA adapter.",
        gguf(
            {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 16.0},
            [tensor("blk.0.attn_q.weight.lora_a", (8, 1))],
            ROW,
        ),
    )
    yield fine("no-extension-key", "A long text as description.", gguf({"general.description": "x" * 100_000}))
    yield admit("no-extension", "model", gguf(None, [tensor()], ROW), "A GGUF without an extension.")
    yield fine(
        "data-alike",
        "Data that reads like a pickle.",
        gguf(None, [tensor(shape=(16,), kind=24)], b"cos\nsystem\n(S'x.".ljust(32, b"\0")),
    )
    split = {"split.count": scalar(U16, 2), "split.tensors.count": scalar(I32, 2)}
    yield admit(
        "split",
        "",
        {
            f"model-0000{n + 1}-of-00002.gguf": gguf(split | {"split.no": scalar(U16, n)}, [tensor(f"t{n}")], ROW)
            for n in range(2)
        },
        "A model in two files.",
    )
