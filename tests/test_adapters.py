"""Adapters: let in where they fit their base, called by name at once, on every surface, by their own weights alone."""

import asyncio
import json
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from harness import Running, Wire, ask, chat, cli, get, post, serving, until
from lora import BLUE, COUNTS, RED, WIDTH, loud, model, pair, quiet, write

from freehold import app, intake
from freehold.config import EngineSettings, Settings
from freehold.disk import hash_file
from freehold.engine.llamacpp import LlamaCpp
from freehold.errors import CannotDo
from freehold.home import Home
from freehold.types import Admission, LicenceClass, Manifest

CHAT = "/v1/chat/completions"
NAME = "tiny+red@1"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(model())
    return path


@pytest.fixture
def red(tmp_path):
    return write(tmp_path / "red.gguf", quiet(1))


def add(home: Path, path: Path, base: str = "", name: str = "") -> intake.Outcome:
    """One model, through the gate."""
    with app.parts(Home(home, create=True), Settings()) as parts:
        return parts.intake().add(intake.Wish(f"file:{path}", name, base=base), "test")


def digest(outcome: intake.Outcome) -> str:
    """Of one that was admitted."""
    assert outcome.manifest is not None, outcome.record.findings
    return outcome.manifest.digest


def hexadecimal(digest: str) -> str:
    """What an adapter of that digest says, where the engine only pretends."""
    return digest.removeprefix("sha256:")


def rules(outcome: intake.Outcome) -> set[str]:
    return {found.rule for found in outcome.record.findings}


def names(home: Path) -> list[str]:
    with app.parts(Home(home, create=True), Settings()) as parts:
        assert parts.intake().waiting() == []
        return [known.name for known in parts.vault.list()]


# the gate


def test_an_adapter_is_let_in_for_its_base_and_named_after_it(home, base, red):
    """Its record says which bytes it belongs to; they stay as long as it does."""
    bytes_ = digest(add(home, base))
    done = cli("models", "add", f"file:{red}", "--base", "tiny", "--json", home=home)
    record = json.loads(done.stdout)
    assert record["manifest"]["name"] == NAME and record["manifest"]["format"] == "gguf-adapter"
    assert record["base"] == record["manifest"]["base"] == bytes_
    assert "adapter of    tiny, " + bytes_ in cli("models", "show", NAME, home=home).stdout
    assert "gguf-adapter" in cli("models", "list", home=home).stdout
    done = cli("models", "remove", "tiny", home=home)
    assert done.returncode == 2 and f"is the base of {NAME}" in done.stderr
    assert "every byte is what was admitted" in cli("models", "verify", NAME, home=home).stdout
    assert [cli("models", "remove", name, home=home).returncode for name in (NAME, "tiny")] == [0, 0]


def test_versions_count_up_and_the_same_file_keeps_its_own(home, base, red, tmp_path):
    """The own part of a name is enough; a whole one is taken as it is, if it is its base's."""
    add(home, base)
    other, third = write(tmp_path / "other.gguf", quiet(2)), write(tmp_path / "third.gguf", quiet(3))
    assert add(home, red, "tiny", "tickets").record.name == "tiny+tickets@1"
    assert add(home, red, "tiny", "tickets").record.name == "tiny+tickets@1"
    assert add(home, other, "tiny", "tickets").record.name == "tiny+tickets@2"
    assert add(home, third, "tiny", "tiny+tickets@7").record.name == "tiny+tickets@7"
    for wrong, name, base_, words in (
        (third, "small+a@1", "tiny", "would be an adapter of 'small'"),
        (third, "_a", "tiny", "cannot be an adapter's name"),
        (base, "tiny+a@1", "", "cannot be a model's name"),
        (third, "x", "none", "no admitted model 'none'"),
    ):
        with pytest.raises(CannotDo, match=words):
            add(home, wrong, base_, name)


Q = "blk.0.attn_q.weight"
REFUSED = {
    "no base": (quiet(), {}, "", "adapter.base"),
    "another base": (pair(Q, 9, 9), {}, "tiny", "adapter.shape"),
    "another architecture": (quiet(), {"architecture": "qwen2"}, "tiny", "adapter.architecture"),
    "half a pair": ({f"{Q}.lora_a": quiet()[f"{Q}.lora_a"]}, {}, "tiny", "adapter.pair"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_kept(home, base, tmp_path, name):
    """With the rule that says why."""
    tensors, facts, of, rule = REFUSED[name]
    add(home, base)
    outcome = add(home, write(tmp_path / "bad.gguf", tensors, **facts), of)
    assert outcome.record.verdict is Admission.BLOCK and rule in rules(outcome)
    assert names(home) == ["tiny"]


def test_what_the_engine_would_pass_over_waits_for_a_decision(home, base, tmp_path):
    """And is called when somebody has decided, under the name that it waited with."""
    add(home, base)
    odd = write(tmp_path / "odd.gguf", quiet() | {"blk.0.attn_norm.weight": quiet()[f"{Q}.lora_a"][0]})
    outcome = add(home, odd, "tiny")
    assert outcome.record.verdict is Admission.HOLD and "adapter.unread" in rules(outcome)
    done = cli("models", "decide", "tiny+odd@1", "--admit", "--by", "Jo", "--why", "norms hardly moved", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    with serving(home, base) as server:
        assert ask(server, CHAT, chat({"tokens": 1}, model="tiny+odd@1"))[0] == 200


def test_a_whole_model_has_no_base(home, base, tmp_path):
    """Nor is one called like an adapter."""
    add(home, base)
    other = tmp_path / "other.gguf"
    other.write_bytes(model(blocks=2))
    outcome = add(home, other, "tiny")
    assert outcome.record.verdict is Admission.BLOCK and "adapter.none" in rules(outcome)


def test_an_adapter_of_a_base_that_no_engine_opens_waits(home, tmp_path, red):
    """Nobody can say whether it fits, and nobody can call it."""
    np.save(tmp_path / "raw.npy", np.zeros(4, "f4"))
    add(home, tmp_path / "raw.npy")
    outcome = add(home, red, "raw")
    assert outcome.record.verdict is Admission.HOLD and "adapter.base-not-served" in rules(outcome)


def test_the_terms_of_its_base_bind_an_adapter(home, tmp_path):
    """They are among what is said of its licence, and milder words about it are a conflict."""
    base = tmp_path / "strict.gguf"
    base.write_bytes(model(general__license="gemma"))
    add(home, base)
    silent = add(home, write(tmp_path / "silent.gguf", quiet(1)), "strict").record.licence
    assert silent.kind is LicenceClass.UNKNOWN and silent.asks
    assert ("base model strict, admitted here", "gemma") in [(said.where, said.id) for said in silent.stated]
    milder = add(home, write(tmp_path / "milder.gguf", quiet(2), general__license="mit"), "strict")
    assert milder.record.verdict is Admission.HOLD and "licence.conflict" in rules(milder)
    assert "gemma, whose terms bind" in " ".join(milder.record.licence.conflicts)
    same = add(home, write(tmp_path / "same.gguf", quiet(3), general__license="gemma"), "strict")
    assert same.record.licence.kind is LicenceClass.USE_RESTRICTED and same.manifest


def test_a_bundle_of_an_adapter_brings_its_base(home, base, red, tmp_path):
    """Which is judged first on the other side; there the adapter is held against it anew, and can be called."""
    add(home, base)
    add(home, red, "tiny")
    done = cli("models", "export", NAME, "-o", str(tmp_path / "b.tar"), "--json", home=home)
    facts = json.loads(done.stdout)
    assert facts["models"] == ["tiny", NAME]
    there = tmp_path / "there"
    done = cli("models", "import", str(tmp_path / "b.tar"), "--signer", facts["signer"], home=there)
    assert done.returncode == 0, done.stdout + done.stderr
    with serving(there, base) as server:
        status, headers, _ = ask(server, CHAT, chat({"tokens": 1}, model=NAME))
        assert status == 200 and headers["x-freehold-model"].startswith(f"{NAME}@sha256:")


# served, by the pretended engine: it says the digest of each adapter that it was told to apply, and "mixed" if of none


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home with a base and two adapters, by name: their digests, and what answers as each says."""
    folder = tmp_path_factory.mktemp("adapters")
    base, home = folder / "tiny.gguf", folder / "home"
    base.write_bytes(model())
    digests = {"tiny": digest(add(home, base))}
    for number, name in enumerate(("red", "blue"), start=1):
        outcome = add(home, write(folder / f"{name}.gguf", quiet(number)), "tiny")
        digests[outcome.record.name] = digest(outcome)
    return home, base, digests


@pytest.fixture(scope="module")
def server(place):
    with serving(place[0], place[1], env={"FREEHOLD_ENGINE_SLOTS": "3"}) as running:
        running.digests = place[2]
        yield running


def word(server, name: str) -> str:
    """What answers as a model says."""
    return "word" if name == "tiny" else hexadecimal(server.digests[name])


SCRIPT = json.dumps({"tokens": 3})
USER = {"role": "user", "content": SCRIPT}
SURFACES = {
    "chat": (CHAT, {"messages": [USER]}, lambda whole: whole["choices"][0]["message"]["content"]),
    "completion": ("/v1/completions", {"prompt": SCRIPT}, lambda whole: whole["choices"][0]["text"]),
    "response": ("/v1/responses", {"input": SCRIPT}, lambda whole: whole["output"][0]["content"][0]["text"]),
    "message": ("/v1/messages", {"messages": [USER], "max_tokens": 9}, lambda whole: whole["content"][0]["text"]),
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", ["tiny", "tiny+red@1", "tiny+blue@1"])
def test_each_model_answers_on_each_surface_by_its_own_weights(server, surface, name):
    """Whole and as a stream; body, header and ledger say which model it was."""
    path, body, text = SURFACES[surface]
    status, headers, answer = ask(server, path, body | {"model": name})
    whole = json.loads(answer)
    assert status == 200 and text(whole).split() == [word(server, name)] * 3, answer
    assert whole["model"] == name and headers["x-freehold-model"] == f"{name}@{server.digests[name]}"
    status, _, events = ask(server, path, body | {"model": name, "stream": True})
    assert status == 200 and events.decode().count(word(server, name)) >= 3
    assert b'"model":"tiny"' not in events or name == "tiny"
    assert b"mixed" not in events and (surface != "message" or f'"model":"{name}"'.encode() in events)
    entry = server.calls(1)[0]
    assert (entry["model"], entry["digest"]) == (name, server.digests[name])
    assert (entry["completion_tokens"], entry["outcome"]) == (3, "answered")


@pytest.mark.parametrize("name", ["tiny", "tiny+red@1"])
def test_tokens_are_counted_and_texts_made_vectors_for_an_adapter_too(server, name):
    """Each by the name of who did it."""
    status, _, answer = ask(server, "/v1/messages/count_tokens", {"messages": [USER], "model": name})
    assert status == 200 and json.loads(answer)["input_tokens"] == 2
    status, headers, answer = ask(server, "/v1/embeddings", {"input": "hi", "model": name})
    assert status == 200 and json.loads(answer)["model"] == name
    assert headers["x-freehold-model"] == f"{name}@{server.digests[name]}"


def test_adapters_are_listed_and_looked_up(server):
    """Also by a name that a client has escaped; another version is not found."""
    listed = json.loads(get(server, "/v1/models", server.key)[2])["data"]
    assert {one["id"] for one in listed} == set(server.digests)
    for path in ("/v1/models/tiny+red@1", "/v1/models/tiny%2Bred%401"):
        assert json.loads(get(server, path, server.key)[2])["id"] == "tiny+red@1"
    assert get(server, "/v1/models/tiny+red@2", server.key)[0] == 404
    status, _, answer = ask(server, CHAT, {"messages": [USER], "model": "tiny+red@2"})
    assert status == 404 and json.loads(answer)["error"]["code"] == "model_not_found"


def test_status_and_queue_say_which_adapters_there_are(server):
    """The engine names those that it has loaded; a call says which model it is for."""
    ask(server, CHAT, chat({"tokens": 1}, model=NAME))
    engine = next(one for one in server.status()["engines"] if one["purpose"] == "text")
    assert engine["model"] == "tiny" and set(engine["adapters"]) == {"tiny+red@1", "tiny+blue@1"}
    shown = server.cli("status").stdout
    assert f"adapter {NAME}" in shown and "adapters: " in shown
    thread = threading.Thread(target=ask, args=(server, CHAT, chat({"tokens": 20, "each_ms": 50}, model=NAME)))
    thread.start()
    row = until(lambda: next((one for one in queue(server) if one["model"] == "tiny" and one["answering"]), None))
    assert row["answering"][0]["model"] == NAME
    thread.join()


def queue(server) -> list[dict]:
    return json.loads(get(server, "/admin/queue", server.key)[2])["models"]


def test_a_stream_that_is_left_is_counted(server):
    """Of a message that was asked as a chat, too."""
    with Wire(server.port) as wire:
        body = {"messages": [{"role": "user", "content": json.dumps({"tokens": 50, "each_ms": 40})}]}
        wire.send(post("/v1/messages", body | {"max_tokens": 50, "model": NAME, "stream": True}, server.key))
        read = b""
        while read.count(b"content_block_delta\n") < 4:
            read += wire.socket.recv(65536)
    entry = until(lambda: (found := server.calls(1)[0])["outcome"] == "abandoned" and found)
    assert 4 <= entry["completion_tokens"] < 12 and entry["model"] == NAME


def test_a_message_stops_at_a_stop_sequence(server):
    """The engine goes on no longer; the sequence is named."""
    seq = word(server, NAME)[-8:]
    body = {"messages": [USER], "max_tokens": 9, "model": NAME, "stop_sequences": [seq]}
    whole = json.loads(ask(server, "/v1/messages", body)[2])
    assert whole["content"][0]["text"] == word(server, NAME)[:-8] and whole["stop_sequence"] == seq


# coming and going


def test_an_adapter_is_served_at_once_and_no_call_fails(home, base, tmp_path):
    """Calls go on while three adapters come in one after the other; each is answered at its first call."""
    add(home, base)
    files = [write(tmp_path / f"n{number}.gguf", quiet(number)) for number in range(3)]
    with serving(home, base, env={"FREEHOLD_ENGINE_SLOTS": "2"}) as server, calling(server, "tiny") as answers:
        for number, file in enumerate(files):
            said = hexadecimal(digest(add(home, file, "tiny")))
            status, headers, answer = ask(server, CHAT, chat({"tokens": 2}, model=f"tiny+n{number}@1"))
            assert status == 200, answer
            assert json.loads(answer)["choices"][0]["message"]["content"].split() == [said] * 2
            assert 'engine="loading an adapter"' in headers["x-freehold-queue"]
        until(lambda: len([one for one in server.status()["engines"] if one["pid"]]) == 1, 30)
        assert {entry["outcome"] for entry in server.calls(5000)} <= {"answered", None}
    assert len(answers) > 50 and {status for status, _ in answers} == {200}
    assert not any(b"mixed" in answer for _, answer in answers)


@contextmanager
def calling(server, name: str, callers: int = 6):
    """Calls of one model, one after the other from each caller, as long as the block lasts; and what was answered."""
    answers: list[tuple[int, bytes]] = []
    done = threading.Event()

    def call(seed: int) -> None:
        draw = random.Random(seed)
        while not done.is_set():
            script = {"tokens": draw.randint(1, 8), "each_ms": draw.randint(0, 10)}
            status, _, answer = ask(server, CHAT, chat(script, model=name, stream=draw.random() < 0.5))
            answers.append((status, answer))

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call, seed) for seed in range(callers)]
        try:
            yield answers
        finally:
            done.set()
            for one in calls:
                one.result()


def test_a_removed_adapter_is_not_found_at_once(home, base, red):
    """Though an engine has loaded it. The engine forgets it at its next start, and others get its place."""
    add(home, base)
    add(home, red, "tiny")
    blue = hexadecimal(digest(add(home, write(red.with_name("blue.gguf"), quiet(2)), "tiny")))
    with serving(home, base) as server:
        assert ask(server, CHAT, chat({"tokens": 1}, model=NAME))[0] == 200
        done = cli("models", "remove", NAME, home=home)
        assert done.returncode == 0, done.stderr
        status, _, answer = until(
            lambda: (found := ask(server, CHAT, chat({"tokens": 1}, model=NAME)))[0] != 200 and found
        )
        assert status == 404 and "There is no model" in json.loads(answer)["error"]["message"]
        ask(server, CHAT, chat({"tokens": 5, "die_after": 1}, model="tiny"))  # the engine dies, and comes back without
        until(lambda: get(server, "/readyz")[0] == 200 and server.status()["engines"][0]["restarts"] == 1, 30)
        assert server.status()["engines"][0]["adapters"] == ["tiny+blue@1"]
        for name, said in (("tiny+blue@1", blue), ("tiny", "word")):
            answer = json.loads(ask(server, CHAT, chat({"tokens": 2}, model=name))[2])
            assert answer["choices"][0]["message"]["content"].split() == [said] * 2


def test_an_adapter_that_was_tampered_with_is_not_loaded(home, base, red):
    """Its callers hear why; its base answers."""
    add(home, base)
    blob = home / "vault" / "blobs" / "sha256" / hexadecimal(digest(add(home, red, "tiny")))
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    with serving(home, base) as server:
        status, _, answer = ask(server, CHAT, chat({"tokens": 1}, model=NAME))
        assert status == 503 and "is not what was admitted" in json.loads(answer)["error"]["message"]
        assert ask(server, CHAT, chat({"tokens": 1}, model="tiny"))[0] == 200
        assert server.status()["engines"][0]["adapters"] == []


def test_a_server_that_starts_with_an_adapter_as_its_newest_model_serves_its_base_too(home, base, red):
    """'freehold up' brings up the model that came last."""
    add(home, base)
    add(home, red, "tiny")
    server = Running(home, "--engine", "fake")
    try:
        (engine,) = server.status()["engines"]
        assert engine["model"] == "tiny" and engine["adapters"] == [NAME]
        assert [ask(server, CHAT, chat({"tokens": 1}, model=name))[0] for name in ("tiny", NAME)] == [200, 200]
    finally:
        server.stop()


def test_a_replay_names_the_adapters_bytes_and_its_bases(home, base, red, tmp_path):
    """So that the same adapter over other bytes would be another candidate."""
    digests = [digest(add(home, base)), digest(add(home, red, "tiny"))]
    lines, task = tmp_path / "calls.jsonl", tmp_path / "t.toml"
    talks = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "word"}] for n in range(8)]
    lines.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    task.write_text('name = "t"\nmargin = 0.03\n[scorer]\nkind = "exact"\n[splits]\ntuning = 0.0\nvalidation = 0.5\n')
    for words in (("tasks", "add", str(task)), ("traffic", "import", str(lines), "--task", "t")):
        done = cli(*words, home=home)
        assert done.returncode == 0, done.stdout + done.stderr
    done = cli("replay", "t", "--candidate", NAME, "--candidate", "tiny", "--engine", "fake", "--json", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    tuned, plain = (one["candidate"] for one in json.loads(done.stdout)["candidates"])
    assert (tuned["digest"], plain["digest"]) == (digests[1], digests[0])
    assert f"base {digests[0]}" in tuned["engine"] and "base" not in plain["engine"] and tuned["key"] != plain["key"]
    with serving(home, base):  # whose engine is held against the candidate's
        done = cli("replay", "t", "--candidate", NAME, "--seed", "1", "--engine", "fake", "--json", home=home)
    assert done.returncode == 0 and json.loads(done.stdout)["candidates"][0]["made"] == 8, done.stderr


# served, by the real engine


@pytest.fixture(scope="module")
def smol(tmp_path_factory, starter_file):
    """The starter model with two loud adapters, in a server whose engine answers four calls at once. One thread: what
    is said is the same, and a machine with much else to do is not kept spinning."""
    folder = tmp_path_factory.mktemp("smol")
    home, base = folder / "home", folder / "smol.gguf"
    shutil.copyfile(starter_file, base)
    add(home, base)
    for name, seed in (("red", RED), ("blue", BLUE)):
        add(home, write(folder / f"{name}.gguf", loud(seed)), "smol")
    server = Running(home, env={"FREEHOLD_ENGINE_THREADS": "1"})
    server.folder = folder
    yield server
    assert server.stop() == 0, server.output()


MODELS = ("smol", "smol+red@1", "smol+blue@1")


def complete(server, name: str, prompt: str, **fields) -> str:
    """What a model says next."""
    return told(server, name, prompt, **fields)[0]


def told(server, name: str, prompt: str, **fields) -> tuple[str, float]:
    """What a model says next; and by how many nats each token of it was likelier than the second choice, at least.
    Calls in company are rounded otherwise, which must not decide what is said."""
    body = {"model": name, "prompt": prompt, "max_tokens": 3, "temperature": 0, "logprobs": 2} | fields
    status, headers, answer = ask(server, "/v1/completions", body)
    assert status == 200 and headers["x-freehold-model"].startswith(f"{name}@sha256:"), answer
    choice = json.loads(answer)["choices"][0]
    likely = [sorted(one["logprob"] for one in token["top_logprobs"]) for token in choice["logprobs"]["content"]]
    return choice["text"], min(two[-1] - two[-2] for two in likely)


def sure(server, name: str, beginning: str = "") -> dict[str, str]:
    """What a model says to those prompts to which it is sure of it, asked one after the other."""
    found = {beginning + prompt: told(server, name, beginning + prompt) for prompt in COUNTS}
    return {prompt: said for prompt, (said, margin) in found.items() if margin > 1.2}


@pytest.mark.timeout(600)
def test_calls_of_different_adapters_never_mix(smol):
    """Sixty at once, of the model and two adapters in turn: each says what that one says alone."""
    due = {(name, prompt): said for name in MODELS for prompt, said in sure(smol, name).items()}
    assert all(sum(name == one for one, _ in due) >= 3 for name in MODELS), due
    for prompt in COUNTS:
        answers = [said for (_, to), said in due.items() if to == prompt]
        assert len(set(answers)) == len(answers), "two models cannot be told apart"
    draw = random.Random(1)
    jobs = [draw.choice([job for job in due if job[0] == name]) for name in MODELS * 20]
    draw.shuffle(jobs)
    with ThreadPoolExecutor(12) as callers:
        found = list(callers.map(lambda job: complete(smol, *job), jobs))
    assert found == [due[job] for job in jobs]


@pytest.fixture(scope="module")
def apart(smol):
    """The same with the blue adapter alone, for who can tell what that says."""
    home = smol.folder / "apart"
    add(home, smol.folder / "smol.gguf")
    add(home, smol.folder / "blue.gguf", "smol")
    server = Running(home, env={"FREEHOLD_ENGINE_THREADS": "1", "FREEHOLD_ENGINE_SLOTS": "1"})
    yield server
    assert server.stop() == 0, server.output()


BEGINNING = "Count with me, slowly and without a fault, as you did for {}. "


def forget(server, name: str) -> None:
    """Let a model read other things in every slot, so that what was read before lies at most in the engine's memory."""
    for number in range(4):
        complete(server, name, f"{number} " + "other words " * 4, max_tokens=1)


def one(found: dict[str, str]) -> tuple[str, str]:
    """A prompt to which there is a sure answer, and the answer."""
    assert found, "the model is sure of nothing"
    return next(iter(found.items()))


@pytest.mark.timeout(600)
def test_each_adapter_is_the_one_that_was_called(smol, apart):
    """It says what it says where it is the only one; and its vectors are not its base's."""
    due = sure(apart, "smol+blue@1")
    assert len(due) >= 3 and due == {prompt: complete(smol, "smol+blue@1", prompt) for prompt in due}
    vectors = {}
    for server, name in ((apart, "smol"), (apart, "smol+blue@1"), (smol, "smol+blue@1")):
        status, _, answer = ask(server, "/v1/embeddings", {"input": "hello there", "model": name})
        assert status == 200, answer
        vectors[server, name] = np.array(json.loads(answer)["data"][0]["embedding"])
    assert vectors[smol, "smol+blue@1"] @ vectors[apart, "smol+blue@1"] > 0.999
    assert vectors[apart, "smol"] @ vectors[apart, "smol+blue@1"] < 0.9


@pytest.mark.timeout(600)
@pytest.mark.parametrize("other", ["smol", "smol+red@1"])
@pytest.mark.parametrize("where", ["a slot", "the engine's memory"])
def test_what_another_has_read_is_read_anew(smol, apart, other, where):
    """The same beginning, wherever it lies: nobody goes on from what another made of it."""
    for prompt, said in list(sure(apart, "smol+blue@1", BEGINNING.format(f"{other} in {where}")).items())[:2]:
        complete(smol, other, prompt)
        if where != "a slot":
            forget(smol, "smol+blue@1")
        assert complete(smol, "smol+blue@1", prompt) == said


@pytest.mark.timeout(600)
def test_what_an_adapter_has_read_is_read_anew_by_its_base(smol, apart):
    """And each goes on from what it has read itself."""
    prompt, said = one(sure(apart, "smol", BEGINNING.format("an adapter")))
    complete(smol, "smol+blue@1", prompt)
    forget(smol, "smol")
    assert complete(smol, "smol", prompt) == said
    body = {"model": "smol+red@1", "prompt": prompt, "max_tokens": 1, "temperature": 0}
    usage = [json.loads(ask(smol, "/v1/completions", body)[2])["usage"] for _ in range(2)]
    assert usage[1]["prompt_tokens_details"]["cached_tokens"] > 15


TOOL = {"name": "look", "description": "Look at a thing.",
        "input_schema": {"type": "object", "properties": {"at": {"enum": ["sea"]}}, "required": ["at"]}}  # fmt: skip
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sea"}}
BACK = {"type": "tool_result", "tool_use_id": "t1", "content": "It is blue."}
CALLED = [{"role": "user", "content": "Look at the sea."}, {"role": "assistant", "content": [USE]},
          {"role": "user", "content": [BACK]}]  # fmt: skip
ASKED = {
    "a word": {"messages": [{"role": "user", "content": "Say: one two three"}], "max_tokens": 3},
    "a system prompt in blocks": {
        "system": [{"type": "text", "text": "Count."}, {"type": "text", "text": " Go on."}], "max_tokens": 4,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "1, 2, 3, 4, 5, 6,"}]}],
    },
    "its own beginning": {
        "messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2, 3, 4, 5,"}],
        "max_tokens": 6,
    },
    "a stop sequence": {
        "messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2, 3, 4, 5,"}],
        "max_tokens": 12, "stop_sequences": ["9", "8"],
    },
    "a tool": {
        "messages": CALLED[:1], "max_tokens": 60, "tools": [TOOL], "tool_choice": {"type": "any"},
    },
    "what came of a tool": {"messages": CALLED, "max_tokens": 2, "tools": [TOOL]},
}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ASKED)
def test_a_message_asked_as_a_chat_is_told_as_the_engine_itself_tells_it(smol, bare, name):
    """Event by event, and whole: the prompt has the same tokens, and the same comes back."""
    body = ASKED[name] | {"temperature": 0, "model": "smol"}
    own, ours = (events(slowly(server, "/v1/messages", body | {"stream": True})) for server in (bare, smol))
    assert ours == own and own[-1] == {"type": "message_stop"}
    own, ours = (json.loads(slowly(server, "/v1/messages", body)) for server in (bare, smol))
    assert plain(own) == plain(ours)
    entries = [server.calls(2) for server in (bare, smol)]
    counts = [[(entry["prompt_tokens"], entry["completion_tokens"]) for entry in found] for found in entries]
    assert counts[0] == counts[1] and counts[0][0] == counts[0][1]


@pytest.fixture(scope="module")
def bare(smol):
    """The same without adapters: it speaks of messages with its engine's own words."""
    home = smol.folder / "bare"
    add(home, smol.folder / "smol.gguf")
    server = Running(home, env={"FREEHOLD_ENGINE_THREADS": "1"})
    yield server
    assert server.stop() == 0, server.output()


def slowly(server, path: str, body: dict) -> bytes:
    """What is answered, however long it takes."""
    with Wire(server.port, 300) as wire:
        status, _, answer = wire.send(post(path, body, server.key)).read()
    assert status == 200, answer
    return answer


def events(stream: bytes) -> list[dict]:
    """The events of a stream of messages, without what is another each time."""
    lines = [line.removeprefix(b"data: ") for line in stream.split(b"\n") if line.startswith(b"data: ")]
    return [plain(json.loads(line)) for line in lines]


def plain(document: object) -> object:
    """Without ids, names of models, and what of a prompt was kept from before."""
    if isinstance(document, list):
        return [plain(one) for one in document]
    if not isinstance(document, dict):
        return document
    made = {key: plain(value) for key, value in document.items() if key not in ("id", "model")}
    if "cache_read_input_tokens" in made:
        made["input_tokens"] += made.pop("cache_read_input_tokens")
    return made


@pytest.mark.timeout(600)
def test_an_adapter_that_comes_while_the_real_engine_answers_is_served_and_no_call_fails(apart, smol):
    """A long answer goes on to its end in the engine before; the adapter is there after the start of the new one."""
    prompt, said = one(sure(smol, "smol+red@1"))
    red = add(apart.home, smol.folder / "red.gguf", "smol")
    with ThreadPoolExecutor(2) as callers:
        body = {"model": "smol", "prompt": "1, 2, 3, 4, 5,", "max_tokens": 60, "temperature": 0}
        before = callers.submit(slowly, apart, "/v1/completions", body)
        until(lambda: any(one["answering"] for one in queue(apart)))
        assert complete(apart, "smol+red@1", prompt) == said
        assert json.loads(before.result())["usage"]["completion_tokens"] == 60
    prompt, said = one(sure(smol, "smol+blue@1"))
    assert complete(apart, "smol+blue@1", prompt) == said
    assert red.record.name in next(one for one in apart.status()["engines"] if one["purpose"] == "text")["adapters"]


@pytest.mark.timeout(600)
def test_an_adapter_that_the_engine_cannot_load_is_left_out(smol, tmp_path):
    """Past the gate, as if that had been wrong: model and other adapter come up, and that one alone is not served."""
    base, red, odd = (smol.folder / f"{name}.gguf" for name in ("smol", "red", "odd"))
    write(odd, pair("blk.0.attn_q.weight", WIDTH + 1, WIDTH))
    sizes = {path: path.stat().st_size for path in (base, red, odd)}
    manifests = {path: Manifest(path.stem, hash_file(path), size, "gguf", "", False) for path, size in sizes.items()}
    settings = EngineSettings(threads=1, slots=1)

    async def come_up() -> tuple[dict[str, bool], tuple[str, ...]]:
        adapters = [(manifests[path], path) for path in (odd, red)]
        engine = LlamaCpp(manifests[base], base, {}, tmp_path / "run", settings, "best", adapters=adapters)
        await engine.start(lambda: None)
        try:
            return {path.stem: engine.serves(one) for path, one in manifests.items()}, engine.state().adapters
        finally:
            await engine.stop()

    assert asyncio.run(come_up()) == ({"smol": True, "red": True, "odd": False}, ("red",))
