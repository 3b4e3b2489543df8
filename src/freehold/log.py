"""What the server says on standard error: notes, and if wanted a line for each call; as text, or as JSON for programs.

Each is one line, whoever had a hand in what it says: whatever could end a line or steer a terminal is escaped. No line
holds the text of a prompt or of an answer, and of an unexpected fault no message, which could: where it was is enough.
Notes are written at once. Lines of calls wait in memory, within a bound, for a thread of their own, so that no call
waits for whoever reads the log; what does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from typing import Any

INFO, WARNING, ERROR = "info", "warning", "error"
ROOM = 16_384  # lines that wait
_GATHER = 0.05  # seconds for which lines are gathered
_AT_ONCE = 4096  # bytes that a pipe takes whole (PIPE_BUF), so that no line is cut by another's
_LONGEST = 200  # letters of one value
_STOP = 2.0  # seconds
_state = {"json": False}


def choose(form: str) -> None:
    """How lines are written from now on: ``text`` or ``json``. What Python's own parts have to say comes in lines of
    the same form, and with no more of a fault."""
    _state["json"] = form == "json"
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[_Handler()], force=True)
    threading.excepthook = _in_a_thread


def _in_a_thread(raised: threading.ExceptHookArgs) -> None:
    """A fault that ended a thread."""
    if raised.exc_value is not None:
        fault(raised.exc_value)


def is_json() -> bool:
    """Are lines written as JSON?"""
    return _state["json"]


def note(sentence: str, level: str = WARNING, **facts: Any) -> None:
    """Say something, at once. ``facts`` are for programs, beside the sentence."""
    if _state["json"]:
        _write(_json({"time": stamp(time.time()), "level": level, "note": sentence} | facts))
    else:
        _write(plain(sentence))


def fault(error: BaseException) -> None:
    """Say where an unexpected fault was, and of what kind. With FREEHOLD_TRACEBACK set also what it said, which may
    hold what a client sent."""
    said = f"An unexpected fault: {type(error).__name__}"
    if os.environ.get("FREEHOLD_TRACEBACK"):
        said += f": {error}"
    places = [f"{where.filename}:{where.lineno} {where.name}" for where in traceback.extract_tb(error.__traceback__)]
    if _state["json"]:
        note(f"{said}.", ERROR, traceback=places)
    else:
        _write("\n".join([plain(f"Traceback. {said}, in"), *(f"  {plain(place)}" for place in places)]))


def plain(text: str) -> str:
    """Text without anything that would end a line, or that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


def stamp(at: float) -> str:
    """A time as ISO 8601 has it, in UTC, to the millisecond."""
    whole, part = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:03d}Z"


def line(record: Mapping[str, Any]) -> str:
    """A record as one line: JSON, or names and values. Its ``time`` is in seconds since the epoch."""
    values = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in record.items()}
    values["time"] = stamp(record["time"])
    if _state["json"]:
        return _json(values)
    said = values.pop("time")
    return f"{said} {' '.join(f'{name}={_word(value)}' for name, value in values.items() if value is not None)}"


class Lines:
    """Lines that are written by a thread of their own, to the file with this descriptor."""

    def __init__(self, descriptor: int = 2):
        self.dropped = 0
        self._descriptor = descriptor
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, record: Mapping[str, Any]) -> None:
        """Let a record wait to be written as a `line`. Neither waits nor raises."""
        if len(self._waiting) >= ROOM:
            self.dropped += 1
            return
        self._waiting.append(record)
        if not self._news.is_set():
            self._news.set()

    def stop(self) -> None:
        """Write what waits, as far as somebody reads it in time."""
        self._stop.set()
        self._news.set()
        self._thread.join(_STOP)
        if lost := len(self._waiting) + self.dropped:
            note(f"{lost} lines of calls are not in this log: whoever reads it was too slow.")

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._stop.wait(_GATHER)
            self._news.clear()
            is_last = self._stop.is_set()  # if it is told to stop from here on, there is news again
            self._write_all()
            if is_last:
                return

    def _write_all(self) -> None:
        block = b""
        while self._waiting:
            said = line(self._waiting.popleft()).encode("utf-8", "backslashreplace") + b"\n"
            if len(block) + len(said) > _AT_ONCE:
                self._put(block)
                block = b""
            block += said
        self._put(block)

    def _put(self, block: bytes) -> None:
        """Write a few lines whole. On a full disk, or where nobody reads any more, they are lost."""
        while block:
            try:
                block = block[os.write(self._descriptor, block) :]
            except OSError:
                self.dropped += block.count(b"\n")
                return


class _Handler(logging.Handler):
    """Puts what is said through Python's logging into lines of ours: its first line, and where the fault was, if one is
    told of."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage().partition("\n")[0], ERROR if record.levelno >= logging.ERROR else WARNING)
        if record.exc_info and record.exc_info[1] is not None:
            fault(record.exc_info[1])


def _json(values: Mapping[str, Any]) -> str:
    """In ASCII: no reader takes anything in it for the end of a line."""
    return json.dumps(values, separators=(",", ":"))


def _word(value: Any) -> str:
    """A value that is one word, or stands in quotes."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if text and text.isascii() and not set(text) & _QUOTED and text.isprintable():
        return text
    return json.dumps(plain(text), ensure_ascii=False)


_QUOTED = set(" \"'=\\")


def _write(said: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the log may be on a full disk, or closed
        print(said, file=sys.stderr, flush=True)
