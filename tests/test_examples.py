"""The examples: made by a seed, said to be synthetic, and fit to show what they are there to show."""

import importlib.util
import io
import json
import os
import re
import struct
import subprocess
import sys
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
COUNT, SEED = 600, 7


def module(path: str):
    """A script of the examples, imported from where it stands."""
    name = "example_" + re.sub(r"\W", "_", path)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


tickets, labels, second = module("tickets/make.py"), module("labels/make.py"), module("second.py")


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


@pytest.mark.parametrize("task", ["tickets", "labels"])
def test_one_seed_makes_one_file(task, tmp_path):
    """Two processes with the same seed write the same bytes, whatever the hash seed; another seed others."""

    def made(seed: str, hashes: str) -> bytes:
        words = [sys.executable, str(EXAMPLES / task / "make.py"), "--calls", "80", "--seed", seed]
        path = tmp_path / f"{seed}-{hashes}"
        subprocess.run([*words, "-o", str(path)], check=True, env=os.environ | {"PYTHONHASHSEED": hashes})
        return path.read_bytes()

    assert made("7", "1") == made("7", "2") != made("8", "1")


@pytest.mark.parametrize("make", [tickets, labels])
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


@pytest.mark.parametrize("make", [tickets, labels])
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
    mistyped = sum(call.expected["item"] not in call.ticket for call in calls)
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


@pytest.mark.parametrize("make", [tickets, labels])
def test_newcomers_are_the_latest_groups(make):
    """By the order of first calls, whoever has what is held out comes in the last quarter, which certifies."""
    sizes: dict[str, int] = {}
    newcomers = set()
    for call in make.calls(COUNT, SEED):
        sizes[call.customer.group] = sizes.get(call.customer.group, 0) + 1
        newcomers |= {call.customer.group} if call.customer.newcomer else set()
    before = 0
    for group, size in sizes.items():
        assert group not in newcomers or before >= 0.75 * COUNT
        before += size
    assert len(newcomers) >= 5


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
    """Each of twenty or more labels is expected of some message, and the prompt names them all."""
    found = labels.calls(COUNT, SEED)
    names = {call.expected for call in found}
    assert len(labels.LABELS) >= 20 and names == set(labels.LABELS)
    assert all(label in labels.SYSTEM for label in labels.LABELS)
    share = sum(call.answer == call.expected for call in found) / COUNT
    assert 0.85 < share < 0.98


@pytest.mark.parametrize("task", ["tickets", "labels"])
def test_tasks_are_said_to_be_synthetic(task):
    """The task's file and the page of the examples say that the calls are made up."""
    about = tomllib.loads((EXAMPLES / task / "task.toml").read_text())
    assert about["name"] == task and "ynthetic" in about["about"] and about["margin"] > 0
    assert "synthetic" in (EXAMPLES / "README.md").read_text().lower()


def test_the_page_is_right_about_the_files():
    """The numbers of customers, templates and labels that the examples' page names are those of the scripts."""
    page = (EXAMPLES / "README.md").read_text()
    assert f"are {len({call.customer.group for call in tickets.calls(COUNT, SEED)})} customers" in page
    assert f"are {len({call.customer.group for call in labels.calls(COUNT, SEED)})} customers" in page
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
