"""An engine as a child process: started, watched, restarted with back-off, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from freehold import log
from freehold.config import EngineSettings
from freehold.engine import wire
from freehold.engine.child import SEAL_REQUIRED, Order, Word
from freehold.errors import BadModel, CannotDo, EngineFailed, Overloaded, SealMissing
from freehold.types import EngineState, Layer, Manifest

_BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before each restart in a row
_STEADY = 60.0  # an engine that stayed up this long starts again at the first back-off
_LOOK = 5.0  # seconds between looks at whether it still answers, and for one answer
_STOP = 5.0  # seconds between asking a child to stop and killing it
_LINES = 200  # of the engine's own output, kept in memory only: it could quote a prompt
_SOCKET_PATH = 100  # a Unix socket's path has at most 107 bytes
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


class EngineProcess:
    """One engine's child. `order` says what it is to become; the socket's folder and key are made here, and ``renew``
    has a look at it before each start."""

    def __init__(
        self, model: Manifest, kind: str, order: Order, folder: Path, settings: EngineSettings,
        renew: Callable[[Order], Order] = lambda order: order,
    ):  # fmt: skip
        self.model = model
        self.kind = kind
        self.layers: tuple[Layer, ...] = ()
        self.restarts = 0
        self._order = order
        self._renew = renew
        self._folder = folder
        self._start_seconds = settings.start_seconds
        self._stuck_seconds = settings.stuck_seconds
        self._state = "stopped"
        self._socket_folder: str | None = None  # ours to remove, once it is made
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task | None = None
        self._said: deque[str] = deque(maxlen=_LINES)
        self._failed = ""
        self._on_ready: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        """Does it take calls now?"""
        return self._state == "ready"

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        return self._order.socket

    def said(self, text: str) -> bool:
        """Has the engine library said this since its last start, on any of the lines that are kept?"""
        return any(text in line for line in self._said)

    def leave_out(self, adapter: str) -> None:
        """Start without this adapter from now on."""
        kept = tuple(one for one in self._order.adapters if one.path != adapter)
        self._order = msgspec.structs.replace(self._order, adapters=kept)

    @property
    def headers(self) -> dict[str, str]:
        """What a call to it must carry."""
        return {"Authorization": f"Bearer {self._order.key}"}

    def state(self) -> EngineState:
        """Where it is in its life, for status."""
        pid = self._process.pid if self._process and self._process.returncode is None else None
        order = self._order
        return EngineState(
            self.model.name, self.model.digest, self.kind, self._state, pid, self.restarts,
            order.context, order.slots, "", self.layers,
        )  # fmt: skip

    async def start(self, on_ready: Callable[[], None]) -> None:
        """Start the child and wait until it answers. Raises BadModel with the engine's own words if it does not."""
        self._on_ready = on_ready
        self._make_socket_folder()
        self._state = "starting"
        try:
            await self._launch()
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ask the child to stop, kill it if it does not, and remove its socket."""
        self._state = "stopped"
        while self._watcher and not self._watcher.done():
            self._watcher.cancel()  # more than once, if need be: an await that ends in that moment may swallow it
            await asyncio.wait([self._watcher], timeout=1)
        await self._end()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def _make_socket_folder(self) -> None:
        """A 0700 folder for one socket: in the home, or where the path would be too long, in the system's
        temporary folder."""
        parent: Path | None = self._folder
        if len(str(parent)) > _SOCKET_PATH - len("/exxxxxxxx/engine.sock"):
            parent = None
        else:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._socket_folder = folder = tempfile.mkdtemp(prefix="e" if parent else "freehold-", dir=parent)
        self._order = msgspec.structs.replace(
            self._order, socket=str(Path(folder) / "engine.sock"), key=secrets.token_urlsafe(32)
        )

    async def _launch(self) -> None:
        self._order = self._renew(self._order)
        Path(self.socket).unlink(missing_ok=True)
        self._said.clear()
        self._failed = ""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "freehold.engine.child",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            cwd="/", close_fds=True,
        )  # fmt: skip
        process = self._process
        process.stdin.write(msgspec.json.encode(self._order) + b"\n")
        self._listeners = [
            asyncio.create_task(self._hear(process.stdout)),
            asyncio.create_task(self._overhear(process.stderr)),
        ]
        await self._wait_until_ready(process)
        self._state = "ready"
        self._on_ready()

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not await self._answers():
            if process.returncode is not None:
                await asyncio.wait(self._listeners, timeout=1)
                raise self._will_not_start(f"it ended with code {process.returncode}")
            if time.monotonic() > deadline:
                raise self._will_not_start(f"it was not ready within {self._start_seconds:g} s")
            await asyncio.sleep(0.02)

    async def _answers(self, path: str = "/health") -> bool:
        if not os.path.exists(self.socket):
            return False
        asked = wire.Exchange()
        try:
            await asyncio.wait_for(asked.send(self.socket, "GET", path, b"", self.headers), _LOOK)
            return asked.status == 200
        except (EngineFailed, Overloaded, TimeoutError):
            return False
        finally:
            asked.close()

    async def _watch(self) -> None:
        """Restart the child whenever it dies, waiting longer each time in a row."""
        in_a_row, since = 0, time.monotonic()
        while True:
            await self._until_gone()
            self._state = "restarting"
            if time.monotonic() - since > _STEADY:
                in_a_row = 0
            log.note(f"The engine of {self.model.name} died (code {self._process.returncode}); restarting it.")
            while self._state == "restarting":
                await asyncio.sleep(_BACK_OFF[min(in_a_row, len(_BACK_OFF) - 1)])
                in_a_row += 1
                self.restarts += 1
                try:
                    await self._launch()
                except Exception as error:  # noqa: BLE001 - whatever it was, the next try may come through
                    await self._end()
                    log.note(f"The engine of {self.model.name} did not come back: {error}")
            since = time.monotonic()

    async def _until_gone(self) -> None:
        """Until the child ends; one that has not answered for too long is ended here."""
        silent_since = None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LOOK)
                return
            if await self._answers("/metrics"):  # /health is answered even by a stuck engine
                silent_since = None
            elif silent_since is None:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > self._stuck_seconds:
                log.note(f"The engine of {self.model.name} has not answered for {self._stuck_seconds:g} s; ending it.")
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.wait(self._listeners, timeout=1)

    async def _hear(self, stream: asyncio.StreamReader) -> None:
        """The child's own words."""
        async for line in stream:
            word = msgspec.json.decode(line, type=Word)
            self.layers = word.layers or self.layers
            self._failed = word.failed or self._failed

    async def _overhear(self, stream: asyncio.StreamReader) -> None:
        """What the engine library prints."""
        while block := await stream.read(65536):
            self._said.extend(block.decode("utf-8", "replace").splitlines())

    def _will_not_start(self, how: str) -> CannotDo:
        errors = [line for line in self._said if " E " in line or "error" in line.lower()]
        reason = _plain(errors[0]) if errors else self._failed or (self._said[-1] if self._said else "no reason")
        if self._failed.startswith(SEAL_REQUIRED):
            return SealMissing(f"{self._failed}.", hint='Run on a kernel that has them, or set seal = "best".')
        return BadModel(
            f"The engine could not load the model {self.model.name!r}: {how}; it says: {reason}",
            hint="The file may be damaged, of a kind that this engine does not know, or too large for the memory.",
        )


def _plain(line: str) -> str:
    """An engine's log line without its clock and level."""
    return line.split(" E ", 1)[-1].strip()
