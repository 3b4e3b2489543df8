"""A zip writer that can lie: in local headers, in the directory, about lengths, names, checksums and flags.

Format: PKWARE's APPNOTE. ``torch_zip`` lays members out as PyTorch's writer does, padding and descriptors included.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

LOCAL, CENTRAL, END, DESCRIPTOR = b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\7\x08"
END64, LOCATOR64 = b"PK\6\6", b"PK\6\7"
STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIBED, UTF8 = 1, 8, 0x800
DAY = struct.pack("<HH", 0, 0x21)  # 1980-01-01


class Member(NamedTuple):
    """One member; what is None is told truthfully."""

    name: str
    data: bytes
    method: int = STORED
    flags: int = 0
    local_flags: int | None = None
    local_name: str | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    packed: bytes | None = None
    extra: bytes = b""
    mode: int = 0
    listed: bool = True
    offset: int | None = None


def archive(
    members: Iterable[Member],
    *,
    prefix: bytes = b"",
    comment: bytes = b"",
    zip64: bool = False,
    count: int | None = None,
    shift: int = 0,
) -> bytes:
    """The whole zip. ``shift`` is added to every offset that it states."""
    out, directory, listed = bytearray(prefix), bytearray(), 0
    for member in members:
        start = len(out)
        out += _local(member)
        if member.listed:
            directory += _central(member, (start if member.offset is None else member.offset) + shift)
            listed += 1
    tail = _end(listed if count is None else count, len(directory), len(out) + shift, zip64, comment)
    return bytes(out + directory + tail)


def simple(**files: bytes) -> bytes:
    return named(files)


def named(files: dict[str, bytes], method: int = STORED) -> bytes:
    """An honest zip of a few files."""
    return archive(Member(name, data, method) for name, data in files.items())


def _packed(member: Member) -> bytes:
    if member.packed is not None:
        return member.packed
    return deflate(member.data) if member.method == DEFLATED else member.data


def deflate(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezer.compress(data) + squeezer.flush()


def _numbers(member: Member) -> tuple[int, int, int]:
    packed = _packed(member)
    crc = zlib.crc32(member.data) if member.crc is None else member.crc
    size = len(member.data) if member.size is None else member.size
    return crc, len(packed) if member.packed_size is None else member.packed_size, size


def _local(member: Member) -> bytes:
    flags = member.flags if member.local_flags is None else member.local_flags
    name = (member.name if member.local_name is None else member.local_name).encode()
    numbers = struct.pack("<III", *_numbers(member))
    later = flags & DESCRIBED
    head = LOCAL + struct.pack("<HHH", 20, flags, member.method) + DAY + (b"\0" * 12 if later else numbers)
    body = head + struct.pack("<HH", len(name), len(member.extra)) + name + member.extra + _packed(member)
    return body + (DESCRIPTOR + numbers if later else b"")


def _central(member: Member, offset: int) -> bytes:
    name, numbers = member.name.encode(), struct.pack("<III", *_numbers(member))
    head = CENTRAL + struct.pack("<HHHH", 3 << 8 | 20, 20, member.flags, member.method) + DAY + numbers
    tail = struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, member.mode << 16, offset)
    return head + tail + name


def _end(count: int, length: int, start: int, zip64: bool, comment: bytes) -> bytes:
    wide = b""
    if zip64:
        wide = END64 + struct.pack("<QHHIIQQQQ", 44, 0x31E, 45, 0, 0, count, count, length, start)
        wide += LOCATOR64 + struct.pack("<IQI", 0, start + length, 1)
    return (
        wide
        + END
        + struct.pack("<HHHHIIH", 0, 0, count & 0xFFFF, count & 0xFFFF, length, start, len(comment))
        + comment
    )


def torch_zip(files: dict[str, bytes], root: str = "archive") -> bytes:
    """Members as PyTorch writes them: stored, data at multiples of 64 by a padding field, descriptors, zip64 end."""
    members, at = [], 0
    for path, data in files.items():
        name = f"{root}/{path}"
        room = -(at + 30 + len(name) + 4) % 64
        extra = b"FB" + struct.pack("<H", room) + b"Z" * room
        members.append(Member(name, data, flags=DESCRIBED | UTF8, extra=extra))
        at += 30 + len(name) + len(extra) + len(data) + 16
    return archive(members, zip64=True)


def checkpoint(program: bytes, *storages: bytes, root: str = "archive") -> bytes:
    """A zip checkpoint as PyTorch 2.13 writes it: the pickle, its storages, and five small facts."""
    files = {"data.pkl": program, ".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    files |= {f"data/{number}": data for number, data in enumerate(storages)}
    return torch_zip(files | {"version": b"3\n", ".data/serialization_id": b"0" * 40}, root)
