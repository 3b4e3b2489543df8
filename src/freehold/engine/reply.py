"""One call's answer as llama.cpp's server gives it: relayed or put together, counted, and ended when it is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from freehold.engine import assemble, messages, opening, sse, wire
from freehold.engine.dialect import PATHS, is_streamed, refusal
from freehold.engine.meter import Meter
from freehold.errors import EngineFailed
from freehold.types import Kind, Request, Usage


class _Params(Struct, frozen=True):
    n_predict: int = -1


class _NextToken(Struct):
    n_decoded: int = 0


class AtWork(Struct):
    """A slot, as the engine's /slots tells of it."""

    is_processing: bool = False
    n_prompt_tokens_processed: int = 0
    n_prompt_tokens_cache: int = 0
    params: _Params = _Params()
    next_token: list[_NextToken] = []


read_slots = msgspec.json.Decoder(list[AtWork]).decode


class Asked(Protocol):
    """What a reply needs of its engine."""

    async def send(self, exchange: wire.Exchange, method: str, path: str, content: bytes) -> None:
        """Put a request to the engine's process; the head of its response is there when this returns."""

    async def count_prompt(self, content: bytes) -> int:
        """The tokens of a prompt of /v1/messages."""

    async def at_work(self) -> list[AtWork]:
        """The engine's own list of its slots."""


class _Named:
    """Puts the name of the model that was called where the engine says its own: it says that of its base, whichever
    adapter answers. Inside of strings quotes are escaped, so that nothing which the model itself says looks like it."""

    __slots__ = ("_own", "_said", "_tail")

    def __init__(self, said: str, own: str):
        self._said, self._own = (b'"model":' + msgspec.json.encode(name) for name in (said, own))
        self._tail = b""

    def whole(self, answer: bytes) -> bytes:
        """Of a whole answer."""
        return answer.replace(self._said, self._own)

    def read(self, piece: bytes) -> bytes:
        """Of the lines that these bytes complete."""
        lines, newline, self._tail = (self._tail + piece).rpartition(b"\n")
        return self.whole(lines + newline)

    def rest(self) -> bytes:
        """What no line end came after."""
        rest, self._tail = self._tail, b""
        return rest


class LlamaReply:
    """A `base.Reply` over one exchange. ``spoken`` is the model that the engine says it is, where another may have been
    called; ``turned``, that a message is asked as a chat."""

    __slots__ = (
        "_begun", "_content", "_ended", "_engine", "_events", "_exchange", "_first", "_meter", "_named", "_request",
        "_turn", "_whole", "media_type",
    )  # fmt: skip
    left_the_house = False

    def __init__(
        self, engine: Asked, request: Request, content: bytes, on_done: Callable[[], None], *, spoken: str = "",
        turned: bool = False,
    ):  # fmt: skip
        self._named = _Named(spoken, request.model) if spoken not in ("", request.model) and not turned else None
        self._turn = messages.Turn(request.model, request.body.get("stop_sequences", ())) if turned else None
        self._engine, self._request, self._content = engine, request, content
        self._exchange = wire.Exchange(on_done)
        self._meter, self._events = Meter(), sse.Events()
        self._begun, self._first, self._ended = False, True, False
        self._whole: assemble.Whole | None = None  # of what comes as a stream and is asked for whole
        self.media_type = ""

    @property
    def usage(self) -> Usage:
        """The engine's counts so far."""
        return self._meter.usage

    @property
    def complete(self) -> bool:
        """Do the bytes that have passed make a whole answer?"""
        return self._meter.complete if self._turn is None else self._turn.complete

    @property
    def failure(self) -> str:
        """What the engine said went wrong in mid-stream."""
        return self._meter.failure

    async def read(self) -> bytes:
        """See `base.Reply.read`."""
        if not self._begun:
            await self._begin()
        if self._whole is not None:
            return await self._put_together()
        if not is_streamed(self._request):
            if answer := await self._exchange.body():
                self._meter.read_answer(answer)
            return answer
        if self._turn is not None:
            return await self._turned()
        piece = await self._piece()
        if self._first:
            self._first = False
            piece = await self._with_opening(piece)
        self._count(piece)
        return piece

    async def close(self) -> None:
        """See `base.Reply.close`."""
        try:
            if self._begun and not self.complete and is_streamed(self._request):
                self._count(self._exchange.drain())
                if self._request.kind is Kind.MESSAGE and self._turn is None and self.media_type and not self.complete:
                    await self._recount()
        finally:
            self._exchange.close()

    async def _begin(self) -> None:
        """Put the request to the engine, and see whether it takes it."""
        self._begun = True
        path = PATHS[self._request.kind if self._turn is None else Kind.CHAT]
        await self._engine.send(self._exchange, "POST", path, self._content)
        if self._exchange.status != 200:
            raise refusal(self._exchange.status, await self._exchange.body())
        self.media_type = self._exchange.media_type
        if is_streamed(self._request) and not self._request.stream:
            self._whole = assemble.WHOLES[self._request.kind]()
            self.media_type = "application/json"

    async def _piece(self) -> bytes:
        """The next bytes of the stream, in the name of the model that was called."""
        if self._named is None:
            return await self._exchange.read()
        while piece := await self._exchange.read():
            if lines := self._named.read(piece):
                return lines
        return self._named.rest()

    async def _turned(self) -> bytes:
        """The next events of a message that was asked as a chat; what is said of the chat itself stays here."""
        return messages.encode(await self._turn_on())

    async def _turn_on(self) -> list[dict[str, Any]]:
        while not self._turn.complete and (piece := await self._exchange.read()):
            events = self._events.read(piece)
            self._meter.read(events)
            try:
                made = self._turn.take(events)
            except msgspec.MsgspecError as error:
                raise EngineFailed(f"The engine said what is no chat: {error}.") from None
            if made:
                return made
        return []

    async def _put_together(self) -> bytes:
        """The whole answer, once."""
        if self._ended:
            return b""
        self._ended = True
        if self._turn is not None:
            return await self._put_message_together()
        body = await self._exchange.body()
        body = body if self._named is None else self._named.whole(body)
        events = self._events.read(await self._with_opening(body))
        self._meter.read(events[-2:] if self._tells_all_at_its_end() else events)
        if self._meter.failure or not self._meter.complete:
            raise EngineFailed(f"The engine broke off: {self._meter.failure or 'its answer is not complete'}.")
        for event in events:
            if event != sse.DONE:
                self._whole.take(msgspec.json.decode(event))
        return msgspec.json.encode(self._whole.document(self._meter.usage))

    async def _put_message_together(self) -> bytes:
        while made := await self._turn_on():
            for event in made:
                self._whole.take(event)
        if self._meter.failure or not self._turn.complete:
            raise EngineFailed(f"The engine broke off: {self._meter.failure or 'its answer is not complete'}.")
        return msgspec.json.encode(self._whole.document(self._meter.usage))

    def _count(self, piece: bytes) -> None:
        """Count the events in the next bytes of the stream."""
        self._meter.read(self._events.read(piece))

    def _tells_all_at_its_end(self) -> bool:
        """Does the last event before [DONE] hold the counts of the whole stream?"""
        return self._request.kind in (Kind.CHAT, Kind.COMPLETION) and self._request.body.get("n", 1) == 1

    async def _with_opening(self, piece: bytes) -> bytes:
        """The first bytes of a stream, with the opening event if the engine left it out."""
        if not opening.is_missing(self._request, piece):
            return piece
        return opening.event(self._request, piece, await self._count_prompt()) + piece

    async def _count_prompt(self) -> int:
        return await self._engine.count_prompt(self._content) if self._request.kind is Kind.MESSAGE else 0

    async def _recount(self) -> None:
        """The count of a message that was left. /v1/messages says it at its end alone, and an event may stand for
        several tokens; until the exchange is closed its slot knows. Ours has this prompt and this limit, and where
        several have, it is the one that is nearest to what was seen."""
        seen = self._meter.usage
        counts = [
            sum(token.n_decoded for token in slot.next_token)
            for slot in await self._engine.at_work()
            if slot.is_processing
            and slot.params.n_predict == self._request.body["max_tokens"]
            and slot.n_prompt_tokens_processed + slot.n_prompt_tokens_cache in (seen.prompt, 0)
        ]
        self._count(self._exchange.drain())  # what came while we asked
        counts = [count for count in counts if count >= seen.completion]
        self._meter.set_completion(max(min(counts, default=0), self._meter.usage.completion))
