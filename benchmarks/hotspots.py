"""Where the gateway's time goes for one governed call: shares by module, from Python's own profiler.

    python benchmarks/hotspots.py [--every-rule] [--functions 40]

``--every-rule`` has everything on that a house can ask for; ``--functions`` also shows the dearest functions.

The profiler slows small functions more than large ones, so the shares are a map, not a measurement; `make bench`
measures.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import signal
import subprocess
import sys
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
    reading = argparse.ArgumentParser()
    reading.add_argument("--every-rule", action="store_true")
    reading.add_argument("--functions", type=int, default=0)
    asked = reading.parse_args()
    one = (Governed if asked.every_rule else Defaults)("relaxed")
    try:
        one.start()
        load(one, 300)
        one.process.send_signal(signal.SIGUSR1)
        load(one, REQUESTS)
        one.process.send_signal(signal.SIGUSR2)
        result = one.folder / "profile"
        who.wait_for(result.exists, one.process, 20)
        stats = pstats.Stats(str(result))
        show(shares(stats))
        show_functions(stats, asked.functions)
    finally:
        one.stop()
    return 0


class Profiled:
    """Its server runs under a profiler that listens to signals."""

    SERVES = (sys.executable, str(HERE / "hotspots.py"), "--serve")


class Defaults(Profiled, who.Freehold):
    """Freehold with its defaults."""


class Governed(Profiled, who.Governed):
    """Freehold with every rule on."""


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


def show_functions(stats: pstats.Stats, most: int) -> None:
    """A line for each of the dearest functions: microseconds a call with what it calls, and by itself; how often."""
    found = sorted(stats.stats.items(), key=lambda item: -item[1][3])
    for (file, line, name), (_, times, own, whole, _) in found[:most]:
        where = f"{module(file)}:{line}" if file != "~" else "built in"
        each = 1e6 / REQUESTS
        print(f"{whole * each:8.1f} {own * each:8.1f} {times / REQUESTS:6.2f}  {name}  ({where})")


if __name__ == "__main__":
    sys.exit(main())
