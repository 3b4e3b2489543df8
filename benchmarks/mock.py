"""The pretended engine outside of Freehold, on a TCP port or a Unix socket, for whoever is compared with it. It is
the same code that Freehold's own child runs with ``--engine fake``."""

from __future__ import annotations

import asyncio
import sys

from freehold.engine.fake import Mock


async def main(place: str) -> None:
    """Serve until ended."""
    loop, mock = asyncio.get_running_loop(), Mock("tiny", 4096)
    if place.isdigit():
        server = await loop.create_server(mock.talk, "127.0.0.1", int(place), backlog=4096)
    else:
        server = await loop.create_unix_server(mock.talk, place, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
