"""The proof of privacy: it holds, it says no when the seal is off, and it says so when it proves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import cli, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the seal is the Linux kernel's")


def prove(home, **options) -> tuple[int, dict]:
    done = cli("prove", "privacy", "--json", home=home, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_it_holds_and_its_controls_pass(tmp_path):
    """Every attempt gets through outside the seal and is blocked inside."""
    code, record = prove(tmp_path)
    assert (code, record["verdict"], record["reasons"]) == (0, "holds", [])
    rows = {(row["who"], row["attempt"]): row for row in record["rows"]}
    for who in ("gateway", "engine"):
        for attempt in ("tcp", "udp", "netlink", "forked", "executed", "listener", "accepted"):
            row = rows[who, attempt]
            assert (row["shows"], row["control"]) == ("blocked", "got through"), row
    assert rows["engine", "unix"]["shows"] == rows["engine", "file"]["shows"] == "blocked"
    assert not [row for row in record["rows"] if row["shows"] == "got out"]


def test_it_fails_when_the_seal_is_off(tmp_path):
    """Exit code 1, and what got out."""
    code, record = prove(tmp_path, env={"FREEHOLD_SEAL": "off"})
    assert (code, record["verdict"]) == (1, "broken")
    assert "the engine could connect over TCP" in record["reasons"]
    assert "the gateway could send a datagram over UDP" in record["reasons"]


def test_it_fails_when_a_running_server_is_not_sealed(tmp_path, tiny_model):
    """The seal is the server's, not this command's setting; its processes are looked up in the kernel."""
    from harness import serving

    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SEAL": "off"}) as server:
        code, record = prove(server.home)
    assert (code, record["verdict"]) == (1, "broken")
    assert any(reason.startswith("the running gateway") for reason in record["reasons"])
    assert any(reason.startswith("the running engine tiny") for reason in record["reasons"])


def test_it_looks_up_the_processes_of_a_sealed_server(fake):
    """Gateway and engine, each with its pid."""
    code, record = prove(fake.home)
    assert code == 0
    assert {process["who"]: process["pid"] for process in record["processes"]} == {
        "gateway": fake.process.pid,
        "engine tiny": fake.engine_pid(),
    }


def test_a_proof_whose_control_fails_proves_nothing_and_says_so(tmp_path):
    """In a network namespace whose loopback is down even the control cannot get through."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no network namespaces")
    words = [sys.executable, "-m", "freehold", "prove", "privacy", "--json", "--home", str(tmp_path)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment())
    record = json.loads(done.stdout)
    assert (done.returncode, record["verdict"]) == (2, "proves nothing")
    assert "control failed" in record["reasons"][0]


def test_the_record_is_signed_and_a_changed_one_is_found_out(tmp_path):
    """By 'prove check', exit code 1."""
    _, record = prove(tmp_path)
    good = cli("prove", "check", record["file"], home=tmp_path)
    assert good.returncode == 0 and "signature is good" in good.stdout
    text = Path(record["file"]).read_text()
    changed = text.replace(r"\"verdict\":\"holds\"", r"\"verdict\":\"broken\"")
    assert changed != text
    other = tmp_path / "changed.json"
    other.write_text(changed)
    bad = cli("prove", "check", str(other), home=tmp_path)
    assert bad.returncode == 1 and "does not fit" in bad.stdout
    assert oct(os.stat(tmp_path / "signing-key.pem").st_mode)[-3:] == "600"
    nothing = cli("prove", "check", str(tmp_path / "none.json"), home=tmp_path)
    assert nothing.returncode == 2 and "Traceback" not in nothing.stderr


def test_a_proof_that_somebody_else_signed_is_not_good(tmp_path):
    """A home trusts its own key and its own chain; another's key must be named."""
    _, record = prove(tmp_path / "theirs")
    prove(tmp_path / "ours")
    theirs = cli("prove", "check", record["file"], home=tmp_path / "ours")
    assert theirs.returncode == 1 and "another signer" in theirs.stdout and "chain" in theirs.stdout
    key = json.loads(Path(record["file"]).read_text())["public_key"]
    named = cli("prove", "check", record["file"], "--key", key, home=tmp_path / "ours")
    assert named.returncode == 0 and "signature is good" in named.stdout


def test_it_is_an_act_in_the_audit_chain(tmp_path):
    """With the hash of the record."""
    import hashlib

    _, record = prove(tmp_path)
    events = json.loads(cli("audit", "list", "--json", home=tmp_path).stdout)
    signed = json.loads(Path(record["file"]).read_text())
    assert events[-1]["act"] == "proof.run" and events[-1]["detail"]["verdict"] == "holds"
    assert events[-1]["detail"]["sha256"] == hashlib.sha256(signed["record"].encode()).hexdigest()
