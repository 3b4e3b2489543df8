"""The relay: the one process that may reach out, to the upstreams on the list, with their keys and nothing else.

It is started before the gateway seals itself, since whatever a sealed gateway starts has no network either. Its order
is one line of JSON on standard input; the end of input, however the gateway came to its end, is the order to stop. What
it has to say (its seal, its worker, or why it does not start) are lines of JSON on standard output.

Two processes: a supervisor, which reads the keys, listens on a Unix socket, puts on the seal and from then on only
starts the worker again when it dies; and the worker, which answers on that socket. A call that comes while there is no
worker waits in the socket's backlog.

On the socket the relay speaks HTTP/1.1: ``POST /UPSTREAM/path`` goes to that upstream's ``path``. The answer's body
goes back as it comes, of its head the status, the type and Retry-After. ``x-relay-said`` says what went wrong, in the
head of a response that is the relay's own (with ``x-relay-again`` and ``x-relay-sent``, see `outward.Trouble`) or
behind a body that broke off; ``x-relay-end`` behind a body says that it ended with its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import select
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import log, seal
from freehold.engine.outward import Line, Outward, Trouble, Way
from freehold.seal import kernel
from freehold.types import Layer

SEAL_REQUIRED = "The seal is required and the kernel lacks"
TRACES = "~traces"  # the way that leads to where traces go; no upstream has a name like this
SAID, AGAIN, SENT, END = "x-relay-said", "x-relay-again", "x-relay-sent", "x-relay-end"
_DATA_BYTES = 2 << 30
_BACKLOG = 1024
_HEAD, _BODY = 1 << 16, 1 << 30  # bytes of a request of the gateway's
_ERROR_BYTES = 1 << 16  # of an error's body
_BACK_OFF = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)  # seconds before each restart in a row
_STEADY = 30.0
_KEY_BYTES = 8192
# What resolving a name reads: resolver(5), nsswitch.conf(5), hosts(5), gai.conf(5).
_NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")


class Order(Struct, frozen=True):
    """What the gateway asks its relay to become."""

    ways: tuple[Way, ...]
    hosts: tuple[str, ...]
    socket: str
    token: str
    seal: str
    logs: str = "text"


class Word(Struct, frozen=True):
    """What the relay says to the gateway: exactly one of the fields."""

    layers: tuple[Layer, ...] | None = None
    worker: int | None = None  # its process id; said again for each that replaces one
    failed: str | None = None


def main() -> int:
    """Run the supervisor. Exit code 0 when told to stop, 1 when the relay cannot start."""
    out = os.dup(1)
    os.dup2(2, 1)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    log.choose(order.logs)
    kernel.die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they go to the gateway too, which then asks us to stop
    try:
        outward = {way.name: _outward(way, order) for way in order.ways}
        listener = _listen(order.socket)
        _take_files()
    except (OSError, ValueError) as error:
        _say(out, Word(failed=str(error)))
        return 1
    layers = seal.put_on(order.seal, seal.relay_plan(ports=_ports(order), files=_files(), data_bytes=_DATA_BYTES))
    _say(out, Word(layers=layers))
    if order.seal == "required" and (lacking := seal.missing(layers)):
        _say(out, Word(failed=f"{SEAL_REQUIRED} {'; '.join(lacking)}"))
        return 1
    _supervise(out, Worker(outward, order.token), listener)
    return 0


def _outward(way: Way, order: Order) -> Outward:
    """An upstream with its key. Raises ValueError with a sentence, which never holds the key."""
    who = "the collector of traces" if way.name == TRACES else f"the upstream {way.name!r}"
    if way.authority not in order.hosts:
        raise ValueError(f"T{who[1:]} is at {way.authority}, which is not in upstream_hosts.")
    try:
        key = way.key or (_read_key(way.key_file) if way.key_file else "")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"The key of {who} cannot be read: {way.key_file}: {reason}.") from None
    if (way.key_file and not key) or not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"The key of {who} is not one word of plain letters.")
    try:
        return Outward(way, key, frozenset(order.hosts))
    except (OSError, ssl.SSLError) as error:
        said = getattr(error, "strerror", None) or "it holds no certificate"
        raise ValueError(f"The CA of {who} cannot be used: {way.ca}: {said}.") from None


def _read_key(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_KEY_BYTES).decode("ascii").strip()


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _take_files() -> None:
    """As many open files as this process may have: a call has two connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _ports(order: Order) -> tuple[int, ...]:
    return tuple(way.port for way in order.ways)


def _files() -> tuple[str, ...]:
    """What names and certificates are looked up in. Where the resolver's file is a link into /run, its folder: there it
    is replaced, not rewritten."""
    folder = str(Path("/etc/resolv.conf").resolve().parent)
    paths = ssl.get_default_verify_paths()
    certificates = [path for path in (paths.cafile, paths.capath) if path]
    return (*_NAMES, *([folder] if folder.startswith("/run/") else []), *certificates)


def _supervise(out: int, worker: Worker, listener: socket.socket) -> None:
    """Start the worker, and again whenever it dies, until input ends."""
    in_a_row = 0
    while True:
        began = time.monotonic()
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            os.close(out)
            ours.close()
            worker.run(listener, theirs)
        theirs.close()
        _say(out, Word(worker=pid))
        ready, _, _ = select.select([0, ours], [], [])
        if 0 in ready:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        _, status = os.waitpid(pid, 0)
        ours.close()
        in_a_row = 0 if time.monotonic() - began > _STEADY else in_a_row + 1
        log.note(f"The relay's worker ended (code {os.waitstatus_to_exitcode(status)}); starting it again.")
        if select.select([0], [], [], _BACK_OFF[min(in_a_row - 1, len(_BACK_OFF) - 1)] if in_a_row else 0)[0]:
            return


class Worker:
    """Passes calls on, each with the key of its upstream."""

    def __init__(self, outward: dict[str, Outward], token: str):
        self._outward = outward
        self._authorization = f"Bearer {token}"
        self._calls: set[asyncio.Task] = set()

    def run(self, listener: socket.socket, supervisor: socket.socket) -> None:
        """Be the worker's process; does not return."""
        code = 1
        try:
            kernel.die_with_parent(signal.SIGKILL)
            asyncio.run(self._serve(listener, supervisor))
        except BaseException as error:  # noqa: BLE001 - this process was forked: nothing above may go on in it
            log.note(f"The relay's worker cannot go on ({type(error).__name__}).")
        finally:
            os._exit(code)

    async def _serve(self, listener: socket.socket, supervisor: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_quiet)
        loop.add_reader(supervisor, os._exit, 0)  # it says nothing, so this is its end
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError:  # no more files: those in use are given back
                await asyncio.sleep(0.05)
                continue
            task = loop.create_task(self._talk(accepted))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _talk(self, accepted: socket.socket) -> None:
        """One call. When the gateway closes its end nobody waits any more, and the upstream's is closed."""
        reader, writer = await asyncio.open_unix_connection(sock=accepted, limit=_HEAD)
        try:
            asked = await _request(reader)
            if asked is None or not secrets.compare_digest(asked.authorization, self._authorization):
                return
            call = asyncio.create_task(self._call(asked, writer))
            gone = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait([call, gone], return_when=asyncio.FIRST_COMPLETED)
            finally:
                call.cancel()
                gone.cancel()
                await asyncio.wait([call, gone])
        finally:
            if not writer.transport.is_closing():
                writer.close()

    async def _call(self, asked: _Asked, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # the gateway is gone, and nobody is there to be told
            outward = self._outward.get(asked.upstream)
            try:
                if outward is None:
                    raise Trouble("is not known to the relay", sent=False)
                line = await outward.ask(asked.path, asked.body)
            except Trouble as trouble:
                writer.write(_refusal(trouble))
            else:
                try:
                    await _answer(outward, line, writer)
                except BaseException:
                    line.close()
                    raise
                outward.keep(line)
            await writer.drain()


class _Asked(Struct, frozen=True):
    upstream: str
    path: str
    authorization: str
    body: bytes


async def _request(reader: asyncio.StreamReader) -> _Asked | None:
    """One request of the gateway's; None for what is none."""
    try:
        first, *rows = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        _, upstream, path = first.split(" ")[1].split("/", 2)
        length = int(headers["content-length"])
        if not 0 <= length <= _BODY:
            return None
        return _Asked(upstream, f"/{path}", headers.get("authorization", ""), await reader.readexactly(length))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, LookupError, ValueError):
        return None


async def _answer(outward: Outward, line: Line, writer: asyncio.StreamWriter) -> None:
    """The upstream's answer. What goes wrong once it has begun is said behind it."""
    if line.status >= 300:
        await _whole(outward, line, writer)
        return
    encoding = line.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", ""):
        line.close()
        writer.write(_refusal(Trouble("compressed its answer, which was not asked for")))
        return
    writer.write(_head(line) + b"Transfer-Encoding: chunked\r\n\r\n")
    behind = b""
    try:
        async for piece in line.pieces():
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        if line.to_its_end:
            behind = f"{END}: connection\r\n".encode()
    except Trouble as trouble:
        behind = f"{SAID}: {_plain(trouble.said)}\r\n".encode("latin-1")
    writer.write(b"0\r\n%b\r\n" % behind)


async def _whole(outward: Outward, line: Line, writer: asyncio.StreamWriter) -> None:
    """An error, or a redirect: its beginning, without the key."""
    body = b""
    with contextlib.suppress(Trouble):  # what came of it will do
        async for piece in line.pieces():
            body += piece
            if len(body) > _ERROR_BYTES:
                line.close()
                break
    body = outward.hide(body)[:_ERROR_BYTES]
    writer.write(_head(line) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def _head(line: Line) -> bytes:
    """The status and what of the headers is of use."""
    rows = [f"HTTP/1.1 {line.status} X"]
    for name in ("content-type", "retry-after"):
        if name in line.headers:
            rows.append(f"{name}: {_plain(line.headers[name])}")
    return ("\r\n".join(rows) + "\r\n").encode("latin-1")


def _refusal(trouble: Trouble) -> bytes:
    """The relay's own answer."""
    return (
        f"HTTP/1.1 502 X\r\n{SAID}: {_plain(trouble.said)}\r\n{AGAIN}: {trouble.again:d}\r\n"
        f"{SENT}: {trouble.sent:d}\r\nContent-Length: 0\r\n\r\n"
    ).encode("latin-1")


def _plain(text: str) -> str:
    """As it can stand in a header."""
    return "".join(letter for letter in text[:300] if " " <= letter <= "~")


def _say(out: int, word: Word) -> None:
    with contextlib.suppress(BrokenPipeError):  # the gateway is gone, which the end of input says too
        os.write(out, msgspec.json.encode(word) + b"\n")


def _quiet(_loop: asyncio.AbstractEventLoop, said: dict[str, Any]) -> None:
    """No representation of an object goes into a log: it could hold a key or a prompt."""
    log.note(f"In the relay: {said.get('message', '')} ({type(said.get('exception')).__name__})")


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
