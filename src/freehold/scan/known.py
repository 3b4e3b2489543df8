"""How the names that a pickle may import may be used: what they are called with, and what that makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from freehold.scan.values import Global, Node, is_node, length, numbers


class Refused(Exception):
    """A listed name was used as no sound file uses it: the message says how."""


class Known(NamedTuple):
    """What may be done with a listed name. ``make`` gives what a call makes, or raises Refused; None: no calls."""

    kind: str = "value"
    make: Callable[[Global, Sequence[Any]], Any] | None = None
    note: Any = None


Check = Callable[[Any], bool]


def call(kind: str, *wanted: Check, least: int | None = None, note: Any = None) -> Known:
    """A name that takes these arguments, at least the first ``least`` of them."""
    fewest = len(wanted) if least is None else least

    def make(source: Global, args: Sequence[Any]) -> Node:
        if not fewest <= len(args) <= len(wanted):
            raise Refused(f"{len(args)} arguments")
        for place, (check, value) in enumerate(zip(wanted, args, strict=False), 1):
            if not check(value):
                raise Refused(f"its argument {place} is of another kind")
        return Node(kind, source=source, args=args, note=note)

    return Known(kind, make, note)


def anything(value: Any) -> bool:
    """Any value but a name."""
    return type(value) is not Global


def boolean(value: Any) -> bool:
    """A truth value, or 0 or 1."""
    return type(value) is bool or value in (0, 1)


def number(value: Any) -> bool:
    """A number, or a truth value."""
    return type(value) in (int, float, bool)


def text(value: Any) -> bool:
    """Text, short enough to be kept."""
    return type(value) is str


def bytes_of(*lengths: int) -> Check:
    """Bytes, of one of these lengths where any are given."""
    return lambda value: length(value) is not None and (not lengths or length(value) in lengths)


def shape(value: Any) -> bool:
    """A shape: lengths of 0 or more."""
    return numbers(value) is not None


def optional(check: Check) -> Check:
    """None, or what ``check`` lets pass."""
    return lambda value: value is None or check(value)


def kinds(*wanted: str) -> Check:
    """A value of one of these kinds."""
    return lambda value: is_node(value, *wanted)


def named(*wanted: str) -> Check:
    """A listed name of such a kind; or one that is not listed at all, which was reported when it was imported."""
    return lambda value: type(value) is Global and (value.known is None or value.known.kind in wanted)


def is_global(value: Any, path: str) -> bool:
    """The name ``path``, imported."""
    return type(value) is Global and value.path == path


def attributes(state: Any) -> bool:
    """None, a dict of plain attributes, or a pair of such."""
    if is_node(state, "tuple"):
        return not state.cut and state.count == 2 and all(map(attributes, state.items))
    return state is None or (is_node(state, "dict") and state.sound)


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
