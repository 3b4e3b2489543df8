"""Does the test that watches a canary keep its word? A simulation of `freehold.stats.sequential`; writes
docs/reference/canary.md.

    python benchmarks/canary.py [--repetitions 1000]

Conversations come one after the other, each on one side by the canary's share, and go wrong at a rate that is known.
The shipped test takes them in and is looked at after every one. Each kind's random numbers depend on the seed and the
kind alone.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import textwrap
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from freehold.aliases import Aliases
from freehold.ledger import Ledger
from freehold.promote import Desk, Standing, promote
from freehold.stats import sequential
from freehold.store import Store
from freehold.types import Manifest

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "canary.md"
SEED = 20261203
CALLS = 3000
LEVEL = sequential.ALPHA / 2  # of each of a canary's two tests
NORMAL = 1.959964  # one-sided at 2.5%
STEP = 10  # conversations between two entries of when it was said
SWING = "swings from 1% to 19% and back, every 900"


class Kind(NamedTuple):
    """Rates of going wrong, and the candidate's share; each a number, or a function of the conversation's number."""

    name: str
    incumbent: float | Callable[[np.ndarray], np.ndarray]
    more: float  # the candidate's rate is so much higher
    tolerance: float
    share: float | Callable[[np.ndarray], np.ndarray]


def _swing(number: np.ndarray) -> np.ndarray:
    return 0.1 + 0.09 * np.sin(number * 2 * math.pi / 900)


def _grows(number: np.ndarray) -> np.ndarray:
    return np.where(number < CALLS // 2, 0.1, 0.5)


def _worsens(number: np.ndarray) -> np.ndarray:
    return np.where(number < CALLS // 2, 0.02, 0.2)


EQUAL = [
    Kind("1%", 0.01, 0.0, 0.0, 0.1), Kind("1%", 0.01, 0.0, 0.0, 0.5), Kind("10%", 0.1, 0.0, 0.0, 0.1),
    Kind("10%", 0.1, 0.0, 0.0, 0.5), Kind("50%", 0.5, 0.0, 0.0, 0.5), Kind(SWING, _swing, 0.0, 0.0, 0.5),
    Kind("2%, then 20%", _worsens, 0.0, 0.0, _grows),
]  # fmt: skip
TOLERATED = [
    Kind("1%", 0.01, 0.03, 0.03, 0.1), Kind("1%", 0.01, 0.03, 0.03, 0.5), Kind("10%", 0.1, 0.03, 0.03, 0.1),
    Kind("10%", 0.1, 0.03, 0.03, 0.5), Kind("40%", 0.4, 0.05, 0.05, 0.5), Kind(SWING, _swing, 0.03, 0.03, 0.5),
    Kind("2%, then 20%", _worsens, 0.03, 0.03, _grows),
]  # fmt: skip
WORSE = [
    Kind(f"{incumbent:.0%}", incumbent, more, 0.03, share)
    for share in (0.1, 0.5)
    for incumbent, more in ((0.02, 0.98), (0.02, 0.48), (0.02, 0.18), (0.02, 0.08), (0.1, 0.4), (0.1, 0.2), (0.1, 0.1),
                            (0.3, 0.2))
]  # fmt: skip


def paths(kind: Kind, repetitions: int) -> tuple[np.ndarray, np.ndarray]:
    """For each repetition and conversation: is it the candidate's, and did it go wrong?"""
    rng = np.random.default_rng([SEED, zlib.crc32(repr((kind.name, kind.more, kind.tolerance, _said(kind))).encode())])
    number, shape = np.arange(CALLS), (repetitions, CALLS)
    share = kind.share(number) if callable(kind.share) else kind.share
    rate = kind.incumbent(number) if callable(kind.incumbent) else kind.incumbent
    sides = rng.random(shape) < share
    return sides, rng.random(shape) < rate + kind.more * sides


def first_said(sides: np.ndarray, wrong: np.ndarray, tolerance: float, alpha: float) -> int:
    """The conversation after which the shipped test first said "worse", up to `STEP` late; else `CALLS` + 1."""
    found = sequential.begin(tolerance, ())
    pairs = list(zip(sides.tolist(), wrong.tolist(), strict=True))
    for start in range(0, len(pairs), STEP):
        found = sequential.taken(found, pairs[start : start + STEP])
        if sequential.is_worse(found, alpha):
            return start + STEP
    return CALLS + 1


def habit(sides: np.ndarray, wrong: np.ndarray, tolerance: float) -> np.ndarray:
    """Does a z-test at 2.5% that is looked at after every conversation, from the 30th of each side on, ever say it?"""
    n = np.stack([np.cumsum(~sides, 1), np.cumsum(sides, 1)]).astype(float)
    bad = np.stack([np.cumsum(wrong & ~sides, 1), np.cumsum(wrong & sides, 1)]) / np.maximum(n, 1)
    error = np.sqrt(np.maximum((bad * (1 - bad) / np.maximum(n, 1)).sum(0), 1e-12))
    said = (bad[1] - bad[0] - tolerance) / error > NORMAL
    return (said & (n.min(0) >= 30)).any(1)


def alarms(kinds: list[Kind], repetitions: int) -> list[str]:
    """One row for each kind that is not worse: how often it was ever said to be."""
    rows = [
        "| goes wrong | candidate | share | ours, one test | a z-test, looked at each time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in kinds:
        sides, wrong = paths(kind, repetitions)
        ours = [first_said(*one, kind.tolerance, LEVEL) <= CALLS for one in zip(sides, wrong, strict=True)]
        naive = habit(sides, wrong, kind.tolerance)
        cells = [kind.name, f"+{kind.more * 100:g} points", _said(kind)]
        cells += [_percent(np.mean(ours)), _percent(naive.mean())]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def power(repetitions: int) -> list[str]:
    """One row for each kind that is worse: how soon it is taken back."""
    rows = [
        "| incumbent | candidate | share | within 100 | within 300 | within 1,000 | within 3,000 | half of them in |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in WORSE:
        sides, wrong = paths(kind, repetitions)
        said = np.array([first_said(*one, kind.tolerance, LEVEL) for one in zip(sides, wrong, strict=True)])
        median = int(np.median(said))
        cells = [kind.name, f"{kind.incumbent + kind.more:.0%}", _said(kind)]
        cells += [_percent((said <= limit).mean()) for limit in (100, 300, 1000, 3000)]
        rows.append(f"| {' | '.join([*cells, f'{median:,}' if median <= CALLS else 'more than 3,000'])} |")
        print(rows[-1], flush=True)
    return rows


def turns(repetitions: int, each: int = 10) -> tuple[float, float]:
    """How often a candidate that is no worse is said to be, where each conversation has ``each`` calls that all go
    wrong or none does: if conversations are counted, and if calls are, each as a piece of evidence of its own."""
    rng, found = np.random.default_rng([SEED, each]), {True: 0, False: 0}
    for _ in range(repetitions):
        sides, wrong = rng.random(CALLS // each) < 0.5, rng.random(CALLS // each) < 0.1
        found[True] += first_said(sides, wrong, 0.0, LEVEL) <= CALLS
        found[False] += first_said(np.repeat(sides, each), np.repeat(wrong, each), 0.0, LEVEL) <= CALLS
    return found[True] / repetitions, found[False] / repetitions


def costs() -> tuple[float, float]:
    """Microseconds that one conversation takes in the test, and one call in finding out what its name means."""
    rng, count = np.random.default_rng(SEED), 2000
    pairs = list(zip((rng.random(count) < 0.5).tolist(), (rng.random(count) < 0.1).tolist(), strict=True))
    began = time.process_time()
    sequential.taken(sequential.begin(0.03), pairs)
    taking = (time.process_time() - began) / count * 1e6
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "x.db")
        aliases, models = Aliases(store), {"m": Manifest("m", "sha256:m", 1, "gguf", "", False)}
        desk = Desk(aliases, Ledger(store), lambda: models)
        for number in range(20):
            promote(desk, f"alias-{number}", desk.target("m"), Standing(True, ""), by="benchmark")
        aliases.now()
        began = time.process_time()
        for _ in range(20_000):
            aliases.now().get("alias-7")
        looking = (time.process_time() - began) / 20_000 * 1e6
        aliases.close()
        store.close()
    return taking, looking


def page(repetitions: int) -> str:
    """The page."""
    by_conversation, by_call = turns(repetitions)
    taking, looking = costs()
    error = math.sqrt(LEVEL * (1 - LEVEL) / repetitions) * 100
    about = f"""Written by `python benchmarks/canary.py --repetitions {repetitions}`, seed {SEED}. The test is the
        shipped one of `freehold.stats.sequential`; what it does, and why, is in [the concept](../concepts/canary.md).
        A canary has two such tests, each at {LEVEL:.2%}; the tables are of one. Each kind is simulated
        {repetitions:,} times, {CALLS:,} conversations each; a share of {LEVEL:.2%} has a standard error of {error:.2f}
        points."""
    equal = f"""How often it was ever said to be worse, looked at after each of {CALLS:,} conversations. At most
        {LEVEL:.2%} may be. The z-test of two rates, at 2.5% and one-sided, is what people do who look at a chart each
        day."""
    pooled = """In the last row all goes wrong oftener in the second half, when the candidate has more of the calls:
        pooled over both halves it looks much worse, and is not."""
    counts = f"""The candidate is no worse; each conversation has ten calls, of which all go wrong (10%) or none.
        Counted by conversation it is said to be worse in {by_conversation:.1%} of the simulations, and in
        {by_call:.1%} if every call counts as evidence of its own."""
    cost = f"""One conversation in the test, with all its bounds: {taking:.0f} microseconds, in a thread of its own. For
        a call, finding out what its name means: {looking:.1f} microseconds, with twenty aliases; most of it is one look
        at the time of the database's file."""
    parts = [
        "# Does the canary's test keep its word? A simulation", about,
        "## False alarms: the candidate is as good as the incumbent", equal, "\n".join(alarms(EQUAL, repetitions)),
        pooled,
        "## False alarms: the candidate is worse by exactly what is tolerated",
        "\n".join(alarms(TOLERATED, repetitions)),
        "## How soon a worse candidate is taken back",
        "With a tolerance of three points. Conversations are those of both sides together.",
        "\n".join(power(repetitions)),
        "## Why a conversation counts once", counts, "## What it costs", cost,
    ]  # fmt: skip
    return "\n\n".join(part if part.startswith(("|", "#")) else _filled(part) for part in parts) + "\n"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 118)


def _said(kind: Kind) -> str:
    return "10%, then 50%" if callable(kind.share) else f"{kind.share:.0%}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f}%"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repetitions", type=int, default=1000)
    PAGE.write_text(page(options.parse_args().repetitions))
