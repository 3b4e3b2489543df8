"""What goes through to an upstream and back: the request with nothing changed but its model's name, the answer as is.

The one addition: where an upstream counts the tokens of a stream only if asked (``stream_options.include_usage``) and
the client did not ask, we do, and take out what comes of it. Fields are kept as they were written, byte for byte.

Source: the OpenAI API reference, chat completions, ``stream_options``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from freehold.engine import sse
from freehold.engine.meter import UpstreamMeter
from freehold.errors import EngineFailed
from freehold.types import Kind, Request

_LONGEST = 16 << 20  # bytes of one line of a stream
_COUNTED = (Kind.CHAT, Kind.COMPLETION)  # the other kinds say their counts unasked
_NULL = b"null"
_fields = msgspec.json.Decoder(dict[str, Raw])


def outgoing(request: Request, model: str, *, count: bool) -> tuple[bytes, bool]:
    """The body to send, and whether the counts in the stream were asked for by us and not by the client.

    It is written anew from its fields even if none changes: of a field that is there twice, the one that was read here
    goes out.
    """
    fields = _fields.decode(request.sent)
    fields["model"] = Raw(msgspec.json.encode(model))
    asked = count and request.stream and request.kind in _COUNTED and _ask_for_counts(fields)
    return msgspec.json.encode(fields), asked


def _ask_for_counts(fields: dict[str, Raw]) -> bool:
    try:
        options = _fields.decode(fields.get("stream_options", _NULL)) if _is_given(fields, "stream_options") else {}
    except msgspec.MsgspecError:
        return False  # no object: for the upstream to refuse
    if bytes(options.get("include_usage", _NULL)) not in (_NULL, b"false"):
        return False
    fields["stream_options"] = Raw(msgspec.json.encode(options | {"include_usage": Raw(b"true")}))
    return True


def _is_given(fields: dict[str, Raw], name: str) -> bool:
    return name in fields and bytes(fields[name]) != _NULL


class Lines:
    """Bytes cut anywhere, as whole lines with their ends. However they are cut, each byte is copied twice at most."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def read(self, piece: bytes) -> list[bytes]:
        """The lines that these bytes complete. Raises EngineFailed for a line without an end."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
            self._hold(piece)
            return []
        whole = b"".join([*self._parts, piece[:cut]])
        self._parts, self._held = [], 0
        self._hold(piece[cut:])
        return whole.splitlines(keepends=True) if b"\r" not in whole else _split(whole)

    def rest(self) -> bytes:
        """What is left without an end."""
        parts, self._parts, self._held = self._parts, [], 0
        return b"".join(parts)

    def _hold(self, piece: bytes) -> None:
        if piece:
            self._parts.append(piece)
            self._held += len(piece)
        if self._held > _LONGEST:
            raise EngineFailed(f"The upstream sent a line of more than {_LONGEST >> 20} MiB.", hint="")


def _split(whole: bytes) -> list[bytes]:
    """By line feeds alone."""
    return [line + b"\n" for line in whole.split(b"\n")[:-1]]


class Stream:
    """The events of a stream on their way: counted, and if ``taking`` rid of the counts that only we asked for."""

    def __init__(self, meter: UpstreamMeter, *, taking: bool):
        self._meter, self._taking = meter, taking
        self._lines = Lines()
        self._dropped = False  # the event whose last line was taken out

    def read(self, piece: bytes) -> bytes:
        """What of these bytes, and of those held back before, goes on to the client now."""
        lines = self._lines.read(piece)
        self._meter.read([data for line in lines if (data := _data(line)) is not None])
        if self._taking:
            return b"".join([self._pass(line) for line in lines])
        return piece

    def rest(self) -> bytes:
        """What is left at the end."""
        rest = self._lines.rest()
        if (data := _data(rest)) is not None:
            self._meter.read([data])
        return self._pass(rest) if self._taking and rest else b""

    def _pass(self, line: bytes) -> bytes:
        if self._dropped and not line.strip():
            self._dropped = False
            return b""
        data = _data(line)
        if data is None or b'"usage"' not in data:
            return line
        kept = _without_counts(data)
        self._dropped = kept is None
        return b"" if kept is None else line.replace(data, kept, 1)


def _data(line: bytes) -> bytes | None:
    """The data of a stream's line. The space after the colon may be left out."""
    return line[5:].strip() if line.startswith(b"data:") else None


def _without_counts(data: bytes) -> bytes | None:
    """An event without its counts; None for one that has nothing else to say."""
    if data == sse.DONE:
        return data
    try:
        fields: dict[str, Any] = _fields.decode(data)
    except msgspec.MsgspecError:
        return data
    usage = fields.pop("usage", None)
    if usage is None:
        return data
    if bytes(usage) != _NULL and bytes(fields.get("choices", b"")).split() in ([b"[]"], [b"[", b"]"]):
        return None
    return msgspec.json.encode(fields)
