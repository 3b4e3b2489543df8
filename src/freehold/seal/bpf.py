"""The seccomp filter, assembled by hand into classic BPF.

Sources: linux/seccomp.h, linux/filter.h, linux/audit.h; seccomp(2) on why the architecture and the x32
bit must be looked at before the number.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable

from freehold.seal import kernel

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_SET_MODE_FILTER, _SYNC_THREADS = 1, 1

# What no part of Freehold needs, and each of which is a way round the seal: another way to the network
# (io_uring), into another process that may have it (ptrace and kin, pidfd_getfd), or into the kernel.
ALWAYS = (
    "io_uring_setup", "io_uring_enter", "io_uring_register", "ptrace", "process_vm_readv", "process_vm_writev",
    "pidfd_getfd", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "init_module",
    "finit_module", "delete_module", "kexec_load", "kexec_file_load", "mount", "umount2", "open_tree",
    "move_mount", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr", "open_tree_attr", "pivot_root",
    "chroot", "setns", "open_by_handle_at",
)  # fmt: skip
# An engine, besides, starts no program, makes no namespace, and speaks only on the socket it listens on:
# it may not go and find another socket on the machine (a session bus, a container daemon) to ask for help, nor
# leave anything in memory that outlives it for another process to find.
ENGINE = (
    *ALWAYS, "execve", "execveat", "unshare", "connect", "sendmsg", "sendmmsg", "shmget", "semget", "msgget", "mq_open",
)  # fmt: skip
# The relay, besides, starts no program and listens nowhere: its one listener was made before the seal.
RELAY = (*ALWAYS, "execve", "execveat", "unshare", "bind", "listen", "shmget", "semget", "msgget", "mq_open")
# A scanner, besides, starts no process, and changes nothing of a file but what it writes into those that it was handed
# for writing: Landlock does not cover a file's mode, owner, times and attributes.
SCANNER = (
    *ENGINE, "fork", "vfork", "memfd_create", "memfd_secret", "truncate", "chmod", "fchmod", "fchmodat", "fchmodat2",
    "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr",
    "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "file_setattr",
)  # fmt: skip

Instruction = tuple[int, int, int, int]


def program(refused: Iterable[str], *, engine: bool, alone: bool = False, outward: bool = False) -> bytes:
    """The filter: ``refused`` calls fail with EPERM, and so do sockets of any family but AF_UNIX.

    For an engine, besides: a sendto(2) with an address (a send(2) on a connected socket has none), a prlimit(2)
    on another process, a clone(2) into new namespaces; clone3(2), whose flags no filter can see, does not
    exist, so that the C library falls back to clone(2). One that is to stay ``alone`` may start threads and no process.
    One that may reach ``outward`` makes TCP and UDP sockets in place of AF_UNIX, and no others (not raw ones, none of a
    protocol that Landlock's rules for TCP do not know).
    A call from a foreign architecture, or one with x32 numbers, kills the process.
    """
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT_ARCH[kernel.MACHINE]), _kill()]
    code.append((_LOAD, 0, 0, _NUMBER))
    if kernel.MACHINE == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32_BIT), _kill()]
    for name in refused:
        if kernel.MACHINE == "x86_64" or name not in kernel.ONLY_X86_64:
            code += [(_EQUAL, 0, 1, kernel.number(name)), _refuse()]
    only_unix = _only(argument=0, value=socket.AF_UNIX)
    for name, rules in (("socket", _internet() if outward else only_unix), ("socketpair", only_unix)):
        code += [(_EQUAL, 0, len(rules), kernel.number(name)), *rules]
    if engine:
        code += _unless_zero("sendto", argument=4) + _unless_zero("prlimit64", argument=0)
        flags = [(_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 0, 1, _NAMESPACES), _refuse()]
        flags += [(_ANY_BIT, 1, 0, kernel.CLONE_THREAD), _refuse()] if alone else []
        code += [(_EQUAL, 0, len(flags) + 1, kernel.number("clone")), *flags, _allow()]
        code += [(_EQUAL, 0, 1, kernel.number("clone3")), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code.append(_allow())
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def install(code: bytes) -> None:
    """Put the filter on every thread of this process, for good. Raises OSError if the kernel refuses."""
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HL", len(code) // 8, ctypes.addressof(buffer))
    if kernel.syscall("seccomp", _SET_MODE_FILTER, _SYNC_THREADS, header):  # the thread that could not be had
        raise OSError(errno.ESRCH, "a thread of this process wears another filter")


def _only(*, argument: int, value: int) -> list[Instruction]:
    return [(_LOAD, 0, 0, _ARGUMENT + 8 * argument), (_EQUAL, 0, 1, value), _allow(), _refuse()]


def _internet() -> list[Instruction]:
    """Only sockets of IPv4 and IPv6, and of these only streams over TCP and datagrams over UDP."""
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    return [
        (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 2, 0, socket.AF_INET), (_EQUAL, 1, 0, socket.AF_INET6), _refuse(),
        (_LOAD, 0, 0, _ARGUMENT + 8), (_AND, 0, 0, 0xF), (_EQUAL, 2, 0, stream), (_EQUAL, 5, 0, datagram), _refuse(),
        (_LOAD, 0, 0, _ARGUMENT + 16), (_EQUAL, 6, 0, 0), (_EQUAL, 5, 0, socket.IPPROTO_TCP), _refuse(),
        (_LOAD, 0, 0, _ARGUMENT + 16), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, socket.IPPROTO_UDP), _refuse(),
        _allow(),
    ]  # fmt: skip


def _unless_zero(name: str, *, argument: int) -> list[Instruction]:
    """Refuse a call unless one of its arguments, 64 bits wide, is zero."""
    body = [*_word(argument, half=0), *_word(argument, half=1), _allow()]
    return [(_EQUAL, 0, len(body), kernel.number(name)), *body]


def _word(argument: int, *, half: int) -> list[Instruction]:
    """Refuse unless one half of a 64-bit argument is zero."""
    return [(_LOAD, 0, 0, _ARGUMENT + 8 * argument + 4 * half), (_EQUAL, 1, 0, 0), _refuse()]


def _allow() -> Instruction:
    return (_RETURN, 0, 0, _ALLOW)


def _refuse() -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _kill() -> Instruction:
    return (_RETURN, 0, 0, _KILL)
