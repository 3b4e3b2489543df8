"""Upstreams as engines: the gateway's half, which has no network and reaches them through the relay's Unix socket.

`Relay` is the child process, started before the gateway is sealed; `RemoteEngine` one upstream with all its models;
`RemoteReply` one call: put to the upstream, again where nothing of an answer has come, counted, and passed on as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import msgspec

from freehold.config import Settings
from freehold.engine import passage, relay, wire
from freehold.engine.breaker import OPEN, Breaker
from freehold.engine.dialect import PATHS
from freehold.engine.meter import UpstreamMeter
from freehold.engine.outward import Way
from freehold.engine.upstream import REMOTE, Place, Upstream, allowed, collector
from freehold.errors import (
    BadConfig,
    EngineFailed,
    EngineUnready,
    FreeholdError,
    Overloaded,
    SealMissing,
    Unsupported,
    UpstreamRefused,
)
from freehold.types import EngineState, Kind, Layer, Manifest, Request, UpstreamState, Usage

KINDS = (Kind.CHAT, Kind.COMPLETION, Kind.EMBEDDING, Kind.RESPONSE)
_LATER = frozenset({429, 500, 502, 503, 504})  # worth another try
_KEY_FAULT = frozenset({401, 403, 407})  # ours, and not the client's
_WAIT, _LONGEST_WAIT, _ALL_WAITS = 0.5, 20.0, 45.0  # seconds before a further try: the first, any, and all together
COLLECTOR_SILENCE, _COLLECTOR_CONNECTS = 10.0, 5.0  # seconds
_START, _STOP = 30.0, 5.0  # seconds
_LINGER = 0.25  # seconds
_STREAM = "text/event-stream"
_MESSAGE = 2000  # letters of an upstream's own message
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")


class Relay:
    """The relay's process. `listen` is called once there is a loop."""

    def __init__(self, order: relay.Order):
        self.socket = order.socket
        self.headers = {"Authorization": f"Bearer {order.token}"}
        self.layers: tuple[Layer, ...] = ()
        self.worker: int | None = None
        self.restarts = -1
        self.is_gone = False
        self._failed = ""
        self._tail = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "freehold.engine.relay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}, cwd="/",
        )  # fmt: skip
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    @property
    def state(self) -> str:
        """What it is doing, in a word."""
        return "gone" if self.is_gone else "ready"

    def listen(self) -> None:
        """Hear what it says from now on."""
        asyncio.get_running_loop().add_reader(self._process.stdout, self._hear)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START
        while self.worker is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise BadConfig(f"The relay did not start within {_START:g} s.", hint="See its words above.")
            self._hear()
            if self._failed.startswith(relay.SEAL_REQUIRED):
                raise SealMissing(f"{self._failed}.", hint='Run on a kernel that has them, or set seal = "best".')
            if self._failed or self.is_gone:
                said = self._failed or "The relay to the upstreams ended before it began."
                raise BadConfig(said, hint="Look at [upstreams] and [traces] in freehold.toml.")

    def _hear(self) -> None:
        heard = os.read(self._process.stdout.fileno(), 1 << 16)
        if not heard:
            self.is_gone, self.worker = True, None
            with contextlib.suppress(RuntimeError):  # there is no loop yet
                asyncio.get_running_loop().remove_reader(self._process.stdout)
            return
        *lines, self._tail = (self._tail + heard).split(b"\n")
        for line in lines:
            word = msgspec.json.decode(line, type=relay.Word)
            self.layers = word.layers or self.layers
            self._failed = word.failed or self._failed
            if word.worker is not None:
                self.worker = word.worker
                self.restarts += 1


@contextlib.contextmanager
def relaying(upstreams: Sequence[Upstream], settings: Settings, folder: Path) -> Iterator[Relay | None]:
    """The relay to the upstreams and to where traces go, for as long as the block lasts; None where there are none.

    Raises:
        BadConfig: a key or a CA cannot be read.
        SealMissing: the seal is required, and the kernel lacks a layer.
    """
    traces = collector(settings)
    if not upstreams and traces is None:
        yield None
        return
    order = relay.Order(
        ways=(*(_way(upstream) for upstream in upstreams), *([_to_collector(settings, traces)] if traces else [])),
        hosts=tuple(sorted(allowed(settings.upstream_hosts))),
        socket=str(folder / "relay.sock"), token=secrets.token_urlsafe(32), seal=settings.seal,
        logs=settings.logs.format,
    )  # fmt: skip
    for upstream in upstreams:  # nothing else that is started inherits a key
        os.environ.pop(upstream.settings.key_env, None)
    with contextlib.closing(Relay(order)) as running:
        del order
        yield running


def _to_collector(settings: Settings, place: Place) -> Way:
    """What the relay is told of where traces go. The last word of its path is asked for, as an upstream's paths are."""
    own = settings.traces
    return Way(
        name=relay.TRACES, scheme=place.scheme, host=place.host, port=place.port, path=place.path.rpartition("/")[0],
        key_file=str(Path(own.key_file).expanduser().absolute()) if own.key_file else "", key="", ca=own.ca,
        connect_seconds=_COLLECTOR_CONNECTS, silence_seconds=COLLECTOR_SILENCE, answer_bytes=1 << 20,
    )  # fmt: skip


def _way(upstream: Upstream) -> Way:
    """What the relay is told of an upstream."""
    own, place = upstream.settings, upstream.place
    key = os.environ.get(own.key_env, "").strip() if own.key_env else ""
    if own.key_env and not key:
        raise BadConfig(f"{own.key_env}, the key_env of the upstream {upstream.name!r}, is not set.", hint="Set it.")
    return Way(
        name=upstream.name, scheme=place.scheme, host=place.host, port=place.port, path=place.path,
        key_file=str(Path(own.key_file).expanduser().absolute()) if own.key_file else "", key=key, ca=own.ca,
        connect_seconds=own.connect_seconds, silence_seconds=own.silence_seconds, answer_bytes=own.answer_bytes,
    )  # fmt: skip


class RemoteEngine:
    """One upstream. It needs no memory, and is ready as long as the relay is there."""

    kind = REMOTE
    need = 0

    def __init__(self, upstream: Upstream, relay: Relay):
        self.upstream, self.relay = upstream, relay
        self.model, self.slots = upstream.manifest, upstream.settings.calls
        self.breaker = Breaker(upstream.settings.breaker_failures, upstream.settings.breaker_seconds)
        self.sent = self.answering = self.sent_bytes = 0

    @property
    def ready(self) -> bool:
        """Always: whoever comes hears at once what is wrong."""
        return True

    async def start(self, on_ready: Callable[[], None]) -> None:
        """Nothing is to be brought up."""
        on_ready()

    async def stop(self) -> None:
        """Nothing is to be taken down; the relay is the house's."""

    def state(self) -> EngineState:
        """Where it is in its life."""
        state = "cut off" if self.relay.is_gone else "ready"
        return EngineState(
            self.model.name, "", self.kind, state, None, self.relay.restarts, 0, self.slots, purpose="upstream"
        )

    def view(self) -> UpstreamState:
        """What status shows of it."""
        return UpstreamState(
            self.model.name, self.upstream.place.authority, tuple(sorted(self.upstream.models)), self.breaker.state,
            self.breaker.failures, self.sent, self.answering, self.sent_bytes,
        )  # fmt: skip

    def check(self, request: Request) -> None:
        """See `base.Engine.check`."""
        if request.kind not in KINDS:
            raise Unsupported(
                f"{request.model!r} is at the upstream {self.model.name!r}, which speaks OpenAI's format alone.",
                hint="Call it on /v1/chat/completions.",
            )

    def serves(self, model: Manifest) -> bool:
        """See `base.Engine.serves`. Which models it has is the upstream's business."""
        return True

    def ask(self, request: Request, model: Manifest, on_done: Callable[[], None]) -> RemoteReply:
        """See `base.Engine.ask`."""
        self.check(request)
        self.check_open()
        theirs, count = self.upstream.models[request.model], self.upstream.settings.count_streams
        content, asked = passage.outgoing(request, theirs, count=count)
        return RemoteReply(self, request.kind, content, on_done, taking=asked)

    def check_open(self) -> None:
        """Raises EngineUnready if a call would be of no use now."""
        if self.relay.is_gone:
            raise EngineUnready("The relay to the upstreams is gone.", hint="Start Freehold again; its log says why.")
        if wait := self.breaker.wait():
            raise EngineUnready(
                f"{self.words} has failed {self.breaker.failures} times in a row, and is left alone for a while.",
                hint="Send the request again when Retry-After has passed.",
                retry_after=max(round(wait + 0.5), 1),
            )

    @property
    def words(self) -> str:
        """It, at the beginning of a sentence."""
        return f"The upstream {self.model.name!r} ({self.upstream.place.authority})"


class RemoteReply:
    """A `base.Reply` out of another house."""

    __slots__ = (
        "_begun", "_content", "_counted", "_ended", "_engine", "_exchange", "_meter", "_on_done", "_path", "_stream",
        "_well_ended", "left_the_house", "media_type",
    )  # fmt: skip

    def __init__(self, engine: RemoteEngine, kind: Kind, content: bytes, on_done: Callable[[], None], *, taking: bool):
        self._engine, self._content, self._on_done = engine, content, on_done
        self._path = f"/{engine.model.name}{PATHS[kind].removeprefix('/v1')}"
        self._exchange: wire.Exchange | None = None
        self._meter = UpstreamMeter()
        self._stream = passage.Stream(self._meter, taking=taking)
        self._begun = self._ended = self._well_ended = self._counted = False
        self.left_the_house = False
        self.media_type = ""

    @property
    def usage(self) -> Usage:
        """The upstream's counts so far."""
        return self._meter.usage

    @property
    def complete(self) -> bool:
        """Do the bytes that have passed make a whole answer?"""
        return self._well_ended or self._meter.complete

    @property
    def failure(self) -> str:
        """What the upstream said went wrong in mid-stream."""
        return self._meter.failure

    async def read(self) -> bytes:
        """See `base.Reply.read`."""
        if not self._begun:
            await self._begin()
        if self._ended:
            return b""
        if self.media_type != _STREAM:
            return await self._whole()
        while piece := await self._piece():
            if passed := self._stream.read(piece):
                return passed
        self._end()
        return self._stream.rest()

    async def close(self) -> None:
        """See `base.Reply.close`."""
        if self._counted:
            self._counted = False
            self._engine.answering -= 1
            self._engine.sent += self.left_the_house
            self._engine.breaker.leave()
        if self._exchange is not None:
            self._exchange.close()

    async def _begin(self) -> None:
        """Put the request to the upstream until it answers, or no further try is due."""
        self._engine.check_open()
        self._begun = self._counted = True
        self._engine.answering += 1
        waited = 0.0
        for number in range(self._engine.upstream.settings.retries + 1):
            failure, again, asked_for = await self._try()
            if failure is None:
                return
            wait = max(random.uniform(0.5, 1.0) * _WAIT * 2**number, asked_for)
            last = number == self._engine.upstream.settings.retries or self._engine.breaker.state == OPEN
            if last or not again or wait > _LONGEST_WAIT or waited + wait > _ALL_WAITS:
                raise failure
            await asyncio.sleep(wait)
            waited += wait

    async def _try(self) -> tuple[FreeholdError | None, bool, float]:
        """One try: what came of it if not an answer, whether another is due, and after how many seconds at least."""
        breaker, before = self._engine.breaker, self.left_the_house
        breaker.enter()
        self.left_the_house = True  # unless the relay says that it did not
        self._exchange = exchange = wire.Exchange(self._done)
        try:
            await exchange.send(
                self._engine.relay.socket, "POST", self._path, self._content, self._engine.relay.headers
            )
        except (EngineFailed, Overloaded):
            exchange.close()
            breaker.leave()
            return self._failed("could not be asked: the relay broke off"), True, 0.0
        finally:  # whatever became of it, it may have left
            if exchange.headers.get(relay.SENT) != "0":
                self._engine.sent_bytes += len(self._content)
        if said := exchange.headers.get(relay.SAID):
            self.left_the_house = before or exchange.headers.get(relay.SENT) != "0"
            exchange.close()
            breaker.failed()
            return self._failed(said), exchange.headers.get(relay.AGAIN) == "1", 0.0
        return await self._judge(exchange)

    async def _judge(self, exchange: wire.Exchange) -> tuple[FreeholdError | None, bool, float]:
        """What the head of an answer means."""
        status, breaker = exchange.status, self._engine.breaker
        if status < 300:
            self.media_type = exchange.media_type.strip().lower()
            if self.media_type == _STREAM or self.media_type.endswith("json"):
                breaker.answered()
                return None, False, 0.0
            exchange.close()
            breaker.failed()
            return self._failed(f"answered with {self.media_type or 'no stated type'} where JSON was due"), False, 0.0
        try:
            body = await exchange.body()
        except EngineFailed:
            body = b""
        exchange.close()
        if status >= 500 or status < 400:
            breaker.failed()
        else:
            breaker.succeeded()
        asked_for = _seconds(exchange.headers.get("retry-after", ""))
        return self._refusal(status, body, asked_for), status in _LATER, asked_for

    def _refusal(self, status: int, body: bytes, asked_for: float) -> FreeholdError:
        """The error that an upstream's own stands for."""
        if status < 400:
            return self._failed(f"answered with a redirect ({status}), and none is followed", "Mend its url.")
        if status in _KEY_FAULT:
            said = f"does not take the key that this house has for it (status {status})"
            return self._failed(said, "Whoever runs Freehold: look at its key_file or key_env.")
        message, code, param = _error(body)
        retry_after = min(round(asked_for + 0.5), 86400) if asked_for else (1 if status == 429 else None)
        if status >= 500:
            said = f"answered with status {status}{': ' + message if message else ''}"
            return self._failed(said, retry_after=retry_after)
        message = message or f"{self._engine.words} refused the request with status {status} and no reason."
        return UpstreamRefused(message, status=status, code=code, param=param, retry_after=retry_after)

    async def _whole(self) -> bytes:
        """The whole answer, once."""
        try:
            answer = await self._exchange.body()
        except EngineFailed:
            raise self._broken("could not be heard to its end: the relay broke off") from None
        if said := self._exchange.headers.get(relay.SAID):
            raise self._broken(said)
        try:
            msgspec.json.decode(answer, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise self._broken("answered with something that is no JSON object, or not a whole one") from None
        self._meter.read_answer(answer)
        self._ended = self._well_ended = True
        self._engine.breaker.succeeded()
        return answer

    async def _piece(self) -> bytes:
        """The next bytes. Behind a whole answer they are not waited for: an upstream may leave its connection open."""
        try:
            if not self._meter.complete:
                return await self._exchange.read()
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._exchange.read(), _LINGER)
            return b""
        except EngineFailed:
            raise self._broken("could not be heard to its end: the relay broke off") from None

    def _end(self) -> None:
        """The end of a stream: was it one?"""
        self._ended = True
        if not self._meter.complete:
            if said := self._exchange.headers.get(relay.SAID):
                raise self._broken(said)
            if relay.END in self._exchange.headers:
                raise self._broken("broke off its answer")
        self._well_ended = True
        self._engine.breaker.succeeded()

    def _done(self) -> None:
        """The relay has said its last: the slot is free, unless another try may follow."""
        if self._exchange.status < 300:
            self._on_done()

    def _broken(self, said: str) -> EngineFailed:
        self._engine.breaker.failed()
        return self._failed(said)

    def _failed(self, said: str, hint: str = "", retry_after: int | None = None) -> EngineFailed:
        return EngineFailed(f"{self._engine.words} {said}.", hint=hint, retry_after=retry_after)


def _seconds(retry_after: str) -> float:
    """Retry-After, which is a number of seconds or a date (RFC 9110, 10.2.3); 0 for neither."""
    try:
        return max(float(int(retry_after[:12])), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _error(body: bytes) -> tuple[str, str, str | None]:
    """The message, the code and the field that an error's body names, as far as it does."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", "", None
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, str):
        return error[:_MESSAGE], "", None
    if not isinstance(error, dict):
        return "", "", None
    message, code, param = (error.get(name) for name in ("message", "code", "param"))
    known = isinstance(code, str) and len(code) <= 64 and code.replace("_", "").isalnum() and code.isascii()
    return (
        message[:_MESSAGE] if isinstance(message, str) else "",
        code if known else "",
        param[:200] if isinstance(param, str) else None,
    )
