"""A GGUF file's metadata and tensors, as numpy arrays in float32.

Format: the GGUF specification, versions 2 and 3, little-endian. Files come out of the vault, so the gate has judged
them (`scan.gguf`); what is checked here is what a wrong reading would depend on. The arithmetic of the quantised types
is `gguf.quants`', which is written by those who define them.

The library's own reader makes an object of every string of the vocabulary, which takes a hundred times as long as
walking past them.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from freehold.errors import BadModel

if TYPE_CHECKING:
    import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


class Tensor(Struct, frozen=True):
    """Where a tensor lies. ``shape`` is torch's, the longest stride first; ``kind`` is ggml's number of the type,
    ``start`` the first byte in the file."""

    shape: tuple[int, ...]
    kind: int
    start: int


class File:
    """One GGUF file, open. ``metadata`` holds every key, arrays as lists; ``tensors`` where each tensor lies."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self.metadata, self.tensors = _Reader(self._bytes).header()
        except (OSError, struct.error, KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
            raise BadModel(
                f"{path.name} cannot be read as GGUF: {error}.",
                hint="Add the model again: the gate says what is wrong.",
            ) from None

    def read(self, name: str) -> np.ndarray:
        """A tensor's values, dequantised: float32, row-major, in memory of its own.

        Raises:
            BadModel: its type is not known here, or it reaches past the end of the file.
        """
        import numpy as np
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        try:
            kind = GGMLQuantizationType(tensor.kind)
            per_block, block_bytes = GGML_QUANT_SIZES[kind]
            length = math.prod(tensor.shape) // per_block * block_bytes
            raw = np.frombuffer(self._bytes, np.uint8, length, tensor.start)
            rows = raw.reshape(*tensor.shape[:-1], tensor.shape[-1] // per_block * block_bytes)
            return np.array(dequantize(rows, kind), np.float32).reshape(tensor.shape)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise BadModel(f"The tensor {name!r} of {self.path.name} cannot be read: {error}.") from None


def together(paths: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, File]]:
    """The metadata of a model in one file or in numbered parts, and which file each tensor is in. Raises BadModel."""
    files = [File(paths[name]) for name in sorted(paths)]
    if not files:
        raise BadModel("There is no GGUF file in the model.", hint="Add a GGUF of it.")
    claimed = files[0].metadata.get("split.count", 1)
    if claimed > 1 and claimed != len(files):
        raise BadModel(f"The model has {claimed} parts and {len(files)} are here.", hint="Add all of its parts.")
    return files[0].metadata, {name: file for file in files for name in file.tensors}


class _Reader:
    """Reads a header from its start."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def header(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin as one")
        self.at = 4
        if (version := self.number("I")) not in (2, 3):
            raise ValueError(f"its version is {version}")
        tensors, keys = self.number("Q"), self.number("Q")
        metadata = {}
        for _ in range(keys):
            name = self.string()
            metadata[name] = self.value(self.number("I"))
        found = {}
        for _ in range(tensors):
            name = self.string()
            shape = tuple(reversed([self.number("Q") for _ in range(self.number("I"))]))
            found[name] = Tensor(shape, self.number("I"), self.number("Q"))
        alignment = metadata.get("general.alignment", 32)
        start = (self.at + alignment - 1) // alignment * alignment
        return metadata, {name: Tensor(one.shape, one.kind, start + one.start) for name, one in found.items()}

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        (length,) = _LENGTH.unpack_from(self.data, self.at)
        start, self.at = self.at + 8, self.at + 8 + length
        if self.at > len(self.data):
            raise ValueError("a text reaches past its end")
        return self.data[start : self.at].decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        kind, length = self.number("I"), self.number("Q")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(length)]
        values = struct.unpack_from(f"<{length}{_SCALARS[kind]}", self.data, self.at)
        self.at += struct.calcsize(f"<{length}{_SCALARS[kind]}")
        return list(values)
