"""A key is tied to a caller. Keys are made here, and only their hashes are kept.

A key is ``fh_`` and 43 URL-safe characters, 256 random bits; with that much to guess, a plain SHA-256 is
enough and a slow password hash would only slow the request path down. A key is looked for by its hash alone: how long
that takes depends on the hash, and nothing leads from there to a key.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct, structs
from sqlalchemy import Connection, and_, bindparam, insert, select, update

from freehold import limits
from freehold.errors import CannotDo, Forbidden, Unaccountable, Unauthenticated
from freehold.ledger import Ledger, new_id
from freehold.limits import OWNER, OWNER_NAME
from freehold.store import Query, Store, cause, keys, memberships, teams
from freehold.types import Caller, Role

PREFIX = "fh_"
_REMEMBER = 1.0  # seconds
_LATEST = 253_402_300_800.0  # the year 10000
_ROLES = frozenset(Role)
_IN = and_(memberships.c.key == keys.c.id, memberships.c.until.is_(None))
_BY_HASH = (
    select(keys.c.id, keys.c.name, keys.c.role, keys.c.revoked_at, keys.c.expires_at, memberships.c.team, teams.c.name)
    .select_from(keys.join(memberships, _IN, isouter=True))
    .join(teams, teams.c.name == memberships.c.team, isouter=True)
    .where(keys.c.hash == bindparam("wanted"))
)


class Key(Struct, frozen=True):
    """What is known of a key; the key itself is shown once, when it is made. ``role`` is a `types.Role`, or what the
    database has in its place."""

    id: str
    name: str
    role: str
    created_at: float
    revoked_at: float | None
    expires_at: float | None = None
    team: str = ""

    @property
    def is_live(self) -> bool:
        """Is it neither revoked nor past its end?"""
        return self.revoked_at is None and (self.expires_at is None or time.time() < self.expires_at)


def _unheard(why: str, whose: str, sent: str) -> None:
    """Nobody is told of a key that does not count."""


class KeyRing:
    """The keys of one store. A revoked key stops at its next request: whoever changes a key touches the store, and
    what is remembered of keys is forgotten then, and after a second in any case. Where a store cannot be touched
    (PostgreSQL) nothing is remembered."""

    def __init__(self, store: Store, ledger: Ledger):
        self._store = store
        self._ledger = ledger
        self._query: Query | None = None
        self._known: dict[str, Caller] = {}
        self._version: int | None = None
        self._forget_at = 0.0
        self._session: dict[str, Caller] = {}

    def caller(self, token: str | None) -> Caller:
        """Whoever the key belongs to.

        Raises:
            Unauthenticated: there is none, or it is unknown, revoked or past its end.
            Forbidden: its role or its team is none that there is.
            Unaccountable: the database does not answer.
        """
        if not token:
            raise Unauthenticated("No key was sent.")
        return self.by_hash(hash_of(token), self._ledger.failed_login)

    def by_hash(self, wanted: str, failed: Callable[[str, str, str], None] = _unheard) -> Caller:
        """Whoever the key with this hash belongs to; see `hash_of`. ``failed`` is told of one that does not count: why,
        whose it is, and the hash. Raises as `caller` does."""
        caller = self._remembered(wanted)
        if caller is None:
            caller = self._asked(wanted, failed)
            if self._version is not None:
                self._known[wanted] = caller
        if caller.expires_at is not None and time.time() >= caller.expires_at:
            failed("expired key", caller.id, wanted)
            raise Unauthenticated(f"The key {caller.name!r} has expired: it was good until {_when(caller.expires_at)}.")
        return caller

    def _remembered(self, wanted: str) -> Caller | None:
        """Whoever the key belonged to a moment ago, if no key has changed since."""
        version, now = self._store.version(), time.monotonic()
        if version != self._version or now > self._forget_at:
            self._known.clear()
            self._version, self._forget_at = version, now + _REMEMBER
        return self._known.get(wanted)

    def _asked(self, wanted: str, failed: Callable[[str, str, str], None]) -> Caller:
        if known := self._session.get(wanted):
            return known
        row = self._look_up(wanted)
        if row is None:
            failed("unknown key", "unknown", wanted)
            raise Unauthenticated("This key is not known here.")
        key, name, role, revoked_at, expires_at, team, known_team = row
        if revoked_at is not None:
            failed("revoked key", key, wanted)
            raise Unauthenticated(f"The key {name!r} was revoked.")
        if role not in _ROLES:
            raise Forbidden(
                f"The key {name!r} has the role {role!r}, which is none that there is, so it may do nothing.",
                hint="Whoever runs Freehold: revoke it, and make another.",
            )
        if team is not None and known_team is None:
            raise Forbidden(
                f"The key {name!r} is in the team {team!r}, which is none that there is, so it may do nothing.",
                hint="Whoever runs Freehold: 'freehold teams' puts it into another.",
            )
        return Caller(key, name, Role(role), team or "", expires_at)

    def _look_up(self, wanted: str) -> tuple | None:
        try:
            if self._query is None:
                self._query = self._store.query(_BY_HASH)
            return self._query.first(wanted=wanted)
        except self._store.errors as error:
            self._query = None  # the next look-up opens another
            raise Unaccountable(f"The keys cannot be looked up: {cause(error)}.") from None

    def session_key(self, name: str) -> str:
        """A key for the machine's owner that lives in this process only and ends with it."""
        token = _new_token()
        self._session[hash_of(token)] = Caller(OWNER, name, Role.ADMIN)
        return token

    def create(
        self, name: str, role: Role, *, actor: str, team: str = "", expires_at: float | None = None
    ) -> tuple[Key, str]:
        """Make a key, in a team if one is named. Returns its record and the key itself, which is not kept.

        Raises:
            CannotDo: the name is empty, too long, or in use by a key that was not revoked; there is no such team; or it
                would have expired before it was made.
        """
        name = _checked_name(name)
        token, now = _new_token(), time.time()
        if expires_at is not None and not now < expires_at < _LATEST:
            raise CannotDo(
                f"A key cannot end at {_when(expires_at)}.", hint="Give a day to come, before the year 10000."
            )
        key = Key(new_id("key"), name, role.value, now, None, expires_at, team)
        row = {
            "id": key.id, "name": name, "role": key.role, "hash": hash_of(token), "created_at": now,
            "expires_at": expires_at,
        }  # fmt: skip

        def put(connection: Connection) -> None:
            taken = select(keys.c.id).where(keys.c.name == name, keys.c.revoked_at.is_(None))
            if connection.execute(taken).first():
                raise CannotDo(
                    f"There is already a live key named {name!r}, or one that has expired and was not revoked.",
                    hint="Revoke it first, or take another name.",
                )
            connection.execute(insert(keys).values(row))
            if team:
                limits.join(connection, key.id, team, from_the_start=True)

        detail = {"name": name, "role": key.role}
        detail |= {"team": team} if team else {}
        detail |= {"expires_at": expires_at} if expires_at is not None else {}
        self._ledger.record("key.created", key.id, actor=actor, detail=detail, with_it=put)
        self._store.touch()
        return key, token

    def list(self) -> list[Key]:
        """Every key, live and revoked, oldest first, with the team that it is in."""
        columns = (
            keys.c.id, keys.c.name, keys.c.role, keys.c.created_at, keys.c.revoked_at, keys.c.expires_at,
            memberships.c.team,
        )  # fmt: skip
        joined = select(*columns).select_from(keys.join(memberships, _IN, isouter=True)).order_by(keys.c.created_at)
        with self._store.reader() as connection:
            return [Key(*row[:-1], team=row[-1] or "") for row in connection.execute(joined)]

    def get(self, wanted: str) -> Key:
        """The key of that name or id that was not revoked. Raises CannotDo where there is none."""
        found = [key for key in self.list() if wanted in (key.name, key.id) and key.revoked_at is None]
        if not found:
            raise CannotDo(f"There is no live key {wanted!r}.", hint="'freehold keys list' shows the keys.")
        return found[0]

    def revoke(self, wanted: str, *, actor: str) -> Key:
        """Revoke the live key of that name or id. Raises CannotDo where there is none."""
        key, at = self.get(wanted), time.time()
        self._ledger.record(
            "key.revoked",
            key.id,
            actor=actor,
            detail={"name": key.name},
            with_it=lambda connection: connection.execute(
                update(keys).where(keys.c.id == key.id).values(revoked_at=at)
            ),
        )
        self._store.touch()
        return structs.replace(key, revoked_at=at)

    def close(self) -> None:
        """Let go of the reading connection."""
        if self._query is not None:
            self._query.close()
            self._query = None


def hash_of(token: str) -> str:
    """The hash by which a key is found, with its algorithm."""
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _new_token() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _when(at: float) -> str:
    """A time in UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at!r}"


def _checked_name(name: str) -> str:
    name = name.strip()
    if name == OWNER_NAME:  # the ledger has it for calls that were made without a key
        raise CannotDo(f"{name!r} is no name for a key.", hint="Name it after who will use it.")
    if not name or len(name) > 100 or not name.isprintable():
        raise CannotDo("A key's name has 1 to 100 printable characters.", hint="Name it after who will use it.")
    return name
