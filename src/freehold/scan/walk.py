"""What lies in a folder, each file opened once: links are followed only where they stay, and nothing else than a
regular file is ever read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from freehold.errors import CannotDo

MAX_FILES = 50_000
MAX_DEPTH = 64


class Entry(Struct, frozen=True):
    """Something in a folder. ``path`` is relative to it, for people and programs: what is no UTF-8 in it is escaped.

    ``kind`` is file, link (a symbolic one that is followed), astray (one that is not), other, or unreadable;
    ``detail`` says where a link goes, or why it cannot be read. ``links`` is the number of names that the file has.
    """

    path: str
    kind: str
    size: int = 0
    links: int = 1
    detail: str = ""
    real: Path = Path()


def walk(root: Path) -> list[Entry]:
    """Everything below ``root``, by path; ``root`` may be one file.

    Raises:
        CannotDo: it is not there, or holds no file at all, or more than `MAX_FILES`.
    """
    try:
        mode = os.stat(root).st_mode
    except OSError as error:
        raise CannotDo(
            f"{shown(root)} cannot be scanned: {error.strerror}.", hint="See that the path is right."
        ) from None
    if not stat.S_ISDIR(mode):
        return [_entry(root, root.name, Path(os.path.realpath(root)).parent, follow=True)]
    entries: list[Entry] = []
    for entry in _below(root, "", Path(os.path.realpath(root)), 0):
        entries.append(entry)
        if len(entries) > MAX_FILES:
            raise CannotDo(
                f"{shown(root)} holds more than {MAX_FILES} files; no model does.",
                hint="Give the folder of the model alone.",
            )
    if not entries:
        raise CannotDo(f"{shown(root)} holds no files.", hint="Give the folder that the model's files are in.")
    return sorted(entries, key=lambda entry: entry.path)


@contextlib.contextmanager
def opened(entry: Entry) -> Iterator[int]:
    """The open descriptor of an entry's file. Raises OSError; also where it is no regular file any more."""
    follow = 0 if entry.kind == "link" else os.O_NOFOLLOW
    descriptor = os.open(entry.real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def shown(path: str | Path) -> str:
    """A path for people and programs: what is no UTF-8, and what would steer a terminal, is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _below(folder: Path, prefix: str, root: Path, depth: int) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Entry(shown(prefix or "."), "unreadable", detail=error.strerror or str(error))
        return
    for entry in entries:
        path, name = folder / entry.name, prefix + entry.name
        if not _is_folder(entry):
            yield _entry(path, name, root, follow=False)
        elif depth == MAX_DEPTH:
            yield Entry(shown(name), "unreadable", detail=f"it lies {MAX_DEPTH} folders deep")
        else:
            yield from _below(path, f"{name}/", root, depth + 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # then it cannot be told, and `_entry` says why
        return False


def _entry(path: Path, name: str, root: Path, *, follow: bool) -> Entry:
    try:
        found = os.lstat(path)
        if not stat.S_ISLNK(found.st_mode):
            kind = "file" if stat.S_ISREG(found.st_mode) else "other"
            return Entry(shown(name), kind, found.st_size, found.st_nlink, _what(found.st_mode), path)
        target = os.path.realpath(path, strict=True)
        if not (follow or _stays(Path(target), root)):
            return Entry(shown(name), "astray", detail=f"a link to {shown(os.readlink(path))}", real=path)
        found = os.stat(target)
    except OSError as error:
        return Entry(shown(name), "unreadable", detail=error.strerror or str(error), real=path)
    if not stat.S_ISREG(found.st_mode):
        return Entry(shown(name), "astray", detail=f"a link to {_what(found.st_mode)}", real=path)
    return Entry(shown(name), "link", found.st_size, 1, shown(target), Path(target))


def _stays(target: Path, root: Path) -> bool:
    """Does a link stay in the folder, or lead to the ``blobs`` beside a hub cache's ``snapshots/<revision>``?"""
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    return any(target.is_relative_to(folder) for folder in allowed)


def _what(mode: int) -> str:
    names = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return names.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "a file")
