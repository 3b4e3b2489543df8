"""Where the server listens, and to how many."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
from pathlib import Path

import msgspec

from freehold.config import LimitsSettings, ServerSettings, Settings
from freehold.errors import BadConfig, PortTaken

_SPARE_FILES = 256  # descriptors kept free of client connections: the database, the engines, the log


def tls_of(server: ServerSettings) -> ssl.SSLContext | None:
    """What encrypts the connections, if they are encrypted here. Raises BadConfig."""
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"The TLS files cannot be used: {error}.", hint="See that both are PEM and fit.") from None
    return context


def bind(server: ServerSettings) -> socket.socket:
    """The listening socket. Raises PortTaken."""
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


def bind_own(folder: Path) -> socket.socket:
    """The owner's own way in: a Unix socket in a folder that nobody else may enter."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "api.sock"))
    return listener


def address_of(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    """Where clients find it, as a URL."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def room(settings: Settings) -> LimitsSettings:
    """The limits, with no more connections than this process may have files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(files - _SPARE_FILES, 16) if files > 0 else settings.limits.connections
    return msgspec.structs.replace(settings.limits, connections=min(settings.limits.connections, most))
