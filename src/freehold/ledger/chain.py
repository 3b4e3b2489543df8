"""The chain: events whose hashes cover their content and the hash of the event before.

An event's content is the canonical JSON (`store.canonical`) of all its fields but ``hash``; its hash is the SHA-256 of
those bytes. Events from before version 0.6 wrote the numbers of their details as msgspec does, which differs where a
number is smaller than 0.0001 or at least 1e16; they are still taken.
"""

from __future__ import annotations

import hashlib
import json
import time
from functools import lru_cache
from json.encoder import encode_basestring as quoted
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from freehold.ledger.settled import Details
from freehold.store import canonical, events
from freehold.types import Event

GENESIS = "sha256:" + "0" * 64
SETTLED = "call.settled"
_known = lru_cache(maxsize=1024)(quoted)  # acts and actors: few, again and again
Head = tuple[int, str]  # the number of the last event, and its hash
START: Head = (0, GENESIS)


class ChainCut(Exception):
    """The end of the chain is not what this process wrote."""


def content(seq: int, at: float, actor: str, act: str, subject: str, detail: str, previous: str) -> bytes:
    """What an event's hash is made over; ``detail`` is canonical JSON already. Raises TypeError, ValueError."""
    return (
        f'{{"act":{_known(act)},"actor":{_known(actor)},"at":{at!r},"detail":{detail},"previous":{quoted(previous)},'
        f'"seq":{seq!r},"subject":{quoted(subject)}}}'
    ).encode()


def hashed(content: bytes) -> str:
    """The hash of an event with this content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest(event: Event) -> str:
    """The hash of an event: SHA-256 of the canonical JSON of every field but ``hash``."""
    fields = {field: getattr(event, field) for field in event.__struct_fields__ if field != "hash"}
    return hashed(canonical(fields).encode())


def original(row: tuple) -> bytes | None:
    """The content of an event, from its row with the detail as text: the bytes whose hash it has. None where it has
    that of none."""
    seq, at, actor, act, subject, detail, previous, hash = row
    try:
        found = content(seq, at, actor, act, subject, detail, previous)
        if hashed(found) == hash:
            return found
        return _before(row)
    except (TypeError, ValueError):
        return None


def _before(row: tuple) -> bytes | None:
    """The same of an event from before version 0.6, whose detail was stored in another spelling than was hashed."""
    seq, at, actor, act, subject, detail, previous, hash = row
    parsed = json.loads(detail)
    if detail not in (json.dumps(parsed), canonical(parsed)):
        return None
    for spelt in (canonical(parsed), msgspec.json.encode(parsed, order="deterministic").decode()):
        found = content(seq, at, actor, act, subject, spelt, previous)
        if hashed(found) == hash:
            return found
    return None


def append(connection: Connection, act: str, subject: str, actor: str, detail: dict[str, Any]) -> Event:
    """Write an event at the end of the chain, in a transaction that nobody else writes in (see `alone`)."""
    last = connection.execute(select(events.c.seq, events.c.hash).order_by(events.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    actor, subject = _writable(actor), _writable(subject)
    event = Event(seq, time.time(), actor, act, subject, detail, previous, "")
    event = msgspec.structs.replace(event, hash=digest(event))
    connection.execute(insert(events).values(msgspec.structs.asdict(event)))
    return event


def alone(connection: Connection) -> None:
    """See that no other writer appends before this transaction ends. SQLite's transactions begin that way."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"LOCK TABLE {events.name} IN EXCLUSIVE MODE")


def _writable(text: str) -> str:
    """A text that UTF-8 has room for: names of files and users may be anything."""
    return text.encode("utf-8", "backslashreplace").decode()


class Links:
    """Makes the events of settled calls; see `store.commits.Chain`. It belongs to the thread that commits."""

    column = "event"
    table = events

    def __init__(self, details: Details):
        self._details = details
        self._left: Head | None = None

    def detail(self, row: tuple) -> str:
        """See `Chain.detail`."""
        return self._details.text(row)

    def at(self, cursor: Any) -> Head:
        """See `Chain.at`.

        Raises:
            ChainCut: what this process wrote last is not there any more, or is another.
        """
        cursor.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        found = cursor.fetchone()
        head = tuple(found) if found else START
        if self._left is None or head == self._left:
            return head
        seq, hash = self._left
        cursor.execute(f"SELECT hash FROM events WHERE seq = {int(seq)}")
        if seq and (cursor.fetchone() or ("",))[0] != hash:
            raise ChainCut(
                f"somebody cut or rewrote the audit chain: event {seq} is not what this server wrote. "
                "'freehold audit verify' names the first bad event"
            )
        return head

    def link(self, head: Head, row: tuple, actor: str, detail: str) -> tuple[Head, int, tuple]:
        """See `Chain.link`."""
        seq, at, subject, previous = head[0] + 1, time.time(), row[0], head[1]
        hash = hashed(content(seq, at, actor, SETTLED, subject, detail, previous))
        return (seq, hash), seq, (seq, at, actor, SETTLED, subject, detail, previous, hash)

    def left(self, head: Head) -> None:
        """See `Chain.left`."""
        self._left = head
