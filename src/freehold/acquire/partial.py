"""What has arrived of a download: each file under the digest that it shall have, kept until all is there.

A partial file is named by what is promised, never by its own name, so that nothing of a listing reaches the disk's
names before it was checked, and what two commits have in common is fetched once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from freehold.acquire.base import CHUNK, KEPT_NOTHING, clear_errors, shown, write
from freehold.errors import AcquireFailed


class Promise(Struct, frozen=True):
    """What the listing says of one file: its size, and a digest in hexadecimal, of its bytes (64) or git blob (40)."""

    path: str
    size: int
    digest: str


class Unfinished(AcquireFailed):
    """Not now: what has arrived is kept for the next try."""


class Partial:
    """A file on its way: the bytes that have arrived, in a file named by what they shall be, and their digest."""

    def __init__(self, folder: Path, promise: Promise, tell: Callable[[int], None]):
        self.promise = promise
        self.size = 0
        self.path = folder / promise.digest
        self._tell, self._told = tell, 0
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._state = self._fresh()
        self.found = self._read_back()

    @property
    def missing(self) -> bool:
        return self.size < self.promise.size

    @property
    def right(self) -> bool:
        """Whether what has arrived is what was promised."""
        return self.size == self.promise.size and self._state.hexdigest() == self.promise.digest

    def add(self, block: bytes) -> None:
        """Take in the next bytes. Raises AcquireFailed for more than were promised."""
        if self.size + len(block) > self.promise.size:
            raise swapped(self.promise, "it is longer")
        write(self._descriptor, block)
        self._count(block)

    def restart(self) -> None:
        """Forget what has arrived."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size, self._told, self._state = 0, 0, self._fresh()

    def close(self) -> None:
        """What has arrived stays."""
        os.close(self._descriptor)

    def _fresh(self):
        if len(self.promise.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.promise.size, usedforsecurity=False)

    def _read_back(self) -> int:
        """Take in what an earlier try left; returns how much that is."""
        if os.fstat(self._descriptor).st_size > self.promise.size:
            self.restart()
        while block := os.read(self._descriptor, CHUNK):
            self._count(block)
        return self.size

    def _count(self, block: bytes) -> None:
        self._state.update(block)
        self.size += len(block)
        if self.size // CHUNK > self._told // CHUNK or not self.missing:
            self._told = self.size
            self._tell(self.size)


@contextmanager
def kept(folder: Path) -> Iterator[Path]:
    """A download's folder, held for this process. It stays only where another try can go on from it."""
    with clear_errors(str(folder)):
        held = _hold(folder)
    try:
        yield folder
    except Unfinished:
        for left in folder.iterdir():
            if not left.stat().st_size:
                left.unlink()
        raise
    except AcquireFailed:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        with suppress(OSError):
            folder.rmdir()  # where nothing arrived
        os.close(held)


def _hold(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(held), os.stat(folder)):
                return held
        except BlockingIOError:
            os.close(held)
            raise Unfinished("Another process is fetching the same model.", hint="Wait until it is done.") from None
        except FileNotFoundError:
            pass  # its holder has just removed it
        os.close(held)


def swapped(promise: Promise, how: str) -> AcquireFailed:
    """The refusal of a file that is not what was promised."""
    return AcquireFailed(
        f"{shown(promise.path)} is not the file that the hub listed: {how}.",
        hint=f"Do not use it. {KEPT_NOTHING}",
    )
