"""What the parts of the request path cost beside their alternatives: the figures of
docs/decisions/0004-request-path.md.

    python benchmarks/choices.py

Each row is the median over rounds in which the alternatives take turns; microseconds of one core for one operation,
and the ratio to the part that was chosen.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE / ".venvs" / "choices"
ROUNDS = 7

BODY = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "What does the fox say? " * 20}] * 4,
        "temperature": 0.2,
        "max_tokens": 100,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    }
).encode()
EVENT = json.dumps(
    {
        "choices": [{"finish_reason": None, "index": 0, "delta": {"content": " word"}}],
        "created": 1, "id": "chatcmpl-x", "model": "m", "object": "chat.completion.chunk",
        "timings": {"cache_n": 1, "prompt_n": 9, "prompt_ms": 11.98, "predicted_n": 3, "predicted_ms": 23.05},
    }
).encode()  # fmt: skip
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8484\r\nUser-Agent: OpenAI/Python 2\r\nAccept: */*\r\n"
    b"Authorization: Bearer fh_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)


def main() -> int:
    """Set up the environment of the alternatives, then measure in it."""
    if "--inside" not in sys.argv:
        import contestants

        contestants.make_venv("choices")
        env = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
        return subprocess.call([str(VENV / "bin/python"), __file__, "--inside"], env=env)
    table("JSON: a request's body read", json_reads(BODY))
    table("JSON: a stream's event read", json_reads(EVENT))
    table("JSON: an event written", json_writes())
    table("HTTP: a request's head parsed", parsers())
    table("Event loop: a request through Freehold's own server and client (ungoverned.py), 16 connections", loops())
    table("HTTP: one call to the engine over a Unix socket, a connection each", clients())
    return 0


def table(title: str, alternatives: dict[str, Callable[[], float]]) -> None:
    """Measure in turns, and print as Markdown; the first is the one that was chosen."""
    found: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(ROUNDS):
        for name, measure in alternatives.items():
            found[name].append(measure())
    chosen = statistics.median(next(iter(found.values())))
    print(f"\n| {title} | µs | ratio |\n| --- | ---: | ---: |")
    for name, times in found.items():
        middle = statistics.median(times)
        print(f"| {name} | {middle:.2f} | {middle / chosen:.2f}x |")


def timed(operation: Callable[[], object], times: int = 5000) -> Callable[[], float]:
    """A measurement: microseconds of processor time for one operation."""

    def measure() -> float:
        begun = time.process_time()
        for _ in range(times):
            operation()
        return (time.process_time() - begun) / times * 1e6

    return measure


def json_reads(document: bytes) -> dict[str, Callable[[], float]]:
    import msgspec
    import orjson

    return {
        "msgspec": timed(lambda: msgspec.json.decode(document)),
        "orjson": timed(lambda: orjson.loads(document)),
        "json": timed(lambda: json.loads(document)),
    }


def json_writes() -> dict[str, Callable[[], float]]:
    import msgspec
    import orjson

    event = json.loads(EVENT)
    return {
        "msgspec": timed(lambda: msgspec.json.encode(event)),
        "orjson": timed(lambda: orjson.dumps(event)),
        "json": timed(lambda: json.dumps(event).encode()),
    }


def parsers() -> dict[str, Callable[[], float]]:
    import h11
    import httptools

    class Sink:
        def on_header(self, name, value): ...

        def on_body(self, body): ...

    def with_h11() -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(HEAD)
        while type(connection.next_event()) is not h11.EndOfMessage:
            pass

    return {
        "httptools": timed(lambda: httptools.HttpRequestParser(Sink()).feed_data(HEAD)),
        "h11": timed(with_h11, 500),
    }


def clients() -> dict[str, Callable[[], float]]:
    """Whole calls to the pretended engine in a process of its own; the client's processor time alone."""
    folder = tempfile.mkdtemp()
    place = f"{folder}/engine.sock"
    import contestants as who

    mock = who.spawn([who.PYTHON, str(HERE / "mock.py"), place], who.LOAD_CORE, Path(folder) / "log")
    while not os.path.exists(place):
        time.sleep(0.02)
    import atexit

    atexit.register(mock.terminate)
    body = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"{\\"tokens\\": 3}"}]}'

    def run(client, loop: str, times: int = 400) -> Callable[[], float]:
        def measure() -> float:
            async def calls() -> float:
                async with client(place, body) as call:
                    begun = time.process_time()
                    for _ in range(times):
                        await call()
                    return (time.process_time() - begun) / times * 1e6

            return _run(calls(), loop)

        return measure

    return {
        "bare socket, uvloop": run(_Bare, "uvloop"),
        "bare socket, asyncio": run(_Bare, "asyncio"),
        "asyncio's transport and protocol, uvloop": run(_Transport, "uvloop"),
        "asyncio's streams, asyncio": run(_Streams, "asyncio"),
        "aiohttp, uvloop": run(_Aiohttp, "uvloop"),
        "httpx, uvloop": run(_Httpx, "uvloop"),
    }


def loops() -> dict[str, Callable[[], float]]:
    """The gateway's processor time for a request, on each loop."""
    import contestants as who

    def measure(loop: str) -> float:
        one = who.Ungoverned()
        one.loop = loop
        try:
            one.start()
            before = _cpu_seconds(one.process.pid)
            command = [sys.executable, str(HERE / "load.py"), "--port", str(one.port), "--connections", "16"]
            command += ["--seconds", "1.5", "--body", json.dumps(who.call_body(tokens=1))]
            with who.pinned(who.LOAD_CORE):
                run = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            return (_cpu_seconds(one.process.pid) - before) / (run["answered"] + run["warmed_up_with"]) * 1e6
        finally:
            one.stop()

    return {loop: lambda loop=loop: measure(loop) for loop in ("uvloop", "asyncio")}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(work, loop: str) -> float:
    if loop == "asyncio":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)


class _Client:
    """One way to make a call; used as a context that gives a function for one whole call."""

    def __init__(self, place: str, body: bytes):
        self.place, self.body = place, body

    async def __aenter__(self):
        return self.call

    async def __aexit__(self, *_):
        pass

    async def call(self) -> bytes:
        raise NotImplementedError


class _Bare(_Client):
    async def call(self) -> bytes:
        from freehold.engine import wire

        sent = wire.Exchange()
        try:
            await sent.send(self.place, "POST", "/v1/chat/completions", self.body, {})
            return await sent.body()
        finally:
            sent.close()


def _request(body: bytes) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: engine", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Parsed:
    """What httptools tells; done at the message's end."""

    def __init__(self, done: asyncio.Future):
        self.pieces, self.done = [], done

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class _Transport(_Client):
    async def call(self) -> bytes:
        import httptools

        loop = asyncio.get_running_loop()
        parsed = _Parsed(loop.create_future())
        parser = httptools.HttpResponseParser(parsed)

        class Protocol(asyncio.Protocol):
            def data_received(self, data):
                parser.feed_data(data)

        transport, _ = await loop.create_unix_connection(Protocol, self.place)
        transport.write(_request(self.body))
        await parsed.done
        transport.abort()
        return b"".join(parsed.pieces)


class _Streams(_Client):
    async def call(self) -> bytes:
        import httptools

        reader, writer = await asyncio.open_unix_connection(self.place)
        parsed = _Parsed(asyncio.get_running_loop().create_future())
        parser = httptools.HttpResponseParser(parsed)
        writer.write(_request(self.body))
        while not parsed.done.done():
            parser.feed_data(await reader.read(65536))
        writer.transport.abort()
        return b"".join(parsed.pieces)


class _Aiohttp(_Client):
    async def __aenter__(self):
        import aiohttp

        connector = aiohttp.UnixConnector(self.place, force_close=True)
        self.session = aiohttp.ClientSession(connector=connector)
        return self.call

    async def __aexit__(self, *_):
        await self.session.close()

    async def call(self) -> bytes:
        async with self.session.post("http://engine/v1/chat/completions", data=self.body) as answer:
            return await answer.read()


class _Httpx(_Client):
    async def __aenter__(self):
        import httpx

        transport = httpx.AsyncHTTPTransport(uds=self.place, limits=httpx.Limits(max_keepalive_connections=0))
        self.client = httpx.AsyncClient(transport=transport)
        return self.call

    async def __aexit__(self, *_):
        await self.client.aclose()

    async def call(self) -> bytes:
        return (await self.client.post("http://engine/v1/chat/completions", content=self.body)).content


if __name__ == "__main__":
    sys.exit(main())
