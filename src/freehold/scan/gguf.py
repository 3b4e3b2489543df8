"""GGUF, the engine's own format: is the file whole, and is every number in its header one that can be true?

Format: the GGUF specification, versions 2 and 3 (little-endian). Nothing is allocated by a length that the
file claims before that length is known to lie inside the file.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from freehold.types import Finding

MAGIC = b"GGUF"
MAX_ITEMS = 1 << 20  # metadata keys, tensors
MAX_ARRAY = 1 << 30
MAX_STRING = 1 << 30
MAX_KEY = 65_535
MAX_NAME = 63
MAX_KEPT = 64  # array elements and string kilobytes kept for others to read

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Tensor type -> (values in a block, bytes of a block), as ggml lays them out. 4, 5, 31-33 and 36-38 were
# removed from the format and must not appear.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip


class Header(Struct, frozen=True):
    """What a sound GGUF file says of itself. Long arrays and strings in ``metadata`` are cut to what is
    useful."""

    version: int
    metadata: dict[str, Any]
    tensors: int

    @property
    def architecture(self) -> str:
        """The model family, as the engine names it."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def context(self) -> int:
        """The number of tokens that the model was trained to attend to; 0 where the file does not say."""
        value = self.metadata.get(f"{self.architecture}.context_length", 0)
        return value if isinstance(value, int) else 0

    @property
    def licence(self) -> str:
        """The licence that the file names, as it names it."""
        return str(self.metadata.get("general.license", ""))


class Malformed(Exception):
    """The file breaks a rule of the format."""

    def __init__(self, rule: str, where: int, meaning: str):
        super().__init__(meaning)
        self.rule, self.where, self.meaning = rule, where, meaning


def scan(path: Path) -> tuple[Header | None, list[Finding]]:
    """The header of a sound file, or None and what is wrong with it. OSError passes through."""
    try:
        with path.open("rb") as stream:
            return _Reader(stream, path.stat().st_size).header(), []
    except Malformed as fault:
        remedy = "Fetch the file again from its publisher and compare the digest."
        return None, [Finding(fault.rule, path.name, f"byte {fault.where}", fault.meaning, remedy)]


class _Reader:
    """Reads one file from its start, never past its end."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size, self.at = stream, size, 0

    def header(self) -> Header:
        if self.take(4, "its magic number") != MAGIC:
            raise Malformed("gguf.magic", 0, "This is not a GGUF file: it does not begin with 'GGUF'.")
        version = self.number("I")
        if version not in (2, 3):
            raise Malformed("gguf.version", 4, f"GGUF version {version} is not known; 2 and 3 are.")
        tensors, pairs = self.count("tensors"), self.count("metadata keys")
        metadata = self.metadata(pairs)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise Malformed("gguf.alignment", self.at, f"The alignment {alignment!r} is not a power of two.")
        self.tensors(tensors, alignment)
        return Header(version, metadata, tensors)

    def take(self, length: int, what: str) -> bytes:
        if length > self.size - self.at:
            raise Malformed(
                "gguf.truncated", self.at, f"The file ends after {self.size} bytes, inside {what}: it is cut off."
            )
        self.at += length
        return self.stream.read(length)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), "a number"))[0]

    def count(self, what: str) -> int:
        value = self.number("Q")
        if value > MAX_ITEMS:
            raise Malformed("gguf.count", self.at - 8, f"The file claims {value} {what}; no model has that many.")
        return value

    def string(self, limit: int = MAX_STRING, what: str = "a string") -> bytes:
        length = self.number("Q")
        if length > limit:
            raise Malformed("gguf.string", self.at - 8, f"The file claims {what} of {length} bytes.")
        return self.take(length, what)

    def metadata(self, pairs: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(pairs):
            start = self.at
            key = self.string(MAX_KEY, "a key")
            if not key.isascii() or not key:
                raise Malformed("gguf.key", start, "A metadata key is empty or not ASCII.")
            name = key.decode()
            if name in found:
                raise Malformed("gguf.key", start, f"The metadata key {name!r} appears twice.")
            found[name] = self.value(self.number("I"))
        return found

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()[: MAX_KEPT << 10].decode("utf-8", "replace")
        if kind == _ARRAY:
            return self.array(depth)
        if kind not in _SCALARS:
            raise Malformed("gguf.type", self.at - 4, f"A metadata value has the unknown type {kind}.")
        value = self.number(_SCALARS[kind])
        if kind == _BOOL:
            if value > 1:
                raise Malformed("gguf.bool", self.at - 1, f"A truth value is {value}.")
            return bool(value)
        return value

    def array(self, depth: int) -> list[Any]:
        kind, length = self.number("I"), self.number("Q")
        if length > MAX_ARRAY or depth > 3:
            raise Malformed(
                "gguf.array", self.at - 8, f"The file claims an array of {length} values, {depth + 1} deep."
            )
        if kind in _SCALARS and kind != _BOOL:
            kept = min(length, MAX_KEPT)
            width = struct.calcsize("<" + _SCALARS[kind])
            values = struct.unpack(f"<{kept}{_SCALARS[kind]}", self.take(kept * width, "an array"))
            self.skip((length - kept) * width, "an array")
            return list(values)
        kept_values = []
        for position in range(length):
            element = self.value(kind, depth + 1)
            if position < MAX_KEPT:
                kept_values.append(element)
        return kept_values

    def skip(self, length: int, what: str) -> None:
        if length > self.size - self.at:
            self.take(length, what)
        self.at += length
        self.stream.seek(self.at)

    def tensors(self, count: int, alignment: int) -> None:
        names: set[bytes] = set()
        expected = needed = 0  # with the padding after the last tensor, and without
        for _ in range(count):
            start = self.at
            name = self.string(MAX_NAME, "a tensor's name")
            if not name or name in names:
                raise Malformed("gguf.tensor.name", start, f"The tensor name {name!r} is empty or appears twice.")
            names.add(name)
            length = self.tensor_bytes(name)
            if (offset := self.number("Q")) != expected:
                raise Malformed(
                    "gguf.tensor.offset", self.at - 8,
                    f"The tensor {name.decode(errors='replace')} begins at {offset}, where {expected} is due: "
                    "tensors overlap or leave a hole.",
                )  # fmt: skip
            needed = expected + length
            expected += _padded(length, alignment)
        if count:
            start = _padded(self.at, alignment)
            self.data(start + needed, start + expected)

    def tensor_bytes(self, name: bytes) -> int:
        start, dimensions = self.at, self.number("I")
        if dimensions > 4:
            raise Malformed("gguf.tensor.shape", start, f"The tensor {name!r} has {dimensions} dimensions.")
        shape = struct.unpack(f"<{dimensions}Q", self.take(8 * dimensions, "a shape"))
        kind = self.number("I")
        if kind not in BLOCKS:
            raise Malformed("gguf.tensor.type", self.at - 4, f"The tensor {name!r} has the unknown type {kind}.")
        values, (per_block, block_bytes) = math.prod(shape), BLOCKS[kind]
        if values > 1 << 48 or (shape[0] if shape else 1) % per_block:
            raise Malformed("gguf.tensor.shape", start, f"The tensor {name!r} has the impossible shape {shape}.")
        return values // per_block * block_bytes

    def data(self, needed: int, padded: int) -> None:
        if needed > self.size:
            meaning = f"The tensors need {needed} bytes and the file has {self.size}: it is cut off."
            raise Malformed("gguf.truncated", self.at, meaning)
        if self.size > padded:
            meaning = f"{self.size - padded} bytes follow the last tensor and belong to nothing."
            raise Malformed("gguf.trailing", padded, meaning)


def _padded(length: int, alignment: int) -> int:
    return (length + alignment - 1) // alignment * alignment
