"""HTTP/1.1 over a Unix socket, as a client: one connection for one call.

A connection of its own costs some tens of microseconds on a Unix socket and makes cancellation exact:
closing it is how the engine learns that nobody waits any more, and nothing can be left in a pool.

What the engine says is taken in as fast as it says it, however slowly the client reads: the engine's slot is
free when its work is done, and its count is known whenever the client leaves. Only past `_UNREAD` bytes does
the engine have to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import httptools

from freehold.errors import EngineFailed

_UNREAD = 16 << 20


class Exchange(asyncio.Protocol):
    """One request and its response. Iterate for the body; `close` ends it at once, wherever it is."""

    def __init__(self, on_done: Callable[[], None] | None = None):
        self._on_done = on_done
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._unread = 0
        self._head_done = self._done = False
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

    async def send(self, head: bytes, body: bytes) -> None:
        """Send the request and wait for the head of the response. Raises EngineFailed if none comes."""
        self._transport.write(head + body)
        while not self._head_done:
            await self._more()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._done or self._pieces:
            if self._pieces:
                yield self.arrived()
            else:
                await self._more()

    async def body(self) -> bytes:
        """The whole body."""
        while not self._done:
            await self._more()
        return self.arrived()

    def arrived(self) -> bytes:
        """What has arrived and was not taken yet."""
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._unread > _UNREAD:
            self._transport.resume_reading()
        self._unread = 0
        return piece

    def close(self) -> None:
        """End the exchange. The engine stops working on it."""
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        """Wait until more has arrived. Raises EngineFailed where no more can come."""
        if self._broken is not None:
            raise EngineFailed(f"The engine broke off its answer{self._broken}.")
        self._arrival = asyncio.get_running_loop().create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # called by asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called by asyncio."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._broken = f" ({error})"
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        if self._broken is None:
            self._broken = f" ({error})" if error else ""
        self._wake()

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
        if self._unread > _UNREAD:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._done = True
        if self._on_done is not None:
            self._on_done()


async def exchange(
    socket: str,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    on_done: Callable[[], None] | None = None,
) -> Exchange:
    """Send a request and wait for the head of its response. ``on_done`` is called when the response is complete.

    Raises:
        EngineFailed: nobody listens, or the connection broke before the head was complete.
    """
    sent = Exchange(on_done)
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: sent, socket)
        await sent.send(_head(method, path, len(body), headers), body)
    except OSError as error:
        raise EngineFailed(f"The engine cannot be reached ({error.strerror or error}).") from None
    except BaseException:
        sent.close()
        raise
    return sent


def _head(method: str, path: str, length: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: engine", f"Content-Length: {length}"]
    lines += ["Content-Type: application/json", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
