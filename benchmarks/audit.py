"""``make bench-audit``: how long it takes to walk the audit chain, to hand it out, and to check that file elsewhere.

A home is filled with settled calls, as a server does it, and an act for every thousand of them. Then each measurement
is a process of its own, which gives its seconds and its largest resident size (`ru_maxrss`); they take turns. The same
is done with a tenth of the events, to see whether memory follows their number. "Bare" reads the same bytes and takes
their SHA-256, and nothing else.

    python benchmarks/audit.py [--events 1000000] [--rounds 3] [--page docs/reference/audit.md]
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
GROUP = 256  # calls that are settled at once
CALLS_AN_ACT = 1_000
WHAT = {
    "write": "calls settled, each with its event (`ledger.durability = strict`, {group} at once)",
    "verify": "`freehold audit verify`: events, calls and checkpoints",
    "export": "`freehold audit export`",
    "script": "`verify_audit.py` on that file",
    "bare": "bare: that file read, and its SHA-256",
}

PAGE = """# The audit chain, measured

<!-- written by 'make bench-audit'; run it to have your own -->

{events:,} events, of which {calls:,} settle a call; {cores} hardware threads, Linux {kernel}, Python {python}, {date};
medians of {rounds}. The load on the machine before it began was {load:.1f}; seconds hold for it at that hour. Bytes are
those that are hashed, {hashed:,} in all ({each:.0f} an event). The database has {database:,} bytes, the export
{export:,}.

Command: `{command}`

| | seconds | events/s | MB/s | peak, MB | peak with {small:,} events, MB |
| --- | ---: | ---: | ---: | ---: | ---: |
{rows}

See [the audit chain](../concepts/audit.md) for what is checked.
"""


def main() -> int:
    """Read the flags, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/reference/audit.md")
    parser.add_argument("--do", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        what, folder = arguments.do
        print(json.dumps(DOES[what](Path(folder), arguments.events) | {"peak_mb": peak()}))
        return 0
    arguments.load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        large = measured(Path(folder) / "large", arguments.events, arguments.rounds)
        small = measured(Path(folder) / "small", arguments.events // 10, 1)
    arguments.page.write_text(page(large, small, arguments))
    print(arguments.page.read_text())
    return 0


def measured(folder: Path, events: int, rounds: int) -> dict[str, Any]:
    """All measurements of a chain of that length."""
    folder.mkdir()
    found: dict[str, Any] = {"write": [child("write", folder, events)]}
    for _ in range(rounds):
        for what in ("verify", "export", "script", "bare"):
            found.setdefault(what, []).append(child(what, folder, events))
    medians = {
        what: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak_mb")}
        for what, runs in found.items()
    }
    names = {"database_bytes": "freehold.db", "export_bytes": "export.jsonl"}
    sizes = {key: (folder / name).stat().st_size for key, name in names.items()}
    return medians | sizes | found["verify"][0]["facts"] | {"hashed": found["bare"][0]["hashed"]}


def child(what: str, folder: Path, events: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    print(f"{what}, {events:,} events", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--events", str(events), "--do", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def opened(folder: Path) -> Any:
    """The home's store, ledger and audit."""
    from freehold.config import AuditSettings
    from freehold.ledger import Audit, Ledger
    from freehold.store import Store

    store = Store(folder / "freehold.db")
    ledger = Ledger(store)
    return store, ledger, Audit(store, ledger, folder / "signing-key.pem", folder, AuditSettings())


def write(folder: Path, events: int) -> dict[str, Any]:
    """Settle calls until there are so many events; a checkpoint for every ten thousand, as a server does."""
    from freehold.ledger import new_id
    from freehold.types import Caller, Kind, Outcome, Role, Settlement, Usage

    store, ledger, audit = opened(folder)
    callers = [Caller(f"key_{number:028x}", f"team {number}", Role.MEMBER) for number in range(20)]

    async def one(number: int) -> None:
        entry = ledger.open(new_id("req"), callers[number % 20], Kind.CHAT)
        usage, ms = Usage(200 + number % 97, number % 61, number % 13), 40.0 + number % 1009 / 7
        more = {"first_token_ms": ms / 3, "waited_ms": ms / 50, "engine_ms": ms / 2, "alias": "tickets"}
        entry.settle(
            Settlement(
                Outcome.ANSWERED, 200, "", "smollm2-135m-instruct", "sha256:" + "ab" * 32, usage, total_ms=ms, **more
            )
        )
        await entry.on_disk()

    async def every() -> None:
        ledger.start()
        number, signed = ledger.head()[0], 0
        while number < events:
            size = min(GROUP, events - number)
            await asyncio.gather(*(one(number + place) for place in range(size)))
            number += size
            if number // CALLS_AN_ACT != (number - size) // CALLS_AN_ACT and number < events:
                ledger.record("test.act", "something", actor="bench", detail={"number": number})
                number += 1
            if number - signed >= 10_000:
                audit.checkpoint()
                signed = number
        await ledger.stop()

    begun = time.perf_counter()
    asyncio.run(every())
    seconds = time.perf_counter() - begun
    audit.checkpoint()
    store.scrub()  # what is in SQLite's log goes into the file
    store.close()
    return {"seconds": seconds}


def verify(folder: Path, events: int) -> dict[str, Any]:
    """The walk."""
    store, _, audit = opened(folder)
    begun = time.perf_counter()
    found = audit.verify()
    seconds = time.perf_counter() - begun
    store.close()
    assert found.holds and found.events == events == found.signed, found
    return {"seconds": seconds, "facts": {"events": found.events, "calls": found.calls}}


def export(folder: Path, _events: int) -> dict[str, Any]:
    """The file."""
    store, _, audit = opened(folder)
    begun = time.perf_counter()
    with (folder / "export.jsonl").open("wb") as stream:
        for line in audit.export():
            stream.write(line)
    seconds = time.perf_counter() - begun
    store.close()
    return {"seconds": seconds}


def script(folder: Path, _events: int) -> dict[str, Any]:
    """The stand-alone verifier, as its users start it: its process's time and size are those of a child."""
    from freehold import sign

    key = sign.SigningKey.load(folder / "signing-key.pem", create=False).public
    path = ROOT / "src/freehold/ledger/verify_audit.py"
    begun = time.perf_counter()
    command = [sys.executable, "-I", str(path), str(folder / "export.jsonl"), "--key", key]
    subprocess.run(command, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - begun}


def bare(folder: Path, _events: int) -> dict[str, Any]:
    """Read and hash; how many bytes of it are events' content."""
    begun = time.perf_counter()
    with (folder / "export.jsonl").open("rb") as stream:
        state = hashlib.sha256()
        while block := stream.read(1 << 20):
            state.update(block)
    seconds = time.perf_counter() - begun
    frame = len('{"event":,"hash":"sha256:"}\n') + 64
    with (folder / "export.jsonl").open("rb") as stream:
        hashed = sum(len(line) - frame for line in stream if line.startswith(b'{"event":'))
    return {"seconds": seconds, "hashed": hashed}


DOES = {"write": write, "verify": verify, "export": export, "script": script, "bare": bare}


def peak() -> float:
    """The largest resident size, in MB: of the child where there is one, else of this process."""
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (child or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1000


def page(large: dict[str, Any], small: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The whole page."""
    rows = []
    for what, said in WHAT.items():
        seconds, mb = large[what]["seconds"], large[what]["peak_mb"]
        speed = f"{large['events'] / seconds:,.0f} | {large['hashed'] / seconds / 1e6:,.0f}"
        rows.append(
            f"| {said.format(group=GROUP)} | {seconds:.1f} | {speed} | {mb:.0f} | {small[what]['peak_mb']:.0f} |"
        )
    usual = arguments.events == 1_000_000 and arguments.rounds == 3
    return PAGE.format(
        events=large["events"], calls=large["calls"], cores=os.cpu_count(), kernel=platform.release().partition("-")[0],
        python=platform.python_version(), date=datetime.date.today().isoformat(), rounds=arguments.rounds,
        load=arguments.load, hashed=large["hashed"], each=large["hashed"] / large["events"], small=small["events"],
        database=large["database_bytes"], export=large["export_bytes"], rows="\n".join(rows),
        command="make bench-audit" if usual else f"python benchmarks/audit.py --events {arguments.events}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
