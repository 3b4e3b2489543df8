"""Aliases: the only reader and writer of what the names that applications send point at, and of their canaries.

What an alias points at is the last of its targets that was not left. A promotion adds a target, a rollback leaves the
last; so one can go back step by step, and nothing is forgotten. Writers work in a transaction of the caller's, which
also holds the event that says so, and say which state they have seen: what somebody else has changed meanwhile is not
changed again unseen.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, and_, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.errors import CannotDo, StoreFailed, Unaccountable
from freehold.names import shown
from freehold.store import Query, Store, canaries, cause, targets
from freehold.store import aliases as names
from freehold.types import Alias, Arm, Canary, Target, Trial

PROMOTED, ROLLED_BACK, WORSE = "promoted", "rolled back", "shown worse"  # how a canary ends
_REMEMBER = 1.0  # seconds
_NAME = re.compile(r"[!-~]{1,200}")
_TARGET = ("model", "digest", "upstream", "task", "by", "at", "why", "left_at", "left_by")
_POINTED = ("model", "digest", "upstream", "task", "by")
_CANARY = ("id", "share", "salt", "tolerance", "alpha", "began_at", "ended_at", "ended")
_NOW = (
    select(
        targets.c.alias, names.c.moves, *(targets.c[name] for name in _TARGET), canaries.c.why,
        *(canaries.c[name] for name in (*_POINTED, *_CANARY)),
    )
    .join(names, names.c.name == targets.c.alias)
    .join(canaries, and_(canaries.c.alias == targets.c.alias, canaries.c.ended_at.is_(None)), isouter=True)
    .where(targets.c.left_at.is_(None))
    .order_by(targets.c.alias, targets.c.number)
)  # fmt: skip


class Overtaken(CannotDo):
    """The alias is no longer as it was when it was looked at."""

    hint = "See 'freehold promote', and give the command again."


class Aliases:
    """The aliases of one store. What the gateway remembers of them is forgotten when somebody changes one, as with keys
    (`auth.KeyRing`): whoever changes one says so (`tell`), and the next request finds the change."""

    def __init__(self, store: Store):
        self._store = store
        self._query: Query | None = None
        self._known: Mapping[str, Alias] = {}
        self._version: int | None = None
        self._forget_at = 0.0

    def now(self) -> Mapping[str, Alias]:
        """Every alias by its name, for the event loop: from memory where nothing has changed.

        Raises:
            Unaccountable: the database does not answer, and nobody may guess where a call should go.
        """
        version, moment = self._store.version_lately(), time.monotonic()
        if version is None or version != self._version or moment > self._forget_at:
            self._known = self._asked()
            self._version, self._forget_at = version, moment + _REMEMBER
        return self._known

    def _asked(self) -> dict[str, Alias]:
        try:
            if self._query is None:
                self._query = self._store.query(_NOW)
            return _aliases(self._query.every())
        except self._store.errors as error:
            self._query = None  # the next look-up opens another
            raise Unaccountable(f"The aliases cannot be looked up: {cause(error)}.") from None

    def every(self) -> list[Alias]:
        """Every alias as the database has it, by name."""
        with self._store.reader() as connection:
            return list(_aliases([tuple(row) for row in connection.execute(_NOW)]).values())

    def get(self, name: str) -> Alias | None:
        """One alias; None where there is none of that name."""
        return next((alias for alias in self.every() if alias.name == name), None)

    def targets(self, name: str) -> list[Target]:
        """Everything that an alias points at or pointed at, the oldest first."""
        wanted = select(targets).where(targets.c.alias == name).order_by(targets.c.number)
        with self._store.reader() as connection:
            return [Target(**{field: row[field] for field in _TARGET}) for row in connection.execute(wanted).mappings()]

    def pointing_at(self, model: str) -> list[str]:
        """The aliases whose calls a model answers, those of a canary included."""
        return [
            alias.name
            for alias in self.every()
            if model in (alias.target.model, alias.canary.target.model if alias.canary else None)
        ]

    def trial(self, id: str) -> Trial | None:
        """A canary with its counts, running or ended; None where there is none with that id."""
        with self._store.reader() as connection:
            row = connection.execute(select(canaries).where(canaries.c.id == id)).mappings().first()
        return _trial(row) if row else None

    def trials(self, name: str) -> list[Trial]:
        """Every canary that an alias had, the oldest first."""
        wanted = select(canaries).where(canaries.c.alias == name).order_by(canaries.c.began_at)
        with self._store.reader() as connection:
            return [_trial(row) for row in connection.execute(wanted).mappings()]

    # changes, each in a transaction of the caller's

    def point(
        self, connection: Connection, name: str, seen: Alias | None, target: Target, before: Target | None = None
    ) -> None:
        """Point an alias at a target; a canary of it is over, as promoted. ``before`` is what the name stood for until
        there was an alias, if it stood for anything. Raises Overtaken."""
        self._turn(connection, name, seen)
        if seen is None and before is not None:
            connection.execute(insert(targets).values(_row(name, 1, before)))
        last = connection.execute(select(func.max(targets.c.number)).where(targets.c.alias == name)).scalar() or 0
        connection.execute(insert(targets).values(_row(name, last + 1, target)))
        if seen is not None and seen.canary is not None:
            _end(connection, seen.canary, PROMOTED)

    def begin(self, connection: Connection, seen: Alias | None, canary: Canary, before: Target, state: Any) -> None:
        """Begin a canary; ``before`` makes the alias if there is none yet, and ``state`` is that of its tests. Raises
        Overtaken."""
        name = canary.alias
        self._turn(connection, name, seen)
        if seen is None:
            connection.execute(insert(targets).values(_row(name, 1, before)))
        target, nothing = canary.target, msgspec.to_builtins(Arm())
        connection.execute(insert(canaries).values(
            {field: getattr(canary, field) for field in _CANARY} | {field: getattr(target, field) for field in _POINTED}
            | {"alias": name, "why": target.why, "incumbent": nothing, "candidate": nothing, "missed": 0,
               "own": state, "told": state}
        ))  # fmt: skip

    def share(self, connection: Connection, seen: Alias, share: float) -> None:
        """Give the running canary another share. Raises Overtaken."""
        self._turn(connection, seen.name, seen)
        connection.execute(update(canaries).where(canaries.c.id == seen.canary.id).values(share=share))

    def end(self, connection: Connection, seen: Alias, how: str) -> None:
        """End the running canary: every call goes where the rest was. Raises Overtaken."""
        self._turn(connection, seen.name, seen)
        _end(connection, seen.canary, how)

    def leave(self, connection: Connection, seen: Alias, count: int, by: str) -> None:
        """Leave the last ``count`` targets. Raises Overtaken."""
        self._turn(connection, seen.name, seen)
        live = select(targets.c.number).where(targets.c.alias == seen.name, targets.c.left_at.is_(None))
        numbers = connection.execute(live.order_by(targets.c.number.desc()).limit(count)).scalars().all()
        gone = (targets.c.alias == seen.name) & targets.c.number.in_(numbers)
        connection.execute(update(targets).where(gone).values(left_at=time.time(), left_by=by))

    def tell(self) -> None:
        """Say to every process on this machine that an alias has changed, once the transaction is on the disk."""
        self._store.touch()

    def count(self, id: str, change: Callable[[Trial], Trial]) -> Trial | None:
        """Change what is known of a canary, as long as it runs; gives it as it is then, or None where it is over.
        ``change`` is worked out before the database is locked, and anew if somebody else has counted meanwhile.

        Raises:
            StoreFailed: it cannot be written.
        """
        try:
            while (seen := self.trial(id)) is not None and seen.canary.ended_at is None:
                changed = change(seen)
                if self._put(seen, changed):
                    return changed
        except SQLAlchemyError as error:
            raise StoreFailed(f"A canary's counts cannot be written: {cause(error)}.", hint="See the disk.") from None
        return None

    def _put(self, seen: Trial, changed: Trial) -> bool:
        """Write a canary's counts, if they are still those that were seen."""
        wanted = select(canaries).where(canaries.c.id == seen.canary.id).with_for_update()
        with self._store.write() as connection:
            if _trial(connection.execute(wanted).mappings().one()) != seen:
                return False
            values = {field: msgspec.to_builtins(getattr(changed, field)) for field in _COUNTED}
            connection.execute(update(canaries).where(canaries.c.id == seen.canary.id).values(values))
            return True

    def close(self) -> None:
        """Let go of the reading connection."""
        if self._query is not None:
            self._query.close()
            self._query = None

    def _turn(self, connection: Connection, name: str, seen: Alias | None) -> None:
        """It is our turn to change the alias, if it is still as it was seen."""
        found = connection.execute(select(names.c.moves).where(names.c.name == name).with_for_update()).scalar()
        if found != (seen.moves if seen else None):
            raise Overtaken(f"{shown(name)!r} was changed by somebody else at this very moment.")
        if seen is None:
            connection.execute(insert(names).values(name=name, moves=1))
        else:
            connection.execute(update(names).where(names.c.name == name).values(moves=seen.moves + 1))


_COUNTED = ("incumbent", "candidate", "missed", "own", "told")


def check_name(name: str) -> str:
    """The same name, if applications can send it. Raises CannotDo."""
    if not _NAME.fullmatch(name):
        raise CannotDo(
            f"{shown(name)!r} cannot be an alias.", hint="Use at most 200 printable ASCII characters, without spaces."
        )
    return name


def new_salt() -> str:
    """What makes one canary's draw independent of every other's, and unknown to callers."""
    return secrets.token_hex(16)


def _aliases(rows: Sequence[tuple]) -> dict[str, Alias]:
    """The aliases in rows of `_NOW`; of each alias the last row counts."""
    found = {}
    for alias, moves, *values in rows:
        target, rest = Target(*values[: len(_TARGET)]), values[len(_TARGET) :]
        found[alias] = Alias(alias, target, moves, _canary(alias, *rest) if rest[1] is not None else None)
    return found


def _canary(alias: str, why: str, *values: Any) -> Canary:
    pointed, own = values[: len(_POINTED)], dict(zip(_CANARY, values[len(_POINTED) :], strict=True))
    target = Target(*pointed, at=own["began_at"], why=why)
    return Canary(alias=alias, target=target, **own)


def _trial(row: RowMapping) -> Trial:
    values = [row[field] for field in ("why", *_POINTED, *_CANARY)]
    return Trial(
        canary=_canary(row["alias"], *values), incumbent=Arm(**row["incumbent"]), candidate=Arm(**row["candidate"]),
        missed=row["missed"], own=row["own"], told=row["told"],
    )  # fmt: skip


def _row(name: str, number: int, target: Target) -> dict[str, Any]:
    return {"alias": name, "number": number} | {field: getattr(target, field) for field in _TARGET}


def _end(connection: Connection, canary: Canary, how: str) -> None:
    connection.execute(update(canaries).where(canaries.c.id == canary.id).values(ended_at=time.time(), ended=how))
