"""Landlock: a process may see only the files that it was given.

Source: linux/landlock.h and landlock(7). ABI 1 has files, 4 adds TCP, 6 adds abstract sockets and signals.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from freehold.seal import kernel

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_SOCK, TRUNCATE, IOCTL = 1 << 5, 1 << 9, 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR  # EXECUTE also covers mapping a library's code
SOCKETS = READ_DIR | REMOVE_FILE | MAKE_SOCK
DEVICE = READ_FILE | WRITE_FILE | IOCTL
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL

_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 0b11  # bind, connect
_CONNECT = 0b10
_SCOPES = 0b11  # abstract sockets, signals
_GET_VERSION, _RULE_PATH, _RULE_PORT = 1, 1, 2


def version() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, _GET_VERSION)
    except (OSError, KeyError):
        return 0


def restrict(rules: Iterable[tuple[str, int]] | None, ports: Iterable[int] = ()) -> int:
    """Leave this thread only the given (path, rights), and no TCP connection but to the given ports, also none by a
    socket that it holds.

    A path that does not exist is passed over; None leaves the file system alone. Returns the ABI that was used.
    Raises OSError where the kernel has no Landlock, refuses, or cannot do what is asked.
    """
    abi = version()
    if not abi:
        raise OSError("the kernel has no Landlock")
    if rules is None and abi < 4:
        raise OSError(f"this kernel's Landlock (ABI {abi}) knows no TCP; 4 does")
    handled = _RIGHTS_BY_ABI[max(known for known in _RIGHTS_BY_ABI if known <= abi)]
    if rules is None:
        handled = 0
    attributes = struct.pack("QQQ", handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = kernel.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path, rights in rules or ():
            _allow(ruleset, path, rights & handled)
        for port in ports if abi >= 4 else ():
            rule = ctypes.create_string_buffer(struct.pack("=QQ", _CONNECT, port))
            kernel.syscall("landlock_add_rule", ruleset, _RULE_PORT, rule, 0)
        kernel.syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor))
        kernel.syscall("landlock_add_rule", ruleset, _RULE_PATH, rule, 0)
    finally:
        os.close(descriptor)
