"""The chain as a file that others can check without us: lines of JSON, each in its canonical spelling.

The first line says what it is, whose, and which event it begins after; then come the events, each with its hash, and
after an event the checkpoints that sign it; the last line says where it ends. docs/concepts/audit.md has the format,
and `verify_audit` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from freehold.errors import CannotDo, ChainBroken
from freehold.ledger import checkpoint as checkpoints
from freehold.ledger.chain import GENESIS, original
from freehold.ledger.checkpoint import Checkpoint
from freehold.ledger.verify import EVENT_COLUMNS
from freehold.store import Query, Store, canonical, events

FORMAT = 1
_PAGE = 2_000
_EVENTS = (
    select(*EVENT_COLUMNS)
    .where(events.c.seq > bindparam("after"), events.c.seq <= bindparam("until"))
    .order_by(events.c.seq)
    .limit(_PAGE)
)


def first(store: Store, at: float) -> int:
    """The number of the first event from a moment on. Raises CannotDo where there is none."""
    with store.reader() as connection:
        found = connection.execute(select(func.min(events.c.seq)).where(events.c.at >= at)).scalar()
    if found is None:
        raise CannotDo("There is no event from then on.", hint="'freehold audit list' shows what there is.")
    return found


def lines(store: Store, end: Checkpoint, key: str, since: int) -> Iterator[bytes]:
    """The lines of the file, from an event on as far as ``end`` signs; ``key`` is the signer's fingerprint.

    Raises:
        CannotDo: there is no such event.
        ChainBroken: an event was changed, or is missing.
    """
    with store.snapshot() as connection:
        previous = _previous(connection, since)
        if previous is None or since > end.events:
            raise CannotDo(f"There is no event {since}.", hint=f"The last one is {end.events}.")
        yield _line({"freehold.audit": FORMAT, "home": end.home, "key": key, "from": since, "previous": previous})
    for page, signed in _pages(store, since, end.events):
        for row in page:
            yield _event(row, since, previous)
            since, previous = since + 1, row[-1]
            for envelope in signed.get(row[0], ()):
                yield _line({"checkpoint": parsed(envelope)})
    if since != end.events + 1:
        raise ChainBroken(f"Event {since} is missing.")
    yield _line({"end": {"events": end.events, "head": end.head}})


def parsed(envelope: str) -> Any:
    """An envelope as it was kept. Raises ChainBroken where it is none any more."""
    try:
        return json.loads(envelope)
    except (ValueError, TypeError):
        raise ChainBroken("A checkpoint in the home is no JSON any more.") from None


def _previous(connection: Connection, since: int) -> str | None:
    if since == 1:
        return GENESIS
    return connection.execute(select(events.c.hash).where(events.c.seq == since - 1)).scalar()


def _pages(store: Store, since: int, until: int) -> Iterator[tuple[list[tuple], dict[int, list[str]]]]:
    """The events, some at a time, each time with the envelopes of the checkpoints that sign one of them. Whoever reads
    may take as long as they like: between two pages nothing of the database is held, and events do not change."""
    after = since - 1
    while True:
        with store.snapshot() as connection:
            page = Query(connection, _EVENTS).every(after=after, until=until)
            signed: dict[int, list[str]] = {}
            for kept in checkpoints.within(connection, after + 1, page[-1][0]) if page else ():
                signed.setdefault(kept.seq, []).append(kept.envelope)
        if not page:
            return
        yield page, signed
        after = page[-1][0]


def _event(row: tuple, seq: int, previous: str) -> bytes:
    content = original(row)
    if row[0] != seq or row[6] != previous or content is None:
        raise ChainBroken(f"Event {seq} is missing or was changed.")
    return b'{"event":%b,"hash":"%b"}\n' % (content, row[-1].encode())


def _line(document: dict[str, Any]) -> bytes:
    return canonical(document).encode() + b"\n"
