"""``make bench``: what Freehold's request path costs, beside others, in one run on one machine.

Every contestant stands in front of the same pretended engine and before the same load generator; these two share
one core, the contestant has the other. The contestants take turns, over several rounds, so that what the machine
does besides falls on all alike; the table has the medians. The second part asks the real engine for the starter
model's tokens, through Freehold and on the engine's own socket, in turns.

Everything runs in a network namespace of its own that has loopback and nothing else, where the kernel allows one.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import contestants as who
import decode
import report

HERE = Path(__file__).parent
RESULT = HERE / "results.json"
PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"
SOAK = 200_000  # requests after which the memory is looked at again
SOAK_SECONDS = 120  # or as many as there are in this time
TOKENS = 1  # of a whole answer
EVENTS = 28  # tokens of a stream: 31 events with the role, the end and [DONE]


def main() -> int:
    """Read the flags, run, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--only", help="names, or parts of them, with commas")
    parser.add_argument("--no-decode", action="store_true", help="leave the second part out")
    parser.add_argument("--no-soak", action="store_true", help=f"leave the {SOAK:,} requests out")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen, missing = choose(arguments.only)
    if arguments.inside is None:
        if not arguments.no_decode:
            who.fetch_starter()
        return enter_own_network()
    if arguments.inside == "own":
        bring_loopback_up()
    result = measure(arguments, chosen, missing)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    arguments.page.write_text(report.page(result))
    print(f"\n{arguments.page} is written.")
    return 0


def choose(only: str | None) -> tuple[list[who.Contestant], dict[str, str]]:
    """Who takes part, and who cannot, with the reason."""
    chosen, missing = [], {}
    for contestant in who.all_contestants():
        if only and not any(part.strip().lower() in contestant.name.lower() for part in only.split(",")):
            continue
        try:
            contestant.install()
        except who.Unavailable as reason:
            missing[contestant.name] = str(reason)
        else:
            chosen.append(contestant)
    return chosen, missing


def enter_own_network() -> int:
    """This program again, where there is loopback and nothing else; where that may not be had, as it is."""
    again = [sys.executable, *sys.argv, "--inside"]
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0:
        return subprocess.call(["unshare", "-rn", *again, "own"])
    print("No network namespace can be made here: the contestants keep this machine's network.", file=sys.stderr)
    return subprocess.call([*again, "shared"])


def bring_loopback_up() -> None:
    """Set the interface ``lo`` up, as ``ip link set lo up`` does (ioctl SIOCSIFFLAGS, IFF_UP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 1))


def measure(arguments: argparse.Namespace, chosen: list[who.Contestant], missing: dict[str, str]) -> dict:
    """All rounds, then the long runs, then the real engine."""
    rows: dict[str, dict] = {
        one.name: {"governed": one.governed, "version": one.version(), "rounds": []} for one in chosen
    }
    for number in range(arguments.rounds):
        for contestant in [*chosen[number % len(chosen) :], *chosen[: number % len(chosen)]]:
            say(f"round {number + 1} of {arguments.rounds}: {contestant.name}")
            rows[contestant.name]["rounds"].append(attempt(contestant, lambda one: one_round(one, arguments.seconds)))
    if not arguments.no_soak:
        for contestant in chosen:
            if contestant.name != who.Direct.name:
                say(f"{SOAK:,} requests: {contestant.name}")
                rows[contestant.name]["soak"] = attempt(contestant, soak)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": "make bench" if arguments.rounds == 5 else f"make bench ROUNDS={arguments.rounds}",
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "own_network": arguments.inside == "own",
        "machine": machine(),
        "tokens": TOKENS,
        "contestants": rows,
        "missing": missing,
        "decode": None if arguments.no_decode else second_part(arguments.rounds),
    }


def second_part(rounds: int) -> dict | None:
    """The real engine; None where it does not come up, for what was measured before is not to be lost."""
    try:
        return decode.compare(rounds, say)
    except Exception as reason:  # noqa: BLE001 - whatever it is, it takes nothing from the first part
        say(f"the real engine: {type(reason).__name__}: {str(reason).strip()[-300:]}")
        return None


def attempt(contestant: who.Contestant, what) -> dict:
    """Start a fresh one, measure, stop it; a contestant that fails is a row that says why."""
    fresh = type(contestant)(contestant.durability) if isinstance(contestant, who.Freehold) else type(contestant)()
    try:
        fresh.start()
        return what(fresh) | {"start_s": round(fresh.started_s, 2)}
    except (who.Unavailable, subprocess.SubprocessError, AssertionError) as reason:
        return {"failed": str(reason).strip().splitlines()[-1] if str(reason).strip() else type(reason).__name__}
    finally:
        fresh.stop()


def one_round(one: who.Contestant, seconds: float) -> dict:
    """The figures of one contestant in one round."""
    whole, stream = who.call_body(tokens=TOKENS), who.call_body(tokens=EVENTS, stream=True)
    found: dict = {"rest_mb": memory_mb(one)}
    for connections in (1, 16, 64):
        before = cpu_seconds(one)
        run = load(one, whole, connections=connections, seconds=seconds)
        run["cpu_us"] = round((cpu_seconds(one) - before) * 1e6 / max(run["answered"] + run["warmed_up_with"], 1), 1)
        found[f"whole_{connections}"] = run
    found["stream_64"] = load(one, stream, connections=64, seconds=seconds)
    found["stream_open"] = load(one, stream, rate=10, seconds=seconds + 1)
    return found


def soak(one: who.Contestant) -> dict:
    """Memory before and after many requests."""
    before = memory_mb(one)
    run = load(one, who.call_body(tokens=TOKENS), connections=16, requests=SOAK, seconds=SOAK_SECONDS)
    return {"before_mb": before, "after_mb": memory_mb(one), "requests": run["answered"], "errors": run["failed"]}


def load(one: who.Contestant, body: dict, **flags) -> dict:
    """One run of the load generator, on its core."""
    command = [sys.executable, str(HERE / "load.py"), "--port", str(one.port), "--body", json.dumps(body)]
    command += ["--key", one.key] if one.key else []
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    with who.pinned(who.LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise who.Unavailable(f"the load generator broke off: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def memory_mb(one: who.Contestant) -> float:
    """Resident memory of the gateway's processes, in MB."""
    total = 0
    for pid in one.processes():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return round(total / 1024, 1)


def cpu_seconds(one: who.Contestant) -> float:
    """Time that the gateway's processes have had on a core."""
    ticks = 0
    for pid in one.processes():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def machine() -> dict:
    """What it ran on."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return {"cpu": model, "cores": cores, "memory_gib": round(memory), "kernel": platform.release().split("-")[0],
            "python": platform.python_version()}  # fmt: skip


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
