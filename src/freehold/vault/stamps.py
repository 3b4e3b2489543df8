"""Which blobs were read whole and found good, and have not been written to since.

A stamp is what the kernel says of a file without opening it: its device, inode, size and times of change. The kernel
sets the time of last status change (ctime) at every write, truncation, change of mode and new name, and no program can
set it back but by moving the clock or writing to the disk beneath the file system. So a blob whose stamp is the one
that it had when its bytes were last hashed has not been written to through the file system since. Two cautions:

- Times are as coarse as a tick of the kernel's clock. A stamp counts only if the hash began at least a second after the
  change that it names (the "racily clean" rule of git's index); until then the bytes are read again.
- A disk can rot without telling. That is what ``freehold models verify`` is for, which never looks at stamps.

Whoever can write to the home can write stamps as well as the index that says which digest a name stands for; against
them nothing in the home helps, and bundles are signed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from freehold.disk import write_atomically

_SETTLED = 1_000_000_000  # nanoseconds between the last change and the beginning of a hash that counts


class Stamp(Struct, frozen=True):
    """A file as the kernel described it when its bytes were hashed, and when that hash began."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    began: int

    @property
    def settled(self) -> bool:
        """Was the last change long enough before the hash?"""
        return self.began - self.changed >= _SETTLED


class Stamps:
    """The stamps of one vault's blobs, by digest."""

    def __init__(self, file: Path):
        self._file = file

    def good(self, digest: str, path: Path) -> bool:
        """Has this blob not been written to since it was last found good?"""
        known = self._read().get(digest)
        return known is not None and known.settled and _now(path, known.began) == known

    def keep(self, digest: str, before: Stamp, path: Path) -> None:
        """Remember a blob that was found good, if it is still as it was ``before`` its bytes were read."""
        if _now(path, before.began) == before:
            write_atomically(self._file, msgspec.json.encode(self._read() | {digest: before}))

    def forget(self, keep: set[str]) -> None:
        """Forget all but those."""
        write_atomically(self._file, msgspec.json.encode({k: v for k, v in self._read().items() if k in keep}))

    def _read(self) -> dict[str, Stamp]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, Stamp])
        except (OSError, msgspec.MsgspecError):
            return {}  # then everything is read again


def begin(path: Path) -> Stamp:
    """The stamp to take before a file is hashed. Raises OSError."""
    return _now(path, time.time_ns())


def _now(path: Path, began: int) -> Stamp:
    found = os.stat(path)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, began)
