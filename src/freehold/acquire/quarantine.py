"""Where files wait that are not trusted yet. What is still there at the end, or after a crash, is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freehold.acquire.base import clear_errors


@contextmanager
def quarantine(home: Path) -> Iterator[Path]:
    """A folder for one model on its way in, gone at the end of the block.

    Several processes may each have one. Each holds a lock on its own folder (flock(2), which ends with the process
    however it ends), so a folder whose lock can be had was left by a crash, and is removed.
    """
    parent = home / "quarantine"
    with clear_errors(str(parent)):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(parent):  # nobody looks for leftovers between the making of a folder and its lock
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(dir=parent))
            held = _lock(folder, wait=False)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def _sweep(parent: Path) -> None:
    """Remove what nobody holds."""
    for left in parent.iterdir():
        if left.is_symlink() or not left.is_dir():
            left.unlink(missing_ok=True)
        elif (held := _lock(left, wait=False)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    held = _lock(folder, wait=True)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the folder's lock, or None where somebody else holds it or has just removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
