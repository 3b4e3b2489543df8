"""Compressed zeros without ever holding them: one squeezed MiB, repeated, with checksums worked out by algebra."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib

from assets.zips import DEFLATED, Member, archive, named

MIB = 1 << 20
ZEROS = b"\0" * MIB


def _squeezed(times: int) -> bytes:
    """A raw deflate stream of ``times`` MiB of zeros."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = squeezer.compress(ZEROS) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return piece * times + squeezer.flush()


def _apply(matrix: list[int], vector: int) -> int:
    out = 0
    for column in matrix:
        out ^= column if vector & 1 else 0
        vector >>= 1
    return out


def zeros_crc(mebibytes: int) -> int:
    """CRC-32 of that many MiB of zeros; a power of two. Zeros act on a checksum as a matrix over GF(2)."""
    step = [0xEDB88320] + [1 << bit for bit in range(31)]  # one zero bit
    crc = 0xFFFFFFFF
    for _ in range((mebibytes * MIB * 8).bit_length() - 1):
        step = [_apply(step, column) for column in step]
    return _apply(step, crc) ^ 0xFFFFFFFF


def member(name: str, mebibytes: int) -> Member:
    return Member(name, b"", DEFLATED, crc=zeros_crc(mebibytes), size=mebibytes * MIB, packed=_squeezed(mebibytes))


def flat(name: str = "archive/data/0", mebibytes: int = 2048) -> bytes:
    """A zip with one member of 2 GiB."""
    return archive([member(name, mebibytes)])


def nested() -> bytes:
    """A zip of 16 zips of 1 GiB each, some kilobytes in all."""
    inner = archive([member("zeros", 1024)])
    return named({f"{number}.zip": inner for number in range(16)}, DEFLATED)


def overlapped(members: int = 400) -> bytes:
    """Many directory entries over one and the same 16 MiB."""
    kernel = member("0", 16)
    copies = [
        kernel._replace(name=str(number), packed=b"", packed_size=len(kernel.packed or b""), offset=0)
        for number in range(1, members)
    ]
    return archive([kernel, *copies])


def gzipped(times: int = 4096) -> bytes:
    return gzip.compress(ZEROS, 9, mtime=0) * times


def bzipped(times: int = 8192) -> bytes:
    return bz2.compress(ZEROS) * times


def xzed(times: int = 8192) -> bytes:
    return lzma.compress(ZEROS) * times


def zlibbed(mebibytes: int = 2048) -> bytes:
    """A zlib stream with a wrong checksum at its very end, which nobody gets to."""
    return b"\x78\xda" + _squeezed(mebibytes) + b"\0\0\0\0"
