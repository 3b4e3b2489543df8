"""A file or folder of this machine, copied into quarantine; it is not read otherwise, nor hashed on the way.

A folder is walked through descriptors, one name at a time and never through a link, so that what is swapped
meanwhile cannot lead the copy elsewhere (open(2), O_NOFOLLOW and the dir_fd of openat). A link is followed only to a
file inside the same folder, or into the ``blobs`` of the Hugging Face cache that the folder is a snapshot of
(``models--ORG--NAME/snapshots/<commit>/``), whose file names promise the content.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from msgspec import Struct

from freehold import disk
from freehold.acquire.base import (
    CHUNK,
    KEPT_NOTHING,
    MAX_FILES,
    Choice,
    Progress,
    checked,
    clear_errors,
    create,
    files_folder,
    model_name,
    shown,
    write,
)
from freehold.acquire.source import Source, looks_like_a_repository
from freehold.errors import AcquireFailed
from freehold.types import Acquired

_FICLONE = 0x40049409  # ioctl_ficlone(2): the copy shares the blocks of the original
_STEP = 64 << 20  # bytes between two words on the progress
_DEEPEST = 16
_BOOKKEEPING = (".git", ".cache")  # folders of git and of hub clients: copies of what is beside them
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISDIR, "a folder"),
)


class Entry(Struct, frozen=True):
    """One file to copy: its path inside the folder, where its bytes are (``base`` and the path below it, without
    links), how many they are, and what the name of a cached blob promises (hexadecimal, '' for nothing)."""

    path: str
    base: Path
    below: str
    size: int
    promised: str = ""


def fetch(source: Source, choice: Choice, folder: Path, progress: Progress, *, name: str = "") -> Acquired:
    """Copy what a ``file:`` source names into ``folder``.

    Raises:
        AcquireFailed: it is not there, may not be read, is no file, changes meanwhile, or there is no space.
    """
    path = Path(os.path.abspath(source.where))
    with clear_errors(source.where):
        kind = _kind(path, source.where)
        root, only = (Path(os.path.realpath(path)), "") if stat.S_ISDIR(kind) else (path.parent.resolve(), path.name)
    acquired = take(root, only, choice, folder, progress)
    return Acquired(
        folder=acquired.folder,
        name=name or (model_name(path.name) if only else _folder_name(path)),
        source=f"file:{shown(path.name)}",
        digests=acquired.digests,
    )


def take(root: Path, only: str, choice: Choice, folder: Path, progress: Progress) -> Acquired:
    """Copy the chosen files below ``root``, or its one file ``only``, into ``folder``. Raises AcquireFailed."""
    with _opened(root) as held:
        modes = _one(held, only) if only else _walk(held)
        chosen = checked([only] if only else choice.of(modes, shown(str(root))))
        entries = [_entry(path, root, held) for path in chosen]
    total = sum(entry.size for entry in entries)
    disk.need_space(folder, total)
    files, done = files_folder(folder), 0
    for entry in entries:
        with clear_errors(entry.path):
            _copy(entry, files / entry.path, lambda count, before=done: progress("copying", before + count, total))
        done += entry.size
    digests = {entry.path: f"sha256:{entry.promised}" for entry in entries if len(entry.promised) == 64}
    return Acquired(folder=files, name="", source="", digests=digests)


@contextmanager
def opened_below(folder: int, path: str) -> Iterator[int]:
    """A descriptor for the regular file at ``path`` below an open folder, with no link on the way.

    Raises:
        OSError: it is not there, or a link is on the way.
        AcquireFailed: it is no regular file. It is looked at before it is opened, so a device is left alone, and
            opened without waiting, so a pipe that was put in its place does not hold us up.
    """
    *folders, name = path.split("/")
    held = os.dup(folder)
    try:
        for part in folders:
            held, left = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held), held
            os.close(left)
        _need_file(os.stat(name, dir_fd=held, follow_symlinks=False).st_mode, path)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=held)
    finally:
        os.close(held)
    try:
        _need_file(os.fstat(descriptor).st_mode, path)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    with clear_errors(root.name):
        held = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield held
    finally:
        os.close(held)


def _kind(path: Path, written: str) -> int:
    """The mode of what a person named; their own link is followed."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        hub = f" A model on the hub is written hf:{written}." if looks_like_a_repository(written) else ""
        raise AcquireFailed(
            f"There is no file {shown(written)}.", hint=f"Give the path of a file or folder.{hub}"
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AcquireFailed(f"{shown(written)} is a link that leads back to itself.", hint="Give a file.") from None
        raise
    if not stat.S_ISDIR(mode):
        _need_file(mode, written)
    return mode


def _walk(root: int) -> dict[str, int]:
    """The size of every file and link below ``root`` by its path. Raises AcquireFailed over the limit of files."""
    sizes: dict[str, int] = {}
    waiting, seen = [""], 0
    while waiting:
        folder = waiting.pop()
        for path, found in _listed(root, folder):
            seen += 1
            if seen > MAX_FILES:
                raise AcquireFailed(
                    f"The folder holds more than {MAX_FILES:,} files and folders.", hint="Give the model's own folder."
                )
            if not stat.S_ISDIR(found.st_mode):
                sizes[path] = found.st_size
            elif path.rpartition("/")[2] not in _BOOKKEEPING:
                if path.count("/") >= _DEEPEST:
                    raise AcquireFailed(f"{shown(path)} is more than {_DEEPEST} folders deep.", hint=KEPT_NOTHING)
                waiting.append(path)
    return sizes


def _listed(root: int, folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with clear_errors(folder or "the folder"):
        held = os.dup(root)
        try:
            for part in folder.split("/") if folder else []:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
                os.close(held)
                held = inner
            with os.scandir(held) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    yield path, entry.stat(follow_symlinks=False)
        finally:
            os.close(held)


def _one(root: int, name: str) -> dict[str, int]:
    with clear_errors(name):
        return {name: os.stat(name, dir_fd=root, follow_symlinks=False).st_size}


def _entry(path: str, root: Path, held: int) -> Entry:
    """Where the bytes of ``path`` are. Raises AcquireFailed for a link that leads elsewhere, or for no file."""
    with clear_errors(path):
        mode, size = _mode(path, held)
        if stat.S_ISLNK(mode):
            return _linked(path, root)
        _need_file(mode, path)
        return Entry(path, root, path, size)


def _mode(path: str, held: int) -> tuple[int, int]:
    found = os.stat(path, dir_fd=held, follow_symlinks=False)
    return found.st_mode, found.st_size


def _linked(path: str, root: Path) -> Entry:
    """The entry of a link. Raises AcquireFailed if it leads to where it may not."""
    link = root / path
    try:
        target = Path(os.path.realpath(link, strict=True))
    except FileNotFoundError:
        raise AcquireFailed(f"{shown(path)} is a link to a file that is not there.", hint=KEPT_NOTHING) from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise AcquireFailed(f"{shown(path)} is a link that leads back to itself.", hint=KEPT_NOTHING) from None
    blobs = _blobs(root)
    for base in (root, *blobs):
        if target.is_relative_to(base):
            found = os.stat(target)
            _need_file(found.st_mode, path)
            return Entry(path, base, str(target.relative_to(base)), found.st_size, _promised(link, blobs))
    raise AcquireFailed(
        f"{shown(path)} is a link that leads out of its folder, to {shown(str(target))}.",
        hint=f"Give that path itself, or put the file where the link is. {KEPT_NOTHING}",
    )


def _blobs(root: Path) -> tuple[Path, ...]:
    """The folders of blobs that a snapshot in a Hugging Face cache may point into: its own and the shared one."""
    for inner in (root, *root.parents):
        if inner.parent.name == "snapshots":
            repository = inner.parent.parent
            return (repository / "blobs", repository.parent / "blobs")
    return ()


def _promised(link: Path, blobs: tuple[Path, ...]) -> str:
    """What the first hop's name says of the content: a SHA-256, or the SHA-1 of a git blob."""
    first = Path(os.path.normpath(link.parent / os.readlink(link)))
    named = blobs and first.parent == blobs[0] and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", first.name)
    return first.name if named else ""


def _copy(entry: Entry, target: Path, tell) -> None:
    """Copy one file, holes and all. Raises AcquireFailed if it changes meanwhile."""
    with _opened(entry.base) as base, opened_below(base, entry.below) as source:
        before = os.fstat(source)
        if before.st_size != entry.size:
            raise _changed(entry.path)
        output = create(target)
        try:
            if not _cloned(source, output):
                _copy_data(source, output, entry, tell)
            os.ftruncate(output, entry.size)
        finally:
            os.close(output)
        after = os.fstat(source)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _changed(entry.path)
    tell(entry.size)
    if len(entry.promised) == 40 and git_hash(target) != entry.promised:
        raise AcquireFailed(f"{shown(entry.path)} is not what the cache's name for it promises.", hint=KEPT_NOTHING)


def git_hash(path: Path) -> str:
    """The name that git gives to a file's content: the SHA-1 of ``blob <size>``, a zero byte and the bytes."""
    state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            state.update(block)
    return state.hexdigest()


def _cloned(source: int, output: int) -> bool:
    """Let the file system share the blocks, where it can (btrfs, XFS and others)."""
    try:
        fcntl.ioctl(output, _FICLONE, source)
    except OSError:
        return False
    return True


def _copy_data(source: int, output: int, entry: Entry, tell) -> None:
    for start, end in _stretches(source, entry.size):
        while start < end:
            count = _copy_some(source, output, start, min(_STEP, end - start))
            if not count:
                raise _changed(entry.path)
            start += count
            tell(start)


def _stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the file holds data, as (start, end); all else are holes (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that only a hole is left
                yield end, size  # this file system knows of no holes
            return
        yield start, end


def _copy_some(source: int, output: int, start: int, count: int) -> int:
    """Copy up to ``count`` bytes at ``start``; returns how many. 0 is the end of the file."""
    try:
        return os.copy_file_range(source, output, count, start, start)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    block = os.pread(source, min(count, CHUNK), start)  # the kernel cannot copy between these two by itself
    os.lseek(output, start, os.SEEK_SET)
    write(output, block)
    return len(block)


def _need_file(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode):
        what = next((kind for test, kind in _KINDS if test(mode)), "no file")
        raise AcquireFailed(f"{shown(path)} is {what}, not a file.", hint=KEPT_NOTHING)


def _changed(path: str) -> AcquireFailed:
    return AcquireFailed(f"{shown(path)} changed while it was copied.", hint=f"Try again. {KEPT_NOTHING}")


def _folder_name(path: Path) -> str:
    """The name of a folder's model: the folder's, or in a Hugging Face cache the repository's."""
    repository = path.parent.parent.name if path.parent.name == "snapshots" else ""
    if repository.startswith("models--"):
        return model_name(repository.rpartition("--")[2])
    return model_name(str(PurePosixPath(path)))
