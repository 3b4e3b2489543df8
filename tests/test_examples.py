"""The examples: made by a seed, said to be synthetic, and fit to show what they are there to show."""

import importlib.util
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import pytest

from freehold import samples, scorers, stats, switch
from freehold import task as tasks
from freehold.types import Answer, Outline, Outlook, Sample, Split

EXAMPLES = Path(__file__).parent.parent / "examples"
COUNT, SEED = 600, 7


def module(path: str):
    """A script of the examples, imported from where it stands."""
    name = "example_" + re.sub(r"\W", "_", path)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


tickets, labels, invoices = (module(f"{task}/make.py") for task in ("tickets", "labels", "invoices"))
second = module("second.py")
MAKERS = {"tickets": tickets, "labels": labels, "invoices": invoices}


@pytest.fixture(scope="module")
def calls():
    return tickets.calls(COUNT, SEED)


@pytest.fixture(scope="module")
def lines(calls):
    return [tickets.line(number, call) for number, call in enumerate(calls, 1)]


def right(answer: str, expected: dict) -> bool:
    """Whether an answer is JSON and all of it is right."""
    try:
        return json.loads(answer) == expected
    except ValueError:
        return False


def split_of(name: str, found: list) -> list[Split]:
    """Which split each of an example's calls is in, by its task's own shares."""
    task = tasks.load(EXAMPLES / name / "task.toml")
    outlines = [Outline(str(n), call.at.timestamp(), group(call), None, 1, 1, True, "") for n, call in enumerate(found)]
    where = samples.divide(outlines, task.tuning, task.validation)
    return [where[outline.id] for outline in outlines]


def group(call) -> str:
    """Whom a call belongs to."""
    return (call.supplier if hasattr(call, "supplier") else call.customer).group


def scores(name: str, found: list) -> list[float]:
    """What the task's own scorer gives the pretended incumbent."""
    make, scorer = MAKERS[name], scorers.make(tasks.load(EXAMPLES / name / "task.toml"), EXAMPLES / name)

    def answer(said) -> Answer:
        return Answer(said if isinstance(said, str) else json.dumps(said))

    graded = [
        scorer.score(Sample(str(n), make.line(n, call)["request"]), answer(call.answer), answer(call.expected))
        for n, call in enumerate(found)
    ]
    assert not any(score.error for score in graded)
    return [score.value for score in graded]


@pytest.mark.parametrize("task", MAKERS)
def test_one_seed_makes_one_file(task, tmp_path):
    """Two processes with the same seed write the same bytes, whatever the hash seed; another seed others."""

    def made(seed: str, hashes: str) -> bytes:
        words = [sys.executable, str(EXAMPLES / task / "make.py"), "--calls", "80", "--seed", seed]
        path = tmp_path / f"{seed}-{hashes}"
        subprocess.run([*words, "-o", str(path)], check=True, env=os.environ | {"PYTHONHASHSEED": hashes})
        return path.read_bytes()

    assert made("7", "1") == made("7", "2") != made("8", "1")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_lines_are_valid(make):
    """Each line has an id of its own, a time in UTC that never goes back, a group, a chat request, texts and terms."""
    found = [make.line(number, call) for number, call in enumerate(make.calls(COUNT, SEED), 1)]
    assert len({one["id"] for one in found}) == len(found) == COUNT
    times = [datetime.fromisoformat(one["time"]) for one in found]
    assert times == sorted(times) and all(time.utcoffset().total_seconds() == 0 for time in times)
    for one in found:
        assert one["group"] and one["model"] == "incumbent-large" and one["terms"] == "synthetic; no terms apply"
        assert [message["role"] for message in one["request"]["messages"]] == ["system", "user"]
        assert all(message["content"] for message in one["request"]["messages"])
        assert "model" not in one["request"] and one["request"]["temperature"] == 0
        assert isinstance(one["answer"], str) and isinstance(one.get("rerun", ""), str)
        assert json.loads(json.dumps(one)) == one


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("count", [1, 2, 30, 1100])
def test_any_number_of_calls_can_be_made(make, count):
    """As many calls as were asked for come out, also very few and very many."""
    assert len(make.calls(count, SEED)) == count


def test_every_expected_answer_has_all_the_fields(calls):
    """An expected answer has the six fields in their kinds, and its values stand in the ticket."""
    for call in calls:
        said = call.expected
        assert tuple(said) == tickets.FIELDS and set(said) == set(tickets.SCHEMA["required"])
        assert said["topic"] in tickets.TOPICS and isinstance(said["urgent"], bool)
        assert said["name"] is None or said["name"] in call.ticket
        assert said["order"] is None or said["order"] in call.ticket
        assert isinstance(said["quantity"], int | None) and isinstance(said["item"], str)


def test_every_template_can_say_everything():
    """No template leaves out a fact that its expected answer holds."""
    for template in tickets.WORDS["templates"]:
        slots = set(re.findall(r"{(\w+)}", template["text"]))
        assert {"name", "order", "hurry"} <= slots and slots & {"problem", "Problem"}, template["name"]
        assert "things" in slots or {"item", "quantity"} <= slots, template["name"]


def test_what_a_ticket_leaves_out_is_left_out_whole():
    """A bracketed part goes where its slot has nothing to say, and stays where it has."""
    said = {"order": None, "name": "Elio"}
    assert tickets.fill("Hello[, order {order}], it is[ {name}].", said) == "Hello, it is Elio."


def test_tickets_vary(calls):
    """At least twelve templates, two languages, nulls in three fields, typing errors, and hardly a ticket twice."""
    assert len({call.template["name"] for call in calls}) >= 12
    assert {call.customer.language for call in calls} == {"en", "de"}
    for name in ("name", "quantity", "order"):
        assert 0.05 < sum(call.expected[name] is None for call in calls) / COUNT < 0.3
    topics = tickets.WORDS["topics"]
    mistyped = sum(
        not any(said[1:] in call.ticket for said in topics[call.customer.language][call.expected["topic"]])
        for call in calls
    )
    assert 0.03 < mistyped / COUNT < 0.3
    assert len({call.ticket for call in calls}) > 0.98 * COUNT


def test_prompts_are_short(lines):
    """A prompt is short enough that some hundred calls are replayed in minutes: under 1,100 characters."""
    assert max(sum(len(message["content"]) for message in one["request"]["messages"]) for one in lines) < 1100


def test_customers_are_unequal_groups(lines):
    """Several dozen groups, of one call to twenty-five."""
    sizes: dict[str, int] = {}
    for one in lines:
        sizes[one["group"]] = sizes.get(one["group"], 0) + 1
    assert 40 <= len(sizes) <= 150 and min(sizes.values()) == 1 and 15 <= max(sizes.values()) <= 25


@pytest.mark.parametrize("seed", [1, 7, 20])
def test_what_is_held_out_comes_only_late(seed):
    """No held-out name, item or template is in the first three quarters of the calls, and all kinds are in the rest."""
    found = tickets.calls(COUNT, seed)
    names, items = tickets.WORDS["names"], set(tickets.WORDS["items"]["held_out"])

    def novel(call) -> set[str]:
        kinds = {"template"} if call.template.get("held_out") else set()
        kinds |= {"item"} if call.expected["item"] in items else set()
        words = call.expected["name"] or ""
        kinds |= {"first"} if words.split(" ")[0] in names["held_out_first"] else set()
        return kinds | ({"last"} if any(words.endswith(" " + last) for last in names["held_out_last"]) else set())

    cut = COUNT * 3 // 4
    assert not set().union(*map(novel, found[:cut]))
    assert set().union(*map(novel, found[cut:])) == {"template", "item", "first", "last"}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("count", [600, 1000])
def test_newcomers_certify(name, count):
    """Whoever may have what is held out is in the split that certifies, by the task's own shares of the calls."""
    found = MAKERS[name].calls(count, SEED)
    certify = split_of(name, found)
    newcomers = [
        (group(call), split)
        for call, split in zip(found, certify, strict=True)
        if (call.supplier if name == "invoices" else call.customer).newcomer
    ]
    assert {split for _, split in newcomers} == {Split.CERTIFICATION}
    assert len({one for one, _ in newcomers}) >= 5


@pytest.mark.parametrize("seed", [1, 7, 20])
def test_the_incumbent_is_good_but_not_perfect(seed):
    """Between nine in ten and 98 in a hundred of its answers are right, and the hard ones less often."""
    found = tickets.calls(COUNT, seed)
    share = sum(right(call.answer, call.expected) for call in found) / COUNT
    assert 0.9 < share < 0.98
    wrong = [call.hard for call in found if not right(call.answer, call.expected)]
    assert sum(wrong) / len(wrong) > sum(call.hard for call in found) / COUNT


def test_the_incumbent_differs_from_itself(calls):
    """A third of the calls were asked twice, and a few of those answers differ: its noise floor."""
    again = [call for call in calls if call.rerun is not None]
    assert 0.25 < len(again) / COUNT < 0.42
    assert 0 < sum(call.rerun != call.answer for call in again) / len(again) < 0.15


def test_a_mistake_is_one():
    """No pretended mistake happens to be right."""
    rng = tickets.random.Random(1)
    for call in tickets.calls(300, 2):
        assert not right(tickets.mistake(rng, call.expected), call.expected)


def test_nobody_real_is_in_it(lines):
    """Mail addresses are at example.org, and nothing looks like a telephone number."""
    text = json.dumps(lines, ensure_ascii=False)
    assert set(re.findall(r"@([\w.-]+)", text)) == {"example.org"}
    assert not re.search(r"\+\d|\d[\d ()/]{7,}\d", " ".join(one["request"]["messages"][1]["content"] for one in lines))


def test_every_label_is_one_of_the_list():
    """Each of twenty or more labels is expected of some message, the prompt names them all, the scorer as well."""
    names = {call.expected for call in labels.calls(COUNT, SEED)}
    assert len(labels.LABELS) >= 20 and names == set(labels.LABELS)
    assert all(label in labels.SYSTEM for label in labels.LABELS)
    assert tuple(tasks.load(EXAMPLES / "labels" / "task.toml").scorer["labels"]) == labels.LABELS


def test_sentences_of_labels_are_told_apart():
    """No sentence stands under two labels or twice under one, each label has eight and three late ones, and the label
    that it is taken for is another one of the list."""
    said = [one for label in labels.WORDS["labels"].values() for one in label["says"] + label["late"]]
    assert len(said) == len({one.lower() for one in said})
    for name, label in labels.WORDS["labels"].items():
        assert len(label["says"]) >= 8 and len(label["late"]) >= 3, name
        assert label["near"] in labels.LABELS and label["near"] != name


@pytest.mark.parametrize("seed", [1, 7, 20])
def test_labels_are_balanced_and_new_sentences_come_late(seed):
    """Each label is tuned on about as often as the others; a fifth to a third of the calls that certify have
    sentences that no other split has; hardly a message comes twice, and no slot is left open."""
    found = labels.calls(1000, seed)
    splits = split_of("labels", found)
    tuned = Counter(call.expected for call, split in zip(found, splits, strict=True) if split is Split.TUNING)
    fair = tuned.total() / len(labels.LABELS)
    assert len(tuned) == len(labels.LABELS) and 0.4 * fair < min(tuned.values()) <= max(tuned.values()) < 2 * fair
    certify = [call.late for call, split in zip(found, splits, strict=True) if split is Split.CERTIFICATION]
    assert 0.2 < sum(certify) / len(certify) < 0.35 and sum(certify) == sum(call.late for call in found)
    assert len({call.message for call in found}) > 0.98 * len(found)
    assert not any("{" in call.message or "}" in call.message for call in found)


def test_the_size_of_customers_can_be_chosen(tmp_path):
    """With --mean 1 everybody writes once, with 5 some five times; less than one is refused."""

    def made(mean: str) -> subprocess.CompletedProcess:
        words = [sys.executable, str(EXAMPLES / "labels/make.py"), "--mean", mean]
        return subprocess.run([*words, "-o", str(tmp_path / mean)], capture_output=True, text=True)

    def sizes(mean: str) -> Counter:
        assert made(mean).returncode == 0
        lines = (tmp_path / mean).read_text().splitlines()
        return Counter(json.loads(one)["group"] for one in lines)

    assert set(sizes("1").values()) == {1}
    assert 4 < 1000 / len(sizes("5")) < 6
    refused = made("0.5")
    assert refused.returncode == 2 and "from 1 to 15" in refused.stderr


SHARES = {"tickets": (0.975, 0.995), "labels": (0.925, 0.96), "invoices": (0.96, 0.98)}  # of tickets: of their fields


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("seed", [1, 7])
def test_the_incumbent_is_as_good_as_the_page_says(name, seed):
    """By the task's own scorer, over 3,000 calls, and the scorer can score them all."""
    found = scores(name, MAKERS[name].calls(3000, seed))
    assert SHARES[name][0] < sum(found) / len(found) < SHARES[name][1]


def verdict(name: str, candidate) -> Outlook:
    """What the certification split says of a candidate with these scores, beside the pretended incumbent."""
    found = MAKERS[name].calls(1000 if name == "labels" else COUNT, SEED)
    calls = [call for call, split in zip(found, split_of(name, found), strict=True) if split is Split.CERTIFICATION]
    margin = tasks.load(EXAMPLES / name / "task.toml").margin
    groups = [group(call) for call in calls]
    return stats.outlook(stats.compare(scores(name, calls), list(map(candidate, calls)), groups, margin=margin), margin)


def test_a_thousand_labels_can_say_either():
    """They certify who is as good as the incumbent on sentences that it knows and misses a sixth of the new ones, and
    do not certify who misses half of them."""

    def misses(share: float):
        rng = random.Random(3)
        return lambda call: float(rng.random() >= (share if call.late else 0.02))

    assert verdict("labels", misses(1 / 6)) is Outlook.NON_INFERIOR
    assert verdict("labels", misses(1 / 2)) is not Outlook.NON_INFERIOR


def test_invoices_can_say_that_a_model_fails():
    """Who works out one invoice in ten is inferior, and who works out all of them is not."""
    assert verdict("invoices", lambda call: float(call.at.minute % 10 == 0)) is Outlook.INFERIOR
    assert verdict("invoices", lambda call: 1.0) is Outlook.NON_INFERIOR


LINES = (  # the lines of each layout: quantity and price, or price and quantity
    r"(?P<q>\d+) x [a-z -]+ at (?P<p>\d+\.\d\d)$",
    r"^[a-z -]+ \| (?P<q>\d+) \| (?P<p>\d+\.\d\d)$",
    r"(?P<q>\d+) [a-z -]+ at (?P<p>\d+\.\d\d) each",
    r"^[a-z -]+  (?P<q>\d+) @ (?P<p>\d+\.\d\d)$",
    r"(?P<q>\d+) [a-z -]+, (?P<p>\d+\.\d\d) apiece",
    r": (?P<q>\d+) pcs, (?P<p>\d+\.\d\d) per piece$",
    r", (?P<p>\d+\.\d\d) each, (?P<q>\d+) of them",
)


def worked_out(text: str) -> str:
    """The amount due, out of the text of an invoice alone, in fractions."""
    goods = Fraction()
    for pattern in LINES:
        for found in re.finditer(pattern, text, re.MULTILINE):
            goods += int(found["q"]) * Fraction(found["p"])
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    *discount, tax = map(int, re.findall(r"(\d+)%", text))
    delivery = re.findall(r"\d+\.\d\d", text)
    assert goods and len(discount) <= 1 and len(delivery) <= 1
    total = goods * (100 - sum(discount)) / 100 + sum(map(Fraction, delivery))
    cents = int(total * (100 + tax) + Fraction(1, 2))
    return f"{cents // 100}.{cents % 100:02}"


def test_the_amounts_of_invoices_are_right():
    """What is expected is what the text of the invoice comes to, worked out in another way; all layouts are there."""
    found = invoices.calls(2000, SEED)
    assert {call.supplier.layout["name"] for call in found} == {one["name"] for one in invoices.WORDS["layouts"]}
    for call in found:
        assert call.expected == worked_out(call.text), call.text


def test_a_wrong_amount_is_wrong():
    """No pretended mistake is within the tolerance of the right amount, and each is an amount."""
    rng, scorer = random.Random(1), scorers.make(tasks.load(EXAMPLES / "invoices" / "task.toml"), EXAMPLES)
    for call in invoices.calls(500, 2):
        said = invoices.mistake(rng, call.invoice)
        assert said > 0 and re.fullmatch(r"\d+\.\d\d", str(said))
        score = scorer.score(Sample("1", {}), Answer(str(said)), Answer(call.expected))
        assert score.value == 0 and not score.error


@pytest.mark.parametrize("seed", [1, 7, 20])
def test_invoices_vary_and_what_is_held_out_comes_late(seed):
    """From one line to five, with and without discount and delivery; held-out layouts and goods only certify."""
    found = invoices.calls(COUNT, seed)
    assert {len(call.invoice.lines) for call in found} == {1, 2, 3, 4, 5}
    assert 0.4 < sum(call.invoice.discount > 0 for call in found) / COUNT < 0.6
    assert 0.5 < sum(call.invoice.delivery > 0 for call in found) / COUNT < 0.7
    goods = set(invoices.WORDS["goods"]["held_out"])
    new = [
        call.supplier.layout.get("held_out", False) or any(one.item in goods for one in call.invoice.lines)
        for call in found
    ]
    splits = split_of("invoices", found)
    assert {split for split, is_new in zip(splits, new, strict=True) if is_new} == {Split.CERTIFICATION}
    assert sum(new) > 0.4 * splits.count(Split.CERTIFICATION)
    assert len({call.text for call in found}) == COUNT


@pytest.mark.parametrize("name", ["labels", "invoices"])
def test_the_switch_names_what_is_there(name):
    """The file of the switch can be read, names the task beside it and its margin, and the tickets' base and source."""
    found, other = (switch.load(EXAMPLES / one / "switch.toml") for one in (name, "tickets"))
    assert tasks.load(EXAMPLES / name / found.task).margin == found.margin
    assert (found.base, found.source) == (other.base, other.source)


@pytest.mark.parametrize("task", MAKERS)
def test_tasks_are_said_to_be_synthetic(task):
    """The task's file and the page of the examples say that the calls are made up."""
    about = tomllib.loads((EXAMPLES / task / "task.toml").read_text())
    assert about["name"] == task and "ynthetic" in about["about"] and about["margin"] > 0
    assert "synthetic" in (EXAMPLES / "README.md").read_text().lower()


def test_the_page_is_right_about_the_files():
    """The numbers of customers, templates and labels that the examples' page names are those of the scripts."""
    page = (EXAMPLES / "README.md").read_text()
    assert f"are {len({call.customer.group for call in tickets.calls(COUNT, SEED)})} customers" in page
    assert f"are {len({call.customer.group for call in labels.calls(1000, SEED)})} customers" in page
    found = tickets.calls(COUNT, SEED)
    certify = [
        group(call)
        for call, split in zip(found, split_of("tickets", found), strict=True)
        if split is Split.CERTIFICATION
    ]
    assert f"{len(certify)} calls of {len(set(certify))} customers certify" in page
    assert f"are {len({call.supplier.group for call in invoices.calls(COUNT, SEED)})} suppliers" in page
    assert f"{len(tickets.WORDS['templates'])} ways to write" in page and f"one of {len(labels.LABELS)} labels" in page


def test_a_schema_is_sent_unless_plain_requests_are_asked_for(calls):
    """A request carries the JSON schema of the expected answer, and none with --plain."""
    first = tickets.line(1, calls[0])["request"]
    assert first["response_format"]["json_schema"]["schema"] == tickets.SCHEMA
    assert "response_format" not in tickets.line(1, calls[0], schema=False)["request"]


def gguf(blocks: int = 6, version: int = 3) -> bytes:
    """A GGUF file with a tensor of 40 bytes in each block and one outside."""

    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word)) + word.encode()

    names = ["token_embd.weight", *(f"blk.{n}.attn_q.weight" for n in range(blocks)), "output_norm.weight"]
    head = b"GGUF" + struct.pack("<IQQ", version, len(names), 3)
    head += text("toy.block_count") + struct.pack("<II", 4, blocks)
    head += text("general.name") + struct.pack("<I", 8) + text("toy")
    head += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc")
    for n, name in enumerate(names):
        head += text(name) + struct.pack("<IQIQ", 1, 10, 0, 64 * n)
    data = b"".join(bytes([n + 1]) * 40 + bytes(24) for n in range(len(names)))
    return head + bytes(-len(head) % 32) + data


def shortened(content: bytes, drop: range) -> bytes:
    target = io.BytesIO()
    second.shorten(io.BytesIO(content), len(content), target, drop)
    return target.getvalue()


def test_the_second_model_lacks_some_blocks():
    """The blocks in between are gone, the later ones numbered anew, and each tensor has the bytes that it had."""
    made = shortened(gguf(6), range(2, 4))
    reader = second.Reader(made)
    assert reader.take(4) == b"GGUF" and reader.number("I") == 3
    tensors, pairs = reader.number("Q"), reader.number("Q")
    metadata = {reader.string(): reader.value(reader.number("I")) for _ in range(pairs)}
    assert metadata["toy.block_count"] == struct.pack("<I", 4) and b"without 2 of its 6" in metadata["general.name"]
    entries = [reader.tensor() for _ in range(tensors)]
    data = -(-reader.at // 32) * 32
    found = {one.name: made[data + one.offset] for one in entries}
    assert all(one.offset % 32 == 0 for one in entries)
    assert found == {
        "token_embd.weight": 1,
        "blk.0.attn_q.weight": 2,
        "blk.1.attn_q.weight": 3,
        "blk.2.attn_q.weight": 6,
        "blk.3.attn_q.weight": 7,
        "output_norm.weight": 8,
    }


def test_the_second_model_passes_the_scanner():
    """The scanner, which reads the same format on its own, finds nothing to object to."""
    from packing import blocked, judge

    assert not blocked(judge(shortened(gguf(6), range(2, 4)), "shorter.gguf"))


@pytest.mark.parametrize(
    ("content", "drop"),
    [(gguf()[:90], range(2, 4)), (gguf(version=2), range(2, 4)), (b"GGU", range(1)), (gguf(), range(5, 7))],
)
def test_no_second_model_of_a_bad_file(content, drop):
    """A file that ends early, is of another version or has too few blocks gives an error, not a model."""
    with pytest.raises(ValueError):
        shortened(content, drop)
