"""HTTP/1.1 over a Unix socket, as a client: one connection for one call, on the bare socket.

A connection of its own makes cancellation exact: closing it is how the engine learns that nobody waits any
more, and nothing can be left in a pool. A Unix socket connects at once or not at all and takes a request of
usual size at once too, so there is nothing to wait for but the answer, and the loop is asked for no more than to
say when there is something to read. (asyncio's transports cost a tenth more, its streams half as much again; see
docs/decisions/0004-request-path.md.)

What the engine says is taken in as fast as it says it, however slowly the client reads: the engine's slot is
free when its work is done, and its count is known whenever the client leaves. Only past `_UNREAD` bytes of a
stream does the engine have to wait.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import Callable, Mapping

import httptools

from freehold.errors import EngineFailed, Overloaded

_UNREAD = 16 << 20
_BUSY_TRIES, _BUSY_WAIT = 100, 0.01  # while the engine's backlog is full
_buffer = bytearray(1 << 18)  # what was read is parsed, and copied, before anything else is read
_view = memoryview(_buffer)


class Exchange:
    """One request and its response. `read` gives the body as it comes; `close` ends it at once, wherever it is."""

    __slots__ = (
        "_arrival", "_broken", "_done", "_head_done", "_loop", "_on_done", "_parser", "_paused", "_pieces", "_reading",
        "_socket", "_unread", "_whole", "headers",
    )  # fmt: skip

    def __init__(self, on_done: Callable[[], None] | None = None):
        self.headers: dict[str, str] = {}
        self._on_done = on_done
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._socket: sockets.socket | None = None
        self._pieces: list[bytes] = []
        self._unread = 0
        self._head_done = self._done = self._reading = self._paused = self._whole = False
        self._broken: str | None = None
        self._arrival: asyncio.Future | None = None

    @property
    def status(self) -> int:
        """The response's status."""
        return self._parser.get_status_code()

    @property
    def media_type(self) -> str:
        """The response's Content-Type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0]

    async def read(self) -> bytes:
        """The next bytes of the body, as they come; none at its end. Raises EngineFailed if the engine breaks off."""
        while not self._pieces:
            if self._done:
                return b""
            await self._more()
        return self.arrived()

    async def body(self) -> bytes:
        """The whole body. Whoever waits for it is woken once."""
        self._whole = True
        while not self._done:
            await self._more()
        return self.arrived()

    def arrived(self) -> bytes:
        """What has arrived and was not taken yet."""
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._paused:
            self._paused = False
            self._listen()
        return piece

    def close(self) -> None:
        """End the exchange. The engine stops working on it."""
        if self._socket is not None:
            self._deafen()
            self._socket.close()
            self._socket = None

    def drain(self) -> bytes:
        """What has arrived by now, taken in without waiting, from the socket too."""
        while self._reading and not self._done:
            before = self._unread
            self._readable()
            if self._unread == before:
                break
        return self.arrived()

    async def send(self, socket: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Connect, send a request, and wait for the head of its response.

        Raises:
            EngineFailed: nobody listens, or the connection broke before the head was complete.
            Overloaded: it does not take the connection.
        """
        try:
            self._socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            self._socket.setblocking(False)
            await self._connect(socket)
            await self._send(_head(method, path, len(body), headers) + body)
        except BlockingIOError:
            raise Overloaded("The engine takes no more connections.") from None
        except OSError as error:
            raise EngineFailed(f"The engine cannot be reached ({error.strerror or error}).") from None
        self._listen()
        while not self._head_done:
            await self._more()

    async def _connect(self, path: str) -> None:
        for _ in range(_BUSY_TRIES):
            try:
                return self._socket.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BUSY_WAIT)
        raise BlockingIOError

    async def _send(self, request: bytes) -> None:
        try:
            sent = self._socket.send(request)
        except BlockingIOError:
            sent = 0
        if sent < len(request):  # a long one
            await self._loop.sock_sendall(self._socket, memoryview(request)[sent:])

    def _listen(self) -> None:
        if not self._reading and self._socket is not None and self._broken is None:
            self._loop.add_reader(self._socket, self._readable)
            self._reading = True

    def _deafen(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._socket)
            self._reading = False

    def _readable(self) -> None:
        """Called by the loop: there is something to read, if only the end."""
        try:
            length = self._socket.recv_into(_buffer)
            if length:
                self._parser.feed_data(_view[:length])
                if self._done:
                    self._deafen()
            else:
                self._break("")
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, httptools.HttpParserError) as error:
            self._break(f" ({error})")
        if not self._whole:
            if self._unread > _UNREAD and not self._paused:
                self._paused = True
                self._deafen()
            self._wake()
        elif self._done or self._broken is not None:
            self._wake()

    def _break(self, how: str) -> None:
        self._broken = how
        self._deafen()

    async def _more(self) -> None:
        """Wait until more has arrived. Raises EngineFailed where no more can come."""
        if self._broken is not None:
            raise EngineFailed(f"The engine broke off its answer{self._broken}.")
        self._arrival = self._loop.create_future()
        await self._arrival

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    # called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._pieces.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._done = True
        if self._on_done is not None:
            self._on_done()


def _head(method: str, path: str, length: int, headers: Mapping[str, str]) -> bytes:
    more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return (
        f"{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Length: {length}\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\n{more}\r\n"
    ).encode("latin-1")
