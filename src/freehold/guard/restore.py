"""What was masked is put back into an answer: whole or streamed, of every endpoint, in one place.

A placeholder may be cut anywhere: between two reads, and between two events of a stream, each of which holds a piece of
some text. So bytes are put together to lines, and the text of each channel (a choice's content, a tool's arguments, a
block) runs through an `Unmasker` of its own, which holds back what may be the beginning of a placeholder. Where a
channel ends with something held back, an event of its own says it. What is JSON within a string (the arguments of a
tool, an answer that was asked for as JSON) gets its originals escaped as JSON has it.

Sources of the events: OpenAI's API reference (streams of chat completions, completions and responses), Anthropic's
(streams of messages), and the HTML standard's event streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from freehold.engine import sse
from freehold.sensitive.mask import Names, Unmasker, unmask
from freehold.types import Kind, Request

_JSON = frozenset({"arguments", "partial_json"})  # fields that are JSON as a model writes it
_TEXTS = frozenset({"content", "text", "delta"})
_SPOKEN = ("content", "reasoning_content", "reasoning", "refusal")
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_PLACE = ("item_id", "output_index", "content_index", "summary_index")
_LAST = frozenset(
    {"message_delta", "message_stop", "error", "response.completed", "response.incomplete", "response.failed"}
)
_HELD = ("usage", "timings", "choices")  # of a chunk, what an event of ours does not repeat
_BOM = b"\xef\xbb\xbf"

Event = dict[str, Any]
Key = tuple[Any, ...]


class _Channel:
    """One text of a stream. ``told`` makes the event that says a piece of it."""

    __slots__ = ("told", "unmasker")

    def __init__(self, names: Names, in_json: bool):
        self.unmasker = Unmasker(names, in_json=in_json)
        self.told: Callable[[str], Event] = lambda text: {}


class Restorer:
    """Puts back what the placeholders of one call stand for. Feed it a whole answer (`whole`), or a stream's bytes as
    they come (`read`) and at the end what is left (`rest`)."""

    def __init__(self, names: Names, request: Request):
        self._names = names
        self._speaks_json = _asked_for_json(request)
        self._channels: dict[Key, _Channel] = {}
        self._tail: list[bytes] = []  # of a line that has not ended
        self._head: list[bytes] = []  # lines of an event before its data
        self._added = 0  # events of ours before this one

    def whole(self, answer: bytes) -> bytes:
        """A whole answer with everything put back; as it is where it is no JSON."""
        try:
            document = msgspec.json.decode(answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return answer
        restored = self._restored(document)
        return answer if restored == document else msgspec.json.encode(restored)

    def read(self, piece: bytes) -> bytes:
        """As much of a stream as is certain by now."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
            self._tail.append(piece)
            return b""
        lines = b"".join([*self._tail, piece[:cut]])
        self._tail = [piece[cut:]]
        return b"".join([passed for line in lines.splitlines(keepends=True) for passed in self._line(line)])

    def rest(self) -> bytes:
        """What is left when the stream has ended, however it did."""
        last = b"".join(self._tail)
        self._tail = []
        passed = b"".join([*self._line(last), *self._heads()]) if last else b"".join(self._heads())
        held = b"".join(self._flushed(lambda key: True))
        if passed == last or not held:  # what was broken off comes last
            return held + passed
        return passed + b"\n\n" + held

    def _line(self, line: bytes) -> Iterator[bytes]:
        """What goes on for one line: its event's other lines wait until its data is there."""
        bare = line.removeprefix(_BOM)
        if bare.startswith(b"data:"):
            yield from self._data(line, bare[5:].strip())
        elif line.strip():
            self._head.append(line)
        else:
            yield from [*self._heads(), line]

    def _heads(self) -> list[bytes]:
        heads, self._head = self._head, []
        return heads

    def _data(self, line: bytes, data: bytes) -> Iterator[bytes]:
        if data == sse.DONE:
            yield from [*self._flushed(lambda key: True), *self._heads(), line]
            return
        try:
            event = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            event = None
        if not isinstance(event, dict):
            yield from [*self._heads(), line]
            return
        before = self._ended_by(event)
        restored = self._event(event)
        number = event.get("sequence_number")
        if isinstance(number, int):
            before = [self._numbered(one, number) for one in before]
            if self._added:
                restored = restored | {"sequence_number": number + self._added}
        yield from (self._written(one) for one in before)
        yield from self._heads()
        yield line if restored == event else line.replace(data, msgspec.json.encode(restored), 1)

    def _numbered(self, event: Event, number: int) -> Event:
        """An event of ours takes the number of the one before which it comes; those behind it move on."""
        numbered = event | {"sequence_number": number + self._added}
        self._added += 1
        return numbered

    def _written(self, event: Event) -> bytes:
        name = b"event: %b\n" % event["type"].encode() if isinstance(event.get("type"), str) else b""
        return b"%bdata: %b\n\n" % (name, msgspec.json.encode(event))

    def _flushed(self, ends: Callable[[Key], bool]) -> list[bytes]:
        return [self._written(event) for event in self._left(ends)]

    def _left(self, ends: Callable[[Key], bool]) -> list[Event]:
        """The events that say what is held back in the channels that end here."""
        ended = [key for key in self._channels if ends(key)]
        said = [(self._channels[key], self._channels[key].unmasker.flush()) for key in ended]
        for key in ended:
            del self._channels[key]
        return [channel.told(text) for channel, text in said if text]

    def _ended_by(self, event: Event) -> list[Event]:
        """The events that have to come before this one, because something ends with it."""
        choices, kind = event.get("choices"), event.get("type")
        if isinstance(choices, list):
            choices = [choice for choice in choices if isinstance(choice, dict)]
            ended = {_mark(choice, "index", 0) for choice in choices if choice.get("finish_reason")}
            spoken = {key for choice in choices for key in self._spoken_in(choice)}
            return self._left(lambda key: key[0] == "choice" and key[1] in ended and key not in spoken)
        if not isinstance(kind, str) or _is_delta(event):
            return []
        if kind == "content_block_stop":
            return self._left(lambda key: key[0] == "block" and key[1] == _mark(event, "index"))
        if kind.endswith(".done"):
            output = _mark(event, "output_index")
            return self._left(lambda key: key[0] == "item" and (output is None or key[3] in (None, output)))
        return self._left(lambda key: True) if kind in _LAST else []

    def _event(self, event: Event) -> Event:
        """The event with what it says put back."""
        kind, delta = event.get("type"), event.get("delta")
        if isinstance(event.get("choices"), list):
            choices = [self._choice(event, one) if isinstance(one, dict) else one for one in event["choices"]]
            return event | {"choices": choices}
        if not _is_delta(event):
            return self._restored(event)
        if isinstance(delta, str):
            in_json = "arguments" in kind or (self._speaks_json and kind == "response.output_text.delta")
            key = ("item", kind, *(_mark(event, name) for name in _PLACE))
            text = self._fed(key, delta, in_json, lambda text: event | {"delta": text})
            return event | {"delta": text}
        field = _DELTAS[delta["type"]]
        key = ("block", _mark(event, "index"), field)
        told = lambda text: event | {"delta": delta | {field: text}}  # noqa: E731
        return told(self._fed(key, delta[field], field in _JSON, told))

    def _choice(self, event: Event, choice: Event) -> Event:
        """One choice of a chunk. Where it ends here, what is held back of its texts is said here."""
        bare = {name: value for name, value in event.items() if name not in _HELD}
        number, ends = _mark(choice, "index", 0), bool(choice.get("finish_reason"))

        def tell(said: Event) -> Event:
            return bare | {"choices": [{"index": number, "finish_reason": None} | said]}

        restored = dict(choice)
        if isinstance(choice.get("text"), str):
            key = ("choice", number, "text")
            restored["text"] = self._fed(key, choice["text"], False, lambda text: tell({"text": text}), ends)
        if isinstance(choice.get("delta"), dict):
            restored["delta"] = self._delta(number, choice["delta"], lambda said: tell({"delta": said}), ends)
        if "message" in choice:
            restored["message"] = self._restored(choice["message"])
        return restored

    def _delta(self, number: Any, delta: Event, tell: Callable[[Event], Event], ends: bool) -> Event:
        restored = dict(delta)
        for name in _SPOKEN:
            if isinstance(delta.get(name), str):
                in_json = self._speaks_json and name == "content"
                told = lambda text, name=name: tell({name: text})  # noqa: E731
                restored[name] = self._fed(("choice", number, name), delta[name], in_json, told, ends)
        if isinstance(delta.get("tool_calls"), list):
            restored["tool_calls"] = [self._call(number, call, tell, ends) for call in delta["tool_calls"]]
        if isinstance(called := delta.get("function_call"), dict) and isinstance(called.get("arguments"), str):
            told = lambda text: tell({"function_call": {"arguments": text}})  # noqa: E731
            text = self._fed(("choice", number, "call"), called["arguments"], True, told, ends)
            restored["function_call"] = called | {"arguments": text}
        return restored

    def _call(self, number: Any, call: Any, tell: Callable[[Event], Event], ends: bool) -> Any:
        """A piece of a call of a tool."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
            return self._restored(call)
        index = _mark(call, "index", 0)
        told = lambda text: tell({"tool_calls": [{"index": index, "function": {"arguments": text}}]})  # noqa: E731
        text = self._fed(("choice", number, "tool", index), function["arguments"], True, told, ends)
        return self._restored(call) | {"function": self._restored(function) | {"arguments": text}}

    def _spoken_in(self, choice: Event) -> Iterator[Key]:
        """The channels in which a choice of this event says something itself."""
        number, delta = _mark(choice, "index", 0), choice.get("delta")
        if isinstance(choice.get("text"), str):
            yield ("choice", number, "text")
        if not isinstance(delta, dict):
            return
        yield from (("choice", number, name) for name in _SPOKEN if isinstance(delta.get(name), str))
        for call in delta["tool_calls"] if isinstance(delta.get("tool_calls"), list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                yield ("choice", number, "tool", _mark(call, "index", 0))
        if isinstance(called := delta.get("function_call"), dict) and isinstance(called.get("arguments"), str):
            yield ("choice", number, "call")

    def _fed(self, key: Key, piece: str, in_json: bool, told: Callable[[str], Event], ends: bool = False) -> str:
        """A piece of a channel's text, as far as it is certain; all of it where the channel ends."""
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel(self._names, in_json)
        channel.told = told
        text = channel.unmasker.feed(piece)
        if ends:
            text += self._channels.pop(key).unmasker.flush()
        return text

    def _restored(self, value: Any, in_json: bool = False) -> Any:
        """A JSON value with everything put back; ``in_json``, where a string is JSON itself."""
        if isinstance(value, str):
            return unmask(value, self._names, in_json=in_json)
        if isinstance(value, list):
            return [self._restored(part) for part in value]
        if not isinstance(value, dict):
            return value
        return {
            unmask(name, self._names): self._restored(part, isinstance(part, str) and self._is_json(name))
            for name, part in value.items()
        }

    def _is_json(self, name: str) -> bool:
        return name in _JSON or (self._speaks_json and name in _TEXTS)


def _mark(event: Event, name: str, otherwise: Any = None) -> Any:
    """A number or a name by which a channel is known, whatever an upstream may have put there."""
    value = event.get(name, otherwise)
    return value if value is None or isinstance(value, int | str) else str(value)


def _is_delta(event: Event) -> bool:
    """Is this a piece of a text, of responses or of messages?"""
    kind, delta = event.get("type"), event.get("delta")
    if not isinstance(kind, str) or not kind.endswith("delta"):
        return False
    if isinstance(delta, dict):
        field = _DELTAS.get(str(delta.get("type")))
        return field is not None and isinstance(delta.get(field), str)
    return isinstance(delta, str)


def _asked_for_json(request: Request) -> bool:
    """Is the answer's text to be JSON, as the request asks for it?"""
    asked = request.body.get("response_format")
    if request.kind is Kind.RESPONSE:
        text = request.body.get("text")
        asked = text.get("format") if isinstance(text, dict) else None
    return isinstance(asked, dict) and str(asked.get("type", "")).startswith("json")
