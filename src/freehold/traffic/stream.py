"""A large JSON document read in bounded memory: the values that are asked for, one at a time, as bytes.

The text is walked from brace to brace (RFC 8259); only what is asked for is kept, decoded and so checked in full. How
deep it is nested costs nothing, and a value over the limit is passed over and said to be so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from typing import Any, BinaryIO

import msgspec

from freehold.errors import BadTraffic
from freehold.said import Unfit

Path = tuple[str, ...]

_CHUNK = 256 * 1024
_KEY = 4096  # bytes of a member's name
# what lies up to the next brace, with whole strings in it, and what a string holds up to its end: neither goes back
_BARE = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_QUOTED = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _BACKSLASH = b'"\\'
_AFTER, _SPACE = re.compile(rb"[\s,\]}:]"), re.compile(rb"[ \t\r\n]*")
MAX_VALUE = 64 * 1024 * 1024  # bytes of one sample


def walk(stream: BinaryIO, keep: Set[Path], array: Path, limit: int = MAX_VALUE) -> Iterator[tuple[Path, bytes | None]]:
    """The values at the paths in ``keep``, and each element of the array at ``array`` (under that path), in the order
    of the document. None stands for a value of more than ``limit`` bytes.

    Raises:
        BadTraffic: the document is cut off, or no JSON.
    """
    cursor = _Cursor(stream)
    yield from _members(cursor, (), keep, array, limit)
    if cursor.peek():
        raise cursor.wrong("the end")


def decode(raw: bytes | None) -> Any:
    """One value. Python's own reader has a second try, because Inspect AI writes NaN, which JSON has not.

    Raises:
        Unfit: it is too large, no JSON, or nested too deeply.
    """
    if raw is None:
        raise Unfit(f"It is larger than {MAX_VALUE // 1024**2} MiB.")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(raw.decode())
    except RecursionError:
        raise Unfit("It is nested too deeply.") from None
    except ValueError as error:
        raise Unfit(f"It is not JSON: {error}.") from None


def _members(cursor: _Cursor, path: Path, keep: Set[Path], array: Path, limit: int) -> Iterator:
    """The members of the object that comes next. It calls itself as deep as the paths asked for are long."""
    cursor.take(b"{")
    if cursor.peek() == b"}":
        cursor.take(b"}")
        return
    while True:
        here = (*path, cursor.name())
        cursor.take(b":")
        opening = cursor.peek()
        if here == array and opening == b"[":
            yield from _elements(cursor, here, limit)
        elif here in keep:
            yield here, cursor.value(limit)
        elif opening == b"{" and any(wanted[: len(here)] == here for wanted in (*keep, array)):
            yield from _members(cursor, here, keep, array, limit)
        else:
            cursor.value(0)
        if cursor.take(b",}") == b"}":
            return


def _elements(cursor: _Cursor, path: Path, limit: int) -> Iterator:
    cursor.take(b"[")
    if cursor.peek() == b"]":
        cursor.take(b"]")
        return
    while True:
        yield path, cursor.value(limit)
        if cursor.take(b",]") == b"]":
            return


class _Cursor:
    """A place in the text, with the piece of it that is in memory."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.piece, self.at, self.before = stream, b"", 0, 0
        if self.peek() == b"\xef":  # a byte order mark
            self.more(3)
            self.at += 3 * self.piece.startswith(b"\xef\xbb\xbf", self.at)

    def more(self, least: int = 1) -> bool:
        """Read on, dropping what was passed; False at the end."""
        self.before += self.at
        rest = self.piece[self.at :]
        read = self.stream.read(_CHUNK)
        self.piece, self.at = rest + read, 0
        return len(self.piece) >= least and bool(read)

    def peek(self) -> bytes:
        """The next character that is no white space; b'' at the end."""
        while True:
            self.at = _SPACE.match(self.piece, self.at).end()
            if self.at < len(self.piece):
                return self.piece[self.at : self.at + 1]
            if not self.more():
                return b""

    def take(self, allowed: bytes) -> bytes:
        """Pass one of these characters."""
        found = self.peek()
        if not found or found not in allowed:
            raise self.wrong(" or ".join(repr(chr(letter)) for letter in allowed))
        self.at += 1
        return found

    def name(self) -> str:
        """A member's name."""
        if self.peek() != b'"':
            raise self.wrong("a name")
        raw = self.value(_KEY)
        try:
            return str(decode(raw)) if raw is not None else ""
        except Unfit:
            raise self.wrong("a name") from None

    def value(self, limit: int) -> bytes | None:
        """Pass one value; its bytes, or None where it has more than ``limit``."""
        opening, kept, over = self.peek(), bytearray(), False
        if not opening or opening in b",]}:":
            raise self.wrong("a value")
        nested = _Nested(opening) if opening in b'{["' else None
        start = 1  # the opening is known
        while True:
            stop, done = nested.end(self.piece, self.at + start) if nested else self.bare()
            start = 0
            if not over and len(kept) + stop - self.at <= limit:
                kept += self.piece[self.at : stop]
            else:
                over = True
                kept.clear()
            self.at = stop
            if done:
                return None if over else bytes(kept)
            if not self.more():
                raise self.wrong("the rest of a value")

    def bare(self) -> tuple[int, bool]:
        """Where a number, true, false or null ends."""
        found = _AFTER.search(self.piece, self.at)
        return (found.start(), True) if found else (len(self.piece), False)

    def wrong(self, wanted: str) -> BadTraffic:
        """What to say of a text that does not go on as it must."""
        place = self.before + self.at
        found = "it ends" if self.at >= len(self.piece) else f"there is {self.piece[self.at : self.at + 1]!r}"
        return BadTraffic(
            f"The file is not JSON: at byte {place:,} {wanted} is due, and {found}.",
            hint="It may have been cut off when it was copied; export it again.",
        )


class _Nested:
    """How far a string, array or object has been walked."""

    def __init__(self, opening: bytes):
        self.quoted, self.escaped = opening == b'"', False
        self.depth = 0 if self.quoted else 1

    def end(self, piece: bytes, at: int) -> tuple[int, bool]:
        """Walk on from ``at``: where it stopped, and whether the value is complete there."""
        if self.escaped and at < len(piece):
            at, self.escaped = at + 1, False
        while (at := (_QUOTED if self.quoted else _BARE).match(piece, at).end()) < len(piece):
            mark, at = piece[at], at + 1
            if mark == _BACKSLASH:  # the last byte of this piece
                self.escaped = True
            elif mark == _QUOTE:  # of a string that ends here, or in another piece
                self.quoted = not self.quoted
            else:
                self.depth += 1 if mark in b"[{" else -1
            if not self.quoted and self.depth <= 0:
                return at, True
        return at, False
