"""A PyTorch checkpoint of plain tensors, written anew as safetensors: the same bytes under a header that runs nothing.

Called in the scanner's process, with a file that was judged and found clean. The tensors are found by our own reading
of the pickle (`pickles.py`); nothing is loaded.

Formats: torch.save's zip archives and its legacy stream; safetensors, whose header lists the tensors in the order of
their bytes, wider types first so that each is aligned.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from freehold.scan import pickles, zipindex
from freehold.scan.base import Malformed, MemoryTape, Report
from freehold.scan.knowntorch import Storage
from freehold.scan.tape import FileTape, Tape
from freehold.scan.values import Global, Node, is_node, numbers

_BLOCK = 1 << 20
_MAX_GATHERED = 64 << 20  # bytes of a storage that are held to put a view of it in order
_MAX_TENSORS = 1 << 20
_ROOM = (
    64 << 20
)  # bytes that the tensors may have beyond twice the file's own: some share a storage, and are written out
_LOCAL_HEADER = 30  # bytes of a zip's local header before name and extra fields
_STORED = 0
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}  # of memoryview, by the width of an element
_TYPES = {  # torch's name of an element's type -> safetensors'
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL", "float64": "F64", "float32": "F32", "float16": "F16",
    "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class Converted(Struct, frozen=True):
    """How many tensors were written, and what of the checkpoint is no tensor and was left behind."""

    tensors: int
    left: tuple[str, ...]


class Cannot(Exception):
    """The checkpoint is not one of plain tensors: the message says why, as a clause."""


class View(Struct, frozen=True):
    """One tensor: its type, shape and strides in elements, over ``storage`` from element ``offset`` on."""

    name: str
    type: str
    width: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    storage: str
    offset: int

    @property
    def length(self) -> int:
        """Its bytes, in a row."""
        return math.prod(self.shape) * self.width


def convert(descriptor: int, size: int, out: int, tell: Callable[[int], object] = lambda done: None) -> Converted:
    """Write the tensors of the open checkpoint to ``out`` as safetensors. ``tell`` hears of the bytes read, then of
    those written, a block at a time.

    Raises:
        Cannot: it is no checkpoint of plain tensors, or would become far more than it is.
        OSError: the disk is full, for example.
    """
    tape = FileTape(descriptor, size, tell)
    try:
        root, places = _zip(tape) if tape.peek(0, 4) == b"PK\3\4" else _legacy(tape)
    except Malformed as fault:
        raise Cannot(f"it is not as torch.save writes it: {fault.meaning}") from None
    finally:
        tape.close()
    left: list[str] = []
    views = sorted(_bounded(_views(root, left), 2 * size + _ROOM), key=lambda view: (-view.width, view.name))
    if not views:
        raise Cannot("there are no tensors in it")
    written = _Output(out, tell)
    written.add(_header(views))
    for view in views:
        _copy(descriptor, view, places, written)
    written.flush()
    return Converted(len(views), tuple(left[:100]))


def _bounded(views: Iterator[View], most: int) -> Iterator[View]:
    """The same, as long as they come to no more than ``most`` bytes. Raises Cannot."""
    total = 0
    for number, view in enumerate(views):
        total += view.length
        if total > most or number >= _MAX_TENSORS:
            raise Cannot(f"its tensors would fill more than {most >> 20} MiB, or are more than {_MAX_TENSORS}")
        yield view


def _zip(tape: Tape) -> tuple[Any, dict[str, int]]:
    """What data.pkl would make, and where each storage begins in the file."""
    report = Report("", lambda tape, report: None, size=tape.size)
    end = zipindex.find(tape)
    members = {entry.name: entry for entry in zipindex.entries(tape, end, report)}
    pickled = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise Cannot("it has no one data.pkl")
    root = pickled[0].removesuffix("data.pkl")
    order = members.get(root + "byteorder")
    if order is not None and _content(tape, order) != b"little":
        raise Cannot("its numbers are big-endian")
    machine = pickles.run(MemoryTape(_content(tape, members[pickled[0]])), report)
    if report.findings:
        raise Cannot(f"its pickle does more than list tensors: {report.findings[0].meaning}")
    places = {}
    for key, storage in machine.storages.items():
        member = members.get(f"{root}data/{key}")
        if member is None or member.method != _STORED or member.size != storage.count * storage.width:
            raise Cannot(f"the storage {key[:100]!r} is missing, packed or of another length")
        places[key] = _begin(tape, member)
    return machine.value, places


def _begin(tape: Tape, member: zipindex.Entry) -> int:
    names, extras = struct.unpack("<2H", tape.peek(member.offset + 26, 4))
    return member.offset + _LOCAL_HEADER + names + extras


def _content(tape: Tape, member: zipindex.Entry) -> bytes:
    if member.method != _STORED or member.size > _MAX_GATHERED:
        raise Cannot(f"{member.name[:100]!r} is packed or too large")
    begin, pieces = _begin(tape, member), []
    for start in range(0, member.size, _BLOCK):
        pieces.append(tape.peek(begin + start, min(_BLOCK, member.size - start)))
    return b"".join(pieces)


def _legacy(tape: Tape) -> tuple[Any, dict[str, int]]:
    report = Report("", lambda tape, report: None, size=tape.size)
    pickles.run(tape, report), pickles.run(tape, report)  # the magic number and the protocol's
    if _is_big_endian(pickles.run(tape, report).value):
        raise Cannot("its numbers are big-endian")
    body = pickles.run(tape, report)
    keys = pickles.run(tape, report).value
    if report.findings:
        raise Cannot(f"its pickle does more than list tensors: {report.findings[0].meaning}")
    places = {}
    for key in keys.items:
        storage: Storage = body.storages[key]
        places[key] = tape.at + 8
        tape.data(8 + storage.count * storage.width)
    return body.value, places


def _is_big_endian(machine: Any) -> bool:
    """What the third pickle says of the machine that wrote it."""
    return is_node(machine, "dict") and ("little_endian", False) in _items(machine)


def _views(root: Any, left: list[str]) -> Iterator[View]:
    """The tensors of nested dicts, by dotted names; the one dict that holds them all gives its name away."""
    while is_node(root, "dict") and (inner := _only(root)) is not None:
        left += [str(key) for key, value in _items(root) if value is not inner]
        root = inner
    if not is_node(root, "dict"):
        raise Cannot("it holds no dict of tensors")
    yield from _walk(root, "", left)


def _only(root: Node) -> Node | None:
    """The one value of a dict that holds tensors, where that is a dict itself."""
    holding = [value for _, value in _items(root) if _holds(value)]
    return holding[0] if len(holding) == 1 and is_node(holding[0], "dict") else None


def _holds(value: Any) -> bool:
    if is_node(value, "tensor"):
        return True
    return is_node(value, "dict") and any(_holds(inner) for _, inner in _items(value))


def _walk(node: Node, prefix: str, left: list[str]) -> Iterator[View]:
    for key, value in _items(node):
        name = f"{prefix}{key}"
        if is_node(value, "tensor"):
            yield _view(name, value)
        elif is_node(value, "dict") and _holds(value):
            yield from _walk(value, f"{name}.", left)
        else:
            left.append(name)


def _items(node: Node) -> list[tuple[Any, Any]]:
    if node.cut:
        raise Cannot("it lists more than is read")
    return list(zip(node.items[::2], node.items[1::2], strict=True))


def _view(name: str, tensor: Node) -> View:
    while tensor.source is not None and tensor.source.name.startswith("_rebuild_parameter"):
        tensor = tensor.args[0]
    args = tensor.args or ()
    if tensor.source is None or tensor.source.name not in _PLAIN or not is_node(args[0], "storage"):
        raise Cannot(f"the tensor {name[:100]!r} is of a kind that safetensors does not have")
    storage: Storage = args[0].note
    named = next((arg.name for arg in args[4:] if type(arg) is Global and arg.name in _TYPES), None)
    kind = _TYPES.get(named or storage.type)
    if kind is None:
        raise Cannot(f"the tensor {name[:100]!r} has elements of the type {storage.type or 'unknown'}")
    width = int("".join(filter(str.isdigit, kind.split("_")[0])) or 8) // 8
    return View(name, kind, width, numbers(args[2]), numbers(args[3]), storage.key, args[1])


_PLAIN = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")


def _header(views: list[View]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for view in views:
        if view.name in entries:
            raise Cannot(f"two tensors are called {view.name[:100]!r}")
        entries[view.name] = {"dtype": view.type, "shape": view.shape, "data_offsets": (at, at + view.length)}
        at += view.length
    content = msgspec.json.encode(entries)
    content += b" " * (-len(content) % 8)
    return struct.pack("<Q", len(content)) + content


def _copy(descriptor: int, view: View, places: dict[str, int], out: _Output) -> None:
    begin = places[view.storage] + view.offset * view.width
    if not view.length:
        return
    if _in_a_row(view):
        for start in range(0, view.length, _BLOCK):
            out.add(_read(descriptor, begin + start, min(_BLOCK, view.length - start)))
        return
    reach = (1 + sum((count - 1) * step for count, step in zip(view.shape, view.stride, strict=True))) * view.width
    if reach > _MAX_GATHERED or view.width not in _FORMATS:
        raise Cannot(f"the tensor {view.name[:100]!r} is a view that is too large to put in order")
    elements = memoryview(_read(descriptor, begin, reach)).cast(_FORMATS[view.width])
    count, step = view.shape[-1], view.stride[-1]
    for row in _rows(view.shape[:-1], view.stride[:-1]):
        for start in range(0, count, _BLOCK):  # one number for all of a row may stand for more than memory holds
            some = min(_BLOCK, count - start)
            first = row + start * step
            out.add(bytes(elements[first : first + (some - 1) * step + 1 : step]) if step else
                    bytes(elements[row : row + 1]) * some)  # fmt: skip


def _in_a_row(view: View) -> bool:
    due = 1
    for count, step in zip(reversed(view.shape), reversed(view.stride), strict=True):
        if count != 1 and step != due:
            return False
        due *= count
    return True


def _rows(shape: tuple[int, ...], stride: tuple[int, ...]) -> Iterator[int]:
    """Where each row of a view begins, in elements."""
    if not shape:
        yield 0
        return
    for place in range(shape[0]):
        for rest in _rows(shape[1:], stride[1:]):
            yield place * stride[0] + rest


def _read(descriptor: int, begin: int, length: int) -> bytes:
    content = os.pread(descriptor, length, begin)
    if len(content) != length:
        raise Cannot("it became shorter while it was read")
    return content


class _Output:
    """An open file that is written to in blocks, however small the pieces are."""

    def __init__(self, descriptor: int, tell: Callable[[int], object]):
        self._descriptor, self._tell = descriptor, tell
        self._waiting, self._done = bytearray(), 0

    def add(self, content: bytes) -> None:
        """Write, or keep for the next block."""
        self._waiting += content
        if len(self._waiting) >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what was kept. Raises OSError."""
        left = memoryview(bytes(self._waiting))
        self._done += len(left)
        self._waiting.clear()
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._tell(self._done)
