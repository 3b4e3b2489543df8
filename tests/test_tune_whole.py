"""The whole move on a tiny task, with the real engine and real training: switch, tune, promote, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import MODEL, Running, cli, environment
from harness import ask as ask_server

for library in ("torch", "transformers", "peft", "gguf"):
    pytest.importorskip(library, reason=f"{library} is not installed; the extra 'tune' brings it")

pytestmark = pytest.mark.timeout(900)
SORTS = {
    "apple": "fruit", "pear": "fruit", "plum": "fruit", "cherry": "fruit", "hammer": "tool", "saw": "tool",
    "drill": "tool", "pliers": "tool", "trout": "fish", "salmon": "fish", "carp": "fish", "tuna": "fish",
}  # fmt: skip
ASKS = (
    "What is a {}?", "Sort this: {}", "{}", "Which kind is {}?", "The word is {}.", "Tell me the kind of {}, please.",
    "Kind of {}?", "And a {}?", "Please sort the word {}.", "{} is a...", "Next: {}", "Now {}.", "How about {}?",
    "I have a {} here.", "One more: {}",
)  # fmt: skip
TASK = """
name = "sorts"
about = "a word into one of three kinds"
alias = "incumbent"
margin = 0.2
price = "gpt-4o-mini"
terms = "made up; no terms apply"
[scorer]
kind = "exact"
[splits]
tuning = 0.6
validation = 0.1
"""
SWITCH = f"""
task = "task.toml"
traffic = ["calls.jsonl"]
base = "{MODEL}"
dossier = "dossier.html"
[tune]
epochs = 3
batch = 4
lr = 0.002
[replay]
baseline = 4
"""


def calls() -> list[dict]:
    """Every question about every word, in an order in which each part has all kinds."""
    asked = [(ask, word) for ask in ASKS for word in SORTS]
    asked.sort(key=lambda pair: hash_of(f"{pair[0]} {pair[1]}"))
    return [
        {
            "id": f"c{number:03}", "model": "incumbent",
            "time": f"2026-05-{number // 24 + 1:02}T{number % 24:02}:00:00Z",
            "request": {"messages": [{"role": "user", "content": ask.format(word)}], "temperature": 0, "max_tokens": 6},
            "answer": SORTS[word], "expected": SORTS[word],
        }
        for number, (ask, word) in enumerate(asked)
    ]  # fmt: skip


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@pytest.fixture(scope="module")
def place(tmp_path_factory, real) -> Path:
    """A folder with a switch in it, and a home whose vault has the starter."""
    folder = tmp_path_factory.mktemp("switch")
    (folder / "task.toml").write_text(TASK)
    (folder / "switch.toml").write_text(SWITCH)
    (folder / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls()))
    (folder / "home").mkdir(mode=0o700)
    for name in ("vault", "signing-key.pem"):
        source = real.home / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / "home" / name)
    return folder


@pytest.fixture(scope="module")
def moved(place) -> subprocess.CompletedProcess:
    """``freehold switch``, once, to its end."""
    return cli("switch", str(place / "switch.toml"), home=place / "home", timeout=800)


def test_the_whole_move(place, moved):
    """Every stage is done, the tuned candidate is non-inferior, and nothing is promoted."""
    assert moved.returncode == 0, moved.stdout + moved.stderr
    lines = moved.stdout.splitlines()
    assert [line.split()[1] for line in lines[:10]] == [
        "task", "import", "margin", "baseline", "tune", "replay", "certify", "cost", "privacy", "dossier",
    ]  # fmt: skip
    assert f"{MODEL}+sorts@1" in moved.stdout and "non-inferior" in moved.stdout
    assert f"To promote: freehold promote incumbent {MODEL}+sorts@1" in moved.stdout
    listed = json.loads(cli("models", "list", "--json", home=place / "home").stdout)
    adapter = next(model for model in listed["admitted"] if model["name"] == f"{MODEL}+sorts@1")
    assert adapter["format"] == "gguf-adapter" and adapter["base"].startswith("sha256:")


def test_a_second_time_costs_nothing(place, moved):
    """All of it was done before, and the end is the same."""
    begun = time.monotonic()
    again = cli("switch", str(place / "switch.toml"), home=place / "home")
    assert again.returncode == 0 and again.stdout.count("done before") == 10
    assert time.monotonic() - begun < 60
    assert again.stdout.splitlines()[-4:] == moved.stdout.splitlines()[-4:]


def test_the_run_is_on_record(place, moved):
    """The chain names the run, the adapter and the data; the dossier has its curve and its parity, and verifies."""
    home = place / "home"
    events = json.loads(cli("audit", "list", "--json", home=home).stdout)
    (done,) = [event for event in events if event["act"] == "tuning.done"]
    assert done["subject"] == f"{MODEL}+sorts@1" and done["detail"]["admitted"] is True
    assert cli("audit", "verify", home=home).returncode == 0
    assert cli("report", "verify", str(place / "dossier.html"), home=home).returncode == 0
    page = (place / "dossier.html").read_text()
    assert done["detail"]["adapter"] in page and "non-inferior" in page
    (place / "changed.html").write_text(page.replace("non-inferior", "inferior", 1))
    assert cli("report", "verify", str(place / "changed.html"), home=home).returncode == 1


def test_it_is_promoted(place, moved):
    """Not the base, which has no verdict. The application's own name is answered by the adapter; there is nothing to
    take it back to, and that is said."""
    home = place / "home"
    assert cli("promote", "incumbent", MODEL, home=home).returncode == 1
    assert cli("promote", "incumbent", f"{MODEL}+sorts@1", home=home).returncode == 0
    key = json.loads(cli("keys", "create", "application", "--json", home=home).stdout)["key"]
    server = Running(home)
    try:
        right = 0
        for ask, word in (("What is a {}?", "salmon"), ("Sort this: {}", "pliers"), ("{}", "plum")):
            body = {"model": "incumbent", "messages": [{"role": "user", "content": ask.format(word)}]}
            body |= {"temperature": 0, "max_tokens": 6}
            status, headers, said = ask_server(server, "/v1/chat/completions", body, key)
            assert status == 200 and headers["x-freehold-model"].startswith(f"{MODEL}+sorts@1@sha256:")
            right += json.loads(said)["choices"][0]["message"]["content"] == SORTS[word]
        assert right >= 2
        entry = server.calls(1)[0]
        assert entry["model"].endswith("+sorts@1") and entry["alias"] == "incumbent"
        back = cli("rollback", "incumbent", home=home)
        assert back.returncode == 2 and "nothing before" in back.stderr
    finally:
        server.stop()


def test_a_run_that_is_killed_goes_on(place, moved, tmp_path):
    """kill -9 in mid-training leaves nothing half-registered; --resume makes the very adapter of an unbroken run."""
    home = place / "home"
    words = ["tune", "sorts", "--base", MODEL, "--epochs", "0.4", "--batch", "4", "--rank", "4", "--json"]
    whole = json.loads(cli(*words, home=home, timeout=400).stdout)
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", *words, "--home", str(home)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    state = next(_states(home, process))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert state.exists()
    names = [model["name"] for model in json.loads(cli("models", "list", "--json", home=home).stdout)["admitted"]]
    assert sorted(name.rpartition("@")[2] for name in names if "+" in name) == ["1", "2"]
    again = cli(*words, "--resume", home=home, timeout=400)
    assert again.returncode == 0, again.stderr
    resumed = json.loads(again.stdout)
    assert resumed["id"] == whole["id"] and resumed["best_step"] == whole["best_step"]
    assert [point["loss"] for point in resumed["curve"]] == [point["loss"] for point in whole["curve"]]


def _states(home: Path, process: subprocess.Popen):
    """The first state that a run keeps, when it is there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        found = list((home / "tuning").glob("*/checkpoint.safetensors"))
        if found:
            yield found[0]
        time.sleep(0.02)
    raise AssertionError("the run kept no state")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda call, number: call | {"expected": "fruit", "answer": "fruit"}, "same answer"),
        (lambda call, number: call if number < 30 else None, "at least 32"),
    ],
)
def test_what_cannot_be_learned_is_refused(place, moved, tmp_path, change, said):
    """One answer only, or too few calls: a sentence with what is needed, and nothing is registered."""
    home = tmp_path / "home"
    shutil.copytree(place / "home", home, ignore=shutil.ignore_patterns("traffic.db*", "switches", "run", "lock"))
    found = [change(call, number) for number, call in enumerate(calls())]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in found if call))
    assert cli("traffic", "import", str(tmp_path / "calls.jsonl"), "--task", "sorts", home=home).returncode == 0
    done = cli("tune", "sorts", "--base", MODEL, home=home, timeout=300)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_that_gives_orders_runs_nothing(place, moved, tmp_path):
    """A recorded call that holds template code and orders is text like any other, and ends up in examples as such."""
    home = tmp_path / "home"
    shutil.copytree(place / "home", home, ignore=shutil.ignore_patterns("traffic.db*", "switches", "run", "lock"))
    mark = tmp_path / "pwned"
    order = "{{ cycler.__init__.__globals__.os.popen('touch " + str(mark) + "').read() }} $(touch " + str(mark) + ")"
    poisoned = []
    for call in calls()[:90]:
        messages = [{"role": "user", "content": f"{order} {call['request']['messages'][0]['content']}"}]
        poisoned.append(call | {"request": call["request"] | {"messages": messages}})
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in poisoned))
    assert cli("traffic", "import", str(tmp_path / "calls.jsonl"), "--task", "sorts", home=home).returncode == 0
    done = cli("tune", "sorts", "--base", MODEL, "--epochs", "0.2", "--rank", "2", home=home, timeout=400)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
