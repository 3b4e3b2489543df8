"""A file of recorded calls, piece by piece: a line each (JSON Lines), or an element each of one JSON list.

Whatever the file is, no more than one piece of at most `MAX_PIECE` bytes is held; a longer one is passed over.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from freehold.errors import BadTraffic
from freehold.names import shown

MAX_PIECE = 16 << 20  # bytes
TOO_LONG = f"is longer than {MAX_PIECE >> 20} MiB"
EMPTY = "is empty"
_CHUNK = 1 << 18
_START = 1 << 12
_HEAD = 1 << 20
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_MARK = re.compile(rb'["\[\]{},]')
_QUOTE = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


class Piece(Struct, frozen=True):
    """One line, or one element of a list; ``line`` counts from 1. ``reason`` is said where ``content`` is none."""

    line: int
    content: bytes
    reason: str = ""


class Source:
    """An open file. ``size`` is how many bytes it has on the disk, 0 where nobody knows, and
    ``start`` the first of them; ``digest`` is that of its first
    and last MiB and its size, '' for standard input, which cannot be read twice.

    Raises:
        BadTraffic: it cannot be opened, or is no file.
    """

    def __init__(self, path: str):
        self.name = "standard input" if path == "-" else path
        self._raw = sys.stdin.buffer if path == "-" else _open(Path(path))
        self._owned = path != "-"
        self.size, self.digest = _identity(self._raw) if self._owned else (0, "")
        self.start = self._raw.peek(_START)[:_START] if self._owned else b""
        self._read = 0
        self._stream = io.BufferedReader(_Flow(self._raw, self.count), _CHUNK)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._raw.close()

    @property
    def done(self) -> int:
        """How many bytes of the file were read."""
        return self._read

    def pieces(self) -> Iterator[Piece]:
        """Every piece, in its order; what cannot be decompressed ends the file with a reason."""
        line = 0
        try:
            for piece in self._pieces():
                line = piece.line
                yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield Piece(line + 1, b"", "cannot be decompressed; the file is damaged or cut off here")
        except OSError as error:
            raise BadTraffic(f"{shown(self.name)} cannot be read on: {error.strerror or error}.") from None

    def _pieces(self) -> Iterator[Piece]:
        stream = self._stream
        if stream.peek(2)[:2] == _GZIP:
            stream = io.BufferedReader(_Flow(gzip.GzipFile(fileobj=stream)), _CHUNK)
        start = stream.peek(4)[:4]
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise BadTraffic(f"{shown(self.name)} is UTF-16 text.", hint="Write it as UTF-8 first (iconv -t UTF-8).")
        if start.startswith(_BOM):
            stream.read(len(_BOM))
        first = _first_mark(stream)
        return _elements(stream) if first == b"[" else _lines(stream)

    def count(self, read: int) -> None:
        """So many bytes more were read of the file itself."""
        self._read += read


class _Flow(io.RawIOBase):
    """A stream read as it comes, so that what is there before a fault is not lost with it; ``count`` is told of it."""

    def __init__(self, stream: BinaryIO, count: Callable[[int], None] = lambda read: None):
        self._stream, self._count = stream, count

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, room) -> int:
        """Read what there is."""
        found = self._stream.read1(len(room))
        room[: len(found)] = found
        self._count(len(found))
        return len(found)


def _open(path: Path) -> BinaryIO:
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadTraffic(f"{shown(str(path))} cannot be read: {reason}.", hint="Check the path.") from None
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise BadTraffic(f"{shown(str(path))} is no file.", hint="Give a file, or '-' for standard input.")
    return stream


def _identity(stream: BinaryIO) -> tuple[int, str]:
    size = os.fstat(stream.fileno()).st_size
    found = hashlib.sha256(stream.read(_HEAD))
    stream.seek(max(size - _HEAD, 0))
    found.update(stream.read(_HEAD))
    found.update(str(size).encode())
    stream.seek(0)
    return size, "sha256:" + found.hexdigest()


def _first_mark(stream: io.BufferedReader) -> bytes:
    """The first byte that is no space, as far as can be seen without reading on."""
    return stream.peek(_CHUNK)[:_CHUNK].lstrip(_SPACE)[:1]


def _lines(stream: BinaryIO) -> Iterator[Piece]:
    line = 0
    while content := stream.readline(MAX_PIECE + 1):
        line += 1
        if len(content) > MAX_PIECE and not content.endswith(b"\n"):
            while (more := stream.readline(_CHUNK)) and not more.endswith(b"\n"):
                pass
            yield Piece(line, b"", TOO_LONG)
            continue
        content = content.strip(_SPACE)
        yield Piece(line, content, "" if content else EMPTY)


def _elements(stream: BinaryIO) -> Iterator[Piece]:
    """The elements of one list. ``line`` is an element's number."""
    cutter, line = _Cutter(), 0
    for content in cutter.cut(iter(lambda: stream.read1(_CHUNK), b"")):
        line += 1
        yield Piece(line, content or b"", "" if content else (TOO_LONG if content is None else EMPTY))
    if cutter.fault:
        yield Piece(line + 1, b"", cutter.fault)


class _Cutter:
    """Cuts a JSON list into its elements by its brackets and quotes alone; each element is read by itself later."""

    def __init__(self) -> None:
        self.fault = ""
        self._depth, self._in_text, self._escaped = 0, False, False
        self._held, self._length = bytearray(), 0
        self._ended = False

    def cut(self, chunks: Iterator[bytes]) -> Iterator[bytes | None]:
        """Each element's bytes; None for one that is too long to be held."""
        for chunk in chunks:
            yield from self._cut(chunk)
            if self.fault:
                return
        if not self._ended:
            self.fault = "is missing: the file ends within its list"

    def _cut(self, chunk: bytes) -> Iterator[bytes | None]:
        at, start = int(self._escaped), 0
        self._escaped = False
        while True:
            if self._ended:
                if chunk[at:].strip(_SPACE):
                    self.fault = "stands behind the end of the list"
                return
            found = (_QUOTE if self._in_text else _MARK).search(chunk, at)
            if found is None:
                self._hold(chunk[start:])
                return
            at, mark = found.end(), found[0]
            if self._in_text:
                if mark == b"\\":
                    self._escaped = at == len(chunk)  # then what is escaped is the next chunk's first
                    at += 1
                else:
                    self._in_text = False
            elif mark == b'"':
                self._in_text = True
            elif mark in b"[{":
                self._depth += 1
                if self._depth == 1:
                    start = at
            elif mark in b"]}":
                self._depth -= 1
                if self._depth == 0:
                    yield from self._last(chunk[start : at - 1])
                    self._ended = True
            elif self._depth == 1:
                self._hold(chunk[start : at - 1])
                yield self._take()
                start = at

    def _last(self, rest: bytes) -> Iterator[bytes | None]:
        self._hold(rest)
        content = self._take()
        if content != b"":
            yield content

    def _hold(self, more: bytes) -> None:
        self._length += len(more)
        if self._length > MAX_PIECE:
            self._held.clear()
        else:
            self._held += more

    def _take(self) -> bytes | None:
        content = bytes(self._held).strip(_SPACE) if self._length <= MAX_PIECE else None
        self._held.clear()
        self._length = 0
        return content
