"""From a file of recorded calls to a verdict, as a user goes it: tasks, traffic, replay, certify."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from harness import cli, environment, serving, until
from sqlalchemy import select

from freehold.store import TRAFFIC, Store
from freehold.store.traffic import answers

TASK = """
name = "words"
about = "say eight words"
alias = "incumbent"
margin = 0.1
[scorer]
kind = "exact"
[splits]
tuning = 0.1
validation = 0.1
"""
CALLS = 120
WORDS = "word " * 8  # what the pretended engine says unless it is told otherwise


def line(number: int) -> str:
    """A call in our own format; every twelfth makes the pretended engine say too little, one more fails it."""
    script = {"call": number, "first_ms": 20} | ({"tokens": 3} if number % 12 == 11 else {})
    asked = {"messages": [{"role": "user", "content": json.dumps(script)}], "temperature": 0}
    at = f"2026-05-{number // 24 + 1:02}T{number % 24:02}:00:00Z"
    said = "wrong" if number % 30 == 7 else WORDS
    known = {"id": f"c{number:03}", "time": at, "model": "incumbent", "group": f"g{number // 2}"}
    return json.dumps(known | {"request": asked, "answer": said, "expected": WORDS})


def made(folder: Path, model: Path) -> Path:
    """A home with the model, the task, its calls, and the margin laid down."""
    home = folder / "home"
    with serving(home, model):
        pass
    (folder / "words.toml").write_text(TASK)
    (folder / "calls.jsonl").write_text("\n".join(map(line, range(CALLS))) + "\nbroken\n")
    assert cli("tasks", "add", str(folder / "words.toml"), home=home).returncode == 0
    brought = cli("traffic", "import", str(folder / "calls.jsonl"), "--task", "words", "--json", home=home)
    assert brought.returncode == 0, brought.stderr
    fixed = cli("certify", "words", "--margin", "0.1", "--json", home=home)
    assert fixed.returncode == 0 and json.loads(fixed.stdout)["margin"] == 0.1, fixed.stderr
    return home


def replay(home: Path, *words: str) -> list[str]:
    command = [sys.executable, "-m", "freehold", "replay", "words", "--candidate", "tiny", "--engine", "fake"]
    return [*command, "--home", str(home), *words]


def kept(home: Path) -> int:
    store = Store(home / "traffic.db", TRAFFIC)
    try:
        with store.reader() as connection:
            return len(connection.execute(select(answers.c.sample)).all())
    finally:
        store.close()


@pytest.fixture(scope="module")
def homes(tmp_path_factory, tiny_model) -> tuple[Path, Path]:
    """Two copies of one home; in the first the replay ran through, in the second it was killed at half."""
    folder = tmp_path_factory.mktemp("measure")
    whole = made(folder, tiny_model)
    cut = folder / "cut"
    shutil.copytree(whole, cut)
    done = subprocess.run(replay(whole), env=environment(), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(replay(cut), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: (cut / "traffic.db").exists() and kept(cut) >= 40, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 40 <= kept(cut) < CALLS * 0.9
    until(lambda: not _serves(cut), 60)
    done = subprocess.run(replay(cut), env=environment(), capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return whole, cut


def _serves(home: Path) -> bool:
    """Is the server that the killed replay had started still there?"""
    try:
        pid = json.loads((home / "running.json").read_bytes())["pid"]
        os.kill(pid, 0)
    except (OSError, ValueError):
        return False
    return True


@pytest.mark.timeout(300)
def test_a_replay_that_was_killed_at_half_gives_the_same_verdict_to_the_byte(homes):
    """The other half was asked alone, and `certify --json` prints the same bytes for both homes."""
    said = [cli("certify", "words", "--candidate", "tiny", "--json", home=home) for home in homes]
    assert said[0].returncode == said[1].returncode == 1, said[0].stderr
    assert said[0].stdout == said[1].stdout
    [verdict] = json.loads(said[0].stdout)
    assert (verdict["calls"], verdict["groups"], verdict["errors"]) == (96, 48, 0)
    assert verdict["worse"] == 8 and verdict["better"] == 3


@pytest.mark.timeout(300)
def test_the_picture_and_the_tables_say_what_the_verdict_says(homes, tmp_path):
    """Terminal, CSV and SVG hold the same numbers; nothing new is looked at."""
    home = homes[0]
    cli("certify", "words", "--candidate", "tiny", home=home)
    looks = json.loads(cli("certify", "words", "--json", home=home).stdout)[0]["looks"]
    plain = cli("certify", "words", "--svg", str(tmp_path / "v.svg"), home=home)
    assert plain.returncode == 1 and "undecided" in plain.stdout and "8 worse, 3 better" in plain.stdout
    ET.parse(tmp_path / "v.svg")
    [row] = csv.DictReader(io.StringIO(cli("certify", "words", "--csv", home=home).stdout))
    assert (row["outcome"], row["worse"], row["better"]) == ("undecided", "8", "3")
    assert json.loads(cli("certify", "words", "--json", home=home).stdout)[0]["looks"] == looks


@pytest.mark.timeout(300)
def test_a_margin_is_not_chosen_after_the_look(homes):
    """Exit code 2, and the sentence says what was laid down; margins that are none are refused."""
    done = cli("certify", "words", "--candidate", "tiny", "--margin", "0.5", home=homes[0])
    assert done.returncode == 2 and "was set to 0.1" in done.stderr
    for margin in ("0", "1", "nan", "-0.1", "x"):
        assert "no share between 0 and 1" in cli("certify", "words", "--margin", margin, home=homes[0]).stderr


@pytest.mark.timeout(300)
def test_a_candidate_that_did_not_answer_is_said(homes):
    """With the command that lets it."""
    done = cli("certify", "words", "--candidate", "nobody", home=homes[0])
    assert done.returncode == 2 and "freehold replay words --candidate nobody" in done.stderr


@pytest.mark.timeout(300)
def test_every_step_is_in_the_audit_chain(homes):
    """Task, import, margin and looks, by whom; and the chain holds."""
    home = homes[1]
    acts = [event["act"] for event in json.loads(cli("audit", "list", "--json", home=home).stdout)]
    for act in ("task.add", "traffic.import", "certify.fix", "replay.run"):
        assert act in acts
    assert cli("audit", "verify", home=home).returncode == 0


def test_help_is_there_at_once():
    """No numbers library is imported before it is needed."""
    began = time.monotonic()
    program = "import sys, freehold.cli.main, freehold.app, freehold.cli.up; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert time.monotonic() - began < 60
