"""The pretended engine on a TCP port, for contestants that cannot speak to a Unix socket. It is the same code that
Freehold's own child runs with ``--engine fake``."""

from __future__ import annotations

import asyncio
import sys

from freehold.engine.fake import Mock


async def main(port: int) -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(Mock("tiny", 4096).talk, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
