"""The audit of one home: its chain with the key that signs it and the place where signed heads are kept.

While a server runs, a thread of its own signs a checkpoint when so many events have come or so much time has gone by.
It walks the events since the last one first, and signs nothing that does not hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import select

from freehold import log, sign
from freehold.config import AuditSettings
from freehold.errors import BadConfig, CannotDo, ChainBroken, FreeholdError, Unaccountable
from freehold.ledger import checkpoint as checkpoints
from freehold.ledger import export
from freehold.ledger import house as houses
from freehold.ledger.checkpoint import Checkpoint
from freehold.ledger.ledger import Ledger
from freehold.ledger.verify import REKEYED, Mark, Told, Verification
from freehold.store import Store, cause, events

_LOOK = 1.0  # seconds between looks at how far the chain has come
_AGAIN = 5.0  # seconds between tries while it goes wrong


class State(Struct, frozen=True):
    """What status shows: where the chain ends, where it was signed last and when, the file outside the home, and what
    is wrong with signing or with that file."""

    events: int
    head: str
    signed: int
    signed_at: float | None
    to: str
    problem: str


class Audit:
    """``folder`` is the home's, and ``key`` the file of its signing key."""

    def __init__(self, store: Store, ledger: Ledger, key: Path, folder: Path, settings: AuditSettings):
        self._store, self._ledger, self._key, self._folder = store, ledger, key, folder
        self._settings = settings
        self._to = Path(settings.checkpoint_to) if settings.checkpoint_to else None
        self._problem = ""
        self._lock = threading.Lock()  # one checkpoint at a time
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._signed_at = self._tried_at = time.monotonic()
        self._sent: int | None = None  # the number of the last event whose checkpoint is in the file outside

    # for the server

    def check(self) -> None:
        """Before anything is served: the key is the one that signed last, the chain goes on from there, and the file
        outside the home can be written and says the same.

        Raises:
            BadConfig: the file is no whole path, or lies in the home.
            CannotDo: the key is missing or another, or the file cannot be read or written.
            ChainBroken: the chain does not agree with the last checkpoint.
        """
        self._check_place()
        kept = checkpoints.last(self._store)
        key = self._signing_key(kept)
        if kept is not None:
            self._agrees(_signed(kept), "the home's last checkpoint")
        if self._to is None:
            return
        home = self._home()
        latest = [found for found in self._outside() if home and found.checkpoint.home == home]
        if latest:
            made = max(latest, key=lambda found: found.checkpoint.events)
            where = f"line {made.line} of {self._to}"
            self._agrees(self._opened(made, where, {key.public, *self._keys()}), where)
        elif self._is_used(self._to):
            raise ChainBroken(
                f"{self._to}, which audit.checkpoint_to names, had checkpoints of this home, and has none now.",
                hint="Put it back from a copy, or see that its disk is there. To go on without, name another file.",
            )
        try:
            with self._to.open("ab"):
                pass
        except OSError as error:
            raise CannotDo(
                f"Checkpoints cannot be kept in {self._to}, which audit.checkpoint_to names: {error.strerror}.",
                hint="See that its folder is there and can be written, or name another file.",
            ) from None

    def start(self) -> None:
        """Sign where the chain is now, and go on signing until `stop`. Call `check` first. Raises as `checkpoint`."""
        self.checkpoint()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def enter_place(self) -> None:
        """Enter into the chain in which file outside the home checkpoints are kept, once it has one: if it is empty at
        a later start, somebody emptied it. Raises Unaccountable."""
        if self._to is not None and not self._is_used(self._to):
            self._ledger.record(KEPT_AT, str(self._to), actor="freehold")

    def stop(self) -> None:
        """Sign the end of the chain, and stop signing. What goes wrong is said, and loses nothing."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None
        self._try()

    @property
    def failing(self) -> str:
        """Why no checkpoint can be signed and kept now; empty if one can."""
        return self._problem

    def state(self) -> State:
        """How it stands."""
        kept, (number, head) = checkpoints.last(self._store), self._ledger.head()
        signed, at = (kept.seq, kept.at) if kept else (0, None)
        return State(number, head, signed, at, str(self._to or ""), self._problem)

    # for everybody

    def head(self) -> dict[str, Any]:
        """The end of the chain, and the latest checkpoint as it is kept."""
        kept, (number, head) = checkpoints.last(self._store), self._ledger.head()
        envelope = kept.envelope if kept else None
        return {"home": self._home(), "events": number, "head": head, "key": kept.key if kept else None} | {
            "checkpoint": envelope and export.parsed(envelope)
        }

    def checkpoint(self) -> Checkpoint:
        """Sign the end of the chain, if it holds since it was signed last; keep that, here and outside.

        Raises:
            CannotDo: there is nothing to sign, or the key is missing or another one, or the file outside cannot be
                written; it is kept in the home all the same.
            ChainBroken: the chain does not hold.
            Unaccountable: the database cannot be written.
        """
        with self._lock:
            return self._checkpoint()

    def verify(self, *, files: tuple[Path, ...] = (), told: Told = lambda done, total: None) -> Verification:
        """Walk all of it, beside the home's checkpoints, those outside and those in ``files``.

        Raises:
            CannotDo: a file or the key cannot be read.
        """
        kept = checkpoints.last(self._store)
        keys = [self._signing_key(kept).public] if self._key.exists() else []
        marks, notes = self._marks(files, {*keys, *self._keys()})
        found = self._ledger.verify(keys=keys, outside=marks, told=told)
        if found.calls_from is None:
            notes.append("calls are not in the chain yet: they are from the next start of the server on")
        if kept is None:
            notes.append("there is no checkpoint yet: events cut off at the end would not be missed")
        for event in self._ledger.events(REKEYED):
            notes.append(f"event {event.seq}: another key signs from here on ({event.detail.get('why')})")
        return replace(found, notes=tuple(notes))

    def verify_latest(self) -> Verification:
        """Walk what came since the last checkpoint, and see that it is where it was signed. Raises as `verify`."""
        kept = checkpoints.last(self._store)
        if kept is None:
            return self.verify()
        keys = [self._signing_key(kept).public] if self._key.exists() else []
        signed = _signed(kept)
        return self._ledger.verify(keys=keys, since=(signed.events, signed.head))

    def export(self, since: int | float = 1) -> Iterator[bytes]:
        """The chain from an event on, or from a moment (a float) on, as the lines of a file that `verify_audit` checks.
        Its end is signed first.

        Raises:
            CannotDo: as `checkpoint` does.
            ChainBroken: an event on the way was changed; no end is written then.
        """
        made = self.checkpoint()
        key = sign.SigningKey.load(self._key, create=False)
        first = export.first(self._store, since) if isinstance(since, float) else since
        return export.lines(self._store, made, key.fingerprint, first)

    def rekey(self, why: str, *, actor: str) -> str:
        """Enter into the chain that the key was lost and another one counts from now on. Returns its fingerprint.

        Raises:
            CannotDo: no reason is given, or the key is the one that signed last.
        """
        if not why.strip():
            raise CannotDo("No reason is given.", hint="Say why the key is another one; it stays in the chain.")
        kept, key = checkpoints.last(self._store), sign.SigningKey.load(self._key)
        before = sign.fingerprint(kept.key) if kept else ""
        if before in ("", key.fingerprint):
            raise CannotDo("This home's key is the one that signed its last checkpoint.", hint="Nothing is to be done.")
        detail = {"from": before, "to": key.fingerprint, "why": why.strip()}
        self._ledger.record(REKEYED, key.fingerprint, actor=actor, detail=detail)
        return key.fingerprint

    # inside

    def _checkpoint(self) -> Checkpoint:
        home = self._home()
        if home is None:
            raise CannotDo("This home has no chain of its own yet.", hint="'freehold up' begins it at its first start.")
        kept = checkpoints.last(self._store)
        key = self._signing_key(kept)
        since = None
        if kept is not None:
            signed = _signed(kept)
            since = signed.events, signed.head
        found = self._ledger.verify(keys=[key.public], since=since)
        if not found.holds:
            raise ChainBroken(f"No checkpoint is signed, because the audit chain is broken: {found.problem}.")
        if kept is not None and kept.seq == found.events:
            made, envelope = signed, kept.envelope.encode()
        else:
            made, envelope = checkpoints.make((found.events, found.head), home, time.time(), key)
            self._keep(made, envelope, key.public)
        self._signed_at = time.monotonic()
        self._send(made, envelope)
        return made

    def _keep(self, made: Checkpoint, envelope: bytes, key: str) -> None:
        try:
            checkpoints.keep(self._store, made, envelope, key)
        except self._store.errors as error:
            raise Unaccountable(f"The checkpoint cannot be written: {cause(error)}.") from None

    def _send(self, made: Checkpoint, envelope: bytes) -> None:
        """Append it to the file outside the home, unless that has it as its latest."""
        if self._to is None or self._sent == made.events:
            return
        try:
            if self._sent is None and self._to.exists():
                lines = [found.checkpoint for found in self._outside() if found.checkpoint.home == made.home]
                if made in lines:
                    self._sent = made.events
                    return
            checkpoints.append(self._to, envelope)
        except OSError as error:
            raise CannotDo(
                f"The checkpoint of event {made.events} cannot be written to {self._to}: {error.strerror or error}.",
                hint="It is kept in the home, and tried again; see that the file can be written.",
            ) from None
        self._sent = made.events

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK):
            if self._due():
                self._try()

    def _due(self) -> bool:
        """Has enough come, or is there something to mend?"""
        if self._problem:
            return time.monotonic() - self._tried_at >= _AGAIN
        with suppress(*self._store.errors):
            number, _ = self._ledger.head()
            kept = checkpoints.last(self._store)
            new = number - (kept.seq if kept else 0)
            late = time.monotonic() - self._signed_at >= self._settings.checkpoint_seconds
            return new >= self._settings.checkpoint_every or bool(new and late)
        return True

    def _try(self) -> None:
        """Sign; what goes wrong is said once, and shown until it goes well."""
        self._tried_at = time.monotonic()
        try:
            self.checkpoint()
            problem = ""
        except FreeholdError as error:
            problem = error.message
        except self._store.errors as error:
            problem = f"The chain cannot be read: {cause(error)}."
        if problem and problem != self._problem:
            log.note(f"NO CHECKPOINT: {problem}")
        elif self._problem and not problem:
            log.note("Checkpoints are signed and kept again.", log.INFO)
        self._problem = problem

    def _check_place(self) -> None:
        if self._to is None:
            return
        if not self._to.is_absolute():
            raise BadConfig(f"audit.checkpoint_to is {str(self._to)!r}, and no whole path.", hint="Begin it with '/'.")
        if self._to.resolve().is_relative_to(self._folder.resolve()):
            raise BadConfig(
                f"audit.checkpoint_to, {self._to}, lies in the home.",
                hint="Name a file elsewhere, best on another machine: whoever changes the home must not reach it.",
            )

    def _signing_key(self, kept: checkpoints.Kept | None) -> sign.SigningKey:
        """The home's key, which must be the one that signed last, or have been entered as its successor."""
        try:
            key = sign.SigningKey.load(self._key, create=kept is None)
        except CannotDo as error:
            if kept is None:
                raise
            raise CannotDo(f"{error.message} Checkpoints of this home are signed with it.", hint=_LOST) from None
        if kept is None or kept.key == key.public:
            return key
        before = _fingerprint(kept.key)
        for event in self._ledger.events(REKEYED, since=kept.seq + 1):
            if (event.detail.get("from"), event.detail.get("to")) == (before, key.fingerprint):
                return key
        raise CannotDo(
            f"The signing key {self._key} is {key.fingerprint}, and the last checkpoint is signed by {before}.",
            hint=_LOST,
        )

    def _keys(self) -> set[str]:
        """The public keys that this home's checkpoints name."""
        with self._store.reader() as connection:
            found = {row.key for row in connection.execute(select(_KEY).distinct())}
        return {key for key in found if _fingerprint(key) != _NO_KEY}

    def _home(self) -> str | None:
        with self._store.reader() as connection:
            known = houses.find(connection)
        return known.id if known else None

    def _agrees(self, made: Checkpoint, where: str) -> None:
        with self._store.reader() as connection:
            there = connection.execute(select(events.c.hash).where(events.c.seq == made.events)).scalar()
        if there != made.head:
            what = "is another one" if there else "is not there: the chain was cut off"
            raise ChainBroken(f"Event {made.events}, which {where} signs, {what}.", hint=_BROKEN)

    def _is_used(self, path: Path) -> bool:
        """Does the chain say that checkpoints are kept in that file?"""
        return any(event.subject == str(path) for event in self._ledger.events(KEPT_AT))

    def _outside(self) -> list[checkpoints.Found]:
        """The checkpoints in the file outside; none where there is no file yet."""
        return list(checkpoints.in_file(self._to)) if self._to and self._to.exists() else []

    def _opened(self, found: checkpoints.Found, where: str, keys: set[str]) -> Checkpoint:
        try:
            return checkpoints.opened(found.envelope, keys)
        except CannotDo as error:
            raise ChainBroken(f"The checkpoint in {where} is not good: {error.message}", hint=_BROKEN) from None

    def _marks(self, files: tuple[Path, ...], keys: set[str]) -> tuple[list[Mark], list[str]]:
        """The checkpoints of this home in files, and what else is to be said of these."""
        marks: list[Mark] = []
        notes: list[str] = []
        home = self._home()
        if self._to and not self._to.exists() and home and self._to not in files:
            marks.append(Mark(0, "", 0.0, "", home, problem=f"{self._to}, which audit.checkpoint_to names, is missing"))
        there = [self._to] if self._to and self._to.exists() and self._to not in files else []
        for path in [*files, *there]:
            found = list(checkpoints.in_file(path))
            own = [one for one in found if one.checkpoint.home == home]
            if home and not own:
                problem = f"{path} has no checkpoint of this home ({home})"
                marks.append(Mark(0, "", 0.0, "", home or "", problem=problem))
            marks += [_mark(one, f"line {one.line} of {path}", keys) for one in own]
            if len(own) < len(found):
                notes.append(f"{path} has {len(found) - len(own)} checkpoints of other homes, which are passed over")
        return marks, notes


KEPT_AT = "audit.kept_at"  # the event that says in which file outside the home checkpoints are kept from now on
_KEY = checkpoints.checkpoints.c.key
_NO_KEY = "no key at all"
_LOST = (
    "Put the key back from a copy. If it is lost, 'freehold audit rekey REASON' enters that into the chain, and "
    "another one counts from then on."
)
_BROKEN = (
    "Put the database back from a copy that has it, and find out who changed it. To go on without, move the file of "
    "checkpoints away, and keep it."
)


def _mark(found: checkpoints.Found, where: str, keys: set[str]) -> Mark:
    made = found.checkpoint
    try:
        checkpoints.opened(found.envelope, keys)
    except CannotDo as error:
        return Mark(
            made.events, "", made.at, where, made.home, problem=f"{where} is not good: {error.message}".rstrip(".")
        )
    return Mark(made.events, made.head, made.at, where, made.home)


def _signed(kept: checkpoints.Kept) -> Checkpoint:
    """What a checkpoint in the home signs, by the key that it names. Raises ChainBroken."""
    try:
        return checkpoints.opened(kept.envelope.encode(), [kept.key])
    except (CannotDo, ValueError, TypeError, AttributeError) as error:
        said = f"The checkpoint of event {kept.seq} in the home is not good: {error}"
        raise ChainBroken(said if said.endswith(".") else f"{said}.") from None


def _fingerprint(key: str) -> str:
    try:
        return sign.fingerprint(key)
    except (ValueError, TypeError):
        return _NO_KEY
