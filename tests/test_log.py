"""The log: a line for each call and note, as text or JSON; none with the text of a call, none that a client made."""

import contextlib
import io
import json
import os
import re
import stat
import sys
import time
from datetime import UTC, datetime

import pytest
from harness import Running, Wire, ask, chat, get, post, serving, until

from freehold import log
from freehold.observe import record
from freehold.types import Kind, Outcome, Seen, Settlement, Usage

CHAT = "/v1/chat/completions"
CALLS = {"FREEHOLD_LOGS_CALLS": "true"}
JSON = CALLS | {"FREEHOLD_LOGS_FORMAT": "json"}
SECRET = "the patient's name is Miriam"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
WORD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


class Logged(Running):
    """A server that logs JSON: its first key lies in a file."""

    def first_key(self) -> str:
        return (self.home / "first.key").read_text().strip()


@pytest.fixture
def as_json():
    """JSON for one test."""
    log._state["json"] = True
    yield
    log._state["json"] = False


@pytest.fixture(scope="module")
def logged(tmp_path_factory, tiny_model):
    """A server that logs JSON, with a line for each call."""
    home = tmp_path_factory.mktemp("logged") / "home"
    server = Logged(home, "--engine", "fake", "--model", str(tiny_model), env=JSON)
    yield server
    server.stop()


def rows(server: Running) -> list[dict]:
    """Every line of the log; each has to be JSON."""
    return [json.loads(line) for line in server.output().splitlines()]


def row(server: Running, call_id: str) -> dict:
    return until(lambda: next((one for one in rows(server) if one.get("id") == call_id), None))


def test_every_line_is_json_and_each_call_has_one(logged):
    """With everything that is known of it, as the ledger has it."""
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    _, headers, _ = ask(logged, CHAT, chat({"tokens": 5, "first_ms": 20}, stream=True), **header)
    found = row(logged, headers["x-request-id"])
    kept = logged.calls(1)[0]
    assert found["id"] == kept["id"] and found["trace_id"] == TRACE
    assert found["first_token_ms"] == pytest.approx(kept["first_token_ms"], abs=0.001)
    assert found["total_ms"] == pytest.approx(kept["total_ms"], abs=0.001)
    for name in ("caller", "kind", "model", "status", "outcome", "prompt_tokens", "completion_tokens", "cached_tokens"):
        assert found[name] == kept[name], name
    assert (found["alias"], found["upstream"], found["error"]) == (None, None, None)
    at = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    assert kept["opened_at"] - 0.01 < at < time.time()
    assert sum(one.get("id") == kept["id"] for one in rows(logged)) == 1


def test_the_first_key_is_in_a_file_and_in_no_line(logged):
    """Only its owner can read the file; a line says where it lies."""
    path = logged.home / "first.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "fh_" not in logged.output()
    assert any(one.get("key_file") == str(path) for one in rows(logged))
    assert get(logged, "/v1/models", path.read_text().strip())[0] == 200


def test_the_servers_own_notes_are_lines_too(logged, tmp_path):
    """That it answers, that an engine died, that it stops, and why it does not start."""
    assert any(one.get("note", "").startswith("Freehold answers at") and one["level"] == "info" for one in rows(logged))
    assert ask(logged, CHAT, chat({"die_after": 1}))[0] == 502
    until(lambda: any("died" in one.get("note", "") and one["level"] == "warning" for one in rows(logged)))
    until(lambda: get(logged, "/readyz")[0] == 200, 30)
    env = JSON | {"FREEHOLD_SERVER_HOST": "0.0.0.0"}
    with pytest.raises(AssertionError) as caught:
        Logged(tmp_path / "home", "--engine", "fake", env=env)
    said = json.loads(str(caught.value).partition("\n")[0])
    assert said["level"] == "error" and said["code"] == "unsafe_bind"


def test_no_line_has_the_text_of_a_call_or_a_name_that_was_made_up(logged):
    """Neither of a prompt, nor of an answer, whatever came of the call."""
    for body in (
        chat(SECRET),
        chat({"status": 500, "mark": SECRET}),
        chat("hi") | {"model": SECRET},
        chat(SECRET, x=1),
    ):
        ask(logged, CHAT, body)
    _, headers, _ = ask(logged, CHAT, chat(SECRET))
    row(logged, headers["x-request-id"])
    assert "Miriam" not in logged.output() and "word" not in logged.output()
    refused = [one for one in rows(logged) if one.get("error") == "model_not_found"]
    assert refused and refused[-1]["model"] is None and refused[-1]["status"] == 404


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_client_makes_a_line(tmp_path, tiny_model, form):
    """Not with a model's name, a traceparent, a path or a header that has line ends in it; there is one line for each
    call and none besides."""
    forged = 'x"\n{"time":"2026-01-01T00:00:00.000Z","id":"req_forged"}\r\u2028\x1b[2J'
    kind = Logged if form == "json" else Running
    arguments = ("--engine", "fake", "--model", str(tiny_model))
    server = kind(tmp_path / "home", *arguments, env=JSON | {"FREEHOLD_LOGS_FORMAT": form})
    try:
        before = server.output().count("\n")
        ask(server, CHAT, chat("hi") | {"model": forged})
        assert ask(server, CHAT, chat("hi"), traceparent='00-"forged\x85id=\u2028' * 5)[0] == 200
        assert ask(server, CHAT, chat("hi"), traceparent="00-forged\x1b")[0] == 400  # and this is no HTTP
        with Wire(server.port) as wire:
            wire.send(post("/v1/%0aforged\x1b", {}, server.key)).read()
        _, headers, _ = ask(server, CHAT, chat("hi"))
        until(lambda: headers["x-request-id"] in server.output())
        new = server.output().split("\n")[before:-1]
        assert len(new) == 3 and "forged" not in "".join(new) and "\x1b" not in server.output()
    finally:
        server.stop()


def test_as_text_a_call_is_names_and_values(tmp_path, tiny_model):
    """Words as they are, others in quotes; a caller of several words is one value."""
    with serving(tmp_path / "home", tiny_model, env=CALLS) as server:
        made = server.cli("keys", "create", 'the "front" desk=x', "--json")
        _, headers, _ = ask(server, CHAT, chat("hi"), json.loads(made.stdout)["key"])
        line = until(lambda: next((one for one in server.output().split("\n") if headers["x-request-id"] in one), None))
        found = dict(WORD.findall(line))
        assert json.loads(found["caller"]) == 'the "front" desk=x' and found["model"] == "tiny"
        assert found["outcome"] == "answered" and found["completion_tokens"] == "8" and "alias" not in found


def test_without_the_setting_calls_have_no_lines(fake):
    """As before."""
    _, headers, _ = ask(fake, CHAT, chat("hi"))
    time.sleep(0.3)
    assert headers["x-request-id"] not in fake.output()


def test_a_reader_who_stops_reading_delays_no_call(tmp_path, tiny_model):
    """The lines that it does not take are dropped and counted; calls are answered as before."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, True)
    lines = log.Lines(theirs)
    lines.start()
    began = time.monotonic()
    entry = {"time": 0.0, "id": "req_1", "caller": "x" * 150}
    for _ in range(log.ROOM + 5000):
        lines.put(entry)
    assert time.monotonic() - began < 5 and lines.dropped >= 3000  # a pipe takes some hundred of them
    read = 0
    os.set_blocking(ours, False)
    deadline = time.monotonic() + 20
    while read < log.ROOM - 100 and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            block = os.read(ours, 65536)
            assert block.endswith(b"\n"), "a line was cut"
            read += block.count(b"\n")
    assert read + lines.dropped >= log.ROOM
    lines.stop()
    os.close(ours)
    os.close(theirs)


def test_a_log_that_nobody_can_write_is_counted(capsys):
    """A closed pipe costs the lines, and says so at the end."""
    ours, theirs = os.pipe()
    os.close(ours)
    lines = log.Lines(theirs)
    lines.start()
    lines.put({"time": 0.0, "id": "req_1"})
    until(lambda: lines.dropped == 1)
    lines.stop()
    os.close(theirs)
    assert "1 lines of calls are not in this log" in capsys.readouterr().err


def test_a_note_is_one_line(capsys, as_json):
    """As JSON in ASCII, whatever is in it; as text with line ends and escapes shown."""
    said = "a\nb\x1b[2J\u2028c\ud800"
    log.note(said, log.ERROR, more=["x\ny"])
    log._state["json"] = False
    log.note(said)
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["note"] == said and json.loads(first)["more"] == ["x\ny"] and first.isascii()
    assert second == "a\\nb\\x1b[2J\\u2028c\\ud800"


def test_a_fault_says_where_it_was_and_not_what_it_said(capsys, as_json, monkeypatch):
    """What it said may hold what a client sent; who sets FREEHOLD_TRACEBACK sees that too."""

    def broken():
        raise ValueError(SECRET)

    for name in ("", "1"):
        monkeypatch.setenv("FREEHOLD_TRACEBACK", name)
        try:
            broken()
        except ValueError as error:
            log.fault(error)
    quiet, loud = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert quiet["note"] == "An unexpected fault: ValueError." and "broken" in quiet["traceback"][-1]
    assert SECRET in loud["note"] and SECRET not in json.dumps(quiet)


def test_what_pythons_own_parts_say_is_a_line_too():
    """A warning of asyncio's comes as JSON, with the kind of the fault and nothing of it."""
    program = (
        "import logging\nfrom freehold import log\nlog.choose('json')\n"
        "try:\n    raise KeyError('secret')\n"
        "except KeyError as error:\n    logging.getLogger('asyncio').error('Task failed\\nsecret', exc_info=error)\n"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said = [json.loads(line)["note"] for line in done.stderr.splitlines()]
    assert said == ["Task failed", "An unexpected fault: KeyError."] and "secret" not in done.stderr


def test_a_stopped_server_has_written_every_line(tmp_path, tiny_model):
    """The lines of the last calls too."""
    server = Logged(tmp_path / "home", "--engine", "fake", "--model", str(tiny_model), env=JSON)
    with Wire(server.port) as wire:
        for _ in range(50):
            assert wire.send(post(CHAT, chat({"tokens": 1}), server.key)).read()[0] == 200
    assert server.stop() == 0
    assert sum("id" in one for one in rows(server)) == 50
    assert any(one.get("note", "").startswith("Stopping") for one in rows(server))


def test_a_line_costs_a_few_microseconds():
    """What a call waits for is that its record is put; the bound is loose."""
    end = Settlement(Outcome.ANSWERED, 200, usage=Usage(10, 5, 2), first_token_ms=20.0, total_ms=60.0, model="tiny")
    seen = Seen("req_1", "admin", Kind.CHAT, end, "tiny")
    lines = log.Lines(os.open(os.devnull, os.O_WRONLY))
    began = time.process_time()
    for _ in range(5000):
        lines.put(record(seen, ""))
    assert (time.process_time() - began) / 5000 < 100e-6
    with contextlib.redirect_stderr(io.StringIO()):
        assert len(log.line(record(seen, ""))) < 400
