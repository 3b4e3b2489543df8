"""Traces of calls, for a collector that takes OpenTelemetry: what a call was and how long it took, and no text of it.

A call is a span of the gateway's (``SERVER``), below the span that the request names in ``traceparent``; below it,
where the call came to its turn at an engine or an upstream, is the model's (``CLIENT``), by the conventions for
generative AI. They wait in memory, within a bound, and go out in batches through the relay, for the gateway has no
network. What the collector does not take in time is dropped and counted; no call waits for any of it.

Source: OpenTelemetry, "OTLP/HTTP" (JSON encoding) and "Semantic conventions for generative AI" (client inference) and
for HTTP; W3C, "Trace Context".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

import freehold
from freehold import log
from freehold.config import TracesSettings
from freehold.engine import relay, wire
from freehold.engine.dialect import PATHS
from freehold.engine.remote import COLLECTOR_SILENCE
from freehold.engine.upstream import Place
from freehold.errors import EngineFailed, Overloaded
from freehold.types import Kind, Outcome, Seen

ROOM = 8192  # calls that wait
BATCH = 128  # calls in one request
_EVERY = 1.0  # seconds
_WAITS = (1.0, 4.0)  # seconds before each further try
_LONGEST_WAIT = 30.0
_AGAIN = frozenset({429, 502, 503, 504})  # those of OTLP/HTTP
_STOP = 2.0  # seconds in which the rest is sent at the end
_SERVER, _CLIENT = 2, 3  # SpanKind and, below, StatusCode as numbers, as OTLP's JSON has them
_FAILED = {"code": 2}
_Attribute = dict[str, Any] | Raw
_KINDS = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_OPERATIONS = {
    Kind.CHAT: "chat", Kind.MESSAGE: "chat", Kind.RESPONSE: "chat", Kind.COMPLETION: "text_completion",
    Kind.EMBEDDING: "embeddings", Kind.COUNT: "count_tokens",
}  # fmt: skip
_PROVIDERS = (  # whose own API a host is, as the conventions call them
    ("openai.com", "openai"), ("openai.azure.com", "azure.ai.openai"), ("anthropic.com", "anthropic"),
    ("mistral.ai", "mistral_ai"), ("cohere.com", "cohere"), ("deepseek.com", "deepseek"), ("groq.com", "groq"),
    ("x.ai", "x_ai"), ("perplexity.ai", "perplexity"), ("generativelanguage.googleapis.com", "gcp.gemini"),
)  # fmt: skip


class Context(Struct, frozen=True):
    """Where a call stands among traces: its trace, the span above its own (empty: none), and whether it is kept."""

    trace: str
    parent: str
    sampled: bool


class _Span(Struct, rename="camel", omit_defaults=True):
    """A span as OTLP's JSON has it."""

    trace_id: str
    span_id: str
    name: str
    kind: int
    start_time_unix_nano: str
    end_time_unix_nano: str
    parent_span_id: str = ""
    attributes: list[_Attribute] = []
    status: dict[str, int] | None = None


class Way(Protocol):
    """The relay, as far as traces need it: its socket, and the headers that it wants."""

    socket: str
    headers: Mapping[str, str]


def read(traceparent: str) -> Context | None:
    """What a request's header says; None where it says nothing that holds.

    Source: W3C Trace Context, 3.2: of a later version what the first has is read, and nothing more.
    """
    found = _PARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace.strip("0") or not parent.strip("0"):
        return None
    return Context(trace, parent, bool(int(flags, 16) & 1))


def begun(share: float) -> Context:
    """A trace that begins here; ``share`` of them are kept, by the trace's own number."""
    number = random.getrandbits(128) or 1
    return Context(f"{number:032x}", "", (number & (1 << 64) - 1) < share * 2**64)


class Traces:
    """Sends calls to the collector at ``place``. ``places`` has where each upstream lies. `start` and `stop` are for
    the event loop."""

    def __init__(self, settings: TracesSettings, place: Place, way: Way, places: Mapping[str, Place]):
        self._settings, self.place, self._way, self._places = settings, place, way, places
        self.exported = self.rejected = self.failed = self.dropped = self.sent_bytes = 0  # spans, but for the last
        self.trouble = ""  # why the last batch came to nothing; empty if it did not
        self._path = f"/{relay.TRACES}/{place.path.rpartition('/')[2]}"
        self._waiting: deque[tuple[Seen, Context]] = deque()
        self._due = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task | None = None
        about = {"service.name": settings.service, "service.version": freehold.__version__}
        about["service.instance.id"] = f"{random.getrandbits(128):032x}"
        self._resource = {"attributes": _attributes(about)}
        self._scope = {"name": "freehold", "version": freehold.__version__}

    def context(self, seen: Seen) -> Context:
        """Where a call stands among traces: where its request says, or in one that begins with it."""
        return read(seen.traceparent) or begun(self._settings.share)

    def see(self, seen: Seen, context: Context) -> None:
        """A call is over: let it wait to be sent, if its trace is kept. Neither waits nor raises."""
        if not context.sampled:
            return
        if len(self._waiting) >= ROOM:
            self.dropped += _spans_of(seen)
            return
        self._waiting.append((seen, context))
        if len(self._waiting) >= BATCH:
            self._due.set()

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send what waits, as far as the collector takes it in time."""
        self._stopping = True
        self._due.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._task, _STOP)
        self.dropped += sum(_spans_of(seen) for seen, _ in self._waiting)
        self._waiting.clear()

    def facts(self) -> dict[str, Any]:
        """What status shows of it."""
        counts = {name: getattr(self, name) for name in ("exported", "rejected", "failed", "dropped")}
        return {"host": self.place.authority, "waiting": len(self._waiting), "why": self.trouble} | counts

    async def _run(self) -> None:
        while not self._stopping or self._waiting:
            if not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), _EVERY)
            self._due.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._send(batch)
                except Exception as error:  # noqa: BLE001 - one batch that nobody foresaw does not end all traces
                    log.fault(error)

    async def _send(self, batch: Sequence[tuple[Seen, Context]]) -> None:
        """Send a batch, again where that may help, and be done with it."""
        spans = [span for seen, context in batch for span in self._spans(seen, context)]
        body = msgspec.json.encode(
            {"resourceSpans": [{"resource": self._resource, "scopeSpans": [{"scope": self._scope, "spans": spans}]}]}
        )
        taken = None
        try:
            for pause in (*_WAITS, None):
                taken, again = await self._try(body)
                if taken is not None or again is None or pause is None or self._stopping:
                    break
                await asyncio.sleep(min(max(pause, again), _LONGEST_WAIT))
        finally:  # also where it is told to stop in the middle
            if taken is None:
                self.failed += len(spans)
            else:
                self.rejected += min(taken, len(spans))
                self.exported += max(len(spans) - taken, 0)

    async def _try(self, body: bytes) -> tuple[int | None, float | None]:
        """One try: how many spans the collector rejected, None where it took none; and after how many seconds another
        is due, None where none is."""
        exchange = wire.Exchange()
        self.sent_bytes += len(body)
        try:
            async with asyncio.timeout(2 * COLLECTOR_SILENCE):
                await exchange.send(self._way.socket, "POST", self._path, body, self._way.headers)
                answer = await exchange.body()
        except (EngineFailed, Overloaded, TimeoutError):
            return self._fault("the relay does not answer", 0.0)
        finally:
            exchange.close()
        if said := exchange.headers.get(relay.SAID):
            return self._fault(f"it {said}", 0.0 if exchange.headers.get(relay.AGAIN) == "1" else None)
        if not 200 <= exchange.status < 300:
            later = _seconds(exchange.headers.get("retry-after", "")) if exchange.status in _AGAIN else None
            return self._fault(f"it answered with status {exchange.status}", later)
        if self.trouble:
            log.note(f"Traces reach {self.place.authority} again.", log.INFO)
            self.trouble = ""
        return _rejected(answer), None

    def _fault(self, why: str, again: float | None) -> tuple[None, float | None]:
        if not self.trouble:
            log.note(f"Traces do not reach {self.place.authority}: {why}. They are dropped; calls go on.")
        self.trouble = why
        return None, again

    def _spans(self, seen: Seen, context: Context) -> list[_Span]:
        """A call's own span, and the model's below it."""
        end = seen.settlement
        first = int(seen.opened_at * 1e9)
        last = first + int(end.total_ms * 1e6)
        path = PATHS[seen.kind]
        server = _span(context, context.parent, f"POST {path}", _SERVER, first, last)
        server.attributes = _of_house(path, end.status, end.error, seen.caller, end.outcome.value) + _attributes(
            {
                "freehold.call.id": seen.id,
                "freehold.waited_seconds": None if end.waited_ms is None else end.waited_ms / 1000,
            }
        )
        if end.status >= 500:
            server.status = _FAILED
        if _spans_of(seen) == 1:
            return [server]
        begins = min(first + int(end.waited_ms * 1e6), last)
        ends = min(begins + int((end.engine_ms or 0.0) * 1e6), last) if end.engine_ms else last
        operation, asked = _OPERATIONS[seen.kind], end.alias or seen.model
        client = _span(context, server.span_id, f"{operation} {asked}", _CLIENT, begins, ends)
        client.attributes = self._said(seen, operation, asked)
        if end.outcome is not Outcome.ANSWERED:
            client.status = _FAILED
        return [server, client]

    def _said(self, seen: Seen, operation: str, asked: str) -> list[_Attribute]:
        """What the conventions have of a call to a model."""
        end, place = seen.settlement, self._places.get(seen.upstream)
        is_stream = end.first_token_ms is not None
        error = "" if end.outcome is Outcome.ANSWERED else end.error or end.outcome.value
        return _of_model(
            operation, _provider(seen.upstream, place), asked, seen.model, end.digest, end.left_the_house, is_stream,
            error, place,
        ) + _attributes(
            {
                "gen_ai.response.time_to_first_chunk": end.first_token_ms / 1000 if is_stream else None,
                "gen_ai.usage.input_tokens": end.usage.prompt, "gen_ai.usage.output_tokens": end.usage.completion,
                "gen_ai.usage.cache_read.input_tokens": end.usage.cached or None,
            }
        )  # fmt: skip


def _spans_of(seen: Seen) -> int:
    """How many spans a call has: one more where it came to its turn."""
    return 1 if seen.settlement.waited_ms is None or not seen.model else 2


def _span(context: Context, parent: str, name: str, kind: int, begins: int, ends: int) -> _Span:
    """A span without its attributes. 64-bit numbers are text in OTLP's JSON, and ids are in hex."""
    own = f"{random.getrandbits(64) or 1:016x}"
    return _Span(context.trace, own, name, kind, str(begins), str(ends), parent)


@lru_cache(maxsize=1024)  # calls of one caller say the same of this, and of their model
def _of_house(path: str, status: int, error: str, caller: str, outcome: str) -> list[_Attribute]:
    """What a call's own span says, but for what it says once."""
    return _in_json(
        {
            "http.request.method": "POST", "http.route": path, "http.response.status_code": status,
            "error.type": error if status >= 500 else None, "freehold.caller": caller, "freehold.outcome": outcome,
        }
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _of_model(
    operation: str, provider: str, asked: str, model: str, digest: str, left: bool, stream: bool, error: str,
    place: Place | None,
) -> list[_Attribute]:  # fmt: skip
    """What a model's span says, but for its counts and times."""
    return _in_json(
        {
            "gen_ai.operation.name": operation, "gen_ai.provider.name": provider, "gen_ai.request.model": asked,
            "gen_ai.response.model": model, "gen_ai.request.stream": True if stream else None,
            "server.address": place.host if place else None, "server.port": place.port if place else None,
            "error.type": error or None, "freehold.model.digest": digest or None, "freehold.left_the_house": left,
        }
    )  # fmt: skip


def _attributes(values: Mapping[str, Any]) -> list[_Attribute]:
    """Attributes as OTLP has them, without those that are None."""
    return [
        {"key": name, "value": {(kind := _KINDS[type(value)]): str(value) if kind == "intValue" else value}}
        for name, value in values.items()
        if value is not None
    ]


def _in_json(values: Mapping[str, Any]) -> list[_Attribute]:
    """The same, in JSON already."""
    return [Raw(msgspec.json.encode(one)) for one in _attributes(values)]


def _provider(upstream: str, place: Place | None) -> str:
    """Whose API answered: this house's, that of somebody whom the conventions know, or else the upstream's name
    here."""
    if place is None:
        return upstream or "freehold"
    host = place.host.lower()
    return next((name for end, name in _PROVIDERS if host == end or host.endswith(f".{end}")), upstream)


def _rejected(answer: bytes) -> int:
    """How many spans a collector that took the others says it rejected."""
    try:
        partial = msgspec.json.decode(answer or b"{}").get("partialSuccess") or {}
        return max(int(partial.get("rejectedSpans", 0)), 0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, AttributeError, ValueError, TypeError):
        return 0  # it took them, whatever it says


def _seconds(retry_after: str) -> float:
    """Retry-After in seconds; 0 where it is anything else."""
    return float(retry_after[:6]) if retry_after.isascii() and retry_after.isdigit() else 0.0
