"""What runs inside a scoring process: bounds and seal first, then one answer after another.

The first message is the `Order`; see `process.py` for how messages are written. The end of input is the order to stop.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import signal
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from freehold import seal
from freehold.names import shown
from freehold.scorers.process import LENGTH, MAX_MESSAGE, MAX_REPLY, Order
from freehold.seal import kernel

Scoring = Callable[[dict[str, Any]], dict[str, Any]]


class Text(str):
    """What a user's function is given as ``answer`` and ``expected``: the text, and ``tools``, a list of calls with
    ``name`` and ``arguments`` (JSON as the model wrote it)."""

    tools: list[dict[str, str]]


def main() -> int:
    """Answer until there are no more questions. Exit code 0."""
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to whoever asked, who then ends us
    for codec in ("unicode_escape", "raw_unicode_escape"):  # which would be looked for on disk when first used
        codecs.lookup(codec)
    wire = _wire()
    order = msgspec.convert(_read(wire), Order)
    kernel.limit_resources(None, order.memory)  # whether or not there is a seal
    layers = seal.put_on(order.seal, _plan(order))
    if order.seal == "required" and (lacking := seal.missing(layers)):
        _write(wire, {"error": f"The seal is required and the kernel lacks {'; '.join(lacking)}."})
        return 1
    try:
        scoring = _pattern(order) if order.kind == "regex" else _function(order)
    except BaseException as error:  # noqa: BLE001 - whatever a user's file does while it is imported
        _write(wire, {"error": _said(error)})
        return 1
    _write(wire, {})
    while (question := _read(wire)) is not None:
        _write(wire, _answered(scoring, question))
    return 0


def _answered(scoring: Scoring, question: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = scoring(question)
        if len(json.dumps(answer, allow_nan=False)) > MAX_REPLY - 1024:
            return {"error": "Its detail is too long."}
    except BaseException as error:  # noqa: BLE001 - whatever a user's function does, it is an error of this one score
        return {"error": _said(error)}
    return answer


def _pattern(order: Order) -> Scoring:
    flags = {"ignore_case": re.IGNORECASE, "multiline": re.MULTILINE, "dotall": re.DOTALL}
    pattern = re.compile(order.source, sum(flags[name] for name in order.flags))
    match = pattern.fullmatch if order.whole else pattern.search
    if order.group is not None and order.group not in {*range(pattern.groups + 1), *pattern.groupindex}:
        raise ValueError(f"it has no group {order.group!r}")

    def found(question: dict[str, Any]) -> dict[str, Any]:
        hit = match(question["text"])
        return {"found": hit and (hit[order.group or 0] if order.group is not None else "")}

    return found


def _function(order: Order) -> Scoring:
    module = types.ModuleType("scorer")
    sys.modules["scorer"] = module
    exec(compile(order.source, "scorer.py", "exec"), module.__dict__)
    function = getattr(module, "score", None)
    if not callable(function):
        raise ValueError("there is no function score(request, answer, expected) in it")

    def scored(question: dict[str, Any]) -> dict[str, Any]:
        returned = function(question["request"], _text(question["answer"]), _text(question["expected"]))
        value, detail = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, {})
        return {"value": _number(value), "detail": detail if isinstance(detail, dict) else {"note": str(detail)}}

    return scored


def _number(value: Any) -> float:
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"the function returned a {type(value).__name__}, not a number from 0 to 1")
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1):
        raise ValueError(f"the function returned {number}, not a number from 0 to 1")
    return number


def _text(plain: dict[str, Any]) -> Text:
    text = Text(plain["text"])
    text.tools = plain["tools"]
    return text


def _said(error: BaseException) -> str:
    """An exception as a sentence. Its own words are a stranger's."""
    try:
        words = str(error)
    except BaseException:  # noqa: BLE001 - an exception of the user's own, with a __str__ of its own
        words = ""
    line = ""
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "scorer.py":
            line = f" in line {trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{line}: {shown(words).rstrip('.')}."


def _plan(order: Order) -> seal.Plan:
    """An engine's, less the model and the folder that are an engine's own; a pattern needs no file at all."""
    plan = seal.engine_plan(model=Path("/"), folder=Path("/"), data_bytes=order.memory)
    files = plan.files[2:] if order.kind == "python" else ()
    return msgspec.structs.replace(plan, files=files, file_bytes=0, alone=True)


def _wire() -> socket.socket:
    """The socket that was our standard input; what the user's code reads there from now on is nothing."""
    wire = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return wire


def _read(wire: socket.socket) -> Any:
    head = _receive(wire, LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    return json.loads(_receive(wire, min(length, MAX_MESSAGE)))


def _receive(wire: socket.socket, length: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < length and (piece := wire.recv(min(length - len(pieces), 1 << 20))):
        pieces += piece
    return bytes(pieces)


def _write(wire: socket.socket, message: dict[str, Any]) -> None:
    content = json.dumps(message).encode("ascii")
    wire.sendall(LENGTH.pack(len(content)) + content)


if __name__ == "__main__":
    sys.exit(main())
