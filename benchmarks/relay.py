"""A bare relay on Starlette and aiohttp: no keys, no ledger, no limits. What the usual parts cost by themselves."""

from __future__ import annotations

import contextlib
import os

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

ENGINE = os.environ["ENGINE"]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette):
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
    ) as app.state.session:
        yield


async def relay(request: Request) -> Response:
    """Pass a request on and its answer back."""
    body = await request.body()
    headers = {"content-type": "application/json"}
    answer = await request.app.state.session.post(ENGINE + request.url.path, data=body, headers=headers)
    media_type = answer.headers.get("content-type", "application/json")
    if media_type.startswith("text/event-stream"):
        return StreamingResponse(_pieces(answer), answer.status, media_type=media_type)
    return Response(await answer.read(), answer.status, media_type=media_type)


async def _pieces(answer: aiohttp.ClientResponse):
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


app = Starlette(routes=[Route("/{path:path}", relay, methods=["POST"])], lifespan=lifespan)
