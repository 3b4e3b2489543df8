"""Replay: every recorded call is asked once through the running server, and what came of it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from harness import MODEL, cli, environment, serving, until
from sqlalchemy import event

from freehold import replay, said
from freehold.errors import BadModel, CannotDo, StoreFailed
from freehold.home import Home, Running
from freehold.replay.asker import NotAnswered, Told
from freehold.replay.run import KEEP_CALLS
from freehold.results import INCUMBENT, RERUN, Results, key_of
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.task import Tasks
from freehold.types import Answer, Candidate, Kind, Replayed, Sample, Score, ToolCall, Usage

TOML = """
name = "{name}"
margin = 0.03
[scorer]
kind = "exact"
[splits]
tuning = 0.0
validation = 0.5
"""
KEY = key_of("tiny", "sha256:1", {"seed": 0}, "test")
EIGHT = Answer("word " * 8)  # what the pretended engine says unless it is told otherwise


def sample(number: int, *, kind: Kind = Kind.CHAT, fields: dict | None = None, **script) -> Sample:
    """A call for the pretended engine, which does what the script orders."""
    text = json.dumps(script | {"call": number})
    bodies = {
        Kind.CHAT: {"messages": [{"role": "user", "content": text}]},
        Kind.MESSAGE: {"messages": [{"role": "user", "content": text}], "max_tokens": 50},
        Kind.COMPLETION: {"prompt": text},
        Kind.RESPONSE: {"input": text},
        Kind.EMBEDDING: {"input": text},
    }
    request = bodies[kind] | {"temperature": 0} | (fields or {})
    return Sample(f"s{number:03}", request, kind, Answer("word"), EIGHT, at=float(number), incumbent="big")


@contextlib.contextmanager
def traffic(home: Path):
    store = Store(home / "traffic.db", TRAFFIC)
    try:
        yield Samples(store), Results(store)
    finally:
        store.close()


def record(home: Path, name: str, samples: list[Sample]) -> str:
    """A task of the home with these calls, the earlier half of them for validation, the later to certify."""
    path = home.parent / f"{name}.toml"
    path.write_text(TOML.format(name=name))
    Tasks(home / "tasks").add(path)
    with traffic(home) as (kept, _):
        assert kept.keep(name, samples).kept == len(samples)
    return name


def kept(home: Path, task: str) -> dict[str, Replayed]:
    """The answers of the task's one candidate."""
    with traffic(home) as (_, results):
        found = results.candidates(task)
        assert len(found) < 2
        return results.answers(task, found[0].key) if found else {}


def replayed(server, task: str, *words: str, code: int = 0) -> dict:
    done = server.cli("replay", task, "--candidate", "tiny", "--json", *words)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if not code else {"said": done.stderr}


def ledger(home: Path) -> int:
    with contextlib.closing(sqlite3.connect(home / "freehold.db")) as connection:
        return connection.execute("SELECT count(*) FROM calls").fetchone()[0]


# the whole way, as a user goes it


def test_a_second_replay_costs_nothing(fake):
    """Each call is asked once; the second run says the same and reaches no engine."""
    task = record(fake.home, "twice", [sample(n) for n in range(20)])
    before = ledger(fake.home)
    first = replayed(fake, task)
    assert ledger(fake.home) == before + 20
    one = first["candidates"][0]
    assert one["made"] == 20 and one["totals"]["answered"] == 20 and one["totals"]["errors"] == {}
    assert one["totals"]["completion_tokens"] == 160 and one["totals"]["first_token_ms"][0] > 0
    second = replayed(fake, task)
    assert ledger(fake.home) == before + 20
    assert second["candidates"][0]["totals"] == one["totals"] and second["candidates"][0]["made"] == 0
    assert second["candidates"][0]["means"] == one["means"]


def test_another_seed_is_another_candidate(fake):
    """Its answers are asked for anew, and kept beside the others."""
    task = record(fake.home, "seeds", [sample(n) for n in range(4)])
    keys = [replayed(fake, task, "--seed", seed)["candidates"][0]["candidate"]["key"] for seed in ("1", "2")]
    with traffic(fake.home) as (_, results):
        assert {one.key for one in results.candidates(task)} == set(keys) and len(set(keys)) == 2
        assert {one.settings["seed"] for one in results.candidates(task)} == {1, 2}


def test_validation_is_scored_and_certification_is_not(fake):
    """Candidate and incumbent on the validation calls alone; the output says so of the others."""
    task = record(fake.home, "scored", [sample(n, tokens=8 if n % 2 else 3) for n in range(20)])
    found = replayed(fake, task)
    assert found["candidates"][0]["means"] == {
        "calls": 10, "candidate": 0.5, "incumbent": 0.0, "compared": 0, "agreement": None, "bare": 0,
    }  # fmt: skip
    with traffic(fake.home) as (_, results):
        key = results.candidates(task)[0].key
        digest = found["scorer"]["digest"]
        for of in (key, INCUMBENT):
            assert set(results.scores(task, of, digest)) == {f"s{n:03}" for n in range(10)}
    shown = fake.cli("replay", task, "--candidate", "tiny").stdout
    assert "10 certification calls are answered and not scored" in shown
    with traffic(fake.home) as (samples, _):  # no later change of the task makes a call certify whose score was seen
        assert samples.round(task) == 1
    assert "0.500" in shown and "0.000" in shown


def test_every_kind_of_call_is_asked_at_its_own_endpoint(fake):
    """Chat, completions, responses and messages are answered; embeddings have no answer in words and are not asked."""
    kinds = [Kind.CHAT, Kind.COMPLETION, Kind.RESPONSE, Kind.MESSAGE, Kind.EMBEDDING]
    task = record(fake.home, "kinds", [sample(n, kind=kind, first_ms=30) for n, kind in enumerate(kinds)])
    replayed(fake, task, "--max-tokens", "5")
    found = kept(fake.home, task)
    for number in range(4):
        assert found[f"s{number:03}"].answer == Answer("word " * 5), kinds[number]
        assert found[f"s{number:03}"].usage.completion == 5, kinds[number]
        assert found[f"s{number:03}"].total_ms > found[f"s{number:03}"].first_token_ms >= 30  # not of the opening event
    assert found["s004"].answer is None and found["s004"].error.startswith("unsupported:")
    with contextlib.closing(sqlite3.connect(fake.home / "freehold.db")) as connection:
        last = connection.execute("SELECT kind FROM calls ORDER BY opened_at DESC LIMIT 4").fetchall()
    assert {kind for (kind,) in last} == {kind.value for kind in kinds[:4]}


def test_errors_count_as_wrong_and_are_listed_apart(fake):
    """Too long, refused, failed, too slow: each by its name; what was refused is never asked again, what failed only
    when that is wanted."""
    samples = [
        sample(0),
        Sample("s001", {"messages": [{"role": "user", "content": "word " * 5000}]}, expected=EIGHT, at=1.0),
        sample(2, fields={"nonsense": 1}),
        sample(3, status=500),
        sample(4, first_ms=20_000),
        *[sample(n) for n in range(5, 10)],
    ]
    task = record(fake.home, "errors", samples)
    before = ledger(fake.home)
    one = replayed(fake, task, "--seconds", "2", "--at-once", "4")["candidates"][0]
    errors = {"context_length_exceeded": 1, "invalid_request": 1, "engine_failed": 1, "timed_out": 1}
    assert one["totals"]["errors"] == errors and one["totals"]["answered"] == 6
    assert one["means"] == one["means"] | {"calls": 5, "candidate": 0.2}
    assert ledger(fake.home) == before + 8 + 3 + 3  # what may pass was tried three times
    assert replayed(fake, task, "--retry-errors", "--seconds", "2")["candidates"][0]["made"] == 2
    assert "1 timed_out" in fake.cli("replay", task, "--candidate", "tiny").stdout


def test_a_replay_that_is_killed_goes_on_where_it_stopped(fake):
    """kill -9 at half: no finished call is asked again, but for those of the last second."""
    task = record(fake.home, "killed", [sample(n, first_ms=60) for n in range(60)])
    before = ledger(fake.home)
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", "replay", task, "--candidate", "tiny", "--home", str(fake.home)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: len(kept(fake.home, task)) >= 16, 60)
    process.kill()
    process.wait()
    half = kept(fake.home, task)
    assert 16 <= len(half) < 60
    one = replayed(fake, task)["candidates"][0]
    assert one["made"] == 60 - len(half) and one["totals"]["answered"] == 60
    whole = kept(fake.home, task)
    assert {id: whole[id] for id in half} == half
    assert ledger(fake.home) <= before + 60 + 16 + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_finished(fake, number):
    """Exit code 130, a sentence, and nothing lost; SIGTERM likewise."""
    task = record(fake.home, f"stopped-{number.value}", [sample(n, first_ms=100) for n in range(60)])
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", "replay", task, "--candidate", "tiny", "--home", str(fake.home)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: kept(fake.home, task), 60)
    process.send_signal(number)
    told = process.communicate(timeout=30)[1]
    there = len(kept(fake.home, task))
    assert process.returncode == 130, told
    assert f"{there} of 60 answers are kept" in told


def test_a_server_is_started_where_none_runs_and_stopped_again(tmp_path, tiny_model):
    """Its key is not shown; afterwards nobody serves from the home, also where the replay was killed."""
    home = tmp_path / "home"
    with serving(home, tiny_model):
        pass
    recent = [msgspec.structs.replace(sample(n, first_ms=300), at=time.time() - 9 + n) for n in range(8)]
    task = record(home, "alone", recent)  # a server erases old ones at its start
    words = ("replay", task, "--candidate", "tiny", "--engine", "fake", "--json")
    done = cli(*words, "--limit", "2", home=home)
    assert done.returncode == 0, done.stderr
    assert "one is started for this replay" in done.stderr and "fh_" not in done.stdout + done.stderr
    assert not (home / "running.json").exists() and len(kept(home, task)) == 2
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", *words, "--home", str(home)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    pid = until(lambda: (home / "running.json").exists() and Home(home, create=False).running().pid, 60)
    process.kill()
    process.wait()
    until(lambda: not Path(f"/proc/{pid}").exists() or not (home / "running.json").exists(), 60)
    assert "one is started" not in cli(*words, "--limit", "2", home=home).stderr  # nothing to ask, so no server


def test_a_server_that_stops_in_the_middle_is_said_and_nothing_is_lost(tmp_path, tiny_model):
    """Exit code 2; the answers so far are there, and none is an error."""
    home = tmp_path / "home"
    with serving(home, tiny_model) as server:
        task = record(home, "gone", [sample(n, first_ms=100) for n in range(60)])
        process = subprocess.Popen(
            [sys.executable, "-m", "freehold", "replay", task, "--candidate", "tiny", "--home", str(home)],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: kept(home, task), 60)
        os.kill(server.process.pid, signal.SIGKILL)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and "goes on where it stopped" in told
    assert kept(home, task) and not any(replayed.error for replayed in kept(home, task).values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", "--candidate", "tiny"], "no task nothing"),
        (["bad", "--candidate", "huge"], "no model 'huge'. There are: tiny"),
        (["bad", "--candidate", "tiny", "--split", "tuning"], "none of them for tuning"),
        (["bad", "--candidate", "tiny", "--set", "model=x"], "no setting of a request"),
        (["bad", "--candidate", "tiny", "--at-once", "0"], "no number from 1 on"),
        (["bad", "--candidate", "tiny", "--seconds", "nan"], "no number of seconds"),
    ],
)
def test_what_cannot_be_replayed_is_said(fake, words, said):
    """The thing, the reason, and what there is instead; exit code 2."""
    if not (fake.home / "tasks" / "bad").exists():
        record(fake.home, "bad", [sample(n) for n in range(4)])
    done = fake.cli("replay", *words)
    assert done.returncode == 2 and said in done.stderr


def test_a_server_with_other_settings_is_refused(tmp_path, tiny_model):
    """The key names the engine's settings; a server that runs with others would answer under a false name."""
    home = tmp_path / "home"
    with serving(home, tiny_model, env={"FREEHOLD_ENGINE_CONTEXT": "2048"}) as server:
        task = record(home, "other", [sample(1)])
        assert "context 2048" in replayed(server, task, code=2)["said"]
        assert kept(home, task) == {}


# one run, with an asker of our own


class Stub:
    """Answers as it is told: ``say`` gives the answer to the n-th question, or raises. ``digest`` is whose it says."""

    def __init__(self, say=lambda n: EIGHT, digest: str = "sha256:1", header: bool = True, seconds: float = 0.0):
        self.say, self.digest, self.header, self.seconds = say, digest, header, seconds
        self.asked: list[dict] = []
        self.at_once = self.most = self.others = 0

    async def ask(self, kind: Kind, body: dict) -> Told:
        self.asked.append(body)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            found = self.say(len(self.asked))
        finally:
            self.at_once -= 1
        return Told(found, Usage(1, 8), 1.0, 2.0, f"tiny@{self.digest}" if self.header else "")

    async def status(self) -> dict:
        return {"models": [{"name": "tiny", "digest": self.digest}], "engines": []}

    async def answering(self, model: str) -> int:
        return self.at_once + self.others


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "traffic.db", TRAFFIC)
    yield opened
    opened.close()


@pytest.fixture
def results(store):
    return Results(store)


def go(results: Results, stub: Stub, samples: list[Sample], *, at_once: int = 1) -> tuple[replay.Progress, Candidate]:
    candidate = results.candidate("tiny", "sha256:1", {"seed": 0}, "test")
    run = replay.Run(stub, results, "t", candidate, at_once=at_once)
    return asyncio.run(run.run(iter(samples), len(samples))), candidate


def refusal(status: int, code: str, retry_after: int | None = None):
    return NotAnswered(code, "No.", status=status, retry_after=retry_after)


def test_no_more_calls_are_in_hand_than_were_asked_for(results):
    """Four at once are four, and every call is asked once."""
    stub = Stub(seconds=0.005)
    progress, candidate = go(results, stub, [sample(n) for n in range(40)], at_once=4)
    assert stub.most == 4 and progress.done == len(stub.asked) == len(results.answers("t", candidate.key)) == 40


@pytest.mark.parametrize("calls", [KEEP_CALLS, 2 * KEEP_CALLS, 4 * KEEP_CALLS])
def test_a_run_ends_whose_last_answer_fills_what_is_kept_at_once(results, calls):
    """The keeper is woken and called off in the same moment, and must not wait for more."""
    progress, candidate = asyncio.run(asyncio.wait_for(_going(results, calls), 20))
    assert progress.done == len(results.answers("t", candidate.key)) == calls


async def _going(results: Results, calls: int) -> tuple[replay.Progress, Candidate]:
    candidate = results.candidate("tiny", "sha256:1", {"seed": 0}, "test")
    run = replay.Run(Stub(seconds=0.002), results, "t", candidate)
    return await run.run(iter([sample(n) for n in range(calls)]), calls), candidate


def test_it_is_noticed_when_others_call_the_same_model(results):
    """Their calls go through the engine with these, and may change what is said."""
    alone, stub = Stub(), Stub()
    stub.others = 2
    samples = [sample(n) for n in range(4)]
    assert go(results, alone, samples)[0].shared == 0
    assert go(results, stub, samples)[0].shared > 0


def test_what_has_no_room_is_asked_again_when_the_server_says(results):
    """Retry-After is waited for; then the answer is like any other."""

    def say(n):
        if n == 1:
            raise refusal(429, "queue_full", 1)
        return EIGHT

    began = time.monotonic()
    progress, candidate = go(results, Stub(say), [sample(1)])
    assert time.monotonic() - began >= 1 and progress.errors == {}
    assert results.answers("t", candidate.key)["s001"].answer == EIGHT


@pytest.mark.parametrize(("header", "left"), [(True, 4), (False, 0)])
def test_another_models_answer_ends_the_run(results, header, left):
    """None of its answers is kept; where only the server's status says who answers, nor is what came just before."""
    stub = Stub(header=header)

    def say(n):
        stub.digest = "sha256:1" if n < 5 else "sha256:2"
        return EIGHT

    stub.say = say
    with pytest.raises(BadModel, match="is sha256:2 by now"):
        go(results, stub, [sample(n) for n in range(40)])
    assert len(results.answers("t", KEY)) == left


def test_nothing_more_is_tried_when_nothing_is_answered(results):
    """Twenty failures in a row end the run; they are kept as errors which another run may ask again."""

    def say(n):
        raise refusal(429, "rate_limit_exceeded", 0)

    with pytest.raises(CannotDo, match="20 calls in a row failed"):
        go(results, Stub(say), [sample(n) for n in range(40)])
    found = results.answers("t", KEY)
    assert found and all(map(replay.may_pass, found.values()))


def test_an_engine_with_other_settings_is_noticed_when_it_comes_up(results):
    """Before the first answer is kept."""

    def check(status):
        if stub.asked:
            raise CannotDo("The server runs something else.")

    stub = Stub()
    candidate = results.candidate("tiny", "sha256:1", {"seed": 0}, "test")
    with pytest.raises(CannotDo, match="something else"):
        asyncio.run(replay.Run(stub, results, "t", candidate, check=check).run(iter([sample(1)]), 1))
    assert results.answers("t", KEY) == {}


def test_a_key_that_is_refused_ends_the_run(results):
    """It would be refused for every call."""

    def say(n):
        raise refusal(403, "permission_denied")

    stub = Stub(say)
    with pytest.raises(CannotDo, match="refuses every such call"):
        go(results, stub, [sample(n) for n in range(5)])
    assert len(stub.asked) == 1


def test_a_disk_that_fills_loses_nothing_and_can_be_resumed(results, store):
    """A sentence; what was kept before is there; with room again, the rest is asked."""
    samples = [sample(n) for n in range(48)]
    go(results, Stub(), samples[:8])
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    limits = [pages]
    event.listen(store.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {limits[0]}"))
    stub = Stub(lambda n: Answer("y" * 9000))
    candidate = Candidate("tiny", "sha256:1", {"seed": 0}, "test", KEY)
    with pytest.raises(StoreFailed, match="full") as told:
        asyncio.run(replay.Run(stub, results, "t", candidate).run(iter(samples[8:]), 40))
    assert "goes on where it stopped" in told.value.hint and len(stub.asked) < 40
    assert set(results.answers("t", candidate.key)) == {one.id for one in samples[:8]}
    limits[0] = 1 << 30
    asyncio.run(replay.Run(stub, results, "t", candidate).run(iter(samples[8:]), 40))
    assert len(results.answers("t", candidate.key)) == 48


def test_settings_go_where_each_endpoint_has_them():
    """The longest answer has three names, and two endpoints take no seed."""
    settings = {"seed": 7, "max_tokens": 9, "temperature": 0.5}
    bodies = {
        kind: replay.body(sample(1, kind=kind), "m", settings) for kind in (Kind.CHAT, Kind.RESPONSE, Kind.MESSAGE)
    }
    assert bodies[Kind.CHAT]["max_tokens"] == bodies[Kind.MESSAGE]["max_tokens"] == 9
    assert bodies[Kind.RESPONSE]["max_output_tokens"] == 9 and "max_tokens" not in bodies[Kind.RESPONSE]
    assert bodies[Kind.CHAT]["seed"] == 7 and not any("seed" in bodies[k] for k in (Kind.RESPONSE, Kind.MESSAGE))
    both = replay.body(
        sample(1, fields={"max_completion_tokens": 3, "stream_options": {}, "model": "b"}), "m", settings
    )
    assert both["model"] == "m" and {"max_completion_tokens", "stream_options"}.isdisjoint(both)


# scores


class Half:
    """Gives 1 to an answer that is the reference, and half of that to any other."""

    digest, measures, compares, asks = "half", "Equal or not.", True, False

    def score(self, sample: Sample, answer: Answer | None, against: Answer) -> Score:
        return Score(1.0 if answer == against else 0.5)


def test_what_has_an_expected_answer_is_scored_on_both_sides_and_the_rest_is_agreement(results):
    """Incumbent and rerun where there is something to hold them against; an error is 0; nothing to compare is said."""
    right, other = Answer("right"), Answer("other")
    samples = [
        Sample("a", {}, answer=other, expected=right, rerun=right),
        Sample("b", {}, answer=right, expected=right),
        Sample("c", {}, answer=right),
        Sample("d", {}),
        Sample("e", {}, answer=right),
    ]
    results.put_answers("t", "k", [Replayed(id, right) for id in "acd"] + [Replayed("b", None, "timed_out: x")])
    means = replay.grade("t", "k", Half(), samples, results)
    assert means == replay.Means(2, 0.5, 0.75, 1, 1.0, 1)
    assert {id: score.value for id, score in results.scores("t", "k", "half").items()} == {"a": 1, "b": 0, "c": 1}
    assert {id: score.value for id, score in results.scores("t", INCUMBENT, "half").items()} == {"a": 0.5, "b": 1}
    assert set(results.scores("t", RERUN, "half")) == {"a"}
    assert results.scores("t", "k", "half")["b"].error == "timed_out: x"
    results.put_answers("t", "k", [Replayed("b", right)])
    assert replay.grade("t", "k", Half(), samples, results).candidate == 1.0


def test_times_are_values_that_were_measured():
    """Median and 95th percentile by nearest rank, of the answered calls alone."""
    found = {str(n): Replayed(str(n), EIGHT, first_token_ms=float(n), total_ms=n * 10.0) for n in range(1, 21)}
    found["x"] = Replayed("x", None, "timed_out: x", total_ms=1e6)
    totals = replay.totals(found, found)
    assert totals.first_token_ms == (10.0, 19.0) and totals.total_ms == (100.0, 190.0)
    assert totals.errors == {"timed_out": 1} and totals.calls == 21 and totals.answered == 20
    assert replay.totals({}, []).total_ms is None


# what was said


@pytest.mark.parametrize(
    ("kind", "document", "answer"),
    [
        (Kind.CHAT, {"choices": [{"message": {"content": "hi"}}, {"message": {"content": "no"}}]}, Answer("hi")),
        (Kind.CHAT, {"choices": [{"message": {"content": None, "tool_calls": [
            {"function": {"name": "f", "arguments": '{"a": 1}'}}]}}]}, Answer("", (ToolCall("f", '{"a": 1}'),))),
        (Kind.CHAT, {"choices": [{"message": {"content": [{"type": "text", "text": "hi"}]}}]}, Answer("hi")),
        (Kind.COMPLETION, {"choices": [{"text": "on"}]}, Answer("on")),
        (Kind.RESPONSE, {"output": [{"type": "reasoning"},
            {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
            {"type": "function_call", "name": "f", "arguments": "{}"}]}, Answer("hi", (ToolCall("f", "{}"),))),
        (Kind.MESSAGE, {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"},
            {"type": "tool_use", "name": "f", "input": {"a": 1}}]}, Answer("hi", (ToolCall("f", '{"a":1}'),))),
    ],
)  # fmt: skip
def test_an_answer_is_read_out_of_each_endpoints_document(kind, document, answer):
    """Text, tool calls, the first of several choices; no thoughts."""
    assert said.answer(kind, document) == answer


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (Kind.CHAT, {"choices": "x"}),
        (Kind.CHAT, {"choices": [{"message": {"tool_calls": [{"function": 3}]}}]}),
        (Kind.MESSAGE, [1, 2]),
        (Kind.RESPONSE, None),
        (Kind.EMBEDDING, {}),
    ],
)
def test_what_has_another_form_is_no_answer(kind, document):
    """Rather than an empty one."""
    with pytest.raises(said.Unfit):
        said.answer(kind, document)


def test_the_asker_tells_a_server_that_is_not_there(tmp_path):
    """As a failure that may pass, of a server that was not reached."""
    asker = replay.Asker(Running(1, "", str(tmp_path / "none.sock"), "k"))
    with pytest.raises(NotAnswered) as told:
        asyncio.run(asker.ask(Kind.CHAT, {"model": "m", "messages": []}))
    assert told.value.code == "unreachable" and told.value.passing and told.value.status == 0


# the real engine


@pytest.mark.timeout(400)
def test_an_interrupted_replay_says_the_same_as_an_unbroken_one(real):
    """Byte for byte, one call at a time, whatever the engine had in mind from before."""

    def asked(n: int) -> Sample:
        request = {"messages": [{"role": "user", "content": f"Name {n} things that are red."}], "max_tokens": 6}
        return Sample(f"r{n}", request, expected=Answer("x"), at=float(n))

    names = [record(real.home, name, [asked(n) for n in range(2, 5)]) for name in ("whole", "broken")]
    for name, *more in ((names[0],), (names[1], "--limit", "1"), (names[1],)):
        done = real.cli("replay", name, "--candidate", MODEL, "--json", *more, timeout=110)
        assert done.returncode == 0, done.stderr
    whole, broken = ({id: one.answer for id, one in kept(real.home, name).items()} for name in names)
    assert len(whole) == 3 and all(answer.text for answer in whole.values())
    assert whole == broken
