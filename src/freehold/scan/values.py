"""What a pickle would make, as far as it must be known to judge it: names, kinds, shapes and lengths, never objects.

None, bool, int, float, complex, and text and bytes of up to 256 are themselves; the rest is one of the three below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freehold.scan.globals import Known

MAX_DEPTH = 10_000  # containers in containers: whoever walks, hashes or frees them runs out of stack
SHORT = 256  # characters or bytes of a string that is kept
MAX_SHAPE = 64  # dimensions
HASHABLE = frozenset({"plain", "frozenset", "tensor", "dtype", "scalar", "storage", "device", "size", "unknown"})


class Long:
    """A string or number too long to keep. ``kind`` is str, bytes or int; ``length`` in characters or bytes."""

    __slots__ = ("kind", "length")

    def __init__(self, kind: str, length: int):
        self.kind, self.length = kind, length


class Global:
    """What the pickle imports: ``known`` is what may be done with it, None where nothing may."""

    __slots__ = ("known", "module", "name")

    def __init__(self, module: str, name: str, known: Known | None):
        self.module, self.name, self.known = module, name, known

    @property
    def path(self) -> str:
        """module.name"""
        return f"{self.module}.{self.name}"


class Node:
    """Anything with an inside. ``kind`` says what may be done to it: list, dict, set, tuple, array, unknown, ...

    ``items`` are the first of its ``count`` items (of a dict: keys and values by turns); ``sound`` says whether all of
    them so far can be hashed (of a dict: whether all keys can be names of attributes). ``source`` and ``args`` say
    what made it, ``state`` what BUILD gave it, ``note`` what its kind needs to remember; ``depth`` counts
    containers in containers.
    """

    __slots__ = ("args", "count", "depth", "items", "kind", "note", "sound", "source", "state")

    def __init__(
        self, kind: str, items: list[Any] | None = None, *, source: Global | None = None, args: Any = None,
        note: Any = None,
    ):  # fmt: skip
        self.kind, self.source, self.args, self.note, self.state = kind, source, args, note, None
        self.items: list[Any] = items if items is not None else []
        self.count, self.sound, self.depth = len(self.items), True, 0

    @property
    def cut(self) -> bool:
        """Were items let go, so that the inside is not known whole?"""
        return len(self.items) < self.count


class Ambiguous:
    """A Python 2 string that is not ASCII: bytes to one reader, text to another. ``value`` is its bytes."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | Long):
        self.value = value


def hashable(value: Any) -> bool:
    """May it be a key of a dict or a member of a set?"""
    if type(value) is not Node:
        return True
    return value.sound if value.kind == "tuple" else value.kind in HASHABLE


def depth(value: Any) -> int:
    """How many containers lie in each other."""
    return value.depth if type(value) is Node else 0


def attribute(key: Any) -> bool:
    """Is it an attribute's name that hides nothing of Python's own?"""
    return type(key) is str and not (key.startswith("__") and key.endswith("__"))


def is_node(value: Any, *kinds: str) -> bool:
    """Is it a node of one of these kinds (or unknown, which was reported already)?"""
    return type(value) is Node and (value.kind in kinds or value.kind == "unknown")


def is_int(value: Any) -> bool:
    """A whole number that is no truth value, of 64 bits."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def is_bytes(value: Any) -> bool:
    """Bytes, short or long."""
    return type(value) is bytes or (type(value) is Long and value.kind == "bytes")


def numbers(value: Any) -> tuple[int, ...] | None:
    """The lengths in a tuple, a list or a torch.Size, each 0 or more; None where it is anything else."""
    if type(value) is Node and value.kind == "size" and value.args:
        value = value.args[0]
    if not is_node(value, "tuple", "list") or value.count > MAX_SHAPE or value.cut:
        return None
    found = tuple(value.items)
    return found if all(type(number) is int and 0 <= number < 1 << 63 for number in found) else None


def length(value: Any) -> int | None:
    """The length of bytes or of a Python 2 string (one byte a character), None where it is something else."""
    if type(value) is Ambiguous:
        value = value.value
    if type(value) is Long:
        return value.length if value.kind != "int" else None
    if type(value) is Node:
        return value.note if value.kind in ("bytearray", "buffer") else None
    return len(value) if isinstance(value, (bytes, str)) else None


def spread(root: Any, most: int) -> int:
    """How many values there would be if nothing were shared; ``most`` where there are more. What contains itself
    counts once, and what is too deep counts as more."""
    if type(root) is not Node:
        return 1
    totals: dict[int, int] = {id(root): 1}
    way = [(root, _children(root))]
    while way:
        node, children = way[-1]
        for child in children:
            if type(child) is not Node:
                totals[id(node)] += 1
            elif id(child) in totals:
                totals[id(node)] = min(totals[id(node)] + totals[id(child)], most)
            else:
                totals[id(child)] = 1
                way.append((child, _children(child)))
                if len(way) > MAX_DEPTH:
                    return most
                break
        else:
            way.pop()
            if way:
                parent = id(way[-1][0])
                totals[parent] = min(totals[parent] + totals[id(node)], most)
    return totals[id(root)]


def _children(node: Node) -> Iterator[Any]:
    yield from node.items
    yield from node.args or ()
    if node.state is not None:
        yield node.state


_SHARED = {kind: Node(kind) for kind in ("list", "dict", "set", "frozenset", "record", "deque", "plain", "scalar")}
_SHARED |= {True: Node("tuple"), False: Node("tuple")}  # a tuple by whether it can be hashed
for _key, _node in _SHARED.items():
    _node.sound, _node.count = _key is not False, 1
_ALL_SHARED = frozenset(_SHARED.values())


def forget(value: Any) -> Any:
    """Something of the same kind that takes no memory of its own; its inside is not known any more."""
    if type(value) is not Node or (value.source is not None and value.kind not in ("plain", "scalar")):
        return value
    return _SHARED.get(value.sound if value.kind == "tuple" else value.kind, value)


def is_forgotten(value: Any) -> bool:
    """Was its inside let go by `forget`?"""
    return value in _ALL_SHARED
