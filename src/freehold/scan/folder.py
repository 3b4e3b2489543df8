"""A file or a folder, judged: every file in a sealed process, then what lies between the files."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from freehold.scan import external, repository
from freehold.scan.base import HOLD, Rule
from freehold.scan.sandbox import UNREADABLE, Sandbox, judged_as
from freehold.scan.walk import Entry, opened, shown, walk
from freehold.types import Admission, Finding, Judged, Progress, Scanned, Severity

MAX_BYTES = 500_000_000_000  # of one file; past it nobody waits for the answer
_WORKERS = min(os.cpu_count() or 1, 4)

ASTRAY = Rule(
    "folder.link-astray", HOLD, "A symbolic link leads out of the folder.",
    "Put the file itself in its place.", "CWE-59",
)  # fmt: skip
SPECIAL = Rule(
    "folder.special-file", HOLD, "There is something that is no file: a pipe, a socket or a device.",
    "Remove it; no model needs one.", "Freehold: only regular files are read",
)  # fmt: skip
TOO_LARGE = Rule(
    "folder.too-large", HOLD, "The file is larger than is looked at.",
    "Ask for the model in several files, or decide by name and reason.", "Freehold: time is bounded",
)  # fmt: skip

Judge = Callable[[Entry], Judged]


def scan(
    root: Path, mode: str, progress: Progress = lambda what, done, total: None, judge: Judge | None = None
) -> Scanned:
    """Judge a file or a folder. ``mode`` is the setting ``seal``; ``progress`` hears of bytes. ``judge`` is asked about
    each file that can be read, in the place of a sealed process (and may raise OSError).

    Raises:
        CannotDo: there is nothing to scan, or more than anybody would want.
        SealMissing: the seal is required, and the kernel lacks a layer.
    """
    entries = walk(root)
    tally = _Tally(progress, sum(entry.size for entry in entries))
    files = [_judge(entry, judge, tally) for entry in entries] if judge else _judge_all(entries, mode, tally)
    files = external.credit(files)
    between = repository.look(files, entries, alone=not root.is_dir())
    findings = tuple(found for judged in files for found in judged.findings) + tuple(between)
    return Scanned(shown(root), tuple(files), findings, verdict(findings))


def verdict(findings: Iterable[Finding]) -> Admission:
    """What these findings come to: the gravest decides."""
    severities = {found.severity for found in findings}
    if Severity.BLOCK in severities:
        return Admission.BLOCK
    return Admission.HOLD if Severity.HOLD in severities else Admission.ADMIT


class _Tally:
    """Bytes done by all workers together."""

    def __init__(self, progress: Progress, total: int):
        self._progress, self._total = progress, total
        self._done: dict[str, int] = {}  # by path, of the files under way
        self._sum = 0
        self._lock = threading.Lock()

    def tell(self, path: str, done: int) -> None:
        with self._lock:
            self._sum += done - self._done.get(path, 0)
            self._done[path] = done
            self._progress("scanning", self._sum, self._total)


def _judge_all(entries: Sequence[Entry], mode: str, tally: _Tally) -> list[Judged]:
    workers = max(min(_WORKERS, len(entries)), 1) if sum(entry.size for entry in entries) > 1 << 20 else 1
    idle: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(Sandbox(mode)))

        def judge(entry: Entry) -> Judged:
            sandbox = idle.get()
            try:
                return _sealed(entry, sandbox, tally)
            finally:
                idle.put(sandbox)

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        try:
            return list(pool.map(lambda entry: _judge(entry, judge, tally), entries))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _sealed(entry: Entry, sandbox: Sandbox, tally: _Tally) -> Judged:
    with opened(entry) as descriptor:
        name = entry.path.rpartition("/")[2]
        return sandbox.judge(descriptor, name, entry.path, lambda done: tally.tell(entry.path, done))


def _judge(entry: Entry, judge: Judge, tally: _Tally) -> Judged:
    try:
        if entry.kind in _UNREAD:
            rule, meaning = _UNREAD[entry.kind]
            return judged_as(rule, entry.path, 0, meaning.format(entry.detail))
        if entry.size > MAX_BYTES:
            return judged_as(TOO_LARGE, entry.path, entry.size, f"The file has {entry.size} bytes, over {MAX_BYTES}.")
        return judge(entry)
    except OSError as error:
        return judged_as(UNREADABLE, entry.path, 0, f"The file cannot be read: {error.strerror or error}.")
    finally:
        tally.tell(entry.path, entry.size)


_UNREAD = {
    "astray": (ASTRAY, "It is {}, which leads out of the folder."),
    "other": (SPECIAL, "It is {}, and no file."),
    "unreadable": (UNREADABLE, "It cannot be read: {}."),
}
