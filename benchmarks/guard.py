"""``make bench-guard``: what the guard costs a call, and how long it keeps the event loop from everybody else.

Writes docs/reference/guard.md.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sensitive_lines import DEVELOPMENT, lines

from freehold import sensitive
from freehold.config import GuardSettings, TreatmentSettings
from freehold.guard import Guard
from freehold.guard.gate import INLINE, REMARKS
from freehold.guard.restore import Restorer
from freehold.guard.rules import Destination
from freehold.types import Caller, Kind, Request, Role

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "guard.md"
DESK = Caller("key_1", "desk", Role.MEMBER)
SIZES = (1_000, 4_000, 16_000, 100_000, 1_000_000)
MASKING = GuardSettings(house=TreatmentSettings(secrets="mask", personal="mask"))
ROUNDS = 5


def main() -> int:
    """Measure, write."""
    prose = " ".join(path.read_text() for path in sorted(ROOT.glob("docs/**/*.md")))
    dense = "\n".join(line.text for line in lines(DEVELOPMENT, 1))
    rows = [_row(name, text, size) for name, text in (("prose", prose), ("dense", dense)) for size in SIZES]
    head = HEAD.format(
        date=datetime.date.today(), python=platform.python_version(), inline=INLINE, remarks=REMARKS
    )  # fmt: skip
    PAGE.write_text(head + "\n".join(rows) + TAIL.format(idle=_idle(), event=_event()) + "\n")
    print(f"{PAGE.relative_to(ROOT)} is written.")
    return 0


def _row(name: str, text: str, size: int) -> str:
    body = {"messages": [{"role": "user", "content": (text * (size // len(text) + 1))[:size]}]}
    found = [asyncio.run(_call(body)) for _ in range(ROUNDS if size < 1_000_000 else 2)]
    taken, pause, again = (min(one[place] for one in found) for place in range(3))
    where = "loop" if size < INLINE else "thread"
    cells = (
        name,
        f"{size // 1000:,} kB",
        f"{taken * 1e3:,.2f}",
        f"{taken * 1e9 / size:,.0f}",
        where,
        f"{pause * 1e3:,.1f}",
        f"{again * 1e3:,.2f}",
    )
    return f"| {' | '.join(cells)} |"


async def _call(body: dict) -> tuple[float, float, float]:
    """Seconds for one request, the longest time for which the event loop did not come round meanwhile, and seconds for
    the same texts in the next request."""
    guard, worst, done = Guard(MASKING), 0.0, False
    guard.warm(Destination.HOUSE)

    async def tick() -> None:
        nonlocal worst
        while not done:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    worst, begun = 0.0, time.perf_counter()
    await guard(DESK, Request(Kind.CHAT, "m", body), leaves=False)
    taken = time.perf_counter() - begun
    await asyncio.sleep(0)
    done = True
    await ticking
    begun = time.perf_counter()
    await guard(DESK, Request(Kind.CHAT, "m", body), leaves=False)
    again = time.perf_counter() - begun
    guard.close()
    return taken, worst, again


def _idle() -> float:
    """Microseconds for a call where everything is allowed."""
    guard, request = Guard(), Request(Kind.CHAT, "m", {"messages": []})

    async def calls() -> float:
        begun = time.perf_counter()
        for _ in range(10_000):
            await guard(DESK, request, leaves=False)
        return (time.perf_counter() - begun) / 10_000 * 1e6

    return min(asyncio.run(calls()) for _ in range(ROUNDS))


def _event() -> float:
    """Microseconds for one event of a stream that is restored."""
    names = sensitive.Names()
    names.mark("email", "anna@corp.de")
    chunk = {"id": "x", "object": "chat.completion.chunk", "model": "m", "created": 1}
    events = [
        b"data: "
        + json.dumps(chunk | {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}).encode()
        + b"\n\n"
        for piece in _pieces(10_000)
    ]

    def once() -> float:
        restorer = Restorer(names, Request(Kind.CHAT, "m", {}, True))
        begun = time.perf_counter()
        for event in events:
            restorer.read(event)
        return (time.perf_counter() - begun) / len(events) * 1e6

    return min(once() for _ in range(ROUNDS))


def _pieces(count: int) -> Iterator[str]:
    for number in range(count):
        yield ("word ", "[EMA", "IL_1]", " and ")[number % 4]


HEAD = """# The guard: what it costs

<!-- written by 'make bench-guard'; run it to have your own -->

Measured on {date} with `make bench-guard`, Python {python}, on a machine with other work: one chat with one message of
so many characters, every kind masked. *Prose* is this project's documentation; *dense* is a secret or somebody's data
in more than every second line, which is the worst that we could think of. Up to {inline:,} characters are read in the
event loop and longer texts in a thread; the pause is the longest time in which the loop served nobody else meanwhile.
*Again* is the same message in the next call, as a conversation sends it: a text that was read lately is known by its
hash, unless it has more than {remarks} finds or is JSON in which something was found.

| text | size | ms | us per kB | read in | longest pause, ms | again, ms |
| --- | ---: | ---: | ---: | --- | ---: | ---: |
"""
TAIL = """

Where every action is `allow`, a call costs {idle:.1f} us. An answer whose placeholders are put back costs {event:.0f}
us for each event of its stream; one of a call in which nothing was masked costs nothing.
"""

if __name__ == "__main__":
    sys.exit(main())
