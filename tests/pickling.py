"""A writer of pickles that no pickler would write: names and calls by their words alone, in a protocol of choice."""

from __future__ import annotations

import struct
import tempfile
from typing import Any

from freehold.scan import formats
from freehold.types import Judged


class Name:
    """An import, by its words."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Code(bytes):
    """Instructions as they are."""


class Call:
    """A call, and the state that what it made is given."""

    def __init__(self, target: Any, *args: Any, state: Any = None, new: bool = False):
        self.target, self.args, self.state, self.new = target, args, state, new


def call(path: str, *args: Any, **more: Any) -> Call:
    """A call of module.name."""
    return Call(Name(*path.rsplit(".", 1)), *args, **more)


def dtype(
    text: str, order: str = "<", *, names: Any = None, fields: Any = None, size: int = -1, flags: int = 0
) -> Call:
    """A type of elements, as numpy pickles it."""
    return call("numpy.dtype", text, False, True, state=(3, order, None, names, fields, size, -1, flags))


class Pid:
    """A reference to something outside."""

    def __init__(self, value: Any):
        self.value = value


def code(value: Any) -> bytes:
    """The instructions that put a value on the stack, protocol 2 (bytes by protocol 3)."""
    if isinstance(value, Code):
        return bytes(value)
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        made = code(value.target) + code(value.args) + (b"\x81" if value.new else b"R")
        return made + (code(value.state) + b"b" if value.state is not None else b"")
    if isinstance(value, Pid):
        return code(value.value) + b"Q"
    if isinstance(value, bool) or value is None:
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"\x8a\x0b" + value.to_bytes(11, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, dict):
        return b"}(" + b"".join(code(part) for pair in value.items() for part in pair) + b"u"
    return (b"(%st" if isinstance(value, tuple) else b"](%se") % b"".join(map(code, value))


def pickled(value: Any) -> bytes:
    """One whole pickle."""
    return b"\x80\x03" + code(value) + b"."


def judge(content: bytes, name: str = "x.pkl") -> Judged:
    """What the scanners say of a file; every byte must be accounted for, and no parser may give up."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        found = formats.judge(file.fileno(), len(content), name)
    assert found.parsed + found.data + sum(span.end - span.start for span in found.unjudged) == found.size
    assert not [finding for finding in found.findings if finding.rule == "scan.fault"], found.findings
    return found


def rules(content: bytes, name: str = "x.pkl") -> set[str]:
    """The rules that a file breaks."""
    return {finding.rule for finding in judge(content, name).findings}


F8 = dtype("f8")
OBJECT = dtype("O8", "|", flags=63)


def array(shape: tuple[int, ...], kind: Any, raw: Any, core: str = "core") -> Call:
    """An array as numpy pickles it."""
    empty = (Name("numpy", "ndarray"), (0,), b"b")
    return Call(Name(f"numpy.{core}.multiarray", "_reconstruct"), *empty, state=(1, shape, kind, False, raw))


def tensor(
    key: str = "0", shape: tuple[int, ...] = (2, 3), count: int = 6, view: Any = (), kind: str = "Float"
) -> Call:
    """A tensor as torch.save pickles it; ``view`` as in the legacy format."""
    strides = tuple(struct.unpack("<2q", struct.pack("<2q", shape[-1], 1))[-len(shape) :])
    pid = Pid(("storage", Name("torch", f"{kind}Storage"), key, "cpu", count, *view))
    hooks = Call(Name("collections", "OrderedDict"))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), pid, 0, shape, strides, False, hooks)
