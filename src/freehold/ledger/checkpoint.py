"""Checkpoints: signed statements of where the chain ended at a moment, kept in the home and, better, elsewhere.

A checkpoint is a DSSE envelope (`sign`) around the canonical JSON of four facts: ``at``, seconds since 1970;
``events``, how many there were; ``head``, the hash of the last; ``home``, whose chain it is. In a file each is a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, insert, select

from freehold import sign
from freehold.errors import CannotDo
from freehold.ledger.chain import Head
from freehold.store import Store, canonical, checkpoints

TYPE = "application/vnd.freehold.checkpoint.v1+json"
_PAGE = 1_000


class Checkpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a home's chain ended: so many events, the last with this hash, at that time."""

    at: float
    events: int
    head: str
    home: str


class Kept(Struct, frozen=True):
    """A checkpoint as it is kept in a home: its envelope, and the public key that made it."""

    seq: int
    at: float
    key: str
    envelope: str


class Found(Struct, frozen=True):
    """A checkpoint in a file, at a line of it, with the fingerprint of the key that it names: not checked yet."""

    checkpoint: Checkpoint
    key: str
    envelope: bytes
    line: int


def make(head: Head, home: str, at: float, key: sign.SigningKey) -> tuple[Checkpoint, bytes]:
    """A checkpoint and its envelope, one line of JSON."""
    made = Checkpoint(at, head[0], head[1], home)
    payload = canonical(msgspec.structs.asdict(made)).encode()
    return made, sign.seal(payload, TYPE, key)


def opened(envelope: bytes, keys: Iterable[str]) -> Checkpoint:
    """The checkpoint in an envelope that one of ``keys`` signed. Raises CannotDo."""
    return _decoded(sign.unseal(envelope, TYPE, keys).payload)


def keep(store: Store, made: Checkpoint, envelope: bytes, key: str) -> None:
    """Keep a checkpoint in the home, if there is none of that event."""
    with store.write() as connection:
        there = connection.execute(select(checkpoints.c.seq).where(checkpoints.c.seq == made.events)).first()
        if there is None:
            row = {"seq": made.events, "at": made.at, "key": key, "envelope": envelope.decode()}
            connection.execute(insert(checkpoints).values(row))


def last(store: Store) -> Kept | None:
    """The home's latest checkpoint."""
    with store.reader() as connection:
        row = connection.execute(select(checkpoints).order_by(checkpoints.c.seq.desc()).limit(1)).first()
    return Kept(*row) if row else None


def every(connection: Connection, since: int = 0) -> Iterator[Kept]:
    """The home's checkpoints from an event on, a page at a time."""
    after = since - 1
    while True:
        wanted = select(checkpoints).where(checkpoints.c.seq > after).order_by(checkpoints.c.seq).limit(_PAGE)
        page = [Kept(*row) for row in connection.execute(wanted)]
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].seq


def within(connection: Connection, first: int, last: int) -> list[Kept]:
    """The home's checkpoints of events from one to another."""
    wanted = select(checkpoints).where(checkpoints.c.seq.between(first, last)).order_by(checkpoints.c.seq)
    return [Kept(*row) for row in connection.execute(wanted)]


def in_file(path: Path) -> Iterator[Found]:
    """The checkpoints in a file, of whatever home.

    Raises:
        CannotDo: it cannot be read, or a line of it is no checkpoint.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _found(line.strip(), number, path)
    except OSError as error:
        raise CannotDo(
            f"The checkpoints in {path} cannot be read: {error.strerror}.",
            hint="Put the file back from a copy, or see that it can be reached.",
        ) from None


def append(path: Path, envelope: bytes) -> None:
    """Append a checkpoint to a file, on the disk when this returns: whole, or not at all. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # by a crash; it is not ours to remove
        line = (b"\n" if torn else b"") + envelope + b"\n"
        if (written := os.write(descriptor, line)) < len(line):
            os.ftruncate(descriptor, size)
            raise OSError(0, f"the disk took {written} of {len(line)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _found(line: bytes, number: int, path: Path) -> Found:
    try:
        payload, key, _ = sign.read(line, TYPE)
        return Found(_decoded(payload), key, line, number)
    except CannotDo as error:
        raise CannotDo(
            f"Line {number} of {path} is no checkpoint: {error.message}",
            hint="If a crash tore it, take that line out, and keep a copy of the file as it is.",
        ) from None


def _decoded(payload: bytes) -> Checkpoint:
    try:
        return msgspec.json.decode(payload, type=Checkpoint)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CannotDo(f"What is signed there is no checkpoint: {error}.") from None
