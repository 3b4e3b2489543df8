"""The texts of a request, wherever they stand in it, each with the path that leads to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct

from freehold.sensitive.find import find
from freehold.sensitive.hit import Hit, Kind

_FORM = frozenset({"role", "type", "model", "object", "media_type", "finish_reason", "format", "detail"})
_CONTENTS = frozenset({"content", "text", "input", "prompt", "system", "instructions", "arguments", "output"})
LONGEST_BESIDE = 512  # characters of a value that its key may say something of


class Found(Struct, frozen=True):
    """A hit in the text at ``path`` ("messages[2].content[0].text"), at offsets within that text. Where ``key`` is
    true it is in the last name of the path itself, which stands there as ``*``."""

    path: str
    hit: Hit
    key: bool = False


def in_request(body: dict[str, Any], kinds: Collection[Kind] | None = None) -> list[Found]:
    """What stands in any text of a request's body, as OpenAI's and Anthropic's endpoints take it. A value that a key
    belongs to (``{"password": "..."}`` in a tool's arguments) is read together with that key."""
    return [found for path, key, text in _texts(body) for found in _in(path, key, text, kinds)]


def _in(path: str, key: str, text: str | None, kinds: Collection[Kind] | None) -> Iterator[Found]:
    if text is None:
        yield from (Found(path, hit, key=True) for hit in find(key, kinds))
        return
    beside = f"{key}: " if key and len(text) <= LONGEST_BESIDE else ""
    for hit in find(beside + text, kinds):
        if hit.end > len(beside):
            start = max(0, hit.start - len(beside))
            yield Found(path, Hit(hit.kind, start, hit.end - len(beside), hit.what))


def _texts(body: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Path, key that says something of the text ('' for none), text; None for a key that is a text itself. In order,
    and with a stack of its own: a body may be nested as deep as it likes."""
    stack: list[tuple[str, str, Any]] = [("", "", body)]
    while stack:
        path, key, value = stack.pop()
        if isinstance(value, str):
            yield path, key, value
        elif isinstance(value, list):
            stack += [(f"{path}[{index}]", key, part) for index, part in reversed(list(enumerate(value)))]
        elif isinstance(value, dict):
            below = []
            for name, part in value.items():
                if name in _FORM or _media(name, part):
                    continue
                shown, secret = _shown(name)
                at = f"{path}.{shown}" if path else shown
                if secret:
                    yield at, name, None
                below.append((at, "" if name in _CONTENTS or secret else name, part))
            stack += reversed(below)


def _shown(name: str) -> tuple[str, bool]:
    """How a key stands in a path, and whether there is something in it that should not."""
    secret = bool(find(name)) if len(name) > 5 else False
    return ("*" if secret or not name.replace("-", "_").isidentifier() else name), secret


def _media(name: str, part: Any) -> bool:
    """Whether this is a picture or a sound as Base64, by the key that carries it in either dialect."""
    if name == "url":
        return isinstance(part, str) and part.startswith("data:")
    return name in ("data", "file_data") and isinstance(part, str) and len(part) > 256
