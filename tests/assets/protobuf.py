"""Protocol buffers on the wire: the two kinds of field that these formats need. Format: protobuf.dev, "Encoding"."""

from __future__ import annotations

import struct


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; a negative number is its 64-bit complement."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: whole numbers as varint, fractions as 32 bits, the rest with its length."""
    match value:
        case int():
            return varint(number << 3) + varint(value)
        case float():
            return varint(number << 3 | 5) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def message(*fields: tuple[int, int | float | str | bytes]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)


def claiming(number: int, length: int, value: bytes = b"") -> bytes:
    """A field that claims another length than it has."""
    return varint(number << 3 | 2) + varint(length) + value
