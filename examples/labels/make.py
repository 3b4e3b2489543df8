"""Makes synthetic traffic of a synthetic task: short messages to a bank, to be sorted under one of 24 labels.

    python examples/labels/make.py --calls 1000 --seed 7 -o traffic.jsonl

The messages come from words.toml; bank, labels and customers are made up. The incumbent is a pretence: it knows the
right label, and now and then says the nearest wrong one instead (`pretend`). One seed gives the same bytes each time.
Sentences under `late` come only from customers whose first call is among the latest, which are those that certify.

Most customers write once or twice. A verdict counts customers, not calls: where each of them writes often
(`--mean 5`), the same number of calls certifies less.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

WORDS = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
LABELS = tuple(WORDS["labels"])
INCUMBENT = "incumbent-large"
START, DAYS = datetime(2026, 3, 2, 7, tzinfo=UTC), 42
LARGEST = 15  # calls of one customer
MEAN = 1.3  # calls of one customer, on average
LATE = 0.62  # customers who begin after this share of all calls are newcomers, and may say what is under `late`
LATE_SENTENCES = 0.3  # the share of a newcomer's messages that are among those
SYSTEM = f"Sort the customer's message under one label. Answer with the label alone.\nLabels: {', '.join(LABELS)}"


@dataclass
class Customer:
    """Somebody who writes now and then, mostly of the same few things: their calls count as one group."""

    group: str
    calls: int
    labels: list[str]
    careless: bool
    newcomer: bool = False


@dataclass(frozen=True)
class Call:
    """One recorded call, before it is written as a line. ``late``: the sentence is one that only newcomers say."""

    at: datetime
    customer: Customer
    message: str
    late: bool
    expected: str
    answer: str
    rerun: str | None


def customers(rng: random.Random, calls: int, mean: float) -> list[Customer]:
    """As many customers as it takes for this many calls, in the order in which they come; their sizes are geometric."""
    rate = math.log1p(1 / (mean - 1)) if mean > 1 else math.inf
    found = []
    while calls > 0:
        size = min(calls, LARGEST, 1 + int(rng.expovariate(rate)))
        labels = rng.sample(LABELS, min(len(LABELS), 2 + size // 2))
        found.append(Customer(f"customer-{len(found) + 1:04}", size, labels, careless=rng.random() < 0.2))
        calls -= size
    return found


def diary(rng: random.Random, everybody: list[Customer]) -> list[tuple[datetime, Customer]]:
    """When each call is made, all of a customer's within ten days of the first; marks who is a newcomer."""
    total, before, entries = sum(one.calls for one in everybody), 0, []
    for customer in everybody:
        first = DAYS * before / total
        days = [first] + [first + 10 * rng.random() ** 2 for _ in range(customer.calls - 1)]
        entries += [(START + timedelta(seconds=int(day * 86400)), customer) for day in days]
        before += customer.calls
    entries.sort(key=lambda entry: (entry[0], entry[1].group))
    early = {customer.group for _, customer in entries[: int(LATE * len(entries)) + 1]}
    for customer in everybody:
        customer.newcomer = customer.group not in early
    return entries


def write(rng: random.Random, customer: Customer, label: str, *, late: bool) -> str:
    """The message."""
    core = fill(rng, rng.choice(WORDS["labels"][label]["late" if late else "says"]))
    if customer.careless:
        core = mistype(rng, core)
    opener, closer = rng.choice(WORDS["openers"]), rng.choice(WORDS["closers"])
    aside = fill(rng, rng.choice(WORDS["asides"]))
    return f"{opener}{begun(core, opener)}{rng.choice(('.', '.', '!', '...'))}{aside}{closer}"


def fill(rng: random.Random, text: str) -> str:
    """The text with a word in each of its slots."""
    return re.sub(r"{(\w+)}", lambda slot: rng.choice(WORDS["slots"][slot[1]]), text)


def begun(core: str, opener: str) -> str:
    """The sentence with a capital letter, unless it goes on behind a comma."""
    return core if opener.endswith(", ") else core[0].upper() + core[1:]


def mistype(rng: random.Random, text: str) -> str:
    """The text with two letters inside a word in each other's place."""
    places = [at for at in range(1, len(text) - 2) if text[at - 1 : at + 3].isalpha() and text[at] != text[at + 1]]
    at = rng.choice(places)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def pretend(rng: random.Random, label: str, hard: int) -> str:
    """What the pretended incumbent answers: the label, or a near one, or the label with words around it."""
    if rng.random() >= 0.04 + 0.04 * hard:
        return label
    near = WORDS["labels"][label]["near"]
    return rng.choice((near, near, near, f"The label is {label}.", rng.choice([one for one in LABELS if one != label])))


def calls(count: int, seed: int, mean: float = MEAN) -> list[Call]:
    """The recorded calls, in the order of their times."""
    rng = random.Random(seed)
    return [record(rng, at, customer) for at, customer in diary(rng, customers(rng, count, mean))]


def record(rng: random.Random, at: datetime, customer: Customer) -> Call:
    """One call. A third of them were asked a second time, and then the incumbent mostly says the same again."""
    label = rng.choice(customer.labels)
    late = customer.newcomer and rng.random() < LATE_SENTENCES
    message, hard = write(rng, customer, label, late=late), 2 * late + customer.careless
    answer, again = pretend(rng, label, hard), pretend(rng, label, hard)
    rerun = rng.choice((answer, again)) if rng.random() < 1 / 3 else None
    return Call(at, customer, message, late, label, answer, rerun)


def line(number: int, call: Call) -> dict:
    """A call as a line of Freehold's own traffic format."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": call.message}]
    found = {
        "id": f"message-{number:05}",
        "time": call.at.isoformat().replace("+00:00", "Z"),
        "group": call.customer.group,
        "model": INCUMBENT,
        "request": {"messages": messages, "temperature": 0, "max_tokens": 16},
        "answer": call.answer,
        "expected": call.expected,
        "terms": "synthetic; no terms apply",
    }
    return found if call.rerun is None else found | {"rerun": call.rerun}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic traffic: short messages to be sorted under labels.")
    parser.add_argument("--calls", type=int, default=1000, help="how many calls (default 1000)")
    parser.add_argument("--seed", type=int, default=7, help="one seed, one file (default 7)")
    parser.add_argument("--mean", type=float, default=MEAN, help=f"calls of one on average (default {MEAN})")
    parser.add_argument("-o", "--output", help="where to write (default: standard output)")
    words = parser.parse_args()
    if words.calls < 1:
        parser.error("--calls must be 1 or more")
    if not 1 <= words.mean <= LARGEST:
        parser.error(f"--mean must be from 1 to {LARGEST}")
    found = enumerate(calls(words.calls, words.seed, words.mean), 1)
    text = "".join(json.dumps(line(number, call), ensure_ascii=False) + "\n" for number, call in found)
    if words.output:
        Path(words.output).write_text(text, encoding="utf-8")
    else:
        sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main()
