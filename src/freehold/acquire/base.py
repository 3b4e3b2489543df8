"""What every source has in common: which names are safe, what is chosen, whether it fits, and how it is said."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from freehold.errors import AcquireFailed
from freehold.names import KEPT_NOTHING, checked, model_name, shown
from freehold.types import Progress

MAX_FILES = 20_000
CHUNK = 1 << 20
_DOCUMENT = re.compile(
    r"((licen[cs]e|copying|notice|readme)[^/]*|[^/]*(policy|terms)[^/]*)(?<!\.py)", re.IGNORECASE
)  # what says under which terms the rest may be used
_DOCUMENT_SIZE = 1 << 20
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)

__all__ = [
    "CHUNK", "KEPT_NOTHING", "MAX_FILES", "Choice", "Progress", "checked", "clear_errors", "create", "decode",
    "files_folder", "ggufs", "model_name", "shown", "write",
]  # fmt: skip
T = TypeVar("T")


class Choice(Struct, frozen=True):
    """Which files of a source are wanted: one ``path``, or those that globs take in and leave out."""

    path: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def of(self, sizes: dict[str, int], where: str) -> list[str]:
        """The chosen paths, sorted. ``where`` is the source's name in an error. Raises AcquireFailed for none."""
        left = {path: size for path, size in sizes.items() if not _matches(path, self.exclude)}
        if self.path:
            chosen = set(_whole_set(self.path, left))
        else:
            chosen = {path for path in left if not self.include or _matches(path, self.include)}
        if not chosen:
            raise self._none(sizes, where)
        documents = {path for path, size in left.items() if _DOCUMENT.fullmatch(path) and size <= _DOCUMENT_SIZE}
        return sorted(chosen | documents)

    def _none(self, sizes: dict[str, int], where: str) -> AcquireFailed:
        what = shown(self.path) if self.path else "a file that was asked for" if sizes else "files"
        some = ", ".join(shown(path) for path in sorted(sizes)[:10])
        more = f" and {len(sizes) - 10} more" if len(sizes) > 10 else ""
        return AcquireFailed(f"{where} does not hold {what}.", hint=f"It holds {some}{more}." if sizes else "")


def ggufs(sizes: dict[str, int]) -> dict[str, int]:
    """The GGUF models among some files: the first file of each and the bytes of all its parts."""
    models: dict[str, list[str]] = {}
    for path in sorted(sizes):
        if path.lower().endswith(".gguf"):
            models.setdefault(_SPLIT.sub("", path), []).append(path)
    return {parts[0]: sum(sizes[part] for part in parts) for parts in models.values()}


def decode(content: bytes, form: type[T], what: str) -> T:
    """Read JSON of a known form. Raises AcquireFailed, naming ``what``."""
    try:
        return msgspec.json.decode(content, type=form)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise AcquireFailed(f"{what} cannot be read: {error}.", hint=KEPT_NOTHING) from None


@contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Turn what the operating system says of ``what`` into a sentence."""
    try:
        yield
    except OSError as error:
        space = "Free some space, or put the home on another disk with --home. "
        raise AcquireFailed(
            f"{shown(what)} could not be taken in: {_reason(error)}.",
            hint=(space if error.errno in (errno.ENOSPC, errno.EDQUOT) else "") + KEPT_NOTHING,
        ) from None


def files_folder(folder: Path) -> Path:
    """Where in a quarantine's folder the model's own files lie, apart from everything else."""
    files = folder / "files"
    files.mkdir(mode=0o700)
    return files


def create(path: Path) -> int:
    """A new file to write, its folders made, as a descriptor. Nothing that is there is opened."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write(descriptor: int, block: Any) -> None:
    """Write all of ``block``, however often the system takes only part of it."""
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, glob) for glob in globs)


def _whole_set(path: str, paths: Iterable[str]) -> list[str]:
    """``path`` if it is there, with the other parts of the same GGUF where it is one of several."""
    paths = set(paths)
    if path not in paths:
        return []
    part = _SPLIT.search(path)
    if not part:
        return [path]
    form = re.compile(re.escape(path[: part.start()]) + rf"-\d{{5}}-of-{part[2]}\.gguf", re.IGNORECASE)
    return [other for other in paths if form.fullmatch(other)]


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is not there, or no longer"
    return error.strerror or str(error)
