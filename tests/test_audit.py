"""The audit chain: acts and calls in one sequence, signed heads, a file that others check; what is changed is found."""

import asyncio
import base64
import contextlib
import hashlib
import json
import math
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from harness import ask, chat, cli, get, serving, until

import freehold.store.database as database
from freehold import sign
from freehold.config import AuditSettings
from freehold.errors import BadConfig, CannotDo, ChainBroken, Unaccountable
from freehold.ledger import Audit, Ledger, new_id
from freehold.ledger import checkpoint as checkpoints
from freehold.ledger.knocks import PER_MINUTE, Knocks
from freehold.ledger.settled import COLUMNS, Details
from freehold.store import Store, calls
from freehold.types import Caller, Kind, Outcome, Role, Settlement, Usage

BOB = Caller("key_1", "bob", Role.MEMBER)
SCRIPT = Path(checkpoints.__file__).with_name("verify_audit.py")


class Site:
    """A home without a server: its database, ledger and audit."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.database, self.key = folder / "freehold.db", folder / "signing-key.pem"
        self.store = Store(self.database)
        self.ledger = Ledger(self.store)
        self.audit = Audit(self.store, self.ledger, self.key, folder, AuditSettings(**settings))

    def calls(self, *numbers: int, **more) -> None:
        """Settle some calls, as a server does."""

        async def scenario():
            self.ledger.start()
            for number in numbers:
                entry = self.ledger.open(f"req_{number}", BOB, Kind.CHAT)
                entry.settle(answered(number, **more))
                await entry.on_disk()
            await self.ledger.stop()

        asyncio.run(scenario())

    def acts(self, number: int) -> None:
        for one in range(number):
            self.ledger.record("test.act", f"thing {one}", actor="me", detail={"n": one, "text": "ü", "tiny": 1e-05})

    def sql(self, statements: str) -> None:
        """By hand, with sqlite3."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(statements)

    def rows(self, query: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        self.store.close()


def answered(number: int, **more) -> Settlement:
    usage = Usage(10 + number, 5, 3)
    more = {"model": "m", "digest": "sha256:d", "waited_ms": 0.00004, "first_token_ms": None} | more
    return Settlement(Outcome.ANSWERED, 200, usage=usage, total_ms=9.0 + number, engine_ms=7.25, **more)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def filled(site):
    """Event 1 binds the home; then come three acts, four calls and two acts: ten events."""
    site.calls()
    site.acts(3)
    site.calls(1, 2, 3, 4)
    site.acts(2)
    return site


def test_a_settled_call_is_an_event_with_what_its_row_says(filled):
    """Every column that has a value, the caller's name only as a salted hash; the row names its event."""
    (row,) = filled.rows("SELECT act, subject, actor, detail FROM events WHERE seq = 6")
    assert row[:3] == ("call.settled", "req_2", "key_1")
    detail = json.loads(row[3])
    assert re.fullmatch("hmac-sha256:[0-9a-f]{64}", detail.pop("caller"))
    assert detail.pop("opened_at") > 1e9
    assert detail == {
        "completion_tokens": 5, "cached_tokens": 3, "digest": "sha256:d", "engine_ms": 7.25, "kind": "chat.completions",
        "left_the_house": False, "model": "m", "outcome": "answered", "prompt_tokens": 12, "status": 200,
        "total_ms": 11.0, "waited_ms": 4e-05,
    }  # fmt: skip
    assert filled.rows("SELECT event FROM calls ORDER BY id") == [(5,), (6,), (7,), (8,)]
    found = filled.audit.verify()
    assert (found.holds, found.events, found.calls, found.calls_from, found.earlier) == (True, 10, 4, 1, 0)


def test_a_name_that_somebody_typed_is_not_in_the_chain(site):
    """A model that was asked for in vain stands there as a salted hash; the call's row agrees all the same."""

    async def scenario():
        site.ledger.start()
        entry = site.ledger.open("req_1", BOB, Kind.CHAT)
        entry.settle(Settlement(Outcome.REFUSED, 404, "model_not_found", model="jane.doe@example.net"))
        await entry.on_disk()
        await site.ledger.stop()

    asyncio.run(scenario())
    (event,) = site.ledger.events("call.settled")
    assert "jane" not in str(event) and event.detail["model"].startswith("hmac-sha256:")
    assert "bob" not in str(event) and site.ledger.calls()[0].model == "jane.doe@example.net"
    assert site.ledger.verify().holds


def test_a_callers_name_can_give_way_to_its_hash(filled):
    """Erased from the ledger by its pseudonym, the chain and the calls still agree; by any other they do not."""
    name = filled.ledger.pseudonym("bob")
    filled.sql(f"UPDATE calls SET caller = '{name}' WHERE id = 'req_1'")
    assert filled.ledger.verify().holds
    filled.sql(f"UPDATE calls SET caller = '{name[:-1]}x' WHERE id = 'req_1'")
    assert "caller is" in filled.ledger.verify().problem


def test_plain_json_gives_the_bytes_that_are_hashed(filled):
    """The standard library alone works every hash out, of acts and calls, and every detail is spelt so in the table."""
    head = "sha256:" + "0" * 64
    names = ("seq", "at", "actor", "act", "subject", "detail", "previous")
    for *values, hash in filled.rows("SELECT * FROM events ORDER BY seq"):
        fields = dict(zip(names, values, strict=True)) | {"detail": json.loads(values[5])}
        spelt = lambda of: json.dumps(of, sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # noqa: E731
        assert spelt(fields["detail"]) == values[5] and fields["previous"] == head
        head = "sha256:" + hashlib.sha256(spelt(fields).encode()).hexdigest()
        assert head == hash


def test_the_quick_way_to_a_detail_and_the_slow_one_agree():
    """For every kind of value, numbers that are shown in several ways too; what a column cannot have is an error."""
    rng, details = random.Random(5), Details("ab" * 32)
    numbers = [0.0, -0.0, 1e-05, 9.9e-05, 1e-4, 0.1, 1.0, 12345.678, 1e15, 1e16, 1.5e300, -3.5, 7]
    texts = ["m", 'ü\u2028\x7f\t"\\', "", "x" * 300, "\U0001f600"]
    kinds = {column.name: column.type.python_type for column in calls.columns}

    def value(name: str):
        if kinds[name] is bool:
            return rng.choice([0, 1, False, True])
        some = {float: numbers, int: [0, 1, 2**62, -5], str: texts}[kinds[name]]
        return rng.choice(some) if name in ("id", "caller", "kind", "opened_at") else rng.choice([None, *some])

    for _ in range(3000):
        row = [value(name) for name in COLUMNS]
        fresh = Details("ab" * 32).text(row)  # knows no row yet, and so spells each value
        assert details.text(row) == fresh
        assert json.dumps(json.loads(fresh), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == fresh
    good = dict.fromkeys(COLUMNS) | {"id": "a", "caller": "b", "kind": "c", "opened_at": 1.0, "left_the_house": 0}
    for name, bad in {
        "model": b"m",
        "total_ms": b"9",
        "status": "1",
        "opened_at": math.nan,
        "left_the_house": 2,
    }.items():
        details.text(list(good.values()))
        with pytest.raises((TypeError, ValueError, KeyError)):
            details.text(list((good | {name: bad}).values()))


def test_a_call_that_was_settled_has_one_event(site):
    """However often its entry comes back, and in whatever company: alone, beside another, twice in one group."""

    async def scenario():
        site.ledger.start()
        for outcome in (Outcome.ANSWERED, Outcome.FAILED):
            entries = [site.ledger.open(f"req_{number}", BOB, Kind.CHAT) for number in (1, 1, 2)]
            for entry in entries:
                entry.settle(Settlement(outcome, 200))
            await asyncio.gather(*(entry.on_disk() for entry in entries))
        fresh = site.ledger.open("req_3", BOB, Kind.CHAT)
        await fresh.on_disk()
        await site.ledger.stop()

    asyncio.run(scenario())
    assert [event.subject for event in site.ledger.events("call.settled")] == ["req_1", "req_2"]
    assert site.ledger.verify().holds and site.ledger.totals() == {"answered": 2, "open": 1}


def test_calls_and_acts_of_several_processes_make_one_chain(site):
    """A thousand calls at once, while two others append acts: nothing is lost, and all of it is in line."""

    def others():
        store = Store(site.database)
        other = Ledger(store)
        for number in range(40):
            other.record("test.act", str(number), actor="another")
        store.close()

    async def one():
        entry = site.ledger.open(new_id("req"), BOB, Kind.CHAT)
        await entry.on_disk()
        entry.settle(answered(1))
        await entry.on_disk()

    async def scenario():
        site.ledger.start()
        threads = [threading.Thread(target=others) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(100)))
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await site.ledger.stop()

    asyncio.run(scenario())
    found = site.ledger.verify()
    assert (found.holds, found.calls, found.events) == (True, 1000, 1081)


def test_a_call_that_a_crash_interrupted_has_its_event_at_the_next_start(site):
    """By the house itself, with what was known of it."""

    async def crash():
        site.ledger.start()
        await site.ledger.open("req_1", BOB, Kind.CHAT).leaves()
        await site.ledger.stop()

    asyncio.run(crash())
    assert site.ledger.verify().holds and not list(site.ledger.events("call.settled"))
    site.calls()
    (event,) = site.ledger.events("call.settled")
    assert (event.subject, event.actor, event.detail["outcome"]) == ("req_1", "freehold", "interrupted")
    assert event.detail["left_the_house"] is True and site.ledger.verify().calls == 1


@pytest.mark.parametrize("odd", ["prompt_tokens = 9", "model = 'm'", "status = 200", "total_ms = 1.5"])
def test_an_open_call_that_says_more_than_it_can_is_found(site, odd):
    """It was changed or inserted by hand; what it says does not get into the chain at the next start."""

    async def crash():
        site.ledger.start()
        site.ledger.open("req_1", BOB, Kind.CHAT)
        await site.ledger.flush()
        await site.ledger.stop()

    asyncio.run(crash())
    assert site.ledger.verify().holds
    site.sql(f"UPDATE calls SET {odd} WHERE id = 'req_1'")
    assert "the call req_1 is open and says what only a settled one can" in site.ledger.verify().problem
    site.calls()
    (event,) = site.ledger.events("call.settled")
    assert event.detail["prompt_tokens"] == 0 and not {"model", "status", "total_ms"} & set(event.detail)
    assert site.ledger.verify().holds


NAMES = "id, opened_at, caller, kind, outcome, status, error, model, digest, prompt_tokens, completion_tokens, "
NAMES += "cached_tokens, first_token_ms, total_ms, left_the_house, waited_ms, engine_ms, alias, event"
COPY = f"INSERT INTO calls ({NAMES}) SELECT 'req_9', {NAMES[4:]} FROM calls WHERE id = 'req_2';"
TAMPERINGS = {
    "event flipped": ("UPDATE events SET actor = 'you' WHERE seq = 3", "event 3 .* was changed"),
    "event's detail flipped": (
        """UPDATE events SET detail = replace(detail, '"n":1', '"n":2') WHERE seq = 3""",
        "event 3 .* was changed",
    ),
    "event's detail with a name twice": (
        """UPDATE events SET detail = replace(detail, '{"n"', '{"n":7,"n"') WHERE seq = 3""",
        "event 3 .* was changed",
    ),
    "event's detail respaced": (
        """UPDATE events SET detail = replace(detail, ',', ' ,') WHERE seq = 3""",
        "event 3 .* was changed",
    ),
    "event's text made bytes": (
        "UPDATE events SET actor = CAST(actor AS BLOB) WHERE seq = 3",
        "event 3 .* was changed",
    ),
    "event's time": ("UPDATE events SET at = at + 0.001 WHERE seq = 10", "event 10 .* was changed"),
    "event deleted": ("DELETE FROM events WHERE seq = 4", "event 4 is missing"),
    "first event deleted": ("DELETE FROM events WHERE seq = 1", "event 1 is missing"),
    "event inserted before": (
        "INSERT INTO events SELECT -1, at, actor, act, subject, detail, previous, hash FROM events WHERE seq = 2",
        "event -1 was inserted",
    ),
    "event inserted after": (
        "INSERT INTO events SELECT 11, at, actor, act, subject, detail, hash, hash FROM events WHERE seq = 10",
        "event 11 .* was changed",
    ),
    "events swapped": (
        "UPDATE events SET seq = -1 WHERE seq = 2; UPDATE events SET seq = 2 WHERE seq = 4;"
        "UPDATE events SET seq = 4 WHERE seq = -1",
        "event 2 does not follow",
    ),
    "call's event deleted": ("DELETE FROM events WHERE seq = 6", "event 6 is missing"),
    "call's event flipped": (
        """UPDATE events SET detail = replace(detail, '"status":200', '"status":201') WHERE seq = 7""",
        "event 7 .call.settled req_3. was changed",
    ),
    "calls' events cut off": ("DELETE FROM events WHERE seq >= 7", "req_3 .* names event 7, which does not settle it"),
    "call flipped": (
        "UPDATE calls SET prompt_tokens = 9 WHERE id = 'req_2'",
        "req_2 was changed: event 6 .*prompt_tokens is 9 and was 12",
    ),
    "call's caller": ("UPDATE calls SET caller = 'eve' WHERE id = 'req_3'", "req_3 was changed: event 7 .*caller"),
    "call stayed in": ("UPDATE calls SET left_the_house = 1 WHERE id = 'req_1'", "req_1 was changed.*left_the_house"),
    "call's nothing made zero": (
        "UPDATE calls SET first_token_ms = 0.0 WHERE id = 'req_1'",
        "req_1 was changed.*first_token_ms",
    ),
    "call's text made bytes": ("UPDATE calls SET model = CAST('m' AS BLOB) WHERE id = 'req_1'", "req_1 was changed"),
    "call deleted": ("DELETE FROM calls WHERE id = 'req_3'", "req_3 was removed: event 7"),
    "calls cut off": ("DELETE FROM calls WHERE id >= 'req_3'", "req_3 was removed: event 7"),
    "all calls deleted": ("DELETE FROM calls", "req_1 was removed: event 5"),
    "call opened again": ("UPDATE calls SET outcome = NULL WHERE id = 'req_4'", "req_4 was changed: event 8"),
    "calls swapped": (
        "UPDATE calls SET id = 'x' WHERE id = 'req_1'; UPDATE calls SET id = 'req_1' WHERE id = 'req_2';"
        "UPDATE calls SET id = 'req_2' WHERE id = 'x'",
        "req_1 was changed: event 5",
    ),
    "call inserted": (COPY, "req_9 was inserted: it names event 6"),
    "call inserted without an event": (
        COPY + "UPDATE calls SET event = NULL WHERE id = 'req_9'",
        "name no event were inserted or removed: there are 1 and were 0",
    ),
    "call without its event": ("UPDATE calls SET event = NULL WHERE id = 'req_2'", "req_2 was changed: .* names event"),
    "call with another's event": (
        "UPDATE calls SET event = 7 WHERE id = 'req_2'",
        "req_2 was changed: .* names event 7",
    ),
    "another salt": ("UPDATE house SET salt = replace(salt, substr(salt, 1, 2), 'ab')", "house's row was changed"),
    "another home": ("UPDATE house SET id = 'home_x'", "house's row was changed"),
    "no home": ("DELETE FROM house", "house's row is missing"),
    "two homes": ("INSERT INTO house VALUES ('a', 'b')", "house has two rows"),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_what_is_rewritten_by_hand_is_caught_and_the_first_of_it_named(filled, how):
    """In the events and in the calls: flipped, deleted, swapped, inserted, cut off."""
    statements, said = TAMPERINGS[how]
    assert filled.ledger.verify().holds
    filled.sql(statements)
    found = filled.ledger.verify()
    assert not found.holds and re.search(said, found.problem), found.problem


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE house SET salt = 'no salt'",
        "UPDATE house SET salt = replace(salt, substr(salt, 1, 2), 'ab')",
        "UPDATE house SET id = 'home_x'",
        "DELETE FROM events WHERE seq = 1",
    ],
)
def test_a_house_that_is_not_the_chains_does_not_start(filled, statement):
    """Its calls would be hashed with another salt, and signed as another home's; the walk says no, too."""
    filled.sql(statement)
    with pytest.raises(ChainBroken, match="house's row"):
        filled.ledger.start()
    assert re.search("house's row was changed|event 1 is missing", filled.ledger.verify().problem)


def test_of_two_bad_things_the_first_is_named(filled):
    """By the order of the chain, whichever table it is in; and how far it was good is said."""
    filled.sql("UPDATE events SET actor = 'you' WHERE seq = 9; UPDATE calls SET status = 1 WHERE id = 'req_2'")
    found = filled.ledger.verify()
    assert "req_2" in found.problem and found.events == 5


def test_a_chain_that_is_cut_while_the_server_writes_stops_it(site):
    """What the server wrote last is not there any more: nothing is served until it is."""

    async def scenario():
        site.ledger.start()
        entry = site.ledger.open("req_1", BOB, Kind.CHAT)
        entry.settle(answered(1))
        await entry.on_disk()
        site.acts(1)  # others may append
        kept = site.rows("SELECT * FROM events WHERE seq = 2")[0]
        site.sql("DELETE FROM events WHERE seq >= 2")
        entry = site.ledger.open("req_2", BOB, Kind.CHAT)
        entry.settle(answered(2))
        with pytest.raises(Unaccountable, match="cut or rewrote the audit chain: event 2"):
            await entry.on_disk()
        with contextlib.closing(sqlite3.connect(site.database)) as connection, connection:
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", kept)
        await site.ledger.stop()

    asyncio.run(scenario())
    assert [event.subject for event in site.ledger.events("call.settled")] == ["req_1", "req_2"]


# homes from before


@pytest.fixture
def old(tmp_path):
    """A database of version 0.5, with three calls, one of them open, and three events."""
    folder = tmp_path / "old"
    folder.mkdir()
    path = folder / "freehold.db"
    config = Config()
    versions = Path(database.__file__).parent / "migrations"
    config.set_main_option("script_location", str(versions))
    config.set_main_option("version_locations", str(versions / "versions"))
    config.set_main_option("path_separator", "newline")
    engine = database._engine(database.URL.create("sqlite", database=str(path)), ())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        config.attributes["metadata"] = database.HOUSE.tables
        command.upgrade(config, "0004_aliases")
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        add = (
            "INSERT INTO calls (id, opened_at, caller, kind, outcome, prompt_tokens, completion_tokens, cached_tokens)"
        )
        for number, outcome in enumerate(("answered", None, "failed")):
            connection.execute(f"{add} VALUES (?, ?, 'bob', 'chat', ?, 1, 2, 0)", (f"req_{number}", number, outcome))
        head = "sha256:" + "0" * 64
        for seq in (1, 2, 3):  # as msgspec wrote their hashes, and SQLAlchemy their details
            fields = f'{{"act":"a","actor":"ü","at":{seq}.5,"detail":{{"alpha":0.00001,"n":1.5e-7,"t":"ü"}},'
            fields += f'"previous":"{head}","seq":{seq},"subject":"s"}}'
            hash = "sha256:" + hashlib.sha256(fields.encode()).hexdigest()
            detail = json.dumps({"t": "ü", "alpha": 1e-05, "n": 1.5e-07})
            row = (seq, seq + 0.5, "ü", "a", "s", detail, head, hash)
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            head = hash
    site = Site(folder)
    yield site
    site.close()


def test_a_home_from_before_still_verifies_and_says_what_is_covered(old):
    """Before its first start calls are not in the chain; that start covers those of before as they are then."""
    found = old.audit.verify()
    assert (found.holds, found.events, found.calls_from, found.earlier) == (True, 3, None, 2)
    assert "from the next start" in found.notes[0]
    old.calls(7)
    found = old.audit.verify()
    assert (found.holds, found.events, found.calls, found.calls_from, found.earlier) == (True, 6, 2, 4, 2)
    assert not old.rows("SELECT 1 FROM events WHERE act = 'call.settled' AND subject = 'req_0'")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE calls SET prompt_tokens = 7 WHERE id = 'req_0'", "calls from before event 4 were changed"),
        ("DELETE FROM calls WHERE id = 'req_2'", "inserted or removed: there are 1 and were 2"),
        ("UPDATE calls SET id = '' WHERE id = 'req_2'", "calls from before event 4 were changed"),
        ("UPDATE events SET detail = replace(detail, '1e-05', '1e-04') WHERE seq = 2", "event 2 .* was changed"),
        ("UPDATE events SET detail = replace(detail, '{', '{\"t\": 1, ') WHERE seq = 2", "event 2 .* was changed"),
    ],
)
def test_what_is_from_before_cannot_be_rewritten_after(old, statement, said):
    """Neither the calls, which one event covers together, nor the events, whose hashes were spelt in another way."""
    old.calls(7)
    assert old.ledger.verify().holds
    old.sql(statement)
    found = old.ledger.verify()
    assert not found.holds and re.search(said, found.problem), found.problem


# checkpoints


def running(site: Site):
    """As a server does at its start and stop."""
    site.audit.check()
    site.calls()
    site.audit.start()


@pytest.fixture
def signed(tmp_path):
    """A home whose checkpoints go to a file beside it: one at event 4, one at event 7."""
    site = Site(tmp_path / "home", checkpoint_to=str(tmp_path / "out.jsonl"))
    site.calls()
    site.acts(3)
    running(site)
    site.acts(2)
    site.calls(1)
    site.audit.stop()
    yield site
    site.close()


def test_a_checkpoint_is_signed_at_start_and_at_stop(signed, tmp_path):
    """In the home and outside, the same: where the chain ended, whose, and when, signed by the home's key."""
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    kept = signed.rows("SELECT seq, envelope FROM checkpoints ORDER BY seq")
    assert [seq for seq, _ in kept] == [4, 7] and [envelope.encode() for _, envelope in kept] == lines
    made = checkpoints.opened(lines[1], [sign.SigningKey.load(signed.key).public])
    assert (made.events, made.home) == (7, signed.rows("SELECT id FROM house")[0][0])
    assert [(made.head,)] == signed.rows("SELECT hash FROM events WHERE seq = 7")
    found = signed.audit.verify()
    assert (found.holds, found.signed, found.checkpoints) == (True, 7, 4)


@pytest.mark.parametrize("settings", [{"checkpoint_every": 5}, {"checkpoint_seconds": 0.5}])
def test_a_checkpoint_is_signed_at_intervals(tmp_path, settings):
    """Of events, and of time."""
    site = Site(tmp_path / "home", **settings)
    running(site)
    site.acts(6)
    until(lambda: site.audit.state().signed == 7)
    assert site.audit.state().problem == ""
    site.audit.stop()
    assert site.audit.verify().signed == 7
    site.close()


def test_a_cut_tail_is_found_by_the_homes_own_checkpoints(signed):
    """Where they were left in place."""
    signed.sql("DELETE FROM events WHERE seq > 5; DELETE FROM calls")
    found = signed.audit.verify()
    assert "the chain ends at event 5" in found.problem and "the last 2 were cut off" in found.problem


CUT = "DELETE FROM events WHERE seq > 5; DELETE FROM calls; DELETE FROM checkpoints WHERE seq > 5"


def test_a_cut_tail_is_found_by_the_file_outside(signed, tmp_path):
    """Even if all in the home agrees: by the setting, by the flag, and at the next start."""
    signed.sql(CUT)
    assert signed.ledger.verify(keys=[sign.SigningKey.load(signed.key).public]).holds
    assert f"line 2 of {tmp_path / 'out.jsonl'} signs 7 events: the last 2" in signed.audit.verify().problem
    bare = Audit(signed.store, signed.ledger, signed.key, signed.folder, AuditSettings())
    assert bare.verify().holds
    assert "the last 2 were cut off" in bare.verify(files=(tmp_path / "out.jsonl",)).problem
    with pytest.raises(ChainBroken, match=r"Event 7, which line 2 of .*the chain was cut off"):
        signed.audit.check()


def test_a_rewritten_chain_that_is_signed_again_is_found_by_the_file_outside(signed, tmp_path):
    """By somebody who has the key, too: what was signed before is elsewhere."""
    signed.sql(CUT)
    signed.acts(4)
    bare = Audit(signed.store, signed.ledger, signed.key, signed.folder, AuditSettings())
    bare.checkpoint()
    assert bare.verify().holds
    assert "event 7 is not the one that line 2" in signed.audit.verify().problem
    with pytest.raises(ChainBroken, match=r"Event 7, .* is another one"):
        signed.audit.check()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda line: line[:40] + (b"B" if line[40:41] == b"A" else b"A") + line[41:], "checkpoint"),
        (lambda line: b"{}", "Line 2 .* is no checkpoint"),
        (lambda line: line.replace(b'"sig":"', b'"sig":"AAAA'), "not good"),
    ],
    ids=["payload", "none", "signature"],
)
def test_a_forged_checkpoint_is_not_taken(signed, tmp_path, spoil, said):
    """Neither in the file outside nor in the home."""
    path = tmp_path / "out.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + spoil(second) + b"\n")
    try:
        problem = signed.audit.verify().problem
    except CannotDo as error:
        problem = error.message
    assert re.search(said, problem), problem
    path.write_bytes(first + b"\n" + second + b"\n")
    with contextlib.closing(sqlite3.connect(signed.database)) as connection, connection:
        connection.execute("UPDATE checkpoints SET envelope = ? WHERE seq = 7", (spoil(second).decode(),))
    assert "the checkpoint of event 7 is not good" in signed.audit.verify().problem


@pytest.mark.parametrize("change", ["envelope = 'x'", "key = 'x'", "envelope = replace(envelope, 'sig', 'gis')"])
def test_a_checkpoint_in_the_home_that_was_changed_stops_the_start(signed, change):
    """With a sentence; and 'audit verify' says no, or why it cannot say."""
    signed.sql(f"UPDATE checkpoints SET {change} WHERE seq = 7")
    with pytest.raises(CannotDo, match=r"is not good|is signed by no key"):
        signed.audit.check()
    with pytest.raises(CannotDo):
        signed.audit.checkpoint()
    try:
        assert "event 7 is not good" in signed.audit.verify().problem
    except CannotDo as error:
        assert "is signed by no key at all" in error.message


def test_a_checkpoint_by_another_key_is_not_taken(signed, tmp_path):
    """Made by somebody who changed the chain, signed it and named a key of their own."""
    other = sign.SigningKey.load(tmp_path / "other.pem")
    (home,) = signed.rows("SELECT id FROM house")[0]
    (head,) = signed.rows("SELECT hash FROM events WHERE seq = 6")[0]
    made, envelope = checkpoints.make((6, head), home, 1.0, other)
    checkpoints.keep(signed.store, made, envelope, other.public)
    assert f"signed by {other.fingerprint}, which is not this home's key" in signed.audit.verify().problem


def test_a_checkpoint_of_another_home_is_passed_over_and_said(signed, tmp_path):
    """A file may take those of several homes; one that has none of this home proves nothing, and says so."""
    neighbour = Site(tmp_path / "neighbour", checkpoint_to=str(tmp_path / "out.jsonl"))
    running(neighbour)
    neighbour.audit.stop()
    found = signed.audit.verify()
    assert found.holds and "1 checkpoints of other homes" in found.notes[0] and neighbour.audit.verify().holds
    neighbour.close()
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    (tmp_path / "theirs.jsonl").write_bytes(lines[-1] + b"\n")
    assert "no checkpoint of this home" in signed.audit.verify(files=(tmp_path / "theirs.jsonl",)).problem


def test_without_its_key_or_with_another_one_the_server_does_not_start(signed, tmp_path):
    """And says how to go on: put it back, or enter the loss, after which another key signs and all still verifies."""
    signed.key.rename(tmp_path / "kept.pem")
    with pytest.raises(CannotDo, match=r"There is no signing key .* signed with it"):
        signed.audit.check()
    with pytest.raises(CannotDo, match="no signing key"):
        signed.audit.checkpoint()
    sign.SigningKey.load(signed.key)
    with pytest.raises(CannotDo, match="the last checkpoint is signed by sha256:") as told:
        signed.audit.check()
    assert "freehold audit rekey" in told.value.hint
    with pytest.raises(CannotDo, match="No reason"):
        signed.audit.rekey("  ", actor="me")
    signed.audit.rekey("the disk of the key died", actor="me")
    running(signed)
    signed.audit.stop()
    found = signed.audit.verify()
    assert found.holds and found.signed == 8, found.problem
    assert found.notes == ("event 8: another key signs from here on (the disk of the key died)",)
    with pytest.raises(CannotDo, match="is the one that signed"):
        signed.audit.rekey("again", actor="me")


def test_a_key_that_cannot_be_read_is_a_sentence(signed):
    """As for a missing one."""
    signed.key.write_bytes(b"no key")
    with pytest.raises(CannotDo, match="cannot be read"):
        signed.audit.check()


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("home/out.jsonl", BadConfig, "lies in the home"),
        ("away/../home/x", BadConfig, "lies in the home"),
        ("none/out.jsonl", CannotDo, "cannot be kept in .* No such file"),
        ("", CannotDo, "cannot be kept in|cannot be read"),
    ],
)
def test_a_place_for_checkpoints_that_cannot_be_is_refused_at_start(tmp_path, place, kind, said):
    """Inside the home, in a folder that is not there, or a folder itself; a path that is not whole, too."""
    (tmp_path / "away").mkdir()
    site = Site(tmp_path / "home", checkpoint_to=f"{tmp_path}/{place}")
    with pytest.raises(kind, match=said):
        site.audit.check()
    half = Audit(site.store, site.ledger, site.key, site.folder, AuditSettings(checkpoint_to="out.jsonl"))
    with pytest.raises(BadConfig, match="no whole path"):
        half.check()
    site.close()


def test_a_file_outside_that_fails_later_is_said_and_mended(tmp_path, capfd):
    """The checkpoint is kept in the home, the failure is shown and said once, and the file gets the next one."""
    away = tmp_path / "away"
    away.mkdir()
    site = Site(tmp_path / "home", checkpoint_to=str(away / "out.jsonl"), checkpoint_every=1)
    running(site)
    away.rename(tmp_path / "gone")
    site.acts(1)
    until(lambda: "cannot be written to" in site.audit.state().problem)
    assert site.audit.state().signed == 2
    (tmp_path / "gone").rename(away)
    until(lambda: not site.audit.state().problem)
    site.audit.stop()
    said = capfd.readouterr().err
    assert said.count("NO CHECKPOINT") == 1 and "kept again" in said
    assert len((away / "out.jsonl").read_bytes().splitlines()) == 2 and site.audit.verify().holds
    site.close()


def test_a_chain_that_does_not_hold_is_not_signed(signed, capfd):
    """At an interval, at stop and when asked; what is from before the last checkpoint is for 'audit verify'."""
    signed.acts(2)
    signed.sql("UPDATE events SET actor = 'you' WHERE seq = 8")
    with pytest.raises(ChainBroken, match=r"No checkpoint is signed, .* event 8"):
        signed.audit.checkpoint()
    assert signed.rows("SELECT max(seq) FROM checkpoints") == [(7,)]


@pytest.mark.parametrize("emptied", [False, True])
def test_a_missing_file_outside_is_said(signed, tmp_path, emptied):
    """It was there; whoever took it away wanted something. Once the chain says that it was, no server starts."""
    path = tmp_path / "out.jsonl"
    path.unlink()
    if emptied:
        path.touch()
    assert ("has no checkpoint of this home" if emptied else "is missing") in signed.audit.verify().problem
    signed.audit.check()  # as when the setting is new
    signed.audit.enter_place()
    signed.audit.enter_place()
    assert [event.subject for event in signed.ledger.events("audit.kept_at")] == [str(path)]
    with pytest.raises(ChainBroken, match="had checkpoints of this home, and has none now"):
        signed.audit.check()
    other = AuditSettings(checkpoint_to=str(tmp_path / "other.jsonl"))
    Audit(signed.store, signed.ledger, signed.key, signed.folder, other).check()


def test_a_home_without_checkpoints_says_so(signed):
    """They can be deleted by hand; a file outside is what shows it."""
    signed.sql("DELETE FROM checkpoints")
    bare = Audit(signed.store, signed.ledger, signed.key, signed.folder, AuditSettings())
    assert any("there is no checkpoint yet" in note for note in bare.verify().notes)


def test_a_file_outside_that_a_crash_tore_goes_on_with_whole_lines(signed, tmp_path):
    """The torn line is named, and hides none after it."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(path.read_bytes() + b'{"payload":"e')
    with pytest.raises(CannotDo, match=r"Line 3 .* is no checkpoint"):
        signed.audit.verify()
    signed.acts(1)
    checkpoints.append(path, b"whole")
    assert path.read_bytes().endswith(b'{"payload":"e\nwhole\n')


# the export, and its verifier


def check(path: Path, *words: str, key: str) -> tuple[int, str]:
    """The stand-alone verifier, where no freehold can be imported."""
    lone = path.parent / "verify_audit.py"
    shutil.copy(SCRIPT, lone)
    program = "import runpy, sys; sys.modules['freehold'] = None; sys.modules['msgspec'] = None; "
    program += f"sys.argv = ['verify_audit.py', *sys.argv[1:]]; runpy.run_path({str(lone)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(path), "--key", key, *words],
        capture_output=True, text=True, cwd=path.parent,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def exported(signed, tmp_path):
    """Its seven events and two checkpoints as a file."""
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(signed.audit.export()))
    return path


@pytest.fixture
def key(signed):
    return sign.SigningKey.load(signed.key).public


def test_an_export_is_checked_without_freehold(exported, signed, key, tmp_path):
    """Whole, and beside the checkpoints that were kept outside."""
    lines = exported.read_text().splitlines()
    heads = [next(iter(json.loads(line))) for line in lines]
    assert heads == ["freehold.audit", *["event"] * 4, "checkpoint", *["event"] * 3, "checkpoint", "end"]
    assert json.loads(lines[0])["key"] == sign.fingerprint(key)
    for words in ([], ["--checkpoint", str(tmp_path / "out.jsonl")]):
        code, said = check(exported, *words, key=key)
        assert code == 0 and "events 1 to 7" in said and signed.ledger.head()[1] in said, said


def test_every_line_of_an_export_is_as_plain_json_spells_it(exported):
    """So that a line has one reading."""
    for line in exported.read_text().splitlines():
        assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == line


def test_an_export_from_an_event_on_is_checked_too(signed, key, tmp_path):
    """What is before is signed with it, and the file says that it is not there; a moment does as well as a number."""
    path = tmp_path / "some.jsonl"
    (at,) = signed.rows("SELECT at FROM events WHERE seq = 5")[0]
    assert list(signed.audit.export(at)) == list(signed.audit.export(5))
    path.write_bytes(b"".join(signed.audit.export(5)))
    code, said = check(path, "--checkpoint", str(tmp_path / "out.jsonl"), key=key)
    assert code == 0 and "begins at event 5" in said, said
    with pytest.raises(CannotDo, match="no event 99"):
        list(signed.audit.export(99))


def test_an_export_of_an_old_home_is_checked_too(old, tmp_path):
    """Its first events were hashed in another spelling, and stand in the file as they were hashed."""
    old.calls(9)
    path = tmp_path / "old.jsonl"
    path.write_bytes(b"".join(old.audit.export()))
    code, said = check(path, key=sign.SigningKey.load(old.key).public)
    assert code == 0 and "events 1 to 6" in said, said


def edited(change):
    """An edit of the lines."""
    return lambda lines: change(list(lines))


def without(*places):
    return lambda lines: [line for place, line in enumerate(lines) if place not in places]


def swapped(lines):
    lines[2], lines[3] = lines[3], lines[2]
    return lines


def replaced(place, old, new):
    def change(lines):
        assert old in lines[place], lines[place]
        lines[place] = lines[place].replace(old, new, 1)
        return lines

    return change


def forged(lines):
    """An event more at the end, properly linked: all but the signature."""
    previous = json.loads(lines[8])["hash"]
    content = json.loads(lines[8])["event"] | {"seq": 8, "previous": previous, "act": "test.forged"}
    spelt = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    hash = "sha256:" + hashlib.sha256(spelt.encode()).hexdigest()
    event = f'{{"event":{spelt},"hash":"{hash}"}}'
    return [*lines[:-1], event, json.dumps({"end": {"events": 8, "head": hash}})]


def resigned(lines):
    """A checkpoint whose content was changed under its signature."""
    envelope = json.loads(lines[9])["checkpoint"]
    payload = json.loads(base64.b64decode(envelope["payload"])) | {"at": 5.0}
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return [*lines[:9], json.dumps({"checkpoint": envelope}), *lines[10:]]


EDITS = {
    "flipped": (replaced(3, '"actor":"me"', '"actor":"he"'), "event 3 .* was changed"),
    "a hash flipped": (replaced(3, '"hash":"sha256:', '"hash":"sha256:0'), "event 3 .* was changed"),
    "a name twice": (replaced(3, '{"act":', '{"act":"x","act":'), "line 4 cannot be read: a name is there twice"),
    "an event removed": (without(3), "event 3 is missing"),
    "the first removed": (without(1), "event 1 is missing"),
    "events swapped": (swapped, "event 2 is missing"),
    "an event twice": (lambda lines: [*lines[:4], *lines[3:]], "event 4 is missing: after 3 comes 3"),
    "an event forged": (forged, "no checkpoint signs the events after 7"),
    "the end cut off": (without(10), "has no end: it was cut off after event 7"),
    "cut within a line": (lambda lines: [*lines[:8], lines[8][:50]], "was cut off|cannot be read|not whole"),
    "cut off and ended": (lambda lines: [*lines[:8], lines[10]], "says that it ends at event 7, and it ends at 6"),
    "a checkpoint moved": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "signs 4 events"),
    "a checkpoint changed": (resigned, "signature .* does not fit"),
    "the last checkpoint removed": (without(9), "no checkpoint signs the events after 4"),
    "another home": (replaced(0, '"home":"home_', '"home":"home_0'), "is of another home"),
    "another beginning": (replaced(0, '"previous":"sha256:0', '"previous":"sha256:1'), "follows nothing"),
    "a line of something else": (lambda lines: [*lines[:3], '{"note":1}', *lines[3:]], "none that an export has"),
    "a byte that is no text": (lambda lines: [*lines[:3], lines[3].replace("me", "\udcff"), *lines[4:]], "decode"),
    "something after the end": (lambda lines: [*lines, lines[-1]], "follows the end"),
}


@pytest.mark.parametrize("how", EDITS)
def test_the_verifier_says_no_to_every_kind_of_edit(exported, key, how):
    """And names the first thing that does not hold."""
    edit, said = EDITS[how]
    lines = edit(exported.read_text().splitlines())
    text = "\n".join(lines) + ("\n" if how != "cut within a line" else "")
    exported.write_bytes(text.encode(errors="surrogateescape"))
    code, text = check(exported, key=key)
    assert code == 1 and re.search(said, text), text


def test_an_export_that_was_cut_at_a_checkpoint_is_found_by_one_that_was_kept_outside(exported, key, tmp_path):
    """By nothing else, and so it says when its end was signed."""
    lines = exported.read_text().splitlines()
    head = json.loads(lines[4])["hash"]
    exported.write_text("\n".join([*lines[:6], json.dumps({"end": {"events": 4, "head": head}})]) + "\n")
    code, said = check(exported, key=key)
    assert code == 0 and "signed at" in said
    code, said = check(exported, "--checkpoint", str(tmp_path / "out.jsonl"), key=key)
    assert code == 1 and "signs 7 events, and the file ends at 4" in said


def test_the_verifier_takes_no_other_key(exported, tmp_path):
    """Nor something that is no key, nor a file that is no export."""
    code, said = check(exported, key=sign.SigningKey.load(tmp_path / "other.pem").public)
    assert code == 1 and "a key that you did not name" in said
    code, said = check(exported, key="AAAA")
    assert code == 2 and "is no Ed25519 public key" in said
    exported.write_text("hello\n")
    code, said = check(exported, key=sign.SigningKey.load(tmp_path / "other.pem").public)
    assert code == 2 and "cannot be checked" in said


def test_a_chain_that_does_not_hold_is_not_handed_out(signed):
    """Neither what is not signed yet nor what is."""
    signed.sql("UPDATE events SET actor = 'you' WHERE seq = 3")
    with pytest.raises(ChainBroken, match="Event 3"):
        list(signed.audit.export())


# failed log-ins


def test_failed_logins_are_events_and_few_of_them():
    """So many at once, the others as a number in the next, and what is left at the end."""
    written = []
    knocks = Knocks(lambda act, subject, actor, detail: written.append((act, subject, detail)))
    for _ in range(PER_MINUTE + 20):
        knocks.note("unknown key", "unknown", "x")
    knocks._at -= 10  # seconds in which one more may come
    knocks.note("revoked key", "key_7", "y")
    knocks.note("unknown key", "unknown", "x")
    knocks.close()
    assert len(written) == PER_MINUTE + 2
    assert written[-2] == ("login.failed", "key_7", {"why": "revoked key", "attempt": "y", "others": 20})
    assert written[-1] == ("login.failed", "unknown", {"why": "several", "others": 1})


# the running server


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("audited")
    env = {"FREEHOLD_AUDIT_CHECKPOINT_TO": str(folder / "out.jsonl"), "FREEHOLD_AUDIT_CHECKPOINT_EVERY": "5"}
    with serving(folder / "home", tiny_model, env=env) as server:
        for _ in range(3):
            assert ask(server, "/v1/chat/completions", chat("hi"))[0] == 200
        server.env = env
        yield server


def events(server, *words: str) -> list[dict]:
    return json.loads(server.cli("audit", "list", "--json", *words).stdout)


def test_calls_of_the_server_are_in_the_chain(served):
    """With what the ledger says of them, and the walk agrees."""
    settled = [event for event in events(served, "--calls") if event["act"] == "call.settled"]
    assert len(settled) >= 3 and {event["subject"] for event in settled} >= {call["id"] for call in served.calls(3)}
    done = served.cli("audit", "verify", "--json", env=served.env)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["calls"] >= 3 and found["checkpoints"] >= 2, done.stdout + done.stderr
    assert not [event for event in events(served) if event["act"] == "call.settled"]
    assert [event["seq"] for event in events(served, "--calls", "--last", "2")] == [
        found["events"] - 1,
        found["events"],
    ]


def test_the_start_is_an_event_with_the_digest_of_the_settings(tmp_path, tiny_model):
    """And the tables that are others than at the start before."""
    for grace in ("30", "29"):
        with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SERVER_GRACE": grace}) as server:
            pass
    first, second = [event["detail"] for event in events(server) if event["act"] == "server.started"]
    assert first["settings"] != second["settings"] and second["changed"] == ["server"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", second["tables"]["server"])


def test_a_key_that_does_not_count_is_an_event(served):
    """An unknown one, a revoked one and one that has ended: without the key itself; whose it was is known."""
    gone = json.loads(served.cli("keys", "create", "gone", "--json").stdout)
    served.cli("keys", "revoke", "gone")
    ended = json.loads(ask(served, "/admin/keys", {"act": "create", "name": "ended", "expires_at": time.time() + 1})[2])
    until(lambda: get(served, "/v1/models", ended["key"])[0] == 401)
    for token in ("fh_" + "x" * 43, gone["key"]):
        assert get(served, "/v1/models", token)[0] == 401
    assert get(served, "/v1/models")[0] == 401  # no key at all is no log-in
    failed = "SELECT count(*) FROM events WHERE act = 'login.failed'"
    with contextlib.closing(sqlite3.connect(served.home / "freehold.db")) as connection:
        until(lambda: connection.execute(failed).fetchone() == (3,))
    expired, unknown, revoked = [event for event in events(served) if event["act"] == "login.failed"]
    assert [one["subject"] for one in (expired, unknown, revoked)] == [ended["id"], "unknown", gone["id"]]
    assert "x" * 43 not in json.dumps(unknown) and unknown["detail"]["attempt"].startswith("hmac-sha256:")


def test_auditors_have_it_over_the_wire_and_members_do_not(served, tmp_path):
    """Head, list, verify and export; the export is one that the verifier takes."""
    token = {
        role: json.loads(served.cli("keys", "create", f"wire {role}", "--role", role, "--json").stdout)["key"]
        for role in ("auditor", "member")
    }
    paths = {"/admin/audit/list": {"calls": True, "limit": 2}, "/admin/audit/verify": {}, "/admin/audit/export": {}}
    for path, body in paths.items():
        assert ask(served, path, body, token["member"])[0] == 403
    assert get(served, "/admin/audit/head", token["member"])[0] == 403
    found = {path: ask(served, path, body, token["auditor"]) for path, body in paths.items()}
    assert [status for status, _, _ in found.values()] == [200, 200, 200]
    assert [event["seq"] for event in json.loads(found["/admin/audit/list"][2])["events"]] == [1, 2]
    assert json.loads(found["/admin/audit/verify"][2])["holds"]
    head = json.loads(get(served, "/admin/audit/head", token["auditor"])[2])
    path = tmp_path / "wire.jsonl"
    path.write_bytes(found["/admin/audit/export"][2])
    code, said = check(path, "--checkpoint", served.env["FREEHOLD_AUDIT_CHECKPOINT_TO"], key=head["key"])
    assert code == 0 and head["home"] in said, said
    assert events(served)[-1]["act"] == "audit.exported" and events(served)[-1]["actor"] == served.key_id(
        "wire auditor"
    )
    assert ask(served, "/admin/audit/list", {"limit": 0}, token["auditor"])[0] == 400
    assert ask(served, "/admin/audit/export", {"since": 10**9}, token["auditor"])[0] == 409


def test_status_shows_where_the_chain_was_signed(served):
    """And where checkpoints go."""
    facts = served.status()["audit"]
    assert facts["holds"] and facts["signed"] > 0 and facts["checkpoints"]["problem"] == ""
    text = served.cli("status").stdout
    assert "signed up to event" in text and served.env["FREEHOLD_AUDIT_CHECKPOINT_TO"] in text


def test_the_export_of_the_command_is_checked_by_the_script_that_the_command_writes(served, tmp_path):
    """By somebody who has the file, the script and the key; and it is an event with the file's digest."""
    out, script = tmp_path / "export.jsonl", tmp_path / "script.py"
    done = served.cli("audit", "export", "-o", str(out), env=served.env)
    assert done.returncode == 0, done.stderr
    assert served.cli("audit", "verifier", "-o", str(script)).returncode == 0
    assert script.read_bytes() == SCRIPT.read_bytes()
    key = json.loads(served.cli("audit", "head", "--json").stdout)["key"]
    assert check(out, key=key)[0] == 0
    (event,) = [event for event in events(served) if event["act"] == "audit.exported" and event["subject"] == out.name]
    assert event["detail"]["sha256"] == "sha256:" + hashlib.sha256(out.read_bytes()).hexdigest()
    assert "cannot be written" in served.cli("audit", "export", "-o", str(tmp_path / "no/x"), env=served.env).stderr


def test_a_home_that_was_cut_is_found_by_the_command_and_does_not_start(tmp_path, tiny_model):
    """By the checkpoints in a file elsewhere, with everything in the home cut alike."""
    env = {"FREEHOLD_AUDIT_CHECKPOINT_TO": str(tmp_path / "out.jsonl")}
    with serving(tmp_path / "home", tiny_model, env=env) as server:
        assert ask(server, "/v1/chat/completions", chat("hi"))[0] == 200
    assert server.process.returncode == 0, server.output()
    assert server.cli("audit", "verify", env=env).returncode == 0
    with contextlib.closing(sqlite3.connect(server.home / "freehold.db")) as connection:
        connection.executescript("DELETE FROM checkpoints; DELETE FROM calls; DELETE FROM events WHERE seq > 3")
    assert server.cli("audit", "verify").returncode == 0
    for words, more in ([], env), (["--checkpoint", str(tmp_path / "out.jsonl")], {}):
        done = server.cli("audit", "verify", *words, env=more)
        assert done.returncode == 1 and "were cut off" in done.stdout, done.stdout
    done = cli("up", "--engine", "fake", "--port", "0", home=server.home, env=env)
    assert done.returncode == 2 and "the chain was cut off" in done.stderr
    (server.home / "signing-key.pem").unlink()
    (tmp_path / "out.jsonl").rename(tmp_path / "kept.jsonl")
    assert "no checkpoint" in server.cli("audit", "verify").stdout
