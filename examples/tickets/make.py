"""Makes synthetic traffic of a synthetic task: support tickets, to be read into JSON.

    python examples/tickets/make.py --calls 600 --seed 7 -o traffic.jsonl

Nothing here was ever said by a person or by a model. The tickets come from the word lists in words.toml. The incumbent
is a pretence too: it knows the right answer, and gets it wrong more often the harder the ticket is (`mistake`). So the
file shows how Freehold works, and says nothing of how good any real model is.

One seed gives the same bytes each time. Names, goods and templates that are marked as held out come only from customers
whose first call is among the latest, so that a certification on the latest calls asks for more than memory.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

WORDS = tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8"))
TOPICS = tuple(WORDS["topics"]["en"])
FIELDS = ("name", "item", "quantity", "order", "topic", "urgent")
INCUMBENT = "incumbent-large"
START, DAYS = datetime(2026, 3, 2, 7, tzinfo=UTC), 56
LARGEST, MEAN = 25, 6.0  # calls of one customer: the most, and about how many on average
LATE = 0.82  # customers who begin after this share of all calls are newcomers, and may be given what is held out

SYSTEM = f"""Read the support ticket into JSON with these keys:
name: the customer's name
item: the product, in the singular
quantity: how many, as a number
order: the order number
topic: one of {", ".join(TOPICS)}
urgent: true only if the customer says that it is urgent, else false
Use null for what the ticket does not say. Answer with the JSON alone."""


def or_null(kind: str) -> dict:
    """The JSON schema of a fact that a ticket may leave out."""
    return {"type": [kind, "null"]}


SCHEMA = {
    "type": "object",
    "properties": {
        "name": or_null("string"),
        "item": {"type": "string"},
        "quantity": or_null("integer"),
        "order": or_null("string"),
        "topic": {"type": "string", "enum": list(TOPICS)},
        "urgent": {"type": "boolean"},
    },
    "required": list(FIELDS),
    "additionalProperties": False,
}


@dataclass
class Customer:
    """A company that writes now and then: its habits make its calls alike, so that they count as one group."""

    company: str
    calls: int
    language: str
    careless: float  # the share of its tickets with typing errors
    newcomer: bool = False
    contacts: list[str] = field(default_factory=list)
    templates: list[dict] = field(default_factory=list)

    @property
    def group(self) -> str:
        return self.company.lower().replace(" ", "-")


@dataclass(frozen=True)
class Call:
    """One recorded call, before it is written as a line. ``hard`` counts what makes the ticket difficult."""

    at: datetime
    customer: Customer
    template: dict
    ticket: str
    expected: dict
    hard: int
    answer: str
    rerun: str | None


def customers(rng: random.Random, calls: int, mean: float) -> list[Customer]:
    """As many customers as it takes for this many calls, of very unequal sizes, in the order in which they come."""
    companies = [f"{place} {trade}" for place in WORDS["companies"]["place"] for trade in WORDS["companies"]["trade"]]
    rng.shuffle(companies)
    found = []
    while calls > 0:
        size = min(calls, LARGEST, 1 + int(rng.expovariate(1 / mean)))
        company = companies[len(found) % len(companies)] + " II" * (len(found) // len(companies))
        language = "de" if rng.random() < 0.1 else "en"
        found.append(Customer(company, size, language, careless=rng.choice((0, 0, 0.1, 0.5))))
        calls -= size
    return found


def diary(rng: random.Random, everybody: list[Customer]) -> list[tuple[datetime, Customer]]:
    """When each call is made: a customer's calls fall within twelve days of its first."""
    total, before, entries = sum(one.calls for one in everybody), 0, []
    for customer in everybody:
        first = DAYS * before / total
        days = [first] + [first + 12 * rng.random() ** 2 for _ in range(customer.calls - 1)]
        entries += [(START + timedelta(seconds=int(day * 86400)), customer) for day in days]
        before += customer.calls
    return sorted(entries, key=lambda entry: (entry[0], entry[1].group))


def settle(rng: random.Random, entries: list[tuple[datetime, Customer]]) -> None:
    """Give every customer the people who write and the templates they keep to; newcomers get what is held out."""
    late = entries[int(LATE * len(entries))][0]
    first = {}
    for at, customer in entries:
        first.setdefault(customer.group, (at, customer))
    for at, customer in first.values():
        customer.newcomer = at > late
        held_out = "held_out_" if customer.newcomer else ""
        customer.contacts = [
            f"{rng.choice(WORDS['names'][held_out + 'first'])} {rng.choice(WORDS['names'][held_out + 'last'])}"
            for _ in range(rng.randint(1, 3))
        ]
        customer.templates = favourites(rng, customer)


def favourites(rng: random.Random, customer: Customer) -> list[dict]:
    """Three templates in the customer's language; the first of a newcomer's is one that is held out."""
    spoken = [one for one in WORDS["templates"] if one["language"] == customer.language]
    known = [one for one in spoken if not one.get("held_out")]
    new = [one for one in spoken if one.get("held_out")]
    return [rng.choice(new), *rng.sample(known, 2)] if customer.newcomer else rng.sample(known, 3)


def facts(rng: random.Random, customer: Customer) -> dict:
    """What a ticket says: the expected answer. Null is what it leaves out."""
    new = customer.newcomer and rng.random() < 0.5
    return {
        "name": rng.choice(customer.contacts) if rng.random() < 0.8 else None,
        "item": rng.choice(WORDS["items"]["held_out" if new else "known"]),
        "quantity": rng.choice((1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 40)) if rng.random() < 0.78 else None,
        "order": number(rng) if rng.random() < 0.72 else None,
        "topic": rng.choice(TOPICS),
        "urgent": rng.random() < 0.3,
    }


def number(rng: random.Random) -> str:
    """An order number."""
    return f"{rng.choice('AKQT')}-{rng.randint(10000, 99999)}"


def write(rng: random.Random, customer: Customer, template: dict, said: dict) -> tuple[str, int]:
    """The ticket, and how many things make it difficult."""
    language, hard = customer.language, template.get("hard", 0) + (customer.language != "en")
    quantity, spelt = said["quantity"], WORDS["numbers"][language]
    if quantity and 1 < quantity <= len(spelt) and rng.random() < 0.3:
        quantity, hard = spelt[quantity - 1], hard + 1
    item = said["item"]
    plural = item if quantity == 1 else item + "s"
    problem = rng.choice(WORDS["topics"][language][said["topic"]])
    if rng.random() < customer.careless:
        problem, hard = mistype(rng, problem), hard + 1
    email = f"{customer.group}@example.org"
    slots = said | {
        "item": item,
        "quantity": quantity,
        "things": f"{quantity} {plural}" if quantity else plural,
        "problem": problem,
        "Problem": problem[0].upper() + problem[1:],
        "hurry": rng.choice(WORDS["hurry"][language]["yes" if said["urgent"] else "no"]),
        "other": number(rng),
        "company": customer.company,
        "email": email,
    }
    ticket = fill(template["text"], slots)
    if rng.random() < 0.25:
        ticket += "\n--\n" + fill(rng.choice(WORDS["footers"]["any"]), slots)
    return ticket, hard + sum(value is None for value in said.values())


def fill(template: str, slots: dict) -> str:
    """The template with its slots filled, without the bracketed parts that have nothing to say."""

    def part(match: re.Match) -> str:
        return "" if any(slots[name] is None for name in re.findall(r"{(\w+)}", match[1])) else match[1]

    text = re.sub(r"\[([^\[\]{}]*{[^\[\]]*)\]", part, template).format_map(slots)
    return re.sub(r" +(?=\n|$)", "", re.sub(r"  +", " ", text)).strip()


def mistype(rng: random.Random, text: str) -> str:
    """The text with two letters inside a word in each other's place."""
    places = [at for at in range(1, len(text) - 2) if text[at : at + 2].isalpha() and text[at] != text[at + 1]]
    at = rng.choice(places)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def pretend(rng: random.Random, expected: dict, hard: int) -> str:
    """What the pretended incumbent answers: the right thing, or now and then what a model might say instead."""
    wrong = rng.random() < 0.015 + 0.017 * hard
    return mistake(rng, expected) if wrong else dumps(expected)


def mistake(rng: random.Random, expected: dict) -> str:
    """A wrong answer, of the kinds that models give.

    Two kinds, words around the JSON and a field that is not there, are what a request with a schema would rule out;
    they are there so that a scorer meets them.
    """
    said, quantity, order = dict(expected), expected["quantity"], expected["order"]
    others = [topic for topic in TOPICS if topic != said["topic"]]
    kinds = [
        {"topic": rng.choice(others)},
        {"urgent": not said["urgent"]},
        {"quantity": None if quantity == 1 else 1},
        {"item": said["item"] + "s"},
    ]
    if order:
        kinds += [{"order": None}, {"order": order[:-1]}]
    if said["name"]:
        kinds += [{"name": said["name"].split()[0]}, {"name": None}]
    kind = rng.randrange(len(kinds) + 2)
    if kind == len(kinds):
        return f"Here is the ticket as JSON: {dumps(said)}"
    if kind > len(kinds):
        del said[rng.choice(FIELDS)]
        return dumps(said)
    return dumps(said | kinds[kind])


def dumps(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False)


def calls(count: int, seed: int, mean: float = MEAN) -> list[Call]:
    """The recorded calls, in the order of their times."""
    rng = random.Random(seed)
    entries = diary(rng, customers(rng, count, mean))
    settle(rng, entries)
    return [record(rng, at, customer) for at, customer in entries]


def record(rng: random.Random, at: datetime, customer: Customer) -> Call:
    """One call. A third of them were asked a second time, and then the incumbent mostly says the same again."""
    said = facts(rng, customer)
    template = rng.choice(customer.templates)
    ticket, hard = write(rng, customer, template, said)
    answer, again = pretend(rng, said, hard), pretend(rng, said, hard)
    rerun = rng.choice((answer, again)) if rng.random() < 1 / 3 else None
    return Call(at, customer, template, ticket, said, hard, answer, rerun)


def line(number: int, call: Call, *, schema: bool = True) -> dict:
    """A call as a line of Freehold's own traffic format. ``schema``: the request carries one for its JSON."""
    request = {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": call.ticket}],
        "temperature": 0,
        "max_tokens": 120,
    }
    if schema:
        shape = {"name": "ticket", "strict": True, "schema": SCHEMA}
        request["response_format"] = {"type": "json_schema", "json_schema": shape}
    found = {
        "id": f"ticket-{number:05}",
        "time": call.at.isoformat().replace("+00:00", "Z"),
        "group": call.customer.group,
        "model": INCUMBENT,
        "request": request,
        "answer": call.answer,
        "expected": call.expected,
        "terms": "synthetic; no terms apply",
    }
    return found if call.rerun is None else found | {"rerun": call.rerun}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic traffic: support tickets to be read into JSON.")
    parser.add_argument("--calls", type=int, default=600, help="how many calls (default 600)")
    parser.add_argument("--seed", type=int, default=7, help="one seed, one file (default 7)")
    parser.add_argument(
        "--mean", type=float, default=MEAN, help="calls of a customer, about, on average: fewer make more groups"
    )
    parser.add_argument("--plain", action="store_true", help="requests without a JSON schema")
    parser.add_argument("-o", "--output", help="where to write (default: standard output)")
    words = parser.parse_args()
    if words.calls < 1 or not 0 < words.mean < 1e6:
        parser.error("--calls must be 1 or more, and --mean above 0")
    text = "".join(
        dumps(line(number, call, schema=not words.plain)) + "\n"
        for number, call in enumerate(calls(words.calls, words.seed, words.mean), 1)
    )
    if words.output:
        Path(words.output).write_text(text, encoding="utf-8")
    else:
        sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main()
