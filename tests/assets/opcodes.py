"""A pickle assembler: programs are written opcode by opcode, and nothing is ever loaded.

The opcodes are those of the standard library's ``pickle`` and ``pickletools``, which describe them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from assets.shelf import ECHO

STOP, POP, MARK, DUP = b".", b"0", b"(", b"2"
REDUCE, BUILD, TUPLE, EMPTY_TUPLE, EMPTY_DICT, EMPTY_LIST = b"R", b"b", b"t", b")", b"}", b"]"
SETITEM, SETITEMS, APPEND, APPENDS = b"s", b"u", b"a", b"e"
NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, MEMOIZE = b"\x81", b"\x92", b"\x93", b"\x94"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
TUPLE1, TUPLE2, TUPLE3, BINPERSID = b"\x85", b"\x86", b"\x87", b"Q"


def proto(number: int) -> bytes:
    return b"\x80" + bytes([number])


def frame(body: bytes, claimed: int | None = None) -> bytes:
    """``body`` in a frame, which may claim another length than its own."""
    return b"\x95" + struct.pack("<Q", len(body) if claimed is None else claimed) + body


def pickled(*parts: bytes, number: int = 2) -> bytes:
    """A whole pickle of one protocol; from 4 on in one frame, as pickle writes it."""
    body = b"".join(parts) + STOP
    return proto(number) + (frame(body) if number >= 4 else body) if number else body


def named(module: str, name: str) -> bytes:
    """GLOBAL: both names as text lines."""
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """STACK_GLOBAL: both names from the stack."""
    return short(module) + short(name) + STACK_GLOBAL


def short(text: str) -> bytes:
    data = text.encode()
    return b"\x8c" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def line(value: str) -> bytes:
    """STRING, as protocol 0 writes it."""
    return b"S'" + value.encode() + b"'\n"


def put(index: int) -> bytes:
    return b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)


def value(thing: object) -> bytes:
    """Plain data; bytes inside it are taken for a program that is already assembled."""
    match thing:
        case bytes():
            return thing
        case None:
            return NONE
        case bool():
            return TRUE if thing else FALSE
        case int():
            return integer(thing)
        case float():
            return b"G" + struct.pack(">d", thing)
        case str():
            return text(thing)
        case tuple():
            return MARK + b"".join(map(value, thing)) + TUPLE
        case list():
            return EMPTY_LIST + MARK + b"".join(map(value, thing)) + APPENDS
        case Mapping():
            return EMPTY_DICT + MARK + b"".join(value(k) + value(v) for k, v in thing.items()) + SETITEMS
    raise TypeError(type(thing))


def integer(number: int) -> bytes:
    if 0 <= number < 256:
        return b"K" + bytes([number])
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def blob(data: bytes) -> bytes:
    """SHORT_BINBYTES or BINBYTES."""
    return b"C" + bytes([len(data)]) + data if len(data) < 256 else b"B" + struct.pack("<I", len(data)) + data


def call(function: bytes, *arguments: object) -> bytes:
    """REDUCE: a function with its arguments."""
    return function + value(arguments) + REDUCE


def payload() -> bytes:
    """The program that runs a command: ``os.system`` of an echo."""
    return call(named("os", "system"), ECHO)


def attack(number: int = 2) -> bytes:
    """The shortest malicious pickle of a protocol."""
    if number == 0:
        return b"cos\nsystem\n(" + line(ECHO) + b"tR."
    return pickled(payload() if number < 4 else call(stacked("os", "system"), ECHO), number=number)
