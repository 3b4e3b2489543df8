"""The full-size runs of `make soak`, in a size for every day."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import soak


def test_clients_that_leave_at_any_moment_leave_nothing_behind(tmp_path):
    """No slot, no call at work, no open entry; and each count is the engine's own, to the token."""
    found = soak.disconnects(tmp_path, 400, seed=7)
    assert found.sound, "\n".join(found.lines())
    assert found.abandoned > 200 and found.exact + found.within_one == 400
    assert found.exact >= 300


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_kill_9_under_load_loses_no_answered_call(tmp_path, durability):
    """In relaxed mode none that was answered longer ago than its window; and every entry is settled afterwards."""
    found = soak.crashes(tmp_path, 2, durability, seed=7)
    assert found.sound, "\n".join(found.lines())
    assert found.answered > 50 and found.interrupted > 0


def test_the_soak_can_say_no(tmp_path):
    """A lost answer, a wrong count and a growing memory are each found."""
    crash = soak.Crashes("strict")
    (tmp_path / "home").mkdir()
    with soak.contextlib.closing(soak.sqlite3.connect(tmp_path / "home" / "freehold.db")) as connection:
        connection.execute("CREATE TABLE calls (id TEXT, outcome TEXT)")
        soak._look_up(crash, tmp_path / "home", {"req_1": 0.0}, 1.0)
    assert crash.lost == 1 and not crash.sound
    client = soak.Leaver(1, "messages", 1, True, None, 0)
    departures = soak.Departures(1)
    call = {"kind": "messages", "prompt_tokens": 1, "completion_tokens": 3, "outcome": "answered"}
    soak._compare(departures, [client], [call], {"said": 9, "marks": {"m1": 9}, "ended": {}})
    assert departures.off and not departures.sound
    assert not soak.Memory([(number * 100_000, 50.0 + number) for number in range(10)]).sound
    assert soak.Memory([(number * 100_000, 50.0) for number in range(10)]).sound
