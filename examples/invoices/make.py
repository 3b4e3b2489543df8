"""Makes synthetic traffic of a synthetic task: invoices whose amount due is to be worked out.

    python examples/invoices/make.py --calls 600 --seed 7 -o traffic.jsonl

It is the example of a job that a small model cannot take over: nothing in it is ambiguous, but it takes several
multiplications and a sum, and some hundred examples do not teach a small model to calculate.

The invoices come from words.toml; suppliers, goods and prices are made up. The incumbent is a pretence: it knows the
right amount, and makes more mistakes the more lines there are (`pretend`). One seed gives the same bytes each time.
Goods and layouts that are held out come only from suppliers whose first invoice is among the latest.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

WORDS = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
INCUMBENT = "incumbent-large"
START, DAYS = datetime(2026, 3, 2, 7, tzinfo=UTC), 56
LARGEST, MEAN = 12, 2.0  # invoices of one supplier: the most, and how many on average
LATE = 0.77  # suppliers who begin after this share of all calls are newcomers, and may have what is held out
SLIP = 0.012  # how often the pretended incumbent goes wrong, for each line of an invoice
SYSTEM = """Work out the amount due on the invoice:
1. add up quantity times price over all lines
2. take off the discount on the goods, if there is one
3. add the delivery, if it is charged
4. add the tax on all of that
Round to two decimals. Answer with the amount alone, for example 1234.50"""


@dataclass
class Supplier:
    """A company that sends invoices, all in its own layout: they count as one group."""

    name: str
    calls: int
    newcomer: bool = False
    layout: dict | None = None

    @property
    def group(self) -> str:
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Line:
    """Some of one thing, at a price each."""

    quantity: int
    item: str
    price: Decimal


@dataclass(frozen=True)
class Invoice:
    """What is charged. ``discount`` (0: none) is in per cent of the goods, ``tax`` in per cent of all."""

    lines: tuple[Line, ...]
    discount: int
    delivery: Decimal
    tax: int


@dataclass(frozen=True)
class Call:
    """One recorded call, before it is written as a line."""

    at: datetime
    supplier: Supplier
    invoice: Invoice
    text: str
    expected: str
    answer: str
    rerun: str | None


def amount(invoice: Invoice) -> Decimal:
    """What is to be paid, rounded once, half a cent upwards."""
    goods = sum((line.quantity * line.price for line in invoice.lines), Decimal())
    before_tax = goods * (100 - invoice.discount) / 100 + invoice.delivery
    return (before_tax * (100 + invoice.tax) / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)


def suppliers(rng: random.Random, calls: int) -> list[Supplier]:
    """As many suppliers as it takes for this many calls, in the order in which they come; their sizes are geometric."""
    names = [f"{place} {trade}" for place in WORDS["suppliers"]["place"] for trade in WORDS["suppliers"]["trade"]]
    rng.shuffle(names)
    found = []
    while calls > 0:
        size = min(calls, LARGEST, 1 + int(rng.expovariate(math.log1p(1 / (MEAN - 1)))))
        again = len(found) // len(names)
        found.append(Supplier(names[len(found) % len(names)] + (f" {again + 1}" if again else ""), size))
        calls -= size
    return found


def diary(rng: random.Random, everybody: list[Supplier]) -> list[tuple[datetime, Supplier]]:
    """When each invoice is read, all of a supplier's within two weeks of the first; marks newcomers, gives layouts."""
    total, before, entries = sum(one.calls for one in everybody), 0, []
    for supplier in everybody:
        first = DAYS * before / total
        days = [first] + [first + 14 * rng.random() ** 2 for _ in range(supplier.calls - 1)]
        entries += [(START + timedelta(seconds=int(day * 86400)), supplier) for day in days]
        before += supplier.calls
    entries.sort(key=lambda entry: (entry[0], entry[1].group))
    early = {supplier.group for _, supplier in entries[: int(LATE * len(entries)) + 1]}
    for supplier in everybody:
        supplier.newcomer = supplier.group not in early
        new = supplier.newcomer and rng.random() < 0.5
        supplier.layout = rng.choice([one for one in WORDS["layouts"] if one.get("held_out", False) == new])
    return entries


def charge(rng: random.Random, supplier: Supplier) -> Invoice:
    """What an invoice charges: from one to five lines, with or without a discount and delivery."""
    values = WORDS["values"]
    goods = WORDS["goods"]["known"] + (WORDS["goods"]["held_out"] if supplier.newcomer else [])
    items = rng.sample(goods, rng.choice((1, 1, 2, 2, 3, 3, 4, 5)))
    return Invoice(
        tuple(Line(rng.choice(values["quantity"]), item, price(rng)) for item in items),
        rng.choice(values["discount"]) if rng.random() < 0.5 else 0,
        Decimal(rng.choice(values["delivery"])) if rng.random() < 0.6 else Decimal(),
        rng.choice(values["tax"]),
    )


def price(rng: random.Random) -> Decimal:
    """A price of one piece, more often low than high."""
    whole = rng.choice((rng.randint(1, 9), rng.randint(10, 99)))
    return whole + Decimal(rng.choice(WORDS["values"]["cents"])) / 100


def write(rng: random.Random, supplier: Supplier, invoice: Invoice) -> str:
    """The invoice as its supplier writes it."""
    layout, day, number = supplier.layout, rng.choice(WORDS["values"]["day"]), rng.randint(1000, 9999)
    about = {"supplier": supplier.name, "number": number, "day": day}
    lines = [
        layout["line"].format(
            quantity=line.quantity,
            item=line.item,
            things=line.item + "s" * (line.quantity > 1),
            price=f"{line.price:.2f}",
        )
        for line in invoice.lines
    ]
    text = layout["head"].format_map(about) + layout["between"].join(lines)
    text += layout["discount"].format(discount=invoice.discount) if invoice.discount else ""
    text += layout["delivery"].format(delivery=invoice.delivery) if invoice.delivery else ""
    return text + layout["tax"].format(tax=invoice.tax) + layout["foot"].format_map(about)


def pretend(rng: random.Random, invoice: Invoice) -> str:
    """What the pretended incumbent answers: the amount, or now and then one that is off."""
    wrong = rng.random() < SLIP * len(invoice.lines)
    return str(mistake(rng, invoice) if wrong else amount(invoice))


def mistake(rng: random.Random, invoice: Invoice) -> Decimal:
    """A wrong amount, of the kinds that come of calculating in one's head: more than a cent off."""
    right, (first, *others) = amount(invoice), invoice.lines
    slips = [
        amount(replace(invoice, discount=0)),
        amount(replace(invoice, delivery=Decimal())),
        amount(replace(invoice, tax=0)),
        amount(replace(invoice, lines=(replace(first, quantity=first.quantity + 1), *others))),
        right + rng.choice((-10, -1, 1, 10)),
    ]
    return rng.choice([slip for slip in slips if abs(slip - right) > Decimal("0.01") and slip > 0])


def calls(count: int, seed: int) -> list[Call]:
    """The recorded calls, in the order of their times."""
    rng = random.Random(seed)
    return [record(rng, at, supplier) for at, supplier in diary(rng, suppliers(rng, count))]


def record(rng: random.Random, at: datetime, supplier: Supplier) -> Call:
    """One call. A third of them were asked a second time, and then the incumbent mostly says the same again."""
    invoice = charge(rng, supplier)
    text = write(rng, supplier, invoice)
    answer, again = pretend(rng, invoice), pretend(rng, invoice)
    rerun = rng.choice((answer, again)) if rng.random() < 1 / 3 else None
    return Call(at, supplier, invoice, text, str(amount(invoice)), answer, rerun)


def line(number: int, call: Call) -> dict:
    """A call as a line of Freehold's own traffic format."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": call.text}]
    found = {
        "id": f"invoice-{number:05}",
        "time": call.at.isoformat().replace("+00:00", "Z"),
        "group": call.supplier.group,
        "model": INCUMBENT,
        "request": {"messages": messages, "temperature": 0, "max_tokens": 16},
        "answer": call.answer,
        "expected": call.expected,
        "terms": "synthetic; no terms apply",
    }
    return found if call.rerun is None else found | {"rerun": call.rerun}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic traffic: invoices whose amount is to be worked out.")
    parser.add_argument("--calls", type=int, default=600, help="how many calls (default 600)")
    parser.add_argument("--seed", type=int, default=7, help="one seed, one file (default 7)")
    parser.add_argument("-o", "--output", help="where to write (default: standard output)")
    words = parser.parse_args()
    if words.calls < 1:
        parser.error("--calls must be 1 or more")
    found = enumerate(calls(words.calls, words.seed), 1)
    text = "".join(json.dumps(line(number, call), ensure_ascii=False) + "\n" for number, call in found)
    if words.output:
        Path(words.output).write_text(text, encoding="utf-8")
    else:
        sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main()
