"""Recorded calls go: when their days are over, or when somebody has them erased.

With a call go the answers that candidates gave to it and their scores. The ledger and the audit chain hold no text, and
stay: an erasure is an event with counts and salted hashes, by which whoever knows which calls they were can show that
they are among those that are gone. The event is written first, so that nothing goes unaccounted for; where the
erasure then fails, the same command finds what is left.

Days are counted from when a call came into the house: when it was made, or when its file was imported.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from freehold.errors import BadTask, CannotDo, FreeholdError
from freehold.ledger import Ledger
from freehold.names import shown
from freehold.results import Results
from freehold.samples import Samples
from freehold.store import Store
from freehold.task import Tasks

DAY = 86_400.0


class Shelf(Struct, frozen=True):
    """What is kept of texts, and where it is accounted for that some of it went. ``days`` is how long where a task does
    not say."""

    store: Store
    samples: Samples
    results: Results
    tasks: Tasks
    ledger: Ledger
    days: int


class Wish(Struct, frozen=True):
    """Which calls are to go: those of a task, a caller's, those made before a time; of each what is not said is all."""

    task: str = ""
    caller: str | None = None
    before: float | None = None

    @property
    def is_everything(self) -> bool:
        """Of a task, is nothing of it to stay?"""
        return self.caller is None and self.before is None


class Gone(Struct, frozen=True):
    """How many calls of a task went, or would go, and how many answers of candidates with them."""

    task: str
    calls: int
    answers: int = 0


class Span(Struct, frozen=True):
    """How long a task's calls are kept, in days (0: until they are erased; None: its file cannot be read), how many
    there are, and when the oldest came into the house."""

    task: str
    calls: int
    days: int | None
    oldest: float


def check(wish: Wish) -> Wish:
    """The same wish. Raises CannotDo where it says nothing, and would mean everything there is."""
    if not wish.task and wish.is_everything:
        raise CannotDo("Nothing says which calls are meant.", hint="Name a task, a caller or a time.")
    return wish


def chosen(shelf: Shelf, wish: Wish) -> dict[str, list[str]]:
    """The ids of the calls that a wish means, by task; tasks of which it means none are left out.

    Raises:
        CannotDo: it says nothing, or there is no such task.
    """
    check(wish)
    if wish.task and not _is_known(shelf, wish.task):
        raise CannotDo(f"Nothing is recorded of a task {shown(wish.task)!r}.", hint="'freehold traffic list' has them.")
    names = [wish.task] if wish.task else sorted(shelf.samples.counts())
    found = {name: shelf.samples.chosen(name, caller=wish.caller, before=wish.before) for name in names}
    return {name: ids for name, ids in found.items() if ids}


def counted(shelf: Shelf, wish: Wish) -> list[Gone]:
    """What an erasure would remove. Raises CannotDo."""
    return [Gone(task, len(ids), shelf.results.count(task, ids)) for task, ids in chosen(shelf, wish).items()]


def erase(shelf: Shelf, wish: Wish, *, actor: str) -> list[Gone]:
    """Remove the calls that a wish means, for good: from the file and from its log.

    Raises:
        CannotDo: as `chosen`.
        Unaccountable: the audit chain cannot be written; then nothing was removed.
        StoreFailed: the database cannot be written, or somebody reads it all the while.
    """
    found = chosen(shelf, wish)
    if wish.task:
        found.setdefault(wish.task, [])
    more = {"caller": wish.caller, "before": wish.before}
    gone = [_remove(shelf, "traffic.erase", task, ids, more, actor) for task, ids in found.items()]
    if wish.task and wish.is_everything:
        shelf.results.erase(wish.task)  # what was left of calls that went before
        shelf.samples.forget(wish.task)
    if found:
        shelf.store.scrub()
    return gone


def expire(shelf: Shelf, *, actor: str, now: float | None = None) -> list[Gone]:
    """Remove the calls whose days are over.

    Raises:
        As `erase` does.
        BadTask: a task's file cannot be read; its calls are kept, since nobody can tell for how long, and those of all
            others were looked at.
    """
    now = time.time() if now is None else now
    gone = []
    kept = _kept_for(shelf)
    for task, days in kept.items():
        if not days:
            continue
        before = now - days * DAY
        if ids := shelf.samples.older(task, before):
            gone.append(_remove(shelf, "traffic.expire", task, ids, {"before": before, "days": days}, actor))
        shelf.results.expire(task, before)
        shelf.samples.forget(task, before)
    if gone:
        shelf.store.scrub()
    if unread := [task for task, days in kept.items() if days is None]:
        raise BadTask(
            f"The file of {', '.join(map(shown, unread))} cannot be read, and so no call of it was erased.",
            hint="'freehold tasks show' says what is wrong with it.",
        )
    return gone


def spans(shelf: Shelf) -> list[Span]:
    """How long each task's calls are kept."""
    counts, oldest = shelf.samples.counts(), shelf.samples.oldest()
    kept = _kept_for(shelf)
    return [Span(task, counts.get(task, 0), days, oldest.get(task, 0.0)) for task, days in kept.items()]


def salted(salt: str, words: Iterable[str]) -> str:
    """SHA-256 of a salt in hexadecimal and of words, each on a line of its own: what an event says of them."""
    return "sha256:" + hashlib.sha256("\n".join([salt, *words]).encode("utf-8", "surrogatepass")).hexdigest()


def _is_known(shelf: Shelf, task: str) -> bool:
    return task in shelf.samples.counts() or task in shelf.tasks.names() or bool(shelf.samples.imports(task))


def _kept_for(shelf: Shelf) -> dict[str, int | None]:
    """The days of every task that has calls or a file. Calls whose task's file is gone are kept as by default; None
    where there is a file and it cannot be read."""
    found: dict[str, int | None] = {}
    for task in sorted({*shelf.samples.counts(), *shelf.tasks.names()}):
        try:
            own = shelf.tasks.get(task).days if task in shelf.tasks.names() else None
            found[task] = shelf.days if own is None else own
        except BadTask:
            found[task] = None
    return found


def _remove(
    shelf: Shelf, act: str, task: str, ids: list[str], more: Mapping[str, str | float | None], actor: str
) -> Gone:  # fmt: skip
    salt = secrets.token_hex(16)
    said = {name: salted(salt, [value]) if isinstance(value, str) else value for name, value in more.items()}
    detail = {"calls": len(ids), "salt": salt, "ids": salted(salt, sorted(ids))} | said
    shelf.ledger.record(act, task, actor=actor, detail=detail)
    answers = shelf.results.erase(task, ids)
    return Gone(task, shelf.samples.remove(task, ids), answers)


class Retention:
    """Has the server erase what is due, and says how that went. ``open`` gives what there is, None where nothing was
    ever recorded; whoever gets it closes its store."""

    def __init__(self, open: Callable[[], Shelf | None]):
        self._open = open
        self.at = 0.0
        self.gone: list[Gone] = []
        self.failing = ""

    def run(self) -> None:
        """Erase what is due. Never raises: what goes wrong is said, and tried again."""
        try:
            self.expire("the server, daily")
            self.failing = ""
        except FreeholdError as error:
            self.failing = error.message
        except Exception as error:  # noqa: BLE001 - a database that is locked today is not so tomorrow
            self.failing = f"An unexpected fault, {type(error).__name__}: {error}."
        self.at = time.time()

    def expire(self, actor: str) -> list[Gone]:
        """Erase what is due now. Raises as `expire` does."""
        shelf = self._open()
        if shelf is None:
            return []
        try:
            self.gone, self.at = expire(shelf, actor=actor), time.time()
        finally:
            shelf.store.close()
        return self.gone

    def facts(self) -> dict[str, object]:
        """What status shows of it."""
        return {"at": self.at, "erased": msgspec.to_builtins(self.gone), "failing": self.failing}
