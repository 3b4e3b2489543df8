"""What the tests of graph formats share: a writer of protocol buffers, and one judgement with its sums checked."""

import os
import struct
import tempfile
import time

from freehold.scan import formats


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value) -> bytes:
    """A varint, a float as four bytes, or text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def message(*fields: tuple) -> bytes:
    """A message of (number, value) pairs in this order."""
    return b"".join(field(number, value) for number, value in fields)


def judge(content: bytes, name: str = "x"):
    """Judge the bytes as a file, and hold the sums to what they promise."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        before = time.monotonic()
        judged = formats.judge(file.fileno(), os.fstat(file.fileno()).st_size, name)
    assert time.monotonic() - before < 20
    assert judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == len(content)
    assert not [found for found in judged.findings if found.rule == "scan.fault"], judged.findings
    return judged


def rules(judged) -> set:
    """The rules that hold or block, each with its severity."""
    return {(found.rule, str(found.severity)) for found in judged.findings if found.severity != "note"}


def damaged(content: bytes, cut: int, at: int, put: bytes) -> bytes:
    """The bytes with some of them written over, cut off at the end."""
    changed = content[:at] + put + content[at + len(put) :]
    return changed[: max(len(changed) - cut, 0)]
