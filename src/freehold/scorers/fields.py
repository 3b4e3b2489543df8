"""JSON as a model wrote it: read with care, taken apart into fields, and compared field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from msgspec import Struct

from freehold.errors import BadTask
from freehold.names import shown
from freehold.scorers.base import MAX_LISTED
from freehold.scorers.compare import Comparator, Same, decimal_of, same

MAX_DEPTH = 100  # arrays and objects inside one another
MAX_FIELDS = 20_000
MAX_RULES = 200
Path = tuple[str | int, ...]
Fields = dict[Path, tuple[Same, Any]]  # by path, how it is compared and its value


class Unreadable(Exception):
    """It is no JSON, or more than can be borne. The message is the end of a sentence: "it ..."."""


class Document(Struct, frozen=True):
    """JSON that was read. ``duplicates`` are keys that an object had more than once; the last one counted."""

    value: Any
    duplicates: tuple[str, ...] = ()


class Comparison(Struct, frozen=True):
    """Two documents, field by field: how many fields each has, how many are the same, and which are not."""

    reference: int = 0
    answer: int = 0
    equal: int = 0
    wrong: tuple[tuple[str, str, str], ...] = ()  # field, reference, answer
    missing: tuple[str, ...] = ()
    additional: tuple[str, ...] = ()

    @property
    def all_right(self) -> bool:
        """Is every field there, right, and nothing besides?"""
        return self.equal == self.reference == self.answer

    @property
    def f1(self) -> float:
        """The harmonic mean of the share of the answer's fields that are right and of the reference's that were found.

        Source: van Rijsbergen, Information Retrieval (1979), chapter 7. No fields on either side are all right.
        """
        both = self.reference + self.answer
        return 2 * self.equal / both if both else 1.0


def read(text: str, *, fenced: bool) -> Document:
    """JSON by RFC 8259; where ``fenced``, also from inside the first ``` fence of a text that is none as it stands.

    Numbers are Decimals, exact whatever their length. NaN and Infinity are no JSON.

    Raises:
        Unreadable: it is not JSON, or is nested too deeply.
    """
    duplicates: dict[str, None] = {}
    try:
        try:
            value = _loads(text, duplicates)
        except ValueError:
            inner = _inside_fence(text) if fenced else None
            if inner is None:
                raise
            duplicates.clear()
            value = _loads(inner, duplicates)
    except json.JSONDecodeError as error:
        raise Unreadable(f"is no JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise Unreadable(f"is no JSON: {error}") from None
    except RecursionError:
        raise Unreadable(f"is nested more than {MAX_DEPTH} deep") from None
    _check_depth(value)
    return Document(value, tuple(duplicates))


class Rules:
    """Which field is compared how: comparators by dotted path, ``*`` for any key or index, and one for all others.

    A path that is named is one field with everything below it; the others are the leaves: texts, numbers, true, false,
    null, and empty arrays and objects. A dot in a key is written with a backslash before it.
    """

    def __init__(self, named: dict[str, Comparator], default: Comparator, *, null_is_missing: bool = False):
        if len(named) > MAX_RULES:
            raise BadTask(f"The scorer names {len(named)} fields; at most {MAX_RULES} can be.", hint="Use '*'.")
        self._default, self._null_is_missing = default, null_is_missing
        self._root = _Node()
        for dotted, how in named.items():
            self._root.at(_split(dotted)).how = how

    def compare(self, answer: Any, reference: Any) -> Comparison:
        """Field by field. Raises Unreadable where there are too many."""
        return compared(self.fields(answer), self.fields(reference))

    def fields(self, document: Any) -> Fields:
        """A document taken apart. Raises Unreadable where it has more than `MAX_FIELDS`."""
        fields: Fields = {}
        waiting: list[tuple[Path, Any, list[_Node]]] = [((), document, [self._root])]
        while waiting:
            path, value, nodes = waiting.pop()
            how = next((node.how for node in nodes if node.how), None)
            if (how and how.compare == "ignore") or (self._null_is_missing and _is_missing(value, path)):
                continue
            if how is None and isinstance(value, dict | list) and value:
                inside = value.items() if isinstance(value, dict) else enumerate(value)
                waiting += [((*path, key), one, _below(nodes, str(key))) for key, one in reversed([*inside])]
            else:
                fields[path] = (same(how or self._default), value)
            if len(fields) + len(waiting) > MAX_FIELDS:
                raise Unreadable(f"has more than {MAX_FIELDS} fields")
        return fields


def compared(ours: Fields, theirs: Fields) -> Comparison:
    """The answer's fields against the reference's, both by the same rules."""
    shared = [path for path in theirs if path in ours]
    wrong = [path for path in shared if not theirs[path][0](ours[path][1], theirs[path][1])]
    return Comparison(
        len(theirs), len(ours), len(shared) - len(wrong),
        tuple((dotted(path), brief(theirs[path][1]), brief(ours[path][1])) for path in wrong[:MAX_LISTED]),
        _listed(path for path in theirs if path not in ours),
        _listed(path for path in ours if path not in theirs),
    )  # fmt: skip


class _Node:
    """One step of the named paths."""

    __slots__ = ("how", "next")

    def __init__(self) -> None:
        self.how: Comparator | None = None
        self.next: dict[str, _Node] = {}

    def at(self, keys: list[str]) -> _Node:
        node = self
        for key in keys:
            node = node.next.setdefault(key, _Node())
        return node


def _below(nodes: list[_Node], key: str) -> list[_Node]:
    """Where the named paths go on by this key; a key's own name comes before ``*``."""
    return [node.next[name] for name in (key, "*") for node in nodes if name in node.next]


def _is_missing(value: Any, path: Path) -> bool:
    return value == {} or (value is None and path != ())


def dotted(path: Path) -> str:
    """A field's path for people: keys and indexes with dots between; the whole document is ``(whole)``."""
    return shown(".".join(str(key).replace(".", "\\.") for key in path[:MAX_DEPTH])) if path else "(whole)"


def brief(value: Any) -> str:
    """A value for people: short, and nothing in it that a terminal would obey."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        return shown(f'"{value[:200]}"')
    if isinstance(value, Decimal):
        return shown(str(value))
    return {True: "true", False: "false", None: "null"}[value]


def _split(path: str) -> list[str]:
    keys = [""]
    escaped = False
    for character in path:
        if character == "." and not escaped:
            keys.append("")
        elif character != "\\" or escaped:
            keys[-1] += character
        escaped = character == "\\" and not escaped
    if "" in keys or len(keys) > MAX_DEPTH:
        raise BadTask(f"The field {shown(path)!r} is no dotted path.", hint="For example 'items.*.price'.")
    return keys


def _listed(paths: Iterable[Path]) -> tuple[str, ...]:
    found = [*paths]
    more = (f"and {len(found) - MAX_LISTED} more",) if len(found) > MAX_LISTED else ()
    return (*map(dotted, found[:MAX_LISTED]), *more)


def _loads(text: str, duplicates: dict[str, None]) -> Any:
    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen and len(duplicates) < MAX_LISTED:
                    duplicates[shown(key)] = None
                seen.add(key)
        return found

    return json.loads(text, object_pairs_hook=keep, parse_int=_number, parse_float=_number, parse_constant=_refuse)


def _number(text: str) -> Decimal:
    number = decimal_of(text)
    if number is None:
        raise ValueError(f"the number {shown(text)} is beyond all bounds")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


def _inside_fence(text: str) -> str | None:
    """What is between the first ``` (and the language after it) and the next."""
    start = text.find("```")
    line = text.find("\n", start)
    if start < 0 or line < 0:
        return None
    end = text.find("```", line)
    return text[line : end if end >= 0 else len(text)]


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"is nested more than {MAX_DEPTH} deep")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
