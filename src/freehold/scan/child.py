"""What runs inside the scanner's process: put on the seal, then judge one open file after another.

The gateway's side (`sandbox.py`) sends each file's name and size with its descriptor over the Unix socket that is our
standard input; we see no file system and no network, and answer in lines of JSON on standard output. The end of input
is the order to stop. Everything that a scanner needs is imported before the seal is on.
"""

from __future__ import annotations

import codecs
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from freehold import seal
from freehold.scan import convert, formats
from freehold.seal import kernel
from freehold.types import Judged, Layer

MEMORY = 512 << 20  # bytes
SCRATCH = 64 << 30  # bytes that one file may unpack to on the disk
TELL_EVERY = 32 << 20  # bytes
TELL_AFTER = 2.0  # seconds
MAX_ORDER = 64 << 10
_CODECS = (
    "ascii", "cp437", "cp1252", "iso8859-1", "latin-1", "raw_unicode_escape", "unicode_escape", "utf-8", "utf-8-sig",
    "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le",
)  # fmt: skip


class Order(Struct, frozen=True):
    """A file to judge; its descriptor, and that of an empty file to unpack into, come with it. With ``convert`` the
    empty file is what to write it to as safetensors instead."""

    name: str
    size: int
    convert: bool = False


class Word(Struct, frozen=True):
    """What we say: our seal once, then for each file how far we are, and in the end what we found or why we could not
    read it."""

    layers: tuple[Layer, ...] | None = None
    done: int | None = None
    judged: Judged | None = None
    failed: str | None = None
    converted: convert.Converted | None = None


def main() -> int:
    """Judge files until there are no more. Exit code 0; 1 where the seal is required and cannot be had."""
    mode = sys.argv[1]
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to whoever asked, who then ends us
    for codec in _CODECS:  # which would be looked for on disk when they are first used
        codecs.lookup(codec)
    layers = seal.put_on(mode, seal.scanner_plan(file_bytes=SCRATCH, data_bytes=MEMORY))
    _say(Word(layers=layers))
    if mode == "required" and seal.missing(layers):
        return 1
    orders = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER, 2)
        if not message:
            return 0
        try:
            order = msgspec.json.decode(message, type=Order)
            (_convert if order.convert else _judge)(order, *descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _teller() -> Callable[[int], None]:
    """Says how far we are, now and then: whoever is silent for long is ended."""
    told, at = 0, time.monotonic()

    def tell(done: int) -> None:
        nonlocal told, at
        if done - told >= TELL_EVERY or time.monotonic() - at >= TELL_AFTER:
            told, at = done, time.monotonic()
            _say(Word(done=done))

    return tell


def _judge(order: Order, descriptor: int, scratch: int) -> None:
    try:
        judged = formats.judge(descriptor, order.size, order.name, _teller(), scratch)
    except OSError as error:
        _say(Word(failed=error.strerror or str(error)))
    else:
        _say(Word(judged=judged))


def _convert(order: Order, descriptor: int, out: int) -> None:
    try:
        _say(Word(converted=convert.convert(descriptor, order.size, out, _teller())))
    except OSError as error:
        _say(Word(failed=error.strerror or str(error)))
    except Exception as error:  # noqa: BLE001 - it was judged clean before; whatever is wrong now, it is not converted
        _say(Word(failed=str(error) or type(error).__name__))


def _say(word: Word) -> None:
    left = memoryview(msgspec.json.encode(word) + b"\n")
    while left:
        left = left[os.write(1, left) :]


if __name__ == "__main__":
    sys.exit(main())
