"""Attempts to get out, made from inside the seal and, as the control, from outside it.

Every attempt aims at what the proof itself set up on loopback or in a temporary folder, and at nothing
else. An attempt that succeeds returns; one that is stopped raises OSError. `main` is the sealed side: it
puts the seal on, makes every attempt, and prints what happened as JSON.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

from freehold import seal
from freehold.seal import kernel

_PATIENCE = 3.0  # seconds


class Targets(Struct, frozen=True):
    """What the attempts aim at. A port of 0 means that the machine has no such loopback."""

    tcp4: int
    udp4: int
    tcp6: int
    udp6: int
    unix: str
    secret: str
    word: str


class Orders(Struct, frozen=True):
    """Which seal to put on (``engine``, ``gateway`` or ``off``), what to try, and where the targets are."""

    profile: str
    attempts: tuple[str, ...]
    targets: Targets


class Tried(Struct, frozen=True):
    """What came of one attempt: it got out, or it was stopped and how."""

    got_out: bool
    how: str


class Report(Struct, frozen=True):
    """What the sealed side says."""

    tried: dict[str, Tried]


def _tcp(targets: Targets, family: int = socket.AF_INET) -> None:
    host, port = ("127.0.0.1", targets.tcp4) if family == socket.AF_INET else ("::1", targets.tcp6)
    with socket.socket(family, socket.SOCK_STREAM) as out:
        out.settimeout(_PATIENCE)
        out.connect((host, _there(port)))
        if out.recv(64) != targets.word.encode():
            raise OSError("the listener did not answer with its word")


def _udp(targets: Targets, family: int = socket.AF_INET) -> None:
    host, port = ("127.0.0.1", targets.udp4) if family == socket.AF_INET else ("::1", targets.udp6)
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.settimeout(_PATIENCE)
        out.sendto(b"?", (host, _there(port)))
        if out.recv(64) != targets.word.encode():
            raise OSError("the listener did not answer with its word")


def _raw(_: Targets) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def _packet(_: Targets) -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def _netlink(_: Targets) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as out:
        out.bind((0, 0))


def _vsock(_: Targets) -> None:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


def _io_uring(_: Targets) -> None:
    os.close(kernel.syscall("io_uring_setup", 1, ctypes.byref((ctypes.c_uint32 * 30)())))


def _forked(targets: Targets) -> None:
    """A child of the process tries again."""
    pid = os.fork()
    if pid == 0:
        try:
            _tcp(targets)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
    _, status = os.waitpid(pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(code) if 0 < code < 255 else f"the child ended with {code}")


def _executed(targets: Targets) -> None:
    """A fresh program that the process starts tries again."""
    program = f"import socket; s = socket.create_connection(('127.0.0.1', {targets.tcp4}), {_PATIENCE}); s.recv(64)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])


def _turned_listener(targets: Targets) -> None:
    """A listener from before the seal, shut down, dissolved and connected: no new socket is needed."""
    _turn(_held()[0], targets)


def _turned_accepted(targets: Targets) -> None:
    """The same with a connection that a client made."""
    _turn(_held()[1], targets)


@cache
def _held() -> tuple[socket.socket, socket.socket]:
    """A listener and an accepted connection, as a gateway holds them when it is sealed."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    client.close()
    return listener, accepted


def _turn(held: socket.socket, targets: Targets) -> None:
    held.settimeout(_PATIENCE)
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)
    kernel.dissolve(held.fileno())
    held.connect(("127.0.0.1", _there(targets.tcp4)))
    if held.recv(64) != targets.word.encode():
        raise OSError("the listener did not answer with its word")


def _unix(targets: Targets) -> None:
    """Another process's Unix socket, as a session bus or a container daemon would be."""
    with socket.socket(socket.AF_UNIX) as out:
        out.settimeout(_PATIENCE)
        out.connect(targets.unix)


def _file(targets: Targets) -> None:
    """A file of the same user that is none of the engine's business."""
    Path(targets.secret).read_bytes()


ATTEMPTS: dict[str, tuple[Callable[[Targets], None], str]] = {
    "tcp": (_tcp, "connect over TCP"),
    "udp": (_udp, "send a datagram over UDP"),
    "tcp6": (lambda targets: _tcp(targets, socket.AF_INET6), "connect over TCP, IPv6"),
    "udp6": (lambda targets: _udp(targets, socket.AF_INET6), "send a datagram over UDP, IPv6"),
    "raw": (_raw, "open a raw IP socket"),
    "packet": (_packet, "open a packet socket"),
    "netlink": (_netlink, "open a netlink socket"),
    "vsock": (_vsock, "open a socket to the hypervisor"),
    "io_uring": (_io_uring, "set up io_uring, which can open sockets without socket()"),
    "forked": (_forked, "connect over TCP from a forked child"),
    "executed": (_executed, "connect over TCP from a program it starts"),
    "listener": (_turned_listener, "connect over TCP with a listener that it held"),
    "accepted": (_turned_accepted, "connect over TCP with a connection that it had accepted"),
    "unix": (_unix, "speak to another process's Unix socket"),
    "file": (_file, "read another file of the same user"),
}
# The gateway serves Unix sockets and keeps files, so the last two are the engine's alone.
PROFILES = {"gateway": tuple(ATTEMPTS)[:-2], "engine": tuple(ATTEMPTS)}


def attempt(name: str, targets: Targets) -> Tried:
    """Make one attempt here and now."""
    try:
        ATTEMPTS[name][0](targets)
    except OSError as error:
        return Tried(False, error.strerror or str(error))
    return Tried(True, "got through")


def main() -> None:
    """The sealed side."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    with suppress(OSError):  # where loopback is down the control fails too, and says so
        _held()
    if orders.profile == "engine":
        folder = Path(orders.targets.unix).parent / "engine"
        seal.apply(seal.engine_plan(model=Path(os.devnull), folder=folder))
    elif orders.profile == "gateway":
        seal.apply(seal.gateway_plan())
    tried = {name: attempt(name, orders.targets) for name in orders.attempts}
    sys.stdout.buffer.write(msgspec.json.encode(Report(tried)))


def _there(port: int) -> int:
    if not port:
        raise OSError("this machine has no IPv6 loopback")
    return port


if __name__ == "__main__":
    main()
