"""A key is tied to a caller. Keys are made here, and only their hashes are kept.

A key is ``fh_`` and 43 URL-safe characters, 256 random bits; with that much to guess, a plain SHA-256 is
enough and a slow password hash would only slow the request path down.
"""

from __future__ import annotations

import hashlib
import secrets
import time

from msgspec import Struct
from sqlalchemy import bindparam, insert, select, update

from freehold.errors import CannotDo, Unaccountable, Unauthenticated
from freehold.ledger import Ledger, new_id
from freehold.store import Query, Store, cause, keys
from freehold.types import Caller, Role

PREFIX = "fh_"
_REMEMBER = 1.0  # seconds
_BY_HASH = select(keys.c.id, keys.c.name, keys.c.role, keys.c.revoked_at).where(keys.c.hash == bindparam("wanted"))
OWNER = "local"  # the id of this machine's owner, whose key lives in the server's memory alone


class Key(Struct, frozen=True):
    """What is known of a key; the key itself is shown once, when it is made."""

    id: str
    name: str
    role: Role
    created_at: float
    revoked_at: float | None


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
            Unauthenticated: there is none, or it is unknown or revoked.
            Unaccountable: the database does not answer.
        """
        if not token:
            raise Unauthenticated("No key was sent.")
        return self.by_hash(hash_of(token))

    def by_hash(self, wanted: str) -> Caller:
        """Whoever the key with this hash belongs to; see `hash_of`. Raises as `caller` does."""
        if known := self._remembered(wanted):
            return known
        caller = self._asked(wanted)
        if self._version is not None:
            self._known[wanted] = caller
        return caller

    def _remembered(self, wanted: str) -> Caller | None:
        """Whoever the key belonged to a moment ago, if no key has changed since."""
        version, now = self._store.version(), time.monotonic()
        if version != self._version or now > self._forget_at:
            self._known.clear()
            self._version, self._forget_at = version, now + _REMEMBER
        return self._known.get(wanted)

    def _asked(self, wanted: str) -> Caller:
        if known := self._session.get(wanted):
            return known
        row = self._look_up(wanted)
        if row is None:
            raise Unauthenticated("This key is not known here.")
        key, name, role, revoked_at = row
        if revoked_at is not None:
            raise Unauthenticated(f"The key {name!r} was revoked.")
        return Caller(key, name, Role(role))

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

    def create(self, name: str, role: Role, *, actor: str) -> tuple[Key, str]:
        """Make a key. Returns its record and the key itself, which is not kept.

        Raises:
            CannotDo: the name is empty, too long, or in use by a live key.
        """
        name = _checked_name(name)
        if any(key.name == name and key.revoked_at is None for key in self.list()):
            raise CannotDo(
                f"There is already a live key named {name!r}.", hint="Revoke it first, or take another name."
            )
        token = _new_token()
        key = Key(new_id("key"), name, role, time.time(), None)
        row = {"id": key.id, "name": name, "role": role.value, "hash": hash_of(token), "created_at": key.created_at}
        self._ledger.record(
            "key.created",
            key.id,
            actor=actor,
            detail={"name": name, "role": role.value},
            with_it=lambda connection: connection.execute(insert(keys).values(row)),
        )
        self._store.touch()
        return key, token

    def list(self) -> list[Key]:
        """Every key, live and revoked, oldest first."""
        columns = (keys.c.id, keys.c.name, keys.c.role, keys.c.created_at, keys.c.revoked_at)
        with self._store.reader() as connection:
            rows = connection.execute(select(*columns).order_by(keys.c.created_at))
            return [Key(row.id, row.name, Role(row.role), row.created_at, row.revoked_at) for row in rows]

    def revoke(self, wanted: str, *, actor: str) -> Key:
        """Revoke the live key of that name or id. Raises CannotDo where there is none."""
        found = [key for key in self.list() if wanted in (key.name, key.id) and key.revoked_at is None]
        if not found:
            raise CannotDo(f"There is no live key {wanted!r}.", hint="'freehold keys list' shows the keys.")
        key, at = found[0], time.time()
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
        return Key(key.id, key.name, key.role, key.created_at, at)

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


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise CannotDo("A key's name has 1 to 100 printable characters.", hint="Name it after who will use it.")
    return name
