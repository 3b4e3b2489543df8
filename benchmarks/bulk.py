"""Large files of three formats, and a folder of small ones, made on the spot.

A sparse file's tensors are a hole, which reads as zeros and takes no disk; a random one's are random bytes. The
scanner parses the same headers and hashes the same number of bytes either way.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from assets import gguf_files, torches, zips
from assets.opcodes import pickled

BLOCK = 1 << 20
ZEROS = bytes(BLOCK)
TENSORS = 16  # in a large file
FORMATS = {"safetensors": "model.safetensors", "GGUF": "model.gguf", "PyTorch zip": "pytorch_model.bin"}


class Holes:
    """A file in which a block of zeros becomes a hole."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def write(self, data: bytes) -> int:
        if data == ZEROS:
            self._file.seek(len(data), os.SEEK_CUR)
            return len(data)
        return self._file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def large(folder: Path, kind: str, size: int, random: bool) -> Path:
    """A file of ``size`` bytes of tensors (a multiple of 16 MiB) and its headers."""
    path = folder / FORMATS[kind]
    with path.open("wb") as file:
        _WRITERS[kind](Holes(file), size // TENSORS, (lambda: os.urandom(BLOCK)) if random else (lambda: ZEROS))
        file.truncate()
    return path


def _safetensors(file: Holes, each: int, block: Callable[[], bytes]) -> None:
    header = {
        f"layer.{number}.weight": {"dtype": "F16", "shape": [each // 2048, 1024],
                                   "data_offsets": [number * each, (number + 1) * each]}
        for number in range(TENSORS)
    }  # fmt: skip
    text = json.dumps(header).encode()
    file.write(struct.pack("<Q", len(text)) + text)
    _fill(file, each * TENSORS, block)


def _gguf(file: Holes, each: int, block: Callable[[], bytes]) -> None:
    half = 1  # GGML_TYPE_F16
    tensors = [gguf_files.tensor(f"blk.{no}.w", (1024, each // 2048), half, no * each) for no in range(TENSORS)]
    file.write(gguf_files.gguf(None, tensors))
    _fill(file, each * TENSORS, block)


def _pytorch(file: Holes, each: int, block: Callable[[], bytes]) -> None:
    count = each // 4
    state = torches.ordered(
        {f"layer.{no}.weight": torches.tensor(str(no), (count // 1024, 1024), count=count) for no in range(TENSORS)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(state))
        archive.writestr("archive/byteorder", "little")
        for number in range(TENSORS):
            with archive.open(zipfile.ZipInfo(f"archive/data/{number}"), "w", force_zip64=True) as member:
                _fill(member, each, block)
        archive.writestr("archive/version", "3\n")


def _fill(file: BinaryIO | Holes, length: int, block: Callable[[], bytes]) -> None:
    for _ in range(length // BLOCK):
        file.write(block())


_WRITERS = {"safetensors": _safetensors, "GGUF": _gguf, "PyTorch zip": _pytorch}


def small(folder: Path, count: int) -> Path:
    """A folder of so many small files: safetensors, GGUF, PyTorch zips and JSON in equal parts."""
    folder.mkdir()
    content = struct.pack("<1024f", *range(1024))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1024], "data_offsets": [0, len(content)]}}).encode()
    kinds = {
        "safetensors": struct.pack("<Q", len(header)) + header + content,
        "gguf": gguf_files.gguf(None, [gguf_files.tensor("t", (1024,))], content),
        "pt": zips.checkpoint(pickled(torches.STATE), *torches.PAIR),
        "json": json.dumps({"model_type": "llama", "hidden_size": 1024, "vocab_size": 32000}).encode(),
    }
    for number in range(count):
        ending = list(kinds)[number % len(kinds)]
        (folder / f"part-{number:04}.{ending}").write_bytes(kinds[ending])
    return folder
