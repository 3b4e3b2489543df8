"""The ledger: every call has one entry, settled once; the chain of acts cannot be rewritten unseen."""

import asyncio
import contextlib
import sqlite3

import pytest

from freehold.errors import Unaccountable
from freehold.ledger import WINDOW, Ledger, new_id
from freehold.store import Store
from freehold.types import Caller, Kind, Outcome, Role, Settlement, Usage

BOB = Caller("key_1", "bob", Role.MEMBER)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path):
    store = Store(f"sqlite:///{path}")
    yield Ledger(store)
    store.close()


def answered(**more) -> Settlement:
    return Settlement(Outcome.ANSWERED, 200, **more)


def move(path, old: str, new: str) -> None:
    """Rename a table under the ledger's feet."""
    with contextlib.closing(sqlite3.connect(path)) as spoiler:
        spoiler.execute(f"ALTER TABLE {old} RENAME TO {new}")


def test_a_call_is_opened_and_settled_once(ledger):
    """The entry is on the disk when it is said to be; the second settlement changes nothing."""

    async def scenario():
        ledger.start()
        entry = ledger.open("req_1", BOB, Kind.CHAT)
        await entry.on_disk()
        (opened,) = ledger.calls()
        usage = Usage(prompt=7, completion=5, cached=3)
        entry.settle(answered(model="m", digest="d", usage=usage, total_ms=9.0))
        entry.settle(Settlement(Outcome.FAILED, 500))
        await entry.on_disk()
        (settled,) = ledger.calls()
        await ledger.stop()
        return opened, settled

    opened, settled = asyncio.run(scenario())
    assert (opened.outcome, opened.caller, opened.kind) == (None, "bob", "chat.completions")
    assert (settled.outcome, settled.status, settled.model) == ("answered", 200, "m")
    assert (settled.prompt_tokens, settled.completion_tokens, settled.cached_tokens) == (7, 5, 3)


def test_an_entry_that_was_settled_on_the_disk_is_never_written_over(ledger):
    """Not even by a row with its id."""

    async def scenario():
        ledger.start()
        for outcome in (Outcome.ANSWERED, Outcome.FAILED):
            entry = ledger.open("req_1", BOB, Kind.CHAT)
            entry.settle(Settlement(outcome, 200))
            await entry.on_disk()
        await ledger.stop()

    asyncio.run(scenario())
    assert ledger.totals() == {"answered": 1}


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_a_thousand_calls_at_once_all_get_there(ledger, durability):
    """Group commit loses none of them, and stopping writes what is left."""

    async def one():
        entry = ledger.open(new_id("req"), BOB, Kind.CHAT)
        await entry.on_disk()
        entry.settle(answered())
        await entry.on_disk()

    async def scenario():
        ledger.start(durability)
        await asyncio.gather(*(one() for _ in range(1000)))
        await ledger.stop()

    asyncio.run(scenario())
    assert ledger.totals() == {"answered": 1000}


def test_relaxed_waits_for_no_disk_and_is_written_within_its_window(ledger):
    """Nothing is there at once; everything is a little later, without anybody asking."""

    async def scenario():
        ledger.start("relaxed")
        entry = ledger.open("req_1", BOB, Kind.CHAT)
        entry.settle(answered())
        await entry.on_disk()
        at_once = ledger.totals()
        await asyncio.sleep(WINDOW * 8)
        later = ledger.totals()
        await ledger.stop()
        return at_once, later

    assert asyncio.run(scenario()) == ({}, {"answered": 1})


def test_what_a_crash_left_open_is_settled_as_interrupted(ledger):
    """At the next start."""

    async def crash():
        ledger.start()
        await ledger.open("req_1", BOB, Kind.CHAT).on_disk()
        await ledger.stop()

    async def start():
        left = ledger.start()
        await ledger.stop()
        return left

    asyncio.run(crash())
    assert asyncio.run(start()) == 1
    assert ledger.totals() == {"interrupted": 1}


def test_a_ledger_that_cannot_be_written_says_so_and_goes_on_when_it_can(ledger, path):
    """The waiting entry fails with Unaccountable, the next call does not begin, and both at once when mended."""

    async def scenario():
        ledger.start()
        move(path, "calls", "away")
        entry = ledger.open("req_1", BOB, Kind.CHAT)
        await entry.begin()  # nothing is known yet
        with pytest.raises(Unaccountable, match="cannot be written"):
            await entry.on_disk()
        with pytest.raises(Unaccountable):
            await ledger.open("req_2", BOB, Kind.CHAT).begin()
        move(path, "away", "calls")
        third = ledger.open("req_3", BOB, Kind.CHAT)
        await third.begin()
        await ledger.stop()

    asyncio.run(scenario())
    assert sorted(call.id for call in ledger.calls()) == ["req_1", "req_3"]


def test_relaxed_serves_nothing_while_the_ledger_cannot_be_written_and_loses_nothing(ledger, path):
    """What was answered within the window is kept until it can be written."""

    async def scenario():
        ledger.start("relaxed")
        move(path, "calls", "away")
        entry = ledger.open("req_1", BOB, Kind.CHAT)
        entry.settle(answered())
        await entry.on_disk()
        while not ledger._commits.failing:
            await asyncio.sleep(WINDOW)
        refused = ledger.open("req_2", BOB, Kind.CHAT)
        with pytest.raises(Unaccountable):
            await refused.begin()
        refused.settle(answered())  # as whoever opened it does; it never began
        move(path, "away", "calls")
        await asyncio.sleep(0.6)
        await ledger.stop()

    asyncio.run(scenario())
    assert [(call.id, call.outcome) for call in ledger.calls()] == [("req_1", "answered")]


def test_that_a_call_leaves_the_house_is_known_before_it_does(ledger, path):
    """It is on the disk first, survives a crash, and a call that cannot be written down does not leave."""

    async def scenario():
        ledger.start()
        await ledger.open("req_1", BOB, Kind.CHAT).leaves()
        stayed = ledger.open("req_2", BOB, Kind.CHAT)
        await stayed.leaves()
        stayed.settle(answered())  # nothing was sent after all
        gone = ledger.open("req_3", BOB, Kind.CHAT)
        gone.settle(answered(left_the_house=True))
        await gone.on_disk()
        opened = {call.id: call.left_the_house for call in ledger.calls()}
        move(path, "calls", "away")
        with pytest.raises(Unaccountable):
            await ledger.open("req_4", BOB, Kind.CHAT).leaves()
        move(path, "away", "calls")
        await ledger.stop()
        return opened

    assert asyncio.run(scenario()) == {"req_1": True, "req_2": False, "req_3": True}
    assert ledger.left_the_house() == 3  # the one that was not sent said that it would be, and was not settled


def test_every_call_comes_once_and_in_order(ledger, path, monkeypatch):
    """A page at a time, calls of one moment too, and within a time: from its beginning on, and before its end."""
    monkeypatch.setattr("freehold.ledger.ledger._PAGE", 3)

    async def scenario():
        ledger.start()
        for number in range(10):
            entry = ledger.open(f"req_{number}", BOB, Kind.CHAT)
            entry._opened_at = float(number // 4)  # 0 0 0 0 1 1 1 1 2 2
            entry.settle(answered(waited_ms=number + 0.5, engine_ms=2.0 * number))
            await entry.on_disk()
        await ledger.stop()

    asyncio.run(scenario())
    every = list(ledger.each())
    assert [call.id for call in every] == [f"req_{number}" for number in range(10)]
    assert [(call.waited_ms, call.engine_ms) for call in every] == [(n + 0.5, 2.0 * n) for n in range(10)]
    assert sorted(every, key=lambda call: call.id) == sorted(ledger.calls(), key=lambda call: call.id)
    assert [call.id for call in ledger.each(1.0, 2.0)] == ["req_4", "req_5", "req_6", "req_7"]
    assert (ledger.count(), ledger.count(1.0), ledger.count(1.0, 2.0)) == (10, 6, 4)
    assert list(ledger.each(3.0)) == [] and len(list(ledger.each(until=3.0))) == 10


def test_calls_refused_while_the_disk_is_full_leave_nothing(ledger, path):
    """Many at once, again and again: none of them is a call, and none comes back as one."""

    async def one(number: int) -> None:
        entry = ledger.open(f"req_{number}", BOB, Kind.CHAT)
        with contextlib.suppress(Unaccountable):
            await entry.begin()
        entry.settle(Settlement(Outcome.FAILED, 503))

    async def scenario():
        ledger.start()
        move(path, "calls", "away")
        with pytest.raises(Unaccountable):
            await ledger.open("req_first", BOB, Kind.CHAT).on_disk()
        for start in range(0, 200, 20):
            await asyncio.gather(*(one(number) for number in range(start, start + 20)))
            await asyncio.sleep(0.01)
        assert len(ledger._commits._changed) == 1
        move(path, "away", "calls")
        await ledger.stop()

    asyncio.run(scenario())
    assert [call.id for call in ledger.calls()] == ["req_first"]


def test_an_answer_that_could_not_be_accounted_for_is_not_one(ledger, path):
    """Settled as answered, refused because the disk was full: the entry says failed when it can be written."""

    async def scenario():
        ledger.start()
        entry = ledger.open("req_1", BOB, Kind.CHAT)
        await entry.on_disk()
        move(path, "calls", "away")
        entry.settle(answered(usage=Usage(3, 4)))
        with pytest.raises(Unaccountable):
            await entry.on_disk()
        move(path, "away", "calls")
        await ledger.stop()

    asyncio.run(scenario())
    (call,) = ledger.calls()
    assert (call.outcome, call.error, call.completion_tokens) == ("failed", "ledger_unavailable", 4)


def test_a_row_that_cannot_be_written_fails_alone(ledger):
    """Neither the others in its group nor those after it; and it is not tried for ever."""

    async def scenario():
        ledger.start()
        entries = [ledger.open(f"req_{number}", BOB, Kind.CHAT) for number in range(3)]
        for number, entry in enumerate(entries):
            entry.settle(answered(usage=Usage(2**70 if number == 1 else 1)))
        found = await asyncio.gather(*(entry.on_disk() for entry in entries), return_exceptions=True)
        await ledger.open("req_3", BOB, Kind.CHAT).on_disk()
        await ledger.stop()
        return found

    first, second, third = asyncio.run(scenario())
    assert first is None and third is None and isinstance(second, Unaccountable)
    assert ledger.totals() == {"answered": 2, "open": 1}


def test_a_waiter_that_leaves_takes_nobody_with_it(ledger):
    """Those who wait for the same commit go on waiting, and the row is written all the same."""

    async def scenario():
        ledger.start()
        first, second = (ledger.open(f"req_{number}", BOB, Kind.CHAT) for number in range(2))
        waits = [asyncio.ensure_future(entry.on_disk()) for entry in (first, second)]
        await asyncio.sleep(0)
        waits[0].cancel()
        found = await asyncio.gather(*waits, return_exceptions=True)
        await ledger.stop()
        return found

    first, second = asyncio.run(scenario())
    assert isinstance(first, asyncio.CancelledError) and second is None
    assert ledger.totals() == {"open": 2}


def test_an_act_and_its_event_stand_or_fall_together(ledger):
    """If the change fails, there is no event of it."""

    def fail(_connection):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        ledger.record("key.created", "x", actor="me", with_it=fail)
    assert ledger.verify().events == 0


def five_events(ledger):
    for number in range(5):
        ledger.record("test.act", f"thing {number}", actor="me", detail={"n": number, "text": "ü"})


def test_an_untouched_chain_holds(ledger):
    """And its head is the hash of the last event."""
    five_events(ledger)
    found = ledger.verify()
    assert found.holds and found.events == 5 and found.head == list(ledger.events())[-1].hash


TAMPERINGS = {
    "changed": ("UPDATE events SET subject = 'other' WHERE seq = 3", "event 3 .* was changed"),
    "detail changed": ("UPDATE events SET detail = '{\"n\": 7}' WHERE seq = 2", "event 2 .* was changed"),
    "time changed": ("UPDATE events SET at = at + 1 WHERE seq = 5", "event 5 .* was changed"),
    "removed": ("DELETE FROM events WHERE seq = 3", "event 3 is missing"),
    "first removed": ("DELETE FROM events WHERE seq = 1", "event 1 is missing"),
    "reordered": ("UPDATE events SET seq = CASE seq WHEN 2 THEN 30 ELSE seq END", "event 2 is missing"),
    "closed up": (
        "DELETE FROM events WHERE seq = 3; UPDATE events SET seq = seq - 1 WHERE seq > 3",
        "event 3 does not",
    ),
    "inserted": (
        "INSERT INTO events SELECT 6, at, actor, act, subject, detail, hash, 'sha256:00' FROM events WHERE seq = 5",
        "event 6 .* was changed",
    ),
    "swapped": (
        "UPDATE events SET seq = -1 WHERE seq = 2; UPDATE events SET seq = 2 WHERE seq = 4;"
        "UPDATE events SET seq = 4 WHERE seq = -1",
        "event 2 does not",
    ),
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_a_rewritten_chain_is_caught_and_the_first_bad_event_named(ledger, path, how):
    """By hand, with sqlite3."""
    statements, said = TAMPERINGS[how]
    five_events(ledger)
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
    connection.close()
    found = ledger.verify()
    assert not found.holds
    import re

    assert re.search(said, found.problem), found.problem
