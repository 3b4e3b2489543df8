"""The tape: a file is read forward once, and what is parsed, what is hashed and what is counted are the same bytes.

A scanner reads on with `read` (these bytes are parsed), lets tensor data run past with `data`, and gives up on a part
with `skip`. Where a format keeps its table of contents further on, it may `peek` ahead: the pages that it saw are
remembered, and compared when the tape comes past them. So nothing can be one thing for the parser and another for
the digest, whoever writes to the file meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from freehold.types import Span

BLOCK = 1 << 20
PAGE = 1 << 14  # a divisor of BLOCK, so that no page lies in two blocks
MAX_READ = 32 << 20  # bytes that one read may return
MAX_PEEKED = 64 << 20  # bytes of pages that are remembered
MAX_SPANS = 1000
_THREADED = 4 << 20  # from this size on the hash is made on a thread of its own
_RING = 4  # blocks between the reader and that thread

Sink = Callable[[memoryview], object]


class Truncated(Exception):
    """The tape ends inside something that was to be read: ``at`` is where that began."""

    def __init__(self, at: int, wanted: int):
        super().__init__(f"{wanted} bytes were to be read at byte {at}")
        self.at, self.wanted = at, wanted


class Changed(Exception):
    """The file was written to while it was read."""


class Oversized(Exception):
    """More was asked for at once than any sound file needs: ``at`` is where."""

    def __init__(self, at: int, wanted: int):
        super().__init__(f"{wanted} bytes at byte {at}")
        self.at, self.wanted = at, wanted


class Tape:
    """Something with an end that is read forward once; `at` is the position. The ways of it differ by subclass."""

    size: int
    at: int

    @property
    def left(self) -> int:
        """Bytes between the position and the end."""
        return self.size - self.at

    def read(self, length: int) -> bytes:
        """The next ``length`` bytes, parsed. Raises Truncated, and Oversized above `MAX_READ`."""
        raise NotImplementedError

    def line(self, limit: int = 1 << 16) -> bytes:
        """Up to and with the next newline, parsed. Raises Truncated, those bytes having passed, where none comes within
        ``limit`` bytes."""
        raise NotImplementedError

    def data(self, length: int, sink: Sink | None = None) -> None:
        """Let ``length`` bytes of tensor data pass, showing them to ``sink`` piece by piece. Raises Truncated."""
        raise NotImplementedError

    def skip(self, length: int, why: str) -> None:
        """Let ``length`` bytes pass unjudged. Raises Truncated."""
        raise NotImplementedError

    def peek(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes at ``offset``, which lies ahead (or was peeked at before); fewer at the end."""
        raise NotImplementedError


class FileTape(Tape):
    """The tape of one open file. ``size`` is fixed when it is put on; ``tell`` hears of every block that passed."""

    def __init__(self, descriptor: int, size: int, tell: Callable[[int], object] = lambda done: None):
        self.size, self.at = size, 0
        self.parsed = self.passed = 0
        self.unjudged: list[Span] = []
        self._descriptor, self._tell = descriptor, tell
        self._hasher = _Hasher(threaded=size > _THREADED)
        self._block, self._start, self._end = memoryview(b""), 0, 0  # the block, and the part of the file in it
        self._pages: dict[int, bytes] = {}

    def read(self, length: int) -> bytes:
        if length <= self._end - self.at and length >= 0:
            found = bytes(self._block[self.at - self._start : self.at - self._start + length])
        else:
            self._check(length)
            pieces: list[bytes] = []
            self._pass(length, lambda piece: pieces.append(bytes(piece)))
            found = b"".join(pieces)
            self.at -= length
        self.at += length
        self.parsed += length
        return found

    def line(self, limit: int = 1 << 16) -> bytes:
        pieces, start = [], self.at
        while self.at - start < limit and self.at < self.size:
            if self.at == self._end:
                self._fill()
            begin = self.at - self._start
            piece = bytes(self._block[begin : min(begin + limit - (self.at - start), self._end - self._start)])
            found = piece.find(b"\n")
            piece = piece[: found + 1] if found >= 0 else piece
            pieces.append(piece)
            self.at += len(piece)
            self.parsed += len(piece)
            if found >= 0:
                return b"".join(pieces)
        raise Truncated(start, limit)

    def data(self, length: int, sink: Sink | None = None) -> None:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)
        self._pass(length, sink)
        self.passed += length

    def skip(self, length: int, why: str) -> None:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)
        self.note_unjudged(self.at, self.at + length, why)
        self._pass(length, None)

    def note_unjudged(self, start: int, end: int, why: str) -> None:
        """List a part as unjudged, joined to the one before it where they touch."""
        if start == end:
            return
        last = self.unjudged[-1] if self.unjudged else None
        if last and last.end == start and (last.why == why or len(self.unjudged) >= MAX_SPANS):
            start, why = self.unjudged.pop().start, last.why
        elif len(self.unjudged) >= MAX_SPANS:  # the list stays whole at the price of naming more than it must
            start, why = self.unjudged.pop().start, "in many pieces"
        self.unjudged.append(Span(start, end, why))

    def peek(self, offset: int, length: int) -> bytes:
        if length > MAX_READ or length < 0 or offset < 0:
            raise Oversized(offset, length)
        end = min(offset + length, self.size)
        pages = (
            [self._page(number) for number in range(offset // PAGE, (end + PAGE - 1) // PAGE)] if end > offset else []
        )
        begin = offset % PAGE
        return b"".join(pages)[begin : begin + max(end - offset, 0)]

    def digest(self) -> str:
        """The SHA-256 of the whole, at its end. Raises Changed."""
        assert self.at == self.size, "the tape has not come to its end"
        if os.fstat(self._descriptor).st_size != self.size:
            raise Changed
        return "sha256:" + self._hasher.end()

    def close(self) -> None:
        """End the hashing thread."""
        self._hasher.end()

    def _check(self, length: int) -> None:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)
        if length > MAX_READ:
            raise Oversized(self.at, length)

    def _pass(self, length: int, sink: Sink | None) -> None:
        target = self.at + length
        while self.at < target:
            if self.at == self._end:
                self._fill()
            begin, step = self.at - self._start, min(target, self._end) - self.at
            if sink is not None:
                sink(self._block[begin : begin + step])
            self.at += step

    def _fill(self) -> None:
        """Read and hash the next block, and hold it against the pages that were peeked at."""
        buffer = self._hasher.free()
        wanted, length = min(BLOCK, self.size - self._end), 0
        while length < wanted:
            got = os.preadv(self._descriptor, [memoryview(buffer)[length:wanted]], self._end + length)
            if not got:
                raise Changed
            length += got
        self._start, self._end = self._end, self._end + wanted
        self._block = memoryview(buffer)[:wanted]
        self._hasher.take(self._block)
        self._compare()
        self._tell(self._end)

    def _compare(self) -> None:
        for number in range(self._start // PAGE, (self._end + PAGE - 1) // PAGE) if self._pages else ():
            page = self._pages.get(number)
            begin = number * PAGE - self._start
            if page is not None and page != self._block[begin : begin + PAGE]:
                raise Changed

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is not None:
            return page
        start = number * PAGE
        if self._start <= start < self._end:
            return bytes(self._block[start - self._start : start - self._start + PAGE])
        if start < self._end:
            raise ValueError(f"byte {start} has passed")  # the scanner's fault: it must peek before it reads on
        if (len(self._pages) + 1) * PAGE > MAX_PEEKED:  # those that were passed have been compared, and may go
            self._pages = {known: seen for known, seen in self._pages.items() if known * PAGE >= self._end}
        if (len(self._pages) + 1) * PAGE > MAX_PEEKED:
            raise Oversized(start, MAX_PEEKED)
        wanted = min(PAGE, self.size - start)
        page = os.pread(self._descriptor, wanted, start)
        if len(page) != wanted:
            raise Changed
        self._pages[number] = page
        return page


class Window(Tape):
    """The next ``length`` bytes of another tape as a tape of their own: a member of an archive, stored as it is."""

    def __init__(self, outer: Tape, length: int):
        if length > outer.left or length < 0:
            raise Truncated(outer.at, length)
        self.size, self._outer, self._begin = length, outer, outer.at

    @property
    def at(self) -> int:
        """The position in this part."""
        return self._outer.at - self._begin

    def read(self, length: int) -> bytes:
        return self._outer.read(self._within(length))

    def line(self, limit: int = 1 << 16) -> bytes:
        return self._outer.line(min(limit, self.left))

    def data(self, length: int, sink: Sink | None = None) -> None:
        self._outer.data(self._within(length), sink)

    def skip(self, length: int, why: str) -> None:
        self._outer.skip(self._within(length), why)

    def peek(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise Oversized(offset, length)
        return self._outer.peek(self._begin + offset, min(length, max(self.size - offset, 0)))

    def _within(self, length: int) -> int:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)
        return length


class MemoryTape(Tape):
    """A tape of bytes in memory: a member of an archive, unpacked."""

    def __init__(self, content: bytes):
        self.size, self.at, self._content = len(content), 0, content
        self.unjudged: list[Span] = []

    def read(self, length: int) -> bytes:
        if length > self.left or length < 0:
            raise Truncated(self.at, length)
        self.at += length
        return self._content[self.at - length : self.at]

    def line(self, limit: int = 1 << 16) -> bytes:
        start, end = self.at, self._content.find(b"\n", self.at, self.at + limit) + 1
        if not end:
            self.at += min(limit, self.left)
            raise Truncated(start, limit)
        return self.read(end - start)

    def data(self, length: int, sink: Sink | None = None) -> None:
        piece = self.read(length)
        if sink is not None and piece:
            sink(memoryview(piece))

    def skip(self, length: int, why: str) -> None:
        start = self.at
        self.read(length)
        if length:
            self.unjudged.append(Span(start, start + length, why))

    def peek(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise Oversized(offset, length)
        return self._content[offset : offset + length]


class _Hasher:
    """SHA-256 over blocks, for a large file on a thread of its own: the reader and the hash each have a core."""

    def __init__(self, *, threaded: bool):
        self._state = hashlib.sha256()
        self._thread: threading.Thread | None = None
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._full: SimpleQueue[memoryview | None] = SimpleQueue()
        self._lent: bytearray | None = None
        for _ in range(_RING if threaded else 1):
            self._free.put(bytearray(BLOCK))
        if threaded:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def free(self) -> bytearray:
        """A buffer to read into. The one lent before may be taken back by now: its block has been read."""
        if self._lent is not None:
            self._hand_over()
        self._lent = self._free.get()
        return self._lent

    def take(self, block: memoryview) -> None:
        """Hash the block that was read into the buffer."""
        if self._thread is None:
            self._state.update(block)
        else:
            self._full.put(block)

    def end(self) -> str:
        """The digest, in hexadecimal digits."""
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
            self._thread = None
        return self._state.hexdigest()

    def _hand_over(self) -> None:
        if self._thread is None:
            self._free.put(self._lent)

    def _run(self) -> None:
        while (block := self._full.get()) is not None:
            self._state.update(block)
            self._free.put(block.obj)
