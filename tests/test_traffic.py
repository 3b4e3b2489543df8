"""Recorded calls come in from files of several formats; whatever is no call is counted, and none is lost."""

from __future__ import annotations

import argparse
import fcntl
import gzip
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from freehold import said, traffic
from freehold.cli import main as command
from freehold.cli import traffic as cli
from freehold.errors import BadTraffic, CannotDo, StoreFailed
from freehold.said import Unfit
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.traffic import batch, bring, lines, portrait
from freehold.traffic.exchange import Row
from freehold.traffic.line import ORDER_ONLY, read
from freehold.types import Answer, Candidate, Kind, Replayed, Sample, Score, Split, Task, ToolCall, Unusable, Usage

TASK = Task("t", {"kind": "exact"}, 0.03)
NOW = 1.8e9
WEATHER = ToolCall("weather", '{"city": "Graz"}')
TOOL_MESSAGE = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}],
}


class Hit(msgspec.Struct):
    """What a detector finds."""

    kind: str


def look(text: str) -> list[Hit]:
    """Finds the word that the tests call a secret."""
    return [Hit("email")] * text.count("jo@") + [Hit("key")] * text.count("sk-")


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    opened = Store(tmp_path / "traffic.db", TRAFFIC)
    yield opened
    opened.close()


@pytest.fixture
def samples(store) -> Samples:
    return Samples(store)


@pytest.fixture
def file(tmp_path):
    """Writes lines, each bytes or a document, and gives the path."""

    def written(*content: Any, name: str = "calls.jsonl") -> str:
        path = tmp_path / name
        raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in content]
        path.write_bytes(b"".join(line + b"\n" for line in raw))
        return str(path)

    return written


def asked(text: str = "hello", **more) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} | more


def own(number: int, **fields) -> dict[str, Any]:
    return {"id": f"o{number}", "time": 1.7e9 + number, "request": asked(f"q {number}"), "answer": "yes"} | fields


def tuned(number: int, **fields) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": "yes"}]} | fields


def batched(number: int, **fields) -> dict[str, Any]:
    line = {"custom_id": f"b{number}", "method": "POST", "url": "/v1/chat/completions"}
    return line | {"body": asked(f"q {number}", model="gpt-x", temperature=0)} | fields


def chat(text: str = "yes", **more) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "created": 1_700_000_000, "model": "gpt-x-1", "choices": [choice]} | more


def answered(number: int, **fields) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "r", "body": chat(f"yes {number}")}
    return {"id": f"batch_req_{number}", "custom_id": f"b{number}", "response": response, "error": None} | fields


def observed(number: int, **fields) -> dict[str, Any]:
    return {
        "id": f"g{number}", "type": "GENERATION", "traceId": f"t{number}", "startTime": "2026-05-03T10:00:00.123Z",
        "model": "gpt-x", "input": [{"role": "user", "content": f"q {number}"}],
        "output": {"role": "assistant", "content": "yes"},
    } | fields  # fmt: skip


def brought(samples: Samples, path: str, task: Task = TASK, **wish) -> traffic.Report:
    """Bring a file in, and hold the books to their sum."""
    report = traffic.bring_in(samples, task, traffic.Wish(path, **wish), by="me", look=look, now=lambda: NOW)
    done = report.done
    assert done.done and done.line == done.kept + done.duplicates + done.skipped
    assert len(list(samples.skipped(done.id))) == done.skipped
    assert len(list(samples.skipped(done.id, duplicates=True))) == done.duplicates
    return report


def kept(samples: Samples, task: Task = TASK) -> list[Sample]:
    return list(samples.of_split(task))


def reasons(samples: Samples, report: traffic.Report) -> dict[int, str]:
    return {lost.line: lost.reason for lost in samples.skipped(report.done.id)}


# Freehold's own format


def test_a_line_of_our_own_is_kept_with_all_that_it_says(samples, file):
    """Every field has its place; what says who asked is set aside."""
    line = own(
        1, time="2026-05-03T10:00:00Z", group="g", model="gpt-x", kind="/v1/chat/completions", expected={"a": 1},
        rerun=TOOL_MESSAGE, terms="evaluation", caller="desk", metadata={"customer": "c"},
        request=asked(model="other", stream=True, user="jo", temperature=0.5),
    )  # fmt: skip
    brought(samples, file(line))
    assert kept(samples) == [
        Sample(
            "o1", asked(temperature=0.5), Kind.CHAT, Answer("yes"), Answer('{"a":1}'), "g", 1777802400.0, "gpt-x",
            "evaluation", "desk", Answer("", (WEATHER,)),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "group"), [("metadata.customer", "c9"), ("request.metadata.customer", "r9"), ("nothing.there", "own")]
)
def test_a_task_says_by_what_its_calls_are_grouped(samples, file, path, group):
    """By a dotted path in the line; the line's own group stands in where nothing is there."""
    line = own(1, group="own", metadata={"customer": "c9"}, request=asked(metadata={"customer": "r9"}))
    task = msgspec.structs.replace(TASK, group=path)
    brought(samples, file(line), task)
    assert kept(samples)[0].group == group


def test_a_call_in_no_group_is_none_where_the_task_groups(samples, file):
    """It would pass for one that stands alone."""
    report = brought(
        samples, file(own(1), own(2, metadata={"c": 5})), msgspec.structs.replace(TASK, group="metadata.c")
    )
    assert "nothing at 'metadata.c'" in reasons(samples, report)[1]
    assert kept(samples)[0].group == "5"


def test_the_command_says_what_the_lines_do_not(samples, file):
    """A line's own word goes before the command's, and that before the task's."""
    task = msgspec.structs.replace(TASK, terms="the task's")
    path = file(own(1), own(2, model="theirs", terms="theirs"))
    brought(samples, path, task, incumbent="said", terms="said")
    assert [(call.incumbent, call.terms) for call in kept(samples)] == [("said", "said"), ("theirs", "theirs")]
    brought(samples, file(own(3), name="b.jsonl"), task)
    assert kept(samples)[-1].terms == "the task's"


def test_calls_without_a_time_keep_the_order_of_their_files(samples, file):
    """Also across files; and the report says how many."""
    first = brought(samples, file(*(own(n, time=None) for n in (3, 1, 2))))
    brought(samples, file(*(own(n, time=None) for n in (9, 8)), name="b.jsonl"))
    assert [call.id for call in kept(samples)] == ["o3", "o1", "o2", "o9", "o8"]
    assert first.untimed == 3 and all(call.at < ORDER_ONLY for call in kept(samples))


def test_a_call_without_an_id_gets_one_from_what_it_asks(samples, file):
    """The same line twice is a duplicate and no second answer; asked again at another time it is one."""
    path = file(own(1, id=None), own(1, id=None), own(1, id=None, time=1.71e9, answer="no"), own(2, id=None, time=None))
    assert brought(samples, path).done.duplicates == 2
    first = next(call for call in kept(samples) if call.at > ORDER_ONLY)
    assert (first.answer, first.rerun) == (Answer("yes"), Answer("no"))
    brought(samples, file(own(2, id=None, time=None, answer="no"), name="b.jsonl"))
    assert kept(samples)[0].rerun is None


BAD = {
    b"{": "broken JSON", b"hello": "not JSON", b'{"id": "\xff\xfe"}': "not UTF-8", b"": "is empty", b"  ": "is empty",
    b"[1, 2]": "no object", b'"text"': "no object", b"{} {}": "broken JSON",
    b'{"request": {"messages": [], "x": NaN}}': "broken JSON",
    b'{"request": {"messages": [], "x": 1e999}}': "too large",
    b'{"request": {"messages": [{"role": "user", "content": "\\ud800"}]}, "answer": "x"}': "broken JSON",
    b'{"request": {"messages": [{"role": "user", "content": "\\udc00 x"}]}, "answer": "x"}': "broken JSON",
    b'{"request": {}, "answer": "a", "answer": "b"}': "'answer' twice",
    b'{"request": {"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}": "nested deeper",
    b'{"request": {"a":' + b"[" * 300 + b"]" * 300 + b"}}": "nested deeper",
    b'{"request": {"messages": [{"role":"user","content":"x"}], "seed": 1' + b"0" * 5000 + b"}}": "too large",
}  # fmt: skip


def test_a_line_that_is_no_json_is_counted_with_its_reason(samples, file):
    """Broken, not UTF-8, a field twice, half a surrogate pair, NaN, 10,000 deep: each has a sentence, none stops."""
    report = brought(samples, file(own(1), *BAD, own(2)))
    found = reasons(samples, report)
    assert report.done.kept == 2 and len(found) == len(BAD)
    for line, wanted in enumerate(BAD.values(), start=2):
        assert wanted in found[line], (line, found[line], wanted)


UNFIT = [
    (own(1, request={"temperature": 1}), "without messages"),
    (own(1, request=asked() | {"messages": []}), "without messages"),
    (own(1, request={"messages": [{"content": "x"}]}), "without a role"),
    (own(1, request={"messages": [{"role": "user", "content": 5}]}), "neither text nor parts"),
    (own(1, answer=""), "empty answer"),
    (own(1, answer=None), "neither an answer nor"),
    (own(1, answer={"error": {"message": "over the limit"}}), "over the limit"),
    (own(1, answer=7), "neither a text nor a message"),
    (own(1, answer={"role": "user", "content": "x"}), "role 'user'"),
    (own(1, time="yesterday"), "neither ISO 8601"),
    (own(1, time=True), "neither ISO 8601"),
    (own(1, time=-5), "before 1970"),
    (own(1, time=NOW + 2e5), "in the future"),
    (own(1, time="2060-01-01"), "in the future"),
    (own(1, id="x" * 600), "id of more than"),
    (own(1, id=["x"]), "id that is no text"),
    (own(1, terms=5), "terms that are no text"),
    (own(1, kind="embeddings"), "cannot be compared"),
    (own(1, kind={"a": 1}), "cannot be compared"),
    (own(1, extra=1), "unknown field 'extra'"),
    (own(1, kind="completions", request={"prompt": [1, 2]}), "not one text"),
    (own(1, kind="responses", request={"input": "x", "previous_response_id": "r"}), "an earlier response"),
    (own(1, request={"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "holds an image"),
    (own(1, request={"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}), "holds audio"),
    (own(1, request={"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}), "'hologram'"),
    (
        own(1, kind="messages", request={"messages": [
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]}),
        "holds an image",
    ),
    (own(1, kind="responses", request={"input": [{"role": "user", "content": [{"type": "input_file"}]}]}), "a file"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), UNFIT, ids=[reason for _, reason in UNFIT])
def test_a_line_that_is_no_usable_call_says_why(samples, file, line, reason):
    """And the calls around it are kept."""
    report = brought(samples, file(own(7), line, own(8)))
    assert reason in reasons(samples, report)[2] and report.done.kept == 2


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2026-05-03T12:00:00+02:00", 1777802400.0),
        ("2026-05-03 10:00:00.500000", 1777802400.5),
        (1777802400, 1777802400.0),
        (1777802400500, 1777802400.5),
        (12.5, 12.5),
    ],
)
def test_times_are_read_as_they_are_written(samples, file, value, at):
    """ISO 8601 with and without a zone, seconds, milliseconds; a small number is a place in an order."""
    brought(samples, file(own(1, time=value)))
    assert kept(samples)[0].at == at


# what was said

MESSAGE = {"type": "message", "role": "assistant", "content": [
    {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
    {"type": "tool_use", "id": "x", "name": "weather", "input": {"city": "Graz"}}]}  # fmt: skip
RESPONSE = {"object": "response", "error": None, "output": [
    {"type": "reasoning", "summary": []},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ab"}]},
    {"type": "function_call", "name": "weather", "arguments": '{"city": "Graz"}', "call_id": "x"}]}  # fmt: skip
SAID = [
    (Kind.CHAT, "text", Answer("text")),
    (Kind.CHAT, chat("ab"), Answer("ab")),
    (Kind.CHAT, TOOL_MESSAGE, Answer("", (WEATHER,))),
    (Kind.CHAT, {"role": "assistant", "content": [{"type": "text", "text": "ab"}]}, Answer("ab")),
    (Kind.CHAT, {"role": "assistant", "content": None, "refusal": "I will not"}, Answer("I will not")),
    (Kind.CHAT, {"function_call": {"name": "weather", "arguments": WEATHER.arguments}}, Answer("", (WEATHER,))),
    (Kind.CHAT, {"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}, Answer("one")),
    (Kind.COMPLETION, {"object": "text_completion", "choices": [{"text": " ab"}]}, Answer(" ab")),
    (Kind.RESPONSE, RESPONSE, Answer("ab", (WEATHER,))),
    (Kind.MESSAGE, MESSAGE, Answer("ab", (ToolCall("weather", '{"city":"Graz"}'),))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "document", "answer"), SAID)
def test_an_answer_is_read_out_of_each_endpoints_document(kind, document, answer):
    """Text, parts, refusals, calls of tools as they were and as they are; of several choices the first."""
    assert said.answer(kind, document) == answer


NOT_SAID = [
    5, {}, {"choices": []}, {"choices": [5]}, {"choices": [{"text": 5}]}, {"output": [5]}, {"output": [{"type": "x"}]},
    {"content": 5}, {"content": [{"type": "image"}]}, {"content": "x", "tool_calls": 5}, {"tool_calls": [{}]},
    {"tool_calls": [{"function": {"name": 5}}]}, {"status": "failed", "output": []}, {"error": "no"},
]  # fmt: skip


@pytest.mark.parametrize("document", NOT_SAID, ids=str)
def test_a_document_without_an_answer_is_unfit(document):
    """Whatever is in it."""
    with pytest.raises(Unfit):
        said.answer(Kind.CHAT, document)


JSONS = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3)
    | some.dictionaries(
        some.sampled_from(
            ["messages", "role", "content", "choices", "message", "output", "type", "tool_calls", "function", "name",
             "request", "answer", "expected", "input", "custom_id", "body", "traceId", "time", "id", "group", "kind",
             "observations", "modelParameters", "startTime", "prompt", "text", "error", "x"]
        ), inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSONS)
@settings(max_examples=400, deadline=None)
def test_no_document_gets_past_the_formats_but_as_a_call_or_a_reason(document):
    """Any JSON in any format: a sample that can be kept, or Unfit; nothing else is raised."""
    from freehold.traffic import formats
    from freehold.traffic.line import Given

    for format in formats.LINES.values():
        assert format.recognises(document) in (True, False)
        if not isinstance(document, dict) or format is batch:
            continue
        try:
            sample = format.sample(document, Given(TASK, NOW, "gpt"))
        except Unfit as error:
            assert str(error)
        else:
            assert sample.id and msgspec.json.encode(sample)


# fine-tuning lines


def test_a_fine_tuning_line_says_what_is_expected(samples, file):
    """The assistant's last message is the expected answer to what stands before it; nobody is the incumbent."""
    line = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, TOOL_MESSAGE],
            "tools": [{"type": "function"}], "parallel_tool_calls": False}  # fmt: skip
    brought(samples, file(line))
    (call,) = kept(samples)
    assert call.request == line | {"messages": line["messages"][:2]}
    assert (call.expected, call.answer, call.incumbent) == (Answer("", (WEATHER,)), None, "")


def test_with_an_incumbent_it_is_that_models_answer(samples, file):
    """Then no answer is known to be right."""
    brought(samples, file(tuned(1)), incumbent="gpt-x")
    (call,) = kept(samples)
    assert (call.expected, call.answer, call.incumbent) == (None, Answer("yes"), "gpt-x")


def test_an_answer_of_weight_nought_is_none(samples, file):
    """The one before it counts; weights are no part of what is asked."""
    turns = [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1},
        {"role": "user", "content": "e"}, {"role": "assistant", "content": "f", "weight": 0},
    ]  # fmt: skip
    report = brought(samples, file({"messages": turns}, {"messages": turns[:2]}, {"messages": turns[1:2]}))
    (call,) = kept(samples)
    assert call.expected == Answer("d")
    assert call.request["messages"] == [{"role": turn["role"], "content": turn["content"]} for turn in turns[:3]]
    assert len(reasons(samples, report)) == 2


# batches


def test_a_batch_is_joined_with_its_answers(samples, file):
    """By custom_id, whatever the order of the lines; time and id from the answer, the model from the request."""
    asking = file(*(batched(n) for n in range(30)), name="in.jsonl")
    answers = file(*(answered(n) for n in reversed(range(30))), name="out.jsonl")
    report = brought(samples, asking, answers=answers)
    assert (report.done.kept, report.done.format) == (30, "batch")
    call = samples.get("t", ["batch_req_7"])["batch_req_7"]
    assert call.request == asked("q 7", temperature=0)
    assert (call.answer, call.at, call.incumbent) == (Answer("yes 7"), 1.7e9, "gpt-x")


def test_the_two_files_may_be_given_the_other_way_round(samples, file):
    """What was asked is seen from the lines."""
    asking, answers = file(batched(1), name="in.jsonl"), file(answered(1), name="out.jsonl")
    assert brought(samples, answers, answers=asking).done.kept == 1


def test_what_does_not_match_is_counted_on_both_sides(samples, file):
    """Unmatched, twice, failed, broken: each with its line and its reason."""
    failed = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    asking = file(*(batched(n) for n in range(6)), batched(1), name="in.jsonl")
    answers = file(
        answered(1), answered(99), answered(1), b"{broken", answered(2, response=failed),
        answered(3, response=None, error={"message": "expired"}), answered(4), {"x": 1}, answered(5, response={}),
        name="out.jsonl",
    )  # fmt: skip
    report = brought(samples, asking, answers=answers)
    found = reasons(samples, report)
    assert report.done.kept == 2 and sorted(found) == [1, 3, 4, 6, 7, 8, 9, 10, 11]
    assert "no answer in the other file" in found[1] and "too long" in found[3] and "expired" in found[4]
    assert "without a body" in found[6] and "shares its custom_id" in found[7]
    assert [re.search(r", line (\d+): it (\w+ \w+)", found[line]).groups() for line in (8, 9, 10, 11)] == [
        ("2", "answers what"), ("3", "answers what"), ("4", "is broken"), ("8", "is no"),
    ]  # fmt: skip


def test_each_endpoint_of_a_batch_is_read(samples, file):
    """Chat, completions and responses; embeddings are nothing to compare."""
    lines = [
        (batched(1), chat()),
        (batched(2, url="/v1/completions", body={"prompt": "x"}), {"choices": [{"text": "two"}]}),
        (batched(3, url="/v1/responses", body={"input": "x"}), RESPONSE | {"created_at": 1_700_000_000}),
        (batched(4, url="/v1/embeddings", body={"input": "x"}), {"data": []}),
    ]
    asking = file(*(line for line, _ in lines), name="in.jsonl")
    response = {"status_code": 200}
    answers = file(
        *(answered(n, response=response | {"body": body}) for n, (_, body) in enumerate(lines, 1)), name="out.jsonl"
    )
    report = brought(samples, asking, answers=answers)
    assert {call.kind for call in kept(samples)} == {Kind.CHAT, Kind.COMPLETION, Kind.RESPONSE}
    assert "cannot be compared" in reasons(samples, report)[4]


def test_of_several_choices_the_first_is_taken_and_that_is_said(samples, file):
    """In each format that holds whole documents."""
    two = chat() | {"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}
    assert brought(samples, file(own(1, answer=two), own(2))).several == 1
    assert brought(samples, file(observed(3, output=two), name="l.jsonl")).several == 1
    asking = file(batched(4), batched(5), name="in.jsonl")
    answers = file(answered(4, response={"body": two}), answered(5), name="out.jsonl")
    assert brought(samples, asking, answers=answers).several == 1
    assert {call.answer.text for call in kept(samples)} == {"one", "yes", "yes 5"}


def test_half_a_batch_is_refused(samples, file):
    """Questions without answers, answers without questions, and answers to what is no batch."""
    asking, answers = file(batched(1), name="in.jsonl"), file(answered(1), name="out.jsonl")
    for path, more, words in [(asking, {}, "--answers"), (answers, {}, "--answers"), (file(own(1)), {"answers": answers}, "second file")]:  # fmt: skip # noqa: E501
        with pytest.raises(BadTraffic) as caught:
            brought(samples, path, **more)
        assert words in caught.value.sentence()
    assert samples.counts() == {}


# Langfuse


@pytest.mark.parametrize("as_list", [False, True])
def test_langfuse_generations_are_calls(samples, file, as_list):
    """As lines and as one list; in camel case and as the exports to blob storage write them."""
    snake = {
        "id": "s", "type": "GENERATION", "trace_id": "t", "start_time": "2026-05-03 10:00:00.000000", "user_id": "u",
        "session_id": None, "provided_model_name": "gpt-y", "model_parameters": '{"temperature": 0.2, "x": "y"}',
        "input": json.dumps({"messages": [{"role": "user", "content": "snake"}], "tools": []}),
        "output": json.dumps({"role": "assistant", "content": "yes"}),
    }  # fmt: skip
    content = [observed(1), observed(2, sessionId="s"), snake, observed(3, type="SPAN"), observed(4, level="ERROR")]
    report = brought(samples, file(content) if as_list else file(*content))
    found = {call.id: call for call in kept(samples)}
    assert set(found) == {"g1", "g2", "s"} and report.done.format == "langfuse"
    assert (found["g1"].group, found["g2"].group, found["s"].group) == ("t1", "s", "u")
    assert found["g1"].at == 1777802400.123 and found["g1"].incumbent == "gpt-x"
    assert found["s"].request == asked("snake", tools=[], temperature=0.2)
    assert (found["s"].at, found["s"].incumbent, found["s"].answer) == (1777802400.0, "gpt-y", Answer("yes"))
    assert "no generation" in reasons(samples, report)[4] and "failed" in reasons(samples, report)[5]


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("plain", Answer("plain")),
        ('{"label": "x"}', Answer('{"label": "x"}')),
        ({"label": "x"}, Answer('{"label":"x"}')),
        ({"content": "bare"}, Answer("bare")),
        ([{"role": "assistant", "content": "in a list"}], Answer("in a list")),
        (chat("whole"), Answer("whole")),
        ([1, 2], Answer("[1,2]")),
    ],
    ids=str,
)
def test_what_langfuse_kept_of_an_answer_is_read(samples, file, output, answer):
    """A message, a document, a text, or what the application made of it."""
    brought(samples, file(observed(1, output=output)))
    assert kept(samples)[0].answer == answer


def test_langfuse_items_and_traces(samples, file):
    """An item has an expected answer; a trace stands for the one generation in it, or for itself."""
    item = {"id": "i1", "input": [{"role": "user", "content": "i"}], "expectedOutput": {"a": 1}, "metadata": {}}
    trace = {"id": "t1", "timestamp": "2026-05-03T10:00:00Z", "input": "x", "output": "y", "sessionId": "s"}
    inner = observed(5)
    lines = [
        item, item | {"id": "i2", "status": "ARCHIVED"}, item | {"id": "i3", "input": {"question": "?"}}, trace,
        trace | {"id": "t2", "observations": [observed(6, type="SPAN"), inner]},
        trace | {"id": "t3", "observations": [inner, inner]},
    ]  # fmt: skip
    report = brought(samples, file(*lines))
    found = {call.id: call for call in kept(samples)}
    assert found["i1"].expected == Answer('{"a":1}') and found["i1"].answer is None
    assert found["t1"].request == asked("x") and found["t1"].group == "s"
    assert found["g5"].group == "s"
    assert list(reasons(samples, report)) == [2, 3, 6]


# which format it is


def test_the_format_is_seen_and_the_reason_said(samples, file):
    """Each by its own lines."""
    for number, (name, line) in enumerate([("freehold", own), ("finetuning", tuned), ("langfuse", observed)]):
        report = brought(samples, file(b"broken", line(number), name=f"{number}.jsonl"))
        assert report.done.format == name and name in report.why


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"a": 1, "b": 2}], "fields a, b"),
        ([b"hello"], "JSON by itself"),
        ([b'{"request":', b"{}}"], "JSON by itself"),
        ([own(1), tuned(1)], "finetuning and freehold"),
    ],
)
def test_an_unknown_or_ambiguous_file_is_refused(samples, file, content, words):
    """With what was seen, and the formats that there are."""
    with pytest.raises(BadTraffic) as caught:
        brought(samples, file(*content))
    assert words in caught.value.message and "--format" in caught.value.hint
    assert samples.imports("t") == []


@pytest.mark.parametrize("name", ["inspectlog", "promptfoo"])
def test_files_of_others_are_read_as_whole_files(samples, tmp_path, name):
    """What they begin with says what they are; what we wrote comes back as the same calls."""
    module = importlib.import_module(f"freehold.traffic.{name}")
    calls = [Sample(f"s{n}", asked(f"q {n}"), answer=Answer("a"), at=1.7e9 + n) for n in range(5)]
    rows = [Row(call, Replayed(call.id, Answer("x")), Score(1.0)) for call in calls]
    module.write(tmp_path / "theirs.json", TASK, Candidate("c", "sha256:0"), rows)
    report = brought(samples, str(tmp_path / "theirs.json"))
    assert report.done.format == ("inspect" if name == "inspectlog" else name) and kept(samples) == calls


def test_a_format_that_is_asked_for_is_taken(samples, file):
    """And the lines of another are said to be that."""
    report = brought(samples, file(own(1), tuned(1)), format="finetuning")
    assert report.done.kept == 1 and "(freehold)" in reasons(samples, report)[1]
    with pytest.raises(BadTraffic, match="no format 'csv'"):
        brought(samples, file(own(1)), format="csv")


def test_mixed_formats_in_one_file_are_counted(samples, file):
    """What most lines are is the format; the others are none of its lines."""
    report = brought(samples, file(own(1), own(2), tuned(1), observed(1)))
    assert report.done.kept == 2 and "(finetuning)" in reasons(samples, report)[3]


# files


def test_a_compressed_file_is_read_as_it_is(samples, tmp_path):
    """And one that is cut off keeps what came before, and says so."""
    raw = gzip.compress(b"".join(json.dumps(own(n)).encode() + b"\n" for n in range(2000)))
    whole, cut = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    whole.write_bytes(raw)
    cut.write_bytes(raw[: len(raw) // 2])
    assert brought(samples, str(whole)).done.kept == 2000
    report = brought(samples, str(cut))
    assert report.done.duplicates > 100 and "cut off" in list(reasons(samples, report).values())[-1]


def test_a_line_of_any_length_is_passed_over_and_not_held(samples, tmp_path):
    """Sixteen MiB is the most; memory does not follow the file."""
    path = tmp_path / "long.jsonl"
    with path.open("wb") as stream:
        stream.write(json.dumps(own(1)).encode() + b"\n" + b'{"request": "')
        for _ in range(40):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n' + json.dumps(own(2)).encode())
    report = brought(samples, str(path))
    assert report.done.kept == 2 and reasons(samples, report) == {2: lines.TOO_LONG}


@given(some.lists(JSONS, max_size=6), some.integers(1, 7), some.sampled_from([None, 1]))
@settings(deadline=None)
def test_a_list_is_cut_into_its_elements_wherever_the_chunks_end(documents, size, indent):
    """Brackets, quotes and backslashes within texts too."""
    documents = [*documents, {"a\\": '"[{,]}\\'}, "\\"]
    raw = json.dumps(documents, indent=indent).encode()
    cutter = lines._Cutter()
    assert raw[:1] == b"["
    found = list(cutter.cut(raw[at : at + size] for at in range(0, len(raw), size)))
    assert [json.loads(one) for one in found] == documents and cutter.fault == ""


@pytest.mark.parametrize(
    ("raw", "elements", "fault"),
    [
        (b"[]", 0, ""), (b"[ ]\n", 0, ""), (b"[1,2", 1, "ends within"), (b"[1] x", 1, "behind the end"),
        (b"[", 0, "ends"), (b"[" + b"[" * 100_000, 0, "ends"), (b'["', 0, "ends"), (b"[1,,2]", 3, ""),
    ],
)  # fmt: skip
def test_a_list_that_is_not_whole_says_so(raw, elements, fault):
    """Cut off, or with something behind it."""
    cutter = lines._Cutter()
    assert (
        len(list(cutter.cut(iter([raw])))) == elements and fault in cutter.fault and bool(fault) == bool(cutter.fault)
    )


def test_an_element_of_any_length_is_passed_over(samples, tmp_path, monkeypatch):
    """As a line is."""
    monkeypatch.setattr(lines, "MAX_PIECE", 5000)
    path = tmp_path / "list.json"
    path.write_text(json.dumps([own(1), {"request": "x" * 20_000}, own(2)]))
    report = brought(samples, str(path))
    assert report.done.kept == 2 and reasons(samples, report) == {2: lines.TOO_LONG}


def test_memory_does_not_follow_the_longest_line(tmp_path):
    """64 MiB on one line, as a line and as an element, and less than that held at any moment."""
    for name, content in (("line.jsonl", b""), ("list.json", b"[")):
        path = tmp_path / name
        with path.open("wb") as stream:
            stream.write(content)
            for _ in range(64):
                stream.write(b"x" * (1 << 20))
        tracemalloc.start()
        with lines.Source(str(path)) as source:
            found = [piece.reason for piece in source.pieces()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found and all(found) and peak < 48 << 20


def test_standard_input_is_read(samples, monkeypatch):
    """Once; it cannot be gone on with."""
    raw = b"".join(json.dumps(own(n)).encode() + b"\n" for n in range(700))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(raw))))
    report = brought(samples, "-")
    assert report.done.kept == 700 and report.digest == ""


def test_files_that_are_none(samples, tmp_path, file):
    """Nothing there, a folder, a pipe, an empty file, UTF-16: each its own sentence."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "wide").write_text("{}", encoding="utf-16")
    for name, words in [("none", "No such file"), (".", "directory"), ("pipe", "no file"), ("empty", "is empty"), ("wide", "UTF-16")]:  # fmt: skip # noqa: E501
        with pytest.raises(BadTraffic, match=words):
            brought(samples, str(tmp_path / name))


def test_a_mark_at_the_front_and_other_line_ends_do_no_harm(samples, tmp_path):
    """A byte order mark, and lines that end as on Windows; the last needs no end."""
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(own(n)).encode() for n in range(3)))
    assert brought(samples, str(path)).done.kept == 3


# duplicates, what is sensitive, and going on


def test_the_same_file_twice_brings_nothing_new(samples, file):
    """Every line of the second time is a duplicate, and no rerun."""
    path = file(*(own(n, id=None) for n in range(10)))
    brought(samples, path)
    again = brought(samples, path)
    assert (again.done.kept, again.done.duplicates) == (0, 10) and again.went_on_behind == 0
    assert all(call.rerun is None for call in kept(samples))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_sensitive_is_counted_by_call_and_kind(samples, file, workers):
    """In questions, answers and calls of tools; in other processes alike; the texts are not in the report."""
    secret = {"function": {"name": "send", "arguments": '{"key": "sk-1"}'}}
    path = file(
        own(1), own(2, request=asked("jo@x jo@y")), own(3, expected="jo@x"),
        own(4, request=asked("z") | {"tools": [{"d": "sk-1"}]}), own(5, answer={"content": "", "tool_calls": [secret]}),
        own(2, id="again", request=asked("jo@x jo@y")),
    )  # fmt: skip
    report = traffic.bring_in(samples, TASK, traffic.Wish(path), by="me", look=look, workers=workers, now=lambda: NOW)
    assert report.done.sensitive == {"email": 3, "key": 2}
    assert report.sensitive_lines == {"email": (2, 3, 6), "key": (4, 5)}
    assert "jo@" not in str(report) and "sk-" not in str(report)


def everything(samples: Samples) -> tuple[Any, ...]:
    """All that an import leaves, but for the time that it began."""
    (found,) = samples.imports("t")
    skips = [list(samples.skipped(found.id, duplicates=duplicate)) for duplicate in (False, True)]
    return msgspec.structs.replace(found, at=0.0), skips, kept(samples), samples.splits(TASK)


def test_an_import_that_was_broken_off_goes_on_behind_its_last_batch(samples, file, tmp_path, monkeypatch):
    """And comes to the same end as one that was not; of a batch with its answers, too."""
    monkeypatch.setattr(bring, "LINES", 7)
    asking = file(*(batched(n) for n in range(50)), name="in.jsonl")
    answers = file(*(answered(n) for n in range(5, 60)), name="out.jsonl")
    wish = traffic.Wish(asking, answers=answers)

    class Cut(Exception):
        pass

    for stop in (1, 6, 8):
        calls = iter(range(100))

        def progress(*_, calls=calls, stop=stop):
            if next(calls) == stop:
                raise Cut

        broken = Samples(Store(tmp_path / f"{stop}.db", TRAFFIC))
        with pytest.raises(Cut):
            traffic.bring_in(broken, TASK, wish, by="me", progress=progress, now=lambda: NOW)
        assert not broken.imports("t")[0].done
        report = traffic.bring_in(broken, TASK, wish, by="me", now=lambda: NOW + 9)
        assert report.went_on_behind == min(7 * (stop + 1), 60)
        whole = Samples(Store(tmp_path / f"{stop}-whole.db", TRAFFIC))
        traffic.bring_in(whole, TASK, wish, by="me", now=lambda: NOW)
        assert everything(broken) == everything(whole)


def test_other_words_or_another_file_do_not_go_on(samples, file, monkeypatch):
    """What was begun with one incumbent is not ended with another."""
    monkeypatch.setattr(bring, "LINES", 2)
    path = file(*(tuned(n) for n in range(9)))

    def progress(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        traffic.bring_in(samples, TASK, traffic.Wish(path), by="me", progress=progress)
    assert brought(samples, path, incumbent="other").went_on_behind == 0
    assert brought(samples, path).went_on_behind == 2


KILLED = """
import sys, time
from pathlib import Path
from freehold import traffic
from freehold.samples import Samples
from freehold.store import TRAFFIC, Store
from freehold.types import Task

def slowly(what, done, total):
    print(done, flush=True)
    time.sleep(0.02)

samples = Samples(Store(Path(sys.argv[1]), TRAFFIC))
traffic.bring_in(samples, Task("t", {}, 0.03), traffic.Wish(sys.argv[2]), by="me", progress=slowly)
"""


def test_kill_9_in_the_middle_loses_and_doubles_nothing(samples, file, tmp_path):
    """A real process, killed; the next one goes on, and all is as if it had never happened."""
    content = [own(n, time=None) if n % 3 else own(n // 2) for n in range(5000)]
    path = file(*(b"x" if n % 100 == 50 else line for n, line in enumerate(content)))
    words = [sys.executable, "-c", KILLED, str(tmp_path / "killed.db"), path]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    for _ in range(4):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    broken = Samples(Store(tmp_path / "killed.db", TRAFFIC))
    before = broken.imports("t")[0]
    assert 0 < before.line < 5000 and not before.done
    assert subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0
    traffic.bring_in(samples, TASK, traffic.Wish(path), by="me")
    assert everything(broken) == everything(samples)


def test_a_full_disk_stops_the_import_where_it_can_go_on(samples, store, file):
    """What was kept stays; with room again, the same command ends it."""
    from sqlalchemy import event

    path = file(*(own(n, answer="y" * 3000) for n in range(1200)))

    def small(raw, _) -> None:
        raw.execute("PRAGMA max_page_count = 700")

    event.listen(store.engine, "connect", small)
    with pytest.raises(StoreFailed, match="full"):
        brought(samples, path)
    assert samples.imports("t")[0].line == 500
    event.remove(store.engine, "connect", small)
    assert brought(samples, path).done.kept == 1200


def test_a_file_of_nothing_but_rubbish_ends_some_time(samples, tmp_path, monkeypatch):
    """A small file can unpack to more lines than a disk can count."""
    monkeypatch.setattr(bring, "HOPELESS", 2000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b'{"request": {}}\n' + b"\n" * 100_000))
    with pytest.raises(BadTraffic, match="none is a call"):
        brought(samples, str(path))
    path.write_bytes(gzip.compress(json.dumps(own(1)).encode() + b"\n" * 100_000))
    with pytest.raises(BadTraffic, match="only 1 were calls"):
        brought(samples, str(path))


# out again


def test_our_own_export_comes_back_as_the_same_calls(samples, store, file, tmp_path):
    """Whatever they came from; also without times, with tools, reruns, and empty answers beside expected ones."""
    brought(samples, file(
        own(1, group="g", expected="", caller="c", terms="x", rerun=TOOL_MESSAGE), own(2, time=None),
        own(3, expected=[1]), own(5, answer=TOOL_MESSAGE),
        own(4, kind="completions", request={"prompt": "p"}, answer="", expected="e"),
        own(6, kind="responses", request={"input": "p", "seed": 2**70}, answer=RESPONSE, time=1.7e9 + 1 / 3),
        own(7, kind="messages", answer=MESSAGE), own(8, answer='{"role": "assistant", "content": "text"}'),
    ))  # fmt: skip
    brought(samples, file(tuned(20), name="b.jsonl"))
    before = kept(samples)
    written = traffic.write(before, str(tmp_path / "out.jsonl"))
    other = Samples(Store(tmp_path / "other.db", TRAFFIC))
    assert brought(other, str(tmp_path / "out.jsonl")).done.kept == written.calls == len(before) == 9
    assert kept(other) == before
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


def test_fine_tuning_lines_have_the_expected_answer_first(samples, file, tmp_path):
    """What is no chat has no place in that format, and is counted."""
    brought(samples, file(own(1, expected="right"), own(2, answer=TOOL_MESSAGE, request=asked(tools=[1])),
                          own(3, kind="completions", request={"prompt": "x"})))  # fmt: skip
    written = traffic.write(kept(samples), str(tmp_path / "out.jsonl"), "finetuning")
    assert (written.calls, written.left_out) == (2, 1)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found[0]["messages"][-1] == {"role": "assistant", "content": "right"}
    assert found[1]["tools"] == [1]
    other = Samples(Store(tmp_path / "other.db", TRAFFIC))
    brought(other, str(tmp_path / "out.jsonl"))
    assert {call.expected for call in kept(other)} == {Answer("right"), Answer("", (WEATHER,))}


def test_an_export_that_fails_leaves_no_half_file(tmp_path):
    """The file appears when it is complete; a folder that is not there is said."""

    def calls():
        yield Sample("a", asked())
        raise BadTraffic("broken")

    with pytest.raises(BadTraffic):
        traffic.write(calls(), str(tmp_path / "out.jsonl"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CannotDo, match="cannot be written"):
        traffic.write([], str(tmp_path / "none/out.jsonl"))


# what they are like


def test_a_portrait_counts_what_is_there(samples, file):
    """Groups, splits, lengths, incumbents, reasons, and what so many calls can certify."""
    content = [own(n, group=f"g{min(n // 4, 18)}", model="gpt-x", expected="e" if n % 2 else None) for n in range(100)]
    brought(samples, file(*content, own(7, id="x", time=1.75e9, answer="no", model="gpt-x"), b"bad", b"worse", b""))
    found = traffic.portray(samples, TASK)
    assert (found.calls, found.groups, found.largest, found.largest_calls) == (100, 19, "g18", 28)
    assert [part.split for part in found.splits] == list(Split)
    assert sum(part.calls for part in found.splits) == 100 and sum(part.groups for part in found.splits) == 19
    assert (found.expected, found.reruns, found.duplicates, found.skipped) == (50, 1, 1, 3)
    assert found.reasons == {"is not JSON": 2, "is empty": 1} and found.incumbents == {"gpt-x": 100}
    assert (found.since, found.until, found.untimed) == (1.7e9, 1.7e9 + 99, 0)
    last = found.splits[-1]
    unseen = 1 - 0.025 ** (1 / last.groups)
    assert found.certifiable["0.15"] == pytest.approx(max((7.85 * 0.15 / last.calls) ** 0.5, unseen)) == unseen
    assert not found.counted
    counted = traffic.portray(samples, TASK, {"o1": Replayed("o1", None, usage=Usage(prompt=5000))})
    assert counted.counted and counted.prompts.longest == 5000


def test_a_portrait_of_nothing_is_no_fault(samples):
    """A task to which nothing came yet."""
    found = traffic.portray(samples, TASK)
    assert (found.calls, found.certifiable, found.prompts.total) == (0, {}, 0)
    assert "no calls to certify on" in "\n".join(cli._page(found))


# the command

TOML = 'name = "t"\nmargin = 0.03\n[scorer]\nkind = "exact"\n'


@pytest.fixture
def freehold(tmp_path, monkeypatch, capsys):
    """Runs a command in a home with the task ``t``; gives its exit code and what it printed."""
    monkeypatch.setitem(sys.modules, "freehold.sensitive", SimpleNamespace(find=look))
    monkeypatch.setattr(sys.modules["freehold"], "sensitive", SimpleNamespace(find=look), raising=False)
    (tmp_path / "task.toml").write_text(TOML)

    def run(*words: str) -> tuple[int, str]:
        code = command.main(["--home", str(tmp_path / "home"), *words])
        out = capsys.readouterr()
        return code, out.out + out.err

    assert run("tasks", "add", str(tmp_path / "task.toml"))[0] == 0
    return run


def test_the_command_from_import_to_erase(freehold, file, tmp_path):
    """Every sub-command on real files, and each change in the audit chain."""
    path = file(*(own(n) for n in range(40)), own(50, request=asked("jo@x")), b"bad")
    code, out = freehold("traffic", "import", path, "--task", "t")
    assert code == 0 and "kept        41" in out and "is not JSON" in out and "1 line holds email (line 41)" in out
    assert "freehold traffic show t --skipped" in out
    code, out = freehold("traffic", "list")
    assert code == 0 and re.search(r"^t +41 +1 ", out, re.MULTILINE)
    code, out = freehold("traffic", "show", "t")
    assert code == 0 and "certification" in out and "points or more, where the two differ" in out and "jo@" not in out
    assert json.loads(freehold("traffic", "show", "t", "--json")[1])["calls"] == 41
    assert "is not JSON" in freehold("traffic", "show", "t", "--skipped")[1]
    assert json.loads(freehold("traffic", "show", "t", "--sample", "o3")[1])["id"] == "o3"
    assert freehold("traffic", "show", "t", "--sample", "none")[0] == 2
    out_file = str(tmp_path / "out.jsonl")
    assert "25 calls" in freehold("traffic", "export", "t", "-o", out_file, "--split", "tuning")[1]
    assert freehold("traffic", "renew", "t")[0] == 2
    assert freehold("traffic", "erase", "t")[0] == 2
    assert freehold("traffic", "erase", "t", "--before", "soon", "--yes")[0] == 2
    assert "41 calls" in freehold("traffic", "erase", "t", "--yes")[1]
    events = [event["act"] for event in json.loads(freehold("audit", "list", "--json")[1])]
    assert events[-3:] == ["traffic.import", "traffic.export", "traffic.erase"]


def test_where_all_lines_lack_the_group_its_path_is_named(freehold, file, tmp_path):
    """In the report and in the picture; with no call kept there is nothing to draw."""
    (tmp_path / "grouped.toml").write_text(
        TOML.replace('"t"', '"g"').replace("[scorer]", 'group = "metadata.who"\n[scorer]')
    )
    assert freehold("tasks", "add", str(tmp_path / "grouped.toml"))[0] == 0
    path = file({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    code, out = freehold("traffic", "import", path, "--task", "g")
    assert code == 1 and "has nothing at 'metadata.who'" in out
    shown = freehold("traffic", "show", "g")[1]
    assert "has nothing at 'metadata.who'" in shown and "no calls yet" in shown and "█" not in shown


def test_reasons_that_differ_in_a_detail_alone_are_counted_together():
    """And one that is always the same is told in full."""
    lost = [Unusable(1, "has no 'a'"), Unusable(2, "has no 'b'"), Unusable(3, "lacks 'c'")]
    assert sorted(portrait.reasons(lost).items()) == [("has no …", 2), ("lacks 'c'", 1)]


def test_too_few_calls_promise_no_margin(freehold, file):
    """No line says that a loss of more than a hundred points could be certified."""
    freehold("traffic", "import", file(*(own(n) for n in range(4))), "--task", "t")
    assert not re.search(r"\d{3}\.\d points", freehold("traffic", "show", "t")[1])


def test_a_task_that_cannot_be_replaced_stays(freehold, tmp_path):
    """A scorer that cannot be made leaves what there was as it was."""
    (tmp_path / "task.toml").write_text(TOML.replace("exact", "nonsense"))
    code, out = freehold("tasks", "add", str(tmp_path / "task.toml"), "--replace")
    assert code == 2 and "no scorer 'nonsense'" in out
    assert json.loads(freehold("tasks", "list", "--json")[1])[0]["scorer"] == {"kind": "exact"}


def test_one_import_at_a_time(freehold, file, tmp_path):
    """A second one in the same home waits for nobody and says so."""
    path = file(own(1))
    with (tmp_path / "home/traffic.lock").open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        code, out = freehold("traffic", "import", path, "--task", "t")
    assert code == 2 and "Another import" in out
    assert freehold("traffic", "import", path, "--task", "t")[0] == 0


def die(text: str) -> list[Hit]:
    """A detector whose process is ended."""
    os._exit(9)


def test_a_detector_that_dies_is_said_and_the_import_goes_on_later(samples, file):
    """Nothing hangs, and nothing is kept that was not looked at."""
    path = file(own(1))
    with pytest.raises(CannotDo, match="was ended"):
        traffic.bring_in(samples, TASK, traffic.Wish(path), by="me", look=die, workers=1)
    assert samples.counts() == {} and brought(samples, path).done.kept == 1


def test_a_command_that_keeps_nothing_says_no(freehold, file):
    """Exit code 1; an unknown task is 2."""
    path = file(own(1, answer=""))
    assert freehold("traffic", "import", path, "--task", "t")[0] == 1
    assert freehold("traffic", "import", path, "--task", "other")[0] == 2


def test_the_report_obeys_no_ones_escapes(freehold, file):
    """What stands in a file may not steer the terminal."""
    path = file(own(1, model="\x1b[31mred"), own(2, **{"\x1b[2J": 1}))
    assert "\x1b" not in freehold("traffic", "import", path, "--task", "t")[1]
    assert "\x1b" not in freehold("traffic", "show", "t")[1]


def test_the_bar_says_how_long_it_takes(monkeypatch, capsys):
    """On a terminal; and nothing where the end is not known."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = iter([0.0, 0.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 10.0))
    bar = cli._Timed()
    bar("importing", 0, 0)
    bar("importing", 10, 100)
    bar("importing", 20, 100)
    assert "80 s left" in capsys.readouterr().err


def test_reading_a_line_is_not_quadratic():
    """A hundred thousand fields, each twice, are refused as quickly as two."""
    line = b"{" + b",".join(b'"k%d":1' % (n % 50_000) for n in range(100_000)) + b"}"
    with pytest.raises(Unfit, match="twice"):
        read(line)


def test_arguments_are_those_that_the_help_names():
    """Each sub-command has its parser."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    found = parser.parse_args(["import", "f", "--task", "t", "--format", "batch", "--answers", "a"])
    assert (found.file, found.task, found.format, found.answers) == ("f", "t", "batch", "a")
    assert Path(found.file).name == "f"
