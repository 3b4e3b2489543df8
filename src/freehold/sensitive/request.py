"""The texts of a request, wherever they stand in it, each with the way that leads to it.

A request is a body as OpenAI's and Anthropic's endpoints take it: system, messages with parts, calls of tools and what
came of them, prompts, inputs, descriptions of tools, the application's own metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from freehold.sensitive.find import find

Steps = tuple[str | int, ...]

_FORM = frozenset({"role", "type", "object", "media_type", "finish_reason", "format", "detail", "status", "effort"})
_FORMAL = re.compile(r"[a-z][a-z_./+-]{0,63}")
_CONTENTS = frozenset({"content", "text", "input", "prompt", "system", "instructions", "arguments", "output", "name"})
_TREES = frozenset({"input", "arguments", "metadata"})  # objects of the application's own making
_GROWING = {"messages": 1, "input": 1, "prompt": 1}  # what comes last, so that the names in it do not move the others'
_OPAQUE = frozenset({"signature", "encrypted_content"})
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]*+")
_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,128};base64,")
_COMMON = frozenset({"model", "messages", "role", "content", "type", "text", "stream", "max_tokens", "temperature"})
_PLAIN = re.compile(r"[A-Za-z_-]{0,32}|[0-9]{1,6}")  # no kind looks like that
_LONG_NUMBER = 10**11  # from here on a number may be a card's
_SMALL = 256  # characters that are read, whatever they are called
LONGEST_BESIDE = 512  # characters of a value that its key may say something of


class Form(StrEnum):
    """What stands at a place."""

    TEXT = "text"
    TREE = "tree"  # an object of the application's own, as JSON
    KEY = "key"  # the name of a field, or a number, which cannot be masked
    UNREAD = "unread"  # tokens, a picture, a sound: nothing that a detector could read


class Place(Struct, frozen=True):
    """Somewhere in a request: the steps to it, what it is, the text, and the key that may say something of it."""

    steps: Steps
    form: Form
    text: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"<Place {path(self.steps)}, {self.form}>"

    @property
    def beside(self) -> str:
        """The key as it is read before the text."""
        return f"{self.key}: " if self.key and len(self.text) <= LONGEST_BESIDE else ""


def places(body: dict[str, Any]) -> Iterator[Place]:
    """Every text of a body, in an order that a longer conversation goes on with. With a stack of its own: a body may
    be nested as deep as it likes."""
    stack: list[tuple[Steps, str, str, Any]] = []  # the steps, the last that is a name, what that says, and the value
    order = sorted(body, key=lambda name: _GROWING.get(name, 0))
    for name in reversed(order):
        if name != "model":
            stack.append(((name,), name, _says(name), body[name]))
    for name in body:
        if _telling(name):
            yield Place((name,), Form.KEY, name)
    while stack:
        steps, name, key, value = stack.pop()
        if isinstance(value, str):
            if value and (place := _text(steps, name, key, value)) is not None:
                yield place
        elif type(value) is int and abs(value) >= _LONG_NUMBER:
            yield Place(steps, Form.KEY, str(value))
        elif isinstance(value, list):
            if _is_tokens(steps, value):
                yield Place(steps, Form.UNREAD)
            stack += [((*steps, index), name, key, part) for index, part in reversed(list(enumerate(value)))]
        elif isinstance(value, dict) and steps[-1] in _TREES:
            yield Place(steps, Form.TREE, msgspec.json.encode(value).decode())
        elif isinstance(value, dict):
            for field in value:
                if _telling(field):
                    yield Place((*steps, field), Form.KEY, field)
            stack += [((*steps, field), field, _says(field), part) for field, part in reversed(value.items())]


def put(body: dict[str, Any], steps: Steps, value: Any) -> None:
    """Put a value where the steps lead."""
    target: Any = body
    for step in steps[:-1]:
        target = target[step]
    target[steps[-1]] = value


def path(steps: Steps) -> str:
    """The way to a place, for a person: "messages[2].content[0].text". A name that may tell something is a star."""
    shown = ""
    for step in steps:
        if isinstance(step, int):
            shown += f"[{step}]"
        else:
            shown += f"{'.' if shown else ''}{_shown(step)}"
    return shown


def _text(steps: Steps, name: str, key: str, text: str) -> Place | None:
    """The place of a text, None where it can say nothing."""
    if name in _FORM and _FORMAL.fullmatch(text):
        return None
    is_opaque = name in _OPAQUE and len(text) > _SMALL and _BASE64.fullmatch(text)
    return Place(steps, Form.UNREAD) if is_opaque or _is_media(name, text) else Place(steps, Form.TEXT, text, key)


def _says(name: str) -> str:
    """The key, where it may say what its value is."""
    return "" if name in _CONTENTS or _telling(name) else name


def _telling(name: str) -> bool:
    """Whether there is something in a key that should not be there."""
    return name not in _COMMON and not _PLAIN.fullmatch(name) and bool(find(name))


def _shown(name: str) -> str:
    return name if name.replace("-", "_").isidentifier() and len(name) <= 64 and not _telling(name) else "*"


def _is_tokens(steps: Steps, value: list[Any]) -> bool:
    """Whether a prompt is given as numbers that stand for text."""
    return steps[0] in ("prompt", "input") and any(type(part) is int for part in value)


def _is_media(name: str, text: str) -> bool:
    """Whether this is a picture, a sound or a file as Base64. What is only called so is read."""
    if found := _DATA_URL.match(text):
        return bool(_BASE64.fullmatch(text, found.end()))
    return name in ("data", "file_data") and len(text) > _SMALL and bool(_BASE64.fullmatch(text))
