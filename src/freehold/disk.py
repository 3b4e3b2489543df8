"""Files that are whole or not there at all, whatever moment a crash comes at; and what a file's digest is."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from freehold.errors import AcquireFailed

_CHUNK = 1 << 20
_SPARE = 64 << 20  # left free on a disk

Progress = Callable[[int, int], None]


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """The SHA-256 of a file, as ``sha256:<hex>``. ``progress`` is told bytes done and bytes in all."""
    total, done, state = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            state.update(block)
            done += len(block)
            if progress:
                progress(done, total)
    return "sha256:" + state.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """A file with exactly this content, or as it was before, and on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def need_space(folder: Path, size: int) -> None:
    """Raises AcquireFailed if ``size`` more bytes do not fit on the disk under ``folder`` with some left over."""
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise AcquireFailed(
            f"The disk under {folder.parent.parent} has {free >> 20} MiB free and what comes in needs "
            f"{(size + _SPARE) >> 20} MiB.",
            hint="Free some space, or put the home on another disk with --home. Nothing was kept.",
        )


def sync(path: Path) -> None:
    """See that a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
