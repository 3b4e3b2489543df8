"""A pickle machine of our own: it runs a pickle on kinds and names alone, so that nothing is imported, called or made.

Format: Python 3.14, Lib/pickletools.py; PEP 307, 3154 and 574 (protocols 0 to 5). Where Python's two unpicklers and
its disassembler read the same bytes differently, the bytes are refused.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from freehold.scan.base import Malformed, MemoryTape, Report, Rule, Tape
from freehold.scan.globals import CODE, WORDS, look, shown
from freehold.scan.known import Refused, attributes
from freehold.scan.knownnumpy import build_array, build_dtype
from freehold.scan.knowntorch import Storage
from freehold.scan.pickleops import OPERATIONS
from freehold.scan.picklereader import Reader
from freehold.scan.picklerules import CALL, HIDDEN, LARGE, MALFORMED, PERSISTENT, PICKLE_BOMB
from freehold.scan.tape import MAX_READ, Window
from freehold.scan.values import (
    MAX_DEPTH,
    SHORT,
    Ambiguous,
    Global,
    Long,
    Node,
    attribute,
    depth,
    forget,
    hashable,
    is_int,
    is_node,
)  # fmt: skip

DATA = 1 << 16  # from this length on, bytes are somebody's data, not structure
ROOM = 400_000  # items that are kept whole; beyond, each container keeps its first FEW
FEW = 64
MAX_STACK = 1 << 22  # plain values
MAX_NODES = 400_000  # of them with an inside; and marks
MAX_MEMO = 1 << 24
MAX_IMPORTS = 10_000
MAX_SAID = 40  # of them that are said where they are only unknown
MAX_WORK = 10_000_000
MAX_SAME = 256  # numbers in one dict or set with the same hash


_FROM_BYTES = "torch.storage._load_from_bytes"
_MODULUS = (1 << 61) - 1  # Python takes the hash of a number modulo this
_MISSING = object()
_NOTHING = Node("tuple")
Arrays = Callable[["Machine", Node], Any]  # reads what joblib writes between instructions


class Listener(Protocol):
    """Whoever hears of findings: a `Report`, or the trial's own notes."""

    def add(self, rule: Rule, at: int | str = "", meaning: str = "") -> None: ...


class Machine:
    """One pickle being run: its stack, its marks and its memo, of values as `values.py` has them."""

    def __init__(self, tape: Tape, listener: Listener, arrays: Arrays):
        self.reader, self.listener, self.arrays = Reader(tape), listener, arrays
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.fence = 0  # the stack belongs to an outer mark below this
        self.memo: list[Any] = []
        self.far: dict[int, Any] = {}  # entries of the memo with numbers far beyond what there is
        self.memoised = 0  # entries of the memo that are set
        self.protocol = self.start = self.steps = 0
        self.work = 0  # values that calls have walked through
        self.used: set[int] = set()  # instructions
        self.room = ROOM
        self.ended = self.called = False
        self.imported: dict[str, tuple[str, str]] = {}  # by path, module and name
        self.found: dict[tuple[str, str, int], Global] = {}
        self.weighed = MAX_NODES  # the length of the stack up to which its nodes were counted
        self.storages: dict[str, Storage] = {}
        self.tensors = 0

    def run(self) -> Any:
        """Go on to STOP and give the value."""
        reader, operations = self.reader, OPERATIONS
        while not self.ended:
            self.start = reader.at
            code = reader.opcode()
            operation = operations[code]
            if operation is None:
                raise Malformed(MALFORMED, self.start, f"There is no instruction {code:#04x}.")
            self.steps += 1
            if self.steps <= 64:
                self.used.add(code)
            elif not self.steps & 0xFFFF:
                self.check_stack()
            operation(self)
        reader.sync()
        return self.value

    @property
    def value(self) -> Any:
        """What it would make, once it has ended."""
        return self.stack[-1]

    # the stack

    def check_stack(self) -> None:
        """Refuse a stack that only grows."""
        if len(self.stack) > MAX_STACK or len(self.marks) > MAX_NODES or self.is_heavy():
            raise Malformed(PICKLE_BOMB, self.start, "Its stack grows without end.")

    def is_heavy(self) -> bool:
        """Are more nodes on the stack than memory is for? Counted anew each time that it is a quarter longer."""
        height = len(self.stack)
        if height < self.weighed // 2:
            self.weighed = MAX_NODES
        if height <= self.weighed:
            return False
        self.weighed = height + height // 4
        return sum(type(value) is Node for value in self.stack) > MAX_NODES

    def broken(self, meaning: str) -> Malformed:
        """The pickle cannot go on here."""
        return Malformed(MALFORMED, self.start, meaning)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top value off."""
        if len(self.stack) <= self.fence:
            raise self.broken("It takes more from its stack than is there.")
        return self.stack.pop()

    def top(self) -> Any:
        """The top value, left where it is."""
        if len(self.stack) <= self.fence:
            raise self.broken("It takes more from its stack than is there.")
        return self.stack[-1]

    def mark(self) -> None:
        """Begin a row of values."""
        self.marks.append(len(self.stack))
        self.fence = len(self.stack)

    def since_mark(self) -> list[Any]:
        """Take all values since the last mark off, and the mark."""
        if not self.marks:
            raise self.broken("It goes back to a mark that was not set.")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        self.fence = self.marks[-1] if self.marks else 0
        return values

    # making values

    def grow(self, node: Node, values: Sequence[Any]) -> None:
        """Put values into a list, set or deque."""
        node.count += len(values)
        if node.sound:
            node.sound = all(map(hashable, values))
        self._deepen(node, values)
        self._keep(node, values)

    def set_items(self, node: Node, pairs: list[Any]) -> None:
        """Put keys and values, by turns, into a dict."""
        if len(pairs) % 2:
            raise self.broken("A key has no value.")
        keys = pairs[::2]
        if not all(map(hashable, keys)):
            raise self.broken("The key of a dict cannot be one.")
        self.spread_out(node, keys)
        self._deepen(node, pairs)
        node.count += len(pairs)
        if node.sound:
            node.sound = all(map(attribute, keys))
        self._keep(node, pairs)

    def tuple_of(self, values: list[Any]) -> None:
        """Put a tuple on the stack."""
        if not values:
            self.stack.append(_NOTHING)
            return
        node = Node("tuple", values)
        node.sound = all(map(hashable, values))
        self._deepen(node, values)
        if self.room <= 0 and len(values) > FEW:
            node.items = values[:FEW]
        self.room -= len(values)
        self.stack.append(node)

    def _deepen(self, node: Node, values: Sequence[Any]) -> None:
        node.depth = max(node.depth, 1 + max(map(depth, values), default=0))
        if node.depth > MAX_DEPTH:
            raise Malformed(PICKLE_BOMB, self.start, f"Values lie in each other more than {MAX_DEPTH} deep.")

    def spread_out(self, node: Node, keys: Sequence[Any]) -> None:
        """Refuse keys that all fall into one place of the table: large numbers with the same remainder."""
        large = [key for key in keys if type(key) is int and not -_MODULUS < key < _MODULUS]
        if not large:
            return
        if node.note is None:
            node.note = {}
        for place in map(hash, large):
            if place in node.note or len(node.note) < FEW:
                node.note[place] = node.note.get(place, 0) + 1
            if node.note.get(place, 0) > MAX_SAME:
                raise Malformed(PICKLE_BOMB, self.start, "Its keys were chosen so that a table of them takes for ever.")

    def _keep(self, node: Node, values: Sequence[Any]) -> None:
        if self.room > 0:
            self.room -= 1 + len(values)
            node.items.extend(values)
        elif len(node.items) == node.count - len(values) and node.count <= FEW:
            node.items.extend(map(forget, values))

    def put(self, index: int) -> None:
        """Remember the top value."""
        value, memo = self.top(), self.memo
        if self.room <= 0:
            value = _small(value)
        else:
            self.room -= 1
        if index >= len(memo):
            if self.memoised >= MAX_MEMO:
                raise Malformed(LARGE, self.start, f"It remembers more than {MAX_MEMO} values.")
            if index > max(1 << 20, 4 * self.memoised):
                self._put_far(index, value)
                return
            if index in self.far:
                self.memoised -= 1
                del self.far[index]
            memo.extend([_MISSING] * (index - len(memo)))
            memo.append(value)
            self.memoised += 1
            return
        self.memoised += memo[index] is _MISSING
        memo[index] = value

    def _put_far(self, index: int, value: Any) -> None:
        """Python makes room for all numbers below, and goes on: so it is said, and what comes next is judged too."""
        if not self.far:
            self.listener.add(PICKLE_BOMB, self.start, "It numbers what it remembers far beyond what there is.")
        self.memoised += index not in self.far
        if len(self.far) >= MAX_NODES:
            raise Malformed(PICKLE_BOMB, self.start, "It numbers what it remembers far beyond what there is.")
        self.far[index] = value

    def get(self, index: int) -> None:
        """Put on the stack what was remembered."""
        value = self.memo[index] if index < len(self.memo) else _MISSING
        if value is _MISSING and self.far:
            value = self.far.get(index, _MISSING)
        if value is _MISSING:
            raise self.broken(f"It recalls the value {index}, which was not remembered.")
        self.stack.append(value)

    # imports and calls

    def find(self, module: Any, name: Any) -> Global | Node:
        """What an import gives; said if it is not plain."""
        module, name = _plain_text(module), _plain_text(name)
        if module is None or name is None:
            self.listener.add(HIDDEN, self.start)
            return Node("unknown")
        key = (module, name, self.protocol)
        if key in self.found:
            return self.found[key]
        found, rule, meaning = look(module, name, self.protocol)
        if rule and rule is not CODE and len(self.imported) >= MAX_SAID:
            rule = None  # a thousand strange names must not crowd out what can run code
        if rule and found.path not in self.imported:
            self.listener.add(rule, self.start, meaning)
        if len(self.found) >= MAX_IMPORTS:
            raise Malformed(PICKLE_BOMB, self.start, f"It imports more than {MAX_IMPORTS} names.")
        self.found[key], self.imported[found.path] = found, (found.module, found.name)
        return found

    def call(self, target: Any, args: Sequence[Any], *, cut: bool = False) -> Any:
        """What a call makes; said if it is one that no sound file makes."""
        self.called = True
        if type(target) is not Global:
            return self._call_through(target)
        if target.known is None:
            return Node("unknown", source=target)  # said when it was imported
        if target.known.make is None:
            return self.refuse(target, "cannot be called")
        if cut:
            return self.refuse(target, "has too many arguments")
        self.spend(args)
        try:
            made = target.known.make(target, args)
        except Refused as fault:
            return self.refuse(target, str(fault))
        return self._made(made)

    def spend(self, values: Sequence[Any]) -> None:
        """Count what a call walks through: each value once is sound, the same ones for ever is a bomb."""
        self.work += sum(value.count for value in values if type(value) is Node)
        if self.work > MAX_WORK + 4 * self.reader.at:
            raise Malformed(PICKLE_BOMB, self.start, "It has the same values copied over and over.")

    def _call_through(self, target: Any) -> Node:
        if not is_node(target):
            raise self.broken("It calls what cannot be called.")
        return Node("unknown", source=target.source)

    def _made(self, made: Any) -> Any:
        if type(made) is not Node or made.source is None:
            return made
        args = made.args
        if made.kind in ("set", "frozenset") and args:
            self.spread_out(made, args[0].items)
            self.grow(made, args[0].items)
            made.count, made.sound = args[0].count, True
        elif made.kind == "dict":
            self.spread_out(made, _keys(args[-1]) if args else ())
            made.sound = not args
            made.count = 2 * args[-1].count if args and type(args[-1]) is Node else 0
        elif made.kind in ("deque", "list") and args:
            made.count, made.sound = args[0].count, args[0].sound
        self.tensors += made.kind == "tensor"
        return made

    def refuse(self, target: Any, why: str) -> Node:
        """Say that a listed name is misused, and go on with something unknown."""
        name = shown(target.path) if type(target) is Global else "something"
        self.listener.add(CALL, self.start, f"It uses {name} as no sound file does: {why}.")
        return Node("unknown")

    def build(self, node: Any, state: Any) -> Any:
        """Give a made object its state."""
        if type(node) is not Node:
            return self.refuse(node, "attributes are set on what it imported or on a plain value")
        if node.kind == "unknown":
            return node
        if node.source is None:  # Python lets it pass where there are none to set
            self.listener.add(MALFORMED, self.start, "Attributes are set on what has none.")
            return node
        self.spend([state, *state.items] if type(state) is Node and state.count < FEW else [state])
        build = _BUILDS.get(node.kind)
        try:
            if build is None or node.state is not None:
                raise Refused("it has no state, or has it already")
            build(node, state)
        except Refused as fault:
            return self.refuse(node.source, str(fault))
        if node.kind == "joblib":
            return self.arrays(self, node)
        return node

    def persistent(self, pid: Any) -> Any:
        """What a reference to something outside is: a storage of PyTorch's, or unknown."""
        found = _storage(pid)
        if found is None:
            return self._other_reference(pid)
        known = self.storages.setdefault(found.key, found)
        if known.count * known.width != found.count * found.width:
            self.listener.add(CALL, self.start, f"The storage {found.key[:100]!r} has two lengths.")
        if len(self.storages) > 1 << 20:
            raise Malformed(LARGE, self.start)
        return Node("storage", note=found)

    def _other_reference(self, pid: Any) -> Node:
        number = is_int(pid) or (type(pid) is str and pid.isdecimal())
        if number and getattr(self.listener, "name", "") == "pickle":  # the member of PyTorch's first format
            return Node("tensor")
        if is_node(pid, "tuple") and pid.items and pid.items[0] == "module":
            self.listener.add(PERSISTENT, self.start, "It holds a model's own class and source code, not only weights.")
            return Node("unknown")
        self.listener.add(PERSISTENT, self.start)
        return Node("unknown")

    # strings

    def _is_file(self) -> bool:
        """Is the text that comes next to be made bytes and loaded by torch, as protocols 0 to 2 write it?"""
        above = self.stack[-2:]
        return (
            len(above) == 2 and type(above[0]) is Global and type(above[1]) is Global
            and above[0].path == _FROM_BYTES and above[1].path == "_codecs.encode"
        )  # fmt: skip

    def _judge_text(self, text: str) -> None:
        try:
            content = text.encode("latin-1")
        except UnicodeEncodeError:
            raise self.broken("Text stands where bytes are due.") from None
        if isinstance(self.listener, Report):
            self.listener.budget.spend(len(content), self.start)
            self.listener.nested(MemoryTape(content), f"text at {self.start}")
        self.stack.append(Node("judged"))

    def text(self, count: int) -> None:
        """Read ``count`` bytes of UTF-8 and put the text on the stack."""
        if count <= DATA or (self._is_file() and count <= MAX_READ):
            found = self.decode(self.reader.take(count))
            if self._is_file():
                return self._judge_text(found)
            self.stack.append(
                self._kept(found) if count <= 4 * SHORT and len(found) <= SHORT else Long("str", len(found))
            )
            return
        tape, decoder = self.reader.bulk(count), codecs.getincrementaldecoder("utf-8")("surrogatepass")
        characters = 0
        while count:
            step = min(count, 1 << 20)
            count -= step
            try:
                characters += len(decoder.decode(tape.read(step), not count))
            except UnicodeDecodeError:
                raise self.broken("A text is not UTF-8.") from None
        self.stack.append(Long("str", characters))

    def line_of_text(self, text: str) -> None:
        """Put a text on the stack that stood on a line."""
        if self._is_file():
            self._judge_text(text)
        else:
            self.stack.append(text if len(text) <= SHORT else Long("str", len(text)))

    def decode(self, content: bytes) -> str:
        """UTF-8 as pickles have it, with lone surrogates."""
        try:
            return content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self.broken("A text is not UTF-8.") from None

    def _kept(self, text: str) -> Any:
        if self.room > 0 or text in WORDS:
            return text
        return Long("str", len(text))

    def binary(self, count: int) -> None:
        """Read ``count`` bytes and put them on the stack."""
        target = self.stack[-1] if self.stack else None
        if type(target) is Global and target.path == _FROM_BYTES:
            self._judged(count)
        elif count <= SHORT:
            self.stack.append(self.reader.take(count))
        else:
            self.pass_by(count)
            self.stack.append(Long("bytes", count))

    def pass_by(self, count: int) -> None:
        """Let bytes pass: many of them as somebody's data."""
        if count <= DATA:
            self.reader.take(count)
        else:
            self.reader.bulk(count).data(count)

    def _judged(self, count: int) -> None:
        """The bytes are a file of their own to torch, which loads it: judge it as one."""
        if isinstance(self.listener, Report):
            self.listener.nested(Window(self.reader.bulk(count), count), f"bytes at {self.start}")
        else:
            self.pass_by(count)
        self.stack.append(Node("judged"))

    def old_string(self, content: bytes) -> None:
        """A Python 2 string: text where it is ASCII, bytes or text elsewhere, as its reader likes."""
        if len(content) > SHORT:
            self.stack.append(Long("str", len(content)))
        elif content.isascii():
            self.stack.append(content.decode("ascii"))
        else:
            self.stack.append(Ambiguous(content))


def _keys(value: Any) -> list[Any]:
    """The keys of what a dict is made of: a dict, or pairs."""
    if type(value) is not Node:
        return []
    return value.items[::2] if value.kind == "dict" else [pair.items[0] for pair in value.items if pair.items]


def _small(value: Any) -> Any:
    """What stays of a remembered value once there is no more room: something of its kind that takes no memory."""
    if type(value) is str:
        return value if value in WORDS else _long("str", len(value))
    if type(value) is Long:
        return _long(value.kind, value.length)
    if type(value) is int and not -5 <= value <= 256:
        return _long("int", 8)
    return forget(value)


@functools.lru_cache(4096)
def _long(kind: str, length: int) -> Long:
    return Long(kind, length)


def _plain_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _storage(pid: Any) -> Storage | None:
    """('storage', class, key, location, count) and, in the legacy format, a view of it or None."""
    if not is_node(pid, "tuple") or pid.cut or not 5 <= pid.count <= 6 or pid.items[0] != "storage":
        return None
    _, kind, key, location, count, *view = pid.items
    if type(kind) is not Global or kind.known is None or kind.known.kind != "storage-type" or not is_int(count):
        return None
    if not all(type(part) is str for part in (key, location)) or count < 0 or (view and not _is_view(view[0])):
        return None
    return Storage(key, count, kind.known.note, location, kind.name.removesuffix("Storage").lstrip("_"))


def _is_view(view: Any) -> bool:
    """(key, offset, length), or None where the storage is whole."""
    return view is None or (
        is_node(view, "tuple") and view.count == 3 and type(view.items[0]) is str and all(map(is_int, view.items[1:]))
    )


def _build_attributes(node: Node, state: Any) -> None:
    if not attributes(state):
        raise Refused("it is given attributes whose names are Python's own, or that are none")
    node.state = state


def _build_random(node: Node, state: Any) -> None:
    if not is_node(state, "dict", "tuple"):
        raise Refused("no state of a random generator")
    node.state = state


def _build_uuid(node: Node, state: Any) -> None:
    _build_attributes(node, state)
    if not is_node(state, "dict") or not set(state.items[::2]) <= {"int", "is_safe"}:
        raise Refused("no number of an identifier")


_BUILDS: dict[str, Callable[[Node, Any], None]] = {
    "dict": _build_attributes, "record": _build_attributes, "joblib": _build_attributes, "array": build_array,
    "dtype": build_dtype, "random": _build_random, "uuid": _build_uuid,
}  # fmt: skip
