"""Front matter: the few lines of YAML at the top of a model card, read as data and nothing else.

A part of YAML 1.2: maps and lists by indentation, plain and quoted scalars, flow lists and maps on one line, literal
and folded blocks. Tags, anchors and aliases are not read: a value that uses them is its own text.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_LINES = 5_000
MAX_DEPTH = 12
MAX_BYTES = 64 << 10

Matter = Any  # dict, list, str, int, float, bool or None

_KEY = re.compile(
    r"""("(?:[^"\\]|\\.)*+"|'(?:[^']|'')*+'|[^\s#:{}\[\],&*!|>'"%@`-][^:]{0,200}?|-[^\s:][^:]{0,200}?)"""
    r"[ \t]{0,20}:(?:\s+(.*)|$)"
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,18}|\d{1,15}\.\d{0,15}(?:[eE][-+]?\d{1,2})?|\d{1,15}[eE][-+]?\d{1,2})")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "~": None, "Null": None, "": None}


class Unreadable(Exception):
    """The front matter is not the part of YAML that is read here; the message says where."""


def split(text: str) -> tuple[str, str]:
    """The front matter of a document and what follows it; '' for the first where there is none."""
    lines = text.removeprefix("\ufeff").split("\n", MAX_LINES)
    if lines[0].rstrip() != "---":
        return "", text
    for at, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            return "\n".join(lines[1:at]), "\n".join(lines[at + 1 :])
    return "", text


def read(text: str) -> Matter:
    """The data. Raises Unreadable."""
    if len(text) > MAX_BYTES:
        raise Unreadable("it is longer than 64 KiB")
    rows = [(len(row) - len(row.lstrip(" ")), row.strip(), at) for at, row in enumerate(text.splitlines(), 1)]
    reader = _Reader(rows)
    value = reader.block(0, 0)
    if reader.peek() is not None:
        raise Unreadable(f"line {reader.peek()[2]} does not fit those above it")
    return value


class _Reader:
    """Rows of indentation, text and number; blank rows and comments are passed over outside blocks of text."""

    def __init__(self, rows: list[tuple[int, str, int]]):
        self.rows, self.at = rows, 0

    def peek(self) -> tuple[int, str, int] | None:
        while self.at < len(self.rows) and (not self.rows[self.at][1] or self.rows[self.at][1].startswith("#")):
            self.at += 1
        return self.rows[self.at] if self.at < len(self.rows) else None

    def block(self, indent: int, depth: int) -> Matter:
        """A map, a list or a scalar that begins at this indentation or further in."""
        row = self.peek()
        if row is None or row[0] < indent:
            return None
        if depth > MAX_DEPTH:
            raise Unreadable(f"line {row[2]} is nested too deep")
        if row[1] == "-" or row[1].startswith("- "):
            return self.list(row[0], depth)
        if _KEY.fullmatch(row[1]):
            return self.map(row[0], depth)
        self.at += 1
        return scalar(row[1])

    def list(self, indent: int, depth: int) -> list[Matter]:
        found = []
        while (row := self.peek()) is not None and row[0] == indent and (row[1] == "-" or row[1].startswith("- ")):
            rest = row[1][1:].strip()
            inner = indent + len(row[1]) - len(rest) if rest else indent + 1
            if _KEY.fullmatch(rest) or rest.startswith("- "):
                self.rows[self.at] = (inner, rest, row[2])
                found.append(self.block(inner, depth + 1))
            else:
                self.at += 1
                found.append(self.value(rest, indent, depth))
        return found

    def map(self, indent: int, depth: int) -> dict[str, Matter]:
        found: dict[str, Matter] = {}
        while (row := self.peek()) is not None and row[0] == indent and (match := _KEY.fullmatch(row[1])):
            key = str(scalar(match[1]))
            if key in found:
                raise Unreadable(f"line {row[2]} has the key {key[:60]!r} again")
            self.at += 1
            found[key] = self.value(match[2] or "", indent, depth)
        return found

    def value(self, text: str, indent: int, depth: int) -> Matter:
        text = _without_comment(text)
        if re.fullmatch(r"[|>][+-]?\d?", text):
            return self.text(indent, folded=text.startswith(">"))
        if text:
            return scalar(self.continued(text, indent))
        row = self.peek()
        same = row is not None and row[0] == indent and (row[1] == "-" or row[1].startswith("- "))
        return self.block(indent if same else indent + 1, depth + 1)

    def continued(self, text: str, indent: int) -> str:
        """A scalar that goes on, on lines further in."""
        parts = [text]
        while (row := self.peek()) is not None and row[0] > indent:
            parts.append(_without_comment(row[1]))
            self.at += 1
        return " ".join(parts)

    def text(self, indent: int, *, folded: bool) -> str:
        lines = []
        while self.at < len(self.rows) and (not self.rows[self.at][1] or self.rows[self.at][0] > indent):
            lines.append(self.rows[self.at][1])
            self.at += 1
        return (" " if folded else "\n").join(lines).strip()


def scalar(text: str) -> Matter:
    """One value on one line."""
    text = _without_comment(text)
    if text[:1] == '"' and text[-1:] == '"' and len(text) > 1:
        try:
            return json.loads(text, strict=False).encode("utf-8", "replace").decode()
        except ValueError:
            return text[1:-1]
    if text[:1] == "'" and text[-1:] == "'" and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text[:1] in "[{" and text:
        return _flow(text)
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return float(text) if re.search(r"[.eE]", text) else int(text)
    return text


def _flow(text: str) -> Matter:
    """A list or map on one line, of scalars alone; anything else is its own text."""
    inner = text[1:-1].strip()
    if {"[": "]", "{": "}"}[text[0]] != text[-1] or re.search(r"[\[\]{}]", inner):
        return text
    parts = [part.strip() for part in re.findall(r"""(?:"(?:[^"\\]|\\.)*+"|'[^']*+'|[^,"'])++""", inner)]
    if text[0] == "[":
        return [scalar(part) for part in parts if part]
    pairs = [part.partition(":") for part in parts if part]
    return {str(scalar(key.strip())): scalar(value.strip()) for key, _, value in pairs}


def _without_comment(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        match = re.match(r"""("(?:[^"\\]|\\.)*+"|'(?:[^']|'')*+')\s+#""", text)
        return match[1] if match else text
    return re.split(r"\s#", text, maxsplit=1)[0].rstrip() if "#" in text else text
