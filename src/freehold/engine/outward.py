"""HTTP/1.1 over TCP and TLS, as a client: what the relay says to upstreams, and nothing that it runs besides.

Connections are kept for the next call. No redirect is followed, no proxy variable is read, nothing compressed is asked
for. Lengths that an answer claims are believed when so much has arrived, and not before.

Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator

import httptools
from msgspec import Struct

_CHUNK = 1 << 16
_HEAD = 1 << 16  # bytes of a response's head, with all that come before it
_KEEP_SECONDS = 30.0  # an unused connection is not trusted for longer
_KEEP = 64  # unused connections to one upstream


class Way(Struct, frozen=True):
    """One upstream, as the relay needs it. The key is in ``key_file``, or was handed over in ``key``."""

    name: str
    scheme: str
    host: str
    port: int
    path: str
    key_file: str
    key: str
    ca: str
    connect_seconds: float
    silence_seconds: float
    answer_bytes: int

    @property
    def authority(self) -> str:
        """Host and port, as the allow-list has them."""
        return f"[{self.host.lower()}]:{self.port}" if ":" in self.host else f"{self.host.lower()}:{self.port}"


class Trouble(Exception):
    """What went wrong with an upstream, to follow its name in a sentence. ``again``: it may be tried again, since
    nothing of an answer has arrived. ``sent``: some of the request may have left."""

    def __init__(self, said: str, *, again: bool = False, sent: bool = True):
        super().__init__(said)
        self.said, self.again, self.sent = said, again, sent


class Outward:
    """The connections to one upstream, which is reached only if ``hosts`` has it."""

    def __init__(self, way: Way, key: str, hosts: frozenset[str]):
        self.way = way
        self._key, self._hosts = key, hosts
        self._tls = context(way) if way.scheme == "https" else None
        self._kept: deque[Line] = deque()

    def hide(self, text: bytes) -> bytes:
        """The text without the key, in case an upstream repeats it."""
        return text.replace(self._key.encode(), b"[key]") if self._key else text

    async def ask(self, path: str, body: bytes) -> Line:
        """Put a request to the upstream; the head of its response is there when this returns.

        Raises:
            Trouble: it cannot be reached, broke off, or said nothing in time.
        """
        request = self._head(path, len(body)) + body
        sent = False
        while True:
            kept = self._reusable()
            try:
                line = kept or await self._connect()
            except Trouble as trouble:
                trouble.sent = sent
                raise
            sent = True
            try:
                await line.ask(request)
                return line
            except BaseException as error:
                line.close()
                # one that was kept may have been closed at the other end in that moment
                if kept is None or not isinstance(error, Trouble) or not error.again:
                    raise

    def keep(self, line: Line) -> None:
        """The answer was read; keep its connection for the next call, if it can be used again."""
        if line.is_reusable and len(self._kept) < _KEEP:
            line.used_at = time.monotonic()
            self._kept.append(line)
        else:
            line.close()

    def _reusable(self) -> Line | None:
        while self._kept:
            line = self._kept.pop()
            if line.is_alive and time.monotonic() - line.used_at < _KEEP_SECONDS:
                return line
            line.close()
        return None

    async def _connect(self) -> Line:
        way = self.way
        if way.authority not in self._hosts:
            raise Trouble("is not on the list of hosts that may be reached")
        name = {"server_hostname": way.host} if self._tls else {}
        try:
            async with asyncio.timeout(way.connect_seconds):
                reader, writer = await asyncio.open_connection(
                    way.host, way.port, ssl=self._tls, limit=_CHUNK, happy_eyeballs_delay=0.25, **name
                )
        except TimeoutError:
            raise Trouble(f"took no connection within {way.connect_seconds:g} s", again=True) from None
        except ssl.SSLCertVerificationError as error:
            raise Trouble(f"has a certificate that does not verify: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise Trouble(f"does not speak TLS as it should ({error.reason})") from None
        except socket.gaierror as error:
            raise Trouble(f"is not found by its name ({error.strerror})", again=True) from None
        except OSError as error:
            raise Trouble(f"cannot be reached ({error.strerror or 'no address of it answers'})", again=True) from None
        return Line(reader, writer, way)

    def _head(self, path: str, length: int) -> bytes:
        way = self.way
        host = f"[{way.host}]" if ":" in way.host else way.host
        port = "" if way.port == {"http": 80, "https": 443}[way.scheme] else f":{way.port}"
        key = f"Authorization: Bearer {self._key}\r\n" if self._key else ""
        return (
            f"POST {way.path}{path} HTTP/1.1\r\nHost: {host}{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\nAccept: application/json, text/event-stream\r\n"
            f"Accept-Encoding: identity\r\nUser-Agent: freehold\r\n{key}\r\n"
        ).encode("latin-1")


class Line:
    """One connection, with one call after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way):
        self.used_at = time.monotonic()
        self.headers: dict[str, str] = {}
        self.status = 0
        self.to_its_end = False  # the answer ends when the connection does, whole or not
        self._reader, self._writer, self._way = reader, writer, way
        self._begin()

    def _begin(self) -> None:
        self.headers, self.status = {}, 0
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._read = 0
        self._head_done = self._done = self._again = self._surplus = self.to_its_end = False

    @property
    def is_alive(self) -> bool:
        """Could it be written to, as far as is known here?"""
        return not (self._writer.is_closing() or self._reader.at_eof())

    @property
    def is_reusable(self) -> bool:
        """Is the answer read to its end, with nothing behind it, and may another request follow?"""
        return self._done and self._again and not self._surplus and self.is_alive

    async def ask(self, request: bytes) -> None:
        """Send a request and read the head of its response. Raises Trouble."""
        self._begin()
        try:
            self._writer.write(request)
            async with asyncio.timeout(self._way.silence_seconds):
                await self._writer.drain()
        except TimeoutError:
            raise Trouble(f"did not take the request within {self._way.silence_seconds:g} s") from None
        except OSError:
            raise Trouble("broke off before it answered", again=True) from None
        while not self._head_done:
            await self._more()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises Trouble."""
        while True:
            if self._pieces:
                pieces, self._pieces = self._pieces, []
                yield b"".join(pieces)
            if self._done:
                return
            await self._more()

    def close(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()

    async def _more(self) -> None:
        try:
            async with asyncio.timeout(self._way.silence_seconds):
                data = await self._reader.read(_CHUNK)
        except TimeoutError:
            what = "broke off its answer: nothing more came" if self._head_done else "said nothing"
            raise Trouble(f"{what} for {self._way.silence_seconds:g} s") from None
        except OSError:
            data = b""
        self._read += len(data)
        if data:
            self._feed(data)
        elif self._head_done and self.to_its_end:
            self._done = True
        else:
            raise self._broke_off()
        if not self._head_done and self._read > _HEAD:
            raise Trouble(f"sent a head of more than {_HEAD} bytes")
        if self._read > self._way.answer_bytes + _HEAD:
            raise Trouble(f"sent an answer of more than {self._way.answer_bytes} bytes")

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise Trouble("answered with another protocol") from None
        except httptools.HttpParserError:
            if not self._done:
                raise Trouble("answered with something that is not HTTP") from None
            self._surplus = True

    def _broke_off(self) -> Trouble:
        if self._head_done:
            return Trouble("broke off its answer")
        return Trouble("broke off before it answered", again=not self._read)

    # called by the parser

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._done:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if not self._head_done:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status >= 200 and not self._done:
            self.status, self._head_done = status, True
            self.to_its_end = not {"content-length", "transfer-encoding"} & self.headers.keys()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if not self._done:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser; also of the answers before the answer, which say only that it comes."""
        if not self._head_done:
            self.headers.clear()
            return
        self._done, self._again = True, self._parser.should_keep_alive()


def context(way: Way) -> ssl.SSLContext:
    """TLS that verifies: against the CA of the settings, or else the system's. Raises OSError."""
    made = ssl.create_default_context(cafile=way.ca or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made
