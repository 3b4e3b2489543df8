"""A message asked as a chat: the same prompt, and the same events back."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engine import messages, sse

USER = {"role": "user", "content": "hi"}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "ü", "n": [1, 2]}}


def chat(**body) -> dict:
    return messages.as_chat({"model": "m", "messages": [USER], "max_tokens": 5, "stream": True} | body)


def text(*said: str) -> list[dict]:
    return [{"type": "text", "text": one} for one in said]


def test_what_is_asked():
    """Every field that the surface lets through has its place; stop sequences are looked for here."""
    made = chat(system="be kind", temperature=0.5, top_p=0.9, top_k=4, stop_sequences=["x"])
    assert made["messages"] == [{"role": "system", "content": "be kind"}, USER]
    kept = {"model": "m", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stream": True}
    assert {name: value for name, value in made.items() if name != "messages"} == kept | {"timings_per_token": True}


def test_a_system_prompt_of_blocks_is_one_text():
    """And a count that is another in each call is not part of what is read."""
    said = "x-anthropic-billing-header: cc_version=2.1; cch=a5145;You are kind."
    (system, _) = chat(system=text(said, " Be brief."))["messages"]
    assert system["content"] == "x-anthropic-billing-header: cc_version=2.1; cch=fffff;You are kind. Be brief."
    assert chat(system="cch=a5145;")["messages"][0]["content"] == "cch=a5145;"


def test_blocks_and_tools_are_said_as_a_chat_says_them():
    """Thought, text and calls in one message; what came of each call in one of its own."""
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    turn = {"role": "assistant", "content": [thought, *text("one"), USE]}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": text("a", "b")}
    back = {"role": "user", "content": [result, *text("so?")]}
    made = chat(messages=[USER, turn, back])["messages"]
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":"ü","n":[1,2]}'}}
    assert made[1:] == [
        {"role": "assistant", "content": text("one"), "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "user", "content": text("so?")},
        {"role": "tool", "tool_call_id": "t1", "content": "ab"},
    ]
    alone = chat(messages=[{"role": "assistant", "content": [USE]}])["messages"][0]
    assert alone == {"role": "assistant", "content": "", "tool_calls": [call]}
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    made = chat(tools=tools, tool_choice={"type": "any"})
    function = {"name": "look", "description": "", "parameters": {"type": "object"}}
    assert made["tools"] == [{"type": "function", "function": function}] and made["tool_choice"] == "required"
    assert chat(tools=tools, tool_choice={"type": "auto"})["tool_choice"] == "auto"
    assert "tool_choice" not in chat(tools=tools)


def chunk(delta: dict | None = None, count: int = 1, finish: str | None = None, **more) -> bytes:
    timings = {"prompt_n": 3, "cache_n": 4, "predicted_n": count} if count else None
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return json.dumps({"id": "c1", "choices": [choice]} | ({"timings": timings} if timings else {}) | more).encode()


OPENING = chunk({"role": "assistant", "content": None}, count=0)


def turned(*events: bytes, stops: tuple[str, ...] = ()) -> tuple[list[dict], messages.Turn]:
    turn = messages.Turn("base+a@1", stops)
    return turn.take(events), turn


def said(events: list[dict]) -> str:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


def test_an_answer():
    """Begins when its prompt has been counted, and ends with its own count."""
    events, turn = turned(OPENING, chunk({"content": "Hel"}), chunk({"content": "lo"}, 2), chunk(None, 3, "stop"))
    assert [event["type"] for event in events] == ["message_start", "content_block_start", *2 * ["content_block_delta"]]
    start = events[0]["message"]
    assert start["model"] == "base+a@1" and start["id"] == "c1" and said(events) == "Hello" and not turn.complete
    assert start["usage"] == {"cache_read_input_tokens": 4, "input_tokens": 3, "output_tokens": 0}
    end = turn.take([sse.DONE])
    assert [event["type"] for event in end] == ["content_block_stop", "message_delta", "message_stop"] and turn.complete
    assert end[1] == {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                      "usage": {"output_tokens": 3}}  # fmt: skip


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use")]
)
def test_why_it_ended(finish, reason):
    """In the other format's words."""
    events, _ = turned(OPENING, chunk({"content": "a"}), chunk(None, 2, finish), sse.DONE)
    assert events[-2]["delta"]["stop_reason"] == reason


def test_thought_text_and_calls_are_blocks_in_this_order():
    """Each with its own number; all are closed at the end."""
    call = {"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "look", "arguments": ""}}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}
    other = {"tool_calls": [{"index": 1, "id": "t2", "function": {"name": "see", "arguments": "{}"}}]}
    events, _ = turned(
        OPENING, chunk({"reasoning_content": "hm"}), chunk({"content": "so"}), chunk(call), chunk(more), chunk(other),
        chunk(None, 9, "tool_calls"), sse.DONE,
    )  # fmt: skip
    opened = [
        (event["index"], event["content_block"]["type"]) for event in events if event["type"] == "content_block_start"
    ]
    assert opened == [(0, "thinking"), (1, "text"), (2, "tool_use"), (3, "tool_use")]
    assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2, 3]
    json_deltas = [event for event in events if event.get("delta", {}).get("type") == "input_json_delta"]
    assert [(event["index"], event["delta"]["partial_json"]) for event in json_deltas] == [(2, '{"a":1}'), (3, "{}")]


def test_a_stop_sequence_ends_it_and_is_named():
    """Wherever the pieces are cut; what could have gone on to be one and did not is said after all."""
    pieces = [OPENING, *(chunk({"content": text}, n) for n, text in enumerate(["a EN", "x E", "ND z"], 1))]
    events, turn = turned(*pieces, chunk({"content": "never"}), stops=("END", "never"))
    assert said(events) == "a ENx " and turn.complete
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": "END"}
    assert turn.take([chunk({"content": "more"}), sse.DONE]) == []
    events, _ = turned(OPENING, chunk({"content": "a EN"}), chunk(None, 2, "stop"), sse.DONE, stops=("END",))
    assert said(events) == "a EN" and events[-2]["delta"]["stop_sequence"] is None


@given(st.text("abE", max_size=40), st.lists(st.text("abE", min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_what_is_said_ends_before_the_first_stop_sequence(whole, stops, data):
    """Of any whole, in whatever pieces it comes."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    pieces = [chunk({"content": whole[a:b]}) for a, b in itertools.pairwise(cuts)]
    events, _ = turned(OPENING, chunk(), *pieces, chunk(None, 2, "stop"), sse.DONE, stops=tuple(stops))
    at = min((whole.find(stop) for stop in stops if stop in whole), default=None)
    ended = events[-2]["delta"]["stop_sequence"]
    if at is None:
        assert said(events) == whole and ended is None
    else:  # the first to be whole ends it, which may begin after another's beginning
        assert said(events) == whole[: len(said(events))] and ended in stops
        assert whole[len(said(events)) :].startswith(ended) and len(said(events)) >= at
        assert not any(stop in said(events) for stop in stops)


def test_an_engine_that_breaks_off_makes_no_whole_answer():
    """Its error is an event; and an end without a reason is none."""
    events, turn = turned(OPENING, chunk({"content": "a"}), b'{"error": {"code": 500, "message": "out of memory"}}')
    assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "out of memory"}}
    assert turn.take([sse.DONE]) == [] and not turn.complete


def test_as_it_goes_over_the_wire():
    """An event with its name."""
    assert messages.encode([{"type": "message_stop"}]) == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
