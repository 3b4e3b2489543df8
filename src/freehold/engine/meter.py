"""The meter reads a copy of what an engine says and keeps its token counts.

llama.cpp's server reports counts in four shapes: ``timings`` (in every event of a stream when asked with
``timings_per_token``), OpenAI's ``usage`` for chat and for responses, and Anthropic's ``usage``, in which
``input_tokens`` leaves out the cached part. Only top-level fields are read, so that text which happens to
look like a count is not taken for one.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from freehold.engine import sse
from freehold.types import Usage


class _Details(Struct):
    cached_tokens: int | None = 0


class _Usage(Struct):
    """The union of the three ``usage`` shapes."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None


class _Timings(Struct):
    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class _Choice(Struct):
    index: int = 0


class _Inner(Struct):
    usage: _Usage | None = None


_NO_ERROR = msgspec.Raw()


class _Event(Struct):
    type: str = ""
    usage: _Usage | None = None
    timings: _Timings | None = None
    choices: list[_Choice] = []
    message: _Inner | None = None  # Anthropic's message_start
    response: _Inner | None = None  # OpenAI's response.completed
    input_tokens: int | None = None  # count_tokens
    error: msgspec.Raw = _NO_ERROR


class _Said(Struct):
    """An event or an answer of an upstream: less is expected of it, so that more of it is understood."""

    type: str | None = None
    usage: _Usage | None = None
    response: _Inner | None = None
    error: msgspec.Raw = _NO_ERROR
    input_tokens: int | None = None


_LAST = frozenset({"message_stop", "response.completed"})  # chat and completions end with [DONE]
_FAILED = frozenset({"error", "response.failed"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_event, _said = msgspec.json.Decoder(_Event), msgspec.json.Decoder(_Said)
_error = msgspec.json.Decoder(dict)


class Meter:
    """Counts of one call. Feed it a whole JSON answer (`read_answer`) or the events of a stream (`read`)."""

    _decoder = _event

    def __init__(self) -> None:
        self.failure = ""
        self.complete = False
        self._prompt = 0
        self._cached = 0
        self._completion: dict[int, int] = {}  # by choice

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(_sane(self._prompt), _sane(sum(self._completion.values())), _sane(self._cached))

    def set_completion(self, count: int) -> None:
        """The engine's own count of the answer's tokens, learned elsewhere."""
        self._completion = {0: count}

    def read(self, events: list[bytes]) -> None:
        """Take in the next events of a stream; see `sse.Events`."""
        for data in events:
            if data == sse.DONE:
                self.complete = True
            elif event := _decode(self._decoder, data):
                self._take(event)

    def read_answer(self, answer: bytes) -> None:
        """Take in a whole JSON answer."""
        self.complete = True
        event = _decode(self._decoder, answer)
        if event is None:
            return
        if event.usage is not None:
            self._count_usage(event.usage)
        elif event.input_tokens is not None:
            self._prompt = event.input_tokens

    def _take(self, event: _Event) -> None:
        if event.error is not _NO_ERROR and bytes(event.error) not in (b"", b"null"):
            self.failure = _message(event.error)
        if event.type:
            if event.type in _LAST:
                self.complete = True
            for inner in (event.message, event.response):
                if inner is not None and inner.usage is not None:
                    self._count_usage(inner.usage)
        if event.timings is not None and (event.choices or event.type or len(self._completion) < 2):
            self._prompt = event.timings.prompt_n + event.timings.cache_n
            self._cached = event.timings.cache_n
            self._completion[event.choices[0].index if event.choices else 0] = event.timings.predicted_n
        elif event.type == "message_delta" and event.usage is not None:
            self._count_usage(event.usage)
        elif event.type == "content_block_delta":
            self._completion[0] = self._completion.get(0, 0) + 1  # one event a token, until the final count

    def _count_usage(self, usage: _Usage) -> None:
        if usage.prompt_tokens is not None:
            self._prompt = usage.prompt_tokens
            self._completion[0] = usage.completion_tokens or 0
            self._cached = _cached(usage.prompt_tokens_details)
            return
        if usage.input_tokens is not None:
            self._cached = usage.cache_read_input_tokens or _cached(usage.input_tokens_details)
            self._prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0)
        if usage.output_tokens is not None:
            self._completion[0] = usage.output_tokens


class UpstreamMeter(Meter):
    """Counts as an upstream tells them: in ``usage`` alone, the last of them. One that says nothing counts as 0."""

    _decoder = _said

    def _take(self, event: _Said) -> None:
        if event.error is not _NO_ERROR and bytes(event.error) not in (b"", b"null"):
            self.failure = _message(event.error)
        elif event.type in _FAILED:
            self.failure = "the upstream reported an error"
        if event.type in _ENDS:
            self.complete = True
        for usage in (event.usage, event.response.usage if event.response else None):
            if usage is not None:
                self._count_usage(usage)


def _cached(details: _Details | None) -> int:
    return (details.cached_tokens or 0) if details else 0


def _sane(count: int) -> int:
    """A count that a ledger can hold: the engine's word is taken, within reason."""
    return min(max(count, 0), 1 << 40)


def _decode(decoder: msgspec.json.Decoder, document: bytes) -> _Event | _Said | None:
    """None for what is not ours to judge: the bytes go through as they are."""
    try:
        return decoder.decode(document)
    except msgspec.MsgspecError:
        return None


def _message(error: msgspec.Raw) -> str:
    try:
        return str(_error.decode(error).get("message", "")) or "the engine reported an error"
    except msgspec.MsgspecError:
        return "the engine reported an error"
