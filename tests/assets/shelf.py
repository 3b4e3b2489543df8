"""The shelf that every family puts its files on: what a case is, and how it is written to a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

WORD = "freehold"
ECHO = "echo " + WORD  # what every payload would do, and none of them ever does


class Case(NamedTuple):
    """One file or folder to point a scanner at, and the least severe answer that is acceptable."""

    name: str
    path: Path
    expect: str  # "admit", "hold" (block will do as well) or "block"
    kind: str
    says: str


class Link(NamedTuple):
    """A symbolic link, or with ``hard`` a second name of a file in the same case."""

    target: str
    hard: bool = False


Content = bytes | str | Link


class Draft(NamedTuple):
    """A case before it is on disk: ``target`` is the file to point at, '' for the folder of all ``files``."""

    name: str
    target: str
    files: Mapping[str, Content]
    expect: str
    says: str


def _draft(expect: str) -> Callable[..., Draft]:
    def draft(name: str, target: str, content: Content | Mapping[str, Content], says: str) -> Draft:
        files = content if isinstance(content, Mapping) else {target: content}
        return Draft(name, target, files, expect, says)

    return draft


admit, hold, block = _draft("admit"), _draft("hold"), _draft("block")

Family = Callable[[], Iterable[Draft]]
_families: list[tuple[str, Family]] = []


def family(kind: str) -> Callable[[Family], Family]:
    """Put the drafts of a function on the shelf, as cases of ``kind``."""

    def register(function: Family) -> Family:
        _families.append((kind, function))
        return function

    return register


def write(folder: Path) -> Iterator[Case]:
    """Write every draft of every family, each into a folder of its own, and give the cases."""
    for kind, function in _families:
        for draft in function():
            name = f"{kind}-fine-{draft.name}" if draft.expect == "admit" else f"{kind}-{draft.name}"
            home = folder / name
            home.mkdir(parents=True)
            for path, content in draft.files.items():
                _put(home / path, content)
            yield Case(name, home / draft.target if draft.target else home, draft.expect, kind, draft.says)


def _put(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Link):
        make = os.link if content.hard else os.symlink
        make(path.parent / content.target if content.hard else content.target, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
