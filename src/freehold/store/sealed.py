"""Rows whose texts are encrypted, each for its own place: by the table, the column and the row's own name.

A row says with which key (``sealed``, "" where it is plain), so that a home can be encrypted while it is used.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, bindparam, insert, select, update

from freehold.errors import StoreFailed
from freehold.store.cipher import Ring, Sealer, wrong
from freehold.store.database import Store, cause
from freehold.store.traffic import sealing

Key = tuple[str, ...]  # a table's name, and the columns by which its rows are known
_PAGE = 500


def check(connection: Connection, ring: Ring) -> str | None:
    """The name of the key in use, None where none was used yet. Raises WrongKey where it is not the ring's."""
    key = connection.execute(select(sealing.c.key)).scalar()
    if key is not None and key != ring.writes.id:
        raise wrong(key, ring.writes.id)
    return key


def adopt(connection: Connection, ring: Ring) -> Sealer:
    """The key to write with, which is noted down when it is first used. Raises WrongKey where another is in use."""
    if check(connection, ring) is None and ring.writes.id:
        connection.execute(insert(sealing).values(id=1, key=ring.writes.id, at=time.time()))
    return ring.writes


def sealed(sealer: Sealer, row: dict[str, Any], key: Key, names: Sequence[str]) -> dict[str, Any]:
    """A row with these columns encrypted, each for its own place."""
    if not sealer.id:
        return row | {"sealed": ""}
    made = {"sealed": sealer.id}
    for name in names:
        if (value := row[name]) is not None:
            bare = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            hidden = sealer.seal(bare, *_place(row, name, key))
            made[name] = base64.b64encode(hidden).decode() if isinstance(value, str) else hidden
    return row | made


def opened(ring: Ring, row: Mapping[str, Any], name: str, key: Key) -> Any:
    """What stands in a column of a row. Raises WrongKey."""
    value, sealer = row[name], ring.of(row["sealed"])
    if not sealer.id or value is None:
        return value
    if isinstance(value, str):
        return sealer.open(_unbase(value), *_place(row, name, key)).decode("utf-8", "surrogatepass")
    return sealer.open(value, *_place(row, name, key))


def otherwise(table: Table, ring: Ring) -> ColumnElement[bool]:
    """What is sealed with another key, or none; written so that an index is of use."""
    return (table.c.sealed < ring.writes.id) | (table.c.sealed > ring.writes.id)


def reseal(
    store: Store, ring: Ring, table: Table, key: Key, names: Sequence[str],
    more: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda row: {},
) -> Iterator[int]:  # fmt: skip
    """Encrypt a table's rows with the ring's key, a page at a time, each in one transaction. ``more`` says what else of
    an open row changes with the key."""
    columns = [table.c[name] for name in dict.fromkeys((*key[1:], *names, "sealed"))]
    wanted = select(*columns).where(otherwise(table, ring)).limit(_PAGE)
    change = update(table).where(*(table.c[name] == bindparam(f"of_{name}") for name in key[1:]))
    change = change.values({name: bindparam(f"to_{name}") for name in (*names, "sealed")})
    while True:
        try:
            with store.write() as connection:
                rows = connection.execute(wanted).mappings().all()
                for row in rows:
                    bare = dict(row) | {name: opened(ring, row, name, key) for name in names}
                    made = sealed(ring.writes, bare, key, names)
                    given = {f"of_{name}": row[name] for name in key[1:]}
                    given |= {f"to_{name}": made[name] for name in (*names, "sealed")}
                    extra = more(bare)
                    connection.execute(change.values(extra) if extra else change, given)
        except store.errors as error:
            raise StoreFailed(
                f"Recorded calls cannot be written: {cause(error)}.",
                hint="Free space where the home is, then give the same command: it goes on where it stopped.",
            ) from None
        if not rows:
            return
        yield len(rows)


def _place(row: Mapping[str, Any], name: str, key: Key) -> list[str]:
    return [key[0], name, *(str(row[column]) for column in key[1:])]


def _unbase(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""
