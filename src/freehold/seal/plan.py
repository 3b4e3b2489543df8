"""What is sealed, in what order, and what to say of a layer that could not be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from freehold.seal import bpf, kernel, landlock
from freehold.types import Layer

_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")
_DNS = 53  # over TCP, for answers too long for a datagram


class Plan(Struct, frozen=True):
    """What one process is to give up.

    ``files`` are (path, Landlock rights); None leaves the file system alone. ``file_bytes`` is the largest
    file that it may write, ``data_bytes`` the most memory that it may have of its own; ``alone``, it starts no process.
    ``ports`` are those that it may reach over TCP; None: it has no network.
    """

    refused: tuple[str, ...]
    own_network: bool = False
    files: tuple[tuple[str, int], ...] | None = None
    file_bytes: int | None = None
    data_bytes: int | None = None
    alone: bool = False
    ports: tuple[int, ...] | None = None


def gateway_plan() -> Plan:
    """The gateway keeps the listener that it bound and its files; it starts engines, so it may execute."""
    return Plan(bpf.ALWAYS)


def engine_plan(
    *, model: Path, folder: Path, adapters: Iterable[Path] = (), data_bytes: int | None = None
) -> Plan:  # fmt: skip
    """An engine sees its model, the adapters that it is to load, the folder of its socket, and what Python and its
    libraries need; no network."""
    system = (*_LIBRARIES, "/proc", "/sys/devices", "/sys/class")
    devices = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/dev/dri", "/dev/kfd", *_nvidia())
    files = (
        *((str(path), landlock.READ_FILE) for path in (model, *adapters)),
        (str(folder), landlock.SOCKETS),
        *((path, landlock.READ) for path in (*system, *_python())),
        *((path, landlock.DEVICE | landlock.READ_DIR) for path in devices),
    )
    return Plan(bpf.ENGINE, own_network=True, files=files, file_bytes=64 << 20, data_bytes=data_bytes)


def scanner_plan(*, file_bytes: int, data_bytes: int) -> Plan:
    """A scanner has the files that it is handed, open: it opens, makes and changes no other, starts no process, and has
    no network."""
    return Plan(bpf.SCANNER, own_network=True, files=(), file_bytes=file_bytes, data_bytes=data_bytes, alone=True)


def relay_plan(*, ports: tuple[int, ...], files: tuple[str, ...], data_bytes: int) -> Plan:
    """A relay reaches the given ports, and the name servers; it sees the ``files`` and folders that this needs, and
    what Python and its libraries need; it writes nothing, starts no program and listens on nothing new."""
    readable = (*_LIBRARIES, *_python(), *files)
    rights = tuple((path, landlock.READ) for path in readable)
    return Plan(bpf.RELAY, files=rights, data_bytes=data_bytes, ports=tuple(sorted({*ports, _DNS})))


def apply(plan: Plan) -> tuple[Layer, ...]:
    """Seal this process as planned, and say of every layer whether it is on and if not, why.

    A layer that the kernel refuses is left out and reported, never raised: whether that is acceptable is
    the caller's decision (`missing`). Call it in a process with one thread if ``own_network`` is set.
    """
    steps: list[tuple[str, Callable[[], str]]] = [("resource_limits", lambda: _limits(plan))]
    if plan.own_network:
        steps.append(("network_namespace", _own_network))
    steps.append(("no_new_privs", _no_new_privs))
    steps.append(("landlock", lambda: _landlock(plan)))
    if plan.own_network or plan.ports is not None:
        steps.append(("no_capabilities", _no_capabilities))
    if plan.ports is not None:
        steps.append(("hidden_memory", _hidden_memory))
    steps.append(("seccomp", lambda: _seccomp(plan)))
    return tuple(_step(name, step) for name, step in steps)


def put_on(mode: str, plan: Plan) -> tuple[Layer, ...]:
    """`apply`, unless the setting ``seal`` is off: then one layer that says so."""
    if mode == "off":
        return (Layer("seal", False, "switched off by the setting 'seal'", "reported"),)
    return apply(plan)


def missing(layers: Iterable[Layer]) -> list[str]:
    """The layers that are not on, each with the reason."""
    return [f"{layer.name} ({layer.detail})" for layer in layers if not layer.active]


def _step(name: str, step: Callable[[], str]) -> Layer:
    if not kernel.LINUX:
        return Layer(name, False, f"{sys.platform} has no such layer", "reported")
    if kernel.MACHINE not in kernel.SYSCALLS:
        return Layer(name, False, f"not known for {kernel.MACHINE}", "reported")
    try:
        return Layer(name, True, step(), "reported")
    except OSError as error:
        return Layer(name, False, f"the kernel refused: {error.strerror or error}", "reported")


def _limits(plan: Plan) -> str:
    kernel.limit_resources(plan.file_bytes, plan.data_bytes)
    files = "" if plan.file_bytes is None else f", no files over {plan.file_bytes >> 20} MiB"
    data = "" if plan.data_bytes is None else f", {plan.data_bytes >> 20} MiB of memory"
    return "no core dumps" + files + data


def _landlock(plan: Plan) -> str:
    abi = landlock.restrict(plan.files, plan.ports or ())
    files = "" if plan.files is None else "no files but its own; "
    if plan.ports is not None:
        if abi < 4:
            raise OSError(f"Landlock's ABI {abi}: {files}but TCP to any port")
        return f"ABI {abi}: {files}TCP to the ports {', '.join(map(str, plan.ports))} alone"
    tcp = "no TCP, also by sockets it holds" if abi >= 4 else "TCP is left to seccomp"
    return f"ABI {abi}: {files}{tcp}"


def _own_network() -> str:
    """A user namespace that maps only this user, and an empty network namespace inside it.

    A forked child tries first: a process that got half-way would be left without a user of its own.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _enter_namespace()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 255)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(code, os.strerror(code))
    _enter_namespace()
    return "its own network namespace, with no interface up"


def _enter_namespace() -> None:
    user, group = os.getuid(), os.getgid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _no_new_privs() -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    return "no gain of privilege through execve"


def _no_capabilities() -> str:
    kernel.drop_capabilities()
    return "none held, none to be gained"


def _hidden_memory() -> str:
    kernel.hide_memory()
    return "no other process of this user may read its memory"


def _seccomp(plan: Plan) -> str:
    outward = plan.ports is not None
    code = bpf.program(plan.refused, engine=plan.own_network or outward, alone=plan.alone, outward=outward)
    bpf.install(code)
    sockets = "sockets for TCP and UDP, and no others" if outward else "sockets of no family but AF_UNIX"
    return f"{sockets}; {len(plan.refused)} system calls refused"


def _python() -> list[str]:
    """Where Python's libraries lie; never the root: the working folder may be on the path."""
    return sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} - {"", "/"})


def _nvidia() -> list[str]:
    return [str(path) for path in Path("/dev").glob("nvidia*")]
