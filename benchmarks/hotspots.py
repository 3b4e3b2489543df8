"""Where the gateway's time goes for one governed call: shares by module, from Python's own profiler.

    python benchmarks/hotspots.py

The profiler slows small functions more than large ones, so the shares are a map, not a measurement; `make bench`
measures.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import contestants as who

HERE = Path(__file__).parent
REQUESTS = 3000


def main() -> int:
    """Serve under the profiler in a child, put load on it, and say where the time went."""
    if sys.argv[1:2] == ["--serve"]:
        words = sys.argv[2:]
        return serve(words, Path(words[words.index("--home") + 1]).parent / "profile")
    one = Profiled()
    try:
        one.start()
        load(one, 300)
        one.process.send_signal(signal.SIGUSR1)
        load(one, REQUESTS)
        one.process.send_signal(signal.SIGUSR2)
        result = one.folder / "profile"
        who.wait_for(result.exists, one.process, 20)
        show(shares(pstats.Stats(str(result))))
    finally:
        one.stop()
    return 0


class Profiled(who.Freehold):
    """Freehold, relaxed, with a profiler that listens to signals."""

    def __init__(self):
        super().__init__("relaxed")

    def launch(self) -> subprocess.Popen:
        command = [sys.executable, str(HERE / "hotspots.py"), "--serve", "up", "--home", str(self.folder / "home")]
        command += ["--port", str(self.port), "--engine", "fake", "--model", str(self.folder / "tiny.gguf")]
        settings = {"FREEHOLD_LEDGER_DURABILITY": "relaxed", "FREEHOLD_ENGINE_SLOTS": "64"}
        return who.spawn(command, who.GATEWAY_CORE, self.folder / "log", env=settings)

    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
        (self.folder / "tiny.gguf").write_bytes(who.gguf())
        self.port = who.free_port()
        self.process = self.launch()
        log = self.folder / "log"
        who.wait_for(lambda: "Freehold answers at" in log.read_text(), self.process, 30)
        self.key = next(word for word in log.read_text().split() if word.startswith("fh_"))
        for child in who.children(self.process.pid):
            who.pin(child, who.LOAD_CORE)


def serve(words: list[str], result: Path) -> int:
    """A ``freehold`` command; SIGUSR1 begins the profile, SIGUSR2 writes it."""
    from freehold.cli.main import main as freehold

    profiler = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profiler.enable())
    signal.signal(signal.SIGUSR2, lambda *_: (profiler.disable(), profiler.dump_stats(result)))
    return freehold(words)


def load(one: who.Contestant, requests: int) -> None:
    command = [sys.executable, str(HERE / "load.py"), "--port", str(one.port), "--key", one.key, "--warm", "0"]
    command += ["--body", json.dumps(who.call_body(tokens=1)), "--connections", "16", "--requests", str(requests)]
    with who.pinned(who.LOAD_CORE):
        subprocess.run([*command, "--seconds", "120"], check=True, capture_output=True, env=os.environ)


def shares(stats: pstats.Stats) -> Counter[str]:
    """Seconds by module; what is built in counts for whoever calls it."""
    found: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in stats.stats.items():
        if file == "~":
            for (caller, _, _), (_, _, spent, _) in callers.items():
                found[module(caller)] += spent
        else:
            found[module(file)] += own
    return found


def module(file: str) -> str:
    """A file's module, if it is ours; all others are one."""
    _, ours, name = file.partition("/freehold/")
    return name if ours else "Python's own library"


def show(found: Counter[str]) -> None:
    """A line for each module, largest first."""
    total = sum(found.values())
    for name, seconds in found.most_common(18):
        print(f"{seconds / total:6.1%}  {name:<24} {'█' * round(seconds / total * 100)}")
    print(f"{total / REQUESTS * 1e6:.0f} microseconds a call under the profiler, {REQUESTS:,} calls")


if __name__ == "__main__":
    sys.exit(main())
