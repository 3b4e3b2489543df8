"""Files named by their digest, whole or not there at all.

A blob is made beside its place and moved there when every byte of it is on the disk; the folder is written to the disk
before anything refers to the blob. So whatever moment a crash comes at, a name stands for the whole of its bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from freehold.disk import hash_file, sync, write_atomically

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blobs:
    """The blobs of one OCI image layout."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._here = folder / "blobs" / "sha256"

    def prepare(self) -> None:
        """Make the layout's folders and its mark, where they are not there."""
        self._here.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout = self.folder / "oci-layout"
        if not layout.exists():
            write_atomically(layout, b'{"imageLayoutVersion":"1.0.0"}')
        if not (self.folder / "index.json").exists() and not self.any():
            write_atomically(self.folder / "index.json", b'{"schemaVersion":2,"manifests":[]}')

    def any(self) -> bool:
        """Is there any blob?"""
        return self._here.is_dir() and any(True for _ in self._here.iterdir())

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest lie. Raises ValueError for what is no SHA-256 digest."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no sha256 digest")
        return self._here / digest.removeprefix("sha256:")

    def take(self, file: Path, digest: str) -> None:
        """Move a file, which has that digest, to its place; what is there already stays, if it is good."""
        blob = self.path(digest)
        if blob.exists() and hash_file(blob) == digest:
            return
        file.chmod(0o444)
        sync(file)
        os.replace(file, blob)
        sync(self._here)

    def write(self, content: bytes) -> str:
        """Keep a small document; gives its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if not self.path(digest).exists():
            write_atomically(self.path(digest), content)
        return digest

    def sweep(self, keep: Collection[str]) -> int:
        """Remove every blob but those, and what a crash left half-written; gives the bytes that came free."""
        wanted, freed = {digest.removeprefix("sha256:") for digest in keep}, 0
        for path in self._here.iterdir() if self._here.is_dir() else ():
            if path.name not in wanted:
                freed += path.stat().st_size
                path.unlink()
        return freed

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the vault against other processes that would change it, waiting for them if need be."""
        self.prepare()
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
