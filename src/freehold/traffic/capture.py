"""Calls of an application are recorded for the tasks that opted in, while they are answered.

A task opts in with ``[capture] on = true``; its calls are those that ask for its ``alias``, of the callers that it
names. Only whole answers are recorded. Whatever happens here, the application gets its answer: calls wait in memory,
within a bound, to be written by a thread of their own, and what cannot be recorded is counted as lost, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from freehold import identity, log, said
from freehold.auth import OWNER
from freehold.errors import FreeholdError
from freehold.samples import Samples
from freehold.traffic import asked, heard
from freehold.traffic.line import MAX_NAME, checked, dotted
from freehold.types import Caller, Captures, Kind, Request, Sample, Task

LONGEST = 8 << 20  # bytes of one answer; a longer one is not recorded
ROOM = 64 << 20  # bytes of calls that wait to be written
AT_ONCE = 100  # calls in one transaction
_LOOK = 2.0  # seconds between looks at which tasks there are
_AGAIN = 2.0  # seconds after which a disk that could not be written is tried again
_OVERHEAD = 1024  # bytes of a call that waits, over those of its texts


class Tap:
    """Takes in one answer as it passes. `keep` is called when it was whole, and else nothing comes of it."""

    __slots__ = ("_at", "_caller", "_capture", "_pieces", "_request", "_size", "_tasks")

    def __init__(self, capture: Capture, tasks: list[Task], caller: Caller, request: Request):
        self._capture, self._tasks, self._caller, self._request = capture, tasks, caller, request
        self._pieces: list[bytes] = []
        self._size, self._at = 0, time.time()

    def take(self, piece: bytes) -> None:
        """The next bytes of the answer."""
        self._size += len(piece)
        if self._size <= LONGEST:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def keep(self, call_id: str) -> None:
        """The answer was whole. Neither waits nor raises."""
        if self._size > LONGEST:
            self._capture.lose(len(self._tasks), f"an answer was longer than {LONGEST >> 20} MiB")
            return
        request = self._request
        sent = request.sent or msgspec.json.encode(request.body)  # bytes, whose number is known
        content, caller = b"".join(self._pieces), self._caller.name
        for task in self._tasks:
            self._capture.put(_Caught(task, call_id, caller, request.kind, request.model, sent, content, self._at))


class _Caught(Struct, frozen=True):
    """A call that waits to be written: the bytes of its request, and those of its answer."""

    task: Task
    call_id: str
    caller: str
    kind: Kind
    model: str
    sent: bytes
    content: bytes
    at: float

    @property
    def size(self) -> int:
        """What it takes of the room."""
        return len(self.sent) + len(self.content) + _OVERHEAD

    def sample(self) -> Sample:
        """The call as traffic. Raises Unfit where no candidate could be asked it, or its answer has no known form."""
        body = {name: value for name, value in msgspec.json.decode(self.sent).items() if value is not None}
        return checked(Sample(
            id=self.call_id, request=asked.request(self.kind, body), kind=self.kind,
            answer=heard.answer(self.kind, self.content), group=self._group(body), at=self.at, incumbent=self.model,
            terms=self.task.terms, caller=self.caller,
        ))  # fmt: skip

    def _group(self, body: dict[str, Any]) -> str:
        """By the task's path; or by the user that the application names; or by how the conversation began, which its
        later turns repeat."""
        line = {"request": body, "body": body, "metadata": body.get("metadata"), "caller": self.caller}
        user = dotted(body, "metadata.user_id" if self.kind is Kind.MESSAGE else "user")
        named = dotted(line, self.task.group) if self.task.group else user
        return named[:MAX_NAME] or _digest("begins", identity.opening(body))


class Capture:
    """Records calls, in a thread of its own. ``samples`` opens the store of recorded calls; ``tasks`` gives the tasks
    as they are when it is called, and ``folder`` is the one that changes when they do. ``guard`` gives a call as it may
    be recorded, or raises Unfit."""

    def __init__(
        self, samples: Callable[[], Samples], tasks: Callable[[], list[Task]], folder: Path,
        guard: Callable[[Sample], Sample] = lambda sample: sample,
    ):  # fmt: skip
        self._open, self._tasks, self._folder, self._guard = samples, tasks, folder, guard
        self._samples: Samples | None = None
        self._by_alias: Mapping[str, list[Task]] = {}
        self._looked, self._seen = -_LOOK, 0
        self._waiting: dict[str, list[_Caught]] = {}  # by the task's name
        self._size = self._kept = self._known = self._lost = 0
        self._lost_why = self._trouble = ""
        self._lock, self._news, self._stop = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    def start(self) -> None:
        """Look which tasks there are, and begin."""
        self._look()
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Write what waits, as far as that can be done in so many seconds, and say what could not be."""
        self._stop.set()
        self._news.set()
        self._thread.join(seconds)
        if left := self.state().waiting:
            log.note(f"{left} captured calls are lost: {self._trouble or 'there was no time to write them'}")

    def tap(self, caller: Caller, request: Request) -> Tap | None:
        """What takes in the answer to a request, if a task records it."""
        tasks = self._by_alias.get(request.alias or request.model)
        if not tasks or caller.id == OWNER or request.kind not in heard.KINDS:  # a replay is no traffic
            return None
        if request.on_trial:  # a canary's answers are no incumbent's
            return None
        wanted = [task for task in tasks if not task.callers or caller.name in task.callers]
        return Tap(self, wanted, caller, request) if wanted else None

    def put(self, caught: _Caught) -> None:
        """Let a call wait to be written; where there is no room, it is lost."""
        with self._lock:
            if self._size + caught.size > ROOM:
                self._lost += 1
                self._lost_why = self._trouble or "more came than could be written"
                return
            self._waiting.setdefault(caught.task.name, []).append(caught)
            self._size += caught.size
        self._news.set()

    def lose(self, count: int, why: str) -> None:
        """So many calls are not recorded."""
        with self._lock:
            self._lost += count
            self._lost_why = why

    def state(self) -> Captures:
        """What was recorded since the start, and what was not."""
        with self._lock:
            waiting = sum(map(len, self._waiting.values()))
            why = (self._trouble if waiting else "") or (self._lost_why if self._lost else "")
            return Captures(tuple(sorted(self._by_alias)), self._kept, self._known, waiting, self._lost, why)

    def _work(self) -> None:
        is_last = False
        while not is_last:
            self._news.wait(_LOOK)
            self._news.clear()
            is_last = self._stop.is_set()
            self._look()
            if not self._write_all():
                self._stop.wait(_AGAIN)  # and not for news: each call would be another try

    def _write_all(self) -> bool:
        """Write what waits; says whether that could be done."""
        while batch := self._next():
            if trouble := self._write(batch):
                if not self._trouble:
                    log.note(f"Captured calls wait: {trouble}")
                self._trouble = trouble
                return False
            self._trouble = ""
        return True

    def _next(self) -> list[_Caught]:
        """Some calls of one task: what is written is written once, though another task's cannot be."""
        with self._lock:
            return next(iter(self._waiting.values()), [])[:AT_ONCE]

    def _write(self, batch: Sequence[_Caught]) -> str:
        """Write some calls, and be done with them. Returns what stands in the way, if anything does."""
        found, strange = self._fit(batch)
        kept = known = 0
        try:
            if found:
                self._samples = self._samples or self._open()
                done = self._samples.keep(batch[0].task.name, found)
                kept, known = done.kept, len(done.duplicates) + len(done.clashes)
        except FreeholdError as error:
            self._samples = None  # the file may have been moved away or removed: it is opened anew
            return error.message
        except Exception as error:  # noqa: BLE001 - one call that nobody foresaw does not end all recording
            strange += [f"an unexpected fault, {type(error).__name__}"] * len(found)
        self._done(batch, kept, known, strange)
        return ""

    def _fit(self, batch: Sequence[_Caught]) -> tuple[list[Sample], list[str]]:
        """Calls as traffic, and why those are none that are none."""
        found: list[Sample] = []
        strange: list[str] = []
        for caught in batch:
            try:
                found.append(self._guard(caught.sample()))
            except said.Unfit as error:
                strange.append(f"a call {error}")
            except Exception as error:  # noqa: BLE001 - as in `_write`
                strange.append(f"an unexpected fault, {type(error).__name__}")
        return found, strange

    def _done(self, batch: Sequence[_Caught], kept: int, known: int, strange: Sequence[str]) -> None:
        with self._lock:
            name = batch[0].task.name
            self._waiting[name] = self._waiting[name][len(batch) :]
            if not self._waiting[name]:
                del self._waiting[name]
            self._size -= sum(caught.size for caught in batch)
            self._kept += kept
            self._known += known
            self._lost += len(strange)
            self._lost_why = strange[-1] if strange else self._lost_why

    def _look(self) -> None:
        """See which tasks record, if their folder has changed, or has a moment ago: its clock goes in steps."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(FreeholdError, OSError):
            changed = self._folder.stat().st_mtime_ns if self._folder.exists() else 0
            if changed == self._seen:
                return
            found: dict[str, list[Task]] = {}
            for task in self._tasks():
                if task.capture and task.alias:
                    found.setdefault(task.alias, []).append(task)
            self._by_alias = found
            self._seen = changed if abs(time.time_ns() - changed) > _LOOK * 1e9 else -1


def _digest(what: str, value: Any) -> str:
    return f"{what}-{hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:16]}"
