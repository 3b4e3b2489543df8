"""The home: one folder with everything that Freehold keeps, and at most one server running on it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from freehold.errors import CannotDo, HomeInUse, NotRunning

_SOCKET_ROOM = 60  # of the 107 bytes of a Unix socket's path, what the folder may use


class Running(Struct, frozen=True):
    """What a running server leaves for the owner's own commands. ``key`` ends with the process."""

    pid: int
    address: str
    socket: str
    key: str
    started_at: float
    version: str


class Home:
    """The paths of one home. Made readable to its owner alone.

    Raises:
        CannotDo: the folder cannot be made or written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except OSError as error:
            raise CannotDo(
                f"The home {folder} cannot be made or entered: {error.strerror}.",
                hint="Choose another with --home or FREEHOLD_HOME.",
            ) from None
        self.vault = folder / "vault"
        self.proofs = folder / "proofs"
        self.signing_key = folder / "signing-key.pem"
        self._announcement = folder / "running.json"

    def database(self, url: str) -> str:
        """The database's URL: the configured one, or SQLite in the home."""
        return url or f"sqlite:///{self.folder / 'freehold.db'}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one server. Raises HomeInUse, naming who holds it."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise HomeInUse(
                    f"Another Freehold serves from {self.folder}{self._holder()}.",
                    hint="Use that one, stop it, or give this one a --home of its own.",
                ) from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def run_folder(self) -> Iterator[Path]:
        """A 0700 folder for sockets, in the home or, where that path would be too long, the temporary folder."""
        parent = self.folder if len(str(self.folder)) < _SOCKET_ROOM else None
        with tempfile.TemporaryDirectory(prefix="run-" if parent else "freehold-", dir=parent) as folder:
            yield Path(folder)

    @contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Let the owner's commands find the server while it runs."""
        descriptor = os.open(self._announcement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(running))
        try:
            yield
        finally:
            self._announcement.unlink(missing_ok=True)

    def running(self) -> Running:
        """The server that runs on this home. Raises NotRunning."""
        try:
            found = msgspec.json.decode(self._announcement.read_bytes(), type=Running)
            os.kill(found.pid, 0)
        except (OSError, msgspec.MsgspecError):
            raise NotRunning(f"No Freehold serves from {self.folder}.") from None
        return found

    def _holder(self) -> str:
        try:
            found = self.running()
        except NotRunning:
            return ""
        return f" (process {found.pid}, {found.address})"
