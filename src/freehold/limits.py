"""Limits and teams as the database has them, and what the ledger says was used: the only reader and writer of both
tables.

Writers work in a transaction of the caller's, which also holds the event that says so. What the gateway remembers is
read again when somebody has changed something (`Store.touch`), looked for several times a second, and once a second in
any case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from freehold.config import CallerSettings
from freehold.errors import CannotDo, Unaccountable
from freehold.names import shown
from freehold.store import Query, Store, calls, cause, keys, limits, memberships, teams
from freehold.types import Allowance, Caller, Kind, Limits, Subject, Team

KEY, TEAM = "key", "team"
OWNER, OWNER_NAME = "local", "this machine's owner"  # of whose key the database knows nothing
NONE = Limits()
FIELDS = tuple(field.name for field in msgspec.structs.fields(Limits))
_LOOK, _REMEMBER = 0.1, 1.0  # seconds
_ROWS = select(limits.c.kind, limits.c.id, limits.c.says, limits.c.at, limits.c.by)
_MOST, _MOST_MONEY = 10**15, 10**12
_LONGEST = 100  # characters of a team's name, or models in a list


class Spend(Struct, frozen=True):
    """A call of the ledger as a budget sees it: the ids of whoever pays for it, and what was counted."""

    id: str
    at: float
    key: str | None
    team: str | None
    model: str
    alias: str
    left_the_house: bool
    prompt: int
    completion: int
    cached: int


class Standing:
    """All limits, as they are at one time. What holds for a caller is worked out once."""

    def __init__(self, rows: Mapping[Subject, Limits | str], defaults: Limits):
        self._rows, self._defaults = rows, defaults
        self._found: dict[tuple[str, str], tuple[tuple[str, Subject, Limits], ...]] = {}
        known = [defaults, *(row for row in rows.values() if not isinstance(row, str))]
        self.has_budgets = any(one.has_budget for one in known)
        self.has_money = any(one.has_money for one in known)

    def of(self, caller: Caller) -> tuple[tuple[str, Subject, Limits], ...]:
        """What holds for a caller: whose limits they are in words, for whom, and the limits; those of its key and those
        of its team, where there are any.

        Raises:
            Unaccountable: the database says of them what cannot be read.
        """
        known = self._found.get((caller.id, caller.team))
        if known is None:
            own, its = Subject(KEY, caller.id), Subject(TEAM, caller.team)
            found = [(f"The key {caller.name!r}", own, merged(self._read(own), self._defaults))]
            if caller.team:
                found.append((f"The team {caller.team!r}", its, merged(self._read(its), NONE)))
            known = self._found[caller.id, caller.team] = tuple(one for one in found if one[2] != NONE)
        return known

    def _read(self, subject: Subject) -> Limits:
        row = self._rows.get(subject, NONE)
        if isinstance(row, str):
            raise Unaccountable(
                f"The limits of the {subject.kind} {subject.id!r} cannot be read: {row}.",
                hint="'freehold limits set' writes them anew.",
            )
        return row


class Rules:
    """The limits of one store; ``defaults`` are those of every key of which the database says nothing."""

    def __init__(self, store: Store, defaults: CallerSettings = CallerSettings()):  # noqa: B008 - it is frozen
        self._store = store
        self.defaults = as_limits(defaults)
        self._query: Query | None = None
        self._version: int | None = None
        self._rows: list[tuple] | None = None
        self._known = Standing({}, self.defaults)
        self._look_at = self._forget_at = -math.inf

    def now(self) -> Standing:
        """All limits, for the event loop: at most a moment old.

        Raises:
            Unaccountable: the database does not answer, and nobody may guess what is allowed.
        """
        moment = time.monotonic()
        if moment < self._look_at:
            return self._known
        version = self._store.version()
        if version is None or version != self._version or moment >= self._forget_at:
            rows = self._asked()
            if rows != self._rows:
                self._rows, self._known = rows, Standing(dict(_read(rows)), self.defaults)
            self._version, self._forget_at = version, moment + _REMEMBER
        self._look_at = moment + _LOOK
        return self._known

    def forget(self) -> None:
        """Something was changed in this process."""
        self._look_at = -math.inf

    def _asked(self) -> list[tuple]:
        try:
            if self._query is None:
                self._query = self._store.query(_ROWS)
            return self._query.every()
        except self._store.errors as error:
            self._query = None  # the next look-up opens another
            raise Unaccountable(f"The limits cannot be looked up: {cause(error)}.") from None

    def close(self) -> None:
        """Let go of the reading connection."""
        if self._query is not None:
            self._query.close()
            self._query = None

    def every(self) -> list[Allowance]:
        """Every key's and team's own limits that can be read, keys first."""
        with self._store.reader() as connection:
            rows = connection.execute(_ROWS.order_by(limits.c.kind, limits.c.id)).all()
        found = [(Subject(row.kind, row.id), _limits(row.says), row) for row in rows]
        return [Allowance(subject, says, row.at, row.by) for subject, says, row in found if isinstance(says, Limits)]

    def get(self, subject: Subject) -> Limits:
        """What the database says of one key or team; nothing where it says nothing that can be read."""
        with self._store.reader() as connection:
            return says(connection, subject)

    def spends(self, since: float, of: Subject | None = None) -> Iterator[Spend]:
        """The calls that were opened since a time and are settled, each with the key and the team that it is on: those
        that had the caller's name then. Names are unique among live keys, so there is one at most; the first key of a
        name has had it for ever, since the clock may have been set back after it was made. Not in any order; ``of``
        leaves those of one key or team alone. Raises Unaccountable."""
        earlier = keys.alias()
        is_first = ~exists().where(earlier.c.name == keys.c.name, earlier.c.created_at < keys.c.created_at).correlate(
            keys
        )
        then = and_(
            keys.c.name == calls.c.caller, or_(keys.c.created_at <= calls.c.opened_at, is_first),
            or_(keys.c.revoked_at.is_(None), calls.c.opened_at < keys.c.revoked_at),
        )  # fmt: skip
        member = and_(
            memberships.c.key == keys.c.id, memberships.c.since <= calls.c.opened_at,
            or_(memberships.c.until.is_(None), calls.c.opened_at < memberships.c.until),
        )  # fmt: skip
        wanted = select(
            calls.c.id, calls.c.opened_at, calls.c.caller, keys.c.id, memberships.c.team, calls.c.model, calls.c.alias,
            calls.c.left_the_house, calls.c.prompt_tokens, calls.c.completion_tokens, calls.c.cached_tokens,
        ).select_from(calls.join(keys, then, isouter=True).join(memberships, member, isouter=True))  # fmt: skip
        wanted = wanted.where(
            calls.c.opened_at >= since, calls.c.outcome.is_not(None), calls.c.kind != Kind.COUNT.value
        )
        wanted = wanted.where(calls.c.prompt_tokens + calls.c.completion_tokens > 0)
        if of is not None:
            wanted = wanted.where(keys.c.id == of.id if of.kind == KEY else memberships.c.team == of.id)
        try:
            with self._store.reader() as connection:
                for row in connection.execution_options(stream_results=True).execute(wanted):
                    id, at, caller, key, team, model, alias, left, prompt, completion, cached = row
                    key = OWNER if caller == OWNER_NAME else key
                    yield Spend(id, at, key, team, model or "", alias or "", bool(left), prompt, completion, cached)
        except SQLAlchemyError as error:
            raise Unaccountable(f"What was used cannot be read: {cause(error)}.") from None


class Teams:
    """The teams of one store."""

    def __init__(self, store: Store):
        self._store = store

    def list(self) -> list[Team]:
        """Every team with the names of its live keys, by name."""
        live = and_(memberships.c.until.is_(None), keys.c.revoked_at.is_(None))
        members = select(memberships.c.team, keys.c.name).join(keys, keys.c.id == memberships.c.key).where(live)
        with self._store.reader() as connection:
            found = connection.execute(members.order_by(keys.c.name)).all()
            rows = connection.execute(select(teams).order_by(teams.c.name)).all()
        return [Team(row.name, row.created_at, tuple(key for team, key in found if team == row.name)) for row in rows]

    def at(self) -> Callable[[str, float], str]:
        """What says which team a caller's call is on: by the caller's name as the ledger has it, and when the call was
        opened; '' where it was in none. Read once."""
        spans: dict[str, list[tuple[float, float, str]]] = {}
        wanted = select(
            keys.c.name, keys.c.created_at, keys.c.revoked_at, memberships.c.since, memberships.c.until,
            memberships.c.team,
        ).join(memberships, memberships.c.key == keys.c.id)  # fmt: skip
        first = select(keys.c.name, func.min(keys.c.created_at)).group_by(keys.c.name)
        with self._store.reader() as connection:
            begun = dict(connection.execute(first).all())
            for name, made, revoked, since, until, team in connection.execute(wanted):
                ends = [end for end in (revoked, until) if end is not None]
                begins = since if made == begun[name] else max(made, since)
                spans.setdefault(name, []).append((begins, min(ends, default=math.inf), team))
        return lambda name, at: next((team for begun, end, team in spans.get(name, ()) if begun <= at < end), "")


# changes, each in a transaction of the caller's


def says(connection: Connection, subject: Subject) -> Limits:
    """What the database says of one key or team; nothing where it says nothing that can be read."""
    row = connection.execute(_ROWS.where(limits.c.kind == subject.kind, limits.c.id == subject.id)).first()
    found = _limits(row.says) if row else NONE
    return found if isinstance(found, Limits) else NONE


def put(connection: Connection, subject: Subject, says: Limits, by: str) -> None:
    """Write the limits of a key or team; none at all where nothing is said."""
    connection.execute(delete(limits).where(limits.c.kind == subject.kind, limits.c.id == subject.id))
    if says != NONE:
        row = {"kind": subject.kind, "id": subject.id, "says": msgspec.to_builtins(says), "at": time.time(), "by": by}
        connection.execute(insert(limits).values(row))


def add_team(connection: Connection, name: str) -> None:
    """Make a team. Raises CannotDo."""
    if _is_there(connection, name):
        raise CannotDo(f"There is already a team {name!r}.", hint="'freehold teams list' shows the teams.")
    connection.execute(insert(teams).values(name=name, created_at=time.time()))


def remove_team(connection: Connection, name: str) -> None:
    """Remove a team in which no live key is, with its limits. Who was in it stays known. Raises CannotDo."""
    check_team(connection, name)
    live = and_(memberships.c.team == name, memberships.c.until.is_(None), keys.c.revoked_at.is_(None))
    left = connection.execute(select(keys.c.name).join(memberships, memberships.c.key == keys.c.id).where(live)).all()
    if left:
        members = ", ".join(row.name for row in left)
        raise CannotDo(f"The team {name!r} has live keys: {members}.", hint="Move them or revoke them first.")
    ended = and_(memberships.c.team == name, memberships.c.until.is_(None))
    connection.execute(update(memberships).where(ended).values(until=time.time()))
    connection.execute(delete(teams).where(teams.c.name == name))
    put(connection, Subject(TEAM, name), NONE, "")


def join(connection: Connection, key: str, team: str, *, from_the_start: bool = False) -> None:
    """Put a key into a team, and out of the one that it was in; '' puts it into none. Raises CannotDo."""
    if team:
        check_team(connection, team)
    now = 0.0 if from_the_start else time.time()
    still = and_(memberships.c.key == key, memberships.c.until.is_(None))
    connection.execute(update(memberships).where(still).values(until=now))
    if team:
        connection.execute(insert(memberships).values(key=key, team=team, since=now))


def check_team(connection: Connection, name: str) -> None:
    """Raises CannotDo where there is no such team."""
    if not _is_there(connection, name):
        raise CannotDo(f"There is no team {shown(name)!r}.", hint=f"'freehold teams add {shown(name)}' makes it.")


def _is_there(connection: Connection, name: str) -> bool:
    return connection.execute(select(teams.c.name).where(teams.c.name == name)).first() is not None


# limits by themselves


def checked(said: Mapping[str, Any]) -> Limits:
    """Limits out of names and values. Raises CannotDo for what is no limit, is negative or is beyond all reason."""
    for name, value in said.items():
        if name not in FIELDS:
            raise CannotDo(f"There is no limit {shown(name)!r}.", hint=f"There are: {', '.join(FIELDS)}.")
        if name == "models" or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise CannotDo(f"{name} is {shown(str(value))}, which is no number.", hint="Give a number; 0 is no limit.")
        if value < 0:
            raise CannotDo(f"{name} is negative, and nobody can have less than nothing.", hint="0 is no limit.")
        if value > (_MOST_MONEY if name.startswith("money") else _MOST):
            raise CannotDo(
                f"{name} is beyond all reason.",
                hint="At most 10^15 calls or tokens, and 10^12 of money; 0 is no limit.",
            )
        if not name.startswith("money") and value != int(value):
            raise CannotDo(f"{name} is {value:g}, and calls and tokens are counted whole.", hint="Give a whole number.")
    _check_models(said.get("models"))
    try:
        return msgspec.convert(dict(said), Limits, strict=False)
    except msgspec.ValidationError as error:
        raise CannotDo(f"The limits cannot be: {error}.", hint="'freehold limits set --help' lists them.") from None


def plain(name: str, amount: float) -> str:
    """An amount of what a limit is for, as people write it."""
    return f"{amount:,.6g}" if name.startswith("money") and amount < 1e5 else f"{amount:,.0f}"


def merged(own: Limits, under: Limits) -> Limits:
    """One's own limits over those that hold where nothing is said; what is no limit is not said any more, so that two
    that mean the same are the same."""
    found = {}
    for name in FIELDS:
        value = getattr(own, name) if getattr(own, name) is not None else getattr(under, name)
        if value:
            found[name] = value
    return Limits(**found) if found else NONE


def as_limits(defaults: CallerSettings) -> Limits:
    """The settings' own limits for every key."""
    return merged(Limits(**msgspec.structs.asdict(defaults)), NONE)


def check_name(name: str) -> str:
    """The same name, if a team can have it. Raises CannotDo."""
    name = name.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise CannotDo("A team's name has 1 to 100 printable characters.", hint="Take another.")
    return name


def _check_models(models: Collection[str] | None) -> None:
    if models is None:
        return
    if isinstance(models, str) or len(models) > _LONGEST:
        raise CannotDo(f"models is no list of at most {_LONGEST} names.", hint="Name those that may be called.")
    for model in models:
        if not isinstance(model, str) or not model or len(model) > 200 or not model.isprintable():
            raise CannotDo(f"{shown(str(model))!r} is no model's name.", hint="Give names as callers send them.")


def _read(rows: Iterable[tuple]) -> Iterator[tuple[Subject, Limits | str]]:
    for kind, id, says, *_ in rows:
        yield Subject(kind, id), _limits(says)


def _limits(says: Any) -> Limits | str:
    """What a row says, or why nobody can tell. The driver gives the JSON as text or as what it holds."""
    try:
        return msgspec.json.decode(says, type=Limits) if isinstance(says, str) else msgspec.convert(says, Limits)
    except (msgspec.MsgspecError, UnicodeError) as error:
        return str(error).rstrip(".")
