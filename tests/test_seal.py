"""The seal: what a sealed process cannot do, tried by a sealed process, and by an ordinary user too."""

import json
import os
import platform
import subprocess
import sys

import pytest

from freehold.seal import kernel, landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the seal is the Linux kernel's")

SEALED = """
import ctypes, json, os, socket, sys
from pathlib import Path
from freehold import seal
from freehold.seal import kernel
folder = Path(sys.argv[2])
plan = seal.engine_plan(model=folder / "model", folder=folder) if sys.argv[1] == "engine" else seal.gateway_plan()
layers = seal.apply(plan)
def attempt(what):
    try:
        return what() or "done"
    except (OSError, PermissionError) as error:
        return error.strerror or str(error)
"""


def sealed(profile: str, folder, program: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-P", "-c", SEALED + program, profile, str(folder)], capture_output=True, text=True, **options
    )


def told(profile: str, folder, program: str, **options):
    done = sealed(profile, folder, program + "\nprint(json.dumps(result))", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_layer_of_the_engines_seal_is_on_here(tmp_path):
    """And the kernel agrees."""
    program = (
        "result = [[l.name, l.active, l.detail] for l in layers], [[l.name, l.active] for l in seal.read(os.getpid())]"
    )
    reported, read = told("engine", tmp_path, program)
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    assert all(active for _, active, _ in reported), reported
    # the process compares its own network namespace with its own, so that one it cannot tell
    assert [name for name, active in read if not active] == ["network_namespace"]


@pytest.mark.parametrize("profile", ["gateway", "engine"])
def test_no_socket_but_unix_can_be_made(tmp_path, profile):
    """Every family that the kernel numbers, and socketpair as well."""
    program = """
result = {}
for family in range(50):
    if family != socket.AF_UNIX:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
            result[f"{family} {kind}"] = attempt(lambda: socket.socket(family, kind).close())
result["pair"] = attempt(lambda: kernel.syscall("socketpair", 10, 1, 0, (ctypes.c_int * 2)()))
result["unix"] = attempt(lambda: socket.socket(socket.AF_UNIX).close())
"""
    result = told(profile, tmp_path, program)
    assert result.pop("unix") == "done" and set(result.values()) == {"Operation not permitted"}


REFUSED = (
    "io_uring_setup",
    "ptrace",
    "process_vm_readv",
    "pidfd_getfd",
    "bpf",
    "userfaultfd",
    "keyctl",
    "mount",
    "setns",
)


@pytest.mark.parametrize("profile", ["gateway", "engine"])
def test_ways_round_the_seal_are_refused(tmp_path, profile):
    """Other processes, other namespaces, the kernel itself."""
    program = f"result = {{name: attempt(lambda: kernel.syscall(name, 0, 0, 0, 0, 0)) for name in {REFUSED}}}"
    assert set(told(profile, tmp_path, program).values()) == {"Operation not permitted"}


def test_an_engine_cannot_run_a_program_reach_a_socket_or_read_a_file(tmp_path):
    """Beyond what it was given."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "secret").write_text("x")
    program = """
import subprocess
secret = folder.parent / "secret"
other = socket.socket(socket.AF_UNIX)
mine = socket.socket(socket.AF_UNIX); mine.bind(str(folder / "mine.sock")); mine.listen()
datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
result = {
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "connect": attempt(lambda: other.connect("/run/x.sock")),
    "sendto": attempt(lambda: datagram.sendto(b"x", "/dev/log")),
    "sendmsg": attempt(lambda: datagram.sendmsg([b"x"], [], 0, "/dev/log")),
    "read": attempt(lambda: secret.read_text()),
    "write": attempt(lambda: (folder / "new").write_text("x")),
    "list": attempt(lambda: os.listdir(folder.parent)),
    "unshare": attempt(lambda: kernel.unshare(kernel.CLONE_NEWUSER)),
    "home": attempt(lambda: os.listdir("/root") if os.path.exists("/root") else None),
}
"""
    result = told("engine", tmp_path / "engine", program)
    assert set(result.values()) <= {"Operation not permitted", "Permission denied"}, result


def test_the_engines_network_namespace_is_empty(tmp_path):
    """No interface but a loopback that is down."""
    program = "result = [line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line]"
    assert told("engine", tmp_path, program) in ([], ["lo"])


def test_an_engine_can_make_no_namespace_and_touch_no_other_process(tmp_path):
    """By clone and clone3 too; nor leave memory behind for others, nor set their limits."""
    program = """
new = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET | 17
result = {
    "clone": attempt(lambda: kernel.syscall("clone", ctypes.c_ulong(new), None, None, None, None)),
    "clone3": attempt(lambda: kernel.syscall("clone3", None, 0)),
    "prlimit": attempt(lambda: kernel.syscall("prlimit64", ctypes.c_long(os.getppid()), 7, None, None)),
    "shmget": attempt(lambda: kernel.syscall("shmget", 0x4242, 4096, 0o3600)),
    "mq_open": attempt(lambda: kernel.syscall("mq_open", b"x", 0o102, 0o600, None)),
    "mount": attempt(lambda: kernel.syscall("fsconfig", 0, 0, 0, 0, 0)),
}
import threading
thread = threading.Thread(target=lambda: result.update(thread="done")); thread.start(); thread.join()
pid = os.fork()
if pid == 0: os._exit(7)
result["fork"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
import resource
result["own limits"] = resource.getrlimit(resource.RLIMIT_CORE)[0]
"""
    result = told("engine", tmp_path, program)
    assert (result.pop("thread"), result.pop("fork"), result.pop("own limits")) == ("done", 7, 0)
    assert result.pop("clone3") == "Function not implemented"
    assert set(result.values()) == {"Operation not permitted"}, result


SCANNER = """
import ctypes, json, os, sys, threading
from freehold import seal
from freehold.seal import kernel
path = sys.argv[1].encode()
held = os.open(path, os.O_RDWR)
if sys.argv[2] == "sealed":
    seal.apply(seal.scanner_plan(file_bytes=1 << 20, data_bytes=512 << 20))
def attempt(what):
    try:
        return what() or "done"
    except OSError as error:
        return error.strerror
def forked():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
def cloned(flags):
    pid = kernel.syscall("clone", ctypes.c_ulong(flags | 17), None, None, None, None)
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
def thread(wait=False):
    done = []
    it = threading.Thread(target=done.append, args=("done",)); it.start(); it.join()
    return done[0]
result = {
    "chmod": attempt(lambda: os.chmod(path, 0o600)), "fchmod": attempt(lambda: os.fchmod(held, 0o600)),
    "chown": attempt(lambda: os.chown(path, -1, -1)), "lchown": attempt(lambda: os.lchown(path, -1, -1)),
    "fchown": attempt(lambda: os.fchown(held, -1, -1)),
    "utime": attempt(lambda: os.utime(path, (0, 0))), "futime": attempt(lambda: os.utime(held, (0, 0))),
    "setxattr": attempt(lambda: os.setxattr(path, "user.x", b"x")),
    "fsetxattr": attempt(lambda: os.setxattr(held, "user.x", b"x")),
    "removexattr": attempt(lambda: os.removexattr(path, "user.x")),
    "memfd": attempt(lambda: os.close(os.memfd_create("x"))), "fork": attempt(forked),
    "clone": attempt(lambda: cloned(0)), "vfork": attempt(lambda: cloned(0x4000)),
}
allowed = {
    "thread": attempt(thread), "write": attempt(lambda: str(os.write(held, b"yy"))),
    "size": attempt(lambda: str(os.fstat(held).st_size)),
}
closed = {
    "open": attempt(lambda: os.open(path, os.O_RDONLY)), "list": attempt(lambda: os.listdir("/")),
    "make": attempt(lambda: os.mkdir(path + b"2")), "rename": attempt(lambda: os.rename(path, path + b"2")),
    "unlink": attempt(lambda: os.unlink(path)), "link": attempt(lambda: os.symlink("x", path + b"2")),
}
print(json.dumps([result, allowed, closed]))
"""


def test_a_scanner_changes_no_file_and_starts_no_process(tmp_path):
    """Neither by a path nor by what it holds open; a thread it may start, and write where it was handed a file to."""

    def tried(how: str) -> list[dict[str, str]]:
        (tmp_path / "file").write_bytes(b"x")
        command = [sys.executable, "-P", "-W", "ignore", "-c", SCANNER, str(tmp_path / "file"), how]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    result, allowed, closed = tried("sealed")
    assert set(result.values()) == {"Operation not permitted"}, result
    assert allowed == {"thread": "done", "write": "2", "size": "2"}
    if landlock.version():
        assert set(closed.values()) == {"Permission denied"}, closed
    without, _, _ = tried("open")
    attributes = {"setxattr", "fsetxattr", "removexattr"}  # some file systems have none
    assert {how for how, what in without.items() if what != "done"} <= attributes, without


def test_a_gateway_cannot_turn_a_socket_that_it_holds_into_a_way_out(tmp_path):
    """Its listener, shut down, dissolved and connected; outside the seal that works."""
    program = """
target = socket.create_server(("127.0.0.1", 0))
def turn(held):
    held.shutdown(socket.SHUT_RDWR); kernel.dissolve(held.fileno()); held.connect(target.getsockname())
first, second = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
outside = attempt(lambda: turn(first))
seal.apply(seal.gateway_plan())
result = [outside, attempt(lambda: turn(second)), attempt(lambda: target.getsockname() and None)]
"""
    if landlock.version() < 4:
        pytest.skip("this kernel's Landlock knows no TCP")
    outer = SEALED.replace("layers = seal.apply(plan)", "layers = ()")
    done = subprocess.run(
        [sys.executable, "-P", "-c", outer + program + "print(json.dumps(result))", "gateway", str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == ["done", "Permission denied", "done"], done.stderr


def test_an_engine_has_no_more_memory_than_it_was_given(tmp_path):
    """A bound on its own memory, so that it cannot take the machine down."""
    program = """
seal.apply(seal.engine_plan(model=folder, folder=folder, data_bytes=200 << 20))
try:
    result = len(bytearray(400 << 20))
except MemoryError:
    result = "no"
"""
    assert told("engine", tmp_path, program) == "no"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the two are x86-64's")
@pytest.mark.parametrize("profile", ["gateway", "engine"])
@pytest.mark.parametrize(
    "program",
    [
        "ctypes.CDLL(None).syscall(0x40000000 | 39)",  # x32 getpid
        # mov eax, 20; int 0x80; ret: the 32-bit getpid
        "import mmap\ncode = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(code)); ctypes.CFUNCTYPE(ctypes.c_int)(address)()",
    ],
)
def test_a_foreign_architecture_is_killed(tmp_path, profile, program):
    """x32 numbers and 32-bit calls, by SIGSYS; the control, outside the seal, is not."""
    outside = subprocess.run([sys.executable, "-c", "import ctypes\n" + program], capture_output=True)
    assert outside.returncode != -31
    assert sealed(profile, tmp_path, program).returncode == -31


def test_a_thread_that_was_there_before_is_sealed_too(tmp_path):
    """The filter goes on every thread."""
    script = """
import json, socket, threading
from freehold import seal
go, out = threading.Event(), []
def later():
    go.wait()
    try:
        socket.socket(); out.append("open")
    except OSError as error:
        out.append(error.strerror)
thread = threading.Thread(target=later); thread.start()
seal.apply(seal.gateway_plan()); go.set(); thread.join()
print(out[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "Operation not permitted"


def test_the_seal_needs_no_privilege(tmp_path):
    """An ordinary user, who holds no capability, puts on every layer."""
    dumpable = "kernel.prctl(4, 1)"  # PR_SET_DUMPABLE, as execve would after the change of user
    become = f"os.setgroups([]); os.setgid(65534); os.setuid(65534); {dumpable}\n" if os.geteuid() == 0 else ""
    script = SEALED.replace("layers = ", become + "layers = ")
    script += "print(json.dumps([[layer.name, layer.active, layer.detail] for layer in layers]))"
    done = subprocess.run([sys.executable, "-P", "-c", script, "engine", "/tmp"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    assert [layer for layer in json.loads(done.stdout) if not layer[1]] == []


def test_a_namespace_that_cannot_be_had_whole_is_not_entered_by_half(tmp_path):
    """The superuser without capabilities may make one but not map itself into it; it stays outside and says so."""
    if os.geteuid() != 0:
        pytest.skip("only the superuser meets this")
    script = "from freehold.seal import kernel as k; k.drop_capabilities()\n" + SEALED
    script += "print(json.dumps([[layer.name, layer.active] for layer in layers] + [[os.getuid(), True]]))"
    done = subprocess.run([sys.executable, "-P", "-c", script, "engine", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *layers, (uid, _) = json.loads(done.stdout)
    assert [name for name, active in layers if not active] == ["network_namespace"] and uid == 0


def test_a_layer_that_the_kernel_refuses_is_reported_and_not_raised(tmp_path):
    """With the reason; what is required is the caller's decision."""
    program = "result = [[layer.name, layer.active, layer.detail] for layer in seal.apply(plan)]"
    again = told("engine", tmp_path, program)  # a second time, in a process that may not unshare any more
    refused = {name: detail for name, active, detail in again if not active}
    assert "network_namespace" in refused and "Operation not permitted" in refused["network_namespace"]


def test_both_known_architectures_have_every_number_that_the_seal_uses(monkeypatch):
    """A missing one would be a hole on that machine; and the filter can be assembled for each."""
    from freehold.seal import bpf

    used = {*bpf.SCANNER, *bpf.RELAY, "socket", "socketpair", "sendto", "seccomp", "capset", "landlock_restrict_self"}
    for machine, numbers in kernel.SYSCALLS.items():
        lacking = set() if machine == "x86_64" else kernel.ONLY_X86_64
        assert used - numbers.keys() == lacking, machine
        assert len(set(numbers.values())) == len(numbers), machine
        monkeypatch.setattr(kernel, "MACHINE", machine)
        assert bpf.program(bpf.RELAY, engine=True, outward=True)
        assert len(bpf.program(bpf.SCANNER, engine=True, alone=True)) > 16 * (len(bpf.SCANNER) - len(lacking))


def test_an_engine_sees_the_adapters_that_it_is_to_load_and_no_others(tmp_path):
    """They lie beside each other in the vault."""
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    vault = tmp_path / "vault"
    vault.mkdir()
    for name in ("model", "red", "blue"):
        (vault / name).write_text(name)
    program = f"""
vault = Path({str(vault)!r})
plan = seal.engine_plan(model=vault / "model", folder=folder, adapters=[vault / "red"])
seal.apply(plan)
result = [attempt((vault / name).read_text) for name in ("model", "red", "blue")]
"""
    assert told("gateway", tmp_path, program) == ["model", "red", "Permission denied"]
