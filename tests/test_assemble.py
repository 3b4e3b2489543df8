"""Whole answers out of streams: nothing that the engine would have put into a whole one is lost."""

import json

import pytest

from freehold.engine import assemble, sse
from freehold.types import Kind, Usage

USAGE = Usage(prompt=7, completion=5, cached=2)
COUNTS = {"completion_tokens": 5, "prompt_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 2}}
BASE = {"id": "c", "created": 1, "model": "m", "system_fingerprint": "b0"}


def whole(kind: Kind, *events: dict) -> dict:
    made = assemble.WHOLES[kind]()
    for event in events:
        made.take(event)
    return made.document(USAGE)


def choice(index: int = 0, finish: str | None = None, **more) -> dict:
    return BASE | {"choices": [{"index": index, "finish_reason": finish, **more}]}


def test_several_choices_are_put_together_from_a_stream():
    """Text, calls, logprobs and finish reasons, each to its own choice."""
    call = {"index": 0, "id": "t", "function": {"name": "f", "arguments": '{"a"'}}
    made = whole(
        Kind.CHAT,
        choice(1, delta={"role": "assistant", "content": None}),
        choice(0, delta={"content": "Hel"}, logprobs={"content": [{"token": "Hel"}]}),
        choice(0, delta={"content": "lo"}, logprobs={"content": [{"token": "lo"}]}),
        choice(1, delta={"tool_calls": [call]}),
        choice(1, delta={"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        choice(1, "tool_calls", delta={}),
        choice(0, "stop", delta={}),
        BASE | {"choices": [], "timings": {"predicted_n": 5}},
    )
    first, second = made["choices"]
    assert first == {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Hello"},
        "logprobs": {"content": [{"token": "Hel"}, {"token": "lo"}]},
    }
    assert second["message"]["tool_calls"] == [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert second["message"]["content"] is None and second["finish_reason"] == "tool_calls"
    assert made["usage"] == COUNTS and made["object"] == "chat.completion" and "timings" not in made


def test_a_chat_has_what_the_engines_own_has():
    """Field for field, timings too; and an answer of nothing is empty text."""
    made = whole(
        Kind.CHAT,
        choice(delta={"role": "assistant", "content": None}),
        choice(0, "stop", delta={}) | {"timings": {"a": 1}},
    )
    assert made == BASE | {
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ""}}],
        "usage": COUNTS,
        "timings": {"a": 1},
    }


def test_a_completion_is_its_texts_one_after_the_other():
    """With the logprobs of them all."""
    made = whole(
        Kind.COMPLETION,
        choice(text=" time", logprobs={"content": [1]}),
        choice(text=",", logprobs={"content": [2]}),
        choice(0, "length", text="", logprobs=None) | {"timings": {"a": 1}},
    )
    assert made["choices"] == [
        {"index": 0, "finish_reason": "length", "text": " time,", "logprobs": {"content": [1, 2]}}
    ]
    assert made["object"] == "text_completion" and made["usage"] == COUNTS


def test_a_response_is_what_its_last_event_holds():
    """And nothing of the events before."""
    done = {"id": "r", "object": "response", "created_at": 9, "status": "completed", "output": [], "usage": {}}
    made = whole(
        Kind.RESPONSE,
        {"type": "response.created", "response": {"id": "x"}},
        {"type": "response.completed", "response": done},
    )
    assert made == done | {"completed_at": 9}


def test_a_message_has_its_blocks():
    """Text, thought and the input of tools, which comes in pieces of JSON."""
    start = {"id": "msg", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None,
             "stop_sequence": None, "usage": {}}  # fmt: skip

    def block(index: int, begun: dict, *deltas: dict) -> list[dict]:
        return [
            {"type": "content_block_start", "index": index, "content_block": begun},
            *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    made = whole(
        Kind.MESSAGE,
        {"type": "message_start", "message": start},
        *block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"}),
        *block(
            1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a"}, {"type": "text_delta", "text": "b"}
        ),
        *block(
            2,
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"x":'},
            {"type": "input_json_delta", "partial_json": "1}"},
        ),
        *block(3, {"type": "tool_use", "id": "u", "name": "g"}, {"type": "input_json_delta", "partial_json": '{"cut'}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {}},
        {"type": "message_stop"},
    )
    assert [block.get("thinking") or block.get("text") or block.get("input") for block in made["content"]] == [
        "hm", "ab", {"x": 1}, {},
    ]  # fmt: skip
    assert made["stop_reason"] == "tool_use" and made["id"] == "msg"
    assert made["usage"] == {"cache_read_input_tokens": 2, "input_tokens": 5, "output_tokens": 5}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_whole_however_they_are_cut(size):
    """Lines of other kinds are none of ours."""
    stream = (
        b"event: x\ndata: " + json.dumps({"a": "data: \u00fc"}).encode() + b"\n\n: comment\ndata: [DONE]\n\ndata: {"
    )
    events = sse.Events()
    found = [data for start in range(0, len(stream), size) for data in events.read(stream[start : start + size])]
    assert found == [json.dumps({"a": "data: \u00fc"}).encode(), sse.DONE]
