"""What a pickle may use of Python's own: plain data, and nothing that reads, writes or runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from freehold.scan.known import (
    Known,
    Refused,
    anything,
    bytes_of,
    call,
    is_global,
    kinds,
    named,
    number,
    optional,
    text,
    words,
)
from freehold.scan.values import Global, Long, Node, hashable, is_bytes, is_int, is_node, length


def _members(value: Any) -> bool:
    """A list or tuple of what can be hashed."""
    return is_node(value, "list", "tuple") and value.sound


def _pairs(value: Any) -> bool:
    """What a dict can be made of: a dict, or a list of pairs with keys that can be hashed."""
    if is_node(value, "dict"):
        return True
    if not is_node(value, "list") or value.cut:
        return False
    return all(
        is_node(pair, "list", "tuple") and pair.count == 2 and hashable((pair.items or [0])[0]) for pair in value.items
    )


def _factory(value: Any) -> bool:
    return value is None or (type(value) is Global and value.path in _FACTORIES)


_FACTORIES = words(
    """builtins.list builtins.dict builtins.int builtins.float builtins.set builtins.str builtins.tuple builtins.bool
    builtins.bytes builtins.frozenset builtins.complex builtins.object collections.OrderedDict collections.Counter
    collections.deque collections.defaultdict"""
)


def _encode(source: Global, args: Sequence[Any]) -> Any:
    """_codecs.encode: bytes as protocols 0 to 2 write them."""
    if len(args) != 2 or args[1] not in ("latin1", "latin-1", "iso8859-1"):
        raise Refused("another encoding than latin1")
    if is_node(args[0], "judged"):
        return args[0]
    if type(args[0]) is Long and args[0].kind == "str":
        return Long("bytes", args[0].length)
    if type(args[0]) is not str:
        raise Refused("something else than text")
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("text beyond latin1") from None


def _bytearray(source: Global, args: Sequence[Any]) -> Node:
    if len(args) == 2 and args[1] not in ("latin1", "latin-1"):
        raise Refused("another encoding than latin-1")
    found = length(args[0]) if 1 <= len(args) <= 2 else 0 if not args else None
    if found is None or (len(args) == 1 and not is_bytes(args[0])):
        raise Refused("something else than bytes")
    return Node("bytearray", source=source, args=args, note=found)


def _no_bytes(source: Global, args: Sequence[Any]) -> bytes:
    """bytes(), as protocols 0 to 2 write b''."""
    if args:
        raise Refused("arguments")
    return b""


def _fraction(source: Global, args: Sequence[Any]) -> Node:
    """'3/4' or (3, 4), never '1e9999999', whose digits would all be worked out."""
    sound = (len(args) == 1 and type(args[0]) is str and re.fullmatch(r"-?[0-9]+(/0*[1-9][0-9]*)?", args[0])) or (
        len(args) == 2 and type(args[0]) is int and type(args[1]) is int and args[1]
    )
    if not sound:
        raise Refused("no fraction of two whole numbers")
    return Node("plain", source=source, args=args)


def _type(source: Global, args: Sequence[Any]) -> Node:
    if len(args) != 1 or args[0] is not None:
        raise Refused("asking for another type than None's")
    return Node("plain", source=source, args=args)


def _reconstructor(source: Global, args: Sequence[Any]) -> Node:
    plain = len(args) == 3 and args[2] is None and is_global(args[1], "builtins.object")
    if len(args) == 3 and type(args[0]) is Global and args[0].known is None:
        return Node("unknown", source=args[0])  # reported when it was imported
    if plain and named("record", "uuid", "joblib")(args[0]):
        return Node(args[0].known.kind, source=args[0], args=[])
    raise Refused("a class that is not plain data")


def _paths(source: Global, args: Sequence[Any]) -> Node:
    if not all(type(part) is str for part in args):
        raise Refused("something else than text")
    return Node("plain", source=source, args=args)


PYTHON = {
    "builtins": {
        "set": call("set", _members, least=0), "frozenset": call("frozenset", _members, least=0),
        "complex": call("plain", number, number, least=1), "bytearray": Known("bytearray", _bytearray),
        "range": call("plain", is_int, is_int, is_int, least=1), "type": Known("value", _type),
        "bytes": Known("value", _no_bytes),
        "slice": call("slice", anything, anything, anything, least=1),
        **dict.fromkeys(words("int float str bool list dict tuple object Ellipsis NotImplemented"), Known()),
    },
    "collections": {
        "OrderedDict": call("dict", _pairs, least=0), "Counter": call("dict", _pairs, least=0),
        "defaultdict": call("dict", _factory, _pairs, least=0),
        "deque": call("deque", kinds("list", "tuple"), optional(is_int), least=0),
    },
    "datetime": {
        "datetime": call("plain", bytes_of(10), kinds("plain"), least=1), "date": call("plain", bytes_of(4)),
        "time": call("plain", bytes_of(6), kinds("plain"), least=1),
        "timezone": call("plain", kinds("plain"), text, least=1),
        "timedelta": call("plain", is_int, is_int, is_int, least=0),
    },
    "decimal": {"Decimal": call("plain", text)},
    "_decimal": {"Decimal": call("plain", text)},
    "_pydecimal": {"Decimal": call("plain", text)},
    "fractions": {"Fraction": Known("plain", _fraction)},
    "uuid": {"UUID": call("uuid")},
    "argparse": {"Namespace": call("record")},
    "types": {"SimpleNamespace": call("record")},
    "copyreg": {"_reconstructor": Known("value", _reconstructor)},
    "_codecs": {"encode": Known("value", _encode)},
    "array": {
        "array": call("numbers", text, kinds("list"), least=1),
        "_array_reconstructor": call("numbers", named("numbers"), text, is_int, bytes_of()),
    },
    "random": {"Random": call("random")},
    "typing": dict.fromkeys(
        words("Any Dict List Tuple Set FrozenSet Optional Union Callable Sequence Mapping Iterable Type"), Known()
    ),
    **{
        module: dict.fromkeys(
            words("PurePath PurePosixPath PureWindowsPath Path PosixPath WindowsPath"), Known("plain", _paths)
        )
        for module in ("pathlib", "pathlib._local")
    },
}  # fmt: skip
