"""Recorded calls are encrypted, expire, and are erased: nothing of them is left, and the chain holds."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest
from harness import Running, ask, chat, cli, get, until
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from freehold.app import parts
from freehold.cli.main import main
from freehold.config import Settings, TrafficSettings
from freehold.errors import BadConfig, BadTask, WrongKey
from freehold.home import Home
from freehold.ledger import Ledger
from freehold.results import INCUMBENT, Results
from freehold.samples import Placed, Samples
from freehold.store import TRAFFIC, Store, cipher
from freehold.store.cipher import PLAIN, Cipher, Ring
from freehold.task import Tasks, parse
from freehold.traffic import retention
from freehold.traffic.retention import Shelf, Wish, erase, expire, salted, spans
from freehold.types import Answer, Import, Replayed, Sample, Score, Unusable

KEY, OTHER = Cipher(b"k" * 32), Cipher(b"o" * 32)
WORD, GROUP, SAID = "Rumpelstilzchen", "user-4711-anna", "Schneewittchen"
DAY = 86_400.0
NOW = 2e9
TASK = b'name = "t"\nmargin = 0.1\nscorer = { kind = "exact" }\n'


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(Store(tmp_path / "traffic.db", TRAFFIC)) as store:
        yield store


def call(number: int, *, at: float = NOW, caller: str = "desk") -> Sample:
    return Sample(
        f"s{number}", {"messages": [f"{WORD} {number}"]}, answer=Answer(SAID), group=GROUP, at=at, caller=caller
    )


def filled(store: Store, ring: Ring, count: int = 3, **more) -> tuple[Samples, Results, str]:
    """Calls with everything that is kept of them."""
    samples, results = Samples(store, ring), Results(store, ring)
    calls = [call(number, **more) for number in range(count)]
    samples.keep("t", calls)
    key = results.candidate("m", "sha256:1", {}, "e").key
    results.put_answers("t", key, [Replayed(one.id, one.answer, at=one.at) for one in calls])
    results.put_answers("t", key, [Replayed("s1", None, error=f"{SAID} is too long", at=NOW)])
    for of in (key, INCUMBENT):
        results.put_scores("t", of, "d", {one.id: Score(0.5, {"said": SAID}, SAID) for one in calls})
    of = Import("i1", "t", "f", "freehold", NOW, "me")
    samples.begin(of)
    samples.add(of, [], [Unusable(7, f"has an unknown field {WORD}")], line=7)
    return samples, results, key


def held(folder: Path, *words: str) -> set[str]:
    """Those of the words that stand in a byte of the database, its log or its journal."""
    content = b"".join(path.read_bytes() for path in folder.glob("traffic.db*"))
    return {word for word in words if word.encode() in content}


# the key


def test_a_text_is_sealed_for_its_place():
    """It opens there, and nowhere else; it is another one each time; and changed by a bit it does not open."""
    sealed = KEY.seal(b"text", "samples", "content", "t", "s1")
    assert KEY.open(sealed, "samples", "content", "t", "s1") == b"text" != sealed
    assert KEY.seal(b"text", "samples", "content", "t", "s1") != sealed
    wrong = [("samples", "content", "t", "s2"), ("samples", "content", "ts1"), ("answers", "content", "t", "s1")]
    for place in wrong:
        with pytest.raises(WrongKey, match="was changed since"):
            KEY.open(sealed, *place)
    for at in range(len(sealed)):
        broken = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(WrongKey):
            KEY.open(broken, "samples", "content", "t", "s1")
    with pytest.raises(WrongKey):
        OTHER.open(sealed, "samples", "content", "t", "s1")


def test_digests_need_the_key():
    """The same under one key, another under another, and no plain hash of the text."""
    assert KEY.digest(b"text") == Cipher(b"k" * 32).digest(b"text") != OTHER.digest(b"text")
    assert KEY.digest(b"text").startswith("hmac-sha256:") and KEY.digest(b"text")[12:] not in PLAIN.digest(b"text")


def test_a_key_shows_nothing_of_itself():
    """Its name is another one than its bytes."""
    assert repr(KEY) == f"<Cipher {KEY.id}>" and (b"k" * 32).hex()[:16] != KEY.id != OTHER.id


def test_derived_keys_are_rfc_5869_s():
    """By the cryptography library's own HKDF."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    made = HKDF(hashes.SHA256(), 32, None, b"freehold traffic v1: name").derive(b"k" * 32)
    assert made.hex()[:16] == KEY.id


@pytest.mark.parametrize("how", ["raw", "hex", "base64", "urlsafe"])
def test_a_key_is_read_however_it_is_written(tmp_path, how):
    """From a file or from the variable, which wins."""
    raw = bytes(range(220, 252))
    texts = {
        "raw": raw, "hex": raw.hex().encode() + b"\n", "base64": base64.b64encode(raw) + b"\n",
        "urlsafe": base64.urlsafe_b64encode(raw).rstrip(b"="),
    }  # fmt: skip
    (tmp_path / "key").write_bytes(texts[how])
    assert cipher.load(str(tmp_path / "key"), {}).id == Cipher(raw).id
    if how != "raw":
        assert cipher.load("/nowhere", {cipher.VARIABLE: texts[how].decode()}).id == Cipher(raw).id
    assert cipher.load("", {}) is PLAIN


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33, b"zz" * 32, base64.b64encode(b"k" * 16)])
def test_what_is_no_key_is_said(tmp_path, content):
    """With how to make one, and without what was there; and so is a file that is not there."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(BadConfig, match="holds no key") as caught:
        cipher.load(str(tmp_path / "key"), {})
    assert not content or content.decode() not in caught.value.sentence()
    with pytest.raises(BadConfig, match="cannot be read"):
        cipher.load(str(tmp_path / "none"), {})


# encrypted rows


def test_with_a_key_no_text_is_on_the_disk(store, tmp_path):
    """Of calls, groups, answers, errors, scores and skipped lines; and all of it is there to be read."""
    samples, results, key = filled(store, Ring(KEY))
    assert held(tmp_path, WORD, GROUP, SAID) == set()
    assert [sample.request for sample in samples.get("t", ["s1"]).values()] == [call(1).request]
    assert samples.outlines("t")[0].group == GROUP
    assert results.answers("t", key)["s0"].answer == Answer(SAID)
    assert results.answers("t", key)["s1"].error == f"{SAID} is too long"
    assert results.scores("t", INCUMBENT, "d")["s0"] == Score(0.5, {"said": SAID}, SAID)
    assert list(samples.skipped("i1")) == [Unusable(7, f"has an unknown field {WORD}")]


def test_without_a_key_they_are_as_before(store, tmp_path):
    """As they are."""
    filled(store, Ring())
    assert held(tmp_path, WORD, GROUP, SAID) == {WORD, GROUP, SAID}


def test_the_same_question_is_known_again(store):
    """By its keyed digest: it is kept once, and the second answer is the first one's rerun."""
    samples, _, _ = filled(store, Ring(KEY))
    again = msgspec.structs.replace(call(1), id="other", answer=Answer("else"))
    kept = samples.keep("t", [again, call(9)])
    assert (kept.kept, len(kept.duplicates)) == (1, 1)
    assert samples.get("t", ["s1"])["s1"].rerun == Answer("else")
    with store.reader() as connection:
        digests = connection.execute(text("SELECT request FROM samples")).scalars().all()
    assert all(digest.startswith("hmac-sha256:") for digest in digests)


@pytest.mark.parametrize("ring", [Ring(), Ring(OTHER)], ids=["missing", "wrong"])
def test_a_missing_or_wrong_key_is_said_and_loses_nothing(store, tmp_path, ring):
    """Whatever is read or written, the error names the key that is needed, and every byte stays."""
    samples, results, key = filled(store, Ring(KEY))
    store.scrub()
    before = (tmp_path / "traffic.db").read_bytes()
    bad, worse = Samples(store, ring), Results(store, ring)
    of = Import("i1", "t", "f", "freehold", NOW, "me")
    for attempt in (
        lambda: bad.get("t", ["s1"]), lambda: bad.outlines("t"), lambda: list(bad.of_split(parse(TASK, "t"))),
        lambda: bad.keep("t", [call(50)]), lambda: bad.add(of, [Placed(1, call(51))], line=1), bad.ready,
        lambda: list(bad.skipped("i1")), lambda: worse.answers("t", key), lambda: worse.scores("t", key, "d"),
        lambda: worse.put_answers("t", key, [Replayed("s1", Answer("x"))]), lambda: list(bad.reseal()),
        lambda: worse.put_scores("t", key, "d", {"s1": Score(1.0)}),
    ):  # fmt: skip
        with pytest.raises(WrongKey, match=f"encrypted with the key {KEY.id}, and .*Nothing was changed"):
            attempt()
    store.scrub()
    assert (tmp_path / "traffic.db").read_bytes() == before
    assert len(samples.get("t", ["s0", "s1", "s2"])) == 3 and len(results.answers("t", key)) == 3


def test_a_row_in_anothers_place_does_not_open(store):
    """Exchanged with sqlite3, both are found out."""
    samples, _, _ = filled(store, Ring(KEY))
    with store.write() as connection:
        connection.execute(
            text("UPDATE samples SET content = (SELECT content FROM samples WHERE id = 's2') WHERE id = 's1'")
        )
    with pytest.raises(WrongKey, match="'t s1' was changed"):
        samples.get("t", ["s1"])


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4, unique=True))
def test_any_text_comes_back(tmp_path_factory, texts):
    """Whatever it holds: as a question, as a group, as an error."""
    with contextlib.closing(Store(tmp_path_factory.mktemp("any") / "traffic.db", TRAFFIC)) as store:
        samples = Samples(store, Ring(KEY))
        calls = [Sample(f"s{n}", {"m": one}, answer=Answer(one), group=one or "g") for n, one in enumerate(texts)]
        samples.keep("t", calls)
        assert samples.get("t", [one.id for one in calls]) == {one.id: one for one in calls}
        assert {one.id: one.group for one in samples.outlines("t")} == {one.id: one.group for one in calls}


def test_a_home_is_encrypted_while_it_is_used(store, tmp_path):
    """What is plain, what comes meanwhile and what is done already stand side by side; a question is still known."""
    plain, _, key = filled(store, Ring())
    ring = Ring(KEY)
    samples, results = Samples(store, ring), Results(store, ring)
    assert samples.unsealed() == 3
    assert samples.keep("t", [msgspec.structs.replace(call(0), id="new"), call(7)]).kept == 1
    with pytest.raises(WrongKey):
        plain.keep("t", [call(8)])  # by whoever has no key
    assert sum(samples.reseal()) + sum(results.reseal()) == 3 - 1 + 1 + 3 + 6  # s0 was written anew with its rerun
    store.rewrite()
    assert held(tmp_path, WORD, GROUP, SAID) == set() and samples.unsealed() == 0
    assert len(samples.outlines("t")) == 4 and len(results.answers("t", key)) == 3
    assert samples.keep("t", [msgspec.structs.replace(call(2), id="again")]).duplicates


def test_keys_are_exchanged_and_taken_off(store, tmp_path):
    """With the old one at hand; without it nothing is touched."""
    filled(store, Ring(KEY))
    samples, results = Samples(store, Ring(OTHER, [KEY])), Results(store, Ring(OTHER, [KEY]))
    with pytest.raises(WrongKey):
        samples.keep("t", [call(5)])  # not before it is taken
    samples.take_key()
    assert sum(samples.reseal()) == 4 and sum(results.reseal()) == 9
    assert Samples(store, Ring(OTHER)).get("t", ["s1"])["s1"] == call(1)
    off = Ring(PLAIN, [OTHER])
    Samples(store, off).take_key()
    assert sum(Samples(store, off).reseal()) + sum(Results(store, off).reseal()) == 13
    assert Samples(store).get("t", ["s1"])["s1"] == call(1) and held(tmp_path, WORD, GROUP, SAID)
    assert Samples(store).keep("t", [call(1)]).duplicates


# time, and wishes


@pytest.fixture
def shelf(store, tmp_path):
    house = Store(tmp_path / "house.db")
    ring = Ring(KEY)
    yield Shelf(store, Samples(store, ring), Results(store, ring), Tasks(tmp_path / "tasks"), Ledger(house), 30)
    house.close()


def add(shelf: Shelf, tmp_path: Path, name: str, days: int | None) -> None:
    more = f"[retention]\ndays = {days}\n" if days is not None else ""
    path = tmp_path / f"{name}.toml"
    path.write_text(f'name = "{name}"\nmargin = 0.1\n{more}[scorer]\nkind = "exact"\n')
    shelf.tasks.add(path, replace=True)


def test_calls_expire_by_their_tasks_days(shelf, tmp_path):
    """As the task says, or as the house does; 0 keeps them; one whose task's file is gone has the house's days."""
    for name, days in (("short", 5), ("long", None), ("ever", 0)):
        add(shelf, tmp_path, name, days)
    for task in ("short", "long", "ever", "orphan"):
        shelf.samples.keep(task, [call(age, at=NOW - age * DAY) for age in (1, 10, 40)])
    gone = expire(shelf, actor="me", now=NOW)
    assert {one.task: one.calls for one in gone} == {"short": 2, "long": 1, "orphan": 1}
    assert {task: len(shelf.samples.outlines(task)) for task in ("short", "long", "ever", "orphan")} == {
        "short": 1, "long": 2, "ever": 3, "orphan": 2,
    }  # fmt: skip
    assert expire(shelf, actor="me", now=NOW) == []
    assert {span.task: span.days for span in spans(shelf)} == {"short": 5, "long": 30, "ever": 0, "orphan": 30}


def test_calls_of_a_task_whose_file_cannot_be_read_are_kept(shelf, tmp_path):
    """Nobody can tell for how long; the others go, and it is said."""
    for name in ("good", "bad"):
        add(shelf, tmp_path, name, 5)
        shelf.samples.keep(name, [call(age, at=NOW - age * DAY) for age in (1, 10)])
    (shelf.tasks.folder("bad") / "task.toml").write_text("days = [")
    with pytest.raises(BadTask, match="The file of bad cannot be read"):
        expire(shelf, actor="me", now=NOW)
    assert [len(shelf.samples.outlines(task)) for task in ("good", "bad")] == [1, 2]
    assert {span.task: span.days for span in spans(shelf)} == {"good": 5, "bad": None}


def test_imported_calls_are_as_old_as_their_import(shelf):
    """However old they say they are, or if they do not say."""
    of = Import("i1", "t", "f", "freehold", NOW - 20 * DAY, "me")
    shelf.samples.begin(of)
    placed = [Placed(1, call(1, at=1e9)), Placed(2, call(2, at=5.0))]
    shelf.samples.add(of, placed, [Unusable(3, "odd")], line=3)
    assert expire(shelf, actor="me", now=NOW) == []
    assert [span.oldest for span in spans(shelf)] == [NOW - 20 * DAY]
    assert [one.calls for one in expire(shelf, actor="me", now=NOW + 11 * DAY)] == [2]
    assert list(shelf.samples.skipped("i1")) == [] and len(shelf.samples.imports("t")) == 1


def test_what_was_made_of_them_goes_with_them(shelf, tmp_path):
    """Answers, scores and details; nothing of it is in the file or its log; what is younger stays."""
    samples, results, key = filled(shelf.store, Ring(KEY), at=NOW - 31 * DAY)
    samples.keep("t", [call(9)])
    (gone,) = expire(shelf, actor="me", now=NOW)
    assert (gone.calls, gone.answers) == (3, 3)
    assert results.answers("t", key) == {} == results.scores("t", key, "d") == results.scores("t", INCUMBENT, "d")
    assert [one.id for one in samples.outlines("t")] == ["s9"]


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        (Wish(task="a"), {"b": {"x", "y", "old"}}),
        (Wish(caller="x"), {"a": {"y", "old"}, "b": {"y", "old"}}),
        (Wish(before=1.5e9), {"a": {"x", "y"}, "b": {"x", "y"}}),
        (Wish("b", "old", 1.5e9), {"a": {"x", "y", "old"}, "b": {"x", "y"}}),
    ],
)
def test_a_wish_takes_what_it_means_alone(shelf, wish, left):
    """By task, by caller over all tasks, by time, and all three; it was counted before."""
    for task in ("a", "b"):
        calls = [
            call(n, caller=caller, at=1e9 if caller == "old" else NOW) for n, caller in enumerate(["x", "y", "old"])
        ]
        shelf.samples.keep(task, calls)
    counted = retention.counted(shelf, wish)
    gone = erase(shelf, wish, actor="me")
    assert [(one.task, one.calls) for one in gone] == [(one.task, one.calls) for one in counted] != []
    tasks = {task: parse(TASK.replace(b'"t"', f'"{task}"'.encode()), "t") for task in shelf.samples.counts()}
    found = {name: {one.caller for one in shelf.samples.of_split(task)} for name, task in tasks.items()}
    assert found == left
    assert shelf.ledger.verify().holds


def test_an_erasure_is_an_event_without_text(shelf):
    """With counts and salted hashes, by which whoever knows the calls finds them again; two of the same differ."""
    shelf.samples.keep("t", [call(1, caller="anna"), call(2, caller="anna"), call(3)])
    erase(shelf, Wish("t", "anna"), actor="me")
    shelf.samples.keep("t", [call(1, caller="anna"), call(2, caller="anna")])
    erase(shelf, Wish("t", "anna"), actor="me")
    first, second = shelf.ledger.events()
    assert (first.act, first.subject, first.actor, first.detail["calls"]) == ("traffic.erase", "t", "me", 2)
    salt = first.detail["salt"]
    assert first.detail["ids"] == salted(salt, ["s1", "s2"]) and first.detail["caller"] == salted(salt, ["anna"])
    assert first.detail["ids"] != second.detail["ids"] and "anna" not in str(first.detail)
    assert shelf.ledger.verify().holds


def test_nothing_goes_that_cannot_be_accounted_for(shelf, monkeypatch):
    """Where the chain cannot be written, the calls stay."""
    shelf.samples.keep("t", [call(1)])
    monkeypatch.setattr(shelf.ledger, "record", lambda *_, **__: 1 / 0)
    for attempt in (lambda: erase(shelf, Wish("t"), actor="me"), lambda: expire(shelf, actor="me", now=NOW + 99 * DAY)):
        with pytest.raises(ZeroDivisionError):
            attempt()
    assert len(shelf.samples.outlines("t")) == 1


def test_the_server_says_what_goes_wrong_and_tries_again(shelf):
    """A missing key, a full disk: the sentence is in the status, and nothing raises."""
    found = [WrongKey("no key"), OSError("odd"), shelf, None]

    def give():
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    runs = retention.Retention(give)
    runs.run()
    assert runs.facts()["failing"] == "no key"
    runs.run()
    assert runs.failing == "An unexpected fault, OSError: odd."
    shelf.samples.keep("t", [call(1, at=1e9)])
    runs.run()
    assert runs.failing == "" and runs.facts()["erased"] == [{"task": "t", "calls": 1, "answers": 0}]
    runs.run()
    assert runs.at > 0


def test_days_that_cannot_be():
    """Less than none, or more than a century."""
    for days in (-1, 36_501):
        with pytest.raises(BadTask, match="may be 0 to 36,500"):
            parse(TASK + f"[retention]\ndays = {days}\n".encode(), "t")
    assert parse(TASK + b"[retention]\ndays = 7\n", "t").days == 7 and parse(TASK, "t").days is None


# the commands


@pytest.fixture
def freehold(tmp_path, capsys, monkeypatch):
    """A command line on a home with recorded calls, plain ones."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text("")
    (home / "tasks").mkdir()
    with parts(Home(home, create=False), Settings(traffic=TrafficSettings())) as opened:
        filled(opened.traffic, Ring())

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--home", str(home)])
        out, err = capsys.readouterr()
        return code, out, err

    run.home = home
    monkeypatch.delenv(cipher.VARIABLE, raising=False)
    return run


def test_the_commands_from_encrypting_to_erasing(freehold, tmp_path, monkeypatch):
    """A first key, a wrong one, a new one, none; each in the file as it should be, and the chain holds."""
    assert "No key is given" in freehold("traffic", "encrypt")[2]
    monkeypatch.setenv(cipher.VARIABLE, (b"k" * 32).hex())
    assert held(freehold.home, WORD, GROUP, SAID) == {WORD, GROUP, SAID}
    code, out, _ = freehold("traffic", "encrypt")
    assert code == 0 and f"encrypted with the key {KEY.id}" in out
    assert held(freehold.home, WORD, GROUP, SAID) == set()
    monkeypatch.delenv(cipher.VARIABLE)
    code, _, err = freehold("traffic", "erase", "t")
    assert code == 2 and "3 calls would be removed" in err  # what needs no text needs no key
    monkeypatch.setenv(cipher.VARIABLE, (b"o" * 32).hex())
    code, _, err = freehold("traffic", "encrypt")
    assert code == 2 and f"encrypted with the key {KEY.id}" in err
    (tmp_path / "old").write_bytes(b"k" * 32)
    assert freehold("traffic", "encrypt", "--old-key-file", str(tmp_path / "old"))[0] == 0
    with parts(Home(freehold.home, create=False), Settings()) as opened:
        assert opened.samples.get("t", ["s1"])["s1"] == call(1)
    assert json.loads(freehold("traffic", "encrypt", "--off", "--json")[1])["key"] == ""
    assert held(freehold.home, WORD, GROUP, SAID) == {WORD, GROUP, SAID}
    code, out, _ = freehold("traffic", "erase", "--caller", "desk", "--yes")
    assert code == 0 and "3 calls of t are removed, with 3 answers of candidates." in out
    assert freehold("traffic", "erase", "t", "--yes")[0] == 0
    assert held(freehold.home, WORD, GROUP, SAID) == set()
    assert freehold("audit", "verify")[0] == 0


def test_an_erasure_needs_to_know_what(freehold):
    """And says what would go before it does."""
    assert "Nothing says which calls" in freehold("traffic", "erase", "--yes")[2]
    assert "Nothing is recorded of a task 'u'" in freehold("traffic", "erase", "u", "--yes")[2]
    assert "Two tasks are named" in freehold("traffic", "erase", "t", "--task", "u", "--yes")[2]
    code, out, _ = freehold("traffic", "erase", "--before", "2099-01-01", "--json")
    assert code == 2 and json.loads(out) == [{"task": "t", "calls": 3, "answers": 3}]
    assert "There are no such calls" in freehold("traffic", "erase", "--caller", "nobody", "--yes")[1]


def test_expire_shows_and_does(freehold):
    """How long each task's calls are kept, and those that are due go."""
    code, out, _ = freehold("traffic", "expire", "--show")
    assert code == 0 and "365 days" in out
    assert json.loads(freehold("traffic", "expire", "--json")[1]) == []
    (freehold.home / "freehold.toml").write_text("[traffic]\ndays = 1\n")
    with contextlib.closing(sqlite3.connect(freehold.home / "traffic.db")) as connection, connection:
        connection.execute("UPDATE samples SET at = 1e9")
    assert "3 calls of t were due and are removed" in freehold("traffic", "expire")[1]
    assert freehold("audit", "verify")[0] == 0


# the server


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_model):
    """A server with a key, which captures, and whose home held old calls when it started."""
    folder = tmp_path_factory.mktemp("retention")
    home = folder / "home"
    home.mkdir()
    (folder / "key").write_bytes(b"k" * 32)
    (home / "freehold.toml").write_text(f'[traffic]\ndays = 9\nkey_file = "{folder / "key"}"\n')
    for name in ("t", "old"):
        alias = 'alias = "tiny"\n[capture]\non = true\n' if name == "t" else ""
        (folder / "task.toml").write_text(f'name = "{name}"\nmargin = 0.1\nscorer = {{ kind = "exact" }}\n{alias}')
        Tasks(home / "tasks").add(folder / "task.toml")
    with contextlib.closing(Store(home / "traffic.db", TRAFFIC)) as store:
        Samples(store, Ring(KEY)).keep("old", [call(1, at=time.time() - 10 * DAY), call(2, at=time.time())])
    server = Running(home, "--engine", "fake", "--model", str(tiny_model))
    yield server
    server.stop()


def kept(server: Running) -> dict:
    return json.loads(get(server, "/admin/traffic", server.key)[2])


def test_a_server_captures_encrypted_and_erases_at_its_start(site):
    """What was due is gone; what is captured is in no byte of the file, and counted."""
    tasks = until(lambda: [one for one in kept(site)["tasks"] if one["task"] == "old" and one["calls"] == 1])
    assert tasks[0]["days"] == 9 and kept(site)["key"] == KEY.id
    assert kept(site)["expired"]["erased"] == [{"task": "old", "calls": 1, "answers": 0}]
    assert ask(site, "/v1/chat/completions", chat(f"tell of {WORD}"))[0] == 200
    until(lambda: [one for one in kept(site)["tasks"] if one["task"] == "t" and one["calls"] >= 1])
    assert held(site.home, WORD, GROUP, SAID) == set()


def test_an_operator_counts_erases_and_expires_over_the_wire(site):
    """As the commands do; a member may not; a wrong date and a wish for everything are refused; the chain holds."""
    ask(site, "/v1/chat/completions", chat("to be erased"))
    until(lambda: [one for one in kept(site)["tasks"] if one["task"] == "t" and one["calls"] >= 1])
    member = site.cli("keys", "create", "somebody", "--role", "member", "--json")
    key = next(word for word in member.stdout.replace('"', " ").split() if word.startswith("fh_"))
    path = "/admin/traffic/erase"
    assert ask(site, path, {"task": "t", "confirm": True}, key)[0] == 403
    assert ask(site, path, {"before": "soon"})[0] == 400 and ask(site, path, {})[0] == 409
    status, _, body = ask(site, path, {"task": "t", "caller": "admin"})
    assert status == 200 and json.loads(body)["erased"] is False and json.loads(body)["calls"][0]["calls"] >= 1
    assert json.loads(ask(site, path, {"task": "t", "caller": "admin", "confirm": True})[2])["erased"] is True
    assert all(one["calls"] == 0 for one in kept(site)["tasks"] if one["task"] == "t")
    assert ask(site, "/admin/traffic/expire", {})[0] == 200
    assert site.cli("audit", "verify").returncode == 0


def test_a_server_with_another_key_does_not_start(site, tmp_path):
    """The sentence says which key is needed; nothing was changed."""
    site.stop()
    done = cli("up", "--port", "0", "--engine", "fake", home=site.home, env={cipher.VARIABLE: "ab" * 32})
    assert done.returncode == 2 and f"encrypted with the key {KEY.id}" in done.stderr
