"""Log in to /admin with a key, in a browser: sessions, and what guessing meets.

A session is a random word in a cookie. It ends after some hours, with its key, and with this process; what is kept of
the cookie and of the key are their hashes, in memory alone.

Whoever sends wrong keys is locked out by address, for longer each time. All addresses together have a bound too, for
guessing from many at once: past it only those come through, at their own risk, from which somebody logged in before,
and this machine. An address that is locked out adds nothing to that bound, so that one stranger cannot use it up for
others. Everything is bounded in memory. Failures are events of the audit chain, of which a few a minute are written,
each with how many before it were not.

All of it runs in the event loop, but for the events, which are written in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from msgspec import Struct

from freehold import log
from freehold.auth import KeyRing, hash_of
from freehold.config import LoginSettings
from freehold.errors import Forbidden, LockedOut, Unaccountable, Unauthenticated
from freehold.ledger import Ledger
from freehold.types import Caller

FORGET = 900.0  # seconds after which a failure counts no more
LONGEST = 3600.0  # seconds of the longest lock
TOGETHER = 50  # failures of all addresses within `FORGET`
ADDRESSES = 10_000  # that are remembered
SESSIONS, SESSIONS_OF_KEY = 1000, 10
AGAIN = 1.0  # seconds between two log-ins with one key
EVENTS, EVENT_SECONDS = 10, 6.0  # events at once, and seconds in which another may be written
DONE, FAILED = "admin.login", "admin.login_failed"  # events
STRANGER = "somebody without a key"  # an event's actor
_KEY_LETTERS = 200


class Session(Struct, frozen=True):
    """Somebody who is logged in: who, with which key (its hash), until when, and the word that a form of theirs
    carries, which nobody else can send."""

    caller: Caller
    key: str
    until: float
    form: str


class _Address(Struct):
    """What is remembered of an address: its failures since the last lock, when the last one was, how often it was
    locked, and until when it is."""

    failures: int = 0
    last: float = -math.inf
    locks: int = 0
    until: float = -math.inf


class _Bucket:
    """So many at once, and another each ``seconds``."""

    def __init__(self, room: float, seconds: float, clock: Callable[[], float]):
        self._room, self._seconds, self._clock = room, seconds, clock
        self._left, self._at = room, clock()

    def wait(self) -> float:
        """Seconds until there is one; 0: now."""
        now = self._clock()
        self._left = min(self._room, self._left + (now - self._at) / self._seconds)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) * self._seconds

    def take(self) -> bool:
        """Take one, if there is one."""
        if self.wait():
            return False
        self._left -= 1
        return True


class Login:
    """Who is logged in, and who may not try. ``clock`` gives seconds, and never goes back."""

    def __init__(
        self, settings: LoginSettings, keys: KeyRing, ledger: Ledger, clock: Callable[[], float] = time.monotonic
    ):
        self._settings, self._keys, self._ledger, self._clock = settings, keys, ledger, clock
        self.done = self.failed = self.locked = 0
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # by the hash of the cookie
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()  # addresses from which somebody logged in
        self._together = _Bucket(TOGETHER, FORGET / TOGETHER, clock)
        self._events = _Bucket(EVENTS, EVENT_SECONDS, clock)
        self._unwritten = 0
        self._last_of_key: OrderedDict[str, float] = OrderedDict()

    @property
    def sessions(self) -> int:
        """How many are logged in."""
        self._forget_old()
        return len(self._sessions)

    def check(self, address: str) -> None:
        """May somebody at this address try? Raises LockedOut."""
        where = network(address)
        wait = 0.0
        if (found := self._addresses.get(where)) is not None:
            wait = found.until - self._clock()
        if wait <= 0 and where not in self._known and not _is_own(where):
            wait = self._together.wait()
        if wait > 0:
            self.locked += 1
            raise LockedOut("Too many wrong keys came.", retry_after=max(math.ceil(wait), 1))

    async def enter(self, key: str, address: str) -> str:
        """Log in with a key. Returns the cookie.

        The key is compared by its hash, in full, and every failure looks the same from outside.

        Raises:
            LockedOut: nobody at this address may try now, be the key right or wrong.
            Unauthenticated: the key is not known, was revoked or has ended, or may do nothing.
            Unaccountable: the keys cannot be read, or the audit chain not be written.
        """
        self.check(address)
        where, wanted = network(address), hash_of(key[:_KEY_LETTERS])
        try:
            caller = self._keys.by_hash(wanted)
        except (Unauthenticated, Forbidden):
            await self._failure(where)
            raise Unauthenticated("This key is not valid here.", hint="") from None
        self._pace(wanted)
        await asyncio.to_thread(self._record, DONE, where, caller.id, {})
        self.done += 1
        _keep(self._known, where, None, ADDRESSES)
        return self._begin(caller, wanted)

    def of(self, cookie: str) -> Session | None:
        """Whose session a cookie is; None where it is none, or is over.

        Raises:
            Unaccountable: nobody can say whether the key is still good, and so it does not count.
        """
        if not cookie:
            return None
        name = _hash(cookie)
        self._forget_old()
        found = self._sessions.get(name)
        if found is None:
            return None
        try:
            caller = self._keys.by_hash(found.key)
        except (Unauthenticated, Forbidden):
            self._sessions.pop(name, None)
            return None
        return Session(caller, found.key, found.until, found.form)

    def leave(self, cookie: str, form: str) -> bool:
        """Log out, if the form is one of the session's own. Says whether it was."""
        name = _hash(cookie)
        found = self._sessions.get(name)
        if found is None or not hmac.compare_digest(found.form.encode(), form.encode("utf-8", "replace")):
            return False
        del self._sessions[name]
        return True

    async def close(self) -> None:
        """Write down how many failures were not written down one by one."""
        if self._unwritten:
            detail = {"not_written_before": self._unwritten}
            with contextlib.suppress(Unaccountable):  # then it is lost; those who failed are out all the same
                await asyncio.to_thread(self._record, FAILED, "several addresses", STRANGER, detail)

    def _begin(self, caller: Caller, wanted: str) -> str:
        own = [name for name, session in self._sessions.items() if session.key == wanted]
        for name in own[: max(len(own) - SESSIONS_OF_KEY + 1, 0)]:
            del self._sessions[name]
        cookie = secrets.token_urlsafe(32)
        until = self._clock() + self._settings.hours * 3600
        _keep(self._sessions, _hash(cookie), Session(caller, wanted, until, secrets.token_urlsafe(32)), SESSIONS)
        return cookie

    def _forget_old(self) -> None:
        now = self._clock()
        while self._sessions and next(iter(self._sessions.values())).until <= now:
            self._sessions.popitem(last=False)  # all last equally long, so that the oldest end first

    def _pace(self, wanted: str) -> None:
        """Each log-in is an event that is written; nobody shall fill the chain with them. Raises LockedOut."""
        now = self._clock()
        if now - self._last_of_key.get(wanted, -math.inf) < AGAIN:
            raise LockedOut("Somebody logged in with this key a moment ago.", retry_after=1)
        _keep(self._last_of_key, wanted, now, SESSIONS)

    async def _failure(self, where: str) -> None:
        """A wrong key came from there."""
        self.failed += 1
        now, found = self._clock(), self._addresses.get(where) or _Address()
        if now - max(found.last, found.until) > FORGET:
            found.failures = 0
        if now - max(found.last, found.until) > LONGEST:
            found.locks = 0
        found.failures += 1
        found.last = now
        detail: dict[str, Any] = {"failures": found.failures}
        if found.failures >= self._settings.failures:
            seconds = min(self._settings.lock_seconds * 2**found.locks, LONGEST)
            found.failures, found.locks, found.until = 0, min(found.locks + 1, 32), now + seconds
            detail["locked_seconds"] = seconds
        _keep(self._addresses, where, found, ADDRESSES)
        self._together.take()
        await self._write(FAILED, where, detail)

    async def _write(self, act: str, where: str, detail: dict[str, Any]) -> None:
        """Write a failure down, if one may be written now; else the next one says how many were not."""
        if not self._events.take():
            self._unwritten += 1
            return
        unwritten, self._unwritten = self._unwritten, 0
        try:
            more = {"not_written_before": unwritten} if unwritten else {}
            await asyncio.to_thread(self._record, act, where, STRANGER, detail | more)
        except Unaccountable as error:  # the log-in is refused in any case
            self._unwritten += unwritten + 1
            log.note(f"A failed log-in could not be written down: {error.message}")

    def _record(self, act: str, where: str, actor: str, detail: dict[str, Any]) -> None:
        self._ledger.record(act, where, actor=actor, detail=detail)


def network(address: str) -> str:
    """What an address counts as: itself, or of IPv6 the network of 64 bits that one household has. Empty: this
    machine's owner, over the Unix socket."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return "this machine" if not address else "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)


def _is_own(where: str) -> bool:
    """Is it this machine?"""
    try:
        return where == "this machine" or ip_address(where).is_loopback
    except ValueError:
        return False


def _hash(cookie: str) -> str:
    """What is kept of a cookie. Two are compared by it: how long that takes tells nothing of the cookie."""
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def _keep(kept: OrderedDict[str, Any], name: str, value: Any, room: int) -> None:
    """Put it last, and let the first go where there is no room."""
    kept[name] = value
    kept.move_to_end(name)
    while len(kept) > room:
        kept.popitem(last=False)
