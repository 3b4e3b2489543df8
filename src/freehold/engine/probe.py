"""An engine asked directly, for what only tuning needs: what a model reads, as text and as tokens, how likely it holds
what follows, and its answers, with an adapter or without.

It is the engine that serves: the same sealed child, template, dialect and settings, so that what is trained against is
what will be asked. Only there is no server before it, and it may be asked from plain synchronous code:

    with Probe(model, file, metadata, folder, settings, seal, adapters=[path]) as probe:
        ids = probe.prompt_tokens(request)
        said = probe.score([Passage(ids, answer)], adapter=0)

**Log-probabilities.** llama.cpp's server says those of tokens that it draws, and none of a prompt. So a given token is
made to be drawn: one call a position, with a bias on that token. What is said of it is read off the model's own scores,
before any bias, and the call's whole prompt but its last token is still in the slot, so a call costs what one token of
an answer costs. The values are, bit for bit, those of an answer in which the tokens came by themselves
(`tests/test_probe.py`). Calls go one after the other, because batches are rounded otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct

from freehold.config import EngineSettings
from freehold.engine import assemble, sse, turns, wire
from freehold.engine.dialect import PATHS, refusal
from freehold.engine.llamacpp import LlamaCpp
from freehold.engine.meter import Meter
from freehold.errors import BadModel, BadRequest, EngineFailed, EngineUnready, FreeholdError
from freehold.types import Kind, Manifest, Request, Usage

_FORCE = 1e5  # added to a token's score, so that no other is drawn; scores are tens at most
LEAST = -80.0  # nats: below it the engine's float32 probabilities run out of bits
LIKELIEST = 20  # tokens that are told of at each position
_ALL = 1 << 24  # more than any vocabulary has
_NOTICED = 0.5  # seconds within which it is known that the child is gone
_COUNTS = {
    Kind.CHAT: "/v1/chat/completions/input_tokens",
    Kind.RESPONSE: "/v1/responses/input_tokens",
    Kind.MESSAGE: PATHS[Kind.COUNT],
}


class Passage(Struct, frozen=True):
    """Token ids: what is read, and what follows it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


class Position(Struct, frozen=True):
    """One place in an answer: the token that stands there, its log-probability in nats (never below `LEAST`), and the
    likeliest tokens there with theirs, the best first."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


class _Likely(Struct):
    id: int
    logprob: float


class _Told(Struct):
    """What the engine says of a token that was drawn."""

    id: int
    logprob: float
    top_logprobs: list[_Likely]

    def best(self) -> tuple[tuple[int, float], ...]:
        return tuple((one.id, max(one.logprob, LEAST)) for one in self.top_logprobs[:LIKELIEST])


class _Completion(Struct):
    completion_probabilities: list[_Told] = []


_decode_completion = msgspec.json.Decoder(_Completion).decode


class Answered(Struct, frozen=True):
    """What came of one request: the endpoint's document (a chat's, for every conversation), or why there is none."""

    document: dict[str, Any] | None
    usage: Usage = Usage()
    error: str = ""


class Probe:
    """One model's engine, up for as long as the ``with`` block lasts.

    ``metadata`` is what the model's file says of itself; ``folder`` is where the socket goes; ``adapters`` are files,
    and ``adapter`` in what follows is a place in that list, or None for the model itself.

    Raises, on entering:
        BadModel: the model or an adapter will not load.
        SealMissing: the seal is required, and the kernel lacks a part.
    """

    def __init__(
        self, model: Manifest, file: Path, metadata: Mapping[str, Any], folder: Path, settings: EngineSettings,
        seal: str, *, adapters: Sequence[Path] = (),
    ):  # fmt: skip
        named = [(_adapter(model, number), path) for number, path in enumerate(adapters)]
        self._engine = LlamaCpp(model, file, metadata, folder, settings, seal, adapters=named)
        self._adapters, self._patience = len(adapters), settings.start_seconds
        self._letter: int | None = None
        self._runner = asyncio.Runner()

    def __enter__(self) -> Probe:
        try:
            self._runner.run(self._engine.start(lambda: None))
            self._need_adapters()
        except BaseException:
            with self._runner:
                self._runner.run(self._engine.stop())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self._engine.stop())

    def _need_adapters(self) -> None:
        """An engine that serves goes on without an adapter that it cannot load; here nothing is left to ask then."""
        loaded = len(self._engine.state().adapters)
        if loaded < self._adapters:
            raise BadModel(
                f"The engine could not load {self._adapters - loaded} of {self._adapters} adapters, as its log says.",
                hint="An adapter fits the architecture, the layers and the sizes of the one base it was trained on.",
            )

    @property
    def context(self) -> int:
        """The tokens that one call may use, prompt and answer."""
        return self._engine.context

    @property
    def slots(self) -> int:
        """Calls that are answered at once."""
        return self._engine.slots

    def prompt(self, request: Request) -> str:
        """The text that the model reads when it is asked this: the request in the engine's dialect, in the model's
        template. Raises BadRequest, Unsupported: it would not be answered."""
        return self._runner.run(self._prompt(request))

    def prompt_tokens(self, request: Request) -> tuple[int, ...]:
        """`prompt` in tokens, as many as the engine itself counts. Raises EngineFailed where it counts others."""
        return self._runner.run(self._prompt_tokens(request))

    def fill(self, **body: Any) -> str:
        """The model's template, filled with ``messages=[...]`` and whatever else /apply-template takes."""
        return self._runner.run(self._fill(body))

    def tokens(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """A text's tokens; names of special tokens in it are those tokens. ``special`` adds what the model has at the
        beginning of a prompt."""
        return self._runner.run(self._tokens(text, special))

    def text(self, tokens: Iterable[int]) -> str:
        """The text of these tokens."""
        return self._runner.run(self._post("/detokenize", {"tokens": list(tokens)}))["content"]

    def score(
        self,
        passages: Iterable[Passage],
        *,
        adapter: int | None = None,
        tell: Callable[[int], None] = lambda done: None,
    ) -> list[list[Position]]:
        """How likely the model holds each token of each answer. ``tell`` is told how many positions are done.

        Raises:
            ContextExceeded: a passage is longer than the context.
            EngineFailed: the engine died.
        """
        return self._runner.run(self._score(passages, adapter, tell))

    def continued(self, prompt: Sequence[int], most: int, *, adapter: int | None = None) -> tuple[int, ...]:
        """The likeliest tokens after these, one after the other, until one ends the answer (it is the last of them) or
        there are ``most``."""
        body = self._own(adapter) | {"prompt": list(prompt), "n_predict": most, "return_tokens": True}
        return tuple(self._runner.run(self._post("/completion", body))["tokens"])

    def answers(
        self, requests: Iterable[Request], *, adapter: int | None = None, at_once: int = 0,
        tell: Callable[[int], None] = lambda done: None,
    ) -> list[Answered]:  # fmt: skip
        """What the model answers, several requests at a time (``at_once``; 0: as many as there are slots), in the order
        of the requests. One that is refused, or fails, has its reason in its place."""
        return self._runner.run(self._answers(list(requests), adapter, at_once or self.slots, tell))

    async def _prompt(self, request: Request) -> str:
        body = self._body(request)
        if request.kind is not Kind.COMPLETION:
            return await self._fill(turns.as_chat(request.kind, body))
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise BadRequest("The prompt is not one text.")
        return prompt

    async def _prompt_tokens(self, request: Request) -> tuple[int, ...]:
        tokens = await self._tokens(await self._prompt(request), special=True)
        if path := _COUNTS.get(request.kind):
            counted = (await self._post(path, self._body(request)))["input_tokens"]
            if counted != len(tokens):
                raise EngineFailed(
                    f"The engine reads a request in {counted} tokens and shows {len(tokens)}.",
                    hint="What would be trained on is not what will be asked. Please report the request's form.",
                )
        return tokens

    async def _fill(self, body: dict[str, Any]) -> str:
        return (await self._post("/apply-template", body))["prompt"]

    async def _tokens(self, text: str, special: bool) -> tuple[int, ...]:
        body = {"content": text, "add_special": special, "parse_special": True}
        return tuple((await self._post("/tokenize", body))["tokens"])

    async def _score(
        self, passages: Iterable[Passage], adapter: int | None, tell: Callable[[int], None]
    ) -> list[list[Position]]:
        scored: list[list[Position]] = []
        done = 0
        for passage in passages:
            scored.append([])
            for place, token in enumerate(passage.answer):
                read = [*passage.prompt, *passage.answer[:place]]
                scored[-1].append(await self._position(read, token, adapter))
                done += 1
                tell(done)
        return scored

    async def _position(self, read: list[int], token: int, adapter: int | None) -> Position:
        told = await self._drawn(read, token, adapter, LIKELIEST)
        if told is not None:
            return Position(token, max(told.logprob, LEAST), told.best())
        # It begins a character that other tokens end, and the server says nothing of such a token until they have come.
        # So another is drawn, and this one looked up among all.
        told = await self._drawn(read, await self._whole_character(), adapter, _ALL)
        logprob = next((one.logprob for one in told.top_logprobs if one.id == token), None)
        if logprob is None:
            raise EngineFailed(f"The engine says nothing of the token {token}.")
        return Position(token, max(logprob, LEAST), told.best())

    async def _drawn(self, read: list[int], token: int, adapter: int | None, count: int) -> _Told | None:
        """What the engine says of a token that it is made to draw, and of so many others; None if it says nothing."""
        wanted = {"prompt": read, "n_predict": 1, "n_probs": count, "logit_bias": [[token, _FORCE]]}
        content = msgspec.json.encode(self._own(adapter) | wanted)
        found = _decode_completion(await self._ask("/completion", content)).completion_probabilities
        if found and found[0].id != token:
            raise EngineFailed(f"The engine was to say the token {token} and said {found[0].id}.")
        return found[0] if found else None

    async def _whole_character(self) -> int:
        """Some token that is a character, or several."""
        if self._letter is None:
            self._letter = (await self._tokens("a", special=False))[-1]
        return self._letter

    def _own(self, adapter: int | None) -> dict[str, Any]:
        """What calls of our own to /completion have in common. The slot is always the same: it holds the prompt."""
        return self._with(adapter) | {"temperature": 0, "id_slot": 0, "post_sampling_probs": False}

    def _with(self, adapter: int | None) -> dict[str, Any]:
        """Which adapter answers. A call that names none would be answered from what another left in its slot."""
        if adapter is not None and not 0 <= adapter < self._adapters:
            raise IndexError(f"there is no adapter {adapter}")
        chosen = [{"id": number, "scale": float(number == adapter)} for number in range(self._adapters)]
        return {"cache_prompt": True} | ({"lora": chosen} if chosen else {})

    async def _answers(
        self, requests: list[Request], adapter: int | None, at_once: int, tell: Callable[[int], None]
    ) -> list[Answered]:
        room, done = asyncio.Semaphore(at_once), 0

        async def one(request: Request) -> Answered:
            nonlocal done
            async with room:
                try:
                    answered = await self._answer(request, adapter)
                except FreeholdError as error:
                    answered = Answered(None, error=error.message)
            done += 1
            tell(done)
            return answered

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
        return [task.result() for task in tasks]

    async def _answer(self, request: Request, adapter: int | None) -> Answered:
        kind = request.kind if request.kind is Kind.COMPLETION else Kind.CHAT
        body = self._body(request)
        chat = body if kind is Kind.COMPLETION else turns.as_chat(request.kind, body)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        content = msgspec.json.encode(chat | self._with(adapter) | options)
        whole, meter = assemble.WHOLES[kind](), Meter()
        events = sse.Events().read(await self._ask(PATHS[kind], content))
        meter.read(events)
        if meter.failure or not meter.complete:
            raise EngineFailed(f"The engine broke off: {meter.failure or 'its answer is not complete'}.")
        for event in events:
            if event != sse.DONE:
                whole.take(msgspec.json.decode(event))
        return Answered(whole.document(meter.usage), meter.usage)

    def _body(self, request: Request) -> dict[str, Any]:
        """The request as the gateway would send it: a field that is null is one that is not there."""
        stated = {name: value for name, value in request.body.items() if value is not None}
        return self._engine.body(msgspec.structs.replace(request, body=stated | {"model": request.model}))

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        return msgspec.json.decode(await self._ask(path, msgspec.json.encode(body)))

    async def _ask(self, path: str, content: bytes) -> bytes:
        """A question, asked once more where the engine broke off: nothing that is asked here changes anything."""
        try:
            return await self._ask_once(path, content)
        except EngineFailed:
            await asyncio.sleep(_NOTICED)
            return await self._ask_once(path, content)

    async def _ask_once(self, path: str, content: bytes) -> bytes:
        await self._up()
        exchange = wire.Exchange()
        try:
            await self._engine.send(exchange, "POST", path, content)
            answer = await exchange.body()
            if exchange.status != 200:
                raise refusal(exchange.status, answer)
            return answer
        finally:
            exchange.close()

    async def _up(self) -> None:
        """An engine that died is being restarted, and is waited for."""
        waited = 0.0
        while not self._engine.ready:
            if waited > self._patience:
                raise EngineUnready(f"The engine of {self._engine.model.name} does not come back.")
            await asyncio.sleep(0.05)
            waited += 0.05


def _adapter(base: Manifest, number: int) -> Manifest:
    """A name for an adapter that is in no vault yet."""
    return Manifest(
        f"{base.name}+probe@{number + 1}", f"probe:{number}", 0, "gguf-adapter", "", False, base=base.digest
    )
