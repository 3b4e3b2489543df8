"""A process that scores, from outside: started with its order, asked, ended when it does not answer, started again.

Messages go both ways over one Unix socket: four bytes of length, then JSON in ASCII (so that a lone surrogate, which
no UTF-8 holds, gets across).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
from msgspec import Struct

from freehold.names import shown

START_SECONDS = 60.0  # to start, and to import what a user's file imports
MAX_REPLY = 64 << 10  # bytes; several times what a detail may hold
MAX_MESSAGE = 256 << 20  # bytes
LENGTH = struct.Struct(">I")
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")


class Order(Struct, frozen=True):
    """What a process is to be: ``python``, with a function in ``source``, or ``regex``, with a pattern."""

    source: str
    kind: str
    memory: int  # bytes
    seal: str = "best"
    flags: tuple[str, ...] = ()
    whole: bool = False
    group: int | str | None = None


class Ended(Exception):
    """The process gave no answer that can be used, and was ended. The message is a sentence."""


class Process:
    """One at a time, kept from answer to answer. ``seconds`` is the time for one."""

    def __init__(self, order: Order, seconds: float):
        self._order, self._seconds = order, seconds
        self._child: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """See that it runs and has taken its order. Raises Ended."""
        with self._lock:
            self._start()

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What it says to one question. Raises Ended."""
        with self._lock:
            self._start()
            return self._talk(question, self._seconds)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        if self._child is not None and self._child.poll() is None:
            return
        self._end()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "freehold.scorers.child"],
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            )  # fmt: skip
        said = self._talk(msgspec.to_builtins(self._order), START_SECONDS)
        if "error" in said:
            self._end()
            raise Ended(str(said["error"]))

    def _talk(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        try:
            content = json.dumps(message).encode("ascii")
            if len(content) > MAX_MESSAGE:
                raise Ended(f"The request has {len(content)} bytes; at most {MAX_MESSAGE} are scored.")
            self._socket.settimeout(seconds)
            self._socket.sendall(LENGTH.pack(len(content)) + content)
            (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
            if length > MAX_REPLY:
                raise ValueError("too long")
            said = msgspec.json.decode(self._receive(length, deadline), type=dict[str, Any])
        except TimeoutError:
            self._end()
            raise Ended(f"It took more than {seconds:g} s, and was ended.") from None
        except OSError:
            raise Ended(f"Its process ended ({self._end()}).") from None
        except (ValueError, TypeError, RecursionError) as error:  # msgspec's errors are ValueErrors
            self._end()
            raise Ended(f"Its process and ours did not understand each other: {shown(str(error))}.") from None
        return said

    def _receive(self, length: int, deadline: float) -> bytes:
        pieces = bytearray()
        while len(pieces) < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(length - len(pieces))
            if not piece:
                raise ConnectionError
            pieces += piece
        return bytes(pieces)

    def _end(self) -> str:
        """End it and what it started; says how it had ended by itself, if it had."""
        if self._child is None:
            return "closed"
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(0.2)
        code = self._child.poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._child = None
        return "killed" if code is None else f"code {code}"
