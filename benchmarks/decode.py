"""The second part of the benchmark: tokens of the real engine, through Freehold and on the engine's own socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import contestants as who

from freehold import config
from freehold.engine.dialect import PATHS
from freehold.engine.llamacpp import LlamaCpp
from freehold.types import Kind
from freehold.vault import Vault

STREAMS = (1, 4, 8)
TOKENS = 128
HERE = Path(__file__).parent


def compare(rounds: int, say) -> dict:
    """Tokens a second at 1, 4 and 8 streams, each way in turns; the ratio of each pair, and their median.

    Both ways lead to an engine of the same settings and the same model, each its own process; the one that has
    no turn is idle.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    settings = {
        "FREEHOLD_ENGINE_SLOTS": "8",
        "FREEHOLD_ENGINE_CONTEXT": "1024",
        "FREEHOLD_LEDGER_DURABILITY": "relaxed",
    }
    running = own = None
    try:
        shutil.copytree(who.STARTER_HOME / "vault", folder / "home" / "vault")
        shutil.copy2(who.STARTER_HOME / "signing-key.pem", folder / "home")  # by which its records are signed
        running = who.Running(folder / "home", env=settings)
        own = OwnEngine(folder, running)
        pairs: dict[int, list[tuple[float, float]]] = {count: [] for count in STREAMS}
        for number in range(rounds):
            for count in STREAMS:
                say(f"decode, round {number + 1} of {rounds}: {count} streams")
                if number % 2:
                    ours, theirs = through(running, count), own.direct(count)
                else:
                    theirs, ours = own.direct(count), through(running, count)
                pairs[count].append((ours, theirs))
        return {
            "tokens": TOKENS,
            "model": running.status()["models"][0]["name"],
            "rows": [row(*item) for item in pairs.items()],
        }
    finally:
        if own:
            own.stop()
        if running:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def row(count: int, pairs: list[tuple[float, float]]) -> dict:
    """The medians of one number of streams."""
    ratios = [through / direct for through, direct in pairs]
    return {
        "streams": count,
        "freehold": round(statistics.median(through for through, _ in pairs), 1),
        "engine": round(statistics.median(direct for _, direct in pairs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "lowest": round(min(ratios), 4),
        "highest": round(max(ratios), 4),
    }


def body(count: int) -> dict:
    """A prompt that the model answers at length; the same for both ways."""
    return {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": "Write a long story about a lighthouse keeper and the sea."}],
        "max_tokens": TOKENS, "stream": True, "temperature": 0, "seed": count, "logit_bias": {"2": -100},
    }  # fmt: skip


def through(running: who.Running, count: int) -> float:
    """Tokens a second through Freehold."""
    return rate(["--port", str(running.port), "--key", running.key], body(count), count)


class OwnEngine:
    """The same engine, started by Freehold's own code, with its socket for ourselves."""

    def __init__(self, folder: Path, running: who.Running):
        vault = Vault(running.home / "vault")
        (model,) = vault.list()
        settings = config.EngineSettings(slots=8, context=1024)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine = LlamaCpp(model, vault.blob(model.digest), vault.record(model).metadata, folder, settings, "best")
        self._do(self._engine.start(lambda: None))

    def direct(self, count: int) -> float:
        """Tokens a second on the engine's own socket."""
        process = self._engine._process
        flags = ["--socket", process.socket, "--path", PATHS[Kind.CHAT]]
        flags += ["--key", process.headers["Authorization"].removeprefix("Bearer ")]
        return rate(flags, body(count) | {"timings_per_token": True}, count)

    def stop(self) -> None:
        """End it."""
        self._do(self._engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


def rate(flags: list[str], request: dict, count: int) -> float:
    """Events a second of so many streams at once, from before they connect to the end of the last. An event is a
    token, but for three of each stream: its beginning, its end and [DONE]; both ways have them."""
    command = [sys.executable, str(HERE / "load.py"), *flags, "--body", json.dumps(request)]
    command += ["--connections", str(count), "--requests", str(count), "--seconds", "120", "--warm", "0"]
    time.sleep(0.3)
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ, check=True)
    found = json.loads(done.stdout)
    if found["failed"] or found["answered"] != count:
        raise who.Unavailable(f"{found['failed']} of {count} streams failed")
    return found["events_per_s"]
