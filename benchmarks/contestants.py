"""Who is compared: each knows how to install itself, start in front of the same pretended engine, and stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE / ".venvs"
TESTS = HERE.parent / "tests"
PYTHON = next((str(path) for path in [HERE.parent / ".venv/bin/python"] if path.exists()), sys.executable)  # Freehold's
STARTER_HOME = VENVS / "starter"
sys.path.insert(0, str(TESTS))

from harness import Running, gguf  # noqa: E402 - the tests know how to start Freehold as a user does

GATEWAY_CORE, LOAD_CORE = 0, 1


class Unavailable(Exception):
    """This contestant cannot be installed or started here; the message is the reason."""


class Contestant:
    """One gateway. ``processes`` are those whose time and memory count as the gateway's."""

    name = ""
    governed = "no"
    requirements = ""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self.mock: subprocess.Popen | None = None
        self.port = 0
        self.key = ""
        self.started_s = 0.0
        self.folder = Path()

    def install(self) -> None:
        """Make its virtual environment, if it needs one. Raises Unavailable."""
        if self.requirements:
            make_venv(self.requirements)

    def start(self) -> None:
        """Start it in front of a fresh mock and wait until it answers a call. Raises Unavailable."""
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.mock_port, self.port = free_port(), free_port()
        self.mock = spawn([PYTHON, str(HERE / "mock.py"), str(self.mock_port)], LOAD_CORE, self.folder / "mock.log")
        wait_for(lambda: answers(self.mock_port, "/v1/models", ""), self.mock, 20)
        begun = time.monotonic()
        self.process = self.launch()
        wait_for(lambda: self.answers(), self.process, 120)
        self.started_s = time.monotonic() - begun

    def launch(self) -> subprocess.Popen:
        """Start the gateway's own process."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Is a call answered?"""
        return answers(self.port, "/v1/chat/completions", self.key, call_body(tokens=1))

    def stop(self) -> None:
        """End what was started."""
        for process in (self.process, self.mock):
            if process is not None and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """The gateway's process and its children."""
        return [self.process.pid, *children(self.process.pid)] if self.process else []

    def version(self) -> str:
        """What is compared, exactly."""
        return ""


class Direct(Contestant):
    """The load goes to the mock itself: what the mock and the load generator can do."""

    name = "direct to the mock"

    def launch(self) -> subprocess.Popen:
        self.port = self.mock_port
        return self.mock

    def processes(self) -> list[int]:
        return []


class Freehold(Contestant):
    """Freehold as ``freehold up`` starts it: sealed, with keys, leases and the ledger."""

    governed = "yes"
    SERVES = (sys.executable, "-m", "freehold")

    def __init__(self, durability: str):
        super().__init__()
        self.durability = durability
        self.name = f"Freehold, ledger {durability}"
        self.running: Running | None = None

    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        model = self.folder / "tiny.gguf"
        model.write_bytes(gguf())
        self.prepare()
        settings = {"FREEHOLD_LEDGER_DURABILITY": self.durability, "FREEHOLD_ENGINE_SLOTS": "64"}
        begun = time.monotonic()
        with pinned(GATEWAY_CORE):
            self.running = Running(
                self.folder / "home", "--engine", "fake", "--model", str(model), env=settings, command=self.SERVES
            )
        self.started_s = time.monotonic() - begun
        self.process, self.port, self.key = self.running.process, self.running.port, self.running.key
        self.engine = self.running.engine_pid()
        pin(self.engine, LOAD_CORE)
        self.begin()
        wait_for(lambda: self.answers(), self.process, 20)

    def prepare(self) -> None:
        """Before it starts."""

    def begin(self) -> None:
        """Once it answers."""

    def processes(self) -> list[int]:
        return [self.process.pid]

    def version(self) -> str:
        import freehold

        return freehold.__version__


FAR = {
    "calls-per-minute": 10**9, "calls-at-once": 10**6, "tokens-per-minute": 10**12, "tokens-per-day": 10**14,
    "tokens-per-month": 10**14, "money-per-day": 10**9, "money-per-month": 10**9,
}  # fmt: skip


class Governed(Freehold):
    """Freehold with everything on that a house can ask for: a key in a team, rates and budgets of calls, tokens and
    money for both, a guard that reads every prompt for every kind, a log line and a trace for every call, and
    checkpoints outside. Its limits are far away, so that each is reckoned with and none is met."""

    def __init__(self, durability: str):
        super().__init__(durability)
        self.name = f"{self.name}, every rule on"
        self.relay: list[int] = []

    def prepare(self) -> None:
        port = free_port()
        self.mock = spawn([PYTHON, str(HERE / "collector.py"), str(port)], LOAD_CORE, self.folder / "collector.log")
        home = self.folder / "home"
        home.mkdir(mode=0o700)
        (home / "freehold.toml").write_text(f"""
upstream_hosts = ["127.0.0.1:{port}"]
[traces]
endpoint = "http://127.0.0.1:{port}"
[logs]
calls = true
format = "json"
[guard.house]
secrets = "mask"
personal = "mask"
[audit]
checkpoint_to = "{self.folder}/checkpoints.jsonl"
[cost.prices."tiny"]
input = 0.05
output = 0.20
""")

    def begin(self) -> None:
        limits = [word for name, most in FAR.items() for word in (f"--{name}", str(most))]
        self._cli("teams", "add", "bench")
        self._cli("limits", "set", "--team", "bench", *limits)
        self.key = json.loads(self._cli("keys", "create", "load", "--team", "bench", "--json"))["key"]
        self._cli("limits", "set", "load", *limits)
        found = self.running.status()["seal"]["processes"]
        self.relay = [one["pid"] for one in found if one["who"].startswith("relay")]

    def processes(self) -> list[int]:
        return [self.process.pid, *self.relay]

    def _cli(self, *words: str) -> str:
        done = self.running.cli(*words)
        if done.returncode:
            raise Unavailable(done.stderr.strip())
        return done.stdout


class Ungoverned(Contestant):
    """Freehold's server and engine client with nothing between them; see ungoverned.py."""

    name = "Freehold's parts, governance off"
    loop = "uvloop"

    def launch(self) -> subprocess.Popen:
        place = self.folder / "engine.sock"
        self.mock.terminate()
        self.mock.wait()
        self.mock = spawn([PYTHON, str(HERE / "mock.py"), str(place)], LOAD_CORE, self.folder / "mock.log")
        wait_for(place.exists, self.mock, 20)
        command = [PYTHON, str(HERE / "ungoverned.py"), str(self.port), str(place), self.loop]
        return spawn(command, GATEWAY_CORE, self.folder / "log", stdin=subprocess.PIPE)


class LiteLLM(Contestant):
    """The common gateway: its proxy with a master key, one worker, telemetry off, no database."""

    name = "LiteLLM proxy"
    governed = "a key"
    requirements = "litellm"

    def launch(self) -> subprocess.Popen:
        self.key = "sk-bench"
        config = {
            "model_list": [
                {
                    "model_name": "tiny",
                    "litellm_params": {
                        "model": "openai/tiny", "api_base": f"http://127.0.0.1:{self.mock_port}/v1", "api_key": "x",
                    },
                }
            ],
            "litellm_settings": {"telemetry": False},
            "general_settings": {"master_key": self.key},
        }  # fmt: skip
        path = self.folder / "config.json"  # JSON is YAML
        path.write_text(json.dumps(config))
        command = [
            str(VENVS / "litellm/bin/litellm"),
            "--config",
            str(path),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += ["--num_workers", "1", "--telemetry", "False"]
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
        return spawn(command, GATEWAY_CORE, self.folder / "log", env=quiet)

    def version(self) -> str:
        return pinned_version("litellm")


class VllmRouter(Contestant):
    """A router in Rust, with no keys and no ledger."""

    name = "vllm-router"
    requirements = "vllm-router"

    def launch(self) -> subprocess.Popen:
        command = [str(VENVS / "vllm-router/bin/vllm-router"), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--worker-urls", f"http://127.0.0.1:{self.mock_port}", "--policy", "round_robin"]
        command += ["--log-level", "error", "--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1"]
        return spawn(command, GATEWAY_CORE, self.folder / "log")

    def version(self) -> str:
        return pinned_version("vllm-router")


class Relay(Contestant):
    """A bare relay on Starlette, uvicorn and aiohttp; see relay.py."""

    name = "bare Starlette relay"
    requirements = "relay"

    def launch(self) -> subprocess.Popen:
        command = [str(VENVS / "relay/bin/uvicorn"), "relay:app", "--app-dir", str(HERE), "--port", str(self.port)]
        command += ["--log-level", "error", "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
        return spawn(command, GATEWAY_CORE, self.folder / "log", env={"ENGINE": f"http://127.0.0.1:{self.mock_port}"})

    def version(self) -> str:
        return pinned_version("relay")


def all_contestants() -> list[Contestant]:
    """One of each, not started."""
    ours = [Freehold("relaxed"), Freehold("strict"), Governed("relaxed"), Governed("strict"), Ungoverned()]
    return [Direct(), *ours, Relay(), VllmRouter(), LiteLLM()]


def make_venv(name: str) -> None:
    """A throw-away environment from its pinned requirements. Raises Unavailable with pip's last line."""
    folder = VENVS / name
    done = folder / ".installed"
    if done.exists() and done.stat().st_mtime > (HERE / "requirements" / f"{name}.txt").stat().st_mtime:
        return
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/pip"), "--disable-pip-version-check", "install", "--quiet", "-r"]
    made = subprocess.run([*pip, str(HERE / "requirements" / f"{name}.txt")], capture_output=True, text=True)
    if made.returncode:
        last = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"it cannot be installed: {last}")
    done.touch()


def fetch_starter() -> None:
    """A home with the starter model in its vault, for where there is no network to fetch it over."""
    if not (STARTER_HOME / "vault" / "index.json").exists():
        running = Running(STARTER_HOME)
        running.stop()


def pinned_version(name: str) -> str:
    """Its requirements, in one line."""
    return ", ".join((HERE / "requirements" / f"{name}.txt").read_text().split())


def spawn(command: list[str], core: int, log: Path, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
    """Start a process on one core, with what it prints in a file."""
    with log.open("ab") as stream, pinned(core):
        return subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ | (env or {}), **options
        )  # fmt: skip


@contextlib.contextmanager
def pinned(core: int):
    """What is started in this block runs on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, core: int) -> None:
    """Move a process, with its threads, to a core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), {core})


def children(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, thread.read_text().split()):
                found += [child, *children(child)]
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def call_body(*, tokens: int, stream: bool = False) -> dict:
    """A chat that the mock answers with so many tokens at once."""
    order = json.dumps({"tokens": tokens})
    return {"model": "tiny", "messages": [{"role": "user", "content": order}]} | ({"stream": True} if stream else {})


def answers(port: int, path: str, key: str, body: dict | None = None) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None)
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def wait_for(check, process: subprocess.Popen, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        if process.poll() is not None:
            raise Unavailable(f"it ended with code {process.returncode} when it was started")
        if time.monotonic() > deadline:
            raise Unavailable(f"it did not answer within {seconds:g} s of its start")
        time.sleep(0.02)
