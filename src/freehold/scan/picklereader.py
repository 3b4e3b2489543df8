"""The instructions of a pickle, read ahead a window at a time, strict about frames (PEP 3154)."""

from __future__ import annotations

from freehold.scan.base import Malformed, Tape
from freehold.scan.picklerules import FRAME
from freehold.scan.tape import MAX_READ, Oversized, Truncated

WINDOW = 1 << 14  # bytes looked at together


class Reader:
    """The instructions of a tape: read ahead a window at a time, strict about frames."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self._buffer, self._pos, self._edge = b"", 0, 0
        self._frame: int | None = None  # the byte behind the frame

    @property
    def at(self) -> int:
        """The byte that comes next."""
        return self.tape.at + self._pos

    def opcode(self) -> int:
        """The next instruction. Here, and nowhere else, a frame may end."""
        if self._pos >= self._edge:
            if self._frame is not None and self.at >= self._frame:
                self._frame, self._edge = None, len(self._buffer)
            if self._pos >= self._edge:
                self._fill(1)
        self._pos += 1
        return self._buffer[self._pos - 1]

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes of an instruction."""
        if self._pos + count > self._edge:
            self._fill(count)
        self._pos += count
        return self._buffer[self._pos - count : self._pos]

    def line(self) -> bytes:
        """Up to the next newline, without it."""
        found = self._buffer.find(b"\n", self._pos, self._edge)
        if found < 0:
            return self._long_line()
        line, self._pos = self._buffer[self._pos : found], found + 1
        return line

    def frame(self, count: int) -> None:
        """Begin a frame of so many bytes."""
        if self._frame is not None and self.at < self._frame:
            raise Malformed(FRAME, self.at, "A frame begins before the one before it has ended.")
        self._frame = None
        if count > self.tape.left - self._pos:
            raise Truncated(self.at, count)
        self._frame = self.at + count
        self._edge = min(len(self._buffer), self._pos + count)

    def outside(self) -> None:
        """Raises Malformed within a frame."""
        if self._frame is not None and self.at < self._frame:
            raise Malformed(FRAME, self.at, "Something that ends the pickle lies within a frame.")
        self._frame = None

    def bulk(self, count: int) -> Tape:
        """The tape, at ``count`` bytes of content that are too many to take at once."""
        self._check(count)
        self.sync()
        return self.tape

    def ahead(self, count: int) -> bytes:
        """What comes next, left where it is."""
        self.sync()
        return self.tape.peek(self.tape.at, count)

    def sync(self) -> None:
        """Bring the tape to where the reading is."""
        self.tape.read(self._pos)
        self._buffer, self._pos, self._edge = b"", 0, 0

    def _check(self, count: int) -> None:
        if self._frame is not None and self.at + count > self._frame:
            raise Malformed(FRAME, self.at, "An instruction reaches past the end of its frame.")
        if count > self.tape.left - self._pos:
            raise Truncated(self.at, count)

    def _fill(self, count: int) -> None:
        self._check(count)
        self.sync()
        self._buffer = self.tape.peek(self.tape.at, max(WINDOW, count))
        self._edge = len(self._buffer)
        if self._frame is not None:
            self._edge = min(self._edge, self._frame - self.tape.at)

    def _long_line(self) -> bytes:
        self.sync()
        most = MAX_READ if self._frame is None else min(MAX_READ, self._frame - self.tape.at)
        start, ends = self.tape.at, self.tape.left <= most
        try:
            return self.tape.line(most)[:-1]
        except Truncated:
            if self._frame is not None:
                raise Malformed(FRAME, start, "An instruction reaches past the end of its frame.") from None
            if ends:
                raise
            raise Oversized(start, most) from None
