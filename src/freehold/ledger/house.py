"""Whose chain it is: the home's id and salt, which one event binds, and the calls from before the chain had calls."""

from __future__ import annotations

import hashlib
import json
import secrets

from msgspec import Struct
from sqlalchemy import Connection, Row, Select, insert, select, update

from freehold.errors import ChainBroken
from freehold.ledger import chain
from freehold.ledger.settled import COLUMNS, Details
from freehold.store import NO_CALL, calls, canonical, events, house
from freehold.types import Outcome

BEGAN = "calls.covered"
ACTOR = "freehold"
_SETTLED_BEFORE = calls.c.outcome.is_not(None) & calls.c.event.is_(None)
_PAGE = 2_000
_OPENED = {"id", "opened_at", "caller", "kind", "left_the_house"}  # what is written of a call before it is settled
_NO_TOKENS = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens"), 0)
_BROKEN_OFF = dict.fromkeys(set(COLUMNS) - _OPENED) | _NO_TOKENS | {"outcome": Outcome.INTERRUPTED.value}


class House(Struct, frozen=True):
    """A home as its chain knows it."""

    id: str
    salt: str


def find(connection: Connection) -> House | None:
    """The home's row; None where no server has started since version 0.6."""
    row = connection.execute(select(house.c.id, house.c.salt)).first()
    return House(row.id, row.salt) if row else None


def found(connection: Connection) -> House:
    """The home's row, made where there is none, with the event that binds it and covers the calls of before.

    Raises:
        ChainBroken: there is one, and it is not what that event says.
    """
    chain.alone(connection)
    if known := find(connection):
        _check(connection, known)
        return known
    made = House(f"home_{secrets.token_hex(12)}", secrets.token_hex(32))
    connection.execute(insert(house).values(id=made.id, salt=made.salt))
    number, digest = before(connection, Details(made.salt))
    chain.append(connection, BEGAN, made.id, ACTOR, binding(made) | {"calls": number, "digest": digest})
    return made


def _check(connection: Connection, known: House) -> None:
    wanted = select(events.c.subject, events.c.detail).where(NO_CALL, events.c.act == BEGAN)
    row = connection.execute(wanted.order_by(events.c.seq).limit(1)).first()
    if row is None or row.subject != known.id or row.detail.get("salt") != binding(known)["salt"]:
        raise ChainBroken("The house's row, or the event that binds it to the audit chain, was changed or removed.")


def binding(house: House) -> dict[str, str]:
    """What the event says of the home's row."""
    return {"salt": "sha256:" + hashlib.sha256(house.salt.encode()).hexdigest()}


def before(connection: Connection, details: Details) -> tuple[int, str]:
    """How many settled calls name no event, and the SHA-256 of the lines ``id detail`` of all of them, by id."""
    number, state = 0, hashlib.sha256()
    columns = [calls.columns[name] for name in COLUMNS]
    wanted: Select = select(*columns).where(_SETTLED_BEFORE).order_by(calls.c.id).limit(_PAGE)
    page = connection.execute(wanted).all()
    while page:
        for row in page:
            state.update(f"{row.id} {_said(row, details)}\n".encode())
        number += len(page)
        page = connection.execute(wanted.where(calls.c.id > page[-1].id)).all()
    return number, "sha256:" + state.hexdigest()


def _said(row: Row, details: Details) -> str:
    """The detail of a row; of one with a value that its column should not have, whatever there is."""
    try:
        return details.text(row)
    except (TypeError, ValueError, KeyError, AttributeError):
        return canonical([repr(value) for value in row])


def settle_open(connection: Connection, details: Details) -> int:
    """Settle every open call as interrupted, each with its event. Returns how many there were. Of an open call only who
    opened it, when, and that it left the house was ever written: what else its row may say is nobody's word."""
    columns = [calls.columns[name] for name in COLUMNS]
    rows = connection.execute(select(*columns).where(calls.c.outcome.is_(None)).order_by(calls.c.opened_at)).all()
    for row in rows:
        settled = {name: _BROKEN_OFF.get(name, value) for name, value in row._mapping.items()}
        detail = json.loads(details.text(list(settled.values())))
        event = chain.append(connection, chain.SETTLED, row.id, ACTOR, detail)
        connection.execute(update(calls).where(calls.c.id == row.id).values(settled | {"event": event.seq}))
    return len(rows)
