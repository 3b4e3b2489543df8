"""The members of an uncompressed tar archive: where each lies, found without reading more than the headers.

Format: pax and ustar (POSIX.1-2017, `pax`, "ustar Interchange Format"), with GNU's long names and binary sizes
(GNU tar manual, "GNU tar Archive Format"). Nothing is allocated by a length that the archive claims.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from freehold.acquire.base import KEPT_NOTHING, MAX_FILES, shown
from freehold.errors import AcquireFailed

_BLOCK = 512
_EXTRA = 1 << 20  # bytes of a long name or of pax records
_MOST = 4 * MAX_FILES  # headers, with their extras
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]{1,100})=")


class Part(Struct, frozen=True):
    """``size`` bytes of an open file, from ``start``."""

    descriptor: int
    start: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes at ``offset``; fewer at the end."""
        return os.pread(self.descriptor, max(0, min(count, self.size - offset)), self.start + offset)

    def part(self, offset: int, size: int) -> Part:
        """A part of this part."""
        return Part(self.descriptor, self.start + offset, size)


class Member(Struct, frozen=True):
    """One member: its name as written, its type flag (``0`` a file, ``5`` a folder), and where its bytes lie."""

    name: str
    kind: str
    offset: int
    size: int


def members(archive: Part, what: str) -> Iterator[Member]:
    """Every member in order, with long names resolved. Raises AcquireFailed where the archive is damaged."""
    offset, extra, count = 0, _Extra(), 0
    while True:
        header = archive.read(offset, _BLOCK)
        if len(header) < _BLOCK:
            raise _damaged(what, "it ends without its end mark")
        if not any(header):
            return
        count += 1
        member = _member(header, offset + _BLOCK, extra, what)
        if member.size > archive.size - member.offset:
            raise _damaged(what, f"{shown(member.name)} is longer than the archive")
        if count > _MOST:
            raise _damaged(what, f"it has more than {_MOST:,} members")
        offset = member.offset + -(-member.size // _BLOCK) * _BLOCK
        if member.kind in "LKxg":
            extra = extra.read(archive, member, what)
        else:
            extra = _Extra()
            yield member


class _Extra(Struct, frozen=True):
    """What the members before one say of it."""

    name: str | None = None
    size: int | None = None

    def read(self, archive: Part, member: Member, what: str) -> _Extra:
        if member.size > _EXTRA:
            raise _damaged(what, "one of its names is too long")
        content = archive.read(member.offset, member.size)
        if member.kind == "L":
            return _Extra(_text(content), self.size)
        if member.kind != "x":
            return self
        found = _records(content, what)
        size = found.get(b"size")
        if size is not None and not re.fullmatch(rb"\d{1,18}", size):
            raise _damaged(what, "the size of a member is no number")
        name = _text(found[b"path"]) if b"path" in found else self.name
        return _Extra(name, int(size) if size is not None else self.size)


def _member(header: bytes, offset: int, extra: _Extra, what: str) -> Member:
    stated = _number(header[148:156], what)
    if stated != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise _damaged(what, "the checksum of a header is wrong")
    kind = chr(header[156]) if header[156] else "0"
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    size = _number(header[124:136], what) if extra.size is None or kind in "LKxg" else extra.size
    return Member(name if extra.name is None or kind in "LKxg" else extra.name, kind, offset, size)


def _number(field: bytes, what: str) -> int:
    if field[0] == 0x80:  # binary, where octal digits do not reach
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise _damaged(what, "a number in a header is none")
    return int(digits or b"0", 8)


def _records(content: bytes, what: str) -> dict[bytes, bytes]:
    found, position = {}, 0
    while position < len(content):
        record = _RECORD.match(content, position)
        end = position + int(record[1]) if record else 0
        if not record or end <= record.end() or end > len(content) or content[end - 1 : end] != b"\n":
            raise _damaged(what, "its extended headers cannot be read")
        found[record[2]] = content[record.end() : end - 1]
        position = end
    return found


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _damaged(what: str, why: str) -> AcquireFailed:
    return AcquireFailed(f"{shown(what)} is no tar archive that can be read: {why}.", hint=KEPT_NOTHING)
