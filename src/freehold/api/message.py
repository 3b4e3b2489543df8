"""HTTP messages, without the connection that carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from msgspec import Struct

REASONS = {status.value: status.phrase for status in HTTPStatus}


class HttpRequest(Struct):
    """One request as it came. Header names are in lower case; ``path`` has no query.

    ``admitted`` is what the gate gave for it, if it was asked; ``peer`` the address at the other end of the connection,
    empty over the Unix socket.
    """

    id: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    version: str = "1.1"
    admitted: Any = None
    peer: str = ""


class HttpResponse(Struct):
    """What to send. A ``body`` of bytes goes out in one write; a stream as its pieces come."""

    status: int
    body: bytes | AsyncIterator[bytes]
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def head(request_id: str, response: HttpResponse, keep_alive: bool, length: int | None) -> bytes:
    """A response's first line and headers. ``length`` of its body; None: it comes in chunks; -1: it ends with the
    connection."""
    lines = [
        f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}",
        f"content-type: {response.media_type}",
        f"x-request-id: {request_id}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    if length is None:
        lines.append("transfer-encoding: chunked")
    elif length >= 0:
        lines.append(f"content-length: {length}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
