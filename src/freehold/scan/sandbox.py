"""The scanner's process, from outside: started when needed, told to judge a file, ended when it does not come back.

Whatever happens in there, what comes out is one `Judged`: a parser that crashes, or takes too much time or memory, is
a finding of the file that it was reading.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from freehold import seal
from freehold.errors import BadModel, SealMissing
from freehold.scan.base import CHANGED, FAULT, HOLD, LIMIT, Rule
from freehold.scan.child import Order, Word
from freehold.scan.convert import Converted
from freehold.types import Finding, Judged, Layer

SILENCE = 30.0  # seconds without a word, each of which stands for so many bytes that were read
PACE = 1 << 20  # bytes a second, the least that is waited for
MAX_WORD = 16 << 20  # bytes of one answer
_SIZE = 2  # its place in a stamp
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")

UNREADABLE = Rule(
    "scan.unreadable", HOLD, "The file cannot be read.", "See that it is there and that you may read it.",
    "Freehold: what was not judged is never clean",
)  # fmt: skip


class Sandbox:
    """A sealed process that judges files, one at a time. ``mode`` is the setting ``seal``."""

    def __init__(self, mode: str, scratch: Path | None = None):
        self.layers: tuple[Layer, ...] = ()
        self._mode, self._scratch = mode, scratch
        self._process: subprocess.Popen | None = None
        self._orders: socket.socket | None = None
        self._heard = b""

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def judge(self, descriptor: int, name: str, shown: str, tell: Callable[[int], object]) -> Judged:
        """Judge an open file. ``name`` is its own name, ``shown`` its path in what is being scanned.

        Raises:
            SealMissing: the seal is required, and the kernel lacks a layer.
        """
        before = stamp(os.fstat(descriptor))
        size = before[_SIZE]
        try:
            self._start()
            self._send(descriptor, Order(name, size))
            word = self._answer(size, tell)
        except _Gone as gone:
            self.close()
            return judged_as(gone.rule, shown, size, gone.meaning)
        if word.judged is None:
            return judged_as(UNREADABLE, shown, size, f"The file cannot be read: {word.failed}.")
        if stamp(os.fstat(descriptor)) != before:
            return judged_as(CHANGED, shown, size)
        findings = tuple(msgspec.structs.replace(found, file=shown) for found in word.judged.findings)
        return msgspec.structs.replace(word.judged, file=shown, size=size, findings=findings, stamp=before)

    def convert(
        self, descriptor: int, out: int, name: str, tell: Callable[[int], object] = lambda done: None
    ) -> Converted:
        """Write an open PyTorch checkpoint of plain tensors to ``out`` as safetensors. ``tell`` hears of the bytes
        read, then of those written.

        Raises:
            BadModel: it is no such checkpoint, or the disk is full.
        """
        try:
            self._start()
            socket.send_fds(
                self._orders,
                [msgspec.json.encode(Order(name, os.fstat(descriptor).st_size, convert=True))],
                [descriptor, out],
            )
            word = self._answer(os.fstat(descriptor).st_size, tell)
        except (_Gone, OSError) as gone:
            self.close()
            word = Word(failed=str(gone))
        if word.converted is None:
            raise BadModel(f"{name} cannot be converted: {word.failed}.", hint="Ask the publisher for safetensors.")
        return word.converted

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._orders.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._process, self._heard = None, b""

    def _start(self) -> None:
        if self._process is not None:
            return
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "freehold.scan.child", self._mode],
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        )  # fmt: skip
        theirs.close()
        self.layers = self._hear(SILENCE).layers or ()
        if self._mode == "required" and (lacking := seal.missing(self.layers)):
            self.close()
            raise SealMissing(
                f"The seal is required and the kernel lacks {'; '.join(lacking)}.",
                hint='Run on a kernel that has them, or set seal = "best".',
            )

    def _send(self, descriptor: int, order: Order) -> None:
        with tempfile.TemporaryFile(dir=self._scratch) as scratch:
            try:
                socket.send_fds(self._orders, [msgspec.json.encode(order)], [descriptor, scratch.fileno()])
            except OSError as error:
                raise _Gone(FAULT, f"The scanner's process has gone: {error.strerror}.") from None

    def _answer(self, size: int, tell: Callable[[int], object]) -> Word:
        deadline = time.monotonic() + 2 * SILENCE + size / PACE
        while time.monotonic() < deadline:
            word = self._hear(SILENCE)
            if word.done is None:
                return word
            tell(word.done)
        raise _Gone(LIMIT, f"The file was not judged within {2 * SILENCE + size / PACE:.0f} s.")

    def _hear(self, seconds: float) -> Word:
        """The next word. Raises _Gone where none comes."""
        descriptor = self._process.stdout.fileno()
        pieces = [self._heard]
        length = len(self._heard)
        while b"\n" not in pieces[-1]:
            if not select.select([descriptor], [], [], seconds)[0]:
                raise _Gone(LIMIT, f"The parser was silent for {seconds:g} s and was ended.")
            piece = os.read(descriptor, 1 << 16)
            length += len(piece)
            if not piece or length > MAX_WORD:
                raise _Gone(FAULT, self._how_it_ended())
            pieces.append(piece)
        line, _, self._heard = b"".join(pieces).partition(b"\n")
        try:
            return msgspec.json.decode(line, type=Word)
        except msgspec.MsgspecError:
            raise _Gone(FAULT, "The scanner's process spoke nonsense.") from None

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return f"The scanner's process ended while it read this file (code {self._process.returncode})."


def stamp(found: os.stat_result) -> tuple[int, ...]:
    """A file as the kernel describes it; see `types.Judged`."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class _Gone(Exception):
    """The process will not answer."""

    def __init__(self, rule: Rule, meaning: str):
        super().__init__(meaning)
        self.rule, self.meaning = rule, meaning


def judged_as(rule: Rule, shown: str, size: int, meaning: str = "") -> Judged:
    """A file that nobody could look into, with the one finding that says so."""
    finding = Finding(rule.id, rule.severity, shown, "", meaning or rule.meaning, rule.remedy, rule.source)
    return Judged(shown, "unread", size, "", findings=(finding,))
