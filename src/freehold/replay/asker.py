"""One question to the running gateway and its answer, over the owner's Unix socket: the path that every call takes.

Answers are asked for as streams, so that the time of the first token is known; what they say and how many tokens they
have is the same either way.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import msgspec
from msgspec import Struct

from freehold import said
from freehold.engine import assemble, sse, wire
from freehold.engine.dialect import PATHS
from freehold.engine.meter import Meter
from freehold.errors import EngineFailed, FreeholdError, Overloaded
from freehold.home import Running
from freehold.types import Answer, Kind, Usage

_LONGEST = 64 << 20  # bytes of one answer; many times what a context holds
_OURS = {  # Anthropic's types of error, which stand in the place of our codes
    "invalid_request_error": "invalid_request", "api_error": "engine_failed", "overloaded_error": "overloaded",
    "rate_limit_error": "rate_limit_exceeded", "timeout_error": "request_timeout", "not_found_error": "not_found",
    "request_too_large": "request_too_large",
}  # fmt: skip
_TOO_LONG = re.compile(r"The prompt has \d+ tokens and the context holds")
_AGAIN = frozenset({408, 409, 425, 429})  # of 4xx, those that may be answered at another try


class Told(Struct, frozen=True):
    """What came of a question. ``model`` is who answered, ``NAME@sha256:...``, where the gateway says it."""

    answer: Answer
    usage: Usage
    first_token_ms: float | None
    total_ms: float
    model: str = ""


class NotAnswered(FreeholdError):
    """No answer came. ``passing`` says that another try may bring one; ``status`` is 0 where not even the gateway was
    reached."""

    def __init__(self, code: str, message: str, *, status: int = 0, retry_after: int | None = None):
        super().__init__(message, retry_after=retry_after)
        self.code, self.status = code, status

    @property
    def passing(self) -> bool:
        """May another try bring an answer?"""
        return self.status in _AGAIN or not 400 <= self.status < 500


class Asker:
    """Asks the running server, as its owner. ``seconds`` is how long one answer may take."""

    def __init__(self, running: Running, seconds: float = 300):
        self._running, self._seconds = running, seconds
        self._headers = {"Authorization": f"Bearer {running.key}"}

    async def ask(self, kind: Kind, body: dict[str, Any]) -> Told:
        """Put a body, ``model`` included, to the endpoint of its kind.

        Raises:
            NotAnswered: it was refused, it failed, it took too long, or the kind has no answer in words.
        """
        if kind not in assemble.WHOLES:
            raise NotAnswered("unsupported", f"A call of {kind.value} has no answer in words.", status=400)
        exchange = wire.Exchange()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._ask(exchange, kind, msgspec.json.encode(_streamed(kind, body)))
        except TimeoutError:
            raise NotAnswered("timed_out", f"No whole answer came within {self._seconds:g} s.") from None
        except (EngineFailed, Overloaded):
            raise NotAnswered("unreachable", "The server cannot be reached, or broke off.") from None
        finally:
            exchange.close()

    async def status(self) -> dict[str, Any]:
        """What the gateway says of itself. Raises NotAnswered."""
        return await self._look("/admin/status")

    async def answering(self, model: str) -> int:
        """How many calls the model is answering now, whoever asked. Raises NotAnswered."""
        seats = (await self._look("/admin/queue"))["models"]
        return sum(seat["counts"]["answering"] for seat in seats if seat["model"] == model)

    async def _look(self, path: str) -> dict[str, Any]:
        exchange = wire.Exchange()
        try:
            async with asyncio.timeout(min(self._seconds, 30)):
                await exchange.send(self._running.socket, "GET", path, b"", self._headers)
                if exchange.status != 200:
                    raise _refusal(exchange, await exchange.body())
                return msgspec.json.decode(await exchange.body())
        except (EngineFailed, Overloaded, TimeoutError, msgspec.MsgspecError):
            raise NotAnswered("unreachable", "The server does not say how it is.") from None
        finally:
            exchange.close()

    async def _ask(self, exchange: wire.Exchange, kind: Kind, content: bytes) -> Told:
        began = time.perf_counter()
        await exchange.send(self._running.socket, "POST", PATHS[kind], content, self._headers)
        if exchange.status != 200:
            raise _refusal(exchange, await exchange.body())
        reading = _Reading(kind)
        while piece := await exchange.read():
            reading.take(piece)
        total = (time.perf_counter() - began) * 1000
        first = (reading.first_at - began) * 1000 if reading.first_at else None
        return Told(reading.whole(), reading.usage, first, total, exchange.headers.get("x-freehold-model", ""))


class _Reading:
    """Takes in a stream, and gives the answer that it made. ``first_at`` is when it first said something."""

    def __init__(self, kind: Kind):
        self._kind, self._whole = kind, assemble.WHOLES[kind]()
        self._events, self._meter = sse.Events(), Meter()
        self._length = 0
        self.first_at: float | None = None

    @property
    def usage(self) -> Usage:
        return self._meter.usage

    def take(self, piece: bytes) -> None:
        """The next bytes. Raises NotAnswered where they end the answer with an error."""
        self._length += len(piece)
        if self._length > _LONGEST:
            raise NotAnswered("answer_too_long", f"The answer has more than {_LONGEST >> 20} MiB.", status=400)
        events = self._events.read(piece)
        self._meter.read(events)
        for event in events:
            if event.strip() != sse.DONE:
                self._event(_decoded(event))

    def whole(self) -> Answer:
        """The answer. Raises NotAnswered if it is not complete."""
        if not self._meter.complete:
            raise NotAnswered("engine_failed", "The answer broke off before it was complete.", status=502)
        try:
            return said.answer(self._kind, self._whole.document(self._meter.usage))
        except said.Unfit:
            raise NotAnswered("engine_failed", "The answer has a form that cannot be read.", status=502) from None

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("type") == "error" or event.get("error"):
            raise _error(event, 502)
        if self.first_at is None and _says_something(event):
            self.first_at = time.perf_counter()
        try:
            self._whole.take(event)
        except (KeyError, TypeError, IndexError, AttributeError):
            raise NotAnswered("engine_failed", "The answer has a form that cannot be read.", status=502) from None


def _says_something(event: dict[str, Any]) -> bool:
    """Does an event bring a part of the answer, and not only news of it? Some servers send the first at once."""
    if "choices" not in event:
        return str(event.get("type", "")).endswith("delta") and event["type"] != "message_delta"
    choices = event["choices"] if isinstance(event["choices"], list) else []
    parts = [choice.get("delta") or choice for choice in choices if isinstance(choice, dict)]
    said = ("content", "reasoning_content", "tool_calls", "text")
    return any(part.get(name) for part in parts if isinstance(part, dict) for name in said)


def _streamed(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """The same body, for an answer as a stream that ends with its usage."""
    options = {"stream_options": {"include_usage": True}} if kind in (Kind.CHAT, Kind.COMPLETION) else {}
    return {name: value for name, value in body.items() if name != "stream_options"} | {"stream": True} | options


def _refusal(exchange: wire.Exchange, body: bytes) -> NotAnswered:
    after = exchange.headers.get("retry-after", "")
    return _error(_decoded(body), exchange.status, int(after) if after.isdecimal() and len(after) < 6 else None)


def _error(document: dict[str, Any], status: int, retry_after: int | None = None) -> NotAnswered:
    """The error in OpenAI's document, in Anthropic's, or in an event of /v1/responses."""
    inner = document.get("error")
    inner = inner if isinstance(inner, dict) else document
    message = str(inner.get("message") or "No reason was given.")
    code = str(inner.get("code") or inner.get("type") or "error")
    code = "context_length_exceeded" if _TOO_LONG.match(message) else _OURS.get(code, code)
    return NotAnswered(code, message, status=status, retry_after=retry_after)


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
