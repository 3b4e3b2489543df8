"""The home: one folder with everything that Freehold keeps, and at most one server running on it."""

from __future__ import annotations

import fcntl
import os
import shutil
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


_MARKS = ("freehold.db", "freehold.toml", "lock", "vault", "quarantine")  # any of them makes a folder a home


class Home:
    """The paths of one home, readable to its owner alone. ``create`` makes it if it is not there.

    Raises:
        CannotDo: it is not there and is not to be made, cannot be made, or is a folder with something else in it.
    """

    def __init__(self, folder: Path, *, create: bool):
        self.folder = folder
        try:
            self._adopt(create)
        except OSError as error:
            raise CannotDo(
                f"The home {folder} cannot be made or entered: {error.strerror}.",
                hint="Choose another with --home or FREEHOLD_HOME.",
            ) from None
        self.database = folder / "freehold.db"
        self.vault = folder / "vault"
        self.traffic = folder / "traffic.db"
        self.tasks = folder / "tasks"
        self.held = folder / "held"
        self.downloads = folder / "downloads"
        self.wheels = folder / "wheels"
        self.proofs = folder / "proofs"
        self.tuning = folder / "tuning"
        self.signing_key = folder / "signing-key.pem"
        self._announcement = folder / "running.json"

    def _adopt(self, create: bool) -> None:
        if not self.folder.is_dir():
            if not create and not self.folder.exists():
                raise CannotDo(f"There is no home {self.folder}.", hint="'freehold up' makes one; or give --home.")
            self.folder.mkdir(parents=True, mode=0o700)
            return
        inside = os.listdir(self.folder)
        if inside and not any(mark in inside for mark in _MARKS):
            raise CannotDo(
                f"{self.folder} holds other things and is no Freehold home.", hint="Give --home a folder of its own."
            )
        if create:
            self.folder.chmod(0o700)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one server. Raises HomeInUse, naming who holds it."""
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotDo(f"{self.folder / 'lock'} cannot be opened: {error.strerror}.", hint="Remove it.") from None
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
        for left in self.folder.glob("run-*"):  # by a crash; the lock says that nobody is using it
            shutil.rmtree(left, ignore_errors=True)
        parent = self.folder if len(str(self.folder)) < _SOCKET_ROOM else None
        with tempfile.TemporaryDirectory(prefix="run-" if parent else "freehold-", dir=parent) as folder:
            yield Path(folder)

    @contextmanager
    def announced(self, running: Running) -> Iterator[None]:
        """Let the owner's commands find the server while it runs."""
        try:
            descriptor = os.open(self._announcement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise CannotDo(f"{self._announcement} cannot be written: {error.strerror}.", hint="Remove it.") from None
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
