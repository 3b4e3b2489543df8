"""Freehold's own server and its own way to an engine, with nothing in between: no keys, no lease, no ledger, no
check of the body. It shows what governance costs; it is no way to run Freehold, and there is no setting for it."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from pathlib import Path

import uvloop

from freehold.api.http import Server
from freehold.api.message import HttpRequest, HttpResponse
from freehold.config import LimitsSettings
from freehold.engine import wire


class Relay:
    """Hands every request to the engine at a Unix socket."""

    def __init__(self, engine: str):
        self.engine = engine

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """One request, one exchange."""
        answer = wire.Exchange()
        await answer.send(self.engine, request.method, request.path, request.body, {})
        if answer.media_type == "text/event-stream":
            return HttpResponse(answer.status, _pieces(answer), answer.media_type)
        try:
            return HttpResponse(answer.status, await answer.body(), answer.media_type)
        finally:
            answer.close()


async def _pieces(answer: wire.Exchange):
    try:
        while piece := await answer.read():
            yield piece
    finally:
        answer.close()


async def main(port: int, engine: str) -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    relay = Relay(engine)
    server = Server(relay.handle, lambda request: None, _on_error, LimitsSettings())
    await server.start([(listener, None)])
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


def _on_error(_path, _request_id, error) -> HttpResponse:
    return HttpResponse(error.status, str(error).encode())


if __name__ == "__main__":
    run = asyncio.run if sys.argv[3:] == ["asyncio"] else uvloop.run
    run(main(int(sys.argv[1]), str(Path(sys.argv[2]))))
