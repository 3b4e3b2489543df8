"""HTTP/1.1 over a Unix socket, as a client: one connection for one call.

A connection of its own costs some tens of microseconds on a Unix socket and makes cancellation exact:
closing it is how the engine learns that nobody waits any more, and nothing can be left in a pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httptools

from freehold.errors import EngineFailed

_READ = 1 << 18


class Exchange:
    """One request and its response. Iterate for the body; `close` ends it at once, wherever it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._head_done = self._done = False
        self.headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        """The response's status."""
        return self._parser.get_status_code()

    @property
    def media_type(self) -> str:
        """The response's Content-Type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if self._pieces:
                piece = b"".join(self._pieces)
                self._pieces.clear()
                yield piece
            if self._done:
                return
            await self._more()

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self])

    def close(self) -> None:
        """End the exchange. The engine stops working on it."""
        self._writer.transport.abort()

    async def _more(self) -> None:
        try:
            data = await self._reader.read(_READ)
            if not data:
                raise EngineFailed("The engine broke off its answer.")
            self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            raise EngineFailed(f"The engine broke off its answer ({error}).") from None

    async def _head(self) -> None:
        while not self._head_done:
            await self._more()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_done = True

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._done = True


async def exchange(socket: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Exchange:
    """Send a request and wait for the head of its response.

    Raises:
        EngineFailed: nobody listens, or the connection broke before the head was complete.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket, limit=_READ)
    except OSError as error:
        raise EngineFailed(f"The engine cannot be reached ({error.strerror or error}).") from None
    lines = [f"{method} {path} HTTP/1.1", "Host: engine", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sent = Exchange(reader, writer)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await sent._head()
    except BaseException:
        sent.close()
        raise
    return sent
