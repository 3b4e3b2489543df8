"""JSON as leaves: the way to each value, and the value. Read strictly, in pieces, whatever the document's size.

Format: RFC 8259, with two allowances that Python's own writer needs: NaN and the infinities. A vocabulary's long runs
of items without depth are read past by one expression each, where nothing in them is watched; so a tokenizer of thirty
megabytes takes a second and no memory to speak of.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from freehold.scan.base import HOLD, Malformed, Rule
from freehold.scan.tape import BLOCK as CHUNK
from freehold.scan.tape import Tape

MAX_DEPTH = 100
MAX_TOKEN = 4 << 20  # bytes of one string

SYNTAX = Rule(
    "json.syntax", HOLD, "The document is not sound JSON, and readers may differ over what it says.",
    "Ask the publisher for a sound one; decide by name and reason.", "RFC 8259",
)  # fmt: skip
DEEP = Rule(
    "json.deep", HOLD, "The document is nested deeper than any needs to be.",
    "Ask the publisher for a sound one; decide by name and reason.", "RFC 8259, section 9",
)  # fmt: skip

Path = tuple[str | int, ...]
Leaf = Callable[[Path, Any], object]

_S = rb"[ \t\r\n]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"
_FLAT = rb"\[" + _S + rb"(?:" + _SCALAR + _S + rb"(?:," + _S + _SCALAR + _S + rb")*+)?+\]"
_MEMBER = _STRING + _S + rb":" + _S + _SCALAR + _S
_FLAT_OBJECT = rb"\{" + _S + rb"(?:" + _MEMBER + rb"(?:," + _S + _MEMBER + rb")*+)?+\}"
_ELEMENT = rb"(?:" + _SCALAR + rb"|" + _FLAT + rb"|" + _FLAT_OBJECT + rb")"
_RUN_OF_ITEMS = re.compile(rb"(?:%s%s%s,)++" % (_S, _ELEMENT, _S))
_RUN_OF_MEMBERS = re.compile(rb"(?:%s%s%s:%s%s%s,)++" % (_S, _STRING, _S, _S, _ELEMENT, _S))
_TOKEN = re.compile(
    rb"%s(?:(%s)|([\[\]{},:])|((?:%s|true|false|null|NaN|-?Infinity)(?=[ \t\r\n\],}])))" % (_S, _STRING, _NUMBER)
)
_SPACE = re.compile(_S)
_VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _COLON, _COMMA, _DONE = range(7)


def of(document: Any) -> Iterator[tuple[Path, Any]]:
    """The leaves of a parsed document; an empty list or object is none. Raises Malformed where it is too deep."""
    stack: list[tuple[Path, Iterator[tuple[str | int, Any]]]] = [((), iter([("", document)]))]
    while stack:
        above, items = stack[-1]
        key, value = next(items, (None, None))
        path = above if len(stack) == 1 else (*above, key)
        if key is None:
            stack.pop()
        elif not isinstance(value, (dict, list)):
            yield path, value
        elif len(stack) > MAX_DEPTH:
            raise Malformed(DEEP, "", f"The document is nested more than {MAX_DEPTH} deep.")
        else:
            stack.append((path, iter(value.items() if isinstance(value, dict) else enumerate(value))))


def objects(document: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The objects of a parsed document, itself among them; for one that is not too deep."""
    stack: list[tuple[Path, Any]] = [((), document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            yield path, value
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        stack.extend(((*path, key), part) for key, part in inner if isinstance(part, dict | list))


def stream(tape: Tape, leaf: Leaf, watched: frozenset[str], *, many: bool = False) -> None:
    """Read the tape to its end and show each leaf to ``leaf``; in long runs of items without depth only those with a
    watched key in them or on their way. ``many`` documents may follow one another. Raises Malformed."""
    _Stream(tape, leaf, watched, many=many).run()


class _Stream:
    """The reader's state: what it has of the tape, where it stands in the document, and what may come next."""

    def __init__(self, tape: Tape, leaf: Leaf, watched: frozenset[str], *, many: bool):
        self.tape, self.leaf, self.watched, self.many = tape, leaf, watched, many
        self.buffer, self.at, self.ended = b"", 0, False
        self.path: list[str | int] = []
        self.kinds: list[bool] = []  # of each level: is it an object?
        self.watching: list[bool] = [False]
        words = b"|".join(re.escape(word.encode()) for word in sorted(watched))
        self.stop = re.compile(words + rb"|\\u00[2-7]")  # a watched key, or one written with escapes
        self.slowly = 0  # up to this place of the tape no run is taken
        self.upcoming: re.Match[bytes] | None = None  # the next stop in the buffer, once it was looked for
        self.looked = -1  # from where
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def run(self) -> None:
        self.fill()
        if self.buffer.startswith(b"\xef\xbb\xbf"):
            self.at = 3
        state = _VALUE
        while True:
            if self.many and state == _DONE:
                state = _VALUE
            if not self.kinds and self.nothing_left():
                if state != _DONE and not self.many:
                    self.fail("ends too early")
                return
            state = self.step(self.past_run(state))

    def nothing_left(self) -> bool:
        while (end := _SPACE.match(self.buffer, self.at).end()) == len(self.buffer):
            if self.ended:
                return True
            self.at = end
            self.fill()
        self.at = end
        return False

    def past_run(self, state: int) -> int:
        """Read past a run of items in which nothing is watched."""
        if not self.kinds or self.watching[-1] or self.place() < self.slowly:
            return state
        if state in (_VALUE, _FIRST_VALUE) and not self.kinds[-1]:
            runs = _RUN_OF_ITEMS
        elif state in (_KEY, _FIRST_KEY):
            runs = _RUN_OF_MEMBERS
        else:
            return state
        stop = self.next_stop()
        run = runs.match(self.buffer, self.at, stop.start() if stop else len(self.buffer))
        if stop:
            self.slowly = self.place() + stop.end() - self.at
        if run is None:
            return state
        self.at = run.end()
        return _KEY if self.kinds[-1] else _VALUE

    def next_stop(self) -> re.Match[bytes] | None:
        """The next watched word in the buffer; looked for once, so that many of them cost no more than a few."""
        if self.looked < 0 or (self.upcoming and self.upcoming.start() < self.at):
            self.upcoming, self.looked = self.stop.search(self.buffer, self.at), self.at
        return self.upcoming

    def step(self, state: int) -> int:
        """Take one token, and say what may come next."""
        match = self.token()
        string, mark, other = match.groups()
        if mark is not None:
            return self.mark(mark, state)
        if state in (_KEY, _FIRST_KEY) and string is not None:
            self.path[-1] = self.text(string)
            self.watching[-1] = self.watching[-2] or self.path[-1] in self.watched
            return _COLON
        if state not in (_VALUE, _FIRST_VALUE):
            self.fail("has a value where none can be")
        self.count()
        self.leaf(tuple(self.path), self.text(string) if string is not None else json.loads(other[:4000]))
        return self.after()

    def mark(self, mark: bytes, state: int) -> int:
        if mark in b"{[" and state in (_VALUE, _FIRST_VALUE):
            self.count()
            return self.enter(mark == b"{")
        if mark == b"}" and self.kinds and self.kinds[-1] and state in (_FIRST_KEY, _COMMA):
            return self.leave()
        if mark == b"]" and self.kinds and not self.kinds[-1] and state in (_FIRST_VALUE, _COMMA):
            return self.leave()
        if mark == b"," and state == _COMMA:
            return _KEY if self.kinds[-1] else _VALUE
        if mark == b":" and state == _COLON:
            return _VALUE
        return self.fail(f"has {mark.decode()!r} where it cannot be")

    def enter(self, is_object: bool) -> int:
        if len(self.kinds) >= MAX_DEPTH:
            raise Malformed(DEEP, self.place(), f"The document is nested more than {MAX_DEPTH} deep.")
        self.kinds.append(is_object)
        self.path.append("" if is_object else -1)
        self.watching.append(self.watching[-1])
        return _FIRST_KEY if is_object else _FIRST_VALUE

    def leave(self) -> int:
        self.kinds.pop()
        self.path.pop()
        self.watching.pop()
        return self.after()

    def after(self) -> int:
        return _COMMA if self.kinds else _DONE

    def count(self) -> None:
        """One more item of a list; what a run held is not counted, for nothing in it is told of."""
        if self.kinds and not self.kinds[-1]:
            self.path[-1] += 1

    def token(self) -> re.Match[bytes]:
        while (match := _TOKEN.match(self.buffer, self.at)) is None:
            if self.ended or len(self.buffer) - self.at > MAX_TOKEN:
                self.fail("has something at this place that is no JSON, or ends too early")
            self.fill()
        self.at = match.end()
        return match

    def text(self, string: bytes) -> str:
        if b"\\" not in string:
            return string[1:-1].decode()
        return json.loads(string).encode("utf-8", "replace").decode()  # half a surrogate pair is no text

    def fill(self) -> None:
        """Read on: as much again as there is, so that a long string is tried few times."""
        rest = self.buffer[self.at :]
        more = self.tape.read(min(max(CHUNK, len(rest)), self.tape.left))
        self.ended = not self.tape.left
        try:
            self.decoder.decode(more, self.ended)
        except UnicodeDecodeError:
            self.fail("is not UTF-8")
        self.buffer, self.at = rest + more + (b" " if self.ended else b""), 0
        self.looked = -1

    def place(self) -> int:
        return max(self.tape.at - len(self.buffer) + self.at, 0)

    def fail(self, how: str) -> int:
        raise Malformed(SYNTAX, self.place(), f"The document {how}.")
