"""A minimal 7z writer: one folder, one coder, a few files. Format: 7zFormat.txt of the LZMA SDK."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Mapping

SIGNATURE = b"7z\xbc\xaf\x27\x1c\0\4"
LZMA = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16}


def archive(files: Mapping[str, bytes], *, packed: bool = False, encrypted: bool = False) -> bytes:
    """The files stored, compressed with LZMA, or behind a coder for AES whose stream is noise."""
    plain = b"".join(files.values())
    stream = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=[LZMA]) if packed else plain
    coder = b"\x23\x03\x01\x01\x05\x5d" + struct.pack("<I", 1 << 16) if packed else b"\x01\x00"
    if encrypted:
        stream, coder = b"\xa5" * 64, b"\x24\x06\xf1\x07\x01\x01\x13"
    header = b"\1" + _streams(stream, plain, coder, files) + _names(files) + b"\0"
    start = struct.pack("<QQI", len(stream), len(header), zlib.crc32(header))
    return SIGNATURE + struct.pack("<I", zlib.crc32(start)) + start + stream + header


def _streams(stream: bytes, plain: bytes, coder: bytes, files: Mapping[str, bytes]) -> bytes:
    packs = b"\x06" + _number(0) + _number(1) + b"\x09" + _number(len(stream)) + b"\0"
    folders = b"\x07\x0b\x01\0\x01" + coder + b"\x0c" + _number(len(plain)) + b"\0"
    sizes = b"".join(_number(len(data)) for data in list(files.values())[:-1])
    digests = b"".join(struct.pack("<I", zlib.crc32(data)) for data in files.values())
    parts = b"\x08\x0d" + _number(len(files)) + (b"\x09" + sizes if sizes else b"") + b"\x0a\x01" + digests + b"\0"
    return b"\4" + packs + folders + parts + b"\0"


def _names(files: Mapping[str, bytes]) -> bytes:
    names = b"\0" + b"".join(name.encode("utf-16-le") + b"\0\0" for name in files)
    return b"\5" + _number(len(files)) + b"\x11" + _number(len(names)) + names + b"\0"


def _number(value: int) -> bytes:
    """The first byte's leading ones say how many bytes follow, lowest first."""
    for extra in range(8):
        if value < 1 << (7 * (extra + 1)):
            first = (0xFF00 >> extra & 0xFF) | value >> (8 * extra)
            return bytes([first]) + (value & ((1 << (8 * extra)) - 1)).to_bytes(extra, "little")
    return b"\xff" + value.to_bytes(8, "little")
