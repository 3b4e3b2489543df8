"""How fast recorded calls come in: 100,000 lines of about 1 kB in each format, beside a bare reading of the same file.

Each run is a process of its own, which gives its seconds and its largest resident size (`ru_maxrss`, and that of its
largest child). The bare reading is `json.loads` of every line and nothing else. The calls are made up from a fixed
seed; one in 40 holds an e-mail address, so that there is something to find.

    python benchmarks/traffic.py [--lines 100000] [--rounds 3] [--page docs/reference/traffic.md]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = 60.0  # seconds for 100,000 lines
ROOT = Path(__file__).parent.parent
TEXT = """
the ticket customer order delivery invoice asks about broken screen refund late parcel address changed please reply
soon account login fails password reset token expired since Monday shipment Vienna colour wrong size exchange thanks
priority high low normal agent noted model number serial warranty ends next month call back between nine and noon
"""
WORDS = TEXT.split()

PAGE = """# The import of recorded calls, measured

<!-- written by 'make bench-traffic'; run it to have your own -->

{lines:,} lines of about {size:.1f} kB in each format, with the search for secrets and personal data on; {cores}
hardware threads, Linux {kernel}, Python {python}, {date}; medians of {rounds}. The load on the machine before it began
was {load:.1f}; seconds hold for it at that hour. "Bare" is `json.loads` of every line of the same file (of both, for a
batch) and nothing else. "Peak" is the largest resident size of the importing process, "beside" that of the largest
process beside it, which looks for what is sensitive; "CPU" is of both.

Command: `{command}`

| format | seconds | lines/s | bare, s | times bare | CPU, s | peak, MB | beside, MB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

The target is {target:.0f} s for 100,000 lines: {met}.
{tenth}"""
TENTH = """
Memory does not follow the file: {small:,} lines of the first format took {before:.0f} MB, {lines:,} of them
{after:.0f} MB.
"""


def question(rng: random.Random, number: int) -> str:
    """Some 800 characters that differ from call to call."""
    words = rng.choices(WORDS, k=125)
    if number % 40 == 0:
        words[60] = f"jo.{number}@somewhere-else.net"
    return f"Ticket {number}: {' '.join(words)}"


def own(rng: random.Random, number: int) -> dict[str, Any]:
    """A line of Freehold's own format."""
    turns = [{"role": "system", "content": "Read the ticket."}, {"role": "user", "content": question(rng, number)}]
    return {
        "id": f"c{number}", "time": 1.7e9 + number, "group": f"g{number // 7}", "model": "gpt-x",
        "request": {"messages": turns, "temperature": 0}, "answer": '{"queue": "returns"}',
    }  # fmt: skip


def finetuning(rng: random.Random, number: int) -> dict[str, Any]:
    """A fine-tuning line."""
    turns = own(rng, number)["request"]["messages"]
    return {"messages": [*turns, {"role": "assistant", "content": '{"queue": "returns"}'}]}


def batch(rng: random.Random, number: int) -> dict[str, Any]:
    """A line of what a batch was asked."""
    body = own(rng, number)["request"] | {"model": "gpt-x"}
    return {"custom_id": f"b{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def answer(rng: random.Random, number: int) -> dict[str, Any]:
    """A line of what it answered."""
    choice = {"index": 0, "message": {"role": "assistant", "content": '{"queue": "returns"}'}, "finish_reason": "stop"}
    body = {"id": f"x{number}", "object": "chat.completion", "created": 1_700_000_000 + number, "choices": [choice]}
    return {"id": f"r{number}", "custom_id": f"b{number}", "response": {"status_code": 200, "body": body}}


def langfuse(rng: random.Random, number: int) -> dict[str, Any]:
    """An observation of Langfuse."""
    return {
        "id": f"l{number}", "type": "GENERATION", "traceId": f"t{number // 3}", "startTime": "2026-05-03T10:00:00.123Z",
        "model": "gpt-x", "input": own(rng, number)["request"]["messages"],
        "output": {"role": "assistant", "content": '{"queue": "returns"}'},
    }  # fmt: skip


FORMATS: dict[str, Callable[[random.Random, int], dict[str, Any]]] = {
    "freehold": own, "finetuning": finetuning, "batch": batch, "langfuse": langfuse,
}  # fmt: skip


def made(path: Path, line: Callable[[random.Random, int], dict[str, Any]], lines: int) -> Path:
    """A file of so many lines."""
    rng = random.Random(5)
    with path.open("w") as stream:
        for number in range(lines):
            stream.write(json.dumps(line(rng, number)) + "\n")
    return path


def measured(*words: str) -> dict[str, float]:
    """What a process of this file says of itself."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def bare(*files: str) -> dict[str, float]:
    """Read and decode, and nothing else."""
    begun = time.perf_counter()
    for file in files:
        with open(file, "rb") as stream:
            for line in stream:
                json.loads(line)
    return {"seconds": time.perf_counter() - begun, **used()}


def imported(file: str, answers: str = "") -> dict[str, float]:
    """Import, as the command does."""
    from freehold import sensitive, traffic
    from freehold.cli import traffic as cli
    from freehold.samples import Samples
    from freehold.store import TRAFFIC, Store
    from freehold.types import Task

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "traffic.db", TRAFFIC)
        begun = time.perf_counter()
        wish = traffic.Wish(file, answers=answers)
        task = Task("bench", {"kind": "exact"}, 0.03)
        report = traffic.bring_in(
            Samples(store), task, wish, by="bench", look=sensitive.find, workers=cli.workers(file)
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        store.close()
    return {"seconds": seconds, "lines": report.done.line, "kept": report.done.kept, **used()}


def used() -> dict[str, float]:
    """Seconds on a processor, of this process and its children; the largest resident size of each, in MB."""
    own, child = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(one.ru_utime + one.ru_stime for one in (own, child))
    return {"cpu": cpu, "peak_mb": own.ru_maxrss / 1000, "beside_mb": child.ru_maxrss / 1000}


def compared(folder: Path, name: str, lines: int, rounds: int) -> dict[str, Any]:
    """One format: both processes in turns."""
    files = [str(made(folder / f"{name}.jsonl", FORMATS[name], lines))]
    files += [str(made(folder / f"{name}-answers.jsonl", answer, lines))] if name == "batch" else []
    runs = [(measured("--bare", *files), measured("--import", *files)) for _ in range(rounds)]
    assert all(run["kept"] == lines for _, run in runs), runs
    found = {key: statistics.median(run[key] for _, run in runs) for key in ("seconds", "cpu", "peak_mb", "beside_mb")}
    sizes = sum(os.path.getsize(file) for file in files)
    return (
        found
        | {"name": name, "bytes": sizes}
        | {f"bare_{key}": statistics.median(run[key] for run, _ in runs) for key in ("seconds", "cpu")}
    )


def main() -> int:
    """Run, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, default=ROOT / "docs/reference/traffic.md")
    parser.add_argument("--bare", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--import", nargs="+", dest="imported", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare or arguments.imported:
        print(json.dumps(bare(*arguments.bare) if arguments.bare else imported(*arguments.imported)))
        return 0
    arguments.load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = [compared(Path(folder), name, arguments.lines, arguments.rounds) for name in FORMATS]
        small = compared(Path(folder), "freehold", arguments.lines // 10, 1)
    arguments.page.write_text(page(rows, small, arguments))
    print(arguments.page.read_text())
    return 0


def page(rows: list[dict[str, Any]], small: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The whole page."""
    lines = arguments.lines
    table = [
        f"| {row['name']} | {row['seconds']:.1f} | {lines / row['seconds']:,.0f} | {row['bare_seconds']:.1f} | "
        f"**{row['seconds'] / row['bare_seconds']:.0f}x** | {row['cpu']:.1f} | {row['peak_mb']:.0f} | "
        f"{row['beside_mb']:.0f} |"
        for row in rows
    ]
    slowest = max(row["seconds"] for row in rows) * 100_000 / lines
    return PAGE.format(
        lines=lines, size=rows[0]["bytes"] / lines / 1000, cores=os.cpu_count(), kernel=platform.release(),
        python=platform.python_version(), date=time.strftime("%Y-%m-%d"), rounds=arguments.rounds, load=arguments.load,
        command=f"python benchmarks/traffic.py --lines {lines} --rounds {arguments.rounds}", rows="\n".join(table),
        target=TARGET, met=f"{'met' if slowest <= TARGET else '**missed**'} ({slowest:.0f} s at most)",
        tenth=TENTH.format(small=lines // 10, before=small["peak_mb"], lines=lines, after=rows[0]["peak_mb"]),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
