"""The instructions of a pickle, and what each does to the machine, in the order of Lib/pickletools.py.

A number or string that Python's unpicklers read differently, or that only one of them reads, is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from freehold.scan.base import Malformed, Report
from freehold.scan.picklerules import BUFFER, EXTENSION, LARGE, MALFORMED, PICKLE_BOMB
from freehold.scan.values import SHORT, Global, Long, Node, is_bytes, is_forgotten, is_node, spread

if TYPE_CHECKING:
    from freehold.scan.machine import Machine

HIGHEST = 5  # protocol
MAX_SPREAD = 10**9
_NUMBER = re.compile(rb"(0|-?[1-9][0-9]{0,4299})\Z")  # to the C unpickler, I+1 and I-0 are True and False
_ANY_NUMBER = re.compile(rb"[+-]?(0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|[0-9_]+)\Z")
_INDEX = re.compile(rb"[0-9]{1,10}\Z")
_DISAGREE = "A number is written in a way that readers disagree on."
_FLOAT = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z|[+-]?(nan|inf)\Z", re.IGNORECASE)
_ESCAPE = re.compile(rb"\\(?:([\\'\"abfnrtv])|([0-7]{1,3})|x([0-9a-fA-F]{2})|(x))")
_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r",
            b"t": b"\t", b"v": b"\v"}  # fmt: skip


Operation = Callable[["Machine"], None]
OPERATIONS: list[Operation | None] = [None] * 256


def _op(code: bytes) -> Callable[[Operation], Operation]:
    def enter(operation: Operation) -> Operation:
        OPERATIONS[code[0]] = operation
        return operation

    return enter


def _most(steps: int) -> int:
    """How many values so many instructions may stand for: sharing once makes a square of them, not a power."""
    return max(10**6, min(steps * steps, MAX_SPREAD - 1))


@_op(b"I")
def _int(machine: Machine) -> None:
    line = machine.reader.line()
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _whole(machine, line))


def _whole(machine: Machine, line: bytes) -> int | Long:
    if _NUMBER.match(line):
        return int(line)
    digits = _said(line)
    if not _ANY_NUMBER.match(digits):
        raise machine.broken(_DISAGREE)
    machine.listener.add(MALFORMED, machine.start, _DISAGREE)
    try:
        return int(digits, 0) if len(digits) <= SHORT else Long("int", len(digits))
    except ValueError:
        return Long("int", len(digits))


def _said(line: bytes) -> bytes:
    """What the laxest of Python's unpicklers reads of a number: no blanks around it, nothing behind a zero byte."""
    return line.partition(b"\0")[0].strip()


@_op(b"J")
def _binint(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.reader.take(4), "little", signed=True))


@_op(b"K")
def _binint1(machine: Machine) -> None:
    machine.push(machine.reader.take(1)[0])


@_op(b"M")
def _binint2(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.reader.take(2), "little"))


@_op(b"L")
def _long(machine: Machine) -> None:
    line = machine.reader.line()
    machine.push(_whole(machine, line.removesuffix(b"L")))


@_op(b"\x8a")
def _long1(machine: Machine) -> None:
    machine.push(int.from_bytes(machine.reader.take(machine.reader.take(1)[0]), "little", signed=True))


@_op(b"\x8b")
def _long4(machine: Machine) -> None:
    count = _signed(machine)
    if count <= SHORT:
        machine.push(int.from_bytes(machine.reader.take(count), "little", signed=True))
    else:
        machine.pass_by(count)
        machine.push(Long("int", count))


def _signed(machine: Machine) -> int:
    count = int.from_bytes(machine.reader.take(4), "little", signed=True)
    if count < 0:
        raise machine.broken("A length is negative.")
    return count


@_op(b"S")
def _string(machine: Machine) -> None:
    line = machine.reader.line()
    if line != line.rstrip():  # old readers strip it, new ones refuse it
        machine.listener.add(MALFORMED, machine.start, "Blanks follow a string.")
        line = line.rstrip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[0] != line[-1]:
        raise machine.broken("A string has no quotes.")
    machine.old_string(_ESCAPE.sub(machine_escape, line[1:-1]) if b"\\" in line else line[1:-1])


def machine_escape(found: re.Match[bytes]) -> bytes:
    """The byte that an escape stands for."""
    if found[1]:
        return _ESCAPES[found[1]]
    if found[4]:
        raise Malformed(MALFORMED, "a string", "A string has a broken escape.")
    return bytes([int(found[2], 8) & 0xFF if found[2] else int(found[3], 16)])


@_op(b"T")
def _binstring(machine: Machine) -> None:
    count = _signed(machine)
    if count <= SHORT:
        machine.old_string(machine.reader.take(count))
    else:
        machine.pass_by(count)
        machine.push(Long("str", count))


@_op(b"U")
def _short_binstring(machine: Machine) -> None:
    machine.old_string(machine.reader.take(machine.reader.take(1)[0]))


@_op(b"B")
def _binbytes(machine: Machine) -> None:
    machine.binary(int.from_bytes(machine.reader.take(4), "little"))


@_op(b"C")
def _short_binbytes(machine: Machine) -> None:
    machine.binary(machine.reader.take(1)[0])


@_op(b"\x8e")
def _binbytes8(machine: Machine) -> None:
    machine.binary(int.from_bytes(machine.reader.take(8), "little"))


@_op(b"\x96")
def _bytearray8(machine: Machine) -> None:
    count = int.from_bytes(machine.reader.take(8), "little")
    machine.pass_by(count)
    machine.push(Node("bytearray", note=count))


@_op(b"\x97")
def _next_buffer(machine: Machine) -> None:
    machine.listener.add(BUFFER, machine.start)
    machine.push(Node("unknown"))


@_op(b"\x98")
def _readonly_buffer(machine: Machine) -> None:
    value = machine.pop()
    if not is_bytes(value) and not is_node(value, "bytearray"):
        raise machine.broken("What is no buffer is to be made read-only.")
    machine.push(Node("buffer", note=value.note) if is_node(value, "bytearray") else value)


@_op(b"N")
def _none(machine: Machine) -> None:
    machine.push(None)


@_op(b"\x88")
def _true(machine: Machine) -> None:
    machine.push(True)


@_op(b"\x89")
def _false(machine: Machine) -> None:
    machine.push(False)


@_op(b"V")
def _unicode(machine: Machine) -> None:
    try:
        found = machine.reader.line().decode("raw-unicode-escape")
    except UnicodeDecodeError:
        raise machine.broken("A text has a broken escape.") from None
    machine.line_of_text(found)


@_op(b"\x8c")
def _short_binunicode(machine: Machine) -> None:
    machine.text(machine.reader.take(1)[0])


@_op(b"X")
def _binunicode(machine: Machine) -> None:
    machine.text(int.from_bytes(machine.reader.take(4), "little"))


@_op(b"\x8d")
def _binunicode8(machine: Machine) -> None:
    machine.text(int.from_bytes(machine.reader.take(8), "little"))


@_op(b"F")
def _float(machine: Machine) -> None:
    line = machine.reader.line()
    if not _FLOAT.match(line) or len(line) > 400:
        machine.listener.add(MALFORMED, machine.start, _DISAGREE)
    try:
        machine.push(float(_said(line)))
    except ValueError:
        raise machine.broken(_DISAGREE) from None


@_op(b"G")
def _binfloat(machine: Machine) -> None:
    machine.push(struct.unpack(">d", machine.reader.take(8))[0])


@_op(b"]")
def _empty_list(machine: Machine) -> None:
    machine.push(Node("list"))


@_op(b"a")
def _append(machine: Machine) -> None:
    value = machine.pop()
    _grow(machine, [value])


@_op(b"e")
def _appends(machine: Machine) -> None:
    _grow(machine, machine.since_mark())


def _grow(machine: Machine, values: list[Any]) -> None:
    target = _whole_target(machine, "list", "deque")
    if target.kind != "unknown":
        machine.grow(target, values)


def _whole_target(machine: Machine, *kinds: str) -> Node:
    """What is to take in values, which must be of such a kind."""
    target = machine.top()
    if type(target) is Global:
        machine.refuse(target, "values are put into it")
        return Node("unknown")
    if type(target) is not Node or target.kind == "tuple":
        raise machine.broken("Values are put into what takes none.")
    if not is_node(target, *kinds):  # Python asks it for a method, which it may have
        machine.listener.add(MALFORMED, machine.start, "Values are put into what takes none.")
        return Node("unknown")
    if is_forgotten(target):
        machine.listener.add(LARGE, machine.start, "It changes a value that it made long before; that was let go.")
        return Node("unknown")
    return target


@_op(b"l")
def _list(machine: Machine) -> None:
    node = Node("list")
    machine.grow(node, machine.since_mark())
    machine.push(node)


@_op(b")")
def _empty_tuple(machine: Machine) -> None:
    machine.tuple_of([])


@_op(b"t")
def _tuple(machine: Machine) -> None:
    machine.tuple_of(machine.since_mark())


@_op(b"\x85")
def _tuple1(machine: Machine) -> None:
    machine.tuple_of([machine.pop()])


@_op(b"\x86")
def _tuple2(machine: Machine) -> None:
    second, first = machine.pop(), machine.pop()
    machine.tuple_of([first, second])


@_op(b"\x87")
def _tuple3(machine: Machine) -> None:
    third, second, first = machine.pop(), machine.pop(), machine.pop()
    machine.tuple_of([first, second, third])


@_op(b"}")
def _empty_dict(machine: Machine) -> None:
    machine.push(Node("dict"))


@_op(b"d")
def _dict(machine: Machine) -> None:
    node = Node("dict")
    machine.set_items(node, machine.since_mark())
    machine.push(node)


@_op(b"s")
def _setitem(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _set_items(machine, [key, value])


@_op(b"u")
def _setitems(machine: Machine) -> None:
    _set_items(machine, machine.since_mark())


def _set_items(machine: Machine, pairs: list[Any]) -> None:
    target = _whole_target(machine, "dict")
    if target.kind != "unknown":
        machine.set_items(target, pairs)
    elif len(pairs) % 2:
        raise machine.broken("A key has no value.")


@_op(b"\x8f")
def _empty_set(machine: Machine) -> None:
    machine.push(Node("set"))


@_op(b"\x90")
def _additems(machine: Machine) -> None:
    values = machine.since_mark()
    target = _whole_target(machine, "set")
    if target.kind != "unknown":
        _members(machine, target, values)


@_op(b"\x91")
def _frozenset(machine: Machine) -> None:
    values, node = machine.since_mark(), Node("frozenset")
    _members(machine, node, values)
    machine.push(node)


def _members(machine: Machine, node: Node, values: list[Any]) -> None:
    machine.spread_out(node, values)
    machine.grow(node, values)
    if not node.sound:
        raise machine.broken("A member of a set cannot be one.")


@_op(b"0")
def _pop(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.since_mark()
    else:
        machine.pop()


@_op(b"2")
def _dup(machine: Machine) -> None:
    machine.push(machine.top())


@_op(b"(")
def _mark(machine: Machine) -> None:
    machine.mark()


@_op(b"1")
def _pop_mark(machine: Machine) -> None:
    machine.since_mark()


@_op(b"g")
def _get(machine: Machine) -> None:
    machine.get(_index(machine))


def _index(machine: Machine) -> int:
    line = machine.reader.line()
    if _INDEX.match(line):
        return int(line)
    machine.listener.add(MALFORMED, machine.start, _DISAGREE)
    digits = _said(line)
    if digits.startswith(b"-") or len(digits) > SHORT:
        raise machine.broken("A place in the memo is no number.")
    try:
        return int(digits)
    except ValueError:
        raise machine.broken("A place in the memo is no number.") from None


@_op(b"h")
def _binget(machine: Machine) -> None:
    machine.get(machine.reader.take(1)[0])


@_op(b"j")
def _long_binget(machine: Machine) -> None:
    machine.get(int.from_bytes(machine.reader.take(4), "little"))


@_op(b"p")
def _put(machine: Machine) -> None:
    machine.put(_index(machine))


@_op(b"q")
def _binput(machine: Machine) -> None:
    machine.put(machine.reader.take(1)[0])


@_op(b"r")
def _long_binput(machine: Machine) -> None:
    machine.put(int.from_bytes(machine.reader.take(4), "little"))


@_op(b"\x94")
def _memoize(machine: Machine) -> None:
    machine.put(machine.memoised)


@_op(b"\x82")
def _ext1(machine: Machine) -> None:
    _extension(machine, 1)


@_op(b"\x83")
def _ext2(machine: Machine) -> None:
    _extension(machine, 2)


@_op(b"\x84")
def _ext4(machine: Machine) -> None:
    _extension(machine, 4)


def _extension(machine: Machine, width: int) -> None:
    machine.reader.take(width)
    machine.listener.add(EXTENSION, machine.start)
    machine.push(Node("unknown"))


@_op(b"c")
def _global(machine: Machine) -> None:
    module = machine.decode(machine.reader.line())
    machine.push(machine.find(module, machine.decode(machine.reader.line())))


@_op(b"\x93")
def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(machine.find(module, name))


@_op(b"R")
def _reduce(machine: Machine) -> None:
    args, target = machine.pop(), machine.pop()
    machine.push(_call(machine, target, args))


def _call(machine: Machine, target: Any, args: Any) -> Any:
    if not is_node(args, "tuple"):
        raise machine.broken("A call has no tuple of arguments.")
    return machine.call(target, args.items, cut=args.cut)


@_op(b"b")
def _build(machine: Machine) -> None:
    state, node = machine.pop(), machine.pop()
    machine.push(machine.build(node, state))


@_op(b"i")
def _inst(machine: Machine) -> None:
    args = machine.since_mark()
    module = machine.decode(machine.reader.line())
    machine.push(machine.call(machine.find(module, machine.decode(machine.reader.line())), args))


@_op(b"o")
def _obj(machine: Machine) -> None:
    args = machine.since_mark()
    if not args:
        raise machine.broken("An object has no class.")
    machine.push(machine.call(args[0], args[1:]))


@_op(b"\x81")
def _newobj(machine: Machine) -> None:
    args, target = machine.pop(), machine.pop()
    machine.push(_call(machine, target, args))


@_op(b"\x92")
def _newobj_ex(machine: Machine) -> None:
    keywords, args, target = machine.pop(), machine.pop(), machine.pop()
    if not is_node(keywords, "dict"):
        raise machine.broken("A call has no dict of named arguments.")
    known = type(target) is Global and target.known is not None
    if known and keywords.count:
        machine.push(machine.refuse(target, "it has named arguments"))
    else:
        machine.push(_call(machine, target, args))


@_op(b"\x80")
def _proto(machine: Machine) -> None:
    protocol = machine.reader.take(1)[0]
    if protocol > HIGHEST:
        raise machine.broken(f"There is no protocol {protocol}.")
    if machine.steps > 1:
        machine.listener.add(MALFORMED, machine.start, "The protocol is changed within the pickle.")
    machine.protocol = protocol


@_op(b".")
def _stop(machine: Machine) -> None:
    machine.top()
    machine.reader.outside()
    machine.ended = True
    if isinstance(machine.listener, Report) and spread(machine.stack[-1], MAX_SPREAD) > _most(machine.steps):
        raise Malformed(PICKLE_BOMB, machine.start, "Values refer to each other so that, written out, they would fill "
                        "the memory.")  # fmt: skip


@_op(b"P")
def _persid(machine: Machine) -> None:
    line = machine.reader.line()
    if not line.isascii():
        raise machine.broken("A reference is not ASCII.")
    machine.push(machine.persistent(line.decode("ascii") if len(line) <= SHORT else Long("str", len(line))))


@_op(b"Q")
def _binpersid(machine: Machine) -> None:
    machine.push(machine.persistent(machine.pop()))


@_op(b"\x95")
def _frame(machine: Machine) -> None:
    machine.reader.frame(int.from_bytes(machine.reader.take(8), "little"))
