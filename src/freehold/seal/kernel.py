"""The few kernel calls that the seal is made of, through libc, and what /proc says afterwards.

Sources: prctl(2), seccomp(2), unshare(2), capset(2), landlock(7), proc(5).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path

from freehold.types import Layer

LINUX = sys.platform == "linux"
MACHINE = platform.machine()

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CLONE_THREAD = 0x00010000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CAPABILITY_VERSION_3 = 0x20080522
LAST_CAPABILITY = 63

# System call numbers by architecture (arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h).
SYSCALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "shmget": 29, "clone": 56, "semget": 64, "msgget": 68, "pivot_root": 155, "chroot": 161, "mq_open": 240,
        "prlimit64": 302, "clone3": 435, "fsconfig": 431, "fspick": 433, "mount_setattr": 442, "open_tree_attr": 467,
        "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46, "socketpair": 53, "execve": 59, "ptrace": 101,
        "capset": 126, "mount": 165, "umount2": 166, "init_module": 175, "delete_module": 176, "kexec_load": 246,
        "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
        "open_by_handle_at": 304, "sendmmsg": 307, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "finit_module": 313, "seccomp": 317, "kexec_file_load": 320, "bpf": 321, "execveat": 322,
        "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "pidfd_getfd": 438,
        "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
        "fork": 57, "vfork": 58, "truncate": 76, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94,
        "utime": 132, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198,
        "fremovexattr": 199, "utimes": 235, "fchownat": 260, "futimesat": 261, "fchmodat": 268, "utimensat": 280,
        "memfd_create": 319, "memfd_secret": 447, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
        "file_setattr": 469, "bind": 49, "listen": 50,
    },
    "aarch64": {
        "pivot_root": 41, "chroot": 51, "mq_open": 180, "msgget": 186, "semget": 190, "shmget": 194, "clone": 220,
        "prlimit64": 261, "clone3": 435, "fsconfig": 431, "fspick": 433, "mount_setattr": 442, "open_tree_attr": 467,
        "umount2": 39, "mount": 40, "capset": 91, "unshare": 97, "kexec_load": 104, "init_module": 105,
        "delete_module": 106, "ptrace": 117, "socket": 198, "socketpair": 199, "connect": 203, "sendto": 206,
        "sendmsg": 211, "add_key": 217, "request_key": 218, "keyctl": 219, "execve": 221, "perf_event_open": 241,
        "open_by_handle_at": 265, "setns": 268, "sendmmsg": 269, "process_vm_readv": 270, "process_vm_writev": 271,
        "finit_module": 273, "seccomp": 277, "bpf": 280, "execveat": 281, "userfaultfd": 282,
        "kexec_file_load": 294, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "pidfd_getfd": 438,
        "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
        "truncate": 45, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88,
        "memfd_create": 279, "memfd_secret": 447, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
        "file_setattr": 469, "bind": 200, "listen": 201,
    },
}  # fmt: skip
# Calls that only the older architecture has: on the newer one the C library makes another call in their place.
ONLY_X86_64 = frozenset({"fork", "vfork", "chmod", "chown", "lchown", "utime", "utimes", "futimesat"})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def number(name: str) -> int:
    """The number of a system call on this machine; KeyError where the architecture is not known."""
    return SYSCALLS[MACHINE][name]


def syscall(name: str, *arguments: object) -> int:
    """Make a system call by name. Raises OSError with the kernel's errno."""
    return _checked(_libc.syscall(ctypes.c_long(number(name)), *arguments), name)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2). Raises OSError with the kernel's errno."""
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *words), "prctl")


def dissolve(descriptor: int) -> None:
    """connect(2) to AF_UNSPEC, which frees a socket from what it was connected to. Raises OSError."""
    _checked(_libc.connect(descriptor, ctypes.create_string_buffer(16), 16), "connect")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError with the kernel's errno."""
    _checked(_libc.unshare(flags), "unshare")


def drop_capabilities() -> None:
    """Give up every capability, now and across execve(2)."""
    for capability in range(LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the kernel's last capability, or not held in this namespace
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def limit_resources(file_bytes: int | None, data_bytes: int | None) -> None:
    """No core dumps (they would hold prompts), and where given, no files and no memory of its own beyond a bound."""
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: file_bytes, resource.RLIMIT_DATA: data_bytes}
    for what, bound in bounds.items():
        if bound is not None:
            resource.setrlimit(what, (bound, bound))


def hide_memory() -> None:
    """No other process of the same user may read this one's memory (Linux; elsewhere nothing)."""
    if LINUX:
        prctl(PR_SET_DUMPABLE, 0)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux; elsewhere nothing)."""
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal_number)


def read(pid: int) -> tuple[Layer, ...]:
    """The layers that the kernel says process ``pid`` wears, read from /proc.

    Landlock is not among them: the kernel offers no way to read it back.
    """
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        limits = Path(f"/proc/{pid}/limits").read_text()
    except OSError as error:
        return (Layer("kernel", False, f"/proc/{pid} cannot be read: {error.strerror}"),)
    value = {name: text.strip() for name, text in status.items()}
    privileges, mode = value.get("NoNewPrivs", "?"), value.get("Seccomp", "?")
    capabilities = int(value.get("CapEff", "1"), 16)
    core = next((line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")), ["?"])
    return (
        Layer("no_new_privs", privileges == "1", f"NoNewPrivs {privileges}"),
        Layer("seccomp", mode == "2", f"Seccomp {mode}, filters {value.get('Seccomp_filters', '?')}"),
        _network_namespace(pid),
        Layer("no_capabilities", capabilities == 0, f"CapEff {capabilities:x}"),
        Layer("resource_limits", set(core) == {"0"}, f"core limit {'/'.join(core)}"),
    )


def _network_namespace(pid: int) -> Layer:
    try:
        theirs, ours = os.readlink(f"/proc/{pid}/ns/net"), os.readlink("/proc/self/ns/net")
    except OSError as error:
        return Layer("network_namespace", False, f"cannot be read: {error.strerror}")
    return Layer("network_namespace", theirs != ours, f"{theirs}, the reader's is {ours}")


def _checked(result: int, name: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result
