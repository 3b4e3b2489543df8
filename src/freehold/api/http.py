"""An HTTP/1.1 server for one handler, on asyncio and llhttp.

It exists because what a gateway in front of scarce engines needs is control of the connection: limits on
how slowly a client may send or read, errors in the client's own format even for a request that never
became one, and a handler that is cancelled the moment its client is gone.

One connection answers its requests one after the other. While it answers, it goes on reading a little
(`_AHEAD` bytes), because that is how a client's leaving is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from socket import socket as Socket
from typing import Any

import httptools

from freehold import log
from freehold.api.message import HttpRequest, HttpResponse, head
from freehold.config import LimitsSettings
from freehold.errors import (
    BadRequest,
    BodyTooLarge,
    FreeholdError,
    HeadersTooLarge,
    MethodNotAllowed,
    Overloaded,
    TooSlow,
)
from freehold.ledger import new_id

_AHEAD = 64 * 1024
_PIPELINED = 64  # requests that may be sent ahead of their answers
_SWEEP = 0.5  # seconds between looks at the connections that have a deadline
_LINGER = 1.0  # seconds that a refused client gets to read its answer
_BODY_TOTAL = 20  # a body may take this many times `body_seconds` in all

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
Gate = Callable[[HttpRequest], Any]  # raises what the handler would, before a body is taken in
OnError = Callable[[str, str, FreeholdError], HttpResponse]  # path, request id, error


class Server:
    """Serves ``handler`` on sockets that are already bound.

    ``gate`` sees a request whose body is still to come, so that strangers' bodies need not be kept; ``on_error``
    puts an error into a path's format.
    """

    def __init__(self, handler: Handler, gate: Gate, on_error: OnError, limits: LimitsSettings):
        self.handler = handler
        self.gate = gate
        self.buffered = 0  # bytes of bodies that are not complete yet
        self.on_error = on_error
        self.limits = limits
        self.connections: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}  # those with no request in hand, longest-waiting first
        self.stopping = False
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task | None = None

    async def start(self, sockets: list[tuple[Socket, ssl.SSLContext | None]]) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for listener, tls in sockets:
            extra = {"ssl_handshake_timeout": self.limits.header_seconds} if tls else {}
            server = await loop.create_server(lambda: Connection(self), sock=listener, ssl=tls, backlog=4096, **extra)
            self._servers.append(server)
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self, grace: float) -> None:
        """Accept no more, let running calls finish for ``grace`` seconds, then end them."""
        self.stopping = True
        for server in self._servers:
            server.close()
        for connection in list(self.waiting):
            connection.end()
        deadline = asyncio.get_running_loop().time() + grace
        while self.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        tasks = [connection.task for connection in self.connections if connection.task]
        for connection in list(self.connections):
            connection.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        if self._sweeper:
            self._sweeper.cancel()

    def admit(self, connection: Connection) -> None:
        """Take in a connection; where there are too many, the longest-waiting silent one makes room."""
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            next(iter(self.waiting), connection).abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            now = asyncio.get_running_loop().time()
            for connection in [known for known in self.waiting if known.deadline < now]:
                connection.too_late()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: Server):
        self.server = server
        self.limits = server.limits
        self.deadline = 0.0
        self.task: asyncio.Task | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._ahead = bytearray()
        self._ready: deque[tuple[HttpRequest, bool]] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self._peer = ""
        self._refused = False
        self._lost = False
        self._unparsed = 0
        self._body = bytearray()
        self._begin_message()

    # the transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Called by asyncio."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._wait(self.limits.header_seconds)
        self.server.admit(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by asyncio: the client is gone, and so is whatever was done for it."""
        self._lost = True
        self.server.connections.discard(self)
        self._begin_message()
        self.server.waiting.pop(self, None)
        if self.task:
            self.task.cancel()
        self._writable.set()

    def eof_received(self) -> bool:
        """Called by asyncio: a client that has stopped sending has left; closing follows."""
        return False

    def pause_writing(self) -> None:
        """Called by asyncio: the client reads more slowly than the engine writes."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._refused:
            return
        if self.task:
            self._ahead += data
            if len(self._ahead) > _AHEAD:
                self._transport.pause_reading()
            return
        self._feed(data)

    # the parser's side

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._begin_message()
        self._wait(self.limits.header_seconds)

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._count_head(len(name) + len(value) + 4)
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key in self._headers and key in ("authorization", "x-api-key", "content-type", "host", "content-length"):
            raise _Stop(BadRequest(f"The header {key} was sent twice."))
        self._headers[key] = text

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._head_done = True
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise _Stop(self._too_large())
        if length != "0" or "transfer-encoding" in self._headers:
            self._ask_gate()
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body_deadline = self._loop.time() + _BODY_TOTAL * self.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body
        self.server.buffered += len(body)
        if len(self._body) > self.limits.body_bytes:
            raise _Stop(self._too_large())
        if self.server.buffered > self.limits.bodies_bytes:
            raise _Stop(Overloaded("Too many bodies are arriving at once."))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if len(self._ready) >= _PIPELINED:
            raise _Stop(BadRequest("Too many requests were sent ahead.", hint="Wait for answers in between."))
        self._ready.append((self._request(), self._parser.should_keep_alive()))
        self._begin_message()

    # between the two

    def end(self) -> None:
        """Close once what was written has gone out; a client that does not take it is cut off in time."""
        self._refused = True
        self._wait(self.limits.stall_seconds)
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def too_late(self) -> None:
        """The deadline has passed. A client that had begun to send is told; a silent one is not."""
        if self._refused or not (self._head_bytes or self._target):
            self.abort()
        else:
            self._refuse(TooSlow("The request did not arrive in time.", hint="Send it in one go."))

    def _request(self) -> HttpRequest:
        path = self._target.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        return HttpRequest(
            self._id, method, path, self._headers, bytes(self._body), version, self._admitted, self._peer
        )

    def _ask_gate(self) -> None:
        try:
            self._admitted = self.server.gate(self._request())
        except FreeholdError as error:
            raise _Stop(error) from None

    def _begin_message(self) -> None:
        self.server.buffered -= len(self._body)
        self._id = new_id("req")
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head_bytes = 0
        self._head_done = False
        self._admitted = None
        self._body_deadline = float("inf")

    def _wait(self, seconds: float) -> None:
        self.deadline = min(self._loop.time() + seconds, self._body_deadline)
        self.server.waiting.pop(self, None)  # to the end of the line
        if not self._lost:
            self.server.waiting[self] = None

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > self.limits.header_bytes:
            limit = f"at most {self.limits.header_bytes} bytes"
            raise _Stop(HeadersTooLarge(f"The request line and headers are too large: {limit}."))

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self.limits.body_bytes} bytes.", hint="Send less at once.")

    def _feed(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        unread = 0 if self._head_done else len(data)
        try:
            self._parser.feed_data(data)
            if not self._head_done and not self._ready:  # header bytes that no callback has seen yet
                self._unparsed += unread
                if self._unparsed > self.limits.header_bytes:
                    self._head_bytes = self.limits.header_bytes
                    self._count_head(1)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline(data[upgrade.args[0] :])
        except (_Stop, httptools.HttpParserError) as stop:
            if not self._ready:
                return self._refuse(_cause_of(stop))
            request, _ = self._ready.pop()  # what came whole is answered; what follows it ends the connection
            self._ready.append((request, False))
        if self._head_done:
            self._wait(self.limits.body_seconds)
        self._next()

    def _decline(self, rest: bytes) -> None:
        """An upgrade is not taken up: what was asked is answered in HTTP/1.1.

        The parser stops at the end of the head, before a body; another goes on from there, with a head that
        asks for no upgrade.
        """
        request, _ = self._ready.pop()
        kept = {name: value for name, value in request.headers.items() if name not in ("upgrade", "connection")}
        lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in kept.items())]
        self._parser = None
        if request.method == "CONNECT":  # llhttp takes any for an upgrade
            return self._refuse(MethodNotAllowed("This is no proxy.", hint="Call the endpoints by their paths."))
        self._feed("\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1") + rest)

    def _next(self) -> None:
        """Take the next complete request in hand."""
        if self.task or not self._ready or self._transport.is_closing():
            return
        self._unparsed = 0
        self.server.waiting.pop(self, None)
        request, keep_alive = self._ready.popleft()
        self.task = self._loop.create_task(self._serve(request, keep_alive))

    async def _serve(self, request: HttpRequest, keep_alive: bool) -> None:
        try:
            try:
                response = await self.server.handler(request)
            except FreeholdError as error:
                response = self.server.on_error(request.path, request.id, error)
            except Exception as error:  # noqa: BLE001 - the last resort: no fault of ours may end the server
                log.fault(error)
                fault = FreeholdError("An unexpected fault; it was written to the server's log.")
                response = self.server.on_error(request.path, request.id, fault)
            keep_alive = keep_alive and not self.server.stopping
            keep_alive = await self._send(request, response, keep_alive)
        except asyncio.CancelledError:
            self.abort()
            raise
        except _Gone:
            self.abort()
            keep_alive = False
        except Exception as error:  # noqa: BLE001 - as above, when part of the answer is out already
            log.fault(error)
            self.abort()
            keep_alive = False
        finally:
            self.task = None
        self._go_on(keep_alive)

    async def _send(self, request: HttpRequest, response: HttpResponse, keep_alive: bool) -> bool:
        """Write the response; says whether the connection can take another request."""
        if isinstance(response.body, bytes):
            body = b"" if request.method == "HEAD" else response.body
            self._transport.write(head(request.id, response, keep_alive, len(response.body)) + body)
            if not self._writable.is_set():
                await self._drain()
            return keep_alive
        chunked = request.version != "1.0"
        begin = head(request.id, response, keep_alive and chunked, None if chunked else -1)
        async with contextlib.aclosing(response.body) as pieces:
            async for piece in pieces:
                self._transport.write(begin + (b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece))
                begin = b""
                if not self._writable.is_set():
                    await self._drain()
        self._transport.write(begin + (b"0\r\n\r\n" if chunked else b""))
        return keep_alive and chunked

    async def _drain(self) -> None:
        """Wait until the client reads on; one that does not is cut off."""
        try:
            async with asyncio.timeout(self.limits.stall_seconds):
                await self._writable.wait()
        except TimeoutError:
            raise _Gone from None
        if self._lost:
            raise _Gone

    def _go_on(self, keep_alive: bool) -> None:
        if self._lost:
            return
        if not keep_alive:
            return self.end()
        self._wait(self.limits.idle_seconds)
        if self._ready:
            return self._next()
        if self._ahead:
            data, self._ahead = bytes(self._ahead), bytearray()
            self._transport.resume_reading()
            self._feed(data)

    def _refuse(self, error: FreeholdError) -> None:
        """Answer a request that never became one, and close."""
        self._refused = True
        response = self.server.on_error(self._target.partition(b"?")[0].decode("latin-1"), self._id, error)
        self._transport.write(head(self._id, response, False, len(response.body)) + response.body)
        self._loop.call_later(_LINGER, self.end)
        if self._transport.can_write_eof():
            self._transport.write_eof()


class _Gone(Exception):
    """The client has left, or has not read for too long."""


class _Stop(Exception):
    """Raised in a parser's callback to refuse the request there and then."""

    def __init__(self, error: FreeholdError):
        super().__init__(error.message)
        self.error = error


def _cause_of(stop: Exception) -> FreeholdError:
    """The error behind what the parser raised: it wraps what its callbacks raise."""
    cause = stop if isinstance(stop, _Stop) else stop.__context__
    if isinstance(cause, _Stop):
        return cause.error
    if isinstance(stop, httptools.HttpParserCallbackError):
        log.fault(cause or stop)
        return FreeholdError("An unexpected fault; it was written to the server's log.")
    return BadRequest(f"This is not HTTP/1.1 as it should be: {stop}.", hint="")
