"""The line, the leases and the pool, as clients of a running server meet them."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from harness import MODEL, Wire, ask, chat, get, gguf, post, serving, until

from freehold import app, intake
from freehold.config import Settings
from freehold.home import Home

CHAT = "/v1/chat/completions"


@pytest.fixture
def single(tmp_path, tiny_model):
    """A server whose engine answers one call at a time."""
    with serving(
        tmp_path / "home", tiny_model, env={"FREEHOLD_ENGINE_SLOTS": "1", "FREEHOLD_QUEUE_CALLS": "3"}
    ) as server:
        yield server


@pytest.fixture
def models(tmp_path):
    """Three models, by name."""
    files = []
    for number, name in enumerate(("alpha", "beta", "gamma")):
        files.append(tmp_path / f"{name}.gguf")
        files[-1].write_bytes(gguf(tensors=number + 1))
    return files


@contextmanager
def holding(server, tokens: int = 1000, **fields):
    """A call that takes its time, until the block ends."""
    with Wire(server.port) as wire:
        wire.send(post(CHAT, chat({"tokens": tokens, "each_ms": 20}, stream=True, **fields), server.key))
        wire.socket.recv(10)
        yield wire


def queue(server, key: str | None = None, model: str = "tiny") -> dict:
    rows = json.loads(get(server, "/admin/queue", key or server.key)[2])["models"]
    return next((row for row in rows if row["model"] == model), {"waiting": [], "answering": [], "counts": {}})


def key_for(server, name: str) -> str:
    return json.loads(server.cli("keys", "create", name, "--json").stdout)["key"]


def in_background(*arguments, **options) -> tuple[threading.Thread, list]:
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(ask(*arguments, **options)))
    thread.start()
    return thread, answers


def test_a_caller_is_told_its_place_and_can_look_it_up(single):
    """While it waits, at /admin/queue; when it is answered, in a header. Who did not wait is told nothing."""
    with holding(single):
        thread, answers = in_background(single, CHAT, chat({"tokens": 1}))
        row = until(lambda: (found := queue(single))["waiting"] and found)
        assert (row["slots"], row["engine"], row["counts"]) == (1, "ready", {"answering": 1, "waiting": 1})
        assert row["waiting"][0]["place"] == 1 and row["waiting"][0]["caller"] == "admin"
    thread.join()
    status, headers, _ = answers[0]
    assert status == 200 and headers["x-freehold-queue"].startswith("place=1, waited_ms=")
    assert "x-freehold-queue" not in ask(single, CHAT, chat({"tokens": 1}))[1]


def test_the_ledger_tells_waiting_from_working(single):
    """A call that waits for another's slot: its wait and its work are kept apart, and together are no more than all of
    its time. One that never reached an engine worked for none."""
    with holding(single):
        thread, answers = in_background(single, CHAT, chat({"tokens": 4, "each_ms": 50}))
        until(lambda: queue(single)["waiting"])
        time.sleep(0.3)
    thread.join()
    assert ask(single, CHAT, chat("x", model="nobody"))[0] == 404
    lost, waited, first = single.calls(3)
    said = answers[0][1]["x-freehold-queue"]
    assert f"waited_ms={waited['waited_ms']:.0f}," in said and waited["waited_ms"] >= 300
    assert waited["engine_ms"] >= 150
    assert waited["waited_ms"] + waited["engine_ms"] <= waited["total_ms"] + 1
    assert first["waited_ms"] == 0 and 300 <= first["engine_ms"] <= first["total_ms"] + 1
    assert (lost["waited_ms"], lost["engine_ms"]) == (None, 0)


def test_a_member_sees_its_own_calls_and_how_many_others_there_are(single):
    """Whose they are is the operators' business."""
    mel = key_for(single, "mel")
    with holding(single):
        thread, _ = in_background(single, CHAT, chat({"tokens": 1}), key=mel)
        row = until(lambda: (found := queue(single, mel))["waiting"] and found)
        assert row["answering"] == [] and row["counts"]["answering"] == 1
        assert [call["caller"] for call in row["waiting"]] == ["mel"]
    thread.join()


def test_a_full_line_is_429_with_a_time_to_come_back(single):
    """In both vendors' formats; the entry says refused."""
    with holding(single):
        threads = [in_background(single, CHAT, chat({"tokens": 1}))[0] for _ in range(3)]
        until(lambda: queue(single)["counts"].get("waiting") == 3)
        status, headers, body = ask(single, CHAT, chat("hi"))
        error = json.loads(body)["error"]
        assert (status, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
        assert int(headers["retry-after"]) >= 1 and "3 calls wait" in error["message"]
        status, _, body = ask(single, "/v1/messages", chat("hi", max_tokens=1))
        assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
        assert [call["error"] for call in single.calls(20)].count("queue_full") == 2
        bob = key_for(single, "bob")
        thread, answers = in_background(single, CHAT, chat({"tokens": 1}), key=bob)
        until(lambda: any(call["caller"] == "bob" for call in queue(single)["waiting"]))  # another's first gets in
    for one in [*threads, thread]:
        one.join()
    assert answers[0][0] == 200


def test_a_call_that_waited_too_long_is_503(tmp_path, tiny_model):
    """With a time to come back; and it is out of the line."""
    with (
        serving(
            tmp_path / "home", tiny_model, env={"FREEHOLD_ENGINE_SLOTS": "1", "FREEHOLD_QUEUE_SECONDS": "0.2"}
        ) as server,
        holding(server),
    ):
        status, headers, body = ask(server, CHAT, chat("hi"))
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded") and headers["retry-after"]
        assert queue(server)["counts"]["waiting"] == 0


def test_one_key_with_many_calls_does_not_delay_anothers_first(tmp_path, tiny_model):
    """Bob's call comes when forty of ann's wait, and is answered among the next."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_ENGINE_SLOTS": "2"}) as server:
        bob, done = key_for(server, "bob"), []

        def call(key: str, who: str) -> None:
            assert ask(server, CHAT, chat({"tokens": 3, "each_ms": 20}), key=key)[0] == 200
            done.append(who)

        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(call, server.key, "ann") for _ in range(42)]
            until(lambda: queue(server)["counts"].get("waiting", 0) >= 30)
            before = len(done)
            calls.append(pool.submit(call, bob, "bob"))
            for one in calls:
                one.result()
    assert done.index("bob") - before <= 12  # of thirty and more that waited


def test_a_client_that_reads_nothing_holds_no_slot_once_the_engine_is_done(single):
    """The engine says all it has to say at once, and goes on to the next caller."""
    with Wire(single.port) as wire:
        wire.send(post(CHAT, chat({"tokens": 3000}, stream=True, max_tokens=3000), single.key))
        until(lambda: queue(single)["counts"].get("answering") == 0 and single.calls(1))
        assert ask(single, CHAT, chat({"tokens": 1}))[0] == 200


def test_a_caller_has_its_limits(tmp_path, tiny_model):
    """So many calls in hand, so many begun in a minute; the refusal says which, and when to come back."""
    limits = {"FREEHOLD_CALLERS_CALLS_AT_ONCE": "1", "FREEHOLD_CALLERS_CALLS_PER_MINUTE": "3"}
    with serving(tmp_path / "home", tiny_model, env=limits) as server:
        with holding(server):
            status, _, body = ask(server, CHAT, chat("hi"))
            assert status == 429 and "may have 1" in json.loads(body)["error"]["message"]
        until(lambda: queue(server)["counts"]["answering"] == 0)
        found = [ask(server, CHAT, chat({"tokens": 1})) for _ in range(4)]
        assert [one[0] for one in found] == [200, 200, 429, 429]
        assert 15 <= int(found[-1][1]["retry-after"]) <= 20


def test_every_admitted_model_can_be_called_by_name(tmp_path, models):
    """Two that were named and come up at once, one from before that comes up at its first call."""
    home = tmp_path / "home"
    with serving(home, models[0]) as server:
        key = server.key
    with serving(home, models[1], "--model", str(models[2])) as server:
        assert "and 1 more, started at its first call" in server.output()
        listed = json.loads(get(server, "/v1/models", key)[2])["data"]
        assert [model["id"] for model in listed] == ["alpha", "beta", "gamma"]
        assert {engine["model"] for engine in server.status()["engines"]} == {"beta", "gamma"}
        for name in ("alpha", "beta", "gamma"):
            status, headers, body = ask(server, CHAT, chat("hi") | {"model": name}, key=key)
            assert status == 200 and json.loads(body)["model"] == name
            assert ("x-freehold-queue" in headers) == (name == "alpha")
        assert {engine["model"] for engine in server.status()["engines"]} == {"alpha", "beta", "gamma"}


def test_a_model_admitted_while_the_server_runs_can_be_called(tmp_path, models):
    """Without a restart."""
    with serving(tmp_path / "home", models[0]) as server:
        assert ask(server, CHAT, chat("hi") | {"model": "beta"})[0] == 404
        home = Home(server.home, create=False)
        with app.parts(home, Settings()) as parts:
            assert parts.intake().add(intake.from_file(models[1]), "test").manifest
        until(lambda: ask(server, CHAT, chat("hi") | {"model": "beta"})[0] == 200)


def test_models_share_the_memory(tmp_path, models):
    """Room for one: each call of another model stops the one before, and every call is answered."""
    room = {"FREEHOLD_POOL_MEMORY_BYTES": str(110 << 20), "FREEHOLD_POOL_STAY_SECONDS": "0"}
    with serving(tmp_path / "home", models[0], "--model", str(models[1]), env=room) as server:
        names = ["alpha", "beta"] * 4
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda name: ask(server, CHAT, chat({"tokens": 2}) | {"model": name}), names))
        assert [answer[0] for answer in answers] == [200] * 8
        assert len(server.status()["engines"]) == 1


def test_a_model_that_no_memory_is_enough_for_says_so(tmp_path, tiny_model):
    """With the figures, before anything is loaded; the others go on."""
    big = tmp_path / "big.gguf"
    shape = {"block_count": 64, "embedding_length": 8192, "attention.head_count": 64, "attention.head_count_kv": 8}
    big.write_bytes(gguf(pairs={f"llama.{name}": value for name, value in shape.items()}))
    home = tmp_path / "home"
    with serving(home, big, env={"FREEHOLD_POOL_MEMORY_BYTES": str(10 << 30)}) as server:
        key = server.key
    with serving(home, tiny_model, env={"FREEHOLD_POOL_MEMORY_BYTES": str(150 << 20)}) as server:
        status, _, body = ask(server, CHAT, chat("hi") | {"model": "big"}, key=key)
        assert status == 503 and "It needs 4.4 GB of memory" in json.loads(body)["error"]["message"]
        assert ask(server, CHAT, chat("hi"), key=key)[0] == 200


def test_an_idle_engine_is_stopped_and_comes_back(tmp_path, tiny_model):
    """Its process is gone meanwhile, and the server is ready all the same."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_POOL_IDLE_SECONDS": "0.3"}) as server:
        until(lambda: not server.status()["engines"])
        assert get(server, "/readyz")[0] == 200 and queue(server)["engine"] == "stopped"
        status, headers, _ = ask(server, CHAT, chat("hi"))
        assert status == 200 and 'engine="stopped"' in headers["x-freehold-queue"]


def test_a_model_has_its_own_engine_settings(tmp_path, models):
    """From its table in freehold.toml; the others have the common ones."""
    home = tmp_path / "home"
    with serving(home, models[0]):
        pass
    (home / "freehold.toml").write_text("[engine]\nslots = 3\n[models.beta]\ncontext = 1000\nslots = 5\n")
    with serving(home, models[0], "--model", str(models[1])) as server:
        engines = {engine["model"]: engine for engine in server.status()["engines"]}
        assert (engines["alpha"]["slots"], engines["alpha"]["context"]) == (3, 4096)
        assert (engines["beta"]["slots"], engines["beta"]["context"]) == (5, 1000)


def test_a_damaged_model_is_not_started(tmp_path, models):
    """Its bytes are compared with what was admitted at every start; the caller and the log are told."""
    home = tmp_path / "home"
    with serving(home, models[0]) as server:
        (alpha,) = server.status()["models"]
        key = server.key
    with serving(home, models[1]) as server:
        blob = home / "vault" / "blobs" / "sha256" / alpha["digest"].removeprefix("sha256:")
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
        status, _, body = ask(server, CHAT, chat("hi") | {"model": "alpha"}, key=key)
        assert (status, json.loads(body)["error"]["code"]) == (503, "engine_unready")
        assert "is not what was admitted" in json.loads(body)["error"]["message"]
        assert "does not come up" in server.output()


@pytest.mark.parametrize("phase", ["prompt", "stream", "whole"])
def test_the_real_engine_stops_working_when_the_client_leaves(real, phase):
    """Whatever it was at; the entry has what was made by then, and the engine's processor time stands still."""
    long = phase == "prompt"
    words = "the quick brown fox jumps over the lazy dog " * (350 if long else 2)
    body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "stream": phase != "whole",
            "max_tokens": 3 if long else 3000, "logit_bias": {"2": -100}}  # fmt: skip
    with Wire(real.port) as wire:
        wire.send(post(CHAT, body, real.key))
        if phase == "stream":
            wire.socket.recv(1)
        time.sleep(1.0)
    call = until(lambda: (found := real.calls(1)[0])["outcome"] and found)
    assert call["outcome"] == "abandoned" and (call["completion_tokens"] > 0) == (not long)
    assert call["completion_tokens"] < 1000
    time.sleep(0.5)
    before = processor_seconds(real.engine_pid())
    time.sleep(0.5)
    assert processor_seconds(real.engine_pid()) - before < 0.25


def processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
