"""Capture: an application's calls are recorded for the tasks that opted in, and the application notices nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import threading
import time
from pathlib import Path

import msgspec
import pytest
from harness import Running, Wire, ask, chat, cli, get, post, serving, until
from sqlalchemy import event
from upstream import KEY, Upstream

from freehold.auth import OWNER
from freehold.errors import StoreFailed
from freehold.results import INCUMBENT, Results
from freehold.said import Unfit
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.task import Tasks
from freehold.traffic import capture, heard
from freehold.traffic.capture import Capture
from freehold.types import Answer, Caller, Kind, Replayed, Request, Role, Sample, Score, Split, Task, ToolCall

CHAT = "/v1/chat/completions"
MODELS = [f"m{number}" for number in range(20)]
EIGHT = Answer("word " * 8)
THERE = Answer("over there")
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"order": 7}'}}


def add(home: Path, name: str, alias: str, *, on: bool = True, callers: tuple[str, ...] = (), more: str = "") -> None:
    """Keep a task, over one of the same name."""
    path = home.parent / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nalias = "{alias}"\nmargin = 0.1\nterms = "terms of {name}"\n{more}\n'
        '[scorer]\nkind = "exact"\n'
        f"[capture]\non = {json.dumps(on)}\ncallers = {json.dumps(callers)}\n"
    )
    Tasks(home / "tasks").add(path, replace=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_model):
    """A gateway with a local model, and an upstream that runs a good many."""
    folder = tmp_path_factory.mktemp("site")
    far, key, home = Upstream(), folder / "key", folder / "home"
    key.write_text(KEY)
    home.mkdir()
    names = ", ".join(f'{name} = "there"' for name in MODELS)
    (home / "freehold.toml").write_text(
        f'upstream_hosts = ["{far.host}"]\n[upstreams.far]\nurl = "{far.url}"\nkey_file = "{key}"\n'
        f"names = {{ {names} }}\nconnect_seconds = 1\nsilence_seconds = 1\nretries = 0\nbreaker_failures = 1000\n"
    )
    add(home, "local", "tiny")
    for number, name in enumerate(MODELS[:10]):
        add(home, f"t{number}", name)
    server = Running(home, "--engine", "fake", "--model", str(tiny_model))
    server.far = far
    yield server
    server.stop()
    far.close()


def recorded(home: Path, task: str) -> list[Sample]:
    """A task's calls, by time, read past the server."""
    if not (home / "traffic.db").is_file():
        return []
    with contextlib.closing(sqlite3.connect(home / "traffic.db")) as connection:
        try:
            rows = connection.execute("SELECT content FROM samples WHERE task = ? ORDER BY at, id", (task,)).fetchall()
        except sqlite3.OperationalError:  # its tables are being made
            return []
    return [msgspec.json.decode(row[0], type=Sample) for row in rows]


def after(server: Running, task: str, count: int) -> list[Sample]:
    """A task's calls, as soon as there are so many."""
    return until(lambda: len(found := recorded(server.home, task)) >= count and found)


def state(server: Running) -> dict:
    return json.loads(get(server, "/admin/status", server.key)[2])["capture"]


def far(model: str, text: str = "hi", **fields) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | fields


# what is recorded


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", sorted(heard.KINDS), ids=str)
def test_an_answer_of_this_house_is_recorded(site, kind, stream):
    """Of every endpoint, whole and streamed, with what was asked, who asked, under which terms and when."""
    text = f"<{kind.value}> {stream}"
    bodies = {Kind.CHAT: far("tiny", text), Kind.MESSAGE: far("tiny", text, max_tokens=50)}
    bodies |= {Kind.COMPLETION: {"model": "tiny", "prompt": text}, Kind.RESPONSE: {"model": "tiny", "input": text}}
    path = {Kind.CHAT: CHAT}.get(kind, f"/v1/{kind.value}")
    begun = time.time()
    assert ask(site, path, bodies[kind] | {"stream": stream})[0] == 200
    found = until(lambda: [one for one in recorded(site.home, "local") if text in json.dumps(one.request)])[0]
    call = site.calls(1)[0]
    assert (found.id, found.kind, found.answer, found.caller) == (call["id"], kind, EIGHT, "admin")
    assert (found.incumbent, found.terms, call["left_the_house"]) == ("tiny", "terms of local", 0)
    assert begun <= found.at <= time.time() and not found.request.keys() & {"model", "stream"}


def test_an_upstreams_answers_are_recorded_and_have_left_the_house(site):
    """Whole and streamed, and the ledger says of the same call that it left."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "at its end"}]}
    completed = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
    streamed = b"event: response.completed\r\ndata:" + json.dumps(completed).encode() + b"\r\n\r\n"
    assert ask(site, CHAT, far("m0", "one"))[0] == 200
    assert ask(site, CHAT, far("m0", "two", stream=True, seed=1 << 62))[0] == 200
    assert ask(site, "/v1/completions", {"model": "m0", "prompt": "three"})[0] == 200
    assert ask(site, "/v1/responses", {"model": "m0", "input": "four"})[0] == 200
    site.far.order({"type": "text/event-stream", "body": streamed})
    assert ask(site, "/v1/responses", {"model": "m0", "input": "five", "stream": True})[0] == 200
    found = after(site, "t0", 5)
    assert [one.answer for one in found] == [THERE] * 4 + [Answer("at its end")]
    assert found[1].request == {"messages": [{"role": "user", "content": "two"}], "seed": 1 << 62}
    left = {call["id"]: call["left_the_house"] for call in site.calls()}
    assert all(left[one.id] for one in found) and found[0].incumbent == "m0" and found[0].terms == "terms of t0"


def test_calls_of_tools_are_recorded(site):
    """Out of one piece, and out of many."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    whole = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    cut = [{"index": 0, "id": "c1", "function": {"name": "find", "arguments": ""}}]
    pieces = [cut, *([{"index": 0, "function": {"arguments": part}}] for part in ('{"ord', 'er": 7}'))]
    events = [{"choices": [{"index": 0, "delta": {"tool_calls": piece}}]} for piece in pieces]
    streamed = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + b"data: [DONE]\n\n"
    site.far.order({"body": json.dumps(whole).encode()}, {"type": "text/event-stream", "body": streamed})
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    for number, stream in enumerate((False, True)):
        assert ask(site, CHAT, far("m1", f"find {number}", tools=tools, stream=stream))[0] == 200
    found = after(site, "t1", 2)
    assert [one.answer for one in found] == [Answer("", (ToolCall("find", '{"order": 7}'),))] * 2
    assert found[0].request["tools"] == tools


def test_a_question_that_comes_again_is_the_reruns_answer(site):
    """Whoever asks it and however: it is kept once, with the incumbent's second answer."""
    again = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "over here"}}]}
    ask(site, CHAT, far("m2", "same", user="a"))
    after(site, "t2", 1)
    known = state(site)["known"]
    site.far.order({"body": json.dumps(again).encode()})
    ask(site, CHAT, far("m2", "same", user="b", metadata={"x": "y"}))
    found = until(lambda: (one := recorded(site.home, "t2")) and one[0].rerun and one)
    assert len(found) == 1 and found[0].answer == THERE and found[0].rerun == Answer("over here")
    until(lambda: state(site)["known"] == known + 1)


def test_calls_are_grouped_by_user_or_by_how_their_conversation_began(site):
    """Later turns of a conversation are in the group of its first."""
    opening = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    marked = [opening[0], {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {}}]}]
    later = [*marked, {"role": "assistant", "content": "over there"}, {"role": "user", "content": "and?"}]
    other = [opening[0], {"role": "user", "content": "ho"}]
    for turns in (opening, later, other):
        ask(site, CHAT, {"model": "m3", "messages": turns})
    ask(site, CHAT, {"model": "m3", "messages": [*other, *other], "user": "u-7"})
    first = {"model": "m3", "instructions": "Be brief.", "input": "hi"}
    turns = [*opening[1:], {"type": "function_call", "name": "f", "call_id": "1", "arguments": "{}"}]
    turns += [{"type": "function_call_output", "call_id": "1", "output": "x"}]
    ask(site, "/v1/responses", first)
    ask(site, "/v1/responses", first | {"input": turns})
    ask(site, "/v1/completions", {"model": "m3", "prompt": "alone"})
    one, two, three, four, five, six, seven = (found.group for found in after(site, "t3", 7))
    assert one == two != three and four == "u-7" and five == six
    assert len({one, three, four, five, seven}) == 5 and one.startswith("begins-")


def test_a_path_of_the_task_says_the_group(site):
    """As in an imported line: of the request, its metadata, or the caller."""
    add(site.home, "path", "m10", more='group = "metadata.customer"')
    add(site.home, "body", "m10", more='group = "body.metadata.customer"')
    until(lambda: "m10" in state(site)["aliases"])
    ask(site, CHAT, far("m10", "one", metadata={"customer": "c-9"}, user="u"))
    ask(site, CHAT, far("m10", "two"))
    assert after(site, "path", 2)[0].group == after(site, "body", 2)[0].group == "c-9"
    assert recorded(site.home, "path")[1].group.startswith("begins-")


# what is not


def test_only_whole_answers_are_recorded(site):
    """Not those that were refused, failed, broke off, made no sense or were left by the client."""
    site.far.order({"status": 400, "body": b'{"error": {"message": "no"}}'}, {"status": 500})
    site.far.order({"reset": True}, {"reset": True})  # the second over a new connection
    site.far.order({"cut": 20}, {"body": b"[1]"}, {"cut": 2}, {"stall": 1})
    for number in range(5):
        assert ask(site, CHAT, far("m4", f"bad {number}"))[0] >= 400
    for number in (5, 6):  # one that is cut, and one that falls silent
        assert b"error" in ask(site, CHAT, far("m4", f"bad {number}", stream=True))[2]
    site.far.order({"each": 0.3})
    with Wire(site.port) as wire:
        wire.send(post(CHAT, far("m4", "left", stream=True), site.key)).socket.recv(10)
    until(lambda: site.calls(1)[0]["outcome"] == "abandoned")
    assert ask(site, CHAT, far("m4") | {"messages": 7}, key="fh_wrong")[0] == 401
    before = state(site)["lost"]
    assert ask(site, CHAT, far("m4", "good"))[0] == 200
    found = after(site, "t4", 1)
    assert [one.request["messages"][0]["content"] for one in found] == ["good"] and state(site)["lost"] == before


def test_a_call_that_no_candidate_could_be_asked_is_lost_with_the_reason(site):
    """A picture; and what leans on a response that only the upstream has. The status says how many, and why."""
    picture = [{"type": "image_url", "image_url": {"url": "data:,x"}}]
    before = state(site)["lost"]
    assert ask(site, CHAT, far("m5") | {"messages": [{"role": "user", "content": picture}]})[0] == 200
    until(lambda: state(site)["lost"] == before + 1)
    assert state(site)["why"] == "a call holds an image, which no candidate here reads"
    site.far.order({"body": b'{"choices": []}'})
    assert ask(site, CHAT, far("m5"))[0] == 200
    until(lambda: state(site)["lost"] == before + 2)
    assert state(site)["why"] == "a call has an answer without a choice"
    assert ask(site, "/v1/responses", {"model": "m5", "input": "x", "previous_response_id": "r"})[0] == 200
    until(lambda: state(site)["lost"] == before + 3)
    assert recorded(site.home, "t5") == []
    shown, known = site.cli("status").stdout, site.status()["capture"]
    assert "are recorded, with their texts" in shown and f"{before + 3} LOST" in shown
    assert "refers to an earlier response" in shown and known["lost"] == before + 3 and "m5" in known["aliases"]


def test_only_the_alias_and_the_callers_of_a_task_that_opted_in(site):
    """Another model, another caller, and a task whose capture is off leave nothing."""
    add(site.home, "desk", "m11", callers=("desk",))
    add(site.home, "off", "m11", on=False)
    until(lambda: "m11" in state(site)["aliases"])
    desk = site.cli("keys", "create", "desk", "--role", "member").stdout.split()
    key = next(word for word in desk if word.startswith("fh_"))
    assert ask(site, CHAT, far("m11", "of the admin"))[0] == 200
    assert ask(site, CHAT, far("m12", "another model"), key=key)[0] == 200
    assert ask(site, "/v1/embeddings", {"model": "m11", "input": "x"}, key=key)[0] == 200
    assert ask(site, CHAT, far("m11", "of the desk"), key=key)[0] == 200
    found = after(site, "desk", 1)
    assert [(one.caller, one.request["messages"][0]["content"]) for one in found] == [("desk", "of the desk")]
    assert recorded(site.home, "off") == []


def test_the_owners_own_calls_are_no_traffic(site):
    """A question from the terminal, and a replay."""
    ask(site, CHAT, far("m6", "of an application"))
    after(site, "t6", 1)
    assert site.cli("ask", "of the owner", "--model", "m6").returncode == 0
    assert site.cli("ask", "of the owner", "--model", "m6", "--json").returncode == 0
    ask(site, CHAT, far("m6", "again of an application"))
    assert [one.request["messages"][0]["content"][:2] for one in after(site, "t6", 2)] == ["of", "ag"]


# while the server runs


def test_a_task_may_come_change_and_go_while_the_server_runs(site):
    """Within moments its calls are recorded, under its new terms, and no more."""
    tasks = Tasks(site.home / "tasks")
    add(site.home, "guest", "m13")
    until(lambda: "m13" in state(site)["aliases"])
    ask(site, CHAT, far("m13", "one"))
    after(site, "guest", 1)
    add(site.home, "guest", "m14", more='about = "changed"')
    until(lambda: "m14" in state(site)["aliases"] and "m13" not in state(site)["aliases"])
    ask(site, CHAT, far("m13", "two"))
    ask(site, CHAT, far("m14", "three"))
    after(site, "guest", 2)
    tasks.remove("guest")
    until(lambda: "m14" not in state(site)["aliases"])
    ask(site, CHAT, far("m14", "four"))
    add(site.home, "guest", "m14")
    until(lambda: "m14" in state(site)["aliases"])
    ask(site, CHAT, far("m14", "five"))
    asked = [one.request["messages"][0]["content"] for one in after(site, "guest", 3)]
    assert asked == ["one", "three", "five"]


def test_what_was_captured_is_exported_split_and_replayed(site, tmp_path):
    """The export comes back as the same calls, and a candidate is asked them; that leaves no new ones."""
    for number in range(10):
        ask(site, CHAT, far("m7", f"question {number}"))
    found = after(site, "t7", 10)
    path, other = tmp_path / "calls.jsonl", tmp_path / "other"
    assert site.cli("traffic", "export", "t7", "-o", str(path)).returncode == 0
    with contextlib.closing(Store(site.home / "traffic.db", TRAFFIC)) as store:
        splits = Samples(store).splits(Tasks(site.home / "tasks").get("t7"))
    assert set(splits.values()) == set(Split) and splits[found[-1].id] is Split.CERTIFICATION
    before = recorded(site.home, "local")
    done = site.cli("replay", "t7", "--candidate", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(site.cli("cost", "t7", "--calls-per-day", "900", "--json").stdout)
    status, _, body = ask(site, "/admin/cost", {"task": "t7", "calls_per_day": 900})
    assert status == 200 and json.loads(body)["costs"] == told and told[0]["candidate"] == "tiny"
    assert ask(site, "/admin/cost", {"task": "nobody's"})[0] == 409
    ask(site, CHAT, far("tiny", "behind the replay"))
    assert len(after(site, "local", len(before) + 1)) == len(before) + 1
    other.mkdir(mode=0o700)
    (other / "freehold.toml").write_text("")
    add(other, "t7", "m7")
    done = cli("traffic", "import", str(path), "--task", "t7", home=other)
    assert done.returncode == 0, done.stderr
    assert recorded(other, "t7") == found == recorded(site.home, "t7")


# when the store cannot be written


@pytest.fixture
def house(tmp_path, tiny_model):
    """A gateway of its own, with a task."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text("")
    add(home, "t", "tiny")
    with serving(home, tiny_model) as server:
        yield server


def test_a_store_that_cannot_be_opened_makes_calls_wait(house):
    """The application gets its answers, the status says what is wrong, and later nothing is missing."""
    (house.home / "traffic.db").mkdir()
    for number in range(5):
        assert ask(house, CHAT, chat(f"{number}"))[0] == 200
    until(lambda: (now := state(house))["waiting"] == 5 and "cannot be opened" in now["why"])
    assert "5 waiting" in house.cli("status").stdout and "Captured calls wait: " in house.output()
    (house.home / "traffic.db").rmdir()
    assert len(after(house, "t", 5)) == 5
    until(lambda: (state(house)["kept"], state(house)["waiting"], state(house)["why"]) == (5, 0, ""))
    for path in house.home.glob("traffic.db*"):  # and is made anew where somebody took it away
        path.rename(house.home.parent / path.name)
    assert ask(house, CHAT, chat("once more"))[0] == 200
    assert len(after(house, "t", 1)) == 1


def test_a_locked_store_and_kill_9_lose_what_waited_and_no_more(house):
    """Answers come while somebody holds the file; what was written before is whole, and goes on."""
    for number in range(3):
        assert ask(house, CHAT, chat(f"before {number}"))[0] == 200
    after(house, "t", 3)
    with contextlib.closing(sqlite3.connect(house.home / "traffic.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        for number in range(4):
            assert ask(house, CHAT, chat(f"while {number}"))[0] == 200
        assert state(house)["waiting"] == 4
        house.stop(signal.SIGKILL)
        holder.execute("ROLLBACK")
        assert holder.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [one.request["messages"][0]["content"][:6] for one in recorded(house.home, "t")] == ["before"] * 3


def test_the_end_of_the_server_writes_what_waits(house):
    """Calls that were answered a moment before are all there."""
    after_first = [ask(house, CHAT, chat("first"))[0], len(after(house, "t", 1))]
    with contextlib.closing(sqlite3.connect(house.home / "traffic.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        for number in range(20):
            assert ask(house, CHAT, chat(f"{number}"))[0] == 200
        house.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        holder.execute("ROLLBACK")
    assert house.process.wait(30) == 0 and after_first == [200, 1]
    assert len(recorded(house.home, "t")) == 21


# the parts


TASK = Task("t", {"kind": "exact"}, 0.1, alias="m", capture=True)
CALLER = Caller("k", "shop", Role.MEMBER)


class Bed:
    """A recorder over a store that a test can make full or hold."""

    def __init__(self, folder: Path):
        self.store = Store(folder / "traffic.db", TRAFFIC)
        self.samples = Samples(self.store)
        self.open, self.opened = threading.Event(), 0
        self.pages = 0  # the most that the file may have
        self.open.set()
        event.listen(self.store.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {self.most}"))
        (folder / "tasks").mkdir()
        self.capture = Capture(self._open, lambda: [TASK], folder / "tasks")

    @property
    def most(self) -> int:
        return self.pages or 1 << 30

    def _open(self) -> Samples:
        self.opened += 1
        self.open.wait(30)
        return self.samples

    def call(self, number: int, content: bytes = b'{"choices": [{"message": {"content": "yes"}}]}') -> None:
        tap = self.capture.tap(CALLER, Request(Kind.CHAT, "m", far("m", f"{number}")))
        tap.take(content[:10])
        tap.take(content[10:])
        tap.keep(f"c{number}")


@pytest.fixture
def bed(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_AGAIN", 0.05)
    made = Bed(tmp_path)
    made.capture.start()
    yield made
    made.open.set()
    made.capture.stop()
    made.store.close()


def test_a_full_disk_loses_what_exceeds_the_room_and_recording_goes_on(bed, monkeypatch, capsys):
    """Calls wait within a bound; further ones are counted with the disk's reason; with room again all that wait are
    kept."""
    monkeypatch.setattr(capture, "ROOM", 200_000)
    with bed.store.engine.connect() as connection:
        bed.pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    long = json.dumps({"choices": [{"message": {"content": "y" * 50_000}}]}).encode()
    bed.call(0, long)
    until(lambda: "full" in bed.capture.state().why)
    for number in range(1, 8):
        bed.call(number, long)
    assert (bed.capture.state().waiting, bed.capture.state().lost, bed.capture.state().kept) == (3, 5, 0)
    bed.pages = 0
    until(lambda: bed.capture.state().kept == 3)
    now = bed.capture.state()
    assert now.waiting == 0 and now.lost == 5 and "full" in now.why and bed.samples.counts() == {"t": 3}
    bed.call(9)
    until(lambda: bed.capture.state().kept == 4)
    assert capsys.readouterr().err.count("Captured calls wait: ") == 1


def test_nobody_waits_for_a_store_that_does_not_answer(bed):
    """Answers are taken in while the store hangs, and are written once it does not."""
    bed.open.clear()
    for number in range(250):
        bed.call(number)
    assert bed.capture.state().waiting == 250 and bed.samples.counts() == {}
    bed.open.set()
    until(lambda: bed.capture.state().kept == 250)
    assert bed.opened == 1


def test_calls_that_cannot_be_written_in_time_are_said_at_the_end(bed, capsys):
    """The server ends all the same."""
    bed.open.clear()
    bed.call(1)
    bed.capture.stop(0.1)
    assert "1 captured calls are lost" in capsys.readouterr().err


def test_one_strange_call_loses_itself_alone(bed, monkeypatch):
    """Whatever goes wrong with it, also what nobody foresaw."""
    real = heard.answer
    monkeypatch.setattr(heard, "answer", lambda kind, content: 1 / 0 if b"strange" in content else real(kind, content))
    bed.call(1, b'{"choices": [{"message": {"content": "strange"}}]}')
    bed.call(2)
    bed.call(3, b"data: {}\n\n")
    bed.call(4, b"x" * (capture.LONGEST + 20))
    until(lambda: bed.capture.state().kept == 1 and bed.capture.state().lost == 3)
    assert bed.samples.get("t", ["c2"])["c2"].answer == Answer("yes")


def test_nothing_is_tapped_for_the_owner_or_without_a_task(bed):
    """Nor for what has no answer to compare."""
    request = Request(Kind.CHAT, "m", {})
    assert bed.capture.tap(CALLER, request) is not None
    assert bed.capture.tap(Caller(OWNER, "x", Role.ADMIN), request) is None
    assert bed.capture.tap(CALLER, Request(Kind.CHAT, "n", {})) is None
    assert bed.capture.tap(CALLER, Request(Kind.EMBEDDING, "m", {})) is None


def sse(*events: dict) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + b"data: [DONE]\n\n"


def delta(**fields) -> dict:
    return {"choices": [{"index": 0, "delta": fields}]}


BLOCKS = [
    {"type": "message_start", "message": {"role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "so "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "be it"}},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


@pytest.mark.parametrize(
    ("kind", "content", "answer"),
    [
        (Kind.MESSAGE, sse(*BLOCKS), Answer("so be it", (ToolCall("f", '{"a":1}'),))),
        (Kind.MESSAGE, sse(*BLOCKS[:8]), Answer("so be it", (ToolCall("f", '{"a": '),))),
        (Kind.CHAT, sse(delta(refusal="I "), delta(refusal="may not")), Answer("I may not")),
        (Kind.CHAT, sse(delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})),
         Answer("", (ToolCall("f", "{}"),))),
        (Kind.CHAT, sse({"choices": [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]},
                        {"choices": []}, {"choices": None}), Answer("a")),
        (Kind.CHAT, sse(delta(tool_calls=[{"index": 1 << 40, "function": {"name": "g", "arguments": "{}"}}])),
         Answer("", (ToolCall("g", "{}"),))),
        (Kind.CHAT, b': hello\r\nevent: x\r\ndata:{"choices":[{"delta":{"content":"a"}}]}\r\n\r\ndata: [DONE]',
         Answer("a")),
        (Kind.RESPONSE, sse({"type": "response.incomplete", "response": {"output": [
            {"type": "message", "content": [{"type": "output_text", "text": "cut"}]}]}}), Answer("cut")),
        (Kind.COMPLETION, sse({"choices": [{"index": 0, "text": "a"}]}, {"choices": [{"text": "b"}]}), Answer("ab")),
        (Kind.CHAT, b' {"choices": [{"message": {"content": "whole"}}]}', Answer("whole")),
    ],
)  # fmt: skip
def test_an_answer_is_heard(kind, content, answer):
    """However it is cut into events, and whatever they claim of their places."""
    assert heard.answer(kind, content) == answer


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.CHAT, b"\xff\xfe"), (Kind.CHAT, b"{"), (Kind.CHAT, b"data: {\n\n"), (Kind.CHAT, b"data: [1]\n\n"),
        (Kind.CHAT, sse(delta(content=[1]))), (Kind.CHAT, b'{"a":' + b"[" * 100_000), (Kind.CHAT, b'{"a":"\xff"}'),
        (Kind.CHAT, b'data: {"choices":' + b"[" * 100_000), (Kind.RESPONSE, sse({"type": "response.created"})),
        (Kind.CHAT, sse(delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]))),
        (Kind.MESSAGE, sse(BLOCKS[2])), (Kind.RESPONSE, sse({"type": "response.completed", "response": 7})),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_not_taken_for_one(kind, content):
    """It is told with one kind of error, whatever is wrong with it."""
    with pytest.raises(Unfit):
        heard.answer(kind, content)


# erasing


def test_what_is_erased_is_in_no_byte_of_the_database(tmp_path):
    """Neither the calls nor what candidates and scorers made of them, in the file or in its log; the rest stays."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "freehold.toml").write_text("")
    secret, stays = "Rumpelstilzchen", "Rapunzel"
    opened = contextlib.closing(Store(home / "traffic.db", TRAFFIC))
    with opened as store, store.reader() as idle:  # which keeps the log from going when everybody else has gone
        assert idle.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        samples, results = Samples(store), Results(store)
        calls = [
            Sample(f"s{n}", chat(f"{word} {n} " * 300), answer=Answer(word), at=2e9, caller=caller)
            for n, (word, caller) in enumerate([(secret, "a"), (stays, "b")] * 30)
        ]
        samples.keep("t", calls)
        key = results.candidate("m", "sha256:1", {}, "e").key
        results.put_answers("t", key, [Replayed(one.id, one.answer) for one in calls])
        for of in (key, INCUMBENT):
            results.put_scores("t", of, "d", {one.id: Score(0.5, {"said": one.answer.text}) for one in calls})

        def held(word: str) -> bool:
            return any(word.encode() in path.read_bytes() for path in home.glob("traffic.db*"))

        assert held(secret) and held(stays)
        done = cli("traffic", "erase", "t", "--caller", "a", "--yes", home=home)
        assert done.returncode == 0, done.stderr
        assert not held(secret) and held(stays)
        left = {one.id for one in calls if one.caller == "b"}
        assert set(results.answers("t", key)) == set(results.scores("t", key, "d")) == left == {
            outline.id for outline in samples.outlines("t")
        }  # fmt: skip
        assert set(results.scores("t", INCUMBENT, "d")) == left
        assert cli("traffic", "erase", "t", "--yes", home=home).returncode == 0
        assert not held(stays) and results.answers("t", key) == {} and results.scores("t", key, "d") == {}


def test_an_erasure_that_somebodys_reading_keeps_in_the_log_is_said(tmp_path, monkeypatch):
    """The call is gone, and the sentence says where its text may be yet."""
    with contextlib.closing(Store(tmp_path / "traffic.db", TRAFFIC)) as store:
        samples = Samples(store)
        samples.keep("t", [Sample("s1", {"messages": ["x"]}, answer=Answer("y"))])
        event.listen(store.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout = 50"))
        with contextlib.closing(sqlite3.connect(tmp_path / "traffic.db", isolation_level=None)) as reading:
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM samples").fetchone()
            assert samples.erase("t") == 1
            with pytest.raises(StoreFailed, match="another process uses it"):
                store.scrub()
        store.scrub()
        assert not (tmp_path / "traffic.db-wal").exists() or not (tmp_path / "traffic.db-wal").stat().st_size
