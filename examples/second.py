"""Makes a second, weaker model out of the starter's file, so that the examples have two candidates to compare.

    python examples/second.py starter.gguf -o shorter.gguf

The result is the same model with some of its transformer blocks left out and the rest numbered anew. That makes it
really different, smaller and worse: it is made for the example, and nobody should use it for anything else.

The format is GGUF, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Metadata and tensors are
copied byte for byte, save the number of blocks, the model's name and the tensors' places in the file.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of each type of plain value
UINT32, STRING, ARRAY = 4, 8, 9
LONGEST = 1 << 26  # bytes of metadata that are read; the starter has under 2 MB


class Tensor(NamedTuple):
    """A tensor's entry: ``shape`` is its bytes from the number of dimensions to the type, ``offset`` where it lies."""

    name: str
    shape: bytes
    offset: int


class Reader:
    """Reads GGUF's header from its first bytes."""

    def __init__(self, head: bytes):
        self.head, self.at = head, 0

    def take(self, length: int) -> bytes:
        if length > len(self.head) - self.at:
            raise ValueError("the file ends within its header, or its metadata is too long")
        self.at += length
        return self.head[self.at - length : self.at]

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> bytes:
        """A value's bytes as they stand."""
        start = self.at
        if kind == STRING:
            self.string()
        elif kind != ARRAY:
            self.take(SIZES[kind])
        else:
            inner, count = self.number("I"), self.number("Q")
            if inner in SIZES:
                self.take(count * SIZES[inner])
            else:
                for _ in range(count):
                    self.value(inner)
        return self.head[start : self.at]

    def tensor(self) -> Tensor:
        name, start = self.string(), self.at
        self.take(8 * self.number("I") + 4)
        return Tensor(name, self.head[start : self.at], self.number("Q"))


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def shorten(source: BinaryIO, size: int, target: BinaryIO, drop: range) -> int:
    """Write the model without the blocks in ``drop``; returns how many blocks are left. Raises ValueError."""
    reader = Reader(source.read(min(size, LONGEST)))
    if reader.take(4) != b"GGUF" or reader.number("I") != 3:
        raise ValueError("not a GGUF file of version 3")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    metadata = {}
    for _ in range(pairs):
        key, kind = reader.string(), reader.number("I")
        metadata[key] = (kind, reader.value(kind))
    entries = sorted((reader.tensor() for _ in range(tensors)), key=lambda one: one.offset)
    left = rename(metadata, drop)
    alignment = struct.unpack("<I", metadata.get("general.alignment", (UINT32, b"\x20\0\0\0"))[1])[0]
    data = up(reader.at, alignment)
    ends = [one.offset for one in entries[1:]] + [size - data]
    kept = [(renumber(one, drop), one.offset, end - one.offset) for one, end in zip(entries, ends, strict=True)]
    copy(source, target, metadata, [one for one in kept if one[0] is not None], data, alignment)
    return left


def rename(metadata: dict[str, tuple[int, bytes]], drop: range) -> int:
    """Put the new number of blocks and a new name into the metadata; returns the number."""
    key = next((key for key in metadata if key.endswith(".block_count")), None)
    if key is None or metadata[key][0] != UINT32:
        raise ValueError("the file does not say how many blocks it has")
    blocks = struct.unpack("<I", metadata[key][1])[0]
    if drop.stop > blocks:
        raise ValueError(f"the model has {blocks} blocks, so {drop.start} to {drop.stop - 1} cannot be left out")
    metadata[key] = (UINT32, struct.pack("<I", blocks - len(drop)))
    metadata["general.name"] = (STRING, string(f"Starter without {len(drop)} of its {blocks} blocks (example)"))
    return blocks - len(drop)


def renumber(tensor: Tensor, drop: range) -> Tensor | None:
    """The tensor under its new name; None where its block is left out."""
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", tensor.name)
    if match is None or int(match[1]) < drop.start:
        return tensor
    if int(match[1]) in drop:
        return None
    return tensor._replace(name=f"blk.{int(match[1]) - len(drop)}.{match[2]}")


def up(length: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-length // alignment) * alignment


def copy(source: BinaryIO, target: BinaryIO, metadata: dict, kept: list, data: int, alignment: int) -> None:
    """Write header, metadata, entries and tensors, each tensor at a multiple of the alignment."""
    target.write(b"GGUF" + struct.pack("<IQQ", 3, len(kept), len(metadata)))
    for key, (kind, value) in metadata.items():
        target.write(string(key) + struct.pack("<I", kind) + value)
    at = 0
    for tensor, _, length in kept:
        target.write(string(tensor.name) + tensor.shape + struct.pack("<Q", at))
        at = up(at + length, alignment)
    for _, offset, length in kept:
        target.write(bytes(up(target.tell(), alignment) - target.tell()))
        source.seek(data + offset)
        target.write(source.read(length))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make a second, weaker model for the examples: the same, less some blocks."
    )
    parser.add_argument("source", type=Path, help="the starter model's GGUF file")
    parser.add_argument("-o", "--output", type=Path, default=Path("shorter.gguf"), help="where to write")
    parser.add_argument("--first", type=int, default=12, help="the first block that is left out (default 12)")
    parser.add_argument("--count", type=int, default=2, help="how many are left out (default 2)")
    words = parser.parse_args()
    if words.first < 0 or words.count < 1:
        parser.error("--first must be 0 or more, and --count 1 or more")
    try:
        with words.source.open("rb") as source, words.output.open("xb") as target:
            drop = range(words.first, words.first + words.count)
            left = shorten(source, words.source.stat().st_size, target, drop)
    except (ValueError, KeyError) as error:
        words.output.unlink()
        sys.exit(f"No model was made of {words.source}: {error}.")
    except OSError as error:
        sys.exit(f"No model was made: {error}.")
    print(f"{words.output}: {left} blocks, {words.output.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
