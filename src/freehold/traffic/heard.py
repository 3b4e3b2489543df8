"""What a model said, heard as it passed: the answer in the bytes of one response, whole or streamed.

The bytes may come from an upstream. Whatever they claim, memory and time stay in proportion to their number.

Sources of the events: OpenAI's API reference (streams of chat completions, completions and responses), Anthropic's
(streams of messages), and the HTML standard's event streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from freehold import said
from freehold.engine import sse
from freehold.said import Unfit
from freehold.types import Answer, Kind

_ENDS = frozenset({"response.completed", "response.incomplete"})


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int = 0
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None


class _Chunk(Struct):
    """An event of chat completions or completions."""

    choices: list[_Choice] | None = None


class _End(Struct):
    """An event of responses, whose last one holds the whole answer."""

    type: str = ""
    response: msgspec.Raw = msgspec.Raw()


class _Block(Struct):
    type: str = ""
    text: str = ""
    name: str | None = None
    input: Any = None


class _Further(Struct):
    text: str = ""
    partial_json: str = ""


class _Event(Struct):
    """An event of messages."""

    type: str = ""
    index: int = 0
    content_block: _Block | None = None
    delta: _Further | None = None


def answer(kind: Kind, content: bytes) -> Answer:
    """The answer in a response. Of several choices the first is taken.

    Raises:
        Unfit: the bytes hold no answer of that kind.
    """
    try:
        if content.lstrip()[:1] == b"{":
            return said.answer(kind, msgspec.json.decode(content, type=dict[str, Any]))
        return _STREAMS[kind](_data(content))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unfit("has an answer in a form that is not known here") from None


def _data(content: bytes) -> Iterator[bytes]:
    """The data of each event. Lines may end in CR LF, and the space behind the colon may be left out."""
    for line in content.split(b"\n"):
        data = line[5:].strip() if line.startswith(b"data:") else b""
        if data and data != sse.DONE:
            yield data


class _Spoken:
    """Pieces of one choice. They are joined once: adding text to text copies what is there each time."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, tuple[list[str], list[str]]] = {}  # by the index, which may be any number

    def take(self, choice: _Choice) -> None:
        """Take in what one event adds."""
        delta = choice.delta or _Delta()
        self.text.append(choice.text or delta.content or "")
        self.refusal.append(delta.refusal or "")
        called = [_Call(-1, delta.function_call)] if delta.function_call else delta.tool_calls or ()
        for call in called:
            name, arguments = self.calls.setdefault(call.index, ([], []))
            if call.function:
                name.append(call.function.name or "")
                arguments.append(call.function.arguments or "")

    def message(self) -> dict[str, Any]:
        """The message that they make."""
        calls = [
            {"function": {"name": "".join(name) or None, "arguments": "".join(arguments)}}
            for _, (name, arguments) in sorted(self.calls.items())
        ]
        return {"content": "".join(self.text), "refusal": "".join(self.refusal), "tool_calls": calls}


def _completion(events: Iterator[bytes]) -> Answer:
    spoken, read = _Spoken(), msgspec.json.Decoder(_Chunk).decode
    choices = (choice for event in events for choice in read(event).choices or () if choice.index == 0)
    for choice in choices:
        spoken.take(choice)
    if not spoken.text:
        raise Unfit("has an answer without a choice")
    return said.answer(Kind.CHAT, spoken.message())


def _response(events: Iterator[bytes]) -> Answer:
    read = msgspec.json.Decoder(_End).decode
    for event in events:
        end = read(event)
        if end.type in _ENDS:
            return said.answer(Kind.RESPONSE, msgspec.json.decode(end.response))
    raise Unfit("has an answer without an end")


def _message(events: Iterator[bytes]) -> Answer:
    blocks: dict[int, tuple[_Block, list[str], list[str]]] = {}
    read = msgspec.json.Decoder(_Event).decode
    for event in map(read, events):
        if event.content_block is not None:
            blocks[event.index] = (event.content_block, [event.content_block.text], [])
        elif event.type == "content_block_delta" and event.delta is not None:
            if event.index not in blocks:
                raise Unfit("has an answer with a part that never began")
            _, text, arguments = blocks[event.index]
            text.append(event.delta.text)
            arguments.append(event.delta.partial_json)
    return said.answer(Kind.MESSAGE, [_block(*blocks[index]) for index in sorted(blocks)])


def _block(block: _Block, text: list[str], arguments: list[str]) -> dict[str, Any]:
    """A block as it stands in a whole answer; arguments that were cut short stay the text that they are."""
    given = "".join(arguments)
    try:
        found = msgspec.json.decode(given) if given else block.input
    except (msgspec.MsgspecError, RecursionError):
        found = given
    return {"type": block.type, "text": "".join(text), "name": block.name, "input": found}


_STREAMS: dict[Kind, Callable[[Iterator[bytes]], Answer]] = {
    Kind.CHAT: _completion,
    Kind.COMPLETION: _completion,
    Kind.RESPONSE: _response,
    Kind.MESSAGE: _message,
}
KINDS = frozenset(_STREAMS)  # whose answers can be compared
