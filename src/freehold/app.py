"""The composition root: the only module that names concrete classes and joins them into a running server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import msgspec
import uvloop
from msgspec import Struct

import freehold
from freehold import acquire, seal
from freehold.admit import admit
from freehold.answer import House
from freehold.api.admin import Admin
from freehold.api.http import Server
from freehold.api.router import Router
from freehold.auth import KeyRing
from freehold.config import Limits, Settings
from freehold.config import Server as ServerSettings
from freehold.engine.base import Engine
from freehold.engine.fake import FakeEngine
from freehold.engine.llamacpp import LlamaCpp
from freehold.engine.template import for_model
from freehold.errors import BadConfig, PortTaken, SealMissing, UnsafeBind
from freehold.home import Home, Running
from freehold.ledger import Ledger
from freehold.scan import gguf
from freehold.store import Store
from freehold.types import EngineState, Layer, Manifest, Role
from freehold.vault import Vault

ENGINES = {"llamacpp": LlamaCpp, "fake": FakeEngine}
_SPARE_FILES = 256  # descriptors kept free of client connections: the database, the engines, the log


class Host(Protocol):
    """Whoever started the server and wants to hear of it: the terminal, or a test."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Something long is under way."""

    def first_key(self, key: str) -> None:
        """The first key was made; this is the only time it can be seen."""

    def ready(self, address: str, layers: tuple[Layer, ...], engines: list[EngineState]) -> None:
        """Calls are answered from now on."""

    def stopping(self) -> None:
        """No new calls are taken; running ones finish."""


class Parts(Struct):
    """What stands on one home's database and vault, for the server and for the commands that need no server."""

    home: Home
    settings: Settings
    store: Store
    ledger: Ledger
    keys: KeyRing
    vault: Vault


@contextlib.contextmanager
def parts(home: Home, settings: Settings) -> Iterator[Parts]:
    """Open a home. Raises StoreFailed if its database cannot be opened."""
    store = Store(settings.database or home.database)
    try:
        ledger = Ledger(store)
        yield Parts(home, settings, store, ledger, KeyRing(store, ledger), Vault(home.vault))
    finally:
        store.close()


def serve(home: Home, settings: Settings, host: Host, *, model: Path | None = None, engine: str = "llamacpp") -> None:
    """Serve until told to stop: everything that needs the network or may fail comes first, then the seal.

    Raises:
        CannotDo: as its parts do; nothing is left half-written.
    """
    _check_bind(settings.server)
    tls = _tls(settings.server)
    with home.lock(), contextlib.closing(_bind(settings.server)) as listener, parts(home, settings) as opened:
        manifest = _model(opened, model, host)
        opened.vault.verify(manifest, lambda done, total: host.progress("verifying", done, total))
        if not opened.keys.list():
            _, key = opened.keys.create("admin", Role.ADMIN, actor="first start")
            host.first_key(key)
        with home.run_folder() as folder:
            running = _Running(opened, manifest, engine, folder, host)
            running.layers = _seal(settings.seal)  # before there is a loop, which would keep an io_uring from before
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(running.run(listener, tls))


class _Running:
    """One run of the server."""

    def __init__(self, opened: Parts, manifest: Manifest, engine: str, folder: Path, host: Host):
        self.opened, self.folder, self.host = opened, folder, host
        settings = opened.settings
        file = opened.vault.blob(manifest.digest)
        header, _ = gguf.scan(file)
        template = for_model(str(header.metadata.get("tokenizer.chat_template", "")) if header else "")
        made: Engine = ENGINES[engine](manifest, file, template, folder, settings.engine, settings.seal)
        self.engines = {manifest.name: made}
        self.house = House(opened.ledger, self.engines)
        self.layers: tuple[Layer, ...] = ()

    async def run(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        settings, started = self.opened.settings, time.time()
        stop = _stop_signals()
        own_listener = _bind_own(self.folder)
        self.opened.ledger.start(settings.ledger.durability)
        address = _address(listener, tls)
        facts = {"version": freehold.__version__, "pid": os.getpid(), "address": address,
                 "seal": settings.seal, "started_at": started, "reported": msgspec.to_builtins(self.layers)}  # fmt: skip
        router = Router(self.house, self.opened.keys, Admin(self.house, facts))
        server = Server(router.handle, router.gate, router.on_error, _room(settings))
        running = Running(
            pid=os.getpid(), address=address, socket=own_listener.getsockname(),
            key=self.opened.keys.session_key("this machine's owner"), started_at=started, version=freehold.__version__,
        )  # fmt: skip
        try:
            await server.start([(listener, tls), (own_listener, None)])
            with self.opened.home.announced(running):
                if await self._start_engines(stop):
                    self.host.ready(address, self.layers, [engine.state() for engine in self.engines.values()])
                    await stop.wait()
                    self.host.stopping()
                router.stopping = True
                await server.stop(settings.server.grace)
        finally:
            await asyncio.gather(*(engine.stop() for engine in self.engines.values()))
            await self.opened.ledger.stop()
            self.opened.keys.close()

    async def _start_engines(self, stop: asyncio.Event) -> bool:
        """Start them all, unless told to stop meanwhile. Raises what the first that fails raises."""
        starting = asyncio.gather(*(engine.start() for engine in self.engines.values()))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return False
        starting.result()
        return True


def _model(opened: Parts, path: Path | None, host: Host) -> Manifest:
    """The model to serve: the one given, or the starter; fetched and admitted if the vault lacks it."""
    if path is None and (known := opened.vault.find("sha256:" + acquire.STARTER.sha256)):
        return known
    with acquire.quarantine(opened.home.folder) as folder:
        if path is None:
            acquired = acquire.package(acquire.STARTER, folder, host.progress)
        else:
            acquired = acquire.file(path, folder, host.progress)
            if known := opened.vault.find(acquired.digest):
                return known
        licence = acquire.STARTER.licence if path is None else ""
        return admit(acquired, opened.vault, opened.ledger, actor="freehold up", licence=licence)


def _check_bind(server: ServerSettings) -> None:
    if bool(server.tls_cert) != bool(server.tls_key):
        raise BadConfig("TLS needs a certificate and its key.", hint="Give both --tls-cert and --tls-key.")
    try:
        loopback = server.host == "localhost" or ip_address(server.host).is_loopback
    except ValueError:
        raise BadConfig(f"{server.host!r} is not an address.", hint="Give one like 127.0.0.1 or 0.0.0.0.") from None
    if not loopback and not server.tls_cert and not server.behind_proxy:
        raise UnsafeBind(
            f"Listening on {server.host} would send keys and prompts in the clear.",
            hint="Add --tls-cert and --tls-key, or --behind-proxy if something in front encrypts.",
        )


def _tls(server: ServerSettings) -> ssl.SSLContext | None:
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"The TLS files cannot be used: {error}.", hint="See that both are PEM and fit.") from None
    return context


def _bind(server: ServerSettings) -> socket.socket:
    host = "127.0.0.1" if server.host == "localhost" else server.host
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, server.port))
        listener.listen(4096)  # now: bind alone would share the port with another that has not listened yet
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"{host}:{server.port} cannot be listened on: {error.strerror}.",
            hint="Choose another with --port or FREEHOLD_SERVER_PORT; 0 takes any that is free.",
        ) from None
    return listener


def _bind_own(folder: Path) -> socket.socket:
    """The owner's own way in: a Unix socket in a folder that nobody else may enter."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "api.sock"))
    return listener


def _seal(mode: str) -> tuple[Layer, ...]:
    if mode == "off":
        return (Layer("seal", False, "switched off by the setting 'seal'", "reported"),)
    layers = seal.apply(seal.gateway_plan())
    if mode == "required" and (lacking := seal.missing(layers)):
        raise SealMissing(
            f"The seal is required and this kernel lacks {'; '.join(lacking)}.",
            hint='Run on Linux, or set seal = "best" to serve with what there is.',
        )
    return layers


def _room(settings: Settings) -> Limits:
    """The limits, with no more connections than this process may have files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(files - _SPARE_FILES, 16) if files > 0 else settings.limits.connections
    return msgspec.structs.replace(settings.limits, connections=min(settings.limits.connections, most))


def _stop_signals() -> asyncio.Event:
    """Set at the first Ctrl-C or SIGTERM; the second ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on(number: int) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on, number)
    return stop


def _address(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"
