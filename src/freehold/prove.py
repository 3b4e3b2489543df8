"""Proofs: claims put to the test in front of whoever asks, and written down with a signature.

``privacy``: a listener is started on loopback. From outside the seal it is reached (the control); from
inside, wearing the very seal that the gateway and the engines wear, it is not. A control that fails means
that the attempt proves nothing, and the proof says so. The processes of a running server are also looked
up in the kernel.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

import freehold
from freehold import seal, sign
from freehold.errors import CannotDo
from freehold.ledger import Ledger
from freehold.seal import trial
from freehold.sign import SigningKey
from freehold.types import Layer

HOLDS, BROKEN, NOTHING = "holds", "broken", "proves nothing"
ESSENTIAL = ("tcp", "udp")  # without these controls there is no proof
_WORN = ("no_new_privs", "seccomp")  # what every running process of ours must wear


class Row(Struct, frozen=True):
    """One attempt: what came of it outside the seal (the control) and inside, and what that shows."""

    who: str
    attempt: str
    meaning: str
    control: str
    sealed: str
    shows: str  # blocked, got out, not judged


class Process(Struct, frozen=True):
    """What the kernel says of one running process."""

    who: str
    pid: int
    layers: tuple[Layer, ...]


class Worn(Struct, frozen=True):
    """A running process and the layers that it says it wears."""

    pid: int
    layers: frozenset[str]


class Record(Struct, frozen=True):
    """A proof of privacy."""

    claim: str
    verdict: str
    at: float
    freehold: str
    kernel: str
    seal: str
    rows: tuple[Row, ...]
    processes: tuple[Process, ...]
    reasons: tuple[str, ...]


class Signed(Struct, frozen=True):
    """A record as it is kept: the exact bytes that were signed, and what is needed to check them."""

    record: str
    algorithm: str
    public_key: str
    signature: str


def privacy(
    mode: str, running: dict[str, Worn], tell: Callable[[str, int, int], None], hosts: tuple[str, ...] = ()
) -> Record:
    """Make the proof. ``mode`` is the setting ``seal``; ``running`` has the server's processes, by name; ``hosts`` are
    those that its relay may reach, if it has one."""
    rows: list[Row] = []
    attempts = [(who, name) for who, names in trial.PROFILES.items() for name in names]
    with _targets() as targets:
        controls = {}
        for done, name in enumerate(trial.ATTEMPTS):
            tell("control", done, len(attempts) + len(trial.ATTEMPTS))
            controls[name] = trial.attempt(name, targets)
        for who, names in trial.PROFILES.items():
            report = _inside(who if mode != "off" else "off", names, targets)
            rows += [_row(who, name, controls[name], report.tried[name]) for name in names]
            tell(who, len(trial.ATTEMPTS) + len(rows), len(attempts) + len(trial.ATTEMPTS))
    processes = tuple(Process(who, worn.pid, seal.read(worn.pid)) for who, worn in running.items())
    verdict, reasons = _judge(rows, processes, {who: worn.layers for who, worn in running.items()})
    return Record(
        _claim(hosts), verdict, time.time(), freehold.__version__,
        platform.release(), mode, tuple(rows), processes, tuple(reasons),
    )  # fmt: skip


def _claim(hosts: tuple[str, ...]) -> str:
    if not hosts:
        return "Nothing that Freehold runs can reach the network."
    there = ", ".join(hosts)
    return f"Nothing that Freehold runs can reach the network, but for its relay, which is there to reach {there}."


def keep(record: Record, folder: Path, key_file: Path, ledger: Ledger, *, actor: str) -> Path:
    """Sign the record, write it, and enter it into the audit chain. Returns where it lies."""
    key = SigningKey.load(key_file)
    content = msgspec.json.encode(record)
    signed = Signed(content.decode(), "ed25519", key.public, base64.b64encode(key.sign(content)).decode())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"privacy-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(record.at))}-{secrets.token_hex(2)}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(signed)))
    detail = {"verdict": record.verdict, "sha256": hashlib.sha256(content).hexdigest(), "file": path.name}
    ledger.record("proof.run", "privacy", actor=actor, detail=detail)
    return path


def check(path: Path, public_key: str, ledger: Ledger | None) -> tuple[Record, list[str]]:
    """A kept proof, and what is wrong with it: its signature, its signer, its absence from the audit chain.

    ``public_key`` is the signer's, in base64. Without a ledger the chain is not asked.

    Raises:
        CannotDo: the file cannot be read or is no proof.
    """
    try:
        signed = msgspec.json.decode(path.read_bytes(), type=Signed)
        record = msgspec.json.decode(signed.record, type=Record)
        fits = sign.verify(public_key, base64.b64decode(signed.signature), signed.record.encode())
    except (OSError, ValueError) as error:
        said = f"{path} is no proof that can be read, or the key is none: {error}."
        raise CannotDo(said, hint="Give a file from <home>/proofs.") from None
    wrong = [] if signed.public_key == public_key else [f"it names another signer, {signed.public_key}"]
    if not fits:
        wrong.append("the signature does not fit: the record or its signature was changed, or another signed it")
    digest = hashlib.sha256(signed.record.encode()).hexdigest()
    if ledger and not any(event.detail.get("sha256") == digest for event in ledger.events("proof.run")):
        wrong.append("the audit chain of this home knows nothing of it")
    return record, wrong


def public_key(key_file: Path) -> str:
    """The public half of a home's signing key, in base64. Raises CannotDo if the home has none."""
    if not key_file.exists():
        raise CannotDo(f"This home has no signing key ({key_file}).", hint="Give the signer's with --key.")
    return SigningKey.load(key_file, create=False).public


def _inside(profile: str, names: tuple[str, ...], targets: trial.Targets) -> trial.Report:
    orders = msgspec.json.encode(trial.Orders(profile, names, targets))
    command = [sys.executable, "-P", "-m", "freehold.seal.trial"]
    done = subprocess.run(command, input=orders, capture_output=True, check=False, cwd="/", timeout=120)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise CannotDo(f"The sealed side of the proof ended with {done.returncode}: {said}", hint="Report this.")
    return msgspec.json.decode(done.stdout, type=trial.Report)


def _row(who: str, name: str, control: trial.Tried, sealed: trial.Tried) -> Row:
    shows = "got out" if sealed.got_out else "blocked" if control.got_out else "not judged"
    return Row(who, name, trial.ATTEMPTS[name][1], control.how, sealed.how, shows)


def _judge(
    rows: list[Row], processes: tuple[Process, ...], claimed: dict[str, frozenset[str]]
) -> tuple[str, list[str]]:
    """The verdict, and the reasons for any other than that it holds."""
    out = [f"the {row.who} could {row.meaning}" for row in rows if row.shows == "got out"]
    for process in processes:
        due = claimed[process.who] | {*_WORN, "kernel"}
        bare = [layer.name for layer in process.layers if layer.name in due and not layer.active]
        out += [f"the running {process.who} (process {process.pid}) lacks {name}" for name in bare]
    if out:
        return BROKEN, out
    unproven = [row for row in rows if row.attempt in ESSENTIAL and row.shows != "blocked"]
    if unproven:
        return NOTHING, [f"the control failed: outside the seal, {unproven[0].meaning} gave '{unproven[0].control}'"]
    return HOLDS, []


@contextmanager
def _targets() -> Iterator[trial.Targets]:
    """Listeners on loopback that answer with a word, a Unix socket, and a file; gone at the end."""
    word = secrets.token_hex(16)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="freehold-proof-")))
        (folder / "engine").mkdir()
        secret = folder / "secret"
        secret.write_text(word)
        ports = {
            "tcp4": _listen(stack, socket.AF_INET, socket.SOCK_STREAM, word),
            "udp4": _listen(stack, socket.AF_INET, socket.SOCK_DGRAM, word),
            "tcp6": _listen(stack, socket.AF_INET6, socket.SOCK_STREAM, word),
            "udp6": _listen(stack, socket.AF_INET6, socket.SOCK_DGRAM, word),
        }
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "unix.sock"))
        unix.listen()
        yield trial.Targets(**ports, unix=str(folder / "unix.sock"), secret=str(secret), word=word)


def _listen(stack: ExitStack, family: int, kind: int, word: str) -> int:
    """The port of a new listener, or 0 where the machine has no such loopback."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    listener = stack.enter_context(socket.socket(family, kind))
    try:
        listener.bind((host, 0))
    except OSError:
        return 0
    stack.callback(_unblock, listener)
    serve = _serve_tcp if kind == socket.SOCK_STREAM else _serve_udp
    if kind == socket.SOCK_STREAM:
        listener.listen()
    threading.Thread(target=serve, args=(listener, word.encode()), daemon=True).start()
    return listener.getsockname()[1]


def _unblock(listener: socket.socket) -> None:
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # a datagram socket is not connected, and says so


def _serve_tcp(listener: socket.socket, word: bytes) -> None:
    while True:
        try:
            client, _ = listener.accept()
            with client:
                client.sendall(word)
        except OSError:
            return


def _serve_udp(listener: socket.socket, word: bytes) -> None:
    while True:
        try:
            _, sender = listener.recvfrom(64)
            if not sender:
                return  # shut down
            listener.sendto(word, sender)
        except OSError:
            return
